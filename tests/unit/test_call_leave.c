/* The call state machine when something outside ends it or changes under it: clients that leave, reloads, and the end
 * of the engine, in every state, in virtual time. */
#include "call_policies.h"

static const struct pry_http_step hang = {.hang = true};

/* Runs until the client has heard the end and the observers are through. */
static void client_is_gone(struct client *client, unsigned attempts)
{
  client_finish(client);
  assert_int_equal(client->outcome.category, PRY_CANCELLED);
  assert_int_equal(client->outcome.attempts, attempts);
  assert_int_equal(client->rig->runs[PRY_ON_DONE], 1);
}

/* ---- leaving in every state ------------------------------------------------------------------------------ */

static void a_client_may_leave_in_any_state(void **unused)
{
  (void)unused;
  struct pry_slice content = PRY_SLICE(CONTENT);
  struct pry_headers headers;
  pry_headers_init(&headers);
  rig_headers(&headers, sse);
  const struct {
    const char *state;
    struct pry_http_step step;
  } cases[] = {
      {"request", {.delay = 100}},
      {"send", {.hang_connect = true}},
      {"head", {.chunks = &content, .chunk_count = 1, .hang = true}},
      {"relay", {.headers = &headers, .chunks = &content, .chunk_count = 1, .hang = true}},
      {"wait", {.status = 503}},
      {"token", {.status = 401}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct rig *rig = rig_new();
    rig->with_credential = true;
    rig->refresh_delay = 50;
    rig_use(rig, "observer", PRY_HANDLER_BIT(PRY_ON_DONE), silent);
    rig_use(rig, "renew", PRY_HANDLER_BIT(PRY_ON_ERROR), renew);
    rig_use(rig, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
    rig_commit(rig);
    assert_true(pry_http_script_push(rig->script, &cases[i].step));
    pry_http_script_set_default(rig->script, &hang);
    struct client *client = client_start(rig, NULL, BODY, NULL);
    if (i)
      pry_loop_advance(rig->loop, PRY_SECOND / 10);
    assert_string_equal(pry_call_state_name(client->call), cases[i].state);
    client_leave(client);
    assert_int_equal(client->dones, 0);
    assert_int_equal(pry_http_open_count(rig->http), 0);
    pry_loop_advance(rig->loop, PRY_SECOND / 10);
    assert_int_equal(client->dones, 1);
    assert_int_equal(client->outcome.category, PRY_CANCELLED);
    assert_int_equal(rig->runs[PRY_ON_DONE], i ? 1 : 0);
    rig_end(client, rig);
  }
  pry_headers_fini(&headers);
}

static void a_client_may_leave_while_a_handler_waits(void **unused)
{
  (void)unused;
  static const struct {
    enum pry_handler handler;
    const char *state;
    unsigned attempts;
  } cases[] = {{PRY_ON_REQUEST, "request", 0},
               {PRY_ON_ATTEMPT, "prepare", 0},
               {PRY_ON_OUTCOME, "react", 1},
               {PRY_ON_ERROR, "react", 1}};
  for (size_t i = 0; i < 4; i++) {
    struct rig *rig = rig_new();
    rig_use(rig, "slow", PRY_HANDLER_BIT(cases[i].handler), wait_for_it);
    rig_use(rig, "observer", PRY_HANDLER_BIT(PRY_ON_OUTCOME) | PRY_HANDLER_BIT(PRY_ON_DONE), silent);
    rig_commit(rig);
    rig_answers(rig, 503, json, "{}", NULL);
    struct client *client = client_start(rig, NULL, BODY, NULL);
    pry_loop_advance(rig->loop, PRY_SECOND);
    assert_string_equal(pry_call_state_name(client->call), cases[i].state);
    client_leave(client);
    assert_null(rig->pending);
    assert_int_equal(rig->cancelled_asks, 1);
    client_is_gone(client, cases[i].attempts);
    rig_end(client, rig);
  }
}

static void observers_may_wait_after_a_client_left(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("slow", PRY_HANDLER_BIT(PRY_ON_OUTCOME) | PRY_HANDLER_BIT(PRY_ON_DONE), wait_for_it);
  pry_http_script_set_default(rig->script, &hang);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  pry_loop_advance(rig->loop, PRY_SECOND);
  client_leave(client);
  pry_loop_advance(rig->loop, 5 * PRY_SECOND);
  assert_int_equal(client->dones, 0);
  assert_int_equal(pry_http_open_count(rig->http), 0);
  rig_pending_done(rig); /* on_outcome */
  client_is_gone(client, 1);
  rig_pending_done(rig); /* on_done */
  assert_int_equal(rig->counter, 2);
  rig_end(client, rig);
}

static void leaving_a_queue_gives_the_place_to_the_next(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("hold", PRY_HANDLER_BIT(PRY_ON_REQUEST), hold_one);
  struct pry_http_step step = {.delay = 2};
  pry_http_script_set_default(rig->script, &step);
  struct client *clients[3];
  for (size_t i = 0; i < 3; i++)
    clients[i] = client_start(rig, NULL, BODY, NULL);
  pry_loop_advance(rig->loop, PRY_SECOND);
  assert_string_equal(pry_call_state_name(clients[1]->call), "hold");
  client_leave(clients[1]);
  client_finish(clients[2]);
  assert_true(client_seconds(clients[2]) < 4.1);
  assert_int_equal(clients[1]->dones, 1);
  for (size_t i = 0; i < 3; i++)
    client_free(clients[i]);
  rig_end(NULL, rig);
}

/* ---- leaving from inside a callback ---------------------------------------------------------------------- */

enum { LONG_BODY = 300 * 1024 }; /* above hold_limit: committed before its end */

static void answer_with_a_stream(struct rig *rig)
{
  rig_answers(rig, 200, sse, ROLE, CONTENT, CONTENT DONE, NULL);
}

static void answer_with_a_broken_stream(struct rig *rig)
{
  rig_answers(rig, 200, sse, CONTENT, STREAM_ERROR CONTENT, NULL);
}

static void answer_with_a_cut_stream(struct rig *rig)
{
  rig_plays(rig, (struct pry_http_step){.cut = true}, sse, CONTENT, NULL);
}

static void answer_with_a_body(struct rig *rig)
{
  rig_answers(rig, 200, json, "{\"some\":\"body\"}", NULL);
}

static void answer_with_a_long_body(struct rig *rig)
{
  char *text = malloc(LONG_BODY + 1);
  assert_non_null(text);
  memset(text, 'x', LONG_BODY);
  text[LONG_BODY] = '\0';
  rig_answers(rig, 200, json, text, NULL);
  free(text);
}

static void answer_with_an_error(struct rig *rig)
{
  rig_answers(rig, 500, json, "{\"error\":{\"message\":\"the provider's own\"}}", NULL);
}

static void answer_not_at_all(struct rig *rig)
{
  rig_plays(rig, (struct pry_http_step){.curl_code = PRY_HTTP_RECEIVE_FAILED}, NULL, NULL);
}

static void answer_by_policy(struct rig *rig)
{
  rig_use(rig, "respond", PRY_HANDLER_BIT(PRY_ON_REQUEST), respond);
  rig_commit(rig);
}

struct answer {
  void (*give)(struct rig *rig);
  unsigned attempts;
  bool event_at_the_end; /* an error event follows what the provider's content was */
};

static const struct answer answers[] = {
    {answer_with_a_stream, 1, false}, {answer_with_a_broken_stream, 1, true}, {answer_with_a_cut_stream, 1, true},
    {answer_with_a_body, 1, false},   {answer_with_a_long_body, 1, false},    {answer_with_an_error, 1, false},
    {answer_not_at_all, 1, false},    {answer_by_policy, 0, false},
};

enum { ANSWERS = sizeof answers / sizeof *answers };

static struct rig *rig_with_observer(rig_policy_fn on_outcome)
{
  struct rig *rig = rig_new();
  rig_use(rig, "observer", PRY_HANDLER_BIT(PRY_ON_OUTCOME), on_outcome);
  rig_use(rig, "counter", PRY_HANDLER_BIT(PRY_ON_DONE), silent);
  rig_commit(rig);
  return rig;
}

static void leave_at_the_error_event(struct client *client)
{
  if (client->body.size)
    client_leave(client);
}

static struct client *client_of(struct rig *rig, const struct answer *answer)
{
  answer->give(rig);
  return client_start(rig, NULL, BODY, NULL);
}

/* A client that left while it was told the head got the body all the same, out of memory that leaving had freed. */
static void leaving_in_the_head_ends_the_answer(void **unused)
{
  (void)unused;
  for (size_t i = 0; i < ANSWERS; i++) {
    struct rig *rig = rig_with_observer(silent);
    struct client *client = client_of(rig, &answers[i]);
    client->at_head = client_leave;
    client_is_gone(client, answers[i].attempts);
    assert_int_equal(client->heads, 1);
    assert_int_equal(client->body.size, 0);
    assert_int_equal(rig->runs[PRY_ON_OUTCOME], answers[i].attempts);
    rig_end(client, rig);
  }
}

/* A client that left while it was handed bytes and then read them met freed memory; they stay readable until the
 * callback returns. */
static void leaving_in_the_data_ends_the_answer(void **unused)
{
  (void)unused;
  for (size_t i = 0; i < ANSWERS; i++) {
    struct rig *rig = rig_with_observer(silent);
    struct client *client = client_of(rig, &answers[i]);
    client->at_data = client_leave;
    client_is_gone(client, answers[i].attempts);
    assert_true(client->body.size > 0);
    assert_int_equal(rig->runs[PRY_ON_OUTCOME], answers[i].attempts);
    rig_end(client, rig);
  }
}

/* Leaving while the error event was handed over ended the attempt twice: its observers counted one failure as two. */
static void leaving_in_an_error_event_is_observed_once(void **unused)
{
  (void)unused;
  for (size_t i = 0; i < ANSWERS; i++) {
    if (!answers[i].event_at_the_end)
      continue;
    struct rig *rig = rig_with_observer(silent);
    struct client *client = client_of(rig, &answers[i]);
    client->at_data = leave_at_the_error_event;
    client_is_gone(client, 1);
    assert_int_equal(rig->runs[PRY_ON_OUTCOME], 1);
    rig_end(client, rig);
  }
}

/* The second of the two passes began while the first one's observer waited: the call was freed, and the observer then
 * answered to nobody. */
static void leaving_in_an_error_event_waits_for_observers(void **unused)
{
  (void)unused;
  for (size_t i = 0; i < ANSWERS; i++) {
    if (!answers[i].event_at_the_end)
      continue;
    struct rig *rig = rig_with_observer(wait_once);
    struct client *client = client_of(rig, &answers[i]);
    client->at_data = leave_at_the_error_event;
    pry_loop_advance(rig->loop, 5 * PRY_SECOND);
    assert_int_equal(client->dones, 0);
    rig_pending_done(rig);
    client_is_gone(client, 1);
    assert_int_equal(rig->runs[PRY_ON_OUTCOME], 1);
    rig_end(client, rig);
  }
}

static void leave_from_done(struct client *client)
{
  pry_call_cancel(client->call);
}

static void leaving_in_done_changes_nothing(void **unused)
{
  (void)unused;
  for (size_t i = 0; i < ANSWERS; i++) {
    struct rig *rig = rig_with_observer(silent);
    struct client *client = client_of(rig, &answers[i]);
    client->at_done = leave_from_done;
    client_finish(client);
    assert_int_not_equal(client->outcome.category, PRY_CANCELLED);
    pry_loop_advance(rig->loop, PRY_SECOND);
    assert_int_equal(client->dones, 1);
    assert_int_equal(rig->runs[PRY_ON_OUTCOME], answers[i].attempts);
    assert_int_equal(rig->runs[PRY_ON_DONE], 1);
    rig_end(client, rig);
  }
}

/* ---- every place a call can be in ------------------------------------------------------------------------ */

static enum pry_ask_status retry_in_5(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_RETRY;
  ask->verdict.after = 5;
  return PRY_ASK_DONE;
}

static enum pry_ask_status fall_back_in_5(struct rig *rig, struct pry_ask *ask)
{
  ask->verdict.after = 5;
  return fall_back(rig, ask);
}

/* Ways of a call that take some virtual seconds; a slow good stream is the end of each. */
static const struct way {
  enum pry_handler handler;
  rig_policy_fn policy;
  int first_status; /* of the first answer; 0: the stream at once */
} ways[] = {
    {PRY_ON_ERROR, silent, 0},     {PRY_ON_ERROR, retry_in_5, 503}, {PRY_ON_ERROR, fall_back_in_5, 500},
    {PRY_ON_ERROR, renew, 401},    {PRY_ON_REQUEST, hold_until, 0}, {PRY_ON_ATTEMPT, hold_until, 0},
    {PRY_ON_ATTEMPT, hold_one, 0},
};

enum { WAYS = sizeof ways / sizeof *ways, WAITING_HANDLERS = PRY_ON_DONE + 2 };

/* A call on its way; the handler with number `waiting` waits when it is first asked (the last number: none does). */
static struct client *client_on_its_way(const struct way *way, unsigned waiting)
{
  struct rig *rig = rig_new();
  rig->with_credential = true;
  rig->refresh_delay = 5;
  rig_use(rig, "slow", waiting <= PRY_ON_DONE ? PRY_HANDLER_BIT(waiting) : 0, wait_once);
  rig_use(rig, "way", PRY_HANDLER_BIT(way->handler), way->policy);
  rig_commit(rig);
  if (way->first_status)
    rig_answers(rig, way->first_status, json, "{}", NULL);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 2}, sse, CONTENT, DONE, NULL);
  return client_start(rig, NULL, BODY, NULL);
}

static bool a_handler_waits(const struct rig *rig)
{
  return rig->pending && rig->pending->handler != PRY_REFRESH;
}

static void reload_all_the_way(struct client *client, bool leaves)
{
  struct rig *rig = client->rig;
  for (unsigned half = 1; half <= 30; half++) {
    pry_loop_advance(rig->loop, PRY_SECOND / 2);
    rig_commit(rig);
    if (half == 9 && a_handler_waits(rig))
      rig_pending_done(rig);
    if (half == 12 && leaves && client->call)
      client_leave(client);
  }
  if (a_handler_waits(rig)) /* one that was asked later */
    rig_pending_done(rig);
  client_finish(client);
  pry_loop_advance(rig->loop, 30 * PRY_SECOND);
  if (a_handler_waits(rig))
    rig_pending_done(rig);
}

static void reloads_in_any_state_keep_no_old_state(void **unused)
{
  (void)unused;
  for (size_t i = 0; i < WAYS * WAITING_HANDLERS; i++) {
    for (int leaves = 0; leaves < 2; leaves++) {
      struct client *client = client_on_its_way(&ways[i / WAITING_HANDLERS], i % WAITING_HANDLERS);
      struct rig *rig = client->rig;
      reload_all_the_way(client, leaves);
      assert_true(leaves || client->outcome.ok);
      assert_int_equal(rig->states, 1);
      rig_end(client, rig);
    }
  }
}

static void a_call_in_backoff_meets_the_new_policy(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_in_5);
  struct pry_http_step step = {.status = 503};
  pry_http_script_set_default(rig->script, &step);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  pry_loop_advance(rig->loop, PRY_SECOND);
  rig->policies[0].run = respond;
  rig_commit(rig);
  client_finish(client);
  assert_int_equal(client->status, 203);
  assert_int_equal(rig_upstream(rig), 2);
  rig_end(client, rig);
}

/* ---- the end of the engine ------------------------------------------------------------------------------- */

static void freeing_the_engine_ends_every_call(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  pry_http_script_set_default(rig->script, &hang);
  struct client *one = client_start(rig, NULL, BODY, NULL);
  pry_loop_advance(rig->loop, PRY_SECOND);
  struct client *two = client_start(rig, NULL, BODY, NULL);
  rig_free_engine(rig);
  assert_int_equal(one->dones, 1);
  assert_int_equal(two->dones, 1);
  assert_int_equal(pry_http_open_count(rig->http), 0);
  client_free(one);
  client_free(two);
  rig_free(rig);
}

static void the_engine_may_be_freed_in_any_state(void **unused)
{
  (void)unused;
  for (size_t i = 0; i < WAYS * WAITING_HANDLERS; i++) {
    for (unsigned half = 0; half < 16; half++) {
      struct client *client = client_on_its_way(&ways[i / WAITING_HANDLERS], i % WAITING_HANDLERS);
      struct rig *rig = client->rig;
      pry_loop_advance(rig->loop, half * PRY_SECOND / 2);
      if (half % 2 && client->call)
        client_leave(client);
      rig_free_engine(rig);
      assert_int_equal(client->dones, 1);
      assert_int_equal(rig->states, 0);
      assert_int_equal(pry_http_open_count(rig->http), 0);
      client_free(client);
      rig_free(rig);
    }
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_client_may_leave_in_any_state),
      cmocka_unit_test(a_client_may_leave_while_a_handler_waits),
      cmocka_unit_test(observers_may_wait_after_a_client_left),
      cmocka_unit_test(leaving_a_queue_gives_the_place_to_the_next),
      cmocka_unit_test(leaving_in_the_head_ends_the_answer),
      cmocka_unit_test(leaving_in_the_data_ends_the_answer),
      cmocka_unit_test(leaving_in_an_error_event_is_observed_once),
      cmocka_unit_test(leaving_in_an_error_event_waits_for_observers),
      cmocka_unit_test(leaving_in_done_changes_nothing),
      cmocka_unit_test(reloads_in_any_state_keep_no_old_state),
      cmocka_unit_test(a_call_in_backoff_meets_the_new_policy),
      cmocka_unit_test(freeing_the_engine_ends_every_call),
      cmocka_unit_test(the_engine_may_be_freed_in_any_state),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
