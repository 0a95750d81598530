/* Functions of the program's that policies call. */
#include "addon.h"
#include "value.h"

#include <stdlib.h>
#include <string.h>

/* One for each name ever given; they stay until the engine is gone, as a request may still be on its way. */
struct named {
  struct named *next;
  struct engine *engine;
  char name[64];
};

void names_free(struct named *names)
{
  while (names) {
    struct named *next = names->next;
    free(names);
    names = next;
  }
}

static struct named *name_of(struct engine *engine, const char *name)
{
  struct named *named = engine->names;
  while (named && strcmp(named->name, name) != 0)
    named = named->next;
  if (named)
    return named;
  named = calloc(1, sizeof *named);
  if (!named)
    return NULL;
  named->engine = engine;
  memcpy(named->name, name, strlen(name));
  named->next = engine->names;
  engine->names = named;
  return named;
}

static void on_request(void *user, parry_request_id request, const char *arguments, size_t size)
{
  const struct named *named = user;
  struct engine *engine = named->engine;
  napi_env env = engine->env;
  napi_handle_scope scope;
  napi_value id = NULL;
  if (!engine->events || napi_open_handle_scope(env, &scope) != napi_ok)
    return;
  (void)napi_create_bigint_uint64(env, request.value, &id);
  add_event(engine, EVENT_FUNCTION, new_text(env, named->name, NAPI_AUTO_LENGTH), id, new_text(env, arguments, size));
  (void)napi_close_handle_scope(env, scope);
}

/* register(engine, name, known) */
napi_value register_function(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  napi_value arguments[3] = {NULL};
  bool known = false;
  take_arguments(&taken, info, 3, arguments);
  struct engine *engine = taken.failed ? NULL : engine_of(env, arguments[0]);
  taken.failed = !engine;
  const char *name = take_string(&taken, arguments[1], "name");
  if (!taken.failed)
    (void)napi_get_value_bool(env, arguments[2], &known);
  int error = PARRY_EINVAL;
  if (!engine || taken.failed) {
    error = PARRY_OK;
  } else if (name && strlen(name) < sizeof((struct named *)NULL)->name) {
    struct named *named = name_of(engine, name);
    error = named ? parry_register(engine->parry, name, known ? on_request : NULL, named, 0) : PARRY_ENOMEM;
  }
  (void)taken_end(&taken);
  if (error)
    throw_parry(env, error);
  return NULL;
}

/* reply(engine, id, json, error): false when nobody waits any more. */
napi_value reply(napi_env env, napi_callback_info info)
{
  struct taken taken = {.env = env};
  napi_value arguments[4] = {NULL};
  napi_value result = NULL;
  parry_request_id request = {0};
  bool lossless = false;
  take_arguments(&taken, info, 4, arguments);
  const struct engine *engine = taken.failed ? NULL : engine_of(env, arguments[0]);
  taken.failed = !engine;
  if (engine)
    (void)napi_get_value_bigint_uint64(env, arguments[1], &request.value, &lossless);
  const char *json = take_string(&taken, arguments[2], "json");
  const char *message = take_string(&taken, arguments[3], "error");
  int error = engine && !taken.failed ? parry_reply(engine->parry, request, json, message) : PARRY_OK;
  if (!taken_end(&taken))
    return NULL;
  if (error && error != PARRY_ENOENT)
    throw_parry(env, error);
  (void)napi_get_boolean(env, !error, &result);
  return result;
}
