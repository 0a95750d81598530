/* What the admin listener says, as JSON. Every function appends one whole value; a failed append makes the whole answer
 * fail, so the pieces need not be checked one by one. */
#include "admin_internal.h"

#include "call_internal.h"
#include "job.h"
#include "parry.h"

#include <math.h>
#include <unistd.h>

/* An object or array being written. */
struct writer {
  struct pry_buffer *out;
  bool ok, first;
};

static void put(struct writer *writer, const char *text)
{
  writer->ok = writer->ok && pry_buffer_append_text(writer->out, text);
}

static void put_text(struct writer *writer, struct pry_slice text)
{
  put(writer, "\"");
  writer->ok = writer->ok && pry_buffer_append_json(writer->out, text);
  put(writer, "\"");
}

static void element(struct writer *writer)
{
  if (!writer->first)
    put(writer, ",");
  writer->first = false;
}

static void name(struct writer *writer, const char *text)
{
  element(writer);
  writer->ok = writer->ok && pry_buffer_append_format(writer->out, "\"%s\":", text);
}

static void open_with(struct writer *writer, const char *bracket)
{
  put(writer, bracket);
  writer->first = true;
}

static void close_with(struct writer *writer, const char *bracket)
{
  put(writer, bracket);
  writer->first = false;
}

static void text(struct writer *writer, const char *key, const char *value)
{
  name(writer, key);
  if (value)
    put_text(writer, pry_slice_of(value));
  else
    put(writer, "null");
}

static void count(struct writer *writer, const char *key, unsigned long long value)
{
  name(writer, key);
  writer->ok = writer->ok && pry_buffer_append_format(writer->out, "%llu", value);
}

/* Times and lengths of time; three digits are milliseconds. */
static void number(struct writer *writer, const char *key, double value)
{
  name(writer, key);
  if (isfinite(value))
    writer->ok = writer->ok && pry_buffer_append_format(writer->out, "%.3f", value);
  else
    put(writer, "null");
}

static void boolean(struct writer *writer, const char *key, bool value)
{
  name(writer, key);
  put(writer, value ? "true" : "false");
}

/* ---- parts of status ---------------------------------------------------------------------------------------- */

static void put_generation(struct writer *writer, const struct pry_generation *generation, bool serving, bool bad)
{
  open_with(writer, "{");
  text(writer, "id", generation->id);
  boolean(writer, "serving", serving);
  boolean(writer, "bad", bad);
  number(writer, "loaded_at", generation->loaded_at);
  count(writer, "policies", generation->policies);
  count(writer, "tests", generation->tests);
  count(writer, "files", generation->set->count);
  close_with(writer, "}");
}

/* From the `first` kept one on; 0 serves. */
static void put_kept(struct writer *writer, const struct pry_engine *engine, size_t first)
{
  open_with(writer, "[");
  for (size_t i = first; i < PRY_GENERATIONS_KEPT && engine->kept[i].generation; i++) {
    element(writer);
    put_generation(writer, engine->kept[i].generation, i == 0, engine->kept[i].bad);
  }
  close_with(writer, "]");
}

static void put_report(struct writer *writer, const struct pry_report *report)
{
  open_with(writer, "[");
  for (size_t i = 0; i < report->count; i++) {
    const struct pry_finding *finding = &report->findings[i];
    element(writer);
    open_with(writer, "{");
    text(writer, "severity", finding->severity == PRY_FINDING_ERROR ? "error" : "warning");
    text(writer, "where", finding->where);
    text(writer, "what", finding->what);
    close_with(writer, "}");
  }
  close_with(writer, "]");
}

static void put_outcome(struct writer *writer, const struct pry_admin *admin, const struct pry_reload_outcome *outcome)
{
  const struct pry_generation *serving = pry_engine_generation(admin->engine);
  open_with(writer, "{");
  text(writer, "result", outcome ? pry_reload_result_name(outcome->result) : "pending");
  text(writer, "generation", serving ? serving->id : NULL);
  if (outcome) {
    text(writer, "set", outcome->id[0] ? outcome->id : NULL);
    number(writer, "at", outcome->at);
    number(writer, "seconds", outcome->seconds);
    count(writer, "behind", outcome->behind);
    count(writer, "tests", outcome->report->tests_passed);
    name(writer, "report");
    put_report(writer, outcome->report);
    count(writer, "more", outcome->report->more);
  }
  close_with(writer, "}");
}

static void put_breaker(void *user, struct pry_slice key, enum pry_breaker_state state)
{
  struct writer *writer = user;
  element(writer);
  open_with(writer, "{");
  name(writer, "key");
  put_text(writer, key);
  text(writer, "state", pry_breaker_state_name(state));
  close_with(writer, "}");
}

static void put_credential(void *user, const struct pry_credential_status *status)
{
  struct writer *writer = user;
  element(writer);
  open_with(writer, "{");
  text(writer, "name", status->name);
  text(writer, "state", status->state);
  number(writer, "expires_at", status->expires_at > 0 ? status->expires_at : NAN);
  count(writer, "version", status->version);
  count(writer, "renewals", status->renewals);
  count(writer, "failures", status->failures);
  count(writer, "waiting", status->waiting);
  text(writer, "last_error", status->last_error && status->last_error[0] ? status->last_error : NULL);
  close_with(writer, "}");
}

static void put_key(void *user, const struct pry_key_status *status)
{
  struct writer *writer = user;
  element(writer);
  open_with(writer, "{");
  text(writer, "provider", status->provider);
  text(writer, "key", status->key);
  text(writer, "state", pry_key_state_name(status->state));
  number(writer, "left", status->left > 0 ? pry_time_to_seconds(status->left) : NAN);
  close_with(writer, "}");
}

static void put_keys(struct writer *writer, struct pry_engine *engine)
{
  const struct pry_generation *serving = pry_engine_generation(engine);
  name(writer, "keys");
  open_with(writer, "[");
  if (serving)
    pry_keys_each(engine->keys, serving->config, pry_loop_now(engine->control->loop), put_key, writer);
  close_with(writer, "]");
}

static void put_job(void *user, const struct pry_job_status *status)
{
  struct writer *writer = user;
  element(writer);
  open_with(writer, "{");
  text(writer, "policy", status->instance);
  count(writer, "index", status->index);
  number(writer, "period", status->period);
  number(writer, "next_in", status->next_in);
  boolean(writer, "running", status->running);
  count(writer, "runs", status->runs);
  count(writer, "skipped", status->skipped);
  count(writer, "faults", status->faults);
  close_with(writer, "}");
}

/* ---- on the workers' threads ---------------------------------------------------------------------------------- */

static void put_call(struct writer *writer, const struct pry_worker *worker, const struct pry_call *call)
{
  const struct pry_call_view *view = pry_call_get_view(call);
  element(writer);
  open_with(writer, "{");
  text(writer, "id", view->id);
  text(writer, "state", pry_call_state_name(call));
  text(writer, "target", view->target.name);
  count(writer, "attempt", view->attempt);
  number(writer, "seconds", pry_time_to_seconds(pry_loop_now(worker->loop) - call->arrived));
  close_with(writer, "}");
}

/* The oldest calls first: what somebody looks for is what hangs. */
bool pry_admin_visit_status(struct pry_worker *worker, const void *question, struct pry_buffer *text)
{
  (void)question;
  struct pry_admin_worker about = {.events_overwritten = pry_event_overwritten(worker->events),
                                   .rebuilds = atomic_load(&worker->rebuilds),
                                   .calls_open = atomic_load(&worker->call_count)};
  const struct pry_state *state = worker->state;
  if (state) {
    about.script_bytes = state->ops->memory ? state->ops->memory(state) : 0;
    memcpy(about.generation, state->generation->id, strlen(state->generation->id));
  }
  struct writer writer = {.out = text, .ok = pry_buffer_append(text, &about, sizeof about), .first = true};
  for (struct pry_list *link = worker->calls.next; link != &worker->calls && about.calls_shown < PRY_ADMIN_CALLS_MAX;
       link = link->next) {
    put_call(&writer, worker, PRY_CONTAINER_OF(link, struct pry_call, link));
    about.calls_shown++;
  }
  if (writer.ok)
    memcpy(text->data, &about, sizeof about);
  return writer.ok;
}

static bool put_record(void *user, const struct pry_event_record *record)
{
  struct pry_buffer *text = user;
  struct pry_admin_record head = {.sequence = record->sequence};
  size_t start = text->size;
  if (!pry_buffer_append(text, &head, sizeof head) || !pry_event_json(record, text))
    return false;
  head.size = text->size - start - sizeof head;
  memcpy(text->data + start, &head, sizeof head);
  return true;
}

struct gathered_records {
  struct pry_buffer *text;
  bool ok;
};

static bool gather_record(void *user, const struct pry_event_record *record)
{
  struct gathered_records *gathered = user;
  gathered->ok = put_record(gathered->text, record);
  return gathered->ok;
}

bool pry_admin_visit_events(struct pry_worker *worker, const void *limit, struct pry_buffer *text)
{
  uint64_t overwritten = pry_event_overwritten(worker->events);
  struct gathered_records gathered = {text, pry_buffer_append(text, &overwritten, sizeof overwritten)};
  if (gathered.ok)
    pry_event_visit(worker->events, *(const size_t *)limit, gather_record, &gathered);
  return gathered.ok;
}

/* ---- on the control worker's -------------------------------------------------------------------------------- */

static void put_process(struct writer *writer, const struct pry_admin *admin)
{
  text(writer, "version", PARRY_VERSION);
  count(writer, "pid", (unsigned long long)getpid());
  number(writer, "uptime", pry_loop_unix_time(admin->engine->control->loop) - admin->started_at);
  boolean(writer, "ready", !admin->draining && pry_engine_ready(admin->engine));
  boolean(writer, "draining", admin->draining);
  text(writer, "listen", admin->gateway ? pry_gateway_address(admin->gateway) : NULL);
  text(writer, "admin", pry_server_address(admin->server));
  text(writer, "policies_folder", admin->folder);
  count(writer, "workers", pry_engine_serving_count(admin->engine));
}

/* One that does not answer is shown with what is known without it. */
static void put_worker(struct writer *writer, const struct pry_engine *engine, const struct pry_round_answer *answer)
{
  struct pry_worker *worker = engine->workers[answer->worker->index];
  char where[PRY_WHERE_MAX];
  pry_worker_where(worker, where);
  element(writer);
  open_with(writer, "{");
  count(writer, "worker", worker->index);
  text(writer, "role", worker->index || engine->worker_count == 1 ? "serving" : "control");
  boolean(writer, "answers", answer->there);
  boolean(writer, "stuck", pry_worker_is_stuck(worker));
  text(writer, "where", where[0] ? where : NULL);
  boolean(writer, "adopted", !pry_engine_is_behind(engine, worker));
  count(writer, "calls_open", atomic_load(&worker->call_count));
  if (answer->there) {
    struct pry_admin_worker about;
    memcpy(&about, answer->text.data, sizeof about);
    text(writer, "generation", about.generation[0] ? about.generation : NULL);
    count(writer, "script_bytes", about.script_bytes);
    count(writer, "rebuilds", about.rebuilds);
  }
  close_with(writer, "}");
}

static void put_workers(struct writer *writer, const struct pry_engine *engine, const struct pry_round_answer *answers,
                        size_t worker_count)
{
  name(writer, "worker_list");
  open_with(writer, "[");
  for (size_t i = 0; i < worker_count; i++)
    put_worker(writer, engine, &answers[i]);
  close_with(writer, "]");
}

static void put_calls(struct writer *writer, const struct pry_round_answer *answers, size_t worker_count)
{
  size_t shown = 0;
  name(writer, "calls");
  open_with(writer, "[");
  for (size_t i = 0; i < worker_count && shown < PRY_ADMIN_CALLS_MAX; i++) {
    struct pry_admin_worker about = {0};
    if (answers[i].there)
      memcpy(&about, answers[i].text.data, sizeof about);
    if (!about.calls_shown)
      continue;
    element(writer);
    writer->ok = writer->ok && pry_buffer_append(writer->out, answers[i].text.data + sizeof about,
                                                 answers[i].text.size - sizeof about);
    shown += about.calls_shown;
  }
  close_with(writer, "]");
}

static void put_load(struct writer *writer, const struct pry_admin *admin, const struct pry_round_answer *answers,
                     size_t worker_count)
{
  struct pry_engine *engine = admin->engine;
  struct pry_admin_worker sum = {0};
  for (size_t i = 0; i < worker_count; i++) {
    struct pry_admin_worker about = {0};
    if (answers[i].there)
      memcpy(&about, answers[i].text.data, sizeof about);
    sum.script_bytes += about.script_bytes;
    sum.events_overwritten += about.events_overwritten;
  }
  put_workers(writer, engine, answers, worker_count);
  count(writer, "calls_open", pry_engine_call_count(engine));
  put_calls(writer, answers, worker_count);
  count(writer, "waiting_for_a_place", pry_queue_waiting_total(engine->queues));
  count(writer, "keys_of_places", pry_queue_key_count(engine->queues));
  count(writer, "replay_bytes", atomic_load(&engine->replay_used));
  count(writer, "store_keys", pry_store_key_count(engine->store));
  count(writer, "script_bytes", sum.script_bytes);
  count(writer, "events_overwritten", sum.events_overwritten);
}

static void put_fault(struct writer *writer, const struct pry_fault *fault)
{
  element(writer);
  open_with(writer, "{");
  number(writer, "at", fault->at);
  text(writer, "policy", fault->policy);
  text(writer, "handler", fault->handler);
  text(writer, "generation", fault->generation);
  text(writer, "fault", fault->text);
  close_with(writer, "}");
}

static void put_faults(struct writer *writer, struct pry_engine *engine)
{
  struct pry_fault faults[PRY_FAULTS_KEPT];
  size_t kept = pry_guard_faults(&engine->guard, faults, PRY_FAULTS_KEPT);
  count(writer, "faults", atomic_load(&engine->faults));
  name(writer, "last_faults");
  open_with(writer, "[");
  for (size_t i = 0; i < kept; i++)
    put_fault(writer, &faults[i]);
  close_with(writer, "]");
}

static void put_parts(struct writer *writer, struct pry_engine *engine)
{
  name(writer, "breakers");
  open_with(writer, "[");
  pry_store_each_breaker(engine->store, pry_loop_now(engine->control->loop), put_breaker, writer);
  close_with(writer, "]");
  name(writer, "credentials");
  open_with(writer, "[");
  pry_credentials_each(engine->credentials, engine->control->loop, put_credential, writer);
  close_with(writer, "]");
  put_keys(writer, engine);
  name(writer, "jobs");
  open_with(writer, "[");
  pry_jobs_each(engine->jobs, put_job, writer);
  close_with(writer, "]");
  name(writer, "alerts");
  open_with(writer, "{");
  count(writer, "queued", pry_alerts_queued(engine->alerts));
  count(writer, "open", pry_alerts_open(engine->alerts));
  close_with(writer, "}");
}

static void put_reloads(struct writer *writer, const struct pry_admin *admin)
{
  const struct pry_reload_outcome *last = admin->reloader ? pry_reloader_last(admin->reloader) : NULL;
  unsigned long commits = admin->engine->reloads;
  count(writer, "reloads", commits ? commits - 1 : 0); /* the first set was no reload */
  count(writer, "reloads_refused", admin->engine->reloads_refused);
  count(writer, "rollbacks", admin->engine->rollbacks);
  name(writer, "last_reload");
  if (last)
    put_outcome(writer, admin, last);
  else
    put(writer, "null");
}

/* ---- whole answers -------------------------------------------------------------------------------------------- */

bool pry_admin_status(const struct pry_admin *admin, const struct pry_round_answer *answers, size_t worker_count,
                      struct pry_buffer *out)
{
  struct writer writer = {.out = out, .ok = true};
  const struct pry_generation *serving = pry_engine_generation(admin->engine);
  open_with(&writer, "{");
  put_process(&writer, admin);
  name(&writer, "generation");
  if (serving)
    put_generation(&writer, serving, true, false);
  else
    put(&writer, "null");
  boolean(&writer, "last_good", admin->last_good && *admin->last_good);
  name(&writer, "kept");
  put_kept(&writer, admin->engine, 1);
  put_reloads(&writer, admin);
  put_load(&writer, admin, answers, worker_count);
  put_faults(&writer, admin->engine);
  put_parts(&writer, admin->engine);
  name(&writer, "chaos");
  writer.ok = writer.ok && pry_admin_put_chaos(admin, out);
  if (admin->keeper) {
    name(&writer, "clients");
    writer.ok = writer.ok && pry_client_keeper_json(admin->keeper, out);
  }
  close_with(&writer, "}");
  put(&writer, "\n");
  return writer.ok;
}

bool pry_admin_generations(const struct pry_admin *admin, struct pry_buffer *out)
{
  struct writer writer = {.out = out, .ok = true};
  open_with(&writer, "{");
  name(&writer, "generations");
  put_kept(&writer, admin->engine, 0);
  close_with(&writer, "}");
  put(&writer, "\n");
  return writer.ok;
}

/* ---- events of all workers, the newest first ------------------------------------------------------------------ */

/* The first record that is left of a worker's. False: none. */
static bool first_record(struct pry_slice left, struct pry_admin_record *record)
{
  if (left.size < sizeof *record)
    return false;
  memcpy(record, left.data, sizeof *record);
  return true;
}

static void put_merged(struct writer *writer, struct pry_slice *left, size_t worker_count, size_t limit)
{
  while (limit--) {
    struct pry_admin_record newest = {0}, record;
    size_t from = 0;
    for (size_t i = 0; i < worker_count; i++) {
      if (!first_record(left[i], &record) || record.sequence <= newest.sequence)
        continue;
      newest = record;
      from = i;
    }
    if (!newest.sequence)
      return;
    element(writer);
    writer->ok = writer->ok && pry_buffer_append(writer->out, left[from].data + sizeof newest, newest.size);
    left[from].data += sizeof newest + newest.size;
    left[from].size -= sizeof newest + newest.size;
  }
}

bool pry_admin_events(const struct pry_round_answer *answers, size_t worker_count, size_t limit, struct pry_buffer *out)
{
  struct writer writer = {.out = out, .ok = true};
  struct pry_slice left[PRY_WORKERS_MAX + 1];
  uint64_t overwritten = 0;
  for (size_t i = 0; i < worker_count; i++) {
    uint64_t lost = 0;
    left[i] = answers[i].text;
    if (!answers[i].there)
      continue;
    memcpy(&lost, left[i].data, sizeof lost);
    overwritten += lost;
    left[i].data += sizeof lost;
    left[i].size -= sizeof lost;
  }
  open_with(&writer, "{");
  count(&writer, "overwritten", overwritten);
  name(&writer, "events");
  open_with(&writer, "[");
  put_merged(&writer, left, worker_count, limit);
  close_with(&writer, "]");
  close_with(&writer, "}");
  put(&writer, "\n");
  return writer.ok;
}

bool pry_admin_rollback(const struct pry_admin *admin, bool done, const struct pry_report *report,
                        struct pry_buffer *out)
{
  struct writer writer = {.out = out, .ok = true};
  const struct pry_generation *serving = pry_engine_generation(admin->engine);
  open_with(&writer, "{");
  text(&writer, "result", done ? "rolled back" : "refused");
  text(&writer, "generation", serving ? serving->id : NULL);
  name(&writer, "report");
  put_report(&writer, report);
  close_with(&writer, "}");
  put(&writer, "\n");
  return writer.ok;
}

bool pry_admin_reload(const struct pry_admin *admin, const struct pry_reload_outcome *outcome, struct pry_buffer *out)
{
  struct writer writer = {.out = out, .ok = true};
  put_outcome(&writer, admin, outcome);
  put(&writer, "\n");
  return writer.ok;
}
