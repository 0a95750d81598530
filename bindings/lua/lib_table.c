/* The table library: as stock Lua's, with every loop charged before it runs. */
#include "sandbox.h"

/* ---- Length and places ------------------------------------------------------------------------------------------ */

/* The length as `#` gives it. */
static lua_Integer check_table(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  return luaL_len(L, 1);
}

static int table_insert(lua_State *L)
{
  lua_Integer end = (lua_Integer)((lua_Unsigned)check_table(L) + 1);
  lua_Integer position = end;

  switch (lua_gettop(L)) {
  case 2:
    break;
  case 3:
    position = luaL_checkinteger(L, 2);
    luaL_argcheck(L, (lua_Unsigned)position - 1u < (lua_Unsigned)end, 2, "position out of bounds");
    break;
  default:
    return luaL_error(L, "wrong number of arguments to 'insert'");
  }
  pry_script_charge(L, (size_t)(end - position));
  for (lua_Integer i = end; i > position; i--) {
    lua_geti(L, 1, i - 1);
    lua_seti(L, 1, i);
  }
  lua_seti(L, 1, position);
  return 0;
}

static int table_remove(lua_State *L)
{
  lua_Integer size = check_table(L);
  lua_Integer position = luaL_optinteger(L, 2, size);

  if (position != size) /* one behind the end is allowed */
    luaL_argcheck(L, (lua_Unsigned)position - 1u <= (lua_Unsigned)size, 2, "position out of bounds");
  pry_script_charge(L, size > position ? (size_t)(size - position) : 0);
  lua_geti(L, 1, position);
  for (; position < size; position++) {
    lua_geti(L, 1, position + 1);
    lua_seti(L, 1, position);
  }
  lua_pushnil(L);
  lua_seti(L, 1, position);
  return 1;
}

static int table_move(lua_State *L)
{
  lua_Integer first = luaL_checkinteger(L, 2);
  lua_Integer last = luaL_checkinteger(L, 3);
  lua_Integer to = luaL_checkinteger(L, 4);
  int target = lua_isnoneornil(L, 5) ? 1 : 5;

  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, target, LUA_TTABLE);
  lua_settop(L, 5);
  if (last >= first) {
    luaL_argcheck(L, first > 0 || last < LUA_MAXINTEGER + first, 3, "too many elements to move");
    lua_Integer count = last - first + 1;
    luaL_argcheck(L, to <= LUA_MAXINTEGER - count + 1, 4, "destination wrap around");
    pry_script_charge(L, (size_t)count);
    bool upwards = to > last || to <= first || (target != 1 && !lua_compare(L, 1, target, LUA_OPEQ));
    for (lua_Integer i = 0; i < count; i++) {
      lua_Integer at = upwards ? i : count - 1 - i; /* overlapping: from the end */
      lua_geti(L, 1, first + at);
      lua_seti(L, target, to + at);
    }
  }
  lua_pushvalue(L, target);
  return 1;
}

/* ---- Many values ------------------------------------------------------------------------------------------------- */

static int table_concat(lua_State *L)
{
  lua_Integer size = check_table(L);
  size_t separator_size;
  const char *separator = luaL_optlstring(L, 2, "", &separator_size);
  lua_Integer first = luaL_optinteger(L, 3, 1);
  lua_Integer last = luaL_optinteger(L, 4, size);
  luaL_Buffer buffer;

  luaL_buffinit(L, &buffer);
  for (lua_Integer i = first; i <= last; i++) {
    pry_script_charge(L, 1 + separator_size / PRY_SCRIPT_BYTES_PER_INSTRUCTION);
    lua_geti(L, 1, i);
    if (!lua_isstring(L, -1))
      return luaL_error(L, "invalid value (at index %I) in table for 'concat'", (LUAI_UACINT)i);
    luaL_addvalue(&buffer);
    if (i == last)
      break; /* the next i may not exist */
    luaL_addlstring(&buffer, separator, separator_size);
  }
  luaL_pushresult(&buffer);
  return 1;
}

static int table_pack(lua_State *L)
{
  int count = lua_gettop(L);

  lua_createtable(L, count, 1);
  lua_insert(L, 1);
  for (int i = count; i >= 1; i--)
    lua_rawseti(L, 1, i);
  lua_pushinteger(L, count);
  lua_setfield(L, 1, "n");
  return 1;
}

static int table_unpack(lua_State *L)
{
  lua_Integer first = luaL_optinteger(L, 2, 1);
  lua_Integer last = luaL_opt(L, luaL_checkinteger, 3, luaL_len(L, 1));

  if (first > last)
    return 0;
  if ((lua_Unsigned)last - (lua_Unsigned)first >= PRY_SANDBOX_VALUES)
    return luaL_error(L, "too many results to unpack: at most %d", PRY_SANDBOX_VALUES);
  int count = (int)(last - first) + 1;
  pry_script_charge(L, (size_t)count);
  luaL_checkstack(L, count, "too many results to unpack");
  for (int i = 0; i < count; i++)
    lua_geti(L, 1, first + i);
  return count;
}

/* ---- sort: merging, stable, at most n log n comparisons whatever the function says ------------------------------- */

enum { SORT_TABLE = 1, SORT_LESS = 2, SORT_FROM = 3, SORT_TO = 4 };

/* Strings bytewise, not by the locale of the process. */
static bool less_text(lua_State *L, int a, int b)
{
  size_t a_size, b_size;
  const char *a_text = lua_tolstring(L, a, &a_size);
  const char *b_text = lua_tolstring(L, b, &b_size);
  size_t common = a_size < b_size ? a_size : b_size;

  pry_script_charge(L, common / PRY_SCRIPT_BYTES_PER_INSTRUCTION);
  int order = memcmp(a_text, b_text, common);
  return order < 0 || (order == 0 && a_size < b_size);
}

/* Is the element on top less than the one below it? Leaves both. */
static bool is_less(lua_State *L)
{
  pry_script_charge(L, 2);
  if (lua_isnil(L, SORT_LESS)) {
    if (lua_type(L, -1) == LUA_TSTRING && lua_type(L, -2) == LUA_TSTRING)
      return less_text(L, -1, -2);
    return lua_compare(L, -1, -2, LUA_OPLT);
  }
  lua_pushvalue(L, SORT_LESS);
  lua_pushvalue(L, -2);
  lua_pushvalue(L, -4);
  lua_call(L, 2, 1);
  bool less = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return less;
}

/* Merges [low, middle) and [middle, high) of the table at `from` into the one at `to`. */
static void merge(lua_State *L, int from, int to, lua_Integer low, lua_Integer middle, lua_Integer high)
{
  lua_Integer left = low;
  lua_Integer right = middle;

  for (lua_Integer at = low; at < high; at++) {
    bool take_right = left >= middle;
    if (!take_right && right < high) {
      lua_rawgeti(L, from, left);
      lua_rawgeti(L, from, right);
      take_right = is_less(L);
      lua_pop(L, 2);
    }
    lua_rawgeti(L, from, take_right ? right++ : left++);
    lua_rawseti(L, to, at);
  }
}

static int table_sort(lua_State *L)
{
  lua_Integer size = check_table(L);

  if (size < 2)
    return 0;
  luaL_argcheck(L, size < INT32_MAX, 1, "array too big");
  if (!lua_isnoneornil(L, 2))
    luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  luaL_checkstack(L, 16, NULL);
  pry_script_charge(L, 4 * (size_t)size);
  lua_createtable(L, (int)size, 0);
  lua_createtable(L, (int)size, 0);
  for (lua_Integer i = 1; i <= size; i++) {
    lua_geti(L, SORT_TABLE, i);
    lua_rawseti(L, SORT_FROM, i);
  }
  int from = SORT_FROM;
  int to = SORT_TO;
  for (lua_Integer width = 1; width < size; width *= 2) {
    pry_script_charge(L, (size_t)size);
    for (lua_Integer low = 1; low <= size; low += 2 * width) {
      lua_Integer middle = low + width <= size + 1 ? low + width : size + 1;
      lua_Integer high = low + 2 * width <= size + 1 ? low + 2 * width : size + 1;
      merge(L, from, to, low, middle, high);
    }
    int swap = from;
    from = to;
    to = swap;
  }
  for (lua_Integer i = 1; i <= size; i++) {
    lua_rawgeti(L, from, i);
    lua_seti(L, SORT_TABLE, i);
  }
  return 0;
}

static const luaL_Reg functions[] = {
    {"concat", table_concat}, {"insert", table_insert}, {"move", table_move},     {"pack", table_pack},
    {"remove", table_remove}, {"sort", table_sort},     {"unpack", table_unpack}, {NULL, NULL},
};

void pry_lib_table_open(lua_State *L)
{
  luaL_newlib(L, functions);
}
