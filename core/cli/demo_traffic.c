#include "demo.h"

#include <stdlib.h>

#define FIRST_PAUSE (10 * PRY_MILLISECOND)
#define AGAIN_PAUSE (500 * PRY_MILLISECOND)
#define CALL_LIMIT (30 * PRY_SECOND)

/* The kinds of failure, the quickest to recover first. Each call has a key of its own, so `times=1` strikes its first
 * attempt. */
static const struct kind {
  const char *name, *model, *target, *fault;
  bool expire; /* the token first */
} kinds[PRY_DEMO_KINDS] = {
    {"503", "glm-5.1", "token360/glm-5.1", "code=503;times=1", false},
    {"reset", "moonshot-v1-8k", "moonshot/moonshot-v1-8k", "code=reset;times=1", false},
    {"expired token", "kimi-k2", "kimi/kimi-k2", NULL, true},
    {"model down", "sim-down", "token360/sim-down", NULL, false},
    {"429 + Retry-After", "moonshot-v1-32k", "moonshot/moonshot-v1-32k", "code=429;retry-after=1;times=1", false},
};

static void next_call(void *user);

static void rest(struct pry_demo_traffic *traffic, pry_time pause)
{
  pry_timer_start(traffic->loop, &traffic->timer, pause, next_call, traffic);
}

/* ---- the answer ------------------------------------------------------------------------------------------- */

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct pry_demo_traffic *traffic = user;
  struct pry_slice attempts, target;
  traffic->status = status;
  if (pry_headers_get(headers, PRY_SLICE("parry-attempts"), &attempts))
    traffic->helped |= !pry_slice_equal(attempts, PRY_SLICE("1"));
  if (pry_headers_get(headers, PRY_SLICE("parry-target"), &target))
    traffic->helped |= !pry_slice_equal(target, pry_slice_of(kinds[traffic->kind].target));
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  (void)user, (void)data;
  return PRY_HTTP_CONTINUE;
}

static size_t next_kind(const struct pry_demo_traffic *traffic)
{
  size_t kind = traffic->kind;
  do
    kind = (kind + 1) % PRY_DEMO_KINDS;
  while (traffic->recovered != (1u << PRY_DEMO_KINDS) - 1 && (traffic->recovered & (1u << kind)) &&
         kind != traffic->kind);
  return kind;
}

static void call_ended(struct pry_demo_traffic *traffic, bool ok)
{
  const unsigned all = (1u << PRY_DEMO_KINDS) - 1;
  unsigned before = traffic->recovered;
  if (ok && traffic->status == 200 && traffic->helped)
    traffic->recovered |= 1u << traffic->kind;
  bool new = traffic->recovered != before;
  traffic->kind = next_kind(traffic);
  rest(traffic, traffic->recovered == all ? traffic->pause : new ? FIRST_PAUSE : AGAIN_PAUSE);
  if (new && traffic->recovered == all)
    traffic->all_recovered(traffic->user);
}

static void start_call(struct pry_demo_traffic *traffic);

static void on_done(void *user, const struct pry_http_result *result)
{
  struct pry_demo_traffic *traffic = user;
  traffic->exchange = NULL;
  pry_timer_cancel(&traffic->timer);
  if (traffic->expiring)
    start_call(traffic);
  else
    call_ended(traffic, result->curl_code == PRY_HTTP_OK);
}

static void took_too_long(void *user)
{
  struct pry_demo_traffic *traffic = user;
  pry_http_cancel(traffic->exchange);
  traffic->exchange = NULL;
  call_ended(traffic, false);
}

/* ---- the call ------------------------------------------------------------------------------------------------ */

static const struct pry_http_ops ops = {.on_head = on_head, .on_data = on_data, .on_done = on_done};

static bool send(struct pry_demo_traffic *traffic, const char *address, const char *path)
{
  pry_buffer_clear(&traffic->url);
  if (!pry_buffer_append_format(&traffic->url, "http://%s%s", address, path) || !pry_buffer_text(&traffic->url))
    return false;
  struct pry_http_request request = {.method = "POST",
                                     .url = traffic->url.data,
                                     .headers = &traffic->headers,
                                     .body = pry_buffer_slice(&traffic->body),
                                     .has_body = true};
  traffic->exchange = pry_http_start(traffic->http, &request, &ops, traffic);
  return traffic->exchange && pry_timer_start(traffic->loop, &traffic->timer, CALL_LIMIT, took_too_long, traffic);
}

static bool add_headers(struct pry_demo_traffic *traffic, const struct kind *kind)
{
  char key[32];
  snprintf(key, sizeof key, "demo-%lu", traffic->calls);
  return pry_headers_add(&traffic->headers, PRY_SLICE("content-type"), PRY_SLICE("application/json")) &&
         pry_headers_add(&traffic->headers, PRY_SLICE("x-sim-key"), pry_slice_of(key)) &&
         (!kind->fault || pry_headers_add(&traffic->headers, PRY_SLICE("x-sim-fault"), pry_slice_of(kind->fault)));
}

static void start_call(struct pry_demo_traffic *traffic)
{
  const struct kind *kind = &kinds[traffic->kind];
  traffic->expiring = false;
  traffic->status = 0;
  traffic->helped = false;
  traffic->calls++;
  pry_headers_clear(&traffic->headers);
  pry_buffer_clear(&traffic->body);
  bool ok = add_headers(traffic, kind) &&
            pry_buffer_append_format(&traffic->body,
                                     "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}",
                                     kind->model) &&
            send(traffic, traffic->gateway, "/v1/chat/completions");
  if (!ok)
    rest(traffic, AGAIN_PAUSE);
}

static void next_call(void *user)
{
  struct pry_demo_traffic *traffic = user;
  traffic->expiring = kinds[traffic->kind].expire;
  if (!traffic->expiring) {
    start_call(traffic);
    return;
  }
  pry_headers_clear(&traffic->headers);
  pry_buffer_clear(&traffic->body);
  if (!send(traffic, traffic->sim, "/sim/expire"))
    rest(traffic, AGAIN_PAUSE);
}

void pry_demo_traffic_start(struct pry_demo_traffic *traffic)
{
  pry_buffer_init(&traffic->url, 0);
  pry_buffer_init(&traffic->body, 0);
  pry_headers_init(&traffic->headers);
  rest(traffic, 0);
}

void pry_demo_traffic_stop(struct pry_demo_traffic *traffic)
{
  pry_timer_cancel(&traffic->timer);
  if (traffic->exchange)
    pry_http_cancel(traffic->exchange);
  traffic->exchange = NULL;
  pry_headers_fini(&traffic->headers);
  pry_buffer_fini(&traffic->url);
  pry_buffer_fini(&traffic->body);
}

void pry_demo_traffic_hurry(struct pry_demo_traffic *traffic)
{
  if (!traffic->exchange && pry_timer_running(&traffic->timer))
    rest(traffic, 0);
}

void pry_demo_traffic_missing(const struct pry_demo_traffic *traffic, char *text, size_t size)
{
  size_t used = 0;
  text[0] = '\0';
  for (size_t i = 0; i < PRY_DEMO_KINDS; i++) {
    if (traffic->recovered & (1u << i))
      continue;
    int length = snprintf(text + used, size - used, "%s%s", used ? ", " : "", kinds[i].name);
    if (length < 0 || (size_t)length >= size - used)
      return;
    used += (size_t)length;
  }
}
