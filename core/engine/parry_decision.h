/*
 * parry_decision.h: what a host tells of an attempt of its own, as the policies see it; shared by the files that ask them.
 *
 *   parry_event.c     from struct parry_event to a view of a call, and what becomes of it afterwards
 *   parry_decide.c    parry_decide(): the chain's answer
 *   parry_report.c    parry_report(): the chain's observers
 *
 * An asking is one question or one report at work, from entering a decider (decider.h) to its end. It belongs to whoever is
 * inside its decider; once its pass is over and its answer is on the way to the host, to the host's thread. Askings are
 * kept for the next one with all their memory, so a decision allocates nothing but what its handlers need (a body, call.vars,
 * Lua's own).
 */
#ifndef PRY_PARRY_DECISION_H
#define PRY_PARRY_DECISION_H

#include "decider.h"
#include "host_budget.h"
#include "parry_internal.h"

/* What failed, when the host does not say. Policies may rely on call.target, as in calls. */
#define PRY_TARGET_UNKNOWN "unknown"

/* One decider's askings. */
struct pry_desk {
  struct pry_worker *worker;
  uint64_t next;           /* inside: number of the next asking */
  struct pry_list pending; /* inside: those that wait */
  pthread_mutex_t lock;    /* of `free` */
  struct pry_list free;    /* askings without work */
};

struct pry_host_decisions {
  struct pry_host_budget *budget;
  unsigned count;
  struct pry_desk desks[];
};

/* An on_attempt handler would not let the next attempt through. */
struct pry_host_refusal {
  bool refused;
  double after; /* seconds until it may; negative: nobody knows */
  char policy[64], why[PRY_WHY_MAX];
};

struct pry_asking {
  struct pry_list link; /* in desk->pending, or desk->free */
  struct pry_host *host;
  struct pry_desk *desk;
  const struct pry_route *route;
  struct pry_call_view view;
  struct pry_attempt attempt;
  struct pry_failure failure;
  struct pry_headers headers; /* of the answer */
  struct pry_buffer text;     /* copies of an event's texts */
  struct pry_host_event event;
  struct pry_pass pass;
  struct pry_pass guards;  /* on_attempt */
  struct pry_list permits; /* what they gave */
  /* parry_decide()'s own */
  struct pry_host_refusal refusal;
  void (*ready)(void *user, const struct parry_decision *decision);
  void *user;
  struct parry_decision told; /* of one that was pending */
  struct pry_buffer body;     /* told.body */
  struct pry_message delivery;
};

/* Enters a decider that is free, or waits for one. NULL, with *error set: nothing to ask there. */
struct pry_desk *pry_desk_enter(struct pry_host *host, int *error);

/* Inside: an asking about that event, with everything that handlers see filled in. NULL, with *error set: memory, or what is
 * wrong with the event. */
struct pry_asking *pry_asking_new(struct pry_desk *desk, struct pry_host *host, const struct parry_event *event,
                                  int *error);

/* Inside, or when it has nothing of a decider's any more. */
void pry_asking_free(struct pry_asking *asking);

/* Inside: asks who guards attempts (circuit_breaker, health) in on_attempt: is the view's target asked at all? Of their
 * verdicts only refuse{} means something to a host that has no line to stand in; who would wait has nothing to say. What they
 * give is in asking->permits: a report's observers need it, because a breaker counts only who has entered. */
void pry_asking_guards(struct pry_asking *asking, struct pry_host_refusal *refusal);

/* Inside: lets the handlers go on in the background; what they have begun begins when the decider is left. */
void pry_asking_wait(struct pry_asking *asking);

/* Checks what is common to events: pointers, the size of `fields`, the status, a failure's category. ours: filled. */
int pry_event_take(const struct parry_event *event, struct parry_event *ours);

/* The engine ends: gives the answer `cancelled`. For parry_event.c; parry_decide.c knows how. */
void pry_decision_cancel(struct pry_asking *asking);

#endif
