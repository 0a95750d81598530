/*
 * engine_rig.h: an engine for benchmarks of what needs no socket: virtual time, scripted providers, policies from memory.
 *
 * What goes wrong ends the program with a line on stderr. Thread: one.
 */
#ifndef ENGINE_RIG_H
#define ENGINE_RIG_H

#include "engine.h"

struct engine_rig {
  struct pry_loop *loop;
  struct pry_http *http;
  struct pry_engine *engine;
};

void engine_rig_init(struct engine_rig *rig);
void engine_rig_fini(struct engine_rig *rig);

/* The shipped policies without their tests and init.lua. */
struct pry_policy_set *engine_rig_shipped(void);

/* Adds to a set that is not sealed yet. */
void engine_rig_add(struct pry_policy_set *set, const char *path, const char *text);

/* Seals the set and lets it serve; takes it. */
void engine_rig_load(struct engine_rig *rig, struct pry_policy_set *set);

/* The state that serves; borrowed. */
struct pry_state *engine_rig_state(const struct engine_rig *rig);

/* CLOCK_MONOTONIC. */
double engine_rig_seconds(void);

/* Sorts `values` and returns the one in the middle. */
double engine_rig_median(double *values, size_t count);

#endif
