/* t:eq and its like. Declared in lib_test.h. A check that fails raises, which ends its test. */
#include "lib_test.h"

#include "lib.h"
#include "sandbox.h"

#include <math.h>
#include <stdio.h>

enum { SHOWN = 96, COMPARE_DEPTH = 16 };

/* Pushes a value as people read it: texts quoted, tables as JSON, all of it cut. */
static const char *push_shown(lua_State *L, int index)
{
  char complaint[128];
  index = lua_absindex(L, index);
  int type = lua_type(L, index);
  if (type != LUA_TSTRING && type != LUA_TTABLE)
    return pry_sandbox_tostring(L, index, NULL);
  struct pry_buffer *json = pry_lua_buffer(L, PRY_LUA_JSON_MAX);
  if (!pry_lua_json_append(L, index, json, NULL, NULL, complaint, sizeof complaint))
    return lua_pushstring(L, "a table");
  struct pry_slice text = pry_buffer_slice(json);
  bool cut = text.size > SHOWN;
  if (cut)
    text.size = SHOWN;
  while (cut && text.size && ((unsigned char)text.data[text.size] & 0xc0) == 0x80)
    text.size--; /* never half a character */
  lua_pushlstring(L, text.data, text.size);
  lua_pushstring(L, cut ? "..." : "");
  lua_concat(L, 2);
  pry_buffer_fini(json);
  return lua_tostring(L, -1);
}

/* ": note" of the optional last argument. */
static const char *note(lua_State *L, int index)
{
  return lua_type(L, index) == LUA_TSTRING ? lua_pushfstring(L, "%s: ", lua_tostring(L, index)) : "";
}

static bool equal(lua_State *L, int a, int b, int depth);

static bool has_equals(lua_State *L, int a, int b, int depth)
{
  bool same = true;
  for (lua_pushnil(L); same && lua_next(L, a); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_rawget(L, b);
    same = equal(L, lua_gettop(L) - 1, lua_gettop(L), depth + 1);
    lua_pop(L, 1);
  }
  if (!same)
    lua_pop(L, 1);
  return same;
}

/* Tables are equal when they hold equal values under equal keys. */
static bool equal(lua_State *L, int a, int b, int depth)
{
  if (lua_rawequal(L, a, b))
    return true;
  if (!lua_istable(L, a) || !lua_istable(L, b))
    return false;
  if (depth == COMPARE_DEPTH)
    luaL_error(L, "the tables are nested too deeply to compare");
  luaL_checkstack(L, 12, "the tables are nested too deeply to compare");
  int top = lua_gettop(L);
  lua_pushvalue(L, a);
  lua_pushvalue(L, b);
  pry_lua_thaw(L, top + 1);
  pry_lua_thaw(L, top + 2);
  bool same = has_equals(L, top + 1, top + 2, depth) && has_equals(L, top + 2, top + 1, depth);
  lua_settop(L, top);
  return same;
}

static void begin_check(lua_State *L)
{
  pry_test_world(L)->check_count++;
}

/* ---@param got any
 * ---@param want any   tables are equal when they hold equal values
 * ---@param note? string
 * function t:eq(got, want, note) end */
static int t_eq(lua_State *L)
{
  begin_check(L);
  lua_settop(L, 4);
  if (equal(L, 2, 3, 0))
    return 0;
  return luaL_error(L, "%sexpected %s, got %s", note(L, 4), push_shown(L, 3), push_shown(L, 2));
}

/* ---@param got any
 * ---@param unwanted any
 * ---@param note? string
 * function t:ne(got, unwanted, note) end */
static int t_ne(lua_State *L)
{
  begin_check(L);
  lua_settop(L, 4);
  if (!equal(L, 2, 3, 0))
    return 0;
  return luaL_error(L, "%sexpected anything but %s", note(L, 4), push_shown(L, 3));
}

/* ---@param value any
 * ---@param note? string
 * function t:ok(value, note) end */
static int t_ok(lua_State *L)
{
  begin_check(L);
  lua_settop(L, 3);
  if (lua_toboolean(L, 2))
    return 0;
  return luaL_error(L, "%sexpected something true, got %s", note(L, 3), push_shown(L, 2));
}

/* ---@param text string?
 * ---@param pattern string
 * ---@param note? string
 * function t:match(text, pattern, note) end */
static int t_match(lua_State *L)
{
  begin_check(L);
  lua_settop(L, 4);
  if (lua_type(L, 3) != LUA_TSTRING)
    return luaL_error(L, "t:match needs a pattern, got %s", luaL_typename(L, 3));
  if (lua_type(L, 2) == LUA_TSTRING) {
    pry_sandbox_get_global(L, "string");
    lua_getfield(L, -1, "find");
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    lua_call(L, 2, 1);
    if (!lua_isnil(L, -1))
      return 0;
  }
  return luaL_error(L, "%sexpected a text that matches %s, got %s", note(L, 4), push_shown(L, 3), push_shown(L, 2));
}

/* ---@param got number
 * ---@param want number
 * ---@param within? number   0.001
 * ---@param note? string
 * function t:near(got, want, within, note) end */
static int t_near(lua_State *L)
{
  begin_check(L);
  lua_settop(L, 5);
  if (lua_type(L, 3) != LUA_TNUMBER)
    return luaL_error(L, "t:near needs a number to compare with, got %s", luaL_typename(L, 3));
  double within = luaL_optnumber(L, 4, 0.001);
  if (lua_type(L, 2) == LUA_TNUMBER && fabs(lua_tonumber(L, 2) - lua_tonumber(L, 3)) <= within)
    return 0;
  lua_pushnumber(L, within);
  lua_replace(L, 4);
  return luaL_error(L, "%sexpected %s within %s, got %s", note(L, 5), push_shown(L, 3), push_shown(L, 4),
                    push_shown(L, 2));
}

/* ---@param text? string
 * function t:fail(text) end */
static int t_fail(lua_State *L)
{
  begin_check(L);
  return luaL_error(L, "%s", lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "failed");
}

const luaL_Reg pry_test_checks[] = {{"eq", t_eq},     {"ne", t_ne},     {"ok", t_ok}, {"match", t_match},
                                    {"near", t_near}, {"fail", t_fail}, {NULL, NULL}};
