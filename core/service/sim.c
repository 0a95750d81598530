#include "sim_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- Scripted models ------------------------------------------------------------------------------------ */

static const struct {
  const char *model, *spec;
} SCRIPTED[] = {
    {"sim-ok", ""},
    {"sim-429", "code=429;retry-after=1;times=1"},
    {"sim-500", "code=500;times=1"},
    {"sim-503", "code=503;times=1"},
    {"sim-529", "code=529;times=1"},
    {"sim-reset", "code=reset;times=1"},
    {"sim-hang", "code=hang;times=1"},
    {"sim-cut", "code=cut;times=1"},
    {"sim-error-200", "code=error-200;times=1"},
    {"sim-expired", "code=expired;times=1"},
    {"sim-2005", "code=-2005;times=1"},
    {"sim-cut-after", "code=cut-after"},
    {"sim-slow", "code=slow;delay=0.2"},
    {"sim-quota", "code=quota"},
    {"sim-down", "code=503"},
};

bool pry_sim_scripted(size_t i, const char **model, const char **spec)
{
  if (i >= sizeof SCRIPTED / sizeof *SCRIPTED)
    return false;
  *model = SCRIPTED[i].model;
  *spec = SCRIPTED[i].spec;
  return true;
}

/* ---- Which fault strikes -------------------------------------------------------------------------------- */

static bool find_scripted(const struct pry_sim_call *call, struct pry_sim_fault *fault)
{
  char ignored[8];
  for (size_t i = 0; !call->sim->options.no_scripted && i < sizeof SCRIPTED / sizeof *SCRIPTED; i++)
    if (strcmp(SCRIPTED[i].model, call->model) == 0 && *SCRIPTED[i].spec) {
      bool ok = pry_sim_fault_parse(fault, pry_slice_of(SCRIPTED[i].spec), ignored, sizeof ignored);
      fault->by_turns = fault->times > 0 && !call->key[0];
      return ok;
    }
  return false;
}

static bool find_rule(const struct pry_sim_call *call, struct pry_sim_fault *fault)
{
  const struct pry_list *rules = &call->sim->rules;
  for (const struct pry_list *link = rules->next; link != rules; link = link->next) {
    const struct pry_sim_rule *rule = PRY_CONTAINER_OF(link, struct pry_sim_rule, link);
    if (strcmp(rule->model, call->model) == 0) {
      *fault = rule->fault;
      return true;
    }
  }
  return false;
}

/* It goes into JSON and must not end a string there. */
static void keep_plain(char *text)
{
  for (; *text; text++)
    if (*text < 0x20 || *text == 0x7F || *text == '"' || *text == '\\')
      *text = '?';
}

/* False: the header is no fault; call->refusal says why. */
static bool find_fault(struct pry_sim_call *call, struct pry_sim_fault *fault, bool *found)
{
  struct pry_slice spec;
  char problem[PRY_SIM_PROBLEM_MAX];
  *found = true;
  if (pry_headers_get(call->request->headers, PRY_SLICE("x-sim-fault"), &spec)) {
    if (pry_sim_fault_parse(fault, spec, problem, sizeof problem))
      return true;
    snprintf(call->problem, sizeof call->problem, "parry sim cannot read the x-sim-fault header: %s", problem);
    keep_plain(call->problem);
    call->refusal = call->problem;
    return false;
  }
  *found = pry_sim_request_read_fault(call, fault) || find_rule(call, fault) || find_scripted(call, fault);
  return true;
}

static void refuse_call(struct pry_sim_call *call, int code, const char *name)
{
  call->fault = (struct pry_sim_fault){.kind = PRY_SIM_STATUS, .code = code, .delay = -1, .times = -1};
  snprintf(call->fault.name, sizeof call->fault.name, "%s", name);
}

static void choose_fault(struct pry_sim_call *call)
{
  struct pry_sim_fault fault;
  bool found;
  call->fault = (struct pry_sim_fault){.kind = PRY_SIM_NO_FAULT, .delay = -1, .times = -1};
  if (!pry_sim_token_allows(call)) {
    refuse_call(call, 401, "expired");
    return;
  }
  if (call->shape == PRY_SIM_UNKNOWN) {
    refuse_call(call, 404, "no-route");
    return;
  }
  if (!find_fault(call, &fault, &found) || (call->refusal && !found)) {
    refuse_call(call, 400, "refused");
    return;
  }
  struct pry_sim_table *table = call->key[0] ? &call->sim->keys : &call->sim->models;
  struct pry_sim_count *count = pry_sim_table_get(table, pry_slice_of(call->key[0] ? call->key : call->model));
  if (found && count && pry_sim_fault_strikes(&fault, count))
    call->fault = fault;
  else if (call->refusal)
    refuse_call(call, 400, "refused");
}

/* ---- A call from head to end ---------------------------------------------------------------------------- */

static void call_free(struct pry_sim_call *call)
{
  pry_timer_cancel(&call->timer);
  pry_list_remove(&call->link);
  pry_sim_body_unref(call->body);
  pry_buffer_fini(&call->text);
  pry_buffer_fini(&call->answer);
  free(call);
}

static struct pry_sim_call *call_new(struct pry_sim *sim)
{
  struct pry_sim_call *call = calloc(1, sizeof *call);
  if (!call)
    return NULL;
  pry_list_init(&call->link);
  call->body = pry_sim_body_new();
  if (call->body)
    return call;
  call->sim = sim;
  call_free(call);
  return NULL;
}

static void *on_head(void *user, struct pry_exchange *exchange, const struct pry_server_request *request)
{
  struct pry_sim *sim = user;
  struct pry_sim_call *call = call_new(sim);
  if (!call) {
    pry_reply_text(exchange, 503, NULL, PRY_SLICE(""));
    return NULL;
  }
  call->sim = sim;
  call->exchange = exchange;
  call->request = request;
  call->id = ++sim->next_id;
  pry_list_push(&sim->calls, &call->link);
  pry_sim_request_read_head(call, sim->options.kimi);
  return call;
}

static void on_body(void *user, struct pry_slice data)
{
  struct pry_sim_call *call = user;
  if (!pry_buffer_append_slice(&call->body->bytes, data))
    pry_sim_call_fail(call);
}

static bool is_secret(struct pry_slice name)
{
  return pry_slice_equal_nocase(name, PRY_SLICE("authorization")) ||
         pry_slice_equal_nocase(name, PRY_SLICE("x-api-key")) || pry_slice_equal_nocase(name, PRY_SLICE("cookie")) ||
         pry_slice_equal_nocase(name, PRY_SLICE("proxy-authorization"));
}

static void say_header(struct pry_sim_text *text, struct pry_header line)
{
  char digest[9];
  pry_sim_say(text, "[\"");
  pry_sim_say_json(text, line.name);
  pry_sim_say(text, "\",\"");
  if (is_secret(line.name)) {
    pry_sim_digest(line.value, digest);
    pry_sim_say(text, "sha8:%s", digest);
  } else {
    pry_sim_say_json(text, line.value);
  }
  pry_sim_say(text, "\"]");
}

/* For /sim/last and /sim/last-headers. Without memory the last one is simply not known. A request without a body, as health
 * checks are, leaves the last body what it was. */
static void remember_last(struct pry_sim_call *call)
{
  struct pry_sim *sim = call->sim;
  const struct pry_headers *headers = call->request->headers;
  if (call->body && call->body->bytes.size) {
    pry_sim_body_unref(sim->last_body);
    sim->last_body = pry_sim_body_ref(call->body);
  }
  pry_buffer_clear(&sim->last_head);
  struct pry_sim_text text = {&sim->last_head, true};
  pry_sim_say(&text, "{\"method\":\"");
  pry_sim_say_json(&text, call->request->method);
  pry_sim_say(&text, "\",\"target\":\"");
  pry_sim_say_json(&text, call->request->target);
  pry_sim_say(&text, "\",\"headers\":[");
  for (size_t i = 0; i < headers->count; i++) {
    pry_sim_say(&text, i ? "," : "");
    say_header(&text, pry_headers_at(headers, i));
  }
  pry_sim_say(&text, "]}\n");
  if (!text.ok)
    pry_buffer_clear(&sim->last_head);
}

static void begin_recent(struct pry_sim_call *call)
{
  struct pry_sim_recent *recent = &call->recent;
  struct pry_slice path = call->request->path, credential;
  if (!pry_headers_get(call->request->headers, PRY_SLICE("authorization"), &credential))
    pry_headers_get(call->request->headers, PRY_SLICE("x-api-key"), &credential);
  snprintf(recent->path, sizeof recent->path, "%.*s", path.size < 95 ? (int)path.size : 95, path.data);
  snprintf(recent->model, sizeof recent->model, "%.63s", call->model);
  snprintf(recent->key, sizeof recent->key, "%.63s", call->key);
  pry_sim_digest(credential, recent->digest);
}

static void count_call(struct pry_sim_call *call)
{
  struct pry_sim *sim = call->sim;
  begin_recent(call);
  call->counted = true;
  sim->total++;
  sim->open++;
  struct pry_sim_count *count = call->model[0] ? pry_sim_table_get(&sim->models, pry_slice_of(call->model)) : NULL;
  if (count)
    count->calls++;
  count = call->key[0] ? pry_sim_table_get(&sim->keys, pry_slice_of(call->key)) : NULL;
  if (count)
    count->calls++;
}

static void on_end(void *user)
{
  struct pry_sim_call *call = user;
  if (call->shape == PRY_SIM_CONTROL) {
    pry_sim_control_serve(call);
    return;
  }
  if (call->shape == PRY_SIM_TOKEN || call->shape == PRY_SIM_TOKEN_KIMI) {
    pry_sim_token_serve(call);
    return;
  }
  bool has_body = call->shape != PRY_SIM_MODELS && call->shape != PRY_SIM_UNKNOWN;
  if (has_body && !pry_sim_request_read_body(call)) {
    pry_sim_call_fail(call);
    return;
  }
  count_call(call);
  remember_last(call);
  choose_fault(call);
  pry_sim_play(call);
}

static void on_writable(void *user)
{
  pry_sim_play_on(user);
}

static void report(struct pry_sim_call *call)
{
  const struct pry_sim_options *options = &call->sim->options;
  const struct pry_sim_recent *recent = &call->recent;
  if (!options->report)
    return;
  char line[320], status[16] = "no answer";
  if (recent->status)
    snprintf(status, sizeof status, "%d", recent->status);
  snprintf(line, sizeof line, "%s  %s  %s%s%s%s", recent->path, recent->model[0] ? recent->model : "-", status,
           call->fault.name[0] ? ", " : "", call->fault.name, recent->cancelled ? ", the client left" : "");
  for (char *c = line; *c; c++) /* what the client chose must not write on somebody's terminal */
    if ((unsigned char)*c < ' ' || *c == 127)
      *c = '?';
  options->report(options->user, line);
}

static void call_over(struct pry_sim_call *call, bool cancelled)
{
  if (call->counted) {
    call->sim->open--;
    call->sim->cancelled += cancelled;
    call->recent.cancelled = cancelled;
    call->sim->recent[call->sim->recent_count++ % PRY_SIM_RECENT_MAX] = call->recent;
    report(call);
  }
  call_free(call);
}

static void on_gone(void *user)
{
  call_over(user, true);
}

void pry_sim_call_done(struct pry_sim_call *call)
{
  call_over(call, false);
}

void pry_sim_call_fail(struct pry_sim_call *call)
{
  pry_reply_abort(call->exchange);
  call_over(call, false);
}

/* ---- Replies -------------------------------------------------------------------------------------------- */

static bool fill_headers(const struct pry_sim_call *call, const char *content_type, struct pry_headers *headers)
{
  char id[48];
  snprintf(id, sizeof id, "req_sim_%lu", call->id);
  bool ok = pry_headers_add(headers, PRY_SLICE("Content-Type"), pry_slice_of(content_type));
  if (!call->counted)
    return ok;
  bool anthropic = call->dialect == PRY_SIM_ANTHROPIC;
  ok =
      ok && pry_headers_add(headers, anthropic ? PRY_SLICE("request-id") : PRY_SLICE("x-request-id"), pry_slice_of(id));
  if (call->fault.retry_after[0] && call->dialect != PRY_SIM_GEMINI) /* Google says it in the body */
    ok = ok && pry_headers_add(headers, PRY_SLICE("retry-after"), pry_slice_of(call->fault.retry_after));
  if (call->fault.retry_after_ms[0])
    ok = ok && pry_headers_add(headers, PRY_SLICE("retry-after-ms"), pry_slice_of(call->fault.retry_after_ms));
  return ok;
}

bool pry_sim_start(struct pry_sim_call *call, int status, const char *content_type, int64_t size)
{
  struct pry_headers headers;
  pry_headers_init(&headers);
  call->recent.status = status;
  bool ok = fill_headers(call, content_type, &headers) && pry_reply_start(call->exchange, status, &headers, size);
  pry_headers_fini(&headers);
  return ok;
}

void pry_sim_reply(struct pry_sim_call *call, int status, const char *content_type, struct pry_slice body)
{
  if (!pry_sim_start(call, status, content_type, (int64_t)body.size)) {
    pry_sim_call_fail(call);
    return;
  }
  pry_reply_write(call->exchange, body);
  pry_reply_end(call->exchange);
  pry_sim_call_done(call);
}

/* ---- The object ----------------------------------------------------------------------------------------- */

static bool parse_rule(struct pry_sim_rule *rule, const char *text, char *error, size_t error_size)
{
  const char *equals = strchr(text, '=');
  if (!equals || equals == text || (size_t)(equals - text) >= PRY_SIM_NAME_MAX) {
    snprintf(error, error_size, "bad fault '%.100s': write MODEL=SPEC, such as 'kimi-k2=code=503;times=1'", text);
    return false;
  }
  memcpy(rule->model, text, (size_t)(equals - text));
  char problem[PRY_SIM_PROBLEM_MAX];
  if (pry_sim_fault_parse(&rule->fault, pry_slice_of(equals + 1), problem, sizeof problem))
    return true;
  snprintf(error, error_size, "bad fault '%.100s': %s", text, problem);
  return false;
}

bool pry_sim_check_fault(const char *text, char *error, size_t error_size)
{
  struct pry_sim_rule rule = {0};
  return parse_rule(&rule, text, error, error_size);
}

static bool add_rule(struct pry_sim *sim, const char *text, char *error, size_t error_size)
{
  struct pry_sim_rule *rule = calloc(1, sizeof *rule);
  if (!rule) {
    snprintf(error, error_size, "out of memory");
    return false;
  }
  pry_list_push(&sim->rules, &rule->link);
  return parse_rule(rule, text, error, error_size);
}

struct pry_sim *pry_sim_new(struct pry_loop *loop, const char *address, const struct pry_sim_options *options,
                            char *error, size_t error_size)
{
  static const struct pry_server_ops OPS = {on_head, on_body, on_end, on_writable, on_gone};
  struct pry_server_options server_options = {.max_body = PRY_SIM_BODY_MAX};
  struct pry_sim *sim = calloc(1, sizeof *sim);
  if (!sim) {
    snprintf(error, error_size, "out of memory");
    return NULL;
  }
  sim->loop = loop;
  pry_list_init(&sim->calls);
  pry_list_init(&sim->rules);
  pry_sim_table_init(&sim->models);
  pry_sim_table_init(&sim->keys);
  pry_sim_tokens_init(&sim->tokens);
  pry_buffer_init(&sim->last_head, 0);
  if (options)
    sim->options = *options;
  bool ok = true;
  for (size_t i = 0; ok && i < sim->options.fault_count; i++)
    ok = add_rule(sim, sim->options.faults[i], error, error_size);
  sim->options.faults = NULL; /* the caller's; copied */
  if (ok)
    sim->server = pry_server_new(loop, address, &server_options, &OPS, sim, error, error_size);
  if (sim->server)
    return sim;
  pry_sim_free(sim);
  return NULL;
}

const char *pry_sim_address(const struct pry_sim *sim)
{
  return pry_server_address(sim->server);
}

struct pry_sim_stats pry_sim_stats(const struct pry_sim *sim)
{
  return (struct pry_sim_stats){.total = sim->total,
                                .open = sim->open,
                                .cancelled = sim->cancelled,
                                .renewals = sim->tokens.renewals,
                                .token_requests = sim->tokens.requests};
}

void pry_sim_free(struct pry_sim *sim)
{
  if (!sim)
    return;
  sim->options.report = NULL;
  pry_server_free(sim->server); /* ends every call */
  while (!pry_list_empty(&sim->rules)) {
    struct pry_sim_rule *rule = PRY_CONTAINER_OF(sim->rules.next, struct pry_sim_rule, link);
    pry_list_remove(&rule->link);
    free(rule);
  }
  pry_sim_table_clear(&sim->models);
  pry_sim_table_clear(&sim->keys);
  pry_sim_body_unref(sim->last_body);
  pry_buffer_fini(&sim->last_head);
  free(sim);
}
