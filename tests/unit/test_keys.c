/* Which of a provider's keys is used, and what was learned about them. */
#include "keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { NOW = 1000 };

struct pool {
  struct pry_keys *keys;
  struct pry_secret secrets[3];
  const struct pry_secret *order[3];
  struct pry_provider provider;
};

static struct pool *pool_new(size_t count, enum pry_rotation rotation)
{
  static const char *const names[] = {"K1", "K2", "K3"}, *const values[] = {"value-1", "value-2", "value-3"};
  struct pool *pool = calloc(1, sizeof *pool);
  assert_non_null(pool);
  pool->keys = pry_keys_new();
  assert_non_null(pool->keys);
  for (size_t i = 0; i < 3; i++) {
    pool->secrets[i] = (struct pry_secret){.name = names[i], .value = values[i]};
    pool->order[i] = &pool->secrets[i];
  }
  pool->provider = (struct pry_provider){.name = "p", .keys = pool->order, .key_count = count, .rotation = rotation};
  return pool;
}

static void pool_free(struct pool *pool)
{
  pry_keys_free(pool->keys);
  free(pool);
}

static pry_time at(double seconds)
{
  return pry_time_from_seconds(NOW + seconds);
}

/* The index chosen, or -1. */
static int choose(struct pool *pool, uint64_t passed_over, double seconds)
{
  struct pry_key_choice choice = pry_keys_choose(pool->keys, &pool->provider, passed_over, true, at(seconds));
  return choice.found ? (int)choice.index : -1;
}

static uint64_t version_of(struct pool *pool, size_t index)
{
  uint64_t version;
  pry_keys_usable(pool->keys, &pool->provider, index, false, &version, at(0));
  return version;
}

static enum pry_key_marked retire(struct pool *pool, size_t index, double until, double now)
{
  return pry_keys_retire(pool->keys, &pool->provider, pool->secrets[index].name, version_of(pool, index), at(until),
                         at(now));
}

static enum pry_key_marked rest(struct pool *pool, size_t index, double until, double now)
{
  return pry_keys_pause(pool->keys, &pool->provider, pool->secrets[index].name, version_of(pool, index), at(until),
                        at(now));
}

static bool worked(struct pool *pool, size_t index, double now)
{
  return pry_keys_worked(pool->keys, &pool->provider, pool->secrets[index].name, version_of(pool, index), at(now));
}

static void test_first_usable(void **state)
{
  (void)state;
  struct pool *pool = pool_new(3, PRY_ROTATE_FIRST);
  assert_int_equal(choose(pool, 0, 0), 0);
  assert_int_equal(choose(pool, 0, 0), 0);
  assert_int_equal(choose(pool, 1, 0), 1);
  assert_int_equal(choose(pool, 7, 0), -1);
  assert_int_equal(retire(pool, 0, 60, 0), PRY_KEY_MARK_SET);
  assert_int_equal(choose(pool, 0, 59), 1);
  assert_int_equal(choose(pool, 2, 59), 2);
  assert_int_equal(choose(pool, 0, 60), 0);
  pool->secrets[0].value = NULL;
  assert_int_equal(choose(pool, 0, 60), 1);
  pool_free(pool);
}

static void test_in_turn(void **state)
{
  (void)state;
  struct pool *pool = pool_new(3, PRY_ROTATE_ROUND_ROBIN);
  uint64_t version;
  for (int i = 0; i < 7; i++)
    assert_int_equal(choose(pool, 0, 0), i % 3);
  struct pry_key_choice seen = pry_keys_choose(pool->keys, &pool->provider, 0, false, at(0));
  assert_int_equal(seen.index, 1);
  assert_int_equal(choose(pool, 0, 0), 1); /* looking took no turn */
  assert_true(pry_keys_usable(pool->keys, &pool->provider, 0, true, &version, at(0)));
  assert_int_equal(choose(pool, 0, 0), 1);
  retire(pool, 2, 60, 0);
  assert_int_equal(choose(pool, 0, 0), 0);
  pool_free(pool);
}

static void test_none_left(void **state)
{
  (void)state;
  struct pool *pool = pool_new(2, PRY_ROTATE_FIRST);
  retire(pool, 0, 60, 0);
  assert_int_equal(rest(pool, 1, 20, 0), PRY_KEY_MARK_SET);
  struct pry_key_choice choice = pry_keys_choose(pool->keys, &pool->provider, 0, true, at(5));
  assert_false(choice.found || choice.missing);
  assert_int_equal(choice.wait, 15 * PRY_SECOND);
  retire(pool, 1, 60, 5);
  choice = pry_keys_choose(pool->keys, &pool->provider, 0, true, at(5));
  assert_false(choice.found || choice.missing);
  assert_true(choice.wait < 0);
  pool->secrets[0].value = pool->secrets[1].value = NULL;
  choice = pry_keys_choose(pool->keys, &pool->provider, 0, true, at(5));
  assert_true(!choice.found && choice.missing);
  pool_free(pool);
}

static void test_marks(void **state)
{
  (void)state;
  struct pool *pool = pool_new(2, PRY_ROTATE_FIRST);
  assert_int_equal(rest(pool, 0, 10, 0), PRY_KEY_MARK_SET);
  assert_int_equal(rest(pool, 0, 5, 0), PRY_KEY_MARK_LONGER); /* the later end counts */
  assert_int_equal(choose(pool, 0, 9), 1);
  assert_int_equal(retire(pool, 0, 100, 0), PRY_KEY_MARK_SET); /* was merely paused */
  assert_int_equal(retire(pool, 0, 50, 1), PRY_KEY_MARK_LONGER);
  assert_int_equal(rest(pool, 0, 200, 1), PRY_KEY_MARK_LONGER);
  assert_int_equal(choose(pool, 0, 99), 1);
  assert_int_equal(choose(pool, 0, 150), 1); /* the pause, by now */
  assert_int_equal(choose(pool, 0, 200), 0);
  assert_int_equal(pry_keys_retire(pool->keys, &pool->provider, "other", 1, at(10), at(0)), PRY_KEY_MARK_STALE);
  pool_free(pool);
}

/* Another value is another key, and what is said late about the old one is not about it. */
static void test_versions(void **state)
{
  (void)state;
  struct pool *pool = pool_new(2, PRY_ROTATE_FIRST);
  uint64_t old = version_of(pool, 0);
  retire(pool, 0, 1000, 0);
  assert_int_equal(choose(pool, 0, 1), 1);
  pool->secrets[0].value = "another value";
  assert_int_equal(choose(pool, 0, 1), 0);
  assert_int_equal(pry_keys_retire(pool->keys, &pool->provider, "K1", old, at(1000), at(1)), PRY_KEY_MARK_STALE);
  assert_int_equal(choose(pool, 0, 1), 0);
  assert_false(pry_keys_worked(pool->keys, &pool->provider, "K1", old, at(1)));
  assert_true(worked(pool, 0, 1)); /* the new value does: what was told about the old one is over */
  assert_false(worked(pool, 0, 1));
  assert_int_equal(retire(pool, 0, 1000, 2), PRY_KEY_MARK_SET);
  assert_int_equal(choose(pool, 0, 3), 1);
  pool_free(pool);
}

static void test_worked(void **state)
{
  (void)state;
  struct pool *pool = pool_new(2, PRY_ROTATE_FIRST);
  assert_false(worked(pool, 0, 0));
  retire(pool, 0, 60, 0);
  assert_false(worked(pool, 0, 30)); /* had begun before */
  assert_int_equal(choose(pool, 0, 30), 1);
  assert_true(worked(pool, 0, 61));
  assert_false(worked(pool, 0, 62));
  rest(pool, 0, 70, 62);
  assert_false(worked(pool, 0, 71));
  pool_free(pool);
}

static void test_only_key(void **state)
{
  (void)state;
  struct pool *pool = pool_new(1, PRY_ROTATE_FIRST);
  assert_int_equal(retire(pool, 0, 60, 0), PRY_KEY_MARK_ONLY);
  assert_int_equal(retire(pool, 0, 60, 1), PRY_KEY_MARK_LONGER);
  assert_int_equal(rest(pool, 0, 60, 1), PRY_KEY_MARK_LONGER);
  assert_int_equal(choose(pool, 0, 2), 0);
  assert_true(worked(pool, 0, 3));
  assert_false(worked(pool, 0, 4));
  pool_free(pool);
}

/* Names that meet: "a" with key "bc" is not "ab" with key "c". */
static void test_names_stay_apart(void **state)
{
  (void)state;
  struct pool *pool = pool_new(2, PRY_ROTATE_FIRST);
  struct pry_provider other = pool->provider;
  other.name = "q";
  retire(pool, 0, 60, 0);
  struct pry_key_choice choice = pry_keys_choose(pool->keys, &other, 0, true, at(1));
  assert_true(choice.found && choice.index == 0);
  pool_free(pool);
}

/* However many there are, memory is bounded, and what is over makes room. */
static void test_bounded(void **state)
{
  (void)state;
  struct pool *pool = pool_new(2, PRY_ROTATE_FIRST);
  char name[32];
  struct pry_provider other = pool->provider;
  other.name = name;
  for (int i = 0; i < PRY_KEYS_MARKED_MAX; i++) {
    snprintf(name, sizeof name, "p%d", i);
    assert_int_equal(pry_keys_retire(pool->keys, &other, "K1", version_of(pool, 0), at(i ? 1000 : 10), at(0)),
                     PRY_KEY_MARK_SET);
  }
  assert_int_equal(retire(pool, 0, 60, 5), PRY_KEY_MARK_FULL);
  assert_int_equal(choose(pool, 0, 5), 0);
  assert_int_equal(retire(pool, 0, 60, 11), PRY_KEY_MARK_SET);
  pool_free(pool);
}

static void collect(void *user, const struct pry_key_status *status)
{
  char line[64];
  snprintf(line, sizeof line, "%s/%s %s %.0f;", status->provider, status->key, pry_key_state_name(status->state),
           pry_time_to_seconds(status->left));
  strcat(user, line);
}

static void test_status(void **state)
{
  (void)state;
  struct pool *pool = pool_new(3, PRY_ROTATE_FIRST);
  struct pry_provider providers[2] = {pool->provider, pool->provider};
  providers[1].name = "single";
  providers[1].key_count = 1;
  const struct pry_config config = {.providers = providers, .provider_count = 2};
  char text[512] = "";
  pool->secrets[2].value = NULL;
  retire(pool, 0, 60, 0);
  rest(pool, 1, 20, 0);
  pry_keys_each(pool->keys, &config, at(10), collect, text);
  assert_string_equal(text, "p/K1 retired 50;p/K2 paused 10;p/K3 missing 0;");
  pool_free(pool);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_first_usable), cmocka_unit_test(test_in_turn),          cmocka_unit_test(test_none_left),
      cmocka_unit_test(test_marks),        cmocka_unit_test(test_versions),         cmocka_unit_test(test_worked),
      cmocka_unit_test(test_only_key),     cmocka_unit_test(test_names_stay_apart), cmocka_unit_test(test_bounded),
      cmocka_unit_test(test_status),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
