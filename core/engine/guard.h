/*
 * guard.h: watching what a new generation does, and undoing it.
 *
 * Every handler's run is counted for its generation, and every fault is kept (the last PRY_FAULTS_KEPT) with its policy and
 * file:line. For ten minutes after a commit the guard looks once a second: at least 20 faults, and at least 5 % of all
 * runs, within the last 10 s mean that the new set is bad. Then the engine goes back to the newest generation kept in
 * memory that is not bad itself, and the bad one's id is told, so that whoever reads policies from disk can keep it out
 * until its bytes change (DESIGN §7).
 *
 * When there is nothing to go back to that is logged once and the set goes on serving: calls get their provider's own
 * answer for every handler that fails.
 *
 * Thread: counting and telling faults on any worker; the rest on the control worker.
 */
#ifndef PRY_GUARD_H
#define PRY_GUARD_H

#include "event.h"
#include "loop.h"

#include <pthread.h>

struct pry_engine;
struct pry_generation;
struct pry_worker;

enum { PRY_FAULTS_KEPT = 16, PRY_GUARD_SECONDS = 10 };

struct pry_fault {
  double at; /* Unix seconds; 0: none */
  char policy[64];
  char handler[16];
  char generation[PRY_GENERATION_ID_MAX];
  char text[256]; /* "retry.lua:12: …", scrubbed */
};

struct pry_guard_sample {
  unsigned long runs, faults;
};

struct pry_guard {
  struct pry_engine *engine;
  struct pry_timer timer;
  struct pry_guard_sample samples[PRY_GUARD_SECONDS]; /* one a second; the next to go is ten seconds old */
  size_t next;
  pry_time until;
  bool helpless; /* said already that there is nothing to go back to */
  pthread_mutex_t lock;
  struct pry_fault faults[PRY_FAULTS_KEPT]; /* under the lock, as is the next */
  size_t fault_count;
};

/* Fills a zeroed guard. */
void pry_guard_init(struct pry_guard *guard, struct pry_engine *engine);
void pry_guard_fini(struct pry_guard *guard);

/* A generation serves from now on. `watched`: undo it if it turns out bad. */
void pry_guard_begin(struct pry_guard *guard, bool watched);

/* A handler of that generation runs on that worker. On its thread. */
void pry_guard_ran(const struct pry_worker *worker, struct pry_generation *generation);

/* It failed. On its thread. `text` is scrubbed already. */
void pry_guard_tell(const struct pry_worker *worker, struct pry_generation *generation, const char *policy,
                    const char *handler, const char *text);

/* The newest fault of that generation; false: none of it is kept. Any thread. */
bool pry_guard_last_fault(struct pry_guard *guard, const char *generation, struct pry_fault *fault);

/* Copies at most `most` faults, newest first; their number. Any thread. */
size_t pry_guard_faults(struct pry_guard *guard, struct pry_fault *faults, size_t most);

#endif
