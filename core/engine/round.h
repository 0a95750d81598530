/*
 * round.h: asking every worker something, and hearing when all have answered.
 *
 * What belongs to a worker's thread (its open calls, its event records) is read there: each worker's `visit` appends to
 * a buffer of its own. `done` comes on the control worker, from its loop, when all have answered or the time is up;
 * a worker that is stuck is missing then, and its late answer is thrown away.
 *
 * Thread: started and cancelled on the control worker.
 */
#ifndef PRY_ROUND_H
#define PRY_ROUND_H

#include "buffer.h"
#include "worker.h"

struct pry_round;

struct pry_round_answer {
  const struct pry_worker *worker;
  bool there;            /* false: it did not answer in time */
  struct pry_slice text; /* what its visit appended */
};

struct pry_round_ops {
  /* On the worker's thread. False: memory; the worker counts as missing. */
  bool (*visit)(struct pry_worker *worker, const void *question, struct pry_buffer *text);
  /* Once, with one answer for each worker in order. Not after pry_round_cancel(). */
  void (*done)(void *user, const struct pry_round_answer *answers, size_t count);
};

/* Asks. `question` (of `size` bytes, may be 0) is copied. most: bytes one worker may answer. NULL: no memory; nothing is
 * called. */
struct pry_round *pry_round_start(struct pry_engine *engine, const struct pry_round_ops *ops, const void *question,
                                  size_t size, size_t most, pry_time timeout, void *user);

/* `done` will not come. */
void pry_round_cancel(struct pry_round *round);

/* At the end of an engine, when no worker runs any more: frees all rounds, without `done`. */
void pry_rounds_end(struct pry_engine *engine);

#endif
