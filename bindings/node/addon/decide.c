/* Decisions, reports, events of the program's own. */
#include "addon.h"
#include "value.h"

/* What a policy may answer with is at most a verdict's size. */
enum { BODY_MOST = 64 * 1024 };

/* [action, status, after, target, category, policy, why, body]: ../lib/plain.js makes the object, which is cheaper there. */
static napi_value tell_decision(napi_env env, const struct parry_decision *decision)
{
  napi_value told = NULL;
  size_t size = decision->body_size < decision->body_capacity ? decision->body_size : decision->body_capacity;
  bool body = decision->action == PARRY_RESPOND && decision->body;
  const napi_value values[] = {
      new_number(env, decision->action),
      new_number(env, decision->status),
      new_number(env, decision->after),
      new_text(env, decision->target, NAPI_AUTO_LENGTH),
      new_text(env, decision->category, NAPI_AUTO_LENGTH),
      new_text(env, decision->policy, NAPI_AUTO_LENGTH),
      new_text(env, decision->why, NAPI_AUTO_LENGTH),
      body ? new_text(env, decision->body, size) : NULL,
  };
  uint32_t count = body ? 8 : 7;
  if (napi_create_array_with_length(env, count, &told) != napi_ok)
    return NULL;
  for (uint32_t i = 0; i < count; i++)
    if (values[i])
      (void)napi_set_element(env, told, i, values[i]);
  return told;
}

static void on_ready(void *user, const struct parry_decision *decision)
{
  struct work *work = user;
  struct engine *engine = work->engine;
  napi_handle_scope scope;
  napi_value object = NULL;
  if (engine->events && napi_open_handle_scope(engine->env, &scope) == napi_ok) {
    if (napi_get_reference_value(engine->env, work->object, &object) == napi_ok)
      add_event(engine, EVENT_DECISION, object, tell_decision(engine->env, decision), NULL);
    (void)napi_close_handle_scope(engine->env, scope);
  }
  work_end(work);
}

/* decide(engine, work, event...): a decision, or undefined when it is delivered later, about `work`. Without `work` a
 * handler that would wait has nothing to say. */
napi_value decide(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  napi_value arguments[2 + EVENT_VALUES] = {NULL};
  napi_value result = NULL;
  napi_valuetype type = napi_undefined;
  static _Thread_local char body[BODY_MOST];
  take_arguments(&taken, info, 2 + EVENT_VALUES, arguments);
  struct engine *engine = taken.failed ? NULL : engine_of(env, arguments[0]);
  taken.failed = !engine;
  take_event(&taken, arguments + 2, &event);
  if (!taken.failed)
    (void)napi_typeof(env, arguments[1], &type);
  struct work *work = engine && !taken.failed && type == napi_object ? work_new(engine, arguments[1]) : NULL;
  if (!engine || taken.failed || (type == napi_object && !work)) {
    (void)taken_end(&taken);
    return NULL;
  }
  decision.body = body;
  decision.body_capacity = sizeof body;
  int error = parry_decide(engine->parry, &event, &decision, work ? on_ready : NULL, work);
  (void)taken_end(&taken);
  if (error == PARRY_OK)
    result = tell_decision(env, &decision);
  else if (error != PARRY_PENDING)
    throw_parry(env, error);
  if (work && error != PARRY_PENDING)
    work_end(work);
  return result;
}

/* report(engine, event...) */
napi_value report(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  struct parry_event event = PARRY_EVENT_INIT;
  napi_value arguments[1 + EVENT_VALUES] = {NULL};
  take_arguments(&taken, info, 1 + EVENT_VALUES, arguments);
  const struct engine *engine = taken.failed ? NULL : engine_of(env, arguments[0]);
  taken.failed = !engine;
  take_event(&taken, arguments + 1, &event);
  int error = engine && !taken.failed ? parry_report(engine->parry, &event) : PARRY_OK;
  (void)taken_end(&taken);
  if (error)
    throw_parry(env, error);
  return NULL;
}

/* emit(engine, name, fields) */
napi_value emit(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  napi_value arguments[3] = {NULL};
  take_arguments(&taken, info, 3, arguments);
  const struct engine *engine = taken.failed ? NULL : engine_of(env, arguments[0]);
  taken.failed = !engine;
  const char *name = take_string(&taken, arguments[1], "name");
  const char *fields = take_string(&taken, arguments[2], "fields");
  int error = engine && !taken.failed ? parry_emit(engine->parry, name, fields) : PARRY_OK;
  (void)taken_end(&taken);
  if (error)
    throw_parry(env, error);
  return NULL;
}
