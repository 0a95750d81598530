/* Whatever a client sends, in pieces of whatever size, and however it leaves: every request that the handler was told of
 * ends exactly once, the connection goes, and what was said back begins with an answer. The first byte chooses the size of
 * the pieces, how the client leaves, and when the handler answers. */
#include "fuzz.h"

#include "server_internal.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LATE = 1, HOLDS = 2, LEAVES_UNREAD = 4 };

struct bench {
  struct pry_loop *loop;
  struct pry_server *server;
  struct sockaddr_un name;
  socklen_t name_size;
  int manner;
  size_t open;
  struct asked *waiting; /* the one request that the handler has not answered */
};

struct asked {
  struct bench *bench;
  struct pry_exchange *exchange;
  bool complete;
  uint64_t body;
};

static void forget(struct asked *asked)
{
  REQUIRE(asked->bench->open == 1);
  asked->bench->open--;
  asked->bench->waiting = NULL;
  free(asked);
}

static void answer(struct asked *asked)
{
  struct pry_exchange *exchange = asked->exchange;
  forget(asked);
  pry_reply_text(exchange, 200, "text/plain", PRY_SLICE("fine"));
}

static void *on_head(void *user, struct pry_exchange *exchange, const struct pry_server_request *request)
{
  struct bench *bench = user;
  struct asked *asked = calloc(1, sizeof *asked);
  REQUIRE(asked && bench->open == 0); /* one after the other */
  REQUIRE(request->method.size && request->target.size && request->headers);
  bench->open++;
  bench->waiting = asked;
  *asked = (struct asked){.bench = bench, .exchange = exchange};
  if (bench->manner & HOLDS)
    pry_reply_hold_body(exchange, true);
  return asked;
}

static void on_body(void *user, struct pry_slice data)
{
  struct asked *asked = user;
  REQUIRE(data.size > 0 && !asked->complete);
  asked->body += data.size;
}

static void on_end(void *user)
{
  struct asked *asked = user;
  REQUIRE(!asked->complete);
  asked->complete = true;
  if (!(asked->bench->manner & LATE))
    answer(asked);
}

static void on_gone(void *user)
{
  forget(user);
}

static const struct pry_server_ops OPS = {on_head, on_body, on_end, NULL, on_gone};

static struct bench *bench_new(void)
{
  static struct bench bench;
  char error[256];
  if (bench.loop)
    return &bench;
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bench.name.sun_family = AF_UNIX;
  bench.name_size = sizeof bench.name;
  /* A name of the kernel's choice, which is no file. */
  REQUIRE(bind(listener, (struct sockaddr *)&bench.name, sizeof(sa_family_t)) == 0 && listen(listener, 8) == 0);
  REQUIRE(getsockname(listener, (struct sockaddr *)&bench.name, &bench.name_size) == 0);
  bench.loop = pry_loop_new();
  REQUIRE(bench.loop);
  bench.server = pry_server_new(bench.loop, NULL, &(struct pry_server_options){.listen_fd = listener}, &OPS, &bench,
                                error, sizeof error);
  REQUIRE(bench.server);
  close(listener);
  return &bench;
}

static void hear(int fd, struct pry_buffer *said)
{
  char piece[4096];
  ssize_t size;
  while ((size = recv(fd, piece, sizeof piece, MSG_DONTWAIT)) > 0)
    if (said->size < sizeof piece)
      REQUIRE(pry_buffer_append(said, piece, (size_t)size));
}

static void turn(struct bench *bench)
{
  pry_loop_turn(bench->loop, 0);
  struct asked *waiting = bench->waiting;
  if (!waiting)
    return;
  if (bench->manner & HOLDS)
    pry_reply_hold_body(waiting->exchange, waiting->body % 2 == 1);
  if (waiting->complete)
    answer(waiting);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  if (size < 1)
    return 0;
  struct bench *bench = bench_new();
  struct pry_buffer said;
  pry_buffer_init(&said, 0);
  size_t step = 1 + (data[0] & 0x1FU) * (data[0] & 0x1FU);
  bench->manner = data[0] >> 5;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(fd, (struct sockaddr *)&bench->name, bench->name_size) == 0);
  for (size_t offset = 1; offset < size; offset += step) {
    size_t piece = size - offset < step ? size - offset : step;
    if (send(fd, data + offset, piece, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
      break;
    turn(bench);
    if (!(bench->manner & LEAVES_UNREAD))
      hear(fd, &said);
  }
  for (int i = 0; i < 3; i++)
    turn(bench);
  if (!(bench->manner & LEAVES_UNREAD))
    hear(fd, &said);
  close(fd);
  for (int i = 0; pry_server_connection_count(bench->server); i++) {
    REQUIRE(i < 1000);
    turn(bench);
  }
  REQUIRE(bench->open == 0 && pry_server_request_count(bench->server) == 0);
  REQUIRE(said.size < 9 || memcmp(said.data, "HTTP/1.1 ", 9) == 0);
  pry_buffer_fini(&said);
  return 0;
}
