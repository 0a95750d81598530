/*
 * log_output.h: the engine's log lines, as stderr wants them.
 *
 * Text for people at a terminal, the same with a <priority> in front under journald (sd-daemon(3)), JSON lines for
 * everything else. The text forms are made from the JSON line, so that there is one scrubbed source of what is said. In
 * text a value stays escaped as it is in JSON, so that nothing a provider says can steer a terminal; a field with line
 * breaks (the findings of a refused reload) is shown below its line, indented.
 *
 * Each line leaves in one write(2): lines of several threads do not mix. A line that cannot be written is lost.
 *
 * Once started, lines for programs and for journald are collected for up to PRY_LOG_DELAY_MS and leave together, as many
 * as a pipe takes whole (PIPE_BUF): one write for a dozen calls. Order is kept. A line of level warn or above, and all
 * before it, is written before pry_log_output_write() returns; at a terminal every line is. A process that is killed
 * takes the lines of the last PRY_LOG_DELAY_MS with it, one that ends by itself none.
 */
#ifndef PRY_LOG_OUTPUT_H
#define PRY_LOG_OUTPUT_H

#include "log.h"

#include <pthread.h>

enum pry_log_format { PRY_LOG_AUTO, PRY_LOG_FOR_PEOPLE, PRY_LOG_FOR_JOURNAL, PRY_LOG_FOR_PROGRAMS };

enum { PRY_LOG_DELAY_MS = 20 };

struct pry_log_output {
  enum pry_log_format format;
  int fd; /* borrowed */
  /* All below only between start and stop. */
  bool started;
  bool stopping;
  pthread_t writer;           /* writes what nobody else has written in time */
  pthread_mutex_t lock;       /* of `collected` and `stopping`; held for a copy, never for a write */
  pthread_mutex_t write_lock; /* of `leaving` and the descriptor; taken before the other, so that order is kept */
  pthread_cond_t has_lines;   /* for the writer: there is something to write, or the end has come */
  struct pry_buffer collected, leaving;
};

/* "auto", "text" or "json". False: none of them. */
bool pry_log_format_from_name(const char *name, enum pry_log_format *format);

/* "debug", "info", "warn" or "error". */
bool pry_log_level_from_name(const char *name, enum pry_log_level *level);

/* AUTO is decided here, by what `fd` is: a terminal, journald's stream ($JOURNAL_STREAM), or something else. */
void pry_log_output_init(struct pry_log_output *output, enum pry_log_format format, int fd);

/* Lines are collected from here on, and written by a thread that takes no signals. Before other threads log. Without
 * memory or a thread nothing changes: each line is written at once. */
void pry_log_output_start(struct pry_log_output *output);

/* Writes what is left and ends the thread; lines are written at once again. When other threads have stopped logging.
 * Safe without start, and twice. */
void pry_log_output_stop(struct pry_log_output *output);

/* A pry_log_fn; `user` is the output. Any thread. */
void pry_log_output_write(void *user, enum pry_log_level level, const char *line, size_t size);

/* Appends the text form of one JSON line, line end included. False: memory, or not one of our lines. */
bool pry_log_text_line(struct pry_slice line, enum pry_log_format format, struct pry_buffer *out);

#endif
