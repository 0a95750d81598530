/*
 * log_output.h: the engine's log lines, as stderr wants them.
 *
 * Text for people at a terminal, the same with a <priority> in front under journald (sd-daemon(3)), JSON lines for
 * everything else. The text forms are made from the JSON line, so that there is one scrubbed source of what is said. In
 * text a value stays escaped as it is in JSON, so that nothing a provider says can steer a terminal; a field with line
 * breaks (the findings of a refused reload) is shown below its line, indented.
 *
 * Each line leaves in one write(2): lines of several threads do not mix. A line that cannot be written is lost.
 */
#ifndef PRY_LOG_OUTPUT_H
#define PRY_LOG_OUTPUT_H

#include "log.h"

enum pry_log_format { PRY_LOG_AUTO, PRY_LOG_FOR_PEOPLE, PRY_LOG_FOR_JOURNAL, PRY_LOG_FOR_PROGRAMS };

struct pry_log_output {
  enum pry_log_format format;
  int fd; /* borrowed */
};

/* "auto", "text" or "json". False: none of them. */
bool pry_log_format_from_name(const char *name, enum pry_log_format *format);

/* "debug", "info", "warn" or "error". */
bool pry_log_level_from_name(const char *name, enum pry_log_level *level);

/* AUTO is decided here, by what `fd` is: a terminal, journald's stream ($JOURNAL_STREAM), or something else. */
void pry_log_output_init(struct pry_log_output *output, enum pry_log_format format, int fd);

/* A pry_log_fn; `user` is the output. Any thread. */
void pry_log_output_write(void *user, enum pry_log_level level, const char *line, size_t size);

/* Appends the text form of one JSON line, line end included. False: memory, or not one of our lines. */
bool pry_log_text_line(struct pry_slice line, enum pry_log_format format, struct pry_buffer *out);

#endif
