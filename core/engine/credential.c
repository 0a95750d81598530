#include "credential_internal.h"

#include <stdlib.h>

pry_time pry_credential_now(const struct pry_credential *credential)
{
  return pry_loop_now(credential->owner->environment.loop);
}

/* ---- waiters --------------------------------------------------------------------------------------------- */

static void deliver(void *user)
{
  struct pry_token_waiter *waiter = user;
  bool renewed = waiter->renewed;
  const char *why = waiter->why;
  pry_token_leave(waiter);
  waiter->ready(waiter, renewed, why, waiter->user);
}

void pry_credential_tell(struct pry_credential *credential, bool renewed, const char *why)
{
  for (struct pry_list *link = credential->waiters.next; link != &credential->waiters; link = link->next) {
    struct pry_token_waiter *waiter = PRY_CONTAINER_OF(link, struct pry_token_waiter, link);
    waiter->renewed = renewed;
    waiter->why = why;
    pry_timer_start(waiter->timer.loop, &waiter->timer, 0, deliver, waiter); /* runs already, parked: cannot fail */
  }
}

void pry_token_leave(struct pry_token_waiter *waiter)
{
  if (!waiter->credential)
    return;
  pry_timer_cancel(&waiter->timer);
  pry_list_remove(&waiter->link);
  waiter->credential->waiting--;
  waiter->credential = NULL;
}

void pry_credential_join(struct pry_credential *credential, struct pry_token_waiter *waiter)
{
  waiter->credential = credential;
  pry_list_push(&credential->waiters, &waiter->link);
  credential->waiting++;
}

void pry_credential_untell(struct pry_token_waiter *waiter)
{
  pry_timer_start(waiter->timer.loop, &waiter->timer, PRY_TIME_NEVER, deliver, waiter);
}

/* ---- asking for a token ---------------------------------------------------------------------------------- */

struct pry_credential *pry_credential_find(const struct pry_credentials *credentials, const char *name)
{
  for (struct pry_list *link = credentials->list.next; link != &credentials->list; link = link->next) {
    struct pry_credential *credential = PRY_CONTAINER_OF(link, struct pry_credential, link);
    if (strcmp(credential->name, name) == 0)
      return credential;
  }
  return NULL;
}

bool pry_credential_usable(const struct pry_credential *credential)
{
  return credential->token.size && !credential->rejected && pry_credential_now(credential) < credential->expires;
}

static bool in_cooldown(const struct pry_credential *credential)
{
  return credential->failed && pry_credential_now(credential) < credential->cooldown_end;
}

/* Why no renewal can be had now; NULL: one runs, or may begin. */
static const char *obstacle(const struct pry_credential *credential)
{
  if (credential->running)
    return NULL;
  if (credential->cannot_renew)
    return credential->cannot_renew;
  return in_cooldown(credential) ? credential->last_error : NULL;
}

static enum pry_token_status give(const struct pry_credential *credential, struct pry_buffer *token, uint64_t *version,
                                  const char **why)
{
  if (!pry_buffer_append_slice(token, pry_buffer_slice(&credential->token))) {
    *why = "out of memory";
    return PRY_TOKEN_FAILED;
  }
  *version = credential->version;
  return PRY_TOKEN_READY;
}

static enum pry_token_status wait_for_renewal(struct pry_credential *credential, struct pry_token_waiter *waiter,
                                              const char **why)
{
  *why = obstacle(credential);
  if (*why)
    return PRY_TOKEN_FAILED;
  /* Parked now, so that it has its place in the loop's heap when there is something to tell. */
  if (!pry_timer_start(credential->owner->environment.loop, &waiter->timer, PRY_TIME_NEVER, deliver, waiter)) {
    *why = "out of memory";
    return PRY_TOKEN_FAILED;
  }
  pry_credential_join(credential, waiter);
  if (!credential->running)
    pry_credential_begin(credential);
  return PRY_TOKEN_WAITING;
}

static void init_waiter(struct pry_token_waiter *waiter,
                        void (*ready)(struct pry_token_waiter *, bool, const char *, void *), void *user)
{
  *waiter = (struct pry_token_waiter){.ready = ready, .user = user};
  pry_list_init(&waiter->link);
}

enum pry_token_status pry_credential_token(struct pry_credentials *credentials, const char *name,
                                           struct pry_buffer *token, uint64_t *version, struct pry_token_waiter *waiter,
                                           void (*ready)(struct pry_token_waiter *, bool renewed, const char *why,
                                                         void *),
                                           void *user, const char **why)
{
  init_waiter(waiter, ready, user);
  *version = 0;
  *why = "no such credential";
  struct pry_credential *credential = pry_credential_find(credentials, name);
  if (!credential)
    return PRY_TOKEN_FAILED;
  *why = "";
  return pry_credential_usable(credential) ? give(credential, token, version, why)
                                           : wait_for_renewal(credential, waiter, why);
}

enum pry_token_status pry_credential_renew(
    struct pry_credentials *credentials, const char *name, uint64_t bad_version, struct pry_token_waiter *waiter,
    void (*ready)(struct pry_token_waiter *, bool renewed, const char *why, void *), void *user, const char **why)
{
  init_waiter(waiter, ready, user);
  *why = "no such credential";
  struct pry_credential *credential = pry_credential_find(credentials, name);
  if (!credential)
    return PRY_TOKEN_FAILED;
  *why = "";
  if (credential->version != bad_version && pry_credential_usable(credential))
    return PRY_TOKEN_READY;
  enum pry_token_status status = wait_for_renewal(credential, waiter, why);
  if (status == PRY_TOKEN_WAITING && credential->version == bad_version)
    credential->rejected = true;
  return status;
}

/* ---- the credentials ------------------------------------------------------------------------------------- */

struct pry_credentials *pry_credentials_new(const struct pry_credentials_environment *environment)
{
  struct pry_credentials *credentials = calloc(1, sizeof *credentials);
  if (!credentials)
    return NULL;
  credentials->environment = *environment;
  pry_list_init(&credentials->list);
  pry_list_init(&credentials->forgotten.waiters);
  return credentials;
}

void pry_credentials_free(struct pry_credentials *credentials)
{
  if (!credentials)
    return;
  while (!pry_list_empty(&credentials->list))
    pry_credential_free(PRY_CONTAINER_OF(credentials->list.next, struct pry_credential, link));
  free(credentials);
}

static const char *state_name(const struct pry_credential *credential)
{
  if (credential->running)
    return "renewing";
  if (credential->failed)
    return "failed";
  return pry_credential_usable(credential) ? "valid" : "absent";
}

void pry_credentials_each(struct pry_credentials *credentials,
                          void (*visit)(void *user, const struct pry_credential_status *), void *user)
{
  for (struct pry_list *link = credentials->list.next; link != &credentials->list; link = link->next) {
    const struct pry_credential *credential = PRY_CONTAINER_OF(link, struct pry_credential, link);
    const struct pry_credential_status status = {.name = credential->name,
                                                 .state = state_name(credential),
                                                 .expires_at = credential->expires_at,
                                                 .version = credential->version,
                                                 .renewals = credential->renewals,
                                                 .failures = credential->failures,
                                                 .waiting = credential->waiting,
                                                 .last_error = credential->last_error};
    visit(user, &status);
  }
}
