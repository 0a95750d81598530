/* Calls across dialects with the shipped translations and the real Lua: reloads, cuts at every byte, clients that leave,
 * faults and bounds, and what a switch of providers takes out of a body. In virtual time. */
#include "translate_rig.h"

/* ---- streams -------------------------------------------------------------------------------------------------- */

static void a_stream_is_the_same_wherever_the_network_cuts_it(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct client whole, client;
  answers(rig, 200, SSE, PRY_SLICE(CLAUDE), false);
  call(&whole, rig, CHAT, ASK, NULL);
  assert_true(whole.outcome.ok);
  assert_non_null(strstr(text_of(&whole), "data: [DONE]\n\n"));
  assert_non_null(strstr(text_of(&whole), "h\xc3\xa9"));
  for (size_t cut = 1; cut < strlen(CLAUDE); cut++) {
    answers_pieces(rig, CLAUDE, cut, 0);
    call(&client, rig, CHAT, ASK, NULL);
    assert_true(client.outcome.ok);
    assert_string_equal(text_of(&client), text_of(&whole));
    pry_buffer_fini(&client.body);
  }
  pry_buffer_fini(&whole.body);
  rig_free(rig);
}

/* Wherever it breaks off: whole with [DONE], or an error, never something that looks whole and is not. */
static void a_broken_stream_never_looks_whole(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct client client;
  size_t end = strlen(CLAUDE) - 1;
  for (size_t size = 1; size < strlen(CLAUDE); size++) {
    answers(rig, 200, SSE, (struct pry_slice){CLAUDE, size}, true);
    call(&client, rig, CHAT, ASK, NULL);
    if (size < end)
      assert_false(client.outcome.ok);
    assert_false(client.truncated);
    bool error = strstr(text_of(&client), "\"error\":{"), done = strstr(text_of(&client), "[DONE]");
    assert_int_equal(client.outcome.ok, done);
    assert_int_equal(!client.outcome.ok, error);
    pry_buffer_fini(&client.body);
  }
  rig_free(rig);
}

static void a_client_that_leaves_ends_it(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  for (int at_data = 0; at_data < 2; at_data++) {
    struct client client = {.leave_at_data = at_data};
    answers_pieces(rig, CLAUDE, strlen(CLAUDE_BEGIN CLAUDE_TEXT("h\\u00e9")), 1);
    start(&client, rig, CHAT, PRY_SLICE(ASK), NULL);
    pry_loop_advance(rig->loop, PRY_SECOND * 3 / 2);
    if (!at_data)
      pry_call_cancel(client.call);
    finish(&client);
    assert_int_equal(client.outcome.category, PRY_CANCELLED);
    assert_true(pry_http_script_seen(rig->script, (size_t)at_data)->cancelled);
    pry_buffer_fini(&client.body);
  }
  rig_free(rig);
}

/* What a translation remembers is not in the state that a reload, or a rebuild, replaces; nor does it keep that one. */
static void a_reload_goes_on_with_an_open_stream(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct client whole, client = {0};
  answers(rig, 200, SSE, PRY_SLICE(CLAUDE), false);
  call(&whole, rig, CHAT, ASK, NULL);
  answers_pieces(rig, CLAUDE, strlen(CLAUDE_BEGIN CLAUDE_TEXT("h\\u00e9")), 1);
  start(&client, rig, CHAT, PRY_SLICE(ASK), NULL);
  pry_loop_advance(rig->loop, PRY_SECOND * 3 / 2);
  assert_true(client.body.size > 0);
  for (int i = 0; i < 12; i++) { /* more than may be alive at once */
    char init[sizeof INIT + 64];
    snprintf(init, sizeof init, "%s-- %d\n", INIT, i);
    load(rig, init, BAD);
  }
  finish(&client);
  assert_true(client.outcome.ok);
  /* created differs by the seconds between the two */
  assert_int_equal(client.body.size, whole.body.size);
  assert_non_null(strstr(text_of(&client), "\"id\":\"m1\""));
  assert_non_null(strstr(text_of(&client), "data: [DONE]\n\n"));
  pry_buffer_fini(&whole.body);
  pry_buffer_fini(&client.body);
  rig_free(rig);
}

static void a_reload_may_take_the_translation_away(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct client client = {0};
  answers_pieces(rig, "data: {}\n\ndata: {}\n\ndata: end\n\n", 10, 1);
  start(&client, rig, CHAT, PRY_SLICE("{\"model\":\"bad\"}"), NULL);
  pry_loop_advance(rig->loop, PRY_SECOND * 3 / 2);
  assert_string_equal(text_of(&client), "data: {\"n\":1}\n\n");
  load(rig, INIT, "return dialect { name = 'bad' }");
  finish(&client);
  assert_false(client.outcome.ok);
  assert_string_equal(client.outcome.failure.code, "translation_failed");
  assert_non_null(strstr(text_of(&client), "\"code\":\"translation_failed\""));
  pry_buffer_fini(&client.body);
  rig_free(rig);
}

/* ---- faults and bounds --------------------------------------------------------------------------------------- */

static const char *const acts[] = {"error", "loop", "memory", "nonsense"};

static void a_fault_in_a_request_sends_nothing(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
    char body[64];
    struct client client;
    snprintf(body, sizeof body, "{\"model\":\"bad\",\"act\":\"%s\"}", acts[i]);
    call(&client, rig, CHAT, body, NULL);
    assert_int_equal(client.status, 502);
    assert_non_null(strstr(text_of(&client), "\"code\":\"translation_failed\""));
    assert_null(strstr(text_of(&client), ".lua"));
    assert_int_equal(client.outcome.attempts, 0);
    pry_buffer_fini(&client.body);
  }
  assert_true(logged(rig, "dialects/bad.lua:2"));
  assert_int_equal(pry_http_script_seen_count(rig->script), 0);
  rig_free(rig);
}

static void a_fault_in_an_answer_is_a_failed_attempt(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
    char body[64];
    struct client client;
    snprintf(body, sizeof body, "{\"act\":\"%s\"}", acts[i]);
    answers(rig, 200, JSON, pry_slice_of(body), false);
    call(&client, rig, CHAT, "{\"model\":\"bad\"}", NULL);
    assert_int_equal(client.outcome.category, PRY_SERVER);
    assert_string_equal(client.outcome.failure.code, "translation_failed");
    assert_true(client.outcome.failure.fallback);
    assert_false(client.outcome.failure.retryable);
    pry_buffer_fini(&client.body);
  }
  struct client client;
  answers(rig, 200, JSON, PRY_SLICE("{\"x\":1}"), false);
  call(&client, rig, CHAT, "{\"model\":\"bad\"}", NULL);
  assert_string_equal(text_of(&client), "{\"got\":{\"x\":1},\"n\":0}");
  pry_buffer_fini(&client.body);
  rig_free(rig);
}

static void a_fault_in_a_stream_is_a_failed_attempt_before_the_commit_and_an_error_after_it(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  static const char *const more[] = {"error", "loop", "memory", "grow"};
  for (size_t i = 0; i < sizeof more / sizeof *more; i++)
    for (int after = 0; after < 2; after++) {
      char body[128];
      struct client client;
      snprintf(body, sizeof body, "%sdata: {\"act\":\"%s\"}\n\ndata: {}\n\ndata: end\n\n", after ? "data: {}\n\n" : "",
               more[i]);
      answers(rig, 200, SSE, pry_slice_of(body), false);
      call(&client, rig, CHAT, "{\"model\":\"bad\"}", NULL);
      assert_false(client.outcome.ok);
      assert_int_equal(client.outcome.committed, after);
      assert_int_equal(client.status, after ? 200 : 502);
      assert_string_equal(client.outcome.failure.code, "translation_failed");
      if (after)
        assert_memory_equal(text_of(&client), "data: {\"n\":1}\n\ndata: {\"error\":", 30);
      assert_null(strstr(text_of(&client), "bye"));
      pry_buffer_fini(&client.body);
    }
  rig_free(rig);
}

/* Texts do not count, as they stay in C; a body of very many values does. */
static void a_body_beyond_a_scripts_limits_says_so(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct pry_buffer body;
  struct client client = {0};
  pry_buffer_init(&body, 0);
  pry_buffer_append_text(&body, "{\"model\":\"claude\",\"messages\":[");
  for (int i = 0; i < 400000; i++)
    pry_buffer_append_text(&body, "[],");
  pry_buffer_append_text(&body, "[]]}");
  start(&client, rig, CHAT, pry_buffer_slice(&body), NULL);
  finish(&client);
  assert_int_equal(client.status, 413);
  assert_non_null(strstr(text_of(&client), "too_large_to_translate"));
  char size[32];
  snprintf(size, sizeof size, "%zu bytes", body.size);
  assert_non_null(strstr(text_of(&client), size));
  assert_non_null(strstr(text_of(&client), "8192 KiB"));
  assert_false(logged(rig, "fault")); /* the client's doing: it must not bring a generation down */
  pry_buffer_fini(&client.body);
  pry_buffer_fini(&body);
  rig_free(rig);
}

static void an_answer_beyond_the_bound_is_a_failed_attempt(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct pry_buffer body;
  struct client client;
  pry_buffer_init(&body, 0);
  pry_buffer_append_text(&body, "{\"content\":[{\"type\":\"text\",\"text\":\"");
  size_t start_size = body.size;
  assert_true(pry_buffer_reserve(&body, 5000000));
  memset(body.data + body.size, 'x', 4900000);
  body.size = start_size + 4900000;
  pry_buffer_append_text(&body, "\"}]}");
  answers(rig, 200, JSON, pry_buffer_slice(&body), false);
  call(&client, rig, CHAT, "{\"model\":\"claude\",\"messages\":[]}", NULL);
  assert_string_equal(client.outcome.failure.code, "too_large_to_translate");
  assert_false(client.outcome.committed);
  pry_buffer_fini(&client.body);
  /* Below it an answer far above hold_limit and what a script's texts may have passes. */
  pry_buffer_clear(&body);
  pry_buffer_append_text(&body, "{\"content\":[{\"type\":\"text\",\"text\":\"");
  memset(body.data + body.size, 'x', 3000000);
  body.size += 3000000;
  pry_buffer_append_text(&body, "\"}]}");
  answers(rig, 200, JSON, pry_buffer_slice(&body), false);
  call(&client, rig, CHAT, "{\"model\":\"claude\",\"messages\":[]}", NULL);
  assert_true(client.outcome.ok);
  assert_true(client.body.size > 3000000);
  pry_buffer_fini(&client.body);
  pry_buffer_fini(&body);
  rig_free(rig);
}

/* Untranslated, an event that long passes unread; a client of another dialect could not read it either. */
static void an_event_beyond_the_bound_is_a_failure(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct client client;
  for (int after = 0; after < 2; after++) {
    struct pry_buffer body;
    pry_buffer_init(&body, 0);
    pry_buffer_append_text(&body, after ? CLAUDE_BEGIN CLAUDE_TEXT("x") : CLAUDE_BEGIN);
    pry_buffer_append_text(
        &body, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"");
    assert_true(pry_buffer_reserve(&body, 5000000));
    memset(body.data + body.size, 'x', 4900000);
    body.size += 4900000;
    pry_buffer_append_text(&body, "\",\"type\":\"text_delta\"},\"index\":0}\n\n" CLAUDE_END);
    answers(rig, 200, SSE, pry_buffer_slice(&body), false);
    call(&client, rig, CHAT, ASK, NULL);
    assert_false(client.outcome.ok);
    assert_int_equal(client.outcome.committed, after);
    assert_null(strstr(text_of(&client), "xxxx"));
    assert_null(strstr(text_of(&client), "[DONE]"));
    assert_non_null(strstr(text_of(&client), "\"error\":{"));
    pry_buffer_fini(&client.body);
    pry_buffer_fini(&body);
  }
  rig_free(rig);
}

/* ---- where a translated request goes ----------------------------------------------------------------------------- */

static void paths_are_joined_whatever_a_base_url_has_of_them(void **unused)
{
  (void)unused;
  static const char *const cases[][3] = {
      {"https://h", "/v1/messages", "https://h/v1/messages"},
      {"https://h/", "/v1/messages", "https://h/v1/messages"},
      {"https://h/v1", "/v1/messages", "https://h/v1/messages"},
      {"https://h/v1/messages", "/v1/messages", "https://h/v1/messages"},
      {"https://h/v1/messages/", "/v1/messages", "https://h/v1/messages"},
      {"https://h/messages", "/v1/messages", "https://h/messages"},
      {"https://h/v2/messages", "/v1/messages", "https://h/v2/messages"},
      {"https://h/anthropic", "/v1/messages", "https://h/anthropic/v1/messages"},
      {"https://h/v1/chat/completions", "/v1/chat/completions", "https://h/v1/chat/completions"},
      {"https://h/api/paas/v4", "/v1/chat/completions", "https://h/api/paas/v4/chat/completions"},
      {"https://h/v1beta/openai", "/v1/chat/completions", "https://h/v1beta/openai/chat/completions"},
      {"https://v1.h", "/v1/messages", "https://v1.h/v1/messages"},
      {"https://h/xv1", "/v1/messages", "https://h/xv1/v1/messages"},
      {"https://h/v", "/x", "https://h/v/x"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct pry_buffer url;
    pry_buffer_init(&url, 0);
    assert_true(pry_join_api_url(&url, cases[i][0], cases[i][1]));
    assert_string_equal(pry_buffer_text(&url), cases[i][2]);
    pry_buffer_fini(&url);
  }
}

/* ---- switching providers ------------------------------------------------------------------------------------------- */

/* The second request's body, after the first provider failed. */
static const char *switched(struct rig *rig, const char *path, const char *body, const char *to)
{
  static char text[4096];
  struct client client;
  size_t before = pry_http_script_seen_count(rig->script);
  answers(rig, 500, JSON, PRY_SLICE("{}"), false);
  answers(rig, 200, JSON, PRY_SLICE("{}"), false);
  call(&client, rig, path, body, to);
  pry_buffer_fini(&client.body);
  assert_int_equal(pry_http_script_seen_count(rig->script), before + 2);
  struct pry_slice sent = pry_http_script_seen(rig->script, before + 1)->body;
  snprintf(text, sizeof text, "%.*s", (int)sent.size, sent.data);
  return text;
}

static void bodies_without_bound_parts_pass_byte_for_byte(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  static const char *const bodies[] = {
      "{ \"model\":\"m2\", \"messages\":[ {\"role\":\"user\",\"content\":\"\\u0061 reasoning\"}], \"x\":1e400 }",
      "{\"model\":\"m2\",\"reasoning\":{\"effort\":\"low\"},\"input\":[],\"z\":null,\"a\":12345678901234567890.50}",
  };
  for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
    assert_string_equal(switched(rig, CHAT, bodies[i], "r/m2"), bodies[i]);
  rig_free(rig);
}

static void bound_parts_go_and_the_rest_stays(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  assert_string_equal(
      switched(rig, CHAT,
               "{\"model\":\"m2\",\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"reasoning_details\":[{}],"
               "\"tool_calls\":[{\"id\":\"1\",\"extra_content\":{\"google\":{\"thought_signature\":\"s\"}}}]}],"
               "\"n\":null,\"tools\":[{\"parameters\":{\"z\":1,\"a\":1e2}}]}",
               "r/m2"),
      "{\"messages\":[{\"content\":\"x\",\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\"}]}],\"model\":\"m2\","
      "\"n\":null,\"tools\":[{\"parameters\":{\"z\":1,\"a\":1e2}}]}");
  assert_string_equal(
      switched(rig, "/v1/responses",
               "{\"model\":\"m2\",\"input\":[{\"type\":\"reasoning\",\"id\":\"rs_1\",\"encrypted_content\":\"e\"},"
               "{\"type\":\"function_call\",\"id\":\"fc_1\",\"call_id\":\"c\",\"arguments\":\"{}\"}]}",
               "r/m2"),
      "{\"input\":[{\"arguments\":\"{}\",\"call_id\":\"c\",\"type\":\"function_call\"}],\"model\":\"m2\"}");
  rig_free(rig);
}

/* Signed thoughts at another endpoint are a 400. The last turn's are needed when thinking is on: so it goes off. */
static void signed_thoughts_do_not_go_to_another_provider(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig,
       "provider 'p' { base_url = 'http://p.test/v1/messages', dialect = 'anthropic' }\n"
       "provider 'q' { base_url = 'http://q.test/v1/messages', dialect = 'anthropic' }\n"
       "route '/v1/messages*' { to = 'p', chain = { use 'p' } }\n",
       BAD);
#define THOUGHT "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"s\"}"
#define SEALED "{\"type\":\"redacted_thinking\",\"data\":\"d\"}"
  assert_string_equal(
      switched(rig, "/v1/messages",
               "{\"model\":\"m2\",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024},\"messages\":["
               "{\"role\":\"assistant\",\"content\":[" THOUGHT "," SEALED "]},"
               "{\"role\":\"assistant\",\"content\":[" THOUGHT
               ",{\"type\":\"tool_use\",\"input\":{\"b\":1,\"a\":[]}}]},"
               "{\"role\":\"user\",\"content\":\"x\"}]}",
               "q/m2"),
      "{\"messages\":[{\"content\":[{\"input\":{\"b\":1,\"a\":[]},\"type\":\"tool_use\"}],\"role\":"
      "\"assistant\"},{\"content\":\"x\",\"role\":\"user\"}],\"model\":\"m2\"}");
  /* Within one provider they stay. */
  const char *bound = "{\"model\":\"m2\", \"messages\":[{\"role\":\"assistant\",\"content\":[" THOUGHT "]}]}";
  assert_string_equal(switched(rig, "/v1/messages", bound, "p/m2"), bound);
  rig_free(rig);
}

static void what_a_provider_keeps_cannot_be_taken_along(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct client client;
  answers(rig, 500, JSON, PRY_SLICE("{}"), false);
  call(&client, rig, "/v1/responses", "{\"model\":\"m2\",\"previous_response_id\":\"resp_1\",\"input\":\"x\"}", "r/m2");
  assert_int_equal(pry_http_script_seen_count(rig->script), 1);
  assert_int_equal(client.outcome.category, PRY_SERVER);
  assert_non_null(strstr(text_of(&client), "previous_response_id"));
  pry_buffer_fini(&client.body);
  rig_free(rig);
}

/* ---- declarations ------------------------------------------------------------------------------------------------ */

static void a_declaration_that_lacks_something_is_refused_with_its_line(void **unused)
{
  (void)unused;
  static const char *const cases[][2] = {
      {"translate = 1", "translate must be a table"},
      {"translate = { openai = 1 }", "translate.openai must be a table"},
      {"translate = { openai = { request = 1 } }", "translate.request must be a function"},
      {"translate = { openai = { requst = 1 } }", "requst"},
      {"translate = { openai = { opaque = 1 } }", "opaque"},
      {"strip = { run = function() end }", "strip needs words and a function run"},
      {"strip = { words = { 'x' } }", "strip needs words and a function run"},
      {"strip = { words = { 'x' }, run = function() end, wrods = 1 }", "wrods"},
  };
  struct rig *rig = rig_new();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char bad[256];
    struct pry_report report;
    struct pry_buffer text;
    snprintf(bad, sizeof bad, "return dialect {\n  name = 'bad',\n  %s }", cases[i][0]);
    pry_report_init(&report);
    pry_buffer_init(&text, 0);
    assert_false(pry_engine_load(rig->engine, set_of(INIT, bad), false, &report));
    pry_report_text(&report, &text);
    if (!strstr(pry_buffer_text(&text), cases[i][1]) || !strstr(pry_buffer_text(&text), "dialects/bad.lua:"))
      fail_msg("%s: %s", cases[i][0], pry_buffer_text(&text));
    pry_buffer_fini(&text);
    pry_report_fini(&report);
  }
  rig_free(rig);
}

/* ---- kept values ------------------------------------------------------------------------------------------------- */

/* What scripts can do with texts and parts that stay in C. `long` is a text over 1 KiB. */
#define KEPT(body)                                                                                                     \
  "return dialect { name = 'bad', translate = { openai = { opaque = { 'raw' },\n"                                      \
  "  request = function(b) " body                                                                                      \
  " end, answer = function() end, event = function() end, finish = function() end } } }"

static const char *kept(struct rig *rig, const char *dialect, const char *head, const char *tail)
{
  static char text[16384];
  struct client client = {0};
  struct pry_buffer body;
  size_t before = pry_http_script_seen_count(rig->script);
  load(rig, INIT, dialect);
  pry_buffer_init(&body, 0);
  pry_buffer_append_text(&body, "{\"model\":\"bad\",\"long\":\"");
  pry_buffer_append_text(&body, head);
  for (int i = 0; i < 1100; i++)
    pry_buffer_append_text(&body, "y");
  pry_buffer_append_text(&body, "\"");
  pry_buffer_append_text(&body, tail);
  pry_buffer_append_text(&body, "}");
  answers(rig, 500, JSON, PRY_SLICE("{}"), false);
  start(&client, rig, CHAT, pry_buffer_slice(&body), NULL);
  finish(&client);
  if (pry_http_script_seen_count(rig->script) == before + 1) {
    struct pry_slice sent = pry_http_script_seen(rig->script, before)->body;
    snprintf(text, sizeof text, "%.*s", (int)sent.size, sent.data);
  } else {
    snprintf(text, sizeof text, "%s", client.outcome.failure.code);
  }
  pry_buffer_fini(&client.body);
  pry_buffer_fini(&body);
  return text;
}

static void kept_values_are_passed_on_and_looked_at_only_a_little(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  const char *sent =
      kept(rig, KEPT("return { path = '/x', body = { h = b.long:head(9), r = '<' .. b.long:from(4) .. '>' } }"),
           "a\\/b\\\"c\\u00e4", "");
  assert_non_null(strstr(sent, "\"h\":\"a/b\\\"c\""));
  assert_non_null(strstr(sent, "\"r\":\"<\\\"c\\u00e4yyy"));
  assert_non_null(strstr(sent, "yyy>\""));
  sent = kept(
      rig,
      KEPT("return { path = '/x', body = { k = { json.kind(b.long), json.kind(b.raw), json.kind(b.big), json.kind {},"
           " json.kind(json.array {}), json.kind(json.null), json.kind(1), json.kind(nil) }, raw = b.raw,"
           " q = json.quote(b.raw), big = b.big } }"),
      "", ",\"raw\":[ 1e5,\"\\u0041\" ],\"big\":123456789012345678901");
  assert_string_equal(sent,
                      "{\"big\":123456789012345678901,\"k\":[\"string\",\"array\",\"number\",\"object\",\"array\","
                      "\"null\",\"number\",\"nil\"],\"q\":\"[ 1e5,\\\"\\\\u0041\\\" ]\",\"raw\":[ 1e5,\"\\u0041\" ]}");
  sent = kept(rig,
              KEPT("local q = json.quote { l = b.long } local v, k = json.unquote(q) local bad = json.unquote('{') "
                   "return { path = '/x', body = { v = v, k = k, bad = bad } }"),
              "\\n", "");
  assert_memory_equal(sent, "{\"k\":\"object\",\"v\":{\"l\":\"\\nyyy", 26);
  static const char *const misuse[] = {KEPT("return b.long:from(5000)"),     KEPT("return b.long:from(0)"),
                                       KEPT("return b.raw:head(1)"),         KEPT("return b.raw .. 'x'"),
                                       KEPT("return b.long .. 1"),           KEPT("return b.long.x.y"),
                                       KEPT("return getmetatable(b.long).x")};
  for (size_t i = 0; i < sizeof misuse / sizeof *misuse; i++)
    assert_string_equal(kept(rig, misuse[i], "", ",\"raw\":{}"), "translation_failed");
  rig_free(rig);
}

/* ---- whatever comes ------------------------------------------------------------------------------------------------- */

static uint32_t random_of(uint32_t *seed)
{
  *seed ^= *seed << 13;
  *seed ^= *seed >> 17;
  *seed ^= *seed << 5;
  return *seed;
}

/* A value of the text gives way to another, or a byte to another. */
static void mutate(char *text, size_t size, const char *from, uint32_t *seed)
{
  static const char *const values[] = {"null", "1", "-1", "true", "[]", "{}", "\"\"", "[{}]", "{\"type\":1}", "1e99"};
  size_t length = strlen(from), place = random_of(seed) % length;
  if (random_of(seed) % 2) {
    snprintf(text, size, "%s", from);
    text[place] = "{}[]\",:0a\\"[random_of(seed) % 10];
    return;
  }
  const char *value = strchr(from + place, ':');
  if (!value) {
    snprintf(text, size, "%s", from);
    return;
  }
  size_t end = (size_t)(value + 1 - from), rest = end;
  int depth = 0; /* to the end of the value, more or less */
  for (; from[rest] && (depth > 0 || !strchr(",}]", from[rest])); rest++)
    depth += (from[rest] == '{' || from[rest] == '[') - (from[rest] == '}' || from[rest] == ']');
  snprintf(text, size, "%.*s%s%s", (int)end, from, values[random_of(seed) % 10], from + rest);
}

#define CHAT_BODY                                                                                                      \
  "{\"model\":\"claude\",\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":[{"      \
  "\"type\":"                                                                                                          \
  "\"text\",\"text\":\"t\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/"                              \
  "png;base64,AA\"}}]},{\"role\":"                                                                                     \
  "\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\","   \
  "\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"r\"}],\"tools\":[{\"type\":"       \
  "\"function\","                                                                                                      \
  "\"function\":{\"name\":\"f\",\"parameters\":{}}}],\"tool_choice\":\"auto\",\"stop\":[\"x\"],\"stream\":true,"       \
  "\"stream_options\":{\"include_usage\":true},\"user\":\"u\"}"
#define MESSAGES_BODY                                                                                                  \
  "{\"model\":\"m\",\"max_tokens\":5,\"system\":[{\"type\":\"text\",\"text\":\"s\"}],\"messages\":[{\"role\":"         \
  "\"user\","                                                                                                          \
  "\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":\"AA\"}}]}," \
  "{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{}}]},{\"role\":" \
  "\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":[{\"type\":\"text\",\"text\":"    \
  "\"r\"}]}]"                                                                                                          \
  "}],\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_choice\":{\"type\":\"auto\"},\"stop_sequences\":[\"x\"]" \
  ","                                                                                                                  \
  "\"metadata\":{\"user_id\":\"u\"},\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":9}}"
#define GPT                                                                                                            \
  "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"x\"}}]}\n\n"          \
  "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{"  \
  "\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n"                                                                     \
  "data: "                                                                                                             \
  "{\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}" \
  "\n\n"                                                                                                               \
  "data: [DONE]\n\n"

/* Clients and providers cannot make the shipped translations fault: too many faults bring a generation down. */
static void mutated_bodies_answers_and_streams_are_never_a_fault(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  load(rig,
       INIT "provider 'g' { base_url = 'http://g.test/v1', dialect = 'openai' }\n"
            "route '/v1/messages/*' { to = 'g', client_dialect = 'anthropic', chain = {} }\n"
            "route '/v1/messages' { to = 'g', client_dialect = 'anthropic', chain = {} }\n",
       BAD);
  uint32_t seed = 2463534242u;
  char body[4096], answer[4096];
  unsigned good = 0;
  for (int i = 0; i < 3000; i++) {
    struct client client;
    bool chat = i % 2;
    mutate(body, sizeof body, chat ? CHAT_BODY : MESSAGES_BODY, &seed);
    mutate(answer, sizeof answer, chat ? CLAUDE : GPT, &seed);
    answers(rig, 200, SSE, pry_slice_of(answer), false);
    call(&client, rig, chat ? CHAT : "/v1/messages", i % 4 < 2 ? body : chat ? ASK : MESSAGES_BODY, NULL);
    if (logged(rig, ".lua:"))
      fail_msg("%s\n%s\n%s", body, answer, pry_buffer_text(&rig->lines));
    good += client.outcome.ok;
    pry_buffer_clear(&rig->lines);
    pry_buffer_fini(&client.body);
  }
  assert_in_range(good, 300, 2700); /* else it shows little */
  rig_free(rig);
}

/* What a policy injects stands for the provider's answer, and is translated like one. */
static void an_injected_answer_is_translated(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct client client;
  call(&client, rig, CHAT, ASK, "{\"id\":\"i\",\"content\":[{\"type\":\"text\",\"text\":\"made up\"}]}");
  assert_true(client.outcome.ok);
  assert_non_null(strstr(text_of(&client), "\"object\":\"chat.completion\""));
  assert_non_null(strstr(text_of(&client), "\"content\":\"made up\""));
  assert_int_equal(pry_http_script_seen_count(rig->script), 0);
  pry_buffer_fini(&client.body);
  rig_free(rig);
}

/* A client's credential is for the provider whose dialect it speaks. */
static void the_clients_own_credential_does_not_go_to_another_dialect(void **unused)
{
  (void)unused;
  struct rig *rig = rig_new();
  struct client client;
  load(rig,
       "provider 'q' { base_url = 'http://q.test', dialect = 'anthropic', auth = passthrough() }\n"
       "route '/v1/*' { to = 'q', chain = { use 'p' } }\n",
       BAD);
  call(&client, rig, CHAT, ASK, NULL);
  assert_int_equal(client.status, 400);
  assert_non_null(strstr(text_of(&client), "credential"));
  assert_int_equal(pry_http_script_seen_count(rig->script), 0);
  pry_buffer_fini(&client.body);
  rig_free(rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_stream_is_the_same_wherever_the_network_cuts_it),
      cmocka_unit_test(a_broken_stream_never_looks_whole),
      cmocka_unit_test(a_client_that_leaves_ends_it),
      cmocka_unit_test(a_reload_goes_on_with_an_open_stream),
      cmocka_unit_test(a_reload_may_take_the_translation_away),
      cmocka_unit_test(a_fault_in_a_request_sends_nothing),
      cmocka_unit_test(a_fault_in_an_answer_is_a_failed_attempt),
      cmocka_unit_test(a_fault_in_a_stream_is_a_failed_attempt_before_the_commit_and_an_error_after_it),
      cmocka_unit_test(a_body_beyond_a_scripts_limits_says_so),
      cmocka_unit_test(an_answer_beyond_the_bound_is_a_failed_attempt),
      cmocka_unit_test(an_event_beyond_the_bound_is_a_failure),
      cmocka_unit_test(paths_are_joined_whatever_a_base_url_has_of_them),
      cmocka_unit_test(bodies_without_bound_parts_pass_byte_for_byte),
      cmocka_unit_test(bound_parts_go_and_the_rest_stays),
      cmocka_unit_test(signed_thoughts_do_not_go_to_another_provider),
      cmocka_unit_test(what_a_provider_keeps_cannot_be_taken_along),
      cmocka_unit_test(a_declaration_that_lacks_something_is_refused_with_its_line),
      cmocka_unit_test(kept_values_are_passed_on_and_looked_at_only_a_little),
      cmocka_unit_test(mutated_bodies_answers_and_streams_are_never_a_fault),
      cmocka_unit_test(an_injected_answer_is_translated),
      cmocka_unit_test(the_clients_own_credential_does_not_go_to_another_dialect),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
