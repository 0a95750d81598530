/* Reading encoded answers: every split, every break, and bombs. What is encoded comes from zlib's other half. */
#include "decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>

enum { GZIP = 15 + 16, ZLIB = 15, RAW = -15 };

/* Appends `text`, encoded. */
static void encode(struct pry_buffer *out, int window, const char *text, size_t size)
{
  z_stream stream = {0};
  unsigned char piece[4096];
  assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY), Z_OK);
  stream.next_in = (Bytef *)(uintptr_t)text;
  stream.avail_in = (uInt)size;
  int code;
  do {
    stream.next_out = piece;
    stream.avail_out = sizeof piece;
    code = deflate(&stream, Z_FINISH);
    assert_true(pry_buffer_append(out, piece, sizeof piece - stream.avail_out));
  } while (code == Z_OK);
  assert_int_equal(code, Z_STREAM_END);
  deflateEnd(&stream);
}

static enum pry_coding coding_of(const char *first, const char *second)
{
  struct pry_headers headers;
  pry_headers_init(&headers);
  assert_true(pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("gzip")));
  if (first)
    assert_true(pry_headers_add(&headers, PRY_SLICE("content-ENCODING"), pry_slice_of(first)));
  if (second)
    assert_true(pry_headers_add(&headers, PRY_SLICE("Content-Encoding"), pry_slice_of(second)));
  enum pry_coding coding = pry_coding_of(&headers);
  pry_headers_fini(&headers);
  return coding;
}

static void codings_are_told_apart(void **unused)
{
  (void)unused;
  assert_int_equal(coding_of(NULL, NULL), PRY_CODING_NONE);
  assert_int_equal(coding_of("", NULL), PRY_CODING_NONE);
  assert_int_equal(coding_of("identity", ","), PRY_CODING_NONE);
  assert_int_equal(coding_of("gzip", NULL), PRY_CODING_GZIP);
  assert_int_equal(coding_of("X-GZIP", "identity"), PRY_CODING_GZIP);
  assert_int_equal(coding_of(" , deflate ,", NULL), PRY_CODING_DEFLATE);
  assert_int_equal(coding_of("br", NULL), PRY_CODING_UNKNOWN);
  assert_int_equal(coding_of("zstd", NULL), PRY_CODING_UNKNOWN);
  assert_int_equal(coding_of("gzip, gzip", NULL), PRY_CODING_UNKNOWN);
  assert_int_equal(coding_of("gzip", "deflate"), PRY_CODING_UNKNOWN);
  assert_int_equal(coding_of("gzip;q=1", NULL), PRY_CODING_UNKNOWN);
}

static const char words[] = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";

/* Decodes in pieces of `step` bytes; returns the last result. */
static enum pry_decode_result in_steps(enum pry_coding coding, struct pry_slice text, size_t step,
                                       struct pry_buffer *out)
{
  struct pry_decoder *decoder = pry_decoder_new(coding);
  enum pry_decode_result result = PRY_DECODE_MORE;
  for (size_t at = 0; at < text.size && result != PRY_DECODE_BAD; at += step) {
    struct pry_slice piece = {text.data + at, text.size - at < step ? text.size - at : step};
    struct pry_slice some;
    while ((result = pry_decode(decoder, &piece, &some)) == PRY_DECODE_OUTPUT) {
      assert_in_range(some.size, 1, PRY_DECODE_PIECE);
      assert_true(pry_buffer_append_slice(out, some));
    }
    assert_true(result == PRY_DECODE_BAD || piece.size == 0);
  }
  pry_decoder_free(decoder);
  return result;
}

static void every_coding_in_every_split(void **unused)
{
  (void)unused;
  static const struct {
    int window;
    enum pry_coding coding;
  } kinds[] = {{GZIP, PRY_CODING_GZIP}, {ZLIB, PRY_CODING_DEFLATE}, {RAW, PRY_CODING_DEFLATE}};
  for (size_t i = 0; i < 3; i++) {
    struct pry_buffer encoded, text;
    pry_buffer_init(&encoded, 0);
    pry_buffer_init(&text, 0);
    encode(&encoded, kinds[i].window, words, sizeof words - 1);
    for (size_t step = 1; step <= encoded.size; step++) {
      pry_buffer_clear(&text);
      assert_int_equal(in_steps(kinds[i].coding, pry_buffer_slice(&encoded), step, &text), PRY_DECODE_END);
      assert_string_equal(pry_buffer_text(&text), words);
    }
    pry_buffer_fini(&encoded);
    pry_buffer_fini(&text);
  }
}

static void a_gzip_of_several_members(void **unused)
{
  (void)unused;
  struct pry_buffer encoded, text;
  pry_buffer_init(&encoded, 0);
  pry_buffer_init(&text, 0);
  encode(&encoded, GZIP, "one ", 4);
  encode(&encoded, GZIP, "", 0);
  encode(&encoded, GZIP, "two", 3);
  for (size_t step = 1; step <= encoded.size; step++) {
    pry_buffer_clear(&text);
    assert_int_equal(in_steps(PRY_CODING_GZIP, pry_buffer_slice(&encoded), step, &text), PRY_DECODE_END);
    assert_string_equal(pry_buffer_text(&text), "one two");
  }
  pry_buffer_fini(&encoded);
  pry_buffer_fini(&text);
}

/* Whatever byte is changed: what comes out is an end that was checked, a break, or not all. Never a crash. */
static void damage_is_noticed(void **unused)
{
  (void)unused;
  struct pry_buffer encoded, text;
  pry_buffer_init(&encoded, 0);
  pry_buffer_init(&text, 64 * 1024);
  encode(&encoded, GZIP, words, sizeof words - 1);
  for (size_t i = 0; i < encoded.size; i++)
    for (int bit = 0; bit < 8; bit++) {
      encoded.data[i] = (char)(encoded.data[i] ^ (1 << bit));
      pry_buffer_clear(&text);
      enum pry_decode_whole result = pry_decode_text(PRY_CODING_GZIP, pry_buffer_slice(&encoded), &text);
      assert_true(result != PRY_DECODED || strcmp(pry_buffer_text(&text), words) == 0);
      encoded.data[i] = (char)(encoded.data[i] ^ (1 << bit));
    }
  for (size_t size = 0; size < encoded.size; size++) {
    pry_buffer_clear(&text);
    struct pry_slice cut = {encoded.data, size};
    assert_int_equal(pry_decode_text(PRY_CODING_GZIP, cut, &text), PRY_DECODED_PART);
  }
  assert_true(pry_buffer_append_text(&encoded, "and more"));
  pry_buffer_clear(&text);
  assert_int_equal(pry_decode_text(PRY_CODING_GZIP, pry_buffer_slice(&encoded), &text), PRY_DECODE_BROKEN);
  assert_string_equal(pry_buffer_text(&text), words);
  pry_buffer_fini(&encoded);
  pry_buffer_fini(&text);
}

static void bytes_behind_a_deflate_are_a_break(void **unused)
{
  (void)unused;
  struct pry_buffer encoded, text;
  pry_buffer_init(&encoded, 0);
  pry_buffer_init(&text, 1024);
  encode(&encoded, ZLIB, "text", 4);
  encode(&encoded, ZLIB, "text", 4);
  assert_int_equal(pry_decode_text(PRY_CODING_DEFLATE, pry_buffer_slice(&encoded), &text), PRY_DECODE_BROKEN);
  assert_string_equal(pry_buffer_text(&text), "text");
  pry_buffer_fini(&encoded);
  pry_buffer_fini(&text);
}

static void bomb(struct pry_buffer *encoded, size_t size)
{
  char *zeros = calloc(1, size);
  assert_non_null(zeros);
  encode(encoded, GZIP, zeros, size);
  free(zeros);
}

static void a_bomb_fills_no_more_than_it_may(void **unused)
{
  (void)unused;
  struct pry_buffer encoded, text;
  pry_buffer_init(&encoded, 0);
  pry_buffer_init(&text, 256 * 1024);
  bomb(&encoded, 64 * 1024 * 1024);
  assert_in_range(encoded.size, 1, 80 * 1024);
  assert_int_equal(pry_decode_text(PRY_CODING_GZIP, pry_buffer_slice(&encoded), &text), PRY_DECODED_PART);
  assert_int_equal(text.size, 256 * 1024);
  pry_buffer_fini(&text);
  pry_buffer_init(&text, 0);
  assert_int_equal(in_steps(PRY_CODING_GZIP, pry_buffer_slice(&encoded), 1000, &text), PRY_DECODE_BAD);
  assert_in_range(text.size, PRY_DECODE_FREE, PRY_DECODE_FREE + (size_t)PRY_DECODE_PIECE * 2);
  pry_buffer_fini(&encoded);
  pry_buffer_fini(&text);
}

/* What compresses as well as the text of a stream can is no bomb, however long. */
static void a_long_honest_text_is_no_bomb(void **unused)
{
  (void)unused;
  struct pry_buffer plain, encoded, text;
  pry_buffer_init(&plain, 0);
  pry_buffer_init(&encoded, 0);
  pry_buffer_init(&text, 0);
  for (unsigned i = 0; plain.size < 8 * 1024 * 1024; i++)
    assert_true(pry_buffer_append_format(&plain, "data: {\"n\":%u,\"content\":\"token\"}\n\n", i));
  encode(&encoded, GZIP, plain.data, plain.size);
  assert_int_equal(in_steps(PRY_CODING_GZIP, pry_buffer_slice(&encoded), 16384, &text), PRY_DECODE_END);
  assert_int_equal(text.size, plain.size);
  assert_memory_equal(text.data, plain.data, plain.size);
  pry_buffer_fini(&plain);
  pry_buffer_fini(&encoded);
  pry_buffer_fini(&text);
}

static void whole_texts_and_their_limit(void **unused)
{
  (void)unused;
  struct pry_buffer encoded, text;
  pry_buffer_init(&encoded, 0);
  pry_buffer_init(&text, 4);
  encode(&encoded, GZIP, "four", 4);
  assert_int_equal(pry_decode_text(PRY_CODING_GZIP, pry_buffer_slice(&encoded), &text), PRY_DECODED);
  pry_buffer_clear(&text);
  pry_buffer_clear(&encoded);
  encode(&encoded, GZIP, "more than four", 14);
  assert_int_equal(pry_decode_text(PRY_CODING_GZIP, pry_buffer_slice(&encoded), &text), PRY_DECODED_PART);
  assert_string_equal(pry_buffer_text(&text), "more");
  pry_buffer_clear(&text);
  assert_int_equal(pry_decode_text(PRY_CODING_NONE, PRY_SLICE("five5"), &text), PRY_DECODED_PART);
  pry_buffer_clear(&text);
  assert_int_equal(pry_decode_text(PRY_CODING_NONE, PRY_SLICE("four"), &text), PRY_DECODED);
  assert_int_equal(pry_decode_text(PRY_CODING_UNKNOWN, PRY_SLICE("four"), &text), PRY_DECODE_BROKEN);
  pry_buffer_fini(&encoded);
  pry_buffer_fini(&text);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(codings_are_told_apart),
      cmocka_unit_test(every_coding_in_every_split),
      cmocka_unit_test(a_gzip_of_several_members),
      cmocka_unit_test(damage_is_noticed),
      cmocka_unit_test(bytes_behind_a_deflate_are_a_break),
      cmocka_unit_test(a_bomb_fills_no_more_than_it_may),
      cmocka_unit_test(a_long_honest_text_is_no_bomb),
      cmocka_unit_test(whole_texts_and_their_limit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
