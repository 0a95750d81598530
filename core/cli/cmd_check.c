#include "cli.h"
#include "clients.h"
#include "loader.h"
#include "options.h"
#include "places.h"
#include "policies.h"
#include "shipped.h"

#include <stdio.h>
#include <unistd.h>

static const char DOC[] = "Says whether a running parry would take over a folder of policies: loads it in the\n"
                          "real sandbox, checks every declaration and parameter, looks for the secrets and\n"
                          "runs the policies' own tests. Prints nothing when all is well, except on a terminal.";

static const char AFTER[] =
    "PATH is ./policies, or /etc/parry/policies, when it is not given. What it lacks (policies,\n"
    "libraries, dialects) comes from those installed with parry, or from $PARRY_SHARE; a file of\n"
    "the folder with the same name wins, and its tests are those that run.\n"
    "exit codes: 0 it would be taken over; 1 it would be refused, or --strict and a warning; 2 usage";

struct check {
  const char *folder;
  struct pry_generation *generation; /* NULL: refused */
  struct pry_report report;
  char unreadable[512]; /* why the folder could not be read at all; "" when it could */
};

struct check_options {
  bool json, strict, verbose, no_tests;
};

static unsigned count_warnings(const struct pry_report *report)
{
  unsigned count = 0;
  for (size_t i = 0; i < report->count; i++)
    count += report->findings[i].severity == PRY_FINDING_WARNING;
  return count;
}

/* Policies whose clients cannot be known do not begin to serve. */
static void check_clients(struct check *check)
{
  char path[PRY_PLACE_MAX];
  const char *file = check->generation->config->clients_file;
  struct pry_clients *clients = pry_clients_new();
  if (clients && pry_clients_path(check->folder, file, path, sizeof path))
    pry_client_table_unref(pry_client_table_read(clients, path, file, &check->report));
  else
    pry_report_add(&check->report, PRY_FINDING_ERROR, file, "the path is too long, or memory is short");
  pry_clients_free(clients);
}

static void load(struct check *check, bool run_tests)
{
  static const struct pry_script_limits limits = {0};
  struct pry_buffer text;
  pry_buffer_init(&text, sizeof check->unreadable - 1);
  char shipped[PRY_SHIPPED_PATH_MAX];
  struct pry_policy_set *set = pry_policy_set_read(check->folder, pry_shipped_folder(shipped), &text);
  if (!set) {
    struct pry_slice why = pry_buffer_slice(&text);
    while (why.size && why.data[why.size - 1] == '\n')
      why.size--;
    snprintf(check->unreadable, sizeof check->unreadable, "%.*s", (int)why.size,
             why.data ? why.data : "cannot be read");
    check->report.errors++;
  } else {
    check->generation = pry_lua_loader.load(set, &limits, &check->report);
    if (!check->generation)
      pry_policy_set_free(set);
    else if (run_tests)
      pry_lua_loader.test(check->generation, NULL, &limits, &check->report);
    if (check->generation && check->generation->config->clients_file)
      check_clients(check);
  }
  pry_buffer_fini(&text);
}

static void print_secrets(const struct pry_config *config)
{
  for (size_t i = 0; i < config->secret_count; i++) {
    const struct pry_secret *secret = &config->secrets[i];
    printf("secret %s: %s\n", secret->name, secret->value ? secret->origin : "missing");
  }
}

static void print_text(const struct check *check, bool verbose, unsigned strict_warnings)
{
  const struct pry_report *report = &check->report;
  if (*check->unreadable)
    printf("%s\n", check->unreadable);
  pry_print_findings(check->folder, report);
  if (check->generation && verbose)
    print_secrets(check->generation->config);
  if (report->errors)
    printf("%s: would be refused: %u error%s\n", check->folder, report->errors, report->errors == 1 ? "" : "s");
  else if (strict_warnings)
    printf("%s: would be taken over, but %u warning%s, which --strict does not let pass\n", check->folder,
           strict_warnings, strict_warnings == 1 ? "" : "s");
  else if (check->generation && (isatty(STDOUT_FILENO) || verbose))
    printf("%s: good · generation %.7s · %u policies · %u/%u tests\n", check->folder, check->generation->id,
           check->generation->policies, report->tests_passed, report->tests_passed + report->tests_failed);
}

static bool append_secrets(const struct pry_config *config, struct pry_buffer *out)
{
  bool ok = pry_buffer_append_text(out, "[");
  for (size_t i = 0; ok && config && i < config->secret_count; i++) {
    const struct pry_secret *secret = &config->secrets[i];
    ok = pry_buffer_append_format(out, "%s{\"name\":\"", i ? "," : "") &&
         pry_buffer_append_json(out, pry_slice_of(secret->name)) &&
         pry_buffer_append_text(out, secret->value ? "\",\"found\":true,\"origin\":\""
                                                   : "\",\"found\":false,\"origin\":\"") &&
         pry_buffer_append_json(out, pry_slice_of(secret->origin)) && pry_buffer_append_text(out, "\"}");
  }
  return ok && pry_buffer_append_text(out, "]");
}

static void print_json(const struct check *check, unsigned strict_warnings)
{
  const struct pry_report *report = &check->report;
  const struct pry_generation *generation = check->generation;
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  bool ok = pry_buffer_append_format(&out, "{\"ok\":%s,\"folder\":\"",
                                     report->errors || strict_warnings ? "false" : "true") &&
            pry_buffer_append_json(&out, pry_slice_of(check->folder)) &&
            pry_buffer_append_format(&out, "\",\"generation\":\"%s\",\"policies\":%u,\"errors\":%u,\"warnings\":%u,",
                                     generation ? generation->id : "", generation ? generation->policies : 0,
                                     report->errors, count_warnings(report)) &&
            pry_buffer_append_format(&out, "\"tests\":{\"passed\":%u,\"failed\":%u},\"error\":\"", report->tests_passed,
                                     report->tests_failed) &&
            pry_buffer_append_json(&out, pry_slice_of(check->unreadable)) &&
            pry_buffer_append_text(&out, "\",\"findings\":") && pry_findings_json(report, &out) &&
            pry_buffer_append_text(&out, ",\"secrets\":") &&
            append_secrets(generation ? generation->config : NULL, &out) && pry_buffer_append_text(&out, "}");
  if (ok)
    printf("%.*s\n", (int)out.size, out.data);
  else
    fprintf(stderr, "parry check: memory is short\n");
  pry_buffer_fini(&out);
}

int pry_cmd_check(int argc, char **argv)
{
  struct check_options given = {0};
  const char *policies = NULL;
  const struct pry_option options[] = {
      {"policies", 0, PRY_OPTION_TEXT, "DIR", "the same as PATH", &policies},
      {"strict", 'S', PRY_OPTION_FLAG, NULL, "warnings, such as a missing secret, end it with 1, too", &given.strict},
      {"verbose", 'v', PRY_OPTION_FLAG, NULL, "say where each secret was found", &given.verbose},
      {"no-tests", 0, PRY_OPTION_FLAG, NULL, "do not run the policies' tests", &given.no_tests},
      PRY_OPTIONS_JSON(&given.json),
  };
  const struct pry_command_line line = {"parry check [OPTIONS] [PATH]",   DOC, options,
                                        sizeof options / sizeof *options, 1,   AFTER};
  size_t operands = 0;
  int ended = pry_options_parse(&line, argc, argv, &operands);
  if (ended >= 0)
    return ended;
  char error[512];
  struct check check = {.folder = pry_place_policies(operands ? argv[1] : policies, error, sizeof error)};
  if (!check.folder) {
    fprintf(stderr, "parry check: %s\n", error);
    return PRY_EXIT_FINDINGS;
  }
  pry_report_init(&check.report);
  load(&check, !given.no_tests);
  unsigned strict_warnings = given.strict ? count_warnings(&check.report) : 0;
  if (given.json)
    print_json(&check, strict_warnings);
  else
    print_text(&check, given.verbose, strict_warnings);
  bool refused = check.report.errors || strict_warnings;
  pry_generation_unref(check.generation);
  pry_report_fini(&check.report);
  return refused ? PRY_EXIT_FINDINGS : PRY_EXIT_OK;
}
