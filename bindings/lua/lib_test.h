/*
 * lib_test.h: `t`, as policy tests see it (test_host.h lists what it can do).
 *
 *   lib_test.c         t itself, and declaring
 *   lib_test_call.c    calls, the clock, events of a host
 *   lib_test_step.c    scripted answers
 *   lib_test_result.c  results of calls, requests and alerts as tables
 *   lib_test_host.c    functions of the host that the test plays
 *   lib_test_check.c   t:eq and its like
 *
 * All of it runs in the test's own state, inside the door; mistakes raise with the test's file and line.
 */
#ifndef PRY_LIB_TEST_H
#define PRY_LIB_TEST_H

#include "test_world.h"

#include <lauxlib.h>
#include <lua.h>

/* Pushes `t` for a world. Before the world is freed, NULL must be put where the result points: from then on every
 * method raises. */
struct pry_world **pry_test_push(lua_State *L, struct pry_world *world);

/* The world of argument 1; raises when the test is over or argument 1 is no `t`. */
struct pry_world *pry_test_world(lua_State *L);

/* Raises with the world's error. */
int pry_test_error(lua_State *L, const struct pry_world *world);

/* Scripts the steps in the list part of the table at `index` for URLs that contain `url_part`. `host`: they may be what a
 * host says about its attempts. */
void pry_test_push_steps(lua_State *L, struct pry_world *world, int index, const char *url_part, bool host);
int pry_test_otherwise(lua_State *L); /* t:otherwise */

/* Pushes a call's result table; it is filled when the call has ended. */
void pry_test_push_result(lua_State *L, struct pry_world_call *call);
/* Fills the tables of the calls that have ended since. Raises what a function of the test's host did. */
void pry_test_deliver(lua_State *L, struct pry_world *world);
/* The call whose result table is at `index`; raises when it is none. */
struct pry_world_call *pry_test_call_at(lua_State *L, struct pry_world *world, int index);

int pry_test_sent(lua_State *L);
int pry_test_requests(lua_State *L);
int pry_test_alerts(lua_State *L);
int pry_test_host(lua_State *L); /* t:host */

/* Methods of t, NULL-ended. */
extern const luaL_Reg pry_test_calling[];
extern const luaL_Reg pry_test_checks[];

/* What the tables are that tests get. Reading a field that such a table never has raises, and names the one that was
 * meant: a typing error must not pass for nil. */
enum pry_test_kind {
  PRY_TEST_RESULT,
  PRY_TEST_ATTEMPT,
  PRY_TEST_EVENT,
  PRY_TEST_REQUEST,
  PRY_TEST_ALERT,
  PRY_TEST_VERDICT
};
/* Makes the table on top one of that kind. */
void pry_test_name_fields(lua_State *L, enum pry_test_kind kind);

/* Raises `WHAT has no NOUN "wrong"`, with the nearest of `names` or all of them. */
int pry_test_no_such(lua_State *L, const char *what, const char *noun, const char *wrong, const char *const *names);

/* Raises when something could not be kept. */
void pry_test_need(lua_State *L, bool ok);
/* The text at `index`; `what` begins the error when it is none. Tables are made readable (freeze.h). */
const char *pry_test_name(lua_State *L, int index, const char *what);
void pry_test_table(lua_State *L, int index, const char *what);

/* Appends the value at `index` as the Lua expression that gives it. Raises for what has none (functions, userdata). */
void pry_test_append_lua(lua_State *L, int index, struct pry_buffer *out);

/* The JSON text of the value at `index`, in a buffer that is pushed. Raises when it has none. */
struct pry_buffer *pry_test_push_json(lua_State *L, int index);

#endif
