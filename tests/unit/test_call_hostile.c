/* The call state machine against event streams that never end anything: memory stays bounded, the client gets the
 * bytes, and before there is anything for the client to get all is recoverable. In virtual time. */
#include "call_policies.h"

enum { PIECE = 16 * 1024, PIECES = 256, HOLD_LIMIT = 256 * 1024 };

/* Bytes in use by malloc, roughly; a sanitizer's own malloc says nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static size_t in_use(void)
{
  return 0;
}
#else
#include <malloc.h>

static size_t in_use(void)
{
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}
#endif

static size_t most, given;

static void count(struct client *client)
{
  (void)client;
  size_t now = in_use();
  most = now > most ? now : most;
}

static bool count_data(void *user, struct pry_slice data)
{
  count(user);
  given += data.size;
  return true;
}

static const struct pry_sink_ops counting_ops = {client_head, count_data, client_done, NULL};

static struct client *start_counting(struct rig *rig)
{
  struct client *client = calloc(1, sizeof *client);
  struct pry_headers headers;
  struct pry_buffer body;
  pry_headers_init(&headers);
  pry_headers_init(&client->headers);
  pry_buffer_init(&client->body, 0);
  pry_buffer_init(&body, 0);
  assert_true(pry_buffer_append_text(&body, BODY));
  client->rig = rig;
  struct pry_call_request request = {
      .method = PRY_SLICE("POST"), .path = PRY_SLICE("/v1/chat/completions"), .headers = &headers, .body = &body};
  client->call = pry_call_start(rig->engine->control, &request, &counting_ops, client);
  assert_non_null(client->call);
  return client;
}

/* 4 MB of `text` over and over, after `start`. */
static void push_endless(struct rig *rig, const char *start, const char *text)
{
  struct pry_headers headers;
  struct pry_slice chunks[PIECES + 1] = {pry_slice_of(start)};
  struct pry_buffer piece;
  pry_headers_init(&headers);
  rig_headers(&headers, sse);
  pry_buffer_init(&piece, 0);
  while (piece.size + strlen(text) <= PIECE)
    assert_true(pry_buffer_append_text(&piece, text));
  for (size_t i = 1; i <= PIECES; i++)
    chunks[i] = pry_buffer_slice(&piece);
  struct pry_http_step step = {.headers = &headers, .chunks = chunks, .chunk_count = PIECES + 1, .chunk_delay = 0.001};
  assert_true(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&headers);
  pry_buffer_fini(&piece);
}

static void nothing_endless_costs_memory(void **unused)
{
  (void)unused;
  static const struct {
    const char *start, *text;
  } rows[] = {
      {"data: ", "aaaaaaaaaaaaaaaa"},              /* a line */
      {"", "data: a\n"},                           /* an event */
      {"", ": ping\n"},                            /* a comment in no event */
      {"", ": ping\n\n"},                          /* comments */
      {"", "\n"},                                  /* nothing */
      {"", "\r\r\n"},                              /* nothing, in every way to end a line */
      {"", "id: 1\n"},                             /* fields */
      {"", "event: x\ndata: {}\n\n"},              /* events that are no content */
      {"", ROLE},                                  /* roles */
      {CONTENT, "data: a\n"},                      /* an event, behind content */
      {"data: {\"choices\":", "[[[[[[[[[[[[[[[["}, /* nesting */
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct rig *rig = rig_on_error(silent);
    push_endless(rig, rows[i].start, rows[i].text);
    struct client *client = start_counting(rig);
    size_t before = in_use();
    most = before;
    given = 0;
    client_finish(client);
    assert_int_equal(client->status, 200);
    if (most > before + 4 * HOLD_LIMIT)
      fail_msg("row %zu takes %zu KiB", i, (most - before) / 1024);
    assert_true(given > 3 * 1024 * 1024); /* the client decides when it has enough */
    rig_end(client, rig);
  }
}

/* Not a byte of it is content: until the limit is reached the call can still be rescued. */
static void a_flood_that_breaks_before_the_limit_recovers(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  struct pry_buffer pings;
  pry_buffer_init(&pings, 0);
  while (pings.size < HOLD_LIMIT - 100)
    assert_true(pry_buffer_append_text(&pings, ": ping\n\n"));
  rig_plays(rig, (struct pry_http_step){.cut = true}, sse, pry_buffer_text(&pings), NULL);
  rig_answers(rig, 200, sse, CONTENT, DONE, NULL);
  struct client *client = client_call(rig, BODY);
  client_has_body(client, CONTENT DONE);
  pry_buffer_fini(&pings);
  rig_end(client, rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_endless_costs_memory),
      cmocka_unit_test(a_flood_that_breaks_before_the_limit_recovers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
