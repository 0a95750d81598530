#include "health_internal.h"

#include "call.h"
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>

#define TIMEOUT_DEFAULT (5 * PRY_SECOND)

enum { ANSWER_MAX = 4 * 1024 * 1024 }; /* lists of models are long */

/* One target being checked. */
struct check {
  struct pry_health_run *run;
  size_t index; /* of its result */
  const struct pry_provider *provider;
  struct pry_slice model; /* in the result's target */
  enum pry_health_question question;
  bool with_credential; /* the request under way carries one */
  bool first_request;
  struct pry_http_exchange *exchange;
  struct pry_timer timer; /* the timeout of it all */
  struct pry_token_waiter waiter;
  pry_time started;
  struct pry_buffer url, body, token, answer;
  struct pry_headers headers, answer_headers;
  int status;
};

struct pry_health_run {
  struct pry_worker *worker;
  struct pry_state *state;
  struct pry_health_options options;
  struct pry_health_result *results;
  size_t count, next, ended;
  void (*done)(void *user, const struct pry_health_result *results, size_t count);
  void *user;
  struct pry_timer turn; /* what is over is cleared away from the loop, not from inside a callback */
  struct check checks[PRY_HEALTH_AT_ONCE];
};

static struct pry_health_result *result_of(const struct check *check)
{
  return &check->run->results[check->index];
}

/* ---- ending -------------------------------------------------------------------------------------------------- */

static void wipe(struct pry_buffer *buffer)
{
  if (buffer->data)
    explicit_bzero(buffer->data, buffer->capacity);
  pry_buffer_fini(buffer);
}

static void stop(struct check *check)
{
  if (!check->provider)
    return;
  pry_timer_cancel(&check->timer);
  pry_token_leave(&check->waiter);
  if (check->exchange)
    pry_http_cancel(check->exchange);
  check->exchange = NULL;
  pry_buffer_fini(&check->url);
  pry_buffer_fini(&check->body);
  pry_buffer_fini(&check->answer);
  wipe(&check->token);
  wipe(&check->headers.text);
  pry_headers_fini(&check->headers);
  pry_headers_fini(&check->answer_headers);
  check->provider = NULL;
}

static void free_run(struct pry_health_run *run)
{
  for (size_t i = 0; i < PRY_HEALTH_AT_ONCE; i++)
    stop(&run->checks[i]);
  pry_timer_cancel(&run->turn);
  pry_state_unref(run->state);
  free(run->results);
  free(run);
}

void pry_health_cancel(struct pry_health_run *run)
{
  if (run)
    free_run(run);
}

static void turn(void *user);

/* The check's memory stays until the next turn of the loop, because this may be called from inside its exchange. */
static void conclude(struct check *check)
{
  struct pry_health_run *run = check->run;
  struct pry_health_result *result = result_of(check);
  result->seconds = pry_time_to_seconds(pry_loop_now(run->worker->loop) - check->started);
  pry_health_conclude(result);
  pry_timer_cancel(&check->timer);
  run->ended++;
  check->run = NULL; /* over */
  pry_timer_start(run->worker->loop, &run->turn, 0, turn, run);
}

static void fail(struct check *check, struct pry_failure failure, const char *code)
{
  struct pry_health_answer answer = {.question = check->question, .failure = failure};
  pry_failure_set_code(&answer.failure, pry_slice_of(code));
  pry_health_judge(result_of(check), &answer, check->model);
  conclude(check);
}

/* Says nothing about the target. */
static void out_of_memory(struct check *check)
{
  struct pry_health_result *result = result_of(check);
  result->category = PRY_UNKNOWN;
  snprintf(result->code, sizeof result->code, "%s", PRY_HEALTH_NO_MEMORY);
  result->hint = "memory of parry is short: this says nothing about the target";
  conclude(check);
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static void ask(struct check *check);

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct check *check = user;
  check->status = status;
  pry_headers_clear(&check->answer_headers);
  pry_headers_add_all(&check->answer_headers, headers);
}

/* What is beyond the bound is not looked at: a list that is cut says nothing about what is not in it. */
static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct check *check = user;
  pry_buffer_append_slice(&check->answer, data);
  return PRY_HTTP_CONTINUE;
}

static void keep_times(struct pry_health_result *result, const struct pry_http_result *ended)
{
  if (ended->timed) {
    result->dns = ended->dns;
    result->tcp = ended->tcp;
    result->tls = ended->tls;
  }
}

static void on_done(void *user, const struct pry_http_result *ended)
{
  struct check *check = user;
  struct pry_health_run *run = check->run;
  struct pry_health_result *result = result_of(check);
  check->exchange = NULL;
  if (check->first_request)
    keep_times(result, ended);
  check->first_request = false;
  if (ended->curl_code && !(ended->head_received && check->status >= 400)) {
    fail(check, pry_failure_from_curl(ended->curl_code, ended->sent), "");
    return;
  }
  struct pry_answer_view view = {.provider = check->provider->name,
                                 .status = check->status,
                                 .headers = &check->answer_headers,
                                 .body = pry_buffer_slice(&check->answer)};
  struct pry_health_answer answer = {.question = check->question,
                                     .answered = true,
                                     .credential = check->with_credential,
                                     .auth = check->provider->auth.kind,
                                     .body = view.body};
  answer.failure = pry_classify(run->state, check->provider->dialect, &view, pry_loop_unix_time(run->worker->loop));
  answer.failure.status = check->status;
  if (!pry_health_judge(result, &answer, check->model)) {
    conclude(check);
    return;
  }
  check->question = PRY_ASK_MODEL;
  ask(check);
}

static void timed_out(void *user)
{
  struct check *check = user;
  pry_token_leave(&check->waiter);
  if (check->exchange)
    pry_http_cancel(check->exchange);
  check->exchange = NULL;
  fail(check, pry_failure_from_curl(PRY_HTTP_TIMED_OUT, true), "no_answer");
}

/* ---- the request -------------------------------------------------------------------------------------------------- */

/* The dialect's own words, or those of the one that its clients speak. */
static const struct pry_dialect_health *words_of(const struct check *check)
{
  const struct pry_config *config = check->run->state->generation->config;
  const struct pry_dialect *dialect = check->provider->dialect;
  if (!dialect->health.models && !dialect->health.completion && dialect->speaks) {
    const struct pry_dialect *spoken = pry_config_dialect(config, dialect->speaks);
    dialect = spoken ? spoken : dialect;
  }
  return &dialect->health;
}

/* RFC 3986 §2.3: what need not be encoded in a segment of a path. */
static bool append_segment(struct pry_buffer *url, struct pry_slice text)
{
  bool ok = true;
  for (size_t i = 0; ok && i < text.size; i++) {
    unsigned char c = (unsigned char)text.data[i];
    bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~:@", c);
    ok = c && plain ? pry_buffer_append(url, &text.data[i], 1) : pry_buffer_append_format(url, "%%%02X", c);
  }
  return ok;
}

static bool build_url(struct check *check)
{
  const struct pry_dialect_health *words = words_of(check);
  struct pry_slice base = pry_slice_of(check->provider->base_url);
  struct pry_slice without = pry_slice_of(words->without ? words->without : "");
  pry_buffer_clear(&check->url);
  if (check->question == PRY_ASK_CONNECT)
    return pry_buffer_append_slice(&check->url, base);
  if (without.size && base.size > without.size &&
      memcmp(base.data + base.size - without.size, without.data, without.size) == 0)
    base.size -= without.size;
  const char *path = check->question == PRY_ASK_COMPLETION ? words->completion : words->models;
  bool ok = pry_buffer_append_slice(&check->url, base) && pry_buffer_append_text(&check->url, path);
  if (check->question == PRY_ASK_MODEL)
    ok = ok && pry_buffer_append_text(&check->url, "/") && append_segment(&check->url, check->model);
  return ok;
}

static bool build_body(struct check *check)
{
  pry_buffer_clear(&check->body);
  if (check->question != PRY_ASK_COMPLETION)
    return true;
  return pry_buffer_append_text(&check->body, "{\"model\":\"") && pry_buffer_append_json(&check->body, check->model) &&
         pry_buffer_append_text(&check->body,
                                "\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
}

static bool add_credential(struct check *check)
{
  const struct pry_auth *auth = &check->provider->auth;
  struct pry_buffer value;
  pry_buffer_init(&value, 0);
  bool bearer = auth->kind == PRY_AUTH_BEARER;
  bool added = pry_buffer_append_text(&value, bearer ? "Bearer " : "") &&
               pry_buffer_append_slice(&value, pry_buffer_slice(&check->token)) &&
               pry_headers_set(&check->headers, bearer ? PRY_SLICE("authorization") : pry_slice_of(auth->header),
                               pry_buffer_slice(&value));
  wipe(&value);
  return added;
}

/* "name: value", as the dialect lists them. */
static bool add_listed(struct check *check)
{
  const struct pry_text_list *listed = &words_of(check)->headers;
  for (size_t i = 0; i < listed->count; i++) {
    const char *colon = strchr(listed->items[i], ':');
    struct pry_slice name = {listed->items[i], (size_t)(colon - listed->items[i])};
    if (!pry_headers_set(&check->headers, name, pry_slice_trim(pry_slice_of(colon + 1))))
      return false;
  }
  return true;
}

static bool build_headers(struct check *check)
{
  pry_headers_clear(&check->headers);
  return pry_headers_set(&check->headers, PRY_SLICE("accept"), PRY_SLICE("application/json")) &&
         pry_headers_set(&check->headers, PRY_SLICE("user-agent"), PRY_SLICE("parry-health")) &&
         (check->question != PRY_ASK_COMPLETION ||
          pry_headers_set(&check->headers, PRY_SLICE("content-type"), PRY_SLICE("application/json"))) &&
         add_listed(check) && (!check->with_credential || add_credential(check));
}

static void ask(struct check *check)
{
  static const struct pry_http_ops ops = {.on_head = on_head, .on_data = on_data, .on_done = on_done};
  pry_buffer_clear(&check->answer);
  check->status = 0;
  bool post = check->question == PRY_ASK_COMPLETION;
  struct pry_http_request request = {.method = post ? "POST" : "GET", .headers = &check->headers, .fresh = true};
  if (build_url(check) && build_body(check) && build_headers(check) && (request.url = pry_buffer_text(&check->url))) {
    request.body = pry_buffer_slice(&check->body);
    request.fresh = check->first_request;
    check->exchange = pry_http_start(check->run->worker->http, &request, &ops, check);
  }
  if (!check->exchange)
    out_of_memory(check);
}

/* ---- the credential -------------------------------------------------------------------------------------------- */

static void get_token(struct check *check);

/* Somebody may still be there. */
static void ask_without(struct check *check)
{
  check->with_credential = false;
  check->question = PRY_ASK_CONNECT;
  ask(check);
}

static void token_ready(struct pry_token_waiter *waiter, bool renewed, const char *why, void *user)
{
  struct check *check = user;
  (void)waiter;
  (void)why; /* the log has it */
  if (renewed) {
    get_token(check);
    return;
  }
  pry_health_no_credential(result_of(check), "no_token", "its credential could not be renewed: see parry status");
  ask_without(check);
}

static void get_token(struct check *check)
{
  const struct pry_auth *auth = &check->provider->auth;
  struct pry_worker *worker = check->run->worker;
  const char *why;
  uint64_t version;
  pry_buffer_clear(&check->token);
  switch (pry_credential_token(worker->engine->credentials, worker->mailbox, auth->credential->name, &check->token,
                               &version, &check->waiter, token_ready, check, &why)) {
  case PRY_TOKEN_READY:
    check->with_credential = true;
    ask(check);
    return;
  case PRY_TOKEN_WAITING:
    return;
  case PRY_TOKEN_FAILED:
    pry_health_no_credential(result_of(check), "no_token", "its credential could not be renewed: see parry status");
    ask_without(check);
    return;
  }
}

static void use_text(struct check *check, const char *value)
{
  if (!value) {
    pry_health_no_credential(result_of(check), "no_secret", "its secret is missing: see parry check -v");
    ask_without(check);
    return;
  }
  check->with_credential = pry_buffer_append_text(&check->token, value);
  if (check->with_credential)
    ask(check);
  else
    out_of_memory(check);
}

/* Of credentials that another parry renews only the token that is configured can be tried. */
static void use_borrowed(struct check *check, const struct pry_credential_config *credential)
{
  if (credential->access_token && credential->access_token->value) {
    use_text(check, credential->access_token->value);
    return;
  }
  result_of(check)->hint = "its token is the running parry's: ask that one (without --policies)";
  ask_without(check);
}

static void begin_request(struct check *check)
{
  const struct pry_auth *auth = &check->provider->auth;
  if (check->question == PRY_ASK_CONNECT)
    ask_without(check);
  else if (auth->credential && check->run->options.borrowed)
    use_borrowed(check, auth->credential);
  else if (auth->credential)
    get_token(check);
  else if (auth->secret)
    use_text(check, auth->secret->value);
  else
    ask(check);
}

/* ---- the run ------------------------------------------------------------------------------------------------------- */

static enum pry_health_question first_question(struct check *check)
{
  const struct pry_dialect_health *words = words_of(check);
  enum pry_health_probe probe = check->run->options.probe;
  if (probe == PRY_PROBE_COMPLETION && words->completion && check->model.size)
    return PRY_ASK_COMPLETION;
  if (probe != PRY_PROBE_CONNECT && words->models)
    return PRY_ASK_LIST;
  if (probe != PRY_PROBE_CONNECT)
    result_of(check)->hint = "its dialect says of no request that would tell more";
  return PRY_ASK_CONNECT;
}

static void start(struct check *check, struct pry_health_run *run, size_t index)
{
  struct pry_health_result *result = &run->results[index];
  const char *slash = strchr(result->target, '/');
  struct pry_slice name = {result->target, slash ? (size_t)(slash - result->target) : strlen(result->target)};
  *check = (struct check){.run = run, .index = index, .first_request = true};
  check->started = pry_loop_now(run->worker->loop);
  check->provider = pry_config_provider(run->state->generation->config, name);
  check->model = pry_slice_of(slash ? slash + 1 : "");
  pry_buffer_init(&check->url, 0);
  pry_buffer_init(&check->body, 0);
  pry_buffer_init(&check->token, 0);
  pry_buffer_init(&check->answer, ANSWER_MAX);
  pry_headers_init(&check->headers);
  pry_headers_init(&check->answer_headers);
  pry_list_init(&check->waiter.link);
  if (!check->provider) {
    result->category = PRY_INVALID_REQUEST;
    snprintf(result->code, sizeof result->code, "no_such_provider");
    result->hint = "init.lua declares no provider of that name";
    conclude(check);
    return;
  }
  if (check->provider->host) {
    result->category = PRY_INVALID_REQUEST;
    snprintf(result->code, sizeof result->code, "host_only");
    result->hint = "a host makes the attempts at it (host = true): parry has nothing to ask";
    conclude(check);
    return;
  }
  check->question = first_question(check);
  pry_time timeout = run->options.timeout > 0 ? run->options.timeout : TIMEOUT_DEFAULT;
  if (pry_timer_start(run->worker->loop, &check->timer, timeout, timed_out, check))
    begin_request(check);
  else
    out_of_memory(check);
}

/* Clears away what is over, and begins what has a place. */
static void turn(void *user)
{
  struct pry_health_run *run = user;
  pry_timer_start(run->worker->loop, &run->turn, PRY_TIME_NEVER, turn, run); /* runs always: waking it cannot fail */
  for (size_t i = 0; i < PRY_HEALTH_AT_ONCE; i++) {
    struct check *check = &run->checks[i];
    if (!check->run)
      stop(check);
    if (!check->run && run->next < run->count)
      start(check, run, run->next++);
  }
  if (run->ended < run->count)
    return;
  run->done(run->user, run->results, run->count);
  free_run(run);
}

struct pry_health_run *pry_health_start(struct pry_worker *worker, struct pry_state *state,
                                        const struct pry_health_options *options, const char *const *targets,
                                        size_t count,
                                        void (*done)(void *user, const struct pry_health_result *results, size_t count),
                                        void *user)
{
  if (count > PRY_HEALTH_TARGETS_MAX)
    return NULL;
  struct pry_health_run *run = calloc(1, sizeof *run);
  if (!run)
    return NULL;
  *run = (struct pry_health_run){
      .worker = worker, .state = state, .options = *options, .count = count, .done = done, .user = user};
  pry_state_ref(state);
  run->results = calloc(count + 1, sizeof *run->results);
  if (!run->results || !pry_timer_start(worker->loop, &run->turn, 0, turn, run)) {
    free_run(run);
    return NULL;
  }
  for (size_t i = 0; i < count; i++) {
    run->results[i] = (struct pry_health_result){.dns = -1, .tcp = -1, .tls = -1, .hint = ""};
    snprintf(run->results[i].target, sizeof run->results[i].target, "%s", targets[i]);
  }
  return run;
}
