/*
 * engine_internal.h: what engine.c and engine_generation.c share; nobody else includes it.
 *
 *   engine.c             life, parts, small services
 *   engine_generation.c  commits, rollbacks, and what is kept
 */
#ifndef PRY_ENGINE_INTERNAL_H
#define PRY_ENGINE_INTERNAL_H

#include "engine.h"

/* Lets go of generations that no state anywhere belongs to any more. */
void pry_engine_drop_unused(struct pry_engine *engine);

/* One that was kept, or in use, is so no longer. Its secrets are scrubbed as long as it is either. NULL is fine. */
void pry_engine_forget(struct pry_engine *engine, struct pry_generation *generation);

#endif
