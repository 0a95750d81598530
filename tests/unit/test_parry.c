/* The public interface as a host meets it: parry.h over real policy files, a real loop and a port that nobody listens
 * on. Nothing here sleeps: the engine runs until what is waited for has happened. */
#include "parry.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define BODY "{\"model\":\"m\"}"

enum {
  BODY_MAX = 16 * 1024 * 1024, /* as parry.h says */
  CURL_RESOLVE = 6,
  CURL_CONNECT = 7,
  CURL_TIMEOUT = 28,
  CURL_RECEIVE = 56
};

/* Says in `why` what it was told. */
static const char again[] =
    "return policy { name = 'again',\n"
    "  on_error = function(self, call, err)\n"
    "    return retry { after = 0.25, why = err.category .. (err.sent and ', sent' or ', not sent') }\n"
    "  end }\n";

/* ---- a host ---------------------------------------------------------------------------------------------- */

struct host {
  char folder[64]; /* made by mkdtemp */
  int refuser;     /* bound, and never listening: connections to it are refused */
  unsigned port;
  parry *engine;
  unsigned dones;
  char category[32];
  int told; /* by what a callback tried */
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

static void write_init(const struct host *host, const char *chain)
{
  char text[512];
  snprintf(text, sizeof text,
           "provider \"p\" { base_url = \"http://127.0.0.1:%u/v1\", dialect = \"openai\" }\n"
           "route \"/v1/*\" { to = \"p\", chain = { %s } }\n",
           host->port, chain);
  write_file(host, "init.lua", text);
}

static void reserve_port(struct host *host)
{
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  host->refuser = socket(AF_INET, SOCK_STREAM, 0);
  assert_true(host->refuser >= 0);
  assert_int_equal(bind(host->refuser, (struct sockaddr *)&address, size), 0);
  assert_int_equal(getsockname(host->refuser, (struct sockaddr *)&address, &size), 0);
  host->port = ntohs(address.sin_port);
}

static int start(struct host *host)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  options.policy_dir = host->folder;
  return parry_new(&host->engine, &options);
}

/* The shipped library and dialects, and one policy of our own. */
static int set_up(void **state)
{
  static struct host host;
  char command[256];
  host = (struct host){.folder = "/tmp/test_parry.XXXXXX"};
  assert_non_null(mkdtemp(host.folder));
  snprintf(command, sizeof command, "cp -R '%s/lib' '%s/dialects' %s && rm %s/*/*_test.lua",
           PARRY_SOURCE_DIR "/policies", PARRY_SOURCE_DIR "/policies", host.folder, host.folder);
  assert_int_equal(system(command), 0);
  reserve_port(&host);
  write_file(&host, "again.lua", again);
  write_init(&host, "use \"again\"");
  *state = &host;
  return 0;
}

static int tear_down(void **state)
{
  struct host *host = *state;
  char command[96];
  parry_free(host->engine);
  close(host->refuser);
  snprintf(command, sizeof command, "rm -r %s", host->folder);
  return system(command);
}

static struct host *started(void **state)
{
  struct host *host = *state;
  int error = start(host);
  assert_string_equal(parry_report(host->engine), "");
  assert_int_equal(error, PARRY_OK);
  return host;
}

static void on_done(void *user, const struct parry_outcome *outcome)
{
  struct host *host = user;
  host->dones++;
  snprintf(host->category, sizeof host->category, "%s", outcome->category);
}

static const struct parry_request good_request = {
    .size = sizeof good_request, .path = "/v1/chat/completions", .body = BODY, .body_size = sizeof BODY - 1};

static int call(struct host *host, void (*done)(void *user, const struct parry_outcome *outcome), parry_call_id *id)
{
  struct parry_call_ops ops = {sizeof ops, NULL, NULL, done};
  return parry_call(host->engine, &good_request, &ops, host, id);
}

static void run_until_done(struct host *host)
{
  for (unsigned i = 0; i < 1000 && !host->dones; i++)
    assert_true(parry_run(host->engine, 10) >= 0);
  assert_int_equal(host->dones, 1);
}

static int decide(struct host *host, struct parry_decision *decision)
{
  struct parry_event failure = PARRY_EVENT_INIT;
  failure.status = 503;
  return parry_decide(host->engine, &failure, decision, NULL, NULL);
}

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

/* ---- misuse ---------------------------------------------------------------------------------------------- */

static void new_refuses_what_is_wrong(void **state)
{
  struct host *host = *state;
  struct parry_options options = PARRY_OPTIONS_INIT;
  assert_int_equal(parry_new(NULL, &options), PARRY_EINVAL);
  assert_int_equal(parry_new(&host->engine, NULL), PARRY_EINVAL);
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EINVAL); /* no policy_dir */
  options.policy_dir = host->folder;
  options.size = sizeof options - 1;
  assert_int_equal(parry_new(&host->engine, &options), PARRY_EINVAL);
  assert_null(host->engine);
}

static void no_engine_is_an_argument_that_is_wrong(void **state)
{
  (void)state;
  struct parry_call_ops ops = {sizeof ops, NULL, NULL, NULL};
  struct parry_event failure = PARRY_EVENT_INIT;
  struct parry_decision decision;
  parry_call_id id = {1};
  assert_int_equal(parry_run(NULL, 0), PARRY_EINVAL);
  assert_int_equal(parry_reload(NULL), PARRY_EINVAL);
  assert_int_equal(parry_call(NULL, &good_request, &ops, NULL, &id), PARRY_EINVAL);
  assert_true(id.value == 0);
  assert_int_equal(parry_call_resume(NULL, id), PARRY_EINVAL);
  assert_int_equal(parry_call_cancel(NULL, id), PARRY_EINVAL);
  assert_int_equal(parry_decide(NULL, &failure, &decision, NULL, NULL), PARRY_EINVAL);
  assert_string_equal(parry_report(NULL), "");
  assert_string_equal(parry_generation(NULL), "");
  parry_wakeup(NULL);
  parry_free(NULL);
}

static void call_refuses_what_is_wrong(void **state)
{
  struct host *host = started(state);
  struct parry_call_ops ops = {sizeof ops, NULL, NULL, on_done};
  struct parry_call_ops small_ops = {sizeof ops - 1, NULL, NULL, on_done};
  struct parry_header nameless = {NULL, "value"};
  struct parry_request cases[7];
  for (size_t i = 0; i < 7; i++)
    cases[i] = good_request;
  cases[0].size--;
  cases[1].path = NULL;
  cases[2].path = "v1/no/slash";
  cases[3].body = NULL;
  cases[4].header_count = 1;
  cases[5].headers = &nameless, cases[5].header_count = 1;
  cases[6].body_size = BODY_MAX + 1; /* refused before it is read */
  for (size_t i = 0; i < 7; i++)
    assert_int_equal(parry_call(host->engine, &cases[i], &ops, host, NULL), PARRY_EINVAL);
  assert_int_equal(parry_call(host->engine, NULL, &ops, host, NULL), PARRY_EINVAL);
  assert_int_equal(parry_call(host->engine, &good_request, NULL, host, NULL), PARRY_EINVAL);
  assert_int_equal(parry_call(host->engine, &good_request, &small_ops, host, NULL), PARRY_EINVAL);
  assert_int_equal(parry_run(host->engine, 0), 0);
  assert_int_equal(host->dones, 0);
}

static void decide_refuses_what_is_wrong(void **state)
{
  struct host *host = started(state);
  struct parry_decision decision;
  struct parry_event cases[4];
  for (size_t i = 0; i < 4; i++)
    cases[i] = (struct parry_event)PARRY_EVENT_INIT;
  cases[0].size--;
  cases[1].header_count = 1;
  cases[2].body_size = 1;
  cases[3].route = "/no/such/route";
  for (size_t i = 0; i < 4; i++)
    assert_int_equal(parry_decide(host->engine, &cases[i], &decision, NULL, NULL), PARRY_EINVAL);
  assert_int_equal(parry_decide(host->engine, NULL, &decision, NULL, NULL), PARRY_EINVAL);
  struct parry_event failure = PARRY_EVENT_INIT;
  assert_int_equal(parry_decide(host->engine, &failure, NULL, NULL, NULL), PARRY_EINVAL);
}

static void ids_of_the_past_name_no_call(void **state)
{
  struct host *host = started(state);
  parry_call_id id;
  assert_int_equal(call(host, on_done, &id), PARRY_OK);
  assert_int_equal(parry_call_resume(host->engine, id), PARRY_OK);
  assert_int_equal(parry_call_cancel(host->engine, id), PARRY_OK);
  assert_int_equal(host->dones, 0); /* it follows from parry_run() */
  run_until_done(host);
  assert_string_equal(host->category, "cancelled");
  assert_int_equal(parry_call_cancel(host->engine, id), PARRY_ENOENT);
  assert_int_equal(parry_call_resume(host->engine, id), PARRY_ENOENT);
  assert_int_equal(parry_call_cancel(host->engine, (parry_call_id){0}), PARRY_ENOENT);
}

/* ---- from inside callbacks ------------------------------------------------------------------------------- */

static void run_reload_and_free(void *user, const struct parry_outcome *outcome)
{
  struct host *host = user;
  on_done(user, outcome);
  parry_free(host->engine); /* ignored */
  if (parry_run(host->engine, 0) == PARRY_EREENTRANT && parry_reload(host->engine) == PARRY_EREENTRANT)
    host->told = PARRY_EREENTRANT;
}

static void a_callback_may_not_drive_the_engine(void **state)
{
  struct host *host = started(state);
  parry_call_id id;
  assert_int_equal(call(host, run_reload_and_free, &id), PARRY_OK);
  assert_int_equal(parry_call_cancel(host->engine, id), PARRY_OK);
  run_until_done(host);
  assert_int_equal(host->told, PARRY_EREENTRANT);
  assert_int_equal(parry_run(host->engine, 0), 0);
}

static void call_again(void *user, const struct parry_outcome *outcome)
{
  struct host *host = user;
  parry_call_id id;
  on_done(user, outcome);
  host->told = call(host, on_done, &id);
}

static void a_callback_may_start_a_call(void **state)
{
  struct host *host = started(state);
  parry_call_id id;
  assert_int_equal(call(host, call_again, &id), PARRY_OK);
  assert_int_equal(parry_call_cancel(host->engine, id), PARRY_OK);
  run_until_done(host);
  assert_int_equal(host->told, PARRY_OK);
  assert_int_equal(parry_run(host->engine, 0), 1);
}

/* A host that answered every end of a call with a new call kept parry_free() busy for ever. */
static void no_call_begins_inside_free(void **state)
{
  struct host *host = started(state);
  assert_int_equal(call(host, call_again, NULL), PARRY_OK);
  parry_free(host->engine);
  host->engine = NULL;
  assert_int_equal(host->dones, 1);
  assert_string_equal(host->category, "cancelled");
  assert_int_equal(host->told, PARRY_EREENTRANT);
}

static void decide_now(void *user, const struct parry_outcome *outcome)
{
  struct host *host = user;
  struct parry_decision decision;
  on_done(user, outcome);
  host->told = decide(host, &decision);
}

/* The same for decisions: one that was pending was not cancelled any more, and held a state of an engine that was
 * gone. */
static void nothing_is_decided_inside_free(void **state)
{
  struct host *host = started(state);
  assert_int_equal(call(host, decide_now, NULL), PARRY_OK);
  parry_free(host->engine);
  host->engine = NULL;
  assert_int_equal(host->dones, 1);
  assert_int_equal(host->told, PARRY_EREENTRANT);
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
  struct host *host = started(state);
  for (size_t i = 0; i < 4; i++) {
    struct parry_event failure = PARRY_EVENT_INIT;
    struct parry_decision decision;
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
  struct host *host = started(state);
  struct parry_event failure = PARRY_EVENT_INIT;
  struct parry_header seven = {"Retry-After", "7"};
  struct parry_decision decision;
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

static void a_refused_connection_is_a_networks_failure(void **state)
{
  struct host *host = *state;
  write_init(host, ""); /* nobody tries again */
  started(state);
  assert_int_equal(call(host, on_done, NULL), PARRY_OK);
  assert_int_equal(host->dones, 0);
  run_until_done(host);
  assert_string_equal(host->category, "network");
  assert_int_equal(parry_run(host->engine, 0), 0);
}

/* ---- policies -------------------------------------------------------------------------------------------- */

static void a_broken_policy_is_reported_with_its_line(void **state)
{
  struct host *host = *state;
  struct parry_decision decision;
  write_file(host, "again.lua", "return policy {\n  name = 'again',\n  on_error = functoin() end,\n}\n");
  assert_int_equal(start(host), PARRY_EPOLICY);
  assert_non_null(host->engine);
  assert_non_null(strstr(parry_report(host->engine), "again.lua:3: "));
  assert_string_equal(parry_generation(host->engine), "");
  assert_int_equal(decide(host, &decision), PARRY_EPOLICY);
}

static void a_refused_reload_keeps_what_served(void **state)
{
  struct host *host = started(state);
  struct parry_decision decision;
  char first[128];
  snprintf(first, sizeof first, "%s", parry_generation(host->engine));
  assert_true(strlen(first) > 0);
  write_init(host, "use \"missing\"");
  assert_int_equal(parry_reload(host->engine), PARRY_EPOLICY);
  assert_non_null(strstr(parry_report(host->engine), "init.lua:2: "));
  assert_string_equal(parry_generation(host->engine), first);
  assert_int_equal(decide(host, &decision), PARRY_OK);
  assert_int_equal(decision.action, PARRY_RETRY);
}

static void a_good_reload_is_taken_over(void **state)
{
  struct host *host = started(state);
  struct parry_decision decision;
  char first[128];
  snprintf(first, sizeof first, "%s", parry_generation(host->engine));
  assert_int_equal(parry_reload(host->engine), PARRY_OK); /* nothing changed */
  assert_string_equal(parry_generation(host->engine), first);
  write_init(host, "");
  assert_int_equal(parry_reload(host->engine), PARRY_OK);
  assert_string_not_equal(parry_generation(host->engine), first);
  assert_string_equal(parry_report(host->engine), "");
  assert_int_equal(decide(host, &decision), PARRY_OK);
  assert_int_equal(decision.action, PARRY_FAIL);
}

#define HOST_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_version_is_the_headers),
      cmocka_unit_test(every_error_has_a_sentence),
      HOST_TEST(new_refuses_what_is_wrong),
      cmocka_unit_test(no_engine_is_an_argument_that_is_wrong),
      HOST_TEST(call_refuses_what_is_wrong),
      HOST_TEST(decide_refuses_what_is_wrong),
      HOST_TEST(ids_of_the_past_name_no_call),
      HOST_TEST(a_callback_may_not_drive_the_engine),
      HOST_TEST(a_callback_may_start_a_call),
      HOST_TEST(no_call_begins_inside_free),
      HOST_TEST(nothing_is_decided_inside_free),
      HOST_TEST(what_was_never_sent_may_be_repeated),
      HOST_TEST(a_decision_keeps_the_servers_time),
      HOST_TEST(a_refused_connection_is_a_networks_failure),
      HOST_TEST(a_broken_policy_is_reported_with_its_line),
      HOST_TEST(a_refused_reload_keeps_what_served),
      HOST_TEST(a_good_reload_is_taken_over),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
