/*
 * The sink that is a program: one JSON object.
 *
 *   {"key","text","state":"firing"|"resolved"|"test","generation"?,"count","time","source":"parry",
 *    "title"?,"cause"?,"cause_count"?,"sample"?,"clients"?,"sessions"?,"fields"?,"severity","since","opened"}
 *
 * or, for a digest, {"key":"digest","text","state","count","time","source","alerts":[ … ]}.
 *
 * With a secret each request is signed: `parry-signature: t=UNIX,v1=HEX`, the HMAC-SHA256 of "UNIX.BODY". The time is in it
 * so that a copy of an old request is worth nothing.
 */
#include "sink.h"

#include <stdio.h>

static bool append_note(struct pry_buffer *out, const struct pry_note *note)
{
  const char *state = note->state == PRY_NOTE_RESOLVED ? "resolved" : note->state == PRY_NOTE_TEST ? "test" : "firing";
  return pry_buffer_append_text(out, "{") && pry_note_append_member(out, "key", note->key) &&
         pry_note_append_member(out, "text", note->text) && pry_note_append_member(out, "state", state) &&
         (!note->generation[0] || pry_note_append_member(out, "generation", note->generation)) &&
         pry_buffer_append_format(out, "\"count\":%lu,\"time\":%.3f,\"source\":\"parry\",", note->count, note->time) &&
         pry_note_append_facts(out, note) && pry_buffer_append_text(out, "}");
}

static bool append_digest(struct pry_buffer *out, const struct pry_sink_message *message)
{
  size_t count = pry_sink_note_count(message), firing = 0, given = 0;
  for (const struct pry_list *link = message->notes->next; link != message->notes; link = link->next)
    firing += PRY_CONTAINER_OF(link, struct pry_note, link)->state != PRY_NOTE_RESOLVED;
  bool ok = pry_buffer_append_format(out,
                                     "{\"key\":\"digest\",\"text\":\"%zu alerts\",\"state\":\"%s\",\"count\":%zu,"
                                     "\"time\":%.3f,\"source\":\"parry\",\"lost\":%lu,\"alerts\":[",
                                     count, firing ? "firing" : "resolved", count, message->now, message->lost);
  for (const struct pry_list *link = message->notes->next; ok && link != message->notes; link = link->next)
    ok = pry_buffer_append_text(out, given++ ? "," : "") &&
         append_note(out, PRY_CONTAINER_OF(link, struct pry_note, link));
  return ok && pry_buffer_append_text(out, "]}");
}

static bool add_signature(struct pry_sink_message *message)
{
  unsigned char signature[PRY_SIGNATURE_BYTES];
  struct pry_buffer signed_text, value;
  pry_buffer_init(&signed_text, 0);
  pry_buffer_init(&value, 0);
  bool ok = pry_buffer_append_format(&signed_text, "%.0f.", message->now) &&
            pry_buffer_append_slice(&signed_text, pry_buffer_slice(&message->body)) &&
            pry_sign(pry_slice_of(message->sink->sign), pry_buffer_slice(&signed_text), signature) &&
            pry_buffer_append_format(&value, "t=%.0f,v1=", message->now) &&
            pry_append_hex(&value, signature, sizeof signature) &&
            pry_headers_add(&message->headers, PRY_SLICE("parry-signature"), pry_buffer_slice(&value));
  pry_buffer_fini(&signed_text);
  pry_buffer_fini(&value);
  return ok;
}

static bool render(struct pry_sink_message *message)
{
  bool alone = pry_sink_note_count(message) == 1;
  return pry_buffer_append_text(&message->url, message->sink->url) &&
         (alone ? append_note(&message->body, pry_sink_first(message)) : append_digest(&message->body, message)) &&
         pry_sink_add_headers(message, "application/json") && (!message->sink->sign || add_signature(message));
}

static void judge(int status, struct pry_slice body, struct pry_sink_answer *answer)
{
  (void)body; /* anybody's: not repeated */
  pry_sink_judge_status(status, answer);
  if (answer->verdict == PRY_SINK_BUSY)
    answer->verdict = PRY_SINK_FAILED; /* nobody knows what it would take to be left alone */
}

const struct pry_sink_kind pry_sink_webhook = {.name = "webhook", .merge = 50, .render = render, .judge = judge};
