#include "lib.h"

#include "freeze.h"
#include "json.h"
#include "sandbox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * JSON is read and written here and not by lua-cjson: cjson ends the process when malloc fails, and loses its buffer
 * when Lua runs out of memory in the middle. What is read was checked whole by json.h first, so that the builder below
 * walks text that is known to be valid, once.
 *
 *   ---@class json
 *   ---@field null userdata  stands for null in lists, and for writing it
 *   json = {}
 */

static const char NULL_KEY = 0, ARRAY_KEY = 0; /* registry keys, by address */

/* ---- reading --------------------------------------------------------------------------------------------- */

struct reader {
  lua_State *L;
  const char *p, *end;
  const struct pry_lua_keep *keep; /* NULL: everything is built */
  size_t cut;                      /* raw bytes of a text that are kept; 0: all */
};

static void build(struct reader *reader);

static void skip_space(struct reader *reader)
{
  while (reader->p < reader->end &&
         (*reader->p == ' ' || *reader->p == '\n' || *reader->p == '\t' || *reader->p == '\r'))
    reader->p++;
}

/* Past the closing quote of the string at p. */
static struct pry_slice raw_string(struct reader *reader, bool *escaped)
{
  const char *start = reader->p++;
  *escaped = false;
  const char *quote = memchr(reader->p, '"', (size_t)(reader->end - reader->p)), *escape;
  while ((escape = memchr(reader->p, '\\', (size_t)(quote - reader->p)))) {
    *escaped = true;
    reader->p = escape + 2;
    if (reader->p > quote) /* that one was escaped */
      quote = memchr(reader->p, '"', (size_t)(reader->end - reader->p));
  }
  reader->p = quote;
  reader->p++;
  return (struct pry_slice){start, (size_t)(reader->p - start)};
}

/* Bytes of the escape at `p`; a pair of surrogates is one. */
static size_t escape_size(const char *p, const char *end)
{
  if (p[1] != 'u')
    return 2;
  bool high = (p[2] == 'd' || p[2] == 'D') && memchr("89abAB", p[3], 6);
  return high && end - p > 12 && p[6] == '\\' && p[7] == 'u' ? 12 : 6;
}

/* How much of the raw string, its first quote included, makes about `cut` bytes: not within an escape or a character. */
static size_t cut_size(struct pry_slice raw, size_t cut)
{
  size_t size = 1, good = 1;
  while (size < cut) {
    good = size;
    size += raw.data[size] == '\\' ? escape_size(raw.data + size, raw.data + raw.size) : 1;
    while (size < cut && ((unsigned char)raw.data[size] & 0xC0) == 0x80)
      size++;
  }
  return good;
}

static void build_cut_string(struct reader *reader, struct pry_slice raw)
{
  struct pry_buffer *text = pry_lua_buffer(reader->L, 0);
  size_t kept = cut_size(raw, reader->cut);
  bool ok = pry_buffer_append(text, raw.data, kept) && pry_buffer_append(text, "\"", 1);
  struct pry_buffer *decoded = pry_lua_buffer(reader->L, 0);
  ok = ok && pry_json_string(pry_buffer_slice(text), decoded) &&
       pry_buffer_append_format(decoded, "...[%zu bytes]", raw.size - 2);
  if (!ok)
    luaL_error(reader->L, "not enough memory");
  lua_pushlstring(reader->L, decoded->data, decoded->size);
  pry_buffer_fini(text);
  pry_buffer_fini(decoded);
  lua_replace(reader->L, -3);
  lua_pop(reader->L, 1);
}

static void build_string(struct reader *reader)
{
  bool escaped;
  struct pry_slice raw = raw_string(reader, &escaped);
  if (reader->keep && raw.size > PRY_LUA_KEPT_TEXT) {
    pry_lua_kept_push_text(reader->L, (struct pry_slice){raw.data + 1, raw.size - 2});
    return;
  }
  if (reader->cut && raw.size - 2 > reader->cut) {
    build_cut_string(reader, raw);
    return;
  }
  if (!escaped) {
    lua_pushlstring(reader->L, raw.data + 1, raw.size - 2);
    return;
  }
  struct pry_buffer *text = pry_lua_buffer(reader->L, 0);
  if (!pry_json_string(raw, text))
    luaL_error(reader->L, "not enough memory");
  lua_pushlstring(reader->L, text->data ? text->data : "", text->size);
  pry_buffer_fini(text);
  lua_remove(reader->L, -2);
}

static bool has_any(struct pry_slice text, const char *bytes)
{
  for (size_t i = 0; i < text.size; i++)
    if (strchr(bytes, text.data[i]))
      return true;
  return false;
}

static void build_number(struct reader *reader)
{
  const char *start = reader->p;
  while (reader->p < reader->end && strchr("+-.0123456789eE", *reader->p))
    reader->p++;
  struct pry_slice raw = {start, (size_t)(reader->p - start)};
  int64_t integer;
  double number;
  if (pry_json_integer(raw, &integer))
    lua_pushinteger(reader->L, (lua_Integer)integer);
  else if (reader->keep && (!has_any(raw, ".eE") || !pry_json_number(raw, &number)))
    pry_lua_kept_push_value(reader->L, raw);
  else if (pry_json_number(raw, &number))
    lua_pushnumber(reader->L, number);
  else
    lua_pushnumber(reader->L, start[0] == '-' ? -HUGE_VAL : HUGE_VAL);
}

/* Past the value at p, which is not built. */
static struct pry_slice skip_value(struct reader *reader)
{
  const char *start = reader->p;
  unsigned depth = 0;
  bool escaped;
  do {
    char c = *reader->p;
    if (c == '"') {
      raw_string(reader, &escaped);
      continue;
    }
    if (c == '{' || c == '[')
      depth++;
    else if (c == '}' || c == ']')
      depth--;
    reader->p++;
  } while (depth || (*start != '{' && *start != '[' && *start != '"' && reader->p < reader->end &&
                     !strchr(",]} \n\t\r", *reader->p)));
  return (struct pry_slice){start, (size_t)(reader->p - start)};
}

static bool is_opaque(const struct reader *reader, struct pry_slice key)
{
  const struct pry_text_list *names = reader->keep ? reader->keep->opaque : NULL;
  for (size_t i = 0; names && i < names->count; i++)
    if (pry_json_equals(key, pry_slice_of(names->items[i])))
      return true;
  return false;
}

static void build_array(struct reader *reader)
{
  lua_State *L = reader->L;
  lua_Integer count = 0;
  lua_newtable(L);
  reader->p++;
  skip_space(reader);
  while (*reader->p != ']') {
    build(reader);
    lua_rawseti(L, -2, ++count);
    skip_space(reader);
    if (*reader->p == ',')
      reader->p++;
    skip_space(reader);
  }
  reader->p++;
  if (!count) { /* so that it is written as [] again */
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ARRAY_KEY);
    lua_setmetatable(L, -2);
  }
}

/* A key is always a text of Lua's. */
static void build_key(struct reader *reader)
{
  const struct pry_lua_keep *keep = reader->keep;
  reader->keep = NULL;
  build_string(reader);
  reader->keep = keep;
}

/* A member that is null is absent: `body.error` is then false in a condition, as its reader expects. */
static void build_object(struct reader *reader)
{
  lua_State *L = reader->L;
  lua_newtable(L);
  reader->p++;
  skip_space(reader);
  while (*reader->p != '}') {
    const char *key = reader->p;
    build_key(reader);
    bool opaque = is_opaque(reader, (struct pry_slice){key, (size_t)(reader->p - key)});
    skip_space(reader);
    reader->p++; /* the colon */
    skip_space(reader);
    if (*reader->p == 'n' && !(reader->keep && reader->keep->nulls)) {
      reader->p += 4;
      lua_pushnil(L);
    } else if (opaque && *reader->p != 'n') {
      pry_lua_kept_push_value(L, skip_value(reader));
    } else {
      build(reader);
    }
    lua_rawset(L, -3);
    skip_space(reader);
    if (*reader->p == ',')
      reader->p++;
    skip_space(reader);
  }
  reader->p++;
}

static void build(struct reader *reader)
{
  lua_State *L = reader->L;
  luaL_checkstack(L, 8, "the JSON is nested too deeply");
  if (reader->keep)
    pry_script_charge(L, 1);
  skip_space(reader);
  switch (*reader->p) {
  case '{':
    build_object(reader);
    break;
  case '[':
    build_array(reader);
    break;
  case '"':
    build_string(reader);
    break;
  case 't':
    reader->p += 4;
    lua_pushboolean(L, true);
    break;
  case 'f':
    reader->p += 5;
    lua_pushboolean(L, false);
    break;
  case 'n':
    reader->p += 4;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &NULL_KEY);
    break;
  default:
    build_number(reader);
  }
}

/* What a text that is known to be valid comes to. */
struct measure {
  size_t longest; /* raw bytes of the longest string, after cutting */
  size_t left;    /* bytes, after cutting */
  size_t
      memory; /* of Lua, about: strings have a header, lists and objects a slot for each element, and grow by halves */
};

enum { SLOT_MEMORY = 32, STRING_MEMORY = 32, TABLE_MEMORY = 64 };

/* `most`: memory at which there is no need to look further. */
static struct measure measure(struct pry_slice text, size_t cut, size_t most)
{
  struct reader reader = {NULL, text.data, text.data + text.size, NULL, 0};
  struct measure found = {0, text.size, 0};
  while (reader.p < reader.end && found.memory <= most) {
    size_t plain = 0;
    switch (*reader.p) {
    case '"': {
      bool escaped;
      size_t size = raw_string(&reader, &escaped).size - 2, kept = cut && size > cut ? cut : size;
      found.longest = kept > found.longest ? kept : found.longest;
      found.left -= size - kept;
      found.memory += kept + STRING_MEMORY;
      continue;
    }
    case '{':
    case '[':
      plain = TABLE_MEMORY + SLOT_MEMORY;
      break;
    case ',':
      plain = SLOT_MEMORY;
      break;
    default:
      break;
    }
    found.memory += plain;
    reader.p++;
  }
  return found;
}

/* NULL: it can be built. */
static const char *measure_complaint(lua_State *L, const struct measure *found)
{
  struct pry_script *script = pry_script_of(L);
  if (found->left > PRY_LUA_JSON_MAX)
    return "longer than 1 MiB";
  if (found->longest > pry_script_string_max(script))
    return "a text in it is longer than scripts can hold";
  if (found->memory > pry_script_memory_left(script) / 2) { /* what looks used may be garbage */
    pry_script_charge_bytes(L, pry_script_memory(script));
    lua_gc(L, LUA_GCCOLLECT);
  }
  return found->memory > pry_script_memory_left(script) / 2 ? "it needs more memory than scripts have" : NULL;
}

bool pry_lua_json_push_cut(lua_State *L, struct pry_slice text, size_t cut, bool checked, const char **why)
{
  bool skim = cut && checked;
  if (text.size > (skim ? PRY_LUA_JSON_SKIM_MAX : PRY_LUA_JSON_MAX)) {
    *why = skim ? "longer than 16 MiB" : "longer than 1 MiB";
    return false;
  }
  pry_script_charge_bytes(L, skim ? text.size : text.size * PRY_LUA_BYTE_COST);
  enum pry_json_result result = checked ? PRY_JSON_OK : pry_json_parse(text, NULL);
  if (result != PRY_JSON_OK) {
    *why = pry_json_result_text(result);
    return false;
  }
  struct measure found = measure(text, cut, pry_script_of(L)->limits.memory);
  if ((*why = measure_complaint(L, &found)))
    return false;
  if (skim)
    pry_script_charge_bytes(L, found.left * PRY_LUA_BYTE_COST);
  struct reader reader = {L, text.data, text.data + text.size, NULL, cut};
  build(&reader);
  return true;
}

bool pry_lua_json_push_kept(lua_State *L, struct pry_slice text, const struct pry_lua_keep *keep, const char **why)
{
  pry_script_charge_bytes(L, text.size * 2);
  enum pry_json_result result = pry_json_parse(text, NULL);
  if (result != PRY_JSON_OK) {
    *why = pry_json_result_text(result);
    return false;
  }
  struct reader reader = {L, text.data, text.data + text.size, keep, 0};
  build(&reader);
  return true;
}

bool pry_lua_json_push(lua_State *L, struct pry_slice text, const char **why)
{
  return pry_lua_json_push_cut(L, text, 0, false, why);
}

/* ---- writing --------------------------------------------------------------------------------------------- */

struct writer {
  lua_State *L;
  struct pry_buffer *out;
  const struct pry_decision *decision; /* NULL: secrets are refused */
  const char **missing;
  char *complaint;
  size_t size;
  unsigned depth;
};

static bool write_value(struct writer *writer, int index);

static bool complain(struct writer *writer, const char *text, const char *detail)
{
  snprintf(writer->complaint, writer->size, "%s%s", text, detail);
  return false;
}

static bool put(struct writer *writer, const char *text, size_t size)
{
  pry_script_charge(writer->L, 1);
  return pry_buffer_append(writer->out, text, size) || complain(writer, PRY_LUA_JSON_TOO_LONG, "");
}

static bool write_text(struct writer *writer, struct pry_slice text)
{
  pry_script_charge_bytes(writer->L, text.size * PRY_LUA_BYTE_COST);
  return put(writer, "\"", 1) &&
         (pry_buffer_append_json(writer->out, text) || complain(writer, PRY_LUA_JSON_TOO_LONG, "")) &&
         put(writer, "\"", 1);
}

static bool write_number(struct writer *writer, int index)
{
  char text[64];
  int length;
  if (lua_isinteger(writer->L, index)) {
    length = snprintf(text, sizeof text, "%lld", (long long)lua_tointeger(writer->L, index));
    return put(writer, text, (size_t)length);
  }
  double number = lua_tonumber(writer->L, index);
  if (!isfinite(number))
    return complain(writer, "JSON has no infinite numbers and no NaN", "");
  length = snprintf(text, sizeof text, "%.15g", number);
  if (strtod(text, NULL) != number)
    length = snprintf(text, sizeof text, "%.17g", number);
  for (int i = 0; i < length; i++) /* a host program's locale may have another decimal point */
    if (!strchr("+-0123456789e", text[i]))
      text[i] = '.';
  return put(writer, text, (size_t)length);
}

static bool write_secret(struct writer *writer, int index)
{
  struct pry_slice value;
  if (!pry_lua_is_secret(writer->L, index))
    return complain(writer, "JSON cannot hold a ", luaL_typename(writer->L, index));
  if (!writer->decision)
    return complain(writer, "a secret may stand in http.request only", "");
  if (!pry_lua_secret_value(writer->L, index, writer->decision, &value, writer->missing))
    return complain(writer, *writer->missing, "");
  return write_text(writer, value);
}

/* A list is a table whose keys are 1..n, or one marked with json.array. */
static bool is_array(lua_State *L, int index, lua_Unsigned *count)
{
  *count = lua_rawlen(L, index);
  if (lua_getmetatable(L, index)) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ARRAY_KEY);
    bool marked = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (marked)
      return true;
  }
  return *count > 0;
}

static bool is_sequence(lua_State *L, int index, lua_Unsigned count)
{
  lua_Unsigned members = 0;
  pry_script_charge(L, count);
  lua_pushnil(L);
  while (lua_next(L, index)) {
    lua_pop(L, 1);
    lua_Integer key = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
    if (key < 1 || (lua_Unsigned)key > count) {
      lua_pop(L, 1);
      return false;
    }
    members++;
  }
  return members == count;
}

static bool write_array(struct writer *writer, int index, lua_Unsigned count)
{
  lua_State *L = writer->L;
  if (!is_sequence(L, index, count))
    return complain(writer, "a table has both a list and named fields, or a list with gaps", "");
  if (!put(writer, "[", 1))
    return false;
  for (lua_Unsigned i = 1; i <= count; i++) {
    if (i > 1 && !put(writer, ",", 1))
      return false;
    lua_rawgeti(L, index, (lua_Integer)i);
    bool written = write_value(writer, lua_gettop(L));
    lua_pop(L, 1);
    if (!written)
      return false;
  }
  return put(writer, "]", 1);
}

static int compare_keys(const void *left, const void *right)
{
  const struct pry_slice *a = left, *b = right;
  int order = memcmp(a->data, b->data, a->size < b->size ? a->size : b->size);
  return order ? order : (a->size > b->size) - (a->size < b->size);
}

static void charge_sort(lua_State *L, size_t count, size_t bytes)
{
  size_t depth = 1;
  while (count >> depth)
    depth++;
  pry_script_charge(L, depth * (count + bytes / PRY_SCRIPT_BYTES_PER_INSTRUCTION));
}

/* Keys in bytewise order: what a script writes must not depend on where its tables lie in memory. The slices point at
 * strings that the table itself keeps alive. */
static bool sorted_keys(struct writer *writer, int index, struct pry_slice **keys, size_t *count)
{
  lua_State *L = writer->L;
  size_t bytes = 0;
  *count = 0;
  lua_pushnil(L);
  while (lua_next(L, index)) {
    lua_pop(L, 1);
    if (lua_type(L, -1) != LUA_TSTRING)
      return complain(writer, "a JSON object needs names as keys, got a ", luaL_typename(L, -1));
    ++*count;
    bytes += lua_rawlen(L, -1);
  }
  charge_sort(L, *count, bytes);
  *keys = lua_newuserdatauv(L, (*count ? *count : 1) * sizeof **keys, 0);
  size_t i = 0;
  lua_pushnil(L);
  while (lua_next(L, index)) {
    lua_pop(L, 1);
    (*keys)[i].data = lua_tolstring(L, -1, &(*keys)[i].size);
    i++;
  }
  qsort(*keys, *count, sizeof **keys, compare_keys);
  return true;
}

static bool write_object(struct writer *writer, int index)
{
  lua_State *L = writer->L;
  struct pry_slice *keys = NULL;
  size_t count = 0;
  if (!sorted_keys(writer, index, &keys, &count) || !put(writer, "{", 1))
    return false;
  for (size_t i = 0; i < count; i++) {
    if ((i && !put(writer, ",", 1)) || !write_text(writer, keys[i]) || !put(writer, ":", 1))
      return false;
    lua_pushlstring(L, keys[i].data, keys[i].size);
    lua_rawget(L, index);
    bool written = write_value(writer, lua_gettop(L));
    lua_pop(L, 1);
    if (!written)
      return false;
  }
  lua_pop(L, 1);
  return put(writer, "}", 1);
}

static bool write_table(struct writer *writer, int index)
{
  if (++writer->depth > PRY_LUA_JSON_DEPTH)
    return complain(writer, "nested more than 32 deep, or a table that holds itself", "");
  lua_Unsigned count;
  pry_freeze_contents(writer->L, index);
  index = lua_gettop(writer->L);
  bool written = is_array(writer->L, index, &count) ? write_array(writer, index, count) : write_object(writer, index);
  lua_settop(writer->L, index - 1);
  writer->depth--;
  return written;
}

static bool is_null(lua_State *L, int index)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &NULL_KEY);
  bool null = lua_rawequal(L, -1, index);
  lua_pop(L, 1);
  return null;
}

bool pry_lua_json_is_null(lua_State *L, int index)
{
  return is_null(L, lua_absindex(L, index));
}

bool pry_lua_json_is_list(lua_State *L, int index)
{
  lua_Unsigned count;
  int top = lua_gettop(L);
  pry_freeze_contents(L, index);
  bool list = is_array(L, top + 1, &count);
  lua_settop(L, top);
  return list;
}

static bool write_value(struct writer *writer, int index)
{
  lua_State *L = writer->L;
  luaL_checkstack(L, 8, "the value is nested too deeply");
  struct pry_slice text;
  switch (lua_type(L, index)) {
  case LUA_TNIL:
    return put(writer, "null", 4);
  case LUA_TBOOLEAN:
    return lua_toboolean(L, index) ? put(writer, "true", 4) : put(writer, "false", 5);
  case LUA_TNUMBER:
    return write_number(writer, index);
  case LUA_TSTRING:
    text.data = lua_tolstring(L, index, &text.size);
    return write_text(writer, text);
  case LUA_TTABLE:
    return write_table(writer, index);
  default:
    if (pry_lua_is_kept(L, index))
      return pry_lua_kept_append(L, index, writer->out) || complain(writer, PRY_LUA_JSON_TOO_LONG, "");
    return is_null(L, index) ? put(writer, "null", 4) : write_secret(writer, index);
  }
}

bool pry_lua_json_append(lua_State *L, int index, struct pry_buffer *out, const struct pry_decision *decision,
                         const char **missing, char *complaint, size_t size)
{
  struct writer writer = {L, out, decision, missing, complaint, size, 0};
  int top = lua_gettop(L);
  bool written = write_value(&writer, lua_absindex(L, index));
  lua_settop(L, top);
  return written;
}

/* ---- what scripts see ------------------------------------------------------------------------------------ */

int pry_lua_json_decode(lua_State *L, struct pry_slice text)
{
  const char *why;
  return pry_lua_json_push(L, text, &why) ? 1 : pry_lua_failed(L, "invalid_json", why);
}

/* ---@param text string
 * ---@return any value, table? err   nil and why when it is not JSON
 * function json.decode(text) end */
static int decode(lua_State *L)
{
  return pry_lua_json_decode(L, pry_lua_text(L, 1));
}

/* ---@param value any
 * ---@return string text   keys in bytewise order
 * function json.encode(value) end */
static int encode(lua_State *L)
{
  char complaint[128];
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  struct pry_buffer *out = pry_lua_buffer(L, PRY_LUA_JSON_MAX);
  if (!pry_lua_json_append(L, 1, out, NULL, NULL, complaint, sizeof complaint))
    return luaL_error(L, "json.encode: %s", complaint);
  lua_pushlstring(L, out->data, out->size);
  pry_buffer_fini(out);
  return 1;
}

/* ---@param list table   is written as a list even when it is empty
 * ---@return table list   the same
 * function json.array(list) end */
static int array(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_getmetatable(L, 1))
    return luaL_error(L, "json.array: the table has a metatable already");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ARRAY_KEY);
  lua_settop(L, 2);
  lua_setmetatable(L, 1);
  return 1;
}

static int null_text(lua_State *L)
{
  lua_pushliteral(L, "null");
  return 1;
}

static void seal_metatable(lua_State *L, const char *name)
{
  lua_createtable(L, 0, 3);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
}

void pry_lib_json_open(lua_State *L)
{
  static const luaL_Reg functions[] = {{"decode", decode}, {"encode", encode}, {"array", array}, {NULL, NULL}};
  luaL_newlib(L, functions);
  lua_newuserdatauv(L, 0, 0);
  seal_metatable(L, "null");
  lua_pushcfunction(L, null_text);
  lua_setfield(L, -2, "__tostring");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &NULL_KEY);
  lua_setfield(L, -2, "null");
  pry_lib_json_keep_open(L);
  seal_metatable(L, "array");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &ARRAY_KEY);
  pry_sandbox_set_global(L, "json");
}
