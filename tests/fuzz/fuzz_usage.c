/* Whatever stands around it, a usage object is found where it is: in a whole body beside any other member, and at the end
 * of a body whose beginning is anything at all. What the bytes themselves say is counted within its bounds. */
#include "fuzz.h"

#include "usage.h"

#define USAGE "\"usage\":{\"input_tokens\":12,\"output_tokens\":3,\"details\":{\"cached\":5}}}"

static void add(struct pry_usage_number *number, const char *text)
{
  REQUIRE(!pry_usage_add(number, pry_slice_of(text)));
}

static void make_usage(struct pry_usage *usage)
{
  *usage = (struct pry_usage){0};
  REQUIRE(!pry_usage_add_place(usage, PRY_SLICE("usage")));
  REQUIRE(!pry_usage_add_place(usage, PRY_SLICE("choices.*.usage")));
  REQUIRE(!pry_usage_add_place(usage, PRY_SLICE("usageMetadata")));
  add(&usage->input, "prompt_tokens");
  add(&usage->input, "input_tokens + cache_read + cache_creation");
  add(&usage->output, "output_tokens");
  add(&usage->cached, "details.cached");
  add(&usage->total, "total_tokens");
}

static void check(const struct pry_tokens *tokens)
{
  const int64_t numbers[] = {tokens->input, tokens->output, tokens->cached};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    REQUIRE(numbers[i] >= 0 && numbers[i] <= PRY_TOKENS_MAX * PRY_USAGE_PATHS_MAX && (tokens->known || !numbers[i]));
}

static void check_ours(const struct pry_tokens *tokens)
{
  REQUIRE(tokens->known && tokens->input == 12 && tokens->output == 3 && tokens->cached == 5);
}

/* The bytes, then a usage object of ours. */
static struct pry_slice beside(const char *before, struct pry_slice bytes, struct pry_buffer *out)
{
  pry_buffer_init(out, 0);
  REQUIRE(pry_buffer_append_text(out, before) && pry_buffer_append_slice(out, bytes) &&
          pry_buffer_append_text(out, "," USAGE));
  struct pry_slice copy = fuzz_copy(pry_buffer_slice(out));
  pry_buffer_fini(out);
  return copy;
}

static void check_found(const struct pry_usage *usage, struct pry_slice bytes)
{
  struct pry_tokens tokens = {0};
  struct pry_buffer text;
  struct pry_slice copy = beside("", bytes, &text);
  pry_usage_read_tail(usage, copy, &tokens);
  check_ours(&tokens);
  fuzz_release(copy);
  if (pry_json_parse(bytes, NULL) != PRY_JSON_OK)
    return;
  copy = beside("{\"a\":", bytes, &text);
  tokens = (struct pry_tokens){0};
  if (pry_json_parse(copy, NULL) == PRY_JSON_OK) { /* else it is too deep with ours around it */
    pry_usage_read(usage, copy, &tokens);
    check_ours(&tokens);
  }
  fuzz_release(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct pry_usage usage;
  struct pry_slice text = fuzz_copy((struct pry_slice){(const char *)data, size});
  struct pry_tokens whole = {0}, again = {0}, tail = {0};
  make_usage(&usage);
  pry_usage_read(&usage, text, &whole);
  pry_usage_read(&usage, text, &again);
  pry_usage_read(&usage, text, &again);
  check(&whole);
  REQUIRE(whole.known == again.known && whole.input == again.input && whole.output == again.output);
  for (size_t from = 0; from < size; from += size / 4 + 1) {
    pry_usage_read_tail(&usage, (struct pry_slice){text.data + from, size - from}, &tail);
    check(&tail);
  }
  check_found(&usage, text);
  fuzz_release(text);
  return 0;
}
