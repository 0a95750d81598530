/*
 * writes.h: which upvalues a Lua function can change.
 *
 * Lua has no way to ask. The function is dumped and its instructions are looked at: an upvalue that no OP_SETUPVAL of the
 * function, or of a function made inside it, names keeps its value for ever. The bytes come from lua_dump() on a
 * function that was compiled here from text, and are only read; nothing is ever loaded from such bytes.
 *
 * The format is that of Lua 5.4. Anything else counts as writing everything, which is always a safe answer.
 */
#ifndef PRY_WRITES_H
#define PRY_WRITES_H

#include <lua.h>
#include <stdbool.h>

enum { PRY_UPVALUES_MAX = 256 };

/* For the Lua function at `index`: written[i] tells of upvalue i + 1. C functions write all of theirs, as far as anybody
 * can tell, except the constructors of verdicts: a policy that keeps `retry` in a local is not checked for it after each run. Inside the door: raises when memory is short. */
void pry_upvalue_writes(lua_State *L, int index, bool written[PRY_UPVALUES_MAX]);

#endif
