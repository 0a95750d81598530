/* The ring of event records, and their JSON. */
#include "event.h"

#include "json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct seen {
  uint64_t sequences[16];
  size_t count, stop_at;
};

static bool note(void *user, const struct pry_event_record *record)
{
  struct seen *seen = user;
  seen->sequences[seen->count++] = record->sequence;
  return seen->count != seen->stop_at;
}

static void add_read(struct pry_event_record *record, const char *function, double result)
{
  pry_event_read_begin(record, function);
  pry_event_read_number(record, result);
  pry_event_read_end(record);
}

static void test_ring(void **state)
{
  (void)state;
  struct pry_event_count count = {0};
  struct pry_event_ring *ring = pry_event_ring_new(4, &count);
  struct seen seen = {0};
  pry_event_visit(ring, 10, note, &seen);
  assert_int_equal(seen.count, 0);
  for (uint64_t i = 1; i <= 6; i++) {
    struct pry_event_record *record = pry_event_next(ring);
    assert_int_equal(record->sequence, i);
    assert_int_equal(record->reads_end, 0);
    assert_false(record->reads_cut);
    assert_string_equal(record->why, "");
    snprintf(record->why, sizeof record->why, "number %d", (int)i);
    add_read(record, "now", 1);
    record->reads_cut = true;
  }
  assert_int_equal(pry_event_overwritten(ring), 2);
  assert_null(pry_event_find(ring, 0));
  assert_null(pry_event_find(ring, 2));
  assert_null(pry_event_find(ring, 7));
  for (uint64_t i = 3; i <= 6; i++)
    assert_int_equal(pry_event_find(ring, i)->sequence, i);
  assert_string_equal(pry_event_find(ring, 3)->why, "number 3");
  pry_event_visit(ring, 10, note, &seen);
  assert_int_equal(seen.count, 4);
  assert_int_equal(seen.sequences[0], 6);
  assert_int_equal(seen.sequences[3], 3);
  seen = (struct seen){0};
  pry_event_visit(ring, 2, note, &seen);
  assert_int_equal(seen.count, 2);
  seen = (struct seen){.stop_at = 3};
  pry_event_visit(ring, 10, note, &seen);
  assert_int_equal(seen.count, 3);
  pry_event_ring_free(ring);
  pry_event_ring_free(NULL);
  assert_null(pry_event_ring_new(SIZE_MAX / 2, &count));
}

/* Two workers' rings: one count, and each record is found in its own by its own position. */
static void test_two_rings_share_a_count(void **state)
{
  (void)state;
  struct pry_event_count count = {0};
  struct pry_event_ring *first = pry_event_ring_new(3, &count), *second = pry_event_ring_new(3, &count);
  for (uint64_t i = 1; i <= 10; i++) {
    struct pry_event_record *record = pry_event_next(i % 3 ? first : second);
    assert_int_equal(record->sequence, i);
    assert_int_equal(record->position, i % 3 ? i - i / 3 : i / 3);
  }
  assert_int_equal(pry_event_find(first, 7)->sequence, 10);
  assert_int_equal(pry_event_find(first, 5)->sequence, 7);
  assert_null(pry_event_find(first, 4));
  assert_int_equal(pry_event_find(second, 1)->sequence, 3);
  assert_int_equal(pry_event_find(second, 3)->sequence, 9);
  assert_null(pry_event_find(second, 4));
  assert_int_equal(pry_event_overwritten(first), 4);
  assert_int_equal(pry_event_overwritten(second), 0);
  struct seen seen = {0};
  pry_event_visit(first, 10, note, &seen);
  assert_int_equal(seen.count, 3);
  assert_int_equal(seen.sequences[0], 10);
  assert_int_equal(seen.sequences[2], 7);
  pry_event_ring_free(first);
  pry_event_ring_free(second);
}

/* Within the bound all, beyond it a prefix: nothing later slips in after a gap. */
static void test_reads_are_bounded(void **state)
{
  (void)state;
  struct pry_event_count count = {0};
  struct pry_event_ring *ring = pry_event_ring_new(1, &count);
  struct pry_event_record *record = pry_event_next(ring);
  static char read[1000];
  memset(read, '1', sizeof read);
  size_t end = 0;
  for (int i = 0; i < 4; i++) {
    pry_event_read_begin(record, "f");
    pry_event_read_text(record, NULL, (struct pry_slice){read, sizeof read});
    pry_event_read_end(record);
    assert_true(record->reads_end >= end + sizeof read);
    end = record->reads_end;
  }
  assert_false(record->reads_cut);
  pry_event_read_begin(record, "f");
  pry_event_read_number(record, 1);
  pry_event_read_text(record, NULL, (struct pry_slice){read, sizeof read});
  pry_event_read_end(record);
  assert_true(record->reads_cut);
  add_read(record, "now", 1);
  assert_int_equal(record->reads_end, end);
  pry_event_ring_free(ring);
}

static void expect_reads(const struct pry_event_record *record, const char *expected)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  assert_true(pry_event_append_reads(record, &text));
  assert_non_null(pry_buffer_text(&text));
  assert_string_equal(pry_buffer_text(&text), expected);
  pry_buffer_fini(&text);
}

static void test_reads_as_json(void **state)
{
  (void)state;
  struct pry_event_count count = {0};
  struct pry_event_ring *ring = pry_event_ring_new(1, &count);
  struct pry_event_record *record = pry_event_next(ring);
  expect_reads(record, "");
  pry_event_read_begin(record, "store.get");
  pry_event_read_text(record, NULL, PRY_SLICE("a\"b\nc"));
  pry_event_read_json(record, NULL, PRY_SLICE("{\"n\":[1,null]}"));
  pry_event_read_number(record, 0.1);
  pry_event_read_number(record, HUGE_VAL);
  pry_event_read_boolean(record, true);
  pry_event_read_boolean(record, false);
  pry_event_read_null(record);
  pry_event_read_text(record, NULL, PRY_SLICE(""));
  pry_event_read_end(record);
  pry_event_read_begin(record, "call.json");
  pry_event_read_end(record);
  expect_reads(record, "[\"store.get\",\"a\\\"b\\nc\",{\"n\":[1,null]},0.1,null,true,false,null,\"\"],"
                       "[\"call.json\"]");
  pry_event_ring_free(ring);
}

static void test_a_read_without_an_end_is_none(void **state)
{
  (void)state;
  struct pry_event_count count = {0};
  struct pry_event_ring *ring = pry_event_ring_new(1, &count);
  struct pry_event_record *record = pry_event_next(ring);
  add_read(record, "now", 1);
  pry_event_read_begin(record, "store.get"); /* an error passes by */
  pry_event_read_text(record, NULL, PRY_SLICE("key"));
  expect_reads(record, "[\"now\",1]");
  add_read(record, "random", 2);
  expect_reads(record, "[\"now\",1],[\"random\",2]");
  pry_event_ring_free(ring);
}

/* The secret may be gone from the scrubber when the ring is read. */
static void test_reads_are_scrubbed_when_they_are_written(void **state)
{
  (void)state;
  struct pry_event_count count = {0};
  struct pry_event_ring *ring = pry_event_ring_new(1, &count);
  struct pry_event_record *record = pry_event_next(ring);
  struct pry_scrubber *scrubber = pry_scrubber_new();
  assert_non_null(scrubber);
  assert_true(pry_scrubber_add(scrubber, PRY_SLICE("sk-\"secret\"-1")));
  pry_event_read_begin(record, "store.get");
  pry_event_read_text(record, scrubber, PRY_SLICE("key of sk-\"secret\"-1!"));
  pry_event_read_json(record, scrubber, PRY_SLICE("\"sk-\\\"secret\\\"-1\""));
  pry_event_read_number(record, 1);
  pry_event_read_end(record);
  pry_scrubber_remove(scrubber, PRY_SLICE("sk-\"secret\"-1"));
  assert_null(memmem(record->reads.data, record->reads.size, "secret", 6));
  expect_reads(record, "[\"store.get\",\"key of ***!\",\"***\",1]");
  pry_scrubber_free(scrubber);
  pry_event_ring_free(ring);
}

static void assert_json(const struct pry_event_record *record, const char *expected)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  assert_true(pry_event_json(record, &text));
  assert_int_equal(pry_json_parse(pry_buffer_slice(&text), NULL), PRY_JSON_OK);
  assert_string_equal(pry_buffer_text(&text), expected);
  pry_buffer_fini(&text);
}

static void test_json(void **state)
{
  (void)state;
  struct pry_event_count count = {0};
  struct pry_event_ring *ring = pry_event_ring_new(2, &count);
  assert_json(pry_event_next(ring),
              "{\"sequence\":1,\"time\":0,\"seed\":\"0000000000000000\",\"handler\":\"on_request\","
              "\"attempt\":0,\"reads\":[],\"reads_cut\":false,\"result\":\"ok\",\"verdict\":\"none\"}");
  struct pry_event_record *record = pry_event_next(ring);
  record->time = 1700000000.123;
  record->seed = UINT64_MAX;
  record->handler = PRY_ON_ERROR;
  snprintf(record->call_id, sizeof record->call_id, "c_0_1");
  record->attempt = 2;
  snprintf(record->target, sizeof record->target, "p/m");
  snprintf(record->policy, sizeof record->policy, "retry");
  snprintf(record->generation, sizeof record->generation, "abc");
  record->category = PRY_RATE_LIMIT;
  record->source = PRY_SOURCE_PROVIDER;
  record->status = 429;
  record->retryable = true;
  record->retry_after = 1.5;
  record->deadline_left = 0.1;
  snprintf(record->code, sizeof record->code, "slow \"down\"\n");
  add_read(record, "now", 1.5);
  add_read(record, "random", 0.25);
  record->verdict = PRY_VERDICT_RETRY;
  record->after = 2;
  record->line = 12;
  snprintf(record->why, sizeof record->why, "attempt 2 of 4");
  assert_json(
      record,
      "{\"sequence\":2,\"time\":1700000000.123,\"seed\":\"ffffffffffffffff\",\"handler\":\"on_error\",\"call\":\"c_0_"
      "1\","
      "\"attempt\":2,\"target\":\"p/m\",\"policy\":\"retry\",\"generation\":\"abc\",\"deadline_left\":0.1,\"err\":{"
      "\"category\":\"rate_limit\",\"source\":\"provider\",\"status\":429,\"curl_code\":0,\"code\":\"slow "
      "\\\"down\\\"\\n\",\"retry_after\":1.5,\"retryable\":true},\"reads\":[[\"now\",1.5],[\"random\",0.25]],"
      "\"reads_cut\":false,\"result\":\"ok\",\"verdict\":\"retry\",\"after\":2,\"line\":12,\"why\":\"attempt 2 of "
      "4\"}");
  record->time = NAN;
  record->result = PRY_RUN_OVER_BUDGET;
  struct pry_buffer text;
  pry_buffer_init(&text, 100); /* too small: nothing is appended */
  pry_buffer_append_text(&text, "before");
  assert_false(pry_event_json(record, &text));
  assert_string_equal(pry_buffer_text(&text), "before");
  pry_buffer_fini(&text);
  pry_event_ring_free(ring);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_ring),
      cmocka_unit_test(test_two_rings_share_a_count),
      cmocka_unit_test(test_reads_are_bounded),
      cmocka_unit_test(test_reads_as_json),
      cmocka_unit_test(test_a_read_without_an_end_is_none),
      cmocka_unit_test(test_reads_are_scrubbed_when_they_are_written),
      cmocka_unit_test(test_json),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
