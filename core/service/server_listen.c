#include "server_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

struct complaint {
  const char *address;
  char *text;
  size_t size;
};

static bool complain(const struct complaint *complaint, const char *problem, const char *advice)
{
  snprintf(complaint->text, complaint->size, "cannot listen on %s: %s; %s", complaint->address, problem, advice);
  return false;
}

static bool complain_errno(const struct complaint *complaint)
{
  int code = errno;
  const char *advice = "check the address and the limits of this process";
  if (code == EADDRINUSE)
    advice = "stop the other program or choose another address";
  else if (code == EADDRNOTAVAIL)
    advice = "use an address of this machine, or 127.0.0.1";
  else if (code == EACCES)
    advice = "choose a port from 1024 up or a directory this user may write to";
  else if (code == ENOENT)
    advice = "create the directory first";
  return complain(complaint, strerror(code), advice);
}

/* ---- TCP ------------------------------------------------------------------------------------------------ */

static bool parse_port(const char *text, in_port_t *port)
{
  if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 5)
    return false;
  long number = strtol(text, NULL, 10);
  *port = htons((uint16_t)number);
  return number <= 65535;
}

/* Accepted sockets inherit these from the listening one. Answers leave at once; a client whose machine vanished while it
 * waits is noticed by the kernel's probes, for it will never say goodbye. */
static void set_inherited_options(int fd)
{
  const struct {
    int level, name, value;
  } options[] = {{IPPROTO_TCP, TCP_NODELAY, 1},
                 {SOL_SOCKET, SO_KEEPALIVE, 1},
                 {IPPROTO_TCP, TCP_KEEPIDLE, 45}, /* seconds of silence, then */
                 {IPPROTO_TCP, TCP_KEEPINTVL, 15},
                 {IPPROTO_TCP, TCP_KEEPCNT, 3}};
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
}

union tcp_name {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
};

static bool parse_tcp(const char *address, union tcp_name *name, socklen_t *size)
{
  const char *colon = strrchr(address, ':');
  char host[INET6_ADDRSTRLEN + 2];
  if (!colon || (size_t)(colon - address) >= sizeof host)
    return false;
  size_t length = (size_t)(colon - address);
  memcpy(host, address, length);
  host[length] = '\0';
  *name = (union tcp_name){0};
  if (length > 2 && host[0] == '[' && host[length - 1] == ']') {
    host[length - 1] = '\0';
    name->v6.sin6_family = AF_INET6;
    *size = sizeof name->v6;
    return inet_pton(AF_INET6, host + 1, &name->v6.sin6_addr) == 1 && parse_port(colon + 1, &name->v6.sin6_port);
  }
  name->v4.sin_family = AF_INET;
  *size = sizeof name->v4;
  const char *numeric = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
  return inet_pton(AF_INET, numeric, &name->v4.sin_addr) == 1 && parse_port(colon + 1, &name->v4.sin_port);
}

static bool format_tcp(int fd, char *text, size_t size)
{
  union tcp_name name = {0};
  socklen_t length = sizeof name;
  char host[INET6_ADDRSTRLEN];
  if (getsockname(fd, &name.any, &length) < 0)
    return false;
  bool six = name.any.sa_family == AF_INET6;
  if (!inet_ntop(name.any.sa_family, six ? (void *)&name.v6.sin6_addr : (void *)&name.v4.sin_addr, host, sizeof host))
    return false;
  if (six)
    snprintf(text, size, "[%s]:%u", host, ntohs(name.v6.sin6_port));
  else
    snprintf(text, size, "%s:%u", host, ntohs(name.v4.sin_port));
  return true;
}

static bool let_share(int fd)
{
  int one = 1;
  return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) == 0;
}

/* The first binds before it lets others share: with the option set, bind() would take a port that another program of the
 * same user shares with its own workers, and get half of that one's clients. */
static bool open_tcp(struct pry_server_socket *out, enum pry_share share, const struct complaint *complaint)
{
  union tcp_name name;
  socklen_t size;
  if (!parse_tcp(complaint->address, &name, &size))
    return complain(complaint, "not an address", "write " PRY_SERVER_ADDRESS_FORM);
  out->fd = socket(name.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int one = 1;
  if (out->fd < 0 || setsockopt(out->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
      (share == PRY_SHARE_JOIN && !let_share(out->fd)) ||
      (name.any.sa_family == AF_INET6 && setsockopt(out->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) < 0) ||
      bind(out->fd, &name.any, size) < 0 || (share == PRY_SHARE_BEGIN && !let_share(out->fd)) ||
      listen(out->fd, BACKLOG) < 0 || !format_tcp(out->fd, out->address, sizeof out->address))
    return complain_errno(complaint);
  set_inherited_options(out->fd);
  return true;
}

/* ---- Unix sockets --------------------------------------------------------------------------------------- */

/* True when nobody listens behind the socket file. Non-blocking, because a full backlog would make us wait;
 * that, as any other answer than refusal, means that somebody is there. */
static bool is_stale(const struct sockaddr_un *name)
{
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return false;
  bool refused = connect(fd, (const struct sockaddr *)name, sizeof *name) < 0 && errno == ECONNREFUSED;
  close(fd);
  return refused;
}

/* The lock makes "look, remove, bind" one step among starting processes; locking the directory leaves no file. */
static int lock_directory(const char *path)
{
  char directory[sizeof((struct sockaddr_un *)0)->sun_path];
  snprintf(directory, sizeof directory, "%s", path);
  char *slash = strrchr(directory, '/');
  if (slash)
    slash[slash == directory] = '\0';
  int fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
    close(fd);
    return -1;
  }
  return fd;
}

static bool bind_unix(int fd, const struct sockaddr_un *name, const struct complaint *complaint)
{
  if (bind(fd, (const struct sockaddr *)name, sizeof *name) == 0)
    return true;
  if (errno != EADDRINUSE)
    return complain_errno(complaint);
  struct stat file;
  if (lstat(name->sun_path, &file) == 0 && !S_ISSOCK(file.st_mode))
    return complain(complaint, "the file exists and is not a socket", "choose another path or remove it");
  if (!is_stale(name))
    return complain(complaint, "a running program listens there", "stop it or choose another path");
  if ((unlink(name->sun_path) < 0 && errno != ENOENT) || bind(fd, (const struct sockaddr *)name, sizeof *name) < 0)
    return complain_errno(complaint);
  return true;
}

static bool open_unix(struct pry_server_socket *out, const char *path, const struct complaint *complaint)
{
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  if (!*path || strlen(path) >= sizeof name.sun_path)
    return complain(complaint, "the path of a unix socket has 1 to 107 bytes", "choose a shorter one");
  memcpy(name.sun_path, path, strlen(path) + 1);
  int lock = lock_directory(path);
  if (lock < 0) {
    if (errno == EWOULDBLOCK)
      return complain(complaint, "another program is starting in that directory", "try again");
    return complain_errno(complaint);
  }
  out->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct stat file;
  /* Linux gives the file the mode of the unbound socket: it is never open to others, not even for a moment,
   * and the process's umask, which other threads share, is left alone. Listening under the lock keeps a
   * second starter from taking a bound socket for a stale one. */
  bool bound = out->fd >= 0 && fchmod(out->fd, 0600) == 0;
  if (!bound)
    complain_errno(complaint);
  bound = bound && bind_unix(out->fd, &name, complaint);
  if (bound && (listen(out->fd, BACKLOG) < 0 || lstat(path, &file) < 0)) {
    complain_errno(complaint);
    unlink(path);
    bound = false;
  }
  close(lock);
  if (!bound)
    return false;
  out->device = file.st_dev;
  out->inode = file.st_ino;
  snprintf(out->address, sizeof out->address, "unix:%s", path);
  out->unix_path = out->address + strlen("unix:");
  return true;
}

/* ---- Sockets that listen already ------------------------------------------------------------------------ */

static bool format_unix(int fd, char *text, size_t size)
{
  struct sockaddr_un name = {0};
  socklen_t length = sizeof name;
  if (getsockname(fd, (struct sockaddr *)&name, &length) < 0)
    return false;
  size_t start = offsetof(struct sockaddr_un, sun_path);
  size_t bytes = length > start ? length - start : 0;
  if (bytes > sizeof name.sun_path)
    bytes = sizeof name.sun_path;
  if (bytes && !name.sun_path[0])
    snprintf(text, size, "unix:@%.*s", (int)bytes - 1, name.sun_path + 1);
  else
    snprintf(text, size, "unix:%.*s", (int)bytes, name.sun_path);
  return true;
}

static bool listens(int fd)
{
  int type = 0, accepts = 0;
  socklen_t size = sizeof type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM &&
         getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) == 0 && accepts;
}

bool pry_server_socket_adopt(struct pry_server_socket *listening, int fd, const char *name, char *error,
                             size_t error_size)
{
  char description[32];
  snprintf(description, sizeof description, "descriptor %d", fd);
  struct complaint complaint = {name ? name : description, error, error_size};
  *listening = (struct pry_server_socket){.fd = -1, .adopted = true};
  struct sockaddr_storage bound = {0};
  socklen_t size = sizeof bound;
  if (!listens(fd))
    return complain(&complaint, "the given descriptor is no stream socket that listens",
                    "pass one on which listen() was called");
  int flags = fcntl(fd, F_GETFL);
  listening->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (listening->fd >= 0 && flags >= 0 && fcntl(listening->fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
      getsockname(fd, (struct sockaddr *)&bound, &size) == 0) {
    bool is_unix = bound.ss_family == AF_UNIX;
    if (!is_unix)
      set_inherited_options(fd);
    if (is_unix ? format_unix(fd, listening->address, sizeof listening->address)
                : format_tcp(fd, listening->address, sizeof listening->address))
      return true;
  }
  complain_errno(&complaint);
  pry_server_socket_close(listening);
  return false;
}

/* ---- Both ----------------------------------------------------------------------------------------------- */

bool pry_server_address_is_valid(const char *address)
{
  union tcp_name name;
  socklen_t size;
  return strncmp(address, "unix:", 5) == 0 ? address[5] != '\0' : parse_tcp(address, &name, &size);
}

bool pry_server_socket_open(struct pry_server_socket *listening, const char *address, enum pry_share share, char *error,
                            size_t error_size)
{
  struct complaint complaint = {address, error, error_size};
  *listening = (struct pry_server_socket){.fd = -1};
  bool is_unix = strncmp(address, "unix:", 5) == 0;
  if (is_unix ? open_unix(listening, address + 5, &complaint) : open_tcp(listening, share, &complaint))
    return true;
  pry_server_socket_close(listening);
  return false;
}

void pry_server_socket_close(struct pry_server_socket *listening)
{
  struct stat file;
  if (listening->unix_path && lstat(listening->unix_path, &file) == 0 && file.st_dev == listening->device &&
      file.st_ino == listening->inode)
    unlink(listening->unix_path);
  listening->unix_path = NULL;
  if (listening->fd >= 0)
    close(listening->fd);
  listening->fd = -1;
}
