/*
 * module.h: what the files of the Lua module share. The module is for programs written in Lua; README.md says how it is
 * used. (bindings/lua is the other direction: policies inside the engine.)
 *
 * Where Lua may raise. libparry's frames are C and must not be jumped over: whatever it calls back goes through
 * lm_callback(), which runs it protected. In turn nothing here is between a callback and libparry that Lua owns.
 *
 * Stack of a function that lets libparry call back (run, dispatch, call, close): index 1 is the engine, index 2 the
 * first error that a callback raised, raised again when libparry has returned.
 *
 * What callbacks run is kept in the engine's user value, a table: under "log", "alert", "reloaded" from the options,
 * under a call's or decision's address what was given with it, under "functions" the host functions by name.
 */
#ifndef LM_MODULE_H
#define LM_MODULE_H

#include <lauxlib.h>
#include <lua.h>
#include <parry.h>
#include <stdbool.h>

#define LM_ENGINE "parry.engine"
#define LM_ERROR "parry.error"

enum { LM_AT_ENGINE = 1, LM_AT_ERROR = 2 };

struct lm_engine {
  parry *handle; /* NULL: closed */
  lua_State *L;  /* whose function drives the engine now; NULL: nobody */
  bool raised;   /* a callback raised; its error is at LM_AT_ERROR */
};

/* The engine at index 1; raises when it is closed. */
struct lm_engine *lm_engine(lua_State *L);

/* Runs `function` with the engine's user value at index 1 and lightuserdata `argument` at 2, protected. False: it
 * raised, which is kept for lm_leave(). From libparry's callbacks only. */
bool lm_callback(struct lm_engine *engine, lua_CFunction function, void *argument);

/* Around what may call back: lm_enter() wants the stack to hold only the function's arguments, engine first, and makes
 * room for the error at index 2. lm_leave() raises it. */
void lm_enter(lua_State *L, struct lm_engine *engine);
void lm_leave(lua_State *L, struct lm_engine *engine);

/* Pushes true, or nil and an error table for what the world did (no memory, too much open, ended by now), and returns
 * how many that is. Raises what the caller did wrong. */
int lm_result(lua_State *L, int error);
int lm_failed(lua_State *L, int error, const char *findings);

/* Fields of the table at index: NULL or 0 where there is none; raises on another type. The text belongs to the table. */
const char *lm_text(lua_State *L, int index, const char *name);
const char *lm_bytes(lua_State *L, int index, const char *name, size_t *size);
double lm_number(lua_State *L, int index, const char *name);
int lm_whole(lua_State *L, int index, const char *name, int max); /* raises below 0, above max, and for fractions */
bool lm_flag(lua_State *L, int index, const char *name);
/* Pushes the function, or raises; false: none, and nothing was pushed. */
bool lm_function(lua_State *L, int index, const char *name);

/* {name = value, ...} or {{name, value}, ...} under `name`; the array is pushed as a userdata. */
const struct parry_header *lm_headers(lua_State *L, int index, const char *name, size_t *count);
/* Sets `name` of the table on top: {["lower-case-name"] = value}; values of one name are joined with ", ". */
void lm_set_headers(lua_State *L, const struct parry_header *headers, size_t count);

/* The text that is an argument, NULL for none or nil; raises for one that C would see cut. */
const char *lm_argument(lua_State *L, int index);

/* The event in the table at index; what it points to stays on the stack. */
struct parry_event lm_event(lua_State *L, int index);

void lm_set_text(lua_State *L, const char *name, const char *value);
void lm_set_number(lua_State *L, const char *name, double value);
void lm_set_integer(lua_State *L, const char *name, lua_Integer value);
void lm_set_flag(lua_State *L, const char *name, bool value);

/* Methods of engines, by file. */
int lm_call(lua_State *L);
int lm_resume(lua_State *L);
int lm_cancel(lua_State *L);
int lm_attempt_done(lua_State *L);
int lm_decide(lua_State *L);
int lm_report(lua_State *L);
int lm_emit(lua_State *L);
int lm_register(lua_State *L);
int lm_reply(lua_State *L);

#endif
