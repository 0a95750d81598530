#include "engine_internal.h"

#include "call.h"
#include "job.h"
#include "parry.h"
#include "round.h"

#include <stdlib.h>
#include <sys/random.h>

enum {
  REPLAY_LIMIT = 16 * 1024 * 1024,
  HOLD_LIMIT = 256 * 1024,
};

#define REPLAY_TOTAL ((size_t)1024 * 1024 * 1024)
#define MAX_BODY ((size_t)1024 * 1024 * 1024)
#define SWEEP_PERIOD PRY_SECOND

/* ---- making and freeing -------------------------------------------------------------------------------- */

static struct pry_state *current_state(void *user)
{
  struct pry_state *state = ((struct pry_engine *)user)->control->state;
  if (state)
    pry_state_ref(state);
  return state;
}

static void renewal_failed(void *user, const char *credential, const char *why)
{
  struct pry_engine *engine = user;
  struct pry_buffer fields;
  pry_buffer_init(&fields, 4096);
  if (pry_buffer_append_text(&fields, "{\"credential\":\"") &&
      pry_buffer_append_json(&fields, pry_slice_of(credential)) && pry_buffer_append_text(&fields, "\",\"error\":\"") &&
      pry_buffer_append_json(&fields, pry_slice_of(why)) && pry_buffer_append_text(&fields, "\"}"))
    pry_engine_emit(engine, "credential_failed", pry_buffer_slice(&fields));
  pry_buffer_fini(&fields);
}

static void renewal_recovered(void *user, const char *credential)
{
  struct pry_buffer fields;
  pry_buffer_init(&fields, 4096);
  if (pry_buffer_append_text(&fields, "{\"credential\":\"") &&
      pry_buffer_append_json(&fields, pry_slice_of(credential)) && pry_buffer_append_text(&fields, "\"}"))
    pry_engine_emit(user, "credential_renewed", pry_buffer_slice(&fields));
  pry_buffer_fini(&fields);
}

static void sweep(void *user)
{
  struct pry_engine *engine = user;
  struct pry_loop *loop = engine->control->loop;
  pry_store_sweep(engine->store, pry_loop_now(loop));
  pry_queue_sweep(engine->queues, pry_loop_now(loop));
  pry_timer_start(loop, &engine->sweep_timer, SWEEP_PERIOD, sweep, engine);
  pry_engine_drop_unused(engine);
}

static void set_defaults(struct pry_engine_options *options)
{
  if (!options->replay_limit)
    options->replay_limit = REPLAY_LIMIT;
  if (!options->replay_total)
    options->replay_total = REPLAY_TOTAL;
  if (!options->max_body)
    options->max_body = MAX_BODY;
  if (!options->hold_limit)
    options->hold_limit = HOLD_LIMIT;
  if (!options->seed && getrandom(&options->seed, sizeof options->seed, 0) != sizeof options->seed)
    options->seed = (uint64_t)pry_loop_now(options->loop) + 1;
}

static struct pry_credentials *new_credentials(struct pry_engine *engine)
{
  struct pry_credentials_environment environment = {
      .loop = engine->control->loop,
      .mailbox = engine->control->mailbox,
      .log = engine->log,
      .metrics = engine->metrics,
      .scrubber = engine->scrubber,
      .state_dir = engine->options.state_dir,
      .current_state = current_state,
      .failed = renewal_failed,
      .recovered = renewal_recovered,
      .user = engine,
  };
  return pry_credentials_new(&environment);
}

static bool make_deciders(struct pry_engine *engine)
{
  while (engine->decider_count < engine->options.deciders) {
    struct pry_worker *worker = malloc(sizeof *worker);
    if (!worker)
      return false;
    unsigned index = pry_engine_worker_total(engine);
    engine->workers[index] = worker;
    engine->decider_count++;
    if (!pry_worker_init_decider(worker, engine, index))
      return false;
  }
  return true;
}

static bool make_workers(struct pry_engine *engine)
{
  unsigned count = engine->options.workers + 1;
  if (engine->options.workers > PRY_WORKERS_MAX || engine->options.deciders > PRY_DECIDERS_MAX)
    return false;
  engine->workers = calloc(count + engine->options.deciders, sizeof(struct pry_worker *));
  if (!engine->workers)
    return false;
  for (unsigned i = 0; i < count; i++) {
    struct pry_worker *worker = malloc(sizeof *worker);
    if (!worker)
      return false;
    engine->workers[i] = worker;
    engine->worker_count = i + 1;
    const struct pry_engine_options *options = &engine->options;
    if (!pry_worker_init(worker, engine, i, i ? NULL : options->loop, i ? NULL : options->http))
      return false;
  }
  engine->control = engine->workers[0];
  return make_deciders(engine);
}

static bool make_parts(struct pry_engine *engine)
{
  struct pry_worker *control = engine->control;
  return (engine->scrubber = pry_scrubber_new()) && (engine->metrics = pry_metrics_new()) &&
         (engine->store = pry_store_new(0, 0)) && (engine->queues = pry_queue_set_new(0, 0)) &&
         (engine->budgets = pry_budgets_new()) && (engine->credentials = new_credentials(engine)) &&
         (engine->keys = pry_keys_new()) && (engine->jobs = pry_jobs_new(engine)) &&
         (engine->recent_errors = pry_recent_errors_new()) &&
         (engine->alerts =
              pry_alerts_new(control->mailbox, control->http, engine->log, engine->metrics, engine->scrubber)) &&
         pry_timer_start(control->loop, &engine->sweep_timer, SWEEP_PERIOD, sweep, engine);
}

struct pry_engine *pry_engine_new(const struct pry_engine_options *options)
{
  struct pry_engine *engine = calloc(1, sizeof *engine);
  if (!engine)
    return NULL;
  engine->options = *options;
  set_defaults(&engine->options);
  engine->log = options->log;
  pry_list_init(&engine->emissions);
  pry_list_init(&engine->rounds);
  pry_list_init(&engine->rollouts);
  pthread_mutex_init(&engine->looking, NULL); /* cannot fail without attributes on Linux */
  pry_guard_init(&engine->guard, engine);
  if (!make_workers(engine) || !make_parts(engine)) {
    pry_engine_free(engine);
    return NULL;
  }
  pry_log_set_scrubber(engine->log, engine->scrubber);
  pry_metrics_set(engine->metrics, PRY_M_BUILD, PARRY_VERSION, NULL, 1);
  return engine;
}

bool pry_engine_start(struct pry_engine *engine)
{
  engine->started = true;
  for (unsigned i = 1; i < engine->worker_count; i++)
    if (!pry_worker_start(engine->workers[i]))
      return false;
  engine->watchdog = engine->worker_count > 1 ? pry_watchdog_new(engine) : NULL;
  return engine->watchdog || engine->worker_count == 1;
}

void pry_engine_stop(struct pry_engine *engine)
{
  if (!engine->started)
    return;
  pry_watchdog_free(engine->watchdog); /* or it would find those stuck that have ended */
  engine->watchdog = NULL;
  for (unsigned i = 1; i < engine->worker_count; i++)
    pry_worker_stop(engine->workers[i]);
  engine->started = false;
}

static void free_workers(struct pry_engine *engine)
{
  for (unsigned i = 0; i < pry_engine_worker_total(engine); i++)
    pry_worker_fini(engine->workers[i]);
  for (unsigned i = 0; i < pry_engine_worker_total(engine); i++)
    free(engine->workers[i]);
  free(engine->workers);
}

static void free_generations(struct pry_engine *engine)
{
  while (!pry_list_empty(&engine->rollouts))
    pry_rollout_free(PRY_CONTAINER_OF(engine->rollouts.next, struct pry_rollout, link));
  for (size_t i = 0; i < PRY_GENERATIONS_KEPT; i++)
    pry_engine_forget(engine, engine->kept[i].generation);
  for (size_t i = 0; i < PRY_GENERATIONS_LIVE_MAX; i++)
    pry_engine_forget(engine, engine->live[i]);
}

void pry_engine_free(struct pry_engine *engine)
{
  if (!engine)
    return;
  pry_engine_stop(engine);
  atomic_store(&engine->closing, true);
  if (engine->control)
    pry_rounds_end(engine);
  for (unsigned i = 0; i < engine->worker_count; i++)
    pry_calls_destroy(engine->workers[i]);
  pry_timer_cancel(&engine->sweep_timer);
  pry_guard_fini(&engine->guard);
  pry_emissions_cancel(engine);
  pry_jobs_free(engine->jobs);
  pry_credentials_free(engine->credentials);
  pry_keys_free(engine->keys);
  pry_alerts_free(engine->alerts);
  pry_recent_errors_free(engine->recent_errors);
  for (unsigned i = 0; i < pry_engine_worker_total(engine); i++)
    pry_worker_clear(engine->workers[i]);
  free_generations(engine);
  free_workers(engine);
  pry_budgets_free(engine->budgets);
  pry_queue_set_free(engine->queues);
  pry_store_free(engine->store);
  pry_metrics_free(engine->metrics);
  pry_log_set_scrubber(engine->log, NULL);
  pry_scrubber_free(engine->scrubber);
  pthread_mutex_destroy(&engine->looking);
  free(engine);
}

/* ---- small services ------------------------------------------------------------------------------------------ */

size_t pry_engine_call_count(const struct pry_engine *engine)
{
  size_t count = 0;
  for (unsigned i = 0; i < engine->worker_count; i++)
    count += atomic_load_explicit(&engine->workers[i]->call_count, memory_order_relaxed);
  return count;
}

bool pry_engine_take_replay(struct pry_engine *engine, size_t bytes)
{
  size_t used = atomic_load_explicit(&engine->replay_used, memory_order_relaxed);
  do
    if (used > engine->options.replay_total || bytes > engine->options.replay_total - used)
      return false;
  while (!atomic_compare_exchange_weak_explicit(&engine->replay_used, &used, used + bytes, memory_order_relaxed,
                                                memory_order_relaxed));
  return true;
}

void pry_engine_add_replay(struct pry_engine *engine, size_t bytes)
{
  atomic_fetch_add_explicit(&engine->replay_used, bytes, memory_order_relaxed);
}

void pry_engine_give_replay(struct pry_engine *engine, size_t bytes)
{
  atomic_fetch_sub_explicit(&engine->replay_used, bytes, memory_order_relaxed);
}

uint64_t pry_engine_seed(const struct pry_engine *engine, const char *call_id, uint64_t event)
{
  uint64_t hash = engine->options.seed ^ (event * 0x9E3779B97F4A7C15u);
  for (const char *c = call_id; *c; c++)
    hash = (hash ^ (unsigned char)*c) * 0x100000001B3u;
  hash ^= hash >> 31;
  hash *= 0xBF58476D1CE4E5B9u;
  return hash ^ (hash >> 29);
}

static void show_breaker(void *user, struct pry_slice key, enum pry_breaker_state state)
{
  char name[PRY_TARGET_MAX];
  size_t size = key.size < sizeof name - 1 ? key.size : sizeof name - 1;
  memcpy(name, key.data, size);
  name[size] = '\0';
  for (enum pry_breaker_state other = PRY_BREAKER_CLOSED; other <= PRY_BREAKER_HALF_OPEN; other++)
    pry_metrics_set(user, PRY_M_BREAKER_STATE, name, pry_breaker_state_name(other), other == state);
}

static void show_budget(void *user, struct pry_slice target, double remaining)
{
  char name[PRY_TARGET_MAX];
  size_t size = target.size < sizeof name - 1 ? target.size : sizeof name - 1;
  memcpy(name, target.data, size);
  name[size] = '\0';
  pry_metrics_set(user, PRY_M_BUDGET, name, NULL, remaining);
}

static void show_key(void *user, const struct pry_key_status *status)
{
  pry_metrics_set(user, PRY_M_KEY_USABLE, status->provider, status->key, status->state == PRY_KEY_USABLE);
}

static void show_credential(void *user, const struct pry_credential_status *status)
{
  if (status->expires_at > 0)
    pry_metrics_set(user, PRY_M_TOKEN_EXPIRY, status->name, NULL, status->expires_at);
}

static void refresh_gauges(struct pry_engine *engine)
{
  struct pry_metrics *metrics = engine->metrics;
  const struct pry_generation *serving = pry_engine_generation(engine);
  pry_time now = pry_loop_clock(engine->control->loop);
  pry_metrics_clear(metrics, PRY_M_BREAKER_STATE);
  pry_metrics_clear(metrics, PRY_M_BUDGET);
  pry_metrics_clear(metrics, PRY_M_TOKEN_EXPIRY);
  pry_metrics_clear(metrics, PRY_M_KEY_USABLE);
  if (serving)
    pry_keys_each(engine->keys, serving->config, now, show_key, metrics);
  pry_store_each_breaker(engine->store, now, show_breaker, metrics);
  pry_budget_each(engine->budgets, show_budget, metrics);
  pry_credentials_each(engine->credentials, engine->control->loop, show_credential, metrics);
  pry_metrics_set(metrics, PRY_M_QUEUE_DEPTH, NULL, NULL, (double)pry_queue_waiting_total(engine->queues));
  pry_metrics_set(metrics, PRY_M_OPEN_CALLS, NULL, NULL, (double)pry_engine_call_count(engine));
}

bool pry_engine_metrics(struct pry_engine *engine, struct pry_buffer *text)
{
  /* Two who look at once would find half of each other's gauges. */
  pthread_mutex_lock(&engine->looking);
  refresh_gauges(engine);
  bool rendered = pry_metrics_render(engine->metrics, text);
  pthread_mutex_unlock(&engine->looking);
  return rendered;
}
