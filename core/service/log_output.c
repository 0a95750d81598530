#include "log_output.h"

#include "json.h"
#include "thread.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"debug", "info", "warn", "error"};

bool pry_log_format_from_name(const char *name, enum pry_log_format *format)
{
  static const char *const names[] = {"auto", "text", NULL, "json"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (names[i] && strcmp(name, names[i]) == 0) {
      *format = (enum pry_log_format)i;
      return true;
    }
  }
  return false;
}

bool pry_log_level_from_name(const char *name, enum pry_log_level *level)
{
  for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++) {
    if (strcmp(name, level_names[i]) == 0) {
      *level = (enum pry_log_level)i;
      return true;
    }
  }
  return false;
}

/* systemd sets JOURNAL_STREAM=DEVICE:INODE of the stream it gave us; children may have redirected theirs. */
static bool is_journal(int fd)
{
  const char *stream = getenv("JOURNAL_STREAM");
  struct stat about;
  char ours[64];
  if (!stream || fstat(fd, &about) < 0)
    return false;
  snprintf(ours, sizeof ours, "%llu:%llu", (unsigned long long)about.st_dev, (unsigned long long)about.st_ino);
  return strcmp(stream, ours) == 0;
}

void pry_log_output_init(struct pry_log_output *output, enum pry_log_format format, int fd)
{
  if (format == PRY_LOG_AUTO && is_journal(fd))
    format = PRY_LOG_FOR_JOURNAL;
  else if (format == PRY_LOG_AUTO)
    format = isatty(fd) ? PRY_LOG_FOR_PEOPLE : PRY_LOG_FOR_PROGRAMS;
  *output = (struct pry_log_output){.format = format, .fd = fd};
}

/* ---- text ---------------------------------------------------------------------------------------------- */

static struct pry_slice inside_quotes(struct pry_slice raw)
{
  return (struct pry_slice){raw.data + 1, raw.size - 2};
}

static bool needs_quotes(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++)
    if (text.data[i] == ' ' || text.data[i] == '=' || text.data[i] == '"' || text.data[i] == '\\')
      return true;
  return text.size == 0;
}

static bool append_plain(struct pry_buffer *out, const char *name, size_t name_size, struct pry_json_value value)
{
  if (!pry_buffer_append_format(out, " %.*s=", (int)name_size, name))
    return false;
  if (value.type != PRY_JSON_STRING || needs_quotes(inside_quotes(value.raw)))
    return pry_buffer_append_slice(out, value.raw);
  return pry_buffer_append_slice(out, inside_quotes(value.raw));
}

/* A text for reading: quotes and backslashes as they are, all other escapes still escaped, except line breaks when
 * there is something to put in front of the next line. */
static bool append_readable(struct pry_buffer *out, struct pry_slice text, const char *line_start)
{
  bool ok = true;
  for (size_t i = 0; ok && i < text.size; i++) {
    bool pair = text.data[i] == '\\' && i + 1 < text.size;
    char second = pair ? text.data[i + 1] : '\0';
    bool plain = second == '"' || second == '\\' || second == '/';
    if (!pair)
      ok = pry_buffer_append(out, text.data + i, 1);
    else if (second == 'n' && line_start)
      ok = i + 2 == text.size || (pry_buffer_append_text(out, "\n") && pry_buffer_append_text(out, line_start));
    else
      ok = pry_buffer_append(out, text.data + i + plain, plain ? 1 : 2);
    i += pair;
  }
  return ok;
}

static bool append_lines(struct pry_buffer *out, struct pry_slice text)
{
  static const char indent[] = "    ";
  return pry_buffer_append_text(out, indent) && append_readable(out, text, indent) && pry_buffer_append_text(out, "\n");
}

static bool has_lines(struct pry_json_value value)
{
  return value.type == PRY_JSON_STRING && memmem(value.raw.data, value.raw.size, "\\n", 2);
}

struct text_line {
  struct pry_slice time, level, message;
  struct pry_buffer fields, below;
};

static bool sort_field(struct text_line *line, struct pry_slice key, struct pry_json_value value)
{
  struct pry_slice name = inside_quotes(key);
  bool is_text = value.type == PRY_JSON_STRING;
  if (is_text && pry_slice_equal(name, PRY_SLICE("ts")))
    line->time = inside_quotes(value.raw);
  else if (is_text && pry_slice_equal(name, PRY_SLICE("level")))
    line->level = inside_quotes(value.raw);
  else if (is_text && pry_slice_equal(name, PRY_SLICE("msg")))
    line->message = inside_quotes(value.raw);
  else if (has_lines(value))
    return append_lines(&line->below, inside_quotes(value.raw));
  else
    return append_plain(&line->fields, name.data, name.size, value);
  return true;
}

static int priority_of(struct pry_slice level)
{
  if (pry_slice_equal(level, PRY_SLICE("error")))
    return 3;
  if (pry_slice_equal(level, PRY_SLICE("warn")))
    return 4;
  return pry_slice_equal(level, PRY_SLICE("debug")) ? 7 : 6;
}

static bool append_text_line(const struct text_line *line, enum pry_log_format format, struct pry_buffer *out)
{
  bool journal = format == PRY_LOG_FOR_JOURNAL; /* it has its own clock */
  bool ok = journal ? pry_buffer_append_format(out, "<%d>", priority_of(line->level))
                    : pry_buffer_append_format(out, "%.*s %-5.*s ", (int)line->time.size, line->time.data,
                                               (int)line->level.size, line->level.data);
  return ok && append_readable(out, line->message, NULL) &&
         pry_buffer_append_slice(out, pry_buffer_slice(&line->fields)) && pry_buffer_append_text(out, "\n") &&
         pry_buffer_append_slice(out, pry_buffer_slice(&line->below));
}

bool pry_log_text_line(struct pry_slice text, enum pry_log_format format, struct pry_buffer *out)
{
  struct text_line line = {.level = PRY_SLICE("info")};
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  bool ok = true;
  pry_buffer_init(&line.fields, 0);
  pry_buffer_init(&line.below, 0);
  pry_json_iterate(&iterator, text);
  while (ok && pry_json_next(&iterator, &key, &value))
    ok = key.size >= 2 && sort_field(&line, key, value);
  ok = ok && iterator.result == PRY_JSON_OK && append_text_line(&line, format, out);
  pry_buffer_fini(&line.fields);
  pry_buffer_fini(&line.below);
  return ok;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

/* What cannot be written has nowhere to be reported. */
static void write_now(const struct pry_log_output *output, struct pry_slice text)
{
  while (write(output->fd, text.data, text.size) < 0 && errno == EINTR)
    ;
}

/* Under write_lock: whatever is collected later is written later. */
static void write_collected(struct pry_log_output *output)
{
  pthread_mutex_lock(&output->lock);
  struct pry_buffer lines = output->collected;
  output->collected = output->leaving;
  output->leaving = lines;
  pthread_mutex_unlock(&output->lock);
  if (output->leaving.size)
    write_now(output, pry_buffer_slice(&output->leaving));
  pry_buffer_clear(&output->leaving);
}

/* False: there is no room. */
static bool collect(struct pry_log_output *output, struct pry_slice text)
{
  pthread_mutex_lock(&output->lock);
  bool was_empty = !output->collected.size;
  bool fits = pry_buffer_append_slice(&output->collected, text);
  if (fits && was_empty)
    pthread_cond_signal(&output->has_lines);
  pthread_mutex_unlock(&output->lock);
  return fits;
}

/* After all that was collected, and before whatever else comes. */
static void write_behind(struct pry_log_output *output, struct pry_slice text)
{
  pthread_mutex_lock(&output->write_lock);
  write_collected(output);
  write_now(output, text);
  pthread_mutex_unlock(&output->write_lock);
}

static struct timespec delay_from_now(void)
{
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += PRY_LOG_DELAY_MS * 1000000L;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  return until;
}

static void *write_in_time(void *argument)
{
  struct pry_log_output *output = argument;
  pthread_mutex_lock(&output->lock);
  while (!output->stopping) {
    if (!output->collected.size) {
      pthread_cond_wait(&output->has_lines, &output->lock);
      continue;
    }
    struct timespec until = delay_from_now();
    while (!output->stopping && pthread_cond_timedwait(&output->has_lines, &output->lock, &until) == 0)
      ;
    pthread_mutex_unlock(&output->lock);
    pthread_mutex_lock(&output->write_lock);
    write_collected(output);
    pthread_mutex_unlock(&output->write_lock);
    pthread_mutex_lock(&output->lock);
  }
  pthread_mutex_unlock(&output->lock);
  return NULL;
}

static void forget_parts(struct pry_log_output *output)
{
  pthread_mutex_destroy(&output->lock);
  pthread_mutex_destroy(&output->write_lock);
  pthread_cond_destroy(&output->has_lines);
  pry_buffer_fini(&output->collected);
  pry_buffer_fini(&output->leaving);
}

void pry_log_output_start(struct pry_log_output *output)
{
  if (output->started || output->format == PRY_LOG_FOR_PEOPLE)
    return;
  pthread_condattr_t monotonic; /* none of these can fail on Linux with valid arguments */
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&output->has_lines, &monotonic);
  pthread_condattr_destroy(&monotonic);
  pthread_mutex_init(&output->lock, NULL);
  pthread_mutex_init(&output->write_lock, NULL);
  pry_buffer_init(&output->collected, PIPE_BUF);
  pry_buffer_init(&output->leaving, PIPE_BUF);
  output->stopping = false;
  output->started = pry_buffer_reserve(&output->collected, PIPE_BUF) &&
                    pry_buffer_reserve(&output->leaving, PIPE_BUF) &&
                    pry_thread_start(&output->writer, write_in_time, output);
  if (!output->started)
    forget_parts(output);
}

void pry_log_output_stop(struct pry_log_output *output)
{
  if (!output->started)
    return;
  pthread_mutex_lock(&output->lock);
  output->stopping = true;
  pthread_cond_signal(&output->has_lines);
  pthread_mutex_unlock(&output->lock);
  pthread_join(output->writer, NULL);
  write_collected(output);
  output->started = false;
  forget_parts(output);
}

void pry_log_output_write(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct pry_log_output *output = user;
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  bool made = output->format != PRY_LOG_FOR_PROGRAMS &&
              pry_log_text_line((struct pry_slice){line, size}, output->format, &text);
  if (!made) {
    pry_buffer_clear(&text);
    made = pry_buffer_reserve(&text, size + 1) && pry_buffer_append(&text, line, size) &&
           pry_buffer_append(&text, "\n", 1);
  }
  struct pry_slice whole = pry_buffer_slice(&text);
  if (!made) /* without memory the line is lost, as one that cannot be written is */
    goto done;
  if (!output->started)
    write_now(output, whole);
  else if (level >= PRY_LOG_WARN || !collect(output, whole))
    write_behind(output, whole);
done:
  pry_buffer_fini(&text);
}
