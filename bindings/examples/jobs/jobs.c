/* A job runner, and nothing in it is HTTP: mails, thumbnails and imports that fail in all the ways jobs do. The program
 * only says how each attempt ended; whether there is another one, when, where, and what becomes of the job is decided in
 * policies/init.lua beside this file. Exits 0 when every job ended as that says.
 * Build: cc jobs.c $(pkg-config --cflags --libs parry) */
#include <parry.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define HANGS 1e9 /* seconds: nobody waits so long */

enum { ATTEMPTS_MAX = 5 };

/* How an attempt goes. Without a category it goes well. */
struct step {
  double seconds;
  const char *category, *code, *message;
  double retry_after;
  int not_sent;
};

struct job {
  const char *name, *kind;
  struct step steps[ATTEMPTS_MAX];
  const char *expected;
  unsigned expected_attempts;
  /* while it runs */
  unsigned started;
  parry_call_id call;
  unsigned attempt; /* the open one; 0: none */
  double ends;
  int done, as_expected;
};

static struct job first_jobs[] = {
    {.name = "mail to anna",
     .kind = "/mail",
     .steps = {{0.02, "overloaded", "451", "greylisted, come back later", 0.2, 0}, {.seconds = 0.02}},
     .expected = "done",
     .expected_attempts = 2},
    {.name = "mail to nobody",
     .kind = "/mail",
     .steps = {{0.02, "invalid_request", "550", "no such mailbox", 0, 0}},
     .expected = "failed",
     .expected_attempts = 1},
    {.name = "mail to bert",
     .kind = "/mail",
     .steps = {{0.01, "network", "ECONNREFUSED", "smtp is down", 0, 1},
               {0.01, "network", "ECONNREFUSED", "smtp is down", 0, 1},
               {0.01, "network", "ECONNREFUSED", "smtp is down", 0, 1},
               {0.01, "network", "ECONNREFUSED", "smtp is down", 0, 1},
               {.seconds = 0.02}}, /* at the relay */
     .expected = "done",
     .expected_attempts = 5},
    {.name = "thumbnail of cat.png",
     .kind = "/thumbnail",
     .steps = {{0.05, "server", "SIGSEGV", "the decoder crashed", 0, 0}, {.seconds = 0.05}},
     .expected = "done",
     .expected_attempts = 2},
    {.name = "thumbnail of dog.png",
     .kind = "/thumbnail",
     .steps = {{.seconds = HANGS}, {.seconds = 0.05}},
     .expected = "done",
     .expected_attempts = 2},
    {.name = "thumbnail of fish.png",
     .kind = "/thumbnail",
     .steps = {{.seconds = 0.05}},
     .expected = "done",
     .expected_attempts = 1},
    {.name = "import of monday",
     .kind = "/import",
     .steps = {{0.001, "conflict", "ALREADY_DONE", "these rows are in", 0, 0}},
     .expected = "done",
     .expected_attempts = 1},
    {.name = "import of tuesday",
     .kind = "/import",
     .steps = {{0.03, "server", "EPIPE", "lost the connection halfway", 0, 0}},
     .expected = "parked",
     .expected_attempts = 1},
    {.name = "import of wednesday",
     .kind = "/import",
     .steps = {{0.03, "network", "ECONNREFUSED", "the warehouse is down", 0, 1},
               {0.03, "network", "ECONNREFUSED", "the warehouse is down", 0, 1},
               {0.03, "network", "ECONNREFUSED", "the warehouse is down", 0, 1}},
     .expected = "parked",
     .expected_attempts = 2}, /* then the breaker is open */
};

/* Begun when the warehouse is known to be down: it is not even tried. */
static struct job later_jobs[] = {
    {.name = "import of thursday", .kind = "/import", .expected = "parked", .expected_attempts = 0}};

static unsigned drawing, most_drawing; /* thumbnails at the same moment */

static double now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int is_drawn(const struct job *job)
{
  return strcmp(job->kind, "/thumbnail") == 0;
}

/* ---- what parry asks for ---------------------------------------------------------------------------------- */

static void on_attempt(void *user, const struct parry_attempt *attempt)
{
  struct job *job = user;
  if (job->started == ATTEMPTS_MAX)
    return; /* not in our script: it ends by its deadline, and the job not as expected */
  job->call = attempt->call;
  job->attempt = attempt->number;
  job->ends = now() + job->steps[job->started++].seconds;
  if (is_drawn(job) && ++drawing > most_drawing)
    most_drawing = drawing;
}

static void on_abandon(void *user, parry_call_id call, unsigned number)
{
  struct job *job = user;
  (void)call;
  printf("%-22s attempt %u: takes too long, killed\n", job->name, number);
  job->attempt = 0;
  drawing -= (unsigned)is_drawn(job);
}

static void on_done(void *user, const struct parry_outcome *outcome)
{
  struct job *job = user;
  const char *end = !outcome->ok ? "failed" : outcome->status == 202 ? "parked" : "done";
  printf("%-22s %s after %u attempts, last at %s%s%s\n", job->name, end, outcome->attempts, outcome->target,
         outcome->why[0] ? ": " : "", outcome->why);
  job->done = 1;
  job->as_expected = strcmp(end, job->expected) == 0 && outcome->attempts == job->expected_attempts;
}

/* ---- the work ---------------------------------------------------------------------------------------------- */

static void end_attempt(parry *engine, struct job *job)
{
  const struct step *step = &job->steps[job->started - 1];
  struct parry_event end = PARRY_EVENT_INIT;
  unsigned number = job->attempt;
  end.ok = !step->category;
  end.category = step->category, end.code = step->code, end.message = step->message;
  end.retry_after = step->retry_after, end.not_sent = step->not_sent;
  printf("%-22s attempt %u: %s\n", job->name, number, step->category ? step->message : "well");
  job->attempt = 0;
  drawing -= (unsigned)is_drawn(job);
  parry_attempt_done(engine, job->call, number, &end);
}

/* Ends what is due. Returns the seconds until the next one is; negative: none. */
static double work(parry *engine, struct job *jobs, size_t count)
{
  double next = -1;
  for (size_t i = 0; i < count; i++) {
    double left = jobs[i].attempt ? jobs[i].ends - now() : -1;
    if (jobs[i].attempt && left <= 0)
      end_attempt(engine, &jobs[i]);
    else if (left > 0 && (next < 0 || left < next))
      next = left;
  }
  return next;
}

static int run(parry *engine, struct job *jobs, size_t count)
{
  static const struct parry_call_ops ops = {
      .size = sizeof ops, .on_done = on_done, .on_attempt = on_attempt, .on_abandon = on_abandon};
  int good = 1, open = (int)count;
  for (size_t i = 0; i < count; i++) {
    struct parry_request request = PARRY_REQUEST_INIT;
    request.path = jobs[i].kind;
    int error = parry_call(engine, &request, &ops, &jobs[i], NULL);
    if (error != PARRY_OK)
      printf("%s: %s\n", jobs[i].name, parry_strerror(error));
  }
  while (open > 0)
    open = parry_run(engine, work(engine, jobs, count));
  for (size_t i = 0; i < count; i++)
    if (!jobs[i].done || !jobs[i].as_expected) {
      printf("%s: not as expected, which was: %s after %u attempts\n", jobs[i].name, jobs[i].expected,
             jobs[i].expected_attempts);
      good = 0;
    }
  return good;
}

/* The folder beside this file. */
static const char *policy_folder(void)
{
  static char path[1024];
  const char *slash = strrchr(__FILE__, '/');
  snprintf(path, sizeof path, "%.*spolicies", slash ? (int)(slash - __FILE__ + 1) : 0, __FILE__);
  return path;
}

int main(void)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  char findings[4096];
  int good = 0;
  parry *engine;
  options.policy_dir = policy_folder();
  int error = parry_new(&engine, &options);
  if (error == PARRY_OK) {
    good = run(engine, first_jobs, sizeof first_jobs / sizeof *first_jobs) &&
           run(engine, later_jobs, sizeof later_jobs / sizeof *later_jobs) && most_drawing == 2;
    printf("at most %u thumbnails at a time\n", most_drawing);
  } else {
    if (error == PARRY_EPOLICY)
      parry_findings(engine, findings, sizeof findings);
    fprintf(stderr, "%s\n%s", parry_strerror(error), error == PARRY_EPOLICY ? findings : "");
  }
  parry_free(engine);
  return !good;
}
