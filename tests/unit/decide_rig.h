/* A host that asks parry_decide(), with policies of its own and a server on a thread of its own that handlers ask. */
#ifndef PRY_DECIDE_RIG_H
#define PRY_DECIDE_RIG_H

#include "parry_internal.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- policies -------------------------------------------------------------------------------------------------- */

static const char again[] =
    "return policy { name = 'again',\n"
    "  on_error = function(self, call, err)\n"
    "    return retry { after = 0.25, why = ('%s %s %d %s %s %s %s'):format(err.category, err.code, err.status,\n"
    "      err.retry_after, err.sent, err.source, err.message) }\n"
    "  end }\n";

static const char asks[] = "return policy { name = 'asks',\n"
                           "  on_error = function(self, call, err)\n"
                           "    local answer, e = http.request { service = 's', path = '/state' }\n"
                           "    return retry { after = 0.5, why = answer and answer.body or e.category }\n"
                           "  end,\n"
                           "  on_outcome = function(self, call, attempt)\n"
                           "    if call.target.name == 'quiet/' then return end\n"
                           "    local answer = http.request { service = 's', path = '/outcome' }\n"
                           "    store.count('answers', answer and 1 or 0)\n"
                           "  end,\n"
                           "  on_event = function(self, event)\n"
                           "    if event.name == 'count' then\n"
                           "      return fail { category = 'server', why = tostring(store.counter('answers')) }\n"
                           "    end\n"
                           "    return fail { category = 'server', status = 599, why = event.name .. event.fields.n }\n"
                           "  end }\n";

static const char answers[] = "return policy { name = 'answers',\n"
                              "  on_error = function(self, call, err)\n"
                              "    return respond { status = 203, body = 'abcdefgh', why = 'so' }\n"
                              "  end }\n";

static const char waits_and_answers[] = "return policy { name = 'both',\n"
                                        "  on_error = function(self, call, err)\n"
                                        "    http.request { service = 's', path = '/state' }\n"
                                        "    return respond { status = 203, body = 'abcdefgh', why = 'so' }\n"
                                        "  end }\n";

/* What it changes is set back, and the run is a fault; what it was about to wait for must not go out. */
static const char cheats[] = "local n = 0\n"
                             "return policy { name = 'cheats',\n"
                             "  on_error = function(self, call, err)\n"
                             "    n = n + 1\n"
                             "    http.request { service = 's', path = '/cheated' }\n"
                             "  end }\n";

/* ---- a server -------------------------------------------------------------------------------------------------- */

struct server {
  int listener;
  unsigned port;
  pthread_t thread;
  atomic_uint served;
  atomic_bool ending, silent; /* silent: accepts, reads, and says nothing until the end */
};

static inline void *serve(void *user)
{
  static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine";
  struct server *server = user;
  int kept[64], kept_count = 0;
  for (;;) {
    char request[4096];
    int fd = accept(server->listener, NULL, NULL);
    if (fd < 0 || atomic_load(&server->ending)) {
      if (fd >= 0)
        close(fd);
      break;
    }
    ssize_t got = recv(fd, request, sizeof request, 0);
    atomic_fetch_add(&server->served, 1);
    if (atomic_load(&server->silent) && kept_count < 64) {
      kept[kept_count++] = fd;
      continue;
    }
    if (got > 0)
      (void)!send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
    close(fd);
  }
  while (kept_count)
    close(kept[--kept_count]);
  return NULL;
}

static inline void start_server(struct server *server)
{
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(server->listener, (struct sockaddr *)&address, size), 0);
  assert_int_equal(listen(server->listener, 64), 0);
  assert_int_equal(getsockname(server->listener, (struct sockaddr *)&address, &size), 0);
  server->port = ntohs(address.sin_port);
  assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static inline void stop_server(struct server *server)
{
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons((uint16_t)server->port)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  atomic_store(&server->ending, true);
  assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
  pthread_join(server->thread, NULL);
  close(fd);
  close(server->listener);
}

/* ---- a host ---------------------------------------------------------------------------------------------------- */

struct host {
  char folder[64]; /* made by mkdtemp */
  struct server server;
  parry *engine;
  unsigned readies, lines;    /* lines: of the log, counted by who wants them */
  struct parry_decision told; /* by `ready` */
  char body[16];
  int nested; /* what parry_decide() said from inside `ready` */
};

static inline void write_file(const struct host *host, const char *name, const char *text)
{
  char path[128];
  snprintf(path, sizeof path, "%s/%s", host->folder, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static inline void write_init(const struct host *host, const char *chain)
{
  char text[1024];
  snprintf(text, sizeof text,
           "provider 'p' { base_url = 'http://127.0.0.1:%u/v1', dialect = 'openai' }\n"
           "service 's' { base_url = 'http://127.0.0.1:%u' }\n"
           "route '/v1/*' { to = 'p', chain = { %s }, deadline = 60, max_attempts_per_call = 16 }\n",
           host->server.port, host->server.port, chain);
  write_file(host, "init.lua", text);
}

static inline int set_up(void **state)
{
  static struct host host;
  memset(&host, 0, sizeof host);
  strcpy(host.folder, "/tmp/test_parry_decide.XXXXXX");
  assert_non_null(mkdtemp(host.folder));
  start_server(&host.server);
  write_file(&host, "again.lua", again);
  write_file(&host, "asks.lua", asks);
  write_file(&host, "answers.lua", answers);
  write_file(&host, "both.lua", waits_and_answers);
  write_file(&host, "cheats.lua", cheats);
  *state = &host;
  return 0;
}

static inline int tear_down(void **state)
{
  struct host *host = *state;
  char command[96];
  parry_free(host->engine);
  stop_server(&host->server);
  snprintf(command, sizeof command, "rm -r %s", host->folder);
  return system(command);
}

static inline void start_with(struct host *host, const char *chain, struct parry_options options)
{
  write_init(host, chain);
  options.policy_dir = host->folder;
  options.share_dir = PARRY_SOURCE_DIR "/policies";
  int error = parry_new(&host->engine, &options);
  if (error) {
    char findings[1024];
    parry_findings(host->engine, findings, sizeof findings);
    fail_msg("%s: %s", parry_strerror(error), findings);
  }
}

static inline struct host *started(void **state, const char *chain)
{
  start_with(*state, chain, (struct parry_options)PARRY_OPTIONS_INIT);
  return *state;
}

static const struct parry_event event_503 = {.size = sizeof event_503, .status = 503, .target = "p/m"};

static inline void ready(void *user, const struct parry_decision *decision)
{
  struct host *host = user;
  host->readies++;
  host->told = *decision;
  if (decision->body)
    memcpy(host->body, decision->body, decision->body_capacity < 16 ? decision->body_capacity : 16);
}

static inline struct parry_decision decided(struct host *host, const struct parry_event *event)
{
  struct parry_decision decision = PARRY_DECISION_INIT;
  assert_int_equal(parry_decide(host->engine, event, &decision, NULL, NULL), PARRY_OK);
  return decision;
}

static inline void run_until_ready(struct host *host, unsigned readies)
{
  for (unsigned i = 0; i < 1000 && host->readies < readies; i++)
    assert_true(parry_run(host->engine, 10) >= 0);
  assert_int_equal(host->readies, readies);
}

static inline void run_until_served(struct host *host, unsigned served)
{
  for (unsigned i = 0; i < 1000 && atomic_load(&host->server.served) < served; i++)
    assert_true(parry_run(host->engine, 0.01) >= 0);
  assert_int_equal(atomic_load(&host->server.served), served);
}

#define WITH_HOST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
