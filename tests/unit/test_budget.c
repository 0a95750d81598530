/* The retry budget: a fifth of the active calls, at least three. */
#include "budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define TARGET PRY_SLICE("p/model")

static void count_target(void *user, struct pry_slice target, double remaining)
{
  (void)target;
  (void)remaining;
  ++*(unsigned *)user;
}

static void assert_nobody_there(struct pry_budgets *budgets)
{
  unsigned targets = 0;
  pry_budget_each(budgets, count_target, &targets);
  assert_int_equal(targets, 0);
}

/* How many retries are granted on top of the calls. */
static void test_share(void **state)
{
  (void)state;
  static const struct {
    unsigned calls, client_retries, granted;
  } cases[] = {
      {0, 0, 3},    {1, 0, 3}, {15, 0, 3}, {19, 0, 3}, {20, 0, 4},  {100, 0, 20}, {104, 0, 20},
      {105, 0, 21}, {0, 1, 2}, {0, 3, 0},  {1, 5, 0},  {98, 2, 18}, {80, 20, 0},  {80, 30, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct pry_budgets *budgets = pry_budgets_new();
    struct pry_list permits;
    pry_list_init(&permits);
    for (unsigned call = 0; call < cases[i].calls + cases[i].client_retries; call++)
      pry_permits_add(&permits, pry_budget_call(budgets, TARGET, call < cases[i].client_retries));
    unsigned granted = 0;
    for (struct pry_permit *permit; (permit = pry_budget_retry(budgets, TARGET)); granted++)
      pry_permits_add(&permits, permit);
    assert_int_equal(granted, cases[i].granted);
    assert_true(pry_budget_remaining(budgets, TARGET) == 0);
    pry_permits_release(&permits);
    assert_nobody_there(budgets);
    pry_budgets_free(budgets);
  }
}

static void test_held_until_released(void **state)
{
  (void)state;
  struct pry_budgets *budgets = pry_budgets_new();
  struct pry_permit *retries[3];
  for (int i = 0; i < 3; i++)
    assert_non_null(retries[i] = pry_budget_retry(budgets, TARGET));
  assert_null(pry_budget_retry(budgets, TARGET));
  struct pry_permit *other = pry_budget_retry(budgets, PRY_SLICE("p/other")); /* a budget per target */
  assert_non_null(other);
  other->release(other);
  retries[1]->release(retries[1]);
  assert_non_null(retries[1] = pry_budget_retry(budgets, TARGET));
  assert_null(pry_budget_retry(budgets, TARGET));
  for (int i = 0; i < 3; i++)
    retries[i]->release(retries[i]);
  assert_nobody_there(budgets);
  pry_budgets_free(budgets);
}

static void test_remaining(void **state)
{
  (void)state;
  struct pry_budgets *budgets = pry_budgets_new();
  struct pry_list permits;
  pry_list_init(&permits);
  assert_true(pry_budget_remaining(budgets, TARGET) == 1);
  for (int i = 0; i < 20; i++)
    pry_permits_add(&permits, pry_budget_call(budgets, TARGET, false));
  assert_true(pry_budget_remaining(budgets, TARGET) == 1);
  static const double remaining[] = {0.75, 0.5, 0.25, 0};
  for (int i = 0; i < 4; i++) {
    pry_permits_add(&permits, pry_budget_retry(budgets, TARGET));
    assert_true(pry_budget_remaining(budgets, TARGET) == remaining[i]);
  }
  unsigned targets = 0;
  pry_budget_each(budgets, count_target, &targets);
  assert_int_equal(targets, 1);
  pry_permits_release(&permits);
  assert_true(pry_budget_remaining(budgets, TARGET) == 1);
  pry_budgets_free(budgets);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_share),
      cmocka_unit_test(test_held_until_released),
      cmocka_unit_test(test_remaining),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
