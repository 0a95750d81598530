/* The call state machine: bodies that are not kept but stream through, in virtual time. */
#include "call_policies.h"

enum { PIECE = 16 * 1024, LONG = 300 * 1024 };

#define START "{\"model\":\"m\",\"pad\":\""

/* A client with a long body: it sends as it is allowed to, all at once or with a pause after some bytes. */
struct sender {
  struct client client; /* first: the sink's user */
  struct pry_buffer body;
  size_t sent, pause_at; /* 0: no pause */
  unsigned wanted;
  bool waits, ended, keeps_end; /* `keeps_end`: does not say that it was all */
};

static void send_on(struct sender *sender)
{
  struct pry_call *call = sender->client.call;
  size_t end = sender->pause_at ? sender->pause_at : sender->body.size;
  while (!sender->waits && sender->sent < end) {
    size_t left = end - sender->sent;
    struct pry_slice piece = {sender->body.data + sender->sent, left < PIECE ? left : PIECE};
    sender->sent += piece.size;
    sender->waits = !pry_call_upload(call, piece);
  }
  if (!sender->waits && sender->sent == sender->body.size && !sender->ended && !sender->keeps_end) {
    sender->ended = true;
    pry_call_upload_end(call);
  }
}

static void want_body(void *user)
{
  struct sender *sender = user;
  assert_true(sender->waits);
  assert_int_equal(sender->client.dones, 0);
  sender->waits = false;
  sender->wanted++;
  send_on(sender);
}

static const struct pry_sink_ops sender_ops = {client_head, client_data, client_done, want_body};

/* A body of `start`, filling, and `end`, of LONG bytes in all; the first `known` of them are given at the start. */
static struct sender *sender_new(struct rig *rig, const char *start, const char *end, size_t known, bool with_length)
{
  struct sender *sender = calloc(1, sizeof *sender);
  struct pry_headers headers;
  struct pry_buffer beginning;
  pry_headers_init(&headers);
  pry_buffer_init(&beginning, 0);
  pry_headers_init(&sender->client.headers);
  pry_buffer_init(&sender->client.body, 0);
  pry_buffer_init(&sender->body, 0);
  assert_true(pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("application/json")));
  assert_true(pry_buffer_append_text(&sender->body, start));
  assert_true(pry_buffer_reserve(&sender->body, LONG));
  for (; sender->body.size < LONG - strlen(end); sender->body.size++)
    sender->body.data[sender->body.size] = (char)('a' + sender->body.size % 26);
  assert_true(pry_buffer_append_text(&sender->body, end));
  assert_true(pry_buffer_append(&beginning, sender->body.data, known));
  sender->client.rig = rig;
  sender->client.started = pry_loop_now(rig->loop);
  sender->sent = known;
  struct pry_call_request request = {.method = PRY_SLICE("POST"),
                                     .path = PRY_SLICE("/v1/chat/completions"),
                                     .headers = &headers,
                                     .body = &beginning,
                                     .more = true,
                                     .body_size = with_length ? (int64_t)sender->body.size : -1};
  sender->client.call = pry_call_start(rig->engine->control, &request, &sender_ops, sender);
  assert_non_null(sender->client.call);
  pry_headers_fini(&headers);
  return sender;
}

static struct sender *sender_start(struct rig *rig)
{
  return sender_new(rig, START, "\"}", 1000, true);
}

static void sender_finish(struct sender *sender)
{
  send_on(sender);
  client_finish(&sender->client);
}

static void sender_end(struct sender *sender, struct rig *rig)
{
  assert_int_equal(rig->engine->replay_used, 0);
  pry_buffer_fini(&sender->body);
  rig_end(&sender->client, rig); /* frees the whole: the client is its first member */
}

static const struct pry_http_seen *seen(struct rig *rig, size_t i)
{
  return pry_http_script_seen(rig->script, i);
}

static void arrived_whole(struct rig *rig, const struct sender *sender, size_t i)
{
  assert_true(seen(rig, i)->uploaded || seen(rig, i)->finished);
  assert_true(pry_slice_equal(seen(rig, i)->body, pry_buffer_slice(&sender->body)));
}

/* ---- what goes through --------------------------------------------------------------------------------------- */

static void a_long_body_goes_through(void **unused)
{
  (void)unused;
  for (int with_length = 0; with_length < 2; with_length++) {
    struct rig *rig = rig_on_error(silent);
    rig_answers(rig, 200, json, "{\"ok\":1}", NULL);
    struct sender *sender = sender_new(rig, START, "\"}", 1000, with_length);
    sender_finish(sender);
    assert_int_equal(sender->client.status, 200);
    client_has_body(&sender->client, "{\"ok\":1}");
    arrived_whole(rig, sender, 0);
    assert_int_equal(seen(rig, 0)->upload_size, with_length ? LONG : -1);
    assert_int_equal(rig_upstream(rig), 1);
    sender_end(sender, rig);
  }
}

/* The client is told to wait, and no more than a little is kept of what it sent too early. */
static void a_slow_provider_slows_the_client(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig_plays(rig, (struct pry_http_step){.take_delay = 1}, json, "{}", NULL);
  struct sender *sender = sender_start(rig);
  send_on(sender);
  assert_true(sender->waits);
  assert_in_range(sender->sent, 64 * 1024, 96 * 1024);
  for (unsigned i = 0; i < 15; i++) {
    pry_loop_advance(rig->loop, PRY_SECOND);
    assert_true(sender->sent - seen(rig, 0)->body.size <= 96 * 1024);
  }
  client_finish(&sender->client);
  assert_true(sender->wanted >= 3);
  assert_int_equal(sender->client.status, 200);
  arrived_whole(rig, sender, 0);
  sender_end(sender, rig);
}

/* Once the beginning has left, it counts and is kept no more. */
static void sent_bytes_are_not_kept(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig_plays(rig, (struct pry_http_step){.hang = true}, NULL, NULL);
  struct sender *sender = sender_new(rig, START, "\"}", 100 * 1024, true);
  assert_int_equal(rig->engine->replay_used, 100 * 1024);
  send_on(sender);
  pry_loop_advance(rig->loop, PRY_SECOND);
  assert_int_equal(rig->engine->replay_used, 0);
  client_leave(&sender->client);
  client_finish(&sender->client);
  sender_end(sender, rig);
}

static void a_body_that_was_all_there_may_be_streamed(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig_answers(rig, 200, json, "{}", NULL);
  struct sender *sender = sender_new(rig, START, "\"}", LONG, true);
  sender_finish(sender);
  arrived_whole(rig, sender, 0);
  assert_int_equal(sender->client.status, 200);
  sender_end(sender, rig);
}

/* ---- one attempt ----------------------------------------------------------------------------------------------- */

static void a_body_that_has_left_is_not_sent_again(void **unused)
{
  (void)unused;
  static const rig_policy_fn policies[] = {retry_always, fall_back};
  for (size_t i = 0; i < 2; i++) {
    struct rig *rig = rig_on_error(policies[i]);
    rig_answers(rig, 429, json, "{\"error\":{\"message\":\"theirs\"}}", NULL);
    struct sender *sender = sender_start(rig);
    sender_finish(sender);
    assert_int_equal(rig_upstream(rig), 1);
    assert_int_equal(sender->client.status, 429);
    client_has_body(&sender->client, "{\"error\":{\"message\":\"theirs\"}}");
    sender_end(sender, rig);
  }
}

static void a_body_that_has_not_left_may_be_tried_again(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  rig_plays(rig, (struct pry_http_step){.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true}, NULL, NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct sender *sender = sender_start(rig);
  sender_finish(sender);
  assert_int_equal(rig_upstream(rig), 2);
  assert_int_equal(sender->client.status, 200);
  arrived_whole(rig, sender, 1);
  sender_end(sender, rig);
}

static void another_target_gets_its_model_and_the_right_length(void **unused)
{
  (void)unused;
  for (int with_length = 0; with_length < 2; with_length++) {
    struct rig *rig = rig_on_error(fall_back);
    rig_plays(rig, (struct pry_http_step){.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true}, NULL, NULL);
    rig_answers(rig, 200, json, "{}", NULL);
    struct sender *sender = sender_new(rig, START, "\"}", 1000, with_length);
    sender_finish(sender);
    assert_int_equal(sender->client.status, 200);
    const struct pry_http_seen *second = seen(rig, 1);
    assert_non_null(strstr(second->url, "http://q/"));
    assert_int_equal(second->body.size, LONG + 1);
    assert_int_equal(second->upload_size, with_length ? LONG + 1 : -1);
    assert_memory_equal(second->body.data, "{\"model\":\"m2\",\"pad\":\"", 21);
    assert_memory_equal(second->body.data + 21, sender->body.data + 20, LONG - 20);
    sender_end(sender, rig);
  }
}

static void a_model_that_was_not_read_cannot_be_changed(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(fall_back);
  rig_plays(rig, (struct pry_http_step){.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true}, NULL, NULL);
  struct sender *sender = sender_new(rig, "{\"pad\":\"", "\",\"model\":\"m\"}", 1000, true);
  sender_finish(sender);
  assert_int_equal(rig_upstream(rig), 1);
  assert_int_equal(sender->client.status, 502);
  sender_end(sender, rig);
}

static void a_model_behind_the_beginning_is_sent_as_it_is(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig_answers(rig, 200, json, "{}", NULL);
  struct sender *sender = sender_new(rig, "{\"pad\":\"", "\",\"model\":\"m\"}", 1000, true);
  sender_finish(sender);
  assert_int_equal(sender->client.status, 200);
  arrived_whole(rig, sender, 0);
  sender_end(sender, rig);
}

static void a_model_twice_in_the_beginning_is_refused(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  struct sender *sender = sender_new(rig, "{\"model\":\"m\",\"model\":\"n\",\"pad\":\"", "\"}", 1000, true);
  sender_finish(sender);
  assert_int_equal(sender->client.status, 400);
  assert_int_equal(rig_upstream(rig), 0);
  sender_end(sender, rig);
}

static bool was_repeatable;

static enum pry_ask_status note_repeatable(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  was_repeatable = ask->call->repeatable;
  assert_int_equal(ask->call->body.size, 0);
  assert_string_equal(ask->call->model, "m");
  return PRY_ASK_DONE;
}

static void policies_see_that_there_is_no_second_time(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("policy", PRY_HANDLER_BIT(PRY_ON_REQUEST), note_repeatable);
  was_repeatable = true;
  rig_answers(rig, 200, json, "{}", NULL);
  struct sender *sender = sender_start(rig);
  sender_finish(sender);
  assert_int_equal(rig->runs[PRY_ON_REQUEST], 1);
  assert_false(was_repeatable);
  sender_end(sender, rig);
}

/* ---- early and bad ends ------------------------------------------------------------------------------------------ */

static void an_early_answer_reaches_the_client(void **unused)
{
  (void)unused;
  static const int statuses[] = {413, 401, 503};
  for (size_t i = 0; i < 3; i++) {
    struct rig *rig = rig_on_error(retry_always);
    rig_plays(rig, (struct pry_http_step){.status = statuses[i], .takes = 100}, json,
              "{\"error\":{\"message\":\"no\"}}", NULL);
    struct sender *sender = sender_start(rig);
    sender->pause_at = 2000;
    sender_finish(sender);
    assert_int_equal(sender->client.status, statuses[i]);
    client_has_body(&sender->client, "{\"error\":{\"message\":\"no\"}}");
    assert_int_equal(seen(rig, 0)->body.size, 100);
    sender_end(sender, rig);
  }
}

static void a_provider_that_dies_in_the_middle_is_a_network_failure(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_always);
  rig_plays(rig, (struct pry_http_step){.curl_code = PRY_HTTP_RECEIVE_FAILED, .takes = 70000}, NULL, NULL);
  struct sender *sender = sender_start(rig);
  sender_finish(sender);
  assert_int_equal(rig->last_failure.category, PRY_NETWORK);
  assert_true(rig->last_failure.sent);
  assert_int_equal(rig_upstream(rig), 1);
  assert_int_equal(sender->client.status, 502);
  sender_end(sender, rig);
}

static void a_client_that_leaves_ends_it(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("policy", PRY_HANDLER_BIT(PRY_ON_OUTCOME), silent);
  struct sender *sender = sender_start(rig);
  sender->pause_at = 150000;
  pry_http_script_set_default(rig->script, &(struct pry_http_step){.status = 200});
  send_on(sender);
  pry_loop_advance(rig->loop, 10 * PRY_SECOND);
  assert_int_equal(seen(rig, 0)->body.size, 150000);
  client_leave(&sender->client);
  assert_true(seen(rig, 0)->cancelled);
  client_finish(&sender->client);
  assert_int_equal(sender->client.outcome.category, PRY_CANCELLED);
  assert_int_equal(rig->runs[PRY_ON_OUTCOME], 1);
  pry_loop_advance(rig->loop, 1000 * PRY_SECOND); /* no clock of the call is left running */
  sender_end(sender, rig);
}

static void leave(struct client *client)
{
  client_leave(client);
}

static void a_client_that_leaves_inside_the_answer_ends_it(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig_plays(rig, (struct pry_http_step){.takes = 2000, .hang = true}, sse, CONTENT, NULL);
  struct sender *sender = sender_start(rig);
  sender->client.at_data = leave;
  sender_finish(sender);
  assert_int_equal(sender->client.outcome.category, PRY_CANCELLED);
  sender_end(sender, rig);
}

static void what_comes_after_the_end_is_ignored(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("policy", PRY_HANDLER_BIT(PRY_ON_REQUEST), respond);
  struct sender *sender = sender_start(rig);
  client_finish(&sender->client);
  assert_int_equal(sender->client.status, 203);
  assert_int_equal(rig_upstream(rig), 0);
  sender_end(sender, rig);
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

static void set_times(struct rig *rig)
{
  rig->timeouts =
      (struct pry_timeouts){.idle = 5 * PRY_SECOND, .first_byte = 7 * PRY_SECOND, .attempt = 9 * PRY_SECOND};
  rig->deadline = 20 * PRY_SECOND;
  rig_commit(rig);
}

static void a_slow_client_costs_the_provider_no_time(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  set_times(rig);
  rig_plays(rig, (struct pry_http_step){0}, json, "{}", NULL);
  struct sender *sender = sender_start(rig);
  for (sender->pause_at = 50000; sender->pause_at < LONG; sender->pause_at += 50000) {
    send_on(sender);
    pry_loop_advance(rig->loop, 3600 * PRY_SECOND);
    assert_int_equal(seen(rig, 0)->body.size, sender->pause_at);
    assert_int_equal(sender->client.dones, 0);
  }
  sender->pause_at = 0;
  sender_finish(sender);
  assert_int_equal(sender->client.status, 200);
  sender_end(sender, rig);
}

/* What stood still goes on: the deadline is later by exactly what the client took. */
static void the_deadline_goes_on_after_the_client(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig->timeouts = (struct pry_timeouts){.first_byte = 1000 * PRY_SECOND};
  rig->deadline = 20 * PRY_SECOND;
  rig_commit(rig);
  rig_plays(rig, (struct pry_http_step){.hang = true}, NULL, NULL);
  struct sender *sender = sender_start(rig);
  sender->pause_at = 50000;
  send_on(sender);
  pry_loop_advance(rig->loop, 100 * PRY_SECOND);
  sender->pause_at = 0;
  sender_finish(sender);
  assert_int_equal(sender->client.status, 504);
  assert_true(client_seconds(&sender->client) > 119.9 && client_seconds(&sender->client) < 120.1);
  assert_string_equal(rig->last_failure.code, "deadline");
  sender_end(sender, rig);
}

static void the_attempt_s_time_goes_on_after_the_client(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig->timeouts = (struct pry_timeouts){.first_byte = 1000 * PRY_SECOND, .attempt = 9 * PRY_SECOND};
  rig_commit(rig);
  rig_plays(rig, (struct pry_http_step){.hang = true}, NULL, NULL);
  struct sender *sender = sender_start(rig);
  sender->pause_at = 50000;
  send_on(sender);
  pry_loop_advance(rig->loop, 100 * PRY_SECOND);
  sender->pause_at = 0;
  sender_finish(sender);
  assert_string_equal(rig->last_failure.code, "attempt_timeout");
  assert_true(client_seconds(&sender->client) > 108.9 && client_seconds(&sender->client) < 109.1);
  sender_end(sender, rig);
}

static void a_provider_that_takes_nothing_is_a_timeout(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_always);
  rig->timeouts = (struct pry_timeouts){.idle = 5 * PRY_SECOND};
  rig_commit(rig);
  rig_plays(rig, (struct pry_http_step){.take_delay = 6}, NULL, NULL);
  struct sender *sender = sender_start(rig);
  sender_finish(sender);
  assert_string_equal(rig->last_failure.code, "upload_stalled");
  assert_int_equal(sender->client.status, 504);
  assert_true(client_seconds(&sender->client) > 4.9 && client_seconds(&sender->client) < 5.1);
  sender_end(sender, rig);
}

static void the_time_to_answer_begins_when_all_is_there(void **unused)
{
  (void)unused;
  for (int with_length = 0; with_length < 2; with_length++) {
    struct rig *rig = rig_on_error(silent);
    rig->timeouts = (struct pry_timeouts){.idle = 5 * PRY_SECOND, .first_byte = 7 * PRY_SECOND};
    rig_commit(rig);
    rig_plays(rig, (struct pry_http_step){.take_delay = 4, .hang = true}, NULL, NULL);
    struct sender *sender = sender_new(rig, START, "\"}", 1000, with_length);
    send_on(sender);
    while (seen(rig, 0) == NULL || seen(rig, 0)->body.size < LONG)
      pry_loop_turn(rig->loop, PRY_TIME_NEVER);
    pry_time all = pry_loop_now(rig->loop);
    client_finish(&sender->client);
    double waited = pry_time_to_seconds(pry_loop_now(rig->loop) - all);
    assert_string_equal(rig->last_failure.code, "first_byte_timeout");
    assert_true(waited > 6.9 && waited < 11.1);
    sender_end(sender, rig);
  }
}

/* With a length the attempt is not asked for more, and so does not ask whether there is. */
static void the_end_may_be_said_after_the_last_byte_was_taken(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig->timeouts = (struct pry_timeouts){.idle = 5 * PRY_SECOND, .first_byte = 7 * PRY_SECOND};
  rig_commit(rig);
  rig_plays(rig, (struct pry_http_step){.hang = true}, NULL, NULL);
  struct sender *sender = sender_start(rig);
  sender->keeps_end = true;
  send_on(sender);
  pry_loop_advance(rig->loop, 3 * PRY_SECOND);
  assert_int_equal(seen(rig, 0)->body.size, LONG);
  sender->keeps_end = false;
  sender_finish(sender);
  assert_string_equal(rig->last_failure.code, "first_byte_timeout");
  assert_true(client_seconds(&sender->client) > 9.9 && client_seconds(&sender->client) < 10.1);
  sender_end(sender, rig);
}

static double left_at_error;

static enum pry_ask_status note_deadline(struct rig *rig, struct pry_ask *ask)
{
  left_at_error = pry_time_to_seconds(ask->call->deadline - pry_loop_now(rig->loop));
  return PRY_ASK_DONE;
}

static void policies_see_the_deadline_that_counts(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(note_deadline);
  set_times(rig);
  rig_answers(rig, 500, json, "{}", NULL);
  struct sender *sender = sender_start(rig);
  sender->pause_at = 50000;
  send_on(sender);
  pry_loop_advance(rig->loop, 100 * PRY_SECOND);
  sender->pause_at = 0;
  sender_finish(sender);
  assert_true(left_at_error > 19.9 && left_at_error < 20.1);
  sender_end(sender, rig);
}

/* The deadline, that stood still, went on when the attempt was closed, and ended a call that had ended. */
static void no_clock_goes_on_when_the_client_has_left(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("policy", PRY_HANDLER_BIT(PRY_ON_OUTCOME), wait_for_it);
  rig_plays(rig, (struct pry_http_step){0}, NULL, NULL);
  struct sender *sender = sender_start(rig);
  sender->pause_at = 50000;
  send_on(sender);
  pry_loop_advance(rig->loop, 10 * PRY_SECOND);
  client_leave(&sender->client);
  pry_loop_advance(rig->loop, 1000 * PRY_SECOND);
  rig_pending_done(rig);
  client_finish(&sender->client);
  sender_end(sender, rig);
}

/* Content that comes while the client is the one to be waited for: neither what stood still nor the silence after the
 * content may end the call. */
static void an_answer_while_the_client_is_slow(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  set_times(rig);
  rig_plays(rig, (struct pry_http_step){.early = true}, sse, CONTENT, DONE, NULL);
  struct sender *sender = sender_start(rig);
  sender->pause_at = 50000;
  send_on(sender);
  pry_loop_advance(rig->loop, 1000 * PRY_SECOND);
  assert_int_equal(sender->client.status, 200);
  client_has_body(&sender->client, CONTENT DONE);
  sender->pause_at = 51000; /* comes, and is waited for again */
  send_on(sender);
  pry_loop_advance(rig->loop, 1000 * PRY_SECOND);
  assert_int_equal(sender->client.dones, 0);
  sender->pause_at = 0;
  sender_finish(sender);
  assert_true(sender->client.outcome.ok);
  arrived_whole(rig, sender, 0);
  sender_end(sender, rig);
}

/* The same before the end of the stream, and a client that is slow for long after the commit. */
static void a_deadline_that_stood_still_ends_with_the_commit(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig->deadline = 5 * PRY_SECOND;
  rig_commit(rig);
  rig_plays(rig, (struct pry_http_step){.early = true, .take_delay = 2}, sse, CONTENT, NULL);
  struct sender *sender = sender_start(rig);
  sender->pause_at = 2000;
  send_on(sender);
  pry_loop_advance(rig->loop, 100 * PRY_SECOND);
  client_has_body(&sender->client, CONTENT);
  sender->pause_at = 0;
  sender_finish(sender);
  assert_string_equal(sender->client.outcome.failure.code, "stream_unterminated"); /* and not the deadline */
  arrived_whole(rig, sender, 0);
  sender_end(sender, rig);
}

/* An echo: the answer's content comes while the client is still sending. After the commit no deadline is left. */
static void an_early_stream_and_the_rest_of_the_body(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  set_times(rig);
  rig_plays(rig, (struct pry_http_step){.takes = 1000, .hang = true}, sse, ROLE, CONTENT, NULL);
  struct sender *sender = sender_start(rig);
  pry_loop_advance(rig->loop, PRY_SECOND);
  assert_int_equal(sender->client.status, 200);
  client_has_body(&sender->client, ROLE CONTENT);
  client_finish(&sender->client); /* then it says nothing more */
  assert_int_equal(sender->client.outcome.category, PRY_TIMEOUT);
  assert_true(pry_time_to_seconds(pry_loop_now(rig->loop)) < 8);
  sender_end(sender, rig);
}

static enum pry_ask_status rotate(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_ROTATE;
  return PRY_ASK_DONE;
}

/* Another key is another attempt: it needs the body, too. */
static void another_key_needs_the_body_too(void **unused)
{
  (void)unused;
  for (int sent = 0; sent < 2; sent++) {
    struct rig *rig = rig_new();
    rig->keys = 2;
    rig_use(rig, "rotate", PRY_HANDLER_BIT(PRY_ON_ERROR), rotate);
    rig_commit(rig);
    if (sent)
      rig_answers(rig, 401, json, "{}", NULL);
    else
      rig_plays(rig, (struct pry_http_step){.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true}, json, NULL);
    rig_answers(rig, 200, json, "{}", NULL);
    struct sender *sender = sender_start(rig);
    sender_finish(sender);
    assert_int_equal(sender->client.status, sent ? 401 : 200);
    assert_int_equal(rig_upstream(rig), sent ? 1 : 2);
    if (!sent)
      arrived_whole(rig, sender, 1);
    sender_end(sender, rig);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_long_body_goes_through),
      cmocka_unit_test(a_slow_provider_slows_the_client),
      cmocka_unit_test(sent_bytes_are_not_kept),
      cmocka_unit_test(a_body_that_was_all_there_may_be_streamed),
      cmocka_unit_test(a_body_that_has_left_is_not_sent_again),
      cmocka_unit_test(a_body_that_has_not_left_may_be_tried_again),
      cmocka_unit_test(another_target_gets_its_model_and_the_right_length),
      cmocka_unit_test(a_model_that_was_not_read_cannot_be_changed),
      cmocka_unit_test(a_model_behind_the_beginning_is_sent_as_it_is),
      cmocka_unit_test(a_model_twice_in_the_beginning_is_refused),
      cmocka_unit_test(policies_see_that_there_is_no_second_time),
      cmocka_unit_test(an_early_answer_reaches_the_client),
      cmocka_unit_test(a_provider_that_dies_in_the_middle_is_a_network_failure),
      cmocka_unit_test(a_client_that_leaves_ends_it),
      cmocka_unit_test(a_client_that_leaves_inside_the_answer_ends_it),
      cmocka_unit_test(what_comes_after_the_end_is_ignored),
      cmocka_unit_test(a_slow_client_costs_the_provider_no_time),
      cmocka_unit_test(the_deadline_goes_on_after_the_client),
      cmocka_unit_test(the_attempt_s_time_goes_on_after_the_client),
      cmocka_unit_test(a_provider_that_takes_nothing_is_a_timeout),
      cmocka_unit_test(the_time_to_answer_begins_when_all_is_there),
      cmocka_unit_test(the_end_may_be_said_after_the_last_byte_was_taken),
      cmocka_unit_test(policies_see_the_deadline_that_counts),
      cmocka_unit_test(no_clock_goes_on_when_the_client_has_left),
      cmocka_unit_test(an_answer_while_the_client_is_slow),
      cmocka_unit_test(a_deadline_that_stood_still_ends_with_the_commit),
      cmocka_unit_test(an_early_stream_and_the_rest_of_the_body),
      cmocka_unit_test(another_key_needs_the_body_too),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
