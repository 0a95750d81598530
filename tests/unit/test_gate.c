/* Who may pass, and when: places, windows and buckets, what providers say about them, and rules that change. */
#include "gate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct pry_gate_place *new_place(void)
{
  struct pry_gate_place *place = calloc(1, sizeof *place);
  pry_list_init(&place->link);
  return place;
}

static void forget_expired(struct pry_gate *gate, pry_time now)
{
  struct pry_gate_place *place;
  while ((place = pry_gate_expired(gate, now)))
    free(place);
}

static pry_time due(struct pry_gate *gate, double cost, pry_time now)
{
  forget_expired(gate, now);
  return pry_gate_due(gate, cost, now);
}

static struct pry_gate_place *take(struct pry_gate *gate, double cost, pry_time now)
{
  assert_true(due(gate, cost, now) <= now);
  struct pry_gate_place *place = new_place();
  pry_gate_take(gate, place, cost);
  return place;
}

static void leave(struct pry_gate *gate, struct pry_gate_place *place, pry_time now)
{
  if (pry_gate_leave(gate, place, now))
    free(place);
}

/* In, out, gone. */
static void pass(struct pry_gate *gate, double cost, pry_time now)
{
  struct pry_gate_place *place = take(gate, cost, now);
  pry_gate_sent(gate, place, now);
  leave(gate, place, now);
}

static void open_gate(struct pry_gate *gate, struct pry_gate_rule rule, pry_time now)
{
  pry_gate_init(gate);
  pry_gate_set(gate, &rule, now);
}

static void close_gate(struct pry_gate *gate)
{
  struct pry_gate_place *place;
  while ((place = pry_gate_forget(gate)))
    free(place);
}

/* ---- windows --------------------------------------------------------------------------------------------- */

static void test_a_place_of_a_window_comes_back_when_it_was_sent_so_long_ago(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.limit = 2, .per = 60}, 1000);
  struct pry_gate_place *first = take(&gate, 1, 1000);
  struct pry_gate_place *second = take(&gate, 1, 1000);
  assert_true(due(&gate, 1, 1000) == PRY_TIME_NEVER); /* who knows when they will be sent */
  pry_gate_sent(&gate, first, 1030);
  assert_int_equal(due(&gate, 1, 1030), 1090);
  pry_gate_sent(&gate, second, 1040);
  leave(&gate, second, 1041); /* over, and counts all the same */
  assert_int_equal(due(&gate, 1, 1041), 1090);
  assert_int_equal(due(&gate, 1, 1089), 1090);
  pass(&gate, 1, 1090);
  assert_int_equal(due(&gate, 1, 1090), 1100);
  leave(&gate, first, 2000); /* still inside when its place was long somebody else's */
  assert_int_equal(due(&gate, 1, 2000), 2000);
  assert_true(pry_gate_is_idle(&gate, 2000));
  close_gate(&gate);
}

static void test_who_sent_nothing_gives_the_place_back(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.limit = 1, .per = 60, .rate = 1, .burst = 1}, 0);
  struct pry_gate_place *place = take(&gate, 1, 0);
  leave(&gate, place, 5);
  assert_int_equal(due(&gate, 1, 5), 5);
  assert_true(pry_gate_is_idle(&gate, 5));
  close_gate(&gate);
}

static void test_sending_late_cannot_bunch_up_a_bucket(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.rate = 1, .burst = 1}, 0);
  struct pry_gate_place *place = take(&gate, 1, 0);
  assert_true(due(&gate, 1, 10 * PRY_SECOND) > 10 * PRY_SECOND); /* its token is still to be used */
  pry_gate_sent(&gate, place, 10 * PRY_SECOND);
  assert_int_equal(due(&gate, 1, 10 * PRY_SECOND), 11 * PRY_SECOND);
  leave(&gate, place, 10 * PRY_SECOND);
  pass(&gate, 1, 11 * PRY_SECOND);
  close_gate(&gate);
}

/* Passings at random by somebody who always passes when he may, and sends some time later: in no window more than the
 * limit, and never a moment later than needed. */
static void test_window_at_random(void **state)
{
  (void)state;
  enum { LIMIT = 7, PER = 1000, SENDINGS = 2000 };
  srandom(1);
  struct pry_gate gate;
  struct pry_gate_place *inside[LIMIT] = {0};
  static pry_time sent[SENDINGS];
  unsigned count = 0, given_back = 0;
  open_gate(&gate, (struct pry_gate_rule){.limit = LIMIT, .per = PER}, 0);
  for (pry_time now = 0; count < SENDINGS; now += random() % 20) {
    if (due(&gate, 1, now) <= now) {
      unsigned i = 0;
      while (inside[i])
        i++;
      inside[i] = take(&gate, 1, now);
    }
    unsigned i = (unsigned)random() % LIMIT;
    if (!inside[i] || random() % 3)
      continue;
    if (random() % 5 == 0) {
      given_back++;
    } else {
      pry_gate_sent(&gate, inside[i], now);
      sent[count++] = now;
    }
    leave(&gate, inside[i], now);
    inside[i] = NULL;
  }
  assert_true(given_back > 100);
  for (unsigned i = LIMIT; i < count; i++)
    assert_true(sent[i] - sent[i - LIMIT] >= PER);
  for (unsigned i = 0; i < LIMIT; i++)
    if (inside[i])
      leave(&gate, inside[i], PRY_SECOND);
  close_gate(&gate);
}

/* ---- buckets ----------------------------------------------------------------------------------------------- */

static void test_a_bucket_fills_to_its_burst(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.rate = 2, .burst = 3}, 0);
  for (int i = 0; i < 3; i++)
    pass(&gate, 1, 0);
  assert_int_equal(due(&gate, 1, 0), PRY_SECOND / 2);
  assert_int_equal(due(&gate, 2, 0), PRY_SECOND);
  assert_int_equal(due(&gate, 1, PRY_SECOND / 2), PRY_SECOND / 2);
  assert_false(pry_gate_is_idle(&gate, PRY_SECOND));
  assert_true(pry_gate_is_idle(&gate, 2 * PRY_SECOND));
  for (int i = 0; i < 3; i++)
    pass(&gate, 1, 100 * PRY_SECOND); /* no more than the burst, however long nobody came */
  assert_int_equal(due(&gate, 1, 100 * PRY_SECOND), 100 * PRY_SECOND + PRY_SECOND / 2);
  close_gate(&gate);
}

static void test_what_costs_more_than_the_burst_waits_for_all_of_it(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.rate = 1, .burst = 10}, 0);
  pass(&gate, 1, 0);
  assert_int_equal(due(&gate, 25, 0), PRY_SECOND);
  pass(&gate, 25, PRY_SECOND);
  assert_int_equal(due(&gate, 1, PRY_SECOND), 17 * PRY_SECOND); /* from -15 to 1 */
  close_gate(&gate);
}

static void test_what_a_call_really_cost(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.rate = 1, .burst = 10}, 0);
  pass(&gate, 4, 0);
  pry_gate_spend(&gate, 5, 0);
  assert_int_equal(due(&gate, 3, 0), 2 * PRY_SECOND);
  pry_gate_spend(&gate, -100, 0); /* never more than the burst */
  assert_int_equal((long)pry_gate_available(&gate, 0), 10);
  close_gate(&gate);
}

/* ---- rules that change --------------------------------------------------------------------------------------- */

static void test_a_new_rate_begins_now(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.rate = 1, .burst = 100}, 0);
  pass(&gate, 100, 0);
  struct pry_gate_rule fast = {.rate = 50, .burst = 100};
  pry_gate_set(&gate, &fast, 10 * PRY_SECOND);
  assert_int_equal((long)pry_gate_available(&gate, 10 * PRY_SECOND), 10); /* came at 1 a second, not at 50 */
  struct pry_gate_rule small = {.rate = 50, .burst = 5};
  pry_gate_set(&gate, &small, 10 * PRY_SECOND);
  assert_int_equal((long)pry_gate_available(&gate, 10 * PRY_SECOND), 5); /* clamped */
  pry_gate_set(&gate, &fast, 10 * PRY_SECOND);
  assert_int_equal((long)pry_gate_available(&gate, 10 * PRY_SECOND), 5); /* and not given back */
  close_gate(&gate);
}

static void test_a_window_that_changes(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.limit = 4, .per = 100}, 0);
  for (pry_time now = 0; now < 4; now++)
    pass(&gate, 1, now);
  struct pry_gate_rule narrow = {.limit = 2, .per = 100}, wide = {.limit = 5, .per = 100},
                       longer = {.limit = 4, .per = 500};
  pry_gate_set(&gate, &narrow, 10);
  assert_int_equal(due(&gate, 1, 10), 102); /* three of the four must be out */
  assert_int_equal(pry_gate_estimate(&gate, 1, 1, 1, 10), 103);
  assert_int_equal(pry_gate_estimate(&gate, 2, 2, 1, 10), 202);
  pry_gate_set(&gate, &longer, 10);
  assert_int_equal(due(&gate, 1, 10), 500);
  pry_gate_set(&gate, &wide, 10);
  assert_int_equal(due(&gate, 1, 10), 10);
  struct pry_gate_rule places = {.slots = 1};
  pry_gate_set(&gate, &places, 10);
  assert_int_equal(due(&gate, 1, 10), 10);
  assert_true(pry_gate_is_idle(&gate, 10));
  close_gate(&gate);
}

static void test_all_rules_must_agree(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.slots = 1, .limit = 2, .per = 3 * PRY_SECOND, .rate = 1, .burst = 1}, 0);
  struct pry_gate_place *place = take(&gate, 1, 0);
  pry_gate_sent(&gate, place, 0);
  assert_true(due(&gate, 1, PRY_SECOND) == PRY_TIME_NEVER);
  leave(&gate, place, PRY_SECOND / 2);
  assert_int_equal(due(&gate, 1, PRY_SECOND / 2), PRY_SECOND);
  pass(&gate, 1, PRY_SECOND);
  assert_int_equal(due(&gate, 1, 2 * PRY_SECOND), 3 * PRY_SECOND);
  close_gate(&gate);
}

/* ---- what a provider says --------------------------------------------------------------------------------------- */

static void test_a_pause_drains(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.rate = 1, .burst = 50}, 0);
  pry_gate_pause(&gate, 30 * PRY_SECOND, 0);
  pry_gate_pause(&gate, 10 * PRY_SECOND, 0); /* a shorter one is no news */
  assert_int_equal(due(&gate, 1, 0), 31 * PRY_SECOND);
  assert_false(pry_gate_is_idle(&gate, 0));
  pass(&gate, 1, 31 * PRY_SECOND);
  assert_int_equal(due(&gate, 1, 31 * PRY_SECOND), 32 * PRY_SECOND); /* not all fifty at once */
  close_gate(&gate);

  open_gate(&gate, (struct pry_gate_rule){.limit = 2, .per = 10}, 0);
  pry_gate_pause(&gate, 100, 0);
  assert_int_equal(due(&gate, 1, 99), 100);
  assert_int_equal(pry_gate_estimate(&gate, 2, 2, 1, 0), 110);
  assert_int_equal(due(&gate, 1, 100), 100);
  close_gate(&gate);
}

static void test_a_pause_before_the_rule_is_known(void **state)
{
  (void)state;
  struct pry_gate gate;
  struct pry_gate_rule rule = {.rate = 1, .burst = 50};
  pry_gate_init(&gate);
  pry_gate_pause(&gate, 30 * PRY_SECOND, 0);
  pry_gate_set(&gate, &rule, PRY_SECOND);
  assert_int_equal(due(&gate, 1, PRY_SECOND), 31 * PRY_SECOND);
  close_gate(&gate);
}

static void test_an_allowance(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.limit = 100, .per = 1000}, 0);
  struct pry_gate_place *unsent = take(&gate, 1, 0);
  pry_gate_allow(&gate, 3, 500, 0); /* of these one is spoken for */
  pass(&gate, 1, 0);
  pass(&gate, 1, 0);
  assert_int_equal(due(&gate, 1, 1), 500);
  pry_gate_allow(&gate, 0, 700, 2);
  assert_int_equal(due(&gate, 1, 3), 700);
  assert_int_equal(pry_gate_estimate(&gate, 0, 0, 1, 3), 700);
  pry_gate_allow(&gate, 2, 800, 4); /* the last word counts */
  struct pry_gate_place *other = take(&gate, 1, 5);
  assert_int_equal(due(&gate, 1, 5), 800);
  leave(&gate, other, 6); /* given back to the allowance, too */
  assert_int_equal(due(&gate, 1, 6), 6);
  leave(&gate, unsent, 6);
  assert_int_equal(due(&gate, 50, 799), 800);
  assert_int_equal(due(&gate, 50, 800), 800);
  pry_gate_allow(&gate, 5, 10, 900); /* of the past */
  assert_int_equal(due(&gate, 50, 900), 900);
  close_gate(&gate);
}

static void test_estimates(void **state)
{
  (void)state;
  struct pry_gate gate;
  open_gate(&gate, (struct pry_gate_rule){.limit = 3, .per = 100}, 0);
  assert_int_equal(pry_gate_estimate(&gate, 2, 2, 1, 0), 0);
  assert_int_equal(pry_gate_estimate(&gate, 3, 3, 1, 0), 100);
  pass(&gate, 1, 0);
  struct pry_gate_place *unsent = take(&gate, 1, 10);
  assert_int_equal(pry_gate_estimate(&gate, 0, 0, 1, 20), 20);
  assert_int_equal(pry_gate_estimate(&gate, 1, 1, 1, 20), 100);
  assert_int_equal(pry_gate_estimate(&gate, 2, 2, 1, 20), 120); /* if it is sent now */
  assert_int_equal(pry_gate_estimate(&gate, 3, 3, 1, 20), 120);
  assert_int_equal(pry_gate_estimate(&gate, 4, 4, 1, 20), 200);
  leave(&gate, unsent, 20);
  close_gate(&gate);

  open_gate(&gate, (struct pry_gate_rule){.rate = 10, .burst = 10}, 0);
  assert_int_equal(pry_gate_estimate(&gate, 5, 30, 5, 0), 5 * PRY_SECOND / 2);
  close_gate(&gate);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_place_of_a_window_comes_back_when_it_was_sent_so_long_ago),
      cmocka_unit_test(test_who_sent_nothing_gives_the_place_back),
      cmocka_unit_test(test_sending_late_cannot_bunch_up_a_bucket),
      cmocka_unit_test(test_window_at_random),
      cmocka_unit_test(test_a_bucket_fills_to_its_burst),
      cmocka_unit_test(test_what_costs_more_than_the_burst_waits_for_all_of_it),
      cmocka_unit_test(test_what_a_call_really_cost),
      cmocka_unit_test(test_a_new_rate_begins_now),
      cmocka_unit_test(test_a_window_that_changes),
      cmocka_unit_test(test_all_rules_must_agree),
      cmocka_unit_test(test_a_pause_drains),
      cmocka_unit_test(test_a_pause_before_the_rule_is_known),
      cmocka_unit_test(test_an_allowance),
      cmocka_unit_test(test_estimates),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
