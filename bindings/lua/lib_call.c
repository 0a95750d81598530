#include "lib_view.h"

#include "json.h"

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
 *   ---@field body_size integer    bytes of the body, as far as it is kept
 *   ---@field session string?
 *   ---@field client string?       whose key it came with, where clients have keys
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
 *   ---@field key string?          name of the secret it is made with
 *   ---@class attempt
 *   ---@field target string
 *   ---@field category string?     nil: success, or not ended
 *   ---@field status integer       0: none
 *   ---@field started number       Unix seconds
 *   ---@field ended number?
 *   ---@field first_byte number?   seconds from connecting to the first byte of the answer's body
 *   ---@field err err?
 *   ---@field key string?          name of the secret it was made with
 *   ---@field tokens tokens?       as far as the provider said; known when it has ended
 *   ---@field cost number?         in the currency of the provider's prices; nil: no tokens, or no price
 *   ---@field injected boolean    a fault on purpose: nothing was sent
 *   ---@class tokens
 *   ---@field input integer        those read from a cache included
 *   ---@field output integer
 *   ---@field cached integer       of the input: read from a cache
 *   ---@field total integer        input and output
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
 *   ---@field tokens tokens?       of all its attempts, the failed ones included
 *   ---@field cost number?
 */

#define CALL_FIELDS(X)                                                                                                 \
  X(attempt)                                                                                                           \
  X(body_size)                                                                                                         \
  X(client)                                                                                                            \
  X(deadline_left)                                                                                                     \
  X(dialect)                                                                                                           \
  X(field)                                                                                                             \
  X(find)                                                                                                              \
  X(header) X(id) X(json) X(ledger) X(method) X(model) X(path) X(repeatable) X(route) X(session) X(target) X(vars)
#define TARGET_FIELDS(X) X(attempts) X(key) X(model) X(name) X(provider)
#define ATTEMPT_FIELDS(X)                                                                                              \
  X(category)                                                                                                          \
  X(cost) X(ended) X(err) X(first_byte) X(header) X(injected) X(key) X(started) X(status) X(target) X(tokens)
#define ERR_FIELDS(X)                                                                                                  \
  X(call_id)                                                                                                           \
  X(category) X(code) X(curl_code) X(message) X(origin) X(retry_after) X(retryable) X(sent) X(source) X(status)
#define OUTCOME_FIELDS(X) X(attempts) X(category) X(cost) X(ok) X(status) X(tokens)

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

#define X(name) #name,
static const char *const call_names[] = {CALL_FIELDS(X) NULL};
static const char *const target_names[] = {TARGET_FIELDS(X) NULL};
static const char *const attempt_names[] = {ATTEMPT_FIELDS(X) NULL};
static const char *const err_names[] = {ERR_FIELDS(X) NULL};
static const char *const outcome_names[] = {OUTCOME_FIELDS(X) NULL};
static const char *const no_names[] = {NULL};
#undef X

static const char METATABLES_KEY = 0;

struct kind {
  const char *name;
  const char *const *fields;
  pry_view_field_fn push;
};

static const struct kind kinds[PRY_VIEW_KINDS];

/* ---- views ----------------------------------------------------------------------------------------------- */

static struct pry_view *push_view(lua_State *L, struct pry_decision *decision, enum pry_view_kind kind)
{
  struct pry_view *view = lua_newuserdatauv(L, sizeof *view, kind == PRY_VIEW_EVENT);
  *view = (struct pry_view){.decision = decision, .serial = decision->serial, .kind = kind};
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
  struct pry_view *view = lua_touserdata(L, -1);
  if (view->serial == decision->serial)
    return;
  view->serial = decision->serial;
  if (kind == PRY_VIEW_EVENT) { /* the decoded fields of the last one */
    lua_pushnil(L);
    lua_setiuservalue(L, -2, 1);
  }
}

void pry_view_check_alive(lua_State *L, const struct pry_view *view)
{
  if (view->serial != view->decision->serial || !view->decision->active)
    luaL_error(L, "this call has ended");
}

struct pry_view *pry_view_check(lua_State *L, int index, enum pry_view_kind kind)
{
  struct pry_view *view = lua_touserdata(L, index);
  bool fits = false;
  if (view && lua_getmetatable(L, index)) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &METATABLES_KEY);
    lua_rawgeti(L, -1, kind + 1);
    fits = lua_rawequal(L, -1, -3);
    lua_pop(L, 3);
  }
  if (!fits)
    luaL_error(L, "call this with a colon, as %s:name(…)", kinds[kind].name);
  pry_view_check_alive(L, view);
  return view;
}

static int unknown_field(lua_State *L, const struct pry_view *view)
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
  struct pry_view *view = lua_touserdata(L, 1);
  pry_view_check_alive(L, view);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNUMBER)
    return unknown_field(L, view);
  return kinds[view->kind].push(L, view, (int)lua_tointeger(L, -1));
}

static int view_newindex(lua_State *L)
{
  const struct pry_view *view = lua_touserdata(L, 1);
  return luaL_error(L, "%s is read-only; what a call must remember belongs into call.vars", kinds[view->kind].name);
}

static int view_text(lua_State *L)
{
  const struct pry_view *view = lua_touserdata(L, 1);
  lua_pushstring(L, kinds[view->kind].name);
  return 1;
}

/* ---- call ------------------------------------------------------------------------------------------------ */

static int push_deadline_left(lua_State *L, const struct pry_decision *decision)
{
  pry_time deadline = decision->ask->call->deadline;
  if (deadline == PRY_TIME_NEVER)
    return pry_push_number(L, HUGE_VAL);
  pry_time left = deadline - pry_worker_now(pry_decision_worker(decision));
  return pry_push_number(L, left > 0 ? pry_time_to_seconds(left) : 0);
}

/* ---@param name string   case does not matter
 * ---@return string?      the first line of that name, credentials excepted
 * function call:header(name) end */
static int call_header(lua_State *L)
{
  struct pry_view *view = pry_view_check(L, 1, PRY_VIEW_CALL);
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
  return found ? pry_push_slice(L, value) : pry_push_nil(L);
}

/* ---@param path string               as "max_tokens" or "metadata.user_id"
 * ---@return string|number|boolean?    that field of the request's body; nil for what is absent, or no single value
 * Costs a look over the body, but no memory: what to use instead of call:json() for one field.
 * function call:field(path) end */
static int call_field(lua_State *L)
{
  struct pry_view *view = pry_view_check(L, 1, PRY_VIEW_CALL);
  struct pry_slice path = pry_lua_text(L, 2), body = view->decision->ask->call->body;
  struct pry_json_value value;
  const char *why;
  pry_script_charge_bytes(L, body.size);
  bool found = pry_json_get(body, path.data, &value) && value.type != PRY_JSON_OBJECT && value.type != PRY_JSON_ARRAY &&
               value.type != PRY_JSON_NULL;
  struct pry_read read = pry_read_begin(view->decision, "call.field");
  pry_read_text(&read, path); /* not what it holds: it may be a prompt */
  pry_read_end(&read);
  return found && pry_lua_json_push(L, value.raw, &why) ? 1 : pry_push_nil(L);
}

static const char not_kept[] = "not kept: it is too long";

/* ---@param names string[]   of members, wherever they stand; at most 32
 * ---@param most integer     of what is found
 * ---@return { name: string, path: string, value: string }[]? found   in the order of the body; one more than `most` when
 *                            there is more
 * ---@return table? err      the body is not JSON, longer than 16 MiB, or of too many parts
 * Finds texts in the request's body without reading all of it into Lua: members of these names that are texts, and `url`
 * of those that are objects ({ "image_url": { "url": "…" } }). Not within the top-level `tools`. path is as in
 * JavaScript: messages[3].content[0].image_url.url. Values are cut at 8 KiB, ending in "...[N bytes]".
 * function call:find(names, most) end */
static int call_find(lua_State *L)
{
  struct pry_view *view = pry_view_check(L, 1, PRY_VIEW_CALL);
  const struct pry_call_view *call = view->decision->ask->call;
  struct pry_read read = pry_read_begin(view->decision, "call.find");
  pry_read_end(&read);
  const char *complaint = call->body_passes ? not_kept : NULL;
  if (!complaint && !call->body_is_json) {
    pry_script_charge_bytes(L, call->body.size <= PRY_LUA_JSON_MAX ? call->body.size * PRY_LUA_BYTE_COST : 0);
    complaint = call->body.size > PRY_LUA_JSON_MAX                ? "longer than 1 MiB, and not said to be JSON"
                : pry_json_parse(call->body, NULL) == PRY_JSON_OK ? NULL
                                                                  : "not JSON";
  }
  return pry_lua_call_find(L, call->body, complaint);
}

/* ---@param options? { cut?: integer }   texts longer than `cut` bytes (at least 256) are cut and end in "...[N bytes]", N
 *                                      being their length: so bodies up to 16 MiB can be read, pictures and all
 * ---@return any value, table? err   the request's body decoded; nil and why when it is not JSON, or longer than 1 MiB
 * function call:json(options) end */
static int call_json(lua_State *L)
{
  static const char *const names[] = {"cut", NULL};
  const char *why;
  struct pry_view *view = pry_view_check(L, 1, PRY_VIEW_CALL);
  lua_settop(L, 2);
  pry_lua_options(L, 2, "call:json", names, true);
  size_t cut = (size_t)pry_lua_number_field(L, 2, "call:json", "cut", 0, PRY_LUA_JSON_CUT_MIN, PRY_LUA_JSON_MAX);
  struct pry_read read = pry_read_begin(view->decision, "call.json");
  pry_read_end(&read); /* that it was read; prompts are not recorded */
  const struct pry_call_view *call = view->decision->ask->call;
  if (call->body_passes)
    return pry_lua_failed(L, "invalid_json", not_kept);
  return pry_lua_json_push_cut(L, call->body, cut, call->body_is_json, &why) ? 1
                                                                             : pry_lua_failed(L, "invalid_json", why);
}

static int push_call_field(lua_State *L, struct pry_view *view, int field)
{
  struct pry_decision *decision = view->decision;
  const struct pry_call_view *call = decision->ask->call;
  switch ((enum call_field)field) {
  case CALL_attempt:
    return pry_push_integer(L, call->attempt);
  case CALL_body_size:
    return pry_push_integer(L, (lua_Integer)call->body.size);
  case CALL_client:
    return pry_push_optional(L, call->client);
  case CALL_deadline_left:
    return push_deadline_left(L, decision);
  case CALL_dialect:
    return pry_push_text(L, call->dialect);
  case CALL_find:
    lua_pushcfunction(L, call_find);
    return 1;
  case CALL_header:
    lua_pushcfunction(L, call_header);
    return 1;
  case CALL_id:
    return pry_push_text(L, call->id);
  case CALL_field:
    lua_pushcfunction(L, call_field);
    return 1;
  case CALL_json:
    lua_pushcfunction(L, call_json);
    return 1;
  case CALL_ledger:
    return pry_push_pooled(L, decision, PRY_VIEW_LEDGER);
  case CALL_method:
    return pry_push_slice(L, call->method);
  case CALL_model:
    return pry_push_optional(L, call->model);
  case CALL_path:
    return pry_push_slice(L, call->path);
  case CALL_repeatable:
    return pry_push_boolean(L, call->repeatable);
  case CALL_route:
    return pry_push_text(L, call->route);
  case CALL_session:
    return pry_push_optional(L, call->session);
  case CALL_target:
    return call->target.name[0] ? pry_push_pooled(L, decision, PRY_VIEW_TARGET) : pry_push_nil(L);
  case CALL_vars:
    return pry_push_pooled(L, decision, PRY_VIEW_VARS);
  }
  return 0;
}

static int push_target_field(lua_State *L, struct pry_view *view, int field)
{
  const struct pry_target *target = &view->decision->ask->call->target;
  switch ((enum target_field)field) {
  case TARGET_attempts:
    return pry_push_integer(L, target->attempts);
  case TARGET_key:
    return pry_push_optional(L, target->key);
  case TARGET_model:
    return pry_push_optional(L, target->model);
  case TARGET_name:
    return pry_push_text(L, target->name);
  case TARGET_provider:
    return target->provider ? pry_push_text(L, target->provider->name)
                            : pry_push_slice(L, (struct pry_slice){target->name, strcspn(target->name, "/")});
  }
  return 0;
}

/* ---- attempts -------------------------------------------------------------------------------------------- */

static int ledger_index(lua_State *L)
{
  struct pry_view *ledger = lua_touserdata(L, 1);
  pry_view_check_alive(L, ledger);
  if (!lua_isinteger(L, 2))
    return luaL_error(L, "call.ledger is a list: its keys are 1 to #call.ledger");
  lua_Integer i = lua_tointeger(L, 2);
  if (i < 1 || (lua_Unsigned)i > ledger->decision->ask->call->ledger_count)
    return pry_push_nil(L);
  push_view(L, ledger->decision, PRY_VIEW_ENTRY)->index = (size_t)i - 1;
  return 1;
}

static int ledger_length(lua_State *L)
{
  struct pry_view *ledger = lua_touserdata(L, 1);
  pry_view_check_alive(L, ledger);
  return pry_push_integer(L, (lua_Integer)ledger->decision->ask->call->ledger_count);
}

/* The attempt that a view of on_outcome's argument, of a ledger entry, or of either's err stands for. */
static const struct pry_attempt *attempt_of(const struct pry_view *view)
{
  const struct pry_ask *ask = view->decision->ask;
  return view->index == SIZE_MAX || view->kind == PRY_VIEW_ATTEMPT ? ask->attempt : &ask->call->ledger[view->index];
}

static int push_cost(lua_State *L, const struct pry_spending *spent)
{
  return spent->priced ? pry_push_number(L, spent->cost) : pry_push_nil(L);
}

static int push_tokens(lua_State *L, const struct pry_tokens *tokens)
{
  if (!tokens->known)
    return pry_push_nil(L);
  lua_createtable(L, 0, 4);
  pry_set_tokens(L, tokens);
  return 1;
}

/* ---@param name string   case does not matter
 * ---@return string?      the first line of that name in the provider's answer; in on_outcome only
 * function attempt:header(name) end */
static int attempt_header(lua_State *L)
{
  struct pry_view *view = pry_view_check(L, 1, PRY_VIEW_ATTEMPT);
  struct pry_slice name = pry_lua_text(L, 2), value;
  const struct pry_headers *fields = view->decision->ask->fields;
  bool found = fields && pry_headers_get(fields, name, &value);
  struct pry_read read = pry_read_begin(view->decision, "attempt.header");
  pry_read_text(&read, name);
  if (found)
    pry_read_text(&read, value);
  else
    pry_read_null(&read);
  pry_read_end(&read);
  return found ? pry_push_slice(L, value) : pry_push_nil(L);
}

static int push_attempt_field(lua_State *L, struct pry_view *view, int field)
{
  const struct pry_attempt *attempt = attempt_of(view);
  switch ((enum attempt_field)field) {
  case ATTEMPT_category:
    return pry_push_category(L, attempt->category);
  case ATTEMPT_cost:
    return push_cost(L, &attempt->spent);
  case ATTEMPT_ended:
    return attempt->ended > 0 ? pry_push_number(L, attempt->ended) : pry_push_nil(L);
  case ATTEMPT_err:
    if (attempt->category == PRY_NONE)
      return pry_push_nil(L);
    push_view(L, view->decision, PRY_VIEW_ATTEMPT_ERR)->index = view->kind == PRY_VIEW_ATTEMPT ? SIZE_MAX : view->index;
    return 1;
  case ATTEMPT_key:
    return pry_push_optional(L, attempt->key);
  case ATTEMPT_first_byte:
    return attempt->first_byte > 0 ? pry_push_number(L, attempt->first_byte) : pry_push_nil(L);
  case ATTEMPT_header:
    if (view->kind != PRY_VIEW_ATTEMPT)
      return luaL_error(L, "an answer's headers are there in on_outcome only, as attempt:header(name)");
    lua_pushcfunction(L, attempt_header);
    return 1;
  case ATTEMPT_injected:
    return pry_push_boolean(L, attempt->injected);
  case ATTEMPT_started:
    return pry_push_number(L, attempt->started);
  case ATTEMPT_status:
    return pry_push_integer(L, attempt->status);
  case ATTEMPT_target:
    return pry_push_text(L, attempt->target);
  case ATTEMPT_tokens:
    return push_tokens(L, &attempt->spent.tokens);
  }
  return 0;
}

static const struct pry_failure *failure_of(const struct pry_view *view)
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

static int push_err_field(lua_State *L, struct pry_view *view, int field)
{
  const struct pry_failure *failure = failure_of(view);
  switch ((enum err_field)field) {
  case ERR_call_id:
    return pry_push_optional(L, call_id_of(view->decision));
  case ERR_category:
    return pry_push_text(L, pry_category_name(failure->category));
  case ERR_code:
    return pry_push_optional(L, failure->code);
  case ERR_curl_code:
    return pry_push_integer(L, failure->curl_code);
  case ERR_message:
    return pry_push_text(L, failure->message);
  case ERR_origin:
    return pry_push_text(L, pry_origin_name(failure->origin));
  case ERR_retry_after:
    return pry_push_seconds_unless_negative(L, failure->retry_after);
  case ERR_retryable:
    return pry_push_boolean(L, failure->retryable);
  case ERR_sent:
    return pry_push_boolean(L, failure->sent);
  case ERR_source:
    return pry_push_text(L, pry_source_name(failure->source));
  case ERR_status:
    return pry_push_integer(L, failure->status);
  }
  return 0;
}

static int push_outcome_field(lua_State *L, struct pry_view *view, int field)
{
  const struct pry_outcome *outcome = view->decision->ask->outcome;
  switch ((enum outcome_field)field) {
  case OUTCOME_attempts:
    return pry_push_integer(L, outcome->attempts);
  case OUTCOME_category:
    return pry_push_category(L, outcome->category);
  case OUTCOME_cost:
    return push_cost(L, &outcome->spent);
  case OUTCOME_ok:
    return pry_push_boolean(L, outcome->ok);
  case OUTCOME_status:
    return pry_push_integer(L, outcome->status);
  case OUTCOME_tokens:
    return push_tokens(L, &outcome->spent.tokens);
  }
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
    [PRY_VIEW_EVENT] = {"event", pry_event_field_names, pry_event_push_field},
    [PRY_VIEW_ANSWER] = {"answer", pry_answer_field_names, pry_answer_push_field},
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
      set_function(L, "__index", pry_vars_index);
      set_function(L, "__newindex", pry_vars_newindex);
    }
    lua_rawseti(L, -2, kind + 1);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &METATABLES_KEY);
}
