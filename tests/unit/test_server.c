/* The HTTP server on real sockets. Clients are non-blocking sockets driven from the server's own loop. */
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CALLS_MAX = 512, STREAM_PIECE = 16 * 1024 };

#define PATIENCE (5 * PRY_SECOND)

/* ---- A handler that does what the path says ------------------------------------------------------------ */

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

static void reply_body(struct handled *h)
{
  h->finished = true;
  h->bench->in_reply = true;
  pry_reply_text(h->exchange, 200, "text/plain", pry_buffer_slice(&h->body));
  h->bench->in_reply = false;
}

static void stream_more(struct handled *h)
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

static bool path_is(const struct handled *h, const char *path)
{
  return strcmp(h->path, path) == 0;
}

static void *on_head(void *user, struct pry_exchange *exchange, const struct pry_server_request *request)
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

static void on_body(void *user, struct pry_slice data)
{
  struct handled *h = user;
  assert_false(h->finished || h->gones || h->ends);
  assert_true(data.size > 0);
  assert_true(pry_buffer_append_slice(&h->body, data));
}

static void reply_status(struct handled *h, int status)
{
  h->finished = true;
  pry_reply_text(h->exchange, status, NULL, pry_buffer_slice(&h->body));
}

static void on_end(void *user)
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

static void on_writable(void *user)
{
  struct handled *h = user;
  assert_false(h->bench->in_reply);
  assert_true(h->paused);
  stream_more(h);
}

static void on_gone(void *user)
{
  struct handled *h = user;
  assert_false(h->bench->in_reply);
  assert_false(h->finished || h->gones);
  h->gones++;
  h->bench->gones++;
}

static const struct pry_server_ops OPS = {on_head, on_body, on_end, on_writable, on_gone};

/* ---- The bench ------------------------------------------------------------------------------------------ */

static void bench_start(struct bench *b, const char *address, const struct pry_server_options *options)
{
  char error[256] = "";
  memset(b, 0, sizeof *b);
  b->loop = pry_loop_new();
  assert_non_null(b->loop);
  b->server = pry_server_new(b->loop, address, options, &OPS, b, error, sizeof error);
  if (!b->server)
    fail_msg("%s", error);
}

static void bench_stop(struct bench *b)
{
  pry_server_free(b->server);
  for (size_t i = 0; i < b->count; i++) {
    assert_int_equal(b->handled[i].finished + b->handled[i].gones, 1); /* exactly one ending */
    pry_buffer_fini(&b->handled[i].body);
  }
  pry_loop_free(b->loop);
}

static bool turn(struct bench *b, pry_time started)
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

static int dial(struct bench *b)
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

static void say(int fd, const char *text)
{
  assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

enum hearing { STILL_OPEN, ENDED, RESET };

/* Reads what there is; `text` stays NUL-terminated. */
static enum hearing hear(int fd, struct pry_buffer *text)
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
static const char *hear_part(struct bench *b, int fd, struct pry_buffer *text, const char *part)
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

static enum hearing hear_end(struct bench *b, int fd, struct pry_buffer *text)
{
  pry_time started = pry_loop_now(b->loop);
  enum hearing state;
  while ((state = hear(fd, text)) == STILL_OPEN)
    assert_true(turn(b, started));
  return state;
}

static void reset_close(int fd)
{
  struct linger none = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  close(fd);
}

static size_t times_in(const char *text, const char *part)
{
  size_t times = 0;
  for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
    times++;
  return times;
}

/* ---- Requests and replies ----------------------------------------------------------------------------------- */

static void test_keep_alive(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  for (int i = 0; i < 3; i++) {
    struct pry_buffer text = {0};
    say(fd, "POST /echo?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhallo");
    const char *reply = hear_part(&b, fd, &text, "\r\n\r\nhallo");
    assert_ptr_equal(strstr(reply, "HTTP/1.1 200 OK\r\n"), reply);
    assert_non_null(strstr(reply, "\r\nDate: "));
    assert_non_null(strstr(reply, " GMT\r\n"));
    assert_non_null(strstr(reply, "\r\nContent-Type: text/plain\r\n"));
    assert_non_null(strstr(reply, "\r\nContent-Length: 5\r\n"));
    assert_null(strstr(reply, "Connection:"));
    pry_buffer_fini(&text);
  }
  assert_int_equal(pry_server_connection_count(b.server), 1);
  assert_int_equal(pry_server_request_count(b.server), 0);
  struct pry_buffer text = {0};
  say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_non_null(strstr(pry_buffer_text(&text), "\r\nConnection: close\r\n"));
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\none"
          "POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\ntwo"
          "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n"
          "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, fd, &text, "\r\n\r\none");
  UNTIL(&b, b.count == 2 && b.handled[1].ends);
  for (int i = 0; i < 5; i++)
    turn(&b, pry_loop_now(b.loop));
  assert_int_equal(b.count, 2); /* the third waits for the second's reply */
  reply_body(&b.handled[1]);
  const char *all = hear_part(&b, fd, &text, "0\r\n\r\n");
  const char *two = strstr(all, "\r\n\r\ntwo"), *three = strstr(all, "\r\n\r\nthree");
  assert_true(two && three && two < three);
  assert_int_equal(times_in(all, "HTTP/1.1 200"), 4);
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_many_pipelined_requests(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer request = {0}, text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  for (int i = 0; i < 500; i++)
    pry_buffer_append_text(&request, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
  say(fd, pry_buffer_text(&request));
  pry_time started = pry_loop_now(b.loop);
  while (b.count < 500 || pry_server_request_count(b.server)) {
    hear(fd, &text);
    assert_true(turn(&b, started));
  }
  while (times_in(pry_buffer_text(&text), "HTTP/1.1 200") < 500) {
    assert_true(turn(&b, started));
    hear(fd, &text);
  }
  pry_buffer_fini(&text);
  pry_buffer_fini(&request);
  close(fd);
  bench_stop(&b);
}

static void test_chunked_reply(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  const char *reply = hear_part(&b, fd, &text, "0\r\n\r\n");
  assert_non_null(strstr(reply, "\r\nTransfer-Encoding: chunked\r\n"));
  assert_null(strstr(reply, "Content-Length"));
  assert_non_null(strstr(reply, "\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"));
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_request_byte_by_byte(void **state)
{
  (void)state;
  static const char REQUEST[] = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                                "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n";
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  for (size_t i = 0; i < sizeof REQUEST - 1; i++) {
    assert_int_equal(send(fd, REQUEST + i, 1, MSG_NOSIGNAL), 1);
    pry_loop_turn(b.loop, PRY_MILLISECOND);
  }
  hear_part(&b, fd, &text, "\r\n\r\nabcde");
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_replies_without_body(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "HEAD /chunked HTTP/1.1\r\nHost: h\r\n\r\n"
          "POST /204 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndrop"
          "POST /304 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndrop"
          "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nlast");
  const char *all = hear_part(&b, fd, &text, "\r\n\r\nlast");
  assert_int_equal(times_in(all, "HTTP/1.1 "), 4);
  assert_null(strstr(all, "hello"));
  assert_null(strstr(all, "drop"));
  assert_null(strstr(all, "chunked"));
  const char *no_content = strstr(all, " 204 ");
  assert_non_null(no_content);
  assert_true(strstr(no_content, "Content-Length") > strstr(all, " 304 ")); /* RFC 9110 §8.6: never with 204 */
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_head_keeps_the_length(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "HEAD /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  pry_buffer_append_text(&b.handled[0].body, "12345");
  reply_body(&b.handled[0]);
  const char *reply = hear_part(&b, fd, &text, "\r\n\r\n");
  assert_non_null(strstr(reply, "Content-Length: 5\r\n"));
  assert_null(strstr(reply, "12345"));
  say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, fd, &text, "world");
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_http_1_0(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  hear_part(&b, fd, &text, "Connection: keep-alive\r\n");
  say(fd, "GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  const char *all = pry_buffer_text(&text);
  assert_non_null(strstr(all, "Connection: close\r\n\r\nhello world"));
  assert_null(strstr(all, "chunked"));
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_expect_continue(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  assert_string_equal(hear_part(&b, fd, &text, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  say(fd, "body");
  assert_int_equal(times_in(hear_part(&b, fd, &text, "\r\n\r\nbody"), " 100 "), 1);
  pry_buffer_clear(&text);
  /* An answer instead of 100: whether the body will come is unknown, so the connection ends. */
  say(fd, "POST /early HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  const char *reply = pry_buffer_text(&text);
  assert_ptr_equal(strstr(reply, "HTTP/1.1 200 OK"), reply);
  assert_non_null(strstr(reply, "Connection: close\r\n"));
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_hop_by_hop_fields_stay_here(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  struct pry_headers headers;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  pry_headers_init(&headers);
  static const char *const LINES[][2] = {
      {"X-Kept", "1"},   {"Connection", "x-named"}, {"X-Named", "2"},         {"Keep-Alive", "3"},
      {"Date", "never"}, {"content-length", "99"},  {"Upgrade", "websocket"}, {"transfer-encoding", "gzip"}};
  for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++)
    assert_true(pry_headers_add(&headers, pry_slice_of(LINES[i][0]), pry_slice_of(LINES[i][1])));
  assert_false(pry_reply_started(b.handled[0].exchange));
  assert_true(pry_reply_start(b.handled[0].exchange, 200, &headers, 2));
  assert_true(pry_reply_started(b.handled[0].exchange));
  assert_false(pry_reply_start(b.handled[0].exchange, 200, &headers, 2)); /* only once */
  pry_reply_write(b.handled[0].exchange, PRY_SLICE("ok"));
  pry_reply_end(b.handled[0].exchange);
  b.handled[0].finished = true;
  const char *reply = hear_part(&b, fd, &text, "\r\n\r\nok");
  assert_non_null(strstr(reply, "X-Kept: 1\r\n"));
  assert_null(strstr(reply, "amed"));
  assert_null(strstr(reply, "Keep-Alive"));
  assert_null(strstr(reply, "never"));
  assert_null(strstr(reply, "99"));
  assert_null(strstr(reply, "Upgrade"));
  assert_null(strstr(reply, "gzip"));
  pry_headers_fini(&headers);
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_reply_before_the_body(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0}, upload = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n");
  hear_part(&b, fd, &text, "\r\n\r\n");
  say(fd, "lateGET /chunked HTTP/1.1\r\nHost: h\r\n\r\n"); /* a small rest is read away */
  hear_part(&b, fd, &text, "world\r\n0\r\n\r\n");
  /* A large one is not worth it: the connection ends, but the client can read why. */
  pry_buffer_clear(&text);
  say(fd, "POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n");
  static char piece[100000];
  size_t sent = 0;
  pry_time started = pry_loop_now(b.loop);
  while (sent < 8000000 && hear(fd, &text) == STILL_OPEN) {
    ssize_t size = send(fd, piece, sizeof piece, MSG_NOSIGNAL);
    sent += size > 0 ? (size_t)size : 0;
    assert_true(turn(&b, started));
  }
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_int_equal(times_in(pry_buffer_text(&text), "HTTP/1.1 200 OK"), 1);
  pry_buffer_fini(&text);
  pry_buffer_fini(&upload);
  close(fd);
  bench_stop(&b);
}

static void test_churn(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  for (int i = 0; i < 200; i++) {
    int fd = dial(&b);
    struct pry_buffer text = {0};
    say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    if (i % 3) {
      hear_part(&b, fd, &text, "\r\n\r\n");
      close(fd);
    } else {
      reset_close(fd);
    }
    pry_buffer_fini(&text);
  }
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  bench_stop(&b);
}

/* ---- Bounds ------------------------------------------------------------------------------------------------- */

static void test_slow_reader_pauses_the_handler(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.pauses > 0);
  for (int i = 0; i < 20; i++)
    turn(&b, pry_loop_now(b.loop));
  const struct pry_connection *connection = pry_exchange_connection(b.handled[0].exchange);
  assert_true(b.streamed < 16 * 1024 * 1024); /* kernel buffers, and our 256 KiB */
  static char piece[1 << 20];
  size_t received = 0;
  pry_time started = pry_loop_now(b.loop);
  while (received < 64 * 1024 * 1024) {
    ssize_t size = recv(fd, piece, sizeof piece, 0);
    received += size > 0 ? (size_t)size : 0;
    if (!b.handled[0].finished)
      assert_true(evbuffer_get_length(connection->output) <= 256 * 1024 + STREAM_PIECE + 64);
    pry_loop_turn(b.loop, PRY_MILLISECOND);
    assert_true(pry_loop_now(b.loop) - started < 60 * PRY_SECOND);
  }
  assert_true(b.handled[0].finished);
  assert_true(b.pauses > 10);
  close(fd);
  bench_stop(&b);
}

static size_t push(struct bench *b, int fd, size_t most)
{
  static char piece[256 * 1024];
  size_t pushed = 0;
  for (int idle = 0; idle < 20 && pushed < most;) {
    ssize_t size = send(fd, piece, sizeof piece, MSG_NOSIGNAL);
    pushed += size > 0 ? (size_t)size : 0;
    idle = size > 0 ? 0 : idle + 1;
    assert_true(size > 0 || errno == EAGAIN); /* who answers early still reads on */
    pry_loop_turn(b->loop, PRY_MILLISECOND);
  }
  return pushed;
}

static void test_input_is_bounded(void **state)
{
  (void)state;
  static const char *const REQUESTS[] = {
      "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /begin HTTP/1.1\r\nHost: h\r\n\r\n",
      "POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n",
  };
  for (size_t i = 0; i < sizeof REQUESTS / sizeof *REQUESTS; i++) {
    struct bench b;
    bench_start(&b, "127.0.0.1:0", NULL);
    int fd = dial(&b);
    say(fd, REQUESTS[i]);
    UNTIL(&b, b.count == 1);
    assert_true(push(&b, fd, 40 * 1000 * 1000) < 16 * 1024 * 1024);
    const struct pry_connection *connection = pry_exchange_connection(b.handled[0].exchange);
    assert_true(connection->input.size <= PRY_SERVER_READ_SIZE);
    assert_int_equal(b.handled[0].body.size, 0);
    reset_close(fd); /* not a FIN: that would wait behind the unread bytes */
    UNTIL(&b, b.gones == 1);
    bench_stop(&b);
  }
}

static void test_unread_replies_stop_the_next_request(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer request = {0}, text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  for (int i = 0; i < 100; i++)
    pry_buffer_append_text(&request, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
  say(fd, pry_buffer_text(&request));
  for (int i = 0; i < 50; i++)
    turn(&b, 0);
  assert_true(b.count < 20); /* each is 1 MiB, and the kernel takes a few */
  assert_int_equal(b.gones, 0);
  pry_time started = pry_loop_now(b.loop);
  while (b.count < 100) { /* reading sets them going again */
    hear(fd, &text);
    pry_buffer_clear(&text);
    assert_true(turn(&b, started));
  }
  pry_buffer_fini(&request);
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_held_body_comes_when_wanted(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.body_idle = 0.05});
  int fd = dial(&b);
  say(fd, "POST /held HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  UNTIL(&b, b.count == 1);
  pry_time begun = pry_loop_now(b.loop);
  UNTIL(&b, pry_loop_now(b.loop) - begun > 100 * PRY_MILLISECOND); /* no deadline while held */
  assert_int_equal(hear(fd, &text), STILL_OPEN);
  assert_int_equal(text.size, 0); /* and no 100 */
  pry_reply_hold_body(b.handled[0].exchange, false);
  hear_part(&b, fd, &text, "HTTP/1.1 100 Continue\r\n\r\n");
  say(fd, "body");
  UNTIL(&b, b.handled[0].ends);
  reply_body(&b.handled[0]);
  hear_part(&b, fd, &text, "\r\n\r\nbody");
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_large_upload(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 20000000\r\n\r\n");
  static char piece[100000];
  size_t left = 20000000;
  pry_time started = pry_loop_now(b.loop);
  while (left) {
    ssize_t size = send(fd, piece, left < sizeof piece ? left : sizeof piece, MSG_NOSIGNAL);
    left -= size > 0 ? (size_t)size : 0;
    assert_true(turn(&b, started));
  }
  UNTIL(&b, b.handled[0].ends);
  assert_int_equal(b.handled[0].body.size, 20000000);
  pry_buffer_clear(&b.handled[0].body);
  reply_body(&b.handled[0]);
  hear_part(&b, fd, &text, "\r\n\r\n");
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_body_limit(void **state)
{
  (void)state;
  static const struct {
    const char *request;
    bool handler_saw_it;
  } CASES[] = {
      {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n12345678901", false},
      {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\n2\r\n12\r\n0\r\n\r\n",
       true},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    struct bench b;
    struct pry_buffer text = {0};
    bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.max_body = 10});
    int fd = dial(&b);
    say(fd, CASES[i].request);
    assert_int_equal(hear_end(&b, fd, &text), ENDED);
    const char *reply = pry_buffer_text(&text);
    assert_ptr_equal(strstr(reply, "HTTP/1.1 413 "), reply);
    assert_non_null(strstr(reply, "\"request_too_large\""));
    if (CASES[i].handler_saw_it)
      assert_int_equal(b.gones, 1);
    pry_buffer_fini(&text);
    close(fd);
    bench_stop(&b);
  }
}

static void test_malformed_requests_are_refused_readably(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
          "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
  pry_time begun = pry_loop_now(b.loop);
  push(&b, fd, 2 * 1024 * 1024); /* what is still being sent must not turn the answer into a reset */
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_true(pry_loop_now(b.loop) - begun < 1 * PRY_SECOND); /* the end is said at once, not after lingering */
  const char *reply = pry_buffer_text(&text);
  assert_ptr_equal(strstr(reply, "HTTP/1.1 400 Bad Request\r\n"), reply);
  assert_int_equal(times_in(reply, "HTTP/1.1 "), 1);
  assert_non_null(strstr(reply, "Connection: close\r\n"));
  assert_non_null(strstr(reply, "{\"error\":{\"message\":\""));
  assert_non_null(strstr(reply, "\"type\":\"invalid_request_error\",\"code\":\"malformed_request\"}}"));
  assert_int_equal(b.count, 0);
  close(fd);
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  pry_buffer_fini(&text);
  bench_stop(&b);
}

static void test_broken_body(void **state)
{
  (void)state;
  static const char *const PATHS[] = {"/wait", "/held-not"};
  for (size_t i = 0; i < 2; i++) {
    struct bench b;
    struct pry_buffer text = {0};
    char request[128];
    bench_start(&b, "127.0.0.1:0", NULL);
    int fd = dial(&b);
    snprintf(request, sizeof request, "POST %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", PATHS[i]);
    say(fd, request);
    UNTIL(&b, b.count == 1);
    if (i == 1) /* a reply under way cannot be answered a second time; it is cut */
      assert_true(pry_reply_start(b.handled[0].exchange, 200, NULL, -1));
    say(fd, "zz\r\n");
    assert_int_equal(hear_end(&b, fd, &text), ENDED);
    const char *reply = pry_buffer_text(&text);
    assert_ptr_equal(strstr(reply, i ? "HTTP/1.1 200 " : "HTTP/1.1 400 "), reply);
    assert_int_equal(times_in(reply, "HTTP/1.1 "), 1);
    assert_null(strstr(reply, "\r\n\r\n0\r\n"));
    assert_int_equal(b.gones, 1);
    pry_buffer_fini(&text);
    close(fd);
    bench_stop(&b);
  }
}

static void test_connection_cap(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.max_connections = 2});
  int one = dial(&b), two = dial(&b);
  UNTIL(&b, pry_server_connection_count(b.server) == 2);
  int three = dial(&b);
  assert_int_equal(hear_end(&b, three, &text), ENDED);
  assert_ptr_equal(strstr(pry_buffer_text(&text), "HTTP/1.1 503 "), pry_buffer_text(&text));
  close(two);
  UNTIL(&b, pry_server_connection_count(b.server) == 1);
  int four = dial(&b);
  say(four, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, four, &text, "world");
  pry_buffer_fini(&text);
  close(one);
  close(three);
  close(four);
  bench_stop(&b);
}

static int lowest_free_descriptor(void)
{
  int fd = dup(STDERR_FILENO);
  close(fd);
  return fd;
}

static void test_no_descriptors_left(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  struct rlimit before, tight;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b); /* in the backlog: the loop has not turned */
  say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  tight = before;
  tight.rlim_cur = (rlim_t)lowest_free_descriptor();
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
  int turns = 0;
  for (pry_time start = pry_loop_now(b.loop); pry_loop_now(b.loop) - start < 50 * PRY_MILLISECOND; turns++)
    pry_loop_turn(b.loop, 10 * PRY_MILLISECOND);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
  assert_int_equal(b.count, 0);
  assert_true(turns < 50); /* a listening socket left registered would wake us thousands of times */
  hear_part(&b, fd, &text, "world");
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

/* ---- Clients that leave --------------------------------------------------------------------------------------- */

enum leaving { CLOSES, RESETS, HALF_CLOSES };

static void leave(int fd, enum leaving how)
{
  if (how == CLOSES)
    close(fd);
  else if (how == RESETS)
    reset_close(fd);
  else
    shutdown(fd, SHUT_WR);
}

static void check_gone(const char *address, const char *request, enum leaving how)
{
  struct bench b;
  bench_start(&b, address, NULL);
  int fd = dial(&b);
  say(fd, request);
  UNTIL(&b, b.count == 1);
  for (int i = 0; i < 3; i++)
    turn(&b, 0);
  assert_int_equal(b.gones, 0);
  pry_time left = pry_loop_now(b.loop);
  leave(fd, how);
  UNTIL(&b, b.gones == 1);
  assert_true(pry_loop_now(b.loop) - left < 200 * PRY_MILLISECOND);
  assert_int_equal(pry_server_connection_count(b.server), 0);
  assert_int_equal(pry_server_request_count(b.server), 0);
  if (how == HALF_CLOSES)
    close(fd);
  bench_stop(&b);
}

static void test_leaving_is_noticed(void **state)
{
  (void)state;
  static const char *const REQUESTS[] = {
      "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /wait HTTP/1.1\r\nHost: h\r\n\r\nGET /pipelined HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /begin HTTP/1.1\r\nHost: h\r\n\r\n",
      "POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nonly a part",
      "POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nnot read at all",
  };
  for (size_t i = 0; i < sizeof REQUESTS / sizeof *REQUESTS; i++)
    for (int how = CLOSES; how <= HALF_CLOSES; how++)
      check_gone("127.0.0.1:0", REQUESTS[i], (enum leaving)how);
  char address[64];
  snprintf(address, sizeof address, "unix:/tmp/parry-test-%d.sock", (int)getpid());
  check_gone(address, REQUESTS[0], CLOSES);
  check_gone(address, REQUESTS[2], HALF_CLOSES);
}

static void test_bytes_before_leaving(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1);
  say(fd, "x"); /* late bytes are kept for later, and hide nothing */
  turn(&b, 0);
  assert_int_equal(b.gones, 0);
  close(fd);
  UNTIL(&b, b.gones == 1);
  bench_stop(&b);
}

static void test_writing_to_a_client_that_left(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /begin HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  UNTIL(&b, evbuffer_get_length(pry_exchange_connection(b.handled[0].exchange)->output) == 0);
  reset_close(fd);
  static char piece[512 * 1024]; /* over the mark: written at once, from inside pry_reply_write() */
  b.in_reply = true;
  assert_true(pry_reply_write(b.handled[0].exchange, (struct pry_slice){piece, sizeof piece}));
  pry_reply_write(b.handled[0].exchange, (struct pry_slice){piece, sizeof piece});
  b.in_reply = false;
  assert_int_equal(b.gones, 0);
  UNTIL(&b, b.gones == 1);
  bench_stop(&b);
}

static void test_end_wins_over_gone(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  reset_close(fd);
  reply_body(&b.handled[0]);
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  assert_int_equal(b.gones, 0);
  bench_stop(&b);
}

/* ---- Deadlines -------------------------------------------------------------------------------------------------- */

static void test_head_deadline(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.head_deadline = 0.08});
  int fd = dial(&b), silent = dial(&b);
  pry_time begun = pry_loop_now(b.loop);
  /* A byte now and then does not help. */
  for (const char *byte = "GET /echo HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"; *byte; byte++) {
    if (send(fd, byte, 1, MSG_NOSIGNAL) < 0 || hear(fd, &text) != STILL_OPEN)
      break;
    pry_loop_turn(b.loop, 4 * PRY_MILLISECOND);
  }
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_ptr_equal(strstr(pry_buffer_text(&text), "HTTP/1.1 408 "), pry_buffer_text(&text));
  assert_true(pry_loop_now(b.loop) - begun >= 80 * PRY_MILLISECOND);
  pry_buffer_clear(&text);
  assert_int_equal(hear_end(&b, silent, &text), ENDED); /* who never said anything gets no answer */
  assert_int_equal(text.size, 0);
  pry_buffer_fini(&text);
  close(fd);
  close(silent);
  bench_stop(&b);
}

static void test_head_deadline_on_a_kept_connection(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.head_deadline = 0.05});
  int fd = dial(&b);
  say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, fd, &text, "\r\n\r\n");
  pry_time idle = pry_loop_now(b.loop);
  UNTIL(&b, pry_loop_now(b.loop) - idle > 100 * PRY_MILLISECOND); /* idle is allowed, for 75 s */
  say(fd, "GET /sl");
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_non_null(strstr(pry_buffer_text(&text), "HTTP/1.1 408 "));
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_keep_alive_deadline(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.keep_alive = 0.03});
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  pry_time begun = pry_loop_now(b.loop);
  UNTIL(&b, pry_loop_now(b.loop) - begun > 60 * PRY_MILLISECOND); /* an open request has no such deadline */
  reply_body(&b.handled[0]);
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_int_equal(times_in(pry_buffer_text(&text), "HTTP/1.1 "), 1);
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_body_deadline(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.body_idle = 0.05});
  int fd = dial(&b);
  say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_ptr_equal(strstr(pry_buffer_text(&text), "HTTP/1.1 408 "), pry_buffer_text(&text));
  assert_int_equal(b.gones, 1);
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_write_deadline(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.write_idle = 0.1});
  int fd = dial(&b);
  say(fd, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.gones == 1); /* it never reads */
  assert_true(b.pauses > 0);
  assert_int_equal(pry_server_connection_count(b.server), 0);
  close(fd);
  bench_stop(&b);
}

/* ---- Endings ------------------------------------------------------------------------------------------------------ */

static enum hearing abort_after(const char *request, bool start, char *got, size_t size)
{
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, request);
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  if (start)
    hear_part(&b, fd, &text, "begun");
  pry_reply_abort(b.handled[0].exchange);
  b.handled[0].finished = true;
  enum hearing end = hear_end(&b, fd, &text);
  snprintf(got, size, "%s", text.size ? pry_buffer_text(&text) : "");
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
  return end;
}

static void test_abort_never_looks_whole(void **state)
{
  (void)state;
  char got[512];
  assert_int_equal(abort_after("GET /begin HTTP/1.1\r\nHost: h\r\n\r\n", true, got, sizeof got), ENDED);
  assert_non_null(strstr(got, "5\r\nbegun\r\n"));
  assert_null(strstr(got, "0\r\n\r\n"));
  assert_int_equal(abort_after("GET /begin-length HTTP/1.1\r\nHost: h\r\n\r\n", true, got, sizeof got), ENDED);
  assert_non_null(strstr(got, "Content-Length: 10\r\n"));
  assert_int_equal(abort_after("GET /begin HTTP/1.0\r\n\r\n", true, got, sizeof got), RESET);
  assert_int_equal(abort_after("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n", false, got, sizeof got), RESET);
  assert_string_equal(got, "");
}

static void test_wrong_lengths(void **state)
{
  (void)state;
  for (int more = 0; more <= 1; more++) {
    struct bench b;
    struct pry_buffer text = {0};
    bench_start(&b, "127.0.0.1:0", NULL);
    int fd = dial(&b);
    say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    UNTIL(&b, b.count == 1 && b.handled[0].ends);
    assert_true(pry_reply_start(b.handled[0].exchange, 200, NULL, 4));
    assert_true(pry_reply_write(b.handled[0].exchange, more ? PRY_SLICE("12345") : PRY_SLICE("123")));
    pry_reply_end(b.handled[0].exchange);
    b.handled[0].finished = true;
    assert_int_equal(hear_end(&b, fd, &text), more ? RESET : ENDED);
    assert_null(strstr(text.size ? pry_buffer_text(&text) : "", "12345"));
    pry_buffer_fini(&text);
    close(fd);
    bench_stop(&b);
  }
}

static void test_end_without_start(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  pry_reply_end(b.handled[0].exchange);
  b.handled[0].finished = true;
  hear_part(&b, fd, &text, "HTTP/1.1 500 ");
  pry_buffer_fini(&text);
  close(fd);
  bench_stop(&b);
}

static void test_drain(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0}, idle_text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int busy = dial(&b), idle = dial(&b), streaming = dial(&b);
  say(busy, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\nGET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
  say(streaming, "GET /begin HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 2 && pry_server_connection_count(b.server) == 3);
  pry_server_drain(b.server);
  assert_int_equal(hear_end(&b, idle, &idle_text), ENDED);
  assert_int_equal(idle_text.size, 0);
  assert_int_equal(pry_server_request_count(b.server), 2);
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  name.sin_port = htons((uint16_t)atoi(strrchr(pry_server_address(b.server), ':') + 1));
  int late = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(connect(late, (struct sockaddr *)&name, sizeof name), -1);
  struct handled *waiting = path_is(&b.handled[0], "/wait") ? &b.handled[0] : &b.handled[1];
  struct handled *begun = waiting == &b.handled[0] ? &b.handled[1] : &b.handled[0];
  reply_body(waiting);
  assert_int_equal(hear_end(&b, busy, &text), ENDED);
  assert_non_null(strstr(pry_buffer_text(&text), "Connection: close\r\n"));
  assert_int_equal(b.count, 2); /* what was pipelined behind is not begun */
  pry_reply_end(begun->exchange);
  begun->finished = true;
  assert_int_equal(hear_end(&b, streaming, &idle_text), ENDED);
  assert_non_null(strstr(pry_buffer_text(&idle_text), "0\r\n\r\n"));
  close(late);
  close(busy);
  close(idle);
  close(streaming);
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  pry_buffer_fini(&text);
  pry_buffer_fini(&idle_text);
  bench_stop(&b);
}

static void test_free_with_open_requests(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int one = dial(&b), two = dial(&b), idle = dial(&b);
  say(one, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  say(two, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 2 && b.pauses > 0);
  bench_stop(&b); /* checks that both were told */
  close(one);
  close(two);
  close(idle);
}

/* ---- Addresses ---------------------------------------------------------------------------------------------------- */

static struct pry_server *listen_on(struct bench *b, const char *address, bool share, char *error)
{
  struct pry_server_options options = {.share_port = share};
  error[0] = '\0';
  return pry_server_new(b->loop, address, &options, &OPS, b, error, 256);
}

static void test_addresses(void **state)
{
  (void)state;
  struct bench b;
  char error[256];
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.share_port = true});
  static const char *const BAD[] = {
      "",        "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:8x", "example.com:80",
      "[::1:80", "::1:80",    "unix:",      "127.0.0.1:080000"};
  for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
    assert_null(listen_on(&b, BAD[i], false, error));
    assert_non_null(strstr(error, "cannot listen on "));
  }
  assert_null(listen_on(&b, pry_server_address(b.server), false, error));
  assert_non_null(strstr(error, "in use"));
  struct pry_server *shared = listen_on(&b, pry_server_address(b.server), true, error);
  assert_non_null(shared);
  pry_server_free(shared);
  struct pry_server *six = listen_on(&b, "[::1]:0", false, error);
  if (six) { /* where there is IPv6 */
    assert_ptr_equal(strstr(pry_server_address(six), "[::1]:"), pry_server_address(six));
    pry_server_free(six);
  }
  bench_stop(&b);
}

static void test_virtual_loop_is_refused(void **state)
{
  (void)state;
  char error[256] = "";
  struct pry_loop *loop = pry_loop_new_virtual(0);
  assert_null(pry_server_new(loop, "127.0.0.1:0", NULL, &OPS, NULL, error, sizeof error));
  assert_non_null(strstr(error, "epoll"));
  pry_loop_free(loop);
}

static void test_unix_socket(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  struct stat file;
  char directory[] = "/tmp/parry-test-XXXXXX", address[80], error[256];
  assert_non_null(mkdtemp(directory));
  snprintf(address, sizeof address, "unix:%s/s", directory);
  const char *path = address + 5;

  mode_t mask = umask(0);
  bench_start(&b, address, NULL);
  umask(mask);
  assert_string_equal(pry_server_address(b.server), address);
  assert_int_equal(lstat(path, &file), 0);
  assert_int_equal(file.st_mode & 07777, 0600);
  int fd = dial(&b);
  say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, fd, &text, "world");
  close(fd);

  assert_null(listen_on(&b, address, false, error)); /* somebody lives there */
  assert_non_null(strstr(error, "a running program listens there"));
  pry_server_free(b.server);
  assert_int_equal(lstat(path, &file), -1);

  struct sockaddr_un name = {.sun_family = AF_UNIX};
  strcpy(name.sun_path, path);
  int dead = socket(AF_UNIX, SOCK_STREAM, 0); /* bound, closed: what a killed process leaves */
  assert_int_equal(bind(dead, (struct sockaddr *)&name, sizeof name), 0);
  close(dead);
  b.server = listen_on(&b, address, false, error);
  assert_non_null(b.server);
  assert_int_equal(lstat(path, &file), 0);
  assert_int_equal(file.st_mode & 07777, 0600);

  unlink(path); /* a successor's socket is not ours to remove */
  int successor = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(bind(successor, (struct sockaddr *)&name, sizeof name), 0);
  pry_server_free(b.server);
  assert_int_equal(lstat(path, &file), 0);
  close(successor);
  unlink(path);

  int plain = open(path, O_CREAT | O_WRONLY, 0600);
  assert_null(listen_on(&b, address, false, error));
  assert_non_null(strstr(error, "not a socket"));
  assert_int_equal(lstat(path, &file), 0);
  close(plain);
  unlink(path);
  rmdir(directory);
  b.server = NULL;
  pry_buffer_fini(&text);
  bench_stop(&b);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_keep_alive),
      cmocka_unit_test(test_pipelined_requests_are_answered_in_order),
      cmocka_unit_test(test_many_pipelined_requests),
      cmocka_unit_test(test_chunked_reply),
      cmocka_unit_test(test_request_byte_by_byte),
      cmocka_unit_test(test_replies_without_body),
      cmocka_unit_test(test_head_keeps_the_length),
      cmocka_unit_test(test_http_1_0),
      cmocka_unit_test(test_expect_continue),
      cmocka_unit_test(test_hop_by_hop_fields_stay_here),
      cmocka_unit_test(test_reply_before_the_body),
      cmocka_unit_test(test_churn),
      cmocka_unit_test(test_slow_reader_pauses_the_handler),
      cmocka_unit_test(test_input_is_bounded),
      cmocka_unit_test(test_unread_replies_stop_the_next_request),
      cmocka_unit_test(test_held_body_comes_when_wanted),
      cmocka_unit_test(test_large_upload),
      cmocka_unit_test(test_body_limit),
      cmocka_unit_test(test_malformed_requests_are_refused_readably),
      cmocka_unit_test(test_broken_body),
      cmocka_unit_test(test_connection_cap),
      cmocka_unit_test(test_no_descriptors_left),
      cmocka_unit_test(test_leaving_is_noticed),
      cmocka_unit_test(test_bytes_before_leaving),
      cmocka_unit_test(test_writing_to_a_client_that_left),
      cmocka_unit_test(test_end_wins_over_gone),
      cmocka_unit_test(test_head_deadline),
      cmocka_unit_test(test_head_deadline_on_a_kept_connection),
      cmocka_unit_test(test_keep_alive_deadline),
      cmocka_unit_test(test_body_deadline),
      cmocka_unit_test(test_write_deadline),
      cmocka_unit_test(test_abort_never_looks_whole),
      cmocka_unit_test(test_wrong_lengths),
      cmocka_unit_test(test_end_without_start),
      cmocka_unit_test(test_drain),
      cmocka_unit_test(test_free_with_open_requests),
      cmocka_unit_test(test_addresses),
      cmocka_unit_test(test_virtual_loop_is_refused),
      cmocka_unit_test(test_unix_socket),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
