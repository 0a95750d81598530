/* What handing a call to parry costs a host beside making it with libcurl: the same small chat completion to the bench
 * provider (provider.c), 16 at a time, by curl's multi interface alone and by parry_call() with one thread of parry's and the
 * shipped chain. Prints one JSON object: processor time of the whole process a call in microseconds ("floor", "parry": one
 * figure a round, taken in turns), and what an engine costs before the first call, without a thread and with one:
 * milliseconds of parry_new(), and KiB of resident memory that it adds to a process of its own.
 *
 *     bench_call PORT [ROUNDS (9)] [CALLS (10000)] */
#include "parry.h"

#include <curl/curl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { AT_A_TIME = 16, ROUNDS_MAX = 1000, PATIENCE = 30000 };

static const char BODY[] = "{\"model\":\"bench-1\",\"messages\":[{\"role\":\"user\",\"content\":\"What is a proxy? One "
                           "sentence.\"}],\"temperature\":0.2,\"max_tokens\":64}";

static const char INIT[] =
    "provider 'token360' { base_url = 'http://127.0.0.1:%s/v1', dialect = 'openai' }\n"
    "route '/v1/*' { to = 'token360', deadline = 60, chain = {\n"
    "  use 'circuit_breaker' { failures = 5, cooldown = 10 }, use 'token_refresh',\n"
    "  use 'retry' { max_attempts = 3, base = 0 },\n"
    "  use 'fallback_model' { models = { ['sim-down'] = { 'token360/bench-2' } } }, use 'alert',\n"
    "} }\n";

struct bench {
  const char *port;
  size_t calls;
  char folder[64];
  parry *engine;
  size_t begun, ended;
};

static void give_up(const char *what, const char *why)
{
  fprintf(stderr, "bench_call: %s: %s\n", what, why);
  exit(1);
}

static double seconds(clockid_t clock)
{
  struct timespec time;
  clock_gettime(clock, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- curl alone ------------------------------------------------------------------------------------------------- */

static size_t drop(char *data, size_t size, size_t count, void *user)
{
  (void)data, (void)user;
  return size * count;
}

static CURL *new_easy(const struct bench *bench, struct curl_slist *headers)
{
  char url[128];
  CURL *easy = curl_easy_init();
  if (!easy)
    give_up("curl", "not enough memory");
  snprintf(url, sizeof url, "http://127.0.0.1:%s/v1/chat/completions", bench->port);
  curl_easy_setopt(easy, CURLOPT_URL, url);
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, BODY);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, drop);
  return easy;
}

/* Takes what has ended; as long as there are calls left the handle makes the next one. False: nothing has. */
static bool take_ended(struct bench *bench, CURLM *multi)
{
  CURLMsg *message;
  size_t before = bench->ended;
  int left;
  while ((message = curl_multi_info_read(multi, &left))) {
    long status = 0;
    CURL *easy = message->easy_handle;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (message->data.result != CURLE_OK || status != 200)
      give_up("curl", curl_easy_strerror(message->data.result));
    bench->ended++;
    curl_multi_remove_handle(multi, easy);
    if (bench->begun < bench->calls) {
      bench->begun++;
      curl_multi_add_handle(multi, easy);
    }
  }
  return bench->ended != before;
}

static void run_floor(struct bench *bench)
{
  CURL *easy[AT_A_TIME];
  CURLM *multi = curl_multi_init();
  struct curl_slist *headers = curl_slist_append(NULL, "content-type: application/json");
  if (!multi || !headers)
    give_up("curl", "not enough memory");
  for (size_t i = 0; i < AT_A_TIME; i++, bench->begun++) {
    easy[i] = new_easy(bench, headers);
    curl_multi_add_handle(multi, easy[i]);
  }
  while (bench->ended < bench->calls) {
    int running;
    if (curl_multi_perform(multi, &running) ||
        (!take_ended(bench, multi) && curl_multi_poll(multi, NULL, 0, 1000, NULL)))
      give_up("curl", "the multi handle failed");
  }
  for (size_t i = 0; i < AT_A_TIME; i++)
    curl_easy_cleanup(easy[i]);
  curl_multi_cleanup(multi);
  curl_slist_free_all(headers);
}

/* ---- parry ------------------------------------------------------------------------------------------------------ */

static void begin(struct bench *bench);

static void done(void *user, const struct parry_outcome *outcome)
{
  struct bench *bench = user;
  if (!outcome->ok)
    give_up("parry_call", outcome->why[0] ? outcome->why : outcome->category);
  bench->ended++;
  if (bench->begun < bench->calls)
    begin(bench);
}

static void begin(struct bench *bench)
{
  static const struct parry_header header = {"content-type", "application/json"};
  struct parry_call_ops ops = PARRY_CALL_OPS_INIT;
  struct parry_request request = PARRY_REQUEST_INIT;
  ops.on_done = done;
  request.path = "/v1/chat/completions", request.body = BODY, request.body_size = sizeof BODY - 1;
  request.headers = &header, request.header_count = 1;
  bench->begun++;
  int error = parry_call(bench->engine, &request, &ops, bench, NULL);
  if (error)
    give_up("parry_call", parry_strerror(error));
}

static void run_parry(struct bench *bench)
{
  struct pollfd ready = {.fd = parry_fd(bench->engine), .events = POLLIN};
  while (bench->begun < AT_A_TIME)
    begin(bench);
  while (bench->ended < bench->calls) {
    if (poll(&ready, 1, PATIENCE) != 1 || parry_dispatch(bench->engine) < 0)
      give_up("parry_call", "no answer in 30 s");
  }
}

static void start(struct bench *bench, unsigned threads)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  char findings[1024];
  options.policy_dir = bench->folder, options.share_dir = PARRY_SOURCE_DIR "/policies", options.threads = threads;
  options.log_level = PARRY_LOG_WARN;
  if (parry_new(&bench->engine, &options) == PARRY_OK)
    return;
  parry_findings(bench->engine, findings, sizeof findings);
  give_up("parry_new", findings);
}

/* ---- measuring -------------------------------------------------------------------------------------------------- */

static double cost(struct bench *bench, void (*run)(struct bench *bench))
{
  bench->begun = bench->ended = 0;
  double before = seconds(CLOCK_PROCESS_CPUTIME_ID);
  run(bench);
  return (seconds(CLOCK_PROCESS_CPUTIME_ID) - before) / (double)bench->calls * 1e6;
}

static long resident_kib(void)
{
  long size, pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file || fscanf(file, "%ld %ld", &size, &pages) != 2)
    give_up("/proc/self/statm", "cannot be read");
  fclose(file);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* In a child, whose memory nobody has used before. */
static void print_start(struct bench *bench, unsigned threads)
{
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    long kib = resident_kib();
    double before = seconds(CLOCK_MONOTONIC);
    start(bench, threads);
    double after = seconds(CLOCK_MONOTONIC);
    printf("{\"threads\":%u,\"ms\":%.1f,\"kib\":%ld}", threads, (after - before) * 1e3, resident_kib() - kib);
    fflush(stdout);
    parry_free(bench->engine);
    _exit(0);
  }
  int status = 1;
  if (child < 0 || waitpid(child, &status, 0) != child || status)
    give_up("fork", "the child failed");
}

static void make_folder(struct bench *bench)
{
  char path[96];
  strcpy(bench->folder, "/tmp/bench_call.XXXXXX");
  if (!mkdtemp(bench->folder))
    give_up(bench->folder, "cannot be made");
  snprintf(path, sizeof path, "%s/init.lua", bench->folder);
  FILE *file = fopen(path, "w");
  if (!file || fprintf(file, INIT, bench->port) < 0 || fclose(file))
    give_up(path, "cannot be written");
}

static void print_list(const char *name, const double *values, size_t count)
{
  printf("\"%s\":[", name);
  for (size_t i = 0; i < count; i++)
    printf("%s%.2f", i ? "," : "", values[i]);
  printf("],");
}

int main(int argc, char **argv)
{
  struct bench bench = {.port = argc > 1 ? argv[1] : "", .calls = argc > 3 ? strtoul(argv[3], NULL, 10) : 10000};
  size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 9;
  double alone[ROUNDS_MAX], handed[ROUNDS_MAX];
  char command[96];
  if (!bench.port[0] || !rounds || rounds > ROUNDS_MAX || bench.calls < AT_A_TIME) {
    fprintf(stderr, "usage: bench_call PORT [ROUNDS (9)] [CALLS (10000, at least %d)]\n", AT_A_TIME);
    return 2;
  }
  make_folder(&bench);
  printf("{\"start\":[");
  print_start(&bench, 0);
  printf(",");
  print_start(&bench, 1);
  printf("],");
  curl_global_init(CURL_GLOBAL_DEFAULT);
  start(&bench, 1);
  cost(&bench, run_parry); /* its policies and connections are warm, as the host's own would be */
  for (size_t round = 0; round < rounds; round++) {
    alone[round] = cost(&bench, run_floor);
    handed[round] = cost(&bench, run_parry);
  }
  print_list("floor", alone, rounds);
  print_list("parry", handed, rounds);
  printf("\"calls\":%zu}\n", bench.calls);
  parry_free(bench.engine);
  snprintf(command, sizeof command, "rm -r %s", bench.folder);
  return system(command) == 0 ? 0 : 1;
}
