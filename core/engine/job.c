#include "job.h"

#include "engine.h"

#include <stdlib.h>

#define DRAIN_LIMIT (30 * PRY_SECOND)

struct job {
  struct pry_list link; /* among the retired */
  struct pry_jobs *jobs;
  struct pry_timer timer;
  struct pry_timer drain_timer; /* runs all the time: parked, or until a run on a retired generation is over */
  struct pry_ask ask;
  struct pry_state *state; /* referenced while running */
  const struct pry_job_config *config;
  char name[64];
  size_t index;
  pry_time period;
  bool running, draining;
  unsigned long runs, skipped, faults;
};

struct pry_jobs {
  struct pry_engine *engine;
  struct pry_job_plan *plan; /* adopted last; NULL: none */
  struct job **items;        /* its */
  size_t count;
  struct pry_list retired; /* no longer declared, but a run is under way */
};

struct pry_jobs *pry_jobs_new(struct pry_engine *engine)
{
  struct pry_jobs *jobs = calloc(1, sizeof *jobs);
  if (!jobs)
    return NULL;
  jobs->engine = engine;
  pry_list_init(&jobs->retired);
  return jobs;
}

static void free_job(struct job *job)
{
  pry_timer_cancel(&job->timer);
  pry_timer_cancel(&job->drain_timer);
  pry_list_remove(&job->link);
  if (job->running) {
    job->state->ops->cancel(job->state, &job->ask);
    pry_verdict_fini(&job->ask.verdict);
    pry_state_unref(job->state);
  }
  free(job);
}

void pry_jobs_free(struct pry_jobs *jobs)
{
  if (!jobs)
    return;
  for (size_t i = 0; i < jobs->count; i++)
    free_job(jobs->items[i]);
  while (!pry_list_empty(&jobs->retired))
    free_job(PRY_CONTAINER_OF(jobs->retired.next, struct job, link));
  free(jobs->plan);
  free(jobs);
}

static void drained_too_long(void *user);

/* Runs already, so that this cannot fail. */
static void arm_drain(struct job *job, pry_time delay)
{
  job->draining = delay != PRY_TIME_NEVER;
  pry_timer_start(job->jobs->engine->control->loop, &job->drain_timer, delay, drained_too_long, job);
}

static void job_ended(struct job *job, enum pry_ask_status status)
{
  arm_drain(job, PRY_TIME_NEVER);
  job->faults += status == PRY_ASK_FAULT;
  job->running = false;
  pry_verdict_fini(&job->ask.verdict);
  pry_state_unref(job->state);
  job->state = NULL;
  if (!pry_list_empty(&job->link))
    free_job(job);
}

static void drained_too_long(void *user)
{
  struct job *job = user;
  struct pry_engine *engine = job->jobs->engine;
  pry_timer_start(engine->control->loop, &job->drain_timer, PRY_TIME_NEVER, drained_too_long, job);
  job->draining = false;
  if (!job->running)
    return;
  pry_log(engine->log, PRY_LOG_WARN, "job cancelled: its policies were replaced 30 s ago",
          pry_log_text("policy", job->name), pry_log_integer("index", (long long)job->index));
  job->state->ops->cancel(job->state, &job->ask);
  job_ended(job, PRY_ASK_FAULT);
}

/* The generation its run is on has been replaced. */
static void begin_drain(struct job *job)
{
  if (job->running && !job->draining)
    arm_drain(job, DRAIN_LIMIT);
}

static void job_ready(struct pry_ask *ask, enum pry_ask_status status)
{
  job_ended(ask->user, status);
}

static void job_due(void *user)
{
  struct job *job = user;
  struct pry_worker *worker = job->jobs->engine->control;
  pry_timer_start(worker->loop, &job->timer, job->period, job_due, job);
  if (job->running) {
    job->skipped++;
    return;
  }
  job->running = true;
  job->runs++;
  job->state = worker->state;
  pry_state_ref(job->state);
  job->ask = (struct pry_ask){.handler = PRY_EVERY,
                              .instance = job->config->instance,
                              .job = job->config,
                              .ready = job_ready,
                              .user = job,
                              .state = job->state};
  pry_verdict_init(&job->ask.verdict);
  enum pry_ask_status status = job->state->ops->ask(job->state, &job->ask);
  if (status != PRY_ASK_PENDING)
    job_ended(job, status);
}

static struct job *make(struct pry_jobs *jobs, const struct pry_job_config *config)
{
  struct job *job = calloc(1, sizeof *job);
  if (job)
    pry_list_init(&job->link);
  struct pry_loop *loop = jobs->engine->control->loop;
  if (!job || !pry_timer_start(loop, &job->timer, config->period, job_due, job) ||
      !pry_timer_start(loop, &job->drain_timer, PRY_TIME_NEVER, drained_too_long, job)) {
    if (job)
      pry_timer_cancel(&job->timer);
    free(job);
    return NULL;
  }
  job->jobs = jobs;
  job->index = config->index;
  strncpy(job->name, config->instance->name, sizeof job->name - 1);
  return job;
}

static void retire(struct job *job)
{
  pry_timer_cancel(&job->timer);
  if (job->running)
    pry_list_push(&job->jobs->retired, &job->link);
  else
    free_job(job);
}

static bool in_list(struct job *const *items, size_t count, const struct job *job)
{
  for (size_t i = 0; i < count; i++)
    if (items[i] == job)
      return true;
  return false;
}

struct pry_job_plan {
  struct pry_jobs *jobs;
  const struct pry_config *config;
  struct job *items[]; /* those known already, and new ones */
};

/* The job that goes on as this one, among those that the first `planned` have not taken: two chains may have instances of
 * the same name, and the first of the old ones is the first of the new ones. */
static struct job *find(const struct pry_job_plan *plan, size_t planned, const struct pry_job_config *config)
{
  const struct pry_jobs *jobs = plan->jobs;
  for (size_t i = 0; i < jobs->count; i++)
    if (jobs->items[i]->index == config->index && strcmp(jobs->items[i]->name, config->instance->name) == 0 &&
        !in_list(plan->items, planned, jobs->items[i]))
      return jobs->items[i];
  return NULL;
}

void pry_jobs_forget(struct pry_job_plan *plan)
{
  if (!plan)
    return;
  for (size_t i = 0; i < plan->config->job_count; i++)
    if (plan->items[i] && !in_list(plan->jobs->items, plan->jobs->count, plan->items[i]))
      free_job(plan->items[i]);
  free(plan);
}

struct pry_job_plan *pry_jobs_prepare(struct pry_jobs *jobs, const struct pry_config *config)
{
  struct pry_job_plan *plan = calloc(1, sizeof *plan + config->job_count * sizeof *plan->items);
  if (!plan)
    return NULL;
  plan->jobs = jobs;
  plan->config = config;
  for (size_t i = 0; i < config->job_count; i++) {
    struct job *known = find(plan, i, &config->jobs[i]);
    plan->items[i] = known ? known : make(jobs, &config->jobs[i]);
    if (plan->items[i])
      continue;
    pry_jobs_forget(plan);
    return NULL;
  }
  return plan;
}

void pry_jobs_adopt(struct pry_job_plan *plan)
{
  struct pry_jobs *jobs = plan->jobs;
  size_t count = plan->config->job_count;
  for (size_t i = 0; i < count; i++) {
    plan->items[i]->config = &plan->config->jobs[i];
    plan->items[i]->period = plan->config->jobs[i].period;
  }
  for (size_t i = 0; i < jobs->count; i++) {
    begin_drain(jobs->items[i]);
    if (!in_list(plan->items, count, jobs->items[i]))
      retire(jobs->items[i]);
  }
  free(jobs->plan);
  jobs->plan = plan;
  jobs->items = plan->items;
  jobs->count = count;
}

void pry_jobs_each(struct pry_jobs *jobs, void (*visit)(void *user, const struct pry_job_status *), void *user)
{
  pry_time now = pry_loop_now(jobs->engine->control->loop);
  for (size_t i = 0; i < jobs->count; i++) {
    const struct job *job = jobs->items[i];
    struct pry_job_status status = {.instance = job->name,
                                    .index = job->index,
                                    .period = pry_time_to_seconds(job->period),
                                    .next_in = pry_time_to_seconds(job->timer.due - now),
                                    .running = job->running,
                                    .runs = job->runs,
                                    .skipped = job->skipped,
                                    .faults = job->faults};
    visit(user, &status);
  }
}

/* ---- events ---------------------------------------------------------------------------------------------- */

struct emission {
  struct pry_list link;
  struct pry_route everybody; /* a chain of all instances */
  struct pry_pass pass;
  struct pry_host_event event;
  struct pry_buffer name, fields;
  struct pry_engine *engine;
};

static void free_emission(struct emission *emission)
{
  atomic_fetch_sub(&emission->engine->emission_count, 1);
  pry_list_remove(&emission->link);
  pry_pass_stop(&emission->pass);
  pry_buffer_fini(&emission->name);
  pry_buffer_fini(&emission->fields);
  free(emission);
}

static void emission_step(struct pry_pass *pass, enum pry_pass_result result)
{
  while (result == PRY_PASS_VERDICT)
    result = pry_pass_next(pass);
  if (result == PRY_PASS_END)
    free_emission(pass->user);
}

void pry_engine_emit(struct pry_engine *engine, const char *name, struct pry_slice fields)
{
  struct pry_state *state = engine->control->state;
  struct emission *emission = state ? calloc(1, sizeof *emission) : NULL;
  if (!emission)
    return;
  emission->engine = engine;
  atomic_fetch_add(&engine->emission_count, 1);
  pry_list_init(&emission->link);
  pry_list_push(&engine->emissions, &emission->link);
  if (!pry_buffer_append_text(&emission->name, name) || !pry_buffer_append_slice(&emission->fields, fields) ||
      !pry_buffer_text(&emission->name)) {
    free_emission(emission);
    return;
  }
  const struct pry_config *config = state->generation->config;
  emission->everybody = (struct pry_route){.chain = config->instances, .chain_size = config->instance_count};
  emission->event = (struct pry_host_event){pry_buffer_text(&emission->name), pry_buffer_slice(&emission->fields)};
  emission->pass.step = emission_step;
  emission->pass.user = emission;
  emission->pass.ask.event = &emission->event;
  emission_step(&emission->pass, pry_pass_start(&emission->pass, state, &emission->everybody, PRY_ON_EVENT));
}

void pry_emissions_cancel(struct pry_engine *engine)
{
  while (!pry_list_empty(&engine->emissions))
    free_emission(PRY_CONTAINER_OF(engine->emissions.next, struct emission, link));
}
