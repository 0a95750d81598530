/* Decisions, reports, events and host functions. */
#include "module.h"

#include <stdint.h>

enum { BODY_MAX = 16 * 1024 };

/* ---- decisions ----------------------------------------------------------------------------------------------------- */

/* One that waits: a userdata kept in the engine's user value, whose own is the function. */
struct lm_decision {
  struct lm_engine *engine;
  char body[BODY_MAX];
};

struct ready {
  struct lm_decision *decision;
  const struct parry_decision *told;
};

static void push_decision(lua_State *L, const struct parry_decision *told)
{
  static const char *const actions[] = {"fail", "retry", "fallback", "renew", "respond"};
  lua_createtable(L, 0, 10);
  lm_set_text(L, "action", actions[told->action >= PARRY_FAIL && told->action <= PARRY_RESPOND ? told->action : 0]);
  lm_set_integer(L, "status", told->status);
  lm_set_number(L, "after", told->after);
  lm_set_text(L, "target", told->target);
  lm_set_text(L, "category", told->category);
  lm_set_text(L, "policy", told->policy);
  lm_set_text(L, "why", told->why);
  if (told->action == PARRY_RESPOND && told->body) {
    lua_pushlstring(L, told->body, told->body_size < told->body_capacity ? told->body_size : told->body_capacity);
    lua_setfield(L, -2, "body");
    lm_set_integer(L, "body_size", (lua_Integer)told->body_size);
  }
}

static int run_ready(lua_State *L)
{
  const struct ready *ready = lua_touserdata(L, 2);
  lua_rawgetp(L, 1, ready->decision);
  lua_pushnil(L);
  lua_rawsetp(L, 1, ready->decision);
  lua_getiuservalue(L, -1, 1);
  push_decision(L, ready->told);
  lua_call(L, 1, 0);
  return 0;
}

static void on_ready(void *user, const struct parry_decision *told)
{
  struct lm_decision *decision = user;
  struct ready ready = {decision, told};
  (void)lm_callback(decision->engine, run_ready, &ready);
}

/* The event is at 2, the function at 3. */
static int decide_later(lua_State *L, struct lm_engine *engine, const struct parry_event *event)
{
  struct parry_decision told = PARRY_DECISION_INIT;
  lua_getiuservalue(L, LM_AT_ENGINE, 1);
  struct lm_decision *decision = lua_newuserdatauv(L, sizeof *decision, 1);
  decision->engine = engine;
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, 1);
  lua_rawsetp(L, -2, decision);
  told.body = decision->body, told.body_capacity = sizeof decision->body;
  int result = parry_decide(engine->handle, event, &told, on_ready, decision);
  if (result == PARRY_PENDING)
    return lm_failed(L, result, NULL);
  int kept = lua_gettop(L);
  if (result == PARRY_OK)
    push_decision(L, &told); /* before its memory is let go */
  lua_pushnil(L);
  lua_rawsetp(L, kept, decision);
  return result == PARRY_OK ? 1 : lm_result(L, result);
}

int lm_decide(lua_State *L)
{
  struct lm_engine *engine = lm_engine(L);
  struct parry_decision told = PARRY_DECISION_INIT;
  char body[BODY_MAX];
  lua_settop(L, 3);
  if (!lua_isnil(L, 3))
    luaL_checktype(L, 3, LUA_TFUNCTION);
  struct parry_event event = lm_event(L, 2);
  if (!lua_isnil(L, 3))
    return decide_later(L, engine, &event);
  told.body = body, told.body_capacity = sizeof body;
  int error = parry_decide(engine->handle, &event, &told, NULL, NULL);
  if (error)
    return lm_result(L, error);
  push_decision(L, &told);
  return 1;
}

int lm_report(lua_State *L)
{
  struct lm_engine *engine = lm_engine(L);
  lua_settop(L, 2);
  struct parry_event event = lm_event(L, 2);
  return lm_result(L, parry_report(engine->handle, &event));
}

int lm_emit(lua_State *L)
{
  struct lm_engine *engine = lm_engine(L);
  luaL_checkstring(L, 2);
  const char *name = lm_argument(L, 2);
  return lm_result(L, parry_emit(engine->handle, name, lm_argument(L, 3)));
}

/* ---- host functions -------------------------------------------------------------------------------------------------- */

/* A name's userdata, kept in "functions" as long as the engine, because C may always come by; its user value is the
 * function, or nil. */
struct lm_function {
  struct lm_engine *engine;
};

struct asked {
  struct lm_function *function;
  parry_request_id request;
  const char *arguments;
  size_t size;
};

/* Answers with what the function returned: nothing (later), JSON, or nil and a message. */
static int run_function(lua_State *L)
{
  const struct asked *asked = lua_touserdata(L, 2);
  lua_getfield(L, 1, "functions");
  lua_rawgetp(L, -1, asked->function);
  lua_getiuservalue(L, -1, 1);
  int at = lua_gettop(L);
  lua_pushlstring(L, asked->arguments, asked->size);
  lua_pushinteger(L, (lua_Integer)asked->request.value);
  lua_call(L, 2, LUA_MULTRET);
  if (lua_gettop(L) < at)
    return 0;
  lua_settop(L, at + 1);
  const char *json = lua_isnil(L, at) ? NULL : lua_tostring(L, at);
  const char *message = json ? NULL : lua_tostring(L, at + 1);
  if (!json && !lua_isnil(L, at))
    luaL_error(L, "parry: a host function must return JSON text, or nil and a message; got a %s", luaL_typename(L, at));
  if (parry_reply(asked->function->engine->handle, asked->request, json, message) == PARRY_EINVAL)
    luaL_error(L, "parry: what a host function returned is not JSON, or too long");
  return 0;
}

static void on_function(void *user, parry_request_id request, const char *arguments, size_t size)
{
  struct lm_function *function = user;
  struct asked asked = {function, request, arguments, size};
  if (!lm_callback(function->engine, run_function, &asked))
    (void)parry_reply(function->engine->handle, request, NULL, "the host's function raised an error");
}

/* Pushes the userdata of the name at 2, made when there is none, and keeps it. */
static struct lm_function *place(lua_State *L, struct lm_engine *engine)
{
  lua_getiuservalue(L, LM_AT_ENGINE, 1);
  lua_getfield(L, -1, "functions");
  lua_pushvalue(L, 2);
  if (lua_rawget(L, -2) == LUA_TUSERDATA)
    return lua_touserdata(L, -1);
  lua_pop(L, 1);
  struct lm_function *function = lua_newuserdatauv(L, sizeof *function, 1);
  function->engine = engine;
  lua_pushvalue(L, -1);
  lua_rawsetp(L, -3, function);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_rawset(L, -4);
  return function;
}

int lm_register(lua_State *L)
{
  struct lm_engine *engine = lm_engine(L);
  luaL_checkstring(L, 2);
  const char *name = lm_argument(L, 2);
  lua_settop(L, 3);
  if (lua_isnil(L, 3))
    return lm_result(L, parry_register(engine->handle, name, NULL, NULL, 0));
  luaL_checktype(L, 3, LUA_TFUNCTION);
  struct lm_function *function = place(L, engine);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, 1);
  return lm_result(L, parry_register(engine->handle, name, on_function, function, 0));
}

int lm_reply(lua_State *L)
{
  struct lm_engine *engine = lm_engine(L);
  parry_request_id request = {(uint64_t)luaL_checkinteger(L, 2)};
  return lm_result(L, parry_reply(engine->handle, request, lm_argument(L, 3), lm_argument(L, 4)));
}
