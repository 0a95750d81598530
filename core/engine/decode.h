/*
 * decode.h: reading an answer that a provider encoded although it was asked not to.
 *
 * We send `Accept-Encoding: identity`, so a coding (RFC 9110 §8.4) is a provider's own idea, and perhaps an attack. It
 * must not hide an error from the policies, nor a secret from the scrubber, nor the events of a stream. What the call
 * does with each kind (call_receive.c):
 *
 *   error body        decoded whole, within the hold limit; classified, scrubbed, and given to the client without
 *                     Content-Encoding. Coding unknown, body broken or too long: the client gets parry's rendering.
 *   good held body    decoded to look for an error in it; then passed on byte for byte, coding and all. A body that
 *                     is longer than the hold limit, encoded or decoded, passes unread as a plain one does. A broken
 *                     one is a failure, and so can be tried again.
 *   event stream      decoded while it is relayed, Content-Encoding dropped, so that commit point and error events
 *                     work. Of an unknown coding: passed on unread from the first byte.
 *
 * Known: gzip (x-gzip, several members) and deflate (with the zlib wrapper of RFC 1950 that it should have, or without).
 * Everything else, `br` and two codings on top of each other included, is unknown.
 *
 * Against bombs: output comes in pieces of at most PRY_DECODE_PIECE bytes and only as its reader asks for it; beyond
 * PRY_DECODE_FREE bytes an output more than PRY_DECODE_RATIO times its input is refused as broken. One decoder takes
 * about 60 KB.
 *
 * One thread at a time; no clock, no I/O.
 */
#ifndef PRY_DECODE_H
#define PRY_DECODE_H

#include "buffer.h"
#include "headers.h"

enum { PRY_DECODE_PIECE = 16 * 1024, PRY_DECODE_FREE = 1024 * 1024, PRY_DECODE_RATIO = 200 };

enum pry_coding { PRY_CODING_NONE, PRY_CODING_GZIP, PRY_CODING_DEFLATE, PRY_CODING_UNKNOWN };

/* What the Content-Encoding fields of a head say, all lines together. `identity` counts for nothing. */
enum pry_coding pry_coding_of(const struct pry_headers *headers);

struct pry_decoder;

enum pry_decode_result {
  PRY_DECODE_OUTPUT, /* `out` is the next piece, valid until the next step */
  PRY_DECODE_MORE,   /* all input was taken, more is needed */
  PRY_DECODE_END,    /* the encoded text ended with the input */
  PRY_DECODE_BAD,    /* broken, goes on behind its end, or a bomb; final */
  PRY_DECODE_NO_MEMORY
};

/* For gzip and deflate only. NULL: no memory. */
struct pry_decoder *pry_decoder_new(enum pry_coding coding);
void pry_decoder_free(struct pry_decoder *decoder); /* NULL is fine */

/* Takes from the front of `input` (which is shortened) until there is a piece of output. Call until it says something
 * other than OUTPUT; the last piece may come with an empty input. */
enum pry_decode_result pry_decode(struct pry_decoder *decoder, struct pry_slice *input, struct pry_slice *out);

enum pry_decode_whole {
  PRY_DECODED,       /* `out` is the whole text */
  PRY_DECODED_PART,  /* longer than out->limit, or cut short: `out` is its beginning */
  PRY_DECODE_BROKEN, /* `out` is what came before the break; of an unknown coding: nothing */
  PRY_DECODE_FAILED  /* memory */
};

/* Decodes what is there of a text into `out`, whose limit must not be 0. NONE copies. */
enum pry_decode_whole pry_decode_text(enum pry_coding coding, struct pry_slice text, struct pry_buffer *out);

#endif
