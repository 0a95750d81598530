#include "gate.h"

#include <math.h>

/* Against the last bits of doubles: a wait that was computed from a level must be over when it ends. */
static const double CRUMB = 1e-6;

void pry_gate_init(struct pry_gate *gate)
{
  *gate = (struct pry_gate){0};
  pry_list_init(&gate->sent);
}

static pry_time later(pry_time a, pry_time b)
{
  return a > b ? a : b;
}

static void settle(struct pry_gate *gate, pry_time now)
{
  if (now <= gate->settled)
    return;
  gate->level += gate->rule.rate * pry_time_to_seconds(now - gate->settled);
  if (gate->level > gate->rule.burst)
    gate->level = gate->rule.burst;
  gate->settled = now;
}

void pry_gate_set(struct pry_gate *gate, const struct pry_gate_rule *rule, pry_time now)
{
  bool was_bucket = gate->rule.rate > 0;
  if (was_bucket)
    settle(gate, now);
  gate->rule = *rule;
  if (!rule->rate)
    return;
  if (!was_bucket) {
    gate->level = gate->paused_until > now ? gate->reserved : rule->burst;
    gate->settled = later(now, gate->paused_until);
  } else if (gate->level > rule->burst) {
    gate->level = rule->burst;
  }
}

/* ---- when ---------------------------------------------------------------------------------------------- */

static struct pry_gate_place *place_at(const struct pry_list *link)
{
  return PRY_CONTAINER_OF(link, struct pry_gate_place, link);
}

/* When the place comes back that is the n-th to do so, from 0, of those in the window. Who has not sent yet comes after
 * all who have: at the soonest a whole `per` from now. */
static pry_time nth_return(const struct pry_gate *gate, size_t n, pry_time unsent)
{
  struct pry_list *link = gate->sent.next;
  while (n && link != &gate->sent) {
    link = link->next;
    n--;
  }
  return link == &gate->sent ? unsent : place_at(link)->sent_at + gate->rule.per;
}

static pry_time window_due(const struct pry_gate *gate, pry_time now)
{
  const struct pry_gate_rule *rule = &gate->rule;
  if (!rule->limit || gate->window < rule->limit)
    return now;
  return later(now, nth_return(gate, gate->window - rule->limit, PRY_TIME_NEVER));
}

/* Places are given out, come back after `per`, and are given out again: those ahead take each some rounds. */
static pry_time window_estimate(const struct pry_gate *gate, size_t ahead, pry_time now)
{
  const struct pry_gate_rule *rule = &gate->rule;
  if (!rule->limit)
    return now;
  size_t free = gate->window < rule->limit ? rule->limit - gate->window : 0;
  size_t position = ahead % rule->limit;
  pry_time rounds = (pry_time)(ahead / rule->limit) * rule->per;
  if (position < free)
    return now + rounds;
  size_t too_many = gate->window > rule->limit ? gate->window - rule->limit : 0;
  return later(now, nth_return(gate, position - free + too_many, now + rule->per)) + rounds;
}

static pry_time bucket_due(const struct pry_gate *gate, double before, double cost, pry_time now)
{
  const struct pry_gate_rule *rule = &gate->rule;
  if (!rule->rate)
    return now;
  double missing = before + (cost < rule->burst ? cost : rule->burst) - (gate->level - gate->reserved);
  if (missing <= CRUMB)
    return later(now, gate->settled);
  return later(now, gate->settled) + pry_time_from_seconds(missing / rule->rate);
}

static pry_time allowance_due(const struct pry_gate *gate, double cost, pry_time now)
{
  bool enough = gate->allowed_until <= now || gate->allowed >= cost - CRUMB;
  return enough ? now : gate->allowed_until;
}

/* The wait for a full bucket is no wait for more than that: settle() stops there. */
pry_time pry_gate_due(struct pry_gate *gate, double cost, pry_time now)
{
  if (gate->rule.slots && gate->inside >= gate->rule.slots)
    return PRY_TIME_NEVER;
  settle(gate, now);
  pry_time due = later(now, gate->paused_until);
  due = later(due, allowance_due(gate, cost, now));
  due = later(due, bucket_due(gate, 0, cost, now));
  return later(due, window_due(gate, now));
}

pry_time pry_gate_estimate(struct pry_gate *gate, size_t ahead, double ahead_cost, double cost, pry_time now)
{
  settle(gate, now);
  pry_time due = later(now, gate->paused_until);
  due = later(due, allowance_due(gate, ahead_cost + cost, now));
  due = later(due, bucket_due(gate, ahead_cost, cost, now));
  return later(due, window_estimate(gate, ahead, later(now, gate->paused_until)));
}

/* ---- passing ------------------------------------------------------------------------------------------- */

static bool takes_allowance(const struct pry_gate *gate, const struct pry_gate_place *place)
{
  return gate->allowed_until && place->allowance == gate->allowance;
}

void pry_gate_take(struct pry_gate *gate, struct pry_gate_place *place, double cost)
{
  place->cost = cost;
  place->inside = true;
  place->in_window = true;
  place->sent = false;
  place->allowance = gate->allowance;
  gate->inside++;
  gate->window++;
  gate->reserved += cost;
  if (gate->allowed_until)
    gate->allowed -= cost;
}

static void leave_window(struct pry_gate *gate, struct pry_gate_place *place)
{
  if (!place->in_window)
    return;
  place->in_window = false;
  gate->window--;
  pry_list_remove(&place->link);
}

static void release_tokens(struct pry_gate *gate, const struct pry_gate_place *place)
{
  gate->reserved -= place->cost;
  if (gate->reserved < CRUMB) /* what adding and subtracting leaves behind */
    gate->reserved = 0;
}

/* Clocks of different loops are read a little apart: the list stays in order all the same. */
static void join_sent(struct pry_gate *gate, struct pry_gate_place *place)
{
  struct pry_list *before = &gate->sent;
  while (before->previous != &gate->sent && place_at(before->previous)->sent_at > place->sent_at)
    before = before->previous;
  pry_list_push(before, &place->link);
}

void pry_gate_sent(struct pry_gate *gate, struct pry_gate_place *place, pry_time now)
{
  if (!place->sent) {
    settle(gate, now);
    release_tokens(gate, place);
    gate->level -= place->cost;
  }
  place->sent = true;
  place->sent_at = now;
  if (!place->in_window)
    return;
  if (!gate->rule.limit) {
    leave_window(gate, place);
    return;
  }
  pry_list_remove(&place->link);
  join_sent(gate, place);
}

bool pry_gate_leave(struct pry_gate *gate, struct pry_gate_place *place, pry_time now)
{
  settle(gate, now);
  place->inside = false;
  gate->inside--;
  if (!place->sent) {
    release_tokens(gate, place);
    if (takes_allowance(gate, place))
      gate->allowed += place->cost;
    leave_window(gate, place);
  }
  return !place->in_window;
}

struct pry_gate_place *pry_gate_expired(struct pry_gate *gate, pry_time now)
{
  while (!pry_list_empty(&gate->sent)) {
    struct pry_gate_place *oldest = place_at(gate->sent.next);
    if (gate->rule.limit && oldest->sent_at + gate->rule.per > now)
      return NULL;
    leave_window(gate, oldest);
    if (!oldest->inside)
      return oldest;
  }
  return NULL;
}

struct pry_gate_place *pry_gate_forget(struct pry_gate *gate)
{
  while (!pry_list_empty(&gate->sent)) {
    struct pry_gate_place *oldest = place_at(gate->sent.next);
    leave_window(gate, oldest);
    if (!oldest->inside)
      return oldest;
  }
  return NULL;
}

/* ---- what a provider said -------------------------------------------------------------------------------- */

void pry_gate_pause(struct pry_gate *gate, pry_time until, pry_time now)
{
  settle(gate, now);
  if (until <= now || until <= gate->paused_until)
    return;
  gate->paused_until = until;
  if (gate->level > gate->reserved)
    gate->level = gate->reserved;
  gate->settled = until; /* nothing comes until then */
}

void pry_gate_allow(struct pry_gate *gate, double remaining, pry_time reset, pry_time now)
{
  if (reset <= now)
    return;
  gate->allowance++;
  gate->allowed = remaining - gate->reserved;
  gate->allowed_until = reset;
}

void pry_gate_spend(struct pry_gate *gate, double tokens, pry_time now)
{
  settle(gate, now);
  gate->level -= tokens;
  if (gate->rule.rate && gate->level > gate->rule.burst)
    gate->level = gate->rule.burst;
  if (gate->allowed_until > now)
    gate->allowed -= tokens;
}

double pry_gate_available(struct pry_gate *gate, pry_time now)
{
  settle(gate, now);
  double available = HUGE_VAL;
  if (gate->rule.rate)
    available = gate->level - gate->reserved;
  if (gate->rule.limit)
    available = fmin(available, gate->window < gate->rule.limit ? (double)(gate->rule.limit - gate->window) : 0);
  if (gate->allowed_until > now)
    available = fmin(available, gate->allowed);
  if (gate->rule.slots)
    available = fmin(available, gate->inside < gate->rule.slots ? (double)(gate->rule.slots - gate->inside) : 0);
  return gate->paused_until > now ? 0 : available;
}

bool pry_gate_is_idle(struct pry_gate *gate, pry_time now)
{
  settle(gate, now);
  bool full = !gate->rule.rate || gate->level >= gate->rule.burst - CRUMB;
  return full && !gate->inside && !gate->window && gate->paused_until <= now && gate->allowed_until <= now;
}
