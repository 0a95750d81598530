/* What a policy test sees of its calls, as tables. Declared in lib_test.h; the fields are listed in test_host.h. */
#include "lib_test.h"

#include "lib_view.h"
#include "nearest.h"

#include <math.h>

/* ---- small pushes -------------------------------------------------------------------------------------- */

static void set_slice(lua_State *L, const char *key, struct pry_slice text)
{
  lua_pushlstring(L, text.data ? text.data : "", text.size);
  lua_setfield(L, -2, key);
}

static void set_text(lua_State *L, const char *key, const char *text)
{
  lua_pushstring(L, text);
  lua_setfield(L, -2, key);
}

static void set_number(lua_State *L, const char *key, double number)
{
  lua_pushnumber(L, number);
  lua_setfield(L, -2, key);
}

static void set_integer(lua_State *L, const char *key, long long number)
{
  lua_pushinteger(L, (lua_Integer)number);
  lua_setfield(L, -2, key);
}

static void set_boolean(lua_State *L, const char *key, bool value)
{
  lua_pushboolean(L, value);
  lua_setfield(L, -2, key);
}

/* Unix times are doubles of some 1e9 s: what is left of a difference below 10 us is their rounding. */
static double rounded(double seconds)
{
  return floor(seconds * 1e5 + 0.5) / 1e5;
}

static void set_headers(lua_State *L, const struct pry_headers *headers)
{
  lua_createtable(L, 0, (int)headers->count);
  for (size_t i = headers->count; i-- > 0;) { /* backwards: the first of equals stays */
    struct pry_header header = pry_headers_at(headers, i);
    luaL_Buffer name;
    char *lower = luaL_buffinitsize(L, &name, header.name.size);
    for (size_t j = 0; j < header.name.size; j++)
      lower[j] = (char)pry_ascii_lower((unsigned char)header.name.data[j]);
    luaL_pushresultsize(&name, header.name.size);
    lua_pushlstring(L, header.value.data, header.value.size);
    lua_rawset(L, -3);
  }
  lua_setfield(L, -2, "headers");
}

static void set_json(lua_State *L, struct pry_slice text)
{
  const char *why;
  if (text.size && pry_lua_json_push(L, text, &why))
    lua_setfield(L, -2, "json");
}

/* What is not known is left out. */
static void set_spending(lua_State *L, const char *key, const struct pry_spending *spent)
{
  if (key && *key)
    set_text(L, "key", key);
  if (spent->tokens.known) {
    lua_createtable(L, 0, 4);
    pry_set_tokens(L, &spent->tokens);
    lua_setfield(L, -2, "tokens");
  }
  if (spent->priced)
    set_number(L, "cost", spent->cost);
}

/* ---- fields that exist ---------------------------------------------------------------------------------- */

enum { NAMES_MAX = 24 };

static const struct {
  const char *what;
  const char *names[NAMES_MAX]; /* NULL-ended */
} kinds[] = {
    [PRY_TEST_RESULT] = {"the result of a call",
                         {"id",        "done",     "status", "headers",  "body",           "json",   "ok",
                          "truncated", "category", "target", "attempts", "upstream_calls", "ledger", "elapsed",
                          "waited",    "events",   "why",    "faults",   "tokens",         "cost"}},
    [PRY_TEST_ATTEMPT] = {"an entry of the ledger",
                          {"target", "category", "status", "started", "ended", "refused", "injected", "code", "key",
                           "tokens", "cost"}},
    [PRY_TEST_EVENT] = {"an event record",
                        {"handler", "policy", "target", "attempt", "verdict", "why", "fault", "line", "time",
                         "category", "after", "key", "tokens", "cost"}},
    [PRY_TEST_REQUEST] = {"a request",
                          {"kind", "url", "method", "headers", "body", "json", "model", "at", "cancelled"}},
    [PRY_TEST_ALERT] = {"an alert", {"sink", "key", "text", "state", "count", "at"}},
    [PRY_TEST_VERDICT] = {"a verdict", {"verdict", "policy", "after", "category", "status", "message", "why"}},
};

int pry_test_no_such(lua_State *L, const char *what, const char *noun, const char *wrong, const char *const *names)
{
  size_t count = 0;
  while (names[count])
    count++;
  const char *nearest = pry_nearest_name(wrong, names, count);
  if (nearest)
    return luaL_error(L, "%s has no %s \"%s\"; did you mean \"%s\"?", what, noun, wrong, nearest);
  luaL_Buffer list;
  luaL_buffinit(L, &list);
  for (size_t i = 0; i < count; i++) {
    luaL_addstring(&list, i ? ", " : "");
    luaL_addstring(&list, names[i]);
  }
  luaL_pushresult(&list);
  return luaL_error(L, "%s has no %s \"%s\"; it has %s", what, noun, wrong, lua_tostring(L, -1));
}

/* __index: runs for fields that are nil only. */
static int missing_field(lua_State *L)
{
  lua_Integer kind = lua_tointeger(L, lua_upvalueindex(1));
  if (lua_type(L, 2) != LUA_TSTRING)
    return luaL_error(L, "%s has no field of type %s", kinds[kind].what, luaL_typename(L, 2));
  const char *name = lua_tostring(L, 2);
  for (const char *const *known = kinds[kind].names; *known; known++)
    if (strcmp(*known, name) == 0)
      return 0; /* it has none this time */
  return pry_test_no_such(L, kinds[kind].what, "field", name, kinds[kind].names);
}

void pry_test_name_fields(lua_State *L, enum pry_test_kind kind)
{
  if (luaL_newmetatable(L, kinds[kind].what)) {
    lua_pushinteger(L, (lua_Integer)kind);
    lua_pushcclosure(L, missing_field, 1);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
  }
  lua_setmetatable(L, -2);
}

/* ---- event records ------------------------------------------------------------------------------------- */

enum { EVENTS_MAX = 1024 };

/* Records of one call, newest first, gathered before anything is pushed: pushing may raise. */
struct gathered {
  const char *id;
  size_t count;
  const struct pry_event_record *records[EVENTS_MAX];
};

static bool gather(void *user, const struct pry_event_record *record)
{
  struct gathered *gathered = user;
  if (strcmp(record->call_id, gathered->id) == 0)
    gathered->records[gathered->count++] = record;
  return gathered->count < EVENTS_MAX;
}

static void push_event(lua_State *L, const struct pry_event_record *record)
{
  lua_createtable(L, 0, 12);
  set_text(L, "handler", pry_handler_name(record->handler));
  set_text(L, "policy", record->policy);
  set_text(L, "target", record->target);
  set_integer(L, "attempt", record->attempt);
  set_text(L, "verdict", pry_verdict_name(record->verdict));
  set_text(L, "why", record->why);
  set_text(L, "fault", record->fault);
  set_integer(L, "line", record->line);
  set_number(L, "time", record->time);
  if (record->category != PRY_NONE)
    set_text(L, "category", pry_category_name(record->category));
  if (record->verdict != PRY_VERDICT_NONE && record->after >= 0)
    set_number(L, "after", record->after);
  set_spending(L, record->key, &record->spent);
  pry_test_name_fields(L, PRY_TEST_EVENT);
}

/* Appends a text that is not empty to the list at `list`. */
static void append_text(lua_State *L, int list, const char *text)
{
  if (!*text)
    return;
  lua_pushstring(L, text);
  lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
}

/* Sets events, why and faults of the table on top. */
static void set_events(lua_State *L, const struct pry_world_call *call)
{
  struct gathered *gathered = lua_newuserdatauv(L, sizeof *gathered, 0);
  gathered->id = call->id;
  gathered->count = 0;
  pry_event_visit(call->world->engine->control->events, SIZE_MAX, gather, gathered);
  lua_newtable(L);
  lua_newtable(L);
  lua_newtable(L);
  int faults = lua_gettop(L), why = faults - 1, events = faults - 2;
  for (size_t i = gathered->count; i-- > 0;) {
    push_event(L, gathered->records[i]);
    lua_rawseti(L, events, (lua_Integer)lua_rawlen(L, events) + 1);
    append_text(L, why, gathered->records[i]->why);
    append_text(L, faults, gathered->records[i]->fault);
  }
  int result = events - 2;
  lua_setfield(L, result, "faults");
  lua_setfield(L, result, "why");
  lua_setfield(L, result, "events");
  lua_settop(L, result);
}

/* ---- a call -------------------------------------------------------------------------------------------- */

/* Sets the ledger; gives the seconds that attempts took. */
static double set_ledger(lua_State *L, const struct pry_world_call *call)
{
  double busy = 0;
  lua_createtable(L, (int)call->ledger_count, 0);
  for (size_t i = 0; i < call->ledger_count; i++) {
    const struct pry_attempt *attempt = &call->ledger[i];
    lua_createtable(L, 0, 8);
    set_text(L, "target", attempt->target);
    if (attempt->category != PRY_NONE)
      set_text(L, "category", pry_category_name(attempt->category));
    set_integer(L, "status", attempt->status);
    set_number(L, "started", attempt->started);
    set_number(L, "ended", attempt->ended);
    set_boolean(L, "refused", attempt->refused);
    set_boolean(L, "injected", attempt->injected);
    set_text(L, "code", attempt->category != PRY_NONE ? attempt->failure.code : "");
    set_spending(L, attempt->key, &attempt->spent);
    pry_test_name_fields(L, PRY_TEST_ATTEMPT);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
    busy += attempt->ended > attempt->started ? attempt->ended - attempt->started : 0;
  }
  lua_setfield(L, -2, "ledger");
  return busy;
}

/* Fills the table on top. */
static void fill(lua_State *L, const struct pry_world_call *call)
{
  double elapsed = pry_time_to_seconds(call->ended - call->started);
  set_boolean(L, "done", true);
  set_integer(L, "status", call->status);
  set_headers(L, &call->headers);
  set_slice(L, "body", pry_buffer_slice(&call->body));
  set_json(L, pry_buffer_slice(&call->body));
  set_boolean(L, "ok", call->outcome.ok);
  set_boolean(L, "truncated", call->truncated);
  if (call->outcome.category != PRY_NONE)
    set_text(L, "category", pry_category_name(call->outcome.category));
  if (call->ledger_count)
    set_text(L, "target", call->ledger[call->ledger_count - 1].target);
  set_integer(L, "attempts", (long long)call->ledger_count);
  set_integer(L, "upstream_calls",
              (long long)pry_world_count(call->world, PRY_PEER_PROVIDER, call->seen_before, call->seen_after));
  set_spending(L, NULL, &call->outcome.spent);
  double busy = set_ledger(L, call);
  set_number(L, "elapsed", rounded(elapsed));
  set_number(L, "waited", rounded(elapsed > busy ? elapsed - busy : 0));
  set_events(L, call);
}

void pry_test_push_result(lua_State *L, struct pry_world_call *call)
{
  lua_newtable(L);
  set_text(L, "id", call->id);
  pry_test_name_fields(L, PRY_TEST_RESULT);
  lua_pushvalue(L, -1);
  call->result = luaL_ref(L, LUA_REGISTRYINDEX);
}

void pry_test_deliver(lua_State *L, struct pry_world *world)
{
  if (world->fake_error[0])
    luaL_error(L, "%s", world->fake_error);
  for (struct pry_list *link = world->calls.next; link != &world->calls; link = link->next) {
    struct pry_world_call *call = PRY_CONTAINER_OF(link, struct pry_world_call, link);
    if (!call->done || call->delivered || call->result == LUA_NOREF)
      continue;
    lua_rawgeti(L, LUA_REGISTRYINDEX, call->result);
    fill(L, call);
    lua_pop(L, 1);
    call->delivered = true;
  }
}

struct pry_world_call *pry_test_call_at(lua_State *L, struct pry_world *world, int index)
{
  for (struct pry_list *link = world->calls.next; link != &world->calls; link = link->next) {
    struct pry_world_call *call = PRY_CONTAINER_OF(link, struct pry_world_call, link);
    lua_rawgeti(L, LUA_REGISTRYINDEX, call->result);
    bool same = lua_rawequal(L, -1, index);
    lua_pop(L, 1);
    if (same)
      return call;
  }
  luaL_error(L, "needs what t:start or t:call gave, got %s", luaL_typename(L, index));
  return NULL;
}

/* ---- requests ------------------------------------------------------------------------------------------ */

static const char *const peers[] = {[PRY_PEER_PROVIDER] = "provider",
                                    [PRY_PEER_TOKEN] = "token",
                                    [PRY_PEER_SINK] = "sink",
                                    [PRY_PEER_SERVICE] = "service",
                                    [PRY_PEER_PROBE] = "probe"};

static void push_request(lua_State *L, const struct pry_http_seen *seen)
{
  struct pry_json_value model;
  lua_createtable(L, 0, 8);
  set_text(L, "kind", peers[pry_world_peer(seen->url)]);
  set_text(L, "url", seen->url);
  set_text(L, "method", seen->method);
  set_headers(L, &seen->headers);
  set_slice(L, "body", seen->body);
  set_json(L, seen->body);
  set_number(L, "at", pry_time_to_seconds(seen->started));
  set_boolean(L, "cancelled", seen->cancelled);
  if (pry_json_get(seen->body, "model", &model) && model.type == PRY_JSON_STRING)
    set_slice(L, "model", (struct pry_slice){model.raw.data + 1, model.raw.size - 2});
  pry_test_name_fields(L, PRY_TEST_REQUEST);
}

/* The i-th request (from 1) of a kind; NULL: there are fewer. */
static const struct pry_http_seen *find_request(const struct pry_world *world, enum pry_world_peer peer, lua_Integer i)
{
  size_t count = pry_http_script_seen_count(world->script);
  for (size_t j = 0; j < count; j++) {
    const struct pry_http_seen *seen = pry_http_script_seen(world->script, j);
    if (pry_world_peer(seen->url) == peer && --i == 0)
      return seen;
  }
  return NULL;
}

/* ---@class request
 * ---@field kind "provider"|"token"|"sink"|"service"|"probe"
 * ---@field url string
 * ---@field method string
 * ---@field headers table<string, string>   names in lower case
 * ---@field body string
 * ---@field json any
 * ---@field model string?
 * ---@field at number         seconds since the test began
 * ---@field cancelled boolean
 * ---@param i integer
 * ---@return request   the i-th that providers got
 * function t:sent(i) end */
int pry_test_sent(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_Integer i = luaL_checkinteger(L, 2);
  const struct pry_http_seen *seen = find_request(world, PRY_PEER_PROVIDER, i);
  if (!seen)
    return luaL_error(L, "providers got %d requests, there is no number %d",
                      (int)pry_world_count(world, PRY_PEER_PROVIDER, 0, pry_http_script_seen_count(world->script)),
                      (int)i);
  push_request(L, seen);
  return 1;
}

/* ---@param kind? "provider"|"token"|"sink"|"service"|"probe"
 * ---@return request[]   all of them, or those of one kind
 * function t:requests(kind) end */
int pry_test_requests(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  const char *wanted = lua_isnil(L, 2)
                           ? NULL
                           : peers[luaL_checkoption(
                                 L, 2, NULL, (const char *[]){"provider", "token", "sink", "service", "probe", NULL})];
  size_t count = pry_http_script_seen_count(world->script);
  lua_newtable(L);
  for (size_t i = 0; i < count; i++) {
    const struct pry_http_seen *seen = pry_http_script_seen(world->script, i);
    if (wanted && strcmp(peers[pry_world_peer(seen->url)], wanted) != 0)
      continue;
    push_request(L, seen);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  }
  return 1;
}

static void copy_member(lua_State *L, struct pry_slice json, const char *name)
{
  struct pry_json_value value;
  const char *why;
  if (pry_json_get(json, name, &value) && pry_lua_json_push(L, value.raw, &why))
    lua_setfield(L, -2, name);
}

/* ---@return { sink: string, key: string, text: string, state: string, count: integer, at: number }[]   what has arrived so far
 * function t:alerts() end */
int pry_test_alerts(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  pry_world_settle(world);
  pry_test_deliver(L, world);
  size_t count = pry_http_script_seen_count(world->script);
  lua_newtable(L);
  for (size_t i = 0; i < count; i++) {
    const struct pry_http_seen *seen = pry_http_script_seen(world->script, i);
    if (pry_world_peer(seen->url) != PRY_PEER_SINK)
      continue;
    lua_createtable(L, 0, 6);
    set_text(L, "sink", strrchr(seen->url, '/') + 1);
    copy_member(L, seen->body, "key");
    copy_member(L, seen->body, "text");
    copy_member(L, seen->body, "state");
    copy_member(L, seen->body, "count");
    set_number(L, "at", pry_time_to_seconds(seen->started));
    pry_test_name_fields(L, PRY_TEST_ALERT);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  }
  return 1;
}
