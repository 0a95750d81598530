/* Log lines, and secrets taken out of them. */
#include "log.h"

#include "json.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

struct sink {
  struct pry_buffer last;
  unsigned lines;
  double time;
};

static double clock_of(void *user)
{
  const struct sink *sink = user;
  return sink->time;
}

static void take_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  (void)level;
  struct sink *sink = user;
  sink->lines++;
  assert_int_equal(strlen(line), size);
  assert_null(memchr(line, '\n', size));
  assert_int_equal(pry_json_parse((struct pry_slice){line, size}, NULL), PRY_JSON_OK);
  pry_buffer_clear(&sink->last);
  pry_buffer_append(&sink->last, line, size);
}

static void assert_line(struct sink *sink, const char *expected)
{
  assert_string_equal(pry_buffer_text(&sink->last), expected);
}

static void test_fields(void **state)
{
  (void)state;
  struct sink sink = {.time = 1700000000.987};
  struct pry_log *log = pry_log_new(take_line, &sink, PRY_LOG_INFO, clock_of, &sink);
  pry_log(log, PRY_LOG_INFO, "hello \"you\"", pry_log_text("a", "b\n\x01\xff"), pry_log_text("empty", ""),
          pry_log_text("null", NULL), pry_log_slice("part", (struct pry_slice){"partly", 4}),
          pry_log_number("number", 0.1), pry_log_number("nan", NAN), pry_log_integer("integer", -7),
          pry_log_boolean("yes", true), pry_log_boolean("no", false));
  assert_line(
      &sink, "{\"ts\":\"2023-11-14T22:13:20.987Z\",\"level\":\"info\",\"msg\":\"hello \\\"you\\\"\",\"a\":\"b\\n\\u0001"
             "\xEF\xBF\xBD\",\"part\":\"part\",\"number\":0.1,\"nan\":null,\"integer\":-7,\"yes\":true,\"no\":false}");
  sink.time = 951782399.5; /* the last second of a leap day */
  const struct pry_log_field ended[] = {pry_log_text("x", "1"), {.name = NULL}, pry_log_text("y", "2")};
  pry_log_write(log, PRY_LOG_ERROR, "m", ended, 3);
  assert_line(&sink, "{\"ts\":\"2000-02-28T23:59:59.500Z\",\"level\":\"error\",\"msg\":\"m\",\"x\":\"1\"}");
  static const double times[] = {NAN, -1, INFINITY, 1e300};
  for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
    sink.time = times[i];
    pry_log_write(log, PRY_LOG_WARN, "m", NULL, 0);
    assert_line(&sink, "{\"ts\":\"1970-01-01T00:00:00.000Z\",\"level\":\"warn\",\"msg\":\"m\"}");
  }
  pry_log_free(log);
  pry_buffer_fini(&sink.last);
}

static unsigned long long next_random(unsigned long long *state)
{
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return *state >> 11;
}

/* Dates and numbers are written by hand: they must be what the C library writes. */
static void test_writers_agree_with_the_library(void **state)
{
  (void)state;
  struct sink sink = {0};
  struct pry_log *log = pry_log_new(take_line, &sink, PRY_LOG_INFO, clock_of, &sink);
  unsigned long long random = 1;
  static const double special[] = {0,  -0.0,     1e-7, 0.00009999,      0.0001,         0.000123, 0.1,  0.3,
                                   1,  -1.5,     1e8,  99999999.999999, 123456.7890125, 1e15,     1e16, 253402300799.0,
                                   10, 0.000001, 100,  5e-324,          12345678.9};
  for (unsigned i = 0; i < 60000; i++) {
    double seconds = (double)(next_random(&random) % 253402300800u);
    if (i < 4000) /* each day from 1970 on, and around the centuries */
      seconds = 86400.0 * (i < 2000 ? i : 45000 + i) + (i % 2 ? 86399 : 0);
    double number = i < sizeof special / sizeof *special ? special[i]
                    : i % 3 ? (double)(next_random(&random) % (i % 2 ? 5000000 : 1u << 30)) / 1e6
                            : (double)next_random(&random) / 1e9;
    long long integer = (long long)(next_random(&random) << (i % 12)) * (i % 2 ? 1 : -1);
    sink.time = seconds;
    pry_log(log, PRY_LOG_INFO, "m", pry_log_number("n", number), pry_log_integer("i", integer));
    char expected[256], date[32];
    time_t when = (time_t)seconds;
    struct tm parts;
    assert_non_null(gmtime_r(&when, &parts));
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(expected, sizeof expected, "{\"ts\":\"%s.000Z\",\"level\":\"info\",\"msg\":\"m\",\"n\":%.15g,\"i\":%lld}",
             date, number, integer);
    assert_line(&sink, expected);
  }
  pry_log_free(log);
  pry_buffer_fini(&sink.last);
}

static void test_levels(void **state)
{
  (void)state;
  struct sink sink = {0};
  struct pry_log *log = pry_log_new(take_line, &sink, PRY_LOG_WARN, clock_of, &sink);
  assert_false(pry_log_enabled(log, PRY_LOG_INFO));
  assert_true(pry_log_enabled(log, PRY_LOG_WARN));
  assert_false(pry_log_enabled(NULL, PRY_LOG_ERROR));
  for (enum pry_log_level level = PRY_LOG_DEBUG; level <= PRY_LOG_ERROR; level++)
    pry_log_write(log, level, "m", NULL, 0);
  assert_int_equal(sink.lines, 2);
  pry_log_write(NULL, PRY_LOG_ERROR, "m", NULL, 0);
  pry_log_free(log);
  pry_buffer_fini(&sink.last);
  log = pry_log_new(NULL, NULL, PRY_LOG_DEBUG, NULL, NULL);
  pry_log_write(log, PRY_LOG_ERROR, "m", NULL, 0);
  pry_log_free(log);
}

/* Whatever the lengths, a line is whole JSON, within 16 KiB, and says that it was cut. */
static void test_long_lines(void **state)
{
  (void)state;
  struct sink sink = {0};
  struct pry_log *log = pry_log_new(take_line, &sink, PRY_LOG_DEBUG, clock_of, &sink);
  static char text[70000];
  static const char *const fills[] = {"x", "\x01", "\xC3\xA4", "\xF0\x9F\x98\x80", "\""};
  for (size_t fill = 0; fill < sizeof fills / sizeof *fills; fill++) {
    size_t width = strlen(fills[fill]);
    for (size_t i = 0; i + width <= sizeof text; i += width)
      memcpy(text + i, fills[fill], width);
    for (size_t size = 0; size < sizeof text - 4; size += size < 16200 ? 540 : size < 16400 ? 1 : size) {
      struct pry_slice part = {text, size - size % width};
      pry_log(log, PRY_LOG_INFO, "m", pry_log_slice("first", part), pry_log_text("second", "short"),
              pry_log_slice("third", part), pry_log_integer("fourth", 4));
      assert_true(sink.last.size <= 16 * 1024);
      struct pry_json_value value;
      bool truncated = pry_json_get(pry_buffer_slice(&sink.last), "truncated", &value);
      assert_true(truncated || (size * 2 < 16 * 1024));
      assert_null(strstr(pry_buffer_text(&sink.last), "\xEF\xBF\xBD")); /* cut between characters */
      assert_int_equal(pry_json_get(pry_buffer_slice(&sink.last), "first", &value), size > 0); /* cut, not dropped */
      if (truncated)
        assert_true(sink.last.size > 4 * 1024); /* and not to nothing */
    }
  }
  memset(text, 'm', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  pry_log(log, PRY_LOG_INFO, text, pry_log_text("a", "b"));
  assert_true(sink.last.size <= 16 * 1024);
  pry_log_free(log);
  pry_buffer_fini(&sink.last);
}

static void assert_scrubbed(struct pry_scrubber *scrubber, const char *text, const char *expected)
{
  struct pry_buffer buffer;
  pry_buffer_init(&buffer, 0);
  assert_true(pry_buffer_append_text(&buffer, text));
  pry_scrubber_apply(scrubber, &buffer);
  assert_string_equal(pry_buffer_text(&buffer), expected);
  assert_int_equal(pry_scrubber_finds(scrubber, pry_slice_of(text)), strcmp(text, expected) != 0);
  char fixed[256];
  snprintf(fixed, sizeof fixed, "%s", text);
  pry_scrubber_apply_text(scrubber, fixed);
  assert_string_equal(fixed, expected);
  pry_buffer_fini(&buffer);
}

static void test_scrubbing(void **state)
{
  (void)state;
  struct pry_scrubber *scrubber = pry_scrubber_new();
  assert_scrubbed(scrubber, "sk-secret", "sk-secret");
  static const char *const secrets[] = {"sk-secret", "sk-secret-long", "long-tail", "a\"b\\c/d\ne", "aaaaaa", "abcdef"};
  for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++)
    assert_true(pry_scrubber_add(scrubber, pry_slice_of(secrets[i])));
  static const struct {
    const char *text, *expected;
  } cases[] = {
      {"", ""},
      {"nothing here", "nothing here"},
      {"sk-secre", "sk-secre"},
      {"sk-secret", "***"},
      {"Bearer sk-secret.", "Bearer ***."},
      {"sk-secret and sk-secret", "*** and ***"},
      {"sk-secretsk-secret", "***"},    /* runs go as one */
      {"sk-secret-long", "***"},        /* the longest */
      {"sk-secret-long-tail!", "***!"}, /* overlapping: no end is left */
      {"sk-sk-secret", "sk-***"},
      {"aaaaaaaaaa", "***"}, /* overlapping itself */
      {"xaaaaaaabcdefx", "x***x"},
      {"a\"b\\c/d\ne", "***"},
      {"{\"e\":\"a\\\"b\\\\c/d\\ne\"}", "{\"e\":\"***\"}"},   /* as JSON writes it */
      {"{\"e\":\"a\\\"b\\\\c\\/d\\ne\"}", "{\"e\":\"***\"}"}, /* with escaped slashes */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_scrubbed(scrubber, cases[i].text, cases[i].expected);
  for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++)
    pry_scrubber_remove(scrubber, pry_slice_of(secrets[i]));
  assert_scrubbed(scrubber, "sk-secret-long-tail", "sk-secret-long-tail");
  pry_scrubber_apply(NULL, NULL);
  pry_scrubber_apply_text(NULL, NULL);
  pry_scrubber_free(scrubber);
}

static void test_scrubber_counts_uses(void **state)
{
  (void)state;
  struct pry_scrubber *scrubber = pry_scrubber_new();
  pry_scrubber_add(scrubber, PRY_SLICE("secret"));
  pry_scrubber_add(scrubber, PRY_SLICE("secret"));
  pry_scrubber_remove(scrubber, PRY_SLICE("secret"));
  assert_scrubbed(scrubber, "secret", "***");
  pry_scrubber_remove(scrubber, PRY_SLICE("secret"));
  pry_scrubber_remove(scrubber, PRY_SLICE("secret"));
  assert_scrubbed(scrubber, "secret", "secret");
  assert_true(pry_scrubber_add(scrubber, PRY_SLICE("short"))); /* would eat ordinary words */
  assert_scrubbed(scrubber, "a short word", "a short word");
  pry_scrubber_remove(scrubber, PRY_SLICE("short"));
  pry_scrubber_free(scrubber);
}

/* In the message, in any field, and where a line is cut. */
static void test_lines_hold_no_secret(void **state)
{
  (void)state;
  struct sink sink = {0};
  struct pry_log *log = pry_log_new(take_line, &sink, PRY_LOG_DEBUG, clock_of, &sink);
  struct pry_scrubber *scrubber = pry_scrubber_new();
  pry_scrubber_add(scrubber, PRY_SLICE("newsecret\"42"));
  pry_log_set_scrubber(log, scrubber);
  pry_log(log, PRY_LOG_INFO, "got newsecret\"42", pry_log_text("a", "x newsecret\"42 y"),
          pry_log_text("b", "\newsecret\"42"), pry_log_text("c", "{\"k\":\"newsecret\\\"42\"}"));
  assert_line(&sink, "{\"ts\":\"1970-01-01T00:00:00.000Z\",\"level\":\"info\",\"msg\":\"got ***\",\"a\":\"x *** y\","
                     "\"b\":\"\\newsecret\\\"42\",\"c\":\"{\\\"k\\\":\\\"***\\\"}\"}");
  static char text[40000];
  for (size_t start = 8000; start < 17000; start += start < 16000 ? 101 : 3) { /* across every cut there could be */
    memset(text, 'x', sizeof text);
    memcpy(text + start, "newsecret\"42", 12);
    pry_log(log, PRY_LOG_INFO, "m", pry_log_slice("a", (struct pry_slice){text, sizeof text}));
    assert_null(strstr(pry_buffer_text(&sink.last), "news"));
  }
  pry_log_free(log);
  pry_scrubber_free(scrubber);
  pry_buffer_fini(&sink.last);
}

static void *churn(void *argument)
{
  struct pry_scrubber *scrubber = argument;
  for (int i = 0; i < 3000; i++) {
    char secret[32], text[64];
    snprintf(secret, sizeof secret, "secret-%d", i % 7);
    pry_scrubber_add(scrubber, pry_slice_of(secret));
    snprintf(text, sizeof text, "a %s, b always-there", secret);
    pry_scrubber_apply_text(scrubber, text);
    assert_string_equal(text, "a ***, b ***");
    pry_scrubber_remove(scrubber, pry_slice_of(secret));
  }
  return NULL;
}

static void test_scrubber_threads(void **state)
{
  (void)state;
  struct pry_scrubber *scrubber = pry_scrubber_new();
  pry_scrubber_add(scrubber, PRY_SLICE("always-there"));
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, churn, scrubber), 0);
  for (int i = 0; i < 4; i++)
    pthread_join(threads[i], NULL);
  pry_scrubber_free(scrubber);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fields),
      cmocka_unit_test(test_writers_agree_with_the_library),
      cmocka_unit_test(test_levels),
      cmocka_unit_test(test_long_lines),
      cmocka_unit_test(test_scrubbing),
      cmocka_unit_test(test_scrubber_counts_uses),
      cmocka_unit_test(test_lines_hold_no_secret),
      cmocka_unit_test(test_scrubber_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
