#include "retry_after.h"

#include <stdint.h>

enum { NUMBER_SIZE_MAX = 64 };

static bool is_digit(char c)
{
  return c >= '0' && c <= '9';
}

/* Digits, or digits "." digits. Doubles lose nothing that matters here: the answer is a wait. */
static bool parse_number(struct pry_slice text, double *number)
{
  if (!text.size || text.size > NUMBER_SIZE_MAX)
    return false;
  size_t i = 0;
  double value = 0;
  for (; i < text.size && is_digit(text.data[i]); i++)
    value = value * 10 + (text.data[i] - '0');
  if (i == 0)
    return false;
  if (i < text.size) {
    if (text.data[i] != '.' || i + 1 == text.size)
      return false;
    double place = 0.1;
    for (i++; i < text.size && is_digit(text.data[i]); i++) {
      value += (text.data[i] - '0') * place;
      place /= 10;
    }
  }
  *number = value;
  return i == text.size;
}

/* ---- dates ---- */

struct date {
  int year, month, day, hour, minute, second; /* month from 1 */
};

static bool take(struct pry_slice *text, struct pry_slice expected)
{
  if (!pry_slice_starts_with(*text, expected))
    return false;
  text->data += expected.size;
  text->size -= expected.size;
  return true;
}

static bool take_digits(struct pry_slice *text, size_t count, int *number)
{
  if (text->size < count)
    return false;
  int value = 0;
  for (size_t i = 0; i < count; i++) {
    if (!is_digit(text->data[i]))
      return false;
    value = value * 10 + (text->data[i] - '0');
  }
  *number = value;
  text->data += count;
  text->size -= count;
  return true;
}

static bool take_name(struct pry_slice *text, const char *const *names, int count, int *index)
{
  for (int i = 0; i < count; i++)
    if (take(text, pry_slice_of(names[i]))) {
      *index = i;
      return true;
    }
  return false;
}

static bool take_month(struct pry_slice *text, struct date *date)
{
  static const char *const names[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  if (!take_name(text, names, 12, &date->month))
    return false;
  date->month++;
  return true;
}

static bool take_time(struct pry_slice *text, struct date *date)
{
  return take_digits(text, 2, &date->hour) && take(text, PRY_SLICE(":")) && take_digits(text, 2, &date->minute) &&
         take(text, PRY_SLICE(":")) && take_digits(text, 2, &date->second);
}

static bool parse_imf_fixdate(struct pry_slice text, struct date *date)
{
  return take(&text, PRY_SLICE(", ")) && take_digits(&text, 2, &date->day) && take(&text, PRY_SLICE(" ")) &&
         take_month(&text, date) && take(&text, PRY_SLICE(" ")) && take_digits(&text, 4, &date->year) &&
         take(&text, PRY_SLICE(" ")) && take_time(&text, date) && take(&text, PRY_SLICE(" GMT")) && !text.size;
}

static bool parse_asctime(struct pry_slice text, struct date *date)
{
  if (!take(&text, PRY_SLICE(" ")) || !take_month(&text, date) || !take(&text, PRY_SLICE(" ")))
    return false;
  size_t digits = take(&text, PRY_SLICE(" ")) ? 1 : 2;
  return take_digits(&text, digits, &date->day) && take(&text, PRY_SLICE(" ")) && take_time(&text, date) &&
         take(&text, PRY_SLICE(" ")) && take_digits(&text, 4, &date->year) && !text.size;
}

/* The year stays two digits: only the whole date can be compared with `now`. */
static bool parse_rfc850(struct pry_slice text, struct date *date)
{
  return take(&text, PRY_SLICE(", ")) && take_digits(&text, 2, &date->day) && take(&text, PRY_SLICE("-")) &&
         take_month(&text, date) && take(&text, PRY_SLICE("-")) && take_digits(&text, 2, &date->year) &&
         take(&text, PRY_SLICE(" ")) && take_time(&text, date) && take(&text, PRY_SLICE(" GMT")) && !text.size;
}

static bool is_leap_year(int year)
{
  return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static bool is_possible(const struct date *date)
{
  static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  int last = days[date->month - 1] + (date->month == 2 && is_leap_year(date->year) ? 1 : 0);
  return date->day >= 1 && date->day <= last && date->hour <= 23 && date->minute <= 59 && date->second <= 60;
}

/* Days of the proleptic Gregorian calendar. Counting years from March puts the leap day last, so that it
 * needs no special case; 719468 days lie between 0000-03-01 and 1970-01-01. */
static double unix_seconds(const struct date *date)
{
  int64_t year = date->month <= 2 ? date->year - 1 : date->year;
  int64_t month = date->month <= 2 ? date->month + 9 : date->month - 3;
  int64_t leap_days = year >= 0 ? year / 4 - year / 100 + year / 400 : -1;
  int64_t days = year * 365 + leap_days + (month * 153 + 2) / 5 + date->day - 1 - 719468;
  return (double)(days * 86400 + date->hour * 3600 + date->minute * 60 + date->second);
}

/* The latest century that puts the date at most 50 years ahead (RFC 9110 §5.6.7); that year may not have the day
 * named (29 February). */
static bool resolve_century(struct date *date, double now)
{
  int last_digits = date->year;
  for (int year = 9900 + last_digits; year >= 50; year -= 100) {
    date->year = year - 50;
    if (unix_seconds(date) > now)
      continue;
    date->year = year;
    return is_possible(date);
  }
  return false;
}

bool pry_http_date(struct pry_slice text, double now, double *seconds)
{
  static const char *const long_names[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                           "Thursday", "Friday", "Saturday"};
  static const char *const short_names[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  struct date date;
  int weekday;
  if (take_name(&text, long_names, 7, &weekday)) {
    if (!parse_rfc850(text, &date) || !resolve_century(&date, now))
      return false;
  } else {
    if (!take_name(&text, short_names, 7, &weekday) ||
        !(parse_imf_fixdate(text, &date) || parse_asctime(text, &date)) || !is_possible(&date))
      return false;
  }
  *seconds = unix_seconds(&date);
  return true;
}

/* ---- headers ---- */

static bool parse_milliseconds(struct pry_slice value, double now, double *seconds)
{
  (void)now;
  if (!parse_number(value, seconds))
    return false;
  *seconds /= 1000;
  return true;
}

static bool parse_seconds_or_date(struct pry_slice value, double now, double *seconds)
{
  if (parse_number(value, seconds))
    return true;
  if (!pry_http_date(value, now, seconds))
    return false;
  *seconds -= now;
  return true;
}

typedef bool parse_fn(struct pry_slice value, double now, double *seconds);

static bool greatest(const struct pry_headers *headers, struct pry_slice name, parse_fn *parse, double now,
                     double *seconds)
{
  bool found = false;
  double best = 0;
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    double value;
    if (!pry_slice_equal_nocase(line.name, name) || !parse(line.value, now, &value))
      continue;
    found = true;
    best = value > best ? value : best;
  }
  if (found)
    *seconds = best < PRY_RETRY_AFTER_MAX ? best : PRY_RETRY_AFTER_MAX;
  return found;
}

bool pry_retry_after(const struct pry_headers *headers, double now, double *seconds)
{
  return greatest(headers, PRY_SLICE("retry-after-ms"), parse_milliseconds, now, seconds) ||
         greatest(headers, PRY_SLICE("retry-after"), parse_seconds_or_date, now, seconds);
}

enum pry_should_retry pry_should_retry(const struct pry_headers *headers)
{
  enum pry_should_retry said = PRY_SHOULD_RETRY_UNSAID;
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    if (!pry_slice_equal_nocase(line.name, PRY_SLICE("x-should-retry")))
      continue;
    enum pry_should_retry value = pry_slice_equal_nocase(line.value, PRY_SLICE("true"))    ? PRY_SHOULD_RETRY_YES
                                  : pry_slice_equal_nocase(line.value, PRY_SLICE("false")) ? PRY_SHOULD_RETRY_NO
                                                                                           : PRY_SHOULD_RETRY_UNSAID;
    if (value == PRY_SHOULD_RETRY_UNSAID || (said != PRY_SHOULD_RETRY_UNSAID && said != value))
      return PRY_SHOULD_RETRY_UNSAID;
    said = value;
  }
  return said;
}
