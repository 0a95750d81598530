/* engine:call and what belongs to it. A call is a userdata, kept in the engine's user value until it is done; its own user
 * value is the table of its callbacks and of what was collected. */
#include "module.h"

#include <limits.h>
#include <stdint.h>

enum { COLLECTED_MAX = 64 * 1024 * 1024 };

struct lm_call {
  struct lm_engine *engine;
  parry_call_id id;
  size_t collected; /* bytes in "chunks" */
  bool done;
};

/* What a callback was told, for its protected half. */
struct told {
  struct lm_call *call;
  int status;
  const struct parry_header *headers;
  size_t header_count;
  const void *data;
  size_t size;
  bool pause;
  const struct parry_outcome *outcome;
  const struct parry_attempt *attempt;
  parry_call_id id;
  unsigned number;
};

/* Pushes the table of a call; in protected halves. */
static struct told *told_and_record(lua_State *L)
{
  struct told *told = lua_touserdata(L, 2);
  lua_rawgetp(L, 1, told->call);
  lua_getiuservalue(L, -1, 1);
  return told;
}

/* A call of which a callback raised ends. */
static void cancel_if(bool raised, struct lm_call *call)
{
  if (raised)
    (void)parry_call_cancel(call->engine->handle, call->id);
}

/* ---- callbacks ----------------------------------------------------------------------------------------------------- */

static int run_headers(lua_State *L)
{
  const struct told *told = told_and_record(L);
  lm_set_integer(L, "status", told->status);
  lm_set_headers(L, told->headers, told->header_count);
  lua_setfield(L, -2, "headers");
  if (lua_getfield(L, -1, "on_headers") == LUA_TNIL)
    return 0;
  lua_pushinteger(L, told->status);
  lua_getfield(L, -3, "headers");
  lua_call(L, 2, 0);
  return 0;
}

static void on_headers(void *user, int status, const struct parry_header *headers, size_t count)
{
  struct lm_call *call = user;
  struct told told = {.call = call, .status = status, .headers = headers, .header_count = count};
  cancel_if(!lm_callback(call->engine, run_headers, &told), call);
}

static void collect(lua_State *L, const struct told *told)
{
  if (told->size > COLLECTED_MAX - told->call->collected)
    luaL_error(L, "parry: the answer is over 64 MiB; take it piece by piece with on_data");
  told->call->collected += told->size;
  lua_getfield(L, -1, "chunks");
  lua_pushlstring(L, told->data, told->size);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
}

static int run_data(lua_State *L)
{
  struct told *told = told_and_record(L);
  if (lua_getfield(L, -1, "on_data") == LUA_TNIL) {
    lua_pop(L, 1);
    collect(L, told);
    return 0;
  }
  lua_pushlstring(L, told->data, told->size);
  lua_call(L, 1, 1);
  told->pause = lua_toboolean(L, -1);
  return 0;
}

static int on_data(void *user, const void *data, size_t size)
{
  struct lm_call *call = user;
  struct told told = {.call = call, .data = data, .size = size};
  cancel_if(!lm_callback(call->engine, run_data, &told), call);
  return told.pause ? PARRY_PAUSE : 0;
}

/* Sets "body" of the outcome on top from the chunks of the record below it. */
static void set_body(lua_State *L)
{
  int record = lua_gettop(L) - 1;
  luaL_Buffer body;
  lua_getfield(L, record, "chunks");
  int chunks = lua_gettop(L);
  luaL_buffinit(L, &body);
  for (lua_Integer i = 1, count = (lua_Integer)lua_rawlen(L, chunks); i <= count; i++) {
    lua_rawgeti(L, chunks, i);
    luaL_addvalue(&body);
  }
  luaL_pushresult(&body);
  lua_setfield(L, record + 1, "body");
  lua_settop(L, record + 1);
}

/* Pushes the outcome as Lua sees it. */
static void push_outcome(lua_State *L, const struct parry_outcome *outcome)
{
  lua_createtable(L, 0, 16);
  lm_set_flag(L, "ok", outcome->ok);
  lm_set_integer(L, "status", outcome->status);
  lm_set_text(L, "category", outcome->category);
  lm_set_text(L, "code", outcome->code);
  lm_set_text(L, "message", outcome->message);
  lm_set_text(L, "why", outcome->why);
  if (outcome->retry_after >= 0)
    lm_set_number(L, "retry_after", outcome->retry_after);
  lm_set_integer(L, "attempts", outcome->attempts);
  lm_set_text(L, "target", outcome->target);
  lm_set_text(L, "call_id", outcome->call_id);
  lm_set_text(L, "generation", outcome->generation);
  lm_set_flag(L, "truncated", outcome->truncated);
  if (!outcome->ok)
    luaL_setmetatable(L, LM_ERROR);
}

static int run_done(lua_State *L)
{
  const struct told *told = told_and_record(L);
  lua_pushnil(L);
  lua_rawsetp(L, 1, told->call); /* no longer kept; it is still on this stack */
  push_outcome(L, told->outcome);
  lua_getfield(L, -2, "headers");
  lua_setfield(L, -2, "headers");
  set_body(L);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "outcome");
  if (lua_getfield(L, -2, "on_done") == LUA_TNIL)
    return 0;
  lua_insert(L, -2);
  lua_call(L, 1, 0);
  return 0;
}

static void on_done(void *user, const struct parry_outcome *outcome)
{
  struct lm_call *call = user;
  struct told told = {.call = call, .outcome = outcome};
  call->done = true;
  (void)lm_callback(call->engine, run_done, &told); /* after this the call may have been collected */
}

static int run_attempt(lua_State *L)
{
  const struct told *told = told_and_record(L);
  const struct parry_attempt *attempt = told->attempt;
  lua_getfield(L, -1, "on_attempt");
  lua_createtable(L, 0, 7);
  lm_set_integer(L, "call", (lua_Integer)attempt->call.value);
  lm_set_integer(L, "number", attempt->number);
  lm_set_text(L, "target", attempt->target);
  lm_set_text(L, "provider", attempt->provider);
  lm_set_text(L, "model", attempt->model);
  lm_set_number(L, "deadline_left", attempt->deadline_left);
  lua_pushlstring(L, attempt->body ? attempt->body : "", attempt->body ? attempt->body_size : 0);
  lua_setfield(L, -2, "body");
  lua_call(L, 1, 0);
  return 0;
}

static void on_attempt(void *user, const struct parry_attempt *attempt)
{
  struct lm_call *call = user;
  struct told told = {.call = call, .attempt = attempt};
  cancel_if(!lm_callback(call->engine, run_attempt, &told), call);
}

static int run_abandon(lua_State *L)
{
  const struct told *told = told_and_record(L);
  lua_getfield(L, -1, "on_abandon");
  lua_pushinteger(L, (lua_Integer)told->id.value);
  lua_pushinteger(L, told->number);
  lua_call(L, 2, 0);
  return 0;
}

static void on_abandon(void *user, parry_call_id id, unsigned number)
{
  struct lm_call *call = user;
  struct told told = {.call = call, .id = id, .number = number};
  cancel_if(!lm_callback(call->engine, run_abandon, &told), call);
}

/* ---- methods ---------------------------------------------------------------------------------------------------------- */

/* Makes the call's userdata with its table from the table at 2; on top. */
static struct lm_call *new_call(lua_State *L, struct lm_engine *engine, struct parry_call_ops *ops)
{
  static const char *const names[] = {"on_headers", "on_data", "on_done", "on_attempt", "on_abandon"};
  bool has[5];
  struct lm_call *call = lua_newuserdatauv(L, sizeof *call, 1);
  *call = (struct lm_call){.engine = engine};
  lua_createtable(L, 0, 8);
  lua_newtable(L);
  lua_setfield(L, -2, "chunks");
  for (int i = 0; i < 5; i++) {
    has[i] = lm_function(L, 2, names[i]);
    if (has[i])
      lua_setfield(L, -2, names[i]);
  }
  lua_setiuservalue(L, -2, 1);
  ops->on_headers = on_headers;
  ops->on_data = on_data;
  ops->on_done = on_done;
  ops->on_attempt = has[3] ? on_attempt : NULL;
  ops->on_abandon = has[4] ? on_abandon : NULL;
  return call;
}

static int nothing(lua_State *L)
{
  (void)L;
  return 0;
}

/* Until the call at the top is done. Other calls' callbacks come from here, too. */
static int wait_for(lua_State *L, struct lm_engine *engine, const struct lm_call *call)
{
  int at = lua_gettop(L);
  while (!call->done) {
    lm_enter(L, engine);
    int open = parry_run(engine->handle, -1);
    lm_leave(L, engine);
    if (open < 0)
      return lm_result(L, open);
    lua_pushcfunction(L, nothing); /* where the hook of the interpreter's Ctrl-C comes in */
    lua_call(L, 0, 0);
  }
  lua_getiuservalue(L, at, 1);
  lua_getfield(L, -1, "outcome");
  lua_getfield(L, -1, "ok");
  bool ok = lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (ok)
    return 1;
  lua_pushnil(L);
  lua_insert(L, -2);
  return 2;
}

int lm_call(lua_State *L)
{
  struct lm_engine *engine = lm_engine(L);
  struct parry_request request = PARRY_REQUEST_INIT;
  struct parry_call_ops ops = PARRY_CALL_OPS_INIT;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  bool waits = !lm_function(L, 2, "on_done");
  if (waits && engine->L)
    return lm_result(L, PARRY_EREENTRANT);
  lua_settop(L, 2);
  request.method = lm_text(L, 2, "method");
  request.path = lm_text(L, 2, "path");
  request.target = lm_text(L, 2, "target");
  request.body = lm_bytes(L, 2, "body", &request.body_size);
  request.headers = lm_headers(L, 2, "headers", &request.header_count);
  struct lm_call *call = new_call(L, engine, &ops);
  lua_getiuservalue(L, LM_AT_ENGINE, 1);
  lua_pushvalue(L, -2);
  lua_rawsetp(L, -2, call); /* kept before there is a call: nothing may raise after that */
  int error = parry_call(engine->handle, &request, &ops, call, &call->id);
  if (error) {
    lua_pushnil(L);
    lua_rawsetp(L, -2, call);
    return lm_result(L, error);
  }
  lua_pop(L, 1);
  if (waits)
    return wait_for(L, engine, call);
  lua_pushinteger(L, (lua_Integer)call->id.value);
  return 1;
}

static parry_call_id id_at(lua_State *L, int index)
{
  return (parry_call_id){(uint64_t)luaL_checkinteger(L, index)};
}

int lm_resume(lua_State *L)
{
  return lm_result(L, parry_call_resume(lm_engine(L)->handle, id_at(L, 2)));
}

int lm_cancel(lua_State *L)
{
  return lm_result(L, parry_call_cancel(lm_engine(L)->handle, id_at(L, 2)));
}

int lm_attempt_done(lua_State *L)
{
  struct lm_engine *engine = lm_engine(L);
  lua_Integer number = luaL_checkinteger(L, 3);
  luaL_argcheck(L, number >= 0 && number <= INT_MAX, 3, "no attempt has that number");
  lua_settop(L, 4);
  struct parry_event event = lm_event(L, 4);
  return lm_result(L, parry_attempt_done(engine->handle, id_at(L, 2), (unsigned)number, &event));
}
