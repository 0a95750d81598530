#include "call_internal.h"
#include "proxy_status.h"

#include <math.h>
#include <stdio.h>

struct pry_failure pry_call_own_failure(enum pry_category category, const char *code, const char *message)
{
  struct pry_failure failure = pry_failure_of(category);
  failure.source = PRY_SOURCE_PARRY;
  pry_failure_set_code(&failure, pry_slice_of(code));
  pry_failure_set_message(&failure, pry_slice_of(message));
  return failure;
}

/* ---- heads -------------------------------------------------------------------------------------------- */

/* The provider's fields that concern its connection with us, not the client's with us. */
static bool is_hop_field(struct pry_slice name)
{
  static const struct pry_slice names[] = {
      PRY_SLICE_INIT("connection"),        PRY_SLICE_INIT("keep-alive"), PRY_SLICE_INIT("proxy-authenticate"),
      PRY_SLICE_INIT("proxy-connection"),  PRY_SLICE_INIT("te"),         PRY_SLICE_INIT("trailer"),
      PRY_SLICE_INIT("transfer-encoding"), PRY_SLICE_INIT("upgrade"),    PRY_SLICE_INIT("date"),
      PRY_SLICE_INIT("content-length"),    PRY_SLICE_INIT("set-cookie"), PRY_SLICE_INIT("alt-svc")};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (pry_slice_equal_nocase(name, names[i]))
      return true;
  return false;
}

/* Does the connection's own field name others (RFC 9110 §7.6.1)? Hardly ever: the list need not be read for each. */
static bool names_fields(const struct pry_headers *headers)
{
  struct pry_slice ignored;
  return pry_headers_get(headers, PRY_SLICE("connection"), &ignored);
}

/* A provider may repeat our key, in a Location for one: it is not the client's. */
static bool add_provider_fields(const struct pry_call *call, struct pry_headers *headers)
{
  const struct pry_headers *from = &call->answer.headers;
  struct pry_scrubber *scrubber = call->worker->engine->scrubber;
  struct pry_buffer value;
  pry_buffer_init(&value, PRY_HEADERS_BYTES_MAX);
  bool ok = true, names = names_fields(from);
  for (size_t i = 0; ok && i < from->count; i++) {
    struct pry_header line = pry_headers_at(from, i);
    if (!call->host && is_hop_field(line.name))
      continue; /* a host gets back what it gave */
    if ((!call->host && names && pry_headers_has_token(from, PRY_SLICE("connection"), line.name)))
      continue;
    if (!pry_scrubber_finds(scrubber, line.value)) {
      ok = pry_headers_add(headers, line.name, line.value);
      continue;
    }
    pry_buffer_clear(&value);
    ok = pry_buffer_append_slice(&value, line.value);
    pry_scrubber_apply(scrubber, &value);
    ok = ok && pry_headers_add(headers, line.name, pry_buffer_slice(&value));
  }
  pry_buffer_fini(&value);
  return ok;
}

/* The model in it is the client's word, and may hold control bytes: none goes into a field (RFC 9110 §5.5). */
static void add_target_field(const struct pry_call *call, struct pry_headers *headers)
{
  char name[sizeof call->view.target.name];
  memcpy(name, call->view.target.name, sizeof name);
  for (char *c = name; *c; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7F)
      *c = '?';
  if (name[0])
    pry_headers_set(headers, PRY_SLICE("parry-target"), pry_slice_of(name));
}

/* `error`: why parry made this answer itself, else NULL. */
static void add_parry_fields(struct pry_call *call, const char *error, const char *details, struct pry_headers *headers)
{
  char attempts[16];
  snprintf(attempts, sizeof attempts, "%u", call->sent_attempts);
  pry_headers_set(headers, PRY_SLICE("parry-call-id"), pry_slice_of(call->view.id));
  pry_headers_set(headers, PRY_SLICE("parry-attempts"), pry_slice_of(attempts));
  add_target_field(call, headers);
  pry_proxy_status_set(headers, &(struct pry_proxy_status){.next_hop = call->view.target.name,
                                                           .received_status = call->answer.status,
                                                           .error = error,
                                                           .details = details});
}

void pry_call_commit(struct pry_call *call, int64_t body_size)
{
  struct pry_headers headers;
  call->committed = true;
  pry_timer_cancel(&call->early_timer);
  if (call->early)
    return;
  pry_headers_init(&headers);
  add_provider_fields(call, &headers);
  add_parry_fields(call, NULL, NULL, &headers);
  if (call->translation.active)
    pry_headers_set(&headers, PRY_SLICE("parry-translated"), pry_slice_of(call->translation.to));
  call->sink.head(call->user, call->answer.status, &headers, body_size);
  pry_headers_fini(&headers);
}

/* ---- rendering failures --------------------------------------------------------------------------------- */

static bool render_built_in(const struct pry_failure *failure, bool anthropic, enum pry_render form,
                            struct pry_buffer *out)
{
  const char *type = pry_category_name(failure->category);
  const char *code = failure->code[0] ? failure->code : type;
  bool event = form != PRY_RENDER_BODY, typed = anthropic || form == PRY_RENDER_RESPONSES_EVENT;
  return (!event || pry_buffer_append_text(out, typed ? "event: error\ndata: " : "data: ")) &&
         pry_buffer_append_text(out,
                                typed ? "{\"type\":\"error\",\"error\":{\"type\":\"" : "{\"error\":{\"type\":\"") &&
         pry_buffer_append_json(out, pry_slice_of(type)) && pry_buffer_append_text(out, "\",\"code\":\"") &&
         pry_buffer_append_json(out, pry_slice_of(code)) && pry_buffer_append_text(out, "\",\"message\":\"") &&
         pry_buffer_append_json(out, pry_slice_of(failure->message)) && pry_buffer_append_text(out, "\"}}") &&
         (!event || pry_buffer_append_text(out, "\n\n"));
}

/* curl's words name addresses of ours, and are for logs. What has a code was found by parry, and is in its words. */
static const char *words_for_client(const struct pry_failure *failure)
{
  if (!failure->curl_code || failure->code[0])
    return failure->message[0] ? failure->message : pry_category_doc(failure->category);
  if (pry_http_code_is_tls(failure->curl_code))
    return "no secure connection to the provider could be made";
  if (!failure->sent)
    return failure->category == PRY_TIMEOUT ? "the provider could not be reached in time"
                                            : "the provider could not be reached";
  if (failure->category == PRY_TIMEOUT)
    return "the provider did not answer in time";
  return failure->curl_code == PRY_HTTP_RECEIVE_FAILED
             ? "the connection to the provider broke, or its answer could not be read"
             : "the connection to the provider broke before its answer was complete";
}

static const struct pry_dialect *client_dialect_of(const struct pry_call *call)
{
  return call->script ? pry_config_dialect(call->script->generation->config, call->client_dialect) : NULL;
}

bool pry_call_speaks_responses(const struct pry_call *call)
{
  struct pry_slice end = PRY_SLICE("/responses"), path = call->view.path;
  return call->client_dialect && strcmp(call->client_dialect, "openai") == 0 && path.size >= end.size &&
         memcmp(path.data + path.size - end.size, end.data, end.size) == 0;
}

static enum pry_render event_form(const struct pry_call *call)
{
  return pry_call_speaks_responses(call) ? PRY_RENDER_RESPONSES_EVENT : PRY_RENDER_STREAM_EVENT;
}

static bool render(struct pry_call *call, const struct pry_failure *failure, enum pry_render form,
                   struct pry_buffer *out)
{
  const struct pry_dialect *dialect = client_dialect_of(call);
  struct pry_failure told = *failure;
  pry_failure_set_message(&told, pry_slice_of(words_for_client(failure)));
  pry_scrubber_apply_text(call->worker->engine->scrubber, told.message);
  if (dialect && dialect->has_render &&
      call->script->ops->render(call->script, dialect, &told, call->view.id, form, out))
    return true;
  pry_buffer_clear(out);
  return render_built_in(&told, call->client_dialect && strcmp(call->client_dialect, "anthropic") == 0, form, out);
}

/* ---- a policy's own shape of failures ----------------------------------------------------------------------- */

/* The call may be older than its script by a reload. */
static const struct pry_route *route_of_script(const struct pry_call *call)
{
  return call->script && call->route
             ? pry_config_route_by_pattern(call->script->generation->config, call->route->pattern)
             : NULL;
}

static void never_stepped(struct pry_pass *pass, enum pry_pass_result result)
{
  (void)pass, (void)result; /* whoever waits is cancelled before this could come */
}

/* Asks on_failure. True: `verdict` is its respond{}, for the caller to end. The client waits for it, so nobody here may. */
static bool ask_on_failure(struct pry_call *call, const struct pry_failure *failure, struct pry_verdict *verdict)
{
  const struct pry_route *route = route_of_script(call);
  struct pry_failure told = *failure;
  struct pry_pass pass = {.step = never_stepped};
  pry_verdict_init(verdict);
  if (!route)
    return false;
  pry_failure_set_message(&told, pry_slice_of(words_for_client(failure)));
  pry_scrubber_apply_text(call->worker->engine->scrubber, told.message);
  pass.ask.call = &call->view;
  pass.ask.failure = &told;
  bool answered = pry_pass_start(&pass, call->script, route, PRY_ON_FAILURE) == PRY_PASS_VERDICT;
  if (answered) {
    *verdict = pass.ask.verdict;
    pry_verdict_init(&pass.ask.verdict);
    pry_metrics_add(call->worker->engine->metrics, PRY_M_VERDICTS, pass.ask.instance->name,
                    pry_verdict_name(verdict->kind), 1);
  }
  pry_pass_stop(&pass);
  return answered;
}

/* Takes the first line from `text`, without its end: LF, CR or both. */
static struct pry_slice take_line(struct pry_slice *text)
{
  size_t size = 0;
  while (size < text->size && text->data[size] != '\n' && text->data[size] != '\r')
    size++;
  struct pry_slice line = {text->data, size};
  if (size < text->size)
    size += text->size - size > 1 && memcmp(text->data + size, "\r\n", 2) == 0 ? 2 : 1;
  *text = (struct pry_slice){text->data + size, text->size - size};
  return line;
}

/* One event of the client's dialect with this data, whatever line breaks it has (WHATWG server-sent events §9.2.6). */
static bool wrap_event(const struct pry_call *call, struct pry_slice data, struct pry_buffer *out)
{
  bool anthropic = call->client_dialect && strcmp(call->client_dialect, "anthropic") == 0;
  bool ok = !anthropic || pry_buffer_append_text(out, "event: error\n");
  while (ok && data.size) {
    struct pry_slice line = take_line(&data);
    ok = pry_buffer_append_text(out, "data: ") && pry_buffer_append_slice(out, line) &&
         pry_buffer_append_text(out, "\n");
  }
  return ok && pry_buffer_append_text(out, "\n");
}

/* The event that ends a stream which cannot go on, in a policy's shape or the dialect's. */
static bool render_event(struct pry_call *call, const struct pry_failure *failure, struct pry_buffer *event)
{
  struct pry_verdict verdict;
  bool rendered = ask_on_failure(call, failure, &verdict) && verdict.body.size &&
                  wrap_event(call, pry_buffer_slice(&verdict.body), event);
  pry_verdict_fini(&verdict);
  if (rendered)
    return true;
  pry_buffer_clear(event);
  return render(call, failure, event_form(call), event);
}

/* ---- endings ---------------------------------------------------------------------------------------------- */

static void tell_done(struct pry_call *call, bool truncated)
{
  call->finished = true;
  call->outcome.spent = call->spent;
  call->sink.done(call->user, &call->outcome, truncated);
}

static void set_failed_outcome(struct pry_call *call, const struct pry_failure *failure, int status)
{
  call->outcome = (struct pry_outcome){.category = failure->category,
                                       .status = status,
                                       .attempts = call->sent_attempts,
                                       .committed = call->committed,
                                       .failure = *failure};
}

static void end_after_outcome(struct pry_call *call)
{
  pry_permits_release(&call->attempt_permits);
  pry_call_end(call);
}

/* The client is told first; what policies observe afterwards cannot delay it. */
void pry_call_finish_answer(struct pry_call *call, const struct pry_failure *failure, bool error_event_passed)
{
  if (call->cancelled)
    return;
  bool truncated = failure && !error_event_passed;
  /* An event there would be a part of the broken one; of a translated stream the client has whole events only. */
  bool inside = call->stream_open && call->stream.inside && !call->translation.active;
  if (failure)
    set_failed_outcome(call, failure, call->answer.status);
  else
    call->outcome = (struct pry_outcome){
        .ok = true, .status = call->answer.status, .attempts = call->sent_attempts, .committed = true};
  if (truncated && call->answer.is_stream && !inside) {
    struct pry_buffer event;
    pry_buffer_init(&event, 2 * PRY_RESPOND_MAX);
    if (render_event(call, failure, &event)) {
      call->sink.data(call->user, pry_buffer_slice(&event));
      truncated = false;
    }
    pry_buffer_fini(&event);
    if (call->cancelled) /* from inside the sink: it has seen to everything */
      return;
  }
  bool failed = failure || call->pace.failed; /* policies hear of a slow stream that the client got all of */
  if (failed)
    call->failure = failure ? *failure : pry_stream_failure(PRY_STREAM_FAULT_TOO_SLOW);
  pry_call_close_attempt(call, failed ? &call->failure : NULL);
  tell_done(call, truncated);
  call->state = CALL_DONE;
  pry_timer_cancel(&call->stream_timer);
  pry_call_observe_outcome(call, end_after_outcome);
}

static void answer_whole(struct pry_call *call, int status, struct pry_headers *headers, struct pry_slice body,
                         const char *error, const char *details)
{
  add_parry_fields(call, error, details, headers);
  call->sink.head(call->user, status, headers, (int64_t)body.size);
  if (body.size && !call->cancelled)
    call->sink.data(call->user, body);
  if (call->cancelled) /* from inside the sink: `done` follows from the loop */
    return;
  tell_done(call, false);
  pry_call_end(call);
}

/* The client waits for a stream that there will not be: an event of its dialect says so. */
static void finish_early_head(struct pry_call *call, const struct pry_failure *failure)
{
  struct pry_buffer event;
  pry_buffer_init(&event, PRY_RESPOND_MAX);
  set_failed_outcome(call, failure, 200);
  bool told = render_event(call, failure, &event);
  if (told)
    call->sink.data(call->user, pry_buffer_slice(&event));
  pry_buffer_fini(&event);
  if (call->cancelled)
    return;
  tell_done(call, !told);
  pry_call_end(call);
}

/* The provider's own words are the default, when the client can read them and they do not pretend to be a success. */
static bool can_pass_on(const struct pry_call *call)
{
  const struct call_answer *answer = &call->answer;
  return call->failure.source == PRY_SOURCE_PROVIDER && answer->complete && answer->status >= 400 &&
         answer->client_shaped && !answer->unreadable;
}

/* When several targets in a row refused the call: the soonest chance at any of them. */
static double soonest_recovery(const struct pry_call *call)
{
  double soonest = call->failure.retry_after;
  double now = pry_loop_unix_time(call->worker->loop);
  for (size_t i = call->view.ledger_count; i-- > 0 && call->ledger[i].refused;) {
    const struct pry_attempt *attempt = &call->ledger[i];
    double left = attempt->ended + attempt->failure.retry_after - now;
    if (attempt->failure.retry_after >= 0 && left < soonest)
      soonest = left > 0 ? left : 0;
  }
  return soonest;
}

static void add_retry_after(const struct pry_call *call, struct pry_headers *headers)
{
  char seconds[32];
  struct pry_slice given;
  if (call->failure.retry_after < 0 || pry_headers_get(headers, PRY_SLICE("retry-after"), &given))
    return;
  snprintf(seconds, sizeof seconds, "%.0f", ceil(call->failure.retry_after));
  pry_headers_add(headers, PRY_SLICE("Retry-After"), pry_slice_of(seconds));
}

/* Status, head and body as a policy says; an error never looks like a success. False: none said anything. */
static bool shape_failure(struct pry_call *call, int *status, struct pry_headers *headers, struct pry_buffer *body)
{
  struct pry_verdict verdict;
  struct pry_slice type;
  bool shaped = ask_on_failure(call, &call->failure, &verdict) && pry_headers_add_all(headers, &verdict.headers) &&
                pry_buffer_append_slice(body, pry_buffer_slice(&verdict.body));
  if (shaped && verdict.status >= 400)
    *status = verdict.status;
  pry_verdict_fini(&verdict);
  if (!shaped) {
    pry_headers_clear(headers);
    pry_buffer_clear(body);
  } else if (!pry_headers_get(headers, PRY_SLICE("content-type"), &type)) {
    pry_headers_add(headers, PRY_SLICE("Content-Type"), PRY_SLICE("application/json"));
  }
  return shaped;
}

void pry_call_finish_failure(struct pry_call *call)
{
  struct pry_headers headers;
  struct pry_buffer body;
  pry_timer_cancel(&call->early_timer);
  if (call->early) {
    call->failure.retry_after = soonest_recovery(call);
    finish_early_head(call, &call->failure);
    return;
  }
  pry_headers_init(&headers);
  pry_buffer_init(&body, PRY_RESPOND_MAX);
  int status = pry_failure_client_status(&call->failure);
  set_failed_outcome(call, &call->failure, status);
  call->failure.retry_after = soonest_recovery(call);
  call->outcome.failure.retry_after = call->failure.retry_after;
  bool shaped = shape_failure(call, &status, &headers, &body);
  call->outcome.status = status;
  if (!shaped && can_pass_on(call)) {
    /* Some providers repeat the key that they refuse: it is ours, not the client's. */
    pry_scrubber_apply(call->worker->engine->scrubber, &call->answer.body);
    add_provider_fields(call, &headers);
    answer_whole(call, call->answer.status, &headers, pry_buffer_slice(&call->answer.body), NULL, NULL);
    goto done;
  }
  if (!shaped) {
    render(call, &call->failure, PRY_RENDER_BODY, &body);
    pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("application/json"));
  }
  add_retry_after(call, &headers);
  /* A broken answer has a status, and is none all the same. */
  bool is_own = call->failure.source == PRY_SOURCE_PARRY || call->failure.curl_code || !call->answer.status;
  const struct pry_failure *own = is_own ? &call->outcome.failure : NULL;
  answer_whole(call, status, &headers, pry_buffer_slice(&body), own ? pry_proxy_error(own) : NULL,
               own ? (own->code[0] ? own->code : pry_category_name(own->category)) : NULL);
done:
  pry_headers_fini(&headers);
  pry_buffer_fini(&body);
}

/* A policy's answer to a client that has a stream's head: only a stream can follow. */
static void respond_after_head(struct pry_call *call, struct pry_verdict *verdict, int status)
{
  struct pry_slice type, wanted = PRY_SLICE("text/event-stream");
  if (status < 300 && pry_headers_get(&verdict->headers, PRY_SLICE("content-type"), &type) &&
      type.size >= wanted.size && pry_slice_equal_nocase((struct pry_slice){type.data, wanted.size}, wanted)) {
    struct pry_buffer body = verdict->body; /* as below */
    pry_buffer_init(&verdict->body, body.limit);
    call->outcome = (struct pry_outcome){.ok = true, .status = 200, .attempts = call->sent_attempts};
    call->sink.data(call->user, pry_buffer_slice(&body));
    pry_buffer_fini(&body);
    if (call->cancelled)
      return;
    tell_done(call, false);
    pry_call_end(call);
    return;
  }
  struct pry_failure failure = status >= 400 ? pry_failure_from_status(status) : pry_failure_of(PRY_SERVER);
  failure.source = PRY_SOURCE_PARRY;
  failure.sent = false;
  pry_failure_set_code(&failure, PRY_SLICE("answer_after_head"));
  pry_failure_set_message(&failure, PRY_SLICE("a policy answered with what is no event stream, after the stream's head "
                                              "had been sent (early_head)"));
  finish_early_head(call, &failure);
}

void pry_call_finish_response(struct pry_call *call, struct pry_verdict *verdict)
{
  pry_timer_cancel(&call->early_timer);
  if (call->early) {
    respond_after_head(call, verdict, verdict->status ? verdict->status : 200);
    return;
  }
  struct pry_buffer body = verdict->body; /* the sink may cancel, and the verdict with it, while it reads */
  pry_buffer_init(&verdict->body, body.limit);
  struct pry_headers headers;
  struct pry_slice type;
  int status = verdict->status ? verdict->status : 200;
  pry_headers_init(&headers);
  if (status >= 400) {
    struct pry_failure failure = pry_failure_from_status(status);
    failure.source = PRY_SOURCE_PARRY;
    set_failed_outcome(call, &failure, status);
  } else {
    call->outcome = (struct pry_outcome){.ok = true, .status = status, .attempts = call->sent_attempts};
  }
  pry_headers_add_all(&headers, &verdict->headers);
  if (body.size && !pry_headers_get(&headers, PRY_SLICE("content-type"), &type))
    pry_headers_add(&headers, PRY_SLICE("Content-Type"), PRY_SLICE("application/json"));
  answer_whole(call, status, &headers, pry_buffer_slice(&body), call->sent_attempts ? NULL : PRY_PROXY_LOCAL, NULL);
  pry_buffer_fini(&body);
  pry_headers_fini(&headers);
}
