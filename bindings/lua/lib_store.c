#include "lib.h"

#include "freeze.h"
#include "json.h"
#include "sandbox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * The shared store. Keys are prefixed with the instance's name ("retry:key"), so that two uses of a policy never meet.
 * What is wrong with the arguments raises; a store that is full or out of memory is a failure of the world: nil, err.
 *
 *   ---@class store
 *   store = {}
 */

enum { TTL_MAX_SECONDS = 30 * 24 * 3600 };

static const char WINDOW_KEY = 0, BREAKER_KEY = 0, PARAMETERS_KEY = 0;

/* ---- shared ---------------------------------------------------------------------------------------------- */

struct place {
  struct pry_decision *decision;
  struct pry_store *store;
  pry_time now;
  struct pry_slice key;
  char text[PRY_STORE_KEY_MAX];
};

static void find_place(lua_State *L, const char *function, struct place *place)
{
  place->decision = pry_decision_check(L, function);
  place->store = pry_decision_engine(place->decision)->store;
  place->now = pry_worker_now(pry_decision_worker(place->decision));
}

static void read_key(lua_State *L, const char *function, struct place *place)
{
  find_place(L, function, place);
  place->key = pry_lua_key(L, 1, place->decision, ':', place->text, sizeof place->text);
}

/* Raises for misuse, returns nil, err for the rest. */
static int failed(lua_State *L, struct pry_read *read, enum pry_store_status status)
{
  const char *text = pry_store_status_text(status);
  if (status == PRY_STORE_WRONG_TYPE || status == PRY_STORE_TOO_LONG)
    return luaL_error(L, "store: %s", text);
  pry_read_null(read);
  pry_read_end(read);
  return pry_lua_failed(L, status == PRY_STORE_FULL ? "store_full" : "no_memory", text);
}

static struct pry_read begin_read(const struct place *place, const char *function)
{
  struct pry_read read = pry_read_begin(place->decision, function);
  pry_read_text(&read, place->key);
  return read;
}

/* Seconds until an object is forgotten; 0: the store's default. */
static pry_time check_ttl(lua_State *L, int index)
{
  if (lua_isnoneornil(L, index))
    return 0;
  double seconds = lua_tonumber(L, index);
  luaL_argcheck(L, lua_type(L, index) == LUA_TNUMBER && seconds > 0 && seconds <= TTL_MAX_SECONDS, index,
                "the time to live is a number of seconds above 0, at most 30 days");
  return pry_time_from_seconds(seconds);
}

/* ---- values ---------------------------------------------------------------------------------------------- */

/* A JSON scalar. What is not UTF-8 would not come back as it went in, so it is refused. */
static struct pry_slice check_value(lua_State *L, int index, const struct place *place)
{
  char complaint[128];
  int type = lua_type(L, index);
  luaL_argcheck(L, type == LUA_TSTRING || type == LUA_TNUMBER || type == LUA_TBOOLEAN, index,
                "the store keeps text, numbers and booleans");
  struct pry_buffer *text = pry_decision_scratch(place->decision);
  if (!pry_lua_json_append(L, index, text, NULL, NULL, complaint, sizeof complaint))
    luaL_error(L, "store: %s (a value has at most %d bytes)", complaint, PRY_STORE_VALUE_MAX);
  struct pry_slice value = pry_buffer_slice(text);
  if (type == LUA_TSTRING && !pry_json_equals(value, pry_lua_text(L, index)))
    luaL_argerror(L, index, "the store keeps text in UTF-8 only");
  return value;
}

/* ---@param key string
 * ---@return string|number|boolean|nil value, table? err
 * function store.get(key) end */
static int store_get(lua_State *L)
{
  struct place place;
  const char *why;
  read_key(L, "store.get", &place);
  struct pry_read read = begin_read(&place, "store.get");
  struct pry_buffer *value = pry_decision_scratch(place.decision);
  enum pry_store_status status = pry_store_get(place.store, place.key, value, place.now);
  if (status == PRY_STORE_ABSENT) {
    pry_read_null(&read);
    pry_read_end(&read);
    lua_pushnil(L);
    return 1;
  }
  if (status != PRY_STORE_OK)
    return failed(L, &read, status);
  pry_read_json(&read, pry_buffer_slice(value));
  pry_read_end(&read);
  if (!pry_lua_json_push(L, pry_buffer_slice(value), &why))
    return luaL_error(L, "store.get: %s", why);
  return 1;
}

static int finish_boolean(lua_State *L, struct pry_read *read, enum pry_store_status status, bool value)
{
  if (status != PRY_STORE_OK)
    return failed(L, read, status);
  pry_read_boolean(read, value);
  pry_read_end(read);
  lua_pushboolean(L, value);
  return 1;
}

/* ---@param key string
 * ---@param value string|number|boolean
 * ---@param ttl? number   seconds; an hour when absent
 * ---@return true? ok, table? err
 * function store.set(key, value, ttl) end */
static int store_set(lua_State *L)
{
  struct place place;
  read_key(L, "store.set", &place);
  pry_time ttl = check_ttl(L, 3);
  struct pry_slice value = check_value(L, 2, &place);
  struct pry_read read = begin_read(&place, "store.set");
  return finish_boolean(L, &read, pry_store_set(place.store, place.key, value, ttl, place.now), true);
}

/* ---@param key string
 * ---@param value string|number|boolean
 * ---@param ttl? number
 * ---@return boolean? stored, table? err   false when the key was there already
 * function store.add(key, value, ttl) end */
static int store_add(lua_State *L)
{
  struct place place;
  bool stored = false;
  read_key(L, "store.add", &place);
  pry_time ttl = check_ttl(L, 3);
  struct pry_slice value = check_value(L, 2, &place);
  struct pry_read read = begin_read(&place, "store.add");
  enum pry_store_status status = pry_store_add(place.store, place.key, value, ttl, place.now, &stored);
  return finish_boolean(L, &read, status, stored);
}

/* ---@param key string
 * ---@return boolean removed
 * function store.remove(key) end */
static int store_remove(lua_State *L)
{
  struct place place;
  read_key(L, "store.remove", &place);
  struct pry_read read = begin_read(&place, "store.remove");
  enum pry_store_status status = pry_store_remove(place.store, place.key, place.now);
  bool removed = status == PRY_STORE_OK;
  return finish_boolean(L, &read, status == PRY_STORE_ABSENT ? PRY_STORE_OK : status, removed);
}

/* ---- counters -------------------------------------------------------------------------------------------- */

static int finish_number(lua_State *L, struct pry_read *read, enum pry_store_status status, double number)
{
  if (status != PRY_STORE_OK)
    return failed(L, read, status);
  pry_read_number(read, number);
  pry_read_end(read);
  if (number == floor(number) && fabs(number) < 9007199254740992.0)
    lua_pushinteger(L, (lua_Integer)number);
  else
    lua_pushnumber(L, number);
  return 1;
}

/* ---@param key string
 * ---@param by? number    1
 * ---@param ttl? number
 * ---@return number? total, table? err
 * function store.count(key, by, ttl) end */
static int store_count(lua_State *L)
{
  struct place place;
  double total = 0;
  read_key(L, "store.count", &place);
  double by = lua_isnoneornil(L, 2) ? 1 : lua_tonumber(L, 2);
  luaL_argcheck(L, (lua_isnoneornil(L, 2) || lua_type(L, 2) == LUA_TNUMBER) && isfinite(by), 2,
                "a counter counts by a number");
  pry_time ttl = check_ttl(L, 3);
  struct pry_read read = begin_read(&place, "store.count");
  enum pry_store_status status = pry_store_count(place.store, place.key, by, ttl, place.now, &total);
  return finish_number(L, &read, status, total);
}

/* ---@param key string
 * ---@return number? total, table? err   0 when nobody counted
 * function store.counter(key) end */
static int store_counter(lua_State *L)
{
  struct place place;
  double total = 0;
  read_key(L, "store.counter", &place);
  struct pry_read read = begin_read(&place, "store.counter");
  enum pry_store_status status = pry_store_counter(place.store, place.key, place.now, &total);
  return finish_number(L, &read, status, total);
}

/* ---- quotas ---------------------------------------------------------------------------------------------- */

static double check_amount(lua_State *L, int index)
{
  double amount = lua_tonumber(L, index);
  luaL_argcheck(L, lua_type(L, index) == LUA_TNUMBER && amount >= 0 && amount <= 1e9, index,
                "a quota counts in numbers from 0 to 1e9");
  return amount;
}

/* Takes from a quota when enough is left; it never waits. A quota that nobody touched for an hour is full again.
 * ---@param key string
 * ---@param amount number
 * ---@param capacity number    of the whole quota
 * ---@param reserve? number    what must be left afterwards; 0
 * ---@return boolean? taken, table? err
 * function store.take(key, amount, capacity, reserve) end */
static int store_take(lua_State *L)
{
  struct place place;
  bool taken = false;
  double left = 0;
  read_key(L, "store.take", &place);
  double amount = check_amount(L, 2), capacity = check_amount(L, 3);
  double reserve = lua_isnoneornil(L, 4) ? 0 : check_amount(L, 4);
  struct pry_read read = begin_read(&place, "store.take");
  enum pry_store_status status =
      pry_store_take(place.store, place.key, amount, capacity, reserve, 0, place.now, &taken, &left);
  return finish_boolean(L, &read, status, taken);
}

/* Gives back to a quota, up to what was taken.
 * ---@param key string
 * ---@param amount number
 * ---@return boolean? given, table? err
 * function store.give(key, amount) end */
static int store_give(lua_State *L)
{
  struct place place;
  read_key(L, "store.give", &place);
  double amount = check_amount(L, 2);
  struct pry_read read = begin_read(&place, "store.give");
  enum pry_store_status status = pry_store_give(place.store, place.key, amount, 0, place.now);
  return finish_boolean(L, &read, status, true);
}

/* ---- windows --------------------------------------------------------------------------------------------- */

/* What store.window() and store.breaker() return: parameters and the full key. The state is in the store. */
struct window {
  pry_time length;
  unsigned limit;
  size_t key_size;
  char key[PRY_STORE_KEY_MAX];
};

struct breaker {
  struct pry_breaker_parameters parameters;
  size_t key_size;
  char key[PRY_STORE_KEY_MAX];
};

static void *check_object(lua_State *L, const void *type, const char *name)
{
  bool fits = false;
  if (lua_type(L, 1) == LUA_TUSERDATA && lua_getmetatable(L, 1)) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, type);
    fits = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  if (!fits)
    luaL_error(L, "call this with a colon, on what %s returned", name);
  return lua_touserdata(L, 1);
}

/* The key was prefixed when the object was made: by the instance that made it. */
static struct pry_read begin_object(lua_State *L, struct place *place, const char *function, const char *key,
                                    size_t key_size)
{
  find_place(L, function, place);
  place->key = (struct pry_slice){key, key_size};
  struct pry_read read = pry_read_begin(place->decision, function);
  pry_read_text(&read, place->key);
  return read;
}

/* ---@class window
 * ---@field add fun(self: window): integer?, table?    records one; how many are now in the window
 * ---@field count fun(self: window): integer?, table?
 * ---@field clear fun(self: window): true?, table?
 * ---@param key string
 * ---@param v { seconds: number, limit?: integer }   counts above `limit` (1024) read as `limit`
 * ---@return window
 * function store.window(key, v) end */
static int store_window(lua_State *L)
{
  static const char *const names[] = {"seconds", "limit", NULL};
  struct place place;
  lua_settop(L, 2);
  read_key(L, "store.window", &place);
  pry_lua_options(L, 2, "store.window", names, false);
  double seconds = pry_lua_number_field(L, 2, "store.window", "seconds", 0, 0.001, TTL_MAX_SECONDS);
  double limit = pry_lua_number_field(L, 2, "store.window", "limit", PRY_STORE_WINDOW_MAX, 1, PRY_STORE_WINDOW_MAX);
  if (seconds == 0)
    return luaL_error(L, "store.window{} needs seconds");
  struct window *window = lua_newuserdatauv(L, offsetof(struct window, key) + place.key.size, 0);
  window->length = pry_time_from_seconds(seconds);
  window->limit = (unsigned)limit;
  window->key_size = place.key.size;
  memcpy(window->key, place.key.data, place.key.size);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &WINDOW_KEY);
  lua_setmetatable(L, -2);
  return 1;
}

static int window_add(lua_State *L)
{
  struct window *window = check_object(L, &WINDOW_KEY, "store.window");
  struct place place;
  unsigned count = 0;
  struct pry_read read = begin_object(L, &place, "window:add", window->key, window->key_size);
  enum pry_store_status status =
      pry_store_window_add(place.store, place.key, window->length, window->limit, place.now, &count);
  return finish_number(L, &read, status, count);
}

static int window_count(lua_State *L)
{
  struct window *window = check_object(L, &WINDOW_KEY, "store.window");
  struct place place;
  unsigned count = 0;
  struct pry_read read = begin_object(L, &place, "window:count", window->key, window->key_size);
  enum pry_store_status status = pry_store_window_count(place.store, place.key, window->length, place.now, &count);
  return finish_number(L, &read, status == PRY_STORE_ABSENT ? PRY_STORE_OK : status, count);
}

static int window_clear(lua_State *L)
{
  struct window *window = check_object(L, &WINDOW_KEY, "store.window");
  struct place place;
  struct pry_read read = begin_object(L, &place, "window:clear", window->key, window->key_size);
  enum pry_store_status status = pry_store_window_clear(place.store, place.key, place.now);
  return finish_boolean(L, &read, status == PRY_STORE_ABSENT ? PRY_STORE_OK : status, true);
}

/* ---- breakers -------------------------------------------------------------------------------------------- */

/* A length of time among a breaker's options, which are at argument 2; `missing` seconds when absent. */
static pry_time breaker_time(lua_State *L, const char *field, double missing)
{
  double seconds =
      pry_lua_number_field(L, 2, "store.breaker", field, missing, missing > 0 ? 0.001 : 0, TTL_MAX_SECONDS);
  return pry_time_from_seconds(seconds);
}

static struct pry_breaker_parameters read_parameters(lua_State *L)
{
  static const char *const names[] = {"failures",      "successes",       "permits", "cooldown",
                                      "cooldown_most", "half_open_limit", "ratio",   "slow_ratio",
                                      "window",        "min_calls",       NULL};
  static const char name[] = "store.breaker";
  pry_lua_options(L, 2, name, names, true);
  struct pry_breaker_parameters parameters = {
      .successes = (unsigned)pry_lua_number_field(L, 2, name, "successes", 1, 1, 1e6),
      .permits = (unsigned)pry_lua_number_field(L, 2, name, "permits", 1, 1, 1e6),
      .cooldown = breaker_time(L, "cooldown", 30),
      .cooldown_most = breaker_time(L, "cooldown_most", 0),
      .half_open_limit = breaker_time(L, "half_open_limit", 0),
      .ratio = pry_lua_number_field(L, 2, name, "ratio", 0, 0, 1),
      .slow_ratio = pry_lua_number_field(L, 2, name, "slow_ratio", 0, 0, 1)};
  bool ratios = parameters.ratio > 0 || parameters.slow_ratio > 0;
  parameters.failures = (unsigned)pry_lua_number_field(L, 2, name, "failures", ratios ? 0 : 5, ratios ? 0 : 1, 1e6);
  if (ratios) {
    parameters.window = breaker_time(L, "window", 60);
    parameters.min_calls = (unsigned)pry_lua_number_field(L, 2, name, "min_calls", 1, 1, 1e6);
  }
  return parameters;
}

/* Twice per call the same options, which a policy has in `self`: a frozen table cannot change, so it is read once and
 * what was read is kept under it. There are as many as were loaded. */
static struct pry_breaker_parameters breaker_parameters(lua_State *L)
{
  struct pry_breaker_parameters parameters;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &PARAMETERS_KEY);
  lua_pushvalue(L, 2);
  const struct pry_breaker_parameters *known = lua_rawget(L, -2) == LUA_TUSERDATA ? lua_touserdata(L, -1) : NULL;
  if (known)
    parameters = *known;
  lua_settop(L, 2);
  if (known)
    return parameters;
  if (!pry_freeze_is_frozen(L, 2))
    return read_parameters(L);
  lua_pushvalue(L, 2);
  parameters = read_parameters(L);
  lua_settop(L, 3);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &PARAMETERS_KEY);
  lua_insert(L, 3);
  *(struct pry_breaker_parameters *)lua_newuserdatauv(L, sizeof parameters, 0) = parameters;
  lua_rawset(L, 3);
  lua_settop(L, 2);
  return parameters;
}

/* ---@class breaker
 * ---@field enter fun(self: breaker): boolean, number|table|nil   may the attempt be made; if not, seconds until the next
 *                                            chance. A store without room lets it pass: true, err
 * ---@field success fun(self: breaker, v?: { slow?: boolean }): string?, boolean|table   state after, whether it changed;
 *                                            `slow`: it took too long, which counts for slow_ratio
 * ---@field failure fun(self: breaker, v?: { cooldown?: number }): string?, boolean|table   the same; `cooldown`: a longer
 *                                            time, which the server asked for
 * ---@field state fun(self: breaker): string?, number|table   "closed", "open", "half_open"; seconds until the next chance
 * ---@param key string
 * ---@param v? { failures?: integer, successes?: integer, permits?: integer, cooldown?: number, cooldown_most?: number,
 *               half_open_limit?: number, ratio?: number, slow_ratio?: number, window?: number, min_calls?: integer }
 *               5 (0, off, with a ratio), 1, 1, 30, none (it does not grow), 60, none, none, 60, 1
 * ---@return breaker
 * function store.breaker(key, v) end */
static int store_breaker(lua_State *L)
{
  struct place place;
  lua_settop(L, 2);
  read_key(L, "store.breaker", &place);
  struct pry_breaker_parameters parameters = breaker_parameters(L);
  struct breaker *breaker = lua_newuserdatauv(L, offsetof(struct breaker, key) + place.key.size, 0);
  breaker->parameters = parameters;
  breaker->key_size = place.key.size;
  memcpy(breaker->key, place.key.data, place.key.size);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &BREAKER_KEY);
  lua_setmetatable(L, -2);
  return 1;
}

/* No room for a breaker must not stop calls: it lets them pass, and says so. */
static int breaker_without_room(lua_State *L, struct pry_read *read, enum pry_store_status status)
{
  failed(L, read, status);
  lua_pushboolean(L, true);
  lua_replace(L, -3);
  return 2;
}

/* Seen where it happens, because a scrape comes too late for a state that is left again. */
static void count_transition(const struct place *place, enum pry_breaker_state to)
{
  char target[PRY_STORE_KEY_MAX + 1];
  snprintf(target, sizeof target, "%.*s", (int)place->key.size, place->key.data);
  pry_metrics_add(pry_decision_engine(place->decision)->metrics, PRY_M_BREAKER_TRANSITIONS, target,
                  pry_breaker_state_name(to), 1);
}

static int breaker_enter(lua_State *L)
{
  struct breaker *breaker = check_object(L, &BREAKER_KEY, "store.breaker");
  struct pry_breaker_entry entry = {0};
  struct place place;
  struct pry_read read = begin_object(L, &place, "breaker:enter", breaker->key, breaker->key_size);
  struct pry_list *permits = place.decision->ask->permits;
  if (!permits)
    return luaL_error(L, "breaker:enter works in on_request and on_attempt, where something can be held");
  enum pry_store_status status = pry_breaker_enter(place.store, place.key, &breaker->parameters, place.now, &entry);
  if (status != PRY_STORE_OK)
    return breaker_without_room(L, &read, status);
  if (entry.permit)
    pry_permits_add(permits, entry.permit);
  if (entry.changed)
    count_transition(&place, entry.state);
  pry_read_boolean(&read, entry.allowed);
  pry_read_number(&read, pry_time_to_seconds(entry.retry_in));
  pry_read_end(&read);
  lua_pushboolean(L, entry.allowed);
  if (entry.allowed)
    return 1;
  lua_pushnumber(L, pry_time_to_seconds(entry.retry_in));
  return 2;
}

static int breaker_record(lua_State *L, enum pry_breaker_outcome outcome, pry_time cooldown)
{
  struct breaker *breaker = check_object(L, &BREAKER_KEY, "store.breaker");
  enum pry_breaker_state state = PRY_BREAKER_CLOSED;
  struct pry_list nothing_held;
  struct place place;
  bool changed = false;
  struct pry_read read = begin_object(L, &place, outcome == PRY_BREAKER_FAILURE ? "breaker:failure" : "breaker:success",
                                      breaker->key, breaker->key_size);
  pry_list_init(&nothing_held);
  struct pry_list *permits = place.decision->ask->permits ? place.decision->ask->permits : &nothing_held;
  enum pry_store_status status = pry_breaker_record(place.store, place.key, &breaker->parameters, permits, outcome,
                                                    cooldown, place.now, &state, &changed);
  if (status != PRY_STORE_OK)
    return failed(L, &read, status);
  if (changed)
    count_transition(&place, state);
  pry_read_text(&read, pry_slice_of(pry_breaker_state_name(state)));
  pry_read_boolean(&read, changed);
  pry_read_end(&read);
  lua_pushstring(L, pry_breaker_state_name(state));
  lua_pushboolean(L, changed);
  return 2;
}

static int breaker_success(lua_State *L)
{
  static const char *const names[] = {"slow", NULL};
  bool slow = false;
  lua_settop(L, 2);
  if (!lua_isnil(L, 2)) {
    pry_lua_options(L, 2, "breaker:success", names, true);
    lua_pushliteral(L, "slow");
    slow = lua_rawget(L, 2) != LUA_TNIL && lua_toboolean(L, -1);
    lua_pop(L, 1);
  }
  return breaker_record(L, slow ? PRY_BREAKER_SLOW_SUCCESS : PRY_BREAKER_SUCCESS, 0);
}

static int breaker_failure(lua_State *L)
{
  static const char *const names[] = {"cooldown", NULL};
  lua_settop(L, 2);
  pry_lua_options(L, 2, "breaker:failure", names, true);
  double cooldown = pry_lua_number_field(L, 2, "breaker:failure", "cooldown", 0, 0, TTL_MAX_SECONDS);
  return breaker_record(L, PRY_BREAKER_FAILURE, pry_time_from_seconds(cooldown));
}

static int breaker_state(lua_State *L)
{
  struct breaker *breaker = check_object(L, &BREAKER_KEY, "store.breaker");
  enum pry_breaker_state state;
  pry_time retry_in;
  struct place place;
  struct pry_read read = begin_object(L, &place, "breaker:state", breaker->key, breaker->key_size);
  enum pry_store_status status = pry_breaker_peek(place.store, place.key, place.now, &state, &retry_in);
  if (status != PRY_STORE_OK)
    return failed(L, &read, status);
  pry_read_text(&read, pry_slice_of(pry_breaker_state_name(state)));
  pry_read_number(&read, pry_time_to_seconds(retry_in));
  pry_read_end(&read);
  lua_pushstring(L, pry_breaker_state_name(state));
  lua_pushnumber(L, pry_time_to_seconds(retry_in));
  return 2;
}

/* ---- opening --------------------------------------------------------------------------------------------- */

static void open_type(lua_State *L, const void *type, const char *name, const luaL_Reg *methods)
{
  lua_createtable(L, 0, 3);
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_setfield(L, -2, "__index");
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
  lua_rawsetp(L, LUA_REGISTRYINDEX, type);
}

void pry_lib_store_open(lua_State *L)
{
  static const luaL_Reg functions[] = {
      {"get", store_get},       {"set", store_set},         {"add", store_add},   {"remove", store_remove},
      {"count", store_count},   {"counter", store_counter}, {"take", store_take}, {"give", store_give},
      {"window", store_window}, {"breaker", store_breaker}, {NULL, NULL}};
  static const luaL_Reg window_methods[] = {
      {"add", window_add}, {"count", window_count}, {"clear", window_clear}, {NULL, NULL}};
  static const luaL_Reg breaker_methods[] = {{"enter", breaker_enter},
                                             {"success", breaker_success},
                                             {"failure", breaker_failure},
                                             {"state", breaker_state},
                                             {NULL, NULL}};
  open_type(L, &WINDOW_KEY, "window", window_methods);
  open_type(L, &BREAKER_KEY, "breaker", breaker_methods);
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &PARAMETERS_KEY);
  luaL_newlib(L, functions);
  pry_sandbox_set_global(L, "store");
}
