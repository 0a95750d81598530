/* The hash table: the hash's published vectors, growth, removal, walking. */
#include "table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* From the reference implementation's vectors: key 00 01 … 0f, message 00 01 … n-1. */
static void test_hash_vectors(void **state)
{
  (void)state;
  static const struct {
    size_t size;
    uint64_t hash;
  } cases[] = {
      {0, 0x726fdb47dd0e0e31},
      {1, 0x74f839c593dc67fd},
      {8, 0x93f5f5799a932462},
      {15, 0xa129ca6149be45e5},
  };
  const uint64_t seed[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
  char message[16];
  for (int i = 0; i < 16; i++)
    message[i] = (char)i;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_true(pry_hash(seed, (struct pry_slice){message, cases[i].size}) == cases[i].hash);
}

struct item {
  struct pry_table_node node;
  char key[32];
  bool seen;
};

static void test_add_find_remove(void **state)
{
  (void)state;
  enum { ITEMS = 1000 };
  struct pry_table table;
  assert_true(pry_table_init(&table));
  struct item *items = calloc(ITEMS, sizeof *items);
  for (int i = 0; i < ITEMS; i++) {
    snprintf(items[i].key, sizeof items[i].key, "key %d", i);
    items[i].node.key = pry_slice_of(items[i].key);
    assert_null(pry_table_find(&table, items[i].node.key));
    pry_table_add(&table, &items[i].node);
  }
  assert_int_equal(table.count, ITEMS);
  for (int i = 0; i < ITEMS; i += 2)
    pry_table_remove(&table, &items[i].node);
  for (int i = 0; i < ITEMS; i++)
    assert_ptr_equal(pry_table_find(&table, pry_slice_of(items[i].key)), i % 2 ? &items[i].node : NULL);
  size_t walked = 0;
  for (struct pry_table_node *node = pry_table_next(&table, NULL); node;
       node = pry_table_next(&table, node), walked++) {
    struct item *item = (struct item *)(void *)node;
    assert_false(item->seen);
    item->seen = true;
  }
  assert_int_equal(walked, ITEMS / 2);
  pry_table_fini(&table);
  free(items);
}

static void test_seeds_differ(void **state)
{
  (void)state;
  uint64_t a[2], b[2];
  assert_true(pry_hash_seed(a) && pry_hash_seed(b));
  assert_false(a[0] == b[0] && a[1] == b[1]);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_hash_vectors),
      cmocka_unit_test(test_add_find_remove),
      cmocka_unit_test(test_seeds_differ),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
