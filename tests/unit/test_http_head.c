/* Heads of answers, line by line. */
#include "http_head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Feeds lines up to the NULL; the result of the last one. All before it must be taken. */
static enum pry_http_head_result feed(struct pry_http_head *head, const char *const *lines)
{
  const char *why = NULL;
  enum pry_http_head_result result = PRY_HTTP_HEAD_MORE;
  for (; *lines; lines++) {
    assert_int_equal(result, PRY_HTTP_HEAD_MORE);
    result = pry_http_head_add(head, pry_slice_of(*lines), &why);
    assert_int_equal(why != NULL, result == PRY_HTTP_HEAD_BAD);
  }
  return result;
}

static void test_plain(void **state)
{
  (void)state;
  struct pry_http_head head;
  pry_http_head_init(&head);
  const char *const lines[] = {"HTTP/1.1 207 Multi\r\n", "A: b \r\n", "Name : x\n", "Empty:\r\n", "\r\n", NULL};
  assert_int_equal(feed(&head, lines), PRY_HTTP_HEAD_COMPLETE);
  assert_int_equal(head.status, 207);
  assert_int_equal(head.headers.count, 3);
  assert_true(pry_slice_equal(pry_headers_at(&head.headers, 0).value, PRY_SLICE("b")));
  assert_true(pry_slice_equal(pry_headers_at(&head.headers, 1).name, PRY_SLICE("Name")));
  assert_int_equal(pry_headers_at(&head.headers, 2).value.size, 0);
  pry_http_head_fini(&head);
}

static void test_interim_heads_are_forgotten(void **state)
{
  (void)state;
  struct pry_http_head head;
  pry_http_head_init(&head);
  const char *const interim[] = {"HTTP/1.1 103 Early Hints", "Link: x", "", NULL};
  for (int i = 0; i < PRY_HTTP_INTERIM_HEADS_MAX; i++)
    assert_int_equal(feed(&head, interim), PRY_HTTP_HEAD_MORE);
  const char *const final[] = {"HTTP/1.1 200 OK", "", NULL};
  assert_int_equal(feed(&head, final), PRY_HTTP_HEAD_COMPLETE);
  assert_int_equal(head.headers.count, 0);
  pry_http_head_fini(&head);
  pry_http_head_init(&head);
  for (int i = 0; i < PRY_HTTP_INTERIM_HEADS_MAX; i++)
    assert_int_equal(feed(&head, interim), PRY_HTTP_HEAD_MORE);
  assert_int_equal(feed(&head, interim), PRY_HTTP_HEAD_BAD);
  pry_http_head_fini(&head);
}

static void test_bad_lines(void **state)
{
  (void)state;
  static const char *const bad[] = {": x",     " folded: x", "\tfolded", "no colon",          "a b: c",     "a(: c",
                                    "a\"b: c", "a: b\rc",    "a\r: b",   "HTTP/1.1 500 Oops", "\xc3\xa9: x"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct pry_http_head head;
    pry_http_head_init(&head);
    const char *const lines[] = {"HTTP/1.1 200 OK", "A: b", bad[i], NULL};
    if (feed(&head, lines) != PRY_HTTP_HEAD_BAD)
      fail_msg("taken: %s", bad[i]);
    pry_http_head_fini(&head);
  }
  struct pry_http_head head;
  pry_http_head_init(&head);
  const char *const status_line[] = {"HTTP/1.1 200", NULL};
  feed(&head, status_line);
  const char *why = NULL;
  assert_int_equal(pry_http_head_add(&head, PRY_SLICE("a: b\0c"), &why), PRY_HTTP_HEAD_BAD);
  pry_http_head_fini(&head);
}

static void test_impossible_status(void **state)
{
  (void)state;
  static const char *const bad[] = {"HTTP/1.1 101 x", "HTTP/1.1 099", "HTTP/1.1 ",    "HTTP/1.1", "",
                                    "HTTP/1.1 20",    "HTTP/1.1 2x0", "HTTP/1.1  200"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct pry_http_head head;
    pry_http_head_init(&head);
    const char *const lines[] = {bad[i], "", NULL};
    if (feed(&head, lines) != PRY_HTTP_HEAD_BAD)
      fail_msg("taken: %s", bad[i]);
    pry_http_head_fini(&head);
  }
}

static void test_framing_is_plain(void **state)
{
  (void)state;
  static const char *const bad[][2] = {{"Content-Length: 5", "Content-Length: 6"},
                                       {"Content-Length : 5", ""},
                                       {"Content-Length: +5", ""},
                                       {"Content-Length: 0x5", ""},
                                       {"Content-Length: 5, 5", ""},
                                       {"Content-Length:", ""},
                                       {"Transfer-Encoding : chunked", ""},
                                       {"Transfer-Encoding: gzip, chunked", ""},
                                       {"Transfer-Encoding: identity", "Transfer-Encoding: chunked"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct pry_http_head head;
    const char *why = NULL;
    pry_http_head_init(&head);
    pry_http_head_add(&head, PRY_SLICE("HTTP/1.1 200 OK"), &why);
    enum pry_http_head_result result = pry_http_head_add(&head, pry_slice_of(bad[i][0]), &why);
    if (result == PRY_HTTP_HEAD_MORE)
      result = pry_http_head_add(&head, pry_slice_of(bad[i][1]), &why);
    if (result != PRY_HTTP_HEAD_BAD)
      fail_msg("taken: %s %s", bad[i][0], bad[i][1]);
    pry_http_head_fini(&head);
  }
  struct pry_http_head head;
  struct pry_slice length;
  pry_http_head_init(&head);
  const char *const same[] = {"HTTP/1.1 200 OK", "Content-Length: 5", "content-length: 5", "", NULL};
  assert_int_equal(feed(&head, same), PRY_HTTP_HEAD_COMPLETE);
  pry_http_head_fini(&head);
  pry_http_head_init(&head);
  const char *const both[] = {"HTTP/1.1 200 OK", "Content-Length: 5", "Transfer-Encoding: Chunked", "", NULL};
  assert_int_equal(feed(&head, both), PRY_HTTP_HEAD_COMPLETE);
  assert_false(pry_headers_get(&head.headers, PRY_SLICE("content-length"), &length));
  pry_http_head_fini(&head);
}

static void test_limits(void **state)
{
  (void)state;
  struct pry_http_head head;
  pry_http_head_init(&head);
  const char *why = NULL;
  assert_int_equal(pry_http_head_add(&head, PRY_SLICE("HTTP/1.1 200 OK"), &why), PRY_HTTP_HEAD_MORE);
  for (int i = 0; i < PRY_HEADERS_MAX; i++)
    assert_int_equal(pry_http_head_add(&head, PRY_SLICE("a: b"), &why), PRY_HTTP_HEAD_MORE);
  assert_int_equal(pry_http_head_add(&head, PRY_SLICE("a: b"), &why), PRY_HTTP_HEAD_BAD);
  assert_int_equal(pry_http_head_add(&head, PRY_SLICE(""), &why), PRY_HTTP_HEAD_COMPLETE);
  static const char trailer[64 * 1024] = {'t', ':'};
  for (int i = 0; i < PRY_HEADERS_BYTES_MAX / (int)sizeof trailer; i++)
    assert_int_equal(pry_http_head_add(&head, (struct pry_slice){trailer, sizeof trailer}, &why), PRY_HTTP_HEAD_MORE);
  assert_int_equal(pry_http_head_add(&head, PRY_SLICE("t"), &why), PRY_HTTP_HEAD_BAD);
  assert_int_equal(head.headers.count, PRY_HEADERS_MAX);
  pry_http_head_fini(&head);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_plain),     cmocka_unit_test(test_interim_heads_are_forgotten),
      cmocka_unit_test(test_bad_lines), cmocka_unit_test(test_impossible_status),
      cmocka_unit_test(test_limits),    cmocka_unit_test(test_framing_is_plain),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
