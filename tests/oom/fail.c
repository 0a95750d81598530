#include "fail_internal.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PLACES = 1 << 20, WATCHDOG = 30, RUNS_DEFAULT = 1000, REPORTS_DEFAULT = 10, WARM_RUNS = 2, FOUND = 99 };

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
void __lsan_do_leak_check(void);
#define LOOK_FOR_LEAKS() __lsan_do_leak_check()

/* What the loader keeps of the library that backtrace() needs; what OpenSSL loses (README.md). */
const char *__lsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void)
{
  return "leak:_dl_map_object_deps\nleak:EVP_*_fetch\n";
}
#else
#define LOOK_FOR_LEAKS() (void)0
#endif

struct kind {
  const char *name;
  unsigned what;
  bool rest;
};

static const struct kind kinds[] = {{"memory-once", FAIL_MEMORY, false},
                                    {"memory-rest", FAIL_MEMORY, true},
                                    {"system-once", FAIL_SYSTEM, false},
                                    {"system-rest", FAIL_SYSTEM, true}};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct stack {
  void *frames[FAIL_STACK];
  int depth;
};

/* Between the process that runs and the one that watches. The stacks mean the same in both: one is the other's fork. */
static struct watched {
  long at;                  /* the run under way */
  unsigned error, errors;   /* which errno of how many */
  long calls, runs, struck; /* calls counted, runs made, runs in which something was made to fail */
  char message[512];        /* "": no end of its own */
  const char *name;         /* of the failed call */
  size_t size;              /* it asked for */
  struct stack failed, crash, block;
} * watched;

static unsigned thread_under_test;

/* ---- in the process that runs ---------------------------------------------------------------------------------- */

static void take_failed(void)
{
  watched->name = fail_seen.name;
  watched->size = fail_seen.size;
  watched->errors = fail_plan.rest ? 1 : fail_seen.errors;
  memcpy(watched->failed.frames, fail_seen.stack, sizeof fail_seen.stack);
  watched->failed.depth = fail_seen.depth;
}

static void end_here(void)
{
  fail_quiet();
  if (!watched->crash.depth)
    watched->crash.depth = backtrace(watched->crash.frames, FAIL_STACK);
  take_failed();
  _exit(FOUND);
}

void fail_now(const char *file, int line, const char *what)
{
  const char *base = strrchr(file, '/');
  snprintf(watched->message, sizeof watched->message, "%s:%d: %s", base ? base + 1 : file, line, what);
  end_here();
  abort();
}

static void crashed(int number)
{
  const char *what = number == SIGALRM ? "hangs" : strsignal(number);
  if (!*watched->message)
    snprintf(watched->message, sizeof watched->message, "%s", what);
  end_here();
}

static void catch_crashes(void)
{
  static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM, SIGPIPE};
  struct sigaction action = {.sa_handler = crashed, .sa_flags = SA_ONSTACK};
  static char other[256 * 1024];
  stack_t stack = {.ss_sp = other, .ss_size = sizeof other};
  sigaltstack(&stack, NULL);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    sigaction(numbers[i], &action, NULL);
}

static void watch_for(unsigned seconds)
{
  struct itimerval timer = {.it_value.tv_sec = seconds};
  setitimer(ITIMER_REAL, &timer, NULL);
}

static size_t count_descriptors(void)
{
  size_t count = 0;
  fail_quiet();
  DIR *folder = opendir("/proc/self/fd");
  while (folder && readdir(folder))
    count++;
  if (folder)
    closedir(folder);
  fail_loud();
  return count;
}

static void run(const struct fail_scenario *scenario)
{
  watch_for(WATCHDOG);
  fail_calls_begin();
  scenario->run();
  fail_calls_end();
  watch_for(0);
}

enum { LOST_MAX = 16 };

/* What is lost once and not when the same fails again is what some library keeps. Each block left needs one more run, to
 * see who made it. */
static void look_at_lost(const struct fail_scenario *scenario)
{
  size_t bytes;
  long numbers[LOST_MAX];
  take_failed();
  run(scenario);
  size_t left = fail_blocks_left(numbers, LOST_MAX, &bytes);
  for (size_t i = 0; i < left && i < LOST_MAX; i++) {
    fail_plan.trace = numbers[i];
    run(scenario);
    if (fail_block_is_kept())
      continue;
    watched->block.depth = fail_seen.traced_depth;
    memcpy(watched->block.frames, fail_seen.traced, sizeof fail_seen.traced);
    snprintf(watched->message, sizeof watched->message,
             "%zu blocks (%zu bytes) lost; below the stack of one of %zu bytes", left, bytes, fail_seen.traced_size);
    _exit(FOUND);
  }
  fail_plan.trace = 0;
}

/* One run, and what must hold behind each. */
static void check_run(const struct fail_scenario *scenario)
{
  size_t bytes, descriptors = count_descriptors();
  run(scenario);
  bool struck = fail_struck();
  if (fail_blocks_left(NULL, 0, &bytes))
    look_at_lost(scenario);
  if (count_descriptors() != descriptors) {
    take_failed();
    snprintf(watched->message, sizeof watched->message, "%zu descriptors were open before and %zu are behind",
             descriptors, count_descriptors());
    _exit(FOUND);
  }
  watched->runs++;
  watched->struck += struck;
}

static void run_at(const struct fail_scenario *scenario, const struct kind *kind, long at)
{
  bool again = at == watched->at; /* the last one ended the process */
  unsigned errors = again ? watched->errors : 1;
  for (unsigned error = again ? watched->error + 1 : 0; error < errors; error++) {
    watched->at = at;
    watched->error = error;
    fail_plan = (struct fail_plan){
        .what = kind->what, .thread = thread_under_test, .at = at, .rest = kind->rest, .error = error};
    check_run(scenario);
    if (!kind->rest && fail_seen.errors > errors)
      errors = fail_seen.errors;
  }
}

/* Is it one of the first two calls from its place? */
static bool is_new_place(unsigned char *times, long call)
{
  uint32_t place = fail_places[call < FAIL_PLACES_MAX ? call : 0] % PLACES;
  if (times[place] > 1)
    return false;
  times[place]++;
  return true;
}

/* Which calls are made to fail: all of them, or, evenly spread where that is too many, those from new places, and then
 * every k-th of all. */
static unsigned char *choose(long calls, long most)
{
  unsigned char *chosen = calloc((size_t)calls + 2, 1);
  unsigned char *times = calloc(PLACES, 1);
  long places = 0, left = most;
  for (long i = 1; chosen && times && i <= calls; i++)
    places += chosen[i] = calls <= most || is_new_place(times, i);
  free(times);
  for (long i = 1, seen = 0; chosen && i <= calls; i++) {
    if (!chosen[i])
      continue;
    chosen[i] = calls <= most || seen++ % (places / most + 1) == 0;
    left -= chosen[i];
  }
  for (long i = 1; chosen && calls > most && left > 0 && i <= calls; i += calls / left + 1)
    chosen[i] = 1;
  return chosen;
}

static void *wait_for_others(void *user)
{
  pthread_barrier_wait(user);
  return NULL;
}

/* The C library keeps the stacks of a few threads that have ended, with what belongs to them. */
static void warm_threads(void)
{
  enum { THREADS = 4 };
  pthread_t threads[THREADS];
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, NULL, THREADS);
  for (int i = 0; i < THREADS; i++)
    if (pthread_create(&threads[i], NULL, wait_for_others, &barrier) != 0)
      abort();
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  pthread_barrier_destroy(&barrier);
}

static void run_all(const struct fail_scenario *scenario, const struct kind *kind)
{
  bool full = getenv("PARRY_OOM_FULL");
  long most = full ? FAIL_PLACES_MAX : scenario->most_runs ? scenario->most_runs : RUNS_DEFAULT;
  void *warm[1];
  backtrace(warm, 1);
  warm_threads();
  fail_plan = (struct fail_plan){.what = kind->what, .thread = thread_under_test};
  for (int i = 0; i < WARM_RUNS; i++)
    run(scenario);
  fail_plan.record = !full;
  check_run(scenario);
  long calls = fail_seen.calls;
  if (watched->calls < calls)
    watched->calls = calls;
  unsigned char *chosen = choose(calls, most);
  for (long i = watched->at ? watched->at : 1; chosen && i <= calls; i++)
    if (chosen[i])
      run_at(scenario, kind, i);
  free(chosen);
}

static void child(const struct fail_scenario *scenario, const struct kind *kind)
{
  const char *at = getenv("PARRY_OOM_AT");
  thread_under_test = scenario->what / FAIL_IN_THREAD(1);
  catch_crashes();
  if (at) {
    watched->at = 0;
    run_at(scenario, kind, atol(at));
  } else {
    run_all(scenario, kind);
  }
  LOOK_FOR_LEAKS();
  fflush(NULL);
  _exit(0);
}

/* ---- in the process that watches ---------------------------------------------------------------------------------- */

/* "function at file:line" as far as addr2line is there and knows. */
static void print_frame(void *frame)
{
  Dl_info info;
  char command[1200], line[1024];
  if (!dladdr(frame, &info) || !info.dli_fname) {
    printf("      %p\n", frame);
    return;
  }
  uintptr_t offset = (uintptr_t)frame - (uintptr_t)info.dli_fbase - 1;
  snprintf(command, sizeof command, "addr2line -ipfe '%s' %#lx 2>/dev/null", info.dli_fname, (unsigned long)offset);
  FILE *names = popen(command, "r");
  bool known = false;
  while (names && fgets(line, sizeof line, names) && !strstr(line, "??")) {
    printf("      %s", line);
    known = true;
  }
  if (names)
    pclose(names);
  if (!known)
    printf("      %s(%s+%#lx)\n", info.dli_fname, info.dli_sname ? info.dli_sname : "", (unsigned long)offset);
}

static void print_stack(const char *title, const struct stack *stack)
{
  if (stack->depth)
    printf("    %s\n", title);
  for (int i = 2; i < stack->depth && i < 22; i++)
    print_frame(stack->frames[i]);
}

static void report(const struct fail_scenario *scenario, const struct kind *kind, int status)
{
  if (!*watched->message)
    snprintf(watched->message, sizeof watched->message, "ended with %s %d",
             WIFSIGNALED(status) ? "signal" : "exit code",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  printf("  %s, %s, call %ld of %ld (%s %zu), errno %u: %s\n", scenario->name, kind->name, watched->at, watched->calls,
         watched->name ? watched->name : "none failed", watched->size, watched->error, watched->message);
  print_stack("the call that failed:", &watched->failed);
  print_stack("where it ended:", &watched->crash);
  print_stack("the block that was lost:", &watched->block);
  printf("    again: PARRY_OOM_ONLY='%s' PARRY_OOM_KIND=%s PARRY_OOM_AT=%ld\n", scenario->name, kind->name,
         watched->at);
  fflush(stdout);
}

static void forget_report(void)
{
  *watched->message = '\0';
  watched->name = NULL;
  watched->failed.depth = watched->crash.depth = watched->block.depth = 0;
}

static double seconds_now(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* How often it ended badly. */
static unsigned watch(const struct fail_scenario *scenario, const struct kind *kind)
{
  const char *text = getenv("PARRY_OOM_REPORTS");
  unsigned found = 0, most = text ? (unsigned)atoi(text) : REPORTS_DEFAULT;
  double started = seconds_now();
  memset(watched, 0, sizeof *watched);
  for (;;) {
    int status = 0;
    long at = watched->at;
    unsigned error = watched->error;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
      child(scenario, kind);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
      return found + 1;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
      break;
    report(scenario, kind, status);
    forget_report();
    if (++found >= most || (watched->at == at && watched->error == error))
      break; /* enough, or not even the runs without a failure are good */
  }
  printf("  %-26s %-12s %6ld calls, %6ld runs, %6ld with a failure, %u bad, %.1f s\n", scenario->name, kind->name,
         watched->calls, watched->runs, watched->struck, found, seconds_now() - started);
  fflush(stdout);
  return found;
}

static bool wanted(const char *variable, const char *name)
{
  const char *only = getenv(variable);
  return !only || strcmp(only, name) == 0;
}

int fail_main(const struct fail_scenario *scenarios, size_t count)
{
  unsigned passed = 0, failed = 0;
  fail_calls_init();
  setvbuf(stdout, NULL, _IOLBF, 0);
  fail_places = mmap(NULL, FAIL_PLACES_MAX * sizeof *fail_places, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  watched = mmap(NULL, sizeof *watched, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (fail_places == MAP_FAILED || watched == MAP_FAILED)
    return 1;
  for (size_t i = 0; i < count; i++) {
    unsigned found = 0;
    if (!wanted("PARRY_OOM_ONLY", scenarios[i].name))
      continue;
    for (size_t j = 0; j < KINDS; j++)
      if ((scenarios[i].what & kinds[j].what) && wanted("PARRY_OOM_KIND", kinds[j].name))
        found += watch(&scenarios[i], &kinds[j]);
    passed += found == 0;
    failed += found != 0;
  }
  printf("%u passed, %u failed\n", passed, failed);
  return failed != 0;
}
