/* The store as scripts see it: prefixes, values, counters, windows, breakers and their permits. */
#include "lua_rig.h"

static void test_values(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("assert(store.get('a') == nil)\n"
                                     "assert(store.set('a', 'text \\u{e9} \"q\"') == true)\n"
                                     "assert(store.get('a') == 'text \\u{e9} \"q\"')\n"
                                     "store.set('n', 2^53 - 1) assert(store.get('n') == 2^53 - 1)\n"
                                     "store.set('f', 0.1) assert(store.get('f') == 0.1)\n"
                                     "store.set('i', 7) assert(math.type(store.get('i')) == 'integer')\n"
                                     "store.set('b', false) assert(store.get('b') == false)\n"
                                     "assert(store.add('once', 1) == true and store.add('once', 2) == false)\n"
                                     "assert(store.get('once') == 1)\n"
                                     "assert(store.remove('a') == true and store.remove('a') == false)\n"
                                     "store.set('short', 1, 5)\n"
                                     "assert(not pcall(store.set, 'x', {}))\n"
                                     "assert(not pcall(store.set, 'x', nil))\n"
                                     "assert(not pcall(store.set, 'x', 0/0))\n"
                                     "assert(not pcall(store.set, 'x', '\\xff'))\n"
                                     "assert(not pcall(store.set, 'x', 1, 0))\n"
                                     "assert(not pcall(store.set, 'x', 1, 1e9))\n"
                                     "assert(not pcall(store.get, ''))\n"
                                     "assert(not pcall(store.get, 5))\n"
                                     "assert(not pcall(store.get, 'a\\0b'))\n"
                                     "assert(not pcall(store.get, ('x'):rep(600)))\n"
                                     "assert(not pcall(store.set, 'x', ('x'):rep(5000)))"));
  struct pry_buffer value;
  pry_buffer_init(&value, 0);
  rig_ok(rig, PRY_ON_ERROR);
  pry_time now = pry_loop_now(rig->loop);
  assert_int_equal(pry_store_get(rig->engine->store, PRY_SLICE("p:i"), &value, now), PRY_STORE_OK);
  assert_string_equal(pry_buffer_text(&value), "7");
  pry_buffer_clear(&value);
  assert_int_equal(pry_store_get(rig->engine->store, PRY_SLICE("p:short"), &value, now), PRY_STORE_OK);
  pry_loop_advance(rig->loop, 6 * PRY_SECOND);
  now = pry_loop_now(rig->loop);
  assert_int_equal(pry_store_get(rig->engine->store, PRY_SLICE("p:short"), &value, now), PRY_STORE_ABSENT);
  pry_buffer_fini(&value);
  rig_free(rig);
}

static void test_reads_are_recorded(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new(ON_ERROR("store.get('a') store.set('a', 'test-UP_KEY') store.get('a') store.count('c', 2)"));
  rig_ok(rig, PRY_ON_ERROR);
  assert_string_equal(rig_reads(rig), "[\"store.get\",\"p:a\",null],[\"store.set\",\"p:a\",true],"
                                      "[\"store.get\",\"p:a\",\"***\"],[\"store.count\",\"p:c\",2]");
  rig_free(rig);
}

static void test_counters_and_types(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("assert(store.counter('c') == 0)\n"
                                     "assert(store.count('c') == 1 and store.count('c', 2.5) == 3.5)\n"
                                     "assert(store.count('c', -0.5) == 3 and store.counter('c') == 3)\n"
                                     "local ok, why = pcall(store.get, 'c')\n"
                                     "assert(not ok and why:find('p.lua:', 1, true) == nil)\n"
                                     "assert(not pcall(store.count, 'c', '1'))\n"
                                     "store.get('c')"));
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
  assert_memory_equal(rig->ask.fault, "p.lua:8: store: ", 16);
  rig_free(rig);
}

static void test_quotas(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new(ON_ERROR("assert(store.take('q', 3, 5) == true and store.take('q', 3, 5) == false)\n"
                       "assert(store.take('q', 1, 5, 2) == false and store.give('q', 1) == true)\n"
                       "assert(store.take('q', 1, 5, 2) == true and store.counter('q') == 3)\n"
                       "for _, bad in ipairs { -1, 0/0, 1e300, '1' } do\n"
                       "  assert(not pcall(store.take, 'q', bad, 5) and not pcall(store.give, 'q', bad))\n"
                       "end\n"
                       "return retry { after = store.counter('q') }"));
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_DONE);
  assert_true(rig->ask.verdict.after == 3);
  rig_free(rig);
}

static void test_windows(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local w = store.window('w', { seconds = 10, limit = 3 })\n"
                                     "local n = w:add()\n"
                                     "assert(n == w:count())\n"
                                     "assert(not pcall(store.window, 'w', { limit = 3 }))\n"
                                     "assert(not pcall(store.window, 'w', { seconds = 10, size = 3 }))\n"
                                     "assert(not pcall(w.add, {}))\n"
                                     "if n == 3 then w:clear() assert(w:count() == 0) end\n"
                                     "return retry { after = n }"));
  static const double counts[] = {1, 2, 3, 1};
  for (size_t i = 0; i < 4; i++) {
    rig_ok(rig, PRY_ON_ERROR);
    assert_float_equal(rig->ask.verdict.after, counts[i], 0);
  }
  pry_loop_advance(rig->loop, 11 * PRY_SECOND);
  rig_ok(rig, PRY_ON_ERROR);
  assert_float_equal(rig->ask.verdict.after, 1, 0);
  rig_free(rig);
}

#define BREAKER                                                                                                        \
  "local function breaker() return store.breaker('b', { failures = 2, successes = 1, permits = 1, cooldown = 10 }) "   \
  "end\n"                                                                                                              \
  "return policy { name = 'p',\n"                                                                                      \
  "  on_attempt = function(self, call)\n"                                                                              \
  "    local allowed, retry_in = breaker():enter()\n"                                                                  \
  "    if not allowed then return refuse { category = 'overloaded', after = retry_in } end\n"                          \
  "  end,\n"                                                                                                           \
  "  on_outcome = function(self, call, attempt)\n"                                                                     \
  "    local state, changed\n"                                                                                         \
  "    if attempt.err then state, changed = breaker():failure { cooldown = attempt.err.retry_after }\n"                \
  "    else state, changed = breaker():success() end\n"                                                                \
  "    call.vars.state = state .. (changed and '!' or '')\n"                                                           \
  "    assert(breaker():state() == state)\n"                                                                           \
  "  end }\n"

static void expect_state(struct rig *rig, const struct pry_attempt *attempt, const char *state)
{
  struct pry_slice value;
  rig_prepare(rig, &rig->ask, PRY_ON_OUTCOME);
  rig->ask.attempt = attempt;
  assert_int_equal(rig_run(rig, &rig->ask), PRY_ASK_DONE);
  assert_true(pry_vars_get(rig->view.vars, PRY_SLICE("state"), &value));
  if (!pry_slice_equal(value, pry_slice_of(state)))
    fail_msg("state is %.*s instead of %s", (int)value.size, value.data, state);
  pry_permits_release(&rig->permits);
}

static void test_breaker(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(BREAKER);
  struct pry_attempt failed = rig->ledger[0], fine = {0};
  failed.failure.retry_after = 25;
  for (int i = 0; i < 2; i++) {
    rig_ok(rig, PRY_ON_ATTEMPT);
    assert_int_equal(rig->ask.verdict.kind, PRY_VERDICT_NONE);
    assert_false(pry_list_empty(&rig->permits)); /* the attempt holds the breaker's permit */
    expect_state(rig, &failed, i ? "\"open!\"" : "\"closed\"");
  }
  rig_ok(rig, PRY_ON_ATTEMPT);
  assert_int_equal(rig->ask.verdict.kind, PRY_VERDICT_REFUSE);
  assert_float_equal(rig->ask.verdict.after, 25, 0); /* the server's time, longer than the cooldown */
  assert_float_equal(pry_metrics_value(rig->engine->metrics, PRY_M_BREAKER_TRANSITIONS, "p:b", "open"), 1, 0);
  assert_true(pry_list_empty(&rig->permits));
  pry_loop_advance(rig->loop, 26 * PRY_SECOND);
  rig_ok(rig, PRY_ON_ATTEMPT);
  assert_int_equal(rig->ask.verdict.kind, PRY_VERDICT_NONE);
  pry_permits_release(&rig->permits); /* a probe that was cancelled says nothing: the place is free again */
  rig_ok(rig, PRY_ON_ATTEMPT);
  assert_int_equal(rig->ask.verdict.kind, PRY_VERDICT_NONE);
  expect_state(rig, &fine, "\"closed!\"");
  rig_free(rig);
}

static void test_breaker_misuse(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("assert(not pcall(store.breaker, 'b', { failures = 0 }))\n"
                                     "assert(not pcall(store.breaker, 'b', { failure = 1 }))\n"
                                     "local b = store.breaker('b')\n"
                                     "assert(b:state() == 'closed' and tostring(b) == 'breaker')\n"
                                     "assert(not pcall(b.enter, store.window('w', { seconds = 1 })))\n"
                                     "store.breaker('b'):enter()"));
  rig_prepare(rig, &rig->ask, PRY_ON_ERROR);
  rig->ask.permits = NULL;
  assert_int_equal(rig_run(rig, &rig->ask), PRY_ASK_FAULT);
  assert_string_equal(rig->ask.fault,
                      "p.lua:7: breaker:enter works in on_request and on_attempt, where something can be held");
  rig_free(rig);
}

/* A store without room: values say so, breakers let pass. */
static void test_full_store(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local ok, err\n"
                                     "for i = 1, 10 do ok, err = store.set('k' .. i, i) end\n"
                                     "assert(ok == nil and err.category == 'store_full' and err.message)\n"
                                     "ok, err = store.count('c')\n"
                                     "assert(ok == nil and err.category == 'store_full')\n"
                                     "ok, err = store.breaker('b'):enter()\n"
                                     "assert(ok == true and err.category == 'store_full')\n"
                                     "ok, err = store.window('w', { seconds = 1 }):add()\n"
                                     "assert(ok == nil and err.category == 'store_full')"));
  pry_store_free(rig->engine->store);
  rig->engine->store = pry_store_new(4, 0);
  assert_non_null(rig->engine->store);
  rig_ok(rig, PRY_ON_ERROR);
  rig_free(rig);
}

static void test_not_while_loading(void **unused)
{
  (void)unused;
  static const char *const lines[] = {"store.get('a')",
                                      "now()",
                                      "random()",
                                      "log.info('x')",
                                      "notify { to = 'ops', text = 'x' }",
                                      "queue.held('k')",
                                      "http.request { service = 'help' }"};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    char text[256], wanted[128];
    struct pry_report report;
    snprintf(text, sizeof text, "%s\nreturn policy { name = 'q' }\n", lines[i]);
    struct pry_policy_set *set = pry_policy_set_new();
    assert_true(pry_policy_set_add(set, "q.lua", pry_slice_of(text)));
    assert_true(pry_policy_set_add(set, "init.lua", PRY_SLICE("-- nothing\n")));
    assert_true(pry_policy_set_seal(set));
    pry_report_init(&report);
    assert_null(pry_lua_loader.load(set, NULL, &report));
    snprintf(wanted, sizeof wanted, "%.*s is not available while loading", (int)strcspn(lines[i], "( "), lines[i]);
    assert_true(report.errors >= 1);
    if (!strstr(report.findings[0].what, wanted) || !strstr(report.findings[0].where, "q.lua:1"))
      fail_msg("%s: %s", report.findings[0].where, report.findings[0].what);
    pry_report_fini(&report);
    pry_policy_set_free(set);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_values),
      cmocka_unit_test(test_reads_are_recorded),
      cmocka_unit_test(test_counters_and_types),
      cmocka_unit_test(test_quotas),
      cmocka_unit_test(test_windows),
      cmocka_unit_test(test_breaker),
      cmocka_unit_test(test_breaker_misuse),
      cmocka_unit_test(test_full_store),
      cmocka_unit_test(test_not_while_loading),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
