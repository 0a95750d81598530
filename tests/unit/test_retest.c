/* Which of a set's own tests a take-over runs again. */
#include "retest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

static const struct pry_dialect openai = {.name = "openai"}, kimi = {.name = "kimi"};
static const struct pry_provider both[] = {{.name = "p", .dialect = &openai}, {.name = "q", .dialect = &kimi}};
static const struct pry_instance retry = {.policy = "retry"}, alert = {.policy = "alert"};
static const struct pry_instance *const chain[] = {&retry, &alert};

/* A configuration that uses the first `policies` of the chain and the first `providers`. */
static struct pry_config config_of(size_t policies, size_t providers)
{
  return (struct pry_config){
      .providers = both, .provider_count = providers, .instances = chain, .instance_count = policies};
}

static const struct {
  const char *path, *text;
} FILES[] = {{"alert.lua", "A"},
             {"alert_test.lua", "t:use('alert')"},
             {"dialects/kimi.lua", "K"},
             {"dialects/kimi_test.lua", "t:dialect('kimi')"},
             {"dialects/openai.lua", "O"},
             {"dialects/openai_test.lua", ""},
             {"init.lua", "I"},
             {"lib/backoff.lua", "B"},
             {"lib/backoff_test.lua", ""},
             {"mine_test.lua", "about nothing in particular"},
             {"retry.lua", "R"},
             {"retry_test.lua", "t:use('retry') t:use('alert')"}};

/* The set with one file's text replaced (path NULL: none), or left out (text NULL). */
static struct pry_policy_set *set_with(const char *path, const char *text)
{
  struct pry_policy_set *set = pry_policy_set_new();
  for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
    bool this = path && strcmp(path, FILES[i].path) == 0;
    if (!this || text)
      assert_true(pry_policy_set_add(set, FILES[i].path, pry_slice_of(this ? text : FILES[i].text)));
  }
  assert_true(pry_policy_set_seal(set));
  return set;
}

/* The first letters of the test files that are run, by path. */
static const char *needed(const struct pry_policy_set *set, const struct pry_config *config,
                          const struct pry_generation *proven)
{
  static char text[128];
  text[0] = '\0';
  for (size_t i = 0; i < set->count; i++) {
    const struct pry_policy_file *file = &set->files[i];
    if (!pry_is_test_file(file->path) || !pry_retest_is_needed(set, config, proven, file))
      continue;
    const char *slash = strchr(file->path, '/');
    strncat(text, slash ? slash + 1 : file->path, strcspn(slash ? slash + 1 : file->path, "_"));
    strcat(text, " ");
  }
  return text;
}

static void without_anything_proven_all_that_is_used_is_run(void **state)
{
  (void)state;
  struct pry_policy_set *set = set_with(NULL, NULL);
  struct pry_config all = config_of(2, 2), some = config_of(1, 1), none = config_of(0, 0);
  assert_string_equal(needed(set, &all, NULL), "alert kimi openai backoff mine retry ");
  assert_string_equal(needed(set, &some, NULL), "openai backoff mine retry ");
  assert_string_equal(needed(set, &none, NULL), "openai backoff mine ");
  struct pry_generation untested = {.set = set, .config = &all};
  assert_string_equal(needed(set, &all, &untested), "alert kimi openai backoff mine retry ");
  pry_policy_set_free(set);
}

static void what_was_proven_is_not_run_again(void **state)
{
  (void)state;
  struct pry_policy_set *before = set_with(NULL, NULL);
  struct pry_config all = config_of(2, 2), some = config_of(1, 2);
  struct pry_generation proven = {.set = before, .config = &all, .tested = true};
  static const struct {
    const char *path, *text, *needed;
  } edits[] = {
      {NULL, NULL, ""},
      {"init.lua", "I2", ""},
      {"retry.lua", "R2", "retry "},
      {"retry_test.lua", "R2", "retry "},
      {"alert.lua", "A2", "alert retry "}, /* the tests of retry use it, too */
      {"alert_test.lua", "A2", "alert "},
      {"dialects/kimi.lua", "K2", "alert kimi openai backoff mine retry "},
      {"lib/backoff.lua", "B2", "alert kimi openai backoff mine retry "},
      {"lib/backoff.lua", NULL, "alert kimi openai backoff mine retry "},
      {"alert_test.lua", NULL, ""},
      {"mine_test.lua", "more", "mine "},
  };
  for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
    struct pry_policy_set *set = set_with(edits[i].path, edits[i].text);
    if (strcmp(needed(set, &all, &proven), edits[i].needed) != 0)
      fail_msg("%s: %s, not %s", edits[i].path ? edits[i].path : "nothing", needed(set, &all, &proven),
               edits[i].needed);
    pry_policy_set_free(set);
  }
  /* It was not in use before, so its tests were not run. */
  proven.config = &some;
  assert_string_equal(needed(before, &all, &proven), "alert ");
  pry_policy_set_free(before);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(without_anything_proven_all_that_is_used_is_run),
      cmocka_unit_test(what_was_proven_is_not_run_again),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
