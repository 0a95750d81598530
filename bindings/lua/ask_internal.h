/*
 * ask_internal.h: the inside of the decider, shared by the four files that make it.
 *
 *   ask.c          running handlers, and the life of the state
 *   ask_dialect.c  classify and render
 *   ask_translate.c  translations and strip
 *   decision.c     slots, event records, reads, faults
 */
#ifndef PRY_ASK_INTERNAL_H
#define PRY_ASK_INTERNAL_H

#include "ask.h"

enum { PRY_DIALECT_CLASSIFY, PRY_DIALECT_RENDER, PRY_DIALECT_TRANSLATE, PRY_DIALECT_STRIP, PRY_DIALECT_FUNCTIONS };

struct pry_decider {
  struct pry_script *script;
  const struct pry_config *config;
  struct pry_decision *current; /* whose Lua is running */
  struct pry_decision *slots, *free_slots;
  struct pry_buffer scratch;          /* of pry_decision_scratch() */
  char complaint[PRY_FAULT_MAX - 64]; /* of a bad verdict */
  /* References of watches (freeze.h), found by index. */
  int (*handler_watches)[PRY_HANDLER_COUNT];
  int (*dialect_watches)[PRY_DIALECT_FUNCTIONS];
  int *refresh_watches;
  /* References of handlers and of their `self`, found by index; LUA_NOREF: none, or a job's. Looking them up where the
   * declarations keep them was a fifth of what asking costs. */
  int (*handlers)[PRY_HANDLER_COUNT];
  int *selves;
  struct pry_remembered *remembered; /* of ask_dialect.c; made when first needed */
};

extern const struct pry_state_ops pry_script_state_ops;

/* NULL for a script that is not attached. */
struct pry_decider *pry_decider_of(const struct pry_script *script);

/* A slot, active and emptied; NULL: no memory. After its return every view of the decision is dead. */
struct pry_decision *pry_decision_take(struct pry_decider *decider);
void pry_decision_return(struct pry_decision *decision);

/* The record of an ask; `end` writes what ask->verdict, result and fault say. */
void pry_decision_begin_record(struct pry_decision *decision);
void pry_decision_end_record(const struct pry_decision *decision);

/* Scrubs the fault, logs and counts it, and has the slot's views made anew. `function`: "on_error", "classify". */
void pry_decision_tell_fault(struct pry_decision *decision, const char *function, enum pry_run_result result,
                             const char *call_id, char *fault);

/* Cuts at size - 1 bytes. */
void pry_copy_text(char *to, size_t size, const char *from);

/* pry_state_ops.translate. */
enum pry_translate_result pry_ask_translate(struct pry_state *state, struct pry_translation *translation);

/* Keeps the `emit` of translations in the registry. Inside the door. */
void pry_translate_open(lua_State *L);

/* pry_state_ops.classify and render. */
bool pry_ask_classify(struct pry_state *state, const struct pry_dialect *dialect, const struct pry_answer_view *answer,
                      struct pry_failure *failure);
bool pry_ask_render(struct pry_state *state, const struct pry_dialect *dialect, const struct pry_failure *failure,
                    const char *call_id, enum pry_render form, struct pry_buffer *out);

#endif
