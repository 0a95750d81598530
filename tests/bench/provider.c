/* The benchmark's provider: answers chat completions as cheaply as it can, on one thread, and fails, waits or streams as
 * the request's own x-bench field asks, which every proxy passes on:
 *
 *     x-bench: once=ID              503 to the first request with this id, the answer to the next
 *     x-bench: delay=MS             the answer comes later
 *     x-bench: every=MS events=N    an event stream: N events, the first after MS; 0: until the client leaves
 *
 * Each event carries the time it was sent at (net_now()), so that the reader knows its age. GET /stats tells what was
 * served. The first line on stdout is the port; ends when stdin does. */
#include "net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char ANSWER[] =
    "{\"id\":\"chatcmpl-b1946ac92492d2347c6235b4d2611184\",\"object\":\"chat.completion\",\"created\":1760000000,"
    "\"model\":\"bench-1\",\"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
    "\"assistant\",\"content\":\"A proxy stands between a client and a server, passes requests on and answers back, "
    "and may look at both on their way.\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":"
    "{\"prompt_tokens\":57,\"completion_tokens\":24,\"total_tokens\":81}}";

static const char ERROR[] = "{\"error\":{\"message\":\"The engine is currently overloaded, please try again later\","
                            "\"type\":\"server_error\",\"param\":null,\"code\":\"engine_overloaded\"}}";

static const char STREAM_HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                                  "X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n";

static const char STREAM_END[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

enum { ONCE_SLOTS = 65536 }; /* more than ids are in flight, which are near to each other */

struct connection {
  int fd;
  struct net_buffer in;
  long every, events_left; /* milliseconds; events_left < 0: endless */
  bool waiting, streams;
  int64_t due;
  struct connection *before, *after; /* among the waiting, sorted by `due` */
};

static struct provider {
  int epoll, listener;
  struct connection *first, *last; /* waiting */
  unsigned long requests, failed, streams, events;
  long once[ONCE_SLOTS]; /* ids that have had their failure */
  char answer[1024], error[512];
  size_t answer_size, error_size;
} provider;

/* ---- waiting ----------------------------------------------------------------------------------------------- */

static void stop_waiting(struct connection *connection)
{
  if (!connection->waiting)
    return;
  *(connection->before ? &connection->before->after : &provider.first) = connection->after;
  *(connection->after ? &connection->after->before : &provider.last) = connection->before;
  connection->before = connection->after = NULL;
  connection->waiting = false;
}

/* Nearly always everybody waits equally long, so the place is at the end. */
static void wait_until(struct connection *connection, int64_t due)
{
  struct connection *before = provider.last;
  while (before && before->due > due)
    before = before->before;
  connection->due = due;
  connection->before = before;
  connection->after = before ? before->after : provider.first;
  *(before ? &before->after : &provider.first) = connection;
  *(connection->after ? &connection->after->before : &provider.last) = connection;
  connection->waiting = true;
}

/* ---- answering --------------------------------------------------------------------------------------------- */

static void hang_up(struct connection *connection)
{
  stop_waiting(connection);
  close(connection->fd);
  free(connection->in.data);
  free(connection);
}

/* False: the connection is closed. What is sent is far smaller than a socket's buffer, unless the reader stands still. */
static bool reply(struct connection *connection, const char *data, size_t size)
{
  int64_t sent = net_send(connection->fd, data, size);
  if (sent >= 0 && (size_t)sent < size)
    net_die("a reader is stuck");
  if (sent < 0)
    hang_up(connection);
  return sent >= 0;
}

static bool reply_stats(struct connection *connection)
{
  char body[256], text[512];
  int size = snprintf(body, sizeof body, "{\"requests\":%lu,\"failed\":%lu,\"streams\":%lu,\"events\":%lu}",
                      provider.requests, provider.failed, provider.streams, provider.events);
  size = snprintf(text, sizeof text,
                  "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", size, body);
  return reply(connection, text, (size_t)size);
}

static bool send_event(struct connection *connection)
{
  char event[512], chunk[600];
  int size =
      snprintf(event, sizeof event,
               "data: {\"id\":\"chatcmpl-b1946ac92492d2347c6235b4d2611184\",\"object\":\"chat.completion.chunk\","
               "\"created\":1760000000,\"model\":\"bench-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":"
               "\"@%020lld\"},\"finish_reason\":null}]}\n\n",
               (long long)net_now());
  size = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", (unsigned)size, event);
  provider.events++;
  return reply(connection, chunk, (size_t)size);
}

static void send_due(struct connection *connection)
{
  stop_waiting(connection);
  if (!connection->streams) {
    reply(connection, provider.answer, provider.answer_size);
    return;
  }
  if (!send_event(connection))
    return;
  if (connection->events_left > 0 && --connection->events_left == 0) {
    connection->streams = false;
    reply(connection, STREAM_END, sizeof STREAM_END - 1);
    return;
  }
  wait_until(connection, connection->due + connection->every * 1000000);
}

static bool fails_now(long id)
{
  long *slot = &provider.once[(unsigned long)id % ONCE_SLOTS];
  bool fails = id && *slot != id;
  *slot = fails ? id : *slot;
  return fails;
}

static bool answer(struct connection *connection, const char *wish)
{
  long delay = net_number(wish, "delay", 0), every = net_number(wish, "every", 0);
  provider.requests++;
  if (fails_now(net_number(wish, "once", 0))) {
    provider.failed++;
    return reply(connection, provider.error, provider.error_size);
  }
  if (!every && !delay)
    return reply(connection, provider.answer, provider.answer_size);
  wait_until(connection, net_now() + (every ? every : delay) * 1000000);
  if (!every)
    return true;
  connection->streams = true;
  connection->every = every;
  connection->events_left = net_number(wish, "events", 0);
  connection->events_left = connection->events_left ? connection->events_left : -1;
  provider.streams++;
  return reply(connection, STREAM_HEAD, sizeof STREAM_HEAD - 1);
}

/* False: the connection is closed. */
static bool serve(struct connection *connection)
{
  size_t head;
  while ((head = net_head_end(&connection->in))) {
    const char *length = net_field(connection->in.data, head, "content-length:");
    size_t size = head + (length ? strtoul(length, NULL, 10) : 0);
    if (connection->in.size < size)
      return true;
    bool stats = connection->in.size > 10 && memcmp(connection->in.data, "GET /stats", 10) == 0;
    const char *wish = net_field(connection->in.data, head, "x-bench:");
    if (!(stats ? reply_stats(connection) : answer(connection, wish)))
      return false;
    net_consume(&connection->in, size);
  }
  return true;
}

static void accept_all(void)
{
  int fd;
  while ((fd = net_accept(provider.listener)) >= 0) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
      net_die("memory is short");
    connection->fd = fd;
    net_watch(provider.epoll, EPOLL_CTL_ADD, fd, EPOLLIN, connection);
  }
}

static size_t write_answer(char *text, size_t size, const char *status, const char *body)
{
  int written = snprintf(text, size,
                         "HTTP/1.1 %s\r\nContent-Type: application/json\r\nX-Request-Id: req_5f2b8c\r\n"
                         "Content-Length: %zu\r\n\r\n%s",
                         status, strlen(body), body);
  if (written < 0 || (size_t)written >= size)
    net_die("an answer is too long");
  return (size_t)written;
}

int main(void)
{
  unsigned port;
  net_raise_descriptors();
  provider.epoll = epoll_create1(EPOLL_CLOEXEC);
  provider.listener = net_listen(&port);
  provider.answer_size = write_answer(provider.answer, sizeof provider.answer, "200 OK", ANSWER);
  provider.error_size = write_answer(provider.error, sizeof provider.error, "503 Service Unavailable", ERROR);
  net_watch(provider.epoll, EPOLL_CTL_ADD, provider.listener, EPOLLIN, &provider.listener);
  net_watch(provider.epoll, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, &provider.epoll);
  printf("%u\n", port);
  fflush(stdout);
  for (;;) {
    struct epoll_event events[NET_EVENTS];
    int count = net_wait(provider.epoll, events, provider.first ? provider.first->due : INT64_MAX);
    for (int i = 0; i < count; i++) {
      struct connection *connection = events[i].data.ptr;
      if (events[i].data.ptr == &provider.epoll)
        return 0;
      if (events[i].data.ptr == &provider.listener)
        accept_all();
      else if (!net_read(connection->fd, &connection->in))
        hang_up(connection);
      else
        serve(connection);
    }
    for (int64_t now = net_now(); provider.first && provider.first->due <= now;)
      send_due(provider.first);
  }
}
