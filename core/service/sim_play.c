#include "sim_internal.h"

#include <stdio.h>

enum { EVENTS_PER_TURN = 64 };

static void go_on(void *user);

/* The fault is in force: nothing more is sent, and only the client can end it. */
static void hang(struct pry_sim_call *call)
{
  call->hanging = true;
}

static void break_off(struct pry_sim_call *call)
{
  pry_reply_abort(call->exchange);
  pry_sim_call_done(call);
}

static void wait_seconds(struct pry_sim_call *call, double seconds, pry_timer_fn then)
{
  if (!pry_timer_start(call->sim->loop, &call->timer, pry_time_from_seconds(seconds), then, call))
    pry_sim_call_fail(call);
}

/* ---- Errors --------------------------------------------------------------------------------------------- */

static void reply_error(struct pry_sim_call *call)
{
  int status;
  pry_buffer_clear(&call->answer);
  if (!pry_sim_error_json(call, &call->fault, &call->answer, &status)) {
    pry_sim_call_fail(call);
    return;
  }
  if (call->fault.kind == PRY_SIM_ERROR_200 || call->fault.kind == PRY_SIM_ERROR_AFTER)
    status = 200;
  pry_sim_reply(call, status, "application/json", pry_buffer_slice(&call->answer));
}

static void send_error_event(struct pry_sim_call *call)
{
  pry_buffer_clear(&call->answer);
  if (!pry_sim_error_event(call, &call->fault, &call->answer)) {
    pry_sim_call_fail(call);
    return;
  }
  pry_reply_write(call->exchange, pry_buffer_slice(&call->answer));
  pry_reply_end(call->exchange);
  pry_sim_call_done(call);
}

static void reply_html(struct pry_sim_call *call)
{
  pry_sim_reply(call, 502, "text/html",
                PRY_SLICE("<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad "
                          "Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"));
}

static void reply_garbage(struct pry_sim_call *call)
{
  static const char BYTES[] = "\x16\x03\x01 this is not HTTP\r\n\r\n\x00\xff\xfe";
  pry_reply_raw(call->exchange, (struct pry_slice){BYTES, sizeof BYTES - 1});
  pry_sim_call_done(call);
}

/* ---- Answers -------------------------------------------------------------------------------------------- */

/* Is this where the fault breaks the answer? A stream breaks before or after its first content, a plain body in
 * its middle. */
static bool breaks_here(const struct pry_sim_call *call)
{
  enum pry_sim_fault_kind kind = call->fault.kind;
  if (kind != PRY_SIM_CUT && kind != PRY_SIM_CUT_AFTER && kind != PRY_SIM_STALL_AFTER && kind != PRY_SIM_ERROR_AFTER)
    return false;
  if (!call->stream)
    return call->event_next >= call->event_count / 2;
  bool content_next = call->events[call->event_next].content;
  if (kind == PRY_SIM_CUT)
    return content_next;
  return call->contents_sent >= 2 || (call->contents_sent == 1 && !content_next);
}

static void break_here(struct pry_sim_call *call)
{
  if (call->fault.kind == PRY_SIM_STALL_AFTER)
    hang(call);
  else if (call->fault.kind == PRY_SIM_ERROR_AFTER)
    send_error_event(call);
  else
    break_off(call);
}

static bool send_event(struct pry_sim_call *call)
{
  const struct pry_sim_event *event = &call->events[call->event_next];
  call->contents_sent += event->content;
  if (++call->event_repeated >= event->repeat) {
    call->event_repeated = 0;
    call->event_next++;
  }
  return pry_reply_write(call->exchange, (struct pry_slice){call->answer.data + event->start, event->size});
}

static void go_on(void *user)
{
  struct pry_sim_call *call = user;
  for (int sent = 0; call->event_next < call->event_count; sent++) {
    if (breaks_here(call)) {
      break_here(call);
      return;
    }
    if (sent == EVENTS_PER_TURN) {
      wait_seconds(call, 0, go_on);
      return;
    }
    if (!send_event(call)) {
      call->paused = true;
      return;
    }
    if (call->pace > 0 && call->event_next < call->event_count) {
      wait_seconds(call, call->pace, go_on);
      return;
    }
  }
  pry_reply_end(call->exchange);
  pry_sim_call_done(call);
}

void pry_sim_play_on(struct pry_sim_call *call)
{
  if (!call->paused)
    return;
  call->paused = false;
  go_on(call);
}

static void answer(struct pry_sim_call *call)
{
  if (call->fault.kind == PRY_SIM_SLOW)
    call->pace = call->fault.delay >= 0 ? call->fault.delay : 0.1;
  else if (!call->stream)
    call->pace = 0;
  bool made = call->stream ? pry_sim_answer_stream(call) : pry_sim_answer_json(call);
  if (!made || !pry_sim_start(call, 200, call->stream ? "text/event-stream; charset=utf-8" : "application/json",
                              call->stream ? -1 : (int64_t)call->answer.size))
    pry_sim_call_fail(call);
  else
    go_on(call);
}

static void begin(void *user)
{
  struct pry_sim_call *call = user;
  switch (call->fault.kind) {
  case PRY_SIM_STATUS:
  case PRY_SIM_KIMI:
    reply_error(call);
    return;
  case PRY_SIM_RESET:
    break_off(call);
    return;
  case PRY_SIM_HANG:
    hang(call);
    return;
  case PRY_SIM_GARBAGE:
    reply_garbage(call);
    return;
  case PRY_SIM_HTML_502:
    reply_html(call);
    return;
  case PRY_SIM_ERROR_200:
    if (!call->stream)
      reply_error(call);
    else if (pry_sim_start(call, 200, "text/event-stream; charset=utf-8", -1))
      send_error_event(call);
    else
      pry_sim_call_fail(call);
    return;
  case PRY_SIM_ERROR_AFTER:
    if (!call->stream) {
      reply_error(call);
      return;
    }
    break;
  case PRY_SIM_NO_FAULT:
  case PRY_SIM_CUT:
  case PRY_SIM_CUT_AFTER:
  case PRY_SIM_STALL_AFTER:
  case PRY_SIM_SLOW:
    break;
  }
  answer(call);
}

void pry_sim_play(struct pry_sim_call *call)
{
  if (call->fault.delay > 0 && call->fault.kind != PRY_SIM_SLOW)
    wait_seconds(call, call->fault.delay, begin);
  else
    begin(call);
}
