#include "admin_internal.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

enum {
  EVENTS_DEFAULT = 100,
  EVENTS_MAX = 1000,
  ERRORS_DEFAULT = 100,
  WAIT_DEFAULT = 10,
  WAIT_MAX = 300,
  BODY_MAX = 64 * 1024
};

/* ---- answering -------------------------------------------------------------------------------------------- */

void pry_admin_problem(struct pry_exchange *exchange, int status, const char *title, const char *detail,
                       struct pry_slice header, const char *value)
{
  struct pry_buffer body;
  struct pry_headers headers;
  pry_buffer_init(&body, 4096);
  pry_headers_init(&headers);
  bool ok = pry_buffer_append_format(&body, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"detail\":\"",
                                     title, status) &&
            pry_buffer_append_json(&body, pry_slice_of(detail)) && pry_buffer_append_text(&body, "\"}\n") &&
            pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("application/problem+json")) &&
            (!header.size || pry_headers_add(&headers, header, pry_slice_of(value)));
  if (ok && pry_reply_start(exchange, status, &headers, (int64_t)body.size)) {
    pry_reply_write(exchange, pry_buffer_slice(&body));
    pry_reply_end(exchange);
  } else if (!ok) {
    pry_reply_abort(exchange);
  }
  pry_headers_fini(&headers);
  pry_buffer_fini(&body);
}

void pry_admin_reply(struct pry_exchange *exchange, int status, const char *type, bool built, struct pry_buffer *body)
{
  if (built)
    pry_reply_text(exchange, status, type, pry_buffer_slice(body));
  else
    pry_admin_problem(exchange, 503, "Service Unavailable", "memory is short, or the answer is larger than 32 MiB",
                      PRY_SLICE(""), NULL);
  pry_buffer_fini(body);
}

/* ---- who may ask -------------------------------------------------------------------------------------------- */

/* Comparing digests takes the same time wherever two tokens differ, and however long they are. */
static bool token_matches(const char *token, struct pry_slice given)
{
  unsigned char ours[EVP_MAX_MD_SIZE] = {0}, theirs[EVP_MAX_MD_SIZE] = {0};
  unsigned ours_size = 0, theirs_size = 0;
  bool ok = EVP_Digest(token, strlen(token), ours, &ours_size, EVP_sha256(), NULL) == 1 &&
            EVP_Digest(given.data, given.size, theirs, &theirs_size, EVP_sha256(), NULL) == 1;
  return ok && ours_size == theirs_size && CRYPTO_memcmp(ours, theirs, ours_size) == 0;
}

static bool has_token(const struct pry_admin *admin, const struct pry_headers *headers)
{
  struct pry_slice value;
  struct pry_slice scheme = PRY_SLICE("Bearer ");
  if (!pry_headers_get(headers, PRY_SLICE("Authorization"), &value) || value.size < scheme.size ||
      !pry_slice_equal_nocase((struct pry_slice){value.data, scheme.size}, scheme))
    return false;
  value = pry_slice_trim((struct pry_slice){value.data + scheme.size, value.size - scheme.size});
  return value.size && token_matches(admin->token, value);
}

static bool is_literal_address(const char *host)
{
  struct in6_addr address;
  return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

/* A page of another site can make a browser send requests here, but not without the site's own name in Host, once
 * that name has been pointed at this machine. */
static bool host_is_plain(struct pry_slice host)
{
  char name[64];
  if (host.size == 0 || host.size >= sizeof name)
    return false;
  memcpy(name, host.data, host.size);
  name[host.size] = '\0';
  char *start = name;
  if (name[0] == '[') {
    char *end = strchr(name, ']');
    if (!end)
      return false;
    *end = '\0';
    start = name + 1;
  } else if (strchr(name, ':')) {
    *strchr(name, ':') = '\0';
  }
  return strcmp(start, "localhost") == 0 || is_literal_address(start);
}

static bool origin_is_ours(struct pry_slice origin, struct pry_slice host)
{
  struct pry_slice scheme = PRY_SLICE("http://");
  return pry_slice_starts_with(origin, scheme) &&
         pry_slice_equal((struct pry_slice){origin.data + scheme.size, origin.size - scheme.size}, host);
}

/* Answers and gives false when the request must go no further. */
static bool admit(const struct pry_admin *admin, struct pry_exchange *exchange,
                  const struct pry_server_request *request)
{
  struct pry_slice host, origin;
  if (!admin->tcp)
    return true;
  if (!pry_headers_get(request->headers, PRY_SLICE("Host"), &host) || !host_is_plain(host)) {
    pry_admin_problem(exchange, 403, "Forbidden",
                      "Host is neither an address nor localhost; ask for the listener's address", PRY_SLICE(""), NULL);
    return false;
  }
  if (pry_headers_get(request->headers, PRY_SLICE("Origin"), &origin) && !origin_is_ours(origin, host)) {
    pry_admin_problem(exchange, 403, "Forbidden", "this Origin may not use the admin listener", PRY_SLICE(""), NULL);
    return false;
  }
  if (!has_token(admin, request->headers)) {
    pry_admin_problem(exchange, 401, "Unauthorized",
                      "send the admin token as Authorization: Bearer TOKEN (commands: --admin-token-file FILE or "
                      "PARRY_ADMIN_TOKEN)",
                      PRY_SLICE("WWW-Authenticate"), "Bearer realm=\"parry admin\"");
    return false;
  }
  return true;
}

/* ---- the query ------------------------------------------------------------------------------------------------ */

bool pry_admin_query_text(struct pry_slice query, const char *key, struct pry_slice *value)
{
  struct pry_slice name = pry_slice_of(key);
  while (query.size) {
    const char *end = memchr(query.data, '&', query.size);
    struct pry_slice pair = {query.data, end ? (size_t)(end - query.data) : query.size};
    query = end ? (struct pry_slice){end + 1, query.size - pair.size - 1} : (struct pry_slice){NULL, 0};
    if (pair.size <= name.size || !pry_slice_starts_with(pair, name) || pair.data[name.size] != '=')
      continue;
    *value = (struct pry_slice){pair.data + name.size + 1, pair.size - name.size - 1};
    return true;
  }
  return false;
}

bool pry_admin_query_number(struct pry_slice query, const char *key, double otherwise, double most, double *value)
{
  struct pry_slice digits;
  char text[32];
  *value = otherwise;
  if (!pry_admin_query_text(query, key, &digits))
    return true;
  if (!digits.size || digits.size >= sizeof text)
    return false;
  memcpy(text, digits.data, digits.size);
  text[digits.size] = '\0';
  if (text[strspn(text, "0123456789.")] || text[0] == '.')
    return false;
  *value = fmin(strtod(text, NULL), most);
  return true;
}

/* ---- routes ----------------------------------------------------------------------------------------------------- */

static void *get_metrics(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  struct pry_buffer body;
  (void)query;
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool built = pry_engine_metrics(admin->engine, &body);
  pry_admin_reply(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", built, &body);
  return NULL;
}

static void *get_status(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  (void)query;
  return pry_admin_start_status(admin, exchange);
}

static void *get_generations(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  struct pry_buffer body;
  (void)query;
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool built = pry_admin_generations(admin, &body);
  pry_admin_reply(exchange, 200, PRY_ADMIN_JSON, built, &body);
  return NULL;
}

static void *get_events(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  double limit;
  if (!pry_admin_query_number(query, "limit", EVENTS_DEFAULT, EVENTS_MAX, &limit)) {
    pry_admin_problem(exchange, 400, "Bad Request", "limit is a number of events", PRY_SLICE(""), NULL);
    return NULL;
  }
  return pry_admin_start_events(admin, exchange, (size_t)limit);
}

static void *get_errors(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  double limit;
  struct pry_buffer body;
  if (!pry_admin_query_number(query, "limit", ERRORS_DEFAULT, PRY_RECENT_ERRORS_MAX, &limit)) {
    pry_admin_problem(exchange, 400, "Bad Request", "limit is a number of errors", PRY_SLICE(""), NULL);
    return NULL;
  }
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool built = pry_admin_errors(admin, (size_t)limit, &body);
  pry_admin_reply(exchange, 200, PRY_ADMIN_JSON, built, &body);
  return NULL;
}

static void *post_reload(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  double wait;
  if (pry_admin_query_number(query, "wait", WAIT_DEFAULT, WAIT_MAX, &wait))
    return pry_admin_start_reload(admin, exchange, wait);
  pry_admin_problem(exchange, 400, "Bad Request", "wait is seconds, such as 10 or 0.5", PRY_SLICE(""), NULL);
  return NULL;
}

static void *post_rollback(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  char id[PRY_GENERATION_ID_MAX] = "";
  struct pry_slice given;
  bool named = pry_admin_query_text(query, "to", &given);
  if (named && (given.size < 4 || given.size >= sizeof id || memchr(given.data, '%', given.size))) {
    pry_admin_problem(exchange, 400, "Bad Request", "to is a generation's id, or at least its first 4 characters",
                      PRY_SLICE(""), NULL);
    return NULL;
  }
  if (named)
    memcpy(id, given.data, given.size);
  struct pry_report report;
  struct pry_buffer body;
  pry_report_init(&report);
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool done = pry_engine_rollback(admin->engine, named ? id : NULL, &report);
  bool built = pry_admin_rollback(admin, done, &report, &body);
  pry_report_fini(&report);
  pry_admin_reply(exchange, done ? 200 : 409, PRY_ADMIN_JSON, built, &body);
  return NULL;
}

static void *post_health(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  return pry_admin_start_health(admin, exchange, query);
}

/* Copies a name of the query, "" when it is not there. False: it is no name. */
static bool query_name(struct pry_slice query, const char *key, char *name, size_t size)
{
  struct pry_slice given;
  name[0] = '\0';
  if (!pry_admin_query_text(query, key, &given))
    return true;
  if (!given.size || given.size >= size)
    return false;
  memcpy(name, given.data, given.size);
  name[given.size] = '\0';
  return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == given.size;
}

static void answer_chaos(struct pry_admin *admin, struct pry_exchange *exchange, const struct pry_admin_chaos *order)
{
  struct pry_buffer body;
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool built = pry_admin_order_chaos(admin, order, &body);
  pry_admin_reply(exchange, 200, PRY_ADMIN_JSON, built, &body);
}

static void *get_chaos(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  (void)query;
  answer_chaos(admin, exchange, &(struct pry_admin_chaos){.action = "list", .rate = -1, .seconds = -1});
  return NULL;
}

/* NULL: the order is complete; else what is wrong with the query. */
static const char *read_chaos(struct pry_slice query, char *action, size_t size, struct pry_admin_chaos *order)
{
  enum { SECONDS_MAX = 86400 };
  const double beyond =
      SECONDS_MAX + 1; /* what is too much is refused: 2 meant as per cent must not become every call */
  bool named = query_name(query, "do", action, size);
  bool arms = named && strcmp(action, "arm") == 0;
  if (!arms && !(named && strcmp(action, "off") == 0))
    return "do is arm or off";
  if (!query_name(query, "experiment", order->experiment, sizeof order->experiment) ||
      !query_name(query, "instance", order->instance, sizeof order->instance))
    return "experiment and instance are names: letters, digits and _ . -";
  if (!pry_admin_query_number(query, "rate", -1, beyond, &order->rate) || order->rate > 1 ||
      !pry_admin_query_number(query, "for", -1, beyond, &order->seconds) || order->seconds > SECONDS_MAX)
    return "rate is a number from 0 to 1, and for is seconds, at most 86400";
  return arms && (!order->experiment[0] || order->seconds <= 0) ? "do=arm needs experiment=NAME and for=SECONDS" : NULL;
}

static void *post_chaos(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  char action[8];
  struct pry_admin_chaos order = {.action = action};
  const char *complaint = read_chaos(query, action, sizeof action, &order);
  if (complaint)
    pry_admin_problem(exchange, 400, "Bad Request", complaint, PRY_SLICE(""), NULL);
  else
    answer_chaos(admin, exchange, &order);
  return NULL;
}

static void *get_alerts(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  struct pry_buffer body;
  (void)query;
  pry_buffer_init(&body, PRY_ADMIN_ANSWER_MAX);
  bool built =
      pry_buffer_append_format(&body, "{\"queued\":%zu,\"alerts\":", pry_alerts_queued(admin->engine->alerts)) &&
      pry_alerts_list(admin->engine->alerts, &body) && pry_buffer_append_text(&body, "}\n");
  pry_admin_reply(exchange, 200, PRY_ADMIN_JSON, built, &body);
  return NULL;
}

static void *post_alert_test(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query)
{
  struct pry_slice to;
  if (pry_admin_query_text(query, "to", &to) && to.size && !memchr(to.data, '%', to.size))
    return pry_admin_start_alert_test(admin, exchange, to);
  pry_admin_problem(exchange, 400, "Bad Request", "to is the name of a sink", PRY_SLICE(""), NULL);
  return NULL;
}

static const struct route {
  const char *method, *path;
  void *(*serve)(struct pry_admin *admin, struct pry_exchange *exchange, struct pry_slice query);
} routes[] = {
    {"GET", "/metrics", get_metrics},
    {"GET", "/api/v1/status", get_status},
    {"GET", "/api/v1/generations", get_generations},
    {"GET", "/api/v1/events", get_events},
    {"GET", "/api/v1/errors", get_errors},
    {"GET", "/api/v1/alerts", get_alerts},
    {"POST", "/api/v1/alerts/test", post_alert_test},
    {"POST", "/api/v1/reload", post_reload},
    {"POST", "/api/v1/rollback", post_rollback},
    {"POST", "/api/v1/health", post_health},
    {"GET", "/api/v1/chaos", get_chaos},
    {"POST", "/api/v1/chaos", post_chaos},
};

static void *on_head(void *server_user, struct pry_exchange *exchange, const struct pry_server_request *request)
{
  struct pry_admin *admin = server_user;
  if (pry_answer_probe(exchange, request, !admin->draining && pry_engine_ready(admin->engine)))
    return NULL;
  if (!admit(admin, exchange, request))
    return NULL;
  const char *allowed = NULL;
  for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
    const struct route *route = &routes[i];
    if (!pry_slice_equal(request->path, pry_slice_of(route->path)))
      continue;
    bool head = pry_slice_equal(request->method, PRY_SLICE("HEAD")) && strcmp(route->method, "GET") == 0;
    if (head || pry_slice_equal(request->method, pry_slice_of(route->method)))
      return route->serve(admin, exchange, request->query);
    allowed = allowed ? "GET, POST" : route->method;
  }
  if (allowed) {
    pry_admin_problem(exchange, 405, "Method Not Allowed", "see Allow", PRY_SLICE("Allow"), allowed);
    return NULL;
  }
  pry_admin_problem(exchange, 404, "Not Found",
                    "there are /livez, /readyz, /metrics, /api/v1/status, /api/v1/generations, /api/v1/events, "
                    "/api/v1/errors, /api/v1/alerts, /api/v1/chaos, and with POST /api/v1/reload, /api/v1/rollback, "
                    "/api/v1/health, /api/v1/alerts/test and /api/v1/chaos",
                    PRY_SLICE(""), NULL);
  return NULL;
}

static void on_body(void *user, struct pry_slice data)
{
  (void)user, (void)data; /* nothing here takes one; the server bounds it */
}

static void on_end(void *user)
{
  (void)user;
}

static void on_gone(void *user)
{
  struct pry_admin_request *request = user;
  if (request)
    request->abandon(request); /* a reload itself goes on */
}

static const struct pry_server_ops server_ops = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_gone = on_gone};

/* ---- life ------------------------------------------------------------------------------------------------------- */

bool pry_admin_needs_token(const char *address)
{
  return strncmp(address, "unix:", 5) != 0;
}

struct pry_admin *pry_admin_new(const struct pry_admin_options *options, char *error, size_t error_size)
{
  snprintf(error, error_size, "memory is short");
  struct pry_admin *admin = calloc(1, sizeof *admin);
  if (!admin)
    return NULL;
  *admin = (struct pry_admin){.engine = options->engine,
                              .gateway = options->gateway,
                              .reloader = options->reloader,
                              .keeper = options->keeper,
                              .folder = strdup(options->folder),
                              .last_good = options->last_good,
                              .token = strdup(options->token ? options->token : ""),
                              .tcp = pry_admin_needs_token(options->address),
                              .started_at = pry_loop_unix_time(options->engine->control->loop)};
  pry_list_init(&admin->waiting);
  struct pry_server_options server = {.max_body = BODY_MAX, .max_connections = 256, .listen_fd = options->listen_fd};
  if (!admin->folder || !admin->token)
    goto failed;
  if (admin->tcp && !admin->token[0]) {
    snprintf(error, error_size, "the admin listener on %s needs a token: --admin-token-file FILE or PARRY_ADMIN_TOKEN",
             options->address);
    goto failed;
  }
  admin->server =
      pry_server_new(options->engine->control->loop, options->address, &server, &server_ops, admin, error, error_size);
  if (admin->server)
    return admin;
failed:
  pry_admin_free(admin);
  return NULL;
}

const char *pry_admin_address(const struct pry_admin *admin)
{
  return pry_server_address(admin->server);
}

void pry_admin_drain(struct pry_admin *admin)
{
  admin->draining = true;
}

void pry_admin_free(struct pry_admin *admin)
{
  if (!admin)
    return;
  pry_server_free(admin->server);
  while (!pry_list_empty(&admin->waiting)) {
    struct pry_admin_request *request = PRY_CONTAINER_OF(admin->waiting.next, struct pry_admin_request, link);
    request->abandon(request);
  }
  if (admin->token)
    OPENSSL_cleanse(admin->token, strlen(admin->token));
  free(admin->token);
  free(admin->folder);
  free(admin);
}
