/* The shipped translations over any answer of a provider: the call ends once, nothing of it is a fault of theirs, a stream
 * said to be whole has its end and no other one has, and what the client gets is JSON. Bits of the first byte choose the
 * client's dialect, whether it wants a stream, whether the connection breaks and whether the answer is said to be a stream; the
 * next says where the network cuts. */
#include "../unit/translate_rig.h"
#include "fuzz.h"

#include "sse.h"

enum { CALLS_PER_RIG = 200, MOST = 16 * 1024 };

#define MESSAGES                                                                                                       \
  "{\"model\":\"m\",\"max_tokens\":5,\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"
#define COMPLETIONS                                                                                                    \
  "{\"model\":\"claude\",\"stream\":%s,\"stream_options\":{\"include_usage\":true},"                                   \
  "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"

static struct rig *rig_of_calls(void)
{
  static struct rig *rig;
  static unsigned calls;
  if (rig && calls % CALLS_PER_RIG == 0) { /* it remembers what it was asked */
    rig_free(rig);
    rig = NULL;
  }
  calls++;
  if (!rig) {
    rig = rig_new();
    load(rig,
         INIT "provider 'g' { base_url = 'http://g.test/v1', dialect = 'openai' }\n"
              "route '/v1/messages' { to = 'g', client_dialect = 'anthropic', chain = {} }\n",
         BAD);
  }
  return rig;
}

static void script_answer(struct rig *rig, bool stream, bool cut, struct pry_slice body, size_t first)
{
  struct pry_headers headers;
  first = first < body.size ? first : body.size;
  struct pry_slice pieces[] = {{body.data, first}, {body.data + first, body.size - first}};
  struct pry_http_step step = {
      .headers = &headers, .chunks = pieces, .chunk_count = 2, .cut = cut, .chunk_delay = 0.001};
  pry_headers_init(&headers);
  REQUIRE(pry_headers_add(&headers, PRY_SLICE("content-type"), pry_slice_of(stream ? SSE : JSON)));
  REQUIRE(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&headers);
}

/* Each event is JSON, or the word that ends a stream of OpenAI's. */
static void check_events(struct pry_slice text)
{
  struct pry_sse_parser parser;
  struct pry_sse_event event;
  enum pry_sse_result result;
  size_t consumed;
  pry_sse_init(&parser, 0);
  while ((result = pry_sse_feed(&parser, text, &consumed, &event)) != PRY_SSE_NEED_MORE) {
    REQUIRE(result == PRY_SSE_EVENT || result == PRY_SSE_BLOCK);
    REQUIRE(result == PRY_SSE_BLOCK || pry_json_parse(event.data, NULL) == PRY_JSON_OK ||
            pry_slice_equal(event.data, PRY_SLICE("[DONE]")));
    text = (struct pry_slice){text.data + consumed, text.size - consumed};
  }
  pry_sse_fini(&parser);
}

static void check(struct client *client, bool messages, bool stream)
{
  const char *end = messages ? "\"type\":\"message_stop\"" : "data: [DONE]";
  struct pry_slice text = pry_buffer_slice(&client->body);
  REQUIRE(client->done && client->status);
  bool events = stream && client->status == 200 && text.size && text.data[0] != '{';
  bool ended = text.size && memmem(text.data, text.size, end, strlen(end));
  if (logged(client->rig, ".lua:")) {
    fprintf(stderr, "%s\n", pry_buffer_text(&client->rig->lines));
    abort();
  }
  if (events)
    check_events(text);
  else
    REQUIRE(client->truncated || pry_json_parse(text, NULL) == PRY_JSON_OK);
  REQUIRE(!events || !client->outcome.ok || ended);
  REQUIRE(!events || client->outcome.ok || !ended || messages); /* a text may hold it, escaped or not */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  if (size < 2 || size > MOST)
    return 0;
  bool messages = data[0] & 1, stream = data[0] & 2, cut = data[0] & 4;
  struct rig *rig = rig_of_calls();
  struct client client = {0};
  struct pry_slice answer = fuzz_copy((struct pry_slice){(const char *)data + 2, size - 2});
  char body[256];
  snprintf(body, sizeof body, messages ? MESSAGES : COMPLETIONS, stream ? "true" : "false");
  pry_buffer_clear(&rig->lines);
  script_answer(rig, !(data[0] & 8) == stream, cut, answer, data[1] * 4u);
  call(&client, rig, messages ? "/v1/messages" : CHAT, body, NULL);
  check(&client, messages, stream);
  pry_buffer_fini(&client.body);
  fuzz_release(answer);
  return 0;
}
