/*
 * dialects.h: the dialects of a folder of policies and nothing else of it, loaded as the engine loads them.
 *
 * For commands that judge what was recorded: an init.lua that lacks a secret or is being edited is no obstacle to them.
 */
#ifndef PRY_DIALECTS_H
#define PRY_DIALECTS_H

#include "engine.h"
#include "http_script.h"

struct pry_dialects {
  struct pry_loop *loop; /* virtual: nothing is sent */
  struct pry_http_script *script;
  struct pry_engine *engine;
  const char *command; /* for messages */
  bool told_unknown;   /* that a dialect is unknown: once is enough */
};

/* Loads them; false: stderr says why. pry_dialects_free() all the same. */
bool pry_dialects_load(struct pry_dialects *dialects, const char *folder, const char *command);
void pry_dialects_free(struct pry_dialects *dialects);

/* The state that classifies with them. */
struct pry_state *pry_dialects_state(const struct pry_dialects *dialects);

/* Never NULL: what is not known (NULL, "", a name that is none, which is told once on stderr) is generic. `line`: where
 * the name stands. */
const struct pry_dialect *pry_dialects_find(struct pry_dialects *dialects, const char *name, unsigned long line);

#endif
