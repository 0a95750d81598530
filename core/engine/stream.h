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
 * States: HOLDING → FLOWING → ENDED | FAILED. What comes after the end marker passes unjudged.
 *
 * How a stream may end:
 *   clean          an end marker, or a finish marker and then the connection's end between two events. A stream without
 *                  any content is clean, too, if one of these came: the provider has said that this was all. Where
 *                  the dialect knows neither marker, the connection's end is the stream's.
 *   unterminated   the connection ended well and none of these came: nobody knows what is missing
 *   cut            the connection broke, or ended inside an event
 *   malformed      an event that is no JSON where the dialect has nothing else, an event longer than
 *                  PRY_STREAM_EVENT_MAX, or no event stream at all
 *   an error       that the provider reported in the stream, or instead of one
 *
 * Memory: held events and one unfinished event, each bounded by `hold_limit`; more bytes of held events than that commit
 * the stream. An event longer than that (an image in base64) is judged by its beginning and passes in pieces; the next one
 * is read as usual.
 *
 * Embedded in its owner; the loop's thread; no clock, no I/O.
 */
#ifndef PRY_STREAM_H
#define PRY_STREAM_H

#include "dialect.h"
#include "failure.h"
#include "sse.h"

#include <stdint.h>

enum { PRY_STREAM_EVENT_MAX = 16 * 1024 * 1024 };

enum pry_stream_state { PRY_STREAM_HOLDING, PRY_STREAM_FLOWING, PRY_STREAM_ENDED, PRY_STREAM_FAILED };

/* Told of every whole event that was read, with what it means; of one that is too long its beginning. */
typedef void (*pry_stream_observe_fn)(void *user, const struct pry_sse_event *event, enum pry_stream_class meaning,
                                      bool whole);

struct pry_stream {
  const struct pry_dialect *dialect;
  struct pry_sse_parser parser;
  struct pry_buffer held; /* bytes not handed out yet: whole blocks, then the unfinished one */
  size_t hold_limit;
  enum pry_stream_state state;
  bool committed;           /* bytes may go to the client */
  bool finished;            /* a finish marker was seen: EOF is a clean end */
  struct pry_tokens tokens; /* what its events have said so far */
  bool inside;              /* an event too long to be held is on its way: what was given last is no event boundary */
  size_t passed;            /* bytes of it */
  uint64_t news;            /* events so far that were content or an end */
  bool any;                 /* an event or a comment was read */
  pry_stream_observe_fn observe; /* may be NULL; set after init */
  void *observer;
};

/* What one step found. */
enum pry_stream_step {
  PRY_STREAM_MORE,   /* everything was taken */
  PRY_STREAM_OUTPUT, /* `out` may go to the client now */
  PRY_STREAM_BROKEN, /* an error event; `type` and `data` say what; before the commit `out` is empty, else its raw bytes */
  PRY_STREAM_MALFORMED, /* no event stream that a client could read; nothing of what is wrong is in `out` */
  PRY_STREAM_NO_MEMORY
};

struct pry_stream_output {
  struct pry_slice out;        /* valid until the next step */
  struct pry_slice type, data; /* of the error event, with BROKEN; valid until the next step */
};

void pry_stream_init(struct pry_stream *stream, const struct pry_dialect *dialect, size_t hold_limit);
void pry_stream_fini(struct pry_stream *stream);

/* Takes from the front of `input` (which is shortened) until there is something to tell. Call until MORE. After
 * BROKEN, MALFORMED and NO_MEMORY the stream takes nothing more. */
enum pry_stream_step pry_stream_feed(struct pry_stream *stream, struct pry_slice *input,
                                     struct pry_stream_output *output);

/* What the end of the connection makes of the stream. */
enum pry_stream_ending {
  PRY_STREAM_CLEAN,        /* what is still held is in `out`, and the stream is committed */
  PRY_STREAM_CUT,          /* inside an event */
  PRY_STREAM_UNTERMINATED, /* without an end or finish marker */
  PRY_STREAM_UNREADABLE,   /* it was no event stream at all */
  PRY_STREAM_REPORTED,     /* an error report: the last event, which lacked its blank line, or a plain body instead of
                            * events; in `type` and `data`, not to be passed on as it is */
  PRY_STREAM_LOST          /* memory was short */
};

/* The connection ended well (`whole`), or broke. Once, after the last feed, unless that had ended the stream. */
enum pry_stream_ending pry_stream_finish(struct pry_stream *stream, bool whole, struct pry_stream_output *output);

/* The failures that parry itself finds in a stream, with their codes. `sent` is set. */
enum pry_stream_fault {
  PRY_STREAM_FAULT_CUT,          /* network, "stream_cut" */
  PRY_STREAM_FAULT_UNTERMINATED, /* network, "stream_unterminated" */
  PRY_STREAM_FAULT_STALLED,      /* timeout, "stream_stalled": nothing within the idle timeout */
  PRY_STREAM_FAULT_TOO_SLOW,     /* timeout, "stream_too_slow": fewer events than the route's slow_stream asks for */
  PRY_STREAM_FAULT_MALFORMED     /* server, "stream_malformed" */
};
struct pry_failure pry_stream_failure(enum pry_stream_fault fault);

#endif
