/* The shipped policies read, loaded, tested and taken over, with each allocation and system call failing: what serves goes
 * on serving, and the report says that something went wrong. */
#include "engine.h"
#include "fail.h"
#include "http_script.h"
#include "loader.h"
#include "reloader.h"
#include "test_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_INIT                                                                                                     \
  "provider 'up' { base_url = 'https://up.test/v1', dialect = 'd', auth = bearer(secret 'UP_KEY') }\n"                 \
  "route '/*' { to = 'up', chain = { use 'p' } }\n"
#define DIALECT "return dialect { name = 'd', stream = { default = 'content' } }\n"
#define POLICY                                                                                                         \
  "return policy { name = 'p', params = { n = param { 1, min = 0, max = 9 } },\n"                                      \
  "  every = { { seconds = 60, run = function(self) log.info('job') end } },\n"                                        \
  "  on_error = function(self, call, err) return retry { after = self.n } end }\n"
#define POLICY_TEST                                                                                                    \
  "test('retries', function(t)\n"                                                                                      \
  "  t:use('p', { n = 2 })\n"                                                                                          \
  "  t:provider { { status = 503 }, { status = 200 } }\n"                                                              \
  "  local r = t:call { model = 'm' }\n"                                                                               \
  "  t:eq(r.status, 200)\n"                                                                                            \
  "  t:eq(r.waited, 2)\n"                                                                                              \
  "end)\n"

struct stand {
  struct pry_loop *loop;
  struct pry_http *http;
  struct pry_log *log;
  struct pry_engine *engine;
  bool secret_logged;
};

static void take_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct stand *stand = user;
  (void)level, (void)size;
  stand->secret_logged |= strstr(line, "test-MOONSHOT_API_KEY") || strstr(line, "test-SECOND_KEY");
}

static struct pry_policy_set *small_set(const char *init)
{
  struct pry_policy_set *set = pry_policy_set_new();
  bool ok = set && pry_policy_set_add(set, "init.lua", pry_slice_of(init)) &&
            pry_policy_set_add(set, "p.lua", PRY_SLICE(POLICY)) &&
            pry_policy_set_add(set, "p_test.lua", PRY_SLICE(POLICY_TEST)) &&
            pry_policy_set_add(set, "dialects/d.lua", PRY_SLICE(DIALECT)) && pry_policy_set_seal(set);
  if (ok)
    return set;
  pry_policy_set_free(set);
  return NULL;
}

static void open_stand(struct stand *stand)
{
  struct pry_report report;
  fail_quiet();
  *stand = (struct stand){.loop = pry_loop_new_virtual(1700000000)};
  struct pry_http_script *script = pry_http_script_new(stand->loop);
  stand->http = pry_http_script_client(script);
  stand->log = pry_log_new(take_line, stand, PRY_LOG_INFO, NULL, NULL);
  struct pry_engine_options options = {.loop = stand->loop,
                                       .http = stand->http,
                                       .log = stand->log,
                                       .loader = &pry_lua_test_loader,
                                       .limits = {.wall = -1},
                                       .seed = 1};
  stand->engine = pry_engine_new(&options);
  pry_report_init(&report);
  FAIL_CHECK(stand->engine && pry_engine_load(stand->engine, small_set(FIRST_INIT), false, &report));
  pry_report_fini(&report);
  fail_loud();
}

static void close_stand(struct stand *stand)
{
  pry_engine_free(stand->engine);
  pry_http_free(stand->http);
  pry_log_free(stand->log);
  pry_loop_free(stand->loop);
}

/* Asks the one handler of the small set that serves. */
static void still_serves(struct stand *stand)
{
  struct pry_state *state = stand->engine->control->state;
  const struct pry_instance *instance = state->generation->config->instances[0];
  struct pry_failure failure = pry_failure_from_status(503);
  struct pry_call_view view = {.id = "c_0_1", .route = "/*", .dialect = "openai", .deadline = 30 * PRY_SECOND};
  struct pry_list permits;
  pry_list_init(&permits);
  view.target.provider = &state->generation->config->providers[0];
  struct pry_ask ask = {
      .handler = PRY_ON_ERROR, .instance = instance, .call = &view, .failure = &failure, .permits = &permits};
  pry_verdict_init(&ask.verdict);
  FAIL_CHECK(state->ops->ask(state, &ask) == PRY_ASK_DONE && ask.verdict.kind == PRY_VERDICT_RETRY);
  pry_verdict_fini(&ask.verdict);
}

/* A set that serves has all its secrets: without memory or descriptors for one, it is refused. */
static bool has_secrets(const struct pry_config *config)
{
  for (size_t i = 0; i < config->secret_count; i++)
    if (!config->secrets[i].value)
      return false;
  return true;
}

/* Taken over, or refused with a reason and everything as before. */
static void check_load(struct stand *stand, bool ok, const struct pry_report *report, const char *before)
{
  const struct pry_generation *serving = pry_engine_generation(stand->engine);
  FAIL_CHECK(ok || strcmp(serving->id, before) == 0);
  FAIL_CHECK(ok || report->errors > 0);
  FAIL_CHECK(stand->engine->control->state->generation == serving);
  FAIL_CHECK(has_secrets(serving->config));
  if (!ok && !fail_struck())
    for (size_t i = 0; i < report->count; i++)
      printf("  %s: %s\n", report->findings[i].where, report->findings[i].what);
  FAIL_CHECK(ok || fail_struck());
}

static size_t shipped_files(void)
{
  struct pry_report report;
  fail_quiet();
  pry_report_init(&report);
  struct pry_policy_set *set = pry_reload_read(PARRY_SOURCE_DIR "/policies", NULL, NULL, &report);
  size_t count = set->count;
  pry_policy_set_free(set);
  pry_report_fini(&report);
  fail_loud();
  return count;
}

static void load_shipped(struct stand *stand, bool run_tests)
{
  char before[PRY_GENERATION_ID_MAX];
  struct pry_report report;
  pry_report_init(&report);
  snprintf(before, sizeof before, "%s", pry_engine_generation(stand->engine)->id);
  struct pry_policy_set *set = pry_reload_read(PARRY_SOURCE_DIR "/policies", NULL, NULL, &report);
  FAIL_CHECK(set || report.errors > 0);
  if (set) {
    size_t files = set->count;
    bool ok = pry_engine_load(stand->engine, set, run_tests, &report);
    check_load(stand, ok, &report, before);
    FAIL_CHECK(!ok || files == shipped_files()); /* what serves is the whole set */
  }
  pry_report_fini(&report);
}

static void use_shipped(void)
{
  struct stand stand;
  open_stand(&stand);
  load_shipped(&stand, false);
  fail_over();
  if (pry_engine_generation(stand.engine)->set->count == 4)
    still_serves(&stand);
  load_shipped(&stand, false);
  FAIL_CHECK(pry_engine_generation(stand.engine)->set->count == shipped_files());
  close_stand(&stand);
}

/* Check, test, warm, adopt, swap of a small set, and back. */
static void reload_small(struct stand *stand, const char *init)
{
  char before[PRY_GENERATION_ID_MAX];
  struct pry_report report;
  struct pry_buffer text;
  pry_report_init(&report);
  pry_buffer_init(&text, 0);
  snprintf(before, sizeof before, "%s", pry_engine_generation(stand->engine)->id);
  struct pry_policy_set *set = small_set(init);
  if (set) {
    bool ok = pry_engine_load(stand->engine, set, true, &report);
    check_load(stand, ok, &report, before);
    pry_report_text(&report, &text);
  }
  pry_buffer_fini(&text);
  pry_report_fini(&report);
  pry_log(stand->log, PRY_LOG_INFO, "loaded", pry_log_text("key", "with test-SECOND_KEY in it"));
}

#define SECOND_INIT                                                                                                    \
  FIRST_INIT "provider 'second' { base_url = 'https://s.test/v1', dialect = 'd', auth = bearer(secret 'SECOND_KEY') }" \
             "credential 'c' { refresh_token = secret 'REFRESH', token_url = 'https://s.test/t',"                      \
             "  refresh = function(cred) return { token = 'new' } end }"                                               \
             "sink 'ops' { webhook = secret 'HOOK' }"

static void use_reload(void)
{
  struct stand stand;
  open_stand(&stand);
  reload_small(&stand, SECOND_INIT);
  bool taken_over = pry_engine_generation(stand.engine)->config->provider_count == 2;
  FAIL_CHECK(!taken_over || !stand.secret_logged);
  stand.secret_logged = false;
  fail_over();
  still_serves(&stand);
  reload_small(&stand, FIRST_INIT);
  reload_small(&stand, SECOND_INIT);
  still_serves(&stand);
  pry_loop_advance(stand.loop, 200 * PRY_SECOND); /* jobs */
  FAIL_CHECK(pry_engine_generation(stand.engine)->config->provider_count == 2);
  close_stand(&stand);
}

/* A set with mistakes: each is found, or memory is what is complained about; never is it taken over. */
static void use_bad_set(void)
{
  struct stand stand;
  struct pry_report report;
  open_stand(&stand);
  pry_report_init(&report);
  struct pry_policy_set *set = small_set(
      FIRST_INIT "route '/x' { to = 'nobody', chain = { use 'p' { n = 99 }, use 'missing' }, deadlin = 3 }\n");
  if (set) {
    FAIL_CHECK(!pry_engine_load(stand.engine, set, true, &report));
    FAIL_CHECK(report.errors > 0);
  }
  pry_report_fini(&report);
  fail_over();
  still_serves(&stand);
  close_stand(&stand);
}

/* The policies' own tests: pass, or fail with a reason. */
static void use_tests(void)
{
  struct pry_report report;
  const struct pry_test_options options = {.pattern = NULL};
  fail_quiet();
  struct pry_policy_set *set = small_set(FIRST_INIT);
  fail_loud();
  pry_report_init(&report);
  bool passed = pry_policy_tests_run(set, NULL, &options, &report);
  FAIL_CHECK(passed ? report.tests_passed == 1 : report.errors > 0 && fail_struck());
  pry_report_fini(&report);
  fail_over();
  pry_report_init(&report);
  FAIL_CHECK(pry_policy_tests_run(set, NULL, &options, &report));
  pry_report_fini(&report);
  pry_policy_set_free(set);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"policies read and loaded", use_shipped, FAIL_BOTH, 50},
      {"policies taken over", use_reload, FAIL_BOTH, 100},
      {"policies with mistakes", use_bad_set, FAIL_MEMORY, 100},
      {"policies' tests", use_tests, FAIL_BOTH, 100},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
