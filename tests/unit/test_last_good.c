/* The last good policies on disk: what is written is read back, and whatever is not exactly that is refused. */
#include "last_good.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "state_folder.h"

static char why[PRY_STATE_WHY_MAX];
static struct pry_last_good good;

static int clean(void **unused)
{
  pry_policy_set_free(good.set);
  good.set = NULL;
  return remove_folder(unused);
}

static void add(struct pry_policy_set *set, const char *path, struct pry_slice text)
{
  assert_true(pry_policy_set_add(set, path, text));
}

/* As the reader of folders gives them: bytes of any kind, an empty file, deep folders, odd names. */
static struct pry_policy_set *make_set(void)
{
  struct pry_policy_set *set = pry_policy_set_new();
  assert_non_null(set);
  add(set, "retry.lua", PRY_SLICE("-- line\n\nend\n\0\xff"));
  add(set, "init.lua", PRY_SLICE("route"));
  add(set, "1/2/3/4/5/6/7/8/deep.lua", PRY_SLICE(""));
  add(set, "lib/two\nlines.lua", PRY_SLICE("x"));
  add(set, "lib/a..b.lua", PRY_SLICE("x"));
  assert_true(pry_policy_set_seal(set));
  return set;
}

static enum pry_state_result read_it(void)
{
  pry_policy_set_free(good.set);
  why[0] = '\0';
  enum pry_state_result result = pry_last_good_read(folder, &good, why);
  assert_int_equal(result == PRY_STATE_READ, good.set != NULL);
  return result;
}

static struct pry_buffer file_bytes(void)
{
  struct pry_buffer bytes;
  pry_buffer_init(&bytes, 0);
  assert_int_equal(pry_state_file_read(folder, PRY_LAST_GOOD_NAME, 1 << 20, &bytes, why), PRY_STATE_READ);
  return bytes;
}

static void assert_refused(const char *words)
{
  assert_int_equal(read_it(), PRY_STATE_REFUSED);
  assert_non_null(strstr(why, in_folder(PRY_LAST_GOOD_NAME)));
  assert_non_null(strstr(why, "remove it"));
  if (!strstr(why, words))
    fail_msg("expected \"%s\" in: %s", words, why);
}

static void what_is_written_is_read(void **unused)
{
  (void)unused;
  struct pry_policy_set *set = make_set();
  assert_int_equal(read_it(), PRY_STATE_ABSENT);
  assert_true(pry_last_good_write(folder, set, 1790000000.125, why));
  assert_int_equal(read_it(), PRY_STATE_READ);
  assert_string_equal(good.set->id, set->id);
  assert_true(good.committed_at == 1790000000.125);
  assert_int_equal(good.set->count, set->count);
  for (size_t i = 0; i < set->count; i++) {
    assert_string_equal(good.set->files[i].path, set->files[i].path);
    assert_int_equal(good.set->files[i].size, set->files[i].size);
    assert_memory_equal(good.set->files[i].text, set->files[i].text, set->files[i].size + 1);
  }
  pry_policy_set_free(set);
}

/* Cut anywhere, with any one bit turned, or with something behind: never taken. */
static void a_damaged_file_is_refused(void **unused)
{
  (void)unused;
  struct pry_policy_set *set = make_set();
  assert_true(pry_last_good_write(folder, set, 1790000000, why));
  struct pry_buffer bytes = file_bytes();
  for (size_t size = 0; size < bytes.size; size++) {
    put_file(PRY_LAST_GOOD_NAME, (struct pry_slice){bytes.data, size});
    assert_int_equal(read_it(), PRY_STATE_REFUSED);
  }
  for (size_t i = 0; i < bytes.size; i++) {
    bytes.data[i] ^= 1 << (i % 7);
    put_file(PRY_LAST_GOOD_NAME, pry_buffer_slice(&bytes));
    if (read_it() == PRY_STATE_READ) { /* the time of the commit is not part of the name */
      assert_string_equal(good.set->id, set->id);
      assert_false(good.committed_at == 1790000000);
    }
    bytes.data[i] ^= 1 << (i % 7);
  }
  assert_true(pry_buffer_append(&bytes, "x\n", 2));
  put_file(PRY_LAST_GOOD_NAME, pry_buffer_slice(&bytes));
  assert_refused("has something behind its end");
  pry_buffer_fini(&bytes);
  pry_policy_set_free(set);
}

static void an_edit_is_named_as_such(void **unused)
{
  (void)unused;
  struct pry_policy_set *set = make_set();
  assert_true(pry_last_good_write(folder, set, 1790000000, why));
  struct pry_buffer bytes = file_bytes();
  char *word = memmem(bytes.data, bytes.size, "route", 5);
  assert_non_null(word);
  memcpy(word, "rouge", 5);
  put_file(PRY_LAST_GOOD_NAME, pry_buffer_slice(&bytes));
  assert_refused("it was damaged or edited");
  pry_buffer_fini(&bytes);
  pry_policy_set_free(set);
}

/* Written by hand, with the id that the content has: only what is said of it is wrong. */
static void put_set(const char *head, const char *path, const char *count)
{
  struct pry_policy_set *set = pry_policy_set_new();
  struct pry_buffer bytes;
  pry_buffer_init(&bytes, 0);
  add(set, path, PRY_SLICE("x"));
  add(set, "init.lua", PRY_SLICE("y"));
  assert_true(pry_policy_set_seal(set));
  assert_true(pry_buffer_append_format(&bytes, "%s\ngeneration %s\ncommitted 1.5\nfiles %s\n", head, set->id, count));
  for (size_t i = 0; i < set->count; i++)
    assert_true(pry_buffer_append_format(&bytes, "%zu 1\n%s\n%s\n", strlen(set->files[i].path), set->files[i].path,
                                         set->files[i].text));
  assert_true(pry_buffer_append_text(&bytes, "end\n"));
  put_file(PRY_LAST_GOOD_NAME, pry_buffer_slice(&bytes));
  pry_buffer_fini(&bytes);
  pry_policy_set_free(set);
}

static void paths_that_no_policy_can_have_are_refused(void **unused)
{
  (void)unused;
  static const char *const paths[] = {"../retry.lua",
                                      "/etc/retry.lua",
                                      "lib/../../retry.lua",
                                      "./retry.lua",
                                      ".retry.lua",
                                      "lib/.hidden.lua",
                                      "lib//x.lua",
                                      "..data/retry.lua",
                                      "1/2/3/4/5/6/7/8/9/deeper.lua",
                                      "retry.txt",
                                      "x.so",
                                      ".lua",
                                      "lib/.lua",
                                      "lib/retry.lua/init",
                                      "retry.lua/"};
  put_set("parry last-good 1", "lib/retry.lua", "2");
  assert_int_equal(read_it(), PRY_STATE_READ); /* what is refused below is refused for its path */
  assert_true(good.committed_at == 1.5);
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    put_set("parry last-good 1", paths[i], "2");
    assert_refused("a path that no policy can have");
  }
}

static void other_heads_are_refused(void **unused)
{
  (void)unused;
  put_set("parry last-good 2", "retry.lua", "2");
  assert_refused("was written by another version of parry");
  put_set("#!/bin/sh", "retry.lua", "2");
  assert_refused("is not what parry writes");
  static const char *const counts[] = {"", "-2", "+2", " 2", "2 ", "513", "99999999999999999999999999", "0x2"};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    put_set("parry last-good 1", "retry.lua", counts[i]);
    assert_refused("does not say how many files it holds");
  }
  put_set("parry last-good 1", "retry.lua", "1");
  assert_refused("");
  put_set("parry last-good 1", "retry.lua", "3");
  assert_refused("");
}

static void sizes_that_lie_are_refused(void **unused)
{
  (void)unused;
  static const char *const lies[] = {
      "8 2000000", "8 1048577", "600 1", "8 18446744073709551617", "18446744073709551615 1", "8", "8 -1", "-8 1"};
  struct pry_policy_set *set = make_set();
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    char text[512];
    int length =
        snprintf(text, sizeof text, "parry last-good 1\ngeneration %s\ncommitted 1\nfiles 1\n%s\ninit.lua\nx\nend\n",
                 set->id, lies[i]);
    put_file(PRY_LAST_GOOD_NAME, (struct pry_slice){text, (size_t)length});
    assert_refused("");
  }
  pry_policy_set_free(set);
}

static void the_same_file_twice_is_refused(void **unused)
{
  (void)unused;
  struct pry_policy_set *set = make_set();
  char text[512];
  int length = snprintf(text, sizeof text,
                        "parry last-good 1\ngeneration %s\ncommitted 1\nfiles 2\n8 1\ninit.lua\nx\n8 1\ninit.lua\n"
                        "y\nend\n",
                        set->id);
  put_file(PRY_LAST_GOOD_NAME, (struct pry_slice){text, (size_t)length});
  assert_refused("has files twice");
  pry_policy_set_free(set);
}

static void a_set_that_could_not_be_read_back_replaces_nothing(void **unused)
{
  (void)unused;
  struct pry_policy_set *set = make_set(), *bad = pry_policy_set_new(), *raw = pry_policy_set_new();
  assert_true(pry_last_good_write(folder, set, 1, why));
  add(bad, "init.lua", PRY_SLICE("x"));
  add(bad, "../x.lua", PRY_SLICE("x"));
  assert_true(pry_policy_set_seal(bad));
  assert_false(pry_last_good_write(folder, bad, 2, why));
  assert_non_null(strstr(why, "was not read from a folder of policies"));
  assert_false(pry_last_good_write(folder, raw, 2, why)); /* not sealed */
  assert_int_equal(read_it(), PRY_STATE_READ);
  assert_string_equal(good.set->id, set->id);
  pry_policy_set_free(raw);
  pry_policy_set_free(bad);
  pry_policy_set_free(set);
}

/* The largest set that can be served can be kept. */
static void the_largest_set_fits(void **unused)
{
  (void)unused;
  struct pry_policy_set *set = pry_policy_set_new();
  char *text = calloc(1, PRY_POLICY_FILE_MAX), path[512];
  assert_non_null(text);
  memset(path, 'p', sizeof path);
  for (unsigned i = 0; i < PRY_POLICY_FILES_MAX - 1; i++) {
    snprintf(path + 503, sizeof path - 503, "%04u.lua", i);
    assert_int_equal(strlen(path), 511);
    add(set, path, (struct pry_slice){text, i < 15 ? (size_t)PRY_POLICY_FILE_MAX : 0});
  }
  add(set, "init.lua", (struct pry_slice){text, PRY_POLICY_FILE_MAX});
  assert_true(pry_policy_set_seal(set));
  if (!pry_last_good_write(folder, set, 1, why))
    fail_msg("%s", why);
  assert_int_equal(read_it(), PRY_STATE_READ);
  assert_string_equal(good.set->id, set->id);
  free(text);
  pry_policy_set_free(set);
}

static void a_link_is_not_followed(void **unused)
{
  (void)unused;
  struct pry_policy_set *set = make_set();
  assert_true(pry_last_good_write(folder, set, 1, why));
  assert_int_equal(rename(in_folder(PRY_LAST_GOOD_NAME), in_folder("real")), 0);
  assert_int_equal(symlink("real", in_folder(PRY_LAST_GOOD_NAME)), 0);
  assert_refused("is a symbolic link");
  pry_policy_set_free(set);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, clean)

int main(void)
{
  const struct CMUnitTest tests[] = {
      IN_FOLDER(what_is_written_is_read),        IN_FOLDER(a_damaged_file_is_refused),
      IN_FOLDER(an_edit_is_named_as_such),       IN_FOLDER(paths_that_no_policy_can_have_are_refused),
      IN_FOLDER(other_heads_are_refused),        IN_FOLDER(sizes_that_lie_are_refused),
      IN_FOLDER(the_same_file_twice_is_refused), IN_FOLDER(a_set_that_could_not_be_read_back_replaces_nothing),
      IN_FOLDER(the_largest_set_fits),           IN_FOLDER(a_link_is_not_followed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
