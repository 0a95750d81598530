/* parry_report(): how an attempt of the host's own went, told to every on_outcome of the chain. */
#include "parry_decision.h"
#include "plain_locale.h"

static void step(struct pry_pass *pass, enum pry_pass_result result)
{
  struct pry_asking *asking = pass->user;
  (void)result; /* observers give no verdicts: it is the end */
  pry_host_close(asking->host);
  pry_asking_free(asking);
}

static void remember(const struct pry_asking *asking)
{
  struct pry_recent_error seen = {.time = asking->attempt.ended,
                                  .category = asking->failure.category,
                                  .source = asking->failure.source,
                                  .status = asking->failure.status,
                                  .attempt = asking->view.attempt,
                                  .refused = !asking->failure.sent};
  memcpy(seen.call_id, asking->view.id, sizeof seen.call_id);
  memcpy(seen.target, asking->attempt.target, sizeof seen.target);
  memcpy(seen.code, asking->failure.code, sizeof seen.code);
  pry_recent_errors_add(asking->host->engine->recent_errors, &seen);
}

static void tell_counters(const struct pry_asking *asking, bool ok)
{
  const struct pry_host *host = asking->host;
  const char *target = asking->attempt.target;
  pry_metrics_add(host->engine->metrics, PRY_M_ATTEMPTS, target,
                  ok ? "ok" : pry_category_name(asking->failure.category), 1);
  pry_host_budget_report(host->decisions->budget, pry_slice_of(target), pry_worker_now(asking->desk->worker));
  if (!ok)
    remember(asking);
}

/* Who waits goes on in the background, as far as there is room for one more that is open; else the others are not kept from
 * seeing the attempt. */
static void tell_observers(struct pry_asking *asking)
{
  asking->pass.step = step;
  asking->ready = NULL;
  asking->pass.ask.permits = &asking->permits;
  struct pry_host_refusal refusal; /* too late to heed */
  pry_asking_guards(asking, &refusal);
  enum pry_pass_result result =
      pry_pass_start(&asking->pass, asking->desk->worker->state, asking->route, PRY_ON_OUTCOME);
  if (result == PRY_PASS_PENDING && pry_host_open(asking->host) == PARRY_OK) {
    pry_asking_wait(asking);
    return;
  }
  pry_pass_hurry(&asking->pass);
  pry_asking_free(asking);
}

int parry_report(parry *handle, const struct parry_event *event)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct parry_event told;
  if (!host)
    return error;
  error = pry_event_take(event, &told);
  if (error)
    return error;
  if (atomic_load(&host->freeing))
    return PARRY_EREENTRANT;
  locale_t before = pry_plain_locale_enter();
  struct pry_desk *desk = pry_desk_enter(host, &error);
  struct pry_asking *asking = desk ? pry_asking_new(desk, host, &told, &error) : NULL;
  if (asking) {
    tell_counters(asking, told.ok);
    tell_observers(asking);
  }
  if (desk)
    pry_decider_leave(desk->worker);
  pry_plain_locale_leave(before);
  return error;
}
