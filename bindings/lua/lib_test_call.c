/* t:call and its like. Declared in lib_test.h. */
#include "lib_test.h"

#include "lib.h"

/* The headers of a request, in a C list that the collector frees. */
struct request {
  struct pry_headers headers;
  struct pry_buffer body;
};

static int request_gc(lua_State *L)
{
  struct request *request = lua_touserdata(L, 1);
  pry_headers_fini(&request->headers);
  pry_buffer_fini(&request->body);
  return 0;
}

static struct request *push_request(lua_State *L)
{
  struct request *request = lua_newuserdatauv(L, sizeof *request, 0);
  pry_headers_init(&request->headers);
  pry_buffer_init(&request->body, 0);
  if (luaL_newmetatable(L, "parry.test.request")) {
    lua_pushcfunction(L, request_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return request;
}

static void read_headers(lua_State *L, int options, struct request *request)
{
  if (lua_getfield(L, options, "headers") != LUA_TNIL) {
    pry_test_table(L, -1, "headers =");
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      struct pry_slice name = pry_lua_text(L, -2), value;
      if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "the header \"%s\" must be a text, got %s", name.data, luaL_typename(L, -1));
      value.data = lua_tolstring(L, -1, &value.size);
      if (!pry_headers_add(&request->headers, name, value))
        luaL_error(L, "the header \"%s\" cannot be sent", name.data);
    }
  }
  lua_pop(L, 1);
  struct pry_slice type;
  if (!pry_headers_get(&request->headers, PRY_SLICE("content-type"), &type))
    pry_test_need(L, pry_headers_add(&request->headers, PRY_SLICE("content-type"), PRY_SLICE("application/json")));
}

/* Pushes the body of t:call { model =, messages =, stream = } as a table. */
static void push_default_body(lua_State *L, int options)
{
  static const char *const copied[] = {"model", "messages", "stream", "max_tokens", "temperature"};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
    lua_getfield(L, options, copied[i]);
    lua_setfield(L, -2, copied[i]);
  }
  if (lua_getfield(L, -1, "messages") == LUA_TNIL) {
    luaL_Reg none[] = {{NULL, NULL}};
    luaL_newlib(L, none);
    lua_pushliteral(L, "user");
    lua_setfield(L, -2, "role");
    lua_pushliteral(L, "hello");
    lua_setfield(L, -2, "content");
    lua_createtable(L, 1, 0);
    lua_rotate(L, -2, 1);
    lua_rawseti(L, -2, 1);
    lua_setfield(L, -3, "messages");
  }
  lua_pop(L, 1);
}

static void read_body(lua_State *L, int options, struct request *request)
{
  int top = lua_gettop(L);
  int type = lua_getfield(L, options, "body");
  if (type == LUA_TSTRING) {
    pry_test_need(L, pry_buffer_append_slice(&request->body, pry_lua_text(L, -1)));
  } else if (type == LUA_TNIL || type == LUA_TTABLE) {
    if (type == LUA_TNIL)
      push_default_body(L, options);
    struct pry_buffer *json = pry_test_push_json(L, -1);
    pry_test_need(L, pry_buffer_append_slice(&request->body, pry_buffer_slice(json)));
    pry_buffer_fini(json);
  } else {
    luaL_error(L, "body = must be a text or a table, got %s", luaL_typename(L, -1));
  }
  lua_settop(L, top);
}

static struct pry_slice text_field(lua_State *L, int options, const char *key, const char *otherwise)
{
  struct pry_slice text = pry_slice_of(otherwise);
  int type = lua_getfield(L, options, key); /* stays on the stack */
  if (type == LUA_TSTRING)
    text.data = lua_tolstring(L, -1, &text.size);
  else if (type != LUA_TNIL)
    luaL_error(L, "%s = must be a text, got %s", key, luaL_typename(L, -1));
  return text;
}

/* Starts the call that the table at `options` describes, and pushes its result table. */
static struct pry_world_call *start_call(lua_State *L, struct pry_world *world, int options, const char *what)
{
  static const char *const known[] = {"model", "messages", "stream", "max_tokens", "temperature", "path", "method",
                                      "body",  "headers",  "client", "host",       "target",      NULL};
  pry_lua_options(L, options, what, known, false);
  struct request *request = push_request(L);
  read_headers(L, options, request);
  struct pry_slice path = text_field(L, options, "path", "/v1/chat/completions");
  struct pry_slice method = text_field(L, options, "method", "POST");
  if (!pry_slice_equal(method, PRY_SLICE("GET")))
    read_body(L, options, request);
  const char *mark = memchr(path.data, '?', path.size);
  struct pry_slice client = text_field(L, options, "client", "");
  struct pry_call_request call = {
      .method = method, .path = path, .headers = &request->headers, .body = &request->body, .client = client};
  if (mark) {
    call.path.size = (size_t)(mark - path.data);
    call.query = (struct pry_slice){mark + 1, path.size - call.path.size - 1};
  }
  call.target = text_field(L, options, "target", "");
  int type = lua_getfield(L, options, "host");
  bool hosted = type == LUA_TNIL ? world->hosts : lua_toboolean(L, -1);
  struct pry_world_call *started = pry_world_start(world, &call, hosted);
  if (!started)
    pry_test_error(L, world);
  else
    pry_test_push_result(L, started);
  return started;
}

/* ---@class call_options
 * ---@field model string?
 * ---@field messages table[]?          one message of the user when absent
 * ---@field stream boolean?
 * ---@field max_tokens integer?
 * ---@field temperature number?
 * ---@field path string?               /v1/chat/completions
 * ---@field method string?             POST
 * ---@field body string|table?         instead of one made of the fields above
 * ---@field headers table<string, string>?
 * ---@field target string?             "provider/model" to begin with, as a host may say
 * ---@field host boolean?              a host makes the attempts; true when some provider has host = true
 * ---@class result
 * ---@field id string
 * ---@field done boolean?              nil: it has not ended; then the rest is nil, too
 * ---@field status integer
 * ---@field headers table<string, string>   names in lower case
 * ---@field body string
 * ---@field json any
 * ---@field ok boolean
 * ---@field truncated boolean
 * ---@field category string?
 * ---@field target string?             of the last attempt
 * ---@field attempts integer           entries of the ledger
 * ---@field upstream_calls integer     requests that providers got while the call was open
 * ---@field elapsed number             seconds
 * ---@field waited number              of these, outside of attempts
 * ---@field ledger { target: string, category: string?, status: integer, started: number, ended: number, refused: boolean,
 *               code: string }[]
 * ---@field why string[]               of its verdicts
 * ---@field events table[]             its event records, in order
 * ---@field faults string[]            of policies, "retry.lua:12: …"
 * ---@param v call_options
 * ---@return result   filled when the call has ended: see t:run, t:advance
 * function t:start(v) end */
static int t_start(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  start_call(L, world, 2, "t:start");
  return 1;
}

/* ---@param v call_options
 * ---@return result   time passes until the call has ended
 * function t:call(v) end */
static int t_call(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  const struct pry_world_call *call = start_call(L, world, 2, "t:call");
  int result = lua_gettop(L);
  if (!pry_world_run(world, call))
    return pry_test_error(L, world);
  pry_test_deliver(L, world);
  lua_pushvalue(L, result);
  return 1;
}

enum { CALLS_MAX = 1000 };

/* How many calls t:calls is to start: t:calls { { ... }, ... } or t:calls(N, { ... }). */
static lua_Integer count_calls(lua_State *L)
{
  bool same = lua_type(L, 2) == LUA_TNUMBER;
  lua_Integer count = same ? luaL_checkinteger(L, 2) : 0;
  lua_settop(L, 3);
  if (!same) {
    lua_pushvalue(L, 2);
    lua_replace(L, 3);
  }
  pry_test_table(L, 3, "t:calls");
  if (!same)
    count = (lua_Integer)lua_rawlen(L, 3);
  if (count < 1 || count > CALLS_MAX)
    luaL_error(L, "t:calls starts 1 to %d calls: t:calls { { model = ... }, ... } or t:calls(N, { model = ... })",
               CALLS_MAX);
  return count;
}

/* ---@overload fun(self: t, list: call_options[]): result[]
 * ---@param count integer   at most 1000
 * ---@param v call_options
 * ---@return result[]   of calls that all start at the same moment; time passes until every one has ended
 * function t:calls(count, v) end */
static int t_calls(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  bool same = lua_type(L, 2) == LUA_TNUMBER;
  lua_Integer count = count_calls(L);
  lua_createtable(L, (int)count, 0);
  int results = lua_gettop(L);
  for (lua_Integer i = 1; i <= count; i++) {
    if (same)
      lua_pushvalue(L, 3);
    else if (lua_rawgeti(L, 3, i) != LUA_TTABLE)
      return luaL_error(L, "number %d of t:calls must be a table { model = ... }, got %s", (int)i,
                        luaL_typename(L, -1));
    start_call(L, world, results + 1, "t:calls");
    lua_rawseti(L, results, i);
    lua_settop(L, results);
  }
  if (!pry_world_run(world, NULL))
    return pry_test_error(L, world);
  pry_test_deliver(L, world);
  return 1;
}

/* ---@param result? result   every call when absent
 * ---@return result?
 * Lets time pass until it has ended.
 * function t:run(result) end */
static int t_run(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  struct pry_world_call *call = lua_isnil(L, 2) ? NULL : pry_test_call_at(L, world, 2);
  if (!pry_world_run(world, call))
    return pry_test_error(L, world);
  pry_test_deliver(L, world);
  lua_pushvalue(L, 2);
  return 1;
}

/* ---@param result result   the client of that call leaves
 * function t:cancel(result) end */
static int t_cancel(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  struct pry_world_call *call = pry_test_call_at(L, world, 2);
  if (call->call)
    pry_call_cancel(call->call);
  pry_world_settle(world);
  pry_test_deliver(L, world);
  return 0;
}

/* ---@param seconds number
 * function t:advance(seconds) end */
static int t_advance(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  double seconds = luaL_checknumber(L, 2);
  luaL_argcheck(L, seconds >= 0 && seconds <= 366 * 86400.0, 2, "0 to 366 days, in seconds");
  if (!pry_world_load(world))
    return pry_test_error(L, world);
  pry_loop_advance(world->loop, pry_time_from_seconds(seconds));
  pry_world_settle(world);
  pry_test_deliver(L, world);
  return 0;
}

/* ---@return number   Unix seconds
 * function t:now() end */
static int t_now(lua_State *L)
{
  lua_pushnumber(L, pry_loop_unix_time(pry_test_world(L)->loop));
  return 1;
}

static void push_verdict(lua_State *L, const struct pry_verdict *verdict, const char *policy)
{
  lua_newtable(L);
  lua_pushstring(L, pry_verdict_name(verdict->kind));
  lua_setfield(L, -2, "verdict");
  lua_pushstring(L, policy);
  lua_setfield(L, -2, "policy");
  if (verdict->after >= 0) {
    lua_pushnumber(L, verdict->after);
    lua_setfield(L, -2, "after");
  }
  if (verdict->category != PRY_NONE) {
    lua_pushstring(L, pry_category_name(verdict->category));
    lua_setfield(L, -2, "category");
  }
  if (verdict->status) {
    lua_pushinteger(L, verdict->status);
    lua_setfield(L, -2, "status");
  }
  lua_pushstring(L, verdict->message);
  lua_setfield(L, -2, "message");
  lua_pushstring(L, verdict->why);
  lua_setfield(L, -2, "why");
  pry_test_name_fields(L, PRY_TEST_VERDICT);
}

/* ---@param name string
 * ---@param fields? table
 * ---@return { verdict: string, policy: string, after: number?, category: string?, status: integer?, message: string,
 *             why: string }?   what the chain says to a host's event
 * function t:emit(name, fields) end */
static int t_emit(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  const char *name = pry_test_name(L, 2, "t:emit");
  lua_settop(L, 3);
  if (lua_isnil(L, 3)) {
    lua_newtable(L);
    lua_replace(L, 3);
  }
  pry_test_table(L, 3, "t:emit");
  struct pry_slice fields = PRY_SLICE("{}");
  lua_pushnil(L);
  if (lua_next(L, 3)) /* an empty table would be an empty list */
    fields = pry_buffer_slice(pry_test_push_json(L, 3));
  struct pry_verdict verdict;
  const char *policy;
  if (!pry_world_emit(world, name, fields, &verdict, &policy))
    return pry_test_error(L, world);
  if (verdict.kind == PRY_VERDICT_NONE)
    lua_pushnil(L);
  else
    push_verdict(L, &verdict, policy);
  pry_world_settle(world);
  pry_test_deliver(L, world);
  return 1;
}

const luaL_Reg pry_test_calling[] = {{"call", t_call}, {"calls", t_calls},   {"start", t_start},
                                     {"run", t_run},   {"cancel", t_cancel}, {"advance", t_advance},
                                     {"now", t_now},   {"emit", t_emit},     {NULL, NULL}};
