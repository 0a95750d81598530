/* Calls of a host's: parry.h's sink of call.h. */
#include "parry_internal.h"

#include <stdlib.h>

struct pry_host_calls {
  struct pry_list open; /* struct host_call */
  uint64_t next;
};

struct host_call {
  struct pry_list link;
  struct pry_host *host;
  uint64_t id;
  struct pry_call *call;
  struct parry_call_ops ops;
  void *user;
};

static struct host_call *find_call(struct pry_host *host, parry_call_id id)
{
  for (struct pry_list *link = host->calls->open.next; link != &host->calls->open; link = link->next) {
    struct host_call *call = PRY_CONTAINER_OF(link, struct host_call, link);
    if (call->id == id.value)
      return call;
  }
  return NULL;
}

static void host_head(void *user, int status, const struct pry_headers *headers, int64_t body_size)
{
  (void)body_size;
  struct host_call *call = user;
  if (!call->ops.on_headers)
    return;
  struct parry_header *copy = pry_host_header_array(headers);
  call->ops.on_headers(call->user, status, copy, copy ? headers->count : 0);
  free(copy);
}

static bool host_data(void *user, struct pry_slice data)
{
  struct host_call *call = user;
  return !call->ops.on_data || !call->ops.on_data(call->user, data.data, data.size);
}

static void host_done(void *user, const struct pry_outcome *outcome, bool truncated)
{
  struct host_call *call = user;
  const struct pry_call_view *view = pry_call_get_view(call->call);
  struct parry_outcome told = {.size = sizeof told,
                               .ok = outcome->ok,
                               .status = outcome->status,
                               .category = pry_category_name(outcome->category),
                               .message = outcome->ok ? "" : outcome->failure.message,
                               .code = outcome->ok ? "" : outcome->failure.code,
                               .why = "",
                               .retry_after = outcome->ok ? -1 : outcome->failure.retry_after,
                               .generation = "",
                               .attempts = outcome->attempts,
                               .target = view->target.name,
                               .call_id = view->id,
                               .truncated = truncated};
  pry_list_remove(&call->link);
  pry_host_close(call->host);
  if (call->ops.on_done)
    call->ops.on_done(call->user, &told);
  free(call);
}

static const struct pry_sink_ops host_sink = {host_head, host_data, host_done, NULL};

static int start_call(struct pry_host *host, const struct parry_request *request, struct host_call *call)
{
  struct pry_headers headers;
  struct pry_buffer body;
  pry_headers_init(&headers);
  pry_buffer_init(&body, host->engine->options.replay_limit);
  int error = pry_host_headers(request->headers, request->header_count, &headers) ? PARRY_OK : PARRY_EINVAL;
  if (!error && !pry_buffer_append(&body, request->body, request->body_size))
    error = PARRY_ENOMEM;
  const char *query = strchr(request->path, '?');
  size_t path_size = query ? (size_t)(query - request->path) : strlen(request->path);
  struct pry_call_request start = {.method = pry_slice_of(request->method ? request->method : "POST"),
                                   .path = {request->path, path_size},
                                   .query = pry_slice_of(query ? query + 1 : ""),
                                   .headers = &headers,
                                   .body = &body};
  call->call = error ? NULL : pry_call_start(host->engine->control, &start, &host_sink, call);
  if (!error && !call->call)
    error = PARRY_ENOMEM;
  pry_headers_fini(&headers);
  pry_buffer_fini(&body);
  return error;
}

int parry_call(parry *handle, const struct parry_request *request, const struct parry_call_ops *ops, void *user,
               parry_call_id *id)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct parry_request asked;
  struct parry_call_ops told;
  if (id)
    id->value = 0;
  if (!host)
    return error;
  if (!request || !pry_host_take(&asked, sizeof asked, request) || !asked.path || asked.path[0] != '/' || !ops ||
      !pry_host_take(&told, sizeof told, ops) || (asked.body_size && !asked.body) ||
      (asked.header_count && !asked.headers))
    return PARRY_EINVAL;
  if (atomic_load(&host->freeing))
    return PARRY_EREENTRANT;
  if (asked.body_size > host->engine->options.replay_limit)
    return PARRY_EINVAL;
  if (pry_host_open(host) != PARRY_OK)
    return PARRY_BUSY;
  struct host_call *call = calloc(1, sizeof *call);
  if (!call) {
    pry_host_close(host);
    return PARRY_ENOMEM;
  }
  *call = (struct host_call){.host = host, .id = ++host->calls->next, .ops = told, .user = user};
  pry_list_init(&call->link);
  error = start_call(host, &asked, call);
  if (error) {
    pry_host_close(host);
    free(call);
    return error;
  }
  pry_list_push(&host->calls->open, &call->link);
  if (id)
    id->value = call->id;
  return PARRY_OK;
}

int parry_call_resume(parry *handle, parry_call_id id)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct host_call *call = host ? find_call(host, id) : NULL;
  if (!call)
    return host ? PARRY_ENOENT : error;
  pry_call_resume(call->call);
  return PARRY_OK;
}

int parry_call_cancel(parry *handle, parry_call_id id)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct host_call *call = host ? find_call(host, id) : NULL;
  if (!call)
    return host ? PARRY_ENOENT : error;
  pry_call_cancel(call->call);
  return PARRY_OK;
}

bool pry_host_calls_init(struct pry_host *host)
{
  host->calls = calloc(1, sizeof *host->calls);
  if (host->calls)
    pry_list_init(&host->calls->open);
  return host->calls;
}

void pry_host_calls_fini(struct pry_host *host)
{
  free(host->calls);
  host->calls = NULL;
}

size_t pry_host_calls_buffered(struct pry_host *host)
{
  (void)host;
  return 0;
}
