/* Whatever the bytes, whole and cut: texts end in their places, a wait is a number, a page names no codes, and reading
 * twice says the same. */
#include "fuzz.h"

#include "error_body.h"

static void check_text(const char *text, size_t size)
{
  REQUIRE(memchr(text, '\0', size) != NULL);
}

static void check(const struct pry_error_body *error)
{
  check_text(error->code, sizeof error->code);
  check_text(error->type, sizeof error->type);
  check_text(error->state, sizeof error->state);
  check_text(error->inner, sizeof error->inner);
  check_text(error->reason, sizeof error->reason);
  check_text(error->quota, sizeof error->quota);
  check_text(error->message, sizeof error->message);
  REQUIRE(error->wait == -1 || error->wait >= 0);
  REQUIRE(!(error->html && error->cut));
  REQUIRE(!error->html || (!error->code[0] && !error->type[0]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct pry_slice body = fuzz_copy((struct pry_slice){(const char *)data, size});
  struct pry_error_body error, again;
  pry_error_body_read(&error, body);
  pry_error_body_read(&again, body);
  check(&error);
  REQUIRE(strcmp(error.code, again.code) == 0 && strcmp(error.message, again.message) == 0);
  fuzz_release(body);
  struct pry_slice half = fuzz_copy((struct pry_slice){(const char *)data, size / 2});
  pry_error_body_read(&error, half);
  check(&error);
  fuzz_release(half);
  return 0;
}
