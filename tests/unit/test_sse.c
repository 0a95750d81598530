#include "sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* Transcripts: one line per block, "E<name>|<data>|<id>" for an event, "B" for a block without data, "r<ms>" behind
 * either when it had a retry field, "L" for too large. At the end "~" when an unfinished block is pending. Every row is
 * fed whole, byte by byte and cut in two at every place; each must give the same transcript, and the blocks' bytes
 * together must be the input. */

struct row {
  const char *name;
  struct pry_slice input;
  struct pry_slice expected;
};

#define ROW(name, input, expected)                                                                                     \
  {                                                                                                                    \
    name, {input, sizeof(input) - 1},                                                                                  \
    {                                                                                                                  \
      expected, sizeof(expected) - 1                                                                                   \
    }                                                                                                                  \
  }

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

struct reader {
  struct pry_sse_parser parser;
  struct pry_buffer transcript;
  struct pry_buffer held;    /* bytes of the unfinished block */
  struct pry_buffer relayed; /* bytes of finished blocks */
};

static void write_event(struct reader *reader, enum pry_sse_result result, const struct pry_sse_event *event)
{
  struct pry_buffer *out = &reader->transcript;
  if (result == PRY_SSE_EVENT) {
    pry_buffer_append_text(out, "E");
    pry_buffer_append_slice(out, event->name);
    pry_buffer_append_text(out, "|");
    pry_buffer_append_slice(out, event->data);
    pry_buffer_append_text(out, "|");
    pry_buffer_append_slice(out, event->id);
  } else {
    assert_int_equal(result, PRY_SSE_BLOCK);
    assert_int_equal(event->data.size, 0);
    pry_buffer_append_text(out, "B");
  }
  if (event->retry_ms >= 0)
    pry_buffer_append_format(out, "r%ld", event->retry_ms);
  pry_buffer_append_text(out, "\n");
}

/* What a block's bytes must look like: they end in a blank line, whatever its line ends. */
static void check_boundary(struct pry_slice block)
{
  assert_true(block.size > 0);
  char last = block.data[block.size - 1];
  assert_true(last == '\n' || last == '\r');
}

static void feed(struct reader *reader, struct pry_slice piece)
{
  char *copy = malloc(piece.size ? piece.size : 1);
  assert_non_null(copy);
  if (piece.size)
    memcpy(copy, piece.data, piece.size);
  struct pry_slice rest = {copy, piece.size};
  for (;;) {
    size_t consumed;
    struct pry_sse_event event;
    enum pry_sse_result result = pry_sse_feed(&reader->parser, rest, &consumed, &event);
    assert_true(consumed <= rest.size);
    pry_buffer_append(&reader->held, rest.data, consumed);
    rest.data += consumed;
    rest.size -= consumed;
    if (result == PRY_SSE_NEED_MORE)
      break;
    if (result == PRY_SSE_TOO_LARGE) {
      pry_buffer_append_text(&reader->transcript, "L");
      pry_buffer_append_slice(&reader->transcript, event.data);
      pry_buffer_append_text(&reader->transcript, "\n");
      assert_true(pry_sse_pending(&reader->parser));
      continue;
    }
    write_event(reader, result, &event);
    assert_false(pry_sse_pending(&reader->parser));
    check_boundary(pry_buffer_slice(&reader->held));
    pry_buffer_append_slice(&reader->relayed, pry_buffer_slice(&reader->held));
    pry_buffer_clear(&reader->held);
  }
  assert_int_equal(rest.size, 0);
  free(copy);
}

static void run(struct reader *reader, struct pry_slice input, size_t first, size_t step, size_t limit)
{
  pry_sse_init(&reader->parser, limit);
  size_t size = first;
  for (size_t offset = 0; offset < input.size; offset += size, size = step) {
    if (size > input.size - offset)
      size = input.size - offset;
    feed(reader, (struct pry_slice){input.data + offset, size});
  }
  if (pry_sse_pending(&reader->parser))
    pry_buffer_append_text(&reader->transcript, "~");
  pry_buffer_append_slice(&reader->relayed, pry_buffer_slice(&reader->held));
  assert_true(pry_slice_equal(pry_buffer_slice(&reader->relayed), input));
  pry_sse_fini(&reader->parser);
}

static void check_splits(const struct row *row, size_t limit)
{
  for (size_t cut = 0; cut <= row->input.size; cut++) {
    struct reader reader = {0};
    run(&reader, row->input, cut ? cut : 1, cut ? row->input.size : 1, limit);
    struct pry_slice got = pry_buffer_slice(&reader.transcript);
    if (!pry_slice_equal(got, row->expected))
      fail_msg("%s, cut at %zu:\n--- expected\n%s\n--- got\n%.*s", row->name, cut, row->expected.data, (int)got.size,
               got.size ? got.data : "");
    pry_buffer_fini(&reader.transcript);
    pry_buffer_fini(&reader.held);
    pry_buffer_fini(&reader.relayed);
  }
}

#define BOM "\xEF\xBB\xBF"

static const struct row rows[] = {
    ROW("nothing", "", ""),
    ROW("LF", "data: a\n\n", "E|a|\n"),
    ROW("CR", "data: a\r\r", "E|a|\n"),
    ROW("CRLF", "data: a\r\n\r\n", "E|a|\n"),
    ROW("LF then CRLF", "data: a\n\r\ndata: b\r\n\n", "E|a|\nE|b|\n"),
    ROW("CR then LF CR", "data: a\r\n\rdata: b\r\r\n", "E|a|\nE|b|\n"),
    ROW("CR events in a row", "data: a\r\rdata: b\r\rdata: c\r\r", "E|a|\nE|b|\nE|c|\n"),
    ROW("LF CR is two line ends", "data: a\n\rdata: b\n\n", "E|a|\nE|b|\n"),
    ROW("several data lines", "data: a\ndata: b\r\ndata:\rdata: c\n\n", "E|a\nb\n\nc|\n"),
    ROW("the standard's stock example", "data: YHOO\ndata: +2\ndata: 10\n\n", "E|YHOO\n+2\n10|\n"),
    ROW("the standard's empty data example", "data\n\ndata\ndata\n\ndata:", "E||\nE|\n|\n~"),
    ROW("the standard's comment and id example",
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        "B\nE|first event|1\nE|second event|\nE| third event|\n"),
    ROW("one space is dropped", "data:a\n\ndata:  a \n\ndata:\ta\n\n", "E|a|\nE| a |\nE|\ta|\n"),
    ROW("name", "event: delta\ndata: a\n\ndata: b\n\n", "Edelta|a|\nE|b|\n"),
    ROW("last name wins", "event: a\nevent: b\ndata: c\n\n", "Eb|c|\n"),
    ROW("name without data", "event: ping\n\ndata: a\n\n", "B\nE|a|\n"),
    ROW("id stays", "id: 7\ndata: a\n\ndata: b\n\nid: 8\n\ndata: c\n\n", "E|a|7\nE|b|7\nB\nE|c|8\n"),
    ROW("id with NUL is ignored", "id: 7\nid: 8\0\ndata: a\n\n", "E|a|7\n"),
    ROW("retry", "retry: 1500\n\nretry: 0\ndata: a\n\n", "Br1500\nE|a|r0\n"),
    ROW("retry that is no number", "retry: 1s\n\nretry: -1\n\nretry:\n\nretry: 99999999999999999999\n\n",
        "B\nB\nB\nB\n"),
    ROW("comments", ": ping\n\n:\n\ndata: a\n: x\ndata: b\n\n", "B\nB\nE|a\nb|\n"),
    ROW("unknown fields", "foo: bar\nDATA: x\n data: y\ndata : z\n\n", "B\n"),
    ROW("colon in a value", "data: {\"a\":1}\n\n", "E|{\"a\":1}|\n"),
    ROW("blank lines in a row", "\n\r\n\r\rdata: a\n\n\n", "B\nB\nB\nB\nE|a|\nB\n"),
    ROW("blank CRLF lines in a row", "\r\n\r\n\r\n", "B\nB\nB\n"),
    ROW("byte order mark", BOM "data: a\n\n", "E|a|\n"),
    ROW("byte order mark alone on a line", BOM "\ndata: a\n\n", "B\nE|a|\n"),
    ROW("byte order mark before a comment", BOM ": x\n\n", "B\n"),
    ROW("two byte order marks", BOM BOM "data: a\n\n", "B\n"),
    ROW("byte order mark later", "data: a\n" BOM "data: b\n\n" BOM "data: c\n\n", "E|a|\nB\n"),
    ROW("part of a byte order mark",
        "\xEF\xBB"
        "data: a\n\n",
        "B\n"),
    ROW("NUL in data", "data: a\0b\n\n", "E|a\0b|\n"),
    ROW("any bytes in data", "data: \xFF\x80\xE2\x80\xA8\x0B\x85\n\n", "E|\xFF\x80\xE2\x80\xA8\x0B\x85|\n"),
    ROW("cut in a block", "data: a\n\ndata: b\n", "E|a|\n~"),
    ROW("cut in a line", "data: a\n\ndata: [DO", "E|a|\n~"),
    ROW("cut behind a comment", ": x\n", "~"),
    ROW("cut in a byte order mark", "\xEF", "~"),
    ROW("OpenAI", "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n",
        "E|{\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}|\nE|[DONE]|\n"),
    ROW("Anthropic", "event: message_start\r\ndata: {}\r\n\r\nevent: ping\r\ndata: {\"type\": \"ping\"}\r\n\r\n",
        "Emessage_start|{}|\nEping|{\"type\": \"ping\"}|\n"),
};

static void test_rows(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(rows); i++)
    check_splits(&rows[i], 0);
}

/* The limit is 12 bytes a block, where an LF behind a CR is not counted. What is beyond it is skipped, and the next block
 * read as ever. */
static const struct row limited[] = {
    ROW("first block too large", "data: 78901\n\ndata: 7890\n\n", "L78901\nB\nE|7890|\n"),
    ROW("much too large", "data: 7890123456789\ndata: 789\r\n: x\r\r\ndata: a\n\n", "L789012\nB\nE|a|\n"),
    ROW("too large with CRLF", "data: 78901\r\n\r\ndata: a\r\n\r\n", "L78901\nB\nE|a|\n"),
    ROW("field name at the limit", "data: 7\nda: 3456\nevent: x\n\ndata: a\n\n", "L7\nB\nE|a|\n"),
    ROW("two too large in a row", "data: 78901\n\ndata: 78901\n\n", "L78901\nB\nL78901\nB\n"),
    ROW("too large behind a mark", BOM "data: 0123\n\n:\n\n", "L012\nB\nB\n"),
    ROW("fits exactly", "data: 7890\n\ndata: 7890\r\rdata: 7890\r\n\r\n", "E|7890|\nE|7890|\nE|7890|\n"),
    ROW("one more", "data: 7890\n\ndata: 78901\n\n", "E|7890|\nL78901\nB\n"),
    ROW("line without end", "data: 7890123", "L789012\n~"),
    ROW("line that may still end", "data: 789012", "~"),
    ROW("comments count", ": 3456\n: 012\n\n", "L\nB\n"),
    ROW("many small blocks", "data:a\n\n:\n\ndata:b\n\n", "E|a|\nB\nE|b|\n"),
};

static void test_limit(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(limited); i++)
    check_splits(&limited[i], 12);
}

/* An event that ends in a CR at the end of the input is given at once; the LF comes as the next block's first byte. */
static void test_boundaries(void **state)
{
  (void)state;
  struct pry_sse_parser parser;
  struct pry_sse_event event;
  size_t consumed;
  pry_sse_init(&parser, 0);
  assert_int_equal(pry_sse_feed(&parser, PRY_SLICE("data: a\r\n\r"), &consumed, &event), PRY_SSE_EVENT);
  assert_int_equal(consumed, 10);
  assert_int_equal(pry_sse_feed(&parser, PRY_SLICE(""), &consumed, &event), PRY_SSE_NEED_MORE);
  assert_int_equal(pry_sse_feed(&parser, PRY_SLICE("\n"), &consumed, &event), PRY_SSE_NEED_MORE);
  assert_int_equal(consumed, 1);
  assert_false(pry_sse_pending(&parser));
  struct pry_slice rest = PRY_SLICE("data: b\r\n\r\ndata: c\n\n");
  assert_int_equal(pry_sse_feed(&parser, rest, &consumed, &event), PRY_SSE_EVENT);
  assert_int_equal(consumed, 11);
  assert_true(pry_slice_equal(event.data, PRY_SLICE("b")));
  rest = (struct pry_slice){rest.data + consumed, rest.size - consumed};
  assert_int_equal(pry_sse_feed(&parser, rest, &consumed, &event), PRY_SSE_EVENT);
  assert_int_equal(consumed, 9);
  assert_true(pry_slice_equal(event.data, PRY_SLICE("c")));
  pry_sse_fini(&parser);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rows),
      cmocka_unit_test(test_limit),
      cmocka_unit_test(test_boundaries),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
