/*
 * job.h: the `every` lists of policies, and events told to on_event handlers.
 *
 * A job runs once per engine and never overlaps itself: a run that is due while the last one still waits is skipped.
 * Instances of the same name in two chains have a job each.
 * On reload a job that exists in both generations keeps its phase (its next run is not moved), a new one starts one
 * period after the commit, and a run under way finishes on its own generation, within 30 s: then it is cancelled as a fault
 * of its policy, because it would keep a retired generation's state alive (`sleep` may take an hour).
 *
 * Owner: the engine. Thread: the control worker's.
 */
#ifndef PRY_JOB_H
#define PRY_JOB_H

#include "policy.h"

struct pry_jobs;
struct pry_job_plan;
struct pry_engine;

struct pry_jobs *pry_jobs_new(struct pry_engine *engine);

/* Cancels runs under way. NULL is fine. */
void pry_jobs_free(struct pry_jobs *jobs);

/* Makes all that a generation's jobs need, so that adopting them cannot fail. Adopt or forget it before the loop turns;
 * `config` is borrowed until then, and after adopting until the next. NULL: memory. The old jobs go on in any case. */
struct pry_job_plan *pry_jobs_prepare(struct pry_jobs *jobs, const struct pry_config *config);
void pry_jobs_forget(struct pry_job_plan *plan); /* NULL is fine */

/* Takes over the jobs of a generation that the control worker adopts next; takes the plan. */
void pry_jobs_adopt(struct pry_job_plan *plan);

struct pry_job_status {
  const char *instance;
  size_t index;
  double period, next_in; /* seconds */
  bool running;
  unsigned long runs, skipped, faults;
};
void pry_jobs_each(struct pry_jobs *jobs, void (*visit)(void *user, const struct pry_job_status *), void *user);

/* Ends what pry_engine_emit() has under way. */
void pry_emissions_cancel(struct pry_engine *engine);

#endif
