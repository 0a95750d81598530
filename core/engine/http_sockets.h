/*
 * http_sockets.h: curl's sockets in the event loop.
 *
 * A socket that curl opened through us stays registered for reading between two requests, which saves two
 * epoll_ctl() per request (measured: 16 to 20 % of curl's time). That is safe because closing comes through us too,
 * so a descriptor number cannot come to mean another socket unseen; and when an idle socket becomes readable (the
 * peer closed it, or sent what nobody asked for, which is remembered) it is unregistered on the spot. Sockets that
 * curl opened otherwise (its resolver's) are forgotten as soon as curl says so.
 *
 * Owner: http.c. Thread: the loop's.
 */
#ifndef PRY_HTTP_SOCKETS_H
#define PRY_HTTP_SOCKETS_H

#include "loop.h"

/* `what`: PRY_LOOP_READABLE and PRY_LOOP_WRITABLE, of what was wanted. */
typedef void (*pry_http_socket_fn)(void *user, int fd, int what);

struct pry_http_socket;

struct pry_http_sockets {
  struct pry_loop *loop;
  pry_http_socket_fn ready;
  void *user;
  struct pry_http_socket **by_fd;
  size_t capacity;
  size_t unasked_count; /* sockets with bytes that nobody wanted */
};

void pry_http_sockets_init(struct pry_http_sockets *sockets, struct pry_loop *loop, pry_http_socket_fn ready,
                           void *user);

/* Forgets all sockets; closes none. */
void pry_http_sockets_fini(struct pry_http_sockets *sockets);

/* Opens a socket, as socket(2), close-on-exec. -1: failed. */
int pry_http_sockets_open(struct pry_http_sockets *sockets, int family, int type, int protocol);

/* Forgets and closes it, whoever opened it. Returns what close(2) returns. */
int pry_http_sockets_close(struct pry_http_sockets *sockets, int fd);

/* True when bytes came on the connection from this local port while nothing was wanted of it. Costs nothing as long as
 * no peer does that. */
bool pry_http_sockets_has_unasked(const struct pry_http_sockets *sockets, int local_port);

/* From now on calls `ready` for `what`; 0: for nothing. Level-triggered. False: no memory. */
bool pry_http_sockets_want(struct pry_http_sockets *sockets, int fd, int what);

#endif
