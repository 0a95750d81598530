/* Sinks: what each is sent, what its answer means, and how much of it there is. Signatures are compared with values that
 * the openssl command computed:
 *   printf '' | openssl dgst -sha256 -mac HMAC -macopt hexkey:$(printf '1599360473\ndemo-signing-secret' | xxd -p) -binary | base64
 *   printf '1599360473000\ndemo-signing-secret' | openssl dgst -sha256 -hmac demo-signing-secret -binary | base64 */
#include "sink_rig.h"

#include <openssl/evp.h>

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
  int64_t length = 0;
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
