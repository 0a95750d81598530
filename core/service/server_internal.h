/*
 * server_internal.h: what the files of the HTTP server share. Nobody else includes it.
 *
 *   server_listen.c      addresses and listening sockets
 *   server.c             the server: accepting, draining, freeing
 *   server_connection.c  one connection: requests, deadlines, closing
 *   server_io.c          its bytes, in and out
 *   server_tls.c         the same over TLS
 *   server_reply.c       one reply: head, framing, the pry_reply_ functions
 *
 * A connection has one libevent event, edge-triggered for reading, writing and closing, added once and never
 * changed. So a request costs no epoll_ctl, reading is paused by simply not reading, and no kind of leaving
 * goes unseen: libevent reports a reset (EPOLLERR) to readers and writers only, never as EV_CLOSED, so
 * watching EV_CLOSED alone would both miss it and spin. The price is that we must remember what was reported
 * (`readable`, `peer_closed`), because it is not reported twice.
 *
 * Everything that may call a handler or free the connection happens in a run of it (connection_run()) or
 * in pry_server_free(), never in a pry_reply_ function: those change state and ask for a run.
 */
#ifndef PRY_SERVER_INTERNAL_H
#define PRY_SERVER_INTERNAL_H

#include "server.h"

#include "../engine/list.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netinet/in.h>
#include <sys/stat.h>

enum {
  PRY_SERVER_READ_SIZE = 64 * 1024,         /* bytes of one read, and the most that a connection can leave unparsed */
  PRY_SERVER_READS_PER_RUN = 4,             /* then it is the turn of others */
  PRY_SERVER_DISCARD_MAX = 256 * 1024,      /* bytes of an unwanted body read to keep a connection */
  PRY_SERVER_LINGER_MAX = 16 * 1024 * 1024, /* bytes read and dropped so that a client can see why we close */
  PRY_SERVER_ADDRESS_MAX = 128
};

struct pry_server_socket {
  int fd;
  char address[PRY_SERVER_ADDRESS_MAX]; /* as pry_server_address() says it */
  const char *unix_path;                /* in address; NULL for TCP */
  dev_t device;                         /* of the socket file, so that we remove ours and no successor's */
  ino_t inode;
  bool adopted; /* a duplicate: others listen on the same socket */
};

/* Takes a duplicate of a socket that listens already. False: `error` says why. `name`: what to call it; may be NULL. */
bool pry_server_socket_adopt(struct pry_server_socket *listening, int fd, const char *name, char *error,
                             size_t error_size);

/* Who else may bind a TCP address: nobody; whoever joins; and joining. */
enum pry_share { PRY_SHARE_NOT, PRY_SHARE_BEGIN, PRY_SHARE_JOIN };

/* Opens, binds and listens, non-blocking. False: `error` says why. */
bool pry_server_socket_open(struct pry_server_socket *listening, const char *address, enum pry_share share, char *error,
                            size_t error_size);

/* Closes it, and removes the socket file when it is still ours. Safe to call twice. */
void pry_server_socket_close(struct pry_server_socket *listening);

enum pry_connection_phase {
  PRY_CONNECTION_READING, /* waits for a head, or for the rest of it */
  PRY_CONNECTION_BODY,    /* the handler gets the body */
  PRY_CONNECTION_ANSWER,  /* the request is complete, the reply is not */
  PRY_CONNECTION_DISCARD, /* the reply is complete, the request's body is not */
  PRY_CONNECTION_FLUSH,   /* no more requests: closes when the output is out */
  PRY_CONNECTION_LINGER   /* our side is closed: reads and drops, so that no reset eats what the client has not read */
};

struct pry_exchange {
  struct pry_server_request request;
  void *user;
  bool open;       /* the handler knows it and owes an end */
  bool started;    /* the head is in the output */
  bool overrun;    /* more bytes than announced */
  bool bodiless;   /* HEAD, 204, 304: the body is dropped */
  bool chunked;    /* framing of the reply; neither chunked nor a length: until close */
  bool keep_alive; /* what the reply says about the connection */
  bool wants_writable;
  bool held;          /* the handler does not want body bytes now */
  bool continue_owed; /* the client waits for 100 before it sends the body */
  int64_t body_left;  /* bytes still to come of an announced length, else -1 */
};

struct pry_connection {
  struct pry_list link;
  struct pry_server *server;
  int fd;
  enum pry_connection_phase phase;
  struct event event;
  struct pry_timer read_timer, write_timer;
  struct pry_timer turn_timer; /* goes on after other connections had their turn */
  pry_time read_deadline;  /* PRY_TIME_NEVER: none; the timer may be running all the same, see set_read_deadline() */
  pry_time body_until;     /* when the whole body must be here */
  pry_time body_due;       /* when it falls too far behind the rate; moves with every byte */
  pry_time held_at;        /* both stand still from here on, while held */
  pry_time write_progress; /* when the client last took a byte while output waited */
  struct pry_http1_parser parser;
  struct pry_buffer input; /* read but not parsed; empty unless the client pipelines or the handler holds the body */
  size_t input_taken;      /* bytes at its front that are parsed */
  struct evbuffer *output;
  size_t dropped;     /* bytes discarded, or read while lingering */
  struct ssl_st *tls; /* NULL: plain, from the beginning or for the rest of its life */
  struct pry_address_place place;
  bool head_begun;    /* the deadline for the head is running */
  bool readable;      /* there may be something to read, in the socket or in TLS */
  bool drained;       /* nothing is left in the socket */
  bool peer_closed;   /* the client closed its side, or all */
  bool cut;           /* what the client has must not look whole */
  bool goodbye_waits; /* close_notify does not fit into the socket yet */
  bool broken;        /* of no further use, not even for output */
  bool reset;         /* close with RST */
  bool linger;        /* unread input may be under way */
  bool more_events;   /* the parser has events that need no input */
  char peer[INET6_ADDRSTRLEN];
  struct pry_exchange exchange;
};

struct pry_server {
  struct pry_loop *loop;
  struct pry_server_options options; /* defaults filled in */
  struct pry_http1_limits limits;
  const struct pry_server_ops *ops;
  void *user;
  struct pry_server_socket socket;
  struct event accept_event;
  struct pry_timer accept_timer;
  struct pry_list connections;
  size_t connection_count, request_count;
  bool draining;
  struct bio_method_st *tls_method; /* with TLS: how it reads and writes our sockets */
  int64_t date_second;              /* what `date` says */
  char date[32];                    /* "Sun, 06 Nov 1994 08:49:37 GMT" */
  struct pry_buffer head;           /* of a reply, while it is put together */
  char scratch[PRY_SERVER_READ_SIZE];
};

/* Takes over fd and the place. When memory is short, fd is closed, the place given back, and that is all. */
void pry_connection_new(struct pry_server *server, int fd, const char *peer, struct pry_address_place place);

/* Closes and frees at once, with on_gone for an open request. Not from inside a handler's callback. */
void pry_connection_free(struct pry_connection *connection);

/* Asks for a run, soon, from the loop. Cannot fail. */
void pry_connection_wake(struct pry_connection *connection);

/* Draining: closes it if it is between requests. */
void pry_connection_drain(struct pry_connection *connection);

/* Bytes from the client into `bytes`. 0: none now; peer_closed, broken and readable say why and what next. */
size_t pry_connection_receive(struct pry_connection *connection, char *bytes, size_t size);

/* recv(), keeping account in `drained`; a reset found behind the bytes makes the connection broken. */
ssize_t pry_connection_recv(struct pry_connection *connection, char *bytes, size_t size);

/* Has a reset come that nothing else would report? */
bool pry_connection_is_reset(const struct pry_connection *connection);

/* Writes as much output as the socket takes. False: the connection is broken. */
bool pry_connection_flush(struct pry_connection *connection);

/* The client must take a byte within the write deadline. */
void pry_connection_await_writable(struct pry_connection *connection);

/* What every TLS connection of a server shares. False: memory; fini in any case. */
bool pry_server_tls_init(struct pry_server *server);
void pry_server_tls_fini(struct pry_server *server);

/* Its handshake happens while reading. False: memory. end: no goodbye; the connection is plain afterwards. */
bool pry_connection_tls_start(struct pry_connection *connection);
void pry_connection_tls_end(struct pry_connection *connection);

/* As recv() and send() of a piece of the output, with errno EAGAIN; receive sets `readable`. */
ssize_t pry_connection_tls_receive(struct pry_connection *connection, char *bytes, size_t size);
ssize_t pry_connection_tls_send(struct pry_connection *connection);

/* Sends close_notify when there is a session to end. False: try again when the socket takes more. */
bool pry_connection_tls_goodbye(struct pry_connection *connection);

/* The handshake failed and the connection is plain now: it ends. http: the client may be told in plain HTTP. */
void pry_connection_refuse_handshake(struct pry_connection *connection, bool http);

/* The reply ended: the connection goes on to the next request (keep) or closes when all output is out. */
void pry_connection_reply_ended(struct pry_connection *connection, bool keep);

/* The handler wants body bytes now, or no more. */
void pry_connection_hold_body(struct pry_connection *connection, bool held);

/* Queues a whole error reply that says Connection: close. */
void pry_reply_error(struct pry_connection *connection, int status, const char *message);

/* Queues "100 Continue". */
void pry_reply_continue(struct pry_connection *connection);

/* The whole answer to a connection too many, for a socket that never becomes a connection. Constant. */
struct pry_slice pry_reply_too_many(enum pry_address_answer answer, bool tls);

static inline struct pry_connection *pry_exchange_connection(const struct pry_exchange *exchange)
{
  return PRY_CONTAINER_OF(exchange, struct pry_connection, exchange);
}

#endif
