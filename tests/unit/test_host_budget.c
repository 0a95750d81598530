/* The retry budget of hosts that report: shares of the last ten seconds, on a clock held in hand. */
#include "host_budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define TARGET PRY_SLICE("p/m")

static unsigned granted(struct pry_host_budget *budget, pry_time now)
{
  unsigned count = 0;
  for (int i = 0; i < 100; i++)
    count += pry_host_budget_take(budget, TARGET, now);
  return count;
}

static void report(struct pry_host_budget *budget, int times, pry_time now)
{
  for (int i = 0; i < times; i++)
    pry_host_budget_report(budget, TARGET, now);
}

static void a_fifth_of_what_is_reported_but_three(void **state)
{
  (void)state;
  struct pry_host_budget *budget = pry_host_budget_new();
  pry_time now = 100 * PRY_SECOND;
  assert_int_equal(granted(budget, now), 100); /* nothing is known */
  report(budget, 1, now);
  assert_int_equal(granted(budget, now), 3);
  report(budget, 24, now + PRY_SECOND);
  assert_int_equal(granted(budget, now + PRY_SECOND), 2); /* five of 25, three of them taken */
  assert_true(pry_host_budget_take(budget, PRY_SLICE("p/other"), now));
  pry_host_budget_free(budget);
}

static void the_window_slides(void **state)
{
  (void)state;
  struct pry_host_budget *budget = pry_host_budget_new();
  pry_time now = 100 * PRY_SECOND;
  report(budget, 50, now);
  assert_int_equal(granted(budget, now), 10);
  report(budget, 5, now + 9 * PRY_SECOND);
  assert_int_equal(granted(budget, now + 9 * PRY_SECOND), 1);
  assert_int_equal(granted(budget, now + 10 * PRY_SECOND), 2); /* of the five, one taken: three at least */
  assert_int_equal(granted(budget, now + 30 * PRY_SECOND), 100);
  report(budget, 1, now + 30 * PRY_SECOND);
  assert_int_equal(granted(budget, now + 30 * PRY_SECOND), 3);
  pry_host_budget_free(budget);
}

static void targets_are_bounded(void **state)
{
  (void)state;
  struct pry_host_budget *budget = pry_host_budget_new();
  char name[32];
  report(budget, 1, 0);
  assert_int_equal(granted(budget, 0), 3);
  for (int i = 0; i < PRY_HOST_BUDGET_TARGETS; i++) {
    snprintf(name, sizeof name, "p/%d", i);
    pry_host_budget_report(budget, pry_slice_of(name), 0);
  }
  assert_int_equal(granted(budget, 0), 100); /* forgotten: it was quiet longest */
  assert_true(pry_host_budget_take(budget, pry_slice_of(name), 0));
  pry_host_budget_free(budget);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_fifth_of_what_is_reported_but_three),
      cmocka_unit_test(the_window_slides),
      cmocka_unit_test(targets_are_bounded),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
