/* Policy sets: read once, named by content, refused with a reason. */
#include "registry.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];

static int make_folder(void **unused)
{
  (void)unused;
  snprintf(folder, sizeof folder, "/tmp/parry-registry-XXXXXX");
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **unused)
{
  (void)unused;
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  return system(command);
}

static void write_file(const char *path, const char *text)
{
  char full[256];
  snprintf(full, sizeof full, "%s/%s", folder, path);
  FILE *file = fopen(full, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0);
  assert_int_equal(fclose(file), 0);
}

static struct pry_policy_set *read_set(char *id)
{
  struct pry_buffer report;
  pry_buffer_init(&report, 0);
  struct pry_policy_set *set = pry_policy_set_read(folder, NULL, &report);
  assert_non_null(set);
  assert_int_equal(report.size, 0);
  memcpy(id, set->id, sizeof set->id);
  pry_buffer_fini(&report);
  return set;
}

static void a_set_is_named_by_its_content(void **unused)
{
  (void)unused;
  char full[256], first[PRY_GENERATION_ID_MAX], second[PRY_GENERATION_ID_MAX];
  snprintf(full, sizeof full, "%s/lib", folder);
  assert_int_equal(mkdir(full, 0700), 0);
  write_file("init.lua", "-- one");
  write_file("retry.lua", "return 1");
  write_file("lib/backoff.lua", "return 2");
  write_file(".hidden.lua", "no");
  write_file("notes.txt", "no");
  struct pry_policy_set *set = read_set(first);
  assert_int_equal(set->count, 3);
  assert_string_equal(set->files[0].path, "init.lua");
  assert_string_equal(set->files[1].path, "lib/backoff.lua");
  assert_string_equal(pry_policy_set_find(set, "retry.lua")->text, "return 1");
  assert_null(pry_policy_set_find(set, "notes.txt"));
  pry_policy_set_free(set);
  write_file("notes.txt", "changed");
  pry_policy_set_free(read_set(second));
  assert_string_equal(first, second);
  write_file("retry.lua", "return 3");
  pry_policy_set_free(read_set(second));
  assert_string_not_equal(first, second);
  write_file("retry.lua", "return 1");
  pry_policy_set_free(read_set(second));
  assert_string_equal(first, second);
}

static void a_folder_that_cannot_be_read_is_told(void **unused)
{
  (void)unused;
  struct pry_buffer report;
  char full[256];
  pry_buffer_init(&report, 0);
  assert_null(pry_policy_set_read("/nonexistent/policies", NULL, &report));
  assert_non_null(strstr(pry_buffer_text(&report), "/nonexistent/policies: No such file"));
  pry_buffer_clear(&report);
  assert_null(pry_policy_set_read("/proc/self/fdinfo", NULL, &report));
  assert_non_null(strstr(pry_buffer_text(&report), "has no init.lua"));
  pry_buffer_clear(&report);
  snprintf(full, sizeof full, "%s/fifo.lua", folder);
  assert_int_equal(mkfifo(full, 0600), 0);
  assert_null(pry_policy_set_read(folder, NULL, &report));
  assert_non_null(strstr(pry_buffer_text(&report), "fifo.lua: is not a regular file"));
  assert_int_equal(unlink(full), 0);
  pry_buffer_clear(&report);
  snprintf(full, sizeof full, "%s/big.lua", folder);
  int fd = open(full, O_CREAT | O_WRONLY, 0600);
  assert_true(fd >= 0);
  assert_int_equal(ftruncate(fd, PRY_POLICY_FILE_MAX + 1), 0);
  close(fd);
  assert_null(pry_policy_set_read(folder, NULL, &report));
  assert_non_null(strstr(pry_buffer_text(&report), "big.lua"));
  assert_int_equal(unlink(full), 0);
  pry_buffer_fini(&report);
}

static void the_same_path_twice_is_refused(void **unused)
{
  (void)unused;
  struct pry_policy_set *set = pry_policy_set_new();
  assert_true(pry_policy_set_add(set, "a.lua", PRY_SLICE("1")));
  assert_true(pry_policy_set_add(set, "a.lua", PRY_SLICE("2")));
  assert_false(pry_policy_set_seal(set));
  pry_policy_set_free(set);
}

static struct pry_policy_set *set_of_two(const char *first, const char *second)
{
  struct pry_policy_set *set = pry_policy_set_new();
  assert_non_null(set);
  assert_true(pry_policy_set_add(set, "a.lua", pry_slice_of(first)));
  assert_true(pry_policy_set_add(set, "b.lua", pry_slice_of(second)));
  assert_true(pry_policy_set_seal(set));
  return set;
}

/* A reload changes one file, and compiled all of them again. */
static void what_was_compiled_of_the_same_text_is_shared(void **unused)
{
  (void)unused;
  struct pry_policy_set *serving = set_of_two("1", "2"), *edited = set_of_two("1", "3"), *other = pry_policy_set_new();
  serving->files[0].compiled = pry_compiled_new(PRY_SLICE("one"));
  serving->files[1].compiled = pry_compiled_new(PRY_SLICE("two"));
  assert_non_null(serving->files[0].compiled);
  pry_policy_set_share(edited, serving);
  assert_ptr_equal(edited->files[0].compiled, serving->files[0].compiled);
  assert_null(edited->files[1].compiled); /* the same path and size, but not the same text */
  assert_true(pry_policy_set_add(other, "c.lua", PRY_SLICE("1")) && pry_policy_set_seal(other));
  pry_policy_set_share(other, serving);
  assert_null(other->files[0].compiled);
  pry_policy_set_free(serving);
  assert_memory_equal(edited->files[0].compiled->bytes, "one", 3);
  pry_policy_set_share(other, edited);
  pry_policy_set_free(edited);
  pry_policy_set_free(other);
}

static void reports_are_bounded_and_errors_come_first(void **unused)
{
  (void)unused;
  struct pry_report report;
  struct pry_buffer text;
  pry_report_init(&report);
  pry_buffer_init(&text, 0);
  pry_report_add(&report, PRY_FINDING_WARNING, "a.lua:1", "careful with %d", 1);
  pry_report_add(&report, PRY_FINDING_ERROR, "b.lua:2", "wrong");
  assert_true(pry_report_text(&report, &text));
  assert_string_equal(pry_buffer_text(&text), "b.lua:2: wrong\na.lua:1: warning: careful with 1\n");
  for (int i = 0; i < 200; i++)
    pry_report_add(&report, PRY_FINDING_ERROR, "c.lua", "more");
  assert_int_equal(report.errors, 201);
  assert_int_equal(report.count, 100);
  assert_int_equal(report.more, 102);
  pry_buffer_fini(&text);
  pry_report_fini(&report);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_set_is_named_by_its_content),
      cmocka_unit_test(a_folder_that_cannot_be_read_is_told),
      cmocka_unit_test(the_same_path_twice_is_refused),
      cmocka_unit_test(what_was_compiled_of_the_same_text_is_shared),
      cmocka_unit_test(reports_are_bounded_and_errors_come_first),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
