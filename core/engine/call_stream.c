/* Answers that are event streams: from their first byte to their end. */
#include "call_internal.h"

/* ---- relaying --------------------------------------------------------------------------------------------- */

void pry_call_open_stream(struct pry_call *call)
{
  call->answer.is_stream = true;
  pry_stream_init(&call->stream, call->view.target.provider->dialect, pry_call_hold_limit(call));
  call->stream_open = true;
  pry_call_watch_pace(call);
}

void pry_call_stream_failed(struct pry_call *call, enum pry_stream_fault fault)
{
  struct pry_failure failure = pry_stream_failure(fault);
  if (failure.category == PRY_TIMEOUT)
    failure.curl_code = PRY_HTTP_TIMED_OUT;
  else
    failure.status = call->answer.status;
  if (call->committed)
    pry_call_finish_answer(call, &failure, false);
  else
    pry_call_attempt_failed(call, &failure);
}

/* Clients of the Responses API go by the types of its events. */
static bool is_error_for_client(const struct pry_call *call, const struct pry_stream_output *output)
{
  const struct pry_dialect *dialect = call->view.target.provider->dialect;
  return output->out.size && strcmp(dialect->name, call->client_dialect) == 0 &&
         pry_dialect_error_is_plain(dialect, output->type, output->data, pry_call_speaks_responses(call));
}

/* After the commit the client's SDK must throw: the provider's own event passes if it does for that, else ours does. */
static void stream_broke(struct pry_call *call, const struct pry_stream_output *output)
{
  struct pry_failure failure = pry_call_classify_answer(call, output->data, true, output->type);
  if (!call->committed) {
    pry_call_attempt_failed(call, &failure);
    return;
  }
  if (call->translation.active) { /* the client could not read it: it is told in its own dialect */
    pry_call_finish_answer(call, &failure, false);
    return;
  }
  struct pry_buffer words; /* a provider's error may repeat our key: it is not the client's */
  pry_buffer_init(&words, 0);
  bool passes = is_error_for_client(call, output) && pry_buffer_append_slice(&words, output->out);
  if (passes) {
    pry_scrubber_apply(call->worker->engine->scrubber, &words);
    pry_call_give(call, pry_buffer_slice(&words));
  }
  pry_buffer_fini(&words);
  pry_call_finish_answer(call, &failure, passes);
}

/* False: the attempt is over, and the call perhaps gone. */
static bool relay(struct pry_call *call, struct pry_slice blocks)
{
  struct pry_failure failure;
  if (call->translation.active && !pry_call_translate_stream(call, blocks, &blocks, &failure)) {
    pry_call_answer_failed(call, &failure);
    return false;
  }
  if (!call->committed)
    pry_call_begin_relay(call, -1);
  if (call->attempt_open)
    pry_call_give(call, blocks);
  return call->attempt_open; /* else the sink cancelled the call */
}

/* As relay(). */
static bool on_stream_data(struct pry_call *call, struct pry_slice data)
{
  for (;;) {
    struct pry_stream_output output;
    switch (pry_stream_feed(&call->stream, &data, &output)) {
    case PRY_STREAM_MORE:
      pry_call_start_idle_timer(call);
      return true;
    case PRY_STREAM_OUTPUT:
      if (!relay(call, output.out))
        return false;
      break;
    case PRY_STREAM_BROKEN:
      stream_broke(call, &output);
      return false;
    case PRY_STREAM_MALFORMED:
      pry_call_stream_failed(call, PRY_STREAM_FAULT_MALFORMED);
      return false;
    case PRY_STREAM_NO_MEMORY:
      pry_call_out_of_memory(call);
      return false;
    }
  }
}

/* ---- encoded streams ---------------------------------------------------------------------------------------- */

/* As on_stream_data(). A few bytes may be megabytes of text: a slow client stops the decoding, not just the reading. */
static bool on_encoded_data(struct pry_call *call, struct pry_slice data)
{
  pry_call_start_idle_timer(call);
  for (;;) {
    struct pry_slice piece;
    if (call->paused) {
      if (pry_buffer_append_slice(&call->undecoded, data))
        return true;
      pry_call_out_of_memory(call);
      return false;
    }
    switch (pry_decode(call->decoder, &data, &piece)) {
    case PRY_DECODE_OUTPUT:
      if (!on_stream_data(call, piece))
        return false;
      break;
    case PRY_DECODE_MORE:
    case PRY_DECODE_END:
      return true;
    case PRY_DECODE_BAD:
      pry_call_coding_broke(call);
      return false;
    case PRY_DECODE_NO_MEMORY:
      pry_call_out_of_memory(call);
      return false;
    }
  }
}

enum pry_http_flow pry_call_take_stream(struct pry_call *call, struct pry_slice data)
{
  bool goes_on = call->decoder ? on_encoded_data(call, data) : on_stream_data(call, data);
  return goes_on && call->paused ? PRY_HTTP_PAUSE : PRY_HTTP_CONTINUE;
}

void pry_call_decode_rest(void *user)
{
  struct pry_call *call = user;
  struct pry_buffer rest = call->undecoded;
  pry_buffer_init(&call->undecoded, 0);
  bool goes_on = on_encoded_data(call, pry_buffer_slice(&rest));
  pry_buffer_fini(&rest);
  if (goes_on && !call->paused && call->exchange)
    pry_http_resume(call->exchange);
}

/* ---- under the type of an ordinary answer ------------------------------------------------------------------- */

enum sniffed { SNIFFED_NOTHING_YET, SNIFFED_BODY, SNIFFED_STREAM };

/* Some providers send a stream under the type of an ordinary answer, their errors above all. No JSON and no page begins
 * like one. */
static enum sniffed sniff(struct pry_slice text)
{
  static const struct pry_slice fields[] = {PRY_SLICE_INIT("data:"), PRY_SLICE_INIT("event:"), PRY_SLICE_INIT("id:"),
                                            PRY_SLICE_INIT("retry:"), PRY_SLICE_INIT(":")};
  struct pry_slice mark = PRY_SLICE("\xEF\xBB\xBF");
  if (pry_slice_starts_with(text, mark))
    text = (struct pry_slice){text.data + mark.size, text.size - mark.size};
  while (text.size && memchr("\r\n", text.data[0], 2))
    text = (struct pry_slice){text.data + 1, text.size - 1};
  if (!text.size)
    return SNIFFED_NOTHING_YET;
  bool may_be = pry_slice_starts_with(mark, text);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    if (pry_slice_starts_with(text, fields[i]))
      return SNIFFED_STREAM;
    may_be = may_be || pry_slice_starts_with(fields[i], text);
  }
  return may_be ? SNIFFED_NOTHING_YET : SNIFFED_BODY;
}

/* The body so far turned out to be a stream. */
static enum pry_http_flow take_as_stream(struct pry_call *call)
{
  struct pry_buffer start = call->answer.body;
  pry_buffer_init(&call->answer.body, 0);
  bool set = pry_headers_set(&call->answer.headers, PRY_SLICE("Content-Type"), PRY_SLICE("text/event-stream"));
  if (set)
    pry_call_open_stream(call);
  if (!set)
    pry_call_out_of_memory(call);
  else
    set = on_stream_data(call, pry_buffer_slice(&start));
  pry_buffer_fini(&start);
  return set && call->paused ? PRY_HTTP_PAUSE : PRY_HTTP_CONTINUE;
}

bool pry_call_is_stream_after_all(struct pry_call *call, enum pry_http_flow *flow)
{
  struct call_answer *answer = &call->answer;
  enum sniffed found = answer->may_be_stream ? sniff(pry_buffer_slice(&answer->body)) : SNIFFED_BODY;
  answer->may_be_stream = found == SNIFFED_NOTHING_YET;
  if (found == SNIFFED_STREAM)
    *flow = take_as_stream(call);
  return found == SNIFFED_STREAM;
}

/* ---- the end ---------------------------------------------------------------------------------------------- */

/* The rest of a stream that ended well, and what its translation lacks. */
static void end_relay(struct pry_call *call, struct pry_slice rest)
{
  struct pry_failure failure;
  if (!call->committed) { /* all of it was held back: an answer without content */
    if (!relay(call, rest))
      return;
    rest = (struct pry_slice){NULL, 0};
  }
  if (call->translation.active && !pry_call_finish_translation(call, &rest, &failure)) {
    pry_call_finish_answer(call, &failure, false);
    return;
  }
  pry_call_give(call, rest);
  pry_call_finish_answer(call, NULL, false);
}

void pry_call_stream_ended(struct pry_call *call)
{
  struct pry_stream_output output;
  switch (pry_stream_finish(&call->stream, true, &output)) {
  case PRY_STREAM_CLEAN:
    end_relay(call, output.out);
    return;
  case PRY_STREAM_REPORTED:
    stream_broke(call, &output);
    return;
  case PRY_STREAM_CUT:
    pry_call_stream_failed(call, PRY_STREAM_FAULT_CUT);
    return;
  case PRY_STREAM_UNTERMINATED:
    pry_call_stream_failed(call, PRY_STREAM_FAULT_UNTERMINATED);
    return;
  case PRY_STREAM_UNREADABLE:
    pry_call_stream_failed(call, PRY_STREAM_FAULT_MALFORMED);
    return;
  case PRY_STREAM_LOST:
    pry_call_out_of_memory(call);
    return;
  }
}

void pry_call_end_grace_over(void *user)
{
  end_relay(user, (struct pry_slice){NULL, 0});
}
