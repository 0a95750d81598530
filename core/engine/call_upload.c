/* Bodies that are longer than what is kept: they go through this call once, from its client to one attempt. */
#include "call_internal.h"

/* Beyond this many bytes the client is told to wait. What it had sent already comes on top. */
enum { WAITING_HIGH = 64 * 1024 };

/* ---- the clocks ---------------------------------------------------------------------------------------- */

static pry_time stop_clock(struct pry_call *call, struct pry_timer *timer)
{
  if (!pry_timer_running(timer))
    return -1;
  pry_time left = timer->due - pry_loop_now(call->worker->loop);
  pry_timer_cancel(timer);
  return left > 0 ? left : 0;
}

static void go_on(struct pry_call *call, struct pry_timer *timer, pry_time left)
{
  if (left >= 0)
    pry_call_start_timer(call, timer, left, timer->fire);
}

/* What the client takes to send its body is no fault of the provider's, and would not count if the body were kept. */
static void wait_for_client(struct pry_call *call)
{
  struct call_upload *upload = &call->upload;
  if (upload->waits_for_client)
    return;
  upload->waits_for_client = true;
  upload->waiting_since = pry_loop_now(call->worker->loop);
  pry_timer_cancel(&call->phase_timer);
  upload->attempt_left = stop_clock(call, &call->attempt_timer);
  upload->deadline_left = stop_clock(call, &call->deadline_timer);
}

static void client_came(struct pry_call *call)
{
  struct call_upload *upload = &call->upload;
  if (!upload->waits_for_client)
    return;
  upload->waits_for_client = false;
  call->view.deadline += pry_loop_now(call->worker->loop) - upload->waiting_since;
  go_on(call, &call->attempt_timer, upload->attempt_left);
  go_on(call, &call->deadline_timer, upload->deadline_left);
}

static void stalled(void *user)
{
  pry_call_timed_out(user, "upload_stalled", "the provider stopped taking the request: nothing within the idle timeout",
                     true);
}

void pry_call_upload_goes_on(struct pry_call *call)
{
  if (!call->paused)
    pry_call_start_timer(call, &call->phase_timer, pry_call_idle_timeout(call), stalled);
}

bool pry_call_is_uploading(const struct pry_call *call)
{
  return call->upload.streamed && !call->upload.complete;
}

void pry_call_stop_upload(struct pry_call *call)
{
  client_came(call);
}

/* ---- what the attempt takes ------------------------------------------------------------------------------ */

/* Sent bytes are not kept: there is no second attempt that could want them. */
static void forget_start(struct pry_call *call)
{
  pry_buffer_fini(&call->body);
  pry_buffer_fini(&call->out_body);
  pry_engine_give_replay(call->worker->engine, call->replay_bytes);
  call->replay_bytes = 0;
  call->upload.start = (struct pry_slice){NULL, 0};
}

static size_t take_start(struct pry_call *call, char *to, size_t room)
{
  struct pry_slice *start = &call->upload.start;
  size_t size = start->size < room ? start->size : room;
  memcpy(to, start->data, size);
  *start = (struct pry_slice){start->data + size, start->size - size};
  if (!start->size)
    forget_start(call);
  return size;
}

static size_t take_waiting(struct call_upload *upload, char *to, size_t room)
{
  size_t left = upload->waiting.size - upload->taken;
  size_t size = left < room ? left : room;
  memcpy(to, upload->waiting.data + upload->taken, size);
  upload->taken += size;
  if (size == left) {
    pry_buffer_clear(&upload->waiting);
    upload->taken = 0;
  }
  return size;
}

static size_t take_next(struct pry_call *call, char *to, size_t room)
{
  if (call->upload.start.size)
    return take_start(call, to, room);
  return call->upload.waiting.data && call->upload.waiting.size ? take_waiting(&call->upload, to, room) : 0;
}

static bool has_nothing(const struct call_upload *upload)
{
  return !upload->start.size && !upload->waiting.size;
}

static void ask_client(struct pry_call *call)
{
  struct call_upload *upload = &call->upload;
  if (!upload->full || !has_nothing(upload))
    return;
  upload->full = false;
  if (call->sink.want_body)
    call->sink.want_body(call->user);
}

static void complete(struct pry_call *call)
{
  if (call->upload.complete)
    return;
  call->upload.complete = true;
  pry_call_await_answer(call);
}

ptrdiff_t pry_call_take_upload(void *user, char *to, size_t room)
{
  struct pry_call *call = user;
  struct call_upload *upload = &call->upload;
  if (upload->failed)
    return PRY_HTTP_UPLOAD_FAILED;
  size_t size = take_next(call, to, room);
  upload->begun = upload->begun || size;
  ask_client(call);
  if (!call->attempt_open) /* the sink cancelled the call */
    return PRY_HTTP_UPLOAD_FAILED;
  if (!size)
    size = take_next(call, to, room);
  if (upload->ended && has_nothing(upload))
    complete(call);
  else if (size)
    pry_call_upload_goes_on(call);
  else
    wait_for_client(call);
  return size || upload->ended ? (ptrdiff_t)size : PRY_HTTP_UPLOAD_WAIT;
}

/* ---- what the client sends --------------------------------------------------------------------------------- */

static void tell_attempt(struct pry_call *call)
{
  struct call_upload *upload = &call->upload;
  if (!call->exchange)
    return;
  if (upload->waits_for_client) {
    client_came(call);
    pry_call_upload_goes_on(call);
  }
  if (upload->ended && has_nothing(upload) && upload->begun)
    complete(call); /* with a length said, it is not asked for again */
  pry_http_upload(call->exchange);
}

bool pry_call_upload(struct pry_call *call, struct pry_slice data)
{
  struct call_upload *upload = &call->upload;
  if (call->finished || call->cancelled || !upload->streamed || upload->ended)
    return true;
  upload->failed = upload->failed || !pry_buffer_append_slice(&upload->waiting, data);
  tell_attempt(call);
  upload->full = upload->waiting.size - upload->taken >= WAITING_HIGH;
  return !upload->full;
}

void pry_call_upload_end(struct pry_call *call)
{
  if (call->finished || call->cancelled || !call->upload.streamed || call->upload.ended)
    return;
  call->upload.ended = true;
  tell_attempt(call);
}

/* ---- the request ------------------------------------------------------------------------------------------- */

bool pry_call_can_rename(const struct pry_call *call)
{
  return !call->upload.streamed || !call->is_json || call->json.model.type == PRY_JSON_STRING;
}

/* The model's place is in what was read of the body; what follows it is sent as it comes. */
static bool splice_model(struct pry_call *call)
{
  struct pry_buffer quoted;
  pry_buffer_init(&quoted, 0);
  pry_buffer_clear(&call->out_body);
  bool done =
      pry_buffer_append(&quoted, "\"", 1) && pry_buffer_append_json(&quoted, pry_slice_of(call->view.target.model)) &&
      pry_buffer_append(&quoted, "\"", 1) &&
      pry_json_splice(pry_buffer_slice(&call->body), call->json.model.raw, pry_buffer_slice(&quoted), &call->out_body);
  pry_buffer_fini(&quoted);
  return done;
}

bool pry_call_build_upload(struct pry_call *call, bool rename, struct pry_http_request *request)
{
  struct call_upload *upload = &call->upload;
  request->upload = true;
  request->upload_size = upload->size;
  upload->start = pry_buffer_slice(&call->body);
  if (!rename || call->json.model.type != PRY_JSON_STRING)
    return true;
  if (!splice_model(call))
    return false;
  upload->start = pry_buffer_slice(&call->out_body);
  if (upload->size >= 0)
    request->upload_size += (int64_t)call->out_body.size - (int64_t)call->body.size;
  return true;
}
