/* Scripted answers of a policy test. Declared in lib_test.h; the fields of a step are listed in test_host.h. */
#include "lib_test.h"

#include "lib.h"

#include <stdlib.h>

enum { CHUNKS_MAX = 1024 };

/* Everything of one step that C owns, in a userdata that the collector frees when an error passes by. */
struct script_step {
  struct pry_http_step step;
  struct pry_headers headers;
  struct pry_slice chunks[CHUNKS_MAX];
  struct pry_buffer texts[CHUNKS_MAX];
};

static int step_gc(lua_State *L)
{
  struct script_step *step = lua_touserdata(L, 1);
  pry_headers_fini(&step->headers);
  for (size_t i = 0; i < step->step.chunk_count; i++)
    pry_buffer_fini(&step->texts[i]);
  step->step.chunk_count = 0;
  return 0;
}

static struct script_step *push_step(lua_State *L)
{
  struct script_step *step = lua_newuserdatauv(L, sizeof *step, 0);
  memset(&step->step, 0, sizeof step->step);
  pry_headers_init(&step->headers);
  if (luaL_newmetatable(L, "parry.test.step")) {
    lua_pushcfunction(L, step_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  step->step.headers = &step->headers;
  step->step.chunks = step->chunks;
  return step;
}

static struct pry_buffer *new_chunk(lua_State *L, struct script_step *step)
{
  if (step->step.chunk_count == CHUNKS_MAX)
    luaL_error(L, "a step has more than %d pieces", CHUNKS_MAX);
  struct pry_buffer *chunk = &step->texts[step->step.chunk_count++];
  pry_buffer_init(chunk, 0);
  return chunk;
}

/* Appends the value on top: a text as it is, a table as JSON. */
static void append_data(lua_State *L, struct pry_buffer *out, const char *what)
{
  if (lua_type(L, -1) == LUA_TSTRING) {
    pry_test_need(L, pry_buffer_append_slice(out, pry_lua_text(L, -1)));
  } else if (lua_type(L, -1) == LUA_TTABLE) {
    struct pry_buffer *json = pry_test_push_json(L, -1);
    pry_test_need(L, pry_buffer_append_slice(out, pry_buffer_slice(json)));
    pry_buffer_fini(json);
    lua_pop(L, 1);
  } else {
    luaL_error(L, "%s must be a text or a table, got %s", what, luaL_typename(L, -1));
  }
}

static void add_header(lua_State *L, struct script_step *step, const char *name, const char *value)
{
  struct pry_slice have;
  if (!pry_headers_get(&step->headers, pry_slice_of(name), &have))
    pry_test_need(L, pry_headers_add(&step->headers, pry_slice_of(name), pry_slice_of(value)));
}

static void read_headers(lua_State *L, int table, struct script_step *step)
{
  if (lua_getfield(L, table, "headers") != LUA_TNIL) {
    if (!lua_istable(L, -1))
      luaL_error(L, "headers = of a step must be a table, got %s", luaL_typename(L, -1));
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      struct pry_slice name = pry_lua_text(L, -2), value = {0};
      if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
        luaL_error(L, "the header \"%s\" of a step must be a text, got %s", name.data, luaL_typename(L, -1));
      lua_pushvalue(L, -1); /* a number becomes text: not in the table that is walked */
      value.data = lua_tolstring(L, -1, &value.size);
      if (!pry_headers_add(&step->headers, name, value))
        luaL_error(L, "the header \"%s\" of a step cannot be sent", name.data);
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
}

/* ---- bodies -------------------------------------------------------------------------------------------- */

static void read_event(lua_State *L, struct script_step *step)
{
  struct pry_buffer *chunk = new_chunk(L, step);
  int event = lua_gettop(L);
  bool named = lua_istable(L, event) && lua_getfield(L, event, "data") != LUA_TNIL;
  if (named && lua_getfield(L, event, "event") == LUA_TSTRING)
    pry_test_need(L, pry_buffer_append_text(chunk, "event: ") && pry_buffer_append_slice(chunk, pry_lua_text(L, -1)) &&
                         pry_buffer_append_text(chunk, "\n"));
  lua_settop(L, named ? event + 1 : event);
  pry_test_need(L, pry_buffer_append_text(chunk, "data: "));
  append_data(L, chunk, "the data of an event");
  pry_test_need(L, pry_buffer_append_text(chunk, "\n\n"));
  lua_settop(L, event);
}

static bool read_list(lua_State *L, int table, const char *key, struct script_step *step,
                      void (*read)(lua_State *L, struct script_step *step))
{
  int top = lua_gettop(L);
  int type = lua_getfield(L, table, key);
  if (type != LUA_TNIL && type != LUA_TTABLE)
    luaL_error(L, "%s = of a step must be a list, got %s", key, luaL_typename(L, -1));
  for (lua_Integer i = 1; type == LUA_TTABLE && i <= (lua_Integer)lua_rawlen(L, top + 1); i++) {
    lua_rawgeti(L, top + 1, i);
    read(L, step);
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
  return type == LUA_TTABLE;
}

static void read_chunk(lua_State *L, struct script_step *step)
{
  append_data(L, new_chunk(L, step), "a piece of a body");
}

/* `bare`: there is no small completion where no body is given. */
static void read_body(lua_State *L, int table, bool bare, struct script_step *step)
{
  static const char completion[] =
      "{\"id\":\"test\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
      "\"content\":\"ok\"},\"finish_reason\":\"stop\"}]}";
  bool has_events = read_list(L, table, "sse", step, read_event);
  bool has_chunks = read_list(L, table, "chunks", step, read_chunk);
  bool has_body = lua_getfield(L, table, "body") != LUA_TNIL;
  if (has_events + has_chunks + has_body > 1)
    luaL_error(L, "a step has either body, chunks or sse");
  if (has_body)
    append_data(L, new_chunk(L, step), "body = of a step");
  else if (!bare && !has_events && !has_chunks && step->step.status >= 200 && step->step.status < 300 &&
           !step->step.curl_code)
    pry_test_need(L, pry_buffer_append_text(new_chunk(L, step), completion));
  lua_pop(L, 1);
  if (!bare || step->step.chunk_count)
    add_header(L, step, "content-type", has_events ? "text/event-stream" : "application/json");
  for (size_t i = 0; i < step->step.chunk_count; i++)
    step->chunks[i] = pry_buffer_slice(&step->texts[i]);
}

/* ---- a step -------------------------------------------------------------------------------------------- */

static void read_failure(lua_State *L, int table, struct pry_http_step *step)
{
  static const struct {
    const char *name;
    int code;
    bool unsent, not_public;
  } failures[] = {{"timeout", PRY_HTTP_TIMED_OUT, false, false},    {"connect", PRY_HTTP_COULDNT_CONNECT, true, false},
                  {"dns", PRY_HTTP_COULDNT_RESOLVE, true, false},   {"tls", 35, true, false},
                  {"reset", PRY_HTTP_RECEIVE_FAILED, false, false}, {"nothing", PRY_HTTP_GOT_NOTHING, false, false},
                  {"private", PRY_HTTP_COULDNT_CONNECT, true, true}};
  int type = lua_getfield(L, table, "curl");
  size_t i = 0, count = sizeof failures / sizeof *failures;
  if (type == LUA_TSTRING)
    while (i < count && strcmp(failures[i].name, lua_tostring(L, -1)) != 0)
      i++;
  if (type != LUA_TNIL && (type != LUA_TSTRING || i == count))
    luaL_error(L, "curl = of a step is one of \"timeout\", \"connect\", \"dns\", \"tls\", \"reset\", \"nothing\", "
                  "\"private\"");
  if (type == LUA_TSTRING) {
    step->curl_code = failures[i].code;
    step->unsent = failures[i].unsent;
    step->not_public = failures[i].not_public;
  }
  lua_pop(L, 1);
}

static bool flag(lua_State *L, int table, const char *key)
{
  lua_getfield(L, table, key);
  bool set = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return set;
}

/* What a host says of a failed attempt that has no place in an answer: it stands in fields of its own (test_world.h). */
static bool read_host_words(lua_State *L, int table, bool host, struct script_step *step)
{
  static const struct {
    const char *key, *field;
    int type;
  } words[] = {{"category", PRY_WORLD_HOST_FIELD "category", LUA_TSTRING},
               {"code", PRY_WORLD_HOST_FIELD "code", LUA_TSTRING},
               {"message", PRY_WORLD_HOST_FIELD "message", LUA_TSTRING},
               {"retry_after", PRY_WORLD_HOST_FIELD "retry-after", LUA_TNUMBER},
               {"not_sent", PRY_WORLD_HOST_FIELD "not-sent", LUA_TBOOLEAN}};
  bool failed = false;
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    int type = lua_getfield(L, table, words[i].key);
    if (type != LUA_TNIL && !host)
      luaL_error(L, "%s = of a step is what a host says: only for a provider with host = true", words[i].key);
    if (type != LUA_TNIL && type != words[i].type)
      luaL_error(L, "%s = of a step must be a %s, got %s", words[i].key, lua_typename(L, words[i].type),
                 lua_typename(L, type));
    if (i == 0 && type != LUA_TNIL && pry_category_from_name(pry_lua_text(L, -1)) == PRY_NONE)
      luaL_error(L, "category = of a step is none of the failure vocabulary: \"%s\"", lua_tostring(L, -1));
    if (type == LUA_TBOOLEAN ? lua_toboolean(L, -1) : type != LUA_TNIL)
      add_header(L, step, words[i].field, type == LUA_TBOOLEAN ? "true" : lua_tostring(L, -1));
    failed = failed || (type != LUA_TNIL && i < 2);
    lua_pop(L, 1);
  }
  return failed;
}

/* Pushes the step that the table at `table` describes. */
static struct script_step *read_step(lua_State *L, int table, bool host)
{
  static const char *const known[] = {"status",      "headers", "body",    "chunks",      "sse",        "delay",
                                      "chunk_delay", "cut",     "hang",    "curl",        "after_body", "hang_connect",
                                      "category",    "code",    "message", "retry_after", "not_sent",   NULL};
  if (!lua_istable(L, table))
    luaL_error(L, "a step is a table { status = 200, ... }, got %s", luaL_typename(L, table));
  pry_lua_options(L, table, "a step", known, false);
  struct script_step *step = push_step(L);
  step->step.status = (int)pry_lua_number_field(L, table, "a step", "status", 200, 100, 599);
  step->step.delay = pry_lua_number_field(L, table, "a step", "delay", 0, 0, 86400);
  step->step.chunk_delay = pry_lua_number_field(L, table, "a step", "chunk_delay", 0, 0, 86400);
  step->step.cut = flag(L, table, "cut");
  step->step.hang = flag(L, table, "hang");
  step->step.hang_connect = flag(L, table, "hang_connect");
  step->step.after_body = flag(L, table, "after_body");
  read_failure(L, table, &step->step);
  read_headers(L, table, step);
  bool bare = read_host_words(L, table, host, step) || host;
  read_body(L, table, bare, step);
  return step;
}

void pry_test_push_steps(lua_State *L, struct pry_world *world, int index, const char *url_part, bool host)
{
  lua_Integer count = (lua_Integer)lua_rawlen(L, index);
  int top = lua_gettop(L);
  for (lua_Integer i = 1; i <= count; i++) {
    lua_rawgeti(L, index, i);
    struct script_step *step = read_step(L, top + 1, host);
    step->step.url_part = url_part;
    pry_test_need(L, pry_http_script_push(world->script, &step->step));
    lua_settop(L, top);
  }
}

/* ---@param step step   the answer to everything no step is left for; without it the connection fails
 * function t:otherwise(step) end */
int pry_test_otherwise(lua_State *L)
{
  struct pry_world *world = pry_test_world(L);
  lua_settop(L, 2);
  struct script_step *step = read_step(L, 2, world->hosts);
  pry_test_need(L, pry_http_script_set_default(world->script, &step->step));
  return 0;
}
