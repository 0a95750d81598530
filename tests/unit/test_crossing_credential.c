/* Where workers meet: tokens asked for on four real loops at once, renewed on the first. */
#include "credential.h"
#include "registry.h"

#include "worker_rig.h"

/* ---- credentials: worker 0 is the control worker ----------------------------------------------------------- */

enum { CALLERS = 25 };

struct fake_state {
  struct pry_state state;
  struct pry_loop *loop;
  struct pry_timer timer;
  struct pry_ask *pending;
  unsigned jobs; /* the control worker's */
  bool fails;
  struct pry_message finish;
  atomic_bool pending_now;
};

struct caller {
  struct pry_token_waiter waiter;
  struct pry_message begin;
  struct pry_timer timer;
  struct party *party;
  struct rig_worker *worker;
  uint64_t version;
  unsigned heard, ready, failed, left;
  char why[PRY_CREDENTIAL_ERROR_MAX];
};

struct party {
  struct rig_worker workers[RIG_WORKERS];
  struct pry_log *log;
  struct pry_metrics *metrics;
  struct pry_scrubber *scrubber;
  struct pry_credentials *credentials;
  struct pry_secret secret, other_secret, access;
  struct pry_credential_config declared;
  struct pry_config config;
  struct pry_generation generation;
  struct fake_state fake;
  struct caller callers[RIG_WORKERS][CALLERS];
  uint64_t bad_version;
  atomic_uint answers;
};

static void answer(struct pry_ask *ask, struct fake_state *fake)
{
  if (fake->fails)
    snprintf(ask->renewal->error, sizeof ask->renewal->error, "job %u went wrong", fake->jobs);
  else
    pry_buffer_append_format(&ask->renewal->token, "token-number-%u", fake->jobs);
  ask->renewal->expires_in = 3600;
}

static void finish_job(struct pry_message *message)
{
  struct fake_state *fake = PRY_CONTAINER_OF(message, struct fake_state, finish);
  struct pry_ask *ask = fake->pending;
  if (!ask)
    return;
  fake->pending = NULL;
  atomic_store(&fake->pending_now, false);
  answer(ask, fake);
  ask->ready(ask, PRY_ASK_DONE);
}

static enum pry_ask_status fake_ask(struct pry_state *state, struct pry_ask *ask)
{
  struct fake_state *fake = PRY_CONTAINER_OF(state, struct fake_state, state);
  RIG_CHECK(!fake->pending);
  fake->jobs++;
  fake->pending = ask;
  atomic_store(&fake->pending_now, true);
  return PRY_ASK_PENDING;
}

static void fake_cancel(struct pry_state *state, struct pry_ask *ask)
{
  struct fake_state *fake = PRY_CONTAINER_OF(state, struct fake_state, state);
  RIG_CHECK(fake->pending == ask);
  fake->pending = NULL;
  atomic_store(&fake->pending_now, false);
}

static const struct pry_state_ops fake_ops = {.ask = fake_ask, .cancel = fake_cancel};

static struct pry_state *current_state(void *user)
{
  struct party *party = user;
  pry_state_ref(&party->fake.state);
  return &party->fake.state;
}

static void no_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  (void)user, (void)level, (void)line, (void)size;
}

static void begin_caller(struct pry_message *message);

static struct party *new_party(void)
{
  struct party *party = calloc(1, sizeof *party);
  rig_make(party->workers, RIG_WORKERS);
  party->log = pry_log_new(no_line, NULL, PRY_LOG_DEBUG, NULL, NULL);
  party->metrics = pry_metrics_new();
  party->scrubber = pry_scrubber_new();
  pry_log_set_scrubber(party->log, party->scrubber);
  party->secret = (struct pry_secret){.name = "REFRESH", .value = "configured-refresh"};
  party->other_secret = (struct pry_secret){.name = "REFRESH", .value = "another-refresh"};
  party->access = (struct pry_secret){.name = "ACCESS", .value = "configured-access"};
  party->declared = (struct pry_credential_config){.name = "kimi", .refresh_token = &party->secret, .grant = "kimi"};
  party->config.credentials = &party->declared;
  party->config.credential_count = 1;
  party->generation.config = &party->config;
  party->fake.state = (struct pry_state){.ops = &fake_ops, .generation = &party->generation, .references = 1};
  party->fake.loop = party->workers[0].loop;
  party->fake.finish.deliver = finish_job;
  struct pry_credentials_environment environment = {.loop = party->workers[0].loop,
                                                    .mailbox = party->workers[0].mailbox,
                                                    .log = party->log,
                                                    .metrics = party->metrics,
                                                    .scrubber = party->scrubber,
                                                    .current_state = current_state,
                                                    .user = party};
  party->credentials = pry_credentials_new(&environment);
  assert_true(pry_credentials_adopt(party->credentials, &party->config));
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    for (unsigned j = 0; j < CALLERS; j++)
      party->callers[i][j] =
          (struct caller){.begin.deliver = begin_caller, .party = party, .worker = &party->workers[i]};
  rig_go(party->workers, RIG_WORKERS);
  return party;
}

static void end_party(struct party *party)
{
  rig_end(party->workers, RIG_WORKERS);
  pry_credentials_free(party->credentials);
  assert_int_equal(party->fake.state.references, 1);
  pry_log_free(party->log);
  pry_metrics_free(party->metrics);
  pry_scrubber_free(party->scrubber);
  rig_free(party->workers, RIG_WORKERS);
  free(party);
}

/* The token that is given is the one of its version: job n makes "token-number-n" and version n. */
static void take_token(struct caller *caller)
{
  struct pry_buffer token;
  pry_buffer_init(&token, 0);
  const char *why;
  char expected[32];
  RIG_CHECK(pry_credential_token(caller->party->credentials, caller->worker->mailbox, "kimi", &token, &caller->version,
                                 &caller->waiter, NULL, NULL, &why) == PRY_TOKEN_READY);
  snprintf(expected, sizeof expected, "token-number-%u", (unsigned)caller->version);
  RIG_CHECK(strcmp(pry_buffer_text(&token), expected) == 0);
  pry_buffer_fini(&token);
}

static void told(struct pry_token_waiter *waiter, bool renewed, const char *why, void *user)
{
  struct caller *caller = user;
  RIG_CHECK(waiter == &caller->waiter);
  caller->heard++;
  snprintf(caller->why, sizeof caller->why, "%s", why);
  if (renewed)
    take_token(caller);
  atomic_fetch_add(&caller->party->answers, 1);
}

static void begin_caller(struct pry_message *message)
{
  struct caller *caller = PRY_CONTAINER_OF(message, struct caller, begin);
  struct party *party = caller->party;
  const char *why;
  enum pry_token_status status = pry_credential_renew(party->credentials, caller->worker->mailbox, "kimi",
                                                      party->bad_version, &caller->waiter, told, caller, &why);
  RIG_CHECK(status != PRY_TOKEN_FAILED);
  if (status == PRY_TOKEN_WAITING)
    return;
  caller->ready++;
  take_token(caller);
  atomic_fetch_add(&party->answers, 1);
}

static void post_finish(struct party *party)
{
  rig_await(&party->fake.pending_now);
  pry_mailbox_post(party->workers[0].mailbox, &party->fake.finish);
}

static void await_answers(struct party *party, unsigned count)
{
  while (atomic_load(&party->answers) != count)
    sched_yield();
}

static void ask_all(struct party *party)
{
  atomic_store(&party->answers, 0);
  for (unsigned j = 0; j < CALLERS; j++)
    for (unsigned i = 0; i < RIG_WORKERS; i++)
      pry_mailbox_post(party->workers[i].mailbox, &party->callers[i][j].begin);
}

/* Round by round 100 callers on four workers find the token bad; each time one job runs, and those who come after it
 * have its token at once. */
static void test_one_renewal_for_all(void **state)
{
  (void)state;
  enum { ROUNDS = 50 };
  struct party *party = new_party();
  for (unsigned round = 0; round < ROUNDS; round++) {
    party->bad_version = round;
    ask_all(party);
    post_finish(party);
    await_answers(party, RIG_WORKERS * CALLERS);
  }
  unsigned heard = 0, ready = 0;
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    for (unsigned j = 0; j < CALLERS; j++) {
      heard += party->callers[i][j].heard;
      ready += party->callers[i][j].ready;
      assert_int_equal(party->callers[i][j].version, ROUNDS);
    }
  assert_int_equal(heard + ready, ROUNDS * RIG_WORKERS * CALLERS);
  assert_true(heard > 0);
  assert_int_equal(party->fake.jobs, ROUNDS);
  end_party(party);
}

static void leave_some(struct rig_worker *worker, void *user)
{
  struct party *party = user;
  for (unsigned j = 0; j < CALLERS; j += 2) {
    struct caller *caller = &party->callers[worker->index][j];
    RIG_CHECK(caller->waiter.credentials); /* the job has not ended: all wait */
    pry_token_leave(&caller->waiter);
    memset(&caller->waiter, 0xEE, sizeof caller->waiter); /* its call is no more */
  }
}

static void nothing(struct rig_worker *worker, void *user)
{
  (void)worker, (void)user;
}

/* The callers that began it die, and it fails: the others hear why, each in its own copy. */
static void test_a_failed_renewal_is_heard_by_those_who_still_wait(void **state)
{
  (void)state;
  struct party *party = new_party();
  party->fake.fails = true;
  ask_all(party);
  rig_await(&party->fake.pending_now);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_do(&party->workers[i], nothing, NULL); /* all have asked by now */
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_do(&party->workers[i], leave_some, party);
  post_finish(party);
  await_answers(party, RIG_WORKERS * (CALLERS / 2));
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    for (unsigned j = 0; j < CALLERS; j++) {
      assert_int_equal(party->callers[i][j].heard, j % 2);
      assert_string_equal(party->callers[i][j].why, j % 2 ? "job 1 went wrong" : "");
    }
  assert_int_equal(party->fake.jobs, 1);
  end_party(party);
}

/* ---- the same with reloads that change the secrets, and clients that leave at any time --------------------- */

struct rush {
  struct party *party;
  struct rig_worker *worker;
  unsigned left, open;
  atomic_bool over;
};

struct runner {
  struct pry_token_waiter waiter;
  struct pry_timer timer;
  struct rush *rush;
};

static void run_again(struct runner *runner);

static void runner_done(struct runner *runner)
{
  struct rush *rush = runner->rush;
  pry_timer_cancel(&runner->timer);
  rush->open--;
  if (rush->left)
    run_again(runner);
  else if (!rush->open)
    atomic_store(&rush->over, true);
}

static void runner_told(struct pry_token_waiter *waiter, bool renewed, const char *why, void *user)
{
  (void)waiter;
  RIG_CHECK(renewed == !why[0]);
  runner_done(user);
}

static void runner_leaves(void *user)
{
  struct runner *runner = user;
  pry_token_leave(&runner->waiter);
  memset(&runner->waiter, 0xEE, sizeof runner->waiter);
  runner_done(runner);
}

static void next_run(void *user)
{
  runner_done(user);
}

static void run_again(struct runner *runner)
{
  struct rush *rush = runner->rush;
  struct pry_credentials *credentials = rush->party->credentials;
  struct pry_buffer token;
  uint64_t version;
  const char *why;
  rush->left--;
  rush->open++;
  pry_buffer_init(&token, 0);
  enum pry_token_status status = pry_credential_token(credentials, rush->worker->mailbox, "kimi", &token, &version,
                                                      &runner->waiter, runner_told, runner, &why);
  pry_buffer_fini(&token);
  if (status == PRY_TOKEN_READY)
    status = pry_credential_renew(credentials, rush->worker->mailbox, "kimi", version, &runner->waiter, runner_told,
                                  runner, &why);
  if (status != PRY_TOKEN_WAITING)
    pry_timer_start(rush->worker->loop, &runner->timer, 0, next_run, runner);
  else if (rig_random(rush->worker, 3) == 0)
    pry_timer_start(rush->worker->loop, &runner->timer, rig_random(rush->worker, 100), runner_leaves, runner);
}

static void begin_rush(struct rig_worker *worker, void *user)
{
  struct runner *runners = user;
  (void)worker;
  for (unsigned j = 0; j < CALLERS; j++)
    run_again(&runners[j]);
}

/* To other secrets, with an access token that answers who waits, or back to those without one. */
static void change_secret(struct rig_worker *worker, void *user)
{
  struct party *party = user;
  (void)worker;
  bool other = party->declared.refresh_token == &party->secret;
  party->declared.refresh_token = other ? &party->other_secret : &party->secret;
  party->declared.access_token = other ? &party->access : NULL;
  RIG_CHECK(pry_credentials_adopt(party->credentials, &party->config));
}

/* Those who have just been told, and may have their messages in hand, are told something else before they heard. */
static void finish_and_change_secret(struct rig_worker *worker, void *user)
{
  struct party *party = user;
  finish_job(&party->fake.finish);
  change_secret(worker, party);
}

static void forget_and_remember(struct rig_worker *worker, void *user)
{
  struct party *party = user;
  (void)worker;
  party->config.credential_count = 0;
  RIG_CHECK(pry_credentials_adopt(party->credentials, &party->config));
  party->config.credential_count = 1;
  RIG_CHECK(pry_credentials_adopt(party->credentials, &party->config));
}

static void look_at(void *user, const struct pry_credential_status *status)
{
  ++*(unsigned *)user;
  RIG_CHECK(strcmp(status->name, "kimi") == 0);
}

static void test_reloads_between_asking_and_hearing(void **state)
{
  (void)state;
  enum { RUNS = 2000 };
  struct party *party = new_party();
  static struct runner runners[RIG_WORKERS][CALLERS];
  static struct rush rushes[RIG_WORKERS];
  memset(runners, 0, sizeof runners);
  for (unsigned i = 0; i < RIG_WORKERS; i++) {
    rushes[i] = (struct rush){.party = party, .worker = &party->workers[i], .left = RUNS};
    for (unsigned j = 0; j < CALLERS; j++)
      runners[i][j].rush = &rushes[i];
    rig_tell(&party->workers[i], begin_rush, runners[i]);
  }
  static void (*const tasks[])(struct rig_worker *, void *) = {finish_and_change_secret, forget_and_remember,
                                                               change_secret};
  unsigned seen = 0;
  struct pry_loop *own = pry_loop_new(); /* this thread's clock */
  for (unsigned i = 0; i < RIG_WORKERS; i++) {
    for (unsigned round = 0; !atomic_load(&rushes[i].over); round++) {
      rig_wait(&party->workers[0]);
      if (round % 3 == 0)
        rig_do(&party->workers[0], tasks[round / 3 % 3], party);
      else if (atomic_load(&party->fake.pending_now))
        pry_mailbox_post(party->workers[0].mailbox, &party->fake.finish);
      pry_credentials_each(party->credentials, own, look_at, &seen);
      sched_yield();
    }
  }
  assert_true(seen > 0);
  pry_loop_free(own);
  end_party(party);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_one_renewal_for_all),
      cmocka_unit_test(test_a_failed_renewal_is_heard_by_those_who_still_wait),
      cmocka_unit_test(test_reloads_between_asking_and_hearing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
