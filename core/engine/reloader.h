/*
 * reloader.h: saved policies, taken over or refused, while calls go on.
 *
 * Looks at the folder when the watcher saw something (after 100 ms of quiet, so that a save of several files is one),
 * every 10 seconds in any case, and when asked (SIGHUP, `parry reload`). A look reads the whole set once and compares
 * its content hash: with the serving generation's (nothing to do) and with that of the last refused set, which is not
 * tried again until its bytes change, except when somebody asks. Anything new is staged (compiled, checked, its own
 * tests run) on a thread of its own, so that no call waits for it, and committed on the loop. A set seen for the first
 * time by the poll alone must be found unchanged once more: nobody told us that its writer was finished.
 *
 * One look at a time. A change while one runs makes its result worthless: it is thrown away and the next look begins,
 * but not forever; a folder that never comes to rest is taken as it is.
 *
 * What was refused is logged with each finding as file:line: text, kept for status, and changes nothing else. A set without
 * any route is refused while one with routes serves: it would answer every call with 404.
 *
 * A commit is told when all workers have adopted it, or after two seconds; then a warning names each worker that has not,
 * and the place in the policies where it is.
 *
 * What was rolled back is in quarantine: it is not tried again until its bytes change. Only a person who asks for it gets
 * back a set that a person had rolled back.
 *
 * Thread: the control worker's.
 */
#ifndef PRY_RELOADER_H
#define PRY_RELOADER_H

#include "engine.h"

struct pry_reloader;

enum pry_reload_result { PRY_RELOAD_TAKEN_OVER, PRY_RELOAD_UNCHANGED, PRY_RELOAD_REFUSED };

enum { PRY_RELOAD_HELD_MAX = 16 };

/* A set that was rolled back. */
struct pry_reload_held {
  char id[PRY_GENERATION_ID_MAX];
  bool by_hand;  /* a person did it */
  char why[512]; /* one line for people, e.g. "rolled back at …: 31 faults in 40 runs, …; change a file …" */
};

/* "taken over", "unchanged", "refused" */
const char *pry_reload_result_name(enum pry_reload_result result);

/* How a look ended. */
struct pry_reload_outcome {
  enum pry_reload_result result;
  const char *id;                  /* of the set that was looked at; "" when it could not be read */
  const struct pry_report *report; /* findings; warnings also when it was taken over */
  double at;                       /* Unix seconds */
  double seconds;                  /* reading, checking, testing, warming and taking over took */
  unsigned behind;                 /* workers that had not adopted it when this was told */
};

struct pry_reloader_options {
  struct pry_engine *engine; /* borrowed */
  const char *folder;        /* copied */
  const char *init;          /* or, with `folder` NULL, the text of an init.lua; borrowed */
  const char *shipped;       /* for what the folder lacks (shipped.h); NULL: nothing; copied */
  bool watch;                /* look by itself; otherwise only when asked */
  bool refused_at_start;     /* what serves is not what the folder held: finding that again is news */
  pry_time debounce;         /* 0: 100 ms */
  pry_time poll;             /* 0: 10 s */
  void (*asked)(void *user); /* told of each request of a person, before its look; may be NULL */
  /* Asked before a staged generation serves; false: it is refused, and `report` says why. May be NULL. */
  bool (*accept)(void *user, const struct pry_generation *generation, struct pry_report *report);
  /* Told of each look that took over or refused a set, or found the folder back at what serves. May be NULL. */
  void (*ended)(void *user, const struct pry_reload_outcome *outcome);
  void *user;
};

/* The engine serves a generation already. NULL: no memory or descriptors. A watcher that cannot be made is a warning in
 * the log: the poll remains. */
struct pry_reloader *pry_reloader_new(const struct pry_reloader_options *options);

/* Waits for a look that is under way, which runs no further test, then frees. Waiters must have left. NULL is fine. */
void pry_reloader_free(struct pry_reloader *reloader);

/* Embedded in who asks; leave before its memory goes. */
struct pry_reload_waiter {
  struct pry_list link;
  void (*done)(void *user, const struct pry_reload_outcome *outcome);
  void *user;
  bool started; /* the reloader's: its look has begun */
};

/* Looks now. `waiter` (may be NULL) hears of a look that began after this call, from the loop. */
void pry_reloader_request(struct pry_reloader *reloader, struct pry_reload_waiter *waiter,
                          void (*done)(void *user, const struct pry_reload_outcome *outcome), void *user);

void pry_reload_leave(struct pry_reload_waiter *waiter);

/* The last look that took over or refused something; NULL before the first. Valid until the next turn of the loop. */
const struct pry_reload_outcome *pry_reloader_last(const struct pry_reloader *reloader);

/* Keeps that set out, see above; the oldest of more than PRY_RELOAD_HELD_MAX is let in again. */
void pry_reloader_hold(struct pry_reloader *reloader, const struct pry_reload_held *held);

/* Keeps it out no longer. */
void pry_reloader_let_in(struct pry_reloader *reloader, const char *id);

/* True while a look is under way or due. */
bool pry_reloader_busy(const struct pry_reloader *reloader);

/* Reads a folder (or, NULL, the text `init`) into `report`'s words: NULL with an error in the report when it cannot be
 * read. Any thread. */
struct pry_policy_set *pry_reload_read(const char *folder, const char *init, const char *shipped,
                                       struct pry_report *report);

#endif
