/* Routes, globs, URLs: which target a request goes to. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void globs_match(void **unused)
{
  (void)unused;
  static const struct {
    const char *pattern, *text;
    bool matches;
  } rows[] = {
      {"*", "", true},          {"*", "anything", true},     {"a*", "abc", true},
      {"a*", "ba", false},      {"*c", "abc", true},         {"a*c", "abbbc", true},
      {"a*c", "ab", false},     {"a*b*c", "axxbyyc", true},  {"a*b*c", "axxcyyb", false},
      {"exact", "exact", true}, {"exact", "exact2", false},  {"", "", true},
      {"", "x", false},         {"kimi-*", "kimi-k2", true}, {"/v1/*", "/v1/", true},
      {"/v1/*", "/v1", false},  {"**", "x", true},           {"a**b", "ab", true},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    assert_int_equal(pry_glob_match(pry_slice_of(rows[i].pattern), pry_slice_of(rows[i].text)), rows[i].matches);
}

static void exact_beats_glob_and_longer_beats_shorter(void **unused)
{
  (void)unused;
  assert_true(pry_glob_rank(PRY_SLICE("/v1/x")) > pry_glob_rank(PRY_SLICE("/v1/x*")));
  assert_true(pry_glob_rank(PRY_SLICE("/v1/messages*")) > pry_glob_rank(PRY_SLICE("/v1/*")));
  assert_int_equal(pry_glob_rank(PRY_SLICE("ab*")), pry_glob_rank(PRY_SLICE("*ab")));
}

static void routes_give_what_the_star_matched(void **unused)
{
  (void)unused;
  const struct pry_route routes[] = {{.pattern = "/v1/models"}, {.pattern = "/v1/*"}, {.pattern = "/x/*/y"}};
  const struct pry_config config = {.routes = routes, .route_count = 3};
  struct pry_slice rest;
  assert_ptr_equal(pry_config_route(&config, PRY_SLICE("/v1/models"), &rest), &routes[0]);
  assert_int_equal(rest.size, 0);
  assert_ptr_equal(pry_config_route(&config, PRY_SLICE("/v1/chat/completions"), &rest), &routes[1]);
  assert_true(pry_slice_equal(rest, PRY_SLICE("chat/completions")));
  assert_ptr_equal(pry_config_route(&config, PRY_SLICE("/x/a/b/y"), &rest), &routes[2]);
  assert_true(pry_slice_equal(rest, PRY_SLICE("a/b")));
  assert_null(pry_config_route(&config, PRY_SLICE("/v2/x"), &rest));
}

static void no_model_matches_only_the_star(void **unused)
{
  (void)unused;
  const struct pry_model_rule rules[] = {{.pattern = "kimi-*"}, {.pattern = "*"}};
  const struct pry_route both = {.rules = rules, .rule_count = 2}, one = {.rules = rules, .rule_count = 1};
  assert_ptr_equal(pry_route_rule(&both, PRY_SLICE("")), &rules[1]);
  assert_ptr_equal(pry_route_rule(&both, PRY_SLICE("kimi-k2")), &rules[0]);
  assert_ptr_equal(pry_route_rule(&both, PRY_SLICE("gpt")), &rules[1]);
  assert_null(pry_route_rule(&one, PRY_SLICE("")));
}

static void urls_join_with_one_slash(void **unused)
{
  (void)unused;
  static const char *const rows[][4] = {
      {"http://h/v1", "chat", "", "http://h/v1/chat"},         {"http://h/v1/", "/chat", "", "http://h/v1/chat"},
      {"http://h", "chat", "a=b&c", "http://h/chat?a=b&c"},    {"http://h/v1", "", "", "http://h/v1"},
      {"http://h/v1", "a%2Fb//c", "", "http://h/v1/a%2Fb//c"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct pry_buffer url;
    pry_buffer_init(&url, 0);
    assert_true(pry_join_url(&url, rows[i][0], pry_slice_of(rows[i][1]), pry_slice_of(rows[i][2])));
    assert_string_equal(pry_buffer_text(&url), rows[i][3]);
    pry_buffer_fini(&url);
  }
}

static void the_path_tells_the_clients_dialect(void **unused)
{
  (void)unused;
  const struct pry_route says = {.client_dialect = "kimi"}, silent = {0};
  assert_string_equal(pry_client_dialect(&silent, PRY_SLICE("/v1/messages")), "anthropic");
  assert_string_equal(pry_client_dialect(&silent, PRY_SLICE("/v1/messages/count_tokens")), "anthropic");
  assert_string_equal(pry_client_dialect(&silent, PRY_SLICE("/v1/chat/completions")), "openai");
  assert_string_equal(pry_client_dialect(&says, PRY_SLICE("/v1/messages")), "kimi");
  assert_string_equal(pry_client_dialect(NULL, PRY_SLICE("/")), "openai");
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(globs_match),
      cmocka_unit_test(exact_beats_glob_and_longer_beats_shorter),
      cmocka_unit_test(routes_give_what_the_star_matched),
      cmocka_unit_test(no_model_matches_only_the_star),
      cmocka_unit_test(urls_join_with_one_slash),
      cmocka_unit_test(the_path_tells_the_clients_dialect),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
