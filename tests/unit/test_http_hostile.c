/* A provider as attacker, over real sockets: what each trick comes to, that it costs no memory, and that nothing of it
 * becomes the answer to the next request. */
#include "http_rig.h"

enum { MEGABYTE = 1024 * 1024, GROWTH_MAX = 6 * MEGABYTE };

#define HEAD "HTTP/1.1 200 OK\r\n"
#define EVIL "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
#define MINE "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine"

enum end { KEEP, CLOSE, RESET };

struct row {
  const char *name;
  const char *bytes;  /* sent at once, in answer to the first request */
  size_t size;        /* of bytes; 0: up to the NUL */
  const char *again;  /* then this, over and over, for as long as it is taken */
  size_t again_size;  /* 0: up to the NUL */
  enum end end;       /* when `again` is none */
  bool unasked;       /* send before the request comes */
  const char *method; /* of the first request; NULL: GET */
  /* what comes of it */
  int code, or_code;
  const char *words; /* in the message */
  int status;        /* when there is an answer */
  const char *body;  /* all of it */
  size_t cancel_at;  /* endless: it is cancelled when so much of the body was given */
  bool silent;       /* endless, and nothing is ever given: cancelled after a while */
};

static const struct row *playing;
static atomic_int plays; /* how often the row was played */
static unsigned wrong;   /* rows that came to something else */

#define SAY(...) (wrong++, print_error(__VA_ARGS__))

static void send_over_and_over(int fd, const char *text, size_t size)
{
  char block[64 * 1024];
  size_t filled = 0;
  while (filled + size <= sizeof block) {
    memcpy(block + filled, text, size);
    filled += size;
  }
  while (send_bytes(fd, block, filled))
    ;
}

static void play(struct server *server, int fd)
{
  const struct row *row = playing;
  atomic_fetch_add(&plays, 1);
  send_bytes(fd, row->bytes, row->size ? row->size : strlen(row->bytes));
  if (row->again)
    send_over_and_over(fd, row->again, row->again_size ? row->again_size : strlen(row->again));
  if (row->end == RESET)
    reset(fd);
  if (row->end == KEEP && !row->again)
    while (read_request(server, fd))
      send_text(fd, MINE);
}

/* The first request to come is played the trick, all others are answered properly. */
static void serve_row(struct server *server, int fd)
{
  bool first = atomic_load(&plays) == 0;
  if (first && playing->unasked) {
    play(server, fd);
    return;
  }
  while (read_request(server, fd)) {
    if (first) {
      play(server, fd);
      return;
    }
    send_text(fd, MINE);
  }
}

static const struct row rows[] = {
    /* heads */
    {.name = "endless header lines", .bytes = HEAD, .again = "X-Line: value\r\n", .code = 56, .words = "too long"},
    {.name = "an endless header line",
     .bytes = HEAD "X: ",
     .again = "aaaaaaaaaaaaaaaa",
     .code = 56,
     .words = "too long"},
    {.name = "an endless header name", .bytes = HEAD, .again = "aaaaaaaaaaaaaaaa", .code = 56, .words = "too long"},
    {.name = "an endless status line", .bytes = "HTTP/1.1 200 ", .again = "OK ", .code = 56, .words = "too long"},
    {.name = "endless empty headers", .bytes = HEAD, .again = "X:\r\n", .code = 56, .words = "too long"},
    {.name = "a 1xx flood",
     .bytes = "",
     .again = "HTTP/1.1 100 Continue\r\n\r\n",
     .code = 56,
     .words = "informational"},
    {.name = "a 1xx flood with fields",
     .bytes = "",
     .again = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
     .code = 56,
     .words = "informational"},
    {.name = "an endless 1xx head", .bytes = "HTTP/1.1 103 Early\r\n", .again = "Link: </a>\r\n", .code = 56},
    {.name = "some 1xx heads",
     .bytes = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" HEAD "Content-Length: 2\r\n\r\nok",
     .status = 200,
     .body = "ok"},
    {.name = "a 101 nobody asked for",
     .bytes = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" EVIL,
     .code = 56,
     .words = "status"},
    {.name = "a folded line", .bytes = HEAD "X-A: 1\r\n and: 2\r\nContent-Length: 0\r\n\r\n", .code = 56},
    {.name = "a folded first line", .bytes = HEAD " Content-Length: 5\r\n\r\nhello", .code = 56, .or_code = 43},
    {.name = "a name with a space",
     .bytes = HEAD "X Y: 1\r\nContent-Length: 0\r\n\r\n",
     .code = 56,
     .words = "malformed"},
    {.name = "a length's name with a space", .bytes = HEAD "Content-Length : 5\r\n\r\nhello", .code = 56},
    {.name = "a coding's name with a tab", .bytes = HEAD "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", .code = 56},
    {.name = "no name", .bytes = HEAD ": 1\r\nContent-Length: 0\r\n\r\n", .code = 56, .words = "malformed"},
    {.name = "no colon", .bytes = HEAD "Content-Length 5\r\n\r\nhello", .code = 56, .or_code = 8},
    {.name = "a NUL in a value",
     .bytes = HEAD "X: a\0b\r\nContent-Length: 0\r\n\r\n",
     .size = sizeof HEAD - 1 + 29,
     .code = 56,
     .or_code = 8},
    {.name = "a NUL in a name",
     .bytes = HEAD "X\0Y: b\r\nContent-Length: 0\r\n\r\n",
     .size = sizeof HEAD - 1 + 29,
     .code = 56,
     .or_code = 8},
    {.name = "a NUL in the status line", .bytes = "HTTP/1.1 2\0 0\r\n\r\n", .size = 17, .code = 56, .or_code = 1},
    {.name = "bare LF", .bytes = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", .status = 200, .body = "ok"},
    {.name = "bare CR in a value", .bytes = HEAD "X: a\rContent-Length: 3\r\nContent-Length: 2\r\n\r\nok", .code = 56},
    {.name = "status 99", .bytes = "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n", .code = 56, .or_code = 1},
    {.name = "status of four digits",
     .bytes = "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
     .code = 56,
     .or_code = 1},
    {.name = "status of letters", .bytes = "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", .code = 56, .or_code = 1},
    {.name = "no HTTP at all", .bytes = "SSH-2.0-OpenSSH_9.2\r\n\r\n", .end = CLOSE, .code = 1, .or_code = 56},
    {.name = "a body without a head", .bytes = "{\"ok\":true}", .end = CLOSE, .code = 1, .or_code = 56},
    {.name = "a shoutcast head",
     .bytes = "ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
     .end = CLOSE,
     .code = 1,
     .or_code = 56},
    {.name = "HTTP/3 by word",
     .bytes = "HTTP/3 200 OK\r\nContent-Length: 2\r\n\r\nok",
     .end = CLOSE,
     .code = 1,
     .or_code = 56},
    /* lengths */
    {.name = "two lengths", .bytes = HEAD "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", .code = 56},
    {.name = "two lengths in one", .bytes = HEAD "Content-Length: 5, 6\r\n\r\nhello!", .code = 56},
    {.name = "one length twice",
     .bytes = HEAD "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
     .status = 200,
     .body = "ok"},
    {.name = "a length and chunks",
     .bytes = HEAD "Content-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
     .status = 200,
     .body = "ok"},
    {.name = "chunks and a length",
     .bytes = HEAD "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
     .status = 200,
     .body = "ok"},
    {.name = "a negative length",
     .bytes = HEAD "Content-Length: -1\r\n\r\nhello",
     .end = CLOSE,
     .code = 56,
     .or_code = 8},
    {.name = "a length with a sign", .bytes = HEAD "Content-Length: +5\r\n\r\nhello", .end = CLOSE, .code = 56},
    {.name = "a length beyond 64 bits",
     .bytes = HEAD "Content-Length: 99999999999999999999\r\n\r\nhello",
     .end = CLOSE,
     .code = 56},
    {.name = "a huge length",
     .bytes = HEAD "Content-Length: 9223372036854775807\r\n\r\nhello",
     .end = CLOSE,
     .code = 18},
    {.name = "an empty length", .bytes = HEAD "Content-Length:\r\n\r\nhello", .end = CLOSE, .code = 56, .or_code = 8},
    {.name = "an unknown transfer coding",
     .bytes = HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
     .code = 56},
    {.name = "chunked twice", .bytes = HEAD "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", .code = 56},
    {.name = "chunked and something",
     .bytes = HEAD "Transfer-Encoding: xchunked\r\n\r\nhello",
     .end = CLOSE,
     .code = 56},
    /* chunks */
    {.name = "a chunk size of letters",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
     .code = 56},
    {.name = "a negative chunk size",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
     .code = 56},
    {.name = "a chunk size of 17 digits",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n",
     .code = 56},
    {.name = "a chunk size beyond 63 bits",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
     .code = 56},
    {.name = "a chunk longer than its size",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
     .code = 56},
    {.name = "an endless chunk size", .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\n", .again = "0", .code = 56},
    {.name = "an endless chunk extension",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\n5;",
     .again = "aaaaaaaaaaaaaaaa",
     .silent = true},
    {.name = "endless trailers",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
     .again = "X-Trailer: x\r\n",
     .code = 56,
     .words = "trailers"},
    {.name = "an endless trailer",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: ",
     .again = "aaaaaaaaaaaaaaaa",
     .code = 56},
    {.name = "endless chunks of one byte",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\n",
     .again = "1\r\na\r\n",
     .cancel_at = 2 * MEGABYTE},
    /* ends */
    {.name = "nothing", .bytes = "", .end = CLOSE, .code = 52},
    {.name = "half a head", .bytes = HEAD "Content-Le", .end = CLOSE, .code = 56},
    {.name = "a whole head but its end",
     .bytes = HEAD "Content-Length: 2\r\n",
     .end = CLOSE,
     .code = 56,
     .or_code = 18},
    {.name = "half a body", .bytes = HEAD "Content-Length: 10\r\n\r\nhello", .end = CLOSE, .code = 18},
    {.name = "half a body, reset",
     .bytes = HEAD "Content-Length: 10\r\n\r\nhello",
     .end = RESET,
     .code = 56,
     .or_code = 18},
    {.name = "half a chunk", .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\na\r\nhello", .end = CLOSE, .code = 18},
    {.name = "no last chunk",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
     .end = CLOSE,
     .code = 18},
    {.name = "an endless body", .bytes = HEAD "\r\n", .again = "aaaaaaaaaaaaaaaa", .cancel_at = 100 * MEGABYTE},
    {.name = "an endless line of events",
     .bytes = HEAD "Content-Type: text/event-stream\r\n\r\ndata: ",
     .again = "aaaaaaaaaaaaaaaa",
     .cancel_at = 100 * MEGABYTE},
    {.name = "a body to HEAD",
     .method = "HEAD",
     .bytes = HEAD "Content-Length: 43\r\n\r\n" EVIL,
     .status = 200,
     .body = ""},
    {.name = "a body to a 204", .bytes = "HTTP/1.1 204 No Content\r\n\r\n" EVIL, .status = 204, .body = ""},
    {.name = "a body to a 304",
     .bytes = "HTTP/1.1 304 Same\r\nContent-Length: 43\r\n\r\n" EVIL,
     .status = 304,
     .body = ""},
    /* what must not be the next request's answer */
    {.name = "a body past its length",
     .bytes = HEAD "Content-Length: 2\r\n\r\nok and more",
     .status = 200,
     .body = "ok"},
    {.name = "an answer past a length", .bytes = HEAD "Content-Length: 2\r\n\r\nok" EVIL, .status = 200, .body = "ok"},
    {.name = "an answer past an empty body", .bytes = HEAD "Content-Length: 0\r\n\r\n" EVIL, .status = 200, .body = ""},
    {.name = "an answer past the last chunk",
     .bytes = HEAD "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" EVIL,
     .status = 200,
     .body = "ok"},
    {.name = "endless bytes past a length",
     .bytes = HEAD "Content-Length: 2\r\n\r\nok",
     .again = EVIL,
     .status = 200,
     .body = "ok"},
    {.name = "an answer before the request",
     .unasked = true,
     .bytes = HEAD "Content-Length: 2\r\n\r\nok",
     .status = 200,
     .body = "ok"},
    {.name = "two answers before the request",
     .unasked = true,
     .bytes = HEAD "Content-Length: 2\r\n\r\nok" EVIL,
     .status = 200,
     .body = "ok"},
    {.name = "a closed connection that says keep-alive",
     .bytes = HEAD "Connection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
     .end = CLOSE,
     .status = 200,
     .body = "ok"},
};

/* Bytes of memory this process has in use. 0: not worth asking, sanitizers keep what was freed. */
static size_t resident(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 0;
#else
  unsigned long pages = 0;
  FILE *statm = fopen("/proc/self/statm", "r");
  assert_non_null(statm);
  assert_int_equal(fscanf(statm, "%*u %lu", &pages), 1);
  fclose(statm);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
#endif
}

static void check_ending(const struct row *row, const struct probe *probe)
{
  if (row->code) {
    if (probe->result.curl_code != row->code && probe->result.curl_code != row->or_code)
      SAY("%s: ended with %d (%s)\n", row->name, probe->result.curl_code, probe->message);
    if (row->words && !strstr(probe->message, row->words))
      SAY("%s: says \"%s\"\n", row->name, probe->message);
    assert_true(probe->result.sent);
    return;
  }
  if (probe->result.curl_code || probe->status != row->status || strcmp(probe->body, row->body) != 0)
    SAY("%s: %d (%s), status %d, body \"%s\"\n", row->name, probe->result.curl_code, probe->message, probe->status,
        probe->body);
}

static void play_row(struct world *world, const struct row *row)
{
  struct probe probe = {0};
  size_t before = resident();
  start(world, &probe, row->method ? row->method : "GET", PRY_SLICE(""));
  if (row->silent) {
    until_atomic(world, &plays, 1);
    for (int i = 0; i < 10; i++)
      pry_loop_turn(world->loop, PRY_MILLISECOND);
    assert_int_equal(probe.datas + probe.dones, 0);
  } else if (row->cancel_at) {
    pry_time end = pry_loop_now(world->loop) + GUARD_SECONDS * PRY_SECOND;
    while (probe.body_size < row->cancel_at && !probe.dones && pry_loop_now(world->loop) < end)
      pry_loop_turn(world->loop, 50 * PRY_MILLISECOND);
    if (probe.body_size < row->cancel_at)
      SAY("%s: gave %zu bytes\n", row->name, probe.body_size);
  } else {
    until(world, &probe.dones, 1);
    check_ending(row, &probe);
  }
  if (resident() > before + GROWTH_MAX)
    SAY("%s: takes %zu KiB\n", row->name, (resident() - before) / 1024);
  if (!probe.dones)
    pry_http_cancel(probe.exchange);
  assert_false(probe.out_of_order);
}

static void test_every_row(void **state)
{
  struct world *world = *state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    playing = &rows[i];
    atomic_store(&plays, 0);
    server_start(&world->server, serve_row);
    play_row(world, playing);
    few_turns(world); /* what comes late is there now */
    for (int j = 0; j < 2; j++) {
      struct probe next = finished(world, "GET", PRY_SLICE(""));
      if (next.result.curl_code || strcmp(next.body, "mine") != 0)
        SAY("%s: the next request got %d, \"%s\"\n", rows[i].name, next.result.curl_code, next.body);
    }
    assert_int_equal(atomic_load(&plays), 1);
    pry_http_free(world->http); /* makes a server wake up that waits on a kept connection */
    server_stop(&world->server);
    memset(&world->server, 0, sizeof world->server);
    world->http = pry_http_new(world->loop, NULL);
    assert_non_null(world->http);
  }
  print_message("%zu rows, %u wrong\n", sizeof rows / sizeof *rows, wrong);
  assert_int_equal(wrong, 0);
}

/* 200 MB, in pieces as small as a packet can be, to a reader that keeps nothing. */
static void serve_trickle(struct server *server, int fd)
{
  static char piece[4000];
  if (!read_request(server, fd) || !send_text(fd, HEAD "Content-Length: 200000000\r\n\r\n"))
    return;
  for (size_t i = 0; i < 200000000 / sizeof piece && send_bytes(fd, piece, sizeof piece); i++)
    ;
  wait_for_close(server, fd);
}

static void test_200_mb_in_a_trickle(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_trickle);
  struct probe probe = {0};
  size_t before = resident();
  start(world, &probe, "GET", PRY_SLICE(""));
  until(world, &probe.dones, 1);
  assert_int_equal(probe.result.curl_code, 0);
  assert_int_equal(probe.body_size, 200000000);
  assert_true(resident() <= before + GROWTH_MAX);
}

/* A reader that stops: the rest stays with the provider. */
static void test_200_mb_to_a_reader_that_stops(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_trickle);
  struct probe probe = {.pause = true};
  size_t before = resident();
  start(world, &probe, "GET", PRY_SLICE(""));
  until(world, &probe.datas, 1);
  for (int i = 0; i < 300; i++)
    pry_loop_turn(world->loop, PRY_MILLISECOND);
  assert_int_equal(probe.datas, 1);
  assert_true(resident() <= before + GROWTH_MAX);
  pry_http_cancel(probe.exchange);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(test_every_row),
      TEST(test_200_mb_in_a_trickle),
      TEST(test_200_mb_to_a_reader_that_stops),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
