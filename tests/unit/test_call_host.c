/* Attempts that the host makes, in virtual time: what the call asks for, when it gives up on it, and what it makes of how
 * it ended. The same through parry.h, with threads: test_parry_attempt.c. */
#include "call_rig.h"

#define BODY "{\"model\":\"m\",\"n\":[1,2]}"

/* ---- a host ----------------------------------------------------------------------------------------------- */

static struct {
  unsigned asked, abandoned;
  unsigned number; /* of the last that was asked for */
  char target[PRY_TARGET_MAX], body[128];
  double left;
} host;

static bool starts_failing;

static bool host_attempt(void *user, const struct pry_host_attempt *attempt)
{
  (void)user;
  if (starts_failing)
    return false;
  host.asked++;
  host.number = attempt->number;
  host.left = pry_time_to_seconds(attempt->left);
  snprintf(host.target, sizeof host.target, "%s", attempt->target->name);
  snprintf(host.body, sizeof host.body, "%.*s", (int)attempt->body.size, attempt->body.data);
  return true;
}

static void host_abandon(void *user, unsigned number)
{
  (void)user;
  host.abandoned = number;
}

static const struct pry_host_ops host_ops = {host_attempt, host_abandon};

static struct client *start(struct rig *rig, const char *path, const char *target, const char *body)
{
  struct client *client = calloc(1, sizeof *client);
  struct pry_headers headers;
  struct pry_buffer copy;
  memset(&host, 0, sizeof host);
  client->rig = rig;
  client->started = pry_loop_now(rig->loop);
  pry_headers_init(&client->headers);
  pry_buffer_init(&client->body, 0);
  pry_headers_init(&headers);
  pry_buffer_init(&copy, 0);
  assert_true(pry_buffer_append_text(&copy, body));
  struct pry_call_request request = {.method = PRY_SLICE("POST"),
                                     .path = pry_slice_of(path),
                                     .headers = &headers,
                                     .body = &copy,
                                     .host = &host_ops,
                                     .target = pry_slice_of(target)};
  client->call = pry_call_start(rig->engine->control, &request, &client_ops, client);
  assert_non_null(client->call);
  pry_loop_advance(rig->loop, 0);
  return client;
}

static bool ended(struct client *client, struct pry_host_end end)
{
  bool took = client->call && pry_call_attempt_ended(client->call, host.number, &end);
  pry_loop_advance(client->rig->loop, 0);
  return took;
}

static const struct pry_failure *failure_of(const struct client *client)
{
  return &client->outcome.failure;
}

/* ---- policies --------------------------------------------------------------------------------------------- */

static enum pry_ask_status again(struct rig *rig, struct pry_ask *ask)
{
  rig->last_failure = *ask->failure;
  ask->verdict.kind = PRY_VERDICT_RETRY;
  ask->verdict.after = 2;
  return PRY_ASK_DONE;
}

static enum pry_ask_status elsewhere(struct rig *rig, struct pry_ask *ask)
{
  rig->last_failure = *ask->failure;
  ask->verdict.kind = PRY_VERDICT_FALLBACK;
  snprintf(ask->verdict.target, sizeof ask->verdict.target, "q/other");
  return PRY_ASK_DONE;
}

/* The first attempt fails on purpose, the second begins late. */
static enum pry_ask_status disturb(struct rig *rig, struct pry_ask *ask)
{
  if (ask->handler == PRY_ON_ERROR)
    return again(rig, ask);
  ask->verdict.kind = PRY_VERDICT_INJECT;
  if (rig->counter++ == 0)
    ask->verdict.status = 503;
  else
    ask->verdict.delay = 5;
  return PRY_ASK_DONE;
}

static enum pry_ask_status renew(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_RENEW;
  return PRY_ASK_DONE;
}

/* ---- tests ------------------------------------------------------------------------------------------------ */

static void the_answer_comes_back_as_it_was(void **state)
{
  (void)state;
  struct rig *rig = rig_new();
  rig_commit(rig);
  struct client *client = start(rig, "/v1/jobs/mail", "", BODY);
  assert_int_equal(host.asked, 1);
  assert_int_equal(host.number, 1);
  assert_string_equal(host.target, "p/m");
  assert_string_equal(host.body, BODY);
  assert_true(host.left > 119 && host.left <= 120); /* the route's deadline: nothing shorter was said */
  assert_string_equal(pry_call_state_name(client->call), "send");
  struct pry_headers headers;
  pry_headers_init(&headers);
  assert_true(pry_headers_add(&headers, PRY_SLICE("Set-Cookie"), PRY_SLICE("a=1")));
  assert_true(pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("text/event-stream")));
  /* What would be an error, a stream, a failure with a word of it from a provider, is an answer: the host says so. */
  assert_true(ended(
      client,
      (struct pry_host_end){
          .ok = true, .headers = &headers, .body = PRY_SLICE("{\"error\":{}}"), .category = PRY_SERVER, .code = "E"}));
  pry_headers_fini(&headers);
  assert_int_equal(client->dones, 1);
  assert_int_equal(client->status, 200);
  assert_true(client->outcome.ok);
  client_has_body(client, "{\"error\":{}}");
  struct pry_slice value;
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("set-cookie"), &value));
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("parry-call-id"), &value));
  assert_int_equal(rig_upstream(rig), 0);
  assert_int_equal(host.abandoned, 0);
  rig_end(client, rig);
}

static void a_body_need_not_be(void **state)
{
  (void)state;
  struct rig *rig = rig_new();
  rig_commit(rig);
  struct client *client = start(rig, "/v1/jobs/mail", "", "");
  assert_string_equal(host.target, "p");
  assert_string_equal(host.body, "");
  assert_true(ended(client, (struct pry_host_end){.ok = true, .status = 204}));
  assert_int_equal(client->status, 204);
  client_has_body(client, "");
  rig_end(client, rig);
}

static void the_request_may_name_its_target(void **state)
{
  (void)state;
  struct rig *rig = rig_new();
  rig_commit(rig);
  struct client *client = start(rig, "/v1/x", "q/big", BODY);
  assert_string_equal(host.target, "q/big");
  assert_string_equal(host.body, "{\"model\":\"big\",\"n\":[1,2]}");
  assert_true(ended(client, (struct pry_host_end){.ok = true}));
  client_free(client);
  client = start(rig, "/v1/x", "q", BODY);
  assert_string_equal(host.target, "q/m");
  assert_true(ended(client, (struct pry_host_end){.ok = true}));
  rig_end(client, rig);
}

static void an_unknown_target_is_named(void **state)
{
  (void)state;
  struct rig *rig = rig_new();
  rig_commit(rig);
  struct client *client = start(rig, "/v1/x", "nobody/m", BODY);
  assert_int_equal(host.asked, 0);
  assert_int_equal(client->dones, 1);
  assert_int_equal(client->outcome.category, PRY_INVALID_REQUEST);
  assert_string_equal(failure_of(client)->code, "invalid_target");
  assert_non_null(strstr(failure_of(client)->message, "\"nobody\""));
  client_free(client);
  client = start(rig, "/v1/x", "q/", BODY);
  assert_int_equal(client->outcome.category, PRY_INVALID_REQUEST);
  assert_non_null(strstr(failure_of(client)->message, "no model"));
  rig_end(client, rig);
}

static void a_failure_is_what_the_host_says(void **state)
{
  (void)state;
  struct rig *rig = rig_on_error(again);
  struct client *client = start(rig, "/v1/x", "", BODY);
  assert_true(ended(client, (struct pry_host_end){.category = PRY_OVERLOADED,
                                                  .code = "SQLITE_BUSY",
                                                  .message = "database is locked",
                                                  .retry_after = 7,
                                                  .not_sent = true}));
  assert_int_equal(rig->last_failure.category, PRY_OVERLOADED);
  assert_string_equal(rig->last_failure.code, "SQLITE_BUSY");
  assert_string_equal(rig->last_failure.message, "database is locked");
  assert_int_equal(rig->last_failure.source, PRY_SOURCE_PROVIDER);
  assert_false(rig->last_failure.sent);
  assert_int_equal(host.asked, 1);
  pry_loop_advance(rig->loop, 6 * PRY_SECOND);
  assert_int_equal(host.asked, 1); /* never before the time it asked for */
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(host.asked, 2);
  assert_int_equal(host.number, 2);
  struct pry_host_end good = {.ok = true};
  assert_false(pry_call_attempt_ended(client->call, 1, &good)); /* the first is over */
  assert_true(ended(client, good));
  assert_int_equal(client->outcome.attempts, 2);
  rig_end(client, rig);
}

static void a_failure_is_classified_by_the_rest(void **state)
{
  (void)state;
  static const struct {
    struct pry_host_end end;
    enum pry_category category;
    bool sent;
  } cases[] = {
      {{.status = 429}, PRY_RATE_LIMIT, true},
      {{.status = 429, .category = PRY_SERVER}, PRY_SERVER, true},
      {{.curl_code = PRY_HTTP_COULDNT_CONNECT}, PRY_NETWORK, false},
      {{.curl_code = PRY_HTTP_TIMED_OUT}, PRY_TIMEOUT, true},
      {{.status = 200, .body = PRY_SLICE_INIT("{\"error\":{}}")}, PRY_UNKNOWN, true},
      {{.code = "EIO"}, PRY_UNKNOWN, true},
      {{.status = 302}, PRY_UNKNOWN, true},
      {{.not_sent = true}, PRY_UNKNOWN, false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct rig *rig = rig_on_error(again);
    struct client *client = start(rig, "/v1/chat/completions", "", BODY);
    assert_true(ended(client, cases[i].end));
    assert_int_equal(rig->last_failure.category, cases[i].category);
    assert_int_equal(rig->last_failure.sent, cases[i].sent);
    assert_int_equal(rig->last_failure.status, cases[i].end.status);
    pry_loop_advance(rig->loop, 3 * PRY_SECOND);
    assert_true(ended(client, (struct pry_host_end){.ok = true}));
    rig_end(client, rig);
  }
}

static void the_host_gets_its_own_error_back(void **state)
{
  (void)state;
  struct rig *rig = rig_new();
  rig_commit(rig);
  struct client *client = start(rig, "/v1/x", "", BODY);
  assert_true(ended(client, (struct pry_host_end){.status = 418, .body = PRY_SLICE("short and stout")}));
  assert_int_equal(client->status, 418);
  client_has_body(client, "short and stout");
  assert_int_equal(client->outcome.category, PRY_INVALID_REQUEST);
  rig_end(client, rig);
}

/* Promise 7: what is not a prompt may have happened. */
static void only_what_may_be_repeated_is(void **state)
{
  (void)state;
  static const struct {
    struct pry_host_end end;
    enum pry_condition repeatable;
    bool again;
  } cases[] = {
      {{.category = PRY_SERVER}, PRY_ANY, false},
      {{.category = PRY_SERVER}, PRY_ONLY_TRUE, true},
      {{.category = PRY_SERVER, .not_sent = true}, PRY_ANY, true},
      {{.category = PRY_RATE_LIMIT}, PRY_ANY, true}, /* refusals */
      {{.category = PRY_OVERLOADED, .retry_after = 1}, PRY_ANY, true},
      {{.category = PRY_AUTH}, PRY_ANY, true},
      {{.category = PRY_OVERLOADED}, PRY_ANY, false},
      {{.category = PRY_RATE_LIMIT, .status = 500}, PRY_ANY, false}, /* a status says more */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct rig *rig = rig_new();
    rig->repeatable = cases[i].repeatable;
    rig_use(rig, "again", PRY_HANDLER_BIT(PRY_ON_ERROR), again);
    rig_commit(rig);
    struct client *client = start(rig, "/v1/jobs/mail", "", "");
    assert_true(ended(client, cases[i].end));
    pry_loop_advance(rig->loop, 3 * PRY_SECOND);
    assert_int_equal(host.asked, cases[i].again ? 2 : 1);
    if (cases[i].again)
      assert_true(ended(client, (struct pry_host_end){.ok = true}));
    assert_int_equal(client->dones, 1);
    rig_end(client, rig);
  }
}

static void it_goes_to_another_target(void **state)
{
  (void)state;
  struct rig *rig = rig_on_error(elsewhere);
  struct client *client = start(rig, "/v1/chat/completions", "", BODY);
  assert_true(ended(client, (struct pry_host_end){.category = PRY_SERVER}));
  assert_string_equal(host.target, "q/other");
  assert_string_equal(host.body, "{\"model\":\"other\",\"n\":[1,2]}");
  assert_true(ended(client, (struct pry_host_end){.ok = true, .body = PRY_SLICE("done")}));
  client_has_body(client, "done");
  rig_end(client, rig);
}

static double attempts_counted(const struct rig *rig, const char *target, const char *outcome)
{
  return pry_metrics_value(rig->engine->metrics, PRY_M_ATTEMPTS, target, outcome);
}

static void attempts_are_counted_and_kept(void **state)
{
  (void)state;
  struct rig *rig = rig_on_error(elsewhere);
  struct client *client = start(rig, "/v1/chat/completions", "", BODY);
  pry_loop_advance(rig->loop, 3 * PRY_SECOND);
  assert_true(ended(client, (struct pry_host_end){.category = PRY_SERVER, .code = "E"}));
  const struct pry_call_view *view = pry_call_get_view(client->call);
  assert_int_equal(view->ledger_count, 2);
  assert_string_equal(view->ledger[0].target, "p/m");
  assert_string_equal(view->ledger[0].failure.code, "E");
  assert_int_equal(view->ledger[0].status, 0);
  assert_true(view->ledger[0].ended - view->ledger[0].started == 3);
  assert_false(view->ledger[0].refused);
  assert_true(ended(client, (struct pry_host_end){.ok = true}));
  assert_true(attempts_counted(rig, "p/m", "server") == 1);
  assert_true(attempts_counted(rig, "q/other", "ok") == 1);
  rig_end(client, rig);
}

static void faults_can_be_injected(void **state)
{
  (void)state;
  struct rig *rig = rig_with("disturb", PRY_HANDLER_BIT(PRY_ON_ATTEMPT) | PRY_HANDLER_BIT(PRY_ON_ERROR), disturb);
  struct client *client = start(rig, "/v1/chat/completions", "", BODY);
  assert_int_equal(rig->last_failure.category, PRY_OVERLOADED);
  assert_int_equal(host.asked, 0); /* the host never heard of it */
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(host.asked, 0);
  pry_loop_advance(rig->loop, 6 * PRY_SECOND);
  assert_int_equal(host.asked, 1);
  assert_true(ended(client, (struct pry_host_end){.ok = true}));
  assert_int_equal(host.abandoned, 0);
  rig_end(client, rig);
}

static void credentials_are_the_hosts(void **state)
{
  (void)state;
  struct rig *rig = rig_on_error(renew);
  rig->with_credential = true;
  rig_commit(rig);
  struct client *client = start(rig, "/v1/chat/completions", "", BODY);
  assert_int_equal(rig->refreshes, 0);
  assert_int_equal(host.asked, 1); /* none was waited for */
  assert_true(ended(client, (struct pry_host_end){.category = PRY_AUTH}));
  assert_int_equal(rig->refreshes, 0);
  assert_int_equal(client->outcome.category, PRY_AUTH);
  rig_end(client, rig);
}

static void its_time_is_up(void **state)
{
  (void)state;
  struct rig *rig = rig_new();
  rig->timeouts = (struct pry_timeouts){
      .connect = PRY_SECOND, .first_byte = PRY_SECOND, .idle = PRY_SECOND, .attempt = 10 * PRY_SECOND};
  rig_use(rig, "again", PRY_HANDLER_BIT(PRY_ON_ERROR), again);
  rig_commit(rig);
  struct client *client = start(rig, "/v1/chat/completions", "", BODY);
  assert_true(host.left == 10);
  pry_loop_advance(rig->loop, 9 * PRY_SECOND);
  assert_int_equal(host.abandoned, 0);
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(host.abandoned, 1);
  assert_int_equal(rig->last_failure.category, PRY_TIMEOUT);
  assert_string_equal(rig->last_failure.code, "attempt_timeout");
  assert_false(ended(client, (struct pry_host_end){.ok = true})); /* too late */
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(host.number, 2);
  assert_true(ended(client, (struct pry_host_end){.ok = true}));
  assert_int_equal(host.abandoned, 1);
  rig_end(client, rig);
}

static void the_deadline_ends_it(void **state)
{
  (void)state;
  struct rig *rig = rig_new();
  rig->deadline = 5 * PRY_SECOND;
  rig_commit(rig);
  struct client *client = start(rig, "/v1/x", "", BODY);
  assert_true(host.left == 5);
  pry_loop_advance(rig->loop, 6 * PRY_SECOND);
  assert_int_equal(host.abandoned, 1);
  assert_int_equal(client->dones, 1);
  assert_int_equal(client->outcome.category, PRY_TIMEOUT);
  rig_end(client, rig);
}

static void who_leaves_abandons_it(void **state)
{
  (void)state;
  struct rig *rig = rig_new();
  rig_commit(rig);
  struct client *client = start(rig, "/v1/x", "", BODY);
  client_leave(client);
  assert_int_equal(host.abandoned, 1);
  client_finish(client);
  assert_int_equal(client->outcome.category, PRY_CANCELLED);
  assert_int_equal(client->heads, 0);
  rig_end(client, rig);
}

static void the_end_of_the_engine_abandons_it(void **state)
{
  (void)state;
  struct rig *rig = rig_new();
  rig_commit(rig);
  struct client *client = start(rig, "/v1/x", "", BODY);
  rig_free_engine(rig);
  assert_int_equal(host.abandoned, 1);
  assert_int_equal(client->dones, 1);
  client_free(client);
  rig_free(rig);
}

static void a_host_without_memory_costs_the_attempt(void **state)
{
  (void)state;
  struct rig *rig = rig_new();
  rig_commit(rig);
  starts_failing = true;
  struct client *client = start(rig, "/v1/x", "", BODY);
  starts_failing = false;
  assert_int_equal(client->dones, 1);
  assert_string_equal(failure_of(client)->code, "memory");
  assert_int_equal(client->outcome.attempts, 0);
  assert_int_equal(host.abandoned, 0);
  rig_end(client, rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_answer_comes_back_as_it_was),
      cmocka_unit_test(a_body_need_not_be),
      cmocka_unit_test(the_request_may_name_its_target),
      cmocka_unit_test(an_unknown_target_is_named),
      cmocka_unit_test(a_failure_is_what_the_host_says),
      cmocka_unit_test(a_failure_is_classified_by_the_rest),
      cmocka_unit_test(the_host_gets_its_own_error_back),
      cmocka_unit_test(only_what_may_be_repeated_is),
      cmocka_unit_test(it_goes_to_another_target),
      cmocka_unit_test(attempts_are_counted_and_kept),
      cmocka_unit_test(faults_can_be_injected),
      cmocka_unit_test(credentials_are_the_hosts),
      cmocka_unit_test(its_time_is_up),
      cmocka_unit_test(the_deadline_ends_it),
      cmocka_unit_test(who_leaves_abandons_it),
      cmocka_unit_test(the_end_of_the_engine_abandons_it),
      cmocka_unit_test(a_host_without_memory_costs_the_attempt),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
