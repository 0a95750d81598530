/*
 * log.h: one JSON line per thing worth telling, scrubbed.
 *
 * Lines go to a callback (the program writes stderr, a host what it likes). A line has `ts` (RFC 3339 with
 * milliseconds), `level`, `msg`, then the fields given. Before a line leaves, every live secret value in it is
 * replaced by `***`, whatever field it stands in; text from providers is capped by whoever passes it. Prompts
 * and completions are never passed in.
 *
 * Building and scrubbing work on a bounded buffer (16 KiB a line, cut with "truncated":true), so a full disk or a
 * slow terminal costs lines, not calls. Thread: any; the sink is called under no lock and must be thread-safe.
 */
#ifndef PRY_LOG_H
#define PRY_LOG_H

#include "buffer.h"
#include "slice.h"

struct pry_log;

enum pry_log_level { PRY_LOG_DEBUG, PRY_LOG_INFO, PRY_LOG_WARN, PRY_LOG_ERROR };

/* `line` is one JSON object of `size` bytes without a line end, NUL-terminated, valid during the call. */
typedef void (*pry_log_fn)(void *user, enum pry_log_level level, const char *line, size_t size);

/* `clock` gives Unix seconds. sink NULL: lines are dropped. NULL: no memory. */
struct pry_log *pry_log_new(pry_log_fn sink, void *user, enum pry_log_level least, double (*clock)(void *user),
                            void *clock_user);
void pry_log_free(struct pry_log *log);

bool pry_log_enabled(const struct pry_log *log, enum pry_log_level level);

/* A field of a line. Made with the inline functions below. */
struct pry_log_field {
  const char *name; /* NULL ends the list; a field whose text is empty is left out when `optional` */
  enum { PRY_LOG_TEXT, PRY_LOG_NUMBER, PRY_LOG_INTEGER, PRY_LOG_BOOLEAN } type;
  struct pry_slice text;
  double number;
  long long integer;
};

static inline struct pry_log_field pry_log_text(const char *name, const char *text)
{
  return (struct pry_log_field){.name = name, .type = PRY_LOG_TEXT, .text = pry_slice_of(text)};
}
static inline struct pry_log_field pry_log_slice(const char *name, struct pry_slice text)
{
  return (struct pry_log_field){.name = name, .type = PRY_LOG_TEXT, .text = text};
}
static inline struct pry_log_field pry_log_number(const char *name, double number)
{
  return (struct pry_log_field){.name = name, .type = PRY_LOG_NUMBER, .number = number};
}
static inline struct pry_log_field pry_log_integer(const char *name, long long integer)
{
  return (struct pry_log_field){.name = name, .type = PRY_LOG_INTEGER, .integer = integer};
}
static inline struct pry_log_field pry_log_boolean(const char *name, bool value)
{
  return (struct pry_log_field){.name = name, .type = PRY_LOG_BOOLEAN, .integer = value};
}

/* Writes one line; `fields` is an array of `count`. Empty texts are left out. NULL log: nothing. */
void pry_log_write(struct pry_log *log, enum pry_log_level level, const char *message,
                   const struct pry_log_field *fields, size_t count);

/* pry_log(log, PRY_LOG_INFO, "message", pry_log_text("a", a), …) */
#define pry_log(log, level, message, ...)                                                                              \
  pry_log_write((log), (level), (message), (const struct pry_log_field[]){__VA_ARGS__},                                \
                sizeof((const struct pry_log_field[]){__VA_ARGS__}) / sizeof(struct pry_log_field))

/* ---- secrets ------------------------------------------------------------------------------------------ */

/* A set of live secret values. Anything that leaves the process as words is scrubbed with it: logs, alerts, `why`,
 * error bodies of our own, event records. Values shorter than 6 bytes are not scrubbed (they would eat ordinary
 * words) and reported by check. Thread: any. */
struct pry_scrubber;

struct pry_scrubber *pry_scrubber_new(void);
void pry_scrubber_free(struct pry_scrubber *scrubber);

/* Adds a value; each add needs its remove. Also matches the value as it looks inside a JSON string. False: no
 * memory. */
bool pry_scrubber_add(struct pry_scrubber *scrubber, struct pry_slice value);
void pry_scrubber_remove(struct pry_scrubber *scrubber, struct pry_slice value);

/* Is there anything to replace in `text`? Spares a copy when, as nearly always, there is not. NULL scrubber: no. */
bool pry_scrubber_finds(struct pry_scrubber *scrubber, struct pry_slice text);

/* Replaces every occurrence in place by `***`. Linear in text for a handful of secrets. */
void pry_scrubber_apply(struct pry_scrubber *scrubber, struct pry_buffer *text);

/* The same for a NUL-terminated text in a fixed array. */
void pry_scrubber_apply_text(struct pry_scrubber *scrubber, char *text);

/* At the start, before other threads log; the scrubber outlives the log, or is taken back with NULL. NULL log:
 * nothing. */
void pry_log_set_scrubber(struct pry_log *log, struct pry_scrubber *scrubber);

#endif
