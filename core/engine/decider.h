/*
 * decider.h: a worker that has no thread: whoever has a question enters it, and asks there.
 *
 * A host's parry_decide() gives its answer on the thread that asks, and many may ask at once. So the engine keeps a few
 * deciders: each is a worker with a Lua state, a ring of event records and a mailbox, but without a loop of its own. One
 * thread at a time is inside; the others find another one, or wait. Generations reach it as they reach any worker: who
 * enters adopts the newest, and a commit that finds somebody inside is acknowledged when that one leaves.
 *
 * Its mailbox is delivered inside, too: by who is inside, before leaving; or, when nobody is, by the control worker.
 * Nobody waits for a decider but those who want to ask something, so a slow script in it holds up neither the control
 * worker nor a commit elsewhere.
 *
 * What a handler waits for happens on the control worker's loop, because nobody else may touch a loop. So nothing is begun
 * inside: it is collected, and goes to the control worker once who is inside has left. Who changed his mind before that
 * (no host waits for the answer) takes it back, and nothing was ever begun. An operation's memory is its handler's until
 * it is begun, the control worker's until it tells that it is complete, and then the handler's again.
 *
 * The watchdog does not look at deciders: their handlers have the same budgets, and nobody's calls stand still behind them.
 *
 * Locks: a decider's is the outermost. It is held while Lua runs, so nobody holds another lock while entering; the
 * control worker only ever tries. Thread: any.
 */
#ifndef PRY_DECIDER_H
#define PRY_DECIDER_H

#include "worker.h"

/* For pry_worker_init_decider(): sets what is a decider's own. worker->mailbox is NULL when memory is short. */
void pry_decider_entry_init(struct pry_worker *worker);

/* Inside afterwards, with the newest generation adopted. Waits while somebody else is; the other one does not. Not from
 * inside any decider. */
void pry_decider_enter(struct pry_worker *worker);
bool pry_decider_try_enter(struct pry_worker *worker);

/* Delivers what has come for it meanwhile, has begun what is to begin, and leaves. */
void pry_decider_leave(struct pry_worker *worker);

/* Delivers what is in its mailbox, here if nobody is inside, else there. The control worker's. */
void pry_decider_look(struct pry_worker *worker);

/* Inside: has `message` delivered on the control worker, soon after this decider was left. Its `deliver` starts what a
 * handler waits for. */
void pry_decider_begin(struct pry_worker *worker, struct pry_message *message);

/* Takes it back, if it was not delivered yet. On the control worker, or while it cannot have been (inside, before
 * leaving): a delivery on another thread is not waited for. Harmless for a message that was only initialised. */
void pry_decider_forget(struct pry_worker *worker, struct pry_message *message);

#endif
