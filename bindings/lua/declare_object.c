/* Objects of the declaration language, and the functions kept for run time. Declared in declare_internal.h. */
#include "declare_internal.h"
#include "freeze.h"

#include <lauxlib.h>

static char declaration_key, functions_key; /* their addresses are the keys */
static const char object_type[] = "parry.declaration";

struct pry_declaration *pry_declaration_of(lua_State *L, const char *function)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &declaration_key);
  struct pry_declaration *d = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (!d)
    luaL_error(L, "%s is for loading only; a handler cannot declare anything", function);
  return d;
}

void pry_declaration_set(lua_State *L, struct pry_declaration *d)
{
  if (d)
    lua_pushlightuserdata(L, d);
  else
    lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &declaration_key);
}

/* ---- objects ------------------------------------------------------------------------------------------- */

static int call_object(lua_State *L)
{
  struct pry_object *object = luaL_checkudata(L, 1, object_type);
  struct pry_declaration *d = pry_declaration_of(L, object->word);
  pry_object_complete(L, d, object);
  lua_settop(L, 1);
  return 1;
}

static int show_object(lua_State *L)
{
  struct pry_object *object = luaL_checkudata(L, 1, object_type);
  lua_pushstring(L, object->word);
  return 1;
}

static void push_metatable(lua_State *L)
{
  if (!luaL_newmetatable(L, object_type))
    return;
  static const luaL_Reg methods[] = {{"__call", call_object}, {"__tostring", show_object}, {NULL, NULL}};
  luaL_setfuncs(L, methods, 0);
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
}

struct pry_object *pry_object_push(lua_State *L, struct pry_declaration *d, enum pry_object_kind kind, const char *word,
                                   void *data)
{
  struct pry_object *object = lua_newuserdatauv(L, sizeof *object, 1);
  *object = (struct pry_object){.kind = kind, .place = pry_place_here(L, d), .word = word, .data = data};
  push_metatable(L);
  lua_setmetatable(L, -2);
  return object;
}

struct pry_object *pry_object_at(lua_State *L, int index, enum pry_object_kind kind)
{
  struct pry_object *object = luaL_testudata(L, index, object_type);
  return object && object->kind == kind ? object : NULL;
}

void pry_object_complete(lua_State *L, struct pry_declaration *d, struct pry_object *object)
{
  if (object->kind == PRY_OBJECT_USE) {
    struct pry_declared_instance *use = object->data;
    if (use->called)
      pry_complain(d, pry_place_here(L, d), "use \"%s\": has its parameters already; call it once",
                   use->instance.policy);
    else
      pry_declare_use_params(L, d, use, 2);
    return;
  }
  if (object->kind < PRY_OBJECT_CREDENTIAL)
    luaL_error(L, "%s{...} is a value and cannot be called", object->word);
  if (object->complete) {
    pry_complain(d, pry_place_here(L, d), "%s \"%s\": has its table already", object->word, object->name);
    return;
  }
  object->complete = true;
  switch (object->kind) {
  case PRY_OBJECT_CREDENTIAL:
    pry_declare_credential(L, d, object, 2);
    break;
  case PRY_OBJECT_PROVIDER:
    pry_declare_provider(L, d, object, 2);
    break;
  case PRY_OBJECT_SERVICE:
    pry_declare_service(L, d, object, 2);
    break;
  case PRY_OBJECT_SINK:
    pry_declare_sink(L, d, object, 2);
    break;
  default:
    pry_declare_route(L, d, object, 2);
    break;
  }
}

/* ---- functions for run time ---------------------------------------------------------------------------- */

void pry_functions_open(lua_State *L)
{
  lua_createtable(L, PRY_FUNCTIONS_COUNT, 0);
  for (int i = PRY_FUNCTIONS_INSTANCES; i < PRY_FUNCTIONS_COUNT; i++) {
    lua_newtable(L);
    lua_rawseti(L, -2, i);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &functions_key);
}

void pry_functions_push(lua_State *L, enum pry_function_table which)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &functions_key);
  lua_rawgeti(L, -1, which);
  lua_remove(L, -2);
}

/* Pushes one slot of the table of item `index`; false: nothing pushed. */
static bool push_function(lua_State *L, enum pry_function_table which, size_t index, lua_Integer slot)
{
  int top = lua_gettop(L);
  bool found = lua_rawgetp(L, LUA_REGISTRYINDEX, &functions_key) == LUA_TTABLE &&
               lua_rawgeti(L, -1, which) == LUA_TTABLE && lua_rawgeti(L, -1, (lua_Integer)index + 1) == LUA_TTABLE &&
               lua_rawgeti(L, -1, slot) != LUA_TNIL;
  if (found)
    lua_replace(L, top + 1);
  lua_settop(L, found ? top + 1 : top);
  return found;
}

bool pry_declare_push_handler(lua_State *L, const struct pry_instance *instance, enum pry_handler handler, size_t job)
{
  lua_Integer slot = handler == PRY_EVERY ? PRY_SLOT_JOBS + (lua_Integer)job : (lua_Integer)handler + 1;
  return push_function(L, PRY_FUNCTIONS_INSTANCES, instance->index, slot) &&
         (push_function(L, PRY_FUNCTIONS_INSTANCES, instance->index, PRY_SLOT_SELF) || (lua_pop(L, 1), false));
}

bool pry_declare_push_classify(lua_State *L, const struct pry_dialect *dialect)
{
  return dialect->has_classify && push_function(L, PRY_FUNCTIONS_DIALECTS, dialect->index, PRY_SLOT_CLASSIFY);
}

bool pry_declare_push_render(lua_State *L, const struct pry_dialect *dialect)
{
  return dialect->has_render && push_function(L, PRY_FUNCTIONS_DIALECTS, dialect->index, PRY_SLOT_RENDER);
}

bool pry_declare_push_translate(lua_State *L, const struct pry_dialect *dialect)
{
  return dialect->pair_count && push_function(L, PRY_FUNCTIONS_DIALECTS, dialect->index, PRY_SLOT_TRANSLATE);
}

bool pry_declare_push_strip(lua_State *L, const struct pry_dialect *dialect)
{
  return dialect->has_strip && push_function(L, PRY_FUNCTIONS_DIALECTS, dialect->index, PRY_SLOT_STRIP);
}

bool pry_declare_push_refresh(lua_State *L, const struct pry_credential_config *credential)
{
  return push_function(L, PRY_FUNCTIONS_CREDENTIALS, credential->index, PRY_SLOT_REFRESH);
}

/* ---- freezing -------------------------------------------------------------------------------------------- */

/* What the slots of one item hold is to be frozen, not the table of slots itself, which C reads raw. */
static void collect_item(lua_State *L, int slots, int values)
{
  for (lua_pushnil(L); lua_next(L, slots);)
    lua_rawseti(L, values, (lua_Integer)lua_rawlen(L, values) + 1);
}

void pry_functions_seal(lua_State *L)
{
  static const enum pry_function_table sealed[] = {PRY_FUNCTIONS_INSTANCES, PRY_FUNCTIONS_DIALECTS,
                                                   PRY_FUNCTIONS_CREDENTIALS};
  luaL_checkstack(L, 20, "sealing");
  lua_newtable(L); /* all in one walk: handlers share most of what they reach */
  int values = lua_gettop(L);
  for (size_t i = 0; i < sizeof sealed / sizeof *sealed; i++) {
    pry_functions_push(L, sealed[i]);
    for (lua_pushnil(L); lua_next(L, values + 1); lua_pop(L, 1))
      collect_item(L, lua_gettop(L), values);
    lua_settop(L, values);
  }
  pry_freeze(L, values);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &functions_key);
  lua_pushnil(L);
  lua_rawseti(L, -2, PRY_FUNCTIONS_POLICIES); /* for loading only */
  lua_settop(L, values - 1);
}
