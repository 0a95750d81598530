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

enum { HEADERS_MAX = 65536, NEAR_MOST = sizeof((struct taken *)NULL)->near / sizeof(max_align_t) };

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
  size_t elements = size / sizeof *taken->near + 1;
  if (taken->failed)
    return NULL;
  if (elements <= NEAR_MOST - taken->near_used) {
    taken->near_used += elements;
    return taken->near + taken->near_used - elements;
  }
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

/* The string's bytes. Most are short and fit where there is memory already: then they are read in one go. */
static char *copy_string(struct taken *taken, napi_value value, size_t *size)
{
  enum { LONGEST_CHARACTER = 4 };
  size_t room = (NEAR_MOST - taken->near_used) * sizeof *taken->near;
  char *text = (char *)(taken->near + taken->near_used);
  if (room > LONGEST_CHARACTER && napi_get_value_string_utf8(taken->env, value, text, room, size) == napi_ok &&
      *size + LONGEST_CHARACTER < room) /* all of it: a character that does not fit is left out */
    return take_memory(taken, *size + 1);
  if (napi_get_value_string_utf8(taken->env, value, NULL, 0, size) != napi_ok)
    return NULL;
  text = take_memory(taken, *size + 1);
  if (text)
    (void)napi_get_value_string_utf8(taken->env, value, text, *size + 1, size);
  return text;
}

const char *take_string(struct taken *taken, napi_value value, const char *name)
{
  size_t size = 0;
  napi_valuetype type = type_of(taken, value);
  if (type == napi_undefined)
    return NULL;
  const char *text = type == napi_string ? copy_string(taken, value, &size) : NULL;
  if (!text)
    refuse(taken, name, "a string");
  else if (strlen(text) != size)
    refuse(taken, name, "a string without NUL characters");
  return taken->failed ? NULL : text;
}

static double take_number_value(struct taken *taken, napi_value value, const char *name)
{
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

static double take_count_value(struct taken *taken, napi_value value, const char *name, double most)
{
  char wanted[64];
  double number = take_number_value(taken, value, name);
  if (number >= 0 && number <= most && number == floor(number))
    return number;
  (void)snprintf(wanted, sizeof wanted, "a whole number from 0 to %.0f", most);
  refuse(taken, name, wanted);
  return 0;
}

static bool take_flag_value(struct taken *taken, napi_value value, const char *name)
{
  bool flag = false;
  napi_valuetype type = type_of(taken, value);
  if (type != napi_undefined && (type != napi_boolean || napi_get_value_bool(taken->env, value, &flag) != napi_ok))
    refuse(taken, name, "a boolean");
  return flag;
}

const char *take_text(struct taken *taken, napi_value object, const char *name)
{
  return take_string(taken, take_property(taken, object, name), name);
}

double take_number(struct taken *taken, napi_value object, const char *name)
{
  return take_number_value(taken, take_property(taken, object, name), name);
}

double take_count(struct taken *taken, napi_value object, const char *name, double most)
{
  return take_count_value(taken, take_property(taken, object, name), name, most);
}

bool take_flag(struct taken *taken, napi_value object, const char *name)
{
  return take_flag_value(taken, take_property(taken, object, name), name);
}

static const struct parry_header *take_pairs_value(struct taken *taken, napi_value array, const char *name,
                                                   size_t *count)
{
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

const struct parry_header *take_pairs(struct taken *taken, napi_value object, const char *name, size_t *count)
{
  return take_pairs_value(taken, take_property(taken, object, name), name, count);
}

static const void *take_bytes_value(struct taken *taken, napi_value value, const char *name, size_t *size)
{
  napi_valuetype type = type_of(taken, value);
  bool bytes = false;
  void *data = NULL;
  *size = 0;
  if (type == napi_undefined)
    return NULL;
  if (type == napi_string)
    return copy_string(taken, value, size);
  if (napi_is_buffer(taken->env, value, &bytes) != napi_ok || !bytes ||
      napi_get_buffer_info(taken->env, value, &data, size) != napi_ok)
    refuse(taken, name, "a string or a Uint8Array");
  return data;
}

const void *take_bytes(struct taken *taken, napi_value object, const char *name, size_t *size)
{
  return take_bytes_value(taken, take_property(taken, object, name), name, size);
}

void take_event(struct taken *taken, const napi_value *values, struct parry_event *event)
{
  event->ok = take_flag_value(taken, values[0], "ok");
  event->status = (int)take_count_value(taken, values[1], "status", 999);
  event->curl_code = (int)take_count_value(taken, values[2], "curlCode", 999);
  event->category = take_string(taken, values[3], "category");
  event->code = take_string(taken, values[4], "code");
  event->message = take_string(taken, values[5], "message");
  event->retry_after = take_number_value(taken, values[6], "retryAfter");
  event->not_sent = take_flag_value(taken, values[7], "notSent");
  event->headers = take_pairs_value(taken, values[8], "headers", &event->header_count);
  event->body = take_bytes_value(taken, values[9], "body", &event->body_size);
  event->route = take_string(taken, values[10], "route");
  event->target = take_string(taken, values[11], "target");
  event->attempt = (unsigned)take_count_value(taken, values[12], "attempt", 1e9);
  event->deadline_left = take_number_value(taken, values[13], "deadlineLeft");
  event->not_repeatable = take_flag_value(taken, values[14], "notRepeatable");
  event->seconds = take_number_value(taken, values[15], "seconds");
  event->name = take_string(taken, values[16], "name");
  event->fields = take_string(taken, values[17], "fields");
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
