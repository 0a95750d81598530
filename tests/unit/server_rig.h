/*
 * server_rig.h: an HTTP server on a real socket, a handler that does what the path says, and clients that are
 * non-blocking sockets driven from the server's own loop. For the tests of server.h.
 *
 * With SERVER_RIG_TLS defined before it is included, everything is over TLS: the server has a certificate, and the
 * client_ functions speak TLS. So the same tests run twice.
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
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CALLS_MAX = 512, STREAM_PIECE = 16 * 1024 };

#define PATIENCE (5 * PRY_SECOND)

#ifdef SERVER_RIG_TLS
#include "tls_rig.h"
enum { OVER_TLS = 1 };
#else
enum { OVER_TLS = 0 };
#endif

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
#ifdef SERVER_RIG_TLS
  struct tls_files files;
  struct pry_tls *tls;
#endif
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

/* ---- Clients' sockets ------------------------------------------------------------------------------------ */

static inline bool turn(struct bench *b, pry_time started)
{
  pry_loop_turn(b->loop, 2 * PRY_MILLISECOND);
  return pry_loop_now(b->loop) - started < PATIENCE;
}

#ifdef SERVER_RIG_TLS

/* By descriptor. One bench at a time: its loop is turned while a client shakes hands. */
static SSL *tls_sessions[4096];
static struct bench *tls_bench;

static inline void client_start(struct bench *b, int fd)
{
  static SSL_CTX *context;
  tls_bench = b;
  if (!context)
    context = SSL_CTX_new(TLS_client_method());
  assert_non_null(context);
  assert_true(fd < 4096 && !tls_sessions[fd]);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  tls_sessions[fd] = SSL_new(context);
  SSL_set_fd(tls_sessions[fd], fd);
  SSL_set_connect_state(tls_sessions[fd]);
}

/* OpenSSL tells an ending once; it is kept with the session. An end without close_notify, as of a cut answer, is one. */
static const char TLS_ENDED[] = "ended", TLS_RESET[] = "reset";

static inline ssize_t tls_result(SSL *session, int result)
{
  if (result > 0)
    return result;
  int error = SSL_get_error(session, result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
    errno = EAGAIN;
    return -1;
  }
  bool eof = error == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
  bool ended = eof || error == SSL_ERROR_ZERO_RETURN;
  ERR_clear_error();
  SSL_set_app_data(session, (void *)(uintptr_t)(ended ? TLS_ENDED : TLS_RESET));
  errno = ECONNRESET;
  return ended ? 0 : -1;
}

static inline ssize_t client_send(int fd, const void *data, size_t size)
{
  SSL *session = tls_sessions[fd];
  pry_time started = pry_loop_now(tls_bench->loop);
  int result;
  while (!SSL_is_init_finished(session) && (result = SSL_do_handshake(session)) != 1) {
    if (tls_result(session, result) >= 0 || errno != EAGAIN)
      return -1;
    assert_true(turn(tls_bench, started));
  }
  size_t sent = 0; /* as much as goes, like send() */
  ssize_t more = 0;
  while (sent < size &&
         (more = tls_result(session, SSL_write(session, (const char *)data + sent, (int)(size - sent)))) > 0)
    sent += (size_t)more;
  return sent ? (ssize_t)sent : more;
}

static inline ssize_t client_recv(int fd, void *data, size_t size)
{
  SSL *session = tls_sessions[fd];
  if (SSL_get_app_data(session)) {
    errno = ECONNRESET;
    return SSL_get_app_data(session) == TLS_ENDED ? 0 : -1;
  }
  size_t got = 0;
  ssize_t more = 0;
  while (got < size && (more = tls_result(session, SSL_read(session, (char *)data + got, (int)(size - got)))) > 0)
    got += (size_t)more;
  return got ? (ssize_t)got : more;
}

static inline void client_forget(int fd)
{
  SSL_free(tls_sessions[fd]);
  tls_sessions[fd] = NULL;
}

/* TLS's own half-close, without a FIN. */
static inline void client_half_close(int fd)
{
  assert_true(SSL_shutdown(tls_sessions[fd]) >= 0);
}

static inline void client_close(int fd)
{
  client_forget(fd);
  close(fd);
}

static inline struct pry_server_options rig_options(struct bench *b, const struct pry_server_options *given)
{
  char message[256];
  struct pry_server_options options = given ? *given : (struct pry_server_options){0};
  signal(SIGPIPE, SIG_IGN); /* of OpenSSL's clients */
  tls_files_make(&b->files, "rig");
  b->tls = pry_tls_new(b->files.certificate, b->files.key, message, sizeof message);
  if (!b->tls)
    fail_msg("%s", message);
  options.tls = b->tls;
  return options;
}

static inline void rig_end(struct bench *b)
{
  pry_tls_unref(b->tls);
  tls_files_remove(&b->files);
}

#else

static inline void client_start(struct bench *b, int fd)
{
  (void)b, (void)fd;
}

static inline void client_forget(int fd)
{
  (void)fd;
}

static inline ssize_t client_send(int fd, const void *data, size_t size)
{
  return send(fd, data, size, MSG_NOSIGNAL);
}

static inline ssize_t client_recv(int fd, void *data, size_t size)
{
  return recv(fd, data, size, 0);
}

static inline void client_half_close(int fd)
{
  shutdown(fd, SHUT_WR);
}

static inline void client_close(int fd)
{
  close(fd);
}

static inline struct pry_server_options rig_options(struct bench *b, const struct pry_server_options *given)
{
  (void)b;
  return given ? *given : (struct pry_server_options){0};
}

static inline void rig_end(struct bench *b)
{
  (void)b;
}

#endif

/* ---- The bench ------------------------------------------------------------------------------------------ */

static inline void bench_start(struct bench *b, const char *address, const struct pry_server_options *options)
{
  char error[256] = "";
  memset(b, 0, sizeof *b);
  b->loop = pry_loop_new();
  assert_non_null(b->loop);
  struct pry_server_options all = rig_options(b, options);
  b->server = pry_server_new(b->loop, address, &all, &SERVER_RIG_OPS, b, error, sizeof error);
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
  rig_end(b);
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
  client_start(b, fd);
  return fd;
}

static inline void say(int fd, const char *text)
{
  assert_int_equal(client_send(fd, text, strlen(text)), strlen(text));
}

enum hearing { STILL_OPEN, ENDED, RESET };

/* Reads what there is; `text` stays NUL-terminated. */
static inline enum hearing hear(int fd, struct pry_buffer *text)
{
  char piece[64 * 1024];
  for (;;) {
    ssize_t size = client_recv(fd, piece, sizeof piece);
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
  client_forget(fd);
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
