/* What an engine says of its own: log lines, alerts, metrics, in both ways of driving it. Nothing here sleeps: the engine
 * runs until what is waited for has happened. */
#include "parry.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char teller[] =
    "return policy { name = 'teller',\n"
    "  on_event = function(self, event)\n"
    "    local f = event.fields\n"
    "    if event.name == 'log' then\n"
    "      for i = 1, f.count do log[f.level or 'info'](f.text) end\n"
    "    elseif event.name == 'alert' then\n"
    "      notify { to = f.to, key = f.key, text = f.text, title = f.title, severity = f.severity, cause = f.cause,\n"
    "               resolve = f.resolve, repeat_after = f.again, count = f.count }\n"
    "    end\n"
    "  end }\n";

static const char init[] = "provider \"p\" { base_url = \"http://127.0.0.1:1/v1\", dialect = \"generic\" }\n"
                           "sink \"silent\" { webhook = secret \"NO_SUCH_SECRET_HERE\" }\n"
                           "sink \"deaf\" { webhook = secret \"HOOK\" }\n"
                           "route \"/v1/*\" { to = \"p\", chain = { use \"teller\" } }\n";

#define HOOK "http://127.0.0.1:1/hook-of-ours"

/* ---- a host ---------------------------------------------------------------------------------------------- */

struct host {
  char folder[64];
  parry *engine;
  unsigned threads;
  unsigned lines, marked; /* log lines; of them with "marked" in it */
  int level;              /* of the last marked one */
  char line[512];
  bool loading; /* parry_new() has not returned */
  unsigned alerts, resolved;
  struct parry_alert alert; /* the last; its texts are below */
  char key[64], sink[64], severity[16], title[64], text[2048], cause[64];
  unsigned done;
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
  assert_false(host->loading);
  assert_int_equal(strlen(line), size);
  host->lines++;
  if (!strstr(line, "marked"))
    return;
  host->marked++;
  host->level = level;
  snprintf(host->line, sizeof host->line, "%s", line);
}

#define KEEP(field) snprintf(host->field, sizeof host->field, "%s", alert->field)

static void on_alert(void *user, const struct parry_alert *alert)
{
  struct host *host = user;
  host->alert = *alert;
  host->alerts++;
  host->resolved += alert->resolved;
  KEEP(key), KEEP(sink), KEEP(severity), KEEP(title), KEEP(text), KEEP(cause);
}

static void start(struct host *host, unsigned threads, int log_level)
{
  static const struct parry_header secrets[] = {{"HOOK", HOOK}};
  struct parry_options options = PARRY_OPTIONS_INIT;
  options.policy_dir = host->folder;
  options.share_dir = "";
  options.secrets = secrets;
  options.secret_count = 1;
  options.threads = threads;
  options.log_level = log_level;
  options.log = on_log;
  options.alert = on_alert;
  options.user = host;
  host->threads = threads;
  host->loading = true;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
  host->loading = false;
}

static int set_up(void **state)
{
  static struct host host;
  host = (struct host){.folder = "/tmp/test_parry_tell.XXXXXX"};
  assert_non_null(mkdtemp(host.folder));
  write_file(&host, "teller.lua", teller);
  write_file(&host, "init.lua", init);
  *state = &host;
  return 0;
}

static int tear_down(void **state)
{
  struct host *host = *state;
  char command[96];
  parry_free(host->engine);
  host->engine = NULL;
  snprintf(command, sizeof command, "rm -r %s", host->folder);
  return system(command);
}

/* Once with the host's thread, once with threads of parry's own. */
static void each_drive(void **state, void (*test)(struct host *host))
{
  static const unsigned threads[] = {0, 1, 2};
  struct host *host = *state;
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
    start(host, threads[i], PARRY_LOG_INFO);
    test(host);
    assert_int_equal(parry_free(host->engine), PARRY_OK);
    struct host fresh = {.threads = 0};
    memcpy(fresh.folder, host->folder, sizeof fresh.folder);
    *host = fresh;
  }
}

static void drive(const struct host *host)
{
  if (!host->threads) {
    assert_true(parry_run(host->engine, 10) >= 0);
    return;
  }
  struct pollfd fd = {.fd = parry_fd(host->engine), .events = POLLIN};
  assert_true(poll(&fd, 1, 10000) >= 0);
  assert_true(parry_dispatch(host->engine) >= 0);
}

static void run_until(const struct host *host, const unsigned *count, unsigned enough)
{
  for (unsigned i = 0; i < 10000 && *count < enough; i++)
    drive(host);
  assert_int_equal(*count, enough);
}

static void emit(const struct host *host, const char *name, const char *fields)
{
  assert_int_equal(parry_emit(host->engine, name, fields), PARRY_OK);
}

/* ---- log lines --------------------------------------------------------------------------------------------- */

static void lines_reach_the_host(struct host *host)
{
  assert_int_equal(host->lines, 0); /* not from inside parry_new() */
  emit(host, "log", "{\"count\":3,\"text\":\"marked \\\"so\\\"\",\"level\":\"warn\"}");
  run_until(host, &host->marked, 3);
  assert_int_equal(host->level, PARRY_LOG_WARN);
  assert_non_null(strstr(host->line, "\"msg\":\"marked \\\"so\\\"\""));
  assert_int_equal(host->line[0], '{');
}

static void test_lines(void **state)
{
  each_drive(state, lines_reach_the_host);
}

static void test_level(void **state)
{
  struct host *host = *state;
  start(host, 0, PARRY_LOG_ERROR);
  emit(host, "log", "{\"count\":1,\"text\":\"marked\",\"level\":\"warn\"}");
  emit(host, "log", "{\"count\":1,\"text\":\"marked\",\"level\":\"error\"}");
  run_until(host, &host->marked, 1);
  assert_int_equal(host->level, PARRY_LOG_ERROR);
}

static void test_lines_are_bounded(void **state)
{
  enum { EVENTS = 60, EACH = 20, KEPT = 1024 };
  struct host *host = *state;
  struct parry_status status = PARRY_STATUS_INIT;
  start(host, 0, PARRY_LOG_INFO);
  drive(host);
  host->lines = 0;
  for (unsigned i = 0; i < EVENTS; i++)
    emit(host, "log", "{\"count\":20,\"text\":\"marked\"}");
  emit(host, "log", "{\"count\":1,\"text\":\"marked, and the last\"}");
  while (host->marked < KEPT)
    drive(host);
  assert_int_equal(host->marked, KEPT);
  assert_non_null(strstr(host->line, "and the last")); /* the oldest were dropped */
  assert_int_equal(parry_status(host->engine, &status), PARRY_OK);
  assert_int_equal(status.log_lines_lost, EVENTS * EACH + 1 - KEPT);
}

static void test_bytes_of_lines_are_bounded(void **state)
{
  struct host *host = *state;
  struct parry_status status = PARRY_STATUS_INIT;
  enum { LONG = 12000, EVENTS = 40, EACH = 5 }; /* few each, for a handler's time */
  char *fields = malloc(LONG + 64);
  assert_non_null(fields);
  int head = snprintf(fields, 64, "{\"count\":%d,\"text\":\"marked ", EACH);
  memset(fields + head, 'x', LONG);
  memcpy(fields + head + LONG, "\"}", 3);
  start(host, 0, PARRY_LOG_INFO);
  for (unsigned i = 0; i < EVENTS; i++)
    emit(host, "log", fields);
  free(fields);
  while (!host->marked)
    drive(host);
  assert_in_range(host->marked, 80, 88); /* of about 12 KiB, in 1 MiB */
  assert_int_equal(parry_status(host->engine, &status), PARRY_OK);
  assert_in_range(status.log_lines_lost, EVENTS * EACH - 88, EVENTS * EACH);
}

static void test_last_lines_come_with_free(void **state)
{
  struct host *host = *state;
  start(host, 1, PARRY_LOG_INFO);
  emit(host, "log", "{\"count\":1,\"text\":\"marked\"}");
  struct pollfd fd = {.fd = parry_fd(host->engine), .events = POLLIN};
  assert_int_equal(poll(&fd, 1, 10000), 1);
  assert_int_equal(host->lines, 0);
  assert_int_equal(parry_free(host->engine), PARRY_OK);
  host->engine = NULL;
  assert_true(host->lines >= 1);
}

/* ---- alerts ------------------------------------------------------------------------------------------------ */

#define RAISE(to, more)                                                                                                \
  "{" to                                                                                                               \
  "\"key\":\"k\",\"text\":\"it is broken\",\"title\":\"Broken\",\"severity\":\"critical\",\"cause\":\"server\"" more   \
  "}"

static void alerts_without_a_sink(struct host *host)
{
  emit(host, "alert", RAISE("", ",\"count\":3"));
  run_until(host, &host->alerts, 1);
  assert_string_equal(host->key, "teller/k");
  assert_string_equal(host->sink, "host");
  assert_string_equal(host->severity, "critical");
  assert_string_equal(host->title, "Broken");
  assert_string_equal(host->text, "it is broken");
  assert_string_equal(host->cause, "server");
  assert_int_equal(host->alert.resolved, 0);
  assert_int_equal(host->alert.count, 3);
  emit(host, "alert", RAISE("", "")); /* counts only: not an hour has passed */
  emit(host, "alert", "{\"key\":\"k\",\"resolve\":true}");
  run_until(host, &host->alerts, 2);
  assert_int_equal(host->alert.resolved, 1);
  assert_int_equal(host->alert.count, 4);
  assert_string_equal(host->text, "it is broken");
  emit(host, "alert", "{\"key\":\"k\",\"resolve\":true}"); /* nothing is open */
  emit(host, "alert", RAISE("", ""));
  run_until(host, &host->alerts, 3);
  assert_int_equal(host->alert.resolved, 0);
  assert_int_equal(host->alert.count, 1);
}

static void test_alerts_without_a_sink(void **state)
{
  each_drive(state, alerts_without_a_sink);
}

static void test_alerts_of_a_sink_that_has_no_secret(void **state)
{
  struct host *host = *state;
  start(host, 0, PARRY_LOG_INFO);
  emit(host, "alert", RAISE("\"to\":\"silent\",", ""));
  emit(host, "alert", "{\"to\":\"silent\",\"key\":\"k\",\"resolve\":true}");
  run_until(host, &host->alerts, 2);
  assert_string_equal(host->sink, "silent");
  assert_int_equal(host->resolved, 1);
}

static void test_alerts_are_told_again(void **state)
{
  struct host *host = *state;
  start(host, 0, PARRY_LOG_INFO);
  for (unsigned i = 0; i < 1000000 && host->alerts < 3; i++) {
    emit(host, "alert", RAISE("\"to\":\"silent\",", ",\"again\":0.001"));
    assert_true(parry_run(host->engine, 0) >= 0);
  }
  assert_int_equal(host->alerts, 3);
  assert_int_equal(host->resolved, 0);
  assert_true(host->alert.count >= 3);
}

static void test_alerts_are_scrubbed(void **state)
{
  struct host *host = *state;
  start(host, 0, PARRY_LOG_INFO);
  emit(host, "alert", "{\"to\":\"deaf\",\"text\":\"see " HOOK "\"}");
  run_until(host, &host->alerts, 1);
  assert_string_equal(host->text, "see ***");
}

static void count_dropped(void *user, const struct parry_sample *sample)
{
  double *dropped = user;
  if (strcmp(sample->name, "parry_alerts_total") == 0 && strstr(sample->labels, "result=\"dropped\"") &&
      strstr(sample->labels, "sink=\"host\""))
    *dropped = sample->value;
}

static void test_alerts_are_bounded(void **state)
{
  enum { RAISED = 300, KEPT = 256 };
  struct host *host = *state;
  double dropped = 0;
  char fields[64];
  start(host, 0, PARRY_LOG_INFO);
  for (unsigned i = 0; i < RAISED; i++) {
    snprintf(fields, sizeof fields, "{\"key\":\"k%u\",\"text\":\"x\"}", i);
    emit(host, "alert", fields);
  }
  run_until(host, &host->alerts, KEPT);
  assert_string_equal(host->key, "teller/k299");
  assert_int_equal(parry_metrics(host->engine, count_dropped, &dropped), PARRY_OK);
  assert_int_equal(dropped, RAISED - KEPT);
}

/* ---- metrics ------------------------------------------------------------------------------------------------ */

struct seen {
  unsigned samples;
  double build, calls, bucket, buckets, sum, count, open;
  bool sum_is_there;
};

static void see(void *user, const struct parry_sample *sample)
{
  struct seen *seen = user;
  seen->samples++;
  assert_int_equal(sample->size, sizeof *sample);
  assert_int_equal(strncmp(sample->name, "parry_", 6), 0);
  assert_true(sample->help[0]);
  if (strcmp(sample->name, "parry_build_info") == 0) {
    seen->build = sample->value;
    assert_string_equal(sample->type, "gauge");
    assert_string_equal(sample->labels, "version=\"" PARRY_VERSION "\"");
    assert_string_equal(sample->help, "1, with the version.");
  } else if (strcmp(sample->name, "parry_calls_total") == 0) {
    seen->calls += sample->value;
    assert_string_equal(sample->type, "counter");
  } else if (strcmp(sample->name, "parry_call_duration_seconds_bucket") == 0) {
    assert_string_equal(sample->type, "histogram");
    assert_int_equal(strncmp(sample->labels, "route=\"/v1/*\",le=\"", 17), 0);
    assert_true(sample->value >= seen->bucket); /* running sums */
    seen->bucket = sample->value;
    seen->buckets++;
  } else if (strcmp(sample->name, "parry_call_duration_seconds_sum") == 0) {
    seen->sum_is_there = true;
  } else if (strcmp(sample->name, "parry_call_duration_seconds_count") == 0) {
    seen->count = sample->value;
  } else if (strcmp(sample->name, "parry_calls_open") == 0) {
    seen->open = sample->value;
    assert_string_equal(sample->labels, "");
  }
}

static void on_done(void *user, const struct parry_outcome *outcome)
{
  (void)outcome;
  ((struct host *)user)->done++;
}

static void make_call(struct host *host)
{
  struct parry_request request = PARRY_REQUEST_INIT;
  struct parry_call_ops ops = PARRY_CALL_OPS_INIT;
  request.path = "/v1/chat/completions";
  request.body = "{\"model\":\"m\"}";
  request.body_size = strlen(request.body);
  ops.on_done = on_done;
  assert_int_equal(parry_call(host->engine, &request, &ops, host, NULL), PARRY_OK);
}

static void metrics_tell_of_a_call(struct host *host)
{
  struct seen seen = {0};
  make_call(host);
  run_until(host, &host->done, 1);
  do { /* the worker counts when it has told the host */
    seen = (struct seen){0};
    assert_int_equal(parry_metrics(host->engine, see, &seen), PARRY_OK);
  } while (!seen.count);
  assert_int_equal(seen.build, 1);
  assert_int_equal(seen.calls, 1);
  assert_int_equal(seen.buckets, 17);
  assert_int_equal(seen.bucket, 1);
  assert_int_equal(seen.count, 1);
  assert_true(seen.sum_is_there);
  assert_int_equal(parry_metrics(host->engine, NULL, NULL), PARRY_EINVAL);
}

static void test_metrics(void **state)
{
  each_drive(state, metrics_tell_of_a_call);
}

static void *look_often(void *user)
{
  const struct host *host = user;
  for (unsigned i = 0; i < 20; i++) {
    struct seen seen = {0};
    assert_int_equal(parry_metrics(host->engine, see, &seen), PARRY_OK);
    assert_int_equal(seen.build, 1);
  }
  return NULL;
}

static void threads_look_while_calls_run(struct host *host)
{
  pthread_t threads[2];
  for (size_t i = 0; i < 2; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, look_often, host), 0);
  for (unsigned i = 0; i < 20; i++)
    make_call(host);
  assert_int_equal(parry_reload(host->engine, 0), PARRY_OK);
  run_until(host, &host->done, 20);
  for (size_t i = 0; i < 2; i++)
    pthread_join(threads[i], NULL);
}

static void test_metrics_from_threads(void **state)
{
  each_drive(state, threads_look_while_calls_run);
}

static void test_nobody(void **state)
{
  (void)state;
  assert_int_equal(parry_metrics(NULL, see, NULL), PARRY_EFREED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(test_lines),
      TEST(test_level),
      TEST(test_lines_are_bounded),
      TEST(test_bytes_of_lines_are_bounded),
      TEST(test_last_lines_come_with_free),
      TEST(test_alerts_without_a_sink),
      TEST(test_alerts_of_a_sink_that_has_no_secret),
      TEST(test_alerts_are_told_again),
      TEST(test_alerts_are_scrubbed),
      TEST(test_alerts_are_bounded),
      TEST(test_metrics),
      TEST(test_metrics_from_threads),
      cmocka_unit_test(test_nobody),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
