/* Commits, rollbacks, and what is kept. Declared in engine.h and engine_internal.h. */
#include "engine_internal.h"

#include "decider.h"
#include "job.h"

#include <stdlib.h>
#include <string.h>

/* ---- staging ------------------------------------------------------------------------------------------------- */

struct pry_generation *pry_generation_stage(const struct pry_loader *loader, struct pry_policy_set *set,
                                            const struct pry_script_limits *limits, bool run_tests,
                                            const struct pry_generation *proven, struct pry_report *report)
{
  struct pry_generation *generation = loader->load(set, limits, report);
  if (!generation) {
    pry_policy_set_free(set);
    return NULL;
  }
  if (run_tests && !loader->test(generation, proven, limits, report)) {
    pry_generation_unref(generation);
    return NULL;
  }
  generation->tested = run_tests;
  return generation;
}

/* ---- what is kept -------------------------------------------------------------------------------------------- */

struct pry_generation *pry_engine_generation(const struct pry_engine *engine)
{
  return engine->kept[0].generation;
}

static void unscrub_secrets(struct pry_engine *engine, const struct pry_generation *generation, size_t count)
{
  for (size_t i = 0; i < count; i++) {
    struct pry_slice value = pry_slice_of(generation->config->secrets[i].value);
    if (value.size)
      pry_scrubber_remove(engine->scrubber, value);
  }
}

/* False: memory; none of them was added. */
static bool scrub_secrets(struct pry_engine *engine, const struct pry_generation *generation)
{
  for (size_t i = 0; i < generation->config->secret_count; i++) {
    struct pry_slice value = pry_slice_of(generation->config->secrets[i].value);
    if (value.size && !pry_scrubber_add(engine->scrubber, value)) {
      unscrub_secrets(engine, generation, i);
      return false;
    }
  }
  return true;
}

void pry_engine_forget(struct pry_engine *engine, struct pry_generation *generation)
{
  if (!generation)
    return;
  unscrub_secrets(engine, generation, generation->config->secret_count);
  pry_generation_unref(generation);
}

/* Its secrets are scrubbed already. Puts the generation first, where it stood before or in place of the oldest. */
static void keep(struct pry_engine *engine, struct pry_generation *generation)
{
  size_t place = 0;
  while (place < PRY_GENERATIONS_KEPT - 1 && engine->kept[place].generation &&
         strcmp(engine->kept[place].generation->id, generation->id) != 0)
    place++;
  struct pry_generation *replaced = engine->kept[place].generation;
  pry_generation_ref(generation);
  pthread_mutex_lock(&engine->looking);
  memmove(engine->kept + 1, engine->kept, place * sizeof *engine->kept);
  engine->kept[0] = (struct pry_kept){.generation = generation};
  pthread_mutex_unlock(&engine->looking);
  pry_engine_forget(engine, replaced);
}

void pry_engine_drop_unused(struct pry_engine *engine)
{
  for (size_t i = 0; i < PRY_GENERATIONS_LIVE_MAX; i++) {
    if (!engine->live[i] || atomic_load(&engine->live[i]->live_states))
      continue;
    pry_engine_forget(engine, engine->live[i]);
    engine->live[i] = NULL;
  }
}

/* NULL: all are in use. */
static struct pry_generation **live_place(struct pry_engine *engine)
{
  pry_engine_drop_unused(engine);
  for (size_t i = 0; i < PRY_GENERATIONS_LIVE_MAX; i++)
    if (!engine->live[i])
      return &engine->live[i];
  return NULL;
}

/* ---- adoption ------------------------------------------------------------------------------------------------ */

static uint64_t least_adopted(const struct pry_engine *engine)
{
  uint64_t least = UINT64_MAX;
  for (unsigned i = 0; i < pry_engine_worker_total(engine); i++) {
    uint64_t adopted = atomic_load_explicit(&engine->workers[i]->adopted, memory_order_acquire);
    least = adopted < least ? adopted : least;
  }
  return least;
}

static uint64_t serving_sequence(const struct pry_engine *engine)
{
  const struct pry_rollout *serving = atomic_load((_Atomic(struct pry_rollout *) *)(uintptr_t)&engine->serving);
  return serving ? serving->sequence : 0;
}

bool pry_engine_is_behind(const struct pry_engine *engine, const struct pry_worker *worker)
{
  return atomic_load_explicit(&worker->adopted, memory_order_acquire) != serving_sequence(engine);
}

bool pry_engine_adopted(const struct pry_engine *engine)
{
  return least_adopted(engine) == serving_sequence(engine);
}

void pry_engine_acknowledge(struct pry_engine *engine)
{
  uint64_t least = least_adopted(engine);
  while (!pry_list_empty(&engine->rollouts)) {
    struct pry_rollout *oldest = PRY_CONTAINER_OF(engine->rollouts.next, struct pry_rollout, link);
    if (oldest->sequence >= least)
      break;
    pry_rollout_free(oldest);
  }
  pry_engine_drop_unused(engine);
  if (engine->adopted)
    engine->adopted(engine->adopted_user);
}

/* From here on nothing can fail. */
static void publish(struct pry_engine *engine, struct pry_rollout *rollout, struct pry_generation **live)
{
  struct pry_generation *generation = rollout->generation;
  pry_generation_ref(generation);
  *live = generation;
  keep(engine, generation);
  rollout->sequence = serving_sequence(engine) + 1;
  pry_list_push(&engine->rollouts, &rollout->link);
  atomic_store_explicit(&engine->serving, rollout, memory_order_release);
  pry_worker_adopt(engine->control);
  for (unsigned i = 1; i < pry_engine_worker_total(engine); i++)
    pry_mailbox_post(engine->workers[i]->mailbox, &engine->workers[i]->adopt_message);
  for (unsigned i = engine->worker_count; i < pry_engine_worker_total(engine); i++)
    pry_decider_look(engine->workers[i]);
  pry_engine_acknowledge(engine);
  engine->committed_at = pry_loop_unix_time(engine->control->loop);
  pry_metrics_clear(engine->metrics, PRY_M_GENERATION);
  pry_metrics_set(engine->metrics, PRY_M_GENERATION, generation->id, NULL, 1);
  pry_metrics_set(engine->metrics, PRY_M_RELOAD_TIME, NULL, NULL, engine->committed_at);
}

/* ---- commit --------------------------------------------------------------------------------------------------- */

void pry_engine_refused(struct pry_engine *engine)
{
  engine->reloads_refused++;
  pry_metrics_set(engine->metrics, PRY_M_RELOAD_OK, NULL, NULL, 0);
}

/* Everything that can fail. The credentials come last: their tokens and waiters could not be had back. */
static bool take_over(struct pry_engine *engine, struct pry_rollout *rollout, struct pry_report *report)
{
  const struct pry_generation *generation = rollout->generation;
  struct pry_generation **live = live_place(engine);
  if (!live) {
    char where[PRY_WHERE_MAX] = "";
    for (unsigned i = 0; i < engine->worker_count; i++)
      if (pry_worker_is_stuck(engine->workers[i]))
        pry_worker_where(engine->workers[i], where);
    pry_report_add(report, PRY_FINDING_ERROR, where[0] ? where : "init.lua",
                   "%d generations are still in use by handlers that wait or are stuck; try again when they have ended",
                   PRY_GENERATIONS_LIVE_MAX);
    return false;
  }
  /* First: no line may show what it does not know. Once as one that is kept, and once as one that is in use. */
  bool scrubbed = scrub_secrets(engine, generation);
  bool twice = scrubbed && scrub_secrets(engine, generation);
  struct pry_job_plan *jobs = twice ? pry_jobs_prepare(engine->jobs, generation->config) : NULL;
  if (jobs && pry_credentials_adopt(engine->credentials, generation->config)) {
    pry_jobs_adopt(jobs);
    publish(engine, rollout, live);
    return true;
  }
  pry_report_add(report, PRY_FINDING_ERROR, "init.lua", "memory is short");
  pry_jobs_forget(jobs);
  for (int times = scrubbed + twice; times > 0; times--)
    unscrub_secrets(engine, generation, generation->config->secret_count);
  return false;
}

bool pry_engine_commit(struct pry_engine *engine, struct pry_rollout *rollout, struct pry_report *report)
{
  struct pry_generation *serving = pry_engine_generation(engine);
  pry_metrics_set(engine->metrics, PRY_M_RELOAD_OK, NULL, NULL, 1);
  if (serving && strcmp(serving->id, rollout->generation->id) == 0) {
    pry_rollout_free(rollout);
    return true;
  }
  rollout->generation->loaded_at = pry_loop_unix_time(engine->control->loop);
  if (take_over(engine, rollout, report)) {
    engine->reloads++;
    pry_guard_begin(&engine->guard, true);
    return true;
  }
  pry_rollout_free(rollout);
  pry_engine_refused(engine);
  return false;
}

bool pry_engine_load(struct pry_engine *engine, struct pry_policy_set *set, bool run_tests, struct pry_report *report)
{
  struct pry_generation *generation = pry_generation_stage(engine->options.loader, set, &engine->options.limits,
                                                           run_tests, pry_engine_generation(engine), report);
  struct pry_rollout *rollout = generation ? pry_rollout_new(engine, generation, report) : NULL;
  if (rollout)
    return pry_engine_commit(engine, rollout, report);
  pry_engine_refused(engine);
  return false;
}

/* ---- rollback -------------------------------------------------------------------------------------------------- */

static struct pry_generation *find_kept(const struct pry_engine *engine, const char *id, struct pry_report *report)
{
  struct pry_generation *found = NULL;
  for (size_t i = 1; i < PRY_GENERATIONS_KEPT && engine->kept[i].generation; i++) {
    const struct pry_kept *kept = &engine->kept[i];
    if (id ? strncmp(kept->generation->id, id, strlen(id)) != 0 : kept->bad)
      continue;
    if (!id)
      return kept->generation;
    if (found) {
      pry_report_add(report, PRY_FINDING_ERROR, id,
                     "more than one kept generation begins like this: give more of its id");
      return NULL;
    }
    found = kept->generation;
  }
  if (!found)
    pry_report_add(report, PRY_FINDING_ERROR, id ? id : "rollback",
                   id ? "no earlier generation in memory begins like this; see `parry status`"
                      : "no earlier generation in memory to go back to");
  return found;
}

static bool roll_back(struct pry_engine *engine, const char *id, struct pry_rollback *told, struct pry_report *report)
{
  struct pry_generation *bad = pry_engine_generation(engine);
  struct pry_generation *good = bad ? find_kept(engine, id, report) : NULL;
  if (!good)
    return false;
  pry_generation_ref(good);
  struct pry_rollout *rollout = pry_rollout_new(engine, good, report);
  if (!rollout)
    return false;
  if (!take_over(engine, rollout, report)) {
    pry_rollout_free(rollout);
    return false;
  }
  for (size_t i = 1; i < PRY_GENERATIONS_KEPT; i++)
    if (engine->kept[i].generation == bad)
      engine->kept[i].bad = true;
  engine->rollbacks++;
  pry_metrics_add(engine->metrics, PRY_M_ROLLBACKS, told->automatic ? "automatic" : "asked", NULL, 1);
  pry_guard_begin(&engine->guard, told->automatic);
  told->from = bad->id;
  told->to = good->id;
  if (engine->options.rolled_back)
    engine->options.rolled_back(engine->options.user, told);
  return true;
}

bool pry_engine_rollback(struct pry_engine *engine, const char *id, struct pry_report *report)
{
  struct pry_rollback told = {.fault = ""};
  if (!roll_back(engine, id, &told, report))
    return false;
  pry_log(engine->log, PRY_LOG_WARN, "policies rolled back: asked for", pry_log_text("from", told.from),
          pry_log_text("to", told.to));
  return true;
}

bool pry_engine_roll_back_bad(struct pry_engine *engine, struct pry_guard_sample seen, struct pry_report *report)
{
  struct pry_fault last = {.text = ""};
  const struct pry_generation *bad = pry_engine_generation(engine);
  if (bad)
    pry_guard_last_fault(&engine->guard, bad->id, &last);
  struct pry_rollback told = {.automatic = true, .runs = seen.runs, .faults = seen.faults, .fault = last.text};
  if (!roll_back(engine, NULL, &told, report))
    return false;
  pry_log(engine->log, PRY_LOG_ERROR, "policies rolled back: they fault", pry_log_text("from", told.from),
          pry_log_text("to", told.to), pry_log_integer("faults", (long long)seen.faults),
          pry_log_integer("runs", (long long)seen.runs), pry_log_text("fault", last.text));
  return true;
}
