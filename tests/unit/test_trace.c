/* Which traceparent has an id (W3C Trace Context §3.2). */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

static void only_a_traceparent_has_an_id(void **unused)
{
  (void)unused;
  static const struct {
    const char *value, *id;
  } ROWS[] = {
      {"00-" ID "-" PARENT "-01", ID},
      {"00-" ID "-" PARENT "-00", ID},
      {"01-" ID "-" PARENT "-01", ID}, /* of a later version */
      {"01-" ID "-" PARENT "-01-more", ID},
      {"01-" ID "-" PARENT "-01more", ""},
      {"00-" ID "-" PARENT "-01-more", ""},
      {"ff-" ID "-" PARENT "-01", ""},
      {"00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01", ""},
      {"00-00000000000000000000000000000000-" PARENT "-01", ""},
      {"00-" ID "-0000000000000000-01", ""},
      {"00-" ID "-" PARENT "-0", ""},
      {"00-" ID "-" PARENT "-0x", ""},
      {"00_" ID "-" PARENT "-01", ""},
      {"00-" ID PARENT "--01", ""},
      {"", ""},
      {ID, ""},
  };
  char id[PRY_TRACE_ID_MAX];
  for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
    struct pry_headers headers;
    pry_headers_init(&headers);
    pry_headers_add(&headers, PRY_SLICE("TraceParent"), pry_slice_of(ROWS[i].value));
    pry_trace_id(&headers, id);
    if (strcmp(id, ROWS[i].id) != 0)
      fail_msg("%s: %s", ROWS[i].value, id);
    pry_headers_fini(&headers);
  }
}

static void none_or_two_have_none(void **unused)
{
  (void)unused;
  char id[PRY_TRACE_ID_MAX] = "x";
  struct pry_headers headers;
  pry_headers_init(&headers);
  pry_trace_id(&headers, id);
  assert_string_equal(id, "");
  pry_headers_add(&headers, PRY_SLICE("traceparent"), PRY_SLICE("00-" ID "-" PARENT "-01"));
  pry_trace_id(&headers, id);
  assert_string_equal(id, ID);
  pry_headers_add(&headers, PRY_SLICE("traceparent"), PRY_SLICE("00-" ID "-" PARENT "-01"));
  pry_trace_id(&headers, id);
  assert_string_equal(id, "");
  pry_headers_fini(&headers);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(only_a_traceparent_has_an_id),
      cmocka_unit_test(none_or_two_have_none),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
