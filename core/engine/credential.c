#include "credential.h"

#include "credential_file.h"
#include "list.h"
#include "registry.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define RENEW_BEFORE (60 * PRY_SECOND)
#define RENEW_NO_SOONER (30 * PRY_SECOND)
#define LIFE_AT_LEAST (5 * PRY_SECOND)
#define COOLDOWN (30 * PRY_SECOND)
#define JOB_LIMIT (30 * PRY_SECOND)

enum { ERROR_MAX_BYTES = 256 };

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
  char last_error[ERROR_MAX_BYTES];
};

struct pry_credentials {
  struct pry_credentials_environment environment;
  struct pry_list list;
  uint64_t last_version; /* never used twice, also when a credential goes and comes back */
  struct pry_credential forgotten; /* nobody's: holds told waiters whose credential has gone, until they hear */
};

static pry_time now_of(const struct pry_credential *credential)
{
  return pry_loop_now(credential->owner->environment.loop);
}

/* ---- secrets in memory ----------------------------------------------------------------------------------- */

static void wipe(struct pry_buffer *secret)
{
  if (secret->data)
    explicit_bzero(secret->data, secret->capacity);
  pry_buffer_fini(secret);
}

static void drop_secret(struct pry_credentials *credentials, struct pry_buffer *secret)
{
  if (secret->size)
    pry_scrubber_remove(credentials->environment.scrubber, pry_buffer_slice(secret));
  wipe(secret);
}

/* Keeps a copy that the scrubber knows. False: memory; `kept` is as before. */
static bool keep_secret(struct pry_credentials *credentials, struct pry_buffer *kept, struct pry_slice value)
{
  struct pry_buffer copy;
  pry_buffer_init(&copy, 0);
  if (!pry_buffer_append_slice(&copy, value) ||
      (value.size && !pry_scrubber_add(credentials->environment.scrubber, value))) {
    wipe(&copy);
    return false;
  }
  drop_secret(credentials, kept);
  *kept = copy;
  return true;
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

static void tell(struct pry_credential *credential, bool renewed, const char *why)
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

static void join(struct pry_credential *credential, struct pry_token_waiter *waiter)
{
  waiter->credential = credential;
  pry_list_push(&credential->waiters, &waiter->link);
  credential->waiting++;
}

/* ---- the job --------------------------------------------------------------------------------------------- */

static void job_due(void *user);
static void renewal_due(void *user);

/* Both timers run from the credential's beginning, and in their own callbacks their place in the heap is still free:
 * these cannot fail. */
static void arm_job(struct pry_credential *credential, pry_time delay)
{
  pry_timer_start(credential->owner->environment.loop, &credential->job_timer, delay, job_due, credential);
}

static void arm_renewal(struct pry_credential *credential, pry_time delay)
{
  pry_timer_start(credential->owner->environment.loop, &credential->renew_timer, delay, renewal_due, credential);
}

static void begin_job(struct pry_credential *credential)
{
  credential->running = true;
  arm_job(credential, 0);
}

static void clean_up_job(struct pry_credential *credential)
{
  wipe(&credential->renewal.token);
  wipe(&credential->renewal.new_refresh_token);
  pry_verdict_fini(&credential->ask.verdict);
  struct pry_state *state = credential->state;
  credential->state = NULL;
  credential->asking = false;
  pry_state_unref(state);
}

static void end_job(struct pry_credential *credential)
{
  credential->running = false;
  arm_job(credential, PRY_TIME_NEVER);
}

static void job_failed(struct pry_credential *credential, const char *why)
{
  const struct pry_credentials_environment *environment = &credential->owner->environment;
  pry_time now = now_of(credential);
  end_job(credential);
  credential->failures++;
  credential->failed = true;
  credential->rejected = false;
  credential->cooldown_end = now + COOLDOWN;
  snprintf(credential->last_error, sizeof credential->last_error, "%s", why);
  bool still_good = credential->token.size && credential->expires != PRY_TIME_NEVER &&
                    credential->expires > credential->cooldown_end;
  arm_renewal(credential, still_good ? COOLDOWN : PRY_TIME_NEVER);
  pry_metrics_add(environment->metrics, PRY_M_RENEWALS, credential->name, "failed", 1);
  pry_log(environment->log, PRY_LOG_WARN, "credential not renewed", pry_log_text("credential", credential->name),
          pry_log_text("why", credential->last_error));
  tell(credential, false, credential->last_error);
  if (environment->failed)
    environment->failed(environment->user, credential->name, credential->last_error);
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
    if (!keep_secret(credential->owner, &credential->refresh_token, rotated)) {
      ok = false;
      why = "out of memory";
    }
  }
  if (!ok)
    pry_log(environment->log, PRY_LOG_ERROR, "rotated refresh token not kept",
            pry_log_text("credential", credential->name), pry_log_text("why", why));
}

static bool replace_token(struct pry_credential *credential, struct pry_slice token)
{
  struct pry_buffer fresh;
  pry_buffer_init(&fresh, 0);
  if (!keep_secret(credential->owner, &fresh, token))
    return false;
  drop_secret(credential->owner, &credential->previous_token);
  credential->previous_token = credential->token;
  credential->token = fresh;
  credential->version = ++credential->owner->last_version;
  credential->rejected = false;
  return true;
}

static void set_expiry(struct pry_credential *credential, double expires_in)
{
  credential->expires = PRY_TIME_NEVER;
  credential->expires_at = 0;
  arm_renewal(credential, PRY_TIME_NEVER);
  if (!(expires_in >= 0)) /* NaN, too */
    return;
  pry_time life = pry_time_from_seconds(expires_in);
  if (life < LIFE_AT_LEAST)
    life = LIFE_AT_LEAST;
  credential->expires = now_of(credential) + life;
  credential->expires_at = pry_loop_unix_time(credential->owner->environment.loop) + pry_time_to_seconds(life);
  pry_time before = life / 2 < RENEW_BEFORE ? life / 2 : RENEW_BEFORE;
  pry_time delay = life - before;
  arm_renewal(credential, delay > RENEW_NO_SOONER ? delay : RENEW_NO_SOONER);
}

static void job_succeeded(struct pry_credential *credential, double expires_in)
{
  const struct pry_credentials_environment *environment = &credential->owner->environment;
  end_job(credential);
  credential->renewals++;
  credential->failed = false;
  credential->last_error[0] = '\0';
  set_expiry(credential, expires_in);
  pry_metrics_add(environment->metrics, PRY_M_RENEWALS, credential->name, "ok", 1);
  if (credential->expires_at > 0)
    pry_metrics_set(environment->metrics, PRY_M_TOKEN_EXPIRY, credential->name, NULL, credential->expires_at);
  pry_log(environment->log, PRY_LOG_INFO, "credential renewed", pry_log_text("credential", credential->name),
          pry_log_integer("version", (long long)credential->version), pry_log_number("expires_in", expires_in));
  tell(credential, true, "");
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
  char error[ERROR_MAX_BYTES] = "";
  double expires_in = credential->renewal.expires_in;
  const char *why = complaint(credential, status);
  if (!why) {
    rotate_refresh_token(credential, pry_buffer_slice(&credential->renewal.new_refresh_token));
    if (!replace_token(credential, pry_buffer_slice(&credential->renewal.token)))
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
    job_succeeded(credential, expires_in);
}

static void ask_ready(struct pry_ask *ask, enum pry_ask_status status)
{
  job_answered(ask->user, status);
}

static void start_job(struct pry_credential *credential)
{
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
  credential->ask = (struct pry_ask){.handler = PRY_REFRESH,
                                     .renewal = &credential->renewal,
                                     .ready = ask_ready,
                                     .user = credential,
                                     .state = state};
  pry_verdict_init(&credential->ask.verdict);
  credential->asking = true;
  arm_job(credential, JOB_LIMIT);
  enum pry_ask_status status = state->ops->ask(state, &credential->ask);
  if (status != PRY_ASK_PENDING)
    job_answered(credential, status);
}

static void cancel_job(struct pry_credential *credential)
{
  if (!credential->asking)
    return;
  credential->state->ops->cancel(credential->state, &credential->ask);
  clean_up_job(credential);
}

static void job_due(void *user)
{
  struct pry_credential *credential = user;
  if (!credential->asking) {
    start_job(credential);
    return;
  }
  cancel_job(credential);
  job_failed(credential, "no answer within 30 s");
}

static void renewal_due(void *user)
{
  struct pry_credential *credential = user;
  arm_renewal(credential, PRY_TIME_NEVER);
  if (!credential->running && !credential->cannot_renew)
    begin_job(credential);
}

/* ---- asking for a token ---------------------------------------------------------------------------------- */

static struct pry_credential *find(const struct pry_credentials *credentials, const char *name)
{
  for (struct pry_list *link = credentials->list.next; link != &credentials->list; link = link->next) {
    struct pry_credential *credential = PRY_CONTAINER_OF(link, struct pry_credential, link);
    if (strcmp(credential->name, name) == 0)
      return credential;
  }
  return NULL;
}

static bool usable(const struct pry_credential *credential)
{
  return credential->token.size && !credential->rejected && now_of(credential) < credential->expires;
}

static bool in_cooldown(const struct pry_credential *credential)
{
  return credential->failed && now_of(credential) < credential->cooldown_end;
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
  join(credential, waiter);
  if (!credential->running)
    begin_job(credential);
  return PRY_TOKEN_WAITING;
}

static void init_waiter(struct pry_token_waiter *waiter,
                        void (*ready)(struct pry_token_waiter *, bool, const char *, void *), void *user)
{
  *waiter = (struct pry_token_waiter){.ready = ready, .user = user};
  pry_list_init(&waiter->link);
}

enum pry_token_status pry_credential_token(struct pry_credentials *credentials, const char *name,
                                           struct pry_buffer *token, uint64_t *version,
                                           struct pry_token_waiter *waiter,
                                           void (*ready)(struct pry_token_waiter *, bool renewed, const char *why, void *),
                                           void *user, const char **why)
{
  init_waiter(waiter, ready, user);
  *version = 0;
  *why = "no such credential";
  struct pry_credential *credential = find(credentials, name);
  if (!credential)
    return PRY_TOKEN_FAILED;
  *why = "";
  return usable(credential) ? give(credential, token, version, why) : wait_for_renewal(credential, waiter, why);
}

enum pry_token_status pry_credential_renew(struct pry_credentials *credentials, const char *name, uint64_t bad_version,
                                           struct pry_token_waiter *waiter,
                                           void (*ready)(struct pry_token_waiter *, bool renewed, const char *why, void *),
                                           void *user, const char **why)
{
  init_waiter(waiter, ready, user);
  *why = "no such credential";
  struct pry_credential *credential = find(credentials, name);
  if (!credential)
    return PRY_TOKEN_FAILED;
  *why = "";
  if (credential->version != bad_version && usable(credential))
    return PRY_TOKEN_READY;
  enum pry_token_status status = wait_for_renewal(credential, waiter, why);
  if (status == PRY_TOKEN_WAITING && credential->version == bad_version)
    credential->rejected = true;
  return status;
}

/* ---- taking over a configuration ------------------------------------------------------------------------- */

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

static void free_credential(struct pry_credential *credential)
{
  if (!credential)
    return;
  struct pry_credentials *owner = credential->owner;
  cancel_job(credential);
  pry_timer_cancel(&credential->job_timer);
  pry_timer_cancel(&credential->renew_timer);
  pry_list_remove(&credential->link);
  drop_secret(owner, &credential->token);
  drop_secret(owner, &credential->previous_token);
  drop_secret(owner, &credential->refresh_token);
  drop_secret(owner, &credential->refresh_secret);
  drop_secret(owner, &credential->access_secret);
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
  bool ok = keep_secret(owner, &credential->refresh_token,
                        pry_buffer_slice(persisted.size ? &persisted : &credential->refresh_secret));
  wipe(&persisted);
  return ok;
}

static struct pry_credential *new_credential(struct pry_credentials *owner, const struct pry_credential_config *config)
{
  struct pry_credential *credential = calloc(1, sizeof *credential);
  if (!credential)
    return NULL;
  credential->owner = owner;
  credential->expires = PRY_TIME_NEVER;
  credential->cannot_renew = why_not_renewable(config);
  pry_list_init(&credential->link);
  pry_list_init(&credential->waiters);
  credential->name = strdup(config->name);
  struct pry_slice access = secret_value(config->access_token);
  struct pry_loop *loop = owner->environment.loop;
  if (credential->name && keep_secret(owner, &credential->refresh_secret, secret_value(config->refresh_token)) &&
      keep_secret(owner, &credential->access_secret, access) && load_refresh_token(credential) &&
      (!access.size || replace_token(credential, access)) &&
      pry_timer_start(loop, &credential->job_timer, PRY_TIME_NEVER, job_due, credential) &&
      pry_timer_start(loop, &credential->renew_timer, PRY_TIME_NEVER, renewal_due, credential))
    return credential;
  free_credential(credential);
  return NULL;
}

static bool same_secrets(const struct pry_credential *credential, const struct pry_credential_config *config)
{
  return pry_slice_equal(pry_buffer_slice(&credential->refresh_secret), secret_value(config->refresh_token)) &&
         pry_slice_equal(pry_buffer_slice(&credential->access_secret), secret_value(config->access_token));
}

/* Who waited for the old one waits for the new one's token, or has it. Those who had been told something already, but
 * had not heard it, wait on: it was about the old one. */
static void replace_credential(struct pry_credential *old, struct pry_credential *fresh)
{
  while (!pry_list_empty(&old->waiters)) {
    struct pry_token_waiter *waiter = PRY_CONTAINER_OF(old->waiters.next, struct pry_token_waiter, link);
    pry_list_remove(&waiter->link);
    pry_timer_start(waiter->timer.loop, &waiter->timer, PRY_TIME_NEVER, deliver, waiter);
    join(fresh, waiter);
  }
  free_credential(old);
  if (!fresh->waiting)
    return;
  if (usable(fresh))
    tell(fresh, true, "");
  else if (fresh->cannot_renew)
    tell(fresh, false, fresh->cannot_renew);
  else
    begin_job(fresh);
}

/* Their timers deliver what is said here; nothing of the credential is looked at any more. */
static void forget_credential(struct pry_credential *credential)
{
  tell(credential, false, "the credential is no longer declared");
  while (!pry_list_empty(&credential->waiters)) {
    struct pry_token_waiter *waiter = PRY_CONTAINER_OF(credential->waiters.next, struct pry_token_waiter, link);
    pry_list_remove(&waiter->link);
    join(&credential->owner->forgotten, waiter);
  }
  free_credential(credential);
}

/* Makes all that is new before anything old is touched. */
static bool prepare(struct pry_credentials *credentials, const struct pry_config *config, struct pry_list *prepared)
{
  for (size_t i = 0; i < config->credential_count; i++) {
    const struct pry_credential *old = find(credentials, config->credentials[i].name);
    if (old && same_secrets(old, &config->credentials[i]))
      continue;
    struct pry_credential *fresh = new_credential(credentials, &config->credentials[i]);
    if (!fresh)
      return false;
    pry_list_push(prepared, &fresh->link);
  }
  return true;
}

static void take_over(struct pry_credentials *credentials, const struct pry_config *config, struct pry_list *prepared)
{
  for (struct pry_list *link = credentials->list.next, *next; link != &credentials->list; link = next) {
    struct pry_credential *credential = PRY_CONTAINER_OF(link, struct pry_credential, link);
    next = link->next;
    const struct pry_credential_config *declared = pry_config_credential(config, credential->name);
    if (!declared) {
      forget_credential(credential);
      continue;
    }
    if (!same_secrets(credential, declared))
      continue;
    credential->cannot_renew = why_not_renewable(declared);
    credential->cooldown_end = 0;
  }
  while (!pry_list_empty(prepared)) {
    struct pry_credential *fresh = PRY_CONTAINER_OF(prepared->next, struct pry_credential, link);
    struct pry_credential *old = find(credentials, fresh->name);
    pry_list_remove(&fresh->link);
    pry_list_push(&credentials->list, &fresh->link);
    if (old)
      replace_credential(old, fresh);
  }
}

bool pry_credentials_adopt(struct pry_credentials *credentials, const struct pry_config *config)
{
  struct pry_list prepared;
  pry_list_init(&prepared);
  bool ok = prepare(credentials, config, &prepared);
  if (ok)
    take_over(credentials, config, &prepared);
  while (!pry_list_empty(&prepared))
    free_credential(PRY_CONTAINER_OF(prepared.next, struct pry_credential, link));
  return ok;
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
    free_credential(PRY_CONTAINER_OF(credentials->list.next, struct pry_credential, link));
  free(credentials);
}

static const char *state_name(const struct pry_credential *credential)
{
  if (credential->running)
    return "renewing";
  if (credential->failed)
    return "failed";
  return usable(credential) ? "valid" : "absent";
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
