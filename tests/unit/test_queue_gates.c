/* Lines before windows and buckets: who waits for time, over several workers, in virtual time. */
#include "queue.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define KEY PRY_SLICE("key")

enum { ASKERS_MAX = 256, MAILBOXES = 4 };

enum asker_state { OUTSIDE, WAITING, INSIDE };

struct world;

struct asker {
  struct pry_queue_waiter waiter;
  struct world *world;
  struct pry_permit *permit;
  enum asker_state state;
  pry_time granted_at;
};

struct world {
  struct pry_loop *loop;
  struct pry_mailbox *mailboxes[MAILBOXES];
  struct pry_queue_set *set;
  struct asker askers[ASKERS_MAX];
  bool inside;       /* a call of the queue is under way: no grant may come */
  pry_time retry_in; /* of the last refusal */
};

/* permit NULL: it would be late. */
static void passed(struct asker *asker, struct pry_permit *permit)
{
  struct world *world = asker->world;
  asker->state = permit ? INSIDE : OUTSIDE;
  asker->permit = permit;
  asker->granted_at = pry_loop_now(world->loop);
}

static void on_granted(struct pry_queue_waiter *waiter, struct pry_permit *permit, void *user)
{
  struct asker *asker = user;
  assert_ptr_equal(waiter, &asker->waiter);
  assert_int_equal(asker->state, WAITING);
  assert_false(asker->world->inside);
  passed(asker, permit);
}

static struct world *new_world(void)
{
  struct world *world = calloc(1, sizeof *world);
  world->loop = pry_loop_new_virtual(0);
  for (unsigned i = 0; i < MAILBOXES; i++)
    world->mailboxes[i] = pry_mailbox_new(world->loop);
  world->set = pry_queue_set_new(0, 0);
  for (size_t i = 0; i < ASKERS_MAX; i++)
    world->askers[i].world = world;
  return world;
}

static void free_world(struct world *world)
{
  assert_int_equal(pry_queue_waiting_total(world->set), 0);
  pry_queue_set_free(world->set); /* what windows still remember goes with it */
  for (unsigned i = 0; i < MAILBOXES; i++)
    pry_mailbox_free(world->mailboxes[i]);
  pry_loop_free(world->loop);
  free(world);
}

static enum pry_queue_status enter(struct world *world, unsigned i, struct pry_queue_rule rule)
{
  struct asker *asker = &world->askers[i];
  struct pry_queue_answer answer;
  world->inside = true;
  enum pry_queue_status status = pry_queue_enter(world->set, world->mailboxes[i % MAILBOXES], KEY, &rule,
                                                 &asker->waiter, on_granted, asker, &answer);
  world->inside = false;
  world->retry_in = answer.retry_in;
  asker->state = status == PRY_QUEUE_WAITING ? WAITING : OUTSIDE;
  assert_int_equal(status == PRY_QUEUE_GRANTED, answer.permit != NULL);
  if (answer.permit)
    passed(asker, answer.permit);
  return status;
}

static void release(struct world *world, unsigned i)
{
  struct asker *asker = &world->askers[i];
  assert_int_equal(asker->state, INSIDE);
  world->inside = true;
  asker->permit->release(asker->permit);
  world->inside = false;
  asker->state = OUTSIDE;
}

static void send_out(struct world *world, unsigned i)
{
  assert_int_equal(world->askers[i].state, INSIDE);
  world->inside = true;
  world->askers[i].permit->sent(world->askers[i].permit);
  world->inside = false;
}

static void leave(struct world *world, unsigned i)
{
  world->inside = true;
  pry_queue_leave(&world->askers[i].waiter);
  world->inside = false;
  if (world->askers[i].state == WAITING)
    world->askers[i].state = OUTSIDE;
}

static bool somebody_waits(const struct world *world)
{
  for (unsigned i = 0; i < ASKERS_MAX; i++)
    if (world->askers[i].state == WAITING)
      return true;
  return false;
}

/* Whoever was let in sends and is done, until nobody waits. */
static void run_out(struct world *world)
{
  for (;;) {
    for (unsigned i = 0; i < ASKERS_MAX; i++)
      if (world->askers[i].state == INSIDE) {
        send_out(world, i);
        release(world, i);
      }
    if (!somebody_waits(world))
      return;
    assert_true(pry_loop_turn(world->loop, PRY_TIME_NEVER));
  }
}

static struct pry_queue_rule window(unsigned limit, double per)
{
  return (struct pry_queue_rule){.gate = {.limit = limit, .per = pry_time_from_seconds(per)},
                                 .max_waiting = PRY_QUEUE_ANY,
                                 .longest = PRY_TIME_NEVER};
}

static struct pry_queue_rule bucket(double rate, double burst, double cost)
{
  return (struct pry_queue_rule){
      .gate = {.rate = rate, .burst = burst}, .cost = cost, .max_waiting = PRY_QUEUE_ANY, .longest = PRY_TIME_NEVER};
}

/* ---- order and time ----------------------------------------------------------------------------------------- */

/* Askers come in turn from four workers. */
static void test_a_window_lets_in_one_after_the_other(void **state)
{
  (void)state;
  struct world *world = new_world();
  for (unsigned i = 0; i < 20; i++)
    assert_int_equal(enter(world, i, window(5, 60)), i < 5 ? PRY_QUEUE_GRANTED : PRY_QUEUE_WAITING);
  run_out(world);
  for (unsigned i = 0; i < 20; i++) {
    assert_int_equal(world->askers[i].granted_at, (pry_time)(i / 5) * 60 * PRY_SECOND);
  }
  free_world(world);
}

static void test_a_bucket_lets_in_at_its_rate(void **state)
{
  (void)state;
  struct world *world = new_world();
  for (unsigned i = 0; i < 20; i++)
    assert_int_equal(enter(world, i, bucket(2, 4, 1)), i < 4 ? PRY_QUEUE_GRANTED : PRY_QUEUE_WAITING);
  run_out(world);
  for (unsigned i = 0; i < 20; i++) {
    assert_int_equal(world->askers[i].granted_at, i < 4 ? 0 : (pry_time)(i - 3) * PRY_SECOND / 2);
  }
  free_world(world);
}

static void test_a_small_cost_does_not_overtake_a_great_one(void **state)
{
  (void)state;
  struct world *world = new_world();
  assert_int_equal(enter(world, 0, bucket(1, 10, 8)), PRY_QUEUE_GRANTED);
  assert_int_equal(enter(world, 1, bucket(1, 10, 9)), PRY_QUEUE_WAITING);
  assert_int_equal(enter(world, 2, bucket(1, 10, 1)), PRY_QUEUE_WAITING); /* there are two tokens */
  run_out(world);
  assert_int_equal(world->askers[1].granted_at, 7 * PRY_SECOND);
  assert_int_equal(world->askers[2].granted_at, 8 * PRY_SECOND);
  free_world(world);
}

static void test_a_place_that_was_not_used_goes_on_at_once(void **state)
{
  (void)state;
  struct world *world = new_world();
  enter(world, 0, window(1, 60));
  enter(world, 1, window(1, 60));
  enter(world, 2, window(1, 60));
  pry_loop_advance(world->loop, 5 * PRY_SECOND);
  release(world, 0); /* nothing was sent */
  pry_loop_advance(world->loop, 0);
  assert_int_equal(world->askers[1].granted_at, 5 * PRY_SECOND);
  send_out(world, 1);
  release(world, 1);
  pry_loop_advance(world->loop, 60 * PRY_SECOND - 1);
  assert_int_equal(world->askers[2].state, WAITING);
  pry_loop_advance(world->loop, 1);
  assert_int_equal(world->askers[2].state, INSIDE);
  release(world, 2);
  free_world(world);
}

/* ---- leaving and being refused ----------------------------------------------------------------------------------- */

static void test_who_leaves_hands_the_watch_on(void **state)
{
  (void)state;
  struct world *world = new_world();
  enter(world, 0, window(1, 10));
  send_out(world, 0);
  release(world, 0);
  for (unsigned i = 1; i < 5; i++)
    enter(world, i, window(1, 10));
  pry_loop_advance(world->loop, 5 * PRY_SECOND);
  leave(world, 1); /* it was the one to look when the time comes */
  leave(world, 3);
  pry_loop_advance(world->loop, 5 * PRY_SECOND);
  assert_int_equal(world->askers[2].state, INSIDE);
  assert_int_equal(world->askers[2].granted_at, 10 * PRY_SECOND);
  send_out(world, 2);
  leave(world, 4); /* the last one: nobody has to look */
  release(world, 2);
  assert_int_equal(pry_queue_key_count(world->set), 1); /* the window remembers */
  pry_loop_advance(world->loop, 10 * PRY_SECOND);
  pry_queue_sweep(world->set, pry_loop_now(world->loop));
  assert_int_equal(pry_queue_key_count(world->set), 0);
  free_world(world);
}

static void test_who_would_be_late_is_told_at_once(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct pry_queue_rule rule = window(2, 60);
  rule.longest = 90 * PRY_SECOND;
  for (unsigned i = 0; i < 2; i++) {
    assert_int_equal(enter(world, i, rule), PRY_QUEUE_GRANTED);
    send_out(world, i);
    release(world, i);
    pry_loop_advance(world->loop, 5 * PRY_SECOND);
  }
  assert_int_equal(enter(world, 2, rule), PRY_QUEUE_WAITING);
  assert_int_equal(enter(world, 3, rule), PRY_QUEUE_WAITING);
  assert_int_equal(enter(world, 4, rule), PRY_QUEUE_LATE);
  assert_int_equal(world->retry_in, 110 * PRY_SECOND);
  rule.longest = 0;
  assert_int_equal(enter(world, 5, rule), PRY_QUEUE_LATE);
  rule.longest = PRY_TIME_NEVER;
  rule.max_waiting = 2;
  assert_int_equal(enter(world, 6, rule), PRY_QUEUE_FULL);
  assert_int_equal(world->retry_in, 110 * PRY_SECOND);
  rule.max_waiting = 3;
  assert_int_equal(enter(world, 6, rule), PRY_QUEUE_WAITING);
  run_out(world);
  assert_int_equal(world->askers[6].granted_at, 120 * PRY_SECOND);
  free_world(world);
}

static void test_places_alone_do_not_know_when(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct pry_queue_rule rule = pry_queue_places(1);
  rule.longest = 0;
  assert_int_equal(enter(world, 0, rule), PRY_QUEUE_GRANTED);
  assert_int_equal(enter(world, 1, rule), PRY_QUEUE_LATE);
  assert_true(world->retry_in < 0);
  release(world, 0);
  assert_int_equal(pry_queue_key_count(world->set), 0);
  free_world(world);
}

/* ---- what a provider says --------------------------------------------------------------------------------------- */

static void test_a_pause_holds_the_whole_line(void **state)
{
  (void)state;
  struct world *world = new_world();
  for (unsigned i = 0; i < 4; i++)
    enter(world, i, window(1, 10));
  send_out(world, 0);
  pry_queue_pause(world->set, KEY, 25 * PRY_SECOND, 0);
  struct pry_queue_state seen;
  pry_queue_look(world->set, KEY, 0, &seen);
  assert_int_equal(seen.held, 1);
  assert_int_equal(seen.waiting, 3);
  assert_int_equal(seen.paused, 25 * PRY_SECOND);
  assert_int_equal(seen.next_in, 55 * PRY_SECOND);
  assert_int_equal((long)seen.available, 0);
  run_out(world);
  for (unsigned i = 1; i < 4; i++)
    assert_int_equal(world->askers[i].granted_at, (pry_time)(15 + 10 * i) * PRY_SECOND);
  free_world(world);
}

/* Nobody need stand in line until his patience ends when it is known that it will. */
static void test_who_will_be_late_hears_of_it(void **state)
{
  (void)state;
  struct world *world = new_world();
  struct pry_queue_rule patient = window(1, 10), impatient = window(1, 10);
  impatient.longest = 20 * PRY_SECOND;
  enter(world, 0, patient);
  enter(world, 1, impatient);
  enter(world, 2, patient);
  enter(world, 4, impatient);
  send_out(world, 0);
  release(world, 0);
  pry_loop_advance(world->loop, PRY_SECOND);
  pry_queue_pause(world->set, KEY, 20 * PRY_SECOND, PRY_SECOND); /* no longer than they wait */
  pry_loop_advance(world->loop, 0);
  assert_int_equal(world->askers[1].state, WAITING);
  pry_queue_pause(world->set, KEY, 30 * PRY_SECOND, PRY_SECOND);
  assert_int_equal(pry_queue_waiting_total(world->set), 1);
  leave(world, 4); /* before it heard */
  pry_loop_advance(world->loop, 0);
  assert_int_equal(world->askers[1].state, OUTSIDE);
  assert_int_equal(world->askers[1].granted_at, PRY_SECOND);
  run_out(world);
  assert_int_equal(world->askers[2].granted_at, 30 * PRY_SECOND);
  pry_time now = pry_loop_now(world->loop);
  enter(world, 1, impatient);
  pry_queue_allow(world->set, KEY, 0, now + 60 * PRY_SECOND, now);
  assert_int_equal(pry_queue_key_count(world->set), 1);
  pry_loop_advance(world->loop, 0);
  assert_int_equal(world->askers[1].state, OUTSIDE);
  free_world(world);
}

static void test_an_allowance_ends_and_vanishes(void **state)
{
  (void)state;
  struct world *world = new_world();
  assert_true(pry_queue_allow(world->set, KEY, 1, 30 * PRY_SECOND, 0)); /* before anybody came */
  assert_int_equal(enter(world, 0, bucket(100, 100, 1)), PRY_QUEUE_GRANTED);
  assert_int_equal(enter(world, 1, bucket(100, 100, 1)), PRY_QUEUE_WAITING);
  run_out(world);
  assert_int_equal(world->askers[1].granted_at, 30 * PRY_SECOND);
  assert_int_equal(enter(world, 2, bucket(1, 1, 1)), PRY_QUEUE_GRANTED);
  send_out(world, 2);
  pry_queue_spend(world->set, KEY, 4, pry_loop_now(world->loop));
  release(world, 2);
  pry_loop_advance(world->loop, 4 * PRY_SECOND);
  pry_queue_sweep(world->set, pry_loop_now(world->loop));
  assert_int_equal(pry_queue_key_count(world->set), 1); /* in debt */
  pry_loop_advance(world->loop, PRY_SECOND);
  pry_queue_sweep(world->set, pry_loop_now(world->loop));
  assert_int_equal(pry_queue_key_count(world->set), 0);
  free_world(world);
}

/* ---- stuck workers -------------------------------------------------------------------------------------------- */

/* Askers 1 and 5 are worker 1's. It was to look at the window for all of the line when it got stuck. */
static void test_a_stuck_worker_does_not_keep_the_watch(void **state)
{
  (void)state;
  struct world *world = new_world();
  enter(world, 0, window(1, 10));
  send_out(world, 0);
  enter(world, 1, window(1, 10));
  enter(world, 5, window(1, 10));
  enter(world, 2, window(1, 10));
  pry_loop_advance(world->loop, PRY_SECOND);
  pry_timer_cancel(&world->askers[1].waiter.timer); /* its loop does not turn */
  pry_queue_reclaim(world->set, world->mailboxes[1]);
  pry_loop_advance(world->loop, 9 * PRY_SECOND);
  assert_int_equal(world->askers[2].granted_at, 10 * PRY_SECOND);
  send_out(world, 2);
  pry_loop_advance(world->loop, 20 * PRY_SECOND);
  assert_int_equal(world->askers[1].state, WAITING);
  pry_queue_readmit(world->set, world->mailboxes[1]);
  pry_loop_advance(world->loop, 0);
  assert_int_equal(world->askers[1].granted_at, 30 * PRY_SECOND);
  send_out(world, 1);
  pry_loop_advance(world->loop, 10 * PRY_SECOND);
  assert_int_equal(world->askers[5].granted_at, 40 * PRY_SECOND);
  for (unsigned i = 0; i < 6; i++)
    if (world->askers[i].state == INSIDE)
      release(world, i);
  free_world(world);
}

/* A grant that the stuck worker does not hear of is taken back; the window has lost nothing by it. */
static void test_a_grant_taken_back_is_no_call(void **state)
{
  (void)state;
  struct world *world = new_world();
  enter(world, 0, window(1, 10));
  enter(world, 1, window(1, 10));
  enter(world, 2, window(1, 10));
  release(world, 0); /* 1 has it, and does not hear */
  pry_queue_reclaim(world->set, world->mailboxes[1]);
  pry_loop_advance(world->loop, 0);
  assert_int_equal(world->askers[2].state, INSIDE);
  release(world, 2);
  pry_queue_readmit(world->set, world->mailboxes[1]);
  pry_loop_advance(world->loop, 0);
  assert_int_equal(world->askers[1].state, INSIDE);
  release(world, 1);
  assert_int_equal(pry_queue_key_count(world->set), 0);
  free_world(world);
}

/* ---- at random ------------------------------------------------------------------------------------------------- */

struct tally {
  pry_time sent[ASKERS_MAX * 40];
  unsigned count, left, late;
};

static void random_step(struct world *world, struct tally *tally, unsigned i, struct pry_queue_rule rule)
{
  struct asker *asker = &world->askers[i];
  switch (asker->state) {
  case OUTSIDE:
    rule.longest = random() % 2 ? PRY_TIME_NEVER : (pry_time)random() % (2 * PRY_SECOND);
    tally->late += enter(world, i, rule) == PRY_QUEUE_LATE;
    break;
  case WAITING:
    if (random() % 10)
      break;
    tally->left++;
    leave(world, i);
    break;
  case INSIDE:
    if (random() % 8 && tally->count < sizeof tally->sent / sizeof *tally->sent) {
      send_out(world, i);
      tally->sent[tally->count++] = pry_loop_now(world->loop);
    }
    release(world, i);
  }
}

/* Askers come, leave, send or not, and workers get stuck; whatever happens the rule is kept and everybody who stays gets
 * in. */
static void random_world(unsigned seed, struct pry_queue_rule rule)
{
  static struct tally tally;
  struct world *world = new_world();
  bool stuck[MAILBOXES] = {false};
  tally = (struct tally){.count = 0};
  srandom(seed);
  for (int step = 0; step < 8000; step++) {
    random_step(world, &tally, (unsigned)random() % 64, rule);
    if (random() % 40 == 0) {
      unsigned worker = (unsigned)random() % MAILBOXES;
      stuck[worker] = !stuck[worker];
      (stuck[worker] ? pry_queue_reclaim : pry_queue_readmit)(world->set, world->mailboxes[worker]);
    }
    if (random() % 1000 == 0) {
      pry_time now = pry_loop_now(world->loop);
      pry_queue_pause(world->set, KEY, now + random() % (2 * PRY_SECOND), now);
    }
    if (random() % 3 == 0)
      pry_loop_advance(world->loop, random() % (PRY_SECOND / 20));
  }
  for (unsigned worker = 0; worker < MAILBOXES; worker++)
    pry_queue_readmit(world->set, world->mailboxes[worker]);
  for (unsigned rounds = 0; pry_queue_waiting_total(world->set); rounds++) {
    for (unsigned i = 0; i < 64; i++)
      if (world->askers[i].state == INSIDE)
        random_step(world, &tally, i, rule);
    assert_true(rounds < 10000);
    pry_loop_advance(world->loop, PRY_SECOND / 10);
  }
  for (unsigned i = 0; i < 64; i++)
    if (world->askers[i].state == INSIDE)
      release(world, i);
  assert_true(tally.count > 300 && tally.left > 20 && tally.late > 20);
  for (unsigned i = 0; rule.gate.limit && i + rule.gate.limit < tally.count; i++)
    assert_true(tally.sent[i + rule.gate.limit] - tally.sent[i] >= rule.gate.per);
  for (unsigned i = 0; rule.gate.rate > 0 && i < tally.count; i++)
    for (unsigned j = i; j < tally.count && j < i + 200; j++)
      assert_true(j - i + 1 <=
                  rule.gate.burst + rule.gate.rate * pry_time_to_seconds(tally.sent[j] - tally.sent[i]) + 1e-3);
  pry_loop_advance(world->loop, 3600 * PRY_SECOND);
  pry_queue_sweep(world->set, pry_loop_now(world->loop));
  assert_int_equal(pry_queue_key_count(world->set), 0);
  free_world(world);
}

static void test_windows_and_buckets_at_random(void **state)
{
  (void)state;
  for (unsigned seed = 1; seed <= 10; seed++) {
    random_world(seed, window(10, 0.5));
    random_world(seed, bucket(20, 5, 1));
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_window_lets_in_one_after_the_other),
      cmocka_unit_test(test_a_bucket_lets_in_at_its_rate),
      cmocka_unit_test(test_a_small_cost_does_not_overtake_a_great_one),
      cmocka_unit_test(test_a_place_that_was_not_used_goes_on_at_once),
      cmocka_unit_test(test_who_leaves_hands_the_watch_on),
      cmocka_unit_test(test_who_would_be_late_is_told_at_once),
      cmocka_unit_test(test_places_alone_do_not_know_when),
      cmocka_unit_test(test_a_pause_holds_the_whole_line),
      cmocka_unit_test(test_who_will_be_late_hears_of_it),
      cmocka_unit_test(test_an_allowance_ends_and_vanishes),
      cmocka_unit_test(test_a_stuck_worker_does_not_keep_the_watch),
      cmocka_unit_test(test_a_grant_taken_back_is_no_call),
      cmocka_unit_test(test_windows_and_buckets_at_random),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
