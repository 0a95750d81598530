#include "freeze.h"

#include "door.h"
#include "writes.h"

#include <stdio.h>

/* Keys of light userdata in metatables: no script can name them. */
static const char contents_key, original_key;

enum { VALUES_PER_CELL = 3 };

void pry_freeze_set_original(lua_State *L)
{
  lua_rawsetp(L, -2, &original_key);
}

bool pry_freeze_get_original(lua_State *L)
{
  return lua_rawgetp(L, -1, &original_key) != LUA_TNIL;
}

void pry_freeze_set_contents(lua_State *L)
{
  lua_rawsetp(L, -2, &contents_key);
}

/* ---- Reading frozen tables ------------------------------------------------------------------------------------ */

/* Pushes the contents of a frozen table; pushes nothing when it is not one. */
static bool push_contents(lua_State *L, int index)
{
  if (lua_type(L, index) != LUA_TTABLE || !lua_getmetatable(L, index))
    return false;
  if (lua_rawgetp(L, -1, &contents_key) != LUA_TTABLE) {
    lua_pop(L, 2);
    return false;
  }
  lua_remove(L, -2);
  return true;
}

bool pry_freeze_is_frozen(lua_State *L, int index)
{
  if (!push_contents(L, index))
    return false;
  lua_pop(L, 1);
  return true;
}

void pry_freeze_contents(lua_State *L, int index)
{
  index = lua_absindex(L, index);
  if (!push_contents(L, index))
    lua_pushvalue(L, index);
}

static int refuse_write(lua_State *L)
{
  if (lua_type(L, 2) == LUA_TSTRING)
    return luaL_error(L, "cannot set '%s': this table is read-only after load; state belongs in store or call.vars",
                      lua_tostring(L, 2));
  return luaL_error(L, "this table is read-only after load; state belongs in store or call.vars");
}

static int frozen_length(lua_State *L)
{
  pry_freeze_contents(L, 1);
  lua_pushinteger(L, (lua_Integer)lua_rawlen(L, -1));
  return 1;
}

/* For tables whose own `__index` is a function: it must see the table, not the contents. */
static int frozen_index(lua_State *L)
{
  lua_settop(L, 2);
  pry_freeze_contents(L, 1);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, -2) != LUA_TNIL)
    return 1;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_call(L, 2, 1);
  return 1;
}

/* ---- Freezing ------------------------------------------------------------------------------------------------- */

/* The walk: a stack of values still to visit, and a set of the functions that were visited. */
struct walk {
  lua_State *L;
  int pending, visited; /* stack indices */
  lua_Integer count;
};

static bool is_walkable(int type)
{
  return type == LUA_TTABLE || type == LUA_TFUNCTION;
}

/* Pops a value and remembers it if it can hold others. */
static void push_pending(struct walk *walk)
{
  if (is_walkable(lua_type(walk->L, -1)))
    lua_rawseti(walk->L, walk->pending, ++walk->count);
  else
    lua_pop(walk->L, 1);
}

static bool pop_pending(struct walk *walk)
{
  if (walk->count == 0)
    return false;
  lua_rawgeti(walk->L, walk->pending, walk->count);
  lua_pushnil(walk->L);
  lua_rawseti(walk->L, walk->pending, walk->count--);
  return true;
}

static void start_walk(struct walk *walk, lua_State *L, int index)
{
  index = lua_absindex(L, index);
  luaL_checkstack(L, 16, NULL);
  *walk = (struct walk){.L = L};
  lua_newtable(L);
  walk->pending = lua_gettop(L);
  lua_newtable(L);
  walk->visited = lua_gettop(L);
  lua_pushvalue(L, index);
  push_pending(walk);
}

/* Has the value on top been here before? Marks it. */
static bool visit(struct walk *walk)
{
  lua_State *L = walk->L;

  lua_pushvalue(L, -1);
  bool seen = lua_rawget(L, walk->visited) != LUA_TNIL;
  lua_pop(L, 1);
  if (seen)
    return true;
  lua_pushvalue(L, -1);
  lua_pushboolean(L, true);
  lua_rawset(L, walk->visited);
  return false;
}

/* Every key and value of the table on top. */
static void push_entries(struct walk *walk)
{
  lua_State *L = walk->L;

  for (lua_pushnil(L); lua_next(L, -2);) {
    push_pending(walk);
    lua_pushvalue(L, -1);
    push_pending(walk);
  }
}

/* Moves what table `from` has into table `to`. Assigning nil during a traversal is allowed. */
static void move_entries(lua_State *L, int from, int to)
{
  for (lua_pushnil(L); lua_next(L, from);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, to);
    lua_pushvalue(L, -1);
    lua_pushnil(L);
    lua_rawset(L, from);
  }
}

static void copy_entries(lua_State *L, int from, int to)
{
  for (lua_pushnil(L); lua_next(L, from);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, to);
  }
}

/* `__index` of the frozen table: the contents, then what the table's own `__index` says. */
static void link_index(lua_State *L, int contents, int meta)
{
  int type = lua_getfield(L, meta, "__index");

  if (type == LUA_TFUNCTION) {
    lua_pushcclosure(L, frozen_index, 1);
    lua_setfield(L, meta, "__index");
    return;
  }
  if (type == LUA_TNIL) {
    lua_pop(L, 1);
  } else {
    lua_createtable(L, 0, 1);
    lua_insert(L, -2);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, contents);
  }
  lua_pushvalue(L, contents);
  lua_setfield(L, meta, "__index");
}

/* The table at `table` keeps its identity and its metamethods; its entries move behind a new metatable. */
static void freeze_table(struct walk *walk, int table)
{
  lua_State *L = walk->L;

  lua_newtable(L);
  int contents = lua_gettop(L);
  lua_newtable(L);
  int meta = lua_gettop(L);
  if (lua_getmetatable(L, table)) {
    push_entries(walk);
    copy_entries(L, lua_gettop(L), meta);
    lua_pop(L, 1);
  }
  move_entries(L, table, contents);
  link_index(L, contents, meta);
  lua_pushcfunction(L, refuse_write);
  lua_setfield(L, meta, "__newindex");
  if (lua_getfield(L, meta, "__len") == LUA_TNIL) {
    lua_pushcfunction(L, frozen_length);
    lua_setfield(L, meta, "__len");
  }
  lua_settop(L, meta);
  lua_pushvalue(L, contents);
  lua_rawsetp(L, meta, &contents_key);
  lua_pushvalue(L, contents);
  push_entries(walk);
  lua_pop(L, 1);
  lua_setmetatable(L, table);
  lua_settop(L, contents - 1);
}

/* C functions keep their values: those belong to whoever wrote them. */
static void push_upvalues(struct walk *walk, int function)
{
  lua_State *L = walk->L;

  if (lua_iscfunction(L, function) || visit(walk))
    return;
  for (int i = 1; lua_getupvalue(L, function, i); i++)
    push_pending(walk);
}

void pry_freeze(lua_State *L, int index)
{
  int height = lua_gettop(L);
  struct walk walk;

  start_walk(&walk, L, index);
  while (pop_pending(&walk)) {
    int value = lua_gettop(L);
    if (lua_isfunction(L, value))
      push_upvalues(&walk, value);
    else if (!pry_freeze_is_frozen(L, value))
      freeze_table(&walk, value);
    lua_settop(L, value - 1);
  }
  lua_settop(L, height);
}

/* ---- Watching upvalues ---------------------------------------------------------------------------------------- */

/* Appends (function, upvalue number, value) to the list and goes on with the value. C functions count: iterators keep
 * their place in an upvalue. Several functions may share one: the set `changeable` has those that one of them can write. */
static void watch_upvalues(struct walk *walk, int function, int list, lua_Integer *cells, int changeable)
{
  lua_State *L = walk->L;
  bool written[PRY_UPVALUES_MAX];

  pry_upvalue_writes(L, function, written);
  for (int i = 1; lua_getupvalue(L, function, i); i++) {
    if (written[i - 1]) {
      lua_pushboolean(L, true);
      lua_rawsetp(L, changeable, lua_upvalueid(L, function, i));
    }
    if (lua_rawgetp(L, walk->visited, lua_upvalueid(L, function, i)) == LUA_TNIL) {
      lua_pushboolean(L, true);
      lua_rawsetp(L, walk->visited, lua_upvalueid(L, function, i));
      lua_Integer at = VALUES_PER_CELL * (*cells)++;
      lua_pushvalue(L, function);
      lua_rawseti(L, list, at + 1);
      lua_pushinteger(L, i);
      lua_rawseti(L, list, at + 2);
      lua_pushvalue(L, -2);
      lua_rawseti(L, list, at + 3);
    }
    lua_settop(L, function + 1);
    push_pending(walk);
  }
}

static void push_contents_of(struct walk *walk, int table)
{
  lua_State *L = walk->L;

  pry_freeze_contents(L, table);
  push_entries(walk);
  if (lua_getmetatable(L, -1)) { /* what a frozen table inherits */
    push_entries(walk);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  if (!lua_getmetatable(L, table))
    return;
  for (lua_pushnil(L); lua_next(L, -2);) {
    if (!lua_isfunction(L, -1))
      lua_pop(L, 1);
    else
      push_pending(walk);
  }
  lua_pop(L, 1);
}

/* Pushes a list of those cells of `list` that can change, and says how many they are. Nobody else can write them: what
 * runs in a handler is among what was walked, or was made by it, and the functions around it ended with loading. */
static lua_Integer push_changeable(lua_State *L, int list, lua_Integer cells, int changeable)
{
  lua_Integer count = 0;

  lua_newtable(L);
  int kept = lua_gettop(L);
  for (lua_Integer i = 0; i < cells; i++) {
    lua_Integer at = VALUES_PER_CELL * i;
    lua_rawgeti(L, list, at + 1);
    lua_rawgeti(L, list, at + 2);
    if (lua_rawgetp(L, changeable, lua_upvalueid(L, kept + 1, (int)lua_tointeger(L, -1))) != LUA_TNIL) {
      lua_rawgeti(L, list, at + 3);
      lua_rawseti(L, kept, VALUES_PER_CELL * count + 3);
      lua_pop(L, 1);
      lua_rawseti(L, kept, VALUES_PER_CELL * count + 2);
      lua_rawseti(L, kept, VALUES_PER_CELL * count + 1);
      count++;
    }
    lua_settop(L, kept);
  }
  return count;
}

int pry_freeze_watch(lua_State *L, int index)
{
  int height = lua_gettop(L);
  struct walk walk;
  lua_Integer cells = 0;

  start_walk(&walk, L, index);
  lua_newtable(L);
  int list = lua_gettop(L);
  lua_newtable(L);
  int changeable = list + 1;
  while (pop_pending(&walk)) {
    int value = lua_gettop(L);
    if (!visit(&walk)) {
      if (lua_isfunction(L, value))
        watch_upvalues(&walk, value, list, &cells, changeable);
      else
        push_contents_of(&walk, value);
    }
    lua_settop(L, value - 1);
  }
  int reference = LUA_NOREF;
  cells = push_changeable(L, list, cells, changeable);
  if (cells > 0) {
    lua_pushinteger(L, cells);
    lua_rawseti(L, -2, 0);
    reference = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_settop(L, height);
  return reference;
}

static bool same_value(lua_State *L, int a, int b)
{
  if (lua_rawequal(L, a, b))
    return true;
  if (lua_type(L, a) != LUA_TNUMBER || lua_type(L, b) != LUA_TNUMBER)
    return false;
  lua_Number x = lua_tonumber(L, a);
  lua_Number y = lua_tonumber(L, b);
  return x != x && y != y; /* NaN stays NaN */
}

static void say_changed(lua_State *L, int function, const char *name, char *fault, size_t size)
{
  lua_Debug debug;

  if (lua_iscfunction(L, function)) {
    snprintf(fault, size,
             "the handler went on with an iterator of pairs or gmatch that outlives it; it was set back: make it in "
             "the handler");
    return;
  }
  lua_pushvalue(L, function);
  if (!lua_getinfo(L, ">S", &debug))
    return;
  snprintf(fault, size,
           "%s:%d: the handler changed the variable '%s', which outlives it; it was set back: state belongs in store "
           "or call.vars",
           debug.short_src, debug.linedefined, name);
}

/* Stack: list, function, then what it needs. */
static bool restore_cell(lua_State *L, int list, lua_Integer cell, char *fault, size_t size)
{
  lua_Integer at = VALUES_PER_CELL * cell;

  lua_rawgeti(L, list, at + 2);
  int number = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  lua_rawgeti(L, list, at + 1);
  int function = lua_gettop(L);
  const char *name = lua_getupvalue(L, function, number);
  lua_rawgeti(L, list, at + 3);
  bool same = same_value(L, function + 1, function + 2);
  if (!same) {
    if (!fault[0])
      say_changed(L, function, name, fault, size);
    lua_setupvalue(L, function, number);
  }
  lua_settop(L, function - 1);
  return same;
}

bool pry_freeze_restore(lua_State *L, int watch, char *fault, size_t size)
{
  bool same = true;

  fault[0] = '\0';
  lua_rawgeti(L, LUA_REGISTRYINDEX, watch);
  int list = lua_gettop(L);
  lua_rawgeti(L, list, 0);
  lua_Integer cells = lua_tointeger(L, -1);
  lua_pop(L, 1);
  for (lua_Integer i = 0; i < cells; i++)
    if (!restore_cell(L, list, i, fault, size))
      same = false;
  lua_settop(L, list - 1);
  return same;
}
