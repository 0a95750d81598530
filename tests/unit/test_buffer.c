/* Buffers: growth, limits, JSON escaping; slices and lists beside them. */
#include "buffer.h"
#include "list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void check_text(struct pry_buffer *buffer, const char *expected)
{
  assert_int_equal(buffer->size, strlen(expected));
  assert_string_equal(pry_buffer_text(buffer), expected);
}

static void test_append(void **state)
{
  (void)state;
  struct pry_buffer buffer;
  pry_buffer_init(&buffer, 0);
  assert_null(buffer.data);
  check_text(&buffer, "");
  assert_true(pry_buffer_append(&buffer, NULL, 0));
  assert_true(pry_buffer_append(&buffer, "ab", 2));
  assert_true(pry_buffer_append_text(&buffer, "cd"));
  assert_true(pry_buffer_append_slice(&buffer, PRY_SLICE("ef")));
  assert_true(pry_buffer_append_format(&buffer, "%d-%s", 42, "x"));
  check_text(&buffer, "abcdef42-x");
  assert_true(pry_slice_equal(pry_buffer_slice(&buffer), PRY_SLICE("abcdef42-x")));
  pry_buffer_clear(&buffer);
  check_text(&buffer, "");
  pry_buffer_fini(&buffer);
  pry_buffer_fini(&buffer);
}

static void test_growth_keeps_bytes(void **state)
{
  (void)state;
  struct pry_buffer buffer;
  pry_buffer_init(&buffer, 0);
  for (int i = 0; i < 10000; i++) {
    char c = (char)('a' + i % 26);
    assert_true(pry_buffer_append(&buffer, &c, 1));
    assert_true(buffer.capacity > buffer.size); /* the NUL always fits */
  }
  for (int i = 0; i < 10000; i++)
    assert_int_equal(buffer.data[i], 'a' + i % 26);
  pry_buffer_fini(&buffer);
}

static void test_limit_refuses_whole(void **state)
{
  (void)state;
  struct pry_buffer buffer;
  pry_buffer_init(&buffer, 5);
  assert_true(pry_buffer_append_text(&buffer, "abc"));
  assert_false(pry_buffer_append_text(&buffer, "def"));
  assert_false(pry_buffer_append_format(&buffer, "%s", "def"));
  assert_false(pry_buffer_append_json(&buffer, PRY_SLICE("x\n")));
  check_text(&buffer, "abc");
  assert_true(pry_buffer_append_text(&buffer, "de"));
  assert_false(pry_buffer_append_text(&buffer, "f"));
  check_text(&buffer, "abcde");
  assert_false(pry_buffer_reserve(&buffer, SIZE_MAX));
  assert_false(pry_buffer_reserve(&buffer, SIZE_MAX - 5));
  pry_buffer_fini(&buffer);
  assert_int_equal(buffer.limit, 5);
}

static void test_json(void **state)
{
  (void)state;
  static const struct {
    struct pry_slice in;
    const char *out;
  } cases[] = {
      {{"", 0}, ""},
      {{"plain", 5}, "plain"},
      {{"\"\\/\n\r\t", 6}, "\\\"\\\\/\\n\\r\\t"},
      {{"\0\x1f\x7f", 3}, "\\u0000\\u001f\\u007f"},
      {{"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9}, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
      {{"a\xff"
        "b",
        3},
       "a\xef\xbf\xbd"
       "b"},
      {{"\xc0\xaf", 2}, "\xef\xbf\xbd\xef\xbf\xbd"},                                 /* overlong */
      {{"\xe0\x80\xaf", 3}, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 /* overlong */
      {{"\xed\xa0\x80", 3}, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 /* surrogate */
      {{"\xf4\x90\x80\x80", 4}, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* above U+10FFFF */
      {{"\xe2\x82", 2}, "\xef\xbf\xbd\xef\xbf\xbd"},                                 /* cut off */
      {{"\xf4\x8f\xbf\xbf", 4}, "\xf4\x8f\xbf\xbf"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct pry_buffer buffer;
    pry_buffer_init(&buffer, 0);
    assert_true(pry_buffer_append_json(&buffer, cases[i].in));
    check_text(&buffer, cases[i].out);
    pry_buffer_fini(&buffer);
  }
}

static void test_consume_and_take(void **state)
{
  (void)state;
  struct pry_buffer buffer;
  pry_buffer_init(&buffer, 0);
  pry_buffer_consume(&buffer, 3);
  assert_true(pry_buffer_append_text(&buffer, "abcdef"));
  pry_buffer_consume(&buffer, 2);
  check_text(&buffer, "cdef");
  pry_buffer_consume(&buffer, 100);
  check_text(&buffer, "");
  assert_true(pry_buffer_append_text(&buffer, "xyz"));
  size_t size;
  char *bytes = pry_buffer_take(&buffer, &size);
  assert_int_equal(size, 3);
  assert_memory_equal(bytes, "xyz", 3);
  free(bytes);
  assert_null(buffer.data);
  assert_int_equal(buffer.size, 0);
  bytes = pry_buffer_take(&buffer, &size);
  assert_null(bytes);
  assert_int_equal(size, 0);
}

static void test_slices(void **state)
{
  (void)state;
  assert_int_equal(pry_slice_of(NULL).size, 0);
  assert_true(pry_slice_equal(pry_slice_of(""), pry_slice_of(NULL)));
  assert_false(pry_slice_equal(PRY_SLICE("a"), PRY_SLICE("A")));
  assert_true(pry_slice_equal_nocase(PRY_SLICE("Content-TYPE"), PRY_SLICE("content-type")));
  assert_false(pry_slice_equal_nocase(PRY_SLICE("@"), PRY_SLICE("`"))); /* a bit apart, as letters are */
  assert_false(pry_slice_equal_nocase(PRY_SLICE("ab"), PRY_SLICE("abc")));
  assert_true(pry_slice_starts_with(PRY_SLICE("abc"), PRY_SLICE("ab")));
  assert_false(pry_slice_starts_with(PRY_SLICE("a"), PRY_SLICE("ab")));
  assert_true(pry_slice_equal(pry_slice_trim(PRY_SLICE(" \ta b\t ")), PRY_SLICE("a b")));
  assert_int_equal(pry_slice_trim(PRY_SLICE(" \t ")).size, 0);
}

struct element {
  int number;
  struct pry_list link;
};

static void test_list(void **state)
{
  (void)state;
  struct pry_list list;
  struct element elements[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
  pry_list_init(&list);
  assert_true(pry_list_empty(&list));
  for (int i = 0; i < 3; i++)
    pry_list_push(&list, &elements[i].link);
  pry_list_remove(&elements[1].link);
  pry_list_remove(&elements[1].link);
  int expected[] = {0, 2}, count = 0;
  for (struct pry_list *link = list.next; link != &list; link = link->next)
    assert_int_equal(PRY_CONTAINER_OF(link, struct element, link)->number, expected[count++]);
  assert_int_equal(count, 2);
  pry_list_push(&list, &elements[1].link);
  assert_ptr_equal(list.previous, &elements[1].link);
  for (int i = 0; i < 3; i++)
    pry_list_remove(&elements[i].link);
  assert_true(pry_list_empty(&list));
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_append),
      cmocka_unit_test(test_growth_keeps_bytes),
      cmocka_unit_test(test_limit_refuses_whole),
      cmocka_unit_test(test_json),
      cmocka_unit_test(test_consume_and_take),
      cmocka_unit_test(test_slices),
      cmocka_unit_test(test_list),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
