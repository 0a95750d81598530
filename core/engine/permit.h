/*
 * permit.h: something taken that must be given back.
 *
 * A place in a queue, a half-open probe of a breaker, a share of the retry budget: each is a permit on the list
 * of the call or of the attempt that holds it. Whoever ends the call or the attempt, on whatever path, calls
 * pry_permits_release() once; nothing else has to remember what was taken.
 *
 * Thread: the holder's worker.
 */
#ifndef PRY_PERMIT_H
#define PRY_PERMIT_H

#include "list.h"

struct pry_permit {
  struct pry_list link;
  /* Gives it back and frees it. Called once, after it left its list. */
  void (*release)(struct pry_permit *permit);
  /* The request that it was taken for goes out now; it may come again. NULL: nobody wants to know. */
  void (*sent)(struct pry_permit *permit);
  bool observed; /* on_outcome needs it (a breaker's probe): kept until the observers have run */
};

/* Holder's list; pry_list_init() first. */
static inline void pry_permits_add(struct pry_list *permits, struct pry_permit *permit)
{
  pry_list_push(permits, &permit->link);
}

/* What the holder took them for goes out now. */
static inline void pry_permits_sent(const struct pry_list *permits)
{
  for (const struct pry_list *link = permits->next; link != permits; link = link->next) {
    struct pry_permit *permit = PRY_CONTAINER_OF(link, struct pry_permit, link);
    if (permit->sent)
      permit->sent(permit);
  }
}

static inline void pry_permits_release(struct pry_list *permits)
{
  while (!pry_list_empty(permits)) {
    struct pry_permit *permit = PRY_CONTAINER_OF(permits->next, struct pry_permit, link);
    pry_list_remove(&permit->link);
    permit->release(permit);
  }
}

/* Releases those that no observer needs. */
static inline void pry_permits_release_unobserved(struct pry_list *permits)
{
  struct pry_list *next;
  for (struct pry_list *link = permits->next; link != permits; link = next) {
    struct pry_permit *permit = PRY_CONTAINER_OF(link, struct pry_permit, link);
    next = link->next;
    if (permit->observed)
      continue;
    pry_list_remove(link);
    permit->release(permit);
  }
}

#endif
