/*
 * gate.h: how many may pass under a key, and when the next one may.
 *
 * The arithmetic behind `hold{}`, without a line, a lock or a clock: queue.c has those. A gate has up to three rules,
 * all of which must agree before somebody passes:
 *
 *   slots         at most that many are inside at a time (a bulkhead; with 1 a serial queue)
 *   limit, per    at most `limit` in any `per` (a sliding window)
 *   rate, burst   tokens that come at `rate` per second up to `burst`; each passing costs some (a token bucket)
 *
 * Window and bucket are promises about what arrives at a provider, so they are kept by the time of sending, not of
 * granting: who has passed and not sent yet holds its place of the window and its tokens, without an end; pry_gate_sent()
 * begins its `per` and takes the tokens. So neither a slow handshake nor a later policy that waits can bunch requests up,
 * and who ends without having sent anything gives everything back at once. What has been sent counts for all of `per`,
 * whatever became of it.
 *
 * Besides the rules there is what a provider said: a pause (a 429), until which nobody passes, and an allowance (its
 * x-ratelimit-remaining), what may still pass until a reset.
 *
 * A rule that changes is settled first: tokens that came until now came at the old rate and are then clamped to the new
 * burst, instants older than the old window are forgotten and the rest is judged by the new one.
 *
 * Thread: none of its own; whoever owns the gate guards it. `now` may go back a little between calls (several loops).
 */
#ifndef PRY_GATE_H
#define PRY_GATE_H

#include "list.h"
#include "loop.h"

/* Zero: that rule is off. With all off everybody passes. */
struct pry_gate_rule {
  unsigned slots;
  unsigned limit; /* with per */
  pry_time per;
  double rate, burst; /* tokens a second, tokens; with a rate, burst > 0 */
};

/* What somebody who passed has taken. Embedded in the owner's thing; zero-initialise, pry_list_init() the link. */
struct pry_gate_place {
  struct pry_list link; /* among those of the window that were sent, oldest first */
  pry_time sent_at;
  double cost; /* tokens; also what it takes of an allowance */
  bool inside; /* it counts for slots, and its owner still has it */
  bool in_window;
  bool sent;
  unsigned allowance; /* the one that it took from */
};

struct pry_gate {
  struct pry_gate_rule rule;
  size_t inside;          /* for slots */
  size_t window;          /* places of the window that are taken, sent or not */
  struct pry_list sent;   /* of these, those that were sent */
  double level, reserved; /* tokens there are; of these promised to who has not sent yet */
  pry_time settled;       /* when `level` was right */
  pry_time paused_until;  /* 0: not */
  double allowed;         /* left of the allowance */
  pry_time allowed_until; /* 0: there is none */
  unsigned allowance;     /* its number */
};

/* Open, without rules. */
void pry_gate_init(struct pry_gate *gate);

/* The rule that counts from now on. A bucket that is new is full. */
void pry_gate_set(struct pry_gate *gate, const struct pry_gate_rule *rule, pry_time now);

/* When somebody with that cost may pass: `now` when at once, PRY_TIME_NEVER when only the leaving or sending of somebody
 * inside can tell. A cost above the burst passes when the bucket is full, and leaves it in debt. */
pry_time pry_gate_due(struct pry_gate *gate, double cost, pry_time now);

/* When somebody may pass who comes after `ahead` others with `ahead_cost` in all, if who has passed goes on to send, at
 * once, and nobody gives anything back. How long others stay inside is not known and taken for no time. */
pry_time pry_gate_estimate(struct pry_gate *gate, size_t ahead, double ahead_cost, double cost, pry_time now);

/* Somebody passes; ask pry_gate_due() first. The place must stay where it is until pry_gate_leave() or
 * pry_gate_expired() gives it up. */
void pry_gate_take(struct pry_gate *gate, struct pry_gate_place *place, double cost);

/* What it passed for goes out now. A second time moves the instant: it went out later, or goes on. */
void pry_gate_sent(struct pry_gate *gate, struct pry_gate_place *place, pry_time now);

/* Its owner is done with it. True: its memory may go; false: the window remembers it, see pry_gate_expired(). */
bool pry_gate_leave(struct pry_gate *gate, struct pry_gate_place *place, pry_time now);

/* Forgets one place that is out of the window: NULL when there is none, and else one that nobody has any more. Call it
 * until NULL before asking pry_gate_due(). */
struct pry_gate_place *pry_gate_expired(struct pry_gate *gate, pry_time now);

/* Forgets the oldest place whatever its age, for the end: NULL when there is none that nobody has. */
struct pry_gate_place *pry_gate_forget(struct pry_gate *gate);

/* Nobody passes before `until`; a pause gets longer, never shorter. The bucket is empty then. */
void pry_gate_pause(struct pry_gate *gate, pry_time until, pry_time now);

/* At most `remaining` more (calls, or tokens: in the unit of the costs) pass before `reset`. Replaces what was said
 * before; what passed and was not sent is still to come and comes off. */
void pry_gate_allow(struct pry_gate *gate, double remaining, pry_time reset, pry_time now);

/* Tokens that were used beyond (or, negative, below) what somebody paid. Off the bucket and the allowance. */
void pry_gate_spend(struct pry_gate *gate, double tokens, pry_time now);

/* Tokens there are for the next; with a window instead, its free places; HUGE_VAL without either. */
double pry_gate_available(struct pry_gate *gate, pry_time now);

/* Nothing is remembered: as good as a new one. Forget what expired before. */
bool pry_gate_is_idle(struct pry_gate *gate, pry_time now);

#endif
