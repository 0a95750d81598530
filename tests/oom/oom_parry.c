/* The library as a host uses it, with each allocation and system call failing: each function says so or does its work, each
 * call has its one on_done, and later ones are good. */
#include "fail.h"
#include "parry.h"
#include "wire.h"

#include <ftw.h>
#include <sys/stat.h>
#include <time.h>

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"good\":42}"

#define INIT                                                                                                           \
  "provider 'p' { base_url = 'http://%s', dialect = 'd', timeouts = { connect = 0.2, first_byte = 0.2, idle = 0.2 } "  \
  "}\n"                                                                                                                \
  "route '/v1/*' { to = 'p', deadline = 0.4, repeatable = true, chain = { use 'p' } }\n-- %d\n"
#define POLICY                                                                                                         \
  "return policy { name = 'p',\n"                                                                                      \
  "  on_event = function(self, event) return retry { after = 0.1 * event.fields.n } end,\n"                            \
  "  on_error = function(self, call, err)\n"                                                                           \
  "    if call.target.attempts < 2 then return retry { after = 0.001, why = err.category } end end }\n"

struct host {
  unsigned threads;
  char folder[64];
  struct wire_provider provider;
  parry *engine;
  unsigned dones;
  int status;
  size_t bytes;
};

static const char *const answers[] = {ANSWER, NULL};

static void write_file(const struct host *host, const char *name, const char *text)
{
  char path[160];
  snprintf(path, sizeof path, "%s/%s", host->folder, name);
  FILE *file = fopen(path, "w");
  FAIL_CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void write_init(const struct host *host, int n)
{
  char text[512];
  fail_quiet();
  snprintf(text, sizeof text, INIT, host->provider.address, n);
  write_file(host, "init.lua", text);
  fail_loud();
}

static void take_line(void *user, int level, const char *line, size_t size)
{
  (void)user, (void)level;
  FAIL_CHECK(strlen(line) == size);
}

static void open_host(struct host *host, unsigned threads)
{
  char path[160];
  fail_quiet();
  memset(host, 0, sizeof *host);
  host->threads = threads;
  wire_provider_open(&host->provider, answers);
  snprintf(host->folder, sizeof host->folder, "/tmp/parry-oom-XXXXXX");
  FAIL_CHECK(mkdtemp(host->folder));
  snprintf(path, sizeof path, "%s/dialects", host->folder);
  FAIL_CHECK(mkdir(path, 0700) == 0);
  write_file(host, "p.lua", POLICY);
  write_file(host, "dialects/d.lua", "return dialect { name = 'd', stream = { default = 'content' } }\n");
  fail_loud();
  write_init(host, 1);
}

static bool has_findings(struct host *host)
{
  return parry_findings(host->engine, NULL, 0) > 0;
}

/* The engine, or NULL with an error; a refusal comes with findings. */
static bool make_engine(struct host *host)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  options.policy_dir = host->folder;
  options.log = take_line;
  options.threads = host->threads;
  int error = parry_new(&host->engine, &options);
  FAIL_CHECK((error == PARRY_OK || error == PARRY_EPOLICY) == (host->engine != NULL));
  FAIL_CHECK(error == PARRY_OK || fail_struck());
  FAIL_CHECK(error != PARRY_EPOLICY || has_findings(host));
  return error == PARRY_OK;
}

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *place)
{
  (void)about, (void)type, (void)place;
  return remove(path);
}

static void close_host(struct host *host)
{
  parry_free(host->engine);
  fail_quiet();
  wire_provider_close(&host->provider);
  nftw(host->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  fail_loud();
}

static void on_headers(void *user, int status, const struct parry_header *headers, size_t count)
{
  struct host *host = user;
  (void)headers, (void)count;
  host->status = status;
}

static int on_data(void *user, const void *data, size_t size)
{
  struct host *host = user;
  (void)data;
  host->bytes += size;
  return 0;
}

static void on_done(void *user, const struct parry_outcome *outcome)
{
  struct host *host = user;
  FAIL_CHECK(outcome->category && outcome->message && outcome->target && outcome->call_id);
  host->dones++;
}

static double now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Every call that was started ends, within its deadline and a little. */
static bool call(struct host *host)
{
  static const struct parry_call_ops ops = {
      .size = sizeof ops, .on_headers = on_headers, .on_data = on_data, .on_done = on_done};
  static const struct parry_header header = {"Content-Type", "application/json"};
  struct parry_request request = PARRY_REQUEST_INIT;
  parry_call_id id;
  host->dones = 0;
  host->status = 0;
  request.path = "/v1/chat/completions";
  request.headers = &header;
  request.header_count = 1;
  request.body = "{\"model\":\"m\"}";
  request.body_size = 13;
  int error = parry_call(host->engine, &request, &ops, host, &id);
  FAIL_CHECK(error == PARRY_OK || fail_struck());
  double started = now();
  while (error == PARRY_OK && !host->dones) {
    FAIL_CHECK(now() - started < 8);
    parry_run(host->engine, 0.001);
    wire_provider_serve(&host->provider);
  }
  FAIL_CHECK(host->dones == (error == PARRY_OK));
  return host->status == 200;
}

static bool decide(struct host *host)
{
  struct parry_event failure = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  failure.target = "p/m";
  failure.status = 503;
  failure.body = "{\"error\":{}}";
  failure.body_size = 12;
  int error = parry_decide(host->engine, &failure, &decision, NULL, NULL);
  FAIL_CHECK(error == PARRY_OK || fail_struck());
  bool good = error == PARRY_OK && decision.action == PARRY_RETRY;
  struct parry_event event = PARRY_EVENT_INIT;
  event.name = "upload";
  event.fields = "{\"n\":2}";
  error = parry_decide(host->engine, &event, &decision, NULL, NULL);
  FAIL_CHECK(error == PARRY_OK || fail_struck());
  return good && error == PARRY_OK && decision.action == PARRY_RETRY;
}

static void use_new_with(unsigned threads)
{
  struct host host;
  open_host(&host, threads);
  bool made = make_engine(&host);
  fail_over();
  if (made)
    FAIL_CHECK(call(&host) && decide(&host));
  close_host(&host);
}

static void use_all_with(unsigned threads)
{
  struct host host;
  open_host(&host, threads);
  fail_quiet();
  bool made = make_engine(&host);
  fail_loud();
  FAIL_CHECK(made);
  call(&host);
  decide(&host);
  fail_over();
  FAIL_CHECK(call(&host) && decide(&host));
  close_host(&host);
}

static void use_reload(void)
{
  struct host host;
  open_host(&host, 0);
  fail_quiet();
  bool made = make_engine(&host);
  fail_loud();
  FAIL_CHECK(made);
  write_init(&host, 2);
  int error = parry_reload(host.engine, 1);
  FAIL_CHECK(error == PARRY_OK || (fail_struck() && (error == PARRY_ENOMEM || has_findings(&host))));
  fail_over();
  FAIL_CHECK(call(&host) && decide(&host));
  FAIL_CHECK(parry_reload(host.engine, 1) == PARRY_OK);
  FAIL_CHECK(call(&host));
  close_host(&host);
}

static void use_new(void)
{
  use_new_with(0);
}

static void use_new_threads(void)
{
  use_new_with(2);
}

static void use_all(void)
{
  use_all_with(0);
}

static void use_thread(void)
{
  use_all_with(1);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"parry_new", use_new, FAIL_BOTH, 80},
      {"parry_call and parry_decide", use_all, FAIL_BOTH, 120},
      {"parry_reload", use_reload, FAIL_BOTH, 80},
      {"parry_new with threads", use_new_threads, FAIL_BOTH, 40},
      {"parry_call with a thread", use_thread, FAIL_BOTH, 20},
      {"parry_call on its thread", use_thread, FAIL_BOTH | FAIL_IN_THREAD(1), 40},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
