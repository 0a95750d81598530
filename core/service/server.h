/*
 * server.h: the HTTP/1.1 server that gateway, admin and sim stand on.
 *
 * Puts the strict parser http1.h on libevent's loop. Knows HTTP and nothing of providers, policies
 * or dialects. One server = one listening address on one loop; many may share a loop.
 *
 * A request lives from on_head to exactly one of: the handler finishing it (pry_reply_end, pry_reply_abort),
 * or on_gone. The order of callbacks is
 *
 *     on_head → on_body … → on_end → (on_writable …) → [on_gone]
 *
 * on_gone may come at any time after on_head while the reply is unfinished: the client closed, reset or
 * half-closed its connection, broke the protocol in its body, or stayed silent past a deadline. After on_gone,
 * pry_reply_end or pry_reply_abort the request must not be used. on_gone is never made from inside a
 * pry_reply_ call; a handler may reply from inside any callback.
 *
 * What the server does by itself:
 *   - 400/413/414/417/431/501/503/505 for what http1.h refuses, 408 for a request that stops half-way, each with a
 *     JSON body; then it closes, so that the client can still read why
 *   - head deadline (slowloris: counts from the first byte of the head, or from accept, TLS handshake included), body
 *     deadlines (silence, rate and total), idle keep-alive deadline, write-progress deadline for a client that never
 *     reads
 *   - at most max_connections here, and what server_limits.h says for all servers together and for one client address;
 *     more are accepted, told 503 or 429 (over TLS: an alert) and closed at once
 *   - Expect: 100-continue (sends 100 when the handler takes the body), HEAD and 204/304 without body,
 *     HTTP/1.0 without chunking, keep-alive, pipelined requests one after the other
 *   - watches for the client's leaving (EPOLLRDHUP) while a request is open, so that on_gone comes within
 *     milliseconds although nothing is being read; half-close counts as leaving
 *   - bounded reading: while the handler does not want body bytes (pry_reply_hold_body), or owes the reply to a
 *     complete request, at most 64 KiB is kept per connection and nothing more is read from the socket
 *   - output high-water mark: pry_reply_write() says when to pause; on_writable when to go on
 *   - TLS (tls.h), with every promise above: the client's close_notify is its leaving just as a half-close is. To see it,
 *     up to 64 KiB are read ahead also while nobody wants them. Our close_notify ends what ends whole, and nothing else
 *   - a client whose machine vanished is noticed after 90 s, by TCP's keep-alive probes
 *   - out of descriptors or memory it stops accepting for a moment, and goes on without losing who waits in the backlog
 *
 * Not seen is the leaving of a client that has filled our receive window with bytes we do not read (a held body, a flood
 * behind a request): its FIN waits behind them, on its own machine, unless it resets. That costs one descriptor and at
 * most 64 KiB until the handler reads on or ends.
 *
 * Thread: the loop's.
 */
#ifndef PRY_SERVER_H
#define PRY_SERVER_H

#include "headers.h"
#include "http1.h"
#include "loop.h"
#include "server_limits.h"
#include "tls.h"

struct pry_server;
struct pry_exchange; /* one request and its reply */

/* What a client asked. Valid until the request ends. */
struct pry_server_request {
  struct pry_slice method;
  struct pry_slice target; /* origin form: path and query as sent; an absolute form is already stripped */
  struct pry_slice path;   /* the target before '?' */
  struct pry_slice query;  /* after '?', without it; empty when there is none */
  int version_minor;       /* HTTP/1.x */
  const struct pry_headers *headers;
  bool has_body;
  int64_t content_length; /* -1: chunked */
  const char *peer;       /* numeric address of the client, "unix" for unix sockets */
  bool secure;            /* came over TLS */
};

struct pry_server_ops {
  /* A head arrived. Returns the request's user pointer, given to the other callbacks. The handler may reply
   * at once; the rest of the body is then read and thrown away within bounds, or the connection closed. */
  void *(*on_head)(void *server_user, struct pry_exchange *exchange, const struct pry_server_request *request);
  /* Some body bytes; valid during the call. */
  void (*on_body)(void *user, struct pry_slice data);
  /* The request is complete (comes at once after on_head when there is no body). */
  void (*on_end)(void *user);
  /* Output fell below the low-water mark after pry_reply_write() had said false. May be NULL. */
  void (*on_writable)(void *user);
  /* The client is gone; see above. */
  void (*on_gone)(void *user);
};

struct pry_server_options {
  size_t max_body;                   /* bytes; more is 413; 0: 64 MiB */
  unsigned max_connections;          /* 0: 10000 */
  double head_deadline;              /* seconds; 0: 10 */
  double body_idle;                  /* seconds without a body byte; 0: 30 */
  double body_deadline;              /* seconds for one whole body, held time apart; 0: 600 */
  double body_rate;                  /* bytes per second that a body must bring in the long run; 0: 1024 */
  double body_slack;                 /* seconds that it may fall behind body_rate, at its beginning too; 0: 30 */
  double keep_alive;                 /* seconds between requests; 0: 75 */
  double write_idle;                 /* seconds without a byte taken by the client while output waits; 0: 60 */
  size_t output_high;                /* bytes of output at which pry_reply_write() says false; 0: 256 KiB */
  bool shared;                       /* other servers of this process (one per worker) will listen beside this one */
  const struct pry_server *beside;   /* listen where that one, which is `shared`, does; see below. NULL: by itself */
  int listen_fd;                     /* above 0: listen on this socket instead of an address; see below */
  struct pry_tls *tls;               /* speak TLS with it; borrowed, must outlive the server; NULL: plain */
  struct pry_address_limits *limits; /* counted in it; borrowed, must outlive the server; NULL: none */
};

/* One socket for several servers. listen_fd is a stream socket, TCP or unix, that listens already: from a service
 * manager, or opened once for all workers. Each server duplicates it (so the caller may close it, and must, at the latest
 * when all have been freed), makes it non-blocking, and never removes a socket file. All waiting servers wake for a
 * client and one gets it: libevent 2.1 cannot ask for EPOLLEXCLUSIVE, so each takes a few per turn and leaves the rest to
 * others. The `address` given to pry_server_new() is then only what messages call it, and may be NULL.
 *
 * One address for several servers. The first is `shared`, the others are `beside` it, and need no address. On TCP each has
 * a socket of its own (SO_REUSEPORT), among which the kernel spreads clients; on a unix socket they share the first one's,
 * as above. Only servers beside it join: to another program, `shared` or not, the address is in use.
 *
 * Draining: an address of its own is closed only after whoever waits in its backlog was accepted, because the kernel
 * would reset them; with listen_fd they are left to the other servers. */

/* Is it written as an address that pry_server_new() takes, whether or not anybody could listen there? */
bool pry_server_address_is_valid(const char *address);

/* What such an address looks like, for messages: "a numeric ADDRESS:PORT such as …". */
#define PRY_SERVER_ADDRESS_FORM "a numeric ADDRESS:PORT such as 127.0.0.1:8420 or [::1]:8420, or unix:PATH"

/* Listens on "ADDR:PORT", "[V6]:PORT" or "unix:PATH" (made with mode 0600; a stale socket of a dead process
 * is replaced, a live one is an error). Port 0 lets the kernel choose. NULL: failed, and `error` (of error_size)
 * says what, where and what to do. */
struct pry_server *pry_server_new(struct pry_loop *loop, const char *address, const struct pry_server_options *options,
                                  const struct pry_server_ops *ops, void *user, char *error, size_t error_size);

/* The real address: "127.0.0.1:43117" or "unix:PATH". */
const char *pry_server_address(const struct pry_server *server);

/* Stops accepting; open requests go on, idle connections are closed, replies say Connection: close. Who is in the
 * backlog of a socket of our own is still let in, for one request. */
void pry_server_drain(struct pry_server *server);

/* Connections and requests open now. */
size_t pry_server_connection_count(const struct pry_server *server);
size_t pry_server_request_count(const struct pry_server *server);

/* Closes everything (on_gone for each open request) and frees. NULL is fine. Not from inside a callback. */
void pry_server_free(struct pry_server *server);

/* Starts the reply. body_size: bytes to come, or -1 for not known (chunked; HTTP/1.0: until close).
 * Hop-by-hop fields, Content-Length and Date are the server's and are dropped from `headers` (may be NULL).
 * False: memory; the connection is then closed and on_gone follows later. */
bool pry_reply_start(struct pry_exchange *exchange, int status, const struct pry_headers *headers, int64_t body_size);

/* Adds body bytes (copied). False: above the high-water mark (the bytes were taken all the same): pause until
 * on_writable. More bytes than announced are dropped and end in an abort. */
bool pry_reply_write(struct pry_exchange *exchange, struct pry_slice data);

/* The reply is complete. With fewer bytes than announced the connection is closed. */
void pry_reply_end(struct pry_exchange *exchange);

/* Breaks the connection without a clean end: what the client has must not look whole. Output already
 * accepted is flushed first where possible. */
void pry_reply_abort(struct pry_exchange *exchange);

/* Sends these bytes in place of a reply, as they are, and closes. For the fault simulator. */
void pry_reply_raw(struct pry_exchange *exchange, struct pry_slice bytes);

/* start, write and end in one, with Content-Length. content_type may be NULL. */
void pry_reply_text(struct pry_exchange *exchange, int status, const char *content_type, struct pry_slice body);

/* While held, no body bytes are delivered or read and the body deadline stands still; the client feels it as a full
 * pipe. For a handler whose own output is slower than the client. */
void pry_reply_hold_body(struct pry_exchange *exchange, bool held);

/* True once pry_reply_start() was called. */
bool pry_reply_started(const struct pry_exchange *exchange);

#endif
