/* Between Lua's values and parry.h's structs, and the way of errors. */
#include "module.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

/* ---- errors -------------------------------------------------------------------------------------------------------- */

static const char *error_name(int error)
{
  switch (error) {
#define X(name, value, text)                                                                                           \
  case value:                                                                                                          \
    return &(#name)[sizeof "PARRY"];
    PARRY_ERRORS(X)
#undef X
  default:
    return "UNKNOWN";
  }
}

int lm_failed(lua_State *L, int error, const char *findings)
{
  lua_pushnil(L);
  lua_createtable(L, 0, 4);
  lm_set_text(L, "code", error_name(error));
  lm_set_text(L, "message", findings && *findings ? findings : parry_strerror(error));
  if (findings)
    lm_set_text(L, "findings", findings);
  luaL_setmetatable(L, LM_ERROR);
  return 2;
}

int lm_result(lua_State *L, int error)
{
  if (error == PARRY_EINVAL || error == PARRY_EREENTRANT || error == PARRY_EFREED || error == PARRY_EFORKED)
    return luaL_error(L, "parry: %s", parry_strerror(error));
  if (error < 0)
    return lm_failed(L, error, NULL);
  lua_pushboolean(L, 1);
  return 1;
}

struct lm_engine *lm_engine(lua_State *L)
{
  struct lm_engine *engine = luaL_checkudata(L, 1, LM_ENGINE);
  luaL_argcheck(L, engine->handle, 1, "the engine is closed");
  return engine;
}

/* ---- callbacks ----------------------------------------------------------------------------------------------------- */

void lm_enter(lua_State *L, struct lm_engine *engine)
{
  if (engine->L)
    (void)lm_result(L, PARRY_EREENTRANT);
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  lua_pushnil(L);
  lua_insert(L, LM_AT_ERROR);
  engine->raised = false;
  engine->L = L;
}

void lm_leave(lua_State *L, struct lm_engine *engine)
{
  engine->L = NULL;
  if (!engine->raised) {
    lua_remove(L, LM_AT_ERROR);
    return;
  }
  engine->raised = false;
  lua_pushvalue(L, LM_AT_ERROR);
  (void)lua_error(L);
}

bool lm_callback(struct lm_engine *engine, lua_CFunction function, void *argument)
{
  lua_State *L = engine->L;
  if (!L)
    return false;
  int top = lua_gettop(L); /* lm_enter() made room for the little here */
  lua_pushcfunction(L, function);
  lua_getiuservalue(L, LM_AT_ENGINE, 1);
  lua_pushlightuserdata(L, argument);
  bool ok = lua_pcall(L, 2, 0, 0) == LUA_OK;
  if (!ok && !engine->raised) {
    engine->raised = true;
    lua_copy(L, -1, LM_AT_ERROR);
  }
  lua_settop(L, top);
  return ok;
}

/* ---- fields of tables ---------------------------------------------------------------------------------------------- */

static int wrong_type(lua_State *L, const char *name, const char *wanted)
{
  return luaL_error(L, "parry: %s must be a %s, got a %s", name, wanted, luaL_typename(L, -1));
}

/* Not lua_getfield(): what a metamethod makes belongs to nobody. */
static int push_field(lua_State *L, int index, const char *name)
{
  lua_pushstring(L, name);
  return lua_rawget(L, index);
}

const char *lm_bytes(lua_State *L, int index, const char *name, size_t *size)
{
  const char *text = NULL;
  *size = 0;
  if (push_field(L, index, name) == LUA_TSTRING)
    text = lua_tolstring(L, -1, size);
  else if (!lua_isnil(L, -1))
    wrong_type(L, name, "string");
  lua_pop(L, 1); /* it is still the table's */
  return text;
}

const char *lm_text(lua_State *L, int index, const char *name)
{
  size_t size;
  const char *text = lm_bytes(L, index, name, &size);
  if (text && strlen(text) != size)
    luaL_error(L, "parry: %s has a NUL inside", name);
  return text;
}

double lm_number(lua_State *L, int index, const char *name)
{
  double value = 0;
  if (push_field(L, index, name) == LUA_TNUMBER)
    value = lua_tonumber(L, -1);
  else if (!lua_isnil(L, -1))
    wrong_type(L, name, "number");
  if (value != value)
    luaL_error(L, "parry: %s must be a number, got NaN", name);
  lua_pop(L, 1);
  return value;
}

int lm_whole(lua_State *L, int index, const char *name, int max)
{
  double value = lm_number(L, index, name);
  if (!(value >= 0 && value <= max) || value != (int)value)
    luaL_error(L, "parry: %s must be a whole number in 0..%d", name, max);
  return (int)value;
}

const char *lm_argument(lua_State *L, int index)
{
  size_t size;
  const char *text = luaL_optlstring(L, index, NULL, &size);
  luaL_argcheck(L, !text || strlen(text) == size, index, "it has a NUL inside");
  return text;
}

bool lm_flag(lua_State *L, int index, const char *name)
{
  if (push_field(L, index, name) != LUA_TBOOLEAN && !lua_isnil(L, -1))
    wrong_type(L, name, "boolean");
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

bool lm_function(lua_State *L, int index, const char *name)
{
  if (push_field(L, index, name) == LUA_TFUNCTION)
    return true;
  if (!lua_isnil(L, -1))
    wrong_type(L, name, "function");
  lua_pop(L, 1);
  return false;
}

/* ---- headers ------------------------------------------------------------------------------------------------------- */

/* The name at -2 and the value at -1, as {name = value}; or the pair {name, value} at -1. Leaves both where they are. */
static struct parry_header header_at(lua_State *L, const char *what)
{
  struct parry_header header;
  int top = lua_gettop(L);
  if (lua_istable(L, -1)) {
    lua_rawgeti(L, top, 1);
    lua_rawgeti(L, top, 2);
  } else {
    lua_pushvalue(L, top - 1);
    lua_pushvalue(L, top);
  }
  if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "parry: %s must be {name = \"value\"} or {{\"name\", \"value\"}}", what);
  size_t name_size, value_size;
  header.name = lua_tolstring(L, -2, &name_size);
  header.value = lua_tolstring(L, -1, &value_size);
  if (strlen(header.name) != name_size || strlen(header.value) != value_size)
    luaL_error(L, "parry: %s have a NUL inside", what);
  lua_settop(L, top);
  return header;
}

const struct parry_header *lm_headers(lua_State *L, int index, const char *name, size_t *count)
{
  size_t size = 0, filled = 0;
  *count = 0;
  if (push_field(L, index, name) == LUA_TNIL)
    return NULL; /* the nil stays, as the array would */
  if (!lua_istable(L, -1))
    wrong_type(L, name, "table");
  int table = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1))
    size++;
  struct parry_header *headers = lua_newuserdatauv(L, (size + 1) * sizeof *headers, 0);
  for (lua_pushnil(L); lua_next(L, table) && filled < size; lua_pop(L, 1))
    headers[filled++] = header_at(L, name);
  *count = filled;
  return headers;
}

void lm_set_headers(lua_State *L, const struct parry_header *headers, size_t count)
{
  lua_createtable(L, 0, (int)count);
  for (size_t i = 0; i < count; i++) {
    luaL_Buffer name;
    luaL_buffinit(L, &name);
    for (const char *c = headers[i].name; *c; c++)
      luaL_addchar(&name, (char)tolower((unsigned char)*c));
    luaL_pushresult(&name);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) == LUA_TSTRING)
      lua_pushfstring(L, "%s, %s", lua_tostring(L, -1), headers[i].value);
    else
      lua_pushstring(L, headers[i].value);
    lua_remove(L, -2);
    lua_rawset(L, -3);
  }
}

/* ---- events -------------------------------------------------------------------------------------------------------- */

struct parry_event lm_event(lua_State *L, int index)
{
  struct parry_event event = PARRY_EVENT_INIT;
  luaL_checktype(L, index, LUA_TTABLE);
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  event.ok = lm_flag(L, index, "ok");
  event.status = lm_whole(L, index, "status", INT_MAX);
  event.curl_code = lm_whole(L, index, "curl_code", INT_MAX);
  event.category = lm_text(L, index, "category");
  event.code = lm_text(L, index, "code");
  event.message = lm_text(L, index, "message");
  event.retry_after = lm_number(L, index, "retry_after");
  event.not_sent = lm_flag(L, index, "not_sent");
  event.body = lm_bytes(L, index, "body", &event.body_size);
  event.route = lm_text(L, index, "route");
  event.target = lm_text(L, index, "target");
  event.attempt = (unsigned)lm_whole(L, index, "attempt", INT_MAX);
  event.deadline_left = lm_number(L, index, "deadline_left");
  event.not_repeatable = lm_flag(L, index, "not_repeatable");
  event.seconds = lm_number(L, index, "seconds");
  event.name = lm_text(L, index, "name");
  event.fields = lm_text(L, index, "fields");
  event.headers = lm_headers(L, index, "headers", &event.header_count);
  return event;
}

void lm_set_text(lua_State *L, const char *name, const char *value)
{
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

void lm_set_number(lua_State *L, const char *name, double value)
{
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

void lm_set_integer(lua_State *L, const char *name, lua_Integer value)
{
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

void lm_set_flag(lua_State *L, const char *name, bool value)
{
  lua_pushboolean(L, value);
  lua_setfield(L, -2, name);
}
