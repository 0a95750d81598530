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

static void put_generation(struct writer *writer, const struct pry_generation *generation, bool serving)
{
  open_with(writer, "{");
  text(writer, "id", generation->id);
  boolean(writer, "serving", serving);
  number(writer, "loaded_at", generation->loaded_at);
  count(writer, "policies", generation->policies);
  count(writer, "tests", generation->tests);
  count(writer, "files", generation->set->count);
  close_with(writer, "}");
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

/* The oldest first; what somebody looks for is what hangs. */
static void put_calls(struct writer *writer, struct pry_worker *worker)
{
  enum { SHOWN_MAX = 20 };
  size_t shown = 0;
  open_with(writer, "[");
  for (struct pry_list *link = worker->calls.next; link != &worker->calls && shown < SHOWN_MAX; link = link->next) {
    const struct pry_call *call = PRY_CONTAINER_OF(link, struct pry_call, link);
    const struct pry_call_view *view = pry_call_get_view(call);
    element(writer);
    open_with(writer, "{");
    text(writer, "id", view->id);
    text(writer, "state", pry_call_state_name(call));
    text(writer, "target", view->target.name);
    count(writer, "attempt", view->attempt);
    number(writer, "seconds", pry_time_to_seconds(pry_loop_now(worker->loop) - call->arrived));
    close_with(writer, "}");
    shown++;
  }
  close_with(writer, "]");
}

static void put_process(struct writer *writer, const struct pry_admin *admin)
{
  text(writer, "version", PARRY_VERSION);
  count(writer, "pid", (unsigned long long)getpid());
  number(writer, "uptime", pry_loop_unix_time(admin->engine->worker.loop) - admin->started_at);
  boolean(writer, "ready", !admin->draining && pry_engine_generation(admin->engine));
  boolean(writer, "draining", admin->draining);
  text(writer, "listen", admin->gateway ? pry_gateway_address(admin->gateway) : NULL);
  text(writer, "admin", pry_server_address(admin->server));
  text(writer, "policies_folder", admin->folder);
  count(writer, "workers", 1);
}

static void put_load(struct writer *writer, const struct pry_admin *admin)
{
  struct pry_engine *engine = admin->engine;
  const struct pry_state *state = engine->worker.state;
  count(writer, "calls_open", engine->worker.call_count);
  name(writer, "calls");
  put_calls(writer, &engine->worker);
  count(writer, "waiting_for_a_place", pry_queue_waiting_total(engine->queues));
  count(writer, "replay_bytes", engine->replay_used);
  count(writer, "store_keys", pry_store_key_count(engine->store));
  count(writer, "script_bytes", state && state->ops->memory ? state->ops->memory(state) : 0);
  count(writer, "events_overwritten", pry_event_overwritten(engine->worker.events));
  count(writer, "faults", engine->faults);
}

static void put_parts(struct writer *writer, struct pry_engine *engine)
{
  name(writer, "breakers");
  open_with(writer, "[");
  pry_store_each_breaker(engine->store, pry_loop_now(engine->worker.loop), put_breaker, writer);
  close_with(writer, "]");
  name(writer, "credentials");
  open_with(writer, "[");
  pry_credentials_each(engine->credentials, engine->worker.loop, put_credential, writer);
  close_with(writer, "]");
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
  name(writer, "last_reload");
  if (last)
    put_outcome(writer, admin, last);
  else
    put(writer, "null");
}

/* ---- whole answers -------------------------------------------------------------------------------------------- */

bool pry_admin_status(const struct pry_admin *admin, struct pry_buffer *out)
{
  struct writer writer = {.out = out, .ok = true};
  const struct pry_generation *serving = pry_engine_generation(admin->engine);
  open_with(&writer, "{");
  put_process(&writer, admin);
  name(&writer, "generation");
  if (serving)
    put_generation(&writer, serving, true);
  else
    put(&writer, "null");
  put_reloads(&writer, admin);
  put_load(&writer, admin);
  put_parts(&writer, admin->engine);
  close_with(&writer, "}");
  put(&writer, "\n");
  return writer.ok;
}

bool pry_admin_generations(const struct pry_admin *admin, struct pry_buffer *out)
{
  struct writer writer = {.out = out, .ok = true};
  open_with(&writer, "{");
  name(&writer, "generations");
  open_with(&writer, "[");
  for (size_t i = 0; i < PRY_GENERATIONS_KEPT && admin->engine->kept[i]; i++) {
    element(&writer);
    put_generation(&writer, admin->engine->kept[i], i == 0);
  }
  close_with(&writer, "]");
  close_with(&writer, "}");
  put(&writer, "\n");
  return writer.ok;
}

static bool put_event(void *user, const struct pry_event_record *record)
{
  struct writer *writer = user;
  element(writer);
  writer->ok = writer->ok && pry_event_json(record, writer->out);
  return writer->ok;
}

bool pry_admin_events(const struct pry_admin *admin, size_t limit, struct pry_buffer *out)
{
  struct writer writer = {.out = out, .ok = true};
  open_with(&writer, "{");
  count(&writer, "overwritten", pry_event_overwritten(admin->engine->worker.events));
  name(&writer, "events");
  open_with(&writer, "[");
  pry_event_visit(admin->engine->worker.events, limit, put_event, &writer);
  close_with(&writer, "]");
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
