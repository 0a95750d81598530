/*
 * parry_call_internal.h: a call of a host's, shared by the files that make parry.h's calls:
 *
 *   parry_call.c         life, what the host is told
 *   parry_call_worker.c  what its worker does and the call says
 *   parry_attempt.c      attempts that the host makes
 *
 * A call has one attempt at a time. The worker asks for it, the dispatching thread tells the host, the host says from
 * anywhere how it ended, and the worker takes that. What the worker wants no more is never told to a host that has not heard
 * of it, and is abandoned otherwise; what a host says about it afterwards is refused (PARRY_ENOENT) or, when both happen at
 * once, ignored.
 */
#ifndef PRY_PARRY_CALL_INTERNAL_H
#define PRY_PARRY_CALL_INTERNAL_H

#include "parry_internal.h"

/* The attempt of a call that its host makes. Under the call's lock. */
struct pry_host_attempts {
  struct pry_asked_attempt *asked; /* to be told by on_attempt; NULL: none */
  unsigned open;                   /* the host is at it, and may say how it ended; 0: none */
  unsigned abandoned;              /* to be told by on_abandon; 0: none */
  struct pry_told_end *end;        /* what the host said, for the worker; NULL: nothing */
};

/* What the worker is to do, bits. */
enum { PRY_ORDER_START = 1, PRY_ORDER_CANCEL = 2, PRY_ORDER_RESUME = 4, PRY_ORDER_ENDED = 8 };

/* What on_done is told, with the texts it points to. */
struct pry_last_words {
  struct parry_outcome outcome;
  char code[PRY_FAILURE_CODE_MAX];
  char message[PRY_FAILURE_MESSAGE_MAX];
  char why[PRY_WHY_MAX];
  char target[PRY_TARGET_MAX];
  char call_id[PRY_CALL_ID_MAX];
  char generation[PRY_GENERATION_ID_MAX];
};

/*
 * Made by parry_call(), then shared by two threads: the worker that has the call fills what is to be told, the host's
 * dispatching thread tells it. Three hold it: the worker until the sink's `done`, the host's side until on_done, and the
 * order that is on its way.
 */
struct pry_host_call {
  struct pry_list link; /* calls->all; under its lock */
  atomic_uint holders;
  struct pry_host *host;
  struct pry_worker *worker;
  parry_call_id id;
  struct parry_call_ops ops;
  void *user;

  /* the worker's */
  struct pry_call *call; /* NULL: not begun, or over */
  bool no_memory;        /* why it was cancelled */
  /* the request, until it begins */
  struct pry_buffer text, body;
  struct pry_slice method, path, query, target;
  struct pry_headers headers;

  struct pry_message ordered; /* to the worker */
  struct pry_message due;     /* to the host: something is to be told */
  pthread_mutex_t lock;
  /* under it */
  unsigned orders;
  bool cancelled; /* nothing but on_done any more */
  bool paused;    /* by the host */
  bool resumed;   /* since on_data was called last: the pause that it asks for is over already */
  bool held;      /* the worker's call waits until there is room */
  /* what is to be told, in this order */
  bool has_head, has_done;
  int status;
  struct parry_header *head;
  size_t head_count;
  struct pry_buffer data;
  struct pry_host_attempts attempts;
  struct pry_last_words last; /* its room is made with the call: an end is always told */

  struct pry_buffer spare; /* the dispatching thread's: what it gives out while `data` fills again */
};

/* ---- parry_call.c ---- */

/* The call with its lock held, or NULL. The lock keeps it from ending. */
struct pry_host_call *pry_host_call_find(struct pry_host *host, parry_call_id id);

/* With the call's lock held: something for its worker to do; something to be told to the host. */
void pry_host_call_order(struct pry_host_call *call, unsigned order);
void pry_host_call_tell(struct pry_host_call *call);

/* One of those who hold the call is done with it. */
void pry_host_call_let_go(struct pry_host_call *call);

/* ---- parry_call_worker.c ---- */

/* Starts the call; one that is cancelled, or finds no memory, ends at once. */
void pry_host_call_begin(struct pry_host_call *call, bool cancelled);

/* Does what was ordered: how `ordered` is delivered. */
void pry_host_call_take_orders(struct pry_message *ordered);

/* ---- parry_attempt.c ---- */

/* How the worker asks for attempts; the user is a struct pry_host_call. */
extern const struct pry_host_ops pry_host_attempt_ops;

/* What the host said about an attempt, taken from the call under its lock: for the call, on the worker's thread. */
void pry_told_end_apply(const struct pry_told_end *told, struct pry_call *call);
void pry_told_end_free(struct pry_told_end *told); /* NULL is fine */

/* On the dispatching thread, with the call's lock held, which is let go of while the host's callback runs. */
void pry_host_give_attempt(struct pry_host_call *call);
void pry_host_give_abandon(struct pry_host_call *call);

void pry_host_attempts_fini(struct pry_host_attempts *attempts);

#endif
