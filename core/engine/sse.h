/*
 * sse.h: reads an event stream (text/event-stream) as it arrives, and says where each event ends.
 *
 * The grammar is the WHATWG HTML standard's, "Server-sent events" §9.2.6: lines end in LF, CR or CRLF in any
 * mix, one byte order mark at the very start is skipped, comments and unknown fields are ignored, several
 * `data` lines are joined by LF, an `id` with a NUL is ignored, a block without any `data` line is no event,
 * and what the stream's end cuts off is dropped.
 *
 * Two readers in one: the policy side wants each event's fields, the relay wants its raw bytes. So the parser
 * stops behind every blank line and reports how many input bytes belong to the block it ended. A relay that
 * keeps the bytes of NEED_MORE and sends them with the next block passes the stream byte for byte.
 *
 * A CR that ends a blank line as the last byte of the input ends the block at once (waiting for a possible LF
 * would delay the event); if the next input starts with that LF, it is counted as the first byte of the next
 * block and has no meaning of its own.
 *
 * A block longer than the limit is reported once, with what was read of it up to exactly there, and its rest is
 * skipped to its end: the place in the stream is not lost, however the bytes arrive.
 *
 * Work is linear in the bytes fed, however they are split. Memory is bounded by the limit. The struct is
 * embedded in its owner; one thread at a time; no I/O, no clock.
 */
#ifndef PRY_SSE_H
#define PRY_SSE_H

#include "buffer.h"
#include "slice.h"

enum pry_sse_result {
  PRY_SSE_NEED_MORE, /* all input was taken; no block has ended in it */
  PRY_SSE_EVENT,     /* a block with data ended: an event to dispatch */
  PRY_SSE_BLOCK,     /* a block without data ended: comments, retry, id, or just an empty line */
  PRY_SSE_TOO_LARGE, /* the block is longer than the limit; its rest is skipped, and BLOCK says where it ended */
  PRY_SSE_NO_MEMORY  /* final */
};

struct pry_sse_event {
  struct pry_slice name; /* the `event` field; empty when there was none (means "message") */
  struct pry_slice data; /* without the last LF; may be empty in an event ("data:" alone) */
  struct pry_slice id;   /* the last `id` of the stream so far, empty when there was none */
  bool known;            /* the block held a field or a comment, and not only lines that mean nothing */
  long retry_ms;         /* the block's `retry` field, milliseconds; -1 when there was none */
};

struct pry_sse_parser {
  struct pry_buffer line; /* the beginning of a line whose end has not come yet */
  struct pry_buffer name;
  struct pry_buffer data;
  struct pry_buffer id;
  size_t limit;
  size_t block_size; /* bytes of the current block, the LF of a CRLF not counted */
  long retry_ms;
  bool has_data;
  bool known;
  bool at_start; /* no line has ended yet: a byte order mark may be there */
  bool after_cr; /* an LF, if it comes next, belongs to the line end already seen */
  bool reset;    /* the last feed ended a block: its fields are forgotten at the next feed */
  bool skipping; /* the rest of a block that is too large */
  bool on_line;  /* while skipping: some of the current line was there */
  enum pry_sse_result failed;
};

/* limit: the most bytes one block may have, comments and line ends included (an LF right after a CR is not
 * counted); 0 means 1 MiB. Allocates nothing yet. */
void pry_sse_init(struct pry_sse_parser *parser, size_t limit);
void pry_sse_fini(struct pry_sse_parser *parser);

/* Reads until the next block ends or the input does. `consumed` gets the number of bytes taken: up to and
 * including the end of the block, or all of them with NEED_MORE. Call again with the rest until NEED_MORE.
 * `event` is filled for EVENT and BLOCK, and for TOO_LARGE with what was read so far; its slices are valid until the
 * next feed. After NO_MEMORY every further feed says the same and takes nothing. */
enum pry_sse_result pry_sse_feed(struct pry_sse_parser *parser, struct pry_slice input, size_t *consumed,
                                 struct pry_sse_event *event);

/* True when bytes of an unfinished block have been fed: a stream that ends now was cut inside a block. */
bool pry_sse_pending(const struct pry_sse_parser *parser);

#endif
