/*
 * queue.h: lines before gates, first come first served.
 *
 * What `hold{}` stands on: a key has a gate (gate.h: so many places at a time, so many in any sliding window, so many
 * tokens a second, or all of these), and who asks passes at once, or waits in line, or is refused because the line is
 * full or its turn would come too late. A keyed serial queue is a key with one slot. Who passed gets a permit
 * (permit.h); releasing it lets the first in line in, and pry_permits_sent() tells a window or bucket that the request
 * goes out now. Keys with nobody inside or in line vanish, as soon as their gates remember nothing, too.
 *
 * Grants never come from inside pry_queue_enter(), pry_queue_leave() or a release: a grant is a message to the mailbox
 * of the waiter's worker, whoever released the place on whatever thread. A grant whose waiter has left meanwhile goes to
 * the next in line; no place is ever lost, and none is given twice. Where only time opens a gate, the first in line is
 * told when, and looks again then, by a timer of its own loop; who becomes first later is told then. When a provider's
 * word (below) makes it certain that some will be late, they hear of it at once, in the same way.
 *
 * Order: the order of entering, over all workers. It yields in one case: a worker that is stuck. Its grants that it has
 * not picked up are taken back, its waiters keep their places in line (those taken back stand in front again), and
 * until it is readmitted the next of another worker gets the place, so that a script that loops on one worker does not
 * hold up a line that all share. Places that the stuck worker's calls hold already stay theirs.
 *
 * Bounded: lines, keys (100,000), and what windows remember (a million instants in all). What finds no room is refused.
 *
 * Thread: any worker may ask, and a permit may be released on any thread; a waiter belongs to its mailbox's thread,
 * where it enters, leaves and is granted. One lock, held for a few list operations, never while `granted` runs. Time is
 * that of the loops, which share one clock.
 */
#ifndef PRY_QUEUE_H
#define PRY_QUEUE_H

#include "gate.h"
#include "mailbox.h"
#include "permit.h"
#include "slice.h"

struct pry_queue_set;

enum { PRY_QUEUE_ANY = -1 }; /* max_waiting: the set's bound alone counts */

/* What an asker wants, and the rule by which it is judged. */
struct pry_queue_rule {
  struct pry_gate_rule gate;
  double cost;      /* of a bucket's tokens, and of what a provider allows; 0: 1 */
  int max_waiting;  /* in this line, or PRY_QUEUE_ANY; 0: nobody waits */
  pry_time longest; /* that the asker would wait; 0: not at all, PRY_TIME_NEVER */
};

enum pry_queue_status {
  PRY_QUEUE_GRANTED, /* answer->permit is set */
  PRY_QUEUE_WAITING, /* granted later, through the waiter */
  PRY_QUEUE_FULL,    /* the line, or the whole set, is at its bound */
  PRY_QUEUE_LATE,    /* its turn would come after `longest` */
  PRY_QUEUE_NO_MEMORY
};

struct pry_queue_answer {
  struct pry_permit *permit;
  pry_time retry_in; /* when refused: until its turn, as far as time decides; negative: nobody knows */
};

/* Embedded in the asker; zero-initialise. Must be left or granted before its memory goes. */
struct pry_queue_waiter {
  struct pry_list link; /* in the line, or among the grants on their way */
  struct pry_message grant;
  struct pry_mailbox *mailbox;
  struct pry_permit *permit;
  void (*granted)(struct pry_queue_waiter *waiter, struct pry_permit *permit, void *user);
  void *user;
  struct pry_queue_set *set; /* NULL while not waiting */
  struct pry_queue *queue;   /* of which it is in line, or has a place of; NULL when it is late */
  bool coming;               /* a place is its own, the grant is on its way */
  double cost;
  pry_time until;         /* it does not wait longer */
  struct pry_timer timer; /* while first in line before a gate that time opens */
  pry_time look_at;       /* when it is to look again; PRY_TIME_NEVER: nobody told it to */
};

/* max_waiting: in one line; 0: 1024. max_total: waiting in all lines; 0: 65536. NULL: no memory. */
struct pry_queue_set *pry_queue_set_new(size_t max_waiting, size_t max_total);

/* Waiters must have left. Permits still out may be released afterwards. */
void pry_queue_set_free(struct pry_queue_set *set);

/* Asks to pass under `key` by `rule` (the rule of the latest asker counts for all: an edited policy widens or narrows the
 * gate at once, see pry_gate_set(); nobody is thrown out). `waiter` is used only when the answer is WAITING; then
 * `granted` comes on the mailbox's thread, unless the waiter leaves first; its permit is NULL when it is certain by now that its turn would come
 * after `longest`. Nobody overtakes: with others in line the
 * asker joins the end although the gate is open, except past those of stuck workers. Needs room for one timer on the
 * mailbox's loop (pry_loop_reserve()). */
enum pry_queue_status pry_queue_enter(struct pry_queue_set *set, struct pry_mailbox *mailbox, struct pry_slice key,
                                      const struct pry_queue_rule *rule, struct pry_queue_waiter *waiter,
                                      void (*granted)(struct pry_queue_waiter *, struct pry_permit *, void *user),
                                      void *user, struct pry_queue_answer *answer);

/* The rule of one hold{slots}: that many places, a line as long as the set allows. For tests and tools. */
static inline struct pry_queue_rule pry_queue_places(unsigned slots)
{
  return (struct pry_queue_rule){
      .gate.slots = slots ? slots : 1, .max_waiting = PRY_QUEUE_ANY, .longest = PRY_TIME_NEVER};
}

/* Leaves the line; a grant already on its way is withdrawn and the place passed on. Safe when not waiting. On the
 * mailbox's thread, or when that has ended. */
void pry_queue_leave(struct pry_queue_waiter *waiter);

/* The mailbox's worker has not turned its loop for some time: takes back the grants that it has not picked up, and passes
 * its waiters over until pry_queue_readmit(). Any thread but the stuck one; repeating it changes nothing. Marks the
 * mailbox (pry_mailbox_is_stuck()). Who calls this must readmit when the loop turns again, or the waiters stay. */
void pry_queue_reclaim(struct pry_queue_set *set, struct pry_mailbox *mailbox);

/* It turns again: its waiters, in their places, get what is free. Safe when it was not stuck. */
void pry_queue_readmit(struct pry_queue_set *set, struct pry_mailbox *mailbox);

/* ---- what a provider said; see gate.h -------------------------------------------------------------------- */

/* Each makes the key, if it is not there, so that who asks first finds it; false: no memory, or no room. `now` is the
 * loop's clock. */
bool pry_queue_pause(struct pry_queue_set *set, struct pry_slice key, pry_time until, pry_time now);
bool pry_queue_allow(struct pry_queue_set *set, struct pry_slice key, double remaining, pry_time reset, pry_time now);
/* Does nothing, and is true, where there is no such key: its bucket is full. */
bool pry_queue_spend(struct pry_queue_set *set, struct pry_slice key, double tokens, pry_time now);

/* ---- figures --------------------------------------------------------------------------------------------- */

struct pry_queue_state {
  size_t held, waiting; /* a place whose grant is on its way is held */
  double available;     /* for who comes next: places, calls of a window or tokens; HUGE_VAL: any number */
  pry_time next_in;     /* until who comes next may pass, as far as time decides */
  pry_time paused;      /* until a provider's pause ends; 0: there is none */
};

/* Nobody there, and an open gate, for an unknown key. */
void pry_queue_look(struct pry_queue_set *set, struct pry_slice key, pry_time now, struct pry_queue_state *state);
size_t pry_queue_waiting_total(struct pry_queue_set *set);
size_t pry_queue_key_count(struct pry_queue_set *set);

/* Forgets keys whose gates remember nothing any more, a bounded number at a time; call about once a second. */
void pry_queue_sweep(struct pry_queue_set *set, pry_time now);

#endif
