#include "credential_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- waiters --------------------------------------------------------------------------------------------- */

static void leave_line(struct pry_token_waiter *waiter)
{
  pry_list_remove(&waiter->link);
  waiter->credential->waiting--;
  waiter->credential = NULL;
}

/* Between the message's leaving the mailbox and the lock a reload may have moved the waiter to another line, where it is
 * told nothing yet, or something else, and for that the message is in the mailbox again. */
static void deliver(struct pry_message *message)
{
  struct pry_token_waiter *waiter = PRY_CONTAINER_OF(message, struct pry_token_waiter, message);
  struct pry_credentials *credentials = waiter->credentials;
  pthread_mutex_lock(&credentials->lock);
  bool told = waiter->told;
  if (told) {
    pry_mailbox_withdraw(waiter->mailbox, message);
    leave_line(waiter);
  }
  pthread_mutex_unlock(&credentials->lock);
  if (!told)
    return;
  waiter->credentials = NULL;
  char why[PRY_CREDENTIAL_ERROR_MAX]; /* the waiter may be used again before it was read */
  memcpy(why, waiter->why, sizeof why);
  waiter->ready(waiter, waiter->renewed, why, waiter->user);
}

void pry_credential_tell(struct pry_credential *credential, bool renewed, const char *why)
{
  for (struct pry_list *link = credential->waiters.next; link != &credential->waiters; link = link->next) {
    struct pry_token_waiter *waiter = PRY_CONTAINER_OF(link, struct pry_token_waiter, link);
    waiter->told = true;
    waiter->renewed = renewed;
    snprintf(waiter->why, sizeof waiter->why, "%s", why);
    pry_mailbox_post(waiter->mailbox, &waiter->message);
  }
}

void pry_token_leave(struct pry_token_waiter *waiter)
{
  struct pry_credentials *credentials = waiter->credentials;
  if (!credentials)
    return;
  pthread_mutex_lock(&credentials->lock);
  pry_mailbox_withdraw(waiter->mailbox, &waiter->message);
  leave_line(waiter);
  pthread_mutex_unlock(&credentials->lock);
  waiter->credentials = NULL;
}

void pry_credential_join(struct pry_credential *credential, struct pry_token_waiter *waiter)
{
  waiter->credential = credential;
  waiter->told = false;
  pry_list_push(&credential->waiters, &waiter->link);
  credential->waiting++;
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

bool pry_credential_usable(const struct pry_credential *credential, pry_time now)
{
  return credential->token.size && !credential->rejected && now < credential->expires;
}

/* Why no renewal can be had now; NULL: one runs, or may begin. */
static const char *obstacle(const struct pry_credential *credential, pry_time now)
{
  if (credential->running)
    return NULL;
  if (credential->cannot_renew)
    return credential->cannot_renew;
  return credential->failed && now < credential->cooldown_end ? credential->last_error : NULL;
}

static enum pry_token_status wait_for_renewal(struct pry_credential *credential, struct pry_token_waiter *waiter,
                                              pry_time now, const char **why)
{
  const char *reason = obstacle(credential, now);
  if (reason) { /* copied: it may be another by the time it is read */
    snprintf(waiter->why, sizeof waiter->why, "%s", reason);
    *why = waiter->why;
    return PRY_TOKEN_FAILED;
  }
  waiter->credentials = credential->owner;
  pry_credential_join(credential, waiter);
  if (!credential->running)
    pry_credential_begin(credential);
  return PRY_TOKEN_WAITING;
}

static void init_waiter(struct pry_token_waiter *waiter, struct pry_mailbox *mailbox,
                        void (*ready)(struct pry_token_waiter *, bool, const char *, void *), void *user)
{
  *waiter = (struct pry_token_waiter){.message.deliver = deliver, .mailbox = mailbox, .ready = ready, .user = user};
  pry_list_init(&waiter->link);
}

/* READY without room for the token gives the room that is missing; nothing is allocated with the lock held. */
static enum pry_token_status try_token(struct pry_credentials *credentials, const char *name, struct pry_buffer *token,
                                       uint64_t *version, struct pry_token_waiter *waiter, pry_time now,
                                       const char **why, size_t *missing)
{
  enum pry_token_status status = PRY_TOKEN_FAILED;
  pthread_mutex_lock(&credentials->lock);
  struct pry_credential *credential = pry_credential_find(credentials, name);
  if (!credential) {
    *why = "no such credential";
  } else if (!pry_credential_usable(credential, now)) {
    status = wait_for_renewal(credential, waiter, now, why);
  } else {
    status = PRY_TOKEN_READY;
    *version = credential->version;
    bool room = token->capacity - token->size > credential->token.size; /* a buffer keeps one byte more */
    if (!room || !pry_buffer_append_slice(token, pry_buffer_slice(&credential->token)))
      *missing = credential->token.size;
  }
  pthread_mutex_unlock(&credentials->lock);
  return status;
}

enum pry_token_status
pry_credential_token(struct pry_credentials *credentials, struct pry_mailbox *mailbox, const char *name,
                     struct pry_buffer *token, uint64_t *version, struct pry_token_waiter *waiter,
                     void (*ready)(struct pry_token_waiter *, bool renewed, const char *why, void *), void *user,
                     const char **why)
{
  init_waiter(waiter, mailbox, ready, user);
  *version = 0;
  *why = "";
  pry_time now = pry_loop_now(pry_mailbox_loop(mailbox));
  for (;;) {
    size_t missing = 0;
    enum pry_token_status status = try_token(credentials, name, token, version, waiter, now, why, &missing);
    if (!missing)
      return status;
    if (!pry_buffer_reserve(token, missing)) {
      *why = "out of memory";
      return PRY_TOKEN_FAILED;
    }
  }
}

enum pry_token_status pry_credential_renew(struct pry_credentials *credentials, struct pry_mailbox *mailbox,
                                           const char *name, uint64_t bad_version, struct pry_token_waiter *waiter,
                                           void (*ready)(struct pry_token_waiter *, bool renewed, const char *why,
                                                         void *),
                                           void *user, const char **why)
{
  init_waiter(waiter, mailbox, ready, user);
  *why = "";
  pry_time now = pry_loop_now(pry_mailbox_loop(mailbox));
  enum pry_token_status status = PRY_TOKEN_FAILED;
  pthread_mutex_lock(&credentials->lock);
  struct pry_credential *credential = pry_credential_find(credentials, name);
  if (!credential) {
    *why = "no such credential";
  } else if (credential->version != bad_version && pry_credential_usable(credential, now)) {
    status = PRY_TOKEN_READY;
  } else {
    status = wait_for_renewal(credential, waiter, now, why);
    if (status == PRY_TOKEN_WAITING && credential->version == bad_version)
      credential->rejected = true;
  }
  pthread_mutex_unlock(&credentials->lock);
  return status;
}

/* ---- the credentials ------------------------------------------------------------------------------------- */

struct pry_credentials *pry_credentials_new(const struct pry_credentials_environment *environment)
{
  struct pry_credentials *credentials = calloc(1, sizeof *credentials);
  if (!credentials)
    return NULL;
  credentials->environment = *environment;
  pthread_mutex_init(&credentials->lock, NULL); /* cannot fail without attributes on Linux */
  pry_list_init(&credentials->list);
  pry_list_init(&credentials->forgotten.waiters);
  return credentials;
}

void pry_credentials_free(struct pry_credentials *credentials)
{
  if (!credentials)
    return;
  while (!pry_list_empty(&credentials->list)) {
    struct pry_credential *credential = PRY_CONTAINER_OF(credentials->list.next, struct pry_credential, link);
    pry_list_remove(&credential->link);
    pry_credential_free(credential);
  }
  pthread_mutex_destroy(&credentials->lock);
  free(credentials);
}

/* ---- status ---------------------------------------------------------------------------------------------- */

static const char *state_name(const struct pry_credential *credential, pry_time now)
{
  if (credential->running)
    return "renewing";
  if (credential->failed)
    return "failed";
  return pry_credential_usable(credential, now) ? "valid" : "absent";
}

struct seen_credential {
  struct pry_credential_status status;
  char last_error[PRY_CREDENTIAL_ERROR_MAX];
  size_t name_size; /* NUL included; the name follows */
};

static void copy_credential(struct pry_buffer *copies, const struct pry_credential *credential, pry_time now)
{
  struct seen_credential seen = {.name_size = strlen(credential->name) + 1,
                                 .status = {.state = state_name(credential, now),
                                            .expires_at = credential->expires_at,
                                            .version = credential->version,
                                            .renewals = credential->renewals,
                                            .failures = credential->failures,
                                            .waiting = credential->waiting}};
  memcpy(seen.last_error, credential->last_error, sizeof seen.last_error);
  if (!pry_buffer_reserve(copies, sizeof seen + seen.name_size))
    return;
  pry_buffer_append(copies, &seen, sizeof seen);
  pry_buffer_append(copies, credential->name, seen.name_size);
}

void pry_credentials_each(struct pry_credentials *credentials, const struct pry_loop *loop,
                          void (*visit)(void *user, const struct pry_credential_status *), void *user)
{
  struct pry_buffer copies;
  pry_buffer_init(&copies, 0);
  pry_time now = pry_loop_clock(loop);
  pthread_mutex_lock(&credentials->lock);
  for (struct pry_list *link = credentials->list.next; link != &credentials->list; link = link->next)
    copy_credential(&copies, PRY_CONTAINER_OF(link, struct pry_credential, link), now);
  pthread_mutex_unlock(&credentials->lock);
  for (size_t at = 0; at < copies.size;) {
    struct seen_credential seen;
    memcpy(&seen, copies.data + at, sizeof seen);
    seen.status.name = copies.data + at + sizeof seen;
    seen.status.last_error = seen.last_error;
    visit(user, &seen.status);
    at += sizeof seen + seen.name_size;
  }
  pry_buffer_fini(&copies);
}
