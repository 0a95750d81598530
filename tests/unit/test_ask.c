/* Handlers asked through the state: views, verdicts, faults, records, waits, dialects. */
#include "lua_rig.h"

#include "declare.h"
#include "door.h"
#include "lib.h"

/* ---- views ----------------------------------------------------------------------------------------------- */

static void test_fields_of_a_call(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR(
      "assert(call.id == 'c_0_1' and call.route == '/*' and call.dialect == 'openai' and call.method == 'POST')\n"
      "assert(call.path == '/v1/chat/completions' and call.model == 'm' and call.session == nil)\n"
      "assert(call.attempt == 2 and call.deadline_left == 30 and call.repeatable == false)\n"
      "assert(call.target.provider == 'up' and call.target.model == 'm' and call.target.name == 'up/m')\n"
      "assert(call.target.attempts == 2)\n"
      "assert(call:header('x-TEST') == 'yes' and call:header('absent') == nil)\n"
      "local body = call:json()\n"
      "assert(body.model == 'm' and #body.n == 2 and body.none == nil)\n"
      "assert(#call.ledger == 2 and call.ledger[3] == nil and call.ledger[0] == nil)\n"
      "assert(call.ledger[1].category == 'server' and call.ledger[1].status == 500)\n"
      "assert(call.ledger[1].target == 'up/m' and call.ledger[1].started == 1000 and call.ledger[1].ended == 1001)\n"
      "assert(call.ledger[1].err.category == 'server' and call.ledger[2].category == nil)\n"
      "assert(call.ledger[2].ended == nil and call.ledger[2].err == nil)\n"
      "local count = 0\n"
      "for _, attempt in ipairs(call.ledger) do count = count + 1 assert(attempt.target == 'up/m') end\n"
      "assert(count == 2)\n"
      "assert(err.category == 'overloaded' and err.origin == 'server' and err.source == 'provider')\n"
      "assert(err.status == 503 and err.code == 'busy' and err.message == 'try later' and err.retry_after == 1.5)\n"
      "assert(err.retryable == true and err.sent == true and err.curl_code == 0 and err.call_id == 'c_0_1')\n"
      "assert(tostring(call) == 'call' and tostring(err) == 'err' and tostring(call.target) == 'call.target')\n"
      "return retry { after = 2, why = 'all read' }"));
  rig_ok(rig, PRY_ON_ERROR);
  assert_int_equal(rig->ask.verdict.kind, PRY_VERDICT_RETRY);
  assert_string_equal(rig->ask.verdict.why, "all read");
  assert_float_equal(rig->ask.verdict.after, 2, 0);
  rig->view.deadline = PRY_TIME_NEVER; /* the other shapes of optional fields */
  rig->view.model[0] = '\0';
  rig_free(rig);
}

static void test_optional_fields_are_nil(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("assert(call.deadline_left == math.huge and call.model == nil)\n"
                                     "assert(call.session == 's' and call.target == nil and call.repeatable)\n"
                                     "assert(err.code == nil and err.retry_after == nil)"));
  rig->view.deadline = PRY_TIME_NEVER;
  rig->view.model[0] = '\0';
  rig->view.target.name[0] = '\0';
  rig->view.repeatable = true;
  snprintf(rig->view.session, sizeof rig->view.session, "s");
  rig->failure.code[0] = '\0';
  rig->failure.retry_after = -1;
  rig_ok(rig, PRY_ON_ERROR);
  assert_int_equal(rig->ask.verdict.kind, PRY_VERDICT_NONE);
  rig_free(rig);
}

static void test_unknown_field_names_the_known(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("return err.retryafter"));
  rig_fault(rig, PRY_ON_ERROR,
            "p.lua:2: err has no field \"retryafter\"; it has call_id, category, code, curl_code, message, origin, "
            "retry_after, retryable, sent, source, status");
  assert_int_equal(rig->ask.result, PRY_RUN_ERROR);
  assert_int_equal(rig->engine->faults, 1);
  assert_float_equal(pry_metrics_value(rig->engine->metrics, PRY_M_POLICY_FAULTS, "p", "error"), 1, 0);
  assert_true(rig_logged(rig, "\"fault\":\"p.lua:2: err has no field"));
  assert_string_equal(rig_record(rig)->fault, rig->ask.fault);
  rig_free(rig);
}

static void test_views_are_read_only(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("call.model = 'other'"));
  rig_fault(rig, PRY_ON_ERROR, "p.lua:2: call is read-only; what a call must remember belongs into call.vars");
  rig_free(rig);
  rig = rig_new(ON_ERROR("assert(getmetatable(call) == false)\ncall.header('x')"));
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
  assert_non_null(strstr(rig->ask.fault, "with a colon"));
  rig_free(rig);
}

static void test_vars_live_in_the_call(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local n = call.vars.n or 0\n"
                                     "call.vars.n = n + 1\n"
                                     "call.vars.list = { 1, 'two', { three = true } }\n"
                                     "local list = call.vars.list\n"
                                     "assert(list[1] == 1 and list[2] == 'two' and list[3].three == true)\n"
                                     "call.vars.list = nil\n"
                                     "assert(call.vars.list == nil)\n"
                                     "return retry { after = call.vars.n }"));
  rig_ok(rig, PRY_ON_ERROR);
  assert_float_equal(rig->ask.verdict.after, 1, 0);
  rig_ok(rig, PRY_ON_ERROR);
  assert_float_equal(rig->ask.verdict.after, 2, 0);
  rig_free(rig);
  rig = rig_new(ON_ERROR("call.vars.big = ('x'):rep(2000)"));
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
  assert_non_null(strstr(rig->ask.fault, "call.vars.big"));
  rig_free(rig);
  rig = rig_new(ON_ERROR("for i = 1, 65 do call.vars['n' .. i] = i end"));
  rig_fault(rig, PRY_ON_ERROR, "p.lua:2: call.vars is full: it holds 64 names");
  rig_free(rig);
}

static void test_attempt_and_outcome(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new("return policy { name = 'p',\n"
                            "  on_outcome = function(self, call, attempt)\n"
                            "    call.vars.seen = attempt.err and attempt.err.category .. attempt.status or 'fine'\n"
                            "    assert(attempt.target == 'up/m')\n"
                            "    local tokens = attempt.tokens\n"
                            "    if attempt.err then\n"
                            "      assert(attempt.key == 'UP_KEY' and attempt.cost == 0.25)\n"
                            "      assert(tokens.input == 7 and tokens.output == 2 and tokens.cached == 3)\n"
                            "      assert(tokens.total == 9 and call.ledger[1].tokens.total == 9)\n"
                            "    else\n"
                            "      assert(attempt.key == nil and attempt.cost == nil and tokens == nil)\n"
                            "    end\n"
                            "  end,\n"
                            "  on_done = function(self, call, outcome)\n"
                            "    assert(outcome.ok == false and outcome.status == 502 and outcome.attempts == 3)\n"
                            "    assert(outcome.category == 'network')\n"
                            "    assert(outcome.tokens.total == 9 and outcome.cost == 0.25)\n"
                            "    call.vars.done = call.vars.seen\n"
                            "  end }\n");
  struct pry_slice value;
  const struct pry_spending spent = {.tokens = {true, 7, 2, 3}, .priced = true, .cost = 0.25};
  snprintf(rig->ledger[0].key, sizeof rig->ledger[0].key, "UP_KEY");
  rig->ledger[0].spent = spent;
  rig_prepare(rig, &rig->ask, PRY_ON_OUTCOME);
  rig->ask.attempt = &rig->ledger[0];
  assert_int_equal(rig_run(rig, &rig->ask), PRY_ASK_DONE);
  assert_true(pry_vars_get(rig->view.vars, PRY_SLICE("seen"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("\"server500\"")));
  assert_int_equal(rig_record(rig)->category, PRY_SERVER);
  assert_int_equal(rig_record(rig)->spent.tokens.input, 7);
  assert_string_equal(rig_record(rig)->key, "UP_KEY");
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  assert_true(pry_event_json(rig_record(rig), &text));
  assert_non_null(strstr(pry_buffer_text(&text),
                         "\"key\":\"UP_KEY\",\"tokens\":{\"input\":7,\"output\":2,\"cached\":3},"
                         "\"cost\":0.25"));
  pry_buffer_fini(&text);
  rig->ask.attempt = &rig->ledger[1];
  assert_int_equal(rig_run(rig, &rig->ask), PRY_ASK_DONE);
  struct pry_outcome outcome = {.status = 502, .category = PRY_NETWORK, .attempts = 3};
  outcome.failure = pry_failure_of(PRY_NETWORK);
  outcome.spent = spent;
  rig_prepare(rig, &rig->ask, PRY_ON_DONE);
  rig->ask.outcome = &outcome;
  assert_int_equal(rig_run(rig, &rig->ask), PRY_ASK_DONE);
  assert_true(pry_vars_get(rig->view.vars, PRY_SLICE("done"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("\"fine\"")));
  rig_free(rig);
}

static void test_host_event(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(RIG_POLICY("on_event", "self, event",
                                       "assert(event.name == 'upload' and event.fields.size == 3)\n"
                                       "assert(event.fields == event.fields and event.call == nil)\n"
                                       "assert(event.err.category == 'overloaded')\n"
                                       "return fail { category = 'billing', message = 'no' }"));
  struct pry_host_event event = {"upload", PRY_SLICE("{\"size\":3}")};
  rig_prepare(rig, &rig->ask, PRY_ON_EVENT);
  rig->ask.event = &event;
  rig->ask.failure = &rig->failure;
  rig->ask.call = NULL;
  assert_int_equal(rig_run(rig, &rig->ask), PRY_ASK_DONE);
  assert_int_equal(rig->ask.verdict.category, PRY_BILLING);
  assert_string_equal(rig_reads(rig), "[\"event.fields\",{\"size\":3}]");
  rig_free(rig);
}

/* What a script managed to keep is dead when its call is over: read through C, because Lua has nowhere to keep it. */
struct stale {
  struct pry_decision *decision;
  bool refused;
};

static int touch_stale(lua_State *L)
{
  struct stale *stale = lua_touserdata(L, 1);
  static struct pry_decision gone; /* a slot whose decision has ended */
  gone = (struct pry_decision){.serial = 1, .active = true};
  for (int kind = 0; kind < PRY_VIEW_POOLED; kind++)
    gone.views[kind] = LUA_NOREF;
  pry_view_push(L, &gone, PRY_VIEW_CALL);
  gone.active = false;
  gone.serial++;
  stale->decision = &gone;
  lua_getfield(L, -1, "id");
  return 0;
}

static void test_stale_view(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("return nil"));
  struct pry_script *script = (struct pry_script *)rig->engine->control->state;
  struct stale stale = {0};
  struct pry_run run;
  pry_run_init(&run, script, 1);
  assert_int_equal(pry_door_call(script, touch_stale, &stale, &run), PRY_DOOR_ERROR);
  assert_non_null(strstr(run.fault, "this call has ended"));
  rig_free(rig);
}

static void test_kept_view_is_a_fault_and_forgotten(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new("local kept\n"
                            "return policy { name = 'p', on_error = function(self, call)\n"
                            "  if kept then return fail { category = 'server', message = kept.id } end\n"
                            "  kept = call\n"
                            "end }\n");
  for (int i = 0; i < 3; i++) {
    assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
    assert_non_null(strstr(rig->ask.fault, "kept"));
  }
  rig_free(rig);
}

/* ---- verdicts -------------------------------------------------------------------------------------------- */

static void test_verdict_fields(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new("return policy { name = 'p',\n"
              "  on_request = function(self, call)\n"
              "    if call.model == 'respond' then\n"
              "      return respond { status = 201, headers = { ['x-a'] = 'b', n = 1 }, body = { ok = true } }\n"
              "    elseif call.model == 'route' then\n"
              "      return route { target = 'kimi/k2', headers = { ['x-key'] = 'v' } }\n"
              "    end\n"
              "    return hold { key = 's1', slots = 2, max_wait = 5, until_time = 1700000009 }\n"
              "  end,\n"
              "  on_attempt = function(self, call)\n"
              "    if call.model == 'renew' then return renew() end\n"
              "    if call.model == 'refuse' then\n"
              "      return refuse { category = 'overloaded', after = 3, code = 'open', message = 'no' }\n"
              "    end\n"
              "    return inject { status = 500, delay = 1, body = 'boom' }\n"
              "  end,\n"
              "  on_error = function() return fallback { target = 'kimi/k2', after = 1 } end }\n");
  struct pry_verdict *verdict = &rig->ask.verdict;
  struct pry_slice value;
  rig_ok(rig, PRY_ON_REQUEST);
  assert_int_equal(verdict->kind, PRY_VERDICT_HOLD);
  assert_string_equal(verdict->key, "p/s1");
  assert_int_equal(verdict->slots, 2);
  assert_float_equal(verdict->max_wait, 5, 0);
  assert_float_equal(verdict->until_time, 1700000009, 0);
  assert_int_equal(verdict->line, 8);
  assert_string_equal(verdict->policy, "p");

  snprintf(rig->view.model, sizeof rig->view.model, "respond");
  rig_ok(rig, PRY_ON_REQUEST);
  assert_int_equal(verdict->status, 201);
  assert_true(verdict->has_body);
  assert_true(pry_slice_equal(pry_buffer_slice(&verdict->body), PRY_SLICE("{\"ok\":true}")));
  assert_true(pry_headers_get(&verdict->headers, PRY_SLICE("x-a"), &value) && pry_slice_equal(value, PRY_SLICE("b")));
  assert_true(pry_headers_get(&verdict->headers, PRY_SLICE("n"), &value) && pry_slice_equal(value, PRY_SLICE("1")));
  assert_true(pry_headers_get(&verdict->headers, PRY_SLICE("content-type"), &value));

  snprintf(rig->view.model, sizeof rig->view.model, "route");
  rig_ok(rig, PRY_ON_REQUEST);
  assert_string_equal(verdict->target, "kimi/k2");

  snprintf(rig->view.model, sizeof rig->view.model, "renew");
  rig_ok(rig, PRY_ON_ATTEMPT);
  assert_int_equal(verdict->kind, PRY_VERDICT_RENEW);
  snprintf(rig->view.model, sizeof rig->view.model, "refuse");
  rig_ok(rig, PRY_ON_ATTEMPT);
  assert_int_equal(verdict->kind, PRY_VERDICT_REFUSE);
  assert_int_equal(verdict->category, PRY_OVERLOADED);
  assert_string_equal(verdict->code, "open");
  rig->view.model[0] = '\0';
  rig_ok(rig, PRY_ON_ATTEMPT);
  assert_int_equal(verdict->kind, PRY_VERDICT_INJECT);
  assert_true(pry_slice_equal(pry_buffer_slice(&verdict->body), PRY_SLICE("boom")));
  rig_ok(rig, PRY_ON_ERROR);
  assert_int_equal(verdict->kind, PRY_VERDICT_FALLBACK);
  assert_int_equal(rig_record(rig)->verdict, PRY_VERDICT_FALLBACK);
  assert_string_equal(rig_record(rig)->verdict_target, "kimi/k2");
  rig_free(rig);
}

static void test_bad_verdicts(void **unused)
{
  (void)unused;
  static const struct {
    const char *body, *fault;
  } cases[] = {
      {"return retry { afterr = 1 }", "p.lua:2: retry{} has no field \"afterr\"; it takes after, why"},
      {"return retry { after = -1 }",
       "p.lua:2: retry{}: after must be a number of seconds, not negative, at most ten years, got -1"},
      {"return retry { after = 0/0 }",
       "p.lua:2: retry{}: after must be a number of seconds, not negative, at most ten years, got %s"},
      {"return retry { after = '1' }",
       "p.lua:2: retry{}: after must be a number of seconds, not negative, at most ten years, got string"},
      {"return retry { 1 }", "p.lua:2: retry{} takes named fields only"},
      {"return retry(5)", "p.lua:2: retry takes a table, as retry{ … }, got number"},
      {"return fallback { after = 1 }", "p.lua:2: fallback{} needs a target"},
      {"return fail { category = 'wrong' }", "p.lua:2: fail{}: there is no category \"wrong\""},
      {"return fail { message = 'x' }", "p.lua:2: fail{} needs a category, or a status from 400"},
      {"return respond { status = 99 }", "p.lua:2: respond{}: status must be a whole number from 200 to 599, got 99"},
      {"return respond { headers = { ['a b'] = 'c' } }",
       "p.lua:2: respond{}: a header's name must be text of letters, digits and -"},
      {"return respond { headers = { a = 'b\\r\\nc: d' } }",
       "p.lua:2: respond{}: the header a must not hold control characters"},
      {"return respond { headers = { Host = 'x' } }", "p.lua:2: respond{}: the header Host is parry's own"},
      {"return respond { body = function() end }",
       "p.lua:2: respond{}: body must be text, or a table to be sent as JSON, got function"},
      {"return respond { body = ('x'):rep(70000) }", "p.lua:2: respond{}: the body has more than 65536 bytes"},
      {"return { after = 1 }",
       "p.lua:1: on_error returned a table; it may return respond, fail, renew, retry, fallback, rotate (a "
       "plain table is no verdict: write retry{ … })"},
      {"return 'retry'",
       "p.lua:1: on_error returned a string; it may return respond, fail, renew, retry, fallback, rotate"},
      {"return retry {}, 1", "p.lua:1: on_error returned 2 values instead of one verdict"},
      {"return hold { key = 'k' }",
       "p.lua:2: on_error returned hold{}; it may return respond, fail, renew, retry, fallback, rotate"},
      {"local v = retry {} return v.after", "p.lua:2: a verdict is sealed: return it (this one is a retry)"},
      {"local v = retry {} v.after = 1", "p.lua:2: a verdict is sealed: return it (this one is a retry)"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char policy[512];
    snprintf(policy, sizeof policy, "return policy { name = 'p', on_error = function()\n%s\nend }\n", cases[i].body);
    struct rig *rig = rig_new(policy);
    assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
    if (!strstr(cases[i].fault, "%s"))
      assert_string_equal(rig->ask.fault, cases[i].fault);
    else
      assert_memory_equal(rig->ask.fault, cases[i].fault, strlen(cases[i].fault) - 2);
    assert_int_equal(rig->ask.verdict.kind, PRY_VERDICT_NONE);
    rig_free(rig);
  }
}

static void test_sealed_against_later_changes(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local t = { after = 1, why = 'first' }\n"
                                     "local v = retry(t)\n"
                                     "local other = retry { after = 9 }\n"
                                     "t.after = 'nonsense'; t.why = {}\n"
                                     "return tostring(other) == 'retry verdict' and v"));
  rig_ok(rig, PRY_ON_ERROR);
  assert_float_equal(rig->ask.verdict.after, 1, 0);
  assert_string_equal(rig->ask.verdict.why, "first");
  assert_int_equal(rig->ask.verdict.line, 3);
  rig_free(rig);
  rig = rig_new("local FIXED = { after = 4, why = 'frozen' }\n"
                "return policy { name = 'p', on_error = function() return retry(FIXED) end }\n");
  rig_ok(rig, PRY_ON_ERROR);
  assert_float_equal(rig->ask.verdict.after, 4, 0);
  assert_string_equal(rig->ask.verdict.why, "frozen");
  rig_free(rig);
}

static void test_false_is_no_verdict_and_observers_have_none(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new("return policy { name = 'p', on_error = function() return false end,\n"
                            "on_done = function() return retry {} end }\n");
  struct pry_outcome outcome = {.ok = true, .status = 200};
  rig_ok(rig, PRY_ON_ERROR);
  assert_int_equal(rig->ask.verdict.kind, PRY_VERDICT_NONE);
  rig_prepare(rig, &rig->ask, PRY_ON_DONE);
  rig->ask.outcome = &outcome;
  assert_int_equal(rig_run(rig, &rig->ask), PRY_ASK_FAULT);
  assert_string_equal(rig->ask.fault, "p.lua:2: on_done returned retry{}; it may return nothing");
  assert_int_equal(rig->ask.result, PRY_RUN_BAD_VERDICT);
  rig_free(rig);
}

static void test_long_texts_are_cut_and_scrubbed(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("return retry { why = 'key test-UP_KEY ' .. ('\\u{20ac}'):rep(200) }"));
  rig_ok(rig, PRY_ON_ERROR);
  const char *why = rig->ask.verdict.why;
  assert_memory_equal(why, "key *** ", 8);
  assert_true(strlen(why) < PRY_WHY_MAX);
  assert_memory_equal(why + strlen(why) - 3, "\xE2\x82\xAC", 3); /* not half a character */
  rig_free(rig);
}

/* ---- faults and budgets ---------------------------------------------------------------------------------- */

static void test_a_loop_costs_its_own_verdict(void **unused)
{
  (void)unused;
  struct pry_script_limits limits = {.instructions = 200000, .wall = -1};
  struct rig *rig = rig_new_set(ON_ERROR("if err.status == 503 then while true do pcall(error) end end\n"
                                         "return retry {}"),
                                NULL, NULL, &limits);
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
  assert_int_equal(rig->ask.result, PRY_RUN_OVER_BUDGET);
  assert_float_equal(pry_metrics_value(rig->engine->metrics, PRY_M_POLICY_FAULTS, "p", "over_budget"), 1, 0);
  rig->failure.status = 500;
  rig_ok(rig, PRY_ON_ERROR);
  assert_int_equal(rig->ask.verdict.kind, PRY_VERDICT_RETRY);
  rig_free(rig);
}

/* A module that a handler requires only when it runs is no place for state either: no call, no view of one. */
static void test_modules_keep_nothing(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local memory = require 'lib.memory'\n"
                                     "return retry { after = memory.count(call) }"));
  for (int i = 0; i < 3; i++) {
    assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
    assert_non_null(strstr(rig->ask.fault, "lib/memory.lua:"));
    assert_non_null(strstr(rig->ask.fault, "set back"));
    assert_non_null(strstr(rig->ask.fault, "'calls'"));
  }
  rig_free(rig);
}

/* One long text in many places: the work is in the places, and must count. */
static void test_long_texts_are_charged(void **unused)
{
  (void)unused;
  static const char *const handlers[] = {
      ON_ERROR("local text, lines = ('a'):rep(400000), {}\n"
               "for i = 1, 200 do lines['x' .. i] = text end\n"
               "return respond { headers = lines }"),
      ON_ERROR("local lines = { [('a'):rep(400000)] = 'x' }\n"
               "for i = 1, 20 do respond { headers = lines } end"),
      ON_ERROR("local text = ('a'):rep(400000)\n"
               "for i = 1, 1000 do pcall(log.info, text, { x = {} }) end"),
      ON_ERROR("local text, fields = ('a'):rep(400000), {}\n"
               "for i = 1, 13 do fields['x' .. i] = text end\n"
               "for i = 1, 10 do log.info('', fields) end"),
  };
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++) {
    struct rig *rig = rig_new(handlers[i]);
    assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
    assert_int_equal(rig->ask.result, PRY_RUN_OVER_BUDGET);
    rig_free(rig);
  }
}

static void test_memory_is_bounded(void **unused)
{
  (void)unused;
  struct pry_script_limits limits = {.memory = 1024 * 1024, .wall = -1};
  struct rig *rig = rig_new_set(ON_ERROR("if err.status == 503 then\n"
                                         "  local t = {} for i = 1, 1e9 do t[i] = { i } end\n"
                                         "end\n"
                                         "return retry {}"),
                                NULL, NULL, &limits);
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
  assert_int_equal(rig->ask.result, PRY_RUN_NO_MEMORY);
  rig->failure.status = 500;
  rig_ok(rig, PRY_ON_ERROR);
  rig_free(rig);
}

static void test_faults_are_scrubbed(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("error('said test-UP_KEY')"));
  rig_fault(rig, PRY_ON_ERROR, "p.lua:2: said ***");
  assert_false(rig_logged(rig, "test-UP_KEY"));
  rig_free(rig);
}

/* ---- records --------------------------------------------------------------------------------------------- */

static void test_record(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("call.vars.a = 'test-UP_KEY'\n"
                                     "local a = call.vars.a, call:header('x-test'), now()\n"
                                     "call:header('x-test')\n"
                                     "return retry { after = 0.25, why = 'w' }"));
  rig_ok(rig, PRY_ON_ERROR);
  const struct pry_event_record *record = rig_record(rig);
  assert_int_equal(record->handler, PRY_ON_ERROR);
  assert_string_equal(record->call_id, "c_0_1");
  assert_string_equal(record->target, "up/m");
  assert_string_equal(record->policy, "p");
  assert_string_equal(record->generation, rig->engine->control->state->generation->id);
  assert_int_equal(record->attempt, 2);
  assert_float_equal(record->time, 1700000000, 0);
  assert_float_equal(record->deadline_left, 30, 0);
  assert_int_equal(record->category, PRY_OVERLOADED);
  assert_int_equal(record->status, 503);
  assert_float_equal(record->retry_after, 1.5, 0);
  assert_string_equal(record->code, "busy");
  assert_int_equal(record->result, PRY_RUN_OK);
  assert_int_equal(record->verdict, PRY_VERDICT_RETRY);
  assert_float_equal(record->after, 0.25, 0);
  assert_int_equal(record->line, 5);
  assert_string_equal(record->why, "w");
  assert_string_equal(rig_reads(rig), "[\"call.vars\",\"a\",\"***\"],[\"call.header\",\"x-test\",\"yes\"],"
                                      "[\"call.header\",\"x-test\",\"yes\"]");
  rig_free(rig);
}

static void test_reads_are_bounded(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("for i = 1, 1000 do call:header('x-test') end"));
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  rig_ok(rig, PRY_ON_ERROR);
  assert_true(rig_record(rig)->reads_cut);
  assert_true(pry_event_json(rig_record(rig), &text));
  assert_int_equal(pry_json_parse(pry_buffer_slice(&text), NULL), PRY_JSON_OK);
  pry_buffer_fini(&text);
  rig_free(rig);
}

static void test_random_follows_the_seed(void **unused)
{
  (void)unused;
  double first = -1;
  for (int i = 0; i < 2; i++) {
    struct rig *rig =
        rig_new(ON_ERROR("local a = random() assert(a >= 0 and a < 1 and a ~= random())\n"
                         "for i = 1, 200 do\n"
                         "  local n = random(3, 5) assert(n >= 3 and n <= 5 and math.type(n) == 'integer')\n"
                         "  assert(random(2) <= 2)\n"
                         "end\n"
                         "assert(math.type(random(math.mininteger, math.maxinteger)) == 'integer')\n"
                         "assert(not pcall(random, 5, 3))\n"
                         "return retry { after = a }"));
    rig_ok(rig, PRY_ON_ERROR);
    if (i)
      assert_float_equal(rig->ask.verdict.after, first, 0);
    first = rig->ask.verdict.after;
    rig_ok(rig, PRY_ON_ERROR); /* the next event has another seed */
    assert_true(rig->ask.verdict.after != first);
    rig_free(rig);
  }
}

static void test_log_and_notify(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("log.info('hello', { z = 1, a = 'test-UP_KEY', ok = true })\n"
                                     "assert(not pcall(log.info, 'x', { level = 'l' }))\n"
                                     "assert(not pcall(log.info, 'x', { t = {} }))\n"
                                     "notify { to = 'ops', key = 'k', text = 'down' }\n"
                                     "local ok, why = pcall(notify, { to = 'nobody', text = 'x' })\n"
                                     "assert(not ok and why:find('there is no sink \"nobody\"', 1, true))\n"
                                     "assert(queue.held('s') == 0 and queue.waiting('s') == 0)\n"
                                     "for i = 1, 100 do log.warn('line') end"));
  assert_true(pry_http_script_push(rig->script, &(struct pry_http_step){.status = 204}));
  rig_ok(rig, PRY_ON_ERROR);
  assert_true(rig_logged(rig, "\"msg\":\"hello\",\"a\":\"***\",\"ok\":true,\"z\":1,\"policy\":\"p\""));
  assert_true(rig_logged(rig, "a handler logs too much"));
  const char *text = pry_buffer_text(&rig->lines);
  unsigned lines = 0;
  while ((text = strstr(text, "\"msg\":\"line\""))) {
    lines++;
    text++;
  }
  assert_int_equal(lines, PRY_DECISION_LOG_LINES - 1);
  pry_loop_advance(rig->loop, PRY_SECOND);
  assert_int_equal(pry_http_script_seen_count(rig->script), 1);
  rig_free(rig);
}

static void test_notify(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR(
      "local function refused(v, why)\n"
      "  v.to, v.text = v.to or 'ops', v.text or 'x'\n"
      "  local ok, said = pcall(notify, v)\n"
      "  assert(not ok and said:find(why, 1, true), said)\n"
      "end\n"
      "refused({ severity = 'bad' }, 'severity must be \"info\", \"warning\", \"error\" or \"critical\", got "
      "\"bad\"')\n"
      "refused({ fields = 7 }, 'fields must be a table')\n"
      "refused({ fields = { 'a' } }, 'fields must be { name = text, number or boolean }')\n"
      "refused({ fields = { a = {} } }, 'fields must be { name = text, number or boolean }')\n"
      "refused({ fields = { a=1, b=1, c=1, d=1, e=1, f=1, g=1, h=1, i=1 } }, 'takes at most 8 fields')\n"
      "refused({ count = 0 }, 'count')\n"
      "refused({ repeat_after = -1 }, 'repeat_after')\n"
      "refused({ titel = 'x' }, 'has no field \"titel\"')\n"
      "notify { to = 'ops', key = 'never', update = true }\n"
      "notify { to = 'ops', key = 'never', resolve = true }\n"
      "notify { to = 'ops', key = 'k', text = 'down', title = 't', severity = 'warning', cause = 'c', count = 3,\n"
      "         fields = { z = 1, a = true, m = 'test-UP_KEY' } }\n"
      "notify { to = 'ops', key = 'k', update = true, cause = 'c' }"));
  assert_true(pry_http_script_push(rig->script, &(struct pry_http_step){.status = 204}));
  rig_ok(rig, PRY_ON_ERROR);
  pry_loop_advance(rig->loop, PRY_SECOND);
  assert_int_equal(pry_http_script_seen_count(rig->script), 1);
  struct pry_slice body = pry_http_script_seen(rig->script, 0)->body;
  static const char *const expected[] = {
      "\"count\":3,", "\"title\":\"t\",\"cause\":\"c\",\"cause_count\":3,", "\"sample\":\"",
      "\"fields\":{\"a\":\"true\",\"m\":\"***\",\"z\":\"1\"},\"severity\":\"warning\""};
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
    assert_non_null(memmem(body.data, body.size, expected[i], strlen(expected[i])));
  rig_free(rig);
}

/* ---- dialects -------------------------------------------------------------------------------------------- */

static const struct pry_dialect *only_dialect(const struct rig *rig)
{
  return rig->engine->control->state->generation->config->dialects[0];
}

static bool classify(struct rig *rig, struct pry_slice body, struct pry_failure *failure)
{
  struct pry_state *state = rig->engine->control->state;
  struct pry_answer_view answer = {.provider = "up", .status = 400, .headers = &rig->headers, .body = body};
  *failure = pry_failure_from_status(400);
  return state->ops->classify(state, only_dialect(rig), &answer, failure);
}

static void test_classify(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new_set(ON_ERROR(""), NULL,
                  "return dialect { name = 'd', stream = { default = 'content' },\n"
                  "classify = function(answer)\n"
                  "  assert(answer.provider == 'up' and answer.status == 400 and answer.in_stream == false)\n"
                  "  assert(answer.category == 'invalid_request' and answer.retry_after == nil)\n"
                  "  assert(answer:header('x-test') == 'yes' and answer.event_type == nil)\n"
                  "  local body = answer:json()\n"
                  "  if not body then return nil end\n"
                  "  if body.loop then while true do end end\n"
                  "  if body.store then store.get('x') end\n"
                  "  return { category = body.category, code = body.code, message = answer.body,\n"
                  "           retryable = true, fallback = false, refresh_token = body.refresh_token }\n"
                  "end }\n",
                  NULL);
  struct pry_failure failure;
  assert_true(classify(rig, PRY_SLICE("{\"category\":\"billing\",\"code\":-2006}"), &failure));
  assert_int_equal(failure.category, PRY_BILLING);
  assert_int_equal(failure.origin, PRY_ORIGIN_BILLING);
  assert_string_equal(failure.code, "-2006");
  assert_true(failure.retryable);
  assert_false(failure.fallback);
  assert_int_equal(failure.status, 400);
  assert_false(classify(rig, PRY_SLICE("no json"), &failure));
  assert_int_equal(failure.category, PRY_INVALID_REQUEST);
  assert_int_equal(rig->engine->faults, 0);
  /* Each of these is a fault, and the status table's answer stays. */
  assert_false(classify(rig, PRY_SLICE("{\"category\":\"odd\"}"), &failure));
  assert_false(classify(rig, PRY_SLICE("{\"loop\":true}"), &failure));
  assert_false(classify(rig, PRY_SLICE("{\"store\":true}"), &failure));
  assert_false(classify(rig, PRY_SLICE("{\"refresh_token\":1}"), &failure));
  assert_int_equal(failure.category, PRY_INVALID_REQUEST);
  assert_int_equal(rig->engine->faults, 4);
  assert_true(rig_logged(rig, "there is no category \\\"odd\\\""));
  assert_true(rig_logged(rig, "store.get is not available in classify and render"));
  rig_free(rig);
}

static void test_render(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new_set(ON_ERROR(""), NULL,
                                "return dialect { name = 'd', stream = { default = 'content' },\n"
                                "render = function(err, form)\n"
                                "  if err.category == 'billing' then error('no') end\n"
                                "  if err.category == 'auth' then return 'event: error\\ndata: {}' end\n"
                                "  return { error = { code = err.code, id = err.call_id, form = form } }\n"
                                "end }\n",
                                NULL);
  struct pry_state *state = rig->engine->control->state;
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  assert_true(pry_buffer_append_text(&out, "|"));
  assert_true(state->ops->render(state, only_dialect(rig), &rig->failure, "c_9", PRY_RENDER_BODY, &out));
  assert_string_equal(pry_buffer_text(&out), "|{\"error\":{\"code\":\"busy\",\"form\":\"body\",\"id\":\"c_9\"}}");
  pry_buffer_clear(&out);
  assert_true(state->ops->render(state, only_dialect(rig), &rig->failure, "c_9", PRY_RENDER_STREAM_EVENT, &out));
  assert_string_equal(pry_buffer_text(&out),
                      "data: {\"error\":{\"code\":\"busy\",\"form\":\"event\",\"id\":\"c_9\"}}\n\n");
  struct pry_failure failure = pry_failure_of(PRY_AUTH);
  pry_buffer_clear(&out);
  assert_true(state->ops->render(state, only_dialect(rig), &failure, "c_9", PRY_RENDER_STREAM_EVENT, &out));
  assert_string_equal(pry_buffer_text(&out), "event: error\ndata: {}\n\n");
  failure = pry_failure_of(PRY_BILLING);
  pry_buffer_clear(&out);
  assert_false(state->ops->render(state, only_dialect(rig), &failure, "c_9", PRY_RENDER_BODY, &out));
  assert_int_equal(out.size, 0);
  assert_int_equal(rig->engine->faults, 1);
  pry_buffer_fini(&out);
  rig_free(rig);
}

/* When the watchdog asks, and not otherwise. */
static void test_a_running_handler_says_where_it_is(void **state)
{
  (void)state;
  char where[PRY_WHERE_MAX];
  struct rig *rig = rig_new("local slow = require 'lib.slow'\n"
                            "return policy { name = 'p', on_error = function() slow.spin() end }");
  struct pry_worker *worker = rig->engine->control;
  rig_ok(rig, PRY_ON_ERROR);
  pry_worker_where(worker, where);
  assert_string_equal(where, ""); /* nobody asked */
  atomic_store(&worker->pulse.where_wanted, true);
  rig_ok(rig, PRY_ON_ERROR);
  pry_worker_where(worker, where);
  assert_string_equal(where, "lib/slow.lua:3");
  assert_false(pry_worker_where_wanted(worker));
  rig_free(rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_running_handler_says_where_it_is),
      cmocka_unit_test(test_fields_of_a_call),
      cmocka_unit_test(test_optional_fields_are_nil),
      cmocka_unit_test(test_unknown_field_names_the_known),
      cmocka_unit_test(test_views_are_read_only),
      cmocka_unit_test(test_vars_live_in_the_call),
      cmocka_unit_test(test_attempt_and_outcome),
      cmocka_unit_test(test_host_event),
      cmocka_unit_test(test_stale_view),
      cmocka_unit_test(test_kept_view_is_a_fault_and_forgotten),
      cmocka_unit_test(test_verdict_fields),
      cmocka_unit_test(test_bad_verdicts),
      cmocka_unit_test(test_sealed_against_later_changes),
      cmocka_unit_test(test_false_is_no_verdict_and_observers_have_none),
      cmocka_unit_test(test_long_texts_are_cut_and_scrubbed),
      cmocka_unit_test(test_a_loop_costs_its_own_verdict),
      cmocka_unit_test(test_long_texts_are_charged),
      cmocka_unit_test(test_modules_keep_nothing),
      cmocka_unit_test(test_memory_is_bounded),
      cmocka_unit_test(test_faults_are_scrubbed),
      cmocka_unit_test(test_record),
      cmocka_unit_test(test_reads_are_bounded),
      cmocka_unit_test(test_random_follows_the_seed),
      cmocka_unit_test(test_log_and_notify),
      cmocka_unit_test(test_notify),
      cmocka_unit_test(test_classify),
      cmocka_unit_test(test_render),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
