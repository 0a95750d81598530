#include "decode.h"

#include <stdint.h>
#include <stdlib.h>
#include <zlib.h>

enum { WINDOW_ZLIB = 15, WINDOW_RAW = -15, WINDOW_GZIP = 15 + 16 };

struct pry_decoder {
  z_stream stream;
  enum pry_coding coding;
  bool begun, ended, bad;
  uint64_t taken, made; /* bytes in and out; zlib's own counts begin anew with each member of a gzip */
  unsigned char piece[PRY_DECODE_PIECE];
};

/* ---- which coding ------------------------------------------------------------------------------------- */

static enum pry_coding coding_named(struct pry_slice name)
{
  if (!name.size || pry_slice_equal_nocase(name, PRY_SLICE("identity")))
    return PRY_CODING_NONE;
  if (pry_slice_equal_nocase(name, PRY_SLICE("gzip")) || pry_slice_equal_nocase(name, PRY_SLICE("x-gzip")))
    return PRY_CODING_GZIP;
  return pry_slice_equal_nocase(name, PRY_SLICE("deflate")) ? PRY_CODING_DEFLATE : PRY_CODING_UNKNOWN;
}

static enum pry_coding with(enum pry_coding before, enum pry_coding next)
{
  if (next == PRY_CODING_NONE)
    return before;
  return before == PRY_CODING_NONE ? next : PRY_CODING_UNKNOWN;
}

enum pry_coding pry_coding_of(const struct pry_headers *headers)
{
  enum pry_coding coding = PRY_CODING_NONE;
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    if (!pry_slice_equal_nocase(line.name, PRY_SLICE("content-encoding")))
      continue;
    struct pry_slice left = line.value;
    while (left.size) {
      const char *comma = memchr(left.data, ',', left.size);
      size_t size = comma ? (size_t)(comma - left.data) : left.size;
      coding = with(coding, coding_named(pry_slice_trim((struct pry_slice){left.data, size})));
      size += comma != NULL;
      left = (struct pry_slice){left.data + size, left.size - size};
    }
  }
  return coding;
}

/* ---- piece by piece ------------------------------------------------------------------------------------- */

struct pry_decoder *pry_decoder_new(enum pry_coding coding)
{
  struct pry_decoder *decoder = calloc(1, sizeof *decoder);
  if (!decoder)
    return NULL;
  decoder->coding = coding;
  if (inflateInit2(&decoder->stream, coding == PRY_CODING_GZIP ? WINDOW_GZIP : WINDOW_ZLIB) == Z_OK)
    return decoder;
  free(decoder);
  return NULL;
}

void pry_decoder_free(struct pry_decoder *decoder)
{
  if (!decoder)
    return;
  inflateEnd(&decoder->stream);
  free(decoder);
}

/* Some senders leave the zlib wrapper out. Its first byte names the method 8 and a window of at most 32 KiB
 * (RFC 1950 §2.2); a raw stream that begins so begins with a stored block, which nobody sends for text. */
static void choose_wrapper(struct pry_decoder *decoder, struct pry_slice input)
{
  if (decoder->begun || !input.size)
    return;
  decoder->begun = true;
  unsigned char first = (unsigned char)input.data[0];
  if (decoder->coding == PRY_CODING_DEFLATE && ((first & 0x0F) != 8 || first >> 4 > 7))
    decoder->bad = inflateReset2(&decoder->stream, WINDOW_RAW) != Z_OK;
}

/* RFC 1952 §2.2: a gzip file may have several members. */
static void begin_next_member(struct pry_decoder *decoder)
{
  decoder->bad = decoder->coding != PRY_CODING_GZIP || inflateReset(&decoder->stream) != Z_OK;
  decoder->ended = false;
}

static bool is_bomb(const struct pry_decoder *decoder)
{
  return decoder->made > PRY_DECODE_FREE && decoder->made / PRY_DECODE_RATIO > decoder->taken;
}

static enum pry_decode_result step(struct pry_decoder *decoder, struct pry_slice *input, struct pry_slice *out)
{
  z_stream *stream = &decoder->stream;
  size_t most = input->size < PRY_DECODE_PIECE ? input->size : PRY_DECODE_PIECE;
  stream->next_in = (Bytef *)(uintptr_t)input->data; /* zlib does not write there */
  stream->avail_in = (uInt)most;
  stream->next_out = decoder->piece;
  stream->avail_out = PRY_DECODE_PIECE;
  int code = inflate(stream, Z_NO_FLUSH);
  size_t took = most - stream->avail_in;
  if (took)
    *input = (struct pry_slice){input->data + took, input->size - took};
  *out = (struct pry_slice){(const char *)decoder->piece, PRY_DECODE_PIECE - stream->avail_out};
  decoder->taken += took;
  decoder->made += out->size;
  decoder->ended = code == Z_STREAM_END;
  if (code == Z_MEM_ERROR)
    return PRY_DECODE_NO_MEMORY;
  decoder->bad = (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) || is_bomb(decoder);
  if (out->size)
    return PRY_DECODE_OUTPUT; /* what came before a break is given first */
  return decoder->bad ? PRY_DECODE_BAD : PRY_DECODE_MORE;
}

enum pry_decode_result pry_decode(struct pry_decoder *decoder, struct pry_slice *input, struct pry_slice *out)
{
  *out = (struct pry_slice){NULL, 0};
  choose_wrapper(decoder, *input);
  for (;;) {
    if (decoder->ended && input->size && !decoder->bad)
      begin_next_member(decoder);
    if (decoder->bad)
      return PRY_DECODE_BAD;
    if (decoder->ended)
      return PRY_DECODE_END;
    size_t before = input->size;
    enum pry_decode_result result = step(decoder, input, out);
    if (result != PRY_DECODE_MORE || (!decoder->ended && (!input->size || input->size == before)))
      return result;
  }
}

/* ---- whole texts ----------------------------------------------------------------------------------------- */

static enum pry_decode_whole decode_all(struct pry_decoder *decoder, struct pry_slice text, struct pry_buffer *out)
{
  for (;;) {
    struct pry_slice piece;
    switch (pry_decode(decoder, &text, &piece)) {
    case PRY_DECODE_OUTPUT:
      if (piece.size > out->limit - out->size)
        return pry_buffer_append(out, piece.data, out->limit - out->size) ? PRY_DECODED_PART : PRY_DECODE_FAILED;
      if (!pry_buffer_append_slice(out, piece))
        return PRY_DECODE_FAILED;
      break;
    case PRY_DECODE_MORE:
      return PRY_DECODED_PART;
    case PRY_DECODE_END:
      return PRY_DECODED;
    case PRY_DECODE_BAD:
      return PRY_DECODE_BROKEN;
    case PRY_DECODE_NO_MEMORY:
      return PRY_DECODE_FAILED;
    }
  }
}

enum pry_decode_whole pry_decode_text(enum pry_coding coding, struct pry_slice text, struct pry_buffer *out)
{
  if (coding == PRY_CODING_UNKNOWN)
    return PRY_DECODE_BROKEN;
  if (coding == PRY_CODING_NONE) {
    size_t most = text.size < out->limit - out->size ? text.size : out->limit - out->size;
    if (!pry_buffer_append(out, text.data, most))
      return PRY_DECODE_FAILED;
    return most < text.size ? PRY_DECODED_PART : PRY_DECODED;
  }
  struct pry_decoder *decoder = pry_decoder_new(coding);
  if (!decoder)
    return PRY_DECODE_FAILED;
  enum pry_decode_whole result = decode_all(decoder, text, out);
  pry_decoder_free(decoder);
  return result;
}
