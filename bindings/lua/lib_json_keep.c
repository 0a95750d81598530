#include "lib.h"

#include "json.h"

#include <stdio.h>

/*
 * Parts of a body that scripts pass on without holding them: a Lua state has a few MiB, a body with images has more.
 *
 * A long text, or a JSON value that is not looked into. `..` joins texts, kept or not.
 *   ---@class kept
 *   ---@operator concat(string|kept): kept
 *   local kept = {}
 */

static const char KEPT_TYPE[] = "parry.kept";

/* A run of bytes. `plain`: as they are, to be escaped when written; else as they stand between quotes in JSON. */
struct piece {
  struct pry_slice bytes;
  bool plain;
};

/* Pieces of a text, or one raw value. User value 1 keeps alive what the pieces point into. */
struct kept {
  const struct pry_decision *decision;
  uint64_t serial;
  bool is_text;
  size_t count;
  struct piece pieces[];
};

enum { PIECES_MAX = 4096 };

/* ---- making ------------------------------------------------------------------------------------------------ */

static struct kept *push_kept(lua_State *L, bool is_text, size_t count)
{
  const struct pry_decision *decision = pry_decision_of(L);
  if (!decision)
    luaL_error(L, "kept JSON is not available while loading");
  struct kept *kept = lua_newuserdatauv(L, sizeof *kept + count * sizeof *kept->pieces, 1);
  *kept = (struct kept){.decision = decision, .serial = decision->serial, .is_text = is_text, .count = count};
  luaL_setmetatable(L, KEPT_TYPE);
  return kept;
}

void pry_lua_kept_push_text(lua_State *L, struct pry_slice inside)
{
  push_kept(L, true, 1)->pieces[0] = (struct piece){inside, false};
}

void pry_lua_kept_push_value(lua_State *L, struct pry_slice raw)
{
  push_kept(L, false, 1)->pieces[0] = (struct piece){raw, false};
}

bool pry_lua_is_kept(lua_State *L, int index)
{
  return luaL_testudata(L, index, KEPT_TYPE);
}

static struct kept *check_kept(lua_State *L, int index)
{
  struct kept *kept = luaL_checkudata(L, index, KEPT_TYPE);
  if (!kept->decision->active || kept->decision->serial != kept->serial)
    luaL_error(L, "this text has ended with the body that it was in");
  return kept;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static bool append_piece(lua_State *L, const struct piece *piece, struct pry_buffer *out)
{
  pry_script_charge_bytes(L, piece->bytes.size * (piece->plain ? PRY_LUA_BYTE_COST : 1));
  return piece->plain ? pry_buffer_append_json(out, piece->bytes) : pry_buffer_append_slice(out, piece->bytes);
}

bool pry_lua_kept_append(lua_State *L, int index, struct pry_buffer *out)
{
  const struct kept *kept = check_kept(L, index);
  bool ok = !kept->is_text || pry_buffer_append_text(out, "\"");
  for (size_t i = 0; ok && i < kept->count; i++)
    ok = append_piece(L, &kept->pieces[i], out);
  return ok && (!kept->is_text || pry_buffer_append_text(out, "\""));
}

/* ---- texts ------------------------------------------------------------------------------------------------- */

/* Is there a byte at *i, as itself or as \/ \\ or \"? Steps behind it. */
static bool next_plain(const struct piece *piece, size_t *i, char *c)
{
  struct pry_slice bytes = piece->bytes;
  if (*i == bytes.size)
    return false;
  *c = bytes.data[*i];
  if (piece->plain || *c != '\\') {
    *i += 1;
    return true;
  }
  *c = bytes.data[*i + 1];
  if (*c != '/' && *c != '\\' && *c != '"')
    return false;
  *i += 2;
  return true;
}

static struct kept *check_text(lua_State *L, int index)
{
  struct kept *kept = check_kept(L, index);
  if (!kept->is_text)
    luaL_error(L, "this kept value is no text");
  return kept;
}

/* ---@param size integer   at most 1024
 * ---@return string text   the beginning of a text as far as it is plain: before the first \u, \n, \r, \t, \b or \f
 * function kept:head(size) end */
static int head(lua_State *L)
{
  const struct kept *kept = check_text(L, 1);
  lua_Integer size = luaL_checkinteger(L, 2);
  char text[PRY_LUA_KEPT_TEXT], c;
  size_t length = 0, limit = size < 0 ? 0 : size < (lua_Integer)sizeof text ? (size_t)size : sizeof text;
  size_t place = 0;
  while (length < limit && next_plain(&kept->pieces[0], &place, &c))
    text[length++] = c;
  pry_script_charge_bytes(L, PRY_LUA_BYTE_COST * length);
  lua_pushlstring(L, text, length);
  return 1;
}

/* ---@param start integer   a byte that head() can show, counted from 1
 * ---@return kept text   from there on
 * function kept:from(start) end */
static int from(lua_State *L)
{
  const struct kept *kept = check_text(L, 1);
  lua_Integer start = luaL_checkinteger(L, 2);
  size_t place = 0;
  char c;
  luaL_argcheck(L, start >= 1 && start <= PRY_LUA_KEPT_TEXT + 1, 2, "must be within the text's head");
  for (lua_Integer i = 1; i < start; i++)
    luaL_argcheck(L, next_plain(&kept->pieces[0], &place, &c), 2, "must be within the text's head");
  struct kept *rest = push_kept(L, true, kept->count);
  memcpy(rest->pieces, kept->pieces, kept->count * sizeof *kept->pieces);
  rest->pieces[0].bytes.data += place;
  rest->pieces[0].bytes.size -= place;
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

static size_t pieces_of(lua_State *L, int index)
{
  if (pry_lua_is_kept(L, index))
    return check_text(L, index)->count;
  pry_lua_text(L, index);
  return 1;
}

static void copy_pieces(lua_State *L, int index, struct piece *to)
{
  if (!pry_lua_is_kept(L, index)) {
    *to = (struct piece){pry_lua_text(L, index), true}; /* the text lives as long as the joined one */
    return;
  }
  const struct kept *kept = check_text(L, index);
  memcpy(to, kept->pieces, kept->count * sizeof *to);
}

static int join(lua_State *L)
{
  size_t left = pieces_of(L, 1), right = pieces_of(L, 2);
  if (left + right > PIECES_MAX)
    return luaL_error(L, "a kept text is joined of more than %d parts", (int)PIECES_MAX);
  pry_script_charge(L, left + right);
  struct kept *joined = push_kept(L, true, left + right);
  copy_pieces(L, 1, joined->pieces);
  copy_pieces(L, 2, joined->pieces + left);
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, 2);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* ---- JSON in a text, and back -------------------------------------------------------------------------------- */

static const char *kind_of_raw(char first)
{
  switch (first) {
  case '{':
    return "object";
  case '[':
    return "array";
  case '"':
    return "string";
  case 't':
  case 'f':
    return "boolean";
  case 'n':
    return "null";
  default:
    return "number";
  }
}

/* ---@param value any
 * ---@return "string"|"number"|"boolean"|"null"|"object"|"array"|"nil" kind   as JSON sees it, kept values too; a table
 *                                                                            without elements is an object
 * function json.kind(value) end */
static int kind(lua_State *L)
{
  luaL_checkany(L, 1);
  if (pry_lua_is_kept(L, 1)) {
    const struct kept *kept = check_kept(L, 1);
    lua_pushstring(L, kept->is_text ? "string" : kind_of_raw(kept->pieces[0].bytes.data[0]));
    return 1;
  }
  switch (lua_type(L, 1)) {
  case LUA_TTABLE:
    lua_pushstring(L, pry_lua_json_is_list(L, 1) ? "array" : "object");
    return 1;
  default:
    lua_pushstring(L, pry_lua_json_is_null(L, 1) ? "null" : luaL_typename(L, 1));
    return 1;
  }
}

/* The text of a value in a buffer, which is pushed. */
static struct pry_buffer *push_encoded(lua_State *L, int index)
{
  char complaint[128];
  struct pry_buffer *text = pry_lua_buffer(L, 0);
  if (!pry_lua_json_append(L, index, text, NULL, NULL, complaint, sizeof complaint))
    luaL_error(L, "json.quote: %s", complaint);
  return text;
}

/* ---@param value any
 * ---@return string|kept text   the value's JSON, as a text: what `arguments` of a tool call hold
 * function json.quote(value) end */
static int quote(lua_State *L)
{
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  struct pry_slice bytes;
  if (pry_lua_is_kept(L, 1) && !check_kept(L, 1)->is_text)
    bytes = check_kept(L, 1)->pieces[0].bytes;
  else
    bytes = pry_buffer_slice(push_encoded(L, 1));
  if (bytes.size <= PRY_LUA_KEPT_TEXT) {
    lua_pushlstring(L, bytes.data, bytes.size);
    return 1;
  }
  int holder = lua_gettop(L);
  push_kept(L, true, 1)->pieces[0] = (struct piece){bytes, true};
  lua_pushvalue(L, holder);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

static bool append_decoded(lua_State *L, const struct piece *piece, struct pry_buffer *out)
{
  pry_script_charge_bytes(L, piece->bytes.size * PRY_LUA_BYTE_COST);
  if (piece->plain)
    return pry_buffer_append_slice(out, piece->bytes);
  /* With the quotes that stand around it, or would stand there: pry_json_string() reads whole strings. */
  struct pry_buffer *quoted = pry_lua_buffer(L, 0);
  bool ok = pry_buffer_append_text(quoted, "\"") && pry_buffer_append_slice(quoted, piece->bytes) &&
            pry_buffer_append_text(quoted, "\"") && pry_json_string(pry_buffer_slice(quoted), out);
  pry_buffer_fini(quoted);
  lua_pop(L, 1);
  return ok;
}

/* ---@param text string|kept   that holds JSON
 * ---@return kept? value, string? kind   the value, not looked into; nil when the text is not JSON
 * function json.unquote(text) end */
static int unquote(lua_State *L)
{
  struct pry_json_value value;
  lua_settop(L, 1);
  struct pry_buffer *text = pry_lua_buffer(L, 0);
  bool ok = true;
  if (pry_lua_is_kept(L, 1)) {
    const struct kept *kept = check_text(L, 1);
    for (size_t i = 0; ok && i < kept->count; i++)
      ok = append_decoded(L, &kept->pieces[i], text);
  } else {
    ok = append_decoded(L, &(struct piece){pry_lua_text(L, 1), true}, text);
  }
  if (!ok)
    return luaL_error(L, "not enough memory");
  if (pry_json_parse(pry_buffer_slice(text), &value) != PRY_JSON_OK)
    return 0;
  pry_lua_kept_push_value(L, value.raw);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, 1);
  lua_pushstring(L, kind_of_raw(value.raw.data[0]));
  return 2;
}

void pry_lib_json_keep_open(lua_State *L)
{
  static const luaL_Reg functions[] = {{"kind", kind}, {"quote", quote}, {"unquote", unquote}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"head", head}, {"from", from}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, KEPT_TYPE);
  lua_pushcfunction(L, join);
  lua_setfield(L, -2, "__concat");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}
