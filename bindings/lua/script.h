/*
 * script.h: one Lua state, its limits, and what a run in it may cost.
 *
 * A script is one lua_State with a capped allocator, a count hook that is armed before anything else happens and never
 * removed, and the sandbox's globals (sandbox.h). Lua runs in it only through the door (door.h). Nothing that a
 * policy file does can stop the process or hold the worker for much longer than its budget:
 *
 *   instructions  the deterministic measure. The hook adds 1000 for each 1000 virtual machine instructions; C functions
 *                 whose work grows with their arguments add what they do with pry_script_charge(); long strings
 *                 cost one per 64 bytes. What a run has used does not depend on the clock, except for the rest
 *                 of its last tick (less than 1000) once a tick was slow.
 *   wall clock    catches what instructions do not see (huge argument lists, comparing huge strings). Read by the hook,
 *                 more often than each 1000 instructions once a long string was made or a tick was slow.
 *   memory        a cap per state, in the allocator; a single string may have a sixteenth of it.
 *
 * A run that is over its budget is killed: by a yield where that is possible, which no pcall can see, else by an
 * out-of-memory error, which our pcall passes on. A run that met a real out-of-memory error is killed in the same
 * way: nothing that ran out of memory ends well. Lua 5.4.4 cannot resume a thread that yielded in a hook, so a killed
 * thread is closed and thrown away.
 *
 * Thread: a script belongs to one thread at a time; it holds no lock.
 */
#ifndef PRY_SCRIPT_H
#define PRY_SCRIPT_H

#include "policy.h"
#include "registry.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>

/* They raise. lauxlib.h does not say so, and a reader of the code behind them should not have to wonder. */
int luaL_error(lua_State *L, const char *format, ...) __attribute__((noreturn));
int luaL_argerror(lua_State *L, int argument, const char *message) __attribute__((noreturn));
int luaL_typeerror(lua_State *L, int argument, const char *type) __attribute__((noreturn));
int lua_error(lua_State *L) __attribute__((noreturn));

enum { PRY_SCRIPT_TICK = 1000, PRY_SCRIPT_BYTES_PER_INSTRUCTION = 64, PRY_FAULT_MAX = 256 };

/* One run: its budget, its cost, and how it failed. Lives with its owner until the run has ended; a run that waits
 * keeps its costs over the waits. */
struct pry_run {
  unsigned long budget; /* instructions */
  double wall;          /* seconds of running, waits not counted; negative: no limit */
  int watch;            /* of freeze.h: upvalues that must not change; LUA_NOREF: none */
  bool required;        /* it called `require`: those of the modules must not change, either */
  /* out */
  unsigned long used;        /* instructions; at most a tick or one long string above the budget */
  double seconds;            /* of running, up to the last wait or to the kill; 0 when there is no wall limit */
  char fault[PRY_FAULT_MAX]; /* "retry.lua:12: message"; "" when all is well */
  /* the script's own */
  struct pry_run *previous;
  lua_State *thread; /* that runs, or ran last */
  unsigned period;   /* instructions between two calls of the hook */
  unsigned refusals; /* by the allocator */
  size_t charged;    /* instructions of C functions since the last look at the clock */
  bool killed, no_memory;
  uint64_t started, ticked; /* nanoseconds: when it was entered, the last look at the clock */
};

struct pry_task;

struct pry_script {
  struct pry_state state;          /* first: a struct pry_state points at the whole */
  lua_State *L;                    /* main thread; only door.c runs anything on it */
  struct pry_script_limits limits; /* with defaults filled in */
  size_t memory;                   /* bytes in use */
  size_t memory_peak;
  size_t collect_above; /* bytes in use that make the door collect in full after a run */
  bool wants_rebuild;
  unsigned faults;     /* runs that ended badly, for status */
  struct pry_run *run; /* the innermost, or NULL outside the door */
  /* Coroutines (task.h). */
  struct pry_task **tasks; /* by number; they live as long as the script */
  size_t task_count, task_capacity;
  struct pry_task *task; /* that runs now, or NULL */
  struct pry_list idle;
  uint64_t waits; /* sequence of the last wait */
  /* Where `require` finds a file of the set, valid as long as the script; NULL: there is none. Without `find` nothing can
   * be required. Set by the owner before files are loaded. */
  const struct pry_policy_file *(*find)(void *user, const char *path);
  void *find_user;
  bool keep_compiled;   /* the set is being staged: what is compiled stays with its files */
  int modules_watch;    /* of freeze.h: the upvalues of all that was required; LUA_NOREF: none */
  bool modules_watched; /* loading has ended */
  /* What the owner keeps with the state; `closing` is called once by pry_script_free(), before the Lua state is closed
   * and after all waits were cancelled. Either may be NULL. */
  void *host;
  void (*closing)(struct pry_script *script);
};

/* A state with the sandbox's globals and nothing else. limits: NULL or 0 fields take the defaults. `state.references`
 * is 1, the rest of `state` is zero and for the owner to fill. NULL: no memory, or the limit is too small for an
 * empty state (about 64 KiB); `fault`, of PRY_FAULT_MAX bytes, says so (may be NULL). */
struct pry_script *pry_script_new(const struct pry_script_limits *limits, char *fault);

/* Cancels what waits (its C `__close` handles run), closes the state and frees it. NULL is fine. Never from inside the
 * door. */
void pry_script_free(struct pry_script *script);

/* The script of any of its threads. */
struct pry_script *pry_script_of(lua_State *L);

/* Bytes of Lua memory in use. */
size_t pry_script_memory(const struct pry_script *script);

/* Bytes that could still be allocated before the cap. */
size_t pry_script_memory_left(const struct pry_script *script);

/* The longest string that Lua can make. */
size_t pry_script_string_max(const struct pry_script *script);

/* True once the heap was above half its cap after a full collection: the worker makes a new state and retires this one.
 * It stays usable meanwhile. */
bool pry_script_wants_rebuild(const struct pry_script *script);

/* A little incremental garbage collection; for the worker's idle moments. Never from inside the door. */
void pry_script_collect(struct pry_script *script);

/* A run with the script's own limits times `factor` (1 for a handler; loading and tests take more). */
void pry_run_init(struct pry_run *run, const struct pry_script *script, unsigned factor);

/* ---- For C functions that Lua calls --------------------------------------------------------------------- */

/* Adds `instructions` to what the running handler has used. To be called before the work is done: when the budget
 * does not cover it, the run is killed and this does not return (it leaves by longjmp: hold nothing then that Lua
 * does not know of). Outside the door it does nothing. */
void pry_script_charge(lua_State *L, size_t instructions);

/* The same for the work of touching `bytes` bytes. */
void pry_script_charge_bytes(lua_State *L, size_t bytes);

/* Has the innermost run been killed, or has it met an out-of-memory error? Then a C function that caught an error with
 * lua_pcall() passes it on with lua_error() instead of handling it. */
bool pry_script_doomed(lua_State *L);

/* ---- For door.c and lib_base.c ---------------------------------------------------------------------------- */

/* Makes a run the innermost, on that thread; `first` starts its hook anew. */
void pry_script_enter(struct pry_script *script, struct pry_run *run, lua_State *thread, bool first);

/* Ends what enter began: takes the time, gives the hook back to the outer run, collects garbage if the heap is
 * large. */
void pry_script_leave(struct pry_script *script, struct pry_run *run);

/* Notes an out-of-memory error that somebody caught: the run will end as PRY_DOOR_NO_MEMORY, unless that error was
 * how it was killed. */
void pry_script_poison(lua_State *L);

/* Ends the running handler. Does not return, except inside a hook that yields. */
void pry_script_kill(lua_State *L);

/* lua_resetthread of Lua 5.4.0–5.4.5, lua_closethread from 5.4.6. Runs pending C `__close` handles. */
int pry_script_close_thread(struct pry_script *script, lua_State *thread);

#endif
