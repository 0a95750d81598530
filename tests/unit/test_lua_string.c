/*
 * The sandbox's string library against stock Lua's: the same calls in both must give the same results or both fail.
 * Random cases come from a fixed seed, so a failure can be repeated.
 */
#include "lua_fixture.h"

#include <limits.h>
#include <lualib.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { CASES = 60000 };

struct pair {
  struct pry_script *ours;
  lua_State *stock;
};

static int set_up(void **state)
{
  struct pair *pair = calloc(1, sizeof(*pair));

  assert_non_null(pair);
  pair->ours = pry_script_new(&(struct pry_script_limits){.wall = -1}, NULL);
  pair->stock = luaL_newstate();
  assert_non_null(pair->ours);
  assert_non_null(pair->stock);
  luaL_openlibs(pair->stock);
  *state = pair;
  return 0;
}

static int tear_down(void **state)
{
  struct pair *pair = *state;

  pry_script_free(pair->ours);
  lua_close(pair->stock);
  free(pair);
  return 0;
}

/* A small generator of our own: the same cases with every C library. */
static uint64_t random_state;

static unsigned random_below(unsigned limit)
{
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (unsigned)((random_state >> 16) % limit);
}

/* ---- One call in both states ------------------------------------------------------------------------------------- */

/* A call: the function is a piece of Lua that gets strings and numbers. */
struct call {
  const char *source;
  struct pry_slice texts[2];
  lua_Integer number;
  struct pry_buffer out; /* the results, as one text; or the error */
  bool failed;
};

static const char prelude[] = "local s, p, n = ... ";

/* Runs the chunk on top of the stack with the call's arguments; describes results into `out`. */
static void describe_results(lua_State *L, int base, struct call *call)
{
  for (int i = base + 1; i <= lua_gettop(L); i++) {
    size_t size;
    const char *text = luaL_tolstring(L, i, &size);
    pry_buffer_append_format(&call->out, "%s:", luaL_typename(L, i));
    pry_buffer_append(&call->out, text, size);
    pry_buffer_append(&call->out, "|", 1);
    lua_pop(L, 1);
  }
}

static void push_arguments(lua_State *L, const struct call *call)
{
  lua_pushlstring(L, call->texts[0].data, call->texts[0].size);
  lua_pushlstring(L, call->texts[1].data, call->texts[1].size);
  lua_pushinteger(L, call->number);
}

static void run_stock(lua_State *L, struct call *call)
{
  char source[512];

  snprintf(source, sizeof(source), "%s%s", prelude, call->source);
  assert_int_equal(luaL_loadbuffer(L, source, strlen(source), "=t.lua"), LUA_OK);
  push_arguments(L, call);
  call->failed = lua_pcall(L, 3, LUA_MULTRET, 0) != LUA_OK;
  describe_results(L, 0, call);
  lua_settop(L, 0);
}

static int push_ours(lua_State *L, void *user)
{
  const struct call *call = user;
  char source[512];

  snprintf(source, sizeof(source), "%s%s", prelude, call->source);
  pry_sandbox_load(L, "t.lua", pry_slice_of(source), 0);
  push_arguments(L, call);
  return 3;
}

static void take_ours(lua_State *L, int count, void *user)
{
  (void)count;
  describe_results(L, 0, user);
}

static void run_ours(struct pry_script *script, struct call *call, char *fault)
{
  struct pry_task_call task = {
      .push = push_ours, .take = take_ours, .user = call, .watch = LUA_NOREF, .budget = 1u << 30};
  struct pry_run run;
  enum pry_door_result result = pry_task_start(script, &task, &run, NULL);

  call->failed = result != PRY_DOOR_OK;
  if (call->failed)
    assert_int_equal(result, PRY_DOOR_ERROR);
  snprintf(fault, PRY_FAULT_MAX, "%s", run.fault);
}

/* The message of stock Lua without its position. */
static const char *message_of(const char *text)
{
  const char *colon = strstr(text, ":1: ");

  return colon ? colon + 4 : text;
}

static void show(const struct call *call)
{
  char line[1024];
  size_t at = 0;

  for (int t = 0; t < 2; t++) {
    for (size_t i = 0; i < call->texts[t].size && at + 8 < sizeof(line); i++)
      at += (size_t)snprintf(line + at, sizeof(line) - at,
                             call->texts[t].data[i] < 0x20 || call->texts[t].data[i] > 0x7e ? "\\x%02x" : "%c",
                             (unsigned char)call->texts[t].data[i]);
    at += (size_t)snprintf(line + at, sizeof(line) - at, "  <%d>  ", t);
  }
  print_message("%s\n  %s %lld\n", call->source, line, (long long)call->number);
}

static void compare(const struct pair *pair, const char *source, struct pry_slice first, struct pry_slice second,
                    lua_Integer number, bool messages)
{
  struct call stock = {.source = source, .texts = {first, second}, .number = number};
  struct call ours = stock;
  char fault[PRY_FAULT_MAX];

  run_stock(pair->stock, &stock);
  run_ours(pair->ours, &ours, fault);
  bool same = stock.failed == ours.failed;
  if (same && !stock.failed)
    same = pry_slice_equal(pry_buffer_slice(&stock.out), pry_buffer_slice(&ours.out));
  if (same && stock.failed && messages) {
    const char *text = pry_buffer_text(&stock.out);
    char wanted[PRY_FAULT_MAX];
    snprintf(wanted, sizeof(wanted), "%.*s", (int)strlen(message_of(text)) - 1, message_of(text));
    same = strcmp(wanted, message_of(fault)) == 0;
  }
  if (!same) {
    show(&stock);
    fail_msg("stock %s: %s\n  ours %s: %s %s", stock.failed ? "fails" : "gives", pry_buffer_text(&stock.out),
             ours.failed ? "fails" : "gives", ours.failed ? "" : pry_buffer_text(&ours.out), fault);
  }
  pry_buffer_fini(&stock.out);
  pry_buffer_fini(&ours.out);
}

/* ---- Random patterns --------------------------------------------------------------------------------------------- */

static const char *const pieces[] = {
    "a",     "b",     "ab",    ".",    "%a",    "%A",   "%d",     "%D",      "%s",     "%S",   "%w", "%W",   "%p",
    "%P",    "%c",    "%x",    "%X",   "%l",    "%u",   "%U",     "%g",      "%G",     "%.",   "%%", "[ab]", "[^ab]",
    "[a-c]", "[^%d]", "[%a_]", "[]a]", "[^]a]", "[a-]", "[%]]",   "[%-a]",   "[a-%%]", "[-a]", "(",  ")",    "()",
    "(a*)",  "(.-)",  "%1",    "%2",   "%b()",  "%bab", "%f[%a]", "%f[^%w]", "%f",     "[",    "]",  "%",    "^",
    "$",     "*",     "+",     "-",    "?",     "z",    "%z",     "\\",      "\n"};
static const char *const quantifiers[] = {"", "", "", "*", "+", "-", "?"};
static const char letters[] = "aabbbc()(ab) 1.2%-_AB\n";

static size_t random_pattern(char *text, size_t size)
{
  size_t length = 0;
  unsigned count = random_below(6);

  for (unsigned i = 0; i <= count; i++) {
    if (random_below(40) == 0 && length + 1 < size) {
      text[length++] = '\0';
      continue;
    }
    int written = snprintf(text + length, size - length, "%s%s", pieces[random_below(COUNT(pieces))],
                           quantifiers[random_below(COUNT(quantifiers))]);
    length += (size_t)written;
  }
  return length;
}

static size_t random_text(char *text, size_t size)
{
  size_t length = random_below((unsigned)size);

  for (size_t i = 0; i < length; i++) {
    unsigned which = random_below(60);
    text[i] = which == 0 ? '\0' : which == 1 ? (char)random_below(256) : letters[random_below(sizeof(letters) - 1)];
  }
  return length;
}

static void random_patterns_match_as_stock(void **state)
{
  static const char *const uses[] = {
      "return s:find(p)",
      "return s:match(p)",
      "return s:find(p, n)",
      "return s:match(p, n)",
      "return s:find(p, n, true)",
      "local r = {} for a, b in s:gmatch(p) do r[#r + 1] = tostring(a) .. ':' .. tostring(b) end return "
      "table.concat(r, ';')",
      "local r = {} for a, b in s:gmatch(p, n) do r[#r + 1] = tostring(a) .. ':' .. tostring(b) end return "
      "table.concat(r, ';')",
      "return s:gsub(p, '<%0>')",
      "return s:gsub(p, '%1%%x', n)",
      "return s:gsub(p, '%2')",
      "return s:gsub(p, function(a, b) return b end)",
      "return s:gsub(p, { a = 'X', b = 1, ab = false })",
      "return s:gsub(p, '')",
  };
  char text[40];
  char pattern[128];

  random_state = 0x5eed0f1a1a7e57u;
  for (unsigned i = 0; i < CASES; i++) {
    struct pry_slice p = {pattern, random_pattern(pattern, sizeof(pattern))};
    struct pry_slice s = {text, random_text(text, sizeof(text))};
    compare(*state, uses[random_below(COUNT(uses))], s, p, (lua_Integer)random_below(20) - 10, true);
  }
}

static void known_corners(void **state)
{
  static const struct {
    const char *source, *text, *pattern;
    lua_Integer number;
  } rows[] = {
      {"return s:find(p, n)", "", "", 1},
      {"return s:find(p, n)", "", "", 2},
      {"return s:find(p, n)", "abc", "", 4},
      {"return s:find(p, n)", "abc", "", 5},
      {"return s:find(p, n)", "abc", "b", -100},
      {"return s:find(p, n)", "abc", "b", LLONG_MIN},
      {"return s:find(p, n)", "abc", "b", LLONG_MAX},
      {"return s:gmatch(p, n)()", "abc", "b", LLONG_MIN},
      {"return s:gmatch(p, n)()", "abc", "", LLONG_MAX},
      {"return s:gsub(p, 'x', n)", "aaa", "a", 0},
      {"return s:gsub(p, 'x', n)", "aaa", "a", -1},
      {"return s:gsub(p, 'x')", "abc", "^a", 0},
      {"return s:gsub(p, 'x')", "abc", "a*", 0},
      {"return s:gsub(p, '%9')", "abc", "a", 0},
      {"return s:gsub(p, '%x')", "abc", "a", 0},
      {"return s:gsub(p, '%')", "abc", "a", 0},
      {"return s:gsub(p, 5)", "abc", "a", 0},
      {"return s:gsub(p, true)", "abc", "a", 0},
      {"return s:gsub(p, function() return {} end)", "abc", "a", 0},
      {"return s:gsub(p, '%1')", "hello world", "()o", 0},
      {"return s:match(p)", "THE (quick) fox", "%((%a+)%)", 0},
      {"return s:match(p)", "  trim  ", "^%s*(.-)%s*$", 0},
      {"return s:match(p)", "2024-01-02", "(%d+)-(%d+)-(%d+)", 0},
      {"return s:gsub(p, '%0.')", "THE (quick) fox", "%f[%a]%a+", 0},
      {"return s:rep(n, p)", "ab", ",", 3},
      {"return s:rep(n, p)", "ab", "", 1},
      {"return s:rep(n, p)", "ab", ",", 0},
      {"return s:rep(n, p)", "ab", ",", -1},
      {"return s:byte(n)", "abc", "", 0},
      {"return s:byte(n, -1)", "abc", "", -2},
      {"return s:byte(1, n)", "abc", "", 100},
      {"return s:byte(n, 2)", "abc", "", LLONG_MIN},
      {"return s:upper() .. s:lower() .. s:reverse() .. s:sub(n)", "aZ\xc3\xa4[`{@", "", -2},
      {"return tostring(s):len()", "abc", "", 0},
      {"return s:find(nil)", "abc", "", 0},
      {"return s:find(p, 1.5)", "abc", "b", 0},
      {"return (10):rep(2)", "", "", 0},
      {"return string.rep(10, 2)", "", "", 0},
      {"return string.find(1234, 23)", "", "", 0},
      {"return utf8.char(228, 8364), utf8.len(s), utf8.codepoint(s, 1, n), utf8.offset(s, 2)", "\xc3\xa4x", "", -1},
      {"return utf8.codepoint(s, n)", "abc", "", 9},
      {"local r = '' for p, c in utf8.codes(s) do r = r .. p .. ':' .. c .. ' ' end return r", "a\xe2\x82\xacz", "", 0},
      {"return tonumber(s), tonumber(p, 16), tonumber('z', 36), tonumber('8', 8), tonumber(n), tonumber('1e1')",
       " 0x10 ", "ff", 3},
      {"return tonumber({}, 10)", "", "", 0},
      {"return tonumber()", "", "", 0},
      {"return tonumber('1', 99)", "", "", 0},
  };
  char deep[1024];

  for (size_t i = 0; i < COUNT(rows); i++)
    compare(*state, rows[i].source, pry_slice_of(rows[i].text), pry_slice_of(rows[i].pattern), rows[i].number, false);
  /* Nested attempts are limited alike, captures too. */
  for (int depth = 195; depth <= 205; depth++) {
    memset(deep, 0, sizeof(deep));
    for (int i = 0; i < depth; i++)
      memcpy(deep + 2 * (size_t)i, "a?", 2);
    compare(*state, "return s:rep(300):find(p)", PRY_SLICE("a"), pry_slice_of(deep), 0, true);
  }
  for (int captures = 30; captures <= 34; captures++) {
    memset(deep, 0, sizeof(deep));
    for (int i = 0; i < captures; i++)
      memcpy(deep + 2 * (size_t)i, "()", 2);
    compare(*state, "return s:find(p)", PRY_SLICE("a"), pry_slice_of(deep), 0, true);
  }
}

/* ---- format ------------------------------------------------------------------------------------------------------ */

static void random_formats_are_as_stock(void **state)
{
  static const char *const values[] = {"0",
                                       "1",
                                       "-1",
                                       "42",
                                       "3.0",
                                       "-0.0",
                                       "0.1",
                                       "1e308",
                                       "-1e-320",
                                       "1/0",
                                       "-1/0",
                                       "math.maxinteger",
                                       "math.mininteger",
                                       "2^53",
                                       "'text'",
                                       "''",
                                       "'10'",
                                       "'0x1p4'",
                                       "'a\\0b'",
                                       "'q\"\\\\\\n\\r\\1272'",
                                       "nil",
                                       "true",
                                       "false",
                                       "65",
                                       "255",
                                       "1.5",
                                       "('y'):rep(120)"};
  static const char letters_used[] = "diuoxXcsqaAeEfgGFpnbDS%";
  char source[256];

  random_state = 0xf0a3a7e57u;
  for (unsigned i = 0; i < CASES / 4; i++) {
    char spec[32];
    size_t length = 0;
    unsigned flags = random_below(3);
    for (unsigned f = 0; f < flags; f++)
      spec[length++] = "-+ #0"[random_below(5)];
    if (random_below(2))
      length += (size_t)snprintf(spec + length, sizeof(spec) - length, "%u", random_below(random_below(20) ? 30 : 200));
    if (random_below(3) == 0)
      length +=
          (size_t)snprintf(spec + length, sizeof(spec) - length, ".%u", random_below(random_below(20) ? 20 : 200));
    if (random_below(20) == 0)
      spec[length++] = '.';
    spec[length++] = letters_used[random_below(sizeof(letters_used) - 1)];
    spec[length] = '\0';
    if (strchr(spec, 'p'))
      continue; /* the one difference */
    snprintf(source, sizeof(source), "return ('<%%%s>'):format(%s)", spec, values[random_below(COUNT(values))]);
    compare(*state, source, PRY_SLICE(""), PRY_SLICE(""), 0, false);
  }
  compare(*state, "return ('%s %s'):format(1)", PRY_SLICE(""), PRY_SLICE(""), 0, true);
  compare(*state, "return ('%'):format(1)", PRY_SLICE(""), PRY_SLICE(""), 0, false);
  compare(*state, "return ('%%'):format()", PRY_SLICE(""), PRY_SLICE(""), 0, false);
  compare(*state, "return ('a\\0%d\\0b'):format(7)", PRY_SLICE(""), PRY_SLICE(""), 0, false);
  compare(*state, "return ('%0000000000000000000000000000d'):format(7)", PRY_SLICE(""), PRY_SLICE(""), 0, false);
}

static void long_results_are_refused(void **state)
{
  struct pair *pair = *state;

  expect_lua(pair->ours, "return #('x'):rep(520000)", "520000");
  expect_fault(pair->ours, "return #('x'):rep(530000)", PRY_DOOR_ERROR, "resulting string too large");
  expect_lua(pair->ours, "return tostring(pcall(string.rep, 'x', 1 << 40))", "false");
  expect_fault(pair->ours, "return select('#', ('x'):rep(5000):byte(1, -1))", PRY_DOOR_ERROR, "too many results");
  expect_lua(pair->ours, "return select('#', ('x'):rep(4096):byte(1, -1))", "4096");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(random_patterns_match_as_stock),
      TEST(known_corners),
      TEST(random_formats_are_as_stock),
      TEST(long_results_are_refused),
  };

  return cmocka_run_group_tests(tests, NULL, NULL);
}
