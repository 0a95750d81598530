/*
 * lib_view.h: the inside of the views, shared by the two files that make them.
 *
 *   lib_call.c   the machinery, and call, target, ledger, attempt, err, outcome
 *   lib_event.c  event, answer, call.vars
 */
#ifndef PRY_LIB_VIEW_H
#define PRY_LIB_VIEW_H

#include "lib.h"

/* The userdata. Reads through it are refused once the slot's serial has moved on. */
struct pry_view {
  struct pry_decision *decision;
  uint64_t serial;
  enum pry_view_kind kind;
  size_t index; /* of a ledger entry */
};

/* Pushes one field, by its number in the kind's table of names; returns the number of values. */
typedef int (*pry_view_field_fn)(lua_State *L, struct pry_view *view, int field);

/* Raises "this call has ended". */
void pry_view_check_alive(lua_State *L, const struct pry_view *view);

/* The live view of that kind at argument `index`; raises for anything else. */
struct pry_view *pry_view_check(lua_State *L, int index, enum pry_view_kind kind);

/* lib_event.c: names are NULL-ended. */
extern const char *const pry_event_field_names[];
extern const char *const pry_answer_field_names[];
int pry_event_push_field(lua_State *L, struct pry_view *view, int field);
int pry_answer_push_field(lua_State *L, struct pry_view *view, int field);
int pry_vars_index(lua_State *L); /* __index and __newindex of call.vars */
int pry_vars_newindex(lua_State *L);

/* ---- small values: each pushes one and returns 1 ---- */

static inline int pry_push_text(lua_State *L, const char *text)
{
  lua_pushstring(L, text);
  return 1;
}

static inline int pry_push_slice(lua_State *L, struct pry_slice text)
{
  lua_pushlstring(L, text.size ? text.data : "", text.size);
  return 1;
}

/* "" stands for "there is none". */
static inline int pry_push_optional(lua_State *L, const char *text)
{
  if (text && text[0])
    lua_pushstring(L, text);
  else
    lua_pushnil(L);
  return 1;
}

static inline int pry_push_integer(lua_State *L, lua_Integer value)
{
  lua_pushinteger(L, value);
  return 1;
}

static inline int pry_push_number(lua_State *L, double value)
{
  lua_pushnumber(L, value);
  return 1;
}

static inline int pry_push_boolean(lua_State *L, bool value)
{
  lua_pushboolean(L, value);
  return 1;
}

static inline int pry_push_nil(lua_State *L)
{
  lua_pushnil(L);
  return 1;
}

static inline int pry_push_seconds_unless_negative(lua_State *L, double seconds)
{
  return seconds < 0 ? pry_push_nil(L) : pry_push_number(L, seconds);
}

/* Into the table on top. */
static inline void pry_set_tokens(lua_State *L, const struct pry_tokens *tokens)
{
  lua_pushinteger(L, (lua_Integer)tokens->input);
  lua_setfield(L, -2, "input");
  lua_pushinteger(L, (lua_Integer)tokens->output);
  lua_setfield(L, -2, "output");
  lua_pushinteger(L, (lua_Integer)tokens->cached);
  lua_setfield(L, -2, "cached");
  lua_pushinteger(L, (lua_Integer)pry_tokens_total(tokens));
  lua_setfield(L, -2, "total");
}

static inline int pry_push_category(lua_State *L, enum pry_category category)
{
  return category == PRY_NONE ? pry_push_nil(L) : pry_push_text(L, pry_category_name(category));
}

static inline int pry_push_pooled(lua_State *L, struct pry_decision *decision, enum pry_view_kind kind)
{
  pry_view_push(L, decision, kind);
  return 1;
}

#endif
