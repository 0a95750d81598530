#include "door.h"

#include "freeze.h"
#include "sandbox.h"

#include <stdio.h>

enum { LEVELS_MAX = 64 };

/* ---- Words for faults -------------------------------------------------------------------------------------- */

int pry_door_where(lua_State *thread, int level, char *text, size_t size)
{
  lua_Debug debug;

  text[0] = '\0';
  for (int end = level + LEVELS_MAX; level < end && lua_getstack(thread, level, &debug); level++) {
    if (!lua_getinfo(thread, "Sl", &debug) || debug.currentline <= 0)
      continue;
    snprintf(text, size, "%s:%d: ", debug.short_src, debug.currentline);
    return debug.currentline;
  }
  return 0;
}

/* Does the text begin with "something:digits: "? Messages of error() do, those of error(…, 0) do not. */
static bool has_position(const char *text)
{
  const char *colon = strstr(text, ".lua:");

  if (!colon || strcspn(text, " \n") < (size_t)(colon - text))
    return false;
  const char *digits = colon + 5;
  size_t count = strspn(digits, "0123456789");
  return count > 0 && digits[count] == ':';
}

static void clean(char *text)
{
  for (; *text; text++)
    if ((unsigned char)*text < 0x20 || *text == 0x7f)
      *text = ' ';
}

/* Cuts a text that snprintf() may have ended inside a UTF-8 sequence. */
static void trim_utf8(char *text)
{
  size_t size = strlen(text);
  size_t start = size;

  while (start > 0 && size - start < 4 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
    start--;
  if (start == 0 || (unsigned char)text[start - 1] < 0xC0)
    return;
  unsigned char lead = (unsigned char)text[start - 1];
  size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (size - start + 1 < wanted)
    text[start - 1] = '\0';
}

/* Describes the error object on top of the stack without allocating or calling a metamethod. */
static void describe(lua_State *thread, char *fault)
{
  char where[128];
  char plain[PRY_FAULT_MAX];

  pry_door_where(thread, 0, where, sizeof(where));
  if (lua_type(thread, -1) == LUA_TSTRING)
    snprintf(plain, sizeof(plain), "%s", lua_tostring(thread, -1));
  else if (lua_isinteger(thread, -1))
    snprintf(plain, sizeof(plain), LUA_INTEGER_FMT, lua_tointeger(thread, -1));
  else if (lua_type(thread, -1) == LUA_TNUMBER)
    snprintf(plain, sizeof(plain), LUA_NUMBER_FMT, lua_tonumber(thread, -1));
  else
    snprintf(plain, sizeof(plain), "(error object is a %s value)", luaL_typename(thread, -1));
  size_t prefix = has_position(plain) ? 0 : strlen(where);
  memcpy(fault, where, prefix);
  snprintf(fault + prefix, PRY_FAULT_MAX - prefix, "%s", plain);
  pry_sandbox_suggest(thread, fault, PRY_FAULT_MAX);
}

static int message_handler(lua_State *L)
{
  struct pry_run *run = pry_script_of(L)->run;

  if (run && !run->fault[0])
    describe(L, run->fault);
  return 1;
}

static void say_no_memory(const struct pry_script *script, lua_State *thread, struct pry_run *run)
{
  char where[128] = "";

  if (run->fault[0])
    return;
  if (thread)
    pry_door_where(thread, 0, where, sizeof(where));
  snprintf(run->fault, sizeof(run->fault), "%snot enough memory: a state may use %zu KiB, a string %zu KiB", where,
           script->limits.memory / 1024, pry_script_string_max(script) / 1024);
}

/* ---- The door ---------------------------------------------------------------------------------------------- */

/* What a run came to, from Lua's status and what the hook and pcall noted. `stack`: the thread whose frames still
 * stand, or NULL. */
static enum pry_door_result judge(struct pry_script *script, struct pry_run *run, int status, lua_State *stack)
{
  enum pry_door_result result = PRY_DOOR_ERROR;

  if (run->no_memory || (status == LUA_ERRMEM && !run->killed)) {
    say_no_memory(script, stack, run);
    result = PRY_DOOR_NO_MEMORY;
  } else if (run->killed) {
    result = PRY_DOOR_OVER_BUDGET;
  } else if (status == LUA_OK) {
    result = PRY_DOOR_OK;
  } else if (status == LUA_YIELD) {
    result = PRY_DOOR_YIELDED;
  } else if (stack && !run->fault[0]) {
    describe(stack, run->fault);
  } else if (!run->fault[0]) {
    snprintf(run->fault, sizeof(run->fault), "error while handling an error");
  }
  return result;
}

static enum pry_door_result check_watched(lua_State *L, struct pry_run *run, enum pry_door_result result)
{
  const struct pry_script *script = pry_script_of(L);
  char fault[PRY_FAULT_MAX] = "";

  if (run->watch > 0)
    pry_freeze_restore(L, run->watch, fault, sizeof(fault));
  if (run->required && script->modules_watch > 0) {
    char other[PRY_FAULT_MAX];
    if (!pry_freeze_restore(L, script->modules_watch, other, sizeof(other)) && !fault[0])
      memcpy(fault, other, sizeof(fault));
  }
  if (!fault[0])
    return result;
  if (result != PRY_DOOR_OK && result != PRY_DOOR_YIELDED)
    return result; /* the first fault is the one to tell */
  memcpy(run->fault, fault, sizeof(fault));
  return PRY_DOOR_ERROR;
}

static enum pry_door_result finish(struct pry_script *script, struct pry_run *run, enum pry_door_result result)
{
  clean(run->fault);
  trim_utf8(run->fault);
  if (result != PRY_DOOR_OK && result != PRY_DOOR_YIELDED)
    script->faults++;
  pry_script_leave(script, run);
  return result;
}

enum pry_door_result pry_door_call(struct pry_script *script, lua_CFunction function, void *argument,
                                   struct pry_run *run)
{
  lua_State *L = script->run ? script->run->thread : script->L;
  int height = lua_gettop(L);

  pry_script_enter(script, run, L, true);
  enum pry_door_result result;
  if (lua_checkstack(L, 16)) {
    lua_pushcfunction(L, message_handler);
    lua_pushcfunction(L, function);
    lua_pushlightuserdata(L, argument);
    int status = lua_pcall(L, 1, 0, height + 1);
    lua_settop(L, height);
    result = check_watched(L, run, judge(script, run, status, NULL));
  } else {
    result = judge(script, run, LUA_ERRMEM, NULL);
  }
  return finish(script, run, result);
}

enum pry_door_result pry_door_resume(struct pry_script *script, lua_State *thread, int arguments, int *results,
                                     struct pry_run *run, bool first)
{
  lua_State *from = script->run ? script->run->thread : script->L;

  *results = 0;
  pry_script_enter(script, run, thread, first);
  enum pry_door_result result;
  if (lua_checkstack(from, 16)) {
    int status = lua_resume(thread, from, arguments, results);
    result = check_watched(from, run, judge(script, run, status, thread));
  } else {
    result = judge(script, run, LUA_ERRMEM, NULL);
  }
  if (result != PRY_DOOR_OK && result != PRY_DOOR_YIELDED)
    pry_script_close_thread(script, thread);
  return finish(script, run, result);
}

enum pry_run_result pry_door_run_result(enum pry_door_result result)
{
  switch (result) {
  case PRY_DOOR_OK:
  case PRY_DOOR_YIELDED:
    return PRY_RUN_OK;
  case PRY_DOOR_OVER_BUDGET:
    return PRY_RUN_OVER_BUDGET;
  case PRY_DOOR_NO_MEMORY:
    return PRY_RUN_NO_MEMORY;
  case PRY_DOOR_ERROR:
    break;
  }
  return PRY_RUN_ERROR;
}
