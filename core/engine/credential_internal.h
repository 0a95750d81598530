/*
 * credential_internal.h: what credential.c, credential_job.c and credential_adopt.c share; nobody else includes it.
 *
 *   credential.c         who asks for a token, who waits for one
 *   credential_job.c     one renewal from its beginning to its end, and when the next is due
 *   credential_adopt.c   a generation's list taken over
 */
#ifndef PRY_CREDENTIAL_INTERNAL_H
#define PRY_CREDENTIAL_INTERNAL_H

#include "credential.h"
#include "list.h"

enum { PRY_CREDENTIAL_ERROR_MAX = 256 };

struct pry_credential {
  struct pry_list link;
  struct pry_credentials *owner;
  char *name;
  struct pry_buffer refresh_secret, access_secret; /* as configured: how a change is noticed */
  const char *cannot_renew;                        /* why not; NULL: it can */
  struct pry_buffer token, refresh_token;          /* live */
  struct pry_buffer previous_token;                /* still scrubbed: late answers may quote it */
  uint64_t version;                                /* of the token; 0: none yet */
  pry_time expires;                                /* NEVER: not known */
  double expires_at;                               /* the same in Unix seconds, 0: not known */
  bool rejected;                                   /* a provider refused this version */
  bool failed;                                     /* the last renewal did */
  pry_time cooldown_end;
  struct pry_list waiters; /* told ones, too, until their timers deliver */
  size_t waiting;
  struct pry_timer renew_timer; /* both run all the time, parked when there is nothing to do */
  struct pry_timer job_timer;   /* begins a job, then limits it */
  bool running;                 /* from the decision to renew until its end */
  bool asking;                  /* the state has the ask */
  struct pry_state *state;      /* the job's own reference */
  struct pry_ask ask;
  struct pry_renewal renewal;
  uint64_t renewals, failures;
  char last_error[PRY_CREDENTIAL_ERROR_MAX];
};

struct pry_credentials {
  struct pry_credentials_environment environment;
  struct pry_list list;
  uint64_t last_version;           /* never used twice, also when a credential goes and comes back */
  struct pry_credential forgotten; /* nobody's: holds told waiters whose credential has gone, until they hear */
};

/* ---- secrets in memory: copies that the scrubber knows and that are wiped -------------------------------- */

void pry_secret_wipe(struct pry_buffer *secret);
void pry_secret_drop(struct pry_credentials *credentials, struct pry_buffer *secret);

/* Keeps a copy in place of what was kept. False: memory; `kept` is as before. */
bool pry_secret_keep(struct pry_credentials *credentials, struct pry_buffer *kept, struct pry_slice value);

/* ---- credential.c ------------------------------------------------------------------------------------------ */

pry_time pry_credential_now(const struct pry_credential *credential);
struct pry_credential *pry_credential_find(const struct pry_credentials *credentials, const char *name);

/* It has a token that nobody refused and that has not expired. */
bool pry_credential_usable(const struct pry_credential *credential);

/* Adds a waiter that is on no list and whose timer runs. */
void pry_credential_join(struct pry_credential *credential, struct pry_token_waiter *waiter);

/* All waiters hear this from the loop; told again before they heard, only the last counts. */
void pry_credential_tell(struct pry_credential *credential, bool renewed, const char *why);

/* Parks a waiter's running timer again: what it was told is no longer so. */
void pry_credential_untell(struct pry_token_waiter *waiter);

/* ---- credential_job.c -------------------------------------------------------------------------------------- */

/* Starts both timers, parked. False: memory. */
bool pry_credential_start_timers(struct pry_credential *credential);

/* Decides to renew: the job starts from the loop. */
void pry_credential_begin(struct pry_credential *credential);

/* Ends a running ask without an answer and gives its state back. */
void pry_credential_cancel(struct pry_credential *credential);

/* A new token under a new version. False: memory; the old one stays. */
bool pry_credential_replace_token(struct pry_credential *credential, struct pry_slice token);

/* ---- credential_adopt.c ------------------------------------------------------------------------------------ */

/* NULL is fine. Its waiters are somewhere else by now. */
void pry_credential_free(struct pry_credential *credential);

#endif
