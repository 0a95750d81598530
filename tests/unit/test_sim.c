/* The fault simulator, asked over real sockets that are driven from its own loop. */
#include "sim_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define AZURE "POST /openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
#define GEMINI "POST /v1beta/models/gemini-2.5-pro"
#define CHAT "POST /v1/chat/completions"
#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello world\"}]"

enum ending { ENDED, RESET, SILENT };

struct bench {
  struct pry_loop *loop;
  struct pry_sim *sim;
  struct pry_buffer reply; /* of the last request */
  enum ending ending;
  pry_time took;
  char report[320];
};

static void keep_report(void *user, const char *line)
{
  struct bench *b = user;
  snprintf(b->report, sizeof b->report, "%s", line);
}

static void bench_start(struct bench *b, const char *const *faults, size_t fault_count)
{
  char error[256] = "";
  memset(b, 0, sizeof *b);
  struct pry_sim_options options = {.faults = faults, .fault_count = fault_count, .report = keep_report, .user = b};
  b->loop = pry_loop_new();
  assert_non_null(b->loop);
  b->sim = pry_sim_new(b->loop, "127.0.0.1:0", &options, error, sizeof error);
  if (!b->sim)
    fail_msg("%s", error);
}

static void bench_stop(struct bench *b)
{
  pry_sim_free(b->sim);
  pry_loop_free(b->loop);
  pry_buffer_fini(&b->reply);
}

static int send_request(struct bench *b, const char *line, const char *headers, const char *body)
{
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  name.sin_port = htons((uint16_t)atoi(strrchr(pry_sim_address(b->sim), ':') + 1));
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
  assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  struct pry_buffer request = {0};
  assert_true(pry_buffer_append_format(&request,
                                       "%s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s",
                                       line, headers, strlen(body), body));
  assert_int_equal(send(fd, request.data, request.size, MSG_NOSIGNAL), request.size);
  pry_buffer_fini(&request);
  return fd;
}

/* Reads until the connection ends, or nothing came for `patience`. */
static void receive(struct bench *b, int fd, pry_time patience)
{
  char piece[64 * 1024];
  pry_time heard = pry_loop_now(b->loop);
  pry_buffer_clear(&b->reply);
  b->ending = SILENT;
  while (b->ending == SILENT && pry_loop_now(b->loop) - heard < patience) {
    pry_loop_turn(b->loop, 2 * PRY_MILLISECOND);
    ssize_t size = recv(fd, piece, sizeof piece, 0);
    if (size > 0) {
      heard = pry_loop_now(b->loop);
      assert_true(pry_buffer_append(&b->reply, piece, (size_t)size));
    } else if (size == 0) {
      b->ending = ENDED;
    } else if (errno != EAGAIN) {
      b->ending = RESET;
    }
  }
  assert_non_null(pry_buffer_text(&b->reply));
}

static const char *ask(struct bench *b, const char *line, const char *headers, const char *body)
{
  pry_time begun = pry_loop_now(b->loop);
  int fd = send_request(b, line, headers, body);
  receive(b, fd, 300 * PRY_MILLISECOND);
  close(fd);
  b->took = pry_loop_now(b->loop) - begun;
  return pry_buffer_text(&b->reply);
}

static const char *ask_chat(struct bench *b, const char *model, const char *headers)
{
  char body[256];
  snprintf(body, sizeof body, "{\"model\":\"%s\"," HELLO "}", model);
  return ask(b, CHAT, headers, body);
}

static int status_of(const struct bench *b)
{
  return b->reply.size > 12 ? atoi(pry_buffer_text((struct pry_buffer *)&b->reply) + 9) : 0;
}

static void check_has(const char *text, const char *part)
{
  if (!strstr(text, part))
    fail_msg("no \"%s\" in: %s", part, text);
}

static void check_lacks(const char *text, const char *part)
{
  if (strstr(text, part))
    fail_msg("\"%s\" in: %s", part, text);
}

/* The body must be JSON to its last byte. */
static struct pry_slice json_body(const struct bench *b)
{
  const char *text = pry_buffer_text((struct pry_buffer *)&b->reply), *body = strstr(text, "\r\n\r\n");
  assert_non_null(body);
  struct pry_slice json = pry_slice_trim(pry_slice_of(body + 4));
  if (pry_json_parse(json, NULL) != PRY_JSON_OK)
    fail_msg("not JSON: %s", text);
  return json;
}

static void check_member(struct pry_slice json, const char *path, const char *raw)
{
  struct pry_json_value value;
  if (!pry_json_get(json, path, &value) || !pry_slice_equal(value.raw, pry_slice_of(raw)))
    fail_msg("%s is not %s in %.*s", path, raw, (int)json.size, json.data);
}

/* Joins what every event has at `path`, decoded; and checks that every event is JSON. */
static void join_events(const struct bench *b, const char *path, struct pry_buffer *joined)
{
  const char *at = pry_buffer_text((struct pry_buffer *)&b->reply);
  struct pry_json_value value;
  while ((at = strstr(at, "data: {"))) {
    at += strlen("data: ");
    struct pry_slice data = {at, strcspn(at, "\n")};
    if (pry_json_parse(data, NULL) != PRY_JSON_OK)
      fail_msg("not JSON: %.*s", (int)data.size, data.data);
    if (pry_json_get(data, path, &value) && value.type == PRY_JSON_STRING)
      assert_true(pry_json_string(value.raw, joined));
  }
}

static void check_joined(const struct bench *b, const char *path, const char *text)
{
  struct pry_buffer joined = {0};
  join_events(b, path, &joined);
  assert_string_equal(joined.size ? pry_buffer_text(&joined) : "", text);
  pry_buffer_fini(&joined);
}

/* ---- Shapes --------------------------------------------------------------------------------------------- */

static void test_chat_json(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  const char *reply =
      ask(&b, CHAT, "",
          "{\"model\":\"m\\u0031\",\"messages\":[{\"role\":\"user\",\"content\":\"old\"},{\"role\":"
          "\"assistant\",\"content\":\"x\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
          "\"Grüße \\\"你好\\\" \\uD83D\\uDE00\\n\"}]}]}");
  assert_int_equal(status_of(&b), 200);
  check_has(reply, "\r\nx-request-id: req_sim_");
  struct pry_slice json = json_body(&b);
  check_member(json, "model", "\"m\\u0031\""); /* as the client spelled it */
  check_member(json, "object", "\"chat.completion\"");
  check_member(json, "choices.0.message.content", "\"Grüße \\\"你好\\\" 😀\\n\"");
  check_member(json, "choices.0.finish_reason", "\"stop\"");
  assert_true(pry_json_get(json, "usage.total_tokens", NULL) && pry_json_get(json, "created", NULL));
  check_has(b.report, "/v1/chat/completions  m1  200");
  bench_stop(&b);
}

static void test_chat_stream(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  const char *reply = ask(&b, CHAT, "",
                          "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":"
                          "\"Grüße 你好, this is some text 😀\"}]}");
  check_has(reply, "Content-Type: text/event-stream");
  check_has(reply, "\"delta\":{\"role\":\"assistant\"");
  check_has(reply, "\"finish_reason\":\"stop\"");
  check_has(reply, "data: [DONE]\n\n");
  check_lacks(reply, "\"usage\"");
  check_joined(&b, "choices.0.delta.content", "Grüße 你好, this is some text 😀");
  reply = ask(&b, CHAT, "", "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true}," HELLO "}");
  check_has(reply, "\"choices\":[],\"usage\":{\"prompt_tokens\":");
  bench_stop(&b);
}

static void test_tool_calls(void **state)
{
  (void)state;
  static const char TOOLS[] = "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"look\",\"parameters\":{}}}]";
  struct bench b;
  char body[512];
  bench_start(&b, NULL, 0);
  snprintf(body, sizeof body, "{\"model\":\"m\"," HELLO ",%s}", TOOLS);
  ask(&b, CHAT, "", body);
  struct pry_slice json = json_body(&b);
  check_member(json, "choices.0.message.tool_calls.0.function.name", "\"look\"");
  check_member(json, "choices.0.message.tool_calls.0.function.arguments", "\"{\\\"text\\\":\\\"hello world\\\"}\"");
  check_member(json, "choices.0.finish_reason", "\"tool_calls\"");

  snprintf(body, sizeof body, "{\"model\":\"m\",\"stream\":true," HELLO ",%s}", TOOLS);
  ask(&b, CHAT, "", body);
  check_joined(&b, "choices.0.delta.tool_calls.0.function.name", "look");
  check_joined(&b, "choices.0.delta.tool_calls.0.function.arguments", "{\"text\":\"hello world\"}");

  snprintf(
      body, sizeof body,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"tool\",\"content\":\"r\"}],%s}",
      TOOLS);
  ask(&b, CHAT, "", body);
  check_member(json_body(&b), "choices.0.message.content", "\"q\"");

  ask(&b, "POST /v1/messages", "", "{\"model\":\"m\"," HELLO ",\"tools\":[{\"name\":\"look\",\"input_schema\":{}}]}");
  json = json_body(&b);
  check_member(json, "content.0.type", "\"tool_use\"");
  check_member(json, "content.0.input.text", "\"hello world\"");
  check_member(json, "stop_reason", "\"tool_use\"");
  ask(&b, "POST /v1/messages", "",
      "{\"model\":\"m\",\"stream\":true," HELLO ",\"tools\":[{\"name\":\"look\",\"input_schema\":{}}]}");
  check_joined(&b, "delta.partial_json", "{\"text\":\"hello world\"}");
  bench_stop(&b);
}

static void test_messages(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  const char *reply = ask(&b, "POST /v1/messages", "", "{\"model\":\"m\"," HELLO "}");
  check_has(reply, "\r\nrequest-id: req_sim_");
  check_member(json_body(&b), "content.0.text", "\"hello world\"");
  reply = ask(&b, "POST /v1/messages?beta=true", "", "{\"model\":\"m\",\"stream\":true," HELLO "}");
  static const char *const EVENTS[] = {"message_start",       "content_block_start", "ping",
                                       "content_block_delta", "content_block_stop",  "message_delta",
                                       "message_stop"};
  const char *at = reply;
  for (size_t i = 0; i < sizeof EVENTS / sizeof *EVENTS; i++) {
    char line[64];
    snprintf(line, sizeof line, "event: %s\ndata: {\"type\":\"%s\"", EVENTS[i], EVENTS[i]);
    at = strstr(at, line);
    if (!at)
      fail_msg("no %s, or not in order, in: %s", EVENTS[i], reply);
  }
  check_joined(&b, "delta.text", "hello world");
  bench_stop(&b);
}

static void test_responses(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  ask(&b, "POST /v1/responses", "", "{\"model\":\"m\",\"input\":\"hello world\"}");
  check_member(json_body(&b), "output.0.content.0.text", "\"hello world\"");
  ask(&b, "POST /v1/responses", "",
      "{\"model\":\"m\",\"stream\":true,\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":"
      "\"from a list\"}]}]}");
  check_joined(&b, "delta", "from a list");
  check_joined(&b, "type",
               "response.createdresponse.in_progressresponse.output_item.addedresponse.content_part.added"
               "response.output_text.deltaresponse.output_text.deltaresponse.output_text.delta"
               "response.output_text.doneresponse.content_part.doneresponse.output_item.doneresponse.completed");
  bench_stop(&b);
}

static void test_embeddings_and_models(void **state)
{
  (void)state;
  static const char *const FAULTS[] = {"mine=503"};
  struct bench b;
  bench_start(&b, FAULTS, 1);
  ask(&b, "POST /v1/embeddings", "", "{\"model\":\"e\",\"input\":[\"a\",\"b\"]}");
  struct pry_slice json = json_body(&b);
  check_member(json, "data.1.index", "1");
  assert_true(pry_json_get(json, "data.1.embedding.7", NULL));
  ask(&b, "GET /v1/models", "", "");
  json = json_body(&b);
  check_member(json, "data.0.id", "\"sim-ok\"");
  check_has(pry_buffer_text(&b.reply), "\"mine\"");
  bench_stop(&b);
}

static void test_invalid_requests(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  static const char *const BODIES[] = {
      "", "[]", "{", "{\"model\":\"m\"}", "{" HELLO "}", "{\"model\":\"m\",\"messages\":1}"};
  for (size_t i = 0; i < sizeof BODIES / sizeof *BODIES; i++) {
    ask(&b, CHAT, "", BODIES[i]);
    assert_int_equal(status_of(&b), 400);
    check_member(json_body(&b), "error.type", "\"invalid_request_error\"");
  }
  ask(&b, "POST /v1/nothing", "", "{}");
  assert_int_equal(status_of(&b), 404);
  ask(&b, "GET /v1/chat/completions", "", "");
  assert_int_equal(status_of(&b), 404);
  ask(&b, "POST /kimi/v1/chat/completions", "", "{}");
  assert_int_equal(status_of(&b), 200);
  check_member(json_body(&b), "errcode", "-1001");
  ask(&b, "POST /kimi/v1/nothing", "x-sim-kimi-status: real\r\n", "{}");
  assert_int_equal(status_of(&b), 404);
  check_member(json_body(&b), "errcode", "-1002");
  bench_stop(&b);
}

/* ---- Faults --------------------------------------------------------------------------------------------- */

static void test_azure(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  ask(&b, AZURE, "", "{" HELLO "}"); /* the path names the model */
  assert_int_equal(status_of(&b), 200);
  check_member(json_body(&b), "model", "\"gpt-4o\"");
  assert_true(pry_json_get(json_body(&b), "usage.total_tokens", NULL));
  const char *reply = ask(&b, AZURE, "", "{\"stream\":true," HELLO "}");
  check_has(reply, "data: {\"choices\":[],\"created\":0,");
  check_has(reply, "prompt_filter_results");
  check_has(reply, "data: [DONE]");
  check_has(b.report, "gpt-4o  200");
  bench_stop(&b);
}

static void test_gemini(void **state)
{
  (void)state;
  static const char body[] = "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Grüße\"}]}]}";
  struct bench b;
  bench_start(&b, NULL, 0);
  ask(&b, GEMINI ":generateContent", "", body);
  assert_int_equal(status_of(&b), 200);
  check_member(json_body(&b), "candidates.0.content.parts.0.text", "\"Grüße\"");
  check_member(json_body(&b), "candidates.0.finishReason", "\"STOP\"");
  check_member(json_body(&b), "modelVersion", "\"gemini-2.5-pro\"");
  assert_true(pry_json_get(json_body(&b), "usageMetadata.totalTokenCount", NULL));
  ask(&b, GEMINI ":streamGenerateContent?alt=sse", "", body);
  check_joined(&b, "candidates.0.content.parts.0.text", "Grüße");
  ask(&b, GEMINI ":streamGenerateContent", "", body);
  check_member(json_body(&b), "0.candidates.0.content.parts.0.text", "\"Grüße\"");
  ask(&b, GEMINI ":generateContent", "",
      "{\"contents\":[{\"parts\":[{\"text\":\"x\"}]}],\"tools\":[{\"functionDeclarations\":[{\"name\":\"f\"}]}]}");
  check_member(json_body(&b), "candidates.0.content.parts.0.functionCall.name", "\"f\"");
  check_member(json_body(&b), "candidates.0.content.parts.0.functionCall.args.text", "\"x\"");
  ask(&b, GEMINI ":generateContent", "", "{}");
  assert_int_equal(status_of(&b), 400);
  check_member(json_body(&b), "error.status", "\"INVALID_ARGUMENT\"");
  bench_stop(&b);
}

static void test_gemini_errors(void **state)
{
  (void)state;
  static const char body[] = "{\"contents\":[{\"parts\":[{\"text\":\"x\"}]}]}";
  struct bench b;
  bench_start(&b, NULL, 0);
  const char *reply =
      ask(&b, GEMINI ":streamGenerateContent?alt=sse", "x-sim-fault: code=429;retry-after=34\r\n", body);
  assert_int_equal(status_of(&b), 429);
  check_lacks(reply, "retry-after"); /* Google says it in the body */
  check_member(json_body(&b), "error.details.0.violations.0.quotaId",
               "\"GenerateRequestsPerMinutePerProjectPerModel\"");
  check_member(json_body(&b), "error.details.1.retryDelay", "\"34s\"");
  ask(&b, GEMINI ":generateContent", "x-sim-fault: code=quota;retry-after=soon\"\r\n", body);
  check_member(json_body(&b), "error.details.0.violations.0.quotaId", "\"GenerateRequestsPerDayPerProjectPerModel\"");
  ask(&b, GEMINI ":generateContent", "x-sim-fault: content\r\n", body);
  assert_int_equal(status_of(&b), 200);
  check_member(json_body(&b), "promptFeedback.blockReason", "\"PROHIBITED_CONTENT\"");
  ask(&b, GEMINI ":streamGenerateContent", "x-sim-fault: 503\r\n", body);
  check_member(json_body(&b), "0.error.status", "\"UNAVAILABLE\"");
  reply = ask(&b, GEMINI ":streamGenerateContent?alt=sse", "x-sim-fault: error-after\r\n",
              "{\"contents\":[{\"parts\":[{\"text\":\"a longer text in several pieces\"}]}]}");
  check_has(reply, "\"status\":\"INTERNAL\"}}\n\n");
  bench_stop(&b);
}

static void test_statuses(void **state)
{
  (void)state;
  static const struct {
    const char *line, *spec, *path, *raw;
    int status;
  } CASES[] = {
      {CHAT, "429", "error.code", "\"rate_limit_exceeded\"", 429},
      {CHAT, "code=quota", "error.code", "\"insufficient_quota\"", 429},
      {CHAT, "code=context", "error.code", "\"context_length_exceeded\"", 400},
      {CHAT, "code=balance", "error.type", "\"insufficient_balance\"", 402},
      {CHAT, "code=418", "error.type", "\"api_error\"", 418},
      {CHAT, "code=-2006", "errcode", "-2006", 200},
      {CHAT, "code=error-200", "error.type", "\"api_error\"", 200},
      {CHAT, "code=error-after", "error.type", "\"api_error\"", 200},
      {"POST /v1/messages", "529", "error.type", "\"overloaded_error\"", 529},
      {"POST /v1/messages", "401", "error.type", "\"authentication_error\"", 401},
      {"POST /v1/messages", "error-200", "error.type", "\"overloaded_error\"", 200},
      {AZURE, "429", "error.code", "\"429\"", 429},
      {AZURE, "quota", "error.code", "\"insufficient_quota\"", 429},
      {AZURE, "404", "error.code", "\"DeploymentNotFound\"", 404},
      {AZURE, "content", "error.innererror.code", "\"ResponsibleAIPolicyViolation\"", 400},
      {"POST /openai/v1/responses", "408", "error.code", "\"Timeout\"", 408},
      {"POST /kimi/v1/chat/completions", "503", "error.code", "\"overloaded\"", 503},
      {"POST /kimi/v1/chat/completions", "expired", "errcode", "-2002", 200},
      {"POST /kimi/v1/chat/completions", "error-200", "errcode", "-1000", 200},
  };
  struct bench b;
  bench_start(&b, NULL, 0);
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    char headers[128];
    snprintf(headers, sizeof headers, "x-sim-fault: %s\r\n", CASES[i].spec);
    ask(&b, CASES[i].line, headers, "{\"model\":\"m\"," HELLO "}");
    assert_int_equal(status_of(&b), CASES[i].status);
    check_member(json_body(&b), CASES[i].path, CASES[i].raw);
  }
  const char *reply =
      ask_chat(&b, "m", "x-sim-fault: code=503;retry-after=Wed, 21 Oct 2026 07:28:00 GMT;retry-after-ms=1500\r\n");
  check_has(reply, "\r\nretry-after: Wed, 21 Oct 2026 07:28:00 GMT\r\nretry-after-ms: 1500\r\n");
  ask_chat(&b, "m", "x-sim-fault: code=html-502\r\n");
  check_has(pry_buffer_text(&b.reply), "Content-Type: text/html");
  ask_chat(&b, "m", "x-sim-fault: code=-2005\r\nx-sim-kimi-status: real\r\n");
  assert_int_equal(status_of(&b), 429);
  bench_stop(&b);
}

static void test_faults_from_the_body(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  static const char TWICE[] =
      "{\"model\":\"m\"," HELLO ",\"simulateError\":true,\"errorCode\":\"503\",\"times\":2,\"simKey\":\"k\"}";
  int expected[] = {503, 503, 200};
  for (int i = 0; i < 3; i++) {
    ask(&b, CHAT, "", TWICE);
    assert_int_equal(status_of(&b), expected[i]);
  }
  ask(&b, CHAT, "", "{\"model\":\"m\"," HELLO ",\"simulateError\":true,\"errorCode\":-2002}");
  check_member(json_body(&b), "errcode", "-2002");
  ask(&b, CHAT, "", "{\"model\":\"m\"," HELLO ",\"simulateError\":false,\"errorCode\":\"503\"}");
  assert_int_equal(status_of(&b), 200);
  ask(&b, CHAT, "", "{\"model\":\"m\"," HELLO ",\"simulateError\":true,\"errorCode\":\"nonsense\"}");
  assert_int_equal(status_of(&b), 400);
  check_member(json_body(&b), "error.code", "\"invalid_error_code\"");
  ask(&b, CHAT, "", "{\"model\":\"m\"," HELLO ",\"simulateError\":true,\"delay\":60}");
  assert_int_equal(status_of(&b), 200);
  assert_true(b.took >= 60 * PRY_MILLISECOND);
  bench_stop(&b);
}

static void test_counting(void **state)
{
  (void)state;
  static const char *const FAULTS[] = {"one=code=503;times=1", "third=code=500;every=3"};
  struct bench b;
  bench_start(&b, FAULTS, 2);
  int one[] = {503, 200, 200};
  for (int i = 0; i < 3; i++) {
    ask_chat(&b, "one", "");
    assert_int_equal(status_of(&b), one[i]);
  }
  ask_chat(&b, "one", "x-sim-key: other\r\n"); /* every key has its own first request */
  assert_int_equal(status_of(&b), 503);
  for (int i = 1; i <= 6; i++) {
    ask_chat(&b, "third", "");
    assert_int_equal(status_of(&b), i % 3 ? 200 : 500);
  }
  for (int i = 0; i < 4; i++) { /* scripted: by turns, or once per key */
    ask_chat(&b, "sim-503", "");
    assert_int_equal(status_of(&b), i % 2 ? 200 : 503);
  }
  for (int i = 0; i < 3; i++) {
    ask_chat(&b, "sim-503", "x-sim-key: mine\r\n");
    assert_int_equal(status_of(&b), i ? 200 : 503);
  }
  ask_chat(&b, "sim-down", "");
  ask_chat(&b, "sim-down", "");
  assert_int_equal(status_of(&b), 503);
  ask_chat(&b, "sim-429", "");
  check_has(pry_buffer_text(&b.reply), "\r\nretry-after: 1\r\n");
  ask(&b, "POST /sim/reset", "", "");
  ask_chat(&b, "one", "");
  assert_int_equal(status_of(&b), 503);
  bench_stop(&b);
}

static void test_broken_answers(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  assert_string_equal(ask_chat(&b, "m", "x-sim-fault: reset\r\n"), "");
  assert_int_equal(b.ending, RESET);
  assert_string_equal(ask_chat(&b, "m", "x-sim-fault: hang\r\n"), "");
  assert_int_equal(b.ending, SILENT);
  check_lacks(ask_chat(&b, "m", "x-sim-fault: garbage\r\n"), "HTTP/1.1");
  assert_true(b.reply.size > 0);
  const char *reply = ask_chat(&b, "m", "x-sim-fault: cut\r\n");
  assert_int_equal(b.ending, ENDED);
  const char *body = strstr(reply, "\r\n\r\n") + 4;
  size_t announced = (size_t)atoi(strstr(reply, "Content-Length: ") + 16);
  assert_true(strlen(body) > 0 && strlen(body) < announced);
  ask_chat(&b, "m", "x-sim-fault: stall-after\r\n");
  assert_int_equal(b.ending, SILENT);
  bench_stop(&b);
}

static void test_broken_streams(void **state)
{
  (void)state;
  static const struct {
    const char *spec;
    enum ending ending;
    bool content, last_chunk, error;
  } CASES[] = {
      {"cut", ENDED, false, false, false},         {"cut-after", ENDED, true, false, false},
      {"stall-after", SILENT, true, false, false}, {"error-200", ENDED, false, true, true},
      {"error-after", ENDED, true, true, true},
  };
  static const char *const LINES[] = {CHAT, "POST /v1/messages", "POST /v1/responses"};
  static const char *const CONTENTS[] = {"\"content\":\"hell", "text_delta", "output_text.delta"};
  struct bench b;
  bench_start(&b, NULL, 0);
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
    for (size_t j = 0; j < 3; j++) {
      char headers[64];
      snprintf(headers, sizeof headers, "x-sim-fault: %s\r\n", CASES[i].spec);
      const char *reply =
          ask(&b, LINES[j], headers, "{\"model\":\"m\",\"stream\":true,\"input\":\"hello world\"," HELLO "}");
      assert_int_equal(status_of(&b), 200);
      assert_int_equal(b.ending, CASES[i].ending);
      assert_int_equal(strstr(reply, CONTENTS[j]) != NULL, CASES[i].content);
      assert_int_equal(strstr(reply, "\r\n0\r\n\r\n") != NULL, CASES[i].last_chunk);
      assert_int_equal(strstr(reply, j ? "event: error\n" : "data: {\"error\":") != NULL, CASES[i].error);
      assert_int_equal(strstr(reply, "data: ") != NULL, true); /* never broken before the preface */
    }
  bench_stop(&b);
}

static void test_slow_streams(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  ask(&b, CHAT, "x-sim-fault: code=slow;delay=0.02\r\n", "{\"model\":\"m\",\"stream\":true," HELLO "}");
  assert_int_equal(b.ending, ENDED);
  check_joined(&b, "choices.0.delta.content", "hello world");
  assert_true(b.took >= 5 * 20 * PRY_MILLISECOND); /* six events */
  bench_stop(&b);
}

static void test_large_answers(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  ask(&b, CHAT, "x-sim-size: 5000000\r\n", "{\"model\":\"m\",\"stream\":true," HELLO "}");
  assert_int_equal(b.ending, ENDED);
  size_t filler = 0;
  for (size_t i = 0; i < b.reply.size; i++)
    filler += b.reply.data[i] == 'x';
  assert_true(filler >= 5000000 && filler < 5010000); /* some heads have an x */
  ask(&b, CHAT, "x-sim-size: 100000\r\n", "{\"model\":\"m\"," HELLO "}");
  struct pry_json_value value;
  assert_true(pry_json_get(json_body(&b), "choices.0.message.content", &value));
  assert_int_equal(value.raw.size, 100002);
  bench_stop(&b);
}

static void test_bad_specs(void **state)
{
  (void)state;
  static const char *const BAD[] = {
      "",          "model",     "=503",        "m=code=200",     "m=code=600",     "m=code=-3",     "m=times=-1",
      "m=every=0", "m=delay=x", "m=color=red", "m=503;nonsense", "m=code=4.5e2.1", "m=retry-after="};
  struct pry_loop *loop = pry_loop_new();
  for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
    char error[256] = "";
    assert_false(pry_sim_check_fault(BAD[i], error, sizeof error));
    check_has(error, "bad fault");
    struct pry_sim_options options = {.faults = &BAD[i], .fault_count = 1};
    assert_null(pry_sim_new(loop, "127.0.0.1:0", &options, error, sizeof error));
  }
  char error[256];
  assert_true(pry_sim_check_fault("a/b=code=503 ; retry-after=1;delay=0.2;times=1;every=2;", error, sizeof error));
  struct bench b;
  bench_start(&b, NULL, 0);
  ask_chat(&b, "m", "x-sim-fault: code=bad\r\n");
  assert_int_equal(status_of(&b), 400);
  check_has(pry_buffer_text(&b.reply), "x-sim-fault");
  check_has(pry_buffer_text(&b.reply), "'code=bad' is no code of a fault");
  ask_chat(&b, "m", "x-sim-fault: \"retry\\aftr\"=1\r\n"); /* what was sent is shown, and breaks no JSON */
  struct pry_json_value value;
  assert_true(pry_json_get(json_body(&b), "error", &value));
  assert_true(pry_json_get(value.raw, "message", &value));
  check_has(value.raw.data, "'?retry?aftr?=1' is no part of a fault; did you mean retry-after; parts: code=");
  bench_stop(&b);
  pry_loop_free(loop);
}

/* ---- Tokens --------------------------------------------------------------------------------------------- */

static void take_token(const struct bench *b, const char *path, char header[128])
{
  struct pry_json_value value;
  assert_true(pry_json_get(json_body(b), path, &value));
  snprintf(header, 128, "Authorization: Bearer %.*s\r\n", (int)value.raw.size - 2, value.raw.data + 1);
}

static void test_tokens(void **state)
{
  (void)state;
  static const char AUTH_CHAT[] = "POST /auth/v1/chat/completions", KIMI_CHAT[] = "POST /kimi-auth/v1/chat/completions";
  static const char FORM[] = "grant_type=refresh_token&refresh_token=first%2Btoken";
  static const char BODY[] = "{\"model\":\"m\"," HELLO "}";
  struct bench b;
  char header[128], newer[128];
  bench_start(&b, NULL, 0);
  ask(&b, AUTH_CHAT, "Authorization: Bearer expired-token\r\n", BODY);
  assert_int_equal(status_of(&b), 401);
  check_member(json_body(&b), "error.code", "\"invalid_api_key\"");
  ask(&b, AUTH_CHAT, "Authorization: Bearer sim-access-0\r\n", BODY);
  assert_int_equal(status_of(&b), 401);
  ask(&b, KIMI_CHAT, "", BODY);
  check_member(json_body(&b), "errcode", "-2002");

  ask(&b, "POST /oauth/token", "", FORM);
  assert_int_equal(status_of(&b), 200);
  check_member(json_body(&b), "expires_in", "3600");
  take_token(&b, "access_token", header);
  ask(&b, AUTH_CHAT, header, BODY);
  assert_int_equal(status_of(&b), 200);
  ask(&b, KIMI_CHAT, header, BODY);
  check_member(json_body(&b), "object", "\"chat.completion\"");

  ask(&b, "POST /kimi/token/refresh", "", "{\"refresh_token\":\"sim-refresh-1\"}");
  check_member(json_body(&b), "errcode", "0");
  take_token(&b, "data.access_token", newer);
  ask(&b, AUTH_CHAT, header, BODY); /* a renewal ends the token before */
  assert_int_equal(status_of(&b), 401);
  ask(&b, AUTH_CHAT, newer, BODY);
  assert_int_equal(status_of(&b), 200);
  ask(&b, "POST /kimi/token/refresh", "", "{\"refresh_token\":\"sim-refresh-1\"}"); /* rotated away */
  check_member(json_body(&b), "errcode", "-2002");
  ask(&b, "POST /oauth/token", "", "grant_type=refresh_token&refresh_token=expired-token");
  check_member(json_body(&b), "error", "\"invalid_grant\"");
  ask(&b, "POST /oauth/token", "", "grant_type=password&refresh_token=a");
  check_member(json_body(&b), "error", "\"unsupported_grant_type\"");

  ask(&b, "POST /sim/expire", "", "");
  ask(&b, AUTH_CHAT, newer, BODY);
  assert_int_equal(status_of(&b), 401);
  assert_int_equal(pry_sim_stats(b.sim).renewals, 2);
  assert_int_equal(pry_sim_stats(b.sim).token_requests, 5);
  bench_stop(&b);
}

static void test_token_faults(void **state)
{
  (void)state;
  static const char FORM[] = "grant_type=refresh_token&refresh_token=first";
  struct bench b;
  char header[128];
  bench_start(&b, NULL, 0);
  ask(&b, "POST /sim/token?fail=1&hang=1&delay=0.05&expires_in=0.1", "", "");
  assert_int_equal(status_of(&b), 200);
  ask(&b, "POST /token", "", FORM);
  assert_int_equal(b.ending, SILENT);
  ask(&b, "POST /token", "", FORM);
  assert_int_equal(status_of(&b), 500);
  ask(&b, "POST /token", "", FORM);
  assert_int_equal(status_of(&b), 200);
  assert_true(b.took >= 50 * PRY_MILLISECOND);
  take_token(&b, "access_token", header);
  ask(&b, "POST /auth/chat/completions", header, "{\"model\":\"m\"," HELLO "}");
  assert_int_equal(status_of(&b), 200);
  pry_time begun = pry_loop_now(b.loop);
  while (pry_loop_now(b.loop) - begun < 110 * PRY_MILLISECOND)
    pry_loop_turn(b.loop, 10 * PRY_MILLISECOND);
  ask(&b, "POST /auth/chat/completions", header, "{\"model\":\"m\"," HELLO "}");
  assert_int_equal(status_of(&b), 401);
  ask(&b, "POST /sim/token?fail=-1", "", "");
  assert_int_equal(status_of(&b), 400);
  bench_stop(&b);
}

/* ---- Control -------------------------------------------------------------------------------------------- */

static void test_stats(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  ask_chat(&b, "a", "x-sim-key: k\r\nAuthorization: Bearer top-secret\r\n");
  ask_chat(&b, "a", "");
  ask_chat(&b, "b\\\"", "");
  ask_chat(&b, "c", "x-sim-fault: hang\r\n"); /* the client leaves */
  int open = send_request(&b, CHAT, "x-sim-fault: hang\r\n", "{\"model\":\"a\"," HELLO "}");
  receive(&b, open, 50 * PRY_MILLISECOND);
  ask(&b, "GET /sim/stats", "", "");
  struct pry_slice json = json_body(&b);
  check_member(json, "total", "5");
  check_member(json, "open", "1");
  check_member(json, "cancelled", "1");
  check_member(json, "models.a", "3");
  check_member(json, "models.b\"", "1");
  check_member(json, "keys.k", "1");
  check_member(json, "recent.0.status", "200");
  check_member(json, "recent.3.status", "0");
  check_member(json, "recent.3.cancelled", "true");
  check_lacks(pry_buffer_text(&b.reply), "secret");
  close(open);
  bench_stop(&b);
}

static void test_recent_is_a_ring(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  for (int i = 0; i < PRY_SIM_RECENT_MAX + 5; i++) {
    char model[16];
    snprintf(model, sizeof model, "m%d", i);
    ask_chat(&b, model, "");
  }
  ask(&b, "GET /sim/stats", "", "");
  check_member(json_body(&b), "recent.0.model", "\"m5\"");
  check_member(json_body(&b), "recent.49.model", "\"m54\"");
  bench_stop(&b);
}

static void test_last(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, NULL, 0);
  ask(&b, "GET /sim/last", "", "");
  assert_int_equal(status_of(&b), 404);
  static const char BODY[] = "{ \"model\" : \"m\",\n\t" HELLO ", \"big\": 1686041011364000001 }";
  ask(&b, CHAT,
      "Content-Type: application/json; charset=utf-8\r\nAuthorization: Bearer top-secret\r\nX-A: 1\r\nx-a: 2\r\n",
      BODY);
  const char *reply = ask(&b, "GET /sim/last", "", "");
  check_has(reply, "\r\nContent-Type: application/json; charset=utf-8\r\n");
  assert_string_equal(strstr(reply, "\r\n\r\n") + 4, BODY);
  reply = ask(&b, "GET /sim/last-headers", "", "");
  check_member(json_body(&b), "target", "\"/v1/chat/completions\"");
  check_has(reply, "[\"X-A\",\"1\"],[\"x-a\",\"2\"]");
  check_has(reply, "[\"Authorization\",\"sha8:");
  check_lacks(reply, "secret");
  ask(&b, "GET /", "", "");
  assert_int_equal(status_of(&b), 200);
  ask(&b, "GET /sim/else", "", "");
  assert_int_equal(status_of(&b), 404);
  bench_stop(&b);
}

static void test_table_is_bounded(void **state)
{
  (void)state;
  static struct pry_sim_table table;
  pry_sim_table_init(&table);
  char name[32];
  for (int i = 0; i < PRY_SIM_NAMES_MAX + 10; i++) {
    snprintf(name, sizeof name, "name-%d", i);
    struct pry_sim_count *count = pry_sim_table_get(&table, pry_slice_of(name));
    assert_non_null(count);
    count->calls++;
  }
  assert_int_equal(table.count, PRY_SIM_NAMES_MAX);
  assert_int_equal(pry_sim_table_get(&table, pry_slice_of(name))->calls, 1);     /* the newest is there */
  assert_int_equal(pry_sim_table_get(&table, pry_slice_of("name-0"))->calls, 0); /* the oldest was forgotten */
  pry_sim_table_clear(&table);
  assert_int_equal(table.count, 0);
}

static void test_two_sims_in_one_loop(void **state)
{
  (void)state;
  struct bench b;
  char error[256];
  bench_start(&b, NULL, 0);
  struct pry_sim *first = b.sim;
  b.sim = pry_sim_new(b.loop, "127.0.0.1:0", NULL, error, sizeof error);
  assert_non_null(b.sim);
  ask_chat(&b, "m", "");
  assert_int_equal(pry_sim_stats(b.sim).total, 1);
  assert_int_equal(pry_sim_stats(first).total, 0);
  int open = send_request(&b, CHAT, "x-sim-fault: code=503;delay=5\r\n", "{\"model\":\"a\"," HELLO "}");
  receive(&b, open, 20 * PRY_MILLISECOND);
  pry_sim_free(b.sim); /* with a call that waits */
  close(open);
  b.sim = first;
  bench_stop(&b);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_chat_json),
      cmocka_unit_test(test_chat_stream),
      cmocka_unit_test(test_tool_calls),
      cmocka_unit_test(test_messages),
      cmocka_unit_test(test_responses),
      cmocka_unit_test(test_embeddings_and_models),
      cmocka_unit_test(test_invalid_requests),
      cmocka_unit_test(test_azure),
      cmocka_unit_test(test_gemini),
      cmocka_unit_test(test_gemini_errors),
      cmocka_unit_test(test_statuses),
      cmocka_unit_test(test_faults_from_the_body),
      cmocka_unit_test(test_counting),
      cmocka_unit_test(test_broken_answers),
      cmocka_unit_test(test_broken_streams),
      cmocka_unit_test(test_slow_streams),
      cmocka_unit_test(test_large_answers),
      cmocka_unit_test(test_bad_specs),
      cmocka_unit_test(test_tokens),
      cmocka_unit_test(test_token_faults),
      cmocka_unit_test(test_stats),
      cmocka_unit_test(test_recent_is_a_ring),
      cmocka_unit_test(test_last),
      cmocka_unit_test(test_table_is_bounded),
      cmocka_unit_test(test_two_sims_in_one_loop),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
