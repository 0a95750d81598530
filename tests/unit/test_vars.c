/* Per-call scratch: order, bounds, replacing and removing. */
#include "policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_var(const struct pry_vars *vars, const char *name, const char *expected)
{
  struct pry_slice value;
  assert_int_equal(pry_vars_get(vars, pry_slice_of(name), &value), expected != NULL);
  assert_true(pry_slice_equal(value, pry_slice_of(expected)));
}

static void assert_names(const struct pry_vars *vars, const char *expected)
{
  char names[256] = "";
  struct pry_slice name, value;
  for (size_t i = 0; pry_vars_at(vars, i, &name, &value); i++)
    snprintf(names + strlen(names), sizeof names - strlen(names), "%.*s ", (int)name.size, name.data);
  assert_string_equal(names, expected);
}

static void test_set_get_remove(void **state)
{
  (void)state;
  struct pry_vars *vars = pry_vars_new();
  assert_names(vars, "");
  assert_true(pry_vars_set(vars, PRY_SLICE("b"), PRY_SLICE("1")));
  assert_true(pry_vars_set(vars, PRY_SLICE("a"), PRY_SLICE("2")));
  assert_true(pry_vars_set(vars, PRY_SLICE("c"), PRY_SLICE("3")));
  assert_names(vars, "b a c ");
  assert_true(pry_vars_set(vars, PRY_SLICE("b"), PRY_SLICE("a longer value")));
  assert_var(vars, "b", "a longer value");
  assert_names(vars, "b a c ");
  assert_true(pry_vars_set(vars, PRY_SLICE("b"), PRY_SLICE("")));
  assert_true(pry_vars_set(vars, PRY_SLICE("b"), PRY_SLICE("")));
  assert_var(vars, "b", NULL);
  assert_names(vars, "a c ");
  assert_true(pry_vars_set(vars, PRY_SLICE("b"), PRY_SLICE("4")));
  assert_names(vars, "a c b ");
  assert_var(vars, "c", "3");
  struct pry_slice own;
  pry_vars_get(vars, PRY_SLICE("c"), &own);
  assert_true(pry_vars_set(vars, PRY_SLICE("c"), own)); /* from its own memory */
  assert_var(vars, "c", "3");
  pry_vars_free(vars);
  pry_vars_free(NULL);
}

static void test_bounds(void **state)
{
  (void)state;
  struct pry_vars *vars = pry_vars_new();
  char bytes[1025];
  memset(bytes, 'x', sizeof bytes);
  assert_false(pry_vars_set(vars, PRY_SLICE(""), PRY_SLICE("v")));
  assert_false(pry_vars_set(vars, (struct pry_slice){bytes, 65}, PRY_SLICE("v")));
  assert_false(pry_vars_set(vars, PRY_SLICE("n"), (struct pry_slice){bytes, 1025}));
  assert_names(vars, "");
  assert_true(pry_vars_set(vars, (struct pry_slice){bytes, 64}, (struct pry_slice){bytes, 1024}));
  for (int i = 1; i < 64; i++) {
    char name[32];
    snprintf(name, sizeof name, "name %d", i);
    assert_true(pry_vars_set(vars, pry_slice_of(name), PRY_SLICE("v")));
  }
  assert_false(pry_vars_set(vars, PRY_SLICE("one more"), PRY_SLICE("v")));
  assert_true(pry_vars_set(vars, PRY_SLICE("name 5"), PRY_SLICE("w"))); /* what is there can change */
  assert_true(pry_vars_set(vars, PRY_SLICE("name 5"), PRY_SLICE("")));
  assert_true(pry_vars_set(vars, PRY_SLICE("one more"), PRY_SLICE("v")));
  pry_vars_free(vars);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_set_get_remove),
      cmocka_unit_test(test_bounds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
