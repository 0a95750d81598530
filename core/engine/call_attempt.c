#include "call_internal.h"

#include <stdio.h>
#include <stdlib.h>

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
  pry_timer_cancel(&call->decode_timer);
}

static void remember_error(struct pry_call *call, const struct pry_attempt *attempt)
{
  struct pry_recent_error error = {.time = attempt->ended,
                                   .category = attempt->category,
                                   .source = attempt->failure.source,
                                   .status = attempt->status,
                                   .attempt = (unsigned)call->view.ledger_count,
                                   .refused = attempt->refused};
  memcpy(error.call_id, call->view.id, sizeof error.call_id);
  memcpy(error.target, attempt->target, sizeof error.target);
  memcpy(error.code, attempt->failure.code, sizeof error.code);
  pry_recent_errors_add(call->worker->engine->recent_errors, &error);
}

void pry_call_close_attempt(struct pry_call *call, const struct pry_failure *failure)
{
  struct pry_attempt *attempt = &call->ledger[call->view.ledger_count - 1];
  bool was_sent = call->state == CALL_SEND || call->state == CALL_HEAD || call->state == CALL_RELAY;
  pry_call_stop_upload(call);
  pry_call_stop_pace(call);
  stop_attempt_timers(call);
  if (call->exchange)
    pry_http_cancel(call->exchange);
  call->exchange = NULL;
  pry_call_abandon(call);
  if (call->stream_open)
    pry_tokens_merge(&call->tokens, &call->stream.tokens);
  if (call->stream_open && !call->cancelled) { /* else the sink may be reading what it holds: free_call() */
    pry_stream_fini(&call->stream);
    pry_decoder_free(call->decoder);
    call->decoder = NULL;
    call->stream_open = false;
  }
  pry_buffer_clear(&call->undecoded);
  pry_call_settle(call, attempt);
  pry_call_end_translation(call);
  call->injection.armed = false;
  call->attempt_open = false;
  pry_permits_release_unobserved(&call->attempt_permits);
  attempt->ended = pry_loop_unix_time(call->worker->loop);
  attempt->status = call->answer.status;
  if (attempt->status && !call->got_byte)
    attempt->first_byte = pry_time_to_seconds(pry_loop_now(call->worker->loop) - call->send_began);
  if (failure) {
    attempt->category = failure->category;
    attempt->failure = *failure;
  }
  attempt->refused = !was_sent;
  if (failure && failure->category != PRY_CANCELLED)
    remember_error(call, attempt);
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
  answer->coding = PRY_CODING_NONE;
  answer->unreadable = false;
  answer->broken = false;
  answer->pass_at_once = false;
  answer->may_be_stream = false;
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
  call->tokens = (struct pry_tokens){0};
  pry_buffer_clear(&call->tail);
  if (!open_ledger_entry(call)) {
    call->failure = pry_call_own_failure(PRY_UNKNOWN, "memory", "memory is short");
    pry_call_finish_failure(call);
    return;
  }
  if (!call->target_permit)
    call->target_permit =
        pry_budget_call(call->worker->engine->budgets, pry_slice_of(call->view.target.name), call->client_retry);
  if (!call->host)
    pry_call_pick_key(call);
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

/* Byte for byte what the client sent, but for the model when the target's is another; or what a translation made. */
bool pry_call_build_body(struct pry_call *call, struct pry_http_request *request, struct pry_failure *failure)
{
  struct pry_slice *body = &request->body;
  bool same_model = strcmp(call->view.target.model, call->view.model) == 0 || !call->view.target.model[0];
  if (call->translation.active)
    return pry_call_translate_request(call, body, failure);
  if (call->upload.streamed)
    return pry_call_build_upload(call, call->is_json && !same_model, request);
  *body = pry_buffer_slice(&call->body);
  if (!pry_call_strip_request(call, body, failure))
    return false;
  if (!call->is_json || call->json.model.type != PRY_JSON_STRING || same_model)
    return true;
  pry_buffer_clear(&call->out_body);
  if (pry_json_splice_model(*body, pry_slice_of(call->view.target.model), &call->out_body) != PRY_JSON_OK)
    return false;
  *body = pry_buffer_slice(&call->out_body);
  return true;
}

static bool build_url(struct pry_call *call, const char *base_url)
{
  const char *path = pry_call_translated_path(call);
  return path ? pry_join_api_url(&call->url, base_url, path)
              : pry_join_url(&call->url, base_url, call->rest, call->query);
}

static bool build_request(struct pry_call *call, struct pry_slice token, struct pry_http_request *request,
                          struct pry_failure *failure)
{
  const struct pry_provider *provider = call->view.target.provider;
  pry_buffer_clear(&call->url);
  pry_headers_clear(&call->out_headers);
  if (!pry_headers_add_all(&call->out_headers, &call->headers) || !pry_call_build_body(call, request, failure) ||
      !build_url(call, provider->base_url))
    return false;
  for (size_t i = 0; i < call->added.count; i++) {
    struct pry_header line = pry_headers_at(&call->added, i);
    if (!pry_headers_set(&call->out_headers, line.name, line.value))
      return false;
  }
  if (!add_auth(call, &provider->auth, token))
    return false;
  request->method = call->text.data; /* NUL-terminated by copy_request() */
  request->url = pry_buffer_text(&call->url);
  request->headers = &call->out_headers;
  request->has_body = request->body.size || pry_slice_equal(call->view.method, PRY_SLICE("POST")) ||
                      pry_slice_equal(call->view.method, PRY_SLICE("PUT")) ||
                      pry_slice_equal(call->view.method, PRY_SLICE("PATCH"));
  return request->url;
}

/* ---- injected faults ------------------------------------------------------------------------------------------ */

static void send_request(struct pry_call *call);

static void injection_end(void *user)
{
  struct pry_http_result result = {.connected = true, .sent = true, .head_received = true};
  pry_call_http_ops.on_done(user, &result);
}

/* Each step is armed before the one that may end the attempt, or the call with it: then it never fires. */
static void injection_body(void *user)
{
  struct pry_call *call = user;
  pry_call_start_timer(call, &call->wait_timer, 0, injection_end);
  if (call->injection.body.size)
    pry_call_http_ops.on_data(call, pry_buffer_slice(&call->injection.body));
}

/* Plays an answer that no provider gave, through the same functions as a real one. */
static void play_injection(void *user)
{
  struct pry_call *call = user;
  struct call_injection *injection = &call->injection;
  injection->armed = false;
  if (!injection->status && !injection->curl_code) {
    call->state = CALL_PREPARE; /* the delay is over, but nothing is sent yet: it may not come to that */
    send_request(call);
    return;
  }
  if (injection->curl_code) {
    struct pry_http_result result = {.curl_code = injection->curl_code, .sent = injection->sent, .message = "injected"};
    pry_call_http_ops.on_done(call, &result);
    return;
  }
  pry_call_await_answer(call);
  pry_call_start_timer(call, &call->wait_timer, 0, injection_body);
  pry_call_http_ops.on_head(call, injection->status, &injection->headers);
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

static void token_ready(struct pry_token_waiter *waiter, bool renewed, const char *why, void *user)
{
  (void)waiter;
  struct pry_call *call = user;
  pry_call_end_wait(call);
  if (renewed)
    pry_call_send(call);
  else
    refuse_here(call, PRY_AUTH, "no_token", why);
}

static void token_too_late(void *user)
{
  struct pry_call *call = user;
  pry_token_leave(&call->token_waiter);
  pry_call_end_wait(call);
  refuse_here(call, PRY_TIMEOUT, "max_wait", "the credential was not renewed within the route's max_wait");
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
  const struct pry_secret *key = pry_call_key(call);
  *why = key ? "memory is short" : "the provider's secret is missing; see `parry check`";
  return key && pry_buffer_append_text(&call->token, key->value) ? PRY_TOKEN_READY : PRY_TOKEN_FAILED;
}

/* Every key of the provider is out of order, or at its limit. */
static void refuse_without_key(struct pry_call *call, pry_time wait)
{
  bool paused = wait >= 0;
  struct pry_failure failure =
      pry_call_own_failure(paused ? PRY_RATE_LIMIT : PRY_AUTH, "no_usable_key",
                           paused ? "every key of the provider has met its limit"
                                  : "every key of the provider is retired; see `parry status`");
  failure.retry_after = paused ? pry_time_to_seconds(wait) : -1;
  pry_call_attempt_failed(call, &failure);
}

/* The client has its own copies, and a long stream should not hold these, too. */
static void forget_request(struct pry_call *call)
{
  if (call->out_headers.text.data) /* our credential is in there */
    explicit_bzero(call->out_headers.text.data, call->out_headers.text.capacity);
  pry_headers_fini(&call->out_headers);
  pry_buffer_fini(&call->url);
}

static void send_request(struct pry_call *call)
{
  if (call->host) {
    pry_call_ask_host(call);
    return;
  }
  const struct pry_timeouts *provider = &call->view.target.provider->timeouts;
  const struct pry_timeouts *route = &call->route->timeouts;
  struct pry_http_request request = {0};
  struct pry_failure failure = pry_call_own_failure(PRY_UNKNOWN, "memory", "memory is short");
  call->exchange = build_request(call, pry_buffer_slice(&call->token), &request, &failure)
                       ? pry_http_start(call->worker->http, &request, &pry_call_http_ops, call)
                       : NULL;
  forget_request(call);
  if (!call->exchange) {
    pry_call_attempt_failed(call, &failure);
    return;
  }
  call->state = CALL_SEND;
  call->sent_attempts++;
  pry_call_await_connection(call);
  pry_time attempt = pry_call_timeout(provider->attempt, route->attempt, 0);
  if (attempt)
    pry_call_start_timer(call, &call->attempt_timer, attempt, pry_call_attempt_timed_out);
}

/* Key, token and translation are there. False: the attempt waits for them, or has failed. */
static bool is_equipped(struct pry_call *call)
{
  const char *why = "no token";
  pry_time wait;
  if (call->host)
    return true;
  if (call->view.target.provider->host) {
    refuse_here(call, PRY_NOT_FOUND, "host_only",
                "only a program that makes its attempts itself can use this provider (host = true)");
    return false;
  }
  if (!pry_call_has_key(call, &wait)) {
    refuse_without_key(call, wait);
    return false;
  }
  pry_call_begin_translation(call);
  switch (get_token(call, &why)) {
  case PRY_TOKEN_FAILED:
    refuse_here(call, PRY_AUTH, "no_token", why);
    return false;
  case PRY_TOKEN_WAITING:
    pry_call_begin_wait(call, CALL_TOKEN, "renewal");
    pry_call_limit_wait(call, token_too_late);
    return false;
  case PRY_TOKEN_READY:
    return true;
  }
  return false;
}

void pry_call_send(struct pry_call *call)
{
  if (!is_equipped(call))
    return;
  call->send_began = pry_loop_now(call->worker->loop);
  if (!call->injection.armed) {
    send_request(call);
    return;
  }
  call->state = CALL_SEND;
  bool played = call->injection.status || call->injection.curl_code;
  call->sent_attempts += played;
  call->ledger[call->view.ledger_count - 1].injected = played;
  pry_call_start_timer(call, &call->phase_timer, call->injection.delay, play_injection);
}
