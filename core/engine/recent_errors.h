/*
 * recent_errors.h: the last failed attempts of all workers, and the pattern they make.
 *
 * A person who asks "what is going wrong right now?" wants neither a counter since the start nor a log to search. So the
 * engine keeps what the last PRY_RECENT_ERRORS_MAX failed or refused attempts were: when, where, what; no message, no
 * header, no body. MISSION row 9 asks for the pattern of the last 100.
 *
 * Memory: one block, allocated once (about 200 KiB). Adding copies some 300 bytes under a lock that is held for nothing
 * else.
 *
 * Thread: any.
 */
#ifndef PRY_RECENT_ERRORS_H
#define PRY_RECENT_ERRORS_H

#include "event.h"
#include "failure.h"

struct pry_recent_errors;

enum { PRY_RECENT_ERRORS_MAX = 512 };

struct pry_recent_error {
  double time; /* Unix seconds, of the attempt's end */
  char call_id[PRY_CALL_ID_MAX];
  char target[PRY_TARGET_MAX];
  char code[PRY_FAILURE_CODE_MAX];
  enum pry_category category;
  enum pry_source source;
  int status; /* 0: none */
  unsigned attempt;
  bool refused; /* nothing was sent */
};

/* NULL: no memory. */
struct pry_recent_errors *pry_recent_errors_new(void);
void pry_recent_errors_free(struct pry_recent_errors *errors); /* NULL is fine */

/* Remembers one, in place of the oldest. */
void pry_recent_errors_add(struct pry_recent_errors *errors, const struct pry_recent_error *error);

/* Copies the newest `limit` (at most PRY_RECENT_ERRORS_MAX) into `to`, newest first. How many; *seen: since the start. */
size_t pry_recent_errors_copy(struct pry_recent_errors *errors, struct pry_recent_error *to, size_t limit,
                              unsigned long long *seen);

#endif
