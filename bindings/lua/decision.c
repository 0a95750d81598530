#include "ask_internal.h"

#include "decider.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- decisions ------------------------------------------------------------------------------------------- */

struct pry_decider *pry_decider_of(const struct pry_script *script)
{
  return script->state.ops == &pry_script_state_ops ? script->host : NULL;
}

struct pry_decision *pry_decision_of(lua_State *L)
{
  struct pry_decider *decider = pry_decider_of(pry_script_of(L));
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

void pry_decision_leftover(lua_State *L, struct pry_leftover *leftover, void (*release)(struct pry_leftover *leftover))
{
  struct pry_decision *decision = pry_decision_of(L);
  pry_list_init(&leftover->link);
  leftover->release = release;
  if (decision)
    pry_list_push(&decision->leftovers, &leftover->link);
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

void pry_decision_begin(struct pry_decision *decision, struct pry_message *beginning)
{
  struct pry_worker *worker = pry_decision_worker(decision);
  if (worker->decides)
    pry_decider_begin(worker, beginning);
  else
    beginning->deliver(beginning);
}

void pry_decision_forget(struct pry_decision *decision, struct pry_message *beginning)
{
  if (!beginning->deliver) /* never begun, or forgotten: the decision may be gone */
    return;
  struct pry_worker *worker = pry_decision_worker(decision);
  beginning->deliver = NULL;
  if (worker->decides)
    pry_decider_forget(worker, beginning);
}

struct pry_mailbox *pry_decision_mailbox(const struct pry_decision *decision)
{
  const struct pry_worker *worker = pry_decision_worker(decision);
  return worker->decides ? worker->engine->control->mailbox : worker->mailbox;
}

struct pry_buffer *pry_decision_scratch(const struct pry_decision *decision)
{
  struct pry_buffer *scratch = &decision->decider->scratch;
  pry_buffer_clear(scratch);
  return scratch;
}

struct pry_decision *pry_decision_take(struct pry_decider *decider)
{
  struct pry_decision *decision = decider->free_slots;
  if (decision) {
    decider->free_slots = decision->next_free;
  } else {
    decision = calloc(1, sizeof *decision);
    if (!decision)
      return NULL;
    decision->decider = decider;
    pry_list_init(&decision->leftovers);
    decision->next = decider->slots;
    decider->slots = decision;
    for (int kind = 0; kind < PRY_VIEW_POOLED; kind++)
      decision->views[kind] = LUA_NOREF;
  }
  decision->active = true;
  decision->resumed = false;
  decision->looked_out = false;
  decision->bad_verdict = false;
  decision->http_left = PRY_DECISION_HTTP_SECONDS * PRY_SECOND;
  decision->log_lines = 0;
  decision->task = NULL;
  decision->waits = decider->script->waits;
  return decision;
}

void pry_decision_return(struct pry_decision *decision)
{
  struct pry_decider *decider = decision->decider;
  while (!pry_list_empty(&decision->leftovers)) {
    struct pry_leftover *leftover = PRY_CONTAINER_OF(decision->leftovers.next, struct pry_leftover, link);
    pry_list_remove(&leftover->link);
    leftover->release(leftover);
  }
  /* Who never had a ticket cannot have been woken; and the mailbox has a lock. */
  if (decision->waits != decider->script->waits && pry_decision_worker(decision)->decides)
    pry_mailbox_withdraw(pry_decision_worker(decision)->mailbox, &decision->waking);
  decision->active = false;
  decision->serial++;
  decision->ask = NULL;
  decision->record = NULL;
  decision->answer = NULL;
  decision->failure = NULL;
  decision->call_id = NULL;
  decision->translation = NULL;
  decision->next_free = decider->free_slots;
  decider->free_slots = decision;
}

/* ---- the event record ------------------------------------------------------------------------------------ */

void pry_copy_text(char *to, size_t size, const char *from)
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
    pry_copy_text(record->call_id, sizeof record->call_id, ask->call->id);
    pry_copy_text(record->target, sizeof record->target, ask->call->target.name);
    record->attempt = ask->call->attempt;
    record->deadline_left = left > 0 ? pry_time_to_seconds(left) : 0;
  }
  if (ask->handler == PRY_ON_OUTCOME && ask->attempt) {
    pry_copy_text(record->key, sizeof record->key, ask->attempt->key);
    record->spent = ask->attempt->spent;
  } else if (ask->handler == PRY_ON_DONE && ask->outcome) {
    record->spent = ask->outcome->spent;
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
  pry_copy_text(record->code, sizeof record->code, failure->code);
}

void pry_decision_begin_record(struct pry_decision *decision)
{
  const struct pry_worker *worker = pry_decision_worker(decision);
  struct pry_ask *ask = decision->ask;
  struct pry_event_record *record = pry_event_next(worker->events);
  decision->record = record;
  ask->record = record->position;
  record->time = decision->now;
  record->seed = pry_engine_seed(worker->engine, ask->call ? ask->call->id : decision->name, record->sequence);
  decision->random = record->seed;
  record->handler = ask->handler;
  pry_copy_text(record->policy, sizeof record->policy, decision->name);
  pry_copy_text(record->generation, sizeof record->generation, decision->decider->script->state.generation->id);
  record_inputs(record, ask, pry_worker_now(worker));
}

void pry_decision_end_record(const struct pry_decision *decision)
{
  const struct pry_ask *ask = decision->ask;
  struct pry_event_record *record = pry_event_find(pry_decision_worker(decision)->events, ask->record);
  if (!record)
    return;
  const struct pry_verdict *verdict = &ask->verdict;
  record->result = ask->result;
  pry_copy_text(record->fault, sizeof record->fault, ask->fault);
  record->verdict = verdict->kind;
  if (verdict->kind == PRY_VERDICT_NONE)
    return;
  record->after = verdict->after;
  record->verdict_category = verdict->category;
  record->verdict_status = verdict->status;
  record->line = verdict->line;
  pry_copy_text(record->verdict_target, sizeof record->verdict_target, verdict->target);
  pry_copy_text(record->why, sizeof record->why, verdict->why);
}

/* ---- reads ----------------------------------------------------------------------------------------------- */

struct pry_read pry_read_begin(struct pry_decision *decision, const char *function)
{
  struct pry_event_record *record = decision->record;
  if (!record || record->reads_cut)
    return (struct pry_read){NULL, NULL};
  pry_event_read_begin(record, function);
  return (struct pry_read){record, pry_decision_engine(decision)->scrubber};
}

void pry_read_text(struct pry_read *read, struct pry_slice value)
{
  if (read->record)
    pry_event_read_text(read->record, read->scrubber, value);
}

void pry_read_number(struct pry_read *read, double number)
{
  if (read->record)
    pry_event_read_number(read->record, number);
}

void pry_read_boolean(struct pry_read *read, bool value)
{
  if (read->record)
    pry_event_read_boolean(read->record, value);
}

void pry_read_null(struct pry_read *read)
{
  if (read->record)
    pry_event_read_null(read->record);
}

void pry_read_json(struct pry_read *read, struct pry_slice json)
{
  if (read->record)
    pry_event_read_json(read->record, read->scrubber, json);
}

void pry_read_end(struct pry_read *read)
{
  if (read->record)
    pry_event_read_end(read->record);
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

void pry_decision_tell_fault(struct pry_decision *decision, const char *function, enum pry_run_result result,
                             const char *call_id, char *fault)
{
  struct pry_engine *engine = pry_decision_engine(decision);
  pry_scrubber_apply_text(engine->scrubber, fault);
  struct pry_state *state = &decision->decider->script->state;
  pry_guard_tell(state->worker, state->generation, decision->name, function, fault);
  decision->stale_views = true;
  pry_metrics_add(engine->metrics, PRY_M_POLICY_FAULTS, decision->name, kind_of_fault(result), 1);
  pry_log(engine->log, PRY_LOG_WARN, "policy fault", pry_log_text("policy", decision->name),
          pry_log_text("handler", function), pry_log_text("kind", kind_of_fault(result)), pry_log_text("fault", fault),
          pry_log_text("call_id", call_id), pry_log_text("generation", state->generation->id));
}
