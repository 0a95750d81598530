#include "host_budget.h"

#include "list.h"
#include "table.h"

#include <pthread.h>
#include <stdlib.h>

/* As in budget.c. */
enum { ATTEMPTS_PER_RETRY = 5, RETRIES_AT_LEAST = 3 };

struct second {
  int64_t number; /* of the clock's; older ones are empty */
  unsigned attempts, retries;
};

struct target {
  struct pry_table_node node; /* its key is `name` below */
  struct pry_list link;       /* longest quiet first */
  struct second seconds[PRY_HOST_BUDGET_SECONDS];
  char name[];
};

struct pry_host_budget {
  pthread_mutex_t lock;
  struct pry_table table;
  struct pry_list targets;
  size_t count;
};

struct pry_host_budget *pry_host_budget_new(void)
{
  struct pry_host_budget *budget = calloc(1, sizeof *budget);
  if (!budget)
    return NULL;
  pthread_mutex_init(&budget->lock, NULL); /* cannot fail without attributes on Linux */
  pry_list_init(&budget->targets);
  if (pry_table_init(&budget->table))
    return budget;
  pry_host_budget_free(budget);
  return NULL;
}

static void forget(struct pry_host_budget *budget, struct target *target)
{
  pry_table_remove(&budget->table, &target->node);
  pry_list_remove(&target->link);
  budget->count--;
  free(target);
}

void pry_host_budget_free(struct pry_host_budget *budget)
{
  if (!budget)
    return;
  while (!pry_list_empty(&budget->targets))
    forget(budget, PRY_CONTAINER_OF(budget->targets.next, struct target, link));
  pry_table_fini(&budget->table);
  pthread_mutex_destroy(&budget->lock);
  free(budget);
}

static struct target *find(struct pry_host_budget *budget, struct pry_slice name)
{
  struct pry_table_node *node = pry_table_find(&budget->table, name);
  return node ? PRY_CONTAINER_OF(node, struct target, node) : NULL;
}

static struct target *make(struct pry_host_budget *budget, struct pry_slice name)
{
  if (budget->count == PRY_HOST_BUDGET_TARGETS)
    forget(budget, PRY_CONTAINER_OF(budget->targets.next, struct target, link));
  struct target *target = calloc(1, sizeof *target + name.size);
  if (!target)
    return NULL;
  if (name.size)
    memcpy(target->name, name.data, name.size);
  target->node.key = (struct pry_slice){target->name, name.size};
  pry_table_add(&budget->table, &target->node);
  pry_list_push(&budget->targets, &target->link);
  budget->count++;
  return target;
}

static struct second *second_of(struct target *target, int64_t number)
{
  struct second *second = &target->seconds[number % PRY_HOST_BUDGET_SECONDS];
  if (second->number != number)
    *second = (struct second){.number = number};
  return second;
}

void pry_host_budget_report(struct pry_host_budget *budget, struct pry_slice name, pry_time now)
{
  pthread_mutex_lock(&budget->lock);
  struct target *target = find(budget, name);
  if (target) {
    pry_list_remove(&target->link);
    pry_list_push(&budget->targets, &target->link);
  } else {
    target = make(budget, name);
  }
  if (target)
    second_of(target, now / PRY_SECOND)->attempts++;
  pthread_mutex_unlock(&budget->lock);
}

/* Counts the retry, if it is limited at all: what was granted before anything was reported is nobody's debt. */
static bool take(struct target *target, int64_t number)
{
  size_t attempts = 0, retries = 0;
  for (size_t i = 0; i < PRY_HOST_BUDGET_SECONDS; i++)
    if (target->seconds[i].number > number - PRY_HOST_BUDGET_SECONDS) {
      attempts += target->seconds[i].attempts;
      retries += target->seconds[i].retries;
    }
  size_t share = attempts / ATTEMPTS_PER_RETRY;
  if (!attempts)
    return true;
  if (retries >= (share > RETRIES_AT_LEAST ? share : RETRIES_AT_LEAST))
    return false;
  second_of(target, number)->retries++;
  return true;
}

bool pry_host_budget_take(struct pry_host_budget *budget, struct pry_slice name, pry_time now)
{
  pthread_mutex_lock(&budget->lock);
  struct target *target = find(budget, name);
  bool granted = !target || take(target, now / PRY_SECOND);
  pthread_mutex_unlock(&budget->lock);
  return granted;
}
