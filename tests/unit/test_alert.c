/* Alerts: told once, repeated when it is time, resolved once, delivered in spite of failures, and bounded. */
#include "alert.h"
#include "http_script.h"
#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define URL "http://hooks.test/T0/token-in-the-path"
#define MINUTE (60 * PRY_SECOND)

struct world {
  struct pry_loop *loop;
  struct pry_mailbox *mailbox;
  struct pry_http_script *script;
  struct pry_http *http;
  struct pry_log *log;
  struct pry_metrics *metrics;
  struct pry_scrubber *scrubber;
  struct pry_alerts *alerts;
  struct pry_buffer logged;
  unsigned lines;
};

static const struct pry_secret hook = {.name = "OPS_WEBHOOK", .value = URL, .origin = "test"};
static const struct pry_secret missing = {.name = "NONE"};
static const struct pry_sink_config ops = {.name = "ops", .kind = "webhook", .url = &hook};
static const struct pry_sink_config oncall = {.name = "oncall", .kind = "webhook", .url = &hook};
static const struct pry_sink_config nowhere = {.name = "nowhere", .kind = "webhook", .url = &missing};

static void take_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  (void)level;
  struct world *world = user;
  world->lines++;
  pry_buffer_append(&world->logged, line, size);
  pry_buffer_append_text(&world->logged, "\n");
}

static struct world *new_world(void)
{
  struct world *world = calloc(1, sizeof *world);
  world->loop = pry_loop_new_virtual(1000);
  world->mailbox = pry_mailbox_new(world->loop);
  world->script = pry_http_script_new(world->loop);
  world->http = pry_http_script_client(world->script);
  world->log = pry_log_new(take_line, world, PRY_LOG_DEBUG, NULL, NULL);
  world->metrics = pry_metrics_new();
  world->scrubber = pry_scrubber_new();
  world->alerts = pry_alerts_new(world->mailbox, world->http, world->log, world->metrics, world->scrubber);
  assert_non_null(world->alerts);
  assert_true(pry_http_script_set_default(world->script, &(struct pry_http_step){.status = 204}));
  return world;
}

static void free_world(struct world *world)
{
  pry_alerts_free(world->alerts);
  assert_int_equal(pry_http_open_count(world->http), 0);
  if (world->logged.size) { /* never the URL, whatever happened */
    assert_non_null(pry_buffer_text(&world->logged));
    assert_null(strstr(world->logged.data, "token-in-the-path"));
  }
  pry_http_free(world->http);
  pry_mailbox_free(world->mailbox);
  pry_loop_free(world->loop);
  pry_log_free(world->log);
  pry_metrics_free(world->metrics);
  pry_scrubber_free(world->scrubber);
  pry_buffer_fini(&world->logged);
  free(world);
}

static void notify(struct world *world, const struct pry_sink_config *sink, const char *key, bool resolve)
{
  struct pry_alert alert = {.key = pry_slice_of(key), .text = PRY_SLICE("it is bad"), .resolve = resolve};
  size_t before = pry_http_script_seen_count(world->script);
  pry_alerts_notify(world->alerts, world->loop, sink, &alert);
  assert_int_equal(pry_http_script_seen_count(world->script), before); /* nothing is sent from inside */
}

static size_t sent(struct world *world)
{
  return pry_http_script_seen_count(world->script);
}

static void assert_sent(struct world *world, size_t i, const char *body)
{
  /* What else is known of an alert stands behind that: test_sink.c. */
  const struct pry_http_seen *seen = pry_http_script_seen(world->script, i);
  struct pry_slice beginning = {body, strlen(body) - 1};
  assert_true(pry_slice_starts_with(seen->body, beginning));
  assert_int_equal(seen->body.data[beginning.size], ',');
  assert_int_equal(pry_json_parse(seen->body, NULL), PRY_JSON_OK);
}

static double counted(struct world *world, const char *sink, const char *result)
{
  return pry_metrics_value(world->metrics, PRY_M_ALERTS, sink, result);
}

static void test_fire_repeat_resolve(void **state)
{
  (void)state;
  struct world *world = new_world();
  notify(world, &ops, "breaker:p/m", false);
  assert_int_equal(pry_alerts_queued(world->alerts), 1);
  assert_int_equal(pry_alerts_open(world->alerts), 1);
  pry_loop_advance(world->loop, PRY_SECOND);
  const struct pry_http_seen *seen = pry_http_script_seen(world->script, 0);
  assert_string_equal(seen->method, "POST");
  assert_string_equal(seen->url, URL);
  struct pry_slice type;
  assert_true(pry_headers_get(&seen->headers, PRY_SLICE("content-type"), &type));
  assert_true(pry_slice_equal(type, PRY_SLICE("application/json")));
  assert_sent(world, 0,
              "{\"key\":\"breaker:p/m\",\"text\":\"it is bad\",\"state\":\"firing\",\"count\":1,\"time\":1000.000,"
              "\"source\":\"parry\"}");
  for (int i = 0; i < 5; i++) { /* within the hour it only counts */
    pry_loop_advance(world->loop, 10 * MINUTE - PRY_SECOND);
    notify(world, &ops, "breaker:p/m", false);
  }
  assert_int_equal(sent(world), 1);
  pry_loop_advance(world->loop, 10 * MINUTE + 5 * PRY_SECOND);
  notify(world, &ops, "breaker:p/m", false);
  pry_loop_advance(world->loop, PRY_SECOND);
  assert_int_equal(sent(world), 2);
  assert_sent(world, 1,
              "{\"key\":\"breaker:p/m\",\"text\":\"it is bad\",\"state\":\"firing\",\"count\":7,\"time\":4601.000,"
              "\"source\":\"parry\"}");
  notify(world, &ops, "breaker:p/m", true);
  notify(world, &ops, "breaker:p/m", true); /* delivered once */
  notify(world, &ops, "another", true);     /* never raised */
  pry_loop_advance(world->loop, PRY_SECOND);
  assert_int_equal(sent(world), 3);
  assert_sent(world, 2,
              "{\"key\":\"breaker:p/m\",\"text\":\"it is bad\",\"state\":\"resolved\",\"count\":7,\"time\":4602.000,"
              "\"source\":\"parry\"}");
  assert_int_equal(pry_alerts_open(world->alerts), 0);
  assert_int_equal(pry_alerts_queued(world->alerts), 0);
  notify(world, &ops, "breaker:p/m", false); /* a new life */
  pry_loop_advance(world->loop, PRY_SECOND);
  assert_int_equal(sent(world), 4);
  assert_true(counted(world, "ops", "delivered") == 4);
  free_world(world);
}

static void test_options(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct pry_alert alert = {
      .key = PRY_SLICE("k"), .text = PRY_SLICE("t"), .generation = "abc123", .repeat = 10 * PRY_SECOND};
  pry_alerts_notify(world->alerts, world->loop, &ops, &alert);
  pry_loop_advance(world->loop, 10 * PRY_SECOND);
  pry_alerts_notify(world->alerts, world->loop, &ops, &alert);
  pry_loop_advance(world->loop, 9 * PRY_SECOND);
  pry_alerts_notify(world->alerts, world->loop, &ops, &alert);
  pry_alerts_notify(world->alerts, world->loop, &oncall, &alert); /* the same key at another sink is another alert */
  pry_loop_advance(world->loop, PRY_SECOND);
  assert_int_equal(sent(world), 3);
  assert_sent(world, 1,
              "{\"key\":\"k\",\"text\":\"t\",\"state\":\"firing\",\"generation\":\"abc123\",\"count\":2,"
              "\"time\":1010.000,\"source\":\"parry\"}");
  assert_int_equal(pry_alerts_open(world->alerts), 2);
  free_world(world);
}

/* Scrubbed, then cut between characters. */
static void test_text(void **state)
{
  (void)state;
  struct world *world = new_world();
  pry_scrubber_add(world->scrubber, PRY_SLICE("live-token-value"));
  static char text[PRY_ALERT_TEXT_MAX + 100];
  memset(text, 'x', sizeof text);
  memcpy(text + PRY_ALERT_TEXT_MAX - 8, "live-token-value", 16); /* across the cut */
  struct pry_alert alert = {.key = PRY_SLICE("live-token-value"), .text = {text, sizeof text}};
  pry_alerts_notify(world->alerts, world->loop, &ops, &alert);
  memset(text, 'x', sizeof text);
  memcpy(text + PRY_ALERT_TEXT_MAX - 1, "\xC3\xA4", 2);
  alert.key = PRY_SLICE("k\"");
  pry_alerts_notify(world->alerts, world->loop, &ops, &alert);
  pry_loop_advance(world->loop, PRY_SECOND);
  for (size_t i = 0; i < 2; i++) {
    struct pry_slice body = pry_http_script_seen(world->script, i)->body;
    struct pry_json_value value;
    assert_int_equal(pry_json_parse(body, NULL), PRY_JSON_OK);
    assert_null(memmem(body.data, body.size, "live", 4));
    assert_null(memmem(body.data, body.size, "\xEF\xBF\xBD", 3));
    assert_true(pry_json_get(body, "text", &value));
    assert_in_range(value.raw.size, PRY_ALERT_TEXT_MAX - 10, PRY_ALERT_TEXT_MAX + 2);
  }
  free_world(world);
}

static void test_retries(void **state)
{
  (void)state;
  static const struct {
    struct pry_http_step step; /* of every try */
    pry_time at[4];            /* when the tries begin; 0 after the first: none */
    bool delivered;
  } cases[] = {
      {{.status = 200}, {0}, true},
      {{.status = 204}, {0}, true},
      {{.status = 500}, {0, 1, 5, 21}, false},
      {{.status = 429}, {0, 1, 5, 21}, false},
      {{.status = 302}, {0, 1, 5, 21}, false},
      {{.status = 404}, {0}, false}, /* will not get better */
      {{.status = 408}, {0, 1, 5, 21}, false},
      {{.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true}, {0, 1, 5, 21}, false},
      {{.hang = true}, {0, 11, 25, 51}, false}, /* ten seconds each */
      {{.hang_connect = true}, {0, 11, 25, 51}, false},
      {{.status = 200, .cut = true}, {0}, true}, /* the sink has it */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct world *world = new_world();
    assert_true(pry_http_script_set_default(world->script, &cases[i].step));
    notify(world, &ops, "k", false);
    pry_loop_advance(world->loop, 120 * PRY_SECOND);
    size_t tries = 1;
    while (tries < 4 && cases[i].at[tries])
      tries++;
    assert_int_equal(sent(world), tries);
    for (size_t j = 0; j < tries; j++)
      assert_int_equal(pry_http_script_seen(world->script, j)->started, cases[i].at[j] * PRY_SECOND);
    assert_int_equal(pry_alerts_queued(world->alerts), 0);
    assert_true(counted(world, "ops", cases[i].delivered ? "delivered" : "failed") == 1);
    assert_int_equal(world->lines, cases[i].delivered ? 0 : 1);
    free_world(world);
  }
}

static void test_server_names_a_time(void **state)
{
  (void)state;
  static const struct {
    const char *retry_after;
    pry_time second_try;
  } cases[] = {{"0", 1}, {"7", 7}, {"60", 60}, {"3600", 1}, {"nonsense", 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct world *world = new_world();
    struct pry_headers headers;
    pry_headers_init(&headers);
    assert_true(pry_headers_add(&headers, PRY_SLICE("retry-after"), pry_slice_of(cases[i].retry_after)));
    assert_true(pry_http_script_push(world->script, &(struct pry_http_step){.status = 429, .headers = &headers}));
    notify(world, &ops, "k", false);
    pry_loop_advance(world->loop, 120 * PRY_SECOND);
    assert_int_equal(sent(world), 2);
    assert_int_equal(pry_http_script_seen(world->script, 1)->started, cases[i].second_try * PRY_SECOND);
    pry_headers_fini(&headers);
    free_world(world);
  }
}

static void test_endless_answer(void **state)
{
  (void)state;
  struct world *world = new_world();
  static char bytes[16 * 1024];
  memset(bytes, 'x', sizeof bytes);
  struct pry_slice chunks[8];
  for (int i = 0; i < 8; i++)
    chunks[i] = (struct pry_slice){bytes, sizeof bytes};
  struct pry_http_step step = {.status = 200, .chunks = chunks, .chunk_count = 8, .hang = true};
  assert_true(pry_http_script_push(world->script, &step));
  notify(world, &ops, "k", false);
  pry_loop_advance(world->loop, PRY_SECOND);
  assert_true(pry_http_script_seen(world->script, 0)->cancelled);
  assert_true(counted(world, "ops", "delivered") == 1);
  free_world(world);
}

/* What was lost is told again a minute later, not an hour. */
static void test_loss_is_made_good(void **state)
{
  (void)state;
  struct world *world = new_world();
  assert_true(pry_http_script_push(world->script, &(struct pry_http_step){.status = 400}));
  notify(world, &ops, "k", false);
  pry_loop_advance(world->loop, PRY_SECOND);
  assert_true(counted(world, "ops", "failed") == 1);
  pry_loop_advance(world->loop, 58 * PRY_SECOND);
  notify(world, &ops, "k", false);
  pry_loop_advance(world->loop, PRY_SECOND);
  assert_int_equal(sent(world), 1);
  notify(world, &ops, "k", false);
  pry_loop_advance(world->loop, PRY_SECOND);
  assert_int_equal(sent(world), 2);
  assert_true(counted(world, "ops", "delivered") == 1);
  free_world(world);
}

static void test_sinks_do_not_delay_each_other(void **state)
{
  (void)state;
  struct world *world = new_world();
  assert_true(pry_http_script_push(world->script, &(struct pry_http_step){.hang = true}));
  notify(world, &ops, "first", false);
  notify(world, &ops, "second", false);
  notify(world, &oncall, "first", false);
  pry_loop_advance(world->loop, PRY_SECOND);
  assert_int_equal(sent(world), 2); /* one each: in order at a sink, side by side between sinks */
  assert_true(counted(world, "oncall", "delivered") == 1);
  assert_int_equal(pry_alerts_queued(world->alerts), 2);
  pry_loop_advance(world->loop, 20 * PRY_SECOND);
  assert_int_equal(sent(world), 4);
  assert_true(counted(world, "ops", "delivered") == 2);
  free_world(world);
}

static void test_bounds(void **state)
{
  (void)state;
  struct world *world = new_world();
  assert_true(pry_http_script_set_default(world->script, &(struct pry_http_step){.hang = true}));
  for (int i = 0; i < PRY_ALERTS_OPEN_MAX + 100; i++) {
    char key[32];
    snprintf(key, sizeof key, "key %d", i);
    notify(world, &ops, key, false);
  }
  assert_int_equal(pry_alerts_queued(world->alerts), PRY_ALERT_QUEUE_MAX);
  assert_int_equal(pry_alerts_open(world->alerts), PRY_ALERTS_OPEN_MAX);
  assert_true(counted(world, "ops", "dropped") == PRY_ALERTS_OPEN_MAX + 100 - PRY_ALERT_QUEUE_MAX);
  unsigned lines = world->lines;
  for (int i = 0; i < 100; i++)
    notify(world, &ops, "key 1100", false); /* a dropped one is not logged for each time it is told */
  assert_int_equal(world->lines, lines);
  notify(world, &oncall, "key", false);
  assert_int_equal(pry_alerts_queued(world->alerts), PRY_ALERT_QUEUE_MAX + 1);
  pry_loop_advance(world->loop, 15 * PRY_SECOND);
  free_world(world); /* with everything still queued */
}

static void test_missing_secret(void **state)
{
  (void)state;
  struct world *world = new_world();
  for (int i = 0; i < 10; i++)
    notify(world, &nowhere, "k", false);
  assert_int_equal(world->lines, 1);
  assert_true(counted(world, "nowhere", "no_secret") == 1);
  notify(world, &nowhere, "another", false);
  assert_int_equal(world->lines, 2);
  struct pry_sink_config found = nowhere; /* a reload brought it */
  found.url = &hook;
  notify(world, &found, "k", false);
  pry_loop_advance(world->loop, PRY_SECOND);
  assert_int_equal(sent(world), 1);
  notify(world, &nowhere, "another", true);
  notify(world, &nowhere, "k", true);
  assert_int_equal(pry_alerts_open(world->alerts), 0);
  assert_int_equal(pry_alerts_queued(world->alerts), 0);
  free_world(world);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fire_repeat_resolve),
      cmocka_unit_test(test_options),
      cmocka_unit_test(test_text),
      cmocka_unit_test(test_retries),
      cmocka_unit_test(test_server_names_a_time),
      cmocka_unit_test(test_endless_answer),
      cmocka_unit_test(test_loss_is_made_good),
      cmocka_unit_test(test_sinks_do_not_delay_each_other),
      cmocka_unit_test(test_bounds),
      cmocka_unit_test(test_missing_secret),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
