#include "log.h"

#include <math.h>
#include <stdlib.h>

enum { LINE_MAX_BYTES = 16 * 1024, USUAL_LINE_BYTES = 500 };

/* Kept free at the end of a line until it is known to be whole. */
#define TRUNCATED ",\"truncated\":true"

struct pry_log {
  pry_log_fn sink;
  void *user;
  enum pry_log_level least;
  double (*clock)(void *user);
  void *clock_user;
  struct pry_scrubber *scrubber;
};

/* A line being built. */
struct line {
  struct pry_buffer text;
  struct pry_scrubber *scrubber;
  bool truncated;
};

struct pry_log *pry_log_new(pry_log_fn sink, void *user, enum pry_log_level least, double (*clock)(void *user),
                            void *clock_user)
{
  struct pry_log *log = malloc(sizeof *log);
  if (log)
    *log = (struct pry_log){.sink = sink, .user = user, .least = least, .clock = clock, .clock_user = clock_user};
  return log;
}

void pry_log_free(struct pry_log *log)
{
  free(log);
}

void pry_log_set_scrubber(struct pry_log *log, struct pry_scrubber *scrubber)
{
  if (log)
    log->scrubber = scrubber;
}

bool pry_log_enabled(const struct pry_log *log, enum pry_log_level level)
{
  return log && log->sink && level >= log->least;
}

static const char *level_name(enum pry_log_level level)
{
  static const char *const names[] = {"debug", "info", "warn", "error"};
  return names[level];
}

static void write_digits(char *to, unsigned number, unsigned width)
{
  while (width--) {
    to[width] = (char)('0' + number % 10);
    number /= 10;
  }
}

/* The date of a day since 1970, in the Gregorian calendar. Counted from a 1st of March, a leap day ends its year, and
 * months of 30.6 days, rounded, are as long as they should be. gmtime_r() takes a lock that all threads share. */
static void write_date(char *to, unsigned days)
{
  enum { TO_YEAR_0 = 719468, DAYS_OF_400_YEARS = 146097, DAYS_OF_100_YEARS = 36524, DAYS_OF_4_YEARS = 1461 };
  unsigned since = days + TO_YEAR_0;
  unsigned day = since % DAYS_OF_400_YEARS; /* of 400 years */
  unsigned year = (day - day / (DAYS_OF_4_YEARS - 1) + day / DAYS_OF_100_YEARS - day / (DAYS_OF_400_YEARS - 1)) / 365;
  unsigned of_year = day - (365 * year + year / 4 - year / 100);
  unsigned month = (5 * of_year + 2) / 153; /* 0: March */
  year += since / DAYS_OF_400_YEARS * 400 + (month >= 10);
  write_digits(to, year, 4);
  write_digits(to + 5, month < 10 ? month + 3 : month - 9, 2);
  write_digits(to + 8, of_year - (153 * month + 2) / 5 + 1, 2);
}

/* RFC 3339 in UTC with milliseconds; a clock that makes no sense gives the beginning of time. */
static bool append_time(struct pry_buffer *text, double unix_time)
{
  char written[] = "0000-00-00T00:00:00.000Z";
  if (!(unix_time >= 0 && unix_time < 253402300800.0)) /* year 10000 */
    unix_time = 0;
  long long milliseconds = (long long)(unix_time * 1000 + 0.001); /* a double's .987 may lie a little below it */
  unsigned of_day = (unsigned)(milliseconds % 86400000);
  write_date(written, (unsigned)(milliseconds / 86400000));
  write_digits(written + 11, of_day / 3600000, 2);
  write_digits(written + 14, of_day / 60000 % 60, 2);
  write_digits(written + 17, of_day / 1000 % 60, 2);
  write_digits(written + 20, of_day % 1000, 3);
  return pry_buffer_append(text, written, sizeof written - 1);
}

/* Half a UTF-8 sequence at a cut end would be shown as U+FFFD. */
static struct pry_slice cut_text(struct pry_slice text, size_t size)
{
  while (size && ((unsigned char)text.data[size] & 0xC0) == 0x80)
    size--;
  return (struct pry_slice){text.data, size};
}

/* All of the text, or as much of it as fits. */
static void append_as_fits(struct line *line, struct pry_slice text)
{
  while (!pry_buffer_append_json(&line->text, text)) {
    line->truncated = true;
    if (!text.size)
      return;
    text = cut_text(text, text.size / 2);
  }
}

/* Secrets are replaced before the text is escaped or cut: neither may leave a part of one that is not recognised. */
static void append_scrubbed(struct line *line, struct pry_slice text)
{
  struct pry_buffer copy;
  pry_buffer_init(&copy, 0);
  if (!pry_scrubber_finds(line->scrubber, text)) {
    append_as_fits(line, text);
  } else if (pry_buffer_append_slice(&copy, text)) {
    pry_scrubber_apply(line->scrubber, &copy);
    append_as_fits(line, pry_buffer_slice(&copy));
  } else {
    line->truncated = true;
  }
  pry_buffer_fini(&copy);
}

/* Seconds are counted in microseconds: those are written as an integer with a point in it, at a tenth of the cost.
 * False: not one of them. The text is what %.15g gives, which writes nothing below 0.0001 this way. */
static bool write_millionths(char *to, size_t *size, double number)
{
  if (!(number >= 1e-4 && number < 1e8))
    return false;
  unsigned long long millionths = (unsigned long long)(number * 1e6 + 0.5);
  if ((double)millionths / 1e6 != number)
    return false;
  unsigned fraction = (unsigned)(millionths % 1000000), whole = (unsigned)(millionths / 1000000);
  size_t digits = 1, decimals = fraction ? 6 : 0;
  for (unsigned rest = whole; rest >= 10; rest /= 10)
    digits++;
  for (; decimals && fraction % 10 == 0; decimals--)
    fraction /= 10;
  write_digits(to, whole, (unsigned)digits);
  to[digits] = '.';
  write_digits(to + digits + 1, fraction, (unsigned)decimals);
  *size = digits + (decimals ? 1 + decimals : 0);
  return true;
}

static bool append_number(struct pry_buffer *text, double number)
{
  char written[24];
  size_t size;
  if (!isfinite(number))
    return pry_buffer_append_text(text, "null");
  if (write_millionths(written, &size, number))
    return pry_buffer_append(text, written, size);
  return pry_buffer_append_format(text, "%.15g", number);
}

static bool append_scalar(struct pry_buffer *text, const struct pry_log_field *field)
{
  switch (field->type) {
  case PRY_LOG_NUMBER:
    return append_number(text, field->number);
  case PRY_LOG_INTEGER:
    return pry_buffer_append_integer(text, field->integer);
  default:
    return pry_buffer_append_text(text, field->integer ? "true" : "false");
  }
}

static void append_field(struct line *line, const struct pry_log_field *field)
{
  if (field->type == PRY_LOG_TEXT && !field->text.size)
    return;
  size_t before = line->text.size;
  bool ok = pry_buffer_append(&line->text, ",\"", 2) && pry_buffer_append_text(&line->text, field->name) &&
            pry_buffer_append(&line->text, "\":", 2);
  if (ok && field->type == PRY_LOG_TEXT) {
    /* Room for both quotes first: what fits between them is cut, never the quotes. */
    ok = pry_buffer_append_text(&line->text, "\"") && pry_buffer_reserve(&line->text, 1);
    if (ok) {
      line->text.limit--;
      append_scrubbed(line, field->text);
      line->text.limit++;
      ok = pry_buffer_append_text(&line->text, "\"");
    }
  } else if (ok) {
    ok = append_scalar(&line->text, field);
  }
  if (!ok) {
    line->text.size = before;
    line->truncated = true;
  }
}

static bool begin_line(struct line *line, const struct pry_log *log, enum pry_log_level level, const char *message)
{
  const struct pry_log_field text = pry_log_text("msg", message && message[0] ? message : "?");
  if (!pry_buffer_reserve(&line->text, USUAL_LINE_BYTES) || !pry_buffer_append_text(&line->text, "{\"ts\":\"") ||
      !append_time(&line->text, log->clock ? log->clock(log->clock_user) : 0) ||
      !pry_buffer_append_text(&line->text, "\",\"level\":\"") ||
      !pry_buffer_append_text(&line->text, level_name(level)) || !pry_buffer_append_text(&line->text, "\""))
    return false;
  append_field(line, &text);
  return true;
}

static bool end_line(struct line *line)
{
  line->text.limit = LINE_MAX_BYTES;
  return (!line->truncated || pry_buffer_append_text(&line->text, TRUNCATED)) &&
         pry_buffer_append_text(&line->text, "}") && pry_buffer_text(&line->text);
}

void pry_log_write(struct pry_log *log, enum pry_log_level level, const char *message,
                   const struct pry_log_field *fields, size_t count)
{
  if (!pry_log_enabled(log, level))
    return;
  struct line line = {.scrubber = log->scrubber};
  pry_buffer_init(&line.text, LINE_MAX_BYTES - sizeof TRUNCATED - 1);
  if (begin_line(&line, log, level, message)) {
    for (size_t i = 0; i < count && fields[i].name; i++)
      append_field(&line, &fields[i]);
    if (end_line(&line))
      log->sink(log->user, level, line.text.data, line.text.size);
  }
  pry_buffer_fini(&line.text);
}
