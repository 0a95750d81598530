#include "call_internal.h"

#include "retry_after.h"

enum {
  CLASSIFY_BODY_MAX = 64 * 1024,            /* of an error body, what a dialect gets to see */
  ANSWER_FIELDS_MAX = PRY_HEADERS_MAX - 16, /* leaves room for our own */
};

/* After the end marker of a stream the connection may stay open a little: it is worth reusing. */
#define END_GRACE PRY_SECOND

/* ---- timeouts --------------------------------------------------------------------------------------------- */

pry_time pry_call_timeout(pry_time of_provider, pry_time of_route, pry_time otherwise)
{
  return of_provider ? of_provider : of_route ? of_route : otherwise;
}

void pry_call_timed_out(struct pry_call *call, const char *code, const char *message, bool sent)
{
  struct pry_failure failure = pry_failure_from_curl(PRY_HTTP_TIMED_OUT, sent);
  pry_failure_set_code(&failure, pry_slice_of(code));
  pry_failure_set_message(&failure, pry_slice_of(message));
  if (call->committed)
    pry_call_finish_answer(call, &failure, false);
  else
    pry_call_attempt_failed(call, &failure);
}

static void connect_timed_out(void *user)
{
  pry_call_timed_out(user, "connect_timeout", "no connection within the connect timeout", false);
}

static void first_byte_timed_out(void *user)
{
  pry_call_timed_out(user, "first_byte_timeout", "no answer within the first_byte timeout", true);
}

static void idle_timed_out(void *user)
{
  struct pry_call *call = user;
  if (call->stream_open)
    pry_call_stream_failed(call, PRY_STREAM_FAULT_STALLED);
  else
    pry_call_timed_out(call, "idle_timeout", "the answer stopped coming: nothing within the idle timeout", true);
}

void pry_call_attempt_timed_out(void *user)
{
  pry_call_timed_out(user, "attempt_timeout", "the attempt took longer than its timeout", true);
}

static void stream_too_long(void *user)
{
  pry_call_timed_out(user, "max_stream", "the stream lasted longer than max_stream", true);
}

pry_time pry_call_idle_timeout(const struct pry_call *call)
{
  return pry_call_timeout(call->view.target.provider->timeouts.idle, call->route->timeouts.idle, PRY_IDLE_DEFAULT);
}

void pry_call_await_connection(struct pry_call *call)
{
  pry_call_start_timer(call, &call->phase_timer,
                       pry_call_timeout(call->view.target.provider->timeouts.connect, call->route->timeouts.connect,
                                        PRY_CONNECT_DEFAULT),
                       connect_timed_out);
}

/* Not while the client is the one to wait for: it is slow to send, or to read. */
void pry_call_start_idle_timer(struct pry_call *call)
{
  if (call->upload.waits_for_client || call->paused)
    return;
  if (pry_timer_running(&call->phase_timer) && call->phase_timer.fire == pry_call_end_grace_over)
    return; /* what trickles in after the end does not prolong it */
  bool ended = call->stream_open && call->stream.state == PRY_STREAM_ENDED;
  pry_call_start_timer(call, &call->phase_timer, ended ? END_GRACE : pry_call_idle_timeout(call),
                       ended ? pry_call_end_grace_over : idle_timed_out);
}

void pry_call_sent(struct pry_call *call)
{
  call->sent_at = pry_loop_now(call->worker->loop);
  pry_permits_sent(&call->attempt_permits);
  if (!call->counted) /* what the call holds is for the call, however often it is sent */
    pry_permits_sent(&call->permits);
  call->counted = true;
}

void pry_call_await_answer(struct pry_call *call)
{
  const struct pry_timeouts *provider = &call->view.target.provider->timeouts;
  pry_call_sent(call);
  if (call->got_byte)
    pry_call_start_idle_timer(call);
  else
    pry_call_start_timer(
        call, &call->phase_timer,
        pry_call_timeout(provider->first_byte, call->route->timeouts.first_byte, PRY_FIRST_BYTE_DEFAULT),
        first_byte_timed_out);
}

/* ---- classification ---------------------------------------------------------------------------------------- */

/* What an error says may repeat our key, in its code as well as in its words, and goes into events, errors, checks and to
 * the client. It is taken out before anything is cut to size: half a key would not be found any more. What it says in
 * fields is looked at afterwards. */
static void refine(struct pry_state *state, const struct pry_dialect *dialect, const struct pry_answer_view *answer,
                   struct pry_failure *failure)
{
  struct pry_scrubber *scrubber = state->worker ? state->worker->engine->scrubber : NULL;
  struct pry_answer_view bounded = *answer;
  struct pry_failure refined = *failure;
  struct pry_buffer clean;
  pry_buffer_init(&clean, 0);
  if (bounded.body.size > CLASSIFY_BODY_MAX)
    bounded.body.size = CLASSIFY_BODY_MAX;
  if (pry_scrubber_finds(scrubber, bounded.body)) {
    if (!pry_buffer_append_slice(&clean, bounded.body))
      pry_buffer_clear(&clean);
    pry_scrubber_apply(scrubber, &clean);
    bounded.body = pry_buffer_slice(&clean);
  }
  if (state->ops->classify(state, dialect, &bounded, &refined)) {
    *failure = refined;
    pry_scrubber_apply_text(scrubber, failure->code);
    pry_scrubber_apply_text(scrubber, failure->message);
  }
  pry_buffer_fini(&clean);
}

struct pry_failure pry_classify(struct pry_state *state, const struct pry_dialect *dialect,
                                const struct pry_answer_view *answer, double unix_time)
{
  struct pry_failure failure = pry_failure_from_status(answer->status);
  bool in_200 = failure.category == PRY_NONE && (answer->in_stream || pry_dialect_error_in_200(dialect, answer->body));
  if (failure.category == PRY_NONE && !in_200)
    return failure;
  if (in_200)
    pry_failure_set_category(&failure, PRY_UNKNOWN);
  double seconds;
  if (pry_retry_after(answer->headers, unix_time, &seconds))
    failure.retry_after = seconds;
  if (dialect->has_classify && state)
    refine(state, dialect, answer, &failure);
  enum pry_should_retry should = pry_should_retry(answer->headers);
  if (should != PRY_SHOULD_RETRY_UNSAID)
    failure.retryable = should == PRY_SHOULD_RETRY_YES && failure.category != PRY_BILLING; /* waiting brings no money */
  failure.retry_forbidden = should == PRY_SHOULD_RETRY_NO;
  return failure;
}

struct pry_failure pry_call_classify_answer(struct pry_call *call, struct pry_slice body, bool in_stream,
                                            struct pry_slice event_type)
{
  struct pry_answer_view answer = {.provider = call->view.target.provider->name,
                                   .status = call->answer.status,
                                   .headers = &call->answer.headers,
                                   .body = body,
                                   .in_stream = in_stream,
                                   .event_type = event_type};
  const struct pry_dialect *ours = call->view.target.provider->dialect;
  const struct pry_dialect *scripts = pry_call_dialect(call, ours);
  return pry_classify(scripts ? call->script : NULL, scripts ? scripts : ours, &answer,
                      pry_loop_unix_time(call->worker->loop));
}

/* ---- the answer --------------------------------------------------------------------------------------------- */

static void on_connected(void *user)
{
  struct pry_call *call = user;
  pry_call_await_answer(call);
  if (pry_call_is_uploading(call))
    pry_call_upload_goes_on(call);
}

static bool is_event_stream(const struct pry_headers *headers)
{
  struct pry_slice type;
  struct pry_slice wanted = PRY_SLICE("text/event-stream");
  return pry_headers_get(headers, PRY_SLICE("content-type"), &type) && type.size >= wanted.size &&
         pry_slice_equal_nocase((struct pry_slice){type.data, wanted.size}, wanted);
}

static int64_t content_length(const struct pry_headers *headers)
{
  struct pry_slice text;
  int64_t length;
  bool said = pry_headers_get(headers, PRY_SLICE("content-length"), &text) && pry_json_integer(text, &length);
  return said && length >= 0 ? length : -1;
}

/* A good answer with content (RFC 9110 §6.4.1). */
static bool has_body(const struct pry_call *call, int status)
{
  return status < 300 && status != 204 && !pry_slice_equal(call->view.method, PRY_SLICE("HEAD"));
}

void pry_call_out_of_memory(struct pry_call *call)
{
  struct pry_failure failure = pry_call_own_failure(PRY_UNKNOWN, "memory", "memory is short");
  failure.sent = true;
  if (call->committed)
    pry_call_finish_answer(call, &failure, false);
  else
    pry_call_attempt_failed(call, &failure);
}

/* What is translated must be whole before the first byte of it can be said. */
size_t pry_call_hold_limit(const struct pry_call *call)
{
  return call->translation.active ? PRY_TRANSLATED_ANSWER_MAX : call->worker->engine->options.hold_limit;
}

/* The attempt ends with a failure that was found in what it answered, before or after the commit. */
void pry_call_answer_failed(struct pry_call *call, const struct pry_failure *failure)
{
  if (call->committed)
    pry_call_finish_answer(call, failure, false);
  else
    pry_call_attempt_failed(call, failure);
}

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct pry_call *call = user;
  struct call_answer *answer = &call->answer;
  const struct pry_dialect *dialect = call->view.target.provider->dialect;
  call->state = CALL_HEAD;
  answer->status = status;
  answer->length = content_length(headers);
  answer->coding = pry_coding_of(headers);
  bool events = has_body(call, status) && is_event_stream(headers);
  answer->is_stream = events && answer->coding != PRY_CODING_UNKNOWN;
  answer->pass_at_once = events && !answer->is_stream;
  answer->client_shaped = pry_config_carries(call->generation->config, dialect, call->client_dialect);
  if (headers->count > ANSWER_FIELDS_MAX || !pry_headers_add_all(&answer->headers, headers)) {
    struct pry_failure failure = pry_failure_of(PRY_SERVER);
    failure.sent = true;
    failure.status = status;
    pry_failure_set_code(&failure, PRY_SLICE("head_too_large"));
    pry_failure_set_message(&failure, PRY_SLICE("the answer's head has too many fields, or memory is short"));
    pry_call_attempt_failed(call, &failure);
    return;
  }
  answer->may_be_stream =
      !events && has_body(call, status) && answer->coding == PRY_CODING_NONE && call->json.stream.type == PRY_JSON_TRUE;
  if (!answer->is_stream)
    return;
  pry_call_open_stream(call);
  if (answer->coding == PRY_CODING_NONE)
    return;
  pry_headers_remove(&answer->headers, PRY_SLICE("content-encoding")); /* the client gets it decoded */
  call->decoder = pry_decoder_new(answer->coding);
  if (!call->decoder)
    pry_call_out_of_memory(call);
}

void pry_call_first_byte(struct pry_call *call)
{
  if (call->got_byte)
    return;
  call->got_byte = true;
  pry_time now = pry_loop_now(call->worker->loop);
  if (call->attempt_open)
    call->ledger[call->view.ledger_count - 1].first_byte = pry_time_to_seconds(now - call->send_began);
  pry_metrics_add(call->worker->engine->metrics, PRY_M_FIRST_BYTE, call->view.target.name, NULL,
                  pry_time_to_seconds(now - call->sent_at));
}

enum pry_http_flow pry_call_give(struct pry_call *call, struct pry_slice data)
{
  if (call->early && !call->gave && pry_slice_starts_with(data, PRY_SLICE("\xEF\xBB\xBF")))
    data = (struct pry_slice){data.data + 3, data.size - 3}; /* a mark means nothing but at the very start */
  call->gave = call->gave || data.size;
  if (data.size && !call->sink.data(call->user, data) && !call->paused) {
    call->paused = true;
    pry_timer_cancel(&call->phase_timer); /* a slow client is not the provider's silence */
    pry_call_rest_pace(call);
  }
  return call->paused ? PRY_HTTP_PAUSE : PRY_HTTP_CONTINUE;
}

/* There is no other attempt any more: what only another would be made of can go. */
static void forget_what_attempts_need(struct pry_call *call)
{
  if (call->credentials.text.data)
    explicit_bzero(call->credentials.text.data, call->credentials.text.capacity);
  pry_headers_fini(&call->credentials);
  pry_headers_fini(&call->added);
  if (call->token.data)
    explicit_bzero(call->token.data, call->token.capacity);
  pry_buffer_fini(&call->token);
}

void pry_call_begin_relay(struct pry_call *call, int64_t body_size)
{
  forget_what_attempts_need(call);
  call->state = CALL_RELAY;
  pry_timer_cancel(&call->attempt_timer);
  pry_timer_cancel(&call->deadline_timer);
  call->upload.attempt_left = call->upload.deadline_left = -1;
  if (call->route->max_stream)
    pry_call_start_timer(call, &call->stream_timer, call->route->max_stream, stream_too_long);
  pry_call_commit(call, body_size);
}

void pry_call_coding_broke(struct pry_call *call)
{
  struct pry_failure failure = pry_failure_of(PRY_SERVER);
  failure.sent = true;
  failure.status = call->answer.status;
  pry_failure_set_code(&failure, PRY_SLICE("bad_encoding"));
  pry_failure_set_message(&failure, PRY_SLICE("the answer's content coding is broken, or a bomb"));
  if (call->committed)
    pry_call_finish_answer(call, &failure, false);
  else
    pry_call_attempt_failed(call, &failure);
}

/* The body so far as text: decoded into `text` when it is encoded. NULL: memory is short. What cannot be read is empty
 * text, and the answer is marked. */
static bool read_text(struct pry_call *call, struct pry_buffer *text, struct pry_slice *words)
{
  struct call_answer *answer = &call->answer;
  pry_buffer_init(text, pry_call_hold_limit(call));
  *words = pry_buffer_slice(&answer->body);
  if (answer->coding == PRY_CODING_NONE || !answer->body.size)
    return true;
  enum pry_decode_whole result = pry_decode_text(answer->coding, *words, text);
  *words = pry_buffer_slice(text);
  answer->unreadable = result != PRY_DECODED;
  answer->broken = answer->coding != PRY_CODING_UNKNOWN &&
                   (result == PRY_DECODE_BROKEN || (result == PRY_DECODED_PART && text->size < text->limit));
  return result != PRY_DECODE_FAILED;
}

/* `words`: the body, decoded. */
static void pass_translated_body(struct pry_call *call, struct pry_slice words)
{
  struct pry_failure failure;
  if (pry_call_refuse_body(call))
    return;
  if (call->answer.unreadable) {
    failure = pry_call_answer_too_long(call);
    pry_call_attempt_failed(call, &failure);
    return;
  }
  struct pry_slice body;
  if (!pry_call_translate_answer(call, words, &body, &failure)) {
    pry_call_attempt_failed(call, &failure);
    return;
  }
  pry_headers_remove(&call->answer.headers, PRY_SLICE("content-encoding"));
  pry_headers_set(&call->answer.headers, PRY_SLICE("Content-Type"), PRY_SLICE("application/json"));
  pry_call_begin_relay(call, (int64_t)body.size);
  if (call->attempt_open)
    pry_call_give(call, body);
  pry_call_finish_answer(call, NULL, false);
}

static void pass_held_body(struct pry_call *call)
{
  struct call_answer *answer = &call->answer;
  if (pry_call_refuse_body(call))
    return;
  bool head_only = pry_slice_equal(call->view.method, PRY_SLICE("HEAD"));
  pry_call_begin_relay(call, head_only ? answer->length : (int64_t)answer->body.size);
  if (call->attempt_open)
    pry_call_give(call, pry_buffer_slice(&answer->body));
  pry_call_finish_answer(call, NULL, false);
}

/* What the client will get of an encoded error is the text that was classified, and can be scrubbed. */
static void take_text(struct call_answer *answer, struct pry_buffer *text)
{
  struct pry_buffer encoded = answer->body;
  answer->body = *text;
  *text = encoded;
  pry_headers_remove(&answer->headers, PRY_SLICE("content-encoding"));
}

/* All of a held body is there, or all that we take of an error's. */
static void judge_body(struct pry_call *call)
{
  struct call_answer *answer = &call->answer;
  struct pry_buffer text;
  struct pry_slice words;
  struct pry_failure failure;
  bool read = read_text(call, &text, &words);
  if (read) {
    pry_usage_read(&call->view.target.provider->dialect->usage, words, &call->tokens);
    failure = pry_call_classify_answer(call, words, false, PRY_SLICE(""));
  }
  if (read && failure.category != PRY_NONE && text.size)
    take_text(answer, &text);
  if (!read)
    pry_call_out_of_memory(call);
  else if (failure.category != PRY_NONE)
    pry_call_attempt_failed(call, &failure);
  else if (answer->broken)
    pry_call_coding_broke(call);
  else if (call->translation.active && has_body(call, answer->status))
    pass_translated_body(call, words);
  else
    pass_held_body(call);
  pry_buffer_fini(&text);
}

/* The usage of an answer stands at its end, and of a long one nothing else is kept. When memory is short it is not known
 * what the attempt cost: nothing else goes wrong. */
static void keep_tail(struct pry_call *call, struct pry_slice data)
{
  if (call->answer.coding != PRY_CODING_NONE || !call->view.target.provider->dialect->usage.place_count)
    return;
  if (data.size > PRY_USAGE_TAIL) {
    data.data += data.size - PRY_USAGE_TAIL;
    data.size = PRY_USAGE_TAIL;
  }
  if (call->tail.size + data.size > 2 * (size_t)PRY_USAGE_TAIL)
    pry_buffer_consume(&call->tail, call->tail.size + data.size - PRY_USAGE_TAIL);
  pry_buffer_append_slice(&call->tail, data);
}

/* An ordinary body is held until it is whole; a long good one commits. A long bad one is cut: what a dialect reads
 * of it is bounded anyway, and the client then gets parry's rendering. */
static enum pry_http_flow on_body_data(struct pry_call *call, struct pry_slice data)
{
  struct call_answer *answer = &call->answer;
  pry_call_start_idle_timer(call);
  if (call->committed) {
    keep_tail(call, data);
    return pry_call_give(call, data);
  }
  if (answer->body.size + data.size <= pry_call_hold_limit(call) && !answer->pass_at_once) {
    if (!pry_buffer_append_slice(&answer->body, data)) {
      pry_call_out_of_memory(call);
      return PRY_HTTP_CONTINUE;
    }
    enum pry_http_flow flow;
    return pry_call_is_stream_after_all(call, &flow) ? flow : PRY_HTTP_CONTINUE;
  }
  if (answer->status >= 400) {
    judge_body(call);
    return PRY_HTTP_CONTINUE;
  }
  if (pry_call_refuse_body(call))
    return PRY_HTTP_CONTINUE;
  if (call->translation.active) {
    struct pry_failure failure = pry_call_answer_too_long(call);
    pry_call_attempt_failed(call, &failure);
    return PRY_HTTP_CONTINUE;
  }
  pry_call_begin_relay(call, answer->length);
  keep_tail(call, pry_buffer_slice(&answer->body));
  keep_tail(call, data);
  if (call->attempt_open)
    pry_call_give(call, pry_buffer_slice(&answer->body));
  pry_buffer_fini(&answer->body);
  return call->attempt_open ? pry_call_give(call, data) : PRY_HTTP_CONTINUE;
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct pry_call *call = user;
  pry_call_first_byte(call);
  if (!call->answer.is_stream)
    return on_body_data(call, data);
  return pry_call_take_stream(call, data);
}

static void body_ended(struct pry_call *call)
{
  call->answer.complete = true;
  if (call->committed)
    pry_call_finish_answer(call, NULL, false);
  else
    judge_body(call);
}

static void on_done(void *user, const struct pry_http_result *result)
{
  struct pry_call *call = user;
  call->exchange = NULL;
  bool stream_done = call->stream_open && call->stream.state == PRY_STREAM_ENDED;
  if (!result->curl_code || stream_done) {
    if (call->stream_open)
      pry_call_stream_ended(call);
    else
      body_ended(call);
    return;
  }
  struct pry_failure failure = pry_failure_from_curl(result->curl_code, result->sent);
  pry_failure_set_message(&failure, pry_slice_of(result->message));
  pry_log(call->worker->engine->log, PRY_LOG_INFO, "connection failed", pry_log_text("call_id", call->view.id),
          pry_log_text("target", call->view.target.name), pry_log_integer("curl_code", result->curl_code),
          pry_log_text("error", result->message));
  if (call->stream_open) {
    struct pry_failure cut = pry_stream_failure(PRY_STREAM_FAULT_CUT);
    cut.curl_code = failure.curl_code;
    failure = cut;
  }
  if (call->committed)
    pry_call_finish_answer(call, &failure, false);
  else
    pry_call_attempt_failed(call, &failure);
}

const struct pry_http_ops pry_call_http_ops = {on_connected, on_head, on_data, on_done, pry_call_take_upload};

/* ---- the client's pace --------------------------------------------------------------------------------------------- */

void pry_call_resume(struct pry_call *call)
{
  if (!call->paused)
    return;
  call->paused = false;
  if (!call->exchange)
    return;
  pry_call_go_on_pace(call);
  if (call->decoder) {
    pry_call_start_timer(call, &call->decode_timer, 0, pry_call_decode_rest);
    return;
  }
  pry_call_start_idle_timer(call);
  pry_http_resume(call->exchange);
}
