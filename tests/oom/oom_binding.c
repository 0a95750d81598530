/* Handlers in Lua whose memory fails below Lua: each run ends well or as a fault that is told, never in the process's end,
 * and the state goes on. */
#include "../unit/lua_rig.h"
#include "call.h"
#include "fail.h"

/* Asks a handler until it has ended, waiting for its I/O. */
static enum pry_ask_status ask(struct rig *rig, struct pry_ask *asked)
{
  unsigned before = rig->readies;
  enum pry_ask_status status = rig_run(rig, asked);
  if (status != PRY_ASK_PENDING)
    return status;
  for (int i = 0; i < 1000 && rig->readies == before; i++)
    pry_loop_turn(rig->loop, 10 * PRY_SECOND);
  FAIL_CHECK(rig->readies == before + 1);
  return rig->ready_status;
}

static enum pry_ask_status ask_for(struct rig *rig, enum pry_handler handler)
{
  pry_verdict_fini(&rig->ask.verdict);
  rig_prepare(rig, &rig->ask, handler);
  return ask(rig, &rig->ask);
}

static void push_answers(struct rig *rig)
{
  struct pry_slice chunk = PRY_SLICE("{\"n\":7,\"list\":[1,2,{\"deep\":true}]}");
  struct pry_http_step step = {.chunks = &chunk, .chunk_count = 1, .delay = 1};
  FAIL_CHECK(pry_http_script_set_default(rig->script, &step));
}

/* Each run is a verdict or a told fault; when memory is back, so are the verdicts. */
static void run(const char *policy, enum pry_handler handler, enum pry_verdict_kind kind)
{
  fail_quiet();
  struct rig *rig = rig_new(policy);
  push_answers(rig);
  fail_loud();
  for (int i = 0; i < 2; i++) {
    enum pry_ask_status status = ask_for(rig, handler);
    FAIL_CHECK(status == PRY_ASK_DONE || status == PRY_ASK_FAULT);
    if (status == PRY_ASK_FAULT && !fail_struck())
      printf("  %s\n", rig->ask.fault);
    FAIL_CHECK(status == PRY_ASK_DONE || (fail_struck() && *rig->ask.fault && !rig->ask.verdict.kind));
    FAIL_CHECK(rig->ask.verdict.kind == kind || rig->ask.verdict.kind == PRY_VERDICT_NONE);
  }
  fail_over();
  for (int i = 0; i < 2; i++) {
    enum pry_ask_status status = ask_for(rig, handler);
    FAIL_CHECK(status == PRY_ASK_DONE && rig->ask.verdict.kind == kind);
  }
  FAIL_CHECK(pry_http_open_count(rig->http) == 0);
  rig_free(rig);
}

static void use_values(void)
{
  run(ON_ERROR("local t = {}\n"
               "for i = 1, 20 do t[i] = { name = ('%d:%s'):format(i, ('x'):rep(i)), at = i } end\n"
               "table.sort(t, function(a, b) return a.at > b.at end)\n"
               "local s = {}\n"
               "for _, v in ipairs(t) do s[#s + 1] = v.name:upper():gsub('X+', '-') end\n"
               "local text = table.concat(s, ',')\n"
               "for k in text:gmatch('%d+') do assert(tonumber(k)) end\n"
               "local ok, why = pcall(error, { code = 1 })\n"
               "assert(not ok and why.code == 1)\n"
               "return retry { after = 1, why = ('%s %s'):format(call.id, err.category) }"),
      PRY_ON_ERROR, PRY_VERDICT_RETRY);
}

static void use_json(void)
{
  run(ON_ERROR("local v = json.decode('{\"a\":[1,2.5,\"x\\\\u00e9\",null,true],\"b\":{\"c\":{}}}')\n"
               "assert(v.a[2] == 2.5)\n"
               "local text = json.encode { list = { 1, 2, 3 }, map = { a = 'q\"', b = v.b } }\n"
               "assert(json.decode(text).list[3] == 3)\n"
               "assert(call:json().n[2] == 2)\n"
               "return retry { after = 2 }"),
      PRY_ON_ERROR, PRY_VERDICT_RETRY);
}

static void use_store(void)
{
  run(ON_ERROR("call.vars.n = (call.vars.n or 0) + 1\n"
               "call.vars.list = { 1, 'two', { three = true } }\n"
               "store.set('k' .. call.vars.n, 'value', 5)\n"
               "store.count('c', 1)\n"
               "log.info('seen', { n = call.vars.n, category = err.category })\n"
               "notify { key = 'a', to = 'ops', text = 'it happened' }\n"
               "return fail { category = 'billing', message = 'no more', status = 402 }"),
      PRY_ON_ERROR, PRY_VERDICT_FAIL);
}

static void use_http(void)
{
  run(ON_ERROR("local a, e = http.request { method = 'POST', url = 'https://help.test/x?y=1',\n"
               "  headers = { ['x-key'] = { 'k ', 5 } }, json = { b = 1, a = { true } } }\n"
               "local b = http.request { service = 'help', path = 'form', form = { a = 'x y', b = 2 } }\n"
               "if not a or not b then return retry { after = 1, why = e and e.message } end\n"
               "return retry { after = a.json().n }"),
      PRY_ON_ERROR, PRY_VERDICT_RETRY);
}

/* ---- http.probe --------------------------------------------------------------------------------------------- */

/* One that leads on, one that does not, one that is refused and one that nobody answers. */
#define PROBING                                                                                                        \
  ON_REQUEST("local a, e = http.probe { url = 'https://f.test/a?sig=x', method = 'GET', redirects = 2 }\n"             \
             "local b, f = http.probe { url = 'http://10.0.0.1/' }\n"                                                  \
             "local c, g = http.probe { url = 'https://slow.test/', timeout = 2 }\n"                                   \
             "if (e and not e.category) or b or c then error('unexpected') end\n"                                      \
             "if not a then return respond { status = 500, body = e.message } end\n"                                   \
             "assert(a.headers['content-type'] == 'image/png' and a.url == 'https://f.test/b')\n"                      \
             "return respond { status = 200, body = f.category .. g.category }")

static void push_head(struct rig *rig, int status, const char *name, const char *value)
{
  struct pry_headers headers;
  pry_headers_init(&headers);
  FAIL_CHECK(pry_headers_add(&headers, pry_slice_of(name), pry_slice_of(value)));
  struct pry_http_step step = {.status = status, .headers = &headers, .delay = 0.1, .url_part = "f.test"};
  FAIL_CHECK(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&headers);
}

static void push_probed(struct rig *rig)
{
  struct pry_http_step slow = {.hang = true};
  fail_quiet();
  push_head(rig, 302, "Location", "/b");
  push_head(rig, 206, "Content-Type", "image/png");
  FAIL_CHECK(pry_http_script_set_default(rig->script, &slow));
  fail_loud();
}

static void use_probe(void)
{
  fail_quiet();
  struct rig *rig = rig_new(PROBING);
  fail_loud();
  push_probed(rig);
  enum pry_ask_status status = ask_for(rig, PRY_ON_REQUEST);
  FAIL_CHECK(status == PRY_ASK_DONE || (status == PRY_ASK_FAULT && fail_struck() && *rig->ask.fault));
  fail_over();
  while (pry_http_script_unused(rig->script)) { /* what the first one left */
    ask_for(rig, PRY_ON_REQUEST);
  }
  push_probed(rig);
  FAIL_CHECK(ask_for(rig, PRY_ON_REQUEST) == PRY_ASK_DONE && rig->ask.verdict.status == 200);
  FAIL_CHECK(pry_http_open_count(rig->http) == 0);
  rig_free(rig);
}

/* One that is under way when the state goes. */
static void use_probe_cancel(void)
{
  fail_quiet();
  struct rig *rig = rig_new(PROBING);
  fail_loud();
  push_probed(rig);
  rig_prepare(rig, &rig->ask, PRY_ON_REQUEST);
  struct pry_state *state = rig->engine->control->state;
  if (rig_run(rig, &rig->ask) == PRY_ASK_PENDING) {
    pry_loop_turn(rig->loop, PRY_SECOND);
    if (!rig->readies)
      state->ops->cancel(state, &rig->ask);
  }
  FAIL_CHECK(pry_http_open_count(rig->http) == 0);
  rig_free(rig);
}

/* ---- what is found in a body, and what is learned about keys ---------------------------------------------------- */

static void use_find(void)
{
  run(ON_ERROR("local list = call:find({ 'none', 'n', 'model' }, 4)\n"
               "local body = call:json { cut = 256 }\n"
               "assert(list[1].value == 'm' and list[1].path == 'model' and body.n[2] == 2)\n"
               "return retry { after = 1, why = list[1].name }"),
      PRY_ON_ERROR, PRY_VERDICT_RETRY);
}

#define KEYS_INIT                                                                                                      \
  "provider 'up' { base_url = 'https://up.test/v1', dialect = 'd', auth = bearer(secret 'UP_KEY'),\n"                  \
  "  keys = { secret 'UP_KEY_2' } }\n"                                                                                 \
  "route '/*' { to = 'up', chain = { use 'p' } }\n"

static void use_keys(void)
{
  fail_quiet();
  struct rig *rig = rig_new_set(ON_ERROR("local a, b = keys.pause(5), keys.retire(60)\n"
                                         "keys.worked()\n"
                                         "return rotate { why = a .. ' ' .. b }"),
                                KEYS_INIT, NULL, NULL);
  uint64_t version;
  const struct pry_provider *provider = rig->view.target.provider;
  FAIL_CHECK(provider->key_count == 2 && pry_keys_usable(rig->engine->keys, provider, 0, false, &version, 0));
  snprintf(rig->ledger[1].key, sizeof rig->ledger[1].key, "%s", provider->keys[0]->name);
  rig->ledger[1].key_version = version;
  fail_loud();
  for (int i = 0; i < 2; i++) {
    enum pry_ask_status status = ask_for(rig, PRY_ON_ERROR);
    FAIL_CHECK(status == PRY_ASK_DONE || (fail_struck() && *rig->ask.fault));
  }
  fail_over();
  FAIL_CHECK(ask_for(rig, PRY_ON_ERROR) == PRY_ASK_DONE && rig->ask.verdict.kind == PRY_VERDICT_ROTATE);
  FAIL_CHECK(!pry_keys_usable(rig->engine->keys, provider, 0, false, &version, pry_loop_now(rig->loop)));
  rig_free(rig);
}

static void use_respond(void)
{
  run(ON_REQUEST("return respond { status = 200, headers = { ['content-type'] = 'text/plain', ['x-a'] = 'b' },\n"
                 "  body = ('hello '):rep(100) }"),
      PRY_ON_REQUEST, PRY_VERDICT_RESPOND);
}

static void use_route(void)
{
  run(ON_REQUEST("assert(call:header('x-test') == 'yes')\n"
                 "return route { target = 'kimi/m2', headers = { ['x-b'] = call.model } }"),
      PRY_ON_REQUEST, PRY_VERDICT_ROUTE);
}

/* Renewals by the shipped grants and by a function of one's own. */
static void renew(struct rig *rig, size_t i, bool must)
{
  struct pry_renewal renewal = {.credential = &rig->engine->control->state->generation->config->credentials[i],
                                .refresh_token = PRY_SLICE("the-refresh-token"),
                                .expires_in = -1};
  pry_buffer_init(&renewal.token, 0);
  pry_buffer_init(&renewal.new_refresh_token, 0);
  rig_prepare(rig, &rig->ask, PRY_REFRESH);
  rig->ask.instance = NULL;
  rig->ask.call = NULL;
  rig->ask.renewal = &renewal;
  enum pry_ask_status status = ask(rig, &rig->ask);
  FAIL_CHECK(status == PRY_ASK_DONE || status == PRY_ASK_FAULT);
  FAIL_CHECK(status == PRY_ASK_DONE ? renewal.token.size || *renewal.error : *renewal.error || *rig->ask.fault);
  FAIL_CHECK(!must || (status == PRY_ASK_DONE && renewal.token.size));
  pry_buffer_fini(&renewal.token);
  pry_buffer_fini(&renewal.new_refresh_token);
  pry_verdict_fini(&rig->ask.verdict);
}

static void use_refresh(void)
{
  struct pry_slice chunk =
      PRY_SLICE("{\"access_token\":\"a-new-token\",\"refresh_token\":\"rotated\",\"expires_in\":60,\"code\":0}");
  fail_quiet();
  struct rig *rig = rig_new(ON_ERROR("return nil"));
  struct pry_headers headers;
  pry_headers_init(&headers);
  pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("application/json"));
  struct pry_http_step step = {.headers = &headers, .chunks = &chunk, .chunk_count = 1, .delay = 1};
  FAIL_CHECK(pry_http_script_set_default(rig->script, &step));
  pry_headers_fini(&headers);
  fail_loud();
  for (size_t i = 0; i < 3; i++)
    if (rig->engine->control->state->generation->config->credentials[i].name[0] != 'k')
      renew(rig, i, false);
  fail_over();
  for (size_t i = 0; i < 3; i++)
    if (rig->engine->control->state->generation->config->credentials[i].name[0] == 'p')
      renew(rig, i, true);
  rig_free(rig);
}

#define OWN_DIALECT                                                                                                    \
  "return dialect { name = 'd', stream = { default = 'content' },\n"                                                   \
  "  classify = function(answer)\n"                                                                                    \
  "    local body = answer:json()\n"                                                                                   \
  "    return { category = 'billing', code = body and body.error.code, message = 'said ' .. answer.status } end,\n"    \
  "  render = function(err) return { error = { message = err.message, code = err.code } } end }\n"

static void use_dialect(void)
{
  struct pry_answer_view answer = {
      .provider = "up", .status = 429, .body = PRY_SLICE("{\"error\":{\"code\":\"quota\",\"list\":[1,2,3]}}")};
  struct pry_buffer out;
  fail_quiet();
  struct rig *rig = rig_new_set(ON_ERROR("return nil"), NULL, OWN_DIALECT, NULL);
  fail_loud();
  struct pry_state *state = rig->engine->control->state;
  const struct pry_dialect *dialect = state->generation->config->dialects[0];
  answer.headers = &rig->headers;
  pry_buffer_init(&out, 0);
  for (int i = 0; i < 3; i++) {
    struct pry_failure failure = pry_classify(state, dialect, &answer, 0);
    FAIL_CHECK(failure.category == PRY_BILLING || failure.category == PRY_RATE_LIMIT);
    FAIL_CHECK(failure.category == PRY_BILLING || i < 2);
    size_t before = out.size;
    bool rendered = state->ops->render(state, dialect, &failure, "c_0_1", PRY_RENDER_BODY, &out);
    FAIL_CHECK(rendered ? out.size > before : i < 2);
    if (i == 1)
      fail_over();
  }
  pry_buffer_fini(&out);
  rig_free(rig);
}

/* What is open when the state goes. */
static void use_cancel(void)
{
  fail_quiet();
  struct rig *rig = rig_new(ON_ERROR("http.request { url = 'https://help.test/x' }"));
  push_answers(rig);
  fail_loud();
  rig_prepare(rig, &rig->ask, PRY_ON_ERROR);
  struct pry_state *state = rig->engine->control->state;
  if (rig_run(rig, &rig->ask) == PRY_ASK_PENDING)
    state->ops->cancel(state, &rig->ask);
  FAIL_CHECK(pry_http_open_count(rig->http) == 0);
  rig_free(rig);
}

#define CHECKING                                                                                                       \
  "return policy { name = 'p', every = { { seconds = 60, run = function(self)\n"                                       \
  "  local found = health.check { targets = { 'up/m', 'kimi/m', 'nobody' }, timeout = 5 }\n"                           \
  "  if found then log.info(#found .. found[1].target .. tostring(found[1].ok) .. tostring(found[3].hint)) end\n"      \
  "  log.info(tostring(#health.targets()))\n"                                                                          \
  "end } } }\n"

/* A list of models that the rig's dialect is told of here. */
#define CHECKED_DIALECT                                                                                                \
  "return dialect { name = 'd', stream = { default = 'content' }, "                                                    \
  "health = { models = '/models', headers = { 'x-version: 1' } } }\n"

static void use_health(void)
{
  fail_quiet();
  struct rig *rig = rig_new_set(CHECKING, NULL, CHECKED_DIALECT, NULL);
  push_answers(rig);
  fail_loud();
  for (int i = 0; i < 2; i++) {
    enum pry_ask_status status = ask_for(rig, PRY_EVERY);
    FAIL_CHECK(status == PRY_ASK_DONE || (status == PRY_ASK_FAULT && fail_struck() && *rig->ask.fault));
  }
  fail_over();
  pry_buffer_clear(&rig->lines);
  FAIL_CHECK(ask_for(rig, PRY_EVERY) == PRY_ASK_DONE);
  FAIL_CHECK(strstr(pry_buffer_text(&rig->lines), "3up/mtrueinit.lua declares no provider"));
  FAIL_CHECK(pry_http_open_count(rig->http) == 0);
  rig_free(rig);
}

/* A check that is under way when the state goes. */
static void use_health_cancel(void)
{
  fail_quiet();
  struct rig *rig = rig_new_set(CHECKING, NULL, CHECKED_DIALECT, NULL);
  push_answers(rig);
  fail_loud();
  rig_prepare(rig, &rig->ask, PRY_EVERY);
  struct pry_state *state = rig->engine->control->state;
  if (rig_run(rig, &rig->ask) == PRY_ASK_PENDING) {
    pry_loop_turn(rig->loop, 0);
    state->ops->cancel(state, &rig->ask);
  }
  FAIL_CHECK(pry_http_open_count(rig->http) == 0);
  rig_free(rig);
}

static void use_script(void)
{
  char fault[PRY_FAULT_MAX] = "";
  struct pry_script *script = pry_script_new(NULL, fault);
  FAIL_CHECK(script || *fault);
  pry_script_free(script);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"a Lua state", use_script, FAIL_BOTH, 100},
      {"values", use_values, FAIL_MEMORY, 100},
      {"json", use_json, FAIL_MEMORY, 100},
      {"store, log, alert", use_store, FAIL_BOTH, 100},
      {"http.request", use_http, FAIL_MEMORY, 100},
      {"http.probe", use_probe, FAIL_MEMORY, 150},
      {"http.probe cancelled", use_probe_cancel, FAIL_MEMORY, 100},
      {"call:find", use_find, FAIL_MEMORY, 100},
      {"keys", use_keys, FAIL_MEMORY, 100},
      {"respond", use_respond, FAIL_MEMORY, 100},
      {"route", use_route, FAIL_MEMORY, 100},
      {"refresh", use_refresh, FAIL_MEMORY, 100},
      {"dialect", use_dialect, FAIL_MEMORY, 100},
      {"cancel", use_cancel, FAIL_MEMORY, 100},
      {"health.check", use_health, FAIL_MEMORY, 100},
      {"health.check cancelled", use_health_cancel, FAIL_MEMORY, 100},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
