/* What error bodies say: the shapes of error_body.h, and what is left of them when they arrive broken. */
#include "error_body.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct pry_error_body read(const char *body)
{
  struct pry_error_body error;
  pry_error_body_read(&error, pry_slice_of(body));
  return error;
}

static void test_shapes(void **state)
{
  (void)state;
  static const struct {
    const char *body, *code, *type, *state, *inner, *reason, *message;
  } cases[] = {
      {"{\"error\":{\"message\":\"m\",\"type\":\"t\",\"param\":null,\"code\":\"c\"}}", "c", "t", "", "", "", "m"},
      {"{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}", "", "overloaded_error", "",
       "", "", "m"},
      {"{\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"c\",\"message\":\"m\"}}"
       "}",
       "c", "response.failed", "failed", "", "", "m"},
      {"{\"error\":{\"code\":\"400\",\"message\":\"m\",\"innererror\":{\"code\":\"i\"}}}", "400", "", "", "i", "", "m"},
      {"[{\"error\":{\"code\":429,\"message\":\"m\",\"status\":\"S\",\"details\":[{\"reason\":\"R\"}]}}]", "429", "",
       "S", "", "R", "m"},
      {"{\"errcode\":-2001,\"errmsg\":\"m\",\"data\":null}", "-2001", "", "", "", "", "m"},
      {"{\"error_type\":\"auth.token.invalid\",\"message\":\"m\"}", "", "auth.token.invalid", "", "", "", "m"},
      {"{\"base_resp\":{\"status_code\":1002,\"status_msg\":\"m\"}}", "1002", "", "", "", "", "m"},
      {"{\"error_code\":18,\"error_msg\":\"m\"}", "18", "", "", "", "", "m"},
      {"{\"error\":\"model 'x' not found\"}", "", "", "", "", "", "model 'x' not found"},
      {"{\"error\":\"invalid_token\",\"error_description\":\"m\"}", "invalid_token", "", "", "", "", "m"},
      {"{\"code\":\"a whole sentence\",\"error\":\"m n\"}", "", "", "", "", "", "m n"},
      {"{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"m\",\"type\":\"missing\"}]}", "", "missing", "", "", "", "m"},
      {"{\"errors\":[{\"code\":\"c\",\"message\":\"m\"}]}", "c", "", "", "", "", "m"},
      {"{\"fault\":{\"faultstring\":\"m\",\"detail\":{\"errorcode\":\"c\"}}}", "c", "", "", "", "", "m"},
      {"{\"message\":{\"detail\":[{\"type\":\"t\",\"msg\":\"m\"}]}}", "", "t", "", "", "", "m"},
      /* codes that are statuses give way, others do not */
      {"{\"code\":\"c\",\"error\":{\"code\":500}}", "c", "", "", "", "", ""},
      {"{\"code\":\"d\",\"error\":{\"code\":\"c\"}}", "c", "", "", "", "", ""},
      {"{\"error\":{\"code\":429.0}}", "429", "", "", "", "", ""},
      {"{\"error\":{\"code\":{\"a\":1},\"type\":7,\"message\":[\"m\"]}}", "", "", "", "", "", ""},
      /* errors in texts */
      {"{\"message\":\"{\\\"error\\\":{\\\"code\\\":\\\"c\\\"}}\"}", "c", "", "", "", "",
       "{\"error\":{\"code\":\"c\"}}"},
      {"{\"error\":{\"message\":\"outer - {\\\"error\\\":{\\\"message\\\":\\\"m\\\"}}\",\"code\":\"429\"}}", "429", "",
       "", "", "", "m"},
      {"{\"error\":{\"message\":\"Provider returned error\",\"code\":400,\"metadata\":{\"raw\":"
       "\"{\\\"error\\\":{\\\"message\\\":\\\"m\\\",\\\"code\\\":\\\"c\\\"}}\"}}}",
       "c", "", "", "", "", "m"},
      {"{\"error\":{\"message\":\"x\",\"code\":429,\"metadata\":{\"raw\":\"m n\"}}}", "429", "", "", "", "", "m n"},
      {"{\"error\":{\"message\":\"x\",\"metadata\":{\"raw\":{\"error\":{\"code\":\"c\"}}}}}", "c", "", "", "", "", "x"},
      {"\"{\\\"error\\\":{\\\"code\\\":\\\"c\\\",\\\"message\\\":\\\"m\\\"}}\"", "c", "", "", "", "", "m"},
      {"data: {\"error\":{\"code\":\"c\"}}\n\n", "c", "", "", "", "", ""},
      {"Error 400: {\"error\":{\"code\":\"c\"}}", "c", "", "", "", "", ""},
      /* what a user wrote and a provider quotes is no error */
      {"{\"error\":{\"message\":\"bad value: {\\\"code\\\":\\\"insufficient_quota\\\"}\"}}", "", "", "", "", "",
       "bad value: {\"code\":\"insufficient_quota\"}"},
      /* broken */
      {"\xEF\xBB\xBF {\"error\":{\"code\":\"c\"}}", "c", "", "", "", "", ""},
      {"{\"error\":{\"code\":\"c\",\"message\":\"not fin", "c", "", "", "", "", "not fin"},
      {"{\"error\":{\"message\":\"m\\u00", "", "", "", "", "", "m"},
      {"{\"error\":{\"message\":\"m\\", "", "", "", "", "", "m"},
      {"{\"errcode\":-20", "", "", "", "", "", ""},
      {"{\"error\":{\"message\":\"two\nlines\",\"code\":\"c\"}}", "c", "", "", "", "", "two\nlines"},
      {"{\"error\":{\"code\":\"c\",\"code\":\"d\"}}", "c", "", "", "", "", ""},
      {"{\"\\u0065rror\":{\"c\\u006fde\":\"c\"}}", "c", "", "", "", "", ""},
      {"{\"a\":]},\"error\":{\"code\":\"c\"}}", "", "", "", "", "", ""},
      {"{error: 'x'}", "", "", "", "", "", ""},
      {"", "", "", "", "", "", ""},
      {" \r\n", "", "", "", "", "", ""},
      {"42", "", "", "", "", "", "42"},
      {"\"", "", "", "", "", "", ""},
      {"{", "", "", "", "", "", ""},
      {"[", "", "", "", "", "", ""},
      {"upstream connect error\nmore", "", "", "", "", "", "upstream connect error"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct pry_error_body error = read(cases[i].body);
    if (strcmp(error.code, cases[i].code) || strcmp(error.type, cases[i].type) || strcmp(error.state, cases[i].state) ||
        strcmp(error.inner, cases[i].inner) || strcmp(error.reason, cases[i].reason) ||
        strcmp(error.message, cases[i].message))
      fail_msg("%s: code '%s' type '%s' state '%s' inner '%s' reason '%s' message '%s'", cases[i].body, error.code,
               error.type, error.state, error.inner, error.reason, error.message);
    assert_false(error.html);
  }
}

static void test_pages(void **state)
{
  (void)state;
  struct pry_error_body error =
      read("\n<!DOCTYPE html><HTML><head><Title class=x>\n  502  Bad\tGateway \n</title></head>");
  assert_true(error.html);
  assert_string_equal(error.message, "502 Bad Gateway");
  static const char *const untitled[] = {
      "<", "<html>", "<html><title></title>", "<html><title>never ends", "<title", "<html><title>\n \t</title>"};
  for (size_t i = 0; i < sizeof untitled / sizeof *untitled; i++) {
    error = read(untitled[i]);
    assert_true(error.html);
    assert_string_equal(error.message, "");
  }
}

static void test_durations(void **state)
{
  (void)state;
  static const struct {
    const char *text;
    double seconds;
  } cases[] = {{"34s", 34},        {"3.5s", 3.5},     {"20.044661790s", 20.04466179},
               {"7 seconds.", 7},  {"6m0s", 360},     {"1h2m3s", 3723},
               {"500ms", 0.5},     {"1 minute", 60},  {"02:11:14", 7874},
               {"2 days", 172800}, {"", -1},          {"soon", -1},
               {"7", -1},          {"7 parsecs", -1}, {"-5s", -1},
               {".s", -1},         {"1:2:3", -1},     {"0s", 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    double seconds = pry_error_body_duration(pry_slice_of(cases[i].text));
    if (fabs(seconds - cases[i].seconds) > 1e-9)
      fail_msg("%s: %f", cases[i].text, seconds);
  }
  assert_true(read("{\"message\":\"Please try again in 20s.\"}").wait == 20);
  assert_true(read("{\"message\":\"Retry after 7 seconds\"}").wait == 7);
  assert_true(read("{\"message\":\"Quota will be replenished in 02:11:14.\"}").wait == 7874);
  assert_true(read("{\"message\":\"Please try again later\"}").wait < 0);
  struct pry_error_body google = read(
      "{\"error\":{\"message\":\"retry in 1s\",\"details\":[{\"@type\":\"x\",\"violations\":[{\"quotaId\":\"A\"},{},"
      "{\"quotaId\":\"B\"}]},{\"retryDelay\":\"34s\"}]}}");
  assert_true(google.wait == 34);
  assert_string_equal(google.quota, "A B ");
}

/* Nothing that is long or deep costs more than its bytes, or writes past its place. */
static void test_bounds(void **state)
{
  (void)state;
  enum { SIZE = 64 * 1024 };
  static const char *const pieces[] = {"{\"error\":", "[",      "{\"message\":\"",           "\\\\\\\\\"",
                                       "{\"a\":1,",   "\"x\"",  "{\"metadata\":{\"raw\":\"", "\\\"",
                                       "\\ud83d",     "<title>"};
  char *body = malloc(SIZE);
  assert_non_null(body);
  for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
    size_t length = strlen(pieces[i]);
    for (size_t at = 0; at < SIZE; at++)
      body[at] = pieces[i][at % length];
    struct pry_error_body error;
    pry_error_body_read(&error, (struct pry_slice){body, SIZE});
  }
  struct pry_error_body error;
  size_t head = (size_t)snprintf(body, SIZE, "{\"error\":{\"code\":\"");
  memset(body + head, 'c', SIZE - head);
  pry_error_body_read(&error, (struct pry_slice){body, SIZE});
  assert_int_equal(strlen(error.code), PRY_ERROR_WORD_MAX - 1);
  head = (size_t)snprintf(body, SIZE, "{\"error\":{\"message\":\"");
  memset(body + head, '\xC3', SIZE - head);
  pry_error_body_read(&error, (struct pry_slice){body, SIZE});
  assert_int_equal(strlen(error.message), PRY_ERROR_MESSAGE_MAX - 1);
  free(body);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_shapes),
      cmocka_unit_test(test_pages),
      cmocka_unit_test(test_durations),
      cmocka_unit_test(test_bounds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
