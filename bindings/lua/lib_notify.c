/* notify{}: what a policy hands to the alerts (alert.h). */
#include "lib.h"

#include "ask_internal.h"
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>

enum { COUNT_MAX = 1000000, REPEAT_MAX_SECONDS = 30 * 86400, SAMPLE_MAX = PRY_NOTE_LINE_MAX };

static const struct pry_sink_config *check_sink(lua_State *L, const struct pry_decision *decision,
                                                struct pry_slice name)
{
  const struct pry_config *config = pry_decision_config(decision);
  for (size_t i = 0; i < config->sink_count; i++)
    if (pry_slice_equal(pry_slice_of(config->sinks[i].name), name))
      return &config->sinks[i];
  luaL_error(L, "notify{}: there is no sink \"%s\"; declare it in init.lua", name.data);
  return NULL;
}

static bool is_true(lua_State *L, const char *name)
{
  lua_pushstring(L, name);
  lua_rawget(L, 1);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

static enum pry_alert_severity check_severity(lua_State *L)
{
  enum pry_alert_severity severity = PRY_ALERT_UNSAID;
  struct pry_slice name = pry_lua_text_field(L, 1, "notify", "severity");
  if (name.size && !pry_alert_severity_from_name(name, &severity))
    luaL_error(L, "notify{}: severity must be \"info\", \"warning\", \"error\" or \"critical\", got \"%s\"", name.data);
  return severity;
}

static int by_name(const void *a, const void *b)
{
  const struct pry_alert_field *left = a, *right = b;
  return strcmp(left->name.data, right->name.data);
}

/* Texts, numbers and booleans, in the order of their names. What the slices point at stays on the stack, or in the table. */
static size_t check_fields(lua_State *L, struct pry_alert_field fields[PRY_NOTE_FIELDS_MAX])
{
  size_t count = 0;
  lua_pushliteral(L, "fields");
  if (lua_rawget(L, 1) == LUA_TNIL)
    return 0;
  if (lua_type(L, -1) != LUA_TTABLE && lua_type(L, -1) != LUA_TUSERDATA)
    return (size_t)luaL_error(L, "notify{}: fields must be a table { name = value }");
  int table = lua_gettop(L);
  pry_lua_thaw(L, table);
  luaL_checkstack(L, PRY_NOTE_FIELDS_MAX + 4, NULL);
  lua_pushnil(L);
  while (lua_next(L, table)) {
    int type = lua_type(L, -1);
    if (lua_type(L, -2) != LUA_TSTRING || (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN))
      return (size_t)luaL_error(L, "notify{}: fields must be { name = text, number or boolean }");
    if (count == PRY_NOTE_FIELDS_MAX)
      return (size_t)luaL_error(L, "notify{} takes at most %d fields", PRY_NOTE_FIELDS_MAX);
    struct pry_alert_field *field = &fields[count++];
    field->name.data = lua_tolstring(L, -2, &field->name.size);
    field->value.data = luaL_tolstring(L, -1, &field->value.size);
    lua_insert(L, -3); /* below the key and the value, so that it stays */
    lua_pop(L, 1);
  }
  qsort(fields, count, sizeof *fields, by_name);
  return count;
}

/* ---@class alert
 * ---@field to string?               the name of a sink; the application that parry is a part of hears of it anyway, and
 *                                    without `to` nobody else does
 * ---@field key string?              "alert"; alerts of one key at one sink are one alert
 * ---@field text string?             what is wrong; may be left out with resolve and update
 * ---@field title string?            one line for it
 * ---@field severity "info"|"warning"|"error"|"critical"|nil   "error"
 * ---@field cause string?            of this one; the most frequent is told
 * ---@field sample string?           a failure to look at; otherwise the id of the handler's call
 * ---@field fields table<string, string|number|boolean>?   at most eight
 * ---@field count integer?           how many this is, 1
 * ---@field resolve boolean?         it is over
 * ---@field update boolean?          counts if the alert is open, else does nothing
 * ---@field repeat_after number?     seconds after which it may be told again while it goes on, 3600
 * ---@param v alert
 * Raises an alert under `key` at the sink `to`, or resolves it. While it is open it only counts. Never waits; returns nothing.
 * Give it no prompt, no completion and no message of a provider.
 * function notify(v) end */
static int notify(lua_State *L)
{
  static const char *const names[] = {"key",    "to",     "text",  "resolve", "severity",     "title", "cause",
                                      "sample", "fields", "count", "update",  "repeat_after", NULL};
  struct pry_decision *decision = pry_decision_check(L, "notify");
  const struct pry_call_view *call = decision->ask->call;
  struct pry_alert_field fields[PRY_NOTE_FIELDS_MAX];
  char key[PRY_KEY_MAX], sample[SAMPLE_MAX];
  lua_settop(L, 1);
  pry_lua_options(L, 1, "notify", names, false);
  struct pry_slice to = pry_lua_text_field(L, 1, "notify", "to");
  struct pry_alert alert = {
      .text = pry_lua_text_field(L, 1, "notify", "text"),
      .title = pry_lua_text_field(L, 1, "notify", "title"),
      .cause = pry_lua_text_field(L, 1, "notify", "cause"),
      .sample = pry_lua_text_field(L, 1, "notify", "sample"),
      .severity = check_severity(L),
      .count = (unsigned long)pry_lua_number_field(L, 1, "notify", "count", 1, 1, COUNT_MAX),
      .resolve = is_true(L, "resolve"),
      .update = is_true(L, "update"),
      .generation = decision->decider->script->state.generation->id,
      .repeat =
          pry_time_from_seconds(pry_lua_number_field(L, 1, "notify", "repeat_after", 0, 0.001, REPEAT_MAX_SECONDS)),
      .fields = fields,
  };
  if (!alert.text.size && !alert.resolve && !alert.update)
    return luaL_error(L, "notify{} needs a text, or resolve = true");
  if (call && !alert.resolve) {
    alert.client = pry_slice_of(call->client);
    alert.session = pry_slice_of(call->session);
  }
  if (call && !alert.sample.size && !alert.resolve) {
    snprintf(sample, sizeof sample, "call %s", call->id);
    alert.sample = pry_slice_of(sample);
  }
  const struct pry_sink_config *sink = to.data ? check_sink(L, decision, to) : NULL;
  lua_pushliteral(L, "key");
  if (lua_rawget(L, 1) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushliteral(L, "alert");
  }
  alert.key = pry_lua_key(L, lua_gettop(L), decision, '/', key, sizeof key);
  alert.field_count = check_fields(L, fields);
  pry_alerts_notify(pry_decision_engine(decision)->alerts, pry_decision_worker(decision)->loop, sink, &alert);
  return 0;
}

void pry_lib_notify_open(lua_State *L)
{
  lua_pushcfunction(L, notify);
  pry_sandbox_set_global(L, "notify");
}
