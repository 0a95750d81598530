#include "http_internal.h"

#include "address.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#if LIBCURL_VERSION_NUM < 0x075700
#error "libcurl 7.87 or later is needed (CURLOPT_QUICK_EXIT)"
#endif

static_assert((int)PRY_HTTP_BAD_REQUEST == (int)CURLE_URL_MALFORMAT, "");
static_assert((int)PRY_HTTP_COULDNT_RESOLVE == (int)CURLE_COULDNT_RESOLVE_HOST, "");
static_assert((int)PRY_HTTP_COULDNT_CONNECT == (int)CURLE_COULDNT_CONNECT, "");
static_assert((int)PRY_HTTP_CUT == (int)CURLE_PARTIAL_FILE, "");
static_assert((int)PRY_HTTP_NO_MEMORY == (int)CURLE_OUT_OF_MEMORY, "");
static_assert((int)PRY_HTTP_TIMED_OUT == (int)CURLE_OPERATION_TIMEDOUT, "");
static_assert((int)PRY_HTTP_GOT_NOTHING == (int)CURLE_GOT_NOTHING, "");
static_assert((int)PRY_HTTP_RECEIVE_FAILED == (int)CURLE_RECV_ERROR, "");
static_assert((int)PRY_HTTP_UPLOAD_ENDED == (int)CURLE_ABORTED_BY_CALLBACK, "");
static_assert(PRY_HTTP_CHUNK_MAX >= CURL_MAX_WRITE_SIZE, "curl's pieces are ours");

enum { DEFAULT_MAX_CONNECTIONS = 256, IDLE_MAX = 64, IDLE_BYTES_MAX = 16 * 1024 };

static const struct pry_http_driver driver;

static void settle_deferred(void *user);

/* ---- Ending an exchange ------------------------------------------------------------------------------- */

static void exchange_free(struct exchange *exchange)
{
  pry_list_remove(&exchange->queue);
  if (exchange->state == STATE_RUNNING)
    curl_multi_remove_handle(exchange->client->multi, exchange->easy);
  curl_easy_cleanup(exchange->easy);
  if (exchange->line_text.data)
    explicit_bzero(exchange->line_text.data, exchange->line_text.size);
  pry_buffer_fini(&exchange->line_text);
  free(exchange->lines);
  pry_http_head_fini(&exchange->head);
  free(exchange);
}

/* A handle costs as much to make as the rest of a small request, and is as good as new only when curl came to the end
 * of its own accord, and at once: curl counts what it repeats over a handle's life, and gives up at the sixth. What is kept is bounded by IDLE_MAX handles with small heads. */
static void exchange_retire(struct exchange *exchange)
{
  struct client *client = exchange->client;
  bool small = exchange->head.headers.text.capacity <= IDLE_BYTES_MAX && exchange->line_text.capacity <= IDLE_BYTES_MAX;
  if (exchange->state != STATE_COMPLETE || exchange->code || exchange->repeated || client->idle_count == IDLE_MAX ||
      !small || !pry_http_forget_request(exchange)) {
    exchange_free(exchange);
    return;
  }
  pry_list_remove(&exchange->queue);
  pry_list_push(&client->idle, &exchange->queue);
  client->idle_count++;
}

static void close_exchange(struct exchange *exchange)
{
  pry_list_remove(&exchange->link);
  exchange->client->open_count--;
}

/* The timer is always running, parked, so that moving it needs no memory and cannot fail. */
static void defer(struct exchange *exchange)
{
  struct client *client = exchange->client;
  pry_list_remove(&exchange->queue);
  pry_list_push(&client->deferred, &exchange->queue);
  pry_timer_start(client->loop, &client->deferred_timer, 0, settle_deferred, client);
}

/* curl caps a single line at 100 KB, and up to 8.5 calls a longer one a lack of memory. */
static bool is_line_too_long(const struct exchange *exchange, int code)
{
  enum { TOO_LARGE_SINCE_8_6 = 100 };
  return exchange->connected && (code == CURLE_OUT_OF_MEMORY || code == TOO_LARGE_SINCE_8_6);
}

static void complete(struct exchange *exchange, int code)
{
  if (is_line_too_long(exchange, code))
    pry_http_set_fault(exchange, PRY_HTTP_RECEIVE_FAILED, "a line of the answer is too long, or memory is short");
  if (code == CURLE_OK && !exchange->head.complete) /* curl takes an end within the head for an end */
    pry_http_set_fault(exchange, PRY_HTTP_RECEIVE_FAILED, "the connection was closed within the head of the answer");
  if (exchange->state == STATE_RUNNING)
    curl_multi_remove_handle(exchange->client->multi, exchange->easy);
  exchange->state = STATE_COMPLETE;
  exchange->code = exchange->fault ? exchange->fault : code;
}

static const char not_public[] = "refused: the address is not public";

static bool was_not_public(const struct exchange *exchange)
{
  return exchange->fault_message ? exchange->fault_message == not_public : exchange->refused && !exchange->connected;
}

static const char *message_of(const struct exchange *exchange)
{
  if (was_not_public(exchange))
    return not_public;
  if (exchange->fault_message)
    return exchange->fault_message;
  return exchange->error[0] ? exchange->error : curl_easy_strerror((CURLcode)exchange->code);
}

/* curl's times are counted from the start, in microseconds; 0: the phase was not reached. */
static void tell_times(const struct exchange *exchange, struct pry_http_result *result)
{
  curl_off_t dns = 0, tcp = 0, tls = 0;
  curl_easy_getinfo(exchange->easy, CURLINFO_NAMELOOKUP_TIME_T, &dns);
  curl_easy_getinfo(exchange->easy, CURLINFO_CONNECT_TIME_T, &tcp);
  curl_easy_getinfo(exchange->easy, CURLINFO_APPCONNECT_TIME_T, &tls);
  result->timed = true;
  result->dns = dns > 0 ? (double)dns / 1e6 : -1;
  result->tcp = tcp > 0 ? (double)(tcp - dns) / 1e6 : -1;
  result->tls = tls > 0 ? (double)(tls - tcp) / 1e6 : -1;
}

static void deliver_done(struct exchange *exchange)
{
  struct pry_http_result result = {
      .curl_code = exchange->code,
      .connected = exchange->connected,
      .sent = exchange->connected, /* nothing later tells for sure that no byte has left */
      .head_received = exchange->head.complete,
      .not_public = was_not_public(exchange),
      .message = message_of(exchange),
  };
  if (exchange->timed && exchange->easy)
    tell_times(exchange, &result);
  exchange->finished = true;
  close_exchange(exchange);
  exchange->ops->on_done(exchange->user, &result);
  exchange_retire(exchange);
}

/* ---- Driving curl -------------------------------------------------------------------------------------- */

static void free_cancelled(struct client *client)
{
  while (!pry_list_empty(&client->cancelled))
    exchange_free(PRY_CONTAINER_OF(client->cancelled.next, struct exchange, queue));
}

/* True: nothing of it was sent, curl has closed the stale connection, and it goes out again on a new one. */
static bool start_afresh(struct exchange *exchange)
{
  if (!exchange->stale || pry_http_unwelcome(exchange))
    return false;
  curl_multi_remove_handle(exchange->client->multi, exchange->easy);
  exchange->state = STATE_NEW;
  exchange->stale = false;
  exchange->error[0] = '\0';
  if (curl_easy_setopt(exchange->easy, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK)
    pry_http_set_fault(exchange, PRY_HTTP_NO_MEMORY, NULL);
  defer(exchange);
  return true;
}

static struct exchange *exchange_of(CURL *easy)
{
  struct exchange *exchange = NULL;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&exchange);
  return exchange;
}

/* After curl has returned: now what its callbacks had to put off is allowed. */
static void collect(struct client *client)
{
  free_cancelled(client);
  CURLMsg *message;
  int left;
  while ((message = curl_multi_info_read(client->multi, &left))) {
    struct exchange *exchange = message->msg == CURLMSG_DONE ? exchange_of(message->easy_handle) : NULL;
    int code = (int)message->data.result;
    if (!exchange || start_afresh(exchange))
      continue;
    complete(exchange, code);
    if (!exchange->paused)
      deliver_done(exchange);
  }
}

static void drive(struct client *client, curl_socket_t fd, int action)
{
  int running;
  client->inside_curl = true;
  curl_multi_socket_action(client->multi, fd, action, &running);
  client->inside_curl = false;
  collect(client);
}

static void curl_timer_fired(void *user)
{
  struct client *client = user;
  pry_timer_start(client->loop, &client->curl_timer, PRY_TIME_NEVER, curl_timer_fired, client);
  drive(client, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long milliseconds, void *user)
{
  (void)multi;
  struct client *client = user;
  pry_time delay = milliseconds < 0 ? PRY_TIME_NEVER : milliseconds * PRY_MILLISECOND;
  pry_timer_start(client->loop, &client->curl_timer, delay, curl_timer_fired, client);
  return 0;
}

/* Each direction goes on by itself: what is not named here stays as it is. */
static void resume_curl(struct exchange *exchange)
{
  struct client *client = exchange->client;
  exchange->curl_paused = exchange->curl_paused && exchange->paused;
  exchange->upload_paused = exchange->upload_paused && !exchange->upload_ready;
  exchange->upload_ready = false;
  int paused = (exchange->curl_paused ? CURLPAUSE_RECV : 0) | (exchange->upload_paused ? CURLPAUSE_SEND : 0);
  client->inside_curl = true; /* what curl had kept is delivered from in there */
  CURLcode code = curl_easy_pause(exchange->easy, paused);
  client->inside_curl = false;
  if (code == CURLE_OK || exchange->cancelled)
    return;
  complete(exchange, (int)code);
  if (!exchange->paused)
    deliver_done(exchange);
}

static void settle(struct exchange *exchange)
{
  if (exchange->state == STATE_NEW && !exchange->fault) {
    if (curl_multi_add_handle(exchange->client->multi, exchange->easy) == CURLM_OK)
      exchange->state = STATE_RUNNING;
    else
      pry_http_set_fault(exchange, PRY_HTTP_NO_MEMORY, NULL);
  }
  if (exchange->fault && exchange->state != STATE_COMPLETE)
    complete(exchange, exchange->fault);
  bool resumed = exchange->curl_paused && !exchange->paused;
  if (exchange->state == STATE_COMPLETE && !exchange->paused)
    deliver_done(exchange);
  else if (exchange->state == STATE_RUNNING && (resumed || exchange->upload_ready))
    resume_curl(exchange);
}

/* Only what was deferred before this pass: callbacks may defer more, for the next turn. */
static void settle_deferred(void *user)
{
  struct client *client = user;
  pry_timer_start(client->loop, &client->deferred_timer, PRY_TIME_NEVER, settle_deferred, client);
  pry_list_push(&client->deferred, &client->end_of_pass);
  while (client->deferred.next != &client->end_of_pass) {
    struct exchange *exchange = PRY_CONTAINER_OF(client->deferred.next, struct exchange, queue);
    pry_list_remove(&exchange->queue);
    settle(exchange);
    collect(client);
  }
  pry_list_remove(&client->end_of_pass);
}

/* ---- Sockets ------------------------------------------------------------------------------------------- */

static void socket_ready(void *user, int fd, int what)
{
  struct client *client = user;
  drive(client, fd,
        (what & PRY_LOOP_READABLE ? CURL_CSELECT_IN : 0) | (what & PRY_LOOP_WRITABLE ? CURL_CSELECT_OUT : 0));
}

/* A refusal here would end curl's whole multi handle, so a failure is charged to the one exchange. */
static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *unused)
{
  (void)unused;
  struct client *client = user;
  int wanted = (what & CURL_POLL_IN ? PRY_LOOP_READABLE : 0) | (what & CURL_POLL_OUT ? PRY_LOOP_WRITABLE : 0);
  if (pry_http_sockets_want(&client->sockets, fd, wanted))
    return 0;
  struct exchange *exchange = exchange_of(easy);
  if (exchange && !exchange->cancelled && !exchange->finished) {
    pry_http_set_fault(exchange, PRY_HTTP_NO_MEMORY, "the socket could not be watched");
    defer(exchange);
  }
  return 0;
}

static curl_socket_t on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
  (void)purpose;
  struct exchange *exchange = user;
  if (exchange->public_only && !pry_address_is_public(&address->addr)) {
    exchange->refused = true; /* another address of the name may do */
    return CURL_SOCKET_BAD;
  }
  exchange->fresh = true;
  return pry_http_sockets_open(&exchange->client->sockets, address->family, address->socktype, address->protocol);
}

static int on_close_socket(void *user, curl_socket_t fd)
{
  struct client *client = user;
  return pry_http_sockets_close(&client->sockets, fd);
}

/* ---- What curl tells about an exchange ------------------------------------------------------------------ */

/* Called again when curl wants to repeat the request on a fresh connection, because a kept one closed before
 * the first byte of an answer. The peer may have acted on the request all the same (RFC 9110 §9.2.2). */
static int on_prerequest(void *user, char *peer, char *local, int peer_port, int local_port)
{
  (void)local, (void)peer_port;
  struct exchange *exchange = user;
  if (exchange->connected && !exchange->repeatable)
    pry_http_set_fault(exchange, PRY_HTTP_GOT_NOTHING, "the kept connection was closed before an answer came");
  else if (exchange->public_only && !pry_address_text_is_public(peer))
    pry_http_set_fault(exchange, PRY_HTTP_COULDNT_CONNECT, not_public);
  exchange->repeated = exchange->repeated || exchange->connected;
  /* The rest of an answer that was longer than it said, a 408 before closing. curl would take it for the answer to this
   * request, and from then on each request on the connection would get its predecessor's. */
  exchange->stale = !exchange->fresh && pry_http_sockets_has_unasked(&exchange->client->sockets, local_port);
  if (pry_http_unwelcome(exchange) || exchange->stale)
    return CURL_PREREQFUNC_ABORT;
  if (!exchange->connected) {
    exchange->connected = true;
    if (exchange->ops->on_connected)
      exchange->ops->on_connected(exchange->user);
  }
  return pry_http_unwelcome(exchange) ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

/* curl sends no more of a request that is refused, but waits for a paused body all the same. */
static void stop_refused_upload(struct exchange *exchange)
{
  if (!exchange->upload_paused || exchange->head.status < 300)
    return;
  exchange->upload_ready = true;
  defer(exchange);
}

static size_t on_header(char *data, size_t unit, size_t count, void *user)
{
  struct exchange *exchange = user;
  size_t size = unit * count;
  if (pry_http_unwelcome(exchange))
    return 0;
  const char *why;
  switch (pry_http_head_add(&exchange->head, (struct pry_slice){data, size}, &why)) {
  case PRY_HTTP_HEAD_MORE:
    break;
  case PRY_HTTP_HEAD_COMPLETE:
    stop_refused_upload(exchange);
    exchange->ops->on_head(exchange->user, exchange->head.status, &exchange->head.headers);
    break;
  case PRY_HTTP_HEAD_BAD:
    pry_http_set_fault(exchange, PRY_HTTP_RECEIVE_FAILED, why);
    break;
  }
  return pry_http_unwelcome(exchange) ? 0 : size;
}

static size_t on_body(char *data, size_t unit, size_t count, void *user)
{
  struct exchange *exchange = user;
  size_t size = unit * count;
  if (pry_http_unwelcome(exchange))
    return size + 1; /* anything but the size is an error; 0 would not be for an empty piece */
  if (!size)
    return 0;
  if (exchange->paused) {
    exchange->curl_paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  if (exchange->ops->on_data(exchange->user, (struct pry_slice){data, size}) == PRY_HTTP_PAUSE)
    exchange->paused = true;
  return pry_http_unwelcome(exchange) ? 0 : size;
}

/* ---- Starting an exchange ------------------------------------------------------------------------------- */

#define SET(option, value) (code = code ? code : curl_easy_setopt(exchange->easy, option, value))

static CURLcode set_callbacks(struct exchange *exchange)
{
  CURLcode code = CURLE_OK;
  SET(CURLOPT_PRIVATE, exchange);
  SET(CURLOPT_ERRORBUFFER, exchange->error);
  SET(CURLOPT_PREREQFUNCTION, on_prerequest);
  SET(CURLOPT_PREREQDATA, exchange);
  SET(CURLOPT_HEADERFUNCTION, on_header);
  SET(CURLOPT_HEADERDATA, exchange);
  SET(CURLOPT_WRITEFUNCTION, on_body);
  SET(CURLOPT_WRITEDATA, exchange);
  SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
  SET(CURLOPT_OPENSOCKETDATA, exchange);
  SET(CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
  SET(CURLOPT_CLOSESOCKETDATA, exchange->client); /* outlives the exchange, as connections do */
  return code;
}

#undef SET

static bool set_up_handle(struct exchange *exchange)
{
  exchange->easy = curl_easy_init();
  return exchange->easy && pry_http_set_transport(exchange) == CURLE_OK && set_callbacks(exchange) == CURLE_OK;
}

static struct exchange *exchange_new(struct client *client)
{
  struct exchange *exchange = calloc(1, sizeof *exchange);
  if (!exchange)
    return NULL;
  exchange->base.driver = &driver;
  exchange->client = client;
  pry_list_init(&exchange->link);
  pry_list_init(&exchange->queue);
  pry_buffer_init(&exchange->line_text, 0);
  pry_http_head_init(&exchange->head);
  if (set_up_handle(exchange))
    return exchange;
  exchange_free(exchange);
  return NULL;
}

/* The one used last: what it needs is still in the processor's cache. All but what costs to make begins anew. */
static struct exchange *exchange_take(struct client *client)
{
  if (!client->idle_count)
    return exchange_new(client);
  struct exchange *idle = PRY_CONTAINER_OF(client->idle.previous, struct exchange, queue);
  pry_list_remove(&idle->queue);
  client->idle_count--;
  pry_http_head_clear(&idle->head);
  struct exchange fresh = {
      .base = idle->base,
      .client = client,
      .easy = idle->easy,
      .line_text = idle->line_text,
      .lines = idle->lines,
      .line_capacity = idle->line_capacity,
      .head = idle->head,
  };
  *idle = fresh;
  pry_list_init(&idle->link);
  pry_list_init(&idle->queue);
  return idle;
}

static struct pry_http_exchange *client_start(struct pry_http *http, const struct pry_http_request *request,
                                              const struct pry_http_ops *ops, void *user)
{
  struct client *client = (struct client *)http;
  struct exchange *exchange = exchange_take(client);
  if (!exchange)
    return NULL;
  exchange->ops = ops;
  exchange->user = user;
  if (!pry_http_prepare_request(exchange, request)) {
    exchange_free(exchange);
    return NULL;
  }
  if (exchange->fault || client->inside_curl)
    defer(exchange);
  else if (curl_multi_add_handle(client->multi, exchange->easy) == CURLM_OK)
    exchange->state = STATE_RUNNING;
  else {
    exchange_free(exchange);
    return NULL;
  }
  pry_list_push(&client->open, &exchange->link);
  client->open_count++;
  return &exchange->base;
}

/* Deferred, because curl delivers what it kept from inside curl_easy_pause(). */
static void client_resume(struct pry_http_exchange *base)
{
  struct exchange *exchange = (struct exchange *)base;
  if (!exchange->paused || exchange->cancelled || exchange->finished)
    return;
  exchange->paused = false;
  if (exchange->curl_paused || exchange->state == STATE_COMPLETE)
    defer(exchange);
}

static void client_upload(struct pry_http_exchange *base)
{
  struct exchange *exchange = (struct exchange *)base;
  if (!exchange->upload_paused || exchange->cancelled || exchange->finished)
    return;
  exchange->upload_ready = true;
  defer(exchange);
}

static void client_cancel(struct pry_http_exchange *base)
{
  struct exchange *exchange = (struct exchange *)base;
  if (exchange->cancelled || exchange->finished)
    return;
  exchange->cancelled = true;
  close_exchange(exchange);
  if (!exchange->client->inside_curl) {
    exchange_free(exchange);
    return;
  }
  pry_list_remove(&exchange->queue);
  pry_list_push(&exchange->client->cancelled, &exchange->queue);
}

static size_t client_open_count(const struct pry_http *http)
{
  return ((const struct client *)http)->open_count;
}

/* ---- The client ------------------------------------------------------------------------------------------ */

static void client_free(struct pry_http *http)
{
  struct client *client = (struct client *)http;
  while (!pry_list_empty(&client->open))
    client_cancel(&PRY_CONTAINER_OF(client->open.next, struct exchange, link)->base);
  while (!pry_list_empty(&client->idle))
    exchange_free(PRY_CONTAINER_OF(client->idle.next, struct exchange, queue));
  if (client->multi)
    curl_multi_cleanup(client->multi); /* still calls on_close_socket() */
  pry_timer_cancel(&client->curl_timer);
  pry_timer_cancel(&client->deferred_timer);
  pry_http_sockets_fini(&client->sockets);
  free(client->ca_file);
  free(client->proxy);
  free(client);
}

static const struct pry_http_driver driver = {
    .start = client_start,
    .resume = client_resume,
    .upload = client_upload,
    .cancel = client_cancel,
    .open_count = client_open_count,
    .free = client_free,
};

static pthread_once_t global_once = PTHREAD_ONCE_INIT;
static CURLcode global_code;

static void global_init(void)
{
  global_code = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static bool set_up_multi(struct client *client, unsigned max_connections)
{
  client->multi = curl_multi_init();
  if (!client->multi)
    return false;
  CURLM *multi = client->multi;
  return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket) == CURLM_OK &&
         curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, client) == CURLM_OK &&
         curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_curl_timer) == CURLM_OK &&
         curl_multi_setopt(multi, CURLMOPT_TIMERDATA, client) == CURLM_OK &&
         curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING) == CURLM_OK &&
         curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)max_connections) == CURLM_OK;
}

static bool copy_text(char **copy, const char *text)
{
  *copy = text ? strdup(text) : NULL;
  return !text || *copy;
}

struct pry_http *pry_http_new(struct pry_loop *loop, const struct pry_http_options *options)
{
  struct pry_http_options chosen = {0};
  if (options)
    memcpy(&chosen, options, options->size < sizeof chosen ? options->size : sizeof chosen);
  pthread_once(&global_once, global_init);
  if (global_code != CURLE_OK || pry_loop_is_virtual(loop))
    return NULL;
  struct client *client = calloc(1, sizeof *client);
  if (!client)
    return NULL;
  client->base.driver = &driver;
  client->loop = loop;
  pry_list_init(&client->open);
  pry_list_init(&client->deferred);
  pry_list_init(&client->end_of_pass);
  pry_list_init(&client->cancelled);
  pry_list_init(&client->idle);
  pry_http_sockets_init(&client->sockets, loop, socket_ready, client);
  unsigned max_connections = chosen.max_connections ? chosen.max_connections : DEFAULT_MAX_CONNECTIONS;
  if (copy_text(&client->ca_file, chosen.ca_file) && copy_text(&client->proxy, chosen.proxy) &&
      pry_timer_start(loop, &client->curl_timer, PRY_TIME_NEVER, curl_timer_fired, client) &&
      pry_timer_start(loop, &client->deferred_timer, PRY_TIME_NEVER, settle_deferred, client) &&
      set_up_multi(client, max_connections))
    return &client->base;
  client_free(&client->base);
  return NULL;
}

const char *pry_http_code_text(int curl_code)
{
  return curl_easy_strerror((CURLcode)curl_code);
}

bool pry_http_code_is_tls(int curl_code)
{
  switch (curl_code) {
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CIPHER:
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_ISSUER_ERROR:
  case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
  case CURLE_SSL_INVALIDCERTSTATUS:
  case CURLE_SSL_CLIENTCERT:
    return true;
  default:
    return false;
  }
}
