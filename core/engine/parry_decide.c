/* parry_decide(): the chain's answer to a failure that the host met on its own. */
#include "parry_internal.h"

#include <stdio.h>
#include <stdlib.h>

struct decision {
  struct pry_list link;
  struct parry *engine;
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
    decision->engine->decision_count--;
  }
  pry_headers_fini(&decision->headers);
  pry_buffer_fini(&decision->text);
  pry_vars_free(decision->view.vars);
  pry_state_unref(decision->state);
  free(decision);
}

void pry_decisions_cancel(struct parry *engine)
{
  while (!pry_list_empty(&engine->decisions))
    free_decision(PRY_CONTAINER_OF(engine->decisions.next, struct decision, link));
}

/* ---- reading what the host says ------------------------------------------------------------------------ */

static bool copy_headers(struct decision *decision, const struct parry_failure *failure)
{
  for (size_t i = 0; i < failure->header_count; i++)
    if (!failure->headers[i].name || !failure->headers[i].value ||
        !pry_headers_add(&decision->headers, pry_slice_of(failure->headers[i].name),
                         pry_slice_of(failure->headers[i].value)))
      return false;
  return true;
}

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

static void classify(struct decision *decision, const struct parry_failure *failure)
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
                                     pry_loop_unix_time(decision->engine->loop));
  enum pry_category category = failure->category ? pry_category_from_name(pry_slice_of(failure->category)) : PRY_NONE;
  if (category)
    pry_failure_set_category(&decision->failure, category);
  else if (!decision->failure.category)
    pry_failure_set_category(&decision->failure, PRY_UNKNOWN);
}

static void fill_view(struct decision *decision, const struct parry_failure *failure)
{
  struct pry_call_view *view = &decision->view;
  unsigned attempt = failure->attempt ? failure->attempt : 1;
  double now = pry_loop_unix_time(decision->engine->loop);
  snprintf(view->id, sizeof view->id, "d_0_%llx", (unsigned long long)++decision->engine->next_decision);
  view->route = decision->route->pattern;
  view->dialect = "openai";
  view->method = PRY_SLICE("POST");
  view->path = PRY_SLICE("");
  view->attempt = attempt;
  view->deadline =
      pry_loop_now(decision->engine->loop) +
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

static bool copy_event(struct decision *decision, const struct parry_failure *failure)
{
  if (!failure->event)
    return true;
  size_t name_size = strlen(failure->event) + 1;
  if (!pry_buffer_append(&decision->text, failure->event, name_size) ||
      !pry_buffer_append_text(&decision->text, failure->fields ? failure->fields : "{}"))
    return false;
  decision->event.name = decision->text.data;
  decision->event.fields = (struct pry_slice){decision->text.data + name_size, decision->text.size - name_size};
  return true;
}

/* ---- turning a verdict into the host's decision ----------------------------------------------------------- */

static const char *keep(struct pry_buffer *texts, const char *text)
{
  size_t at = texts->size;
  return pry_buffer_append(texts, text, strlen(text) + 1) ? texts->data + at : "";
}

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
  pry_time left = decision->view.deadline - pry_loop_now(decision->engine->loop);
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

static void fill_decision(struct decision *decision, const struct pry_verdict *verdict, double after,
                          struct parry_decision *told)
{
  struct pry_buffer *texts = &decision->engine->decision_text;
  const struct pry_failure *failure = &decision->failure;
  pry_buffer_clear(texts);
  *told = (struct parry_decision){.category = pry_category_name(failure->category),
                                  .status = pry_failure_client_status(failure),
                                  .target = "",
                                  .body = "",
                                  .policy = "",
                                  .why = ""};
  /* One reservation, so that no pointer into the texts moves while the others are added. */
  if (!verdict || !pry_buffer_reserve(texts, verdict->body.size + PRY_TARGET_MAX + PRY_WHY_MAX + 512))
    return;
  told->action = action_of(verdict->kind);
  told->after = after;
  told->target = keep(texts, verdict->target);
  told->why = keep(texts, verdict->why);
  told->policy = keep(texts, decision->pass.ask.instance->name);
  if (verdict->category)
    told->category = pry_category_name(verdict->category);
  if (verdict->status)
    told->status = verdict->status;
  size_t at = texts->size;
  if (pry_buffer_append_slice(texts, pry_buffer_slice(&verdict->body)) && pry_buffer_append(texts, "", 1))
    told->body = texts->data + at;
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
  struct parry_decision told;
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

static int begin(struct decision *decision, const struct parry_failure *failure, struct parry_decision *told)
{
  struct pry_ask *ask = &decision->pass.ask;
  decision->view.vars = pry_vars_new();
  if (!decision->view.vars || !copy_event(decision, failure))
    return PARRY_ENOMEM;
  if (!copy_headers(decision, failure))
    return PARRY_EINVAL;
  fill_view(decision, failure);
  decision->pass.step = step;
  decision->pass.user = decision;
  ask->call = &decision->view;
  ask->failure = &decision->failure;
  ask->event = failure->event ? &decision->event : NULL;
  return walk(
      decision,
      pry_pass_start(&decision->pass, decision->state, decision->route, failure->event ? PRY_ON_EVENT : PRY_ON_ERROR),
      told);
}

int parry_decide(parry *engine, const struct parry_failure *failure, struct parry_decision *told,
                 void (*ready)(void *user, const struct parry_decision *decision), void *user)
{
  if (!engine || !failure || failure->size < sizeof *failure || !told || (failure->header_count && !failure->headers) ||
      (failure->body_size && !failure->body))
    return PARRY_EINVAL;
  if (engine->engine->closing)
    return PARRY_EREENTRANT;
  struct pry_state *state = engine->engine->control->state;
  const struct pry_route *route = state ? find_route(state->generation->config, failure->route) : NULL;
  if (!route)
    return state ? PARRY_EINVAL : PARRY_EPOLICY;
  struct decision *decision = calloc(1, sizeof *decision);
  if (!decision)
    return PARRY_ENOMEM;
  *decision = (struct decision){.engine = engine, .state = state, .route = route, .ready = ready, .user = user};
  pry_state_ref(state);
  pry_list_init(&decision->link);
  pry_headers_init(&decision->headers);
  pry_buffer_init(&decision->text, 64 * 1024);
  int result = begin(decision, failure, told);
  if (result == PARRY_PENDING && ready) {
    pry_list_push(&engine->decisions, &decision->link);
    engine->decision_count++;
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
