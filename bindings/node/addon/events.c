/* What libparry tells, as elements of an array, and how the array gets to JavaScript. */
#include "addon.h"
#include "value.h"

void add_event(struct engine *engine, enum event_kind kind, napi_value about, napi_value first, napi_value second)
{
  napi_env env = engine->env;
  napi_value nothing = NULL;
  if (!engine->events || napi_get_undefined(env, &nothing) != napi_ok)
    return;
  napi_value elements[4] = {new_number(env, kind), about ? about : nothing, first ? first : nothing,
                            second ? second : nothing};
  for (unsigned i = 0; i < 4; i++)
    (void)napi_set_element(env, engine->events, engine->count++, elements[i]);
}

napi_value collect_events(struct engine *engine, bool freeing)
{
  napi_value events = NULL;
  (void)napi_create_array(engine->env, &events);
  engine->events = events;
  engine->count = 0;
  if (freeing)
    (void)parry_free(engine->parry);
  else
    (void)parry_dispatch(engine->parry);
  engine->events = NULL;
  return events;
}

void deliver_events(struct engine *engine)
{
  napi_env env = engine->env;
  napi_handle_scope scope;
  napi_value object = NULL;
  napi_value deliver = NULL;
  napi_value error = NULL;
  bool pending = false;
  if (engine->leaving || !engine->parry || napi_open_handle_scope(env, &scope) != napi_ok)
    return;
  engine->refs++; /* JavaScript may close it */
  napi_value events = collect_events(engine, false);
  if (engine->count && napi_get_reference_value(env, engine->object, &object) == napi_ok && object &&
      napi_get_reference_value(env, engine->deliver, &deliver) == napi_ok && deliver)
    (void)napi_make_callback(env, engine->context, object, deliver, 1, &events, NULL);
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok)
    (void)napi_fatal_exception(env, error);
  engine_unref(engine);
  (void)napi_close_handle_scope(env, scope);
}

/* ---- of the engine itself --------------------------------------------------------------------------------------- */

void on_log(void *user, int level, const char *line, size_t size)
{
  struct engine *engine = user;
  napi_handle_scope scope;
  if (!engine->events || napi_open_handle_scope(engine->env, &scope) != napi_ok)
    return;
  add_event(engine, EVENT_LOG, NULL, new_number(engine->env, level), new_text(engine->env, line, size));
  (void)napi_close_handle_scope(engine->env, scope);
}

void on_alert(void *user, const struct parry_alert *alert)
{
  struct engine *engine = user;
  napi_env env = engine->env;
  napi_handle_scope scope;
  if (!engine->events || napi_open_handle_scope(env, &scope) != napi_ok)
    return;
  napi_value told = new_object(env);
  set_text(env, told, "key", alert->key);
  set_text(env, told, "sink", alert->sink);
  set_text(env, told, "severity", alert->severity);
  set_text(env, told, "title", alert->title);
  set_text(env, told, "text", alert->text);
  set_text(env, told, "cause", alert->cause);
  set_flag(env, told, "resolved", alert->resolved);
  set_number(env, told, "count", (double)alert->count);
  add_event(engine, EVENT_ALERT, NULL, told, NULL);
  (void)napi_close_handle_scope(env, scope);
}

void on_reloaded(void *user, const struct parry_reload_info *info)
{
  struct engine *engine = user;
  napi_env env = engine->env;
  napi_handle_scope scope;
  if (!engine->events || napi_open_handle_scope(env, &scope) != napi_ok)
    return;
  napi_value told = new_object(env);
  set_flag(env, told, "ok", info->error == PARRY_OK);
  set_text(env, told, "generation", info->generation);
  set_text(env, told, "findings", info->findings);
  set_flag(env, told, "rolledBack", info->rolled_back);
  add_event(engine, EVENT_RELOAD, NULL, told, NULL);
  (void)napi_close_handle_scope(env, scope);
}
