/* The public interface of parry.h over the engine. Decisions are in parry_decide.c. */
#include "parry_internal.h"

#include <stdlib.h>
#include <time.h>

enum { PARRY_MAGIC = 0x70617279 };

/* ---- versions and errors ------------------------------------------------------------------------------ */

const char *parry_version(void)
{
  return PARRY_VERSION;
}

const char *parry_strerror(int error)
{
  switch (error) {
#define X(name, value, text)                                                                                           \
  case value:                                                                                                          \
    return text;
    PARRY_ERRORS(X)
#undef X
  default:
    return "an error that this version does not know";
  }
}

/* ---- the engine ---------------------------------------------------------------------------------------- */

static double unix_clock(void *user)
{
  return pry_loop_unix_time(((struct parry *)user)->loop);
}

static void pass_log_on(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct parry *engine = user;
  engine->options.log(engine->options.log_user, (enum parry_log_level)level, line, size);
}

static bool valid(const struct parry *engine)
{
  return engine && engine->magic == PARRY_MAGIC;
}

static bool copy_options(struct parry *engine, const struct parry_options *options)
{
  engine->options = *options;
  engine->options.size = sizeof engine->options;
  engine->policy_dir = strdup(options->policy_dir);
  engine->state_dir = options->state_dir ? strdup(options->state_dir) : NULL;
  return engine->policy_dir && (!options->state_dir || engine->state_dir);
}

static bool make_engine(struct parry *engine)
{
  engine->loop = pry_loop_new();
  engine->http = engine->loop ? pry_http_new(engine->loop, NULL) : NULL;
  if (!engine->http)
    return false;
  engine->log = pry_log_new(engine->options.log ? pass_log_on : NULL, engine, PRY_LOG_INFO, unix_clock, engine);
  struct pry_engine_options options = {.loop = engine->loop,
                                       .http = engine->http,
                                       .log = engine->log,
                                       .loader = &pry_lua_loader,
                                       .state_dir = engine->state_dir};
  engine->engine = engine->log ? pry_engine_new(&options) : NULL;
  return engine->engine;
}

static int load(struct parry *engine)
{
  struct pry_report report;
  pry_report_init(&report);
  pry_buffer_clear(&engine->report);
  struct pry_policy_set *set = pry_policy_set_read(engine->policy_dir, &engine->report);
  bool loaded = set && pry_engine_load(engine->engine, set, true, &report);
  pry_report_text(&report, &engine->report);
  engine->report_text = pry_buffer_text(&engine->report);
  if (!engine->report_text || (!loaded && !*engine->report_text))
    engine->report_text = loaded ? "" : "memory is short\n";
  pry_report_fini(&report);
  return loaded ? PARRY_OK : PARRY_EPOLICY;
}

int parry_new(parry **out, const struct parry_options *options)
{
  if (!out)
    return PARRY_EINVAL;
  *out = NULL;
  if (!options || options->size < sizeof *options || !options->policy_dir)
    return PARRY_EINVAL;
  struct parry *engine = calloc(1, sizeof *engine);
  if (!engine)
    return PARRY_ENOMEM;
  engine->magic = PARRY_MAGIC;
  pry_list_init(&engine->calls);
  pry_list_init(&engine->decisions);
  pry_buffer_init(&engine->report, 256 * 1024);
  int error = copy_options(engine, options) ? PARRY_OK : PARRY_ENOMEM;
  if (!error && !make_engine(engine))
    error = PARRY_ESYSTEM;
  if (error) {
    parry_free(engine);
    return error;
  }
  *out = engine;
  return load(engine);
}

const char *parry_report(const parry *engine)
{
  return valid(engine) && engine->report_text ? engine->report_text : "";
}

void parry_free(parry *engine)
{
  if (!valid(engine) || engine->inside)
    return;
  engine->inside = true;
  pry_decisions_cancel(engine);
  pry_engine_free(engine->engine);
  pry_http_free(engine->http);
  pry_log_free(engine->log);
  pry_loop_free(engine->loop);
  pry_buffer_fini(&engine->report);
  pry_buffer_fini(&engine->decision_text);
  free(engine->policy_dir);
  free(engine->state_dir);
  engine->magic = 0;
  free(engine);
}

int parry_run(parry *engine, double timeout)
{
  if (!valid(engine))
    return PARRY_EINVAL;
  if (engine->inside)
    return PARRY_EREENTRANT;
  engine->inside = true;
  pry_loop_turn(engine->loop, timeout < 0 ? PRY_TIME_NEVER : pry_time_from_seconds(timeout));
  engine->inside = false;
  return (int)(engine->call_count + engine->decision_count);
}

void parry_wakeup(parry *engine)
{
  if (valid(engine))
    pry_loop_wake(engine->loop);
}

int parry_reload(parry *engine)
{
  if (!valid(engine))
    return PARRY_EINVAL;
  return engine->inside ? PARRY_EREENTRANT : load(engine);
}

const char *parry_generation(const parry *engine)
{
  struct pry_generation *generation = valid(engine) ? pry_engine_generation(engine->engine) : NULL;
  return generation ? generation->id : "";
}

/* ---- calls ------------------------------------------------------------------------------------------------ */

struct host_call {
  struct pry_list link;
  struct parry *engine;
  uint64_t id;
  struct pry_call *call;
  struct parry_call_ops ops;
  void *user;
};

static struct host_call *find_call(struct parry *engine, parry_call_id id)
{
  for (struct pry_list *link = engine->calls.next; link != &engine->calls; link = link->next) {
    struct host_call *call = PRY_CONTAINER_OF(link, struct host_call, link);
    if (call->id == id.value)
      return call;
  }
  return NULL;
}

/* Names and values as NUL-terminated texts behind the array, in one block. */
static struct parry_header *copy_headers(const struct pry_headers *headers)
{
  size_t size = headers->count * sizeof(struct parry_header) + 1;
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    size += line.name.size + line.value.size + 2;
  }
  struct parry_header *copy = malloc(size);
  if (!copy)
    return NULL;
  char *text = (char *)(copy + headers->count);
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    copy[i].name = memcpy(text, line.name.data, line.name.size);
    text += line.name.size;
    *text++ = '\0';
    copy[i].value = line.value.size ? memcpy(text, line.value.data, line.value.size) : text;
    text += line.value.size;
    *text++ = '\0';
  }
  return copy;
}

static void host_head(void *user, int status, const struct pry_headers *headers, int64_t body_size)
{
  (void)body_size;
  struct host_call *call = user;
  if (!call->ops.on_headers)
    return;
  struct parry_header *copy = copy_headers(headers);
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
  struct parry_outcome told = {.ok = outcome->ok,
                               .status = outcome->status,
                               .category = pry_category_name(outcome->category),
                               .message = outcome->ok ? "" : outcome->failure.message,
                               .attempts = outcome->attempts,
                               .target = view->target.name,
                               .call_id = view->id,
                               .truncated = truncated};
  pry_list_remove(&call->link);
  call->engine->call_count--;
  if (call->ops.on_done)
    call->ops.on_done(call->user, &told);
  free(call);
}

static const struct pry_sink_ops host_sink = {host_head, host_data, host_done, NULL};

static bool read_headers(const struct parry_header *from, size_t count, struct pry_headers *headers)
{
  for (size_t i = 0; i < count; i++)
    if (!from[i].name || !from[i].value ||
        !pry_headers_add(headers, pry_slice_of(from[i].name), pry_slice_of(from[i].value)))
      return false;
  return true;
}

static int start_call(struct parry *engine, const struct parry_request *request, struct host_call *call)
{
  struct pry_headers headers;
  struct pry_buffer body;
  pry_headers_init(&headers);
  pry_buffer_init(&body, engine->engine->options.replay_limit);
  int error = read_headers(request->headers, request->header_count, &headers) ? PARRY_OK : PARRY_EINVAL;
  if (!error && !pry_buffer_append(&body, request->body, request->body_size))
    error = PARRY_ENOMEM;
  const char *query = strchr(request->path, '?');
  size_t path_size = query ? (size_t)(query - request->path) : strlen(request->path);
  struct pry_call_request start = {.method = pry_slice_of(request->method ? request->method : "POST"),
                                   .path = {request->path, path_size},
                                   .query = pry_slice_of(query ? query + 1 : ""),
                                   .headers = &headers,
                                   .body = &body};
  call->call = error ? NULL : pry_call_start(engine->engine->control, &start, &host_sink, call);
  if (!error && !call->call)
    error = PARRY_ENOMEM;
  pry_headers_fini(&headers);
  pry_buffer_fini(&body);
  return error;
}

int parry_call(parry *engine, const struct parry_request *request, const struct parry_call_ops *ops, void *user,
               parry_call_id *id)
{
  if (id)
    id->value = 0;
  if (!valid(engine) || !request || request->size < sizeof *request || !request->path || request->path[0] != '/' ||
      !ops || ops->size < sizeof *ops || (request->body_size && !request->body) ||
      (request->header_count && !request->headers))
    return PARRY_EINVAL;
  if (atomic_load(&engine->engine->closing))
    return PARRY_EREENTRANT;
  if (request->body_size > engine->engine->options.replay_limit)
    return PARRY_EINVAL;
  struct host_call *call = calloc(1, sizeof *call);
  if (!call)
    return PARRY_ENOMEM;
  *call = (struct host_call){.engine = engine, .id = ++engine->next_call, .ops = *ops, .user = user};
  pry_list_init(&call->link);
  int error = start_call(engine, request, call);
  if (error) {
    free(call);
    return error;
  }
  pry_list_push(&engine->calls, &call->link);
  engine->call_count++;
  if (id)
    id->value = call->id;
  return PARRY_OK;
}

int parry_call_resume(parry *engine, parry_call_id id)
{
  if (!valid(engine))
    return PARRY_EINVAL;
  struct host_call *call = find_call(engine, id);
  if (!call)
    return PARRY_ENOENT;
  pry_call_resume(call->call);
  return PARRY_OK;
}

int parry_call_cancel(parry *engine, parry_call_id id)
{
  if (!valid(engine))
    return PARRY_EINVAL;
  struct host_call *call = find_call(engine, id);
  if (!call)
    return PARRY_ENOENT;
  pry_call_cancel(call->call);
  return PARRY_OK;
}
