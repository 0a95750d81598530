#include "call_internal.h"

#include "retry_after.h"

#include <stdio.h>
#include <stdlib.h>

enum {
  CLASSIFY_BODY_MAX = 64 * 1024,            /* of an error body, what a dialect gets to see */
  ANSWER_FIELDS_MAX = PRY_HEADERS_MAX - 16, /* leaves room for our own */
};

/* After the end marker of a stream the connection may stay open a little: it is worth reusing. */
#define END_GRACE PRY_SECOND

/* ---- target and ledger -------------------------------------------------------------------------------- */

static unsigned attempts_at(const struct pry_call *call, const char *target)
{
  unsigned count = 0;
  for (size_t i = 0; i < call->view.ledger_count; i++)
    count += strcmp(call->ledger[i].target, target) == 0 && !call->ledger[i].refused;
  return count;
}

bool pry_call_set_target(struct pry_call *call, const struct pry_provider *provider, struct pry_slice model)
{
  struct pry_target target = {.provider = provider};
  if (model.size >= sizeof target.model)
    return false;
  memcpy(target.model, model.size ? model.data : "", model.size);
  int length = snprintf(target.name, sizeof target.name, "%s%s%s", provider->name, model.size ? "/" : "", target.model);
  if (length < 0 || (size_t)length >= sizeof target.name)
    return false;
  if (strcmp(target.name, call->view.target.name) != 0) {
    if (call->target_permit)
      call->target_permit->release(call->target_permit);
    call->target_permit = NULL;
    call->renewed = false;
  }
  target.attempts = attempts_at(call, target.name);
  call->view.target = target;
  return true;
}

static bool open_ledger_entry(struct pry_call *call)
{
  if (call->view.ledger_count == call->ledger_capacity) {
    size_t capacity = call->ledger_capacity ? call->ledger_capacity * 2 : 1;
    struct pry_attempt *ledger = realloc(call->ledger, capacity * sizeof *ledger);
    if (!ledger)
      return false;
    call->ledger = ledger;
    call->ledger_capacity = capacity;
  }
  struct pry_attempt *attempt = &call->ledger[call->view.ledger_count++];
  *attempt = (struct pry_attempt){.started = pry_loop_unix_time(call->worker->loop), .free = call->next_is_free};
  memcpy(attempt->target, call->view.target.name, sizeof attempt->target);
  call->next_is_free = false;
  call->view.ledger = call->ledger;
  call->view.attempt++;
  call->view.target.attempts++;
  call->attempt_open = true;
  return true;
}

static void stop_attempt_timers(struct pry_call *call)
{
  pry_timer_cancel(&call->phase_timer);
  pry_timer_cancel(&call->attempt_timer);
  pry_timer_cancel(&call->wait_timer);
}

void pry_call_close_attempt(struct pry_call *call, const struct pry_failure *failure)
{
  struct pry_attempt *attempt = &call->ledger[call->view.ledger_count - 1];
  bool was_sent = call->state == CALL_SEND || call->state == CALL_HEAD || call->state == CALL_RELAY;
  stop_attempt_timers(call);
  if (call->exchange)
    pry_http_cancel(call->exchange);
  call->exchange = NULL;
  if (call->stream_open && !call->cancelled) { /* else the sink may be reading what it holds: free_call() */
    pry_stream_fini(&call->stream);
    call->stream_open = false;
  }
  call->injection.armed = false;
  call->attempt_open = false;
  pry_permits_release_unobserved(&call->attempt_permits);
  attempt->ended = pry_loop_unix_time(call->worker->loop);
  attempt->status = call->answer.status;
  if (failure) {
    attempt->category = failure->category;
    attempt->failure = *failure;
  }
  attempt->refused = !was_sent;
  if (attempt->refused)
    call->view.target.attempts--;
  else
    pry_metrics_add(call->worker->engine->metrics, PRY_M_ATTEMPTS, attempt->target,
                    failure ? pry_category_name(failure->category) : "ok", 1);
}

void pry_call_attempt_failed(struct pry_call *call, const struct pry_failure *failure)
{
  call->failure = *failure;
  pry_call_close_attempt(call, &call->failure);
  pry_call_react(call);
}

/* ---- preparing ------------------------------------------------------------------------------------------ */

void pry_call_answer_init(struct call_answer *answer)
{
  *answer = (struct call_answer){.length = -1};
  pry_headers_init(&answer->headers);
  pry_buffer_init(&answer->body, 0);
}

void pry_call_answer_clear(struct call_answer *answer)
{
  pry_headers_clear(&answer->headers);
  pry_buffer_clear(&answer->body);
  answer->status = 0;
  answer->length = -1;
  answer->complete = false;
  answer->is_stream = false;
}

static void refuse_here(struct pry_call *call, enum pry_category category, const char *code, const char *message)
{
  struct pry_failure failure = pry_call_own_failure(category, code, message);
  pry_call_attempt_failed(call, &failure);
}

void pry_call_prepare(struct pry_call *call)
{
  pry_call_adopt_generation(call);
  pry_call_answer_clear(&call->answer);
  call->got_byte = false;
  if (!open_ledger_entry(call)) {
    call->failure = pry_call_own_failure(PRY_UNKNOWN, "memory", "memory is short");
    pry_call_finish_failure(call);
    return;
  }
  if (!call->target_permit)
    call->target_permit =
        pry_budget_call(call->worker->engine->budgets, pry_slice_of(call->view.target.name), call->client_retry);
  pry_call_attempt_pass(call);
}

/* ---- the request ------------------------------------------------------------------------------------------ */

static bool add_auth(struct pry_call *call, const struct pry_auth *auth, struct pry_slice token)
{
  if (auth->kind == PRY_AUTH_PASSTHROUGH)
    return pry_headers_add_all(&call->out_headers, &call->credentials);
  if (auth->kind == PRY_AUTH_NONE)
    return true;
  struct pry_buffer value;
  pry_buffer_init(&value, 0);
  bool added =
      pry_buffer_append_text(&value, auth->kind == PRY_AUTH_BEARER ? "Bearer " : "") &&
      pry_buffer_append_slice(&value, token) &&
      pry_headers_set(&call->out_headers, pry_slice_of(auth->kind == PRY_AUTH_BEARER ? "Authorization" : auth->header),
                      pry_buffer_slice(&value));
  if (value.data)
    explicit_bzero(value.data, value.capacity);
  pry_buffer_fini(&value);
  return added;
}

/* Byte for byte what the client sent, but for the model when the target's is another. */
static bool build_body(struct pry_call *call, struct pry_slice *body)
{
  *body = pry_buffer_slice(&call->body);
  bool same_model = strcmp(call->view.target.model, call->view.model) == 0 || !call->view.target.model[0];
  if (!call->is_json || call->json.model.type != PRY_JSON_STRING || same_model)
    return true;
  pry_buffer_clear(&call->out_body);
  if (pry_json_splice_model(*body, pry_slice_of(call->view.target.model), &call->out_body) != PRY_JSON_OK)
    return false;
  *body = pry_buffer_slice(&call->out_body);
  return true;
}

static bool build_request(struct pry_call *call, struct pry_slice token, struct pry_http_request *request)
{
  const struct pry_provider *provider = call->view.target.provider;
  pry_buffer_clear(&call->url);
  pry_headers_clear(&call->out_headers);
  if (!pry_join_url(&call->url, provider->base_url, call->rest, call->query) ||
      !pry_headers_add_all(&call->out_headers, &call->headers))
    return false;
  for (size_t i = 0; i < call->added.count; i++) {
    struct pry_header line = pry_headers_at(&call->added, i);
    if (!pry_headers_set(&call->out_headers, line.name, line.value))
      return false;
  }
  if (!add_auth(call, &provider->auth, token) || !build_body(call, &request->body))
    return false;
  request->method = call->text.data; /* NUL-terminated by copy_request() */
  request->url = pry_buffer_text(&call->url);
  request->headers = &call->out_headers;
  request->has_body = request->body.size || pry_slice_equal(call->view.method, PRY_SLICE("POST")) ||
                      pry_slice_equal(call->view.method, PRY_SLICE("PUT")) ||
                      pry_slice_equal(call->view.method, PRY_SLICE("PATCH"));
  return request->url;
}

/* ---- timeouts --------------------------------------------------------------------------------------------- */

static pry_time timeout_of(pry_time of_provider, pry_time of_route, pry_time otherwise)
{
  return of_provider ? of_provider : of_route ? of_route : otherwise;
}

static void timed_out(struct pry_call *call, const char *code, const char *message, bool sent)
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
  timed_out(user, "connect_timeout", "no connection within the connect timeout", false);
}

static void first_byte_timed_out(void *user)
{
  timed_out(user, "first_byte_timeout", "no answer within the first_byte timeout", true);
}

static void idle_timed_out(void *user)
{
  timed_out(user, "idle_timeout", "the answer stopped coming: nothing within the idle timeout", true);
}

static void attempt_timed_out(void *user)
{
  timed_out(user, "attempt_timeout", "the attempt took longer than its timeout", true);
}

static void stream_too_long(void *user)
{
  timed_out(user, "max_stream", "the stream lasted longer than max_stream", true);
}

static void end_grace_over(void *user)
{
  pry_call_finish_answer(user, NULL, false);
}

static void start_idle_timer(struct pry_call *call)
{
  if (pry_timer_running(&call->phase_timer) && call->phase_timer.fire == end_grace_over)
    return; /* what trickles in after the end does not prolong it */
  const struct pry_timeouts *provider = &call->view.target.provider->timeouts;
  bool ended = call->stream_open && call->stream.state == PRY_STREAM_ENDED;
  pry_time idle = timeout_of(provider->idle, call->route->timeouts.idle, PRY_IDLE_DEFAULT);
  pry_call_start_timer(call, &call->phase_timer, ended ? END_GRACE : idle, ended ? end_grace_over : idle_timed_out);
}

/* ---- classification ---------------------------------------------------------------------------------------- */

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
  if (dialect->has_classify && state) {
    struct pry_failure refined = failure;
    struct pry_answer_view bounded = *answer;
    if (bounded.body.size > CLASSIFY_BODY_MAX)
      bounded.body.size = CLASSIFY_BODY_MAX;
    if (state->ops->classify(state, dialect, &bounded, &refined))
      failure = refined;
  }
  enum pry_should_retry should = pry_should_retry(answer->headers);
  if (should != PRY_SHOULD_RETRY_UNSAID)
    failure.retryable = should == PRY_SHOULD_RETRY_YES;
  failure.retry_forbidden = should == PRY_SHOULD_RETRY_NO;
  return failure;
}

static struct pry_failure classify_answer(struct pry_call *call, struct pry_slice body, bool in_stream,
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
  const struct pry_timeouts *provider = &call->view.target.provider->timeouts;
  call->sent_at = pry_loop_now(call->worker->loop);
  pry_call_start_timer(call, &call->phase_timer,
                       timeout_of(provider->first_byte, call->route->timeouts.first_byte, PRY_FIRST_BYTE_DEFAULT),
                       first_byte_timed_out);
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

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct pry_call *call = user;
  struct call_answer *answer = &call->answer;
  const struct pry_dialect *dialect = call->view.target.provider->dialect;
  call->state = CALL_HEAD;
  answer->status = status;
  answer->length = content_length(headers);
  answer->is_stream = has_body(call, status) && is_event_stream(headers);
  answer->client_shaped = pry_dialect_carries(dialect, call->client_dialect);
  if (headers->count > ANSWER_FIELDS_MAX || !pry_headers_add_all(&answer->headers, headers)) {
    struct pry_failure failure = pry_failure_of(PRY_SERVER);
    failure.sent = true;
    failure.status = status;
    pry_failure_set_code(&failure, PRY_SLICE("head_too_large"));
    pry_failure_set_message(&failure, PRY_SLICE("the answer's head has too many fields, or memory is short"));
    pry_call_attempt_failed(call, &failure);
    return;
  }
  if (answer->is_stream) {
    pry_stream_init(&call->stream, dialect, call->worker->engine->options.hold_limit);
    call->stream_open = true;
  }
}

static void first_byte(struct pry_call *call)
{
  if (call->got_byte)
    return;
  call->got_byte = true;
  pry_metrics_add(call->worker->engine->metrics, PRY_M_FIRST_BYTE, call->view.target.name, NULL,
                  pry_time_to_seconds(pry_loop_now(call->worker->loop) - call->sent_at));
}

static enum pry_http_flow give(struct pry_call *call, struct pry_slice data)
{
  if (data.size && !call->sink.data(call->user, data) && !call->paused) {
    call->paused = true;
    pry_timer_cancel(&call->phase_timer); /* a slow client is not the provider's silence */
  }
  return call->paused ? PRY_HTTP_PAUSE : PRY_HTTP_CONTINUE;
}

static void commit(struct pry_call *call, int64_t body_size)
{
  call->state = CALL_RELAY;
  pry_timer_cancel(&call->attempt_timer);
  pry_timer_cancel(&call->deadline_timer);
  if (call->route->max_stream)
    pry_call_start_timer(call, &call->stream_timer, call->route->max_stream, stream_too_long);
  pry_call_commit(call, body_size);
}

static void stream_broke(struct pry_call *call, const struct pry_stream_output *output)
{
  struct pry_failure failure = classify_answer(call, output->data, true, output->type);
  if (!call->committed) {
    pry_call_attempt_failed(call, &failure);
    return;
  }
  struct pry_buffer words; /* a provider's error may repeat our key: it is not the client's */
  pry_buffer_init(&words, 0);
  bool copied = pry_buffer_append_slice(&words, output->out);
  pry_scrubber_apply(call->worker->engine->scrubber, &words);
  if (copied)
    give(call, pry_buffer_slice(&words));
  pry_buffer_fini(&words);
  pry_call_finish_answer(call, &failure, copied);
}

static void out_of_memory(struct pry_call *call)
{
  struct pry_failure failure = pry_call_own_failure(PRY_UNKNOWN, "memory", "memory is short");
  failure.sent = true;
  if (call->committed)
    pry_call_finish_answer(call, &failure, false);
  else
    pry_call_attempt_failed(call, &failure);
}

static enum pry_http_flow on_stream_data(struct pry_call *call, struct pry_slice data)
{
  for (;;) {
    struct pry_stream_output output;
    switch (pry_stream_feed(&call->stream, &data, &output)) {
    case PRY_STREAM_MORE:
      if (!call->paused)
        start_idle_timer(call);
      return call->paused ? PRY_HTTP_PAUSE : PRY_HTTP_CONTINUE;
    case PRY_STREAM_OUTPUT:
      if (!call->committed)
        commit(call, -1);
      if (call->attempt_open)
        give(call, output.out);
      if (!call->attempt_open) /* the sink cancelled the call */
        return PRY_HTTP_CONTINUE;
      break;
    case PRY_STREAM_BROKEN:
      stream_broke(call, &output);
      return PRY_HTTP_CONTINUE;
    case PRY_STREAM_NO_MEMORY:
      out_of_memory(call);
      return PRY_HTTP_CONTINUE;
    }
  }
}

/* An ordinary body is held until it is whole; a long good one commits. A long bad one is cut: what a dialect reads
 * of it is bounded anyway, and the client then gets parry's rendering. */
static enum pry_http_flow on_body_data(struct pry_call *call, struct pry_slice data)
{
  struct call_answer *answer = &call->answer;
  size_t hold_limit = call->worker->engine->options.hold_limit;
  start_idle_timer(call);
  if (call->committed)
    return give(call, data);
  if (answer->body.size + data.size <= hold_limit) {
    if (!pry_buffer_append_slice(&answer->body, data))
      out_of_memory(call);
    return PRY_HTTP_CONTINUE;
  }
  if (answer->status >= 400) {
    struct pry_failure failure = classify_answer(call, pry_buffer_slice(&answer->body), false, PRY_SLICE(""));
    pry_call_attempt_failed(call, &failure);
    return PRY_HTTP_CONTINUE;
  }
  commit(call, answer->length);
  if (call->attempt_open)
    give(call, pry_buffer_slice(&answer->body));
  pry_buffer_fini(&answer->body);
  return call->attempt_open ? give(call, data) : PRY_HTTP_CONTINUE;
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct pry_call *call = user;
  first_byte(call);
  return call->answer.is_stream ? on_stream_data(call, data) : on_body_data(call, data);
}

static void stream_ended(struct pry_call *call)
{
  struct pry_slice rest;
  bool clean = pry_stream_finish(&call->stream, &rest);
  if (clean && call->committed) {
    give(call, rest);
    pry_call_finish_answer(call, NULL, false);
    return;
  }
  struct pry_failure failure = pry_failure_of(PRY_NETWORK);
  failure.sent = true;
  failure.status = call->answer.status;
  pry_failure_set_code(&failure, PRY_SLICE("truncated_stream"));
  pry_failure_set_message(&failure, PRY_SLICE("the stream ended without its end marker"));
  if (call->committed)
    pry_call_finish_answer(call, &failure, false);
  else
    pry_call_attempt_failed(call, &failure);
}

static void body_ended(struct pry_call *call)
{
  struct call_answer *answer = &call->answer;
  answer->complete = true;
  if (call->committed) {
    pry_call_finish_answer(call, NULL, false);
    return;
  }
  struct pry_failure failure = classify_answer(call, pry_buffer_slice(&answer->body), false, PRY_SLICE(""));
  if (failure.category != PRY_NONE) {
    pry_call_attempt_failed(call, &failure);
    return;
  }
  bool head_only = pry_slice_equal(call->view.method, PRY_SLICE("HEAD"));
  commit(call, head_only ? answer->length : (int64_t)answer->body.size);
  if (call->attempt_open)
    give(call, pry_buffer_slice(&answer->body));
  pry_call_finish_answer(call, NULL, false);
}

static void on_done(void *user, const struct pry_http_result *result)
{
  struct pry_call *call = user;
  call->exchange = NULL;
  bool stream_done = call->stream_open && call->stream.state == PRY_STREAM_ENDED;
  if (!result->curl_code || stream_done) {
    if (call->stream_open)
      stream_ended(call);
    else
      body_ended(call);
    return;
  }
  struct pry_failure failure = pry_failure_from_curl(result->curl_code, result->sent);
  pry_failure_set_message(&failure, pry_slice_of(result->message));
  if (call->committed)
    pry_call_finish_answer(call, &failure, false);
  else
    pry_call_attempt_failed(call, &failure);
}

static const struct pry_http_ops http_ops = {on_connected, on_head, on_data, on_done};

/* ---- injected faults ------------------------------------------------------------------------------------------ */

static void send_request(struct pry_call *call);

static void injection_end(void *user)
{
  struct pry_http_result result = {.connected = true, .sent = true, .head_received = true};
  on_done(user, &result);
}

/* Each step is armed before the one that may end the attempt, or the call with it: then it never fires. */
static void injection_body(void *user)
{
  struct pry_call *call = user;
  pry_call_start_timer(call, &call->wait_timer, 0, injection_end);
  if (call->injection.body.size)
    on_data(call, pry_buffer_slice(&call->injection.body));
}

/* Plays an answer that no provider gave, through the same functions as a real one. */
static void play_injection(void *user)
{
  struct pry_call *call = user;
  struct call_injection *injection = &call->injection;
  injection->armed = false;
  if (!injection->status && !injection->curl_code) {
    send_request(call);
    return;
  }
  if (injection->curl_code) {
    struct pry_http_result result = {.curl_code = injection->curl_code, .sent = injection->sent, .message = "injected"};
    on_done(call, &result);
    return;
  }
  on_connected(call);
  pry_call_start_timer(call, &call->wait_timer, 0, injection_body);
  on_head(call, injection->status, &injection->headers);
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

static void token_ready(struct pry_token_waiter *waiter, bool renewed, const char *why, void *user)
{
  (void)waiter;
  struct pry_call *call = user;
  call->wait_reason = NULL;
  if (renewed)
    pry_call_send(call);
  else
    refuse_here(call, PRY_AUTH, "no_token", why);
}

/* READY: call->token holds what goes on the wire. */
static enum pry_token_status get_token(struct pry_call *call, const char **why)
{
  const struct pry_auth *auth = &call->view.target.provider->auth;
  pry_buffer_clear(&call->token);
  if (auth->credential)
    return pry_credential_token(call->worker->engine->credentials, call->worker->mailbox, auth->credential->name,
                                &call->token, &call->token_version, &call->token_waiter, token_ready, call, why);
  if (!auth->secret)
    return PRY_TOKEN_READY;
  *why = "the provider's secret is missing; see `parry check`";
  return auth->secret->value && pry_buffer_append_text(&call->token, auth->secret->value) ? PRY_TOKEN_READY
                                                                                          : PRY_TOKEN_FAILED;
}

static void send_request(struct pry_call *call)
{
  const struct pry_timeouts *provider = &call->view.target.provider->timeouts;
  const struct pry_timeouts *route = &call->route->timeouts;
  struct pry_http_request request = {0};
  call->exchange = build_request(call, pry_buffer_slice(&call->token), &request)
                       ? pry_http_start(call->worker->http, &request, &http_ops, call)
                       : NULL;
  if (!call->exchange) {
    refuse_here(call, PRY_UNKNOWN, "memory", "memory is short");
    return;
  }
  call->state = CALL_SEND;
  call->sent_attempts++;
  pry_call_start_timer(call, &call->phase_timer, timeout_of(provider->connect, route->connect, PRY_CONNECT_DEFAULT),
                       connect_timed_out);
  pry_time attempt = timeout_of(provider->attempt, route->attempt, 0);
  if (attempt)
    pry_call_start_timer(call, &call->attempt_timer, attempt, attempt_timed_out);
}

void pry_call_send(struct pry_call *call)
{
  const char *why = "no token";
  switch (get_token(call, &why)) {
  case PRY_TOKEN_FAILED:
    refuse_here(call, PRY_AUTH, "no_token", why);
    return;
  case PRY_TOKEN_WAITING:
    call->state = CALL_TOKEN;
    call->wait_reason = "renewal";
    call->wait_began = pry_loop_now(call->worker->loop);
    return;
  case PRY_TOKEN_READY:
    break;
  }
  if (!call->injection.armed) {
    send_request(call);
    return;
  }
  call->state = CALL_SEND;
  call->sent_attempts += call->injection.status || call->injection.curl_code;
  pry_call_start_timer(call, &call->phase_timer, call->injection.delay, play_injection);
}

/* ---- the client's pace --------------------------------------------------------------------------------------------- */

void pry_call_resume(struct pry_call *call)
{
  if (!call->paused)
    return;
  call->paused = false;
  if (!call->exchange)
    return;
  start_idle_timer(call);
  pry_http_resume(call->exchange);
}
