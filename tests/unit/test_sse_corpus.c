/* The corpus of event streams (e2e/sse_corpus.jsonl) through the engine's stream, the shipped dialects and their
 * classification: the expected events and verdict, and exactly the same at every cut in two, byte by byte, and at many
 * random cuts. The program has its own test of the same corpus, e2e/test_sse.py. */
#include "../../core/cli/dialects.c"

#include "call.h"
#include "json.h"
#include "stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <openssl/evp.h>

enum { HOLD_LIMIT = 256 * 1024, RANDOM_CUTS = 40, STREAMS_LEAST = 60 };

static struct pry_dialects dialects;

/* What came of one reading of one stream. */
struct reading {
  struct pry_stream stream;
  struct pry_buffer events; /* as in the corpus: [["message","..."],...] */
  struct pry_buffer out;    /* what the client got */
  struct pry_buffer data;   /* of a reported error */
  const char *verdict;
  struct pry_failure failure;
  bool over, given, reported;
  bool classifies; /* errors are classified, too: only once for each stream, as it takes its time */
};

static void add_event(struct reading *reading, const struct pry_sse_event *event)
{
  struct pry_slice name = event->name.size ? event->name : PRY_SLICE("message");
  assert_true(pry_buffer_append_text(&reading->events, reading->events.size > 1 ? ",[\"" : "[\""));
  assert_true(pry_buffer_append_json(&reading->events, name));
  assert_true(pry_buffer_append_text(&reading->events, "\",\""));
  assert_true(pry_buffer_append_json(&reading->events, event->data));
  assert_true(pry_buffer_append_text(&reading->events, "\"]"));
}

static void observe(void *user, const struct pry_sse_event *event, enum pry_stream_class meaning, bool whole)
{
  (void)meaning;
  assert_true(whole);
  add_event(user, event);
}

static void fail_with(struct reading *reading, const char *verdict, struct pry_failure failure)
{
  reading->over = true;
  reading->verdict = verdict;
  reading->failure = failure;
}

static const char *error_verdict(const struct reading *reading)
{
  return reading->given ? "error_mid_stream" : "error_before_first_token";
}

static void report(struct reading *reading, const struct pry_stream_output *output)
{
  static const struct pry_headers no_headers;
  struct pry_answer_view answer = {.provider = "",
                                   .status = 200,
                                   .headers = &no_headers,
                                   .body = output->data,
                                   .in_stream = true,
                                   .event_type = output->type};
  struct pry_failure failure = {0};
  assert_true(pry_buffer_append_slice(&reading->data, output->type));
  assert_true(pry_buffer_append_slice(&reading->data, output->data));
  if (reading->classifies)
    failure = pry_classify(pry_dialects_state(&dialects), reading->stream.dialect, &answer, 1700000000.0);
  reading->reported = true;
  fail_with(reading, error_verdict(reading), failure);
}

static void feed(struct reading *reading, struct pry_slice piece)
{
  char *copy = malloc(piece.size ? piece.size : 1); /* of exactly that size: reading too far is seen */
  assert_non_null(copy);
  if (piece.size)
    memcpy(copy, piece.data, piece.size);
  struct pry_slice input = {copy, piece.size};
  enum pry_stream_step step = PRY_STREAM_OUTPUT;
  while (!reading->over && step == PRY_STREAM_OUTPUT) {
    struct pry_stream_output output;
    step = pry_stream_feed(&reading->stream, &input, &output);
    assert_true(pry_buffer_append_slice(&reading->out, output.out));
    if (step == PRY_STREAM_BROKEN)
      report(reading, &output);
    else if (step == PRY_STREAM_MALFORMED)
      fail_with(reading, error_verdict(reading), pry_stream_failure(PRY_STREAM_FAULT_MALFORMED));
    reading->given = reading->given || output.out.size;
  }
  while (reading->over && input.size) {
    struct pry_sse_event event;
    size_t consumed;
    if (pry_sse_feed(&reading->stream.parser, input, &consumed, &event) == PRY_SSE_EVENT)
      add_event(reading, &event);
    input = (struct pry_slice){input.data + consumed, input.size - consumed};
  }
  free(copy);
}

static void end(struct reading *reading, struct pry_slice how)
{
  struct pry_stream_output output;
  bool timeout = pry_slice_equal(how, PRY_SLICE("timeout"));
  switch (pry_stream_finish(&reading->stream, !how.size, &output)) {
  case PRY_STREAM_CLEAN:
    assert_true(pry_buffer_append_slice(&reading->out, output.out));
    reading->verdict = "clean_end";
    break;
  case PRY_STREAM_REPORTED:
    report(reading, &output);
    break;
  case PRY_STREAM_UNREADABLE:
    fail_with(reading, error_verdict(reading), pry_stream_failure(PRY_STREAM_FAULT_MALFORMED));
    break;
  case PRY_STREAM_UNTERMINATED:
    fail_with(reading, "truncated", pry_stream_failure(PRY_STREAM_FAULT_UNTERMINATED));
    break;
  case PRY_STREAM_CUT:
    fail_with(reading, "truncated", pry_stream_failure(timeout ? PRY_STREAM_FAULT_STALLED : PRY_STREAM_FAULT_CUT));
    break;
  case PRY_STREAM_LOST:
    fail();
  }
}

/* ---- one stream of the corpus ------------------------------------------------------------------------------- */

struct recorded {
  char id[64], verdict[32], code[64], category[32];
  struct pry_buffer dialect, text, end;
  struct pry_slice events;
  bool safe;
};

static void read_text(struct pry_slice line, const char *path, struct pry_buffer *out)
{
  struct pry_json_value value;
  pry_buffer_init(out, 0);
  if (pry_json_get(line, path, &value) && value.type == PRY_JSON_STRING)
    assert_true(pry_json_string(value.raw, out));
}

static void read_word(struct pry_slice line, const char *path, char *out, size_t size)
{
  struct pry_buffer text;
  read_text(line, path, &text);
  snprintf(out, size, "%s", text.size ? pry_buffer_text(&text) : "");
  pry_buffer_fini(&text);
}

static void read_recorded(struct recorded *recorded, struct pry_slice line)
{
  struct pry_json_value value;
  read_word(line, "id", recorded->id, sizeof recorded->id);
  read_word(line, "verdict", recorded->verdict, sizeof recorded->verdict);
  read_word(line, "code", recorded->code, sizeof recorded->code);
  read_word(line, "category", recorded->category, sizeof recorded->category);
  read_text(line, "dialect", &recorded->dialect);
  read_text(line, "end", &recorded->end);
  read_text(line, "stream", &recorded->text);
  if (pry_json_get(line, "stream_b64", &value)) {
    struct pry_slice raw = {value.raw.data + 1, value.raw.size - 2};
    assert_true(pry_buffer_reserve(&recorded->text, raw.size));
    int size = EVP_DecodeBlock((unsigned char *)recorded->text.data, (const unsigned char *)raw.data, (int)raw.size);
    assert_true(size >= 0);
    recorded->text.size = (size_t)size;
    for (size_t i = raw.size; i > 0 && raw.data[i - 1] == '='; i--)
      recorded->text.size--;
  }
  assert_true(pry_json_get(line, "events", &value));
  recorded->events = value.raw;
  assert_true(pry_json_get(line, "safe_to_retry", &value));
  recorded->safe = value.type == PRY_JSON_TRUE;
}

static void forget_recorded(struct recorded *recorded)
{
  pry_buffer_fini(&recorded->dialect);
  pry_buffer_fini(&recorded->text);
  pry_buffer_fini(&recorded->end);
}

static void begin(struct reading *reading, const struct recorded *recorded, bool classifies)
{
  const char *name = pry_buffer_text((struct pry_buffer *)&recorded->dialect);
  *reading = (struct reading){.classifies = classifies};
  pry_stream_init(&reading->stream, pry_dialects_find(&dialects, name, 1), HOLD_LIMIT);
  reading->stream.observe = observe;
  reading->stream.observer = reading;
  assert_true(pry_buffer_append_text(&reading->events, "["));
}

static void finish(struct reading *reading, const struct recorded *recorded)
{
  if (!reading->over)
    end(reading, pry_buffer_slice(&recorded->end));
  assert_true(pry_buffer_append_text(&reading->events, "]"));
}

static void forget(struct reading *reading)
{
  pry_stream_fini(&reading->stream);
  pry_buffer_fini(&reading->events);
  pry_buffer_fini(&reading->out);
  pry_buffer_fini(&reading->data);
}

/* Pieces of `first` bytes and then of `size(i)`. */
static void read_in_pieces(struct reading *reading, const struct recorded *recorded, size_t first, size_t least,
                           size_t spread)
{
  struct pry_slice rest = pry_buffer_slice(&recorded->text);
  begin(reading, recorded, false);
  for (size_t size = first; rest.size; size = least + (spread ? (size_t)rand() % spread : 0)) {
    size_t taken = size < rest.size ? size : rest.size;
    feed(reading, (struct pry_slice){rest.data, taken});
    rest = (struct pry_slice){rest.data + taken, rest.size - taken};
  }
  finish(reading, recorded);
}

/* The same values, however each writer escapes. */
static bool same_events(struct pry_slice expected, struct pry_slice got)
{
  struct pry_json_iterator a, b;
  struct pry_json_value x, y;
  struct pry_slice none;
  struct pry_buffer one, other;
  if (expected.data[0] != '[')
    return pry_slice_equal(expected, got);
  pry_json_iterate(&a, expected);
  pry_json_iterate(&b, got);
  bool same = true, more = true;
  while (same && more) {
    more = pry_json_next(&a, &none, &x);
    same = pry_json_next(&b, &none, &y) == more;
    if (!same || !more)
      break;
    if (x.type == PRY_JSON_ARRAY) {
      same = same_events(x.raw, y.raw);
      continue;
    }
    pry_buffer_init(&one, 0);
    pry_buffer_init(&other, 0);
    assert_true(pry_json_string(x.raw, &one) && pry_json_string(y.raw, &other));
    same = pry_slice_equal(pry_buffer_slice(&one), pry_buffer_slice(&other));
    pry_buffer_fini(&one);
    pry_buffer_fini(&other);
  }
  return same;
}

static void check_whole(const struct recorded *recorded, struct reading *whole)
{
  begin(whole, recorded, true);
  feed(whole, pry_buffer_slice(&recorded->text));
  finish(whole, recorded);
  if (!same_events(recorded->events, pry_buffer_slice(&whole->events)))
    fail_msg("%s: events\n%.*s", recorded->id, (int)whole->events.size, whole->events.data);
  bool safe = whole->failure.category && !whole->given;
  if (strcmp(whole->verdict, recorded->verdict) != 0 || safe != recorded->safe)
    fail_msg("%s: %s, safe %d", recorded->id, whole->verdict, safe);
  const char *category = whole->failure.category ? pry_category_name(whole->failure.category) : "";
  if (strcmp(whole->failure.code, recorded->code) != 0 || strcmp(category, recorded->category) != 0)
    fail_msg("%s: %s %s", recorded->id, category, whole->failure.code);
  struct pry_slice text = pry_buffer_slice(&recorded->text), out = pry_buffer_slice(&whole->out);
  assert_true(!out.size || pry_slice_starts_with(text, out)); /* byte for byte, and nothing else */
  if (strcmp(whole->verdict, "clean_end") == 0)
    assert_int_equal(out.size, text.size);
}

static void check_same(const struct recorded *recorded, const struct reading *whole, struct reading *cut, size_t at)
{
  bool same = pry_slice_equal(pry_buffer_slice(&whole->events), pry_buffer_slice(&cut->events)) &&
              strcmp(whole->verdict, cut->verdict) == 0 && whole->given == cut->given &&
              whole->reported == cut->reported &&
              pry_slice_equal(pry_buffer_slice(&whole->data), pry_buffer_slice(&cut->data)) &&
              (whole->reported || strcmp(whole->failure.code, cut->failure.code) == 0);
  /* The LF of a CRLF whose CR came alone belongs to the next block, which may never end. */
  size_t size = cut->out.size, more = whole->out.size - size;
  bool same_bytes = size <= whole->out.size && (!size || memcmp(whole->out.data, cut->out.data, size) == 0) &&
                    (!more || (more == 1 && whole->out.data[size] == '\n' && whole->out.data[size - 1] == '\r'));
  if (!same || !same_bytes)
    fail_msg("%s, cut at %zu: %s, %s", recorded->id, at, cut->verdict, same ? "other bytes" : cut->events.data);
  forget(cut);
}

static void check_cuts(const struct recorded *recorded, const struct reading *whole)
{
  struct reading cut;
  for (size_t at = 1; at < recorded->text.size; at++) {
    read_in_pieces(&cut, recorded, at, recorded->text.size, 0);
    check_same(recorded, whole, &cut, at);
  }
  read_in_pieces(&cut, recorded, 1, 1, 0);
  check_same(recorded, whole, &cut, 1);
  for (unsigned seed = 1; seed <= RANDOM_CUTS; seed++) {
    srand(seed);
    read_in_pieces(&cut, recorded, 1 + seed % 7, 1, 1 + seed * 3);
    check_same(recorded, whole, &cut, seed);
  }
}

static void the_corpus_reads_the_same_at_every_cut(void **unused)
{
  (void)unused;
  FILE *file = fopen(PARRY_SOURCE_DIR "/tests/e2e/sse_corpus.jsonl", "re");
  char *line = NULL;
  size_t capacity = 0, streams = 0;
  ssize_t size;
  assert_non_null(file);
  while ((size = getline(&line, &capacity, file)) > 0) {
    struct recorded recorded = {0};
    struct reading whole;
    read_recorded(&recorded, (struct pry_slice){line, (size_t)size});
    check_whole(&recorded, &whole);
    check_cuts(&recorded, &whole);
    forget(&whole);
    forget_recorded(&recorded);
    streams++;
  }
  free(line);
  fclose(file);
  assert_true(streams >= STREAMS_LEAST);
  assert_false(dialects.told_unknown);
}

int main(void)
{
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_corpus_reads_the_same_at_every_cut)};
  int failed = 1;
  if (pry_dialects_load(&dialects, PARRY_SOURCE_DIR "/policies", "test"))
    failed = cmocka_run_group_tests(tests, NULL, NULL);
  pry_dialects_free(&dialects);
  return failed;
}
