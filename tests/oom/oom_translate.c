/* Calls across dialects with each allocation failing: the client hears `done` exactly once, a good answer is whole, a bad
 * one says so, and when memory is back, so are the answers. */
#include "../unit/translate_rig.h"
#include "fail.h"

#define QUESTION                                                                                                       \
  "{\"model\":\"claude\",\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\","  \
  "\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"         \
  "{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"r\"}]}"
#define MESSAGE                                                                                                        \
  "{\"id\":\"m\",\"content\":[{\"type\":\"text\",\"text\":\"hello\"},{\"type\":\"tool_use\",\"id\":\"t\",\"name\":"    \
  "\"f\","                                                                                                             \
  "\"input\":{\"a\":1}}],\"stop_reason\":\"tool_use\"}"

/* The client's own memory is not what is tested. */
static bool on_data(void *user, struct pry_slice data)
{
  fail_quiet();
  bool more = client_data(user, data);
  fail_loud();
  return more;
}

/* One call; what ended it is looked at by its end. */
static void ask(struct rig *rig, bool stream, bool must_work)
{
  static const struct pry_sink_ops sink = {client_head, on_data, client_done, NULL};
  struct client client = {.rig = rig};
  struct pry_headers headers;
  struct pry_buffer body;
  fail_quiet(); /* the owner's part */
  answers(rig, 200, stream ? SSE : JSON, stream ? PRY_SLICE(CLAUDE) : PRY_SLICE(MESSAGE), false);
  pry_headers_init(&headers);
  pry_buffer_init(&body, 0);
  pry_buffer_init(&client.body, 0);
  FAIL_CHECK(pry_headers_add(&headers, PRY_SLICE("content-type"), PRY_SLICE("application/json")) &&
             pry_buffer_append_format(&body, QUESTION, stream ? "true" : "false"));
  struct pry_call_request request = {
      .method = PRY_SLICE("POST"), .path = PRY_SLICE(CHAT), .headers = &headers, .body = &body};
  fail_loud();
  client.call = pry_call_start(rig->engine->control, &request, &sink, &client);
  FAIL_CHECK(client.call || !must_work);
  if (client.call)
    finish(&client);
  fail_quiet();
  const char *text = text_of(&client);
  FAIL_CHECK(!must_work || client.outcome.ok);
  if (client.call && client.outcome.ok)
    FAIL_CHECK(strstr(text, stream ? "data: [DONE]\n\n" : "\"finish_reason\":\"tool_calls\""));
  else
    FAIL_CHECK(!strstr(text, "[DONE]"));
  pry_headers_fini(&headers);
  pry_buffer_fini(&body);
  pry_buffer_fini(&client.body);
  fail_loud();
}

static void use(bool stream)
{
  fail_quiet();
  struct rig *rig = rig_new();
  fail_loud();
  ask(rig, stream, false);
  fail_over();
  pry_http_script_set_default(rig->script, NULL);
  ask(rig, stream, true);
  rig_free(rig);
}

static void use_stream(void)
{
  use(true);
}

static void use_answer(void)
{
  use(false);
}

static void use_strip(void)
{
  fail_quiet();
  struct rig *rig = rig_new();
  struct client client = {0};
  answers(rig, 500, JSON, PRY_SLICE("{}"), false);
  answers(rig, 200, JSON, PRY_SLICE("{}"), false);
  start(&client, rig, "/v1/responses",
        PRY_SLICE("{\"model\":\"m\",\"input\":[{\"type\":\"reasoning\"},{\"type\":\"message\",\"id\":\"i\"}]}"),
        "r/m2");
  assert_true(pry_buffer_reserve(&client.body, 64 * 1024)); /* its own memory is not what is tested */
  fail_loud();
  finish(&client);
  fail_quiet();
  for (size_t i = 1; i < pry_http_script_seen_count(rig->script); i++) {
    struct pry_slice sent = pry_http_script_seen(rig->script, i)->body;
    FAIL_CHECK(!memmem(sent.data, sent.size, "reasoning", 9));
  }
  pry_buffer_fini(&client.body);
  fail_loud();
  fail_over();
  rig_free(rig);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"an answer translated", use_answer, FAIL_MEMORY, 100},
      {"a stream translated", use_stream, FAIL_MEMORY, 100},
      {"a body stripped", use_strip, FAIL_MEMORY, 100},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
