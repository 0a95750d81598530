#include "call_internal.h"

#include <math.h>
#include <stdio.h>

/* ---- telling what was decided ------------------------------------------------------------------------- */

static void tell_verdict(struct pry_call *call, const struct pry_verdict *verdict, const char *to, double wait,
                         const char *not_done)
{
  struct pry_engine *engine = call->worker->engine;
  const struct pry_instance *instance = call->pass.ask.instance;
  const struct pry_failure *failure = &call->failure;
  if (!not_done) {
    memcpy(call->why, verdict->why, sizeof call->why);
    pry_metrics_add(engine->metrics, PRY_M_VERDICTS, instance->name, pry_verdict_name(verdict->kind), 1);
  }
  pry_log(engine->log, PRY_LOG_INFO, not_done ? "verdict not carried out" : "verdict",
          pry_log_text("call_id", call->view.id), pry_log_text("target", call->view.target.name),
          pry_log_integer("attempt", call->view.attempt),
          pry_log_text("category", failure->category ? pry_category_name(failure->category) : ""),
          pry_log_integer("status", failure->status), pry_log_text("code", failure->code),
          pry_log_text("verdict", pry_verdict_name(verdict->kind)), pry_log_text("to", to),
          pry_log_number("after", wait), pry_log_text("policy", instance->name), pry_log_text("file", instance->file),
          pry_log_integer("line", verdict->line), pry_log_text("why", verdict->why), pry_log_text("because", not_done),
          pry_log_text("generation", call->script->generation->id));
}

/* ---- passes -------------------------------------------------------------------------------------------- */

static void handle(struct pry_call *call, enum pry_pass_result result);

static void pass_step(struct pry_pass *pass, enum pry_pass_result result)
{
  handle(pass->user, result);
}

static void start_pass(struct pry_call *call, enum pry_handler handler, struct pry_list *permits)
{
  struct pry_ask *ask = &call->pass.ask;
  pry_call_adopt_generation(call);
  call->pass.step = pass_step;
  call->pass.user = call;
  ask->call = &call->view;
  ask->failure = handler == PRY_ON_ERROR ? &call->failure : NULL;
  ask->attempt = handler == PRY_ON_OUTCOME ? &call->ledger[call->view.ledger_count - 1] : NULL;
  ask->fields = handler == PRY_ON_OUTCOME ? &call->answer.headers : NULL;
  ask->outcome = handler == PRY_ON_DONE ? &call->outcome : NULL;
  ask->event = NULL;
  ask->permits = permits;
  handle(call, pry_pass_start(&call->pass, call->script, call->route, handler));
}

void pry_call_resume_pass(struct pry_call *call)
{
  call->state = call->pass.ask.handler == PRY_ON_REQUEST   ? CALL_REQUEST
                : call->pass.ask.handler == PRY_ON_ATTEMPT ? CALL_PREPARE
                                                           : CALL_REACT;
  handle(call, pry_pass_next(&call->pass));
}

void pry_call_request_pass(struct pry_call *call)
{
  call->state = CALL_REQUEST;
  start_pass(call, PRY_ON_REQUEST, &call->permits);
}

void pry_call_attempt_pass(struct pry_call *call)
{
  call->state = CALL_PREPARE;
  start_pass(call, PRY_ON_ATTEMPT, &call->attempt_permits);
}

void pry_call_observe_outcome(struct pry_call *call, void (*next)(struct pry_call *call))
{
  call->after_pass = next;
  start_pass(call, PRY_ON_OUTCOME, &call->attempt_permits);
}

void pry_call_observe_done(struct pry_call *call, void (*next)(struct pry_call *call))
{
  call->after_pass = next;
  start_pass(call, PRY_ON_DONE, NULL);
}

static void ask_on_error(struct pry_call *call)
{
  pry_permits_release(&call->attempt_permits);
  start_pass(call, PRY_ON_ERROR, NULL);
}

void pry_call_react(struct pry_call *call)
{
  call->state = CALL_REACT;
  if (call->ledger[call->view.ledger_count - 1].refused)
    ask_on_error(call); /* nothing was tried, so there is no outcome to observe */
  else
    pry_call_observe_outcome(call, ask_on_error);
}

/* ---- on_request and on_attempt: waiting ---------------------------------------------------------------------- */

void pry_call_fail_request(struct pry_call *call, const struct pry_failure *failure)
{
  pry_pass_stop(&call->pass);
  call->failure = *failure;
  pry_call_finish_failure(call);
}

static void begin_hold(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  double wait = verdict->until_time > 0 ? verdict->until_time - pry_loop_unix_time(call->worker->loop) : 0;
  tell_verdict(call, verdict, NULL, wait > 0 ? wait : 0, NULL);
  pry_call_hold(call);
}

/* ---- on_request ------------------------------------------------------------------------------------------ */

/* "provider/model", split at the first '/', or a model at the provider the call is at. Providers of a host's may have no
 * models, and are named alone. */
static bool find_target(const struct pry_call *call, const char *name, const struct pry_provider **provider,
                        struct pry_slice *model)
{
  const char *slash = strchr(name, '/');
  const struct pry_provider *alone =
      slash ? NULL : pry_config_provider(call->script->generation->config, pry_slice_of(name));
  if (alone && alone->host) {
    *provider = alone;
    *model = PRY_SLICE("");
    return true;
  }
  *model = pry_slice_of(slash ? slash + 1 : name);
  *provider =
      slash ? pry_config_provider(call->script->generation->config, (struct pry_slice){name, (size_t)(slash - name)})
            : call->view.target.provider;
  return *provider && model->size;
}

/* NULL: the target can take this call; else why not. */
static const char *target_complaint(struct pry_call *call, const char *name, const struct pry_provider **provider,
                                    struct pry_slice *model)
{
  if (!find_target(call, name, provider, model))
    return "the target names no declared provider";
  /* Without a host an attempt at a host's provider is refused, and says so: then the next target has its turn. */
  const char *dialect_complaint = call->host || (*provider)->host ? NULL : pry_call_dialect_complaint(call, *provider);
  if (dialect_complaint)
    return dialect_complaint;
  if (model->size >= PRY_TARGET_MAX - strlen((*provider)->name) - 1)
    return "the target's name is too long";
  if (!pry_call_can_rename(call))
    return "the body is not kept, and its model is not in the part that was read";
  return NULL;
}

/* Goes the body to another provider than it was made for, and should not take along what only this one understands?
 * Where the call has been since does not count: it is still the same body. */
static bool strips(const struct pry_call *call, const struct pry_verdict *verdict, const struct pry_provider *to)
{
  return verdict->strip && strcmp(to->name, call->translation.home) != 0;
}

static void apply_route(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  const struct pry_provider *provider = NULL;
  struct pry_slice model;
  const char *complaint = verdict->target[0] ? target_complaint(call, verdict->target, &provider, &model) : NULL;
  if (!complaint && verdict->target[0]) {
    if (!verdict->strip)
      pry_call_set_home(call, provider);
    call->translation.strip = strips(call, verdict, provider);
    pry_call_set_target(call, provider, model);
  }
  if (!complaint && !pry_headers_add_all(&call->added, &verdict->headers))
    complaint = "too many headers";
  tell_verdict(call, verdict, verdict->target, 0, complaint);
}

static struct pry_failure failure_of_verdict(const struct pry_call *call, const struct pry_verdict *verdict,
                                             enum pry_category otherwise)
{
  enum pry_category category = verdict->category ? verdict->category : otherwise;
  struct pry_failure failure = pry_call_own_failure(category, verdict->code, verdict->message);
  failure.status = verdict->status;
  failure.retry_after = verdict->after >= 0 ? verdict->after : call->failure.retry_after;
  if (!verdict->message[0])
    pry_failure_set_message(&failure, pry_slice_of(verdict->why[0] ? verdict->why : pry_category_doc(category)));
  return failure;
}

static enum pry_category category_of_status(int status)
{
  return status >= 400 ? pry_failure_from_status(status).category : PRY_UNKNOWN;
}

/* True when the pass goes on at once. */
static bool request_verdict(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  struct pry_failure failure;
  switch (verdict->kind) {
  case PRY_VERDICT_ROUTE:
    apply_route(call);
    return true;
  case PRY_VERDICT_HOLD:
    begin_hold(call);
    return false;
  case PRY_VERDICT_RESPOND:
    tell_verdict(call, verdict, NULL, 0, NULL);
    pry_call_finish_response(call, &call->pass.ask.verdict);
    return false;
  default:
    tell_verdict(call, verdict, NULL, 0, NULL);
    failure = failure_of_verdict(call, verdict, category_of_status(verdict->status));
    pry_call_fail_request(call, &failure);
    return false;
  }
}

/* ---- on_attempt ------------------------------------------------------------------------------------------ */

/* What can be renewed for the attempts of this call. A host's are made with what the host has. */
static const struct pry_credential_config *credential_of(const struct pry_call *call)
{
  return call->host ? NULL : call->view.target.provider->auth.credential;
}

static const char *no_credential(const struct pry_call *call)
{
  return call->host ? "the host makes the attempts, with credentials of its own"
                    : "the provider has no credential to renew";
}

static void token_renewed(struct pry_token_waiter *waiter, bool renewed, const char *why, void *user)
{
  (void)waiter;
  (void)why; /* an on_attempt renewal that failed leaves it to the provider to say so */
  (void)renewed;
  struct pry_call *call = user;
  pry_call_end_wait(call);
  pry_call_resume_pass(call);
}

/* The version of the token that would be used now; false when there is none to be had. */
static bool current_version(struct pry_call *call, const char *credential, uint64_t *version)
{
  struct pry_token_waiter waiter = {0};
  const char *why;
  pry_list_init(&waiter.link);
  enum pry_token_status status =
      pry_credential_token(call->worker->engine->credentials, call->worker->mailbox, credential, &call->token, version,
                           &waiter, token_renewed, call, &why);
  pry_token_leave(&waiter);
  return status == PRY_TOKEN_READY;
}

static void renewal_too_late(void *user)
{
  struct pry_call *call = user;
  pry_token_leave(&call->token_waiter);
  token_renewed(NULL, false, "", call);
}

static bool attempt_renew(struct pry_call *call)
{
  const struct pry_credential_config *credential = credential_of(call);
  const char *why = NULL;
  uint64_t version = 0;
  if (!credential || !current_version(call, credential->name, &version)) {
    tell_verdict(call, &call->pass.ask.verdict, NULL, 0,
                 credential ? "a renewal is under way or in its cooldown" : no_credential(call));
    return true;
  }
  tell_verdict(call, &call->pass.ask.verdict, credential->name, 0, NULL);
  if (pry_credential_renew(call->worker->engine->credentials, call->worker->mailbox, credential->name, version,
                           &call->token_waiter, token_renewed, call, &why) != PRY_TOKEN_WAITING)
    return true;
  pry_call_begin_wait(call, CALL_TOKEN, "renewal");
  pry_call_limit_wait(call, renewal_too_late);
  return false;
}

static int curl_code_of(const char *name, bool *sent)
{
  static const struct {
    const char *name;
    int code;
    bool sent;
  } codes[] = {{"timeout", PRY_HTTP_TIMED_OUT, true},
               {"connect", PRY_HTTP_COULDNT_CONNECT, false},
               {"reset", PRY_HTTP_RECEIVE_FAILED, true},
               {"dns", PRY_HTTP_COULDNT_RESOLVE, false}};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
    if (strcmp(codes[i].name, name) == 0) {
      *sent = codes[i].sent;
      return codes[i].code;
    }
  return 0;
}

static void apply_inject(struct pry_call *call)
{
  struct pry_verdict *verdict = &call->pass.ask.verdict;
  struct call_injection *injection = &call->injection;
  bool sent = true;
  int curl_code = verdict->curl[0] ? curl_code_of(verdict->curl, &sent) : 0;
  if (verdict->curl[0] && !curl_code) {
    tell_verdict(call, verdict, NULL, 0, "curl must be timeout, connect, reset or dns");
    return;
  }
  pry_headers_clear(&injection->headers);
  pry_buffer_clear(&injection->body);
  if (!pry_headers_add_all(&injection->headers, &verdict->headers) ||
      !pry_buffer_append_slice(&injection->body, pry_buffer_slice(&verdict->body)))
    return;
  injection->armed = true;
  injection->status = verdict->status;
  injection->curl_code = curl_code;
  injection->sent = sent;
  injection->delay = pry_time_from_seconds(verdict->delay);
  tell_verdict(call, verdict, NULL, verdict->delay, NULL);
}

static bool attempt_verdict(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  switch (verdict->kind) {
  case PRY_VERDICT_HOLD:
    begin_hold(call);
    return false;
  case PRY_VERDICT_INJECT:
    apply_inject(call);
    return true;
  case PRY_VERDICT_RENEW:
    return attempt_renew(call);
  default: {
    struct pry_failure failure = failure_of_verdict(call, verdict, PRY_OVERLOADED);
    failure.retry_after = verdict->after;
    tell_verdict(call, verdict, NULL, verdict->after > 0 ? verdict->after : 0, NULL);
    pry_pass_stop(&call->pass);
    pry_call_attempt_failed(call, &failure);
    return false;
  }
  }
}

/* ---- on_error -------------------------------------------------------------------------------------------- */

/* Promise 7: may the request be sent again, given what may have happened to it? */
static bool may_repeat(const struct pry_call *call)
{
  const struct pry_failure *failure = &call->failure;
  return !failure->sent || call->view.repeatable || pry_failure_is_refusal(failure, call->host);
}

static unsigned sent_to(const struct pry_call *call, const char *target, unsigned *targets)
{
  unsigned sent = 0;
  *targets = 0;
  for (size_t i = 0; i < call->view.ledger_count; i++) {
    bool first = true;
    for (size_t j = 0; j < i && first; j++)
      first = strcmp(call->ledger[j].target, call->ledger[i].target) != 0;
    *targets += first;
    sent += strcmp(call->ledger[i].target, target) == 0 && !call->ledger[i].refused;
  }
  return sent;
}

/* Caps, replay, deadline and budget: what stands in the way of one more attempt at `target` after `wait`. NULL: nothing,
 * and the budget's permit is taken. */
static const char *attempt_complaint(struct pry_call *call, const char *target, pry_time wait, bool free)
{
  unsigned targets;
  unsigned sent = sent_to(call, target, &targets);
  bool same = strcmp(target, call->view.target.name) == 0;
  bool known = same;
  for (size_t i = 0; i < call->view.ledger_count && !known; i++)
    known = strcmp(call->ledger[i].target, target) == 0;
  if (call->view.ledger_count >= call->route->max_attempts_per_call)
    return "max_attempts_per_call is reached";
  if (!known && targets >= call->route->max_targets)
    return "max_targets is reached";
  if (call->upload.begun)
    return "body not kept";
  if (!may_repeat(call))
    return "the request may have been carried out and is not repeatable";
  if (wait >= pry_call_deadline_left(call))
    return "the wait would pass the deadline";
  if (wait > pry_call_wait_left(call))
    return "the wait would pass the route's max_wait";
  if (call->route->max_cost > 0 && call->spent.cost >= call->route->max_cost)
    return "the call has cost the route's max_cost";
  if (!sent || free)
    return NULL;
  struct pry_permit *permit = pry_budget_retry(call->worker->engine->budgets, pry_slice_of(target));
  if (!permit)
    return "the target's retry budget is used up";
  pry_permits_add(&call->attempt_permits, permit);
  return NULL;
}

static void wait_over(void *user)
{
  struct pry_call *call = user;
  pry_call_end_wait(call);
  pry_call_prepare(call);
}

static void wait_then_prepare(struct pry_call *call, pry_time wait)
{
  pry_pass_stop(&call->pass);
  if (!wait) {
    pry_call_prepare(call);
    return;
  }
  pry_call_begin_wait(call, CALL_WAIT, "backoff");
  pry_call_start_timer(call, &call->wait_timer, wait, wait_over);
}

/* Promise 2: never before the server's time, also when the call has been elsewhere in between. `key`: the key that this
 * was worked out for. */
static pry_time wait_before(const struct pry_call *call, const struct pry_verdict *verdict,
                            const struct pry_provider *provider, const char *target, char key[PRY_SECRET_NAME_MAX])
{
  pry_time own = verdict->after > 0 ? pry_time_from_seconds(verdict->after) : 0;
  pry_time theirs = pry_call_server_time(call, provider, target, key);
  return own > theirs ? own : theirs;
}

/* As attempt_complaint(), and the provider's own "do not retry". */
static const char *again_complaint(struct pry_call *call, const char *target, pry_time wait)
{
  const struct pry_attempt *last = pry_call_last_failed_at(call, target, NULL);
  return last && last->failure.retry_forbidden ? "the provider said x-should-retry: false"
                                               : attempt_complaint(call, target, wait, false);
}

/* The key that the wait was worked out for is the one that the attempt is made with. */
static void plan_key(struct pry_call *call, const char *key)
{
  snprintf(call->next_key, sizeof call->next_key, "%s", key);
}

static bool execute_retry(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  char key[PRY_SECRET_NAME_MAX];
  pry_time wait = wait_before(call, verdict, call->view.target.provider, call->view.target.name, key);
  const char *complaint = again_complaint(call, call->view.target.name, wait);
  tell_verdict(call, verdict, call->view.target.name, pry_time_to_seconds(wait), complaint);
  if (complaint)
    return false;
  plan_key(call, key);
  wait_then_prepare(call, wait);
  return true;
}

static bool execute_fallback(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  const struct pry_provider *provider;
  struct pry_slice model;
  char name[PRY_TARGET_MAX], key[PRY_SECRET_NAME_MAX] = "";
  const char *complaint = target_complaint(call, verdict->target, &provider, &model);
  pry_time wait = 0;
  if (!complaint) {
    snprintf(name, sizeof name, "%s%s%.*s", provider->name, model.size ? "/" : "", (int)model.size, model.data);
    wait = wait_before(call, verdict, provider, name, key);
    complaint = again_complaint(call, name, wait);
  }
  tell_verdict(call, verdict, verdict->target, pry_time_to_seconds(wait), complaint);
  if (complaint)
    return false;
  call->translation.strip = strips(call, verdict, provider);
  pry_call_set_target(call, provider, model);
  plan_key(call, key);
  wait_then_prepare(call, wait);
  return true;
}

/* The same target with a key that this call has not used yet: another account, so neither its server's time nor the
 * retry budget is in the way. */
static bool execute_rotate(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  const struct pry_provider *provider = call->view.target.provider;
  struct pry_key_choice choice = {0};
  const char *complaint = call->host                ? "the host makes the attempts, with keys of its own"
                          : provider->key_count < 2 ? "the provider has no other key"
                                                    : NULL;
  if (!complaint) {
    choice = pry_keys_choose(call->worker->engine->keys, provider, pry_call_keys_tried(call), false,
                             pry_loop_now(call->worker->loop));
    complaint = choice.found ? attempt_complaint(call, call->view.target.name, 0, true)
                             : "no key is usable that this call has not tried";
  }
  const char *key = complaint ? NULL : provider->keys[choice.index]->name;
  tell_verdict(call, verdict, key, 0, complaint);
  if (complaint)
    return false;
  plan_key(call, key);
  wait_then_prepare(call, 0);
  return true;
}

static void retry_renewed(struct pry_call *call)
{
  char key[PRY_SECRET_NAME_MAX];
  call->next_is_free = true;
  wait_then_prepare(call, pry_call_server_time(call, call->view.target.provider, call->view.target.name, key));
}

static void error_token_ready(struct pry_token_waiter *waiter, bool renewed, const char *why, void *user)
{
  (void)waiter;
  struct pry_call *call = user;
  pry_call_end_wait(call);
  if (renewed) {
    retry_renewed(call);
    return;
  }
  pry_log(call->worker->engine->log, PRY_LOG_WARN, "renewal failed", pry_log_text("call_id", call->view.id),
          pry_log_text("target", call->view.target.name), pry_log_text("error", why));
  pry_call_resume_pass(call);
}

static void error_token_too_late(void *user)
{
  struct pry_call *call = user;
  pry_token_leave(&call->token_waiter);
  error_token_ready(NULL, false, "not within the route's max_wait", call);
}

/* True: executed, or waiting. */
static bool execute_renew(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  const struct pry_credential_config *credential = credential_of(call);
  const char *target = call->view.target.name;
  char key[PRY_SECRET_NAME_MAX];
  pry_time theirs = pry_call_server_time(call, call->view.target.provider, target, key);
  const char *complaint = !credential     ? no_credential(call)
                          : call->renewed ? "the credential was renewed once for this call already"
                                          : attempt_complaint(call, target, theirs, true);
  const char *why = NULL;
  enum pry_token_status status = PRY_TOKEN_FAILED;
  if (credential && !complaint) {
    status = pry_credential_renew(call->worker->engine->credentials, call->worker->mailbox, credential->name,
                                  call->token_version, &call->token_waiter, error_token_ready, call, &why);
    complaint = status == PRY_TOKEN_FAILED ? why : NULL;
  }
  tell_verdict(call, verdict, credential ? credential->name : NULL, 0, complaint);
  if (complaint)
    return false;
  call->renewed = true;
  if (status == PRY_TOKEN_READY) {
    retry_renewed(call);
    return true;
  }
  pry_call_begin_wait(call, CALL_TOKEN, "renewal");
  pry_call_limit_wait(call, error_token_too_late);
  return true;
}

/* True when the pass is over, or waits; false: the verdict cannot be carried out, ask the next policy. */
static bool error_verdict(struct pry_call *call)
{
  const struct pry_verdict *verdict = &call->pass.ask.verdict;
  struct pry_failure failure;
  switch (verdict->kind) {
  case PRY_VERDICT_RETRY:
    return execute_retry(call);
  case PRY_VERDICT_FALLBACK:
    return execute_fallback(call);
  case PRY_VERDICT_RENEW:
    return execute_renew(call);
  case PRY_VERDICT_ROTATE:
    return execute_rotate(call);
  case PRY_VERDICT_RESPOND:
    tell_verdict(call, verdict, NULL, 0, NULL);
    pry_call_finish_response(call, &call->pass.ask.verdict);
    return true;
  default:
    tell_verdict(call, verdict, NULL, 0, NULL);
    failure = failure_of_verdict(call, verdict, call->failure.category);
    pry_call_fail_request(call, &failure);
    return true;
  }
}

/* ---- one step of any pass --------------------------------------------------------------------------------- */

static void pass_ended(struct pry_call *call)
{
  switch (call->pass.ask.handler) {
  case PRY_ON_REQUEST:
    pry_call_prepare(call);
    return;
  case PRY_ON_ATTEMPT:
    pry_call_send(call);
    return;
  case PRY_ON_ERROR:
    pry_call_finish_failure(call);
    return;
  default:
    call->after_pass(call);
    return;
  }
}

static void handle(struct pry_call *call, enum pry_pass_result result)
{
  while (result == PRY_PASS_VERDICT) {
    enum pry_handler handler = call->pass.ask.handler;
    bool goes_on = handler == PRY_ON_REQUEST   ? request_verdict(call)
                   : handler == PRY_ON_ATTEMPT ? attempt_verdict(call)
                                               : !error_verdict(call);
    if (!goes_on)
      return;
    result = pry_pass_next(&call->pass);
  }
  if (result == PRY_PASS_END)
    pass_ended(call);
}
