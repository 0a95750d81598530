/*
 * parry_internal.h: what stands behind `struct parry`, shared by parry.c and parry_decide.c.
 */
#ifndef PRY_PARRY_INTERNAL_H
#define PRY_PARRY_INTERNAL_H

#include "call.h"
#include "engine.h"
#include "parry.h"

/* The binding's loader (bindings/lua/loader.c); named here so that core includes no binding header. */
extern const struct pry_loader pry_lua_loader;

struct parry {
  unsigned magic;
  bool inside; /* parry_run() or parry_free() is on the stack */
  struct parry_options options;
  char *policy_dir, *state_dir;
  struct pry_loop *loop;
  struct pry_http *http;
  struct pry_log *log;
  struct pry_engine *engine;
  struct pry_buffer report;
  const char *report_text; /* its bytes, or a constant when there was no memory for them; NULL before the first load */
  struct pry_list calls;   /* struct host_call */
  size_t call_count;
  uint64_t next_call;
  struct pry_list decisions; /* pending ones */
  size_t decision_count;
  uint64_t next_decision;
  struct pry_buffer decision_text; /* what the last decision's pointers point into */
};

/* Ends pending decisions without telling anybody. */
void pry_decisions_cancel(struct parry *engine);

#endif
