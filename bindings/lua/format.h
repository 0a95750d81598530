/*
 * format.h: string.format of the sandbox.
 *
 * Understands what stock Lua 5.4 understands, except %p (an address differs from run to run) and with
 * pry_sandbox_tostring() for %s. Width and precision have at most two digits, so one conversion writes at most a
 * few hundred bytes.
 */
#ifndef PRY_FORMAT_H
#define PRY_FORMAT_H

#include <lua.h>

/* The Lua function: (format, …) → text. */
int pry_string_format(lua_State *L);

#endif
