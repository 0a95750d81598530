/* The readers must agree on what is valid, spans must lie in the text and be JSON themselves, and changing the model
 * must give a text whose model is the new one and whose other bytes are the old ones. */
#include "fuzz.h"

#include "json.h"

static void check_within(struct pry_slice part, struct pry_slice whole)
{
  REQUIRE(part.data >= whole.data && part.size <= whole.size &&
          (size_t)(part.data - whole.data) <= whole.size - part.size);
}

/* Decoding, escaping and decoding again gives the same text, as far as it is UTF-8 (escaping repairs the rest). */
static void check_string(struct pry_slice raw)
{
  struct pry_buffer decoded, escaped, again;
  pry_buffer_init(&decoded, 0);
  pry_buffer_init(&escaped, 0);
  pry_buffer_init(&again, 0);
  REQUIRE(pry_json_string(raw, &decoded));
  REQUIRE(pry_json_equals(raw, pry_buffer_slice(&decoded)));
  REQUIRE(decoded.size + 2 <= raw.size);
  REQUIRE(pry_buffer_append_text(&escaped, "\"") && pry_buffer_append_json(&escaped, pry_buffer_slice(&decoded)) &&
          pry_buffer_append_text(&escaped, "\""));
  REQUIRE(pry_json_parse(pry_buffer_slice(&escaped), NULL) == PRY_JSON_OK);
  REQUIRE(pry_json_string(pry_buffer_slice(&escaped), &again));
  if (again.size && !memmem(again.data, again.size, "\xEF\xBF\xBD", 3)) /* nothing had to be replaced */
    REQUIRE(pry_slice_equal(pry_buffer_slice(&again), pry_buffer_slice(&decoded)));
  REQUIRE(pry_json_equals(pry_buffer_slice(&escaped), pry_buffer_slice(&again)));
  pry_buffer_fini(&decoded);
  pry_buffer_fini(&escaped);
  pry_buffer_fini(&again);
}

static void check_value(struct pry_slice text, struct pry_json_value value)
{
  struct pry_json_value again;
  check_within(value.raw, text);
  REQUIRE(pry_json_parse(value.raw, &again) == PRY_JSON_OK);
  REQUIRE(again.type == value.type && pry_slice_equal(again.raw, value.raw));
  double number;
  int64_t integer;
  bool is_integer = pry_json_integer(value.raw, &integer);
  if (value.type == PRY_JSON_STRING)
    check_string(value.raw);
  if (value.type != PRY_JSON_NUMBER)
    REQUIRE(!is_integer && !pry_json_number(value.raw, &number));
  else if (is_integer && value.raw.size < 15 && pry_json_number(value.raw, &number))
    REQUIRE(number == (double)integer);
}

/* The walk and the whole-text check must say the same; returns what they say. */
static enum pry_json_result check_walk(struct pry_slice text)
{
  struct pry_json_value whole, value;
  enum pry_json_result result = pry_json_parse(text, &whole);
  struct pry_json_iterator iterator;
  struct pry_slice key;
  pry_json_iterate(&iterator, text);
  while (pry_json_next(&iterator, &key, &value)) {
    check_value(text, value);
    REQUIRE((iterator.type == PRY_JSON_OBJECT) == (key.size > 0));
    if (key.size)
      check_string(key);
  }
  if (iterator.result == PRY_JSON_NOT_OBJECT)
    REQUIRE(result == PRY_JSON_OK && whole.type != PRY_JSON_OBJECT && whole.type != PRY_JSON_ARRAY);
  else
    REQUIRE(iterator.result == result);
  if (result == PRY_JSON_OK)
    check_within(whole.raw, text);
  return result;
}

static void check_splice(struct pry_slice text)
{
  static const char model[] = "new/\"model\"\n";
  struct pry_json_request request, changed;
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  enum pry_json_result result = pry_json_request(text, &request);
  enum pry_json_result spliced = pry_json_splice_model(text, PRY_SLICE(model), &out);
  if (result == PRY_JSON_OK && request.model.type != PRY_JSON_NONE) {
    REQUIRE(spliced == PRY_JSON_OK);
    REQUIRE(pry_json_request(pry_buffer_slice(&out), &changed) == PRY_JSON_OK);
    REQUIRE(pry_json_equals(changed.model.raw, PRY_SLICE(model)));
    REQUIRE(changed.stream.type == request.stream.type);
    size_t head = (size_t)(request.model.raw.data - text.data);
    size_t tail = text.size - head - request.model.raw.size;
    REQUIRE(out.size == head + changed.model.raw.size + tail);
    REQUIRE(memcmp(out.data, text.data, head) == 0);
    REQUIRE(memcmp(out.data + out.size - tail, text.data + text.size - tail, tail) == 0);
  } else {
    REQUIRE(spliced == (result == PRY_JSON_OK ? PRY_JSON_NOT_FOUND : result));
    REQUIRE(out.size == 0);
  }
  if (result == PRY_JSON_DUPLICATE)
    REQUIRE(request.duplicate);
  pry_buffer_fini(&out);
}

static void check_paths(struct pry_slice text)
{
  static const char *const texts[] = {"error.message", "choices.*.delta.content", "choices.*.delta.!role", "model", "*",
                                      "*.0.!a",        "*.*.*.*.*.*.*.*"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct pry_json_path path;
    struct pry_json_value value;
    REQUIRE(!pry_json_path_compile(&path, pry_slice_of(texts[i])));
    bool found = pry_json_find(text, &path, &value);
    REQUIRE(found == (value.type != PRY_JSON_NONE));
    if (found)
      check_value(text, value);
    REQUIRE(found || !pry_json_match_content(text, &path));
  }
  struct pry_json_path path;
  if (!pry_json_path_compile(&path, text))
    pry_json_find(text, &path, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct pry_slice text = fuzz_copy((struct pry_slice){(const char *)data, size});
  enum pry_json_result result = check_walk(text);
  struct pry_json_request request;
  enum pry_json_result asked = pry_json_request(text, &request);
  REQUIRE(asked == result || asked == PRY_JSON_NOT_OBJECT || asked == PRY_JSON_DUPLICATE);
  check_splice(text);
  check_paths(text);
  fuzz_release(text);
  return 0;
}
