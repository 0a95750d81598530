/* Driving an engine: with and without threads of its own, from one thread and from many; what a host leaves lying is
 * bounded, and each call ends exactly once. */
#include "parry_rig.h"

#include <signal.h>

enum { MANY = 100, LONG_BODY = 8 * 1024 * 1024, HELD_MAX = 1024 * 1024, SOCKETS = 4 * 1024 * 1024 };

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

/* ---- pausing ---------------------------------------------------------------------------------------------- */

static int pause_once(void *user, const void *data, size_t size)
{
  struct rig_host *host = user;
  bool first = !host->bytes;
  rig_on_data(user, data, size);
  return first ? PARRY_PAUSE : 0;
}

static size_t buffered(const struct rig_host *host)
{
  struct parry_status status = PARRY_STATUS_INIT;
  assert_int_equal(parry_status(host->engine, &status), PARRY_OK);
  return status.buffered;
}

/* Until the provider can send no more: nothing went out for 50 ms. */
static void run_until_still(struct rig_host *host, bool dispatch)
{
  size_t sent = 0;
  for (double since = rig_now(); rig_now() - since < 0.05;) {
    if (dispatch)
      assert_true(parry_run(host->engine, 0.01) >= 0);
    else
      usleep(1000);
    if (atomic_load(&host->provider.sent) != sent)
      since = rig_now();
    sent = atomic_load(&host->provider.sent);
  }
}

static void a_paused_call_holds_its_provider_back(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_call_ops ops = rig_ops;
  parry_call_id id;
  ops.on_data = pause_once;
  atomic_store(&host->provider.body_size, 4 * (size_t)LONG_BODY);
  assert_int_equal(rig_call_with(host, &ops, &id), PARRY_OK);
  RIG_RUN_UNTIL(host, host->bytes);
  size_t before = host->bytes;
  run_until_still(host, true);
  assert_int_equal(host->bytes, before);
  assert_in_range(buffered(host), 0, HELD_MAX);
  assert_in_range(atomic_load(&host->provider.sent), 1, before + HELD_MAX + 2 * SOCKETS);
  assert_int_equal(parry_call_resume(host->engine, id), PARRY_OK);
  rig_run_until_done(host);
  assert_int_equal(host->bytes, 4 * (size_t)LONG_BODY);
  assert_false(host->truncated);
  assert_int_equal(buffered(host), 0);
}

static void a_paused_call_can_be_cancelled(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_call_ops ops = rig_ops;
  parry_call_id id;
  ops.on_data = pause_once;
  atomic_store(&host->provider.body_size, 4 * (size_t)LONG_BODY);
  assert_int_equal(rig_call_with(host, &ops, &id), PARRY_OK);
  RIG_RUN_UNTIL(host, host->bytes);
  size_t before = host->bytes;
  run_until_still(host, true);
  assert_int_equal(parry_call_cancel(host->engine, id), PARRY_OK);
  assert_int_equal(buffered(host), 0);
  rig_run_until_done(host);
  assert_int_equal(host->bytes, before);
  assert_string_equal(host->category, "cancelled");
  assert_true(host->truncated);
}

static void a_paused_call_ends_with_the_engine(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_call_ops ops = rig_ops;
  ops.on_data = pause_once;
  atomic_store(&host->provider.body_size, LONG_BODY);
  assert_int_equal(rig_call_with(host, &ops, NULL), PARRY_OK);
  RIG_RUN_UNTIL(host, host->bytes);
  assert_int_equal(parry_free(host->engine), PARRY_OK);
  host->engine = NULL;
  assert_int_equal(host->dones, 1);
  assert_true(host->truncated);
}

struct canceller {
  struct rig_host *host;
  parry_call_id id;
  bool over;
};

static int cancel_from_inside(void *user, const void *data, size_t size)
{
  struct canceller *canceller = user;
  (void)data, (void)size;
  RIG_CHECK(!canceller->over);
  canceller->over = true;
  RIG_CHECK(parry_call_cancel(canceller->host->engine, canceller->id) == PARRY_OK);
  return 0;
}

static void count_done(void *user, const struct parry_outcome *outcome)
{
  rig_on_done(((struct canceller *)user)->host, outcome);
}

static void nothing_but_the_end_comes_after_cancel(void **state)
{
  struct rig_host *host = rig_started(state);
  struct canceller canceller = {.host = host};
  struct parry_call_ops ops = {.size = sizeof ops, .on_data = cancel_from_inside, .on_done = count_done};
  atomic_store(&host->provider.body_size, LONG_BODY);
  assert_int_equal(parry_call(host->engine, &rig_request, &ops, &canceller, &canceller.id), PARRY_OK);
  rig_run_until_done(host);
  assert_true(canceller.over);
  assert_int_equal(parry_run(host->engine, 0), 0);
}

struct consumer {
  struct rig_host *host;
  parry_call_id id;
};

static int resume_before_the_pause(void *user, const void *data, size_t size)
{
  struct consumer *consumer = user;
  rig_on_data(consumer->host, data, size);
  RIG_CHECK(parry_call_resume(consumer->host->engine, consumer->id) == PARRY_OK);
  return PARRY_PAUSE;
}

static void consumer_done(void *user, const struct parry_outcome *outcome)
{
  rig_on_done(((struct consumer *)user)->host, outcome);
}

/* A consumer on another thread may have taken the bytes, and resumed, before on_data has returned: that call stood still
 * for ever. */
static void a_resume_that_overtakes_its_pause_counts(void **state)
{
  struct rig_host *host = rig_started(state);
  struct consumer consumer = {.host = host};
  struct parry_call_ops ops = {.size = sizeof ops, .on_data = resume_before_the_pause, .on_done = consumer_done};
  atomic_store(&host->provider.body_size, LONG_BODY);
  assert_int_equal(parry_call(host->engine, &rig_request, &ops, &consumer, &consumer.id), PARRY_OK);
  rig_run_until_done(host);
  assert_int_equal(host->bytes, LONG_BODY);
}

/* ---- a host that never dispatches --------------------------------------------------------------------------- */

static void open_calls_are_bounded(void **state)
{
  struct rig_host *host = *state;
  struct parry_options options = rig_options(host);
  parry_call_id id;
  options.max_calls = 3;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
  for (unsigned i = 0; i < 3; i++)
    assert_int_equal(rig_call(host, &id), PARRY_OK);
  assert_int_equal(rig_call(host, NULL), PARRY_BUSY);
  assert_int_equal(parry_call_cancel(host->engine, id), PARRY_OK);
  assert_int_equal(rig_call(host, NULL), PARRY_BUSY); /* its end was not told yet */
  RIG_RUN_UNTIL(host, host->dones == 3);
  assert_int_equal(rig_call(host, NULL), PARRY_OK);
}

static void undelivered_answers_are_bounded(void **state)
{
  struct rig_host *host = *state;
  struct parry_options options = rig_options(host);
  enum { MOST = 1024 * 1024, CALLS = 16 };
  options.max_buffered = MOST;
  atomic_store(&host->provider.body_size, LONG_BODY);
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
  for (unsigned i = 0; i < CALLS; i++)
    assert_int_equal(rig_call(host, NULL), PARRY_OK);
  for (double began = rig_now(); buffered(host) <= MOST; usleep(1000))
    assert_true(rig_now() - began < 60);
  run_until_still(host, false);
  /* And what each call has held back before its first byte was given, and a piece. */
  assert_in_range(buffered(host), MOST, MOST + CALLS * (256 + 64) * 1024);
  assert_int_equal(rig_call(host, NULL), PARRY_BUSY);
  RIG_RUN_UNTIL(host, host->dones == CALLS);
  assert_int_equal(host->bytes, CALLS * (size_t)LONG_BODY);
  assert_int_equal(buffered(host), 0);
  assert_int_equal(rig_call(host, NULL), PARRY_OK);
}

/* ---- waiting ------------------------------------------------------------------------------------------------ */

static bool readable(int fd, int milliseconds)
{
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  return poll(&poller, 1, milliseconds) == 1;
}

static void the_descriptor_says_that_there_is_something(void **state)
{
  struct rig_host *host = rig_started(state);
  int fd = parry_fd(host->engine);
  assert_true(fd >= 0);
  while (readable(fd, 0))
    parry_dispatch(host->engine);
  for (unsigned i = 1; i <= MANY; i++) {
    assert_int_equal(rig_call(host, NULL), PARRY_OK);
    while (host->dones < i) {
      assert_true(readable(fd, 60000));
      assert_true(parry_dispatch(host->engine) >= 0);
    }
  }
  /* What was rung for may have been told in time for the one before, and who rings may be late. */
  for (unsigned i = 0; i < 2 && readable(fd, 100); i++)
    parry_dispatch(host->engine);
  assert_false(readable(fd, 0));
}

static int stay(void *user, const void *data, size_t size)
{
  rig_on_data(user, data, size);
  return PARRY_PAUSE;
}

/* What a callback resumes is left for the next time, and that has to be said. */
static void the_descriptor_says_what_was_left(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_call_ops ops = rig_ops;
  parry_call_id id;
  ops.on_data = stay;
  int fd = parry_fd(host->engine);
  assert_int_equal(rig_call_with(host, &ops, &id), PARRY_OK);
  while (!host->bytes) {
    assert_true(readable(fd, 60000));
    parry_dispatch(host->engine);
  }
  while (readable(fd, 50))
    parry_dispatch(host->engine);
  assert_int_equal(host->dones, 0);
  assert_int_equal(parry_call_resume(host->engine, id), PARRY_OK);
  assert_true(readable(fd, 60000));
  assert_int_equal(parry_dispatch(host->engine), 0);
  assert_int_equal(host->dones, 1);
}

static void *wake(void *user)
{
  parry_wakeup(user);
  return NULL;
}

static void a_waiting_run_can_be_woken(void **state)
{
  struct rig_host *host = rig_started(state);
  pthread_t thread;
  for (unsigned i = 0; i < 20; i++) {
    assert_int_equal(pthread_create(&thread, NULL, wake, host->engine), 0);
    assert_int_equal(parry_run(host->engine, -1), 0);
    pthread_join(thread, NULL);
  }
  parry_wakeup(host->engine); /* before it waits: it must not be lost */
  parry_dispatch(host->engine);
  assert_int_equal(parry_run(host->engine, -1), 0);
}

static void take_signal(int number)
{
  (void)number;
}

struct nudger {
  pthread_t waiting;
  atomic_bool over;
};

/* Until it has taken effect: one that comes before the wait begins ends nothing. */
static void *nudge(void *user)
{
  struct nudger *nudger = user;
  while (!atomic_load(&nudger->over)) {
    pthread_kill(nudger->waiting, SIGUSR1);
    usleep(2000);
  }
  return NULL;
}

static void a_signal_ends_a_waiting_run(void **state)
{
  struct rig_host *host = rig_started(state);
  struct sigaction action = {.sa_handler = take_signal, .sa_flags = SA_RESTART}, before;
  struct nudger nudger = {.waiting = pthread_self()};
  pthread_t thread;
  assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
  assert_int_equal(pthread_create(&thread, NULL, nudge, &nudger), 0);
  assert_int_equal(parry_run(host->engine, -1), 0);
  assert_int_equal(parry_run(host->engine, 600), 0);
  atomic_store(&nudger.over, true);
  pthread_join(thread, NULL);
  assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
}

static void a_run_waits_no_longer_than_it_may(void **state)
{
  struct rig_host *host = rig_started(state);
  atomic_store(&host->provider.silent, true);
  assert_int_equal(rig_call(host, NULL), PARRY_OK);
  double began = rig_now();
  assert_int_equal(parry_run(host->engine, 0.03), 1);
  assert_true(rig_now() - began >= 0.03);
  assert_int_equal(parry_run(host->engine, 0), 1);
}

/* ---- many threads -------------------------------------------------------------------------------------------- */

enum { CALLERS = 4, CALLS_EACH = 50 };

struct caller {
  struct rig_host *host;
  pthread_t thread;
  unsigned number, busy, dones, cancelled;
};

static void caller_done(void *user, const struct parry_outcome *outcome)
{
  struct caller *caller = user;
  caller->dones++;
  caller->cancelled += strcmp(outcome->category, "cancelled") == 0;
  RIG_CHECK(outcome->ok || strcmp(outcome->category, "cancelled") == 0);
}

static void *make_calls(void *user)
{
  struct caller *caller = user;
  struct parry_call_ops ops = {.size = sizeof ops, .on_done = caller_done};
  for (unsigned i = 0; i < CALLS_EACH;) {
    parry_call_id id;
    int error = parry_call(caller->host->engine, &rig_request, &ops, caller, &id);
    RIG_CHECK(error == PARRY_OK || error == PARRY_BUSY);
    if (error) {
      caller->busy++;
      usleep(1000);
      continue;
    }
    i++;
    if (i % 3 == caller->number % 3) {
      error = parry_call_cancel(caller->host->engine, id);
      RIG_CHECK(error == PARRY_OK || error == PARRY_ENOENT);
    }
    error = parry_call_resume(caller->host->engine, id);
    RIG_CHECK(error == PARRY_OK || error == PARRY_ENOENT);
  }
  return NULL;
}

static void any_thread_may_call(void **state)
{
  struct rig_host *host = *state;
  struct parry_options options = rig_options(host);
  struct caller callers[CALLERS] = {0};
  unsigned dones = 0;
  options.max_calls = 20;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
  for (unsigned i = 0; i < CALLERS; i++) {
    callers[i] = (struct caller){.host = host, .number = i};
    assert_int_equal(pthread_create(&callers[i].thread, NULL, make_calls, &callers[i]), 0);
  }
  for (double began = rig_now(); dones < CALLERS * CALLS_EACH;) {
    assert_true(rig_now() - began < 60);
    assert_true(parry_run(host->engine, 0.02) >= 0);
    dones = 0;
    for (unsigned i = 0; i < CALLERS; i++)
      dones += callers[i].dones; /* written by this thread */
  }
  for (unsigned i = 0; i < CALLERS; i++)
    pthread_join(callers[i].thread, NULL);
  assert_int_equal(parry_run(host->engine, 0), 0);
  assert_int_equal(dones, CALLERS * CALLS_EACH);
}

static void *drive_it(void *user)
{
  struct rig_host *host = user;
  unsigned made = 0;
  while (host->dones < MANY) {
    if (made < MANY && rig_call(host, NULL) == PARRY_OK)
      made++;
    RIG_CHECK(parry_run(host->engine, 0.01) >= 0);
  }
  return NULL;
}

static void engines_do_not_know_of_each_other(void **state)
{
  struct rig_host *host = rig_started(state), second = {0};
  struct parry_options options = rig_options(host);
  pthread_t thread;
  assert_int_equal(parry_new(&second.engine, &options), PARRY_OK);
  assert_int_equal(pthread_create(&thread, NULL, drive_it, &second), 0);
  drive_it(host);
  pthread_join(thread, NULL);
  assert_int_equal(parry_free(second.engine), PARRY_OK);
  assert_int_equal(host->heads + second.heads, 2 * MANY);
}

/* ---- for long ------------------------------------------------------------------------------------------------ */

static size_t resident_pages(void)
{
  size_t whole, resident;
  FILE *file = fopen("/proc/self/statm", "r");
  assert_non_null(file);
  assert_int_equal(fscanf(file, "%zu %zu", &whole, &resident), 2);
  fclose(file);
  return resident;
}

static void run_calls(struct rig_host *host, unsigned count)
{
  host->dones = 0;
  for (unsigned made = 0; host->dones < count;) {
    while (made < count && made < host->dones + 100) {
      assert_int_equal(rig_call(host, NULL), PARRY_OK);
      made++;
    }
    assert_true(parry_run(host->engine, 10) >= 0);
  }
}

/* PARRY_TEST_CALLS=100000 for a long look. */
static void calls_leave_nothing_behind(void **state)
{
  struct rig_host *host = *state;
  const char *wish = getenv("PARRY_TEST_CALLS");
  unsigned calls = wish ? (unsigned)atoi(wish) : 5000;
  rig_write_file(host, "answer.lua",
                 "return policy { name = 'answer',\n"
                 "  on_request = function() return respond { status = 200, body = '{}' } end }\n");
  rig_write_init(host, "use \"answer\"");
  rig_started(state);
  run_calls(host, 2000); /* what is kept for ever has come then: rings, samples, the allocator's own */
  size_t before = resident_pages();
  run_calls(host, calls);
  size_t after = resident_pages();
  size_t grown = after > before ? (after - before) * (size_t)sysconf(_SC_PAGESIZE) : 0;
  if (wish)
    print_message("%u calls: %zu bytes more\n", calls, grown);
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__) /* which keep what was freed */
  assert_in_range(grown, 0, 1024 * 1024);
#endif
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      RIG_TEST_ALL(a_call_gives_head_data_and_end),
      RIG_TEST_ALL(many_calls_end_once_each),
      RIG_TEST_ALL(an_outcome_says_all_of_it),
      RIG_TEST_ALL(a_cancelled_call_ends_once_and_says_nothing_else),
      RIG_TEST_ALL(a_call_is_cancelled_at_the_provider),
      RIG_TEST_ALL(free_ends_what_is_open),
      RIG_TEST_ALL(a_paused_call_holds_its_provider_back),
      RIG_TEST_ALL(a_resume_that_overtakes_its_pause_counts),
      RIG_TEST_ALL(a_paused_call_can_be_cancelled),
      RIG_TEST_ALL(a_paused_call_ends_with_the_engine),
      RIG_TEST_ALL(nothing_but_the_end_comes_after_cancel),
      RIG_TEST_ALL(open_calls_are_bounded),
      RIG_TEST_ONE_THREAD(undelivered_answers_are_bounded),
      RIG_TEST_THREADS(undelivered_answers_are_bounded),
      RIG_TEST_ONE_THREAD(the_descriptor_says_that_there_is_something),
      RIG_TEST_THREADS(the_descriptor_says_that_there_is_something),
      RIG_TEST_THREADS(the_descriptor_says_what_was_left),
      RIG_TEST_ALL(a_waiting_run_can_be_woken),
      RIG_TEST_ALL(a_signal_ends_a_waiting_run),
      RIG_TEST_ALL(a_run_waits_no_longer_than_it_may),
      RIG_TEST_ALL(any_thread_may_call),
      RIG_TEST_ALL(engines_do_not_know_of_each_other),
      RIG_TEST_ALL(calls_leave_nothing_behind),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
