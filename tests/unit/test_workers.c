/* Several workers with threads of their own: who adopts what and when, who is asked, who is stuck. Time passes only where
 * the watchdog is what is tested; elsewhere the threads are waited for by what they do. */
#include "engine.h"
#include "job.h"
#include "round.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fake_loader.h"

enum { WORKERS = 4 };

struct rig {
  struct pry_loop *loop;
  struct pry_http *http;
  struct pry_log *log;
  struct pry_engine *engine;
  unsigned sets;
  pthread_mutex_t lock;
  struct pry_buffer lines;  /* under the lock: what was logged */
  struct pry_rollback last; /* of rollbacks */
  char from[PRY_GENERATION_ID_MAX], to[PRY_GENERATION_ID_MAX];
  unsigned rollbacks;
};

static void keep_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct rig *rig = user;
  (void)level;
  pthread_mutex_lock(&rig->lock);
  pry_buffer_append(&rig->lines, line, size);
  pry_buffer_append_text(&rig->lines, "\n");
  pthread_mutex_unlock(&rig->lock);
}

static bool logged(struct rig *rig, const char *words)
{
  pthread_mutex_lock(&rig->lock);
  bool found = rig->lines.size && memmem(rig->lines.data, rig->lines.size, words, strlen(words));
  pthread_mutex_unlock(&rig->lock);
  return found;
}

static double clock_of(void *user)
{
  return pry_loop_unix_time(user);
}

static void rolled_back(void *user, const struct pry_rollback *rollback)
{
  struct rig *rig = user;
  rig->last = *rollback;
  snprintf(rig->from, sizeof rig->from, "%s", rollback->from);
  snprintf(rig->to, sizeof rig->to, "%s", rollback->to);
  rig->rollbacks++;
}

static struct rig *rig_new(unsigned workers)
{
  struct rig *rig = calloc(1, sizeof *rig);
  assert_non_null(rig);
  pthread_mutex_init(&rig->lock, NULL);
  rig->loop = workers ? pry_loop_new() : pry_loop_new_virtual(1e9);
  rig->log = pry_log_new(keep_line, rig, PRY_LOG_INFO, clock_of, rig->loop);
  struct pry_engine_options options = {.loop = rig->loop,
                                       .log = rig->log,
                                       .workers = workers,
                                       .loader = &fake_loader,
                                       .rolled_back = rolled_back,
                                       .user = rig};
  rig->engine = pry_engine_new(&options);
  assert_non_null(rig->engine);
  assert_true(pry_engine_start(rig->engine));
  return rig;
}

static void rig_free(struct rig *rig)
{
  pry_engine_free(rig->engine);
  assert_int_equal(fake_states, 0);
  pry_log_free(rig->log);
  pry_loop_free(rig->loop);
  pry_buffer_fini(&rig->lines);
  pthread_mutex_destroy(&rig->lock);
  free(rig);
}

/* A new set. */
static bool commit(struct rig *rig, struct pry_report *report)
{
  char text[32];
  struct pry_policy_set *set = pry_policy_set_new();
  snprintf(text, sizeof text, "%u", ++rig->sets);
  assert_true(pry_policy_set_add(set, "init.lua", pry_slice_of(text)));
  assert_true(pry_policy_set_seal(set));
  return pry_engine_load(rig->engine, set, false, report);
}

static void commit_well(struct rig *rig)
{
  struct pry_report report;
  pry_report_init(&report);
  assert_true(commit(rig, &report));
  pry_report_fini(&report);
}

static void wait_adopted(struct rig *rig)
{
  while (!pry_engine_adopted(rig->engine) || !pry_list_empty(&rig->engine->rollouts)) {
    pry_loop_turn(rig->loop, 20 * PRY_MILLISECOND);
    if (pry_engine_adopted(rig->engine) && rig->engine->rollouts.next == rig->engine->rollouts.previous)
      return; /* only the serving one is left */
  }
}

/* ---- a worker that does not turn ------------------------------------------------------------------------------- */

struct stopper {
  struct pry_message message;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool inside, go_on;
};

static void stand_still(struct pry_message *message)
{
  struct stopper *stopper = PRY_CONTAINER_OF(message, struct stopper, message);
  pthread_mutex_lock(&stopper->lock);
  stopper->inside = true;
  pthread_cond_broadcast(&stopper->changed);
  while (!stopper->go_on)
    pthread_cond_wait(&stopper->changed, &stopper->lock);
  pthread_mutex_unlock(&stopper->lock);
}

static void stop_worker(struct stopper *stopper, struct pry_worker *worker)
{
  *stopper = (struct stopper){.message.deliver = stand_still};
  pthread_mutex_init(&stopper->lock, NULL);
  pthread_cond_init(&stopper->changed, NULL);
  pry_mailbox_post(worker->mailbox, &stopper->message);
  pthread_mutex_lock(&stopper->lock);
  while (!stopper->inside)
    pthread_cond_wait(&stopper->changed, &stopper->lock);
  pthread_mutex_unlock(&stopper->lock);
}

static void let_go(struct stopper *stopper)
{
  pthread_mutex_lock(&stopper->lock);
  stopper->go_on = true;
  pthread_cond_broadcast(&stopper->changed);
  pthread_mutex_unlock(&stopper->lock);
}

static void forget_stopper(struct stopper *stopper)
{
  pthread_cond_destroy(&stopper->changed);
  pthread_mutex_destroy(&stopper->lock);
}

/* ---- generations --------------------------------------------------------------------------------------------- */

static void every_worker_adopts_every_commit_and_nothing_is_left(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(WORKERS);
  for (unsigned i = 0; i < 300; i++) {
    struct pry_report report;
    pry_report_init(&report);
    while (!commit(rig, &report)) { /* faster than the threads: eight generations are in use */
      assert_non_null(strstr(report.findings[0].what, "still in use"));
      pry_report_fini(&report);
      pry_loop_turn(rig->loop, PRY_MILLISECOND);
    }
    pry_report_fini(&report);
  }
  wait_adopted(rig);
  assert_int_equal(fake_states, WORKERS + 1);
  for (unsigned i = 0; i < rig->engine->worker_count; i++)
    assert_false(pry_engine_is_behind(rig->engine, rig->engine->workers[i]));
  rig_free(rig);
}

static bool scrubs(const struct rig *rig, const char *secret)
{
  char text[64];
  snprintf(text, sizeof text, "key %s refused", secret);
  pry_scrubber_apply_text(rig->engine->scrubber, text);
  return !strstr(text, secret);
}

/* A handler that waits, or a stream that has no place in the newer sets, still meets the secrets of its own: they were
 * scrubbed only as long as the set was among the five that are kept. */
static void secrets_are_scrubbed_while_a_state_of_their_set_lives(void **unused)
{
  (void)unused;
  static const char *const secret = "sk-live-0123456789";
  struct rig *rig = rig_new(0);
  struct pry_report report;
  pry_report_init(&report);
  struct pry_policy_set *set = pry_policy_set_new();
  assert_true(pry_policy_set_add(set, "init.lua", PRY_SLICE("with a secret")) && pry_policy_set_seal(set));
  struct pry_generation *generation = fake_load(set, NULL, &report);
  struct pry_secret *secrets = pry_arena_take(&generation->config->arena, sizeof *secrets);
  *secrets = (struct pry_secret){.name = "KEY", .value = secret};
  generation->config->secrets = secrets;
  generation->config->secret_count = 1;
  struct pry_rollout *rollout = pry_rollout_new(rig->engine, generation, &report);
  assert_non_null(rollout);
  assert_true(pry_engine_commit(rig->engine, rollout, &report));
  struct pry_state *used = rig->engine->control->state;
  pry_state_ref(used);
  for (unsigned i = 0; i < PRY_GENERATIONS_KEPT + 1; i++) {
    assert_true(scrubs(rig, secret));
    commit_well(rig);
  }
  assert_true(scrubs(rig, secret));
  pry_state_unref(used);
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_false(scrubs(rig, secret));
  pry_report_fini(&report);
  rig_free(rig);
}

static unsigned count_behind(const struct pry_engine *engine)
{
  unsigned behind = 0;
  for (unsigned i = 0; i < engine->worker_count; i++)
    behind += pry_engine_is_behind(engine, engine->workers[i]);
  return behind;
}

static void nothing_is_retired_under_a_worker_that_is_stuck(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(WORKERS);
  struct stopper stopper;
  commit_well(rig);
  wait_adopted(rig);
  struct pry_worker *stuck = rig->engine->workers[2];
  struct pry_generation *first = pry_engine_generation(rig->engine);
  pry_generation_ref(first);
  stop_worker(&stopper, stuck);
  unsigned commits = 1;
  struct pry_report report;
  pry_report_init(&report);
  while (commit(rig, &report)) {
    commits++;
    while (count_behind(rig->engine) > 1)
      pry_loop_turn(rig->loop, 0);
    assert_true(pry_engine_is_behind(rig->engine, stuck));
    assert_false(pry_engine_adopted(rig->engine));
    assert_int_equal(first->live_states, 1); /* its own */
  }
  assert_int_equal(commits, PRY_GENERATIONS_LIVE_MAX);
  assert_non_null(strstr(report.findings[0].what, "8 generations are still in use"));
  pry_report_fini(&report);
  let_go(&stopper);
  wait_adopted(rig);
  assert_int_equal(first->live_states, 0);
  assert_int_equal(fake_states, WORKERS + 1);
  commit_well(rig);
  wait_adopted(rig);
  pry_generation_unref(first);
  rig_free(rig);
  forget_stopper(&stopper);
}

static void a_refused_set_reaches_nobody(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(WORKERS);
  commit_well(rig);
  wait_adopted(rig);
  struct pry_generation *serving = pry_engine_generation(rig->engine);
  struct pry_report report;
  pry_report_init(&report);
  struct pry_policy_set *set = pry_policy_set_new();
  assert_true(pry_policy_set_add(set, "init.lua", PRY_SLICE("cold")));
  assert_true(pry_policy_set_seal(set));
  assert_false(pry_engine_load(rig->engine, set, false, &report));
  assert_string_equal(report.findings[0].what, "cannot be warmed");
  pry_report_fini(&report);
  assert_ptr_equal(pry_engine_generation(rig->engine), serving);
  assert_true(pry_engine_adopted(rig->engine));
  assert_int_equal(fake_states, WORKERS + 1);
  rig_free(rig);
}

/* ---- going back ---------------------------------------------------------------------------------------------- */

static void going_back_skips_what_was_bad(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(0);
  char ids[4][PRY_GENERATION_ID_MAX];
  struct pry_report report;
  pry_report_init(&report);
  for (unsigned i = 0; i < 4; i++) {
    commit_well(rig);
    snprintf(ids[i], sizeof ids[i], "%s", pry_engine_generation(rig->engine)->id);
  }
  assert_true(pry_engine_rollback(rig->engine, NULL, &report));
  assert_string_equal(pry_engine_generation(rig->engine)->id, ids[2]);
  assert_string_equal(rig->from, ids[3]);
  assert_string_equal(rig->to, ids[2]);
  assert_false(rig->last.automatic);
  assert_true(pry_engine_rollback(rig->engine, NULL, &report)); /* not forward to the bad one */
  assert_string_equal(pry_engine_generation(rig->engine)->id, ids[1]);
  char begin[9];
  snprintf(begin, sizeof begin, "%.8s", ids[3]);
  assert_true(pry_engine_rollback(rig->engine, begin, &report)); /* but by name */
  assert_string_equal(pry_engine_generation(rig->engine)->id, ids[3]);
  assert_true(pry_engine_rollback(rig->engine, NULL, &report));
  assert_string_equal(pry_engine_generation(rig->engine)->id, ids[0]);
  assert_int_equal(report.count, 0);
  assert_false(pry_engine_rollback(rig->engine, NULL, &report));
  assert_non_null(strstr(report.findings[0].what, "no earlier generation"));
  assert_false(pry_engine_rollback(rig->engine, "ffffffff", &report));
  assert_string_equal(pry_engine_generation(rig->engine)->id, ids[0]);
  assert_int_equal(rig->engine->rollbacks, 4);
  pry_report_fini(&report);
  rig_free(rig);
}

static void count_runs(struct rig *rig, unsigned runs, unsigned faults)
{
  struct pry_generation *serving = pry_engine_generation(rig->engine);
  for (unsigned i = 0; i < runs; i++)
    pry_guard_ran(rig->engine->control, serving);
  for (unsigned i = 0; i < faults; i++)
    pry_guard_tell(rig->engine->control, serving, "retry", "on_error", "retry.lua:7: nil");
}

static void a_set_that_faults_is_undone_by_itself(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(0);
  commit_well(rig);
  struct pry_generation *good = pry_engine_generation(rig->engine);
  commit_well(rig);
  struct pry_generation *bad = pry_engine_generation(rig->engine);
  count_runs(rig, 1000, 19); /* too few */
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_ptr_equal(pry_engine_generation(rig->engine), bad);
  count_runs(rig, 1000, 30); /* too rare: 49 of 2000 */
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_ptr_equal(pry_engine_generation(rig->engine), bad);
  count_runs(rig, 0, 60);
  /* A call that still waits in the old set fails there, too: that is not what the new one is undone for. */
  pry_guard_tell(rig->engine->control, good, "other", "on_error", "other.lua:1: of the good set");
  pry_loop_advance(rig->loop, PRY_SECOND);
  assert_ptr_equal(pry_engine_generation(rig->engine), good);
  assert_true(rig->last.automatic);
  assert_int_equal(rig->last.faults, 109);
  assert_true(logged(rig, "policies rolled back: they fault"));
  assert_true(logged(rig, "retry.lua:7: nil"));
  assert_false(logged(rig, "of the good set"));
  count_runs(rig, 10, 100); /* nothing is left to go back to */
  pry_loop_advance(rig->loop, 20 * PRY_SECOND);
  assert_ptr_equal(pry_engine_generation(rig->engine), good);
  assert_true(logged(rig, "cannot be rolled back"));
  rig_free(rig);
}

static void faults_long_ago_or_long_after_a_commit_undo_nothing(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(0);
  commit_well(rig);
  commit_well(rig);
  struct pry_generation *serving = pry_engine_generation(rig->engine);
  for (unsigned i = 0; i < 20; i++) {
    count_runs(rig, 0, 15);
    pry_loop_advance(rig->loop, PRY_GUARD_SECONDS * PRY_SECOND);
  }
  assert_ptr_equal(pry_engine_generation(rig->engine), serving);
  pry_loop_advance(rig->loop, 600 * PRY_SECOND);
  count_runs(rig, 0, 1000);
  pry_loop_advance(rig->loop, 20 * PRY_SECOND);
  assert_ptr_equal(pry_engine_generation(rig->engine), serving);
  rig_free(rig);
}

/* ---- questions to all ------------------------------------------------------------------------------------------ */

struct asked {
  bool done;
  size_t there;
  char text[256];
};

static bool say_index(struct pry_worker *worker, const void *question, struct pry_buffer *text)
{
  return pry_buffer_append_format(text, "%s%u", (const char *)question, worker->index);
}

static void heard(void *user, const struct pry_round_answer *answers, size_t count)
{
  struct asked *asked = user;
  asked->done = true;
  for (size_t i = 0; i < count; i++) {
    asked->there += answers[i].there;
    strncat(asked->text, answers[i].text.data, answers[i].text.size);
  }
}

static const struct pry_round_ops say_ops = {say_index, heard};

static void everybody_is_asked_on_its_own_thread(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(WORKERS);
  struct asked asked = {.done = false};
  assert_non_null(pry_round_start(rig->engine, &say_ops, "w", 2, 100, 10 * PRY_SECOND, &asked));
  while (!asked.done)
    pry_loop_turn(rig->loop, 20 * PRY_MILLISECOND);
  assert_string_equal(asked.text, "w0w1w2w3w4");
  assert_int_equal(asked.there, WORKERS + 1);
  rig_free(rig);
}

static void who_does_not_answer_is_missing_and_may_answer_late(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(WORKERS);
  struct stopper stopper;
  stop_worker(&stopper, rig->engine->workers[3]);
  struct asked asked = {.done = false}, never = {.done = false};
  assert_non_null(pry_round_start(rig->engine, &say_ops, "w", 2, 100, 30 * PRY_MILLISECOND, &asked));
  struct pry_round *cancelled = pry_round_start(rig->engine, &say_ops, "w", 2, 100, 10 * PRY_SECOND, &never);
  while (!asked.done)
    pry_loop_turn(rig->loop, 20 * PRY_MILLISECOND);
  assert_string_equal(asked.text, "w0w1w2w4");
  assert_int_equal(asked.there, WORKERS);
  pry_round_cancel(cancelled);
  let_go(&stopper);
  while (!pry_list_empty(&rig->engine->rounds))
    pry_loop_turn(rig->loop, 20 * PRY_MILLISECOND);
  assert_false(never.done);
  rig_free(rig);
  forget_stopper(&stopper);
}

static void an_engine_ends_with_questions_on_their_way(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(WORKERS);
  struct asked asked = {.done = false};
  for (unsigned i = 0; i < 50; i++)
    assert_non_null(pry_round_start(rig->engine, &say_ops, "w", 2, 100, 10 * PRY_SECOND, &asked));
  rig_free(rig);
  assert_false(asked.done);
}

/* ---- the watchdog ------------------------------------------------------------------------------------------------ */

static void a_stuck_worker_is_named_and_forgiven(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(2);
  struct stopper stopper;
  stop_worker(&stopper, rig->engine->workers[2]);
  while (!pry_worker_where_wanted(rig->engine->workers[2]))
    pry_loop_turn(rig->loop, 20 * PRY_MILLISECOND);
  pry_worker_tell_where(rig->engine->workers[2], "retry.lua:12"); /* as its script would */
  while (!logged(rig, "worker is stuck"))
    pry_loop_turn(rig->loop, 20 * PRY_MILLISECOND);
  assert_true(logged(rig, "\"worker\":2"));
  assert_true(logged(rig, "retry.lua:12"));
  assert_true(pry_worker_is_stuck(rig->engine->workers[2]));
  assert_false(pry_worker_is_stuck(rig->engine->workers[1]));
  let_go(&stopper);
  while (!logged(rig, "worker goes on"))
    pry_loop_turn(rig->loop, 20 * PRY_MILLISECOND);
  assert_false(pry_worker_is_stuck(rig->engine->workers[2]));
  assert_false(logged(rig, "\"worker\":1,"));
  rig_free(rig);
  forget_stopper(&stopper);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_worker_adopts_every_commit_and_nothing_is_left),
      cmocka_unit_test(secrets_are_scrubbed_while_a_state_of_their_set_lives),
      cmocka_unit_test(nothing_is_retired_under_a_worker_that_is_stuck),
      cmocka_unit_test(a_refused_set_reaches_nobody),
      cmocka_unit_test(going_back_skips_what_was_bad),
      cmocka_unit_test(a_set_that_faults_is_undone_by_itself),
      cmocka_unit_test(faults_long_ago_or_long_after_a_commit_undo_nothing),
      cmocka_unit_test(everybody_is_asked_on_its_own_thread),
      cmocka_unit_test(who_does_not_answer_is_missing_and_may_answer_late),
      cmocka_unit_test(an_engine_ends_with_questions_on_their_way),
      cmocka_unit_test(a_stuck_worker_is_named_and_forgiven),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
