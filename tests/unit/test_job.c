/* Jobs of `every`: once per engine, never over themselves, in phase across reloads. Events told to on_event. */
#include "call_rig.h"
#include "job.h"

static enum pry_ask_status count(struct rig *rig, struct pry_ask *ask)
{
  (void)ask;
  rig->counter++;
  return PRY_ASK_DONE;
}

static enum pry_ask_status wait_for_ever(struct rig *rig, struct pry_ask *ask)
{
  rig->counter++;
  rig->pending = ask;
  return PRY_ASK_PENDING;
}

static struct rig *rig_every(rig_policy_fn run, double seconds)
{
  struct rig *rig = rig_new();
  rig_use(rig, "ticker", PRY_HANDLER_BIT(PRY_EVERY) | PRY_HANDLER_BIT(PRY_ON_EVENT), run);
  rig->policies[0].every = pry_time_from_seconds(seconds);
  rig_commit(rig);
  return rig;
}

static void runs_once_per_period(void **unused)
{
  (void)unused;
  struct rig *rig = rig_every(count, 10);
  pry_loop_advance(rig->loop, 9 * PRY_SECOND);
  assert_int_equal(rig->counter, 0);
  pry_loop_advance(rig->loop, 92 * PRY_SECOND);
  assert_int_equal(rig->counter, 10);
  rig_free(rig);
}

static void a_reload_keeps_the_phase(void **unused)
{
  (void)unused;
  struct rig *rig = rig_every(count, 10);
  pry_loop_advance(rig->loop, 9 * PRY_SECOND);
  rig_commit(rig);
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(rig->counter, 1);
  rig->policies[0].every = 0; /* the new set has no such job */
  rig_commit(rig);
  pry_loop_advance(rig->loop, 100 * PRY_SECOND);
  assert_int_equal(rig->counter, 1);
  rig_free(rig);
}

/* The same policy in the chains of two routes, under the same name: a reload took the first one's job for both, lost the
 * second, and freed the first twice at the end. */
static void the_same_name_in_two_chains_is_two_jobs(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  for (size_t i = 0; i < 2; i++) {
    rig_use(rig, "ticker", PRY_HANDLER_BIT(PRY_EVERY), count);
    rig->policies[i].every = 10 * PRY_SECOND;
  }
  rig_commit(rig);
  pry_loop_advance(rig->loop, 9 * PRY_SECOND);
  rig_commit(rig);
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(rig->counter, 2); /* both, in phase */
  rig->policy_count = 1;
  rig_commit(rig);
  pry_loop_advance(rig->loop, 10 * PRY_SECOND);
  assert_int_equal(rig->counter, 3);
  rig_free(rig);
}

struct seen {
  struct pry_job_status status;
  unsigned count;
};

static void see(void *user, const struct pry_job_status *status)
{
  struct seen *seen = user;
  seen->status = *status;
  seen->count++;
}

static void never_over_itself(void **unused)
{
  (void)unused;
  struct rig *rig = rig_every(wait_for_ever, 10);
  pry_loop_advance(rig->loop, 35 * PRY_SECOND);
  assert_int_equal(rig->counter, 1);
  struct seen seen = {0};
  pry_jobs_each(rig->engine->jobs, see, &seen);
  assert_int_equal(seen.count, 1);
  assert_true(seen.status.running);
  assert_int_equal(seen.status.skipped, 2);
  struct pry_ask *ask = rig->pending;
  ask->ready(ask, PRY_ASK_DONE);
  pry_loop_advance(rig->loop, 10 * PRY_SECOND);
  assert_int_equal(rig->counter, 2);
  rig_free(rig); /* cancels the run under way */
}

static void a_run_may_outlive_its_job(void **unused)
{
  (void)unused;
  for (int finishes = 0; finishes < 2; finishes++) {
    struct rig *rig = rig_every(wait_for_ever, 10);
    pry_loop_advance(rig->loop, 11 * PRY_SECOND);
    struct pry_ask *ask = rig->pending;
    rig->policies[0].every = 0;
    rig_commit(rig);
    if (finishes)
      ask->ready(ask, PRY_ASK_DONE);
    rig_free(rig);
  }
}

/* A handler that sleeps for an hour would keep its generation's state as long. */
static void a_run_on_a_replaced_generation_ends_within_thirty_seconds(void **unused)
{
  (void)unused;
  for (int kept = 0; kept < 2; kept++) {
    struct rig *rig = rig_every(wait_for_ever, 1000);
    pry_loop_advance(rig->loop, 1001 * PRY_SECOND);
    assert_int_equal(rig->states, 1);
    if (!kept)
      rig->policies[0].every = 0;
    rig_commit(rig);
    pry_loop_advance(rig->loop, 20 * PRY_SECOND);
    rig_commit(rig); /* another reload does not prolong it */
    pry_loop_advance(rig->loop, 9 * PRY_SECOND);
    assert_int_equal(rig->cancelled_asks, 0);
    assert_int_equal(rig->states, 2);
    pry_loop_advance(rig->loop, 2 * PRY_SECOND);
    assert_int_equal(rig->cancelled_asks, 1);
    assert_int_equal(rig->states, 1);
    struct seen seen = {0};
    pry_jobs_each(rig->engine->jobs, see, &seen);
    assert_int_equal(seen.count, kept);
    assert_false(seen.status.running);
    assert_int_equal(seen.status.faults, kept);
    rig_free(rig);
  }
}

static enum pry_ask_status hear(struct rig *rig, struct pry_ask *ask)
{
  rig->counter++;
  assert_string_equal(ask->event->name, "disk_full");
  assert_true(pry_slice_equal(ask->event->fields, PRY_SLICE("{\"disk\":1}")));
  return PRY_ASK_DONE;
}

static void events_reach_every_instance(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig_use(rig, "one", PRY_HANDLER_BIT(PRY_ON_EVENT), hear);
  rig_use(rig, "deaf", PRY_HANDLER_BIT(PRY_ON_ERROR), hear);
  rig_use(rig, "two", PRY_HANDLER_BIT(PRY_ON_EVENT), hear);
  rig_commit(rig);
  pry_engine_emit(rig->engine, "disk_full", PRY_SLICE("{\"disk\":1}"));
  assert_int_equal(rig->counter, 2);
  assert_true(pry_list_empty(&rig->engine->emissions));
  rig_free(rig);
}

static void events_that_wait_are_cancelled_with_the_engine(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig_use(rig, "one", PRY_HANDLER_BIT(PRY_ON_EVENT), wait_for_ever);
  rig_commit(rig);
  pry_engine_emit(rig->engine, "disk_full", PRY_SLICE("{}"));
  assert_false(pry_list_empty(&rig->engine->emissions));
  pry_engine_free(rig->engine);
  rig->engine = NULL;
  assert_int_equal(rig->cancelled_asks, 1);
  rig_free(rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(runs_once_per_period),
      cmocka_unit_test(a_reload_keeps_the_phase),
      cmocka_unit_test(the_same_name_in_two_chains_is_two_jobs),
      cmocka_unit_test(never_over_itself),
      cmocka_unit_test(a_run_may_outlive_its_job),
      cmocka_unit_test(a_run_on_a_replaced_generation_ends_within_thirty_seconds),
      cmocka_unit_test(events_reach_every_instance),
      cmocka_unit_test(events_that_wait_are_cancelled_with_the_engine),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
