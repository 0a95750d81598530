#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 16 * 1024, BACKLOG = 4096 };

noreturn void net_die(const char *format, ...)
{
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "%s: ", program_invocation_short_name);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

int64_t net_now(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void net_raise_descriptors(void)
{
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
    net_die("getrlimit: %s", strerror(errno));
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
    net_die("setrlimit: %s", strerror(errno));
}

static struct sockaddr_in loopback(unsigned port)
{
  return (struct sockaddr_in){
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void no_delay(int fd)
{
  int on = 1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
    net_die("TCP_NODELAY: %s", strerror(errno));
}

int net_listen(unsigned *port)
{
  struct sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, BACKLOG) < 0 ||
      getsockname(fd, (struct sockaddr *)&address, &size) < 0)
    net_die("cannot listen: %s", strerror(errno));
  *port = ntohs(address.sin_port);
  return fd;
}

int net_accept(int listener)
{
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED)
    net_die("accept: %s", strerror(errno));
  if (fd >= 0)
    no_delay(fd);
  return fd;
}

int net_connect(unsigned port)
{
  struct sockaddr_in address = loopback(port);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
    net_die("cannot connect to port %u: %s", port, strerror(errno));
  no_delay(fd);
  return fd;
}

void net_watch(int epoll, int operation, int fd, uint32_t events, void *user)
{
  struct epoll_event event = {.events = events, .data.ptr = user};
  if (epoll_ctl(epoll, operation, fd, &event) < 0)
    net_die("epoll_ctl: %s", strerror(errno));
}

int net_wait(int epoll, struct epoll_event *events, int64_t deadline)
{
  int64_t wait = deadline == INT64_MAX ? -1 : deadline - net_now();
  if (deadline != INT64_MAX && wait < 0)
    wait = 0;
  struct timespec left = {wait / 1000000000, wait % 1000000000};
  int count = wait > 0 ? epoll_pwait2(epoll, events, NET_EVENTS, &left, NULL) : -1;
  if (wait <= 0 || (count < 0 && errno == ENOSYS)) /* valgrind does not know the one with nanoseconds */
    count = epoll_wait(epoll, events, NET_EVENTS, wait > 0 ? (int)(wait / 1000000) + 1 : (int)wait);
  if (count < 0 && errno != EINTR)
    net_die("epoll_wait: %s", strerror(errno));
  return count > 0 ? count : 0;
}

void net_reserve(struct net_buffer *buffer, size_t size)
{
  if (buffer->capacity - buffer->size >= size)
    return;
  size_t capacity = buffer->capacity ? buffer->capacity : 512;
  while (capacity - buffer->size < size)
    capacity *= 2;
  buffer->data = realloc(buffer->data, capacity);
  if (!buffer->data)
    net_die("memory is short");
  buffer->capacity = capacity;
}

void net_append(struct net_buffer *buffer, const void *data, size_t size)
{
  net_reserve(buffer, size);
  memcpy(buffer->data + buffer->size, data, size);
  buffer->size += size;
}

void net_consume(struct net_buffer *buffer, size_t size)
{
  buffer->size -= size;
  if (buffer->size)
    memmove(buffer->data, buffer->data + size, buffer->size);
}

bool net_read(int fd, struct net_buffer *buffer)
{
  static char taken[READ_SIZE]; /* not straight into the buffer: 10,000 idle connections would hold as many pages */
  ssize_t got = recv(fd, taken, sizeof taken, 0);
  if (got < 0)
    return errno == EAGAIN || errno == EINTR;
  net_append(buffer, taken, (size_t)got);
  return got > 0;
}

int64_t net_send(int fd, const char *data, size_t size)
{
  ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
  return sent < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : sent;
}

size_t net_head_end(const struct net_buffer *buffer)
{
  const char *end = buffer->size ? memmem(buffer->data, buffer->size, "\r\n\r\n", 4) : NULL;
  return end ? (size_t)(end - buffer->data) + 4 : 0;
}

const char *net_field(const char *head, size_t size, const char *name)
{
  size_t length = strlen(name);
  const char *end = head + size;
  for (const char *line = memchr(head, '\n', size); line && end - ++line > (ptrdiff_t)length;
       line = memchr(line, '\n', (size_t)(end - line)))
    if (strncasecmp(line, name, length) == 0) {
      line += length;
      return line + strspn(line, " ");
    }
  return NULL;
}

long net_number(const char *text, const char *name, long otherwise)
{
  size_t length = strlen(name);
  for (; text && *text != '\r' && *text != '\n' && *text; text++)
    if (strncmp(text, name, length) == 0 && text[length] == '=')
      return strtol(text + length + 1, NULL, 10);
  return otherwise;
}
