/* t:host: functions of the application that policies ask, played by the test. Declared in lib_test.h. */
#include "lib_test.h"

#include "lib.h"

#include <stdio.h>

enum { DELAY_MAX_SECONDS = 86400 };

/* A userdata that lives as long as the test's state, which is longer than its world does. */
struct fake {
  struct pry_world *world;
  lua_State *L;
  int function; /* in the registry */
  double delay;
  char name[PRY_FUNCTION_NAME_MAX + 1];
};

/* One question to it. */
struct asked {
  const struct fake *fake;
  parry_request_id request;
  struct pry_slice arguments;
};

static void push_arguments(lua_State *L, const struct asked *asked)
{
  const char *why;
  if (!pry_lua_json_push(L, asked->arguments, &why))
    luaL_error(L, "%s", why);
  if (pry_lua_json_is_null(L, -1)) {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
}

/* Protected. */
static int answer(lua_State *L)
{
  const struct asked *asked = lua_touserdata(L, 1);
  const struct fake *fake = asked->fake;
  const char *failure = NULL, *json = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, fake->function);
  push_arguments(L, asked);
  lua_call(L, 1, 2);
  if (!lua_isnil(L, -1))
    failure = pry_test_name(L, -1, "the second result, an error,");
  else if (!lua_isnil(L, -2))
    pry_test_need(L, (json = pry_buffer_text(pry_test_push_json(L, -2))) != NULL);
  pry_test_need(L, pry_world_reply(fake->world, asked->request, fake->delay, json, failure));
  return 0;
}

/* From the loop, which a method of t turns: on the test's own stack. What the function raises ends the test there. */
static void play(void *user, parry_request_id request, const char *arguments, size_t size)
{
  struct fake *fake = user;
  lua_State *L = fake->L;
  struct asked asked = {fake, request, {arguments, size}};
  struct pry_world *world = fake->world;
  int top = lua_gettop(L);
  bool answered = lua_checkstack(L, 4);
  if (answered) {
    lua_pushcfunction(L, answer);
    lua_pushlightuserdata(L, &asked);
    answered = lua_pcall(L, 1, 0, 0) == LUA_OK;
  }
  if (answered)
    return;
  const char *why = lua_gettop(L) > top && lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "an error";
  if (!world->fake_error[0])
    snprintf(world->fake_error, sizeof world->fake_error, "the function of t:host(\"%s\") failed: %s", fake->name, why);
  lua_settop(L, top);
  (void)pry_functions_answer(world->functions, request.value, NULL, "the test's function failed");
}

/* ---@param name string
 * ---@param run fun(arguments: any): any, string?   what host.call(name, arguments) gives: a value, or nil and the text of
 *             an err
 * ---@param v? { delay?: number }   seconds until the answer comes, 0
 * A function of the application; without any, host.has is false of every name.
 * function t:host(name, run, v) end */
int pry_test_host(lua_State *L)
{
  static const char *const names[] = {"delay", NULL};
  struct pry_world *world = pry_test_world(L);
  const char *name = pry_test_name(L, 2, "t:host");
  lua_settop(L, 4);
  if (lua_type(L, 3) != LUA_TFUNCTION)
    return luaL_error(L, "t:host needs a function that answers, got %s", luaL_typename(L, 3));
  pry_lua_options(L, 4, "t:host", names, true);
  struct fake *fake = lua_newuserdatauv(L, sizeof *fake, 0);
  *fake = (struct fake){.world = world, .L = L};
  fake->delay = pry_lua_number_field(L, 4, "t:host", "delay", 0, 0, DELAY_MAX_SECONDS);
  snprintf(fake->name, sizeof fake->name, "%s", name);
  luaL_ref(L, LUA_REGISTRYINDEX); /* the fake itself */
  lua_pushvalue(L, 3);
  fake->function = luaL_ref(L, LUA_REGISTRYINDEX);
  if (!pry_world_function(world, name, play, fake))
    return pry_test_error(L, world);
  return 0;
}
