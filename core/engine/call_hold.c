#include "call_internal.h"

/* A hold that cannot end in time: a refused attempt, or a failed request, in the verdict's words if it has some.
 * retry_in: until a place may be free; negative: nobody knows. */
static void hold_failed(struct pry_call *call, enum pry_category category, const char *message, pry_time retry_in)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  struct pry_failure failure =
      pry_call_own_failure(verdict->category ? verdict->category : category, verdict->code[0] ? verdict->code : "hold",
                           verdict->message[0] ? verdict->message : message);
  failure.retry_after = retry_in >= 0 ? pry_time_to_seconds(retry_in) : verdict->after;
  pry_call_end_wait(call);
  pry_timer_cancel(&call->wait_timer);
  pry_queue_leave(&call->queue_waiter);
  if (call->pass.ask.handler == PRY_ON_REQUEST) {
    pry_call_fail_request(call, &failure);
    return;
  }
  pry_pass_stop(&call->pass);
  pry_call_attempt_failed(call, &failure);
}

static void hold_in_vain(struct pry_call *call, const char *message)
{
  struct pry_queue_state state;
  pry_queue_look(call->worker->engine->queues, pry_slice_of(call->pass.ask.verdict.key),
                 pry_loop_now(call->worker->loop), &state);
  hold_failed(call, PRY_RATE_LIMIT, message, state.next_in > 0 ? state.next_in : -1);
}

static void hold_expired(void *user)
{
  struct pry_call *call = user;
  pry_queue_leave(&call->queue_waiter);
  hold_in_vain(call, "no place became free within the longest wait");
}

static void hold_granted(struct pry_call *call, struct pry_permit *permit)
{
  pry_call_end_wait(call);
  pry_timer_cancel(&call->wait_timer);
  pry_permits_add(call->pass.ask.permits, permit);
  pry_call_resume_pass(call);
}

/* The time the verdict allows for waiting, the deadline's included. */
static pry_time longest_hold(const struct pry_call *call, const struct pry_verdict *verdict)
{
  pry_time left = pry_call_wait_left(call);
  if (verdict->max_wait < 0)
    return left;
  pry_time most = pry_time_from_seconds(verdict->max_wait);
  return most < left ? most : left;
}

static void queue_granted(struct pry_queue_waiter *waiter, struct pry_permit *permit, void *user)
{
  (void)waiter;
  if (permit)
    hold_granted(user, permit);
  else
    hold_in_vain(user, "no place becomes free within the longest wait");
}

static struct pry_queue_rule rule_of(const struct pry_verdict *verdict, pry_time longest)
{
  bool only_key = !verdict->slots && !verdict->limit && !(verdict->rate > 0);
  return (struct pry_queue_rule){.gate = {.slots = only_key ? 1 : (unsigned)verdict->slots,
                                          .limit = (unsigned)verdict->limit,
                                          .per = pry_time_from_seconds(verdict->per),
                                          .rate = verdict->rate,
                                          .burst = verdict->burst > 0 ? verdict->burst : verdict->rate > 0},
                                 .cost = verdict->cost,
                                 .max_waiting = verdict->max_waiting >= 0 ? verdict->max_waiting : PRY_QUEUE_ANY,
                                 .longest = longest};
}

static void enter_queue(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  pry_time longest = longest_hold(call, verdict);
  bool own_bound = longest < pry_call_deadline_left(call);
  struct pry_queue_rule rule = rule_of(verdict, longest);
  struct pry_queue_answer answer;
  switch (pry_queue_enter(call->worker->engine->queues, call->worker->mailbox, pry_slice_of(verdict->key), &rule,
                          &call->queue_waiter, queue_granted, call, &answer)) {
  case PRY_QUEUE_GRANTED:
    hold_granted(call, answer.permit);
    return;
  case PRY_QUEUE_WAITING:
    break;
  case PRY_QUEUE_FULL:
    hold_failed(call, PRY_RATE_LIMIT, "the line is full", answer.retry_in);
    return;
  case PRY_QUEUE_LATE:
    hold_failed(call, PRY_RATE_LIMIT,
                own_bound ? "no place becomes free within the longest wait" : "no place becomes free in time",
                answer.retry_in);
    return;
  case PRY_QUEUE_NO_MEMORY:
    hold_failed(call, PRY_RATE_LIMIT, "memory is short", -1);
    return;
  }
  pry_call_begin_wait(call, CALL_HOLD, "hold");
  if (own_bound)
    pry_call_start_timer(call, &call->wait_timer, longest, hold_expired);
}

/* What the time has taken of the longest wait is not there for the place. */
static void use_up_wait(struct pry_call *call)
{
  struct pry_verdict *verdict = &call->pass.ask.verdict;
  if (!call->wait_reason || verdict->max_wait < 0)
    return;
  verdict->max_wait -= pry_time_to_seconds(pry_loop_now(call->worker->loop) - call->wait_began);
  if (verdict->max_wait < 0)
    verdict->max_wait = 0;
}

static void hold_time_came(void *user)
{
  struct pry_call *call = user;
  use_up_wait(call);
  pry_call_end_wait(call);
  if (call->pass.ask.verdict.key[0])
    enter_queue(call);
  else
    pry_call_resume_pass(call);
}

void pry_call_hold(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  double wait = verdict->until_time > 0 ? verdict->until_time - pry_loop_unix_time(call->worker->loop) : 0;
  if (wait <= 0) {
    hold_time_came(call);
    return;
  }
  pry_time until = pry_time_from_seconds(wait);
  if (until > longest_hold(call, verdict)) {
    bool deadline = until > pry_call_deadline_left(call) && call->pass.ask.handler == PRY_ON_REQUEST;
    hold_failed(call, deadline ? PRY_TIMEOUT : PRY_RATE_LIMIT, "the time to wait for is too far away", until);
    return;
  }
  pry_call_begin_wait(call, CALL_HOLD, "hold");
  pry_call_start_timer(call, &call->wait_timer, until, hold_time_came);
}
