/* A call that waits, for whatever: its client may leave, and nothing of it stays; in virtual time. */
#include "call_policies.h"

enum wait {
  WAIT_SLOT,
  WAIT_WINDOW,
  WAIT_BUCKET,
  WAIT_TIME,
  WAIT_BACKOFF,
  WAIT_RENEWAL,
  WAIT_FIRST_TOKEN,
  WAIT_INJECTED,
  WAIT_HANDLER,
  WAIT_KEYS,
  WAIT_COUNT
};

static enum wait wait;

static enum pry_ask_status hold_as_said(struct pry_ask *ask)
{
  struct pry_verdict *verdict = &ask->verdict;
  verdict->kind = PRY_VERDICT_HOLD;
  verdict->max_wait = 1000;
  if (wait == WAIT_TIME)
    verdict->until_time = RIG_UNIX_TIME + 80;
  else
    snprintf(verdict->key, sizeof verdict->key, "gate");
  if (wait == WAIT_SLOT)
    verdict->slots = 1;
  if (wait == WAIT_WINDOW) {
    verdict->limit = 1;
    verdict->per = 40;
  }
  if (wait == WAIT_BUCKET) {
    verdict->rate = 0.04;
    verdict->burst = 1;
  }
  return PRY_ASK_DONE;
}

/* Everything that a call can wait for, in on_request, on_attempt or on_error. */
static enum pry_ask_status make_it_wait(struct rig *rig, struct pry_ask *ask)
{
  if (ask->handler == PRY_ON_ERROR) {
    ask->verdict.kind = wait == WAIT_RENEWAL ? PRY_VERDICT_RENEW : PRY_VERDICT_RETRY;
    ask->verdict.after = wait == WAIT_BACKOFF ? 60 : wait == WAIT_KEYS ? 70 : -1;
    if (wait != WAIT_RENEWAL && wait != WAIT_BACKOFF && wait != WAIT_KEYS)
      ask->verdict.kind = PRY_VERDICT_NONE;
    return PRY_ASK_DONE;
  }
  if (wait <= WAIT_TIME)
    return hold_as_said(ask);
  if (wait == WAIT_FIRST_TOKEN)
    ask->verdict.kind = PRY_VERDICT_RENEW;
  if (wait == WAIT_INJECTED) {
    ask->verdict.kind = PRY_VERDICT_INJECT;
    ask->verdict.delay = 60;
  }
  return wait == WAIT_HANDLER ? wait_for_it(rig, ask) : PRY_ASK_DONE;
}

static struct rig *waiting_rig(enum pry_handler handler, bool early)
{
  struct rig *rig = rig_new();
  rig->with_credential = wait == WAIT_RENEWAL || wait == WAIT_FIRST_TOKEN;
  rig->keys = wait == WAIT_KEYS ? 2 : 0;
  rig->refresh_delay = 60;
  rig->early_head = early ? 3 * PRY_SECOND : 0;
  rig_use(rig, "policy", PRY_HANDLER_BIT(handler) | PRY_HANDLER_BIT(PRY_ON_ERROR), make_it_wait);
  rig_commit(rig);
  return rig;
}

/* What a call before this one has taken: the only slot, the window's place, what is in the bucket. */
static struct client *take_first(struct rig *rig)
{
  if (wait > WAIT_BUCKET)
    return NULL;
  rig_plays(rig, (struct pry_http_step){.hang = true}, sse, CONTENT, NULL);
  struct client *client = client_start(rig, NULL, STREAM_BODY, NULL);
  pry_loop_advance(rig->loop, PRY_SECOND / 10);
  assert_int_equal(client->heads, 1);
  return client;
}

static void leave_now(struct client *client)
{
  client_leave(client);
  client_finish(client);
  assert_int_equal(client->outcome.category, PRY_CANCELLED);
}

static void whoever_waits(enum pry_handler handler, bool early, bool reload)
{
  struct rig *rig = waiting_rig(handler, early);
  struct client *first = take_first(rig);
  if (wait == WAIT_RENEWAL)
    rig_answers(rig, 401, json, "{}", NULL);
  if (wait == WAIT_BACKOFF || wait == WAIT_KEYS)
    rig_answers(rig, 429, (const char *const[]){"Retry-After", "50", NULL}, "{}", NULL);
  struct client *client = client_start(rig, NULL, STREAM_BODY, NULL);
  pry_loop_advance(rig->loop, 5 * PRY_SECOND);
  if (reload)
    rig_commit(rig);
  pry_loop_advance(rig->loop, 5 * PRY_SECOND);
  assert_int_equal(client->dones, 0);
  assert_int_equal(client->heads, early);
  size_t upstream = rig_upstream(rig);
  leave_now(client);
  assert_int_equal(pry_queue_waiting_total(rig->engine->queues), 0);
  client_free(client);
  if (first) {
    leave_now(first);
    client_free(first);
  }
  pry_loop_advance(rig->loop, 200 * PRY_SECOND);
  assert_int_equal(rig_upstream(rig), upstream);
  if (wait == WAIT_SLOT)
    assert_int_equal(pry_queue_key_count(rig->engine->queues), 0);
  rig_end(NULL, rig);
}

static void a_client_may_leave_whatever_it_waits_for(void **unused)
{
  (void)unused;
  for (int how = 0; how < 4; how++)
    for (wait = 0; wait < WAIT_COUNT; wait++) {
      whoever_waits(PRY_ON_ATTEMPT, how & 1, how & 2);
      if (wait <= WAIT_TIME || wait == WAIT_HANDLER)
        whoever_waits(PRY_ON_REQUEST, how & 1, how & 2);
    }
}

/* The engine may go, too, with all of them waiting. */
static void an_engine_may_end_whatever_its_calls_wait_for(void **unused)
{
  (void)unused;
  for (wait = 0; wait < WAIT_COUNT; wait++) {
    struct rig *rig = waiting_rig(PRY_ON_ATTEMPT, true);
    struct client *first = take_first(rig);
    if (wait == WAIT_RENEWAL)
      rig_answers(rig, 401, json, "{}", NULL);
    if (wait == WAIT_BACKOFF || wait == WAIT_KEYS)
      rig_answers(rig, 429, (const char *const[]){"Retry-After", "50", NULL}, "{}", NULL);
    struct client *client = client_start(rig, NULL, STREAM_BODY, NULL);
    pry_loop_advance(rig->loop, 5 * PRY_SECOND);
    rig_free_engine(rig);
    assert_int_equal(client->dones, 1);
    client_free(client);
    if (first)
      client_free(first);
    rig_free(rig);
  }
}

/* ---- a place that is waited for goes to the next when the first in line leaves --------------------------------- */

static void who_leaves_gives_its_turn_to_the_next(void **unused)
{
  (void)unused;
  for (wait = 0; wait <= WAIT_BUCKET; wait++) {
    struct rig *rig = waiting_rig(PRY_ON_ATTEMPT, true);
    struct client *first = take_first(rig);
    struct client *second = client_start(rig, NULL, STREAM_BODY, NULL);
    struct client *third = client_start(rig, NULL, STREAM_BODY, NULL);
    pry_loop_advance(rig->loop, 10 * PRY_SECOND);
    rig_answers(rig, 200, sse, CONTENT, DONE, NULL);
    leave_now(second);
    leave_now(first);
    client_finish(third);
    assert_true(third->outcome.ok);
    assert_true(pry_time_to_seconds(pry_loop_now(rig->loop) - third->started) < 45);
    client_free(first);
    client_free(second);
    rig_end(third, rig);
  }
}

/* ---- what a call took before its first attempt ------------------------------------------------------------------ */

static enum pry_ask_status one_a_while(struct rig *rig, struct pry_ask *ask)
{
  if (ask->handler == PRY_ON_ERROR)
    return retry_twice(rig, ask);
  wait = WAIT_WINDOW;
  return hold_as_said(ask);
}

/* A regression: when a call's first attempt did not get through to its provider and the second did, the place that the
 * call had taken in on_request was given back as one that was never used. */
static void a_call_counts_when_its_second_attempt_is_the_first_that_is_sent(void **unused)
{
  (void)unused;
  for (int refused = 0; refused < 2; refused++) {
    struct rig *rig = rig_new();
    rig_use(rig, "one", PRY_HANDLER_BIT(PRY_ON_REQUEST) | PRY_HANDLER_BIT(PRY_ON_ERROR), one_a_while);
    rig_commit(rig);
    if (refused)
      rig_plays(rig, (struct pry_http_step){.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true}, json, NULL);
    rig_answers(rig, 200, json, "{}", NULL);
    rig_answers(rig, 200, json, "{}", NULL);
    struct client *first = client_call(rig, BODY);
    assert_int_equal(first->status, 200);
    struct client *second = client_call(rig, BODY);
    assert_int_equal(second->status, 200);
    assert_true(client_seconds(second) > 39);
    client_free(first);
    rig_end(second, rig);
  }
}

/* ---- on_failure, the client's last policy ------------------------------------------------------------------------- */

enum last_word { WORD_WAITS, WORD_FAULTS, WORD_RESPONDS, WORD_NONSENSE, WORD_LINES };

static enum last_word word;

static enum pry_ask_status last_word(struct rig *rig, struct pry_ask *ask)
{
  if (word == WORD_WAITS)
    return wait_for_it(rig, ask);
  if (word == WORD_FAULTS)
    return PRY_ASK_FAULT;
  ask->verdict.kind = PRY_VERDICT_RESPOND;
  ask->verdict.status = word == WORD_NONSENSE ? 200 : 418;
  pry_buffer_append_text(&ask->verdict.body, word == WORD_LINES ? "{\n\"house\"\r:\r\n1}" : "{\"house\":1}");
  return PRY_ASK_DONE;
}

static void the_last_word_never_holds_up_an_ending(void **unused)
{
  (void)unused;
  for (int early = 0; early < 2; early++)
    for (word = WORD_WAITS; word <= WORD_NONSENSE; word++) {
      struct rig *rig = rig_new();
      rig->early_head = early ? 3 * PRY_SECOND : 0;
      rig_use(rig, "last", PRY_HANDLER_BIT(PRY_ON_FAILURE), last_word);
      rig_commit(rig);
      rig_plays(rig, (struct pry_http_step){.status = 503, .delay = 5}, json, "{\"error\":{}}", NULL);
      struct client *client = client_call(rig, STREAM_BODY);
      const char *body = pry_buffer_text(&client->body);
      bool shaped = word >= WORD_RESPONDS;
      assert_int_equal(client->status, early ? 200 : word == WORD_RESPONDS ? 418 : 503);
      assert_int_equal(strstr(body, "{\"house\":1}") != NULL, shaped);
      assert_int_equal(strstr(body, "\"error\"") != NULL, !shaped);
      assert_int_equal(rig->cancelled_asks, word == WORD_WAITS);
      assert_false(client->outcome.ok);
      rig->pending = NULL;
      rig_end(client, rig);
    }
}

/* A regression: a line that ended with CR alone went out as two lines, of which the second is no data. */
static void every_line_of_the_last_word_is_data(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  word = WORD_LINES;
  rig->early_head = 3 * PRY_SECOND;
  rig_use(rig, "last", PRY_HANDLER_BIT(PRY_ON_FAILURE), last_word);
  rig_commit(rig);
  rig_plays(rig, (struct pry_http_step){.status = 503, .chunk_delay = 5}, json, "{}", NULL);
  struct client *client = client_call(rig, STREAM_BODY);
  client_has_body(client, ": waiting for the provider\n\ndata: {\ndata: \"house\"\ndata: :\ndata: 1}\n\n");
  rig_end(client, rig);
}

/* ---- a time and a place -------------------------------------------------------------------------------------------- */

static enum pry_ask_status hold_both(struct rig *rig, struct pry_ask *ask)
{
  if (rig->counter++) { /* the first call only has the place */
    ask->verdict.until_time = RIG_UNIX_TIME + 9;
    ask->verdict.max_wait = 10;
  }
  ask->verdict.kind = PRY_VERDICT_HOLD;
  ask->verdict.slots = 1;
  snprintf(ask->verdict.key, sizeof ask->verdict.key, "one");
  return PRY_ASK_DONE;
}

/* A regression: max_wait counted anew for the place when the time had come. */
static void max_wait_is_for_the_time_and_the_place(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with("hold", PRY_HANDLER_BIT(PRY_ON_REQUEST), hold_both);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 25}, json, "{}", NULL);
  struct client *first = client_start(rig, NULL, BODY, NULL);
  struct client *second = client_start(rig, NULL, BODY, NULL);
  client_finish(second);
  assert_int_equal(second->status, 429);
  assert_true(client_seconds(second) < 10.1);
  client_finish(first);
  client_free(first);
  rig_end(second, rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_client_may_leave_whatever_it_waits_for),
      cmocka_unit_test(an_engine_may_end_whatever_its_calls_wait_for),
      cmocka_unit_test(who_leaves_gives_its_turn_to_the_next),
      cmocka_unit_test(a_call_counts_when_its_second_attempt_is_the_first_that_is_sent),
      cmocka_unit_test(the_last_word_never_holds_up_an_ending),
      cmocka_unit_test(every_line_of_the_last_word_is_data),
      cmocka_unit_test(max_wait_is_for_the_time_and_the_place),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
