/* Log lines as people, journald and programs want them. */
#include "log_output.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void check(enum pry_log_format format, const char *line, const char *wanted)
{
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  assert_true(pry_log_text_line(pry_slice_of(line), format, &out));
  assert_string_equal(pry_buffer_text(&out), wanted);
  pry_buffer_fini(&out);
}

static void text_is_for_people(void **state)
{
  (void)state;
  check(PRY_LOG_FOR_PEOPLE, "{\"ts\":\"T\",\"level\":\"info\",\"msg\":\"call\",\"target\":\"a/b\",\"status\":200}",
        "T info  call target=a/b status=200\n");
  check(PRY_LOG_FOR_PEOPLE,
        "{\"ts\":\"T\",\"level\":\"error\",\"msg\":\"say \\\"it\\\"\",\"a\":\"two words\",\"b\":\"\"}",
        "T error say \"it\" a=\"two words\" b=\"\"\n");
}

static void journald_gets_a_priority_and_no_time(void **state)
{
  (void)state;
  check(PRY_LOG_FOR_JOURNAL, "{\"ts\":\"T\",\"level\":\"warn\",\"msg\":\"m\",\"a\":true}", "<4>m a=true\n");
  check(PRY_LOG_FOR_JOURNAL, "{\"ts\":\"T\",\"level\":\"error\",\"msg\":\"m\"}", "<3>m\n");
}

static void lines_of_a_field_stand_below(void **state)
{
  (void)state;
  check(PRY_LOG_FOR_PEOPLE,
        "{\"ts\":\"T\",\"level\":\"error\",\"msg\":\"refused\",\"findings\":\"a.lua:1: x \\\"y\\\"\\nb.lua:2: "
        "z\\n\",\"n\":1}",
        "T error refused n=1\n    a.lua:1: x \"y\"\n    b.lua:2: z\n");
}

/* What a provider says must not move a cursor or colour a screen. */
static void nothing_steers_a_terminal(void **state)
{
  (void)state;
  check(PRY_LOG_FOR_PEOPLE, "{\"ts\":\"T\",\"level\":\"info\",\"msg\":\"m\\u001b[2J\",\"a\":\"\\u001b[31m\\r\"}",
        "T info  m\\u001b[2J a=\"\\u001b[31m\\r\"\n");
}

static void what_is_no_line_is_passed_on(void **state)
{
  (void)state;
  int ends[2];
  char got[64] = "";
  assert_int_equal(pipe(ends), 0);
  struct pry_log_output output;
  pry_log_output_init(&output, PRY_LOG_FOR_PEOPLE, ends[1]);
  pry_log_output_write(&output, PRY_LOG_INFO, "[1", 2);
  assert_int_equal(read(ends[0], got, sizeof got - 1), 3);
  assert_string_equal(got, "[1\n");
  close(ends[0]);
  close(ends[1]);
}

static void auto_is_decided_by_the_descriptor(void **state)
{
  (void)state;
  int ends[2];
  struct stat about;
  char stream[64];
  struct pry_log_output output;
  assert_int_equal(pipe(ends), 0);
  unsetenv("JOURNAL_STREAM");
  pry_log_output_init(&output, PRY_LOG_AUTO, ends[1]);
  assert_int_equal(output.format, PRY_LOG_FOR_PROGRAMS);
  assert_int_equal(fstat(ends[1], &about), 0);
  snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)about.st_dev, (unsigned long long)about.st_ino);
  setenv("JOURNAL_STREAM", stream, 1);
  pry_log_output_init(&output, PRY_LOG_AUTO, ends[1]);
  assert_int_equal(output.format, PRY_LOG_FOR_JOURNAL);
  setenv("JOURNAL_STREAM", "1:1", 1); /* somebody redirected us */
  pry_log_output_init(&output, PRY_LOG_AUTO, ends[1]);
  assert_int_equal(output.format, PRY_LOG_FOR_PROGRAMS);
  unsetenv("JOURNAL_STREAM");
  close(ends[0]);
  close(ends[1]);
}

static void names(void **state)
{
  (void)state;
  enum pry_log_format format = PRY_LOG_AUTO;
  enum pry_log_level level = PRY_LOG_DEBUG;
  assert_true(pry_log_format_from_name("json", &format));
  assert_int_equal(format, PRY_LOG_FOR_PROGRAMS);
  assert_true(pry_log_format_from_name("text", &format));
  assert_int_equal(format, PRY_LOG_FOR_PEOPLE);
  assert_false(pry_log_format_from_name("xml", &format));
  assert_true(pry_log_level_from_name("warn", &level));
  assert_int_equal(level, PRY_LOG_WARN);
  assert_false(pry_log_level_from_name("fatal", &level));
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(text_is_for_people),
      cmocka_unit_test(journald_gets_a_priority_and_no_time),
      cmocka_unit_test(lines_of_a_field_stand_below),
      cmocka_unit_test(nothing_steers_a_terminal),
      cmocka_unit_test(what_is_no_line_is_passed_on),
      cmocka_unit_test(auto_is_decided_by_the_descriptor),
      cmocka_unit_test(names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
