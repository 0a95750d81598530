#include "cli.h"

#include "admin_options.h"
#include "answer.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

static const char DOC[] = "Shows what the running parry serves and how it is doing.";

static const char AFTER[] = "exit codes: 0 it answered; 1 it could not; 2 usage; 3 no running parry reached";

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

struct listing {
  const char *heading;
  print_fn print;
  size_t count;
};

static void print_element(void *user, struct pry_slice element)
{
  struct listing *listing = user;
  printf("%-12s ", listing->count++ ? "" : listing->heading);
  listing->print(element);
  printf("\n");
}

/* One line per element below a heading; nothing at all for an empty list. */
static void print_list(struct pry_slice status, const char *path, const char *heading, print_fn print)
{
  struct listing listing = {heading, print, 0};
  pry_answer_each(status, path, print_element, &listing);
}

static void print_finding(struct pry_slice finding)
{
  pry_answer_print(stdout, finding, "where", 200, "?");
  printf(": ");
  pry_answer_print(stdout, finding, "what", 600, "?");
}

static void print_call(struct pry_slice call)
{
  pry_answer_print(stdout, call, "id", 40, "?");
  printf("  %.1f s  ", pry_answer_number(call, "seconds"));
  pry_answer_print(stdout, call, "state", 20, "?");
  printf("  attempt %.0f  ", pry_answer_number(call, "attempt"));
  pry_answer_print(stdout, call, "target", 100, "-");
}

static void print_chaos(struct pry_slice armed)
{
  pry_answer_print(stdout, armed, "experiment", 60, "?");
  printf(" ARMED by ");
  pry_answer_print(stdout, armed, "instance", 60, "?");
  printf(", rate %g, ends in ", pry_answer_number(armed, "rate"));
  print_span(fmax(0, pry_answer_number(armed, "until") - (double)time(NULL)));
}

static void print_breaker(struct pry_slice breaker)
{
  pry_answer_print(stdout, breaker, "key", 100, "?");
  printf("  ");
  pry_answer_print(stdout, breaker, "state", 20, "?");
}

static void print_credential(struct pry_slice credential)
{
  double expires = pry_answer_number(credential, "expires_at");
  pry_answer_print(stdout, credential, "name", 60, "?");
  printf("  ");
  pry_answer_print(stdout, credential, "state", 20, "?");
  if (expires > 0) {
    printf("  expires in ");
    print_span(fmax(0, expires - (double)time(NULL)));
  }
  printf("  renewals %.0f  failures %.0f  waiting %.0f", pry_answer_number(credential, "renewals"),
         pry_answer_number(credential, "failures"), pry_answer_number(credential, "waiting"));
  char error[300];
  if (pry_answer_text(credential, "last_error", error, sizeof error)[0])
    printf("  last error: %s", error);
}

static void print_key(struct pry_slice key)
{
  double left = pry_answer_number(key, "left");
  pry_answer_print(stdout, key, "provider", 60, "?");
  printf("  ");
  pry_answer_print(stdout, key, "key", 60, "?");
  printf("  ");
  pry_answer_print(stdout, key, "state", 20, "?");
  if (left > 0) {
    printf(" for ");
    print_span(left);
  }
}

static void print_job(struct pry_slice job)
{
  pry_answer_print(stdout, job, "policy", 60, "?");
  printf("  every ");
  print_span(pry_answer_number(job, "period"));
  printf(", next in ");
  print_span(pry_answer_number(job, "next_in"));
  printf("  runs %.0f  skipped %.0f  faults %.0f%s", pry_answer_number(job, "runs"), pry_answer_number(job, "skipped"),
         pry_answer_number(job, "faults"), pry_answer_is_true(job, "running") ? "  running" : "");
}

static void print_worker(struct pry_slice worker)
{
  char role[16], where[200];
  pry_answer_text(worker, "role", role, sizeof role);
  printf("%.0f %-8s %.0f calls", pry_answer_number(worker, "worker"), role, pry_answer_number(worker, "calls_open"));
  double bytes = pry_answer_number(worker, "script_bytes");
  if (bytes >= 0)
    printf("  policies %.0f KiB", bytes / 1024);
  if (pry_answer_is_true(worker, "stuck"))
    printf("  STUCK");
  else if (!pry_answer_is_true(worker, "answers"))
    printf("  busy");
  if (pry_answer_text(worker, "where", where, sizeof where)[0])
    printf(" at %s", where);
  if (!pry_answer_is_true(worker, "adopted"))
    printf("  has not taken over the serving generation");
}

static void print_fault(struct pry_slice fault)
{
  print_ago(pry_answer_number(fault, "at"));
  printf("  ");
  pry_answer_print(stdout, fault, "policy", 60, "?");
  printf(" ");
  pry_answer_print(stdout, fault, "handler", 20, "?");
  printf(": ");
  pry_answer_print(stdout, fault, "fault", 256, "?");
}

/* What `parry rollback ID` can go back to. */
static void print_kept(struct pry_slice generation)
{
  pry_answer_print(stdout, generation, "id", 7, "?");
  printf("  loaded ");
  print_ago(pry_answer_number(generation, "loaded_at"));
  if (pry_answer_is_true(generation, "bad"))
    printf("  rolled back");
}

static void print_generation(struct pry_slice status)
{
  printf("generation   ");
  pry_answer_print(stdout, status, "generation.id", 7, "none");
  printf("  %.0f policies, %.0f tests, loaded ", pry_answer_number(status, "generation.policies"),
         pry_answer_number(status, "generation.tests"));
  print_ago(pry_answer_number(status, "generation.loaded_at"));
  printf("  from ");
  pry_answer_print(stdout, status, "policies_folder", 300, "?");
  printf("\n");
  if (pry_answer_is_true(status, "last_good"))
    printf("             these are the last good policies, kept under --state: those in the folder were refused\n");
  print_list(status, "kept", "  before", print_kept);
}

static void print_reload(struct pry_slice status)
{
  struct pry_json_value last;
  printf("reloads      %.0f taken over, %.0f refused, %.0f rolled back", pry_answer_number(status, "reloads"),
         pry_answer_number(status, "reloads_refused"), pry_answer_number(status, "rollbacks"));
  if (!pry_json_get(status, "last_reload", &last) || last.type != PRY_JSON_OBJECT) {
    printf("\n");
    return;
  }
  printf("; last: ");
  pry_answer_print(stdout, last.raw, "result", 20, "?");
  printf(", ");
  print_ago(pry_answer_number(last.raw, "at"));
  printf("\n");
  print_list(last.raw, "report", "  findings", print_finding);
}

static void print_clients(struct pry_slice status)
{
  struct pry_json_value error;
  if (!pry_answer_is_true(status, "clients.declared"))
    return;
  printf("clients      %.0f in ", pry_answer_number(status, "clients.count"));
  pry_answer_print(stdout, status, "clients.file", 300, "?");
  printf(", loaded ");
  print_ago(pry_answer_number(status, "clients.loaded_at"));
  if (pry_json_get(status, "clients.error", &error) && error.type == PRY_JSON_STRING) {
    printf("\n  refused since: ");
    pry_answer_print(stdout, status, "clients.error", 600, "");
  }
  printf("\n");
}

static void print_status(struct pry_slice status)
{
  printf("parry ");
  pry_answer_print(stdout, status, "version", 20, "?");
  printf("  pid %.0f, up ", pry_answer_number(status, "pid"));
  print_span(pry_answer_number(status, "uptime"));
  printf("%s\n", pry_answer_is_true(status, "draining") ? ", draining"
                 : pry_answer_is_true(status, "ready")  ? ", ready"
                                                        : ", not ready");
  printf("gateway      ");
  pry_answer_print(stdout, status, "listen", 200, "none");
  double workers = pry_answer_number(status, "workers");
  printf("  %.0f worker%s\n", workers, workers > 1 ? "s" : "");
  print_generation(status);
  print_reload(status);
  print_clients(status);
  printf("calls        %.0f open, %.0f waiting for a place\n", pry_answer_number(status, "calls_open"),
         pry_answer_number(status, "waiting_for_a_place"));
  print_list(status, "calls", "", print_call);
  print_list(status, "worker_list", "workers", print_worker);
  printf("faults       %.0f of policies\n", pry_answer_number(status, "faults"));
  print_list(status, "last_faults", "", print_fault);
  print_list(status, "chaos", "chaos", print_chaos);
  print_list(status, "breakers", "breakers", print_breaker);
  print_list(status, "credentials", "credentials", print_credential);
  print_list(status, "keys", "keys", print_key);
  print_list(status, "jobs", "every", print_job);
  printf("alerts       %.0f open, %.0f queued\n", pry_answer_number(status, "alerts.open"),
         pry_answer_number(status, "alerts.queued"));
  printf("memory       policies %.0f KiB, kept requests %.0f KiB, %.0f keys in the store\n",
         pry_answer_number(status, "script_bytes") / 1024, pry_answer_number(status, "replay_bytes") / 1024,
         pry_answer_number(status, "store_keys"));
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
  return pry_admin_show(&admin, "/api/v1/status", json, print_status);
}
