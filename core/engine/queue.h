/*
 * queue.h: places under a key, given first come first served.
 *
 * What `hold{}` stands on: a key has `slots` places; who asks for one gets it at once, or waits in line, or is
 * refused because the line is full. A keyed serial queue is a key with one slot. The holder gets a permit
 * (permit.h); releasing it passes the place to the first in line. Keys that nobody holds or waits for vanish.
 *
 * Grants never come from inside pry_queue_enter(), pry_queue_leave() or a release: a grant is a message to the mailbox
 * of the waiter's worker, whoever released the place on whatever thread. A grant whose waiter has left meanwhile goes to
 * the next in line; no place is ever lost, and none is given twice.
 *
 * Order: the order of entering, over all workers. It yields in one case: a worker that is stuck. Its grants that it has
 * not picked up are taken back, its waiters keep their places in line (those taken back stand in front again), and
 * until it is readmitted the next of another worker gets the place, so that a script that loops on one worker does not
 * hold up a line that all share. Places that the stuck worker's calls hold already stay theirs.
 *
 * Thread: any worker may ask, and a permit may be released on any thread; a waiter belongs to its mailbox's thread,
 * where it enters, leaves and is granted. One lock, held for a few list operations, never while `granted` runs.
 */
#ifndef PRY_QUEUE_H
#define PRY_QUEUE_H

#include "mailbox.h"
#include "permit.h"
#include "slice.h"

struct pry_queue_set;

enum pry_queue_status {
  PRY_QUEUE_GRANTED, /* *permit is set */
  PRY_QUEUE_WAITING, /* granted later, through the waiter */
  PRY_QUEUE_FULL,    /* the line, or the whole set, is at its bound */
  PRY_QUEUE_NO_MEMORY
};

/* Embedded in the asker; zero-initialise. Must be left or granted before its memory goes. */
struct pry_queue_waiter {
  struct pry_list link; /* in the line, or among the grants on their way */
  struct pry_message grant;
  struct pry_mailbox *mailbox;
  struct pry_permit *permit;
  void (*granted)(struct pry_queue_waiter *waiter, struct pry_permit *permit, void *user);
  void *user;
  struct pry_queue *queue; /* NULL while not waiting */
  bool coming;             /* a place is its own, the grant is on its way */
};

/* max_waiting: in one line; 0: 1024. max_total: waiting in all lines; 0: 65536. NULL: no memory. */
struct pry_queue_set *pry_queue_set_new(size_t max_waiting, size_t max_total);

/* Waiters must have left. Permits still out may be released afterwards. */
void pry_queue_set_free(struct pry_queue_set *set);

/* Asks for a place under `key`, which has `slots` of them (the number of the latest asker counts: an edited
 * policy widens or narrows the line at once; nobody is thrown out). `waiter` is used only when the answer
 * is WAITING; then `granted` comes on the mailbox's thread, unless the waiter leaves first. Nobody overtakes: with others
 * in line the asker joins the end although a slot is free, except past those of stuck workers. */
enum pry_queue_status pry_queue_enter(struct pry_queue_set *set, struct pry_mailbox *mailbox, struct pry_slice key,
                                      unsigned slots, struct pry_queue_waiter *waiter,
                                      void (*granted)(struct pry_queue_waiter *, struct pry_permit *, void *user),
                                      void *user, struct pry_permit **permit);

/* Leaves the line; a grant already on its way is withdrawn and the place passed on. Safe when not waiting. On the
 * mailbox's thread, or when that has ended. */
void pry_queue_leave(struct pry_queue_waiter *waiter);

/* The mailbox's worker has not turned its loop for some time: takes back the grants that it has not picked up, and passes
 * its waiters over until pry_queue_readmit(). Any thread but the stuck one; repeating it changes nothing. Marks the
 * mailbox (pry_mailbox_is_stuck()). Who calls this must readmit when the loop turns again, or the waiters stay. */
void pry_queue_reclaim(struct pry_queue_set *set, struct pry_mailbox *mailbox);

/* It turns again: its waiters, in their places, get what is free. Safe when it was not stuck. */
void pry_queue_readmit(struct pry_queue_set *set, struct pry_mailbox *mailbox);

/* Held and waiting under a key; both 0 when nobody is there. A place whose grant is on its way is held. */
void pry_queue_count(struct pry_queue_set *set, struct pry_slice key, size_t *held, size_t *waiting);
size_t pry_queue_waiting_total(struct pry_queue_set *set);
size_t pry_queue_key_count(struct pry_queue_set *set);

#endif
