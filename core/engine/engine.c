#include "engine.h"

#include "call_internal.h"
#include "job.h"
#include "parry.h"

#include <stdlib.h>
#include <sys/random.h>

enum {
  REPLAY_LIMIT = 16 * 1024 * 1024,
  HOLD_LIMIT = 256 * 1024,
};

#define REPLAY_TOTAL ((size_t)1024 * 1024 * 1024)
#define SWEEP_PERIOD PRY_SECOND

/* ---- making and freeing -------------------------------------------------------------------------------- */

static struct pry_state *current_state(void *user)
{
  struct pry_engine *engine = user;
  if (engine->worker.state)
    pry_state_ref(engine->worker.state);
  return engine->worker.state;
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
  pry_store_sweep(engine->store, pry_loop_now(engine->worker.loop));
  pry_timer_start(engine->worker.loop, &engine->sweep_timer, SWEEP_PERIOD, sweep, engine);
}

static void set_defaults(struct pry_engine_options *options)
{
  if (!options->replay_limit)
    options->replay_limit = REPLAY_LIMIT;
  if (!options->replay_total)
    options->replay_total = REPLAY_TOTAL;
  if (!options->hold_limit)
    options->hold_limit = HOLD_LIMIT;
  if (!options->seed && getrandom(&options->seed, sizeof options->seed, 0) != sizeof options->seed)
    options->seed = (uint64_t)pry_loop_now(options->loop) + 1;
}

static struct pry_credentials *new_credentials(struct pry_engine *engine)
{
  struct pry_credentials_environment environment = {
      .loop = engine->worker.loop,
      .mailbox = engine->worker.mailbox,
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

static bool make_parts(struct pry_engine *engine)
{
  struct pry_worker *worker = &engine->worker;
  return (worker->mailbox = pry_mailbox_new(worker->loop)) && (engine->scrubber = pry_scrubber_new()) &&
         (engine->metrics = pry_metrics_new()) && (engine->store = pry_store_new(0, 0)) &&
         (engine->queues = pry_queue_set_new(0, 0)) && (engine->budgets = pry_budgets_new()) &&
         (worker->events = pry_event_ring_new(0)) && (engine->credentials = new_credentials(engine)) &&
         (engine->jobs = pry_jobs_new(engine)) &&
         (engine->alerts =
              pry_alerts_new(worker->mailbox, worker->http, engine->log, engine->metrics, engine->scrubber)) &&
         pry_timer_start(worker->loop, &engine->sweep_timer, SWEEP_PERIOD, sweep, engine);
}

struct pry_engine *pry_engine_new(const struct pry_engine_options *options)
{
  struct pry_engine *engine = calloc(1, sizeof *engine);
  if (!engine)
    return NULL;
  engine->options = *options;
  set_defaults(&engine->options);
  engine->log = options->log;
  engine->worker = (struct pry_worker){.engine = engine, .loop = options->loop, .http = options->http, .next_call = 1};
  pry_list_init(&engine->worker.calls);
  pry_list_init(&engine->emissions);
  if (!make_parts(engine)) {
    pry_engine_free(engine);
    return NULL;
  }
  pry_log_set_scrubber(engine->log, engine->scrubber);
  pry_metrics_set(engine->metrics, PRY_M_BUILD, PARRY_VERSION, NULL, 1);
  return engine;
}

static void scrub_generation(struct pry_engine *engine, const struct pry_generation *generation, bool live)
{
  for (size_t i = 0; i < generation->config->secret_count; i++) {
    struct pry_slice value = pry_slice_of(generation->config->secrets[i].value);
    if (value.size && live)
      pry_scrubber_add(engine->scrubber, value);
    else if (value.size)
      pry_scrubber_remove(engine->scrubber, value);
  }
}

static void forget_generation(struct pry_engine *engine, struct pry_generation *generation)
{
  if (!generation)
    return;
  scrub_generation(engine, generation, false);
  pry_generation_unref(generation);
}

void pry_engine_free(struct pry_engine *engine)
{
  if (!engine)
    return;
  struct pry_worker *worker = &engine->worker;
  engine->closing = true;
  while (!pry_list_empty(&worker->calls))
    pry_call_destroy(PRY_CONTAINER_OF(worker->calls.next, struct pry_call, link));
  pry_timer_cancel(&engine->sweep_timer);
  pry_emissions_cancel(engine);
  pry_jobs_free(engine->jobs);
  pry_credentials_free(engine->credentials);
  pry_alerts_free(engine->alerts);
  pry_state_unref(worker->state);
  for (size_t i = 0; i < PRY_GENERATIONS_KEPT; i++)
    forget_generation(engine, engine->kept[i]);
  pry_event_ring_free(worker->events);
  pry_budgets_free(engine->budgets);
  pry_queue_set_free(engine->queues);
  pry_store_free(engine->store);
  pry_metrics_free(engine->metrics);
  pry_log_set_scrubber(engine->log, NULL);
  pry_scrubber_free(engine->scrubber);
  pry_mailbox_free(worker->mailbox);
  free(engine);
}

/* ---- generations ------------------------------------------------------------------------------------------ */

struct pry_generation *pry_engine_generation(const struct pry_engine *engine)
{
  return engine->kept[0];
}

/* From here on nothing can fail. */
static void swap_in(struct pry_engine *engine, struct pry_generation *generation, struct pry_state *state)
{
  struct pry_state *before = engine->worker.state;
  engine->worker.state = state;
  pry_state_unref(before);
  scrub_generation(engine, generation, true);
  forget_generation(engine, engine->kept[PRY_GENERATIONS_KEPT - 1]);
  memmove(engine->kept + 1, engine->kept, (PRY_GENERATIONS_KEPT - 1) * sizeof *engine->kept);
  engine->kept[0] = generation;
  engine->committed_at = pry_loop_unix_time(engine->worker.loop);
  engine->reloads++;
  pry_metrics_clear(engine->metrics, PRY_M_GENERATION);
  pry_metrics_set(engine->metrics, PRY_M_GENERATION, generation->id, NULL, 1);
  pry_metrics_set(engine->metrics, PRY_M_RELOAD_TIME, NULL, NULL, engine->committed_at);
}

struct pry_generation *pry_generation_stage(const struct pry_loader *loader, struct pry_policy_set *set,
                                            const struct pry_script_limits *limits, bool run_tests,
                                            struct pry_report *report)
{
  struct pry_generation *generation = loader->load(set, limits, report);
  if (!generation) {
    pry_policy_set_free(set);
    return NULL;
  }
  if (run_tests && !loader->test(set, limits, NULL, report, NULL, NULL)) {
    pry_generation_unref(generation);
    return NULL;
  }
  generation->tests = report->tests_passed;
  return generation;
}

void pry_engine_refused(struct pry_engine *engine)
{
  engine->reloads_refused++;
  pry_metrics_set(engine->metrics, PRY_M_RELOAD_OK, NULL, NULL, 0);
}

bool pry_engine_commit(struct pry_engine *engine, struct pry_generation *generation, struct pry_report *report)
{
  pry_metrics_set(engine->metrics, PRY_M_RELOAD_OK, NULL, NULL, 1);
  if (engine->kept[0] && strcmp(engine->kept[0]->id, generation->id) == 0) {
    pry_generation_unref(generation);
    return true;
  }
  struct pry_state *state = engine->options.loader->warm(generation, &engine->worker, &engine->options.limits, report);
  if (state && pry_credentials_adopt(engine->credentials, generation->config) && pry_jobs_adopt(engine->jobs, state)) {
    generation->loaded_at = pry_loop_unix_time(engine->worker.loop);
    swap_in(engine, generation, state);
    return true;
  }
  if (state)
    pry_report_add(report, PRY_FINDING_ERROR, "init.lua", "memory is short");
  if (state && engine->kept[0])
    pry_credentials_adopt(engine->credentials, engine->kept[0]->config); /* they may have been taken over already */
  pry_state_unref(state);
  pry_generation_unref(generation);
  pry_engine_refused(engine);
  return false;
}

bool pry_engine_load(struct pry_engine *engine, struct pry_policy_set *set, bool run_tests, struct pry_report *report)
{
  struct pry_generation *generation =
      pry_generation_stage(engine->options.loader, set, &engine->options.limits, run_tests, report);
  if (generation)
    return pry_engine_commit(engine, generation, report);
  pry_engine_refused(engine);
  return false;
}

/* ---- small services ------------------------------------------------------------------------------------------ */

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

static void show_credential(void *user, const struct pry_credential_status *status)
{
  if (status->expires_at > 0)
    pry_metrics_set(user, PRY_M_TOKEN_EXPIRY, status->name, NULL, status->expires_at);
}

bool pry_engine_metrics(struct pry_engine *engine, struct pry_buffer *text)
{
  struct pry_metrics *metrics = engine->metrics;
  pry_metrics_clear(metrics, PRY_M_BREAKER_STATE);
  pry_metrics_clear(metrics, PRY_M_BUDGET);
  pry_metrics_clear(metrics, PRY_M_TOKEN_EXPIRY);
  pry_store_each_breaker(engine->store, pry_loop_now(engine->worker.loop), show_breaker, metrics);
  pry_budget_each(engine->budgets, show_budget, metrics);
  pry_credentials_each(engine->credentials, engine->worker.loop, show_credential, metrics);
  pry_metrics_set(metrics, PRY_M_QUEUE_DEPTH, NULL, NULL, (double)pry_queue_waiting_total(engine->queues));
  pry_metrics_set(metrics, PRY_M_OPEN_CALLS, NULL, NULL, (double)engine->worker.call_count);
  return pry_metrics_render(metrics, text);
}
