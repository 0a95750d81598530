/*
 * rollout.h: a generation on its way to all workers.
 *
 * Holds one warmed state for each worker. Warming may take milliseconds and happens before anything changes, on whatever
 * thread; it can fail, and then nothing has happened. Publishing is one pointer and cannot fail; each worker then takes
 * its own state. A rollout is freed by the control worker when every worker has adopted a newer one: nothing is retired
 * under a worker that is stuck.
 *
 * Thread: made on any; afterwards the control worker's, except that a worker takes its own state.
 */
#ifndef PRY_ROLLOUT_H
#define PRY_ROLLOUT_H

#include "registry.h"

struct pry_engine;

struct pry_rollout {
  struct pry_list link; /* in engine->rollouts, oldest first */
  struct pry_generation *generation;
  uint64_t sequence; /* 0 until it is published */
  size_t count;
  struct pry_state *states[]; /* by worker; NULL once taken */
};

/* Warms a state for each worker; takes the generation in any case. NULL: the report says why. Any thread. */
struct pry_rollout *pry_rollout_new(struct pry_engine *engine, struct pry_generation *generation,
                                    struct pry_report *report);

/* Frees what no worker has taken. NULL is fine. */
void pry_rollout_free(struct pry_rollout *rollout);

#endif
