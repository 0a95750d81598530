/* Sets that were rolled back: sixteen at most, by id, and a file that is doubted. */
#include "quarantine.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "state_folder.h"

#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define LINE_A                                                                                                         \
  "{\"id\":\"" ID_A "\",\"at\":1790000000.500,\"faults\":21,\"runs\":400,\"first_fault\":\"retry.lua:1: no\"}\n"

static char why[PRY_STATE_WHY_MAX];

static struct pry_quarantined numbered(unsigned number)
{
  struct pry_quarantined set = {.at = 1790000000.5 + number, .faults = 20 + number, .runs = 400};
  snprintf(set.id, sizeof set.id, "%064x", number);
  snprintf(set.first_fault, sizeof set.first_fault, "retry.lua:%u: \"nil\"\twas called\n", number);
  return set;
}

static void the_oldest_is_forgotten(void **unused)
{
  (void)unused;
  struct pry_quarantine quarantine = {0};
  for (unsigned i = 0; i < PRY_QUARANTINE_MAX + 2; i++) {
    struct pry_quarantined set = numbered(i);
    pry_quarantine_add(&quarantine, &set);
  }
  assert_int_equal(quarantine.count, PRY_QUARANTINE_MAX);
  assert_null(pry_quarantine_find(&quarantine, numbered(1).id));
  assert_int_equal(pry_quarantine_find(&quarantine, numbered(2).id)->faults, 22);
  struct pry_quarantined again = *pry_quarantine_find(&quarantine, numbered(2).id);
  again.faults = 99;
  pry_quarantine_add(&quarantine, &again); /* as the newest, and nobody has to go for it */
  assert_int_equal(quarantine.count, PRY_QUARANTINE_MAX);
  assert_int_equal(quarantine.sets[PRY_QUARANTINE_MAX - 1].faults, 99);
  assert_non_null(pry_quarantine_find(&quarantine, numbered(3).id));
  pry_quarantine_add(&quarantine, &quarantine.sets[0]); /* one of its own */
  assert_string_equal(quarantine.sets[PRY_QUARANTINE_MAX - 1].id, numbered(3).id);
}

static void one_can_be_let_go(void **unused)
{
  (void)unused;
  struct pry_quarantine quarantine = {0};
  for (unsigned i = 0; i < 3; i++) {
    struct pry_quarantined set = numbered(i);
    pry_quarantine_add(&quarantine, &set);
  }
  assert_true(pry_quarantine_remove(&quarantine, numbered(1).id));
  assert_false(pry_quarantine_remove(&quarantine, numbered(1).id));
  assert_int_equal(quarantine.count, 2);
  assert_non_null(pry_quarantine_find(&quarantine, numbered(0).id));
  assert_non_null(pry_quarantine_find(&quarantine, numbered(2).id));
  assert_null(pry_quarantine_find(&quarantine, ""));
}

static void what_is_written_is_read(void **unused)
{
  (void)unused;
  struct pry_quarantine written = {0}, got = {.count = 7};
  assert_true(pry_quarantine_read(folder, &got, why)); /* none yet */
  assert_int_equal(got.count, 0);
  for (unsigned i = 0; i < PRY_QUARANTINE_MAX; i++) {
    struct pry_quarantined set = numbered(i);
    pry_quarantine_add(&written, &set);
  }
  memset(written.sets[3].first_fault, '\n', sizeof written.sets[3].first_fault - 1); /* the longest */
  assert_true(pry_quarantine_write(folder, &written, why));
  assert_true(pry_quarantine_read(folder, &got, why));
  assert_memory_equal(&got, &written, sizeof got);
  written.count = 0;
  assert_true(pry_quarantine_write(folder, &written, why));
  assert_true(pry_quarantine_read(folder, &got, why));
  assert_int_equal(got.count, 0);
}

static void more_lines_than_we_keep(void **unused)
{
  (void)unused;
  struct pry_buffer text;
  struct pry_quarantine got;
  pry_buffer_init(&text, 0);
  for (unsigned i = 0; i < 100; i++)
    assert_true(pry_buffer_append_format(
        &text, "{\"id\":\"%064x\",\"at\":1,\"faults\":1,\"runs\":1,\"first_fault\":\"\",\"later\":[{}]}\n", i));
  put_file(PRY_QUARANTINE_NAME, pry_buffer_slice(&text));
  assert_true(pry_quarantine_read(folder, &got, why));
  assert_int_equal(got.count, PRY_QUARANTINE_MAX);
  assert_string_equal(got.sets[PRY_QUARANTINE_MAX - 1].id, numbered(99).id);
  pry_buffer_fini(&text);
}

static void a_broken_file_is_empty_and_told(void **unused)
{
  (void)unused;
  static const char *const second_lines[] = {
      "\n",
      "x\n",
      "{\"id\":\"" ID_A "\"", /* cut in the middle */
      "{}\n",
      "[]\n",
      "{\"id\":\"../../etc\",\"at\":1,\"faults\":1,\"runs\":1,\"first_fault\":\"\"}\n",
      "{\"id\":\"" ID_A "a\",\"at\":1,\"faults\":1,\"runs\":1,\"first_fault\":\"\"}\n",
      "{\"id\":\"Z\\u0061" ID_A "\",\"at\":1,\"faults\":1,\"runs\":1,\"first_fault\":\"\"}\n",
      "{\"id\":\"" ID_A "\",\"at\":\"1\",\"faults\":1,\"runs\":1,\"first_fault\":\"\"}\n",
      "{\"id\":\"" ID_A "\",\"at\":-1,\"faults\":1,\"runs\":1,\"first_fault\":\"\"}\n",
      "{\"id\":\"" ID_A "\",\"at\":1,\"faults\":-1,\"runs\":1,\"first_fault\":\"\"}\n",
      "{\"id\":\"" ID_A "\",\"at\":1,\"faults\":1,\"runs\":1.5,\"first_fault\":\"\"}\n",
      "{\"id\":\"" ID_A "\",\"at\":1,\"faults\":1,\"runs\":1,\"first_fault\":\"a\\u0000b\"}\n",
      "{\"id\":\"" ID_A "\",\"at\":1,\"faults\":1,\"runs\":1,\"first_fault\":7}\n",
      "{\"id\":\"" ID_A "\",\"at\":1,\"faults\":1,\"runs\":1}\n",
  };
  for (size_t i = 0; i < sizeof second_lines / sizeof *second_lines; i++) {
    struct pry_quarantine got = {.count = 3};
    char text[1024];
    int length = snprintf(text, sizeof text, "%s%s", LINE_A, second_lines[i]);
    put_file(PRY_QUARANTINE_NAME, (struct pry_slice){text, (size_t)length});
    assert_false(pry_quarantine_read(folder, &got, why));
    assert_int_equal(got.count, 0);
    assert_non_null(strstr(why, "/quarantine:2: is not what parry writes"));
  }
  struct pry_quarantine got;
  put_file(PRY_QUARANTINE_NAME, PRY_SLICE(LINE_A));
  assert_true(pry_quarantine_read(folder, &got, why)); /* the first line was good all along */
  assert_string_equal(got.sets[0].first_fault, "retry.lua:1: no");
}

static void a_text_that_is_too_long_is_refused(void **unused)
{
  (void)unused;
  struct pry_quarantine got;
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  assert_true(pry_buffer_append_format(
      &text, "{\"id\":\"%s\",\"at\":1,\"faults\":1,\"runs\":1,\"first_fault\":\"%0512d\"}\n", ID_A, 0));
  put_file(PRY_QUARANTINE_NAME, pry_buffer_slice(&text));
  assert_false(pry_quarantine_read(folder, &got, why));
  pry_buffer_clear(&text);
  for (int i = 0; i < 70000; i++)
    assert_true(pry_buffer_append(&text, "\n", 1));
  put_file(PRY_QUARANTINE_NAME, pry_buffer_slice(&text));
  assert_false(pry_quarantine_read(folder, &got, why));
  assert_non_null(strstr(why, "is larger than 65536 bytes"));
  pry_buffer_fini(&text);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_oldest_is_forgotten),  cmocka_unit_test(one_can_be_let_go),
      IN_FOLDER(what_is_written_is_read),         IN_FOLDER(more_lines_than_we_keep),
      IN_FOLDER(a_broken_file_is_empty_and_told), IN_FOLDER(a_text_that_is_too_long_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
