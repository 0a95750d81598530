/* Calls: parry_call() and what it tells. */
#include "addon.h"
#include "value.h"

#include <stdlib.h>

/* Bytes that wait in JavaScript for somebody to take them before the provider is held back. */
enum { UNREAD_MOST = 256 * 1024 };

/* ---- pieces of work --------------------------------------------------------------------------------------------- */

static void work_unref(struct work *work)
{
  if (--work->refs)
    return;
  engine_unref(work->engine);
  free(work);
}

static void on_collected(napi_env env, void *data, void *hint)
{
  struct work *work = data;
  (void)hint;
  (void)napi_delete_reference(env, work->object);
  work->object = NULL;
  work_unref(work);
}

struct work *work_new(struct engine *engine, napi_value object)
{
  struct work *work = calloc(1, sizeof *work);
  if (!work) {
    throw_parry(engine->env, PARRY_ENOMEM);
    return NULL;
  }
  work->refs = 1;
  work->engine = engine;
  engine->refs++;
  if (napi_wrap(engine->env, object, work, on_collected, NULL, NULL) != napi_ok) {
    work_unref(work);
    (void)napi_throw_type_error(engine->env, "ERR_INVALID_ARG_TYPE", "an object that stands for one call only");
    return NULL;
  }
  if (napi_create_reference(engine->env, object, 1, &work->object) != napi_ok) {
    throw_parry(engine->env, PARRY_ENOMEM);
    return NULL; /* the object's finalizer frees it */
  }
  work->refs++;
  engine_opened(engine);
  return work;
}

void work_end(struct work *work)
{
  work->ended = true;
  if (work->object)
    (void)napi_reference_unref(work->engine->env, work->object, NULL);
  engine_closed(work->engine);
  work_unref(work);
}

static struct work *work_of(napi_env env, napi_value object)
{
  void *work = NULL;
  return object && napi_unwrap(env, object, &work) == napi_ok ? work : NULL;
}

/* Adds an event about the work; its values are made in a scope that the caller has opened. */
static void tell(const struct work *work, enum event_kind kind, napi_value first, napi_value second)
{
  napi_value object = NULL;
  if (work->engine->events && napi_get_reference_value(work->engine->env, work->object, &object) == napi_ok)
    add_event(work->engine, kind, object, first, second);
}

/* False: nobody collects. */
static bool open_scope(const struct work *work, napi_handle_scope *scope)
{
  return work->engine->events && napi_open_handle_scope(work->engine->env, scope) == napi_ok;
}

static void close_scope(const struct work *work, napi_handle_scope scope)
{
  (void)napi_close_handle_scope(work->engine->env, scope);
}

/* ---- what a call tells ------------------------------------------------------------------------------------------- */

static void on_headers(void *user, int status, const struct parry_header *headers, size_t count)
{
  const struct work *work = user;
  napi_env env = work->engine->env;
  napi_handle_scope scope;
  napi_value pairs = NULL;
  if (!open_scope(work, &scope))
    return;
  (void)napi_create_array_with_length(env, count * 2, &pairs);
  for (size_t i = 0; i < count; i++) {
    (void)napi_set_element(env, pairs, (uint32_t)(i * 2), new_text(env, headers[i].name, NAPI_AUTO_LENGTH));
    /* As Node and browsers read headers: each byte a character. Headers objects would refuse what UTF-8 makes of it. */
    napi_value value = NULL;
    (void)napi_create_string_latin1(env, headers[i].value, NAPI_AUTO_LENGTH, &value);
    (void)napi_set_element(env, pairs, (uint32_t)(i * 2 + 1), value);
  }
  tell(work, EVENT_HEADERS, new_number(env, status), pairs);
  close_scope(work, scope);
}

static int on_data(void *user, const void *data, size_t size)
{
  struct work *work = user;
  napi_handle_scope scope;
  napi_value bytes = NULL;
  if (!open_scope(work, &scope))
    return 0;
  if (napi_create_buffer_copy(work->engine->env, size, data, NULL, &bytes) == napi_ok)
    tell(work, EVENT_DATA, bytes, NULL);
  close_scope(work, scope);
  work->unread += size;
  work->paused = work->unread >= UNREAD_MOST;
  return work->paused ? PARRY_PAUSE : 0;
}

static void on_done(void *user, const struct parry_outcome *outcome)
{
  struct work *work = user;
  napi_env env = work->engine->env;
  napi_handle_scope scope;
  if (open_scope(work, &scope)) {
    napi_value told = new_object(env);
    set_flag(env, told, "ok", outcome->ok);
    set_number(env, told, "status", outcome->status);
    set_text(env, told, "category", outcome->category);
    set_text(env, told, "code", outcome->code);
    set_text(env, told, "message", outcome->message);
    set_text(env, told, "why", outcome->why);
    set_number(env, told, "retryAfter", outcome->retry_after);
    set_number(env, told, "attempts", outcome->attempts);
    set_text(env, told, "target", outcome->target);
    set_text(env, told, "callId", outcome->call_id);
    set_text(env, told, "generation", outcome->generation);
    set_flag(env, told, "truncated", outcome->truncated);
    tell(work, EVENT_DONE, told, NULL);
    close_scope(work, scope);
  }
  work_end(work);
}

static void on_attempt(void *user, const struct parry_attempt *attempt)
{
  struct work *work = user;
  napi_env env = work->engine->env;
  napi_handle_scope scope;
  work->id = attempt->call;
  if (!open_scope(work, &scope))
    return;
  napi_value told = new_object(env);
  set_number(env, told, "number", attempt->number);
  set_text(env, told, "target", attempt->target);
  set_text(env, told, "provider", attempt->provider);
  set_text(env, told, "model", attempt->model);
  set_number(env, told, "deadlineLeft", attempt->deadline_left);
  tell(work, EVENT_ATTEMPT, told, NULL);
  close_scope(work, scope);
}

static void on_abandon(void *user, parry_call_id call, unsigned number)
{
  const struct work *work = user;
  napi_handle_scope scope;
  (void)call;
  if (!open_scope(work, &scope))
    return;
  tell(work, EVENT_ABANDON, new_number(work->engine->env, number), NULL);
  close_scope(work, scope);
}

/* ---- from JavaScript --------------------------------------------------------------------------------------------- */

/* call(engine, work, request) */
napi_value start_call(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  struct parry_request request = PARRY_REQUEST_INIT;
  struct parry_call_ops ops = PARRY_CALL_OPS_INIT;
  napi_value arguments[3] = {NULL};
  take_arguments(&taken, info, 3, arguments);
  struct engine *engine = taken.failed ? NULL : engine_of(env, arguments[0]);
  taken.failed = !engine;
  request.method = take_text(&taken, arguments[2], "method");
  request.path = take_text(&taken, arguments[2], "path");
  request.target = take_text(&taken, arguments[2], "target");
  request.headers = take_pairs(&taken, arguments[2], "headers", &request.header_count);
  request.body = take_bytes(&taken, arguments[2], "body", &request.body_size);
  ops.on_headers = on_headers;
  ops.on_data = on_data;
  ops.on_done = on_done;
  if (take_flag(&taken, arguments[2], "wantsAttempts")) {
    ops.on_attempt = on_attempt;
    ops.on_abandon = on_abandon;
  }
  struct work *work = engine && !taken.failed ? work_new(engine, arguments[1]) : NULL;
  int error = work ? parry_call(engine->parry, &request, &ops, work, &work->id) : PARRY_OK;
  (void)taken_end(&taken);
  if (error) {
    work_end(work);
    throw_parry(env, error);
  }
  return NULL;
}

/* cancel(work) */
napi_value cancel_call(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  napi_value object = NULL;
  take_arguments(&taken, info, 1, &object);
  const struct work *work = taken_end(&taken) ? work_of(env, object) : NULL;
  if (work && !work->ended && work->engine->parry)
    (void)parry_call_cancel(work->engine->parry, work->id);
  return NULL;
}

/* took(work, bytes): somebody has read that much. */
napi_value took_data(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  napi_value arguments[2] = {NULL};
  double bytes = 0;
  take_arguments(&taken, info, 2, arguments);
  struct work *work = taken_end(&taken) ? work_of(env, arguments[0]) : NULL;
  if (!work || napi_get_value_double(env, arguments[1], &bytes) != napi_ok || bytes < 0)
    return NULL;
  work->unread -= bytes < (double)work->unread ? (size_t)bytes : work->unread;
  if (work->paused && work->unread < UNREAD_MOST / 2 && !work->ended && work->engine->parry) {
    work->paused = false;
    (void)parry_call_resume(work->engine->parry, work->id);
  }
  return NULL;
}

/* attemptDone(work, number, event...): false when nobody waits for it any more. */
napi_value attempt_done(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  struct parry_event event = PARRY_EVENT_INIT;
  napi_value arguments[2 + EVENT_VALUES] = {NULL};
  napi_value result = NULL;
  uint32_t number = 0;
  int error = PARRY_ENOENT;
  take_arguments(&taken, info, 2 + EVENT_VALUES, arguments);
  const struct work *work = taken.failed ? NULL : work_of(env, arguments[0]);
  if (work && napi_get_value_uint32(env, arguments[1], &number) == napi_ok)
    take_event(&taken, arguments + 2, &event);
  if (work && !taken.failed && !work->ended && work->engine->parry)
    error = parry_attempt_done(work->engine->parry, work->id, number, &event);
  if (!taken_end(&taken))
    return NULL;
  if (error && error != PARRY_ENOENT)
    throw_parry(env, error);
  (void)napi_get_boolean(env, !error, &result);
  return result;
}
