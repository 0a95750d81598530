/* Hosts that do what they should not: each time an error, never a crash, and the engine goes on. */
#include "parry_rig.h"

#include <sys/wait.h>

enum { BODY_MAX = 16 * 1024 * 1024 /* as parry.h says */ };

static const struct parry_event a_failure = {.size = sizeof a_failure, .status = 503};

/* ---- arguments ---------------------------------------------------------------------------------------------- */

static void new_refuses_what_is_wrong(void **state)
{
  struct rig_host *host = *state;
  struct parry_options options = PARRY_OPTIONS_INIT;
  assert_int_equal(parry_new(NULL, &options), PARRY_EINVAL);
  assert_int_equal(parry_new(&host->engine, NULL), PARRY_EINVAL);
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EINVAL); /* no policy_dir */
  options = rig_options(host);
  options.init_lua = "-- and a folder";
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EINVAL);
  options = rig_options(host);
  options.size = 0;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EINVAL);
  options = rig_options(host);
  options.threads = 256;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EINVAL);
  assert_null(host->engine);
}

/* A host of a later version has more: what it does not use may be there. */
static void what_is_not_known_must_be_zero(void **state)
{
  struct rig_host *host = *state;
  struct {
    struct parry_options options;
    char later[8];
  } newer = {.options = rig_options(host)};
  newer.options.size = sizeof newer;
  newer.later[3] = 1;
  assert_int_equal(parry_new(&host->engine, &newer.options), PARRY_EINVAL);
  newer.later[3] = 0;
  assert_int_equal(parry_new(&host->engine, &newer.options), PARRY_OK);
}

static void take_nothing(void *user, parry_request_id request, const char *arguments, size_t size)
{
  (void)user, (void)request, (void)arguments, (void)size;
}

static void see_nothing(void *user, const struct parry_sample *sample)
{
  (void)user, (void)sample;
}

/* Every function, on something that is no engine. */
static void check_all(parry *engine, int error)
{
  struct parry_event event = a_failure;
  struct parry_decision decision = PARRY_DECISION_INIT;
  struct parry_status status = PARRY_STATUS_INIT;
  parry_call_id id = {1};
  char text[8] = "x";
  RIG_CHECK(parry_run(engine, 0) == error);
  RIG_CHECK(parry_fd(engine) == error);
  RIG_CHECK(parry_dispatch(engine) == error);
  RIG_CHECK(parry_reload(engine, 1) == error);
  RIG_CHECK(parry_findings(engine, text, sizeof text) == 0 && !*text);
  RIG_CHECK(parry_status(engine, &status) == error);
  RIG_CHECK(parry_call(engine, &rig_request, &rig_ops, NULL, &id) == error && id.value == 0);
  RIG_CHECK(parry_call_resume(engine, id) == error);
  RIG_CHECK(parry_call_cancel(engine, id) == error);
  RIG_CHECK(parry_decide(engine, &event, &decision, NULL, NULL) == error);
  RIG_CHECK(parry_report(engine, &event) == error);
  RIG_CHECK(parry_attempt_done(engine, id, 1, &event) == error);
  RIG_CHECK(parry_emit(engine, "it", NULL) == error);
  RIG_CHECK(parry_register(engine, "name", take_nothing, NULL, 0) == error);
  RIG_CHECK(parry_reply(engine, (parry_request_id){1}, NULL, NULL) == error);
  RIG_CHECK(parry_metrics(engine, see_nothing, NULL) == error);
  parry_wakeup(engine);
}

static void no_engine_is_no_engine(void **state)
{
  (void)state;
  check_all(NULL, PARRY_EFREED);
  assert_int_equal(parry_free(NULL), PARRY_OK);
}

static void a_freed_engine_is_known_as_such(void **state)
{
  struct rig_host *host = rig_started(state);
  parry *engine = host->engine;
  host->engine = NULL;
  assert_int_equal(parry_free(engine), PARRY_OK);
  check_all(engine, PARRY_EFREED);
  assert_int_equal(parry_free(engine), PARRY_EFREED);
  check_all(engine, PARRY_EFREED);
}

/* An old handle must not become another engine at once. */
static void the_next_engines_get_other_handles(void **state)
{
  struct rig_host *host = *state;
  struct parry_options options = PARRY_OPTIONS_INIT;
  options.init_lua = "provider 'p' { base_url = 'http://127.0.0.1:1', dialect = 'openai' }\n"
                     "route '/*' { to = 'p', chain = {} }\n";
  options.share_dir = host->folder;
  parry *first, *other = NULL;
  assert_int_equal(parry_new(&first, &options), PARRY_OK);
  assert_int_equal(parry_free(first), PARRY_OK);
  for (unsigned i = 0; i < 63; i++) {
    assert_int_equal(parry_new(&other, &options), PARRY_OK);
    assert_ptr_not_equal(other, first);
    assert_int_equal(parry_free(other), PARRY_OK);
    assert_int_equal(parry_dispatch(first), PARRY_EFREED);
  }
}

static void a_pointer_to_anything_is_no_engine(void **state)
{
  struct rig_host *host = rig_started(state);
  char something[64] = "no engine";
  check_all((parry *)(void *)something, PARRY_EFREED);
  check_all((parry *)8, PARRY_EFREED); /* which nobody may read */
  check_all((parry *)(void *)((char *)host->engine + 1), PARRY_EFREED);
  check_all((parry *)(void *)((char *)host->engine + 16), PARRY_EFREED);
  check_all((parry *)(void *)((char *)host->engine + 1024 * 1024), PARRY_EFREED);
  assert_int_equal(parry_free((parry *)(void *)something), PARRY_EFREED);
}

static void call_refuses_what_is_wrong(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_call_ops sizeless = rig_ops;
  struct parry_header nameless = {NULL, "value"};
  struct parry_request cases[7];
  for (size_t i = 0; i < 7; i++)
    cases[i] = rig_request;
  cases[0].size = 4;
  cases[1].path = NULL;
  cases[2].path = "v1/no/slash";
  cases[3].body = NULL;
  cases[4].header_count = 1;
  cases[5].headers = &nameless, cases[5].header_count = 1;
  cases[6].body_size = BODY_MAX + 1; /* refused before it is read */
  for (size_t i = 0; i < 7; i++)
    assert_int_equal(parry_call(host->engine, &cases[i], &rig_ops, host, NULL), PARRY_EINVAL);
  sizeless.size = 0;
  assert_int_equal(parry_call(host->engine, NULL, &rig_ops, host, NULL), PARRY_EINVAL);
  assert_int_equal(parry_call(host->engine, &rig_request, NULL, host, NULL), PARRY_EINVAL);
  assert_int_equal(parry_call(host->engine, &rig_request, &sizeless, host, NULL), PARRY_EINVAL);
  assert_int_equal(parry_run(host->engine, 0), 0);
  assert_int_equal(host->dones, 0);
}

static void decide_refuses_what_is_wrong(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_decision decision = PARRY_DECISION_INIT;
  struct parry_event cases[4];
  for (size_t i = 0; i < 4; i++)
    cases[i] = a_failure;
  cases[0].size = 1;
  cases[1].header_count = 1;
  cases[2].body_size = 1;
  cases[3].route = "/no/such/route";
  for (size_t i = 0; i < 4; i++)
    assert_int_equal(parry_decide(host->engine, &cases[i], &decision, NULL, NULL), PARRY_EINVAL);
  assert_int_equal(parry_decide(host->engine, NULL, &decision, NULL, NULL), PARRY_EINVAL);
  assert_int_equal(parry_decide(host->engine, &a_failure, NULL, NULL, NULL), PARRY_EINVAL);
}

static void without_policies_nothing_can_be_called(void **state)
{
  struct rig_host *host = *state;
  rig_write_file(host, "init.lua", "nonsense\n");
  assert_int_equal(rig_start(host), PARRY_EPOLICY);
  assert_non_null(host->engine);
  assert_int_equal(rig_call(host, NULL), PARRY_EPOLICY);
  struct parry_decision decision = PARRY_DECISION_INIT;
  assert_int_equal(parry_decide(host->engine, &a_failure, &decision, NULL, NULL), PARRY_EPOLICY);
  assert_int_equal(parry_report(host->engine, &a_failure), PARRY_EPOLICY);
  assert_int_equal(parry_reload(host->engine, 1), PARRY_EPOLICY);
  assert_int_equal(parry_emit(host->engine, "it", NULL), PARRY_EPOLICY); /* was PARRY_OK, and nobody ever heard of it */
  assert_int_equal(parry_run(host->engine, 0), 0);
  assert_int_equal(parry_dispatch(host->engine), 0);
}

static void without_threads_there_is_no_descriptor(void **state)
{
  struct rig_host *host = rig_started(state);
  assert_int_equal(parry_fd(host->engine), PARRY_EINVAL);
}

/* ---- ids ------------------------------------------------------------------------------------------------------ */

static void ids_of_the_past_name_no_call(void **state)
{
  struct rig_host *host = rig_started(state);
  parry_call_id first, second;
  atomic_store(&host->provider.silent, true);
  assert_int_equal(rig_call(host, &first), PARRY_OK);
  assert_true(first.value != 0);
  assert_int_equal(parry_call_resume(host->engine, first), PARRY_OK);
  assert_int_equal(parry_call_cancel(host->engine, first), PARRY_OK);
  assert_int_equal(host->dones, 0); /* it follows from parry_run() */
  rig_run_until_done(host);
  assert_int_equal(parry_call_cancel(host->engine, first), PARRY_ENOENT);
  assert_int_equal(parry_call_resume(host->engine, first), PARRY_ENOENT);
  assert_int_equal(rig_call(host, &second), PARRY_OK); /* in its place */
  assert_true(second.value != first.value);
  assert_int_equal(parry_call_cancel(host->engine, first), PARRY_ENOENT);
  assert_int_equal(parry_call_cancel(host->engine, (parry_call_id){0}), PARRY_ENOENT);
  assert_int_equal(parry_call_cancel(host->engine, (parry_call_id){UINT64_MAX}), PARRY_ENOENT);
  assert_int_equal(parry_call_cancel(host->engine, (parry_call_id){second.value & UINT32_MAX}), PARRY_ENOENT);
  assert_int_equal(parry_call_cancel(host->engine, second), PARRY_OK);
}

/* ---- from inside callbacks --------------------------------------------------------------------------------------- */

static void drive(struct rig_host *host)
{
  RIG_CHECK(parry_run(host->engine, 0) == PARRY_EREENTRANT);
  RIG_CHECK(parry_run(host->engine, -1) == PARRY_EREENTRANT);
  RIG_CHECK(parry_dispatch(host->engine) == PARRY_EREENTRANT);
  RIG_CHECK(parry_free(host->engine) == PARRY_EREENTRANT);
  host->told++;
}

static void drive_at_headers(void *user, int status, const struct parry_header *headers, size_t count)
{
  rig_on_headers(user, status, headers, count);
  drive(user);
}

static int drive_at_data(void *user, const void *data, size_t size)
{
  drive(user);
  return rig_on_data(user, data, size);
}

static void drive_at_done(void *user, const struct parry_outcome *outcome)
{
  rig_on_done(user, outcome);
  drive(user);
}

static void a_callback_may_not_drive_the_engine(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_call_ops ops = {
      .size = sizeof ops, .on_headers = drive_at_headers, .on_data = drive_at_data, .on_done = drive_at_done};
  assert_int_equal(rig_call_with(host, &ops, NULL), PARRY_OK);
  rig_run_until_done(host);
  assert_int_equal(host->told, 3);
  assert_int_equal(parry_run(host->engine, 0), 0);
}

static void use_everything(void *user, const struct parry_outcome *outcome)
{
  struct rig_host *host = user;
  struct parry_decision decision = PARRY_DECISION_INIT;
  struct parry_status status = PARRY_STATUS_INIT;
  char text[64];
  rig_on_done(user, outcome);
  if (host->dones > 1)
    return;
  RIG_CHECK(parry_decide(host->engine, &a_failure, &decision, NULL, NULL) == PARRY_OK);
  RIG_CHECK(parry_status(host->engine, &status) == PARRY_OK && status.open == 0);
  RIG_CHECK(parry_findings(host->engine, text, sizeof text) == 0);
  RIG_CHECK(parry_reload(host->engine, 0) == PARRY_OK);
  parry_wakeup(host->engine);
  RIG_CHECK(rig_call_done(host, use_everything, NULL) == PARRY_OK);
}

static void a_callback_may_do_all_else(void **state)
{
  struct rig_host *host = rig_started(state);
  assert_int_equal(rig_call_done(host, use_everything, NULL), PARRY_OK);
  RIG_RUN_UNTIL(host, host->dones == 2);
  assert_string_equal(host->category, "none");
}

static void call_again(void *user, const struct parry_outcome *outcome)
{
  struct rig_host *host = user;
  struct parry_decision decision = PARRY_DECISION_INIT;
  struct parry_status status = PARRY_STATUS_INIT;
  rig_on_done(user, outcome);
  host->told = rig_call(host, NULL);
  RIG_CHECK(parry_decide(host->engine, &a_failure, &decision, NULL, NULL) == PARRY_EREENTRANT);
  RIG_CHECK(parry_status(host->engine, &status) == PARRY_OK);
  RIG_CHECK(parry_reload(host->engine, 1) == PARRY_EREENTRANT);
  RIG_CHECK(parry_free(host->engine) == PARRY_EREENTRANT);
  RIG_CHECK(parry_run(host->engine, 0) == PARRY_EREENTRANT);
}

/* A host that answered every end of a call with a new call kept parry_free() busy for ever; and a decision that was
 * pending then was not cancelled any more. */
static void nothing_begins_inside_free(void **state)
{
  struct rig_host *host = rig_started(state);
  atomic_store(&host->provider.silent, true);
  assert_int_equal(rig_call_done(host, call_again, NULL), PARRY_OK);
  assert_int_equal(parry_free(host->engine), PARRY_OK);
  host->engine = NULL;
  assert_int_equal(host->dones, 1);
  assert_string_equal(host->category, "cancelled");
  assert_int_equal(host->told, PARRY_EREENTRANT);
}

/* ---- from several threads at once ---------------------------------------------------------------------------------- */

struct runner {
  parry *engine;
  atomic_bool runs;
};

static void *run_until_woken(void *user)
{
  struct runner *runner = user;
  atomic_store(&runner->runs, true);
  RIG_CHECK(parry_run(runner->engine, -1) == 0);
  return NULL;
}

static void one_thread_at_a_time_runs(void **state)
{
  struct rig_host *host = rig_started(state);
  struct runner runner = {.engine = host->engine};
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, run_until_woken, &runner), 0);
  while (!atomic_load(&runner.runs) || parry_dispatch(host->engine) != PARRY_EREENTRANT)
    usleep(100);
  assert_int_equal(parry_run(host->engine, 0), PARRY_EREENTRANT);
  assert_int_equal(parry_free(host->engine), PARRY_EREENTRANT);
  parry_wakeup(host->engine);
  pthread_join(thread, NULL);
  assert_int_equal(parry_run(host->engine, 0), 0);
}

/* ---- forks ------------------------------------------------------------------------------------------------------ */

/* In the child: what belongs to the parent is refused, and an engine of its own works. After a fork beside threads it is not
 * tried: they may have been inside malloc, curl or OpenSSL, whose locks nobody opens any more (fork(2)). It hung one run
 * in ten under the thread sanitizer. */
static int live_in_child(struct rig_host *host)
{
  parry *inherited = host->engine;
  check_all(inherited, PARRY_EFORKED);
  RIG_CHECK(parry_free(inherited) == PARRY_OK);
  check_all(inherited, PARRY_EFORKED);
  if (host->threads)
    return 0;
  host->heads = host->dones = 0;
  RIG_CHECK(rig_start(host) == PARRY_OK);
  RIG_CHECK(host->engine != inherited);
  RIG_CHECK(rig_call(host, NULL) == PARRY_OK);
  while (!host->dones)
    RIG_CHECK(parry_run(host->engine, 1) >= 0);
  RIG_CHECK(strcmp(host->category, "none") == 0);
  RIG_CHECK(parry_free(host->engine) == PARRY_OK);
  check_all(inherited, PARRY_EFORKED);
  return 0;
}

static void a_child_has_no_part_in_its_parents_engine(void **state)
{
  struct rig_host *host = rig_started(state);
  for (unsigned i = 0; i < 10; i++)
    assert_int_equal(rig_call(host, NULL), PARRY_OK);
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child)
    _exit(live_in_child(host));
  RIG_RUN_UNTIL(host, host->dones == 10);
  assert_string_equal(host->category, "none");
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  assert_int_equal(rig_call(host, NULL), PARRY_OK);
  RIG_RUN_UNTIL(host, host->dones == 11);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      RIG_TEST(new_refuses_what_is_wrong),
      RIG_TEST(what_is_not_known_must_be_zero),
      cmocka_unit_test(no_engine_is_no_engine),
      RIG_TEST_ALL(a_freed_engine_is_known_as_such),
      RIG_TEST(the_next_engines_get_other_handles),
      RIG_TEST(a_pointer_to_anything_is_no_engine),
      RIG_TEST(call_refuses_what_is_wrong),
      RIG_TEST(decide_refuses_what_is_wrong),
      RIG_TEST_ALL(without_policies_nothing_can_be_called),
      RIG_TEST(without_threads_there_is_no_descriptor),
      RIG_TEST_ALL(ids_of_the_past_name_no_call),
      RIG_TEST_ALL(a_callback_may_not_drive_the_engine),
      RIG_TEST(a_callback_may_do_all_else),
      RIG_TEST_ALL(nothing_begins_inside_free),
      RIG_TEST_ALL(one_thread_at_a_time_runs),
      RIG_TEST_ALL(a_child_has_no_part_in_its_parents_engine),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
