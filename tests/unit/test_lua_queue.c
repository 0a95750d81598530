/* hold{} and queue.* as scripts see them, and what policies that limit read of a call and an answer. */
#include "lua_rig.h"

static void test_hold_fields(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new(ON_ATTEMPT("return hold { key = 'k', slots = 3, limit = 5, per = 60, rate = 0.5, burst = 7,\n"
                         "  cost = 2.5, max_wait = 4, max_waiting = 0, category = 'overloaded',\n"
                         "  code = 'c', message = 'm', after = 9 }"));
  const struct pry_verdict *verdict = &rig->ask.verdict;
  rig_ok(rig, PRY_ON_ATTEMPT);
  assert_int_equal(verdict->kind, PRY_VERDICT_HOLD);
  assert_string_equal(verdict->key, "p/k");
  assert_int_equal(verdict->slots, 3);
  assert_int_equal(verdict->limit, 5);
  assert_float_equal(verdict->per, 60, 0);
  assert_float_equal(verdict->rate, 0.5, 0);
  assert_float_equal(verdict->burst, 7, 0);
  assert_float_equal(verdict->cost, 2.5, 0);
  assert_float_equal(verdict->max_wait, 4, 0);
  assert_int_equal(verdict->max_waiting, 0);
  assert_int_equal(verdict->category, PRY_OVERLOADED);
  assert_string_equal(verdict->code, "c");
  assert_string_equal(verdict->message, "m");
  assert_float_equal(verdict->after, 9, 0);
  rig_free(rig);
}

static void test_what_is_not_said(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ATTEMPT("return hold { key = 'k' }"));
  const struct pry_verdict *verdict = &rig->ask.verdict;
  rig_ok(rig, PRY_ON_ATTEMPT);
  assert_int_equal(verdict->slots, 0);
  assert_int_equal(verdict->limit, 0);
  assert_int_equal(verdict->max_waiting, -1);
  assert_float_equal(verdict->max_wait, -1, 0);
  assert_float_equal(verdict->after, -1, 0);
  rig_free(rig);
}

static void test_bad_holds(void **unused)
{
  (void)unused;
  static const struct {
    const char *body, *fault;
  } cases[] = {
      {"return hold {}", "p.lua:2: hold{} needs a key or an until_time"},
      {"return hold { slots = 1, until_time = 9 }", "p.lua:2: hold{} needs a key for its places"},
      {"return hold { key = 'k', limit = 5 }", "p.lua:2: hold{} needs both limit and per, or neither"},
      {"return hold { key = 'k', per = 5 }", "p.lua:2: hold{} needs both limit and per, or neither"},
      {"return hold { key = 'k', burst = 5 }", "p.lua:2: hold{} needs a rate for its burst"},
      {"return hold { key = 'k', limit = 0, per = 1 }",
       "p.lua:2: hold{}: limit must be a whole number from 1 to 100000, got 0"},
      {"return hold { key = 'k', limit = 1, per = 0 }",
       "p.lua:2: hold{}: per must be a number above 0, at most 1e12, got 0"},
      {"return hold { key = 'k', rate = -1 }", "p.lua:2: hold{}: rate must be a number above 0, at most 1e12, got -1"},
      {"return hold { key = 'k', rate = 1, cost = 2e12 }",
       "p.lua:2: hold{}: cost must be a number above 0, at most 1e12, got 2000000000000.0"},
      {"return hold { key = 'k', rate = 'fast' }",
       "p.lua:2: hold{}: rate must be a number above 0, at most 1e12, got string"},
      {"return hold { key = 'k', max_waiting = 70000 }",
       "p.lua:2: hold{}: max_waiting must be a whole number from 0 to 65535, got 70000"},
      {"return hold { key = 'k', status = 429 }", "p.lua:2: hold{} has no field \"status\"; it takes after, category, "
                                                  "code, message, key, slots, limit, per, rate, "
                                                  "burst, cost, max_waiting, max_wait, until_time, why"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char policy[512];
    snprintf(policy, sizeof policy, "return policy { name = 'p', on_attempt = function()\n%s\nend }\n", cases[i].body);
    struct rig *rig = rig_new(policy);
    rig_fault(rig, PRY_ON_ATTEMPT, cases[i].fault);
    rig_free(rig);
  }
}

static void test_queue_functions(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local s = queue.state('k')\n"
                                     "assert(s.held == 0 and s.waiting == 0 and s.available == nil)\n"
                                     "assert(s.next == 0 and s.paused == 0)\n"
                                     "assert(queue.pause('k', 2.5) == true)\n"
                                     "s = queue.state('k')\n"
                                     "assert(s.paused == 2.5 and s.next == 2.5 and s.available == 0)\n"
                                     "assert(queue.allow('other', { remaining = 7, reset = 30 }) == true)\n"
                                     "assert(queue.state('other').available == 7)\n"
                                     "assert(queue.spend('other', 2.5) == true)\n"
                                     "assert(queue.state('other').available == 4.5)\n"
                                     "assert(queue.spend('nobody', 1) == true)\n"
                                     "assert(queue.held('k') == 0 and queue.waiting('k') == 0)\n"
                                     "assert(not pcall(queue.pause, 'k', -1))\n"
                                     "assert(not pcall(queue.pause, 'k', 0/0))\n"
                                     "assert(not pcall(queue.pause, 'k', 1e9))\n"
                                     "assert(not pcall(queue.pause, '', 1))\n"
                                     "assert(not pcall(queue.pause, 'k'))\n"
                                     "assert(not pcall(queue.allow, 'k', { remaining = 1 }))\n"
                                     "assert(not pcall(queue.allow, 'k', { reset = 1 }))\n"
                                     "assert(not pcall(queue.allow, 'k', { remaining = -1, reset = 1 }))\n"
                                     "assert(not pcall(queue.allow, 'k', { remaining = 1, reset = 1, limit = 1 }))\n"
                                     "assert(not pcall(queue.spend, 'k', 1/0))\n"
                                     "assert(not pcall(queue.spend, 'k', 0/0))\n"));
  rig_ok(rig, PRY_ON_ERROR);
  struct pry_queue_state state;
  pry_queue_look(rig->engine->queues, PRY_SLICE("p/k"), pry_loop_now(rig->loop), &state);
  assert_int_equal(state.paused, 5 * PRY_SECOND / 2);
  pry_loop_advance(rig->loop, 32 * PRY_SECOND); /* the engine sweeps */
  assert_int_equal(pry_queue_key_count(rig->engine->queues), 0);
  rig_free(rig);
}

static void test_reads_are_recorded(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("queue.pause('k', 2) queue.allow('k', { remaining = 3, reset = 9 })\n"
                                     "queue.spend('k', 1) queue.state('k') call:field('model')"));
  rig_ok(rig, PRY_ON_ERROR);
  assert_string_equal(rig_reads(rig), "[\"queue.pause\",\"p/k\",true],[\"queue.allow\",\"p/k\",true],"
                                      "[\"queue.spend\",\"p/k\",true],[\"queue.state\",\"p/k\",0,0,0,2,2],"
                                      "[\"call.field\",\"model\"]");
  rig_free(rig);
}

static void test_fields_of_a_body(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("assert(call:field('model') == 'm')\n"
                                     "assert(call:field('max') == 12 and math.type(call:field('max')) == 'integer')\n"
                                     "assert(call:field('meta.id') == 1.5 and call:field('on') == false)\n"
                                     "assert(call:field('none') == nil and call:field('meta') == nil)\n"
                                     "assert(call:field('list') == nil and call:field('absent') == nil)\n"
                                     "assert(call:field('') == nil and call:field('a..b') == nil)\n"
                                     "assert(not pcall(call.field, call, 1) and not pcall(call.field, 'x', 'y'))\n"
                                     "assert(call.body_size == 82)\n"));
  rig->view.body = PRY_SLICE(
      "{\"model\":\"m\",\"max\":12,\"meta\":{\"id\":1.5},\"on\":false,\"none\":null,\"list\":[1],\"t\":\"\"} ");
  assert_int_equal(rig->view.body.size, 82);
  rig_ok(rig, PRY_ON_ERROR);
  rig->view.body = PRY_SLICE("");
  rig_fault(rig, PRY_ON_ERROR, "p.lua:2: assertion failed!");
  rig_free(rig);
}

static void test_fields_of_an_answer(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new("return policy { name = 'p', on_outcome = function(self, call, attempt)\n"
                            "assert(attempt:header('X-RateLimit-Remaining') == '7')\n"
                            "assert(attempt:header('absent') == nil)\n"
                            "local ok, why = pcall(function() return call.ledger[1].header end)\n"
                            "assert(not ok and why:find('on_outcome only', 1, true))\n"
                            "end }\n");
  struct pry_headers fields;
  pry_headers_init(&fields);
  assert_true(pry_headers_add(&fields, PRY_SLICE("x-ratelimit-remaining"), PRY_SLICE("7")));
  pry_verdict_fini(&rig->ask.verdict);
  rig_prepare(rig, &rig->ask, PRY_ON_OUTCOME);
  rig->ask.attempt = &rig->ledger[0];
  rig->ask.fields = &fields;
  assert_int_equal(rig_run(rig, &rig->ask), PRY_ASK_DONE);
  assert_string_equal(rig_reads(rig), "[\"attempt.header\",\"X-RateLimit-Remaining\",\"7\"],"
                                      "[\"attempt.header\",\"absent\",null]");
  pry_headers_fini(&fields);
  rig_free(rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_hold_fields),         cmocka_unit_test(test_what_is_not_said),
      cmocka_unit_test(test_bad_holds),           cmocka_unit_test(test_queue_functions),
      cmocka_unit_test(test_reads_are_recorded),  cmocka_unit_test(test_fields_of_a_body),
      cmocka_unit_test(test_fields_of_an_answer),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
