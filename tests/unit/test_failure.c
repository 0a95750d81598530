/* The failure vocabulary and the built-in status table. */
#include "failure.h"
#include "http.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void every_category_has_its_name(void **unused)
{
  (void)unused;
  for (enum pry_category category = PRY_AUTH; category < PRY_CATEGORY_COUNT; category++)
    assert_int_equal(pry_category_from_name(pry_slice_of(pry_category_name(category))), category);
  assert_int_equal(pry_category_from_name(PRY_SLICE("none")), PRY_NONE);
  assert_int_equal(pry_category_from_name(PRY_SLICE("")), PRY_NONE);
}

static void statuses_map_as_the_contract_says(void **unused)
{
  (void)unused;
  static const struct {
    int status;
    const char *category, *origin;
    bool retryable;
  } rows[] = {
      {400, "invalid_request", "client", false}, {401, "auth", "client", false},
      {402, "billing", "billing", false},        {403, "permission", "client", false},
      {404, "not_found", "client", false},       {408, "timeout", "server", true},
      {409, "conflict", "client", true},         {413, "payload_too_large", "client", false},
      {418, "invalid_request", "client", false}, {429, "rate_limit", "client", true},
      {500, "server", "server", true},           {502, "server", "server", true},
      {503, "overloaded", "server", true},       {504, "timeout", "server", true},
      {529, "overloaded", "server", true},       {599, "server", "server", true},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct pry_failure failure = pry_failure_from_status(rows[i].status);
    assert_string_equal(pry_category_name(failure.category), rows[i].category);
    assert_string_equal(pry_origin_name(failure.origin), rows[i].origin);
    assert_int_equal(failure.retryable, rows[i].retryable);
    assert_int_equal(failure.refresh_token, rows[i].status == 401);
    assert_int_equal(pry_failure_client_status(&failure), rows[i].status);
  }
  assert_int_equal(pry_failure_from_status(200).category, PRY_NONE);
  assert_int_equal(pry_failure_from_status(302).category, PRY_NONE);
}

static void transport_failures_are_network_or_timeout(void **unused)
{
  (void)unused;
  struct pry_failure failure = pry_failure_from_curl(PRY_HTTP_TIMED_OUT, true);
  assert_int_equal(failure.category, PRY_TIMEOUT);
  assert_int_equal(failure.origin, PRY_ORIGIN_NETWORK);
  assert_int_equal(pry_failure_client_status(&failure), 504);
  failure = pry_failure_from_curl(PRY_HTTP_COULDNT_CONNECT, false);
  assert_int_equal(failure.category, PRY_NETWORK);
  assert_int_equal(failure.origin, PRY_ORIGIN_NETWORK);
  assert_false(failure.sent);
  assert_int_equal(pry_failure_client_status(&failure), 502);
}

static void own_failures_have_the_contracts_statuses(void **unused)
{
  (void)unused;
  static const struct {
    enum pry_category category;
    int status;
  } rows[] = {
      {PRY_INVALID_REQUEST, 400}, {PRY_AUTH, 401},     {PRY_PAYLOAD_TOO_LARGE, 413}, {PRY_RATE_LIMIT, 429},
      {PRY_NETWORK, 502},         {PRY_TIMEOUT, 504},  {PRY_OVERLOADED, 503},        {PRY_BILLING, 503},
      {PRY_UNKNOWN, 503},         {PRY_CONFLICT, 503}, {PRY_NOT_FOUND, 404},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct pry_failure failure = pry_failure_of(rows[i].category);
    failure.source = PRY_SOURCE_PARRY;
    assert_int_equal(pry_failure_client_status(&failure), rows[i].status);
  }
}

static void texts_are_cut_at_characters(void **unused)
{
  (void)unused;
  struct pry_failure failure = pry_failure_of(PRY_SERVER);
  char text[PRY_FAILURE_CODE_MAX + 8];
  memset(text, 'a', sizeof text);
  memcpy(text + PRY_FAILURE_CODE_MAX - 2, "\xE4\xBD\xA0", 3); /* begins inside, ends outside */
  pry_failure_set_code(&failure, (struct pry_slice){text, sizeof text});
  assert_int_equal(strlen(failure.code), PRY_FAILURE_CODE_MAX - 2);
  pry_failure_set_message(&failure, PRY_SLICE("two\r\nlines\x7F"));
  assert_string_equal(failure.message, "two  lines ");
  /* line ends of other alphabets, and what steers a terminal */
  pry_failure_set_message(&failure, PRY_SLICE("a\xC2\x85"
                                              "b\xE2\x80\xA8"
                                              "c\xE2\x80\xA9\xC2\x9B"
                                              "d\xE2\x80\xA6\xC2\xA0"));
  assert_string_equal(failure.message, "a  b   c     d\xE2\x80\xA6\xC2\xA0");
  pry_failure_set_message(&failure, PRY_SLICE("cut \xE2\x80"));
  assert_string_equal(failure.message, "cut \xE2\x80");
}

static void test_what_was_sent(void **state)
{
  (void)state;
  static const int before[] = {3, 5, 6, 7, 35, 60, 77}, after[] = {16, 18, 28, 52, 55, 56, 92, 0, 999};
  for (size_t i = 0; i < sizeof before / sizeof *before; i++)
    assert_false(pry_curl_code_sent(before[i]));
  for (size_t i = 0; i < sizeof after / sizeof *after; i++)
    assert_true(pry_curl_code_sent(after[i]));
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_category_has_its_name),
      cmocka_unit_test(statuses_map_as_the_contract_says),
      cmocka_unit_test(transport_failures_are_network_or_timeout),
      cmocka_unit_test(own_failures_have_the_contracts_statuses),
      cmocka_unit_test(texts_are_cut_at_characters),
      cmocka_unit_test(test_what_was_sent),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
