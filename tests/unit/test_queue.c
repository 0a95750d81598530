/* Places in line: order, bounds, and that no place is ever lost. */
#include "queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define KEY PRY_SLICE("session")

enum { ASKERS_MAX = 64, MAILBOXES = 3 };

enum asker_state { OUTSIDE, WAITING, HOLDING };

struct world;

struct asker {
  struct pry_queue_waiter waiter;
  struct world *world;
  unsigned worker; /* 0, unless a test says otherwise */
  struct pry_permit *permit;
  enum asker_state state;
  pry_time granted_at;
};

struct world {
  struct pry_loop *loop;
  struct pry_mailbox *mailboxes[MAILBOXES]; /* workers, as the queue sees them */
  struct pry_queue_set *set;
  struct asker askers[ASKERS_MAX];
  unsigned order[4096], granted; /* askers in the order of their grants through the waiter */
  bool inside;                   /* a call of the queue is under way: no grant may come */
};

static void on_granted(struct pry_queue_waiter *waiter, struct pry_permit *permit, void *user)
{
  struct asker *asker = user;
  assert_ptr_equal(waiter, &asker->waiter);
  assert_non_null(permit);
  assert_int_equal(asker->state, WAITING);
  assert_false(asker->world->inside);
  asker->state = HOLDING;
  asker->permit = permit;
  asker->granted_at = pry_loop_now(asker->world->loop);
  asker->world->order[asker->world->granted++] = (unsigned)(asker - asker->world->askers);
}

static struct world *new_world(size_t max_waiting, size_t max_total)
{
  struct world *world = calloc(1, sizeof *world);
  world->loop = pry_loop_new_virtual(0);
  for (unsigned i = 0; i < MAILBOXES; i++)
    world->mailboxes[i] = pry_mailbox_new(world->loop);
  world->set = pry_queue_set_new(max_waiting, max_total);
  for (size_t i = 0; i < ASKERS_MAX; i++)
    world->askers[i].world = world;
  return world;
}

static void free_loop(struct world *world)
{
  for (unsigned i = 0; i < MAILBOXES; i++)
    pry_mailbox_free(world->mailboxes[i]);
  pry_loop_free(world->loop);
  free(world);
}

static void free_world(struct world *world)
{
  assert_int_equal(pry_queue_key_count(world->set), 0);
  assert_int_equal(pry_queue_waiting_total(world->set), 0);
  pry_queue_set_free(world->set);
  free_loop(world);
}

static enum pry_queue_status enter_key(struct world *world, unsigned i, struct pry_slice key, unsigned slots)
{
  struct asker *asker = &world->askers[i];
  world->inside = true;
  struct pry_queue_rule rule = pry_queue_places(slots);
  struct pry_queue_answer answer;
  enum pry_queue_status status = pry_queue_enter(world->set, world->mailboxes[asker->worker], key, &rule,
                                                 &asker->waiter, on_granted, asker, &answer);
  asker->permit = answer.permit;
  world->inside = false;
  assert_int_equal(status == PRY_QUEUE_GRANTED, asker->permit != NULL);
  asker->state = status == PRY_QUEUE_GRANTED ? HOLDING : status == PRY_QUEUE_WAITING ? WAITING : OUTSIDE;
  return status;
}

static enum pry_queue_status enter(struct world *world, unsigned i, unsigned slots)
{
  return enter_key(world, i, KEY, slots);
}

static void release(struct world *world, unsigned i)
{
  struct asker *asker = &world->askers[i];
  assert_int_equal(asker->state, HOLDING);
  world->inside = true;
  asker->permit->release(asker->permit);
  world->inside = false;
  asker->permit = NULL;
  asker->state = OUTSIDE;
}

static void leave(struct world *world, unsigned i)
{
  world->inside = true;
  pry_queue_leave(&world->askers[i].waiter);
  world->inside = false;
  if (world->askers[i].state == WAITING)
    world->askers[i].state = OUTSIDE;
}

static void turn(struct world *world)
{
  pry_loop_advance(world->loop, 0);
}

static void assert_counts(struct world *world, size_t held, size_t waiting)
{
  struct pry_queue_state state;
  pry_queue_look(world->set, KEY, pry_loop_now(world->loop), &state);
  assert_int_equal(state.held, held);
  assert_int_equal(state.waiting, waiting);
}

static void test_first_come_first_served(void **state)
{
  (void)state;
  struct world *world = new_world(0, 0);
  assert_int_equal(enter(world, 0, 2), PRY_QUEUE_GRANTED);
  assert_int_equal(enter(world, 1, 2), PRY_QUEUE_GRANTED);
  for (unsigned i = 2; i < 6; i++)
    assert_int_equal(enter(world, i, 2), PRY_QUEUE_WAITING);
  assert_counts(world, 2, 4);
  assert_int_equal(pry_queue_waiting_total(world->set), 4);
  release(world, 1);
  assert_int_equal(world->granted, 0); /* not from inside the release */
  turn(world);
  assert_int_equal(world->granted, 1);
  release(world, 0);
  release(world, 2);
  turn(world);
  release(world, 3);
  turn(world);
  assert_int_equal(world->granted, 4);
  for (unsigned i = 0; i < 4; i++)
    assert_int_equal(world->order[i], i + 2);
  release(world, 4);
  assert_counts(world, 1, 0);
  release(world, 5);
  assert_counts(world, 0, 0);
  free_world(world);
}

static void test_nobody_overtakes(void **state)
{
  (void)state;
  struct world *world = new_world(0, 0);
  enter(world, 0, 1);
  enter(world, 1, 1);
  release(world, 0); /* the place is already 1's, though 1 has not heard of it */
  assert_int_equal(enter(world, 2, 1), PRY_QUEUE_WAITING);
  turn(world);
  assert_int_equal(world->askers[1].state, HOLDING);
  assert_int_equal(world->askers[2].state, WAITING);
  leave(world, 2);
  release(world, 1);
  free_world(world);
}

static void test_a_grant_nobody_takes_goes_on(void **state)
{
  (void)state;
  struct world *world = new_world(0, 0);
  for (unsigned i = 0; i < 4; i++)
    enter(world, i, 1);
  release(world, 0);
  leave(world, 1); /* its grant is on the way */
  leave(world, 1); /* safe twice */
  leave(world, 2);
  turn(world);
  assert_int_equal(world->granted, 1);
  assert_int_equal(world->askers[3].state, HOLDING);
  release(world, 3);
  assert_int_equal(enter(world, 0, 1), PRY_QUEUE_GRANTED);
  leave(world, 0); /* holds, does not wait: nothing to leave */
  assert_counts(world, 1, 0);
  release(world, 0);
  free_world(world);
}

static void test_slots_of_the_latest_asker(void **state)
{
  (void)state;
  struct world *world = new_world(0, 0);
  enter(world, 0, 1);
  enter(world, 1, 1);
  enter(world, 2, 1);
  assert_int_equal(enter(world, 3, 3), PRY_QUEUE_WAITING); /* wider: those in front go first */
  turn(world);
  assert_int_equal(world->granted, 2);
  assert_counts(world, 3, 1);
  assert_int_equal(enter(world, 4, 1), PRY_QUEUE_WAITING); /* narrower: nobody is thrown out */
  assert_counts(world, 3, 2);
  release(world, 0);
  release(world, 1);
  turn(world);
  assert_int_equal(world->granted, 2);
  release(world, 2);
  turn(world);
  assert_int_equal(world->order[2], 3);
  release(world, 3);
  turn(world);
  release(world, 4);
  assert_int_equal(enter(world, 0, 0), PRY_QUEUE_GRANTED); /* zero slots would be a dead end */
  release(world, 0);
  free_world(world);
}

static void test_bounds(void **state)
{
  (void)state;
  struct world *world = new_world(2, 3);
  enter_key(world, 0, PRY_SLICE("a"), 1);
  enter_key(world, 1, PRY_SLICE("b"), 1);
  enter_key(world, 2, PRY_SLICE("a"), 1);
  enter_key(world, 3, PRY_SLICE("a"), 1);
  assert_int_equal(enter_key(world, 4, PRY_SLICE("a"), 1), PRY_QUEUE_FULL);
  leave(world, 4);
  assert_int_equal(enter_key(world, 4, PRY_SLICE("b"), 1), PRY_QUEUE_WAITING);
  assert_int_equal(enter_key(world, 5, PRY_SLICE("b"), 1), PRY_QUEUE_FULL); /* of the whole set */
  assert_int_equal(enter_key(world, 5, PRY_SLICE("c"), 1), PRY_QUEUE_GRANTED);
  assert_int_equal(pry_queue_key_count(world->set), 3);
  leave(world, 2);
  assert_int_equal(enter_key(world, 6, PRY_SLICE("b"), 1), PRY_QUEUE_WAITING);
  leave(world, 3);
  leave(world, 4);
  leave(world, 6);
  release(world, 0);
  release(world, 1);
  release(world, 5);
  free_world(world);
}

static void test_permits_may_outlive_the_set(void **state)
{
  (void)state;
  struct world *world = new_world(0, 0);
  enter_key(world, 0, PRY_SLICE("a"), 2);
  enter_key(world, 1, PRY_SLICE("a"), 2);
  enter_key(world, 2, PRY_SLICE("b"), 1);
  pry_queue_set_free(world->set);
  for (unsigned i = 0; i < 3; i++)
    release(world, i);
  free_loop(world);
}

/* ---- stuck workers --------------------------------------------------------------------------------------- */

static void reclaim(struct world *world, unsigned worker)
{
  world->inside = true;
  pry_queue_reclaim(world->set, world->mailboxes[worker]);
  world->inside = false;
}

static void readmit(struct world *world, unsigned worker)
{
  world->inside = true;
  pry_queue_readmit(world->set, world->mailboxes[worker]);
  world->inside = false;
}

static void enter_as(struct world *world, unsigned i, unsigned worker, unsigned slots, enum pry_queue_status expected)
{
  world->askers[i].worker = worker;
  assert_int_equal(enter(world, i, slots), expected);
}

static void assert_order(struct world *world, const char *expected)
{
  char order[64] = "";
  for (unsigned i = 0; i < world->granted; i++)
    order[i] = (char)('0' + world->order[i]);
  assert_string_equal(order, expected);
}

/* Askers 1, 2 and 4 are the stuck worker's. */
static void test_stuck_worker_is_passed_over(void **state)
{
  (void)state;
  struct world *world = new_world(0, 0);
  enter_as(world, 0, 0, 1, PRY_QUEUE_GRANTED);
  enter_as(world, 1, 1, 1, PRY_QUEUE_WAITING);
  enter_as(world, 2, 1, 1, PRY_QUEUE_WAITING);
  enter_as(world, 3, 0, 1, PRY_QUEUE_WAITING);
  enter_as(world, 4, 1, 1, PRY_QUEUE_WAITING);
  enter_as(world, 5, 2, 1, PRY_QUEUE_WAITING);
  release(world, 0); /* 1 has it, and does not hear */
  assert_counts(world, 1, 4);
  reclaim(world, 1);
  assert_true(pry_mailbox_is_stuck(world->mailboxes[1]));
  assert_counts(world, 1, 4); /* 1 stands in line again, 3 has it */
  reclaim(world, 1);          /* repeating it changes nothing */
  turn(world);
  assert_order(world, "3");
  release(world, 3);
  turn(world);
  assert_order(world, "35");
  release(world, 5);
  turn(world);
  assert_order(world, "35");
  assert_counts(world, 0, 3); /* a free place, and nobody who could take it */
  readmit(world, 1);
  turn(world);
  assert_order(world, "351"); /* in its place: in front */
  release(world, 1);
  turn(world);
  release(world, 2);
  turn(world);
  assert_order(world, "35124");
  release(world, 4);
  free_world(world);
}

static void test_several_grants_are_taken_back_in_order(void **state)
{
  (void)state;
  struct world *world = new_world(0, 0);
  for (unsigned i = 0; i < 3; i++)
    enter_as(world, i, 0, 3, PRY_QUEUE_GRANTED);
  for (unsigned i = 3; i < 7; i++)
    enter_as(world, i, 1, 3, PRY_QUEUE_WAITING);
  for (unsigned i = 0; i < 3; i++)
    release(world, i);
  reclaim(world, 1);
  assert_counts(world, 0, 4);
  readmit(world, 1);
  readmit(world, 1); /* safe when it is not stuck */
  turn(world);
  assert_order(world, "345");
  for (unsigned i = 3; i < 6; i++)
    release(world, i);
  turn(world);
  release(world, 6);
  free_world(world);
}

static void test_entering_past_a_stuck_worker(void **state)
{
  (void)state;
  struct world *world = new_world(0, 0);
  enter_as(world, 0, 0, 1, PRY_QUEUE_GRANTED);
  enter_as(world, 1, 1, 1, PRY_QUEUE_WAITING);
  reclaim(world, 1);
  release(world, 0);
  assert_counts(world, 0, 1);
  enter_as(world, 2, 1, 1, PRY_QUEUE_WAITING); /* not past one's own */
  enter_as(world, 3, 2, 1, PRY_QUEUE_GRANTED);
  release(world, 3);
  leave(world, 1);
  leave(world, 2);
  assert_int_equal(pry_queue_key_count(world->set), 0);
  enter_as(world, 2, 1, 1, PRY_QUEUE_GRANTED); /* whoever asks is not so stuck */
  release(world, 2);
  readmit(world, 1);
  turn(world);
  assert_order(world, "");
  free_world(world);
}

/* Lines that were starved are served in the order in which they became so, run after run. */
static void test_readmitted_in_order(void **state)
{
  (void)state;
  struct world *world = new_world(0, 0);
  char key[8];
  for (unsigned i = 0; i < 8; i++) {
    snprintf(key, sizeof key, "key %u", i);
    enter_key(world, i, pry_slice_of(key), 1);
    world->askers[8 + i].worker = 1;
    enter_key(world, 8 + i, pry_slice_of(key), 1);
  }
  reclaim(world, 1);
  static const unsigned order[] = {5, 2, 7, 0, 1, 6, 4, 3};
  for (unsigned i = 0; i < 8; i++)
    release(world, order[i]);
  readmit(world, 1);
  turn(world);
  for (unsigned i = 0; i < 8; i++) {
    assert_int_equal(world->order[i], 8 + order[i]);
    release(world, 8 + order[i]);
  }
  free_world(world);
}

/* ---- at random, against a plain line -------------------------------------------------------------------- */

/* The line as it should be: who holds or has been given a place, and who waits, first to last. */
struct model {
  unsigned line[ASKERS_MAX], waiting;
  unsigned on_the_way[ASKERS_MAX], coming;
  unsigned held, slots;
  bool stuck[MAILBOXES];
};

static unsigned worker_of(unsigned asker)
{
  return asker % MAILBOXES;
}

static void remove_from(unsigned *list, unsigned *count, unsigned at)
{
  --*count;
  for (unsigned i = at; i < *count; i++)
    list[i] = list[i + 1];
}

static bool remove_asker(unsigned *list, unsigned *count, unsigned asker)
{
  for (unsigned i = 0; i < *count; i++) {
    if (list[i] != asker)
      continue;
    remove_from(list, count, i);
    return true;
  }
  return false;
}

static void model_serve(struct model *model)
{
  for (unsigned i = 0; model->held < model->slots && i < model->waiting;) {
    unsigned asker = model->line[i];
    if (model->stuck[worker_of(asker)]) {
      i++;
      continue;
    }
    model->on_the_way[model->coming++] = asker;
    remove_from(model->line, &model->waiting, i);
    model->held++;
  }
}

static bool model_waits(const struct model *model, unsigned worker)
{
  for (unsigned i = 0; i < model->waiting; i++)
    if (worker_of(model->line[i]) == worker)
      return true;
  return false;
}

static void step_enter(struct world *world, struct model *model, unsigned i)
{
  model->slots = random() % 8 ? model->slots : 1 + (unsigned)random() % 5;
  model_serve(model);
  bool at_once = model->held < model->slots && !model_waits(model, worker_of(i));
  assert_int_equal(enter(world, i, model->slots), at_once ? PRY_QUEUE_GRANTED : PRY_QUEUE_WAITING);
  if (at_once)
    model->held++;
  else
    model->line[model->waiting++] = i;
}

static void step_stuck(struct world *world, struct model *model, unsigned worker)
{
  model->stuck[worker] = !model->stuck[worker];
  if (!model->stuck[worker]) {
    readmit(world, worker);
    model_serve(model);
    return;
  }
  reclaim(world, worker);
  for (unsigned i = model->coming; i--;) {
    unsigned asker = model->on_the_way[i];
    if (worker_of(asker) != worker)
      continue;
    remove_from(model->on_the_way, &model->coming, i);
    memmove(model->line + 1, model->line, model->waiting++ * sizeof *model->line);
    model->line[0] = asker;
    model->held--;
  }
  model_serve(model);
}

static void step_leave(struct world *world, struct model *model, unsigned i)
{
  leave(world, i);
  if (remove_asker(model->line, &model->waiting, i))
    return;
  assert_true(remove_asker(model->on_the_way, &model->coming, i));
  model->held--;
  model_serve(model);
}

/* Each worker hears of its grants in their order. */
static void step_turn(struct world *world, struct model *model)
{
  turn(world);
  assert_int_equal(world->granted, model->coming);
  for (unsigned worker = 0; worker < MAILBOXES; worker++) {
    unsigned at = 0;
    for (unsigned i = 0; i < model->coming; i++) {
      if (worker_of(model->on_the_way[i]) != worker)
        continue;
      while (worker_of(world->order[at]) != worker)
        at++;
      assert_int_equal(world->order[at++], model->on_the_way[i]);
    }
  }
  model->coming = 0;
  world->granted = 0;
}

static void test_random_against_model(void **state)
{
  (void)state;
  unsigned longest = 0;
  for (unsigned seed = 1; seed <= 30; seed++) {
    srandom(seed);
    struct world *world = new_world(0, 0);
    struct model model = {.slots = 2};
    for (unsigned i = 0; i < ASKERS_MAX; i++)
      world->askers[i].worker = worker_of(i);
    for (int step = 0; step < 4000; step++) {
      unsigned i = (unsigned)random() % ASKERS_MAX;
      switch (world->askers[i].state) {
      case OUTSIDE:
        step_enter(world, &model, i);
        break;
      case WAITING:
        if (random() % 4 == 0)
          step_leave(world, &model, i);
        break;
      case HOLDING:
        if (random() % 2)
          break;
        release(world, i);
        model.held--;
        model_serve(&model);
      }
      if (random() % 20 == 0)
        step_stuck(world, &model, (unsigned)random() % MAILBOXES);
      assert_counts(world, model.held, model.waiting);
      longest = model.waiting > longest ? model.waiting : longest;
      if (random() % 3 == 0)
        step_turn(world, &model);
    }
    for (unsigned worker = 0; worker < MAILBOXES; worker++)
      readmit(world, worker);
    for (unsigned left = 1; left;) { /* everybody else finishes: the last in line gets a place, too */
      left = 0;
      for (unsigned i = 0; i < ASKERS_MAX; i++) {
        if (world->askers[i].state == HOLDING)
          release(world, i);
        left += world->askers[i].state != OUTSIDE;
      }
      world->granted = 0;
      turn(world);
      assert_true(!left || world->granted);
    }
    free_world(world);
  }
  assert_true(longest > 20);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_first_come_first_served),
      cmocka_unit_test(test_nobody_overtakes),
      cmocka_unit_test(test_a_grant_nobody_takes_goes_on),
      cmocka_unit_test(test_slots_of_the_latest_asker),
      cmocka_unit_test(test_bounds),
      cmocka_unit_test(test_permits_may_outlive_the_set),
      cmocka_unit_test(test_stuck_worker_is_passed_over),
      cmocka_unit_test(test_several_grants_are_taken_back_in_order),
      cmocka_unit_test(test_entering_past_a_stuck_worker),
      cmocka_unit_test(test_readmitted_in_order),
      cmocka_unit_test(test_random_against_model),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
