#include "lib_test.h"

#include "lib.h"

static const char test_type[] = "parry.test";

enum { TEXT_MAX = 256 * 1024, NAME_MAX_SHOWN = 60 };

/* ---- t ------------------------------------------------------------------------------------------------- */

struct pry_world *pry_test_world(lua_State *L)
{
  struct pry_world **t = luaL_testudata(L, 1, test_type);
  if (!t)
    luaL_error(L, "call it with a colon: t:name(...)");
  if (!*t)
    luaL_error(L, "this test is over");
  return *t;
}

int pry_test_error(lua_State *L, const struct pry_world *world)
{
  return luaL_error(L, "%s", world->error);
}

static void need(lua_State *L, bool ok)
{
  if (!ok)
    luaL_error(L, "memory is short, or the test declares too much");
}

static const char *name_at(lua_State *L, int index, const char *what)
{
  if (lua_type(L, index) != LUA_TSTRING)
    luaL_error(L, "%s needs a name, got %s", what, luaL_typename(L, index));
  return lua_tostring(L, index);
}

static void table_at(lua_State *L, int index, const char *what)
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
    need(L, pry_buffer_append_text(out, lua_toboolean(L, index) ? "true" : "false"));
    break;
  case LUA_TNUMBER:
    if (lua_isinteger(L, index))
      need(L, pry_buffer_append_format(out, "%lld", (long long)lua_tointeger(L, index)));
    else
      need(L, pry_buffer_append_format(out, "%.17g", (double)lua_tonumber(L, index)));
    break;
  case LUA_TSTRING:
    text.data = lua_tolstring(L, index, &text.size);
    need(L, pry_world_quote(out, text));
    break;
  case LUA_TTABLE:
    append_table(L, lua_absindex(L, index), out, depth);
    break;
  default:
    luaL_error(L, "parameters of a test are texts, numbers, booleans and tables of them; got %s", luaL_typename(L, index));
  }
}

static void append_table(lua_State *L, int index, struct pry_buffer *out, int depth)
{
  if (depth > 16)
    luaL_error(L, "a table is nested too deeply");
  luaL_checkstack(L, 8, "a table is nested too deeply");
  need(L, pry_buffer_append_text(out, "{ "));
  lua_Integer length = (lua_Integer)lua_rawlen(L, index);
  for (lua_Integer i = 1; i <= length; i++) {
    lua_rawgeti(L, index, i);
    append_value(L, -1, out, depth + 1);
    need(L, pry_buffer_append_text(out, ", "));
    lua_pop(L, 1);
  }
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_isinteger(L, -2) && lua_tointeger(L, -2) >= 1 && lua_tointeger(L, -2) <= length)
      continue; /* written above, in order */
    need(L, pry_buffer_append_text(out, "["));
    append_value(L, -2, out, depth + 1);
    need(L, pry_buffer_append_text(out, "] = "));
    append_value(L, -1, out, depth + 1);
    need(L, pry_buffer_append_text(out, ", "));
  }
  need(L, pry_buffer_append_text(out, "}"));
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

static int t_use(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  const char *name = name_at(L, 2, "t:use");
  lua_settop(L, 3);
  struct pry_buffer *text = pry_lua_buffer(L, TEXT_MAX);
  need(L, pry_buffer_append_text(text, "use ") && pry_world_quote(text, pry_slice_of(name)) &&
              pry_buffer_append_text(text, " "));
  if (!lua_isnil(L, 3)) {
    table_at(L, 3, "t:use");
    pry_test_append_lua(L, 3, text);
  }
  need(L, pry_buffer_append_text(text, ",\n") && pry_world_chain(world, pry_buffer_slice(text)));
  pry_buffer_fini(text);
  return 0;
}

/* Sets a field of a declaration to the value on top of the stack, which is popped. */
static void set_value(lua_State *L, struct pry_world *world, struct pry_world_item *item, const char *key)
{
  struct pry_buffer *text = pry_lua_buffer(L, TEXT_MAX);
  pry_test_append_lua(L, -2, text);
  need(L, pry_world_set(world, item, key, pry_buffer_slice(text)));
  pry_buffer_fini(text);
  lua_pop(L, 2);
}

static void set_format(lua_State *L, struct pry_world *world, struct pry_world_item *item, const char *key,
                       const char *before, const char *name, const char *after)
{
  struct pry_buffer *text = pry_lua_buffer(L, TEXT_MAX);
  need(L, pry_buffer_append_text(text, before) && pry_world_quote(text, pry_slice_of(name)) &&
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
  need(L, (item = pry_world_item(world, word, name)) != NULL);
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
  const char *name = name_at(L, 2, what);
  table_at(L, 3, what);
  return name;
}

static void set_auth(lua_State *L, struct pry_world *world, struct pry_world_item *item)
{
  if (lua_getfield(L, 3, "credential") != LUA_TNIL)
    set_format(L, world, item, "auth", "bearer(credential ", name_at(L, -1, "credential ="), ")");
  lua_pop(L, 1);
  if (lua_getfield(L, 3, "secret") != LUA_TNIL)
    set_format(L, world, item, "auth", "bearer(secret ", name_at(L, -1, "secret ="), ")");
  lua_pop(L, 1);
}

static int t_provider(lua_State *L)
{
  static const char *const own[] = {"credential", "secret", NULL};
  struct pry_world *world = pry_test_world(L);
  const char *name = name_and_table(L, "p", "t:provider");
  struct pry_world_item *item = item_of(L, world, "provider", name);
  if (strcmp(name, "tokens") == 0 || strcmp(name, "sinks") == 0)
    return luaL_error(L, "a provider of a test cannot be called \"%s\"", name);
  const char *url = lua_pushfstring(L, "\"http://%s.test/v1\"", name);
  need(L, pry_world_set(world, item, "base_url", pry_slice_of(url)));
  if (!item->field_count || item->field_count == 1)
    need(L, pry_world_set(world, item, "dialect",
                          pry_policy_set_find(world->set, "dialects/openai.lua") ? PRY_SLICE("\"openai\"")
                                                                                 : PRY_SLICE("\"generic\"")));
  set_fields(L, world, item, 3, own);
  set_auth(L, world, item);
  pry_test_push_steps(L, world, 3, lua_pushfstring(L, "http://%s.test/", name));
  return 0;
}

static int t_dialect(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  name_at(L, 2, "t:dialect");
  lua_settop(L, 2);
  set_value(L, world, item_of(L, world, "provider", "p"), "dialect");
  return 0;
}

static int t_route(lua_State *L)
{
  static const char *const own[] = {"to", NULL};
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  table_at(L, 2, "t:route");
  struct pry_world_item *item = item_of(L, world, "route", "/v1/*");
  set_fields(L, world, item, 2, own);
  int type = lua_getfield(L, 2, "to");
  if (type == LUA_TTABLE) {
    struct pry_buffer *text = pry_lua_buffer(L, TEXT_MAX);
    need(L, pry_buffer_append_text(text, "by_model "));
    pry_test_append_lua(L, -2, text);
    need(L, pry_world_set(world, item, "to", pry_buffer_slice(text)));
  } else if (type != LUA_TNIL) {
    set_value(L, world, item, "to");
  }
  return 0;
}

static int t_credential(lua_State *L)
{
  static const char *const own[] = {"access_token", NULL};
  struct pry_world *world = pry_test_world(L);
  const char *name = name_and_table(L, NULL, "t:credential");
  struct pry_world_item *item = item_of(L, world, "credential", name);
  const char *url = lua_pushfstring(L, "http://tokens.test/%s", name);
  set_format(L, world, item, "token_url", "", url, "");
  need(L, pry_world_set(world, item, "grant", PRY_SLICE("\"oauth\"")));
  set_format(L, world, item, "refresh_token", "secret ", lua_pushfstring(L, "%s_refresh_token", name), "");
  if (lua_getfield(L, 3, "access_token") == LUA_TNIL || lua_toboolean(L, -1))
    set_format(L, world, item, "access_token", "secret ", lua_pushfstring(L, "%s_access_token", name), "");
  set_fields(L, world, item, 3, own);
  pry_test_push_steps(L, world, 3, url);
  return 0;
}

static int t_service(lua_State *L)
{
  static const char *const none[] = {NULL};
  struct pry_world *world = pry_test_world(L);
  const char *name = name_and_table(L, NULL, "t:service");
  struct pry_world_item *item = item_of(L, world, "service", name);
  const char *url = lua_pushfstring(L, "http://%s.service.test", name);
  set_format(L, world, item, "base_url", "", url, "");
  set_fields(L, world, item, 3, none);
  pry_test_push_steps(L, world, 3, url);
  return 0;
}

static int t_sink(lua_State *L)
{
  enum { ANSWERS = 64 };
  struct pry_world *world = pry_test_world(L);
  const char *name = name_at(L, 2, "t:sink");
  struct pry_world_item *item = item_of(L, world, "sink", name);
  set_format(L, world, item, "webhook", "secret ", name, "");
  const char *url = lua_pushfstring(L, "https://sinks.test/%s", name);
  for (int i = 0; i < ANSWERS; i++)
    need(L, pry_http_script_push(world->script, &(struct pry_http_step){.url_part = url}));
  return 0;
}

static int t_declare(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  need(L, pry_world_declare(world, pry_lua_text(L, 2)));
  return 0;
}

/* t:refused(function() … end): what the configuration says against what the function declares, which is taken back. */
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

/* ---- calling ------------------------------------------------------------------------------------------- */

/* The headers of a request, in a C list that the collector frees. */
struct request {
  struct pry_headers headers;
  struct pry_buffer body;
};

static int request_gc(lua_State *L)
{
  struct request *request = lua_touserdata(L, 1);
  pry_headers_fini(&request->headers);
  pry_buffer_fini(&request->body);
  return 0;
}

static struct request *push_request(lua_State *L)
{
  struct request *request = lua_newuserdatauv(L, sizeof *request, 0);
  pry_headers_init(&request->headers);
  pry_buffer_init(&request->body, 0);
  if (luaL_newmetatable(L, "parry.test.request")) {
    lua_pushcfunction(L, request_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return request;
}

static void read_headers(lua_State *L, int options, struct request *request)
{
  if (lua_getfield(L, options, "headers") != LUA_TNIL) {
    table_at(L, -1, "headers =");
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      struct pry_slice name = pry_lua_text(L, -2), value;
      if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "the header \"%s\" must be a text, got %s", name.data, luaL_typename(L, -1));
      value.data = lua_tolstring(L, -1, &value.size);
      if (!pry_headers_add(&request->headers, name, value))
        luaL_error(L, "the header \"%s\" cannot be sent", name.data);
    }
  }
  lua_pop(L, 1);
  struct pry_slice type;
  if (!pry_headers_get(&request->headers, PRY_SLICE("content-type"), &type))
    need(L, pry_headers_add(&request->headers, PRY_SLICE("content-type"), PRY_SLICE("application/json")));
}

/* Pushes the body of t:call { model =, messages =, stream = } as a table. */
static void push_default_body(lua_State *L, int options)
{
  static const char *const copied[] = {"model", "messages", "stream", "max_tokens", "temperature"};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
    lua_getfield(L, options, copied[i]);
    lua_setfield(L, -2, copied[i]);
  }
  if (lua_getfield(L, -1, "messages") == LUA_TNIL) {
    luaL_Reg none[] = {{NULL, NULL}};
    luaL_newlib(L, none);
    lua_pushliteral(L, "user");
    lua_setfield(L, -2, "role");
    lua_pushliteral(L, "hello");
    lua_setfield(L, -2, "content");
    lua_createtable(L, 1, 0);
    lua_rotate(L, -2, 1);
    lua_rawseti(L, -2, 1);
    lua_setfield(L, -3, "messages");
  }
  lua_pop(L, 1);
}

static void read_body(lua_State *L, int options, struct request *request)
{
  int top = lua_gettop(L);
  int type = lua_getfield(L, options, "body");
  if (type == LUA_TSTRING) {
    need(L, pry_buffer_append_slice(&request->body, pry_lua_text(L, -1)));
  } else if (type == LUA_TNIL || type == LUA_TTABLE) {
    if (type == LUA_TNIL)
      push_default_body(L, options);
    struct pry_buffer *json = pry_test_push_json(L, -1);
    need(L, pry_buffer_append_slice(&request->body, pry_buffer_slice(json)));
    pry_buffer_fini(json);
  } else {
    luaL_error(L, "body = must be a text or a table, got %s", luaL_typename(L, -1));
  }
  lua_settop(L, top);
}

static struct pry_slice text_field(lua_State *L, int options, const char *key, const char *otherwise)
{
  struct pry_slice text = pry_slice_of(otherwise);
  int type = lua_getfield(L, options, key); /* stays on the stack */
  if (type == LUA_TSTRING)
    text.data = lua_tolstring(L, -1, &text.size);
  else if (type != LUA_TNIL)
    luaL_error(L, "%s = must be a text, got %s", key, luaL_typename(L, -1));
  return text;
}

static struct pry_world_call *start_call(lua_State *L, struct pry_world *world)
{
  static const char *const known[] = {"model", "messages", "stream",     "max_tokens", "temperature", "path",
                                      "method", "body",    "headers", NULL};
  pry_lua_options(L, 2, "t:call", known, false);
  struct request *request = push_request(L);
  read_headers(L, 2, request);
  struct pry_slice path = text_field(L, 2, "path", "/v1/chat/completions");
  struct pry_slice method = text_field(L, 2, "method", "POST");
  if (!pry_slice_equal(method, PRY_SLICE("GET")))
    read_body(L, 2, request);
  const char *mark = memchr(path.data, '?', path.size);
  struct pry_call_request call = {.method = method, .path = path, .headers = &request->headers, .body = &request->body};
  if (mark) {
    call.path.size = (size_t)(mark - path.data);
    call.query = (struct pry_slice){mark + 1, path.size - call.path.size - 1};
  }
  return pry_world_start(world, &call);
}

static int t_start(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  struct pry_world_call *call = start_call(L, world);
  if (!call)
    return pry_test_error(L, world);
  pry_test_push_result(L, call);
  return 1;
}

static int t_call(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  struct pry_world_call *call = start_call(L, world);
  if (!call)
    return pry_test_error(L, world);
  pry_test_push_result(L, call);
  int result = lua_gettop(L);
  if (!pry_world_run(world, call))
    return pry_test_error(L, world);
  pry_test_deliver(L, world);
  lua_pushvalue(L, result);
  return 1;
}

static int t_run(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  struct pry_world_call *call = lua_isnil(L, 2) ? NULL : pry_test_call_at(L, world, 2);
  if (!pry_world_run(world, call))
    return pry_test_error(L, world);
  pry_test_deliver(L, world);
  lua_pushvalue(L, 2);
  return 1;
}

static int t_cancel(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  struct pry_world_call *call = pry_test_call_at(L, world, 2);
  if (call->call)
    pry_call_cancel(call->call);
  pry_world_settle(world);
  pry_test_deliver(L, world);
  return 0;
}

static int t_advance(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  double seconds = luaL_checknumber(L, 2);
  luaL_argcheck(L, seconds >= 0 && seconds <= 366 * 86400.0, 2, "0 to 366 days, in seconds");
  if (!pry_world_load(world))
    return pry_test_error(L, world);
  pry_loop_advance(world->loop, pry_time_from_seconds(seconds));
  pry_world_settle(world);
  pry_test_deliver(L, world);
  return 0;
}

static int t_now(lua_State *L)
{
  lua_pushnumber(L, pry_loop_unix_time(pry_test_world(L)->loop));
  return 1;
}

static void push_verdict(lua_State *L, const struct pry_verdict *verdict, const char *policy)
{
  lua_newtable(L);
  lua_pushstring(L, pry_verdict_name(verdict->kind));
  lua_setfield(L, -2, "verdict");
  lua_pushstring(L, policy);
  lua_setfield(L, -2, "policy");
  if (verdict->after >= 0) {
    lua_pushnumber(L, verdict->after);
    lua_setfield(L, -2, "after");
  }
  if (verdict->category != PRY_NONE) {
    lua_pushstring(L, pry_category_name(verdict->category));
    lua_setfield(L, -2, "category");
  }
  if (verdict->status) {
    lua_pushinteger(L, verdict->status);
    lua_setfield(L, -2, "status");
  }
  lua_pushstring(L, verdict->message);
  lua_setfield(L, -2, "message");
  lua_pushstring(L, verdict->why);
  lua_setfield(L, -2, "why");
}

static int t_emit(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  const char *name = name_at(L, 2, "t:emit");
  lua_settop(L, 3);
  if (lua_isnil(L, 3)) {
    lua_newtable(L);
    lua_replace(L, 3);
  }
  table_at(L, 3, "t:emit");
  struct pry_slice fields = PRY_SLICE("{}");
  lua_pushnil(L);
  if (lua_next(L, 3)) /* an empty table would be an empty list */
    fields = pry_buffer_slice(pry_test_push_json(L, 3));
  struct pry_verdict verdict;
  const char *policy;
  if (!pry_world_emit(world, name, fields, &verdict, &policy))
    return pry_test_error(L, world);
  if (verdict.kind == PRY_VERDICT_NONE)
    lua_pushnil(L);
  else
    push_verdict(L, &verdict, policy);
  pry_world_settle(world);
  pry_test_deliver(L, world);
  return 1;
}

/* ---- the object ---------------------------------------------------------------------------------------- */

static int unknown_method(lua_State *L)
{
  return luaL_error(L, "t has no method \"%s\"", lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2));
}

static const luaL_Reg methods[] = {{"use", t_use},
                                   {"provider", t_provider},
                                   {"otherwise", pry_test_otherwise},
                                   {"dialect", t_dialect},
                                   {"route", t_route},
                                   {"credential", t_credential},
                                   {"service", t_service},
                                   {"sink", t_sink},
                                   {"declare", t_declare},
                                   {"refused", t_refused},
                                   {"call", t_call},
                                   {"start", t_start},
                                   {"run", t_run},
                                   {"cancel", t_cancel},
                                   {"advance", t_advance},
                                   {"now", t_now},
                                   {"sent", pry_test_sent},
                                   {"requests", pry_test_requests},
                                   {"alerts", pry_test_alerts},
                                   {"emit", t_emit},
                                   {NULL, NULL}};

struct pry_world **pry_test_push(lua_State *L, struct pry_world *world)
{
  struct pry_world **t = lua_newuserdatauv(L, sizeof *t, 0);
  *t = world;
  if (luaL_newmetatable(L, test_type)) {
    luaL_newlib(L, methods);
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
