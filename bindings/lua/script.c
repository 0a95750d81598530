#include "script.h"

#include "door.h"
#include "sandbox.h"
#include "task.h"
#include "worker.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
  DEFAULT_INSTRUCTIONS = 1000000,
  DEFAULT_MEMORY = 8 * 1024 * 1024,
  DEFAULT_VERDICT = 64 * 1024,
  STRINGS_PER_HEAP = 16,
  CHARGED_STRING = 1024,   /* bytes; shorter ones are not worth counting */
  LONG_STRING = 32 * 1024, /* bytes; from here on one instruction with it can take a noticeable time */
  LONG_STRING_PERIOD = 100,
  REFUSALS_PER_RUN = 4, /* each of them made Lua collect the whole heap */
  LEAST_PERIOD = 10,
  CHARGES_PER_LOOK = 4096, /* instructions of C functions */
  MANY_ARGUMENTS = 256,
  SLOW_TICK = 2000000 /* nanoseconds */
};

#define DEFAULT_WALL 0.05

static uint64_t clock_now(void)
{
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

static bool is_new_string(const void *block, size_t old_size)
{
  return !block && old_size == LUA_TSTRING; /* for a new block Lua passes its type here */
}

/* Near the cap every allocation may cost a collection of the whole heap before it succeeds: after a few of them the
 * run gets nothing any more. */
static bool refuse(struct pry_script *script, size_t growth, size_t string_size)
{
  bool over = growth > script->limits.memory || script->memory > script->limits.memory - growth ||
              string_size > script->limits.memory / STRINGS_PER_HEAP;

  if (!script->run)
    return over;
  if (over)
    script->run->refusals++;
  return over || script->run->refusals > REFUSALS_PER_RUN;
}

static void count_hook(lua_State *L, lua_Debug *debug);

static void set_period(struct pry_run *run, unsigned period)
{
  run->period = period;
  lua_sethook(run->thread, count_hook, LUA_MASKCOUNT, (int)period);
}

/* The allocator cannot raise; the hook does, at the next instruction. Comparing a long string or reading it as a
 * number is one instruction, too: with one around, the clock is looked at more often. A period is never made longer
 * again, so the count that starts anew here cannot be put off for ever. */
static void charge_string(struct pry_run *run, size_t size)
{
  run->used += size / PRY_SCRIPT_BYTES_PER_INSTRUCTION;
  if (run->used > run->budget && run->period != 1)
    set_period(run, 1);
  else if (size >= LONG_STRING && run->period > LONG_STRING_PERIOD)
    set_period(run, LONG_STRING_PERIOD);
}

static void *allocate(void *user, void *block, size_t old_size, size_t size)
{
  struct pry_script *script = user;
  size_t held = block ? old_size : 0;
  bool string = is_new_string(block, old_size);

  if (size == 0) {
    free(block);
    script->memory -= held;
    return NULL;
  }
  if (size > held && refuse(script, size - held, string ? size : 0))
    return NULL;
  void *result = realloc(block, size);
  if (!result) {
    if (size > held)
      return NULL;
    result = block; /* Lua relies on shrinking to succeed */
  }
  script->memory += size - held;
  if (script->memory > script->memory_peak)
    script->memory_peak = script->memory;
  if (string && size >= CHARGED_STRING && script->run)
    charge_string(script->run, size);
  return result;
}

size_t pry_script_memory(const struct pry_script *script)
{
  return script->memory;
}

size_t pry_script_memory_left(const struct pry_script *script)
{
  return script->memory < script->limits.memory ? script->limits.memory - script->memory : 0;
}

size_t pry_script_string_max(const struct pry_script *script)
{
  return script->limits.memory / STRINGS_PER_HEAP - 64; /* the string's own header */
}

bool pry_script_wants_rebuild(const struct pry_script *script)
{
  return script->wants_rebuild;
}

void pry_script_collect(struct pry_script *script)
{
  lua_gc(script->L, LUA_GCSTEP, 0);
}

static void collect_large_heap(struct pry_script *script)
{
  if (script->memory <= script->collect_above)
    return;
  lua_gc(script->L, LUA_GCCOLLECT);
  if (script->memory > script->limits.memory / 2)
    script->wants_rebuild = true;
  size_t next = script->memory + script->limits.memory / 8;
  script->collect_above = next > script->limits.memory / 2 ? next : script->limits.memory / 2;
}

/* ---- Runs ------------------------------------------------------------------------------------------------ */

void pry_run_init(struct pry_run *run, const struct pry_script *script, unsigned factor)
{
  run->budget = script->limits.instructions * factor;
  run->wall = script->limits.wall * factor;
  run->watch = LUA_NOREF;
  run->required = run->killed = run->no_memory = false;
  run->used = 0;
  run->seconds = 0;
  run->fault[0] = '\0';
  run->previous = NULL;
  run->thread = NULL;
  run->period = run->refusals = 0;
  run->charged = 0;
  run->started = run->ticked = 0;
}

void pry_script_enter(struct pry_script *script, struct pry_run *run, lua_State *thread, bool first)
{
  run->previous = script->run;
  run->thread = thread;
  run->refusals = 0;
  script->run = run;
  if (first)
    set_period(run, PRY_SCRIPT_TICK); /* the count starts at zero: the same run ticks at the same instructions */
  if (run->wall >= 0)
    run->started = run->ticked = clock_now();
}

void pry_script_leave(struct pry_script *script, struct pry_run *run)
{
  struct pry_run *outer = run->previous;

  if (run->wall >= 0 && run->thread &&
      (run->killed || lua_status(run->thread) == LUA_YIELD)) /* else nobody asks any more */
    run->seconds += (double)(clock_now() - run->started) / 1e9;
  run->previous = NULL;
  script->run = outer;
  if (outer)
    set_period(outer, outer->period); /* on the same thread the inner run has changed it */
  else
    collect_large_heap(script);
}

static void note_fault(lua_State *L, struct pry_run *run, const char *what)
{
  if (run->fault[0])
    return;
  char where[128];
  pry_door_where(L, 0, where, sizeof(where));
  snprintf(run->fault, sizeof(run->fault), "%s%s", where, what);
}

/* Lua 5.4.4 can stop a handler for good in two ways: a yield, which no protected call sees, or an out-of-memory error,
 * which runs no message handler. Asking for more than the cap raises the latter. */
static void stop(lua_State *L, struct pry_script *script)
{
  script->run->killed = true;
  set_period(script->run, 1);
  if (lua_isyieldable(L)) {
    lua_yield(L, 0);
    return;
  }
  lua_newuserdatauv(L, script->limits.memory, 0);
}

static void stop_over_budget(lua_State *L, struct pry_script *script)
{
  char what[96];

  snprintf(what, sizeof(what), "over budget: more than %lu instructions", script->run->budget);
  note_fault(L, script->run, what);
  stop(L, script);
}

static void stop_over_wall(lua_State *L, struct pry_script *script)
{
  char what[96];

  snprintf(what, sizeof(what), "over budget: ran for more than %g ms", script->run->wall * 1e3);
  note_fault(L, script->run, what);
  stop(L, script);
}

static bool over_wall(struct pry_run *run, uint64_t now)
{
  run->charged = 0;
  run->ticked = now;
  return run->seconds + (double)(now - run->started) / 1e9 > run->wall;
}

/* Single instructions can be slow (a call with 100,000 arguments). Then we look more often. Only at a tick: in between,
 * a new period would drop what was counted so far, and the cost of a run would depend on the clock. */
static bool over_wall_at_tick(struct pry_run *run)
{
  if (run->wall < 0)
    return false;
  uint64_t now = clock_now();
  if (now - run->ticked > SLOW_TICK && run->period > LEAST_PERIOD)
    set_period(run, run->period / 10);
  return over_wall(run, now);
}

/* One instruction passes on all variable arguments of a function, however many. If there are many now, there were about
 * as many during the whole tick; one call in a dozen instructions is usual. */
static unsigned long cost_of_arguments(lua_State *L, const lua_Debug *debug, unsigned period)
{
  int count = MANY_ARGUMENTS;

  while (count < INT_MAX / 4 && lua_getlocal(L, debug, -count)) {
    lua_pop(L, 1);
    count *= 2;
  }
  return count > MANY_ARGUMENTS ? (unsigned long)count * period / 64 : 0;
}

/* The watchdog asks: this worker has not turned its loop for some time. */
static void tell_where(lua_State *L, struct pry_worker *worker)
{
  char where[PRY_WHERE_MAX];
  if (!pry_door_where(L, 0, where, sizeof(where)))
    return;
  size_t size = strlen(where);
  if (size > 2 && where[size - 1] == ' ') /* else it was cut */
    where[size - 2] = '\0';
  pry_worker_tell_where(worker, where);
}

static void count_hook(lua_State *L, lua_Debug *debug)
{
  struct pry_script *script = pry_script_of(L);
  struct pry_run *run = script->run;

  if (!run)
    return;
  if (script->state.worker && pry_worker_where_wanted(script->state.worker))
    tell_where(L, script->state.worker);
  run->used += run->period + cost_of_arguments(L, debug, run->period);
  if (run->killed || run->no_memory)
    stop(L, script);
  else if (run->used > run->budget)
    stop_over_budget(L, script);
  else if (over_wall_at_tick(run))
    stop_over_wall(L, script);
}

void pry_script_charge(lua_State *L, size_t instructions)
{
  struct pry_script *script = pry_script_of(L);
  struct pry_run *run = script->run;

  if (!run)
    return;
  if (run->killed || run->no_memory)
    stop(L, script);
  if (run->used > run->budget || instructions > run->budget - run->used)
    stop_over_budget(L, script);
  run->used += instructions;
  run->charged += instructions;
  if (run->wall >= 0 && run->charged > CHARGES_PER_LOOK && over_wall(run, clock_now()))
    stop_over_wall(L, script);
}

void pry_script_charge_bytes(lua_State *L, size_t bytes)
{
  pry_script_charge(L, bytes / PRY_SCRIPT_BYTES_PER_INSTRUCTION + 1);
}

bool pry_script_doomed(lua_State *L)
{
  const struct pry_run *run = pry_script_of(L)->run;

  return run && (run->killed || run->no_memory);
}

void pry_script_poison(lua_State *L)
{
  struct pry_run *run = pry_script_of(L)->run;

  if (run && !run->killed)
    run->no_memory = true;
}

void pry_script_kill(lua_State *L)
{
  stop(L, pry_script_of(L));
}

/* ---- Life ------------------------------------------------------------------------------------------------ */

struct pry_script *pry_script_of(lua_State *L)
{
  struct pry_script *script;

  memcpy(&script, lua_getextraspace(L), sizeof(script)); /* new threads copy the main thread's */
  return script;
}

int pry_script_close_thread(struct pry_script *script, lua_State *thread)
{
#if LUA_VERSION_RELEASE_NUM >= 50406
  return lua_closethread(thread, script->L);
#elif LUA_VERSION_RELEASE_NUM == 50405
  return lua_resetthread(thread, script->L);
#else
  (void)script;
  return lua_resetthread(thread);
#endif
}

static void fill_limits(struct pry_script_limits *limits, const struct pry_script_limits *given)
{
  if (given)
    *limits = *given;
  if (!limits->instructions)
    limits->instructions = DEFAULT_INSTRUCTIONS;
  if (limits->wall == 0)
    limits->wall = DEFAULT_WALL;
  if (!limits->memory)
    limits->memory = DEFAULT_MEMORY;
  if (!limits->verdict)
    limits->verdict = DEFAULT_VERDICT;
}

static int set_up(lua_State *L)
{
  pry_sandbox_open(L);
  return 0;
}

static bool open_state(struct pry_script *script, char *fault)
{
  script->L = lua_newstate(allocate, script);
  if (!script->L)
    return false;
  memcpy(lua_getextraspace(script->L), &script, sizeof(script));
  lua_sethook(script->L, count_hook, LUA_MASKCOUNT, PRY_SCRIPT_TICK); /* every later thread inherits it */
  lua_gc(script->L, LUA_GCINC, 0, 0, 0);
  struct pry_run run;
  pry_run_init(&run, script, 1);
  run.budget = DEFAULT_INSTRUCTIONS;
  run.wall = -1;
  bool opened = pry_door_call(script, set_up, NULL, &run) == PRY_DOOR_OK;
  if (!opened && fault)
    snprintf(fault, PRY_FAULT_MAX, "%s", run.fault);
  return opened;
}

struct pry_script *pry_script_new(const struct pry_script_limits *limits, char *fault)
{
  struct pry_script *script = calloc(1, sizeof(*script));

  if (fault)
    snprintf(fault, PRY_FAULT_MAX, "no memory for a Lua state");
  if (!script)
    return NULL;
  fill_limits(&script->limits, limits);
  script->collect_above = script->limits.memory / 2;
  script->state.references = 1;
  script->modules_watch = LUA_NOREF;
  pry_list_init(&script->idle);
  if (!open_state(script, fault)) {
    pry_script_free(script);
    return NULL;
  }
  if (fault)
    fault[0] = '\0';
  return script;
}

void pry_script_free(struct pry_script *script)
{
  if (!script)
    return;
  pry_task_cancel_all(script);
  if (script->closing)
    script->closing(script);
  if (script->L)
    lua_close(script->L);
  pry_task_free_all(script);
  free(script);
}
