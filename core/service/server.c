#include "server_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_PER_RUN = 64 };

#define ACCEPT_PAUSE (100 * PRY_MILLISECOND)

static void format_peer(const struct sockaddr_storage *address, char *text, size_t size)
{
  const void *host = NULL;
  if (address->ss_family == AF_INET)
    host = &((const struct sockaddr_in *)address)->sin_addr;
  else if (address->ss_family == AF_INET6)
    host = &((const struct sockaddr_in6 *)address)->sin6_addr;
  if (!host || !inet_ntop(address->ss_family, host, text, (socklen_t)size))
    snprintf(text, size, "unix");
}

/* Best effort: reading what has come keeps the close from becoming a reset that overtakes the answer. */
static void turn_away(struct pry_server *server, int fd)
{
  struct pry_slice answer = pry_reply_too_many();
  (void)!send(fd, answer.data, answer.size, MSG_NOSIGNAL | MSG_DONTWAIT);
  shutdown(fd, SHUT_WR);
  (void)!recv(fd, server->scratch, sizeof server->scratch, MSG_DONTWAIT);
  close(fd);
}

static void accept_again(void *user)
{
  struct pry_server *server = user;
  if (!server->draining && event_add(&server->accept_event, NULL) < 0)
    pry_timer_start(server->loop, &server->accept_timer, ACCEPT_PAUSE, accept_again, server);
}

/* Out of descriptors or memory: the listening socket stays readable, so only a pause keeps us from spinning. */
static void pause_accepting(struct pry_server *server)
{
  if (pry_timer_start(server->loop, &server->accept_timer, ACCEPT_PAUSE, accept_again, server))
    event_del(&server->accept_event);
}

static void accept_one(struct pry_server *server, int fd, const struct sockaddr_storage *address)
{
  if (server->connection_count >= server->options.max_connections) {
    turn_away(server, fd);
    return;
  }
  int one = 1;
  char peer[INET6_ADDRSTRLEN];
  if (address->ss_family != AF_UNIX)
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  format_peer(address, peer, sizeof peer);
  pry_connection_new(server, fd, peer);
}

static void accept_ready(evutil_socket_t listener, short what, void *user)
{
  (void)what;
  struct pry_server *server = user;
  for (int i = 0; i < ACCEPTS_PER_RUN; i++) {
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    int fd = accept4(listener, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
      accept_one(server, fd, &address);
    else if (errno == EAGAIN || errno == EWOULDBLOCK)
      return;
    else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      pause_accepting(server);
      return;
    } /* else: that client left before we came; next */
  }
}

static void set_defaults(struct pry_server_options *options)
{
  if (!options->max_body)
    options->max_body = (size_t)pry_http1_default_limits.body;
  if (!options->max_connections)
    options->max_connections = 10000;
  if (!(options->head_deadline > 0))
    options->head_deadline = 10;
  if (!(options->body_idle > 0))
    options->body_idle = 30;
  if (!(options->keep_alive > 0))
    options->keep_alive = 75;
  if (!(options->write_idle > 0))
    options->write_idle = 60;
  if (!options->output_high)
    options->output_high = 256 * 1024;
}

static bool start_accepting(struct pry_server *server, char *error, size_t error_size)
{
  struct event_base *base = pry_loop_event_base(server->loop);
  enum event_method_feature needed = EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE;
  if (!base || ((unsigned)event_base_get_features(base) & needed) != needed) {
    snprintf(error, error_size, "cannot listen on %s: the event loop has no epoll; a server needs it",
             server->socket.address);
    return false;
  }
  if (event_assign(&server->accept_event, base, server->socket.fd, EV_READ | EV_PERSIST, accept_ready, server) == 0 &&
      event_add(&server->accept_event, NULL) == 0)
    return true;
  snprintf(error, error_size, "cannot listen on %s: out of memory", server->socket.address);
  return false;
}

struct pry_server *pry_server_new(struct pry_loop *loop, const char *address, const struct pry_server_options *options,
                                  const struct pry_server_ops *ops, void *user, char *error, size_t error_size)
{
  struct pry_server *server = calloc(1, sizeof *server);
  if (!server) {
    snprintf(error, error_size, "cannot listen on %s: out of memory", address);
    return NULL;
  }
  server->loop = loop;
  server->ops = ops;
  server->user = user;
  server->date_second = -1;
  pry_list_init(&server->connections);
  if (options)
    server->options = *options;
  set_defaults(&server->options);
  server->limits = pry_http1_default_limits;
  server->limits.body = server->options.max_body;
  if (!pry_server_socket_open(&server->socket, address, server->options.share_port, error, error_size) ||
      !start_accepting(server, error, error_size)) {
    pry_server_socket_close(&server->socket);
    free(server);
    return NULL;
  }
  return server;
}

const char *pry_server_address(const struct pry_server *server)
{
  return server->socket.address;
}

size_t pry_server_connection_count(const struct pry_server *server)
{
  return server->connection_count;
}

size_t pry_server_request_count(const struct pry_server *server)
{
  return server->request_count;
}

static void stop_accepting(struct pry_server *server)
{
  if (server->socket.fd < 0)
    return;
  pry_timer_cancel(&server->accept_timer);
  event_del(&server->accept_event);
  pry_server_socket_close(&server->socket);
}

void pry_server_drain(struct pry_server *server)
{
  server->draining = true;
  stop_accepting(server);
  struct pry_list *link = server->connections.next;
  while (link != &server->connections) {
    struct pry_list *next = link->next;
    pry_connection_drain(PRY_CONTAINER_OF(link, struct pry_connection, link));
    link = next;
  }
}

void pry_server_free(struct pry_server *server)
{
  if (!server)
    return;
  stop_accepting(server);
  while (!pry_list_empty(&server->connections))
    pry_connection_free(PRY_CONTAINER_OF(server->connections.next, struct pry_connection, link));
  free(server);
}
