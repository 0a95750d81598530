#include "server_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  ACCEPTS_PER_RUN = 64,
  SHARED_ACCEPTS_PER_RUN = 4, /* of a socket with other servers on it: leave them some */
  DRAIN_ACCEPTS = 4096        /* of what waits in the backlog when it is closed */
};

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
static void turn_away(struct pry_server *server, int fd, enum pry_address_answer why)
{
  struct pry_slice answer = pry_reply_too_many(why, server->options.tls != NULL);
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

/* Out of descriptors or memory, say: the listening socket stays readable, so only a pause keeps us from spinning. */
static void pause_accepting(struct pry_server *server)
{
  if (pry_timer_start(server->loop, &server->accept_timer, ACCEPT_PAUSE, accept_again, server))
    event_del(&server->accept_event);
}

static void accept_one(struct pry_server *server, int fd, const struct sockaddr_storage *address)
{
  struct pry_address_place place = {0};
  enum pry_address_answer answer = PRY_ADDRESS_WELCOME;
  if (server->connection_count >= server->options.max_connections)
    answer = PRY_ADDRESS_TOO_MANY;
  else if (server->options.limits)
    answer = pry_address_limits_take(server->options.limits, (const struct sockaddr *)address, &place);
  if (answer != PRY_ADDRESS_WELCOME) {
    turn_away(server, fd, answer);
    return;
  }
  char peer[INET6_ADDRSTRLEN];
  format_peer(address, peer, sizeof peer);
  pry_connection_new(server, fd, peer, place);
}

/* accept(2): errors of the one connection, which then is no more. */
static bool is_of_one_connection(int code)
{
  static const int CODES[] = {ECONNABORTED, EINTR,        EPROTO,     EPERM,       ENETDOWN, ENOPROTOOPT,
                              EHOSTDOWN,    EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, ETIMEDOUT};
  for (size_t i = 0; i < sizeof CODES / sizeof *CODES; i++)
    if (CODES[i] == code)
      return true;
  return false;
}

static void accept_some(struct pry_server *server, int most)
{
  for (int i = 0; i < most; i++) {
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    int fd = accept4(server->socket.fd, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      accept_one(server, fd, &address);
    } else if (!is_of_one_connection(errno)) {
      if (errno != EAGAIN && errno != EWOULDBLOCK)
        pause_accepting(server);
      return;
    }
  }
}

static void accept_ready(evutil_socket_t listener, short what, void *user)
{
  (void)listener, (void)what;
  struct pry_server *server = user;
  bool one_socket = server->socket.adopted || (server->options.shared && server->socket.unix_path);
  accept_some(server, one_socket ? SHARED_ACCEPTS_PER_RUN : ACCEPTS_PER_RUN);
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
  if (!(options->body_deadline > 0))
    options->body_deadline = 600;
  if (!(options->body_rate > 0))
    options->body_rate = 1024;
  if (!(options->body_slack > 0))
    options->body_slack = 30;
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

static bool open_socket(struct pry_server *server, const char *address, char *error, size_t error_size)
{
  const struct pry_server_options *options = &server->options;
  if (options->listen_fd > 0)
    return pry_server_socket_adopt(&server->socket, options->listen_fd, address, error, error_size);
  if (!options->beside)
    return pry_server_socket_open(&server->socket, address, options->shared ? PRY_SHARE_BEGIN : PRY_SHARE_NOT, error,
                                  error_size);
  const struct pry_server_socket *first = &options->beside->socket;
  if (first->unix_path)
    return pry_server_socket_adopt(&server->socket, first->fd, first->address, error, error_size);
  return pry_server_socket_open(&server->socket, first->address, PRY_SHARE_JOIN, error, error_size);
}

static bool set_up_tls(struct pry_server *server, char *error, size_t error_size)
{
  if (!server->options.tls || pry_server_tls_init(server))
    return true;
  snprintf(error, error_size, "cannot listen on %s: out of memory", server->socket.address);
  return false;
}

struct pry_server *pry_server_new(struct pry_loop *loop, const char *address, const struct pry_server_options *options,
                                  const struct pry_server_ops *ops, void *user, char *error, size_t error_size)
{
  struct pry_server *server = calloc(1, sizeof *server);
  if (!server) {
    snprintf(error, error_size, "cannot listen on %s: out of memory", address ? address : "the given socket");
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
  if (open_socket(server, address, error, error_size) && set_up_tls(server, error, error_size) &&
      start_accepting(server, error, error_size))
    return server;
  pry_server_socket_close(&server->socket);
  pry_server_tls_fini(server);
  pry_buffer_fini(&server->head);
  free(server);
  return NULL;
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
  if (server->draining)
    return;
  server->draining = true;
  struct pry_list *link = server->connections.next;
  while (link != &server->connections) {
    struct pry_list *next = link->next;
    pry_connection_drain(PRY_CONTAINER_OF(link, struct pry_connection, link));
    link = next;
  }
  if (!server->socket.adopted)
    accept_some(server, DRAIN_ACCEPTS);
  stop_accepting(server);
}

void pry_server_free(struct pry_server *server)
{
  if (!server)
    return;
  stop_accepting(server);
  while (!pry_list_empty(&server->connections))
    pry_connection_free(PRY_CONTAINER_OF(server->connections.next, struct pry_connection, link));
  pry_server_tls_fini(server);
  pry_buffer_fini(&server->head);
  free(server);
}
