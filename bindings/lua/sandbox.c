#include "sandbox.h"

#include "door.h"
#include "lib.h"
#include "nearest.h"

#include <ctype.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

/* Keys of the registry. */
static const char globals_key, modules_key;

enum { MODULE_NAME_MAX = 128 };

/* ---- Globals -------------------------------------------------------------------------------------------------- */

void pry_sandbox_set_global(lua_State *L, const char *name)
{
  pry_freeze(L, -1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &globals_key);
  lua_insert(L, -2);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

void pry_sandbox_get_global(lua_State *L, const char *name)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &globals_key);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
}

static int refuse_global(lua_State *L)
{
  size_t size;
  const char *name = pry_sandbox_tostring(L, 2, &size);

  return luaL_error(L, "global '%s' cannot be set; write 'local %s'", name, name);
}

/* Pushes a new environment: an empty table that looks frozen and reads `extras`, then the globals. */
static void push_environment(lua_State *L, int extras)
{
  lua_newtable(L);
  lua_createtable(L, 0, 4);
  lua_newtable(L);
  pry_freeze_set_contents(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &globals_key);
  if (extras) {
    lua_newtable(L); /* a copy: the file keeps what it was given */
    for (lua_pushnil(L); lua_next(L, extras);) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -4);
    }
    lua_createtable(L, 0, 1);
    lua_rotate(L, -3, -1);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
  }
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, refuse_global);
  lua_setfield(L, -2, "__newindex");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
}

/* ---- Misspelt globals ------------------------------------------------------------------------------------------ */

enum { NAMES_MAX = 128, LEVELS_SEARCHED = 64 };

/* Copies the name from "… (global 'name')…". */
static bool global_in_message(const char *message, char *name, size_t size)
{
  static const char mark[] = "(global '";
  const char *begin = strstr(message, mark);
  const char *end = begin ? strchr(begin + sizeof mark - 1, '\'') : NULL;
  if (!end || (size_t)(end - begin) - (sizeof mark - 1) >= size)
    return false;
  snprintf(name, size, "%.*s", (int)(end - begin) - (int)(sizeof mark - 1), begin + sizeof mark - 1);
  return true;
}

/* Pushes the environment of the innermost Lua function of `thread`. */
static bool push_running_environment(lua_State *thread)
{
  lua_Debug debug;
  const char *name;
  for (int level = 0; level < LEVELS_SEARCHED && lua_getstack(thread, level, &debug); level++) {
    if (!lua_getinfo(thread, "Slf", &debug))
      return false;
    int function = lua_gettop(thread);
    for (int i = 1; debug.currentline > 0 && (name = lua_getupvalue(thread, function, i)) != NULL; i++) {
      if (strcmp(name, "_ENV") == 0)
        return true;
      lua_pop(thread, 1);
    }
    lua_pop(thread, 1);
    if (debug.currentline > 0)
      return false;
  }
  return false;
}

void pry_sandbox_suggest(lua_State *thread, char *message, size_t size)
{
  char wrong[64];
  const char *names[NAMES_MAX];
  size_t count = 0, used = strlen(message);
  int top = lua_gettop(thread);
  if (!global_in_message(message, wrong, sizeof wrong) || !lua_checkstack(thread, 16))
    return;
  /* The environment, what only its file was given, what all files see: each is the __index of the one before. */
  for (bool found = push_running_environment(thread); found && lua_getmetatable(thread, -1);) {
    found = lua_getfield(thread, -1, "__index") == LUA_TTABLE;
    for (lua_pushnil(thread); found && lua_next(thread, -2); lua_pop(thread, 1))
      if (lua_type(thread, -2) == LUA_TSTRING && count < NAMES_MAX)
        names[count++] = lua_tostring(thread, -2);
    if (!found || !lua_checkstack(thread, 8))
      break;
  }
  const char *nearest = count ? pry_nearest_name(wrong, names, count) : NULL;
  if (nearest)
    snprintf(message + used, size - used, "; did you mean \"%s\"?", nearest);
  lua_settop(thread, top);
}

/* ---- Files ---------------------------------------------------------------------------------------------------- */

void pry_sandbox_load(lua_State *L, const char *path, struct pry_slice text, int extras)
{
  struct pry_slice mark = PRY_SLICE("\xEF\xBB\xBF");

  if (extras)
    extras = lua_absindex(L, extras);
  if (pry_slice_starts_with(text, mark)) { /* some editors write one */
    text.data += mark.size;
    text.size -= mark.size;
  }
  lua_pushfstring(L, "@%s", path);
  if (luaL_loadbufferx(L, text.data ? text.data : "", text.size, lua_tostring(L, -1), "t") != LUA_OK)
    lua_error(L);
  lua_remove(L, -2);
  push_environment(L, extras);
  lua_setupvalue(L, -2, 1);
}

static int append_bytes(lua_State *L, const void *bytes, size_t size, void *user)
{
  (void)L;
  return pry_buffer_append(user, bytes, size) ? 0 : 1;
}

/* The function on top, for who loads the file next. Without memory it is compiled again then. Tests run once. */
static void keep_compiled(lua_State *L, const struct pry_policy_file *file)
{
  static const char test[] = "_test.lua";
  size_t length = strlen(file->path), suffix = sizeof test - 1;
  if (length >= suffix && strcmp(file->path + length - suffix, test) == 0)
    return;
  struct pry_buffer *bytes = pry_lua_buffer(L, 0);
  lua_pushvalue(L, -2);
  if (lua_dump(L, append_bytes, bytes, false) == 0)
    ((struct pry_policy_file *)(uintptr_t)file)->compiled = pry_compiled_new(pry_buffer_slice(bytes));
  pry_buffer_fini(bytes);
  lua_pop(L, 2);
}

void pry_sandbox_load_file(lua_State *L, const struct pry_policy_file *file, int extras)
{
  if (extras)
    extras = lua_absindex(L, extras);
  if (!file->compiled) {
    pry_sandbox_load(L, file->path, (struct pry_slice){file->text, file->size}, extras);
    if (pry_script_of(L)->keep_compiled)
      keep_compiled(L, file);
    return;
  }
  if (luaL_loadbufferx(L, file->compiled->bytes, file->compiled->size, file->path, "b") != LUA_OK)
    lua_error(L);
  push_environment(L, extras);
  lua_setupvalue(L, -2, 1);
}

/* "lib.backoff" to "lib/backoff.lua". */
static bool module_path(const char *name, char *path, size_t size)
{
  size_t length = strlen(name);

  if (strncmp(name, "lib.", 4) != 0 || length + sizeof(".lua") > size || name[length - 1] == '.' || strstr(name, ".."))
    return false;
  for (size_t i = 0; i <= length; i++) {
    if (name[i] && name[i] != '.' && name[i] != '_' && name[i] != '-' && !isalnum((unsigned char)name[i]))
      return false;
    path[i] = (char)(name[i] == '.' ? '/' : name[i]);
  }
  memcpy(path + length, ".lua", sizeof(".lua"));
  return true;
}

void pry_sandbox_watch_modules(lua_State *L)
{
  struct pry_script *script = pry_script_of(L);

  lua_rawgetp(L, LUA_REGISTRYINDEX, &modules_key);
  int watch = pry_freeze_watch(L, -1);
  lua_pop(L, 1);
  luaL_unref(L, LUA_REGISTRYINDEX, script->modules_watch);
  script->modules_watch = watch;
  script->modules_watched = true;
}

/* A handler has loaded one more module: it is watched as it is now, the others as they were. */
static void watch_new_module(lua_State *L)
{
  const struct pry_script *script = pry_script_of(L);
  char fault[PRY_FAULT_MAX];

  if (!script->modules_watched)
    return;
  if (script->modules_watch > 0 && !pry_freeze_restore(L, script->modules_watch, fault, sizeof(fault)))
    luaL_error(L, "%s", fault);
  pry_sandbox_watch_modules(L);
}

static int run_module(lua_State *L)
{
  const char *name = lua_tostring(L, 1);
  const struct pry_script *script = pry_script_of(L);
  char path[MODULE_NAME_MAX];

  if (!module_path(name, path, sizeof(path)))
    luaL_error(L, "require '%s': only files below lib/ can be required, as 'lib.name'", name);
  const struct pry_policy_file *file = script->find ? script->find(script->find_user, path) : NULL;
  if (!file)
    luaL_error(L, "require '%s': there is no %s", name, path);
  pry_sandbox_load_file(L, file, 0);
  lua_call(L, 0, 1);
  if (lua_isnil(L, -1))
    luaL_error(L, "require '%s': %s returns nothing; it must return a table or a function", name, path);
  pry_freeze(L, -1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &modules_key);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
  watch_new_module(L);
  return 1;
}

static int base_require(lua_State *L)
{
  const char *name = luaL_checkstring(L, 1);

  pry_script_of(L)->run->required = true;
  lua_settop(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &modules_key);
  int type = lua_getfield(L, 2, name);
  if (type == LUA_TLIGHTUSERDATA)
    return luaL_error(L, "require '%s': it is being loaded already, by itself or a file that it requires", name);
  if (type != LUA_TNIL)
    return 1;
  lua_pushlightuserdata(L, (void *)&modules_key); /* while it loads */
  lua_setfield(L, 2, name);
  lua_pushcfunction(L, run_module);
  lua_pushvalue(L, 1);
  int status = lua_pcall(L, 1, 1, 0);
  if (status == LUA_ERRMEM)
    pry_script_poison(L);
  if (status != LUA_OK) { /* the next one to require it shall hear the same */
    lua_pushnil(L);
    lua_setfield(L, 2, name);
    return lua_error(L);
  }
  return 1;
}

/* ---- Text of values ------------------------------------------------------------------------------------------- */

const char *pry_sandbox_tostring(lua_State *L, int index, size_t *size)
{
  index = lua_absindex(L, index);
  int top = lua_gettop(L);
  luaL_checkstack(L, 4, NULL);
  if (luaL_callmeta(L, index, "__tostring")) {
    if (!lua_isstring(L, -1))
      luaL_error(L, "'__tostring' must return a string");
    return lua_tolstring(L, -1, size);
  }
  switch (lua_type(L, index)) {
  case LUA_TNIL:
    lua_pushliteral(L, "nil");
    break;
  case LUA_TBOOLEAN:
    lua_pushstring(L, lua_toboolean(L, index) ? "true" : "false");
    break;
  case LUA_TNUMBER:
  case LUA_TSTRING:
    lua_pushvalue(L, index);
    break;
  default: /* stock Lua shows an address here: it would differ from run to run */
    if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING)
      break;
    lua_settop(L, top); /* exactly one value: callers have a luaL_Buffer below it */
    lua_pushstring(L, luaL_typename(L, index));
  }
  return lua_tolstring(L, -1, size);
}

/* ---- Keys in order -------------------------------------------------------------------------------------------- */

struct key {
  enum { KEY_NUMBER, KEY_STRING, KEY_FALSE, KEY_TRUE } type;
  bool integer;
  lua_Integer whole;
  lua_Number number; /* of integers, too: the nearest */
  const char *text;  /* anchored by the table it is a key of */
  size_t size;
};

static int compare_numbers(const struct key *a, const struct key *b)
{
  if (a->integer && b->integer)
    return a->whole < b->whole ? -1 : a->whole > b->whole;
  if (a->number != b->number)
    return a->number < b->number ? -1 : 1;
  return b->integer - a->integer; /* only 2^63 is the nearest number of an integer and a key of its own */
}

static int compare_texts(const struct key *a, const struct key *b)
{
  size_t common = a->size < b->size ? a->size : b->size;
  int order = common ? memcmp(a->text, b->text, common) : 0;

  if (order)
    return order;
  return a->size < b->size ? -1 : a->size > b->size;
}

static int compare_keys(const void *left, const void *right)
{
  const struct key *a = left;
  const struct key *b = right;

  if (a->type != b->type)
    return a->type < b->type ? -1 : 1;
  if (a->type == KEY_NUMBER)
    return compare_numbers(a, b);
  return a->type == KEY_STRING ? compare_texts(a, b) : 0;
}

static void read_key(lua_State *L, int index, struct key *key)
{
  memset(key, 0, sizeof(*key));
  switch (lua_type(L, index)) {
  case LUA_TNUMBER:
    key->type = KEY_NUMBER;
    key->integer = lua_isinteger(L, index);
    key->whole = key->integer ? lua_tointeger(L, index) : 0;
    key->number = lua_tonumber(L, index);
    break;
  case LUA_TSTRING:
    key->type = KEY_STRING;
    key->text = lua_tolstring(L, index, &key->size);
    break;
  case LUA_TBOOLEAN:
    key->type = lua_toboolean(L, index) ? KEY_TRUE : KEY_FALSE;
    break;
  default:
    luaL_error(L, "a table with a key that is a %s has no order to walk in", luaL_typename(L, index));
  }
}

static void push_key(lua_State *L, const struct key *key)
{
  if (key->type == KEY_STRING)
    lua_pushlstring(L, key->text, key->size);
  else if (key->type != KEY_NUMBER)
    lua_pushboolean(L, key->type == KEY_TRUE);
  else if (key->integer)
    lua_pushinteger(L, key->whole);
  else
    lua_pushnumber(L, key->number);
}

static size_t count_keys(lua_State *L, int table)
{
  size_t count = 0;

  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1))
    count++;
  return count;
}

/* Bottom-up heap sort: in place, and n log n whatever the order. qsort() may allocate outside the state's cap. */
static void sift(struct key *keys, size_t root, size_t count)
{
  for (;;) {
    size_t child = 2 * root + 1;
    if (child >= count)
      return;
    if (child + 1 < count && compare_keys(&keys[child], &keys[child + 1]) < 0)
      child++;
    if (compare_keys(&keys[root], &keys[child]) >= 0)
      return;
    struct key swap = keys[root];
    keys[root] = keys[child];
    keys[child] = swap;
    root = child;
  }
}

static void sort_keys(struct key *keys, size_t count)
{
  bool sorted = true;

  for (size_t i = 1; i < count && sorted; i++)
    sorted = compare_keys(&keys[i - 1], &keys[i]) < 0;
  if (sorted)
    return;
  for (size_t i = count / 2; i-- > 0;)
    sift(keys, i, count);
  for (size_t end = count; end-- > 1;) {
    struct key swap = keys[0];
    keys[0] = keys[end];
    keys[end] = swap;
    sift(keys, 0, end);
  }
}

lua_Integer pry_sandbox_keys(lua_State *L, int index)
{
  index = lua_absindex(L, index);
  luaL_checkstack(L, 8, NULL);
  lua_newtable(L);
  int result = lua_gettop(L);
  pry_freeze_contents(L, index);
  int table = lua_gettop(L);
  size_t count = count_keys(L, table);
  pry_script_charge(L, 2 * count);
  struct key *keys = lua_newuserdatauv(L, (count ? count : 1) * sizeof(*keys), 0);
  size_t filled = 0;
  size_t bytes = 0;
  for (lua_pushnil(L); filled < count && lua_next(L, table); lua_pop(L, 1)) {
    read_key(L, -2, &keys[filled]);
    bytes += keys[filled++].size;
  }
  size_t depth = 1;
  while (count >> depth)
    depth++;
  pry_script_charge(L, depth * (count + bytes / PRY_SCRIPT_BYTES_PER_INSTRUCTION));
  sort_keys(keys, filled);
  for (size_t i = 0; i < filled; i++) {
    push_key(L, &keys[i]);
    lua_rawseti(L, result, (lua_Integer)i + 1);
  }
  lua_settop(L, result);
  return (lua_Integer)filled;
}

/* ---- Opening -------------------------------------------------------------------------------------------------- */

/* Without random, and without what some builds keep from older versions. */
static const char *const math_names[] = {"abs", "acos",       "asin", "atan", "ceil", "cos", "deg",
                                         "exp", "floor",      "fmod", "huge", "log",  "max", "maxinteger",
                                         "min", "mininteger", "modf", "pi",   "rad",  "sin", "sqrt",
                                         "tan", "tointeger",  "type", "ult",  NULL};

static void open_math(lua_State *L)
{
  lua_newtable(L);
  lua_pushcfunction(L, luaopen_math);
  lua_call(L, 0, 1);
  for (const char *const *name = math_names; *name; name++) {
    lua_getfield(L, -1, *name);
    lua_setfield(L, -3, *name);
  }
  lua_pop(L, 1);
}

/* Charges the length of the first argument, then calls the stock function. */
static int call_charged(lua_State *L)
{
  size_t size = 0;

  if (lua_type(L, 1) == LUA_TSTRING)
    lua_tolstring(L, 1, &size);
  pry_script_charge(L, size / 8 + (size_t)lua_gettop(L));
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

static int codepoint(lua_State *L)
{
  size_t size;

  luaL_checklstring(L, 1, &size);
  lua_Integer first = luaL_optinteger(L, 2, 1);
  lua_Integer last = luaL_optinteger(L, 3, first);
  if (first < 0)
    first += (lua_Integer)size + 1;
  if (last < 0)
    last += (lua_Integer)size + 1;
  if (first >= 1 && last <= (lua_Integer)size && last >= first && last - first >= PRY_SANDBOX_VALUES)
    return luaL_error(L, "too many results: at most %d", PRY_SANDBOX_VALUES);
  return call_charged(L);
}

static void wrap(lua_State *L, const char *name, lua_CFunction wrapper)
{
  lua_getfield(L, -1, name);
  lua_pushcclosure(L, wrapper, 1);
  lua_setfield(L, -2, name);
}

static void open_utf8(lua_State *L)
{
  lua_pushcfunction(L, luaopen_utf8);
  lua_call(L, 0, 1);
  wrap(L, "char", call_charged);
  wrap(L, "len", call_charged);
  wrap(L, "offset", call_charged);
  wrap(L, "codepoint", codepoint);
}

void pry_sandbox_open(lua_State *L)
{
  luaL_checkstack(L, 16, NULL);
  pry_lib_base_open(L);
  lua_pushcfunction(L, base_require);
  lua_setfield(L, -2, "require");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &globals_key);
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &modules_key);
  pry_lib_string_open(L);
  pry_sandbox_set_global(L, "string");
  pry_lib_table_open(L);
  pry_sandbox_set_global(L, "table");
  open_math(L);
  pry_sandbox_set_global(L, "math");
  open_utf8(L);
  pry_sandbox_set_global(L, "utf8");
}
