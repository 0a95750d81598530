/* `dialect { … }` into struct pry_dialect. Declared in declare_internal.h; the fields are described in declare.h. */
#include "declare_internal.h"

#include <stdio.h>

#include <lauxlib.h>

/* ---- values as raw JSON -------------------------------------------------------------------------------- */

/* The value on the top of the stack as the JSON text a provider would write; NULL: it has no such text. */
static const char *raw_json(const struct pry_form *form)
{
  lua_State *L = form->L;
  char number[64];
  switch (lua_type(L, -1)) {
  case LUA_TBOOLEAN:
    return lua_toboolean(L, -1) ? "true" : "false";
  case LUA_TNUMBER:
    if (lua_isinteger(L, -1))
      snprintf(number, sizeof number, "%lld", (long long)lua_tointeger(L, -1));
    else
      snprintf(number, sizeof number, "%.14g", (double)lua_tonumber(L, -1));
    return pry_declare_copy(L, form->d, pry_slice_of(number));
  case LUA_TSTRING: {
    size_t size;
    const char *text = lua_tolstring(L, -1, &size);
    char quoted[256];
    if (size > sizeof quoted - 3)
      return NULL;
    for (size_t i = 0; i < size; i++) /* what needs escapes can be spelled in more than one way */
      if ((unsigned char)text[i] < ' ' || text[i] == '"' || text[i] == '\\')
        return NULL;
    snprintf(quoted, sizeof quoted, "\"%s\"", text);
    return pry_declare_copy(L, form->d, pry_slice_of(quoted));
  }
  default:
    return NULL;
  }
}

/* The list on the top of the stack. */
static struct pry_text_list read_fine_values(const struct pry_form *form, const char *key, const char *name)
{
  lua_State *L = form->L;
  struct pry_text_list list = {0};
  char shown[PRY_SHOWN_MAX];
  int table = lua_gettop(L);
  if (lua_type(L, table) != LUA_TTABLE) {
    pry_form_complain(form, key, "[\"%.60s\"] must be a list of the values that are no error, got %s", name,
                      pry_show_value(L, table, shown));
    return list;
  }
  pry_form_readable(L, table);
  size_t count = lua_rawlen(L, table);
  const char **items = pry_declare_take(L, form->d, (count + 1) * sizeof *items);
  list.items = items;
  for (size_t i = 1; i <= count; i++) {
    lua_rawgeti(L, table, (lua_Integer)i);
    const char *text = raw_json(form);
    if (text)
      items[list.count++] = text;
    else
      pry_form_complain(form, key, "[\"%.60s\"] may list numbers, plain texts and booleans; element %zu is %s", name, i,
                        pry_show_value(L, -1, shown));
    lua_pop(L, 1);
  }
  return list;
}

static void add_error_field(const struct pry_form *form, const char *key, struct pry_error_fields *fields,
                            const char *name, struct pry_text_list fine)
{
  struct pry_json_path path;
  const char *wrong = strchr(name, '.') ? pry_json_path_compile(&path, pry_slice_of(name)) : NULL;
  if (wrong)
    pry_form_complain(form, key, "[\"%.60s\"] is a bad path: %s", name, wrong);
  else if (fields->count == PRY_DIALECT_ERROR_FIELDS_MAX)
    pry_form_complain(form, key, "names more than %d fields", PRY_DIALECT_ERROR_FIELDS_MAX);
  else
    fields->items[fields->count++] = (struct pry_error_field){name, fine};
}

/* { "error", errcode = { 0 } } */
static void read_error_fields(const struct pry_form *form, const char *key, struct pry_error_fields *fields)
{
  lua_State *L = form->L;
  int top = lua_gettop(L);
  struct pry_form inner;
  char shown[PRY_SHOWN_MAX];
  if (pry_form_enter(form, key, "", &inner)) {
    size_t listed = lua_rawlen(L, inner.table), named = 0;
    for (size_t i = 1; i <= listed; i++) {
      if (lua_rawgeti(L, inner.table, (lua_Integer)i) == LUA_TSTRING)
        add_error_field(form, key, fields, pry_declare_copy(L, form->d, pry_slice_of(lua_tostring(L, -1))),
                        (struct pry_text_list){0});
      else
        pry_form_complain(form, key, "must list field names; element %zu is %s", i, pry_show_value(L, -1, shown));
      lua_pop(L, 1);
    }
    struct pry_form names = inner;
    names.prefix = key;
    lua_newtable(L); /* the named ones alone, so that the list above is no mistake */
    for (lua_pushnil(L); lua_next(L, inner.table); lua_pop(L, 1))
      if (lua_type(L, -2) == LUA_TSTRING) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_rawset(L, inner.table + 1);
      }
    names.table = inner.table + 1;
    const char *const *keys = pry_form_keys(&names, &named);
    for (size_t i = 0; i < named; i++) {
      lua_pushstring(L, keys[i]);
      lua_rawget(L, names.table);
      add_error_field(form, key, fields, keys[i], read_fine_values(form, key, keys[i]));
      lua_settop(L, names.table);
    }
  }
  lua_settop(L, top);
}

/* ---- the stream ---------------------------------------------------------------------------------------- */

static void read_paths(const struct pry_form *form, const char *key, struct pry_path_list *paths)
{
  struct pry_text_list texts = pry_form_texts(form, key, "paths");
  for (size_t i = 0; i < texts.count; i++) {
    if (i == PRY_DIALECT_PATHS_MAX) {
      pry_form_complain(form, key, "has more than %d paths", PRY_DIALECT_PATHS_MAX);
      return;
    }
    const char *wrong = pry_json_path_compile(&paths->items[paths->count], pry_slice_of(texts.items[i]));
    if (wrong)
      pry_form_complain(form, key, "has a bad path \"%.60s\": %s", texts.items[i], wrong);
    else
      paths->count++;
  }
}

static void read_stream(const struct pry_form *dialect_form, struct pry_dialect *dialect)
{
  static const char *const known[] = {"type_field",   "end_data",        "error_types",   "error_in_data",
                                      "end_types",    "lifecycle_types", "content_types", "content_paths",
                                      "finish_paths", "default",         "json",          "bare_errors",
                                      "open_end"};
  struct pry_form form;
  int top = lua_gettop(dialect_form->L);
  if (pry_form_enter(dialect_form, "stream", "stream.", &form)) {
    pry_form_known(&form, known, sizeof known / sizeof *known, false);
    dialect->type_field = pry_form_text(&form, "type_field", PRY_OPTIONAL);
    struct pry_json_path path;
    const char *wrong = dialect->type_field ? pry_json_path_compile(&path, pry_slice_of(dialect->type_field)) : NULL;
    if (wrong)
      pry_form_complain(&form, "type_field", "is a bad path: %s", wrong);
    dialect->end_data = pry_form_texts(&form, "end_data", "texts");
    dialect->error_types = pry_form_texts(&form, "error_types", "event types");
    read_error_fields(&form, "error_in_data", &dialect->error_in_data);
    dialect->end_types = pry_form_texts(&form, "end_types", "event types");
    dialect->lifecycle_types = pry_form_texts(&form, "lifecycle_types", "event types");
    dialect->content_types = pry_form_texts(&form, "content_types", "event types");
    read_paths(&form, "content_paths", &dialect->content_paths);
    read_paths(&form, "finish_paths", &dialect->finish_paths);
    pry_form_boolean(&form, "json", &dialect->json);
    pry_form_boolean(&form, "bare_errors", &dialect->bare_errors);
    pry_form_boolean(&form, "open_end", &dialect->open_end);
    const char *otherwise = pry_form_text(&form, "default", PRY_OPTIONAL);
    dialect->default_lifecycle = otherwise && strcmp(otherwise, "lifecycle") == 0;
    if (otherwise && !dialect->default_lifecycle && strcmp(otherwise, "content") != 0)
      pry_form_complain(&form, "default", "must be \"content\" or \"lifecycle\", got \"%.60s\"", otherwise);
  }
  lua_settop(dialect_form->L, top);
}

/* ---- usage ----------------------------------------------------------------------------------------------- */

static void read_usage_number(const struct pry_form *form, const char *key, struct pry_usage_number *number)
{
  struct pry_text_list texts = pry_form_texts(form, key, "paths");
  for (size_t i = 0; i < texts.count; i++) {
    const char *wrong = pry_usage_add(number, pry_slice_of(texts.items[i]));
    if (wrong)
      pry_form_complain(form, key, "has \"%.60s\", which cannot be read: %s", texts.items[i], wrong);
  }
}

static void read_usage(const struct pry_form *dialect_form, struct pry_usage *usage)
{
  static const char *const known[] = {"at", "input", "output", "cached", "total"};
  struct pry_form form;
  int top = lua_gettop(dialect_form->L);
  if (pry_form_enter(dialect_form, "usage", "usage.", &form)) {
    pry_form_known(&form, known, sizeof known / sizeof *known, false);
    struct pry_text_list places = pry_form_texts(&form, "at", "paths");
    for (size_t i = 0; i < places.count; i++) {
      const char *wrong = pry_usage_add_place(usage, pry_slice_of(places.items[i]));
      if (wrong)
        pry_form_complain(&form, "at", "has a bad path \"%.60s\": %s", places.items[i], wrong);
    }
    if (!places.count)
      pry_form_complain(dialect_form, "usage", "needs at = { \"usage\" }: the places where a usage object may stand");
    read_usage_number(&form, "input", &usage->input);
    read_usage_number(&form, "output", &usage->output);
    read_usage_number(&form, "cached", &usage->cached);
    read_usage_number(&form, "total", &usage->total);
  }
  lua_settop(dialect_form->L, top);
}

/* ---- health ---------------------------------------------------------------------------------------------- */

static const char *read_health_path(const struct pry_form *form, const char *key)
{
  const char *path = pry_form_text(form, key, PRY_OPTIONAL);
  if (path && (path[0] != '/' || strpbrk(path, " ?#\r\n")))
    pry_form_complain(form, key, "must be a path that begins with /, without a query, got \"%.60s\"", path);
  return path;
}

static void read_health(const struct pry_form *dialect_form, struct pry_dialect_health *health)
{
  static const char *const known[] = {"models", "completion", "without", "headers"};
  struct pry_form form;
  int top = lua_gettop(dialect_form->L);
  if (pry_form_enter(dialect_form, "health", "health.", &form)) {
    pry_form_known(&form, known, sizeof known / sizeof *known, false);
    health->models = read_health_path(&form, "models");
    health->completion = read_health_path(&form, "completion");
    health->without = read_health_path(&form, "without");
    health->headers = pry_form_texts(&form, "headers", "texts \"name: value\"");
    for (size_t i = 0; i < health->headers.count; i++)
      if (!strchr(health->headers.items[i], ':') || strpbrk(health->headers.items[i], "\r\n")) {
        pry_form_complain(&form, "headers", "must list texts \"name: value\", got \"%.60s\"", health->headers.items[i]);
        health->headers.count = 0;
      }
  }
  lua_settop(dialect_form->L, top);
}

/* ---- dialect { … } ------------------------------------------------------------------------------------- */

static struct pry_slice name_of_file(struct pry_place place)
{
  static const char folder[] = "dialects/";
  const char *path = place.file ? place.file->path : "";
  if (strncmp(path, folder, sizeof folder - 1) != 0 || strchr(path + sizeof folder - 1, '/'))
    return (struct pry_slice){0};
  size_t size = strlen(path + sizeof folder - 1);
  return (struct pry_slice){path + sizeof folder - 1, size > 4 ? size - 4 : 0};
}

/* ---- translation --------------------------------------------------------------------------------------- */

/* ---@class dialect_translation
 * ---@field opaque string[]?       members of objects that are passed on unread
 * ---@field request fun(body: table, ask: { path: string, model: string, time: number, call_id: string }): table?, any
 * ---@field answer fun(body: table, memory: table): table?, any
 * ---@field event fun(memory: table, emit: fun(type_or_data: any, data: any), data: any, type: string): any
 * ---@field finish fun(memory: table, emit: fun(type_or_data: any, data: any)): any */

/* Copies the pair's functions into the table at `to`. */
static void keep_pair(const struct pry_form *pair, const char *client, int to)
{
  static const char *const known[] = {"opaque", "request", "answer", "event", "finish"};
  lua_State *L = pair->L;
  pry_form_known(pair, known, sizeof known / sizeof *known, false);
  lua_newtable(L);
  for (size_t i = 1; i < sizeof known / sizeof *known; i++) {
    if (pry_form_function(pair, known[i]))
      lua_setfield(L, -2, known[i]);
    else
      pry_form_complain(pair, known[i], "must be a function");
  }
  lua_setfield(L, to, client);
}

/* `translate`, whose functions go into a table that is pushed; false: nothing was pushed. */
static bool read_pairs(const struct pry_form *form, struct pry_dialect *dialect)
{
  lua_State *L = form->L;
  struct pry_form pairs;
  size_t count = 0;
  lua_newtable(L);
  int functions = lua_gettop(L);
  const char *const *clients =
      pry_form_enter(form, "translate", "translate.", &pairs) ? pry_form_keys(&pairs, &count) : NULL;
  for (size_t i = 0; i < count; i++) {
    struct pry_form pair;
    if (dialect->pair_count == PRY_DIALECT_PAIRS_MAX) {
      pry_form_complain(form, "translate", "names more than %d dialects", PRY_DIALECT_PAIRS_MAX);
      break;
    }
    int top = lua_gettop(L);
    if (pry_form_enter(&pairs, clients[i], "translate.", &pair)) {
      struct pry_translation_pair *entry = &dialect->pairs[dialect->pair_count++];
      entry->client = clients[i];
      entry->opaque = pry_form_texts(&pair, "opaque", "names");
      keep_pair(&pair, clients[i], functions);
    }
    lua_settop(L, top);
  }
  lua_settop(L, dialect->pair_count ? functions : functions - 1);
  return dialect->pair_count;
}

/* `strip`, whose function is pushed; false: nothing was pushed. */
static bool read_strip(const struct pry_form *form, struct pry_dialect *dialect)
{
  static const char *const known[] = {"words", "opaque", "run"};
  lua_State *L = form->L;
  int top = lua_gettop(L);
  struct pry_form strip;
  if (pry_form_enter(form, "strip", "strip.", &strip)) {
    pry_form_known(&strip, known, sizeof known / sizeof *known, false);
    dialect->bound = pry_form_texts(&strip, "words", "words");
    dialect->strip_opaque = pry_form_texts(&strip, "opaque", "names");
    dialect->has_strip = pry_form_function(&strip, "run");
    if (!dialect->has_strip || !dialect->bound.count)
      pry_form_complain(form, "strip", "needs words and a function run");
  }
  if (dialect->has_strip)
    lua_replace(L, top + 1);
  lua_settop(L, dialect->has_strip ? top + 1 : top);
  return dialect->has_strip;
}

static void keep_functions(const struct pry_form *form, struct pry_dialect *dialect)
{
  lua_State *L = form->L;
  pry_functions_push(L, PRY_FUNCTIONS_DIALECTS);
  lua_createtable(L, 4, 0);
  int slots = lua_gettop(L);
  dialect->has_classify = pry_form_function(form, "classify");
  if (dialect->has_classify)
    lua_rawseti(L, slots, PRY_SLOT_CLASSIFY);
  dialect->has_render = pry_form_function(form, "render");
  if (dialect->has_render)
    lua_rawseti(L, slots, PRY_SLOT_RENDER);
  if (read_pairs(form, dialect))
    lua_rawseti(L, slots, PRY_SLOT_TRANSLATE);
  if (read_strip(form, dialect))
    lua_rawseti(L, slots, PRY_SLOT_STRIP);
  lua_rawseti(L, -2, (lua_Integer)dialect->index + 1);
  lua_pop(L, 1);
}

/* ---@class dialect_declaration
 * ---@field name string?
 * ---@field doc string?
 * ---@field speaks string?         the client dialect whose requests and answers it carries
 * ---@field error_in_200 table?    fields of a 2xx object that mean an error
 * ---@field usage table?           where an answer says how many tokens it used
 * ---@field stream table?          what is content, error and end in a stream
 * ---@field health? { models?: string, completion?: string, without?: string, headers?: string[] }   what checks may ask:
 *                                 paths behind base_url (which may end with `without`), fields "name: value" they need
 * ---@field classify? fun(answer: answer): table?
 * ---@field render? fun(err: err, form: "body"|"event", api?: "responses"): string|table
 * ---@field render? fun(err: err, form: "body"|"event"): string|table
 * ---@field translate? table<string, dialect_translation>   by the client's dialect
 * ---@field strip? { words: string[], opaque?: string[], run: fun(body: table): table?, string[]? }
 * ---@param v dialect_declaration
 * ---@return dialect_declaration
 * function dialect(v) end */
int pry_declare_dialect(lua_State *L)
{
  static const char *const known[] = {"name",   "doc",      "speaks", "error_in_200", "usage", "stream",
                                      "health", "classify", "render", "translate",    "strip"};
  struct pry_declaration *d = pry_declaration_of(L, "dialect");
  lua_settop(L, 1);
  struct pry_place place = pry_place_here(L, d);
  struct pry_slice file = name_of_file(place);
  struct pry_dialect *dialect = pry_declare_take(L, d, sizeof *dialect);
  char subject[96];
  snprintf(subject, sizeof subject, "dialect \"%.*s\"", (int)(file.size < 64 ? file.size : 64),
           file.data ? file.data : "");
  struct pry_form form = pry_form_open(d, L, 1, place, subject);
  if (!file.size)
    pry_complain(d, place, "dialect { ... } belongs into a file dialects/NAME.lua");
  pry_form_known(&form, known, sizeof known / sizeof *known, false);
  const char *name = pry_form_text(&form, "name", PRY_OPTIONAL);
  if (name && !pry_slice_equal(pry_slice_of(name), file))
    pry_form_complain(&form, "name", "is \"%.60s\", but the file is %s", name, place.file ? place.file->path : "?");
  dialect->name = pry_declare_copy(L, d, file);
  dialect->file = pry_declare_copy(L, d, pry_slice_of(place.file ? place.file->path : ""));
  dialect->index = d->dialects.count;
  pry_form_text(&form, "doc", PRY_OPTIONAL);
  dialect->speaks = pry_form_text(&form, "speaks", PRY_OPTIONAL);
  read_error_fields(&form, "error_in_200", &dialect->error_in_200);
  read_usage(&form, &dialect->usage);
  read_stream(&form, dialect);
  read_health(&form, &dialect->health);
  keep_functions(&form, dialect);
  pry_object_push(L, d, PRY_OBJECT_DIALECT, "dialect", dialect);
  return 1;
}
