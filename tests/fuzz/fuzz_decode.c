/* What is decoded must not depend on how the bytes arrive, comes in bounded pieces, and is never much more than what
 * came in. The first byte chooses the coding and the size of the pieces. */
#include "fuzz.h"

#include "decode.h"

/* Decodes in pieces of `step` bytes. */
static enum pry_decode_result run(enum pry_coding coding, struct pry_slice input, size_t step, struct pry_buffer *out)
{
  struct pry_decoder *decoder = pry_decoder_new(coding);
  enum pry_decode_result result = PRY_DECODE_MORE;
  REQUIRE(decoder);
  pry_buffer_init(out, 0);
  for (size_t at = 0; at < input.size && result != PRY_DECODE_BAD; at += step) {
    struct pry_slice copy =
        fuzz_copy((struct pry_slice){input.data + at, input.size - at < step ? input.size - at : step});
    struct pry_slice rest = copy, piece;
    while ((result = pry_decode(decoder, &rest, &piece)) == PRY_DECODE_OUTPUT) {
      REQUIRE(piece.size > 0 && piece.size <= PRY_DECODE_PIECE);
      REQUIRE(pry_buffer_append_slice(out, piece));
    }
    REQUIRE(result != PRY_DECODE_NO_MEMORY);
    REQUIRE(result == PRY_DECODE_BAD || rest.size == 0);
    fuzz_release(copy);
  }
  pry_decoder_free(decoder);
  return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  if (size < 2)
    return 0;
  enum pry_coding coding = data[0] & 1 ? PRY_CODING_GZIP : PRY_CODING_DEFLATE;
  struct pry_slice input = {(const char *)data + 1, size - 1};
  struct pry_buffer whole, pieces, text;
  enum pry_decode_result at_once = run(coding, input, input.size, &whole);
  enum pry_decode_result in_pieces = run(coding, input, (size_t)(data[0] >> 1) + 1, &pieces);
  REQUIRE(whole.size <= PRY_DECODE_FREE + PRY_DECODE_PIECE + input.size * (PRY_DECODE_RATIO + 1));
  if (whole.size < PRY_DECODE_FREE && pieces.size < PRY_DECODE_FREE) { /* else when a bomb is noticed depends on them */
    REQUIRE(at_once == in_pieces);
    REQUIRE(pry_slice_equal(pry_buffer_slice(&whole), pry_buffer_slice(&pieces)));
  }
  pry_buffer_init(&text, 1000);
  enum pry_decode_whole result = pry_decode_text(coding, input, &text);
  REQUIRE(result != PRY_DECODE_FAILED && text.size <= 1000 && text.size <= whole.size);
  REQUIRE(result != PRY_DECODED || (at_once == PRY_DECODE_END && text.size == whole.size));
  REQUIRE(!text.size || memcmp(text.data, whole.data, text.size) == 0);
  pry_buffer_fini(&text);
  pry_buffer_fini(&whole);
  pry_buffer_fini(&pieces);
  return 0;
}
