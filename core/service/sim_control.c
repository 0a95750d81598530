#include "sim_internal.h"

#include <openssl/evp.h>
#include <stdio.h>

void pry_sim_digest(struct pry_slice text, char digest[9])
{
  unsigned char bytes[EVP_MAX_MD_SIZE];
  digest[0] = '\0';
  if (!text.size || !EVP_Digest(text.data, text.size, bytes, NULL, EVP_sha256(), NULL))
    return;
  snprintf(digest, 9, "%02x%02x%02x%02x", bytes[0], bytes[1], bytes[2], bytes[3]);
}

static void reply_json(struct pry_sim_call *call, struct pry_buffer *json, bool ok)
{
  if (ok)
    pry_sim_reply(call, 200, "application/json", pry_buffer_slice(json));
  else
    pry_sim_call_fail(call);
  pry_buffer_fini(json);
}

static void say_recent(struct pry_sim_text *text, const struct pry_sim_recent *recent)
{
  pry_sim_say(text, "{\"path\":\"");
  pry_sim_say_json(text, pry_slice_of(recent->path));
  pry_sim_say(text, "\",\"model\":\"");
  pry_sim_say_json(text, pry_slice_of(recent->model));
  pry_sim_say(text, "\",\"key\":\"");
  pry_sim_say_json(text, pry_slice_of(recent->key));
  pry_sim_say(text, "\",\"status\":%d,\"cancelled\":%s,\"authorization_sha8\":\"%s\"}", recent->status,
              recent->cancelled ? "true" : "false", recent->digest);
}

static void serve_stats(struct pry_sim_call *call)
{
  const struct pry_sim *sim = call->sim;
  struct pry_buffer json;
  pry_buffer_init(&json, 0);
  struct pry_sim_text text = {&json, true};
  pry_sim_say(&text,
              "{\"total\":%zu,\"open\":%zu,\"cancelled\":%zu,\"renewals\":%zu,\"token_requests\":%zu,\"models\":",
              sim->total, sim->open, sim->cancelled, sim->tokens.renewals, sim->tokens.requests);
  text.ok = text.ok && pry_sim_table_json(&sim->models, &json);
  pry_sim_say(&text, ",\"keys\":");
  text.ok = text.ok && pry_sim_table_json(&sim->keys, &json);
  pry_sim_say(&text, ",\"recent\":[");
  size_t first = sim->recent_count > PRY_SIM_RECENT_MAX ? sim->recent_count - PRY_SIM_RECENT_MAX : 0;
  for (size_t i = first; i < sim->recent_count; i++) {
    pry_sim_say(&text, i > first ? "," : "");
    say_recent(&text, &sim->recent[i % PRY_SIM_RECENT_MAX]);
  }
  pry_sim_say(&text, "]}\n");
  reply_json(call, &json, text.ok);
}

static void serve_last(struct pry_sim_call *call)
{
  struct pry_sim_body *last = call->sim->last_body;
  if (last)
    pry_sim_reply(call, 200, last->content_type[0] ? last->content_type : "application/octet-stream",
                  pry_buffer_slice(&last->bytes));
  else
    pry_sim_reply(call, 404, "application/json", PRY_SLICE("{\"error\":\"no request yet\"}\n"));
}

static void serve_reset(struct pry_sim_call *call)
{
  struct pry_sim *sim = call->sim;
  pry_sim_table_clear(&sim->models);
  pry_sim_table_clear(&sim->keys);
  sim->total = sim->cancelled = sim->recent_count = 0;
  pry_sim_tokens_init(&sim->tokens);
  pry_sim_body_unref(sim->last_body);
  sim->last_body = NULL;
  pry_buffer_clear(&sim->last_head);
  pry_sim_reply(call, 200, "application/json", PRY_SLICE("{\"ok\":true}\n"));
}

static bool read_query(struct pry_slice query, const char *name, double most, double *value)
{
  struct pry_slice text;
  if (!pry_sim_query_get(query, name, &text))
    return true;
  *value = pry_sim_number(text, -1);
  return *value >= 0 && *value <= most;
}

static void serve_token(struct pry_sim_call *call)
{
  struct pry_sim_tokens *tokens = &call->sim->tokens;
  struct pry_slice query = call->request->query;
  double fail = (double)tokens->fail, hang = (double)tokens->hang, delay = tokens->delay, expires = tokens->expires_in;
  if (!read_query(query, "fail", 1e9, &fail) || !read_query(query, "hang", 1e9, &hang) ||
      !read_query(query, "delay", 3600, &delay) || !read_query(query, "expires_in", 1e9, &expires)) {
    pry_sim_reply(call, 400, "application/json",
                  PRY_SLICE("{\"error\":\"fail, hang, delay and expires_in are numbers from 0 up\"}\n"));
    return;
  }
  tokens->fail = (long)fail;
  tokens->hang = (long)hang;
  tokens->delay = delay;
  tokens->expires_in = expires;
  pry_sim_reply(call, 200, "application/json", PRY_SLICE("{\"ok\":true}\n"));
}

static void serve_expire(struct pry_sim_call *call)
{
  call->sim->tokens.expired = true;
  pry_sim_reply(call, 200, "application/json", PRY_SLICE("{\"ok\":true}\n"));
}

static void serve_last_headers(struct pry_sim_call *call)
{
  struct pry_slice head = pry_buffer_slice(&call->sim->last_head);
  pry_sim_reply(call, head.size ? 200 : 404, "application/json",
                head.size ? head : PRY_SLICE("{\"error\":\"no request yet\"}\n"));
}

static void serve_index(struct pry_sim_call *call)
{
  pry_sim_reply(call, 200, "text/plain; charset=utf-8",
                PRY_SLICE("parry sim: a provider that fails on command.\n\n"
                          "POST /v1/chat/completions  /v1/responses  /v1/embeddings  /v1/messages\n"
                          "GET  /v1/models            models that fail by script\n"
                          "GET  /sim/stats            what was asked\n\n"
                          "Header x-sim-fault: code=429;retry-after=1;times=1 makes a request fail.\n"
                          "All of it: parry sim --help\n"));
}

void pry_sim_control_serve(struct pry_sim_call *call)
{
  static const struct {
    const char *method, *path;
    void (*serve)(struct pry_sim_call *call);
  } PLACES[] = {
      {"GET", "/", serve_index},           {"GET", "/sim/stats", serve_stats},
      {"GET", "/sim/last", serve_last},    {"GET", "/sim/last-headers", serve_last_headers},
      {"POST", "/sim/reset", serve_reset}, {"POST", "/sim/expire", serve_expire},
      {"POST", "/sim/token", serve_token},
  };
  const struct pry_server_request *request = call->request;
  for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++)
    if (pry_slice_equal(request->method, pry_slice_of(PLACES[i].method)) &&
        pry_slice_equal(request->path, pry_slice_of(PLACES[i].path))) {
      PLACES[i].serve(call);
      return;
    }
  pry_sim_reply(call, 404, "application/json", PRY_SLICE("{\"error\":\"no such control path\"}\n"));
}
