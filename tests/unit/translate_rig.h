/*
 * translate_rig.h: an engine with the shipped dialects and their translations, scripted providers and a client.
 *
 * Real Lua, virtual time, no sockets. Header only: each test program has its own.
 */
#ifndef TRANSLATE_RIG_H
#define TRANSLATE_RIG_H

#include "call.h"
#include "http_script.h"
#include "loader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- a set around the shipped dialects -------------------------------------------------------------------- */

#ifndef GO /* a test program may have a policy of its own, before this */
#define GO                                                                                                             \
  "return policy { name = 'p', on_attempt = function(self, call)\n"                                                    \
  "  local body = call:header('x-inject')\n"                                                                           \
  "  if body then return inject { status = 200, headers = { ['content-type'] = 'application/json' }, body = body } "   \
  "end\n"                                                                                                              \
  "end, on_error = function(self, call, err)\n"                                                                        \
  "  if call.target.provider == 'p' then return fallback { target = call:header('x-to') or 'q/m2', strip = true } "    \
  "end\n"                                                                                                              \
  "end }\n"
#endif

#define INIT                                                                                                           \
  "provider 'p' { base_url = 'http://p.test/v1', dialect = 'openai' }\n"                                               \
  "provider 'q' { base_url = 'http://q.test/v1/messages', dialect = 'anthropic' }\n"                                   \
  "provider 'r' { base_url = 'http://r.test', dialect = 'openai' }\n"                                                  \
  "provider 'a' { base_url = 'http://a.test/v1/messages', dialect = 'anthropic' }\n"                                   \
  "provider 'bad' { base_url = 'http://bad.test', dialect = 'bad' }\n"                                                 \
  "route '/v1/*' { to = by_model { ['bad'] = 'bad', ['claude'] = 'q', ['*'] = 'p' }, chain = { use 'p' } }\n"          \
  "route '/v1/messages*' { to = 'a', chain = { use 'p' } }\n"

/* A dialect whose functions do what the client's body, or the event, says. */
#define BAD                                                                                                            \
  "local function act(what)\n"                                                                                         \
  "  if what == 'error' then error('oops') end\n"                                                                      \
  "  if what == 'loop' then while true do end end\n"                                                                   \
  "  if what == 'memory' then local s = {} for i = 1, 1e7 do s[i] = { i } end end\n"                                   \
  "  if what == 'nonsense' then return 7 end\n"                                                                        \
  "end\n"                                                                                                              \
  "return dialect { name = 'bad', stream = { end_data = { 'end' }, default = 'content' }, translate = { openai = {\n"  \
  "  request = function(b, ask) return act(b.act) or { path = '/v1/x', body = b, remember = { n = 0 } } end,\n"        \
  "  answer = function(b, m) return act(b.act) or { n = m.n, got = b } end,\n"                                         \
  "  event = function(m, emit, d, t)\n"                                                                                \
  "    if d == 'end' then return end\n"                                                                                \
  "    if d.act == 'grow' then m.text = ('x'):rep(20000) end\n"                                                        \
  "    m.n = m.n + 1 act(d.act) emit { n = m.n } end,\n"                                                               \
  "  finish = function(m, emit) emit 'bye' end,\n"                                                                     \
  "} } }\n"

struct rig {
  struct pry_loop *loop;
  struct pry_http_script *script;
  struct pry_http *http;
  struct pry_engine *engine;
  struct pry_buffer lines;
  struct pry_log *log;
};

static inline void add_file(struct pry_policy_set *set, const char *path)
{
  char full[512];
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  snprintf(full, sizeof full, PARRY_SOURCE_DIR "/policies/%s", path);
  FILE *file = fopen(full, "rb");
  assert_non_null(file);
  char part[4096];
  for (size_t size; (size = fread(part, 1, sizeof part, file)) > 0;)
    assert_true(pry_buffer_append(&text, part, size));
  fclose(file);
  assert_true(pry_policy_set_add(set, path, pry_buffer_slice(&text)));
  pry_buffer_fini(&text);
}

static inline struct pry_policy_set *set_of(const char *init, const char *bad)
{
  static const char *const files[] = {"dialects/openai.lua",
                                      "dialects/anthropic.lua",
                                      "lib/answer.lua",
                                      "lib/errors.lua",
                                      "lib/time.lua",
                                      "lib/openai.lua",
                                      "lib/providers.lua",
                                      "lib/translate.lua",
                                      "lib/strip.lua",
                                      "lib/grants.lua",
                                      "lib/translate_openai_to_anthropic.lua",
                                      "lib/translate_anthropic_to_openai.lua"};
  struct pry_policy_set *set = pry_policy_set_new();
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    add_file(set, files[i]);
  assert_true(pry_policy_set_add(set, "init.lua", pry_slice_of(init)));
  assert_true(pry_policy_set_add(set, "p.lua", PRY_SLICE(GO)));
  assert_true(pry_policy_set_add(set, "dialects/bad.lua", pry_slice_of(bad)));
  assert_true(pry_policy_set_seal(set));
  return set;
}

/* A generation of its own for each `init` and each `bad`. */
static inline void load(struct rig *rig, const char *init, const char *bad)
{
  struct pry_policy_set *set = set_of(init, bad);
  struct pry_report report;
  struct pry_buffer text;
  pry_report_init(&report);
  pry_buffer_init(&text, 0);
  if (!pry_engine_load(rig->engine, set, false, &report)) {
    pry_report_text(&report, &text);
    fail_msg("the set was refused: %s", pry_buffer_text(&text));
  }
  pry_buffer_fini(&text);
  pry_report_fini(&report);
}

static inline void log_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct rig *rig = user;
  (void)level;
  pry_buffer_append(&rig->lines, line, size);
}

static inline double log_clock(void *user)
{
  return pry_loop_unix_time(user);
}

static inline struct rig *rig_new(void)
{
  struct rig *rig = calloc(1, sizeof *rig);
  assert_non_null(rig);
  pry_buffer_init(&rig->lines, 0);
  rig->loop = pry_loop_new_virtual(1700000000);
  rig->script = pry_http_script_new(rig->loop);
  rig->http = pry_http_script_client(rig->script);
  rig->log = pry_log_new(log_line, rig, PRY_LOG_INFO, log_clock, rig->loop);
  struct pry_engine_options options = {.loop = rig->loop,
                                       .http = rig->http,
                                       .log = rig->log,
                                       .loader = &pry_lua_test_loader,
                                       .limits = {.wall = -1},
                                       .seed = 7};
  rig->engine = pry_engine_new(&options);
  assert_non_null(rig->engine);
  load(rig, INIT, BAD);
  return rig;
}

static inline void rig_free(struct rig *rig)
{
  pry_loop_advance(rig->loop, PRY_SECOND / 1000);
  assert_int_equal(rig->engine->control->call_count, 0);
  assert_int_equal(pry_http_open_count(rig->http), 0);
  pry_engine_free(rig->engine);
  pry_http_free(rig->http);
  pry_log_free(rig->log);
  pry_loop_free(rig->loop);
  pry_buffer_fini(&rig->lines);
  free(rig);
}

static inline bool logged(struct rig *rig, const char *text)
{
  const char *lines = pry_buffer_text(&rig->lines);
  return lines && strstr(lines, text);
}

/* ---- a client ------------------------------------------------------------------------------------------------ */

struct client {
  struct rig *rig;
  struct pry_call *call;
  int status;
  struct pry_buffer body;
  bool done, truncated, leave_at_data;
  struct pry_outcome outcome;
};

static inline void client_head(void *user, int status, const struct pry_headers *headers, int64_t body_size)
{
  struct client *client = user;
  (void)headers;
  (void)body_size;
  client->status = status;
}

static inline bool client_data(void *user, struct pry_slice data)
{
  struct client *client = user;
  if (client->leave_at_data)
    pry_call_cancel(client->call);
  assert_true(pry_buffer_append_slice(&client->body, data)); /* readable all the same */
  return true;
}

static inline void client_done(void *user, const struct pry_outcome *outcome, bool truncated)
{
  struct client *client = user;
  client->done = true;
  client->outcome = *outcome;
  client->truncated = truncated;
}

static const struct pry_sink_ops client_ops = {client_head, client_data, client_done, NULL};

/* `to`: the target that the policy falls back to, or the JSON that it injects; NULL: neither. */
static inline void start(struct client *client, struct rig *rig, const char *path, struct pry_slice body,
                         const char *to)
{
  struct pry_headers headers;
  struct pry_buffer copy;
  client->rig = rig;
  pry_headers_init(&headers);
  pry_buffer_init(&copy, 0);
  pry_buffer_init(&client->body, 0);
  assert_true(pry_headers_add(&headers, PRY_SLICE("content-type"), PRY_SLICE("application/json")));
  bool inject = to && to[0] == '{';
  assert_true(!to || pry_headers_add(&headers, pry_slice_of(inject ? "x-inject" : "x-to"), pry_slice_of(to)));
  assert_true(pry_buffer_append_slice(&copy, body));
  struct pry_call_request request = {
      .method = PRY_SLICE("POST"), .path = pry_slice_of(path), .headers = &headers, .body = &copy};
  client->call = pry_call_start(rig->engine->control, &request, &client_ops, client);
  assert_non_null(client->call);
  pry_headers_fini(&headers);
}

static inline void finish(struct client *client)
{
  for (unsigned i = 0; i < 100000 && !client->done; i++)
    pry_loop_turn(client->rig->loop, 3600 * PRY_SECOND);
  assert_true(client->done);
}

static inline const char *text_of(struct client *client)
{
  return client->body.size ? pry_buffer_text(&client->body) : "";
}

static inline void call(struct client *client, struct rig *rig, const char *path, const char *body, const char *to)
{
  *client = (struct client){0};
  start(client, rig, path, pry_slice_of(body), to);
  finish(client);
}

static inline void answers(struct rig *rig, int status, const char *type, struct pry_slice body, bool cut)
{
  struct pry_headers headers;
  pry_headers_init(&headers);
  assert_true(pry_headers_add(&headers, PRY_SLICE("content-type"), pry_slice_of(type)));
  struct pry_http_step step = {
      .status = status, .headers = &headers, .chunks = &body, .chunk_count = 1, .cut = cut, .chunk_delay = 0.001};
  assert_true(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&headers);
}

static inline void answers_pieces(struct rig *rig, const char *body, size_t first, double delay)
{
  struct pry_headers headers;
  pry_headers_init(&headers);
  assert_true(pry_headers_add(&headers, PRY_SLICE("content-type"), PRY_SLICE("text/event-stream")));
  struct pry_slice pieces[] = {{body, first}, {body + first, strlen(body) - first}};
  struct pry_http_step step = {.headers = &headers, .chunks = pieces, .chunk_count = 2, .chunk_delay = delay};
  assert_true(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&headers);
}

#define SSE "text/event-stream"
#define JSON "application/json"
#define CHAT "/v1/chat/completions"
#define ASK "{\"model\":\"claude\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"

#define EVENT(type, rest) "event: " type "\ndata: {\"type\":\"" type "\"" rest "}\n\n"
#define CLAUDE_BEGIN                                                                                                   \
  EVENT("message_start", ",\"message\":{\"id\":\"m1\",\"model\":\"c\",\"usage\":{\"input_tokens\":3}}")                \
  EVENT("content_block_start", ",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}")
#define CLAUDE_TEXT(text)                                                                                              \
  EVENT("content_block_delta", ",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"" text "\"}")
#define CLAUDE_END                                                                                                     \
  EVENT("content_block_stop", ",\"index\":0")                                                                          \
  EVENT("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}")                  \
  EVENT("message_stop", "")
#define CLAUDE CLAUDE_BEGIN CLAUDE_TEXT("h\\u00e9") ": comment\n\n" CLAUDE_TEXT("llo") CLAUDE_END

#endif
