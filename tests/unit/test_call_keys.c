/* What a call does with several keys, and with its time for waiting, where policy tests cannot reach. */
#include "call_policies.h"

static const char *sent_key(const struct rig *rig, size_t i)
{
  static char text[64];
  struct pry_slice value = {0};
  const struct pry_http_seen *seen = pry_http_script_seen(rig->script, i);
  assert_true(pry_headers_get(&seen->headers, PRY_SLICE("authorization"), &value));
  snprintf(text, sizeof text, "%.*s", (int)value.size, value.data);
  return text;
}

static const struct pry_provider *provider_of(const struct rig *rig)
{
  return &pry_engine_generation(rig->engine)->config->providers[0];
}

static void retire(struct rig *rig, size_t index)
{
  uint64_t version;
  const struct pry_provider *provider = provider_of(rig);
  pry_time now = pry_loop_now(rig->loop);
  pry_keys_usable(rig->engine->keys, provider, index, false, &version, now);
  assert_int_equal(
      pry_keys_retire(rig->engine->keys, provider, provider->keys[index]->name, version, now + 600 * PRY_SECOND, now),
      PRY_KEY_MARK_SET);
}

static struct rig *rig_with_keys(size_t keys, unsigned handler, rig_policy_fn run)
{
  struct rig *rig = rig_new();
  rig->keys = keys;
  rig_use(rig, "policy", PRY_HANDLER_BIT(handler), run);
  rig_commit(rig);
  return rig;
}

/* The policy holds the attempt until its third second. */
static void a_key_that_is_lost_while_held_is_replaced(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with_keys(2, PRY_ON_ATTEMPT, hold_until);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  pry_loop_turn(rig->loop, 0);
  retire(rig, 0);
  client_finish(client);
  assert_int_equal(client->status, 200);
  assert_string_equal(sent_key(rig, 0), "Bearer key-2");
  rig_end(client, rig);
}

static void all_keys_lost_while_held_refuse_the_attempt(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with_keys(2, PRY_ON_ATTEMPT, hold_until);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  pry_loop_turn(rig->loop, 0);
  retire(rig, 0);
  retire(rig, 1);
  client_finish(client);
  assert_int_equal(client->status, 401);
  assert_int_equal(pry_http_script_seen_count(rig->script), 0);
  assert_string_equal(client->outcome.failure.code, "no_usable_key");
  assert_int_equal(client->outcome.attempts, 0);
  rig_end(client, rig);
}

/* A reload between two attempts: the value that goes out is the new one's, and the old one's failure is not held against
 * it. */
static void a_reload_between_attempts_sends_the_new_value(void **unused)
{
  (void)unused;
  for (size_t keys = 1; keys <= 2; keys++) {
    struct rig *rig = rig_with_keys(keys, PRY_ON_ERROR, retry_twice);
    rig_answers(rig, 500, json, "{}", NULL);
    rig_answers(rig, 200, json, "{}", NULL);
    struct client *client = client_start(rig, NULL, BODY, NULL);
    while (!rig->runs[PRY_ON_ERROR])
      assert_true(pry_loop_turn(rig->loop, PRY_SECOND));
    uint64_t old = pry_call_get_view(client->call)->ledger[0].key_version;
    rig->first_key = "changed";
    rig_commit(rig);
    pry_time now = pry_loop_now(rig->loop);
    assert_int_equal(pry_keys_retire(rig->engine->keys, provider_of(rig), "K1", old, now + PRY_SECOND * 60, now),
                     PRY_KEY_MARK_STALE);
    client_finish(client);
    assert_int_equal(client->status, 200);
    assert_string_equal(sent_key(rig, 0), "Bearer key-1");
    assert_string_equal(sent_key(rig, 1), "Bearer changed");
    rig_end(client, rig);
  }
}

static void a_reload_may_take_the_keys_away(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with_keys(2, PRY_ON_ERROR, retry_twice);
  rig_answers(rig, 500, json, "{}", NULL);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  while (!rig->runs[PRY_ON_ERROR])
    assert_true(pry_loop_turn(rig->loop, PRY_SECOND));
  rig->keys = 0;
  rig_commit(rig);
  client_finish(client);
  struct pry_slice value;
  assert_int_equal(client->status, 200);
  assert_false(pry_headers_get(&pry_http_script_seen(rig->script, 1)->headers, PRY_SLICE("authorization"), &value));
  rig_end(client, rig);
}

static enum pry_ask_status rotate(struct rig *rig, struct pry_ask *ask)
{
  (void)rig;
  ask->verdict.kind = PRY_VERDICT_ROTATE;
  return PRY_ASK_DONE;
}

/* The verdict alone bounds itself: each key once, whatever the policy wants. */
static void rotate_takes_each_key_once(void **unused)
{
  (void)unused;
  struct rig *rig = rig_with_keys(3, PRY_ON_ERROR, rotate);
  for (int i = 0; i < 4; i++)
    rig_answers(rig, 500, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 500);
  assert_int_equal(pry_http_script_seen_count(rig->script), 3);
  assert_string_equal(sent_key(rig, 0), "Bearer key-1");
  assert_string_equal(sent_key(rig, 1), "Bearer key-2");
  assert_string_equal(sent_key(rig, 2), "Bearer key-3");
  rig_end(client, rig);
}

static void rotate_needs_another_key(void **unused)
{
  (void)unused;
  for (size_t keys = 0; keys < 2; keys++) {
    struct rig *rig = rig_with_keys(keys, PRY_ON_ERROR, rotate);
    rig_answers(rig, 500, json, "{}", NULL);
    struct client *client = client_call(rig, BODY);
    assert_int_equal(client->status, 500);
    assert_int_equal(pry_http_script_seen_count(rig->script), 1);
    rig_end(client, rig);
  }
}

/* What cannot be repeated is not, with whatever key; what was refused for its key was not carried out. */
static void rotate_repeats_only_what_may_be(void **unused)
{
  (void)unused;
  static const int statuses[] = {500, 401, 402, 403};
  for (size_t i = 0; i < 4; i++) {
    struct rig *rig = rig_new();
    rig->keys = 2;
    rig->repeatable = PRY_ONLY_FALSE;
    rig_use(rig, "rotate", PRY_HANDLER_BIT(PRY_ON_ERROR), rotate);
    rig_commit(rig);
    rig_answers(rig, statuses[i], json, "{}", NULL);
    rig_answers(rig, 200, json, "{}", NULL);
    struct client *client = client_call(rig, BODY);
    assert_int_equal(client->status, statuses[i] == 500 ? 500 : 200);
    rig_end(client, rig);
  }
}

static enum pry_ask_status pause_and_retry(struct rig *rig, struct pry_ask *ask)
{
  uint64_t version;
  const struct pry_provider *provider = provider_of(rig);
  pry_time now = pry_loop_now(rig->loop);
  size_t index = pry_keys_index(provider, ask->call->target.key);
  pry_keys_usable(rig->engine->keys, provider, index, false, &version, now);
  pry_keys_pause(rig->engine->keys, provider, ask->call->target.key, version, now + 30 * PRY_SECOND, now);
  return retry_twice(rig, ask);
}

/* A regression: with round_robin a retry went to the next key of the same account at once. A key's own limit is one that
 * somebody has paused the key for; else the server meant everybody. */
static void a_server_is_not_asked_before_its_time_with_another_key(void **unused)
{
  (void)unused;
  for (int paused = 0; paused < 2; paused++) {
    struct rig *rig = rig_new();
    rig->keys = 2;
    rig->round_robin = true;
    rig_use(rig, "policy", PRY_HANDLER_BIT(PRY_ON_ERROR), paused ? pause_and_retry : retry_twice);
    rig_commit(rig);
    rig_answers(rig, 429, (const char *const[]){"Retry-After", "30", NULL}, "{}", NULL);
    rig_answers(rig, 200, json, "{}", NULL);
    struct client *client = client_call(rig, BODY);
    assert_int_equal(client->status, 200);
    assert_string_equal(sent_key(rig, 0), "Bearer key-1");
    assert_string_equal(sent_key(rig, 1), "Bearer key-2");
    assert_true(paused ? client_seconds(client) < 1 : client_seconds(client) >= 30);
    rig_end(client, rig);
  }
}

/* hold_one() would wait for ten seconds; the route allows four. */
static void max_wait_bounds_a_hold(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig->max_wait = 4 * PRY_SECOND;
  rig_use(rig, "hold", PRY_HANDLER_BIT(PRY_ON_ATTEMPT), hold_one);
  rig_commit(rig);
  struct pry_slice text = PRY_SLICE("{}");
  struct pry_http_step step = {.chunks = &text, .chunk_count = 1, .chunk_delay = 20};
  pry_http_script_set_default(rig->script, &step);
  struct client *first = client_start(rig, NULL, BODY, NULL);
  struct client *second = client_start(rig, NULL, BODY, NULL);
  client_finish(second);
  assert_int_equal(second->status, 429);
  assert_true(client_seconds(second) >= 4 && client_seconds(second) < 4.1);
  client_free(second);
  client_finish(first);
  rig_end(first, rig);
}

/* A time that is further away is not begun to be waited for. */
static void max_wait_bounds_a_time(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig->max_wait = 2 * PRY_SECOND;
  rig_use(rig, "hold", PRY_HANDLER_BIT(PRY_ON_ATTEMPT), hold_until);
  rig_commit(rig);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 429);
  assert_true(client_seconds(client) < 0.1);
  rig_end(client, rig);
}

/* A client that leaves while a bounded renewal runs leaves nothing behind. */
static void a_client_may_leave_a_bounded_wait(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  rig->with_credential = true;
  rig->refresh_delay = 10;
  rig->max_wait = 5 * PRY_SECOND;
  rig_use(rig, "renew", PRY_HANDLER_BIT(PRY_ON_ERROR), renew);
  rig_commit(rig);
  rig_answers(rig, 401, json, "expired", NULL);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  while (!rig->pending)
    assert_true(pry_loop_turn(rig->loop, PRY_SECOND));
  pry_call_cancel(client->call);
  client_finish(client);
  assert_int_equal(client->outcome.status, 499);
  rig_end(client, rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_key_that_is_lost_while_held_is_replaced),
      cmocka_unit_test(all_keys_lost_while_held_refuse_the_attempt),
      cmocka_unit_test(a_reload_between_attempts_sends_the_new_value),
      cmocka_unit_test(a_reload_may_take_the_keys_away),
      cmocka_unit_test(rotate_takes_each_key_once),
      cmocka_unit_test(rotate_needs_another_key),
      cmocka_unit_test(rotate_repeats_only_what_may_be),
      cmocka_unit_test(a_server_is_not_asked_before_its_time_with_another_key),
      cmocka_unit_test(max_wait_bounds_a_hold),
      cmocka_unit_test(max_wait_bounds_a_time),
      cmocka_unit_test(a_client_may_leave_a_bounded_wait),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
