/* The option tables of the commands. The program is no library, so what is worth testing alone is compiled
 * in. */
#include "../../core/cli/options.c"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORDS_MAX = 8 };

/* Manual pages have a test of their own. */
void pry_manual_print_command(const struct pry_command_line *line)
{
  (void)line;
}

struct given {
  bool flag, json;
  const char *text;
  unsigned long count;
  double seconds, wait;
  size_t bytes;
  struct pry_option_list list;
  size_t operands;
  char said[1024]; /* on stderr */
};

static void say_into(struct given *given, FILE *file)
{
  rewind(file);
  size_t size = fread(given->said, 1, sizeof given->said - 1, file);
  given->said[size] = '\0';
}

/* Parses a NULL-ended list of words, with stderr and stdout kept. */
static int parse(struct given *given, char **words)
{
  *given = (struct given){.wait = 10};
  const struct pry_option options[] = {
      {"flag", 'f', PRY_OPTION_FLAG, NULL, "a flag", &given->flag},
      {"text", 't', PRY_OPTION_TEXT, "TEXT", "a text", &given->text},
      {"count", 0, PRY_OPTION_COUNT, "N", "a count", &given->count},
      {"seconds", 0, PRY_OPTION_SECONDS, "S", "a time", &given->seconds},
      {"wait", 0, PRY_OPTION_MAYBE_SECONDS, "S", "maybe a time", &given->wait},
      {"bytes", 0, PRY_OPTION_BYTES, "B", "a size", &given->bytes},
      {"item", 0, PRY_OPTION_LIST, "X", "items", &given->list},
      PRY_OPTIONS_JSON(&given->json),
  };
  const struct pry_command_line line = {.usage = "parry try [OPTIONS] [FILE...]",
                                        .doc = "Tries.",
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .operands_max = 2};
  int argc = 0;
  while (words[argc])
    argc++;
  FILE *kept = tmpfile();
  assert_non_null(kept);
  fflush(stdout);
  int out = dup(1), err = dup(2);
  assert_true(dup2(fileno(kept), 1) >= 0 && dup2(fileno(kept), 2) >= 0);
  int code = pry_options_parse(&line, argc, words, &given->operands);
  fflush(stdout);
  fflush(stderr);
  assert_true(dup2(out, 1) >= 0 && dup2(err, 2) >= 0);
  close(out);
  close(err);
  say_into(given, kept);
  fclose(kept);
  return code;
}

#define PARSE(given, ...) parse((given), (char *[]){"try", __VA_ARGS__, NULL})

static void values_in_every_spelling(void **state)
{
  (void)state;
  struct given given;
  assert_int_equal(PARSE(&given, "--text", "a", "--count=7", "--seconds", "1.5", "-f"), -1);
  assert_string_equal(given.text, "a");
  assert_int_equal(given.count, 7);
  assert_true(given.seconds == 1.5 && given.flag && !given.json);
  assert_int_equal(PARSE(&given, "-ta", "-o", "json", "--seconds=250ms", "--bytes", "64K"), -1);
  assert_string_equal(given.text, "a");
  assert_true(given.seconds == 0.25 && given.json && given.bytes == 65536);
  assert_int_equal(PARSE(&given, "-ft", "a", "--item", "x", "--item=y", "--text="), -1);
  assert_true(given.flag && given.list.count == 2 && strcmp(given.list.items[1], "y") == 0 && !*given.text);
}

static void an_optional_value_needs_an_equals_sign(void **state)
{
  (void)state;
  struct given given;
  assert_int_equal(PARSE(&given, "--wait", "5"), -1);
  assert_true(given.wait == 10 && given.operands == 1);
  assert_int_equal(PARSE(&given, "--wait=5s"), -1);
  assert_true(given.wait == 5);
}

static void operands_come_out_in_order(void **state)
{
  (void)state;
  struct given given;
  char *words[] = {"try", "one", "-f", "--", "--text", NULL};
  assert_int_equal(parse(&given, words), -1);
  assert_int_equal(given.operands, 2);
  assert_string_equal(words[1], "one");
  assert_string_equal(words[2], "--text");
  assert_int_equal(PARSE(&given, "a", "b", "c"), 2);
}

static void mistakes_are_named_with_what_to_do(void **state)
{
  (void)state;
  struct given given;
  assert_int_equal(PARSE(&given, "--secnods=1"), 2);
  assert_non_null(strstr(given.said, "did you mean --seconds?"));
  assert_non_null(strstr(given.said, "see: parry try --help"));
  assert_int_equal(PARSE(&given, "--zzz"), 2);
  assert_null(strstr(given.said, "did you mean"));
  assert_int_equal(PARSE(&given, "--flag=yes"), 2);
  assert_int_equal(PARSE(&given, "--text"), 2);
  assert_int_equal(PARSE(&given, "-x"), 2);
  assert_int_equal(PARSE(&given, "-o", "yaml"), 2);
  assert_non_null(strstr(given.said, "json or text"));
}

static void numbers_are_read_strictly(void **state)
{
  (void)state;
  struct given given;
  static const char *const counts[] = {"--count=", "--count=-1", "--count=1x", "--count= 1",
                                       "--count=99999999999999999999"};
  static const char *const times[] = {"--seconds=",    "--seconds=-1",    "--seconds=1e3", "--seconds=0x10",
                                      "--seconds=nan", "--seconds=1.2.3", "--seconds=1h",  "--seconds=."};
  static const char *const sizes[] = {"--bytes=", "--bytes=-1", "--bytes=1T", "--bytes=1KB", "--bytes=99999999999G"};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    assert_int_equal(PARSE(&given, (char *)(uintptr_t)counts[i]), 2);
  for (size_t i = 0; i < sizeof times / sizeof *times; i++)
    assert_int_equal(PARSE(&given, (char *)(uintptr_t)times[i]), 2);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    assert_int_equal(PARSE(&given, (char *)(uintptr_t)sizes[i]), 2);
}

static void help_comes_from_the_table(void **state)
{
  (void)state;
  struct given given;
  assert_int_equal(PARSE(&given, "--help"), 0);
  assert_non_null(strstr(given.said, "usage: parry try [OPTIONS] [FILE...]"));
  assert_non_null(strstr(given.said, "-t, --text TEXT"));
  assert_non_null(strstr(given.said, "--wait[=S]"));
  assert_null(strstr(given.said, "--output")); /* accepted, not advertised */
  assert_int_equal(PARSE(&given, "-h"), 0);
}

static void the_nearest_name(void **state)
{
  (void)state;
  static const char *const names[] = {"serve", "status", "sim", "check"};
  assert_string_equal(pry_nearest_name("stauts", names, 4), "status");
  assert_string_equal(pry_nearest_name("chek", names, 4), "check");
  assert_string_equal(pry_nearest_name("sin", names, 4), "sim");
  assert_null(pry_nearest_name("proxy", names, 4));
  assert_null(pry_nearest_name("", names, 4));
  assert_null(pry_nearest_name("a-word-that-is-longer-than-any-name-there-could-be", names, 4));
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(values_in_every_spelling),   cmocka_unit_test(an_optional_value_needs_an_equals_sign),
      cmocka_unit_test(operands_come_out_in_order), cmocka_unit_test(mistakes_are_named_with_what_to_do),
      cmocka_unit_test(numbers_are_read_strictly),  cmocka_unit_test(help_comes_from_the_table),
      cmocka_unit_test(the_nearest_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
