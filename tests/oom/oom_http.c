/* The HTTP client on curl against a provider on loopback, with each allocation and system call failing. Each exchange ends
 * exactly once, and the client goes on. */
#include "fail.h"
#include "http.h"
#include "wire.h"

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

static const char *const answers[] = {HEAD "Content-Length: 5\r\n\r\nhello",
                                      HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n",
                                      HEAD "Content-Length: 10\r\nConnection: close\r\n\r\nhelloworld",
                                      HEAD "Content-Length: 5\r\n\r\nhello", NULL};

struct asked {
  struct pry_http_exchange *exchange;
  size_t heads, dones, bytes;
  int code;
  bool pause_once;
};

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct asked *asked = user;
  (void)headers;
  FAIL_CHECK(status == 200 && asked->dones == 0);
  asked->heads++;
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct asked *asked = user;
  FAIL_CHECK(asked->heads == 1 && asked->dones == 0);
  asked->bytes += data.size;
  bool pause = asked->pause_once;
  asked->pause_once = false;
  return pause ? PRY_HTTP_PAUSE : PRY_HTTP_CONTINUE;
}

static void on_done(void *user, const struct pry_http_result *result)
{
  struct asked *asked = user;
  FAIL_CHECK(result->message);
  asked->dones++;
  asked->code = result->curl_code;
  asked->exchange = NULL;
}

static const struct pry_http_ops ops = {NULL, on_head, on_data, on_done, NULL};

static struct wire_provider provider;

static void turn(struct pry_loop *loop)
{
  pry_loop_turn(loop, PRY_MILLISECOND);
  wire_provider_serve(&provider);
}

static void start(struct pry_http *http, struct asked *asked)
{
  char url[64];
  struct pry_headers headers;
  *asked = (struct asked){0};
  snprintf(url, sizeof url, "http://%s/v1/x", provider.address);
  pry_headers_init(&headers);
  pry_headers_add(&headers, PRY_SLICE("X-One"), PRY_SLICE("1"));
  struct pry_http_request request = {.method = "POST", .url = url, .headers = &headers, .body = PRY_SLICE("{\"a\":1}")};
  asked->exchange = pry_http_start(http, &request, &ops, asked);
  FAIL_CHECK(asked->dones == 0);
  pry_headers_fini(&headers);
}

/* call.c has timers for all of it: who waits too long cancels. So it is here. */
static void finish(struct pry_loop *loop, struct asked *asked)
{
  pry_time started = pry_loop_now(loop);
  while (asked->exchange && !asked->dones) {
    pry_time waited = pry_loop_now(loop) - started;
    if (fail_struck() && waited > 5 * WIRE_DOUBT)
      break;
    FAIL_CHECK(waited < WIRE_PATIENCE);
    if (asked->bytes)
      pry_http_resume(asked->exchange);
    turn(loop);
  }
  if (asked->exchange)
    pry_http_cancel(asked->exchange);
  FAIL_CHECK(asked->dones <= 1);
}

static void good_run(struct pry_loop *loop, struct pry_http *http)
{
  struct asked asked;
  start(http, &asked);
  FAIL_CHECK(asked.exchange);
  pry_time started = pry_loop_now(loop);
  while (!asked.dones) {
    FAIL_CHECK(pry_loop_now(loop) - started < WIRE_PATIENCE);
    turn(loop);
  }
  FAIL_CHECK(asked.code == 0 && asked.bytes == 5);
}

static void use_http(void)
{
  struct asked asked;
  struct pry_loop *loop = pry_loop_new();
  struct pry_http *http = loop ? pry_http_new(loop, NULL) : NULL;
  wire_provider_open(&provider, answers);
  if (http) {
    for (int i = 0; i < 3; i++) {
      start(http, &asked);
      asked.pause_once = i == 1;
      finish(loop, &asked);
    }
    start(http, &asked); /* and one that leaves in the middle */
    turn(loop);
    if (asked.exchange)
      pry_http_cancel(asked.exchange);
    fail_over();
    provider.answered = 3;
    good_run(loop, http);
    FAIL_CHECK(pry_http_open_count(http) == 0);
  }
  pry_http_free(http);
  wire_provider_close(&provider);
  pry_loop_free(loop);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {{"http", use_http, FAIL_BOTH, 0}};
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
