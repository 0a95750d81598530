#include "call_internal.h"

#include <stdio.h>

static struct pry_keys *keys_of(const struct pry_call *call)
{
  return call->worker->engine->keys;
}

static pry_time now_of(const struct pry_call *call)
{
  return pry_loop_now(call->worker->loop);
}

/* ---- choosing ------------------------------------------------------------------------------------------- */

static void set_key(struct pry_call *call, const char *name, uint64_t version)
{
  struct pry_attempt *attempt = &call->ledger[call->view.ledger_count - 1];
  snprintf(call->view.target.key, sizeof call->view.target.key, "%s", name);
  snprintf(attempt->key, sizeof attempt->key, "%s", name);
  attempt->key_version = version;
}

static bool take_planned(struct pry_call *call, const struct pry_provider *provider)
{
  uint64_t version;
  size_t index = call->next_key[0] ? pry_keys_index(provider, call->next_key) : SIZE_MAX;
  call->next_key[0] = '\0';
  if (index == SIZE_MAX || !pry_keys_usable(keys_of(call), provider, index, true, &version, now_of(call)))
    return false;
  set_key(call, provider->keys[index]->name, version);
  return true;
}

static bool take_any(struct pry_call *call, const struct pry_provider *provider, pry_time *wait)
{
  struct pry_key_choice choice = pry_keys_choose(keys_of(call), provider, 0, true, now_of(call));
  if (choice.found)
    set_key(call, provider->keys[choice.index]->name, choice.version);
  else
    set_key(call, choice.missing ? provider->keys[0]->name : "", 0);
  *wait = choice.wait;
  return choice.found || choice.missing; /* what is missing has a failure of its own */
}

void pry_call_pick_key(struct pry_call *call)
{
  const struct pry_provider *provider = call->view.target.provider;
  pry_time wait;
  if (!provider->key_count)
    set_key(call, "", 0);
  else if (!take_planned(call, provider))
    take_any(call, provider, &wait);
}

/* A reload may have come in between, too: with other keys, or another value of this one. */
bool pry_call_has_key(struct pry_call *call, pry_time *wait)
{
  const struct pry_provider *provider = call->view.target.provider;
  uint64_t version;
  if (!provider->key_count) {
    if (call->view.target.key[0])
      set_key(call, "", 0);
    return true;
  }
  size_t index = pry_keys_index(provider, call->view.target.key);
  if (index == SIZE_MAX || !pry_keys_usable(keys_of(call), provider, index, false, &version, now_of(call)))
    return take_any(call, provider, wait);
  call->ledger[call->view.ledger_count - 1].key_version = version;
  return true;
}

const struct pry_secret *pry_call_key(const struct pry_call *call)
{
  const struct pry_provider *provider = call->view.target.provider;
  size_t index = pry_keys_index(provider, call->view.target.key);
  const struct pry_secret *secret = index != SIZE_MAX ? provider->keys[index] : provider->auth.secret;
  return secret && secret->value ? secret : NULL;
}

/* ---- what was tried ------------------------------------------------------------------------------------- */

static bool is_at(const struct pry_attempt *attempt, const struct pry_provider *provider)
{
  size_t size = strlen(provider->name);
  return strncmp(attempt->target, provider->name, size) == 0 &&
         (attempt->target[size] == '/' || attempt->target[size] == '\0');
}

uint64_t pry_call_keys_tried(const struct pry_call *call)
{
  const struct pry_provider *provider = call->view.target.provider;
  uint64_t tried = 0;
  for (size_t i = 0; i < call->view.ledger_count; i++) {
    size_t index = is_at(&call->ledger[i], provider) ? pry_keys_index(provider, call->ledger[i].key) : SIZE_MAX;
    if (index < PRY_PROVIDER_KEYS_MAX)
      tried |= UINT64_C(1) << index;
  }
  return tried;
}

const struct pry_attempt *pry_call_last_failed_at(const struct pry_call *call, const char *target, const char *key)
{
  for (size_t i = call->view.ledger_count; i-- > 0;)
    if (strcmp(call->ledger[i].target, target) == 0 && (!key || strcmp(call->ledger[i].key, key) == 0))
      return call->ledger[i].category ? &call->ledger[i] : NULL;
  return NULL;
}

static pry_time time_after(const struct pry_call *call, const struct pry_attempt *last)
{
  if (!last || last->failure.retry_after <= 0)
    return 0;
  return pry_time_from_seconds(last->ended + last->failure.retry_after - pry_loop_unix_time(call->worker->loop));
}

static bool is_usable(const struct pry_call *call, const struct pry_provider *provider, size_t index)
{
  uint64_t version;
  return pry_keys_usable(keys_of(call), provider, index, false, &version, now_of(call));
}

/* A key that is out of use for its limit heard a time that is its own. One that nobody has taken out of use shares its
 * account with the others, for all we know: what it heard is for them, too. */
static pry_time time_of_key(const struct pry_call *call, const struct pry_provider *provider, const char *target,
                            size_t chosen)
{
  pry_time longest = 0;
  for (size_t i = 0; i < provider->key_count; i++) {
    pry_time left = time_after(call, pry_call_last_failed_at(call, target, provider->keys[i]->name));
    if (left > longest && (i == chosen || is_usable(call, provider, i)))
      longest = left;
  }
  return longest;
}

/* A key that is paused is waited for where no other is left; with all retired the attempt will say so at once. */
pry_time pry_call_server_time(const struct pry_call *call, const struct pry_provider *provider, const char *target,
                              char key[PRY_SECRET_NAME_MAX])
{
  key[0] = '\0';
  if (call->host || provider->key_count < 2)
    return time_after(call, pry_call_last_failed_at(call, target, NULL));
  struct pry_key_choice choice = pry_keys_choose(keys_of(call), provider, 0, false, now_of(call));
  if (!choice.found)
    return choice.wait >= 0 ? choice.wait : time_after(call, pry_call_last_failed_at(call, target, NULL));
  snprintf(key, PRY_SECRET_NAME_MAX, "%s", provider->keys[choice.index]->name);
  return time_of_key(call, provider, target, choice.index);
}

/* ---- what was used -------------------------------------------------------------------------------------- */

static void add_tokens(struct pry_metrics *metrics, const char *target, const char *kind, int64_t count)
{
  if (count)
    pry_metrics_add(metrics, PRY_M_TOKENS, target, kind, (double)count);
}

void pry_call_settle(struct pry_call *call, struct pry_attempt *attempt)
{
  struct pry_metrics *metrics = call->worker->engine->metrics;
  const struct pry_usage *usage = &call->view.target.provider->dialect->usage;
  struct pry_spending *spent = &attempt->spent;
  if (call->tail.size)
    pry_usage_read_tail(usage, pry_buffer_slice(&call->tail), &call->tokens);
  pry_buffer_fini(&call->tail);
  if (attempt->injected) /* nobody made these tokens, and nobody is paid for them */
    return;
  spent->tokens = call->tokens;
  if (!spent->tokens.known)
    return;
  const struct pry_price *price = pry_provider_price(call->view.target.provider, call->view.target.model);
  spent->priced = price != NULL;
  spent->cost = price ? pry_price_cost(price, &spent->tokens) : 0;
  pry_spending_add(&call->spent, spent);
  add_tokens(metrics, attempt->target, "input", spent->tokens.input);
  add_tokens(metrics, attempt->target, "output", spent->tokens.output);
  add_tokens(metrics, attempt->target, "cached", spent->tokens.cached);
  if (spent->cost > 0)
    pry_metrics_add(metrics, PRY_M_COST, attempt->target, NULL, spent->cost);
}
