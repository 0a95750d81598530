#include "retry_after.h"

#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define NOW 784111777.0 /* Sun, 06 Nov 1994 08:49:37 GMT */
#define UNSAID (-1.0)

/* headers: "name: value" lines separated by "\n". */
static void read_headers(struct pry_headers *headers, const char *text)
{
  pry_headers_init(headers);
  while (*text) {
    size_t length = strcspn(text, "\n");
    const char *colon = memchr(text, ':', length);
    assert_non_null(colon);
    size_t name = (size_t)(colon - text);
    assert_true(
        pry_headers_add(headers, (struct pry_slice){text, name}, (struct pry_slice){colon + 1, length - name - 1}));
    text += length + (text[length] == '\n');
  }
}

struct row {
  const char *headers;
  double expected;
};

static const struct row rows[] = {
    {"x: 1", UNSAID},
    {"retry-after: 0", 0},
    {"Retry-After: 2", 2},
    {"RETRY-AFTER:  120 ", 120},
    {"retry-after: 1.5", 1.5},
    {"retry-after: 0.25", 0.25},
    {"retry-after: 007", 7},
    {"retry-after-ms: 250", 0.25},
    {"retry-after-ms: 12.5", 0.0125},
    {"retry-after-ms: 1000\nretry-after: 30", 1},
    {"retry-after: 30\nretry-after-ms: 1000", 1},
    {"retry-after-ms: soon\nretry-after: 30", 30},
    {"retry-after-ms: -5\nretry-after: 30", 30},
    {"retry-after-ms:\nretry-after: 30", 30},
    {"retry-after-ms: Sun, 06 Nov 1994 08:50:37 GMT\nretry-after: 30", 30},
    {"retry-after: 5\nretry-after: 10", 10},
    {"retry-after: 10\nRetry-After: 5", 10},
    {"retry-after: x\nretry-after: 5", 5},
    {"retry-after: 5\nretry-after: -10", 5},
    {"retry-after: 5\nretry-after: Sun, 06 Nov 1994 08:50:37 GMT", 60},
    {"retry-after-ms: 1\nretry-after-ms: 2000", 2},
    /* dates */
    {"retry-after: Sun, 06 Nov 1994 08:50:07 GMT", 30},
    {"retry-after: Sunday, 06-Nov-94 08:50:07 GMT", 30},
    {"retry-after: Sun Nov  6 08:50:07 1994", 30},
    {"retry-after: Sun, 06 Nov 1994 08:49:37 GMT", 0},
    {"retry-after: Sun, 06 Nov 1994 08:49:36 GMT", 0},
    {"retry-after: Thu, 01 Jan 1970 00:00:00 GMT", 0},
    {"retry-after: Fri, 31 Dec 9999 23:59:59 GMT", PRY_RETRY_AFTER_MAX},
    /* hostile */
    {"retry-after:", UNSAID},
    {"retry-after: -1", UNSAID},
    {"retry-after: +1", UNSAID},
    {"retry-after: -0", UNSAID},
    {"retry-after: nan", UNSAID},
    {"retry-after: NaN", UNSAID},
    {"retry-after: inf", UNSAID},
    {"retry-after: Infinity", UNSAID},
    {"retry-after: 1e3", UNSAID},
    {"retry-after: 1e309", UNSAID},
    {"retry-after: 0x10", UNSAID},
    {"retry-after: abc", UNSAID},
    {"retry-after: 5 seconds", UNSAID},
    {"retry-after: 5s", UNSAID},
    {"retry-after: 5, 10", UNSAID},
    {"retry-after: 1,5", UNSAID},
    {"retry-after: 1.", UNSAID},
    {"retry-after: .5", UNSAID},
    {"retry-after: 1.2.3", UNSAID},
    {"retry-after: 1 2", UNSAID},
    {"retry-after: \"5\"", UNSAID},
    {"retry-after: \xD9\xA5", UNSAID},
    {"retry-after: 315360000", PRY_RETRY_AFTER_MAX},
    {"retry-after: 315360001", PRY_RETRY_AFTER_MAX},
    {"retry-after: 18446744073709551616", PRY_RETRY_AFTER_MAX},
    {"retry-after: 9999999999999999999999999999999999999999999999999999999999999999", PRY_RETRY_AFTER_MAX},
    {"retry-after: 99999999999999999999999999999999999999999999999999999999999999999", UNSAID},
    {"retry-after-ms: 9999999999999999999999999999999999", PRY_RETRY_AFTER_MAX},
};

static void check_rows(void)
{
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct pry_headers headers;
    double seconds = UNSAID;
    read_headers(&headers, rows[i].headers);
    bool said = pry_retry_after(&headers, NOW, &seconds);
    if (said != (rows[i].expected >= 0) || fabs(seconds - rows[i].expected) > 1e-9)
      fail_msg("%s: %d %.17g, expected %.17g", rows[i].headers, said, seconds, rows[i].expected);
    pry_headers_fini(&headers);
  }
}

static void test_retry_after(void **state)
{
  (void)state;
  check_rows();
}

static void test_does_not_depend_on_time_zone_and_locale(void **state)
{
  (void)state;
  setenv("TZ", "Asia/Kathmandu", 1);
  tzset();
  static const char *const commas[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "C"};
  for (size_t i = 0; i < COUNT(commas); i++)
    if (setlocale(LC_ALL, commas[i]))
      check_rows();
  setlocale(LC_ALL, "C");
  unsetenv("TZ");
  tzset();
}

static void test_ignores_the_clock_for_numbers(void **state)
{
  (void)state;
  struct pry_headers headers;
  read_headers(&headers, "retry-after: 3");
  static const double clocks[] = {0, -1e300, 1e300, NAN, INFINITY};
  for (size_t i = 0; i < COUNT(clocks); i++) {
    double seconds = UNSAID;
    assert_true(pry_retry_after(&headers, clocks[i], &seconds));
    assert_true(seconds == 3);
  }
  pry_headers_fini(&headers);
}

struct date_row {
  const char *text;
  double expected; /* NAN: refused */
};

static const struct date_row dates[] = {
    {"Sun, 06 Nov 1994 08:49:37 GMT", NOW},
    {"Sunday, 06-Nov-94 08:49:37 GMT", NOW},
    {"Sun Nov  6 08:49:37 1994", NOW},
    {"Sun Nov 16 08:49:37 1994", NOW + 10 * 86400},
    {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
    {"Wed, 31 Dec 1969 23:59:59 GMT", -1},
    {"Tue, 29 Feb 2000 00:00:00 GMT", 951782400},
    {"Wed, 01 Mar 2000 00:00:00 GMT", 951868800},
    {"Thu, 29 Feb 2024 12:00:00 GMT", 1709208000},
    {"Mon, 19 Jan 2038 03:14:08 GMT", 2147483648.0},
    {"Sun, 31 Dec 1995 23:59:60 GMT", 820454400},
    {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799.0},
    /* the wrong day of the week is no reason to come early */
    {"Mon, 06 Nov 1994 08:49:37 GMT", NOW},
    /* two-digit years: at most 50 years ahead of 1994-11-06 */
    {"Friday, 01-Jan-44 00:00:00 GMT", 2335219200.0},
    {"Sunday, 06-Nov-44 00:00:00 GMT", 2362003200.0},
    {"Tuesday, 08-Nov-44 00:00:00 GMT", -793584000.0},
    {"Sunday, 06-Nov-44 08:49:37 GMT", 2362034977.0},
    {"Monday, 06-Nov-44 08:49:38 GMT", -793725022.0},
    {"Saturday, 01-Jan-00 00:00:00 GMT", 946684800},
    {"Friday, 31-Dec-99 23:59:59 GMT", 946684799},
    {"Tuesday, 29-Feb-00 00:00:00 GMT", 951782400},
    /* refused */
    {"", NAN},
    {"Sun", NAN},
    {"Sun,", NAN},
    {"06 Nov 1994 08:49:37 GMT", NAN},
    {"Sun, 6 Nov 1994 08:49:37 GMT", NAN},
    {"Sun, 06 Nov 1994 08:49:37", NAN},
    {"Sun, 06 Nov 1994 08:49:37 UTC", NAN},
    {"Sun, 06 Nov 1994 08:49:37 +0000", NAN},
    {"Sun, 06 Nov 1994 08:49:37 GMT ", NAN},
    {"Sun, 06 Nov 1994 8:49:37 GMT", NAN},
    {"Sun, 06 Nov 94 08:49:37 GMT", NAN},
    {"Sun, 06 nov 1994 08:49:37 GMT", NAN},
    {"sun, 06 Nov 1994 08:49:37 GMT", NAN},
    {"Sun, 00 Nov 1994 08:49:37 GMT", NAN},
    {"Sun, 31 Nov 1994 08:49:37 GMT", NAN},
    {"Sun, 29 Feb 1900 08:49:37 GMT", NAN},
    {"Sun, 29 Feb 2023 08:49:37 GMT", NAN},
    {"Wednesday, 29-Feb-95 00:00:00 GMT", NAN},
    {"Sun, 06 Nov 1994 24:00:00 GMT", NAN},
    {"Sun, 06 Nov 1994 08:60:37 GMT", NAN},
    {"Sun, 06 Nov 1994 08:49:61 GMT", NAN},
    {"Sun, -6 Nov 1994 08:49:37 GMT", NAN},
    {"Sun, 06 Nov -994 08:49:37 GMT", NAN},
    {"Sunday, 06 Nov 1994 08:49:37 GMT", NAN},
    {"Sunday, 06-Nov-1994 08:49:37 GMT", NAN},
    {"Sun Nov 6 08:49:37 1994", NAN},
    {"Sun Nov  6 08:49:37 1994 GMT", NAN},
    {"Dim, 06 Nov 1994 08:49:37 GMT", NAN},
    {"1994-11-06T08:49:37Z", NAN},
};

static void test_dates(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(dates); i++) {
    double seconds = NAN;
    bool good = pry_http_date(pry_slice_of(dates[i].text), NOW, &seconds);
    if (good == isnan(dates[i].expected) || (good && seconds != dates[i].expected))
      fail_msg("%s: %d %.17g, expected %.17g", dates[i].text, good, seconds, dates[i].expected);
  }
}

static void write_date(char text[64], int form, const struct tm *date)
{
  static const char *const days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
  static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  char time[16];
  const char *day = days[date->tm_wday], *month = months[date->tm_mon];
  int year = date->tm_year + 1900;
  snprintf(time, sizeof time, "%02d:%02d:%02d", date->tm_hour % 24, date->tm_min % 60, date->tm_sec % 61);
  if (form == 0)
    snprintf(text, 64, "%.3s, %02d %s %04d %s GMT", day, date->tm_mday, month, year, time);
  else if (form == 1)
    snprintf(text, 64, "%s, %02d-%s-%02d %s GMT", day, date->tm_mday, month, year % 100, time);
  else
    snprintf(text, 64, "%.3s %s %2d %s %04d", day, month, date->tm_mday, time, year);
}

/* Against libc's own calendar, one day in 13 over four centuries, in all three forms. */
static void test_dates_against_libc(void **state)
{
  (void)state;
  for (int64_t day = -25567; day < 120000; day += 13) {
    time_t when = (time_t)(day * 86400 + (day * 7919 % 86400 + 86400) % 86400);
    struct tm parts;
    assert_non_null(gmtime_r(&when, &parts));
    for (int form = 0; form < 3; form++) {
      char text[64];
      double seconds = NAN;
      write_date(text, form, &parts);
      assert_true(pry_http_date(pry_slice_of(text), (double)when, &seconds));
      if (seconds != (double)when)
        fail_msg("%s: %.17g, expected %.17g", text, seconds, (double)when);
    }
  }
}

static void test_every_prefix_of_a_date_is_refused(void **state)
{
  (void)state;
  static const char *const forms[] = {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
                                      "Sun Nov  6 08:49:37 1994"};
  for (size_t i = 0; i < COUNT(forms); i++)
    for (size_t size = 0; size < strlen(forms[i]); size++) {
      char *copy = malloc(size ? size : 1); /* exactly its size, for the sanitizer */
      assert_non_null(copy);
      memcpy(copy, forms[i], size);
      double seconds;
      assert_false(pry_http_date((struct pry_slice){copy, size}, NOW, &seconds));
      free(copy);
    }
}

static void test_should_retry(void **state)
{
  (void)state;
  static const struct {
    const char *headers;
    enum pry_should_retry expected;
  } should[] = {
      {"x: y", PRY_SHOULD_RETRY_UNSAID},
      {"x-should-retry: true", PRY_SHOULD_RETRY_YES},
      {"X-Should-Retry: False", PRY_SHOULD_RETRY_NO},
      {"x-should-retry:  TRUE ", PRY_SHOULD_RETRY_YES},
      {"x-should-retry: 1", PRY_SHOULD_RETRY_UNSAID},
      {"x-should-retry:", PRY_SHOULD_RETRY_UNSAID},
      {"x-should-retry: true, false", PRY_SHOULD_RETRY_UNSAID},
      {"x-should-retry: true\nx-should-retry: true", PRY_SHOULD_RETRY_YES},
      {"x-should-retry: true\nx-should-retry: false", PRY_SHOULD_RETRY_UNSAID},
      {"x-should-retry: false\nx-should-retry: maybe", PRY_SHOULD_RETRY_UNSAID},
  };
  for (size_t i = 0; i < COUNT(should); i++) {
    struct pry_headers headers;
    read_headers(&headers, should[i].headers);
    if (pry_should_retry(&headers) != should[i].expected)
      fail_msg("%s: %d", should[i].headers, pry_should_retry(&headers));
    pry_headers_fini(&headers);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_retry_after),
      cmocka_unit_test(test_does_not_depend_on_time_zone_and_locale),
      cmocka_unit_test(test_ignores_the_clock_for_numbers),
      cmocka_unit_test(test_dates),
      cmocka_unit_test(test_dates_against_libc),
      cmocka_unit_test(test_every_prefix_of_a_date_is_refused),
      cmocka_unit_test(test_should_retry),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
