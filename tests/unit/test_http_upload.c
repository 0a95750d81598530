/* The curl client sending bodies piece by piece, over real sockets: lengths, chunks, waiting, and every early end. */
#include "http_rig.h"

enum { MEGABYTE = 1024 * 1024, SMALL = 100 * 1000 };

static void start_upload(struct world *world, struct probe *probe, const char *method, int64_t length)
{
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%d/", world->server.port);
  struct pry_http_request request = {.method = method, .url = url, .upload = true, .upload_size = length};
  start_request(world, probe, &request);
}

/* ---- what the server does with it -------------------------------------------------------------------------------- */

static atomic_size_t received; /* body bytes, of the last request */
static atomic_bool in_order, ended_well;

/* Reads up to the blank line; what came behind it is in `rest`. False: the client closed. */
static bool read_head(struct server *server, int fd, char *rest, size_t *size)
{
  char head[REQUEST_MAX];
  size_t got = 0;
  const char *end = NULL;
  while (!end) {
    ssize_t more = recv(fd, head + got, sizeof head - 1 - got, 0);
    if (more <= 0)
      return false;
    got += (size_t)more;
    head[got] = '\0';
    end = strstr(head, "\r\n\r\n");
  }
  *size = got - (size_t)(end + 4 - head);
  memcpy(rest, end + 4, *size);
  pthread_mutex_lock(&server->lock);
  memcpy(server->last, head, got + 1);
  server->last[end + 4 - head] = '\0';
  pthread_mutex_unlock(&server->lock);
  atomic_fetch_add(&server->requests, 1);
  atomic_store(&received, 0);
  atomic_store(&in_order, true);
  atomic_store(&ended_well, false);
  return true;
}

static void take(const char *bytes, size_t size)
{
  size_t before = atomic_load(&received);
  for (size_t i = 0; i < size; i++)
    if (bytes[i] != (char)('0' + (before + i) % 10))
      atomic_store(&in_order, false);
  atomic_store(&received, before + size);
}

/* Bytes of the connection one after the other, whatever the pieces they come in. */
struct reader {
  int fd;
  char bytes[64 * 1024];
  size_t size, next;
};

static bool next_byte(struct reader *reader, char *byte)
{
  if (reader->next == reader->size) {
    ssize_t got = recv(reader->fd, reader->bytes, sizeof reader->bytes, 0);
    if (got <= 0)
      return false;
    reader->size = (size_t)got;
    reader->next = 0;
  }
  *byte = reader->bytes[reader->next++];
  return true;
}

static bool next_line(struct reader *reader, char *line, size_t size)
{
  size_t length = 0;
  char byte;
  while (next_byte(reader, &byte) && length < size - 1) {
    if (byte == '\n') {
      line[length] = '\0';
      return true;
    }
    line[length++] = byte;
  }
  return false;
}

static bool take_bytes(struct reader *reader, size_t size)
{
  for (char byte; size > 0; size--) {
    if (!next_byte(reader, &byte))
      return false;
    take(&byte, 1);
  }
  return true;
}

static bool take_chunks(struct reader *reader)
{
  char line[64];
  while (next_line(reader, line, sizeof line)) {
    size_t size = strtoul(line, NULL, 16);
    if (size == 0)
      return next_line(reader, line, sizeof line);
    if (!take_bytes(reader, size) || !next_line(reader, line, sizeof line))
      return false;
  }
  return false;
}

/* Takes a whole request and answers it. */
static void serve_whole(struct server *server, int fd)
{
  struct reader reader = {.fd = fd};
  while (read_head(server, fd, reader.bytes, &reader.size)) {
    reader.next = 0;
    const char *length = strcasestr(server->last, "\r\ncontent-length:");
    bool whole = length ? take_bytes(&reader, strtoul(length + 17, NULL, 10)) : take_chunks(&reader);
    atomic_store(&ended_well, whole);
    if (!whole || !send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
      break;
    reader.size = reader.next = 0;
  }
  atomic_fetch_add(&server->eof_seen, 1);
}

static void arrived(size_t size)
{
  assert_true(atomic_load(&in_order));
  assert_true(atomic_load(&ended_well));
  assert_int_equal(atomic_load(&received), size);
}

/* ---- ordinary ------------------------------------------------------------------------------------------------------ */

static void test_lengths_and_chunks(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_whole);
  static const size_t sizes[] = {0, 1, PRY_HTTP_CHUNK_MAX - 1, PRY_HTTP_CHUNK_MAX, PRY_HTTP_CHUNK_MAX + 1, MEGABYTE};
  static const char *const methods[] = {"POST", "PUT", "PATCH"};
  for (size_t i = 0; i < 36; i++) {
    size_t size = sizes[i % 6];
    bool chunked = i / 6 % 2;
    struct probe probe = {.upload_total = size, .upload_piece = i % 5 ? 0 : 777};
    start_upload(world, &probe, methods[i / 12], chunked ? -1 : (int64_t)size);
    until(world, &probe.dones, 1);
    assert_int_equal(probe.result.curl_code, 0);
    assert_int_equal(probe.status, 200);
    assert_false(probe.out_of_order);
    arrived(size);
    const char *asked = last_request(&world->server);
    assert_int_equal(strncmp(asked, methods[i / 12], strlen(methods[i / 12])), 0);
    assert_true((strcasestr(asked, "transfer-encoding: chunked") != NULL) == chunked);
    assert_true((strcasestr(asked, "content-length:") != NULL) == !chunked);
    assert_null(strcasestr(asked, "expect"));
  }
  assert_int_equal(atomic_load(&world->server.accepts), 1); /* all on one connection */
}

static void test_a_body_that_comes_in_its_own_time(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_whole);
  for (int chunked = 0; chunked < 2; chunked++) {
    struct probe probe = {
        .upload_total = SMALL, .upload_stop = 1, .upload_says = PRY_HTTP_UPLOAD_WAIT, .upload_piece = 1};
    start_upload(world, &probe, "POST", chunked ? -1 : SMALL);
    until(world, &probe.stops, 1);
    for (size_t stop = 20000; stop < SMALL; stop += 20000) {
      int pulls = probe.pulls;
      few_turns(world);
      assert_int_equal(probe.pulls, pulls); /* it is not asked again and again */
      probe.upload_stop = stop;
      probe.upload_piece = 0;
      pry_http_upload(probe.exchange);
      assert_int_equal(probe.pulls, pulls); /* and not from inside */
      until(world, &probe.stops, (int)(stop / 20000) + 1);
    }
    probe.upload_stop = 0;
    pry_http_upload(probe.exchange);
    pry_http_upload(probe.exchange);
    until(world, &probe.dones, 1);
    assert_int_equal(probe.result.curl_code, 0);
    arrived(SMALL);
  }
}

/* ---- ends ---------------------------------------------------------------------------------------------------------- */

static void test_a_body_that_ends_too_soon(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_whole);
  static const ptrdiff_t ways[] = {PRY_HTTP_UPLOAD_END, PRY_HTTP_UPLOAD_FAILED};
  for (size_t i = 0; i < 2; i++) {
    struct probe probe = {.upload_total = SMALL, .upload_stop = SMALL / 2, .upload_says = ways[i]};
    start_upload(world, &probe, "POST", SMALL);
    until(world, &probe.dones, 1);
    assert_int_equal(probe.result.curl_code, PRY_HTTP_UPLOAD_ENDED);
    assert_true(probe.result.sent);
    until_atomic(world, &world->server.eof_seen, (int)i + 1);
    assert_false(atomic_load(&ended_well));
  }
  struct probe probe = {.upload_total = SMALL, .upload_stop = SMALL / 2, .upload_says = PRY_HTTP_UPLOAD_FAILED};
  start_upload(world, &probe, "POST", -1);
  until(world, &probe.dones, 1);
  assert_int_equal(probe.result.curl_code, PRY_HTTP_UPLOAD_ENDED);
  until_atomic(world, &world->server.eof_seen, 3);
  assert_false(atomic_load(&ended_well)); /* no last chunk was written */
}

static void serve_early_refusal(struct server *server, int fd)
{
  char rest[REQUEST_MAX];
  size_t size;
  if (!read_head(server, fd, rest, &size))
    return;
  send_text(fd, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
  wait_for_close(server, fd);
}

/* Whatever the client still has: what is refused is not sent, and the connection is not used again. */
static void test_an_early_refusal_is_an_answer(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_early_refusal);
  for (int i = 0; i < 3; i++) {
    struct probe probe = {.upload_total = 200 * (size_t)MEGABYTE};
    if (i == 1) { /* its sender has nothing just now, and will not be asked */
      probe.upload_stop = 1000;
      probe.upload_says = PRY_HTTP_UPLOAD_WAIT;
      probe.upload_piece = 1000;
    }
    start_upload(world, &probe, "POST", i == 2 ? -1 : 200 * (int64_t)MEGABYTE);
    until(world, &probe.dones, 1);
    assert_int_equal(probe.result.curl_code, 0);
    assert_int_equal(probe.status, 413);
    assert_string_equal(probe.body, "big");
    assert_true(probe.uploaded < 100 * (size_t)MEGABYTE);
    until_atomic(world, &world->server.eof_seen, i + 1);
    assert_int_equal(atomic_load(&world->server.accepts), i + 1);
  }
}

static void serve_early_success(struct server *server, int fd)
{
  struct reader reader = {.fd = fd};
  if (!read_head(server, fd, reader.bytes, &reader.size))
    return;
  send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
  atomic_store(&ended_well, take_bytes(&reader, SMALL));
  wait_for_close(server, fd);
}

static void test_an_early_success_does_not_stop_the_body(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_early_success);
  struct probe probe = {
      .upload_total = SMALL, .upload_stop = 1000, .upload_piece = 1000, .upload_says = PRY_HTTP_UPLOAD_WAIT};
  start_upload(world, &probe, "POST", SMALL);
  until(world, &probe.datas, 1);
  assert_string_equal(probe.body, "early");
  few_turns(world);
  assert_int_equal(probe.dones, 0);
  probe.upload_stop = 0;
  pry_http_upload(probe.exchange);
  until(world, &probe.dones, 1);
  assert_int_equal(probe.result.curl_code, 0);
  assert_int_equal(probe.uploaded, SMALL);
}

/* Each direction has its own pause. */
static void test_both_directions_wait_by_themselves(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_early_success);
  struct probe probe = {.pause = true,
                        .upload_total = SMALL,
                        .upload_stop = 1000,
                        .upload_piece = 1000,
                        .upload_says = PRY_HTTP_UPLOAD_WAIT};
  start_upload(world, &probe, "POST", SMALL);
  until(world, &probe.datas, 1);
  probe.upload_stop = 0;
  probe.upload_piece = 0;
  pry_http_upload(probe.exchange);
  pry_time end = pry_loop_now(world->loop) + GUARD_SECONDS * PRY_SECOND;
  while (probe.uploaded < SMALL && pry_loop_now(world->loop) < end)
    pry_loop_turn(world->loop, 10 * PRY_MILLISECOND);
  assert_int_equal(probe.uploaded, SMALL);
  few_turns(world);
  assert_int_equal(probe.dones, 0); /* what was paused stays so */
  probe.pause = false;
  pry_http_resume(probe.exchange);
  until(world, &probe.dones, 1);
  assert_int_equal(probe.result.curl_code, 0);
}

static void serve_death(struct server *server, int fd)
{
  struct reader reader = {.fd = fd};
  if (!read_head(server, fd, reader.bytes, &reader.size))
    return;
  take_bytes(&reader, 50000);
  if (atomic_load(&server->requests) == 1)
    reset(fd);
}

static void test_a_peer_that_dies_in_the_middle(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_death);
  for (int i = 0; i < 2; i++) {
    struct probe probe = {.upload_total = 100 * (size_t)MEGABYTE};
    start_upload(world, &probe, i ? "PUT" : "POST", 100 * (int64_t)MEGABYTE);
    until(world, &probe.dones, 1);
    assert_int_not_equal(probe.result.curl_code, 0);
    assert_true(probe.result.sent);
    assert_false(probe.result.head_received);
    assert_int_equal(atomic_load(&world->server.requests), i + 1); /* sent once, though PUT could be repeated */
  }
}

static void test_a_peer_that_dies_while_nothing_is_sent(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_death);
  struct probe probe = {
      .upload_total = SMALL, .upload_stop = 50000, .upload_says = PRY_HTTP_UPLOAD_WAIT, .upload_piece = 10000};
  start_upload(world, &probe, "POST", SMALL);
  until(world, &probe.dones, 1);
  assert_int_not_equal(probe.result.curl_code, 0);
  assert_true(probe.result.sent);
}

/* One good answer, then the kept connection is dead when the next request comes. */
static void serve_once(struct server *server, int fd)
{
  struct reader reader = {.fd = fd};
  if (!read_head(server, fd, reader.bytes, &reader.size) || !take_bytes(&reader, SMALL))
    return;
  send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  read_head(server, fd, reader.bytes, &reader.size);
  reset(fd);
}

static void test_an_upload_is_never_repeated_by_itself(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_once);
  for (int i = 0; i < 2; i++) {
    struct probe probe = {.upload_total = SMALL};
    start_upload(world, &probe, "PUT", SMALL);
    until(world, &probe.dones, 1);
    assert_int_equal(probe.result.curl_code == 0, i == 0);
  }
  few_turns(world);
  assert_int_equal(atomic_load(&world->server.requests), 2);
}

static void serve_nothing(struct server *server, int fd)
{
  char rest[REQUEST_MAX];
  size_t size;
  if (read_head(server, fd, rest, &size))
    wait_for_close(server, fd);
}

static void test_cancel_in_the_middle(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_nothing);
  for (int i = 0; i < 3; i++) {
    struct probe probe = {.upload_total = 100 * (size_t)MEGABYTE, .upload_stop = i ? 5000 : 0};
    probe.upload_says = PRY_HTTP_UPLOAD_WAIT;
    probe.upload_piece = i ? 5000 : 0;
    start_upload(world, &probe, "POST", 100 * (int64_t)MEGABYTE);
    until(world, &probe.pulls, 2);
    if (i == 2)
      pry_http_upload(probe.exchange); /* about to go on */
    pry_http_cancel(probe.exchange);
    until_atomic(world, &world->server.eof_seen, i + 1);
    assert_int_equal(probe.dones, 0);
    assert_int_equal(pry_http_open_count(world->http), 0);
  }
}

static ptrdiff_t cancel_inside(void *user, char *to, size_t room)
{
  struct probe *probe = user;
  ptrdiff_t size = on_upload(user, to, room);
  if (probe->pulls == 3) {
    pry_http_cancel(probe->exchange);
    probe->cancelled = true;
  }
  assert_true(probe->pulls <= 3);
  return size;
}

static void test_cancel_from_inside(void **state)
{
  struct world *world = *state;
  server_start(&world->server, serve_nothing);
  static const struct pry_http_ops cancelling = {on_connected, on_head, on_data, on_done, cancel_inside};
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%d/", world->server.port);
  struct pry_http_request request = {.method = "POST", .url = url, .upload = true, .upload_size = -1};
  struct probe probe = {.world = world, .upload_total = MEGABYTE};
  probe.exchange = pry_http_start(world->http, &request, &cancelling, &probe);
  assert_non_null(probe.exchange);
  until_atomic(world, &world->server.eof_seen, 1);
  assert_int_equal(probe.dones, 0);
  assert_int_equal(pry_http_open_count(world->http), 0);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(test_lengths_and_chunks),
      TEST(test_a_body_that_comes_in_its_own_time),
      TEST(test_a_body_that_ends_too_soon),
      TEST(test_an_early_refusal_is_an_answer),
      TEST(test_an_early_success_does_not_stop_the_body),
      TEST(test_both_directions_wait_by_themselves),
      TEST(test_a_peer_that_dies_in_the_middle),
      TEST(test_a_peer_that_dies_while_nothing_is_sent),
      TEST(test_an_upload_is_never_repeated_by_itself),
      TEST(test_cancel_in_the_middle),
      TEST(test_cancel_from_inside),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
