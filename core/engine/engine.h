/*
 * engine.h: everything that calls share, and the workers that run them.
 *
 * An engine owns the store, the queues, the retry budgets, the credentials, the alerts, log, metrics and the
 * registry of generations, and its workers (worker.h). Calls are named by (worker, sequence). What may be used from any
 * worker's thread says so in its own header; what is here belongs to the control worker's, unless it says otherwise.
 *
 * The engine makes no policy: it lends parts. Data flows one way: whoever has a request starts a call (call.h), and the
 * call asks the chain (policy.h), makes attempts (http.h), and gives its result to its sink.
 *
 * Life: new → load → (start, when there are other workers) → … → stop → free. Between start and stop the workers run.
 */
#ifndef PRY_ENGINE_H
#define PRY_ENGINE_H

#include "alert.h"
#include "budget.h"
#include "credential.h"
#include "event.h"
#include "guard.h"
#include "http.h"
#include "keys.h"
#include "log.h"
#include "loop.h"
#include "mailbox.h"
#include "metrics.h"
#include "queue.h"
#include "recent_errors.h"
#include "registry.h"
#include "rollout.h"
#include "store.h"
#include "watchdog.h"
#include "worker.h"

struct pry_call;

enum { PRY_WORKERS_MAX = 256, PRY_DECIDERS_MAX = 64, PRY_GENERATIONS_LIVE_MAX = 8 };

/* The engine went back to an earlier generation. */
struct pry_rollback {
  const char *from, *to;      /* ids */
  bool automatic;             /* the guard did it */
  unsigned long runs, faults; /* of `from` in the last seconds, when automatic */
  const char *fault;          /* its last; "" */
};

struct pry_engine_options {
  struct pry_loop *loop;                       /* borrowed; the control worker's */
  struct pry_http *http;                       /* borrowed; the control worker's */
  const struct pry_http_options *http_options; /* of the other workers' clients; borrowed; NULL: defaults */
  unsigned workers;                            /* that serve, with threads of their own; 0: the control worker serves */
  unsigned deciders;   /* states that any thread may enter to decide (decider.h); at most PRY_DECIDERS_MAX */
  struct pry_log *log; /* borrowed; may be NULL */
  const struct pry_loader *loader;
  const char *state_dir; /* NULL: none */
  struct pry_script_limits limits;
  size_t replay_limit; /* bytes of one body kept for another attempt; 0: 16 MiB */
  size_t replay_total; /* bytes of all of them; 0: 1 GiB */
  size_t max_body;     /* bytes of one request's body, kept or not; more is 413; 0: 1 GiB */
  size_t hold_limit;   /* bytes of an answer held back before the commit point; 0: 256 KiB */
  uint64_t seed;       /* of random(); 0: from the kernel */
  struct pry_text_list
      probe_hosts; /* "HOST:PORT" that http.probe may ask although they are not public. The operator's word,
                                     * out of every policy's reach; borrowed, usually empty */
  /* Told of each rollback, from the loop. May be NULL. */
  void (*rolled_back)(void *user, const struct pry_rollback *rollback);
  void *user;
};

/* A generation that can be gone back to. */
struct pry_kept {
  struct pry_generation *generation; /* NULL: none, nor after it */
  bool bad;                          /* it was rolled back */
};

struct pry_engine {
  struct pry_engine_options options;
  struct pry_log *log;
  struct pry_scrubber *scrubber;
  struct pry_metrics *metrics;
  struct pry_store *store;
  struct pry_queue_set *queues;
  struct pry_budgets *budgets;
  struct pry_credentials *credentials;
  struct pry_keys *keys;
  struct pry_alerts *alerts;
  struct pry_recent_errors *recent_errors;
  struct pry_functions
      *functions;              /* what policies can ask the host (host_function.h); its maker's. NULL: there is none */
  struct pry_worker *control;  /* workers[0] */
  struct pry_worker **workers; /* the control worker, then those that serve, if any; behind them the deciders */
  unsigned worker_count;       /* without the deciders */
  unsigned decider_count;
  bool started;
  struct pry_watchdog *watchdog;
  struct pry_jobs *jobs;        /* the `every` lists of the serving generation */
  struct pry_timer sweep_timer; /* of the store */
  struct pry_list emissions;    /* events on their way through on_event handlers */
  atomic_size_t emission_count; /* of them */
  struct pry_list rounds;       /* questions to the workers (round.h) */
  struct pry_guard guard;
  struct pry_event_count events; /* of all workers' records */

  _Atomic(struct pry_rollout *) serving;      /* what every worker is to adopt; NULL before the first commit */
  struct pry_list rollouts;                   /* not adopted by all yet, and the serving one last */
  struct pry_kept kept[PRY_GENERATIONS_KEPT]; /* [0] serves; then the newest commit first */
  pthread_mutex_t looking; /* held while [0] changes, and while any thread looks at what serves and sets gauges by it */
  struct pry_generation *live[PRY_GENERATIONS_LIVE_MAX]; /* those that may still have states somewhere */
  /* Called whenever a worker has adopted, see pry_engine_adopted(). NULL: nobody. */
  void (*adopted)(void *user);
  void *adopted_user;

  atomic_size_t replay_used; /* bytes of bodies held by calls, and by whoever collects them for one */
  atomic_bool closing;       /* being freed: no new calls */
  unsigned long reloads, reloads_refused, rollbacks;
  atomic_ulong faults;
  double committed_at; /* Unix seconds; 0 before the first */
};

/* Copies the options; everything borrowed must outlive the engine. NULL: no memory or descriptors. */
struct pry_engine *pry_engine_new(const struct pry_engine_options *options);

/* Gives the serving workers their threads, and the engine its watchdog. False: the system has no thread left. */
bool pry_engine_start(struct pry_engine *engine);

/* Ends the threads and waits for them; afterwards everything belongs to the caller's thread. Harmless when there are none.
 * A worker that is stuck is waited for. */
void pry_engine_stop(struct pry_engine *engine);

/* Stops, cancels every open call (each sink hears `done`), then frees. NULL is fine. */
void pry_engine_free(struct pry_engine *engine);

/* The workers that serve calls: the control worker alone, or all others. Any thread. */
static inline unsigned pry_engine_serving_count(const struct pry_engine *engine)
{
  return engine->worker_count > 1 ? engine->worker_count - 1 : 1;
}
static inline struct pry_worker *pry_engine_serving_worker(const struct pry_engine *engine, unsigned i)
{
  return engine->workers[engine->worker_count > 1 ? i + 1 : 0];
}

/* Those that have a state: workers[0] to workers[total - 1]. Who turns a loop is one of worker_count only. Any thread. */
static inline unsigned pry_engine_worker_total(const struct pry_engine *engine)
{
  return engine->worker_count + engine->decider_count;
}

/* True once a generation serves. Any thread. */
static inline bool pry_engine_ready(struct pry_engine *engine)
{
  return atomic_load(&engine->serving) != NULL;
}

/* Calls open on all workers. Any thread. */
size_t pry_engine_call_count(const struct pry_engine *engine);

/* ---- generations ------------------------------------------------------------------------------------------ */

/* Compiles, checks and, with `run_tests`, tests a set, as far as `proven` (what serves; NULL: nothing) has not passed the
 * same tests. NULL: the report says why; the set is freed in any case that
 * gives no generation. Any thread: it touches no engine. */
struct pry_generation *pry_generation_stage(const struct pry_loader *loader, struct pry_policy_set *set,
                                            const struct pry_script_limits *limits, bool run_tests,
                                            const struct pry_generation *proven, struct pry_report *report);

/* Lets a warmed generation serve from the next event on, on every worker; takes the rollout in any case. False: nothing
 * changed, the report says why. One equal to the serving generation is dropped, and true. Workers acknowledge
 * afterwards. */
bool pry_engine_commit(struct pry_engine *engine, struct pry_rollout *rollout, struct pry_report *report);

/* Stage, warm and commit in one go. */
bool pry_engine_load(struct pry_engine *engine, struct pry_policy_set *set, bool run_tests, struct pry_report *report);

/* A reload was refused before it could be committed: counts and shows it. */
void pry_engine_refused(struct pry_engine *engine);

/* Goes back to a kept generation: the one whose id begins with `id`, or, NULL, the newest before the serving one that is
 * not bad. What served is bad from now on. False: nothing changed, the report says why. */
bool pry_engine_rollback(struct pry_engine *engine, const char *id, struct pry_report *report);

/* The guard's way of saying the same, with what it saw. */
bool pry_engine_roll_back_bad(struct pry_engine *engine, struct pry_guard_sample seen, struct pry_report *report);

/* True when every worker has adopted the serving generation. */
bool pry_engine_adopted(const struct pry_engine *engine);

/* A worker has adopted: what no worker needs any more is freed. For worker.c. */
void pry_engine_acknowledge(struct pry_engine *engine);

/* The generation that worker has adopted is not the serving one yet. */
bool pry_engine_is_behind(const struct pry_engine *engine, const struct pry_worker *worker);

/* The serving generation, or NULL. Borrowed. */
struct pry_generation *pry_engine_generation(const struct pry_engine *engine);

/* ---- small services ---------------------------------------------------------------------------------------- */

/* Tells every instance with `on_event`, in declaration order; verdicts are ignored. fields: a JSON object, copied. */
void pry_engine_emit(struct pry_engine *engine, const char *name, struct pry_slice fields);

/* A seed for one event of one call: the same for the same (engine seed, call, event number). Any thread. */
uint64_t pry_engine_seed(const struct pry_engine *engine, const char *call_id, uint64_t event);

/* Counts bytes of a kept body. False: over the bound of all bodies together, nothing counted. Any thread. */
bool pry_engine_take_replay(struct pry_engine *engine, size_t bytes);
/* The same without a bound, for the beginnings of bodies, which are always held. */
void pry_engine_add_replay(struct pry_engine *engine, size_t bytes);
void pry_engine_give_replay(struct pry_engine *engine, size_t bytes);

/* Brings the gauges (breakers, budgets, queues, credentials) up to date, then renders all metrics. Any thread, of a real
 * loop. */
bool pry_engine_metrics(struct pry_engine *engine, struct pry_buffer *text);

#endif
