/* Streams: what is held back, what flows, what counts as an end; the same at every cut. */
#include "stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define ROLE "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
#define HI "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n"
#define TOOL "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}\n\n"
#define FINISH "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define DONE "data: [DONE]\n\n"
#define ERROR "data: {\"error\":{\"message\":\"no\"}}\n\n"
#define PING ": ping\n\n"
#define TYPED_START "event: message_start\ndata: {\"type\":\"message_start\"}\n\n"
#define TYPED_DELTA "event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\"}\r\n\r\n"
#define TYPED_STOP "data: {\"type\":\"message_stop\"}\n\n"
#define TYPED_ERROR "event: error\ndata: {\"type\":\"error\"}\n\n"

static struct pry_dialect dialect;

static int make_dialect(void **unused)
{
  (void)unused;
  static const char *const end_data[] = {"[DONE]"}, *const end_types[] = {"message_stop"};
  static const char *const lifecycle[] = {"message_start"}, *const content[] = {"content_block_delta"};
  static const char *const errors[] = {"error"};
  dialect = (struct pry_dialect){.name = "test",
                                 .type_field = "type",
                                 .default_lifecycle = true,
                                 .end_data = {end_data, 1},
                                 .end_types = {end_types, 1},
                                 .lifecycle_types = {lifecycle, 1},
                                 .content_types = {content, 1},
                                 .error_types = {errors, 1}};
  dialect.error_in_data.items[0].name = "error";
  dialect.error_in_data.count = 1;
  dialect.error_in_200 = dialect.error_in_data;
  pry_json_path_compile(&dialect.content_paths.items[0], PRY_SLICE("choices.*.delta.!role"));
  dialect.content_paths.count = 1;
  pry_json_path_compile(&dialect.finish_paths.items[0], PRY_SLICE("choices.*.finish_reason"));
  dialect.finish_paths.count = 1;
  return 0;
}

struct result {
  struct pry_buffer out;
  size_t first_out; /* bytes fed before the first byte came out; 0: none came */
  bool broken, malformed, clean, committed;
  enum pry_stream_ending ending;
};

/* Feeds the text in pieces of `size` bytes. */
static struct result run(const char *text, size_t size, size_t hold_limit)
{
  struct result result = {0};
  struct pry_stream stream;
  pry_buffer_init(&result.out, 0);
  pry_stream_init(&stream, &dialect, hold_limit);
  size_t length = strlen(text);
  for (size_t at = 0; at < length && !result.broken; at += size) {
    struct pry_slice input = {text + at, at + size <= length ? size : length - at};
    struct pry_stream_output output;
    enum pry_stream_step step;
    while ((step = pry_stream_feed(&stream, &input, &output)) != PRY_STREAM_MORE) {
      assert_int_not_equal(step, PRY_STREAM_NO_MEMORY);
      if (output.out.size && !result.first_out)
        result.first_out = at + 1;
      assert_true(pry_buffer_append_slice(&result.out, output.out));
      result.malformed = result.malformed || step == PRY_STREAM_MALFORMED;
      result.broken = result.broken || step == PRY_STREAM_BROKEN || step == PRY_STREAM_MALFORMED;
    }
  }
  if (!result.broken) {
    struct pry_stream_output output;
    result.ending = pry_stream_finish(&stream, true, &output);
    result.clean = result.ending == PRY_STREAM_CLEAN;
    assert_true(pry_buffer_append_slice(&result.out, output.out));
  }
  result.committed = stream.committed;
  pry_stream_fini(&stream);
  return result;
}

struct expected {
  const char *text, *out;
  bool broken, clean, committed;
};

static const struct expected table[] = {
    {ROLE HI DONE, ROLE HI DONE, false, true, true},
    {PING ROLE PING HI PING DONE, PING ROLE PING HI PING DONE, false, true, true},
    {ROLE TOOL FINISH, ROLE TOOL FINISH, false, true, true},
    {ROLE FINISH, ROLE FINISH, false, true, true},
    {DONE, DONE, false, true, true},
    {ROLE ERROR, "", true, false, false},
    {ERROR, "", true, false, false},
    {ROLE HI ERROR HI, ROLE HI ERROR, true, false, true},
    {ROLE, "", false, false, false},
    {"", "", false, false, false},
    {ROLE HI, ROLE HI, false, false, true},
    {ROLE HI "data: {\"cho", ROLE HI, false, false, true},
    {ROLE HI FINISH "data: {\"cho", ROLE HI FINISH, false, false, true},
    {TYPED_START TYPED_DELTA TYPED_STOP, TYPED_START TYPED_DELTA TYPED_STOP, false, true, true},
    {TYPED_START TYPED_ERROR, "", true, false, false},
    {TYPED_START TYPED_DELTA TYPED_ERROR, TYPED_START TYPED_DELTA TYPED_ERROR, true, false, true},
    {"\xEF\xBB\xBF" ROLE HI DONE, "\xEF\xBB\xBF" ROLE HI DONE, false, true, true},
    {"data: not json\n\n" HI DONE, "data: not json\n\n" HI DONE, false, true, true},
};

static void the_same_at_every_cut(void **unused)
{
  (void)unused;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    for (size_t size = 1; size <= strlen(table[i].text) + 1; size++) {
      struct result result = run(table[i].text, size, 4096);
      assert_string_equal(pry_buffer_text(&result.out), table[i].out);
      assert_int_equal(result.broken, table[i].broken);
      assert_int_equal(result.clean, table[i].clean);
      assert_int_equal(result.committed, table[i].committed);
      pry_buffer_fini(&result.out);
    }
}

static void content_flows_as_soon_as_its_event_is_whole(void **unused)
{
  (void)unused;
  struct result result = run(ROLE HI DONE, 1, 4096);
  assert_int_equal(result.first_out, strlen(ROLE HI));
  pry_buffer_fini(&result.out);
}

static void too_much_lifecycle_commits(void **unused)
{
  (void)unused;
  struct result result = run(ROLE ROLE ROLE ROLE ROLE DONE, 1, 200);
  assert_true(result.committed);
  assert_true(result.clean);
  assert_string_equal(pry_buffer_text(&result.out), ROLE ROLE ROLE ROLE ROLE DONE);
  pry_buffer_fini(&result.out);
}

/* Bytes of an unfinished event once counted as held: whether the error in it could be recovered depended on the pieces that
 * it came in. */
static void an_error_behind_much_lifecycle_is_recovered_at_every_cut(void **unused)
{
  (void)unused;
  static const char text[] =
      ROLE ROLE "data: {\"error\":{\"message\":\"as long as the two before it are, or longer\"}}\n\n";
  for (size_t size = 1; size <= sizeof text; size++) {
    struct result result = run(text, size, 2 * strlen(ROLE) + 10);
    assert_true(result.broken && !result.committed);
    assert_int_equal(result.out.size, 0);
    pry_buffer_fini(&result.out);
  }
}

/* An image in base64 is one event of megabytes. It passes, and what comes behind it is still judged: once everything
 * behind such an event passed unread, and a cut there was a clean end. */
static void a_long_event_passes_and_the_next_is_read(void **unused)
{
  (void)unused;
  static const struct {
    const char *before, *after;
    bool clean, broken;
    enum pry_stream_ending ending;
  } cases[] = {
      {"data: {\"type\":\"content_block_delta\",\"x\":\"", "\"}\n\n" DONE, true, false, PRY_STREAM_CLEAN},
      {ROLE "data: {\"type\":\"content_block_delta\",\"x\":\"", "\"}\r\n\r\n" FINISH, true, false, PRY_STREAM_CLEAN},
      {"data: {\"x\":\"", "\"}\n\n" ERROR, false, true, PRY_STREAM_CLEAN},
      {"data: {\"x\":\"", "\"}\n\n", false, false, PRY_STREAM_UNTERMINATED},
      {"data: {\"x\":\"", "", false, false, PRY_STREAM_CUT},
      {"event: message_stop\ndata: {\"x\":\"", "\"}\n\n", true, false, PRY_STREAM_CLEAN},
      {HI DONE "data: {\"x\":\"", "", true, false, PRY_STREAM_CLEAN},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[4096];
    snprintf(text, sizeof text, "%s%0*d%s", cases[i].before, 1500, 0, cases[i].after);
    for (size_t size = 1; size < strlen(text); size += size < 40 ? 1 : 97) {
      struct result result = run(text, size, 256);
      assert_int_equal(result.clean, cases[i].clean);
      assert_int_equal(result.broken, cases[i].broken);
      assert_int_equal(result.ending, cases[i].ending);
      assert_string_equal(pry_buffer_text(&result.out), text);
      pry_buffer_fini(&result.out);
    }
  }
}

static void an_error_too_long_to_hold_is_one_all_the_same(void **unused)
{
  (void)unused;
  char text[4096];
  snprintf(text, sizeof text, "data: {\"error\":{\"code\":1},\"x\":\"%01500d\"}\n\n", 0);
  for (size_t size = 1; size < strlen(text); size += 13) {
    struct result result = run(text, size, 256);
    assert_true(result.broken && !result.malformed && !result.committed);
    assert_int_equal(result.out.size, 0);
    pry_buffer_fini(&result.out);
  }
}

static void noise_without_a_field_is_malformed(void **unused)
{
  (void)unused;
  char text[4096];
  memset(text, 'x', sizeof text);
  text[sizeof text - 1] = '\0';
  for (size_t size = 1; size < 300; size += 37) {
    struct result result = run(text, size, 256);
    assert_true(result.malformed);
    assert_int_equal(result.out.size, 0);
    pry_buffer_fini(&result.out);
  }
}

static void an_endless_event_ends(void **unused)
{
  (void)unused;
  struct pry_stream stream;
  struct pry_stream_output output;
  static char piece[64 * 1024];
  memset(piece, 'x', sizeof piece);
  pry_stream_init(&stream, &dialect, 4096);
  struct pry_slice input = PRY_SLICE("data: ");
  enum pry_stream_step step = pry_stream_feed(&stream, &input, &output);
  size_t passed = 0;
  for (unsigned i = 0; i < 1000 && step != PRY_STREAM_MALFORMED; i++) {
    input = (struct pry_slice){piece, sizeof piece};
    while ((step = pry_stream_feed(&stream, &input, &output)) == PRY_STREAM_OUTPUT)
      passed += output.out.size;
    assert_true(stream.held.capacity < 512 * 1024);
  }
  assert_int_equal(step, PRY_STREAM_MALFORMED);
  assert_true(stream.inside);
  assert_true(passed <= PRY_STREAM_EVENT_MAX);
  pry_stream_fini(&stream);
}

static void how_a_stream_ends(void **unused)
{
  (void)unused;
  static const struct {
    const char *text;
    enum pry_stream_ending ending;
    const char *out;
  } cases[] = {
      {"", PRY_STREAM_UNTERMINATED, ""},
      {PING, PRY_STREAM_UNTERMINATED, ""},
      {ROLE, PRY_STREAM_UNTERMINATED, ""},
      {ROLE "data: {", PRY_STREAM_CUT, ""},
      {ROLE HI "data: [DONE]", PRY_STREAM_CLEAN, ROLE HI "data: [DONE]"},
      {ROLE HI "data: [DONE]\n", PRY_STREAM_CLEAN, ROLE HI "data: [DONE]\n"},
      {ROLE HI "data: [DONE] \n\n", PRY_STREAM_CLEAN, ROLE HI "data: [DONE] \n\n"},
      {ROLE "data: {\"error\":{\"message\":\"no\"}}\n", PRY_STREAM_REPORTED, ""},
      {"{\"error\":{\"message\":\"no\"}}", PRY_STREAM_REPORTED, ""},
      {"\r\n {\n \"error\": {\n\n \"message\": \"no\" } }\n", PRY_STREAM_REPORTED, ""},
      {"<html>no</html>\n", PRY_STREAM_UNREADABLE, ""},
      {"{\"choices\":[]}\n\n", PRY_STREAM_UNREADABLE, ""},
      {"no: stream\n", PRY_STREAM_CUT, ""},
      {HI FINISH PING, PRY_STREAM_CLEAN, HI FINISH PING},
      {"event: message_start\ndata: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n", PRY_STREAM_CLEAN,
       "event: message_start\ndata: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n"}, /* no content, but said to be all */
      {HI DONE ERROR "data: {", PRY_STREAM_CLEAN, HI DONE ERROR "data: {"}, /* behind the end nobody reads */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (size_t size = 1; size <= strlen(cases[i].text) + 1; size++) {
      struct result result = run(cases[i].text, size, 4096);
      assert_false(result.broken);
      assert_int_equal(result.ending, cases[i].ending);
      assert_string_equal(pry_buffer_text(&result.out), cases[i].out);
      pry_buffer_fini(&result.out);
    }
}

static void what_is_no_json_is_malformed_where_all_must_be(void **unused)
{
  (void)unused;
  static const struct {
    const char *text;
    bool malformed;
    const char *out;
  } cases[] = {
      {ROLE HI "data: {\"choices\":[{\"delta\":{\"con\n\n" HI DONE, true, ROLE HI},
      {ROLE "data: <html>\n\n" HI DONE, true, ""},
      {"data: {}garbage\n\n" DONE, true, ""},
      {"data: \xFF\xFE\n\n" DONE, true, ""},
      {"data:\n\ndata: \n\n" HI DONE, false, "data:\n\ndata: \n\n" HI DONE},
      {HI "\x01\x02 lines that are no fields\nOK\n\n" DONE, false, HI "\x01\x02 lines that are no fields\nOK\n\n" DONE},
      {HI "data: {\"a\":\ndata: 1}\n\n" DONE, false, HI "data: {\"a\":\ndata: 1}\n\n" DONE},
      {HI FINISH "data: [END]\n\n", false, HI FINISH "data: [END]\n\n"},
      {HI DONE "data: what?\n\n", false, HI DONE "data: what?\n\n"},
  };
  dialect.json = true;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (size_t size = 1; size <= strlen(cases[i].text) + 1; size++) {
      struct result result = run(cases[i].text, size, 4096);
      assert_int_equal(result.malformed, cases[i].malformed);
      assert_string_equal(pry_buffer_text(&result.out), cases[i].out);
      pry_buffer_fini(&result.out);
    }
  dialect.json = false;
}

static void a_stream_without_markers_ends_with_its_connection(void **unused)
{
  (void)unused;
  static const char *const texts[] = {"", "data: anything\n\n", "data: anything\n\ndata: hal"};
  static const enum pry_stream_ending endings[] = {PRY_STREAM_UNTERMINATED, PRY_STREAM_CLEAN, PRY_STREAM_CUT};
  for (size_t i = 0; i < 3; i++) {
    struct pry_stream stream;
    struct pry_stream_output output;
    struct pry_slice input = pry_slice_of(texts[i]);
    pry_stream_init(&stream, &pry_dialect_generic, 4096);
    while (pry_stream_feed(&stream, &input, &output) == PRY_STREAM_OUTPUT)
      continue;
    assert_int_equal(pry_stream_finish(&stream, true, &output), endings[i]);
    pry_stream_fini(&stream);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_same_at_every_cut),
      cmocka_unit_test(content_flows_as_soon_as_its_event_is_whole),
      cmocka_unit_test(too_much_lifecycle_commits),
      cmocka_unit_test(an_error_behind_much_lifecycle_is_recovered_at_every_cut),
      cmocka_unit_test(a_long_event_passes_and_the_next_is_read),
      cmocka_unit_test(an_error_too_long_to_hold_is_one_all_the_same),
      cmocka_unit_test(noise_without_a_field_is_malformed),
      cmocka_unit_test(an_endless_event_ends),
      cmocka_unit_test(how_a_stream_ends),
      cmocka_unit_test(what_is_no_json_is_malformed_where_all_must_be),
      cmocka_unit_test(a_stream_without_markers_ends_with_its_connection),
  };
  return cmocka_run_group_tests(tests, make_dialect, NULL);
}
