/* The curl client against a scripted server on 127.0.0.1: raw bytes over real sockets. */
#include "http_rig.h"

#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>

/* ---- Ordinary answers -------------------------------------------------------------------------------------- */

static void serve_plain(struct server *server, int fd)
{
  while (read_request(server, fd))
    if (!send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Test:  yes \r\n\r\nhello"))
      return;
}

static void test_plain_answer_and_reuse(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_plain);
  for (int i = 0; i < 3; i++) {
    struct probe probe = finished(world, "GET", PRY_SLICE(""));
    assert_int_equal(probe.result.curl_code, 0);
    assert_int_equal(probe.status, 200);
    assert_string_equal(probe.body, "hello");
    assert_string_equal(probe.header_x, "yes");
    assert_int_equal(probe.connected, 1);
    assert_int_equal(probe.heads, 1);
    assert_true(probe.result.connected && probe.result.sent && probe.result.head_received);
  }
  assert_int_equal(atomic_load(&world->server.accepts), 1);
  assert_int_equal(atomic_load(&world->server.requests), 3);
}

static void test_what_is_sent(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_plain);
  struct pry_headers headers;
  pry_headers_init(&headers);
  static const char *const lines[][2] = {{"X-One", "1"},
                                         {"X-One", "2"},
                                         {"X-Empty", ""},
                                         {"host", "evil"},
                                         {"Content-Length", "9"},
                                         {"Transfer-Encoding", "chunked"},
                                         {"connection", "x-one"},
                                         {"expect", "100-continue"},
                                         {"accept-encoding", "gzip"},
                                         {"Upgrade", "h2c"},
                                         {"Authorization", "Bearer t"}};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
    assert_true(pry_headers_add(&headers, pry_slice_of(lines[i][0]), pry_slice_of(lines[i][1])));
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%d/a/../b?c=%%20d", world->server.port);
  struct pry_http_request request = {.method = "POST", .url = url, .headers = &headers, .body = PRY_SLICE("a\0b")};
  struct probe probe = {0};
  start_request(world, &probe, &request);
  pry_headers_fini(&headers);
  memset(url, 'x', sizeof url - 1);
  until(world, &probe.dones, 1);
  char expected[512];
  snprintf(
      expected, sizeof expected,
      "POST /a/../b?c=%%20d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: identity\r\nX-One: 1\r\nX-One: 2\r\n"
      "X-Empty:\r\nAuthorization: Bearer t\r\nContent-Length: 3\r\n\r\na",
      world->server.port);
  assert_string_equal(last_request(&world->server), expected);
  assert_memory_equal(last_request(&world->server) + strlen(expected) - 1, "a\0b", 3);
}

static void test_methods(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_plain);
  finished(world, "POST", PRY_SLICE(""));
  assert_non_null(strstr(last_request(&world->server), "POST /"));
  assert_non_null(strstr(last_request(&world->server), "\r\nContent-Length: 0\r\n"));
  finished(world, "DELETE", PRY_SLICE(""));
  assert_non_null(strstr(last_request(&world->server), "DELETE /"));
  assert_null(strstr(last_request(&world->server), "Content-Length"));
  finished(world, "PATCH", PRY_SLICE("xyz"));
  assert_non_null(strstr(last_request(&world->server), "PATCH /"));
  assert_non_null(strstr(last_request(&world->server), "\r\nContent-Length: 3\r\n"));
  assert_null(strstr(last_request(&world->server), "Content-Type"));
  assert_null(strstr(last_request(&world->server), "User-Agent"));
  assert_null(strstr(last_request(&world->server), "Accept:"));
}

static void serve_nothing(struct server *server, int fd)
{
  while (read_request(server, fd) && send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    ;
}

enum { KINDS = 8 };

static void finish_kind(struct world *world, int kind, char *seen)
{
  const struct pry_http_request kinds[KINDS] = {
      {.method = "GET"},
      {.method = "HEAD"},
      {.method = "POST", .has_body = true},
      {.method = "POST", .body = PRY_SLICE("some text")},
      {.method = "POST", .upload = true, .upload_size = 7},
      {.method = "PUT", .upload = true, .upload_size = 3},
      {.method = "DELETE"},
      {.method = "GET", .body = PRY_SLICE("asks")},
  };
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%d/%d", world->server.port, kind);
  struct pry_headers headers;
  pry_headers_init(&headers);
  for (int i = 0; i < kind * 5; i++)
    pry_headers_add(&headers, PRY_SLICE("X-Some"), PRY_SLICE("some value"));
  struct pry_http_request request = kinds[kind];
  request.url = url;
  request.headers = kind % 2 ? &headers : NULL;
  struct probe probe = {.upload_total = (size_t)request.upload_size};
  start_request(world, &probe, &request);
  until(world, &probe.dones, 1);
  assert_int_equal(probe.result.curl_code, 0);
  pry_headers_fini(&headers);
  strcpy(seen, last_request(&world->server));
}

/* Whatever a handle was used for before, it sends what a new one sends. */
static void test_used_handles_are_as_good_as_new(void **state)
{
  struct world *world = *state;
  static char expected[KINDS][REQUEST_MAX], seen[REQUEST_MAX];
  server_start(&world->server, serve_nothing);
  for (int kind = 0; kind < KINDS; kind++) {
    finish_kind(world, kind, expected[kind]);
    pry_http_free(world->http);
    world->http = pry_http_new(world->loop, NULL);
    assert_non_null(world->http);
  }
  assert_non_null(strstr(expected[3], "some text"));
  assert_non_null(strstr(expected[4], "0123456"));
  for (int before = 0; before < KINDS; before++) {
    for (int kind = 0; kind < KINDS; kind++) {
      finish_kind(world, before, seen);
      finish_kind(world, kind, seen);
      assert_string_equal(seen, expected[kind]);
    }
  }
}

static void serve_one_of_two(struct server *server, int fd)
{
  if (read_request(server, fd) && send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
    read_request(server, fd); /* taken, and closed without an answer */
}

/* curl gave up on a handle that had repeated five requests in its life, though each of them was answered in the end. */
static void test_repeats_are_not_counted_across_requests(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_one_of_two);
  for (int i = 0; i < 20; i++) {
    struct probe probe = finished(world, "GET", PRY_SLICE(""));
    assert_int_equal(probe.result.curl_code, 0);
    assert_string_equal(probe.body, "hello");
  }
  assert_int_equal(atomic_load(&world->server.accepts), 20);
}

static void serve_head_only(struct server *server, int fd)
{
  while (read_request(server, fd) && send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"))
    ;
}

static void test_head(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_head_only);
  for (int i = 0; i < 2; i++) {
    struct probe probe = finished(world, "HEAD", PRY_SLICE(""));
    assert_int_equal(probe.result.curl_code, 0);
    assert_int_equal(probe.heads, 1);
    assert_int_equal(probe.datas, 0);
  }
  assert_int_equal(atomic_load(&world->server.accepts), 1);
}

static void serve_chunked(struct server *server, int fd)
{
  while (read_request(server, fd))
    if (!send_text(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-Test: early\r\n\r\n"
                       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Late: 1\r\n\r\n"
                       "3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Test: trailer\r\n\r\n"))
      return;
}

static void test_chunks_interim_heads_and_trailers(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_chunked);
  for (int i = 0; i < 2; i++) {
    struct probe probe = finished(world, "GET", PRY_SLICE(""));
    assert_int_equal(probe.result.curl_code, 0);
    assert_int_equal(probe.heads, 1);
    assert_int_equal(probe.status, 200);
    assert_int_equal(probe.head_lines, 2);
    assert_string_equal(probe.header_x, "");
    assert_string_equal(probe.body, "abcde");
  }
  assert_int_equal(atomic_load(&world->server.accepts), 1);
}

static void serve_empty(struct server *server, int fd)
{
  while (read_request(server, fd) && send_text(fd, "HTTP/1.1 204 No Content\r\n\r\n"))
    ;
}

static void test_empty_answer_has_a_head(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_empty);
  struct probe probe = finished(world, "POST", PRY_SLICE("x"));
  assert_int_equal(probe.status, 204);
  assert_int_equal(probe.heads, 1);
  assert_int_equal(probe.datas, 0);
}

static void serve_gzip(struct server *server, int fd)
{
  while (read_request(server, fd) &&
         send_text(
             fd, "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8bzz"))
    ;
}

static void test_no_decoding_no_redirect(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_gzip);
  struct probe probe = finished(world, "GET", PRY_SLICE(""));
  assert_int_equal(probe.status, 302);
  assert_string_equal(probe.body, "\x1f\x8bzz");
  assert_int_equal(atomic_load(&world->server.requests), 1);
}

/* ---- Failures ---------------------------------------------------------------------------------------------- */

static void test_refused(void **state)
{
  struct world *world = *state;
  int fd = bind_loopback(&world->server.port); /* bound, not listening: refuses */
  struct probe probe = finished(world, "POST", PRY_SLICE("x"));
  assert_int_equal(probe.result.curl_code, PRY_HTTP_COULDNT_CONNECT);
  assert_false(probe.result.connected);
  assert_false(probe.result.sent);
  assert_int_equal(probe.connected, 0);
  assert_true(strlen(probe.message) > 0);
  close(fd);
}

static void serve_reset(struct server *server, int fd)
{
  read_request(server, fd);
  reset(fd);
}

static void test_reset_before_head(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_reset);
  struct probe probe = finished(world, "POST", PRY_SLICE("x"));
  assert_int_equal(probe.result.curl_code, PRY_HTTP_RECEIVE_FAILED);
  assert_true(probe.result.connected && probe.result.sent);
  assert_false(probe.result.head_received);
  assert_int_equal(atomic_load(&world->server.requests), 1);
}

static void serve_cut(struct server *server, int fd)
{
  if (read_request(server, fd))
    send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
}

static void serve_cut_chunked(struct server *server, int fd)
{
  if (read_request(server, fd))
    send_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
}

static void check_cut(struct world *world, serve_fn serve)
{
  server_start(&world->server, serve);
  struct probe probe = finished(world, "GET", PRY_SLICE(""));
  assert_int_equal(probe.result.curl_code, PRY_HTTP_CUT);
  assert_true(probe.result.head_received);
  assert_string_equal(probe.body, "hello");
}

static void test_cut_inside_body(void **state)
{
  check_cut(*state, serve_cut);
}

static void test_cut_inside_chunked_body(void **state)
{
  check_cut(*state, serve_cut_chunked);
}

/* First an answer that keeps the connection; the second request on it is read, then nothing comes back. */
static void serve_then_hang_up(struct server *server, int fd)
{
  static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
  if (atomic_load(&server->accepts) > 1) {
    serve_plain(server, fd);
    return;
  }
  if (read_request(server, fd) && send_text(fd, answer))
    read_request(server, fd);
}

static void test_post_is_never_sent_twice(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_then_hang_up);
  finished(world, "POST", PRY_SLICE("x"));
  struct probe probe = finished(world, "POST", PRY_SLICE("x"));
  assert_int_equal(probe.result.curl_code, PRY_HTTP_GOT_NOTHING);
  assert_true(probe.result.sent);
  assert_int_equal(probe.connected, 1);
  assert_int_equal(probe.heads, 0);
  assert_int_equal(atomic_load(&world->server.requests), 2);
}

static void test_get_survives_a_dead_kept_connection(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_then_hang_up);
  finished(world, "GET", PRY_SLICE(""));
  struct probe probe = finished(world, "GET", PRY_SLICE(""));
  assert_int_equal(probe.result.curl_code, 0);
  assert_int_equal(probe.connected, 1);
  assert_int_equal(probe.heads, 1);
  assert_int_equal(atomic_load(&world->server.accepts), 2);
}

static void serve_once(struct server *server, int fd)
{
  if (read_request(server, fd))
    send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
}

static void test_idle_connection_closed_by_peer(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_once);
  for (int i = 1; i <= 3; i++) {
    struct probe probe = finished(world, "POST", PRY_SLICE("x"));
    assert_int_equal(probe.result.curl_code, 0);
    assert_int_equal(atomic_load(&world->server.accepts), i);
    /* The end of the idle connection wakes the loop a few times at most, not forever. */
    int quick = 0;
    for (int turn = 0; turn < 30; turn++) {
      pry_time before = pry_loop_now(world->loop);
      pry_loop_turn(world->loop, 2 * PRY_MILLISECOND);
      quick += pry_loop_now(world->loop) - before < PRY_MILLISECOND;
    }
    assert_true(quick < 15);
  }
}

/* An answer, and when the client says so another that nobody asked for; later connections are served well. */
static void serve_unasked(struct server *server, int fd)
{
  if (atomic_load(&server->accepts) > 1) {
    serve_plain(server, fd);
    return;
  }
  if (!read_request(server, fd) || !send_text(fd, "HTTP/1.1 204 No Content\r\n\r\n"))
    return;
  while (!atomic_load(&server->eof_seen))
    usleep(1000);
  send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
  atomic_fetch_add(&server->eof_seen, 1);
  read_request(server, fd);
}

static void test_unasked_answer_on_a_kept_connection(void **state)
{
  struct world *world = *state;
  static const char *const METHODS[] = {"POST", "GET"};
  for (size_t i = 0; i < 2; i++) {
    server_start(&world->server, serve_unasked);
    assert_int_equal(finished(world, METHODS[i], PRY_SLICE("x")).status, 204);
    atomic_fetch_add(&world->server.eof_seen, 1);
    until_atomic(world, &world->server.eof_seen, 2);
    few_turns(world);
    struct probe probe = finished(world, METHODS[i], PRY_SLICE("x"));
    assert_int_equal(probe.result.curl_code, 0);
    assert_string_equal(probe.body, "hello");
    assert_int_equal(probe.connected, 1);
    assert_int_equal(atomic_load(&world->server.accepts), 2);
    assert_int_equal(atomic_load(&world->server.requests), 2); /* nothing went out on the first connection again */
    if (i == 0)
      server_stop(&world->server);
  }
}

/* ---- A hostile server --------------------------------------------------------------------------------------- */

static void serve_endless_head(struct server *server, int fd)
{
  if (!read_request(server, fd) || !send_text(fd, "HTTP/1.1 200 OK\r\n"))
    return;
  while (send_text(fd, "X-Again: and again\r\n"))
    ;
}

static void serve_long_lines(struct server *server, int fd)
{
  static char line[90 * 1024];
  memset(line, 'x', sizeof line);
  memcpy(line, "a:", 2);
  memcpy(line + sizeof line - 2, "\r\n", 2);
  if (read_request(server, fd) && send_text(fd, "HTTP/1.1 200 OK\r\n"))
    while (send_bytes(fd, line, sizeof line))
      ;
}

static void serve_endless_line(struct server *server, int fd)
{
  if (read_request(server, fd) && send_text(fd, "HTTP/1.1 200 OK\r\na:"))
    while (send_text(fd, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"))
      ;
}

static void serve_interim_flood(struct server *server, int fd)
{
  if (!read_request(server, fd))
    return;
  while (send_text(fd, "HTTP/1.1 102 Processing\r\n\r\n"))
    ;
}

static void serve_trailer_flood(struct server *server, int fd)
{
  if (!read_request(server, fd) || !send_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"))
    return;
  while (send_text(fd, "X-Again: and again\r\n"))
    ;
}

static void serve_folded(struct server *server, int fd)
{
  if (read_request(server, fd))
    send_text(fd, "HTTP/1.1 200 OK\r\nX-Test: a\r\n b\r\nContent-Length: 0\r\n\r\n");
}

static void serve_switching(struct server *server, int fd)
{
  if (read_request(server, fd))
    send_text(fd, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nzzz");
}

static void serve_two_status_lines(struct server *server, int fd)
{
  if (read_request(server, fd))
    send_text(fd, "HTTP/1.1 200 OK\r\nHTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
}

static void serve_not_http(struct server *server, int fd)
{
  if (read_request(server, fd))
    send_text(fd, "SSH-2.0-x\r\n\r\n");
}

static void check_hostile(void **state, serve_fn serve, int code, int heads)
{
  struct world *world = *state;
  server_start(&world->server, serve);
  struct probe probe = finished(world, "GET", PRY_SLICE(""));
  if (code)
    assert_int_equal(probe.result.curl_code, code);
  else
    assert_int_not_equal(probe.result.curl_code, 0);
  assert_int_equal(probe.heads, heads);
  assert_int_equal(probe.datas, 0);
  assert_true(strlen(probe.message) > 0);
}

static void test_endless_head(void **state)
{
  check_hostile(state, serve_endless_head, PRY_HTTP_RECEIVE_FAILED, 0);
}

static void test_long_lines(void **state)
{
  check_hostile(state, serve_long_lines, PRY_HTTP_RECEIVE_FAILED, 0);
}

static void test_endless_line(void **state)
{
  check_hostile(state, serve_endless_line, PRY_HTTP_RECEIVE_FAILED, 0);
}

static void test_interim_flood(void **state)
{
  check_hostile(state, serve_interim_flood, PRY_HTTP_RECEIVE_FAILED, 0);
}

static void test_trailer_flood(void **state)
{
  check_hostile(state, serve_trailer_flood, PRY_HTTP_RECEIVE_FAILED, 1);
}

static void test_folded_line(void **state)
{
  check_hostile(state, serve_folded, PRY_HTTP_RECEIVE_FAILED, 0);
}

static void test_unasked_upgrade(void **state)
{
  check_hostile(state, serve_switching, PRY_HTTP_RECEIVE_FAILED, 0);
}

static void test_two_status_lines(void **state)
{
  check_hostile(state, serve_two_status_lines, 0, 0);
}

static void test_not_http(void **state)
{
  check_hostile(state, serve_not_http, 0, 0);
}

/* ---- What must not be sent ---------------------------------------------------------------------------------- */

static void check_refused_request(struct world *world, struct pry_http_request request, int code)
{
  struct probe probe = {0};
  start_request(world, &probe, &request);
  assert_int_equal(pry_http_open_count(world->http), 1);
  until(world, &probe.dones, 1);
  assert_int_equal(probe.result.curl_code, code);
  assert_false(probe.result.sent);
  assert_int_equal(probe.connected, 0);
  assert_int_equal(pry_http_open_count(world->http), 0);
}

static void test_no_injection(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_plain);
  char url[64], bad_url[80];
  snprintf(url, sizeof url, "http://127.0.0.1:%d/", world->server.port);
  static const char *const bad_methods[] = {"", "GET /x HTTP/1.1\r\nX: y\r\n\r\nGET", "G T", "GET\n", "G(T"};
  for (size_t i = 0; i < sizeof bad_methods / sizeof *bad_methods; i++)
    check_refused_request(world, (struct pry_http_request){.method = bad_methods[i], .url = url}, PRY_HTTP_BAD_REQUEST);
  static const char *const bad_tails[] = {"a b", "a\r\nX: y", "a\tb", "\x7f"};
  for (size_t i = 0; i < sizeof bad_tails / sizeof *bad_tails; i++) {
    snprintf(bad_url, sizeof bad_url, "%s%s", url, bad_tails[i]);
    check_refused_request(world, (struct pry_http_request){.method = "GET", .url = bad_url}, PRY_HTTP_BAD_REQUEST);
  }
  static const char *const bad_names[] = {"a: b", "a b", "a;", ":", "@file", "\xc3\xa9"};
  for (size_t i = 0; i < sizeof bad_names / sizeof *bad_names; i++) {
    struct pry_headers headers;
    pry_headers_init(&headers);
    assert_true(pry_headers_add(&headers, pry_slice_of(bad_names[i]), PRY_SLICE("v")));
    struct pry_http_request request = {.method = "GET", .url = url, .headers = &headers};
    check_refused_request(world, request, PRY_HTTP_BAD_REQUEST);
    pry_headers_fini(&headers);
  }
  check_refused_request(world, (struct pry_http_request){.method = "GET", .url = "ftp://127.0.0.1/"}, 1);
  check_refused_request(world, (struct pry_http_request){.method = "GET", .url = "file:///etc/passwd"}, 1);
  check_refused_request(world, (struct pry_http_request){.method = "GET", .url = "http://"}, PRY_HTTP_BAD_REQUEST);
  assert_int_equal(atomic_load(&world->server.accepts), 0);
}

static void test_public_only(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_plain);
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%d/", world->server.port);
  struct pry_http_request request = {.method = "GET", .url = url, .public_only = true};
  check_refused_request(world, request, PRY_HTTP_COULDNT_CONNECT);
  snprintf(url, sizeof url, "http://[::ffff:127.0.0.1]:%d/", world->server.port);
  check_refused_request(world, request, PRY_HTTP_COULDNT_CONNECT);
  assert_int_equal(atomic_load(&world->server.accepts), 0);
  /* A connection that another exchange has left open is no way around. */
  finished(world, "GET", PRY_SLICE(""));
  snprintf(url, sizeof url, "http://127.0.0.1:%d/", world->server.port);
  struct probe probe = {0};
  start_request(world, &probe, &request);
  until(world, &probe.dones, 1);
  assert_int_equal(probe.result.curl_code, PRY_HTTP_COULDNT_CONNECT);
  assert_string_equal(probe.message, "refused: the address is not public");
  assert_false(probe.result.sent);
  assert_int_equal(atomic_load(&world->server.requests), 1);
}

/* ---- Cancelling, pausing, starting --------------------------------------------------------------------------- */

static void serve_hang(struct server *server, int fd)
{
  if (read_request(server, fd))
    wait_for_close(server, fd);
}

static void test_cancel_while_hanging(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_hang);
  struct probe probe = {0};
  start(world, &probe, "POST", PRY_SLICE("x"));
  until_atomic(world, &world->server.requests, 1);
  assert_int_equal(probe.connected, 1);
  pry_http_cancel(probe.exchange);
  assert_int_equal(pry_http_open_count(world->http), 0);
  until_atomic(world, &world->server.eof_seen, 1);
  assert_int_equal(probe.dones, 0);
}

static void test_cancel_before_anything(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_plain);
  struct probe probe = {0};
  start(world, &probe, "GET", PRY_SLICE(""));
  pry_http_cancel(probe.exchange);
  struct probe bad = {0};
  start_request(world, &bad, &(struct pry_http_request){.method = "", .url = "x"});
  pry_http_cancel(bad.exchange);
  few_turns(world);
  assert_int_equal(probe.connected + probe.dones + bad.dones, 0);
}

static void test_cancel_inside_callbacks(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_plain);
  for (enum moment moment = AT_CONNECTED; moment <= AT_DONE; moment++) {
    struct probe probe = {.cancel_at = moment};
    start(world, &probe, "POST", PRY_SLICE("x"));
    const int *counters[] = {&probe.connected, &probe.heads, &probe.datas, &probe.dones};
    until(world, counters[moment - AT_CONNECTED], 1);
    few_turns(world);
    assert_false(probe.out_of_order);
    assert_int_equal(probe.dones, moment == AT_DONE);
    assert_int_equal(pry_http_open_count(world->http), 0);
  }
}

static void test_start_inside_callbacks(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_once);
  for (enum moment moment = AT_CONNECTED; moment <= AT_DONE; moment++) {
    struct probe second = {0};
    struct probe first = {.start_at = moment, .next = &second};
    start(world, &first, "GET", PRY_SLICE(""));
    until(world, &first.dones, 1);
    until(world, &second.dones, 1);
    assert_int_equal(first.result.curl_code, 0);
    assert_int_equal(second.result.curl_code, 0);
    assert_string_equal(second.body, "hello");
  }
}

struct canceller {
  struct probe probe, *victim;
};

static void cancel_victim(void *user, const struct pry_http_result *result)
{
  struct canceller *canceller = user;
  on_done(&canceller->probe, result);
  pry_http_cancel(canceller->victim->exchange);
}

static void test_cancel_another_inside_on_done(void **state)
{
  struct world *world = *state;
  static const struct pry_http_ops cancelling_ops = {on_connected, on_head, on_data, cancel_victim, NULL};
  struct probe victim = {0};
  struct canceller canceller = {.victim = &victim};
  struct pry_http_request request = {.method = "", .url = "x"};
  assert_non_null(pry_http_start(world->http, &request, &cancelling_ops, &canceller));
  start_request(world, &victim, &request);
  until(world, &canceller.probe.dones, 1);
  few_turns(world);
  assert_int_equal(victim.dones, 0);
  assert_int_equal(pry_http_open_count(world->http), 0);
}

enum { BIG = 4 * 1024 * 1024 };

static void serve_big(struct server *server, int fd)
{
  static char block[64 * 1024];
  memset(block, 'b', sizeof block);
  while (read_request(server, fd)) {
    char head[80];
    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", BIG);
    bool sent = send_text(fd, head);
    for (size_t i = 0; sent && i < BIG / sizeof block; i++)
      sent = send_bytes(fd, block, sizeof block);
    if (!sent)
      return;
  }
}

static void test_pause_and_resume(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_big);
  struct probe probe = {.pause = true};
  start(world, &probe, "GET", PRY_SLICE(""));
  until(world, &probe.datas, 1);
  few_turns(world);
  assert_int_equal(probe.datas, 1);
  for (int i = 2; i <= 30; i++) {
    pry_http_resume(probe.exchange);
    pry_http_resume(probe.exchange);
    assert_int_equal(probe.datas, i - 1);
    until(world, &probe.datas, i);
    pry_loop_turn(world->loop, PRY_MILLISECOND);
    assert_int_equal(probe.datas, i);
    assert_true(probe.body_size <= (size_t)i * PRY_HTTP_CHUNK_MAX);
  }
  probe.pause = false;
  pry_http_resume(probe.exchange);
  until(world, &probe.dones, 1);
  assert_int_equal(probe.result.curl_code, 0);
  assert_int_equal(probe.body_size, BIG);
  assert_false(probe.out_of_order);
}

static void test_pause_holds_back_the_end(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_plain);
  struct probe probe = {.pause = true};
  start(world, &probe, "GET", PRY_SLICE(""));
  until(world, &probe.datas, 1);
  few_turns(world);
  assert_int_equal(probe.dones, 0);
  pry_http_resume(probe.exchange);
  assert_int_equal(probe.dones, 0);
  until(world, &probe.dones, 1);
  assert_int_equal(probe.result.curl_code, 0);
  struct probe cancelled = {.pause = true};
  start(world, &cancelled, "GET", PRY_SLICE(""));
  until(world, &cancelled.datas, 1);
  few_turns(world);
  pry_http_cancel(cancelled.exchange);
  assert_int_equal(pry_http_open_count(world->http), 0);
}

static void test_cancel_while_paused(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_big);
  struct probe probe = {.pause = true};
  start(world, &probe, "GET", PRY_SLICE(""));
  until(world, &probe.datas, 1);
  few_turns(world);
  pry_http_resume(probe.exchange);
  pry_http_cancel(probe.exchange);
  few_turns(world);
  assert_int_equal(probe.datas, 1);
  /* Cancelled from the delivery that a resume brings. */
  struct probe second = {.pause = true};
  start(world, &second, "GET", PRY_SLICE(""));
  until(world, &second.datas, 1);
  few_turns(world);
  second.cancel_at = AT_DATA;
  pry_http_resume(second.exchange);
  until(world, &second.datas, 2);
  few_turns(world);
  assert_false(second.out_of_order);
  assert_int_equal(pry_http_open_count(world->http), 0);
}

static void test_freeing_with_open_exchanges(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_hang);
  struct probe hanging = {0}, fresh = {0}, bad = {0};
  start(world, &hanging, "GET", PRY_SLICE(""));
  until_atomic(world, &world->server.requests, 1);
  start(world, &fresh, "GET", PRY_SLICE(""));
  start_request(world, &bad, &(struct pry_http_request){.method = "", .url = "x"});
  pry_http_free(world->http);
  world->http = NULL;
  few_turns(world);
  assert_int_equal(hanging.dones + fresh.dones + bad.dones, 0);
}

static int open_descriptors(void)
{
  DIR *directory = opendir("/proc/self/fd");
  assert_non_null(directory);
  int count = 0;
  while (readdir(directory))
    count++;
  closedir(directory);
  return count;
}

static void serve_alternating(struct server *server, int fd)
{
  for (int i = 0; i < 3 && read_request(server, fd); i++)
    if (!send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
      return;
}

static void test_many_without_growth(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_alternating);
  int before = 0;
  for (int i = 0; i < 500; i++) {
    struct probe probe = finished(world, "GET", PRY_SLICE(""));
    assert_int_equal(probe.result.curl_code, 0);
    assert_string_equal(probe.body, "hello");
    if (i == 10)
      before = open_descriptors();
  }
  assert_true(open_descriptors() <= before + 3);
  assert_int_equal(atomic_load(&world->server.requests) >= 500, 1);
}

/* Several at once to a server that takes one after the other: each has its own socket. */
static void test_many_at_once(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_once);
  enum { COUNT = 40 };
  struct probe *probes = calloc(COUNT, sizeof *probes);
  assert_non_null(probes);
  for (int i = 0; i < COUNT; i++)
    start(world, &probes[i], "POST", PRY_SLICE("x"));
  assert_int_equal(pry_http_open_count(world->http), COUNT);
  for (int i = 0; i < COUNT; i++) {
    until(world, &probes[i].dones, 1);
    assert_int_equal(probes[i].result.curl_code, 0);
  }
  free(probes);
}

/* ---- A name server that does not answer --------------------------------------------------------------------- */

static pthread_mutex_t name_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t name_changed = PTHREAD_COND_INITIALIZER;
static bool name_released;
static atomic_int lookups, lookups_over;

/* Takes the place of the C library's for curl: it hangs until released, as a look-up without answer does. */
__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **out)
{
  (void)name, (void)service, (void)hints;
  *out = NULL;
  atomic_fetch_add(&lookups, 1);
  pthread_mutex_lock(&name_lock);
  while (!name_released)
    pthread_cond_wait(&name_changed, &name_lock);
  pthread_mutex_unlock(&name_lock);
  atomic_fetch_add(&lookups_over, 1);
  return EAI_NONAME;
}

static void release_names(bool release)
{
  pthread_mutex_lock(&name_lock);
  name_released = release;
  pthread_cond_broadcast(&name_changed);
  pthread_mutex_unlock(&name_lock);
}

static void test_slow_names(void **state)
{
  struct world *world = *state;
  release_names(false);
  struct pry_http_request request = {.method = "GET", .url = "http://slow.test/"};
  struct probe first = {0}, second = {0}, third = {0};
  start_request(world, &first, &request);
  until_atomic(world, &lookups, 1);
  pry_http_cancel(first.exchange); /* would hang here if it waited for the look-up */
  assert_int_equal(atomic_load(&lookups_over), 0);
  assert_int_equal(pry_http_open_count(world->http), 0);
  start_request(world, &second, &request);
  until_atomic(world, &lookups, 2);
  pry_http_free(world->http); /* and here */
  assert_int_equal(atomic_load(&lookups_over), 0);
  release_names(true);
  until_atomic(world, &lookups_over, 2);
  world->http = pry_http_new(world->loop, NULL);
  start_request(world, &third, &request);
  until(world, &third.dones, 1);
  assert_int_equal(third.result.curl_code, PRY_HTTP_COULDNT_RESOLVE);
  assert_false(third.result.sent);
  assert_int_equal(first.dones + second.dones, 0);
}

/* ---- Options ------------------------------------------------------------------------------------------------- */

static void test_environment_proxy_is_ignored(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_plain);
  setenv("http_proxy", "http://127.0.0.1:1/", 1);
  setenv("ALL_PROXY", "http://127.0.0.1:1/", 1);
  struct probe probe = finished(world, "GET", PRY_SLICE(""));
  unsetenv("http_proxy");
  unsetenv("ALL_PROXY");
  assert_int_equal(probe.result.curl_code, 0);
}

static void test_named_proxy_is_used(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_plain);
  char proxy[64];
  snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", world->server.port);
  struct pry_http_options options = {.size = sizeof options, .proxy = proxy};
  pry_http_free(world->http);
  world->http = pry_http_new(world->loop, &options);
  assert_non_null(world->http);
  setenv("no_proxy", "*", 1);
  struct probe probe = {0};
  start_request(world, &probe, &(struct pry_http_request){.method = "GET", .url = "http://provider.test/v1"});
  until(world, &probe.dones, 1);
  unsetenv("no_proxy");
  assert_int_equal(probe.result.curl_code, 0);
  assert_non_null(strstr(last_request(&world->server), "GET http://provider.test/v1 HTTP/1.1\r\n"));
}

static void test_virtual_loop_is_refused(void **state)
{
  (void)state;
  struct pry_loop *loop = pry_loop_new_virtual(0);
  assert_null(pry_http_new(loop, NULL));
  pry_loop_free(loop);
  pry_http_free(NULL);
}

int main(void)
{
  alarm(120); /* a hang ends the test program, not the patience of who runs it */
  const struct CMUnitTest tests[] = {
      TEST(test_plain_answer_and_reuse),
      TEST(test_what_is_sent),
      TEST(test_methods),
      TEST(test_used_handles_are_as_good_as_new),
      TEST(test_repeats_are_not_counted_across_requests),
      TEST(test_head),
      TEST(test_chunks_interim_heads_and_trailers),
      TEST(test_empty_answer_has_a_head),
      TEST(test_no_decoding_no_redirect),
      TEST(test_refused),
      TEST(test_reset_before_head),
      TEST(test_cut_inside_body),
      TEST(test_cut_inside_chunked_body),
      TEST(test_post_is_never_sent_twice),
      TEST(test_get_survives_a_dead_kept_connection),
      TEST(test_idle_connection_closed_by_peer),
      TEST(test_unasked_answer_on_a_kept_connection),
      TEST(test_endless_head),
      TEST(test_long_lines),
      TEST(test_endless_line),
      TEST(test_interim_flood),
      TEST(test_trailer_flood),
      TEST(test_folded_line),
      TEST(test_unasked_upgrade),
      TEST(test_two_status_lines),
      TEST(test_not_http),
      TEST(test_no_injection),
      TEST(test_public_only),
      TEST(test_cancel_while_hanging),
      TEST(test_cancel_before_anything),
      TEST(test_cancel_inside_callbacks),
      TEST(test_start_inside_callbacks),
      TEST(test_cancel_another_inside_on_done),
      TEST(test_pause_and_resume),
      TEST(test_pause_holds_back_the_end),
      TEST(test_cancel_while_paused),
      TEST(test_freeing_with_open_exchanges),
      TEST(test_many_without_growth),
      TEST(test_many_at_once),
      TEST(test_slow_names),
      TEST(test_environment_proxy_is_ignored),
      TEST(test_named_proxy_is_used),
      TEST(test_virtual_loop_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
