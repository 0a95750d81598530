/* JavaScript values into C and back. */
#include "value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct taken_block {
  struct taken_block *next;
  max_align_t memory[];
};

enum { HEADERS_MAX = 65536 };

/* ---- into C -------------------------------------------------------------------------------------------------- */

bool taken_end(struct taken *taken)
{
  while (taken->blocks) {
    struct taken_block *next = taken->blocks->next;
    free(taken->blocks);
    taken->blocks = next;
  }
  return !taken->failed;
}

/* What Node itself refused has its exception pending already; ours is made only when there is none. */
static void refuse(struct taken *taken, const char *name, const char *wanted)
{
  bool pending = false;
  char text[200];
  taken->failed = true;
  (void)napi_is_exception_pending(taken->env, &pending);
  if (pending)
    return;
  (void)snprintf(text, sizeof text, "%s must be %s", name, wanted);
  (void)napi_throw_type_error(taken->env, "ERR_INVALID_ARG_TYPE", text);
}

void *take_memory(struct taken *taken, size_t size)
{
  if (taken->failed)
    return NULL;
  struct taken_block *block = size < SIZE_MAX / 2 ? malloc(sizeof *block + size) : NULL;
  if (!block) {
    taken->failed = true;
    (void)napi_throw_error(taken->env, "PARRY_ENOMEM", parry_strerror(PARRY_ENOMEM));
    return NULL;
  }
  block->next = taken->blocks;
  taken->blocks = block;
  return block->memory;
}

void take_arguments(struct taken *taken, napi_callback_info info, size_t count, napi_value *values)
{
  if (napi_get_cb_info(taken->env, info, &count, values, NULL, NULL) != napi_ok)
    refuse(taken, "arguments", "given");
}

/* The type of a value, with null told as undefined. */
static napi_valuetype type_of(struct taken *taken, napi_value value)
{
  napi_valuetype type = napi_undefined;
  if (taken->failed || !value || napi_typeof(taken->env, value, &type) != napi_ok || type == napi_null)
    return napi_undefined;
  return type;
}

napi_value take_property(struct taken *taken, napi_value object, const char *name)
{
  napi_value value = NULL;
  if (taken->failed)
    return NULL;
  if (type_of(taken, object) != napi_object)
    refuse(taken, "the argument", "an object");
  else if (napi_get_named_property(taken->env, object, name, &value) != napi_ok)
    refuse(taken, name, "readable");
  return value;
}

const char *take_string(struct taken *taken, napi_value value, const char *name)
{
  size_t size = 0;
  napi_valuetype type = type_of(taken, value);
  if (type == napi_undefined)
    return NULL;
  if (type != napi_string || napi_get_value_string_utf8(taken->env, value, NULL, 0, &size) != napi_ok) {
    refuse(taken, name, "a string");
    return NULL;
  }
  char *text = take_memory(taken, size + 1);
  if (!text)
    return NULL;
  (void)napi_get_value_string_utf8(taken->env, value, text, size + 1, &size);
  if (strlen(text) != size)
    refuse(taken, name, "a string without NUL characters");
  return taken->failed ? NULL : text;
}

const char *take_text(struct taken *taken, napi_value object, const char *name)
{
  return take_string(taken, take_property(taken, object, name), name);
}

double take_number(struct taken *taken, napi_value object, const char *name)
{
  napi_value value = take_property(taken, object, name);
  double number = 0;
  napi_valuetype type = type_of(taken, value);
  if (type == napi_undefined)
    return 0;
  if (type != napi_number || napi_get_value_double(taken->env, value, &number) != napi_ok || !isfinite(number)) {
    refuse(taken, name, "a finite number");
    return 0;
  }
  return number;
}

double take_count(struct taken *taken, napi_value object, const char *name, double most)
{
  char wanted[64];
  double number = take_number(taken, object, name);
  if (number >= 0 && number <= most && number == floor(number))
    return number;
  (void)snprintf(wanted, sizeof wanted, "a whole number from 0 to %.0f", most);
  refuse(taken, name, wanted);
  return 0;
}

bool take_flag(struct taken *taken, napi_value object, const char *name)
{
  napi_value value = take_property(taken, object, name);
  bool flag = false;
  napi_valuetype type = type_of(taken, value);
  if (type != napi_undefined && (type != napi_boolean || napi_get_value_bool(taken->env, value, &flag) != napi_ok))
    refuse(taken, name, "a boolean");
  return flag;
}

const struct parry_header *take_pairs(struct taken *taken, napi_value object, const char *name, size_t *count)
{
  napi_value array = take_property(taken, object, name);
  uint32_t length = 0;
  *count = 0;
  if (type_of(taken, array) == napi_undefined)
    return NULL;
  if (napi_get_array_length(taken->env, array, &length) != napi_ok || length % 2 || length / 2 > HEADERS_MAX) {
    refuse(taken, name, "pairs of names and values");
    return NULL;
  }
  struct parry_header *pairs = take_memory(taken, (length / 2 + 1) * sizeof *pairs);
  for (uint32_t i = 0; i < length && !taken->failed; i++) {
    napi_value element = NULL;
    if (napi_get_element(taken->env, array, i, &element) != napi_ok)
      refuse(taken, name, "readable");
    const char *text = take_string(taken, element, name);
    if (!text)
      refuse(taken, name, "made of strings");
    else if (i % 2)
      pairs[i / 2].value = text;
    else
      pairs[i / 2].name = text;
  }
  *count = taken->failed ? 0 : length / 2;
  return taken->failed ? NULL : pairs;
}

const void *take_bytes(struct taken *taken, napi_value object, const char *name, size_t *size)
{
  napi_value value = take_property(taken, object, name);
  napi_valuetype type = type_of(taken, value);
  bool bytes = false;
  void *data = NULL;
  *size = 0;
  if (type == napi_undefined)
    return NULL;
  if (type == napi_string) {
    (void)napi_get_value_string_utf8(taken->env, value, NULL, 0, size);
    char *text = take_memory(taken, *size + 1);
    if (text)
      (void)napi_get_value_string_utf8(taken->env, value, text, *size + 1, size);
    return text;
  }
  if (napi_is_buffer(taken->env, value, &bytes) != napi_ok || !bytes ||
      napi_get_buffer_info(taken->env, value, &data, size) != napi_ok)
    refuse(taken, name, "a string or a Uint8Array");
  return data;
}

void take_event(struct taken *taken, napi_value object, struct parry_event *event)
{
  event->ok = take_flag(taken, object, "ok");
  event->status = (int)take_count(taken, object, "status", 999);
  event->curl_code = (int)take_count(taken, object, "curlCode", 999);
  event->category = take_text(taken, object, "category");
  event->code = take_text(taken, object, "code");
  event->message = take_text(taken, object, "message");
  event->retry_after = take_number(taken, object, "retryAfter");
  event->not_sent = take_flag(taken, object, "notSent");
  event->headers = take_pairs(taken, object, "headers", &event->header_count);
  event->body = take_bytes(taken, object, "body", &event->body_size);
  event->route = take_text(taken, object, "route");
  event->target = take_text(taken, object, "target");
  event->attempt = (unsigned)take_count(taken, object, "attempt", 1e9);
  event->deadline_left = take_number(taken, object, "deadlineLeft");
  event->not_repeatable = take_flag(taken, object, "notRepeatable");
  event->seconds = take_number(taken, object, "seconds");
  event->name = take_text(taken, object, "name");
  event->fields = take_text(taken, object, "fields");
}

/* ---- back ---------------------------------------------------------------------------------------------------- */

napi_value new_object(napi_env env)
{
  napi_value object = NULL;
  (void)napi_create_object(env, &object);
  return object;
}

napi_value new_text(napi_env env, const char *text, size_t size)
{
  napi_value value = NULL;
  (void)napi_create_string_utf8(env, text ? text : "", text ? size : 0, &value);
  return value;
}

napi_value new_number(napi_env env, double number)
{
  napi_value value = NULL;
  (void)napi_create_double(env, number, &value);
  return value;
}

static void set(napi_env env, napi_value object, const char *name, napi_value value)
{
  if (object && value)
    (void)napi_set_named_property(env, object, name, value);
}

void set_text(napi_env env, napi_value object, const char *name, const char *text)
{
  set(env, object, name, new_text(env, text, NAPI_AUTO_LENGTH));
}

void set_number(napi_env env, napi_value object, const char *name, double number)
{
  set(env, object, name, new_number(env, number));
}

void set_flag(napi_env env, napi_value object, const char *name, bool flag)
{
  napi_value value = NULL;
  (void)napi_get_boolean(env, flag, &value);
  set(env, object, name, value);
}
