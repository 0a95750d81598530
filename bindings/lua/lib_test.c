#include "lib_test.h"

#include "lib.h"

static const char test_type[] = "parry.test";

enum { TEXT_MAX = 256 * 1024, NAME_MAX_SHOWN = 60 };

/* ---- t ------------------------------------------------------------------------------------------------- */

struct pry_world *pry_test_world(lua_State *L)
{
  struct pry_world **t = luaL_testudata(L, 1, test_type);
  if (!t || !*t)
    luaL_error(L, t ? "this test is over" : "call it with a colon: t:name(...)");
  return t ? *t : NULL;
}

int pry_test_error(lua_State *L, const struct pry_world *world)
{
  return luaL_error(L, "%s", world->error);
}

void pry_test_need(lua_State *L, bool ok)
{
  if (!ok)
    luaL_error(L, "memory is short, or the test declares too much");
}

const char *pry_test_name(lua_State *L, int index, const char *what)
{
  if (lua_type(L, index) != LUA_TSTRING)
    luaL_error(L, "%s needs a name, got %s", what, luaL_typename(L, index));
  return lua_tostring(L, index);
}

void pry_test_table(lua_State *L, int index, const char *what)
{
  if (lua_type(L, index) != LUA_TTABLE)
    luaL_error(L, "%s needs a table { ... }, got %s", what, luaL_typename(L, index));
  pry_lua_thaw(L, index);
}

/* ---- Lua text of values -------------------------------------------------------------------------------- */

static void append_table(lua_State *L, int index, struct pry_buffer *out, int depth);

static void append_value(lua_State *L, int index, struct pry_buffer *out, int depth)
{
  struct pry_slice text;
  switch (lua_type(L, index)) {
  case LUA_TBOOLEAN:
    pry_test_need(L, pry_buffer_append_text(out, lua_toboolean(L, index) ? "true" : "false"));
    break;
  case LUA_TNUMBER:
    if (lua_isinteger(L, index))
      pry_test_need(L, pry_buffer_append_format(out, "%lld", (long long)lua_tointeger(L, index)));
    else
      pry_test_need(L, pry_buffer_append_format(out, "%.17g", (double)lua_tonumber(L, index)));
    break;
  case LUA_TSTRING:
    text.data = lua_tolstring(L, index, &text.size);
    pry_test_need(L, pry_world_quote(out, text));
    break;
  case LUA_TTABLE:
    append_table(L, lua_absindex(L, index), out, depth);
    break;
  default:
    luaL_error(L, "parameters of a test are texts, numbers, booleans and tables of them; got %s",
               luaL_typename(L, index));
  }
}

static void append_table(lua_State *L, int index, struct pry_buffer *out, int depth)
{
  if (depth > 16)
    luaL_error(L, "a table is nested too deeply");
  luaL_checkstack(L, 8, "a table is nested too deeply");
  pry_test_need(L, pry_buffer_append_text(out, "{ "));
  lua_Integer length = (lua_Integer)lua_rawlen(L, index);
  for (lua_Integer i = 1; i <= length; i++) {
    lua_rawgeti(L, index, i);
    append_value(L, -1, out, depth + 1);
    pry_test_need(L, pry_buffer_append_text(out, ", "));
    lua_pop(L, 1);
  }
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_isinteger(L, -2) && lua_tointeger(L, -2) >= 1 && lua_tointeger(L, -2) <= length)
      continue; /* written above, in order */
    pry_test_need(L, pry_buffer_append_text(out, "["));
    append_value(L, -2, out, depth + 1);
    pry_test_need(L, pry_buffer_append_text(out, "] = "));
    append_value(L, -1, out, depth + 1);
    pry_test_need(L, pry_buffer_append_text(out, ", "));
  }
  pry_test_need(L, pry_buffer_append_text(out, "}"));
}

void pry_test_append_lua(lua_State *L, int index, struct pry_buffer *out)
{
  append_value(L, index, out, 0);
}

struct pry_buffer *pry_test_push_json(lua_State *L, int index)
{
  char complaint[256];
  index = lua_absindex(L, index);
  struct pry_buffer *out = pry_lua_buffer(L, PRY_LUA_JSON_MAX);
  if (!pry_lua_json_append(L, index, out, NULL, NULL, complaint, sizeof complaint))
    luaL_error(L, "%s", complaint);
  return out;
}

/* ---- declaring ----------------------------------------------------------------------------------------- */

/* ---@class t
 * ---@param policy string
 * ---@param params? table   may hold as =
 * Appends to the chain of the route.
 * function t:use(policy, params) end */
static int t_use(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  const char *name = pry_test_name(L, 2, "t:use");
  lua_settop(L, 3);
  struct pry_buffer *text = pry_lua_buffer(L, TEXT_MAX);
  pry_test_need(L, pry_buffer_append_text(text, "use ") && pry_world_quote(text, pry_slice_of(name)) &&
                       pry_buffer_append_text(text, " "));
  if (!lua_isnil(L, 3)) {
    pry_test_table(L, 3, "t:use");
    pry_test_append_lua(L, 3, text);
  }
  pry_test_need(L, pry_buffer_append_text(text, ",\n") && pry_world_chain(world, pry_buffer_slice(text)));
  pry_buffer_fini(text);
  return 0;
}

/* Sets a field of a declaration to the value on top of the stack, which is popped. */
static void set_value(lua_State *L, struct pry_world *world, struct pry_world_item *item, const char *key)
{
  struct pry_buffer *text = pry_lua_buffer(L, TEXT_MAX);
  pry_test_append_lua(L, -2, text);
  pry_test_need(L, pry_world_set(world, item, key, pry_buffer_slice(text)));
  pry_buffer_fini(text);
  lua_pop(L, 2);
}

static void set_format(lua_State *L, struct pry_world *world, struct pry_world_item *item, const char *key,
                       const char *before, const char *name, const char *after)
{
  struct pry_buffer *text = pry_lua_buffer(L, TEXT_MAX);
  pry_test_need(L, pry_buffer_append_text(text, before) && pry_world_quote(text, pry_slice_of(name)) &&
                       pry_buffer_append_text(text, after) && pry_world_set(world, item, key, pry_buffer_slice(text)));
  pry_buffer_fini(text);
  lua_pop(L, 1);
}

/* The named fields of the table at `index` go to the item, as they are. */
static void set_fields(lua_State *L, struct pry_world *world, struct pry_world_item *item, int index,
                       const char *const *skipped)
{
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      continue;
    const char *key = lua_tostring(L, -2);
    bool skip = false;
    for (const char *const *name = skipped; *name; name++)
      skip = skip || strcmp(*name, key) == 0;
    if (skip)
      continue;
    for (const char *c = key; *c; c++)
      if (!((*c >= 'a' && *c <= 'z') || *c == '_'))
        luaL_error(L, "there is no field \"%s\"", key);
    lua_pushvalue(L, -1);
    set_value(L, world, item, key);
  }
}

static struct pry_world_item *item_of(lua_State *L, struct pry_world *world, const char *word, const char *name)
{
  struct pry_world_item *item = NULL;
  if (strlen(name) > NAME_MAX_SHOWN - 1)
    luaL_error(L, "the name \"%s\" is too long", name);
  pry_test_need(L, (item = pry_world_item(world, word, name)) != NULL);
  return item;
}

/* Arguments of t:NAME([name,] { … }): the name, or `otherwise`; the table ends up at index 3. */
static const char *name_and_table(lua_State *L, const char *otherwise, const char *what)
{
  lua_settop(L, 3);
  if (otherwise && lua_type(L, 2) == LUA_TTABLE) {
    lua_pushstring(L, otherwise);
    lua_replace(L, 3);
    lua_rotate(L, 2, 1);
  }
  const char *name = pry_test_name(L, 2, what);
  pry_test_table(L, 3, what);
  return name;
}

static void set_auth(lua_State *L, struct pry_world *world, struct pry_world_item *item)
{
  if (lua_getfield(L, 3, "credential") != LUA_TNIL)
    set_format(L, world, item, "auth", "bearer(credential ", pry_test_name(L, -1, "credential ="), ")");
  lua_pop(L, 1);
  if (lua_getfield(L, 3, "secret") != LUA_TNIL)
    set_format(L, world, item, "auth", "bearer(secret ", pry_test_name(L, -1, "secret ="), ")");
  lua_pop(L, 1);
}

/* keys = { "K1", "K2" }: the provider's keys, the first of them the one of auth, unless that says another. */
static void set_keys(lua_State *L, struct pry_world *world, struct pry_world_item *item)
{
  int type = lua_getfield(L, 3, "keys");
  if (type != LUA_TNIL && type != LUA_TTABLE)
    luaL_error(L, "keys = of a provider must be a list of names of secrets, got %s", luaL_typename(L, -1));
  lua_Integer count = type == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
  int table = lua_gettop(L);
  struct pry_buffer *text = pry_lua_buffer(L, TEXT_MAX);
  pry_test_need(L, pry_buffer_append_text(text, "{ "));
  for (lua_Integer i = 1; i <= count; i++) {
    lua_rawgeti(L, table, i);
    pry_test_need(L, pry_buffer_append_text(text, "secret ") &&
                         pry_world_quote(text, pry_slice_of(pry_test_name(L, -1, "keys ="))) &&
                         pry_buffer_append_text(text, ", "));
    if (i == 1)
      set_format(L, world, item, "auth", "bearer(secret ", lua_tostring(L, -1), ")");
    lua_pop(L, 1);
  }
  if (type == LUA_TTABLE)
    pry_test_need(L, pry_buffer_append_text(text, "}") && pry_world_set(world, item, "keys", pry_buffer_slice(text)));
  pry_buffer_fini(text);
  lua_settop(L, table - 1);
}

/* ---@class step
 * ---@field status integer?         200
 * ---@field headers table<string, string|number>?
 * ---@field body string|table?      a table is sent as JSON
 * ---@field sse (string|table)[]?   { data or { event =, data = }, … }
 * ---@field chunks string[]?
 * ---@field delay number?           seconds before the answer; chunk_delay: between two pieces
 * ---@field chunk_delay number?
 * ---@field cut boolean?            broken off at the end
 * ---@field hang boolean?
 * ---@field hang_connect boolean?
 * ---@field curl "timeout"|"connect"|"dns"|"tls"|"reset"|"nothing"|nil
 * ---@field after_body boolean?     curl = happens after the body
 * ---@field category string?        only of providers with host = true: how the attempt failed, in the host's words;
 *                                   then there is no status unless one is given
 * ---@field code string?
 * ---@field message string?
 * ---@field retry_after number?
 * ---@field not_sent boolean?
 * ---@overload fun(self: t, steps: step[])
 * ---@param name string   "p" when left out
 * ---@param v table       steps, in order; dialect =, models =, timeouts =, credential = "c", secret = "NAME",
 *                       keys = { "NAME", … }, rotate =; host = true: attempts are made by a host
 * What a provider answers. A 2xx step without a body answers with a small completion.
 * function t:provider(name, v) end */
static int t_provider(lua_State *L)
{
  static const char *const own[] = {"credential", "secret", "keys", NULL};
  struct pry_world *world = pry_test_world(L);
  const char *name = name_and_table(L, "p", "t:provider");
  struct pry_world_item *item = item_of(L, world, "provider", name);
  if (strcmp(name, "tokens") == 0 || strcmp(name, "sinks") == 0)
    return luaL_error(L, "a provider of a test cannot be called \"%s\"", name);
  lua_getfield(L, 3, "host");
  bool host = lua_toboolean(L, -1);
  const char *url = host ? "nil" : lua_pushfstring(L, "\"http://%s.test/v1\"", name);
  pry_test_need(L, pry_world_set(world, item, "base_url", pry_slice_of(url)));
  if (host) {
    world->hosts = true;
    pry_test_need(L, pry_world_set(world, item, "dialect", PRY_SLICE("nil")));
  } else if (item->field_count == 1)
    pry_test_need(L, pry_world_set(world, item, "dialect",
                                   pry_policy_set_find(world->set, "dialects/openai.lua") ? PRY_SLICE("\"openai\"")
                                                                                          : PRY_SLICE("\"generic\"")));
  set_fields(L, world, item, 3, own);
  set_keys(L, world, item);
  set_auth(L, world, item);
  pry_test_push_steps(L, world, 3, lua_pushfstring(L, "http://%s.test/", name), host);
  return 0;
}

/* ---@param name string   of provider "p"
 * function t:dialect(name) end */
static int t_dialect(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  pry_test_name(L, 2, "t:dialect");
  lua_settop(L, 2);
  set_value(L, world, item_of(L, world, "provider", "p"), "dialect");
  return 0;
}

/* ---@param v table   fields of the one route; to = "q/m" or { ["glob"] = "q/m" }
 * function t:route(v) end */
static int t_route(lua_State *L)
{
  static const char *const own[] = {"to", NULL};
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  pry_test_table(L, 2, "t:route");
  struct pry_world_item *item = item_of(L, world, "route", "/v1/*");
  set_fields(L, world, item, 2, own);
  int type = lua_getfield(L, 2, "to");
  if (type == LUA_TTABLE) {
    struct pry_buffer *text = pry_lua_buffer(L, TEXT_MAX);
    pry_test_need(L, pry_buffer_append_text(text, "by_model "));
    pry_test_append_lua(L, -2, text);
    pry_test_need(L, pry_world_set(world, item, "to", pry_buffer_slice(text)));
  } else if (type != LUA_TNIL) {
    set_value(L, world, item, "to");
  }
  return 0;
}

/* ---@param name string
 * ---@param v table   what its token endpoint answers, as steps; grant = "oauth", access_token = false: it has none at first
 * function t:credential(name, v) end */
static int t_credential(lua_State *L)
{
  static const char *const own[] = {"access_token", NULL};
  struct pry_world *world = pry_test_world(L);
  const char *name = name_and_table(L, NULL, "t:credential");
  struct pry_world_item *item = item_of(L, world, "credential", name);
  const char *url = lua_pushfstring(L, "http://tokens.test/%s", name);
  set_format(L, world, item, "token_url", "", url, "");
  pry_test_need(L, pry_world_set(world, item, "grant", PRY_SLICE("\"oauth\"")));
  set_format(L, world, item, "refresh_token", "secret ", lua_pushfstring(L, "%s_refresh_token", name), "");
  if (lua_getfield(L, 3, "access_token") == LUA_TNIL || lua_toboolean(L, -1))
    set_format(L, world, item, "access_token", "secret ", lua_pushfstring(L, "%s_access_token", name), "");
  set_fields(L, world, item, 3, own);
  pry_test_push_steps(L, world, 3, url, false);
  return 0;
}

/* ---@param name string
 * ---@param v step[]
 * function t:service(name, v) end */
static int t_service(lua_State *L)
{
  static const char *const none[] = {NULL};
  struct pry_world *world = pry_test_world(L);
  const char *name = name_and_table(L, NULL, "t:service");
  struct pry_world_item *item = item_of(L, world, "service", name);
  const char *url = lua_pushfstring(L, "http://%s.service.test", name);
  set_format(L, world, item, "base_url", "", url, "");
  set_fields(L, world, item, 3, none);
  pry_test_push_steps(L, world, 3, url, false);
  return 0;
}

/* ---@param url string    of a host under ".example", that http.probe is to be asked about
 * ---@param v step[]      curl = "private": the name leads to an address that is not public
 * function t:probe(url, v) end */
static int t_probe(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  const char *url = pry_test_name(L, 2, "t:probe");
  lua_settop(L, 3);
  pry_test_table(L, 3, "t:probe");
  if (pry_world_peer(url) != PRY_PEER_PROBE)
    return luaL_error(L, "t:probe needs a url of a host under .example, as https://files.example/a.pdf");
  pry_test_push_steps(L, world, 3, url, false);
  return 0;
}

/* ---@param name string   a webhook; what arrives is in t:alerts()
 * function t:sink(name) end */
static int t_sink(lua_State *L)
{
  enum { ANSWERS = 64 };
  struct pry_world *world = pry_test_world(L);
  const char *name = pry_test_name(L, 2, "t:sink");
  struct pry_world_item *item = item_of(L, world, "sink", name);
  set_format(L, world, item, "webhook", "secret ", name, "");
  const char *url = lua_pushfstring(L, "https://sinks.test/%s", name);
  for (int i = 0; i < ANSWERS; i++)
    pry_test_need(L, pry_http_script_push(world->script, &(struct pry_http_step){.url_part = url}));
  return 0;
}

/* ---@param text string   any other declaration of init.lua
 * function t:declare(text) end */
static int t_declare(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  pry_test_need(L, pry_world_declare(world, pry_lua_text(L, 2)));
  return 0;
}

/* ---@param declare fun()   calls t:use, t:declare and so on
 * ---@return string?   what check says against that, nil when it is fine; it is taken back
 * function t:refused(declare) end */
static int t_refused(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  if (lua_type(L, 2) != LUA_TFUNCTION)
    return luaL_error(L, "t:refused needs a function that declares something, got %s", luaL_typename(L, 2));
  size_t chain = world->chain.size, declared = world->declared.size;
  lua_call(L, 0, 0);
  bool accepted = pry_world_load(world);
  world->chain.size = chain;
  world->declared.size = declared;
  world->dirty = true;
  if (accepted)
    lua_pushnil(L);
  else
    lua_pushstring(L, world->refusal);
  return 1;
}

/* ---- the object ---------------------------------------------------------------------------------------- */

static const luaL_Reg methods[] = {{"use", t_use},
                                   {"provider", t_provider},
                                   {"otherwise", pry_test_otherwise},
                                   {"dialect", t_dialect},
                                   {"route", t_route},
                                   {"credential", t_credential},
                                   {"service", t_service},
                                   {"probe", t_probe},
                                   {"host", pry_test_host},
                                   {"sink", t_sink},
                                   {"declare", t_declare},
                                   {"refused", t_refused},
                                   {"sent", pry_test_sent},
                                   {"requests", pry_test_requests},
                                   {"alerts", pry_test_alerts},
                                   {NULL, NULL}};

static int unknown_method(lua_State *L)
{
  const luaL_Reg *const tables[] = {methods, pry_test_calling, pry_test_checks};
  const char *names[64] = {NULL};
  size_t count = 0;
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
    for (const luaL_Reg *method = tables[i]; method->name && count + 1 < sizeof names / sizeof *names; method++)
      names[count++] = method->name;
  return pry_test_no_such(L, "t", "method", lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2),
                          names);
}

struct pry_world **pry_test_push(lua_State *L, struct pry_world *world)
{
  struct pry_world **t = lua_newuserdatauv(L, sizeof *t, 0);
  *t = world;
  if (luaL_newmetatable(L, test_type)) {
    luaL_newlib(L, methods);
    luaL_setfuncs(L, pry_test_calling, 0);
    luaL_setfuncs(L, pry_test_checks, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, unknown_method);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
  }
  lua_setmetatable(L, -2);
  return t;
}
