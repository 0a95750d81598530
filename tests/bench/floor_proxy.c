/* The floor: the thinnest honest proxy on epoll and libcurl's multi interface, to compare parry with. It passes a request
 * on with its fields, tries a 503 again at once (up to four attempts), relays event streams as they come, and does
 * nothing else: no policies, no deadlines, no limits, no log. One thread.
 *
 *     floor_proxy PORT     upstream on 127.0.0.1; the first line on stdout is its own port; ends when stdin does
 *
 * What makes it thin: one easy handle per client connection, set up once; curl's sockets stay in epoll between
 * transfers; no timer descriptor; an answer leaves in one send. */
#include "net.h"

#include <curl/curl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { MAX_ATTEMPTS = 4, CURL_BUFFER = 16 * 1024 };

struct client {
  int fd;
  bool busy, streams, blocked; /* a transfer runs; its head has left; output waits for the socket */
  unsigned attempts;
  CURL *easy;
  struct curl_slist *lines;
  struct net_buffer in, head, out; /* `head` is the answer's, without its end */
  size_t request;                  /* bytes of `in` that are being served */
  struct client *next_dead;
};

/* What epoll knows of one of curl's sockets. */
struct upstream {
  int fd;
  int wanted; /* CURL_POLL_* now */
  uint32_t registered;
};

static struct proxy {
  int epoll, listener;
  CURLM *multi;
  int64_t timer; /* when curl wants to be called; INT64_MAX: not at all */
  char base[64];
  struct upstream **upstreams; /* by descriptor */
  size_t capacity;
  struct client *dead;
} proxy = {.timer = INT64_MAX};

static void must(bool ok, const char *what)
{
  if (!ok)
    net_die("%s failed", what);
}

/* ---- curl's sockets ---------------------------------------------------------------------------------------- */

/* epoll_event.data: the descriptor, told from a pointer by the lowest bit; what it meant may be closed by an event before
 * it in the same batch. */
static void *tag(int fd)
{
  return (void *)((uintptr_t)fd << 1 | 1);
}

static void watch(struct upstream *upstream, uint32_t events)
{
  int operation = !upstream->registered ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
  if (events != upstream->registered)
    net_watch(proxy.epoll, operation, upstream->fd, events, tag(upstream->fd));
  upstream->registered = events;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *unused)
{
  (void)easy, (void)user, (void)unused;
  struct upstream *upstream = (size_t)fd < proxy.capacity ? proxy.upstreams[fd] : NULL;
  must(upstream, "a socket that was not opened here");
  upstream->wanted = what == CURL_POLL_REMOVE ? 0 : what;
  if (upstream->wanted)
    watch(upstream, (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0));
  return 0;
}

static curl_socket_t on_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
  (void)user, (void)purpose;
  int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  must(fd >= 0, "socket");
  while ((size_t)fd >= proxy.capacity) {
    size_t capacity = proxy.capacity ? proxy.capacity * 2 : 1024;
    proxy.upstreams = realloc(proxy.upstreams, capacity * sizeof *proxy.upstreams);
    must(proxy.upstreams, "realloc");
    memset(proxy.upstreams + proxy.capacity, 0, (capacity - proxy.capacity) * sizeof *proxy.upstreams);
    proxy.capacity = capacity;
  }
  struct upstream *upstream = calloc(1, sizeof *upstream);
  must(upstream, "calloc");
  upstream->fd = fd;
  proxy.upstreams[fd] = upstream;
  return fd;
}

static int on_close(void *user, curl_socket_t fd)
{
  (void)user;
  watch(proxy.upstreams[fd], 0);
  free(proxy.upstreams[fd]);
  proxy.upstreams[fd] = NULL;
  return close(fd);
}

static int on_timer(CURLM *multi, long milliseconds, void *user)
{
  (void)multi, (void)user;
  proxy.timer = milliseconds < 0 ? INT64_MAX : net_now() + milliseconds * 1000000;
  return 0;
}

/* ---- clients ----------------------------------------------------------------------------------------------- */

/* Freed after the events at hand, which may name it. */
static void bury(struct client *client)
{
  if (client->fd < 0)
    return;
  if (client->busy)
    curl_multi_remove_handle(proxy.multi, client->easy);
  close(client->fd);
  client->fd = -1;
  client->next_dead = proxy.dead;
  proxy.dead = client;
}

static void free_dead(void)
{
  while (proxy.dead) {
    struct client *client = proxy.dead;
    proxy.dead = client->next_dead;
    curl_easy_cleanup(client->easy);
    curl_slist_free_all(client->lines);
    free(client->in.data);
    free(client->head.data);
    free(client->out.data);
    free(client);
  }
}

/* False: the client is gone. */
static bool flush(struct client *client)
{
  int64_t sent = client->out.size ? net_send(client->fd, client->out.data, client->out.size) : 0;
  if (sent < 0)
    return false;
  net_consume(&client->out, (size_t)sent);
  if ((client->out.size != 0) != client->blocked) {
    client->blocked = client->out.size != 0;
    net_watch(proxy.epoll, EPOLL_CTL_MOD, client->fd, EPOLLIN | (client->blocked ? EPOLLOUT : 0), client);
  }
  return true;
}

/* ---- an answer --------------------------------------------------------------------------------------------- */

static bool is_hop(const char *line)
{
  return strncasecmp(line, "connection:", 11) == 0 || strncasecmp(line, "keep-alive:", 11) == 0 ||
         strncasecmp(line, "transfer-encoding:", 18) == 0 || strncasecmp(line, "content-length:", 15) == 0;
}

static size_t on_header(char *line, size_t unit, size_t count, void *user)
{
  struct client *client = user;
  size_t size = unit * count;
  if (size > 5 && memcmp(line, "HTTP/", 5) == 0)
    client->head.size = 0;
  if (size > 2) {
    if (!is_hop(line))
      net_append(&client->head, line, size);
    return size;
  }
  const char *type = net_field(client->head.data, client->head.size, "content-type:");
  client->streams = type && strncasecmp(type, "text/event-stream", 17) == 0;
  if (!client->streams)
    return size;
  net_append(&client->out, client->head.data, client->head.size);
  net_append(&client->out, "Transfer-Encoding: chunked\r\n\r\n", 30);
  return flush(client) ? size : 0;
}

static size_t on_body(char *data, size_t unit, size_t count, void *user)
{
  struct client *client = user;
  size_t size = unit * count;
  if (!client->streams) {
    net_append(&client->out, data, size);
    return size;
  }
  char length[24];
  net_append(&client->out, length, (size_t)snprintf(length, sizeof length, "%zx\r\n", size));
  net_append(&client->out, data, size);
  net_append(&client->out, "\r\n", 2);
  return flush(client) ? size : 0;
}

/* The body is in `out` already: its head is put in front of it. */
static void finish_whole(struct client *client)
{
  char length[48];
  size_t size = client->out.size;
  net_append(&client->head, length, (size_t)snprintf(length, sizeof length, "Content-Length: %zu\r\n\r\n", size));
  net_reserve(&client->out, client->head.size);
  memmove(client->out.data + client->head.size, client->out.data, size);
  memcpy(client->out.data, client->head.data, client->head.size);
  client->out.size += client->head.size;
}

/* ---- a request --------------------------------------------------------------------------------------------- */

static void attempt(struct client *client)
{
  client->attempts++;
  client->busy = true;
  must(curl_multi_add_handle(proxy.multi, client->easy) == CURLM_OK, "curl_multi_add_handle");
}

#define SET(option, value) must(curl_easy_setopt(client->easy, option, value) == CURLE_OK, #option)

static struct client *client_new(int fd)
{
  struct client *client = calloc(1, sizeof *client);
  must(client && (client->easy = curl_easy_init()), "a client");
  client->fd = fd;
  SET(CURLOPT_PRIVATE, client);
  SET(CURLOPT_NOSIGNAL, 1L);
  SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  SET(CURLOPT_BUFFERSIZE, (long)CURL_BUFFER);
  SET(CURLOPT_UPLOAD_BUFFERSIZE, (long)CURL_BUFFER);
  SET(CURLOPT_PROXY, "");
  SET(CURLOPT_HEADERFUNCTION, on_header);
  SET(CURLOPT_HEADERDATA, client);
  SET(CURLOPT_WRITEFUNCTION, on_body);
  SET(CURLOPT_WRITEDATA, client);
  SET(CURLOPT_OPENSOCKETFUNCTION, on_open);
  SET(CURLOPT_CLOSESOCKETFUNCTION, on_close);
  net_watch(proxy.epoll, EPOLL_CTL_ADD, fd, EPOLLIN, client);
  return client;
}

static void add_line(struct client *client, const char *line)
{
  client->lines = curl_slist_append(client->lines, line);
  must(client->lines, "curl_slist_append");
}

/* The head is cut into strings in place. */
static void set_fields(struct client *client, char *head, char *end)
{
  curl_slist_free_all(client->lines);
  client->lines = NULL;
  add_line(client, "Expect:");
  for (char *next, *line = strstr(head, "\r\n") + 2; line < end - 2; line = next + 2) {
    next = strstr(line, "\r\n");
    *next = '\0';
    if (!is_hop(line) && strncasecmp(line, "host:", 5) != 0 && strncasecmp(line, "expect:", 7) != 0)
      add_line(client, line);
  }
  SET(CURLOPT_HTTPHEADER, client->lines);
}

static void start(struct client *client, char *head, char *body, size_t body_size)
{
  char url[512];
  char *path = strchr(head, ' '), *space = path ? strchr(path + 1, ' ') : NULL;
  must(space && space - path < 400, "reading a request line");
  snprintf(url, sizeof url, "%s%.*s", proxy.base, (int)(space - path - 1), path + 1);
  set_fields(client, head, body);
  SET(CURLOPT_URL, url);
  SET(CURLOPT_POST, 1L);
  SET(CURLOPT_POSTFIELDSIZE, (long)body_size);
  SET(CURLOPT_POSTFIELDS, body);
  attempt(client);
}

/* Starts the next request that is there as a whole. */
static void serve(struct client *client)
{
  size_t head = client->busy ? 0 : net_head_end(&client->in);
  if (!head)
    return;
  const char *length = net_field(client->in.data, head, "content-length:");
  size_t body = length ? strtoul(length, NULL, 10) : 0;
  if (client->in.size < head + body)
    return;
  client->request = head + body;
  client->attempts = 0;
  start(client, client->in.data, client->in.data + head, body);
}

static void finish(struct client *client, CURLcode code)
{
  long status = 0;
  client->busy = false;
  curl_multi_remove_handle(proxy.multi, client->easy);
  curl_easy_getinfo(client->easy, CURLINFO_RESPONSE_CODE, &status);
  if (code != CURLE_OK) {
    bury(client);
    return;
  }
  if (status == 503 && client->attempts < MAX_ATTEMPTS && !client->streams) {
    client->out.size = 0;
    attempt(client);
    return;
  }
  if (client->streams)
    net_append(&client->out, "0\r\n\r\n", 5);
  else
    finish_whole(client);
  client->streams = false;
  net_consume(&client->in, client->request);
  if (!flush(client))
    bury(client);
  else
    serve(client);
}

static void collect(void)
{
  CURLMsg *message;
  int left;
  while ((message = curl_multi_info_read(proxy.multi, &left))) {
    struct client *client = NULL;
    CURLcode code = message->data.result;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&client);
    finish(client, code);
  }
}

static void drive(int fd, int what)
{
  int running;
  must(curl_multi_socket_action(proxy.multi, fd, what, &running) == CURLM_OK, "curl_multi_socket_action");
  collect();
}

/* ---- the loop ---------------------------------------------------------------------------------------------- */

static void upstream_event(size_t fd, uint32_t events)
{
  struct upstream *upstream = fd < proxy.capacity ? proxy.upstreams[fd] : NULL;
  if (!upstream)
    return;
  if (!upstream->wanted)
    watch(upstream, 0); /* an idle connection was closed: curl finds out when it wants it again */
  else
    drive(upstream->fd,
          (events & ~(uint32_t)EPOLLOUT ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0));
}

static void client_event(struct client *client, uint32_t events)
{
  if (client->fd < 0)
    return;
  if ((events & EPOLLOUT && !flush(client)) || (events & ~(uint32_t)EPOLLOUT && !net_read(client->fd, &client->in)))
    bury(client);
  else
    serve(client);
}

static void accept_all(void)
{
  for (int fd; (fd = net_accept(proxy.listener)) >= 0;)
    client_new(fd);
}

static void set_up(const char *upstream)
{
  must(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK, "curl_global_init");
  proxy.multi = curl_multi_init();
  must(proxy.multi && curl_multi_setopt(proxy.multi, CURLMOPT_SOCKETFUNCTION, on_socket) == CURLM_OK &&
           curl_multi_setopt(proxy.multi, CURLMOPT_TIMERFUNCTION, on_timer) == CURLM_OK &&
           curl_multi_setopt(proxy.multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING) == CURLM_OK &&
           curl_multi_setopt(proxy.multi, CURLMOPT_MAXCONNECTS, 256L) == CURLM_OK,
       "curl_multi_init");
  snprintf(proxy.base, sizeof proxy.base, "http://127.0.0.1:%s", upstream);
  unsigned port;
  proxy.epoll = epoll_create1(EPOLL_CLOEXEC);
  proxy.listener = net_listen(&port);
  net_watch(proxy.epoll, EPOLL_CTL_ADD, proxy.listener, EPOLLIN, &proxy.listener);
  net_watch(proxy.epoll, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, &proxy.epoll);
  printf("%u\n", port);
  fflush(stdout);
}

int main(int argc, char **argv)
{
  if (argc != 2)
    net_die("usage: floor_proxy PORT");
  net_raise_descriptors();
  set_up(argv[1]);
  for (;;) {
    struct epoll_event events[NET_EVENTS];
    int count = net_wait(proxy.epoll, events, proxy.timer);
    for (int i = 0; i < count; i++) {
      void *user = events[i].data.ptr;
      if (user == &proxy.epoll)
        return 0;
      if (user == &proxy.listener)
        accept_all();
      else if ((uintptr_t)user & 1)
        upstream_event((uintptr_t)user >> 1, events[i].events);
      else
        client_event(user, events[i].events);
    }
    while (proxy.timer <= net_now()) {
      proxy.timer = INT64_MAX;
      drive(CURL_SOCKET_TIMEOUT, 0);
    }
    free_dead();
  }
}
