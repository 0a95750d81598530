/*
 * ask.h: answers the core's questions with Lua.
 *
 * Implements struct pry_state_ops (core/engine/policy.h) over one script: runs a handler behind the protected door in
 * a pooled coroutine, gives it views of what happened, takes its verdict, and writes the event record. What goes wrong
 * in Lua ends as PRY_ASK_FAULT with file and line; it is logged, counted and recorded here, and nowhere else.
 *
 * A run is one handler at work, from entry to its end, across its waits. Everything a host function needs to know is in
 * the run that called it; outside of one (while files are loaded, or in the body of a policy test) functions with
 * effects raise "… is not available while loading".
 *
 * Views (lib_call.c) are userdata that show C data to a script. They are made once per run slot and used again: a view
 * carries the serial of the run it was made for, and once that run has ended every use of it raises "this call has
 * ended" and reads nothing. After a fault the views of a slot are made anew, so that what a misbehaving script hid
 * away never comes to life again.
 *
 * Thread: the script's.
 */
#ifndef PRY_ASK_H
#define PRY_ASK_H

#include "engine.h"
#include "policy.h"

#include <lua.h>

struct pry_script;
struct pry_decider;
struct pry_task;

/* What a script can be shown. */
enum pry_view_kind {
  PRY_VIEW_CALL,
  PRY_VIEW_TARGET,
  PRY_VIEW_LEDGER,
  PRY_VIEW_VARS,
  PRY_VIEW_ERR,     /* of on_error, event.err, render */
  PRY_VIEW_ATTEMPT, /* the argument of on_outcome */
  PRY_VIEW_OUTCOME,
  PRY_VIEW_EVENT,
  PRY_VIEW_ANSWER, /* the argument of classify */
  PRY_VIEW_POOLED, /* kinds above: one userdata per run slot; below: made at each use */
  PRY_VIEW_ENTRY = PRY_VIEW_POOLED, /* ledger[i] */
  PRY_VIEW_ATTEMPT_ERR,             /* attempt.err */
  PRY_VIEW_KINDS
};

enum { PRY_RUN_HTTP_SECONDS = 10, PRY_RUN_LOG_LINES = 32 };

/* One handler at work. Slots are reused and freed with the script, never before, so that a stale view can always look
 * at the serial. */
struct pry_decision {
  struct pry_decider *decider;
  struct pry_decision *next; /* free list */
  uint64_t serial;      /* changes when a run ends */
  bool active;
  struct pry_ask *ask;  /* NULL for classify and render */
  struct pry_task *task;
  struct pry_event_record *record; /* found anew at each entry; NULL: overwritten, or not recorded */
  double now;              /* what now() says: frozen at each entry */
  bool resumed;
  uint64_t random_state;
  pry_time http_left;      /* waiting for HTTP that this handler may still do */
  unsigned log_lines;
  char prefix[64];         /* name of the instance; of store, queue and alert keys */
  int views[PRY_VIEW_POOLED]; /* registry references, LUA_NOREF until used */
  /* what classify and render show */
  const struct pry_answer_view *answer;
  const struct pry_failure *failure;
  const char *call_id;
};

extern const struct pry_state_ops pry_script_state_ops;

/* Makes what ask needs of a script whose set has been declared; behind the door's back, so call it inside the set-up
 * function of the script. Raises when memory is short. Freed by pry_decider_free() after the Lua state was closed. */
void pry_decider_open(lua_State *L, struct pry_script *script);
void pry_decider_free(struct pry_decider *decider); /* NULL is fine */

/* ---- for host functions ---------------------------------------------------------------------------------- */

/* The run that is calling, or NULL outside of one. */
struct pry_decision *pry_decision_of(lua_State *L);

/* The same for functions that need the handler of a call, a job or a renewal: raises "NAME is not available while
 * loading" or "NAME is not available in classify and render". */
struct pry_decision *pry_decision_check(lua_State *L, const char *name);

struct pry_engine *pry_decision_engine(const struct pry_decision *run);
const struct pry_config *pry_decision_config(const struct pry_decision *run);

/* ---- reads of the event record -------------------------------------------------------------------------- */

/* A read is built in three steps: begin (writes the function's name), values, end. When the record's room is used up
 * the whole read is dropped and the record marked as cut. Texts are scrubbed of live secrets. All do nothing when the
 * run is not recorded. */
struct pry_read {
  struct pry_decision *run; /* NULL: not recorded */
  size_t mark;
  bool failed;
};

struct pry_read pry_read_begin(struct pry_decision *run, const char *function);
void pry_read_text(struct pry_read *read, struct pry_slice text);
void pry_read_number(struct pry_read *read, double number);
void pry_read_boolean(struct pry_read *read, bool value);
void pry_read_null(struct pry_read *read);
void pry_read_json(struct pry_read *read, struct pry_slice json); /* a whole value, known to be valid */
void pry_read_end(struct pry_read *read);

#endif
