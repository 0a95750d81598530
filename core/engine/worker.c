#include "worker.h"

#include "call.h"
#include "decider.h"
#include "engine.h"
#include "plain_locale.h"
#include "thread.h"

#include <stdio.h>
#include <stdlib.h>

#define REBUILD_NO_SOONER (10 * PRY_SECOND)

/* ---- generations ------------------------------------------------------------------------------------------ */

/* Calls between events change over now, so that a long stream does not keep an old state alive. */
static void change_state(struct pry_worker *worker, struct pry_state *state)
{
  struct pry_state *before = worker->state;
  worker->state = state;
  if (before)
    pry_calls_follow(worker);
  pry_state_unref(before);
}

void pry_worker_adopt(struct pry_worker *worker)
{
  struct pry_engine *engine = worker->engine;
  /* Not freed meanwhile: the control worker waits until everybody has adopted a newer one. */
  struct pry_rollout *rollout = atomic_load_explicit(&engine->serving, memory_order_acquire);
  if (!rollout || rollout->sequence == atomic_load_explicit(&worker->adopted, memory_order_relaxed))
    return;
  struct pry_state *state = rollout->states[worker->index];
  rollout->states[worker->index] = NULL;
  uint64_t sequence = rollout->sequence;
  change_state(worker, state);
  atomic_store_explicit(&worker->adopted, sequence, memory_order_release);
  pry_mailbox_post(engine->control->mailbox, &worker->adopted_message);
}

static void told_to_adopt(struct pry_message *message)
{
  pry_worker_adopt(PRY_CONTAINER_OF(message, struct pry_worker, adopt_message));
}

/* ---- a fresh state for a bloated one ------------------------------------------------------------------------ */

void pry_worker_request_rebuild(struct pry_worker *worker)
{
  pry_time now = pry_worker_now(worker);
  if (worker->rebuilding || (worker->rebuilt_at && now < worker->rebuilt_at + REBUILD_NO_SOONER))
    return;
  worker->rebuilding = true;
  worker->rebuilt_at = now;
  pry_mailbox_post(worker->engine->control->mailbox, &worker->rebuild_message);
}

/* On the control worker. */
static void rebuild(struct pry_message *message)
{
  struct pry_worker *worker = PRY_CONTAINER_OF(message, struct pry_worker, rebuild_message);
  struct pry_engine *engine = worker->engine;
  struct pry_generation *generation = pry_engine_generation(engine);
  struct pry_report report;
  pry_report_init(&report);
  worker->rebuilt = engine->options.loader->warm(generation, worker, &engine->options.limits, &report);
  if (worker->rebuilt) {
    worker->rebuilt->counted = true;
    atomic_fetch_add(&generation->live_states, 1);
  } else {
    pry_log(engine->log, PRY_LOG_WARN, "no fresh script state, the bloated one goes on",
            pry_log_integer("worker", worker->index), pry_log_text("why", report.count ? report.findings[0].what : ""));
  }
  pry_report_fini(&report);
  pry_mailbox_post(worker->mailbox, &worker->rebuilt_message);
}

static void take_rebuilt(struct pry_message *message)
{
  struct pry_worker *worker = PRY_CONTAINER_OF(message, struct pry_worker, rebuilt_message);
  struct pry_state *fresh = worker->rebuilt;
  worker->rebuilt = NULL;
  worker->rebuilding = false;
  if (!fresh)
    return;
  if (!worker->state || fresh->generation != worker->state->generation) {
    pry_state_unref(fresh); /* a reload was faster */
    return;
  }
  size_t before = worker->state->ops->memory ? worker->state->ops->memory(worker->state) : 0;
  pry_log(worker->engine->log, PRY_LOG_INFO, "script state rebuilt", pry_log_integer("worker", worker->index),
          pry_log_integer("bytes_before", (long long)before));
  atomic_fetch_add(&worker->rebuilds, 1);
  change_state(worker, fresh);
}

/* ---- where it is ---------------------------------------------------------------------------------------------- */

void pry_worker_tell_where(struct pry_worker *worker, const char *where)
{
  struct pry_pulse *pulse = &worker->pulse;
  pthread_mutex_lock(&pulse->lock);
  snprintf(pulse->where, sizeof pulse->where, "%s", where);
  pthread_mutex_unlock(&pulse->lock);
  atomic_store_explicit(&pulse->where_wanted, false, memory_order_relaxed);
}

void pry_worker_where(struct pry_worker *worker, char where[PRY_WHERE_MAX])
{
  struct pry_pulse *pulse = &worker->pulse;
  pthread_mutex_lock(&pulse->lock);
  memcpy(where, pulse->where, PRY_WHERE_MAX);
  pthread_mutex_unlock(&pulse->lock);
}

static void feel_beat(struct pry_message *message)
{
  struct pry_pulse *pulse = PRY_CONTAINER_OF(message, struct pry_pulse, beat);
  atomic_store_explicit(&pulse->where_wanted, false, memory_order_relaxed);
  atomic_store(&pulse->beating, false);
}

/* ---- threads -------------------------------------------------------------------------------------------------- */

static void *run(void *user)
{
  const struct pry_worker *worker = user;
  pry_plain_locale_stay();
  pry_loop_run(worker->loop);
  return NULL;
}

static void told_to_stop(struct pry_message *message)
{
  pry_loop_stop(PRY_CONTAINER_OF(message, struct pry_worker, stop_message)->loop);
}

bool pry_worker_start(struct pry_worker *worker)
{
  worker->running = pry_thread_start(&worker->thread, run, worker);
  if (!worker->running)
    return false;
  char name[16];
  snprintf(name, sizeof name, "parry-%u", worker->index);
  pthread_setname_np(worker->thread, name); /* for people; nothing depends on it */
  return true;
}

void pry_worker_stop(struct pry_worker *worker)
{
  if (!worker->running)
    return;
  pry_mailbox_post(worker->mailbox, &worker->stop_message);
  pthread_join(worker->thread, NULL);
  worker->running = false;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static void acknowledged(struct pry_message *message)
{
  const struct pry_worker *worker = PRY_CONTAINER_OF(message, struct pry_worker, adopted_message);
  pry_engine_acknowledge(worker->engine);
}

static void set_messages(struct pry_worker *worker)
{
  worker->adopt_message.deliver = told_to_adopt;
  worker->adopted_message.deliver = acknowledged;
  worker->rebuild_message.deliver = rebuild;
  worker->rebuilt_message.deliver = take_rebuilt;
  worker->pulse.beat.deliver = feel_beat;
  worker->stop_message.deliver = told_to_stop;
}

bool pry_worker_init(struct pry_worker *worker, struct pry_engine *engine, unsigned index, struct pry_loop *loop,
                     struct pry_http *http)
{
  *worker = (struct pry_worker){.engine = engine, .index = index, .loop = loop, .http = http, .next_call = 1};
  pry_list_init(&worker->calls);
  pthread_mutex_init(&worker->pulse.lock, NULL); /* cannot fail without attributes on Linux */
  set_messages(worker);
  worker->owns_loop = !loop;
  if (worker->owns_loop) {
    worker->loop = pry_loop_new();
    worker->http = worker->loop ? pry_http_new(worker->loop, engine->options.http_options) : NULL;
    if (!worker->http)
      return false;
  }
  worker->mailbox = pry_mailbox_new(worker->loop);
  worker->events = pry_event_ring_new(0, &engine->events);
  return worker->mailbox && worker->events;
}

bool pry_worker_init_decider(struct pry_worker *worker, struct pry_engine *engine, unsigned index)
{
  const struct pry_worker *control = engine->workers[0];
  *worker = (struct pry_worker){
      .engine = engine, .index = index, .decides = true, .loop = control->loop, .http = control->http};
  pry_list_init(&worker->calls);
  pthread_mutex_init(&worker->pulse.lock, NULL);
  set_messages(worker);
  pry_decider_entry_init(worker);
  worker->events = pry_event_ring_new(0, &engine->events);
  return worker->mailbox && worker->events;
}

void pry_worker_clear(struct pry_worker *worker)
{
  pry_state_unref(worker->rebuilt);
  worker->rebuilt = NULL;
  pry_state_unref(worker->state);
  worker->state = NULL;
}

void pry_worker_fini(struct pry_worker *worker)
{
  pry_event_ring_free(worker->events);
  pry_mailbox_free(worker->mailbox);
  if (worker->owns_loop) {
    pry_http_free(worker->http);
    pry_loop_free(worker->loop);
  }
  if (worker->decides)
    pthread_mutex_destroy(&worker->entry.lock);
  pthread_mutex_destroy(&worker->pulse.lock);
}
