/*
 * Sinks that know each alert by its key and keep its history themselves.
 *
 * PagerDuty  https://developer.pagerduty.com/docs/send-alert-event (Events API v2): POST {"routing_key","event_action":
 *            "trigger"|"resolve","dedup_key" (255), "payload":{"summary" (1024),"source","severity": info, warning, error or
 *            critical,"timestamp","custom_details"}}; 202 is good, 400 an invalid event, 429 too many.
 * Sentry     https://develop.sentry.dev/sdk/foundations/transport/envelopes/ and .../authentication/: the DSN
 *            SCHEME://KEY@HOST/PATH/PROJECT becomes POST SCHEME://HOST/PATH/api/PROJECT/envelope/ with X-Sentry-Auth. The key is
 *            the event's fingerprint, so that an alert is one issue; 429 with Retry-After. The end of an alert is not sent: as
 *            another event it would open the issue again.
 */
#include "sink.h"

#include "json.h"

#include <stdio.h>

/* ---- PagerDuty ---------------------------------------------------------------------------------------------------- */

static bool append_details(struct pry_buffer *out, const struct pry_note *note)
{
  return pry_buffer_append_text(out, "\"custom_details\":{") && pry_note_append_member(out, "text", note->text) &&
         (!note->generation[0] || pry_note_append_member(out, "generation", note->generation)) &&
         pry_buffer_append_format(out, "\"count\":%lu,", note->count) && pry_note_append_facts(out, note) &&
         pry_buffer_append_text(out, "}");
}

static bool render_pagerduty(struct pry_sink_message *message)
{
  const struct pry_note *note = pry_sink_first(message);
  bool over = note->state == PRY_NOTE_RESOLVED;
  struct pry_buffer *out = &message->body;
  return pry_buffer_append_text(&message->url, message->sink->endpoint) && pry_buffer_append_text(out, "{") &&
         pry_note_append_member(out, "routing_key", message->sink->url) &&
         pry_note_append_member(out, "event_action", over ? "resolve" : "trigger") &&
         pry_buffer_append_text(out, "\"dedup_key\":\"parry/") &&
         pry_buffer_append_json(out, pry_slice_of(note->key)) &&
         pry_buffer_append_text(out, "\",\"client\":\"parry\",\"payload\":{\"summary\":\"") &&
         pry_buffer_append_json(out, pry_note_title(note)) &&
         pry_buffer_append_format(out, "%s\",\"source\":\"parry\",\"severity\":\"%s\",\"timestamp\":\"",
                                  note->state == PRY_NOTE_TEST ? " (test)" : "",
                                  pry_alert_severity_name(note->severity)) &&
         pry_note_append_time(out, note->time) && pry_buffer_append_text(out, "\",") && append_details(out, note) &&
         pry_buffer_append_text(out, "}}") && pry_sink_add_headers(message, "application/json");
}

/* Its own words: {"status","message","errors":["…"]}. */
static void judge_pagerduty(int status, struct pry_slice body, struct pry_sink_answer *answer)
{
  struct pry_json_value value;
  struct pry_buffer text;
  pry_sink_judge_status(status, answer);
  if (answer->verdict == PRY_SINK_TOOK)
    return;
  pry_buffer_init(&text, 4096);
  if ((pry_json_get(body, "errors.0", &value) || pry_json_get(body, "message", &value)) &&
      pry_json_string(value.raw, &text))
    pry_sink_set_why(answer, status, pry_buffer_slice(&text));
  pry_buffer_fini(&text);
}

/* ---- Sentry ------------------------------------------------------------------------------------------------------- */

struct dsn {
  struct pry_slice scheme, key, host, project; /* scheme with "://", host with its path up to the last "/" */
};

static struct pry_slice between(const char *begin, const char *end)
{
  return (struct pry_slice){begin, (size_t)(end - begin)};
}

static bool parse_dsn(const char *text, struct dsn *dsn)
{
  const char *scheme = strstr(text, "://"), *at = strchr(text, '@'), *slash = strrchr(text, '/');
  if (!scheme || !at || at < scheme || !slash || slash < at)
    return false;
  const char *key = scheme + 3, *end = memchr(key, ':', (size_t)(at - key)); /* an old DSN has a second key */
  *dsn =
      (struct dsn){between(text, key), between(key, end ? end : at), between(at + 1, slash), pry_slice_of(slash + 1)};
  return dsn->key.size && dsn->host.size && dsn->project.size;
}

bool pry_sink_dsn_is_good(const char *text)
{
  struct dsn dsn;
  return parse_dsn(text, &dsn);
}

static const char *level_of(const struct pry_note *note)
{
  return note->severity == PRY_ALERT_CRITICAL ? "fatal" : pry_alert_severity_name(note->severity);
}

static bool append_event(struct pry_buffer *out, const struct pry_sink_message *message, const char *id)
{
  const struct pry_note *note = pry_sink_first(message);
  return pry_buffer_append_format(out, "{\"event_id\":\"%s\",\"timestamp\":\"", id) &&
         pry_note_append_time(out, note->time) &&
         pry_buffer_append_format(out, "\",\"platform\":\"other\",\"logger\":\"parry\",\"level\":\"%s\",",
                                  level_of(note)) &&
         (!note->generation[0] || pry_note_append_member(out, "release", note->generation)) &&
         pry_buffer_append_text(out, "\"fingerprint\":[\"parry\",\"") &&
         pry_buffer_append_json(out, pry_slice_of(note->key)) &&
         pry_buffer_append_text(out, "\"],\"message\":{\"formatted\":\"") &&
         pry_buffer_append_json(out, pry_note_title(note)) && pry_buffer_append_text(out, "\"},\"tags\":{") &&
         pry_note_append_member(out, "key", note->key) &&
         pry_buffer_append_format(out, "\"state\":\"%s\"},\"extra\":{",
                                  note->state == PRY_NOTE_TEST ? "test" : "firing") &&
         pry_note_append_member(out, "text", note->text) &&
         pry_buffer_append_format(out, "\"count\":%lu,", note->count) && pry_note_append_facts(out, note) &&
         pry_buffer_append_text(out, "}}");
}

static bool add_sentry_auth(struct pry_sink_message *message, const struct dsn *dsn)
{
  struct pry_buffer value;
  pry_buffer_init(&value, 0);
  bool ok = pry_buffer_append_text(&value, "Sentry sentry_version=7, sentry_client=parry/1, sentry_key=") &&
            pry_buffer_append_slice(&value, dsn->key) &&
            pry_headers_add(&message->headers, PRY_SLICE("x-sentry-auth"), pry_buffer_slice(&value));
  if (value.data)
    explicit_bzero(value.data, value.capacity);
  pry_buffer_fini(&value);
  return ok;
}

static bool render_sentry(struct pry_sink_message *message)
{
  struct dsn dsn;
  struct pry_buffer event, *url = &message->url, *out = &message->body;
  char id[33];
  if (!parse_dsn(message->sink->url, &dsn))
    return false;
  pry_buffer_init(&event, 0);
  snprintf(id, sizeof id, "%016llx%016llx", (unsigned long long)message->random[0],
           (unsigned long long)message->random[1]);
  bool ok = append_event(&event, message, id) && pry_buffer_append_slice(url, dsn.scheme) &&
            pry_buffer_append_slice(url, dsn.host) && pry_buffer_append_text(url, "/api/") &&
            pry_buffer_append_slice(url, dsn.project) && pry_buffer_append_text(url, "/envelope/") &&
            pry_buffer_append_format(out, "{\"event_id\":\"%s\",\"sent_at\":\"", id) &&
            pry_note_append_time(out, message->now) &&
            pry_buffer_append_format(out, "\"}\n{\"type\":\"event\",\"length\":%zu}\n", event.size) &&
            pry_buffer_append_slice(out, pry_buffer_slice(&event)) && pry_buffer_append_text(out, "\n") &&
            pry_sink_add_headers(message, "application/x-sentry-envelope") && add_sentry_auth(message, &dsn);
  pry_buffer_fini(&event);
  return ok;
}

static void judge_sentry(int status, struct pry_slice body, struct pry_sink_answer *answer)
{
  struct pry_json_value value;
  struct pry_buffer text;
  pry_sink_judge_status(status, answer);
  if (answer->verdict == PRY_SINK_TOOK)
    return;
  pry_buffer_init(&text, 4096);
  if (pry_json_get(body, "detail", &value) && pry_json_string(value.raw, &text))
    pry_sink_set_why(answer, status, pry_buffer_slice(&text));
  pry_buffer_fini(&text);
}

/* ---- the kinds ---------------------------------------------------------------------------------------------------- */

const struct pry_sink_kind pry_sink_pagerduty = {.name = "pagerduty",
                                                 .per_minute = 100,
                                                 .mute = 30 * PRY_SECOND,
                                                 .merge = 1,
                                                 .keyed = true,
                                                 .answers = true,
                                                 .render = render_pagerduty,
                                                 .judge = judge_pagerduty};

const struct pry_sink_kind pry_sink_sentry = {.name = "sentry",
                                              .per_minute = 60,
                                              .mute = 60 * PRY_SECOND,
                                              .merge = 1,
                                              .keyed = true,
                                              .no_resolved = true,
                                              .answers = true,
                                              .render = render_sentry,
                                              .judge = judge_sentry};
