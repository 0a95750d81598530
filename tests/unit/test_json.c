#include "json.h"

#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* A copy of exactly the text's size, so that a sanitizer sees any byte read beside it. */
static struct pry_slice exact(struct pry_slice text)
{
  char *copy = malloc(text.size ? text.size : 1);
  assert_non_null(copy);
  if (text.size)
    memcpy(copy, text.data, text.size);
  return (struct pry_slice){copy, text.size};
}

static void release(struct pry_slice text)
{
  free((void *)(uintptr_t)text.data);
}

struct row {
  struct pry_slice text;
  enum pry_json_result expected;
};

#define ROW(text, expected)                                                                                            \
  {                                                                                                                    \
    {text, sizeof(text) - 1}, expected                                                                                 \
  }
#define GOOD(text) ROW(text, PRY_JSON_OK)
#define BAD(text) ROW(text, PRY_JSON_SYNTAX)

static const struct row syntax[] = {
    GOOD("{}"),
    GOOD("[]"),
    GOOD(" \t\r\n{ } \n"),
    GOOD("null"),
    GOOD("true"),
    GOOD("false"),
    GOOD("0"),
    GOOD("-0"),
    GOOD("10"),
    GOOD("-1.5e+10"),
    GOOD("0.0"),
    GOOD("1E9"),
    GOOD("0e-0"),
    GOOD("123456789012345678901234567890.123456789012345678901234567890e1234567890"),
    GOOD("\"\""),
    GOOD("\"a\""),
    GOOD("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\""),
    GOOD("\"\\ud800\""),
    GOOD("\"\x7F\""),
    GOOD("\"\xC3\xA9 \xF0\x9F\x98\x80\""),
    GOOD("\"\xFF\xC0 not UTF-8\""),
    GOOD("[1,2 , 3]"),
    GOOD("[[],{},[{}]]"),
    GOOD("{\"a\":1,\"a\":2}"),
    GOOD("{ \"a\" : [ 1 , { \"b\" : null } ] , \"\" : \"\" }"),
    GOOD("\"0123456789abcdef0123456789abcdef\""),
    BAD(""),
    BAD(" "),
    BAD("\xEF\xBB\xBF{}"),
    BAD("{"),
    BAD("}"),
    BAD("["),
    BAD("]"),
    BAD("{]"),
    BAD("[}"),
    BAD("[1}"),
    BAD("{\"a\":1]"),
    BAD("{}{}"),
    BAD("{} x"),
    BAD("[] ]"),
    BAD("1 2"),
    BAD("{\"a\"}"),
    BAD("{\"a\":}"),
    BAD("{\"a\" 1}"),
    BAD("{\"a\":1,}"),
    BAD("{,\"a\":1}"),
    BAD("{\"a\":1 \"b\":2}"),
    BAD("{\"a\":1,,\"b\":2}"),
    BAD("{a:1}"),
    BAD("{'a':1}"),
    BAD("{1:1}"),
    BAD("{null:1}"),
    BAD("[1,]"),
    BAD("[,1]"),
    BAD("[1,,2]"),
    BAD("[1 2]"),
    BAD("[,]"),
    BAD("nul"),
    BAD("nulll"),
    BAD("True"),
    BAD("NaN"),
    BAD("Infinity"),
    BAD("-Infinity"),
    BAD("undefined"),
    BAD("01"),
    BAD("-"),
    BAD("-01"),
    BAD("+1"),
    BAD(".5"),
    BAD("1."),
    BAD("1.e1"),
    BAD("1e"),
    BAD("1e+"),
    BAD("0x10"),
    BAD("1_000"),
    BAD("--1"),
    BAD("\""),
    BAD("\"a"),
    BAD("\"a\\"),
    BAD("\"\\\""),
    BAD("\"\\x41\""),
    BAD("\"\\u12\""),
    BAD("\"\\u12g4\""),
    BAD("\"\\u123"),
    BAD("\"\\U0041\""),
    BAD("\"\\\0\""),
    BAD("\"a\0b\""),
    BAD("\"a\nb\""),
    BAD("\"a\tb\""),
    BAD("\"01234567\x1F\""),
    BAD("'a'"),
    BAD("/* c */ {}"),
    BAD("{} // c"),
    BAD("{}\0"),
    BAD("\0{}"),
    BAD("\x0B{}"),
    BAD("[1\xC2\xA0]"),
};

static enum pry_json_result walk(struct pry_slice text)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  pry_json_iterate(&iterator, text);
  while (pry_json_next(&iterator, &key, &value)) {
  }
  assert_false(pry_json_next(&iterator, &key, &value));
  return iterator.result;
}

static void test_syntax(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(syntax); i++) {
    struct pry_slice text = exact(syntax[i].text);
    enum pry_json_result result = pry_json_parse(text, NULL), walked = walk(text);
    if (result != syntax[i].expected)
      fail_msg("%.*s: %d, expected %d", (int)text.size, text.data, result, syntax[i].expected);
    if (walked != result && walked != PRY_JSON_NOT_OBJECT)
      fail_msg("%.*s: walked %d, parsed %d", (int)text.size, text.data, walked, result);
    release(text);
  }
}

/* No text is valid when its end is cut off, except numbers. */
static void test_every_cut_is_refused(void **state)
{
  (void)state;
  struct pry_slice text =
      PRY_SLICE("{\"a\": [1.5e3, \"\\u00e9\\n\", {\"b\": [true, false, null, {}]}], \"c\": \"0123456789\"}");
  for (size_t size = 0; size < text.size; size++) {
    struct pry_slice cut = exact((struct pry_slice){text.data, size});
    assert_int_equal(pry_json_parse(cut, NULL), PRY_JSON_SYNTAX);
    assert_int_equal(walk(cut), PRY_JSON_SYNTAX);
    release(cut);
  }
}

/* Every byte value at every place of a string that spans several machine words. */
static void test_string_scan_sees_every_byte(void **state)
{
  (void)state;
  for (int c = 0; c < 256; c++)
    for (size_t place = 1; place < 27; place++) {
      char text[28];
      memset(text, 'x', sizeof text);
      text[0] = text[27] = '"';
      text[place] = (char)c;
      bool good = c >= 0x20 && c != '"' && c != '\\';
      if ((pry_json_parse((struct pry_slice){text, sizeof text}, NULL) == PRY_JSON_OK) != good)
        fail_msg("byte %02x at %zu", (unsigned)c, place);
    }
}

static void repeat(struct pry_buffer *out, const char *text, size_t count)
{
  for (size_t i = 0; i < count; i++)
    assert_true(pry_buffer_append_text(out, text));
}

static void test_depth(void **state)
{
  (void)state;
  static const char *const open[] = {"[", "{\"a\":", "[{\"a\":"}, *const close[] = {"]", "}", "}]"};
  static const size_t levels[] = {1, 1, 2};
  for (size_t i = 0; i < COUNT(open); i++)
    for (size_t extra = 0; extra < 2; extra++) {
      struct pry_buffer text;
      pry_buffer_init(&text, 0);
      size_t count = PRY_JSON_DEPTH_MAX / levels[i] + extra;
      repeat(&text, open[i], count);
      repeat(&text, "1", 1);
      repeat(&text, close[i], count);
      enum pry_json_result expected = extra ? PRY_JSON_DEPTH : PRY_JSON_OK;
      assert_int_equal(pry_json_parse(pry_buffer_slice(&text), NULL), expected);
      assert_int_equal(walk(pry_buffer_slice(&text)), expected);
      pry_buffer_fini(&text);
    }
}

static double seconds_now(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* 320 KB of brackets took a token-array parser seven seconds. Looking at all of them would already take a sanitizer
 * build about a millisecond; refusing at the 65th takes none. The best of several runs, as machines are busy. */
static void test_brackets_cost_nothing(void **state)
{
  (void)state;
  static const char *const openers[] = {"[", "{\"a\":", "{\"model\":[", "[["};
  for (size_t i = 0; i < COUNT(openers); i++) {
    struct pry_buffer text;
    struct pry_json_request request;
    pry_buffer_init(&text, 0);
    repeat(&text, openers[i], 320 * 1024 / strlen(openers[i]));
    double best = INFINITY;
    for (int run = 0; run < 20; run++) {
      double start = seconds_now();
      assert_int_equal(pry_json_request(pry_buffer_slice(&text), &request), PRY_JSON_DEPTH);
      best = fmin(best, seconds_now() - start);
    }
    assert_true(best < 200e-6);
    pry_buffer_fini(&text);
  }
}

/* ---- iterating ---- */

static void test_members(void **state)
{
  (void)state;
  static const struct {
    const char *key, *raw;
    enum pry_json_type type;
  } expected[] = {
      {"\"n\"", "null", PRY_JSON_NULL},         {"\"t\"", "true", PRY_JSON_TRUE},
      {"\"\\u0066\"", "false", PRY_JSON_FALSE}, {"\"i\"", "-1", PRY_JSON_NUMBER},
      {"\"s\"", "\"x\"", PRY_JSON_STRING},      {"\"a\"", "[ 1 ]", PRY_JSON_ARRAY},
      {"\"o\"", "{\"b\":2}", PRY_JSON_OBJECT},
  };
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  pry_json_iterate(&iterator,
                   PRY_SLICE(" {\"n\":null ,\"t\" : true,\"\\u0066\":false, \"i\":-1,\"s\":\"x\",\"a\":[ 1 ],"
                             "\"o\":{\"b\":2}} "));
  for (size_t i = 0; i < COUNT(expected); i++) {
    assert_true(pry_json_next(&iterator, &key, &value));
    assert_true(pry_slice_equal(key, pry_slice_of(expected[i].key)));
    assert_true(pry_slice_equal(value.raw, pry_slice_of(expected[i].raw)));
    assert_int_equal(value.type, expected[i].type);
  }
  assert_false(pry_json_next(&iterator, &key, &value));
  assert_int_equal(iterator.result, PRY_JSON_OK);
}

/* ---- requests ---- */

struct request_row {
  const char *text;
  enum pry_json_result result;
  const char *model; /* raw; NULL: absent */
  enum pry_json_type stream;
  const char *duplicate;
};

static const struct request_row requests[] = {
    {"{}", PRY_JSON_OK, NULL, PRY_JSON_NONE, NULL},
    {"{\"model\":\"m\"}", PRY_JSON_OK, "\"m\"", PRY_JSON_NONE, NULL},
    {" {\"stream\" : true , \"model\" : \"a\\/b\" } ", PRY_JSON_OK, "\"a\\/b\"", PRY_JSON_TRUE, NULL},
    {"{\"\\u006dodel\":\"m\",\"strea\\u006D\":false}", PRY_JSON_OK, "\"m\"", PRY_JSON_FALSE, NULL},
    {"{\"model\":7,\"stream\":\"true\"}", PRY_JSON_OK, "7", PRY_JSON_STRING, NULL},
    {"{\"model\":null}", PRY_JSON_OK, "null", PRY_JSON_NONE, NULL},
    {"{\"messages\":[{\"model\":\"x\",\"stream\":true}],\"model\":\"m\"}", PRY_JSON_OK, "\"m\"", PRY_JSON_NONE, NULL},
    {"{\"Model\":\"x\",\"model \":\"y\",\"mode\":1,\"models\":2}", PRY_JSON_OK, NULL, PRY_JSON_NONE, NULL},
    {"{\"a\":1,\"a\":2,\"model\":\"m\"}", PRY_JSON_OK, "\"m\"", PRY_JSON_NONE, NULL},
    {"{\"model\":\"a\",\"model\":\"b\"}", PRY_JSON_DUPLICATE, "\"a\"", PRY_JSON_NONE, "model"},
    {"{\"model\":\"a\",\"\\u006d\\u006F\\u0064\\u0065\\u006c\":\"b\"}", PRY_JSON_DUPLICATE, "\"a\"", PRY_JSON_NONE,
     "model"},
    {"{\"model\":\"a\",\"model\":\"a\"}", PRY_JSON_DUPLICATE, "\"a\"", PRY_JSON_NONE, "model"},
    {"{\"model\":null,\"model\":\"a\"}", PRY_JSON_DUPLICATE, "null", PRY_JSON_NONE, "model"},
    {"{\"stream\":true,\"\\u0073tream\":false}", PRY_JSON_DUPLICATE, NULL, PRY_JSON_TRUE, "stream"},
    {"[]", PRY_JSON_NOT_OBJECT, NULL, PRY_JSON_NONE, NULL},
    {"[{\"model\":\"m\"}]", PRY_JSON_NOT_OBJECT, NULL, PRY_JSON_NONE, NULL},
    {"\"model\"", PRY_JSON_NOT_OBJECT, NULL, PRY_JSON_NONE, NULL},
    {"null", PRY_JSON_NOT_OBJECT, NULL, PRY_JSON_NONE, NULL},
    {"[1", PRY_JSON_SYNTAX, NULL, PRY_JSON_NONE, NULL},
    {"model=m", PRY_JSON_SYNTAX, NULL, PRY_JSON_NONE, NULL},
    {"", PRY_JSON_SYNTAX, NULL, PRY_JSON_NONE, NULL},
    {"{\"model\":\"m\"", PRY_JSON_SYNTAX, "\"m\"", PRY_JSON_NONE, NULL},
    {"{\"model\":\"m\"}}", PRY_JSON_SYNTAX, "\"m\"", PRY_JSON_NONE, NULL},
};

static void test_requests(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(requests); i++) {
    struct pry_json_request request;
    struct pry_slice text = exact(pry_slice_of(requests[i].text));
    enum pry_json_result result = pry_json_request(text, &request);
    if (result != requests[i].result)
      fail_msg("%s: %d, expected %d", requests[i].text, result, requests[i].result);
    assert_int_equal(request.stream.type, requests[i].stream);
    assert_int_equal(request.model.type != PRY_JSON_NONE, requests[i].model != NULL);
    if (requests[i].model)
      assert_true(pry_slice_equal(request.model.raw, pry_slice_of(requests[i].model)));
    if (requests[i].duplicate)
      assert_string_equal(request.duplicate, requests[i].duplicate);
    else
      assert_null(request.duplicate);
    release(text);
  }
}

/* ---- paths ---- */

static void test_bad_paths(void **state)
{
  (void)state;
  struct pry_json_path path;
  static const char *const bad[] = {"", ".", "a.", ".a", "a..b", "!", "a.!", "1.2.3.4.5.6.7.8.9"};
  for (size_t i = 0; i < COUNT(bad); i++)
    assert_non_null(pry_json_path_compile(&path, pry_slice_of(bad[i])));
  char text[PRY_JSON_PATH_MAX + 1];
  memset(text, 'a', sizeof text);
  assert_non_null(pry_json_path_compile(&path, (struct pry_slice){text, sizeof text}));
  assert_null(pry_json_path_compile(&path, (struct pry_slice){text, sizeof text - 1}));
  assert_null(pry_json_path_compile(&path, PRY_SLICE("1.2.3.4.5.6.7.8")));
  assert_int_equal(path.count, 8);
}

struct path_row {
  const char *path, *text;
  const char *found; /* raw; NULL: no match */
  bool content;
};

static const struct path_row paths[] = {
    {"a", "{\"a\":1}", "1", true},
    {"a", "{\"b\":1}", NULL, false},
    {"a", "[1]", NULL, false},
    {"a", "1", NULL, false},
    {"a", "", NULL, false},
    {"a", "{\"\\u0061\":\"x\"}", "\"x\"", true},
    {"error.message", "{\"error\": {\"type\":1, \"message\" : \"no\"}}", "\"no\"", true},
    {"error.message", "{\"error\":\"message\"}", NULL, false},
    {"error.message", "{\"error\":{},\"error\":{\"message\":\"late\"}}", "\"late\"", true},
    {"error.message", "{\"message\":\"top\"}", NULL, false},
    {"a.b", "{\"a\":{\"b\":0},\"a\":{\"b\":1}}", "0", true},
    {"choices.*.delta.content", "{\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}", "\"hi\"", true},
    {"choices.*.delta.content",
     "{\"choices\":[{\"delta\":{}},{\"delta\":{\"content\":\"\"}},{\"delta\":{\"content\":\"x\"}}]}", "\"\"", true},
    {"choices.*.delta.content", "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}", "\"\"", false},
    {"choices.*.delta.content", "{\"choices\":[]}", NULL, false},
    {"choices.*.delta.content", "{\"choices\":[{\"delta\":{\"content\":null}}]}", "null", false},
    {"choices.*.delta.!role", "{\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}", NULL, false},
    {"choices.*.delta.!role", "{\"choices\":[{\"delta\":{\"role\":\"a\",\"content\":\"\"}}]}", "\"\"", false},
    {"choices.*.delta.!role", "{\"choices\":[{\"delta\":{\"role\":\"a\",\"tool_calls\":[{}]}}]}", "[{}]", true},
    {"choices.*.delta.!role", "{\"choices\":[{\"delta\":{\"\\u0072ole\":\"a\"}}]}", NULL, false},
    {"a.*", "{\"a\":{\"x\":1}}", "1", true},
    {"a.*", "{\"a\":[2]}", "2", true},
    {"a.!x", "{\"a\":[2]}", NULL, false},
    {"a.0", "{\"a\":[5,6]}", "5", true},
    {"a.1", "{\"a\":[5,6]}", "6", true},
    {"a.01", "{\"a\":[5,6]}", "6", true},
    {"a.2", "{\"a\":[5,6]}", NULL, false},
    {"a.4294967296", "{\"a\":[5,6]}", NULL, false},
    {"a.0", "{\"a\":{\"0\":7}}", "7", true},
    {"a", "{\"a\":false}", "false", false},
    {"a", "{\"a\":true}", "true", true},
    {"a", "{\"a\":0}", "0", true},
    {"a", "{\"a\":[]}", "[]", false},
    {"a", "{\"a\":[ ]}", "[ ]", false},
    {"a", "{\"a\":{ }}", "{ }", false},
    {"a", "{\"a\":[null]}", "[null]", true},
    {"a", "{\"a\":\"\\u0000\"}", "\"\\u0000\"", true},
    {"a", "{\"b\":,\"a\":1}", NULL, false},
    {"a", "{\"a\":1", "1", true},
    {"*.*.*.*.*.*.*.*", "[[[[[[[[9]]]]]]]]", "9", true},
    {"*.*.*.*.*.*.*.*", "[[[[[[[9]]]]]]]", NULL, false},
};

static void test_paths(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(paths); i++) {
    struct pry_json_path path;
    struct pry_json_value value;
    struct pry_slice text = exact(pry_slice_of(paths[i].text));
    assert_null(pry_json_path_compile(&path, pry_slice_of(paths[i].path)));
    bool found = pry_json_find(text, &path, &value);
    if (found != (paths[i].found != NULL) || (found && !pry_slice_equal(value.raw, pry_slice_of(paths[i].found))))
      fail_msg("%s in %s: %.*s", paths[i].path, paths[i].text, (int)value.raw.size, found ? value.raw.data : "");
    assert_int_equal(value.type != PRY_JSON_NONE, found);
    if (pry_json_match_content(text, &path) != paths[i].content)
      fail_msg("content of %s in %s", paths[i].path, paths[i].text);
    assert_int_equal(pry_json_get(text, paths[i].path, NULL), found);
    release(text);
  }
  struct pry_json_value value;
  assert_false(pry_json_get(PRY_SLICE("{\"a\":1}"), "a..b", &value));
  assert_int_equal(value.type, PRY_JSON_NONE);
}

/* ---- values ---- */

struct string_row {
  const char *raw;
  struct pry_slice decoded;
};

#define STRING(raw, decoded)                                                                                           \
  {                                                                                                                    \
    raw,                                                                                                               \
    {                                                                                                                  \
      decoded, sizeof(decoded) - 1                                                                                     \
    }                                                                                                                  \
  }

static const struct string_row strings[] = {
    STRING("\"\"", ""),
    STRING("\"abc\"", "abc"),
    STRING("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"),
    STRING("\"\\u0041\\u00e9\\u20AC\\uFFFF\"", "A\xC3\xA9\xE2\x82\xAC\xEF\xBF\xBF"),
    STRING("\"\\uD83D\\uDE00\"", "\xF0\x9F\x98\x80"),
    STRING("\"\\uDBFF\\uDFFF\"", "\xF4\x8F\xBF\xBF"),
    STRING("\"\\uD800\"", "\xEF\xBF\xBD"),
    STRING("\"\\uDC00x\"", "\xEF\xBF\xBDx"),
    STRING("\"\\uD800\\uD800\\uDC00\"", "\xEF\xBF\xBD\xF0\x90\x80\x80"),
    STRING("\"\\uD800\\n\"", "\xEF\xBF\xBD\n"),
    STRING("\"\\uD800u0041\"", "\xEF\xBF\xBDu0041"),
    STRING("\"\\uD800\\u0041\"", "\xEF\xBF\xBD"
                                 "A"),
    STRING("\"a\\u0000b\"", "a\0b"),
    STRING("\"\xC3\xA9\xFF\"", "\xC3\xA9\xFF"),
    STRING("\"\\\\u0041\"", "\\u0041"),
};

static void test_strings(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(strings); i++) {
    struct pry_buffer out;
    struct pry_slice raw = exact(pry_slice_of(strings[i].raw));
    pry_buffer_init(&out, 0);
    assert_true(pry_buffer_append_text(&out, ">"));
    assert_true(pry_json_string(raw, &out));
    struct pry_slice decoded = {out.data + 1, out.size - 1};
    if (!pry_slice_equal(decoded, strings[i].decoded))
      fail_msg("%s: %.*s", strings[i].raw, (int)decoded.size, decoded.data);
    assert_true(pry_json_equals(raw, strings[i].decoded));
    assert_false(pry_json_equals(raw, PRY_SLICE("something else")));
    if (decoded.size)
      assert_false(pry_json_equals(raw, (struct pry_slice){strings[i].decoded.data, strings[i].decoded.size - 1}));
    pry_buffer_fini(&out);
    release(raw);
  }
}

static void test_bad_strings(void **state)
{
  (void)state;
  static const char *const bad[] = {"",        "\"", "a",    "\"a",    "\"a\\\"", "\"\\u12\"",
                                    "\"\\q\"", "1",  "null", "\"a\"b", " \"a\""};
  struct pry_buffer out;
  pry_buffer_init(&out, 4);
  for (size_t i = 0; i < COUNT(bad); i++)
    assert_false(pry_json_string(pry_slice_of(bad[i]), &out));
  assert_false(pry_json_string((struct pry_slice){NULL, 0}, &out));
  assert_false(pry_json_string(PRY_SLICE("\"ab\\ncd\""), &out)); /* over the buffer's limit */
  assert_int_equal(out.size, 0);
  assert_true(pry_json_string(PRY_SLICE("\"abcd\""), &out));
  assert_false(pry_json_equals(PRY_SLICE("\"\\\""), PRY_SLICE("\"")));
  assert_false(pry_json_equals(PRY_SLICE("\""), PRY_SLICE("")));
  assert_false(pry_json_equals(PRY_SLICE("abc"), PRY_SLICE("b")));
  pry_buffer_fini(&out);
}

static void check_numbers(void)
{
  static const struct {
    const char *raw;
    double expected; /* NAN: refused */
  } numbers[] = {
      {"0", 0},
      {"-1", -1},
      {"1.5", 1.5},
      {"1e3", 1000},
      {"-2.5E-1", -0.25},
      {"0.1", 0.1},
      {"1e308", 1e308},
      {"5e-324", 5e-324},
      {"9007199254740993", 9007199254740992.0},
      {"1e309", NAN},
      {"-1e309", NAN},
      {"", NAN},
      {"1,5", NAN},
      {"01", NAN},
      {"0x1p3", NAN},
      {"nan", NAN},
      {"inf", NAN},
      {"1 ", NAN},
      {"\"1\"", NAN},
      {"1e99999999999999999999", NAN},
  };
  for (size_t i = 0; i < COUNT(numbers); i++) {
    double value = NAN;
    bool good = pry_json_number(pry_slice_of(numbers[i].raw), &value);
    if (good == isnan(numbers[i].expected) || (good && value != numbers[i].expected))
      fail_msg("%s: %d %.17g", numbers[i].raw, good, value);
  }
}

static void test_numbers(void **state)
{
  (void)state;
  check_numbers();
  if (setlocale(LC_ALL, "de_DE.UTF-8"))
    check_numbers();
  setlocale(LC_ALL, "C");
  char digits[401];
  double value;
  memset(digits, '0', sizeof digits);
  digits[1] = '.';
  assert_true(pry_json_number((struct pry_slice){digits, 400}, &value));
  assert_false(pry_json_number((struct pry_slice){digits, 401}, &value));
}

static void test_integers(void **state)
{
  (void)state;
  static const struct {
    const char *raw;
    bool good;
    int64_t expected;
  } integers[] = {
      {"0", true, 0},
      {"-0", true, 0},
      {"42", true, 42},
      {"-42", true, -42},
      {"9007199254740993", true, 9007199254740993},
      {"9223372036854775807", true, INT64_MAX},
      {"-9223372036854775808", true, INT64_MIN},
      {"9223372036854775808", false, 0},
      {"-9223372036854775809", false, 0},
      {"92233720368547758070", false, 0},
      {"1.0", false, 0},
      {"1e2", false, 0},
      {"01", false, 0},
      {"+1", false, 0},
      {"", false, 0},
      {"-", false, 0},
      {"\"1\"", false, 0},
  };
  for (size_t i = 0; i < COUNT(integers); i++) {
    int64_t value = 0;
    bool good = pry_json_integer(pry_slice_of(integers[i].raw), &value);
    if (good != integers[i].good || value != integers[i].expected)
      fail_msg("%s: %d %lld", integers[i].raw, good, (long long)value);
  }
}

/* ---- splicing ---- */

struct splice_row {
  const char *text, *model;
  enum pry_json_result result;
  const char *expected;
};

static const struct splice_row splices[] = {
    {"{\"model\":\"a\"}", "b", PRY_JSON_OK, "{\"model\":\"b\"}"},
    {"\n{ \"x\":18446744073709551617,\t\"model\" :\r\"a\" , \"x\": 1.0e+00, \"s\":\"\\u00e9\xFF\" }\n", "long/name",
     PRY_JSON_OK,
     "\n{ \"x\":18446744073709551617,\t\"model\" :\r\"long/name\" , \"x\": 1.0e+00, \"s\":\"\\u00e9\xFF\" }\n"},
    {"{\"\\u006dodel\":\"a\"}", "", PRY_JSON_OK, "{\"\\u006dodel\":\"\"}"},
    {"{\"model\":null}", "b", PRY_JSON_OK, "{\"model\":\"b\"}"},
    {"{\"model\":\"a\"}", "q\"\\\n", PRY_JSON_OK, "{\"model\":\"q\\\"\\\\\\n\"}"},
    {"{\"m\":{\"model\":\"inner\"},\"model\":\"a\"}", "b", PRY_JSON_OK,
     "{\"m\":{\"model\":\"inner\"},\"model\":\"b\"}"},
    {"{\"m\":1}", "b", PRY_JSON_NOT_FOUND, ""},
    {"[]", "b", PRY_JSON_NOT_OBJECT, ""},
    {"{\"model\":\"a\",\"model\":\"a\"}", "b", PRY_JSON_DUPLICATE, ""},
    {"{\"model\":\"a\"", "b", PRY_JSON_SYNTAX, ""},
};

static void test_splice_model(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(splices); i++) {
    struct pry_buffer out;
    pry_buffer_init(&out, 0);
    assert_int_equal(pry_json_splice_model(pry_slice_of(splices[i].text), pry_slice_of(splices[i].model), &out),
                     splices[i].result);
    assert_string_equal(pry_buffer_text(&out), splices[i].expected);
    pry_buffer_fini(&out);
  }
}

static void test_splice(void **state)
{
  (void)state;
  struct pry_slice text = PRY_SLICE("{\"a\":[1,2]}");
  struct pry_buffer out;
  struct pry_json_value value;
  pry_buffer_init(&out, 12);
  assert_true(pry_json_get(text, "a.1", &value));
  assert_true(pry_json_splice(text, value.raw, PRY_SLICE("30"), &out));
  assert_string_equal(pry_buffer_text(&out), "{\"a\":[1,30]}");
  pry_buffer_clear(&out);
  assert_false(pry_json_splice(text, value.raw, PRY_SLICE("300"), &out)); /* over the buffer's limit */
  assert_int_equal(out.size, 0);
  assert_int_equal(pry_json_splice_model(PRY_SLICE("{\"model\":\"a\"}"), PRY_SLICE("bcd"), &out), PRY_JSON_NO_MEMORY);
  assert_int_equal(out.size, 0);
  assert_false(pry_json_splice(text, PRY_SLICE("2"), PRY_SLICE("3"), &out)); /* not a slice of the text */
  assert_false(pry_json_splice(text, (struct pry_slice){value.raw.data, text.size}, PRY_SLICE("3"), &out));
  pry_buffer_fini(&out);
}

/* Strings are skipped in blocks: what ends them must be seen at every place of one, and behind the last. */
static void every_place_of_a_long_string_is_looked_at(void **unused)
{
  (void)unused;
  char text[80];
  for (size_t size = 0; size < 50; size++) {
    memset(text, 'x', sizeof text);
    text[0] = '"';
    text[size + 1] = '"';
    assert_int_equal(pry_json_parse((struct pry_slice){text, size + 2}, NULL), PRY_JSON_OK);
    assert_int_equal(pry_json_parse((struct pry_slice){text, size + 1}, NULL), PRY_JSON_SYNTAX);
    assert_int_equal(pry_json_parse((struct pry_slice){text, size + 3}, NULL), PRY_JSON_SYNTAX);
    for (size_t at = 1; at <= size; at++) {
      text[at] = '\x1F';
      assert_int_equal(pry_json_parse((struct pry_slice){text, size + 2}, NULL), PRY_JSON_SYNTAX);
      text[at] = '\\';
      assert_int_equal(pry_json_parse((struct pry_slice){text, size + 2}, NULL), PRY_JSON_SYNTAX); /* \x, or \" */
      text[at] = (char)(at % 2 ? 0x80 : 0xFF);
      assert_int_equal(pry_json_parse((struct pry_slice){text, size + 2}, NULL), PRY_JSON_OK);
    }
  }
}

static void whole_numbers_are_what_they_were(void **unused)
{
  (void)unused;
  double number;
  assert_true(pry_json_number(PRY_SLICE("0"), &number) && number == 0);
  assert_true(pry_json_number(PRY_SLICE("-0"), &number) && number == 0 && signbit(number));
  assert_true(pry_json_number(PRY_SLICE("999999999999999"), &number) && number == 999999999999999.0);
  assert_true(pry_json_number(PRY_SLICE("9007199254740993"), &number) && number == 9007199254740992.0);
  assert_false(pry_json_number(PRY_SLICE("012"), &number));
  assert_false(pry_json_number(PRY_SLICE(""), &number));
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_syntax),
      cmocka_unit_test(test_every_cut_is_refused),
      cmocka_unit_test(test_string_scan_sees_every_byte),
      cmocka_unit_test(test_depth),
      cmocka_unit_test(test_brackets_cost_nothing),
      cmocka_unit_test(test_members),
      cmocka_unit_test(test_requests),
      cmocka_unit_test(test_bad_paths),
      cmocka_unit_test(test_paths),
      cmocka_unit_test(test_strings),
      cmocka_unit_test(test_bad_strings),
      cmocka_unit_test(test_numbers),
      cmocka_unit_test(test_integers),
      cmocka_unit_test(test_splice_model),
      cmocka_unit_test(every_place_of_a_long_string_is_looked_at),
      cmocka_unit_test(whole_numbers_are_what_they_were),
      cmocka_unit_test(test_splice),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
