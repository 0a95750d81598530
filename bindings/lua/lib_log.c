#include "lib.h"

#include "sandbox.h"

#include <stdlib.h>

/*
 *   ---@class log
 *   ---@field info fun(text: string, fields?: table<string, string|number|boolean>)
 *   ---@field warn fun(text: string, fields?: table<string, string|number|boolean>)
 *   ---@field error fun(text: string, fields?: table<string, string|number|boolean>)
 *   log = {}
 *
 * Lines carry the policy and the call. One handler writes at most PRY_DECISION_LOG_LINES; what it says beyond is dropped,
 * and the drop is said once.
 */

enum { FIELDS_MAX = 16, OWN_FIELDS = 3 };

static bool is_reserved(const char *name)
{
  static const char *const reserved[] = {"ts", "level", "msg", "policy", "call_id", "handler"};
  for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
    if (strcmp(name, reserved[i]) == 0)
      return true;
  return false;
}

/* The value at the top of the stack; texts live in the table, which lives in the arguments. */
static struct pry_log_field make_field(lua_State *L, const char *name)
{
  switch (lua_type(L, -1)) {
  case LUA_TSTRING:
    pry_script_charge_bytes(L, lua_rawlen(L, -1) * PRY_LUA_BYTE_COST);
    return pry_log_slice(name, pry_lua_text(L, -1));
  case LUA_TNUMBER:
    return lua_isinteger(L, -1) ? pry_log_integer(name, lua_tointeger(L, -1))
                                : pry_log_number(name, lua_tonumber(L, -1));
  case LUA_TBOOLEAN:
    return pry_log_boolean(name, lua_toboolean(L, -1));
  default:
    if (pry_lua_is_secret(L, -1))
      return pry_log_text(name, "***");
    luaL_error(L, "log: field %s must be text, a number or a boolean, got %s", name, luaL_typename(L, -1));
    return pry_log_text(name, "");
  }
}

/* Fields in the order of their names. */
static size_t read_fields(lua_State *L, int index, struct pry_log_field *fields)
{
  if (lua_isnoneornil(L, index))
    return 0;
  luaL_checktype(L, index, LUA_TTABLE);
  lua_Integer count = pry_sandbox_keys(L, index);
  int keys = lua_gettop(L);
  if (count > FIELDS_MAX)
    luaL_error(L, "log: at most %d fields", FIELDS_MAX);
  pry_freeze_contents(L, index);
  for (lua_Integer i = 1; i <= count; i++) {
    if (lua_rawgeti(L, keys, i) != LUA_TSTRING)
      luaL_error(L, "log: fields have names");
    const char *name = lua_tostring(L, -1);
    if (is_reserved(name))
      luaL_error(L, "log: the field %s is parry's own", name);
    lua_rawget(L, keys + 1);
    fields[i - 1] = make_field(L, name);
    lua_pop(L, 1);
  }
  return (size_t)count;
}

static int write_line(lua_State *L, const char *function, enum pry_log_level level)
{
  struct pry_decision *decision = pry_decision_of(L);
  struct pry_log_field fields[FIELDS_MAX + OWN_FIELDS];
  if (!decision)
    return luaL_error(L, "%s is not available while loading", function);
  decision->looked_out = true;
  struct pry_slice text = pry_lua_text(L, 1);
  lua_settop(L, 2);
  if (decision->log_lines > PRY_DECISION_LOG_LINES)
    return 0;
  pry_script_charge_bytes(L, text.size * PRY_LUA_BYTE_COST);
  struct pry_log *log = pry_decision_engine(decision)->log;
  struct pry_buffer *message = pry_lua_buffer(L, 0);
  if (!pry_buffer_append_slice(message, text) || !pry_buffer_text(message))
    return luaL_error(L, "not enough memory");
  size_t count = read_fields(L, 2, fields);
  fields[count++] = pry_log_text("policy", decision->name);
  if (decision->ask)
    fields[count++] = pry_log_text("handler", pry_handler_name(decision->ask->handler));
  if (decision->ask && decision->ask->call)
    fields[count++] = pry_log_text("call_id", decision->ask->call->id);
  if (decision->log_lines++ == PRY_DECISION_LOG_LINES)
    pry_log(log, PRY_LOG_WARN, "a handler logs too much; further lines are dropped",
            pry_log_text("policy", decision->name));
  else
    pry_log_write(log, level, pry_buffer_text(message), fields, count);
  pry_buffer_fini(message);
  return 0;
}

static int log_info(lua_State *L)
{
  return write_line(L, "log.info", PRY_LOG_INFO);
}

static int log_warn(lua_State *L)
{
  return write_line(L, "log.warn", PRY_LOG_WARN);
}

static int log_error(lua_State *L)
{
  return write_line(L, "log.error", PRY_LOG_ERROR);
}

void pry_lib_log_open(lua_State *L)
{
  static const luaL_Reg functions[] = {{"info", log_info}, {"warn", log_warn}, {"error", log_error}, {NULL, NULL}};
  luaL_newlib(L, functions);
  pry_sandbox_set_global(L, "log");
}
