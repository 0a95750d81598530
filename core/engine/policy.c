#include "policy.h"

#include "registry.h"

void pry_state_ref(struct pry_state *state)
{
  state->references++;
}

void pry_state_unref(struct pry_state *state)
{
  if (!state || --state->references)
    return;
  if (state->counted)
    atomic_fetch_sub(&state->generation->live_states, 1);
  state->ops->free(state);
}

static bool condition_met(enum pry_condition condition, bool value)
{
  return condition == PRY_ANY || (condition == PRY_ONLY_TRUE) == value;
}

bool pry_when_matches(const struct pry_when *when, const struct pry_failure *failure)
{
  return condition_met(when->retryable, failure->retryable) && condition_met(when->fallback, failure->fallback) &&
         condition_met(when->refresh_token, failure->refresh_token) && condition_met(when->sent, failure->sent) &&
         condition_met(when->from_parry, failure->source == PRY_SOURCE_PARRY) &&
         (!when->categories || (when->categories & (1u << failure->category))) &&
         (!when->origins || (when->origins & (1u << failure->origin)));
}

/* `when` speaks about failures: it filters on_error, and on_outcome of failed attempts stays everybody's. */
static bool wants(const struct pry_instance *instance, const struct pry_pass *pass)
{
  const struct pry_ask *ask = &pass->ask;
  if (!(instance->handlers & PRY_HANDLER_BIT(ask->handler)))
    return false;
  return ask->handler != PRY_ON_ERROR ||
         (instance->when.last == pass->last_lap && pry_when_matches(&instance->when, ask->failure));
}

static void pass_end(struct pry_pass *pass)
{
  pry_verdict_fini(&pass->ask.verdict);
  pass->running = false;
  pass->waiting = false;
  struct pry_state *state = pass->state;
  pass->state = NULL;
  pry_state_unref(state);
}

static bool gave_verdict(struct pry_pass *pass, enum pry_ask_status status)
{
  pass->faults += status == PRY_ASK_FAULT;
  return status == PRY_ASK_DONE && pass->ask.verdict.kind != PRY_VERDICT_NONE && pry_handler_decides(pass->ask.handler);
}

static enum pry_pass_result walk(struct pry_pass *pass);

static void ask_ready(struct pry_ask *ask, enum pry_ask_status status)
{
  struct pry_pass *pass = PRY_CONTAINER_OF(ask, struct pry_pass, ask);
  pass->waiting = false;
  enum pry_pass_result result = gave_verdict(pass, status) ? PRY_PASS_VERDICT : walk(pass);
  if (result != PRY_PASS_PENDING)
    pass->step(pass, result);
}

static const struct pry_instance *next_instance(struct pry_pass *pass)
{
  for (;;) {
    while (pass->position < pass->route->chain_size) {
      const struct pry_instance *instance = pass->route->chain[pass->position++];
      if (wants(instance, pass))
        return instance;
    }
    if (pass->ask.handler != PRY_ON_ERROR || pass->last_lap)
      return NULL;
    pass->last_lap = true;
    pass->position = 0;
  }
}

static enum pry_pass_result walk(struct pry_pass *pass)
{
  const struct pry_instance *instance;
  while ((instance = next_instance(pass))) {
    pry_verdict_fini(&pass->ask.verdict);
    pass->ask.instance = instance;
    enum pry_ask_status status = pass->state->ops->ask(pass->state, &pass->ask);
    if (status == PRY_ASK_PENDING) {
      pass->waiting = true;
      return PRY_PASS_PENDING;
    }
    if (gave_verdict(pass, status))
      return PRY_PASS_VERDICT;
  }
  pass_end(pass);
  return PRY_PASS_END;
}

enum pry_pass_result pry_pass_start(struct pry_pass *pass, struct pry_state *state, const struct pry_route *route,
                                    enum pry_handler handler)
{
  pry_state_ref(state);
  pass->state = state;
  pass->route = route;
  pass->position = 0;
  pass->last_lap = false;
  pass->faults = 0;
  pass->running = true;
  pass->waiting = false;
  pass->ask.handler = handler;
  pass->ask.ready = ask_ready;
  pass->ask.state = state;
  pry_verdict_init(&pass->ask.verdict);
  return walk(pass);
}

enum pry_pass_result pry_pass_next(struct pry_pass *pass)
{
  return walk(pass);
}

enum pry_pass_result pry_pass_skip(struct pry_pass *pass)
{
  pass->state->ops->cancel(pass->state, &pass->ask);
  pass->waiting = false;
  return walk(pass);
}

void pry_pass_hurry(struct pry_pass *pass)
{
  while (pass->running && pass->waiting)
    pry_pass_skip(pass);
}

void pry_pass_stop(struct pry_pass *pass)
{
  if (!pass->running)
    return;
  if (pass->waiting)
    pass->state->ops->cancel(pass->state, &pass->ask);
  pass_end(pass);
}
