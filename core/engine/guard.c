#include "guard.h"

#include "engine.h"

#include <stdio.h>

#define LOOK_PERIOD PRY_SECOND
#define WATCH_FOR (600 * PRY_SECOND)

enum { BAD_FAULTS = 20, BAD_PERCENT = 5 };

void pry_guard_init(struct pry_guard *guard, struct pry_engine *engine)
{
  guard->engine = engine;
  pthread_mutex_init(&guard->lock, NULL); /* cannot fail without attributes on Linux */
}

void pry_guard_fini(struct pry_guard *guard)
{
  pry_timer_cancel(&guard->timer);
  pthread_mutex_destroy(&guard->lock);
}

/* ---- the rule ------------------------------------------------------------------------------------------------- */

static struct pry_guard_sample count_now(const struct pry_generation *generation)
{
  struct pry_guard_sample sum = {0, 0};
  for (size_t i = 0; i < PRY_TALLIES; i++) {
    sum.runs += atomic_load_explicit(&generation->tallies[i].runs, memory_order_relaxed);
    sum.faults += atomic_load_explicit(&generation->tallies[i].faults, memory_order_relaxed);
  }
  return sum;
}

static bool is_bad(struct pry_guard_sample seen)
{
  return seen.faults >= BAD_FAULTS && seen.faults * 100 >= seen.runs * BAD_PERCENT;
}

static void undo(struct pry_guard *guard, struct pry_guard_sample seen)
{
  struct pry_report report;
  pry_report_init(&report);
  if (!pry_engine_roll_back_bad(guard->engine, seen, &report) && !guard->helpless) {
    guard->helpless = true;
    pry_log(guard->engine->log, PRY_LOG_ERROR, "policies fault and cannot be rolled back",
            pry_log_integer("faults", (long long)seen.faults), pry_log_integer("runs", (long long)seen.runs),
            pry_log_text("why", report.count ? report.findings[0].what : ""));
  }
  pry_report_fini(&report);
}

static void look(void *user)
{
  struct pry_guard *guard = user;
  const struct pry_generation *serving = pry_engine_generation(guard->engine);
  struct pry_loop *loop = guard->engine->control->loop;
  if (!serving || pry_loop_now(loop) >= guard->until)
    return;
  pry_timer_start(loop, &guard->timer, LOOK_PERIOD, look, guard);
  struct pry_guard_sample now = count_now(serving);
  struct pry_guard_sample before = guard->samples[guard->next]; /* the oldest: it is overwritten now */
  guard->samples[guard->next] = now;
  guard->next = (guard->next + 1) % (sizeof guard->samples / sizeof *guard->samples);
  struct pry_guard_sample seen = {now.runs - before.runs, now.faults - before.faults};
  if (is_bad(seen))
    undo(guard, seen);
}

void pry_guard_begin(struct pry_guard *guard, bool watched)
{
  struct pry_guard_sample now = count_now(pry_engine_generation(guard->engine));
  for (size_t i = 0; i < sizeof guard->samples / sizeof *guard->samples; i++)
    guard->samples[i] = now; /* one that comes back has counts of its first time */
  guard->helpless = false;
  pry_timer_cancel(&guard->timer);
  if (!watched)
    return;
  struct pry_loop *loop = guard->engine->control->loop;
  guard->until = pry_loop_now(loop) + WATCH_FOR;
  pry_timer_start(loop, &guard->timer, LOOK_PERIOD, look, guard);
}

/* ---- what failed ------------------------------------------------------------------------------------------------ */

static struct pry_tally *tally_of(const struct pry_worker *worker, struct pry_generation *generation)
{
  return &generation->tallies[worker->index % PRY_TALLIES];
}

void pry_guard_ran(const struct pry_worker *worker, struct pry_generation *generation)
{
  atomic_fetch_add_explicit(&tally_of(worker, generation)->runs, 1, memory_order_relaxed);
}

void pry_guard_tell(const struct pry_worker *worker, struct pry_generation *generation, const char *policy,
                    const char *handler, const char *text)
{
  struct pry_guard *guard = &worker->engine->guard;
  atomic_fetch_add_explicit(&tally_of(worker, generation)->faults, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&worker->engine->faults, 1, memory_order_relaxed);
  pthread_mutex_lock(&guard->lock);
  struct pry_fault *fault = &guard->faults[guard->fault_count++ % PRY_FAULTS_KEPT];
  fault->at = pry_loop_unix_time(worker->loop);
  snprintf(fault->policy, sizeof fault->policy, "%s", policy);
  snprintf(fault->handler, sizeof fault->handler, "%s", handler);
  snprintf(fault->generation, sizeof fault->generation, "%s", generation->id);
  snprintf(fault->text, sizeof fault->text, "%s", text);
  pthread_mutex_unlock(&guard->lock);
}

bool pry_guard_last_fault(struct pry_guard *guard, const char *generation, struct pry_fault *fault)
{
  struct pry_fault faults[PRY_FAULTS_KEPT];
  size_t count = pry_guard_faults(guard, faults, PRY_FAULTS_KEPT);
  for (size_t i = 0; i < count; i++)
    if (strcmp(faults[i].generation, generation) == 0) {
      *fault = faults[i];
      return true;
    }
  return false;
}

size_t pry_guard_faults(struct pry_guard *guard, struct pry_fault *faults, size_t most)
{
  pthread_mutex_lock(&guard->lock);
  size_t kept = guard->fault_count < PRY_FAULTS_KEPT ? guard->fault_count : PRY_FAULTS_KEPT;
  size_t count = kept < most ? kept : most;
  for (size_t i = 0; i < count; i++)
    faults[i] = guard->faults[(guard->fault_count - 1 - i) % PRY_FAULTS_KEPT];
  pthread_mutex_unlock(&guard->lock);
  return count;
}
