#include "call_internal.h"

void pry_call_begin_wait(struct pry_call *call, enum call_state state, const char *reason)
{
  call->state = state;
  call->wait_began = pry_loop_now(call->worker->loop);
  call->wait_reason = reason;
}

void pry_call_end_wait(struct pry_call *call)
{
  if (!call->wait_reason)
    return;
  pry_time lasted = pry_loop_now(call->worker->loop) - call->wait_began;
  pry_timer_cancel(&call->wait_timer);
  pry_metrics_add(call->worker->engine->metrics, PRY_M_WAIT, call->wait_reason, NULL, pry_time_to_seconds(lasted));
  call->waited += lasted;
  call->wait_reason = NULL;
}

pry_time pry_call_wait_left(const struct pry_call *call)
{
  pry_time left = pry_call_deadline_left(call), most = call->route->max_wait;
  if (!most)
    return left;
  most = call->waited < most ? most - call->waited : 0;
  return most < left ? most : left;
}

void pry_call_limit_wait(struct pry_call *call, pry_timer_fn expired)
{
  pry_time left = pry_call_wait_left(call);
  if (left < pry_call_deadline_left(call))
    pry_call_start_timer(call, &call->wait_timer, left, expired);
}

void pry_call_stop_waiting(struct pry_call *call)
{
  pry_call_end_wait(call);
  pry_timer_cancel(&call->wait_timer);
  pry_queue_leave(&call->queue_waiter);
  pry_token_leave(&call->token_waiter);
  if (call->pass.running && !pry_handler_decides(call->pass.ask.handler))
    pry_pass_hurry(&call->pass);
  pry_pass_stop(&call->pass);
}
