/*
 * http_rig.h: the curl client, and a scripted server on 127.0.0.1 that sends raw bytes over real sockets.
 *
 * The server is a thread that serves one connection after another; what an exchange reports is collected in struct
 * probe. Header only: each test program has its own.
 */
#ifndef HTTP_RIG_H
#define HTTP_RIG_H

#include "http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { GUARD_SECONDS = 20, REQUEST_MAX = 8 * 1024 };

/* ---- The server: one thread, one connection after another ------------------------------------------------ */

struct server;
typedef void (*serve_fn)(struct server *server, int fd);

struct server {
  int listener;
  int port;
  pthread_t thread;
  serve_fn serve; /* called with each connection, which is closed afterwards */
  atomic_int accepts, requests, eof_seen;
  pthread_mutex_t lock;
  char last[REQUEST_MAX]; /* the last request's head and body, under the lock */
};

static inline bool send_bytes(int fd, const char *bytes, size_t size)
{
  while (size) {
    ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0)
      return false;
    bytes += sent;
    size -= (size_t)sent;
  }
  return true;
}

static inline bool send_text(int fd, const char *text)
{
  return send_bytes(fd, text, strlen(text));
}

/* Reads one request with its body. False: the client closed. */
static inline bool read_request(struct server *server, int fd)
{
  char request[REQUEST_MAX];
  size_t size = 0;
  for (;;) {
    ssize_t got = recv(fd, request + size, sizeof request - 1 - size, 0);
    if (got <= 0)
      return false;
    size += (size_t)got;
    request[size] = '\0';
    char *end = strstr(request, "\r\n\r\n");
    if (!end)
      continue;
    char *length = strcasestr(request, "\r\ncontent-length:");
    size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    if (size >= (size_t)(end + 4 - request) + body)
      break;
  }
  pthread_mutex_lock(&server->lock);
  memcpy(server->last, request, size + 1);
  pthread_mutex_unlock(&server->lock);
  atomic_fetch_add(&server->requests, 1);
  return true;
}

/* For the test: valid until the next call. */
static inline const char *last_request(struct server *server)
{
  static char copy[REQUEST_MAX];
  pthread_mutex_lock(&server->lock);
  memcpy(copy, server->last, sizeof copy);
  pthread_mutex_unlock(&server->lock);
  return copy;
}

static inline void wait_for_close(struct server *server, int fd)
{
  char byte;
  while (recv(fd, &byte, 1, 0) > 0)
    ;
  atomic_fetch_add(&server->eof_seen, 1);
}

static inline void reset(int fd)
{
  struct linger linger = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

static inline void *server_run(void *user)
{
  struct server *server = user;
  for (;;) {
    int fd = accept(server->listener, NULL, NULL);
    if (fd < 0)
      return NULL;
    struct timeval guard = {.tv_sec = GUARD_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &guard, sizeof guard);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &guard, sizeof guard);
    atomic_fetch_add(&server->accepts, 1);
    server->serve(server, fd);
    close(fd);
  }
}

static inline int bind_loopback(int *port)
{
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
  *port = ntohs(address.sin_port);
  return fd;
}

static inline void server_start(struct server *server, serve_fn serve)
{
  memset(server, 0, sizeof *server);
  pthread_mutex_init(&server->lock, NULL);
  server->serve = serve;
  server->listener = bind_loopback(&server->port);
  assert_int_equal(listen(server->listener, 64), 0);
  assert_int_equal(pthread_create(&server->thread, NULL, server_run, server), 0);
}

static inline void server_stop(struct server *server)
{
  shutdown(server->listener, SHUT_RDWR);
  pthread_join(server->thread, NULL);
  close(server->listener);
}

/* ---- The world and a probe that notes what an exchange reports -------------------------------------------- */

struct world {
  struct pry_loop *loop;
  struct pry_http *http;
  struct server server;
};

enum moment { NEVER, AT_CONNECTED, AT_HEAD, AT_DATA, AT_DONE };

struct probe {
  struct world *world;
  struct pry_http_exchange *exchange;
  int connected, heads, datas, dones, status;
  size_t body_size, head_lines;
  char body[256], header_x[64], message[256];
  struct pry_http_result result;
  enum moment cancel_at, start_at;
  bool pause, cancelled;
  struct probe *next;
  size_t upload_total, uploaded; /* bytes of an upload, and how many were asked for */
  size_t upload_piece;           /* at most so many at a time; 0: as many as there is room for */
  size_t upload_stop;            /* with so many it says `upload_says` instead; 0: never */
  ptrdiff_t upload_says;
  int pulls, stops; /* questions, and those answered with `upload_says` */
  bool out_of_order;
};

static inline int set_up(void **state)
{
  struct world *world = calloc(1, sizeof *world);
  assert_non_null(world);
  world->loop = pry_loop_new();
  world->http = pry_http_new(world->loop, NULL);
  assert_non_null(world->http);
  *state = world;
  return 0;
}

/* The client goes first: its closing makes a server wake up that waits on a kept connection. */
static inline int tear_down(void **state)
{
  struct world *world = *state;
  pry_http_free(world->http);
  if (world->server.listener)
    server_stop(&world->server);
  pry_loop_free(world->loop);
  free(world);
  return 0;
}

static inline void start(struct world *world, struct probe *probe, const char *method, struct pry_slice body);

static inline void at(struct probe *probe, enum moment moment)
{
  if (probe->cancelled)
    probe->out_of_order = true;
  if (probe->cancel_at == moment) {
    pry_http_cancel(probe->exchange);
    probe->cancelled = true;
  }
  if (probe->start_at == moment && probe->next)
    start(probe->world, probe->next, "GET", PRY_SLICE(""));
}

static inline void on_connected(void *user)
{
  struct probe *probe = user;
  probe->out_of_order |= probe->heads || probe->datas || probe->dones;
  probe->connected++;
  at(probe, AT_CONNECTED);
}

static inline void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct probe *probe = user;
  probe->out_of_order |= !probe->connected || probe->datas || probe->dones;
  probe->heads++;
  probe->status = status;
  probe->head_lines = headers->count;
  struct pry_slice x;
  if (pry_headers_get(headers, PRY_SLICE("x-test"), &x))
    snprintf(probe->header_x, sizeof probe->header_x, "%.*s", (int)x.size, x.data);
  at(probe, AT_HEAD);
}

static inline enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct probe *probe = user;
  probe->out_of_order |= !probe->heads || probe->dones || !data.size || data.size > PRY_HTTP_CHUNK_MAX;
  probe->datas++;
  size_t room =
      sizeof probe->body - 1 - (probe->body_size < sizeof probe->body ? probe->body_size : sizeof probe->body - 1);
  if (room)
    memcpy(probe->body + probe->body_size, data.data, data.size < room ? data.size : room);
  probe->body_size += data.size;
  at(probe, AT_DATA);
  return probe->pause ? PRY_HTTP_PAUSE : PRY_HTTP_CONTINUE;
}

static inline void on_done(void *user, const struct pry_http_result *result)
{
  struct probe *probe = user;
  probe->dones++;
  probe->result = *result;
  snprintf(probe->message, sizeof probe->message, "%s", result->message);
  at(probe, AT_DONE);
}

/* The next bytes of a body of '0' to '9', over and over. */
static inline ptrdiff_t on_upload(void *user, char *to, size_t room)
{
  struct probe *probe = user;
  probe->out_of_order |= !probe->connected || probe->dones || room > PRY_HTTP_CHUNK_MAX;
  probe->pulls++;
  size_t left = probe->upload_total - probe->uploaded;
  size_t size = left < room ? left : room;
  if (probe->upload_piece && size > probe->upload_piece)
    size = probe->upload_piece;
  if (probe->uploaded >= probe->upload_stop && probe->upload_stop) {
    probe->stops++;
    return probe->upload_says;
  }
  for (size_t i = 0; i < size; i++)
    to[i] = (char)('0' + (probe->uploaded + i) % 10);
  probe->uploaded += size;
  return (ptrdiff_t)size;
}

static const struct pry_http_ops ops = {on_connected, on_head, on_data, on_done, on_upload};

static inline void start_request(struct world *world, struct probe *probe, const struct pry_http_request *request)
{
  probe->world = world;
  probe->exchange = pry_http_start(world->http, request, &ops, probe);
  assert_non_null(probe->exchange);
  assert_int_equal(probe->connected + probe->heads + probe->dones, 0);
}

static inline void start(struct world *world, struct probe *probe, const char *method, struct pry_slice body)
{
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%d/a/../b?c=%%20d", world->server.port);
  struct pry_http_request request = {
      .method = method, .url = url, .body = body, .has_body = strcmp(method, "POST") == 0};
  start_request(world, probe, &request);
}

/* Turns the loop until `*counter` has reached `target`. */
static inline void until(struct world *world, const int *counter, int target)
{
  pry_time end = pry_loop_now(world->loop) + GUARD_SECONDS * PRY_SECOND;
  while (*counter < target) {
    assert_true(pry_loop_now(world->loop) < end);
    pry_loop_turn(world->loop, 50 * PRY_MILLISECOND);
  }
}

static inline void until_atomic(struct world *world, atomic_int *counter, int target)
{
  pry_time end = pry_loop_now(world->loop) + GUARD_SECONDS * PRY_SECOND;
  while (atomic_load(counter) < target) {
    assert_true(pry_loop_now(world->loop) < end);
    pry_loop_turn(world->loop, 2 * PRY_MILLISECOND);
  }
}

static inline void few_turns(struct world *world)
{
  for (int i = 0; i < 20; i++)
    pry_loop_turn(world->loop, PRY_MILLISECOND);
}

static inline struct probe finished(struct world *world, const char *method, struct pry_slice body)
{
  struct probe probe = {0};
  start(world, &probe, method, body);
  until(world, &probe.dones, 1);
  assert_int_equal(probe.dones, 1);
  assert_false(probe.out_of_order);
  assert_int_equal(pry_http_open_count(world->http), 0);
  return probe;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
