#include "rollout.h"

#include "engine.h"

#include <stdlib.h>

static bool warm_states(struct pry_engine *engine, struct pry_rollout *rollout, struct pry_report *report)
{
  const struct pry_loader *loader = engine->options.loader;
  for (size_t i = 0; i < rollout->count; i++) {
    struct pry_state *state = loader->warm(rollout->generation, engine->workers[i], &engine->options.limits, report);
    if (!state)
      return false;
    state->counted = true;
    atomic_fetch_add(&rollout->generation->live_states, 1);
    rollout->states[i] = state;
  }
  return true;
}

struct pry_rollout *pry_rollout_new(struct pry_engine *engine, struct pry_generation *generation,
                                    struct pry_report *report)
{
  size_t count = pry_engine_worker_total(engine);
  struct pry_rollout *rollout = calloc(1, sizeof *rollout + count * sizeof *rollout->states);
  if (!rollout) {
    pry_report_add(report, PRY_FINDING_ERROR, "init.lua", "memory is short");
    pry_generation_unref(generation);
    return NULL;
  }
  pry_list_init(&rollout->link);
  rollout->generation = generation;
  rollout->count = count;
  if (warm_states(engine, rollout, report))
    return rollout;
  pry_rollout_free(rollout);
  return NULL;
}

void pry_rollout_free(struct pry_rollout *rollout)
{
  if (!rollout)
    return;
  for (size_t i = 0; i < rollout->count; i++)
    pry_state_unref(rollout->states[i]);
  pry_list_remove(&rollout->link);
  pry_generation_unref(rollout->generation);
  free(rollout);
}
