/* What a check concludes from any answer: a good list that holds the model says so whatever else it holds, an answer that
 * was no error is never ill, and what is told is JSON. The first byte says what was asked, the second what came. */
#include "fuzz.h"

#include "health_internal.h"

static void check_told(struct pry_health_result *result)
{
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  pry_health_conclude(result);
  REQUIRE(pry_health_json(result, 1, &out));
  REQUIRE(pry_json_parse(pry_buffer_slice(&out), NULL) == PRY_JSON_OK);
  REQUIRE(memchr(result->code, '\0', sizeof result->code) && result->hint);
  pry_buffer_fini(&out);
}

static void check_listed(struct pry_slice bytes)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  REQUIRE(pry_buffer_append_text(&text, "{\"data\":[") && pry_buffer_append_slice(&text, bytes) &&
          pry_buffer_append_text(&text, ",{\"id\":\"a/m\\u00e9\"}]}"));
  struct pry_slice body = fuzz_copy(pry_buffer_slice(&text));
  struct pry_health_answer answer = {
      .question = PRY_ASK_LIST, .answered = true, .credential = true, .auth = PRY_AUTH_BEARER, .body = body};
  struct pry_health_result result = {.hint = ""};
  bool valid = pry_json_parse(bytes, NULL) == PRY_JSON_OK && pry_json_parse(body, NULL) == PRY_JSON_OK;
  bool ask_for_it = pry_health_judge(&result, &answer, PRY_SLICE("a/m\xC3\xA9"));
  REQUIRE(!valid || (!ask_for_it && result.model == PRY_HEALTH_GOOD && result.auth == PRY_HEALTH_GOOD));
  check_told(&result);
  fuzz_release(body);
  pry_buffer_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  if (size < 2)
    return 0;
  struct pry_slice body = fuzz_copy((struct pry_slice){(const char *)data + 2, size - 2});
  struct pry_health_answer answer = {.question = (enum pry_health_question)(data[0] & 3),
                                     .answered = data[0] & 4,
                                     .credential = data[0] & 8,
                                     .auth = data[0] & 16 ? PRY_AUTH_NONE : PRY_AUTH_BEARER,
                                     .body = body};
  struct pry_health_result result = {.hint = ""};
  pry_failure_set_category(&answer.failure, (enum pry_category)(data[1] % PRY_CATEGORY_COUNT));
  pry_failure_set_code(&answer.failure, body);
  bool ask_for_it = pry_health_judge(&result, &answer, data[0] & 32 ? (struct pry_slice){NULL, 0} : PRY_SLICE("m"));
  bool good = answer.answered && answer.failure.category == PRY_NONE;
  REQUIRE(!ask_for_it || (good && answer.question == PRY_ASK_LIST));
  check_told(&result);
  REQUIRE(!good || result.ok);
  REQUIRE(answer.answered || !result.ok);
  check_listed(body);
  fuzz_release(body);
  return 0;
}
