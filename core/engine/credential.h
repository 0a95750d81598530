/*
 * credential.h: tokens that expire, and renewing them once however many calls wait.
 *
 * One object per credential name, engine-wide; it survives reloads (a generation only says how to renew).
 *
 * States:
 *   ABSENT    no token yet: the first use starts a renewal and waits
 *   VALID     a token and, when known, its expiry; renewed in the background 60 s before that
 *   RENEWING  one job runs; whoever needs the new token waits in line (with the old one still valid nobody waits)
 *   FAILED    the last renewal failed: until the cooldown (30 s) has passed nobody starts another, and waiters are told
 *             at once; then one more try
 *
 * Every token has a version. A failed call says which version it used: when that is not the current one, another
 * renewal has already happened and the call just goes on with the new token (a late 401 for the old token renews
 * nothing). The job belongs to the engine, not to the call that started it: it goes on when that call dies. A job that
 * gives no answer within 30 s is cancelled and counts as failed. Jobs begin, and waiters hear, from a loop, never
 * from inside a call of these functions.
 *
 * A token that was reported bad is given to nobody while its renewal runs. When that renewal fails and the token has
 * not expired, it is given out again: a 401 may have been about something else, and the provider's answer says more
 * than ours.
 *
 * A rotated refresh token is persisted (--state, mode 0600, written and renamed) before the new access token is used.
 * When persisting fails the token is used all the same and the failure is logged as an error (credential_file.h).
 *
 * Lifetimes: a token is used for at least 5 s, and renewed in the background no sooner than 30 s after it came,
 * whatever its expiry says, so that a token service with a wrong clock is not hammered. One that lives less than two
 * minutes is renewed at half of its life. Without an expiry only a failed call renews it.
 *
 * Thread: tokens are asked for on any worker. One worker, the control worker, runs the jobs, their timers and the file:
 * whoever finds no token posts a message there, and when the job ends each waiter gets a message in the mailbox it came
 * with. What workers share is behind one lock, held for a copy of a token or a few list operations; never while a script
 * runs, a callback is called, a line is logged or a file is written. What a waiter is told is its own copy.
 */
#ifndef PRY_CREDENTIAL_H
#define PRY_CREDENTIAL_H

#include "config.h"
#include "log.h"
#include "mailbox.h"
#include "metrics.h"
#include "policy.h"

enum { PRY_CREDENTIAL_ERROR_MAX = 256 };

struct pry_credentials;

/* What the engine lends. All outlive the credentials. The callbacks are called on the control worker, no lock held. */
struct pry_credentials_environment {
  struct pry_loop *loop;       /* the control worker's */
  struct pry_mailbox *mailbox; /* of that loop */
  struct pry_log *log;
  struct pry_metrics *metrics;
  struct pry_scrubber *scrubber;
  const char *state_dir; /* NULL: refresh tokens are not persisted */
  /* The control worker's serving state, referenced for the caller; NULL when none serves. */
  struct pry_state *(*current_state)(void *user);
  /* A renewal failed: for alerts. */
  void (*failed)(void *user, const char *credential, const char *why);
  /* One worked after one that had failed: what was told is over. */
  void (*recovered)(void *user, const char *credential);
  void *user;
};

struct pry_credentials *pry_credentials_new(const struct pry_credentials_environment *environment);

/* Cancels jobs; waiters must have left. On the control worker, or when the workers have ended. */
void pry_credentials_free(struct pry_credentials *credentials);

/* Takes over a generation's list: new ones appear, changed ones keep their token unless their secrets changed, those no
 * longer declared are forgotten and their waiters told. A running job goes on with the state it began with, except
 * where secrets changed: then its waiters wait for the new one's. A cooldown ends: what was edited may be the cure.
 * To the other workers it happens at once: no asker meets a half of it. On the control worker. False: memory; nothing
 * has changed. */
bool pry_credentials_adopt(struct pry_credentials *credentials, const struct pry_config *config);

enum pry_token_status {
  PRY_TOKEN_READY,   /* token and version are set */
  PRY_TOKEN_WAITING, /* the waiter is told later */
  PRY_TOKEN_FAILED   /* cannot be had now (cooldown, no refresh token, no memory) */
};

/* Embedded in the asker; leave before its memory goes. */
struct pry_token_waiter {
  struct pry_list link;
  struct pry_message message; /* tells */
  struct pry_mailbox *mailbox;
  void (*ready)(struct pry_token_waiter *waiter, bool renewed, const char *why, void *user);
  void *user;
  struct pry_credentials *credentials; /* NULL while not waiting */
  struct pry_credential *credential;   /* whose line it is in; another after a reload that changed the secrets */
  bool told, renewed;
  char why[PRY_CREDENTIAL_ERROR_MAX];
};

/* The current token, appended to `token` (to be wiped by the caller). WAITING: no token that still works; a renewal
 * runs, and `ready` comes on the mailbox's thread, unless the waiter leaves first; its `why` is valid until it returns.
 * FAILED: `why` is a constant or in the waiter, valid until that is used again. The clock is the mailbox's loop's. On the
 * mailbox's thread. */
enum pry_token_status
pry_credential_token(struct pry_credentials *credentials, struct pry_mailbox *mailbox, const char *name,
                     struct pry_buffer *token, uint64_t *version, struct pry_token_waiter *waiter,
                     void (*ready)(struct pry_token_waiter *, bool renewed, const char *why, void *), void *user,
                     const char **why);

/* "The token of this version did not work": READY when a newer one is already there, WAITING while one is being
 * fetched, FAILED in cooldown. Otherwise as above. */
enum pry_token_status pry_credential_renew(struct pry_credentials *credentials, struct pry_mailbox *mailbox,
                                           const char *name, uint64_t bad_version, struct pry_token_waiter *waiter,
                                           void (*ready)(struct pry_token_waiter *, bool renewed, const char *why,
                                                         void *),
                                           void *user, const char **why);

/* Safe when not waiting. On the mailbox's thread, or when that has ended. */
void pry_token_leave(struct pry_token_waiter *waiter);

/* For status: never the token. */
struct pry_credential_status {
  const char *name;
  const char *state; /* "absent", "valid", "renewing", "failed" */
  double expires_at; /* Unix seconds; 0: unknown */
  uint64_t version, renewals, failures;
  size_t waiting;
  const char *last_error; /* "" */
};

/* All as they are at one moment, in order of appearance; what memory does not suffice for is left out. `loop` is the
 * caller's, for the time. Any thread; `visit` may ask about credentials itself. */
void pry_credentials_each(struct pry_credentials *credentials, const struct pry_loop *loop,
                          void (*visit)(void *user, const struct pry_credential_status *), void *user);

#endif
