/* parry_decide(): the chain's answer to a failure that the host met on its own. */
#include "parry_internal.h"

#include <stdio.h>
#include <stdlib.h>

struct pry_host_decisions {
  struct pry_list pending; /* struct decision */
  uint64_t next;
};

struct decision {
  struct pry_list link;
  struct pry_host *host;
  struct pry_call_view view;
  struct pry_attempt attempt;
  struct pry_failure failure;
  struct pry_headers headers;
  struct pry_buffer text; /* copies of the host's texts */
  struct pry_host_event event;
  struct pry_pass pass;
  struct pry_state *state; /* referenced: what the pass and the decision's texts belong to */
  const struct pry_route *route;
  void (*ready)(void *user, const struct parry_decision *decision);
  void *user;
};

static void free_decision(struct decision *decision)
{
  pry_pass_stop(&decision->pass);
  if (!pry_list_empty(&decision->link)) {
    pry_list_remove(&decision->link);
    pry_host_close(decision->host);
  }
  pry_headers_fini(&decision->headers);
  pry_buffer_fini(&decision->text);
  pry_vars_free(decision->view.vars);
  pry_state_unref(decision->state);
  free(decision);
}

bool pry_host_decisions_init(struct pry_host *host)
{
  host->decisions = calloc(1, sizeof *host->decisions);
  if (host->decisions)
    pry_list_init(&host->decisions->pending);
  return host->decisions;
}

void pry_host_decisions_end(struct pry_host *host)
{
  while (!pry_list_empty(&host->decisions->pending))
    free_decision(PRY_CONTAINER_OF(host->decisions->pending.next, struct decision, link));
}

void pry_host_decisions_fini(struct pry_host *host)
{
  free(host->decisions);
  host->decisions = NULL;
}

/* ---- reading what the host says ------------------------------------------------------------------------ */

static void set_target(struct decision *decision, const char *name, unsigned attempts)
{
  struct pry_target *target = &decision->view.target;
  const char *slash = name ? strchr(name, '/') : NULL;
  size_t provider_size = slash ? (size_t)(slash - name) : name ? strlen(name) : 0;
  snprintf(target->name, sizeof target->name, "%s", name ? name : "");
  snprintf(target->model, sizeof target->model, "%s", slash ? slash + 1 : "");
  target->provider = pry_config_provider(decision->state->generation->config, (struct pry_slice){name, provider_size});
  target->attempts = attempts;
}

/* For a target that no provider of ours is. */
static const struct pry_dialect *generic(const struct decision *decision)
{
  const struct pry_dialect *named = pry_config_dialect(decision->state->generation->config, pry_dialect_generic.name);
  return named ? named : &pry_dialect_generic;
}

static void classify(struct decision *decision, const struct parry_event *failure)
{
  const struct pry_provider *provider = decision->view.target.provider;
  struct pry_answer_view answer = {.provider = provider ? provider->name : "",
                                   .status = failure->status,
                                   .headers = &decision->headers,
                                   .body = {failure->body, failure->body_size}};
  if (failure->curl_code)
    decision->failure = pry_failure_from_curl(failure->curl_code, pry_curl_code_sent(failure->curl_code));
  else
    decision->failure = pry_classify(decision->state, provider ? provider->dialect : generic(decision), &answer,
                                     pry_loop_unix_time(decision->host->loop));
  enum pry_category category = failure->category ? pry_category_from_name(pry_slice_of(failure->category)) : PRY_NONE;
  if (category)
    pry_failure_set_category(&decision->failure, category);
  else if (!decision->failure.category)
    pry_failure_set_category(&decision->failure, PRY_UNKNOWN);
}

static void fill_view(struct decision *decision, const struct parry_event *failure)
{
  struct pry_call_view *view = &decision->view;
  unsigned attempt = failure->attempt ? failure->attempt : 1;
  double now = pry_loop_unix_time(decision->host->loop);
  snprintf(view->id, sizeof view->id, "d_0_%llx", (unsigned long long)++decision->host->decisions->next);
  view->route = decision->route->pattern;
  view->dialect = "openai";
  view->method = PRY_SLICE("POST");
  view->path = PRY_SLICE("");
  view->attempt = attempt;
  view->deadline =
      pry_loop_now(decision->host->loop) +
      (failure->deadline_left > 0 ? pry_time_from_seconds(failure->deadline_left) : decision->route->deadline);
  view->repeatable = !failure->not_repeatable;
  view->headers = &decision->headers;
  set_target(decision, failure->target, attempt);
  snprintf(view->model, sizeof view->model, "%s", view->target.model);
  classify(decision, failure);
  decision->attempt = (struct pry_attempt){.category = decision->failure.category,
                                           .status = failure->status,
                                           .started = now,
                                           .ended = now,
                                           .failure = decision->failure};
  memcpy(decision->attempt.target, view->target.name, sizeof decision->attempt.target);
  view->ledger = &decision->attempt;
  view->ledger_count = 1;
}

static bool copy_event(struct decision *decision, const struct parry_event *failure)
{
  if (!failure->name)
    return true;
  size_t name_size = strlen(failure->name) + 1;
  if (!pry_buffer_append(&decision->text, failure->name, name_size) ||
      !pry_buffer_append_text(&decision->text, failure->fields ? failure->fields : "{}"))
    return false;
  decision->event.name = decision->text.data;
  decision->event.fields = (struct pry_slice){decision->text.data + name_size, decision->text.size - name_size};
  return true;
}

/* ---- turning a verdict into the host's decision ----------------------------------------------------------- */

/* Caps and the server's time hold for hosts, too. */
static bool executable(const struct decision *decision, const struct pry_verdict *verdict, double *after)
{
  const struct pry_failure *failure = &decision->failure;
  bool again = verdict->kind == PRY_VERDICT_RETRY || verdict->kind == PRY_VERDICT_FALLBACK;
  *after = verdict->after > 0 ? verdict->after : 0;
  if (verdict->kind == PRY_VERDICT_RETRY && *after < failure->retry_after)
    *after = failure->retry_after;
  if (verdict->kind == PRY_VERDICT_ROTATE)
    return false; /* a host has its keys to itself */
  if (!again)
    return true;
  if (verdict->kind == PRY_VERDICT_RETRY && failure->retry_forbidden)
    return false;
  bool refused = failure->status == 429 || (failure->status == 503 && failure->retry_after >= 0);
  if (!decision->view.repeatable && failure->sent && !refused)
    return false;
  pry_time left = decision->view.deadline - pry_loop_now(decision->host->loop);
  return decision->view.attempt < decision->route->max_attempts_per_call && pry_time_from_seconds(*after) < left;
}

static enum parry_action action_of(enum pry_verdict_kind kind)
{
  switch (kind) {
  case PRY_VERDICT_RETRY:
    return PARRY_RETRY;
  case PRY_VERDICT_FALLBACK:
    return PARRY_FALLBACK;
  case PRY_VERDICT_RENEW:
    return PARRY_RENEW;
  case PRY_VERDICT_RESPOND:
    return PARRY_RESPOND;
  default:
    return PARRY_FAIL;
  }
}

static void fill_body(const struct pry_slice *body, struct parry_decision *told)
{
  told->body_size = body->size;
  if (told->body && told->body_capacity && body->size)
    memcpy(told->body, body->data, body->size < told->body_capacity ? body->size : told->body_capacity);
}

static void fill_decision(struct decision *decision, const struct pry_verdict *verdict, double after,
                          struct parry_decision *told)
{
  const struct pry_failure *failure = &decision->failure;
  enum pry_category category = verdict && verdict->category ? verdict->category : failure->category;
  told->action = verdict ? (int)action_of(verdict->kind) : PARRY_FAIL;
  told->status = verdict && verdict->status ? verdict->status : pry_failure_client_status(failure);
  told->after = verdict ? after : 0;
  snprintf(told->category, sizeof told->category, "%s", pry_category_name(category));
  snprintf(told->target, sizeof told->target, "%s", verdict ? verdict->target : "");
  snprintf(told->policy, sizeof told->policy, "%s", verdict ? decision->pass.ask.instance->name : "");
  snprintf(told->why, sizeof told->why, "%s", verdict ? verdict->why : "");
  struct pry_slice body = verdict ? pry_buffer_slice(&verdict->body) : (struct pry_slice){NULL, 0};
  fill_body(&body, told);
}

/* Walks until a verdict can be carried out. PARRY_PENDING or PARRY_OK with `told` filled. */
static int walk(struct decision *decision, enum pry_pass_result result, struct parry_decision *told)
{
  double after = 0;
  while (result == PRY_PASS_VERDICT && !executable(decision, &decision->pass.ask.verdict, &after))
    result = pry_pass_next(&decision->pass);
  if (result == PRY_PASS_PENDING)
    return PARRY_PENDING;
  fill_decision(decision, result == PRY_PASS_VERDICT ? &decision->pass.ask.verdict : NULL, after, told);
  return PARRY_OK;
}

static void step(struct pry_pass *pass, enum pry_pass_result result)
{
  struct decision *decision = pass->user;
  struct parry_decision told = PARRY_DECISION_INIT;
  if (walk(decision, result, &told) == PARRY_PENDING)
    return;
  if (decision->ready)
    decision->ready(decision->user, &told);
  free_decision(decision);
}

/* ---- the call ------------------------------------------------------------------------------------------------ */

static const struct pry_route *find_route(const struct pry_config *config, const char *pattern)
{
  return pattern ? pry_config_route_by_pattern(config, pattern) : config->route_count ? &config->routes[0] : NULL;
}

static int begin(struct decision *decision, const struct parry_event *failure, struct parry_decision *told)
{
  struct pry_ask *ask = &decision->pass.ask;
  decision->view.vars = pry_vars_new();
  if (!decision->view.vars || !copy_event(decision, failure))
    return PARRY_ENOMEM;
  if (!pry_host_headers(failure->headers, failure->header_count, &decision->headers))
    return PARRY_EINVAL;
  fill_view(decision, failure);
  decision->pass.step = step;
  decision->pass.user = decision;
  ask->call = &decision->view;
  ask->failure = &decision->failure;
  ask->event = failure->name ? &decision->event : NULL;
  return walk(
      decision,
      pry_pass_start(&decision->pass, decision->state, decision->route, failure->name ? PRY_ON_EVENT : PRY_ON_ERROR),
      told);
}

int parry_decide(parry *handle, const struct parry_event *event, struct parry_decision *told,
                 void (*ready)(void *user, const struct parry_decision *decision), void *user)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct parry_event failure;
  if (!host)
    return error;
  if (!event || !pry_host_take(&failure, sizeof failure, event) || !told || told->size != sizeof *told ||
      (failure.header_count && !failure.headers) || (failure.body_size && !failure.body))
    return PARRY_EINVAL;
  if (atomic_load(&host->freeing))
    return PARRY_EREENTRANT;
  struct pry_state *state = host->engine->control->state;
  const struct pry_route *route = state ? find_route(state->generation->config, failure.route) : NULL;
  if (!route)
    return state ? PARRY_EINVAL : PARRY_EPOLICY;
  struct decision *decision = calloc(1, sizeof *decision);
  if (!decision)
    return PARRY_ENOMEM;
  *decision = (struct decision){.host = host, .state = state, .route = route, .ready = ready, .user = user};
  pry_state_ref(state);
  pry_list_init(&decision->link);
  pry_headers_init(&decision->headers);
  pry_buffer_init(&decision->text, 64 * 1024);
  int result = begin(decision, &failure, told);
  if (result == PARRY_PENDING && ready) {
    pry_list_push(&host->decisions->pending, &decision->link);
    atomic_fetch_add(&host->open, 1);
    return PARRY_PENDING;
  }
  if (result == PARRY_PENDING) {
    pry_pass_stop(&decision->pass);
    fill_decision(decision, NULL, 0, told);
    result = PARRY_OK;
  }
  free_decision(decision);
  return result;
}
