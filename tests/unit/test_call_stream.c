/* The call state machine: the commit point, honest endings after it, and every timeout, in virtual time. */
#include "call_policies.h"

/* ---- commit point ---------------------------------------------------------------------------------------- */

static void a_stream_passes_byte_for_byte(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  rig_answers(rig, 200, sse, ROLE CONTENT, ": ping\n\n", CONTENT FINISH, DONE, NULL);
  struct client *client = client_call(rig, BODY);
  client_has_body(client, ROLE CONTENT ": ping\n\n" CONTENT FINISH DONE);
  assert_true(client->outcome.ok);
  assert_false(client->truncated);
  rig_end(client, rig);
}

static void errors_before_content_recover(void **unused)
{
  (void)unused;
  static const char *const openings[] = {ROLE "data: {\"error\":{\"message\":\"x\"}}\n\n", ROLE, "", ": ping\n\n"};
  for (size_t i = 0; i < 4; i++) {
    struct rig *rig = rig_on_error(retry_twice);
    rig_answers(rig, 200, sse, openings[i], NULL);
    rig_answers(rig, 200, sse, ROLE, CONTENT, DONE, NULL);
    struct client *client = client_call(rig, BODY);
    assert_int_equal(client->status, 200);
    client_has_body(client, ROLE CONTENT DONE);
    assert_int_equal(rig_upstream(rig), 2);
    rig_end(client, rig);
  }
}

static void an_error_in_a_200_body_recovers(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_always);
  rig_answers(rig, 200, json, "{\"error\":{\"message\":\"x\"}}", NULL);
  rig_answers(rig, 200, json, "{\"text\":\"error\",\"error\":null}", NULL);
  struct client *client = client_call(rig, BODY);
  client_has_body(client, "{\"text\":\"error\",\"error\":null}");
  assert_int_equal(rig_upstream(rig), 2);
  rig_end(client, rig);
}

static void a_cut_after_content_becomes_an_error_event(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_always);
  struct pry_slice chunks[] = {PRY_SLICE(ROLE), PRY_SLICE(CONTENT "data: {\"cho")};
  struct pry_headers headers;
  pry_headers_init(&headers);
  pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("text/event-stream; charset=utf-8"));
  struct pry_http_step step = {.headers = &headers, .chunks = chunks, .chunk_count = 2, .cut = true};
  assert_true(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&headers);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(rig_upstream(rig), 1);
  assert_false(client->outcome.ok);
  assert_true(client->outcome.committed);
  assert_int_equal(client->outcome.category, PRY_NETWORK);
  assert_false(client->truncated);
  const char *body = pry_buffer_text(&client->body);
  assert_memory_equal(body, ROLE CONTENT "data: {\"error\":", strlen(ROLE CONTENT "data: {\"error\":"));
  assert_string_equal(body + strlen(body) - 2, "\n\n");
  assert_int_equal(rig->runs[PRY_ON_ERROR], 0);
  rig_end(client, rig);
}

static void a_cut_ordinary_body_recovers_and_a_long_one_is_truncated(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_always);
  struct pry_slice part = PRY_SLICE("{\"half\":");
  struct pry_http_step step = {.chunks = &part, .chunk_count = 1, .cut = true};
  assert_true(pry_http_script_push(rig->script, &step));
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  client_has_body(client, "{}");
  client_free(client);
  size_t size = 300 * 1024;
  char *long_text = calloc(1, size);
  memset(long_text, 'x', size);
  struct pry_slice chunk = {long_text, size};
  struct pry_http_step long_step = {.chunks = &chunk, .chunk_count = 1, .cut = true};
  assert_true(pry_http_script_push(rig->script, &long_step));
  client = client_call(rig, BODY);
  assert_true(client->truncated);
  assert_int_equal(client->body.size, size);
  free(long_text);
  rig_end(client, rig);
}

/* Gives the one chunk to a client of `path` after content, and returns what the client got behind the content. */
static const char *after_content(struct rig *rig, struct client **client, const char *path, const char *chunk)
{
  rig_answers(rig, 200, sse, ROLE CONTENT, chunk, NULL);
  *client = client_start(rig, path, BODY, NULL);
  client_finish(*client);
  assert_false((*client)->outcome.ok);
  assert_false((*client)->truncated);
  const char *body = pry_buffer_text(&(*client)->body);
  assert_memory_equal(body, ROLE CONTENT, strlen(ROLE CONTENT));
  assert_null(strstr(body, "[DONE]"));
  return body + strlen(ROLE CONTENT);
}

/* Portkey #1797: the client of a stream that breaks off must not see a clean end. Each way to break off has its code. */
static void every_bad_end_after_content_is_an_error_event(void **unused)
{
  (void)unused;
  static const struct {
    const char *chunk, *code;
  } cases[] = {
      {"", "stream_unterminated"},
      {": ping\n\n", "stream_unterminated"},
      {"data: {\"choices\":", "stream_cut"},
      {"data: {\"choices\":[\n\n" DONE, "stream_malformed"},
      {"data: <html>\n\n", "stream_malformed"},
      {"data: {\"error\":{\"message\":\"x\"}}", "unknown"}, /* a report that lacks its blank line, in our words */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct rig *rig = rig_on_error(retry_always);
    struct client *client;
    const char *rest = after_content(rig, &client, NULL, cases[i].chunk);
    if (cases[i].chunk[0] == ':') {
      assert_memory_equal(rest, ": ping\n\n", 8);
      rest += 8;
    }
    char expected[160];
    snprintf(expected, sizeof expected, "data: {\"error\":{\"type\":");
    assert_memory_equal(rest, expected, strlen(expected));
    snprintf(expected, sizeof expected, "\"code\":\"%s\"", cases[i].code);
    assert_non_null(strstr(rest, expected));
    assert_int_equal(rig_upstream(rig), 1);
    rig_end(client, rig);
  }
}

static void a_reset_after_content_tells_nothing_of_the_network(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_always);
  rig_plays(rig, (struct pry_http_step){.curl_code = PRY_HTTP_RECEIVE_FAILED, .after_body = true}, sse, CONTENT, NULL);
  struct client *client = client_call(rig, BODY);
  assert_string_equal(client->outcome.failure.code, "stream_cut");
  assert_int_equal(client->outcome.failure.curl_code, PRY_HTTP_RECEIVE_FAILED);
  assert_int_equal(client->outcome.category, PRY_NETWORK);
  assert_non_null(strstr(pry_buffer_text(&client->body), "the stream broke off before its end"));
  rig_end(client, rig);
}

static void bad_beginnings_recover(void **unused)
{
  (void)unused;
  static const struct {
    const char *const *headers;
    const char *text, *code;
  } cases[] = {
      {sse, "data: {\"choices\":[\n\n" DONE, "stream_malformed"},
      {sse, "<html><title>502</title></html>", "stream_malformed"},
      {sse, "{\"error\":{\"message\":\"x\"}}", ""}, /* an error's body under a stream's type */
      {sse, ROLE "data: {\"cho", "stream_cut"},
      {sse, ROLE ": ping\n\n", "stream_unterminated"},
      {sse, ROLE "data: {\"error\":1}\n", ""},
      {json, STREAM_ERROR, ""}, /* a stream's error under an ordinary type */
      {json, "\xEF\xBB\xBF\r\n: x\n\n" STREAM_ERROR, ""},
      {json, "event: error\ndata: {\"error\":1}\n\n", ""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (size_t split = 1; split < 12; split += 5) {
      struct rig *rig = rig_on_error(retry_twice);
      char start[16] = {0};
      memcpy(start, cases[i].text, split);
      rig_answers(rig, 200, cases[i].headers, start, cases[i].text + split, NULL);
      rig_answers(rig, 200, json, ROLE, CONTENT, DONE, NULL); /* and so may a good one */
      struct client *client = client_start(rig, NULL, STREAM_BODY, NULL);
      client_finish(client);
      client_has_body(client, ROLE CONTENT DONE);
      struct pry_slice type;
      assert_true(pry_headers_get(&client->headers, PRY_SLICE("content-type"), &type));
      assert_true(pry_slice_equal(type, PRY_SLICE("text/event-stream")));
      assert_string_equal(rig->last_failure.code, cases[i].code);
      assert_int_equal(rig_upstream(rig), 2);
      rig_end(client, rig);
    }
}

/* Nobody asked for a stream, or it is none: then a body is a body. */
static void other_bodies_are_not_taken_for_streams(void **unused)
{
  (void)unused;
  static const char *const bodies[] = {BODY, STREAM_BODY, STREAM_BODY, STREAM_BODY};
  static const char *const texts[] = {"data: {\"error\":1}\n\n", "{\"data: \":1}", "date:", "\xEF\xBB"};
  for (size_t i = 0; i < 4; i++) {
    struct rig *rig = rig_on_error(retry_twice);
    rig_answers(rig, 200, json, texts[i], NULL);
    struct client *client = client_start(rig, NULL, bodies[i], NULL);
    client_finish(client);
    client_has_body(client, texts[i]);
    assert_true(client->outcome.ok);
    rig_end(client, rig);
  }
}

/* OpenAI's SDKs throw for {"error": ...}; for what else a provider calls an error they would see a clean end. */
static void an_error_passes_only_if_the_clients_sdk_throws_for_it(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  struct client *client;
  const char *rest = after_content(rig, &client, NULL, STREAM_ERROR);
  assert_string_equal(rest, STREAM_ERROR);
  client_free(client);
  rest = after_content(rig, &client, NULL, "event: error\ndata: {\"message\":\"x\"}\n\n");
  assert_memory_equal(rest, "data: {\"error\":{", 16);
  client_free(client);
  rest = after_content(rig, &client, "/v1/responses", "event: error\ndata: {\"message\":\"x\"}\n\n");
  assert_string_equal(rest, "event: error\ndata: {\"message\":\"x\"}\n\n");
  client_free(client);
  rest = after_content(rig, &client, "/v1/responses", "data: {\"cho");
  assert_memory_equal(rest, "event: error\ndata: {\"type\":\"error\",", 35);
  rig_end(client, rig);
}

/* A message that says it is complete is, though nothing is in it. */
static void an_empty_answer_that_is_said_to_be_all_is_one(void **unused)
{
  (void)unused;
  static const char *const texts[] = {ROLE FINISH, ROLE DONE, DONE, ROLE FINISH DONE};
  for (size_t i = 0; i < 4; i++) {
    struct rig *rig = rig_on_error(retry_twice);
    rig_answers(rig, 200, sse, texts[i], NULL);
    struct client *client = client_call(rig, BODY);
    client_has_body(client, texts[i]);
    assert_true(client->outcome.ok);
    assert_int_equal(rig_upstream(rig), 1);
    rig_end(client, rig);
  }
}

/* An image in one event: half of it is no place for an error event, so the connection breaks off. */
static void a_cut_inside_a_long_event_is_broken_off(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_always);
  size_t size = 600 * 1024;
  char *image = calloc(1, size + 1);
  memset(image, 'x', size);
  memcpy(image, "data: {\"b64\":\"", 14);
  struct client *client;
  for (int whole = 0; whole < 2; whole++) {
    rig_answers(rig, 200, sse, ROLE, image, whole ? "\"}\n\n" : "", NULL);
    client = client_call(rig, BODY);
    assert_int_equal(client->truncated, !whole);
    assert_int_equal(client->body.size > strlen(ROLE) + size + 4, whole);
    assert_string_equal(client->outcome.failure.code, whole ? "stream_unterminated" : "stream_cut");
    if (!whole)
      client_free(client);
  }
  free(image);
  rig_end(client, rig);
}

/* ---- timeouts -------------------------------------------------------------------------------------------- */

static void each_timeout_recovers(void **unused)
{
  (void)unused;
  struct pry_slice role = PRY_SLICE(ROLE);
  struct pry_headers headers;
  pry_headers_init(&headers);
  pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("text/event-stream"));
  const struct {
    struct pry_http_step step;
    double seconds;
    bool sent;
    const char *code;
  } cases[] = {
      {{.hang_connect = true}, 1, false, "connect_timeout"},
      {{.hang = true}, 2, true, "first_byte_timeout"},
      {{.headers = &headers, .chunks = &role, .chunk_count = 1, .hang = true}, 3, true, "stream_stalled"},
  };
  for (size_t i = 0; i < 3; i++) {
    struct rig *rig = rig_new();
    rig->timeouts = (struct pry_timeouts){PRY_SECOND, 2 * PRY_SECOND, 3 * PRY_SECOND, 0};
    rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
    rig_commit(rig);
    assert_true(pry_http_script_push(rig->script, &cases[i].step));
    rig_answers(rig, 200, json, "{}", NULL);
    struct client *client = client_call(rig, BODY);
    assert_int_equal(client->status, 200);
    assert_true(client_seconds(client) >= cases[i].seconds + 0.5 && client_seconds(client) < cases[i].seconds + 0.6);
    assert_string_equal(rig->last_failure.code, cases[i].code);
    assert_int_equal(rig->last_failure.category, PRY_TIMEOUT);
    assert_int_equal(rig->last_failure.sent, cases[i].sent);
    rig_end(client, rig);
  }
  pry_headers_fini(&headers);
}

static void the_deadline_ends_a_call_in_every_state(void **unused)
{
  (void)unused;
  static const struct pry_http_step hang = {.hang = true};
  struct pry_slice text = PRY_SLICE("{}");
  const struct pry_http_step slow_503 = {.status = 503, .chunks = &text, .chunk_count = 1, .chunk_delay = 9.8};
  for (int state = 0; state < 3; state++) {
    struct rig *rig = rig_new();
    rig->deadline = 10 * PRY_SECOND;
    rig_use(rig, "hold", state == 1 ? PRY_HANDLER_BIT(PRY_ON_REQUEST) : 0, hold_one);
    rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
    rig_commit(rig);
    pry_http_script_set_default(rig->script, state == 2 ? &slow_503 : &hang);
    struct client *blocker = state == 1 ? client_start(rig, NULL, BODY, NULL) : NULL;
    struct client *client = client_call(rig, BODY);
    assert_int_equal(client->status, state == 2 ? 503 : 504);
    assert_true(client_seconds(client) <= 10.01);
    if (blocker) {
      client_finish(blocker);
      client_free(blocker);
    }
    rig_end(client, rig);
  }
}

static void a_slow_client_is_not_the_providers_silence(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  rig_answers(rig, 200, sse, CONTENT, CONTENT, CONTENT DONE, NULL);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  client->pause = true;
  pry_loop_advance(rig->loop, 600 * PRY_SECOND);
  client_has_body(client, CONTENT);
  assert_int_equal(client->dones, 0);
  client->pause = false;
  pry_call_resume(client->call);
  client_finish(client);
  client_has_body(client, CONTENT CONTENT CONTENT DONE);
  assert_true(client->outcome.ok);
  rig_end(client, rig);
}

/* bifrost #4788: what attempt 1 left behind killed attempt 2. Every kind of failure, and then a good answer. */
static void a_stream_recovers_after_every_kind_of_failure_in_a_row(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig->timeouts.idle = PRY_SECOND;
  rig->slow_window = 20 * PRY_SECOND;
  rig->slow_events = 1;
  rig_use(rig, "policy", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_always);
  rig_commit(rig);
  rig_answers(rig, 200, sse, ROLE, STREAM_ERROR, NULL);
  rig_answers(rig, 200, sse, ROLE "data: {\"cho", NULL);
  rig_answers(rig, 200, sse, ROLE, ": ping\n\n", NULL);
  rig_answers(rig, 200, sse, "data: nonsense\n\n", NULL);
  rig_answers(rig, 200, json, STREAM_ERROR, NULL);
  rig_answers(rig, 503, json, "{}", NULL);
  rig_plays(rig, (struct pry_http_step){.hang = true}, sse, ROLE, NULL);
  rig_plays(rig, (struct pry_http_step){.cut = true}, sse, ROLE, NULL);
  rig_plays(rig, (struct pry_http_step){.curl_code = PRY_HTTP_RECEIVE_FAILED}, sse, NULL);
  rig_answers(rig, 200, sse, ROLE, CONTENT, DONE, NULL);
  struct client *client = client_start(rig, NULL, STREAM_BODY, NULL);
  client_finish(client);
  client_has_body(client, ROLE CONTENT DONE);
  assert_true(client->outcome.ok);
  assert_int_equal(rig_upstream(rig), 10);
  rig_end(client, rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_stream_passes_byte_for_byte),
      cmocka_unit_test(errors_before_content_recover),
      cmocka_unit_test(an_error_in_a_200_body_recovers),
      cmocka_unit_test(a_cut_after_content_becomes_an_error_event),
      cmocka_unit_test(a_cut_ordinary_body_recovers_and_a_long_one_is_truncated),
      cmocka_unit_test(every_bad_end_after_content_is_an_error_event),
      cmocka_unit_test(a_reset_after_content_tells_nothing_of_the_network),
      cmocka_unit_test(bad_beginnings_recover),
      cmocka_unit_test(other_bodies_are_not_taken_for_streams),
      cmocka_unit_test(an_error_passes_only_if_the_clients_sdk_throws_for_it),
      cmocka_unit_test(an_empty_answer_that_is_said_to_be_all_is_one),
      cmocka_unit_test(a_cut_inside_a_long_event_is_broken_off),
      cmocka_unit_test(a_stream_recovers_after_every_kind_of_failure_in_a_row),
      cmocka_unit_test(each_timeout_recovers),
      cmocka_unit_test(the_deadline_ends_a_call_in_every_state),
      cmocka_unit_test(a_slow_client_is_not_the_providers_silence),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
