/* Sinks: what each is sent, what its answer means, and how much of it there is. Signatures are compared with values that
 * the openssl command computed:
 *   printf '' | openssl dgst -sha256 -mac HMAC -macopt hexkey:$(printf '1599360473\ndemo-signing-secret' | xxd -p) -binary | base64
 *   printf '1599360473000\ndemo-signing-secret' | openssl dgst -sha256 -hmac demo-signing-secret -binary | base64 */
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
#include <openssl/evp.h>

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

static const struct pry_secret hook = {.name = "HOOK", .value = "https://hooks.test/robot?access_token=token-in-url"};
static const struct pry_secret signing = {.name = "SIGN", .value = "demo-signing-secret"};
static const struct pry_secret routing = {.name = "KEY", .value = "routing-key-of-32-characters-----"};
static const struct pry_secret dsn = {.name = "DSN", .value = "https://publickey:oldkey@sentry.test/self/42"};
static const struct pry_secret login = {.name = "LOGIN", .value = "mail-user"};
static const struct pry_secret password = {.name = "PASSWORD", .value = "mail-password"};
static const char *const people[] = {"a@example.com", "b@example.com"};

static const struct pry_sink_config slack = {.name = "ops", .kind = "slack", .url = &hook};
static const struct pry_sink_config feishu = {.name = "ops", .kind = "feishu", .url = &hook, .sign = &signing};
static const struct pry_sink_config dingtalk = {.name = "ops", .kind = "dingtalk", .url = &hook, .sign = &signing};
static const struct pry_sink_config wecom = {.name = "ops", .kind = "wecom", .url = &hook};
static const struct pry_sink_config pagerduty = {
    .name = "ops", .kind = "pagerduty", .url = &routing, .endpoint = "https://events.test/v2/enqueue"};
static const struct pry_sink_config sentry = {.name = "ops", .kind = "sentry", .url = &dsn};
static const struct pry_sink_config mail = {.name = "ops",
                                            .kind = "smtp",
                                            .sign = &password,
                                            .user = &login,
                                            .endpoint = "smtps://mail.test:465",
                                            .from = "parry@example.com",
                                            .to = people,
                                            .to_count = 2};

static void fake_answer(void *user)
{
  struct fake_sending *sending = user;
  struct pry_mail_result result = {sending->mailer->status, "550 no such user"};
  sending->done(sending->user, &result);
  free(sending);
}

static struct pry_mail_sending *fake_start(struct pry_mailer *base, const struct pry_mail *given, pry_mail_done done,
                                           void *user)
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

static void fake_cancel(struct pry_mail_sending *base)
{
  struct fake_sending *sending = (struct fake_sending *)base;
  pry_timer_cancel(&sending->timer);
  free(sending);
}

static void fake_free(struct pry_mailer *base)
{
  pry_buffer_fini(&((struct fake_mailer *)base)->message);
  free(base);
}

static void take_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  (void)level;
  struct world *world = user;
  pry_buffer_append(&world->logged, line, size);
  pry_buffer_append_text(&world->logged, "\n");
}

static struct world *new_world(void)
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

static const char *logged(struct world *world)
{
  return world->logged.size ? pry_buffer_text(&world->logged) : "";
}

static void free_world(struct world *world)
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

static void always(struct world *world, int status, const char *body)
{
  struct pry_slice chunk = pry_slice_of(body);
  struct pry_http_step step = {.status = status, .chunks = &chunk, .chunk_count = body ? 1 : 0};
  assert_true(pry_http_script_set_default(world->script, &step));
}

static void once(struct world *world, int status, const char *body)
{
  struct pry_slice chunk = pry_slice_of(body);
  struct pry_http_step step = {.status = status, .chunks = &chunk, .chunk_count = body ? 1 : 0};
  assert_true(pry_http_script_push(world->script, &step));
}

static struct pry_alert make(const char *key, const char *text)
{
  return (struct pry_alert){.key = pry_slice_of(key), .text = pry_slice_of(text)};
}

static void notify(struct world *world, const struct pry_sink_config *sink, struct pry_alert alert)
{
  pry_alerts_notify(world->alerts, world->loop, sink, &alert);
}

static void resolve(struct world *world, const struct pry_sink_config *sink, const char *key)
{
  notify(world, sink, (struct pry_alert){.key = pry_slice_of(key), .resolve = true});
}

static void wait(struct world *world, pry_time time)
{
  pry_loop_advance(world->loop, time);
}

static size_t sent(struct world *world)
{
  return pry_http_script_seen_count(world->script);
}

static const struct pry_http_seen *seen(struct world *world, size_t i)
{
  assert_true(i < sent(world));
  return pry_http_script_seen(world->script, i);
}

/* A text member of what was sent, in a static buffer. */
static const char *member(struct world *world, size_t i, const char *path)
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

static void assert_has(const char *text, const char *part)
{
  if (!strstr(text, part))
    fail_msg("no \"%s\" in:\n%s", part, text);
}

static void assert_has_not(const char *text, const char *part)
{
  if (strstr(text, part))
    fail_msg("\"%s\" in:\n%s", part, text);
}

static double counted(struct world *world, const char *result)
{
  return pry_metrics_value(world->metrics, PRY_M_ALERTS, "ops", result);
}

/* ---- signatures -------------------------------------------------------------------------------------------------- */

static void test_primitives(void **state)
{
  (void)state;
  unsigned char signature[PRY_SIGNATURE_BYTES];
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  assert_true(pry_sign(PRY_SLICE("Jefe"), PRY_SLICE("what do ya want for nothing?"), signature)); /* RFC 4231 §4.3 */
  assert_true(pry_append_hex(&out, signature, sizeof signature));
  assert_string_equal(pry_buffer_text(&out), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  static const char *const base64[][2] = {{"", ""},
                                          {"f", "Zg=="},
                                          {"fo", "Zm8="},
                                          {"foo", "Zm9v"},
                                          {"foob", "Zm9vYg=="},
                                          {"fooba", "Zm9vYmE="},
                                          {"foobar", "Zm9vYmFy"}}; /* RFC 4648 §10 */
  for (size_t i = 0; i < sizeof base64 / sizeof *base64; i++) {
    pry_buffer_clear(&out);
    assert_true(pry_append_base64(&out, base64[i][0], strlen(base64[i][0])));
    assert_string_equal(pry_buffer_text(&out), base64[i][1]);
  }
  pry_buffer_clear(&out);
  assert_true(pry_append_percent(&out, PRY_SLICE("aZ09-._~+/= \xC3\xA4")));
  assert_string_equal(pry_buffer_text(&out), "aZ09-._~%2B%2F%3D%20%C3%A4");
  pry_buffer_fini(&out);
}

static void test_feishu_signature(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 200, "{\"StatusCode\":0,\"StatusMessage\":\"success\",\"code\":0,\"data\":{},\"msg\":\"success\"}");
  struct pry_alert alert = make("k", "everybody: <at user_id=\"all\">all</at>");
  alert.severity = PRY_ALERT_CRITICAL; /* at once: the time is in the signature */
  notify(world, &feishu, alert);
  wait(world, 0);
  assert_string_equal(seen(world, 0)->url, hook.value);
  assert_string_equal(member(world, 0, "timestamp"), "1599360473");
  assert_string_equal(member(world, 0, "sign"), "bnV2U4NV6EaiJh72Hk2WwxeDzah+5+dmIJUJ+18wVCQ=");
  assert_string_equal(member(world, 0, "msg_type"), "text");
  assert_has(member(world, 0, "content.text"), "[parry] FIRING (critical): everybody: \xEF\xBC\x9C");
  assert_has_not(member(world, 0, "content.text"), "<at");
  assert_true(counted(world, "delivered") == 1);
  free_world(world);
}

static void test_dingtalk_signature(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 200, "{\"errcode\":0,\"errmsg\":\"ok\"}");
  struct pry_alert alert = make("k", "it is bad");
  alert.severity = PRY_ALERT_CRITICAL;
  notify(world, &dingtalk, alert);
  wait(world, 0);
  assert_string_equal(seen(world, 0)->url, "https://hooks.test/robot?access_token=token-in-url&timestamp=1599360473000"
                                           "&sign=JoUZNI2xy175dNqSDtMfGz0C71DqAnwSIJXLR4zbUe4%3D");
  assert_string_equal(member(world, 0, "msgtype"), "text");
  assert_has(member(world, 0, "text.content"), "it is bad");
  free_world(world);
}

static void test_webhook_signature(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct pry_sink_config sink = {.name = "ops", .kind = "webhook", .url = &hook, .sign = &signing};
  always(world, 204, NULL);
  notify(world, &sink, make("k", "it is bad"));
  wait(world, 0);
  struct pry_slice header;
  assert_true(pry_headers_get(&seen(world, 0)->headers, PRY_SLICE("parry-signature"), &header));
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  unsigned char signature[PRY_SIGNATURE_BYTES];
  assert_true(pry_buffer_append_text(&text, "1599360473.") && pry_buffer_append_slice(&text, seen(world, 0)->body));
  assert_true(pry_sign(PRY_SLICE("demo-signing-secret"), pry_buffer_slice(&text), signature));
  pry_buffer_clear(&text);
  assert_true(pry_buffer_append_text(&text, "t=1599360473,v1=") && pry_append_hex(&text, signature, sizeof signature));
  assert_true(pry_slice_equal(header, pry_buffer_slice(&text)));
  pry_buffer_fini(&text);
  free_world(world);
}

/* ---- what people read -------------------------------------------------------------------------------------------- */

static void test_slack(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 200, "ok");
  notify(world, &slack, make("k", "<!channel> a & b > c"));
  wait(world, 4 * PRY_SECOND);
  assert_int_equal(sent(world), 0); /* for others that may come */
  wait(world, PRY_SECOND);
  assert_int_equal(sent(world), 1);
  assert_string_equal(member(world, 0, "text"), "[parry] FIRING (error): &lt;!channel&gt; a &amp; b &gt; c\n");
  free_world(world);
}

/* Complaint 23 of gateways.md (LiteLLM #3738, #3208, #3113): the same alert 100 to 200 times; a digest had to be added. */
static void test_life_of_an_alert(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 200, "ok");
  char session[16];
  for (int i = 0; i < 1000; i++) {
    struct pry_alert alert = make("server at p", "10 x category server at p within 60 s");
    alert.title = PRY_SLICE("p fails");
    alert.cause = i % 10 ? PRY_SLICE("server, HTTP 500") : PRY_SLICE("server, HTTP 502");
    alert.sample = PRY_SLICE("server, HTTP 500, call c_1_2");
    alert.client = i % 2 ? PRY_SLICE("team-a") : PRY_SLICE("team-b");
    snprintf(session, sizeof session, "session %d", i % 17);
    alert.session = pry_slice_of(session);
    alert.repeat = 10 * MINUTE;
    alert.fields = (const struct pry_alert_field[]){{PRY_SLICE("region"), PRY_SLICE("eu")}};
    alert.field_count = 1;
    notify(world, &slack, alert);
    wait(world, PRY_SECOND);
  }
  resolve(world, &slack, "server at p");
  wait(world, MINUTE);
  assert_int_equal(sent(world), 3); /* at 0, after 600 s, and the end */
  assert_has(member(world, 0, "text"), "[parry] FIRING (error): p fails\n10 x category server at p within 60 s\n");
  assert_has(member(world, 0, "text"), "for example: server, HTTP 500, call c_1_2\nregion: eu\n");
  assert_has(member(world, 1, "text"), "STILL FIRING (error): p fails\n");
  assert_has(member(world, 1, "text"), "601 times since 2020-09-06T02:47:53Z, 600 since it was last told\n");
  assert_has(member(world, 1, "text"), "most often: server, HTTP 500 (540)\naffected: 2 clients, 17 sessions\n");
  assert_has(member(world, 2, "text"), "RESOLVED (error): p fails\n");
  assert_has(member(world, 2, "text"), "1000 times from 2020-09-06T02:47:53Z, lasted 17 min\n");
  assert_has(member(world, 2, "text"), "most often: server, HTTP 500 (900)\n");
  assert_int_equal(pry_alerts_open(world->alerts), 0);
  free_world(world);
}

static void test_digest(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 200, "ok");
  notify(world, &slack, make("a", "first"));
  wait(world, PRY_SECOND);
  notify(world, &slack, make("b", "second"));
  notify(world, &slack, make("c", "third"));
  resolve(world, &slack, "c"); /* before anybody was told: one line, that it was and is over */
  wait(world, 4 * PRY_SECOND);
  assert_int_equal(sent(world), 1);
  assert_has(member(world, 0, "text"), "[parry] 3 alerts, 1 of them resolved\n\nFIRING (error): first\n");
  assert_has(member(world, 0, "text"), "\nFIRING (error): second\n");
  assert_has(member(world, 0, "text"), "\nRESOLVED (error): third\n1 time from ");
  assert_true(counted(world, "delivered") == 3);
  wait(world, MINUTE);
  notify(world, &slack, make("d", "waits"));
  struct pry_alert urgent = make("e", "does not");
  urgent.severity = PRY_ALERT_CRITICAL;
  notify(world, &slack, urgent);
  wait(world, 0);
  assert_int_equal(sent(world), 2); /* and takes the other with it */
  assert_has(member(world, 1, "text"), "waits");
  assert_int_equal(pry_alerts_queued(world->alerts), 0);
  free_world(world);
}

static void test_digest_for_programs(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct pry_sink_config sink = {.name = "ops", .kind = "webhook", .url = &hook, .digest = 2 * PRY_SECOND};
  always(world, 200, NULL);
  notify(world, &sink, make("a", "first"));
  notify(world, &sink, make("b", "second \"b\""));
  wait(world, 2 * PRY_SECOND);
  assert_int_equal(sent(world), 1);
  assert_string_equal(member(world, 0, "key"), "digest");
  assert_string_equal(member(world, 0, "state"), "firing");
  assert_string_equal(member(world, 0, "alerts.0.key"), "a");
  assert_string_equal(member(world, 0, "alerts.1.text"), "second \"b\"");
  assert_string_equal(member(world, 0, "alerts.1.severity"), "error");
  notify(world, &sink, make("c", "alone"));
  wait(world, 2 * PRY_SECOND);
  assert_string_equal(member(world, 1, "key"), "c"); /* one alone looks as ever */
  free_world(world);
}

static void test_what_nobody_raises_is_forgotten(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 200, "ok");
  notify(world, &slack, make("a", "bad"));
  wait(world, 23 * 60 * MINUTE);
  notify(world, &slack, make("b", "bad"));
  assert_int_equal(pry_alerts_open(world->alerts), 2);
  wait(world, 60 * MINUTE);
  notify(world, &slack, make("b", "bad"));
  assert_int_equal(pry_alerts_open(world->alerts), 1);
  notify(world, &slack, make("a", "bad again"));
  wait(world, 5 * PRY_SECOND);
  assert_has(member(world, sent(world) - 1, "text"),
             "\nFIRING (error): bad again\n"); /* and not "still", of yesterday */
  free_world(world);
}

static void test_updates_in_line_are_one(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct pry_alert alert = make("k", "bad");
  alert.repeat = PRY_SECOND;
  once(world, 500, NULL);
  always(world, 200, "ok");
  notify(world, &slack, alert);
  wait(world, 5 * PRY_SECOND); /* tried, failed; the next try is in a second */
  notify(world, &slack, alert);
  wait(world, PRY_SECOND); /* told; what came is told five seconds after it came */
  notify(world, &slack, alert);
  wait(world, PRY_SECOND);
  notify(world, &slack, alert);
  wait(world, 10 * PRY_SECOND);
  assert_int_equal(sent(world), 3);
  assert_has(member(world, 2, "text"), "STILL FIRING");
  assert_has(member(world, 2, "text"), "4 times since 2020-09-06T02:47:53Z, 3 since it was last told");
  free_world(world);
}

static void test_long_digest(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 200, "{\"errcode\":0,\"errmsg\":\"ok\"}");
  static char text[1000];
  for (size_t i = 0; i < sizeof text - 1; i += 3)
    memcpy(text + i, "\xE4\xBD\xA0", 3);
  for (int i = 0; i < 49; i++) {
    char key[16];
    snprintf(key, sizeof key, "k%d", i);
    struct pry_alert alert = make(key, text);
    alert.title = PRY_SLICE("<@all> ***");
    notify(world, &wecom, alert);
  }
  wait(world, 5 * PRY_SECOND);
  const char *content = member(world, 0, "markdown.content");
  assert_in_range(strlen(content), 1000, 4096); /* bytes of UTF-8, or it is 40058 */
  assert_has(content, "[parry] 49 alerts\n");
  assert_has(content, "more, see the log\n");
  assert_has_not(content, "<@all>");
  static char longest[PRY_NOTE_TEXT_MAX + 100];
  memset(longest, '<', sizeof longest);
  wait(world, MINUTE);
  struct pry_alert alert = {.key = PRY_SLICE("long"), .text = {longest, sizeof longest}, .title = PRY_SLICE("t")};
  notify(world, &wecom, alert);
  wait(world, 5 * PRY_SECOND);
  content = member(world, 1, "markdown.content");
  assert_in_range(strlen(content), 3000, 4096);
  free_world(world);
}

static void test_texts_are_clean(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 200, "ok");
  pry_scrubber_add(world->scrubber, PRY_SLICE("live-token-value"));
  struct pry_alert alert =
      make("live-token-value", "a\r\nlive-token-value\x1B[31m \xFF \xC2\x9B \xED\xA0\x80 \xC3\xA4");
  alert.title = PRY_SLICE("live-token-value\nBcc: x");
  alert.cause = alert.sample = PRY_SLICE("live-token-value");
  alert.fields = (const struct pry_alert_field[]){{PRY_SLICE("f\n"), PRY_SLICE("live-token-value")}};
  alert.field_count = 1;
  notify(world, &slack, alert);
  wait(world, 5 * PRY_SECOND);
  const char *text = member(world, 0, "text");
  assert_has_not(text, "live");
  assert_has(text, "FIRING (error): *** Bcc: x\na \n***");
  assert_has(text, " [31m ?   ??? \xC3\xA4\n");
  assert_has(text, "f : ***\n");
  free_world(world);
}

/* ---- limits -------------------------------------------------------------------------------------------------------- */

/* As DingTalk counts: more than 20 in any minute mute the robot for ten. */
static void test_no_minute_holds_too_many(void **state)
{
  (void)state;
  static const struct {
    const struct pry_sink_config *sink;
    const char *answer;
    size_t most;
  } cases[] = {{&dingtalk, "{\"errcode\":0}", 20}, {&wecom, "{\"errcode\":0}", 20}, {&feishu, "{\"code\":0}", 100}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    struct world *world = new_world();
    always(world, 200, cases[c].answer);
    for (int i = 0; i < 1000; i++) {
      char key[16];
      snprintf(key, sizeof key, "k%d", i);
      struct pry_alert alert = make(key, "bad");
      alert.severity = PRY_ALERT_CRITICAL;
      notify(world, cases[c].sink, alert);
      wait(world, 300 * PRY_MILLISECOND);
    }
    wait(world, 2 * MINUTE);
    assert_int_equal(pry_alerts_queued(world->alerts), 0);
    assert_true(counted(world, "delivered") == 1000); /* nobody was forgotten */
    for (size_t i = 0; i + cases[c].most < sent(world); i++)
      assert_true(seen(world, i + cases[c].most)->started - seen(world, i)->started > MINUTE);
    for (size_t i = 1; i < sent(world); i++)
      assert_true(seen(world, i)->started - seen(world, i - 1)->started >= PRY_SECOND / 5);
    assert_in_range(sent(world), 20, 400);
    free_world(world);
  }
}

static void test_a_busy_sink_is_left_alone(void **state)
{
  (void)state;
  static const struct {
    const struct pry_sink_config *sink;
    int status;
    const char *busy, *good;
    pry_time wait;
  } cases[] = {
      {&dingtalk, 200, "{\"errcode\":130101,\"errmsg\":\"send too fast\"}", "{\"errcode\":0}", 600 * PRY_SECOND},
      {&wecom, 200, "{\"errcode\":45009,\"errmsg\":\"api freq out of limit\"}", "{\"errcode\":0}", MINUTE},
      {&feishu, 200, "{\"code\":11232,\"msg\":\"frequency limited\"}", "{\"code\":0}", MINUTE},
      {&feishu, 400, "{\"code\":9499,\"msg\":\"too many request\"}", "{\"code\":0}", MINUTE},
      {&slack, 429, "rate_limited", "ok", 30 * PRY_SECOND},
      {&pagerduty, 429, "{}", "{}", 30 * PRY_SECOND}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    struct world *world = new_world();
    once(world, cases[c].status, cases[c].busy);
    always(world, 200, cases[c].good);
    struct pry_alert alert = make("first", "bad");
    alert.severity = PRY_ALERT_CRITICAL;
    notify(world, cases[c].sink, alert);
    wait(world, PRY_SECOND);
    alert.key = PRY_SLICE("second");
    notify(world, cases[c].sink, alert); /* comes while it waits */
    wait(world, cases[c].wait - 2 * PRY_SECOND);
    assert_int_equal(sent(world), 1);
    wait(world, 3 * PRY_SECOND);
    assert_int_equal(sent(world), cases[c].sink == &pagerduty ? 3 : 2); /* both in one, where they can be */
    assert_int_equal(seen(world, 1)->started, cases[c].wait);
    assert_true(counted(world, "delivered") == 2);
    assert_has(logged(world), "alerts wait for their sink");
    free_world(world);
  }
}

static void test_slack_says_how_long(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct pry_headers headers;
  pry_headers_init(&headers);
  assert_true(pry_headers_add(&headers, PRY_SLICE("retry-after"), PRY_SLICE("120")));
  assert_true(pry_http_script_push(world->script, &(struct pry_http_step){.status = 429, .headers = &headers}));
  always(world, 200, "ok");
  notify(world, &slack, make("k", "bad"));
  wait(world, 10 * MINUTE);
  assert_int_equal(sent(world), 2);
  assert_int_equal(seen(world, 1)->started, 125 * PRY_SECOND);
  pry_headers_fini(&headers);
  free_world(world);
}

static void test_errors_in_a_200(void **state)
{
  (void)state;
  static const struct {
    const struct pry_sink_config *sink;
    int status;
    const char *body, *why;
    size_t tries;
  } cases[] = {
      {&feishu, 200, "{\"code\":19021,\"msg\":\"sign match fail or timestamp is not within one hour\"}",
       "code 19021: sign match fail", 1},
      {&feishu, 200, "<html>login</html>", "no \\\"code\\\" in the answer; is the URL right?", 4},
      {&dingtalk, 200, "{\"errcode\":310000,\"errmsg\":\"sign not match\"}", "errcode 310000: sign not match", 1},
      {&dingtalk, 200, "{\"errcode\":-1,\"errmsg\":\"system busy\"}", "errcode -1: system busy", 4},
      {&wecom, 200, "{\"errcode\":40058,\"errmsg\":\"markdown.content exceed max length 4096\"}", "errcode 40058", 1},
      {&slack, 400, "invalid_payload", "status 400: invalid_payload", 1},
      {&slack, 500, "", "status 500", 4},
      {&pagerduty, 400,
       "{\"status\":\"invalid event\",\"message\":\"Event object is invalid\",\"errors\":[\"'routing_key' "
       "is missing\"]}",
       "status 400: 'routing_key' is missing", 1},
      {&sentry, 403, "{\"detail\":\"event submission rejected with_reason: ProjectId\"}",
       "status 403: event submission", 1},
  };
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    struct world *world = new_world();
    always(world, cases[c].status, cases[c].body);
    notify(world, cases[c].sink, make("k", "bad"));
    wait(world, 10 * MINUTE);
    assert_int_equal(sent(world), cases[c].tries);
    assert_has(logged(world), cases[c].why);
    assert_true(counted(world, "failed") == 1);
    free_world(world);
  }
}

/* More than a queue holds: counted, logged, and told. */
static void test_what_found_no_place_is_told(void **state)
{
  (void)state;
  struct world *world = new_world();
  once(world, 200, "{\"errcode\":130101}");
  always(world, 200, "{\"errcode\":0}");
  for (int i = 0; i < 300; i++) {
    char key[16];
    snprintf(key, sizeof key, "k%d", i);
    notify(world, &dingtalk, make(key, "bad"));
    if (i == 0)
      wait(world, 6 * PRY_SECOND);
  }
  assert_true(counted(world, "dropped") == 44);
  wait(world, 11 * MINUTE);
  assert_true(counted(world, "delivered") == 256);
  size_t told = 0;
  for (size_t i = 0; i < sent(world); i++)
    told += strstr(member(world, i, "text.content"), "and 44 more, see the log") != NULL;
  assert_int_equal(told, 1);
  free_world(world);
}

/* ---- incidents --------------------------------------------------------------------------------------------------- */

static void test_pagerduty(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 202, "{\"status\":\"success\",\"message\":\"Event processed\",\"dedup_key\":\"x\"}");
  struct pry_alert alert = make("server at p", "10 x category server");
  alert.severity = PRY_ALERT_CRITICAL;
  alert.title = PRY_SLICE("p \"fails\"");
  alert.generation = "abcdef";
  notify(world, &pagerduty, alert);
  resolve(world, &pagerduty, "server at p"); /* it keeps the history: both are told */
  wait(world, PRY_SECOND);
  assert_int_equal(sent(world), 2);
  assert_string_equal(seen(world, 0)->url, "https://events.test/v2/enqueue");
  assert_string_equal(member(world, 0, "routing_key"), routing.value);
  assert_string_equal(member(world, 0, "event_action"), "trigger");
  assert_string_equal(member(world, 0, "dedup_key"), "parry/server at p");
  assert_string_equal(member(world, 0, "payload.summary"), "p \"fails\"");
  assert_string_equal(member(world, 0, "payload.severity"), "critical");
  assert_string_equal(member(world, 0, "payload.source"), "parry");
  assert_string_equal(member(world, 0, "payload.timestamp"), "2020-09-06T02:47:53Z");
  assert_string_equal(member(world, 0, "payload.custom_details.generation"), "abcdef");
  assert_string_equal(member(world, 1, "event_action"), "resolve");
  assert_string_equal(member(world, 1, "dedup_key"), "parry/server at p");
  free_world(world);
}

static void test_sentry(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 200, "{\"id\":\"x\"}");
  struct pry_alert alert = make("server at p", "10 x category server");
  alert.generation = "abcdef";
  notify(world, &sentry, alert);
  wait(world, PRY_SECOND);
  resolve(world, &sentry, "server at p"); /* would open the issue again */
  wait(world, PRY_SECOND);
  assert_int_equal(sent(world), 1);
  assert_int_equal(pry_alerts_open(world->alerts), 0);
  const struct pry_http_seen *request = seen(world, 0);
  assert_string_equal(request->url, "https://sentry.test/self/api/42/envelope/");
  struct pry_slice auth;
  assert_true(pry_headers_get(&request->headers, PRY_SLICE("x-sentry-auth"), &auth));
  assert_true(pry_slice_equal(auth, PRY_SLICE("Sentry sentry_version=7, sentry_client=parry/1, sentry_key=publickey")));
  const char *first = memchr(request->body.data, '\n', request->body.size);
  const char *second = memchr(first + 1, '\n', request->body.size);
  struct pry_slice head = {request->body.data, (size_t)(first - request->body.data)};
  struct pry_slice item = {first + 1, (size_t)(second - first - 1)};
  struct pry_slice event = {second + 1, request->body.size - (size_t)(second + 1 - request->body.data) - 1};
  struct pry_json_value value, id;
  int64_t length;
  assert_true(pry_json_get(item, "length", &value) && pry_json_integer(value.raw, &length));
  assert_int_equal(length, event.size);
  assert_true(pry_json_get(head, "event_id", &id) && pry_json_get(event, "event_id", &value));
  assert_int_equal(id.raw.size, 34);
  assert_true(pry_slice_equal(id.raw, value.raw));
  static const char *const expected[][2] = {{"level", "error"},
                                            {"release", "abcdef"},
                                            {"fingerprint.1", "server at p"},
                                            {"message.formatted", "10 x category server"},
                                            {"platform", "other"}};
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
    assert_true(pry_json_get(event, expected[i][0], &value));
    assert_true(pry_json_equals(value.raw, pry_slice_of(expected[i][1])));
  }
  static const struct pry_secret no_dsn = {.name = "DSN", .value = "https://sentry.test/42"};
  struct pry_sink_config wrong = sentry;
  wrong.url = &no_dsn;
  notify(world, &wrong, alert);
  assert_has(logged(world), "the sink's secret is no DSN");
  free_world(world);
}

/* ---- mail ---------------------------------------------------------------------------------------------------------- */

static void decode(const char *from, char *to, size_t room)
{
  char packed[8192];
  size_t size = 0;
  for (; *from; from++)
    if (*from != '\r' && *from != '\n')
      packed[size++] = *from;
  assert_true(size < room && size % 4 == 0);
  int got = EVP_DecodeBlock((unsigned char *)to, (const unsigned char *)packed, (int)size);
  assert_true(got >= 0);
  to[got] = '\0';
}

static void test_mail(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct pry_alert alert = make("k", "first line\nsecond line");
  alert.title = PRY_SLICE("p fails\r\nBcc: everybody@example.com");
  alert.severity = PRY_ALERT_CRITICAL;
  notify(world, &mail, alert);
  wait(world, PRY_SECOND);
  const struct fake_mailer *mailer = world->mailer;
  assert_int_equal(mailer->count, 1);
  assert_string_equal(mailer->url, "smtps://mail.test:465");
  assert_string_equal(mailer->from, "parry@example.com");
  assert_string_equal(mailer->to, "a@example.com,b@example.com");
  assert_string_equal(mailer->user, "mail-user");
  assert_string_equal(mailer->password, "mail-password");
  const char *text = mailer->message.data;
  assert_true(strncmp(text, "From: parry <parry@example.com>\r\nTo: <a@example.com>,\r\n <b@example.com>\r\n", 72) ==
              0);
  assert_has(text, "\r\nSubject: [parry] FIRING (critical): p fails  Bcc: everybody@example.com\r\n");
  assert_has_not(text, "\nBcc:");
  assert_has(text, "\r\nDate: Sun, 06 Sep 2020 02:47:53 +0000\r\n");
  assert_has(text, "\r\nAuto-Submitted: auto-generated\r\n");
  assert_has(text, "@example.com>\r\nAuto-Submitted"); /* the message's id */
  char body[4096];
  decode(strstr(text, "\r\n\r\n") + 4, body, sizeof body);
  assert_has(body, "[parry] FIRING (critical): p fails  Bcc: everybody@example.com\r\nfirst line\r\nsecond line\r\n");
  for (const char *line = text; line; line = strstr(line, "\r\n") ? strstr(line, "\r\n") + 2 : NULL) {
    assert_in_range(strcspn(line, "\r"), 0, 78);
    assert_true(*line != '.'); /* would end the mail, if curl did not see to it */
  }
  assert_true(counted(world, "delivered") == 1);
  free_world(world);
}

static void test_mail_subject(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct pry_alert alert = make("k", "x");
  alert.title =
      PRY_SLICE("\xE4\xBD\xA0\xE5\xA5\xBD\xE4\xBD\xA0\xE5\xA5\xBD\xE4\xBD\xA0\xE5\xA5\xBD\xE4\xBD\xA0\xE5\xA5\xBD");
  notify(world, &mail, alert);
  notify(world, &mail, make("other", "y"));
  wait(world, 5 * PRY_SECOND);
  assert_has(world->mailer->message.data, "\r\nSubject: [parry] 2 alerts\r\n");
  wait(world, MINUTE);
  resolve(world, &mail, "k");
  wait(world, 5 * PRY_SECOND);
  const char *subject = strstr(world->mailer->message.data, "Subject: ") + 9;
  char decoded[512] = "";
  while (strncmp(subject, "=?UTF-8?B?", 10) == 0) {
    char word[80] = "", text[80];
    size_t size = strcspn(subject + 10, "?");
    assert_true(size + 12 <= 75);
    memcpy(word, subject + 10, size);
    decode(word, text, sizeof text);
    assert_true(((unsigned char)text[0] & 0xC0) != 0x80); /* whole characters (RFC 2047 §5) */
    strncat(decoded, text, sizeof decoded - strlen(decoded) - 1);
    subject += 10 + size + 2;
    subject += strncmp(subject, "\r\n ", 3) == 0 ? 3 : 0;
  }
  assert_has(decoded, "[parry] RESOLVED (error): \xE4\xBD\xA0");
  assert_string_equal(decoded + strlen(decoded) - 24, alert.title.data);
  free_world(world);
}

static void test_mail_is_refused(void **state)
{
  (void)state;
  static const struct {
    int status;
    unsigned tries;
  } cases[] = {{550, 1}, {451, 4}, {0, 4}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    struct world *world = new_world();
    world->mailer->status = cases[c].status;
    notify(world, &mail, make("k", "x"));
    wait(world, 10 * MINUTE);
    assert_int_equal(world->mailer->count, cases[c].tries);
    assert_true(counted(world, "failed") == 1);
    assert_has(logged(world), "no such user");
    free_world(world);
  }
}

/* Policies' tests run in virtual time, and may declare what they like. */
static void test_no_mail_in_virtual_time(void **state)
{
  (void)state;
  struct world *world = new_world();
  pry_alerts_set_mailer(world->alerts, pry_mailer_new(world->mailbox));
  notify(world, &mail, make("k", "x"));
  wait(world, 10 * MINUTE);
  assert_has(logged(world), "no mail is sent in virtual time");
  assert_true(counted(world, "failed") == 1);
  notify(world, &mail, make("k", "x")); /* and with one on its way */
  wait(world, 5 * PRY_SECOND - 1);
  free_world(world);
}

/* ---- trying a sink ------------------------------------------------------------------------------------------------ */

struct tried {
  unsigned count;
  bool accepted;
  char why[200];
};

static void test_done(void *user, const struct pry_alert_test_result *result)
{
  struct tried *tried = user;
  tried->count++;
  tried->accepted = result->accepted;
  snprintf(tried->why, sizeof tried->why, "%s", result->why);
}

static void test_trying(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct tried tried = {0};
  char why[200];
  pry_scrubber_add(world->scrubber, PRY_SLICE("token-in-url"));
  once(world, 200, "{\"errcode\":0}");
  once(world, 200, "{\"errcode\":310000,\"errmsg\":\"no token-in-url\"}");
  always(world, 200, "{\"errcode\":0}");
  assert_non_null(pry_alerts_test(world->alerts, &dingtalk, why, test_done, &tried));
  wait(world, 0);
  assert_true(tried.count == 1 && tried.accepted);
  assert_has(member(world, 0, "text.content"), "[parry] TEST (info): a test of this sink; nothing is wrong\n");
  wait(world, 2 * PRY_SECOND);
  assert_non_null(pry_alerts_test(world->alerts, &dingtalk, why, test_done, &tried));
  wait(world, 0);
  assert_true(tried.count == 2 && !tried.accepted);
  assert_string_equal(tried.why, "errcode 310000: no ***");
  assert_int_equal(sent(world), 2); /* once each */
  for (int i = 2; i < 15; i++) {
    wait(world, 2 * PRY_SECOND);
    assert_non_null(pry_alerts_test(world->alerts, &dingtalk, why, test_done, &tried));
    wait(world, 0);
  }
  wait(world, 2 * PRY_SECOND);
  assert_null(pry_alerts_test(world->alerts, &dingtalk, why, test_done, &tried)); /* the sixteenth in a minute */
  assert_has(why, "the sink's limit is used up");
  struct pry_sink_config none = dingtalk;
  static const struct pry_secret missing = {.name = "NONE"};
  none.sign = &missing;
  assert_null(pry_alerts_test(world->alerts, &none, why, test_done, &tried));
  assert_string_equal(why, "the sink's secret is missing");
  wait(world, 2 * MINUTE);
  assert_int_equal(tried.count, 15);
  always(world, 200, NULL);
  struct pry_alert_test *test = pry_alerts_test(world->alerts, &slack, why, test_done, &tried);
  assert_non_null(test);
  pry_alert_test_cancel(test);
  assert_non_null(pry_alerts_test(world->alerts, &mail, why, test_done, &tried)); /* ends with the alerts */
  free_world(world);
  assert_int_equal(tried.count, 15);
}

static void test_list(void **state)
{
  (void)state;
  struct world *world = new_world();
  always(world, 200, "ok");
  struct pry_alert alert = make("a", "first \"one\"");
  alert.cause = PRY_SLICE("server, HTTP 500");
  alert.count = 5;
  notify(world, &slack, alert);
  alert.update = true;
  notify(world, &slack, alert);
  alert.key = PRY_SLICE("never raised");
  notify(world, &slack, alert);
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  assert_true(pry_alerts_list(world->alerts, &out));
  assert_string_equal(pry_buffer_text(&out),
                      "[{\"sink\":\"ops\",\"key\":\"a\",\"title\":\"first \\\"one\\\"\",\"cause\":\"server, HTTP 500\","
                      "\"severity\":\"error\",\"count\":10,\"told\":1,\"opened\":1599360473.000,\"clients\":0,"
                      "\"sessions\":0}]");
  pry_buffer_fini(&out);
  free_world(world); /* with one that waits for others */
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_primitives),
      cmocka_unit_test(test_feishu_signature),
      cmocka_unit_test(test_dingtalk_signature),
      cmocka_unit_test(test_webhook_signature),
      cmocka_unit_test(test_slack),
      cmocka_unit_test(test_life_of_an_alert),
      cmocka_unit_test(test_digest),
      cmocka_unit_test(test_digest_for_programs),
      cmocka_unit_test(test_what_nobody_raises_is_forgotten),
      cmocka_unit_test(test_updates_in_line_are_one),
      cmocka_unit_test(test_long_digest),
      cmocka_unit_test(test_texts_are_clean),
      cmocka_unit_test(test_no_minute_holds_too_many),
      cmocka_unit_test(test_a_busy_sink_is_left_alone),
      cmocka_unit_test(test_slack_says_how_long),
      cmocka_unit_test(test_errors_in_a_200),
      cmocka_unit_test(test_what_found_no_place_is_told),
      cmocka_unit_test(test_pagerduty),
      cmocka_unit_test(test_sentry),
      cmocka_unit_test(test_mail),
      cmocka_unit_test(test_mail_subject),
      cmocka_unit_test(test_mail_is_refused),
      cmocka_unit_test(test_no_mail_in_virtual_time),
      cmocka_unit_test(test_trying),
      cmocka_unit_test(test_list),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
