/*
 * ask.h: answers the core's questions with Lua.
 *
 * Implements struct pry_state_ops (core/engine/policy.h) over one script: runs a handler in a pooled coroutine, gives it
 * views of what happened, takes its verdict, and writes the event record. What goes wrong in Lua ends as PRY_ASK_FAULT
 * with file and line; it is logged, counted and recorded here, and nowhere else.
 *
 * A decision is one handler at work, from entry to its end, across its waits. Everything a host function needs to know
 * is in the decision that called it; outside of one (while files are loaded, in the body of a policy test) functions
 * with effects raise "… is not available while loading".
 *
 * Views (lib_call.c) are userdata that show C data to a script. They are made once per decision slot and used again: a
 * view carries the serial of the decision it was made for, and once that has ended every use of it raises "this call has
 * ended" and reads nothing. After a fault the views of a slot are made anew, so that what a misbehaving script hid
 * away never comes to life again.
 *
 * Thread: the script's.
 */
#ifndef PRY_ASK_H
#define PRY_ASK_H

#include "engine.h"
#include "script.h"
#include "task.h"

/* ---- for the loader ------------------------------------------------------------------------------------- */

/* Makes a declared script the state of a generation on a worker: sets script->state (a reference to the generation is
 * taken), script->host and script->closing. Call it outside the door, after pry_declare_set() on this script; the
 * generation's configuration has the same indices. From here on the script is freed through pry_state_unref() (never by
 * pry_script_free()). False: `fault` (PRY_FAULT_MAX bytes) says why and nothing was taken. */
bool pry_decider_attach(struct pry_script *script, struct pry_generation *generation, struct pry_worker *worker,
                        char *fault);

/* ---- one handler at work ---------------------------------------------------------------------------------- */

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
  PRY_VIEW_ANSWER,                  /* the argument of classify */
  PRY_VIEW_POOLED,                  /* kinds above: one userdata per slot; from here on: made at each use */
  PRY_VIEW_ENTRY = PRY_VIEW_POOLED, /* ledger[i] */
  PRY_VIEW_ATTEMPT_ERR,             /* attempt.err */
  PRY_VIEW_KINDS
};

enum { PRY_DECISION_HTTP_SECONDS = 10, PRY_DECISION_LOG_LINES = 32 };

struct pry_decider;

/* C memory that hangs on a userdata. An error that passes by leaves it to the collector, which does not see how much it
 * is; so what a decision leaves behind is released when it ends. */
struct pry_leftover {
  struct pry_list link;
  void (*release)(struct pry_leftover *leftover); /* safe to call twice */
};

/* Slots are used again and freed with the script, never before, so that a stale view can always look at the serial. */
struct pry_decision {
  struct pry_decider *decider;
  struct pry_decision *next_free, *next; /* of all slots */
  uint64_t serial;                       /* changes when a decision ends */
  bool active;
  struct pry_ask *ask;             /* NULL for classify and render */
  struct pry_task *task;           /* while waiting */
  struct pry_event_record *record; /* found anew at each entry; NULL: overwritten, or not recorded */
  const char *name;                /* of the instance or credential: prefix of store, queue and alert keys */
  double now;                      /* what now() says: frozen at each entry, Unix seconds */
  bool resumed;                    /* now() is a read of its own */
  uint64_t random;                 /* state of random() */
  pry_time http_left;              /* waiting for HTTP that this handler may still do */
  unsigned log_lines;
  struct pry_list leftovers;
  struct pry_message waking;  /* in a decider: posted to its mailbox when what is waited for is complete */
  struct pry_ticket due;      /* of that */
  uint64_t waits;             /* the script's count of waits when this decision was taken */
  bool stale_views;           /* make new ones */
  bool looked_out;            /* at the clock, or into the log: what came of it may not come of it again */
  bool bad_verdict;           /* what the handler returned cannot be taken */
  int views[PRY_VIEW_POOLED]; /* registry references, LUA_NOREF until used */
  /* what classify and render show */
  const struct pry_answer_view *answer;
  const struct pry_failure *failure;
  const char *call_id;
  struct pry_translation *translation; /* while one runs */
};

/* ---- for host functions ---------------------------------------------------------------------------------- */

/* The decision that is calling, or NULL outside of one. */
struct pry_decision *pry_decision_of(lua_State *L);

/* The same for functions that act for a call, a job or a renewal: raises "NAME is not available while loading" or
 * "NAME is not available in classify and render". */
struct pry_decision *pry_decision_check(lua_State *L, const char *name);

/* Puts it on the calling decision's list, if there is one. `release` takes it off (pry_list_remove). */
void pry_decision_leftover(lua_State *L, struct pry_leftover *leftover, void (*release)(struct pry_leftover *leftover));

struct pry_script *pry_decision_script(const struct pry_decision *decision);
struct pry_worker *pry_decision_worker(const struct pry_decision *decision);
struct pry_engine *pry_decision_engine(const struct pry_decision *decision);
const struct pry_config *pry_decision_config(const struct pry_decision *decision);

/* The I/O of a waiting decision is complete: enters it again. Outside Lua, as the caller's last act: the operation, the
 * decision and the state may be gone afterwards. False: the ticket is stale and nothing happened. In a decider it is entered by
 * whoever is inside next, later, and the answer is true; on any thread, while the decision waits or is about to. */
bool pry_decision_wake(struct pry_decision *decision, struct pry_ticket ticket);

/* Starts what a wait waits for, on the thread that may use the loop and the client of pry_decision_worker(): a worker's own,
 * so `beginning->deliver` is called at once; from a decider it is the control worker's, so it is called there, after the
 * handler has begun to wait and the decider was left. To be called last before pry_task_wait(), and never raises. What
 * `deliver` cannot start it tells by ending the wait from a timer of 0, or, in a decider (worker->decides), right away with
 * pry_decision_wake().
 *
 * From then on the operation is the loop's until it says so with pry_decision_wake(), which must be its last act: stop
 * timers, exchanges and token waiters before it. Token waiters get pry_decision_mailbox(). `release` of an operation calls
 * pry_decision_forget() first; safe to call twice, and for a message that is all zero. */
void pry_decision_begin(struct pry_decision *decision, struct pry_message *beginning);
void pry_decision_forget(struct pry_decision *decision, struct pry_message *beginning);

/* The mailbox whose messages come on that thread. */
struct pry_mailbox *pry_decision_mailbox(const struct pry_decision *decision);

/* An empty buffer of PRY_STORE_VALUE_MAX bytes for one host function, until it returns or raises; nothing else of Lua may
 * run meanwhile. It keeps its memory for the next one, so it costs nothing. */
struct pry_buffer *pry_decision_scratch(const struct pry_decision *decision);

/* ---- reads of the event record -------------------------------------------------------------------------- */

/* One result of a host function: begin (with the function's name), arguments and results, end. Nothing is recorded before
 * the end, so an error may pass by. Texts are scrubbed of live secrets. Everything does nothing when the decision is
 * not recorded, or its record is full. */
struct pry_read {
  struct pry_event_record *record; /* NULL: not recorded */
  struct pry_scrubber *scrubber;
};

/* function: lives for ever. */
struct pry_read pry_read_begin(struct pry_decision *decision, const char *function);
void pry_read_text(struct pry_read *read, struct pry_slice value);
void pry_read_number(struct pry_read *read, double number);
void pry_read_boolean(struct pry_read *read, bool value);
void pry_read_null(struct pry_read *read);
void pry_read_json(struct pry_read *read, struct pry_slice json); /* a whole value, known to be valid */
void pry_read_end(struct pry_read *read);

#endif
