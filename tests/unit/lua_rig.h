/*
 * lua_rig.h: a whole engine on a virtual loop with scripted HTTP, and handlers asked one at a time.
 *
 * For tests of the Lua binding. The set under test is one policy "p" (its text is what a test gives) used on the one
 * route, with a provider, a service, a sink and credentials around it.
 */
#ifndef PRY_LUA_RIG_H
#define PRY_LUA_RIG_H

#include "ask.h"
#include "http_script.h"
#include "loader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct rig {
  struct pry_loop *loop;
  struct pry_http_script *script;
  struct pry_http *http;
  struct pry_log *log;
  struct pry_engine *engine;
  struct pry_buffer lines; /* what was logged */
  /* What the next ask says; tests change it as they like. */
  struct pry_call_view view;
  struct pry_attempt ledger[3];
  struct pry_headers headers;
  struct pry_failure failure;
  struct pry_list permits;
  struct pry_ask ask;
  /* After PENDING. */
  unsigned readies;
  enum pry_ask_status ready_status;
};

#define RIG_INIT                                                                                                       \
  "provider 'up' { base_url = 'https://up.test/v1', dialect = 'd', auth = bearer(secret 'UP_KEY') }\n"                 \
  "provider 'kimi' { base_url = 'https://kimi.test', dialect = 'd', auth = bearer(credential 'kimi') }\n"              \
  "credential 'kimi' { refresh_token = secret 'KIMI_REFRESH', token_url = 'https://tokens.test/t', grant = 'kimi' }\n" \
  "credential 'plain' { refresh_token = secret 'PLAIN_REFRESH', token_url = 'https://tokens.test/o', grant = 'oauth' " \
  "}\n"                                                                                                                \
  "credential 'own' { refresh_token = secret 'OWN_REFRESH', token_url = 'https://tokens.test/own',\n"                  \
  "  refresh = function(cred)\n"                                                                                       \
  "    local a, err = http.request { url = cred.token_url, headers = { authorization = { 'R ', cred.refresh_token } "  \
  "} }\n"                                                                                                              \
  "    if not a then return nil, err.message end\n"                                                                    \
  "    return { token = a.body, expires_in = 60, refresh_token = 'next-' .. a.body }\n"                                \
  "  end }\n"                                                                                                          \
  "service 'help' { base_url = 'https://help.test/api', auth = header('x-help', secret 'HELP_KEY') }\n"                \
  "service 'renewed' { base_url = 'https://renewed.test', auth = bearer(credential 'plain') }\n"                       \
  "sink 'ops' { webhook = secret 'OPS_HOOK' }\n"                                                                       \
  "route '/*' { to = 'up', chain = { use 'p' } }\n"

/* A module that tries to remember. */
#define RIG_MEMORY                                                                                                     \
  "local calls, last = 0, nil\n"                                                                                       \
  "return { count = function(call) calls, last = calls + 1, call return calls end }\n"

/* A module that takes its time. */
#define RIG_SLOW "return { spin = function()\n  local n = 0\n  for i = 1, 5000 do n = n + i end\n  return n\nend }\n"

#define RIG_DIALECT "return dialect { name = 'd', stream = { default = 'content' } }\n"

static void rig_log(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct rig *rig = user;
  (void)level;
  pry_buffer_append(&rig->lines, line, size);
  pry_buffer_append_text(&rig->lines, "\n");
}

static double rig_clock(void *user)
{
  return pry_loop_unix_time(user);
}

static char *rig_read_file(const char *path)
{
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  char *text = calloc(1, 65536);
  assert_non_null(text);
  assert_true(fread(text, 1, 65535, file) > 0);
  fclose(file);
  return text;
}

static void rig_fill_view(struct rig *rig)
{
  struct pry_call_view *view = &rig->view;
  snprintf(view->id, sizeof view->id, "c_0_1");
  view->route = "/*";
  view->dialect = "openai";
  view->method = PRY_SLICE("POST");
  view->path = PRY_SLICE("/v1/chat/completions");
  snprintf(view->model, sizeof view->model, "m");
  view->attempt = 2;
  view->deadline = pry_loop_now(rig->loop) + 30 * PRY_SECOND;
  view->target.provider = &rig->engine->control->state->generation->config->providers[0];
  snprintf(view->target.model, sizeof view->target.model, "m");
  snprintf(view->target.name, sizeof view->target.name, "up/m");
  view->target.attempts = 2;
  rig->ledger[0] = (struct pry_attempt){.category = PRY_SERVER, .status = 500, .started = 1000, .ended = 1001};
  rig->ledger[0].failure = pry_failure_from_status(500);
  rig->ledger[1] = (struct pry_attempt){.started = 1002};
  snprintf(rig->ledger[0].target, sizeof rig->ledger[0].target, "up/m");
  snprintf(rig->ledger[1].target, sizeof rig->ledger[1].target, "up/m");
  view->ledger = rig->ledger;
  view->ledger_count = 2;
  pry_headers_init(&rig->headers);
  assert_true(pry_headers_add(&rig->headers, PRY_SLICE("X-Test"), PRY_SLICE("yes")));
  view->headers = &rig->headers;
  view->body = PRY_SLICE("{\"model\":\"m\",\"n\":[1,2],\"none\":null}");
  view->vars = pry_vars_new();
  assert_non_null(view->vars);
  rig->failure = pry_failure_from_status(503);
  pry_failure_set_code(&rig->failure, PRY_SLICE("busy"));
  pry_failure_set_message(&rig->failure, PRY_SLICE("try later"));
  rig->failure.retry_after = 1.5;
}

/* init and dialect may be NULL: the ones above. */
static struct rig *rig_new_set(const char *policy, const char *init, const char *dialect,
                               const struct pry_script_limits *limits)
{
  struct rig *rig = calloc(1, sizeof *rig);
  assert_non_null(rig);
  pry_buffer_init(&rig->lines, 0);
  pry_list_init(&rig->permits);
  rig->loop = pry_loop_new_virtual(1700000000);
  rig->script = pry_http_script_new(rig->loop);
  rig->http = pry_http_script_client(rig->script);
  rig->log = pry_log_new(rig_log, rig, PRY_LOG_INFO, rig_clock, rig->loop);
  struct pry_engine_options options = {.loop = rig->loop,
                                       .http = rig->http,
                                       .log = rig->log,
                                       .loader = &pry_lua_test_loader,
                                       .limits = limits ? *limits : (struct pry_script_limits){.wall = -1},
                                       .seed = 7};
  rig->engine = pry_engine_new(&options);
  assert_non_null(rig->engine);
  struct pry_policy_set *set = pry_policy_set_new();
  char *grants = rig_read_file(PARRY_SOURCE_DIR "/policies/lib/grants.lua");
  assert_true(pry_policy_set_add(set, "p.lua", pry_slice_of(policy)));
  assert_true(pry_policy_set_add(set, "init.lua", pry_slice_of(init ? init : RIG_INIT)));
  assert_true(pry_policy_set_add(set, "dialects/d.lua", pry_slice_of(dialect ? dialect : RIG_DIALECT)));
  assert_true(pry_policy_set_add(set, "lib/grants.lua", pry_slice_of(grants)));
  assert_true(pry_policy_set_add(set, "lib/memory.lua", PRY_SLICE(RIG_MEMORY)));
  assert_true(pry_policy_set_add(set, "lib/slow.lua", PRY_SLICE(RIG_SLOW)));
  free(grants);
  assert_true(pry_policy_set_seal(set));
  struct pry_report report;
  pry_report_init(&report);
  if (!pry_engine_load(rig->engine, set, false, &report)) {
    struct pry_buffer text;
    pry_buffer_init(&text, 0);
    pry_report_text(&report, &text);
    fail_msg("the set was refused: %s", pry_buffer_text(&text));
  }
  pry_report_fini(&report);
  rig_fill_view(rig);
  return rig;
}

static inline struct rig *rig_new(const char *policy)
{
  return rig_new_set(policy, NULL, NULL, NULL);
}

static void rig_free(struct rig *rig)
{
  pry_verdict_fini(&rig->ask.verdict);
  pry_permits_release(&rig->permits);
  pry_vars_free(rig->view.vars);
  pry_headers_fini(&rig->headers);
  pry_engine_free(rig->engine);
  pry_http_free(rig->http);
  pry_log_free(rig->log);
  pry_loop_free(rig->loop);
  pry_buffer_fini(&rig->lines);
  free(rig);
}

static void rig_ready(struct pry_ask *ask, enum pry_ask_status status)
{
  struct rig *rig = ask->user;
  rig->readies++;
  rig->ready_status = status;
}

/* The one instance of "p". */
static const struct pry_instance *rig_instance(const struct rig *rig)
{
  return rig->engine->control->state->generation->config->instances[0];
}

static void rig_prepare(struct rig *rig, struct pry_ask *ask, enum pry_handler handler)
{
  *ask = (struct pry_ask){.handler = handler,
                          .instance = rig_instance(rig),
                          .call = &rig->view,
                          .failure = handler == PRY_ON_ERROR ? &rig->failure : NULL,
                          .permits = &rig->permits,
                          .ready = rig_ready,
                          .user = rig};
  pry_verdict_init(&ask->verdict);
}

static enum pry_ask_status rig_run(struct rig *rig, struct pry_ask *ask)
{
  struct pry_state *state = rig->engine->control->state;
  return state->ops->ask(state, ask);
}

/* Asks a handler of the call, failure and permits as they stand. */
static inline enum pry_ask_status rig_ask(struct rig *rig, enum pry_handler handler)
{
  pry_verdict_fini(&rig->ask.verdict);
  rig_prepare(rig, &rig->ask, handler);
  return rig_run(rig, &rig->ask);
}

/* The same for a handler that must end at once, without a fault. */
static inline void rig_ok(struct rig *rig, enum pry_handler handler)
{
  enum pry_ask_status status = rig_ask(rig, handler);
  if (status == PRY_ASK_FAULT)
    fail_msg("fault: %s", rig->ask.fault);
  assert_int_equal(status, PRY_ASK_DONE);
}

/* The same for a handler that must fault with exactly this text. */
static inline void rig_fault(struct rig *rig, enum pry_handler handler, const char *fault)
{
  assert_int_equal(rig_ask(rig, handler), PRY_ASK_FAULT);
  assert_string_equal(rig->ask.fault, fault);
  assert_int_equal(rig->ask.verdict.kind, PRY_VERDICT_NONE);
}

static inline const struct pry_event_record *rig_record(struct rig *rig)
{
  const struct pry_event_record *record = pry_event_find(rig->engine->control->events, rig->ask.record);
  assert_non_null(record);
  return record;
}

static inline const char *rig_reads(struct rig *rig)
{
  static char text[PRY_EVENT_READS_MAX + 1];
  struct pry_buffer reads;
  pry_buffer_init(&reads, 0);
  assert_true(pry_event_append_reads(rig_record(rig), &reads));
  snprintf(text, sizeof text, "%.*s", (int)reads.size, reads.size ? reads.data : "");
  pry_buffer_fini(&reads);
  return text;
}

static inline bool rig_logged(struct rig *rig, const char *part)
{
  const char *text = pry_buffer_text(&rig->lines);
  return text && strstr(text, part);
}

/* A policy with one handler. */
#define RIG_POLICY(handler, arguments, body)                                                                           \
  "return policy { name = 'p', " handler " = function(" arguments ")\n" body "\nend }\n"
#define ON_ERROR(body) RIG_POLICY("on_error", "self, call, err", body)
#define ON_REQUEST(body) RIG_POLICY("on_request", "self, call", body)
#define ON_ATTEMPT(body) RIG_POLICY("on_attempt", "self, call", body)

#endif
