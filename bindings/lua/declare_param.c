/* Parameters of policies: what they may be, and whether a value fits. Declared in declare_internal.h. */
#include "declare_internal.h"

#include <math.h>
#include <stdio.h>

#include <lauxlib.h>

enum { VALUE_DEPTH_MAX = 8 };

static const char *const type_names[PRY_PARAM_TYPE_COUNT] = {
    [PRY_PARAM_ANY] = "any",           [PRY_PARAM_NUMBER] = "number",   [PRY_PARAM_INTEGER] = "integer",
    [PRY_PARAM_STRING] = "string",     [PRY_PARAM_BOOLEAN] = "boolean", [PRY_PARAM_LIST] = "list",
    [PRY_PARAM_MAP] = "map",           [PRY_PARAM_SECRET] = "secret",   [PRY_PARAM_CATEGORY] = "category",
    [PRY_PARAM_PROVIDER] = "provider", [PRY_PARAM_TARGET] = "target",   [PRY_PARAM_SINK] = "sink",
    [PRY_PARAM_SINKS] = "sinks",       [PRY_PARAM_SERVICE] = "service", [PRY_PARAM_CREDENTIAL] = "credential"};

#define SINKS_WORDS "the name of a sink, a list of them, or { severity = name or list }"

/* What findings call a value of that type. */
static const char *const type_words[PRY_PARAM_TYPE_COUNT] = {[PRY_PARAM_ANY] = "plain data",
                                                             [PRY_PARAM_NUMBER] = "a number",
                                                             [PRY_PARAM_INTEGER] = "a whole number",
                                                             [PRY_PARAM_STRING] = "a text",
                                                             [PRY_PARAM_BOOLEAN] = "true or false",
                                                             [PRY_PARAM_LIST] = "a list { a, b, ... }",
                                                             [PRY_PARAM_MAP] = "a table { name = value, ... }",
                                                             [PRY_PARAM_SECRET] = "secret \"NAME\"",
                                                             [PRY_PARAM_CATEGORY] = "a category",
                                                             [PRY_PARAM_PROVIDER] = "the name of a provider",
                                                             [PRY_PARAM_TARGET] = "a target \"provider/model\"",
                                                             [PRY_PARAM_SINK] = "the name of a sink",
                                                             [PRY_PARAM_SINKS] = SINKS_WORDS,
                                                             [PRY_PARAM_SERVICE] = "the name of a service",
                                                             [PRY_PARAM_CREDENTIAL] = "the name of a credential"};

const char *const pry_declare_categories[] = {
#define X(name, string, origin, retryable, fallback, doc) string,
    PRY_CATEGORIES(X)
#undef X
};

/* ---- reading a declaration ----------------------------------------------------------------------------- */

static bool read_type(const struct pry_form *form, const char *key, enum pry_param_type *type)
{
  char hint[PRY_HINT_MAX];
  const char *name = pry_form_text(form, key, PRY_OPTIONAL);
  if (!name)
    return false;
  for (int i = 0; i < PRY_PARAM_TYPE_COUNT; i++)
    if (strcmp(name, type_names[i]) == 0) {
      *type = (enum pry_param_type)i;
      return true;
    }
  pry_form_complain(form, key, "cannot be \"%.60s\"%s", name,
                    pry_hint(name, type_names, PRY_PARAM_TYPE_COUNT, "known are", hint));
  return false;
}

static enum pry_param_type type_of_default(lua_State *L, int index, const struct pry_param *param)
{
  switch (lua_type(L, index)) {
  case LUA_TNUMBER:
    return lua_isinteger(L, index) && !param->unit ? PRY_PARAM_INTEGER : PRY_PARAM_NUMBER;
  case LUA_TSTRING:
    return PRY_PARAM_STRING;
  case LUA_TBOOLEAN:
    return PRY_PARAM_BOOLEAN;
  default:
    return pry_declare_secret_name(L, index) ? PRY_PARAM_SECRET : PRY_PARAM_ANY;
  }
}

static bool read_bound(const struct pry_form *form, const char *key, double *bound)
{
  return pry_form_number(form, key, -1e15, 1e15, "", bound);
}

static void read_allowed_numbers(const struct pry_form *form, struct pry_param *param)
{
  lua_State *L = form->L;
  size_t count = lua_rawlen(L, -1);
  double *numbers = pry_declare_take(L, form->d, (count + 1) * sizeof *numbers);
  for (size_t i = 0; i < count; i++) {
    if (lua_rawgeti(L, -1, (lua_Integer)i + 1) == LUA_TNUMBER)
      numbers[param->allowed_number_count++] = lua_tonumber(L, -1);
    else
      pry_form_complain(form, "values", "must be all texts or all numbers; element %zu is not a number", i + 1);
    lua_pop(L, 1);
  }
  param->allowed_numbers = numbers;
}

static void read_values(const struct pry_form *form, struct pry_param *param)
{
  lua_State *L = form->L;
  lua_pushstring(L, "values");
  bool table = lua_rawget(L, form->table) == LUA_TTABLE;
  pry_form_readable(L, -1);
  bool numbers = table && lua_rawgeti(L, -1, 1) == LUA_TNUMBER;
  if (numbers) {
    lua_pop(L, 1);
    read_allowed_numbers(form, param);
  }
  lua_settop(L, form->table);
  if (!numbers)
    param->values = pry_form_texts(form, "values", "texts or numbers");
}

static bool may_have_bounds(enum pry_param_type type)
{
  return type == PRY_PARAM_NUMBER || type == PRY_PARAM_INTEGER || type == PRY_PARAM_STRING || type == PRY_PARAM_LIST;
}

static void check_bounds(const struct pry_form *form, const struct pry_param *param)
{
  if ((param->has_min || param->has_max) && !may_have_bounds(param->type))
    pry_form_complain(form, param->has_min ? "min" : "max", "fits numbers, texts and lists only, not \"%s\"",
                      type_names[param->type]);
  if (param->has_min && param->has_max && param->min > param->max)
    pry_form_complain(form, "min", "(%.14g) is above max (%.14g)", param->min, param->max);
  if ((param->of || param->of_of) && param->type != PRY_PARAM_LIST && param->type != PRY_PARAM_MAP)
    pry_form_complain(form, "of", "goes with type = \"list\" or \"map\" only");
}

void pry_param_read(const struct pry_form *form, struct pry_param *param)
{
  static const char *const known[] = {"type",   "of",   "of_of", "min",      "max",
                                      "values", "unit", "doc",   "required", "optional"};
  lua_State *L = form->L;
  pry_form_known(form, known, sizeof known / sizeof *known, true);
  param->unit = pry_form_text(form, "unit", PRY_OPTIONAL);
  pry_form_text(form, "doc", PRY_OPTIONAL);
  pry_form_boolean(form, "required", &param->required);
  pry_form_boolean(form, "optional", &param->optional);
  param->has_min = read_bound(form, "min", &param->min);
  param->has_max = read_bound(form, "max", &param->max);
  read_values(form, param);
  if (lua_rawlen(L, form->table) > 1)
    pry_complain(form->d, form->place, "%s: param takes one default, its first element", form->subject);
  bool has_default = lua_rawgeti(L, form->table, 1) != LUA_TNIL;
  bool typed = read_type(form, "type", &param->type);
  if (!typed)
    param->type = type_of_default(L, -1, param);
  read_type(form, "of", &param->of);
  read_type(form, "of_of", &param->of_of);
  check_bounds(form, param);
  if (has_default == (param->required || param->optional))
    pry_complain(form->d, form->place,
                 has_default ? "%s: has a default, so it is neither required nor optional; leave one out"
                             : "%s: needs a default, its first element, or required = true or optional = true",
                 form->subject);
  else if (!has_default && !typed)
    pry_complain(form->d, form->place, "%s: has no default, so it needs type = \"...\"", form->subject);
}

/* ---@class parameter
 * ---@param v { [1]: any, type?: string, of?: string, of_of?: string, min?: number, max?: number, values?: any[],
 *             unit?: string, doc?: string, required?: boolean, optional?: boolean }
 * ---@return parameter   the default first; without one `type` and `required` or `optional`
 * function param(v) end */
int pry_declare_param(lua_State *L)
{
  struct pry_declaration *d = pry_declaration_of(L, "param");
  lua_settop(L, 1);
  struct pry_form form = pry_form_open(d, L, 1, pry_place_here(L, d), "param");
  pry_object_push(L, d, PRY_OBJECT_PARAM, "param", NULL);
  if (form.table) {
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
  }
  return 1;
}

/* ---- does a value fit? --------------------------------------------------------------------------------- */

/* One value being checked; `path` is where it stands inside the parameter, "" or "[2]" or ".kimi-k2[1]". */
struct value_check {
  const struct pry_form *form;
  const struct pry_param *param;
  char path[96];
  bool keep_names;
};

static bool refuse(const struct value_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(const struct value_check *check, const char *format, ...)
{
  char what[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  const struct pry_form *form = check->form;
  pry_complain(form->d, pry_form_place(form, check->param->name), "%s: %s%s%s %s", form->subject, form->prefix,
               check->param->name, check->path, what);
  return false;
}

/* "1..16", "at least 1", "at most 16", with the unit. */
static const char *show_range(const struct pry_param *param, char text[96])
{
  const char *unit = param->unit ? param->unit : "", *space = param->unit ? " " : "";
  if (param->has_min && param->has_max)
    snprintf(text, 96, "%.14g..%.14g%s%.20s", param->min, param->max, space, unit);
  else if (param->has_min)
    snprintf(text, 96, "at least %.14g%s%.20s", param->min, space, unit);
  else
    snprintf(text, 96, "at most %.14g%s%.20s", param->max, space, unit);
  return text;
}

static bool in_range(const struct pry_param *param, double number)
{
  return (!param->has_min || number >= param->min) && (!param->has_max || number <= param->max);
}

static bool accept_number(struct value_check *check, int index, bool whole)
{
  const struct pry_param *param = check->param;
  lua_State *L = check->form->L;
  char shown[PRY_SHOWN_MAX], range[96];
  bool bounded = param->has_min || param->has_max;
  int integral = 1;
  if (whole && lua_type(L, index) == LUA_TNUMBER)
    lua_tointegerx(L, index, &integral);
  double number = lua_tonumber(L, index);
  if (lua_type(L, index) != LUA_TNUMBER || !integral || !isfinite(number))
    return refuse(check, "must be a %snumber%s%s, got %s", whole ? "whole " : "", bounded ? " " : "",
                  bounded ? show_range(param, range) : "", pry_show_value(L, index, shown));
  if (!in_range(param, number))
    return refuse(check, "must be %s, got %s", show_range(param, range), pry_show_value(L, index, shown));
  for (size_t i = 0; i < param->allowed_number_count; i++)
    if (param->allowed_numbers[i] == number)
      return true;
  return !param->allowed_number_count || refuse(check, "cannot be %s", pry_show_value(L, index, shown));
}

static bool accept_length(const struct value_check *check, size_t length, const char *what)
{
  char range[96];
  struct pry_param bounds = *check->param;
  bounds.unit = NULL;
  return in_range(&bounds, (double)length) ||
         refuse(check, "must have %s %s, got %zu", show_range(&bounds, range), what, length);
}

static bool accept_text(struct value_check *check, int index, enum pry_param_type type, bool top)
{
  const struct pry_param *param = check->param;
  lua_State *L = check->form->L;
  char shown[PRY_SHOWN_MAX], hint[PRY_HINT_MAX];
  size_t size;
  if (lua_type(L, index) != LUA_TSTRING)
    return refuse(check, "must be %s, got %s", type_words[type], pry_show_value(L, index, shown));
  const char *text = lua_tolstring(L, index, &size);
  if (strlen(text) != size)
    return refuse(check, "must not contain a NUL byte");
  if (top && type == PRY_PARAM_STRING && !accept_length(check, size, "bytes"))
    return false;
  for (size_t i = 0; i < param->values.count; i++)
    if (strcmp(param->values.items[i], text) == 0)
      return true;
  if (param->values.count)
    return refuse(check, "cannot be %s%s", pry_show_value(L, index, shown),
                  pry_hint(text, param->values.items, param->values.count, "it is one of", hint));
  if (type == PRY_PARAM_CATEGORY && pry_category_from_name((struct pry_slice){text, size}) == PRY_NONE)
    return refuse(check, "names no category: %s%s", pry_show_value(L, index, shown),
                  pry_hint(text, pry_declare_categories, PRY_DECLARE_CATEGORIES, "known are", hint));
  return true;
}

/* Names that exist or not only when everything is declared. */
static void keep_reference(const struct value_check *check, int index, enum pry_param_type type)
{
  const struct pry_form *form = check->form;
  struct pry_reference *reference = pry_declare_take(form->L, form->d, sizeof *reference);
  char what[224];
  snprintf(what, sizeof what, "%s: %s%s", form->subject, check->param->name, check->path);
  reference->type = type;
  reference->name = pry_declare_copy(form->L, form->d, pry_slice_of(lua_tostring(form->L, index)));
  reference->what = pry_declare_copy(form->L, form->d, pry_slice_of(what));
  reference->place = pry_form_place(form, check->param->name);
  pry_declare_push(form->L, form->d, &form->d->references, reference);
}

static bool accept_plain(struct value_check *check, int index, int depth);
static bool accept(struct value_check *check, int index, enum pry_param_type type, enum pry_param_type of,
                   enum pry_param_type of_of, bool top);

static void step_into(struct value_check *check, lua_State *L, int key, size_t length)
{
  char *end = check->path + length;
  size_t room = sizeof check->path - length;
  if (lua_type(L, key) == LUA_TNUMBER)
    snprintf(end, room, "[%lld]", (long long)lua_tointeger(L, key));
  else if (lua_type(L, key) == LUA_TSTRING)
    snprintf(end, room, "[\"%.40s\"]", lua_tostring(L, key));
}

static bool accept_list(struct value_check *check, int index, enum pry_param_type of, enum pry_param_type of_of,
                        bool top)
{
  lua_State *L = check->form->L;
  char shown[PRY_SHOWN_MAX];
  if (lua_type(L, index) != LUA_TTABLE)
    return refuse(check, "must be %s, got %s", type_words[PRY_PARAM_LIST], pry_show_value(L, index, shown));
  size_t length = lua_rawlen(L, index), counted = 0, path = strlen(check->path);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
    counted++;
  if (counted != length)
    return refuse(check, "must be %s without gaps and without named fields", type_words[PRY_PARAM_LIST]);
  bool ok = !top || accept_length(check, length, "elements");
  for (size_t i = 1; i <= length; i++) {
    lua_pushinteger(L, (lua_Integer)i);
    step_into(check, L, -1, path);
    lua_rawgeti(L, index, (lua_Integer)i);
    ok = accept(check, lua_gettop(L), of, of_of, PRY_PARAM_ANY, false) && ok;
    lua_pop(L, 2);
    check->path[path] = '\0';
  }
  return ok;
}

static bool accept_map(struct value_check *check, int index, enum pry_param_type of, enum pry_param_type of_of)
{
  lua_State *L = check->form->L;
  char shown[PRY_SHOWN_MAX];
  if (lua_type(L, index) != LUA_TTABLE)
    return refuse(check, "must be %s, got %s", type_words[PRY_PARAM_MAP], pry_show_value(L, index, shown));
  size_t path = strlen(check->path), count;
  struct pry_form inner = *check->form;
  inner.table = index;
  if (lua_rawlen(L, index))
    return refuse(check, "must be %s, got a list", type_words[PRY_PARAM_MAP]);
  const char *const *keys = pry_form_keys(&inner, &count);
  bool ok = true;
  for (size_t i = 0; i < count; i++) {
    lua_pushstring(L, keys[i]);
    step_into(check, L, -1, path);
    lua_rawget(L, index);
    ok = accept(check, lua_gettop(L), of, of_of, PRY_PARAM_ANY, false) && ok;
    lua_pop(L, 1);
    check->path[path] = '\0';
  }
  return ok;
}

static bool accept_sinks_by_severity(struct value_check *check, int index)
{
  static const char *const severities[] = {"info", "warning", "error", "critical"};
  lua_State *L = check->form->L;
  char hint[PRY_HINT_MAX];
  struct pry_form inner = *check->form;
  size_t path = strlen(check->path), count;
  inner.table = index;
  const char *const *keys = pry_form_keys(&inner, &count);
  bool ok = count || refuse(check, "must be %s, got an empty table", type_words[PRY_PARAM_SINKS]);
  for (size_t i = 0; i < count; i++) {
    bool known = false;
    for (size_t j = 0; j < 4; j++)
      known = known || strcmp(keys[i], severities[j]) == 0;
    if (!known)
      ok = refuse(check, "names no severity: %.40s%s", keys[i], pry_hint(keys[i], severities, 4, "known are", hint));
    lua_pushstring(L, keys[i]);
    step_into(check, L, -1, path);
    lua_rawget(L, index);
    pry_form_readable(L, lua_gettop(L));
    enum pry_param_type type = lua_type(L, -1) == LUA_TTABLE ? PRY_PARAM_LIST : PRY_PARAM_SINK;
    ok = accept(check, lua_gettop(L), type, PRY_PARAM_SINK, PRY_PARAM_ANY, false) && ok;
    lua_pop(L, 1);
    check->path[path] = '\0';
  }
  return ok;
}

static bool accept_sinks(struct value_check *check, int index)
{
  lua_State *L = check->form->L;
  char shown[PRY_SHOWN_MAX];
  if (lua_type(L, index) == LUA_TSTRING)
    return accept(check, index, PRY_PARAM_SINK, PRY_PARAM_ANY, PRY_PARAM_ANY, false);
  if (lua_type(L, index) != LUA_TTABLE)
    return refuse(check, "must be %s, got %s", type_words[PRY_PARAM_SINKS], pry_show_value(L, index, shown));
  return lua_rawlen(L, index) ? accept_list(check, index, PRY_PARAM_SINK, PRY_PARAM_ANY, false)
                              : accept_sinks_by_severity(check, index);
}

/* Numbers, texts, booleans, secrets, and tables of them: what `self` may hold. */
static bool accept_plain(struct value_check *check, int index, int depth)
{
  lua_State *L = check->form->L;
  char shown[PRY_SHOWN_MAX];
  pry_form_readable(L, index);
  int type = lua_type(L, index);
  if (type == LUA_TSTRING || type == LUA_TNUMBER || type == LUA_TBOOLEAN || pry_declare_secret_name(L, index))
    return true;
  if (type != LUA_TTABLE)
    return refuse(check, "must be %s, got %s", type_words[PRY_PARAM_ANY], pry_show_value(L, index, shown));
  if (depth == VALUE_DEPTH_MAX)
    return refuse(check, "is nested deeper than %d tables", VALUE_DEPTH_MAX);
  luaL_checkstack(L, 4, "too many nested tables");
  size_t path = strlen(check->path);
  bool ok = true;
  for (lua_pushnil(L); ok && lua_next(L, index); lua_pop(L, 1)) {
    step_into(check, L, -2, path);
    ok = accept_plain(check, lua_gettop(L), depth + 1);
    check->path[path] = '\0';
  }
  if (!ok)
    lua_pop(L, 1); /* the key that lua_next left behind */
  return ok;
}

static bool accept(struct value_check *check, int index, enum pry_param_type type, enum pry_param_type of,
                   enum pry_param_type of_of, bool top)
{
  lua_State *L = check->form->L;
  char shown[PRY_SHOWN_MAX];
  pry_form_readable(L, index);
  switch (type) {
  case PRY_PARAM_ANY:
    return accept_plain(check, index, 0);
  case PRY_PARAM_NUMBER:
  case PRY_PARAM_INTEGER:
    return accept_number(check, index, type == PRY_PARAM_INTEGER);
  case PRY_PARAM_BOOLEAN:
    return lua_isboolean(L, index) || refuse(check, "must be true or false, got %s", pry_show_value(L, index, shown));
  case PRY_PARAM_LIST:
    return accept_list(check, index, of, of_of, top);
  case PRY_PARAM_MAP:
    return accept_map(check, index, of, of_of);
  case PRY_PARAM_SINKS:
    return accept_sinks(check, index);
  case PRY_PARAM_SECRET:
    /* What stands here instead may be the secret itself: its text is not repeated. */
    return pry_declare_secret_name(L, index) ||
           refuse(check, "must be secret \"NAME\", got %s", pry_show_kind(L, index, shown));
  default:
    if (!accept_text(check, index, type, top))
      return false;
    if (type >= PRY_PARAM_PROVIDER && check->keep_names)
      keep_reference(check, index, type);
    return true;
  }
}

bool pry_param_accepts(const struct pry_form *form, const struct pry_param *param, int index, bool keep_names)
{
  struct value_check check = {.form = form, .param = param, .keep_names = keep_names};
  int top = lua_gettop(form->L);
  luaL_checkstack(form->L, 20, "too many nested tables");
  lua_pushvalue(form->L, index); /* the copy is made readable, the value stays what it is */
  bool ok = accept(&check, top + 1, param->type, param->of, param->of_of, true);
  lua_settop(form->L, top);
  return ok;
}
