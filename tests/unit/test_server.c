/* The HTTP server: requests, replies and bounds. */
#include "server_rig.h"

#include <sys/resource.h>

/* ---- Requests and replies ------------------------------------------------------------------------------- */

static void test_keep_alive(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  for (int i = 0; i < 3; i++) {
    struct pry_buffer text = {0};
    say(fd, "POST /echo?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhallo");
    const char *reply = hear_part(&b, fd, &text, "\r\n\r\nhallo");
    assert_ptr_equal(strstr(reply, "HTTP/1.1 200 OK\r\n"), reply);
    assert_non_null(strstr(reply, "\r\nDate: "));
    assert_non_null(strstr(reply, " GMT\r\n"));
    assert_non_null(strstr(reply, "\r\nContent-Type: text/plain\r\n"));
    assert_non_null(strstr(reply, "\r\nContent-Length: 5\r\n"));
    assert_null(strstr(reply, "Connection:"));
    pry_buffer_fini(&text);
  }
  assert_int_equal(pry_server_connection_count(b.server), 1);
  assert_int_equal(pry_server_request_count(b.server), 0);
  struct pry_buffer text = {0};
  say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_non_null(strstr(pry_buffer_text(&text), "\r\nConnection: close\r\n"));
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\none"
          "POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\ntwo"
          "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n"
          "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, fd, &text, "\r\n\r\none");
  UNTIL(&b, b.count == 2 && b.handled[1].ends);
  for (int i = 0; i < 5; i++)
    turn(&b, pry_loop_now(b.loop));
  assert_int_equal(b.count, 2); /* the third waits for the second's reply */
  reply_body(&b.handled[1]);
  const char *all = hear_part(&b, fd, &text, "0\r\n\r\n");
  const char *two = strstr(all, "\r\n\r\ntwo"), *three = strstr(all, "\r\n\r\nthree");
  assert_true(two && three && two < three);
  assert_int_equal(times_in(all, "HTTP/1.1 200"), 4);
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_many_pipelined_requests(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer request = {0}, text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  for (int i = 0; i < 500; i++)
    pry_buffer_append_text(&request, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
  say(fd, pry_buffer_text(&request));
  pry_time started = pry_loop_now(b.loop);
  while (b.count < 500 || pry_server_request_count(b.server)) {
    hear(fd, &text);
    assert_true(turn(&b, started));
  }
  while (times_in(pry_buffer_text(&text), "HTTP/1.1 200") < 500) {
    assert_true(turn(&b, started));
    hear(fd, &text);
  }
  pry_buffer_fini(&text);
  pry_buffer_fini(&request);
  client_close(fd);
  bench_stop(&b);
}

static void test_chunked_reply(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  const char *reply = hear_part(&b, fd, &text, "0\r\n\r\n");
  assert_non_null(strstr(reply, "\r\nTransfer-Encoding: chunked\r\n"));
  assert_null(strstr(reply, "Content-Length"));
  assert_non_null(strstr(reply, "\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"));
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_request_byte_by_byte(void **state)
{
  (void)state;
  static const char REQUEST[] = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                                "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n";
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  for (size_t i = 0; i < sizeof REQUEST - 1; i++) {
    assert_int_equal(client_send(fd, REQUEST + i, 1), 1);
    pry_loop_turn(b.loop, PRY_MILLISECOND);
  }
  hear_part(&b, fd, &text, "\r\n\r\nabcde");
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_replies_without_body(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "HEAD /chunked HTTP/1.1\r\nHost: h\r\n\r\n"
          "POST /204 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndrop"
          "POST /304 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndrop"
          "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nlast");
  const char *all = hear_part(&b, fd, &text, "\r\n\r\nlast");
  assert_int_equal(times_in(all, "HTTP/1.1 "), 4);
  assert_null(strstr(all, "hello"));
  assert_null(strstr(all, "drop"));
  assert_null(strstr(all, "chunked"));
  const char *no_content = strstr(all, " 204 ");
  assert_non_null(no_content);
  assert_true(strstr(no_content, "Content-Length") > strstr(all, " 304 ")); /* RFC 9110 §8.6: never with 204 */
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_head_keeps_the_length(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "HEAD /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  pry_buffer_append_text(&b.handled[0].body, "12345");
  reply_body(&b.handled[0]);
  const char *reply = hear_part(&b, fd, &text, "\r\n\r\n");
  assert_non_null(strstr(reply, "Content-Length: 5\r\n"));
  assert_null(strstr(reply, "12345"));
  say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, fd, &text, "world");
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_http_1_0(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  hear_part(&b, fd, &text, "Connection: keep-alive\r\n");
  say(fd, "GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  const char *all = pry_buffer_text(&text);
  assert_non_null(strstr(all, "Connection: close\r\n\r\nhello world"));
  assert_null(strstr(all, "chunked"));
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_expect_continue(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  assert_string_equal(hear_part(&b, fd, &text, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  say(fd, "body");
  assert_int_equal(times_in(hear_part(&b, fd, &text, "\r\n\r\nbody"), " 100 "), 1);
  pry_buffer_clear(&text);
  /* An answer instead of 100: whether the body will come is unknown, so the connection ends. */
  say(fd, "POST /early HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  const char *reply = pry_buffer_text(&text);
  assert_ptr_equal(strstr(reply, "HTTP/1.1 200 OK"), reply);
  assert_non_null(strstr(reply, "Connection: close\r\n"));
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_hop_by_hop_fields_stay_here(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  struct pry_headers headers;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.count == 1 && b.handled[0].ends);
  pry_headers_init(&headers);
  static const char *const LINES[][2] = {
      {"X-Kept", "1"},   {"Connection", "x-named"}, {"X-Named", "2"},         {"Keep-Alive", "3"},
      {"Date", "never"}, {"content-length", "99"},  {"Upgrade", "websocket"}, {"transfer-encoding", "gzip"}};
  for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++)
    assert_true(pry_headers_add(&headers, pry_slice_of(LINES[i][0]), pry_slice_of(LINES[i][1])));
  assert_false(pry_reply_started(b.handled[0].exchange));
  assert_true(pry_reply_start(b.handled[0].exchange, 200, &headers, 2));
  assert_true(pry_reply_started(b.handled[0].exchange));
  assert_false(pry_reply_start(b.handled[0].exchange, 200, &headers, 2)); /* only once */
  pry_reply_write(b.handled[0].exchange, PRY_SLICE("ok"));
  pry_reply_end(b.handled[0].exchange);
  b.handled[0].finished = true;
  const char *reply = hear_part(&b, fd, &text, "\r\n\r\nok");
  assert_non_null(strstr(reply, "X-Kept: 1\r\n"));
  assert_null(strstr(reply, "amed"));
  assert_null(strstr(reply, "Keep-Alive"));
  assert_null(strstr(reply, "never"));
  assert_null(strstr(reply, "99"));
  assert_null(strstr(reply, "Upgrade"));
  assert_null(strstr(reply, "gzip"));
  pry_headers_fini(&headers);
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_reply_before_the_body(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0}, upload = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n");
  hear_part(&b, fd, &text, "\r\n\r\n");
  say(fd, "lateGET /chunked HTTP/1.1\r\nHost: h\r\n\r\n"); /* a small rest is read away */
  hear_part(&b, fd, &text, "world\r\n0\r\n\r\n");
  /* A large one is not worth it: the connection ends, but the client can read why. */
  pry_buffer_clear(&text);
  say(fd, "POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n");
  static char piece[100000];
  size_t sent = 0;
  pry_time started = pry_loop_now(b.loop);
  while (sent < 8000000 && hear(fd, &text) == STILL_OPEN) {
    ssize_t size = client_send(fd, piece, sizeof piece);
    sent += size > 0 ? (size_t)size : 0;
    assert_true(turn(&b, started));
  }
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_int_equal(times_in(pry_buffer_text(&text), "HTTP/1.1 200 OK"), 1);
  pry_buffer_fini(&text);
  pry_buffer_fini(&upload);
  client_close(fd);
  bench_stop(&b);
}

static void test_churn(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  for (int i = 0; i < 200; i++) {
    int fd = dial(&b);
    struct pry_buffer text = {0};
    say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    if (i % 3) {
      hear_part(&b, fd, &text, "\r\n\r\n");
      client_close(fd);
    } else {
      reset_close(fd);
    }
    pry_buffer_fini(&text);
  }
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  bench_stop(&b);
}

/* ---- Bounds --------------------------------------------------------------------------------------------- */

static void test_slow_reader_pauses_the_handler(void **state)
{
  (void)state;
  struct bench b;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
  UNTIL(&b, b.pauses > 0);
  for (int i = 0; i < 20; i++)
    turn(&b, pry_loop_now(b.loop));
  const struct pry_connection *connection = pry_exchange_connection(b.handled[0].exchange);
  assert_true(b.streamed < 16 * 1024 * 1024); /* kernel buffers, and our 256 KiB */
  static char piece[1 << 20];
  size_t received = 0;
  pry_time started = pry_loop_now(b.loop);
  while (received < 64 * 1024 * 1024) {
    ssize_t size = client_recv(fd, piece, sizeof piece);
    received += size > 0 ? (size_t)size : 0;
    if (!b.handled[0].finished)
      assert_true(evbuffer_get_length(connection->output) <= 256 * 1024 + STREAM_PIECE + 64);
    pry_loop_turn(b.loop, PRY_MILLISECOND);
    assert_true(pry_loop_now(b.loop) - started < 60 * PRY_SECOND);
  }
  assert_true(b.handled[0].finished);
  assert_true(b.pauses > 10);
  client_close(fd);
  bench_stop(&b);
}

static size_t push(struct bench *b, int fd, size_t most)
{
  static char piece[256 * 1024];
  size_t pushed = 0;
  for (int idle = 0; idle < 20 && pushed < most;) {
    ssize_t size = client_send(fd, piece, sizeof piece);
    pushed += size > 0 ? (size_t)size : 0;
    idle = size > 0 ? 0 : idle + 1;
    assert_true(size > 0 || errno == EAGAIN); /* who answers early still reads on */
    pry_loop_turn(b->loop, PRY_MILLISECOND);
  }
  return pushed;
}

static void test_input_is_bounded(void **state)
{
  (void)state;
  static const char *const REQUESTS[] = {
      "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /begin HTTP/1.1\r\nHost: h\r\n\r\n",
      "POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n",
  };
  for (size_t i = 0; i < sizeof REQUESTS / sizeof *REQUESTS; i++) {
    struct bench b;
    bench_start(&b, "127.0.0.1:0", NULL);
    int fd = dial(&b);
    say(fd, REQUESTS[i]);
    UNTIL(&b, b.count == 1);
    assert_true(push(&b, fd, 40 * 1000 * 1000) < 16 * 1024 * 1024);
    const struct pry_connection *connection = pry_exchange_connection(b.handled[0].exchange);
    assert_true(connection->input.size <= PRY_SERVER_READ_SIZE);
    assert_int_equal(b.handled[0].body.size, 0);
    reset_close(fd); /* not a FIN: that would wait behind the unread bytes */
    UNTIL(&b, b.gones == 1);
    bench_stop(&b);
  }
}

static void test_unread_replies_stop_the_next_request(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer request = {0}, text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  for (int i = 0; i < 100; i++)
    pry_buffer_append_text(&request, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
  say(fd, pry_buffer_text(&request));
  for (int i = 0; i < 50; i++)
    turn(&b, 0);
  assert_true(b.count < 20); /* each is 1 MiB, and the kernel takes a few */
  assert_int_equal(b.gones, 0);
  pry_time started = pry_loop_now(b.loop);
  while (b.count < 100) { /* reading sets them going again */
    hear(fd, &text);
    pry_buffer_clear(&text);
    assert_true(turn(&b, started));
  }
  pry_buffer_fini(&request);
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_held_body_comes_when_wanted(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.body_idle = 0.05});
  int fd = dial(&b);
  say(fd, "POST /held HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  UNTIL(&b, b.count == 1);
  pry_time begun = pry_loop_now(b.loop);
  UNTIL(&b, pry_loop_now(b.loop) - begun > 100 * PRY_MILLISECOND); /* no deadline while held */
  assert_int_equal(hear(fd, &text), STILL_OPEN);
  assert_int_equal(text.size, 0); /* and no 100 */
  pry_reply_hold_body(b.handled[0].exchange, false);
  hear_part(&b, fd, &text, "HTTP/1.1 100 Continue\r\n\r\n");
  say(fd, "body");
  UNTIL(&b, b.handled[0].ends);
  reply_body(&b.handled[0]);
  hear_part(&b, fd, &text, "\r\n\r\nbody");
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_large_upload(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 20000000\r\n\r\n");
  static char piece[100000];
  size_t left = 20000000;
  pry_time started = pry_loop_now(b.loop);
  while (left) {
    ssize_t size = client_send(fd, piece, left < sizeof piece ? left : sizeof piece);
    left -= size > 0 ? (size_t)size : 0;
    assert_true(turn(&b, started));
  }
  UNTIL(&b, b.handled[0].ends);
  assert_int_equal(b.handled[0].body.size, 20000000);
  pry_buffer_clear(&b.handled[0].body);
  reply_body(&b.handled[0]);
  hear_part(&b, fd, &text, "\r\n\r\n");
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

static void test_body_limit(void **state)
{
  (void)state;
  static const struct {
    const char *request;
    bool handler_saw_it;
  } CASES[] = {
      {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n12345678901", false},
      {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\n2\r\n12\r\n0\r\n\r\n",
       true},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    struct bench b;
    struct pry_buffer text = {0};
    bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.max_body = 10});
    int fd = dial(&b);
    say(fd, CASES[i].request);
    assert_int_equal(hear_end(&b, fd, &text), ENDED);
    const char *reply = pry_buffer_text(&text);
    assert_ptr_equal(strstr(reply, "HTTP/1.1 413 "), reply);
    assert_non_null(strstr(reply, "\"request_too_large\""));
    if (CASES[i].handler_saw_it)
      assert_int_equal(b.gones, 1);
    pry_buffer_fini(&text);
    client_close(fd);
    bench_stop(&b);
  }
}

static void test_malformed_requests_are_refused_readably(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b);
  say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
          "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
  pry_time begun = pry_loop_now(b.loop);
  push(&b, fd, 2 * 1024 * 1024); /* what is still being sent must not turn the answer into a reset */
  assert_int_equal(hear_end(&b, fd, &text), ENDED);
  assert_true(pry_loop_now(b.loop) - begun < 1 * PRY_SECOND); /* the end is said at once, not after lingering */
  const char *reply = pry_buffer_text(&text);
  assert_ptr_equal(strstr(reply, "HTTP/1.1 400 Bad Request\r\n"), reply);
  assert_int_equal(times_in(reply, "HTTP/1.1 "), 1);
  assert_non_null(strstr(reply, "Connection: close\r\n"));
  assert_non_null(strstr(reply, "{\"error\":{\"message\":\""));
  assert_non_null(strstr(reply, "\"type\":\"invalid_request_error\",\"code\":\"malformed_request\"}}"));
  assert_int_equal(b.count, 0);
  client_close(fd);
  UNTIL(&b, pry_server_connection_count(b.server) == 0);
  pry_buffer_fini(&text);
  bench_stop(&b);
}

static void test_broken_body(void **state)
{
  (void)state;
  static const char *const PATHS[] = {"/wait", "/held-not"};
  for (size_t i = 0; i < 2; i++) {
    struct bench b;
    struct pry_buffer text = {0};
    char request[128];
    bench_start(&b, "127.0.0.1:0", NULL);
    int fd = dial(&b);
    snprintf(request, sizeof request, "POST %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", PATHS[i]);
    say(fd, request);
    UNTIL(&b, b.count == 1);
    if (i == 1) /* a reply under way cannot be answered a second time; it is cut */
      assert_true(pry_reply_start(b.handled[0].exchange, 200, NULL, -1));
    say(fd, "zz\r\n");
    assert_int_equal(hear_end(&b, fd, &text), ENDED);
    const char *reply = pry_buffer_text(&text);
    assert_ptr_equal(strstr(reply, i ? "HTTP/1.1 200 " : "HTTP/1.1 400 "), reply);
    assert_int_equal(times_in(reply, "HTTP/1.1 "), 1);
    assert_null(strstr(reply, "\r\n\r\n0\r\n"));
    assert_int_equal(b.gones, 1);
    pry_buffer_fini(&text);
    client_close(fd);
    bench_stop(&b);
  }
}

static void test_connection_cap(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  bench_start(&b, "127.0.0.1:0", &(struct pry_server_options){.max_connections = 2});
  int one = dial(&b), two = dial(&b);
  UNTIL(&b, pry_server_connection_count(b.server) == 2);
  int three = dial(&b);
  if (OVER_TLS) { /* no session for it: an alert, which is an error to the client */
    assert_int_equal(hear_end(&b, three, &text), RESET);
  } else {
    assert_int_equal(hear_end(&b, three, &text), ENDED);
    assert_ptr_equal(strstr(pry_buffer_text(&text), "HTTP/1.1 503 "), pry_buffer_text(&text));
  }
  client_close(two);
  UNTIL(&b, pry_server_connection_count(b.server) == 1);
  int four = dial(&b);
  say(four, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, four, &text, "world");
  pry_buffer_fini(&text);
  client_close(one);
  client_close(three);
  client_close(four);
  bench_stop(&b);
}

static int lowest_free_descriptor(void)
{
  int fd = dup(STDERR_FILENO);
  close(fd);
  return fd;
}

static void test_no_descriptors_left(void **state)
{
  (void)state;
  struct bench b;
  struct pry_buffer text = {0};
  struct rlimit before, tight;
  bench_start(&b, "127.0.0.1:0", NULL);
  int fd = dial(&b); /* in the backlog: the loop has not turned */
  if (!OVER_TLS)     /* a handshake would turn it */
    say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  tight = before;
  tight.rlim_cur = (rlim_t)lowest_free_descriptor();
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
  int turns = 0;
  for (pry_time start = pry_loop_now(b.loop); pry_loop_now(b.loop) - start < 50 * PRY_MILLISECOND; turns++)
    pry_loop_turn(b.loop, 10 * PRY_MILLISECOND);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
  assert_int_equal(b.count, 0);
  assert_true(turns < 50); /* a listening socket left registered would wake us thousands of times */
  if (OVER_TLS)
    say(fd, "GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
  hear_part(&b, fd, &text, "world");
  pry_buffer_fini(&text);
  client_close(fd);
  bench_stop(&b);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_keep_alive),
      cmocka_unit_test(test_pipelined_requests_are_answered_in_order),
      cmocka_unit_test(test_many_pipelined_requests),
      cmocka_unit_test(test_chunked_reply),
      cmocka_unit_test(test_request_byte_by_byte),
      cmocka_unit_test(test_replies_without_body),
      cmocka_unit_test(test_head_keeps_the_length),
      cmocka_unit_test(test_http_1_0),
      cmocka_unit_test(test_expect_continue),
      cmocka_unit_test(test_hop_by_hop_fields_stay_here),
      cmocka_unit_test(test_reply_before_the_body),
      cmocka_unit_test(test_churn),
      cmocka_unit_test(test_slow_reader_pauses_the_handler),
      cmocka_unit_test(test_input_is_bounded),
      cmocka_unit_test(test_unread_replies_stop_the_next_request),
      cmocka_unit_test(test_held_body_comes_when_wanted),
      cmocka_unit_test(test_large_upload),
      cmocka_unit_test(test_body_limit),
      cmocka_unit_test(test_malformed_requests_are_refused_readably),
      cmocka_unit_test(test_broken_body),
      cmocka_unit_test(test_connection_cap),
      cmocka_unit_test(test_no_descriptors_left),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
