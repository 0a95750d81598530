/* The call state machine: answers that a provider encoded, though it was asked not to. In virtual time.
 *
 * They used to pass as they were: an encoded error was neither classified nor scrubbed, and the events of an encoded
 * stream were not seen. */
#include "call_policies.h"

#include <zlib.h>

static const char *const json_gzip[] = {"Content-Type", "application/json", "Content-Encoding", "gzip", NULL};
static const char *const json_br[] = {"Content-Type", "application/json", "Content-Encoding", "br", NULL};
static const char *const sse_gzip[] = {"Content-Type", "text/event-stream", "Content-Encoding", "gzip", NULL};
static const char *const sse_deflate[] = {"Content-Type", "text/event-stream", "Content-Encoding", "deflate", NULL};
static const char *const sse_br[] = {"Content-Type", "text/event-stream", "Content-Encoding", "br", NULL};

#define ERROR "{\"error\":{\"message\":\"theirs\"}}"

/* Encodes texts so that each can be decoded as soon as it is there, as a server flushes a stream. */
struct encoder {
  z_stream stream;
  struct pry_buffer bytes[16];
  struct pry_slice chunks[16];
  size_t count;
};

static void encoder_init(struct encoder *encoder, int window)
{
  memset(encoder, 0, sizeof *encoder);
  assert_int_equal(deflateInit2(&encoder->stream, 9, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY), Z_OK);
}

static void encode(struct encoder *encoder, const char *text, size_t size, int flush)
{
  struct pry_buffer *out = &encoder->bytes[encoder->count];
  unsigned char piece[4096];
  pry_buffer_init(out, 0);
  encoder->stream.next_in = (Bytef *)(uintptr_t)text;
  encoder->stream.avail_in = (uInt)size;
  do {
    encoder->stream.next_out = piece;
    encoder->stream.avail_out = sizeof piece;
    deflate(&encoder->stream, flush);
    assert_true(pry_buffer_append(out, piece, sizeof piece - encoder->stream.avail_out));
  } while (!encoder->stream.avail_out);
  encoder->chunks[encoder->count++] = pry_buffer_slice(out);
}

static void encode_text(struct encoder *encoder, const char *text)
{
  encode(encoder, text, strlen(text), Z_SYNC_FLUSH);
}

/* Pushes what was encoded as an answer. */
static void answer(struct rig *rig, struct encoder *encoder, struct pry_http_step step, const char *const *headers)
{
  struct pry_headers list;
  pry_headers_init(&list);
  rig_headers(&list, headers);
  step.headers = &list;
  step.chunks = encoder->chunks;
  step.chunk_count = encoder->count;
  assert_true(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&list);
  for (size_t i = 0; i < encoder->count; i++)
    pry_buffer_fini(&encoder->bytes[i]);
  deflateEnd(&encoder->stream);
}

static void answer_text(struct rig *rig, int status, const char *const *headers, const char *text)
{
  struct encoder encoder;
  encoder_init(&encoder, 31);
  encode(&encoder, text, strlen(text), Z_FINISH);
  answer(rig, &encoder, (struct pry_http_step){.status = status}, headers);
}

static bool has_field(const struct client *client, const char *name)
{
  struct pry_slice value;
  return pry_headers_get(&client->headers, pry_slice_of(name), &value);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static void an_encoded_error_is_given_decoded(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  answer_text(rig, 400, json_gzip, ERROR);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 400);
  client_has_body(client, ERROR);
  assert_int_equal(client->announced, strlen(ERROR));
  assert_false(has_field(client, "content-encoding"));
  assert_true(has_field(client, "content-type"));
  rig_end(client, rig);
}

/* Its secret would have reached the client inside the coding. */
static void an_encoded_error_is_scrubbed(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  assert_true(pry_scrubber_add(rig->engine->scrubber, PRY_SLICE("sk-very-secret-key-1")));
  answer_text(rig, 401, json_gzip, "{\"error\":{\"message\":\"wrong key sk-very-secret-key-1\"}}");
  struct client *client = client_call(rig, BODY);
  client_has_body(client, "{\"error\":{\"message\":\"wrong key ***\"}}");
  rig_end(client, rig);
}

static void an_error_that_cannot_be_read_is_replaced(void **unused)
{
  (void)unused;
  for (int i = 0; i < 4; i++) {
    struct rig *rig = rig_on_error(silent);
    struct encoder encoder;
    encoder_init(&encoder, 31);
    if (i == 0) { /* a coding that we do not know */
      encode(&encoder, ERROR, strlen(ERROR), Z_FINISH);
      answer(rig, &encoder, (struct pry_http_step){.status = 429}, json_br);
    } else if (i == 1) { /* broken */
      encode(&encoder, ERROR, strlen(ERROR), Z_FINISH);
      encoder.bytes[0].data[12] ^= 0x55;
      answer(rig, &encoder, (struct pry_http_step){.status = 429}, json_gzip);
    } else if (i == 2) { /* not all of it */
      encode_text(&encoder, ERROR);
      answer(rig, &encoder, (struct pry_http_step){.status = 429}, json_gzip);
    } else { /* a bomb */
      char *zeros = calloc(1, 4 << 20);
      encode(&encoder, zeros, 4 << 20, Z_FINISH);
      free(zeros);
      answer(rig, &encoder, (struct pry_http_step){.status = 429}, json_gzip);
    }
    struct client *client = client_call(rig, BODY);
    assert_int_equal(client->status, 429);
    assert_int_equal(rig->last_failure.category, PRY_RATE_LIMIT);
    assert_non_null(strstr(pry_buffer_text(&client->body), "\"code\":\"rate_limit\""));
    assert_in_range(client->body.size, 1, 1000);
    assert_false(has_field(client, "content-encoding"));
    rig_end(client, rig);
  }
}

/* ---- good bodies --------------------------------------------------------------------------------------------------- */

static void an_encoded_error_in_a_200_recovers(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  answer_text(rig, 200, json_gzip, ERROR);
  rig_answers(rig, 200, json, "{}", NULL);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(rig_upstream(rig), 2);
  client_has_body(client, "{}");
  rig_end(client, rig);
}

static void a_good_encoded_body_passes_byte_for_byte(void **unused)
{
  (void)unused;
  static const char *const *const heads[] = {json_gzip, json_br};
  for (size_t i = 0; i < 2; i++) {
    struct rig *rig = rig_on_error(retry_twice);
    struct encoder encoder;
    encoder_init(&encoder, 31);
    encode(&encoder, "{\"ok\":true}", 11, Z_FINISH);
    struct pry_buffer same;
    pry_buffer_init(&same, 0);
    assert_true(pry_buffer_append_slice(&same, encoder.chunks[0]));
    answer(rig, &encoder, (struct pry_http_step){.status = 200}, heads[i]);
    struct client *client = client_call(rig, BODY);
    assert_int_equal(client->status, 200);
    assert_true(has_field(client, "content-encoding"));
    assert_true(pry_slice_equal(pry_buffer_slice(&client->body), pry_buffer_slice(&same)));
    pry_buffer_fini(&same);
    rig_end(client, rig);
  }
}

static void a_broken_200_is_tried_again(void **unused)
{
  (void)unused;
  for (int cut = 0; cut < 2; cut++) {
    struct rig *rig = rig_on_error(retry_twice);
    struct encoder encoder;
    encoder_init(&encoder, 31);
    encode(&encoder, "{\"ok\":true}", 11, cut ? Z_SYNC_FLUSH : Z_FINISH);
    if (!cut)
      encoder.bytes[0].data[encoder.bytes[0].size - 6] ^= 1; /* its checksum */
    answer(rig, &encoder, (struct pry_http_step){.status = 200}, json_gzip);
    rig_answers(rig, 200, json, "{}", NULL);
    struct client *client = client_call(rig, BODY);
    assert_string_equal(rig->last_failure.code, "bad_encoding");
    assert_int_equal(rig->last_failure.category, PRY_SERVER);
    client_has_body(client, "{}");
    rig_end(client, rig);
  }
}

/* Longer than what is read of any body, once it is decoded: it passes as a long plain one does. */
static void a_long_encoded_body_passes(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  struct encoder encoder;
  char *spaces = malloc(1 << 20);
  memset(spaces, ' ', 1 << 20);
  encoder_init(&encoder, 31);
  encode(&encoder, spaces, 1 << 20, Z_FINISH);
  free(spaces);
  size_t size = encoder.bytes[0].size;
  answer(rig, &encoder, (struct pry_http_step){.status = 200}, json_gzip);
  struct client *client = client_call(rig, BODY);
  assert_int_equal(client->status, 200);
  assert_int_equal(client->body.size, size);
  rig_end(client, rig);
}

static void a_head_alone_has_nothing_to_decode(void **unused)
{
  (void)unused;
  static const int statuses[] = {200, 204, 304};
  for (size_t i = 0; i < 3; i++) {
    struct rig *rig = rig_on_error(retry_twice);
    rig_answers(rig, statuses[i], json_gzip, NULL);
    struct client *client = client_call(rig, BODY);
    assert_int_equal(client->status, statuses[i]);
    assert_int_equal(rig_upstream(rig), 1);
    rig_end(client, rig);
  }
}

/* ---- streams ------------------------------------------------------------------------------------------------------- */

static void an_encoded_stream_is_relayed_decoded(void **unused)
{
  (void)unused;
  static const struct {
    int window;
    const char *const *headers;
  } kinds[] = {{31, sse_gzip}, {15, sse_deflate}, {-15, sse_deflate}};
  for (size_t i = 0; i < 3; i++) {
    struct rig *rig = rig_on_error(retry_twice);
    struct encoder encoder;
    encoder_init(&encoder, kinds[i].window);
    encode_text(&encoder, ROLE);
    encode_text(&encoder, CONTENT);
    encode_text(&encoder, CONTENT FINISH);
    encode(&encoder, DONE, strlen(DONE), Z_FINISH);
    answer(rig, &encoder, (struct pry_http_step){.chunk_delay = 1}, kinds[i].headers);
    struct client *client = client_start(rig, NULL, BODY, NULL);
    pry_loop_advance(rig->loop, 3 * PRY_SECOND / 2);
    assert_int_equal(client->heads, 0); /* a role is no content */
    pry_loop_advance(rig->loop, PRY_SECOND);
    assert_int_equal(client->status, 200);
    client_has_body(client, ROLE CONTENT);
    client_finish(client);
    client_has_body(client, ROLE CONTENT CONTENT FINISH DONE);
    assert_false(has_field(client, "content-encoding"));
    assert_true(client->outcome.ok);
    rig_end(client, rig);
  }
}

static void an_error_in_an_encoded_stream_recovers(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(retry_twice);
  struct encoder encoder;
  encoder_init(&encoder, 31);
  encode_text(&encoder, ROLE STREAM_ERROR);
  answer(rig, &encoder, (struct pry_http_step){0}, sse_gzip);
  rig_answers(rig, 200, sse, CONTENT DONE, NULL);
  struct client *client = client_call(rig, BODY);
  client_has_body(client, CONTENT DONE);
  assert_int_equal(rig_upstream(rig), 2);
  rig_end(client, rig);
}

static void a_broken_stream_recovers_or_ends_honestly(void **unused)
{
  (void)unused;
  for (int committed = 0; committed < 2; committed++) {
    struct rig *rig = rig_on_error(retry_twice);
    struct encoder encoder;
    encoder_init(&encoder, 31);
    encode_text(&encoder, ROLE);
    if (committed)
      encode_text(&encoder, CONTENT);
    encode_text(&encoder, CONTENT);
    memset(encoder.bytes[encoder.count - 1].data, 0xFF, 2); /* a block of a kind that does not exist */
    answer(rig, &encoder, (struct pry_http_step){.hang = true}, sse_gzip);
    rig_answers(rig, 200, sse, CONTENT DONE, NULL);
    struct client *client = client_call(rig, BODY);
    if (committed) {
      const char *text = pry_buffer_text(&client->body);
      assert_int_equal(strncmp(text, ROLE CONTENT "data: {\"error\"", strlen(ROLE CONTENT) + 14), 0);
      assert_string_equal(client->outcome.failure.code, "bad_encoding");
      assert_false(client->truncated);
    } else {
      client_has_body(client, CONTENT DONE);
    }
    rig_end(client, rig);
  }
}

static void a_cut_encoded_stream_does_not_end_cleanly(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  struct encoder encoder;
  encoder_init(&encoder, 31);
  encode_text(&encoder, CONTENT);
  answer(rig, &encoder, (struct pry_http_step){0}, sse_gzip);
  struct client *client = client_call(rig, BODY);
  assert_string_equal(client->outcome.failure.code, "stream_unterminated");
  assert_non_null(strstr(pry_buffer_text(&client->body), "\"error\""));
  rig_end(client, rig);
}

/* A few bytes from the provider, megabytes for the client: they are made only as it takes them. */
static void pause_at_once(struct client *client)
{
  client->pause = true;
}

static void a_slow_client_slows_the_decoding(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  struct encoder encoder;
  struct pry_buffer plain;
  pry_buffer_init(&plain, 0);
  while (plain.size < 900 * 1024)
    assert_true(pry_buffer_append_text(&plain, CONTENT));
  assert_true(pry_buffer_append_text(&plain, DONE));
  encoder_init(&encoder, 31);
  encode(&encoder, plain.data, plain.size, Z_FINISH);
  assert_in_range(encoder.bytes[0].size, 1, PRY_HTTP_CHUNK_MAX); /* one piece for on_data */
  answer(rig, &encoder, (struct pry_http_step){0}, sse_gzip);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  client->at_data = pause_at_once;
  unsigned rounds = 0;
  for (size_t before = 0; !client->dones; rounds++) {
    pry_loop_advance(rig->loop, 100 * PRY_SECOND); /* no timeout is the client's fault */
    assert_true(client->body.size - before <= 2 * 16 * 1024);
    before = client->body.size;
    if (!client->dones)
      pry_call_resume(client->call);
    assert_int_equal(client->body.size, before); /* nothing from inside the resume */
    assert_true(rounds < 1000000);
  }
  assert_true(rounds > 30);
  assert_true(client->outcome.ok);
  assert_true(pry_slice_equal(pry_buffer_slice(&client->body), pry_buffer_slice(&plain)));
  pry_buffer_fini(&plain);
  rig_end(client, rig);
}

static void leave(struct client *client)
{
  client_leave(client);
}

static void a_client_that_leaves_a_slow_stream(void **unused)
{
  (void)unused;
  for (int inside = 0; inside < 2; inside++) {
    struct rig *rig = rig_on_error(silent);
    struct encoder encoder;
    encoder_init(&encoder, 31);
    for (int i = 0; i < 8; i++)
      encode_text(&encoder, CONTENT CONTENT CONTENT CONTENT);
    answer(rig, &encoder, (struct pry_http_step){.hang = true}, sse_gzip);
    struct client *client = client_start(rig, NULL, BODY, NULL);
    client->at_data = inside ? leave : pause_at_once;
    pry_loop_advance(rig->loop, PRY_SECOND);
    if (!inside) {
      pry_call_resume(client->call); /* about to go on */
      client_leave(client);
    }
    client_finish(client);
    assert_int_equal(client->outcome.category, PRY_CANCELLED);
    rig_end(client, rig);
  }
}

/* Endless zeros in a stream: neither an event nor a line ever ends. Where they look like an event some of them pass. */
static void a_bomb_as_a_stream_is_a_failure(void **unused)
{
  (void)unused;
  static const char *const openings[] = {"data: ", ""}, *const codes[] = {"bad_encoding", "stream_malformed"};
  for (size_t i = 0; i < 2; i++) {
    struct rig *rig = rig_on_error(silent);
    struct encoder encoder;
    char *zeros = calloc(1, 64 << 20);
    memcpy(zeros, openings[i], strlen(openings[i]));
    encoder_init(&encoder, 31);
    encode(&encoder, zeros, 64 << 20, Z_FINISH);
    free(zeros);
    answer(rig, &encoder, (struct pry_http_step){0}, sse_gzip);
    struct client *client = client_call(rig, BODY);
    assert_string_equal(client->outcome.failure.code, codes[i]);
    assert_int_equal(client->outcome.committed, i == 0);
    assert_in_range(client->body.size, 1, 2 << 20);
    rig_end(client, rig);
  }
}

static void a_stream_in_an_unknown_coding_passes_at_once(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig_plays(rig, (struct pry_http_step){.chunk_delay = 1}, sse_br, "\x1b\x01", "\x02\x03", NULL);
  struct client *client = client_start(rig, NULL, BODY, NULL);
  pry_loop_advance(rig->loop, 3 * PRY_SECOND / 2);
  client_has_body(client, "\x1b\x01");
  assert_true(has_field(client, "content-encoding"));
  client_finish(client);
  client_has_body(client, "\x1b\x01\x02\x03");
  assert_true(client->outcome.ok);
  rig_end(client, rig);
}

/* It cannot be told in words that the client's decoder would not take. */
static void a_cut_stream_in_an_unknown_coding_is_broken_off(void **unused)
{
  (void)unused;
  struct rig *rig = rig_on_error(silent);
  rig_plays(rig, (struct pry_http_step){.cut = true}, sse_br, "\x1b\x01", NULL);
  struct client *client = client_call(rig, BODY);
  client_has_body(client, "\x1b\x01");
  assert_true(client->truncated);
  rig_end(client, rig);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_encoded_error_is_given_decoded),
      cmocka_unit_test(an_encoded_error_is_scrubbed),
      cmocka_unit_test(an_error_that_cannot_be_read_is_replaced),
      cmocka_unit_test(an_encoded_error_in_a_200_recovers),
      cmocka_unit_test(a_good_encoded_body_passes_byte_for_byte),
      cmocka_unit_test(a_broken_200_is_tried_again),
      cmocka_unit_test(a_long_encoded_body_passes),
      cmocka_unit_test(a_head_alone_has_nothing_to_decode),
      cmocka_unit_test(an_encoded_stream_is_relayed_decoded),
      cmocka_unit_test(an_error_in_an_encoded_stream_recovers),
      cmocka_unit_test(a_broken_stream_recovers_or_ends_honestly),
      cmocka_unit_test(a_cut_encoded_stream_does_not_end_cleanly),
      cmocka_unit_test(a_slow_client_slows_the_decoding),
      cmocka_unit_test(a_client_that_leaves_a_slow_stream),
      cmocka_unit_test(a_bomb_as_a_stream_is_a_failure),
      cmocka_unit_test(a_stream_in_an_unknown_coding_passes_at_once),
      cmocka_unit_test(a_cut_stream_in_an_unknown_coding_is_broken_off),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
