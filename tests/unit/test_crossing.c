/* Where workers meet: queues, credentials and alerts used from four real loops on four threads at once. */
#include "alert.h"
#include "budget.h"
#include "credential.h"
#include "http_script.h"
#include "json.h"
#include "queue.h"
#include "registry.h"

#include "worker_rig.h"

/* ---- a queue: 10,000 calls in 100 sessions ---------------------------------------------------------------- */

enum { KEYS = 100, CALLS = 10000, ASKERS = 64 };

/* What the holder of a place alone may touch: no lock and nothing atomic, so that the thread sanitizer sees it when a
 * place is given twice, or given without what its last holder wrote. */
struct session {
  char name[16];
  unsigned holders, last_ticket, grants;
  pthread_mutex_t entering; /* makes taking a ticket and entering one step */
  unsigned tickets;
};

struct asker {
  struct pry_queue_waiter waiter;
  struct pry_message home, away; /* a place that is released on another worker; and the way back */
  struct pry_timer timer;        /* ends holding, or waiting */
  struct crowd *crowd;
  struct session *session;
  struct pry_permit *permit;
  unsigned ticket;
};

/* The calls of one worker. */
struct crowd {
  struct rig_worker *workers, *worker;
  struct pry_queue_set *set;
  struct session *sessions;
  unsigned left, open; /* calls to begin, calls under way */
  unsigned granted, died, crossed;
  bool any_order; /* workers are thought stuck meanwhile: order yields */
  struct asker askers[ASKERS];
  atomic_bool over;
};

static void begin_call(struct asker *asker);

static void end_call(struct asker *asker)
{
  struct crowd *crowd = asker->crowd;
  pry_timer_cancel(&asker->timer);
  crowd->open--;
  if (crowd->left)
    begin_call(asker);
  else if (!crowd->open)
    atomic_store(&crowd->over, true);
}

static void give_place_back(struct asker *asker)
{
  RIG_CHECK(asker->session->holders == 1);
  asker->session->holders = 0;
  asker->permit->release(asker->permit);
}

static void release_elsewhere(struct pry_message *message)
{
  struct asker *asker = PRY_CONTAINER_OF(message, struct asker, away);
  give_place_back(asker);
  pry_mailbox_post(asker->crowd->worker->mailbox, &asker->home);
}

static void back_home(struct pry_message *message)
{
  end_call(PRY_CONTAINER_OF(message, struct asker, home));
}

static void held_long_enough(void *user)
{
  struct asker *asker = user;
  struct crowd *crowd = asker->crowd;
  if (rig_random(crowd->worker, 4) == 0) {
    crowd->crossed++;
    pry_mailbox_post(crowd->workers[(crowd->worker->index + 1) % RIG_WORKERS].mailbox, &asker->away);
    return;
  }
  give_place_back(asker);
  end_call(asker);
}

static void hold(struct asker *asker, struct pry_permit *permit)
{
  struct session *session = asker->session;
  asker->permit = permit;
  asker->crowd->granted++;
  RIG_CHECK(session->holders++ == 0);
  RIG_CHECK(asker->crowd->any_order || asker->ticket > session->last_ticket);
  session->last_ticket = asker->ticket;
  session->grants++;
  pry_timer_start(asker->crowd->worker->loop, &asker->timer, rig_random(asker->crowd->worker, 50), held_long_enough,
                  asker);
}

static void on_granted(struct pry_queue_waiter *waiter, struct pry_permit *permit, void *user)
{
  struct asker *asker = user;
  RIG_CHECK(waiter == &asker->waiter);
  hold(asker, permit);
}

static void client_leaves(void *user)
{
  struct asker *asker = user;
  asker->crowd->died++;
  pry_queue_leave(&asker->waiter);
  end_call(asker);
}

static void begin_call(struct asker *asker)
{
  struct crowd *crowd = asker->crowd;
  crowd->left--;
  crowd->open++;
  asker->session = &crowd->sessions[rig_random(crowd->worker, KEYS)];
  struct pry_permit *permit;
  pthread_mutex_lock(&asker->session->entering);
  asker->ticket = ++asker->session->tickets;
  enum pry_queue_status status = pry_queue_enter(crowd->set, crowd->worker->mailbox, pry_slice_of(asker->session->name),
                                                 1, &asker->waiter, on_granted, asker, &permit);
  pthread_mutex_unlock(&asker->session->entering);
  RIG_CHECK(status == PRY_QUEUE_GRANTED || status == PRY_QUEUE_WAITING);
  if (status == PRY_QUEUE_GRANTED)
    hold(asker, permit);
  else if (rig_random(crowd->worker, 10) == 0)
    pry_timer_start(crowd->worker->loop, &asker->timer, rig_random(crowd->worker, 300), client_leaves, asker);
}

static void begin_crowd(struct rig_worker *worker, void *user)
{
  struct crowd *crowd = user;
  (void)worker;
  for (unsigned i = 0; i < ASKERS; i++)
    begin_call(&crowd->askers[i]);
}

struct scene {
  struct rig_worker workers[RIG_WORKERS];
  struct session sessions[KEYS];
  struct crowd crowds[RIG_WORKERS];
  struct pry_queue_set *set;
};

static struct scene *begin_scene(bool any_order)
{
  struct scene *scene = calloc(1, sizeof *scene);
  scene->set = pry_queue_set_new(0, 0);
  for (unsigned i = 0; i < KEYS; i++) {
    snprintf(scene->sessions[i].name, sizeof scene->sessions[i].name, "session %u", i);
    pthread_mutex_init(&scene->sessions[i].entering, NULL);
  }
  rig_make(scene->workers, RIG_WORKERS);
  for (unsigned i = 0; i < RIG_WORKERS; i++) {
    struct crowd *crowd = &scene->crowds[i];
    *crowd = (struct crowd){.workers = scene->workers,
                            .worker = &scene->workers[i],
                            .set = scene->set,
                            .sessions = scene->sessions,
                            .left = CALLS / RIG_WORKERS,
                            .any_order = any_order};
    for (unsigned j = 0; j < ASKERS; j++)
      crowd->askers[j] = (struct asker){.crowd = crowd, .home.deliver = back_home, .away.deliver = release_elsewhere};
  }
  rig_go(scene->workers, RIG_WORKERS);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_tell(&scene->workers[i], begin_crowd, &scene->crowds[i]);
  return scene;
}

static bool crowds_over(struct scene *scene)
{
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    if (!atomic_load(&scene->crowds[i].over))
      return false;
  return true;
}

static void end_scene(struct scene *scene)
{
  while (!crowds_over(scene))
    sched_yield();
  rig_end(scene->workers, RIG_WORKERS);
  unsigned granted = 0, died = 0, crossed = 0, grants = 0;
  for (unsigned i = 0; i < RIG_WORKERS; i++) {
    granted += scene->crowds[i].granted;
    died += scene->crowds[i].died;
    crossed += scene->crowds[i].crossed;
  }
  for (unsigned i = 0; i < KEYS; i++) {
    grants += scene->sessions[i].grants;
    assert_int_equal(scene->sessions[i].holders, 0);
    pthread_mutex_destroy(&scene->sessions[i].entering);
  }
  assert_int_equal(granted + died, CALLS);
  assert_int_equal(granted, grants);
  assert_true(died > 0 && crossed > 0);
  assert_int_equal(pry_queue_key_count(scene->set), 0);
  assert_int_equal(pry_queue_waiting_total(scene->set), 0);
  pry_queue_set_free(scene->set);
  rig_free(scene->workers, RIG_WORKERS);
  free(scene);
}

static void test_sessions_never_overlap_and_keep_their_order(void **state)
{
  (void)state;
  end_scene(begin_scene(false));
}

/* A watchdog that errs all the time: workers are called stuck and readmitted while they run. Places still are neither
 * lost nor given twice, and every call ends. */
static void test_reclaiming_at_random(void **state)
{
  (void)state;
  struct scene *scene = begin_scene(true);
  for (unsigned round = 0; !crowds_over(scene); round++) {
    struct pry_mailbox *mailbox = scene->workers[round % RIG_WORKERS].mailbox;
    pry_queue_reclaim(scene->set, mailbox);
    sched_yield();
    pry_queue_readmit(scene->set, mailbox);
  }
  end_scene(scene);
}

/* ---- a worker that is really stuck ------------------------------------------------------------------------ */

struct stuck {
  struct pry_queue_set *set;
  struct pry_queue_waiter waiter;
  struct pry_permit *permit;
  atomic_bool may_go, stands, granted;
};

static void note_grant(struct pry_queue_waiter *waiter, struct pry_permit *permit, void *user)
{
  (void)waiter;
  struct stuck *stuck = user;
  stuck->permit = permit;
  atomic_store(&stuck->granted, true);
}

static void get_in_line(struct rig_worker *worker, void *user)
{
  struct stuck *stuck = user;
  struct pry_permit *permit;
  RIG_CHECK(pry_queue_enter(stuck->set, worker->mailbox, PRY_SLICE("k"), 1, &stuck->waiter, note_grant, stuck,
                            &permit) == PRY_QUEUE_WAITING);
}

static void loop_without_end(struct rig_worker *worker, void *user)
{
  (void)worker;
  struct stuck *stuck = user;
  atomic_store(&stuck->stands, true);
  while (!atomic_load(&stuck->may_go))
    sched_yield();
}

static void await(atomic_bool *flag)
{
  while (!atomic_load(flag))
    sched_yield();
}

static void test_a_stuck_worker_takes_no_place_with_it(void **state)
{
  (void)state;
  struct rig_worker workers[2];
  struct pry_queue_set *set = pry_queue_set_new(0, 0);
  struct stuck stuck = {.set = set}, other = {.set = set};
  struct pry_queue_waiter unused;
  struct pry_permit *permit;
  rig_make(workers, 2);
  rig_go(workers, 2);
  assert_int_equal(pry_queue_enter(set, workers[1].mailbox, PRY_SLICE("k"), 1, &unused, note_grant, NULL, &permit),
                   PRY_QUEUE_GRANTED);
  rig_do(&workers[0], get_in_line, &stuck);
  rig_do(&workers[1], get_in_line, &other);
  rig_tell(&workers[0], loop_without_end, &stuck);
  await(&stuck.stands);
  permit->release(permit);
  pry_queue_reclaim(set, workers[0].mailbox);
  await(&other.granted); /* passed on, although it had been given */
  other.permit->release(other.permit);
  size_t held, waiting;
  pry_queue_count(set, PRY_SLICE("k"), &held, &waiting);
  assert_int_equal(held, 0);
  assert_int_equal(waiting, 1);
  atomic_store(&stuck.may_go, true);
  rig_wait(&workers[0]);
  assert_false(atomic_load(&stuck.granted));
  pry_queue_readmit(set, workers[0].mailbox);
  await(&stuck.granted);
  stuck.permit->release(stuck.permit);
  rig_end(workers, 2);
  assert_int_equal(pry_queue_key_count(set), 0);
  pry_queue_set_free(set);
  rig_free(workers, 2);
}

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
  await(&party->fake.pending_now);
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
  await(&party->fake.pending_now);
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

/* ---- alerts: worker 0 delivers ------------------------------------------------------------------------------ */

enum { ALERT_KEYS = 40, TELLINGS = 250 };

struct newsroom {
  struct rig_worker workers[RIG_WORKERS];
  struct pry_http_script *script;
  struct pry_http *http;
  struct pry_log *log;
  struct pry_metrics *metrics;
  struct pry_scrubber *scrubber;
  struct pry_alerts *alerts;
};

static const struct pry_secret hook = {.name = "HOOK", .value = "http://hooks.test/"};
static const struct pry_sink_config ops = {.name = "ops", .kind = "webhook", .url = &hook};

static void make_http(struct rig_worker *worker, void *user)
{
  struct newsroom *room = user;
  room->script = pry_http_script_new(worker->loop);
  room->http = pry_http_script_client(room->script);
  RIG_CHECK(pry_http_script_set_default(room->script, &(struct pry_http_step){.status = 204}));
  room->alerts = pry_alerts_new(worker->mailbox, room->http, room->log, room->metrics, room->scrubber);
}

static struct newsroom *new_newsroom(void)
{
  struct newsroom *room = calloc(1, sizeof *room);
  rig_make(room->workers, RIG_WORKERS);
  room->log = pry_log_new(no_line, NULL, PRY_LOG_DEBUG, NULL, NULL);
  room->metrics = pry_metrics_new();
  room->scrubber = pry_scrubber_new();
  rig_go(room->workers, RIG_WORKERS);
  rig_do(&room->workers[0], make_http, room);
  assert_non_null(room->alerts);
  return room;
}

static void end_newsroom(struct newsroom *room)
{
  pry_alerts_free(room->alerts);
  pry_http_free(room->http);
  pry_log_free(room->log);
  pry_metrics_free(room->metrics);
  pry_scrubber_free(room->scrubber);
  rig_free(room->workers, RIG_WORKERS);
  free(room);
}

static void notify(struct newsroom *room, struct rig_worker *worker, unsigned i, bool resolve)
{
  char key[16];
  snprintf(key, sizeof key, "key-%u", i);
  const struct pry_alert alert = {.key = pry_slice_of(key), .text = PRY_SLICE("it is bad"), .resolve = resolve};
  pry_alerts_notify(room->alerts, worker->loop, &ops, &alert);
}

static void raise_often(struct rig_worker *worker, void *user)
{
  for (unsigned n = 0; n < TELLINGS; n++)
    for (unsigned i = 0; i < ALERT_KEYS; i++)
      notify(user, worker, i, false);
}

static void resolve_each(struct rig_worker *worker, void *user)
{
  for (unsigned i = 0; i < ALERT_KEYS; i++)
    notify(user, worker, i, true);
}

/* Half of the workers raise, half resolve; fewer in all than a sink's queue holds. */
static void quarrel(struct rig_worker *worker, void *user)
{
  for (unsigned n = 0; n < PRY_ALERT_QUEUE_MAX / RIG_WORKERS; n++)
    notify(user, worker, rig_random(worker, 4), worker->index % 2);
}

static void await_delivery(struct newsroom *room)
{
  while (pry_alerts_queued(room->alerts))
    sched_yield();
}

static void all_at_once(struct newsroom *room, void (*run)(struct rig_worker *, void *))
{
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_tell(&room->workers[i], run, room);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_wait(&room->workers[i]);
  await_delivery(room);
}

/* The member's text in what was sent as the i-th. */
static void sent_member(struct newsroom *room, size_t i, const char *name, char *text, size_t size)
{
  struct pry_json_value value;
  assert_true(pry_json_get(pry_http_script_seen(room->script, i)->body, name, &value));
  snprintf(text, size, "%.*s", (int)value.raw.size, value.raw.data);
}

static void test_alerts_are_counted_exactly(void **state)
{
  (void)state;
  struct newsroom *room = new_newsroom();
  all_at_once(room, raise_often);
  assert_int_equal(pry_alerts_open(room->alerts), ALERT_KEYS);
  rig_do(&room->workers[RIG_WORKERS - 1], resolve_each, room);
  await_delivery(room);
  rig_end(room->workers, RIG_WORKERS);
  assert_int_equal(pry_alerts_open(room->alerts), 0);
  size_t sent = pry_http_script_seen_count(room->script);
  assert_int_equal(sent, 2 * ALERT_KEYS); /* each told once, resolved once */
  for (size_t i = 0; i < sent; i++) {
    char state_text[32], count[32], expected[32];
    sent_member(room, i, "state", state_text, sizeof state_text);
    sent_member(room, i, "count", count, sizeof count);
    bool firing = i < ALERT_KEYS;
    snprintf(expected, sizeof expected, "%d", firing ? 1 : RIG_WORKERS * TELLINGS);
    assert_string_equal(state_text, firing ? "\"firing\"" : "\"resolved\"");
    assert_string_equal(count, expected);
  }
  assert_true(pry_metrics_value(room->metrics, PRY_M_ALERTS, "ops", "delivered") == 2 * ALERT_KEYS);
  end_newsroom(room);
}

/* Whoever raises and whoever resolves: what the sink hears of a key is raised, resolved, raised, ... */
static void test_alerts_keep_the_order_of_a_key(void **state)
{
  (void)state;
  struct newsroom *room = new_newsroom();
  for (int round = 0; round < 20; round++)
    all_at_once(room, quarrel);
  rig_end(room->workers, RIG_WORKERS);
  bool open[4] = {false};
  size_t sent = pry_http_script_seen_count(room->script);
  for (size_t i = 0; i < sent; i++) {
    char key[32], state_text[32];
    sent_member(room, i, "key", key, sizeof key);
    sent_member(room, i, "state", state_text, sizeof state_text);
    unsigned which = (unsigned)(key[strlen("\"key-")] - '0');
    assert_int_equal(strcmp(state_text, "\"firing\"") == 0, !open[which]);
    open[which] = !open[which];
  }
  assert_true(sent > 100);
  assert_true(pry_metrics_value(room->metrics, PRY_M_ALERTS, "ops", "delivered") == (double)sent);
  end_newsroom(room);
}

/* ---- small things that all workers use ---------------------------------------------------------------------- */

enum { STEPS = 5000, SERIES = PRY_METRICS_SERIES_MAX + 100 };

struct commons {
  struct rig_worker workers[RIG_WORKERS];
  struct pry_metrics *metrics;
  struct pry_log *log;
  struct pry_scrubber *scrubber;
  struct pry_budgets *budgets;
  struct pry_generation *generation;
  struct pry_event_count events;
  uint64_t sequences[RIG_WORKERS][STEPS];
  atomic_uint lines, secrets;
};

static void read_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct commons *commons = user;
  (void)level;
  RIG_CHECK(strlen(line) == size);
  atomic_fetch_add(&commons->lines, 1);
  if (strstr(line, "always-secret"))
    atomic_fetch_add(&commons->secrets, 1);
}

static void use_budget(struct commons *commons)
{
  struct pry_permit *call = pry_budget_call(commons->budgets, PRY_SLICE("p/m"), false);
  struct pry_permit *retry = pry_budget_retry(commons->budgets, PRY_SLICE("p/m"));
  RIG_CHECK(call);
  call->release(call);
  if (retry)
    retry->release(retry);
}

static void use_metrics(struct commons *commons, unsigned step)
{
  char label[16];
  snprintf(label, sizeof label, "t%u", step % SERIES);
  pry_metrics_add(commons->metrics, PRY_M_ATTEMPTS, label, "none", 1);
  pry_metrics_add(commons->metrics, PRY_M_CALLS, "/v1/*", "ok", 2);
  pry_metrics_add(commons->metrics, PRY_M_CALL_DURATION, "/v1/*", NULL, 0.02);
  pry_metrics_add(commons->metrics, PRY_M_OPEN_CALLS, NULL, NULL, step % 2 ? 1 : -1);
}

static void use_commons(struct rig_worker *worker, void *user)
{
  struct commons *commons = user;
  struct pry_event_ring *ring = pry_event_ring_new(16, &commons->events);
  for (unsigned step = 0; step < STEPS; step++) {
    use_metrics(commons, step);
    use_budget(commons);
    commons->sequences[worker->index][step] = pry_event_next(ring)->sequence;
    pry_generation_ref(commons->generation);
    RIG_CHECK(commons->generation->policies == 7);
    pry_generation_unref(commons->generation);
    if (step % 10)
      continue;
    pry_scrubber_add(commons->scrubber, PRY_SLICE("sometimes-secret"));
    pry_log(commons->log, PRY_LOG_WARN, "step", pry_log_text("text", "this is always-secret"));
    pry_scrubber_remove(commons->scrubber, PRY_SLICE("sometimes-secret"));
  }
  RIG_CHECK(pry_event_overwritten(ring) == STEPS - 16);
  pry_event_ring_free(ring);
  pry_generation_unref(commons->generation); /* the last one frees it */
}

static int by_sequence(const void *a, const void *b)
{
  uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;
  return (first > second) - (first < second);
}

/* The sum of all series of the metric, those beyond the bound included. */
static double sum_of_attempts(struct commons *commons)
{
  double sum = pry_metrics_value(commons->metrics, PRY_M_ATTEMPTS, "other", "other");
  for (unsigned i = 0; i < SERIES; i++) {
    char label[16];
    snprintf(label, sizeof label, "t%u", i);
    sum += pry_metrics_value(commons->metrics, PRY_M_ATTEMPTS, label, "none");
  }
  return sum;
}

static void test_small_things_add_up(void **state)
{
  (void)state;
  struct commons *commons = calloc(1, sizeof *commons);
  rig_make(commons->workers, RIG_WORKERS);
  commons->metrics = pry_metrics_new();
  commons->scrubber = pry_scrubber_new();
  commons->budgets = pry_budgets_new();
  commons->log = pry_log_new(read_line, commons, PRY_LOG_DEBUG, NULL, NULL);
  commons->generation = pry_generation_new(pry_policy_set_new(), NULL);
  commons->generation->policies = 7;
  pry_log_set_scrubber(commons->log, commons->scrubber);
  pry_scrubber_add(commons->scrubber, PRY_SLICE("always-secret"));
  for (unsigned i = 1; i < RIG_WORKERS; i++)
    pry_generation_ref(commons->generation);
  rig_go(commons->workers, RIG_WORKERS);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_tell(&commons->workers[i], use_commons, commons);
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    do { /* a scrape now and then */
      pry_buffer_clear(&text);
      assert_true(pry_metrics_render(commons->metrics, &text));
    } while (atomic_load(&commons->workers[i].busy));
  pry_buffer_fini(&text);
  rig_end(commons->workers, RIG_WORKERS);
  const double steps = (double)RIG_WORKERS * STEPS;
  assert_true(pry_metrics_value(commons->metrics, PRY_M_CALLS, "/v1/*", "ok") == 2 * steps);
  assert_true(pry_metrics_value(commons->metrics, PRY_M_CALL_DURATION, "/v1/*", NULL) == steps);
  assert_true(pry_metrics_value(commons->metrics, PRY_M_OPEN_CALLS, NULL, NULL) == 0);
  assert_true(pry_metrics_value(commons->metrics, PRY_M_ATTEMPTS, "other", "other") > 0);
  assert_true(sum_of_attempts(commons) == steps);
  assert_int_equal(atomic_load(&commons->lines), RIG_WORKERS * STEPS / 10);
  assert_int_equal(atomic_load(&commons->secrets), 0);
  assert_true(pry_budget_remaining(commons->budgets, PRY_SLICE("p/m")) == 1);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    for (unsigned step = 1; step < STEPS; step++)
      assert_true(commons->sequences[i][step] > commons->sequences[i][step - 1]);
  uint64_t *sequences = &commons->sequences[0][0];
  qsort(sequences, (size_t)RIG_WORKERS * STEPS, sizeof(uint64_t), by_sequence);
  for (unsigned i = 0; i < RIG_WORKERS * STEPS; i++)
    assert_int_equal(sequences[i], i + 1);
  pry_log_free(commons->log);
  pry_budgets_free(commons->budgets);
  pry_scrubber_free(commons->scrubber);
  pry_metrics_free(commons->metrics);
  rig_free(commons->workers, RIG_WORKERS);
  free(commons);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sessions_never_overlap_and_keep_their_order),
      cmocka_unit_test(test_reclaiming_at_random),
      cmocka_unit_test(test_a_stuck_worker_takes_no_place_with_it),
      cmocka_unit_test(test_one_renewal_for_all),
      cmocka_unit_test(test_a_failed_renewal_is_heard_by_those_who_still_wait),
      cmocka_unit_test(test_reloads_between_asking_and_hearing),
      cmocka_unit_test(test_alerts_are_counted_exactly),
      cmocka_unit_test(test_alerts_keep_the_order_of_a_key),
      cmocka_unit_test(test_small_things_add_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
