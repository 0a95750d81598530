/* What an engine says of itself, and reloads. */
#include "addon.h"
#include "value.h"

#include <stdlib.h>

/* status(engine) */
napi_value status(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  struct parry_status now = PARRY_STATUS_INIT;
  napi_value object = NULL;
  take_arguments(&taken, info, 1, &object);
  const struct engine *engine = taken_end(&taken) ? engine_of(env, object) : NULL;
  int error = engine ? parry_status(engine->parry, &now) : PARRY_OK;
  if (error)
    throw_parry(env, error);
  if (!engine || error)
    return NULL;
  napi_value told = new_object(env);
  set_text(env, told, "generation", now.generation);
  set_text(env, told, "version", now.version);
  set_number(env, told, "loadedAt", now.loaded_at);
  set_number(env, told, "policies", now.policies);
  set_number(env, told, "policyTests", now.policy_tests);
  set_number(env, told, "reloads", (double)now.reloads);
  set_number(env, told, "reloadsRefused", (double)now.reloads_refused);
  set_number(env, told, "rollbacks", (double)now.rollbacks);
  set_number(env, told, "policyFaults", (double)now.policy_faults);
  set_number(env, told, "logLinesLost", (double)now.log_lines_lost);
  set_number(env, told, "open", (double)now.open);
  set_number(env, told, "buffered", (double)now.buffered);
  return told;
}

struct sampling {
  napi_env env;
  napi_value samples;
  uint32_t count;
};

static void on_sample(void *user, const struct parry_sample *sample)
{
  struct sampling *sampling = user;
  napi_env env = sampling->env;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok)
    return;
  napi_value told = new_object(env);
  set_text(env, told, "name", sample->name);
  set_text(env, told, "type", sample->type);
  set_text(env, told, "help", sample->help);
  set_text(env, told, "labels", sample->labels);
  set_number(env, told, "value", sample->value);
  (void)napi_set_element(env, sampling->samples, sampling->count++, told);
  (void)napi_close_handle_scope(env, scope);
}

/* metrics(engine) */
napi_value metrics(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  struct sampling sampling = {.env = env};
  napi_value object = NULL;
  take_arguments(&taken, info, 1, &object);
  const struct engine *engine = taken_end(&taken) ? engine_of(env, object) : NULL;
  if (!engine || napi_create_array(env, &sampling.samples) != napi_ok)
    return NULL;
  int error = parry_metrics(engine->parry, on_sample, &sampling);
  if (error)
    throw_parry(env, error);
  return error ? NULL : sampling.samples;
}

/* findings(engine) */
napi_value findings(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  napi_value object = NULL;
  take_arguments(&taken, info, 1, &object);
  const struct engine *engine = taken.failed ? NULL : engine_of(env, object);
  size_t size = engine ? parry_findings(engine->parry, NULL, 0) : 0;
  char *text = engine ? take_memory(&taken, size + 1) : NULL;
  size_t length = text ? parry_findings(engine->parry, text, size + 1) : 0;
  napi_value told = text ? new_text(env, text, length < size ? length : size) : NULL;
  return taken_end(&taken) ? told : NULL;
}

/* ---- reloads, on Node's pool ------------------------------------------------------------------------------------- */

struct reloading {
  struct engine *engine;
  napi_async_work work;
  napi_deferred deferred;
  int error;
};

/* On a thread of the pool. */
static void run_reload(napi_env env, void *data)
{
  struct reloading *reloading = data;
  struct engine *engine = reloading->engine;
  (void)env;
  pthread_mutex_lock(&engine->lock);
  bool closing = engine->closing;
  engine->reloading += !closing;
  pthread_mutex_unlock(&engine->lock);
  reloading->error = closing ? PARRY_EFREED : parry_reload(engine->parry, 1);
  if (closing)
    return;
  pthread_mutex_lock(&engine->lock);
  engine->reloading--;
  pthread_cond_broadcast(&engine->idle);
  pthread_mutex_unlock(&engine->lock);
}

static void on_reload_done(napi_env env, napi_status result, void *data)
{
  struct reloading *reloading = data;
  napi_value error = new_number(env, result == napi_ok ? reloading->error : PARRY_EFREED);
  (void)napi_resolve_deferred(env, reloading->deferred, error);
  (void)napi_delete_async_work(env, reloading->work);
  engine_unref(reloading->engine);
  free(reloading);
}

/* reload(engine): a promise of the error's number. */
napi_value reload(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  napi_value object = NULL;
  napi_value promise = NULL;
  napi_value name = new_text(env, "parry reload", NAPI_AUTO_LENGTH);
  take_arguments(&taken, info, 1, &object);
  struct engine *engine = taken_end(&taken) ? engine_of(env, object) : NULL;
  if (!engine)
    return NULL;
  struct reloading *reloading = calloc(1, sizeof *reloading);
  if (!reloading) {
    throw_parry(env, PARRY_ENOMEM);
    return NULL;
  }
  reloading->engine = engine; /* the work may begin before it is queued, as seen from here */
  if (napi_create_async_work(env, NULL, name, run_reload, on_reload_done, reloading, &reloading->work) == napi_ok &&
      napi_create_promise(env, &reloading->deferred, &promise) == napi_ok &&
      napi_queue_async_work(env, reloading->work) == napi_ok) {
    engine->refs++;
    return promise;
  }
  if (reloading->work)
    (void)napi_delete_async_work(env, reloading->work);
  free(reloading);
  throw_parry(env, PARRY_ENOMEM);
  return NULL;
}
