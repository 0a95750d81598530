/* A loader for tests of what stands around the engine: no Lua. A set is refused when a file holds the word "bad", when
 * retry_test.lua holds "fails", and, only at the end, when init.lua holds "cold". Include behind cmocka.h. */
#ifndef FAKE_LOADER_H
#define FAKE_LOADER_H

#include "registry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_uint loads;       /* how often a set was staged */
static atomic_int fake_states;  /* warmed and not freed */
static atomic_bool gate_closed; /* loading waits for gate_open() */
static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;

static inline void gate_set(bool closed)
{
  pthread_mutex_lock(&gate_lock);
  gate_closed = closed;
  pthread_cond_broadcast(&gate_changed);
  pthread_mutex_unlock(&gate_lock);
}

static struct pry_generation *fake_load(struct pry_policy_set *set, const struct pry_script_limits *limits,
                                        struct pry_report *report)
{
  (void)limits;
  loads++;
  pthread_mutex_lock(&gate_lock);
  while (gate_closed)
    pthread_cond_wait(&gate_changed, &gate_lock);
  pthread_mutex_unlock(&gate_lock);
  for (size_t i = 0; i < set->count; i++) {
    if (strstr(set->files[i].text, "bad")) {
      char where[64];
      snprintf(where, sizeof where, "%s:1", set->files[i].path);
      pry_report_add(report, PRY_FINDING_ERROR, where, "this is bad");
      return NULL;
    }
  }
  struct pry_arena arena;
  pry_arena_init(&arena, 0);
  struct pry_config *config = pry_arena_take(&arena, sizeof *config);
  assert_non_null(config);
  config->arena = arena;
  return pry_generation_new(set, config);
}

static bool fake_test(struct pry_generation *generation, const struct pry_generation *proven,
                      const struct pry_script_limits *limits, struct pry_report *report)
{
  (void)limits, (void)proven;
  const struct pry_policy_file *test = pry_policy_set_find(generation->set, "retry_test.lua");
  if (!test || !strstr(test->text, "fails"))
    return true;
  pry_report_add(report, PRY_FINDING_ERROR, "retry_test.lua:1", "a test fails");
  return false;
}

static void fake_free(struct pry_state *state)
{
  fake_states--;
  pry_generation_unref(state->generation);
  free(state);
}

static const struct pry_state_ops fake_ops = {.free = fake_free};

static struct pry_state *fake_warm(struct pry_generation *generation, struct pry_worker *worker,
                                   const struct pry_script_limits *limits, struct pry_report *report)
{
  (void)limits;
  if (strstr(pry_policy_set_find(generation->set, "init.lua")->text, "cold")) {
    pry_report_add(report, PRY_FINDING_ERROR, "init.lua:1", "cannot be warmed");
    return NULL;
  }
  struct pry_state *state = calloc(1, sizeof *state);
  assert_non_null(state);
  *state = (struct pry_state){.ops = &fake_ops, .generation = generation, .worker = worker, .references = 1};
  pry_generation_ref(generation);
  fake_states++;
  return state;
}

static const struct pry_loader fake_loader = {fake_load, fake_test, fake_warm};

#endif
