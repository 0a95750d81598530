/* Driving an engine: with and without threads of its own, from one thread and from many; what a host leaves lying is
 * bounded, and each call ends exactly once. */
#include "parry_rig.h"

#include <signal.h>

enum { MANY = 100, LONG_BODY = 8 * 1024 * 1024 };

/* ---- calls in each drive ------------------------------------------------------------------------------------ */

static void a_call_gives_head_data_and_end(void **state)
{
  struct rig_host *host = rig_started(state);
  assert_int_equal(rig_call(host, NULL), PARRY_OK);
  assert_int_equal(host->heads + host->dones, 0); /* nothing from inside parry_call() */
  rig_run_until_done(host);
  assert_int_equal(host->heads, 1);
  assert_int_equal(host->status, 200);
  assert_int_equal(host->bytes, strlen(RIG_GOOD));
  assert_string_equal(host->category, "none");
  assert_false(host->truncated);
  assert_int_equal(parry_run(host->engine, 0), 0);
}

static void many_calls_end_once_each(void **state)
{
  struct rig_host *host = rig_started(state);
  for (unsigned i = 0; i < MANY; i++)
    assert_int_equal(rig_call(host, NULL), PARRY_OK);
  RIG_RUN_UNTIL(host, host->dones == MANY);
  assert_int_equal(host->heads, MANY);
  assert_int_equal(host->bytes, MANY * strlen(RIG_GOOD));
  assert_int_equal(parry_run(host->engine, 0), 0);
}

static void tell_outcome(void *user, const struct parry_outcome *outcome)
{
  struct rig_host *host = user;
  host->told = !outcome->ok && outcome->status == 502 && outcome->retry_after < 0 && outcome->attempts >= 1 &&
               strcmp(outcome->target, "refuser/m") == 0 && strncmp(outcome->call_id, "c_", 2) == 0 &&
               strlen(outcome->generation) == 64 && strcmp(outcome->why, "network, not sent") == 0 &&
               strlen(outcome->message) > 0 && outcome->size == sizeof *outcome;
  rig_on_done(user, outcome);
}

static void an_outcome_says_all_of_it(void **state)
{
  struct rig_host *host = *state;
  rig_write_file(host, "once.lua",
                 "return policy { name = 'once', on_error = function(self, call, err)\n"
                 "  if call.target.attempts < 2 then\n"
                 "    return retry { after = 0.001, why = err.category .. (err.sent and ', sent' or ', not sent') }\n"
                 "  end end }\n");
  rig_write_init(host, "use \"once\"");
  rig_started(state);
  struct parry_request request = rig_request;
  struct parry_call_ops ops = rig_ops;
  request.path = "/refused/v1/chat/completions";
  ops.on_done = tell_outcome;
  assert_int_equal(parry_call(host->engine, &request, &ops, host, NULL), PARRY_OK);
  rig_run_until_done(host);
  assert_string_equal(host->category, "network");
  assert_true(host->told);
}

static void a_cancelled_call_ends_once_and_says_nothing_else(void **state)
{
  struct rig_host *host = rig_started(state);
  parry_call_id id;
  atomic_store(&host->provider.silent, true);
  assert_int_equal(rig_call(host, &id), PARRY_OK);
  assert_int_equal(parry_call_cancel(host->engine, id), PARRY_OK);
  assert_int_equal(parry_call_cancel(host->engine, id), PARRY_OK); /* as often as one likes */
  rig_run_until_done(host);
  assert_string_equal(host->category, "cancelled");
  assert_int_equal(host->heads, 0);
  assert_int_equal(parry_call_cancel(host->engine, id), PARRY_ENOENT);
  assert_int_equal(parry_run(host->engine, 0), 0);
  assert_int_equal(host->dones, 1);
}

static void a_call_is_cancelled_at_the_provider(void **state)
{
  struct rig_host *host = rig_started(state);
  parry_call_id id;
  atomic_store(&host->provider.silent, true);
  assert_int_equal(rig_call(host, &id), PARRY_OK);
  RIG_RUN_UNTIL(host, atomic_load(&host->provider.requests));
  assert_int_equal(parry_call_cancel(host->engine, id), PARRY_OK);
  rig_run_until_done(host);
  assert_string_equal(host->category, "cancelled");
}

static void free_ends_what_is_open(void **state)
{
  struct rig_host *host = rig_started(state);
  atomic_store(&host->provider.silent, true);
  for (unsigned i = 0; i < MANY; i++)
    assert_int_equal(rig_call(host, NULL), PARRY_OK);
  parry_run(host->engine, 0);
  assert_int_equal(parry_free(host->engine), PARRY_OK);
  host->engine = NULL;
  assert_int_equal(host->dones, MANY);
  assert_int_equal(host->heads, 0);
  assert_string_equal(host->category, "cancelled");
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      RIG_TEST_ALL(a_call_gives_head_data_and_end),      RIG_TEST_ALL(many_calls_end_once_each),
      RIG_TEST_ALL(an_outcome_says_all_of_it),           RIG_TEST_ALL(a_cancelled_call_ends_once_and_says_nothing_else),
      RIG_TEST_ALL(a_call_is_cancelled_at_the_provider), RIG_TEST_ALL(free_ends_what_is_open),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
