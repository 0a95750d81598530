/* Where workers meet: one set of queues used from four real loops on four threads at once. */
#include "queue.h"

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
  struct pry_queue_rule rule = pry_queue_places(1);
  struct pry_queue_answer answer;
  pthread_mutex_lock(&asker->session->entering);
  asker->ticket = ++asker->session->tickets;
  enum pry_queue_status status = pry_queue_enter(crowd->set, crowd->worker->mailbox, pry_slice_of(asker->session->name),
                                                 &rule, &asker->waiter, on_granted, asker, &answer);
  pthread_mutex_unlock(&asker->session->entering);
  RIG_CHECK(status == PRY_QUEUE_GRANTED || status == PRY_QUEUE_WAITING);
  if (status == PRY_QUEUE_GRANTED)
    hold(asker, answer.permit);
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
  struct pry_queue_rule rule = pry_queue_places(1);
  struct pry_queue_answer answer;
  RIG_CHECK(pry_queue_enter(stuck->set, worker->mailbox, PRY_SLICE("k"), &rule, &stuck->waiter, note_grant, stuck,
                            &answer) == PRY_QUEUE_WAITING);
}

static void loop_without_end(struct rig_worker *worker, void *user)
{
  (void)worker;
  struct stuck *stuck = user;
  atomic_store(&stuck->stands, true);
  while (!atomic_load(&stuck->may_go))
    sched_yield();
}

static void test_a_stuck_worker_takes_no_place_with_it(void **state)
{
  (void)state;
  struct rig_worker workers[2];
  struct pry_queue_set *set = pry_queue_set_new(0, 0);
  struct stuck stuck = {.set = set}, other = {.set = set};
  struct pry_queue_waiter unused;
  struct pry_queue_rule rule = pry_queue_places(1);
  struct pry_queue_answer answer;
  rig_make(workers, 2);
  rig_go(workers, 2);
  assert_int_equal(pry_queue_enter(set, workers[1].mailbox, PRY_SLICE("k"), &rule, &unused, note_grant, NULL, &answer),
                   PRY_QUEUE_GRANTED);
  rig_do(&workers[0], get_in_line, &stuck);
  rig_do(&workers[1], get_in_line, &other);
  rig_tell(&workers[0], loop_without_end, &stuck);
  rig_await(&stuck.stands);
  answer.permit->release(answer.permit);
  pry_queue_reclaim(set, workers[0].mailbox);
  rig_await(&other.granted); /* passed on, although it had been given */
  other.permit->release(other.permit);
  struct pry_queue_state seen;
  pry_queue_look(set, PRY_SLICE("k"), 0, &seen);
  assert_int_equal(seen.held, 0);
  assert_int_equal(seen.waiting, 1);
  atomic_store(&stuck.may_go, true);
  rig_wait(&workers[0]);
  assert_false(atomic_load(&stuck.granted));
  pry_queue_readmit(set, workers[0].mailbox);
  rig_await(&stuck.granted);
  stuck.permit->release(stuck.permit);
  rig_end(workers, 2);
  assert_int_equal(pry_queue_key_count(set), 0);
  pry_queue_set_free(set);
  rig_free(workers, 2);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sessions_never_overlap_and_keep_their_order),
      cmocka_unit_test(test_reclaiming_at_random),
      cmocka_unit_test(test_a_stuck_worker_takes_no_place_with_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
