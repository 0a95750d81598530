/* What one decision costs: a handler of a policy asked through the state, the event record included.
 * bench_ask [NAME]: only the policies whose name holds NAME. */
#include "ask.h"
#include "http_script.h"
#include "loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 300000 };

struct bench {
  struct pry_loop *loop;
  struct pry_engine *engine;
  struct pry_call_view view;
  struct pry_headers headers;
  struct pry_attempt attempt;
  struct pry_failure failure;
  struct pry_list permits;
};

static const struct {
  const char *name, *text;
} policies[] = {
    {"empty handler", "return policy { name = 'p', on_error = function() end }"},
    {"retry {}", "return policy { name = 'p', on_error = function() return retry {} end }"},
    {"retry policy", "return policy { name = 'p', on_error = function(self, call, err)\n"
                     "  local n = call.target.attempts\n"
                     "  if err.source == 'parry' or n >= 4 then return end\n"
                     "  return retry { after = random() * 0.5 * 2 ^ n, why = ('attempt %d of %d'):format(n, 4) }\n"
                     "end }"},
    {"breaker outcome", "return policy { name = 'p', on_error = function(self, call, err)\n"
                        "  store.breaker(call.target.name, { failures = 5, cooldown = 10 }):success()\n"
                        "end }"},
};

static double seconds(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static bool load(struct bench *bench, const char *policy)
{
  struct pry_report report;
  struct pry_policy_set *set = pry_policy_set_new();
  pry_report_init(&report);
  bool loaded = set && pry_policy_set_add(set, "p.lua", pry_slice_of(policy)) &&
                pry_policy_set_add(set, "init.lua",
                                   PRY_SLICE("provider 'up' { base_url = 'https://up.test', dialect = 'd' }\n"
                                             "route '/*' { to = 'up', chain = { use 'p' } }\n")) &&
                pry_policy_set_add(set, "dialects/d.lua", PRY_SLICE("return dialect { name = 'd' }")) &&
                pry_policy_set_seal(set) && pry_engine_load(bench->engine, set, false, &report);
  if (!loaded && report.count)
    fprintf(stderr, "%s: %s\n", report.findings[0].where, report.findings[0].what);
  pry_report_fini(&report);
  return loaded;
}

static double measure(struct bench *bench)
{
  struct pry_state *state = bench->engine->control->state;
  struct pry_ask ask = {.handler = PRY_ON_ERROR,
                        .instance = state->generation->config->instances[0],
                        .call = &bench->view,
                        .failure = &bench->failure,
                        .permits = &bench->permits};
  double best = 1e9;
  for (int i = 0; i < 5; i++) {
    double start = seconds();
    for (int j = 0; j < ROUNDS / 5; j++) {
      pry_verdict_init(&ask.verdict);
      state->ops->ask(state, &ask);
      pry_verdict_fini(&ask.verdict);
    }
    double spent = (seconds() - start) / (ROUNDS / 5);
    best = spent < best ? spent : best;
  }
  return best;
}

int main(int argc, char **argv)
{
  struct bench bench = {.failure = pry_failure_from_status(503)};
  pry_list_init(&bench.permits);
  pry_headers_init(&bench.headers);
  bench.loop = pry_loop_new_virtual(1700000000);
  struct pry_http *http = pry_http_script_client(pry_http_script_new(bench.loop));
  struct pry_engine_options options = {.loop = bench.loop, .http = http, .loader = &pry_lua_loader, .seed = 1};
  bench.engine = pry_engine_new(&options);
  bench.view = (struct pry_call_view){.id = "c_0_1", .route = "/*", .dialect = "openai", .headers = &bench.headers};
  snprintf(bench.view.target.name, sizeof bench.view.target.name, "up/m");
  bench.view.target.attempts = 1;
  for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
    if ((argc < 2 || strstr(policies[i].name, argv[1])) && load(&bench, policies[i].text))
      printf("%-20s %7.0f ns a decision, %zu KiB of Lua\n", policies[i].name, measure(&bench) * 1e9,
             bench.engine->control->state->ops->memory(bench.engine->control->state) / 1024);
  pry_engine_free(bench.engine);
  pry_http_free(http);
  pry_loop_free(bench.loop);
  return 0;
}
