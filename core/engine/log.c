#include "log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LINE_MAX_BYTES = 16 * 1024 };

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

/* RFC 3339 in UTC with milliseconds; a clock that makes no sense gives the beginning of time. */
static bool append_time(struct pry_buffer *text, double unix_time)
{
  if (!(unix_time >= 0 && unix_time < 253402300800.0)) /* year 10000 */
    unix_time = 0;
  long long milliseconds = (long long)(unix_time * 1000 + 0.001); /* a double's .987 may lie a little below it */
  time_t seconds = (time_t)(milliseconds / 1000);
  struct tm parts;
  if (!gmtime_r(&seconds, &parts))
    return false;
  return pry_buffer_append_format(text, "%04d-%02d-%02dT%02d:%02d:%02d.%03lldZ", parts.tm_year + 1900, parts.tm_mon + 1,
                                  parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, milliseconds % 1000);
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
  if (!line->scrubber) {
    append_as_fits(line, text);
  } else if (pry_buffer_append_slice(&copy, text)) {
    pry_scrubber_apply(line->scrubber, &copy);
    append_as_fits(line, pry_buffer_slice(&copy));
  } else {
    line->truncated = true;
  }
  pry_buffer_fini(&copy);
}

static bool append_number(struct pry_buffer *text, double number)
{
  if (!isfinite(number))
    return pry_buffer_append_text(text, "null");
  return pry_buffer_append_format(text, "%.15g", number);
}

static bool append_scalar(struct pry_buffer *text, const struct pry_log_field *field)
{
  switch (field->type) {
  case PRY_LOG_NUMBER:
    return append_number(text, field->number);
  case PRY_LOG_INTEGER:
    return pry_buffer_append_format(text, "%lld", field->integer);
  default:
    return pry_buffer_append_text(text, field->integer ? "true" : "false");
  }
}

static void append_field(struct line *line, const struct pry_log_field *field)
{
  if (field->type == PRY_LOG_TEXT && !field->text.size)
    return;
  size_t before = line->text.size;
  bool ok = pry_buffer_append_format(&line->text, ",\"%s\":", field->name);
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
  if (!pry_buffer_append_text(&line->text, "{\"ts\":\"") ||
      !append_time(&line->text, log->clock ? log->clock(log->clock_user) : 0) ||
      !pry_buffer_append_format(&line->text, "\",\"level\":\"%s\"", level_name(level)))
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
