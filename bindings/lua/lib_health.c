#include "lib.h"

#include "health.h"
#include "sandbox.h"

#include <stdlib.h>

/*
 * Checks of targets, for jobs. What is asked and what the answers mean is the engine's (health.h).
 *
 *   ---@class health
 *   health = {}
 *   ---@class health_result
 *   ---@field target string
 *   ---@field ok boolean
 *   ---@field connectivity boolean?   nil: not known; the same for auth and model
 *   ---@field auth boolean?
 *   ---@field model boolean?
 *   ---@field dns number?             seconds
 *   ---@field tcp number?
 *   ---@field tls number?
 *   ---@field seconds number          in all
 *   ---@field status integer          of the last answer; 0: none
 *   ---@field category string?
 *   ---@field code string?
 *   ---@field hint string?            what to do
 */

static const char OPERATION_KEY = 0;

struct operation {
  struct pry_leftover leftover;
  struct pry_decision *decision;
  struct pry_ticket ticket;
  struct pry_health_run *run;
  struct pry_health_result *results;
  size_t count;
};

static void release(struct operation *operation)
{
  pry_list_remove(&operation->leftover.link);
  pry_health_cancel(operation->run);
  operation->run = NULL;
  free(operation->results);
  operation->results = NULL;
}

static void release_leftover(struct pry_leftover *leftover)
{
  release(PRY_CONTAINER_OF(leftover, struct operation, leftover));
}

static int operation_gc(lua_State *L)
{
  release(lua_touserdata(L, 1));
  return 0;
}

static void cancel(void *user)
{
  release(user);
}

/* ---- results --------------------------------------------------------------------------------------------------- */

static void set_mark(lua_State *L, const char *name, enum pry_health_mark mark)
{
  if (mark == PRY_HEALTH_UNKNOWN)
    return;
  lua_pushboolean(L, mark == PRY_HEALTH_GOOD);
  lua_setfield(L, -2, name);
}

static void set_seconds(lua_State *L, const char *name, double seconds)
{
  if (seconds < 0)
    return;
  lua_pushnumber(L, seconds);
  lua_setfield(L, -2, name);
}

static void set_text(lua_State *L, const char *name, const char *text)
{
  if (!*text)
    return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, name);
}

static void push_result(lua_State *L, const struct pry_health_result *result)
{
  lua_createtable(L, 0, 13);
  set_text(L, "target", result->target);
  lua_pushboolean(L, result->ok);
  lua_setfield(L, -2, "ok");
  set_mark(L, "connectivity", result->connectivity);
  set_mark(L, "auth", result->auth);
  set_mark(L, "model", result->model);
  set_seconds(L, "dns", result->dns);
  set_seconds(L, "tcp", result->tcp);
  set_seconds(L, "tls", result->tls);
  set_seconds(L, "seconds", result->seconds);
  lua_pushinteger(L, result->status);
  lua_setfield(L, -2, "status");
  set_text(L, "category", result->category ? pry_category_name(result->category) : "");
  set_text(L, "code", result->code);
  set_text(L, "hint", result->hint);
}

static void record(const struct operation *operation)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  struct pry_read read = pry_read_begin(operation->decision, "health.check");
  if (pry_health_json(operation->results, operation->count, &text))
    pry_read_json(&read, pry_slice_trim(pry_buffer_slice(&text)));
  pry_read_end(&read);
  pry_buffer_fini(&text);
}

static int finish(lua_State *L, void *user)
{
  struct operation *operation = user;
  if (!operation->results)
    return pry_lua_failed(L, "no_memory", "memory is short");
  record(operation);
  lua_createtable(L, (int)operation->count, 0);
  for (size_t i = 0; i < operation->count; i++) {
    push_result(L, &operation->results[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  release(operation);
  return 1;
}

static void checked(void *user, const struct pry_health_result *results, size_t count)
{
  struct operation *operation = user;
  operation->run = NULL; /* it frees itself */
  operation->results = malloc((count + 1) * sizeof *results);
  operation->count = count;
  if (operation->results && count)
    memcpy(operation->results, results, count * sizeof *results);
  pry_decision_wake(operation->decision, operation->ticket);
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

/* The texts of the list in field `targets` of the table at 1, left on the stack so that they stay. */
static size_t read_targets(lua_State *L, const char **targets)
{
  lua_pushliteral(L, "targets");
  if (lua_rawget(L, 1) != LUA_TTABLE)
    luaL_error(L, "health.check{} needs targets, a list of \"provider/model\" or \"provider\"");
  int list = lua_gettop(L);
  pry_lua_thaw(L, list);
  size_t count = lua_rawlen(L, list);
  if (count > PRY_HEALTH_TARGETS_MAX)
    luaL_error(L, "health.check{} takes at most %d targets", PRY_HEALTH_TARGETS_MAX);
  luaL_checkstack(L, (int)count + 8, "too many targets");
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, list, (lua_Integer)i + 1);
    size_t size = 0;
    targets[i] = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &size) : NULL;
    if (!size || size >= PRY_TARGET_MAX)
      luaL_error(L, "health.check{}: targets must list texts of at most %d bytes", PRY_TARGET_MAX - 1);
  }
  return count;
}

/* ---@param v { targets: string[], probe?: "models"|"completion"|"connect", timeout?: number }   "models", 5
 * ---@return health_result[]? results, table? err   in the order of the targets
 * Waits until all are checked. In jobs (`every`) only.
 * function health.check(v) end */
static int health_check(lua_State *L)
{
  static const struct pry_wait wait = {"health.check", finish, cancel};
  static const char *const names[] = {"targets", "probe", "timeout", NULL};
  static const char function[] = "health.check";
  const char *targets[PRY_HEALTH_TARGETS_MAX];
  struct pry_decision *decision = pry_decision_check(L, function);
  if (decision->ask->handler != PRY_EVERY)
    return luaL_error(L, "health.check works in every = { … } only: it may take as long as the slowest target");
  struct pry_ticket ticket = pry_task_ticket(L, function);
  lua_settop(L, 1);
  pry_lua_options(L, 1, function, names, false);
  struct pry_slice probe = pry_lua_text_field(L, 1, function, "probe");
  double timeout = pry_lua_number_field(L, 1, function, "timeout", 5, 0.01, 60);
  struct pry_health_options options = {.timeout = pry_time_from_seconds(timeout)};
  if (probe.size && !pry_health_probe_from_name(probe, &options.probe))
    return luaL_error(L, "health.check{}: probe is models, completion or connect");
  struct operation *operation = lua_newuserdatauv(L, sizeof *operation, 0);
  *operation = (struct operation){.decision = decision, .ticket = ticket};
  pry_decision_leftover(L, &operation->leftover, release_leftover);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &OPERATION_KEY);
  lua_setmetatable(L, -2);
  size_t count = read_targets(L, targets);
  operation->run = pry_health_start(pry_decision_worker(decision), &pry_decision_script(decision)->state, &options,
                                    targets, count, checked, operation);
  if (!operation->run)
    return pry_lua_failed(L, "no_memory", "memory is short");
  lua_settop(L, 2);
  return pry_task_wait(L, &wait, operation);
}

static void add_target(void *user, const char *target)
{
  lua_State *L = user;
  lua_pushstring(L, target);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
}

/* Names first, then Lua: pushing may raise, and would leave what the listing holds. */
struct names {
  struct pry_buffer *text;
};

static void collect_target(void *user, const char *target)
{
  struct names *names = user;
  pry_buffer_append(names->text, target, strlen(target) + 1);
}

/* ---@return string[]   the targets that the routes of init.lua name: "provider/model" where a model is spelled out, else
 *                       "provider"
 * function health.targets() end */
static int health_targets(lua_State *L)
{
  struct pry_decision *decision = pry_decision_check(L, "health.targets");
  struct names names = {pry_lua_buffer(L, 256 * PRY_TARGET_MAX)};
  pry_health_targets(pry_decision_config(decision), collect_target, &names);
  lua_newtable(L);
  for (size_t at = 0; at < names.text->size; at += strlen(names.text->data + at) + 1)
    add_target(L, names.text->data + at);
  return 1;
}

void pry_lib_health_open(lua_State *L)
{
  static const luaL_Reg functions[] = {{"check", health_check}, {"targets", health_targets}, {NULL, NULL}};
  pry_lib_keep_metatable(L, &OPERATION_KEY, operation_gc);
  luaL_newlib(L, functions);
  pry_sandbox_set_global(L, "health");
}
