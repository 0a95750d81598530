#include "lib.h"

#include "declare.h"
#include "sandbox.h"

#include <stdio.h>

/*
 * What a renewal is given, and what it gives back.
 *
 *   ---@class cred
 *   ---@field name string
 *   ---@field token_url string?
 *   ---@field refresh_token userdata   opaque: stands in headers, json and form of http.request
 *   ---@class renewal
 *   ---@field token string
 *   ---@field expires_in number?       seconds
 *   ---@field refresh_token string?    when the provider rotated it
 *   ---@alias refresh fun(cred: cred): renewal?, string?
 */

static const char GRANTS_KEY = 0, LIVE_SECRET_KEY = 0;

/* The refresh token of a running renewal. Its value is never in Lua. */
struct live_secret {
  const struct pry_decision *decision;
  uint64_t serial;
};

/* ---- secrets --------------------------------------------------------------------------------------------- */

static const struct live_secret *live_secret_at(lua_State *L, int index)
{
  if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index))
    return NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &LIVE_SECRET_KEY);
  bool fits = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return fits ? lua_touserdata(L, index) : NULL;
}

bool pry_lua_is_secret(lua_State *L, int index)
{
  return live_secret_at(L, index) || pry_declare_secret_name(L, index);
}

static bool live_value(const struct live_secret *secret, struct pry_slice *value, const char **why)
{
  const struct pry_decision *decision = secret->decision;
  if (!decision->active || decision->serial != secret->serial) {
    *why = "this refresh token belongs to a renewal that has ended";
    return false;
  }
  *value = decision->ask->renewal->refresh_token;
  if (!value->size)
    *why = "there is no refresh token";
  return value->size > 0;
}

bool pry_lua_secret_value(lua_State *L, int index, const struct pry_decision *decision, struct pry_slice *value,
                          const char **why)
{
  const struct live_secret *live = live_secret_at(L, index);
  if (live)
    return live_value(live, value, why);
  const char *name = pry_declare_secret_name(L, index);
  const struct pry_secret *secret = name ? pry_declare_secret(pry_decision_config(decision), name) : NULL;
  *value = pry_slice_of(secret ? secret->value : NULL);
  if (!value->size)
    *why = "a secret is missing; see `parry check`";
  return value->size > 0;
}

static bool append_part(lua_State *L, int index, const struct pry_decision *decision, const char *what,
                        struct pry_buffer *out, const char **why)
{
  struct pry_slice text;
  switch (lua_type(L, index)) {
  case LUA_TSTRING:
    text = pry_lua_text(L, index);
    break;
  case LUA_TNUMBER:
    lua_pushvalue(L, index); /* lua_tolstring() would change the value in its place */
    text.data = lua_tolstring(L, -1, &text.size);
    break;
  default:
    if (!pry_lua_is_secret(L, index))
      luaL_error(L, "%s must be text, a number, a secret or a list of these, got %s", what, luaL_typename(L, index));
    if (!pry_lua_secret_value(L, index, decision, &text, why))
      return false;
  }
  pry_script_charge_bytes(L, text.size * PRY_LUA_BYTE_COST);
  if (!pry_buffer_append_slice(out, text))
    luaL_error(L, "%s is too long", what);
  return true;
}

bool pry_lua_append_parts(lua_State *L, int index, const struct pry_decision *decision, const char *what,
                          struct pry_buffer *out, const char **why)
{
  int top = lua_gettop(L);
  bool appended = true;
  index = lua_absindex(L, index);
  if (lua_type(L, index) != LUA_TTABLE) {
    appended = append_part(L, index, decision, what, out, why);
    lua_settop(L, top);
    return appended;
  }
  pry_freeze_contents(L, index);
  lua_Integer count = (lua_Integer)lua_rawlen(L, top + 1);
  for (lua_Integer i = 1; appended && i <= count; i++) {
    lua_rawgeti(L, top + 1, i);
    appended = append_part(L, top + 2, decision, what, out, why);
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
  return appended;
}

static int secret_text(lua_State *L)
{
  lua_pushliteral(L, "***");
  return 1;
}

static void push_live_secret(lua_State *L, const struct pry_decision *decision)
{
  struct live_secret *secret = lua_newuserdatauv(L, sizeof *secret, 0);
  *secret = (struct live_secret){decision, decision->serial};
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &LIVE_SECRET_KEY) == LUA_TNIL) {
    lua_createtable(L, 0, 3);
    lua_pushliteral(L, "secret");
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_pushcfunction(L, secret_text);
    lua_setfield(L, -2, "__tostring");
    lua_replace(L, -2);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &LIVE_SECRET_KEY);
  }
  lua_setmetatable(L, -2);
}

/* ---- grants ---------------------------------------------------------------------------------------------- */

static bool is_built_in(const struct pry_credential_config *credential)
{
  return strcmp(credential->grant, "lua") != 0;
}

static bool needs_grants(const struct pry_config *config)
{
  for (size_t i = 0; i < config->credential_count; i++)
    if (is_built_in(&config->credentials[i]))
      return true;
  return false;
}

void pry_refresh_open(lua_State *L, const struct pry_config *config)
{
  if (!needs_grants(config))
    return;
  pry_sandbox_get_global(L, "require");
  lua_pushliteral(L, "lib.grants");
  lua_call(L, 1, 1);
  if (lua_type(L, -1) != LUA_TTABLE)
    luaL_error(L, "lib/grants.lua must return a table of grants");
  for (size_t i = 0; i < config->credential_count; i++) {
    const struct pry_credential_config *credential = &config->credentials[i];
    if (is_built_in(credential) && lua_getfield(L, -1, credential->grant) != LUA_TFUNCTION)
      luaL_error(L, "lib/grants.lua has no grant \"%s\", which credential \"%s\" needs", credential->grant,
                 credential->name);
    else if (is_built_in(credential))
      lua_pop(L, 1);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &GRANTS_KEY);
}

bool pry_refresh_function(lua_State *L, const struct pry_credential_config *credential)
{
  if (!is_built_in(credential))
    return pry_declare_push_refresh(L, credential);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &GRANTS_KEY);
  lua_getfield(L, -1, credential->grant);
  lua_remove(L, -2);
  return true;
}

int pry_refresh_push(lua_State *L, struct pry_decision *decision)
{
  const struct pry_credential_config *credential = decision->ask->renewal->credential;
  if (!pry_refresh_function(L, credential))
    luaL_error(L, "credential \"%s\" has no refresh function", credential->name);
  lua_createtable(L, 0, 3);
  lua_pushstring(L, credential->name);
  lua_setfield(L, -2, "name");
  lua_pushstring(L, credential->token_url);
  lua_setfield(L, -2, "token_url");
  push_live_secret(L, decision);
  lua_setfield(L, -2, "refresh_token");
  return 1;
}

/* ---- what comes back ------------------------------------------------------------------------------------- */

static void set_error(struct pry_renewal *renewal, const struct pry_decision *decision, const char *text)
{
  snprintf(renewal->error, sizeof renewal->error, "%s", text);
  pry_scrubber_apply_text(pry_decision_engine(decision)->scrubber, renewal->error);
}

static void take_token(lua_State *L, const char *name, struct pry_buffer *out)
{
  struct pry_slice token = pry_lua_text_field(L, 1, "refresh", name);
  if (token.size && !pry_buffer_append_slice(out, token))
    luaL_error(L, "refresh{}: %s is too long", name);
}

void pry_refresh_take(lua_State *L, int count, struct pry_decision *decision)
{
  static const char *const names[] = {"token", "expires_in", "refresh_token", NULL};
  struct pry_renewal *renewal = decision->ask->renewal;
  renewal->expires_in = -1;
  if (count == 0 || !lua_toboolean(L, 1)) {
    const char *why =
        count >= 2 && lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "the refresh function gave no token";
    set_error(renewal, decision, why);
    return;
  }
  pry_lua_options(L, 1, "refresh", names, false);
  take_token(L, "token", &renewal->token);
  take_token(L, "refresh_token", &renewal->new_refresh_token);
  renewal->expires_in = pry_lua_number_field(L, 1, "refresh", "expires_in", -1, 0, 1e9);
  if (!renewal->token.size)
    set_error(renewal, decision, "the refresh function gave no token");
}
