#include "gateway.h"

#include "call.h"

#include <stdatomic.h>
#include <stdlib.h>

/* What is held of any body, be all other memory for bodies taken: where its model is looked for. */
enum { BEGINNING_MAX = 64 * 1024 };

/* Bodies above the engine's max_body are refused by us, in the client's dialect; these by the server. */
#define BEYOND_REASON (SIZE_MAX / 4)

#define DRAIN_LOOK (20 * PRY_MILLISECOND)

/* One worker's share: its server and its requests. All but the atomics is that worker's thread's. */
struct listener {
  struct pry_gateway *gateway;
  struct pry_worker *worker;
  struct pry_server *server;
  struct pry_list requests;
  atomic_size_t open; /* requests without a complete answer, as last looked at */
  struct pry_message drain_message;
  struct pry_timer drain_timer;
};

struct pry_gateway {
  struct pry_engine *engine;
  const struct pry_edge *edge;
  size_t count;
  atomic_bool draining;
  struct listener listeners[];
};

/* One client request: lives until both the server and the call have ended with it. */
struct request {
  struct pry_list link;
  struct listener *listener;
  struct pry_exchange *exchange; /* NULL once the server is done with it */
  struct pry_call *call;         /* NULL before it starts and after its `done` */
  struct pry_headers headers;
  struct pry_buffer head; /* method, path and query, one after the other */
  struct pry_slice method, path, query;
  struct pry_buffer body;
  struct pry_lease lease;
  int64_t length;    /* -1: not said */
  uint64_t received; /* bytes of the body so far */
  size_t counted;    /* of it in engine->replay_used */
  bool streamed;     /* the call began before its body was complete */
};

/* Bodies being collected count like those that calls hold: the process's memory is bounded, not a connection's. */
static bool collect(struct request *request, struct pry_slice data)
{
  struct pry_engine *engine = request->listener->gateway->engine;
  if (request->body.size + data.size <= BEGINNING_MAX)
    pry_engine_add_replay(engine, data.size);
  else if (!pry_engine_take_replay(engine, data.size))
    return false;
  request->counted += data.size;
  return pry_buffer_append_slice(&request->body, data);
}

static void uncount(struct request *request)
{
  pry_engine_give_replay(request->listener->gateway->engine, request->counted);
  request->counted = 0;
}

static void free_request(struct request *request)
{
  uncount(request);
  pry_list_remove(&request->link);
  pry_headers_fini(&request->headers);
  pry_buffer_fini(&request->head);
  pry_buffer_fini(&request->body);
  pry_lease_release(&request->lease);
  free(request);
}

static void forget_exchange(struct request *request)
{
  request->exchange = NULL;
  if (!request->call)
    free_request(request);
}

/* An error before there is a call, in the client's dialect. `type` is Anthropic's word for it. */
static void answer_early(struct request *request, int status, const char *type, const char *message)
{
  struct pry_buffer body;
  pry_buffer_init(&body, 1024);
  if (strcmp(pry_client_dialect(NULL, request->path), "anthropic") == 0)
    pry_buffer_append_format(&body, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"%s\"}}", type,
                             message);
  else
    pry_buffer_append_format(&body, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":null}}",
                             message, status < 500 ? "invalid_request_error" : "server_error");
  pry_reply_text(request->exchange, status, "application/json", pry_buffer_slice(&body));
  pry_buffer_fini(&body);
  forget_exchange(request);
}

static void answer_too_large(struct request *request)
{
  answer_early(request, 413, "request_too_large", "the body is larger than this gateway takes");
}

static void answer_no_memory(struct request *request)
{
  answer_early(request, 503, "overloaded_error", "memory is short");
}

/* ---- what the call says ------------------------------------------------------------------------------- */

static void sink_head(void *user, int status, const struct pry_headers *headers, int64_t body_size)
{
  struct request *request = user;
  if (request->exchange)
    pry_reply_start(request->exchange, status, headers, body_size);
}

static bool sink_data(void *user, struct pry_slice data)
{
  struct request *request = user;
  return !request->exchange || pry_reply_write(request->exchange, data);
}

static void sink_done(void *user, const struct pry_outcome *outcome, bool truncated)
{
  (void)outcome;
  struct request *request = user;
  request->call = NULL;
  struct pry_exchange *exchange = request->exchange;
  if (exchange && truncated)
    pry_reply_abort(exchange);
  else if (exchange)
    pry_reply_end(exchange);
  free_request(request);
}

static void sink_want_body(void *user)
{
  struct request *request = user;
  if (request->exchange)
    pry_reply_hold_body(request->exchange, false);
}

static const struct pry_sink_ops sink_ops = {sink_head, sink_data, sink_done, sink_want_body};

/* ---- what the client says ------------------------------------------------------------------------------ */

bool pry_answer_probe(struct pry_exchange *exchange, const struct pry_server_request *request, bool ready)
{
  bool live = pry_slice_equal(request->path, PRY_SLICE("/livez"));
  if (!live && !pry_slice_equal(request->path, PRY_SLICE("/readyz")))
    return false;
  if (live || ready)
    pry_reply_text(exchange, 200, "text/plain", PRY_SLICE("ok\n"));
  else
    pry_reply_text(exchange, 503, "text/plain", PRY_SLICE("not ready\n"));
  return true;
}

/* A key of ours is no provider's business, whatever its auth says. */
static bool keep_headers(struct request *request, const struct pry_headers *from)
{
  if (!request->lease.client)
    return pry_headers_add_all(&request->headers, from);
  bool ok = true;
  for (size_t i = 0; ok && i < from->count; i++) {
    struct pry_header line = pry_headers_at(from, i);
    ok = pry_edge_is_key_field(line.name) || pry_headers_add(&request->headers, line.name, line.value);
  }
  return ok;
}

static bool keep_head(struct request *request, const struct pry_server_request *from)
{
  if (!pry_buffer_append_slice(&request->head, from->method) || !pry_buffer_append_slice(&request->head, from->path) ||
      !pry_buffer_append_slice(&request->head, from->query) || !keep_headers(request, from->headers))
    return false;
  const char *text = request->head.data;
  request->method = (struct pry_slice){text, from->method.size};
  request->path = (struct pry_slice){text + from->method.size, from->path.size};
  request->query = (struct pry_slice){request->path.data + from->path.size, from->query.size};
  return true;
}

static bool enter(struct listener *listener, struct pry_exchange *exchange, const struct pry_server_request *from,
                  struct pry_lease *lease)
{
  struct pry_worker *worker = listener->worker;
  pry_worker_adopt(worker);
  const struct pry_config *config = worker->state ? worker->state->generation->config : NULL;
  return pry_edge_enter(listener->gateway->edge, config, worker->loop, exchange, from, lease);
}

static void *on_head(void *server_user, struct pry_exchange *exchange, const struct pry_server_request *from)
{
  struct listener *listener = server_user;
  struct pry_gateway *gateway = listener->gateway;
  if (pry_answer_probe(exchange, from, !atomic_load(&gateway->draining) && pry_engine_ready(gateway->engine)))
    return NULL;
  struct pry_lease lease;
  if (!enter(listener, exchange, from, &lease))
    return NULL;
  struct request *request = calloc(1, sizeof *request);
  if (!request) {
    pry_lease_release(&lease);
    pry_reply_abort(exchange);
    return NULL;
  }
  request->lease = lease;
  request->listener = listener;
  request->exchange = exchange;
  pry_headers_init(&request->headers);
  pry_buffer_init(&request->head, 0);
  pry_buffer_init(&request->body, gateway->engine->options.replay_limit);
  request->length = from->content_length;
  pry_list_init(&request->link);
  pry_list_push(&listener->requests, &request->link);
  if (!keep_head(request, from))
    answer_no_memory(request);
  else if (from->content_length > (int64_t)gateway->engine->options.max_body)
    answer_too_large(request);
  else
    return request;
  return NULL;
}

/* ---- bodies ---------------------------------------------------------------------------------------------- */

static bool start_call(struct request *request, bool more)
{
  struct pry_call_request call = {.method = request->method,
                                  .path = request->path,
                                  .query = request->query,
                                  .headers = &request->headers,
                                  .body = &request->body,
                                  .more = more,
                                  .body_size = request->length};
  if (request->lease.client) {
    call.client = pry_slice_of(request->lease.client->name);
    call.models = &request->lease.client->models;
  }
  uncount(request);
  request->streamed = more;
  request->call = pry_call_start(request->listener->worker, &call, &sink_ops, request);
  return request->call;
}

static bool is_too_long_to_keep(const struct request *request)
{
  return request->length > (int64_t)request->body.limit && request->body.size >= BEGINNING_MAX;
}

static void stream_on(struct request *request, struct pry_slice data)
{
  if (request->call && !pry_call_upload(request->call, data))
    pry_reply_hold_body(request->exchange, true);
}

static void begin_streaming(struct request *request, struct pry_slice data)
{
  if (start_call(request, true))
    stream_on(request, data);
  else
    answer_no_memory(request);
}

/* A client that did not say how much it would send, and sends more than any body may have. */
static void break_off(struct request *request)
{
  struct pry_call *call = request->call;
  if (pry_reply_started(request->exchange)) {
    pry_reply_abort(request->exchange);
    forget_exchange(request);
  } else {
    answer_too_large(request);
  }
  if (call)
    pry_call_cancel(call);
}

static void on_body(void *user, struct pry_slice data)
{
  struct request *request = user;
  if (!request || !request->exchange)
    return;
  request->received += data.size;
  if (request->received > request->listener->gateway->engine->options.max_body)
    break_off(request);
  else if (request->streamed)
    stream_on(request, data);
  else if (is_too_long_to_keep(request) || !collect(request, data))
    begin_streaming(request, data);
}

static void on_end(void *user)
{
  struct request *request = user;
  if (!request)
    return;
  if (!request->streamed && !start_call(request, false))
    start_call(request, true); /* others have taken all the room for bodies meanwhile */
  if (request->call && request->streamed)
    pry_call_upload_end(request->call);
  else if (!request->call && request->exchange)
    answer_no_memory(request);
}

static void on_writable(void *user)
{
  struct request *request = user;
  if (request && request->call)
    pry_call_resume(request->call);
}

static void on_gone(void *user)
{
  struct request *request = user;
  if (!request)
    return;
  struct pry_call *call = request->call;
  forget_exchange(request);
  if (call)
    pry_call_cancel(call);
}

static const struct pry_server_ops server_ops = {on_head, on_body, on_end, on_writable, on_gone};

/* ---- draining ------------------------------------------------------------------------------------------- */

static void look_at_listener(void *user)
{
  struct listener *listener = user;
  atomic_store(&listener->open, pry_server_request_count(listener->server));
  pry_timer_start(listener->worker->loop, &listener->drain_timer, DRAIN_LOOK, look_at_listener, listener);
}

static void drain_listener(struct pry_message *message)
{
  struct listener *listener = PRY_CONTAINER_OF(message, struct listener, drain_message);
  pry_server_drain(listener->server);
  look_at_listener(listener);
}

void pry_gateway_unready(struct pry_gateway *gateway)
{
  atomic_store(&gateway->draining, true);
}

void pry_gateway_drain(struct pry_gateway *gateway)
{
  pry_gateway_unready(gateway);
  for (size_t i = 0; i < gateway->count; i++) {
    struct listener *listener = &gateway->listeners[i];
    atomic_store(&listener->open, 1); /* until it has looked */
    pry_mailbox_post(listener->worker->mailbox, &listener->drain_message);
  }
}

size_t pry_gateway_open_count(const struct pry_gateway *gateway)
{
  size_t open = 0;
  for (size_t i = 0; i < gateway->count; i++)
    open += atomic_load(&gateway->listeners[i].open);
  return open;
}

/* ---- life ------------------------------------------------------------------------------------------------ */

/* The first opens the address, the others listen beside it. */
static bool listen_all(struct pry_gateway *gateway, const struct pry_gateway_options *from, char *error,
                       size_t error_size)
{
  struct pry_server_options options = {.max_body = BEYOND_REASON,
                                       .max_connections = from->max_connections,
                                       .shared = gateway->count > 1,
                                       .listen_fd = from->listen_fd,
                                       .tls = from->tls,
                                       .limits = from->limits};
  for (size_t i = 0; i < gateway->count; i++) {
    struct listener *listener = &gateway->listeners[i];
    listener->server =
        pry_server_new(listener->worker->loop, from->address, &options, &server_ops, listener, error, error_size);
    if (!listener->server)
      return false;
    options.shared = false;
    options.beside = gateway->listeners[0].server;
  }
  return true;
}

struct pry_gateway *pry_gateway_new(struct pry_engine *engine, const struct pry_gateway_options *options, char *error,
                                    size_t error_size)
{
  size_t count = pry_engine_serving_count(engine);
  struct pry_gateway *gateway = calloc(1, sizeof *gateway + count * sizeof *gateway->listeners);
  if (!gateway)
    return NULL;
  gateway->engine = engine;
  gateway->edge = options->edge;
  gateway->count = count;
  for (size_t i = 0; i < count; i++) {
    struct listener *listener = &gateway->listeners[i];
    listener->gateway = gateway;
    listener->worker = pry_engine_serving_worker(engine, (unsigned)i);
    listener->drain_message.deliver = drain_listener;
    pry_list_init(&listener->requests);
  }
  if (listen_all(gateway, options, error, error_size))
    return gateway;
  pry_gateway_free(gateway);
  return NULL;
}

const char *pry_gateway_address(const struct pry_gateway *gateway)
{
  return pry_server_address(gateway->listeners[0].server);
}

static void free_listener(struct listener *listener)
{
  pry_timer_cancel(&listener->drain_timer);
  pry_mailbox_withdraw(listener->worker->mailbox, &listener->drain_message);
  pry_server_free(listener->server);
  while (!pry_list_empty(&listener->requests)) {
    struct request *request = PRY_CONTAINER_OF(listener->requests.next, struct request, link);
    request->exchange = NULL;
    if (request->call)
      pry_call_destroy(request->call);
    else
      free_request(request);
  }
}

void pry_gateway_free(struct pry_gateway *gateway)
{
  if (!gateway)
    return;
  for (size_t i = 0; i < gateway->count; i++)
    free_listener(&gateway->listeners[i]);
  free(gateway);
}
