/* What hostile and careless scripts can do, and that it ends. */
#include "lua_fixture.h"

#include <time.h>

#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS_FEATURE(address_sanitizer) ||                 \
    HAS_FEATURE(thread_sanitizer) || HAS_FEATURE(memory_sanitizer)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { BUDGET = 1000000 };

static int new_script(void **state)
{
  char fault[PRY_FAULT_MAX];
  const struct pry_script_limits limits = {.wall = -1};

  *state = pry_script_new(&limits, fault);
  if (!*state)
    fail_msg("%s", fault);
  return 0;
}

static int free_script(void **state)
{
  pry_script_free(*state);
  return 0;
}

static double seconds(void)
{
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- Attacks ----------------------------------------------------------------------------------------------------- */

enum ending { STOPPED, NO_MEMORY, RAISES, FINE, KILLED };

struct attack {
  const char *name, *text;
  enum ending ending; /* STOPPED: over budget; KILLED: that or out of memory */
};

#define LOOP_PCALL(call) "while true do pcall(function() " call " end) end"

static const struct attack attacks[] = {
    {"endless loop", "while true do end", STOPPED},
    {"goto", "::again:: goto again", STOPPED},
    {"integer for", "for i = 1, math.maxinteger do end", STOPPED},
    {"float for", "for i = 1.0, math.huge do end", STOPPED},
    {"repeat", "repeat local x = 1 until false", STOPPED},
    {"loop in pcall in a loop", "while true do pcall(function() while true do end end) end", STOPPED},
    {"nested pcall", "local function f() pcall(f) f() end while true do pcall(f) end", KILLED},
    {"pcall of pcall", "while true do pcall(pcall, pcall, pcall, pcall, error) end", STOPPED},
    {"pcall of error", "while true do pcall(error) end", STOPPED},
    {"pattern, 4 loops", "local s = string.rep('a', 300) return s:find('.-.-.-b')", STOPPED},
    {"pattern, long text", "local s = string.rep('a', 50000) return s:find('.-b')", STOPPED},
    {"pattern in pcall", "local s = string.rep('a', 600) while true do pcall(string.find, s, '.-.-.-b') end", STOPPED},
    {"pattern, balance", "local s = string.rep('(', 200000) return s:find('%b()')", STOPPED},
    {"pattern, greedy", "local s = string.rep('a', 5000) return s:match('.*.*.*b')", STOPPED},
    {"pattern, set", "local s = string.rep('a', 100000) return s:find('[' .. string.rep('b', 1000) .. ']')", STOPPED},
    {"pattern, back reference", "local s = string.rep('a', 100000) return s:find('(.*)%1b')", STOPPED},
    {"pattern, frontier", "local s = string.rep('a', 400000) while true do s:find('%f[b]') end", STOPPED},
    {"gmatch", "local s = string.rep('a', 300) for w in s:gmatch('.-.-.-b') do end", STOPPED},
    {"gsub", "local s = string.rep('a', 300) s:gsub('.-.-.-b', '')", STOPPED},
    {"gsub with a loop", "(('a'):rep(10)):gsub('a', function() while true do end end)", STOPPED},
    {"gsub with pcall loops",
     "while true do pcall(string.gsub, 'aaaa', 'a', function() while true do pcall(error) end end) end", STOPPED},
    {"gsub grows", "local s = ('a'):rep(500000) local r = ('b'):rep(500000) s:gsub('a', r)", NO_MEMORY},
    {"plain find", "local s, t = ('a'):rep(400000), ('a'):rep(200000) .. 'b' while true do s:find(t, 1, true) end",
     STOPPED},
    {"rep of nothing", "return #string.rep('', 1 << 62)", FINE},
    {"rep, huge", "string.rep('x', 1 << 30)", RAISES},
    {"rep, overflow", "string.rep('xxxxxxxx', 1 << 62)", RAISES},
    {"rep, huge, in pcall", "while true do pcall(string.rep, 'x', 1 << 30) end", STOPPED},
    {"rep in a loop", "while true do local s = ('x'):rep(400000) end", STOPPED},
    {"upper in a loop", "local s = ('x'):rep(400000) while true do s:upper() s:reverse() s:sub(2) end", STOPPED},
    {"table.move", "table.move({}, 1, 1 << 62, 2)", STOPPED},
    {"table.move onto itself", "local t = {1} while true do table.move(t, 1, 100000, 2) end", STOPPED},
    {"table.insert in front", "local t = {} while true do table.insert(t, 1, 1) end", STOPPED},
    {"table.remove in front",
     "local t = {} for i = 1, 50000 do t[i] = i end while true do table.remove(t, 1) t[#t + 1] = 1 end", STOPPED},
    {"table.concat, huge",
     "local t = setmetatable({}, { __index = function() return '' end, __len = function() return 1 << 60 end })"
     " return table.concat(t)",
     STOPPED},
    {"table.concat, long", "local t, s = {}, ('x'):rep(10000) for i = 1, 1000 do t[i] = s end table.concat(t)",
     NO_MEMORY},
    {"table.unpack, huge", "table.unpack({}, 1, 1 << 60)", RAISES},
    {"table.unpack in a loop", "while true do pcall(table.unpack, {}, 1, 4096) end", STOPPED},
    {"utf8.char of many", "utf8.char(table.unpack({}, 1, 1000000))", RAISES},
    {"utf8.len in a loop", "local s = ('x'):rep(400000) while true do utf8.len(s) end", STOPPED},
    {"utf8.codepoint of many", "local s = ('x'):rep(400000) return utf8.codepoint(s, 1, -1)", RAISES},
    {"string.byte of many", "local s = ('x'):rep(400000) return s:byte(1, -1)", RAISES},
    {"select, many", "local function f(...) while true do select('#', ...) end end f(table.unpack({}, 1, 4000))",
     STOPPED},
    {"growing arguments", "local function f(...) return f(1, 2, 3, 4, 5, 6, 7, 8, ...) end f()", STOPPED},
    {"sort", "local t = {} for i = 1, 100000 do t[i] = -i end table.sort(t)", STOPPED},
    {"sort, comparator loops", "table.sort({ 3, 2, 1 }, function() while true do end end)", STOPPED},
    {"sort, comparator loops in pcall",
     "table.sort({ 3, 2, 1 }, function() while true do pcall(function() while true do end end) end end)", STOPPED},
    {"sort, caught inside", "pcall(table.sort, { 3, 2, 1 }, function() while true do end end) return 1", STOPPED},
    {"sort, inconsistent", "local t = {} for i = 1, 500 do t[i] = i end table.sort(t, function() return true end)",
     FINE},
    {"sort, huge length", "table.sort(setmetatable({}, { __len = function() return 1 << 30 end }))", STOPPED},
    {"concat bomb", "local s = 'x' while true do s = s .. s end", NO_MEMORY},
    {"concat of a long string", "local s = ('x'):rep(400000) while true do local t = s .. 'y' end", STOPPED},
    {"memory", "local t = {} while true do t[#t + 1] = { {} } end", NO_MEMORY},
    {"memory in pcall", "local t = {} while true do pcall(function() while true do t[#t + 1] = { {} } end end) end",
     NO_MEMORY},
    {"memory in a comparator",
     "local t = {} while true do pcall(table.sort, { 2, 1 }, function() while true do t[#t + 1] = {} end end) end",
     NO_MEMORY},
    {"near the cap", "local t = {} for i = 1, 110000 do t[i] = { } end while true do local x = { {} } end", KILLED},
    {"format, width", "string.format('%99999d', 1)", RAISES},
    {"format in a loop", "local s = ('x'):rep(100000) while true do string.format('%s%s', s, s) end", STOPPED},
    {"recursion", "local function f() return 1 + f() end f()", NO_MEMORY},
    {"recursion in pcall", "local function f() pcall(f) return 1 + f() end f()", NO_MEMORY},
    {"tail recursion", "local function f() return f() end f()", STOPPED},
    {"recursion through __index",
     "local t t = setmetatable({}, { __index = function(t, k) return t[k .. 'x'] end }) return t.a", RAISES},
    {"recursion through gsub", "local function f() return ('a'):gsub('a', f) end f()", RAISES},
    {"recursion through sort", "local function f() table.sort({ 1, 2 }, f) end f()", RAISES},
    {"recursion through tostring",
     "local t t = setmetatable({}, { __tostring = function() return tostring(t) end }) tostring(t)", RAISES},
    {"looping __tostring", "tostring(setmetatable({}, { __tostring = function() while true do end end }))", STOPPED},
    {"looping __tostring of an error", "error(setmetatable({}, { __tostring = function() while true do end end }))",
     RAISES},
    {"looping __concat of an error",
     "error(setmetatable({}, { __concat = function() while true do end end, __name = 'x' }))", RAISES},
    {"__name that is no string", "return tostring(setmetatable({}, { __name = {} }))", FINE},
    {"__name that is no string, in a long format",
     "local t = setmetatable({}, { __name = 42 }) "
     "local s = string.format('%s%s' .. ('y'):rep(20000), ('x'):rep(9000), t) "
     "assert(#s == 29005 and s:sub(9001, 9006) == 'tabley')",
     FINE},
    {"looping __index", "local t = setmetatable({}, { __index = function() while true do end end }) return t.x",
     STOPPED},
    {"looping __len in sort", "table.sort(setmetatable({}, { __len = function() while true do end end }))", STOPPED},
    {"looping __eq",
     "local m = { __eq = function() while true do end end } return setmetatable({}, m) == setmetatable({}, m)",
     STOPPED},
    {"looping __lt in sort",
     "local m = { __lt = function() while true do end end } "
     "table.sort { setmetatable({}, m), setmetatable({}, m) }",
     STOPPED},
    {"looping __pairs", "for k in pairs(setmetatable({}, { __pairs = function() while true do end end })) do end",
     STOPPED},
    {"__pairs without end",
     "for k in pairs(setmetatable({}, { __pairs = function() return function() return 1 end end })) do end", STOPPED},
    {"iterator of pairs on a number", "local it = pairs { a = 1 } it(0x4141414141)", RAISES},
    {"iterator of pairs on a text", "local it = pairs { a = 1 } it('text')", RAISES},
    {"iterator of pairs on nothing", "local it = pairs { a = 1 } it()", RAISES},
    {"iterator of a frozen table on a number", "local it = pairs(string) it(0x4141414141)", RAISES},
    {"ipairs without end", "for i in ipairs(setmetatable({}, { __index = function() return 1 end })) do end", STOPPED},
    {"__index to itself", "local t = {} t.__index = t setmetatable(t, t) while true do local x = t.x end", RAISES},
    {"__call chain", "local t = {} setmetatable(t, { __call = t }) t()", RAISES},
    {"__gc", "setmetatable({}, { __gc = function() while true do end end })", RAISES},
    {"__close", "setmetatable({}, { __close = function() while true do end end })", RAISES},
    {"__close of a local", "local x <close> = setmetatable({}, { __close = function() while true do end end })",
     RAISES},
    {"a close variable without __close", "local x <close> = {}", RAISES},
    {"__mode", "setmetatable({}, { __mode = 'k' })", RAISES},
    {"__gc set later", "local m = {} local t = setmetatable({}, m) m.__gc = function() while true do end end return 1",
     FINE},
    {"string metatable", "getmetatable('').__index = nil", RAISES},
    {"string library", "string.rep = nil", RAISES},
    {"globals", "x = 1", RAISES},
    {"globals by _ENV", "_ENV.pairs = nil", RAISES},
    {"tonumber of long texts", "local s = ('1'):rep(400000) while true do tonumber(s) end", STOPPED},
    {"pairs of a large table",
     "local t = {} for i = 1, 20000 do t[i] = i end while true do for k in pairs(t) do break end end", STOPPED},
    {"pairs with growing", "local t = { 1 } for k in pairs(t) do t[k + 1] = 1 end return 1", FINE},
    {"load", "load('return 1')", RAISES},
    {"coroutine", "coroutine.wrap(function() while true do end end)()", RAISES},
    {"xpcall", "xpcall(error, function() while true do end end)", RAISES},
};

/* Single instructions that take long: only the clock sees how much they do. */
static const struct attack slow_instructions[] = {
    {"string equality", "local a, b = ('x'):rep(500000), ('x'):rep(500000) while true do local c = a == b end",
     STOPPED},
    {"string order", "local a, b = ('x'):rep(500000), ('x'):rep(500000) while true do local c = a < b end", STOPPED},
    {"numbers from texts", "local s = ('1'):rep(500000) while true do for i = 1, s do break end end", KILLED},
    {"many arguments",
     "local function g() end local function f(...) while true do g(...) g(...) g(...) end end "
     "local function grow(n, ...) if n == 0 then return f(...) end return grow(n - 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "
     "...) end "
     "grow(10000)",
     KILLED},
    {"hash part that is rebuilt",
     "local t = {} for i = 1, 200000 do t[i] = i end while true do t.a, t.b, t.c = 1, 2, 3 "
     "t.a, t.b, t.c = nil, nil, nil t.d, t.e, t.f, t.g = 1, 2, 3, 4 t.d, t.e, t.f, t.g = nil, nil, nil, nil end",
     STOPPED},
};

static void report(const struct attack *attack, const struct lua_text *text, double took)
{
  fail_msg("%s: outcome %d after %lu instructions and %.3f s: %s", attack->name, (int)text->outcome, text->run.used,
           took, text->run.fault);
}

static bool ended_as(const struct attack *attack, enum pry_door_result outcome)
{
  if (attack->ending == KILLED)
    return outcome == PRY_DOOR_OVER_BUDGET || outcome == PRY_DOOR_NO_MEMORY;
  static const enum pry_door_result expected[] = {PRY_DOOR_OVER_BUDGET, PRY_DOOR_NO_MEMORY, PRY_DOOR_ERROR,
                                                  PRY_DOOR_OK};

  return outcome == expected[attack->ending];
}

static void every_attack_ends(void **state)
{
  struct pry_script *script = *state;
  struct lua_text text;

  for (size_t i = 0; i < COUNT(attacks); i++) {
    double start = seconds();
    lua_text_run(script, &text, attacks[i].text, BUDGET);
    double took = seconds() - start;
    if (!ended_as(&attacks[i], text.outcome) || text.run.used > 2 * BUDGET)
      report(&attacks[i], &text, took);
    if (getenv("PARRY_TEST_TIMES"))
      print_message("%7.1f ms %8lu  %-34s %s\n", took * 1e3, text.run.used, attacks[i].name, text.run.fault);
    /* The state is as good as before. */
    expect_lua(script, "local t = { 3, 1, 2 } table.sort(t) return table.concat(t, ',') .. ('x'):rep(3)", "1,2,3xxx");
  }
}

/* With the wall limit on, each of them ends within twice the limit. */
static double cpu_seconds(void)
{
  struct timespec now;

  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The limit is of the wall clock; what is measured is our own processor time, which is the same on an idle machine
 * and does not count what other processes do on a busy one. */
static void ends_in_time(struct pry_script *script, const struct attack *attack)
{
  const double wall = 0.05; /* the default */
  struct lua_text text = {.text = attack->text};
  struct pry_task_call call = {
      .push = lua_text_push, .user = &text, .watch = LUA_NOREF, .budget = 1000ul * BUDGET, .wall = wall};

  double start = cpu_seconds();
  pry_task_start(script, &call, NULL, NULL);
  double took = cpu_seconds() - start;
  if (getenv("PARRY_TEST_TIMES"))
    print_message("%7.1f ms (cpu) %s\n", took * 1e3, attack->name);
  if (took > 2 * wall)
    fail_msg("%s: took %.3f s with a limit of %.3f s", attack->name, took, wall);
}

static void attacks_end_in_time(void **state)
{
  if (SANITIZED)
    skip();
  for (size_t i = 0; i < COUNT(attacks); i++)
    ends_in_time(*state, &attacks[i]);
  for (size_t i = 0; i < COUNT(slow_instructions); i++)
    ends_in_time(*state, &slow_instructions[i]);
}

/* The same attacks while a file is being loaded: there is no coroutine to yield from. */
static int load_and_call(lua_State *L)
{
  pry_sandbox_load(L, "t.lua", pry_slice_of(lua_touserdata(L, 1)), 0);
  lua_call(L, 0, 0);
  return 0;
}

static void every_attack_ends_while_loading(void **state)
{
  struct pry_script *script = *state;

  for (size_t i = 0; i < COUNT(attacks); i++) {
    struct pry_run run;
    pry_run_init(&run, script, 1);
    run.budget = BUDGET;
    enum pry_door_result outcome = pry_door_call(script, load_and_call, (void *)(uintptr_t)attacks[i].text, &run);
    if (!ended_as(&attacks[i], outcome) || run.used > 2 * BUDGET)
      fail_msg("%s: outcome %d after %lu instructions: %s", attacks[i].name, (int)outcome, run.used, run.fault);
    assert_int_equal(lua_gettop(script->L), 0);
    expect_lua(script, "return 1", "1");
  }
}

static void cost_is_the_same_each_time(void **state)
{
  struct pry_script *script = *state;
  const char *work = "local t = {} for i = 1, 3000 do t[i] = ('k%d'):format(i * 7919 % 3000) end table.sort(t) "
                     "for k, v in pairs(t) do v:find('k(%d+)$') end return #table.concat(t)";
  struct lua_text first, second, third;

  assert_int_equal(lua_text_run(script, &first, work, 0), PRY_DOOR_OK);
  assert_true(first.run.used > 10000);
  lua_text_run(script, &second, "while true do end", 5000);
  assert_int_equal(lua_text_run(script, &second, work, 0), PRY_DOOR_OK);
  assert_int_equal(first.run.used, second.run.used);
  struct pry_script *other = pry_script_new(&(struct pry_script_limits){.wall = -1}, NULL);
  assert_non_null(other);
  assert_int_equal(lua_text_run(other, &third, work, 0), PRY_DOOR_OK);
  assert_int_equal(first.run.used, third.run.used);
  pry_script_free(other);
}

static int stall(lua_State *L)
{
  (void)L;
  for (double end = seconds() + 0.003; seconds() < end;)
    continue;
  return 0;
}

static int set_stall(lua_State *L)
{
  lua_pushcfunction(L, stall);
  pry_sandbox_set_global(L, "stall");
  return 0;
}

/* Nor does it depend on the clock: a run that loses time in the middle of a tick, before C functions that look at the
 * clock, counts what the same run counts without a wall limit. */
static void cost_does_not_depend_on_the_clock(void **state)
{
  struct pry_script *script = *state;
  struct lua_text text = {
      .text = "local s = ('a'):rep(200) for j = 1, 900 do end stall() s:find('.-b') for j = 1, 2200 do end"};
  struct pry_task_call call = {.push = lua_text_push, .user = &text, .watch = LUA_NOREF, .budget = 1000000000ul};
  struct pry_run run;
  unsigned long used[2];

  pry_run_init(&run, script, 1);
  assert_int_equal(pry_door_call(script, set_stall, NULL, &run), PRY_DOOR_OK);
  for (int clocked = 0; clocked < 2; clocked++) {
    call.wall = clocked ? 60 : -1;
    assert_int_equal(pry_task_start(script, &call, &run, NULL), PRY_DOOR_OK);
    used[clocked] = run.used;
  }
  /* A slow tick makes later ticks finer, so what is left of the last one may be counted; never is anything dropped. */
  assert_true(used[1] >= used[0]);
  assert_true(used[1] - used[0] < PRY_SCRIPT_TICK);
}

/* ---- What is there ----------------------------------------------------------------------------------------------- */

static void only_listed_globals_exist(void **state)
{
  static const char *const absent[] = {
      "io",        "os",     "package", "debug", "load",   "loadfile",       "dofile", "loadstring",
      "coroutine", "xpcall", "next",    "print", "rawset", "collectgarbage", "_G",     "warn"};
  static const char *const absent_members[] = {"string.dump", "string.pack", "string.unpack", "math.random",
                                               "math.randomseed"};
  char text[128];

  for (size_t i = 0; i < COUNT(absent); i++) {
    snprintf(text, sizeof(text), "return %s == nil", absent[i]);
    expect_lua(*state, text, "true");
  }
  for (size_t i = 0; i < COUNT(absent_members); i++) {
    snprintf(text, sizeof(text), "return %s == nil", absent_members[i]);
    expect_lua(*state, text, "true");
  }
  expect_lua(
      *state,
      "local n = {} for _, t in ipairs { string, table, math, utf8 } do for k in pairs(t) do n[#n + 1] = k end end "
      "return table.concat(n, ' ')",
      "byte char find format gmatch gsub len lower match rep reverse sub upper "
      "concat insert move pack remove sort unpack "
      "abs acos asin atan ceil cos deg exp floor fmod huge log max maxinteger min mininteger modf pi rad sin sqrt tan "
      "tointeger type ult "
      "char charpattern codepoint codes len offset");
}

static void only_text_is_compiled(void **state)
{
  struct lua_text text;

  lua_text_run(*state, &text, "\x1bLua", 0);
  assert_int_equal(text.outcome, PRY_DOOR_ERROR);
  assert_non_null(strstr(text.run.fault, "binary chunk"));
  expect_lua(*state, "\xEF\xBB\xBFreturn 1", "1");
}

static void pairs_has_an_order(void **state)
{
  static const struct {
    const char *table, *order;
  } rows[] = {
      {"{}", ""},
      {"{ 'x', 'y', z = 1, [true] = 2, [false] = 3, [-1] = 4, [2.5] = 5, a = 6, aa = 7, B = 8, [''] = 9 }",
       "-1=4 1=x 2=y 2.5=5 =9 B=8 a=6 aa=7 z=1 false=3 true=2"},
      {"{ [math.maxinteger] = 1, [2.0 ^ 63] = 2, [math.mininteger] = 3, [-math.huge] = 4, [math.huge] = 5, [2.0 ^ 53] "
       "= 6, "
       "[(1 << 53) + 1] = 7 }",
       "-inf=4 -9223372036854775808=3 9007199254740992=6 9007199254740993=7 9223372036854775807=1 "
       "9.2233720368548e+18=2 inf=5"},
  };
  char source[1024];

  for (size_t i = 0; i < COUNT(rows); i++) {
    snprintf(source, sizeof(source),
             "local t = %s local r = {} for k, v in pairs(t) do r[#r + 1] = tostring(k) .. '=' .. tostring(v) end "
             "return table.concat(r, ' ')",
             rows[i].table);
    expect_lua(*state, source, rows[i].order);
  }
  expect_lua(
      *state,
      "local r = {} for k, v in pairs { ['a\\0b'] = 1, ['a'] = 2, ['a\\0'] = 3, ['\\xff'] = 4 } do r[#r + 1] = v end "
      "return table.concat(r)",
      "2314");
  expect_lua(*state, "local t = { 1, 2, 3, 4 } local n = 0 for k in pairs(t) do n = n + k t[k + 1] = nil end return n",
             "4");
  expect_fault(*state, "for k in pairs { [{}] = 1 } do end", PRY_DOOR_ERROR,
               "t.lua:1: a table with a key that is a table has no order");
  expect_fault(*state, "pairs(nil)", PRY_DOOR_ERROR, "table expected");
}

/* Two states with different hash seeds and histories walk alike. */
static void pairs_is_the_same_in_every_state(void **state)
{
  const char *walk = "local t = {} for i = 1, 500 do t['k' .. (i * 7919 % 1000)] = i t[i * 31 % 977] = i end "
                     "local r = {} for k in pairs(t) do r[#r + 1] = k end return table.concat(r, ' ')";
  struct lua_text here, there;
  struct pry_script *other = pry_script_new(NULL, NULL);

  assert_non_null(other);
  lua_text_run(other, &there, "local t = {} for i = 1, 1000 do t['x' .. i] = i end", 0);
  assert_int_equal(lua_text_run(*state, &here, walk, 0), PRY_DOOR_OK);
  assert_int_equal(lua_text_run(other, &there, walk, 0), PRY_DOOR_OK);
  assert_string_equal(here.result, there.result);
  assert_true(strlen(here.result) > 1000);
  pry_script_free(other);
}

static void tostring_shows_no_address(void **state)
{
  expect_lua(*state, "return tostring {}", "table");
  expect_lua(*state, "return tostring(tostring)", "function");
  expect_lua(*state, "return tostring(function() end)", "function");
  expect_lua(*state, "return ('%s %s'):format({}, print)", "table nil");
  expect_lua(*state, "return tostring(setmetatable({}, { __name = 'thing' }))", "thing");
  expect_lua(*state, "return tostring(setmetatable({}, { __tostring = function() return 'me' end }))", "me");
  expect_fault(*state, "tostring(setmetatable({}, { __tostring = function() return {} end }))", PRY_DOOR_ERROR,
               "must return a string");
  expect_fault(*state, "string.format('%p', {})", PRY_DOOR_ERROR, "invalid conversion '%p'");
  expect_lua(*state, "return tostring(1) .. tostring(1.5) .. tostring(nil) .. tostring(true)", "11.5niltrue");
}

static void metatables_are_sealed(void **state)
{
  expect_lua(*state,
             "local C = {} C.__index = C function C.f() return 'f' end local o = setmetatable({}, C) "
             "function C.g() return 'g' end return o.f() .. o.g() .. tostring(getmetatable(o) == C)",
             "fgtrue");
  expect_lua(*state, "local m = {} local o = setmetatable({}, m) m.__index = { x = 1 } return o.x", "nil");
  expect_lua(*state, "return getmetatable('')", "nil");
  expect_lua(*state, "return getmetatable(setmetatable({}, { __metatable = 'no' }))", "no");
  expect_fault(*state, "setmetatable(setmetatable({}, { __metatable = 'no' }), {})", PRY_DOOR_ERROR,
               "protected metatable");
  expect_lua(*state, "local o = setmetatable({}, { __index = { x = 1 } }) setmetatable(o, nil) return o.x", "nil");
  expect_lua(*state,
             "local V = {} V.__add = function(a, b) return a.n + b.n end "
             "return setmetatable({ n = 1 }, V) + setmetatable({ n = 2 }, V)",
             "3");
  expect_fault(*state, "return '10' + 1", PRY_DOOR_ERROR, "arithmetic on a string");
  expect_lua(*state, "return ('a'):upper() .. #'abc'", "A3");
}

static void table_functions_work(void **state)
{
  expect_lua(*state, "local t = { 1, 2, 3 } table.insert(t, 2, 9) table.insert(t, 8) return table.concat(t, ',')",
             "1,9,2,3,8");
  expect_lua(*state, "local t = { 1, 2, 3 } return table.remove(t, 1) .. table.remove(t) .. #t", "131");
  expect_lua(
      *state,
      "local t = {} return tostring(table.remove(t)) .. tostring(table.remove(t, 0)) .. tostring(table.remove(t, 1))",
      "nilnilnil");
  expect_fault(*state, "table.insert({ 1 }, 5, 1)", PRY_DOOR_ERROR, "position out of bounds");
  expect_fault(*state, "table.remove({ 1 }, 5)", PRY_DOOR_ERROR, "position out of bounds");
  expect_fault(*state, "table.insert({}, 1, 2, 3)", PRY_DOOR_ERROR, "wrong number of arguments");
  expect_lua(*state, "return table.concat(table.move({ 1, 2, 3, 4 }, 1, 3, 2), ',')", "1,1,2,3");
  expect_lua(*state, "return table.concat(table.move({ 1, 2, 3, 4 }, 2, 4, 1), ',')", "2,3,4,4");
  expect_lua(*state, "return table.concat(table.move({ 1, 2, 3 }, 1, 3, 1, { 0, 0, 0, 9 }), ',')", "1,2,3,9");
  expect_fault(*state, "table.move({}, 1, math.maxinteger, 2)", PRY_DOOR_ERROR, "destination wrap around");
  expect_fault(*state, "table.move({}, 0, math.maxinteger, 2)", PRY_DOOR_ERROR, "too many elements to move");
  expect_lua(*state, "local p = table.pack(nil, 2, nil) return p.n .. tostring(p[2])", "32");
  expect_lua(*state, "return select('#', table.unpack({ 1, nil, 3 }, 1, 3)) .. select(-1, 1, 2) .. select(2, 'a', 'b')",
             "32b");
  expect_fault(*state, "select(0)", PRY_DOOR_ERROR, "index out of range");
  expect_lua(
      *state,
      "return table.concat({ 1, 2, 3 }, '-', 2, 3) .. table.concat({}) .. table.concat({ 'x' }, ',', math.maxinteger)",
      "2-3");
  expect_fault(*state, "table.concat { {} }", PRY_DOOR_ERROR, "invalid value (at index 1)");
  /* stable: equal keys keep their order */
  expect_lua(
      *state,
      "local t = {} for i = 1, 40 do t[i] = { i % 3, i } end table.sort(t, function(a, b) return a[1] < b[1] end) "
      "local r = {} for i = 2, 40 do local a, b = t[i - 1], t[i] "
      "r[#r + 1] = (a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])) and '' or 'x' end return 's' .. table.concat(r)",
      "s");
  expect_lua(
      *state,
      "local t = { 5, 2, 8, 1.5, -1 } table.sort(t, function(a, b) return a > b end) return table.concat(t, ' ')",
      "8 5 2 1.5 -1");
  expect_fault(*state, "table.sort { 1, 'a' }", PRY_DOOR_ERROR, "attempt to compare");
  expect_fault(*state, "table.sort({ 2, 1 }, 1)", PRY_DOOR_ERROR, "function expected");
}

/* ---- Modules ----------------------------------------------------------------------------------------------------- */

static const struct pry_policy_file *find_file(void *user, const char *path)
{
  static struct pry_policy_file found;
  static const struct {
    const char *path, *text;
  } files[] = {
      {"lib/a.lua", "local n = 0 return { two = 2, nested = { x = 1 }, count = function() n = n + 1 return n end }"},
      {"lib/b.lua", "local a = require 'lib.a' return { four = a.two * 2, a = a }"},
      {"lib/loop.lua", "return require 'lib.loop'"},
      {"lib/nothing.lua", "local x = 1"},
      {"lib/broken.lua", "return {\n  x ="},
      {"lib/sub/c.lua", "return function() return 'c' end"},
  };

  ++*(int *)user;
  for (size_t i = 0; i < COUNT(files); i++) {
    if (strcmp(files[i].path, path) == 0) {
      found = (struct pry_policy_file){
          .path = (char *)files[i].path, .text = (char *)files[i].text, .size = strlen(files[i].text)};
      return &found;
    }
  }
  return NULL;
}

static void modules_are_required_once(void **state)
{
  struct pry_script *script = *state;
  int looked_up = 0;

  expect_fault(script, "require 'lib.a'", PRY_DOOR_ERROR, "there is no lib/a.lua");
  script->find = find_file;
  script->find_user = &looked_up;
  expect_lua(script, "local b = require 'lib.b' return b.four .. tostring(b.a == require 'lib.a')", "4true");
  assert_int_equal(looked_up, 2);
  expect_lua(script, "return require('lib.sub.c')()", "c");
  expect_fault(script, "require('lib.a').two = 3", PRY_DOOR_ERROR,
               "t.lua:1: cannot set 'two': this table is read-only");
  expect_fault(script, "require('lib.a').nested.x = 3", PRY_DOOR_ERROR, "cannot set 'x'");
  expect_fault(script, "require 'lib.loop'", PRY_DOOR_ERROR, "is being loaded already");
  expect_fault(script, "require 'lib.nothing'", PRY_DOOR_ERROR, "returns nothing");
  expect_fault(script, "require 'lib.broken'", PRY_DOOR_ERROR, "lib/broken.lua:2: unexpected symbol near <eof>");
  expect_fault(script, "require 'retry'", PRY_DOOR_ERROR, "only files below lib/");
  expect_fault(script, "require 'lib/../init'", PRY_DOOR_ERROR, "only files below lib/");
  expect_fault(script, "require 'lib..init'", PRY_DOOR_ERROR, "only files below lib/");
  expect_fault(script, "require 'lib.'", PRY_DOOR_ERROR, "only files below lib/");
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static void memory_is_capped(void **state)
{
  struct pry_script *script = *state;
  struct lua_text text;

  size_t before = pry_script_memory(script);
  lua_text_run(script, &text, "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(100000) end", 100 * BUDGET);
  assert_int_equal(text.outcome, PRY_DOOR_NO_MEMORY);
  assert_true(script->memory_peak <= script->limits.memory);
  assert_true(script->memory_peak > script->limits.memory / 2);
  assert_true(pry_script_memory(script) < before + 64 * 1024);
  assert_false(pry_script_wants_rebuild(script));
}

static void caught_out_of_memory_is_a_fault(void **state)
{
  struct lua_text text;

  lua_text_run(*state, &text,
               "local ok = pcall(function() local t = {} for i = 1, 1e9 do t[i] = {} end end) return 'went on'",
               100 * BUDGET);
  assert_int_equal(text.outcome, PRY_DOOR_NO_MEMORY);
  assert_string_equal(text.result, "");
  assert_non_null(strstr(text.run.fault, "not enough memory"));
}

static int keep_much(lua_State *L)
{
  lua_createtable(L, 600000, 0); /* 9.6 MB */
  lua_setfield(L, LUA_REGISTRYINDEX, "much");
  return 0;
}

static void a_full_heap_wants_a_new_state(void **state)
{
  (void)state;
  const struct pry_script_limits limits = {.memory = 16 * 1024 * 1024, .wall = -1};
  struct pry_script *script = pry_script_new(&limits, NULL);
  struct pry_run run;

  assert_non_null(script);
  pry_run_init(&run, script, 1);
  assert_int_equal(pry_door_call(script, keep_much, NULL, &run), PRY_DOOR_OK);
  assert_true(pry_script_wants_rebuild(script));
  expect_lua(script, "return 1", "1");
  pry_script_free(script);
}

static void a_tiny_limit_is_an_error(void **state)
{
  (void)state;
  for (size_t memory = 1; memory < 80 * 1024; memory += 509) {
    const struct pry_script_limits limits = {.memory = memory, .wall = -1};
    char fault[PRY_FAULT_MAX];
    struct pry_script *script = pry_script_new(&limits, fault);
    assert_true(script != NULL || fault[0] != '\0');
    pry_script_free(script);
  }
}

/* Every allocation of a run fails once: each time it is NO_MEMORY or fine, and nothing leaks. */
static void any_cap_ends_well(void **state)
{
  (void)state;
  const char *work = "local t = {} for i = 1, 40 do t[i] = ('%d'):format(i):rep(i) end table.sort(t) "
                     "local n = 0 for k, v in pairs(t) do for w in v:gmatch('%d') do n = n + 1 end end "
                     "return n .. tostring(pcall(error, {})) .. table.concat(t):gsub('1', 'x')";
  const struct pry_script_limits large = {.wall = -1};
  struct pry_script *script = pry_script_new(&large, NULL);
  struct lua_text text;

  assert_non_null(script);
  size_t base = pry_script_memory(script);
  unsigned failed = 0;
  for (size_t room = 0; room < 48 * 1024; room += 61) {
    lua_gc(script->L, LUA_GCCOLLECT);
    script->limits.memory = base + room > 512 * 1024 ? 512 * 1024 : base + room;
    lua_text_run(script, &text, work, 0);
    if (text.outcome != PRY_DOOR_OK)
      assert_int_equal(text.outcome, PRY_DOOR_NO_MEMORY);
    failed += text.outcome != PRY_DOOR_OK;
    script->limits.memory = 8 * 1024 * 1024;
  }
  assert_true(failed > 10);
  expect_lua(script, "return 1", "1");
  pry_script_free(script);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, new_script, free_script)
  const struct CMUnitTest tests[] = {
      TEST(every_attack_ends),
      TEST(attacks_end_in_time),
      TEST(every_attack_ends_while_loading),
      TEST(cost_is_the_same_each_time),
      TEST(cost_does_not_depend_on_the_clock),
      TEST(only_listed_globals_exist),
      TEST(only_text_is_compiled),
      TEST(pairs_has_an_order),
      TEST(pairs_is_the_same_in_every_state),
      TEST(tostring_shows_no_address),
      TEST(metatables_are_sealed),
      TEST(table_functions_work),
      TEST(modules_are_required_once),
      TEST(memory_is_capped),
      TEST(caught_out_of_memory_is_a_fault),
      TEST(a_full_heap_wants_a_new_state),
      TEST(a_tiny_limit_is_an_error),
      TEST(any_cap_ends_well),
  };

  return cmocka_run_group_tests(tests, NULL, NULL);
}
