/* call:find and call:json with texts cut, over any body that is JSON: what is found is what a second reader, made of other
 * parts, finds; no text is longer than it was cut to, and none ends within a character. */
#include "fuzz.h"

#include "lib.h"
#include "script.h"

#include "json.h"

enum { MOST = 8, CUT = 256, FOUND_MAX_SIZE = 8 * 1024 + 64 };

static const char *const names[] = {"url", "image_url", "file", "\xC3\xA9"};

/* ---- the second reader ----------------------------------------------------------------------------------- */

static bool is_name(struct pry_slice key)
{
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (pry_json_equals(key, pry_slice_of(names[i])))
      return true;
  return false;
}

static size_t count_texts(struct pry_json_value value, bool wanted, unsigned depth)
{
  struct pry_json_iterator iterator;
  struct pry_json_value inner;
  struct pry_slice key;
  size_t count = 0;
  if (value.type == PRY_JSON_STRING)
    return wanted;
  if (value.type != PRY_JSON_OBJECT && value.type != PRY_JSON_ARRAY)
    return 0;
  pry_json_iterate(&iterator, value.raw);
  while (pry_json_next(&iterator, &key, &inner)) {
    bool member = value.type == PRY_JSON_OBJECT;
    if (depth == 0 && member && pry_json_equals(key, PRY_SLICE("tools")))
      continue;
    bool named = member ? is_name(key) || (wanted && pry_json_equals(key, PRY_SLICE("url"))) : wanted;
    count += count_texts(inner, named, depth + 1);
  }
  return count;
}

/* ---- what Lua gets --------------------------------------------------------------------------------------- */

static bool is_utf8(struct pry_slice text)
{
  struct pry_buffer escaped;
  pry_buffer_init(&escaped, 0);
  REQUIRE(pry_buffer_append_json(&escaped, text));
  bool whole = !escaped.size || !memmem(escaped.data, escaped.size, "\xEF\xBF\xBD", 3);
  pry_buffer_fini(&escaped);
  return whole;
}

static void check_text(lua_State *L, bool whole, size_t most)
{
  struct pry_slice text = pry_lua_text(L, -1);
  REQUIRE(text.size <= most);
  REQUIRE(!whole || is_utf8(text));
}

/* Of what was decoded, at the top of the stack. */
static void check_cut(lua_State *L, bool whole)
{
  REQUIRE(lua_checkstack(L, 8));
  if (lua_type(L, -1) == LUA_TSTRING)
    check_text(L, whole, CUT + sizeof "...[18446744073709551615 bytes]");
  if (lua_type(L, -1) != LUA_TTABLE)
    return;
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    check_cut(L, whole);
    lua_pop(L, 1);
  }
}

static int look(lua_State *L)
{
  const struct pry_slice *body = lua_touserdata(L, 1);
  struct pry_json_value value;
  const char *why = NULL;
  REQUIRE(pry_json_parse(*body, &value) == PRY_JSON_OK);
  bool whole = is_utf8(*body) && !memmem(body->data, body->size, "\\u", 2); /* a lone surrogate is replaced */
  REQUIRE(pry_lua_json_push_cut(L, *body, CUT, true, &why) && !why);
  check_cut(L, whole);
  lua_settop(L, 1);
  lua_createtable(L, (int)(sizeof names / sizeof *names), 0);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    lua_pushstring(L, names[i]);
    lua_rawseti(L, 2, (lua_Integer)i + 1);
  }
  lua_pushinteger(L, MOST);
  REQUIRE(pry_lua_call_find(L, *body, NULL) == 1 && lua_type(L, -1) == LUA_TTABLE);
  size_t expected = count_texts(value, false, 0);
  size_t found = lua_rawlen(L, -1);
  REQUIRE(found == (expected < MOST + 1 ? expected : MOST + 1));
  for (size_t i = 1; i <= found; i++) {
    lua_rawgeti(L, -1, (lua_Integer)i);
    REQUIRE(lua_getfield(L, -1, "value") == LUA_TSTRING);
    check_text(L, whole, FOUND_MAX_SIZE);
    lua_pop(L, 1);
    REQUIRE(lua_getfield(L, -1, "path") == LUA_TSTRING && pry_lua_text(L, -1).size < 512);
    lua_pop(L, 2);
  }
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  static struct pry_script *script;
  struct pry_slice body = fuzz_copy((struct pry_slice){(const char *)data, size});
  if (!script)
    REQUIRE(script = pry_script_new(NULL, NULL));
  if (size <= 64 * 1024 && pry_json_parse(body, NULL) == PRY_JSON_OK) {
    lua_State *L = script->L;
    lua_pushcfunction(L, look);
    lua_pushlightuserdata(L, &body);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
      fprintf(stderr, "%s\n", lua_tostring(L, -1));
      abort();
    }
    lua_gc(L, LUA_GCCOLLECT);
  }
  fuzz_release(body);
  return 0;
}
