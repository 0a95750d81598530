#include "stream.h"

void pry_stream_init(struct pry_stream *stream, const struct pry_dialect *dialect, size_t hold_limit)
{
  *stream = (struct pry_stream){.dialect = dialect, .hold_limit = hold_limit};
  pry_sse_init(&stream->parser, hold_limit);
  pry_buffer_init(&stream->held, 0);
  pry_buffer_init(&stream->given, 0);
}

void pry_stream_fini(struct pry_stream *stream)
{
  pry_sse_fini(&stream->parser);
  pry_buffer_fini(&stream->held);
  pry_buffer_fini(&stream->given);
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
  stream->whole = 0;
  return PRY_STREAM_OUTPUT;
}

/* Too much is held back: its whole blocks go out, the unfinished one stays. */
static enum pry_stream_step commit_held(struct pry_stream *stream, struct pry_stream_output *output)
{
  stream->committed = true;
  stream->state = PRY_STREAM_FLOWING;
  if (!stream->whole)
    return PRY_STREAM_MORE;
  struct pry_buffer swap = stream->given;
  stream->given = stream->held;
  stream->held = swap;
  pry_buffer_clear(&stream->held);
  size_t whole = stream->whole;
  stream->whole = 0;
  output->out = (struct pry_slice){stream->given.data, whole};
  return pry_buffer_append(&stream->held, stream->given.data + whole, stream->given.size - whole)
             ? PRY_STREAM_OUTPUT
             : PRY_STREAM_NO_MEMORY;
}

/* `ends`: the bytes end a block. */
static enum pry_stream_step hold(struct pry_stream *stream, struct pry_slice bytes, bool ends,
                                 struct pry_stream_output *output)
{
  if (!pry_buffer_append_slice(&stream->held, bytes))
    return PRY_STREAM_NO_MEMORY;
  if (ends)
    stream->whole = stream->held.size;
  return stream->held.size > stream->hold_limit && !stream->committed ? commit_held(stream, output) : PRY_STREAM_MORE;
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

static enum pry_stream_step on_event(struct pry_stream *stream, struct pry_slice bytes,
                                     const struct pry_sse_event *event, struct pry_stream_output *output)
{
  bool finish = false;
  pry_usage_read(&stream->dialect->usage, event->data, &stream->tokens);
  switch (pry_dialect_stream_class(stream->dialect, event->name, event->data, &finish)) {
  case PRY_STREAM_ERROR:
    return broken(stream, bytes, event, output);
  case PRY_STREAM_END:
    stream->state = PRY_STREAM_ENDED;
    stream->committed = true;
    break;
  case PRY_STREAM_CONTENT:
    if (stream->state == PRY_STREAM_HOLDING)
      stream->state = PRY_STREAM_FLOWING;
    stream->committed = true;
    break;
  case PRY_STREAM_LIFECYCLE:
    break;
  }
  stream->finished = stream->finished || finish;
  return stream->committed ? hand_out(stream, bytes, output) : hold(stream, bytes, true, output);
}

/* A block too long to read: the stream passes as it is from here on. */
static enum pry_stream_step pass_through(struct pry_stream *stream, struct pry_slice *input,
                                         struct pry_stream_output *output)
{
  if (stream->state != PRY_STREAM_ENDED)
    stream->state = PRY_STREAM_OPAQUE;
  stream->committed = true;
  return hand_out(stream, take_front(input, input->size), output);
}

enum pry_stream_step pry_stream_feed(struct pry_stream *stream, struct pry_slice *input,
                                     struct pry_stream_output *output)
{
  *output = (struct pry_stream_output){0};
  while (input->size) {
    if (stream->state == PRY_STREAM_FAILED)
      return PRY_STREAM_MORE;
    if (stream->state == PRY_STREAM_OPAQUE)
      return pass_through(stream, input, output);
    struct pry_sse_event event;
    size_t consumed = 0;
    enum pry_sse_result result = pry_sse_feed(&stream->parser, *input, &consumed, &event);
    if (result == PRY_SSE_TOO_LARGE)
      return pass_through(stream, input, output);
    if (result == PRY_SSE_NO_MEMORY)
      return PRY_STREAM_NO_MEMORY;
    struct pry_slice bytes = take_front(input, consumed);
    enum pry_stream_step step;
    if (result == PRY_SSE_EVENT)
      step = on_event(stream, bytes, &event, output);
    else if (result == PRY_SSE_BLOCK && stream->committed)
      step = hand_out(stream, bytes, output);
    else
      step = hold(stream, bytes, result == PRY_SSE_BLOCK, output);
    if (step != PRY_STREAM_MORE)
      return step;
  }
  return PRY_STREAM_MORE;
}

bool pry_stream_finish(struct pry_stream *stream, struct pry_slice *out)
{
  *out = (struct pry_slice){NULL, 0};
  bool clean = stream->state == PRY_STREAM_ENDED || stream->state == PRY_STREAM_OPAQUE ||
               (stream->finished && !pry_sse_pending(&stream->parser));
  if (!clean || !stream->committed)
    return clean;
  *out = pry_buffer_slice(&stream->held);
  return true;
}
