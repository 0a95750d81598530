/*
 * task.h: handlers in coroutines, and waiting in them.
 *
 * Each handler runs in a coroutine from a pool, so that a host function can wait for I/O in it and so that a run that
 * is over its budget can be killed by a yield. A coroutine that ended well goes back to the pool; one that failed,
 * was killed or was cancelled is closed and thrown away.
 *
 *   FREE → RUNNING → (WAITING → RUNNING)* → FREE
 *
 * A wait is named by a ticket: (coroutine, generation, sequence). The generation counts the uses of the coroutine, the
 * sequence counts waits. Whoever completes the I/O gives the ticket back; a ticket that does not fit what the
 * coroutine is doing now is refused, so a late completion never wakes somebody else's handler.
 *
 * A host function that waits:
 *
 *   static int request(lua_State *L)
 *   {
 *     struct pry_ticket ticket = pry_task_ticket(L, "http.request");  // raises where waiting is impossible
 *     struct operation *operation = …;                                 // check arguments first, then allocate
 *     operation->ticket = ticket;
 *     if (!start(operation)) { free(operation); return fail(L); }      // nil, err: nothing waits
 *     return pry_task_wait(L, &request_wait, operation);               // does not come back here
 *   }
 *
 * and when the answer is there: pry_task_wake(script, operation->ticket), which runs request_wait.finish() in the
 * coroutine.
 *
 * Thread: the script's.
 */
#ifndef PRY_TASK_H
#define PRY_TASK_H

#include "door.h"

enum pry_task_state { PRY_TASK_FREE, PRY_TASK_RUNNING, PRY_TASK_WAITING };

struct pry_ticket {
  uint32_t coroutine;  /* number of the task in its script */
  uint32_t generation; /* of that coroutine's uses */
  uint64_t sequence;   /* of the wait; never 0 */
};

/* A kind of wait; static data of the host function. */
struct pry_wait {
  const char *name; /* "http.request" */
  /* The wait ended well: pushes the host function's results, releases the operation, returns their number. Runs in
   * the coroutine, within the budget: it may raise, and must then have given the operation to Lua or released it. */
  int (*finish)(lua_State *L, void *operation);
  /* Nobody waits any more: stops the I/O and releases the operation. Not in Lua; calls nothing back. */
  void (*cancel)(void *operation);
};

struct pry_task;

/* What to run. `push` and `take` run inside the coroutine, protected and within the budget. */
struct pry_task_call {
  /* Pushes the function and then its arguments; returns the number of arguments. May raise. */
  int (*push)(lua_State *L, void *user);
  /* Reads the results: values 1..count of the stack. May raise: that is a fault of the handler. May be NULL. */
  void (*take)(lua_State *L, int count, void *user);
  /* After pry_task_start() gave YIELDED: the end, exactly once, unless cancelled. run->fault and run->used are valid
   * during the call; the task is gone. Not in Lua. */
  void (*ended)(struct pry_script *script, enum pry_door_result result, const struct pry_run *run, void *user);
  void *user;
  int watch;            /* as in struct pry_run; LUA_NOREF: none */
  unsigned long budget; /* instructions; 0: the script's limit */
  double wall;          /* seconds; 0: the script's limit; negative: none */
};

/* Runs a call in a coroutine. YIELDED: it waits, *task names it until `ended`. Any other result: it has ended, `ended`
 * is not called, and *run (may be NULL) has its cost and fault. A pool that has no memory for a coroutine gives
 * NO_MEMORY. */
enum pry_door_result pry_task_start(struct pry_script *script, const struct pry_task_call *call, struct pry_run *run,
                                    struct pry_task **task);

/* Ends a waiting task without `ended`: cancels the operation, closes the coroutine (its C `__close` handles run). */
void pry_task_cancel(struct pry_task *task);

/* Cancels every waiting task of a script. */
void pry_task_cancel_all(struct pry_script *script);

/* Frees the pool; pry_script_free() calls it. */
void pry_task_free_all(struct pry_script *script);

/* ---- For host functions ------------------------------------------------------------------------------------- */

/* The ticket of the wait that is about to begin. Raises "NAME cannot wait here (…)" outside a task and in
 * callbacks of C functions (table.sort, string.gsub), where Lua cannot yield. */
struct pry_ticket pry_task_ticket(lua_State *L, const char *name);

/* As the last thing a host function does: `return pry_task_wait(L, …)`. The task owns the operation from here on. If
 * pry_task_wake() came before it, it does not wait at all. */
int pry_task_wait(lua_State *L, const struct pry_wait *wait, void *operation);

/* The I/O of a wait is complete: goes on with the handler, which may end or wait again. False: the ticket is stale and
 * nothing happened; the caller releases what it holds. Not from inside Lua, except for the task that is about to
 * wait. */
bool pry_task_wake(struct pry_script *script, struct pry_ticket ticket);

/* What the running task was started with (call.user), or NULL outside a task. */
void *pry_task_user(lua_State *L);

/* Waiting tasks of a script; for status and drain. */
size_t pry_task_waiting(const struct pry_script *script);

#endif
