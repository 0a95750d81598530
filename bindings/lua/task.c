#include "task.h"

#include <stdlib.h>

struct pry_task {
  struct pry_list link; /* in script->idle */
  struct pry_script *script;
  uint32_t number, generation;
  enum pry_task_state state;
  lua_State *L;  /* NULL after a failure, until it is used again */
  int reference; /* keeps L from being collected */
  struct pry_task_call call;
  struct pry_run run;
  uint64_t sequence; /* of the current or coming wait; 0: none */
  const struct pry_wait *wait;
  void *operation;
  bool woken; /* the answer came before the wait began */
};

/* ---- The pool ------------------------------------------------------------------------------------------------ */

static int new_thread(lua_State *L)
{
  struct pry_task *task = lua_touserdata(L, 1);
  lua_State *thread = lua_newthread(L);

  task->reference = luaL_ref(L, LUA_REGISTRYINDEX);
  task->L = thread;
  return 0;
}

static struct pry_task *add_task(struct pry_script *script)
{
  if (script->task_count == UINT32_MAX)
    return NULL;
  if (script->task_count == script->task_capacity) {
    size_t capacity = script->task_capacity ? script->task_capacity * 2 : 16;
    struct pry_task **tasks = realloc(script->tasks, capacity * sizeof(struct pry_task *));
    if (!tasks)
      return NULL;
    script->tasks = tasks;
    script->task_capacity = capacity;
  }
  struct pry_task *task = calloc(1, sizeof(*task));
  if (!task)
    return NULL;
  task->script = script;
  task->number = (uint32_t)script->task_count;
  task->reference = LUA_NOREF;
  pry_list_init(&task->link);
  script->tasks[script->task_count++] = task;
  return task;
}

static void put_back(struct pry_task *task)
{
  task->generation++; /* tickets of this use are stale from now on */
  task->state = PRY_TASK_FREE;
  task->sequence = 0;
  task->woken = false;
  /* The one used last is the one to use next: its stack is warm. */
  pry_list_push(task->script->idle.next, &task->link);
}

static struct pry_task *take(struct pry_script *script, struct pry_run *run)
{
  struct pry_task *task;

  if (pry_list_empty(&script->idle)) {
    task = add_task(script);
    if (!task)
      return NULL;
  } else {
    task = PRY_CONTAINER_OF(script->idle.next, struct pry_task, link);
    pry_list_remove(&task->link);
  }
  if (!task->L) {
    struct pry_run making;
    pry_run_init(&making, script, 1);
    if (pry_door_call(script, new_thread, task, &making) != PRY_DOOR_OK) {
      if (run)
        memcpy(run->fault, making.fault, sizeof(run->fault));
      put_back(task);
      return NULL;
    }
  }
  task->generation++;
  task->state = PRY_TASK_RUNNING;
  return task;
}

/* A thread that did not end well is never used again. */
static void drop_thread(struct pry_task *task)
{
  luaL_unref(task->script->L, LUA_REGISTRYINDEX, task->reference);
  task->reference = LUA_NOREF;
  task->L = NULL;
}

static void cancel_wait(struct pry_task *task)
{
  const struct pry_wait *wait = task->wait;
  void *operation = task->operation;

  task->wait = NULL;
  task->operation = NULL;
  if (wait)
    wait->cancel(operation);
}

/* ---- Running ------------------------------------------------------------------------------------------------- */

static int body_done(lua_State *L, int status, lua_KContext context)
{
  (void)status, (void)context;
  const struct pry_task *task = pry_script_of(L)->task;

  if (task->call.take)
    task->call.take(L, lua_gettop(L), task->call.user);
  return 0;
}

/* Everything of a run happens in here: building arguments, the handler, reading results. */
static int body(lua_State *L)
{
  const struct pry_task *task = pry_script_of(L)->task;
  int arguments = task->call.push(L, task->call.user);

  lua_callk(L, arguments, LUA_MULTRET, 0, body_done);
  return body_done(L, LUA_OK, 0);
}

static enum pry_door_result resume(struct pry_task *task, bool first)
{
  struct pry_script *script = task->script;
  struct pry_task *outer = script->task;
  int results;

  script->task = task;
  enum pry_door_result result = pry_door_resume(script, task->L, 0, &results, &task->run, first);
  script->task = outer;
  if (result == PRY_DOOR_YIELDED) {
    task->state = PRY_TASK_WAITING;
    return result;
  }
  if (result == PRY_DOOR_OK)
    lua_settop(task->L, 0);
  else
    drop_thread(task);
  cancel_wait(task);
  return result;
}

enum pry_door_result pry_task_start(struct pry_script *script, const struct pry_task_call *call, struct pry_run *run,
                                    struct pry_task **task)
{
  if (run)
    pry_run_init(run, script, 1);
  if (task)
    *task = NULL;
  struct pry_task *mine = take(script, run);
  if (!mine) {
    if (run && !run->fault[0])
      snprintf(run->fault, sizeof run->fault, "not enough memory to run a handler");
    return PRY_DOOR_NO_MEMORY;
  }
  mine->call = *call;
  pry_run_init(&mine->run, script, 1);
  mine->run.watch = call->watch;
  if (call->budget)
    mine->run.budget = call->budget;
  if (call->wall != 0)
    mine->run.wall = call->wall;
  lua_pushcfunction(mine->L, body);
  enum pry_door_result result = resume(mine, true);
  if (run) { /* what a caller may look at */
    run->used = mine->run.used;
    run->seconds = mine->run.seconds;
    if (mine->run.fault[0])
      memcpy(run->fault, mine->run.fault, sizeof run->fault);
  }
  if (result != PRY_DOOR_YIELDED)
    put_back(mine);
  else if (task)
    *task = mine;
  return result;
}

void pry_task_cancel(struct pry_task *task)
{
  if (task->state != PRY_TASK_WAITING)
    return;
  cancel_wait(task);
  pry_script_close_thread(task->script, task->L);
  drop_thread(task);
  put_back(task);
}

void pry_task_cancel_all(struct pry_script *script)
{
  for (size_t i = 0; i < script->task_count; i++)
    pry_task_cancel(script->tasks[i]);
}

void pry_task_free_all(struct pry_script *script)
{
  for (size_t i = 0; i < script->task_count; i++)
    free(script->tasks[i]);
  free(script->tasks);
  script->tasks = NULL;
  script->task_count = script->task_capacity = 0;
}

size_t pry_task_waiting(const struct pry_script *script)
{
  size_t waiting = 0;

  for (size_t i = 0; i < script->task_count; i++)
    waiting += script->tasks[i]->state == PRY_TASK_WAITING;
  return waiting;
}

/* ---- Waiting ------------------------------------------------------------------------------------------------- */

/* The task whose coroutine L is; NULL in loading, tests and doors opened from inside a task. */
static struct pry_task *running_task(lua_State *L)
{
  const struct pry_script *script = pry_script_of(L);

  return script->task && script->task->L == L && script->run == &script->task->run ? script->task : NULL;
}

void *pry_task_user(lua_State *L)
{
  const struct pry_task *task = running_task(L);

  return task ? task->call.user : NULL;
}

struct pry_ticket pry_task_ticket(lua_State *L, const char *name)
{
  struct pry_task *task = running_task(L);

  if (!task)
    luaL_error(L, "%s cannot wait here (only handlers can wait)", name);
  if (!lua_isyieldable(L))
    luaL_error(L, "%s cannot wait here (inside a function called by table.sort, string.gsub or a metamethod)", name);
  pry_script_charge(L, PRY_SCRIPT_TICK); /* a loop of waits would otherwise stay below the first tick for ever */
  task->sequence = ++task->script->waits;
  task->woken = false;
  return (struct pry_ticket){task->number, task->generation, task->sequence};
}

static int wait_done(lua_State *L, int status, lua_KContext context)
{
  (void)status, (void)context;
  struct pry_task *task = pry_script_of(L)->task;
  const struct pry_wait *wait = task->wait;
  void *operation = task->operation;

  task->wait = NULL;
  task->operation = NULL;
  return wait->finish(L, operation);
}

int pry_task_wait(lua_State *L, const struct pry_wait *wait, void *operation)
{
  struct pry_task *task = pry_script_of(L)->task;

  task->wait = wait;
  task->operation = operation;
  if (task->woken) {
    task->woken = false;
    task->sequence = 0;
    return wait_done(L, LUA_OK, 0);
  }
  return lua_yieldk(L, 0, 0, wait_done);
}

static struct pry_task *find_task(struct pry_script *script, struct pry_ticket ticket)
{
  if (ticket.coroutine >= script->task_count || ticket.sequence == 0)
    return NULL;
  struct pry_task *task = script->tasks[ticket.coroutine];
  bool fits = task->generation == ticket.generation && task->sequence == ticket.sequence;
  return fits && task->state != PRY_TASK_FREE ? task : NULL;
}

bool pry_task_wake(struct pry_script *script, struct pry_ticket ticket)
{
  struct pry_task *task = find_task(script, ticket);

  if (!task)
    return false;
  if (task->state == PRY_TASK_RUNNING) {
    bool early = !task->woken;
    task->woken = true;
    return early;
  }
  task->sequence = 0;
  task->state = PRY_TASK_RUNNING;
  enum pry_door_result result = resume(task, false);
  if (result == PRY_DOOR_YIELDED)
    return true;
  struct pry_task_call call = task->call;
  struct pry_run run = task->run;
  put_back(task);
  if (call.ended)
    call.ended(script, result, &run, call.user); /* may free the script */
  return true;
}
