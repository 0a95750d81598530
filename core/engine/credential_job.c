/* Renewals. Declared in credential_internal.h. */
#include "credential_internal.h"

#include "credential_file.h"
#include "registry.h"

#include <stdio.h>

#define RENEW_BEFORE (60 * PRY_SECOND)
#define RENEW_NO_SOONER (30 * PRY_SECOND)
#define LIFE_AT_LEAST (5 * PRY_SECOND)
#define COOLDOWN (30 * PRY_SECOND)
#define JOB_LIMIT (30 * PRY_SECOND)

/* ---- secrets in memory ----------------------------------------------------------------------------------- */

void pry_secret_wipe(struct pry_buffer *secret)
{
  if (secret->data)
    explicit_bzero(secret->data, secret->capacity);
  pry_buffer_fini(secret);
}

void pry_secret_drop(struct pry_credentials *credentials, struct pry_buffer *secret)
{
  if (secret->size)
    pry_scrubber_remove(credentials->environment.scrubber, pry_buffer_slice(secret));
  pry_secret_wipe(secret);
}

bool pry_secret_keep(struct pry_credentials *credentials, struct pry_buffer *kept, struct pry_slice value)
{
  struct pry_buffer copy;
  pry_buffer_init(&copy, 0);
  if (!pry_buffer_append_slice(&copy, value) ||
      (value.size && !pry_scrubber_add(credentials->environment.scrubber, value))) {
    pry_secret_wipe(&copy);
    return false;
  }
  pry_secret_drop(credentials, kept);
  *kept = copy;
  return true;
}

/* ---- the job --------------------------------------------------------------------------------------------- */

static void limit_reached(void *user);
static void renewal_due(void *user);

/* Both timers run from the credential's beginning, and in their own callbacks their place in the heap is still free:
 * these cannot fail. */
static void arm_limit(struct pry_credential *credential, pry_time delay)
{
  pry_timer_start(credential->owner->environment.loop, &credential->limit_timer, delay, limit_reached, credential);
}

static void arm_renewal(struct pry_credential *credential, pry_time delay)
{
  pry_timer_start(credential->owner->environment.loop, &credential->renew_timer, delay, renewal_due, credential);
}

void pry_credential_begin(struct pry_credential *credential)
{
  credential->running = true;
  pry_mailbox_post(credential->owner->environment.mailbox, &credential->begin);
}

static void clean_up_job(struct pry_credential *credential)
{
  pry_secret_wipe(&credential->renewal.token);
  pry_secret_wipe(&credential->renewal.new_refresh_token);
  pry_verdict_fini(&credential->ask.verdict);
  struct pry_state *state = credential->state;
  credential->state = NULL;
  credential->asking = false;
  pry_state_unref(state);
}

static void job_failed(struct pry_credential *credential, const char *why)
{
  struct pry_credentials *owner = credential->owner;
  const struct pry_credentials_environment *environment = &owner->environment;
  char error[PRY_CREDENTIAL_ERROR_MAX];
  snprintf(error, sizeof error, "%s", why);
  pry_time cooldown_end = pry_loop_now(environment->loop) + COOLDOWN;
  pthread_mutex_lock(&owner->lock);
  credential->running = false;
  credential->failures++;
  credential->failed = true;
  credential->rejected = false;
  credential->cooldown_end = cooldown_end;
  memcpy(credential->last_error, error, sizeof error);
  bool still_good =
      credential->token.size && credential->expires != PRY_TIME_NEVER && credential->expires > cooldown_end;
  pry_credential_tell(credential, false, error);
  pthread_mutex_unlock(&owner->lock);
  arm_limit(credential, PRY_TIME_NEVER);
  arm_renewal(credential, still_good ? COOLDOWN : PRY_TIME_NEVER);
  pry_metrics_add(environment->metrics, PRY_M_RENEWALS, credential->name, "failed", 1);
  pry_log(environment->log, PRY_LOG_WARN, "credential not renewed", pry_log_text("credential", credential->name),
          pry_log_text("why", error));
  if (environment->failed)
    environment->failed(environment->user, credential->name, error);
}

/* Before the new access token is used: when the process dies in between, the token service may take no other refresh
 * token than this one. */
static void rotate_refresh_token(struct pry_credential *credential, struct pry_slice rotated)
{
  const struct pry_credentials_environment *environment = &credential->owner->environment;
  if (!rotated.size || pry_slice_equal(rotated, pry_buffer_slice(&credential->refresh_token)))
    return;
  const char *why = "the token service gave one that no header can carry";
  bool ok = pry_token_valid(rotated);
  if (ok) {
    if (environment->state_dir)
      ok = pry_credential_file_write(environment->state_dir, credential->name,
                                     pry_buffer_slice(&credential->refresh_secret), rotated, &why);
    if (!pry_secret_keep(credential->owner, &credential->refresh_token, rotated)) {
      ok = false;
      why = "out of memory";
    }
  }
  if (!ok)
    pry_log(environment->log, PRY_LOG_ERROR, "rotated refresh token not kept",
            pry_log_text("credential", credential->name), pry_log_text("why", why));
}

/* Parks the renewal, or arms it for a token that lives so long. The life as it counts; NEVER: not known. */
static pry_time plan_renewal(struct pry_credential *credential, double expires_in)
{
  arm_renewal(credential, PRY_TIME_NEVER);
  if (!(expires_in >= 0)) /* NaN, too */
    return PRY_TIME_NEVER;
  pry_time life = pry_time_from_seconds(expires_in);
  if (life < LIFE_AT_LEAST)
    life = LIFE_AT_LEAST;
  pry_time before = life / 2 < RENEW_BEFORE ? life / 2 : RENEW_BEFORE;
  pry_time delay = life - before;
  arm_renewal(credential, delay > RENEW_NO_SOONER ? delay : RENEW_NO_SOONER);
  return life;
}

/* Token, version, expiry and state change in one step: on no worker is there a new token that looks expired, or a waiter
 * who joins a job that is over. Gives back the token before. */
static struct pry_buffer adopt_token(struct pry_credential *credential, struct pry_buffer fresh, pry_time life,
                                     bool *recovered)
{
  struct pry_credentials *owner = credential->owner;
  const struct pry_loop *loop = owner->environment.loop;
  bool lasts = life == PRY_TIME_NEVER;
  pry_time expires = lasts ? PRY_TIME_NEVER : pry_loop_now(loop) + life;
  double expires_at = lasts ? 0 : pry_loop_unix_time(loop) + pry_time_to_seconds(life);
  pthread_mutex_lock(&owner->lock);
  struct pry_buffer before = credential->token;
  credential->token = fresh;
  credential->version = ++owner->last_version;
  credential->rejected = false;
  credential->expires = expires;
  credential->expires_at = expires_at;
  credential->running = false;
  credential->renewals++;
  *recovered = credential->failed;
  credential->failed = false;
  credential->last_error[0] = '\0';
  pry_credential_tell(credential, true, "");
  pthread_mutex_unlock(&owner->lock);
  return before;
}

static void job_succeeded(struct pry_credential *credential, struct pry_buffer fresh, double expires_in)
{
  const struct pry_credentials_environment *environment = &credential->owner->environment;
  bool recovered;
  struct pry_buffer before = adopt_token(credential, fresh, plan_renewal(credential, expires_in), &recovered);
  pry_secret_drop(credential->owner, &credential->previous_token);
  credential->previous_token = before;
  arm_limit(credential, PRY_TIME_NEVER);
  pry_metrics_add(environment->metrics, PRY_M_RENEWALS, credential->name, "ok", 1);
  if (credential->expires_at > 0)
    pry_metrics_set(environment->metrics, PRY_M_TOKEN_EXPIRY, credential->name, NULL, credential->expires_at);
  pry_log(environment->log, PRY_LOG_INFO, "credential renewed", pry_log_text("credential", credential->name),
          pry_log_integer("version", (long long)credential->version), pry_log_number("expires_in", expires_in));
  if (recovered && environment->recovered)
    environment->recovered(environment->user, credential->name);
}

static const char *complaint(const struct pry_credential *credential, enum pry_ask_status status)
{
  if (status == PRY_ASK_DONE && credential->renewal.token.size)
    return pry_token_valid(pry_buffer_slice(&credential->renewal.token)) ? NULL
                                                                         : "the new token cannot be sent in a header";
  if (credential->renewal.error[0])
    return credential->renewal.error;
  return status == PRY_ASK_FAULT && credential->ask.fault[0] ? credential->ask.fault : "the renewal gave no token";
}

static void job_answered(struct pry_credential *credential, enum pry_ask_status status)
{
  char error[PRY_CREDENTIAL_ERROR_MAX] = "";
  double expires_in = credential->renewal.expires_in;
  const char *why = complaint(credential, status);
  struct pry_buffer fresh;
  pry_buffer_init(&fresh, 0);
  if (!why) {
    rotate_refresh_token(credential, pry_buffer_slice(&credential->renewal.new_refresh_token));
    if (!pry_secret_keep(credential->owner, &fresh, pry_buffer_slice(&credential->renewal.token)))
      why = "out of memory";
  }
  if (why) {
    snprintf(error, sizeof error, "%s", why);
    pry_scrubber_apply_text(credential->owner->environment.scrubber, error);
  }
  clean_up_job(credential);
  if (why)
    job_failed(credential, error);
  else
    job_succeeded(credential, fresh, expires_in);
}

static void ask_ready(struct pry_ask *ask, enum pry_ask_status status)
{
  job_answered(ask->user, status);
}

void pry_credential_start_job(struct pry_message *message)
{
  struct pry_credential *credential = PRY_CONTAINER_OF(message, struct pry_credential, begin);
  const struct pry_credentials_environment *environment = &credential->owner->environment;
  struct pry_state *state = environment->current_state(environment->user);
  const struct pry_credential_config *config =
      state ? pry_config_credential(state->generation->config, credential->name) : NULL;
  if (!config) {
    const char *why = state ? "no longer declared" : "no policies are serving";
    pry_state_unref(state);
    job_failed(credential, why);
    return;
  }
  credential->state = state;
  credential->renewal = (struct pry_renewal){
      .credential = config, .refresh_token = pry_buffer_slice(&credential->refresh_token), .expires_in = -1};
  pry_buffer_init(&credential->renewal.token, PRY_TOKEN_MAX);
  pry_buffer_init(&credential->renewal.new_refresh_token, PRY_TOKEN_MAX);
  credential->ask = (struct pry_ask){
      .handler = PRY_REFRESH, .renewal = &credential->renewal, .ready = ask_ready, .user = credential, .state = state};
  pry_verdict_init(&credential->ask.verdict);
  credential->asking = true;
  arm_limit(credential, JOB_LIMIT);
  enum pry_ask_status status = state->ops->ask(state, &credential->ask);
  if (status != PRY_ASK_PENDING)
    job_answered(credential, status);
}

void pry_credential_cancel(struct pry_credential *credential)
{
  if (!credential->asking)
    return;
  credential->state->ops->cancel(credential->state, &credential->ask);
  clean_up_job(credential);
}

static void limit_reached(void *user)
{
  struct pry_credential *credential = user;
  pry_credential_cancel(credential);
  job_failed(credential, "no answer within 30 s");
}

static void renewal_due(void *user)
{
  struct pry_credential *credential = user;
  arm_renewal(credential, PRY_TIME_NEVER);
  pthread_mutex_lock(&credential->owner->lock);
  if (!credential->running && !credential->cannot_renew)
    pry_credential_begin(credential);
  pthread_mutex_unlock(&credential->owner->lock);
}

bool pry_credential_start_timers(struct pry_credential *credential)
{
  struct pry_loop *loop = credential->owner->environment.loop;
  return pry_timer_start(loop, &credential->limit_timer, PRY_TIME_NEVER, limit_reached, credential) &&
         pry_timer_start(loop, &credential->renew_timer, PRY_TIME_NEVER, renewal_due, credential);
}
