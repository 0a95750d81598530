/* The base library: what is harmless comes from stock Lua, the rest is ours. */
#include "door.h"
#include "sandbox.h"

#include <lualib.h>

/* ---- pcall ------------------------------------------------------------------------------------------------------ */

static int after_pcall(lua_State *L, int status, lua_KContext context)
{
  (void)context;
  if (status == LUA_OK || status == LUA_YIELD)
    return lua_gettop(L);
  if (status == LUA_ERRMEM)
    pry_script_poison(L);
  if (pry_script_doomed(L))
    pry_script_kill(L); /* does not return */
  lua_pushboolean(L, false);
  lua_insert(L, -2);
  return 2;
}

static int base_pcall(lua_State *L)
{
  luaL_checkany(L, 1);
  lua_pushboolean(L, true);
  lua_insert(L, 1);
  return after_pcall(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, after_pcall), 0);
}

/* ---- Metatables -------------------------------------------------------------------------------------------------- */

static const char *const refused[] = {"__gc", "__close", "__mode", NULL};
static const char *const functions[] = {"__add", "__sub",  "__mul",    "__div",      "__mod",  "__pow",
                                        "__unm", "__idiv", "__band",   "__bor",      "__bxor", "__shl",
                                        "__shr", "__bnot", "__concat", "__len",      "__eq",   "__lt",
                                        "__le",  "__call", "__pairs",  "__tostring", NULL};
static const char *const values[] = {"__index", "__newindex", "__name", "__metatable", NULL};

/* Copies one metamethod from the contents at `from` into the table on top. */
static void copy_metamethod(lua_State *L, int from, const char *name, bool function)
{
  lua_pushstring(L, name);
  lua_pushvalue(L, -1);
  int type = lua_rawget(L, from);
  if (function && type != LUA_TNIL && type != LUA_TFUNCTION)
    luaL_error(L, "metamethod '%s' must be a function", name); /* a chain of callable tables is endless work in C */
  if (type == LUA_TNIL)
    lua_pop(L, 2);
  else
    lua_rawset(L, -3);
}

static void push_sealed_copy(lua_State *L, int original)
{
  pry_freeze_contents(L, original);
  int from = lua_gettop(L);
  for (const char *const *name = refused; *name; name++) {
    lua_pushstring(L, *name);
    if (lua_rawget(L, from) != LUA_TNIL)
      luaL_error(L, "metamethod '%s' is not available", *name);
    lua_pop(L, 1);
  }
  lua_newtable(L);
  for (const char *const *name = functions; *name; name++)
    copy_metamethod(L, from, *name, true);
  for (const char *const *name = values; *name; name++)
    copy_metamethod(L, from, *name, false);
  lua_pushvalue(L, original);
  pry_freeze_set_original(L);
}

static int base_setmetatable(lua_State *L)
{
  int type = lua_type(L, 2);

  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
  lua_settop(L, 2);
  if (pry_freeze_is_frozen(L, 1))
    return luaL_error(L, "this table is read-only after load");
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
    return luaL_error(L, "cannot change a protected metatable");
  if (type == LUA_TNIL)
    lua_pushnil(L);
  else
    push_sealed_copy(L, 2);
  lua_setmetatable(L, 1);
  lua_settop(L, 1);
  return 1;
}

static int base_getmetatable(lua_State *L)
{
  luaL_checkany(L, 1);
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
    return 1;
  if (lua_type(L, 1) == LUA_TTABLE && lua_getmetatable(L, 1) && pry_freeze_get_original(L))
    return 1;
  lua_pushnil(L);
  return 1;
}

/* ---- pairs ------------------------------------------------------------------------------------------------------- */

/* Upvalues: keys in order, position. Called as the iterator of `for`: (table, last key). */
static int next_pair(lua_State *L)
{
  lua_Integer at = lua_tointeger(L, lua_upvalueindex(2));

  luaL_checktype(L, 1, LUA_TTABLE); /* a script may keep the iterator and call it with anything */
  lua_settop(L, 1);
  for (;;) {
    if (lua_rawgeti(L, lua_upvalueindex(1), ++at) == LUA_TNIL)
      return 1;
    lua_pushvalue(L, -1);
    if (lua_rawget(L, 1) != LUA_TNIL)
      break;
    pry_script_charge(L, 1);
    lua_settop(L, 1); /* removed since the snapshot */
  }
  lua_pushinteger(L, at);
  lua_replace(L, lua_upvalueindex(2));
  return 2;
}

/* The same for frozen tables, whose contents a script must never hold. */
static int next_frozen_pair(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  pry_freeze_contents(L, 1);
  lua_replace(L, 1);
  return next_pair(L);
}

static int after_pairs(lua_State *L, int status, lua_KContext context)
{
  (void)L, (void)status, (void)context;
  return 3;
}

static int base_pairs(lua_State *L)
{
  luaL_checkany(L, 1);
  if (luaL_getmetafield(L, 1, "__pairs") != LUA_TNIL) {
    lua_pushvalue(L, 1);
    lua_callk(L, 1, 3, 0, after_pairs);
    return 3;
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  pry_sandbox_keys(L, 1);
  lua_pushinteger(L, 0);
  lua_pushcclosure(L, pry_freeze_is_frozen(L, 1) ? next_frozen_pair : next_pair, 2);
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  return 3;
}

/* ---- The rest ---------------------------------------------------------------------------------------------------- */

static int base_rawget(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  pry_freeze_contents(L, 1);
  lua_insert(L, 2);
  lua_rawget(L, 2);
  return 1;
}

static int base_rawlen(lua_State *L)
{
  int type = lua_type(L, 1);

  luaL_argexpected(L, type == LUA_TTABLE || type == LUA_TSTRING, 1, "table or string");
  pry_freeze_contents(L, 1);
  lua_pushinteger(L, (lua_Integer)lua_rawlen(L, -1));
  return 1;
}

static int base_select(lua_State *L)
{
  int count = lua_gettop(L);

  pry_script_charge(L, (size_t)count / 16); /* copying the arguments cost that */
  if (lua_type(L, 1) == LUA_TSTRING && lua_tostring(L, 1)[0] == '#') {
    lua_pushinteger(L, count - 1);
    return 1;
  }
  lua_Integer first = luaL_checkinteger(L, 1);
  if (first < 0)
    first += count;
  else if (first > count)
    first = count;
  luaL_argcheck(L, first >= 1, 1, "index out of range");
  return count - (int)first;
}

static int base_tostring(lua_State *L)
{
  luaL_checkany(L, 1);
  pry_sandbox_tostring(L, 1, NULL);
  return 1;
}

/* Upvalue: the stock function, whose work grows with the text. */
static int base_tonumber(lua_State *L)
{
  if (lua_type(L, 1) == LUA_TSTRING)
    pry_script_charge(L, lua_rawlen(L, 1) / 4);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return 1;
}

static const luaL_Reg ours[] = {
    {"getmetatable", base_getmetatable},
    {"pairs", base_pairs},
    {"pcall", base_pcall},
    {"rawget", base_rawget},
    {"rawlen", base_rawlen},
    {"select", base_select},
    {"setmetatable", base_setmetatable},
    {"tostring", base_tostring},
    {NULL, NULL},
};

static const char *const stock[] = {"assert", "error", "ipairs", "rawequal", "type", "_VERSION", NULL};

void pry_lib_base_open(lua_State *L)
{
  luaL_newlib(L, ours);
  lua_pushcfunction(L, luaopen_base); /* fills the state's own global table, which no script sees */
  lua_call(L, 0, 1);
  for (const char *const *name = stock; *name; name++) {
    lua_getfield(L, -1, *name);
    lua_setfield(L, -3, *name);
  }
  lua_getfield(L, -1, "tonumber");
  lua_pushcclosure(L, base_tonumber, 1);
  lua_setfield(L, -3, "tonumber");
  lua_pop(L, 1);
  lua_newtable(L);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS); /* and now nobody does */
}
