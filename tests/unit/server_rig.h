/*
 * server_rig.h: an HTTP server on a real socket, a handler that does what the path says, and clients that are
 * non-blocking sockets driven from the server's own loop. For the tests of server.h.
 */
#ifndef SERVER_RIG_H
#define SERVER_RIG_H

#include "server_internal.h"

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
#include <sys/un.h>
#include <unistd.h>

enum { CALLS_MAX = 512, STREAM_PIECE = 16 * 1024 };

#define PATIENCE (5 * PRY_SECOND)

/* ---- A handler that does what the path says ------------------------------------------------------------- */

struct bench;

struct handled {
  struct bench *bench;
  struct pry_exchange *exchange;
  char path[64];
  struct pry_buffer body;
  size_t to_stream; /* bytes still to write */
  int heads, ends, gones;
  bool finished; /* replied in full */
  bool paused;
};

struct bench {
  struct pry_loop *loop;
  struct pry_server *server;
  struct handled handled[CALLS_MAX];
  size_t count;
  size_t streamed, pauses, gones;
  bool in_reply; /* on_gone must never come from inside a pry_reply_ call */
};

static inline void reply_body(struct handled *h)
{
  h->finished = true;
  h->bench->in_reply = true;
  pry_reply_text(h->exchange, 200, "text/plain", pry_buffer_slice(&h->body));
  h->bench->in_reply = false;
}

static inline void stream_more(struct handled *h)
{
  static char piece[STREAM_PIECE];
  memset(piece, 'x', sizeof piece);
  h->paused = false;
  h->bench->in_reply = true;
  while (h->to_stream && !h->paused) {
    size_t size = h->to_stream < sizeof piece ? h->to_stream : sizeof piece;
    h->to_stream -= size;
    h->bench->streamed += size;
    h->paused = !pry_reply_write(h->exchange, (struct pry_slice){piece, size});
    h->bench->pauses += h->paused;
  }
  if (!h->to_stream) {
    h->finished = true;
    pry_reply_end(h->exchange);
  }
  h->bench->in_reply = false;
}

static inline bool path_is(const struct handled *h, const char *path)
{
  return strcmp(h->path, path) == 0;
}

static inline void *on_head(void *user, struct pry_exchange *exchange, const struct pry_server_request *request)
{
  struct bench *b = user;
  assert_true(b->count < CALLS_MAX);
  struct handled *h = &b->handled[b->count++];
  *h = (struct handled){.bench = b, .exchange = exchange, .heads = 1};
  snprintf(h->path, sizeof h->path, "%.*s", (int)request->path.size, request->path.data);
  pry_buffer_init(&h->body, 0);
  if (path_is(h, "/early"))
    reply_body(h);
  if (path_is(h, "/held"))
    pry_reply_hold_body(exchange, true);
  return h;
}

static inline void on_body(void *user, struct pry_slice data)
{
  struct handled *h = user;
  assert_false(h->finished || h->gones || h->ends);
  assert_true(data.size > 0);
  assert_true(pry_buffer_append_slice(&h->body, data));
}

static inline void reply_status(struct handled *h, int status)
{
  h->finished = true;
  pry_reply_text(h->exchange, status, NULL, pry_buffer_slice(&h->body));
}

static inline void on_end(void *user)
{
  struct handled *h = user;
  assert_false(h->finished || h->gones || h->ends);
  h->ends++;
  if (path_is(h, "/echo")) {
    reply_body(h);
  } else if (path_is(h, "/large")) {
    static char large[1 << 20];
    h->finished = true;
    pry_reply_text(h->exchange, 200, NULL, (struct pry_slice){large, sizeof large});
  } else if (path_is(h, "/204")) {
    reply_status(h, 204);
  } else if (path_is(h, "/304")) {
    reply_status(h, 304);
  } else if (path_is(h, "/chunked")) {
    assert_true(pry_reply_start(h->exchange, 200, NULL, -1));
    assert_true(pry_reply_write(h->exchange, PRY_SLICE("hello ")));
    assert_true(pry_reply_write(h->exchange, PRY_SLICE("")));
    assert_true(pry_reply_write(h->exchange, PRY_SLICE("world")));
    h->finished = true;
    pry_reply_end(h->exchange);
  } else if (path_is(h, "/stream")) {
    assert_true(pry_reply_start(h->exchange, 200, NULL, -1));
    h->to_stream = 64 * 1024 * 1024;
    stream_more(h);
  } else if (path_is(h, "/begin")) {
    assert_true(pry_reply_start(h->exchange, 200, NULL, -1));
    assert_true(pry_reply_write(h->exchange, PRY_SLICE("begun")));
  } else if (path_is(h, "/begin-length")) {
    assert_true(pry_reply_start(h->exchange, 200, NULL, 10));
    assert_true(pry_reply_write(h->exchange, PRY_SLICE("begun")));
  } /* else /wait and /held: the test decides */
}

static inline void on_writable(void *user)
{
  struct handled *h = user;
  assert_false(h->bench->in_reply);
  assert_true(h->paused);
  stream_more(h);
}

static inline void on_gone(void *user)
{
  struct handled *h = user;
  assert_false(h->bench->in_reply);
  assert_false(h->finished || h->gones);
  h->gones++;
  h->bench->gones++;
}

static const struct pry_server_ops SERVER_RIG_OPS = {on_head, on_body, on_end, on_writable, on_gone};

/* ---- The bench ------------------------------------------------------------------------------------------ */

static inline void bench_start(struct bench *b, const char *address, const struct pry_server_options *options)
{
  char error[256] = "";
  memset(b, 0, sizeof *b);
  b->loop = pry_loop_new();
  assert_non_null(b->loop);
  b->server = pry_server_new(b->loop, address, options, &SERVER_RIG_OPS, b, error, sizeof error);
  if (!b->server)
    fail_msg("%s", error);
}

static inline void bench_stop(struct bench *b)
{
  pry_server_free(b->server);
  for (size_t i = 0; i < b->count; i++) {
    assert_int_equal(b->handled[i].finished + b->handled[i].gones, 1); /* exactly one ending */
    pry_buffer_fini(&b->handled[i].body);
  }
  pry_loop_free(b->loop);
}

static inline bool turn(struct bench *b, pry_time started)
{
  pry_loop_turn(b->loop, 2 * PRY_MILLISECOND);
  return pry_loop_now(b->loop) - started < PATIENCE;
}

#define UNTIL(b, condition)                                                                                            \
  do {                                                                                                                 \
    pry_time until_started = pry_loop_now((b)->loop);                                                                  \
    while (!(condition))                                                                                               \
      assert_true(turn(b, until_started));                                                                             \
  } while (0)

static inline int dial(struct bench *b)
{
  const char *address = pry_server_address(b->server);
  int fd;
  if (strncmp(address, "unix:", 5) == 0) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path, sizeof name.sun_path, "%s", address + 5);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
  } else {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    name.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
  }
  assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  return fd;
}

static inline void say(int fd, const char *text)
{
  assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

enum hearing { STILL_OPEN, ENDED, RESET };

/* Reads what there is; `text` stays NUL-terminated. */
static inline enum hearing hear(int fd, struct pry_buffer *text)
{
  char piece[64 * 1024];
  for (;;) {
    ssize_t size = recv(fd, piece, sizeof piece, 0);
    if (size < 0 && errno == EAGAIN)
      return STILL_OPEN;
    if (size < 0)
      return RESET;
    if (size == 0)
      return ENDED;
    assert_true(pry_buffer_append(text, piece, (size_t)size));
    assert_non_null(pry_buffer_text(text));
  }
}

/* Turns the loop until the text holds `part`. */
static inline const char *hear_part(struct bench *b, int fd, struct pry_buffer *text, const char *part)
{
  pry_time started = pry_loop_now(b->loop);
  for (;;) {
    enum hearing state = hear(fd, text);
    if (text->size && strstr(pry_buffer_text(text), part))
      return pry_buffer_text(text);
    if (state != STILL_OPEN || !turn(b, started))
      fail_msg("\"%s\" never came, only: %s", part, text->size ? pry_buffer_text(text) : "nothing");
  }
}

static inline enum hearing hear_end(struct bench *b, int fd, struct pry_buffer *text)
{
  pry_time started = pry_loop_now(b->loop);
  enum hearing state;
  while ((state = hear(fd, text)) == STILL_OPEN)
    assert_true(turn(b, started));
  return state;
}

static inline void reset_close(int fd)
{
  struct linger none = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  close(fd);
}

static inline size_t times_in(const char *text, const char *part)
{
  size_t times = 0;
  for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
    times++;
  return times;
}

#endif
