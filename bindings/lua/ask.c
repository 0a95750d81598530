#include "ask.h"

#include "declare.h"
#include "door.h"
#include "freeze.h"
#include "lib.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct pry_decider {
  struct pry_script *script;
  const struct pry_config *config;
  struct pry_decision *current; /* whose Lua is running */
  struct pry_decision *slots, *free_slots;
  struct pry_buffer read; /* the one being built */
  char complaint[PRY_FAULT_MAX - 64]; /* of a bad verdict */
};

static const struct pry_state_ops state_ops;

/* ---- decisions ------------------------------------------------------------------------------------------- */

static struct pry_decider *decider_of(const struct pry_script *script)
{
  return script->state.ops == &state_ops ? script->host : NULL;
}

struct pry_decision *pry_decision_of(lua_State *L)
{
  struct pry_decider *decider = decider_of(pry_script_of(L));
  return decider ? decider->current : NULL;
}

struct pry_decision *pry_decision_check(lua_State *L, const char *name)
{
  struct pry_decision *decision = pry_decision_of(L);
  if (!decision)
    luaL_error(L, "%s is not available while loading", name);
  if (!decision->ask)
    luaL_error(L, "%s is not available in classify and render", name);
  return decision;
}

struct pry_script *pry_decision_script(const struct pry_decision *decision)
{
  return decision->decider->script;
}

struct pry_worker *pry_decision_worker(const struct pry_decision *decision)
{
  return decision->decider->script->state.worker;
}

struct pry_engine *pry_decision_engine(const struct pry_decision *decision)
{
  return pry_decision_worker(decision)->engine;
}

const struct pry_config *pry_decision_config(const struct pry_decision *decision)
{
  return decision->decider->script->state.generation->config;
}

static struct pry_decision *take_slot(struct pry_decider *decider)
{
  struct pry_decision *decision = decider->free_slots;
  if (decision) {
    decider->free_slots = decision->next_free;
  } else {
    decision = calloc(1, sizeof *decision);
    if (!decision)
      return NULL;
    decision->decider = decider;
    decision->next = decider->slots;
    decider->slots = decision;
    for (int kind = 0; kind < PRY_VIEW_POOLED; kind++)
      decision->views[kind] = LUA_NOREF;
  }
  decision->active = true;
  decision->resumed = false;
  decision->bad_verdict = false;
  decision->http_left = PRY_DECISION_HTTP_SECONDS * PRY_SECOND;
  decision->log_lines = 0;
  decision->task = NULL;
  return decision;
}

/* From here on every view of this decision is dead. */
static void return_slot(struct pry_decision *decision)
{
  struct pry_decider *decider = decision->decider;
  decision->active = false;
  decision->serial++;
  decision->ask = NULL;
  decision->record = NULL;
  decision->answer = NULL;
  decision->failure = NULL;
  decision->call_id = NULL;
  decision->next_free = decider->free_slots;
  decider->free_slots = decision;
}

/* ---- the event record ------------------------------------------------------------------------------------ */

static void copy_text(char *to, size_t size, const char *from)
{
  size_t length = strnlen(from, size - 1);
  memcpy(to, from, length);
  to[length] = '\0';
}

/* What the handler is told went wrong, if anything. */
static const struct pry_failure *input_failure(const struct pry_ask *ask)
{
  if (ask->failure)
    return ask->failure;
  if (ask->handler == PRY_ON_OUTCOME && ask->attempt && ask->attempt->category != PRY_NONE)
    return &ask->attempt->failure;
  if (ask->handler == PRY_ON_DONE && ask->outcome && !ask->outcome->ok)
    return &ask->outcome->failure;
  return NULL;
}

static void record_inputs(struct pry_event_record *record, const struct pry_ask *ask, pry_time now)
{
  if (ask->call) {
    pry_time left = ask->call->deadline - now;
    copy_text(record->call_id, sizeof record->call_id, ask->call->id);
    copy_text(record->target, sizeof record->target, ask->call->target.name);
    record->attempt = ask->call->attempt;
    record->deadline_left = left > 0 ? pry_time_to_seconds(left) : 0;
  }
  const struct pry_failure *failure = input_failure(ask);
  if (!failure)
    return;
  record->category = failure->category;
  record->source = failure->source;
  record->status = failure->status;
  record->curl_code = failure->curl_code;
  record->retryable = failure->retryable;
  record->retry_after = failure->retry_after;
  copy_text(record->code, sizeof record->code, failure->code);
}

static void begin_record(struct pry_decision *decision)
{
  const struct pry_worker *worker = pry_decision_worker(decision);
  struct pry_ask *ask = decision->ask;
  struct pry_event_record *record = pry_event_next(worker->events);
  decision->record = record;
  ask->sequence = record->sequence;
  record->time = decision->now;
  record->seed = pry_engine_seed(worker->engine, ask->call ? ask->call->id : decision->name, record->sequence);
  decision->random = record->seed;
  record->handler = ask->handler;
  copy_text(record->policy, sizeof record->policy, decision->name);
  copy_text(record->generation, sizeof record->generation, decision->decider->script->state.generation->id);
  record_inputs(record, ask, pry_loop_now(worker->loop));
}

static void end_record(const struct pry_decision *decision)
{
  const struct pry_ask *ask = decision->ask;
  struct pry_event_record *record = pry_event_find(pry_decision_worker(decision)->events, ask->sequence);
  if (!record)
    return;
  const struct pry_verdict *verdict = &ask->verdict;
  record->result = ask->result;
  copy_text(record->fault, sizeof record->fault, ask->fault);
  record->verdict = verdict->kind;
  if (verdict->kind == PRY_VERDICT_NONE)
    return;
  record->after = verdict->after;
  record->verdict_category = verdict->category;
  record->verdict_status = verdict->status;
  record->line = verdict->line;
  copy_text(record->verdict_target, sizeof record->verdict_target, verdict->target);
  copy_text(record->why, sizeof record->why, verdict->why);
}

/* ---- reads ----------------------------------------------------------------------------------------------- */

struct pry_read pry_read_begin(struct pry_decision *decision, const char *function)
{
  if (!decision->record || decision->record->reads_cut)
    return (struct pry_read){NULL};
  struct pry_buffer *text = &decision->decider->read;
  pry_buffer_clear(text);
  pry_buffer_append_text(text, "[\"");
  pry_buffer_append_text(text, function);
  pry_buffer_append_text(text, "\"");
  return (struct pry_read){decision};
}

/* A part that does not fit is left out together with all that follows: the text is then longer than a record takes, or
 * no array any more, and pry_read_end() drops it. */
static struct pry_buffer *next_value(struct pry_read *read)
{
  struct pry_buffer *text = read->decision ? &read->decision->decider->read : NULL;
  if (text && pry_buffer_append(text, ",", 1))
    return text;
  if (text)
    read->decision->record->reads_cut = true;
  read->decision = NULL;
  return NULL;
}

static void part_done(struct pry_read *read, bool appended)
{
  if (appended)
    return;
  read->decision->record->reads_cut = true;
  read->decision = NULL;
}

void pry_read_text(struct pry_read *read, struct pry_slice value)
{
  struct pry_buffer *text = next_value(read);
  if (text)
    part_done(read, pry_buffer_append(text, "\"", 1) && pry_buffer_append_json(text, value) &&
                        pry_buffer_append(text, "\"", 1));
}

void pry_read_number(struct pry_read *read, double number)
{
  struct pry_buffer *text = next_value(read);
  if (!text)
    return;
  char digits[40];
  int length = snprintf(digits, sizeof digits, isfinite(number) ? "%.17g" : "null", number);
  for (int i = 0; i < length; i++) /* whatever the host program's locale */
    if (digits[i] == ',')
      digits[i] = '.';
  part_done(read, pry_buffer_append(text, digits, (size_t)length));
}

void pry_read_boolean(struct pry_read *read, bool value)
{
  struct pry_buffer *text = next_value(read);
  if (text)
    part_done(read, pry_buffer_append_text(text, value ? "true" : "false"));
}

void pry_read_null(struct pry_read *read)
{
  struct pry_buffer *text = next_value(read);
  if (text)
    part_done(read, pry_buffer_append_text(text, "null"));
}

void pry_read_json(struct pry_read *read, struct pry_slice json)
{
  struct pry_buffer *text = next_value(read);
  if (text)
    part_done(read, pry_buffer_append_slice(text, json));
}

void pry_read_end(struct pry_read *read)
{
  if (!read->decision)
    return;
  struct pry_buffer *text = &read->decision->decider->read;
  part_done(read, pry_buffer_append(text, "]", 1));
  if (!read->decision)
    return;
  pry_scrubber_apply(pry_decision_engine(read->decision)->scrubber, text);
  pry_event_add_read(read->decision->record, pry_buffer_slice(text));
}

/* ---- faults ---------------------------------------------------------------------------------------------- */

static const char *kind_of_fault(enum pry_run_result result)
{
  switch (result) {
  case PRY_RUN_OVER_BUDGET:
    return "over_budget";
  case PRY_RUN_NO_MEMORY:
    return "no_memory";
  case PRY_RUN_BAD_VERDICT:
    return "bad_verdict";
  default:
    return "error";
  }
}

/* `function`: "on_error", "classify". The one place where a fault is told. */
static void tell_fault(struct pry_decision *decision, const char *function, enum pry_run_result result,
                       const char *call_id, char *fault)
{
  struct pry_engine *engine = pry_decision_engine(decision);
  pry_scrubber_apply_text(engine->scrubber, fault);
  engine->faults++;
  decision->stale_views = true;
  pry_metrics_add(engine->metrics, PRY_M_POLICY_FAULTS, decision->name, kind_of_fault(result), 1);
  pry_log(engine->log, PRY_LOG_WARN, "policy fault", pry_log_text("policy", decision->name),
          pry_log_text("handler", function), pry_log_text("kind", kind_of_fault(result)),
          pry_log_text("fault", fault), pry_log_text("call_id", call_id),
          pry_log_text("generation", decision->decider->script->state.generation->id));
}

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

static int push_handler(lua_State *L, void *user)
{
  struct pry_decision *decision = user;
  const struct pry_ask *ask = decision->ask;
  if (ask->handler == PRY_REFRESH)
    return pry_refresh_push(L, decision);
  if (!pry_declare_push_handler(L, ask->instance, ask->handler, ask->job ? ask->job->index : 0))
    return luaL_error(L, "%s has no %s", ask->instance->name, pry_handler_name(ask->handler));
  return 1 + push_arguments(L, decision);
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
  if (count == 0)
    return;
  if (count > 1) {
    snprintf(decider->complaint, sizeof decider->complaint, "%s returned %d values instead of one verdict",
             pry_handler_name(ask->handler), count);
    decision->bad_verdict = true;
    return;
  }
  decision->bad_verdict =
      !pry_verdict_take(L, 1, decision, decider->complaint, sizeof decider->complaint);
  if (decision->bad_verdict && !ask->verdict.line &&
      pry_declare_push_handler(L, ask->instance, ask->handler, ask->job ? ask->job->index : 0)) {
    lua_Debug place;
    lua_pop(L, 1);
    lua_getinfo(L, ">S", &place);
    ask->verdict.line = place.linedefined;
  }
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
    tell_fault(decision, pry_handler_name(ask->handler), ask->result, ask->call ? ask->call->id : "", ask->fault);
    if (ask->renewal)
      copy_text(ask->renewal->error, sizeof ask->renewal->error, ask->fault);
  }
  end_record(decision);
  return_slot(decision);
  return faulty ? PRY_ASK_FAULT : PRY_ASK_DONE;
}

static void handler_ended(struct pry_script *script, enum pry_door_result result, const struct pry_run *run, void *user)
{
  struct pry_decision *decision = user;
  struct pry_ask *ask = decision->ask;
  decider_of(script)->current = NULL;
  enum pry_ask_status status = end_decision(decision, result, run);
  ask->ready(ask, status);
}

static const char *name_of(const struct pry_ask *ask)
{
  return ask->instance ? ask->instance->name : ask->renewal->credential->name;
}

static int watch_of(const struct pry_script *script, const struct pry_ask *ask)
{
  if (ask->handler == PRY_REFRESH)
    return pry_declare_refresh_watch(script->L, ask->renewal->credential);
  return pry_declare_handler_watch(script->L, ask->instance);
}

static enum pry_ask_status no_slot(struct pry_state *state, struct pry_ask *ask)
{
  snprintf(ask->fault, sizeof ask->fault, "not enough memory to run %s", pry_handler_name(ask->handler));
  ask->result = PRY_RUN_NO_MEMORY;
  state->worker->engine->faults++;
  return PRY_ASK_FAULT;
}

static enum pry_ask_status state_ask(struct pry_state *state, struct pry_ask *ask)
{
  struct pry_script *script = (struct pry_script *)state;
  struct pry_decider *decider = decider_of(script);
  struct pry_decision *decision = take_slot(decider);
  if (!decision)
    return no_slot(state, ask);
  decision->ask = ask;
  decision->name = name_of(ask);
  decision->now = pry_loop_unix_time(state->worker->loop);
  begin_record(decision);
  struct pry_task_call call = {.push = push_handler,
                               .take = take_result,
                               .ended = handler_ended,
                               .user = decision,
                               .watch = watch_of(script, ask)};
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
  end_record(decision);
  return_slot(decision);
}

bool pry_decision_wake(struct pry_decision *decision, struct pry_ticket ticket)
{
  struct pry_script *script = pry_decision_script(decision);
  struct pry_worker *worker = script->state.worker;
  pry_state_ref(&script->state); /* the end of the handler may be the end of the last call of this generation */
  decision->now = pry_loop_unix_time(worker->loop);
  decision->resumed = true;
  decision->record = pry_event_find(worker->events, decision->ask->sequence);
  decision->decider->current = decision;
  bool woken = pry_task_wake(script, ticket);
  decider_of(script)->current = NULL;
  pry_state_unref(&script->state);
  return woken;
}

/* ---- dialects -------------------------------------------------------------------------------------------- */

/* One run of classify or render. */
struct dialect_run {
  struct pry_decision *decision;
  const struct pry_dialect *dialect;
  enum pry_render form;
  struct pry_failure failure; /* classify: what comes out */
  struct pry_buffer *out;     /* render */
  bool answered;
};

static void read_flag(lua_State *L, const char *name, bool *flag)
{
  lua_pushstring(L, name);
  int type = lua_rawget(L, 2);
  if (type != LUA_TNIL && type != LUA_TBOOLEAN)
    luaL_error(L, "classify: %s must be true or false, got %s", name, lua_typename(L, type));
  if (type == LUA_TBOOLEAN)
    *flag = lua_toboolean(L, -1);
  lua_pop(L, 1);
}

/* Providers spell codes as texts and as numbers. */
static bool read_text(lua_State *L, const char *name, struct pry_slice *text)
{
  lua_pushstring(L, name);
  int type = lua_rawget(L, 2);
  if (type == LUA_TNIL)
    return false;
  if (type != LUA_TSTRING && type != LUA_TNUMBER)
    luaL_error(L, "classify: %s must be text, got %s", name, lua_typename(L, type));
  text->data = lua_tolstring(L, -1, &text->size);
  return true; /* stays on the stack, which keeps it alive */
}

static void read_category(lua_State *L, struct pry_failure *failure)
{
  struct pry_slice name;
  if (!read_text(L, "category", &name))
    return;
  enum pry_category category = pry_category_from_name(name);
  if (category == PRY_NONE)
    luaL_error(L, "classify: there is no category \"%s\"", name.data);
  pry_failure_set_category(failure, category);
}

static void read_classification(lua_State *L, struct pry_failure *failure)
{
  static const char *const names[] = {"category", "code",     "message", "retryable",
                                      "fallback", "refresh_token", NULL};
  struct pry_slice text;
  pry_lua_options(L, 2, "classify", names, false);
  read_category(L, failure);
  if (read_text(L, "code", &text))
    pry_failure_set_code(failure, text);
  if (read_text(L, "message", &text))
    pry_failure_set_message(failure, text);
  read_flag(L, "retryable", &failure->retryable);
  read_flag(L, "fallback", &failure->fallback);
  read_flag(L, "refresh_token", &failure->refresh_token);
}

/* Inside the door; argument 1 is the run. */
static int run_classify(lua_State *L)
{
  struct dialect_run *run = lua_touserdata(L, 1);
  if (!pry_declare_push_classify(L, run->dialect))
    return 0;
  pry_view_push(L, run->decision, PRY_VIEW_ANSWER);
  lua_call(L, 1, 1);
  if (!lua_toboolean(L, 2))
    return 0;
  read_classification(L, &run->failure);
  run->answered = true;
  return 0;
}

static bool append_event(struct pry_buffer *out, struct pry_slice json)
{
  return pry_buffer_append_text(out, "data: ") && pry_buffer_append_slice(out, json) &&
         pry_buffer_append_text(out, "\n\n");
}

/* A text is taken as it is: a body, or a whole event with its blank line. */
static bool append_text(struct pry_buffer *out, struct pry_slice text, enum pry_render form)
{
  if (form == PRY_RENDER_BODY)
    return pry_buffer_append_slice(out, text);
  while (text.size && text.data[text.size - 1] == '\n')
    text.size--;
  return pry_buffer_append_slice(out, text) && pry_buffer_append_text(out, "\n\n");
}

static int run_render(lua_State *L)
{
  struct dialect_run *run = lua_touserdata(L, 1);
  char complaint[128];
  if (!pry_declare_push_render(L, run->dialect))
    return 0;
  pry_view_push(L, run->decision, PRY_VIEW_ERR);
  lua_pushstring(L, run->form == PRY_RENDER_BODY ? "body" : "event");
  lua_call(L, 2, 1);
  if (!lua_toboolean(L, 2))
    return 0;
  if (lua_type(L, 2) == LUA_TSTRING) {
    run->answered = append_text(run->out, pry_lua_text(L, 2), run->form);
    return 0;
  }
  if (lua_type(L, 2) != LUA_TTABLE)
    return luaL_error(L, "render must return text or a table, got %s", luaL_typename(L, 2));
  struct pry_buffer *json = pry_lua_buffer(L, PRY_RESPOND_MAX);
  if (!pry_lua_json_append(L, 2, json, PRY_SECRETS_REFUSED, NULL, complaint, sizeof complaint))
    return luaL_error(L, "render: %s", complaint);
  struct pry_slice text = pry_buffer_slice(json);
  run->answered =
      run->form == PRY_RENDER_BODY ? pry_buffer_append_slice(run->out, text) : append_event(run->out, text);
  return 0;
}

/* Runs one of the two; false: it has no answer, or failed, which is told. */
static bool run_dialect(struct pry_script *script, struct dialect_run *job, lua_CFunction function, const char *name)
{
  struct pry_decider *decider = decider_of(script);
  struct pry_decision *outer = decider->current;
  struct pry_run run;
  pry_run_init(&run, script, 1);
  run.watch = pry_declare_dialect_watch(script->L, job->dialect);
  job->decision->name = job->dialect->name;
  job->decision->now = pry_loop_unix_time(script->state.worker->loop);
  decider->current = job->decision;
  enum pry_door_result door = pry_door_call(script, function, job, &run);
  decider->current = outer;
  if (door != PRY_DOOR_OK)
    tell_fault(job->decision, name, pry_door_run_result(door), job->decision->call_id, run.fault);
  return_slot(job->decision);
  return door == PRY_DOOR_OK && job->answered;
}

static bool state_classify(struct pry_state *state, const struct pry_dialect *dialect,
                           const struct pry_answer_view *answer, struct pry_failure *failure)
{
  struct pry_script *script = (struct pry_script *)state;
  if (!dialect->has_classify)
    return false;
  struct dialect_run job = {.decision = take_slot(decider_of(script)), .dialect = dialect, .failure = *failure};
  if (!job.decision)
    return false;
  job.decision->answer = answer;
  job.decision->failure = failure;
  if (!run_dialect(script, &job, run_classify, "classify"))
    return false;
  *failure = job.failure;
  return true;
}

static bool state_render(struct pry_state *state, const struct pry_dialect *dialect, const struct pry_failure *failure,
                         const char *call_id, enum pry_render form, struct pry_buffer *out)
{
  struct pry_script *script = (struct pry_script *)state;
  size_t before = out->size;
  if (!dialect->has_render)
    return false;
  struct dialect_run job = {
      .decision = take_slot(decider_of(script)), .dialect = dialect, .form = form, .out = out};
  if (!job.decision)
    return false;
  job.decision->failure = failure;
  job.decision->call_id = call_id;
  if (run_dialect(script, &job, run_render, "render"))
    return true;
  out->size = before;
  return false;
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

static const struct pry_state_ops state_ops = {state_ask,    state_cancel, state_classify,
                                               state_render, state_memory, state_free};

static void decider_free(struct pry_decider *decider)
{
  if (!decider)
    return;
  while (decider->slots) {
    struct pry_decision *decision = decider->slots;
    decider->slots = decision->next;
    free(decision);
  }
  pry_buffer_fini(&decider->read);
  free(decider);
}

static void script_closing(struct pry_script *script)
{
  decider_free(script->host);
  script->host = NULL;
}

/* Inside the door. */
static int find_grants(lua_State *L)
{
  struct pry_decider *decider = lua_touserdata(L, 1);
  pry_refresh_open(L, decider->config);
  return 0;
}

bool pry_decider_attach(struct pry_script *script, struct pry_generation *generation, struct pry_worker *worker,
                        char *fault)
{
  struct pry_run run;
  struct pry_decider *decider = calloc(1, sizeof *decider);
  if (!decider) {
    snprintf(fault, PRY_FAULT_MAX, "not enough memory");
    return false;
  }
  decider->script = script;
  decider->config = generation->config;
  pry_buffer_init(&decider->read, PRY_EVENT_READS_MAX);
  pry_run_init(&run, script, 10);
  if (pry_door_call(script, find_grants, decider, &run) != PRY_DOOR_OK) {
    snprintf(fault, PRY_FAULT_MAX, "%s", run.fault);
    decider_free(decider);
    return false;
  }
  pry_generation_ref(generation);
  script->state.ops = &state_ops;
  script->state.generation = generation;
  script->state.worker = worker;
  script->host = decider;
  script->closing = script_closing;
  return true;
}
