/*
 * sandbox.h: what policy files find around them.
 *
 * Only what is listed here exists (DESIGN §6, CONTRACT "Budgets"); all of it is deterministic, bounded, and charged to
 * the run's instructions where its work grows with its arguments.
 *
 *   base    assert error getmetatable ipairs pairs pcall rawequal rawget rawlen require select setmetatable tonumber
 *           tostring type _VERSION
 *   string  byte char find format gmatch gsub len lower match rep reverse sub upper   (ASCII letter case)
 *   table   concat insert move pack remove sort unpack
 *   math    all of Lua's but random and randomseed
 *   utf8    all of Lua's
 *
 * Differences from stock Lua, on purpose:
 *   pairs         walks a snapshot of the keys: numbers ascending, strings bytewise, false, true; other keys raise.
 *                 A key that is removed meanwhile is skipped.
 *   pcall         does not catch running out of memory or over the budget.
 *   tostring      shows no address: a table is "table", a function "function"; `__tostring` is used.
 *   setmetatable  installs a sealed copy: later changes of the original's metamethods have no effect. `__gc`,
 *                 `__close` and `__mode` are refused; metamethods other than `__index`, `__newindex`, `__name` and
 *                 `__metatable` must be functions.
 *   getmetatable  gives the original; nil for a string.
 *   table.sort    is stable, and takes any comparison function without an error.
 *   strings       are not converted to numbers by arithmetic.
 *   functions that give several values (unpack, byte, codepoint) give at most PRY_SANDBOX_VALUES.
 *   globals       cannot be set; each file has its own view of them.
 *
 * Compile through pry_sandbox_load() and pry_sandbox_load_file(): text only, its own environment.
 *
 * All functions here run inside the door and may raise.
 */
#ifndef PRY_SANDBOX_H
#define PRY_SANDBOX_H

#include "freeze.h"
#include "script.h"

enum { PRY_SANDBOX_VALUES = 4096 };

/* Opens all of the above in a fresh state; pry_script_new() calls it. */
void pry_sandbox_open(lua_State *L);

/* Pops a value and makes it the global `name` of every environment made by pry_sandbox_load(), past and future. Tables
 * are frozen. */
void pry_sandbox_set_global(lua_State *L, const char *name);

/* Pushes the global of that name, or nil. */
void pry_sandbox_get_global(lua_State *L, const char *name);

/* Appends `; did you mean "retry"?` to a message of Lua's about a global that does not exist, "… (global 'retrry')", when
 * the file that runs on `thread` sees one with a name like that. Allocates nothing; for the door, while the failed
 * function still stands. */
void pry_sandbox_suggest(lua_State *thread, char *message, size_t size);

/* Compiles a file's text and pushes the function. `path` relative to the policies folder ("retry.lua",
 * "lib/backoff.lua") names it in messages. `extras`: index of a table of additional globals that only this file
 * sees (init.lua's declarations), or 0. A syntax error raises its message, "retry.lua:3: … near …". */
void pry_sandbox_load(lua_State *L, const char *path, struct pry_slice text, int extras);

/* The same for a file of a set. What this process has compiled of that very text before is taken instead of compiling it
 * again; with script->keep_compiled it is kept. */
void pry_sandbox_load_file(lua_State *L, const struct pry_policy_file *file, int extras);

/* Loading has ended: from now on the upvalues of all modules are watched (freeze.h) in runs that call `require`. A
 * handler reaches those that its file has taken at its top through its own watch; through `require` it reaches all. */
void pry_sandbox_watch_modules(lua_State *L);

/* Pushes the value's text, as `tostring` gives it, and returns it; `size` may be NULL. Calls `__tostring`. */
const char *pry_sandbox_tostring(lua_State *L, int index, size_t *size);

/* Pushes a table of the keys of the table (or frozen table) at `index`, 1..count, in the order `pairs` has; returns the
 * count. Raises for keys that are neither number, string nor boolean. */
lua_Integer pry_sandbox_keys(lua_State *L, int index);

/* The libraries; pry_sandbox_open() calls them. Each pushes a table of its functions. */
void pry_lib_base_open(lua_State *L);
void pry_lib_string_open(lua_State *L);
void pry_lib_table_open(lua_State *L);

#endif
