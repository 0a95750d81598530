/* What a host tells of an attempt, as policies see it. Declared in parry_decision.h. */
#include "json.h"
#include "parry_decision.h"
#include "retry_after.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { FIELDS_MAX = 64 * 1024, BODY_LOOKED_AT = 64 * 1024, DECIDERS_WITH_THREADS = 4 };

/* ---- askings ------------------------------------------------------------------------------------------------- */

static void fini_asking(struct pry_asking *asking)
{
  pry_headers_fini(&asking->headers);
  pry_buffer_fini(&asking->text);
  pry_buffer_fini(&asking->body);
  pry_vars_free(asking->view.vars);
  free(asking);
}

static struct pry_asking *make_asking(struct pry_desk *desk, struct pry_host *host)
{
  struct pry_asking *asking = calloc(1, sizeof *asking);
  if (!asking)
    return NULL;
  asking->host = host;
  asking->desk = desk;
  asking->view.vars = pry_vars_new();
  pry_list_init(&asking->link);
  pry_list_init(&asking->permits);
  pry_headers_init(&asking->headers);
  pry_buffer_init(&asking->text, 0);
  pry_buffer_init(&asking->body, 0);
  if (asking->view.vars)
    return asking;
  fini_asking(asking);
  return NULL;
}

static struct pry_asking *take_asking(struct pry_desk *desk, struct pry_host *host)
{
  struct pry_asking *asking = NULL;
  pthread_mutex_lock(&desk->lock);
  if (!pry_list_empty(&desk->free)) {
    asking = PRY_CONTAINER_OF(desk->free.next, struct pry_asking, link);
    pry_list_remove(&asking->link);
  }
  pthread_mutex_unlock(&desk->lock);
  return asking ? asking : make_asking(desk, host);
}

void pry_asking_free(struct pry_asking *asking)
{
  struct pry_desk *desk = asking->desk;
  pry_pass_stop(&asking->pass);
  pry_permits_release(&asking->permits);
  pry_list_remove(&asking->link);
  pry_headers_clear(&asking->headers);
  pry_buffer_clear(&asking->text);
  pry_buffer_fini(&asking->body); /* rare, and may be long */
  pry_vars_clear(asking->view.vars);
  pthread_mutex_lock(&desk->lock);
  pry_list_push(desk->free.next, &asking->link); /* the one used last is warm */
  pthread_mutex_unlock(&desk->lock);
}

/* ---- guards --------------------------------------------------------------------------------------------------- */

static bool chain_has(const struct pry_route *route, enum pry_handler handler)
{
  for (size_t i = 0; i < route->chain_size; i++)
    if (route->chain[i]->handlers & PRY_HANDLER_BIT(handler))
      return true;
  return false;
}

static void no_step(struct pry_pass *pass, enum pry_pass_result result)
{
  (void)pass, (void)result; /* whoever would wait is skipped */
}

static void note_refusal(const struct pry_ask *ask, struct pry_host_refusal *refusal)
{
  refusal->refused = true;
  refusal->after = ask->verdict.after;
  pry_slice_to_text(pry_slice_of(ask->instance->name), refusal->policy, sizeof refusal->policy);
  pry_slice_to_text(pry_slice_of(ask->verdict.why), refusal->why, sizeof refusal->why);
}

void pry_asking_guards(struct pry_asking *asking, struct pry_host_refusal *refusal)
{
  struct pry_pass *guards = &asking->guards;
  refusal->refused = false;
  if (!chain_has(asking->route, PRY_ON_ATTEMPT))
    return;
  guards->ask.call = &asking->view;
  guards->ask.permits = &asking->permits;
  guards->step = no_step;
  struct pry_state *state = asking->pass.running ? asking->pass.state : asking->desk->worker->state;
  enum pry_pass_result result = pry_pass_start(guards, state, asking->route, PRY_ON_ATTEMPT);
  while (result != PRY_PASS_END && !refusal->refused) {
    if (result == PRY_PASS_VERDICT && guards->ask.verdict.kind == PRY_VERDICT_REFUSE)
      note_refusal(&guards->ask, refusal);
    else
      result = result == PRY_PASS_PENDING ? pry_pass_skip(guards) : pry_pass_next(guards);
  }
  pry_pass_stop(guards);
}

void pry_asking_wait(struct pry_asking *asking)
{
  pry_list_push(&asking->desk->pending, &asking->link);
}

/* ---- desks ------------------------------------------------------------------------------------------------------ */

unsigned pry_host_deciders(const struct parry_options *options)
{
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  if (options->deciders)
    return options->deciders < PRY_DECIDERS_MAX ? options->deciders : PRY_DECIDERS_MAX;
  if (!options->threads || cores < 2)
    return 1;
  return cores < DECIDERS_WITH_THREADS ? (unsigned)cores : DECIDERS_WITH_THREADS;
}

bool pry_host_decisions_init(struct pry_host *host)
{
  unsigned count = host->engine->decider_count;
  struct pry_host_decisions *decisions = calloc(1, sizeof *decisions + count * sizeof *decisions->desks);
  if (!decisions)
    return false;
  decisions->count = count;
  for (unsigned i = 0; i < count; i++) {
    struct pry_desk *desk = &decisions->desks[i];
    desk->worker = host->engine->workers[host->engine->worker_count + i];
    pry_list_init(&desk->pending);
    pry_list_init(&desk->free);
    pthread_mutex_init(&desk->lock, NULL); /* cannot fail without attributes on Linux */
  }
  host->decisions = decisions;
  decisions->budget = pry_host_budget_new();
  return decisions->budget;
}

void pry_host_decisions_end(struct pry_host *host)
{
  for (unsigned i = 0; i < host->decisions->count; i++) {
    struct pry_desk *desk = &host->decisions->desks[i];
    pry_decider_enter(desk->worker);
    while (!pry_list_empty(&desk->pending))
      pry_decision_cancel(PRY_CONTAINER_OF(desk->pending.next, struct pry_asking, link));
    pry_decider_leave(desk->worker);
  }
}

void pry_host_decisions_fini(struct pry_host *host)
{
  if (!host->decisions)
    return;
  for (unsigned i = 0; i < host->decisions->count; i++) {
    struct pry_desk *desk = &host->decisions->desks[i];
    while (!pry_list_empty(&desk->free)) {
      struct pry_asking *asking = PRY_CONTAINER_OF(desk->free.next, struct pry_asking, link);
      pry_list_remove(&asking->link);
      fini_asking(asking);
    }
    pthread_mutex_destroy(&desk->lock);
  }
  pry_host_budget_free(host->decisions->budget);
  free(host->decisions);
  host->decisions = NULL;
}

struct pry_desk *pry_desk_enter(struct pry_host *host, int *error)
{
  struct pry_host_decisions *decisions = host->decisions;
  /* Threads begin at different ones, and each at the one whose state is warm in its cache. */
  unsigned first = (unsigned)(((uintptr_t)pthread_self() >> 12) % decisions->count);
  struct pry_desk *desk = NULL;
  for (unsigned i = 0; i < decisions->count && !desk; i++) {
    struct pry_desk *candidate = &decisions->desks[(first + i) % decisions->count];
    desk = pry_decider_try_enter(candidate->worker) ? candidate : NULL;
  }
  if (!desk) {
    desk = &decisions->desks[first];
    pry_decider_enter(desk->worker);
  }
  if (desk->worker->state)
    return desk;
  pry_decider_leave(desk->worker);
  *error = PARRY_EPOLICY;
  return NULL;
}

/* ---- reading an event ------------------------------------------------------------------------------------------- */

int pry_event_take(const struct parry_event *event, struct parry_event *ours)
{
  if (!event || !pry_host_take(ours, sizeof *ours, event) || (ours->header_count && !ours->headers) ||
      (ours->body_size && !ours->body))
    return PARRY_EINVAL;
  if (ours->status && (ours->status < 100 || ours->status >= 600))
    return PARRY_EINVAL;
  if (!ours->ok && ours->category && !pry_category_from_name(pry_slice_of(ours->category)))
    return PARRY_EINVAL;
  struct pry_slice fields = pry_slice_of(ours->name && ours->fields ? ours->fields : "{}");
  struct pry_json_value value;
  if (fields.size > FIELDS_MAX || pry_json_parse(fields, &value) != PRY_JSON_OK || value.type != PRY_JSON_OBJECT)
    return PARRY_EINVAL;
  return PARRY_OK;
}

static void set_target(struct pry_asking *asking, const char *name, unsigned attempts)
{
  struct pry_target *target = &asking->view.target;
  struct pry_slice whole = pry_slice_of(name);
  const char *slash = whole.size ? memchr(whole.data, '/', whole.size) : NULL;
  struct pry_slice provider = {whole.data, slash ? (size_t)(slash - whole.data) : whole.size};
  pry_slice_to_text(whole, target->name, sizeof target->name);
  pry_slice_to_text(slash ? (struct pry_slice){slash + 1, whole.size - provider.size - 1} : (struct pry_slice){"", 0},
                    target->model, sizeof target->model);
  target->provider =
      provider.size ? pry_config_provider(asking->desk->worker->state->generation->config, provider) : NULL;
  target->attempts = attempts;
}

/* For a target that no provider of ours is. */
static const struct pry_dialect *generic(const struct pry_asking *asking)
{
  const struct pry_dialect *named =
      pry_config_dialect(asking->desk->worker->state->generation->config, pry_dialect_generic.name);
  return named ? named : &pry_dialect_generic;
}

/* A script reads what the answer says; where the host gave the category and nothing to read, nobody needs to. */
static struct pry_failure classify(const struct pry_asking *asking, const struct parry_event *event)
{
  const struct pry_provider *provider = asking->view.target.provider;
  struct pry_answer_view answer = {.provider = provider ? provider->name : "",
                                   .status = event->status,
                                   .headers = &asking->headers,
                                   .body = {event->body, event->body_size}};
  if (answer.body.size > BODY_LOOKED_AT)
    answer.body.size = BODY_LOOKED_AT;
  if (event->curl_code)
    return pry_failure_from_curl(event->curl_code, pry_curl_code_sent(event->curl_code));
  bool read = !event->category || event->body_size;
  return pry_classify(read ? asking->desk->worker->state : NULL, provider ? provider->dialect : generic(asking),
                      &answer, pry_worker_unix_time(asking->desk->worker));
}

static void overrule(const struct pry_asking *asking, struct pry_failure *failure, const struct parry_event *event)
{
  struct pry_scrubber *scrubber = asking->host->engine->scrubber;
  enum pry_category category = event->category ? pry_category_from_name(pry_slice_of(event->category)) : PRY_NONE;
  if (category)
    pry_failure_set_category(failure, category);
  else if (!failure->category)
    pry_failure_set_category(failure, PRY_UNKNOWN);
  failure->retryable = failure->retryable && !failure->retry_forbidden;
  if (event->code) {
    pry_failure_set_code(failure, pry_slice_of(event->code));
    pry_scrubber_apply_text(scrubber, failure->code);
  }
  if (event->message) {
    pry_failure_set_message(failure, pry_slice_of(event->message));
    pry_scrubber_apply_text(scrubber, failure->message);
  }
  if (event->retry_after > 0)
    failure->retry_after = event->retry_after < PRY_RETRY_AFTER_MAX ? event->retry_after : PRY_RETRY_AFTER_MAX;
  if (event->not_sent)
    failure->sent = false;
}

/* "d_" decider "_" number, in base 16. */
static void set_id(struct pry_asking *asking)
{
  static const char digits[] = "0123456789abcdef";
  uint64_t parts[] = {asking->desk->worker->index, ++asking->desk->next};
  char *to = asking->view.id;
  *to++ = 'd';
  for (size_t i = 0; i < 2; i++) {
    char reversed[16];
    size_t count = 0;
    do
      reversed[count++] = digits[parts[i] & 15];
    while ((parts[i] >>= 4));
    *to++ = '_';
    while (count)
      *to++ = reversed[--count];
  }
  *to = '\0';
}

static void fill_view(struct pry_asking *asking, const struct parry_event *event)
{
  struct pry_call_view *view = &asking->view;
  const struct pry_worker *worker = asking->desk->worker;
  unsigned attempt = event->attempt ? event->attempt : 1;
  set_id(asking);
  view->route = asking->route->pattern;
  view->dialect = "openai";
  view->method = PRY_SLICE("POST");
  view->path = PRY_SLICE("");
  view->attempt = attempt;
  view->deadline = pry_worker_now(worker) +
                   (event->deadline_left > 0 ? pry_time_from_seconds(event->deadline_left) : asking->route->deadline);
  view->repeatable = !event->not_repeatable;
  view->headers = NULL; /* there is no request of a client's */
  set_target(asking, event->target && event->target[0] ? event->target : PRY_TARGET_UNKNOWN, attempt);
  memcpy(view->model, view->target.model, sizeof view->model);
  view->ledger = &asking->attempt;
  view->ledger_count = 1;
}

static void fill_attempt(struct pry_asking *asking, const struct parry_event *event)
{
  struct pry_attempt *attempt = &asking->attempt;
  double seconds = event->seconds > 0 && isfinite(event->seconds) ? event->seconds : 0;
  memcpy(attempt->target, asking->view.target.name, sizeof attempt->target);
  attempt->status = event->status;
  attempt->ended = pry_worker_unix_time(asking->desk->worker);
  attempt->started = attempt->ended - seconds;
  attempt->first_byte = seconds; /* hosts know no other; for those who judge slowness */
  attempt->category = event->ok ? PRY_NONE : asking->failure.category;
  if (!event->ok)
    attempt->failure = asking->failure;
}

static bool copy_event(struct pry_asking *asking, const struct parry_event *event)
{
  struct pry_buffer *text = &asking->text;
  size_t name_size = event->name ? strlen(event->name) + 1 : 0;
  if (!event->name)
    return true;
  if (!pry_buffer_append(text, event->name, name_size) ||
      !pry_buffer_append_text(text, event->fields ? event->fields : "{}"))
    return false;
  asking->event.name = text->data;
  asking->event.fields = (struct pry_slice){text->data + name_size, text->size - name_size};
  return true;
}

static const struct pry_route *find_route(const struct pry_config *config, const char *pattern)
{
  return pattern ? pry_config_route_by_pattern(config, pattern) : config->route_count ? &config->routes[0] : NULL;
}

struct pry_asking *pry_asking_new(struct pry_desk *desk, struct pry_host *host, const struct parry_event *event,
                                  int *error)
{
  const struct pry_route *route = find_route(desk->worker->state->generation->config, event->route);
  struct pry_asking *asking = route ? take_asking(desk, host) : NULL;
  *error = route ? PARRY_ENOMEM : PARRY_EINVAL;
  if (!asking)
    return NULL;
  asking->route = route;
  *error = copy_event(asking, event) ? pry_host_headers(event->headers, event->header_count, &asking->headers)
                                     : PARRY_ENOMEM;
  if (*error == PARRY_OK) {
    fill_view(asking, event);
    if (!event->ok) {
      asking->failure = classify(asking, event);
      overrule(asking, &asking->failure, event);
    }
    fill_attempt(asking, event);
    struct pry_ask *ask = &asking->pass.ask;
    ask->call = &asking->view;
    ask->failure = event->ok ? NULL : &asking->failure;
    ask->attempt = &asking->attempt;
    ask->fields = &asking->headers;
    ask->event = event->name ? &asking->event : NULL;
    asking->pass.user = asking;
    return asking;
  }
  pry_asking_free(asking);
  return NULL;
}
