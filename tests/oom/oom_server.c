/* The loop and the HTTP server on real sockets, with each allocation and system call failing. A failure costs the request
 * or the connection it meets; the server goes on, and nobody waits for ever. */
#include "fail.h"
#include "server.h"
#include "wire.h"

static const struct pry_server_options options = {
    .head_deadline = 0.15, .body_idle = 0.15, .keep_alive = 0.15, .write_idle = 0.15, .output_high = 64 * 1024};

/* ---- a handler: echoes, or streams 512 KiB for /large -------------------------------------------------------- */

struct handled {
  struct pry_exchange *exchange;
  struct pry_buffer body;
  bool large, ended;
  size_t left;
};

static size_t open_requests;

static void handled_free(struct handled *handled)
{
  pry_buffer_fini(&handled->body);
  free(handled);
  open_requests--;
}

static void *on_head(void *user, struct pry_exchange *exchange, const struct pry_server_request *request)
{
  (void)user;
  struct handled *handled = calloc(1, sizeof *handled);
  if (!handled) {
    pry_reply_text(exchange, 503, NULL, PRY_SLICE(""));
    return NULL;
  }
  open_requests++;
  handled->exchange = exchange;
  handled->large = pry_slice_equal(request->path, PRY_SLICE("/large"));
  handled->left = handled->large ? 512 * 1024 : 0;
  pry_buffer_init(&handled->body, 0);
  return handled;
}

static void on_body(void *user, struct pry_slice data)
{
  struct handled *handled = user;
  pry_buffer_append_slice(&handled->body, data);
}

static void write_more(struct handled *handled)
{
  static const char piece[8 * 1024];
  while (handled->left) {
    handled->left -= sizeof piece;
    if (!pry_reply_write(handled->exchange, (struct pry_slice){piece, sizeof piece}) && handled->left)
      return;
  }
  struct pry_exchange *exchange = handled->exchange;
  handled_free(handled);
  pry_reply_end(exchange);
}

static void on_end(void *user)
{
  struct handled *handled = user;
  if (!handled->large) {
    struct pry_exchange *exchange = handled->exchange;
    pry_reply_text(exchange, 200, "text/plain", pry_buffer_slice(&handled->body));
    handled_free(handled);
  } else if (pry_reply_start(handled->exchange, 200, NULL, -1)) {
    write_more(handled);
  } /* else: on_gone follows */
}

static void on_gone(void *user)
{
  handled_free(user);
}

static void on_writable(void *user)
{
  write_more(user);
}

static const struct pry_server_ops ops = {on_head, on_body, on_end, on_writable, on_gone};

/* ---- clients ------------------------------------------------------------------------------------------------- */

static struct wire wires[3];

#define ANSWERED(wire) wire_has(wire, "\r\n\r\nhello")
#define CHUNKED_ANSWERED(wire) wire_has(wire, "\r\n\r\nhello world")
#define LARGE_ANSWERED(wire) ((wire)->total > 512 * 1024)

static void say_request(struct wire *wire)
{
  wire_say(wire, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
}

static void ask_all(struct pry_loop *loop, const char *address)
{
  for (int i = 0; i < 3; i++)
    wire_open(&wires[i], address);
  say_request(&wires[0]);
  wire_say(&wires[1], "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n");
  wire_say(&wires[2], "GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
  WIRE_UNTIL(loop, &wires[0], ANSWERED(&wires[0]));
  for (int i = 0; i < 3; i++) /* nobody reads at the third: it pauses */
    pry_loop_turn(loop, 0);
  wire_say(&wires[1], "5\r\nworld\r\n0\r\n\r\n");
  WIRE_UNTIL(loop, &wires[1], CHUNKED_ANSWERED(&wires[1]));
  WIRE_UNTIL(loop, &wires[2], LARGE_ANSWERED(&wires[2]));
}

/* Now that everything works again: each of them is answered or closed, and a new one is answered. */
static void all_end(struct pry_loop *loop, const char *address)
{
  WIRE_ENDS(loop, &wires[0], ANSWERED(&wires[0]));
  WIRE_ENDS(loop, &wires[1], CHUNKED_ANSWERED(&wires[1]));
  WIRE_ENDS(loop, &wires[2], LARGE_ANSWERED(&wires[2]));
  for (int i = 0; i < 3; i++)
    wire_close(&wires[i]);
  wire_open(&wires[0], address);
  say_request(&wires[0]);
  WIRE_ENDS(loop, &wires[0], ANSWERED(&wires[0]));
  FAIL_CHECK(ANSWERED(&wires[0]));
  wire_close(&wires[0]);
}

static void serve(const char *address)
{
  char error[512];
  struct pry_loop *loop = pry_loop_new();
  struct pry_server *server = loop ? pry_server_new(loop, address, &options, &ops, NULL, error, sizeof error) : NULL;
  open_requests = 0;
  if (server) {
    ask_all(loop, pry_server_address(server));
    fail_over();
    all_end(loop, pry_server_address(server));
    FAIL_CHECK(pry_server_request_count(server) == 0 && open_requests == 0);
  }
  pry_server_free(server);
  pry_loop_free(loop);
}

static void serve_tcp(void)
{
  serve("127.0.0.1:0");
}

static void serve_unix(void)
{
  char address[64];
  snprintf(address, sizeof address, "unix:/tmp/parry-oom-%ld.sock", (long)getpid());
  serve(address);
  FAIL_CHECK(access(address + 5, F_OK) != 0 || fail_struck()); /* unlink may have been what failed */
  unlink(address + 5);
}

/* ---- a loop by itself ----------------------------------------------------------------------------------------- */

static void count_one(void *user)
{
  ++*(unsigned *)user;
}

static void count_ready(int fd, void *user)
{
  char byte;
  (void)!read(fd, &byte, 1);
  ++*(unsigned *)user;
}

static void use_loop(void)
{
  unsigned fired = 0, ready = 0;
  struct pry_timer timers[80];
  int fds[2];
  struct pry_loop *loop = pry_loop_new();
  if (!loop)
    return;
  fail_quiet();
  FAIL_CHECK(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0 && write(fds[1], "x", 1) == 1);
  fail_loud();
  unsigned started = 0;
  for (int i = 0; i < 80; i++) {
    timers[i] = (struct pry_timer){0};
    started += pry_timer_start(loop, &timers[i], i * 20, count_one, &fired);
  }
  struct pry_watch *watch = pry_watch_new(loop, fds[0], PRY_LOOP_READABLE, count_ready, &ready);
  pry_time begun = pry_loop_now(loop);
  while ((fired < started || (watch && !ready)) && pry_loop_now(loop) - begun < WIRE_PATIENCE) {
    if (fail_struck() && pry_loop_now(loop) - begun > 10 * WIRE_DOUBT)
      fail_over();
    pry_loop_turn(loop, PRY_MILLISECOND);
  }
  FAIL_CHECK(fired == started); /* no timer is missed, whatever fails */
  FAIL_CHECK(!watch || ready);  /* who was told that a descriptor is watched is told of it */
  pry_watch_free(watch);
  close(fds[0]);
  close(fds[1]);
  pry_loop_free(loop);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"loop", use_loop, FAIL_BOTH, 0},
      {"server", serve_tcp, FAIL_BOTH, 0},
      {"server on a unix socket", serve_unix, FAIL_BOTH, 0},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
