/* The HTTP server: how requests, connections and servers end, and where servers listen. */
#include "server_rig.h"

#include <sys/stat.h>

/* ---- Clients that leave --------------------------------------------------------------------------------- */

enum leaving { CLOSES, RESETS, HALF_CLOSES };

static void leave(int fd, enum leaving how)
{
  if (how == CLOSES)
    client_close(fd);
  else if (how == RESETS)
    reset_close(fd);
  else
    client_half_close(fd);
}

static void check_gone(const char *address, const char *request, enum leaving how)
{
  struct bench b;
  bench_start(&b, address, NULL);
  int fd = dial(&b);
  say(fd, request);
  UNTIL(&b, b.count == 1);
  for (int i = 0; i < 3; i++)
    turn(&b, 0);
  assert_int_equal(b.gones, 0);
  pry_time left = pry_loop_now(b.loop);
  leave(fd, how);
  UNTIL(&b, b.gones == 1);
  assert_true(pry_loop_now(b.loop) - left < 200 * PRY_MILLISECOND);
  assert_int_equal(pry_server_connection_count(b.server), 0);
  assert_int_equal(pry_server_request_count(b.server), 0);
  if (how == HALF_CLOSES)
    client_close(fd);
  bench_stop(&b);
}

static void test_leaving_is_noticed(void **state)
{
  (void)state;
  static const char *const REQUESTS[] = {
      "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /wait HTTP/1.1\r\nHost: h\r\n\r\nGET /pipelined HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /begin HTTP/1.1\r\nHost: h\r\n\r\n",
      "POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nonly a part",
      "POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nnot read at all",
  };
  for (size_t i = 0; i < sizeof REQUESTS / sizeof *REQUESTS; i++)
    for (int how = CLOSES; how <= HALF_CLOSES; how++)
      check_gone("127.0.0.1:0", REQUESTS[i], (enum leaving)how);
  char address[64];
  snprintf(address, sizeof address, "unix:/tmp/parry-test-%d.sock", (int)getpid());
  check_gone(address, REQUESTS[0], CLOSES);
  check_gone(address, REQUESTS[2], HALF_CLOSES);
}

static void test_bytes_before_leaving(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1);
  say(fd, "x"); /* late bytes are kept for later, and hide nothing */
  turn(&b, 0);
  assert_int_equal(b.gones, 0);
  client_close(fd);
  UNTIL(&b, b.gones == 1);
  bench_stop(&b);
}

/* A reset that is reported together with the last bytes before it: nothing comes after it that would tell. */
static void test_a_reset_right_behind_the_bytes(void **state)
{
  (void)state;
  static const char *const REQUESTS[] = {
      "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n",
      "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf",
      "GET /wait HTTP/1.1\r\nHo",
  };
  for (size_t i = 0; i < sizeof REQUESTS / sizeof *REQUESTS; i++) {
    struct bench b;
    bench_start(&b, "127.0.0.1:0", NULL);
    int fd = dial(&b);
    UNTIL(&b, pry_server_connection_count(b.server) == 1);
    say(fd, REQUESTS[i]);
    reset_close(fd);
    UNTIL(&b, pry_server_connection_count(b.server) == 0);
    assert_int_equal(b.gones, b.count);
    bench_stop(&b);
  }
}

static void test_writing_to_a_client_that_left(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /begin HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  UNTIL(&b, evbuffer_get_length(pry_exchange_connection(b.handled[0].exchange)->output) == 0);
  reset_close(fd);
  static char piece[512 * 1024]; /* over the mark: written at once, from inside pry_reply_write() */
  b.in_reply = true;
  assert_true(pry_reply_write(b.handled[0].exchange, (struct pry_slice){piece, sizeof piece}));
  pry_reply_write(b.handled[0].exchange, (struct pry_slice){piece, sizeof piece});
  b.in_reply = false;
  assert_int_equal(b.gones, 0);
  UNTIL(&b, b.gones == 1);
  bench_stop(&b);
}

static void test_end_wins_over_gone(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  reset_close(fd);
  reply_body(&b.handled[0]);
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  assert_int_equal(b.gones, 0);
  bench_stop(&b);
}

/* ---- Deadlines ------------------------------------------------------------------------------------------ */

static void test_head_deadline(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.head_deadline = 0.08});
  int fd = dial(&b), silent = dial(&b);
  pry_time begun = pry_loop_now(b.loop);
  /* A byte now and then does not help. */
  for (const char *byte = "GET /echo HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"; *byte; byte++) {
    if (client_send(fd, byte, 1) < 0 || hear(fd, &text) != STILL_OPEN)
      break;
    pry_loop_turn(b.loop, 4 * PRY_MILLISECOND);
  }
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_ptr_equal(strstr(pry_buffer_text(&text), "HTTP/1.1 408 "), pry_buffer_text(&text));
  assert_true(pry_loop_now(b.loop) - begun >= 80 * PRY_MILLISECOND);
  pry_buffer_clear(&text);
  assert_int_equal(hear_end(&b, silent, &text), ENDED); /* who never said anything gets no answer */
  assert_int_equal(text.size, 0);
  pry_buffer_fini(&text);
  client_close(fd);
  client_close(silent);
  bench_stop(&b);
}

static void test_head_deadline_on_a_kept_connection(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.head_deadline = 0.05});
  int fd = dial(&b);
  say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, fd, &text, "\r\n\r\n");
  pry_time idle = pry_loop_now(b.loop);
  UNTIL(&b, pry_loop_now(b.loop) - idle > 100 * PRY_MILLISECOND); /* idle is allowed, for 75 s */
  say(fd, "GET /sl");
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_non_null(strstr(pry_buffer_text(&text), "HTTP/1.1 408 "));
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_keep_alive_deadline(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.keep_alive = 0.03});
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  pry_time begun = pry_loop_now(b.loop);
  UNTIL(&b, pry_loop_now(b.loop) - begun > 60 * PRY_MILLISECOND); /* an open request has no such deadline */
  reply_body(&b.handled[0]);
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_int_equal(times_in(pry_buffer_text(&text), "HTTP/1.1 "), 1);
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_body_deadline(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.body_idle = 0.05});
  int fd = dial(&b);
  say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_ptr_equal(strstr(pry_buffer_text(&text), "HTTP/1.1 408 "), pry_buffer_text(&text));
  assert_int_equal(b.gones, 1);
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_write_deadline(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.write_idle = 0.1});
  int fd = dial(&b);
  say(fd, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.gones == 1); /* it never reads */
  assert_true(b.pauses > 0);
  assert_int_equal(pry_server_connection_count(b.server), 0);
  client_close(fd);
  bench_stop(&b);
}

/* ---- Endings -------------------------------------------------------------------------------------------- */

static enum hearing abort_after(const char *request, bool start, char *got, size_t size)
{
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, request);
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  if (start)
    hear_part(&b, fd, &text, "begun");
  pry_reply_abort(b.handled[0].exchange);
  b.handled[0].finished = true;
  enum hearing end = hear_end(&b, fd, &text);
  snprintf(got, size, "%s", text.size ? pry_buffer_text(&text) : "");
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
  return end;
}

static void test_abort_never_looks_whole(void **state)
{
  (void)state;
  char got[512];
  assert_int_equal(abort_after("GET /begin HTTP/1.1\r\nHost: h\r\n\r\n", true, got, sizeof got), ENDED);
  assert_non_null(strstr(got, "5\r\nbegun\r\n"));
  assert_null(strstr(got, "0\r\n\r\n"));
  assert_int_equal(abort_after("GET /begin-length HTTP/1.1\r\nHost: h\r\n\r\n", true, got, sizeof got), ENDED);
  assert_non_null(strstr(got, "Content-Length: 10\r\n"));
  assert_int_equal(abort_after("GET /begin HTTP/1.0\r\n\r\n", true, got, sizeof got), RESET);
  assert_int_equal(abort_after("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n", false, got, sizeof got), RESET);
  assert_string_equal(got, "");
}

static void test_wrong_lengths(void **state)
{
  (void)state;
  for (int more = 0; more <= 1; more++) {
    struct bench b;
    struct pry_buffer text = {0};
    bench_start(&b, "127.0.0.1:0", NULL);
    int fd = dial(&b);
    say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    UNTIL(&b, b.count == 1 && b.handled[0].ends);
    assert_true(pry_reply_start(b.handled[0].exchange, 200, NULL, 4));
    assert_true(pry_reply_write(b.handled[0].exchange, more ? PRY_SLICE("12345") : PRY_SLICE("123")));
    pry_reply_end(b.handled[0].exchange);
    b.handled[0].finished = true;
    assert_int_equal(hear_end(&b, fd, &text), more ? RESET : ENDED);
    assert_null(strstr(text.size ? pry_buffer_text(&text) : "", "12345"));
    pry_buffer_fini(&text);
    client_close(fd);
    bench_stop(&b);
  }
}

static void test_end_without_start(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  pry_reply_end(b.handled[0].exchange);
  b.handled[0].finished = true;
  hear_part(&b, fd, &text, "HTTP/1.1 500 ");
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_drain(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0}, idle_text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int busy = dial(&b), idle = dial(&b), streaming = dial(&b);
  say(busy, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\nGET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
  say(streaming, "GET /begin HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 2 && pry_server_connection_count(b.server) == 3);
  pry_server_drain(b.server);
  assert_int_equal(hear_end(&b, idle, &idle_text), ENDED);
  assert_int_equal(idle_text.size, 0);
  assert_int_equal(pry_server_request_count(b.server), 2);
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  name.sin_port = htons((uint16_t)atoi(strrchr(pry_server_address(b.server), ':') + 1));
  int late = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(connect(late, (struct sockaddr *)&name, sizeof name), -1);
  struct handled *waiting = path_is(&b.handled[0], "/wait") ? &b.handled[0] : &b.handled[1];
  struct handled *begun = waiting == &b.handled[0] ? &b.handled[1] : &b.handled[0];
  reply_body(waiting);
  assert_int_equal(hear_end(&b, busy, &text), ENDED);
  assert_non_null(strstr(pry_buffer_text(&text), "Connection: close\r\n"));
  assert_int_equal(b.count, 2); /* what was pipelined behind is not begun */
  pry_reply_end(begun->exchange);
  begun->finished = true;
  assert_int_equal(hear_end(&b, streaming, &idle_text), ENDED);
  assert_non_null(strstr(pry_buffer_text(&idle_text), "0\r\n\r\n"));
  close(late);
  client_close(busy);
  client_close(idle);
  client_close(streaming);
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  pry_buffer_fini(&text);
  pry_buffer_fini(&idle_text);
  bench_stop(&b);
}

static void test_free_with_open_requests(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int one = dial(&b), two = dial(&b), idle = dial(&b);
  say(one, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  say(two, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 2 && b.pauses > 0);
  bench_stop(&b); /* checks that both were told */
  client_close(one);
  client_close(two);
  client_close(idle);
}

/* ---- Addresses ------------------------------------------------------------------------------------------ */

static struct pry_server *listen_as(struct bench *b, const char *address, const struct pry_server_options *options,
                                    char *error)
{
  error[0] = '\0';
  return pry_server_new(b->loop, address, options, &SERVER_RIG_OPS, b, error, 256);
}

static struct pry_server *listen_on(struct bench *b, const char *address, char *error)
{
  return listen_as(b, address, NULL, error);
}

static void test_addresses(void **state)
{
  (void)state;
  struct bench b;
  char error[256];
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.shared = true});
  static const char *const BAD[] = {
      "",        "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:8x", "example.com:80",
      "[::1:80", "::1:80",    "unix:",      "127.0.0.1:080000"};
  for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
    assert_null(listen_on(&b, BAD[i], error));
    assert_non_null(strstr(error, "cannot listen on "));
  }
  assert_null(listen_on(&b, pry_server_address(b.server), error));
  assert_non_null(strstr(error, "in use"));
  struct pry_server *six = listen_on(&b, "[::1]:0", error);
  if (six) { /* where there is IPv6 */
    assert_ptr_equal(strstr(pry_server_address(six), "[::1]:"), pry_server_address(six));
    pry_server_free(six);
  }
  bench_stop(&b);
}

/* Two programs of one user, each with several workers, once had half of the clients each, and nobody was told. And a unix
 * socket could not be listened on by more than one worker. */
static void listen_beside(const char *address)
{
  struct bench b;
  char error[256];
  bench_start(&b, address, &(struct pry_server_options){.shared = true});
  const char *bound = pry_server_address(b.server);
  assert_null(listen_as(&b, bound, &(struct pry_server_options){.shared = true}, error)); /* as another program would */
  assert_true(strstr(error, "in use") || strstr(error, "a running program listens there"));
  struct pry_server *others[3];
  for (size_t i = 0; i < 3; i++) {
    others[i] = listen_as(&b, NULL, &(struct pry_server_options){.beside = b.server}, error);
    assert_non_null(others[i]);
    assert_string_equal(pry_server_address(others[i]), bound);
  }
  assert_null(listen_as(&b, bound, &(struct pry_server_options){.shared = true}, error));
  for (size_t i = 0; i < 3; i++)
    pry_server_free(others[i]);
  bench_stop(&b);
}

static void test_only_servers_beside_it_share_an_address(void **state)
{
  (void)state;
  char folder[] = "/tmp/parry-beside-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "unix:%s/socket", folder);
  listen_beside("127.0.0.1:0");
  listen_beside(path);
  assert_int_equal(rmdir(folder), 0); /* the socket was removed */
}

static void test_virtual_loop_is_refused(void **state)
{
  (void)state;
  char error[256] = "";
  struct pry_loop *loop = pry_loop_new_virtual(0);
  assert_null(pry_server_new(loop, "127.0.0.1:0", NULL, &SERVER_RIG_OPS, NULL, error, sizeof error));
  assert_non_null(strstr(error, "epoll"));
  pry_loop_free(loop);
}

static void test_unix_socket(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  struct stat file;
  char directory[] = "/tmp/parry-test-XXXXXX", address[80], error[256];
  assert_non_null(mkdtemp(directory));
  snprintf(address, sizeof address, "unix:%s/s", directory);
  const char *path = address + 5;

  mode_t mask = umask(0);
  bench_start(&b, address, NULL);
  umask(mask);
  assert_string_equal(pry_server_address(b.server), address);
  assert_int_equal(lstat(path, &file), 0);
  assert_int_equal(file.st_mode & 07777, 0600);
  int fd = dial(&b);
  say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, fd, &text, "world");
  client_close(fd);

  assert_null(listen_on(&b, address, error)); /* somebody lives there */
  assert_non_null(strstr(error, "a running program listens there"));
  pry_server_free(b.server);
  assert_int_equal(lstat(path, &file), -1);

  struct sockaddr_un name = {.sun_family = AF_UNIX};
  strcpy(name.sun_path, path);
  int dead = socket(AF_UNIX, SOCK_STREAM, 0); /* bound, closed: what a killed process leaves */
  assert_int_equal(bind(dead, (struct sockaddr *)&name, sizeof name), 0);
  close(dead);
  b.server = listen_on(&b, address, error);
  assert_non_null(b.server);
  assert_int_equal(lstat(path, &file), 0);
  assert_int_equal(file.st_mode & 07777, 0600);

  unlink(path); /* a successor's socket is not ours to remove */
  int successor = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(bind(successor, (struct sockaddr *)&name, sizeof name), 0);
  pry_server_free(b.server);
  assert_int_equal(lstat(path, &file), 0);
  close(successor);
  unlink(path);

  int plain = open(path, O_CREAT | O_WRONLY, 0600);
  assert_null(listen_on(&b, address, error));
  assert_non_null(strstr(error, "not a socket"));
  assert_int_equal(lstat(path, &file), 0);
  close(plain);
  unlink(path);
  rmdir(directory);
  b.server = NULL;
  pry_buffer_fini(&text);
  bench_stop(&b);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_leaving_is_noticed),
      cmocka_unit_test(test_bytes_before_leaving),
      cmocka_unit_test(test_a_reset_right_behind_the_bytes),
      cmocka_unit_test(test_writing_to_a_client_that_left),
      cmocka_unit_test(test_end_wins_over_gone),
      cmocka_unit_test(test_head_deadline),
      cmocka_unit_test(test_head_deadline_on_a_kept_connection),
      cmocka_unit_test(test_keep_alive_deadline),
      cmocka_unit_test(test_body_deadline),
      cmocka_unit_test(test_write_deadline),
      cmocka_unit_test(test_abort_never_looks_whole),
      cmocka_unit_test(test_wrong_lengths),
      cmocka_unit_test(test_end_without_start),
      cmocka_unit_test(test_drain),
      cmocka_unit_test(test_free_with_open_requests),
      cmocka_unit_test(test_addresses),
      cmocka_unit_test(test_only_servers_beside_it_share_an_address),
      cmocka_unit_test(test_virtual_loop_is_refused),
      cmocka_unit_test(test_unix_socket),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
