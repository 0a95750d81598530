#include "sim_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define ACCESS_PREFIX "sim-access-"
#define REFRESH_PREFIX "sim-refresh-"

void pry_sim_tokens_init(struct pry_sim_tokens *tokens)
{
  *tokens = (struct pry_sim_tokens){.expires_in = 3600};
}

/* ---- Who may pass --------------------------------------------------------------------------------------- */

static bool under_auth(struct pry_slice path)
{
  return pry_slice_starts_with(path, PRY_SLICE("/auth/")) || pry_slice_starts_with(path, PRY_SLICE("/kimi-auth/"));
}

static struct pry_slice credential_of(const struct pry_headers *headers)
{
  struct pry_slice value;
  if (pry_headers_get(headers, PRY_SLICE("authorization"), &value) && value.size > 7 &&
      pry_slice_equal_nocase((struct pry_slice){value.data, 7}, PRY_SLICE("bearer ")))
    return (struct pry_slice){value.data + 7, value.size - 7};
  pry_headers_get(headers, PRY_SLICE("x-api-key"), &value);
  return value;
}

/* N in "PREFIX" N, or 0. */
static unsigned long version_of(struct pry_slice token, const char *prefix)
{
  struct pry_slice start = pry_slice_of(prefix);
  if (!pry_slice_starts_with(token, start))
    return 0;
  double number = pry_sim_number((struct pry_slice){token.data + start.size, token.size - start.size}, 0);
  return number >= 1 && number < 1e15 ? (unsigned long)number : 0;
}

bool pry_sim_token_allows(const struct pry_sim_call *call)
{
  if (!under_auth(call->request->path))
    return true;
  const struct pry_sim_tokens *tokens = &call->sim->tokens;
  unsigned long version = version_of(credential_of(call->request->headers), ACCESS_PREFIX);
  return version && version == tokens->version && !tokens->expired &&
         pry_loop_now(call->sim->loop) < tokens->valid_until;
}

/* ---- The endpoints -------------------------------------------------------------------------------------- */

static bool read_json_text(struct pry_slice body, const char *name, struct pry_buffer *text)
{
  struct pry_json_value value;
  return pry_json_get(body, name, &value) && pry_json_string(value.raw, text);
}

/* application/x-www-form-urlencoded: "+" is a space, %XX a byte. */
static bool read_form_text(struct pry_slice body, const char *name, struct pry_buffer *text)
{
  struct pry_slice value;
  if (!pry_sim_query_get(body, name, &value))
    return false;
  for (size_t i = 0; i < value.size; i++) {
    char byte = value.data[i] == '+' ? ' ' : value.data[i];
    if (byte == '%' && i + 2 < value.size) {
      char hex[3] = {value.data[i + 1], value.data[i + 2], '\0'}, *end;
      byte = (char)strtoul(hex, &end, 16);
      if (*end)
        return false;
      i += 2;
    }
    if (!pry_buffer_append(text, &byte, 1))
      return false;
  }
  return true;
}

static bool read_text(struct pry_slice body, const char *name, struct pry_buffer *text)
{
  return body.size && body.data[0] == '{' ? read_json_text(body, name, text) : read_form_text(body, name, text);
}

static void reply_formatted(struct pry_sim_call *call, int status, const char *json)
{
  pry_sim_reply(call, status, "application/json", pry_slice_of(json));
}

static void refuse(struct pry_sim_call *call, const char *error, const char *description)
{
  char json[256];
  bool kimi = call->shape == PRY_SIM_TOKEN_KIMI;
  if (kimi)
    snprintf(json, sizeof json, "{\"errcode\":-2002,\"errmsg\":\"%s\",\"data\":null}", description);
  else
    snprintf(json, sizeof json, "{\"error\":\"%s\",\"error_description\":\"%s\"}", error, description);
  reply_formatted(call, kimi ? (call->kimi_real_status ? 401 : 200) : 400, json);
}

static void give_tokens(struct pry_sim_call *call)
{
  struct pry_sim_tokens *tokens = &call->sim->tokens;
  char json[256];
  tokens->version++;
  tokens->renewals++;
  tokens->expired = false;
  tokens->valid_until = pry_loop_now(call->sim->loop) + pry_time_from_seconds(tokens->expires_in);
  if (call->shape == PRY_SIM_TOKEN_KIMI)
    snprintf(json, sizeof json,
             "{\"errcode\":0,\"errmsg\":\"\",\"data\":{\"access_token\":\"" ACCESS_PREFIX
             "%lu\",\"expires_in\":%.15g,\"refresh_token\":\"" REFRESH_PREFIX "%lu\"}}",
             tokens->version, tokens->expires_in, tokens->version);
  else
    snprintf(json, sizeof json,
             "{\"access_token\":\"" ACCESS_PREFIX "%lu\",\"token_type\":\"Bearer\",\"expires_in\":%.15g,"
             "\"refresh_token\":\"" REFRESH_PREFIX "%lu\"}",
             tokens->version, tokens->expires_in, tokens->version);
  reply_formatted(call, 200, json);
}

/* Our own refresh tokens are good once; what we never gave out is somebody's first. */
static bool refresh_token_is_good(const struct pry_sim_tokens *tokens, struct pry_slice token)
{
  if (!token.size || pry_slice_equal(token, PRY_SLICE("expired-token")))
    return false;
  return !pry_slice_starts_with(token, PRY_SLICE(REFRESH_PREFIX)) ||
         version_of(token, REFRESH_PREFIX) == tokens->version;
}

static void renew(void *user)
{
  struct pry_sim_call *call = user;
  struct pry_slice body = pry_buffer_slice(&call->body->bytes);
  struct pry_buffer token, grant;
  pry_buffer_init(&token, 4096);
  pry_buffer_init(&grant, 4096);
  bool kimi = call->shape == PRY_SIM_TOKEN_KIMI;
  bool granted = kimi || (read_text(body, "grant_type", &grant) &&
                          pry_slice_equal(pry_buffer_slice(&grant), PRY_SLICE("refresh_token")));
  bool good =
      read_text(body, "refresh_token", &token) && refresh_token_is_good(&call->sim->tokens, pry_buffer_slice(&token));
  pry_buffer_fini(&token);
  pry_buffer_fini(&grant);
  if (!granted)
    refuse(call, "unsupported_grant_type", "grant_type must be refresh_token");
  else if (!good)
    refuse(call, "invalid_grant", "the refresh token is missing, outdated or revoked");
  else
    give_tokens(call);
}

void pry_sim_token_serve(struct pry_sim_call *call)
{
  struct pry_sim_tokens *tokens = &call->sim->tokens;
  tokens->requests++;
  if (tokens->hang > 0) {
    tokens->hang--;
    call->hanging = true;
  } else if (tokens->fail > 0) {
    tokens->fail--;
    reply_formatted(call, 500, "{\"error\":\"server_error\",\"error_description\":\"failing as told\"}");
  } else if (tokens->delay > 0) {
    if (!pry_timer_start(call->sim->loop, &call->timer, pry_time_from_seconds(tokens->delay), renew, call))
      pry_sim_call_fail(call);
  } else {
    renew(call);
  }
}
