/* json.decode and json.encode: against lua-cjson where the two should agree, and at their limits. */
#include "lua_rig.h"

#include "door.h"
#include "sandbox.h"

#include <lualib.h>

int luaopen_cjson(lua_State *L);

/* The shape of a value as text, the same for both readers: keys sorted, numbers with 17 digits, nulls in objects left
 * out. Upvalue-free Lua, run in both states. */
static const char SHAPE[] = "local decode, null, text = ...\n"
                            "local function shape(value)\n"
                            "  if value == null then return 'null' end\n"
                            "  if type(value) == 'number' then return ('%.17g'):format(value) end\n"
                            "  if type(value) == 'string' then return ('%q'):format(value) end\n"
                            "  if type(value) ~= 'table' then return tostring(value) end\n"
                            "  local parts = {}\n"
                            "  for k, v in pairs(value) do\n"
                            "    if v ~= null or #value > 0 then parts[#parts + 1] = shape(k) .. '=' .. shape(v) end\n"
                            "  end\n"
                            "  table.sort(parts)\n"
                            "  return '{' .. table.concat(parts, ',') .. '}'\n"
                            "end\n"
                            "local ok, value = pcall(decode, text)\n"
                            "return ok and value ~= nil and shape(value) or 'refused'\n";

struct comparison {
  const char *text;
  char shape[1024];
};

static void take_shape(lua_State *L, struct comparison *comparison)
{
  if (lua_type(L, -1) == LUA_TSTRING)
    snprintf(comparison->shape, sizeof comparison->shape, "%s", lua_tostring(L, -1));
}

/* In a state of ours, inside the door. */
static int shape_of_ours(lua_State *L)
{
  struct comparison *comparison = lua_touserdata(L, 1);
  pry_sandbox_load(L, "shape.lua", PRY_SLICE(SHAPE), 0);
  pry_sandbox_get_global(L, "json");
  lua_getfield(L, -1, "decode");
  lua_getfield(L, -2, "null");
  lua_remove(L, -3);
  lua_pushstring(L, comparison->text);
  lua_call(L, 3, 1);
  take_shape(L, comparison);
  return 0;
}

static void shape_by_ours(struct comparison *comparison)
{
  struct rig *rig = rig_new(ON_ERROR(""));
  struct pry_script *script = (struct pry_script *)rig->engine->control->state;
  struct pry_run run;
  pry_run_init(&run, script, 1);
  assert_int_equal(pry_door_call(script, shape_of_ours, comparison, &run), PRY_DOOR_OK);
  rig_free(rig);
}

static void shape_by_cjson(struct comparison *comparison)
{
  lua_State *L = luaL_newstate();
  assert_non_null(L);
  luaL_openlibs(L);
  assert_int_equal(luaL_loadstring(L, SHAPE), LUA_OK);
  luaL_requiref(L, "cjson", luaopen_cjson, 0);
  lua_getfield(L, -1, "decode");
  lua_getfield(L, -2, "null");
  lua_remove(L, -3);
  lua_pushstring(L, comparison->text);
  assert_int_equal(lua_pcall(L, 3, 1, 0), LUA_OK);
  take_shape(L, comparison);
  lua_close(L);
}

static void test_agrees_with_cjson(void **unused)
{
  (void)unused;
  static const char *const texts[] = {
      "{}",
      "[]",
      "[[]]",
      "[{}]",
      "[0]",
      "[1]",
      "[-1]",
      "[1.5]",
      "[1e3]",
      "[-2.5E-3]",
      "[123456789012]",
      "[\"\"]",
      "[\"a\"]",
      "[\"\\u0041\\n\\t\\\"\\\\\\/\\b\\f\\r\"]",
      "[\"\\u20ac\"]",
      "[\"\\ud83d\\ude00\"]",
      "[\"\xE2\x82\xAC\"]",
      "[true,false]",
      " [ 1 , 2 , [ 3 ] ] ",
      "{\"a\":{\"b\":{\"c\":[1,2,{\"d\":\"e\"}]}}}",
      "{\"a\":1,\"a\":2}",
      "\t{\n\"k\" : [ true , false ] }\r\n",
      "{\"\":1}",
      "[1.0,2.0]",
      "[1e308,1e-308]",
      "[null,1]",
      "{\"a\":null,\"b\":[null]}",
      "[0.1,0.30000000000000004,5e-324]",
      "",
      "{",
      "[1,]",
      "{\"a\":}",
      "[1 2]",
      "nul",
      "[\"\\x\"]",
      "[1]2",
      "{1:2}",
      "\"cut",
      "[\"\\ud83d\"]x",
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct comparison ours = {.text = texts[i]}, theirs = {.text = texts[i]};
    shape_by_ours(&ours);
    shape_by_cjson(&theirs);
    if (strcmp(ours.shape, theirs.shape) != 0)
      fail_msg("%s: %s, cjson: %s", texts[i], ours.shape, theirs.shape);
  }
}

static void test_decode(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR(
      "local d = json.decode\n"
      "local v = d('{\"a\":[1,2.5,\"x\\\\u20ac\",true,false,null,{}],\"b\":null,\"c\":{\"d\":-0.5e1}}')\n"
      "assert(#v.a == 7 and v.a[1] == 1 and math.type(v.a[1]) == 'integer' and v.a[2] == 2.5)\n"
      "assert(v.a[3] == 'x\\u{20ac}' and v.a[4] == true and v.a[5] == false and v.a[6] == json.null)\n"
      "assert(type(v.a[7]) == 'table' and v.b == nil and v.c.d == -5)\n"
      "assert(tostring(json.null) == 'null')\n"
      "for _, bad in ipairs { '', '{', '[1,]', '{\"a\"}', '01', 'nul', '\"\\\\x\"', '[1] 2', \"{'a':1}\", 'NaN' } do\n"
      "  local value, err = d(bad)\n"
      "  assert(value == nil and err.category == 'invalid_json' and err.message, bad)\n"
      "end\n"
      "assert(d(('['):rep(100)) == nil and d(('['):rep(65) .. (']'):rep(65)) == nil)\n"
      "assert(d(('['):rep(60) .. (']'):rep(60)))\n"
      "assert(d('9223372036854775807') == math.maxinteger and d('9223372036854775808') == 2^63)\n"
      "assert(not pcall(d, nil))"));
  rig_ok(rig, PRY_ON_ERROR);
  rig_free(rig);
}

/* A prompt longer than any string of the script is told, not paid for with the handler. */
static void test_long_text(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new("return policy { name = 'p', on_error = function(self, call)\n"
                            "local value, err = call:json()\n"
                            "assert(value == nil and err.message:find('longer than scripts can hold', 1, true), err)\n"
                            "end }\n");
  size_t size = 900 * 1024;
  char *body = malloc(size + 1);
  assert_non_null(body);
  memset(body, 'x', size);
  memcpy(body, "{\"a\":\"", 6);
  memcpy(body + size - 2, "\"}", 2);
  rig->view.body = (struct pry_slice){body, size};
  rig_ok(rig, PRY_ON_ERROR);
  rig_free(rig);
  free(body);
}

static void test_encode(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_new("local FROZEN = { z = 1, list = { 1, 2 } }\n"
              "return policy { name = 'p', on_error = function()\n"
              "local e = json.encode\n"
              "assert(e { b = 1, a = 'x', [\"a b\"] = true } == '{\"a\":\"x\",\"a b\":true,\"b\":1}')\n"
              "assert(e { 1, { 2 }, 'x', json.null } == '[1,[2],\"x\",null]')\n"
              "assert(e {} == '{}' and e(json.array {}) == '[]' and e(json.decode('[]')) == '[]')\n"
              "assert(e(0.1) == '0.1' and e(1/3) == '0.33333333333333331' and e(2^53) == '9007199254740992')\n"
              "assert(e('a\"\\n\\0') == '\"a\\\\\"\\\\n\\\\u0000\"' and e('\\xff') == '\"\\u{fffd}\"')\n"
              "assert(e(nil) == 'null' and e(FROZEN) == '{\"list\":[1,2],\"z\":1}')\n"
              "local function refused(value, why)\n"
              "  local ok, said = pcall(e, value)\n"
              "  assert(not ok and said:find(why, 1, true), said)\n"
              "end\n"
              "refused(0/0, 'NaN') refused(1/0, 'infinite') refused(e, 'function')\n"
              "refused({ 1, nil, 3, x = 1 }, 'both') refused({ [true] = 1 }, 'names as keys')\n"
              "refused({ [1.5] = 1 }, 'names as keys')\n"
              "local loop = {} loop.loop = loop refused(loop, 'nested')\n"
              "refused(('\\0'):rep(200000), 'too long')\n"
              "end }\n");
  rig_ok(rig, PRY_ON_ERROR);
  rig_free(rig);
}

/* What lua-cjson loses 133 MB over: decodes until the cap, again and again. Each run ends as out of memory or over its
 * budget, and the next one works. */
static void test_decode_loop_at_the_cap(void **unused)
{
  (void)unused;
  struct pry_script_limits limits = {.memory = 2 * 1024 * 1024, .wall = -1};
  struct rig *rig = rig_new_set(ON_ERROR("local text = '[' .. ('{\"a\":\"b\\\\n\"},'):rep(3000) .. '0]'\n"
                                         "if err.status == 503 then\n"
                                         "  local kept = {}\n"
                                         "  while true do kept[#kept + 1] = json.decode(text) end\n"
                                         "end\n"
                                         "return retry { after = #json.decode(text) }"),
                                NULL, NULL, &limits);
  for (int i = 0; i < 20; i++) {
    rig->failure.status = 503;
    assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
    assert_true(rig->ask.result == PRY_RUN_NO_MEMORY || rig->ask.result == PRY_RUN_OVER_BUDGET);
    rig->failure.status = 500;
    rig_ok(rig, PRY_ON_ERROR);
    assert_float_equal(rig->ask.verdict.after, 3001, 0);
  }
  rig_free(rig);
}

static void test_decoding_is_charged(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new(ON_ERROR("local text = '\"' .. ('x'):rep(400000) .. '\"'\n"
                                     "for i = 1, 1000 do json.decode(text) end"));
  assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
  assert_int_equal(rig->ask.result, PRY_RUN_OVER_BUDGET);
  rig_free(rig);
}

/* What fails at its first value has already sorted, or walked, all of its table. */
static void test_failed_encoding_is_charged(void **unused)
{
  (void)unused;
  static const char *const tables[] = {"t['k' .. i] = 1", "t[i] = pcall"};
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
    char text[256];
    snprintf(text, sizeof text,
             ON_ERROR("local t = {} for i = 1, 20000 do %s end t.a = not t[1] and pcall or nil\n"
                      "for i = 1, 200 do pcall(json.encode, t) end"),
             tables[i]);
    struct rig *rig = rig_new(text);
    assert_int_equal(rig_ask(rig, PRY_ON_ERROR), PRY_ASK_FAULT);
    assert_int_equal(rig->ask.result, PRY_RUN_OVER_BUDGET);
    rig_free(rig);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_agrees_with_cjson),
      cmocka_unit_test(test_decode),
      cmocka_unit_test(test_long_text),
      cmocka_unit_test(test_encode),
      cmocka_unit_test(test_decode_loop_at_the_cap),
      cmocka_unit_test(test_decoding_is_charged),
      cmocka_unit_test(test_failed_encoding_is_charged),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
