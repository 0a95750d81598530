/*
 * watchdog.h: who notices that a worker no longer turns its loop.
 *
 * A thread of its own sends each worker a beat through its mailbox, four times a second. One that is not delivered for
 * half a second makes the watchdog ask where the worker is: a running script then tells its file and line. After two
 * seconds the worker is called stuck: that is logged with the place, shown in status, and places in queues that were
 * granted to it and not picked up go to others (queue.h). When it turns again that is logged, too.
 *
 * It ends nothing: a script has its budgets (script.h), and a thread cannot be stopped from outside.
 *
 * Thread: new and free on the control worker's; the rest is its own.
 */
#ifndef PRY_WATCHDOG_H
#define PRY_WATCHDOG_H

#include "worker.h"

struct pry_watchdog;

/* Begins to watch all workers of an engine. NULL: no memory or no thread. */
struct pry_watchdog *pry_watchdog_new(struct pry_engine *engine);

/* Stops and frees. Before any worker's mailbox goes. NULL is fine. */
void pry_watchdog_free(struct pry_watchdog *watchdog);

static inline bool pry_worker_is_stuck(const struct pry_worker *worker)
{
  return atomic_load_explicit(&worker->pulse.stuck, memory_order_relaxed);
}

#endif
