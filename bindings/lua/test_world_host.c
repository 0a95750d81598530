/* A policy test's host: makes an attempt by doing what its provider's script says. Declared in test_world.h. */
#include "test_world.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- how an attempt goes ------------------------------------------------------------------------------------- */

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct pry_world_call *call = user;
  call->attempt.status = status;
  call->lost = !pry_headers_add_all(&call->attempt.headers, headers) || call->lost;
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct pry_world_call *call = user;
  call->lost = !pry_buffer_append_slice(&call->attempt.body, data) || call->lost;
  return PRY_HTTP_CONTINUE;
}

/* Takes a field out of the answer. False: it is not there. */
static bool take_field(struct pry_headers *headers, const char *name, char *text, size_t size)
{
  struct pry_slice value;
  if (!pry_headers_get(headers, pry_slice_of(name), &value))
    return false;
  snprintf(text, size, "%.*s", (int)value.size, value.data);
  pry_headers_remove(headers, pry_slice_of(name));
  return true;
}

static void on_done(void *user, const struct pry_http_result *result)
{
  struct pry_world_call *call = user;
  struct pry_world_attempt *attempt = &call->attempt;
  char category[32] = "", code[PRY_FAILURE_CODE_MAX] = "", message[PRY_FAILURE_MESSAGE_MAX] = "", number[32] = "";
  attempt->exchange = NULL;
  bool told = take_field(&attempt->headers, PRY_WORLD_HOST_FIELD "category", category, sizeof category);
  told = take_field(&attempt->headers, PRY_WORLD_HOST_FIELD "code", code, sizeof code) || told;
  take_field(&attempt->headers, PRY_WORLD_HOST_FIELD "message", message, sizeof message);
  take_field(&attempt->headers, PRY_WORLD_HOST_FIELD "retry-after", number, sizeof number);
  bool no_status = told && attempt->status == 200; /* not said by the step */
  struct pry_host_end end = {.ok = !result->curl_code && !told && attempt->status < 400,
                             .status = no_status ? 0 : attempt->status,
                             .curl_code = result->curl_code,
                             .category = pry_category_from_name(pry_slice_of(category)),
                             .code = code,
                             .message = message,
                             .retry_after = strtod(number, NULL),
                             .headers = &attempt->headers,
                             .body = pry_buffer_slice(&attempt->body)};
  char ignored[8];
  end.not_sent = take_field(&attempt->headers, PRY_WORLD_HOST_FIELD "not-sent", ignored, sizeof ignored) ||
                 (result->curl_code && !result->sent);
  if (call->call)
    pry_call_attempt_ended(call->call, attempt->number, &end);
}

static const struct pry_http_ops ops = {.on_head = on_head, .on_data = on_data, .on_done = on_done};

/* ---- what the call asks for ------------------------------------------------------------------------------------ */

static bool make_attempt(void *user, const struct pry_host_attempt *asked)
{
  struct pry_world_call *call = user;
  struct pry_world_attempt *attempt = &call->attempt;
  const struct pry_call_view *view = pry_call_get_view(call->call);
  char method[16];
  struct pry_buffer url;
  attempt->number = asked->number;
  attempt->status = 0;
  pry_headers_clear(&attempt->headers);
  pry_buffer_clear(&attempt->body);
  pry_buffer_init(&url, 0);
  snprintf(method, sizeof method, "%.*s", (int)view->method.size, view->method.data);
  if (pry_buffer_append_format(&url, "http://%s.test", asked->target->provider->name) &&
      pry_buffer_append_slice(&url, view->path)) {
    struct pry_http_request request = {
        .method = method, .url = pry_buffer_text(&url), .headers = view->headers, .body = asked->body};
    attempt->exchange =
        request.url ? pry_http_start(pry_http_script_client(call->world->script), &request, &ops, call) : NULL;
  }
  pry_buffer_fini(&url);
  return attempt->exchange;
}

static void abandon(void *user, unsigned number)
{
  struct pry_world_call *call = user;
  if (number == call->attempt.number && call->attempt.exchange)
    pry_http_cancel(call->attempt.exchange);
  call->attempt.exchange = NULL;
}

const struct pry_host_ops pry_world_host = {make_attempt, abandon};
