/*
 * worker.h: one thread, its loop, and what belongs to it.
 *
 * A worker runs calls from beginning to end: its loop, its HTTP client, its state of the serving generation, its open
 * calls and its ring of event records are touched by its thread alone. What reaches it from elsewhere comes
 * through its mailbox.
 *
 * Worker 0 is the *control* worker: what exists once per engine runs there (renewals, `every` jobs, delivery of alerts,
 * commits of generations, the admin listener). Its loop is the caller's. Without other workers it serves calls, too:
 * that is how tests and single-threaded hosts run. With others (--workers N) it serves none, so that no call delays a
 * reload or a renewal, and no renewal delays a call.
 *
 * Generations: a commit publishes one pointer. A worker looks at it before each event and then changes its own state
 * (pry_worker_adopt); so from the instant of the commit on every event, on whatever worker, is judged by the new
 * generation. An idle worker is woken to do the same, and acknowledges. Open calls that are between events move at once;
 * one whose handler waits finishes it on the old state.
 *
 * Thread: the worker's, except where a function says otherwise.
 */
#ifndef PRY_WORKER_H
#define PRY_WORKER_H

#include "event.h"
#include "http.h"
#include "list.h"
#include "loop.h"
#include "mailbox.h"

#include <pthread.h>
#include <stdatomic.h>

struct pry_engine;
struct pry_state;

enum { PRY_WHERE_MAX = 160 };

/* How the watchdog sees a worker (watchdog.h). */
struct pry_pulse {
  struct pry_message beat; /* goes through the mailbox: a worker that delivers it turns its loop */
  atomic_bool beating;     /* sent and not delivered */
  atomic_bool where_wanted;
  atomic_bool stuck;
  pthread_mutex_t lock;
  char where[PRY_WHERE_MAX]; /* under the lock: "retry.lua:12", "" when it is not known */
  pry_time sent_at;          /* the watchdog's */
};

/* How a decider is entered (decider.h). */
struct pry_entry {
  pthread_mutex_t lock; /* held by who is inside, while Lua runs */
  pry_time now; /* inside: when it was entered, or something was delivered: who is inside sees time stand still */
  double unix_time;
  atomic_uint wanted;         /* 1: its mailbox may have something */
  struct pry_message look;    /* to the control worker: enter it, if nobody else does */
  struct pry_list beginnings; /* inside: what is to begin on the control worker's loop, once who is inside has left */
};

struct pry_worker {
  struct pry_engine *engine;
  unsigned index; /* 0: the control worker; part of the names of its calls */
  bool decides;   /* it has no thread: whoever asks enters it; its loop and client are the control worker's */
  struct pry_loop *loop;
  struct pry_http *http;
  struct pry_mailbox *mailbox;
  struct pry_state *state; /* of the generation it has adopted; NULL until the first */
  struct pry_event_ring *events;
  struct pry_list calls; /* open calls */
  atomic_size_t call_count;
  uint64_t next_call;

  atomic_uint_fast64_t adopted;       /* sequence of the rollout its state came from; 0: none */
  struct pry_message adopt_message;   /* look at the serving generation */
  struct pry_message adopted_message; /* to the control worker: it has */
  struct pry_message rebuild_message; /* to the control worker: this state's heap is bloated */
  struct pry_message rebuilt_message; /* here is a fresh one */
  struct pry_state *rebuilt;
  bool rebuilding;
  pry_time rebuilt_at;
  atomic_ulong rebuilds;

  struct pry_pulse pulse;
  struct pry_entry entry; /* of a decider */
  bool owns_loop;         /* and the client; else the engine's caller does */
  bool running;           /* its thread */
  pthread_t thread;
  struct pry_message stop_message;
};

/* Prepares a worker. loop NULL: it makes a loop and a client of its own, and may get a thread. False: memory or
 * descriptors; pry_worker_fini() all the same. */
bool pry_worker_init(struct pry_worker *worker, struct pry_engine *engine, unsigned index, struct pry_loop *loop,
                     struct pry_http *http);

/* The same for a decider: no loop, no thread. */
bool pry_worker_init_decider(struct pry_worker *worker, struct pry_engine *engine, unsigned index);

/* The time, for whoever works in it: its loop's, which stands still within a turn; a decider's stands still from entering, and
 * is known inside only: on the control worker an operation reads pry_loop_clock(). */
static inline pry_time pry_worker_now(const struct pry_worker *worker)
{
  return worker->decides ? worker->entry.now : pry_loop_now(worker->loop);
}
static inline double pry_worker_unix_time(const struct pry_worker *worker)
{
  return worker->decides ? worker->entry.unix_time : pry_loop_unix_time(worker->loop);
}

/* After its thread has ended and its calls were destroyed: gives its state back. */
void pry_worker_clear(struct pry_worker *worker);

/* Frees the rest. After pry_worker_clear() of every worker, because what they release may be granted to others. */
void pry_worker_fini(struct pry_worker *worker);

/* Gives it a thread that turns its loop, with all signals blocked. False: the system has none left. */
bool pry_worker_start(struct pry_worker *worker);

/* Ends the thread after its current turn, and waits for that. Not from the worker's own thread. */
void pry_worker_stop(struct pry_worker *worker);

/* Changes to the serving generation if there is a newer one. Between events only. */
void pry_worker_adopt(struct pry_worker *worker);

/* The state's heap stays above half of its cap: asks the control worker for a fresh state of the same generation. At most
 * once in ten seconds, because a set that needs so much memory would ask for ever. */
void pry_worker_request_rebuild(struct pry_worker *worker);

/* Where its script is, told from inside it when the watchdog wants to know. */
static inline bool pry_worker_where_wanted(const struct pry_worker *worker)
{
  return atomic_load_explicit(&worker->pulse.where_wanted, memory_order_relaxed);
}
void pry_worker_tell_where(struct pry_worker *worker, const char *where);

/* Copies the place; "" when it is not known. Any thread. */
void pry_worker_where(struct pry_worker *worker, char where[PRY_WHERE_MAX]);

#endif
