/* Attempts that the host makes, through parry.h: without threads of the engine's own, and with one and several of them. What
 * becomes of an attempt in virtual time is in test_call_host.c. */
#include "parry.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BODY "{\"model\":\"big\",\"to\":\"a@b\"}"

static const char init[] =
    "provider 'smtp'  { host = true }\n"
    "provider 'relay' { host = true, timeouts = { attempt = 50 } }\n"
    "provider 'batch' { host = true, timeouts = { attempt = 0.3 } }\n"
    "provider 'short' { host = true, timeouts = { attempt = 0.02 } }\n"
    "provider 'db'    { host = true }\n"
    "provider 'llm'   { base_url = 'http://127.0.0.1:9/v1', dialect = 'openai', auth = bearer(secret 'KEY') }\n"
    "local again = use 'retry' { max_attempts = 3, base = 0.001, jitter = 'none' }\n"
    "route '/mail/*'  { to = 'smtp/mail', repeatable = true, chain = { again,\n"
    "  use 'fallback_model' { models = { ['smtp/*'] = { 'relay/mail' } }, categories = {}, never = {} } } }\n"
    "route '/bare'    { to = 'db', chain = { again } }\n"
    "route '/narrow'  { to = 'db', chain = { use 'concurrency' { slots = 1, max_wait = 60 } } }\n"
    "route '/fragile' { to = 'db', chain = { use 'circuit_breaker' { failures = 2, cooldown = 60 } } }\n"
    "route '/v1/*'    { to = 'llm', chain = { again } }\n";

/* ---- a host ----------------------------------------------------------------------------------------------- */

enum { STEPS_MAX = 8, OPEN_MAX = 512 };

struct job {
  struct host *host;
  parry_call_id id;
  unsigned attempts, abandoned, heads, dones, number, made;
  int status;
  bool ok;
  char target[64], body[256], answer[256], category[32], code[64], message[128];
  size_t answer_size;
  double left;
};

struct host {
  parry *engine;
  struct job jobs[OPEN_MAX];
  unsigned job_count, open_in_callbacks;
  /* how attempts end, from inside on_attempt, in order; then they stay open */
  struct parry_event steps[STEPS_MAX];
  unsigned step_count, step;
  int told; /* what the last parry_attempt_done() of on_attempt said */
};

static unsigned threads; /* of the engine's own */
static struct host host;

static void on_headers(void *user, int status, const struct parry_header *headers, size_t header_count)
{
  struct job *job = user;
  (void)headers, (void)header_count;
  job->heads++;
  job->status = status;
}

static int on_data(void *user, const void *data, size_t size)
{
  struct job *job = user;
  size_t room = sizeof job->answer - 1 - strlen(job->answer);
  job->answer_size += size;
  strncat(job->answer, data, size < room ? size : room);
  return 0;
}

static void on_done(void *user, const struct parry_outcome *outcome)
{
  struct job *job = user;
  job->dones++;
  job->ok = outcome->ok;
  assert_true(outcome->attempts >= job->attempts); /* one that was given up before we heard of it counts, too */
  job->made = outcome->attempts;
  snprintf(job->category, sizeof job->category, "%s", outcome->category);
  snprintf(job->code, sizeof job->code, "%s", outcome->code);
  snprintf(job->message, sizeof job->message, "%s", outcome->message);
}

static void on_attempt(void *user, const struct parry_attempt *attempt)
{
  struct job *job = user;
  assert_int_equal(job->dones, 0);
  assert_true(attempt->number > job->number);
  assert_int_equal(attempt->size, sizeof *attempt);
  job->attempts++;
  job->number = attempt->number;
  job->id = attempt->call;
  job->left = attempt->deadline_left;
  snprintf(job->target, sizeof job->target, "%s|%s|%s", attempt->target, attempt->provider, attempt->model);
  snprintf(job->body, sizeof job->body, "%.*s", (int)attempt->body_size, (const char *)attempt->body);
  if (host.step < host.step_count)
    host.told = parry_attempt_done(host.engine, attempt->call, attempt->number, &host.steps[host.step++]);
}

static void on_abandon(void *user, parry_call_id call, unsigned number)
{
  struct job *job = user;
  struct parry_event late = PARRY_EVENT_INIT;
  assert_int_equal(job->dones, 0);
  assert_true(call.value == job->id.value);
  job->abandoned = number;
  late.ok = 1;
  int error = parry_attempt_done(host.engine, call, number, &late);
  assert_true(error == PARRY_ENOENT || error == PARRY_EREENTRANT); /* the latter from parry_free() */
}

static const struct parry_call_ops ops = {.size = sizeof ops,
                                          .on_headers = on_headers,
                                          .on_data = on_data,
                                          .on_done = on_done,
                                          .on_attempt = on_attempt,
                                          .on_abandon = on_abandon};

static struct job *begin_with(const struct parry_call_ops *with, const char *path, const char *target, const char *body)
{
  struct job *job = &host.jobs[host.job_count++];
  struct parry_request request = PARRY_REQUEST_INIT;
  request.path = path;
  request.target = target;
  request.body = body;
  request.body_size = strlen(body);
  assert_int_equal(parry_call(host.engine, &request, with, job, &job->id), PARRY_OK);
  return job;
}

static struct job *begin(const char *path, const char *target, const char *body)
{
  return begin_with(&ops, path, target, body);
}

#define RUN_UNTIL(condition)                                                                                           \
  do {                                                                                                                 \
    for (unsigned turn = 0; turn < 100000 && !(condition); turn++)                                                     \
      assert_true(parry_run(host.engine, 0.05) >= 0);                                                                  \
    assert_true(condition);                                                                                            \
  } while (0)

static void will_end(struct parry_event event)
{
  event.size = sizeof event;
  host.steps[host.step_count++] = event;
}

static int end_job(const struct job *job, struct parry_event event)
{
  event.size = sizeof event;
  return parry_attempt_done(host.engine, job->id, job->number, &event);
}

static int set_up(void **state)
{
  (void)state;
  static const struct parry_header key = {"KEY", "sk-secret-of-the-engine"};
  struct parry_options options = PARRY_OPTIONS_INIT;
  host = (struct host){0};
  options.init_lua = init;
  options.share_dir = PARRY_SOURCE_DIR "/policies";
  options.secrets = &key;
  options.secret_count = 1;
  options.threads = threads;
  int error = parry_new(&host.engine, &options);
  if (error) {
    char findings[1024];
    parry_findings(host.engine, findings, sizeof findings);
    fprintf(stderr, "%s\n%s\n", parry_strerror(error), findings);
  }
  return error;
}

static int tear_down(void **state)
{
  (void)state;
  return parry_free(host.engine);
}

/* ---- tests ------------------------------------------------------------------------------------------------ */

static void the_answer_comes_back(void **state)
{
  (void)state;
  static const struct parry_header headers[] = {{"Content-Type", "text/plain"}, {"X-Rows", "42"}};
  will_end((struct parry_event){
      .ok = 1, .status = 201, .body = "42 rows", .body_size = 7, .headers = headers, .header_count = 2});
  struct job *job = begin("/bare", NULL, "");
  assert_int_equal(job->attempts, 0); /* not from inside parry_call() */
  RUN_UNTIL(job->dones);
  assert_int_equal(host.told, PARRY_OK);
  assert_string_equal(job->target, "db|db|");
  assert_string_equal(job->body, "");
  assert_true(job->left > 100 && job->left <= 120);
  assert_int_equal(job->heads, 1);
  assert_int_equal(job->status, 201);
  assert_string_equal(job->answer, "42 rows");
  assert_true(job->ok);
  assert_int_equal(job->dones, 1);
  assert_int_equal(parry_run(host.engine, 0), 0);
}

static void it_is_tried_again(void **state)
{
  (void)state;
  will_end((struct parry_event){.category = "server", .code = "421", .message = "try later"});
  will_end((struct parry_event){.status = 503});
  will_end((struct parry_event){.ok = 1});
  struct job *job = begin("/mail/send", NULL, BODY);
  RUN_UNTIL(job->dones);
  assert_true(job->ok);
  assert_int_equal(job->attempts, 3);
  assert_int_equal(job->number, 3);
  assert_string_equal(job->target, "smtp/mail|smtp|mail");
  assert_string_equal(job->body, "{\"model\":\"mail\",\"to\":\"a@b\"}"); /* the model of the target, no other byte */
  assert_int_equal(job->abandoned, 0);
}

static void it_goes_to_another_target(void **state)
{
  (void)state;
  for (int i = 0; i < 3; i++)
    will_end((struct parry_event){.category = "network", .not_sent = 1});
  will_end((struct parry_event){.ok = 1, .body = "queued", .body_size = 6});
  struct job *job = begin("/mail/send", NULL, BODY);
  RUN_UNTIL(job->dones);
  assert_string_equal(job->answer, "queued");
  assert_string_equal(job->target, "relay/mail|relay|mail");
  assert_true(job->left > 40 && job->left <= 50);
}

static void what_may_have_happened_is_not_repeated(void **state)
{
  (void)state;
  will_end((struct parry_event){.category = "server", .code = "EIO", .message = "disk"});
  struct job *job = begin("/bare", NULL, "");
  RUN_UNTIL(job->dones);
  assert_int_equal(job->attempts, 1);
  assert_string_equal(job->category, "server");
  assert_string_equal(job->code, "EIO");
  assert_string_equal(job->message, "disk");
  will_end((struct parry_event){.category = "server", .not_sent = 1});
  will_end((struct parry_event){.ok = 1});
  job = begin("/bare", NULL, "");
  RUN_UNTIL(job->dones);
  assert_true(job->ok);
  assert_int_equal(job->attempts, 2);
}

static void a_breaker_lets_none_through(void **state)
{
  (void)state;
  for (int i = 0; i < 2; i++) {
    will_end((struct parry_event){.category = "server"});
    struct job *job = begin("/fragile", NULL, "");
    RUN_UNTIL(job->dones);
    assert_int_equal(job->attempts, 1);
  }
  struct job *refused = begin("/fragile", NULL, "");
  RUN_UNTIL(refused->dones);
  assert_int_equal(refused->attempts, 0);
  assert_false(refused->ok);
  assert_string_equal(refused->category, "overloaded");
}

static void one_waits_for_the_other(void **state)
{
  (void)state;
  struct job *jobs[] = {begin("/narrow", NULL, ""), begin("/narrow", NULL, "")};
  RUN_UNTIL(jobs[0]->attempts + jobs[1]->attempts);
  for (int i = 0; i < 5; i++)
    assert_int_equal(parry_run(host.engine, 0.001), 2);
  assert_int_equal(jobs[0]->attempts + jobs[1]->attempts, 1);
  struct job *first = jobs[0]->attempts ? jobs[0] : jobs[1], *second = jobs[0]->attempts ? jobs[1] : jobs[0];
  assert_int_equal(end_job(first, (struct parry_event){.ok = 1}), PARRY_OK);
  RUN_UNTIL(second->attempts);
  assert_int_equal(end_job(second, (struct parry_event){.ok = 1}), PARRY_OK);
  RUN_UNTIL(first->dones && second->dones);
}

static void its_time_is_up(void **state)
{
  (void)state;
  struct job *job = begin("/mail/send", "short/mail", BODY); /* stays open; that its end comes too late: on_abandon() */
  RUN_UNTIL(job->dones);
  assert_string_equal(job->category, "timeout");
  assert_string_equal(job->code, "attempt_timeout");
  assert_int_equal(job->made, 3);
  assert_int_equal(job->abandoned, job->number); /* whichever we heard of */
}

static void who_cancels_hears_of_the_attempt_once_more(void **state)
{
  (void)state;
  struct job *job = begin("/bare", NULL, "");
  RUN_UNTIL(job->attempts);
  assert_int_equal(parry_call_cancel(host.engine, job->id), PARRY_OK);
  assert_int_equal(end_job(job, (struct parry_event){.ok = 1}), PARRY_ENOENT);
  RUN_UNTIL(job->dones);
  assert_string_equal(job->category, "cancelled");
  assert_int_equal(job->abandoned, 1);
  assert_int_equal(job->heads, 0);
}

static void what_was_never_told_is_not_abandoned(void **state)
{
  (void)state;
  struct job *job = begin("/bare", NULL, "");
  assert_int_equal(parry_call_cancel(host.engine, job->id), PARRY_OK);
  RUN_UNTIL(job->dones);
  assert_int_equal(job->attempts, 0);
  assert_int_equal(job->abandoned, 0);
}

static void free_abandons_what_is_open(void **state)
{
  (void)state;
  struct job *jobs[3];
  for (int i = 0; i < 3; i++)
    jobs[i] = begin("/bare", NULL, "");
  RUN_UNTIL(jobs[0]->attempts && jobs[1]->attempts && jobs[2]->attempts);
  assert_int_equal(end_job(jobs[2], (struct parry_event){.ok = 1}), PARRY_OK); /* may be taken yet, or not */
  assert_int_equal(parry_free(host.engine), PARRY_OK);
  host.engine = NULL;
  for (int i = 0; i < 3; i++)
    assert_int_equal(jobs[i]->dones, 1);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(jobs[i]->abandoned, 1);
    assert_string_equal(jobs[i]->category, "cancelled");
  }
  assert_int_equal(jobs[2]->abandoned, 0);
}

static void an_attempt_ends_once(void **state)
{
  (void)state;
  struct job *job = begin("/bare", NULL, "");
  RUN_UNTIL(job->attempts);
  struct parry_event good = PARRY_EVENT_INIT;
  good.ok = 1;
  assert_int_equal(parry_attempt_done(host.engine, job->id, 2, &good), PARRY_ENOENT);
  assert_int_equal(parry_attempt_done(host.engine, job->id, 0, &good), PARRY_ENOENT);
  assert_int_equal(parry_attempt_done(host.engine, (parry_call_id){0}, 1, &good), PARRY_ENOENT);
  assert_int_equal(parry_attempt_done(host.engine, (parry_call_id){job->id.value + 1}, 1, &good), PARRY_ENOENT);
  assert_int_equal(parry_attempt_done(host.engine, job->id, 1, &good), PARRY_OK);
  assert_int_equal(parry_attempt_done(host.engine, job->id, 1, &good), PARRY_ENOENT);
  RUN_UNTIL(job->dones);
  assert_int_equal(parry_attempt_done(host.engine, job->id, 1, &good), PARRY_ENOENT);
  assert_int_equal(job->heads, 1);
}

static void nonsense_is_refused(void **state)
{
  (void)state;
  struct job *job = begin("/bare", NULL, "");
  RUN_UNTIL(job->attempts);
  static const struct parry_event wrong[] = {{.category = "sever"},
                                             {.category = "none"},
                                             {.category = ""},
                                             {.status = 99},
                                             {.status = 1000},
                                             {.status = -1},
                                             {.name = "disk.full"},
                                             {.body_size = 1},
                                             {.header_count = 1},
                                             {.retry_after = NAN},
                                             {.body = "", .body_size = 16 * 1024 * 1024 + 1}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    assert_int_equal(end_job(job, wrong[i]), PARRY_EINVAL);
  assert_int_equal(parry_attempt_done(host.engine, job->id, 1, NULL), PARRY_EINVAL);
  assert_int_equal(parry_attempt_done(NULL, job->id, 1, &wrong[0]), PARRY_EFREED);
  assert_int_equal(end_job(job, (struct parry_event){.ok = 1, .retry_after = -1}), PARRY_OK); /* it was still open */
  RUN_UNTIL(job->dones);
}

static void a_long_answer_comes_back_whole(void **state)
{
  (void)state;
  enum { LONG = 5 * 1024 * 1024 };
  char *body = malloc(LONG);
  assert_non_null(body);
  memset(body, 'x', LONG);
  struct job *job = begin("/bare", NULL, "");
  RUN_UNTIL(job->attempts);
  assert_int_equal(end_job(job, (struct parry_event){.ok = 1, .body = body, .body_size = LONG}), PARRY_OK);
  free(body);
  RUN_UNTIL(job->dones);
  assert_int_equal(job->answer_size, LONG);
}

static void an_ordinary_provider_is_made_by_the_host_too(void **state)
{
  (void)state;
  will_end((struct parry_event){.status = 429, .retry_after = 0.001});
  will_end((struct parry_event){.ok = 1, .body = "{}", .body_size = 2});
  struct job *job = begin("/v1/chat/completions", NULL, "{\"model\":\"m\"}");
  RUN_UNTIL(job->dones);
  assert_true(job->ok);
  assert_int_equal(job->attempts, 2);
  assert_string_equal(job->target, "llm/m|llm|m");
  assert_string_equal(job->answer, "{}");
}

static void a_target_must_be_declared(void **state)
{
  (void)state;
  struct job *job = begin("/bare", "bd/x", "");
  RUN_UNTIL(job->dones);
  assert_int_equal(job->attempts, 0);
  assert_string_equal(job->category, "invalid_request");
  assert_non_null(strstr(job->message, "\"bd\""));
}

static void without_on_attempt_there_is_no_way_there(void **state)
{
  (void)state;
  struct parry_call_ops plain = {
      .size = sizeof plain, .on_headers = on_headers, .on_data = on_data, .on_done = on_done};
  struct job *job = begin_with(&plain, "/bare", NULL, "");
  RUN_UNTIL(job->dones);
  assert_string_equal(job->category, "not_found");
  assert_string_equal(job->code, "host_only");
  assert_int_equal(job->status, 404);
}

/* ---- from other threads ------------------------------------------------------------------------------------ */

enum { WORKERS = 2, MANY = 300 };

/* What on_attempt of the many gives to threads of the host's, which end it. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t more;
  struct {
    parry_call_id call;
    unsigned number;
  } queue[8 * MANY];
  size_t head, tail;
  bool over;
} work;

static void give_away(void *user, const struct parry_attempt *attempt)
{
  struct job *job = user;
  job->attempts++;
  job->number = attempt->number;
  job->id = attempt->call;
  pthread_mutex_lock(&work.lock);
  work.queue[work.tail].call = attempt->call;
  work.queue[work.tail++].number = attempt->number;
  pthread_cond_signal(&work.more);
  pthread_mutex_unlock(&work.lock);
}

/* Every third attempt fails, every seventh is never heard of again. */
static void *end_them(void *user)
{
  (void)user;
  pthread_mutex_lock(&work.lock);
  while (!work.over || work.head < work.tail) {
    if (work.head == work.tail) {
      pthread_cond_wait(&work.more, &work.lock);
      continue;
    }
    size_t i = work.head++;
    parry_call_id call = work.queue[i].call;
    unsigned number = work.queue[i].number;
    pthread_mutex_unlock(&work.lock);
    struct parry_event event = PARRY_EVENT_INIT;
    event.ok = i % 3 != 0;
    event.category = "server";
    event.body = "done";
    event.body_size = 4;
    if (i % 7)
      parry_attempt_done(host.engine, call, number, &event);
    if (i % 11 == 0)
      parry_call_cancel(host.engine, call);
    pthread_mutex_lock(&work.lock);
  }
  pthread_mutex_unlock(&work.lock);
  return NULL;
}

static void attempts_end_on_any_thread(void **state)
{
  (void)state;
  struct parry_call_ops many = ops;
  pthread_t workers[WORKERS];
  many.on_attempt = give_away;
  memset(&work, 0, sizeof work);
  pthread_mutex_init(&work.lock, NULL);
  pthread_cond_init(&work.more, NULL);
  for (int i = 0; i < WORKERS; i++)
    assert_int_equal(pthread_create(&workers[i], NULL, end_them, NULL), 0);
  for (int i = 0; i < MANY; i++)
    begin_with(&many, "/mail/x", "batch", "");
  RUN_UNTIL(parry_run(host.engine, 0) == 0);
  pthread_mutex_lock(&work.lock);
  work.over = true;
  pthread_cond_broadcast(&work.more);
  pthread_mutex_unlock(&work.lock);
  for (int i = 0; i < WORKERS; i++)
    pthread_join(workers[i], NULL);
  unsigned good = 0;
  for (int i = 0; i < MANY; i++) {
    assert_int_equal(host.jobs[i].dones, 1);
    if (host.jobs[i].ok)
      assert_string_equal(host.jobs[i].answer, "done");
    good += host.jobs[i].ok;
  }
  assert_true(good > 0);
  pthread_mutex_destroy(&work.lock);
  pthread_cond_destroy(&work.more);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(the_answer_comes_back),
      TEST(it_is_tried_again),
      TEST(it_goes_to_another_target),
      TEST(what_may_have_happened_is_not_repeated),
      TEST(a_breaker_lets_none_through),
      TEST(one_waits_for_the_other),
      TEST(its_time_is_up),
      TEST(who_cancels_hears_of_the_attempt_once_more),
      TEST(what_was_never_told_is_not_abandoned),
      TEST(free_abandons_what_is_open),
      TEST(an_attempt_ends_once),
      TEST(nonsense_is_refused),
      TEST(a_long_answer_comes_back_whole),
      TEST(an_ordinary_provider_is_made_by_the_host_too),
      TEST(a_target_must_be_declared),
      TEST(without_on_attempt_there_is_no_way_there),
      TEST(attempts_end_on_any_thread),
  };
  int failed = 0;
  static const unsigned drives[] = {0, 1, 3};
  for (size_t i = 0; i < sizeof drives / sizeof *drives; i++) {
    threads = drives[i];
    failed += cmocka_run_group_tests(tests, NULL, NULL);
  }
  return failed;
}
