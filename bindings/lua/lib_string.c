/* The string library: stock Lua's where that is bounded, ours where it is not. */
#include "format.h"
#include "pattern.h"
#include "sandbox.h"

#include <lualib.h>
#include <stdint.h>

static struct pry_slice check_slice(lua_State *L, int index)
{
  struct pry_slice slice;

  slice.data = luaL_checklstring(L, index, &slice.size);
  return slice;
}

/* A start position of the manual (§6.4) as an offset; may be past the end. */
static size_t start_offset(lua_Integer position, size_t size)
{
  if (position > 0)
    return (size_t)position - 1;
  if (position == 0 || position < -(lua_Integer)size)
    return 0;
  return size + (size_t)position; /* wraps to size - |position| */
}

static void check_result(lua_State *L, size_t size)
{
  if (size > pry_script_string_max(pry_script_of(L)))
    luaL_error(L, "resulting string too large");
  pry_script_charge_bytes(L, size);
}

/* ---- Whole strings ----------------------------------------------------------------------------------------------- */

static int string_byte(lua_State *L)
{
  struct pry_slice text = check_slice(L, 1);
  lua_Integer position = luaL_optinteger(L, 2, 1);
  size_t first = start_offset(position, text.size);
  lua_Integer last = luaL_optinteger(L, 3, position);
  size_t end = last > (lua_Integer)text.size    ? text.size
               : last >= 0                      ? (size_t)last
               : last < -(lua_Integer)text.size ? 0
                                                : text.size + (size_t)last + 1;

  if (first >= end)
    return 0;
  size_t count = end - first;
  if (count > PRY_SANDBOX_VALUES)
    return luaL_error(L, "too many results: at most %d", PRY_SANDBOX_VALUES);
  pry_script_charge(L, count);
  luaL_checkstack(L, (int)count, "string slice too long");
  for (size_t i = 0; i < count; i++)
    lua_pushinteger(L, (unsigned char)text.data[first + i]);
  return (int)count;
}

static int change_case(lua_State *L, char low, char high)
{
  struct pry_slice text = check_slice(L, 1);
  luaL_Buffer buffer;
  char *result = luaL_buffinitsize(L, &buffer, text.size);

  pry_script_charge_bytes(L, text.size);
  for (size_t i = 0; i < text.size; i++) {
    char c = text.data[i];
    result[i] = (char)(c >= low && c <= high ? c ^ ('a' - 'A') : c);
  }
  luaL_pushresultsize(&buffer, text.size);
  return 1;
}

static int string_lower(lua_State *L)
{
  return change_case(L, 'A', 'Z');
}

static int string_upper(lua_State *L)
{
  return change_case(L, 'a', 'z');
}

static int string_rep(lua_State *L)
{
  struct pry_slice text = check_slice(L, 1);
  lua_Integer count = luaL_checkinteger(L, 2);
  struct pry_slice separator;
  separator.data = luaL_optlstring(L, 3, "", &separator.size);
  size_t unit = text.size + separator.size;

  if (count <= 0 || unit == 0) {
    lua_pushliteral(L, "");
    return 1;
  }
  if ((lua_Unsigned)count > SIZE_MAX / unit)
    return luaL_error(L, "resulting string too large");
  size_t total = (size_t)count * unit - separator.size;
  check_result(L, total);
  pry_script_charge(L, (size_t)count / 4);
  luaL_Buffer buffer;
  char *out = luaL_buffinitsize(L, &buffer, total);
  for (lua_Integer i = 0; i < count; i++) {
    memcpy(out, text.data, text.size);
    out += text.size;
    if (i + 1 < count) {
      memcpy(out, separator.data, separator.size);
      out += separator.size;
    }
  }
  luaL_pushresultsize(&buffer, total);
  return 1;
}

/* ---- Searching --------------------------------------------------------------------------------------------------- */

static int push_range(lua_State *L, struct pry_slice text, const char *start, const char *end)
{
  lua_pushinteger(L, (start - text.data) + 1);
  lua_pushinteger(L, end - text.data);
  return 2;
}

static int find_plain(lua_State *L, struct pry_slice text, size_t from, struct pry_slice what)
{
  pry_script_charge_bytes(L, 8 * (text.size - from + what.size));
  const char *at = memmem(text.data + from, text.size - from, what.data, what.size);
  if (at)
    return push_range(L, text, at, at + what.size);
  luaL_pushfail(L);
  return 1;
}

static int find_pattern(lua_State *L, struct pry_slice text, size_t from, struct pry_slice pattern, bool find)
{
  struct pry_match match;
  bool anchored = pattern.size > 0 && pattern.data[0] == '^';
  const char *p = pattern.data + anchored;

  pry_match_init(&match, L, text, pattern);
  for (const char *at = text.data + from; at <= match.text_end; at++) {
    const char *end = pry_match_at(&match, at, p);
    if (end) {
      pry_match_settle(&match);
      if (!find)
        return pry_match_push_captures(&match, at, end);
      return push_range(L, text, at, end) + pry_match_push_captures(&match, NULL, NULL);
    }
    if (anchored)
      break;
  }
  pry_match_settle(&match);
  luaL_pushfail(L);
  return 1;
}

static int find_or_match(lua_State *L, bool find)
{
  struct pry_slice text = check_slice(L, 1);
  struct pry_slice pattern = check_slice(L, 2);
  size_t from = start_offset(luaL_optinteger(L, 3, 1), text.size);

  if (from > text.size) {
    luaL_pushfail(L);
    return 1;
  }
  if (find) {
    pry_script_charge_bytes(L, pattern.size);
    if (lua_toboolean(L, 4) || pry_pattern_is_plain(pattern))
      return find_plain(L, text, from, pattern);
  }
  return find_pattern(L, text, from, pattern, find);
}

static int string_find(lua_State *L)
{
  return find_or_match(L, true);
}

static int string_match(lua_State *L)
{
  return find_or_match(L, false);
}

/* Upvalues: text, pattern, where to go on, end of the last match (-1: none yet). */
static int next_match(lua_State *L)
{
  struct pry_slice text = check_slice(L, lua_upvalueindex(1));
  struct pry_slice pattern = check_slice(L, lua_upvalueindex(2));
  lua_Integer from = lua_tointeger(L, lua_upvalueindex(3));
  lua_Integer last = lua_tointeger(L, lua_upvalueindex(4));
  struct pry_match match;

  pry_match_init(&match, L, text, pattern);
  for (; from <= (lua_Integer)text.size; from++) {
    const char *end = pry_match_at(&match, text.data + from, pattern.data);
    if (!end || end - text.data == last) /* an empty match right behind the last one does not count */
      continue;
    lua_pushinteger(L, end - text.data);
    lua_copy(L, -1, lua_upvalueindex(3));
    lua_replace(L, lua_upvalueindex(4));
    pry_match_settle(&match);
    return pry_match_push_captures(&match, text.data + from, end);
  }
  pry_match_settle(&match);
  return 0;
}

static int string_gmatch(lua_State *L)
{
  struct pry_slice text = check_slice(L, 1);
  check_slice(L, 2);
  size_t from = start_offset(luaL_optinteger(L, 3, 1), text.size);

  lua_settop(L, 2);
  lua_pushinteger(L, (lua_Integer)(from > text.size ? text.size + 1 : from));
  lua_pushinteger(L, -1);
  lua_pushcclosure(L, next_match, 4);
  return 1;
}

/* ---- Replacing --------------------------------------------------------------------------------------------------- */

/* The replacement text with %0 to %9 and %% filled in. */
static void add_text(struct pry_match *match, luaL_Buffer *buffer, const char *start, const char *end)
{
  lua_State *L = match->L;
  struct pry_slice text = check_slice(L, 3);
  const char *stop = text.data + text.size;

  pry_script_charge_bytes(L, 8 * text.size);
  for (const char *p = text.data; p < stop;) {
    const char *percent = memchr(p, '%', (size_t)(stop - p));
    luaL_addlstring(buffer, p, (size_t)((percent ? percent : stop) - p));
    if (!percent)
      return;
    p = percent + 1;
    char kind = p < stop ? *p : '\0';
    if (kind == '%') {
      luaL_addchar(buffer, '%');
    } else if (kind == '0') {
      luaL_addlstring(buffer, start, (size_t)(end - start));
    } else if (kind >= '1' && kind <= '9') {
      pry_match_push_capture(match, kind - '1', start, end);
      luaL_tolstring(L, -1, NULL); /* a position capture is a number */
      lua_remove(L, -2);
      luaL_addvalue(buffer);
    } else {
      luaL_error(L, "invalid use of '%%' in replacement string");
    }
    p++;
  }
}

/* Adds what the match from start to end becomes; false: itself. */
static bool add_replacement(struct pry_match *match, luaL_Buffer *buffer, const char *start, const char *end)
{
  lua_State *L = match->L;

  switch (lua_type(L, 3)) {
  case LUA_TFUNCTION:
    lua_pushvalue(L, 3);
    lua_call(L, pry_match_push_captures(match, start, end), 1);
    break;
  case LUA_TTABLE:
    pry_match_push_capture(match, 0, start, end);
    lua_gettable(L, 3);
    break;
  default:
    add_text(match, buffer, start, end);
    return true;
  }
  if (!lua_toboolean(L, -1)) {
    lua_pop(L, 1);
    luaL_addlstring(buffer, start, (size_t)(end - start));
    return false;
  }
  if (!lua_isstring(L, -1))
    return luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
  luaL_addvalue(buffer);
  return true;
}

static int string_gsub(lua_State *L)
{
  struct pry_slice text = check_slice(L, 1);
  struct pry_slice pattern = check_slice(L, 2);
  int type = lua_type(L, 3);
  lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)text.size + 1);
  bool anchored = pattern.size > 0 && pattern.data[0] == '^';
  lua_Integer count = 0;
  bool changed = false;
  const char *at = text.data;
  const char *last = NULL;
  struct pry_match match;
  luaL_Buffer buffer;

  luaL_argexpected(L, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE, 3,
                   "string/function/table");
  pry_match_init(&match, L, text, pattern);
  luaL_buffinit(L, &buffer);
  while (count < most) {
    const char *end = pry_match_at(&match, at, pattern.data + anchored);
    if (end && end != last) {
      count++;
      if (add_replacement(&match, &buffer, at, end))
        changed = true;
      at = last = end;
    } else if (at < match.text_end) {
      luaL_addchar(&buffer, *at);
      at++;
    } else {
      break;
    }
    if (anchored)
      break;
  }
  pry_match_settle(&match);
  if (changed) {
    luaL_addlstring(&buffer, at, (size_t)(match.text_end - at));
    luaL_pushresult(&buffer);
  } else {
    lua_pushvalue(L, 1);
  }
  lua_pushinteger(L, count);
  return 2;
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

static const luaL_Reg ours[] = {
    {"byte", string_byte},         {"find", string_find},
    {"format", pry_string_format}, {"gmatch", string_gmatch},
    {"gsub", string_gsub},         {"lower", string_lower},
    {"match", string_match},       {"rep", string_rep},
    {"upper", string_upper},       {NULL, NULL},
};

static const char *const stock[] = {"char", "len", "reverse", "sub", NULL};

/* luaopen_string also gives all strings a metatable, with arithmetic; ours has nothing but the library. */
static void set_string_metatable(lua_State *L)
{
  lua_pushliteral(L, "");
  lua_createtable(L, 0, 1);
  lua_newtable(L);
  for (lua_pushnil(L); lua_next(L, -5);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -4);
  }
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  lua_pop(L, 1);
}

void pry_lib_string_open(lua_State *L)
{
  luaL_newlib(L, ours);
  lua_pushcfunction(L, luaopen_string);
  lua_call(L, 0, 1);
  for (const char *const *name = stock; *name; name++) {
    lua_getfield(L, -1, *name);
    lua_setfield(L, -3, *name);
  }
  lua_pop(L, 1);
  set_string_metatable(L);
}
