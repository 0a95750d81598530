/* Proxy-Status: the grammar of RFC 8941 as far as RFC 9209 uses it, parry's member behind what a provider sent, and the
 * registered type for each failure that parry tells itself. */
#include "proxy_status.h"

#include "http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *const GOOD[] = {
    "parry",
    "*a",
    "\"a proxy with spaces\"",
    "a, b",
    "a ,\t b;x, \"c\"",
    "proxy.example.net; error=http_response_timeout; next-hop=\"b:80\"; details=\"a \\\"b\\\" \\\\\"",
    "a;received-status=429;b;c=?1;d=-1;e=1.5;f=:aGk=:;g=tok/en:x;*h=*;i_.-*0=x",
    "a;x=-999999999999999",
    "a;x=999999999999.999",
    "ExampleCDN; error=connection_timeout;  rtt=1",
};

static const char *const BAD[] = {
    "",
    ",",
    "a,",
    ",a",
    "a b",
    "a;",
    "a;X=1",
    "a;=1",
    "a;x=",
    "a;x=\"",
    "a;x=\"b",
    "a;x=\"\\n\"",
    "a;x=\"\xC3\xA4\"",
    "a;x=\"\t\"",
    "a;x=-",
    "a;x=1.",
    "a;x=1.2345",
    "a;x=1234567890123.1",
    "a;x=1234567890123456",
    "a;x=?2",
    "a;x=:aGk=",
    "a ;x=1",
    "a;x =1",
    "1",
    "?1",
    ":aGk=:",
    "(a b)",
    "a=b",
    "\"a\"b",
    "a\x01",
    "a; x=\x7F",
};

static void the_grammar_is_structured_fields(void **unused)
{
  (void)unused;
  for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++)
    if (!pry_proxy_status_valid(pry_slice_of(GOOD[i])))
      fail_msg("refused: %s", GOOD[i]);
  for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
    if (pry_proxy_status_valid(pry_slice_of(BAD[i])))
      fail_msg("taken: %s", BAD[i]);
}

/* Every cut of a good one, on the heap, so that a sanitizer sees a byte too many. */
static void no_cut_reads_past_its_end(void **unused)
{
  (void)unused;
  for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++)
    for (size_t size = 0; size <= strlen(GOOD[i]); size++) {
      char *copy = malloc(size ? size : 1);
      assert_non_null(copy);
      memcpy(copy, GOOD[i], size);
      pry_proxy_status_valid((struct pry_slice){copy, size});
      free(copy);
    }
}

static void expect(struct pry_headers *headers, const char *value)
{
  struct pry_slice got;
  size_t lines = 0;
  for (size_t i = 0; i < headers->count; i++)
    lines += pry_slice_equal_nocase(pry_headers_at(headers, i).name, PRY_SLICE("proxy-status"));
  assert_int_equal(lines, 1);
  assert_true(pry_headers_get(headers, PRY_SLICE("proxy-status"), &got));
  if (!pry_slice_equal(got, pry_slice_of(value)))
    fail_msg("expected: %s\ngot:      %.*s", value, (int)got.size, got.data);
  assert_true(pry_proxy_status_valid(got));
  pry_headers_fini(headers);
}

static void parrys_member_comes_last(void **unused)
{
  (void)unused;
  struct pry_headers headers;
  struct pry_proxy_status status = {.next_hop = "p/m", .received_status = 200};
  pry_headers_init(&headers);
  assert_true(pry_proxy_status_set(&headers, &status));
  expect(&headers, "parry; next-hop=\"p/m\"; received-status=200");

  pry_headers_init(&headers); /* all lines are one list, also those around others */
  pry_headers_add(&headers, PRY_SLICE("Proxy-Status"), PRY_SLICE("origin; error=dns_error"));
  pry_headers_add(&headers, PRY_SLICE("X-Other"), PRY_SLICE("1"));
  pry_headers_add(&headers, PRY_SLICE("proxy-status"), PRY_SLICE("cdn, edge"));
  assert_true(pry_proxy_status_set(&headers, &status));
  expect(&headers, "origin; error=dns_error, cdn, edge, parry; next-hop=\"p/m\"; received-status=200");

  pry_headers_init(&headers); /* a broken one would make the whole field unreadable */
  pry_headers_add(&headers, PRY_SLICE("Proxy-Status"), PRY_SLICE("cdn; error=\"unfinished"));
  assert_true(pry_proxy_status_set(&headers, &status));
  expect(&headers, "parry; next-hop=\"p/m\"; received-status=200");

  pry_headers_init(&headers);
  pry_headers_add(&headers, PRY_SLICE("Proxy-Status"), PRY_SLICE(""));
  assert_true(pry_proxy_status_set(&headers, &(struct pry_proxy_status){.error = "dns_error", .details = "d"}));
  expect(&headers, "parry; error=dns_error; details=\"d\"");
}

static void names_are_quoted(void **unused)
{
  (void)unused;
  struct pry_headers headers;
  pry_headers_init(&headers);
  struct pry_proxy_status status = {.next_hop = "p/m\"\\\r\n\xC3\xA4", .details = "a\x7F"};
  assert_true(pry_proxy_status_set(&headers, &status));
  expect(&headers, "parry; next-hop=\"p/m\\\"\\\\\?\?\?\?\"; details=\"a?\"");
}

static void each_failure_has_its_registered_type(void **unused)
{
  (void)unused;
  static const struct {
    enum pry_category category;
    int curl_code;
    bool sent;
    const char *error;
  } ROWS[] = {
      {PRY_NETWORK, PRY_HTTP_COULDNT_RESOLVE, false, "dns_error"},
      {PRY_NETWORK, PRY_HTTP_COULDNT_CONNECT, false, "connection_refused"},
      {PRY_NETWORK, PRY_HTTP_TLS_FAILED, false, "tls_protocol_error"},
      {PRY_NETWORK, PRY_HTTP_TLS_UNTRUSTED, false, "tls_certificate_error"},
      {PRY_NETWORK, PRY_HTTP_CUT, true, "http_response_incomplete"},
      {PRY_NETWORK, PRY_HTTP_GOT_NOTHING, true, "connection_terminated"},
      {PRY_NETWORK, PRY_HTTP_RECEIVE_FAILED, true, "connection_terminated"},
      {PRY_NETWORK, 0, false, "destination_unavailable"},
      {PRY_TIMEOUT, PRY_HTTP_TIMED_OUT, false, "connection_timeout"},
      {PRY_TIMEOUT, PRY_HTTP_TIMED_OUT, true, "http_response_timeout"},
      {PRY_TIMEOUT, 0, false, "http_response_timeout"}, /* the deadline of a call that waits in a queue */
      {PRY_OVERLOADED, 0, false, "destination_unavailable"},
      {PRY_RATE_LIMIT, 0, false, "connection_limit_reached"},
      {PRY_INVALID_REQUEST, 0, false, "http_request_error"},
      {PRY_NOT_FOUND, 0, false, "http_request_error"},
      {PRY_PERMISSION, 0, false, "http_request_denied"},
      {PRY_AUTH, 0, false, "proxy_configuration_error"},
      {PRY_SERVER, 0, false, "proxy_internal_error"},
      {PRY_UNKNOWN, 0, false, "proxy_internal_error"},
  };
  for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
    struct pry_failure failure = pry_failure_of(ROWS[i].category);
    failure.curl_code = ROWS[i].curl_code;
    failure.sent = ROWS[i].sent;
    assert_string_equal(pry_proxy_error(&failure), ROWS[i].error);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_grammar_is_structured_fields),
      cmocka_unit_test(no_cut_reads_past_its_end),
      cmocka_unit_test(parrys_member_comes_last),
      cmocka_unit_test(names_are_quoted),
      cmocka_unit_test(each_failure_has_its_registered_type),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
