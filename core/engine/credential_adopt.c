/* Taking over a generation's credentials. Declared in credential.h. */
#include "credential_internal.h"

#include "credential_file.h"

#include <stdlib.h>

static struct pry_slice secret_value(const struct pry_secret *secret)
{
  return pry_slice_of(secret ? secret->value : NULL);
}

static const char *why_not_renewable(const struct pry_credential_config *config)
{
  if (config->refresh_token)
    return config->refresh_token->value ? NULL : "the secret of its refresh token is missing";
  return config->grant && strcmp(config->grant, "lua") == 0 ? NULL : "it has no refresh token";
}

void pry_credential_free(struct pry_credential *credential)
{
  if (!credential)
    return;
  struct pry_credentials *owner = credential->owner;
  pry_mailbox_withdraw(owner->environment.mailbox, &credential->begin);
  pry_credential_cancel(credential);
  pry_timer_cancel(&credential->limit_timer);
  pry_timer_cancel(&credential->renew_timer);
  pry_secret_drop(owner, &credential->token);
  pry_secret_drop(owner, &credential->previous_token);
  pry_secret_drop(owner, &credential->refresh_token);
  pry_secret_drop(owner, &credential->refresh_secret);
  pry_secret_drop(owner, &credential->access_secret);
  free(credential->name);
  free(credential);
}

/* The refresh token that descends from the configured secret, or that secret itself. */
static bool load_refresh_token(struct pry_credential *credential)
{
  struct pry_credentials *owner = credential->owner;
  struct pry_buffer persisted;
  pry_buffer_init(&persisted, PRY_TOKEN_MAX);
  const char *why;
  if (owner->environment.state_dir &&
      !pry_credential_file_read(owner->environment.state_dir, credential->name,
                                pry_buffer_slice(&credential->refresh_secret), &persisted, &why))
    pry_log(owner->environment.log, PRY_LOG_ERROR, "persisted refresh token not read",
            pry_log_text("credential", credential->name), pry_log_text("why", why));
  bool ok = pry_secret_keep(owner, &credential->refresh_token,
                            pry_buffer_slice(persisted.size ? &persisted : &credential->refresh_secret));
  pry_secret_wipe(&persisted);
  return ok;
}

static struct pry_credential *new_credential(struct pry_credentials *owner, const struct pry_credential_config *config)
{
  struct pry_credential *credential = calloc(1, sizeof *credential);
  if (!credential)
    return NULL;
  credential->owner = owner;
  credential->begin.deliver = pry_credential_start_job;
  credential->expires = PRY_TIME_NEVER;
  credential->cannot_renew = why_not_renewable(config);
  pry_list_init(&credential->link);
  pry_list_init(&credential->waiters);
  credential->name = strdup(config->name);
  struct pry_slice access = secret_value(config->access_token);
  if (credential->name && pry_secret_keep(owner, &credential->refresh_secret, secret_value(config->refresh_token)) &&
      pry_secret_keep(owner, &credential->access_secret, access) && load_refresh_token(credential) &&
      (!access.size || pry_secret_keep(owner, &credential->token, access)) && pry_credential_start_timers(credential)) {
    credential->version = access.size ? ++owner->last_version : 0;
    return credential;
  }
  pry_credential_free(credential);
  return NULL;
}

static bool same_secrets(const struct pry_credential *credential, const struct pry_credential_config *config)
{
  return pry_slice_equal(pry_buffer_slice(&credential->refresh_secret), secret_value(config->refresh_token)) &&
         pry_slice_equal(pry_buffer_slice(&credential->access_secret), secret_value(config->access_token));
}

static void move_waiters(struct pry_credential *from, struct pry_credential *to)
{
  while (!pry_list_empty(&from->waiters)) {
    struct pry_token_waiter *waiter = PRY_CONTAINER_OF(from->waiters.next, struct pry_token_waiter, link);
    pry_list_remove(&waiter->link);
    pry_credential_join(to, waiter);
  }
}

/* Who waited for the old one waits for the new one's token, or has it. Those who had been told something already, but
 * had not heard it, wait on: it was about the old one. */
static void replace_credential(struct pry_credential *old, struct pry_credential *fresh, pry_time now)
{
  move_waiters(old, fresh);
  if (!fresh->waiting)
    return;
  if (pry_credential_usable(fresh, now))
    pry_credential_tell(fresh, true, "");
  else if (fresh->cannot_renew)
    pry_credential_tell(fresh, false, fresh->cannot_renew);
  else
    pry_credential_begin(fresh);
}

/* They hear it wherever they are; nothing of the credential is looked at any more. */
static void forget_credential(struct pry_credentials *credentials, struct pry_credential *credential)
{
  move_waiters(credential, &credentials->forgotten);
  pry_credential_tell(&credentials->forgotten, false, "the credential is no longer declared");
}

/* Makes all that is new before anything old is touched. */
static bool prepare(struct pry_credentials *credentials, const struct pry_config *config, struct pry_list *prepared)
{
  for (size_t i = 0; i < config->credential_count; i++) {
    const struct pry_credential *old = pry_credential_find(credentials, config->credentials[i].name);
    if (old && same_secrets(old, &config->credentials[i]))
      continue;
    struct pry_credential *fresh = new_credential(credentials, &config->credentials[i]);
    if (!fresh)
      return false;
    pry_list_push(prepared, &fresh->link);
  }
  return true;
}

static void retire(struct pry_credential *credential, struct pry_list *retired)
{
  pry_list_remove(&credential->link);
  pry_list_push(retired, &credential->link);
}

/* Under one lock, so that no asker finds a name missing while it is replaced. */
static void take_over(struct pry_credentials *credentials, const struct pry_config *config, struct pry_list *prepared,
                      struct pry_list *retired)
{
  pry_time now = pry_loop_now(credentials->environment.loop);
  pthread_mutex_lock(&credentials->lock);
  for (struct pry_list *link = credentials->list.next, *next; link != &credentials->list; link = next) {
    struct pry_credential *credential = PRY_CONTAINER_OF(link, struct pry_credential, link);
    next = link->next;
    const struct pry_credential_config *declared = pry_config_credential(config, credential->name);
    if (!declared) {
      forget_credential(credentials, credential);
      retire(credential, retired);
    } else if (same_secrets(credential, declared)) {
      credential->cannot_renew = why_not_renewable(declared);
      credential->cooldown_end = 0;
    }
  }
  while (!pry_list_empty(prepared)) {
    struct pry_credential *fresh = PRY_CONTAINER_OF(prepared->next, struct pry_credential, link);
    struct pry_credential *old = pry_credential_find(credentials, fresh->name);
    pry_list_remove(&fresh->link);
    pry_list_push(&credentials->list, &fresh->link);
    if (!old)
      continue;
    replace_credential(old, fresh, now);
    retire(old, retired);
  }
  pthread_mutex_unlock(&credentials->lock);
}

static void free_all(struct pry_list *list)
{
  while (!pry_list_empty(list)) {
    struct pry_credential *credential = PRY_CONTAINER_OF(list->next, struct pry_credential, link);
    pry_list_remove(&credential->link);
    pry_credential_free(credential);
  }
}

bool pry_credentials_adopt(struct pry_credentials *credentials, const struct pry_config *config)
{
  struct pry_list prepared, retired;
  pry_list_init(&prepared);
  pry_list_init(&retired);
  bool ok = prepare(credentials, config, &prepared);
  if (ok)
    take_over(credentials, config, &prepared, &retired);
  free_all(&prepared);
  free_all(&retired);
  return ok;
}
