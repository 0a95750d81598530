/* Calls of a host's on their worker's thread: parry.h's sink of call.h. */
#include "parry_call_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { QUEUED_MAX = 256 * 1024 };

/* What cannot be kept for the host must not go missing unseen. */
static void give_up(struct pry_host_call *call)
{
  call->no_memory = true;
  pry_call_cancel(call->call);
}

static void host_head(void *user, int status, const struct pry_headers *headers, int64_t body_size)
{
  (void)body_size;
  struct pry_host_call *call = user;
  if (!call->ops.on_headers)
    return;
  struct parry_header *copy = pry_host_header_array(headers);
  if (!copy) {
    give_up(call);
    return;
  }
  pthread_mutex_lock(&call->lock);
  call->has_head = true;
  call->status = status;
  call->head = copy;
  call->head_count = headers->count;
  if (!call->cancelled)
    pry_host_call_tell(call);
  pthread_mutex_unlock(&call->lock);
}

static bool host_data(void *user, struct pry_slice data)
{
  struct pry_host_call *call = user;
  struct pry_host *host = call->host;
  if (!call->ops.on_data || call->no_memory)
    return true;
  pthread_mutex_lock(&call->lock);
  bool wanted = !call->cancelled;
  bool kept = wanted && pry_buffer_append_slice(&call->data, data);
  if (kept) {
    size_t all = atomic_fetch_add(&host->buffered, data.size) + data.size;
    call->held = call->held || call->data.size > QUEUED_MAX || all > host->options.max_buffered;
    if (!call->paused)
      pry_host_call_tell(call);
  }
  bool more = !call->held;
  pthread_mutex_unlock(&call->lock);
  if (wanted && !kept)
    give_up(call);
  return more || !kept;
}

static void fill_last_words(struct pry_last_words *last, const struct pry_outcome *outcome, bool truncated)
{
  const struct pry_failure *failure = &outcome->failure;
  last->outcome = (struct parry_outcome){.size = sizeof last->outcome,
                                         .ok = outcome->ok,
                                         .status = outcome->status,
                                         .category = pry_category_name(outcome->category),
                                         .code = last->code,
                                         .message = last->message,
                                         .why = last->why,
                                         .retry_after = outcome->ok || !failure->category ? -1 : failure->retry_after,
                                         .attempts = outcome->attempts,
                                         .target = last->target,
                                         .call_id = last->call_id,
                                         .generation = last->generation,
                                         .truncated = truncated};
  if (!outcome->ok) {
    memcpy(last->code, failure->code, sizeof last->code);
    memcpy(last->message, failure->message, sizeof last->message);
  }
}

/* The call has ended, or never began (then `about` is NULL). */
static void end_call(struct pry_host_call *call, const struct pry_call *about, const struct pry_outcome *outcome,
                     bool truncated)
{
  pthread_mutex_lock(&call->lock);
  struct pry_last_words *last = &call->last;
  fill_last_words(last, outcome, truncated);
  if (about) {
    const struct pry_call_view *view = pry_call_get_view(about);
    memcpy(last->target, view->target.name, sizeof last->target);
    memcpy(last->call_id, view->id, sizeof last->call_id);
    snprintf(last->why, sizeof last->why, "%s", pry_call_why(about));
    snprintf(last->generation, sizeof last->generation, "%s", pry_call_generation(about));
  }
  call->has_done = true;
  pry_host_call_tell(call);
  pthread_mutex_unlock(&call->lock);
  pry_host_call_let_go(call);
}

static struct pry_outcome failed_outcome(enum pry_category category, const char *code, const char *message)
{
  struct pry_outcome outcome = {.category = category, .failure = pry_failure_of(category)};
  outcome.status = category == PRY_CANCELLED ? 499 : pry_failure_client_status(&outcome.failure);
  pry_failure_set_code(&outcome.failure, pry_slice_of(code));
  pry_failure_set_message(&outcome.failure, pry_slice_of(message));
  return outcome;
}

static void host_done(void *user, const struct pry_outcome *outcome, bool truncated)
{
  struct pry_host_call *call = user;
  const struct pry_call *about = call->call;
  call->call = NULL;
  if (call->no_memory) {
    struct pry_outcome why = failed_outcome(PRY_UNKNOWN, "memory", "memory is short");
    why.attempts = outcome->attempts;
    end_call(call, about, &why, true);
  } else {
    end_call(call, about, outcome, truncated);
  }
}

static const struct pry_sink_ops host_sink = {host_head, host_data, host_done, NULL};

/* Nobody looks at the request any more. */
static void drop_request(struct pry_host_call *call)
{
  pry_buffer_fini(&call->text);
  pry_buffer_fini(&call->body);
  pry_headers_fini(&call->headers);
}

void pry_host_call_begin(struct pry_host_call *call, bool cancelled)
{
  struct pry_call_request request = {.method = call->method,
                                     .path = call->path,
                                     .query = call->query,
                                     .headers = &call->headers,
                                     .body = &call->body,
                                     .host = call->ops.on_attempt ? &pry_host_attempt_ops : NULL,
                                     .target = call->target};
  if (!cancelled)
    call->call = pry_call_start(call->worker, &request, &host_sink, call);
  drop_request(call);
  if (call->call)
    return;
  struct pry_outcome outcome =
      cancelled ? failed_outcome(PRY_CANCELLED, "", "the call was cancelled before it began")
                : failed_outcome(PRY_UNKNOWN, "memory", "memory is short, or bodies hold all that they may");
  end_call(call, NULL, &outcome, true);
}

void pry_host_call_take_orders(struct pry_message *ordered)
{
  struct pry_host_call *call = PRY_CONTAINER_OF(ordered, struct pry_host_call, ordered);
  pthread_mutex_lock(&call->lock);
  unsigned orders = call->orders;
  struct pry_told_end *end = call->attempts.end;
  call->orders = 0;
  call->attempts.end = NULL;
  pthread_mutex_unlock(&call->lock);
  if (orders & PRY_ORDER_START)
    pry_host_call_begin(call, orders & PRY_ORDER_CANCEL);
  else if (call->call && orders & PRY_ORDER_CANCEL)
    pry_call_cancel(call->call);
  else if (call->call && orders & PRY_ORDER_RESUME)
    pry_call_resume(call->call);
  if (call->call && end)
    pry_told_end_apply(end, call->call);
  pry_told_end_free(end);
  pry_host_call_let_go(call);
}
