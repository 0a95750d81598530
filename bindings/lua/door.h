/*
 * door.h: the one way from C into Lua.
 *
 * Every entry goes through pry_door_call() or pry_door_resume(). Both make a run (script.h) current, run protected,
 * bring the main thread's stack back to its height, check the watched upvalues (freeze.h), and say in one word how it
 * ended. Building arguments and reading results can run out of memory, so it happens inside, too: the C function that
 * pry_door_call() is given does all of it. Nothing here ever calls a metamethod of an error object.
 *
 * A fault is a text "file.lua:line: message". Error objects that are no strings are named by their type, at the
 * innermost Lua line. Control characters become spaces.
 *
 * Doors nest: a C function called from a run may open another one, which has its own budget.
 * Thread: the script's.
 */
#ifndef PRY_DOOR_H
#define PRY_DOOR_H

#include "script.h"

enum pry_door_result {
  PRY_DOOR_OK,
  PRY_DOOR_YIELDED,     /* pry_door_resume() only: waits for I/O */
  PRY_DOOR_OVER_BUDGET, /* instructions or wall clock; the run was killed */
  PRY_DOOR_NO_MEMORY,   /* the cap was met, even if the script caught the error */
  PRY_DOOR_ERROR        /* an error was raised, or a watched upvalue was changed */
};

/* Calls `function` with one argument, the light userdata `argument`; what it returns is dropped. It may do anything
 * with Lua except yield. On any result but OK, run->fault is set. */
enum pry_door_result pry_door_call(struct pry_script *script, lua_CFunction function, void *argument,
                                   struct pry_run *run);

/* Starts or goes on with a thread, as lua_resume(): for a start the function and `arguments` values are on its stack.
 * On OK and YIELDED, *results values are on top of its stack. On any other result the thread has been closed (its
 * pending C `__close` handles have run) and must not be used again. `first` says that the run begins here. */
enum pry_door_result pry_door_resume(struct pry_script *script, lua_State *thread, int arguments, int *results,
                                     struct pry_run *run, bool first);

/* For event records. YIELDED has no counterpart and gives PRY_RUN_OK. */
enum pry_run_result pry_door_run_result(enum pry_door_result result);

/* ---- For people who report errors themselves --------------------------------------------------------------- */

/* Writes "file.lua:line: " for the innermost Lua function at or above `level` on a thread's stack; "" when there is
 * none. Allocates nothing, raises nothing. Returns the line, or 0. */
int pry_door_where(lua_State *thread, int level, char *text, size_t size);

#endif
