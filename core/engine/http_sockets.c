#include "http_sockets.h"

#include <event2/event.h>
#include <event2/event_struct.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_CAPACITY = 64 };

struct pry_http_socket {
  struct pry_http_sockets *owner;
  struct event event;
  int fd;
  int wanted;     /* by curl, now */
  int registered; /* with libevent */
  bool ours;      /* opened, and so closed, through us */
  bool unasked;   /* has bytes that came while nothing was wanted */
};

void pry_http_sockets_init(struct pry_http_sockets *sockets, struct pry_loop *loop, pry_http_socket_fn ready,
                           void *user)
{
  *sockets = (struct pry_http_sockets){.loop = loop, .ready = ready, .user = user};
}

static void unregister(struct pry_http_socket *entry)
{
  if (entry->registered)
    event_del(&entry->event);
  entry->registered = 0;
}

static void set_unasked(struct pry_http_socket *entry, bool unasked)
{
  entry->owner->unasked_count += (size_t)unasked - (size_t)entry->unasked;
  entry->unasked = unasked;
}

static void forget(struct pry_http_socket *entry)
{
  if (!entry)
    return;
  unregister(entry);
  set_unasked(entry, false);
  entry->owner->by_fd[entry->fd] = NULL;
  free(entry);
}

void pry_http_sockets_fini(struct pry_http_sockets *sockets)
{
  for (size_t i = 0; i < sockets->capacity; i++)
    forget(sockets->by_fd[i]);
  free(sockets->by_fd);
  sockets->by_fd = NULL;
  sockets->capacity = 0;
}

static bool has_bytes(int fd)
{
  char byte;
  return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Nothing is wanted of an idle connection, or while the exchange is paused: curl looks for itself when it wants the
 * socket again. It sees an end then, but up to 8.0 takes bytes for the answer to what it sends next. */
static void event_came(evutil_socket_t fd, short events, void *user)
{
  struct pry_http_socket *entry = user;
  if (!entry->wanted) {
    unregister(entry);
    set_unasked(entry, has_bytes((int)fd));
    return;
  }
  int what = (events & EV_READ ? PRY_LOOP_READABLE : 0) | (events & EV_WRITE ? PRY_LOOP_WRITABLE : 0);
  entry->owner->ready(entry->owner->user, (int)fd, what);
}

static bool register_for(struct pry_http_socket *entry, int what)
{
  if (entry->registered == what)
    return true;
  unregister(entry);
  int events = EV_PERSIST | (what & PRY_LOOP_READABLE ? EV_READ : 0) | (what & PRY_LOOP_WRITABLE ? EV_WRITE : 0);
  struct event_base *base = pry_loop_event_base(entry->owner->loop);
  if (event_assign(&entry->event, base, entry->fd, (short)events, event_came, entry) < 0 ||
      event_add(&entry->event, NULL) < 0)
    return false;
  entry->registered = what;
  return true;
}

static struct pry_http_socket *find(const struct pry_http_sockets *sockets, int fd)
{
  return (size_t)fd < sockets->capacity ? sockets->by_fd[fd] : NULL;
}

static bool reserve(struct pry_http_sockets *sockets, size_t fd)
{
  if (fd < sockets->capacity)
    return true;
  size_t capacity = sockets->capacity ? sockets->capacity : FIRST_CAPACITY;
  while (capacity <= fd)
    capacity *= 2; /* descriptors are ints: no overflow */
  struct pry_http_socket **by_fd = realloc(sockets->by_fd, capacity * sizeof(struct pry_http_socket *));
  if (!by_fd)
    return false;
  for (size_t i = sockets->capacity; i < capacity; i++)
    by_fd[i] = NULL;
  sockets->by_fd = by_fd;
  sockets->capacity = capacity;
  return true;
}

static struct pry_http_socket *add(struct pry_http_sockets *sockets, int fd, bool ours)
{
  struct pry_http_socket *entry = calloc(1, sizeof *entry);
  if (!entry || !reserve(sockets, (size_t)fd)) {
    free(entry);
    return NULL;
  }
  entry->owner = sockets;
  entry->fd = fd;
  entry->ours = ours;
  forget(sockets->by_fd[fd]);
  sockets->by_fd[fd] = entry;
  return entry;
}

int pry_http_sockets_open(struct pry_http_sockets *sockets, int family, int type, int protocol)
{
  int fd = socket(family, type | SOCK_CLOEXEC, protocol);
  if (fd < 0 || add(sockets, fd, true))
    return fd;
  close(fd);
  return -1;
}

int pry_http_sockets_close(struct pry_http_sockets *sockets, int fd)
{
  forget(find(sockets, fd));
  return close(fd);
}

static int local_port(int fd)
{
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } address = {.v6 = {0}};
  socklen_t size = sizeof address;
  if (getsockname(fd, &address.any, &size) < 0)
    return -1;
  return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

bool pry_http_sockets_has_unasked(const struct pry_http_sockets *sockets, int port)
{
  for (size_t fd = 0; sockets->unasked_count && fd < sockets->capacity; fd++)
    if (sockets->by_fd[fd] && sockets->by_fd[fd]->unasked && local_port((int)fd) == port)
      return true;
  return false;
}

static void unwant(struct pry_http_socket *entry)
{
  if (!entry)
    return;
  entry->wanted = 0;
  if (!entry->ours)
    forget(entry);
  else if (entry->registered != PRY_LOOP_READABLE)
    unregister(entry); /* an idle socket is always writable */
}

bool pry_http_sockets_want(struct pry_http_sockets *sockets, int fd, int what)
{
  struct pry_http_socket *entry = find(sockets, fd);
  if (!what) {
    unwant(entry);
    return true;
  }
  if (!entry)
    entry = add(sockets, fd, false);
  if (!entry)
    return false;
  entry->wanted = what;
  set_unasked(entry, false);
  return register_for(entry, what);
}
