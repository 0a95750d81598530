/* parry.new, and driving, looking at and closing an engine. */
#include "module.h"

#include <string.h>

/* ---- callbacks of the options --------------------------------------------------------------------------------- */

struct log_line {
  int level;
  const char *text;
  size_t size;
};

static int run_log(lua_State *L)
{
  static const char *const levels[] = {"debug", "info", "warn", "error"};
  const struct log_line *line = lua_touserdata(L, 2);
  lua_getfield(L, 1, "log");
  lua_pushstring(L, levels[line->level & 3]);
  lua_pushlstring(L, line->text, line->size);
  lua_call(L, 2, 0);
  return 0;
}

static void on_log(void *user, int level, const char *line, size_t size)
{
  struct log_line told = {level, line, size};
  (void)lm_callback(user, run_log, &told);
}

static int run_alert(lua_State *L)
{
  const struct parry_alert *alert = lua_touserdata(L, 2);
  lua_getfield(L, 1, "alert");
  lua_createtable(L, 0, 8);
  lm_set_text(L, "key", alert->key);
  lm_set_text(L, "sink", alert->sink);
  lm_set_text(L, "severity", alert->severity);
  lm_set_text(L, "title", alert->title);
  lm_set_text(L, "text", alert->text);
  lm_set_text(L, "cause", alert->cause);
  lm_set_flag(L, "resolved", alert->resolved);
  lm_set_integer(L, "count", (lua_Integer)alert->count);
  lua_call(L, 1, 0);
  return 0;
}

static void on_alert(void *user, const struct parry_alert *alert)
{
  (void)lm_callback(user, run_alert, (void *)alert);
}

static int run_reloaded(lua_State *L)
{
  const struct parry_reload_info *info = lua_touserdata(L, 2);
  lua_getfield(L, 1, "reloaded");
  lua_createtable(L, 0, 4);
  lm_set_flag(L, "refused", info->error != PARRY_OK);
  lm_set_text(L, "generation", info->generation);
  lm_set_text(L, "findings", info->findings);
  lm_set_flag(L, "rolled_back", info->rolled_back);
  lua_call(L, 1, 0);
  return 0;
}

static void on_reloaded(void *user, const struct parry_reload_info *info)
{
  (void)lm_callback(user, run_reloaded, (void *)info);
}

/* ---- parry.new ------------------------------------------------------------------------------------------------------ */

static const char *const option_names[] = {
    "policy_dir", "init",         "share_dir", "state_dir", "ca_file", "secrets", "threads",  "deciders",
    "max_calls",  "max_buffered", "watch",     "log_level", "log",     "alert",   "reloaded", NULL};

static void check_names(lua_State *L)
{
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    const char *const *known = option_names;
    while (*known && strcmp(*known, name) != 0)
      known++;
    if (!*known)
      luaL_error(L, "parry.new: no option is called '%s'", name);
  }
}

static int log_level(lua_State *L)
{
  static const char *const names[] = {"debug", "info", "warn", "error", NULL};
  lua_getfield(L, 1, "log_level");
  int level = luaL_checkoption(L, -1, "info", names);
  lua_pop(L, 1);
  return level;
}

static unsigned count(lua_State *L, const char *name)
{
  return (unsigned)lm_whole(L, 1, name, 1000000000);
}

/* Callbacks of the options into the user value on top. */
static void keep_callbacks(lua_State *L, struct parry_options *options)
{
  if (lm_function(L, 1, "log")) {
    lua_setfield(L, -2, "log");
    options->log = on_log;
  }
  if (lm_function(L, 1, "alert")) {
    lua_setfield(L, -2, "alert");
    options->alert = on_alert;
  }
  if (lm_function(L, 1, "reloaded")) {
    lua_setfield(L, -2, "reloaded");
    options->reloaded = on_reloaded;
  }
}

/* nil, err with the findings, of an engine that could do nothing else. */
static int refused(lua_State *L, struct lm_engine *engine)
{
  size_t size = parry_findings(engine->handle, NULL, 0) + 1;
  luaL_Buffer buffer;
  size_t length = parry_findings(engine->handle, luaL_buffinitsize(L, &buffer, size), size);
  luaL_pushresultsize(&buffer, length < size ? length : size - 1);
  return lm_failed(L, PARRY_EPOLICY, lua_tostring(L, -1));
}

static int new_engine(lua_State *L)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  check_names(L);
  options.policy_dir = lm_text(L, 1, "policy_dir");
  options.init_lua = lm_text(L, 1, "init");
  options.share_dir = lm_text(L, 1, "share_dir");
  options.state_dir = lm_text(L, 1, "state_dir");
  options.ca_file = lm_text(L, 1, "ca_file");
  options.secrets = lm_headers(L, 1, "secrets", &options.secret_count);
  options.threads = count(L, "threads");
  options.deciders = count(L, "deciders");
  options.max_calls = count(L, "max_calls");
  options.max_buffered = count(L, "max_buffered");
  options.watch = lm_flag(L, 1, "watch");
  options.log_level = log_level(L);
  struct lm_engine *engine = lua_newuserdatauv(L, sizeof *engine, 1);
  *engine = (struct lm_engine){NULL, NULL, false};
  luaL_setmetatable(L, LM_ENGINE);
  options.user = engine;
  lua_newtable(L);
  lua_newtable(L);
  lua_setfield(L, -2, "functions");
  keep_callbacks(L, &options);
  lua_setiuservalue(L, -2, 1);
  int error = parry_new(&engine->handle, &options);
  if (error == PARRY_EPOLICY)
    return refused(L, engine);
  return error == PARRY_OK ? 1 : lm_result(L, error);
}

/* ---- methods ---------------------------------------------------------------------------------------------------------- */

static int drive(lua_State *L, double timeout, bool wait)
{
  struct lm_engine *engine = lm_engine(L);
  lm_enter(L, engine);
  int open = wait ? parry_run(engine->handle, timeout) : parry_dispatch(engine->handle);
  lm_leave(L, engine);
  if (open < 0)
    return lm_result(L, open);
  lua_pushinteger(L, open);
  return 1;
}

static int run(lua_State *L)
{
  return drive(L, luaL_optnumber(L, 2, -1), true);
}

static int dispatch(lua_State *L)
{
  return drive(L, 0, false);
}

static int fd(lua_State *L)
{
  int descriptor = parry_fd(lm_engine(L)->handle);
  if (descriptor < 0)
    return lm_result(L, descriptor);
  lua_pushinteger(L, descriptor);
  return 1;
}

static int wakeup(lua_State *L)
{
  parry_wakeup(lm_engine(L)->handle);
  return 0;
}

static int findings(lua_State *L)
{
  struct lm_engine *engine = lm_engine(L);
  size_t size = parry_findings(engine->handle, NULL, 0) + 1;
  luaL_Buffer buffer;
  size_t length = parry_findings(engine->handle, luaL_buffinitsize(L, &buffer, size), size);
  luaL_pushresultsize(&buffer, length < size ? length : size - 1);
  return 1;
}

static int reload(lua_State *L)
{
  struct lm_engine *engine = lm_engine(L);
  int error = parry_reload(engine->handle, lua_isnone(L, 2) || lua_toboolean(L, 2));
  return error == PARRY_EPOLICY ? refused(L, engine) : lm_result(L, error);
}

static int status(lua_State *L)
{
  struct parry_status told = PARRY_STATUS_INIT;
  int error = parry_status(lm_engine(L)->handle, &told);
  if (error)
    return lm_result(L, error);
  lua_createtable(L, 0, 12);
  lm_set_text(L, "generation", told.generation);
  lm_set_text(L, "version", told.version);
  lm_set_number(L, "loaded_at", told.loaded_at);
  lm_set_integer(L, "policies", told.policies);
  lm_set_integer(L, "policy_tests", told.policy_tests);
  lm_set_integer(L, "reloads", (lua_Integer)told.reloads);
  lm_set_integer(L, "reloads_refused", (lua_Integer)told.reloads_refused);
  lm_set_integer(L, "rollbacks", (lua_Integer)told.rollbacks);
  lm_set_integer(L, "policy_faults", (lua_Integer)told.policy_faults);
  lm_set_integer(L, "log_lines_lost", (lua_Integer)told.log_lines_lost);
  lm_set_integer(L, "open", (lua_Integer)told.open);
  lm_set_integer(L, "buffered", (lua_Integer)told.buffered);
  return 1;
}

static int add_sample(lua_State *L)
{
  const struct parry_sample *sample = lua_touserdata(L, 1);
  lua_createtable(L, 0, 5);
  lm_set_text(L, "name", sample->name);
  lm_set_text(L, "type", sample->type);
  lm_set_text(L, "help", sample->help);
  lm_set_text(L, "labels", sample->labels);
  lm_set_number(L, "value", sample->value);
  lua_rawseti(L, 2, (lua_Integer)lua_rawlen(L, 2) + 1);
  return 0;
}

/* With the list on top, or, from the first error on, that error. */
struct listing {
  lua_State *L;
  bool failed;
};

static void on_sample(void *user, const struct parry_sample *sample)
{
  struct listing *list = user;
  if (list->failed)
    return;
  lua_pushcfunction(list->L, add_sample);
  lua_pushlightuserdata(list->L, (void *)sample);
  lua_pushvalue(list->L, -3);
  list->failed = lua_pcall(list->L, 2, 0, 0) != LUA_OK;
}

static int metrics(lua_State *L)
{
  struct listing list = {L, false};
  lua_newtable(L);
  luaL_checkstack(L, 8, NULL);
  int error = parry_metrics(lm_engine(L)->handle, on_sample, &list);
  if (list.failed)
    return lua_error(L);
  return error ? lm_result(L, error) : 1;
}

/* ---- closing -------------------------------------------------------------------------------------------------------------- */

/* parry_free() with its last callbacks. */
static int end_engine(lua_State *L, struct lm_engine *engine)
{
  lm_enter(L, engine);
  int error = parry_free(engine->handle);
  if (error == PARRY_OK)
    engine->handle = NULL;
  lm_leave(L, engine);
  return error;
}

static int close_engine(lua_State *L)
{
  struct lm_engine *engine = luaL_checkudata(L, 1, LM_ENGINE);
  lua_settop(L, 1);
  if (engine->L)
    return lm_result(L, PARRY_EREENTRANT);
  return engine->handle ? lm_result(L, end_engine(L, engine)) : 0;
}

static int describe(lua_State *L)
{
  const struct lm_engine *engine = luaL_checkudata(L, 1, LM_ENGINE);
  lua_pushfstring(L, engine->handle ? "parry.engine: %p" : "parry.engine (closed)", (const void *)engine);
  return 1;
}

static int describe_error(lua_State *L)
{
  lua_getfield(L, 1, "message");
  return 1;
}

/* ---- the module -------------------------------------------------------------------------------------------------------------- */

static const luaL_Reg methods[] = {{"run", run},
                                   {"dispatch", dispatch},
                                   {"fd", fd},
                                   {"wakeup", wakeup},
                                   {"reload", reload},
                                   {"findings", findings},
                                   {"status", status},
                                   {"metrics", metrics},
                                   {"call", lm_call},
                                   {"resume", lm_resume},
                                   {"cancel", lm_cancel},
                                   {"attempt_done", lm_attempt_done},
                                   {"decide", lm_decide},
                                   {"report", lm_report},
                                   {"emit", lm_emit},
                                   {"register", lm_register},
                                   {"reply", lm_reply},
                                   {"close", close_engine},
                                   {NULL, NULL}};

static const luaL_Reg metamethods[] = {
    {"__gc", close_engine}, {"__close", close_engine}, {"__tostring", describe}, {NULL, NULL}};

static const luaL_Reg functions[] = {{"new", new_engine}, {NULL, NULL}};

PARRY_API int luaopen_parry(lua_State *L);

int luaopen_parry(lua_State *L)
{
  luaL_newmetatable(L, LM_ENGINE);
  luaL_setfuncs(L, metamethods, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "parry.engine");
  lua_setfield(L, -2, "__metatable");
  luaL_newmetatable(L, LM_ERROR);
  lua_pushcfunction(L, describe_error);
  lua_setfield(L, -2, "__tostring");
  luaL_newlib(L, functions);
  lm_set_text(L, "version", parry_version());
  return 1;
}
