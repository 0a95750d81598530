#include "sink.h"

#include <stdio.h>
#include <stdlib.h>

static const struct pry_sink_kind *const kinds[] = {&pry_sink_webhook,  &pry_sink_slack, &pry_sink_feishu,
                                                    &pry_sink_dingtalk, &pry_sink_wecom, &pry_sink_pagerduty,
                                                    &pry_sink_sentry,   &pry_sink_mail};

const struct pry_sink_kind *pry_sink_kind_named(const char *name)
{
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strcmp(kinds[i]->name, name) == 0)
      return kinds[i];
  return NULL;
}

/* ---- a copy of a declaration ---------------------------------------------------------------------------------- */

static bool is_missing(const struct pry_secret *secret)
{
  return secret && !secret->value;
}

const char *pry_sink_complaint(const struct pry_sink_config *config)
{
  bool mail = pry_sink_kind_named(config->kind) == &pry_sink_mail;
  bool missing =
      (!mail && !config->url) || is_missing(config->url) || is_missing(config->sign) || is_missing(config->user);
  if (missing)
    return "the sink's secret is missing";
  bool sentry = pry_sink_kind_named(config->kind) == &pry_sink_sentry;
  return sentry && !pry_sink_dsn_is_good(config->url->value) ? "the sink's secret is no DSN" : NULL;
}

static size_t size_of(const char *text)
{
  return text ? strlen(text) + 1 : 0;
}

static const char *value_of(const struct pry_secret *secret)
{
  return secret ? secret->value : NULL;
}

/* Moves `place` behind the copy. */
static const char *copy(char **place, const char *text)
{
  size_t size = size_of(text);
  if (!size)
    return NULL;
  char *copied = memcpy(*place, text, size);
  *place += size;
  return copied;
}

struct pry_sink *pry_sink_new(const struct pry_sink_config *config)
{
  const char *url = value_of(config->url), *sign = value_of(config->sign), *user = value_of(config->user);
  size_t to_count = config->to_count < PRY_SINK_TO_MAX ? config->to_count : PRY_SINK_TO_MAX;
  size_t size = sizeof(struct pry_sink) + to_count * sizeof(char *) + size_of(config->name) + size_of(url) +
                size_of(sign) + size_of(user) + size_of(config->endpoint) + size_of(config->from);
  for (size_t i = 0; i < to_count; i++)
    size += size_of(config->to[i]);
  struct pry_sink *sink = malloc(size);
  if (!sink)
    return NULL;
  const struct pry_sink_kind *kind = pry_sink_kind_named(config->kind);
  const char **to = (const char **)(sink + 1);
  char *place = (char *)(to + to_count);
  *sink = (struct pry_sink){.kind = kind,
                            .digest = config->digest < 0   ? 0
                                      : config->digest > 0 ? config->digest
                                                           : kind->digest,
                            .per_minute = config->per_minute ? config->per_minute : kind->per_minute,
                            .plain = config->plain,
                            .name = copy(&place, config->name),
                            .url = copy(&place, url),
                            .sign = copy(&place, sign),
                            .user = copy(&place, user),
                            .endpoint = copy(&place, config->endpoint),
                            .from = copy(&place, config->from),
                            .to = to,
                            .to_count = to_count,
                            .size = size};
  for (size_t i = 0; i < to_count; i++)
    to[i] = copy(&place, config->to[i]);
  return sink;
}

void pry_sink_free(struct pry_sink *sink)
{
  if (!sink)
    return;
  explicit_bzero(sink, sink->size);
  free(sink);
}

/* ---- a message ------------------------------------------------------------------------------------------------ */

bool pry_sink_render(struct pry_sink_message *message)
{
  pry_buffer_init(&message->url, 0);
  pry_buffer_init(&message->body, 0);
  pry_headers_init(&message->headers);
  return message->sink->kind->render(message) && pry_buffer_text(&message->url);
}

static void wipe(struct pry_buffer *buffer)
{
  if (buffer->data)
    explicit_bzero(buffer->data, buffer->capacity);
  pry_buffer_fini(buffer);
}

void pry_sink_message_fini(struct pry_sink_message *message)
{
  wipe(&message->url); /* webhook URLs carry their own key, and PagerDuty's body does */
  wipe(&message->body);
  pry_headers_fini(&message->headers);
}

const struct pry_note *pry_sink_first(const struct pry_sink_message *message)
{
  return PRY_CONTAINER_OF(message->notes->next, struct pry_note, link);
}

size_t pry_sink_note_count(const struct pry_sink_message *message)
{
  size_t count = 0;
  for (const struct pry_list *link = message->notes->next; link != message->notes; link = link->next)
    count++;
  return count;
}

bool pry_sink_add_headers(struct pry_sink_message *message, const char *type)
{
  return pry_headers_add(&message->headers, PRY_SLICE("content-type"), pry_slice_of(type)) &&
         pry_headers_add(&message->headers, PRY_SLICE("user-agent"), PRY_SLICE("parry"));
}

/* ---- lines for people ------------------------------------------------------------------------------------------- */

enum { LAST_LINE_MAX = 64 };

static bool append_first_line(const struct pry_sink_message *message, struct pry_buffer *out, size_t count)
{
  size_t over = 0;
  for (const struct pry_list *link = message->notes->next; link != message->notes; link = link->next)
    over += PRY_CONTAINER_OF(link, struct pry_note, link)->state == PRY_NOTE_RESOLVED;
  if (count == 1)
    return pry_buffer_append_text(out, "[parry] ");
  return over ? pry_buffer_append_format(out, "[parry] %zu alerts, %zu of them resolved\n", count, over)
              : pry_buffer_append_format(out, "[parry] %zu alerts\n", count);
}

static bool build_note(struct pry_buffer *plain, const struct pry_note *note, bool alone)
{
  pry_buffer_clear(plain);
  return pry_buffer_append_text(plain, alone ? "" : "\n") && pry_note_append_head(plain, note) &&
         pry_buffer_append_text(plain, "\n") && pry_note_append_body(plain, note);
}

/* Escapes as much of the text as fits into `room`, and the whole of it when all does. */
static bool escape_what_fits(struct pry_buffer *piece, struct pry_slice text, size_t room, pry_sink_escape escape)
{
  for (;;) {
    pry_buffer_clear(piece);
    if (!escape(piece, text))
      return false;
    if (piece->size <= room)
      return true;
    text.size -= text.size / 8 + 1;
    while (text.size && ((unsigned char)text.data[text.size] & 0xC0) == 0x80)
      text.size--;
  }
}

bool pry_sink_append_lines(const struct pry_sink_message *message, struct pry_buffer *out, size_t most,
                           pry_sink_escape escape)
{
  struct pry_buffer plain, piece;
  pry_buffer_init(&plain, 0);
  pry_buffer_init(&piece, 0);
  size_t count = pry_sink_note_count(message), shown = 0, start = out->size;
  bool ok = append_first_line(message, out, count);
  for (const struct pry_list *link = message->notes->next; ok && link != message->notes; link = link->next) {
    const struct pry_note *note = PRY_CONTAINER_OF(link, struct pry_note, link);
    size_t room = most - LAST_LINE_MAX - (out->size - start);
    ok = build_note(&plain, note, count == 1) &&
         (shown ? escape(&piece, pry_buffer_slice(&plain))
                : escape_what_fits(&piece, pry_buffer_slice(&plain), room, escape));
    if (!ok || piece.size > room)
      break;
    ok = pry_buffer_append_slice(out, pry_buffer_slice(&piece));
    pry_buffer_clear(&piece);
    shown++;
  }
  unsigned long hidden = message->lost + (count - shown);
  if (ok && hidden)
    ok = pry_buffer_append_format(out, "\nand %lu more, see the log\n", hidden);
  pry_buffer_fini(&plain);
  pry_buffer_fini(&piece);
  return ok;
}

/* ---- what came back ------------------------------------------------------------------------------------------- */

void pry_sink_set_why(struct pry_sink_answer *answer, int status, struct pry_slice text)
{
  char clean[120];
  if (!pry_note_set_line(NULL, clean, sizeof clean, text) || !clean[0])
    snprintf(answer->why, sizeof answer->why, "status %d", status);
  else
    snprintf(answer->why, sizeof answer->why, "status %d: %s", status, clean);
}

void pry_sink_judge_status(int status, struct pry_sink_answer *answer)
{
  bool final = status >= 400 && status < 500 && status != 408 && status != 425 && status != 429;
  answer->verdict = status >= 200 && status < 300 ? PRY_SINK_TOOK
                    : final                       ? PRY_SINK_REFUSED
                    : status == 429               ? PRY_SINK_BUSY
                                                  : PRY_SINK_FAILED;
}

void pry_sink_judge(const struct pry_sink *sink, int status, struct pry_slice body, struct pry_sink_answer *answer)
{
  *answer = (struct pry_sink_answer){.verdict = PRY_SINK_FAILED};
  sink->kind->judge(status, body, answer);
  if (answer->verdict == PRY_SINK_BUSY && !answer->wait)
    answer->wait = sink->kind->mute;
  if (answer->verdict != PRY_SINK_TOOK && !answer->why[0])
    snprintf(answer->why, sizeof answer->why, "status %d", status);
}
