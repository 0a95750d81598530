#include "cli.h"

#include "admin_options.h"
#include "json.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

static const char DOC[] = "Shows what the running parry serves and how it is doing.";

static const char AFTER[] = "exit codes: 0 it answered; 2 usage; 3 no running parry reached";

static double number(struct pry_slice object, const char *path)
{
  struct pry_json_value value;
  double result;
  return pry_json_get(object, path, &value) && pry_json_number(value.raw, &result) ? result : NAN;
}

static bool is_true(struct pry_slice object, const char *path)
{
  struct pry_json_value value;
  return pry_json_get(object, path, &value) && value.type == PRY_JSON_TRUE;
}

/* Prints a text member with what could steer a terminal replaced; `otherwise` when there is none. */
static void print_text(struct pry_slice object, const char *path, size_t most, const char *otherwise)
{
  struct pry_json_value value;
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  bool found = pry_json_get(object, path, &value) && value.type == PRY_JSON_STRING && pry_json_string(value.raw, &text);
  for (size_t i = 0; i < text.size; i++)
    if ((unsigned char)text.data[i] < 0x20 || text.data[i] == 0x7F)
      text.data[i] = ' ';
  if (found)
    printf("%.*s", (int)(text.size < most ? text.size : most), text.size ? text.data : "");
  else
    printf("%s", otherwise);
  pry_buffer_fini(&text);
}

static void print_span(double seconds)
{
  if (!(seconds >= 0))
    printf("?");
  else if (seconds < 120)
    printf("%.0f s", seconds);
  else if (seconds < 7200)
    printf("%.0f min", seconds / 60);
  else if (seconds < 172800)
    printf("%.1f h", seconds / 3600);
  else
    printf("%.1f d", seconds / 86400);
}

static void print_ago(double unix_time)
{
  print_span(fmax(0, (double)time(NULL) - unix_time));
  printf(" ago");
}

typedef void (*print_fn)(struct pry_slice element);

/* One line per element below a heading; nothing at all for an empty list. */
static void print_list(struct pry_slice status, const char *path, const char *heading, print_fn print)
{
  struct pry_json_value list, element;
  struct pry_json_iterator iterator;
  struct pry_slice key;
  size_t count = 0;
  if (!pry_json_get(status, path, &list))
    return;
  pry_json_iterate(&iterator, list.raw);
  while (pry_json_next(&iterator, &key, &element)) {
    printf("%-12s ", count++ ? "" : heading);
    print(element.raw);
    printf("\n");
  }
}

static void print_finding(struct pry_slice finding)
{
  print_text(finding, "where", 200, "?");
  printf(": ");
  print_text(finding, "what", 600, "?");
}

static void print_call(struct pry_slice call)
{
  print_text(call, "id", 40, "?");
  printf("  %.1f s  ", number(call, "seconds"));
  print_text(call, "state", 20, "?");
  printf("  attempt %.0f  ", number(call, "attempt"));
  print_text(call, "target", 100, "-");
}

static void print_breaker(struct pry_slice breaker)
{
  print_text(breaker, "key", 100, "?");
  printf("  ");
  print_text(breaker, "state", 20, "?");
}

static void print_credential(struct pry_slice credential)
{
  double expires = number(credential, "expires_at");
  print_text(credential, "name", 60, "?");
  printf("  ");
  print_text(credential, "state", 20, "?");
  if (expires > 0) {
    printf("  expires in ");
    print_span(fmax(0, expires - (double)time(NULL)));
  }
  printf("  renewals %.0f  failures %.0f  waiting %.0f", number(credential, "renewals"), number(credential, "failures"),
         number(credential, "waiting"));
  struct pry_json_value error;
  if (pry_json_get(credential, "last_error", &error) && error.type == PRY_JSON_STRING) {
    printf("  last error: ");
    print_text(credential, "last_error", 300, "");
  }
}

static void print_job(struct pry_slice job)
{
  print_text(job, "policy", 60, "?");
  printf("  every ");
  print_span(number(job, "period"));
  printf(", next in ");
  print_span(number(job, "next_in"));
  printf("  runs %.0f  skipped %.0f  faults %.0f%s", number(job, "runs"), number(job, "skipped"), number(job, "faults"),
         is_true(job, "running") ? "  running" : "");
}

static void print_generation(struct pry_slice status)
{
  printf("generation   ");
  print_text(status, "generation.id", 7, "none");
  printf("  %.0f policies, %.0f tests, loaded ", number(status, "generation.policies"),
         number(status, "generation.tests"));
  print_ago(number(status, "generation.loaded_at"));
  printf("  from ");
  print_text(status, "policies_folder", 300, "?");
  printf("\n");
}

static void print_reload(struct pry_slice status)
{
  struct pry_json_value last;
  printf("reloads      %.0f taken over, %.0f refused", number(status, "reloads"), number(status, "reloads_refused"));
  if (!pry_json_get(status, "last_reload", &last) || last.type != PRY_JSON_OBJECT) {
    printf("\n");
    return;
  }
  printf("; last: ");
  print_text(last.raw, "result", 20, "?");
  printf(", ");
  print_ago(number(last.raw, "at"));
  printf("\n");
  print_list(last.raw, "report", "  findings", print_finding);
}

static void print_status(struct pry_slice status)
{
  printf("parry ");
  print_text(status, "version", 20, "?");
  printf("  pid %.0f, up ", number(status, "pid"));
  print_span(number(status, "uptime"));
  printf("%s\n", is_true(status, "draining") ? ", draining" : is_true(status, "ready") ? ", ready" : ", not ready");
  printf("gateway      ");
  print_text(status, "listen", 200, "none");
  printf("  %.0f worker\n", number(status, "workers"));
  print_generation(status);
  print_reload(status);
  printf("calls        %.0f open, %.0f waiting for a place\n", number(status, "calls_open"),
         number(status, "waiting_for_a_place"));
  print_list(status, "calls", "", print_call);
  printf("faults       %.0f of policies\n", number(status, "faults"));
  print_list(status, "breakers", "breakers", print_breaker);
  print_list(status, "credentials", "credentials", print_credential);
  print_list(status, "jobs", "every", print_job);
  printf("alerts       %.0f open, %.0f queued\n", number(status, "alerts.open"), number(status, "alerts.queued"));
  printf("memory       policies %.0f KiB, kept requests %.0f KiB, %.0f keys in the store\n",
         number(status, "script_bytes") / 1024, number(status, "replay_bytes") / 1024, number(status, "store_keys"));
}

int pry_cmd_status(int argc, char **argv)
{
  struct pry_admin_options_given admin = {0};
  bool json = false;
  const struct pry_option options[] = {
      PRY_OPTIONS_ADMIN(admin, "of the running parry (PARRY_ADMIN, else a socket of this user)"),
      PRY_OPTIONS_JSON(&json),
  };
  const struct pry_command_line line = {.usage = "parry status [OPTIONS]",
                                        .doc = DOC,
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .after = AFTER};
  int code = pry_options_parse(&line, argc, argv, NULL);
  if (code >= 0)
    return code;
  int status;
  struct pry_buffer body;
  code = pry_admin_call(&admin, "GET", "/api/v1/status", 10, &status, &body);
  if (code >= 0)
    return code;
  if (json)
    fwrite(body.data, 1, body.size, stdout);
  else
    print_status(pry_buffer_slice(&body));
  pry_buffer_fini(&body);
  return PRY_EXIT_OK;
}
