#include "lib.h"

#include <math.h>

/*
 * What handlers are shown. Each kind has one table of its fields, from which reading, the list in the complaint about
 * an unknown field, and the reference come.
 *
 *   ---@class call
 *   ---@field id string            names this call in logs, journal and explain
 *   ---@field route string         pattern of its route
 *   ---@field dialect string       the client's
 *   ---@field method string
 *   ---@field path string          without the query
 *   ---@field model string?        as the client asked
 *   ---@field session string?
 *   ---@field attempt integer      number of the current or last attempt, from 1; 0 before the first
 *   ---@field deadline_left number seconds
 *   ---@field repeatable boolean   may it be sent again after the provider may have acted on it
 *   ---@field target target?       where it is being sent
 *   ---@field ledger attempt[]     its attempts so far
 *   ---@field vars table<string, any>  scratch of this call: plain data, copied in and out
 *   ---@class target
 *   ---@field provider string
 *   ---@field model string?
 *   ---@field name string          "provider/model"
 *   ---@field attempts integer     at this target in this call, the open one included
 *   ---@class attempt
 *   ---@field target string
 *   ---@field category string?     nil: success, or not ended
 *   ---@field status integer       0: none
 *   ---@field started number       Unix seconds
 *   ---@field ended number?
 *   ---@field err err?
 *   ---@class err
 *   ---@field category string
 *   ---@field origin "client"|"server"|"network"|"billing"
 *   ---@field source "provider"|"parry"
 *   ---@field status integer       0: there was no answer
 *   ---@field code string?         the provider's own
 *   ---@field message string
 *   ---@field retry_after number?  seconds
 *   ---@field retryable boolean
 *   ---@field sent boolean         could the provider have begun to act on the request
 *   ---@field curl_code integer    0: the transport did not fail
 *   ---@field call_id string       for render
 *   ---@class outcome
 *   ---@field ok boolean
 *   ---@field status integer
 *   ---@field category string?
 *   ---@field attempts integer
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
 */

#define CALL_FIELDS(X)                                                                                                 \
  X(attempt) X(deadline_left) X(dialect) X(header) X(id) X(json) X(ledger) X(method) X(model) X(path) X(repeatable)    \
  X(route) X(session) X(target) X(vars)
#define TARGET_FIELDS(X) X(attempts) X(model) X(name) X(provider)
#define ATTEMPT_FIELDS(X) X(category) X(ended) X(err) X(started) X(status) X(target)
#define ERR_FIELDS(X)                                                                                                  \
  X(call_id) X(category) X(code) X(curl_code) X(message) X(origin) X(retry_after) X(retryable) X(sent) X(source)       \
  X(status)
#define OUTCOME_FIELDS(X) X(attempts) X(category) X(ok) X(status)
#define EVENT_FIELDS(X) X(call) X(err) X(fields) X(name)
#define ANSWER_FIELDS(X)                                                                                               \
  X(body) X(category) X(event_type) X(header) X(in_stream) X(json) X(provider) X(retry_after) X(status)

#define X(name) CALL_##name,
enum call_field { CALL_FIELDS(X) };
#undef X
#define X(name) TARGET_##name,
enum target_field { TARGET_FIELDS(X) };
#undef X
#define X(name) ATTEMPT_##name,
enum attempt_field { ATTEMPT_FIELDS(X) };
#undef X
#define X(name) ERR_##name,
enum err_field { ERR_FIELDS(X) };
#undef X
#define X(name) OUTCOME_##name,
enum outcome_field { OUTCOME_FIELDS(X) };
#undef X
#define X(name) EVENT_##name,
enum event_field { EVENT_FIELDS(X) };
#undef X
#define X(name) ANSWER_##name,
enum answer_field { ANSWER_FIELDS(X) };
#undef X

#define X(name) #name,
static const char *const call_names[] = {CALL_FIELDS(X) NULL};
static const char *const target_names[] = {TARGET_FIELDS(X) NULL};
static const char *const attempt_names[] = {ATTEMPT_FIELDS(X) NULL};
static const char *const err_names[] = {ERR_FIELDS(X) NULL};
static const char *const outcome_names[] = {OUTCOME_FIELDS(X) NULL};
static const char *const event_names[] = {EVENT_FIELDS(X) NULL};
static const char *const answer_names[] = {ANSWER_FIELDS(X) NULL};
static const char *const no_names[] = {NULL};
#undef X

static const char METATABLES_KEY = 0;

/* The userdata. Reads through it are refused once the slot's serial has moved on. */
struct view {
  struct pry_decision *decision;
  uint64_t serial;
  enum pry_view_kind kind;
  size_t index; /* of a ledger entry */
};

typedef int (*push_field_fn)(lua_State *L, struct view *view, int field);

struct kind {
  const char *name;
  const char *const *fields;
  push_field_fn push;
};

static const struct kind kinds[PRY_VIEW_KINDS];

/* ---- views ----------------------------------------------------------------------------------------------- */

static struct view *push_view(lua_State *L, struct pry_decision *decision, enum pry_view_kind kind)
{
  struct view *view = lua_newuserdatauv(L, sizeof *view, kind == PRY_VIEW_EVENT);
  *view = (struct view){.decision = decision, .serial = decision->serial, .kind = kind};
  lua_rawgetp(L, LUA_REGISTRYINDEX, &METATABLES_KEY);
  lua_rawgeti(L, -1, kind + 1);
  lua_setmetatable(L, -3);
  lua_pop(L, 1);
  return view;
}

/* After a fault some script may have kept them; they stay dead. */
static void forget_views(lua_State *L, struct pry_decision *decision)
{
  for (int kind = 0; kind < PRY_VIEW_POOLED; kind++) {
    luaL_unref(L, LUA_REGISTRYINDEX, decision->views[kind]);
    decision->views[kind] = LUA_NOREF;
  }
  decision->stale_views = false;
}

void pry_view_push(lua_State *L, struct pry_decision *decision, enum pry_view_kind kind)
{
  if (decision->stale_views)
    forget_views(L, decision);
  if (decision->views[kind] == LUA_NOREF) {
    push_view(L, decision, kind);
    lua_pushvalue(L, -1);
    decision->views[kind] = luaL_ref(L, LUA_REGISTRYINDEX);
    return;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, decision->views[kind]);
  struct view *view = lua_touserdata(L, -1);
  if (view->serial == decision->serial)
    return;
  view->serial = decision->serial;
  if (kind == PRY_VIEW_EVENT) { /* the decoded fields of the last one */
    lua_pushnil(L);
    lua_setiuservalue(L, -2, 1);
  }
}

static void check_alive(lua_State *L, const struct view *view)
{
  if (view->serial != view->decision->serial || !view->decision->active)
    luaL_error(L, "this call has ended");
}

static struct view *check_view(lua_State *L, int index, enum pry_view_kind kind)
{
  struct view *view = lua_touserdata(L, index);
  bool fits = false;
  if (view && lua_getmetatable(L, index)) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &METATABLES_KEY);
    lua_rawgeti(L, -1, kind + 1);
    fits = lua_rawequal(L, -1, -3);
    lua_pop(L, 3);
  }
  if (!fits)
    luaL_error(L, "call this with a colon, as %s:name(…)", kinds[kind].name);
  check_alive(L, view);
  return view;
}

static int unknown_field(lua_State *L, const struct view *view)
{
  const struct kind *kind = &kinds[view->kind];
  luaL_Buffer list;
  luaL_buffinit(L, &list);
  for (size_t i = 0; kind->fields[i]; i++) {
    if (i)
      luaL_addstring(&list, ", ");
    luaL_addstring(&list, kind->fields[i]);
  }
  luaL_pushresult(&list);
  if (lua_type(L, 2) != LUA_TSTRING)
    return luaL_error(L, "%s has no field of type %s; it has %s", kind->name, luaL_typename(L, 2), lua_tostring(L, -1));
  return luaL_error(L, "%s has no field \"%s\"; it has %s", kind->name, lua_tostring(L, 2), lua_tostring(L, -1));
}

/* __index; upvalue 1 maps names to field numbers. Scripts cannot get at it but through the userdata. */
static int view_index(lua_State *L)
{
  struct view *view = lua_touserdata(L, 1);
  check_alive(L, view);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNUMBER)
    return unknown_field(L, view);
  return kinds[view->kind].push(L, view, (int)lua_tointeger(L, -1));
}

static int view_newindex(lua_State *L)
{
  const struct view *view = lua_touserdata(L, 1);
  return luaL_error(L, "%s is read-only; what a call must remember belongs into call.vars", kinds[view->kind].name);
}

static int view_text(lua_State *L)
{
  const struct view *view = lua_touserdata(L, 1);
  lua_pushstring(L, kinds[view->kind].name);
  return 1;
}

/* ---- small values ---------------------------------------------------------------------------------------- */

static int push_text(lua_State *L, const char *text)
{
  lua_pushstring(L, text);
  return 1;
}

static int push_slice(lua_State *L, struct pry_slice text)
{
  lua_pushlstring(L, text.size ? text.data : "", text.size);
  return 1;
}

/* "" stands for "there is none". */
static int push_optional(lua_State *L, const char *text)
{
  if (text && text[0])
    lua_pushstring(L, text);
  else
    lua_pushnil(L);
  return 1;
}

static int push_integer(lua_State *L, lua_Integer value)
{
  lua_pushinteger(L, value);
  return 1;
}

static int push_number(lua_State *L, double value)
{
  lua_pushnumber(L, value);
  return 1;
}

static int push_boolean(lua_State *L, bool value)
{
  lua_pushboolean(L, value);
  return 1;
}

static int push_nil(lua_State *L)
{
  lua_pushnil(L);
  return 1;
}

static int push_seconds_unless_negative(lua_State *L, double seconds)
{
  return seconds < 0 ? push_nil(L) : push_number(L, seconds);
}

static int push_category(lua_State *L, enum pry_category category)
{
  return category == PRY_NONE ? push_nil(L) : push_text(L, pry_category_name(category));
}

static int push_pooled(lua_State *L, struct pry_decision *decision, enum pry_view_kind kind)
{
  pry_view_push(L, decision, kind);
  return 1;
}

/* ---- call ------------------------------------------------------------------------------------------------ */

static int push_deadline_left(lua_State *L, const struct pry_decision *decision)
{
  pry_time deadline = decision->ask->call->deadline;
  if (deadline == PRY_TIME_NEVER)
    return push_number(L, HUGE_VAL);
  pry_time left = deadline - pry_loop_now(pry_decision_worker(decision)->loop);
  return push_number(L, left > 0 ? pry_time_to_seconds(left) : 0);
}

/* ---@param name string   case does not matter
 * ---@return string?      the first line of that name, credentials excepted
 * function call:header(name) end */
static int call_header(lua_State *L)
{
  struct view *view = check_view(L, 1, PRY_VIEW_CALL);
  struct pry_slice name = pry_lua_text(L, 2), value;
  const struct pry_headers *headers = view->decision->ask->call->headers;
  bool found = headers && pry_headers_get(headers, name, &value);
  struct pry_read read = pry_read_begin(view->decision, "call.header");
  pry_read_text(&read, name);
  if (found)
    pry_read_text(&read, value);
  else
    pry_read_null(&read);
  pry_read_end(&read);
  return found ? push_slice(L, value) : push_nil(L);
}

static int push_json(lua_State *L, struct pry_slice text)
{
  const char *why;
  if (pry_lua_json_push(L, text, &why))
    return 1;
  lua_pushnil(L);
  lua_pushstring(L, why);
  return 2;
}

/* ---@return any value, string? why   the request's body decoded; nil and a reason when it is not JSON
 * function call:json() end */
static int call_json(lua_State *L)
{
  struct view *view = check_view(L, 1, PRY_VIEW_CALL);
  struct pry_read read = pry_read_begin(view->decision, "call.json");
  pry_read_end(&read); /* that it was read; prompts are not recorded */
  return push_json(L, view->decision->ask->call->body);
}

static int push_call_field(lua_State *L, struct view *view, int field)
{
  struct pry_decision *decision = view->decision;
  const struct pry_call_view *call = decision->ask->call;
  switch ((enum call_field)field) {
  case CALL_attempt:
    return push_integer(L, call->attempt);
  case CALL_deadline_left:
    return push_deadline_left(L, decision);
  case CALL_dialect:
    return push_text(L, call->dialect);
  case CALL_header:
    lua_pushcfunction(L, call_header);
    return 1;
  case CALL_id:
    return push_text(L, call->id);
  case CALL_json:
    lua_pushcfunction(L, call_json);
    return 1;
  case CALL_ledger:
    return push_pooled(L, decision, PRY_VIEW_LEDGER);
  case CALL_method:
    return push_slice(L, call->method);
  case CALL_model:
    return push_optional(L, call->model);
  case CALL_path:
    return push_slice(L, call->path);
  case CALL_repeatable:
    return push_boolean(L, call->repeatable);
  case CALL_route:
    return push_text(L, call->route);
  case CALL_session:
    return push_optional(L, call->session);
  case CALL_target:
    return call->target.name[0] ? push_pooled(L, decision, PRY_VIEW_TARGET) : push_nil(L);
  case CALL_vars:
    return push_pooled(L, decision, PRY_VIEW_VARS);
  }
  return 0;
}

static int push_target_field(lua_State *L, struct view *view, int field)
{
  const struct pry_target *target = &view->decision->ask->call->target;
  switch ((enum target_field)field) {
  case TARGET_attempts:
    return push_integer(L, target->attempts);
  case TARGET_model:
    return push_optional(L, target->model);
  case TARGET_name:
    return push_text(L, target->name);
  case TARGET_provider:
    return push_optional(L, target->provider ? target->provider->name : NULL);
  }
  return 0;
}

/* ---- attempts -------------------------------------------------------------------------------------------- */

static int ledger_index(lua_State *L)
{
  struct view *ledger = lua_touserdata(L, 1);
  check_alive(L, ledger);
  if (!lua_isinteger(L, 2))
    return luaL_error(L, "call.ledger is a list: its keys are 1 to #call.ledger");
  lua_Integer i = lua_tointeger(L, 2);
  if (i < 1 || (lua_Unsigned)i > ledger->decision->ask->call->ledger_count)
    return push_nil(L);
  push_view(L, ledger->decision, PRY_VIEW_ENTRY)->index = (size_t)i - 1;
  return 1;
}

static int ledger_length(lua_State *L)
{
  struct view *ledger = lua_touserdata(L, 1);
  check_alive(L, ledger);
  return push_integer(L, (lua_Integer)ledger->decision->ask->call->ledger_count);
}

/* The attempt that a view of on_outcome's argument, of a ledger entry, or of either's err stands for. */
static const struct pry_attempt *attempt_of(const struct view *view)
{
  const struct pry_ask *ask = view->decision->ask;
  return view->index == SIZE_MAX || view->kind == PRY_VIEW_ATTEMPT ? ask->attempt : &ask->call->ledger[view->index];
}

static int push_attempt_field(lua_State *L, struct view *view, int field)
{
  const struct pry_attempt *attempt = attempt_of(view);
  switch ((enum attempt_field)field) {
  case ATTEMPT_category:
    return push_category(L, attempt->category);
  case ATTEMPT_ended:
    return attempt->ended > 0 ? push_number(L, attempt->ended) : push_nil(L);
  case ATTEMPT_err:
    if (attempt->category == PRY_NONE)
      return push_nil(L);
    push_view(L, view->decision, PRY_VIEW_ATTEMPT_ERR)->index =
        view->kind == PRY_VIEW_ATTEMPT ? SIZE_MAX : view->index;
    return 1;
  case ATTEMPT_started:
    return push_number(L, attempt->started);
  case ATTEMPT_status:
    return push_integer(L, attempt->status);
  case ATTEMPT_target:
    return push_text(L, attempt->target);
  }
  return 0;
}

static const struct pry_failure *failure_of(const struct view *view)
{
  if (view->kind == PRY_VIEW_ATTEMPT_ERR)
    return &attempt_of(view)->failure;
  return view->decision->ask ? view->decision->ask->failure : view->decision->failure;
}

static const char *call_id_of(const struct pry_decision *decision)
{
  if (!decision->ask)
    return decision->call_id;
  return decision->ask->call ? decision->ask->call->id : NULL;
}

static int push_err_field(lua_State *L, struct view *view, int field)
{
  const struct pry_failure *failure = failure_of(view);
  switch ((enum err_field)field) {
  case ERR_call_id:
    return push_optional(L, call_id_of(view->decision));
  case ERR_category:
    return push_text(L, pry_category_name(failure->category));
  case ERR_code:
    return push_optional(L, failure->code);
  case ERR_curl_code:
    return push_integer(L, failure->curl_code);
  case ERR_message:
    return push_text(L, failure->message);
  case ERR_origin:
    return push_text(L, pry_origin_name(failure->origin));
  case ERR_retry_after:
    return push_seconds_unless_negative(L, failure->retry_after);
  case ERR_retryable:
    return push_boolean(L, failure->retryable);
  case ERR_sent:
    return push_boolean(L, failure->sent);
  case ERR_source:
    return push_text(L, pry_source_name(failure->source));
  case ERR_status:
    return push_integer(L, failure->status);
  }
  return 0;
}

static int push_outcome_field(lua_State *L, struct view *view, int field)
{
  const struct pry_outcome *outcome = view->decision->ask->outcome;
  switch ((enum outcome_field)field) {
  case OUTCOME_attempts:
    return push_integer(L, outcome->attempts);
  case OUTCOME_category:
    return push_category(L, outcome->category);
  case OUTCOME_ok:
    return push_boolean(L, outcome->ok);
  case OUTCOME_status:
    return push_integer(L, outcome->status);
  }
  return 0;
}

/* ---- a host's event -------------------------------------------------------------------------------------- */

/* Decoded once: a script may look at it field by field. */
static int push_event_fields(lua_State *L, struct view *view)
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

static int push_event_field(lua_State *L, struct view *view, int field)
{
  const struct pry_ask *ask = view->decision->ask;
  switch ((enum event_field)field) {
  case EVENT_call:
    return ask->call ? push_pooled(L, view->decision, PRY_VIEW_CALL) : push_nil(L);
  case EVENT_err:
    return ask->failure ? push_pooled(L, view->decision, PRY_VIEW_ERR) : push_nil(L);
  case EVENT_fields:
    return push_event_fields(L, view);
  case EVENT_name:
    return push_text(L, ask->event->name);
  }
  return 0;
}

/* ---- a provider's answer, for classify ------------------------------------------------------------------------ */

static int answer_header(lua_State *L)
{
  struct view *view = check_view(L, 1, PRY_VIEW_ANSWER);
  struct pry_slice name = pry_lua_text(L, 2), value;
  const struct pry_headers *headers = view->decision->answer->headers;
  return headers && pry_headers_get(headers, name, &value) ? push_slice(L, value) : push_nil(L);
}

static int answer_json(lua_State *L)
{
  return push_json(L, check_view(L, 1, PRY_VIEW_ANSWER)->decision->answer->body);
}

static int push_answer_field(lua_State *L, struct view *view, int field)
{
  const struct pry_answer_view *answer = view->decision->answer;
  switch ((enum answer_field)field) {
  case ANSWER_body:
    return push_slice(L, answer->body);
  case ANSWER_category:
    return push_text(L, pry_category_name(view->decision->failure->category));
  case ANSWER_event_type:
    return answer->event_type.size ? push_slice(L, answer->event_type) : push_nil(L);
  case ANSWER_header:
    lua_pushcfunction(L, answer_header);
    return 1;
  case ANSWER_in_stream:
    return push_boolean(L, answer->in_stream);
  case ANSWER_json:
    lua_pushcfunction(L, answer_json);
    return 1;
  case ANSWER_provider:
    return push_optional(L, answer->provider);
  case ANSWER_retry_after:
    return push_seconds_unless_negative(L, view->decision->failure->retry_after);
  case ANSWER_status:
    return push_integer(L, answer->status);
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

static int vars_index(lua_State *L)
{
  struct view *view = lua_touserdata(L, 1);
  check_alive(L, view);
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
  return found ? 1 : push_nil(L);
}

static int vars_newindex(lua_State *L)
{
  struct view *view = lua_touserdata(L, 1);
  char complaint[128];
  check_alive(L, view);
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

/* ---- metatables ------------------------------------------------------------------------------------------ */

static const struct kind kinds[PRY_VIEW_KINDS] = {
    [PRY_VIEW_CALL] = {"call", call_names, push_call_field},
    [PRY_VIEW_TARGET] = {"call.target", target_names, push_target_field},
    [PRY_VIEW_LEDGER] = {"call.ledger", no_names, NULL},
    [PRY_VIEW_VARS] = {"call.vars", no_names, NULL},
    [PRY_VIEW_ERR] = {"err", err_names, push_err_field},
    [PRY_VIEW_ATTEMPT] = {"attempt", attempt_names, push_attempt_field},
    [PRY_VIEW_OUTCOME] = {"outcome", outcome_names, push_outcome_field},
    [PRY_VIEW_EVENT] = {"event", event_names, push_event_field},
    [PRY_VIEW_ANSWER] = {"answer", answer_names, push_answer_field},
    [PRY_VIEW_ENTRY] = {"call.ledger[i]", attempt_names, push_attempt_field},
    [PRY_VIEW_ATTEMPT_ERR] = {"attempt.err", err_names, push_err_field},
};

static void set_function(lua_State *L, const char *name, lua_CFunction function)
{
  lua_pushcfunction(L, function);
  lua_setfield(L, -2, name);
}

static void push_metatable(lua_State *L, const struct kind *kind)
{
  lua_createtable(L, 0, 6);
  lua_createtable(L, 0, 16);
  for (int i = 0; kind->fields[i]; i++) {
    lua_pushinteger(L, i);
    lua_setfield(L, -2, kind->fields[i]);
  }
  lua_pushcclosure(L, view_index, 1);
  lua_setfield(L, -2, "__index");
  set_function(L, "__newindex", view_newindex);
  set_function(L, "__tostring", view_text);
  lua_pushstring(L, kind->name);
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
}

void pry_lib_call_open(lua_State *L)
{
  lua_createtable(L, PRY_VIEW_KINDS, 0);
  for (int kind = 0; kind < PRY_VIEW_KINDS; kind++) {
    push_metatable(L, &kinds[kind]);
    if (kind == PRY_VIEW_LEDGER) {
      set_function(L, "__index", ledger_index);
      set_function(L, "__len", ledger_length);
    } else if (kind == PRY_VIEW_VARS) {
      set_function(L, "__index", vars_index);
      set_function(L, "__newindex", vars_newindex);
    }
    lua_rawseti(L, -2, kind + 1);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &METATABLES_KEY);
}
