/* Errors in good answers: the quick search must say what a walk through the JSON says. */
#include "dialect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *const fine_items[] = {"false", "\"\"", "0"};

static const struct pry_dialect dialect = {
    .name = "test",
    .error_in_200 = {.items = {{.name = "error", .fine = {fine_items, 2}},
                               {.name = "errcode", .fine = {fine_items, 3}}},
                     .count = 2},
};
static const struct pry_dialect odd_names = {
    .name = "odd",
    .error_in_200 = {.items = {{.name = "a/b"}, {.name = "say \"x\""}}, .count = 2},
};

/* What the dialect promises, without anything clever. */
static bool walk(const struct pry_dialect *of, struct pry_slice text)
{
  struct pry_json_iterator members;
  struct pry_slice key;
  struct pry_json_value value;
  pry_json_iterate(&members, text);
  if (members.result != PRY_JSON_OK || members.type != PRY_JSON_OBJECT)
    return false;
  while (pry_json_next(&members, &key, &value)) {
    for (size_t i = 0; i < of->error_in_200.count; i++) {
      const struct pry_error_field *field = &of->error_in_200.items[i];
      bool fine = value.type == PRY_JSON_NULL || pry_slice_equal(value.raw, PRY_SLICE("{}")) ||
                  pry_slice_equal(value.raw, PRY_SLICE("[ ]"));
      for (size_t k = 0; k < field->fine.count; k++)
        fine = fine || pry_slice_equal(pry_slice_of(field->fine.items[k]), value.raw);
      if (!fine && pry_json_equals(key, pry_slice_of(field->name)))
        return true;
    }
  }
  return false;
}

static void test_known_answers(void **state)
{
  (void)state;
  static const struct {
    const char *body;
    bool is_error;
  } cases[] = {
      {"", false},
      {"{}", false},
      {"{\"error\":{\"message\":\"x\"}}", true},
      {"{\"error\":null}", false},
      {"{\"error\":{}}", false},
      {"{\"error\":[ ]}", false},
      {"{\"error\":[1]}", true},
      {"{\"error\":false,\"errcode\":0}", false},
      {"{\"a\":1,\"errcode\":7}", true},
      {"{\"a\":{\"error\":1}}", false},
      {"{\"a\":\"error\"}", false},
      {"{\"\\u0065rror\":1}", true},
      {"{\"err\\u006Fr\":1}", true},
      {"{\"\\\\u0065rror\":1}", false},
      {"{\"\\u00e9rror\":1}", false},
      {"{\"errors\":1,\"xerror\":1,\"error\" :1}", true},
      {"{\"errorerror\":1,\"error", false},
      {"{\"error\"", false},
      {"{\"a\":\"\\u00", false},
      {"{\"a\":\"\\u006", false},
      {"[\"error\"]", false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_int_equal(walk(&dialect, pry_slice_of(cases[i].body)), cases[i].is_error);
    assert_int_equal(pry_dialect_error_in_200(&dialect, pry_slice_of(cases[i].body)), cases[i].is_error);
  }
  assert_true(pry_dialect_error_in_200(&odd_names, PRY_SLICE("{\"a\\/b\":1}")));
  assert_true(pry_dialect_error_in_200(&odd_names, PRY_SLICE("{\"a/b\":1}")));
  assert_true(pry_dialect_error_in_200(&odd_names, PRY_SLICE("{\"say \\\"x\\\"\":1}")));
  assert_false(pry_dialect_error_in_200(&odd_names, PRY_SLICE("{\"a.b\":1}")));
}

static uint64_t next_random(uint64_t *state)
{
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return *state >> 33;
}

/* Mostly JSON, made of pieces that are near to what is looked for. */
static size_t make_body(uint64_t *random, char *body, size_t room)
{
  static const char *const keys[] = {
      "error",   "errcode",        "err\\u006fr",   "\\u0065rrcode", "e\\u0072\\u0072or", "Error",
      "errors",  "\\u00e9rror",    "\\\\u0065rror", "a\\/b",         "say \\\"x\\\"",     "a/b",
      "message", "\\u4e2d\\u6587", "\\u003cerror",  "er\\\"ror",     "\\u0065rror",       ""};
  static const char *const values[] = {"null",
                                       "false",
                                       "\"\"",
                                       "0",
                                       "1",
                                       "\"error\"",
                                       "{\"error\":1}",
                                       "[\"errcode\",0]",
                                       "\"\\u0065\"",
                                       "\"\\\"error\\\":1\"",
                                       "{}",
                                       "nul",
                                       "\"",
                                       "1,",
                                       "\"\\u00\""};
  size_t size = (size_t)snprintf(body, room, "{");
  size_t count = next_random(random) % 4;
  for (size_t i = 0; i < count; i++)
    size +=
        (size_t)snprintf(body + size, room - size, "%s\"%s\"%s:%s", i ? "," : "",
                         keys[next_random(random) % (sizeof keys / sizeof *keys)], next_random(random) % 4 ? "" : " ",
                         values[next_random(random) % (next_random(random) % 3 ? 11 : sizeof values / sizeof *values)]);
  size += (size_t)snprintf(body + size, room - size, "}");
  if (next_random(random) % 4 == 0)
    body[next_random(random) % size] = "\"\\{}:,u0e"[next_random(random) % 9];
  return next_random(random) % 8 ? size : next_random(random) % (size + 1);
}

static void test_search_agrees_with_walk(void **state)
{
  (void)state;
  uint64_t random = 42;
  unsigned errors = 0;
  for (unsigned i = 0; i < 200000; i++) {
    char body[512];
    struct pry_slice text = {body, make_body(&random, body, sizeof body)};
    const struct pry_dialect *of = i % 4 ? &dialect : &odd_names;
    bool expected = walk(of, text);
    errors += expected;
    if (pry_dialect_error_in_200(of, text) != expected)
      fail_msg("%.*s", (int)text.size, text.data);
  }
  assert_in_range(errors, 10000, 150000); /* both answers are tried */
}

/* A name with dots is a path. */
static void test_paths(void **state)
{
  (void)state;
  static const char *const fine[] = {"0"};
  static const struct pry_dialect of = {
      .name = "paths",
      .error_in_200 = {.items = {{.name = "feedback.reason"}, {.name = "base.status", .fine = {fine, 1}}}, .count = 2}};
  assert_true(pry_dialect_error_in_200(&of, PRY_SLICE("{\"feedback\":{\"reason\":\"SAFETY\"}}")));
  assert_true(pry_dialect_error_in_200(&of, PRY_SLICE("{\"a\":1,\"base\":{\"x\":[],\"status\":7}}")));
  assert_false(pry_dialect_error_in_200(&of, PRY_SLICE("{\"base\":{\"status\":0}}")));
  assert_false(pry_dialect_error_in_200(&of, PRY_SLICE("{\"feedback\":{\"ratings\":[{\"reason\":1}]}}")));
  assert_false(pry_dialect_error_in_200(&of, PRY_SLICE("{\"feedback\":{\"reason\":null}}")));
  assert_false(pry_dialect_error_in_200(&of, PRY_SLICE("{\"feedback.reason\":1,\"reason\":2,\"status\":3}")));
  assert_false(pry_dialect_error_in_200(&of, PRY_SLICE("{\"text\":\"feedback.reason\"}")));
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_known_answers),
      cmocka_unit_test(test_search_agrees_with_walk),
      cmocka_unit_test(test_paths),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
