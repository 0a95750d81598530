#include "cli.h"

#include "admin_options.h"
#include "alert.h"
#include "answer.h"
#include "loader.h"
#include "policies.h"
#include "shipped.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char DOC[] =
    "test SINK sends one message, marked as a test, to a sink of init.lua, and says whether it was\n"
    "accepted, in the sink's own words if not. The running parry sends it; with --policies this\n"
    "command does, and no parry need run.\n"
    "list shows the alerts that are open in the running parry.";

static const char AFTER[] = "exit codes: 0 accepted; 1 not accepted; 2 usage; 3 no running parry reached";

struct given {
  struct pry_admin_options_given admin;
  const char *policies;
  bool json;
};

enum { ALERT_TEST_SECONDS = 60 };

static int usage(const char *what)
{
  fprintf(stderr, "parry alert: %s; see: parry alert --help\n", what);
  return PRY_EXIT_USAGE;
}

/* ---- test ------------------------------------------------------------------------------------------------------- */

static int print_result(const struct given *given, const char *sink, bool accepted, const char *error)
{
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  if (!given->json && accepted)
    printf("%s: accepted\n", sink);
  else if (!given->json)
    fprintf(stderr, "%s: not accepted: %s\n", sink, error);
  else if (pry_buffer_append_text(&out, "{\"sink\":\"") && pry_buffer_append_json(&out, pry_slice_of(sink)) &&
           pry_buffer_append_format(&out, "\",\"accepted\":%s,\"error\":\"", accepted ? "true" : "false") &&
           pry_buffer_append_json(&out, pry_slice_of(error)) && pry_buffer_append_text(&out, "\"}"))
    printf("%s\n", pry_buffer_text(&out));
  pry_buffer_fini(&out);
  return accepted ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}

static int test_there(const struct given *given, const char *sink)
{
  int status;
  struct pry_buffer body;
  char path[128], error[300];
  snprintf(path, sizeof path, "/api/v1/alerts/test?to=%s", sink);
  int code = pry_admin_call(&given->admin, "POST", path, ALERT_TEST_SECONDS, &status, &body);
  if (code >= 0)
    return code;
  pry_answer_text(pry_buffer_slice(&body), "error", error, sizeof error);
  if (status != 200 && !error[0])
    snprintf(error, sizeof error, "parry answered %d", status);
  code = print_result(given, sink, pry_answer_is_true(pry_buffer_slice(&body), "accepted"), error);
  pry_buffer_fini(&body);
  return code;
}

/* What it takes to send one message without an engine. */
struct sender {
  struct pry_generation *generation;
  struct pry_loop *loop;
  struct pry_mailbox *mailbox;
  struct pry_http *http;
  struct pry_scrubber *scrubber;
  struct pry_alerts *alerts;
  bool done, accepted;
  char why[200];
};

static bool load(struct sender *sender, const char *folder)
{
  static const struct pry_script_limits limits = {0};
  struct pry_report report;
  struct pry_buffer text;
  pry_report_init(&report);
  pry_buffer_init(&text, 4096);
  char shipped[PRY_SHIPPED_PATH_MAX];
  struct pry_policy_set *set = pry_policy_set_read(folder, pry_shipped_folder(shipped), &text);
  if (!set)
    fprintf(stderr, "%s\n", text.size ? pry_buffer_text(&text) : "the policies cannot be read");
  sender->generation = set ? pry_lua_loader.load(set, &limits, &report) : NULL;
  if (set && !sender->generation) {
    pry_print_findings(folder, &report);
    pry_policy_set_free(set);
  }
  pry_report_fini(&report);
  pry_buffer_fini(&text);
  return sender->generation;
}

static bool keep_secrets_out(struct sender *sender)
{
  const struct pry_config *config = sender->generation->config;
  bool ok = true;
  for (size_t i = 0; ok && i < config->secret_count; i++)
    ok = !config->secrets[i].value || pry_scrubber_add(sender->scrubber, pry_slice_of(config->secrets[i].value));
  return ok;
}

static bool set_up(struct sender *sender)
{
  return (sender->loop = pry_loop_new()) && (sender->mailbox = pry_mailbox_new(sender->loop)) &&
         (sender->http = pry_http_new(sender->loop, NULL)) && (sender->scrubber = pry_scrubber_new()) &&
         keep_secrets_out(sender) &&
         (sender->alerts = pry_alerts_new(sender->mailbox, sender->http, NULL, NULL, sender->scrubber));
}

static void tear_down(struct sender *sender)
{
  pry_alerts_free(sender->alerts);
  pry_http_free(sender->http);
  pry_mailbox_free(sender->mailbox);
  pry_loop_free(sender->loop);
  pry_scrubber_free(sender->scrubber);
  pry_generation_unref(sender->generation);
}

static void test_ended(void *user, const struct pry_alert_test_result *result)
{
  struct sender *sender = user;
  sender->done = true;
  sender->accepted = result->accepted;
  snprintf(sender->why, sizeof sender->why, "%s", result->why);
}

static int test_here(const struct given *given, const char *sink)
{
  struct sender sender = {.why = "memory is short"};
  if (!load(&sender, given->policies))
    return PRY_EXIT_FINDINGS;
  const struct pry_sink_config *config = pry_config_sink(sender.generation->config, sink);
  if (!config)
    snprintf(sender.why, sizeof sender.why, "there is no sink of that name in init.lua");
  else if (set_up(&sender) && pry_alerts_test(sender.alerts, config, sender.why, test_ended, &sender))
    while (!sender.done)
      pry_loop_turn(sender.loop, PRY_TIME_NEVER);
  int code = print_result(given, sink, sender.accepted, sender.why);
  tear_down(&sender);
  return code;
}

/* ---- list -------------------------------------------------------------------------------------------------------- */

static void print_alert(void *user, struct pry_slice alert)
{
  (void)user;
  pry_answer_print(stdout, alert, "severity", 10, "?");
  printf("  %.0f times, told %.0f, open %.0f s  ", pry_answer_number(alert, "count"), pry_answer_number(alert, "told"),
         fmax(0, (double)time(NULL) - pry_answer_number(alert, "opened")));
  pry_answer_print(stdout, alert, "sink", 64, "?");
  printf("  ");
  pry_answer_print(stdout, alert, "key", 200, "?");
  printf("\n    ");
  pry_answer_print(stdout, alert, "title", 300, "?");
  printf("\n");
}

static void print_alerts(struct pry_slice answer)
{
  if (pry_answer_each(answer, "alerts", print_alert, NULL) == 0)
    fprintf(stderr, "no alert is open\n");
}

static int list(const struct given *given)
{
  return pry_admin_show(&given->admin, "/api/v1/alerts", given->json, print_alerts);
}

/* A sink's name has nothing that means something in a URL. */
static bool is_name(const char *name)
{
  size_t size = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.");
  return size > 0 && size < 64 && !name[size];
}

int pry_cmd_alert(int argc, char **argv)
{
  struct given given = {0};
  const struct pry_option options[] = {
      {"policies", 0, PRY_OPTION_TEXT, "DIR", "test: send it from here, for a sink of these policies", &given.policies},
      PRY_OPTIONS_ADMIN(given.admin, "of the running parry (PARRY_ADMIN, else a socket of this user)"),
      PRY_OPTIONS_JSON(&given.json),
  };
  const struct pry_command_line line = {.usage = "parry alert test SINK [OPTIONS] | parry alert list [OPTIONS]",
                                        .doc = DOC,
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .operands_max = 2,
                                        .after = AFTER};
  size_t operands = 0;
  int code = pry_options_parse(&line, argc, argv, &operands);
  if (code >= 0)
    return code;
  const char *verb = operands ? argv[1] : "", *sink = operands > 1 ? argv[2] : NULL;
  if (strcmp(verb, "list") == 0)
    return sink             ? usage("list takes no name")
           : given.policies ? usage("--policies is for test; what is open, only a running parry knows")
                            : list(&given);
  if (strcmp(verb, "test") != 0)
    return usage("say test SINK, or list");
  if (!sink || !is_name(sink))
    return usage(sink ? "that is no name of a sink" : "which sink? give its name");
  return given.policies ? test_here(&given, sink) : test_there(&given, sink);
}
