#include "log_output.h"

#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
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

void pry_log_output_write(void *user, enum pry_log_level level, const char *line, size_t size)
{
  const struct pry_log_output *output = user;
  struct pry_buffer text;
  (void)level;
  pry_buffer_init(&text, 0);
  bool as_text = output->format != PRY_LOG_FOR_PROGRAMS &&
                 pry_log_text_line((struct pry_slice){line, size}, output->format, &text);
  struct iovec parts[2] = {{(void *)(uintptr_t)line, size}, {(void *)(uintptr_t) "\n", 1}};
  ssize_t written = as_text ? write(output->fd, text.data, text.size) : writev(output->fd, parts, 2);
  (void)written; /* a line that cannot be written has nowhere to be reported */
  pry_buffer_fini(&text);
}
