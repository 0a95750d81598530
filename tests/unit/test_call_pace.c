/* Streams that come too slowly, and the head that goes out before there is an answer; in virtual time. */
#include "call_internal.h"
#include "call_policies.h"

#define PING ": ping\n\n"
#define WAITING ": waiting for the provider\n\n"

static struct pry_failure outcome_seen;
static unsigned outcomes_seen;

static enum pry_ask_status watch(struct rig *rig, struct pry_ask *ask)
{
  if (ask->handler != PRY_ON_OUTCOME)
    return retry_twice(rig, ask);
  outcomes_seen++;
  outcome_seen = ask->attempt->category ? ask->attempt->failure : (struct pry_failure){0};
  return PRY_ASK_DONE;
}

/* One event a second over ten seconds. */
static struct rig *slow_rig(bool cut)
{
  struct rig *rig = rig_new();
  rig->slow_events = 1;
  rig->slow_window = 10 * PRY_SECOND;
  rig->slow_cut = cut;
  outcomes_seen = 0;
  rig_use(rig, "watch", PRY_HANDLER_BIT(PRY_ON_ERROR) | PRY_HANDLER_BIT(PRY_ON_OUTCOME), watch);
  rig_commit(rig);
  return rig;
}

static void before_content_another_attempt_is_made(void **unused)
{
  (void)unused;
  struct rig *rig = slow_rig(false);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 2}, sse, ROLE, PING, PING, PING, PING, PING, PING, NULL);
  rig_answers(rig, 200, sse, ROLE, CONTENT, DONE, NULL);
  struct client *client = client_call(rig, BODY);
  client_has_body(client, ROLE CONTENT DONE);
  assert_string_equal(rig->last_failure.code, "stream_too_slow");
  assert_int_equal(rig->last_failure.category, PRY_TIMEOUT);
  assert_true(rig->last_failure.retryable && rig->last_failure.sent);
  assert_true(client_seconds(client) >= 10.5 && client_seconds(client) < 10.6);
  assert_int_equal(outcomes_seen, 2);
  rig_end(client, rig);
}

/* Heartbeats are no events. */
static void after_content_it_goes_on_and_policies_hear_of_it(void **unused)
{
  (void)unused;
  struct rig *rig = slow_rig(false);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 2}, sse, CONTENT, PING CONTENT, PING PING, CONTENT PING, PING,
            PING, CONTENT, DONE, NULL);
  struct client *client = client_call(rig, BODY);
  client_has_body(client, CONTENT PING CONTENT PING PING CONTENT PING PING PING CONTENT DONE);
  assert_true(client->outcome.ok);
  assert_false(client->truncated);
  assert_int_equal(outcomes_seen, 1);
  assert_string_equal(outcome_seen.code, "stream_too_slow");
  assert_int_equal(outcome_seen.category, PRY_TIMEOUT);
  rig_end(client, rig);
}

static void after_content_it_is_cut_where_the_route_says_so(void **unused)
{
  (void)unused;
  struct rig *rig = slow_rig(true);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 2}, sse, CONTENT, PING CONTENT, PING PING, CONTENT PING, PING,
            PING, CONTENT, DONE, NULL);
  struct client *client = client_call(rig, BODY);
  assert_false(client->outcome.ok);
  assert_false(client->truncated);
  assert_non_null(strstr(pry_buffer_text(&client->body), "\"code\":\"stream_too_slow\""));
  assert_null(strstr(pry_buffer_text(&client->body), "[DONE]"));
  assert_string_equal(outcome_seen.code, "stream_too_slow");
  assert_int_equal(rig_upstream(rig), 1);
  rig_end(client, rig);
}

static void a_stream_that_is_fast_enough_is_not_slow(void **unused)
{
  (void)unused;
  struct rig *rig = slow_rig(true);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 4}, sse, CONTENT CONTENT CONTENT CONTENT CONTENT,
            CONTENT CONTENT CONTENT CONTENT CONTENT, CONTENT CONTENT CONTENT CONTENT CONTENT,
            CONTENT CONTENT CONTENT CONTENT CONTENT, CONTENT CONTENT CONTENT CONTENT CONTENT,
            CONTENT CONTENT CONTENT CONTENT CONTENT DONE, NULL);
  struct client *client = client_call(rig, BODY);
  assert_true(client->outcome.ok);
  assert_int_equal(outcome_seen.category, PRY_NONE);
  rig_end(client, rig);
}

/* While the client does not read, the provider cannot be fast. */
static void a_slow_client_does_not_make_a_stream_slow(void **unused)
{
  (void)unused;
  struct rig *rig = slow_rig(true);
  rig->timeouts.idle = 3600 * PRY_SECOND;
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 4}, sse, CONTENT, CONTENT, CONTENT, CONTENT, NULL);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  client->pause = true;
  pry_loop_advance(rig->loop, 600 * PRY_SECOND);
  client_has_body(client, CONTENT);
  assert_int_equal(client->dones, 0);
  client->pause = false;
  pry_call_resume(client->call); /* six of the ten seconds are left */
  pry_time resumed = pry_loop_now(rig->loop);
  client_finish(client);
  assert_string_equal(client->outcome.failure.code, "stream_too_slow");
  assert_int_equal((pry_loop_now(rig->loop) - resumed) / PRY_SECOND, 6);
  rig_end(client, rig);
}

/* Once a client that had been slow started the clock of a guard that the route had not asked for: a window of no length,
 * over and over. */
static void without_a_guard_no_clock_runs(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 4}, sse, CONTENT, CONTENT, CONTENT, DONE, NULL);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  client->pause = true;
  pry_loop_advance(rig->loop, 10 * PRY_SECOND);
  client->pause = false;
  pry_call_resume(client->call);
  assert_false(pry_timer_running(&client->call->pace_timer));
  client_finish(client);
  assert_true(client->outcome.ok);
  rig_end(client, rig);
}

/* ---- early_head -------------------------------------------------------------------------------------------- */

static struct rig *early_rig(rig_policy_fn run)
{
  struct rig *rig = rig_new();
  rig->early_head = 5 * PRY_SECOND;
  rig->deadline = 100 * PRY_SECOND;
  rig_use(rig, "policy", PRY_HANDLER_BIT(PRY_ON_ERROR), run);
  rig_commit(rig);
  return rig;
}

static struct client *early_call(struct rig *rig)
{
  struct client *client = client_start(rig, NULL, STREAM_BODY, NULL);
  client_finish(client);
  assert_int_equal(client->heads, 1);
  assert_int_equal(client->status, 200);
  assert_true(client_seconds(client) >= 5 && client_seconds(client) < 5.1);
  struct pry_slice value;
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("content-type"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("text/event-stream")));
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("parry-call-id"), &value));
  assert_false(pry_headers_get(&client->headers, PRY_SLICE("parry-attempts"), &value));
  return client;
}

/* Two attempts fail behind the head, one of them in silence; the third's answer is a stream like any other. */
static void attempts_recover_behind_the_head(void **unused)
{
  (void)unused;
  struct rig *rig = early_rig(retry_twice);
  rig_answers(rig, 503, json, "{}", NULL);
  rig_plays(rig, (struct pry_http_step){.hang = true}, json, NULL);
  rig_answers(rig, 200, sse, "\xEF\xBB\xBF" ROLE, CONTENT, DONE, NULL);
  struct client *client = early_call(rig);
  client_has_body(client,
                  WAITING WAITING WAITING ROLE CONTENT DONE); /* 5 s, 15 s, 25 s; the mark would be a part of it */
  assert_true(client->outcome.ok);
  assert_int_equal(rig_upstream(rig), 3);
  rig_end(client, rig);
}

static enum pry_ask_status rotate(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_ROTATE;
  return PRY_ASK_DONE;
}

/* Another key, a renewed token, another target: all the ways on are open behind the head. */
static void every_way_on_is_open_behind_the_head(void **unused)
{
  (void)unused;
  static const rig_policy_fn ways[] = {rotate, renew, fall_back, retry_always};
  for (size_t way = 0; way < 4; way++) {
    struct rig *rig = rig_new();
    rig->early_head = 5 * PRY_SECOND;
    rig->keys = way == 0 ? 2 : 0;
    rig->with_credential = way == 1;
    rig->refresh_delay = 7;
    rig_use(rig, "policy", PRY_HANDLER_BIT(PRY_ON_ERROR), ways[way]);
    rig_commit(rig);
    rig_plays(rig, (struct pry_http_step){.status = 401, .chunk_delay = way == 1 ? 1 : 6}, json, "{}", NULL);
    rig_answers(rig, 200, sse, ROLE, CONTENT, DONE, NULL);
    struct client *client = early_call(rig);
    client_has_body(client, WAITING ROLE CONTENT DONE);
    assert_true(client->outcome.ok);
    assert_int_equal(client->outcome.attempts, 2);
    rig_end(client, rig);
  }
}

/* A client that does not take its comments is no reason to stop, and hears the rest when it reads again. */
static void a_client_may_be_slow_behind_the_head(void **unused)
{
  (void)unused;
  struct rig *rig = early_rig(retry_twice);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 4}, sse, ROLE, CONTENT, DONE, NULL);
  struct client *client = client_start(rig, NULL, STREAM_BODY, NULL);
  client->pause = true;
  pry_loop_advance(rig->loop, 30 * PRY_SECOND);
  assert_int_equal(client->dones, 0);
  client->pause = false;
  pry_call_resume(client->call);
  client_finish(client);
  client_has_body(client, WAITING ROLE CONTENT DONE);
  assert_true(client->outcome.ok);
  rig_end(client, rig);
}

static void a_failure_behind_the_head_is_an_error_event(void **unused)
{
  (void)unused;
  static const struct pry_slice no = PRY_SLICE_INIT("{}");
  static const struct pry_http_step slow_503 = {.status = 503, .chunks = &no, .chunk_count = 1, .chunk_delay = 6};
  static const struct pry_http_step hang = {.hang = true, .delay = 1};
  for (int silent_provider = 0; silent_provider < 2; silent_provider++) {
    struct rig *rig = early_rig(retry_twice);
    pry_http_script_set_default(rig->script, silent_provider ? &hang : &slow_503);
    struct client *client = early_call(rig);
    const char *body = pry_buffer_text(&client->body);
    assert_memory_equal(body, WAITING, strlen(WAITING));
    const char *event = strstr(body, "data: {\"error\":");
    assert_non_null(event);
    assert_string_equal(body + strlen(body) - 2, "\n\n");
    assert_null(strstr(body, "[DONE]"));
    assert_false(client->truncated);
    assert_false(client->outcome.ok);
    assert_false(client->outcome.committed);
    assert_int_equal(client->outcome.status, 200);
    assert_int_equal(client->outcome.category, silent_provider ? PRY_TIMEOUT : PRY_OVERLOADED);
    assert_int_equal(rig_upstream(rig), 3);
    rig_end(client, rig);
  }
}

static void the_deadline_holds_behind_the_head(void **unused)
{
  (void)unused;
  static const struct pry_http_step hang = {.hang = true};
  struct rig *rig = early_rig(retry_always);
  rig->deadline = 20 * PRY_SECOND;
  rig_commit(rig);
  pry_http_script_set_default(rig->script, &hang);
  struct client *client = early_call(rig);
  assert_string_equal(client->outcome.failure.code, "deadline");
  assert_non_null(strstr(pry_buffer_text(&client->body), WAITING WAITING "data: {\"error\":"));
  rig_end(client, rig);
}

static void what_is_no_stream_cannot_follow_the_head(void **unused)
{
  (void)unused;
  size_t size = 300 * 1024;
  char *long_text = calloc(1, size + 1);
  memset(long_text, 'x', size);
  const char *const texts[] = {"{\"choices\":[]}", long_text};
  for (size_t i = 0; i < 2; i++) {
    struct rig *rig = early_rig(retry_twice);
    rig_plays(rig, (struct pry_http_step){.chunk_delay = 6}, json, texts[i], NULL);
    rig_answers(rig, 200, sse, CONTENT, DONE, NULL);
    struct client *client = early_call(rig);
    assert_string_equal(rig->last_failure.code, "not_a_stream");
    client_has_body(client, WAITING CONTENT DONE);
    rig_end(client, rig);
  }
  free(long_text);
}

static enum pry_ask_status respond_stream(struct rig *rig, struct pry_ask *ask)
{
  respond(rig, ask);
  ask->verdict.status = 200;
  pry_headers_add(&ask->verdict.headers, PRY_SLICE("content-type"), PRY_SLICE("text/event-stream"));
  pry_buffer_clear(&ask->verdict.body);
  pry_buffer_append_text(&ask->verdict.body, CONTENT DONE);
  return PRY_ASK_DONE;
}

static void a_policy_can_answer_behind_the_head_with_a_stream_only(void **unused)
{
  (void)unused;
  for (int stream = 0; stream < 2; stream++) {
    struct rig *rig = early_rig(stream ? respond_stream : respond);
    rig_plays(rig, (struct pry_http_step){.status = 503, .chunk_delay = 6}, json, "{}", NULL);
    struct client *client = early_call(rig);
    assert_int_equal(client->outcome.ok, stream);
    assert_false(client->truncated);
    if (stream)
      client_has_body(client, WAITING CONTENT DONE);
    else
      assert_non_null(strstr(pry_buffer_text(&client->body), WAITING "data: {\"error\":{\"type\":\"server\",\"code\":"
                                                                     "\"answer_after_head\""));
    rig_end(client, rig);
  }
}

static void others_are_not_concerned(void **unused)
{
  (void)unused;
  struct rig *rig = early_rig(retry_twice);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 20}, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  client_has_body(client, "{}");
  assert_true(client_seconds(client) >= 20);
  client_free(client);
  rig_plays(rig, (struct pry_http_step){.delay = 2}, sse, CONTENT, DONE, NULL); /* in time */
  client = client_start(rig, NULL, STREAM_BODY, NULL);
  client_finish(client);
  client_has_body(client, CONTENT DONE);
  struct pry_slice value;
  assert_true(pry_headers_get(&client->headers, PRY_SLICE("parry-attempts"), &value));
  rig_end(client, rig);
}

static void leave(struct client *client)
{
  if (!client->left)
    client_leave(client);
}

static void a_client_may_leave_at_the_head_and_behind_it(void **unused)
{
  (void)unused;
  static const struct pry_http_step hang = {.hang = true};
  for (int when = 0; when < 3; when++) {
    struct rig *rig = early_rig(retry_always);
    pry_http_script_set_default(rig->script, &hang);
    struct client *client = client_start(rig, NULL, STREAM_BODY, NULL);
    client->at_head = when == 0 ? leave : NULL;
    client->at_data = when == 1 ? leave : NULL;
    pry_loop_advance(rig->loop, 16 * PRY_SECOND);
    if (when == 2)
      client_leave(client);
    client_finish(client);
    pry_loop_advance(rig->loop, 60 * PRY_SECOND);
    assert_int_equal(client->outcome.category, PRY_CANCELLED);
    rig_end(client, rig);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(before_content_another_attempt_is_made),
      cmocka_unit_test(after_content_it_goes_on_and_policies_hear_of_it),
      cmocka_unit_test(after_content_it_is_cut_where_the_route_says_so),
      cmocka_unit_test(a_stream_that_is_fast_enough_is_not_slow),
      cmocka_unit_test(a_slow_client_does_not_make_a_stream_slow),
      cmocka_unit_test(without_a_guard_no_clock_runs),
      cmocka_unit_test(attempts_recover_behind_the_head),
      cmocka_unit_test(every_way_on_is_open_behind_the_head),
      cmocka_unit_test(a_client_may_be_slow_behind_the_head),
      cmocka_unit_test(a_failure_behind_the_head_is_an_error_event),
      cmocka_unit_test(the_deadline_holds_behind_the_head),
      cmocka_unit_test(what_is_no_stream_cannot_follow_the_head),
      cmocka_unit_test(a_policy_can_answer_behind_the_head_with_a_stream_only),
      cmocka_unit_test(others_are_not_concerned),
      cmocka_unit_test(a_client_may_leave_at_the_head_and_behind_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
