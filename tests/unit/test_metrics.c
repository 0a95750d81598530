/* Metrics: what is counted, what is bounded, and the text Prometheus reads. */
#include "metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define DROPPED                                                                                                        \
  "# HELP parry_event_records_overwritten_total Event records the ring lost.\n"                                        \
  "# TYPE parry_event_records_overwritten_total counter\n"                                                             \
  "parry_event_records_overwritten_total 0\n"

static char *render(struct pry_metrics *metrics)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  assert_true(pry_metrics_render(metrics, &text));
  assert_non_null(pry_buffer_text(&text));
  size_t size;
  return pry_buffer_take(&text, &size);
}

static void assert_rendered(struct pry_metrics *metrics, const char *expected)
{
  char *text = render(metrics);
  assert_string_equal(text, expected);
  free(text);
}

static void test_empty(void **state)
{
  (void)state;
  struct pry_metrics *metrics = pry_metrics_new();
  assert_rendered(metrics, DROPPED);
  pry_metrics_free(metrics);
  pry_metrics_free(NULL);
  pry_metrics_add(NULL, PRY_M_CALLS, "a", "b", 1);
  pry_metrics_set(NULL, PRY_M_OPEN_CALLS, NULL, NULL, 1);
  pry_metrics_clear(NULL, PRY_M_OPEN_CALLS);
  assert_true(pry_metrics_value(NULL, PRY_M_CALLS, "a", "b") == 0);
}

static void test_counters_and_gauges(void **state)
{
  (void)state;
  struct pry_metrics *metrics = pry_metrics_new();
  pry_metrics_add(metrics, PRY_M_CALLS, "/v1/*", "ok", 1);
  pry_metrics_add(metrics, PRY_M_CALLS, "/v1/*", "failed", 1);
  pry_metrics_add(metrics, PRY_M_CALLS, "/v1/*", "ok", 2);
  pry_metrics_add(metrics, PRY_M_CALLS, "/v1/*", "ok", -5);
  pry_metrics_add(metrics, PRY_M_CALLS, "/v1/*", "ok", NAN);
  pry_metrics_set(metrics, PRY_M_CALLS, "/v1/*", "ok", 100); /* a counter is not set */
  pry_metrics_clear(metrics, PRY_M_CALLS);                   /* nor cleared */
  pry_metrics_add(metrics, PRY_M_WAIT, "retry", NULL, 0.1);
  pry_metrics_add(metrics, PRY_M_WAIT, "retry", NULL, 0.2);
  pry_metrics_add(metrics, PRY_M_OPEN_CALLS, NULL, NULL, 3);
  pry_metrics_add(metrics, PRY_M_OPEN_CALLS, NULL, NULL, -1);
  pry_metrics_set(metrics, PRY_M_BUDGET, "p/m", NULL, INFINITY);
  pry_metrics_set(metrics, PRY_M_BUDGET, "q", NULL, NAN);
  assert_true(pry_metrics_value(metrics, PRY_M_CALLS, "/v1/*", "ok") == 3);
  assert_true(pry_metrics_value(metrics, PRY_M_CALLS, "/v1/*", "none") == 0);
  assert_rendered(metrics, "# HELP parry_calls_total Calls by their single outcome.\n"
                           "# TYPE parry_calls_total counter\n"
                           "parry_calls_total{route=\"/v1/*\",outcome=\"ok\"} 3\n"
                           "parry_calls_total{route=\"/v1/*\",outcome=\"failed\"} 1\n"
                           "# HELP parry_wait_seconds_total Time calls spent waiting.\n"
                           "# TYPE parry_wait_seconds_total counter\n"
                           "parry_wait_seconds_total{reason=\"retry\"} 0.30000000000000004\n"
                           "# HELP parry_retry_budget_remaining_ratio Share of the retry budget left.\n"
                           "# TYPE parry_retry_budget_remaining_ratio gauge\n"
                           "parry_retry_budget_remaining_ratio{target=\"p/m\"} +Inf\n"
                           "parry_retry_budget_remaining_ratio{target=\"q\"} NaN\n" DROPPED
                           "# HELP parry_calls_open Calls without an outcome yet.\n"
                           "# TYPE parry_calls_open gauge\n"
                           "parry_calls_open 2\n");
  pry_metrics_clear(metrics, PRY_M_OPEN_CALLS);
  pry_metrics_clear(metrics, PRY_M_BUDGET);
  assert_true(pry_metrics_value(metrics, PRY_M_OPEN_CALLS, NULL, NULL) == 0);
  char *text = render(metrics);
  assert_null(strstr(text, "parry_calls_open"));
  free(text);
  pry_metrics_free(metrics);
}

static void test_histogram(void **state)
{
  (void)state;
  struct pry_metrics *metrics = pry_metrics_new();
  static const double values[] = {0, 0.01, 0.0100001, 1.28, 327.68, 327.7, 1000};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++)
    pry_metrics_add(metrics, PRY_M_CALL_DURATION, "r", NULL, values[i]);
  assert_true(pry_metrics_value(metrics, PRY_M_CALL_DURATION, "r", NULL) == 7);
  assert_rendered(metrics, "# HELP parry_call_duration_seconds From arrival to outcome.\n"
                           "# TYPE parry_call_duration_seconds histogram\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"0.01\"} 2\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"0.02\"} 3\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"0.04\"} 3\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"0.08\"} 3\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"0.16\"} 3\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"0.32\"} 3\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"0.64\"} 3\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"1.28\"} 4\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"2.56\"} 4\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"5.12\"} 4\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"10.24\"} 4\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"20.48\"} 4\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"40.96\"} 4\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"81.92\"} 4\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"163.84\"} 4\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"327.68\"} 5\n"
                           "parry_call_duration_seconds_bucket{route=\"r\",le=\"+Inf\"} 7\n"
                           "parry_call_duration_seconds_sum{route=\"r\"} 1656.6800001\n"
                           "parry_call_duration_seconds_count{route=\"r\"} 7\n" DROPPED);
  pry_metrics_free(metrics);
}

static void test_escaping(void **state)
{
  (void)state;
  static const struct {
    const char *label, *expected;
  } cases[] = {
      {"plain", "plain"},
      {"a\"b", "a\\\"b"},
      {"a\\b", "a\\\\b"},
      {"a\nb", "a\\nb"},
      {"a\tb\rc", "a b c"},
      {"\n\n", "\\n\\n"},
      {"\x7f", " "},
      {"\xC3\xA4", "\xC3\xA4"},
      {"\xff", "\xEF\xBF\xBD"},
      {"", ""},
      {"{le=\"1\"}", "{le=\\\"1\\\"}"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct pry_metrics *metrics = pry_metrics_new();
    pry_metrics_add(metrics, PRY_M_WAIT, cases[i].label, NULL, 1);
    char expected[128], *text = render(metrics);
    snprintf(expected, sizeof expected, "\nparry_wait_seconds_total{reason=\"%s\"} 1\n", cases[i].expected);
    assert_non_null(strstr(text, expected));
    free(text);
    pry_metrics_free(metrics);
  }
}

/* However many label values come, a metric keeps its bound, and nothing counted is lost. */
static void test_series_are_bounded(void **state)
{
  (void)state;
  struct pry_metrics *metrics = pry_metrics_new();
  for (int i = 0; i < 2000; i++) {
    char label[32];
    snprintf(label, sizeof label, "target %d", i);
    pry_metrics_add(metrics, PRY_M_ATTEMPTS, label, "none", 1);
  }
  assert_true(pry_metrics_value(metrics, PRY_M_ATTEMPTS, "target 0", "none") == 1);
  assert_true(pry_metrics_value(metrics, PRY_M_ATTEMPTS, "target 511", "none") == 0);
  assert_true(pry_metrics_value(metrics, PRY_M_ATTEMPTS, "other", "other") == 2000 - (PRY_METRICS_SERIES_MAX - 1));
  char *text = render(metrics);
  size_t lines = 0, heads = 0;
  for (const char *at = text; (at = strstr(at, "parry_attempts_total{")); at++)
    lines++;
  for (const char *at = text; (at = strstr(at, "# TYPE parry_attempts_total")); at++)
    heads++;
  assert_int_equal(lines, PRY_METRICS_SERIES_MAX);
  assert_int_equal(heads, 1);
  free(text);
  pry_metrics_free(metrics);
}

static void test_no_room(void **state)
{
  (void)state;
  struct pry_metrics *metrics = pry_metrics_new();
  pry_metrics_add(metrics, PRY_M_WAIT, "retry", NULL, 1);
  struct pry_buffer text;
  pry_buffer_init(&text, 120);
  assert_true(pry_buffer_append_text(&text, "before"));
  assert_false(pry_metrics_render(metrics, &text));
  assert_string_equal(pry_buffer_text(&text), "before");
  pry_buffer_fini(&text);
  pry_metrics_free(metrics);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_empty),    cmocka_unit_test(test_counters_and_gauges), cmocka_unit_test(test_histogram),
      cmocka_unit_test(test_escaping), cmocka_unit_test(test_series_are_bounded),  cmocka_unit_test(test_no_room),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
