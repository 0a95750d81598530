/* call:find: texts of certain names in a request's body, without building anything else from it. Declared in lib.h. */
#include "lib.h"

#include "json.h"

#include <stdio.h>

enum {
  NAMES_MAX = 32,
  FOUND_MAX = 64,
  PATH_SIZE = 512,
  KEY_SHOWN = 64,
  VALUE_MAX = 8 * 1024,
  PARTS_MAX = 400 * 1000 /* about 5 ms: a body of nothing but brackets must not hold a worker */
};

struct finding {
  struct pry_slice name, value; /* of `names`; the raw string */
  char path[PATH_SIZE];
};

/* Where a value stands in its object or list. */
struct place {
  struct pry_slice key; /* raw; empty: in a list, at `index` */
  size_t index;
};

struct finder {
  const char *p, *end;
  struct pry_slice names[NAMES_MAX];
  size_t name_count;
  size_t parts;
  unsigned muted;                              /* within the top-level `tools` */
  struct place places[PRY_JSON_DEPTH_MAX + 1]; /* of the value that is being walked, by depth */
  struct finding *found;
  size_t count, most;
};

/* All of this walks text that is known to be valid. */
static void skip_space(struct finder *finder)
{
  while (*finder->p == ' ' || *finder->p == '\n' || *finder->p == '\t' || *finder->p == '\r')
    finder->p++;
}

static struct pry_slice take_string(struct finder *finder)
{
  const char *start = finder->p++, *escape;
  const char *quote = memchr(finder->p, '"', (size_t)(finder->end - finder->p));
  while ((escape = memchr(finder->p, '\\', (size_t)(quote - finder->p)))) {
    finder->p = escape + 2;
    if (finder->p > quote)
      quote = memchr(finder->p, '"', (size_t)(finder->end - finder->p));
  }
  finder->p = quote + 1;
  return (struct pry_slice){start, (size_t)(finder->p - start)};
}

static const struct pry_slice *name_of(const struct finder *finder, struct pry_slice key)
{
  bool escaped = memchr(key.data, '\\', key.size) != NULL;
  for (size_t i = 0; i < finder->name_count; i++)
    if ((escaped || key.size == finder->names[i].size + 2) && pry_json_equals(key, finder->names[i]))
      return &finder->names[i];
  return NULL;
}

/* As in JavaScript; what does not fit is left out. */
static void write_path(const struct finder *finder, unsigned depth, char *path, size_t size)
{
  size_t used = 0;
  path[0] = '\0';
  for (unsigned i = 0; i < depth && used < size; i++) {
    const struct place *place = &finder->places[i];
    size_t shown = place->key.size - 2 < KEY_SHOWN ? place->key.size - 2 : KEY_SHOWN;
    int length = place->key.size
                     ? snprintf(path + used, size - used, "%s%.*s", used ? "." : "", (int)shown, place->key.data + 1)
                     : snprintf(path + used, size - used, "[%zu]", place->index);
    used += length > 0 ? (size_t)length : 0;
  }
}

static void keep(struct finder *finder, unsigned depth, const struct pry_slice *name, struct pry_slice value)
{
  if (finder->count < finder->most) {
    struct finding *finding = &finder->found[finder->count];
    finding->name = *name;
    finding->value = value;
    write_path(finder, depth, finding->path, sizeof finding->path);
  }
  finder->count++;
}

/* False: stop, from wherever it is. `name`: the value is that of a member which is looked for, or stands in its list. */
static bool walk(struct finder *finder, unsigned depth, const struct pry_slice *name);

static const struct pry_slice *wanted(const struct finder *finder, struct pry_slice key, const struct pry_slice *inside)
{
  if (finder->muted)
    return NULL;
  return inside && pry_json_equals(key, PRY_SLICE("url")) ? inside : name_of(finder, key);
}

static bool walk_object(struct finder *finder, unsigned depth, const struct pry_slice *inside)
{
  finder->p++;
  skip_space(finder);
  while (*finder->p != '}') {
    struct pry_slice key = take_string(finder);
    skip_space(finder);
    finder->p++; /* the colon */
    skip_space(finder);
    finder->places[depth].key = key;
    bool tools = depth == 0 && pry_json_equals(key, PRY_SLICE("tools"));
    finder->muted += tools;
    if (!walk(finder, depth + 1, wanted(finder, key, inside)))
      return false;
    finder->muted -= tools;
    skip_space(finder);
    if (*finder->p == ',')
      finder->p++;
    skip_space(finder);
  }
  finder->p++;
  return true;
}

static bool walk_array(struct finder *finder, unsigned depth, const struct pry_slice *name)
{
  finder->p++;
  skip_space(finder);
  for (size_t i = 0; *finder->p != ']'; i++) {
    finder->places[depth] = (struct place){{NULL, 0}, i};
    if (!walk(finder, depth + 1, name))
      return false;
    skip_space(finder);
    if (*finder->p == ',')
      finder->p++;
    skip_space(finder);
  }
  finder->p++;
  return true;
}

static bool walk(struct finder *finder, unsigned depth, const struct pry_slice *name)
{
  if (++finder->parts > PARTS_MAX)
    return false;
  switch (*finder->p) {
  case '{':
    return walk_object(finder, depth, name);
  case '[':
    return walk_array(finder, depth, name);
  case '"': {
    struct pry_slice value = take_string(finder);
    if (name)
      keep(finder, depth, name, value);
    return finder->count <= finder->most;
  }
  default: /* a number, true, false or null */
    while (finder->p < finder->end && !strchr(",]} \n\t\r", *finder->p))
      finder->p++;
    return true;
  }
}

/* ---- what the script says and gets ------------------------------------------------------------------------------ */

static void read_names(lua_State *L, struct finder *finder)
{
  if (lua_type(L, 2) != LUA_TTABLE)
    luaL_error(L, "call:find needs a list of names, got %s", luaL_typename(L, 2));
  pry_lua_thaw(L, 2);
  lua_Unsigned count = lua_rawlen(L, 2);
  if (count < 1 || count > NAMES_MAX)
    luaL_error(L, "call:find takes 1 to %d names", NAMES_MAX);
  for (lua_Unsigned i = 1; i <= count; i++) {
    if (lua_rawgeti(L, 2, (lua_Integer)i) != LUA_TSTRING)
      luaL_error(L, "call:find takes names that are texts");
    finder->names[finder->name_count++] = pry_lua_text(L, -1);
    lua_pop(L, 1); /* the table keeps it */
  }
}

static void push_text(lua_State *L, const char *field, struct pry_slice text)
{
  lua_pushlstring(L, text.size ? text.data : "", text.size);
  lua_setfield(L, -2, field);
}

/* The value as call:json { cut = VALUE_MAX } gives it. */
static void push_value(lua_State *L, struct pry_slice raw)
{
  const char *why = "";
  if (!pry_lua_json_push_cut(L, raw, VALUE_MAX, true, &why))
    luaL_error(L, "not enough memory");
  lua_setfield(L, -2, "value");
}

static void push_found(lua_State *L, const struct finder *finder)
{
  size_t count = finder->count < finder->most ? finder->count : finder->most;
  lua_createtable(L, (int)count, 0);
  for (size_t i = 0; i < count; i++) {
    const struct finding *finding = &finder->found[i];
    lua_createtable(L, 0, 3);
    push_text(L, "name", finding->name);
    push_text(L, "path", pry_slice_of(finding->path));
    push_value(L, finding->value);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

int pry_lua_call_find(lua_State *L, struct pry_slice body, const char *complaint)
{
  struct finder finder = {.p = body.data, .end = body.data + body.size};
  lua_Integer most = luaL_checkinteger(L, 3);
  luaL_argcheck(L, most >= 1 && most < FOUND_MAX, 3, "must be 1 to 63");
  lua_settop(L, 3);
  read_names(L, &finder);
  if (!complaint && body.size > PRY_LUA_JSON_SKIM_MAX)
    complaint = "longer than 16 MiB";
  if (complaint)
    return pry_lua_failed(L, "invalid_json", complaint);
  pry_script_charge_bytes(L, body.size);
  finder.most = (size_t)most + 1; /* one more says that there is more */
  finder.found = lua_newuserdatauv(L, finder.most * sizeof *finder.found, 0);
  skip_space(&finder);
  bool whole = walk(&finder, 0, NULL) || finder.count > finder.most;
  if (!whole)
    return pry_lua_failed(L, "invalid_json", "it has too many parts");
  push_found(L, &finder);
  return 1;
}
