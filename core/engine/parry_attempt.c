/* Attempts that the host makes: parry.h's on_attempt, on_abandon and parry_attempt_done(). */
#include "parry_call_internal.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { ANSWER_MAX = 16 * 1024 * 1024 };

struct pry_asked_attempt {
  unsigned number;
  double deadline; /* of CLOCK_MONOTONIC: it may wait for a host that is slow to dispatch */
  struct pry_target target;
  char provider[PRY_TARGET_MAX]; /* the policies may be others by then */
  struct pry_buffer body;
};

struct pry_told_end {
  unsigned number;
  struct pry_host_end end; /* points into the rest */
  struct pry_failure words;
  struct pry_headers headers;
  struct pry_buffer body;
};

/* ---- what the worker asks for ---------------------------------------------------------------------------------- */

static double monotonic(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void free_attempt(struct pry_asked_attempt *asked)
{
  if (asked)
    pry_buffer_fini(&asked->body);
  free(asked);
}

static struct pry_asked_attempt *copy_attempt(const struct pry_host_attempt *attempt)
{
  struct pry_asked_attempt *asked = calloc(1, sizeof *asked);
  if (!asked)
    return NULL;
  asked->number = attempt->number;
  asked->deadline = monotonic() + pry_time_to_seconds(attempt->left);
  asked->target = *attempt->target;
  memcpy(asked->provider, attempt->target->name, strcspn(attempt->target->name, "/"));
  pry_buffer_init(&asked->body, 0);
  if (pry_buffer_append_slice(&asked->body, attempt->body))
    return asked;
  free_attempt(asked);
  return NULL;
}

static void tell_attempt(const struct pry_asked_attempt *asked, const struct parry_call_ops *ops, void *user,
                         parry_call_id call)
{
  double left = asked->deadline - monotonic();
  struct parry_attempt told = {.size = sizeof told,
                               .call = call,
                               .number = asked->number,
                               .target = asked->target.name,
                               .provider = asked->provider,
                               .model = asked->target.model,
                               .deadline_left = left > 0 ? left : 0,
                               .body = asked->body.data,
                               .body_size = asked->body.size};
  ops->on_attempt(user, &told);
}

static bool host_attempt(void *user, const struct pry_host_attempt *attempt)
{
  struct pry_host_call *call = user;
  struct pry_asked_attempt *asked = copy_attempt(attempt);
  if (!asked)
    return false;
  pthread_mutex_lock(&call->lock);
  call->attempts.asked = asked;
  if (!call->cancelled)
    pry_host_call_tell(call);
  pthread_mutex_unlock(&call->lock);
  return true;
}

static void host_abandon(void *user, unsigned number)
{
  struct pry_host_call *call = user;
  pthread_mutex_lock(&call->lock);
  struct pry_host_attempts *attempts = &call->attempts;
  if (attempts->asked && attempts->asked->number == number) {
    free_attempt(attempts->asked);
    attempts->asked = NULL;
  }
  if (attempts->open == number) {
    attempts->open = 0;
    attempts->abandoned = number;
    pry_host_call_tell(call);
  }
  pthread_mutex_unlock(&call->lock);
}

const struct pry_host_ops pry_host_attempt_ops = {host_attempt, host_abandon};

/* ---- what the host is told ----------------------------------------------------------------------------------------- */

void pry_host_give_attempt(struct pry_host_call *call)
{
  struct pry_asked_attempt *asked = call->attempts.asked;
  call->attempts.asked = NULL;
  call->attempts.open = asked->number;
  pthread_mutex_unlock(&call->lock);
  tell_attempt(asked, &call->ops, call->user, call->id);
  free_attempt(asked);
  pthread_mutex_lock(&call->lock);
}

void pry_host_give_abandon(struct pry_host_call *call)
{
  unsigned number = call->attempts.abandoned;
  call->attempts.abandoned = 0;
  if (!call->ops.on_abandon)
    return;
  pthread_mutex_unlock(&call->lock);
  call->ops.on_abandon(call->user, call->id, number);
  pthread_mutex_lock(&call->lock);
}

void pry_host_attempts_fini(struct pry_host_attempts *attempts)
{
  free_attempt(attempts->asked);
  pry_told_end_free(attempts->end);
  *attempts = (struct pry_host_attempts){0};
}

/* ---- what the host says ------------------------------------------------------------------------------------------- */

static bool is_end(const struct parry_event *event)
{
  bool known = event->ok || ((!event->category || pry_category_from_name(pry_slice_of(event->category)) != PRY_NONE) &&
                             isfinite(event->retry_after));
  return !event->name && (!event->status || (event->status >= 100 && event->status < 600)) && known &&
         (!event->body_size || event->body) && event->body_size <= ANSWER_MAX &&
         (!event->header_count || event->headers);
}

static int copy_answer(struct pry_told_end *told, const struct parry_event *event)
{
  int error = pry_host_headers(event->headers, event->header_count, &told->headers);
  if (error)
    return error;
  if (!pry_buffer_append(&told->body, event->body, event->body_size))
    return PARRY_ENOMEM;
  told->end = (struct pry_host_end){.ok = event->ok,
                                    .status = event->status,
                                    .curl_code = event->curl_code,
                                    .category = event->category ? pry_category_from_name(pry_slice_of(event->category))
                                                                : PRY_NONE,
                                    .code = told->words.code,
                                    .message = told->words.message,
                                    .retry_after = event->retry_after,
                                    .not_sent = event->not_sent,
                                    .headers = &told->headers,
                                    .body = pry_buffer_slice(&told->body)};
  pry_failure_set_code(&told->words, pry_slice_of(event->code ? event->code : ""));
  pry_failure_set_message(&told->words, pry_slice_of(event->message ? event->message : ""));
  return PARRY_OK;
}

static int copy_end(const struct parry_event *event, unsigned number, struct pry_told_end **out)
{
  *out = NULL;
  if (!is_end(event))
    return PARRY_EINVAL;
  struct pry_told_end *told = calloc(1, sizeof *told);
  if (!told)
    return PARRY_ENOMEM;
  told->number = number;
  pry_headers_init(&told->headers);
  pry_buffer_init(&told->body, 0);
  int error = copy_answer(told, event);
  if (error)
    pry_told_end_free(told);
  else
    *out = told;
  return error;
}

void pry_told_end_apply(const struct pry_told_end *told, struct pry_call *call)
{
  pry_call_attempt_ended(call, told->number, &told->end);
}

void pry_told_end_free(struct pry_told_end *told)
{
  if (told) {
    pry_headers_fini(&told->headers);
    pry_buffer_fini(&told->body);
  }
  free(told);
}

int parry_attempt_done(parry *handle, parry_call_id id, unsigned number, const struct parry_event *event)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct parry_event said;
  struct pry_told_end *end;
  if (!host)
    return error;
  if (!event || !pry_host_take(&said, sizeof said, event))
    return PARRY_EINVAL;
  error = copy_end(&said, number, &end);
  if (error)
    return error;
  struct pry_host_call *call = pry_host_call_find(host, id);
  bool wanted = call && number && number == call->attempts.open && !call->cancelled;
  if (wanted) {
    struct pry_told_end *before = call->attempts.end; /* of an attempt that was given up since: nobody wants it */
    call->attempts.open = 0;
    call->attempts.end = end;
    end = before;
    pry_host_call_order(call, PRY_ORDER_ENDED);
  }
  if (call)
    pthread_mutex_unlock(&call->lock);
  pry_told_end_free(end);
  return wanted ? PARRY_OK : PARRY_ENOENT;
}
