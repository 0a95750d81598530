/* Making and closing engines; how long each part of one lives. */
#include "addon.h"
#include "value.h"

#include <stdio.h>
#include <stdlib.h>

void throw_parry(napi_env env, int error)
{
  const char *code = "PARRY_ESYSTEM";
  switch (error) {
#define X(name, value, text)                                                                                           \
  case value:                                                                                                          \
    code = #name;                                                                                                      \
    break;
    PARRY_ERRORS(X)
#undef X
  default:
    break;
  }
  (void)napi_throw_error(env, code, parry_strerror(error));
}

void engine_unref(struct engine *engine)
{
  if (--engine->refs)
    return;
  names_free(engine->names);
  pthread_cond_destroy(&engine->idle);
  pthread_mutex_destroy(&engine->lock);
  free(engine);
}

struct engine *engine_of(napi_env env, napi_value value)
{
  void *engine = NULL;
  if (value && napi_unwrap(env, value, &engine) == napi_ok && ((struct engine *)engine)->parry)
    return engine;
  throw_parry(env, PARRY_EFREED);
  return NULL;
}

void engine_opened(struct engine *engine)
{
  if (engine->open++)
    return;
  uv_ref((uv_handle_t *)&engine->poll);
  (void)napi_reference_ref(engine->env, engine->object, NULL);
}

void engine_closed(struct engine *engine)
{
  if (--engine->open)
    return;
  if (engine->polling)
    uv_unref((uv_handle_t *)&engine->poll);
  if (engine->object)
    (void)napi_reference_unref(engine->env, engine->object, NULL);
}

/* ---- the end ------------------------------------------------------------------------------------------------- */

static void on_poll_closed(uv_handle_t *handle)
{
  struct engine *engine = handle->data;
  if (engine->cleanup)
    (void)napi_remove_async_cleanup_hook(engine->cleanup);
  engine_unref(engine);
}

/* Node's pool may be inside parry_reload(), which parry_free() must not meet. */
static void wait_for_reloads(struct engine *engine)
{
  pthread_mutex_lock(&engine->lock);
  engine->closing = true;
  while (engine->reloading)
    pthread_cond_wait(&engine->idle, &engine->lock);
  pthread_mutex_unlock(&engine->lock);
}

/* Frees the libparry engine; what comes from inside is collected, or dropped when there is no JavaScript any more. */
static napi_value engine_end(struct engine *engine, bool collect)
{
  napi_value events = NULL;
  if (!engine->parry)
    return NULL;
  wait_for_reloads(engine);
  if (collect) {
    events = collect_events(engine, true);
  } else {
    engine->leaving = true;
    (void)parry_free(engine->parry);
  }
  engine->parry = NULL;
  if (engine->polling) {
    engine->polling = false;
    (void)uv_poll_stop(&engine->poll);
    uv_close((uv_handle_t *)&engine->poll, on_poll_closed);
  }
  return events;
}

napi_value close_engine(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  napi_value object = NULL;
  void *engine = NULL;
  take_arguments(&taken, info, 1, &object);
  if (!taken_end(&taken) || napi_unwrap(env, object, &engine) != napi_ok)
    return NULL;
  return engine_end(engine, true);
}

/* The thread ends, or the process does: nothing may be called, and the handle must be closed before the loop is. */
static void on_cleanup(napi_async_cleanup_hook_handle handle, void *user)
{
  (void)handle;
  (void)engine_end(user, false); /* on_poll_closed() removes the hook, also when close() came before */
}

/* Nobody holds the object any more, so nothing is open. */
static void on_collected(napi_env env, void *data, void *hint)
{
  struct engine *engine = data;
  (void)hint;
  (void)engine_end(engine, false);
  (void)napi_delete_reference(env, engine->object);
  (void)napi_delete_reference(env, engine->deliver);
  (void)napi_async_destroy(env, engine->context);
  engine->object = engine->deliver = NULL;
  engine_unref(engine);
}

/* ---- making -------------------------------------------------------------------------------------------------- */

static void on_readable(uv_poll_t *poll, int status, int events)
{
  (void)status;
  (void)events;
  deliver_events(poll->data);
}

static void take_options(struct taken *taken, napi_value object, struct parry_options *options, struct engine *engine)
{
  options->policy_dir = take_text(taken, object, "policyDir");
  options->init_lua = take_text(taken, object, "init");
  options->share_dir = take_text(taken, object, "shareDir");
  options->state_dir = take_text(taken, object, "stateDir");
  options->ca_file = take_text(taken, object, "caFile");
  options->secrets = take_pairs(taken, object, "secrets", &options->secret_count);
  options->threads = (unsigned)take_count(taken, object, "threads", 255);
  options->deciders = (unsigned)take_count(taken, object, "deciders", 255);
  options->max_calls = (size_t)take_count(taken, object, "maxCalls", 1e9);
  options->max_buffered = (size_t)take_count(taken, object, "maxBuffered", 1e15);
  options->log_level = (int)take_count(taken, object, "logLevel", PARRY_LOG_ERROR);
  options->watch = take_flag(taken, object, "watch");
  options->user = engine;
  options->log = take_flag(taken, object, "wantsLog") ? on_log : NULL;
  options->alert = take_flag(taken, object, "wantsAlert") ? on_alert : NULL;
  options->reloaded = take_flag(taken, object, "wantsReload") ? on_reloaded : NULL;
  if (!options->threads)
    options->threads = 1;
}

/* Makes the findings of a refused set of policies the message of the exception. */
static void throw_findings(napi_env env, parry *refused)
{
  size_t size = parry_findings(refused, NULL, 0) + 1;
  char *text = malloc(size);
  if (text)
    (void)parry_findings(refused, text, size);
  (void)napi_throw_error(env, "PARRY_EPOLICY", text ? text : parry_strerror(PARRY_ENOMEM));
  free(text);
}

static bool start_polling(struct engine *engine)
{
  uv_loop_t *loop = NULL;
  int descriptor = parry_fd(engine->parry);
  if (descriptor < 0 || napi_get_uv_event_loop(engine->env, &loop) != napi_ok ||
      uv_poll_init(loop, &engine->poll, descriptor) != 0)
    return false;
  engine->poll.data = engine;
  engine->polling = true;
  engine->refs++;
  uv_unref((uv_handle_t *)&engine->poll);
  return uv_poll_start(&engine->poll, UV_READABLE, on_readable) == 0 &&
         napi_add_async_cleanup_hook(engine->env, on_cleanup, engine, &engine->cleanup) == napi_ok;
}

/* From here on the object owns the engine: when something fails, its finalizer cleans up. */
static napi_value wrap_engine(struct engine *engine, napi_value deliver)
{
  napi_env env = engine->env;
  napi_value object = new_object(env);
  napi_value name = new_text(env, "parry", NAPI_AUTO_LENGTH);
  if (!object || napi_wrap(env, object, engine, on_collected, NULL, NULL) != napi_ok) {
    engine_unref(engine);
    throw_parry(env, PARRY_ENOMEM);
    return NULL;
  }
  /* Not one napi_ref of the wrap's own: one that is weak until something is open. */
  if (napi_set_named_property(env, object, "deliver", deliver) != napi_ok ||
      napi_create_reference(env, object, 0, &engine->object) != napi_ok ||
      napi_create_reference(env, deliver, 0, &engine->deliver) != napi_ok ||
      napi_async_init(env, NULL, name, &engine->context) != napi_ok) {
    throw_parry(env, PARRY_ENOMEM);
    return NULL;
  }
  return object;
}

static struct engine *engine_new(napi_env env)
{
  struct engine *engine = calloc(1, sizeof *engine);
  if (!engine) {
    throw_parry(env, PARRY_ENOMEM);
    return NULL;
  }
  engine->refs = 1;
  engine->env = env;
  pthread_mutex_init(&engine->lock, NULL);
  pthread_cond_init(&engine->idle, NULL);
  return engine;
}

/* create(options, deliver) */
napi_value create_engine(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  struct parry_options options = PARRY_OPTIONS_INIT;
  napi_value arguments[2] = {NULL};
  struct engine *engine = engine_new(env);
  if (!engine)
    return NULL;
  take_arguments(&taken, info, 2, arguments);
  napi_value object = taken.failed ? NULL : wrap_engine(engine, arguments[1]);
  if (object)
    take_options(&taken, arguments[0], &options, engine);
  else
    taken.failed = true;
  int error = taken.failed ? PARRY_OK : parry_new(&engine->parry, &options);
  if (!taken_end(&taken))
    return NULL;
  if (!error && !start_polling(engine))
    error = PARRY_ESYSTEM;
  if (!error)
    return object;
  if (error == PARRY_EPOLICY)
    throw_findings(env, engine->parry);
  else
    throw_parry(env, error);
  (void)engine_end(engine, false);
  return NULL;
}
