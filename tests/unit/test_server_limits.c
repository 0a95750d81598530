/* The HTTP server: limits by address and in all, slow bodies, and sockets that several servers share. */
#include "server_rig.h"

#include <netinet/tcp.h>
#include <pthread.h>

/* ---- The table ------------------------------------------------------------------------------------------ */

static struct sockaddr_storage named(const char *text)
{
  struct sockaddr_storage address = {0};
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
  if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
    memcpy(&address, &v4, sizeof v4);
  else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1)
    memcpy(&address, &v6, sizeof v6);
  else
    address.ss_family = AF_UNIX;
  return address;
}

static enum pry_address_answer take(struct pry_address_limits *limits, const char *text,
                                    struct pry_address_place *place)
{
  struct sockaddr_storage address = named(text);
  return pry_address_limits_take(limits, (const struct sockaddr *)&address, place);
}

static void test_addresses_that_count_as_one(void **state)
{
  (void)state;
  static const struct {
    const char *first, *second;
    bool same;
  } CASES[] = {
      {"192.0.2.1", "192.0.2.1", true},
      {"192.0.2.1", "192.0.2.2", false},
      {"192.0.2.1", "::ffff:192.0.2.1", true},
      {"2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true},
      {"2001:db8:0:1::1", "2001:db8:0:2::1", false},
      {"127.0.0.1", "127.0.0.1", true},
      {"unix", "unix", true},
      {"unix", "0.0.0.0", false},
      {"::", "0.0.0.0", false},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    struct pry_address_place first, second;
    struct pry_address_limits *limits =
        pry_address_limits_new(&(struct pry_address_limits_options){.max_connections_per_address = 1});
    assert_int_equal(take(limits, CASES[i].first, &first), PRY_ADDRESS_WELCOME);
    enum pry_address_answer expected = CASES[i].same ? PRY_ADDRESS_TOO_MANY_HERE : PRY_ADDRESS_WELCOME;
    assert_int_equal(take(limits, CASES[i].second, &second), expected);
    assert_int_equal(pry_address_limits_connection_count(limits), CASES[i].same ? 1 : 2);
    pry_address_limits_give(limits, &second); /* the place of a refusal is empty */
    pry_address_limits_give(limits, &first);
    pry_address_limits_give(limits, &first);
    assert_int_equal(pry_address_limits_connection_count(limits), 0);
    assert_int_equal(pry_address_limits_address_count(limits), 0);
    assert_int_equal(take(limits, CASES[i].second, &second), PRY_ADDRESS_WELCOME);
    pry_address_limits_unref(limits); /* with a place taken */
  }
}

static void test_exempt_and_total(void **state)
{
  (void)state;
  struct pry_address_place places[6];
  struct pry_address_limits *limits = pry_address_limits_new(&(struct pry_address_limits_options){
      .max_connections_per_address = 1, .max_connections = 5, .exempt_local = true});
  assert_int_equal(take(limits, "127.0.0.1", &places[0]), PRY_ADDRESS_WELCOME);
  assert_int_equal(take(limits, "127.0.0.1", &places[1]), PRY_ADDRESS_WELCOME);
  assert_int_equal(take(limits, "::1", &places[2]), PRY_ADDRESS_WELCOME);
  assert_int_equal(take(limits, "::1", &places[3]), PRY_ADDRESS_WELCOME);
  assert_int_equal(take(limits, "192.0.2.1", &places[4]), PRY_ADDRESS_WELCOME);
  assert_int_equal(take(limits, "192.0.2.1", &places[5]), PRY_ADDRESS_TOO_MANY);
  pry_address_limits_give(limits, &places[0]);
  assert_int_equal(take(limits, "192.0.2.1", &places[5]), PRY_ADDRESS_TOO_MANY_HERE);
  assert_int_equal(take(limits, "unix", &places[5]), PRY_ADDRESS_WELCOME);
  pry_address_limits_unref(pry_address_limits_ref(limits));
  pry_address_limits_unref(limits);
}

static void test_many_addresses(void **state)
{
  (void)state;
  enum { MANY = 5000 };
  static struct pry_address_place places[MANY][2];
  struct pry_address_place third;
  struct pry_address_limits *limits =
      pry_address_limits_new(&(struct pry_address_limits_options){.max_connections_per_address = 2});
  char text[64];
  for (int i = 0; i < MANY; i++) {
    snprintf(text, sizeof text, i % 2 ? "10.0.%d.%d" : "2001:db8:%x:%x::1", i / 200, i % 200);
    for (int j = 0; j < 2; j++)
      assert_int_equal(take(limits, text, &places[i][j]), PRY_ADDRESS_WELCOME);
    assert_int_equal(take(limits, text, &third), PRY_ADDRESS_TOO_MANY_HERE);
  }
  assert_int_equal(pry_address_limits_address_count(limits), MANY);
  for (int i = 0; i < MANY; i++)
    for (int j = 0; j < 2; j++)
      pry_address_limits_give(limits, &places[i][j]);
  assert_int_equal(pry_address_limits_address_count(limits), 0);
  pry_address_limits_unref(limits);
}

static void *come_and_go(void *user)
{
  struct pry_address_place place;
  for (int i = 0; i < 20000; i++)
    if (take(user, i % 3 ? "192.0.2.1" : "192.0.2.2", &place) == PRY_ADDRESS_WELCOME)
      pry_address_limits_give(user, &place);
  return NULL;
}

static void test_threads(void **state)
{
  (void)state;
  pthread_t threads[3];
  struct pry_address_limits *limits =
      pry_address_limits_new(&(struct pry_address_limits_options){.max_connections_per_address = 2});
  for (int i = 0; i < 3; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, limits), 0);
  for (int i = 0; i < 3; i++)
    pthread_join(threads[i], NULL);
  assert_int_equal(pry_address_limits_connection_count(limits), 0);
  assert_int_equal(pry_address_limits_address_count(limits), 0);
  pry_address_limits_unref(limits);
}

/* ---- In the server -------------------------------------------------------------------------------------- */

static void check_turned_away(struct bench *b, const char *status_line)
{
  struct pry_buffer text = {0};
  int fd = dial(b);
  assert_int_equal(hear_end(b, fd, &text), ENDED);
  assert_ptr_equal(strstr(pry_buffer_text(&text), status_line), pry_buffer_text(&text));
  assert_int_equal(times_in(pry_buffer_text(&text), "HTTP/1.1 "), 1);
  pry_buffer_fini(&text);
  client_close(fd);
}

static void test_limits_across_servers(void **state)
{
  (void)state;
  struct bench one, two;
  struct pry_buffer text = {0};
  struct pry_address_limits *limits =
      pry_address_limits_new(&(struct pry_address_limits_options){.max_connections_per_address = 2});
  bench_start(&one, "127.0.0.1:0", &(struct pry_server_options){.limits = limits});
  bench_start(&two, "127.0.0.1:0", &(struct pry_server_options){.limits = limits});
  int first = dial(&one), second = dial(&two);
  UNTIL(&one, pry_server_connection_count(one.server) == 1);
  UNTIL(&two, pry_server_connection_count(two.server) == 1);
  check_turned_away(&one, "HTTP/1.1 429 ");
  check_turned_away(&two, "HTTP/1.1 429 ");
  assert_int_equal(one.count + two.count, 0);
  client_close(first);
  UNTIL(&one, pry_server_connection_count(one.server) == 0);
  int third = dial(&two);
  say(third, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&two, third, &text, "world");
  pry_buffer_fini(&text);
  client_close(second);
  client_close(third);
  bench_stop(&one);
  bench_stop(&two); /* with connections: their places come back */
  assert_int_equal(pry_address_limits_connection_count(limits), 0);
  pry_address_limits_unref(limits);
}

static void test_total_across_servers(void **state)
{
  (void)state;
  struct bench b;
  struct pry_address_limits *limits =
      pry_address_limits_new(&(struct pry_address_limits_options){.max_connections = 1});
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.limits = limits});
  int fd = dial(&b);
  UNTIL(&b, pry_server_connection_count(b.server) == 1);
  check_turned_away(&b, "HTTP/1.1 503 ");
  client_close(fd);
  bench_stop(&b);
  pry_address_limits_unref(limits);
}

/* ---- Slow bodies ---------------------------------------------------------------------------------------- */

/* Sends a body a byte at a time, never silent for long. Milliseconds until the server had enough, or 0. */
static pry_time trickle(const struct pry_server_options *options, pry_time at_most)
{
  struct bench b;
  struct pry_buffer text = {0};
  pry_time ended = 0;
  bench_start(&b, "127.0.0.1:0", options);
  int fd = dial(&b);
  say(fd, "POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
  UNTIL(&b, b.count == 1);
  pry_time started = pry_loop_now(b.loop);
  while (!ended && pry_loop_now(b.loop) - started < at_most) {
    client_send(fd, "x", 1);
    pry_loop_turn(b.loop, PRY_MILLISECOND);
    if (hear(fd, &text) != STILL_OPEN)
      ended = pry_loop_now(b.loop) - started;
  }
  if (ended) {
    assert_ptr_equal(strstr(pry_buffer_text(&text), "HTTP/1.1 408 "), pry_buffer_text(&text));
    assert_int_equal(b.gones, 1);
  }
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
  return ended;
}

static void test_a_trickled_body_ends(void **state)
{
  (void)state;
  /* A byte a millisecond is at most 1,000 a second. */
  pry_time by_rate =
      trickle(&(struct pry_server_options){.body_rate = 1e6, .body_slack = 0.1, .body_idle = 5}, 5 * PRY_SECOND);
  assert_true(by_rate >= 90 * PRY_MILLISECOND);
  pry_time by_deadline = trickle(&(struct pry_server_options){.body_rate = 1, .body_deadline = 0.1}, 5 * PRY_SECOND);
  assert_true(by_deadline >= 90 * PRY_MILLISECOND);
  assert_int_equal(trickle(&(struct pry_server_options){.body_rate = 1, .body_slack = 0.1}, 300 * PRY_MILLISECOND), 0);
}

/* What was sent fast at first is no credit for a trickle afterwards. */
static void test_a_burst_is_not_saved_up(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  static char burst[50001];
  memset(burst, 'x', sizeof burst - 1);
  bench_start(&b, "127.0.0.1:0",
              &(struct pry_server_options){.body_rate = 100 * 1000, .body_slack = 0.05, .body_idle = 5});
  int fd = dial(&b);
  say(fd, "POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
  say(fd, burst); /* half a second's worth */
  UNTIL(&b, b.count == 1 && b.handled[0].body.size == sizeof burst - 1);
  pry_time started = pry_loop_now(b.loop);
  while (hear(fd, &text) == STILL_OPEN) {
    client_send(fd, "x", 1);
    assert_true(turn(&b, started));
  }
  assert_ptr_equal(strstr(pry_buffer_text(&text), "HTTP/1.1 408 "), pry_buffer_text(&text));
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_held_time_is_not_the_client_s(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0",
              &(struct pry_server_options){.body_rate = 1e6, .body_slack = 0.1, .body_deadline = 0.1, .body_idle = 5});
  int fd = dial(&b);
  say(fd, "POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n");
  UNTIL(&b, b.count == 1);
  pry_time begun = pry_loop_now(b.loop);
  UNTIL(&b, pry_loop_now(b.loop) - begun > 200 * PRY_MILLISECOND);
  pry_reply_hold_body(b.handled[0].exchange, false);
  say(fd, "body");
  UNTIL(&b, b.handled[0].ends);
  reply_body(&b.handled[0]);
  client_close(fd);
  bench_stop(&b);
}

/* A client whose machine vanished says nothing more; while it waits for an answer, only the kernel can find out. */
static void test_the_kernel_looks_after_silent_clients(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1);
  int served = pry_exchange_connection(b.handled[0].exchange)->fd, on = 0, seconds = 0, no_delay = 0;
  socklen_t size = sizeof on;
  assert_int_equal(getsockopt(served, SOL_SOCKET, SO_KEEPALIVE, &on, &size), 0);
  assert_int_equal(getsockopt(served, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, &size), 0);
  assert_int_equal(getsockopt(served, IPPROTO_TCP, TCP_NODELAY, &no_delay, &size), 0);
  assert_true(on && no_delay && seconds <= 60);
  client_close(fd);
  bench_stop(&b);
}

/* ---- Shared sockets ------------------------------------------------------------------------------------- */

static int listen_tcp(void)
{
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
  assert_int_equal(listen(fd, 64), 0);
  return fd;
}

static void bench_adopt(struct bench *b, int fd)
{
  bench_start(b, NULL, &(struct pry_server_options){.listen_fd = fd});
}

static void check_answers(struct bench *b, struct bench *other, int fd)
{
  struct pry_buffer text = {0};
  say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  pry_time started = pry_loop_now(b->loop);
  while (!text.size || !strstr(pry_buffer_text(&text), "world")) {
    assert_int_equal(hear(fd, &text), STILL_OPEN);
    assert_true(turn(b, started));
    if (other)
      turn(other, started);
  }
  pry_buffer_fini(&text);
  client_close(fd);
}

static void test_two_servers_on_one_socket(void **state)
{
  (void)state;
  struct bench one, two;
  int listener = listen_tcp();
  bench_adopt(&one, listener);
  bench_adopt(&two, listener);
  close(listener);
  assert_string_equal(pry_server_address(one.server), pry_server_address(two.server));
  assert_int_equal(strncmp(pry_server_address(one.server), "127.0.0.1:", 10), 0);
  int fds[20];
  for (int i = 0; i < 20; i++)
    fds[i] = dial(&one);
  pry_loop_turn(one.loop, 0); /* takes a few and leaves the rest to the other */
  size_t taken = pry_server_connection_count(one.server);
  assert_true(taken > 0 && taken < 20);
  pry_loop_turn(two.loop, 0);
  assert_true(pry_server_connection_count(two.server) > 0);
  for (int i = 0; i < 20; i++)
    check_answers(&one, &two, fds[i]);
  int late = dial(&one);
  pry_server_drain(one.server); /* who waits now is the other's */
  assert_int_equal(pry_server_connection_count(two.server), 0);
  check_answers(&two, &one, late);
  check_answers(&two, NULL, dial(&two));
  bench_stop(&one);
  bench_stop(&two);
}

static void test_an_adopted_socket_file_stays(void **state)
{
  (void)state;
  struct bench b;
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  char expected[128];
  snprintf(name.sun_path, sizeof name.sun_path, "/tmp/parry-test-%d.sock", (int)getpid());
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(listener, (struct sockaddr *)&name, sizeof name), 0);
  assert_int_equal(listen(listener, 8), 0);
  bench_adopt(&b, listener);
  snprintf(expected, sizeof expected, "unix:%s", name.sun_path);
  assert_string_equal(pry_server_address(b.server), expected);
  check_answers(&b, NULL, dial(&b));
  bench_stop(&b);
  assert_int_equal(access(name.sun_path, F_OK), 0);
  bench_adopt(&b, listener); /* a second life of the same socket */
  check_answers(&b, NULL, dial(&b));
  bench_stop(&b);
  close(listener);
  unlink(name.sun_path);
}

static void test_what_cannot_be_adopted(void **state)
{
  (void)state;
  char error[256];
  struct bench b = {.loop = pry_loop_new()};
  int ends[2], unbound = socket(AF_INET, SOCK_STREAM, 0), datagram = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(pipe(ends), 0);
  int fds[] = {ends[0], unbound, datagram, 100000};
  for (size_t i = 0; i < 4; i++) {
    assert_null(pry_server_new(b.loop, NULL, &(struct pry_server_options){.listen_fd = fds[i]}, &SERVER_RIG_OPS, &b,
                               error, sizeof error));
    assert_non_null(strstr(error, "no stream socket that listens"));
  }
  close(ends[0]);
  close(ends[1]);
  close(unbound);
  close(datagram);
  pry_loop_free(b.loop);
}

/* A listener broken by somebody else is readable for ever, and must not make the loop spin. */
static void test_a_listener_shut_by_another(void **state)
{
  (void)state;
  struct bench b;
  int listener = listen_tcp();
  bench_adopt(&b, listener);
  shutdown(listener, SHUT_RDWR);
  int turns = 0;
  for (pry_time start = pry_loop_now(b.loop); pry_loop_now(b.loop) - start < 50 * PRY_MILLISECOND; turns++)
    pry_loop_turn(b.loop, 10 * PRY_MILLISECOND);
  assert_true(turns < 50);
  close(listener);
  bench_stop(&b);
}

/* The kernel resets whoever waits in the backlog of a socket that is closed; so they are let in first. */
static void test_drain_answers_the_backlog(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
  pry_server_drain(b.server); /* before the loop turned once */
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_non_null(strstr(pry_buffer_text(&text), "200 OK"));
  assert_non_null(strstr(pry_buffer_text(&text), "Connection: close"));
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_addresses_that_count_as_one),
      cmocka_unit_test(test_exempt_and_total),
      cmocka_unit_test(test_many_addresses),
      cmocka_unit_test(test_threads),
      cmocka_unit_test(test_limits_across_servers),
      cmocka_unit_test(test_total_across_servers),
      cmocka_unit_test(test_a_trickled_body_ends),
      cmocka_unit_test(test_a_burst_is_not_saved_up),
      cmocka_unit_test(test_held_time_is_not_the_client_s),
      cmocka_unit_test(test_the_kernel_looks_after_silent_clients),
      cmocka_unit_test(test_two_servers_on_one_socket),
      cmocka_unit_test(test_an_adopted_socket_file_stays),
      cmocka_unit_test(test_what_cannot_be_adopted),
      cmocka_unit_test(test_a_listener_shut_by_another),
      cmocka_unit_test(test_drain_answers_the_backlog),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
