/*
 * engine.h: everything that calls share, and the workers that run them.
 *
 * An engine owns the store, the queues, the retry budgets, the credentials, the alerts, log, metrics and the
 * registry of generations. A worker is one thread with its own loop, its own HTTP client and its own state of the
 * serving generation; calls are named by (worker, sequence). One worker runs here; what crosses threads is marked
 * in each module's header.
 *
 * The engine makes no policy: it lends parts. Data flows one way: whoever has a request starts a call (call.h), and the
 * call asks the chain (policy.h), makes attempts (http.h), and gives its result to its sink.
 */
#ifndef PRY_ENGINE_H
#define PRY_ENGINE_H

#include "alert.h"
#include "budget.h"
#include "credential.h"
#include "event.h"
#include "http.h"
#include "log.h"
#include "loop.h"
#include "mailbox.h"
#include "metrics.h"
#include "queue.h"
#include "registry.h"
#include "store.h"

struct pry_call;

struct pry_engine_options {
  struct pry_loop *loop; /* borrowed */
  struct pry_http *http; /* borrowed; the first worker's client */
  struct pry_log *log;   /* borrowed; may be NULL */
  const struct pry_loader *loader;
  const char *state_dir; /* NULL: none */
  struct pry_script_limits limits;
  size_t replay_limit; /* bytes of one body kept for another attempt; 0: 16 MiB */
  size_t replay_total; /* bytes of all of them; 0: 1 GiB */
  size_t hold_limit;   /* bytes of an answer held back before the commit point; 0: 256 KiB */
  uint64_t seed;       /* of random(); 0: from the kernel */
};

struct pry_worker {
  struct pry_engine *engine;
  unsigned index;
  struct pry_loop *loop;
  struct pry_mailbox *mailbox; /* of that loop */
  struct pry_http *http;
  struct pry_state *state; /* of the serving generation; NULL until the first commit */
  struct pry_event_ring *events;
  struct pry_list calls; /* open calls */
  size_t call_count;
  uint64_t next_call;
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
  struct pry_alerts *alerts;
  struct pry_worker worker;
  struct pry_jobs *jobs;                             /* the `every` lists of the serving generation */
  struct pry_timer sweep_timer;                      /* of the store */
  struct pry_list emissions;                         /* events on their way through on_event handlers */
  struct pry_generation *kept[PRY_GENERATIONS_KEPT]; /* newest first; [0] is the serving one */
  size_t replay_used; /* bytes of bodies held by calls, and by whoever collects them for one */
  bool closing;       /* being freed: no new calls */
  unsigned long reloads, reloads_refused, faults;
  double committed_at; /* Unix seconds; 0 before the first */
};

/* Copies the options; everything borrowed must outlive the engine. NULL: no memory. */
struct pry_engine *pry_engine_new(const struct pry_engine_options *options);

/* Cancels every open call (each sink hears `done`), then frees. NULL is fine. */
void pry_engine_free(struct pry_engine *engine);

/* Compiles, checks and, with `run_tests`, tests a set. NULL: the report says why; the set is freed in any case that
 * gives no generation. Any thread: it touches no engine. */
struct pry_generation *pry_generation_stage(const struct pry_loader *loader, struct pry_policy_set *set,
                                            const struct pry_script_limits *limits, bool run_tests,
                                            struct pry_report *report);

/* Warms a staged generation and lets it serve from the next event on; takes it in any case. False: nothing changed, the
 * report says why. One equal to the serving generation is dropped, and true. */
bool pry_engine_commit(struct pry_engine *engine, struct pry_generation *generation, struct pry_report *report);

/* Both in one go. */
bool pry_engine_load(struct pry_engine *engine, struct pry_policy_set *set, bool run_tests, struct pry_report *report);

/* A reload was refused before it could be committed: counts and shows it. */
void pry_engine_refused(struct pry_engine *engine);

/* The serving generation, or NULL. Borrowed. */
struct pry_generation *pry_engine_generation(const struct pry_engine *engine);

/* Tells every instance with `on_event`, in declaration order; verdicts are ignored. fields: a JSON object, copied. */
void pry_engine_emit(struct pry_engine *engine, const char *name, struct pry_slice fields);

/* A seed for one event of one call: the same for the same (engine seed, call, event number). */
uint64_t pry_engine_seed(const struct pry_engine *engine, const char *call_id, uint64_t event);

/* Brings the gauges (breakers, budgets, queues, credentials) up to date, then renders all metrics. */
bool pry_engine_metrics(struct pry_engine *engine, struct pry_buffer *text);

#endif
