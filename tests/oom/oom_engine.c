/* The engine itself in virtual time, with each allocation failing: its start, a generation taken over, jobs and events. */
#include "../unit/call_rig.h"
#include "fail.h"

/* The engine itself, and a generation taken over while things fail. */
static void use_engine(void)
{
  fail_quiet();
  struct rig *rig = rig_new();
  rig_free_engine(rig);
  fail_loud();
  struct pry_engine_options options = {.loop = rig->loop, .http = rig->http, .loader = &rig_loader, .seed = 1};
  rig->engine = pry_engine_new(&options);
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  if (rig->engine) {
    pry_engine_emit(rig->engine, "hello", PRY_SLICE("{\"a\":1}"));
    pry_engine_metrics(rig->engine, &text);
    fail_over();
    rig_commit(rig);
    pry_engine_emit(rig->engine, "hello", PRY_SLICE("{\"a\":1}"));
    pry_loop_advance(rig->loop, PRY_SECOND);
  }
  pry_buffer_fini(&text);
  rig_free(rig);
}

static enum pry_ask_status count_job(struct rig *rig, struct pry_ask *asked)
{
  rig->counter += asked->handler == PRY_EVERY;
  return PRY_ASK_DONE;
}

static void jobs(struct rig *rig)
{
  rig_use(rig, "job", PRY_HANDLER_BIT(PRY_EVERY) | PRY_HANDLER_BIT(PRY_ON_EVENT), count_job);
  rig->policies[0].every = 10 * PRY_SECOND;
}

/* Jobs and a host's events; a job that could not run once runs the next time. */
static void use_jobs(void)
{
  fail_quiet();
  struct rig *rig = rig_new();
  jobs(rig);
  rig_commit(rig);
  fail_loud();
  for (int i = 0; i < 3; i++) {
    pry_engine_emit(rig->engine, "hello", PRY_SLICE("{\"a\":1}"));
    pry_loop_advance(rig->loop, 15 * PRY_SECOND);
  }
  fail_over();
  rig->counter = 0;
  pry_loop_advance(rig->loop, 100 * PRY_SECOND);
  FAIL_CHECK(rig->counter >= 9);
  rig_end(NULL, rig);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"engine", use_engine, FAIL_BOTH, 0},
      {"jobs and events", use_jobs, FAIL_MEMORY, 0},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
