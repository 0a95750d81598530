/*
 * host_budget.h: how much retrying a host is told to do at a target.
 *
 * What budget.h is for calls, for hosts that make their attempts themselves and only report them (parry_report()). There an
 * attempt has no beginning that we see, so nothing can be held while it is under way. Instead both sides are counted over
 * the last 10 seconds: retries that were decided at a target are at most 20 % of the attempts that were reported of it, but
 * never fewer than 3. A burst of failures after a quiet time is so held to 3 retries, and a busy target to one in five.
 *
 * Only what is reported counts: a target of which nothing came in the last 10 seconds is not limited, because nothing is
 * known of it; so a host that never reports has no budget. First attempts elsewhere (fallback) and the one after a renewal
 * are free, as in budget.h. The seconds are counted in whole ones: what happened in second t counts until t + 10.
 *
 * Bounded: at most PRY_HOST_BUDGET_TARGETS targets; one more takes the place of the one that was quiet longest. No memory
 * is allocated after the first attempt at each target. Thread: any; one lock, held for nothing else.
 */
#ifndef PRY_HOST_BUDGET_H
#define PRY_HOST_BUDGET_H

#include "loop.h"
#include "slice.h"

enum { PRY_HOST_BUDGET_TARGETS = 1024, PRY_HOST_BUDGET_SECONDS = 10 };

struct pry_host_budget;

/* NULL: no memory. */
struct pry_host_budget *pry_host_budget_new(void);
void pry_host_budget_free(struct pry_host_budget *budget); /* NULL is fine */

/* An attempt at the target of that name has ended. Without memory for one more target it is not counted. */
void pry_host_budget_report(struct pry_host_budget *budget, struct pry_slice name, pry_time now);

/* One more retry there? True: it is counted, if anything was reported in the last seconds. */
bool pry_host_budget_take(struct pry_host_budget *budget, struct pry_slice name, pry_time now);

#endif
