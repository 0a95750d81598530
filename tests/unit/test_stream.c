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
  pry_json_path_compile(&dialect.content_paths.items[0], PRY_SLICE("choices.*.delta.!role"));
  dialect.content_paths.count = 1;
  pry_json_path_compile(&dialect.finish_paths.items[0], PRY_SLICE("choices.*.finish_reason"));
  dialect.finish_paths.count = 1;
  return 0;
}

struct result {
  struct pry_buffer out;
  size_t first_out; /* bytes fed before the first byte came out; 0: none came */
  bool broken, clean, committed;
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
      result.broken = result.broken || step == PRY_STREAM_BROKEN;
    }
  }
  struct pry_slice rest = {NULL, 0};
  result.clean = !result.broken && pry_stream_finish(&stream, &rest);
  assert_true(pry_buffer_append_slice(&result.out, rest));
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

static void an_event_too_long_to_read_passes_unread(void **unused)
{
  (void)unused;
  static char text[4096];
  memset(text, 'x', sizeof text - 1);
  memcpy(text, "data: ", 6);
  for (size_t size = 1; size < 300; size += 37) {
    struct result result = run(text, size, 256);
    assert_true(result.clean);
    assert_int_equal(result.out.size, strlen(text));
    assert_memory_equal(result.out.data, text, result.out.size);
    pry_buffer_fini(&result.out);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_same_at_every_cut),
      cmocka_unit_test(content_flows_as_soon_as_its_event_is_whole),
      cmocka_unit_test(too_much_lifecycle_commits),
      cmocka_unit_test(an_event_too_long_to_read_passes_unread),
  };
  return cmocka_run_group_tests(tests, make_dialect, NULL);
}
