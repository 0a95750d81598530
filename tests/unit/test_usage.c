/* Reading tokens out of answers, and what they cost. */
#include "usage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct pry_usage usage_of(const char *place, const char *other_place, const char *input, const char *output)
{
  struct pry_usage usage = {0};
  assert_null(pry_usage_add_place(&usage, pry_slice_of(place)));
  if (other_place)
    assert_null(pry_usage_add_place(&usage, pry_slice_of(other_place)));
  assert_null(pry_usage_add(&usage.input, pry_slice_of(input)));
  assert_null(pry_usage_add(&usage.output, pry_slice_of(output)));
  assert_null(pry_usage_add(&usage.cached, PRY_SLICE("details.cached")));
  assert_null(pry_usage_add(&usage.total, PRY_SLICE("total")));
  return usage;
}

static struct pry_tokens read_text(const struct pry_usage *usage, const char *text)
{
  struct pry_tokens tokens = {0};
  pry_usage_read(usage, pry_slice_of(text), &tokens);
  return tokens;
}

static void assert_tokens(const struct pry_tokens *tokens, int64_t input, int64_t output, int64_t cached)
{
  assert_true(tokens->known);
  assert_int_equal(tokens->input, input);
  assert_int_equal(tokens->output, output);
  assert_int_equal(tokens->cached, cached);
}

static void test_places(void **state)
{
  (void)state;
  const struct pry_usage usage = usage_of("usage", "response.usage", "in", "out");
  struct pry_tokens tokens = read_text(&usage, "{\"usage\":{\"in\":3,\"out\":4,\"details\":{\"cached\":2}}}");
  assert_tokens(&tokens, 3, 4, 2);
  tokens = read_text(&usage, "{\"usage\" :\n null, \"response\":{\"usage\"\t: {\"out\":4}}}");
  assert_tokens(&tokens, 0, 4, 0);
  tokens = read_text(&usage, "{\"other\":{\"usage\":{\"in\":3}}}");
  assert_false(tokens.known);
  tokens = read_text(&usage, "{\"choices\":[{\"text\":\"{\\\"usage\\\":{\\\"in\\\":3}}\"}]}");
  assert_false(tokens.known);
}

static void test_sums_and_alternatives(void **state)
{
  (void)state;
  struct pry_usage usage = usage_of("u", NULL, "prompt", "out");
  assert_null(pry_usage_add(&usage.input, PRY_SLICE("fresh + read + written")));
  struct pry_tokens tokens = read_text(&usage, "{\"u\":{\"fresh\":1,\"read\":20,\"written\":300}}");
  assert_tokens(&tokens, 321, 0, 0);
  tokens = read_text(&usage, "{\"u\":{\"read\":20}}");
  assert_tokens(&tokens, 20, 0, 0);
  tokens = read_text(&usage, "{\"u\":{\"fresh\":1,\"prompt\":5}}");
  assert_tokens(&tokens, 5, 0, 0);
  tokens = read_text(&usage, "{\"u\":{\"total\":9}}");
  assert_tokens(&tokens, 9, 0, 0);
  tokens = read_text(&usage, "{\"u\":{\"total\":9,\"out\":2}}");
  assert_tokens(&tokens, 0, 2, 0);
}

/* What Gemini calls them: thoughts are paid for as output, and prompts of tools as input. */
static void test_gemini(void **state)
{
  (void)state;
  struct pry_usage usage = {0};
  assert_null(pry_usage_add_place(&usage, PRY_SLICE("usageMetadata")));
  assert_null(pry_usage_add(&usage.input, PRY_SLICE("promptTokenCount + toolUsePromptTokenCount")));
  assert_null(pry_usage_add(&usage.output, PRY_SLICE("candidatesTokenCount + thoughtsTokenCount")));
  assert_null(pry_usage_add(&usage.cached, PRY_SLICE("cachedContentTokenCount")));
  struct pry_tokens tokens =
      read_text(&usage, "{\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":8,\"candidatesTokenCount\":3,"
                        "\"thoughtsTokenCount\":20,\"cachedContentTokenCount\":4,\"totalTokenCount\":31}}");
  assert_tokens(&tokens, 8, 23, 4);
}

static void test_nonsense(void **state)
{
  (void)state;
  const struct pry_usage usage = usage_of("usage", NULL, "in", "out");
  static const char *const texts[] = {"",
                                      "usage",
                                      "\"usage\"",
                                      "\"usage\":{",
                                      "{\"usage\":{",
                                      "{\"usage\":[{\"in\":1}]}",
                                      "{\"usage\":{\"in\":-1}}",
                                      "{\"usage\":{\"in\":1e13}}",
                                      "{\"usage\":{\"in\":1e999}}",
                                      "{\"usage\":{\"in\":\"1\"}}",
                                      "{\"usage\":{\"in\":true,\"out\":null}}",
                                      "[{\"usage\":{\"in\":1}}]"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct pry_tokens tokens = read_text(&usage, texts[i]);
    assert_false(tokens.known);
  }
  struct pry_tokens tokens = read_text(&usage, "{\"usage\":{\"in\":1.9,\"out\":1e3}}");
  assert_tokens(&tokens, 1, 1000, 0);
  const struct pry_usage none = {0};
  tokens = read_text(&none, "{\"usage\":{\"in\":1}}");
  assert_false(tokens.known);
}

static void test_bad_declarations(void **state)
{
  (void)state;
  struct pry_usage usage = {0};
  assert_string_equal(pry_usage_add_place(&usage, PRY_SLICE("")), "empty path");
  assert_string_equal(pry_usage_add_place(&usage, PRY_SLICE("choices.*")),
                      "it must end with the name of the usage object");
  assert_int_equal(usage.place_count, 0);
  assert_string_equal(pry_usage_add(&usage.input, PRY_SLICE("a + ")), "empty path");
  usage = (struct pry_usage){0};
  assert_string_equal(pry_usage_add(&usage.input, PRY_SLICE("a+b+c+d+e+f+g+h+i+j+k+l+m")), "too many paths");
  for (int i = 0; i < PRY_USAGE_PLACES_MAX; i++)
    assert_null(pry_usage_add_place(&usage, PRY_SLICE("usage")));
  assert_string_equal(pry_usage_add_place(&usage, PRY_SLICE("usage")), "too many places");
}

/* Numbers of one attempt only grow, however often and in which order they are told. */
static void test_merge(void **state)
{
  (void)state;
  const struct pry_usage usage = usage_of("usage", NULL, "in", "out");
  struct pry_tokens tokens = {0};
  pry_usage_read(&usage, PRY_SLICE("{\"usage\":{\"in\":50,\"out\":1}}"), &tokens);
  pry_usage_read(&usage, PRY_SLICE("{\"usage\":{\"out\":9}}"), &tokens);
  pry_usage_read(&usage, PRY_SLICE("{\"usage\":{\"in\":0,\"out\":4}}"), &tokens);
  assert_tokens(&tokens, 50, 9, 0);
}

/* The end of a long body, cut anywhere before the object. */
static void test_tail(void **state)
{
  (void)state;
  static const char text[] =
      "{\"data\":[{\"usage\":{\"in\":99}},\"\\\"usage\\\":{\\\"in\\\":7}\"],\"usage\": {\"in\":3,"
      "\"out\":1},\"model\":\"usage\"}";
  const struct pry_usage usage = usage_of("usage", "response.usage", "in", "out");
  size_t last = (size_t)(strstr(text, "\"usage\": {") - text);
  for (size_t from = 0; from < sizeof text; from++) {
    struct pry_tokens tokens = {0};
    pry_usage_read_tail(&usage, (struct pry_slice){text + from, sizeof text - 1 - from}, &tokens);
    assert_int_equal(tokens.known, from <= last);
    if (tokens.known)
      assert_tokens(&tokens, 3, 1, 0);
  }
}

static void test_cost(void **state)
{
  (void)state;
  const struct pry_price price = {.input = 3, .output = 15, .cached = 0.3};
  struct pry_tokens tokens = {true, 1000000, 100000, 400000};
  assert_float_equal(pry_price_cost(&price, &tokens), 1.8 + 0.12 + 1.5, 1e-9);
  tokens.cached = 2000000; /* more than there was: no negative price */
  assert_float_equal(pry_price_cost(&price, &tokens), 0.3 + 1.5, 1e-9);
  struct pry_spending sum = {0}, one = {.tokens = tokens, .priced = true, .cost = 2}, unknown = {0};
  pry_spending_add(&sum, &unknown);
  assert_false(sum.priced || sum.tokens.known);
  pry_spending_add(&sum, &one);
  pry_spending_add(&sum, &one);
  assert_float_equal(sum.cost, 4, 0);
  assert_int_equal(pry_tokens_total(&sum.tokens), 2200000);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_places),   cmocka_unit_test(test_sums_and_alternatives),
      cmocka_unit_test(test_nonsense), cmocka_unit_test(test_bad_declarations),
      cmocka_unit_test(test_merge),    cmocka_unit_test(test_tail),
      cmocka_unit_test(test_cost),     cmocka_unit_test(test_gemini),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
