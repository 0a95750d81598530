/* Hosts that take parry.h by its word where it was not kept. Each test tells of one defect. */
#include "parry_rig.h"

static struct parry_options shipped_options(const struct rig_host *host, const char *init)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  options.init_lua = init;
  options.share_dir = PARRY_SOURCE_DIR "/policies";
  options.threads = host->threads;
  return options;
}

static void start_shipped(struct rig_host *host, const char *init)
{
  struct parry_options options = shipped_options(host, init);
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
}

static unsigned long faults_of(const struct rig_host *host)
{
  struct parry_status status = PARRY_STATUS_INIT;
  assert_int_equal(parry_status(host->engine, &status), PARRY_OK);
  return status.policy_faults;
}

/* "Zero or NULL for what is not known": without a target there was no call.target, and circuit_breaker, concurrency, alert,
 * keys, and retry after a 429, faulted each time. Such a host was always told to give up. */
static void what_failed_needs_no_name(void **state)
{
  static const char *const categories[] = {"network", "timeout", "rate_limit", "overloaded",
                                           "server",  "auth",    "billing"};
  struct rig_host *host = *state;
  struct parry_decision decision = PARRY_DECISION_INIT;
  start_shipped(host, "provider 'p' { base_url = 'http://127.0.0.1:1', dialect = 'openai' }\n"
                      "route '/v1/*' { to = 'p', chain = { use 'alert' {}, use 'keys' {}, use 'circuit_breaker' {},\n"
                      "  use 'concurrency' {}, use 'token_refresh' {}, use 'retry' {} } }\n");
  for (size_t i = 0; i < sizeof categories / sizeof *categories; i++) {
    struct parry_event event = PARRY_EVENT_INIT;
    event.category = categories[i];
    event.target = i % 2 ? "" : NULL;
    assert_int_equal(parry_report(host->engine, &event), PARRY_OK);
    assert_int_equal(parry_decide(host->engine, &event, &decision, NULL, NULL), PARRY_OK);
    if (i < 3)
      assert_int_equal(decision.action, PARRY_RETRY);
  }
  assert_int_equal(faults_of(host), 0);
}

/* What had no provider has none now: a model alone is still all that is known of where to go. */
static void a_model_at_nobody_is_a_model(void **state)
{
  struct rig_host *host = *state;
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  rig_write_file(host, "again.lua",
                 "return policy { name = 'again', on_error = function() return fallback { target = 'other' } end }\n");
  rig_started(state);
  event.status = 503;
  assert_int_equal(parry_decide(host->engine, &event, &decision, NULL, NULL), PARRY_OK);
  assert_int_equal(decision.action, PARRY_FALLBACK);
  assert_string_equal(decision.target, "other");
  event.target = "p/one";
  assert_int_equal(parry_decide(host->engine, &event, &decision, NULL, NULL), PARRY_OK);
  assert_string_equal(decision.target, "p/other");
}

/* "The fields that describe a failure are ignored" when it went well: an outcome's own category, "none", was refused. */
static void success_may_have_any_category(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_event event = PARRY_EVENT_INIT;
  event.ok = 1;
  event.category = "none";
  assert_int_equal(parry_report(host->engine, &event), PARRY_OK);
  event.category = "anything";
  assert_int_equal(parry_report(host->engine, &event), PARRY_OK);
  event.ok = 0;
  assert_int_equal(parry_report(host->engine, &event), PARRY_EINVAL);
}

/* A decision said that a client was to be answered with status 99999. */
static void a_status_is_one_of_http(void **state)
{
  static const int wrong[] = {-1, 1, 99, 600, 99999, -2147483647};
  struct rig_host *host = rig_started(state);
  struct parry_event event = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    event.status = wrong[i];
    assert_int_equal(parry_decide(host->engine, &event, &decision, NULL, NULL), PARRY_EINVAL);
    assert_int_equal(parry_report(host->engine, &event), PARRY_EINVAL);
  }
  event.status = 599;
  assert_int_equal(parry_decide(host->engine, &event, &decision, NULL, NULL), PARRY_OK);
}

/* ---- attempts of the host's ------------------------------------------------------------------------------------ */

struct waiting {
  struct rig_host *host;
  struct parry_event end;
  double retry_after;
  bool done, ok;
};

static void end_at_once(void *user, const struct parry_attempt *attempt)
{
  struct waiting *waiting = user;
  RIG_CHECK(parry_attempt_done(waiting->host->engine, attempt->call, attempt->number, &waiting->end) == PARRY_OK);
}

static void keep_outcome(void *user, const struct parry_outcome *outcome)
{
  struct waiting *waiting = user;
  waiting->done = true;
  waiting->ok = outcome->ok;
  waiting->retry_after = outcome->retry_after;
}

static void run_attempt(struct waiting *waiting, const char *path)
{
  struct parry_call_ops ops = PARRY_CALL_OPS_INIT;
  struct parry_request request = PARRY_REQUEST_INIT;
  ops.on_attempt = end_at_once;
  ops.on_done = keep_outcome;
  request.path = path;
  waiting->done = false;
  assert_int_equal(parry_call(waiting->host->engine, &request, &ops, waiting, NULL), PARRY_OK);
  RIG_RUN_UNTIL(waiting->host, waiting->done);
}

/* What the host says is bounded as a header would be; 1e300 seconds came out as they went in. */
static void no_wait_is_for_ever(void **state)
{
  struct waiting waiting = {.host = rig_started(state), .end = PARRY_EVENT_INIT};
  waiting.end.status = 400;
  waiting.end.retry_after = 1e300;
  run_attempt(&waiting, "/v1/x");
  assert_false(waiting.ok);
  assert_true(waiting.retry_after > 1e8 && waiting.retry_after < 1e9);
}

static void a_good_attempt_may_have_any_category(void **state)
{
  struct waiting waiting = {.host = rig_started(state), .end = PARRY_EVENT_INIT};
  waiting.end.ok = 1;
  waiting.end.category = "none";
  waiting.end.retry_after = -1;
  run_attempt(&waiting, "/v1/a job#1 of \"mine\""); /* a name, where no HTTP is meant */
  assert_true(waiting.ok);
}

/* ---- calls ----------------------------------------------------------------------------------------------------- */

/* A fragment was cut off on the way, with any query behind it; the rest failed as if the provider had, and opened breakers. */
static void what_http_has_not_is_refused(void **state)
{
  static const char *const paths[] = {"/v1/x#y",      "/v1/x y", "/v1/x\ty", "/v1/x\r\nHost: y",
                                      "/v1/\xC3\xBC", "/v1\\x",  "/v1/x\x7F"};
  static const char *const methods[] = {"", "CONNECT", "GET / HTTP/1.1\r\nA: b\r\n\r\n", "PO ST", "\xFF"};
  struct rig_host *host = rig_started(state);
  struct parry_request request = rig_request;
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    request.path = paths[i];
    assert_int_equal(parry_call(host->engine, &request, &rig_ops, host, NULL), PARRY_EINVAL);
  }
  request = rig_request;
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    request.method = methods[i];
    assert_int_equal(parry_call(host->engine, &request, &rig_ops, host, NULL), PARRY_EINVAL);
  }
  assert_int_equal(parry_run(host->engine, 0), 0);
}

/* ---- callbacks -------------------------------------------------------------------------------------------------- */

struct reloading {
  struct rig_host *host;
  unsigned told;
};

static void reload_again(void *user, const struct parry_reload_info *info)
{
  struct reloading *reloading = user;
  char chain[64];
  (void)info;
  if (++reloading->told > 20)
    return;
  snprintf(chain, sizeof chain, "use \"again\", nil --[[%u]]", reloading->told);
  rig_write_init(reloading->host, chain);
  RIG_CHECK(parry_reload(reloading->host->engine, 1) == PARRY_OK);
}

/* "What comes up meanwhile is left for the next time, so that nobody is kept here": who reloaded in `reloaded` was. */
static void news_of_news_is_told_the_next_time(void **state)
{
  struct rig_host *host = *state;
  static struct reloading reloading; /* a failure here is told when the engine is freed */
  struct parry_options options = rig_options(host);
  reloading = (struct reloading){.host = host};
  options.reloaded = reload_again;
  options.user = &reloading;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
  rig_write_init(host, "use \"again\", nil");
  assert_int_equal(parry_reload(host->engine, 1), PARRY_OK);
  for (unsigned i = 1; i <= 10; i++) {
    assert_true(parry_dispatch(host->engine) >= 0);
    assert_int_equal(reloading.told, i);
  }
  reloading.told = 20;
  assert_int_equal(parry_free(host->engine), PARRY_OK);
  host->engine = NULL;
}

static void count_line(void *user, int level, const char *line, size_t size)
{
  struct rig_host *host = user;
  (void)level, (void)line, (void)size;
  host->heads++;
}

/* "Callbacks come from parry_run(), parry_dispatch() and parry_free() and from nowhere else": a parry_new() that found no
 * threads told its log lines, to a host that had no engine yet. */
static void an_engine_that_is_none_calls_nobody(void **state)
{
  struct rig_host *host = *state;
  struct parry_options options = rig_options(host);
  pthread_attr_t huge, before;
  options.log = count_line;
  options.log_level = PARRY_LOG_DEBUG;
  options.user = host;
  options.threads = 3;
  assert_int_equal(pthread_getattr_default_np(&before), 0);
  assert_int_equal(pthread_attr_init(&huge), 0);
  assert_int_equal(pthread_attr_setstacksize(&huge, (size_t)1 << 47), 0);
  assert_int_equal(pthread_setattr_default_np(&huge), 0);
  int error = parry_new(&host->engine, &options);
  assert_int_equal(pthread_setattr_default_np(&before), 0);
  pthread_attr_destroy(&huge);
  pthread_attr_destroy(&before);
  assert_int_equal(error, PARRY_ESYSTEM);
  assert_null(host->engine);
  assert_int_equal(host->heads, 0);
  assert_int_equal(parry_new(&host->engine, &options), PARRY_OK);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      RIG_TEST(what_failed_needs_no_name),
      RIG_TEST(a_model_at_nobody_is_a_model),
      RIG_TEST(success_may_have_any_category),
      RIG_TEST(a_status_is_one_of_http),
      RIG_TEST_ALL(no_wait_is_for_ever),
      RIG_TEST(a_good_attempt_may_have_any_category),
      RIG_TEST(what_http_has_not_is_refused),
      RIG_TEST_ONE_THREAD(news_of_news_is_told_the_next_time),
      RIG_TEST_THREADS(news_of_news_is_told_the_next_time),
      RIG_TEST(an_engine_that_is_none_calls_nobody),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
