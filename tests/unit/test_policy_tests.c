/* The runner of policy tests: what it lets tests say, and that it says what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loader.h"
#include "test_host.h"

#include <stdio.h>
#include <stdlib.h>

static const char init_text[] = "-- policy tests make their own\n";

/* Tries again after `wait`; says what it saw. */
static const char again_text[] =
    "return policy { name = \"again\", params = { max = param { 2, min = 1 }, wait = param { 1, min = 0, unit = \"s\" "
    "},\n"
    "    to = param { type = \"sink\", optional = true } },\n"
    "  on_error = function(self, call, err)\n"
    "    if self.to then notify { key = err.category, to = self.to, text = \"seen \" .. err.category } end\n"
    "    if call.target.attempts < self.max and err.retryable then\n"
    "      return retry { after = self.wait, why = \"again \" .. err.category }\n"
    "    end\n"
    "  end,\n"
    "  on_event = function(self, event)\n"
    "    if event.name == \"slip\" then return retrry { after = 1 } end\n"
    "    if event.name == \"deep\" then local x = (function() return stor.get end)() end\n"
    "    if event.name == \"fail\" then return fail { category = \"server\", message = event.fields.text } end\n"
    "    if event.name == \"crash\" then error(\"boom\") end\n"
    "    if event.name == \"ask\" then\n"
    "      if event.fields.with == 'twice' then host.call(event.fields.f) end\n"
    "      local value, err = host.call(event.fields.f, event.fields.with)\n"
    "      local text = err and err.category .. \": \" .. err.message or json.encode(value)\n"
    "      return fail { category = \"server\", message = tostring(host.has(event.fields.f)) .. \" \" .. text }\n"
    "    end\n"
    "  end }\n";

struct results {
  unsigned count;
  char text[8192]; /* "PASS name\n" or "FAIL name: message\n" */
};

static void keep(void *user, const struct pry_test_result *result)
{
  struct results *results = user;
  size_t used = strlen(results->text);
  results->count++;
  if (result->passed)
    snprintf(results->text + used, sizeof results->text - used, "PASS %s\n", result->name);
  else
    snprintf(results->text + used, sizeof results->text - used, "FAIL %s: %s\n", result->name, result->message);
}

static struct pry_policy_set *set_with(const char *test_text)
{
  struct pry_policy_set *set = pry_policy_set_new();
  assert_non_null(set);
  assert_true(pry_policy_set_add(set, "init.lua", pry_slice_of(init_text)));
  assert_true(pry_policy_set_add(set, "again.lua", pry_slice_of(again_text)));
  assert_true(pry_policy_set_add(set, "again_test.lua", pry_slice_of(test_text)));
  assert_true(pry_policy_set_seal(set));
  return set;
}

/* Runs one test file and compares what was told; `limits` may be NULL. */
static void check(const char *test_text, const struct pry_script_limits *limits, const char *expected)
{
  struct results results = {0};
  struct pry_report report;
  pry_report_init(&report);
  struct pry_policy_set *set = set_with(test_text);
  struct pry_test_options options = {.result = keep, .user = &results};
  bool passed = pry_policy_tests_run(set, limits ? limits : NULL, &options, &report);
  assert_string_equal(results.text, expected);
  assert_true(passed == (strstr(expected, "FAIL") == NULL));
  assert_int_equal(report.tests_passed + report.tests_failed, results.count);
  assert_true(report.errors >= report.tests_failed); /* a fault behind them is told, too */
  pry_policy_set_free(set);
  pry_report_fini(&report);
}

static void test_calls(void **state)
{
  (void)state;
  check("test('waits', function(t)\n"
        "  t:use('again', { max = 3, wait = 2 })\n"
        "  t:provider { { status = 503, delay = 0.5 }, { curl = 'connect' }, { body = { answer = 42 }, headers = { "
        "['X-A'] = 'b' } } }\n"
        "  local r = t:call { model = 'm' }\n"
        "  t:eq(r.status, 200) t:eq(r.ok, true) t:eq(r.category, nil) t:eq(r.target, 'p/m') t:eq(r.upstream_calls, 3)\n"
        "  t:eq(r.attempts, 3) t:eq(r.waited, 4) t:eq(r.elapsed, 4.5) t:eq(r.body, '{\"answer\":42}') "
        "t:eq(r.json.answer, 42)\n"
        "  t:eq(r.headers['x-a'], 'b') t:eq(r.truncated, false) t:eq(r.done, true)\n"
        "  t:eq(r.why, { 'again overloaded', 'again network' })\n"
        "  t:eq(r.faults, {})\n"
        "  t:eq(r.ledger[1].category, 'overloaded') t:eq(r.ledger[2].category, 'network') t:eq(r.ledger[3].category, "
        "nil)\n"
        "  t:eq(#t:requests(), 3) t:eq(t:sent(1).model, 'm') t:eq(t:sent(1).method, 'POST')\n"
        "  t:eq(t:sent(3).at, 4.5) t:eq(t:sent(1).url, 'http://p.test/v1/chat/completions')\n"
        "  t:eq(t:sent(1).json.messages[1].role, 'user')\n"
        "end)\n"
        "test('fails', function(t)\n"
        "  t:provider { { status = 400, body = 'no' } }\n"
        "  local r = t:call { model = 'm', path = '/v1/x?a=b', headers = { ['X-Mine'] = 'yes', ['content-type'] = "
        "'text/plain' }, body = 'raw' }\n"
        "  t:eq(r.status, 400) t:eq(r.ok, false) t:eq(r.category, 'invalid_request') t:eq(r.body, 'no')\n"
        "  t:eq(t:sent(1).url, 'http://p.test/v1/x?a=b') t:eq(t:sent(1).headers['x-mine'], 'yes') t:eq(t:sent(1).body, "
        "'raw')\n"
        "end)\n",
        NULL, "PASS waits\nPASS fails\n");
}

/* Attempts that a host makes: what its scripts say is what the call hears. */
static void test_hosts(void **state)
{
  (void)state;
  check(
      "test('host', function(t)\n"
      "  t:use('again', { max = 5, wait = 2 })\n"
      "  t:provider('db', { { category = 'server', code = 'E1', message = 'no', not_sent = true },\n"
      "    { status = 503, headers = { ['retry-after'] = 3 } }, { curl = 'connect' },\n"
      "    { category = 'timeout', retry_after = 7, not_sent = true }, { body = { rows = 1 } }, host = true })\n"
      "  local r = t:call { target = 'db/q', path = '/v1/x', body = '' }\n"
      "  t:eq(r.status, 200) t:eq(r.json.rows, 1) t:eq(r.target, 'db/q') t:eq(r.attempts, 5)\n"
      "  t:eq(r.ledger[1].code, 'E1') t:eq(r.ledger[1].status, 0) t:eq(r.ledger[2].status, 503)\n"
      "  t:eq(r.waited, 2 + 3 + 2 + 7) t:eq(r.upstream_calls, 5)\n"
      "  t:eq(t:sent(1).url, 'http://db.test/v1/x')\n"
      "end)\n"
      "test('both kinds', function(t)\n"
      "  t:provider { { status = 200 } }\n"
      "  t:provider('db', { {}, host = true })\n"
      "  t:eq(t:call({ model = 'm' }).target, 'p/m') t:eq(t:call({ target = 'db' }).body, '')\n"
      "end)\n"
      "test('time', function(t)\n"
      "  t:provider('db', { { hang = true }, host = true, timeouts = { attempt = 4 } })\n"
      "  local r = t:call { target = 'db' }\n"
      "  t:eq(r.category, 'timeout') t:eq(r.elapsed, 4)\n"
      "end)\n"
      "test('leaves', function(t)\n"
      "  t:provider('db', { { hang = true }, host = true })\n"
      "  local r = t:start { target = 'db' }\n"
      "  t:advance(1) t:cancel(r)\n"
      "  t:eq(r.category, 'cancelled')\n"
      "end)\n"
      "test('left open', function(t)\n"
      "  t:provider('db', { { hang = true }, host = true })\n"
      "  t:start { target = 'db' } t:advance(1) t:ok(true)\n"
      "end)\n"
      "test('words', function(t) t:provider { { category = 'server' } } end)\n"
      "test('category', function(t) t:provider('db', { { category = 'sever' }, host = true }) end)\n"
      "test('type', function(t) t:provider('db', { { retry_after = 'soon' }, host = true }) end)\n"
      "test('url', function(t) t:provider('db', { host = true, base_url = 'http://x' }) t:call {} end)\n",
      NULL,
      "PASS host\nPASS both kinds\nPASS time\nPASS leaves\nPASS left open\n"
      "FAIL words: again_test.lua:32: category = of a step is what a host says: only for a provider with host = true\n"
      "FAIL category: again_test.lua:33: category = of a step is none of the failure vocabulary: \"sever\"\n"
      "FAIL type: again_test.lua:34: retry_after = of a step must be a number, got string\n"
      "FAIL url: again_test.lua:35: the configuration of this test was refused: init.lua:4: provider \"db\": base_url "
      "and host = true exclude each other; the host program makes the attempts, where and with what it likes\n");
}

static void test_concurrency(void **state)
{
  (void)state;
  check("test('several at once', function(t)\n"
        "  t:provider { { delay = 2 }, { delay = 1 }, { hang = true } }\n"
        "  local a, b, c = t:start { model = 'a' }, t:start { model = 'b' }, t:start { model = 'c' }\n"
        "  t:eq(a.done, nil) t:ok(a.id ~= b.id)\n"
        "  t:eq(t:run(b).elapsed, 1)\n"
        "  t:eq(a.done, nil)\n"
        "  t:run(a) t:eq(a.elapsed, 2)\n"
        "  t:cancel(c) t:eq(c.category, 'cancelled') t:eq(t:sent(3).cancelled, true)\n"
        "end)\n"
        "test('the clock', function(t)\n"
        "  local began = t:now()\n"
        "  t:advance(3600.5)\n"
        "  t:near(t:now() - began, 3600.5)\n"
        "end)\n",
        NULL, "PASS several at once\nPASS the clock\n");
}

static void test_declaring(void **state)
{
  (void)state;
  check("test('others', function(t)\n"
        "  t:route { to = { ['x-*'] = 'q/y', ['*'] = 'p' }, deadline = 7 }\n"
        "  t:provider('q', { { status = 200 } , secret = 'Q_KEY', models = { 'y' } })\n"
        "  t:call { model = 'x-1' }\n"
        "  t:eq(t:sent(1).url, 'http://q.test/v1/chat/completions') t:eq(t:sent(1).model, 'y')\n"
        "  t:eq(t:sent(1).headers.authorization, 'Bearer test-Q_KEY')\n"
        "end)\n"
        "test('alerts', function(t)\n"
        "  t:sink('ops') t:use('again', { max = 1, to = 'ops' })\n"
        "  t:provider { { status = 503 } }\n"
        "  t:call { model = 'm' }\n"
        "  local alerts = t:alerts()\n"
        "  t:eq(#alerts, 1) t:eq(alerts[1].sink, 'ops') t:match(alerts[1].text, '^seen over') t:match(alerts[1].key, "
        "'overloaded$')\n"
        "end)\n"
        "test('a new declaration is a reload', function(t)\n"
        "  t:otherwise { status = 503 }\n"
        "  t:use('again', { max = 2 })\n"
        "  t:eq(t:call({ model = 'm' }).attempts, 2)\n"
        "  t:use('again', { as = 'more', max = 4 })\n"
        "  t:eq(t:call({ model = 'm' }).attempts, 4)\n"
        "end)\n"
        "test('refusals', function(t)\n"
        "  t:match(t:refused(function() t:use('again', { max = 0 }) end), 'again: max must be at least 1, got 0')\n"
        "  t:match(t:refused(function() t:use('agian') end), 'did you mean \"again\"')\n"
        "  t:eq(t:refused(function() t:use('again') end), nil)\n"
        "  t:provider { { status = 503 } }\n"
        "  t:eq(t:call({ model = 'm' }).attempts, 1)\n"
        "end)\n"
        "test('events', function(t)\n"
        "  t:use('again')\n"
        "  local v = t:emit('fail', { text = 'so it is' })\n"
        "  t:eq(v.verdict, 'fail') t:eq(v.category, 'server') t:eq(v.message, 'so it is') t:eq(v.policy, 'again')\n"
        "  t:eq(t:emit('other'), nil) t:eq(t:emit('crash'), nil)\n"
        "end)\n"
        "test('streams', function(t)\n"
        "  t:provider { { sse = { { event = 'a', data = { x = 1 } }, 'two' }, chunk_delay = 1 } }\n"
        "  local r = t:call { model = 'm', stream = true }\n"
        "  t:match(r.body, '^event: a\\ndata: {\"x\":1}\\n\\ndata: two\\n\\n')\n"
        "  t:eq(r.headers['content-type'], 'text/event-stream')\n"
        "end)\n",
        NULL,
        "PASS others\nPASS alerts\nPASS a new declaration is a reload\nPASS refusals\nPASS events\nPASS streams\n");
}

static void test_failures(void **state)
{
  (void)state;
  check(
      "test('eq', function(t)\n  t:eq(1, 2)\nend)\n"
      "test('eq of tables', function(t) t:eq({ 1, { a = 2 } }, { 1, { a = 3 } }, 'note') end)\n"
      "test('ne', function(t) t:ne('a', 'a') end)\n"
      "test('ok', function(t) t:ok(nil, 'this') end)\n"
      "test('match', function(t) t:match('abc', '^b') end)\n"
      "test('near', function(t) t:near(1.5, 1, 0.25) end)\n"
      "test('fail', function(t) t:fail('because') end)\n"
      "test('error', function(t) error { } end)\n"
      "test('nil', function(t) local x; x.y = 1 end)\n"
      "test('method', function(t) t:equals(1, 1) end)\n"
      "test('dot', function(t) t.eq(1, 1) end)\n"
      "test('refused', function(t) t:use('again', { max = 0 }) t:call { model = 'm' } end)\n"
      "test('field', function(t) t:call { modle = 'm' } end)\n"
      "test('step', function(t) t:provider { { satus = 1 } } end)\n"
      "test('nested', function(t) test('x', function() end) end)\n"
      "test('sent', function(t) t:sent(1) end)\n"
      "test('effects', function(t) store.set('a', 1) end)\n"
      "test('good', function(t) t:eq({ 1, a = { 2 } }, { 1, a = { 2 } }) t:eq(2, 2.0) t:near(1, 1.0005) end)\n",
      NULL,
      "FAIL eq: again_test.lua:2: expected 2, got 1\n"
      "FAIL eq of tables: again_test.lua:4: note: expected [1,{\"a\":3}], got [1,{\"a\":2}]\n"
      "FAIL ne: again_test.lua:5: expected anything but \"a\"\n"
      "FAIL ok: again_test.lua:6: this: expected something true, got nil\n"
      "FAIL match: again_test.lua:7: expected a text that matches \"^b\", got \"abc\"\n"
      "FAIL near: again_test.lua:8: expected 1 within 0.25, got 1.5\n"
      "FAIL fail: again_test.lua:9: because\n"
      "FAIL error: again_test.lua:10: (error object is a table value)\n"
      "FAIL nil: again_test.lua:11: attempt to index a nil value (local 'x')\n"
      "FAIL method: again_test.lua:12: t has no method \"equals\"; it has use, provider, otherwise, dialect, "
      "route, credential, service, probe, host, sink, declare, refused, sent, requests, alerts, call, calls, start, "
      "run, "
      "cancel, "
      "advance, now, emit, eq, ne, ok, match, near, f\n"
      "FAIL dot: again_test.lua:13: call it with a colon: t:name(...)\n"
      "FAIL refused: again_test.lua:14: the configuration of this test was refused: init.lua:2: again: max must be at "
      "least 1, got 0\n"
      "FAIL field: again_test.lua:15: t:call{} has no field \"modle\"; it takes model, messages, stream, max_tokens, "
      "temperature, path, method, body, headers, client, host, target\n"
      "FAIL step: again_test.lua:16: a step{} has no field \"satus\"; it takes status, headers, body, chunks, sse, "
      "delay, "
      "chunk_delay, cut, hang, curl, after_body, hang_connect, category, code, message, retry_after, not_sent\n"
      "FAIL nested: again_test.lua:17: a test cannot name another test\n"
      "FAIL sent: again_test.lua:18: providers got 0 requests, there is no number 1\n"
      "FAIL effects: again_test.lua:19: store.set is not available while loading\n"
      "PASS good\n");
}

static void test_endings(void **state)
{
  (void)state;
  /* A test that never ends, one that eats memory, a file that does not run. */
  const struct pry_script_limits small = {.wall = -1, .instructions = 2000};
  check("test('loops', function(t) while true do end end)\n"
        "test('after it', function(t) t:ok(true) end)\n",
        &small, "FAIL loops: again_test.lua:1: over budget: more than 2000000 instructions\nPASS after it\n");
  check("kept = nil\nlocal old\n"
        "test('hides t', function(t) old = t t:ok(t) end)\n"
        "test('uses it', function(t) old:call { model = 'm' } end)\n",
        NULL, "FAIL again_test.lua: again_test.lua:1: global 'kept' cannot be set; write 'local kept'\n");
  check("local old\n"
        "test('hides t', function(t) old = t t:ok(t) end)\n"
        "test('uses it', function(t) old:call { model = 'm' } end)\n",
        NULL, "PASS hides t\nFAIL uses it: again_test.lua:3: this test is over\n");
  check("test(\n", NULL, "FAIL again_test.lua: again_test.lua:2: unexpected symbol near <eof>\n");
  check("-- no test\n", NULL, "");
}

static bool only_b(void *user, const char *name)
{
  (void)user;
  return strchr(name, 'b') != NULL;
}

static void test_choosing(void **state)
{
  (void)state;
  struct results results = {0};
  struct pry_report report;
  pry_report_init(&report);
  struct pry_policy_set *set =
      set_with("for _, name in ipairs { 'a', 'ab', 'bc' } do test(name, function(t) t:ok(t) end) end\n");
  struct pry_test_options options = {.pattern = "a", .wanted = only_b, .result = keep, .user = &results};
  assert_true(pry_policy_tests_run(set, NULL, &options, &report));
  assert_string_equal(results.text, "PASS ab\n");
  assert_int_equal(report.tests_passed, 1);
  pry_policy_set_free(set);
  pry_report_fini(&report);
}

static void keep_result(void *user, const struct pry_test_result *result)
{
  struct results *results = user;
  size_t used = strlen(results->text), room = sizeof results->text - used;
  if (result->passed)
    snprintf(results->text + used, room, "PASS %s (%u call%s, %.4g s virtual)\n", result->name, result->calls,
             result->calls == 1 ? "" : "s", result->virtual_seconds);
  else
    snprintf(results->text + used, room, "FAIL %s\n%s%s%s     %s\n", result->name,
             result->fault_is_new ? "     fault: " : "", result->fault_is_new ? result->fault : "",
             result->fault_is_new ? "\n" : "", result->message);
}

static bool run_all(const struct pry_policy_set *set, struct results *results, struct pry_report *report)
{
  struct pry_test_options options = {.result = keep_result, .user = results};
  return pry_policy_tests_run(set, NULL, &options, report);
}

static void test_without_assertion(void **state)
{
  (void)state;
  check(
      "test('says nothing', function(t)\n  t:otherwise {}\n  t:call {}\nend)\n"
      "test('is empty', function(t) end)\n"
      "test('asserts and makes no call', function(t) t:eq(#t:alerts(), 0) end)\n"
      "test('a caught failure counts', function(t) pcall(t.eq, t, 1, 2) end)\n",
      NULL,
      "FAIL says nothing: again_test.lua:1: made no assertion; say what must be so with t:eq, t:ok, t:match or t:near\n"
      "FAIL is empty: again_test.lua:5: made no assertion; say what must be so with t:eq, t:ok, t:match or t:near\n"
      "PASS asserts and makes no call\nPASS a caught failure counts\n");
}

/* Regression: r.statu was nil, so that t:ne(r.statu, 500) passed. */
static void test_fields_that_do_not_exist(void **state)
{
  (void)state;
  check("local function call(t) t:otherwise { status = 503 } t:use('again') return t:call { model = 'm' } end\n"
        "test('result', function(t) t:ne(call(t).statu, 500) end)\n"
        "test('far', function(t) t:ok(call(t).x) end)\n"
        "test('number', function(t) t:ok(call(t)[1]) end)\n"
        "test('ledger', function(t) t:ok(call(t).ledger[1].catgory) end)\n"
        "test('event', function(t) t:ok(call(t).events[1].polcy) end)\n"
        "test('request', function(t) call(t) t:ok(t:sent(1).modle) end)\n"
        "test('alert', function(t) t:sink('ops') t:use('again', { as = 'b', to = 'ops' }) call(t) "
        "t:ok(t:alerts()[1].txt) end)\n"
        "test('verdict', function(t) t:use('again') t:ok(t:emit('fail').mesage) end)\n"
        "test('method', function(t) t:provder { } end)\n"
        "test('absent this time', function(t)\n"
        "  local r = call(t)\n"
        "  t:eq(r.json, nil) t:eq(r.headers['x-none'], nil) t:eq(r.ledger[9], nil)\n"
        "  t:eq(t:start({ model = 'm' }).status, nil)\n"
        "  local copy = {}\n"
        "  for key, value in pairs(r) do copy[key] = value end\n"
        "  t:eq(copy, r)\n"
        "end)\n",
        NULL,
        "FAIL result: again_test.lua:2: the result of a call has no field \"statu\"; did you mean \"status\"?\n"
        "FAIL far: again_test.lua:3: the result of a call has no field \"x\"; it has id, done, status, headers, body, "
        "json, ok, truncated, category, target, attempts, upstream_calls, ledger, elapsed, waited, events, why, "
        "faults, tokens, cost\n"
        "FAIL number: again_test.lua:4: the result of a call has no field of type number\n"
        "FAIL ledger: again_test.lua:5: an entry of the ledger has no field \"catgory\"; did you mean \"category\"?\n"
        "FAIL event: again_test.lua:6: an event record has no field \"polcy\"; did you mean \"policy\"?\n"
        "FAIL request: again_test.lua:7: a request has no field \"modle\"; did you mean \"model\"?\n"
        "FAIL alert: again_test.lua:8: an alert has no field \"txt\"; did you mean \"text\"?\n"
        "FAIL verdict: again_test.lua:9: a verdict has no field \"mesage\"; did you mean \"message\"?\n"
        "FAIL method: again_test.lua:10: t has no method \"provder\"; did you mean \"provider\"?\n"
        "PASS absent this time\n");
}

static void test_calls_at_once(void **state)
{
  (void)state;
  check(
      "test('different ones', function(t)\n"
      "  t:provider { { delay = 2 }, { delay = 1 }, { status = 400 } }\n"
      "  local r = t:calls { { model = 'a' }, { model = 'b' }, { model = 'c' } }\n"
      "  t:eq(#r, 3) t:eq(r[1].elapsed, 2) t:eq(r[2].elapsed, 1) t:eq(r[3].status, 400)\n"
      "  t:eq(t:sent(3).model, 'c')\n"
      "  for i = 1, 3 do t:eq(t:sent(i).at, 0) end\n"
      "end)\n"
      "test('equal ones', function(t)\n"
      "  t:otherwise { delay = 3 }\n"
      "  local r = t:calls(100, { model = 'm' })\n"
      "  t:eq(#r, 100) t:eq(r[100].elapsed, 3) t:eq(t:now(), 1767225603)\n"
      "end)\n"
      "test('no list', function(t) t:calls { model = 'm' } end)\n"
      "test('no table', function(t) t:calls { 'm' } end)\n"
      "test('field', function(t) t:calls { { modle = 'm' } } end)\n"
      "test('too many', function(t) t:calls(1001, { model = 'm' }) end)\n",
      NULL,
      "PASS different ones\nPASS equal ones\n"
      "FAIL no list: again_test.lua:13: t:calls starts 1 to 1000 calls: t:calls { { model = ... }, ... } or "
      "t:calls(N, { model = ... })\n"
      "FAIL no table: again_test.lua:14: number 1 of t:calls must be a table { model = ... }, got string\n"
      "FAIL field: again_test.lua:15: t:calls{} has no field \"modle\"; it takes model, messages, stream, max_tokens, "
      "temperature, path, method, body, headers, client, host, target\n"
      "FAIL too many: again_test.lua:16: t:calls starts 1 to 1000 calls: t:calls { { model = ... }, ... } or "
      "t:calls(N, { model = ... })\n");
}

/* Handlers, too, are told which global was meant. */
static void test_functions_of_a_host(void **state)
{
  (void)state;
  check(
      "local function ask(t, with) return t:emit('ask', { f = 'f', with = with }).message end\n"
      "test('answers', function(t)\n"
      "  t:use('again')\n"
      "  t:eq(ask(t), 'false unknown: parry is part of no application here')\n"
      "  t:host('g', function() end)\n"
      "  t:eq(ask(t), 'false unknown: the host has no function of this name')\n"
      "  t:host('f', function(v) return v and { got = v.n + 1 } end)\n"
      "  t:eq(ask(t), 'true null')\n"
      "  t:eq(ask(t, { n = 1 }), 'true {\"got\":2}')\n"
      "  t:host('f', function() return nil, 'no' end)\n"
      "  t:eq(ask(t), 'true failed: no')\n"
      "  t:host('f', function() return ('x'):rep(70000) end)\n"
      "  t:eq(ask(t), \"true invalid_json: the host's answer has more than 64 KiB\")\n"
      "end)\n"
      "test('delays', function(t)\n"
      "  t:use('again')\n"
      "  t:host('f', function() return 1 end, { delay = 9.5 })\n"
      "  local began = t:now()\n"
      "  t:eq(ask(t), 'true 1') t:near(t:now() - began, 9.5)\n"
      "  t:host('f', function() return 1 end, { delay = 10.5 })\n"
      "  t:eq(ask(t), 'true timeout: no answer in time') t:near(t:now() - began, 19.5)\n"
      "  t:host('f', function() return 1 end, { delay = 4 })\n"
      "  t:eq(ask(t, 'twice'), 'true 1')\n"
      "  t:advance(60)\n"
      "  t:host('f', function() return 2 end)\n"
      "  t:eq(ask(t), 'true 2')\n"
      "end)\n"
      "test('raises', function(t)\n"
      "  t:use('again')\n"
      "  t:host('f', function(v) return v.n end)\n"
      "  ask(t)\n"
      "end)\n"
      "test('no JSON', function(t)\n"
      "  t:use('again')\n"
      "  t:host('f', function() return ask end)\n"
      "  ask(t)\n"
      "end)\n"
      "test('no function', function(t) t:host('f', 1) "
      "end)\n"
      "test('no name', function(t) t:host('a b', "
      "function() end) end)\n"
      "test('no option', function(t) t:host('f', "
      "function() end, { dely = 1 }) end)\n",
      NULL,
      "PASS answers\n"
      "PASS delays\n"
      "FAIL raises: again_test.lua:1: the function of t:host(\"f\") failed: again_test.lua:30: attempt to index a nil "
      "value (local 'v')\n"
      "FAIL no JSON: again_test.lua:1: the function of t:host(\"f\") failed: JSON cannot hold a function\n"
      "FAIL no function: again_test.lua:38: t:host needs a function that answers, got number\n"
      "FAIL no name: again_test.lua:39: a function's name has at most 63 letters, digits, \"_\", \"-\" and \".\"\n"
      "FAIL no option: again_test.lua:40: t:host{} has no field \"dely\"; it takes delay\n");
}

static void test_misspelt_globals(void **state)
{
  (void)state;
  check("test('fail', function(t)\n"
        "  t:use('again')\n"
        "  t:eq(t:emit('slip'), nil)\n"
        "  t:eq(t:emit('deep'), nil)\n"
        "  prnt(1)\n"
        "end)\n"
        "test('call', function(t) tst('x') end)\n",
        NULL,
        "FAIL fail: again_test.lua:5: attempt to call a nil value (global 'prnt')\n"
        "FAIL call: again_test.lua:7: attempt to call a nil value (global 'tst'); did you mean \"test\"?\n");
  struct results results = {0};
  struct pry_report report;
  for (int i = 0; i < 2; i++) {
    static const char *const names[] = {"slip", "deep"};
    static const char *const expected[] = {
        "fault: attempt to call a nil value (global 'retrry'); did you mean \"retry\"? (test \"a\" ran into it first)",
        "fault: attempt to index a nil value (global 'stor'); did you mean \"store\"? (test \"a\" ran into it first)"};
    char text[128];
    pry_report_init(&report);
    snprintf(text, sizeof text, "test('a', function(t) t:use('again') t:ok(t:emit('%s')) end)\n", names[i]);
    struct pry_policy_set *set = set_with(text);
    assert_false(run_all(set, &results, &report));
    assert_string_equal(report.findings[0].what, expected[i]);
    pry_policy_set_free(set);
    pry_report_fini(&report);
  }
}

/* Regression: a policy that breaks while it runs gave only the assertions that failed because of it. */
static void test_faults_behind_failures(void **state)
{
  (void)state;
  struct results results = {0};
  struct pry_report report;
  pry_report_init(&report);
  struct pry_policy_set *set = pry_policy_set_new();
  assert_true(pry_policy_set_add(set, "init.lua", pry_slice_of(init_text)));
  assert_true(pry_policy_set_add(set, "trip.lua",
                                 PRY_SLICE("return policy { name = \"trip\",\n"
                                           "  on_error = function(self, call, err)\n"
                                           "    return retry { after = err.retry_after + 1 }\n"
                                           "  end }\n")));
  assert_true(pry_policy_set_add(
      set, "trip_test.lua",
      PRY_SLICE("local function try(t) t:use('trip') t:provider { { status = 503 }, {} } return t:call {} end\n"
                "test('passes', function(t) t:eq(#try(t).faults, 1) end)\n"
                "test('one', function(t) t:eq(try(t).status, 200) end)\n"
                "test('two', function(t) t:eq(try(t).upstream_calls, 2) end)\n"
                "test('has none', function(t) t:eq(1, 2) end)\n")));
  assert_true(pry_policy_set_seal(set));
  assert_false(run_all(set, &results, &report));
  static const char fault[] = "attempt to perform arithmetic on a nil value (field 'retry_after')";
  char expected[512], what[256];
  snprintf(expected, sizeof expected,
           "PASS passes (1 call, 0 s virtual)\n"
           "FAIL one\n     fault: trip.lua:3: %s\n     trip_test.lua:3: expected 200, got 503\n"
           "FAIL two\n     trip_test.lua:4: expected 2, got 1\n"
           "FAIL has none\n     trip_test.lua:5: expected 2, got 1\n",
           fault);
  assert_string_equal(results.text, expected);
  assert_int_equal(report.count, 4);
  assert_string_equal(report.findings[0].where, "trip.lua:3");
  snprintf(what, sizeof what, "fault: %s (test \"one\" ran into it first)", fault);
  assert_string_equal(report.findings[0].what, what);
  assert_string_equal(report.findings[1].where, "trip_test.lua:3");
  assert_string_equal(report.findings[3].where, "trip_test.lua:5");
  pry_policy_set_free(set);
  pry_report_fini(&report);
}

/* What a reload sees: findings at the test's line. */
static void test_findings(void **state)
{
  (void)state;
  struct results results = {0};
  struct pry_report report;
  pry_report_init(&report);
  struct pry_policy_set *set = set_with("test('good', function(t) t:otherwise {} t:ok(t:call {}) t:advance(2.5) end)\n"
                                        "test('bad', function(t)\n t:eq(1, 2) end)\n");
  assert_false(run_all(set, &results, &report));
  assert_string_equal(results.text, "PASS good (1 call, 2.5 s virtual)\n"
                                    "FAIL bad\n     again_test.lua:3: expected 2, got 1\n");
  assert_int_equal(report.count, 1);
  assert_string_equal(report.findings[0].where, "again_test.lua:3");
  assert_string_equal(report.findings[0].what, "test \"bad\" failed: expected 2, got 1");
  pry_policy_set_free(set);
  pry_report_fini(&report);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_calls),
      cmocka_unit_test(test_hosts),
      cmocka_unit_test(test_concurrency),
      cmocka_unit_test(test_declaring),
      cmocka_unit_test(test_failures),
      cmocka_unit_test(test_endings),
      cmocka_unit_test(test_choosing),
      cmocka_unit_test(test_findings),
      cmocka_unit_test(test_without_assertion),
      cmocka_unit_test(test_fields_that_do_not_exist),
      cmocka_unit_test(test_calls_at_once),
      cmocka_unit_test(test_faults_behind_failures),
      cmocka_unit_test(test_functions_of_a_host),
      cmocka_unit_test(test_misspelt_globals),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
