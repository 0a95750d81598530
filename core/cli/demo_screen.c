#include "demo.h"

#include "json.h"

#include <math.h>
#include <time.h>

enum { LINES_A_SECOND = 10, FINDINGS_SHOWN = 3 };

/* ---- reading log lines --------------------------------------------------------------------------------------- */

/* A member as text that cannot steer a terminal; "" when it is not there. */
static void member(struct pry_slice line, const char *name, char *out, size_t size)
{
  struct pry_json_value value;
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  bool ok = pry_json_get(line, name, &value) && value.type == PRY_JSON_STRING && pry_json_string(value.raw, &text);
  snprintf(out, size, "%.*s", ok ? (int)text.size : 0, text.size ? text.data : "");
  for (char *c = out; *c; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7F)
      *c = ' ';
  pry_buffer_fini(&text);
}

static double number(struct pry_slice line, const char *name)
{
  struct pry_json_value value;
  double result;
  return pry_json_get(line, name, &value) && pry_json_number(value.raw, &result) ? result : 0;
}

static bool is(struct pry_slice line, const char *name, const char *text)
{
  struct pry_json_value value;
  return pry_json_get(line, name, &value) && pry_json_equals(value.raw, pry_slice_of(text));
}

/* ---- verdicts and calls --------------------------------------------------------------------------------------- */

static struct pry_demo_verdict *verdict_of(struct pry_demo_screen *screen, const char *call_id)
{
  for (size_t i = 0; i < PRY_DEMO_CALLS_SHOWN; i++)
    if (call_id[0] && strcmp(screen->verdicts[i].call_id, call_id) == 0)
      return &screen->verdicts[i];
  return NULL;
}

/* "503 overloaded", "-2002 auth", "network" */
static void describe_failure(struct pry_slice line, char *out, size_t size)
{
  char target[128], category[32], code[64], detail[96] = "";
  int status = (int)number(line, "status");
  member(line, "target", target, sizeof target);
  member(line, "category", category, sizeof category);
  member(line, "code", code, sizeof code);
  if (status >= 400)
    snprintf(detail, sizeof detail, "%d ", status);
  else if (code[0])
    snprintf(detail, sizeof detail, "%s ", code);
  snprintf(out, size, "%-24s %s%s", target, detail, category);
}

static void describe_decision(struct pry_slice line, char *out, size_t size)
{
  char verdict[32], to[128];
  member(line, "verdict", verdict, sizeof verdict);
  member(line, "to", to, sizeof to);
  if (strcmp(verdict, "retry") == 0)
    snprintf(out, size, "retry in %.1f s", number(line, "after"));
  else if (strcmp(verdict, "fallback") == 0)
    snprintf(out, size, "go to %s", to);
  else if (strcmp(verdict, "renew") == 0)
    snprintf(out, size, "renew the token");
  else
    snprintf(out, size, "%s", verdict);
}

/* Also of one that would have broken a promise of the core: "because" says which. */
static void keep_verdict(struct pry_demo_screen *screen, struct pry_slice line)
{
  char call_id[48], file[64], why[384], because[192];
  member(line, "call_id", call_id, sizeof call_id);
  member(line, "file", file, sizeof file);
  member(line, "why", why, sizeof why);
  member(line, "because", because, sizeof because);
  struct pry_demo_verdict *verdict = verdict_of(screen, call_id);
  if (!verdict)
    verdict = &screen->verdicts[screen->next++ % PRY_DEMO_CALLS_SHOWN];
  snprintf(verdict->call_id, sizeof verdict->call_id, "%s", call_id);
  describe_failure(line, verdict->failure, sizeof verdict->failure);
  describe_decision(line, verdict->decision, sizeof verdict->decision);
  snprintf(verdict->why, sizeof verdict->why, "%s:%.0f \"%s\"", file, number(line, "line"), why);
  if (because[0]) {
    size_t used = strlen(verdict->why);
    snprintf(verdict->why + used, sizeof verdict->why - used, " not done: %s", because);
  }
}

static void print_time(const struct pry_demo_screen *screen)
{
  time_t now = time(NULL);
  struct tm parts;
  char text[16] = "";
  if (localtime_r(&now, &parts))
    strftime(text, sizeof text, "%H:%M:%S", &parts);
  fprintf(screen->out, "%s ", text);
}

/* Somebody may send far more calls through the demo than a screen can show. */
static bool may_write(struct pry_demo_screen *screen)
{
  double now = (double)time(NULL);
  if (now != screen->second) {
    screen->second = now;
    screen->lines = 0;
  }
  return screen->lines++ < LINES_A_SECOND;
}

/* A call that needed no policy and went well has no line. */
static void show_call(struct pry_demo_screen *screen, struct pry_slice line)
{
  char call_id[48], outcome[32], target[128];
  member(line, "call_id", call_id, sizeof call_id);
  member(line, "outcome", outcome, sizeof outcome);
  member(line, "target", target, sizeof target);
  struct pry_demo_verdict *verdict = verdict_of(screen, call_id);
  bool ok = strcmp(outcome, "ok") == 0;
  if ((!verdict && ok) || !may_write(screen))
    return;
  int attempts = (int)number(line, "attempts");
  print_time(screen);
  if (verdict)
    fprintf(screen->out, "%s → %s  %s  ", verdict->failure, verdict->decision, verdict->why);
  else
    fprintf(screen->out, "%-24s no policy had a verdict  ", target);
  fprintf(screen->out, "%s%d after %d attempt%s, %.1f s; %s%s\n", ok ? "" : "FAILED: ", (int)number(line, "status"),
          attempts, attempts == 1 ? "" : "s", number(line, "seconds"),
          ok ? "the client saw no error" : "the client saw ", ok ? "" : outcome);
  fflush(screen->out);
  if (verdict)
    verdict->call_id[0] = '\0';
}

static void show_fault(struct pry_demo_screen *screen, struct pry_slice line)
{
  char fault[384], policy[64], handler[32];
  member(line, "fault", fault, sizeof fault);
  member(line, "policy", policy, sizeof policy);
  member(line, "handler", handler, sizeof handler);
  if (!may_write(screen))
    return;
  print_time(screen);
  fprintf(screen->out, "FAULT in %s, %s: %s; the call goes on without it\n", policy, handler, fault);
  fflush(screen->out);
}

static void show_problem(struct pry_demo_screen *screen, struct pry_slice line)
{
  char message[256], error[384], where[128];
  member(line, "msg", message, sizeof message);
  member(line, "error", error, sizeof error);
  member(line, "fault", where, sizeof where);
  if (!may_write(screen))
    return;
  print_time(screen);
  fprintf(screen->out, "%s%s%s%s%s\n", message, error[0] ? ": " : "", error, where[0] ? ": " : "", where);
  fflush(screen->out);
}

void pry_demo_screen_log(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct pry_demo_screen *screen = user;
  struct pry_slice text = {line, size};
  if (is(text, "msg", "verdict") || is(text, "msg", "verdict not carried out"))
    keep_verdict(screen, text);
  else if (is(text, "msg", "call"))
    show_call(screen, text);
  else if (is(text, "msg", "policy fault"))
    show_fault(screen, text);
  else if (level >= PRY_LOG_ERROR && !is(text, "msg", "policies refused")) /* that one is told with its findings */
    show_problem(screen, text);
}

/* ---- saved policies ------------------------------------------------------------------------------------------- */

void pry_demo_screen_reload(struct pry_demo_screen *screen, const struct pry_reload_outcome *outcome,
                            const struct pry_generation *serving)
{
  const struct pry_report *report = outcome->report;
  print_time(screen);
  if (outcome->result == PRY_RELOAD_TAKEN_OVER) {
    fprintf(screen->out,
            "saved and taken over: generation %.7s, %u tests passed; the next failure is handled the new way\n",
            serving->id, serving->tests);
    fflush(screen->out);
    return;
  }
  fprintf(screen->out, "refused, still serving %.7s%s", serving->id, report->errors > 1 ? ":\n" : ": ");
  size_t shown = 0;
  for (size_t i = 0; i < report->count && shown < FINDINGS_SHOWN; i++) {
    if (report->findings[i].severity != PRY_FINDING_ERROR)
      continue;
    fprintf(screen->out, "%s%s: %s\n", report->errors > 1 ? "  " : "", report->findings[i].where,
            report->findings[i].what);
    shown++;
  }
  if (report->errors > shown)
    fprintf(screen->out, "  and %zu more\n", (size_t)report->errors - shown);
  fflush(screen->out);
}
