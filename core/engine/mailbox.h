/*
 * mailbox.h: how one worker tells another something.
 *
 * Each worker has a mailbox. Any thread posts a message; it is delivered on the worker's own thread, in the order of
 * posting, and never from inside pry_mailbox_post(), also when a worker posts to itself. What is posted while messages
 * are being delivered comes in a later turn, so that two who answer each other do not keep the loop to themselves. In
 * virtual time it comes at the same instant, in a later pass; several mailboxes may share a virtual loop.
 *
 * Messages live inside whoever sends or waits for them (a queue's waiter, a credential's job), so posting allocates
 * nothing and cannot fail, and a mailbox is bounded: a message is on its way at most once. Posted again before it
 * was delivered it stays where it is.
 *
 * Whose message it is must take it back before its memory goes: pry_mailbox_withdraw(). On the mailbox's own thread a
 * message that was withdrawn is never delivered afterwards. Another thread learns from the answer whether it came
 * too late: then `deliver` runs, or is about to, and only the mailbox's own thread knows when it has ended.
 *
 * A lock that is held while posting or withdrawing must not be held while waiting for a delivery; taking it inside
 * `deliver` is fine, for no lock of the mailbox is held then.
 *
 * Thread: post and withdraw from any; a mailbox is made and freed while nobody else uses it. A virtual loop knows one
 * thread only.
 */
#ifndef PRY_MAILBOX_H
#define PRY_MAILBOX_H

#include "list.h"
#include "loop.h"

struct pry_mailbox;

/* Zero-initialise, and set `deliver` before the message is posted first. It goes to one mailbox all its life. Inside
 * `deliver` it may be posted again, and its memory may go. */
struct pry_message {
  struct pry_list link;
  void (*deliver)(struct pry_message *message);
  bool posted; /* the mailbox's */
};

/* On a loop that has no other mailbox and no other pry_loop_on_wake() handler (virtual: any). NULL: no memory. */
struct pry_mailbox *pry_mailbox_new(struct pry_loop *loop);

/* What is still in it is forgotten, undelivered. NULL is fine. */
void pry_mailbox_free(struct pry_mailbox *mailbox);

/* One that no loop delivers: whoever made it calls pry_mailbox_collect(), after `announced` has said, on the poster's thread,
 * that the first message of several came. How a host gets what its engine has for it. NULL: no memory. */
struct pry_mailbox *pry_mailbox_new_collected(void (*announced)(void *user), void *user);

/* Delivers what has come until now, on the caller's thread, one caller at a time. False: there was nothing. Only for the
 * kind above. */
bool pry_mailbox_collect(struct pry_mailbox *mailbox);

/* NULL for one that is collected. */
struct pry_loop *pry_mailbox_loop(const struct pry_mailbox *mailbox);

/* Delivers the message soon. False: it was on its way already. */
bool pry_mailbox_post(struct pry_mailbox *mailbox, struct pry_message *message);

/* Takes a message back. False: it was not on its way (never posted, delivered, or being delivered now). */
bool pry_mailbox_withdraw(struct pry_mailbox *mailbox, struct pry_message *message);

/* Whether the mailbox's worker is thought to be stuck, for whoever gives things away and would rather give them to
 * somebody else. A mark that the mailbox keeps and does not look at itself. */
void pry_mailbox_set_stuck(struct pry_mailbox *mailbox, bool stuck);
bool pry_mailbox_is_stuck(const struct pry_mailbox *mailbox);

#endif
