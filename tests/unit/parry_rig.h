/* A host of parry.h's with policy files of its own, and a provider on a thread of its own that answers as the test says.
 * Nothing here sleeps: the engine runs until what is waited for has happened, a minute at most. */
#ifndef PRY_PARRY_RIG_H
#define PRY_PARRY_RIG_H

#include "parry.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define RIG_BODY "{\"model\":\"m\"}"
#define RIG_GOOD "{\"good\":42}"

/* cmocka's assertions jump, which must not happen on another thread than the test's, nor through the library. */
#define RIG_CHECK(condition)                                                                                           \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                          \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

/* ---- the provider ------------------------------------------------------------------------------------------- */

enum { RIG_PEERS = 256 };

struct rig_peer {
  int fd; /* -1: none */
  char head[2048];
  size_t head_size;
  size_t left;  /* bytes of the answer's body to be sent */
  bool answers; /* has a request */
};

struct rig_provider {
  int listener, stop[2];
  unsigned port;
  pthread_t thread;
  atomic_size_t body_size; /* of the answers; 0: RIG_GOOD */
  atomic_bool silent;      /* takes requests, and answers none */
  atomic_size_t requests, sent;
  struct rig_peer peers[RIG_PEERS];
};

static inline void rig_peer_close(struct rig_peer *peer)
{
  close(peer->fd);
  *peer = (struct rig_peer){.fd = -1};
}

static inline void rig_peer_answer(struct rig_provider *provider, struct rig_peer *peer)
{
  char head[128];
  size_t size = atomic_load(&provider->body_size);
  const char *body = size ? "" : RIG_GOOD;
  int length =
      snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
               size ? size : strlen(RIG_GOOD), body);
  peer->head_size = 0;
  atomic_fetch_add(&provider->requests, 1);
  if (atomic_load(&provider->silent))
    return;
  RIG_CHECK(send(peer->fd, head, (size_t)length, MSG_NOSIGNAL) == length || errno == EPIPE || errno == ECONNRESET);
  peer->left = size;
}

static inline void rig_peer_read(struct rig_provider *provider, struct rig_peer *peer)
{
  ssize_t got = recv(peer->fd, peer->head + peer->head_size, sizeof peer->head - 1 - peer->head_size, MSG_DONTWAIT);
  if (got <= 0) {
    if (got == 0 || errno != EAGAIN)
      rig_peer_close(peer);
    return;
  }
  peer->head_size += (size_t)got;
  peer->head[peer->head_size] = '\0';
  const char *end = strstr(peer->head, "\r\n\r\n");
  if (end && strlen(end + 4) >= strlen(RIG_BODY))
    rig_peer_answer(provider, peer);
}

static inline void rig_peer_write(struct rig_provider *provider, struct rig_peer *peer)
{
  static const char spaces[16384]; /* NULs, to be exact: nobody reads them */
  size_t size = peer->left < sizeof spaces ? peer->left : sizeof spaces;
  ssize_t sent = send(peer->fd, spaces, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) {
    rig_peer_close(peer);
  } else if (sent > 0) {
    peer->left -= (size_t)sent;
    atomic_fetch_add(&provider->sent, (size_t)sent);
  }
}

static inline void rig_provider_accept(struct rig_provider *provider)
{
  for (int i = 0; i < RIG_PEERS; i++)
    if (provider->peers[i].fd < 0) {
      provider->peers[i].fd = accept4(provider->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
      return;
    }
}

static inline void *rig_provider_run(void *user)
{
  struct rig_provider *provider = user;
  struct pollfd fds[RIG_PEERS + 2];
  for (;;) {
    fds[0] = (struct pollfd){provider->stop[0], POLLIN, 0};
    fds[1] = (struct pollfd){provider->listener, POLLIN, 0};
    for (int i = 0; i < RIG_PEERS; i++)
      fds[i + 2] = (struct pollfd){provider->peers[i].fd, provider->peers[i].left ? POLLOUT : POLLIN, 0};
    if (poll(fds, RIG_PEERS + 2, -1) < 0)
      continue;
    if (fds[0].revents)
      return NULL;
    for (int i = 0; i < RIG_PEERS; i++)
      if (fds[i + 2].fd >= 0 && fds[i + 2].revents) {
        if (provider->peers[i].left)
          rig_peer_write(provider, &provider->peers[i]);
        else
          rig_peer_read(provider, &provider->peers[i]);
      }
    if (fds[1].revents)
      rig_provider_accept(provider);
  }
}

static inline void rig_provider_open(struct rig_provider *provider)
{
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  memset(provider, 0, sizeof *provider);
  for (int i = 0; i < RIG_PEERS; i++)
    provider->peers[i].fd = -1;
  provider->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(provider->listener, (struct sockaddr *)&address, size), 0);
  assert_int_equal(listen(provider->listener, 256), 0);
  assert_int_equal(getsockname(provider->listener, (struct sockaddr *)&address, &size), 0);
  provider->port = ntohs(address.sin_port);
  assert_int_equal(pipe(provider->stop), 0);
  assert_int_equal(pthread_create(&provider->thread, NULL, rig_provider_run, provider), 0);
}

static inline void rig_provider_close(struct rig_provider *provider)
{
  assert_int_equal(write(provider->stop[1], "", 1), 1);
  pthread_join(provider->thread, NULL);
  for (int i = 0; i < RIG_PEERS; i++)
    if (provider->peers[i].fd >= 0)
      rig_peer_close(&provider->peers[i]);
  close(provider->listener);
  close(provider->stop[0]);
  close(provider->stop[1]);
}

/* ---- the host ----------------------------------------------------------------------------------------------- */

struct rig_host {
  char folder[64]; /* made by mkdtemp */
  int refuser;     /* bound, and never listening: connections to it are refused */
  unsigned refusing_port;
  struct rig_provider provider;
  unsigned threads;
  parry *engine;
  int told; /* by what a callback tried */
  /* of all calls */
  unsigned heads, dones;
  size_t bytes;
  int status;
  char category[32];
  bool truncated;
};

static inline void rig_write_file(const struct rig_host *host, const char *name, const char *text)
{
  char path[128];
  snprintf(path, sizeof path, "%s/%s", host->folder, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static inline void rig_write_init(const struct rig_host *host, const char *chain)
{
  char text[1024];
  snprintf(text, sizeof text,
           "provider \"p\" { base_url = \"http://127.0.0.1:%u/v1\", dialect = \"openai\" }\n"
           "provider \"refuser\" { base_url = \"http://127.0.0.1:%u/v1\", dialect = \"openai\" }\n"
           "route \"/v1/*\" { to = \"p\", chain = { %s } }\n"
           "route \"/refused/*\" { to = \"refuser\", chain = { %s } }\n",
           host->provider.port, host->refusing_port, chain, chain);
  rig_write_file(host, "init.lua", text);
}

static inline void rig_reserve_port(struct rig_host *host)
{
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  host->refuser = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(host->refuser >= 0);
  assert_int_equal(bind(host->refuser, (struct sockaddr *)&address, size), 0);
  assert_int_equal(getsockname(host->refuser, (struct sockaddr *)&address, &size), 0);
  host->refusing_port = ntohs(address.sin_port);
}

static inline struct parry_options rig_options(const struct rig_host *host)
{
  struct parry_options options = PARRY_OPTIONS_INIT;
  options.policy_dir = host->folder;
  options.threads = host->threads;
  return options;
}

static inline int rig_start(struct rig_host *host)
{
  struct parry_options options = rig_options(host);
  return parry_new(&host->engine, &options);
}

/* The shipped library and dialects, and one policy of our own that says in `why` what it was told. */
static inline int rig_set_up(void **state)
{
  static const char again[] = "return policy { name = 'again',\n"
                              "  on_error = function(self, call, err)\n"
                              "    return retry { after = 0.25, why = err.category .. (err.sent and ', sent' or ', not "
                              "sent') }\n"
                              "  end }\n";
  struct rig_host *host = calloc(1, sizeof *host);
  char command[256];
  assert_non_null(host);
  snprintf(host->folder, sizeof host->folder, "/tmp/test_parry.XXXXXX");
  assert_non_null(mkdtemp(host->folder));
  snprintf(command, sizeof command, "cp -R '%s/lib' '%s/dialects' %s && rm %s/*/*_test.lua",
           PARRY_SOURCE_DIR "/policies", PARRY_SOURCE_DIR "/policies", host->folder, host->folder);
  assert_int_equal(system(command), 0);
  rig_reserve_port(host);
  rig_provider_open(&host->provider);
  rig_write_file(host, "again.lua", again);
  rig_write_init(host, "use \"again\"");
  *state = host;
  return 0;
}

static inline int rig_set_up_one_thread(void **state)
{
  rig_set_up(state);
  ((struct rig_host *)*state)->threads = 1;
  return 0;
}

static inline int rig_set_up_threads(void **state)
{
  rig_set_up(state);
  ((struct rig_host *)*state)->threads = 3;
  return 0;
}

static inline int rig_tear_down(void **state)
{
  struct rig_host *host = *state;
  char command[96];
  parry_free(host->engine);
  rig_provider_close(&host->provider);
  close(host->refuser);
  snprintf(command, sizeof command, "rm -r %s", host->folder);
  free(host);
  return system(command);
}

static inline struct rig_host *rig_started(void **state)
{
  struct rig_host *host = *state;
  char findings[512];
  int error = rig_start(host);
  parry_findings(host->engine, findings, sizeof findings);
  assert_string_equal(findings, "");
  assert_int_equal(error, PARRY_OK);
  return host;
}

static inline void rig_on_headers(void *user, int status, const struct parry_header *headers, size_t count)
{
  struct rig_host *host = user;
  RIG_CHECK(status > 0 && count > 0 && headers[0].name);
  host->heads++;
  host->status = status;
}

static inline int rig_on_data(void *user, const void *data, size_t size)
{
  struct rig_host *host = user;
  RIG_CHECK(data && size);
  host->bytes += size;
  return 0;
}

static inline void rig_on_done(void *user, const struct parry_outcome *outcome)
{
  struct rig_host *host = user;
  host->dones++;
  host->truncated = outcome->truncated;
  snprintf(host->category, sizeof host->category, "%s", outcome->category);
}

static const struct parry_request rig_request = {
    .size = sizeof rig_request, .path = "/v1/chat/completions", .body = RIG_BODY, .body_size = sizeof RIG_BODY - 1};

static const struct parry_call_ops rig_ops = {
    .size = sizeof rig_ops, .on_headers = rig_on_headers, .on_data = rig_on_data, .on_done = rig_on_done};

static inline int rig_call_with(struct rig_host *host, const struct parry_call_ops *ops, parry_call_id *id)
{
  return parry_call(host->engine, &rig_request, ops, host, id);
}

static inline int rig_call(struct rig_host *host, parry_call_id *id)
{
  return rig_call_with(host, &rig_ops, id);
}

/* With another end. */
static inline int rig_call_done(struct rig_host *host, void (*done)(void *user, const struct parry_outcome *outcome),
                                parry_call_id *id)
{
  struct parry_call_ops ops = rig_ops;
  ops.on_done = done;
  return rig_call_with(host, &ops, id);
}

static inline double rig_now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

#define RIG_RUN_UNTIL(host, condition)                                                                                 \
  do {                                                                                                                 \
    double rig_started_at = rig_now();                                                                                 \
    while (!(condition)) {                                                                                             \
      assert_true(rig_now() - rig_started_at < 60);                                                                    \
      assert_true(parry_run((host)->engine, 0.02) >= 0);                                                               \
    }                                                                                                                  \
  } while (0)

static inline void rig_run_until_done(struct rig_host *host)
{
  RIG_RUN_UNTIL(host, host->dones);
  assert_int_equal(host->dones, 1);
}

#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)
#define RIG_TEST_ONE_THREAD(name)                                                                                      \
  {                                                                                                                    \
#name " (1 thread)", name, rig_set_up_one_thread, rig_tear_down, NULL                                              \
  }
#define RIG_TEST_THREADS(name)                                                                                         \
  {                                                                                                                    \
#name " (3 threads)", name, rig_set_up_threads, rig_tear_down, NULL                                                \
  }
/* The same in every drive. */
#define RIG_TEST_ALL(name) RIG_TEST(name), RIG_TEST_ONE_THREAD(name), RIG_TEST_THREADS(name)

#endif
