#include "ask_internal.h"

#include "declare.h"
#include "door.h"
#include "lib.h"

#include <stdio.h>

enum {
  BUDGET_BYTES = 1024 * 1024, /* a body may use a handler's budget for each of these it begins */
  OWN_FAULT_BYTES = 64 * 1024 /* what does not get along with that much is at fault itself */
};

static const char EMIT_KEY = 0; /* registry key, by address */

/* One step. */
struct translate_run {
  struct pry_translation *translation;
  enum pry_translate_result result;
};

static int too_large(lua_State *L, struct translate_run *run, const char *what, size_t limit)
{
  struct pry_translation *t = run->translation;
  (void)L;
  run->result = PRY_TRANSLATE_TOO_LARGE;
  snprintf(t->why, sizeof t->why, "%s would have more than %zu bytes", what, limit);
  return 0;
}

/* ---- what a function is given -------------------------------------------------------------------------------- */

static void push_function(lua_State *L, const struct pry_translation *t, const char *name)
{
  bool found = t->step == PRY_TRANSLATE_STRIP ? pry_declare_push_strip(L, t->dialect)
                                              : pry_declare_push_translate(L, t->dialect);
  if (!found)
    luaL_error(L, "%s has no such function any more", t->dialect->file);
  if (t->step == PRY_TRANSLATE_STRIP)
    return;
  if (lua_getfield(L, -1, t->client) != LUA_TTABLE || lua_getfield(L, -1, name) != LUA_TFUNCTION)
    luaL_error(L, "%s has no translate.%s.%s any more", t->dialect->file, t->client, name);
}

static void push_memory(lua_State *L, const struct pry_translation *t)
{
  const char *why;
  if (!t->memory->size)
    lua_newtable(L);
  else if (!pry_lua_json_push(L, pry_buffer_slice(t->memory), &why))
    luaL_error(L, "the memory of a translation: %s", why);
}

/* False: the text is no JSON; nothing was pushed. */
static bool push_data(lua_State *L, const struct pry_translation *t, const char **why)
{
  const struct pry_translation_pair *pair = t->client ? pry_dialect_pair(t->dialect, t->client) : NULL;
  struct pry_lua_keep keep = {.opaque = pair ? &pair->opaque : &t->dialect->strip_opaque,
                              .nulls = t->step == PRY_TRANSLATE_STRIP};
  return pry_lua_json_push_kept(L, t->data, &keep, why);
}

static void push_ask(lua_State *L, const struct pry_translation *t)
{
  lua_createtable(L, 0, 4);
  lua_pushlstring(L, t->path.data ? t->path.data : "", t->path.size);
  lua_setfield(L, -2, "path");
  lua_pushstring(L, t->model);
  lua_setfield(L, -2, "model");
  lua_pushinteger(L, (lua_Integer)pry_decision_of(L)->now);
  lua_setfield(L, -2, "time");
  lua_pushstring(L, t->call_id);
  lua_setfield(L, -2, "call_id");
}

/* ---- what a function gives back ------------------------------------------------------------------------------ */

/* A buffer that ends with the step: what was written into it is taken over when all went well. False: too long. */
static bool encode(lua_State *L, int index, struct pry_buffer *out, const char *what)
{
  char complaint[128];
  size_t before = out->size;
  if (pry_lua_json_append(L, index, out, NULL, NULL, complaint, sizeof complaint))
    return true;
  out->size = before;
  if (strcmp(complaint, PRY_LUA_JSON_TOO_LONG) != 0)
    luaL_error(L, "%s: %s", what, complaint);
  return false;
}

static void write_memory(lua_State *L, int index, struct pry_translation *t)
{
  struct pry_buffer *text = pry_lua_buffer(L, PRY_TRANSLATE_MEMORY_MAX);
  if (!encode(L, index, text, "the memory of a translation"))
    luaL_error(L, "the memory of a translation has more than %d bytes", PRY_TRANSLATE_MEMORY_MAX);
  pry_buffer_clear(t->memory);
  if (!pry_buffer_append_slice(t->memory, pry_buffer_slice(text)))
    luaL_error(L, "not enough memory");
  pry_buffer_fini(text);
  lua_pop(L, 1);
}

/* nil, and what cannot be translated: a text, or a list of them. */
static int refused(lua_State *L, int index, struct translate_run *run)
{
  struct pry_translation *t = run->translation;
  size_t used = 0;
  if (lua_type(L, index) == LUA_TSTRING)
    pry_copy_text(t->why, sizeof t->why, lua_tostring(L, index));
  luaL_argexpected(L, lua_type(L, index) == LUA_TSTRING || lua_istable(L, index), index, "list of texts");
  for (lua_Integer i = 1; lua_istable(L, index) && lua_geti(L, index, i) == LUA_TSTRING && used < sizeof t->why; i++) {
    int length = snprintf(t->why + used, sizeof t->why - used, "%s%s", i > 1 ? ", " : "", lua_tostring(L, -1));
    used += length > 0 ? (size_t)length : 0;
    lua_pop(L, 1);
  }
  run->result = PRY_TRANSLATE_REFUSED;
  return 0;
}

static void read_headers(lua_State *L, int index, struct pry_headers *headers)
{
  if (lua_type(L, index) != LUA_TTABLE)
    luaL_error(L, "translate: headers must be a table, got %s", luaL_typename(L, index));
  pry_lua_thaw(L, index);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    struct pry_slice name = pry_lua_text(L, -2);
    bool remove = lua_type(L, -1) == LUA_TBOOLEAN && !lua_toboolean(L, -1);
    if (remove)
      pry_headers_remove(headers, name);
    else if (!pry_headers_set(headers, name, pry_lua_text(L, -1)))
      luaL_error(L, "translate: the header %s cannot be sent", name.data);
  }
}

static void read_path(lua_State *L, int index, struct pry_translation *t)
{
  struct pry_slice path = pry_lua_text(L, index);
  if (path.size >= sizeof t->target_path || path.data[0] != '/' || strlen(path.data) != path.size)
    luaL_error(L, "translate: path must begin with / and have less than %d bytes", PRY_TRANSLATE_PATH_MAX);
  memcpy(t->target_path, path.data, path.size + 1);
}

static int take_request(lua_State *L, int table, struct translate_run *run)
{
  static const char *const names[] = {"body", "path", "headers", "remember", NULL};
  struct pry_translation *t = run->translation;
  pry_lua_options(L, table, "request", names, false);
  lua_getfield(L, table, "path");
  read_path(L, lua_gettop(L), t);
  if (lua_getfield(L, table, "body") != LUA_TTABLE)
    return luaL_error(L, "translate: body must be a table, got %s", luaL_typename(L, -1));
  if (!encode(L, lua_gettop(L), t->out, "translate: body"))
    return too_large(L, run, "the translated body", t->out->limit);
  if (lua_getfield(L, table, "headers") != LUA_TNIL)
    read_headers(L, lua_gettop(L), t->headers);
  if (lua_getfield(L, table, "remember") != LUA_TNIL)
    write_memory(L, lua_gettop(L), t);
  run->result = PRY_TRANSLATED;
  return 0;
}

static int take_body(lua_State *L, int index, struct translate_run *run)
{
  struct pry_translation *t = run->translation;
  if (lua_type(L, index) != LUA_TTABLE)
    return luaL_error(L, "a body must be a table, got %s", luaL_typename(L, index));
  if (!encode(L, index, t->out, "body"))
    return too_large(L, run, "the translated body", t->out->limit);
  run->result = PRY_TRANSLATED;
  return 0;
}

/* ---- the steps, inside the door; argument 1 is the run -------------------------------------------------------- */

static int run_request(lua_State *L, struct translate_run *run)
{
  const char *why;
  push_function(L, run->translation, "request");
  int function = lua_gettop(L);
  if (!push_data(L, run->translation, &why)) {
    run->result = PRY_TRANSLATE_REFUSED;
    snprintf(run->translation->why, sizeof run->translation->why, "a body that is %s", why);
    return 0;
  }
  push_ask(L, run->translation);
  lua_call(L, 2, 2);
  return lua_toboolean(L, function) ? take_request(L, function, run) : refused(L, function + 1, run);
}

static int run_strip(lua_State *L, struct translate_run *run)
{
  const char *why;
  push_function(L, run->translation, NULL);
  int function = lua_gettop(L);
  run->result = PRY_TRANSLATE_UNCHANGED;
  if (!push_data(L, run->translation, &why))
    return 0; /* the provider will say so */
  lua_call(L, 1, 2);
  if (lua_toboolean(L, function))
    return take_body(L, function, run);
  return lua_isnil(L, function + 1) ? 0 : refused(L, function + 1, run);
}

static int run_answer(lua_State *L, struct translate_run *run)
{
  const char *why;
  push_function(L, run->translation, "answer");
  int function = lua_gettop(L);
  if (!push_data(L, run->translation, &why)) { /* the provider's fault, not the function's */
    run->result = PRY_TRANSLATE_REFUSED;
    snprintf(run->translation->why, sizeof run->translation->why, "an answer that is %s", why);
    return 0;
  }
  push_memory(L, run->translation);
  lua_call(L, 2, 2);
  return lua_toboolean(L, function) ? take_body(L, function, run) : refused(L, function + 1, run);
}

static int run_event(lua_State *L, struct translate_run *run)
{
  struct pry_translation *t = run->translation;
  bool event = t->step == PRY_TRANSLATE_EVENT;
  const char *why;
  push_memory(L, t);
  int memory = lua_gettop(L);
  push_function(L, t, event ? "event" : "finish");
  int function = lua_gettop(L);
  lua_pushvalue(L, memory);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &EMIT_KEY);
  if (event) {
    if (!push_data(L, t, &why))
      lua_pushlstring(L, t->data.data ? t->data.data : "", t->data.size);
    lua_pushlstring(L, t->type.data ? t->type.data : "", t->type.size);
  }
  run->result = PRY_TRANSLATED;
  lua_call(L, event ? 4 : 2, 1);
  if (lua_toboolean(L, function))
    return refused(L, function, run);
  write_memory(L, memory, t);
  return 0;
}

static int run_step(lua_State *L)
{
  struct translate_run *run = lua_touserdata(L, 1);
  luaL_checkstack(L, 20, "translating");
  switch (run->translation->step) {
  case PRY_TRANSLATE_REQUEST:
    return run_request(L, run);
  case PRY_TRANSLATE_STRIP:
    return run_strip(L, run);
  case PRY_TRANSLATE_ANSWER:
    return run_answer(L, run);
  default:
    return run_event(L, run);
  }
}

/* `emit(data)`, `emit(type, data)`: one event into the client's stream. A text is taken as the data it is. */
static int emit(lua_State *L)
{
  struct pry_decision *decision = pry_decision_of(L);
  struct pry_translation *t = decision ? decision->translation : NULL;
  char complaint[128];
  if (!t || (t->step != PRY_TRANSLATE_EVENT && t->step != PRY_TRANSLATE_FINISH))
    return luaL_error(L, "emit belongs to the event that it was given for");
  bool typed = lua_gettop(L) > 1;
  int data = typed ? 2 : 1;
  struct pry_buffer *out = t->out;
  bool ok = true;
  if (typed)
    ok = pry_buffer_append_text(out, "event: ") && pry_buffer_append_slice(out, pry_lua_text(L, 1)) &&
         pry_buffer_append_text(out, "\n");
  ok = ok && pry_buffer_append_text(out, "data: ");
  if (ok && lua_type(L, data) == LUA_TSTRING)
    ok = pry_buffer_append_slice(out, pry_lua_text(L, data));
  else if (ok && !pry_lua_json_append(L, data, out, NULL, NULL, complaint, sizeof complaint))
    return luaL_error(L, "emit: %s", complaint);
  if (!ok || !pry_buffer_append_text(out, "\n\n"))
    return luaL_error(L, "emit: more than %d bytes at once", (int)out->limit);
  return 0;
}

void pry_translate_open(lua_State *L)
{
  lua_pushcfunction(L, emit);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &EMIT_KEY);
}

/* ---- the door --------------------------------------------------------------------------------------------- */

static const char *name_of_step(enum pry_translate_step step)
{
  static const char *const names[] = {"translate.request", "translate.answer", "translate.event", "translate.finish",
                                      "strip"};
  return names[step];
}

static unsigned budget_factor(const struct pry_translation *t)
{
  return (unsigned)(t->data.size / BUDGET_BYTES + 1);
}

/* A long body that a script's limits cannot hold is the client's or the provider's matter, not the function's. */
static bool is_too_large(const struct pry_translation *t, enum pry_door_result door)
{
  return (door == PRY_DOOR_NO_MEMORY || door == PRY_DOOR_OVER_BUDGET) && t->data.size > OWN_FAULT_BYTES;
}

static enum pry_translate_result judge(struct pry_script *script, struct translate_run *job, enum pry_door_result door,
                                       struct pry_decision *decision, struct pry_run *run)
{
  struct pry_translation *t = job->translation;
  if (door == PRY_DOOR_OK)
    return job->result;
  if (is_too_large(t, door)) {
    snprintf(t->why, sizeof t->why,
             "it has %zu bytes, more than a script can take with %zu KiB of memory and %lu instructions", t->data.size,
             script->limits.memory / 1024, run->budget);
    return PRY_TRANSLATE_TOO_LARGE;
  }
  snprintf(t->why, sizeof t->why, "the dialect's %s failed", name_of_step(t->step));
  pry_decision_tell_fault(decision, name_of_step(t->step), pry_door_run_result(door), t->call_id, run->fault);
  return PRY_TRANSLATE_FAILED;
}

enum pry_translate_result pry_ask_translate(struct pry_state *state, struct pry_translation *translation)
{
  struct pry_script *script = (struct pry_script *)state;
  struct pry_decider *decider = pry_decider_of(script);
  struct pry_decision *outer = decider->current, *decision = pry_decision_take(decider);
  struct translate_run job = {translation, PRY_TRANSLATE_FAILED};
  size_t before = translation->out->size;
  struct pry_run run;
  translation->why[0] = '\0';
  if (!decision) {
    snprintf(translation->why, sizeof translation->why, "memory is short");
    return PRY_TRANSLATE_FAILED;
  }
  pry_run_init(&run, script, budget_factor(translation));
  run.watch =
      decider->dialect_watches[translation->dialect->index]
                              [translation->step == PRY_TRANSLATE_STRIP ? PRY_DIALECT_STRIP : PRY_DIALECT_TRANSLATE];
  decision->name = translation->dialect->name;
  decision->now = pry_worker_unix_time(state->worker);
  decision->translation = translation;
  decider->current = decision;
  enum pry_door_result door = pry_door_call(script, run_step, &job, &run);
  decider->current = outer;
  enum pry_translate_result result = judge(script, &job, door, decision, &run);
  pry_decision_return(decision);
  if (result != PRY_TRANSLATED)
    translation->out->size = before;
  if (pry_script_wants_rebuild(script) && state->worker->state == state)
    pry_worker_request_rebuild(state->worker);
  return result;
}
