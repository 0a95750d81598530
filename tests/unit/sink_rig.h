/*
 * sink_rig.h: alerts in virtual time, with a sink of each kind, a scripted HTTP and a mailer that keeps what it is given.
 */
#ifndef PRY_SINK_RIG_H
#define PRY_SINK_RIG_H

#include "alert.h"
#include "http_script.h"
#include "json.h"
#include "mail.h"
#include "sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define UNIX_TIME 1599360473
#define MINUTE (60 * PRY_SECOND)

/* A mailer that keeps what it is given, and answers at once. */
struct fake_mailer {
  struct pry_mailer base;
  struct world *world;
  int status;
  unsigned count;
  bool plain;
  char url[64], from[64], to[64], user[64], password[64];
  struct pry_buffer message; /* the last */
};
struct fake_sending {
  struct pry_mail_sending base;
  struct fake_mailer *mailer;
  struct pry_timer timer;
  pry_mail_done done;
  void *user;
};

struct world {
  struct pry_loop *loop;
  struct pry_mailbox *mailbox;
  struct pry_http_script *script;
  struct pry_http *http;
  struct pry_log *log;
  struct pry_metrics *metrics;
  struct pry_scrubber *scrubber;
  struct pry_alerts *alerts;
  struct fake_mailer *mailer;
  struct pry_buffer logged;
};

__attribute__((unused)) static const struct pry_secret hook = {
    .name = "HOOK", .value = "https://hooks.test/robot?access_token=token-in-url"};
__attribute__((unused)) static const struct pry_secret signing = {.name = "SIGN", .value = "demo-signing-secret"};
__attribute__((unused)) static const struct pry_secret routing = {.name = "KEY",
                                                                  .value = "routing-key-of-32-characters-----"};
__attribute__((unused)) static const struct pry_secret dsn = {.name = "DSN",
                                                              .value = "https://publickey:oldkey@sentry.test/self/42"};
__attribute__((unused)) static const struct pry_secret login = {.name = "LOGIN", .value = "mail-user"};
__attribute__((unused)) static const struct pry_secret password = {.name = "PASSWORD", .value = "mail-password"};
static const char *const people[] = {"a@example.com", "b@example.com"};

__attribute__((unused)) static const struct pry_sink_config slack = {.name = "ops", .kind = "slack", .url = &hook};
__attribute__((unused)) static const struct pry_sink_config feishu = {
    .name = "ops", .kind = "feishu", .url = &hook, .sign = &signing};
__attribute__((unused)) static const struct pry_sink_config dingtalk = {
    .name = "ops", .kind = "dingtalk", .url = &hook, .sign = &signing};
__attribute__((unused)) static const struct pry_sink_config wecom = {.name = "ops", .kind = "wecom", .url = &hook};
__attribute__((unused)) static const struct pry_sink_config pagerduty = {
    .name = "ops", .kind = "pagerduty", .url = &routing, .endpoint = "https://events.test/v2/enqueue"};
__attribute__((unused)) static const struct pry_sink_config sentry = {.name = "ops", .kind = "sentry", .url = &dsn};
__attribute__((unused)) static const struct pry_sink_config mail = {.name = "ops",
                                                                    .kind = "smtp",
                                                                    .sign = &password,
                                                                    .user = &login,
                                                                    .endpoint = "smtps://mail.test:465",
                                                                    .from = "parry@example.com",
                                                                    .to = people,
                                                                    .to_count = 2};

static inline void fake_answer(void *user)
{
  struct fake_sending *sending = user;
  struct pry_mail_result result = {sending->mailer->status, "550 no such user"};
  sending->done(sending->user, &result);
  free(sending);
}

static inline struct pry_mail_sending *fake_start(struct pry_mailer *base, const struct pry_mail *given,
                                                  pry_mail_done done, void *user)
{
  struct fake_mailer *mailer = (struct fake_mailer *)base;
  struct fake_sending *sending = calloc(1, sizeof *sending);
  sending->base.driver = base->driver;
  sending->mailer = mailer;
  sending->done = done;
  sending->user = user;
  mailer->count++;
  mailer->plain = given->plain;
  snprintf(mailer->url, sizeof mailer->url, "%s", given->url);
  snprintf(mailer->from, sizeof mailer->from, "%s", given->from);
  snprintf(mailer->to, sizeof mailer->to, "%s,%s", given->to[0], given->to[given->to_count - 1]);
  snprintf(mailer->user, sizeof mailer->user, "%s", given->user ? given->user : "");
  snprintf(mailer->password, sizeof mailer->password, "%s", given->password ? given->password : "");
  pry_buffer_clear(&mailer->message);
  assert_true(pry_buffer_append_slice(&mailer->message, given->message));
  assert_non_null(pry_buffer_text(&mailer->message));
  assert_true(pry_timer_start(mailer->world->loop, &sending->timer, 0, fake_answer, sending));
  return &sending->base;
}

static inline void fake_cancel(struct pry_mail_sending *base)
{
  struct fake_sending *sending = (struct fake_sending *)base;
  pry_timer_cancel(&sending->timer);
  free(sending);
}

static inline void fake_free(struct pry_mailer *base)
{
  pry_buffer_fini(&((struct fake_mailer *)base)->message);
  free(base);
}

static inline void take_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  (void)level;
  struct world *world = user;
  pry_buffer_append(&world->logged, line, size);
  pry_buffer_append_text(&world->logged, "\n");
}

static inline struct world *new_world(void)
{
  static const struct pry_mail_driver fake = {fake_start, fake_cancel, fake_free};
  struct world *world = calloc(1, sizeof *world);
  world->loop = pry_loop_new_virtual(UNIX_TIME);
  world->mailbox = pry_mailbox_new(world->loop);
  world->script = pry_http_script_new(world->loop);
  world->http = pry_http_script_client(world->script);
  world->log = pry_log_new(take_line, world, PRY_LOG_DEBUG, NULL, NULL);
  world->metrics = pry_metrics_new();
  world->scrubber = pry_scrubber_new();
  world->alerts = pry_alerts_new(world->mailbox, world->http, world->log, world->metrics, world->scrubber);
  world->mailer = calloc(1, sizeof *world->mailer);
  world->mailer->base.driver = &fake;
  world->mailer->world = world;
  world->mailer->status = 250;
  pry_alerts_set_mailer(world->alerts, &world->mailer->base);
  return world;
}

static inline const char *logged(struct world *world)
{
  return world->logged.size ? pry_buffer_text(&world->logged) : "";
}

static inline void free_world(struct world *world)
{
  pry_alerts_free(world->alerts);
  assert_int_equal(pry_http_open_count(world->http), 0);
  static const char *const secrets[] = {"token-in-url", "demo-signing", "routing-key", "publickey", "mail-password"};
  for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++)
    assert_null(strstr(logged(world), secrets[i]));
  pry_http_free(world->http);
  pry_mailbox_free(world->mailbox);
  pry_loop_free(world->loop);
  pry_log_free(world->log);
  pry_metrics_free(world->metrics);
  pry_scrubber_free(world->scrubber);
  pry_buffer_fini(&world->logged);
  free(world);
}

static inline void always(struct world *world, int status, const char *body)
{
  struct pry_slice chunk = pry_slice_of(body);
  struct pry_http_step step = {.status = status, .chunks = &chunk, .chunk_count = body ? 1 : 0};
  assert_true(pry_http_script_set_default(world->script, &step));
}

static inline void once(struct world *world, int status, const char *body)
{
  struct pry_slice chunk = pry_slice_of(body);
  struct pry_http_step step = {.status = status, .chunks = &chunk, .chunk_count = body ? 1 : 0};
  assert_true(pry_http_script_push(world->script, &step));
}

static inline struct pry_alert make(const char *key, const char *text)
{
  return (struct pry_alert){.key = pry_slice_of(key), .text = pry_slice_of(text)};
}

static inline void notify(struct world *world, const struct pry_sink_config *sink, struct pry_alert alert)
{
  pry_alerts_notify(world->alerts, world->loop, sink, &alert);
}

static inline void resolve(struct world *world, const struct pry_sink_config *sink, const char *key)
{
  notify(world, sink, (struct pry_alert){.key = pry_slice_of(key), .resolve = true});
}

static inline void wait(struct world *world, pry_time time)
{
  pry_loop_advance(world->loop, time);
}

static inline size_t sent(struct world *world)
{
  return pry_http_script_seen_count(world->script);
}

static inline const struct pry_http_seen *seen(struct world *world, size_t i)
{
  assert_true(i < sent(world));
  return pry_http_script_seen(world->script, i);
}

/* A text member of what was sent, in a static buffer. */
static inline const char *member(struct world *world, size_t i, const char *path)
{
  static char text[16 * 1024];
  struct pry_json_value value;
  struct pry_buffer decoded;
  pry_buffer_init(&decoded, sizeof text - 1);
  assert_int_equal(pry_json_parse(seen(world, i)->body, NULL), PRY_JSON_OK);
  assert_true(pry_json_get(seen(world, i)->body, path, &value));
  if (value.type == PRY_JSON_STRING)
    assert_true(pry_json_string(value.raw, &decoded));
  else
    assert_true(pry_buffer_append_slice(&decoded, value.raw));
  memcpy(text, decoded.data ? decoded.data : "", decoded.size);
  text[decoded.size] = '\0';
  pry_buffer_fini(&decoded);
  return text;
}

static inline void assert_has(const char *text, const char *part)
{
  if (!strstr(text, part))
    fail_msg("no \"%s\" in:\n%s", part, text);
}

static inline void assert_has_not(const char *text, const char *part)
{
  if (strstr(text, part))
    fail_msg("\"%s\" in:\n%s", part, text);
}

static inline double counted(struct world *world, const char *result)
{
  return pry_metrics_value(world->metrics, PRY_M_ALERTS, "ops", result);
}

#endif
