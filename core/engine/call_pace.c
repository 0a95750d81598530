/* Streams that come too slowly, and clients that wait for one. */
#include "call_internal.h"

/* Between two comments to a client that waits: idle timeouts on the way are seldom below 30 s. */
#define KEEPALIVE (10 * PRY_SECOND)

/* ---- slow_stream ------------------------------------------------------------------------------------------- */

static void window_ended(void *user);

static void start_window(struct pry_call *call)
{
  call->pace.seen = call->stream.news;
  call->pace.left = -1;
  pry_call_start_timer(call, &call->pace_timer, call->route->slow_window, window_ended);
}

/* A window with too few events in it. After the commit the client may prefer a slow answer to none. */
static void window_ended(void *user)
{
  struct pry_call *call = user;
  double wanted = call->route->slow_events * pry_time_to_seconds(call->route->slow_window);
  if (call->stream.state == PRY_STREAM_ENDED || !call->route->slow_window)
    return;
  if ((double)(call->stream.news - call->pace.seen) >= wanted)
    start_window(call);
  else if (call->committed && !call->route->slow_cut)
    call->pace.failed = true;
  else
    pry_call_stream_failed(call, PRY_STREAM_FAULT_TOO_SLOW);
}

void pry_call_watch_pace(struct pry_call *call)
{
  call->pace = (struct call_pace){.left = -1};
  if (call->route->slow_window)
    start_window(call);
}

void pry_call_rest_pace(struct pry_call *call)
{
  if (!pry_timer_running(&call->pace_timer))
    return;
  pry_time left = call->pace_timer.due - pry_loop_now(call->worker->loop);
  pry_timer_cancel(&call->pace_timer);
  call->pace.left = left > 0 ? left : 0;
}

void pry_call_go_on_pace(struct pry_call *call)
{
  if (call->pace.left < 0 || !call->stream_open)
    return;
  pry_call_start_timer(call, &call->pace_timer, call->pace.left, window_ended);
  call->pace.left = -1;
}

void pry_call_stop_pace(struct pry_call *call)
{
  pry_timer_cancel(&call->pace_timer);
  call->pace.left = -1;
}

/* ---- early_head -------------------------------------------------------------------------------------------- */

static bool send_head(struct pry_call *call)
{
  struct pry_headers headers;
  pry_headers_init(&headers);
  bool ok =
      pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("text/event-stream")) &&
      pry_headers_add(&headers, PRY_SLICE("Cache-Control"), PRY_SLICE("no-cache")) &&
      pry_headers_add(&headers, PRY_SLICE("X-Accel-Buffering"), PRY_SLICE("no")) && /* nginx would keep them back */
      pry_headers_add(&headers, PRY_SLICE("parry-call-id"), pry_slice_of(call->view.id));
  if (ok) {
    call->early = true;
    call->sink.head(call->user, 200, &headers, -1);
  }
  pry_headers_fini(&headers);
  return ok && !call->cancelled;
}

/* Armed anew first: the sink may cancel the call, and this timer with it. */
static void keep_waiting(void *user)
{
  struct pry_call *call = user;
  pry_call_start_timer(call, &call->early_timer, KEEPALIVE, keep_waiting);
  if (call->early || send_head(call))
    call->sink.data(call->user, PRY_SLICE(": waiting for the provider\n\n"));
}

void pry_call_start_early(struct pry_call *call)
{
  if (call->route->early_head && call->is_json && call->json.stream.type == PRY_JSON_TRUE)
    pry_call_start_timer(call, &call->early_timer, call->route->early_head, keep_waiting);
}

bool pry_call_refuse_body(struct pry_call *call)
{
  if (!call->early)
    return false;
  struct pry_failure failure = pry_failure_of(PRY_SERVER);
  failure.sent = true;
  failure.status = call->answer.status;
  pry_failure_set_code(&failure, PRY_SLICE("not_a_stream"));
  pry_failure_set_message(&failure, PRY_SLICE("a stream was asked for, and the provider answered with something else"));
  pry_call_attempt_failed(call, &failure);
  return true;
}
