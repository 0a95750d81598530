#include "test_world.h"

#include "loader.h"

#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>
#include <lua.h>

enum { TURNS_MAX = 1000000, SETTLE_TURNS_MAX = 200, OPEN_QUESTIONS_MAX = 4096, BODY_MAX = 16 * 1024 * 1024 };

#define UNIX_START 1767225600.0 /* 2026-01-01, a Thursday, 00:00 UTC */
#define RUN_MAX (86400 * PRY_SECOND)

static const char route_pattern[] = "/v1/*";

/* ---- making -------------------------------------------------------------------------------------------- */

static bool make_engine(struct pry_world *world, const struct pry_script_limits *limits)
{
  world->loop = pry_loop_new_virtual(UNIX_START);
  world->script = world->loop ? pry_http_script_new(world->loop) : NULL;
  if (!world->script)
    return false;
  struct pry_engine_options options = {
      .loop = world->loop,
      .http = pry_http_script_client(world->script),
      .loader = &pry_lua_test_loader,
      .limits = *limits,
      .seed = 1, /* every run of a test is the same */
  };
  world->engine = pry_engine_new(&options);
  return world->engine != NULL;
}

static bool declare_default_provider(struct pry_world *world)
{
  bool openai = pry_policy_set_find(world->set, "dialects/openai.lua") != NULL;
  struct pry_world_item *route = pry_world_item(world, "route", route_pattern);
  struct pry_world_item *provider = pry_world_item(world, "provider", "p");
  return route && provider && pry_world_set(world, route, "to", PRY_SLICE("\"p\"")) &&
         pry_world_set(world, provider, "base_url", PRY_SLICE("\"http://p.test/v1\"")) &&
         pry_world_set(world, provider, "dialect", openai ? PRY_SLICE("\"openai\"") : PRY_SLICE("\"generic\""));
}

struct pry_world *pry_world_new(const struct pry_policy_set *set, const struct pry_script_limits *limits)
{
  struct pry_world *world = calloc(1, sizeof *world);
  if (!world)
    return NULL;
  world->set = set;
  world->dirty = true;
  pry_list_init(&world->items);
  pry_list_init(&world->calls);
  pry_list_init(&world->replies);
  pry_buffer_init(&world->chain, PRY_POLICY_FILE_MAX / 2);
  pry_buffer_init(&world->declared, PRY_POLICY_FILE_MAX / 4);
  if (make_engine(world, limits) && declare_default_provider(world))
    return world;
  pry_world_free(world);
  return NULL;
}

static void free_item(struct pry_world_item *item)
{
  for (size_t i = 0; i < item->field_count; i++) {
    free(item->fields[i].key_copy);
    free(item->fields[i].text);
  }
  free(item);
}

static void free_call(struct pry_world_call *call)
{
  pry_headers_fini(&call->headers);
  pry_buffer_fini(&call->body);
  pry_headers_fini(&call->attempt.headers);
  pry_buffer_fini(&call->attempt.body);
  free(call->ledger);
  free(call);
}

/* One answer of the host's on its way. */
struct reply {
  struct pry_list link;
  struct pry_timer timer;
  struct pry_world *world;
  parry_request_id request;
  char *json, *failure;
};

static void free_reply(struct reply *reply)
{
  pry_list_remove(&reply->link);
  pry_timer_cancel(&reply->timer);
  free(reply->json);
  free(reply->failure);
  free(reply);
}

static void free_replies(struct pry_world *world)
{
  while (!pry_list_empty(&world->replies))
    free_reply(PRY_CONTAINER_OF(world->replies.next, struct reply, link));
}

void pry_world_free(struct pry_world *world)
{
  if (!world)
    return;
  pry_engine_free(world->engine);
  pry_functions_free(world->functions);
  free_replies(world);
  if (world->script)
    pry_http_free(pry_http_script_client(world->script));
  pry_loop_free(world->loop);
  while (!pry_list_empty(&world->calls)) {
    struct pry_world_call *call = PRY_CONTAINER_OF(world->calls.next, struct pry_world_call, link);
    pry_list_remove(&call->link);
    free_call(call);
  }
  while (!pry_list_empty(&world->items)) {
    struct pry_world_item *item = PRY_CONTAINER_OF(world->items.next, struct pry_world_item, link);
    pry_list_remove(&item->link);
    free_item(item);
  }
  pry_buffer_fini(&world->chain);
  pry_buffer_fini(&world->declared);
  free(world);
}

/* ---- the configuration --------------------------------------------------------------------------------- */

struct pry_world_item *pry_world_item(struct pry_world *world, const char *word, const char *name)
{
  for (struct pry_list *link = world->items.next; link != &world->items; link = link->next) {
    struct pry_world_item *item = PRY_CONTAINER_OF(link, struct pry_world_item, link);
    if (strcmp(item->word, word) == 0 && strcmp(item->name, name) == 0)
      return item;
  }
  struct pry_world_item *item = calloc(1, sizeof *item);
  if (!item)
    return NULL;
  item->word = word;
  snprintf(item->name, sizeof item->name, "%s", name);
  pry_list_push(&world->items, &item->link);
  world->dirty = true;
  return item;
}

bool pry_world_set(struct pry_world *world, struct pry_world_item *item, const char *key, struct pry_slice text)
{
  size_t i = 0;
  while (i < item->field_count && strcmp(item->fields[i].key, key) != 0)
    i++;
  char *copy = strndup(text.data, text.size);
  if (!copy || i == PRY_WORLD_FIELDS_MAX) {
    free(copy);
    return false;
  }
  if (i == item->field_count) {
    item->fields[i].key_copy = strdup(key);
    if (!item->fields[i].key_copy) {
      free(copy);
      return false;
    }
    item->fields[i].key = item->fields[i].key_copy;
    item->field_count++;
  }
  free(item->fields[i].text);
  item->fields[i].text = copy;
  world->dirty = true;
  return true;
}

bool pry_world_chain(struct pry_world *world, struct pry_slice text)
{
  world->dirty = true;
  return pry_buffer_append_slice(&world->chain, text);
}

bool pry_world_declare(struct pry_world *world, struct pry_slice text)
{
  world->dirty = true;
  return pry_buffer_append_slice(&world->declared, text) && pry_buffer_append_text(&world->declared, "\n");
}

bool pry_world_quote(struct pry_buffer *out, struct pry_slice text)
{
  bool ok = pry_buffer_append_text(out, "\"");
  for (size_t i = 0; ok && i < text.size; i++) {
    unsigned char c = (unsigned char)text.data[i];
    if (c < ' ' || c == '"' || c == '\\' || c >= 0x7f)
      ok = pry_buffer_append_format(out, "\\%03u", c);
    else
      ok = pry_buffer_append(out, &text.data[i], 1);
  }
  return ok && pry_buffer_append_text(out, "\"");
}

static bool append_item(struct pry_buffer *out, const struct pry_world_item *item, const struct pry_buffer *chain)
{
  bool ok = pry_buffer_append_format(out, "%s ", item->word) && pry_world_quote(out, pry_slice_of(item->name)) &&
            pry_buffer_append_text(out, " { ");
  for (size_t i = 0; ok && i < item->field_count; i++)
    ok = pry_buffer_append_format(out, "%s = %s, ", item->fields[i].key, item->fields[i].text);
  if (ok && strcmp(item->word, "route") == 0)
    ok = pry_buffer_append_text(out, "chain = {\n") && pry_buffer_append_slice(out, pry_buffer_slice(chain)) &&
         pry_buffer_append_text(out, "}");
  return ok && pry_buffer_append_text(out, " }\n");
}

static bool write_init(const struct pry_world *world, struct pry_buffer *out)
{
  bool ok = true;
  for (const struct pry_list *link = world->items.next; ok && link != &world->items; link = link->next)
    ok = append_item(out, PRY_CONTAINER_OF(link, struct pry_world_item, link), &world->chain);
  return ok && pry_buffer_append_slice(out, pry_buffer_slice(&world->declared));
}

static bool uses(struct pry_slice init, struct pry_slice name)
{
  char part[128];
  int length = snprintf(part, sizeof part, "use \"%.*s\"", (int)name.size, name.data);
  return length < 0 || (size_t)length >= sizeof part || memmem(init.data, init.size, part, (size_t)length);
}

/* Every `use` names a policy that is there. Otherwise the others are needed, too: for the "did you mean". */
static bool uses_known_only(struct pry_slice init, const struct pry_policy_set *set)
{
  static const char word[] = "use \"";
  const char *end = init.data + init.size, *at = init.data;
  while (at < end && (at = memmem(at, (size_t)(end - at), word, sizeof word - 1))) {
    at += sizeof word - 1;
    const char *quote = memchr(at, '"', (size_t)(end - at));
    char path[128];
    int length = quote ? snprintf(path, sizeof path, "%.*s.lua", (int)(quote - at), at) : -1;
    if (length < 0 || (size_t)length >= sizeof path || !pry_policy_set_find(set, path))
      return false;
  }
  return true;
}

/* The client's own is found by the path of each call: OpenAI's, unless a call has asked for the other. */
static bool needs_dialect(const struct pry_world *world, struct pry_slice init, struct pry_slice name)
{
  char quoted[128];
  if (pry_slice_equal(name, PRY_SLICE("openai")) || (world->messages && pry_slice_equal(name, PRY_SLICE("anthropic"))))
    return true;
  int length = snprintf(quoted, sizeof quoted, "\"%.*s\"", (int)name.size, name.data);
  return length < 0 || (size_t)length >= sizeof quoted || memmem(init.data, init.size, quoted, (size_t)length);
}

/* Only what the test's configuration names is loaded: most of a test's time would go into the rest. */
static bool belongs(const struct pry_world *world, const char *path, struct pry_slice init, bool every_policy)
{
  struct pry_slice name = pry_slice_of(path), dialects = PRY_SLICE("dialects/");
  if (strcmp(path, "init.lua") == 0 || (name.size >= 9 && strcmp(path + name.size - 9, "_test.lua") == 0))
    return false;
  name.size -= strlen(".lua");
  if (pry_slice_starts_with(name, dialects))
    return needs_dialect(world, init, (struct pry_slice){name.data + dialects.size, name.size - dialects.size});
  return every_policy || strchr(path, '/') || uses(init, name);
}

static struct pry_policy_set *make_set(const struct pry_world *world)
{
  struct pry_buffer init;
  pry_buffer_init(&init, PRY_POLICY_FILE_MAX);
  struct pry_policy_set *set = pry_policy_set_new();
  bool ok = set && write_init(world, &init) && pry_policy_set_add(set, "init.lua", pry_buffer_slice(&init));
  bool every_policy = ok && !uses_known_only(pry_buffer_slice(&init), world->set);
  for (size_t i = 0; ok && i < world->set->count; i++) {
    const struct pry_policy_file *file = &world->set->files[i];
    if (belongs(world, file->path, pry_buffer_slice(&init), every_policy))
      ok = pry_policy_set_add_file(set, file);
  }
  ok = ok && pry_policy_set_seal(set);
  pry_buffer_fini(&init);
  if (ok)
    return set;
  pry_policy_set_free(set);
  return NULL;
}

/* The first error of the report: a test needs one reason. */
static void explain(struct pry_world *world, const struct pry_report *report)
{
  size_t i = 0;
  while (i < report->count && report->findings[i].severity != PRY_FINDING_ERROR)
    i++;
  if (i < report->count)
    snprintf(world->refusal, sizeof world->refusal, "%s: %s", report->findings[i].where, report->findings[i].what);
  else
    snprintf(world->refusal, sizeof world->refusal, "for no reason that was told");
  snprintf(world->error, sizeof world->error, "the configuration of this test was refused: %s", world->refusal);
}

bool pry_world_load(struct pry_world *world)
{
  if (!world->dirty)
    return true;
  struct pry_policy_set *set = make_set(world);
  if (!set) {
    snprintf(world->refusal, sizeof world->refusal, "memory is short, or the configuration is too large");
    snprintf(world->error, sizeof world->error, "%s", world->refusal);
    return false;
  }
  struct pry_report report;
  pry_report_init(&report);
  bool ok = pry_engine_load(world->engine, set, false, &report);
  if (!ok)
    explain(world, &report);
  pry_report_fini(&report);
  world->dirty = !ok;
  return ok;
}

/* ---- calls --------------------------------------------------------------------------------------------- */

static void sink_head(void *user, int status, const struct pry_headers *headers, int64_t body_size)
{
  struct pry_world_call *call = user;
  (void)body_size;
  call->status = status;
  call->lost = !pry_headers_add_all(&call->headers, headers) || call->lost;
}

static bool sink_data(void *user, struct pry_slice data)
{
  struct pry_world_call *call = user;
  call->lost = !pry_buffer_append_slice(&call->body, data) || call->lost;
  return true;
}

static void keep_ledger(struct pry_world_call *call)
{
  const struct pry_call_view *view = pry_call_get_view(call->call);
  size_t count = view->ledger_count < PRY_WORLD_LEDGER_MAX ? view->ledger_count : PRY_WORLD_LEDGER_MAX;
  call->ledger = malloc((count + 1) * sizeof *call->ledger);
  if (!call->ledger)
    return;
  if (count)
    memcpy(call->ledger, view->ledger, count * sizeof *call->ledger);
  call->ledger_count = count;
}

static void sink_done(void *user, const struct pry_outcome *outcome, bool truncated)
{
  struct pry_world_call *call = user;
  keep_ledger(call);
  call->outcome = *outcome;
  call->truncated = truncated || call->lost;
  call->ended = pry_loop_now(call->world->loop);
  call->seen_after = pry_http_script_seen_count(call->world->script);
  call->done = true;
  call->call = NULL;
}

static const struct pry_sink_ops sink_ops = {sink_head, sink_data, sink_done, NULL};

struct pry_world_call *pry_world_start(struct pry_world *world, const struct pry_call_request *request, bool hosted)
{
  if (!world->messages && pry_slice_starts_with(request->path, PRY_SLICE("/v1/messages")))
    world->messages = world->dirty = true;
  if (!pry_world_load(world))
    return NULL;
  struct pry_world_call *call = calloc(1, sizeof *call);
  if (!call) {
    snprintf(world->error, sizeof world->error, "memory is short");
    return NULL;
  }
  call->world = world;
  call->result = LUA_NOREF;
  call->started = pry_loop_now(world->loop);
  call->seen_before = pry_http_script_seen_count(world->script);
  pry_headers_init(&call->headers);
  pry_buffer_init(&call->body, BODY_MAX);
  pry_headers_init(&call->attempt.headers);
  pry_buffer_init(&call->attempt.body, BODY_MAX);
  pry_list_init(&call->link);
  struct pry_call_request asked = *request;
  asked.host = hosted ? &pry_world_host : NULL;
  call->call = pry_call_start(world->engine->control, &asked, &sink_ops, call);
  if (!call->call) {
    snprintf(world->error, sizeof world->error, "memory is short: the call could not be started");
    free_call(call);
    return NULL;
  }
  snprintf(call->id, sizeof call->id, "%s", pry_call_get_view(call->call)->id);
  pry_list_push(&world->calls, &call->link);
  world->call_count++;
  return call;
}

static const struct pry_world_call *open_call(const struct pry_world *world)
{
  for (const struct pry_list *link = world->calls.next; link != &world->calls; link = link->next) {
    const struct pry_world_call *call = PRY_CONTAINER_OF(link, struct pry_world_call, link);
    if (!call->done)
      return call;
  }
  return NULL;
}

void pry_world_settle(struct pry_world *world)
{
  for (int i = 0; i < SETTLE_TURNS_MAX; i++)
    if (!pry_loop_turn(world->loop, 0))
      return;
}

bool pry_world_run(struct pry_world *world, const struct pry_world_call *call)
{
  pry_time limit = pry_loop_now(world->loop) + RUN_MAX;
  const struct pry_world_call *waited;
  for (int turns = 0; (waited = call && !call->done ? call : call ? NULL : open_call(world)) != NULL; turns++) {
    pry_time left = limit - pry_loop_now(world->loop);
    if (left > 0 && turns < TURNS_MAX && pry_loop_turn(world->loop, left))
      continue;
    snprintf(world->error, sizeof world->error,
             "the call %s has not ended after %.0f s of virtual time; it is in state %s", waited->id,
             pry_time_to_seconds(pry_loop_now(world->loop) - waited->started), pry_call_state_name(waited->call));
    return false;
  }
  pry_world_settle(world);
  return true;
}

/* ---- requests ------------------------------------------------------------------------------------------ */

static bool ends_with(struct pry_slice text, struct pry_slice end)
{
  return text.size > end.size && memcmp(text.data + text.size - end.size, end.data, end.size) == 0;
}

enum pry_world_peer pry_world_peer(const char *url)
{
  struct pry_slice text = pry_slice_of(url);
  if (pry_slice_starts_with(text, PRY_SLICE("http://tokens.test/")))
    return PRY_PEER_TOKEN;
  if (pry_slice_starts_with(text, PRY_SLICE("https://sinks.test/")))
    return PRY_PEER_SINK;
  const char *host = strstr(url, "://");
  size_t size = host ? strcspn(host + 3, "/") : 0;
  struct pry_slice name = {host ? host + 3 : url, size};
  if (ends_with(name, PRY_SLICE(".service.test")))
    return PRY_PEER_SERVICE;
  return ends_with(name, PRY_SLICE(".example")) ? PRY_PEER_PROBE : PRY_PEER_PROVIDER;
}

size_t pry_world_count(const struct pry_world *world, enum pry_world_peer peer, size_t from, size_t to)
{
  size_t count = 0;
  for (size_t i = from; i < to; i++)
    count += pry_world_peer(pry_http_script_seen(world->script, i)->url) == peer;
  return count;
}

/* ---- events of a host ---------------------------------------------------------------------------------- */

struct emission {
  struct pry_pass pass; /* first */
  bool stepped;
  enum pry_pass_result result;
};

static void emission_step(struct pry_pass *pass, enum pry_pass_result result)
{
  struct emission *emission = (struct emission *)pass;
  emission->stepped = true;
  emission->result = result;
}

static bool take_verdict(struct emission *emission, struct pry_verdict *verdict, const char **policy)
{
  const struct pry_verdict *given = &emission->pass.ask.verdict;
  verdict->kind = given->kind;
  verdict->after = given->after;
  verdict->category = given->category;
  verdict->status = given->status;
  memcpy(verdict->message, given->message, sizeof verdict->message);
  memcpy(verdict->why, given->why, sizeof verdict->why);
  *policy = emission->pass.ask.instance->name;
  return true;
}

bool pry_world_emit(struct pry_world *world, const char *name, struct pry_slice fields, struct pry_verdict *verdict,
                    const char **policy)
{
  pry_verdict_init(verdict);
  *policy = NULL;
  if (!pry_world_load(world))
    return false;
  const struct pry_route *route =
      pry_config_route_by_pattern(pry_engine_generation(world->engine)->config, route_pattern);
  struct pry_host_event event = {name, fields};
  struct emission emission = {.pass = {.step = emission_step}};
  emission.pass.ask.event = &event;
  enum pry_pass_result result = pry_pass_start(&emission.pass, world->engine->control->state, route, PRY_ON_EVENT);
  pry_time limit = pry_loop_now(world->loop) + RUN_MAX;
  while (result == PRY_PASS_PENDING) {
    pry_time left = limit - pry_loop_now(world->loop);
    if (left <= 0 || !pry_loop_turn(world->loop, left)) {
      snprintf(world->error, sizeof world->error, "the event \"%.60s\" was not answered within a day", name);
      pry_pass_stop(&emission.pass);
      return false;
    }
    if (emission.stepped)
      result = emission.result;
  }
  if (result == PRY_PASS_VERDICT)
    take_verdict(&emission, verdict, policy);
  pry_pass_stop(&emission.pass);
  return true;
}

/* ---- functions of a host -------------------------------------------------------------------------------- */

bool pry_world_function(struct pry_world *world, const char *name, parry_function function, void *user)
{
  if (!world->functions)
    world->functions = pry_functions_new(world->engine->control->mailbox, OPEN_QUESTIONS_MAX);
  world->engine->functions = world->functions;
  int error = world->functions ? pry_functions_set(world->functions, name, function, user, false) : PARRY_ENOMEM;
  if (error == PARRY_EINVAL)
    snprintf(world->error, sizeof world->error,
             "a function's name has at most %d letters, digits, \"_\", \"-\" and \".\"", PRY_FUNCTION_NAME_MAX);
  else
    snprintf(world->error, sizeof world->error, "memory is short, or there are too many functions");
  return !error;
}

static void send_reply(void *user)
{
  struct reply *reply = user;
  (void)pry_functions_answer(reply->world->functions, reply->request.value, reply->json, reply->failure);
  free_reply(reply); /* whether somebody still waited or not */
}

bool pry_world_reply(struct pry_world *world, parry_request_id request, double delay, const char *json,
                     const char *failure)
{
  struct reply *reply = calloc(1, sizeof *reply);
  if (!reply)
    return false;
  reply->world = world;
  reply->request = request;
  reply->json = json ? strdup(json) : NULL;
  reply->failure = failure ? strdup(failure) : NULL;
  pry_list_init(&reply->link);
  pry_list_push(&world->replies, &reply->link);
  if ((!json || reply->json) && (!failure || reply->failure) &&
      pry_timer_start(world->loop, &reply->timer, pry_time_from_seconds(delay), send_reply, reply))
    return true;
  free_reply(reply);
  return false;
}
