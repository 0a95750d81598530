/*
 * value.h: JavaScript values into C and back.
 *
 * Into C: a `taken` owns all memory that one call of ours needed and frees it in one go; the first thing that is wrong
 * makes a TypeError pending and everything after it a no-op, so a function takes all it wants and asks once. Back:
 * setters of properties that do nothing once an exception is pending.
 */
#ifndef PARRY_NODE_VALUE_H
#define PARRY_NODE_VALUE_H

#include <node_api.h>
#include <parry.h>
#include <stdbool.h>
#include <stddef.h>

struct taken {
  napi_env env;
  struct taken_block *blocks;
  bool failed;          /* an exception is pending */
  size_t near_used;     /* elements */
  max_align_t near[32]; /* for what is short, before anything is allocated */
};

/* Frees what was taken; true when all of it was good. */
bool taken_end(struct taken *taken);

void *take_memory(struct taken *taken, size_t size);

/* The arguments of a call; those that were not given are undefined. */
void take_arguments(struct taken *taken, napi_callback_info info, size_t count, napi_value *values);

/* A property; undefined and null give NULL, 0, false, as does a missing one. */
napi_value take_property(struct taken *taken, napi_value object, const char *name);
const char *take_text(struct taken *taken, napi_value object, const char *name);
double take_number(struct taken *taken, napi_value object, const char *name);
/* Whole numbers from 0 to `most`; anything else is refused. */
double take_count(struct taken *taken, napi_value object, const char *name, double most);
bool take_flag(struct taken *taken, napi_value object, const char *name);
/* An array [name, value, …]. */
const struct parry_header *take_pairs(struct taken *taken, napi_value object, const char *name, size_t *count);
/* A string, or any Uint8Array: its bytes, good until the function returns. */
const void *take_bytes(struct taken *taken, napi_value object, const char *name, size_t *size);
/* All that describes an event, as arguments: EVENT_VALUES of them in the order of event() in ../lib/plain.js. One by one
 * and not as an object: a property costs a call and a search for its name, and few events have more than four. */
enum { EVENT_VALUES = 18 };
void take_event(struct taken *taken, const napi_value *values, struct parry_event *event);

/* A string argument, not a property. */
const char *take_string(struct taken *taken, napi_value value, const char *name);

void set_text(napi_env env, napi_value object, const char *name, const char *text);
void set_number(napi_env env, napi_value object, const char *name, double number);
void set_flag(napi_env env, napi_value object, const char *name, bool flag);
napi_value new_object(napi_env env);
napi_value new_text(napi_env env, const char *text, size_t size);
napi_value new_number(napi_env env, double number);

#endif
