#include "declare_form.h"
#include "freeze.h"
#include "nearest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

enum { FORM_FIELDS_MAX = 512, LIST_MAX = 1024 };

/* ---- memory of the configuration ----------------------------------------------------------------------- */

void *pry_declare_take(lua_State *L, struct pry_declaration *d, size_t size)
{
  void *memory = pry_arena_take(&d->config->arena, size);
  if (!memory)
    luaL_error(L, "the configuration is too large (more than 4 MiB), or memory is short");
  return memory;
}

char *pry_declare_copy(lua_State *L, struct pry_declaration *d, struct pry_slice text)
{
  char *copy = pry_declare_take(L, d, text.size + 1);
  if (text.size)
    memcpy(copy, text.data, text.size);
  return copy;
}

void pry_declare_push(lua_State *L, struct pry_declaration *d, struct pry_pointers *pointers, void *item)
{
  if (pointers->count == pointers->capacity) {
    size_t capacity = pointers->capacity ? pointers->capacity * 2 : 8;
    void **items = pry_declare_take(L, d, capacity * sizeof *items);
    if (pointers->count)
      memcpy(items, pointers->items, pointers->count * sizeof *items);
    pointers->items = items;
    pointers->capacity = capacity;
  }
  pointers->items[pointers->count++] = item;
}

/* ---- findings ------------------------------------------------------------------------------------------ */

struct pry_place pry_place_here(lua_State *L, struct pry_declaration *d)
{
  struct pry_place place = {0};
  lua_Debug about;
  for (int level = 1; lua_getstack(L, level, &about); level++) {
    lua_getinfo(L, "Sl", &about);
    if (about.currentline <= 0 || *about.source != '@')
      continue;
    place.file = pry_policy_set_find(d->set, about.source + 1);
    place.line = about.currentline;
    break;
  }
  return place;
}

static void add_finding(struct pry_declaration *d, enum pry_severity severity, struct pry_place place,
                        const char *format, va_list arguments) __attribute__((format(printf, 4, 0)));
static void add_finding(struct pry_declaration *d, enum pry_severity severity, struct pry_place place,
                        const char *format, va_list arguments)
{
  char where[160], what[512];
  const char *file = place.file ? place.file->path : "init.lua";
  if (place.line > 0)
    snprintf(where, sizeof where, "%s:%d", file, place.line);
  else
    snprintf(where, sizeof where, "%s", file);
  vsnprintf(what, sizeof what, format, arguments);
  pry_report_add(d->report, severity, where, "%s", what);
}

void pry_complain(struct pry_declaration *d, struct pry_place place, const char *format, ...)
{
  va_list arguments;
  va_start(arguments, format);
  add_finding(d, PRY_FINDING_ERROR, place, format, arguments);
  va_end(arguments);
}

void pry_warn(struct pry_declaration *d, struct pry_place place, const char *format, ...)
{
  if (d->options->warm)
    return;
  va_list arguments;
  va_start(arguments, format);
  add_finding(d, PRY_FINDING_WARNING, place, format, arguments);
  va_end(arguments);
}

/* With what cannot be shown on one line replaced, and cut. */
static void show_text(const char *text, size_t size, char shown[PRY_SHOWN_MAX])
{
  enum { KEPT = PRY_SHOWN_MAX - 8 };
  size_t at = 0;
  shown[at++] = '"';
  size_t kept = size < KEPT ? size : KEPT;
  while (kept < size && kept && ((unsigned char)text[kept] & 0xc0) == 0x80)
    kept--; /* never half a character */
  for (size_t i = 0; i < kept; i++)
    shown[at++] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
  snprintf(shown + at, PRY_SHOWN_MAX - at, "%s", kept < size ? "\"..." : "\"");
}

const char *pry_show_value(lua_State *L, int index, char shown[PRY_SHOWN_MAX])
{
  size_t size;
  switch (lua_type(L, index)) {
  case LUA_TNIL:
    return "nothing";
  case LUA_TBOOLEAN:
    return lua_toboolean(L, index) ? "true" : "false";
  case LUA_TNUMBER:
    if (isnan(lua_tonumber(L, index)))
      return "nan"; /* printf may add a sign */
    if (lua_isinteger(L, index))
      snprintf(shown, PRY_SHOWN_MAX, "%lld", (long long)lua_tointeger(L, index));
    else
      snprintf(shown, PRY_SHOWN_MAX, "%.14g", (double)lua_tonumber(L, index));
    return shown;
  case LUA_TSTRING: {
    const char *text = lua_tolstring(L, index, &size);
    show_text(text, size, shown);
    return shown;
  }
  case LUA_TTABLE:
    return "a table";
  case LUA_TFUNCTION:
    return "a function";
  default:
    if (pry_declare_secret_name(L, index))
      return "a secret";
    if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING) {
      snprintf(shown, PRY_SHOWN_MAX, "%s", lua_tostring(L, -1));
      lua_pop(L, 1);
      return shown;
    }
    return "a userdata";
  }
}

const char *pry_show_kind(lua_State *L, int index, char shown[PRY_SHOWN_MAX])
{
  return lua_type(L, index) == LUA_TSTRING ? "a text" : pry_show_value(L, index, shown);
}

const char *pry_hint(const char *wrong, const char *const *names, size_t count, const char *intro,
                     char hint[PRY_HINT_MAX])
{
  const char *near = pry_nearest_name(wrong, names, count);
  if (near) {
    snprintf(hint, PRY_HINT_MAX, "; did you mean \"%s\"?", near);
    return hint;
  }
  if (!count) {
    *hint = '\0';
    return hint;
  }
  size_t used = (size_t)snprintf(hint, PRY_HINT_MAX, "; %s ", intro);
  for (size_t i = 0; i < count && used < PRY_HINT_MAX; i++)
    used += (size_t)snprintf(hint + used, PRY_HINT_MAX - used, "%s%s", i ? ", " : "", names[i]);
  if (used >= PRY_HINT_MAX)
    memcpy(hint + PRY_HINT_MAX - 4, "...", 4);
  return hint;
}

/* ---- forms --------------------------------------------------------------------------------------------- */

void pry_form_readable(lua_State *L, int index)
{
  if (lua_type(L, index) != LUA_TTABLE || !pry_freeze_is_frozen(L, index))
    return;
  index = lua_absindex(L, index);
  pry_freeze_contents(L, index);
  lua_replace(L, index);
}

struct pry_form pry_form_open(struct pry_declaration *d, lua_State *L, int index, struct pry_place place,
                              const char *subject)
{
  struct pry_form form = {.d = d, .L = L, .place = place, .subject = subject, .prefix = "", .noun = "field"};
  char shown[PRY_SHOWN_MAX];
  luaL_checkstack(L, 20, "too many nested tables");
  pry_form_readable(L, index);
  if (lua_type(L, index) == LUA_TTABLE)
    form.table = lua_absindex(L, index);
  else
    pry_complain(d, place, "%s: needs a table { ... }, got %s", subject, pry_show_value(L, index, shown));
  return form;
}

struct pry_place pry_form_place(const struct pry_form *form, const char *key)
{
  struct pry_place place = form->place;
  char path[128];
  int length = snprintf(path, sizeof path, "%s%s", form->prefix, key);
  if (place.file && place.line > 0 && length > 0 && (size_t)length < sizeof path)
    place.line = pry_source_field_line((struct pry_slice){place.file->text, place.file->size}, place.line, path);
  return place;
}

void pry_form_complain(const struct pry_form *form, const char *key, const char *format, ...)
{
  char what[448];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  pry_complain(form->d, pry_form_place(form, key), "%s: %s%s %s", form->subject, form->prefix, key, what);
}

/* Pushes the field's value without metamethods; nil for a form without a table. */
static int push_field(const struct pry_form *form, const char *key)
{
  if (!form->table) {
    lua_pushnil(form->L);
    return LUA_TNIL;
  }
  lua_pushstring(form->L, key);
  return lua_rawget(form->L, form->table);
}

/* Pushes a field that must have `type`; false: nothing pushed. */
static bool push_typed(const struct pry_form *form, const char *key, int type, const char *expected)
{
  char shown[PRY_SHOWN_MAX];
  int got = push_field(form, key);
  if (got == type)
    return true;
  if (got != LUA_TNIL)
    pry_form_complain(form, key, "must be %s, got %s", expected, pry_show_value(form->L, -1, shown));
  lua_pop(form->L, 1);
  return false;
}

bool pry_form_enter(const struct pry_form *form, const char *key, const char *prefix, struct pry_form *inner)
{
  *inner = *form;
  inner->prefix = prefix;
  inner->table = 0;
  luaL_checkstack(form->L, 20, "too many nested tables");
  if (!push_typed(form, key, LUA_TTABLE, "a table { ... }")) {
    lua_pushnil(form->L);
    return false;
  }
  inner->table = lua_gettop(form->L);
  pry_form_readable(form->L, inner->table);
  return true;
}

static int compare_texts(const void *a, const void *b)
{
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted, so that the same file gives the same findings in the same order. `others` counts what is no text. */
static const char **collect_keys(const struct pry_form *form, size_t *count, size_t *others)
{
  lua_State *L = form->L;
  const char **keys = NULL;
  *count = 0;
  *others = 0;
  if (!form->table)
    return NULL;
  size_t capacity = 0;
  for (lua_pushnil(L); lua_next(L, form->table); lua_pop(L, 1))
    capacity++;
  if (capacity > FORM_FIELDS_MAX)
    luaL_error(L, "%s: a table with more than %d fields", form->subject, FORM_FIELDS_MAX);
  keys = pry_declare_take(L, form->d, (capacity + 1) * sizeof *keys);
  for (lua_pushnil(L); lua_next(L, form->table); lua_pop(L, 1)) {
    if (lua_type(L, -2) == LUA_TSTRING) {
      size_t size;
      const char *key = lua_tolstring(L, -2, &size);
      keys[(*count)++] = pry_declare_copy(L, form->d, (struct pry_slice){key, size});
    } else {
      ++*others;
    }
  }
  if (*count)
    qsort(keys, *count, sizeof *keys, compare_texts);
  return keys;
}

const char *const *pry_form_keys(const struct pry_form *form, size_t *count)
{
  size_t others;
  const char *const *keys = (const char *const *)collect_keys(form, count, &others);
  if (others)
    pry_complain(form->d, form->place, "%s: %.*s takes only named fields (name = value), got a list element",
                 form->subject, (int)strcspn(form->prefix, "."), *form->prefix ? form->prefix : "the table");
  return keys;
}

static bool is_known(const char *key, const char *const *known, size_t count)
{
  for (size_t i = 0; i < count; i++)
    if (strcmp(key, known[i]) == 0)
      return true;
  return false;
}

void pry_form_known(const struct pry_form *form, const char *const *known, size_t count, bool allow_list)
{
  size_t key_count, others;
  const char **keys = collect_keys(form, &key_count, &others);
  char hint[PRY_HINT_MAX];
  for (size_t i = 0; i < key_count; i++)
    if (!is_known(keys[i], known, count))
      pry_complain(form->d, pry_form_place(form, keys[i]), "%s: no %s \"%s%.60s\"%s", form->subject, form->noun,
                   form->prefix, keys[i], pry_hint(keys[i], known, count, "it takes", hint));
  if (others && !allow_list)
    pry_complain(form->d, form->place, "%s: takes only named fields (name = value), got a list element%s",
                 form->subject, *form->prefix ? " inside" : "");
}

const char *pry_form_text(const struct pry_form *form, const char *key, enum pry_need need)
{
  size_t size;
  if (need == PRY_REQUIRED && push_field(form, key) == LUA_TNIL) {
    if (form->table)
      pry_complain(form->d, form->place, "%s: needs %s%s = \"...\"", form->subject, form->prefix, key);
    lua_pop(form->L, 1);
    return NULL;
  }
  if (need == PRY_REQUIRED)
    lua_pop(form->L, 1);
  if (!push_typed(form, key, LUA_TSTRING, "a text"))
    return NULL;
  const char *text = lua_tolstring(form->L, -1, &size);
  const char *copy = NULL;
  if (!size)
    pry_form_complain(form, key, "must not be empty");
  else if (strlen(text) != size)
    pry_form_complain(form, key, "must not contain a NUL byte");
  else
    copy = pry_declare_copy(form->L, form->d, (struct pry_slice){text, size});
  lua_pop(form->L, 1);
  return copy;
}

bool pry_form_number(const struct pry_form *form, const char *key, double min, double max, const char *unit,
                     double *value)
{
  char shown[PRY_SHOWN_MAX];
  int type = push_field(form, key);
  double number = lua_tonumber(form->L, -1);
  bool ok = type == LUA_TNUMBER && number >= min && number <= max;
  if (ok)
    *value = number;
  else if (type != LUA_TNIL)
    pry_form_complain(form, key, "must be a number %.14g..%.14g%s%s, got %s", min, max, *unit ? " " : "", unit,
                      pry_show_value(form->L, -1, shown));
  lua_pop(form->L, 1);
  return ok;
}

bool pry_form_integer(const struct pry_form *form, const char *key, long min, long max, long *value)
{
  char shown[PRY_SHOWN_MAX];
  int type = push_field(form, key), whole = 0;
  lua_Integer number = type == LUA_TNUMBER ? lua_tointegerx(form->L, -1, &whole) : 0;
  bool ok = whole && number >= min && number <= max;
  if (ok)
    *value = (long)number;
  else if (type != LUA_TNIL)
    pry_form_complain(form, key, "must be a whole number %ld..%ld, got %s", min, max,
                      pry_show_value(form->L, -1, shown));
  lua_pop(form->L, 1);
  return ok;
}

bool pry_form_boolean(const struct pry_form *form, const char *key, bool *value)
{
  if (!push_typed(form, key, LUA_TBOOLEAN, "true or false"))
    return false;
  *value = lua_toboolean(form->L, -1);
  lua_pop(form->L, 1);
  return true;
}

/* The element on the top of the stack, or NULL with a finding. */
static const char *text_element(const struct pry_form *form, const char *key, const char *what, size_t position)
{
  char shown[PRY_SHOWN_MAX];
  size_t size = 0;
  const char *text = lua_type(form->L, -1) == LUA_TSTRING ? lua_tolstring(form->L, -1, &size) : NULL;
  if (text && size && strlen(text) == size)
    return pry_declare_copy(form->L, form->d, (struct pry_slice){text, size});
  pry_form_complain(form, key, "must be a list of %s; element %zu is %s", what, position,
                    pry_show_value(form->L, -1, shown));
  return NULL;
}

struct pry_text_list pry_form_texts(const struct pry_form *form, const char *key, const char *what)
{
  lua_State *L = form->L;
  struct pry_text_list list = {0};
  if (!push_typed(form, key, LUA_TTABLE, "a list { \"...\" }"))
    return list;
  struct pry_form inner = *form;
  inner.table = lua_gettop(L);
  pry_form_readable(L, inner.table);
  size_t names, numbers;
  const char **keys = collect_keys(&inner, &names, &numbers);
  size_t length = lua_rawlen(L, -1);
  if (names)
    pry_form_complain(form, key, "must be a list of %s, got a field \"%.60s\"", what, keys[0]);
  else if (numbers != length || length > LIST_MAX)
    pry_form_complain(form, key, "must be a list of %s without gaps, of at most %d", what, LIST_MAX);
  else {
    const char **items = pry_declare_take(L, form->d, (length + 1) * sizeof *items);
    list.items = items;
    for (size_t i = 1; i <= length; i++) {
      lua_rawgeti(L, -1, (lua_Integer)i);
      const char *text = text_element(form, key, what, i);
      if (text)
        items[list.count++] = text;
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
  return list;
}

bool pry_form_function(const struct pry_form *form, const char *key)
{
  return push_typed(form, key, LUA_TFUNCTION, "a function");
}
