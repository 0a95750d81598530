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

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_stream_passes_byte_for_byte),
      cmocka_unit_test(errors_before_content_recover),
      cmocka_unit_test(an_error_in_a_200_body_recovers),
      cmocka_unit_test(a_cut_after_content_becomes_an_error_event),
      cmocka_unit_test(a_cut_ordinary_body_recovers_and_a_long_one_is_truncated),
      cmocka_unit_test(each_timeout_recovers),
      cmocka_unit_test(the_deadline_ends_a_call_in_every_state),
      cmocka_unit_test(a_slow_client_is_not_the_providers_silence),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
