/*
 * queue.h: places under a key, given first come first served.
 *
 * What `hold{}` stands on: a key has `slots` places; who asks for one gets it at once, or waits in line, or is
 * refused because the line is full. A keyed serial queue is a key with one slot. The holder gets a permit
 * (permit.h); releasing it passes the place to the first in line. Keys that nobody holds or waits for vanish.
 *
 * Grants never come from inside pry_queue_enter(), pry_queue_leave() or a release: they are delivered on the
 * waiter's loop. A grant whose waiter has left meanwhile goes to the next in line; no place is ever lost.
 *
 * Thread: any worker may ask; a waiter belongs to its own loop's thread. With several workers a grant crosses
 * as a mailbox message; the interface is the same. (With one worker, as here, it is a timer of that loop.)
 */
#ifndef PRY_QUEUE_H
#define PRY_QUEUE_H

#include "loop.h"
#include "permit.h"
#include "slice.h"

struct pry_queue_set;

enum pry_queue_status {
  PRY_QUEUE_GRANTED, /* *permit is set */
  PRY_QUEUE_WAITING, /* granted later, through the waiter */
  PRY_QUEUE_FULL,    /* the line, or the whole set, is at its bound */
  PRY_QUEUE_NO_MEMORY
};

/* Embedded in the asker. Must be left or granted before its memory goes. */
struct pry_queue_waiter {
  struct pry_list link;
  struct pry_loop *loop;
  struct pry_timer grant_timer;
  struct pry_permit *permit;
  void (*granted)(struct pry_queue_waiter *waiter, struct pry_permit *permit, void *user);
  void *user;
  struct pry_queue *queue; /* NULL while not waiting */
};

/* max_waiting: in one line; 0: 1024. max_total: waiting in all lines; 0: 65536. NULL: no memory. */
struct pry_queue_set *pry_queue_set_new(size_t max_waiting, size_t max_total);

/* Waiters must have left. Permits still out may be released afterwards. */
void pry_queue_set_free(struct pry_queue_set *set);

/* Asks for a place under `key`, which has `slots` of them (the number of the latest asker counts: an edited
 * policy widens or narrows the line at once; nobody is thrown out). `waiter` is used only when the answer
 * is WAITING. Nobody overtakes: with others in line the asker joins the end although a slot is free. */
enum pry_queue_status pry_queue_enter(struct pry_queue_set *set, struct pry_loop *loop, struct pry_slice key,
                                      unsigned slots, struct pry_queue_waiter *waiter,
                                      void (*granted)(struct pry_queue_waiter *, struct pry_permit *, void *user),
                                      void *user, struct pry_permit **permit);

/* Leaves the line; a grant already on its way is given back. Safe when not waiting. */
void pry_queue_leave(struct pry_queue_waiter *waiter);

/* Held and waiting under a key; both 0 when nobody is there. */
void pry_queue_count(struct pry_queue_set *set, struct pry_slice key, size_t *held, size_t *waiting);
size_t pry_queue_waiting_total(struct pry_queue_set *set);
size_t pry_queue_key_count(struct pry_queue_set *set);

#endif
