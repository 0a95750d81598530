/* The call state machine where two rules meet: regression tests, each with its bug's story. */
#include "call_policies.h"

static struct pry_slice client_header(const struct client *client, const char *name)
{
  struct pry_slice value = {NULL, 0};
  pry_headers_get(&client->headers, pry_slice_of(name), &value);
  return value;
}

static void client_has_header(const struct client *client, const char *name, const char *expected)
{
  assert_true(pry_slice_equal(client_header(client, name), pry_slice_of(expected)));
}

/* ---- injected answers ------------------------------------------------------------------------------------- */

static enum pry_ask_status inject_a_broken_stream(struct rig *rig, struct pry_ask *ask)
{
  if (rig->counter++)
    return PRY_ASK_DONE;
  ask->verdict.kind = PRY_VERDICT_INJECT;
  ask->verdict.status = 200;
  rig_headers(&ask->verdict.headers, sse);
  pry_buffer_append_text(&ask->verdict.body, STREAM_ERROR);
  return PRY_ASK_DONE;
}

/* The stream's error ended the call, and freed it, inside the function that was still playing the injected answer. */
static void an_injected_stream_may_end_the_call(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("chaos", PRY_HANDLER_BIT(PRY_ON_ATTEMPT), inject_a_broken_stream);
  struct client *client = client_call(rig, BODY);
  assert_false(client->outcome.ok);
  assert_int_equal(client->outcome.attempts, 1);
  assert_int_equal(rig_upstream(rig), 0);
  rig_end(client, rig);
}

static enum pry_ask_status retry_at_once(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_RETRY;
  ask->verdict.after = 0;
  return PRY_ASK_DONE;
}

/* A retry without a wait began inside the injected answer, whose end was then taken for the new attempt's: the client
 * got no head and a good outcome. */
static void an_injected_answers_end_is_not_the_next_attempts(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig_use(rig, "chaos", PRY_HANDLER_BIT(PRY_ON_ATTEMPT), inject_a_broken_stream);
  rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_at_once);
  rig_commit(rig);
  rig_answers(rig, 200, json, "{\"ok\":1}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  client_has_body(client, "{\"ok\":1}");
  assert_int_equal(client->outcome.attempts, 2);
  rig_end(client, rig);
}

/* ---- the deadline ----------------------------------------------------------------------------------------- */

static const struct pry_http_step hang = {.hang = true};

/* The deadline ended the attempt and then asked the chain without a limit: a handler that waited kept the client
 * beyond it. */
static void no_handler_waits_past_the_deadline(void **unused)
{
  (void)unused;
  static const enum pry_handler handlers[] = {PRY_ON_REQUEST, PRY_ON_ATTEMPT, PRY_ON_OUTCOME, PRY_ON_ERROR};
  for (size_t i = 0; i < 4; i++) {
    struct rig *rig = rig_new();
    rig->deadline = 10 * PRY_SECOND;
    rig_use(rig, "slow", PRY_HANDLER_BIT(handlers[i]), wait_for_it);
    rig_commit(rig);
    pry_http_script_set_default(rig->script, &hang);
    struct client *client = client_call(rig, BODY);
    assert_int_equal(client->status, 504);
    assert_true(client_seconds(client) >= 10 && client_seconds(client) < 10.01);
    assert_null(rig->pending);
    rig_end(client, rig);
  }
}

/* A deadline that passed before anything was sent was told to handlers as a request that may have been carried out. */
static void a_deadline_before_the_sending_has_sent_nothing(void **unused)
{
  (void)unused;
  for (int sent = 0; sent < 2; sent++) {
    struct rig *rig = rig_new();
    rig->deadline = 10 * PRY_SECOND;
    rig_use(rig, "slow", PRY_HANDLER_BIT(PRY_ON_ATTEMPT), sent ? silent : wait_for_it);
    rig_use(rig, "looker", PRY_HANDLER_BIT(PRY_ON_ERROR), silent);
    rig_commit(rig);
    pry_http_script_set_default(rig->script, &hang);
    struct client *client = client_call(rig, BODY);
    assert_int_equal(rig->runs[PRY_ON_ERROR], 1);
    assert_string_equal(rig->last_failure.code, "deadline");
    assert_int_equal(rig->last_failure.sent, sent);
    rig_end(client, rig);
  }
}

static enum pry_ask_status look(struct rig *rig, struct pry_ask *ask)
{
  rig->counter += 100;
  rig->last_failure = ask->attempt->failure;
  return PRY_ASK_DONE;
}

static struct rig *rig_with_a_slow_and_a_quick_observer(void)
{
  struct rig *rig = rig_new();
  rig->deadline = 10 * PRY_SECOND;
  rig_use(rig, "slow", PRY_HANDLER_BIT(PRY_ON_OUTCOME), wait_for_it);
  rig_use(rig, "breaker", PRY_HANDLER_BIT(PRY_ON_OUTCOME), look);
  rig_commit(rig);
  return rig;
}

/* The deadline passed while the first observer waited: the pass was dropped, and a breaker behind it never heard of the
 * failure. */
static void the_deadline_hides_no_outcome_from_observers(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with_a_slow_and_a_quick_observer();
  rig_plays(rig, (struct pry_http_step){.status = 500, .chunk_delay = 9.5}, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(rig->counter, 101);
  assert_int_equal(rig->last_failure.status, 500);
  rig_end(client, rig);
}

/* The same when the client left meanwhile. */
static void leaving_hides_no_outcome_from_observers(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with_a_slow_and_a_quick_observer();
  rig_answers(rig, 500, json, "{}", NULL);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  pry_loop_advance(rig->loop, PRY_SECOND);
  assert_non_null(rig->pending);
  client_leave(client);
  client_finish(client);
  assert_int_equal(rig->counter, 101);
  assert_int_equal(rig->last_failure.status, 500);
  rig_end(client, rig);
}

/* ---- Retry-After ------------------------------------------------------------------------------------------ */

static enum pry_ask_status fail_without_a_time(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_FAIL;
  ask->verdict.category = PRY_INVALID_REQUEST;
  return PRY_ASK_DONE;
}

/* fail{} from on_request answered "Retry-After: 0": come back at once with a request that is wrong. */
static void a_failure_without_a_time_tells_none(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("guard", PRY_HANDLER_BIT(PRY_ON_REQUEST), fail_without_a_time);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 400);
  assert_null(client_header(client, "retry-after").data);
  rig_end(client, rig);
}

/* p refuses for 10 s, and 4 s later q for 40 s. */
static enum pry_ask_status refuse_everywhere(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  bool at_p = strcmp(ask->call->target.provider->name, "p") == 0;
  if (ask->handler == PRY_ON_ATTEMPT) {
    ask->verdict.kind = PRY_VERDICT_REFUSE;
    ask->verdict.after = at_p ? 10 : 40;
  } else if (at_p) {
    ask->verdict.kind = PRY_VERDICT_FALLBACK;
    ask->verdict.after = 4;
    snprintf(ask->verdict.target, sizeof ask->verdict.target, "q/m");
  }
  return PRY_ASK_DONE;
}

/* When every target refused, the client was told the last one's time, however long, not the soonest. */
static void the_soonest_recovery_is_told(void **unused)
{
  (void)unused;
  struct rig *rig =
      rig_with("breaker", PRY_HANDLER_BIT(PRY_ON_ATTEMPT) | PRY_HANDLER_BIT(PRY_ON_ERROR), refuse_everywhere);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 503);
  client_has_header(client, "retry-after", "6");
  rig_end(client, rig);
}

/* ---- the server's time ------------------------------------------------------------------------------------ */

static const char *const wait_30[] = {"Retry-After", "30", NULL};
static const char *const never_again[] = {"X-Should-Retry", "false", NULL};

/* p, then q, then p again. */
static enum pry_ask_status there_and_back(struct rig *rig, struct pry_ask *ask)
{
  if (rig->counter == 2)
    return PRY_ASK_DONE;
  ask->verdict.kind = PRY_VERDICT_FALLBACK;
  snprintf(ask->verdict.target, sizeof ask->verdict.target, "%s/m", rig->counter++ ? "p" : "q");
  return PRY_ASK_DONE;
}

/* Only the last failure's Retry-After counted: a call that went to another target and came back met the first one long
 * before its time. */
static void a_detour_does_not_shorten_the_servers_time(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(there_and_back);
  rig_answers(rig, 429, wait_30, "{}", NULL);
  rig_plays(rig, (struct pry_http_step){.status = 500, .chunk_delay = 5}, json, "{}", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_string_equal(pry_http_script_seen(rig->script, 2)->url, "http://p/v1/chat/completions");
  assert_true(client_seconds(client) >= 30 && client_seconds(client) < 30.1);
  rig_end(client, rig);
}

/* The same for "x-should-retry: false". */
static void a_detour_does_not_lift_x_should_retry(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(there_and_back);
  rig_answers(rig, 503, never_again, "{}", NULL);
  rig_answers(rig, 500, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 500);
  assert_int_equal(rig_upstream(rig), 2);
  rig_end(client, rig);
}

static enum pry_ask_status fall_back_to_the_same(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_FALLBACK;
  snprintf(ask->verdict.target, sizeof ask->verdict.target, "%s", ask->call->target.name);
  return PRY_ASK_DONE;
}

/* "x-should-retry: false" stopped retry{}, but not a fallback{} that names the target which said so. */
static void x_should_retry_forbids_a_fallback_to_the_same_target(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(fall_back_to_the_same);
  rig_answers(rig, 500, never_again, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 500);
  assert_int_equal(rig_upstream(rig), 1);
  rig_end(client, rig);
}

/* renew{} tried again as soon as it had a token, whatever the refusal's Retry-After said. */
static void a_renewal_does_not_shorten_the_servers_time(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig->with_credential = true;
  rig->refresh_delay = 2;
  rig_use(rig, "renew", PRY_HANDLER_BIT(PRY_ON_ERROR), renew);
  rig_commit(rig);
  rig_answers(rig, 401, wait_30, "{}", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_true(client_seconds(client) >= 30 && client_seconds(client) < 30.1);
  rig_end(client, rig);
}

/* ---- answers ---------------------------------------------------------------------------------------------- */

/* Only the first 64 KiB of a 200 body were searched for the error: a longer one passed as a success. */
static void an_error_late_in_a_200_body_is_found(void **unused)
{
  (void)unused;
  enum { PADDING = 70 * 1024 };
  struct pry_buffer body;
  pry_buffer_init(&body, 0);
  assert_true(pry_buffer_append_text(&body, "{\"padding\":\""));
  for (size_t i = 0; i < PADDING; i++)
    assert_true(pry_buffer_append(&body, "x", 1));
  assert_true(pry_buffer_append_text(&body, "\",\"error\":{\"message\":\"x\"}}"));
  struct rig *rig = rig_on_error(retry_twice);
  rig_answers(rig, 200, json, pry_buffer_text(&body), NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(rig_upstream(rig), 2);
  client_has_body(client, "{}");
  pry_buffer_fini(&body);
  rig_end(client, rig);
}

/* An event stream that has no events because its answer has no body (HEAD, 204) was a broken one: 502. */
static void an_event_stream_without_a_body_is_good(void **unused)
{
  (void)unused;
  static const struct {
    const char *method;
    int status;
  } cases[] = {{"HEAD", 200}, {"GET", 204}};
  struct pry_headers none;
  pry_headers_init(&none);
  for (size_t i = 0; i < 2; i++) {
    struct rig *rig = rig_on_error(silent);
    rig_answers(rig, cases[i].status, sse, NULL);
    struct client *client = client_start_method(rig, cases[i].method, "/v1/models", "", &none);
    client_finish(client);
    assert_int_equal(client->status, cases[i].status);
    assert_true(client->outcome.ok);
    rig_end(client, rig);
  }
  pry_headers_fini(&none);
}

/* The grace after a stream's end marker began anew with every byte: a provider that went on with comments kept the call
 * open for as long as it liked. */
static void what_trickles_after_the_end_does_not_keep_the_call(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 0.9, .hang = true}, sse, CONTENT DONE, ": x\n\n", ": x\n\n",
            ": x\n\n", ": x\n\n", NULL);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  pry_loop_advance(rig->loop, 2 * PRY_SECOND);
  assert_int_equal(client->dones, 1);
  assert_true(client->outcome.ok);
  rig_end(client, rig);
}

/* A head with so many fields that ours did not fit any more was passed on without them, or failed as memory that is
 * short; it is the provider's failure, and another attempt may be better. */
static void a_head_with_too_many_fields_recovers(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  struct pry_headers many;
  pry_headers_init(&many);
  while (many.count < PRY_HEADERS_MAX - 1)
    assert_true(pry_headers_add(&many, PRY_SLICE("X-Field"), PRY_SLICE("x")));
  assert_true(pry_http_script_push(rig->script, &(struct pry_http_step){.headers = &many}));
  pry_headers_fini(&many);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_string_equal(rig->last_failure.code, "head_too_large");
  assert_int_equal(rig->last_failure.category, PRY_SERVER);
  rig_end(client, rig);
}

/* ---- places ----------------------------------------------------------------------------------------------- */

/* The first observer waits. */
static enum pry_ask_status hold_and_observe(struct rig *rig, struct pry_ask *ask)
{
  return ask->handler == PRY_ON_OUTCOME ? wait_once(rig, ask) : hold_one(rig, ask);
}

/* A client that left kept its place in the queue until the last observer of its attempt had done its waiting. */
static void a_place_is_free_while_observers_wait(void **unused)
{
  (void)unused;
  static const enum pry_handler holders[] = {PRY_ON_REQUEST, PRY_ON_ATTEMPT};
  for (size_t i = 0; i < 2; i++) {
    unsigned handlers = PRY_HANDLER_BIT(holders[i]) | PRY_HANDLER_BIT(PRY_ON_OUTCOME);
    struct rig *rig = rig_with("hold", handlers, hold_and_observe);
    assert_true(pry_http_script_push(rig->script, &hang));
    rig_answers(rig, 200, json, "{}", NULL);
    struct client *first = client_start(rig, NULL, BODY, NULL);
    struct client *second = client_start(rig, NULL, BODY, NULL);
    pry_loop_advance(rig->loop, PRY_SECOND);
    assert_string_equal(pry_call_state_name(second->call), "hold");
    client_leave(first);
    client_finish(second);
    assert_true(client_seconds(second) < 1.1);
    assert_non_null(rig->pending);
    rig_pending_done(rig);
    client_finish(first);
    client_free(first);
    rig_end(second, rig);
  }
}

/* ---- starting --------------------------------------------------------------------------------------------- */

static bool can_start(struct rig *rig, const char *text)
{
  struct pry_headers none;
  struct pry_buffer body;
  pry_headers_init(&none);
  pry_buffer_init(&body, 0);
  assert_true(pry_buffer_append_text(&body, text));
  size_t size = body.size;
  struct pry_call_request request = {
      .method = PRY_SLICE("POST"), .path = PRY_SLICE("/v1/chat/completions"), .headers = &none, .body = &body};
  struct client nobody = {.rig = rig};
  struct pry_call *call = pry_call_start(rig->engine->control, &request, &client_ops, &nobody);
  assert_int_equal(body.size, call ? 0 : size);
  if (call)
    pry_call_destroy(call);
  pry_buffer_fini(&body);
  return call;
}

/* A body over the limit was taken all the same, and only its replay was given up. */
static void a_body_over_the_replay_limit_starts_no_call(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig->engine->options.replay_limit = strlen(BODY);
  assert_true(can_start(rig, BODY));
  assert_false(can_start(rig, BODY " "));
  assert_int_equal(rig->engine->replay_used, 0);
  rig_end(NULL, rig);
}

/* Bodies counted against the total only when they were to be replayed: all the others together were bounded by
 * nothing. */
static void kept_bodies_are_bounded_together(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig->engine->options.replay_total = 2 * strlen(BODY);
  pry_http_script_set_default(rig->script, &hang);
  struct client *one = client_start(rig, NULL, BODY, NULL);
  struct client *two = client_start(rig, NULL, BODY, NULL);
  assert_int_equal(rig->engine->replay_used, 2 * strlen(BODY));
  assert_false(can_start(rig, BODY));
  client_leave(one);
  client_finish(one);
  assert_true(can_start(rig, BODY));
  client_leave(two);
  client_finish(two);
  client_free(one);
  rig_end(two, rig);
}

static void try_another(struct client *client)
{
  assert_false(can_start(client->rig, BODY));
}

/* A host that answered the end of a call with a new one kept pry_engine_free() busy for ever. */
static void no_call_begins_while_the_engine_is_freed(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  client->at_done = try_another;
  rig_free_engine(rig);
  assert_int_equal(client->dones, 1);
  client_free(client);
  rig_free(rig);
}

/* Clients were told in curl's words, and so where the provider is. */
static void clients_hear_parrys_words_for_a_broken_connection(void **unused)
{
  (void)unused;
  static const struct {
    struct pry_http_step step;
    int status;
    const char *words;
  } rows[] = {
      {{.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true}, 502, "the provider could not be reached"},
      {{.curl_code = PRY_HTTP_COULDNT_RESOLVE, .unsent = true}, 502, "the provider could not be reached"},
      {{.curl_code = PRY_HTTP_TIMED_OUT, .unsent = true}, 504, "the provider could not be reached in time"},
      {{.curl_code = PRY_HTTP_TIMED_OUT}, 504, "the provider did not answer in time"},
      {{.curl_code = 60, .unsent = true}, 502, "no secure connection to the provider could be made"},
      {{.curl_code = PRY_HTTP_GOT_NOTHING}, 502, "before its answer was complete"},
      {{.curl_code = PRY_HTTP_RECEIVE_FAILED}, 502, "its answer could not be read"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct rig *rig = rig_on_error(silent);
    rig_plays(rig, rows[i].step, NULL, NULL);
    struct client *client = client_call(rig, BODY);
    const char *curls = pry_http_code_text(rows[i].step.curl_code);
    assert_int_equal(client->status, rows[i].status);
    assert_non_null(strstr(pry_buffer_text(&client->body), rows[i].words));
    assert_null(strstr(pry_buffer_text(&client->body), curls));
    assert_string_equal(rig->last_failure.message, curls); /* policies and logs keep them */
    rig_end(client, rig);
  }
}

/* Only the gateway looked, so a host's call could climb out of base_url, with the provider's key. */
static void no_path_climbs_out_of_base_url(void **unused)
{
  (void)unused;
  static const char *const climbing[] = {"/v1/..",         "/v1/../admin", "/v1/./x",      "/v1/%2e%2E/admin",
                                         "/v1/..%2fadmin", "/v1/a%5c..",   "/v1/..;a=b/x", "/v1/a/.%2e"};
  static const char *const harmless[] = {"/v1/...", "/v1/a..b", "/v1/.well-known", "/v1/x;..", "/v1/%2", "/v1/%zz"};
  for (size_t i = 0; i < sizeof climbing / sizeof *climbing; i++) {
    struct rig *rig = rig_on_error(silent);
    struct client *client = client_start(rig, climbing[i], BODY, NULL);
    client_finish(client);
    assert_int_equal(client->status, 400);
    assert_int_equal(rig_upstream(rig), 0);
    rig_end(client, rig);
  }
  for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
    struct rig *rig = rig_on_error(silent);
    rig_answers(rig, 200, json, "{}", NULL);
    struct client *client = client_start(rig, harmless[i], BODY, NULL);
    client_finish(client);
    assert_int_equal(client->status, 200);
    rig_end(client, rig);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_injected_stream_may_end_the_call),
      cmocka_unit_test(an_injected_answers_end_is_not_the_next_attempts),
      cmocka_unit_test(no_handler_waits_past_the_deadline),
      cmocka_unit_test(a_deadline_before_the_sending_has_sent_nothing),
      cmocka_unit_test(the_deadline_hides_no_outcome_from_observers),
      cmocka_unit_test(leaving_hides_no_outcome_from_observers),
      cmocka_unit_test(a_failure_without_a_time_tells_none),
      cmocka_unit_test(the_soonest_recovery_is_told),
      cmocka_unit_test(a_detour_does_not_shorten_the_servers_time),
      cmocka_unit_test(a_detour_does_not_lift_x_should_retry),
      cmocka_unit_test(x_should_retry_forbids_a_fallback_to_the_same_target),
      cmocka_unit_test(a_renewal_does_not_shorten_the_servers_time),
      cmocka_unit_test(an_error_late_in_a_200_body_is_found),
      cmocka_unit_test(an_event_stream_without_a_body_is_good),
      cmocka_unit_test(what_trickles_after_the_end_does_not_keep_the_call),
      cmocka_unit_test(a_head_with_too_many_fields_recovers),
      cmocka_unit_test(a_place_is_free_while_observers_wait),
      cmocka_unit_test(a_body_over_the_replay_limit_starts_no_call),
      cmocka_unit_test(kept_bodies_are_bounded_together),
      cmocka_unit_test(no_call_begins_while_the_engine_is_freed),
      cmocka_unit_test(clients_hear_parrys_words_for_a_broken_connection),
      cmocka_unit_test(no_path_climbs_out_of_base_url),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
