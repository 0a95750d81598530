#include "call_internal.h"

#include "retry_after.h"

void pry_call_ask_host(struct pry_call *call)
{
  pry_time attempt = pry_call_timeout(call->view.target.provider->timeouts.attempt, call->route->timeouts.attempt, 0);
  pry_time left = pry_call_deadline_left(call);
  struct pry_http_request request = {0};
  struct pry_failure failure = pry_call_own_failure(PRY_UNKNOWN, "memory", "memory is short");
  bool built = pry_call_build_body(call, &request, &failure);
  struct pry_host_attempt asked = {.number = call->sent_attempts + 1,
                                   .target = &call->view.target,
                                   .left = attempt && attempt < left ? attempt : left,
                                   .body = request.body};
  if (!built || !call->host->attempt(call->user, &asked)) {
    pry_call_attempt_failed(call, &failure);
    return;
  }
  call->state = CALL_SEND;
  call->host_attempt = ++call->sent_attempts;
  pry_call_sent(call);
  if (attempt)
    pry_call_start_timer(call, &call->attempt_timer, attempt, pry_call_attempt_timed_out);
}

void pry_call_abandon(struct pry_call *call)
{
  unsigned number = call->host_attempt;
  call->host_attempt = 0;
  if (number)
    call->host->abandon(call->user, number);
}

/* ---- how it ended -------------------------------------------------------------------------------------------- */

/* By what is beside the host's own category. */
static struct pry_failure classify(struct pry_call *call, const struct pry_host_end *end)
{
  struct pry_failure failure = {0};
  if (end->curl_code)
    return pry_failure_from_curl(end->curl_code, pry_curl_code_sent(end->curl_code));
  if (end->status || end->body.size)
    failure = pry_call_classify_answer(call, end->body, false, PRY_SLICE(""));
  if (failure.category != PRY_NONE)
    return failure;
  failure = pry_failure_of(PRY_UNKNOWN);
  failure.status = end->status;
  failure.sent = true;
  double seconds;
  if (pry_retry_after(&call->answer.headers, pry_loop_unix_time(call->worker->loop), &seconds))
    failure.retry_after = seconds;
  return failure;
}

static struct pry_failure failure_of(struct pry_call *call, const struct pry_host_end *end)
{
  struct pry_scrubber *scrubber = call->worker->engine->scrubber;
  struct pry_failure failure = classify(call, end);
  if (end->category != PRY_NONE)
    pry_failure_set_category(&failure, end->category);
  if (end->code && end->code[0])
    pry_failure_set_code(&failure, pry_slice_of(end->code));
  if (end->message && end->message[0])
    pry_failure_set_message(&failure, pry_slice_of(end->message));
  if (end->retry_after > 0)
    failure.retry_after = end->retry_after < PRY_RETRY_AFTER_MAX ? end->retry_after : PRY_RETRY_AFTER_MAX;
  if (end->not_sent)
    failure.sent = false;
  pry_scrubber_apply_text(scrubber, failure.code);
  pry_scrubber_apply_text(scrubber, failure.message);
  return failure;
}

static void take_answer(struct pry_call *call, const struct pry_host_end *end)
{
  pry_call_begin_relay(call, (int64_t)end->body.size);
  if (call->attempt_open)
    pry_call_give(call, end->body);
  pry_call_finish_answer(call, NULL, false);
}

/* The host may have its own error back, as it came, when it is the last. */
static void keep_error(struct pry_call *call, const struct pry_host_end *end)
{
  struct call_answer *answer = &call->answer;
  answer->client_shaped = true;
  answer->complete = end->body.size && end->body.size <= pry_call_hold_limit(call) &&
                     pry_buffer_append_slice(&answer->body, end->body);
}

bool pry_call_attempt_ended(struct pry_call *call, unsigned number, const struct pry_host_end *end)
{
  if (!number || number != call->host_attempt)
    return false;
  call->host_attempt = 0;
  call->state = CALL_HEAD;
  call->answer.status = end->ok && !end->status ? 200 : end->status;
  if (end->headers && !pry_headers_add_all(&call->answer.headers, end->headers)) {
    pry_call_out_of_memory(call);
    return true;
  }
  if (end->ok || end->status)
    pry_call_first_byte(call);
  if (end->ok) {
    pry_usage_read(&call->view.target.provider->dialect->usage, end->body, &call->tokens);
    take_answer(call, end);
    return true;
  }
  keep_error(call, end);
  struct pry_failure failure = failure_of(call, end);
  pry_call_attempt_failed(call, &failure);
  return true;
}
