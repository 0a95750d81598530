/*
 * budget.h: how much retrying a target may be subjected to.
 *
 * Promise 6 of DESIGN §5: repeated attempts at the same target are at most 20 % of its active calls (at least 3), each
 * held from its decision until its attempt ends. First attempts at any target, and the one retry after a renewal,
 * are free. A client that says it is retrying itself (x-stainless-retry-count > 0) raises the used share: its call
 * counts as one more repeated attempt while it is active.
 *
 * Bounded: targets nobody is at vanish. Thread: any.
 */
#ifndef PRY_BUDGET_H
#define PRY_BUDGET_H

#include "permit.h"
#include "slice.h"

struct pry_budgets;

struct pry_budgets *pry_budgets_new(void);

/* After all permits have been released. NULL is fine. */
void pry_budgets_free(struct pry_budgets *budgets);

/* A call became active at a target ("provider/model"): a permit to release when it leaves that target; NULL: no memory.
 * `client_retry`: the client is retrying on its own. */
struct pry_permit *pry_budget_call(struct pry_budgets *budgets, struct pry_slice target, bool client_retry);

/* A repeated attempt: a permit, or NULL when the budget is used up (or memory is short). */
struct pry_permit *pry_budget_retry(struct pry_budgets *budgets, struct pry_slice target);

/* 1 when untouched, 0 when used up; 1 for a target nobody is at. */
double pry_budget_remaining(struct pry_budgets *budgets, struct pry_slice target);
void pry_budget_each(struct pry_budgets *budgets, void (*visit)(void *user, struct pry_slice target, double remaining),
                     void *user);

#endif
