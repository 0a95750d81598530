#include "lib.h"

#include "freeze.h"
#include "sandbox.h"

#include <math.h>
#include <stdio.h>

/*
 * Verdicts as Lua values. `retry { after = 1 }` checks the table against the schema of verdict.h, so that a mistake is
 * told at the line where it stands, and gives a sealed object; pry_verdict_take() turns the object that a handler
 * returned into C. Numbers are in the object, texts are its user values (shared with Lua, nothing is copied), so what
 * the script does to its table afterwards changes nothing.
 *
 *   ---@class verdict
 *   ---@param v { after?: number, why?: string }
 *   ---@return verdict   another attempt at the same target, not before `after` seconds
 *   function retry(v) end
 *   ---@param v { target: string, after?: number, strip?: boolean, why?: string }
 *   ---@return verdict   another attempt at "provider/model", or at another model of the same provider; at another
 *                        provider `strip` takes out of the body what only this one understands
 *   function fallback(v) end
 *   ---@param v? { why?: string }
 *   ---@return verdict   another attempt at the same target, at once, with a key of the provider that this call has not used
 *   function rotate(v) end
 *   ---@param v? { why?: string }
 *   ---@return verdict   renews the provider's credential, then tries again
 *   function renew(v) end
 *   ---@param v { category?: string, status?: integer, code?: string, message?: string, after?: number, why?: string }
 *   ---@return verdict   ends the call with this failure; `after` becomes Retry-After
 *   function fail(v) end
 *   ---@param v { status?: integer, headers?: table<string, string>, body?: string|table, why?: string }
 *   ---@return verdict   ends the call with this answer
 *   function respond(v) end
 *   ---@param v { target?: string, headers?: table<string, string>, why?: string }
 *   ---@return verdict   sends the call there; header values may hold secrets
 *   ---@overload fun(pattern: string): fun(v: route_declaration)
 *   function route(v) end
 *   ---@param v { key?: string, slots?: integer, limit?: integer, per?: number, rate?: number, burst?: number,
 *             cost?: number, max_wait?: number, max_waiting?: integer, until_time?: number, category?: string,
 *             code?: string, message?: string, after?: number, why?: string }
 *   ---@return verdict   waits under `key` for one of `slots` places, for one of `limit` calls in any `per` seconds, for
 *             `cost` (1) tokens of a bucket that gets `rate` a second up to `burst` (1), or for all of these that are
 *             said, in line with at most `max_waiting` others; or waits for a time. When it cannot be in time the attempt
 *             is refused, the call fails: with `category` (rate_limit), `code`, `message`, and `after` as Retry-After
 *             where the wait is not known
 *   function hold(v) end
 *   ---@param v { category?: string, after?: number, code?: string, message?: string, why?: string }
 *   ---@return verdict   this attempt is not made
 *   function refuse(v) end
 *   ---@param v { status?: integer, curl?: string, delay?: number, headers?: table, body?: string|table, why?: string }
 *   ---@return verdict   for tests in operation: this attempt gets this answer instead of the provider's
 *   function inject(v) end
 */

#define X(name, type, kinds, required, min, max) ROW_##name,
enum { PRY_VERDICT_FIELDS(X) ROWS };
#undef X

/* Rows whose values are Lua values: texts, headers, bodies. A bit per row. */
#define X(name, type, kinds, required, min, max)                                                                       \
  | ((uint32_t)((type) >= PRY_FIELD_TEXT && (type) != PRY_FIELD_CATEGORY) << ROW_##name)
static const uint32_t text_rows = 0 PRY_VERDICT_FIELDS(X);
#undef X

enum {
  LEVELS_MAX = 10,
  KIND_UPVALUE = 1,
  NAMES_UPVALUE = 2,
  FIELDS_UPVALUE = 3,
  NAME_BYTE_COST = 16, /* against touching a byte once */
  VALUE_BYTE_COST = 2
};

static const char METATABLE_KEY = 0;
static const double YEARS_10 = 10.0 * 366 * 24 * 3600, NUMBER_MAX = 1e12;

struct verdict_object {
  enum pry_verdict_kind kind;
  int line;
  uint32_t fields, set; /* rows that this kind has, that this verdict says; a bit per row */
  bool json_body;       /* the body was a table */
  double number[ROWS];
};

static const struct pry_verdict_field *const rows = pry_verdict_fields;

static uint32_t fields_of(enum pry_verdict_kind kind)
{
  uint32_t fields = 0;
  for (int row = 0; row < ROWS; row++)
    if (rows[row].kinds & PRY_VERDICT_BIT(kind))
      fields |= 1u << row;
  return fields;
}

static bool is_text(int row)
{
  return text_rows & (1u << row);
}

/* User values of a verdict: the texts its kind has, in the order of the table, from 1. */
static int text_slot(uint32_t fields, int row)
{
  return __builtin_popcount(fields & text_rows & ((2u << row) - 1));
}

/* ---- complaints ------------------------------------------------------------------------------------------ */

static int unknown_field(lua_State *L, enum pry_verdict_kind kind, uint32_t fields, const char *name)
{
  luaL_Buffer list;
  bool first = true;
  luaL_buffinit(L, &list);
  for (int row = 0; row < ROWS; row++) {
    if (!(fields & (1u << row)))
      continue;
    if (!first)
      luaL_addstring(&list, ", ");
    luaL_addstring(&list, rows[row].name);
    first = false;
  }
  luaL_pushresult(&list);
  return luaL_error(L, "%s{} has no field \"%s\"; it takes %s", pry_verdict_name(kind), name, lua_tostring(L, -1));
}

static int wrong_value(lua_State *L, enum pry_verdict_kind kind, int row, int index, const char *expected)
{
  const char *got = lua_type(L, index) == LUA_TNUMBER ? lua_tostring(L, index) : luaL_typename(L, index);
  return luaL_error(L, "%s{}: %s must be %s, got %s", pry_verdict_name(kind), rows[row].name, expected, got);
}

/* ---- reading fields: value at `index` of the stack, object at 2 -------------------------------------------------- */

static void read_seconds(lua_State *L, struct verdict_object *object, int row, int index)
{
  double value = lua_tonumber(L, index);
  if (lua_type(L, index) != LUA_TNUMBER || !(value >= 0 && value <= YEARS_10))
    wrong_value(L, object->kind, row, index, "a number of seconds, not negative, at most ten years");
  object->number[row] = value;
}

static void read_time(lua_State *L, struct verdict_object *object, int row, int index)
{
  double value = lua_tonumber(L, index);
  if (lua_type(L, index) != LUA_TNUMBER || !isfinite(value) || value <= 0)
    wrong_value(L, object->kind, row, index, "a time in Unix seconds");
  object->number[row] = value;
}

static void read_number(lua_State *L, struct verdict_object *object, int row, int index)
{
  double value = lua_tonumber(L, index);
  if (lua_type(L, index) != LUA_TNUMBER || !(value > 0 && value <= NUMBER_MAX))
    wrong_value(L, object->kind, row, index, "a number above 0, at most 1e12");
  object->number[row] = value;
}

static void read_integer(lua_State *L, struct verdict_object *object, int row, int index)
{
  int whole;
  lua_Integer value = lua_tointegerx(L, index, &whole);
  if (lua_type(L, index) != LUA_TNUMBER || !whole || value < rows[row].min || value > rows[row].max) {
    char expected[64];
    snprintf(expected, sizeof expected, "a whole number from %ld to %ld", rows[row].min, rows[row].max);
    wrong_value(L, object->kind, row, index, expected);
  }
  object->number[row] = (double)value;
}

static void read_boolean(lua_State *L, struct verdict_object *object, int row, int index)
{
  if (lua_type(L, index) != LUA_TBOOLEAN)
    wrong_value(L, object->kind, row, index, "true or false");
  object->number[row] = lua_toboolean(L, index);
}

static void read_category(lua_State *L, struct verdict_object *object, int row, int index)
{
  if (lua_type(L, index) != LUA_TSTRING)
    wrong_value(L, object->kind, row, index, "the name of a category");
  enum pry_category category = pry_category_from_name(pry_lua_text(L, index));
  if (category == PRY_NONE)
    luaL_error(L, "%s{}: there is no category \"%s\"", pry_verdict_name(object->kind), lua_tostring(L, index));
  object->number[row] = category;
}

static void keep_text(lua_State *L, const struct verdict_object *object, int row, int index)
{
  lua_pushvalue(L, index);
  lua_setiuservalue(L, 2, text_slot(object->fields, row));
}

static void read_text(lua_State *L, const struct verdict_object *object, int row, int index)
{
  if (lua_type(L, index) != LUA_TSTRING)
    wrong_value(L, object->kind, row, index, "text");
  struct pry_slice text = pry_lua_text(L, index);
  if (memchr(text.data, '\0', text.size))
    luaL_error(L, "%s{}: %s must not hold a NUL byte", pry_verdict_name(object->kind), rows[row].name);
  if (rows[row].type == PRY_FIELD_KEY && (text.size == 0 || text.size >= rows[row].size))
    luaL_error(L, "%s{}: %s must have 1 to %d bytes", pry_verdict_name(object->kind), rows[row].name,
               (int)rows[row].size - 1);
  keep_text(L, object, row, index);
}

static bool is_ours(struct pry_slice name)
{
  static const char *const ours[] = {"connection", "content-length",    "host",   "keep-alive", "te",
                                     "trailer",    "transfer-encoding", "upgrade"};
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (pry_slice_equal_nocase(name, pry_slice_of(ours[i])))
      return true;
  return false;
}

/* RFC 9110 §5.6.2: token. */
static bool is_token(struct pry_slice name)
{
  for (size_t i = 0; i < name.size; i++) {
    unsigned char c = (unsigned char)name.data[i];
    if (c <= 0x20 || c >= 0x7F || strchr("\"(),/:;<=>?@[\\]{}", c))
      return false;
  }
  return name.size > 0;
}

static bool has_control(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++)
    if (((unsigned char)text.data[i] < 0x20 && text.data[i] != '\t') || text.data[i] == 0x7F)
      return true;
  return false;
}

/* One line, values at `name` and `value`, into the copy at the top of the stack. Secrets may only go to providers. */
static void copy_header(lua_State *L, const struct verdict_object *object, int name, int value)
{
  const char *kind = pry_verdict_name(object->kind);
  if (lua_type(L, name) != LUA_TSTRING || !is_token(pry_lua_text(L, name)))
    luaL_error(L, "%s{}: a header's name must be text of letters, digits and -", kind);
  if (is_ours(pry_lua_text(L, name)))
    luaL_error(L, "%s{}: the header %s is parry's own", kind, lua_tostring(L, name));
  bool secret_allowed = object->kind == PRY_VERDICT_ROUTE;
  if (lua_type(L, value) == LUA_TSTRING && has_control(pry_lua_text(L, value)))
    luaL_error(L, "%s{}: the header %s must not hold control characters", kind, lua_tostring(L, name));
  if (lua_type(L, value) != LUA_TSTRING && lua_type(L, value) != LUA_TNUMBER &&
      !(secret_allowed && (lua_istable(L, value) || pry_lua_is_secret(L, value))))
    luaL_error(L, "%s{}: the header %s must be text, got %s", kind, lua_tostring(L, name), luaL_typename(L, value));
  lua_pushvalue(L, name);
  lua_pushvalue(L, value);
  lua_rawset(L, -3);
}

/* Every byte is looked at, those of the name against a list; one long text may stand in thousands of lines. */
static void charge_header(lua_State *L, int name, int value)
{
  size_t bytes = PRY_SCRIPT_BYTES_PER_INSTRUCTION;
  if (lua_type(L, name) == LUA_TSTRING)
    bytes += NAME_BYTE_COST * pry_lua_text(L, name).size;
  if (lua_type(L, value) == LUA_TSTRING)
    bytes += VALUE_BYTE_COST * pry_lua_text(L, value).size;
  pry_script_charge_bytes(L, bytes);
}

static void read_headers(lua_State *L, const struct verdict_object *object, int row, int index)
{
  if (lua_type(L, index) != LUA_TTABLE)
    wrong_value(L, object->kind, row, index, "a table of header lines");
  pry_freeze_contents(L, index);
  int lines = lua_gettop(L);
  lua_newtable(L);
  int copy = lines + 1;
  lua_pushnil(L);
  while (lua_next(L, lines)) {
    charge_header(L, copy + 1, copy + 2);
    lua_pushvalue(L, copy);
    copy_header(L, object, copy + 1, copy + 2);
    lua_settop(L, copy + 1);
  }
  keep_text(L, object, row, copy);
  lua_settop(L, lines - 1);
}

static void read_body(lua_State *L, struct verdict_object *object, int row, int index)
{
  char complaint[128];
  size_t limit = pry_script_of(L)->limits.verdict;
  if (!limit || limit > PRY_RESPOND_MAX)
    limit = PRY_RESPOND_MAX;
  if (lua_type(L, index) == LUA_TSTRING) {
    if (pry_lua_text(L, index).size > limit)
      luaL_error(L, "%s{}: the body has more than %d bytes", pry_verdict_name(object->kind), (int)limit);
    keep_text(L, object, row, index);
    return;
  }
  if (lua_type(L, index) != LUA_TTABLE)
    wrong_value(L, object->kind, row, index, "text, or a table to be sent as JSON");
  struct pry_buffer *json = pry_lua_buffer(L, limit);
  if (!pry_lua_json_append(L, index, json, NULL, NULL, complaint, sizeof complaint))
    luaL_error(L, "%s{}: body: %s", pry_verdict_name(object->kind), complaint);
  lua_pushlstring(L, json->data, json->size);
  pry_buffer_fini(json);
  object->json_body = true;
  keep_text(L, object, row, lua_gettop(L));
  lua_pop(L, 2);
}

static void read_field(lua_State *L, struct verdict_object *object, int row, int index)
{
  object->set |= 1u << row;
  switch (rows[row].type) {
  case PRY_FIELD_SECONDS:
    read_seconds(L, object, row, index);
    break;
  case PRY_FIELD_TIME:
    read_time(L, object, row, index);
    break;
  case PRY_FIELD_NUMBER:
    read_number(L, object, row, index);
    break;
  case PRY_FIELD_INTEGER:
    read_integer(L, object, row, index);
    break;
  case PRY_FIELD_BOOLEAN:
    read_boolean(L, object, row, index);
    break;
  case PRY_FIELD_CATEGORY:
    read_category(L, object, row, index);
    break;
  case PRY_FIELD_TEXT:
  case PRY_FIELD_KEY:
    read_text(L, object, row, index);
    break;
  case PRY_FIELD_HEADERS:
    read_headers(L, object, row, index);
    break;
  case PRY_FIELD_BODY:
    read_body(L, object, row, index);
    break;
  }
}

/* ---- constructors ---------------------------------------------------------------------------------------- */

/* The innermost line of the deciding policy's own file: a verdict may be made in a function of lib/. */
static int line_of_policy(lua_State *L)
{
  const struct pry_decision *decision = pry_decision_of(L);
  const struct pry_instance *instance = decision && decision->ask ? decision->ask->instance : NULL;
  lua_Debug place;
  for (int level = 1; instance && level < LEVELS_MAX && lua_getstack(L, level, &place); level++) {
    lua_getinfo(L, "Sl", &place);
    if (place.currentline > 0 && place.source[0] == '@' && strcmp(place.source + 1, instance->file) == 0)
      return place.currentline;
  }
  return 0;
}

static void check_required(lua_State *L, const struct verdict_object *object)
{
  for (uint32_t left = object->fields & ~object->set; left; left &= left - 1) {
    int row = __builtin_ctz(left);
    if (rows[row].required & PRY_VERDICT_BIT(object->kind))
      luaL_error(L, "%s{} needs a %s", pry_verdict_name(object->kind), rows[row].name);
  }
}

static int make_verdict(lua_State *L)
{
  enum pry_verdict_kind kind = (enum pry_verdict_kind)lua_tointeger(L, lua_upvalueindex(KIND_UPVALUE));
  lua_settop(L, 1);
  if (lua_isnil(L, 1)) {
    lua_newtable(L);
    lua_replace(L, 1);
  }
  if (lua_type(L, 1) != LUA_TTABLE)
    return luaL_error(L, "%s takes a table, as %s{ … }, got %s", pry_verdict_name(kind), pry_verdict_name(kind),
                      luaL_typename(L, 1));
  pry_lua_thaw(L, 1);
  uint32_t fields = (uint32_t)lua_tointeger(L, lua_upvalueindex(FIELDS_UPVALUE));
  struct verdict_object *object = lua_newuserdatauv(L, sizeof *object, text_slot(fields, ROWS - 1));
  *object = (struct verdict_object){.kind = kind, .line = line_of_policy(L), .fields = fields};
  lua_pushnil(L);
  while (lua_next(L, 1)) {
    if (lua_type(L, 3) != LUA_TSTRING)
      return luaL_error(L, "%s{} takes named fields only", pry_verdict_name(kind));
    lua_pushvalue(L, 3);
    int known = lua_rawget(L, lua_upvalueindex(NAMES_UPVALUE));
    int row = (int)lua_tointeger(L, -1);
    if (known == LUA_TNIL || !(fields & (1u << row)))
      return unknown_field(L, kind, fields, lua_tostring(L, 3));
    read_field(L, object, row, 4);
    lua_settop(L, 3);
  }
  check_required(L, object);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &METATABLE_KEY);
  lua_setmetatable(L, 2);
  return 1;
}

bool pry_verdict_makes(lua_CFunction function)
{
  return function == make_verdict;
}

static int verdict_text(lua_State *L)
{
  const struct verdict_object *object = lua_touserdata(L, 1);
  lua_pushfstring(L, "%s verdict", pry_verdict_name(object->kind));
  return 1;
}

static int verdict_index(lua_State *L)
{
  const struct verdict_object *object = lua_touserdata(L, 1);
  return luaL_error(L, "a verdict is sealed: return it (this one is a %s)", pry_verdict_name(object->kind));
}

void pry_lib_verdict_open(lua_State *L)
{
  lua_createtable(L, 0, 5);
  lua_pushcfunction(L, verdict_text);
  lua_setfield(L, -2, "__tostring");
  lua_pushcfunction(L, verdict_index);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, verdict_index);
  lua_setfield(L, -2, "__newindex");
  lua_pushliteral(L, "verdict");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &METATABLE_KEY);
  lua_createtable(L, 0, ROWS);
  for (int row = 0; row < ROWS; row++) {
    lua_pushinteger(L, row);
    lua_setfield(L, -2, rows[row].name);
  }
  for (enum pry_verdict_kind kind = PRY_VERDICT_NONE + 1; kind < PRY_VERDICT_COUNT; kind++) {
    lua_pushinteger(L, kind);
    lua_pushvalue(L, -2);
    lua_pushinteger(L, fields_of(kind));
    lua_pushcclosure(L, make_verdict, 3);
    pry_sandbox_set_global(L, pry_verdict_name(kind));
  }
  lua_pop(L, 1);
}

/* ---- taking ---------------------------------------------------------------------------------------------- */

static bool complain(char *complaint, size_t size, const char *text, const char *detail)
{
  snprintf(complaint, size, "%s%s", text, detail);
  return false;
}

static bool not_a_verdict(lua_State *L, int index, enum pry_handler handler, char *complaint, size_t size)
{
  char names[128];
  snprintf(complaint, size, "%s returned a %s; it may return %s%s", pry_handler_name(handler), luaL_typename(L, index),
           pry_verdict_allowed_names(handler, names, sizeof names),
           lua_istable(L, index) ? " (a plain table is no verdict: write retry{ … })" : "");
  return false;
}

static const struct verdict_object *object_at(lua_State *L, int index)
{
  if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index))
    return NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &METATABLE_KEY);
  bool fits = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return fits ? lua_touserdata(L, index) : NULL;
}

/* At most size - 1 bytes, never half a UTF-8 sequence. */
static void cut_text(char *to, size_t size, struct pry_slice from)
{
  size_t length = from.size < size ? from.size : size - 1;
  if (length < from.size)
    while (length && ((unsigned char)from.data[length] & 0xC0) == 0x80)
      length--;
  memcpy(to, from.data, length);
  to[length] = '\0';
}

static bool take_key(struct pry_verdict *verdict, struct pry_slice key, const struct pry_decision *decision,
                     char *complaint, size_t size)
{
  int length = snprintf(verdict->key, sizeof verdict->key, "%s/%.*s", decision->name, (int)key.size, key.data);
  if (length >= 0 && (size_t)length < sizeof verdict->key)
    return true;
  return complain(complaint, size, "the key of hold{} is too long", "");
}

static bool take_headers(lua_State *L, struct pry_verdict *verdict, const struct pry_decision *decision,
                         char *complaint, size_t size)
{
  int table = lua_gettop(L);
  struct pry_buffer *value = pry_lua_buffer(L, PRY_HEADERS_BYTES_MAX);
  lua_Integer count = pry_sandbox_keys(L, table);
  const char *why = NULL;
  for (lua_Integer i = 1; i <= count; i++) {
    pry_buffer_clear(value);
    lua_rawgeti(L, table + 2, i);
    lua_pushvalue(L, -1);
    lua_rawget(L, table);
    struct pry_slice name = pry_lua_text(L, table + 3);
    if (!pry_lua_append_parts(L, -1, decision, "a header", value, &why))
      return complain(complaint, size, "a header of route{} cannot be rendered: ", why);
    if (!pry_headers_add(&verdict->headers, name, pry_buffer_slice(value)))
      return complain(complaint, size, "there are too many headers, or they are too long", "");
    lua_settop(L, table + 2);
  }
  pry_buffer_fini(value);
  return true;
}

static bool take_body(struct pry_verdict *verdict, struct pry_slice text, bool is_json, char *complaint, size_t size)
{
  struct pry_slice type;
  verdict->has_body = true;
  if (!pry_buffer_append_slice(&verdict->body, text))
    return complain(complaint, size, "the body is too long", "");
  if (!is_json || pry_headers_get(&verdict->headers, PRY_SLICE("content-type"), &type) ||
      pry_headers_add(&verdict->headers, PRY_SLICE("content-type"), PRY_SLICE("application/json")))
    return true;
  return complain(complaint, size, "there are too many headers", "");
}

static void take_number(struct pry_verdict *verdict, const struct verdict_object *object, int row)
{
  void *member = (char *)verdict + rows[row].offset;
  if (rows[row].type == PRY_FIELD_INTEGER)
    *(int *)member = (int)object->number[row];
  else if (rows[row].type == PRY_FIELD_BOOLEAN)
    *(bool *)member = object->number[row] != 0;
  else if (rows[row].type == PRY_FIELD_CATEGORY)
    *(enum pry_category *)member = (enum pry_category)object->number[row];
  else
    *(double *)member = object->number[row];
}

/* The user value of `row` is on top of the stack. */
static bool take_text(lua_State *L, struct pry_verdict *verdict, const struct verdict_object *object, int row,
                      const struct pry_decision *decision, char *complaint, size_t size)
{
  if (rows[row].type == PRY_FIELD_HEADERS)
    return take_headers(L, verdict, decision, complaint, size);
  struct pry_slice text = pry_lua_text(L, -1);
  if (rows[row].type == PRY_FIELD_BODY)
    return take_body(verdict, text, object->json_body, complaint, size);
  char *member = (char *)verdict + rows[row].offset;
  if (member == verdict->key)
    return take_key(verdict, text, decision, complaint, size);
  cut_text(member, rows[row].size, text);
  return true;
}

static bool take_fields(lua_State *L, int index, const struct verdict_object *object, struct pry_verdict *verdict,
                        const struct pry_decision *decision, char *complaint, size_t size)
{
  int top = lua_gettop(L);
  for (uint32_t left = object->set; left; left &= left - 1) {
    int row = __builtin_ctz(left);
    if (!is_text(row)) {
      take_number(verdict, object, row);
      continue;
    }
    lua_getiuservalue(L, index, text_slot(object->fields, row));
    if (!take_text(L, verdict, object, row, decision, complaint, size))
      return false;
    lua_settop(L, top);
  }
  return true;
}

bool pry_verdict_take(lua_State *L, int index, const struct pry_decision *decision, char *complaint, size_t size)
{
  struct pry_ask *ask = decision->ask;
  struct pry_verdict *verdict = &ask->verdict;
  if (!lua_toboolean(L, index)) /* `return wanted and retry{}` gives false */
    return true;
  const struct verdict_object *object = object_at(L, index);
  if (!object)
    return not_a_verdict(L, index, ask->handler, complaint, size);
  verdict->line = object->line;
  if (!pry_verdict_allowed(ask->handler, object->kind)) {
    char names[128];
    snprintf(complaint, size, "%s returned %s{}; it may return %s", pry_handler_name(ask->handler),
             pry_verdict_name(object->kind), pry_verdict_allowed_names(ask->handler, names, sizeof names));
    return false;
  }
  if (!take_fields(L, index, object, verdict, decision, complaint, size))
    return false;
  verdict->kind = object->kind;
  verdict->policy = decision->name;
  const char *wrong = pry_verdict_complaint(verdict);
  if (wrong)
    return complain(complaint, size, wrong, "");
  struct pry_scrubber *scrubber = pry_decision_engine(decision)->scrubber;
  if (verdict->why[0])
    pry_scrubber_apply_text(scrubber, verdict->why);
  if (verdict->message[0])
    pry_scrubber_apply_text(scrubber, verdict->message);
  return true;
}
