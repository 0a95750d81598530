/* Loading a set: the configuration it becomes, where secrets come from, what a worker's state can find. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "declare.h"
#include "door.h"
#include "engine.h"
#include "http_script.h"
#include "loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct pry_script_limits limits = {.wall = -1};

static const char init_text[] =
    "provider \"moonshot\" { base_url = \"https://api.moonshot.cn/v1//\", dialect = \"openai\",\n"
    "  auth = bearer(secret \"LOADER_KEY\"), timeouts = { connect = 1.5, idle = 9 }, models = { \"a\", \"b\" } }\n"
    "provider \"kimi\" { base_url = \"https://kimi\", dialect = \"generic\", auth = bearer(credential \"kimi\") }\n"
    "provider \"key\" { base_url = \"https://key\", dialect = \"openai\", auth = header(\"x-api-key\", secret "
    "\"LOADER_OTHER\") }\n"
    "credential \"kimi\" { refresh_token = secret \"LOADER_REFRESH\", refresh = function(cred) return { token = \"t\" "
    "} end }\n"
    "service \"s\" { base_url = \"http://s:8080/\" }\n"
    "sink \"ops\" { webhook = secret \"LOADER_HOOK\" }\n"
    "local shared = use \"watch\" { limit = 7, list = { \"x\", { y = 1 } } }\n"
    "route \"/v1/*\" { to = by_model { [\"*\"] = \"moonshot\", [\"kimi-*\"] = \"kimi\", [\"kimi-k2\"] = "
    "\"kimi/k2-new\" },\n"
    "  deadline = 30, timeouts = { first_byte = 3, attempt = 20 }, max_stream = 600, repeatable = true,\n"
    "  session = { header = \"x-session\" }, max_attempts_per_call = 5, max_targets = 2, client_dialect = \"openai\",\n"
    "  chain = { shared, use \"watch\" { as = \"second\" } } }\n"
    "route \"/v1/messages*\" { to = \"key/model/with/slash\", chain = { shared }, repeatable = false }\n"
    "route \"/exact\" { to = \"key\", session = { field = \"user\" } }\n";

static const char watch_text[] = "local count = 0\n"
                                 "return policy { name = \"watch\",\n"
                                 "  params = { limit = param { 3, min = 1 }, list = param { {} } },\n"
                                 "  when = { retryable = true, fallback = false, source = \"provider\", category = { "
                                 "\"server\", \"timeout\" }, origin = \"server\" },\n"
                                 "  on_error = function(self) return self.limit end,\n"
                                 "  on_done = function(self) self.limit = 9 end,\n"
                                 "  every = { { seconds = 60, run = function(self) return self.name end }, { seconds = "
                                 "0.5, run = function() return 2 end } } }\n";

static const char dialect_text[] =
    "return dialect { error_in_200 = { \"error\", errcode = { 0, \"ok\", false } },\n"
    "  stream = { type_field = \"type\", end_data = { \"[DONE]\" }, error_types = { \"error\" }, content_paths = { "
    "\"choices.*.delta.content\" },\n"
    "    finish_paths = { \"choices.*.finish_reason\" }, lifecycle_types = { \"ping\" }, content_types = { \"delta\" "
    "},\n"
    "    end_types = { \"stop\" }, error_in_data = { \"error\" }, default = \"lifecycle\" },\n"
    "  classify = function(answer) return \"classified\" end }\n";

static struct pry_policy_set *make_set(void)
{
  struct pry_policy_set *set = pry_policy_set_new();
  assert_non_null(set);
  assert_true(pry_policy_set_add(set, "init.lua", pry_slice_of(init_text)));
  assert_true(pry_policy_set_add(set, "watch.lua", pry_slice_of(watch_text)));
  assert_true(pry_policy_set_add(set, "dialects/openai.lua", pry_slice_of(dialect_text)));
  assert_true(pry_policy_set_seal(set));
  return set;
}

static struct pry_generation *load(const struct pry_loader *loader)
{
  struct pry_report report;
  pry_report_init(&report);
  struct pry_generation *generation = loader->load(make_set(), &limits, &report);
  if (!generation)
    for (size_t i = 0; i < report.count; i++)
      print_error("%s: %s\n", report.findings[i].where, report.findings[i].what);
  pry_report_fini(&report);
  assert_non_null(generation);
  return generation;
}

/* ---- the configuration --------------------------------------------------------------------------------- */

static void test_providers(void **state)
{
  (void)state;
  struct pry_generation *generation = load(&pry_lua_test_loader);
  const struct pry_config *config = generation->config;
  assert_int_equal(generation->policies, 1);
  assert_int_equal(config->provider_count, 3);
  const struct pry_provider *moonshot = pry_config_provider(config, PRY_SLICE("moonshot"));
  assert_string_equal(moonshot->base_url, "https://api.moonshot.cn/v1");
  assert_ptr_equal(moonshot->dialect, pry_config_dialect(config, "openai"));
  assert_int_equal(moonshot->auth.kind, PRY_AUTH_BEARER);
  assert_string_equal(moonshot->auth.secret->value, "test-LOADER_KEY");
  assert_null(moonshot->auth.credential);
  assert_int_equal(moonshot->timeouts.connect, 1500000);
  assert_int_equal(moonshot->timeouts.first_byte, 0);
  assert_int_equal(moonshot->timeouts.idle, 9 * PRY_SECOND);
  assert_int_equal(moonshot->model_count, 2);
  assert_string_equal(moonshot->models[1], "b");
  const struct pry_provider *kimi = pry_config_provider(config, PRY_SLICE("kimi"));
  assert_ptr_equal(kimi->dialect, &pry_dialect_generic);
  assert_ptr_equal(kimi->auth.credential, &config->credentials[0]);
  assert_null(kimi->auth.secret);
  const struct pry_provider *key = pry_config_provider(config, PRY_SLICE("key"));
  assert_int_equal(key->auth.kind, PRY_AUTH_HEADER);
  assert_string_equal(key->auth.header, "x-api-key");
  assert_string_equal(config->credentials[0].grant, "lua");
  assert_string_equal(config->credentials[0].refresh_token->name, "LOADER_REFRESH");
  assert_null(config->credentials[0].access_token);
  assert_string_equal(pry_config_service(config, "s")->base_url, "http://s:8080");
  assert_string_equal(pry_config_sink(config, "ops")->url->value, "https://sinks.test/LOADER_HOOK");
  pry_generation_unref(generation);
}

static void test_routes(void **state)
{
  (void)state;
  struct pry_generation *generation = load(&pry_lua_test_loader);
  const struct pry_config *config = generation->config;
  struct pry_slice rest;
  assert_int_equal(config->route_count, 3);
  const struct pry_route *route = pry_config_route(config, PRY_SLICE("/v1/chat/completions"), &rest);
  assert_string_equal(route->pattern, "/v1/*");
  assert_int_equal(route->deadline, 30 * PRY_SECOND);
  assert_int_equal(route->timeouts.first_byte, 3 * PRY_SECOND);
  assert_int_equal(route->timeouts.attempt, 20 * PRY_SECOND);
  assert_int_equal(route->max_stream, 600 * PRY_SECOND);
  assert_int_equal(route->repeatable, PRY_ONLY_TRUE);
  assert_int_equal(route->session_kind, PRY_SESSION_HEADER);
  assert_string_equal(route->session_name, "x-session");
  assert_string_equal(route->client_dialect, "openai");
  assert_int_equal(route->max_attempts_per_call, 5);
  assert_int_equal(route->max_targets, 2);
  assert_string_equal(pry_route_rule(route, PRY_SLICE("kimi-k2"))->model, "k2-new");
  assert_string_equal(pry_route_rule(route, PRY_SLICE("kimi-k1"))->provider->name, "kimi");
  assert_null(pry_route_rule(route, PRY_SLICE("kimi-k1"))->model);
  assert_string_equal(pry_route_rule(route, PRY_SLICE("gpt"))->provider->name, "moonshot");
  const struct pry_route *messages = pry_config_route(config, PRY_SLICE("/v1/messages"), &rest);
  assert_string_equal(messages->pattern, "/v1/messages*");
  assert_string_equal(messages->rules[0].model, "model/with/slash");
  assert_int_equal(messages->repeatable, PRY_ONLY_FALSE);
  assert_int_equal(messages->deadline, PRY_DEADLINE_DEFAULT);
  const struct pry_route *exact = pry_config_route(config, PRY_SLICE("/exact"), &rest);
  assert_int_equal(exact->session_kind, PRY_SESSION_FIELD);
  assert_int_equal(exact->repeatable, PRY_ANY);
  pry_generation_unref(generation);
}

static void test_instances(void **state)
{
  (void)state;
  struct pry_generation *generation = load(&pry_lua_test_loader);
  const struct pry_config *config = generation->config;
  assert_int_equal(config->instance_count, 2);
  const struct pry_instance *first = config->instances[0];
  assert_string_equal(first->name, "watch");
  assert_string_equal(first->policy, "watch");
  assert_string_equal(first->file, "watch.lua");
  assert_int_equal(first->handlers,
                   PRY_HANDLER_BIT(PRY_ON_ERROR) | PRY_HANDLER_BIT(PRY_ON_DONE) | PRY_HANDLER_BIT(PRY_EVERY));
  assert_int_equal(first->when.retryable, PRY_ONLY_TRUE);
  assert_int_equal(first->when.fallback, PRY_ONLY_FALSE);
  assert_int_equal(first->when.sent, PRY_ANY);
  assert_int_equal(first->when.from_parry, PRY_ONLY_FALSE);
  assert_int_equal(first->when.categories, 1u << PRY_SERVER | 1u << PRY_TIMEOUT);
  assert_int_equal(first->when.origins, 1u << PRY_ORIGIN_SERVER);
  assert_string_equal(config->instances[1]->name, "second");
  assert_int_equal(config->instances[1]->index, 1);
  const struct pry_route *route = pry_config_route_by_pattern(config, "/v1/*");
  assert_int_equal(route->chain_size, 2);
  assert_ptr_equal(route->chain[0], first);
  assert_ptr_equal(pry_config_route_by_pattern(config, "/v1/messages*")->chain[0], first);
  assert_int_equal(config->job_count, 4);
  assert_ptr_equal(config->jobs[1].instance, first);
  assert_int_equal(config->jobs[1].index, 1);
  assert_int_equal(config->jobs[1].period, PRY_SECOND / 2);
  pry_generation_unref(generation);
}

static void test_dialect(void **state)
{
  (void)state;
  struct pry_generation *generation = load(&pry_lua_test_loader);
  const struct pry_dialect *dialect = pry_config_dialect(generation->config, "openai");
  assert_string_equal(dialect->file, "dialects/openai.lua");
  assert_true(dialect->has_classify);
  assert_false(dialect->has_render);
  assert_true(dialect->default_lifecycle);
  assert_true(pry_dialect_error_in_200(dialect, PRY_SLICE("{\"error\":{\"code\":1}}")));
  assert_true(pry_dialect_error_in_200(dialect, PRY_SLICE("{\"errcode\":-1000}")));
  assert_false(pry_dialect_error_in_200(dialect, PRY_SLICE("{\"errcode\":0}")));
  assert_false(pry_dialect_error_in_200(dialect, PRY_SLICE("{\"errcode\":\"ok\"}")));
  assert_false(pry_dialect_error_in_200(dialect, PRY_SLICE("{\"errcode\":false,\"error\":null}")));
  bool finish;
  const struct {
    const char *type, *data;
    enum pry_stream_class expected;
  } events[] = {{"", "[DONE]", PRY_STREAM_END},
                {"error", "{}", PRY_STREAM_ERROR},
                {"", "{\"error\":{\"code\":1}}", PRY_STREAM_ERROR},
                {"", "{\"type\":\"stop\"}", PRY_STREAM_END},
                {"ping", "{}", PRY_STREAM_LIFECYCLE},
                {"delta", "{}", PRY_STREAM_CONTENT},
                {"", "{\"choices\":[{\"delta\":{\"content\":\"x\"}}]}", PRY_STREAM_CONTENT},
                {"", "{\"choices\":[{\"delta\":{\"role\":\"x\"}}]}", PRY_STREAM_LIFECYCLE}};
  for (size_t i = 0; i < sizeof events / sizeof *events; i++)
    assert_int_equal(
        pry_dialect_stream_class(dialect, pry_slice_of(events[i].type), pry_slice_of(events[i].data), &finish),
        events[i].expected);
  pry_dialect_stream_class(dialect, PRY_SLICE(""), PRY_SLICE("{\"choices\":[{\"finish_reason\":\"stop\"}]}"), &finish);
  assert_true(finish);
  pry_generation_unref(generation);
}

/* ---- secrets ------------------------------------------------------------------------------------------- */

static void write_file(const char *folder, const char *name, const char *text, char path[256])
{
  snprintf(path, 256, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0);
  assert_int_equal(fclose(file), 0);
}

static const struct pry_secret *secret(const struct pry_generation *generation, const char *name)
{
  const struct pry_secret *found = pry_declare_secret(generation->config, name);
  assert_non_null(found);
  return found;
}

static void test_secrets(void **state)
{
  (void)state;
  char folder[] = "/tmp/parry-secrets-XXXXXX", credential[256], file[256];
  assert_non_null(mkdtemp(folder));
  write_file(folder, "LOADER_KEY", "from-credentials\n", credential);
  write_file(folder, "elsewhere", "from-file\n\n", file);
  setenv("CREDENTIALS_DIRECTORY", folder, 1);
  setenv("LOADER_KEY", "from-environment", 1); /* the folder wins */
  setenv("LOADER_OTHER_FILE", file, 1);        /* two newlines at its end: one is left, which no header takes */
  setenv("LOADER_REFRESH", "short", 1);
  unsetenv("LOADER_HOOK");
  struct pry_report report;
  pry_report_init(&report);
  struct pry_generation *generation = pry_lua_loader.load(make_set(), &limits, &report);
  assert_non_null(generation);
  assert_string_equal(secret(generation, "LOADER_KEY")->value, "from-credentials");
  assert_string_equal(secret(generation, "LOADER_KEY")->origin + 5, credential);
  assert_null(secret(generation, "LOADER_OTHER")->value);
  assert_string_equal(secret(generation, "LOADER_REFRESH")->value, "short");
  assert_string_equal(secret(generation, "LOADER_REFRESH")->origin, "the environment");
  assert_null(secret(generation, "LOADER_HOOK")->value);
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  assert_true(pry_report_text(&report, &text));
  const char *said = pry_buffer_text(&text);
  assert_int_equal(report.errors, 0);
  assert_int_equal(report.count, 3);
  assert_non_null(strstr(said, "init.lua:4: warning: secret \"LOADER_OTHER\" from file "));
  assert_non_null(strstr(said, "init.lua:5: warning: secret \"LOADER_REFRESH\" is shorter than 6 bytes"));
  assert_non_null(strstr(said, "init.lua:7: warning: secret \"LOADER_HOOK\" was not found in "));
  assert_null(strstr(said, "from-"));
  pry_buffer_fini(&text);
  pry_report_fini(&report);
  pry_generation_unref(generation);
  unlink(credential);
  unlink(file);
  rmdir(folder);
  unsetenv("CREDENTIALS_DIRECTORY");
}

/* ---- a worker's state ---------------------------------------------------------------------------------- */

struct bench {
  struct pry_loop *loop;
  struct pry_engine *engine;
  struct pry_http_script *script;
};

static struct bench bench_new(void)
{
  struct bench bench = {.loop = pry_loop_new_virtual(1e9)};
  bench.script = pry_http_script_new(bench.loop);
  struct pry_engine_options options = {.loop = bench.loop,
                                       .http = pry_http_script_client(bench.script),
                                       .loader = &pry_lua_test_loader,
                                       .limits = limits,
                                       .seed = 1};
  bench.engine = pry_engine_new(&options);
  assert_non_null(bench.engine);
  return bench;
}

static void bench_free(struct bench *bench)
{
  pry_engine_free(bench->engine);
  pry_http_free(pry_http_script_client(bench->script));
  pry_loop_free(bench->loop);
}

struct look {
  const struct pry_config *config;
  bool ok;
};

/* Inside the door: calls what is found, and tries to write where nobody may. */
static int look_around(lua_State *L)
{
  struct look *look = lua_touserdata(L, 1);
  const struct pry_config *config = look->config;
  const struct pry_instance *first = config->instances[0], *second = config->instances[1];
  if (!pry_declare_push_handler(L, first, PRY_ON_ERROR, 0))
    return 0;
  lua_call(L, 1, 1);
  bool ok = lua_tointeger(L, -1) == 7;
  ok = ok && pry_declare_push_handler(L, second, PRY_ON_ERROR, 0);
  lua_call(L, 1, 1);
  ok = ok && lua_tointeger(L, -1) == 3;
  ok = ok && pry_declare_push_handler(L, second, PRY_EVERY, 0);
  lua_call(L, 1, 1);
  ok = ok && strcmp(lua_tostring(L, -1), "second") == 0;
  ok = ok && pry_declare_push_handler(L, second, PRY_EVERY, 1);
  lua_call(L, 1, 1);
  ok = ok && lua_tointeger(L, -1) == 2;
  int top = lua_gettop(L);
  ok =
      ok && !pry_declare_push_handler(L, first, PRY_ON_REQUEST, 0) && !pry_declare_push_handler(L, first, PRY_EVERY, 2);
  ok = ok && lua_gettop(L) == top;
  const struct pry_dialect *dialect = config->dialects[0];
  ok = ok && !pry_declare_push_render(L, dialect) && pry_declare_push_classify(L, dialect);
  lua_call(L, 0, 1);
  ok = ok && strcmp(lua_tostring(L, -1), "classified") == 0;
  ok = ok && pry_declare_push_refresh(L, &config->credentials[0]);
  lua_call(L, 0, 1);
  lua_getfield(L, -1, "token");
  ok = ok && strcmp(lua_tostring(L, -1), "t") == 0;
  /* self.limit = 9 */
  ok = ok && pry_declare_push_handler(L, first, PRY_ON_DONE, 0);
  look->ok = ok && lua_pcall(L, 1, 0, 0) == LUA_ERRRUN && strstr(lua_tostring(L, -1), "watch.lua:6: ");
  return 0;
}

static void expect_warm(struct pry_generation *generation)
{
  struct bench bench = bench_new();
  struct pry_report report;
  pry_report_init(&report);
  struct pry_state *warm = pry_lua_test_loader.warm(generation, bench.engine->control, &limits, &report);
  assert_non_null(warm);
  assert_int_equal(report.count, 0);
  assert_ptr_equal(warm->generation, generation);
  assert_ptr_equal(warm->worker, bench.engine->control);
  struct look look = {.config = generation->config};
  struct pry_run run;
  pry_run_init(&run, (struct pry_script *)warm, 1);
  enum pry_door_result result = pry_door_call((struct pry_script *)warm, look_around, &look, &run);
  if (result != PRY_DOOR_OK)
    print_error("%s\n", run.fault);
  assert_int_equal(result, PRY_DOOR_OK);
  assert_true(look.ok);
  pry_state_unref(warm);
  pry_report_fini(&report);
  bench_free(&bench);
}

static void test_warm(void **state)
{
  (void)state;
  struct pry_generation *generation = load(&pry_lua_test_loader);
  expect_warm(generation);
  pry_generation_unref(generation);
}

/* A worker's state takes what was compiled when the set was checked, with its lines and names; so does another set. */
static void test_compiled_once(void **state)
{
  (void)state;
  struct pry_generation *generation = load(&pry_lua_test_loader);
  struct pry_policy_set *copy = pry_policy_set_new();
  assert_non_null(copy);
  for (size_t i = 0; i < generation->set->count; i++) {
    struct pry_policy_file *file = &generation->set->files[i];
    assert_non_null(file->compiled);
    assert_true(pry_policy_set_add_file(copy, file));
    assert_ptr_equal(copy->files[i].compiled, file->compiled);
    memset(file->text, '?', file->size);
  }
  expect_warm(generation);
  pry_generation_unref(generation);
  assert_true(copy->files[0].compiled->size > 0);
  pry_policy_set_free(copy);
}

/* Only what this process compiled is taken; bytes of that kind in a file are no policy. */
static void test_compiled_files_are_refused(void **state)
{
  (void)state;
  struct pry_generation *generation = load(&pry_lua_test_loader);
  struct pry_policy_set *set = pry_policy_set_new();
  struct pry_report report;
  pry_report_init(&report);
  assert_non_null(set);
  for (size_t i = 0; i < generation->set->count; i++) {
    const struct pry_compiled *compiled = generation->set->files[i].compiled;
    assert_true(
        pry_policy_set_add(set, generation->set->files[i].path, (struct pry_slice){compiled->bytes, compiled->size}));
  }
  assert_true(pry_policy_set_seal(set));
  assert_null(pry_lua_test_loader.load(set, &limits, &report));
  assert_int_equal(report.errors, set->count);
  pry_report_fini(&report);
  pry_policy_set_free(set);
  pry_generation_unref(generation);
}

/* A limit that is too small for the set is a finding, not a crash. */
static void test_small_memory(void **state)
{
  (void)state;
  unsigned refused = 0, loaded = 0;
  for (size_t memory = 32 * 1024; memory <= 512 * 1024; memory += 8 * 1024) {
    struct pry_script_limits small = {.wall = -1, .memory = memory};
    struct pry_report report;
    pry_report_init(&report);
    struct pry_policy_set *set = make_set();
    struct pry_generation *generation = pry_lua_test_loader.load(set, &small, &report);
    assert_true((generation == NULL) == (report.errors > 0));
    refused += generation == NULL;
    loaded += generation != NULL;
    if (generation)
      pry_generation_unref(generation);
    else
      pry_policy_set_free(set);
    pry_report_fini(&report);
  }
  assert_true(refused > 0 && loaded > 0);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_providers),
      cmocka_unit_test(test_routes),
      cmocka_unit_test(test_instances),
      cmocka_unit_test(test_dialect),
      cmocka_unit_test(test_secrets),
      cmocka_unit_test(test_warm),
      cmocka_unit_test(test_small_memory),
      cmocka_unit_test(test_compiled_once),
      cmocka_unit_test(test_compiled_files_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
