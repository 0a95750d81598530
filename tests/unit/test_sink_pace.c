/* Alerts as people get them: how often, how many at once, and never more than their sink takes. */
#include "sink_rig.h"

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

int main(void)
{
  const struct CMUnitTest tests[] = {
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
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
