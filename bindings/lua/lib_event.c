#include "lib_view.h"

#include "error_body.h"
#include "freeze.h"

/*
 *   ---@class event
 *   ---@field name string
 *   ---@field fields table
 *   ---@field err err?
 *   ---@field call call?
 *   ---@class answer
 *   ---@field provider string?
 *   ---@field status integer
 *   ---@field category string      as the status says
 *   ---@field retry_after number?
 *   ---@field body string          at most 64 KiB of it
 *   ---@field in_stream boolean    the body is the data of one stream event
 *   ---@field event_type string?   of that event
 *   ---@field header fun(self: answer, name: string): string?
 *   ---@field json fun(self: answer): any, table?
 *   ---@field error fun(self: answer): answer_error
 *   ---@field mentions fun(self: answer, text: string, phrases: string[], from: integer?): integer?  which phrase, from
 *                                the `from`th on, is the first that stands in the text: its first 1024 bytes, letter case
 *                                ignored; phrases are written in small letters
 *   ---@class answer_error        what the body says about the error, see core/engine/error_body.h; nil: not said.
 *                                [1], [2], ...: code, innererror's code, type, reason, state, in small letters
 *   ---@field code string?        numbers as texts
 *   ---@field type string?
 *   ---@field state string?       Google's name of the error, "RESOURCE_EXHAUSTED"
 *   ---@field quota string?       Google's QuotaFailure: the ids of the quotas, a space behind each
 *   ---@field message string?     at most 1023 bytes; of a page, its title
 *   ---@field wait number?        seconds until one may come back, where the body names them
 *   ---@field html true?
 *   ---@field cut true?           it began like JSON, and its end is missing
 */

#define EVENT_FIELDS(X) X(call) X(err) X(fields) X(name)
#define ANSWER_FIELDS(X)                                                                                               \
  X(body)                                                                                                              \
  X(category) X(error) X(event_type) X(header) X(in_stream) X(json) X(mentions) X(provider) X(retry_after) X(status)

#define X(name) EVENT_##name,
enum event_field { EVENT_FIELDS(X) };
#undef X
#define X(name) ANSWER_##name,
enum answer_field { ANSWER_FIELDS(X) };
#undef X

#define X(name) #name,
const char *const pry_event_field_names[] = {EVENT_FIELDS(X) NULL};
const char *const pry_answer_field_names[] = {ANSWER_FIELDS(X) NULL};
#undef X

/* ---- a host's event -------------------------------------------------------------------------------------- */

/* Decoded once: a script may look at it field by field. */
static int push_event_fields(lua_State *L, struct pry_view *view)
{
  const char *why;
  if (lua_getiuservalue(L, 1, 1) == LUA_TTABLE)
    return 1;
  struct pry_slice fields = view->decision->ask->event->fields;
  struct pry_read read = pry_read_begin(view->decision, "event.fields");
  if (fields.size && pry_lua_json_push(L, fields, &why))
    pry_read_json(&read, fields);
  else
    lua_newtable(L);
  pry_read_end(&read);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 1, 1);
  return 1;
}

int pry_event_push_field(lua_State *L, struct pry_view *view, int field)
{
  const struct pry_ask *ask = view->decision->ask;
  switch ((enum event_field)field) {
  case EVENT_call:
    return ask->call ? pry_push_pooled(L, view->decision, PRY_VIEW_CALL) : pry_push_nil(L);
  case EVENT_err:
    return ask->failure ? pry_push_pooled(L, view->decision, PRY_VIEW_ERR) : pry_push_nil(L);
  case EVENT_fields:
    return push_event_fields(L, view);
  case EVENT_name:
    return pry_push_text(L, ask->event->name);
  }
  return 0;
}

/* ---- a provider's answer, for classify ------------------------------------------------------------------------ */

static int answer_header(lua_State *L)
{
  struct pry_view *view = pry_view_check(L, 1, PRY_VIEW_ANSWER);
  struct pry_slice name = pry_lua_text(L, 2), value;
  const struct pry_headers *headers = view->decision->answer->headers;
  return headers && pry_headers_get(headers, name, &value) ? pry_push_slice(L, value) : pry_push_nil(L);
}

static int answer_json(lua_State *L)
{
  return pry_lua_json_decode(L, pry_view_check(L, 1, PRY_VIEW_ANSWER)->decision->answer->body);
}

static void set_text(lua_State *L, const char *name, const char *text)
{
  if (!text[0])
    return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, name);
}

static void set_true(lua_State *L, const char *name, bool is_so)
{
  if (!is_so)
    return;
  lua_pushboolean(L, true);
  lua_setfield(L, -2, name);
}

/* In small letters; what does not fit is left out. */
static struct pry_slice lower(char out[PRY_ERROR_MESSAGE_MAX], struct pry_slice text)
{
  size_t size = text.size < PRY_ERROR_MESSAGE_MAX ? text.size : PRY_ERROR_MESSAGE_MAX;
  for (size_t i = 0; i < size; i++)
    out[i] = (char)pry_ascii_lower((unsigned char)text.data[i]);
  return (struct pry_slice){out, size};
}

static void append_key(lua_State *L, lua_Integer *count, const char *text)
{
  if (!text[0])
    return;
  char small[PRY_ERROR_MESSAGE_MAX];
  pry_push_slice(L, lower(small, pry_slice_of(text)));
  lua_rawseti(L, -2, ++*count);
}

static int answer_error(lua_State *L)
{
  struct pry_error_body error;
  lua_Integer count = 0;
  pry_error_body_read(&error, pry_view_check(L, 1, PRY_VIEW_ANSWER)->decision->answer->body);
  lua_createtable(L, 2, 4);
  append_key(L, &count, error.code);
  append_key(L, &count, error.inner);
  append_key(L, &count, error.type);
  append_key(L, &count, error.reason);
  append_key(L, &count, error.state);
  set_text(L, "code", error.code);
  set_text(L, "type", error.type);
  set_text(L, "state", error.state);
  set_text(L, "quota", error.quota);
  set_text(L, "message", error.message);
  set_true(L, "html", error.html);
  set_true(L, "cut", error.cut);
  if (error.wait >= 0) {
    lua_pushnumber(L, error.wait);
    lua_setfield(L, -2, "wait");
  }
  return 1;
}

static int answer_mentions(lua_State *L)
{
  pry_view_check(L, 1, PRY_VIEW_ANSWER);
  char small[PRY_ERROR_MESSAGE_MAX];
  struct pry_slice text = lower(small, pry_lua_text(L, 2));
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_Integer from = luaL_optinteger(L, 4, 1);
  pry_freeze_contents(L, 3);
  for (lua_Integer i = from; lua_rawgeti(L, -1, i) == LUA_TSTRING; i++) {
    struct pry_slice phrase = pry_lua_text(L, -1);
    if (memmem(text.data, text.size, phrase.data, phrase.size))
      return pry_push_integer(L, i);
    lua_pop(L, 1);
  }
  return pry_push_nil(L);
}

int pry_answer_push_field(lua_State *L, struct pry_view *view, int field)
{
  const struct pry_answer_view *answer = view->decision->answer;
  switch ((enum answer_field)field) {
  case ANSWER_body:
    return pry_push_slice(L, answer->body);
  case ANSWER_category:
    return pry_push_text(L, pry_category_name(view->decision->failure->category));
  case ANSWER_error:
    lua_pushcfunction(L, answer_error);
    return 1;
  case ANSWER_event_type:
    return answer->event_type.size ? pry_push_slice(L, answer->event_type) : pry_push_nil(L);
  case ANSWER_header:
    lua_pushcfunction(L, answer_header);
    return 1;
  case ANSWER_in_stream:
    return pry_push_boolean(L, answer->in_stream);
  case ANSWER_json:
    lua_pushcfunction(L, answer_json);
    return 1;
  case ANSWER_mentions:
    lua_pushcfunction(L, answer_mentions);
    return 1;
  case ANSWER_provider:
    return pry_push_optional(L, answer->provider);
  case ANSWER_retry_after:
    return pry_push_seconds_unless_negative(L, view->decision->failure->retry_after);
  case ANSWER_status:
    return pry_push_integer(L, answer->status);
  }
  return 0;
}

/* ---- call.vars ------------------------------------------------------------------------------------------- */

enum { VARS_NAME_MAX = 64, VARS_VALUE_MAX = 1024 };

static struct pry_slice check_var_name(lua_State *L)
{
  if (lua_type(L, 2) != LUA_TSTRING)
    luaL_error(L, "names in call.vars are text, got %s", luaL_typename(L, 2));
  struct pry_slice name = pry_lua_text(L, 2);
  if (!name.size || name.size > VARS_NAME_MAX)
    luaL_error(L, "names in call.vars have 1 to %d bytes", VARS_NAME_MAX);
  return name;
}

int pry_vars_index(lua_State *L)
{
  struct pry_view *view = lua_touserdata(L, 1);
  pry_view_check_alive(L, view);
  struct pry_slice name = check_var_name(L), value;
  const char *why;
  struct pry_vars *vars = view->decision->ask->call->vars;
  bool found = vars && pry_vars_get(vars, name, &value) && pry_lua_json_push(L, value, &why);
  struct pry_read read = pry_read_begin(view->decision, "call.vars");
  pry_read_text(&read, name);
  if (found)
    pry_read_json(&read, value);
  else
    pry_read_null(&read);
  pry_read_end(&read);
  return found ? 1 : pry_push_nil(L);
}

int pry_vars_newindex(lua_State *L)
{
  struct pry_view *view = lua_touserdata(L, 1);
  char complaint[128];
  pry_view_check_alive(L, view);
  struct pry_slice name = check_var_name(L), value = {NULL, 0};
  struct pry_buffer *text = pry_lua_buffer(L, VARS_VALUE_MAX);
  if (!lua_isnil(L, 3)) {
    if (!pry_lua_json_append(L, 3, text, NULL, NULL, complaint, sizeof complaint))
      return luaL_error(L, "call.vars.%s: %s (plain data only, at most 1 KiB)", name.data, complaint);
    value = pry_buffer_slice(text);
  }
  struct pry_vars *vars = view->decision->ask->call->vars;
  if (!vars)
    return luaL_error(L, "this event has no call.vars");
  if (!pry_vars_set(vars, name, value))
    return luaL_error(L, "call.vars is full: it holds 64 names");
  pry_buffer_fini(text);
  return 0;
}
