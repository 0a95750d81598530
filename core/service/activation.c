#include "activation.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST = 3, SOCKETS_MAX = 64, NAME_MAX_SIZE = 256 };

struct taking {
  struct pry_activation *activation;
  char *error;
  size_t error_size;
};

/* One descriptor as it was passed. */
struct passed {
  int fd;
  char name[NAME_MAX_SIZE];
};

static bool complain(const struct taking *taking, const struct passed *passed, const char *what, const char *cure)
{
  snprintf(taking->error, taking->error_size, "socket activation: descriptor %d (%s) %s; %s", passed->fd,
           passed->name[0] ? passed->name : "no name", what, cure);
  return false;
}

/* Digits only: what is in the environment may be anybody's. */
static bool parse_number(const char *text, long max, long *number)
{
  if (!text || !*text || strlen(text) > 10 || strspn(text, "0123456789") != strlen(text))
    return false;
  *number = strtol(text, NULL, 10);
  return *number <= max;
}

/* ---- one socket --------------------------------------------------------------------------------------------- */

static bool make_ours(const struct taking *taking, const struct passed *passed)
{
  int descriptor = fcntl(passed->fd, F_GETFD), status = fcntl(passed->fd, F_GETFL);
  if (descriptor < 0 || status < 0 || fcntl(passed->fd, F_SETFD, descriptor | FD_CLOEXEC) < 0 ||
      fcntl(passed->fd, F_SETFL, status | O_NONBLOCK) < 0)
    return complain(taking, passed, strerror(errno), "LISTEN_FDS counts more descriptors than there are");
  return true;
}

static bool check_kind(const struct taking *taking, const struct passed *passed)
{
  int type = 0, listening = 0;
  socklen_t type_size = sizeof type, listening_size = sizeof listening;
  if (getsockopt(passed->fd, SOL_SOCKET, SO_TYPE, &type, &type_size) < 0)
    return complain(taking, passed, "is not a socket", "write ListenStream= in the .socket unit");
  if (type != SOCK_STREAM)
    return complain(taking, passed, "is not a stream socket", "write ListenStream= in the .socket unit");
  if (getsockopt(passed->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &listening_size) < 0 || !listening)
    return complain(taking, passed, "does not listen", "write Accept=no in the .socket unit");
  return true;
}

static bool describe(int fd, char *text, size_t size)
{
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
    struct sockaddr_storage room;
  } name = {0};
  socklen_t length = sizeof name;
  char host[INET6_ADDRSTRLEN] = "";
  if (getsockname(fd, &name.any, &length) < 0)
    return false;
  if (name.any.sa_family == AF_INET)
    snprintf(text, size, "%s:%u", inet_ntop(AF_INET, &name.v4.sin_addr, host, sizeof host), ntohs(name.v4.sin_port));
  else if (name.any.sa_family == AF_INET6)
    snprintf(text, size, "[%s]:%u", inet_ntop(AF_INET6, &name.v6.sin6_addr, host, sizeof host),
             ntohs(name.v6.sin6_port));
  else if (name.any.sa_family == AF_UNIX)
    snprintf(text, size, "unix:%.*s", (int)sizeof name.local.sun_path,
             name.local.sun_path[0] ? name.local.sun_path : "@");
  else
    return false;
  return true;
}

static struct pry_activated_socket *place_for(const struct taking *taking, const struct passed *passed)
{
  const char *name = passed->name;
  size_t length = strlen(name);
  bool unnamed = !length || strcmp(name, "unknown") == 0 || (length > 7 && strcmp(name + length - 7, ".socket") == 0);
  if (unnamed || strcmp(name, "gateway") == 0)
    return &taking->activation->gateway;
  if (strcmp(name, "admin") == 0)
    return &taking->activation->admin;
  complain(taking, passed, "has a name that parry does not know",
           "write FileDescriptorName=gateway or FileDescriptorName=admin in its .socket unit");
  return NULL;
}

static bool take_socket(const struct taking *taking, const struct passed *passed)
{
  struct pry_activated_socket *place = place_for(taking, passed);
  if (!place || !check_kind(taking, passed))
    return false;
  if (place->fd >= 0)
    return complain(taking, passed,
                    place == &taking->activation->admin ? "is a second admin socket" : "is a second gateway socket",
                    "keep one ListenStream= for each, and name the admin one FileDescriptorName=admin");
  if (!describe(passed->fd, place->address, sizeof place->address))
    return complain(taking, passed, "is neither a TCP nor a unix socket",
                    "write ListenStream= with an address or path");
  place->fd = passed->fd;
  return true;
}

/* ---- all of them ---------------------------------------------------------------------------------------------- */

/* Copies the first of the names that ':' separates and moves *names behind it. */
static void next_name(const char **names, char name[NAME_MAX_SIZE])
{
  size_t length = *names ? strcspn(*names, ":") : 0;
  snprintf(name, NAME_MAX_SIZE, "%.*s", (int)(length < NAME_MAX_SIZE ? length : NAME_MAX_SIZE - 1),
           *names ? *names : "");
  if (*names)
    *names = (*names)[length] ? *names + length + 1 : NULL;
}

static bool take_all(const struct taking *taking, long count, const char *names)
{
  bool ok = true;
  for (long i = 0; i < count; i++) {
    struct passed passed = {.fd = FIRST + (int)i};
    next_name(&names, passed.name);
    ok = make_ours(taking, &passed) && ok; /* all of them, whatever is wrong with one: none may leak into a child */
    ok = ok && take_socket(taking, &passed);
  }
  return ok;
}

bool pry_activation_take(struct pry_activation *activation, char *error, size_t error_size)
{
  *activation = (struct pry_activation){.gateway = {.fd = -1}, .admin = {.fd = -1}};
  struct taking taking = {activation, error, error_size};
  const char *count_text = getenv("LISTEN_FDS");
  long pid = 0, count = 0;
  bool ok = true;
  bool ours = parse_number(getenv("LISTEN_PID"), 0x7fffffff, &pid) && pid == (long)getpid() && count_text;
  if (ours && !parse_number(count_text, SOCKETS_MAX, &count)) {
    snprintf(error, error_size, "socket activation: LISTEN_FDS is not a number up to %d; see the .socket unit",
             SOCKETS_MAX);
    ok = false;
  }
  ok = ok && take_all(&taking, count, getenv("LISTEN_FDNAMES"));
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDS");
  unsetenv("LISTEN_FDNAMES");
  return ok;
}
