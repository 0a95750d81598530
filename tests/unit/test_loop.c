/* The loop: order of timers, both clocks, wake-ups, descriptors and signals. */
#include "loop.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { TRACE_MAX = 4096 };

struct trace {
  struct pry_loop *loop;
  int count;
  int labels[TRACE_MAX];
  pry_time times[TRACE_MAX];
};

struct item {
  struct pry_timer timer;
  struct trace *trace;
  int label;
};

static void note(void *user)
{
  struct item *item = user;
  struct trace *trace = item->trace;
  assert_true(trace->count < TRACE_MAX);
  assert_false(pry_timer_running(&item->timer));
  trace->labels[trace->count] = item->label;
  trace->times[trace->count++] = pry_loop_now(trace->loop);
}

static void start(struct item *item, pry_time delay)
{
  assert_true(pry_timer_start(item->trace->loop, &item->timer, delay, note, item));
}

static void test_seconds(void **state)
{
  (void)state;
  assert_int_equal(pry_time_from_seconds(0), 0);
  assert_int_equal(pry_time_from_seconds(-1), 0);
  assert_int_equal(pry_time_from_seconds(NAN), 0);
  assert_int_equal(pry_time_from_seconds(1.1), 1100000);
  assert_int_equal(pry_time_from_seconds(0.1 + 0.2), 300000);
  assert_int_equal(pry_time_from_seconds(0.0000015), 2);
  assert_int_equal(pry_time_from_seconds(INFINITY), pry_time_from_seconds(1e300));
  assert_true(pry_time_from_seconds(INFINITY) > 3155000000 * PRY_SECOND);
  assert_true(pry_time_from_seconds(INFINITY) < 3160000000 * PRY_SECOND);
  assert_true(fabs(pry_time_to_seconds(2500000) - 2.5) < 1e-12);
}

static void test_virtual_order_and_clock(void **state)
{
  (void)state;
  struct trace trace = {.loop = pry_loop_new_virtual(1000)};
  assert_true(pry_loop_is_virtual(trace.loop));
  assert_null(pry_loop_event_base(trace.loop));
  struct item items[5];
  pry_time delays[] = {3 * PRY_SECOND, PRY_SECOND, 3 * PRY_SECOND, 3600 * PRY_SECOND, PRY_SECOND};
  for (int i = 0; i < 5; i++) {
    items[i] = (struct item){.trace = &trace, .label = i};
    start(&items[i], delays[i]);
  }
  assert_true(pry_loop_turn(trace.loop, PRY_TIME_NEVER));
  assert_int_equal(trace.count, 2);
  assert_int_equal(pry_loop_now(trace.loop), PRY_SECOND);
  assert_false(pry_loop_turn(trace.loop, PRY_SECOND));
  assert_int_equal(pry_loop_now(trace.loop), 2 * PRY_SECOND);
  while (pry_loop_turn(trace.loop, PRY_TIME_NEVER))
    ;
  int expected[] = {1, 4, 0, 2, 3};
  assert_int_equal(trace.count, 5);
  assert_memory_equal(trace.labels, expected, sizeof expected);
  assert_int_equal(trace.times[4], 3600 * PRY_SECOND);
  assert_true(fabs(pry_loop_unix_time(trace.loop) - 4600) < 1e-6);
  pry_loop_free(trace.loop);
}

static void test_heap_against_sorting(void **state)
{
  (void)state;
  enum { COUNT = 1000 };
  struct trace trace = {.loop = pry_loop_new_virtual(0)};
  struct item *items = calloc(COUNT, sizeof *items);
  assert_non_null(items);
  uint32_t random = 12345;
  for (int i = 0; i < COUNT; i++) {
    items[i] = (struct item){.trace = &trace, .label = i};
    random = random * 1664525 + 1013904223;
    start(&items[i], random >> 24);
  }
  int cancelled = 0;
  for (int i = 0; i < COUNT; i += 3, cancelled++)
    pry_timer_cancel(&items[i].timer);
  for (int i = 1; i < COUNT; i += 3)
    start(&items[i], 300 - i % 200);
  pry_loop_advance(trace.loop, 1000);
  assert_int_equal(trace.count, COUNT - cancelled);
  assert_int_equal(pry_loop_now(trace.loop), 1000);
  for (int i = 1; i < trace.count; i++) {
    assert_true(trace.times[i - 1] <= trace.times[i]);
    assert_true(trace.labels[i] % 3 != 0);
    bool same_kind = trace.labels[i] % 3 == trace.labels[i - 1] % 3;
    if (same_kind && trace.times[i - 1] == trace.times[i])
      assert_true(trace.labels[i - 1] < trace.labels[i]);
  }
  free(items);
  pry_loop_free(trace.loop);
}

static void test_cancel_and_move(void **state)
{
  (void)state;
  struct trace trace = {.loop = pry_loop_new_virtual(0)};
  struct item a = {.trace = &trace, .label = 1}, b = {.trace = &trace, .label = 2}, parked = {.trace = &trace};
  pry_timer_cancel(&a.timer);
  start(&a, 5);
  start(&b, 6);
  start(&parked, PRY_TIME_NEVER);
  start(&a, 10);
  pry_timer_cancel(&b.timer);
  pry_timer_cancel(&b.timer);
  assert_false(pry_timer_running(&b.timer));
  start(&b, -7);
  assert_int_equal(trace.count, 0);
  while (pry_loop_turn(trace.loop, PRY_TIME_NEVER))
    ;
  int expected[] = {2, 1};
  assert_int_equal(trace.count, 2);
  assert_memory_equal(trace.labels, expected, sizeof expected);
  assert_int_equal(trace.times[0], 0);
  assert_int_equal(trace.times[1], 10);
  assert_true(pry_timer_running(&parked.timer));
  pry_loop_free(trace.loop);
  assert_false(pry_timer_running(&parked.timer));
}

struct killer {
  struct item *victim;
  struct pry_timer timer;
};

static void kill_victim(void *user)
{
  struct killer *killer = user;
  pry_timer_cancel(&killer->victim->timer);
}

static void test_cancel_what_is_due_in_the_same_pass(void **state)
{
  (void)state;
  struct trace trace = {.loop = pry_loop_new_virtual(0)};
  struct item victim = {.trace = &trace};
  struct killer killer = {.victim = &victim};
  pry_timer_start(trace.loop, &killer.timer, 5, kill_victim, &killer);
  start(&victim, 5);
  pry_loop_advance(trace.loop, 10);
  assert_int_equal(trace.count, 0);
  pry_loop_free(trace.loop);
}

struct repeater {
  struct pry_timer timer;
  struct pry_loop *loop;
  int count;
};

static void repeat(void *user)
{
  struct repeater *repeater = user;
  repeater->count++;
  assert_false(pry_loop_turn(repeater->loop, 0));
  pry_loop_advance(repeater->loop, PRY_SECOND);
  pry_timer_start(repeater->loop, &repeater->timer, 0, repeat, repeater);
}

static void check_one_per_turn(struct pry_loop *loop)
{
  struct repeater repeater = {.loop = loop};
  pry_timer_start(loop, &repeater.timer, 0, repeat, &repeater);
  for (int i = 1; i <= 10; i++) {
    assert_true(pry_loop_turn(loop, 0));
    assert_int_equal(repeater.count, i);
  }
  if (pry_loop_is_virtual(loop))
    assert_int_equal(pry_loop_now(loop), 0);
  pry_timer_cancel(&repeater.timer);
  pry_loop_free(loop);
}

static void test_no_delay_does_not_starve(void **state)
{
  (void)state;
  check_one_per_turn(pry_loop_new_virtual(0));
  check_one_per_turn(pry_loop_new());
}

static void count_up(void *user)
{
  (*(int *)user)++;
}

static void test_virtual_wake(void **state)
{
  (void)state;
  struct trace trace = {.loop = pry_loop_new_virtual(0)};
  struct item later = {.trace = &trace};
  int wakes = 0;
  pry_loop_on_wake(trace.loop, count_up, &wakes);
  start(&later, PRY_SECOND);
  pry_loop_wake(trace.loop);
  pry_loop_wake(trace.loop);
  assert_true(pry_loop_turn(trace.loop, PRY_TIME_NEVER));
  assert_int_equal(wakes, 1);
  assert_int_equal(trace.count, 0);
  assert_int_equal(pry_loop_now(trace.loop), 0);
  pry_loop_run(trace.loop);
  assert_int_equal(trace.count, 1);
  assert_int_equal(wakes, 1);
  pry_loop_free(trace.loop);
}

static void test_reserve(void **state)
{
  (void)state;
  struct pry_loop *loop = pry_loop_new_virtual(0);
  assert_true(pry_loop_reserve(loop, 1000));
  assert_false(pry_loop_reserve(loop, SIZE_MAX / 2));
  assert_true(pry_loop_reserve(loop, 10));
  pry_loop_free(loop);
  pry_loop_free(NULL);
}

static void test_real_timers_are_never_early(void **state)
{
  (void)state;
  enum { COUNT = 20 };
  struct trace trace = {.loop = pry_loop_new()};
  assert_non_null(trace.loop);
  struct item items[COUNT];
  pry_time begin = pry_loop_now(trace.loop);
  for (int i = 0; i < COUNT; i++) {
    items[i] = (struct item){.trace = &trace, .label = i};
    start(&items[i], (COUNT - i) * 700);
  }
  for (int turns = 0; trace.count < COUNT; turns++) {
    assert_true(turns < 1000);
    pry_loop_turn(trace.loop, 50 * PRY_MILLISECOND);
  }
  for (int i = 0; i < COUNT; i++) {
    assert_int_equal(trace.labels[i], COUNT - 1 - i);
    assert_true(trace.times[i] >= begin + (i + 1) * 700);
  }
  assert_false(pry_loop_turn(trace.loop, 0));
  pry_loop_free(trace.loop);
}

static void *wake_from_thread(void *user)
{
  for (int i = 0; i < 100; i++)
    pry_loop_wake(user);
  return NULL;
}

struct stopper {
  struct pry_loop *loop;
  int wakes;
};

static void stop_on_wake(void *user)
{
  struct stopper *stopper = user;
  stopper->wakes++;
  pry_loop_stop(stopper->loop);
}

static void test_real_wake_from_a_thread(void **state)
{
  (void)state;
  struct stopper stopper = {.loop = pry_loop_new()};
  pry_loop_on_wake(stopper.loop, stop_on_wake, &stopper);
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, wake_from_thread, stopper.loop), 0);
  pry_loop_run(stopper.loop);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_true(stopper.wakes >= 1 && stopper.wakes <= 100);
  pry_loop_free(stopper.loop);
}

struct reader {
  struct pry_loop *loop;
  struct pry_watch *watch;
  char got;
  pry_time when;
};

static void read_byte(int fd, void *user)
{
  struct reader *reader = user;
  assert_int_equal(read(fd, &reader->got, 1), 1);
  reader->when = pry_loop_now(reader->loop);
  pry_watch_free(reader->watch);
  reader->watch = NULL;
}

static void test_real_watch_and_fresh_clock(void **state)
{
  (void)state;
  struct reader reader = {.loop = pry_loop_new()};
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  reader.watch = pry_watch_new(reader.loop, ends[0], PRY_LOOP_READABLE, read_byte, &reader);
  assert_non_null(reader.watch);
  assert_true(pry_loop_turn(reader.loop, 2 * PRY_MILLISECOND));
  assert_int_equal(reader.got, 0);
  pry_time before = pry_loop_now(reader.loop);
  assert_int_equal(write(ends[1], "x", 1), 1);
  pry_loop_turn(reader.loop, 50 * PRY_MILLISECOND);
  assert_int_equal(reader.got, 'x');
  assert_true(reader.when >= before);
  assert_false(pry_loop_turn(reader.loop, 0));
  assert_null(pry_watch_new(reader.loop, -1, PRY_LOOP_READABLE, read_byte, &reader));
  close(ends[0]);
  close(ends[1]);
  pry_loop_free(reader.loop);
}

/* A descriptor number that is closed and opened again between turns must still be polled. */
static void test_real_descriptor_reuse(void **state)
{
  (void)state;
  struct reader reader = {.loop = pry_loop_new()};
  for (int i = 0; i < 50; i++) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    reader.got = 0;
    reader.watch = pry_watch_new(reader.loop, ends[0], PRY_LOOP_READABLE, read_byte, &reader);
    if (i % 2) {
      pry_watch_free(reader.watch);
      reader.watch = NULL;
    } else {
      assert_int_equal(write(ends[1], "y", 1), 1);
      pry_loop_turn(reader.loop, PRY_SECOND);
      assert_int_equal(reader.got, 'y');
    }
    close(ends[0]);
    close(ends[1]);
  }
  pry_loop_free(reader.loop);
}

static void on_signal(int signal_number, void *user)
{
  *(int *)user = signal_number;
}

static void test_real_signal(void **state)
{
  (void)state;
  struct pry_loop *loop = pry_loop_new();
  int got = 0;
  assert_true(pry_loop_on_signal(loop, SIGUSR1, on_signal, &got));
  assert_false(pry_loop_turn(loop, 0));
  raise(SIGUSR1);
  for (int i = 0; i < 100 && !got; i++)
    pry_loop_turn(loop, 50 * PRY_MILLISECOND);
  assert_int_equal(got, SIGUSR1);
  pry_loop_free(loop);
}

static void test_virtual_has_no_descriptors(void **state)
{
  (void)state;
  struct pry_loop *loop = pry_loop_new_virtual(0);
  assert_null(pry_watch_new(loop, 0, PRY_LOOP_READABLE, read_byte, NULL));
  assert_false(pry_loop_on_signal(loop, SIGUSR1, on_signal, NULL));
  pry_loop_free(loop);
}

static void test_stop_before_run(void **state)
{
  (void)state;
  struct pry_loop *loop = pry_loop_new();
  pry_loop_stop(loop);
  pry_loop_run(loop);
  pry_loop_free(loop);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_seconds),
      cmocka_unit_test(test_virtual_order_and_clock),
      cmocka_unit_test(test_heap_against_sorting),
      cmocka_unit_test(test_cancel_and_move),
      cmocka_unit_test(test_cancel_what_is_due_in_the_same_pass),
      cmocka_unit_test(test_no_delay_does_not_starve),
      cmocka_unit_test(test_virtual_wake),
      cmocka_unit_test(test_reserve),
      cmocka_unit_test(test_real_timers_are_never_early),
      cmocka_unit_test(test_real_wake_from_a_thread),
      cmocka_unit_test(test_real_watch_and_fresh_clock),
      cmocka_unit_test(test_real_descriptor_reuse),
      cmocka_unit_test(test_real_signal),
      cmocka_unit_test(test_virtual_has_no_descriptors),
      cmocka_unit_test(test_stop_before_run),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
