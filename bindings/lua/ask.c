#include "ask_internal.h"

#include "declare.h"
#include "door.h"
#include "freeze.h"
#include "lib.h"
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>

enum { PREPARE_FACTOR = 20 };

/* ---- running a handler ----------------------------------------------------------------------------------- */

/* Each handler's second argument; the third comes with the event. */
static int push_arguments(lua_State *L, struct pry_decision *decision)
{
  switch (decision->ask->handler) {
  case PRY_ON_REQUEST:
  case PRY_ON_ATTEMPT:
    pry_view_push(L, decision, PRY_VIEW_CALL);
    return 1;
  case PRY_ON_OUTCOME:
    pry_view_push(L, decision, PRY_VIEW_CALL);
    pry_view_push(L, decision, PRY_VIEW_ATTEMPT);
    return 2;
  case PRY_ON_ERROR:
  case PRY_ON_FAILURE:
    pry_view_push(L, decision, PRY_VIEW_CALL);
    pry_view_push(L, decision, PRY_VIEW_ERR);
    return 2;
  case PRY_ON_DONE:
    pry_view_push(L, decision, PRY_VIEW_CALL);
    pry_view_push(L, decision, PRY_VIEW_OUTCOME);
    return 2;
  case PRY_ON_EVENT:
    pry_view_push(L, decision, PRY_VIEW_EVENT);
    return 1;
  default:
    return 0;
  }
}

static bool push_kept(lua_State *L, const struct pry_decider *decider, const struct pry_ask *ask)
{
  size_t index = ask->instance->index;
  int function = decider->handlers[index][ask->handler], self = decider->selves[index];
  if (function == LUA_NOREF || self == LUA_NOREF)
    return false;
  lua_rawgeti(L, LUA_REGISTRYINDEX, function);
  lua_rawgeti(L, LUA_REGISTRYINDEX, self);
  return true;
}

static int push_handler(lua_State *L, void *user)
{
  struct pry_decision *decision = user;
  const struct pry_ask *ask = decision->ask;
  if (ask->handler == PRY_REFRESH)
    return pry_refresh_push(L, decision);
  if (!push_kept(L, decision->decider, ask) &&
      !pry_declare_push_handler(L, ask->instance, ask->handler, ask->job ? ask->job->index : 0))
    return luaL_error(L, "%s has no %s", ask->instance->name, pry_handler_name(ask->handler));
  return 1 + push_arguments(L, decision);
}

/* False: `complaint` says what is wrong with what the handler returned. */
static bool take_verdict(lua_State *L, int count, struct pry_decision *decision, char *complaint, size_t size)
{
  if (count > 1)
    snprintf(complaint, size, "%s returned %d values instead of one verdict", pry_handler_name(decision->ask->handler),
             count);
  return count == 0 || (count == 1 && pry_verdict_take(L, 1, decision, complaint, size));
}

/* Where the handler begins, when nothing better is known. */
static int line_of_handler(lua_State *L, const struct pry_ask *ask)
{
  lua_Debug place;
  if (!pry_declare_push_handler(L, ask->instance, ask->handler, ask->job ? ask->job->index : 0))
    return 0;
  lua_pop(L, 1);
  lua_getinfo(L, ">S", &place);
  return place.linedefined;
}

static void take_result(lua_State *L, int count, void *user)
{
  struct pry_decision *decision = user;
  struct pry_decider *decider = decision->decider;
  struct pry_ask *ask = decision->ask;
  if (ask->handler == PRY_REFRESH) {
    pry_refresh_take(L, count, decision);
    return;
  }
  decision->bad_verdict = !take_verdict(L, count, decision, decider->complaint, sizeof decider->complaint);
  if (decision->bad_verdict && !ask->verdict.line)
    ask->verdict.line = line_of_handler(L, ask);
}

static void set_fault(struct pry_ask *ask, enum pry_run_result result, const char *text)
{
  int line = ask->verdict.line;
  ask->result = result;
  if (result == PRY_RUN_BAD_VERDICT && ask->instance && line > 0)
    snprintf(ask->fault, sizeof ask->fault, "%s:%d: %s", ask->instance->file, line, text);
  else if (result == PRY_RUN_BAD_VERDICT && ask->instance)
    snprintf(ask->fault, sizeof ask->fault, "%s: %s", ask->instance->file, text);
  else
    snprintf(ask->fault, sizeof ask->fault, "%s", text);
}

static enum pry_ask_status end_decision(struct pry_decision *decision, enum pry_door_result door,
                                        const struct pry_run *run)
{
  struct pry_ask *ask = decision->ask;
  enum pry_run_result result = pry_door_run_result(door);
  ask->result = PRY_RUN_OK;
  ask->fault[0] = '\0';
  ask->task = NULL;
  if (result != PRY_RUN_OK)
    set_fault(ask, result, run->fault);
  else if (decision->bad_verdict)
    set_fault(ask, PRY_RUN_BAD_VERDICT, decision->decider->complaint);
  bool faulty = ask->result != PRY_RUN_OK;
  if (faulty) {
    pry_verdict_fini(&ask->verdict);
    pry_decision_tell_fault(decision, pry_handler_name(ask->handler), ask->result, ask->call ? ask->call->id : "",
                            ask->fault);
    if (ask->renewal)
      pry_copy_text(ask->renewal->error, sizeof ask->renewal->error, ask->fault);
  }
  const struct pry_script *script = decision->decider->script;
  pry_decision_end_record(decision);
  pry_decision_return(decision);
  struct pry_worker *worker = script->state.worker;
  if (pry_script_wants_rebuild(script) && worker->state == &script->state) /* one that was replaced dies soon anyway */
    pry_worker_request_rebuild(worker);
  return faulty ? PRY_ASK_FAULT : PRY_ASK_DONE;
}

static void handler_ended(struct pry_script *script, enum pry_door_result result, const struct pry_run *run, void *user)
{
  struct pry_decision *decision = user;
  struct pry_ask *ask = decision->ask;
  pry_decider_of(script)->current = NULL;
  enum pry_ask_status status = end_decision(decision, result, run);
  ask->ready(ask, status);
}

static const char *name_of(const struct pry_ask *ask)
{
  return ask->instance ? ask->instance->name : ask->renewal->credential->name;
}

static int watch_of(const struct pry_decider *decider, const struct pry_ask *ask)
{
  if (ask->handler == PRY_REFRESH)
    return decider->refresh_watches[ask->renewal->credential->index];
  return decider->handler_watches[ask->instance->index][ask->handler];
}

static enum pry_ask_status no_slot(struct pry_state *state, struct pry_ask *ask)
{
  snprintf(ask->fault, sizeof ask->fault, "not enough memory to run %s", pry_handler_name(ask->handler));
  ask->result = PRY_RUN_NO_MEMORY;
  pry_guard_tell(state->worker, state->generation, name_of(ask), pry_handler_name(ask->handler), ask->fault);
  return PRY_ASK_FAULT;
}

static enum pry_ask_status state_ask(struct pry_state *state, struct pry_ask *ask)
{
  struct pry_script *script = (struct pry_script *)state;
  struct pry_decider *decider = pry_decider_of(script);
  struct pry_decision *decision = pry_decision_take(decider);
  pry_guard_ran(state->worker, state->generation);
  if (!decision)
    return no_slot(state, ask);
  decision->ask = ask;
  decision->name = name_of(ask);
  decision->now = pry_worker_unix_time(state->worker);
  pry_decision_begin_record(decision);
  struct pry_task_call call = {.push = push_handler,
                               .take = take_result,
                               .ended = handler_ended,
                               .user = decision,
                               .watch = watch_of(decider, ask)};
  struct pry_run run;
  struct pry_decision *outer = decider->current;
  decider->current = decision;
  enum pry_door_result result = pry_task_start(script, &call, &run, &decision->task);
  decider->current = outer;
  if (result != PRY_DOOR_YIELDED)
    return end_decision(decision, result, &run);
  ask->task = decision;
  ask->state = state;
  return PRY_ASK_PENDING;
}

static void state_cancel(struct pry_state *state, struct pry_ask *ask)
{
  struct pry_decision *decision = ask->task;
  (void)state;
  pry_task_cancel(decision->task);
  ask->task = NULL;
  ask->result = PRY_RUN_CANCELLED;
  pry_verdict_fini(&ask->verdict);
  pry_decision_end_record(decision);
  pry_decision_return(decision);
}

static bool wake_now(struct pry_decision *decision, struct pry_ticket ticket)
{
  struct pry_script *script = pry_decision_script(decision);
  struct pry_worker *worker = script->state.worker;
  pry_state_ref(&script->state); /* the end of the handler may be the end of the last call of this generation */
  decision->now = pry_worker_unix_time(worker);
  decision->resumed = true;
  decision->record = pry_event_find(worker->events, decision->ask->record);
  decision->decider->current = decision;
  bool woken = pry_task_wake(script, ticket);
  pry_decider_of(script)->current = NULL;
  pry_state_unref(&script->state);
  return woken;
}

static void wake_inside(struct pry_message *message)
{
  struct pry_decision *decision = PRY_CONTAINER_OF(message, struct pry_decision, waking);
  wake_now(decision, decision->due);
}

bool pry_decision_wake(struct pry_decision *decision, struct pry_ticket ticket)
{
  const struct pry_worker *worker = pry_decision_worker(decision);
  if (!worker->decides)
    return wake_now(decision, ticket);
  decision->due = ticket;
  decision->waking.deliver = wake_inside;
  pry_mailbox_post(worker->mailbox, &decision->waking);
  return true;
}

/* ---- making and freeing ------------------------------------------------------------------------------------- */

static size_t state_memory(const struct pry_state *state)
{
  return pry_script_memory((const struct pry_script *)state);
}

static void state_free(struct pry_state *state)
{
  struct pry_generation *generation = state->generation;
  pry_script_free((struct pry_script *)state);
  pry_generation_unref(generation);
}

const struct pry_state_ops pry_script_state_ops = {.ask = state_ask,
                                                   .cancel = state_cancel,
                                                   .classify = pry_ask_classify,
                                                   .render = pry_ask_render,
                                                   .translate = pry_ask_translate,
                                                   .memory = state_memory,
                                                   .free = state_free};

static void decider_free(struct pry_decider *decider)
{
  if (!decider)
    return;
  while (decider->slots) {
    struct pry_decision *decision = decider->slots;
    decider->slots = decision->next;
    free(decision);
  }
  pry_buffer_fini(&decider->scratch);
  free(decider->handler_watches);
  free(decider->dialect_watches);
  free(decider->refresh_watches);
  free(decider->handlers);
  free(decider->selves);
  free(decider->remembered);
  free(decider);
}

static void script_closing(struct pry_script *script)
{
  decider_free(script->host);
  script->host = NULL;
}

/* ---- what is kept of the declarations ----------------------------------------------------------------------- */

static void keep_handlers(lua_State *L, struct pry_decider *decider, const struct pry_instance *instance)
{
  int *handlers = decider->handlers[instance->index];
  for (enum pry_handler handler = 0; handler < PRY_HANDLER_COUNT; handler++) {
    handlers[handler] = LUA_NOREF;
    if (handler == PRY_EVERY || !(instance->handlers & PRY_HANDLER_BIT(handler)) ||
        !pry_declare_push_handler(L, instance, handler, 0))
      continue;
    lua_pushvalue(L, -2);
    handlers[handler] = luaL_ref(L, LUA_REGISTRYINDEX);
    if (decider->selves[instance->index] == LUA_NOREF)
      decider->selves[instance->index] = luaL_ref(L, LUA_REGISTRYINDEX);
    else
      lua_pop(L, 1);
    lua_pop(L, 1);
  }
}

static void keep_functions(lua_State *L, struct pry_decider *decider)
{
  const struct pry_config *config = decider->config;
  for (size_t i = 0; i < config->instance_count; i++) {
    decider->selves[config->instances[i]->index] = LUA_NOREF;
    keep_handlers(L, decider, config->instances[i]);
  }
}

/* ---- watches ---------------------------------------------------------------------------------------------- */

static bool allocate_tables(struct pry_decider *decider)
{
  /* One more than needed, so that none has size 0. */
  decider->handler_watches = malloc((decider->config->instance_count + 1) * sizeof *decider->handler_watches);
  decider->dialect_watches = malloc((decider->config->dialect_count + 1) * sizeof *decider->dialect_watches);
  decider->refresh_watches = malloc((decider->config->credential_count + 1) * sizeof *decider->refresh_watches);
  decider->handlers = malloc((decider->config->instance_count + 1) * sizeof *decider->handlers);
  decider->selves = malloc((decider->config->instance_count + 1) * sizeof *decider->selves);
  return decider->handler_watches && decider->dialect_watches && decider->refresh_watches && decider->handlers &&
         decider->selves;
}

/* On the stack of prepare(): in its first round a table of all that is to be watched, then nil. */
enum { ALL_WATCHED = 2 };

/* Turns the function, or table of functions, on top into a watch. */
static int watch_top(lua_State *L)
{
  if (lua_istable(L, ALL_WATCHED)) {
    lua_rawseti(L, ALL_WATCHED, (lua_Integer)lua_rawlen(L, ALL_WATCHED) + 1);
    return LUA_NOREF;
  }
  int watch = pry_freeze_watch(L, lua_gettop(L));
  lua_pop(L, 1);
  return watch;
}

static int watch_jobs(lua_State *L, const struct pry_config *config, const struct pry_instance *instance)
{
  lua_Integer count = 0;
  lua_newtable(L);
  for (size_t i = 0; i < config->job_count; i++) {
    if (config->jobs[i].instance != instance ||
        !pry_declare_push_handler(L, instance, PRY_EVERY, config->jobs[i].index))
      continue;
    lua_pop(L, 1);
    lua_rawseti(L, -2, ++count);
  }
  pry_freeze(L, lua_gettop(L));
  return watch_top(L);
}

static int watch_handler(lua_State *L, const struct pry_config *config, const struct pry_instance *instance,
                         enum pry_handler handler)
{
  if (!(instance->handlers & PRY_HANDLER_BIT(handler)))
    return LUA_NOREF;
  if (handler == PRY_EVERY)
    return watch_jobs(L, config, instance);
  if (!pry_declare_push_handler(L, instance, handler, 0))
    return LUA_NOREF;
  lua_createtable(L, 2, 0); /* `self`, too: its check may have put functions there */
  lua_insert(L, -3);
  lua_rawseti(L, -3, 2);
  lua_rawseti(L, -2, 1);
  pry_freeze(L, lua_gettop(L));
  return watch_top(L);
}

static void watch_functions(lua_State *L, struct pry_decider *decider)
{
  const struct pry_config *config = decider->config;
  for (size_t i = 0; i < config->instance_count; i++)
    for (enum pry_handler handler = 0; handler < PRY_HANDLER_COUNT; handler++)
      decider->handler_watches[i][handler] = watch_handler(L, config, config->instances[i], handler);
  for (size_t i = 0; i < config->dialect_count; i++) {
    int *watches = decider->dialect_watches[i];
    const struct pry_dialect *dialect = config->dialects[i];
    watches[PRY_DIALECT_CLASSIFY] = pry_declare_push_classify(L, dialect) ? watch_top(L) : LUA_NOREF;
    watches[PRY_DIALECT_TRANSLATE] = pry_declare_push_translate(L, dialect) ? watch_top(L) : LUA_NOREF;
    watches[PRY_DIALECT_STRIP] = pry_declare_push_strip(L, dialect) ? watch_top(L) : LUA_NOREF;
    watches[PRY_DIALECT_RENDER] = pry_declare_push_render(L, dialect) ? watch_top(L) : LUA_NOREF;
  }
  for (size_t i = 0; i < config->credential_count; i++)
    decider->refresh_watches[i] = pry_refresh_function(L, &config->credentials[i]) ? watch_top(L) : LUA_NOREF;
}

/* ---- making ------------------------------------------------------------------------------------------------ */

/* Inside the door. Most sets have no function that writes an upvalue, which one walk over all of them tells: each handler
 * reaches the same libraries. Only when there is one does it matter who can reach it. */
static int prepare(lua_State *L)
{
  struct pry_decider *decider = lua_touserdata(L, 1);
  luaL_checkstack(L, 20, "preparing");
  pry_refresh_open(L, decider->config);
  pry_translate_open(L);
  lua_settop(L, ALL_WATCHED - 1);
  lua_newtable(L);
  watch_functions(L, decider);
  int any = pry_freeze_watch(L, ALL_WATCHED);
  if (any != LUA_NOREF) {
    luaL_unref(L, LUA_REGISTRYINDEX, any);
    lua_pushnil(L);
    lua_replace(L, ALL_WATCHED);
    watch_functions(L, decider);
  }
  pry_sandbox_watch_modules(L);
  keep_functions(L, decider);
  return 0;
}

bool pry_decider_attach(struct pry_script *script, struct pry_generation *generation, struct pry_worker *worker,
                        char *fault)
{
  struct pry_run run;
  struct pry_decider *decider = calloc(1, sizeof *decider);
  if (decider)
    decider->config = generation->config;
  if (!decider || !allocate_tables(decider)) {
    decider_free(decider);
    snprintf(fault, PRY_FAULT_MAX, "not enough memory");
    return false;
  }
  decider->script = script;
  pry_buffer_init(&decider->scratch, PRY_STORE_VALUE_MAX);
  pry_run_init(&run, script, PREPARE_FACTOR);
  if (pry_door_call(script, prepare, decider, &run) != PRY_DOOR_OK) {
    snprintf(fault, PRY_FAULT_MAX, "%s", run.fault);
    decider_free(decider);
    return false;
  }
  pry_generation_ref(generation);
  script->state.ops = &pry_script_state_ops;
  script->state.generation = generation;
  script->state.worker = worker;
  script->host = decider;
  script->closing = script_closing;
  return true;
}
