/* What a stream hands out must be a beginning of its input, never half an event, and not depend on how the bytes arrive.
 * The first byte chooses the size of the pieces. */
#include "fuzz.h"

#include "stream.h"

static const char *const end_data[] = {"[DONE]"};
static const char *const error_types[] = {"error"};
static const char *const content_types[] = {"delta"};

static struct pry_dialect make_dialect(void)
{
  struct pry_dialect dialect = {.name = "fuzz",
                                .type_field = "type",
                                .default_lifecycle = true,
                                .end_data = {end_data, 1},
                                .error_types = {error_types, 1},
                                .content_types = {content_types, 1}};
  dialect.error_in_data.items[0].name = "error";
  dialect.error_in_data.count = 1;
  REQUIRE(!pry_json_path_compile(&dialect.content_paths.items[0], PRY_SLICE("choices.*.delta.content")));
  dialect.content_paths.count = 1;
  return dialect;
}

struct outcome {
  struct pry_buffer out;
  bool broken, clean;
};

static struct outcome run(const struct pry_dialect *dialect, struct pry_slice text, size_t size)
{
  struct outcome outcome = {0};
  struct pry_stream stream;
  pry_buffer_init(&outcome.out, 0);
  pry_stream_init(&stream, dialect, 512);
  for (size_t at = 0; at < text.size && !outcome.broken; at += size) {
    struct pry_slice input = {text.data + at, at + size <= text.size ? size : text.size - at};
    struct pry_slice copy = fuzz_copy(input), rest = copy;
    struct pry_stream_output output;
    enum pry_stream_step step;
    while ((step = pry_stream_feed(&stream, &rest, &output)) != PRY_STREAM_MORE && !outcome.broken) {
      REQUIRE(step != PRY_STREAM_NO_MEMORY);
      REQUIRE(step != PRY_STREAM_OUTPUT || (stream.committed && output.out.size));
      REQUIRE(pry_buffer_append_slice(&outcome.out, output.out));
      outcome.broken = step == PRY_STREAM_BROKEN || step == PRY_STREAM_MALFORMED;
      REQUIRE(step != PRY_STREAM_MALFORMED || !output.out.size);
    }
    fuzz_release(copy);
  }
  struct pry_stream_output last = {0};
  REQUIRE(stream.held.size <= 2 * 512 + size);
  outcome.clean = !outcome.broken && pry_stream_finish(&stream, true, &last) == PRY_STREAM_CLEAN;
  REQUIRE(pry_buffer_append_slice(&outcome.out, last.out));
  pry_stream_fini(&stream);
  return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  if (size < 1 || size > 16 * 1024)
    return 0;
  struct pry_dialect dialect = make_dialect();
  dialect.json = data[0] & 0x80;
  struct pry_slice text = {(const char *)data + 1, size - 1};
  struct outcome whole = run(&dialect, text, text.size ? text.size : 1);
  struct outcome pieces = run(&dialect, text, data[0] % 64 + 1u);
  REQUIRE(whole.out.size <= text.size && (!whole.out.size || memcmp(whole.out.data, text.data, whole.out.size) == 0));
  REQUIRE(pieces.out.size <= text.size &&
          (!pieces.out.size || memcmp(pieces.out.data, text.data, pieces.out.size) == 0));
  REQUIRE(whole.broken == pieces.broken && whole.clean == pieces.clean);
  /* The LF of a CRLF whose CR came alone belongs to the next block, which may be cut off. */
  size_t difference = whole.out.size - pieces.out.size;
  REQUIRE(difference == 0 || (difference == 1 && text.data[pieces.out.size] == '\n'));
  pry_buffer_fini(&whole.out);
  pry_buffer_fini(&pieces.out);
  return 0;
}
