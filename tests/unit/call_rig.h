/*
 * call_rig.h: a call with everything around it, and no sockets and no Lua.
 *
 * A virtual loop, scripted providers "p" and "q" (http_script.h), an engine, and a chain of policies that are plain C
 * functions. What the client would see is collected in struct client. Header only: each test program has its own.
 */
#ifndef CALL_RIG_H
#define CALL_RIG_H

#include "call.h"
#include "engine.h"
#include "http_script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define RIG_UNIX_TIME 1700000000.0

enum { RIG_POLICIES_MAX = 6 };

struct rig;

typedef enum pry_ask_status (*rig_policy_fn)(struct rig *rig, struct pry_ask *ask);

/* One policy of the chain: its run function is called for the handlers it names. */
struct rig_policy {
  const char *name;
  unsigned handlers;
  rig_policy_fn run;
  struct pry_when when;
  pry_time every; /* 0: no job */
};

struct rig_state {
  struct pry_state state;
  struct rig *rig;
};

struct rig {
  struct pry_loop *loop;
  struct pry_http_script *script;
  struct pry_http *http;
  struct pry_engine *engine;
  struct rig_policy policies[RIG_POLICIES_MAX];
  size_t policy_count;
  unsigned generation;
  /* knobs for the configuration */
  pry_time deadline;
  struct pry_timeouts timeouts;
  bool with_credential;
  enum pry_condition repeatable;
  pry_time max_stream;
  pry_time early_head, slow_window;
  double slow_events;
  bool slow_cut;
  pry_time max_wait;
  bool round_robin;
  size_t keys;           /* of provider p: K1, K2, … with values key-1, key-2, … */
  const char *first_key; /* another value of K1 */
  /* what policies saw */
  unsigned runs[PRY_HANDLER_COUNT];
  struct pry_failure last_failure;
  unsigned refreshes;
  bool refresh_fails;
  double refresh_delay;
  struct pry_timer refresh_timer;
  struct pry_ask *pending;
  unsigned cancelled_asks;
  unsigned states; /* warmed and not yet freed */
  int counter;     /* for policies */
};

/* ---- a dialect like openai's, without Lua -------------------------------------------------------------- */

static inline struct pry_dialect *rig_dialect(struct pry_arena *arena, const char *name)
{
  struct pry_dialect *dialect = pry_arena_take(arena, sizeof *dialect);
  static const char *const done[] = {"[DONE]"}, *const errors[] = {"error"};
  *dialect = (struct pry_dialect){
      .name = name, .file = "dialects/test.lua", .default_lifecycle = true, .json = true, .bare_errors = true};
  dialect->end_data = (struct pry_text_list){done, 1};
  dialect->error_types = (struct pry_text_list){errors, 1};
  dialect->error_in_data.items[0].name = "error";
  dialect->error_in_data.count = 1;
  dialect->error_in_200 = dialect->error_in_data;
  assert_null(pry_json_path_compile(&dialect->content_paths.items[0], PRY_SLICE("choices.*.delta.content")));
  dialect->content_paths.count = 1;
  assert_null(pry_json_path_compile(&dialect->finish_paths.items[0], PRY_SLICE("choices.*.finish_reason")));
  dialect->finish_paths.count = 1;
  return dialect;
}

static inline void rig_give_keys(const struct rig *rig, struct pry_arena *arena, struct pry_provider *provider)
{
  static const char *const names[] = {"K1", "K2", "K3"}, *const values[] = {"key-1", "key-2", "key-3"};
  const struct pry_secret **keys = pry_arena_array(arena, rig->keys, sizeof *keys);
  struct pry_secret *secrets = pry_arena_array(arena, rig->keys, sizeof *secrets);
  for (size_t i = 0; i < rig->keys; i++) {
    secrets[i] = (struct pry_secret){names[i], i == 0 && rig->first_key ? rig->first_key : values[i], "test"};
    keys[i] = &secrets[i];
  }
  provider->auth = (struct pry_auth){.kind = PRY_AUTH_BEARER, .secret = keys[0]};
  provider->keys = keys;
  provider->key_count = rig->keys;
  provider->rotation = rig->round_robin ? PRY_ROTATE_ROUND_ROBIN : PRY_ROTATE_FIRST;
}

/* ---- configuration --------------------------------------------------------------------------------------- */

static inline struct pry_config *rig_config(struct rig *rig)
{
  struct pry_arena arena;
  pry_arena_init(&arena, 0);
  struct pry_config *config = pry_arena_take(&arena, sizeof *config);
  const struct pry_dialect **dialects = pry_arena_array(&arena, 2, sizeof *dialects);
  dialects[0] = rig_dialect(&arena, "openai");
  dialects[1] = rig_dialect(&arena, "other");
  struct pry_credential_config *credential = pry_arena_take(&arena, sizeof *credential);
  struct pry_secret *secret = pry_arena_take(&arena, sizeof *secret);
  *secret = (struct pry_secret){"TOKEN", "first-token", "test"};
  *credential = (struct pry_credential_config){.name = "cred",
                                               .refresh_token = secret,
                                               .access_token = secret,
                                               .token_url = "https://p/token",
                                               .grant = "oauth"};
  struct pry_provider *providers = pry_arena_array(&arena, 3, sizeof *providers);
  providers[0] =
      (struct pry_provider){.name = "p", .base_url = "http://p/v1", .dialect = dialects[0], .timeouts = rig->timeouts};
  if (rig->with_credential)
    providers[0].auth = (struct pry_auth){.kind = PRY_AUTH_BEARER, .credential = credential};
  if (rig->keys)
    rig_give_keys(rig, &arena, &providers[0]);
  providers[1] = (struct pry_provider){.name = "q", .base_url = "http://q", .dialect = dialects[0]};
  providers[2] = (struct pry_provider){.name = "alien", .base_url = "http://alien", .dialect = dialects[1]};
  const struct pry_instance **instances = pry_arena_array(&arena, RIG_POLICIES_MAX, sizeof *instances);
  for (size_t i = 0; i < rig->policy_count; i++) {
    struct pry_instance *instance = pry_arena_take(&arena, sizeof *instance);
    *instance = (struct pry_instance){.name = rig->policies[i].name,
                                      .policy = rig->policies[i].name,
                                      .file = "test.lua",
                                      .index = i,
                                      .handlers = rig->policies[i].handlers,
                                      .when = rig->policies[i].when};
    instances[i] = instance;
  }
  struct pry_job_config *jobs = pry_arena_array(&arena, RIG_POLICIES_MAX, sizeof *jobs);
  size_t job_count = 0;
  for (size_t i = 0; i < rig->policy_count; i++)
    if (rig->policies[i].every)
      jobs[job_count++] = (struct pry_job_config){instances[i], 0, rig->policies[i].every};
  struct pry_model_rule *rule = pry_arena_take(&arena, sizeof *rule);
  *rule = (struct pry_model_rule){"*", &providers[0], NULL};
  struct pry_route *route = pry_arena_take(&arena, sizeof *route);
  *route = (struct pry_route){.pattern = "/v1/*",
                              .rules = rule,
                              .rule_count = 1,
                              .deadline = rig->deadline ? rig->deadline : PRY_DEADLINE_DEFAULT,
                              .max_stream = rig->max_stream,
                              .early_head = rig->early_head,
                              .slow_window = rig->slow_window,
                              .slow_events = rig->slow_events,
                              .slow_cut = rig->slow_cut,
                              .max_wait = rig->max_wait,
                              .repeatable = rig->repeatable,
                              .max_attempts_per_call = PRY_MAX_ATTEMPTS_PER_CALL_DEFAULT,
                              .max_targets = PRY_MAX_TARGETS_DEFAULT,
                              .chain = instances,
                              .chain_size = rig->policy_count};
  *config = (struct pry_config){.secrets = secret,
                                .secret_count = rig->with_credential,
                                .dialects = dialects,
                                .dialect_count = 2,
                                .providers = providers,
                                .provider_count = 3,
                                .credentials = credential,
                                .credential_count = rig->with_credential,
                                .routes = route,
                                .route_count = 1,
                                .instances = instances,
                                .instance_count = rig->policy_count,
                                .jobs = jobs,
                                .job_count = job_count};
  config->arena = arena;
  return config;
}

/* ---- a state whose handlers are C ------------------------------------------------------------------------ */

static inline void rig_refreshed(void *user)
{
  struct rig *rig = user;
  struct pry_ask *ask = rig->pending;
  rig->pending = NULL;
  char token[32];
  snprintf(token, sizeof token, "token-%u", rig->refreshes);
  if (!rig->refresh_fails)
    pry_buffer_append_text(&ask->renewal->token, token);
  else
    snprintf(ask->renewal->error, sizeof ask->renewal->error, "no");
  ask->ready(ask, rig->refresh_fails ? PRY_ASK_FAULT : PRY_ASK_DONE);
}

static inline enum pry_ask_status rig_ask(struct pry_state *state, struct pry_ask *ask)
{
  struct rig *rig = ((struct rig_state *)state)->rig;
  rig->runs[ask->handler]++;
  if (ask->failure)
    rig->last_failure = *ask->failure;
  if (ask->handler != PRY_REFRESH)
    return rig->policies[ask->instance->index].run(rig, ask);
  rig->refreshes++;
  rig->pending = ask;
  pry_timer_start(rig->loop, &rig->refresh_timer, pry_time_from_seconds(rig->refresh_delay), rig_refreshed, rig);
  return PRY_ASK_PENDING;
}

static inline void rig_cancel(struct pry_state *state, struct pry_ask *ask)
{
  struct rig *rig = ((struct rig_state *)state)->rig;
  rig->cancelled_asks++;
  if (rig->pending == ask) {
    rig->pending = NULL;
    pry_timer_cancel(&rig->refresh_timer);
  }
}

static inline void rig_state_free(struct pry_state *state)
{
  ((struct rig_state *)state)->rig->states--;
  pry_generation_unref(state->generation);
  free(state);
}

static inline size_t rig_memory(const struct pry_state *state)
{
  (void)state;
  return 0;
}

static const struct pry_state_ops rig_state_ops = {
    .ask = rig_ask, .cancel = rig_cancel, .memory = rig_memory, .free = rig_state_free};

static struct rig *rig_of_warm; /* the loader interface has no user pointer */

static inline struct pry_state *rig_warm(struct pry_generation *generation, struct pry_worker *worker,
                                         const struct pry_script_limits *limits, struct pry_report *report)
{
  (void)limits;
  (void)report;
  struct rig_state *state = calloc(1, sizeof *state);
  state->state = (struct pry_state){.ops = &rig_state_ops, .generation = generation, .worker = worker, .references = 1};
  state->rig = rig_of_warm;
  state->rig->states++;
  pry_generation_ref(generation);
  return &state->state;
}

static const struct pry_loader rig_loader = {.warm = rig_warm};

/* A new generation from the rig's present policies and knobs. */
static inline void rig_commit(struct rig *rig)
{
  char text[32];
  snprintf(text, sizeof text, "%u", ++rig->generation);
  struct pry_policy_set *set = pry_policy_set_new();
  assert_true(pry_policy_set_add(set, "init.lua", pry_slice_of(text)));
  assert_true(pry_policy_set_seal(set));
  struct pry_report report;
  pry_report_init(&report);
  rig_of_warm = rig;
  struct pry_rollout *rollout = pry_rollout_new(rig->engine, pry_generation_new(set, rig_config(rig)), &report);
  assert_non_null(rollout);
  assert_true(pry_engine_commit(rig->engine, rollout, &report));
  pry_report_fini(&report);
}

static inline struct rig *rig_new(void)
{
  struct rig *rig = calloc(1, sizeof *rig);
  rig->loop = pry_loop_new_virtual(RIG_UNIX_TIME);
  rig->script = pry_http_script_new(rig->loop);
  rig->http = pry_http_script_client(rig->script);
  struct pry_engine_options options = {.loop = rig->loop, .http = rig->http, .loader = &rig_loader, .seed = 1};
  rig->engine = pry_engine_new(&options);
  assert_non_null(rig->engine);
  return rig;
}

static inline void rig_free(struct rig *rig)
{
  pry_engine_free(rig->engine);
  pry_http_free(rig->http);
  pry_loop_free(rig->loop);
  free(rig);
}

static inline void rig_free_engine(struct rig *rig)
{
  pry_engine_free(rig->engine);
  rig->engine = NULL;
}

static inline void rig_use(struct rig *rig, const char *name, unsigned handlers, rig_policy_fn run)
{
  rig->policies[rig->policy_count++] = (struct rig_policy){.name = name, .handlers = handlers, .run = run};
}

static inline struct rig *rig_with(const char *name, unsigned handlers, rig_policy_fn run)
{
  struct rig *rig = rig_new();
  rig_use(rig, name, handlers, run);
  rig_commit(rig);
  return rig;
}

static inline struct rig *rig_on_error(rig_policy_fn run)
{
  return rig_with("policy", PRY_HANDLER_BIT(PRY_ON_ERROR), run);
}

/* The handler that waits has what it waited for, and has nothing to say. */
static inline void rig_pending_done(struct rig *rig)
{
  struct pry_ask *ask = rig->pending;
  assert_non_null(ask);
  rig->pending = NULL;
  ask->ready(ask, PRY_ASK_DONE);
}

/* ---- the client ------------------------------------------------------------------------------------------ */

struct client;

typedef void (*client_hook_fn)(struct client *client);

struct client {
  int status;
  unsigned heads, dones;
  int64_t announced;
  struct pry_headers headers;
  struct pry_buffer body;
  struct pry_outcome outcome;
  bool truncated, pause;
  bool left;                                /* from then on it hears `done` and nothing else */
  client_hook_fn at_head, at_data, at_done; /* run in that callback; NULL: nothing */
  struct pry_call *call;
  struct rig *rig;
  pry_time started, answered;
};

static inline void client_head(void *user, int status, const struct pry_headers *headers, int64_t body_size)
{
  struct client *client = user;
  assert_false(client->left);
  client->heads++;
  client->status = status;
  client->announced = body_size;
  client->answered = pry_loop_now(client->rig->loop);
  assert_true(pry_headers_add_all(&client->headers, headers));
  if (client->at_head)
    client->at_head(client);
}

static inline bool client_data(void *user, struct pry_slice data)
{
  struct client *client = user;
  assert_int_equal(client->heads, 1);
  assert_int_equal(client->dones, 0);
  assert_false(client->left);
  if (client->at_data)
    client->at_data(client);
  assert_true(pry_buffer_append_slice(&client->body, data)); /* still readable, whatever the hook did */
  return !client->pause;
}

static inline void client_done(void *user, const struct pry_outcome *outcome, bool truncated)
{
  struct client *client = user;
  client->dones++;
  client->outcome = *outcome;
  client->truncated = truncated;
  if (client->at_done)
    client->at_done(client);
  client->call = NULL;
}

static inline void client_leave(struct client *client)
{
  client->left = true;
  pry_call_cancel(client->call);
}

static const struct pry_sink_ops client_ops = {client_head, client_data, client_done, NULL};

/* Starts a request with these headers and no others. */
static inline struct client *client_start_method(struct rig *rig, const char *method, const char *path,
                                                 const char *body, const struct pry_headers *headers)
{
  struct client *client = calloc(1, sizeof *client);
  client->rig = rig;
  client->started = pry_loop_now(rig->loop);
  pry_headers_init(&client->headers);
  pry_buffer_init(&client->body, 0);
  struct pry_buffer copy;
  pry_buffer_init(&copy, 0);
  assert_true(pry_buffer_append_text(&copy, body));
  struct pry_call_request request = {
      .method = pry_slice_of(method), .path = pry_slice_of(path), .headers = headers, .body = &copy};
  client->call = pry_call_start(rig->engine->control, &request, &client_ops, client);
  assert_non_null(client->call);
  assert_int_equal(client->heads, 0);
  return client;
}

/* A POST of `body` to `path`. */
static inline struct client *client_start_raw(struct rig *rig, const char *path, const char *body,
                                              const struct pry_headers *headers)
{
  return client_start_method(rig, "POST", path, body, headers);
}

/* Name, value, name, value, …, NULL; NULL for none. */
static inline void rig_headers(struct pry_headers *list, const char *const *pairs)
{
  for (; pairs && *pairs; pairs += 2)
    assert_true(pry_headers_add(list, pry_slice_of(pairs[0]), pry_slice_of(pairs[1])));
}

static inline struct client *client_start_as(struct rig *rig, const char *body, const char *const *headers)
{
  struct pry_headers sent;
  pry_headers_init(&sent);
  rig_headers(&sent, headers);
  struct client *client = client_start_raw(rig, "/v1/chat/completions", body, &sent);
  pry_headers_fini(&sent);
  return client;
}

/* Starts a POST of JSON to /v1/chat/completions, or to `path`. */
static inline struct client *client_start(struct rig *rig, const char *path, const char *body,
                                          const char *const *headers)
{
  struct pry_headers sent;
  pry_headers_init(&sent);
  assert_true(pry_headers_add(&sent, PRY_SLICE("Content-Type"), PRY_SLICE("application/json")));
  rig_headers(&sent, headers);
  struct client *client = client_start_raw(rig, path ? path : "/v1/chat/completions", body, &sent);
  pry_headers_fini(&sent);
  return client;
}

static inline void client_free(struct client *client)
{
  pry_headers_fini(&client->headers);
  pry_buffer_fini(&client->body);
  free(client);
}

/* Runs until the call has ended; fails after a virtual hour. */
static inline void client_finish(struct client *client)
{
  for (unsigned i = 0; i < 100000 && !client->dones; i++)
    if (!pry_loop_turn(client->rig->loop, 3600 * PRY_SECOND))
      break;
  assert_int_equal(client->dones, 1);
}

static inline struct client *client_call(struct rig *rig, const char *body)
{
  struct client *client = client_start(rig, NULL, body, NULL);
  client_finish(client);
  return client;
}

static inline void client_has_body(struct client *client, const char *text)
{
  assert_string_equal(pry_buffer_text(&client->body), text);
}

static inline double client_seconds(const struct client *client)
{
  return pry_time_to_seconds(client->answered - client->started);
}

/* ---- providers ------------------------------------------------------------------------------------------- */

static inline void rig_push(struct rig *rig, struct pry_http_step step, const char *const *headers, va_list texts)
{
  struct pry_headers list;
  struct pry_slice chunks[16];
  pry_headers_init(&list);
  rig_headers(&list, headers);
  for (const char *text; (text = va_arg(texts, const char *)); step.chunk_count++) {
    assert_true(step.chunk_count < sizeof chunks / sizeof *chunks);
    chunks[step.chunk_count] = pry_slice_of(text);
  }
  step.headers = &list;
  step.chunks = chunks;
  assert_true(pry_http_script_push(rig->script, &step));
  pry_headers_fini(&list);
}

/* Pushes an answer: status, NULL-ended header pairs, and body chunks up to a NULL. */
static inline void rig_answers(struct rig *rig, int status, const char *const *headers, ...)
{
  va_list texts;
  va_start(texts, headers);
  rig_push(rig, (struct pry_http_step){.status = status}, headers, texts);
  va_end(texts);
}

/* The same for an answer with faults or delays: `step` without its headers and chunks. */
static inline void rig_plays(struct rig *rig, struct pry_http_step step, const char *const *headers, ...)
{
  va_list texts;
  va_start(texts, headers);
  rig_push(rig, step, headers, texts);
  va_end(texts);
}

static inline size_t rig_upstream(const struct rig *rig)
{
  return pry_http_script_seen_count(rig->script);
}

/* The test is over: nothing may be open any more. Frees both; `client` may be NULL. */
static inline void rig_end(struct client *client, struct rig *rig)
{
  pry_loop_advance(rig->loop, PRY_SECOND / 1000);
  assert_int_equal(rig->engine->control->call_count, 0);
  assert_int_equal(pry_http_open_count(rig->http), 0);
  if (client)
    client_free(client);
  rig_free(rig);
}

#endif
