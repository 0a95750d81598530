#include "budget.h"

#include "buffer.h"
#include "table.h"

#include <pthread.h>
#include <stdlib.h>

/* Promise 6 of DESIGN §5: one retry for every five active calls, but never fewer than three. */
enum { CALLS_PER_RETRY = 5, RETRIES_AT_LEAST = 3 };

enum share { SHARE_CALL, SHARE_CLIENT_RETRY, SHARE_RETRY, SHARE_COUNT };

/* A target that somebody is at. */
struct target {
  struct pry_table_node node; /* its key is `name` below */
  size_t taken[SHARE_COUNT];  /* permits out, by kind; a client's retry is a call, too */
  char name[];
};

struct pry_budgets {
  pthread_mutex_t lock;
  struct pry_table table;
};

struct budget_permit {
  struct pry_permit permit;
  struct pry_budgets *budgets;
  struct target *target; /* lives while any of its permits is out */
  enum share share;
};

struct pry_budgets *pry_budgets_new(void)
{
  struct pry_budgets *budgets = calloc(1, sizeof *budgets);
  if (!budgets)
    return NULL;
  pthread_mutex_init(&budgets->lock, NULL); /* cannot fail without attributes on Linux */
  if (!pry_table_init(&budgets->table)) {
    pry_budgets_free(budgets);
    return NULL;
  }
  return budgets;
}

void pry_budgets_free(struct pry_budgets *budgets)
{
  if (!budgets)
    return;
  pry_table_fini(&budgets->table);
  pthread_mutex_destroy(&budgets->lock);
  free(budgets);
}

static size_t allowed(const struct target *target)
{
  size_t share = (target->taken[SHARE_CALL] + target->taken[SHARE_CLIENT_RETRY]) / CALLS_PER_RETRY;
  return share > RETRIES_AT_LEAST ? share : RETRIES_AT_LEAST;
}

static size_t used(const struct target *target)
{
  return target->taken[SHARE_RETRY] + target->taken[SHARE_CLIENT_RETRY];
}

static double remaining(const struct target *target)
{
  return used(target) >= allowed(target) ? 0 : 1 - (double)used(target) / (double)allowed(target);
}

static struct target *find_target(struct pry_budgets *budgets, struct pry_slice name)
{
  struct pry_table_node *node = pry_table_find(&budgets->table, name);
  return node ? PRY_CONTAINER_OF(node, struct target, node) : NULL;
}

static struct target *find_or_make_target(struct pry_budgets *budgets, struct pry_slice name)
{
  struct target *target = find_target(budgets, name);
  if (target)
    return target;
  target = calloc(1, sizeof *target + name.size);
  if (!target)
    return NULL;
  if (name.size)
    memcpy(target->name, name.data, name.size);
  target->node.key = (struct pry_slice){target->name, name.size};
  pry_table_add(&budgets->table, &target->node);
  return target;
}

static void forget_if_unused(struct pry_budgets *budgets, struct target *target)
{
  for (enum share share = 0; share < SHARE_COUNT; share++)
    if (target->taken[share])
      return;
  pry_table_remove(&budgets->table, &target->node);
  free(target);
}

static void release(struct pry_permit *permit)
{
  struct budget_permit *held = PRY_CONTAINER_OF(permit, struct budget_permit, permit);
  struct pry_budgets *budgets = held->budgets;
  pthread_mutex_lock(&budgets->lock);
  held->target->taken[held->share]--;
  forget_if_unused(budgets, held->target);
  pthread_mutex_unlock(&budgets->lock);
  free(held);
}

static struct pry_permit *take(struct pry_budgets *budgets, struct pry_slice name, enum share share)
{
  struct budget_permit *held = calloc(1, sizeof *held);
  if (!held)
    return NULL;
  pthread_mutex_lock(&budgets->lock);
  struct target *target = find_or_make_target(budgets, name);
  bool granted = target && (share != SHARE_RETRY || used(target) < allowed(target));
  if (granted)
    target->taken[share]++;
  else if (target)
    forget_if_unused(budgets, target);
  pthread_mutex_unlock(&budgets->lock);
  if (!granted) {
    free(held);
    return NULL;
  }
  *held = (struct budget_permit){.permit.release = release, .budgets = budgets, .target = target, .share = share};
  pry_list_init(&held->permit.link);
  return &held->permit;
}

struct pry_permit *pry_budget_call(struct pry_budgets *budgets, struct pry_slice target, bool client_retry)
{
  return take(budgets, target, client_retry ? SHARE_CLIENT_RETRY : SHARE_CALL);
}

struct pry_permit *pry_budget_retry(struct pry_budgets *budgets, struct pry_slice target)
{
  return take(budgets, target, SHARE_RETRY);
}

double pry_budget_remaining(struct pry_budgets *budgets, struct pry_slice target)
{
  pthread_mutex_lock(&budgets->lock);
  const struct target *found = find_target(budgets, target);
  double left = found ? remaining(found) : 1;
  pthread_mutex_unlock(&budgets->lock);
  return left;
}

struct seen_target {
  double remaining;
  size_t name_size;
};

/* On copies: `visit` may ask about budgets itself. What memory does not suffice for is left out. */
void pry_budget_each(struct pry_budgets *budgets, void (*visit)(void *user, struct pry_slice target, double remaining),
                     void *user)
{
  struct pry_buffer copies;
  pry_buffer_init(&copies, 0);
  pthread_mutex_lock(&budgets->lock);
  for (struct pry_table_node *node = pry_table_next(&budgets->table, NULL); node;
       node = pry_table_next(&budgets->table, node)) {
    struct seen_target seen = {remaining(PRY_CONTAINER_OF(node, struct target, node)), node->key.size};
    if (!pry_buffer_reserve(&copies, sizeof seen + node->key.size))
      continue;
    pry_buffer_append(&copies, &seen, sizeof seen);
    pry_buffer_append_slice(&copies, node->key);
  }
  pthread_mutex_unlock(&budgets->lock);
  for (size_t at = 0; at < copies.size;) {
    struct seen_target seen;
    memcpy(&seen, copies.data + at, sizeof seen);
    visit(user, (struct pry_slice){copies.data + at + sizeof seen, seen.name_size}, seen.remaining);
    at += sizeof seen + seen.name_size;
  }
  pry_buffer_fini(&copies);
}
