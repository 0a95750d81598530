/* http.request, and the renewals that stand on it: waiting, limits, declared hosts, secrets, cancelling. */
#include "lua_rig.h"

static void push_step(struct rig *rig, const struct pry_http_step *step)
{
  assert_true(pry_http_script_push(rig->script, step));
}

static void push_body(struct rig *rig, int status, const char *body, double delay)
{
  struct pry_slice chunk = pry_slice_of(body);
  push_step(rig, &(struct pry_http_step){.status = status, .chunks = &chunk, .chunk_count = 1, .delay = delay});
}

static const struct pry_http_seen *seen(struct rig *rig, size_t i)
{
  assert_true(i < pry_http_script_seen_count(rig->script));
  return pry_http_script_seen(rig->script, i);
}

static void expect_header(const struct pry_http_seen *request, const char *name, const char *value)
{
  struct pry_slice found;
  assert_true(pry_headers_get(&request->headers, pry_slice_of(name), &found));
  if (!pry_slice_equal(found, pry_slice_of(value)))
    fail_msg("%s: %.*s instead of %s", name, (int)found.size, found.data, value);
}

static void expect_body(const struct pry_http_seen *request, const char *body)
{
  if (!pry_slice_equal(request->body, pry_slice_of(body)))
    fail_msg("body: %.*s", (int)request->body.size, request->body.data);
}

/* Asks, waits, and gives how it ended. */
static void wait_for(struct rig *rig, enum pry_handler handler)
{
  assert_int_equal(rig_ask(rig, handler), PRY_ASK_PENDING);
  assert_int_equal(rig->readies, 0);
  pry_loop_advance(rig->loop, 60 * PRY_SECOND);
  assert_int_equal(rig->readies, 1);
  rig->readies = 0;
}

static void wait_ok(struct rig *rig, enum pry_handler handler)
{
  wait_for(rig, handler);
  if (rig->ready_status == PRY_ASK_FAULT)
    fail_msg("fault: %s", rig->ask.fault);
}

static void test_request_and_answer(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local t = now()\n"
                                     "local a, err = http.request { method = 'PUT', url = 'https://help.test/x?y=1',\n"
                                     "  headers = { ['x-key'] = { 'k ', 5 } }, json = { b = 1, a = { true } } }\n"
                                     "assert(err == nil and a.status == 201 and a.headers['x-one'] == '1, 2')\n"
                                     "assert(a.body == '{\"n\":7}' and a.json().n == 7 and a:json().n == 7)\n"
                                     "assert(now() == t + 2 and call.id == 'c_0_1' and call.deadline_left == 28)\n"
                                     "return retry { after = a.json().n }"));
  struct pry_headers headers;
  struct pry_slice chunks[] = {PRY_SLICE("{\"n\""), PRY_SLICE(":7}")};
  pry_headers_init(&headers);
  pry_headers_add(&headers, PRY_SLICE("X-One"), PRY_SLICE("1"));
  pry_headers_add(&headers, PRY_SLICE("x-one"), PRY_SLICE("2"));
  push_step(
      rig, &(struct pry_http_step){.status = 201, .headers = &headers, .chunks = chunks, .chunk_count = 2, .delay = 2});
  wait_ok(rig, PRY_ON_ERROR);
  assert_float_equal(rig->ask.verdict.after, 7, 0);
  const struct pry_http_seen *request = seen(rig, 0);
  assert_string_equal(request->method, "PUT");
  assert_string_equal(request->url, "https://help.test/x?y=1");
  expect_header(request, "x-key", "k 5");
  expect_header(request, "content-type", "application/json");
  expect_body(request, "{\"a\":[true],\"b\":1}");
  assert_string_equal(rig_reads(rig), "[\"http.request\",\"PUT\",\"https://help.test/x?y=1\",201,\"{\\\"n\\\":7}\"],"
                                      "[\"now\",1700000002]");
  assert_int_equal(rig_record(rig)->verdict, PRY_VERDICT_RETRY);
  pry_headers_fini(&headers);
  rig_free(rig);
}

static void test_service_and_secrets(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new("local KEY = secret 'FORM_KEY'\n"
              "return policy { name = 'p', on_error = function()\n"
              "  assert(tostring(KEY) == '***')\n"
              "  assert(not pcall(json.encode, { KEY }))\n"
              "  assert(http.request { service = 'help', path = '/form',\n"
              "    form = { b = 'x y&z', a = KEY, n = 3 } })\n"
              "  assert(http.request { service = 'help', path = 'json', json = { key = KEY } })\n"
              "  assert(http.request { service = 'help', headers = { authorization = { 'Bearer ', KEY } } })\n"
              "end }\n");
  for (int i = 0; i < 3; i++)
    push_body(rig, 200, "", 0);
  wait_ok(rig, PRY_ON_ERROR);
  assert_string_equal(seen(rig, 0)->url, "https://help.test/api/form");
  assert_string_equal(seen(rig, 0)->method, "POST");
  expect_header(seen(rig, 0), "x-help", "test-HELP_KEY");
  expect_header(seen(rig, 0), "content-type", "application/x-www-form-urlencoded");
  expect_body(seen(rig, 0), "a=test-FORM_KEY&b=x%20y%26z&n=3");
  expect_body(seen(rig, 1), "{\"key\":\"test-FORM_KEY\"}");
  assert_string_equal(seen(rig, 2)->method, "GET");
  expect_header(seen(rig, 2), "authorization", "Bearer test-FORM_KEY");
  assert_null(strstr(rig_reads(rig), "test-FORM_KEY"));
  rig_free(rig);
}

static void test_misuse_raises(void **unused)
{
  (void)unused;
  static const struct {
    const char *request, *fault;
  } cases[] = {
      {"{ url = 'https://evil.test/' }", "the host evil.test is not declared"},
      {"{ url = 'https://help.test:444/' }", "the host help.test is not declared"},
      {"{ url = 'http://help.test/' }", "the host help.test is not declared"},
      {"{ url = 'https://help.test@evil.test/' }", "url must be http:// or https://"},
      {"{ url = 'https://help.test\\\\@evil.test/' }", "must not hold spaces, backslashes"},
      {"{ url = 'https://help.test.evil.test/' }", "is not declared"},
      {"{ url = 'file:///etc/passwd' }", "url must be http:// or https://"},
      {"{ url = 'https:///x' }", "url must be http:// or https://"},
      {"{ url = 'https://help.test/\\r\\nx: y' }", "must not hold spaces"},
      {"{ service = 'nobody' }", "there is no service \"nobody\""},
      {"{ }", "needs a url, or a service"},
      {"{ url = 'https://help.test/', service = 'help' }", "needs a url, or a service"},
      {"{ url = 'https://help.test/', uri = 1 }", "http.request{} has no field \"uri\""},
      {"{ url = 'https://help.test/', json = {}, form = {} }", "json, form and body exclude each other"},
      {"{ url = 'https://help.test/', method = 'get' }", "upper-case"},
      {"{ url = 'https://help.test/', timeout = 11 }", "timeout must be a number from 0.001 to 10"},
      {"{ url = 'https://help.test/', headers = { host = 'x' } }", "the header host is parry's own"},
      {"{ url = 'https://help.test/', headers = { x = 'a\\nb: c' } }", "holds a line break"},
      {"{ url = 'https://help.test/', json = { f = 1 }, body = function() end }", "the body must be text"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char policy[512];
    snprintf(policy, sizeof policy, "return policy { name = 'p', on_error = function()\nhttp.request %s\nend }\n",
             cases[i].request);
    struct rig *rig = rig_new(policy);
    assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
    if (!strstr(rig->ask.fault, cases[i].fault))
      fail_msg("%s: %s", cases[i].request, rig->ask.fault);
    assert_int_equal(pry_http_script_seen_count(rig->script), 0);
    rig_free(rig);
  }
}

static void test_failures_are_values(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local a, err = http.request { service = 'help' }\n"
                                     "assert(a == nil and err.category == 'network' and err.message)\n"
                                     "a, err = http.request { service = 'help', timeout = 2 }\n"
                                     "assert(a == nil and err.category == 'timeout')\n"
                                     "a, err = http.request { service = 'help' }\n"
                                     "assert(a == nil and err.message:find('256 KiB', 1, true))\n"
                                     "a, err = http.request { service = 'help' }\n"
                                     "assert(a.status == 503 and not err)\n"
                                     "local value, why = a.json()\n"
                                     "assert(value == nil and why.category == 'invalid_json')\n"
                                     "local ok, b = pcall(http.request, { service = 'help' })\n"
                                     "assert(ok and b.status == 204)"));
  char *large = calloc(1, PRY_HTTP_CHUNK_MAX);
  struct pry_slice chunks[20];
  for (size_t i = 0; i < 20; i++)
    chunks[i] = (struct pry_slice){large, PRY_HTTP_CHUNK_MAX};
  push_step(rig, &(struct pry_http_step){.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true});
  push_step(rig, &(struct pry_http_step){.hang = true});
  push_step(rig, &(struct pry_http_step){.chunks = chunks, .chunk_count = 20});
  push_body(rig, 503, "down", 0);
  push_body(rig, 204, "", 0.5);
  wait_ok(rig, PRY_ON_ERROR);
  assert_true(seen(rig, 1)->cancelled);
  assert_true(seen(rig, 2)->cancelled);
  assert_int_equal(pry_http_open_count(rig->http), 0);
  free(large);
  rig_free(rig);
}

static void test_ten_seconds_in_all(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new(ON_ERROR("local t, n = now(), 0\n"
                       "while true do\n"
                       "  local a, err = http.request { service = 'help', timeout = 4 }\n"
                       "  if not a and now() - t >= 10 and err.message:find('as long as it may') then break end\n"
                       "  n = n + 1\n"
                       "end\n"
                       "return retry { after = now() - t, why = tostring(n) }"));
  for (int i = 0; i < 5; i++)
    push_step(rig, &(struct pry_http_step){.hang = true});
  wait_ok(rig, PRY_ON_ERROR);
  assert_float_equal(rig->ask.verdict.after, 10, 1e-6);
  assert_string_equal(rig->ask.verdict.why, "3");
  rig_free(rig);
}

static void test_two_waiting_handlers_keep_their_views(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local model = call.model\n"
                                     "local a = http.request { service = 'help', path = model }\n"
                                     "assert(call.model == model and err.status == tonumber(model))\n"
                                     "return retry { why = a.body .. call.model .. err.status }"));
  struct pry_call_view views[2] = {rig->view, rig->view};
  struct pry_failure failures[2] = {rig->failure, rig->failure};
  struct pry_ask asks[2];
  push_body(rig, 200, "slow", 3);
  push_body(rig, 200, "fast", 1);
  for (int i = 0; i < 2; i++) {
    failures[i].status = 501 + i;
    snprintf(views[i].model, sizeof views[i].model, "%d", 501 + i);
    rig_prepare(rig, &asks[i], PRY_ON_ERROR);
    asks[i].call = &views[i];
    asks[i].failure = &failures[i];
    assert_int_equal(rig_run(rig, &asks[i]), PRY_ASK_PENDING);
  }
  pry_loop_advance(rig->loop, PRY_SECOND);
  assert_int_equal(rig->readies, 1);
  assert_string_equal(asks[1].verdict.why, "fast502502");
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(rig->readies, 2);
  assert_string_equal(asks[0].verdict.why, "slow501501");
  for (int i = 0; i < 2; i++)
    pry_verdict_fini(&asks[i].verdict);
  rig_free(rig);
}

static void test_cancel(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("http.request { service = 'help' }"));
  push_step(rig, &(struct pry_http_step){.hang = true});
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_PENDING);
  pry_loop_advance(rig->loop, PRY_SECOND);
  struct pry_state *state = rig->engine->control->state;
  state->ops->cancel(state, &rig->ask);
  assert_int_equal(pry_http_open_count(rig->http), 0);
  assert_true(seen(rig, 0)->cancelled);
  assert_int_equal(rig_record(rig)->result, PRY_RUN_CANCELLED);
  pry_loop_advance(rig->loop, 20 * PRY_SECOND);
  assert_int_equal(rig->readies, 0);
  rig_free(rig);
}

/* The state goes away while a handler of it waits: its I/O ends with it. */
static void test_free_while_waiting(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("http.request { service = 'help' }"));
  push_step(rig, &(struct pry_http_step){.hang = true});
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_PENDING);
  rig_free(rig);
}

/* A handler may end the last use of its generation. */
static void drop_state(struct pry_ask *ask, enum pry_ask_status status)
{
  struct rig *rig = ask->user;
  rig->readies++;
  rig->ready_status = status;
  pry_state_unref(ask->state);
}

static void test_ready_may_drop_the_state(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("http.request { service = 'help' }"));
  struct pry_report report;
  push_body(rig, 200, "", 1);
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_PENDING);
  pry_state_ref(rig->ask.state);
  rig->ask.ready = drop_state;
  struct pry_policy_set *set = pry_policy_set_new();
  assert_true(pry_policy_set_add(set, "init.lua", PRY_SLICE("-- nothing\n")));
  assert_true(pry_policy_set_seal(set));
  pry_report_init(&report);
  assert_true(pry_engine_load(rig->engine, set, false, &report));
  pry_report_fini(&report);
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(rig->readies, 1);
  assert_int_equal(rig->ready_status, PRY_ASK_DONE);
  rig_free(rig);
}

static void test_fault_after_a_wait(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("http.request { service = 'help' }\nerror('late')"));
  push_body(rig, 200, "", 1);
  wait_for(rig, PRY_ON_ERROR);
  assert_int_equal(rig->ready_status, PRY_ASK_FAULT);
  assert_string_equal(rig->ask.fault, "p.lua:3: late");
  rig_free(rig);
}

/* Out of memory at every place a handler can run out of it: the run is a fault or it works, nothing leaks, and the next one
 * with room works again. */
static void test_memory_sweep(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR(
      "call.vars.a = { 1, 'x' }\n"
      "local t = { call.vars.a, call:json(), call:header('x-test'), call.ledger[1].err.message, #call.ledger }\n"
      "store.set('k', 'v') store.get('k') store.count('c') store.window('w', { seconds = 1 }):add()\n"
      "local b = store.breaker('b') b:enter() b:failure {} b:state()\n"
      "log.info('hello', { a = 1, b = 'x' })\n"
      "t[#t + 1] = json.decode(json.encode { t[1], { z = 1, y = { 2 } } })\n"
      "local a = http.request { service = 'help', headers = { x = { 'y', 1 } }, form = { a = 'b', c = 'd' } }\n"
      "if a then t[#t + 1] = a.json() end\n"
      "return retry { after = 1, why = 'room' }"));
  struct pry_script *script = (struct pry_script *)rig->engine->control->state;
  size_t limit = script->limits.memory;
  unsigned faults = 0, successes = 0;
  for (size_t room = 0; room < 24 * 1024; room += 48) {
    push_body(rig, 200, "{\"a\":[1,2,{\"b\":\"c\\n\"}]}", 0.5);
    script->limits.memory = script->memory + room;
    enum pry_ask_status status = rig_ask(rig, PRY_ON_ERROR);
    if (status == PRY_ASK_PENDING) {
      pry_loop_advance(rig->loop, PRY_SECOND);
      assert_int_equal(rig->readies, 1);
      rig->readies = 0;
      status = rig->ready_status;
    }
    script->limits.memory = limit;
    faults += status == PRY_ASK_FAULT;
    successes += status == PRY_ASK_DONE;
    assert_int_equal(rig->ask.result, status == PRY_ASK_FAULT ? PRY_RUN_NO_MEMORY : PRY_RUN_OK);
    assert_int_equal(pry_http_open_count(rig->http), 0);
    pry_permits_release(&rig->permits);
    pry_script_collect(script);
  }
  assert_true(faults > 10 && successes > 10);
  push_body(rig, 200, "{}", 0);
  wait_ok(rig, PRY_ON_ERROR);
  assert_string_equal(rig->ask.verdict.why, "room");
  rig_free(rig);
}

/* ---- jobs ------------------------------------------------------------------------------------------------ */

static void test_jobs_sleep(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new("return policy { name = 'p',\n"
                            "  on_error = function() sleep(1) end,\n"
                            "  every = { { seconds = 60, run = function(self)\n"
                            "    local t = now()\n"
                            "    sleep(5)\n"
                            "    local a = http.request { service = 'help' }\n"
                            "    store.set('slept', now() - t + a.status)\n"
                            "  end } } }\n");
  struct pry_buffer value;
  pry_buffer_init(&value, 0);
  rig_fault(rig, PRY_ON_ERROR, "p.lua:2: sleep works in every = { … } only; elsewhere return a verdict that waits");
  push_body(rig, 200, "", 0);
  pry_loop_advance(rig->loop, 64 * PRY_SECOND);
  assert_int_equal(pry_http_script_seen_count(rig->script), 0);
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(pry_store_get(rig->engine->store, PRY_SLICE("p:slept"), &value, pry_loop_now(rig->loop)),
                   PRY_STORE_OK);
  assert_string_equal(pry_buffer_text(&value), "205");
  pry_buffer_fini(&value);
  pry_loop_advance(rig->loop, 56 * PRY_SECOND); /* the second run sleeps when everything ends */
  rig_free(rig);
}

/* ---- renewals -------------------------------------------------------------------------------------------- */

static struct pry_renewal renewal_of(struct rig *rig, const char *credential, const char *refresh_token)
{
  struct pry_renewal renewal = {.credential =
                                    pry_config_credential(rig->engine->control->state->generation->config, credential),
                                .refresh_token = pry_slice_of(refresh_token)};
  assert_non_null(renewal.credential);
  pry_buffer_init(&renewal.token, 0);
  pry_buffer_init(&renewal.new_refresh_token, 0);
  return renewal;
}

static void renew(struct rig *rig, struct pry_renewal *renewal)
{
  rig_prepare(rig, &rig->ask, PRY_REFRESH);
  rig->ask.instance = NULL;
  rig->ask.call = NULL;
  rig->ask.renewal = renewal;
  assert_int_equal(rig_run(rig, &rig->ask), PRY_ASK_PENDING);
  pry_loop_advance(rig->loop, 30 * PRY_SECOND);
  assert_int_equal(rig->readies, 1);
  rig->readies = 0;
}

static void end_renewal(struct pry_renewal *renewal)
{
  pry_buffer_fini(&renewal->token);
  pry_buffer_fini(&renewal->new_refresh_token);
}

static void test_oauth_grant(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR(""));
  struct pry_renewal renewal = renewal_of(rig, "plain", "r&1");
  push_body(rig, 200,
            "{\"access_token\":\"a1\",\"expires_in\":3600,\"token_type\":\"Bearer\",\"refresh_token\":\"r2\"}", 1);
  renew(rig, &renewal);
  assert_int_equal(rig->ready_status, PRY_ASK_DONE);
  assert_string_equal(pry_buffer_text(&renewal.token), "a1");
  assert_string_equal(pry_buffer_text(&renewal.new_refresh_token), "r2");
  assert_float_equal(renewal.expires_in, 3600, 0);
  assert_string_equal(seen(rig, 0)->url, "https://tokens.test/o");
  assert_string_equal(seen(rig, 0)->method, "POST");
  expect_header(seen(rig, 0), "content-type", "application/x-www-form-urlencoded");
  expect_body(seen(rig, 0), "grant_type=refresh_token&refresh_token=r%261");
  assert_string_equal(rig_reads(rig), "[\"http.request\",\"POST\",\"https://tokens.test/o\",200,\"***\"]");
  assert_string_equal(rig_record(rig)->policy, "plain");
  end_renewal(&renewal);

  renewal = renewal_of(rig, "plain", "r1");
  push_body(rig, 400, "{\"error\":\"invalid_grant\",\"error_description\":\"expired\"}", 0);
  renew(rig, &renewal);
  assert_int_equal(rig->ready_status, PRY_ASK_DONE);
  assert_int_equal(renewal.token.size, 0);
  assert_string_equal(renewal.error, "the token endpoint answered 400: expired");
  end_renewal(&renewal);

  renewal = renewal_of(rig, "plain", "r1");
  push_step(rig, &(struct pry_http_step){.hang = true});
  renew(rig, &renewal);
  assert_string_equal(renewal.error, "no answer in time");
  end_renewal(&renewal);

  renewal = renewal_of(rig, "plain", "");
  push_body(rig, 200, "", 0);
  renew(rig, &renewal);
  assert_string_equal(renewal.error, "there is no refresh token");
  end_renewal(&renewal);
  rig_free(rig);
}

static void test_kimi_grant(void **unused)
{
  (void)unused;
  static const struct {
    const char *answer, *token, *rotated, *error;
    double expires_in;
  } cases[] = {
      {"{\"errcode\":0,\"data\":{\"access_token\":\"a\",\"expires_in\":900,\"refresh_token\":\"n\"}}", "a", "n", "",
       900},
      {"{\"access_token\":\"b\",\"expires_in\":\"60\"}", "b", NULL, "", 60},
      {"{\"access_token\":\"c\"}", "c", NULL, "", -1},
      {"{\"errcode\":-2002,\"errmsg\":\"expired\",\"data\":null}", NULL, NULL,
       "the token endpoint said errcode -2002: expired", -1},
      {"{\"errcode\":0,\"data\":{}}", NULL, NULL, "the token endpoint answered 200", -1},
      {"<html>", NULL, NULL, "the token endpoint answered 200", -1},
  };
  struct rig *rig = rig_new(ON_ERROR(""));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct pry_renewal renewal = renewal_of(rig, "kimi", "r");
    push_body(rig, 200, cases[i].answer, 0);
    renew(rig, &renewal);
    assert_int_equal(rig->ready_status, PRY_ASK_DONE);
    assert_string_equal(renewal.error, cases[i].error);
    assert_string_equal(pry_buffer_text(&renewal.token), cases[i].token ? cases[i].token : "");
    assert_string_equal(pry_buffer_text(&renewal.new_refresh_token), cases[i].rotated ? cases[i].rotated : "");
    assert_float_equal(renewal.expires_in, cases[i].expires_in, 0);
    expect_body(seen(rig, i), "{\"refresh_token\":\"r\"}");
    expect_header(seen(rig, i), "content-type", "application/json");
    end_renewal(&renewal);
  }
  rig_free(rig);
}

static void test_own_refresh_function(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR(""));
  struct pry_renewal renewal = renewal_of(rig, "own", "live");
  push_body(rig, 200, "fresh", 0);
  renew(rig, &renewal);
  assert_int_equal(rig->ready_status, PRY_ASK_DONE);
  assert_string_equal(pry_buffer_text(&renewal.token), "fresh");
  assert_string_equal(pry_buffer_text(&renewal.new_refresh_token), "next-fresh");
  expect_header(seen(rig, 0), "authorization", "R live");
  end_renewal(&renewal);
  rig_free(rig);
}

/* A service whose credential has no token yet: the renewal comes first, then the request. */
static void test_service_with_a_credential(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local a, err = http.request { service = 'renewed' }\n"
                                     "return retry { why = a and a.body or err.category .. ': ' .. err.message }"));
  push_body(rig, 200, "{\"access_token\":\"token-1\",\"expires_in\":3600}", 1);
  push_body(rig, 200, "done", 1);
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_PENDING);
  pry_loop_advance(rig->loop, 5 * PRY_SECOND);
  assert_int_equal(rig->readies, 1);
  assert_string_equal(rig->ask.verdict.why, "done");
  expect_header(seen(rig, 1), "authorization", "Bearer token-1");
  rig_free(rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_request_and_answer),
      cmocka_unit_test(test_service_and_secrets),
      cmocka_unit_test(test_misuse_raises),
      cmocka_unit_test(test_failures_are_values),
      cmocka_unit_test(test_ten_seconds_in_all),
      cmocka_unit_test(test_two_waiting_handlers_keep_their_views),
      cmocka_unit_test(test_cancel),
      cmocka_unit_test(test_free_while_waiting),
      cmocka_unit_test(test_ready_may_drop_the_state),
      cmocka_unit_test(test_fault_after_a_wait),
      cmocka_unit_test(test_memory_sweep),
      cmocka_unit_test(test_jobs_sleep),
      cmocka_unit_test(test_oauth_grant),
      cmocka_unit_test(test_kimi_grant),
      cmocka_unit_test(test_own_refresh_function),
      cmocka_unit_test(test_service_with_a_credential),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
