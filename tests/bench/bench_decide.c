/* What a decision costs a host: parry_decide() and parry_report() over the shipped policies, no I/O. Prints one JSON object a
 * line: {"group", "name", "ns" (median of rounds, of processor time), "least", "allocations" (of one decision, outside Lua's own
 * allocator; null where a sanitizer counts them)}.
 *
 *     bench_decide [ROUNDS (9)] [DECISIONS (20000)] [NAME: only what has it in its name]
 *
 * "decide": the shipped chain, each with a 503 that has no body unless said otherwise. "filtered" is a failure that `when`
 * keeps from all of them. "five handlers" is a chain of five that all run and say nothing: what it costs to ask. "report":
 * the observers. */
#include "parry.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_ROUNDS = 9, DEFAULT_DECISIONS = 20000, ROUNDS_MAX = 1000 };

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 1
/* Lua's allocator calls realloc() for everything (script.c); what else does grows a buffer that is kept. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
static _Thread_local unsigned long allocations;

void *malloc(size_t size)
{
  allocations++;
  return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
  allocations++;
  return __libc_calloc(count, size);
}
#else
#define COUNTS_ALLOCATIONS 0
static unsigned long allocations;
#endif

static const char INIT[] = "provider 'moonshot' { base_url = 'http://up.test/v1', dialect = 'openai' }\n"
                           "provider 'token360' { base_url = 'http://up.test/v1', dialect = 'openai' }\n"
                           "route '/*' { to = 'token360', chain = {\n"
                           "  use 'circuit_breaker' { failures = 5, cooldown = 10 },\n"
                           "  use 'token_refresh',\n"
                           "  use 'retry' { max_attempts = 3, base = 0.2 },\n"
                           "  use 'fallback_model' { models = { ['bench-*'] = { 'moonshot/moonshot-v1-128k' } } },\n"
                           "  use 'alert',\n"
                           "} }\n";

static const char SILENT[] = "return policy { name = 'silent', on_error = function(self, call, err) return nil end }\n";

static const char INIT_OF_FIVE[] =
    "provider 'token360' { base_url = 'http://up.test/v1', dialect = 'openai' }\n"
    "route '/*' { to = 'token360', chain = { use 'silent', use 'silent' { as = 'b' }, use 'silent' { as = 'c' },\n"
    "  use 'silent' { as = 'd' }, use 'silent' { as = 'e' } } }\n";

struct bench {
  parry *engine;
  size_t rounds, decisions;
  const char *wanted;
};

struct subject {
  const char *group, *name;
  bool reports;
  int action; /* that must come of it */
  struct parry_event event;
};

static double now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time); /* decisions wait for nothing, and others must not count */
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int compare(const void *left, const void *right)
{
  double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

static void run(struct bench *bench, const struct subject *subject)
{
  struct parry_decision decision = PARRY_DECISION_INIT;
  int error = subject->reports ? parry_report(bench->engine, &subject->event)
                               : parry_decide(bench->engine, &subject->event, &decision, NULL, NULL);
  if (error || (!subject->reports && decision.action != subject->action)) {
    fprintf(stderr, "bench_decide: %s: error %d, action %d, %s\n", subject->name, error, decision.action, decision.why);
    exit(1);
  }
}

static void measure(struct bench *bench, const struct subject *subject)
{
  double spent[ROUNDS_MAX];
  if (!strstr(subject->name, bench->wanted))
    return;
  for (size_t i = 0; i < bench->decisions / 10 + 1; i++)
    run(bench, subject);
  unsigned long before = allocations;
  for (size_t round = 0; round < bench->rounds; round++) {
    double start = now();
    for (size_t i = 0; i < bench->decisions; i++)
      run(bench, subject);
    spent[round] = (now() - start) / (double)bench->decisions * 1e9;
  }
  double each = (double)(allocations - before) / (double)(bench->rounds * bench->decisions);
  qsort(spent, bench->rounds, sizeof *spent, compare);
  printf("{\"group\":\"%s\",\"name\":\"%s\",\"ns\":%.0f,\"least\":%.0f,\"allocations\":", subject->group, subject->name,
         spent[bench->rounds / 2], spent[0]);
  if (COUNTS_ALLOCATIONS)
    printf("%.2f}\n", each);
  else
    printf("null}\n");
}

static void write_file(const char *folder, const char *name, const char *text)
{
  char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  if (!file || fputs(text, file) < 0 || fclose(file)) {
    perror(path);
    exit(1);
  }
}

static void start(struct bench *bench, const char *init)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  char folder[] = "/tmp/bench_decide.XXXXXX", command[64], findings[1024];
  options.policy_dir = mkdtemp(folder);
  options.share_dir = PARRY_SOURCE_DIR "/policies";
  if (!options.policy_dir) {
    perror(folder);
    exit(1);
  }
  write_file(folder, "init.lua", init);
  write_file(folder, "silent.lua", SILENT);
  int error = parry_new(&bench->engine, &options);
  snprintf(command, sizeof command, "rm -r %s", folder);
  if (system(command) == 0 && error == PARRY_OK)
    return;
  parry_findings(bench->engine, findings, sizeof findings);
  fprintf(stderr, "bench_decide: %s\n", findings);
  exit(1);
}

static struct subject subject_of(const char *group, const char *name, int action)
{
  struct subject subject = {.group = group, .name = name, .action = action, .event = PARRY_EVENT_INIT};
  subject.event.target = "token360/bench-1";
  subject.event.status = 503;
  return subject;
}

static void measure_decisions(struct bench *bench)
{
  static const char body[] = "{\"error\":{\"message\":\"The engine is currently overloaded\",\"type\":\"server_error\","
                             "\"code\":\"overloaded\"}}";
  struct subject subject = subject_of("decide", "retry", PARRY_RETRY);
  measure(bench, &subject);
  subject.name = "retry, with a body", subject.event.body = body, subject.event.body_size = sizeof body - 1;
  measure(bench, &subject);
  subject = subject_of("decide", "retry, category given", PARRY_RETRY);
  subject.event.category = "overloaded";
  measure(bench, &subject);
  subject.name = "fallback, category given", subject.action = PARRY_FALLBACK, subject.event.attempt = 3;
  measure(bench, &subject);
  subject = subject_of("decide", "filtered", PARRY_FAIL);
  subject.event.status = 400;
  measure(bench, &subject);
  subject.name = "filtered, category given", subject.event.category = "invalid_request";
  measure(bench, &subject);
}

static void measure_reports(struct bench *bench)
{
  struct subject subject = subject_of("report", "good", PARRY_FAIL);
  subject.reports = true;
  subject.event.ok = 1, subject.event.status = 200, subject.event.seconds = 0.2;
  measure(bench, &subject);
  subject = subject_of("report", "failed, category given", PARRY_FAIL);
  subject.reports = true;
  subject.event.category = "rate_limit"; /* opens no breaker */
  subject.event.status = 429;
  measure(bench, &subject);
}

int main(int argc, char **argv)
{
  struct bench bench = {.rounds = DEFAULT_ROUNDS, .decisions = DEFAULT_DECISIONS, .wanted = argc > 3 ? argv[3] : ""};
  if (argc > 1)
    bench.rounds = strtoul(argv[1], NULL, 10);
  if (argc > 2)
    bench.decisions = strtoul(argv[2], NULL, 10);
  if (!bench.rounds || bench.rounds > ROUNDS_MAX || !bench.decisions) {
    fprintf(stderr, "usage: bench_decide [ROUNDS (%d)] [DECISIONS (%d)] [NAME]\n", DEFAULT_ROUNDS, DEFAULT_DECISIONS);
    return 2;
  }
  start(&bench, INIT);
  measure_decisions(&bench);
  measure_reports(&bench);
  parry_free(bench.engine);
  start(&bench, INIT_OF_FIVE);
  struct subject five = subject_of("decide", "five handlers, category given", PARRY_FAIL);
  five.event.category = "overloaded";
  measure(&bench, &five);
  parry_free(bench.engine);
  return 0;
}
