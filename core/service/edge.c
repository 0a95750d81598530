#include "edge.h"

#include "http1_text.h"
#include "program.h"
#include "proxy_status.h"

#include <math.h>
#include <stdio.h>

enum { HOST_MAX = 255 };

/* ---- refusing --------------------------------------------------------------------------------------------- */

/* What a client is told. */
struct refusal {
  int status;
  const char *code; /* for programs, log and metrics */
  const char *type; /* of Anthropic's errors, and of OpenAI's where openai_type is NULL */
  const char *openai_type;
  const char *challenge; /* WWW-Authenticate */
  double retry_after;    /* negative: none */
  const char *client;    /* for log and metrics; NULL: nobody knows */
  char message[512];
};

#define REALM "Bearer realm=\"parry\""

static const char *dialect_of(const struct pry_config *config, struct pry_slice path)
{
  struct pry_slice rest;
  return pry_client_dialect(config ? pry_config_route(config, path, &rest) : NULL, path);
}

static bool compose_body(const struct refusal *refusal, bool anthropic, struct pry_buffer *body)
{
  const char *type = !anthropic && refusal->openai_type ? refusal->openai_type : refusal->type;
  return pry_buffer_append_format(body,
                                  anthropic ? "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\""
                                            : "{\"error\":{\"type\":\"%s\",\"message\":\"",
                                  type) &&
         pry_buffer_append_json(body, pry_slice_of(refusal->message)) &&
         pry_buffer_append_format(body, anthropic ? "\"}}" : "\",\"param\":null,\"code\":\"%s\"}}", refusal->code);
}

static bool compose_head(const struct refusal *refusal, struct pry_headers *headers)
{
  char seconds[32];
  bool ok = pry_headers_add(headers, PRY_SLICE("Content-Type"), PRY_SLICE("application/json"));
  if (ok && refusal->challenge)
    ok = pry_headers_add(headers, PRY_SLICE("WWW-Authenticate"), pry_slice_of(refusal->challenge));
  if (ok && refusal->retry_after >= 0) {
    snprintf(seconds, sizeof seconds, "%.0f", fmax(1, ceil(refusal->retry_after)));
    ok = pry_headers_add(headers, PRY_SLICE("Retry-After"), pry_slice_of(seconds));
  }
  return ok && pry_proxy_status_set(
                   headers, &(struct pry_proxy_status){.error = "http_request_denied", .details = refusal->code});
}

static void answer(const struct refusal *refusal, const struct pry_config *config, struct pry_exchange *exchange,
                   struct pry_slice path)
{
  struct pry_headers headers;
  struct pry_buffer body;
  pry_headers_init(&headers);
  pry_buffer_init(&body, 4096);
  bool anthropic = strcmp(dialect_of(config, path), "anthropic") == 0;
  if (compose_body(refusal, anthropic, &body) && compose_head(refusal, &headers) &&
      pry_reply_start(exchange, refusal->status, &headers, (int64_t)body.size)) {
    pry_reply_write(exchange, pry_buffer_slice(&body));
    pry_reply_end(exchange);
  } else {
    pry_reply_abort(exchange);
  }
  pry_buffer_fini(&body);
  pry_headers_fini(&headers);
}

static bool refuse(const struct pry_edge *edge, const struct refusal *refusal, const struct pry_config *config,
                   struct pry_exchange *exchange, const struct pry_server_request *request)
{
  const char *client = refusal->client ? refusal->client : "-"; /* no client's name begins like this */
  pry_metrics_add(edge->metrics, PRY_M_CLIENT_REFUSED, client, refusal->code, 1);
  pry_log(edge->log, PRY_LOG_INFO, "request refused", pry_log_text("reason", refusal->code),
          pry_log_text("client", refusal->client), pry_log_integer("status", refusal->status),
          pry_log_text("peer", request->peer));
  answer(refusal, config, exchange, request->path);
  return false;
}

/* ---- clients with keys ------------------------------------------------------------------------------------ */

static const char *const KEY_FIELDS[] = {"authorization", "x-api-key", "api-key", "x-goog-api-key"};

enum { KEY_FIELD_COUNT = sizeof KEY_FIELDS / sizeof *KEY_FIELDS };

bool pry_edge_is_key_field(struct pry_slice name)
{
  for (size_t i = 0; i < KEY_FIELD_COUNT; i++)
    if (pry_slice_equal_nocase(name, pry_slice_of(KEY_FIELDS[i])))
      return true;
  return false;
}

/* RFC 6750 §2.1; the scheme's case does not matter (RFC 9110 §11.1). */
static struct pry_slice bearer_token(struct pry_slice value)
{
  struct pry_slice scheme = {value.data, value.size < 7 ? value.size : 7};
  if (!pry_slice_equal_nocase(scheme, PRY_SLICE("bearer ")))
    return (struct pry_slice){NULL, 0};
  return pry_slice_trim((struct pry_slice){value.data + 7, value.size - 7});
}

/* The SDKs send theirs in one of these, some in two. The first line of a name counts, so that nobody tries many keys in
 * one request. */
static size_t collect_keys(const struct pry_headers *headers, struct pry_slice keys[KEY_FIELD_COUNT])
{
  size_t count = 0;
  for (size_t i = 0; i < KEY_FIELD_COUNT; i++) {
    struct pry_slice value;
    if (!pry_headers_get(headers, pry_slice_of(KEY_FIELDS[i]), &value))
      continue;
    if (i == 0)
      value = bearer_token(value);
    if (value.size)
      keys[count++] = value;
  }
  return count;
}

static struct refusal refusal_of(enum pry_admission admission, const struct pry_client *client)
{
  static const char *const messages[] = {
      [PRY_ADMISSION_NOT_LOADED] = "the gateway's clients file is not loaded yet",
      [PRY_ADMISSION_NO_KEY] = "no API key: send the key this gateway gave you, as your SDK's API key",
      [PRY_ADMISSION_UNKNOWN_KEY] =
          "this gateway does not know this API key; it takes keys of its own, not a provider's",
      [PRY_ADMISSION_DISABLED] = "this API key is disabled at this gateway",
      [PRY_ADMISSION_EXPIRED] = "this API key has expired at this gateway",
      [PRY_ADMISSION_PATH] = "this client may not use this path; the gateway's clients file lists which",
      [PRY_ADMISSION_RATE] = "this client's limit of calls per minute at this gateway is used up",
      [PRY_ADMISSION_CONCURRENT] = "this client has as many calls open at this gateway as it may",
  };
  struct refusal refusal = {.status = 401,
                            .code = pry_admission_word(admission),
                            .type = "authentication_error",
                            .openai_type = "invalid_request_error",
                            .retry_after = -1,
                            .client = client ? client->name : NULL};
  snprintf(refusal.message, sizeof refusal.message, "%s", messages[admission]);
  switch (admission) {
  case PRY_ADMISSION_NO_KEY:
    refusal.challenge = REALM;
    break;
  case PRY_ADMISSION_NOT_LOADED:
    refusal.status = 503;
    refusal.type = "overloaded_error";
    refusal.openai_type = "server_error";
    refusal.retry_after = 1;
    break;
  case PRY_ADMISSION_PATH:
    refusal.status = 403;
    refusal.type = "permission_error";
    break;
  case PRY_ADMISSION_RATE:
  case PRY_ADMISSION_CONCURRENT:
    refusal.status = 429;
    refusal.type = "rate_limit_error";
    refusal.openai_type = NULL;
    break;
  default:
    refusal.challenge = REALM ", error=\"invalid_token\"";
    break;
  }
  return refusal;
}

static bool enter_with_key(const struct pry_edge *edge, const struct pry_config *config, const struct pry_loop *loop,
                           struct pry_exchange *exchange, const struct pry_server_request *request,
                           struct pry_lease *lease)
{
  struct pry_slice keys[KEY_FIELD_COUNT];
  struct pry_knock knock = {.keys = keys,
                            .key_count = collect_keys(request->headers, keys),
                            .path = request->path,
                            .now = pry_loop_now(loop),
                            .unix_time = pry_loop_unix_time(loop)};
  double retry_after = -1;
  enum pry_admission admission =
      edge->clients ? pry_clients_admit(edge->clients, &knock, lease, &retry_after) : PRY_ADMISSION_NOT_LOADED;
  if (admission == PRY_ADMITTED)
    return true;
  struct refusal refusal = refusal_of(admission, lease->client);
  if (retry_after >= 0)
    refusal.retry_after = retry_after;
  refuse(edge, &refusal, config, exchange, request);
  pry_lease_release(lease);
  return false;
}

/* ---- browsers --------------------------------------------------------------------------------------------- */

/* False: empty, or longer than a name may be. */
static bool to_lower(struct pry_slice name, char lower[HOST_MAX + 1])
{
  if (!name.size || name.size > HOST_MAX)
    return false;
  for (size_t i = 0; i < name.size; i++)
    lower[i] = (char)pry_ascii_lower((unsigned char)name.data[i]);
  lower[name.size] = '\0';
  return true;
}

/* The host of "host:port" in lower case; false: none. */
static bool read_host(struct pry_slice authority, char host[HOST_MAX + 1])
{
  struct pry_slice name, port;
  return pry_http1_split_authority(authority, &name, &port) && to_lower(name, host);
}

/* What no name server can turn into another machine: loopback addresses and localhost (RFC 6761 §6.3). `host`: in lower
 * case. */
static bool is_loopback_host(const char *host)
{
  char address[HOST_MAX + 4];
  size_t size = strlen(host);
  if (size > 10 && strcmp(host + size - 10, ".localhost") == 0)
    return true;
  snprintf(address, sizeof address, "%s:0", host);
  return pry_address_is_loopback(address);
}

static bool is_allowed_host(const struct pry_edge *edge, const char *host)
{
  bool allowed = is_loopback_host(host);
  char pattern[HOST_MAX + 1];
  for (size_t i = 0; !allowed && i < edge->hosts.count; i++)
    allowed = to_lower(pry_slice_of(edge->hosts.items[i]), pattern) &&
              pry_glob_match(pry_slice_of(pattern), pry_slice_of(host));
  return allowed;
}

static bool allows_all(const struct pry_edge *edge)
{
  for (size_t i = 0; i < edge->hosts.count; i++)
    if (strcmp(edge->hosts.items[i], "*") == 0)
      return true;
  return false;
}

/* RFC 6454 §6.2: scheme "://" authority, or "null". */
static bool read_origin(struct pry_slice origin, char host[HOST_MAX + 1])
{
  const char *mark = memmem(origin.data, origin.size, "://", 3);
  if (!mark)
    return false;
  const char *authority = mark + 3;
  return read_host((struct pry_slice){authority, (size_t)(origin.data + origin.size - authority)}, host);
}

static struct refusal refuse_host(const char *host)
{
  struct refusal refusal = {.status = 403,
                            .code = "host_not_allowed",
                            .type = "permission_error",
                            .openai_type = "invalid_request_error",
                            .retry_after = -1};
  snprintf(refusal.message, sizeof refusal.message,
           "the Host \"%.100s\" is not this gateway's: without client keys it answers to loopback addresses and "
           "localhost only, so that web pages cannot use it; start it with --allow-host NAME to allow the name",
           host);
  return refusal;
}

static struct refusal refuse_origin(const char *origin)
{
  struct refusal refusal = refuse_host("");
  refusal.code = "origin_not_allowed";
  snprintf(refusal.message, sizeof refusal.message,
           "a web page of %.100s may not use this gateway, which has no client keys; to let it, start the gateway with "
           "--allow-host NAME",
           origin);
  return refusal;
}

/* True: this is no web page, or one that may. */
static bool passes_guard(const struct pry_edge *edge, const struct pry_headers *headers, struct refusal *refusal)
{
  char host[HOST_MAX + 1];
  struct pry_slice value;
  if (pry_headers_get(headers, PRY_SLICE("host"), &value)) { /* HTTP/1.0 may have none, browsers do */
    bool readable = read_host(value, host);
    if (!readable || !is_allowed_host(edge, host)) {
      *refusal = refuse_host(readable ? host : "");
      return false;
    }
  }
  if (pry_headers_get(headers, PRY_SLICE("origin"), &value)) {
    bool readable = read_origin(value, host);
    if (readable && is_allowed_host(edge, host))
      return true;
    *refusal = refuse_origin(readable ? host : "an origin without a name");
    return false;
  }
  if (pry_headers_get(headers, PRY_SLICE("sec-fetch-site"), &value) &&
      pry_slice_equal(value, PRY_SLICE("cross-site"))) {
    *refusal = refuse_origin("another site");
    return false;
  }
  return true;
}

/* ---- the door --------------------------------------------------------------------------------------------- */

static struct refusal refuse_exposed(void)
{
  struct refusal refusal = refuse_host("");
  refusal.code = "no_clients_declared";
  snprintf(
      refusal.message, sizeof refusal.message,
      "this gateway listens beyond loopback and its policies declare no clients { file = ... }: nobody may use it");
  return refusal;
}

bool pry_edge_enter(const struct pry_edge *edge, const struct pry_config *config, const struct pry_loop *loop,
                    struct pry_exchange *exchange, const struct pry_server_request *request, struct pry_lease *lease)
{
  struct refusal refusal;
  *lease = (struct pry_lease){NULL, NULL, false};
  if (config && config->clients_file)
    return enter_with_key(edge, config, loop, exchange, request, lease);
  if (edge->exposed) {
    refusal = refuse_exposed();
    return refuse(edge, &refusal, config, exchange, request);
  }
  bool is_unix = strcmp(request->peer, "unix") == 0; /* no browser gets there */
  if (is_unix || allows_all(edge) || passes_guard(edge, request->headers, &refusal))
    return true;
  return refuse(edge, &refusal, config, exchange, request);
}

bool pry_edge_may_listen(const char *address, const struct pry_config *config, struct pry_buffer *problem)
{
  if (pry_address_is_loopback(address) || (config && config->clients_file))
    return true;
  if (problem)
    pry_buffer_append_format(
        problem,
        "--listen %s is not a loopback address: whoever reaches it would use your providers' keys; "
        "declare clients { file = \"clients.json\" } in init.lua and make keys with `parry client "
        "add NAME`, or listen on 127.0.0.1 or [::1]",
        address);
  return false;
}
