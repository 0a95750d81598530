/* Lists of header lines: order, case, limits, and no way to smuggle a second line into one. */
#include "headers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void add(struct pry_headers *headers, const char *name, const char *value)
{
  assert_true(pry_headers_add(headers, pry_slice_of(name), pry_slice_of(value)));
}

static void check_line(const struct pry_headers *headers, size_t i, const char *name, const char *value)
{
  struct pry_header line = pry_headers_at(headers, i);
  assert_true(pry_slice_equal(line.name, pry_slice_of(name)));
  assert_true(pry_slice_equal(line.value, pry_slice_of(value)));
}

static void test_order_and_case(void **state)
{
  (void)state;
  struct pry_headers headers;
  pry_headers_init(&headers);
  add(&headers, "Content-Type", " text/plain\t");
  add(&headers, "X-A", "1");
  add(&headers, "x-a", "2");
  add(&headers, "Empty", "  ");
  assert_int_equal(headers.count, 4);
  check_line(&headers, 0, "Content-Type", "text/plain");
  check_line(&headers, 1, "X-A", "1");
  check_line(&headers, 2, "x-a", "2");
  check_line(&headers, 3, "Empty", "");
  struct pry_slice value;
  assert_true(pry_headers_get(&headers, PRY_SLICE("x-A"), &value));
  assert_true(pry_slice_equal(value, PRY_SLICE("1")));
  assert_true(pry_headers_get(&headers, PRY_SLICE("EMPTY"), &value));
  assert_int_equal(value.size, 0);
  assert_false(pry_headers_get(&headers, PRY_SLICE("x"), &value));
  assert_int_equal(value.size, 0);
  pry_headers_fini(&headers);
  pry_headers_fini(&headers);
}

static void test_set_and_remove(void **state)
{
  (void)state;
  struct pry_headers headers;
  pry_headers_init(&headers);
  add(&headers, "A", "1");
  add(&headers, "B", "2");
  add(&headers, "a", "3");
  assert_true(pry_headers_set(&headers, PRY_SLICE("a"), PRY_SLICE("4")));
  assert_int_equal(headers.count, 2);
  check_line(&headers, 0, "B", "2");
  check_line(&headers, 1, "a", "4");
  assert_true(pry_headers_remove(&headers, PRY_SLICE("b")));
  assert_false(pry_headers_remove(&headers, PRY_SLICE("b")));
  assert_int_equal(headers.count, 1);
  pry_headers_clear(&headers);
  assert_int_equal(headers.count, 0);
  add(&headers, "C", "5");
  check_line(&headers, 0, "C", "5");
  pry_headers_fini(&headers);
}

static void test_no_line_breaks(void **state)
{
  (void)state;
  static const struct pry_slice bad[] = {{"a\rb", 3}, {"a\nb", 3}, {"a\0b", 3}, {"\n", 1}, {"a\r\n", 3}};
  struct pry_headers headers;
  pry_headers_init(&headers);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_false(pry_headers_add(&headers, bad[i], PRY_SLICE("v")));
    assert_false(pry_headers_add(&headers, PRY_SLICE("n"), bad[i]));
  }
  assert_false(pry_headers_add(&headers, PRY_SLICE(""), PRY_SLICE("v")));
  assert_int_equal(headers.count, 0);
  assert_int_equal(headers.text.size, 0);
  pry_headers_fini(&headers);
}

static void test_limits(void **state)
{
  (void)state;
  struct pry_headers headers;
  pry_headers_init(&headers);
  for (int i = 0; i < PRY_HEADERS_MAX; i++) {
    char name[16];
    snprintf(name, sizeof name, "n%d", i);
    add(&headers, name, "v");
  }
  assert_false(pry_headers_add(&headers, PRY_SLICE("one"), PRY_SLICE("more")));
  assert_int_equal(headers.count, PRY_HEADERS_MAX);
  check_line(&headers, 255, "n255", "v");
  pry_headers_clear(&headers);
  static char long_value[PRY_HEADERS_BYTES_MAX];
  memset(long_value, 'x', sizeof long_value);
  assert_false(pry_headers_add(&headers, PRY_SLICE("n"), (struct pry_slice){long_value, sizeof long_value}));
  assert_int_equal(headers.count, 0);
  assert_true(pry_headers_add(&headers, PRY_SLICE("n"), (struct pry_slice){long_value, sizeof long_value - 1}));
  assert_false(pry_headers_add(&headers, PRY_SLICE("m"), PRY_SLICE("")));
  assert_int_equal(headers.count, 1);
  pry_headers_fini(&headers);
}

static void test_add_all(void **state)
{
  (void)state;
  struct pry_headers from, to;
  pry_headers_init(&from);
  pry_headers_init(&to);
  add(&from, "A", "1");
  add(&from, "A", "2");
  add(&to, "B", "0");
  assert_true(pry_headers_add_all(&to, &from));
  assert_int_equal(to.count, 3);
  check_line(&to, 2, "A", "2");
  pry_headers_fini(&from);
  check_line(&to, 1, "A", "1");
  pry_headers_fini(&to);
}

static void test_tokens(void **state)
{
  (void)state;
  struct pry_headers headers;
  pry_headers_init(&headers);
  add(&headers, "Connection", "keep-alive, Upgrade ,,x");
  add(&headers, "connection", "last");
  assert_true(pry_headers_has_token(&headers, PRY_SLICE("CONNECTION"), PRY_SLICE("upgrade")));
  assert_true(pry_headers_has_token(&headers, PRY_SLICE("connection"), PRY_SLICE("X")));
  assert_true(pry_headers_has_token(&headers, PRY_SLICE("connection"), PRY_SLICE("LAST")));
  assert_false(pry_headers_has_token(&headers, PRY_SLICE("connection"), PRY_SLICE("keep")));
  assert_false(pry_headers_has_token(&headers, PRY_SLICE("connection"), PRY_SLICE("close")));
  assert_false(pry_headers_has_token(&headers, PRY_SLICE("other"), PRY_SLICE("last")));
  pry_headers_fini(&headers);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_order_and_case), cmocka_unit_test(test_set_and_remove),
      cmocka_unit_test(test_no_line_breaks), cmocka_unit_test(test_limits),
      cmocka_unit_test(test_add_all),        cmocka_unit_test(test_tokens),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
