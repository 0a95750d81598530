#include "cli.h"
#include "options.h"
#include "places.h"
#include "policies.h"
#include "shipped.h"
#include "test_host.h"

#include <regex.h>
#include <stdio.h>

static const char DOC[] = "Runs the policies' own tests (every *_test.lua of the folder): real policies on a\n"
                          "virtual clock against scripted providers. Nothing leaves this machine.";

static const char AFTER[] =
    "PATH is ./policies, or /etc/parry/policies, when it is not given. The tests may use all that was\n"
    "installed with parry (or is in $PARRY_SHARE); the tests of those are not run.\n"
    "example: parry test -r 'Retry-After'\n"
    "exit codes: 0 all passed; 1 a test failed, or no name matches --run; 2 usage";

struct run {
  bool json, quiet;
  regex_t *pattern;          /* NULL: all */
  const char *expression;    /* the pattern's text */
  struct pry_buffer results; /* JSON */
};

static bool is_wanted(void *user, const char *name)
{
  const struct run *run = user;
  return !run->pattern || regexec(run->pattern, name, 0, NULL, 0) == 0;
}

static bool append_text(struct pry_buffer *out, const char *name, const char *text)
{
  return pry_buffer_append_format(out, "\"%s\":\"", name) && pry_buffer_append_json(out, pry_slice_of(text)) &&
         pry_buffer_append_text(out, "\",");
}

static void tell_json(struct pry_buffer *out, const struct pry_test_result *result)
{
  if (!pry_buffer_append_text(out, out->size ? ",{" : "{") || !append_text(out, "file", result->file) ||
      !append_text(out, "name", result->name) || !append_text(out, "message", result->message) ||
      !append_text(out, "fault", result->fault) ||
      !pry_buffer_append_format(out, "\"passed\":%s,\"calls\":%u,\"virtual_seconds\":%.6g}",
                                result->passed ? "true" : "false", result->calls, result->virtual_seconds))
    fprintf(stderr, "parry test: memory is short; a result is missing\n");
}

static void print_failure(const struct pry_test_result *result)
{
  /* "retry.lua:12: message": its place is enough the second time. */
  const char *text = strstr(result->fault, ": ");
  printf("FAIL %s\n", result->name);
  if (result->fault_is_new)
    printf("     fault: %s\n", result->fault);
  else if (*result->fault)
    printf("     the fault above, %.*s\n", text ? (int)(text - result->fault) : (int)strlen(result->fault),
           result->fault);
  printf("     %s\n", result->message);
}

static void tell(void *user, const struct pry_test_result *result)
{
  struct run *run = user;
  if (run->json)
    tell_json(&run->results, result);
  else if (!result->passed)
    print_failure(result);
  else if (!run->quiet)
    printf("PASS %s (%u call%s, %.4g s virtual)\n", result->name, result->calls, result->calls == 1 ? "" : "s",
           result->virtual_seconds);
}

static void print_totals(const struct run *run, const struct pry_report *report)
{
  unsigned all = report->tests_passed + report->tests_failed;
  if (!run->json)
    printf("%u/%u tests\n", report->tests_passed, all);
  else
    printf("{\"ok\":%s,\"passed\":%u,\"failed\":%u,\"tests\":[%.*s]}\n", report->tests_failed ? "false" : "true",
           report->tests_passed, report->tests_failed, (int)run->results.size,
           run->results.data ? run->results.data : "");
}

static int run_folder(const char *folder, struct run *run)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 4096);
  char shipped[PRY_SHIPPED_PATH_MAX];
  struct pry_policy_set *set = pry_policy_set_read(folder, pry_shipped_folder(shipped), &text);
  if (!set) {
    fprintf(stderr, "parry test: %.*s", (int)text.size, text.data ? text.data : "the folder cannot be read\n");
    pry_buffer_fini(&text);
    return PRY_EXIT_FINDINGS;
  }
  struct pry_report report;
  pry_report_init(&report);
  struct pry_test_options options = {.wanted = is_wanted, .result = tell, .user = run};
  bool passed = pry_policy_tests_run(set, NULL, &options, &report);
  print_totals(run, &report);
  unsigned all = report.tests_passed + report.tests_failed;
  if (!all && run->pattern)
    fprintf(stderr, "parry test: no test of %s has a name that matches '%s'\n", folder, run->expression);
  else if (!all)
    fprintf(stderr, "parry test: there are no tests in %s; a file NAME_test.lua beside NAME.lua holds them\n", folder);
  passed = passed && (all || !run->pattern);
  pry_report_fini(&report);
  pry_policy_set_free(set);
  pry_buffer_fini(&text);
  return passed ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}

int pry_cmd_test(int argc, char **argv)
{
  struct run run = {0};
  const char *policies = NULL, *pattern = NULL;
  const struct pry_option options[] = {
      {"policies", 0, PRY_OPTION_TEXT, "DIR", "the same as PATH", &policies},
      {"run", 'r', PRY_OPTION_TEXT, "RE", "only tests whose name matches this extended regular expression", &pattern},
      {"quiet", 'q', PRY_OPTION_FLAG, NULL, "print failures and totals only", &run.quiet},
      PRY_OPTIONS_JSON(&run.json),
  };
  const struct pry_command_line line = {"parry test [OPTIONS] [PATH]",    DOC, options,
                                        sizeof options / sizeof *options, 1,   AFTER};
  size_t operands = 0;
  int ended = pry_options_parse(&line, argc, argv, &operands);
  if (ended >= 0)
    return ended;
  regex_t compiled;
  int wrong = pattern ? regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB) : 0;
  if (wrong) {
    char why[128];
    regerror(wrong, &compiled, why, sizeof why);
    fprintf(stderr, "parry: cannot use --run %s: %s\n  see: parry test --help\n", pattern, why);
    return PRY_EXIT_USAGE;
  }
  run.pattern = pattern ? &compiled : NULL;
  run.expression = pattern;
  pry_buffer_init(&run.results, 0);
  char error[512];
  const char *folder = pry_place_policies(operands ? argv[1] : policies, error, sizeof error);
  if (!folder)
    fprintf(stderr, "parry test: %s\n", error);
  int result = folder ? run_folder(folder, &run) : PRY_EXIT_FINDINGS;
  pry_buffer_fini(&run.results);
  if (pattern)
    regfree(&compiled);
  return result;
}
