/* Functions of a host that policies ask, and events that it tells them of: parry.h over a real policy file. Nothing here
 * sleeps: the engine runs until what is waited for has happened. */
#include "parry.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Asks what the event says, and tells in `why` what came of it. */
static const char asker[] =
    "return policy { name = 'asker',\n"
    "  on_event = function(self, event)\n"
    "    local f = event.fields\n"
    "    if f.has then return fail { category = 'server', why = tostring(host.has(f.has)) } end\n"
    "    local value, err = host.call(f.ask, f.with)\n"
    "    local told = err and err.category .. ': ' .. err.message or json.encode(value)\n"
    "    log.info('told ' .. told)\n"
    "    return fail { category = 'server', why = told }\n"
    "  end }\n";

static const char init[] = "provider \"p\" { base_url = \"http://127.0.0.1:1/v1\", dialect = \"generic\" }\n"
                           "route \"/v1/*\" { to = \"p\", chain = { use \"asker\" } }\n";

enum { OPEN_MAX_TOLD = 8, RESULT_MAX = 64 * 1024 };

/* Of parry's own; every test is run without any, with one, and with three. */
static unsigned threads;

/* ---- a host ---------------------------------------------------------------------------------------------- */

struct host {
  char folder[64];
  parry *engine;
  /* what its function saw */
  unsigned asked;
  parry_request_id requests[OPEN_MAX_TOLD];
  char arguments[256];
  pthread_t asked_on;
  const char *reply, *error; /* what it replies at once; both NULL: nothing */
  int replied;
  /* what became of a decision */
  unsigned ready;
  char why[256];
  /* log lines that begin with "told" */
  unsigned told, told_busy;
};

static void write_file(const struct host *host, const char *name, const char *text)
{
  char path[128];
  snprintf(path, sizeof path, "%s/%s", host->folder, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static void on_log(void *user, int level, const char *line, size_t size)
{
  struct host *host = user;
  (void)level, (void)size;
  host->told += strstr(line, "\"told ") != NULL;
  host->told_busy += strstr(line, "\"told busy: ") != NULL;
}

static void start(struct host *host, size_t max_calls)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  char findings[512];
  options.policy_dir = host->folder;
  options.share_dir = "";
  options.max_calls = max_calls;
  options.threads = threads;
  options.log = on_log;
  options.user = host;
  int error = parry_new(&host->engine, &options);
  parry_findings(host->engine, findings, sizeof findings);
  assert_string_equal(findings, "");
  assert_int_equal(error, PARRY_OK);
}

static int set_up(void **state)
{
  static struct host host;
  host = (struct host){.folder = "/tmp/test_parry_function.XXXXXX"};
  assert_non_null(mkdtemp(host.folder));
  write_file(&host, "asker.lua", asker);
  write_file(&host, "init.lua", init);
  start(&host, 0);
  *state = &host;
  return 0;
}

static int tear_down(void **state)
{
  struct host *host = *state;
  char command[96];
  parry_free(host->engine);
  snprintf(command, sizeof command, "rm -r %s", host->folder);
  return system(command);
}

static void function(void *user, parry_request_id request, const char *arguments, size_t size)
{
  struct host *host = user;
  assert_int_equal(strlen(arguments), size);
  if (host->asked < OPEN_MAX_TOLD)
    host->requests[host->asked] = request;
  host->asked++;
  host->asked_on = pthread_self();
  snprintf(host->arguments, sizeof host->arguments, "%s", arguments);
  if (host->reply || host->error)
    host->replied = parry_reply(host->engine, request, host->reply, host->error);
}

static void on_ready(void *user, const struct parry_decision *decision)
{
  struct host *host = user;
  host->ready++;
  snprintf(host->why, sizeof host->why, "%s", decision->why);
}

/* PARRY_OK with host->why, or PARRY_PENDING. */
static int ask(struct host *host, const char *fields)
{
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  host->ready = 0;
  host->why[0] = '\0';
  event.name = "ask";
  event.fields = fields;
  int result = parry_decide(host->engine, &event, &decision, on_ready, host);
  if (result == PARRY_OK)
    snprintf(host->why, sizeof host->why, "%s", decision.why);
  return result;
}

static void run_until(struct host *host, const unsigned *count, unsigned enough)
{
  for (unsigned i = 0; i < 10000 && *count < enough; i++)
    assert_true(parry_run(host->engine, 10) >= 0);
  assert_int_equal(*count, enough);
}

static void expect(struct host *host, const char *fields, const char *why)
{
  assert_int_equal(ask(host, fields), PARRY_PENDING);
  run_until(host, &host->ready, 1);
  assert_string_equal(host->why, why);
}

#define REGISTER(host, flags) assert_int_equal(parry_register((host)->engine, "f", function, (host), (flags)), PARRY_OK)

/* ---- known and unknown --------------------------------------------------------------------------------------- */

static void test_unknown(void **state)
{
  struct host *host = *state;
  assert_int_equal(ask(host, "{\"has\":\"f\"}"), PARRY_OK);
  assert_string_equal(host->why, "false");
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_OK);
  assert_string_equal(host->why, "unknown: the host has no function of this name");
  REGISTER(host, 0);
  assert_int_equal(ask(host, "{\"has\":\"f\"}"), PARRY_OK);
  assert_string_equal(host->why, "true");
  assert_int_equal(parry_register(host->engine, "f", NULL, NULL, 0), PARRY_OK);
  assert_int_equal(parry_register(host->engine, "f", NULL, NULL, 0), PARRY_ENOENT);
  assert_int_equal(ask(host, "{\"has\":\"f\"}"), PARRY_OK);
  assert_string_equal(host->why, "false");
}

static void test_names(void **state)
{
  struct host *host = *state;
  char name[80];
  static const char *const bad[] = {"", "a b", "a/b", "caf\xc3\xa9", "a\n"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(parry_register(host->engine, bad[i], function, host, 0), PARRY_EINVAL);
  assert_int_equal(parry_register(host->engine, NULL, function, host, 0), PARRY_EINVAL);
  assert_int_equal(parry_register(host->engine, "f", function, host, 2), PARRY_EINVAL);
  memset(name, 'n', sizeof name);
  name[64] = '\0';
  assert_int_equal(parry_register(host->engine, name, function, host, 0), PARRY_EINVAL);
  name[63] = '\0';
  assert_int_equal(parry_register(host->engine, name, function, host, 0), PARRY_OK);
  for (unsigned i = 1; i < 256; i++) {
    snprintf(name, sizeof name, "Some.name_%u-x", i);
    assert_int_equal(parry_register(host->engine, name, function, host, 0), PARRY_OK);
  }
  assert_int_equal(parry_register(host->engine, "one-more", function, host, 0), PARRY_BUSY);
  assert_int_equal(parry_register(host->engine, name, function, host, 0), PARRY_OK); /* takes the place of itself */
}

/* ---- answers -------------------------------------------------------------------------------------------------- */

static void test_reply_inside(void **state)
{
  struct host *host = *state;
  REGISTER(host, 0);
  host->reply = "{\"tier\":\"gold\"}";
  expect(host, "{\"ask\":\"f\",\"with\":{\"id\":7}}", "{\"tier\":\"gold\"}");
  assert_string_equal(host->arguments, "{\"id\":7}");
  assert_int_equal(host->replied, PARRY_OK);
  expect(host, "{\"ask\":\"f\"}", "{\"tier\":\"gold\"}");
  assert_string_equal(host->arguments, "null");
}

static void test_reply_later(void **state)
{
  struct host *host = *state;
  REGISTER(host, 0);
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_PENDING);
  run_until(host, &host->asked, 1);
  assert_int_equal(host->ready, 0);
  assert_int_equal(parry_reply(host->engine, host->requests[0], "[1,2]", NULL), PARRY_OK);
  run_until(host, &host->ready, 1);
  assert_string_equal(host->why, "[1,2]");
  assert_int_equal(parry_reply(host->engine, host->requests[0], "3", NULL), PARRY_ENOENT);
  assert_int_equal(parry_reply(host->engine, (parry_request_id){0}, "3", NULL), PARRY_ENOENT);
  assert_int_equal(parry_reply(host->engine, (parry_request_id){UINT64_MAX}, "3", NULL), PARRY_ENOENT);
  /* The same place, used again, has another name. */
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_PENDING);
  run_until(host, &host->asked, 2);
  assert_true(host->requests[1].value != host->requests[0].value);
  assert_int_equal(parry_reply(host->engine, host->requests[0], "3", NULL), PARRY_ENOENT);
  assert_int_equal(parry_reply(host->engine, host->requests[1], NULL, NULL), PARRY_OK);
  run_until(host, &host->ready, 1);
  assert_string_equal(host->why, "null");
}

static void *reply_elsewhere(void *user)
{
  struct host *host = user;
  assert_int_equal(parry_reply(host->engine, host->requests[0], "\"from afar\"", NULL), PARRY_OK);
  return NULL;
}

static void test_reply_from_another_thread(void **state)
{
  struct host *host = *state;
  pthread_t thread;
  REGISTER(host, 0);
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_PENDING);
  run_until(host, &host->asked, 1);
  assert_int_equal(pthread_create(&thread, NULL, reply_elsewhere, host), 0);
  run_until(host, &host->ready, 1);
  assert_string_equal(host->why, "\"from afar\"");
  pthread_join(thread, NULL);
}

static void test_errors(void **state)
{
  struct host *host = *state;
  REGISTER(host, 0);
  host->error = "no such customer";
  expect(host, "{\"ask\":\"f\"}", "failed: no such customer");
  assert_int_equal(host->replied, PARRY_OK);
  host->reply = "1"; /* both: the error counts */
  expect(host, "{\"ask\":\"f\"}", "failed: no such customer");
}

static void test_answers_that_are_none(void **state)
{
  struct host *host = *state;
  static const char *const bad[] = {"", "{", "tru", "[1,]", "1 2", "{'a':1}"};
  char deep[201], *text = malloc(RESULT_MAX + 2);
  assert_non_null(text);
  REGISTER(host, 0);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    host->reply = bad[i];
    expect(host, "{\"ask\":\"f\"}", "invalid_json: the host's answer is not JSON");
    assert_int_equal(host->replied, PARRY_EINVAL);
  }
  memset(deep, '[', 100);
  memset(deep + 100, ']', 100);
  deep[200] = '\0';
  host->reply = deep;
  expect(host, "{\"ask\":\"f\"}", "invalid_json: the host's answer is not JSON");
  memset(text, 'x', RESULT_MAX + 1);
  text[0] = text[RESULT_MAX] = '"';
  text[RESULT_MAX + 1] = '\0';
  host->reply = text;
  expect(host, "{\"ask\":\"f\"}", "invalid_json: the host's answer has more than 64 KiB");
  text[RESULT_MAX - 1] = '"';
  text[RESULT_MAX] = '\0';
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_PENDING);
  run_until(host, &host->ready, 1);
  assert_int_equal(host->replied, PARRY_OK);
  free(text);
}

/* ---- on any thread ---------------------------------------------------------------------------------------------- */

static void test_any_thread(void **state)
{
  struct host *host = *state;
  REGISTER(host, PARRY_ANY_THREAD);
  host->reply = "true";
  assert_int_equal(ask(host, "{\"ask\":\"f\",\"with\":[1]}"), PARRY_OK);
  assert_string_equal(host->why, "true");
  assert_string_equal(host->arguments, "[1]");
  host->reply = NULL;
  host->error = "not now";
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_OK);
  assert_string_equal(host->why, "failed: not now");
}

static void test_any_thread_that_takes_its_time(void **state)
{
  struct host *host = *state;
  pthread_t thread;
  REGISTER(host, PARRY_ANY_THREAD);
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_PENDING);
  assert_int_equal(host->asked, 1);
  assert_int_equal(pthread_create(&thread, NULL, reply_elsewhere, host), 0);
  run_until(host, &host->ready, 1);
  assert_string_equal(host->why, "\"from afar\"");
  pthread_join(thread, NULL);
}

/* ---- taking back ------------------------------------------------------------------------------------------------ */

static void test_take_back_with_open_requests(void **state)
{
  struct host *host = *state;
  REGISTER(host, 0);
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_PENDING);
  run_until(host, &host->asked, 1);
  assert_int_equal(parry_register(host->engine, "f", NULL, NULL, 0), PARRY_OK);
  assert_int_equal(parry_reply(host->engine, host->requests[0], "1", NULL), PARRY_ENOENT);
  run_until(host, &host->ready, 1);
  assert_string_equal(host->why, "unknown: the host has taken this function back");
}

static void test_take_back_before_it_is_called(void **state)
{
  struct host *host = *state;
  REGISTER(host, 0);
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_PENDING);
  assert_int_equal(parry_register(host->engine, "f", NULL, NULL, 0), PARRY_OK);
  run_until(host, &host->ready, 1);
  assert_int_equal(host->asked, 0);
}

static void other_function(void *user, parry_request_id request, const char *arguments, size_t size)
{
  (void)arguments, (void)size;
  struct host *host = user;
  assert_int_equal(parry_register(host->engine, "f", NULL, NULL, 0), PARRY_OK); /* itself */
  assert_int_equal(parry_reply(host->engine, request, "1", NULL), PARRY_ENOENT);
}

static void test_replace(void **state)
{
  struct host *host = *state;
  REGISTER(host, 0);
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_PENDING);
  assert_int_equal(parry_register(host->engine, "f", other_function, host, 0), PARRY_OK);
  run_until(host, &host->ready, 1);
  assert_int_equal(host->asked, 0);
  assert_string_equal(host->why, "unknown: the host has taken this function back");
}

struct slow {
  struct host *host;
  pthread_barrier_t inside;
  atomic_bool over;
};

static void slow_function(void *user, parry_request_id request, const char *arguments, size_t size)
{
  struct slow *slow = user;
  (void)arguments, (void)size;
  pthread_barrier_wait(&slow->inside);
  for (int i = 0; i < 1000; i++)
    sched_yield();
  atomic_store(&slow->over, true);
  assert_int_equal(parry_reply(slow->host->engine, request, "1", NULL), PARRY_ENOENT);
}

static void *take_back(void *user)
{
  struct slow *slow = user;
  pthread_barrier_wait(&slow->inside);
  assert_int_equal(parry_register(slow->host->engine, "f", NULL, NULL, 0), PARRY_OK);
  assert_true(atomic_load(&slow->over)); /* so what the function uses may go now */
  return NULL;
}

static void test_take_back_waits_for_those_inside(void **state)
{
  struct host *host = *state;
  struct slow slow = {.host = host};
  pthread_t thread;
  pthread_barrier_init(&slow.inside, NULL, 2);
  assert_int_equal(parry_register(host->engine, "f", slow_function, &slow, PARRY_ANY_THREAD), PARRY_OK);
  assert_int_equal(pthread_create(&thread, NULL, take_back, &slow), 0);
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_OK);
  assert_string_equal(host->why, "unknown: the host has taken this function back");
  pthread_join(thread, NULL);
  pthread_barrier_destroy(&slow.inside);
}

/* ---- bounds and ends --------------------------------------------------------------------------------------------- */

static void test_free_with_open_requests(void **state)
{
  struct host *host = *state;
  REGISTER(host, 0);
  for (unsigned i = 0; i < 3; i++)
    assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_PENDING);
  run_until(host, &host->asked, 3);
  assert_int_equal(ask(host, "{\"ask\":\"f\"}"), PARRY_PENDING); /* nobody has looked at this one */
  for (unsigned i = 0; i < 3; i++)
    assert_int_equal(parry_emit(host->engine, "ask", "{\"ask\":\"f\"}"), PARRY_OK);
  assert_int_equal(parry_free(host->engine), PARRY_OK);
  assert_int_equal(host->asked, 3);
  start(host, 0);
}

static void test_open_requests_are_bounded(void **state)
{
  struct host *host = *state;
  parry_free(host->engine);
  start(host, 2);
  REGISTER(host, 0);
  for (unsigned i = 0; i < 5; i++)
    assert_int_equal(parry_emit(host->engine, "ask", "{\"ask\":\"f\"}"), PARRY_OK);
  run_until(host, &host->told, 3);
  assert_int_equal(host->told_busy, 3);
  run_until(host, &host->asked, 2);
  for (unsigned i = 0; i < 2; i++)
    assert_int_equal(parry_reply(host->engine, host->requests[i], "1", NULL), PARRY_OK);
  run_until(host, &host->told, 5);
  assert_int_equal(host->told_busy, 3);
}

/* ---- several at once ---------------------------------------------------------------------------------------------- */

static void any_answer(void *user, parry_request_id request, const char *arguments, size_t size)
{
  struct host *host = user;
  (void)size;
  parry_reply(host->engine, request, arguments, NULL);
}

struct decided {
  atomic_uint count, wrong;
};

static void check_decision(struct decided *decided, const struct parry_decision *decision)
{
  if (strcmp(decision->why, "\"echo\"") != 0)
    atomic_fetch_add(&decided->wrong, 1);
  atomic_fetch_add(&decided->count, 1);
}

static void on_decided(void *user, const struct parry_decision *decision)
{
  check_decision(user, decision);
}

struct asking {
  struct host *host;
  struct decided *decided;
  const char *fields;
};

static void *ask_often(void *user)
{
  const struct asking *asking = user;
  for (unsigned i = 0; i < 200; i++) {
    struct parry_event event = PARRY_EVENT_INIT;
    struct parry_decision decision = PARRY_DECISION_INIT;
    event.name = "ask";
    event.fields = asking->fields;
    int result = parry_decide(asking->host->engine, &event, &decision, i % 4 ? on_decided : NULL, asking->decided);
    if (result == PARRY_OK && (i % 4 || strstr(asking->fields, "at-once")))
      check_decision(asking->decided, &decision);
    else if (result == PARRY_OK) /* it would have had to wait, and nobody wants to */
      atomic_fetch_add(&asking->decided->count, 1);
    else if (result != PARRY_PENDING)
      atomic_fetch_add(&asking->decided->wrong, 1);
  }
  return NULL;
}

static void test_ask_from_threads(void **state)
{
  struct host *host = *state;
  struct decided decided = {0};
  struct asking askings[] = {{host, &decided, "{\"ask\":\"at-once\",\"with\":\"echo\"}"},
                             {host, &decided, "{\"ask\":\"later\",\"with\":\"echo\"}"},
                             {host, &decided, "{\"ask\":\"later\",\"with\":\"echo\"}"}};
  pthread_t askers[3];
  assert_int_equal(parry_register(host->engine, "at-once", any_answer, host, PARRY_ANY_THREAD), PARRY_OK);
  assert_int_equal(parry_register(host->engine, "later", any_answer, host, 0), PARRY_OK);
  for (size_t i = 0; i < 3; i++)
    assert_int_equal(pthread_create(&askers[i], NULL, ask_often, &askings[i]), 0);
  for (unsigned i = 0; i < 100000 && atomic_load(&decided.count) < 600; i++)
    assert_true(parry_run(host->engine, 0.01) >= 0);
  for (size_t i = 0; i < 3; i++)
    pthread_join(askers[i], NULL);
  assert_int_equal(atomic_load(&decided.count), 600);
  assert_int_equal(atomic_load(&decided.wrong), 0);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void test_emit(void **state)
{
  struct host *host = *state;
  REGISTER(host, 0);
  host->reply = "1";
  assert_int_equal(parry_emit(host->engine, "ask", "{\"ask\":\"f\",\"with\":\"x\"}"), PARRY_OK);
  assert_int_equal(host->asked, 0); /* not from inside */
  run_until(host, &host->told, 1);
  assert_string_equal(host->arguments, "\"x\"");
}

static void test_emit_refuses_nonsense(void **state)
{
  struct host *host = *state;
  static const char *const bad[] = {"", "[]", "1", "{", "{}{}", "null"};
  enum { MOST = 64 * 1024 };
  char *text = malloc(MOST + 2);
  assert_non_null(text);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(parry_emit(host->engine, "ask", bad[i]), PARRY_EINVAL);
  assert_int_equal(parry_emit(host->engine, NULL, NULL), PARRY_EINVAL);
  assert_int_equal(parry_emit(host->engine, "", NULL), PARRY_EINVAL);
  memset(text, ' ', MOST + 1);
  memcpy(text, "{}", 2);
  text[MOST + 1] = '\0';
  assert_int_equal(parry_emit(host->engine, "other", text), PARRY_EINVAL);
  text[MOST] = '\0';
  assert_int_equal(parry_emit(host->engine, "other", text), PARRY_OK);
  free(text);
}

/* A handler that has told something has not ended yet, and the thread that it runs on may not get to it soon. */
static void emit_as_soon_as_there_is_room(const struct host *host)
{
  int result = PARRY_BUSY;
  for (unsigned i = 0; i < 60000 && result == PARRY_BUSY; i++) {
    result = parry_emit(host->engine, "ask", "{\"ask\":\"f\"}");
    if (result == PARRY_BUSY)
      usleep(1000);
  }
  assert_int_equal(result, PARRY_OK);
}

static void test_events_are_bounded(void **state)
{
  struct host *host = *state;
  unsigned taken = 0;
  REGISTER(host, 0);
  while (taken < 5000 && parry_emit(host->engine, "ask", "{\"ask\":\"f\"}") == PARRY_OK)
    taken++;
  if (threads) /* one that is just being taken may count twice */
    assert_in_range(taken, 1, 1024);
  else
    assert_int_equal(taken, 1024);
  run_until(host, &host->asked, taken); /* their handlers wait now */
  while (taken < 1024) {
    emit_as_soon_as_there_is_room(host);
    run_until(host, &host->asked, ++taken);
  }
  host->reply = "1";
  if (!host->told) { /* else this took as long as a handler may wait: those before have given up */
    assert_int_equal(parry_emit(host->engine, "ask", "{\"ask\":\"f\"}"), PARRY_BUSY);
    parry_reply(host->engine, host->requests[0], "1", NULL);
  }
  while (!host->told)
    assert_true(parry_run(host->engine, 10) >= 0);
  emit_as_soon_as_there_is_room(host);
}

static void *emit_many(void *user)
{
  struct host *host = user;
  for (unsigned i = 0; i < 100; i++)
    assert_int_equal(parry_emit(host->engine, "ask", "{\"ask\":\"f\"}"), PARRY_OK);
  return NULL;
}

static void test_emit_from_threads(void **state)
{
  struct host *host = *state;
  pthread_t emitters[3];
  REGISTER(host, 0);
  host->reply = "1";
  for (size_t i = 0; i < 3; i++)
    assert_int_equal(pthread_create(&emitters[i], NULL, emit_many, host), 0);
  run_until(host, &host->told, 300);
  assert_int_equal(host->asked, 300);
  for (size_t i = 0; i < 3; i++)
    pthread_join(emitters[i], NULL);
}

static void test_nobody(void **state)
{
  (void)state;
  assert_int_equal(parry_register(NULL, "f", function, NULL, 0), PARRY_EFREED);
  assert_int_equal(parry_reply(NULL, (parry_request_id){1}, "1", NULL), PARRY_EFREED);
  assert_int_equal(parry_emit(NULL, "ask", NULL), PARRY_EFREED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(test_unknown),
      TEST(test_names),
      TEST(test_reply_inside),
      TEST(test_reply_later),
      TEST(test_reply_from_another_thread),
      TEST(test_errors),
      TEST(test_answers_that_are_none),
      TEST(test_any_thread),
      TEST(test_any_thread_that_takes_its_time),
      TEST(test_take_back_with_open_requests),
      TEST(test_take_back_before_it_is_called),
      TEST(test_replace),
      TEST(test_take_back_waits_for_those_inside),
      TEST(test_free_with_open_requests),
      TEST(test_open_requests_are_bounded),
      TEST(test_ask_from_threads),
      TEST(test_emit),
      TEST(test_emit_refuses_nonsense),
      TEST(test_events_are_bounded),
      TEST(test_emit_from_threads),
      cmocka_unit_test(test_nobody),
  };
  int failed = 0;
  static const unsigned counts[] = {0, 1, 3};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    threads = counts[i];
    failed += cmocka_run_group_tests(tests, NULL, NULL);
  }
  return failed;
}
