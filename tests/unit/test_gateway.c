/* The gateway and long bodies, over real sockets: what is kept, what is streamed, what is refused. The providers are a
 * script. */
#include "call_policies.h"
#include "gateway.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KIB = 1024, LIMIT = 256 * KIB, TOTAL = 400 * KIB, MOST = 2048 * KIB, GUARD_SECONDS = 20 };

struct world {
  struct rig *rig;
  struct pry_gateway *gateway;
  int port;
};

/* One client. */
struct peer {
  int fd;
  char reply[4096];
  size_t size;
  bool closed;
};

static int set_up(void **state)
{
  struct world *world = calloc(1, sizeof *world);
  struct rig *rig = calloc(1, sizeof *rig);
  world->rig = rig;
  rig->loop = pry_loop_new();
  rig->script = pry_http_script_new(rig->loop);
  rig->http = pry_http_script_client(rig->script);
  struct pry_engine_options options = {.loop = rig->loop,
                                       .http = rig->http,
                                       .loader = &rig_loader,
                                       .seed = 1,
                                       .replay_limit = LIMIT,
                                       .replay_total = TOTAL,
                                       .max_body = MOST};
  rig->engine = pry_engine_new(&options);
  assert_non_null(rig->engine);
  rig_use(rig, "policy", PRY_HANDLER_BIT(PRY_ON_ERROR), retry_twice);
  rig_commit(rig);
  char error[256];
  static const char *const anybody[] = {"*"};
  static const struct pry_edge edge = {.hosts = {anybody, 1}};
  const struct pry_gateway_options gateway = {.edge = &edge, .address = "127.0.0.1:0"};
  world->gateway = pry_gateway_new(rig->engine, &gateway, error, sizeof error);
  assert_non_null(world->gateway);
  world->port = atoi(strrchr(pry_gateway_address(world->gateway), ':') + 1);
  *state = world;
  return 0;
}

static int tear_down(void **state)
{
  struct world *world = *state;
  pry_gateway_free(world->gateway);
  assert_int_equal(world->rig->engine->replay_used, 0);
  rig_free(world->rig);
  free(world);
  return 0;
}

static struct peer *peer_new(struct world *world)
{
  struct peer *peer = calloc(1, sizeof *peer);
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)world->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(connect(peer->fd, (struct sockaddr *)&address, sizeof address), 0);
  fcntl(peer->fd, F_SETFL, O_NONBLOCK);
  return peer;
}

static void peer_free(struct peer *peer)
{
  close(peer->fd);
  free(peer);
}

static void turn(struct world *world)
{
  pry_loop_turn(world->rig->loop, 5 * PRY_MILLISECOND);
}

/* Reads what there is. */
static void peer_read(struct peer *peer)
{
  ssize_t got = recv(peer->fd, peer->reply + peer->size, sizeof peer->reply - 1 - peer->size, 0);
  if (got > 0)
    peer->size += (size_t)got;
  else if (got == 0 || errno != EAGAIN)
    peer->closed = true;
}

/* True: all was taken. False: the gateway closed, or `stall` was asked for and it takes no more. */
static bool peer_send(struct world *world, struct peer *peer, const char *bytes, size_t size, bool stall)
{
  pry_time progress = pry_loop_now(world->rig->loop);
  while (size) {
    ssize_t sent = send(peer->fd, bytes, size, MSG_NOSIGNAL);
    pry_time now = pry_loop_now(world->rig->loop);
    if (sent < 0 && errno != EAGAIN)
      return false;
    if (sent > 0) {
      bytes += sent;
      size -= (size_t)sent;
      progress = now;
    }
    if (stall && now - progress > 200 * PRY_MILLISECOND)
      return false;
    assert_true(now - progress < GUARD_SECONDS * PRY_SECOND);
    turn(world);
  }
  return true;
}

static void peer_wait_reply(struct world *world, struct peer *peer, const char *text)
{
  pry_time end = pry_loop_now(world->rig->loop) + GUARD_SECONDS * PRY_SECOND;
  while (!strstr(peer->reply, text)) {
    assert_true(pry_loop_now(world->rig->loop) < end);
    assert_false(peer->closed);
    peer_read(peer);
    turn(world);
  }
}

static void peer_head(struct world *world, struct peer *peer, const char *path, int64_t length)
{
  char head[256], framing[64];
  snprintf(framing, sizeof framing, "Content-Length: %lld", (long long)length);
  int size = snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n",
                      path, length < 0 ? "Transfer-Encoding: chunked" : framing);
  assert_true(peer_send(world, peer, head, (size_t)size, false));
}

static const char path[] = "/v1/chat/completions";

/* {"model":"m","pad":"…"} of that size. Static: one at a time. */
static const char *body_of(size_t size)
{
  static char body[3 * MOST];
  static const char start[] = "{\"model\":\"m\",\"pad\":\"";
  memset(body, 'x', size);
  memcpy(body, start, sizeof start - 1);
  memcpy(body + size - 2, "\"}", 2);
  return body;
}

static bool send_body(struct world *world, struct peer *peer, size_t size, bool chunked)
{
  const char *body = body_of(size);
  if (!chunked)
    return peer_send(world, peer, body, size, false);
  for (size_t at = 0; at < size;) {
    char line[32];
    size_t piece = size - at < 50000 ? size - at : 50000;
    int line_size = snprintf(line, sizeof line, "%zx\r\n", piece);
    if (!peer_send(world, peer, line, (size_t)line_size, false) || !peer_send(world, peer, body + at, piece, false) ||
        !peer_send(world, peer, "\r\n", 2, false))
      return false;
    at += piece;
  }
  return peer_send(world, peer, "0\r\n\r\n", 5, false);
}

static const struct pry_http_seen *last_seen(struct world *world)
{
  size_t count = pry_http_script_seen_count(world->rig->script);
  return count ? pry_http_script_seen(world->rig->script, count - 1) : NULL;
}

static void test_what_is_kept_and_what_is_streamed(void **state)
{
  struct world *world = *state;
  static const struct {
    size_t size;
    bool chunked, streamed;
  } rows[] = {{30, false, false},      {LIMIT, false, false}, {LIMIT, true, false}, {LIMIT + 1, false, true},
              {LIMIT + 1, true, true}, {MOST, false, true},   {MOST, true, true}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    rig_answers(world->rig, 200, json, "{\"fine\":1}", NULL);
    struct peer *peer = peer_new(world);
    peer_head(world, peer, path, rows[i].chunked ? -1 : (int64_t)rows[i].size);
    assert_true(send_body(world, peer, rows[i].size, rows[i].chunked));
    peer_wait_reply(world, peer, "{\"fine\":1}");
    const struct pry_http_seen *seen = last_seen(world);
    assert_int_equal(seen->body.size, rows[i].size);
    assert_memory_equal(seen->body.data, body_of(rows[i].size), rows[i].size);
    assert_int_equal(seen->upload_size, !rows[i].streamed ? 0 : rows[i].chunked ? -1 : (int64_t)rows[i].size);
    peer_free(peer);
  }
}

/* Everything is taken by others: a body is streamed as soon as it passes its beginning, and a short one is served. */
static void test_when_the_room_for_bodies_is_taken(void **state)
{
  struct world *world = *state;
  struct pry_engine *engine = world->rig->engine;
  engine->replay_used += TOTAL;
  static const size_t sizes[] = {1000, 64 * KIB, 64 * KIB + 1, 200 * KIB};
  for (size_t i = 0; i < 8; i++) {
    size_t size = sizes[i % 4];
    bool chunked = i / 4;
    rig_answers(world->rig, 200, json, "{\"fine\":1}", NULL);
    struct peer *peer = peer_new(world);
    peer_head(world, peer, path, chunked ? -1 : (int64_t)size);
    assert_true(send_body(world, peer, size, chunked));
    peer_wait_reply(world, peer, "{\"fine\":1}");
    const struct pry_http_seen *seen = last_seen(world);
    assert_int_equal(seen->body.size, size);
    assert_memory_equal(seen->body.data, body_of(size), size);
    assert_int_equal(seen->upload_size, chunked ? -1 : (int64_t)size);
    assert_true(engine->replay_used <= TOTAL + 128 * KIB);
    peer_free(peer);
  }
  engine->replay_used -= TOTAL;
}

static void test_too_long_for_any(void **state)
{
  struct world *world = *state;
  static const char *const paths[] = {"/v1/chat/completions", "/v1/messages"};
  static const char *const words[] = {"invalid_request_error", "request_too_large"};
  for (size_t i = 0; i < 2; i++) {
    struct peer *peer = peer_new(world);
    peer_head(world, peer, paths[i], MOST + 1);
    peer_wait_reply(world, peer, words[i]);
    assert_int_equal(strncmp(peer->reply, "HTTP/1.1 413 ", 13), 0);
    peer_free(peer);
  }
  assert_int_equal(pry_http_script_seen_count(world->rig->script), 0);
  rig_plays(world->rig, (struct pry_http_step){0}, json, "{}", NULL);
  struct peer *peer = peer_new(world);
  peer_head(world, peer, path, -1);
  send_body(world, peer, MOST + 300 * KIB, true);
  peer_wait_reply(world, peer, "HTTP/1.1 413 ");
  assert_true(last_seen(world)->cancelled);
  assert_true(last_seen(world)->body.size <= MOST);
  peer_free(peer);
}

/* The kernel's buffers fill, then the client is stuck; the gateway holds next to nothing. */
static void test_a_client_faster_than_its_provider_is_held(void **state)
{
  struct world *world = *state;
  rig_plays(world->rig, (struct pry_http_step){.takes = 1000, .hang = true}, NULL, NULL);
  world->rig->engine->options.max_body = 64 * MOST;
  struct peer *peer = peer_new(world);
  int small = 64 * KIB;
  setsockopt(peer->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  peer_head(world, peer, path, 64 * (int64_t)MOST);
  size_t taken = 0;
  while (peer_send(world, peer, body_of(MOST), MOST, true))
    taken += MOST;
  assert_in_range(taken, 0, 16 * MOST);
  assert_int_equal(last_seen(world)->body.size, 1000);
  setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
  close(peer->fd); /* and its leaving is noticed all the same */
  pry_time end = pry_loop_now(world->rig->loop) + GUARD_SECONDS * PRY_SECOND;
  while (!last_seen(world)->cancelled && pry_loop_now(world->rig->loop) < end)
    turn(world);
  assert_true(last_seen(world)->cancelled);
  free(peer);
}

static void test_an_answer_to_half_a_body(void **state)
{
  struct world *world = *state;
  rig_plays(world->rig, (struct pry_http_step){.status = 413, .takes = 1000}, json, "{\"error\":{\"message\":\"no\"}}",
            NULL);
  struct peer *peer = peer_new(world);
  peer_head(world, peer, path, MOST);
  assert_true(peer_send(world, peer, body_of(MOST), LIMIT, false));
  peer_wait_reply(world, peer, "{\"error\":{\"message\":\"no\"}}");
  assert_int_equal(strncmp(peer->reply, "HTTP/1.1 413 ", 13), 0);
  assert_int_equal(pry_http_script_seen_count(world->rig->script), 1);
  peer_free(peer);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(test_what_is_kept_and_what_is_streamed),
      TEST(test_when_the_room_for_bodies_is_taken),
      TEST(test_too_long_for_any),
      TEST(test_a_client_faster_than_its_provider_is_held),
      TEST(test_an_answer_to_half_a_body),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
