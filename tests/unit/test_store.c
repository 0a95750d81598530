/* The store: types, times to live, bounds, and many threads at once. */
#include "store.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define KEY PRY_SLICE("key")
#define HOUR (3600 * PRY_SECOND)

static struct pry_store *new_store(size_t max_keys, size_t max_bytes)
{
  struct pry_store *store = pry_store_new(max_keys, max_bytes);
  assert_non_null(store);
  return store;
}

static void assert_value(struct pry_store *store, struct pry_slice key, const char *expected, pry_time now)
{
  struct pry_buffer value;
  pry_buffer_init(&value, 0);
  enum pry_store_status status = pry_store_get(store, key, &value, now);
  assert_int_equal(status, expected ? PRY_STORE_OK : PRY_STORE_ABSENT);
  if (expected)
    assert_true(pry_slice_equal(pry_buffer_slice(&value), pry_slice_of(expected)));
  pry_buffer_fini(&value);
}

static void test_values(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 0);
  assert_value(store, KEY, NULL, 0);
  assert_int_equal(pry_store_set(store, KEY, PRY_SLICE("one"), 10 * PRY_SECOND, 0), PRY_STORE_OK);
  assert_value(store, KEY, "one", 0);
  assert_int_equal(pry_store_set(store, KEY, PRY_SLICE(""), 10 * PRY_SECOND, 0), PRY_STORE_OK);
  assert_value(store, KEY, "", 0);
  assert_int_equal(pry_store_set(store, KEY, PRY_SLICE("a longer one"), 10 * PRY_SECOND, 5 * PRY_SECOND), PRY_STORE_OK);
  assert_value(store, KEY, "a longer one", 15 * PRY_SECOND - 1);
  assert_value(store, KEY, NULL, 15 * PRY_SECOND);
  assert_int_equal(pry_store_key_count(store), 0);

  bool stored;
  assert_int_equal(pry_store_add(store, KEY, PRY_SLICE("mine"), PRY_SECOND, 0, &stored), PRY_STORE_OK);
  assert_true(stored);
  assert_int_equal(pry_store_add(store, KEY, PRY_SLICE("yours"), HOUR, 0, &stored), PRY_STORE_OK);
  assert_false(stored);
  assert_value(store, KEY, "mine", PRY_SECOND - 1);
  assert_int_equal(pry_store_add(store, KEY, PRY_SLICE("yours"), HOUR, PRY_SECOND, &stored), PRY_STORE_OK);
  assert_true(stored); /* the claim had run out, and the refused one had not renewed it */

  assert_int_equal(pry_store_remove(store, KEY, PRY_SECOND), PRY_STORE_OK);
  assert_int_equal(pry_store_remove(store, KEY, PRY_SECOND), PRY_STORE_ABSENT);
  pry_store_free(store);
}

static void test_times_to_live(void **state)
{
  (void)state;
  static const struct {
    pry_time ttl, last_alive;
  } cases[] = {
      {0, HOUR - 1},
      {-5, HOUR - 1},
      {1, 0},
      {30 * PRY_SECOND, 30 * PRY_SECOND - 1},
      {PRY_TIME_NEVER, PRY_TIME_NEVER - 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct pry_store *store = new_store(0, 0);
    pry_store_set(store, KEY, PRY_SLICE("v"), cases[i].ttl, 0);
    pry_store_sweep(store, cases[i].last_alive);
    assert_value(store, KEY, "v", cases[i].last_alive);
    pry_store_sweep(store, cases[i].last_alive + 1);
    assert_int_equal(pry_store_key_count(store), 0);
    pry_store_free(store);
  }
}

/* Each write renews: shorter counts at once, longer is found when the old time comes up. */
static void test_renewal_moves_expiry(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 0);
  double total;
  pry_store_count(store, KEY, 1, 10 * PRY_SECOND, 0, &total);
  pry_store_count(store, KEY, 1, 10 * PRY_SECOND, 8 * PRY_SECOND, &total);
  pry_store_sweep(store, 17 * PRY_SECOND);
  pry_store_counter(store, KEY, 17 * PRY_SECOND, &total);
  assert_true(total == 2);
  pry_store_count(store, KEY, 1, 1 * PRY_SECOND, 17 * PRY_SECOND, &total);
  pry_store_sweep(store, 18 * PRY_SECOND);
  assert_int_equal(pry_store_key_count(store), 0);
  pry_store_free(store);
}

/* Many keys, each written again and again with other times: exactly what is alive is there. */
static void test_expiry_against_model(void **state)
{
  (void)state;
  enum { KEYS = 300 };
  srandom(11);
  struct pry_store *store = new_store(0, 0);
  pry_time expires[KEYS] = {0}, now = 0;
  for (int step = 0; step < 20000; step++) {
    unsigned i = (unsigned)random() % KEYS;
    char key[32];
    snprintf(key, sizeof key, "key %u", i);
    pry_time ttl = 1 + random() % (random() % 2 ? 1000 : 30);
    now += random() % 3;
    if (random() % 16 == 0) {
      pry_store_remove(store, pry_slice_of(key), now);
      expires[i] = 0;
    } else {
      assert_int_equal(pry_store_set(store, pry_slice_of(key), PRY_SLICE("v"), ttl, now), PRY_STORE_OK);
      expires[i] = now + ttl;
    }
    if (step % 10)
      continue;
    pry_store_sweep(store, now);
    size_t alive = 0;
    for (unsigned j = 0; j < KEYS; j++)
      alive += expires[j] > now;
    assert_int_equal(pry_store_key_count(store), alive);
  }
  pry_store_free(store);
}

static void test_counters(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 0);
  double total = 9;
  assert_int_equal(pry_store_counter(store, KEY, 0, &total), PRY_STORE_OK);
  assert_true(total == 0);
  assert_int_equal(pry_store_key_count(store), 0); /* reading makes nothing */
  static const struct {
    double by, total;
  } cases[] = {{1, 1}, {2.5, 3.5}, {-4, -0.5}, {NAN, -0.5}, {INFINITY, DBL_MAX}, {-INFINITY, -DBL_MAX}, {DBL_MAX, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_int_equal(pry_store_count(store, KEY, cases[i].by, 0, 0, &total), PRY_STORE_OK);
    assert_true(total == cases[i].total);
  }
  pry_store_free(store);
}

static void test_quotas(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 0);
  bool taken = false;
  double left = 0;
  assert_int_equal(pry_store_give(store, KEY, 5, 0, 0), PRY_STORE_OK);
  assert_int_equal(pry_store_key_count(store), 0); /* a full quota takes no room */
  assert_int_equal(pry_store_take(store, KEY, 6, 5, 0, 0, 0, &taken, &left), PRY_STORE_OK);
  assert_false(taken);
  assert_int_equal(pry_store_key_count(store), 0);
  static const struct {
    double amount, reserve, left;
    bool taken;
  } steps[] = {{2, 0, 3, true}, {2, 2, 3, false}, {1, 2, 2, true}, {0.5, 0, 1.5, true}, {2, 0, 1.5, false}};
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    assert_int_equal(pry_store_take(store, KEY, steps[i].amount, 5, steps[i].reserve, 0, 0, &taken, &left),
                     PRY_STORE_OK);
    assert_int_equal(taken, steps[i].taken);
    assert_true(left == steps[i].left);
  }
  assert_int_equal(pry_store_give(store, KEY, 1, 0, 0), PRY_STORE_OK);
  assert_int_equal(pry_store_take(store, KEY, 0, 2, 0, 0, 0, &taken, &left), PRY_STORE_OK);
  assert_false(taken); /* more is used than a smaller capacity has */
  assert_int_equal(pry_store_give(store, KEY, 100, 0, 0), PRY_STORE_OK);
  assert_int_equal(pry_store_key_count(store), 0);
  assert_int_equal(pry_store_take(store, KEY, 5, 5, 0, PRY_SECOND, 0, &taken, &left), PRY_STORE_OK);
  assert_true(taken);
  assert_int_equal(pry_store_take(store, KEY, 5, 5, 0, PRY_SECOND, 2 * PRY_SECOND, &taken, &left), PRY_STORE_OK);
  assert_true(taken); /* forgotten is full */
  pry_store_free(store);
}

static void test_windows(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 0);
  pry_time minute = 60 * PRY_SECOND;
  unsigned count = 9;
  assert_int_equal(pry_store_window_count(store, KEY, minute, 0, &count), PRY_STORE_OK);
  assert_int_equal(count, 0);
  for (unsigned i = 1; i <= 8; i++) { /* one every ten seconds, at most five remembered */
    assert_int_equal(pry_store_window_add(store, KEY, minute, 5, i * 10 * PRY_SECOND, &count), PRY_STORE_OK);
    assert_int_equal(count, i < 5 ? i : 5);
  }
  static const struct {
    int now, length;
    unsigned count;
  } cases[] = {
      {80, 60, 5}, {99, 60, 5}, {100, 60, 4}, {109, 60, 4},  {139, 60, 1},
      {81, 10, 1}, {81, 11, 1}, {81, 12, 2},  {80, 1000, 5},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pry_store_window_count(store, KEY, cases[i].length * PRY_SECOND, cases[i].now * PRY_SECOND, &count);
    assert_int_equal(count, cases[i].count);
  }
  pry_store_window_add(store, KEY, minute, 3, 81 * PRY_SECOND, &count);
  assert_int_equal(count, 3); /* a smaller limit forgets the oldest */
  pry_store_window_add(store, KEY, minute, 5, 82 * PRY_SECOND, &count);
  assert_int_equal(count, 4);                                           /* and a larger one has room again */
  pry_store_window_add(store, KEY, minute, 5, 70 * PRY_SECOND, &count); /* a clock that is behind */
  pry_store_window_count(store, KEY, PRY_SECOND, 82 * PRY_SECOND, &count);
  assert_int_equal(count, 2);
  assert_int_equal(pry_store_window_clear(store, KEY, 82 * PRY_SECOND), PRY_STORE_OK);
  assert_int_equal(pry_store_window_clear(store, KEY, 82 * PRY_SECOND), PRY_STORE_OK);
  pry_store_window_count(store, KEY, minute, 82 * PRY_SECOND, &count);
  assert_int_equal(count, 0);
  pry_store_free(store);
}

static void test_window_limits(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 0);
  unsigned count;
  for (unsigned i = 0; i < 2000; i++)
    assert_int_equal(pry_store_window_add(store, KEY, HOUR, UINT32_MAX, i, &count), PRY_STORE_OK);
  assert_int_equal(count, PRY_STORE_WINDOW_MAX);
  pry_store_window_add(store, KEY, HOUR, 0, 2000, &count);
  assert_int_equal(count, 1);
  pry_store_free(store);
}

/* Against a plain list of instants. */
static void test_window_model(void **state)
{
  (void)state;
  srandom(7);
  struct pry_store *store = new_store(0, 0);
  pry_time instants[3000], now = 0;
  unsigned known = 0;
  for (int step = 0; step < 3000; step++) {
    now += random() % 3000;
    pry_time length = 1 + random() % 60000;
    unsigned count, expected = 0, limit = 20;
    pry_store_window_add(store, KEY, 10 * PRY_SECOND, limit, now, &count);
    instants[known++] = now;
    pry_store_window_count(store, KEY, length, now, &count);
    for (unsigned i = known > limit ? known - limit : 0; i < known; i++)
      expected += instants[i] > now - length;
    assert_int_equal(count, expected);
  }
  pry_store_free(store);
}

static void test_types_do_not_mix(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 0);
  pry_store_set(store, KEY, PRY_SLICE("text"), PRY_SECOND, 0);
  double total;
  unsigned count;
  bool flag;
  struct pry_buffer value;
  pry_buffer_init(&value, 0);
  struct pry_breaker_parameters parameters = {1, 1, 1, PRY_SECOND, .half_open_limit = 0};
  struct pry_breaker_entry entry;
  enum pry_breaker_state breaker_state;
  pry_time retry_in;
  struct pry_list permits;
  pry_list_init(&permits);
  assert_int_equal(pry_store_count(store, KEY, 1, 0, 0, &total), PRY_STORE_WRONG_TYPE);
  assert_int_equal(pry_store_counter(store, KEY, 0, &total), PRY_STORE_WRONG_TYPE);
  assert_int_equal(pry_store_window_add(store, KEY, HOUR, 3, 0, &count), PRY_STORE_WRONG_TYPE);
  assert_int_equal(pry_store_window_count(store, KEY, HOUR, 0, &count), PRY_STORE_WRONG_TYPE);
  assert_int_equal(pry_store_window_clear(store, KEY, 0), PRY_STORE_WRONG_TYPE);
  assert_int_equal(pry_breaker_enter(store, KEY, &parameters, 0, &entry), PRY_STORE_WRONG_TYPE);
  assert_false(entry.allowed);
  assert_null(entry.permit);
  assert_int_equal(pry_breaker_peek(store, KEY, 0, &breaker_state, &retry_in), PRY_STORE_WRONG_TYPE);
  assert_int_equal(pry_breaker_record(store, KEY, &parameters, &permits, true, 0, 0, &breaker_state, &flag),
                   PRY_STORE_WRONG_TYPE);
  assert_value(store, KEY, "text", 0);
  /* The key's next life may be of another type. */
  assert_int_equal(pry_store_count(store, KEY, 1, 0, PRY_SECOND, &total), PRY_STORE_OK);
  assert_int_equal(pry_store_get(store, KEY, &value, PRY_SECOND), PRY_STORE_WRONG_TYPE);
  assert_int_equal(pry_store_set(store, KEY, PRY_SLICE("x"), 0, PRY_SECOND), PRY_STORE_WRONG_TYPE);
  assert_int_equal(pry_store_add(store, KEY, PRY_SLICE("x"), 0, PRY_SECOND, &flag), PRY_STORE_WRONG_TYPE);
  pry_buffer_fini(&value);
  pry_store_free(store);
}

static void test_lengths(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 0);
  static char bytes[PRY_STORE_VALUE_MAX + 1];
  struct pry_slice long_key = {bytes, PRY_STORE_KEY_MAX + 1}, longest_key = {bytes, PRY_STORE_KEY_MAX};
  assert_int_equal(pry_store_set(store, long_key, PRY_SLICE("v"), 0, 0), PRY_STORE_TOO_LONG);
  assert_int_equal(pry_store_remove(store, long_key, 0), PRY_STORE_TOO_LONG);
  assert_int_equal(pry_store_set(store, KEY, (struct pry_slice){bytes, sizeof bytes}, 0, 0), PRY_STORE_TOO_LONG);
  assert_int_equal(pry_store_key_count(store), 0);
  assert_int_equal(pry_store_set(store, longest_key, (struct pry_slice){bytes, PRY_STORE_VALUE_MAX}, 0, 0),
                   PRY_STORE_OK);
  assert_int_equal(pry_store_set(store, PRY_SLICE(""), PRY_SLICE("v"), 0, 0), PRY_STORE_OK);
  for (enum pry_store_status status = PRY_STORE_OK; status <= PRY_STORE_NO_MEMORY; status++)
    assert_true(pry_store_status_text(status)[0]);
  pry_store_free(store);
}

static enum pry_store_status count_numbered(struct pry_store *store, unsigned number, pry_time ttl, pry_time now)
{
  char key[32];
  double total;
  snprintf(key, sizeof key, "key %u", number);
  return pry_store_count(store, pry_slice_of(key), 1, ttl, now, &total);
}

static void test_bound_of_keys(void **state)
{
  (void)state;
  struct pry_store *store = new_store(100, 0);
  for (unsigned i = 0; i < 100; i++)
    assert_int_equal(count_numbered(store, i, i < 10 ? PRY_SECOND : HOUR, 0), PRY_STORE_OK);
  assert_int_equal(count_numbered(store, 100, HOUR, 0), PRY_STORE_FULL);
  assert_int_equal(count_numbered(store, 5, PRY_SECOND, 0), PRY_STORE_OK); /* what is there goes on working */
  assert_int_equal(pry_store_key_count(store), 100);
  for (unsigned i = 100; i < 110; i++) /* the expired make room, whatever shard they are in */
    assert_int_equal(count_numbered(store, i, HOUR, PRY_SECOND), PRY_STORE_OK);
  assert_int_equal(count_numbered(store, 110, HOUR, PRY_SECOND), PRY_STORE_FULL);
  double total;
  for (unsigned i = 10; i < 100; i++) { /* nothing alive was lost */
    char key[32];
    snprintf(key, sizeof key, "key %u", i);
    pry_store_counter(store, pry_slice_of(key), PRY_SECOND, &total);
    assert_true(total == 1);
  }
  pry_store_free(store);
}

static void test_bound_of_bytes(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 16 * 1024);
  static char bytes[PRY_STORE_VALUE_MAX];
  memset(bytes, 'x', sizeof bytes);
  struct pry_slice large = {bytes, sizeof bytes};
  assert_int_equal(pry_store_set(store, PRY_SLICE("a"), large, HOUR, 0), PRY_STORE_OK);
  assert_int_equal(pry_store_set(store, PRY_SLICE("b"), large, HOUR, 0), PRY_STORE_OK);
  assert_int_equal(pry_store_set(store, PRY_SLICE("c"), large, HOUR, 0), PRY_STORE_OK);
  assert_int_equal(pry_store_set(store, PRY_SLICE("d"), large, HOUR, 0), PRY_STORE_FULL);
  assert_value(store, PRY_SLICE("d"), NULL, 0);
  assert_int_equal(pry_store_key_count(store), 3);
  assert_int_equal(pry_store_set(store, PRY_SLICE("e"), PRY_SLICE("small"), HOUR, 0), PRY_STORE_OK);
  assert_int_equal(pry_store_set(store, PRY_SLICE("e"), large, HOUR, 0), PRY_STORE_FULL);
  assert_value(store, PRY_SLICE("e"), "small", 0); /* as it was */
  unsigned count = 0, added = 0;
  while (pry_store_window_add(store, PRY_SLICE("w"), HOUR, 1000, 0, &count) == PRY_STORE_OK)
    added++;
  assert_in_range(added, 8, 900);
  pry_store_window_count(store, PRY_SLICE("w"), HOUR, 0, &count);
  assert_int_equal(count, added); /* the refused one took nothing away */
  assert_int_equal(pry_store_set(store, PRY_SLICE("a"), PRY_SLICE("now small"), HOUR, 0), PRY_STORE_OK);
  assert_int_equal(pry_store_set(store, PRY_SLICE("e"), (struct pry_slice){bytes, 3000}, HOUR, 0), PRY_STORE_OK);
  for (int round = 0; round < 1000; round++) /* what is given back can be taken again: nothing is counted twice */
    assert_int_equal(pry_store_set(store, PRY_SLICE("e"), (struct pry_slice){bytes, round % 2 ? 3000 : 10}, HOUR, 0),
                     PRY_STORE_OK);
  static const char *const names[] = {"a", "b", "c", "e", "w"};
  for (size_t i = 0; i < 5; i++)
    assert_int_equal(pry_store_remove(store, pry_slice_of(names[i]), 0), PRY_STORE_OK);
  for (size_t i = 0; i < 3; i++)
    assert_int_equal(pry_store_set(store, pry_slice_of(names[i]), large, HOUR, 0), PRY_STORE_OK);
  pry_store_free(store);
}

static void test_sweep_is_bounded_and_complete(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 0);
  for (unsigned i = 0; i < 20000; i++)
    count_numbered(store, i, PRY_SECOND, 0);
  pry_store_sweep(store, PRY_SECOND);
  size_t left = pry_store_key_count(store);
  assert_in_range(left, 20000 - 16 * 256, 20000 - 1);
  unsigned sweeps = 1;
  while (pry_store_key_count(store) && sweeps++ < 1000)
    pry_store_sweep(store, PRY_SECOND);
  assert_int_equal(pry_store_key_count(store), 0);
  pry_store_free(store);
}

/* ---- threads ------------------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 20000 };

struct hammer {
  struct pry_store *store;
  unsigned number;
  unsigned claims;
};

static void visit_breaker(void *user, struct pry_slice key, enum pry_breaker_state breaker_state)
{
  (void)key;
  (void)breaker_state;
  ++*(unsigned *)user;
}

static void hammer_breaker(struct pry_store *store, unsigned *random_state, pry_time now)
{
  struct pry_breaker_parameters parameters = {2,
                                              2,
                                              2,
                                              5 * PRY_MILLISECOND,
                                              .ratio = 0.4,
                                              .slow_ratio = 0.5,
                                              .window = 50 * PRY_MILLISECOND,
                                              .min_calls = 8,
                                              .cooldown_most = 20 * PRY_MILLISECOND};
  struct pry_breaker_entry entry;
  struct pry_list permits;
  pry_list_init(&permits);
  enum pry_breaker_state breaker_state;
  bool changed;
  pry_breaker_enter(store, PRY_SLICE("breaker"), &parameters, now, &entry);
  if (!entry.allowed)
    return;
  pry_permits_add(&permits, entry.permit);
  if (rand_r(random_state) % 4)
    pry_breaker_record(store, PRY_SLICE("breaker"), &parameters, &permits,
                       (enum pry_breaker_outcome)(rand_r(random_state) % 3), 0, now, &breaker_state, &changed);
  if (rand_r(random_state) % 64 == 0)
    pry_store_remove(store, PRY_SLICE("breaker"), now);
  pry_permits_release(&permits);
}

static void *hammer_store(void *argument)
{
  struct hammer *hammer = argument;
  struct pry_store *store = hammer->store;
  unsigned random_state = hammer->number, count, breakers = 0;
  double total;
  struct pry_buffer value;
  pry_buffer_init(&value, 0);
  for (unsigned i = 0; i < ROUNDS; i++) {
    pry_time now = i * PRY_MILLISECOND;
    bool stored = false;
    char key[32];
    snprintf(key, sizeof key, "claim %u", i / 10);
    pry_store_count(store, PRY_SLICE("total"), 1, HOUR, now, &total);
    pry_store_add(store, pry_slice_of(key), PRY_SLICE("x"), HOUR, 0, &stored);
    hammer->claims += stored;
    pry_store_window_add(store, PRY_SLICE("window"), PRY_SECOND, 50, now, &count);
    pry_store_set(store, PRY_SLICE("value"), (struct pry_slice){key, i % 8}, PRY_MILLISECOND, now);
    pry_buffer_clear(&value);
    pry_store_get(store, PRY_SLICE("value"), &value, now);
    hammer_breaker(store, &random_state, now);
    if (i % 128 == 0) {
      pry_store_sweep(store, now);
      pry_store_each_breaker(store, now, visit_breaker, &breakers);
    }
  }
  pry_buffer_fini(&value);
  return NULL;
}

static void test_threads(void **state)
{
  (void)state;
  struct pry_store *store = new_store(0, 0);
  pthread_t threads[THREADS];
  struct hammer hammers[THREADS];
  for (unsigned i = 0; i < THREADS; i++) {
    hammers[i] = (struct hammer){store, i, 0};
    assert_int_equal(pthread_create(&threads[i], NULL, hammer_store, &hammers[i]), 0);
  }
  unsigned claims = 0;
  for (unsigned i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    claims += hammers[i].claims;
  }
  double total;
  pry_store_counter(store, PRY_SLICE("total"), ROUNDS * PRY_MILLISECOND, &total);
  assert_true(total == THREADS * ROUNDS);
  assert_int_equal(claims, ROUNDS / 10); /* each claim was given exactly once */
  pry_store_free(store);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_values),
      cmocka_unit_test(test_times_to_live),
      cmocka_unit_test(test_renewal_moves_expiry),
      cmocka_unit_test(test_expiry_against_model),
      cmocka_unit_test(test_counters),
      cmocka_unit_test(test_quotas),
      cmocka_unit_test(test_windows),
      cmocka_unit_test(test_window_limits),
      cmocka_unit_test(test_window_model),
      cmocka_unit_test(test_types_do_not_mix),
      cmocka_unit_test(test_lengths),
      cmocka_unit_test(test_bound_of_keys),
      cmocka_unit_test(test_bound_of_bytes),
      cmocka_unit_test(test_sweep_is_bounded_and_complete),
      cmocka_unit_test(test_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
