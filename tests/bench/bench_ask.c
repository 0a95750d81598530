/* What an error event costs, no I/O: handlers asked through a state, the event record included. Prints one JSON object a
 * line: {"group", "name", "ns" (median of rounds), "least"}.
 *
 *     bench_ask [ROUNDS (9)] [ASKS (4000)] [NAME: only what has it in its name]
 *
 * "event": a 503 under the shipped chain. "all five" runs every policy's handler that such an event can reach, as if no
 * `when` held one back and no verdict ended the pass; "as shipped" is what really happens: `when` skips token_refresh, and
 * the verdict of retry ends the pass. "verdict": one policy that says just this. "classify": the answer put into words. */
#include "ask.h"
#include "call.h"
#include "engine_rig.h"

#include <stdio.h>
#include <stdlib.h>

enum { DEFAULT_ROUNDS = 9, DEFAULT_ASKS = 4000, ROUNDS_MAX = 1000 };

static const char INIT[] = "provider 'moonshot' { base_url = 'http://up.test/v1', dialect = 'openai' }\n"
                           "provider 'token360' { base_url = 'http://up.test/v1', dialect = 'openai' }\n"
                           "provider 'kimi' { base_url = 'http://up.test/v1', dialect = 'kimi' }\n"
                           "route '/*' { to = 'token360', chain = {\n"
                           "  use 'circuit_breaker' { failures = 5, cooldown = 10 },\n"
                           "  use 'token_refresh',\n"
                           "  use 'retry' { max_attempts = 3, base = 0.2 },\n"
                           "  use 'fallback_model' { models = { ['bench-*'] = { 'moonshot/moonshot-v1-128k' } } },\n"
                           "  use 'alert',\n"
                           "} }\n";

static const char INIT_OF_ONE[] = "provider 'up' { base_url = 'http://up.test', dialect = 'openai' }\n"
                                  "route '/*' { to = 'up', chain = { use 'p' } }\n";

struct bench {
  struct engine_rig rig;
  size_t rounds, asks;
  const char *wanted;
  struct pry_call_view view;
  struct pry_headers headers, answer_headers;
  struct pry_attempt attempt;
  struct pry_failure failure;
  struct pry_list permits;
};

/* ---- measuring --------------------------------------------------------------------------------------------- */

typedef void (*work_fn)(struct bench *bench, const void *what);

static void measure(struct bench *bench, const char *group, const char *name, work_fn work, const void *what)
{
  double spent[ROUNDS_MAX];
  if (!strstr(name, bench->wanted))
    return;
  for (size_t i = 0; i < bench->asks / 10; i++)
    work(bench, what);
  for (size_t round = 0; round < bench->rounds; round++) {
    double start = engine_rig_seconds();
    for (size_t i = 0; i < bench->asks; i++)
      work(bench, what);
    spent[round] = (engine_rig_seconds() - start) / (double)bench->asks * 1e9;
  }
  double median = engine_rig_median(spent, bench->rounds);
  printf("{\"group\":\"%s\",\"name\":\"%s\",\"ns\":%.0f,\"least\":%.0f}\n", group, name, median, spent[0]);
}

static struct pry_ask ask_of(struct bench *bench, enum pry_handler handler)
{
  return (struct pry_ask){.handler = handler,
                          .call = &bench->view,
                          .failure = &bench->failure,
                          .attempt = &bench->attempt,
                          .permits = &bench->permits};
}

static void no_step(struct pry_pass *pass, enum pry_pass_result result)
{
  (void)pass, (void)result;
}

/* ---- one handler ------------------------------------------------------------------------------------------- */

struct one {
  enum pry_handler handler;
  const char *policy; /* NULL: the first */
};

static const struct pry_instance *instance_of(const struct pry_state *state, const char *policy)
{
  const struct pry_config *config = state->generation->config;
  for (size_t i = 0; policy && i < config->instance_count; i++)
    if (strcmp(config->instances[i]->name, policy) == 0)
      return config->instances[i];
  return config->instances[0];
}

static void ask_one(struct bench *bench, const void *what)
{
  const struct one *one = what;
  struct pry_state *state = engine_rig_state(&bench->rig);
  struct pry_ask ask = ask_of(bench, one->handler);
  ask.instance = instance_of(state, one->policy);
  pry_verdict_init(&ask.verdict);
  if (state->ops->ask(state, &ask) != PRY_ASK_DONE) {
    fprintf(stderr, "bench_ask: %s: %s\n", ask.instance->name, ask.fault);
    exit(1);
  }
  pry_verdict_fini(&ask.verdict);
  pry_permits_release(&bench->permits);
}

/* ---- an error event ---------------------------------------------------------------------------------------- */

static const struct one all_five[] = {
    {PRY_ON_OUTCOME, "circuit_breaker"}, {PRY_ON_OUTCOME, "alert"},
    {PRY_ON_ERROR, "token_refresh"},     {PRY_ON_ERROR, "retry"},
    {PRY_ON_ERROR, "fallback_model"},
};

enum { ALL_FIVE = sizeof all_five / sizeof *all_five };

static void ask_all(struct bench *bench, const void *what)
{
  (void)what;
  for (size_t i = 0; i < ALL_FIVE; i++)
    ask_one(bench, &all_five[i]);
}

static void pass(struct bench *bench, enum pry_handler handler)
{
  struct pry_state *state = engine_rig_state(&bench->rig);
  struct pry_pass pass = {.ask = ask_of(bench, handler), .step = no_step};
  pry_pass_start(&pass, state, &state->generation->config->routes[0], handler);
  pry_pass_stop(&pass);
}

static void ask_as_shipped(struct bench *bench, const void *what)
{
  (void)what;
  pass(bench, PRY_ON_OUTCOME);
  pass(bench, PRY_ON_ERROR);
}

static void ask_on_error(struct bench *bench, const void *what)
{
  (void)what;
  pass(bench, PRY_ON_ERROR);
}

/* ---- verdicts ---------------------------------------------------------------------------------------------- */

static const struct {
  const char *name;
  enum pry_handler handler;
  const char *policy;
} verdicts[] = {
    {"empty handler", PRY_ON_ERROR, "on_error = function() end"},
    {"reads six fields", PRY_ON_ERROR,
     "on_error = function(self, call, err) local a = err.category, err.status, err.code, err.retry_after, "
     "call.target.name, call.target.attempts end"},
    {"retry", PRY_ON_ERROR, "on_error = function() return retry { after = 1, why = 'again' } end"},
    {"fallback", PRY_ON_ERROR, "on_error = function() return fallback { target = 'up/other', why = 'other' } end"},
    {"renew", PRY_ON_ERROR, "on_error = function() return renew { why = 'expired' } end"},
    {"fail", PRY_ON_ERROR, "on_error = function() return fail { category = 'server', message = 'no' } end"},
    {"respond", PRY_ON_ERROR, "on_error = function() return respond { status = 200, body = '{}' } end"},
    {"refuse", PRY_ON_ATTEMPT, "on_attempt = function() return refuse { category = 'overloaded', after = 1 } end"},
    {"hold", PRY_ON_ATTEMPT, "on_attempt = function() return hold { key = 'k', slots = 1, max_wait = 1 } end"},
};

static void measure_verdicts(struct bench *bench)
{
  for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++) {
    char text[512];
    struct pry_policy_set *set = engine_rig_shipped();
    snprintf(text, sizeof text, "return policy { name = 'p', %s }", verdicts[i].policy);
    engine_rig_add(set, "p.lua", text);
    engine_rig_add(set, "init.lua", INIT_OF_ONE);
    engine_rig_load(&bench->rig, set);
    struct one one = {verdicts[i].handler, NULL};
    measure(bench, "verdict", verdicts[i].name, ask_one, &one);
  }
}

/* ---- classifying ------------------------------------------------------------------------------------------- */

struct answer {
  const char *dialect; /* NULL: the status table alone */
  int status;
  const char *body;
  enum pry_category category; /* what it is to be classified as */
};

static const struct answer overloaded = {
    "openai", 503,
    "{\"error\":{\"message\":\"The engine is currently overloaded, please try again later\",\"type\":\"server_error\","
    "\"param\":null,\"code\":\"engine_overloaded\"}}",
    PRY_OVERLOADED};
static const struct answer by_table = {NULL, 503, "{\"error\":{\"message\":\"The engine is currently overloaded\"}}",
                                       PRY_OVERLOADED};
static const struct answer kimi = {"kimi", 200, "{\"errcode\":-2002,\"errmsg\":\"token expired\",\"data\":null}",
                                   PRY_AUTH};
static const struct answer good = {
    "openai", 200,
    "{\"id\":\"chatcmpl-b1946ac92492d2347c6235b4d2611184\",\"object\":\"chat.completion\",\"created\":1760000000,"
    "\"model\":\"bench-1\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A proxy stands "
    "between a client and a server, passes requests on and answers back, and may look at both on their way.\"},"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":57,\"completion_tokens\":24,\"total_tokens\":81}}",
    PRY_NONE};

static const struct pry_dialect *dialect_of(const struct pry_state *state, const char *name)
{
  const struct pry_config *config = state->generation->config;
  for (size_t i = 0; name && i < config->dialect_count; i++)
    if (strcmp(config->dialects[i]->name, name) == 0)
      return config->dialects[i];
  return &pry_dialect_generic;
}

static void classify(struct bench *bench, const void *what)
{
  const struct answer *answer = what;
  struct pry_state *state = engine_rig_state(&bench->rig);
  struct pry_answer_view view = {.provider = "token360",
                                 .status = answer->status,
                                 .headers = &bench->answer_headers,
                                 .body = pry_slice_of(answer->body),
                                 .event_type = PRY_SLICE("")};
  struct pry_failure failure = pry_classify(state, dialect_of(state, answer->dialect), &view, 1700000000);
  if (failure.category != answer->category) {
    fprintf(stderr, "bench_ask: %s is taken for %s\n", answer->body, pry_category_name(failure.category));
    exit(1);
  }
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static const struct pry_provider *provider_of(const struct pry_state *state, const char *name)
{
  const struct pry_config *config = state->generation->config;
  for (size_t i = 0; i < config->provider_count; i++)
    if (strcmp(config->providers[i].name, name) == 0)
      return &config->providers[i];
  return NULL;
}

static void measure_events(struct bench *bench)
{
  struct pry_policy_set *set = engine_rig_shipped();
  engine_rig_add(set, "init.lua", INIT);
  engine_rig_load(&bench->rig, set);
  bench->view.target.provider = provider_of(engine_rig_state(&bench->rig), "token360");
  measure(bench, "event", "all five", ask_all, NULL);
  measure(bench, "event", "as shipped", ask_as_shipped, NULL);
  measure(bench, "event", "as shipped, on_error only", ask_on_error, NULL);
  for (size_t i = 0; i < ALL_FIVE; i++) {
    char name[64];
    snprintf(name, sizeof name, "%s %s", all_five[i].policy,
             all_five[i].handler == PRY_ON_ERROR ? "on_error" : "on_outcome");
    measure(bench, "handler", name, ask_one, &all_five[i]);
  }
  measure(bench, "classify", "503, status table", classify, &by_table);
  measure(bench, "classify", "503, openai", classify, &overloaded);
  measure(bench, "classify", "200 with an error, kimi", classify, &kimi);
  measure(bench, "classify", "a good answer, openai", classify, &good);
  bench->view.target.provider = NULL;
}

static void fill(struct bench *bench)
{
  bench->failure = pry_failure_from_status(503);
  bench->failure.sent = true;
  pry_failure_set_code(&bench->failure, PRY_SLICE("engine_overloaded"));
  pry_failure_set_message(&bench->failure, PRY_SLICE("The engine is currently overloaded, please try again later"));
  bench->attempt = (struct pry_attempt){.category = bench->failure.category,
                                        .status = 503,
                                        .started = 1700000000,
                                        .ended = 1700000000,
                                        .failure = bench->failure};
  snprintf(bench->attempt.target, sizeof bench->attempt.target, "token360/bench-1");
  bench->view = (struct pry_call_view){.id = "c_0_1",
                                       .route = "/*",
                                       .dialect = "openai",
                                       .method = PRY_SLICE("POST"),
                                       .path = PRY_SLICE("/v1/chat/completions"),
                                       .model = "bench-1",
                                       .attempt = 1,
                                       .deadline = pry_loop_now(bench->rig.loop) + 60 * PRY_SECOND,
                                       .repeatable = true,
                                       .ledger = &bench->attempt,
                                       .ledger_count = 1,
                                       .headers = &bench->headers,
                                       .vars = pry_vars_new()};
  snprintf(bench->view.target.name, sizeof bench->view.target.name, "token360/bench-1");
  snprintf(bench->view.target.model, sizeof bench->view.target.model, "bench-1");
  bench->view.target.attempts = 1;
}

int main(int argc, char **argv)
{
  struct bench bench = {.rounds = DEFAULT_ROUNDS, .asks = DEFAULT_ASKS, .wanted = argc > 3 ? argv[3] : ""};
  if (argc > 1)
    bench.rounds = strtoul(argv[1], NULL, 10);
  if (argc > 2)
    bench.asks = strtoul(argv[2], NULL, 10);
  if (!bench.rounds || bench.rounds > ROUNDS_MAX || !bench.asks) {
    fprintf(stderr, "usage: bench_ask [ROUNDS (%d)] [ASKS (%d)] [NAME]\n", DEFAULT_ROUNDS, DEFAULT_ASKS);
    return 2;
  }
  pry_list_init(&bench.permits);
  pry_headers_init(&bench.headers);
  pry_headers_init(&bench.answer_headers);
  engine_rig_init(&bench.rig);
  bool filled = pry_headers_add(&bench.answer_headers, PRY_SLICE("content-type"), PRY_SLICE("application/json"));
  fill(&bench);
  if (!filled || !bench.view.vars)
    return 1;
  measure_events(&bench);
  measure_verdicts(&bench);
  pry_vars_free(bench.view.vars);
  pry_headers_fini(&bench.answer_headers);
  engine_rig_fini(&bench.rig);
  return 0;
}
