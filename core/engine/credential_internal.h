/*
 * credential_internal.h: what credential.c, credential_job.c and credential_adopt.c share; nobody else includes it.
 *
 *   credential.c         who asks for a token, who waits for one
 *   credential_job.c     one renewal from its beginning to its end, and when the next is due
 *   credential_adopt.c   a generation's list taken over
 *
 * Each field belongs either to the lock (all workers; the control worker, too, takes it to write) or to the control
 * worker alone. Functions say "locked" when the caller holds the lock; all others are called without it.
 */
#ifndef PRY_CREDENTIAL_INTERNAL_H
#define PRY_CREDENTIAL_INTERNAL_H

#include "credential.h"
#include "list.h"

#include <pthread.h>

struct pry_credential {
  struct pry_credentials *owner;
  char *name; /* constant */
  /* the lock's */
  struct pry_list link;
  const char *cannot_renew; /* why not, a constant; NULL: it can */
  struct pry_buffer token;
  uint64_t version;  /* of the token; 0: none yet */
  pry_time expires;  /* NEVER: not known */
  double expires_at; /* the same in Unix seconds, 0: not known */
  bool rejected;     /* a provider refused this version */
  bool failed;       /* the last renewal did */
  pry_time cooldown_end;
  struct pry_list waiters; /* told ones, too, until they hear */
  size_t waiting;
  bool running; /* from the decision to renew until its end */
  uint64_t renewals, failures;
  char last_error[PRY_CREDENTIAL_ERROR_MAX];
  struct pry_message begin; /* to the control worker; posted with the lock held */
  /* the control worker's */
  struct pry_buffer refresh_secret, access_secret; /* as configured: how a change is noticed */
  struct pry_buffer refresh_token;                 /* live */
  struct pry_buffer previous_token;                /* still scrubbed: late answers may quote it */
  struct pry_timer renew_timer;                    /* both run all the time, parked when there is nothing to do */
  struct pry_timer limit_timer;                    /* of a job */
  bool asking;                                     /* the state has the ask */
  struct pry_state *state;                         /* the job's own reference */
  struct pry_ask ask;
  struct pry_renewal renewal;
};

struct pry_credentials {
  struct pry_credentials_environment environment;
  pthread_mutex_t lock;
  struct pry_list list;            /* the lock's; changed by the control worker only, which may walk it without */
  struct pry_credential forgotten; /* nobody's: holds told waiters whose credential has gone, until they hear */
  uint64_t last_version;           /* the control worker's; never used twice, also when a credential comes back */
};

/* ---- secrets in memory: copies that the scrubber knows and that are wiped -------------------------------- */

void pry_secret_wipe(struct pry_buffer *secret);
void pry_secret_drop(struct pry_credentials *credentials, struct pry_buffer *secret);

/* Keeps a copy in place of what was kept. False: memory; `kept` is as before. */
bool pry_secret_keep(struct pry_credentials *credentials, struct pry_buffer *kept, struct pry_slice value);

/* ---- credential.c ------------------------------------------------------------------------------------------ */

/* Locked, or on the control worker. */
struct pry_credential *pry_credential_find(const struct pry_credentials *credentials, const char *name);

/* Locked. It has a token that nobody refused and that has not expired. */
bool pry_credential_usable(const struct pry_credential *credential, pry_time now);

/* Locked. Adds a waiter that is on no list. */
void pry_credential_join(struct pry_credential *credential, struct pry_token_waiter *waiter);

/* Locked. All waiters hear this from their loops; told again before they heard, only the last counts. */
void pry_credential_tell(struct pry_credential *credential, bool renewed, const char *why);

/* ---- credential_job.c -------------------------------------------------------------------------------------- */

/* The `deliver` of a credential's `begin`. */
void pry_credential_start_job(struct pry_message *message);

/* Starts both timers, parked. False: memory. */
bool pry_credential_start_timers(struct pry_credential *credential);

/* Locked. Decides to renew: the job starts from the control worker's loop. */
void pry_credential_begin(struct pry_credential *credential);

/* Ends a running ask without an answer and gives its state back. */
void pry_credential_cancel(struct pry_credential *credential);

/* ---- credential_adopt.c ------------------------------------------------------------------------------------ */

/* NULL is fine. It is on no list, and its waiters are somewhere else by now. */
void pry_credential_free(struct pry_credential *credential);

#endif
