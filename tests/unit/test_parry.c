/* The public interface as a host meets it at first: its texts, and small questions over real policy files. What it may not
 * do is in test_parry_misuse.c, how it drives an engine in test_parry_drive.c, each kind of use in a file of its own. */
#include "parry_rig.h"

enum { CURL_RESOLVE = 6, CURL_CONNECT = 7, CURL_TIMEOUT = 28, CURL_RECEIVE = 56 };

/* ---- texts ----------------------------------------------------------------------------------------------- */

static void the_version_is_the_headers(void **state)
{
  (void)state;
  char version[32];
  snprintf(version, sizeof version, "%d.%d.%d", PARRY_VERSION_MAJOR, PARRY_VERSION_MINOR, PARRY_VERSION_PATCH);
  assert_string_equal(parry_version(), PARRY_VERSION);
  assert_string_equal(parry_version(), version);
}

static void every_error_has_a_sentence(void **state)
{
  (void)state;
#define X(name, value, text)                                                                                           \
  assert_int_equal(name, value);                                                                                       \
  assert_string_equal(parry_strerror(name), text);
  PARRY_ERRORS(X)
#undef X
  assert_non_null(strstr(parry_strerror(-1000), "does not know"));
}

/* ---- decisions ------------------------------------------------------------------------------------------- */

/* A connection that was refused was told to policies as a request that may have been carried out, and what is not
 * repeatable was not repeated. */
static void what_was_never_sent_may_be_repeated(void **state)
{
  static const struct {
    int curl_code;
    enum parry_action action; /* when the request must not be sent twice */
    const char *why;          /* when it may */
  } cases[] = {{CURL_RESOLVE, PARRY_RETRY, "network, not sent"},
               {CURL_CONNECT, PARRY_RETRY, "network, not sent"},
               {CURL_TIMEOUT, PARRY_FAIL, "timeout, sent"},
               {CURL_RECEIVE, PARRY_FAIL, "network, sent"}};
  struct rig_host *host = rig_started(state);
  for (size_t i = 0; i < 4; i++) {
    struct parry_event failure = PARRY_EVENT_INIT;
    struct parry_decision decision = PARRY_DECISION_INIT;
    failure.target = "p/m";
    failure.curl_code = cases[i].curl_code;
    assert_int_equal(parry_decide(host->engine, &failure, &decision, NULL, NULL), PARRY_OK);
    assert_int_equal(decision.action, PARRY_RETRY);
    assert_string_equal(decision.why, cases[i].why);
    failure.not_repeatable = 1;
    assert_int_equal(parry_decide(host->engine, &failure, &decision, NULL, NULL), PARRY_OK);
    assert_int_equal(decision.action, cases[i].action);
  }
}

static void a_decision_keeps_the_servers_time(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_event failure = PARRY_EVENT_INIT;
  struct parry_header seven = {"Retry-After", "7"};
  struct parry_decision decision = PARRY_DECISION_INIT;
  failure.target = "p/m";
  failure.status = 429;
  failure.headers = &seven, failure.header_count = 1;
  assert_int_equal(parry_decide(host->engine, &failure, &decision, NULL, NULL), PARRY_OK);
  assert_int_equal(decision.action, PARRY_RETRY);
  assert_true(decision.after == 7);
  assert_string_equal(decision.category, "rate_limit");
  assert_string_equal(decision.policy, "again");
}

/* ---- calls ----------------------------------------------------------------------------------------------- */

static int call_path(struct rig_host *host, const char *path)
{
  struct parry_request request = rig_request;
  request.path = path;
  return parry_call(host->engine, &request, &rig_ops, host, NULL);
}

static void a_refused_connection_is_a_networks_failure(void **state)
{
  struct rig_host *host = *state;
  rig_write_init(host, ""); /* nobody tries again */
  rig_started(state);
  assert_int_equal(call_path(host, "/refused/v1/chat/completions"), PARRY_OK);
  rig_run_until_done(host);
  assert_string_equal(host->category, "network");
  assert_int_equal(host->heads, 1);
  assert_true(host->status >= 500 && host->bytes > 0); /* an error in the words of the dialect */
  assert_int_equal(parry_run(host->engine, 0), 0);
}

static void a_path_without_a_route_is_told_by_the_end(void **state)
{
  struct rig_host *host = rig_started(state);
  assert_int_equal(call_path(host, "/nowhere"), PARRY_OK);
  rig_run_until_done(host);
  assert_string_equal(host->category, "not_found");
}

/* ---- policies -------------------------------------------------------------------------------------------- */

static int action(struct rig_host *host)
{
  struct parry_event failure = PARRY_EVENT_INIT;
  struct parry_decision decision = PARRY_DECISION_INIT;
  failure.status = 503;
  int error = parry_decide(host->engine, &failure, &decision, NULL, NULL);
  return error ? error : decision.action;
}

static struct parry_status status_of(struct rig_host *host)
{
  struct parry_status status = PARRY_STATUS_INIT;
  assert_int_equal(parry_status(host->engine, &status), PARRY_OK);
  return status;
}

static void assert_finding(struct rig_host *host, const char *part)
{
  char findings[1024];
  assert_true(parry_findings(host->engine, findings, sizeof findings) < sizeof findings);
  assert_non_null(strstr(findings, part));
}

static void a_broken_policy_is_reported_with_its_line(void **state)
{
  struct rig_host *host = *state;
  rig_write_file(host, "again.lua", "return policy {\n  name = 'again',\n  on_error = functoin() end,\n}\n");
  assert_int_equal(rig_start(host), PARRY_EPOLICY);
  assert_non_null(host->engine);
  assert_finding(host, "again.lua:3: ");
  assert_int_equal(action(host), PARRY_EPOLICY);
}

static void a_refused_reload_keeps_what_served(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_status first = status_of(host);
  assert_int_equal(strlen(first.generation), 64);
  rig_write_init(host, "use \"missing\"");
  assert_int_equal(parry_reload(host->engine, 1), PARRY_EPOLICY);
  assert_finding(host, "init.lua:3: ");
  assert_string_equal(status_of(host).generation, first.generation);
  assert_int_equal(action(host), PARRY_RETRY);
}

static void a_good_reload_is_taken_over(void **state)
{
  struct rig_host *host = rig_started(state);
  struct parry_status first = status_of(host);
  assert_int_equal(parry_reload(host->engine, 1), PARRY_OK); /* nothing changed */
  assert_string_equal(status_of(host).generation, first.generation);
  rig_write_init(host, "");
  assert_int_equal(parry_reload(host->engine, 1), PARRY_OK);
  assert_string_not_equal(status_of(host).generation, first.generation);
  assert_finding(host, "");
  assert_int_equal(action(host), PARRY_FAIL);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_version_is_the_headers),
      cmocka_unit_test(every_error_has_a_sentence),
      RIG_TEST_ALL(what_was_never_sent_may_be_repeated),
      RIG_TEST_ALL(a_decision_keeps_the_servers_time),
      RIG_TEST_ALL(a_refused_connection_is_a_networks_failure),
      RIG_TEST_ALL(a_path_without_a_route_is_told_by_the_end),
      RIG_TEST_ALL(a_broken_policy_is_reported_with_its_line),
      RIG_TEST_ALL(a_refused_reload_keeps_what_served),
      RIG_TEST_ALL(a_good_reload_is_taken_over),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
