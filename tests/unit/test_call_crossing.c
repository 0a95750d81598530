/* What the parts of a call do to each other: translation, early heads, injected answers, keys, waits; in virtual time. */
#define GO                                                                                                             \
  "return policy { name = 'p', on_attempt = function(self, call)\n"                                                    \
  "  local what = call:header('x-to') or ''\n"                                                                         \
  "  if what:find '^late%d' and #call.ledger < 2 then return inject { delay = 2 } end\n"                               \
  "  if what:find 'made' then return inject { status = 200, delay = what:find 'later' and 3 or 0, headers = { "        \
  "['content-type'] = 'application/json' },\n"                                                                         \
  "    body = '{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}' } end\n"                      \
  "end, on_error = function(self, call, err)\n"                                                                        \
  "  local to = (call:header('x-to') or ''):match('%d: (.*)')\n"                                                       \
  "  local n = 0\n"                                                                                                    \
  "  for target in (to or ''):gmatch('%S+') do\n"                                                                      \
  "    n = n + 1\n"                                                                                                    \
  "    if n == #call.ledger then return fallback { target = target, strip = true } end\n"                              \
  "  end\n"                                                                                                            \
  "end }\n"
#include "translate_rig.h"

#include "call_internal.h"

static struct client ask(struct rig *rig, const char *path, const char *body, const char *plan)
{
  struct client client;
  call(&client, rig, path, body, plan);
  return client;
}

static void over(struct client *client, struct rig *rig)
{
  pry_buffer_fini(&client->body);
  rig_free(rig);
}

/* A body of this type and length, after that many seconds. */
static void answers_late(struct rig *rig, int status, const char *type, const char *body, double delay)
{
  struct pry_headers headers;
  struct pry_slice whole = pry_slice_of(body);
  pry_headers_init(&headers);
  assert_true(pry_headers_add(&headers, PRY_SLICE("content-type"), pry_slice_of(type)));
  struct pry_http_step step = {
      .status = status, .headers = &headers, .chunks = &whole, .chunk_count = 1, .delay = delay};
  assert_true(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&headers);
}

/* ---- translation and early heads ---------------------------------------------------------------------------- */

#define EARLY(more)                                                                                                    \
  "provider 'q' { base_url = 'http://q.test/v1/messages', dialect = 'anthropic'" more " }\n"                           \
  "provider 'r' { base_url = 'http://r.test', dialect = 'openai' }\n"                                                  \
  "route '/v1/*' { to = 'q', early_head = 2, chain = { use 'p' } }\n"

/* A regression: a whole body that was translated went out as it was, behind the head of a stream. */
static void a_translated_body_cannot_follow_an_early_head(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig, EARLY(""), BAD);
  answers_late(rig, 200, JSON, "{\"id\":\"i\",\"content\":[{\"type\":\"text\",\"text\":\"plain\"}]}", 3);
  struct client client = ask(rig, CHAT, ASK, NULL);
  assert_int_equal(client.status, 200);
  assert_false(client.outcome.ok);
  assert_string_equal(client.outcome.failure.code, "not_a_stream");
  assert_null(strstr(text_of(&client), "plain"));
  assert_non_null(strstr(text_of(&client), ": waiting"));
  assert_non_null(strstr(text_of(&client), "data: {\"error\""));
  over(&client, rig);
}

static void a_translated_stream_follows_an_early_head(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig, EARLY(""), BAD);
  answers_late(rig, 200, SSE, CLAUDE, 3);
  struct client client = ask(rig, CHAT, ASK, NULL);
  assert_true(client.outcome.ok);
  assert_non_null(strstr(text_of(&client), ": waiting for the provider\n\ndata: {"));
  assert_non_null(strstr(text_of(&client), "llo"));
  assert_non_null(strstr(text_of(&client), "data: [DONE]"));
  over(&client, rig);
}

/* Behind the head the next target may be one of the client's own dialect, and the other way round. */
static void a_fallback_out_of_a_translation_follows_an_early_head(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig, EARLY(""), BAD);
  answers_late(rig, 200, SSE, CLAUDE_BEGIN EVENT("error", ",\"error\":{\"type\":\"overloaded_error\"}"), 3);
  answers_late(rig, 200, SSE, "data: {\"choices\":[{\"delta\":{\"content\":\"plain\"}}]}\n\ndata: [DONE]\n\n", 1);
  struct client client = ask(rig, CHAT, ASK, "1: r/m");
  assert_true(client.outcome.ok);
  assert_non_null(strstr(text_of(&client), "plain"));
  assert_int_equal(client.outcome.attempts, 2);
  over(&client, rig);
}

static void a_translated_stream_that_breaks_ends_with_an_event_of_the_client(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig, EARLY(""), BAD);
  answers_late(rig, 200, SSE,
               CLAUDE_BEGIN CLAUDE_TEXT("a") EVENT("error", ",\"error\":{\"type\":\"overloaded_error\"}"), 3);
  struct client client = ask(rig, CHAT, ASK, "1: r/m");
  assert_false(client.outcome.ok);
  assert_false(client.truncated);
  assert_null(strstr(text_of(&client), "event: error"));
  assert_non_null(strstr(text_of(&client), "data: {\"error\""));
  over(&client, rig);
}

/* A regression: what a provider sends behind its end marker was translated and followed the client's, too. */
static void nothing_follows_the_end_of_a_translated_stream(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig, EARLY(""), BAD);
  for (int apart = 0; apart < 2; apart++) {
    if (apart)
      answers_pieces(rig, CLAUDE CLAUDE_TEXT("late"), strlen(CLAUDE), 0.5);
    else
      answers_late(rig, 200, SSE, CLAUDE CLAUDE_TEXT("late"), 0);
    struct client client = ask(rig, CHAT, ASK, NULL);
    assert_true(client.outcome.ok);
    assert_null(strstr(text_of(&client), "late"));
    assert_string_equal(text_of(&client) + client.body.size - 14, "data: [DONE]\n\n");
    pry_buffer_fini(&client.body);
  }
  rig_free(rig);
}

static void an_error_in_a_200_is_found_before_it_is_translated(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig, EARLY(""), BAD);
  answers_late(rig, 200, JSON, "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}", 0);
  answers_late(rig, 200, JSON, "{\"choices\":[]}", 0);
  struct client client = ask(rig, CHAT, "{\"model\":\"m\",\"messages\":[]}", "1: r/m");
  assert_true(client.outcome.ok);
  assert_string_equal(text_of(&client), "{\"choices\":[]}");
  over(&client, rig);
}

/* Before content a slow stream is another attempt, after it one that is told of or cut, in the client's dialect. */
static void a_translated_stream_may_be_too_slow(void **unused)
{
  (void)unused;
  for (int after = 0; after < 2; after++) {
    struct rig *rig = rig_new();
    load(rig,
         "provider 'q' { base_url = 'http://q.test/v1/messages', dialect = 'anthropic' }\n"
         "provider 'r' { base_url = 'http://r.test', dialect = 'openai' }\n"
         "route '/v1/*' { to = 'q', slow_stream = { events = 1, seconds = 15, cut = true }, chain = { use 'p' } }\n",
         BAD);
    const char *text = CLAUDE_BEGIN CLAUDE_TEXT("a") CLAUDE_END;
    size_t first = strlen(after ? CLAUDE_BEGIN CLAUDE_TEXT("a") : CLAUDE_BEGIN);
    answers_pieces(rig, text, first, 10);
    answers_late(rig, 200, SSE, "data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\ndata: [DONE]\n\n", 0);
    struct client client = ask(rig, CHAT, ASK, "1: r/m");
    assert_int_equal(client.outcome.ok, !after);
    assert_int_equal(client.outcome.attempts, after ? 1 : 2);
    assert_int_equal(strstr(text_of(&client), "stream_too_slow") != NULL, after);
    assert_false(client.truncated);
    over(&client, rig);
  }
}

/* A regression: who had met a limit at the first target, and could not be translated for the second, was not told when to
 * come back. */
static void a_refused_translation_keeps_the_time_of_the_first_failure(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct pry_headers headers;
  pry_headers_init(&headers);
  assert_true(pry_headers_add(&headers, PRY_SLICE("retry-after"), PRY_SLICE("60")));
  struct pry_http_step step = {.status = 429, .headers = &headers};
  assert_true(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&headers);
  struct client client =
      ask(rig, CHAT, "{\"model\":\"m\",\"n\":3,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "1: q/m");
  assert_int_equal(client.status, 429);
  assert_non_null(strstr(text_of(&client), "untranslatable"));
  assert_true(client.outcome.failure.retry_after > 58 && client.outcome.failure.retry_after <= 60);
  over(&client, rig);
}

/* ---- translation and what it costs ------------------------------------------------------------------------------ */

#define PRICED EARLY(", models = { ['*'] = { input = 1, output = 10 } }")

static void tokens_of_translated_answers_are_counted(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig, PRICED, BAD);
  answers_late(rig, 200, SSE, CLAUDE, 0);
  struct client client = ask(rig, CHAT, ASK, NULL);
  assert_int_equal(client.outcome.spent.tokens.input, 3);
  assert_int_equal(client.outcome.spent.tokens.output, 2);
  assert_true(client.outcome.spent.priced);
  pry_buffer_fini(&client.body);
  answers_late(rig, 200, JSON,
               "{\"id\":\"i\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}],\"usage\":{\"input_tokens\":11,"
               "\"output_tokens\":4}}",
               0);
  client = ask(rig, CHAT, "{\"model\":\"claude\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", NULL);
  assert_true(client.outcome.ok);
  assert_int_equal(client.outcome.spent.tokens.input, 11);
  assert_int_equal(client.outcome.spent.tokens.output, 4);
  over(&client, rig);
}

/* A regression: whoever left was told nothing of what the call had used, though the ledger knew it. */
static void a_client_that_leaves_is_told_what_was_used(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct client client = {.leave_at_data = true};
  load(rig, PRICED, BAD);
  answers_late(rig, 200, SSE, CLAUDE, 0);
  start(&client, rig, CHAT, PRY_SLICE(ASK), NULL);
  finish(&client);
  assert_int_equal(client.outcome.category, PRY_CANCELLED);
  assert_int_equal(client.outcome.spent.tokens.input, 3);
  over(&client, rig);
}

/* ---- bodies that are not kept --------------------------------------------------------------------------------------- */

/* Such a body cannot be translated: at the first target the client is told so, another target is not gone to. */
static void a_body_that_is_not_kept_is_not_translated(void **unused)
{
  (void)unused;
  for (int fallback = 0; fallback < 2; fallback++) {
    struct rig *rig = rig_new();
    struct client client = {.rig = rig};
    struct pry_headers headers;
    struct pry_buffer body;
    pry_headers_init(&headers);
    pry_buffer_init(&body, 0);
    pry_buffer_init(&client.body, 0);
    assert_true(pry_headers_add(&headers, PRY_SLICE("content-type"), PRY_SLICE("application/json")));
    assert_true(pry_headers_add(&headers, PRY_SLICE("x-to"), PRY_SLICE("1: q/m")));
    assert_true(
        pry_buffer_append_text(&body, fallback ? "{\"model\":\"m\",\"pad\":\"" : "{\"model\":\"claude\",\"a\":\""));
    if (fallback) {
      struct pry_http_step refused = {.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true};
      assert_true(pry_http_script_push(rig->script, &refused));
    }
    struct pry_call_request request = {.method = PRY_SLICE("POST"),
                                       .path = PRY_SLICE(CHAT),
                                       .headers = &headers,
                                       .body = &body,
                                       .more = true,
                                       .body_size = -1};
    client.call = pry_call_start(rig->engine->control, &request, &client_ops, &client);
    assert_non_null(client.call);
    pry_call_upload(client.call, PRY_SLICE("x\"}"));
    pry_call_upload_end(client.call);
    finish(&client);
    assert_int_equal(client.status, fallback ? 502 : 413);
    assert_true(fallback ? logged(rig, "is not kept, and so cannot be translated")
                         : !!strstr(text_of(&client), "not kept"));
    assert_int_equal(pry_http_script_seen_count(rig->script), fallback);
    pry_headers_fini(&headers);
    over(&client, rig);
  }
}

/* ---- injected answers --------------------------------------------------------------------------------------------- */

#define PLAIN                                                                                                          \
  "provider 'r' { base_url = 'http://r.test', dialect = 'openai', models = { ['*'] = { input = 1, output = 10 } } }\n" \
  "route '/v1/*' { to = 'r', chain = { use 'p' } }\n"

/* A regression: tokens that no provider had made were counted and paid for. */
static void what_is_injected_costs_nothing(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig, PLAIN, BAD);
  struct client client = ask(rig, CHAT, "{\"model\":\"m\"}", "made");
  assert_true(client.outcome.ok);
  assert_false(client.outcome.spent.tokens.known);
  assert_true(client.outcome.spent.cost <= 0);
  assert_int_equal(pry_http_script_seen_count(rig->script), 0);
  over(&client, rig);
}

/* What is injected follows an early head like what a provider says: a stream does, anything else does not. */
static void what_is_injected_follows_an_early_head(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig,
       "provider 'r' { base_url = 'http://r.test', dialect = 'openai' }\n"
       "route '/v1/*' { to = 'r', early_head = 1, chain = { use 'p' } }\n",
       BAD);
  struct client client = ask(rig, CHAT, ASK, "made");
  assert_true(client.outcome.ok); /* it came in time for an ordinary answer */
  pry_buffer_fini(&client.body);
  client = ask(rig, CHAT, ASK, "made later");
  assert_false(client.outcome.ok);
  assert_string_equal(client.outcome.failure.code, "not_a_stream");
  assert_null(strstr(text_of(&client), "choices"));
  over(&client, rig);
}

/* A regression: after an injected delay, a request that could not be made counted as one that was sent. */
static void a_delay_before_a_refused_attempt_sends_nothing(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig,
       "provider 'q' { base_url = 'http://q.test/v1/messages', dialect = 'anthropic' }\n"
       "provider 'r' { base_url = 'http://r.test', dialect = 'openai' }\n"
       "route '/v1/*' { to = 'q', repeatable = false, chain = { use 'p' } }\n",
       BAD);
  answers_late(rig, 200, JSON, "{\"choices\":[]}", 0);
  struct client client =
      ask(rig, CHAT, "{\"model\":\"m\",\"n\":3,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "late1: r/m");
  assert_true(client.outcome.ok);
  assert_int_equal(client.outcome.attempts, 1);
  over(&client, rig);
}

/* ---- stripping ------------------------------------------------------------------------------------------------------ */

/* A regression: the second model of another provider got what only the first provider understands. */
static void what_was_stripped_stays_so_until_the_body_is_home(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig,
       "provider 'p' { base_url = 'http://p.test/v1/messages', dialect = 'anthropic' }\n"
       "provider 'q' { base_url = 'http://q.test/v1/messages', dialect = 'anthropic' }\n"
       "route '/v1/messages*' { to = 'p', chain = { use 'p' } }\n",
       BAD);
  for (int i = 0; i < 3; i++)
    answers_late(rig, 500, JSON, "{}", 0);
  answers_late(rig, 200, JSON, "{}", 0);
  struct client client =
      ask(rig, "/v1/messages",
          "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":"
          "\"hm\",\"signature\":\"s\"},{\"type\":\"text\",\"text\":\"t\"}]}]}",
          "1: q/a q/b p/m");
  assert_true(client.outcome.ok);
  static const bool bound[] = {true, false, false, true};
  for (size_t i = 0; i < 4; i++) {
    const struct pry_http_seen *seen = pry_http_script_seen(rig->script, i);
    assert_non_null(seen);
    assert_int_equal(memmem(seen->body.data, seen->body.size, "signature", 9) != NULL, bound[i]);
  }
  over(&client, rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_translated_body_cannot_follow_an_early_head),
      cmocka_unit_test(a_translated_stream_follows_an_early_head),
      cmocka_unit_test(a_fallback_out_of_a_translation_follows_an_early_head),
      cmocka_unit_test(a_translated_stream_that_breaks_ends_with_an_event_of_the_client),
      cmocka_unit_test(nothing_follows_the_end_of_a_translated_stream),
      cmocka_unit_test(an_error_in_a_200_is_found_before_it_is_translated),
      cmocka_unit_test(a_translated_stream_may_be_too_slow),
      cmocka_unit_test(a_refused_translation_keeps_the_time_of_the_first_failure),
      cmocka_unit_test(tokens_of_translated_answers_are_counted),
      cmocka_unit_test(a_client_that_leaves_is_told_what_was_used),
      cmocka_unit_test(a_body_that_is_not_kept_is_not_translated),
      cmocka_unit_test(what_is_injected_costs_nothing),
      cmocka_unit_test(what_is_injected_follows_an_early_head),
      cmocka_unit_test(a_delay_before_a_refused_attempt_sends_nothing),
      cmocka_unit_test(what_was_stripped_stays_so_until_the_body_is_home),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
