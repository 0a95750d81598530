#include "lib.h"

#include "freeze.h"

#include <stdio.h>

static const char BUFFER_TYPE[] = "parry.buffer";

void pry_lib_open(lua_State *L)
{
  pry_lib_json_open(L);
  pry_lib_call_open(L);
  pry_lib_verdict_open(L);
  pry_lib_store_open(L);
  pry_lib_http_open(L);
  pry_lib_log_open(L);
  pry_lib_misc_open(L);
  pry_lib_keys_open(L);
  pry_lib_health_open(L);
  pry_lib_notify_open(L);
  pry_lib_host_open(L);
}

/* ---- buffers --------------------------------------------------------------------------------------------- */

struct box {
  struct pry_leftover leftover;
  struct pry_buffer buffer;
};

static void release_box(struct pry_leftover *leftover)
{
  struct box *box = PRY_CONTAINER_OF(leftover, struct box, leftover);
  pry_list_remove(&leftover->link);
  pry_buffer_fini(&box->buffer);
}

static int buffer_gc(lua_State *L)
{
  struct box *box = lua_touserdata(L, 1);
  release_box(&box->leftover);
  return 0;
}

struct pry_buffer *pry_lua_buffer(lua_State *L, size_t limit)
{
  struct box *box = lua_newuserdatauv(L, sizeof *box, 0);
  pry_buffer_init(&box->buffer, limit);
  if (luaL_newmetatable(L, BUFFER_TYPE)) {
    lua_pushcfunction(L, buffer_gc);
    lua_setfield(L, -2, "__gc");
  }
  pry_decision_leftover(L, &box->leftover, release_box);
  lua_setmetatable(L, -2);
  return &box->buffer;
}

void pry_lib_keep_metatable(lua_State *L, const void *key, lua_CFunction gc)
{
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
  lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

/* ---- arguments ------------------------------------------------------------------------------------------- */

struct pry_slice pry_lua_text(lua_State *L, int index)
{
  if (lua_type(L, index) != LUA_TSTRING)
    luaL_typeerror(L, index, "string");
  struct pry_slice text;
  text.data = lua_tolstring(L, index, &text.size);
  return text;
}

struct pry_slice pry_lua_key(lua_State *L, int index, const struct pry_decision *decision, char separator, char *key,
                             size_t size)
{
  struct pry_slice text = pry_lua_text(L, index);
  size_t prefix = strlen(decision->name);
  luaL_argcheck(L, text.size > 0, index, "a key must not be empty");
  luaL_argcheck(L, !memchr(text.data, '\0', text.size), index, "a key must not hold a NUL byte");
  if (prefix + 2 + text.size > size)
    luaL_error(L, "the key is too long: %d bytes, at most %d", (int)text.size, (int)(size - prefix - 2));
  memcpy(key, decision->name, prefix);
  key[prefix] = separator;
  memcpy(key + prefix + 1, text.data, text.size);
  key[prefix + 1 + text.size] = '\0';
  return (struct pry_slice){key, prefix + 1 + text.size};
}

void pry_lua_thaw(lua_State *L, int index)
{
  if (lua_type(L, index) != LUA_TTABLE || !pry_freeze_is_frozen(L, index))
    return;
  pry_freeze_contents(L, index);
  lua_replace(L, index);
}

static bool is_among(const char *name, const char *const *names)
{
  for (; *names; names++)
    if (strcmp(*names, name) == 0)
      return true;
  return false;
}

static int unknown_option(lua_State *L, const char *function, const char *name, const char *const *names)
{
  luaL_Buffer list;
  luaL_buffinit(L, &list);
  for (size_t i = 0; names[i]; i++) {
    if (i)
      luaL_addstring(&list, ", ");
    luaL_addstring(&list, names[i]);
  }
  luaL_pushresult(&list);
  return luaL_error(L, "%s{} has no field \"%s\"; it takes %s", function, name, lua_tostring(L, -1));
}

void pry_lua_options(lua_State *L, int index, const char *function, const char *const *names, bool optional)
{
  if (optional && lua_isnoneornil(L, index)) {
    lua_settop(L, index - 1);
    lua_newtable(L);
    return;
  }
  if (lua_type(L, index) != LUA_TTABLE)
    luaL_error(L, "%s takes a table of fields as argument %d, got %s", function, index, luaL_typename(L, index));
  pry_lua_thaw(L, index);
  lua_pushnil(L);
  while (lua_next(L, index)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_error(L, "%s{} takes named fields only", function);
    if (!is_among(lua_tostring(L, -2), names))
      unknown_option(L, function, lua_tostring(L, -2), names);
    lua_pop(L, 1);
  }
}

double pry_lua_number_field(lua_State *L, int index, const char *function, const char *name, double missing, double min,
                            double max)
{
  lua_pushstring(L, name);
  int type = lua_rawget(L, index);
  double value = lua_tonumber(L, -1);
  lua_pop(L, 1);
  if (type == LUA_TNIL)
    return missing;
  if (type != LUA_TNUMBER || !(value >= min && value <= max)) {
    char range[96];
    snprintf(range, sizeof range, "%.15g to %.15g", min, max);
    luaL_error(L, "%s{}: %s must be a number from %s", function, name, range);
  }
  return value;
}

struct pry_slice pry_lua_text_field(lua_State *L, int index, const char *function, const char *name)
{
  struct pry_slice text = {NULL, 0};
  lua_pushstring(L, name);
  int type = lua_rawget(L, index);
  if (type != LUA_TNIL && type != LUA_TSTRING)
    luaL_error(L, "%s{}: %s must be text, got %s", function, name, lua_typename(L, type));
  if (type == LUA_TSTRING)
    text.data = lua_tolstring(L, -1, &text.size);
  lua_pop(L, 1);
  return text;
}

/* ---- results --------------------------------------------------------------------------------------------- */

int pry_lua_failed(lua_State *L, const char *category, const char *message)
{
  lua_pushnil(L);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, category);
  lua_setfield(L, -2, "category");
  lua_pushstring(L, message);
  lua_setfield(L, -2, "message");
  return 2;
}
