/* The call state machine: what policies may decide, and what the core keeps whatever they say (DESIGN §5), in virtual
 * time. Streams and timeouts are in test_call_stream.c, leaving and reloading in test_call_leave.c. */
#include "call_policies.h"

/* ---- good answers ---------------------------------------------------------------------------------------- */

static void passes_bytes_unchanged(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  static const char *const headers[] = {"Content-Type", "application/json", "X-Request-Id", "abc", NULL};
  rig_answers(rig, 200, headers, "{\"id\": 12345678901234567890,", " \"x\":\"\xC3\xA4\"}", NULL);
  struct client *client = client_call(rig, BODY);
  client_has_body(client, "{\"id\": 12345678901234567890, \"x\":\"\xC3\xA4\"}");
  assert_int_equal(client->status, 200);
  assert_true(client->outcome.ok);
  struct pry_slice value;
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("x-request-id"), &value));
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("parry-attempts"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("1")));
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("parry-target"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("p/m")));
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("proxy-status"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("parry; next-hop=\"p/m\"; received-status=200")));
  const struct pry_http_seen *seen = pry_http_script_seen(rig->script, 0);
  assert_string_equal(seen->url, "http://p/v1/chat/completions");
  assert_true(pry_slice_equal(seen->body, PRY_SLICE(BODY)));
  rig_end(client, rig);
}

static void strips_credentials(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig_answers(rig, 200, json, "{}", NULL);
  static const char *const headers[] = {"Authorization", "Bearer mine", "X-Api-Key", "mine", "X-Mine", "kept",
                                        "Connection",    "x-hop",       "X-Hop",     "gone", NULL};
  struct client *client = client_start(rig, NULL, BODY, headers);
  client_finish(client);
  const struct pry_http_seen *seen = pry_http_script_seen(rig->script, 0);
  struct pry_slice value;
  assert_false(pry_headers_get(&seen->headers, PRY_SLICE("authorization"), &value));
  assert_false(pry_headers_get(&seen->headers, PRY_SLICE("x-api-key"), &value));
  assert_false(pry_headers_get(&seen->headers, PRY_SLICE("x-hop"), &value));
  assert_true(pry_headers_get(&seen->headers, PRY_SLICE("x-mine"), &value));
  rig_end(client, rig);
}

/* ---- retry ----------------------------------------------------------------------------------------------- */

static void retries_until_it_works(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  rig_answers(rig, 503, json, "{\"error\":{}}", NULL);
  rig_answers(rig, 500, json, "{\"error\":{}}", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_int_equal(client->outcome.attempts, 3);
  assert_int_equal(rig_upstream(rig), 3);
  assert_true(client_seconds(client) >= 1.0 && client_seconds(client) < 1.1);
  rig_end(client, rig);
}

static void the_providers_error_is_the_default(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  static const char *const headers[] = {"Content-Type", "application/json", "Retry-After", "7", NULL};
  rig_answers(rig, 429, headers, "{\"error\":{\"message\":\"slow down\"}}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 429);
  client_has_body(client, "{\"error\":{\"message\":\"slow down\"}}");
  struct pry_slice value;
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("retry-after"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("7")));
  assert_false(client->outcome.ok);
  assert_int_equal(client->outcome.category, PRY_RATE_LIMIT);
  rig_end(client, rig);
}

static void never_before_the_servers_time(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  static const char *const headers[] = {"Retry-After", "5", NULL};
  rig_answers(rig, 429, headers, NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_true(client_seconds(client) >= 5.0 && client_seconds(client) < 5.1);
  rig_end(client, rig);
}

static void a_wait_past_the_deadline_fails_now(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  static const char *const headers[] = {"Retry-After", "171", NULL};
  rig_answers(rig, 429, headers, "x", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 429);
  assert_int_equal(rig_upstream(rig), 1);
  assert_true(client_seconds(client) < 0.1);
  struct pry_slice value;
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("retry-after"), &value));
  rig_end(client, rig);
}

static void x_should_retry_forbids(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  rig_use(rig, "fallback", PRY_HANDLER_BIT(PRY_ON_ERROR), fall_back);
  rig_commit(rig);
  static const char *const headers[] = {"X-Should-Retry", "false", NULL};
  rig_answers(rig, 503, headers, "x", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_true(rig->last_failure.retry_forbidden);
  assert_string_equal(pry_http_script_seen(rig->script, 1)->url, "http://q/chat/completions");
  rig_end(client, rig);
}

static void attempts_per_call_are_capped(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_always);
  struct pry_http_step step = {.status = 500};
  pry_http_script_set_default(rig->script, &step);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 500);
  assert_int_equal(rig_upstream(rig), 12);
  rig_end(client, rig);
}

static void what_is_not_repeatable_is_not_repeated(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  rig_answers(rig, 500, json, "x", NULL);
  rig_answers(rig, 429, json, "x", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_start(rig, "/v1/files", BODY, NULL);
  client_finish(client);
  assert_int_equal(client->status, 500); /* it may have been carried out */
  assert_int_equal(rig_upstream(rig), 1);
  client_free(client);
  client = client_start(rig, "/v1/files", BODY, NULL);
  client_finish(client);
  assert_int_equal(client->status, 200); /* a 429 says that it was not */
  rig_end(client, rig);
}

static void nothing_sent_may_be_repeated(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  struct pry_http_step refused = {.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true};
  assert_true(pry_http_script_push(rig->script, &refused));
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_start(rig, "/v1/files", BODY, NULL);
  client_finish(client);
  assert_int_equal(client->status, 200);
  rig_end(client, rig);
}

/* 40 calls fail at once: 20 % of 40 active calls may be at their second attempt at the same time. */
static void the_retry_budget_holds(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  struct pry_http_step step = {.status = 503, .delay = 1};
  pry_http_script_set_default(rig->script, &step);
  struct client *clients[40];
  for (size_t i = 0; i < 40; i++)
    clients[i] = client_start(rig, NULL, BODY, NULL);
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(rig_upstream(rig), 40 + 8);
  for (size_t i = 0; i < 40; i++) {
    client_finish(clients[i]);
    client_free(clients[i]);
  }
  rig_end(NULL, rig);
}

/* ---- fallback -------------------------------------------------------------------------------------------- */

static void fallback_splices_the_model_only(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(fall_back);
  rig_answers(rig, 529, json, "x", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  const struct pry_http_seen *seen = pry_http_script_seen(rig->script, 1);
  assert_string_equal(seen->url, "http://q/chat/completions");
  assert_true(pry_slice_equal(seen->body, PRY_SLICE("{\"model\":\"m2\",\"n\":9007199254740993,\"messages\":[]}")));
  struct pry_slice value;
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("parry-target"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("q/m2")));
  rig_end(client, rig);
}

static enum pry_ask_status fall_back_on_and_on(struct rig *rig, struct pry_ask *ask)
{
  ask->verdict.kind = PRY_VERDICT_FALLBACK;
  snprintf(ask->verdict.target, sizeof ask->verdict.target, "q/m%d", rig->counter++);
  return PRY_ASK_DONE;
}

static void targets_are_capped(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(fall_back_on_and_on);
  struct pry_http_step step = {.status = 500};
  pry_http_script_set_default(rig->script, &step);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 500);
  assert_int_equal(rig_upstream(rig), 3);
  rig_end(client, rig);
}

static enum pry_ask_status fall_back_to_alien(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_FALLBACK;
  snprintf(ask->verdict.target, sizeof ask->verdict.target, "alien/m");
  return PRY_ASK_DONE;
}

static void another_dialect_is_no_target(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(fall_back_to_alien);
  rig_answers(rig, 500, json, "own", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 500);
  assert_int_equal(rig_upstream(rig), 1);
  client_has_body(client, "own");
  rig_end(client, rig);
}

/* ---- chain ----------------------------------------------------------------------------------------------- */

static enum pry_ask_status broken(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  snprintf(ask->fault, sizeof ask->fault, "test.lua:1: broken");
  return PRY_ASK_FAULT;
}

static void a_broken_policy_costs_its_own_verdict_only(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig_use(rig, "broken", ~0u, broken);
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig_commit(rig);
  rig_answers(rig, 503, json, "x", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  rig_end(client, rig);
}

static void every_policy_sees_every_outcome(void **unused)
{
  (void)unused;
  unsigned observers = PRY_HANDLER_BIT(PRY_ON_OUTCOME) | PRY_HANDLER_BIT(PRY_ON_DONE);
  struct rig *rig = rig_new();
  rig_use(rig, "one", observers, silent);
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig_use(rig, "two", observers, silent);
  rig_commit(rig);
  rig_answers(rig, 503, json, "x", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_int_equal(rig->runs[PRY_ON_OUTCOME], 4);
  assert_int_equal(rig->runs[PRY_ON_DONE], 2);
  assert_int_equal(rig->runs[PRY_ON_ERROR], 1);
  rig_end(client, rig);
}

static void when_skips_in_c(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig->policies[0].when = (struct pry_when){.retryable = PRY_ONLY_TRUE};
  rig_commit(rig);
  rig_answers(rig, 400, json, "bad", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 400);
  assert_int_equal(rig->runs[PRY_ON_ERROR], 0);
  rig_end(client, rig);
}

static void on_request_may_respond(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("r", PRY_HANDLER_BIT(PRY_ON_REQUEST), respond);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 203);
  client_has_body(client, "{\"from\":\"policy\"}");
  assert_int_equal(rig_upstream(rig), 0);
  assert_true(client->outcome.ok);
  rig_end(client, rig);
}

static void on_error_may_respond(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(respond);
  rig_answers(rig, 500, json, "x", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 203);
  assert_int_equal(rig_upstream(rig), 1);
  rig_end(client, rig);
}

/* First in the chain, but asked last: what is to happen when nobody took the call. */
static void on_error_may_be_asked_last(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig_use(rig, "last", PRY_HANDLER_BIT(PRY_ON_ERROR), respond);
  rig->policies[0].when.last = true;
  rig_use(rig, "first", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig_commit(rig);
  rig_answers(rig, 500, json, "x", NULL);
  rig_answers(rig, 500, json, "x", NULL);
  rig_answers(rig, 500, json, "x", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(rig_upstream(rig), 3);
  assert_int_equal(client->status, 203);
  rig_end(client, rig);
}

static enum pry_ask_status fail_it(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_FAIL;
  ask->verdict.category = PRY_RATE_LIMIT;
  ask->verdict.after = 2.5;
  snprintf(ask->verdict.message, sizeof ask->verdict.message, "not now");
  return PRY_ASK_DONE;
}

static void on_request_may_fail(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("f", PRY_HANDLER_BIT(PRY_ON_REQUEST), fail_it);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 429);
  struct pry_slice value;
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("retry-after"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("3")));
  client_has_body(client, "{\"error\":{\"type\":\"rate_limit\",\"code\":\"rate_limit\",\"message\":\"not now\"}}");
  assert_int_equal(rig_upstream(rig), 0);
  rig_end(client, rig);
}

static enum pry_ask_status route_to_q(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_ROUTE;
  snprintf(ask->verdict.target, sizeof ask->verdict.target, "q/other");
  pry_headers_add(&ask->verdict.headers, PRY_SLICE("X-Added"), PRY_SLICE("yes"));
  return PRY_ASK_DONE;
}

static void on_request_may_route(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("r", PRY_HANDLER_BIT(PRY_ON_REQUEST), route_to_q);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  const struct pry_http_seen *seen = pry_http_script_seen(rig->script, 0);
  assert_string_equal(seen->url, "http://q/chat/completions");
  struct pry_slice value;
  assert_true(pry_headers_get(&seen->headers, PRY_SLICE("x-added"), &value));
  rig_end(client, rig);
}

static enum pry_ask_status refuse_p(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  if (strcmp(ask->call->target.provider->name, "p") == 0) {
    ask->verdict.kind = PRY_VERDICT_REFUSE;
    ask->verdict.category = PRY_OVERLOADED;
    ask->verdict.after = 8;
  }
  return PRY_ASK_DONE;
}

static void a_refused_attempt_sends_nothing(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig_use(rig, "breaker", PRY_HANDLER_BIT(PRY_ON_ATTEMPT) | PRY_HANDLER_BIT(PRY_ON_OUTCOME), refuse_p);
  rig_commit(rig);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 503);
  assert_int_equal(rig_upstream(rig), 0);
  assert_int_equal(rig->runs[PRY_ON_OUTCOME], 0);
  assert_int_equal(client->outcome.attempts, 0);
  struct pry_slice value;
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("retry-after"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("8")));
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("proxy-status"), &value));
  assert_non_null(memmem(value.data, value.size, "error=destination_unavailable", 29));
  client_free(client);
  rig_use(rig, "fallback", PRY_HANDLER_BIT(PRY_ON_ERROR), fall_back);
  rig_commit(rig);
  rig_answers(rig, 200, json, "{}", NULL);
  client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_int_equal(rig->last_failure.source, PRY_SOURCE_PARRY);
  rig_end(client, rig);
}

static enum pry_ask_status inject_503(struct rig *rig, struct pry_ask *ask)
{
  if (rig->counter++ == 0) {
    ask->verdict.kind = PRY_VERDICT_INJECT;
    ask->verdict.status = 503;
    ask->verdict.delay = 0.25;
  }
  return PRY_ASK_DONE;
}

static void on_attempt_may_inject(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig_use(rig, "chaos", PRY_HANDLER_BIT(PRY_ON_ATTEMPT), inject_503);
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig_commit(rig);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_int_equal(rig_upstream(rig), 1);
  assert_int_equal(client->outcome.attempts, 2);
  assert_true(client_seconds(client) >= 0.75);
  rig_end(client, rig);
}

/* ---- hold ------------------------------------------------------------------------------------------------ */

static void hold_lets_one_through_at_a_time(void **unused)
{
  (void)unused;
  for (int request = 0; request < 2; request++) {
    struct rig *rig = rig_with("hold", PRY_HANDLER_BIT(request ? PRY_ON_REQUEST : PRY_ON_ATTEMPT), hold_one);
    struct pry_http_step step = {.delay = 2};
    pry_http_script_set_default(rig->script, &step);
    struct client *clients[4];
    for (size_t i = 0; i < 4; i++)
      clients[i] = client_start(rig, NULL, BODY, NULL);
    for (size_t i = 0; i < 4; i++) {
      client_finish(clients[i]);
      assert_int_equal(clients[i]->status, 200);
      double seconds = client_seconds(clients[i]);
      assert_true(seconds >= 2.0 * (double)(i + 1) - 0.001 && seconds < 2.0 * (double)(i + 1) + 0.1);
      client_free(clients[i]);
    }
    rig_end(NULL, rig);
  }
}

static void a_hold_that_cannot_end_in_time_refuses(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("hold", PRY_HANDLER_BIT(PRY_ON_ATTEMPT), hold_one);
  struct pry_slice text = PRY_SLICE("{}");
  struct pry_http_step step = {.chunks = &text, .chunk_count = 1, .chunk_delay = 20};
  pry_http_script_set_default(rig->script, &step);
  struct client *first = client_start(rig, NULL, BODY, NULL);
  struct client *second = client_start(rig, NULL, BODY, NULL);
  client_finish(second);
  assert_int_equal(second->status, 429);
  assert_true(client_seconds(second) >= 10 && client_seconds(second) < 10.1);
  client_free(second);
  client_finish(first);
  assert_int_equal(first->status, 200);
  rig_end(first, rig);
}

static void hold_waits_for_a_time(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("hold", PRY_HANDLER_BIT(PRY_ON_REQUEST), hold_until);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_true(client_seconds(client) >= 3.0 && client_seconds(client) < 3.1);
  rig_end(client, rig);
}

/* ---- credentials ----------------------------------------------------------------------------------------- */

static void a_hundred_calls_renew_once(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig->with_credential = true;
  rig->refresh_delay = 0.3;
  rig_use(rig, "renew", PRY_HANDLER_BIT(PRY_ON_ERROR), renew);
  rig_commit(rig);
  for (size_t i = 0; i < 100; i++)
    rig_answers(rig, 401, json, "expired", NULL);
  for (size_t i = 0; i < 100; i++)
    rig_answers(rig, 200, json, "{}", NULL);
  struct client *clients[100];
  for (size_t i = 0; i < 100; i++)
    clients[i] = client_start(rig, NULL, BODY, NULL);
  for (size_t i = 0; i < 100; i++) {
    client_finish(clients[i]);
    assert_int_equal(clients[i]->status, 200);
    client_free(clients[i]);
  }
  assert_int_equal(rig->refreshes, 1);
  struct pry_slice value;
  assert_true(pry_headers_get(&pry_http_script_seen(rig->script, 150)->headers, PRY_SLICE("authorization"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("Bearer token-1")));
  rig_end(NULL, rig);
}

static void a_late_401_for_the_old_token_renews_nothing(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig->with_credential = true;
  rig_use(rig, "renew", PRY_HANDLER_BIT(PRY_ON_ERROR), renew);
  rig_commit(rig);
  struct pry_http_step late = {.status = 401, .delay = 5};
  assert_true(pry_http_script_push(rig->script, &late));
  rig_answers(rig, 401, json, "expired", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *slow = client_start(rig, NULL, BODY, NULL);
  struct client *quick = client_start(rig, NULL, BODY, NULL);
  client_finish(quick);
  client_finish(slow);
  assert_int_equal(quick->status, 200);
  assert_int_equal(slow->status, 200);
  assert_int_equal(rig->refreshes, 1);
  client_free(quick);
  rig_end(slow, rig);
}

static void a_failed_renewal_leaves_the_providers_error(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig->with_credential = true;
  rig->refresh_fails = true;
  rig_use(rig, "renew", PRY_HANDLER_BIT(PRY_ON_ERROR), renew);
  rig_commit(rig);
  rig_answers(rig, 401, json, "expired", NULL);
  rig_answers(rig, 401, json, "expired", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 401);
  client_free(client);
  client = client_call(rig, BODY); /* in the cooldown nothing is tried */
  assert_int_equal(client->status, 401);
  assert_int_equal(rig->refreshes, 1);
  rig_end(client, rig);
}

/* ---- requests that cannot be served ---------------------------------------------------------------------- */

static void bad_requests_are_told(void **unused)
{
  (void)unused;
  static const struct {
    const char *path, *body;
    int status;
    const char *code;
  } cases[] = {
      {"/nowhere", BODY, 404, "no_route"},
      {NULL, "{\"model\":\"a\",\"model\":\"b\"}", 400, "invalid_body"},
      {NULL, "{\"model\":\"a\",\"\\u006dodel\":\"b\"}", 400, "invalid_body"},
      {NULL, "{\"model\":1}", 400, "invalid_body"},
      {NULL, "{\"model\":\"a\"", 400, "invalid_body"},
      {NULL, "[]", 400, "invalid_body"},
  };
  struct rig *rig = rig_on_error(retry_twice);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct client *client = client_start(rig, cases[i].path, cases[i].body, NULL);
    client_finish(client);
    assert_int_equal(client->status, cases[i].status);
    assert_string_equal(client->outcome.failure.code, cases[i].code);
    client_free(client);
  }
  assert_int_equal(rig_upstream(rig), 0);
  rig_end(NULL, rig);
}

/* `curl -d` sends JSON as a form; a real form is not refused for not being JSON. */
static void json_without_its_content_type_is_understood(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  static const char *const form[] = {"Content-Type", "application/x-www-form-urlencoded", NULL};
  static const char *const bodies[] = {BODY, "{a=b&c=d", "a=b"};
  static const char *const targets[] = {"p/m", "p", "p"};
  for (size_t i = 0; i < 3; i++) {
    rig_answers(rig, 200, json, "{}", NULL);
    struct client *client = client_start_as(rig, bodies[i], form);
    client_finish(client);
    struct pry_slice target;
    assert_int_equal(client->status, 200);
    assert_true(pry_headers_get(&client->headers, PRY_SLICE("parry-target"), &target));
    assert_true(pry_slice_equal(target, pry_slice_of(targets[i])));
    client_free(client);
  }
  rig_end(NULL, rig);
}

static void no_policies_is_503(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 503);
  rig_end(client, rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(passes_bytes_unchanged),
      cmocka_unit_test(strips_credentials),
      cmocka_unit_test(retries_until_it_works),
      cmocka_unit_test(the_providers_error_is_the_default),
      cmocka_unit_test(never_before_the_servers_time),
      cmocka_unit_test(a_wait_past_the_deadline_fails_now),
      cmocka_unit_test(x_should_retry_forbids),
      cmocka_unit_test(attempts_per_call_are_capped),
      cmocka_unit_test(what_is_not_repeatable_is_not_repeated),
      cmocka_unit_test(nothing_sent_may_be_repeated),
      cmocka_unit_test(the_retry_budget_holds),
      cmocka_unit_test(fallback_splices_the_model_only),
      cmocka_unit_test(targets_are_capped),
      cmocka_unit_test(another_dialect_is_no_target),
      cmocka_unit_test(a_broken_policy_costs_its_own_verdict_only),
      cmocka_unit_test(every_policy_sees_every_outcome),
      cmocka_unit_test(when_skips_in_c),
      cmocka_unit_test(on_request_may_respond),
      cmocka_unit_test(on_error_may_respond),
      cmocka_unit_test(on_error_may_be_asked_last),
      cmocka_unit_test(on_request_may_fail),
      cmocka_unit_test(on_request_may_route),
      cmocka_unit_test(a_refused_attempt_sends_nothing),
      cmocka_unit_test(on_attempt_may_inject),
      cmocka_unit_test(hold_lets_one_through_at_a_time),
      cmocka_unit_test(a_hold_that_cannot_end_in_time_refuses),
      cmocka_unit_test(hold_waits_for_a_time),
      cmocka_unit_test(a_hundred_calls_renew_once),
      cmocka_unit_test(a_late_401_for_the_old_token_renews_nothing),
      cmocka_unit_test(a_failed_renewal_leaves_the_providers_error),
      cmocka_unit_test(bad_requests_are_told),
      cmocka_unit_test(json_without_its_content_type_is_understood),
      cmocka_unit_test(no_policies_is_503),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
