/* The scripted client keeps the promises of http.h, in virtual time. */
#include "http_script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct world {
  struct pry_loop *loop;
  struct pry_http_script *script;
  struct pry_http *http;
};

enum moment { NEVER, AT_CONNECTED, AT_HEAD, AT_DATA, AT_DONE };

struct probe {
  struct world *world;
  struct pry_http_exchange *exchange;
  int connected, heads, datas, dones, status;
  struct pry_buffer body;
  struct pry_http_result result;
  pry_time head_time, data_times[16], done_time;
  enum moment cancel_at;
  bool pause_always;
  struct probe *start_when_done;
};

static void cancel_at(struct probe *probe, enum moment moment)
{
  if (probe->cancel_at == moment)
    pry_http_cancel(probe->exchange);
}

static void on_connected(void *user)
{
  struct probe *probe = user;
  probe->connected++;
  cancel_at(probe, AT_CONNECTED);
}

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  (void)headers;
  struct probe *probe = user;
  probe->heads++;
  probe->status = status;
  probe->head_time = pry_loop_now(probe->world->loop);
  cancel_at(probe, AT_HEAD);
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct probe *probe = user;
  assert_true(data.size > 0 && data.size <= PRY_HTTP_CHUNK_MAX);
  assert_true(pry_buffer_append_slice(&probe->body, data));
  if (probe->datas < 16)
    probe->data_times[probe->datas] = pry_loop_now(probe->world->loop);
  probe->datas++;
  cancel_at(probe, AT_DATA);
  return probe->pause_always ? PRY_HTTP_PAUSE : PRY_HTTP_CONTINUE;
}

static void start_url(struct world *world, struct probe *probe, const char *method, const char *url);

static void on_done(void *user, const struct pry_http_result *result)
{
  struct probe *probe = user;
  probe->dones++;
  probe->result = *result;
  probe->done_time = pry_loop_now(probe->world->loop);
  assert_non_null(result->message);
  cancel_at(probe, AT_DONE);
  if (probe->start_when_done)
    start_url(probe->world, probe->start_when_done, "POST", "http://b/");
}

static const struct pry_http_ops ops = {on_connected, on_head, on_data, on_done, NULL};

static void start_url(struct world *world, struct probe *probe, const char *method, const char *url)
{
  struct pry_headers headers;
  pry_headers_init(&headers);
  assert_true(pry_headers_add(&headers, PRY_SLICE("x-a"), PRY_SLICE("b")));
  struct pry_http_request request = {.method = method, .url = url, .headers = &headers, .body = PRY_SLICE("hello")};
  probe->world = world;
  int before = probe->connected + probe->heads + probe->dones;
  probe->exchange = pry_http_start(world->http, &request, &ops, probe);
  assert_non_null(probe->exchange);
  assert_int_equal(probe->connected + probe->heads + probe->dones, before);
  pry_headers_fini(&headers);
}

static void start(struct world *world, struct probe *probe)
{
  start_url(world, probe, "POST", "http://a/v1");
}

static int set_up(void **state)
{
  struct world *world = calloc(1, sizeof *world);
  assert_non_null(world);
  world->loop = pry_loop_new_virtual(0);
  world->script = pry_http_script_new(world->loop);
  world->http = pry_http_script_client(world->script);
  *state = world;
  return 0;
}

static int tear_down(void **state)
{
  struct world *world = *state;
  pry_http_free(world->http);
  pry_loop_free(world->loop);
  free(world);
  return 0;
}

static const struct pry_slice two_chunks[] = {{"abc", 3}, {"de", 2}};

static void test_answer_in_time(void **state)
{
  struct world *world = *state;
  struct pry_http_step step = {.status = 201, .chunks = two_chunks, .chunk_count = 2, .delay = 1, .chunk_delay = 0.5};
  assert_true(pry_http_script_push(world->script, &step));
  assert_int_equal(pry_http_script_unused(world->script), 1);
  struct probe probe = {0};
  start(world, &probe);
  assert_int_equal(pry_http_open_count(world->http), 1);
  assert_int_equal(pry_http_script_unused(world->script), 0);
  pry_loop_advance(world->loop, 10 * PRY_SECOND);
  assert_int_equal(probe.connected, 1);
  assert_int_equal(probe.heads, 1);
  assert_int_equal(probe.status, 201);
  assert_int_equal(probe.head_time, PRY_SECOND);
  assert_int_equal(probe.datas, 2);
  assert_int_equal(probe.data_times[0], PRY_SECOND * 3 / 2);
  assert_int_equal(probe.data_times[1], 2 * PRY_SECOND);
  assert_int_equal(probe.dones, 1);
  assert_int_equal(probe.done_time, 2 * PRY_SECOND);
  assert_string_equal(pry_buffer_text(&probe.body), "abcde");
  assert_int_equal(probe.result.curl_code, 0);
  assert_true(probe.result.connected && probe.result.sent && probe.result.head_received);
  assert_int_equal(pry_http_open_count(world->http), 0);
  assert_int_equal(pry_http_script_seen_count(world->script), 1);
  const struct pry_http_seen *seen = pry_http_script_seen(world->script, 0);
  assert_string_equal(seen->method, "POST");
  assert_string_equal(seen->url, "http://a/v1");
  assert_true(pry_slice_equal(seen->body, PRY_SLICE("hello")));
  assert_int_equal(seen->headers.count, 1);
  assert_true(seen->finished && !seen->cancelled);
  assert_null(pry_http_script_seen(world->script, 1));
  pry_buffer_fini(&probe.body);
}

static void check_failure(struct world *world, struct pry_http_step step, int code, bool connected, int heads,
                          int datas)
{
  assert_true(pry_http_script_push(world->script, &step));
  struct probe probe = {0};
  start(world, &probe);
  pry_loop_advance(world->loop, 10 * PRY_SECOND);
  assert_int_equal(probe.dones, 1);
  assert_int_equal(probe.result.curl_code, code);
  assert_int_equal(probe.result.connected, connected);
  assert_int_equal(probe.result.sent, connected);
  assert_int_equal(probe.connected, connected);
  assert_int_equal(probe.heads, heads);
  assert_int_equal(probe.datas, datas);
  pry_buffer_fini(&probe.body);
}

static void test_failures(void **state)
{
  struct world *world = *state;
  struct pry_http_step refused = {.curl_code = PRY_HTTP_COULDNT_CONNECT, .unsent = true};
  check_failure(world, refused, PRY_HTTP_COULDNT_CONNECT, false, 0, 0);
  struct pry_http_step reset = {.curl_code = PRY_HTTP_RECEIVE_FAILED, .chunks = two_chunks, .chunk_count = 2};
  check_failure(world, reset, PRY_HTTP_RECEIVE_FAILED, true, 0, 0);
  reset.after_body = true;
  check_failure(world, reset, PRY_HTTP_RECEIVE_FAILED, true, 1, 2);
  struct pry_http_step cut = {.cut = true, .chunks = two_chunks, .chunk_count = 2};
  check_failure(world, cut, PRY_HTTP_CUT, true, 1, 2);
}

static void test_hangs(void **state)
{
  struct world *world = *state;
  struct pry_http_step steps[] = {
      {.hang_connect = true}, {.hang = true}, {.hang = true, .chunks = two_chunks, .chunk_count = 2}};
  int connected[] = {0, 1, 1}, heads[] = {0, 0, 1}, datas[] = {0, 0, 2};
  for (size_t i = 0; i < 3; i++) {
    assert_true(pry_http_script_push(world->script, &steps[i]));
    struct probe probe = {0};
    start(world, &probe);
    pry_loop_advance(world->loop, 3600 * PRY_SECOND);
    assert_int_equal(probe.connected, connected[i]);
    assert_int_equal(probe.heads, heads[i]);
    assert_int_equal(probe.datas, datas[i]);
    assert_int_equal(probe.dones, 0);
    assert_int_equal(pry_http_open_count(world->http), 1);
    pry_http_cancel(probe.exchange);
    assert_int_equal(pry_http_open_count(world->http), 0);
    assert_true(pry_http_script_seen(world->script, i)->cancelled);
    pry_loop_advance(world->loop, PRY_SECOND);
    assert_int_equal(probe.dones, 0);
    pry_buffer_fini(&probe.body);
  }
}

static void test_cancel_inside_callbacks(void **state)
{
  struct world *world = *state;
  struct pry_http_step step = {.chunks = two_chunks, .chunk_count = 2};
  assert_true(pry_http_script_set_default(world->script, &step));
  for (enum moment moment = AT_CONNECTED; moment <= AT_DONE; moment++) {
    struct probe probe = {.cancel_at = moment};
    start(world, &probe);
    pry_loop_advance(world->loop, PRY_SECOND);
    assert_int_equal(probe.connected, 1);
    assert_int_equal(probe.heads, moment >= AT_HEAD);
    assert_int_equal(probe.datas, moment < AT_DATA ? 0 : moment == AT_DATA ? 1 : 2);
    assert_int_equal(probe.dones, moment == AT_DONE);
    assert_int_equal(pry_http_open_count(world->http), 0);
    pry_buffer_fini(&probe.body);
  }
}

static void test_pause_and_resume(void **state)
{
  struct world *world = *state;
  static char big[40000];
  memset(big, 'x', sizeof big);
  struct pry_slice chunks[] = {{"a", 1}, {"", 0}, {big, sizeof big}};
  struct pry_http_step step = {.chunks = chunks, .chunk_count = 3, .chunk_delay = 1};
  assert_true(pry_http_script_push(world->script, &step));
  struct probe probe = {.pause_always = true};
  start(world, &probe);
  pry_loop_advance(world->loop, 100 * PRY_SECOND);
  assert_int_equal(probe.datas, 1);
  for (int i = 2; i <= 4; i++) {
    pry_http_resume(probe.exchange);
    pry_http_resume(probe.exchange);
    assert_int_equal(probe.datas, i - 1);
    pry_loop_advance(world->loop, 100 * PRY_SECOND);
    assert_int_equal(probe.datas, i);
  }
  assert_int_equal(probe.body.size, 40001);
  assert_int_equal(probe.dones, 0);
  pry_http_resume(probe.exchange);
  assert_int_equal(probe.dones, 0);
  pry_loop_advance(world->loop, 0);
  assert_int_equal(probe.dones, 1);
  pry_buffer_fini(&probe.body);
}

static void test_choosing_steps(void **state)
{
  struct world *world = *state;
  struct pry_http_step b = {.status = 202, .url_part = "//b/"}, any = {.status = 201}, rest = {.status = 418};
  assert_true(pry_http_script_push(world->script, &b));
  assert_true(pry_http_script_push(world->script, &any));
  assert_true(pry_http_script_set_default(world->script, &rest));
  struct probe first = {0}, second = {0}, third = {0};
  first.start_when_done = &second;
  second.start_when_done = &third;
  start(world, &first);
  pry_loop_advance(world->loop, 0);
  assert_int_equal(first.status, 201);
  assert_int_equal(second.status, 202);
  assert_int_equal(third.status, 418);
  assert_true(pry_http_script_set_default(world->script, NULL));
  struct probe last = {0};
  start(world, &last);
  pry_loop_advance(world->loop, 0);
  assert_int_equal(last.dones, 1);
  assert_int_equal(last.result.curl_code, PRY_HTTP_COULDNT_CONNECT);
  assert_false(last.result.sent);
}

static void test_head_has_no_body(void **state)
{
  struct world *world = *state;
  struct pry_http_step step = {.chunks = two_chunks, .chunk_count = 2};
  assert_true(pry_http_script_push(world->script, &step));
  struct probe probe = {0};
  start_url(world, &probe, "HEAD", "http://a/");
  pry_loop_advance(world->loop, 0);
  assert_int_equal(probe.datas, 0);
  assert_int_equal(probe.dones, 1);
}

static void test_freeing_with_open_exchanges(void **state)
{
  struct world *world = *state;
  struct pry_http_step step = {.delay = 1};
  assert_true(pry_http_script_set_default(world->script, &step));
  struct probe probe = {0};
  for (int i = 0; i < 20; i++)
    start(world, &probe);
  pry_http_free(world->http);
  pry_loop_advance(world->loop, 10 * PRY_SECOND);
  assert_int_equal(probe.connected + probe.dones, 0);
  world->http = NULL;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(test_answer_in_time),
      TEST(test_failures),
      TEST(test_hangs),
      TEST(test_cancel_inside_callbacks),
      TEST(test_pause_and_resume),
      TEST(test_choosing_steps),
      TEST(test_head_has_no_body),
      TEST(test_freeing_with_open_exchanges),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
