/* What a host and its policies tell each other, with each allocation and system call failing: a function that cannot be
 * asked, an event or a report that is lost, a decision that cannot wait is told to whoever asked, and to nobody else. */
#include "fail.h"
#include "parry.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define INIT                                                                                                           \
  "provider 'p' { host = true }\n"                                                                                     \
  "sink 'silent' { webhook = secret 'NO_SUCH_SECRET_HERE' }\n"                                                         \
  "route '/v1/*' { to = 'p/m', deadline = 5, repeatable = true, chain = { use 'h' } }\n"
#define POLICY                                                                                                         \
  "return policy { name = 'h',\n"                                                                                      \
  "  on_event = function(self, event)\n"                                                                               \
  "    local f = event.fields\n"                                                                                       \
  "    if event.name == 'alert' then\n"                                                                                \
  "      notify { to = 'silent', key = 'k', text = 'it is broken', resolve = f.resolve }\n"                            \
  "      return\n"                                                                                                     \
  "    end\n"                                                                                                          \
  "    local value, err = host.call(f.ask, { n = f.n })\n"                                                             \
  "    return retry { after = 1, why = err and err.category or value.text }\n"                                         \
  "  end,\n"                                                                                                           \
  "  on_error = function(self, call, err)\n"                                                                           \
  "    if call.target.attempts < 3 then return retry { after = 0.001, why = err.category } end end,\n"                 \
  "  on_outcome = function(self, call, outcome)\n"                                                                     \
  "    log.info('went', { target = outcome.target, took = host.call('quick', outcome.target) ~= nil }) end }\n"

enum { PATIENCE = 8 };

struct host {
  parry *engine;
  char folder[64];
  unsigned asked, ready, lines;
  unsigned opened, resolved;
  char why[256];
  /* the call */
  unsigned attempts, dones;
  int status;
};

/* ---- the host ------------------------------------------------------------------------------------------------ */

static double now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void write_file(const struct host *host, const char *name, const char *text)
{
  char path[160];
  snprintf(path, sizeof path, "%s/%s", host->folder, name);
  FILE *file = fopen(path, "w");
  FAIL_CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void on_log(void *user, int level, const char *line, size_t size)
{
  struct host *host = user;
  (void)level;
  FAIL_CHECK(strlen(line) == size);
  host->lines++;
}

static void on_alert(void *user, const struct parry_alert *alert)
{
  struct host *host = user;
  FAIL_CHECK(strcmp(alert->key, "h/k") == 0 && strcmp(alert->sink, "silent") == 0);
  if (alert->resolved)
    host->resolved++;
  else
    host->opened++;
}

static void slow(void *user, parry_request_id request, const char *arguments, size_t size)
{
  struct host *host = user;
  FAIL_CHECK(strlen(arguments) == size);
  host->asked++;
  int error = parry_reply(host->engine, request, "{\"text\":\"slow\"}", NULL);
  FAIL_CHECK(error == PARRY_OK || (error == PARRY_ENOMEM && fail_struck()));
}

static void quick(void *user, parry_request_id request, const char *arguments, size_t size)
{
  const struct host *host = user;
  FAIL_CHECK(strlen(arguments) == size);
  int error = parry_reply(host->engine, request, "{\"text\":\"quick\"}", NULL);
  FAIL_CHECK(error == PARRY_OK || (error == PARRY_ENOMEM && fail_struck()));
}

static void open_host(struct host *host, unsigned threads)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  fail_quiet();
  *host = (struct host){.folder = "/tmp/parry-oom-XXXXXX"};
  FAIL_CHECK(mkdtemp(host->folder));
  write_file(host, "h.lua", POLICY);
  write_file(host, "init.lua", INIT);
  options.policy_dir = host->folder;
  options.share_dir = "";
  options.threads = threads;
  options.deciders = 2;
  options.log = on_log;
  options.alert = on_alert;
  options.user = host;
  FAIL_CHECK(parry_new(&host->engine, &options) == PARRY_OK);
  fail_loud();
}

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *place)
{
  (void)about, (void)type, (void)place;
  return remove(path);
}

static void close_host(struct host *host)
{
  FAIL_CHECK(parry_free(host->engine) == PARRY_OK);
  fail_quiet();
  nftw(host->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  fail_loud();
}

static void run(struct host *host)
{
  FAIL_CHECK(parry_run(host->engine, 0.001) >= 0);
}

/* What may have been lost on the way is waited for only a moment; what cannot, as long as a handler may wait and less. */
static bool arrives(struct host *host, const unsigned *count, unsigned enough)
{
  for (double began = now(); *count < enough && now() - began < (fail_struck() ? 0.02 : PATIENCE);)
    run(host);
  return *count >= enough;
}

/* True; or memory was short. */
static bool done_or_short(int error)
{
  FAIL_CHECK(error == PARRY_OK || (fail_struck() && (error == PARRY_ENOMEM || error == PARRY_ESYSTEM)));
  return error == PARRY_OK;
}

/* ---- functions ------------------------------------------------------------------------------------------------- */

static bool register_both(struct host *host)
{
  bool both = done_or_short(parry_register(host->engine, "slow", slow, host, 0));
  return done_or_short(parry_register(host->engine, "quick", quick, host, PARRY_ANY_THREAD)) && both;
}

static void take_back(struct host *host)
{
  FAIL_CHECK(parry_register(host->engine, "slow", NULL, NULL, 0) == PARRY_OK);
  FAIL_CHECK(parry_register(host->engine, "quick", NULL, NULL, 0) == PARRY_OK);
}

static void on_ready(void *user, const struct parry_decision *decision)
{
  struct host *host = user;
  FAIL_CHECK(decision->action == PARRY_RETRY || fail_struck());
  snprintf(host->why, sizeof host->why, "%s", decision->why);
  host->ready++;
}

/* A decision that waits comes, whatever fails, and once. */
static bool ask(struct host *host, const char *fields, const char *expected)
{
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  event.name = "ask";
  event.fields = fields;
  host->ready = 0;
  host->why[0] = '\0';
  int error = parry_decide(host->engine, &event, &decision, on_ready, host);
  if (error == PARRY_PENDING) {
    for (double began = now(); !host->ready; run(host))
      FAIL_CHECK(now() - began < PATIENCE);
    FAIL_CHECK(host->ready == 1);
    return strcmp(host->why, expected) == 0;
  }
  return done_or_short(error) && decision.action == PARRY_RETRY && strcmp(decision.why, expected) == 0;
}

static bool ask_both(struct host *host)
{
  bool slow_one = ask(host, "{\"ask\":\"slow\",\"n\":1}", "slow");
  bool quick_one = ask(host, "{\"ask\":\"quick\",\"n\":2}", "quick");
  return ask(host, "{\"ask\":\"nobody\"}", "unknown") && slow_one && quick_one;
}

static void use_functions_with(unsigned threads)
{
  struct host host;
  open_host(&host, threads);
  register_both(&host);
  ask_both(&host);
  fail_over();
  FAIL_CHECK(register_both(&host) && ask_both(&host));
  take_back(&host);
  close_host(&host);
}

/* ---- reports and decisions -------------------------------------------------------------------------------------- */

static bool report_and_decide(struct host *host, unsigned attempt)
{
  static const struct parry_header headers[] = {{"Content-Type", "application/json"}, {"Retry-After", "1"}};
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  event.target = "p/m";
  event.ok = 1;
  bool good = done_or_short(parry_report(host->engine, &event));
  event.ok = 0;
  event.attempt = attempt;
  event.status = 503;
  event.headers = headers;
  event.header_count = 2;
  event.body = "{\"error\":{\"message\":\"too many\",\"code\":\"overloaded\"}}";
  event.body_size = strlen(event.body);
  event.message = "it was too much";
  bool told = done_or_short(parry_report(host->engine, &event));
  bool asked = done_or_short(parry_decide(host->engine, &event, &decision, NULL, NULL));
  FAIL_CHECK(!asked || decision.action == PARRY_FAIL || decision.after >= 1);
  return good && told && asked && decision.action == PARRY_RETRY;
}

static void use_reports_with(unsigned threads)
{
  struct host host;
  open_host(&host, threads);
  fail_quiet();
  FAIL_CHECK(register_both(&host));
  fail_loud();
  report_and_decide(&host, 1);
  run(&host);
  fail_over();
  FAIL_CHECK(report_and_decide(&host, 2));
  close_host(&host);
}

/* ---- what the engine tells ---------------------------------------------------------------------------------------- */

static bool emit(struct host *host, const char *fields)
{
  return done_or_short(parry_emit(host->engine, "alert", fields));
}

static void see(void *user, const struct parry_sample *sample)
{
  FAIL_CHECK(sample->name && sample->labels && sample->help);
  ++*(unsigned *)user;
}

static bool look(struct host *host)
{
  unsigned samples = 0;
  bool all = done_or_short(parry_metrics(host->engine, see, &samples));
  FAIL_CHECK(all == (samples > 0));
  return all;
}

static void use_news_with(unsigned threads)
{
  struct host host;
  open_host(&host, threads);
  emit(&host, NULL);
  arrives(&host, &host.opened, 1);
  look(&host);
  emit(&host, "{\"resolve\":true}");
  arrives(&host, &host.resolved, 1);
  fail_over();
  for (double began = now(); parry_run(host.engine, 0.001) > 0;) /* what was begun before ends */
    FAIL_CHECK(now() - began < PATIENCE);
  host.opened = host.resolved = 0;
  FAIL_CHECK(emit(&host, "{\"resolve\":true}") && emit(&host, NULL) && emit(&host, "{\"resolve\":true}"));
  for (double began = now(); !host.opened || !host.resolved; run(&host))
    FAIL_CHECK(now() - began < PATIENCE);
  FAIL_CHECK(look(&host));
  close_host(&host);
}

/* ---- attempts ------------------------------------------------------------------------------------------------------ */

static void on_headers(void *user, int status, const struct parry_header *headers, size_t count)
{
  (void)headers, (void)count;
  ((struct host *)user)->status = status;
}

static int on_data(void *user, const void *data, size_t size)
{
  (void)user;
  FAIL_CHECK(data && size);
  return 0;
}

static void on_done(void *user, const struct parry_outcome *outcome)
{
  struct host *host = user;
  FAIL_CHECK(outcome->category && outcome->message && outcome->target && outcome->call_id);
  host->dones++;
}

/* The first fails, the next one is good. */
static void on_attempt(void *user, const struct parry_attempt *attempt)
{
  struct host *host = user;
  struct parry_event end = PARRY_EVENT_INIT;
  FAIL_CHECK(attempt->number > host->attempts && strcmp(attempt->target, "p/m") == 0);
  host->attempts++;
  end.ok = host->attempts > 1;
  end.status = end.ok ? 200 : 503;
  end.body = "{\"good\":42}";
  end.body_size = strlen(end.body);
  int error = parry_attempt_done(host->engine, attempt->call, attempt->number, &end);
  if (error == PARRY_ENOMEM)
    error = parry_attempt_done(host->engine, attempt->call, attempt->number, &end); /* as the time of it runs */
  FAIL_CHECK(error == PARRY_OK || fail_struck());
  if (error == PARRY_ENOMEM)
    parry_call_cancel(host->engine, attempt->call);
}

static bool call(struct host *host)
{
  static const struct parry_call_ops ops = {
      .size = sizeof ops, .on_headers = on_headers, .on_data = on_data, .on_done = on_done, .on_attempt = on_attempt};
  struct parry_request request = PARRY_REQUEST_INIT;
  request.path = "/v1/work";
  request.body = "{\"model\":\"m\"}";
  request.body_size = 13;
  host->attempts = host->dones = 0;
  host->status = 0;
  bool made = done_or_short(parry_call(host->engine, &request, &ops, host, NULL));
  for (double began = now(); made && !host->dones; run(host))
    FAIL_CHECK(now() - began < PATIENCE);
  FAIL_CHECK(host->dones == made);
  return made && host->status == 200 && host->attempts == 2;
}

static void use_attempts_with(unsigned threads)
{
  struct host host;
  open_host(&host, threads);
  call(&host);
  fail_over();
  FAIL_CHECK(call(&host));
  close_host(&host);
}

/* ---- all --------------------------------------------------------------------------------------------------------------- */

#define USE(what)                                                                                                      \
  static void use_##what(void)                                                                                         \
  {                                                                                                                    \
    use_##what##_with(0);                                                                                              \
  }                                                                                                                    \
  static void use_##what##_threads(void)                                                                               \
  {                                                                                                                    \
    use_##what##_with(1);                                                                                              \
  }

USE(functions)
USE(reports)
USE(news)
USE(attempts)

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"functions", use_functions, FAIL_BOTH, 150},
      {"functions, asked from elsewhere", use_functions_threads, FAIL_BOTH, 40},
      {"functions, on their thread", use_functions_threads, FAIL_BOTH | FAIL_IN_THREAD(1), 40},
      {"reports and decisions", use_reports, FAIL_BOTH, 150},
      {"reports and decisions beside a thread", use_reports_threads, FAIL_BOTH, 40},
      {"alerts, lines and metrics", use_news, FAIL_BOTH, 150},
      {"alerts, lines and metrics of a thread", use_news_threads, FAIL_BOTH | FAIL_IN_THREAD(1), 40},
      {"attempts", use_attempts, FAIL_BOTH, 150},
      {"attempts, asked for by a thread", use_attempts_threads, FAIL_BOTH | FAIL_IN_THREAD(1), 40},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
