#include "stream.h"

void pry_stream_init(struct pry_stream *stream, const struct pry_dialect *dialect, size_t hold_limit)
{
  *stream = (struct pry_stream){.dialect = dialect, .hold_limit = hold_limit};
  /* One less: buffers keep a byte for a NUL, and would be twice as large for it. */
  pry_sse_init(&stream->parser, hold_limit > 1 ? hold_limit - 1 : hold_limit);
  pry_buffer_init(&stream->held, 0);
}

void pry_stream_fini(struct pry_stream *stream)
{
  pry_sse_fini(&stream->parser);
  pry_buffer_fini(&stream->held);
}

static struct pry_slice take_front(struct pry_slice *input, size_t size)
{
  struct pry_slice front = {input->data, size};
  input->data += size;
  input->size -= size;
  return front;
}

/* Bytes that end a block: what was held before them goes out with them, without a copy when nothing was. */
static enum pry_stream_step hand_out(struct pry_stream *stream, struct pry_slice bytes,
                                     struct pry_stream_output *output)
{
  if (!stream->held.size) {
    output->out = bytes;
    return bytes.size ? PRY_STREAM_OUTPUT : PRY_STREAM_MORE;
  }
  if (!pry_buffer_append_slice(&stream->held, bytes))
    return PRY_STREAM_NO_MEMORY;
  output->out = pry_buffer_slice(&stream->held);
  pry_buffer_clear(&stream->held); /* the bytes stay in place until the next append */
  return PRY_STREAM_OUTPUT;
}

/* Without the last LF of a CRLF, which may come with the next piece. */
static size_t held_size(const struct pry_stream *stream)
{
  const struct pry_buffer *held = &stream->held;
  return held->size > 1 && memcmp(held->data + held->size - 2, "\r\n", 2) == 0 ? held->size - 1 : held->size;
}

/* `ends`: the bytes end a block. Only then is it looked whether too much is held, or it would depend on how the bytes
 * arrive whether an error behind them can still be recovered. */
static enum pry_stream_step hold(struct pry_stream *stream, struct pry_slice bytes, bool ends,
                                 struct pry_stream_output *output)
{
  if (!pry_buffer_append_slice(&stream->held, bytes))
    return PRY_STREAM_NO_MEMORY;
  if (!ends || stream->committed || held_size(stream) <= stream->hold_limit)
    return PRY_STREAM_MORE;
  stream->committed = true;
  stream->state = PRY_STREAM_FLOWING;
  return hand_out(stream, PRY_SLICE(""), output);
}

static enum pry_stream_step broken(struct pry_stream *stream, struct pry_slice bytes, const struct pry_sse_event *event,
                                   struct pry_stream_output *output)
{
  stream->state = PRY_STREAM_FAILED;
  output->type = event->name;
  output->data = event->data;
  if (stream->committed && hand_out(stream, bytes, output) == PRY_STREAM_NO_MEMORY)
    return PRY_STREAM_NO_MEMORY;
  return PRY_STREAM_BROKEN;
}

static void tell(const struct pry_stream *stream, const struct pry_sse_event *event, enum pry_stream_class meaning,
                 bool whole)
{
  if (stream->observe)
    stream->observe(stream->observer, event, meaning, whole);
}

static enum pry_stream_step malformed(struct pry_stream *stream)
{
  stream->state = PRY_STREAM_FAILED;
  return PRY_STREAM_MALFORMED;
}

static void take_meaning(struct pry_stream *stream, enum pry_stream_class meaning, bool finish)
{
  stream->finished = stream->finished || finish;
  if (meaning == PRY_STREAM_LIFECYCLE)
    return;
  stream->news++;
  stream->committed = true;
  stream->state = meaning == PRY_STREAM_END ? PRY_STREAM_ENDED : PRY_STREAM_FLOWING;
}

static enum pry_stream_step on_event(struct pry_stream *stream, struct pry_slice bytes,
                                     const struct pry_sse_event *event, struct pry_stream_output *output)
{
  bool finish = false;
  stream->any = true;
  if (stream->state == PRY_STREAM_ENDED) {
    tell(stream, event, PRY_STREAM_LIFECYCLE, true);
    return hand_out(stream, bytes, output);
  }
  pry_usage_read(&stream->dialect->usage, event->data, &stream->tokens);
  enum pry_stream_class meaning = pry_dialect_stream_class(stream->dialect, event->name, event->data, &finish);
  tell(stream, event, meaning, true);
  if (meaning == PRY_STREAM_ERROR)
    return broken(stream, bytes, event, output);
  if (meaning == PRY_STREAM_NONSENSE && !stream->finished)
    return malformed(stream);
  if (meaning == PRY_STREAM_NONSENSE) /* all there was to say is said: somebody's own end marker */
    meaning = PRY_STREAM_LIFECYCLE;
  take_meaning(stream, meaning, finish);
  return stream->committed ? hand_out(stream, bytes, output) : hold(stream, bytes, true, output);
}

/* Its end is not there, so it cannot be judged as JSON; its type and its first members stand at the beginning. Nobody
 * sends so much to say nothing. */
static enum pry_stream_step on_long_event(struct pry_stream *stream, struct pry_slice bytes,
                                          const struct pry_sse_event *event, struct pry_stream_output *output)
{
  bool finish = false;
  if (!event->known)
    return malformed(stream); /* this much without a single field is a page, or noise */
  struct pry_dialect lenient = *stream->dialect;
  lenient.json = false;
  enum pry_stream_class meaning = pry_dialect_stream_class(&lenient, event->name, event->data, &finish);
  stream->any = true;
  if (stream->state == PRY_STREAM_ENDED)
    meaning = PRY_STREAM_END;
  tell(stream, event, meaning, false);
  if (meaning == PRY_STREAM_ERROR) { /* what is passed on must be whole */
    stream->state = PRY_STREAM_FAILED;
    output->type = event->name;
    output->data = event->data;
    return PRY_STREAM_BROKEN;
  }
  take_meaning(stream, meaning == PRY_STREAM_END ? meaning : PRY_STREAM_CONTENT, finish);
  stream->inside = true;
  stream->passed = stream->parser.limit;
  return hand_out(stream, bytes, output);
}

/* More of a long event, or its end. */
static enum pry_stream_step pass(struct pry_stream *stream, struct pry_slice bytes, bool ends,
                                 struct pry_stream_output *output)
{
  stream->inside = !ends;
  stream->passed += bytes.size;
  if (stream->passed > PRY_STREAM_EVENT_MAX && stream->state != PRY_STREAM_ENDED) {
    stream->inside = true; /* even if this was its end: it is not given */
    return malformed(stream);
  }
  return hand_out(stream, bytes, output);
}

static enum pry_stream_step on_block(struct pry_stream *stream, struct pry_slice bytes,
                                     struct pry_stream_output *output)
{
  return stream->committed ? hand_out(stream, bytes, output) : hold(stream, bytes, true, output);
}

enum pry_stream_step pry_stream_feed(struct pry_stream *stream, struct pry_slice *input,
                                     struct pry_stream_output *output)
{
  *output = (struct pry_stream_output){0};
  while (input->size && stream->state != PRY_STREAM_FAILED) {
    struct pry_sse_event event;
    size_t consumed = 0;
    enum pry_sse_result result = pry_sse_feed(&stream->parser, *input, &consumed, &event);
    struct pry_slice bytes = take_front(input, consumed);
    enum pry_stream_step step = PRY_STREAM_NO_MEMORY;
    if (result == PRY_SSE_NO_MEMORY)
      return step;
    if (stream->inside)
      step = pass(stream, bytes, result == PRY_SSE_BLOCK, output);
    else if (result == PRY_SSE_TOO_LARGE)
      step = on_long_event(stream, bytes, &event, output);
    else if (result == PRY_SSE_EVENT)
      step = on_event(stream, bytes, &event, output);
    else if (result == PRY_SSE_BLOCK)
      step = on_block(stream, bytes, output);
    else
      step = hold(stream, bytes, false, output);
    if (step != PRY_STREAM_MORE)
      return step;
  }
  return PRY_STREAM_MORE;
}

/* ---- the end --------------------------------------------------------------------------------------------- */

/* Some servers do not write the last blank line. A stream that has all but that is not cut for it. */
static enum pry_stream_ending complete_last_event(struct pry_stream *stream, struct pry_stream_output *output)
{
  struct pry_sse_event event;
  size_t consumed;
  bool finish = false;
  if (stream->inside)
    return PRY_STREAM_CUT;
  enum pry_sse_result result = pry_sse_feed(&stream->parser, PRY_SLICE("\n\n"), &consumed, &event);
  if (result == PRY_SSE_NO_MEMORY)
    return PRY_STREAM_LOST;
  if (result != PRY_SSE_EVENT)
    return PRY_STREAM_CUT;
  pry_usage_read(&stream->dialect->usage, event.data, &stream->tokens);
  enum pry_stream_class meaning = pry_dialect_stream_class(stream->dialect, event.name, event.data, &finish);
  if (meaning != PRY_STREAM_ERROR)
    return meaning == PRY_STREAM_END ? PRY_STREAM_CLEAN : PRY_STREAM_CUT;
  output->type = event.name;
  output->data = event.data;
  return PRY_STREAM_REPORTED;
}

/* A body that is no event stream, whatever its type says. Providers' gateways answer so when they fail. */
static bool is_other_body(const struct pry_stream *stream, struct pry_slice *body)
{
  static const char blanks[] = " \t\r\n", openings[] = "{[<";
  *body = pry_buffer_slice(&stream->held);
  while (body->size && memchr(blanks, body->data[0], sizeof blanks - 1))
    *body = (struct pry_slice){body->data + 1, body->size - 1};
  return !stream->committed && !stream->any && body->size && memchr(openings, body->data[0], sizeof openings - 1);
}

/* Nothing that its dialect knows says where a stream ends, or not surely: then the connection does. */
static bool has_end_marker(const struct pry_dialect *dialect)
{
  if (dialect->open_end)
    return false;
  return dialect->end_data.count || dialect->end_types.count || dialect->finish_paths.count;
}

enum pry_stream_ending pry_stream_finish(struct pry_stream *stream, bool whole, struct pry_stream_output *output)
{
  *output = (struct pry_stream_output){0};
  struct pry_slice body;
  bool complete = stream->finished || (stream->news && !has_end_marker(stream->dialect));
  enum pry_stream_ending ending = complete ? PRY_STREAM_CLEAN : PRY_STREAM_UNTERMINATED;
  if (stream->state == PRY_STREAM_ENDED) {
    ending = PRY_STREAM_CLEAN;
  } else if (!whole) {
    ending = PRY_STREAM_CUT;
  } else if (is_other_body(stream, &body)) {
    output->data = body;
    ending = pry_dialect_error_in_200(stream->dialect, body) ? PRY_STREAM_REPORTED : PRY_STREAM_UNREADABLE;
  } else if (pry_sse_pending(&stream->parser)) {
    ending = complete_last_event(stream, output);
  }
  if (ending != PRY_STREAM_CLEAN)
    return ending;
  stream->committed = true;
  output->out = pry_buffer_slice(&stream->held);
  return ending;
}

/* ---- words ------------------------------------------------------------------------------------------------ */

struct pry_failure pry_stream_failure(enum pry_stream_fault fault)
{
  static const struct {
    enum pry_category category;
    const char *code, *message;
  } words[] = {
      [PRY_STREAM_FAULT_CUT] = {PRY_NETWORK, "stream_cut", "the stream broke off before its end"},
      [PRY_STREAM_FAULT_UNTERMINATED] = {PRY_NETWORK, "stream_unterminated", "the stream ended without its end marker"},
      [PRY_STREAM_FAULT_STALLED] = {PRY_TIMEOUT, "stream_stalled",
                                    "the stream stopped coming: nothing within the idle timeout"},
      [PRY_STREAM_FAULT_TOO_SLOW] = {PRY_TIMEOUT, "stream_too_slow",
                                     "the stream came more slowly than this route allows"},
      [PRY_STREAM_FAULT_MALFORMED] = {PRY_SERVER, "stream_malformed", "the stream holds what cannot be read"},
  };
  struct pry_failure failure = pry_failure_of(words[fault].category);
  failure.sent = true;
  pry_failure_set_code(&failure, pry_slice_of(words[fault].code));
  pry_failure_set_message(&failure, pry_slice_of(words[fault].message));
  return failure;
}
