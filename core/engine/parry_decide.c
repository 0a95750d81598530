/* parry_decide(): the chain's answer to a failure that the host met on its own. */
#include "parry_decision.h"
#include "plain_locale.h"

/* ---- can it be carried out? --------------------------------------------------------------------------------- */

/* "provider/model", also where a verdict names a model at the same provider. */
static void name_target(const struct pry_asking *asking, const char *wanted, char name[PRY_TARGET_MAX])
{
  const char *at = asking->view.target.name;
  size_t provider = strcspn(at, "/");
  bool known = provider && strcmp(at, PRY_TARGET_UNKNOWN) != 0;
  if (strchr(wanted, '/') || !known || provider + strlen(wanted) + 2 > PRY_TARGET_MAX) {
    pry_slice_to_text(pry_slice_of(wanted), name, PRY_TARGET_MAX);
    return;
  }
  memcpy(name, at, provider);
  name[provider] = '/';
  pry_slice_to_text(pry_slice_of(wanted), name + provider + 1, PRY_TARGET_MAX - provider - 1);
}

static bool is_guarded(struct pry_asking *asking, const struct pry_verdict *verdict, double after)
{
  struct pry_host_refusal refusal;
  if (verdict->kind == PRY_VERDICT_RETRY) {
    pry_asking_guards(asking, &refusal);
  } else {
    struct pry_target here = asking->view.target;
    struct pry_target *there = &asking->view.target;
    name_target(asking, verdict->target, there->name);
    size_t provider = strcspn(there->name, "/");
    pry_slice_to_text(pry_slice_of(there->name[provider] ? there->name + provider + 1 : ""), there->model,
                      sizeof there->model);
    there->provider =
        pry_config_provider(asking->pass.state->generation->config, (struct pry_slice){there->name, provider});
    there->attempts = 0;
    pry_asking_guards(asking, &refusal);
    *there = here;
  }
  pry_permits_release(&asking->permits); /* a place of a half-open breaker: it is the attempt's that will be made */
  if (!refusal.refused || (refusal.after >= 0 && refusal.after <= after))
    return false;
  if (verdict->kind == PRY_VERDICT_RETRY)
    asking->refusal = refusal;
  return true;
}

/* Caps, deadline, what must not be repeated. */
static bool may_go_on(const struct pry_asking *asking, double after)
{
  const struct pry_failure *failure = &asking->failure;
  if (!asking->view.repeatable && failure->sent && !pry_failure_is_refusal(failure, true))
    return false;
  pry_time left = asking->view.deadline - pry_worker_now(asking->desk->worker);
  return asking->view.attempt < asking->route->max_attempts_per_call && pry_time_from_seconds(after) < left;
}

static bool budget_allows(const struct pry_asking *asking)
{
  return pry_host_budget_take(asking->host->decisions->budget, pry_slice_of(asking->view.target.name),
                              pry_worker_now(asking->desk->worker));
}

/* Caps and the server's time hold for hosts, too. */
static bool executable(struct pry_asking *asking, const struct pry_verdict *verdict, double *after)
{
  const struct pry_failure *failure = &asking->failure;
  *after = verdict->after > 0 ? verdict->after : 0;
  switch (verdict->kind) {
  case PRY_VERDICT_ROTATE: /* a host has its keys to itself */
    return false;
  case PRY_VERDICT_RETRY:
    *after = failure->retry_after > *after ? failure->retry_after : *after;
    return !failure->retry_forbidden && may_go_on(asking, *after) && !is_guarded(asking, verdict, *after) &&
           budget_allows(asking);
  case PRY_VERDICT_FALLBACK:
    return may_go_on(asking, *after) && !is_guarded(asking, verdict, *after);
  default:
    return true;
  }
}

/* ---- the host's decision ------------------------------------------------------------------------------------- */

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

static void fill_common(const struct pry_asking *asking, enum pry_category category, struct parry_decision *told)
{
  told->action = PARRY_FAIL;
  told->status = pry_failure_client_status(&asking->failure);
  told->after = 0;
  told->body_size = 0;
  told->target[0] = told->policy[0] = told->why[0] = '\0';
  pry_slice_to_text(pry_slice_of(pry_category_name(category)), told->category, sizeof told->category);
}

static void fill_verdict(const struct pry_asking *asking, double after, struct parry_decision *told)
{
  const struct pry_verdict *verdict = &asking->pass.ask.verdict;
  fill_common(asking, verdict->category ? verdict->category : asking->failure.category, told);
  told->action = (int)action_of(verdict->kind);
  told->after = after;
  if (verdict->status)
    told->status = verdict->status;
  if (verdict->kind == PRY_VERDICT_FALLBACK)
    name_target(asking, verdict->target, told->target);
  pry_slice_to_text(pry_slice_of(asking->pass.ask.instance->name), told->policy, sizeof told->policy);
  pry_slice_to_text(pry_slice_of(verdict->why), told->why, sizeof told->why);
  told->body_size = verdict->body.size;
  size_t fits = told->body_size < told->body_capacity ? told->body_size : told->body_capacity;
  if (told->body && fits)
    memcpy(told->body, verdict->body.data, fits);
  pry_metrics_add(asking->host->engine->metrics, PRY_M_VERDICTS, asking->pass.ask.instance->name,
                  pry_verdict_name(verdict->kind), 1);
}

/* Nobody had anything that can be done. Where a guard was in the way of a retry, it may be made once the guard lets it. */
static void fill_none(struct pry_asking *asking, struct parry_decision *told)
{
  const struct pry_host_refusal *refusal = &asking->refusal;
  fill_common(asking, asking->failure.category, told);
  if (!refusal->refused)
    return;
  pry_slice_to_text(pry_slice_of(refusal->policy), told->policy, sizeof told->policy);
  pry_slice_to_text(pry_slice_of(refusal->why), told->why, sizeof told->why);
  double after = refusal->after > asking->failure.retry_after ? refusal->after : asking->failure.retry_after;
  if (refusal->after < 0 || !may_go_on(asking, after) || !budget_allows(asking))
    return;
  told->action = PARRY_RETRY;
  told->after = after;
}

/* Walks until something can be done. False: it waits. */
static bool walk(struct pry_asking *asking, enum pry_pass_result result, struct parry_decision *told)
{
  double after = 0;
  for (;;) {
    if (result == PRY_PASS_PENDING && asking->ready)
      return false;
    if (result == PRY_PASS_PENDING)
      result = pry_pass_skip(&asking->pass);
    else if (result == PRY_PASS_VERDICT && !executable(asking, &asking->pass.ask.verdict, &after))
      result = pry_pass_next(&asking->pass);
    else
      break;
  }
  if (result == PRY_PASS_VERDICT)
    fill_verdict(asking, after, told);
  else
    fill_none(asking, told);
  return true;
}

/* ---- those that wait -------------------------------------------------------------------------------------------- */

/* The host's thread; nothing of the decider's is in it any more. */
static void deliver(struct pry_message *message)
{
  struct pry_asking *asking = PRY_CONTAINER_OF(message, struct pry_asking, delivery);
  pry_host_close(asking->host);
  asking->ready(asking->user, &asking->told);
  pry_asking_free(asking);
}

static void send(struct pry_asking *asking)
{
  pry_pass_stop(&asking->pass);
  pry_list_remove(&asking->link);
  asking->delivery.deliver = deliver;
  pry_mailbox_post(asking->host->outbox, &asking->delivery);
}

/* The verdict's body is longer than what is lent: takes it over. Without memory it is cut to nothing, as for a host that
 * lent none. */
static void keep_body(struct pry_asking *asking)
{
  const struct pry_buffer *body = &asking->pass.ask.verdict.body;
  if (!asking->told.body_size || !pry_buffer_append(&asking->body, body->data, body->size))
    return;
  asking->told.body = asking->body.data;
  asking->told.body_capacity = asking->body.size;
}

static void step(struct pry_pass *pass, enum pry_pass_result result)
{
  struct pry_asking *asking = pass->user;
  asking->told = (struct parry_decision)PARRY_DECISION_INIT;
  if (!walk(asking, result, &asking->told))
    return;
  keep_body(asking);
  send(asking);
}

void pry_decision_cancel(struct pry_asking *asking)
{
  if (!asking->ready) {
    pry_host_close(asking->host);
    pry_asking_free(asking);
    return;
  }
  asking->told = (struct parry_decision)PARRY_DECISION_INIT;
  fill_common(asking, PRY_CANCELLED, &asking->told);
  pry_slice_to_text(pry_slice_of("the engine was freed"), asking->told.why, sizeof asking->told.why);
  send(asking);
}

/* ---- the call ---------------------------------------------------------------------------------------------------- */

static int decide(struct pry_asking *asking, const struct parry_event *event, struct parry_decision *told)
{
  asking->pass.step = step;
  asking->pass.ask.permits = NULL;
  asking->refusal.refused = false;
  enum pry_handler handler = event->name ? PRY_ON_EVENT : PRY_ON_ERROR;
  enum pry_pass_result result = pry_pass_start(&asking->pass, asking->desk->worker->state, asking->route, handler);
  int error = PARRY_OK;
  if (!walk(asking, result, told))
    error = pry_host_open(asking->host) == PARRY_OK ? PARRY_PENDING : PARRY_BUSY;
  if (error == PARRY_PENDING)
    pry_asking_wait(asking);
  else
    pry_asking_free(asking);
  return error;
}

int parry_decide(parry *handle, const struct parry_event *event, struct parry_decision *told,
                 void (*ready)(void *user, const struct parry_decision *decision), void *user)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct parry_event asked;
  struct parry_decision answer;
  if (!host)
    return error;
  if (!told || !pry_host_take(&answer, sizeof answer, told))
    return PARRY_EINVAL;
  error = pry_event_take(event, &asked);
  if (error)
    return error;
  if (atomic_load(&host->freeing))
    return PARRY_EREENTRANT;
  asked.ok = 0; /* what went well needs no decision; an event may say so of itself */
  locale_t before = pry_plain_locale_enter();
  struct pry_desk *desk = pry_desk_enter(host, &error);
  struct pry_asking *asking = desk ? pry_asking_new(desk, host, &asked, &error) : NULL;
  if (asking) {
    asking->ready = ready;
    asking->user = user;
    error = decide(asking, &asked, &answer);
  }
  if (desk)
    pry_decider_leave(desk->worker);
  pry_plain_locale_leave(before);
  if (error == PARRY_OK)
    pry_host_give(told, &answer, sizeof answer);
  return error;
}
