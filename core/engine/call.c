#include "call_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* Timers one call can have running at once. */
enum { CALL_TIMERS = 10 };

static const char *const state_names[] = {
    [CALL_REQUEST] = "request", [CALL_HOLD] = "hold", [CALL_PREPARE] = "prepare", [CALL_TOKEN] = "token",
    [CALL_SEND] = "send",       [CALL_HEAD] = "head", [CALL_RELAY] = "relay",     [CALL_REACT] = "react",
    [CALL_WAIT] = "wait",       [CALL_DONE] = "done",
};

/* ---- making ------------------------------------------------------------------------------------------ */

static void write_id(struct pry_call *call)
{
  static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
  char sequence[16];
  size_t i = sizeof sequence;
  uint64_t rest = call->worker->next_call++;
  sequence[--i] = '\0';
  do
    sequence[--i] = digits[rest % 36];
  while (rest /= 36);
  snprintf(call->view.id, sizeof call->view.id, "c_%u_%s", call->worker->index, sequence + i);
}

static bool is_credential(struct pry_slice name)
{
  static const struct pry_slice names[] = {PRY_SLICE_INIT("authorization"), PRY_SLICE_INIT("x-api-key"),
                                           PRY_SLICE_INIT("api-key"), PRY_SLICE_INIT("x-goog-api-key")};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (pry_slice_equal_nocase(name, names[i]))
      return true;
  return false;
}

/* Fields that belong to the client's connection or to this hop (RFC 9110 §7.6.1), or are written anew. */
static bool is_dropped(struct pry_slice name)
{
  static const struct pry_slice names[] = {PRY_SLICE_INIT("connection"),
                                           PRY_SLICE_INIT("keep-alive"),
                                           PRY_SLICE_INIT("proxy-connection"),
                                           PRY_SLICE_INIT("proxy-authorization"),
                                           PRY_SLICE_INIT("te"),
                                           PRY_SLICE_INIT("trailer"),
                                           PRY_SLICE_INIT("transfer-encoding"),
                                           PRY_SLICE_INIT("upgrade"),
                                           PRY_SLICE_INIT("content-length"),
                                           PRY_SLICE_INIT("host"),
                                           PRY_SLICE_INIT("expect"),
                                           PRY_SLICE_INIT("accept-encoding"),
                                           PRY_SLICE_INIT("cookie")};
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

static bool copy_headers(struct pry_call *call, const struct pry_headers *headers)
{
  bool names = names_fields(headers);
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    if (is_dropped(line.name) || (names && pry_headers_has_token(headers, PRY_SLICE("connection"), line.name)))
      continue;
    if (!pry_headers_add(is_credential(line.name) ? &call->credentials : &call->headers, line.name, line.value))
      return false;
  }
  return true;
}

static bool copy_request(struct pry_call *call, const struct pry_call_request *request)
{
  if (!pry_buffer_append_slice(&call->text, request->method) || !pry_buffer_append(&call->text, "", 1) ||
      !pry_buffer_append_slice(&call->text, request->path) || !pry_buffer_append_slice(&call->text, request->query) ||
      !pry_buffer_append_slice(&call->text, request->target) || !copy_headers(call, request->headers))
    return false;
  const char *text = call->text.data;
  call->view.method = (struct pry_slice){text, request->method.size};
  call->view.path = (struct pry_slice){text + request->method.size + 1, request->path.size};
  call->query = (struct pry_slice){call->view.path.data + request->path.size, request->query.size};
  call->first_target = (struct pry_slice){call->query.data + request->query.size, request->target.size};
  pry_trace_id(request->headers, call->trace_id);
  struct pry_slice count;
  call->client_retry = pry_headers_get(request->headers, PRY_SLICE("x-stainless-retry-count"), &count) && count.size &&
                       !pry_slice_equal(count, PRY_SLICE("0"));
  return true;
}

static void init_parts(struct pry_call *call)
{
  pry_list_init(&call->link);
  pry_list_init(&call->permits);
  pry_list_init(&call->attempt_permits);
  pry_list_init(&call->queue_waiter.link);
  pry_list_init(&call->token_waiter.link);
  pry_buffer_init(&call->text, 0);
  pry_buffer_init(&call->body, 0);
  pry_buffer_init(&call->url, 0);
  pry_buffer_init(&call->out_body, 0);
  pry_buffer_init(&call->token, 0);
  pry_buffer_init(&call->tail, 0);
  pry_headers_init(&call->headers);
  pry_headers_init(&call->credentials);
  pry_headers_init(&call->added);
  pry_headers_init(&call->out_headers);
  pry_headers_init(&call->injection.headers);
  pry_buffer_init(&call->injection.body, PRY_RESPOND_MAX);
  pry_buffer_init(&call->upload.waiting, 0);
  pry_buffer_init(&call->undecoded, 0);
  pry_call_answer_init(&call->answer);
}

static void wipe(struct pry_buffer *secret)
{
  if (secret->data)
    explicit_bzero(secret->data, secret->capacity);
  pry_buffer_fini(secret);
}

static void free_call(struct pry_call *call)
{
  if (!pry_list_empty(&call->link)) {
    pry_list_remove(&call->link);
    atomic_fetch_sub_explicit(&call->worker->call_count, 1, memory_order_relaxed);
  }
  pry_engine_give_replay(call->worker->engine, call->replay_bytes);
  pry_buffer_fini(&call->text);
  pry_buffer_fini(&call->body);
  pry_buffer_fini(&call->url);
  pry_buffer_fini(&call->out_body);
  wipe(&call->token);
  pry_buffer_fini(&call->tail);
  pry_headers_fini(&call->headers);
  pry_headers_fini(&call->credentials);
  pry_headers_fini(&call->added);
  pry_headers_fini(&call->out_headers);
  pry_headers_fini(&call->injection.headers);
  pry_buffer_fini(&call->injection.body);
  pry_buffer_fini(&call->upload.waiting);
  pry_buffer_fini(&call->undecoded);
  pry_decoder_free(call->decoder);
  pry_headers_fini(&call->answer.headers);
  pry_buffer_fini(&call->answer.body);
  pry_call_free_translation(call);
  if (call->stream_open)
    pry_stream_fini(&call->stream);
  pry_vars_free(call->view.vars);
  free(call->ledger);
  pry_state_unref(call->script);
  pry_generation_unref(call->generation);
  free(call);
}

static void begin(void *user);

/* A body that is not kept is bounded by the client's pace; of it only the beginning counts, and never too much. */
static bool take_room(struct pry_engine *engine, const struct pry_call_request *request)
{
  if (!request->more)
    return request->body->size <= engine->options.replay_limit && pry_engine_take_replay(engine, request->body->size);
  pry_engine_add_replay(engine, request->body->size);
  return true;
}

struct pry_call *pry_call_start(struct pry_worker *worker, const struct pry_call_request *request,
                                const struct pry_sink_ops *sink, void *user)
{
  struct pry_engine *engine = worker->engine;
  if (atomic_load(&engine->closing) || !take_room(engine, request))
    return NULL;
  struct pry_call *call = calloc(1, sizeof *call);
  if (!call) {
    pry_engine_give_replay(engine, request->body->size);
    return NULL;
  }
  call->worker = worker;
  call->replay_bytes = request->body->size;
  call->sink = *sink;
  call->host = request->host;
  call->user = user;
  init_parts(call);
  call->view.vars = pry_vars_new();
  if (!call->view.vars || !copy_request(call, request) ||
      !pry_loop_reserve(worker->loop, (worker->call_count + 2) * CALL_TIMERS + 64)) {
    free_call(call);
    return NULL;
  }
  write_id(call);
  call->body = *request->body;
  pry_buffer_init(request->body, request->body->limit);
  call->upload.streamed = request->more;
  call->upload.size = request->body_size;
  call->upload.attempt_left = call->upload.deadline_left = -1;
  call->view.body_passes = request->more;
  if (!request->more)
    call->view.body = pry_buffer_slice(&call->body);
  call->view.headers = &call->headers;
  call->view.route = "";
  call->models = request->models;
  if (request->client.size)
    snprintf(call->view.client, sizeof call->view.client, "%.*s", (int)request->client.size, request->client.data);
  call->failure.retry_after = -1;
  call->arrived = pry_loop_now(worker->loop);
  call->view.deadline = call->arrived + PRY_DEADLINE_DEFAULT;
  pry_list_push(&worker->calls, &call->link);
  atomic_fetch_add_explicit(&worker->call_count, 1, memory_order_relaxed);
  pry_call_start_timer(call, &call->begin_timer, 0, begin);
  return call;
}

void pry_call_start_timer(struct pry_call *call, struct pry_timer *timer, pry_time delay, pry_timer_fn fire)
{
  pry_timer_start(call->worker->loop, timer, delay, fire, call);
}

pry_time pry_call_deadline_left(const struct pry_call *call)
{
  pry_time left = call->view.deadline - pry_loop_now(call->worker->loop);
  return left > 0 ? left : 0;
}

/* ---- understanding the request ------------------------------------------------------------------------ */

/* JSON by its content type, or by the look of it where the type says nothing (what `curl -d` sends). */
static bool has_json_body(const struct pry_call *call, bool *said)
{
  struct pry_slice type;
  struct pry_slice form = PRY_SLICE("application/x-www-form-urlencoded");
  *said = pry_headers_get(&call->headers, PRY_SLICE("content-type"), &type) && !pry_slice_equal_nocase(type, form);
  if (!call->body.size)
    return false;
  if (!*said)
    return call->body.data[0] == '{';
  return pry_slice_starts_with(type, PRY_SLICE("application/json")) || memmem(type.data, type.size, "+json", 5);
}

/* The model and whether a stream is wanted. NULL: understood; else what is wrong with the body. */
static const char *read_body(struct pry_call *call, char *complaint, size_t size)
{
  bool said;
  call->is_json = has_json_body(call, &said);
  if (!call->is_json)
    return NULL;
  enum pry_json_result result = pry_json_request(pry_buffer_slice(&call->body), &call->json);
  if (call->upload.streamed && result != PRY_JSON_DUPLICATE)
    result = PRY_JSON_OK; /* it is not all here: what is wrong with it is for the provider to say */
  if (!said && result != PRY_JSON_OK && result != PRY_JSON_DUPLICATE) {
    call->is_json = false; /* it only looked like it */
    return NULL;
  }
  if (result == PRY_JSON_DUPLICATE) {
    snprintf(complaint, size, "the body has `%s` twice", call->json.duplicate);
    return complaint;
  }
  if (result != PRY_JSON_OK) {
    snprintf(complaint, size, "the body is not a JSON object that can be read: %s", pry_json_result_text(result));
    return complaint;
  }
  if (call->upload.streamed && call->json.model.type != PRY_JSON_STRING)
    return NULL;
  if (call->json.model.type == PRY_JSON_NONE || call->json.model.type == PRY_JSON_NULL)
    return NULL;
  struct pry_buffer model;
  pry_buffer_init(&model, PRY_TARGET_MAX - 1);
  bool read = call->json.model.type == PRY_JSON_STRING && pry_json_string(call->json.model.raw, &model) &&
              !(model.size && memchr(model.data, '\0', model.size));
  if (read && model.size)
    memcpy(call->view.model, model.data, model.size);
  pry_buffer_fini(&model);
  return read ? NULL : "`model` must be a string of at most 255 bytes";
}

static bool ends_with(struct pry_slice text, const char *end)
{
  size_t size = strlen(end);
  return text.size >= size && memcmp(text.data + text.size - size, end, size) == 0;
}

/* Generating text or vectors again changes nothing at the provider but the bill. */
static bool is_repeatable(const struct pry_call *call)
{
  static const char *const paths[] = {
      "/completions", "/responses",    "/messages",          "/embeddings",      "/rerank",
      "/moderations", "/count_tokens", "/generations",       ":generateContent", ":streamGenerateContent",
      ":countTokens", ":embedContent", ":batchEmbedContents"};
  if (call->route->repeatable != PRY_ANY)
    return call->route->repeatable == PRY_ONLY_TRUE;
  if (pry_slice_equal(call->view.method, PRY_SLICE("GET")) || pry_slice_equal(call->view.method, PRY_SLICE("HEAD")))
    return true;
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
    if (ends_with(call->view.path, paths[i]))
      return true;
  return false;
}

static void read_session(struct pry_call *call)
{
  struct pry_slice value = {NULL, 0};
  struct pry_buffer decoded;
  pry_buffer_init(&decoded, sizeof call->view.session - 1);
  const struct pry_route *route = call->route;
  struct pry_json_value field;
  if (route->session_kind == PRY_SESSION_FIELD) {
    if (call->is_json && pry_json_get(pry_buffer_slice(&call->body), route->session_name, &field) &&
        field.type == PRY_JSON_STRING && pry_json_string(field.raw, &decoded))
      value = pry_buffer_slice(&decoded);
  } else {
    const char *name = route->session_kind == PRY_SESSION_HEADER ? route->session_name : "x-session-id";
    pry_headers_get(&call->headers, pry_slice_of(name), &value);
  }
  if (value.size < sizeof call->view.session && !(value.size && memchr(value.data, '\0', value.size)))
    memcpy(call->view.session, value.size ? value.data : "", value.size);
  pry_buffer_fini(&decoded);
}

static void refuse_request(struct pry_call *call, enum pry_category category, const char *code, const char *message)
{
  call->failure = pry_call_own_failure(category, code, message);
  pry_call_finish_failure(call);
}

/* `Model` is nobody's `model` to us, but some providers' readers ignore the case, and take the last. */
static bool has_other_model(const struct pry_call *call)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  struct pry_buffer name;
  bool found = false;
  pry_buffer_init(&name, 16);
  pry_json_iterate(&iterator, pry_buffer_slice(&call->body));
  while (!found && pry_json_next(&iterator, &key, &value)) {
    pry_buffer_clear(&name);
    found = !pry_json_equals(key, PRY_SLICE("model")) && pry_json_string(key, &name) &&
            pry_slice_equal_nocase(pry_buffer_slice(&name), PRY_SLICE("model"));
  }
  pry_buffer_fini(&name);
  return found;
}

/* A body whose model cannot be read may name any; no body, none. */
static bool may_use_model(const struct pry_call *call)
{
  const struct pry_text_list *models = call->models;
  bool fits = !models || !models->count || (!call->view.model[0] && !call->body.size);
  for (size_t i = 0; !fits && i < models->count; i++)
    fits = pry_glob_match(pry_slice_of(models->items[i]), pry_slice_of(call->view.model));
  return fits && !(models && models->count && call->is_json && has_other_model(call));
}

static void refuse_model(struct pry_call *call)
{
  call->failure = pry_call_own_failure(PRY_PERMISSION, "model_not_allowed",
                                       "this client may not use this model; the gateway's clients file lists which");
  call->failure.status = 403;
  pry_call_finish_failure(call);
}

static void deadline_passed(void *user)
{
  struct pry_call *call = user;
  struct pry_failure failure =
      pry_call_own_failure(PRY_TIMEOUT, "deadline", "the call's deadline passed before there was an answer");
  bool reacting = call->state == CALL_REACT;
  pry_call_stop_waiting(call);
  if (call->attempt_open) {
    failure.sent = call->state == CALL_SEND || call->state == CALL_HEAD;
    /* Handlers may still say something, but not wait: in the next turn it is over. */
    pry_call_start_timer(call, &call->deadline_timer, 0, deadline_passed);
    pry_call_attempt_failed(call, &failure);
    return;
  }
  if (!reacting || !call->failure.category)
    call->failure = failure;
  pry_call_finish_failure(call);
}

/* The provider and the model to begin with. */
static bool find_first_target(struct pry_call *call)
{
  const struct pry_model_rule *rule = pry_route_rule(call->route, pry_slice_of(call->view.model));
  if (!rule || (rule->model && !pry_call_can_rename(call)))
    return false;
  return pry_call_set_target(call, rule->provider, pry_slice_of(rule->model ? rule->model : call->view.model));
}

/* The target that the request names, in place of the route's. NULL: taken; else what is wrong with it. */
static const char *take_first_target(struct pry_call *call, char *complaint, size_t size)
{
  struct pry_slice name = call->first_target, model = pry_slice_of(call->view.model);
  const char *slash = name.size ? memchr(name.data, '/', name.size) : NULL;
  if (slash) {
    model = (struct pry_slice){slash + 1, name.size - (size_t)(slash - name.data) - 1};
    name.size = (size_t)(slash - name.data);
  }
  const struct pry_provider *provider = pry_config_provider(call->generation->config, name);
  if (!provider || (slash && !model.size))
    snprintf(complaint, size,
             provider ? "the target \"%.*s/\" names no model after the \"/\""
                      : "the target names the provider \"%.*s\", which init.lua does not declare",
             name.size < 64 ? (int)name.size : 64, name.data);
  else if (!pry_call_set_target(call, provider, model))
    snprintf(complaint, size, "the target's name is longer than %d bytes", PRY_TARGET_MAX - 1);
  else
    return call->host ? NULL : pry_call_dialect_complaint(call, provider);
  return complaint;
}

static void begin(void *user)
{
  struct pry_call *call = user;
  char complaint[160];
  pry_worker_adopt(call->worker);
  if (!call->worker->state) {
    refuse_request(call, PRY_UNKNOWN, "no_policies", "no policies are loaded");
    return;
  }
  call->script = call->worker->state;
  pry_state_ref(call->script);
  call->generation = call->script->generation;
  pry_generation_ref(call->generation);
  const struct pry_config *config = call->script->generation->config;
  call->route = pry_config_route(config, call->view.path, &call->rest);
  call->client_dialect = pry_client_dialect(call->route, call->view.path);
  call->view.dialect = call->client_dialect;
  if (!call->route) {
    refuse_request(call, PRY_NOT_FOUND, "no_route", "no route matches this path");
    return;
  }
  call->view.route = call->route->pattern;
  if (pry_path_has_dot_segment(call->view.path)) {
    refuse_request(call, PRY_INVALID_REQUEST, "invalid_path", "the path holds a `.` or `..` segment");
    return;
  }
  call->view.deadline = call->arrived + call->route->deadline;
  const char *wrong = read_body(call, complaint, sizeof complaint);
  if (wrong) {
    refuse_request(call, PRY_INVALID_REQUEST, "invalid_body", wrong);
    return;
  }
  call->view.body_is_json = call->is_json && !call->upload.streamed;
  if (!may_use_model(call)) {
    refuse_model(call);
    return;
  }
  call->models = NULL;
  wrong = call->first_target.size ? take_first_target(call, complaint, sizeof complaint) : NULL;
  if (wrong) {
    refuse_request(call, PRY_INVALID_REQUEST, "invalid_target", wrong);
    return;
  }
  if (!call->first_target.size && !find_first_target(call)) {
    refuse_request(call, PRY_NOT_FOUND, "model_not_found",
                   pry_call_can_rename(call) ? "no provider is declared for this model"
                                             : "a body of this size is not kept, and what was read of it names no "
                                               "model: put `model` before the long parts");
    return;
  }
  pry_call_set_home(call, call->view.target.provider);
  call->view.repeatable = !call->upload.streamed && is_repeatable(call);
  read_session(call);
  pry_call_start_timer(call, &call->deadline_timer, pry_call_deadline_left(call), deadline_passed);
  if (!call->host) /* a host hears of an answer only when it is there */
    pry_call_start_early(call);
  pry_call_request_pass(call);
}

/* What this call is in another generation; false: it has no place there. */
static bool find_place(const struct pry_call *call, const struct pry_config *config, const struct pry_route **route,
                       const struct pry_provider **provider)
{
  const struct pry_provider *now = call->view.target.provider;
  *route = pry_config_route_by_pattern(config, call->route->pattern);
  *provider = now ? pry_config_provider(config, pry_slice_of(now->name)) : NULL;
  return *route && (*provider || !now);
}

static void change_script(struct pry_call *call, struct pry_state *state)
{
  struct pry_state *before = call->script;
  pry_state_ref(state);
  call->script = state;
  pry_state_unref(before);
}

/* The new set may have no place for this call: it ends on the one it knows. */
static bool move_to(struct pry_call *call, struct pry_state *state)
{
  const struct pry_route *route;
  const struct pry_provider *provider;
  if (state->generation != call->generation) {
    if (!find_place(call, state->generation->config, &route, &provider))
      return false;
    call->route = route;
    call->view.route = route->pattern;
    call->view.target.provider = provider;
    call->client_dialect = pry_client_dialect(route, call->view.path);
    call->view.dialect = call->client_dialect;
    struct pry_generation *before = call->generation;
    call->generation = state->generation;
    pry_generation_ref(call->generation);
    pry_generation_unref(before);
  }
  if (call->script != state)
    change_script(call, state);
  return true;
}

void pry_call_adopt_generation(struct pry_call *call)
{
  pry_worker_adopt(call->worker);
  if (call->route && !move_to(call, call->worker->state))
    move_to(call, call->script);
}

void pry_calls_follow(struct pry_worker *worker)
{
  for (struct pry_list *link = worker->calls.next; link != &worker->calls; link = link->next) {
    struct pry_call *call = PRY_CONTAINER_OF(link, struct pry_call, link);
    const struct pry_route *route;
    const struct pry_provider *provider;
    if (call->script && call->route && !call->pass.running &&
        find_place(call, worker->state->generation->config, &route, &provider))
      change_script(call, worker->state);
  }
}

const struct pry_dialect *pry_call_dialect(const struct pry_call *call, const struct pry_dialect *dialect)
{
  return call->script->generation == call->generation
             ? dialect
             : pry_config_dialect(call->script->generation->config, dialect->name);
}

/* ---- ending ------------------------------------------------------------------------------------------- */

static void stop_everything(struct pry_call *call)
{
  pry_call_stop_waiting(call);
  pry_timer_cancel(&call->begin_timer);
  pry_timer_cancel(&call->deadline_timer);
  pry_timer_cancel(&call->stream_timer);
  pry_timer_cancel(&call->early_timer);
  pry_permits_release(&call->attempt_permits);
  if (call->target_permit)
    call->target_permit->release(call->target_permit);
  call->target_permit = NULL;
}

static void gone(struct pry_call *call)
{
  pry_permits_release(&call->permits);
  free_call(call);
}

void pry_call_end(struct pry_call *call)
{
  call->state = CALL_DONE;
  call->outcome.spent = call->spent;
  stop_everything(call);
  pry_permits_release(&call->permits);
  struct pry_metrics *metrics = call->worker->engine->metrics;
  pry_metrics_add(metrics, PRY_M_CALLS, call->view.route,
                  call->outcome.ok ? "ok" : pry_category_name(call->outcome.category), 1);
  if (call->view.client[0])
    pry_metrics_add(metrics, PRY_M_CLIENT_CALLS, call->view.client,
                    call->outcome.ok ? "ok" : pry_category_name(call->outcome.category), 1);
  pry_metrics_add(metrics, PRY_M_CALL_DURATION, call->view.route, NULL,
                  pry_time_to_seconds(pry_loop_now(call->worker->loop) - call->arrived));
  pry_log(call->worker->engine->log, PRY_LOG_INFO, "call", pry_log_text("call_id", call->view.id),
          pry_log_text("client", call->view.client), pry_log_text("route", call->view.route),
          pry_log_text("model", call->view.model), pry_log_text("target", call->view.target.name),
          pry_log_integer("status", call->outcome.status),
          pry_log_text("outcome", call->outcome.ok ? "ok" : pry_category_name(call->outcome.category)),
          pry_log_integer("attempts", call->outcome.attempts),
          pry_log_number("seconds", pry_time_to_seconds(pry_loop_now(call->worker->loop) - call->arrived)),
          pry_log_text("trace_id", call->trace_id));
  if (!call->route) {
    gone(call);
    return;
  }
  pry_call_observe_done(call, gone);
}

static void tell_cancelled(void *user)
{
  struct pry_call *call = user;
  call->finished = true;
  call->outcome.spent = call->spent;
  call->sink.done(call->user, &call->outcome, true);
  pry_call_end(call);
}

static void cancelled_observed(struct pry_call *call)
{
  pry_call_start_timer(call, &call->begin_timer, 0, tell_cancelled);
}

void pry_call_cancel(struct pry_call *call)
{
  if (call->finished || call->cancelled)
    return;
  bool was_open = call->attempt_open;
  call->cancelled = true;
  pry_call_stop_upload(call);
  pry_timer_cancel(&call->begin_timer);
  pry_timer_cancel(&call->deadline_timer);
  pry_timer_cancel(&call->early_timer);
  pry_call_stop_waiting(call);
  pry_permits_release(&call->permits); /* observers may take their time; others wait for the place */
  call->failure = pry_failure_of(PRY_CANCELLED);
  pry_failure_set_message(&call->failure, PRY_SLICE("the client left"));
  call->outcome = (struct pry_outcome){.category = PRY_CANCELLED,
                                       .status = 499, /* what proxies log for it; nobody receives it */
                                       .attempts = call->sent_attempts,
                                       .committed = call->committed,
                                       .failure = call->failure};
  if (was_open)
    pry_call_close_attempt(call, &call->failure);
  if (was_open && !call->ledger[call->view.ledger_count - 1].refused)
    pry_call_observe_outcome(call, cancelled_observed);
  else
    cancelled_observed(call);
}

void pry_call_destroy(struct pry_call *call)
{
  if (call->attempt_open)
    pry_call_close_attempt(call, &call->failure);
  stop_everything(call);
  if (!call->finished) {
    call->finished = true;
    call->outcome = (struct pry_outcome){.category = PRY_CANCELLED, .status = 499, .attempts = call->sent_attempts};
    call->sink.done(call->user, &call->outcome, true);
  }
  gone(call);
}

void pry_calls_destroy(struct pry_worker *worker)
{
  while (!pry_list_empty(&worker->calls))
    pry_call_destroy(PRY_CONTAINER_OF(worker->calls.next, struct pry_call, link));
}

/* ---- looking ------------------------------------------------------------------------------------------ */

const struct pry_call_view *pry_call_get_view(const struct pry_call *call)
{
  return &call->view;
}

const char *pry_call_generation(const struct pry_call *call)
{
  return call->script ? call->script->generation->id : "";
}

const char *pry_call_why(const struct pry_call *call)
{
  return call->why;
}

const char *pry_call_state_name(const struct pry_call *call)
{
  return state_names[call->state];
}

struct pry_call *pry_call_find(struct pry_worker *worker, const char *id)
{
  for (struct pry_list *link = worker->calls.next; link != &worker->calls; link = link->next) {
    struct pry_call *call = PRY_CONTAINER_OF(link, struct pry_call, link);
    if (strcmp(call->view.id, id) == 0)
      return call;
  }
  return NULL;
}
