/*
 * wire.h: the other end of loopback connections: clients and a small provider, on the loop under test's own thread.
 *
 * All of it is quiet (fail.h): only what is tested fails. Sockets are non-blocking and looked at between two turns of the
 * loop. Header only.
 */
#ifndef PRY_OOM_WIRE_H
#define PRY_OOM_WIRE_H

#include "fail.h"
#include "loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { WIRE_TEXT_MAX = 64 * 1024 };

/* How long something that should come is waited for, and how long something that may have been made to fail. */
#define WIRE_PATIENCE (8 * PRY_SECOND)
#define WIRE_DOUBT (4 * PRY_MILLISECOND)

struct wire {
  int fd;
  char text[WIRE_TEXT_MAX]; /* what came; NUL behind it; what does not fit is only counted */
  size_t size, total;
  bool closed;
};

static inline uint16_t wire_port(const char *address)
{
  return htons((uint16_t)atoi(strrchr(address, ':') + 1));
}

/* Connects to "127.0.0.1:PORT" or "unix:PATH". The kernel accepts, whatever the server does. */
static inline void wire_open(struct wire *wire, const char *address)
{
  fail_quiet();
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_un un = {.sun_family = AF_UNIX};
  bool local = strncmp(address, "unix:", 5) == 0;
  wire->size = wire->total = 0;
  wire->closed = false;
  wire->fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  FAIL_CHECK(wire->fd >= 0);
  if (local)
    snprintf(un.sun_path, sizeof un.sun_path, "%s", address + 5);
  else
    in.sin_port = wire_port(address);
  FAIL_CHECK(
      connect(wire->fd, local ? (struct sockaddr *)&un : (struct sockaddr *)&in, local ? sizeof un : sizeof in) == 0);
  fcntl(wire->fd, F_SETFL, O_NONBLOCK);
  fail_loud();
}

static inline void wire_close(struct wire *wire)
{
  fail_quiet();
  if (wire->fd >= 0)
    close(wire->fd);
  wire->fd = -1;
  fail_loud();
}

static inline void wire_say(struct wire *wire, const char *text)
{
  fail_quiet();
  (void)!send(wire->fd, text, strlen(text), MSG_NOSIGNAL);
  fail_loud();
}

/* Takes what has come. */
static inline void wire_hear(struct wire *wire)
{
  static char piece[WIRE_TEXT_MAX];
  fail_quiet();
  ssize_t got = 1;
  while (!wire->closed && got > 0) {
    got = recv(wire->fd, piece, sizeof piece, MSG_DONTWAIT);
    wire->closed = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
    size_t fits = got > 0 ? (size_t)got : 0;
    wire->total += fits;
    if (fits > sizeof wire->text - 1 - wire->size)
      fits = sizeof wire->text - 1 - wire->size;
    memcpy(wire->text + wire->size, piece, fits);
    wire->size += fits;
  }
  wire->text[wire->size] = '\0';
  fail_loud();
}

static inline bool wire_has(const struct wire *wire, const char *part)
{
  return strstr(wire->text, part) != NULL;
}

/* Turns the loop until `condition` holds or the connection is closed: for long when all goes well, for a moment only when
 * something has been made to fail. */
#define WIRE_UNTIL(loop, wire, condition)                                                                              \
  do {                                                                                                                 \
    pry_time wire_started = pry_loop_now(loop);                                                                        \
    for (wire_hear(wire); !(wire)->closed && !(condition); wire_hear(wire)) {                                          \
      pry_time wire_waited = pry_loop_now(loop) - wire_started;                                                        \
      if (fail_struck() && wire_waited > WIRE_DOUBT)                                                                   \
        break;                                                                                                         \
      FAIL_CHECK(wire_waited < WIRE_PATIENCE);                                                                         \
      pry_loop_turn(loop, PRY_MILLISECOND);                                                                            \
    }                                                                                                                  \
  } while (0)

/* The same when nothing fails any more: it must hold, or the connection end. */
#define WIRE_ENDS(loop, wire, condition)                                                                               \
  do {                                                                                                                 \
    pry_time wire_started = pry_loop_now(loop);                                                                        \
    for (wire_hear(wire); !(wire)->closed && !(condition); wire_hear(wire)) {                                          \
      FAIL_CHECK(pry_loop_now(loop) - wire_started < WIRE_PATIENCE);                                                   \
      pry_loop_turn(loop, PRY_MILLISECOND);                                                                            \
    }                                                                                                                  \
  } while (0)

/* ---- a provider: answers what stands in `answers`, one text per request, the last one again and again ------------ */

enum { WIRE_PEERS = 16 };

struct wire_provider {
  int fd;
  char address[32];
  const char *const *answers; /* NULL-ended */
  size_t answered;
  struct wire peers[WIRE_PEERS];
};

static inline void wire_provider_open(struct wire_provider *provider, const char *const *answers)
{
  fail_quiet();
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof in;
  provider->answers = answers;
  provider->answered = 0;
  provider->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  FAIL_CHECK(bind(provider->fd, (struct sockaddr *)&in, sizeof in) == 0 && listen(provider->fd, 64) == 0);
  FAIL_CHECK(getsockname(provider->fd, (struct sockaddr *)&in, &size) == 0);
  snprintf(provider->address, sizeof provider->address, "127.0.0.1:%u", ntohs(in.sin_port));
  for (int i = 0; i < WIRE_PEERS; i++)
    provider->peers[i].fd = -1;
  fail_loud();
}

static inline void wire_provider_answer(struct wire_provider *provider, struct wire *peer)
{
  wire_hear(peer);
  const char *end = strstr(peer->text, "\r\n\r\n");
  const char *length = strstr(peer->text, "Content-Length: ");
  size_t body = length && length < end ? (size_t)atol(length + 16) : 0;
  if (end && peer->size >= (size_t)(end + 4 - peer->text) + body) {
    const char *answer = provider->answers[provider->answered];
    provider->answered += provider->answers[provider->answered + 1] != NULL;
    peer->size = 0;
    wire_say(peer, answer);
    if (strstr(answer, "Connection: close"))
      wire_close(peer);
  } else if (peer->closed) {
    wire_close(peer);
  }
}

/* To be called between two turns. */
static inline void wire_provider_serve(struct wire_provider *provider)
{
  fail_quiet();
  for (int i = 0; i < WIRE_PEERS; i++) {
    struct wire *peer = &provider->peers[i];
    if (peer->fd < 0) {
      peer->fd = accept4(provider->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
      peer->size = peer->total = 0;
      peer->closed = false;
    }
    if (peer->fd >= 0)
      wire_provider_answer(provider, peer);
  }
  fail_loud();
}

static inline void wire_provider_close(struct wire_provider *provider)
{
  fail_quiet();
  for (int i = 0; i < WIRE_PEERS; i++)
    wire_close(&provider->peers[i]);
  close(provider->fd);
  fail_loud();
}

#endif
