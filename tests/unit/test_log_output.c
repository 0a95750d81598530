/* Log lines as people, journald and programs want them. */
#include "log_output.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
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

enum { THREADS = 4, LINES_EACH = 2000 };

struct talker {
  struct pry_log_output *output;
  int number;
};

static void *talk(void *argument)
{
  const struct talker *talker = argument;
  char line[64];
  for (int i = 0; i < LINES_EACH; i++) {
    int size = snprintf(line, sizeof line, "{\"talker\":%d,\"line\":%d}", talker->number, i);
    pry_log_output_write(talker->output, i % 500 == 499 ? PRY_LOG_ERROR : PRY_LOG_INFO, line, (size_t)size);
  }
  return NULL;
}

/* Every line whole, none lost, each thread's in the order in which it wrote them. */
static void lines_of_threads_stay_whole_and_in_order(void **state)
{
  (void)state;
  char name[] = "/tmp/parry-log-XXXXXX";
  int fd = mkstemp(name);
  assert_true(fd >= 0);
  unlink(name);
  struct pry_log_output output;
  pry_log_output_init(&output, PRY_LOG_FOR_PROGRAMS, fd);
  pry_log_output_start(&output);
  pthread_t threads[THREADS];
  struct talker talkers[THREADS];
  for (int i = 0; i < THREADS; i++) {
    talkers[i] = (struct talker){&output, i};
    assert_int_equal(pthread_create(&threads[i], NULL, talk, &talkers[i]), 0);
  }
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  pry_log_output_stop(&output);
  pry_log_output_stop(&output);
  FILE *written = fdopen(fd, "r");
  assert_non_null(written);
  rewind(written);
  int next[THREADS] = {0}, talker, line;
  char end;
  while (fscanf(written, "{\"talker\":%d,\"line\":%d%c\n", &talker, &line, &end) == 3) {
    assert_int_equal(end, '}');
    assert_in_range(talker, 0, THREADS - 1);
    assert_int_equal(line, next[talker]++);
  }
  assert_true(feof(written));
  for (int i = 0; i < THREADS; i++)
    assert_int_equal(next[i], LINES_EACH);
  fclose(written);
}

/* Information may wait a little; a warning takes it along and is there when the call returns. */
static void a_warning_waits_for_nobody(void **state)
{
  (void)state;
  int ends[2];
  char got[256] = "";
  assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
  struct pry_log_output output;
  pry_log_output_init(&output, PRY_LOG_FOR_PROGRAMS, ends[1]);
  pry_log_output_start(&output);
  pry_log_output_write(&output, PRY_LOG_INFO, "{1}", 3);
  pry_log_output_write(&output, PRY_LOG_WARN, "{2}", 3);
  size_t size = 0; /* both may have come in one piece or, when the 20 ms were over in between, in two */
  for (ssize_t more; (more = read(ends[0], got + size, sizeof got - 1 - size)) > 0;)
    size += (size_t)more;
  assert_string_equal(got, "{1}\n{2}\n");
  pry_log_output_write(&output, PRY_LOG_INFO, "{3}", 3);
  struct pollfd waiting = {.fd = ends[0], .events = POLLIN};
  assert_int_equal(poll(&waiting, 1, 30000), 1); /* nobody else says anything, and it comes all the same */
  memset(got, 0, sizeof got);
  assert_int_equal(read(ends[0], got, sizeof got - 1), 4);
  assert_string_equal(got, "{3}\n");
  static char line[PIPE_BUF + 100]; /* longer than what is collected */
  memset(line, 'x', sizeof line);
  pry_log_output_write(&output, PRY_LOG_INFO, "{4}", 3);
  pry_log_output_write(&output, PRY_LOG_INFO, line, sizeof line);
  pry_log_output_write(&output, PRY_LOG_INFO, "{5}", 3);
  pry_log_output_stop(&output);
  static char all[2 * PIPE_BUF];
  for (size = 0; (size_t)size < sizeof line + 9;) {
    ssize_t more = read(ends[0], all + size, sizeof all - size);
    assert_true(more > 0);
    size += (size_t)more;
  }
  assert_memory_equal(all, "{4}\nxxx", 7);
  assert_memory_equal(all + size - 6, "x\n{5}\n", 6);
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
      cmocka_unit_test(lines_of_threads_stay_whole_and_in_order),
      cmocka_unit_test(a_warning_waits_for_nobody),
      cmocka_unit_test(auto_is_decided_by_the_descriptor),
      cmocka_unit_test(names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
