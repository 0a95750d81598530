/*
 * stream.h: a provider's event stream on its way to the client.
 *
 * Takes bytes as they come, cuts them at event boundaries, classifies each event by the dialect's data, and
 * hands out raw bytes: first nothing (lifecycle events are held back), then, from the first content on, every whole
 * event as soon as it is complete. Bytes pass exactly as they came; nothing is merged, split or lost.
 *
 * Because only whole events are handed out, a cut stream never leaves half an event at the client, and an error
 * event can be added that its SDK understands.
 *
 * States: HOLDING → FLOWING → ENDED | FAILED. Memory: held events and one unfinished event, both bounded by
 * `hold_limit`; more held bytes than that commit the stream, an unfinished event longer than that lets the rest of the
 * stream pass without being read (OPAQUE: its end can then only be judged by the connection's).
 *
 * Embedded in its owner; the loop's thread; no clock, no I/O.
 */
#ifndef PRY_STREAM_H
#define PRY_STREAM_H

#include "dialect.h"
#include "sse.h"

enum pry_stream_state {
  PRY_STREAM_HOLDING,
  PRY_STREAM_FLOWING,
  PRY_STREAM_ENDED,
  PRY_STREAM_FAILED,
  PRY_STREAM_OPAQUE
};

struct pry_stream {
  const struct pry_dialect *dialect;
  struct pry_sse_parser parser;
  struct pry_buffer held;  /* bytes not handed out yet: whole blocks, then the unfinished one */
  struct pry_buffer given; /* what was handed out of `held` while some of it stayed */
  size_t whole;            /* bytes of whole blocks in `held` */
  size_t hold_limit;
  enum pry_stream_state state;
  bool committed;           /* bytes may go to the client */
  bool finished;            /* a finish marker was seen: EOF is a clean end */
  struct pry_tokens tokens; /* what its events have said so far */
};

/* What one step found. */
enum pry_stream_step {
  PRY_STREAM_MORE,   /* everything was taken */
  PRY_STREAM_OUTPUT, /* `out` may go to the client now */
  PRY_STREAM_BROKEN, /* an error event; `type` and `data` say what; before the commit `out` is empty, else its raw bytes */
  PRY_STREAM_NO_MEMORY
};

struct pry_stream_output {
  struct pry_slice out;        /* valid until the next step */
  struct pry_slice type, data; /* of the error event, with BROKEN; valid until the next step */
};

void pry_stream_init(struct pry_stream *stream, const struct pry_dialect *dialect, size_t hold_limit);
void pry_stream_fini(struct pry_stream *stream);

/* Takes from the front of `input` (which is shortened) until there is something to tell. Call until MORE. After
 * BROKEN and NO_MEMORY the stream takes nothing more. */
enum pry_stream_step pry_stream_feed(struct pry_stream *stream, struct pry_slice *input,
                                     struct pry_stream_output *output);

/* The connection ended well. True: so did the stream (end marker, finish marker, or opaque). What is still held of a
 * clean end comes out in `out`. */
bool pry_stream_finish(struct pry_stream *stream, struct pry_slice *out);

#endif
