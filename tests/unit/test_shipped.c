/* What a folder of policies lacks comes from the shipped ones: what its texts name in quotes, and no more. */
#include "shipped.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define SHIPPED PARRY_SOURCE_DIR "/policies"

static struct pry_policy_set *of_text(const char *init, const char *shipped)
{
  struct pry_buffer report;
  pry_buffer_init(&report, 4096);
  struct pry_policy_set *set = pry_policy_set_from_text(init, shipped, &report);
  assert_int_equal(report.size, 0);
  pry_buffer_fini(&report);
  return set;
}

static bool has(const struct pry_policy_set *set, const char *path)
{
  return pry_policy_set_find(set, path);
}

static void what_is_named_in_quotes_comes_with_what_it_needs(void **state)
{
  (void)state;
  struct pry_policy_set *set = of_text("use \"retry\" use 'alert' -- \"no such\" \"../secret\"", SHIPPED);
  assert_true(has(set, "retry.lua") && has(set, "alert.lua") && has(set, "lib/backoff.lua"));
  assert_true(has(set, "dialects/openai.lua") && has(set, "dialects/generic.lua"));
  assert_false(has(set, "keys.lua") || has(set, "chaos.lua") || has(set, "retry_test.lua"));
  pry_policy_set_free(set);
}

/* A grant is a word that no file has for its name: credentials of hosts were refused for want of lib/grants.lua. */
static void a_grant_comes_with_its_library(void **state)
{
  (void)state;
  struct pry_policy_set *set = of_text("credential \"c\" { grant = \"oauth\" }", SHIPPED);
  assert_true(has(set, "lib/grants.lua"));
  pry_policy_set_free(set);
}

static void quotes_that_follow_each_other_hide_nothing(void **state)
{
  (void)state;
  struct pry_policy_set *set = of_text("x = \"\" use\"retry\"'alert'\"keys", SHIPPED);
  assert_true(has(set, "retry.lua") && has(set, "alert.lua"));
  assert_false(has(set, "keys.lua")); /* never closed */
  pry_policy_set_free(set);
}

static void a_file_of_the_folder_wins(void **state)
{
  (void)state;
  char folder[] = "/tmp/test_shipped.XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  static const char *const files[] = {"init.lua", "retry.lua", "retry_test.lua"};
  for (size_t i = 0; i < 3; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, files[i]);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(i ? "-- ours" : "use \"retry\"", file);
    assert_int_equal(fclose(file), 0);
  }
  struct pry_buffer report;
  pry_buffer_init(&report, 4096);
  struct pry_policy_set *set = pry_policy_set_read(folder, SHIPPED, &report);
  assert_non_null(set);
  assert_string_equal(pry_policy_set_find(set, "retry.lua")->text, "-- ours");
  assert_true(has(set, "retry_test.lua") && has(set, "dialects/openai.lua"));
  assert_false(has(set, "lib/backoff.lua")); /* ours does not need it */
  pry_policy_set_free(set);
  set = pry_policy_set_read(folder, NULL, &report);
  assert_int_equal(set->count, 3);
  pry_policy_set_free(set);
  pry_buffer_fini(&report);
  for (size_t i = 0; i < 3; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, files[i]);
    unlink(path);
  }
  rmdir(folder);
}

/* The repository's own folder is the shipped one. */
static void the_shipped_folder_lacks_nothing(void **state)
{
  (void)state;
  struct pry_buffer report;
  pry_buffer_init(&report, 4096);
  struct pry_policy_set *alone = pry_policy_set_read(SHIPPED, NULL, &report);
  struct pry_policy_set *completed = pry_policy_set_read(SHIPPED, SHIPPED "/lib/..", &report);
  assert_string_equal(alone->id, completed->id);
  pry_policy_set_free(alone);
  pry_policy_set_free(completed);
  pry_buffer_fini(&report);
}

static void nowhere_is_no_error(void **state)
{
  (void)state;
  struct pry_policy_set *set = of_text("use \"retry\"", NULL);
  assert_int_equal(set->count, 1);
  pry_policy_set_free(set);
  set = of_text("use \"retry\"", "/nonexistent");
  assert_int_equal(set->count, 1);
  pry_policy_set_free(set);
}

static void the_environment_says_where(void **state)
{
  (void)state;
  char path[PRY_SHIPPED_PATH_MAX];
  setenv("PARRY_SHARE", "/told", 1);
  assert_string_equal(pry_shipped_folder(path), "/told");
  unsetenv("PARRY_SHARE");
  assert_non_null(strstr(pry_shipped_folder(path), "share/parry/policies"));
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_named_in_quotes_comes_with_what_it_needs),
      cmocka_unit_test(a_grant_comes_with_its_library),
      cmocka_unit_test(quotes_that_follow_each_other_hide_nothing),
      cmocka_unit_test(a_file_of_the_folder_wins),
      cmocka_unit_test(the_shipped_folder_lacks_nothing),
      cmocka_unit_test(nowhere_is_no_error),
      cmocka_unit_test(the_environment_says_where),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
