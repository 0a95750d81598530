/*
 * list.h: an intrusive doubly linked list, first in, first out.
 *
 * The link lives inside the element, so that adding and removing never allocates and never fails: a
 * waiter can leave its queue on any error path. A link that is in no list points at itself, which
 * makes pry_list_remove() safe to call twice.
 */
#ifndef PRY_LIST_H
#define PRY_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct pry_list {
  struct pry_list *next;
  struct pry_list *previous;
};

/* The structure that holds `member` at `pointer`. */
#define PRY_CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Makes an empty list, or a link that is in no list. */
static inline void pry_list_init(struct pry_list *list)
{
  list->next = list;
  list->previous = list;
}

static inline bool pry_list_empty(const struct pry_list *list)
{
  return list->next == list;
}

static inline void pry_list_push(struct pry_list *list, struct pry_list *link)
{
  link->previous = list->previous;
  link->next = list;
  list->previous->next = link;
  list->previous = link;
}

static inline void pry_list_remove(struct pry_list *link)
{
  link->previous->next = link->next;
  link->next->previous = link->previous;
  pry_list_init(link);
}

#endif
