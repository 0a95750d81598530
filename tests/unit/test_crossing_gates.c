/* Where workers meet: one window and one bucket, used from four real loops on four threads at once. */
#include "queue.h"

#include "worker_rig.h"

enum { ASKERS = 16, CALLS = 1200, LIMIT = 40, BURST = 20, RATE = 2000 };

static const pry_time PER = 40 * PRY_MILLISECOND;

struct asker {
  struct pry_queue_waiter waiter;
  struct pry_timer timer; /* ends holding, or waiting */
  struct crowd *crowd;
  struct pry_permit *permit;
  bool waits;
};

/* The calls of one worker. */
struct crowd {
  struct rig_worker *worker;
  struct pry_queue_set *set;
  struct pry_queue_rule rule;
  unsigned left, open;
  pry_time sent[CALLS];
  unsigned count, unsent, died, late;
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

static void held_long_enough(void *user)
{
  struct asker *asker = user;
  struct crowd *crowd = asker->crowd;
  if (rig_random(crowd->worker, 8) == 0) {
    crowd->unsent++;
  } else {
    crowd->sent[crowd->count++] = pry_loop_clock(crowd->worker->loop); /* it counts from a little later on */
    asker->permit->sent(asker->permit);
  }
  if (rig_random(crowd->worker, 120) == 0) { /* a 429: the impatient among those in line hear that they will be late */
    pry_time now = pry_loop_now(crowd->worker->loop);
    pry_queue_pause(crowd->set, PRY_SLICE("k"), now + 90 * PRY_MILLISECOND, now);
  }
  asker->permit->release(asker->permit);
  end_call(asker);
}

static void hold(struct asker *asker, struct pry_permit *permit)
{
  asker->permit = permit;
  asker->waits = false;
  pry_timer_start(asker->crowd->worker->loop, &asker->timer, rig_random(asker->crowd->worker, 2000), held_long_enough,
                  asker);
}

static void on_granted(struct pry_queue_waiter *waiter, struct pry_permit *permit, void *user)
{
  struct asker *asker = user;
  RIG_CHECK(waiter == &asker->waiter && asker->waits);
  if (permit) {
    hold(asker, permit);
    return;
  }
  asker->crowd->late++;
  asker->waits = false;
  end_call(asker);
}

static void client_leaves(void *user)
{
  struct asker *asker = user;
  asker->crowd->died++;
  asker->waits = false;
  pry_queue_leave(&asker->waiter);
  end_call(asker);
}

static void ask(void *user)
{
  struct asker *asker = user;
  struct crowd *crowd = asker->crowd;
  struct pry_queue_answer answer;
  struct pry_queue_rule rule = crowd->rule;
  if (rig_random(crowd->worker, 2))
    rule.longest = 60 * PRY_MILLISECOND;
  enum pry_queue_status status = pry_queue_enter(crowd->set, crowd->worker->mailbox, PRY_SLICE("k"), &rule,
                                                 &asker->waiter, on_granted, asker, &answer);
  asker->waits = status == PRY_QUEUE_WAITING;
  if (status == PRY_QUEUE_GRANTED)
    hold(asker, answer.permit);
  else if (status == PRY_QUEUE_LATE)
    pry_timer_start(crowd->worker->loop, &asker->timer, PRY_MILLISECOND, ask, asker);
  else if (rig_random(crowd->worker, 10) == 0)
    pry_timer_start(crowd->worker->loop, &asker->timer, rig_random(crowd->worker, 20000), client_leaves, asker);
  RIG_CHECK(status != PRY_QUEUE_FULL && status != PRY_QUEUE_NO_MEMORY);
}

static void begin_call(struct asker *asker)
{
  asker->crowd->left--;
  asker->crowd->open++;
  ask(asker);
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
  struct crowd crowds[RIG_WORKERS];
  struct pry_queue_set *set;
  pry_time sent[CALLS];
  unsigned count;
};

static int by_time(const void *a, const void *b)
{
  pry_time x = *(const pry_time *)a, y = *(const pry_time *)b;
  return (x > y) - (x < y);
}

/* Runs all calls by `rule`; when each was sent is in scene->sent, in order. */
static struct scene *run_scene(struct pry_queue_rule rule)
{
  struct scene *scene = calloc(1, sizeof *scene);
  unsigned unsent = 0, died = 0, late = 0;
  scene->set = pry_queue_set_new(0, 0);
  rig_make(scene->workers, RIG_WORKERS);
  for (unsigned i = 0; i < RIG_WORKERS; i++) {
    struct crowd *crowd = &scene->crowds[i];
    *crowd = (struct crowd){.worker = &scene->workers[i], .set = scene->set, .rule = rule, .left = CALLS / RIG_WORKERS};
    for (unsigned j = 0; j < ASKERS; j++)
      crowd->askers[j] = (struct asker){.crowd = crowd};
  }
  rig_go(scene->workers, RIG_WORKERS);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_tell(&scene->workers[i], begin_crowd, &scene->crowds[i]);
  for (unsigned i = 0; i < RIG_WORKERS; i++)
    rig_await(&scene->crowds[i].over);
  rig_end(scene->workers, RIG_WORKERS);
  for (unsigned i = 0; i < RIG_WORKERS; i++) {
    struct crowd *crowd = &scene->crowds[i];
    memcpy(scene->sent + scene->count, crowd->sent, crowd->count * sizeof *crowd->sent);
    scene->count += crowd->count;
    unsent += crowd->unsent;
    died += crowd->died;
    late += crowd->late;
  }
  assert_int_equal(scene->count + unsent + died + late, CALLS);
  assert_true(unsent > 0 && died > 0 && late > 0);
  qsort(scene->sent, scene->count, sizeof *scene->sent, by_time);
  return scene;
}

static void end_scene(struct scene *scene)
{
  assert_int_equal(pry_queue_waiting_total(scene->set), 0);
  pry_queue_sweep(scene->set, PRY_TIME_NEVER / 2);
  assert_int_equal(pry_queue_key_count(scene->set), 0);
  pry_queue_set_free(scene->set);
  rig_free(scene->workers, RIG_WORKERS);
  free(scene);
}

static void test_no_window_is_ever_exceeded(void **state)
{
  (void)state;
  struct scene *scene = run_scene((struct pry_queue_rule){
      .gate = {.limit = LIMIT, .per = PER}, .max_waiting = PRY_QUEUE_ANY, .longest = PRY_TIME_NEVER});
  for (unsigned i = 0; i + LIMIT < scene->count; i++)
    assert_true(scene->sent[i + LIMIT] - scene->sent[i] >= PER);
  end_scene(scene);
}

/* In any span no more than the burst and what has come in it. */
static void test_no_bucket_gives_more_than_it_has(void **state)
{
  (void)state;
  struct scene *scene = run_scene((struct pry_queue_rule){
      .gate = {.rate = RATE, .burst = BURST}, .max_waiting = PRY_QUEUE_ANY, .longest = PRY_TIME_NEVER});
  for (unsigned i = 0; i < scene->count; i++)
    for (unsigned j = i; j < scene->count; j++)
      assert_true(j - i + 1 <= BURST + RATE * pry_time_to_seconds(scene->sent[j] - scene->sent[i]) + 1e-3);
  end_scene(scene);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_no_window_is_ever_exceeded),
      cmocka_unit_test(test_no_bucket_gives_more_than_it_has),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
