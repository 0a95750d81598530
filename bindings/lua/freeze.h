/*
 * freeze.h: what was loaded stays as it was loaded.
 *
 * After a policy file has run, everything its handlers can reach is made read-only, because state kept in a Lua state
 * would differ between workers and vanish at a reload.
 *
 * A frozen table keeps its identity. Its contents move into a table that only C can reach; the table itself is empty
 * and its metatable answers reads from there and raises on writes. Lua code sees no difference when it reads: indexing,
 * `#`, ipairs, pairs, rawget, rawlen, table.concat, table.unpack all work. C code: lua_getfield() and lua_geti() work;
 * lua_next(), lua_rawget() and lua_rawlen() need pry_freeze_contents() first.
 *
 * Upvalues cannot be made read-only, so those that some function can write (writes.h) are watched: a list of (upvalue,
 * value) is taken once, and the door compares it after every run. A changed upvalue is set back and the run is a fault.
 *
 * All functions here run inside the door and may raise, except pry_freeze_restore().
 */
#ifndef PRY_FREEZE_H
#define PRY_FREEZE_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

/* Freezes every table that can be reached from the value at `index` through tables, metatables and the upvalues of
 * Lua functions. Frozen tables are left as they are; userdata are not entered. */
void pry_freeze(lua_State *L, int index);

/* Is the value at `index` a frozen table? */
bool pry_freeze_is_frozen(lua_State *L, int index);

/* Pushes what lua_next(), lua_rawget() and lua_rawlen() can work on: the contents of a frozen table, else the table at
 * `index` itself. Read it, do not change it, do not hand it to Lua. */
void pry_freeze_contents(lua_State *L, int index);

/* Lists the upvalues that the value at `index` (a function, or a table of functions) can reach and change; for struct
 * pry_run.watch. The value must have been frozen. LUA_NOREF when there are none. The list lives until
 * luaL_unref(L, LUA_REGISTRYINDEX, watch), or as long as the state. */
int pry_freeze_watch(lua_State *L, int index);

/* Sets changed upvalues back. False when there was one; then `fault` says which: "retry.lua:10: …". Raises nothing,
 * allocates nothing; needs room for 6 values on the stack of L. */
bool pry_freeze_restore(lua_State *L, int watch, char *fault, size_t size);

/* ---- For lib_base.c and sandbox.c: hidden fields of metatables --------------------------------------------- */

/* Pops a value and keeps it in the metatable below it as what `getmetatable` shows. */
void pry_freeze_set_original(lua_State *L);

/* Pushes that value of the metatable on top; false when there is none (nil was pushed). */
bool pry_freeze_get_original(lua_State *L);

/* Pops a table and makes it the contents of the tables with the metatable below it: they count as frozen. */
void pry_freeze_set_contents(lua_State *L);

#endif
