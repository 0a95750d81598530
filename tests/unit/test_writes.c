/* writes.h: a function's upvalues that it, or a function made in it, can change. */
#include "lib.h"
#include "lua_fixture.h"
#include "writes.h"

struct function {
  const char *text; /* of a file that returns the function */
  char written[64]; /* names of the upvalues that it can write, each with a space behind it */
};

static int look(lua_State *L)
{
  struct function *function = lua_touserdata(L, 1);
  bool written[PRY_UPVALUES_MAX];
  pry_sandbox_load(L, "t.lua", pry_slice_of(function->text), 0);
  lua_call(L, 0, 1);
  pry_upvalue_writes(L, -1, written);
  const char *name;
  for (int i = 1; (name = lua_getupvalue(L, 2, i)) != NULL; i++, lua_pop(L, 1))
    if (written[i - 1])
      snprintf(function->written + strlen(function->written), sizeof function->written - strlen(function->written),
               "%s ", name);
  return 0;
}

static void expect_writes(const char *text, const char *names)
{
  struct pry_script *script = pry_script_new(NULL, NULL);
  struct function function = {text, ""};
  struct pry_run run;
  assert_non_null(script);
  pry_run_init(&run, script, 1);
  run.wall = -1;
  assert_int_equal(pry_door_call(script, look, &function, &run), PRY_DOOR_OK);
  assert_string_equal(function.written, names);
  pry_script_free(script);
}

static void test_reading_is_no_writing(void **state)
{
  (void)state;
  expect_writes("local a, t = 1, {} return function(b) local c = a; c = c + b; t.x = c; return t, string.len('x') end",
                "");
  expect_writes("local a = 1 return function(b) for i = 1, 3 do b = b + i end return function() b = a end end", "");
}

static void test_writing_is_seen(void **state)
{
  (void)state;
  expect_writes("local a, b = 1, 2 return function() b = a end", "b ");
  expect_writes("local a, b, c = 1, 2, 3 return function() c = b; a = c; b = nil end", "c b a ");
  expect_writes("local n = 0 return function() n = n + 1 return n end", "n ");
  expect_writes("local f = 0 return function() function f() end end", "f ");
}

static void test_writing_from_inner_functions_is_seen(void **state)
{
  (void)state;
  expect_writes("local a, b = 1, 2 return function() local c = b return function() return function() a = c end end end",
                "a ");
  /* The same number in each function, but another variable. */
  expect_writes("local a = 1 return function() local x = a return function() local y = x; x = 2; return y end end", "");
}

/* Constants of all kinds and long ones, many locals, nested functions: all of it is to be stepped over. */
static void test_what_stands_between_is_skipped(void **state)
{
  char text[3000], filling[1200];
  (void)state;
  memset(filling, 'x', sizeof filling - 1);
  filling[sizeof filling - 1] = '\0';
  snprintf(text, sizeof text,
           "local a = 1 return function(...) local n, t, f, i, d = nil, true, false, 1 << 60, 1.5e300\n"
           "do if n == 'short' or d == 0x1p-70 or i == 7777777777 then goto out end\n"
           "local g <const> = function() return '%s' end\n"
           "do local h <close> = nil end end ::out:: for _, v in ipairs({...}) do a = v end end",
           filling);
  expect_writes(text, "a ");
}

static int look_at_c(lua_State *L)
{
  bool written[PRY_UPVALUES_MAX];
  lua_pushinteger(L, 1);
  lua_pushcclosure(L, look, 1);
  pry_upvalue_writes(L, -1, written);
  assert_true(written[0]);
  return 0;
}

static void test_c_functions_may_write_all(void **state)
{
  (void)state;
  struct pry_script *script = pry_script_new(NULL, NULL);
  struct pry_run run;
  assert_non_null(script);
  pry_run_init(&run, script, 1);
  assert_int_equal(pry_door_call(script, look_at_c, NULL, &run), PRY_DOOR_OK);
  pry_script_free(script);
}

static int look_at_a_constructor(lua_State *L)
{
  bool written[PRY_UPVALUES_MAX];
  pry_lib_verdict_open(L);
  pry_sandbox_load(L, "t.lua", PRY_SLICE("return retry"), 0);
  lua_call(L, 0, 1);
  assert_true(lua_iscfunction(L, -1));
  assert_non_null(lua_getupvalue(L, -1, 1));
  lua_pop(L, 1);
  pry_upvalue_writes(L, -1, written);
  assert_false(written[0]);
  return 0;
}

/* A policy that keeps one in a local would be checked after every run; that cost a retry 1,400 instructions. */
static void test_constructors_of_verdicts_write_none(void **state)
{
  (void)state;
  struct pry_script *script = pry_script_new(NULL, NULL);
  struct pry_run run;
  assert_non_null(script);
  pry_run_init(&run, script, 1);
  assert_int_equal(pry_door_call(script, look_at_a_constructor, NULL, &run), PRY_DOOR_OK);
  pry_script_free(script);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_reading_is_no_writing),
      cmocka_unit_test(test_writing_is_seen),
      cmocka_unit_test(test_writing_from_inner_functions_is_seen),
      cmocka_unit_test(test_what_stands_between_is_skipped),
      cmocka_unit_test(test_c_functions_may_write_all),
      cmocka_unit_test(test_constructors_of_verdicts_write_none),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
