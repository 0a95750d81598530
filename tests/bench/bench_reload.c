/* What a reload of ten policies costs, on one thread and without their tests: `stage` reads nothing from disk, but compiles
 * and checks the set; `commit` warms the worker's state and lets it serve. Prints one JSON object: milliseconds, median and
 * most.
 *
 *     bench_reload [ROUNDS (50)]
 *
 * The ten are those of a chain that uses most of what is shipped, with all libraries and dialects; each round changes a
 * comment of init.lua. As in a running parry, what the serving set has compiled of the same text is taken over. */
#include "engine_rig.h"
#include "loader.h"

#include <stdio.h>
#include <stdlib.h>

enum { DEFAULT_ROUNDS = 50, ROUNDS_MAX = 10000 };

static const char *const names[] = {"circuit_breaker", "token_refresh", "retry",      "fallback_model", "alert",
                                    "session_queue",   "concurrency",   "rate_limit", "keys",           "validate"};

enum { NAMES = sizeof names / sizeof *names };

static const char INIT[] = "-- %u\n"
                           "provider 'up' { base_url = 'http://up.test/v1', dialect = 'openai' }\n"
                           "route '/*' { to = 'up', chain = {\n"
                           "  use 'validate', use 'session_queue', use 'concurrency' { slots = 64 },\n"
                           "  use 'rate_limit' { limit = 500, per = 60 }, use 'circuit_breaker', use 'token_refresh',\n"
                           "  use 'keys', use 'retry', use 'fallback_model', use 'alert',\n"
                           "} }\n";

static void fail(const char *what)
{
  fprintf(stderr, "bench_reload: %s\n", what);
  exit(1);
}

static bool is_wanted(const char *path)
{
  char name[64];
  bool wanted = strchr(path, '/') != NULL;
  for (size_t i = 0; i < NAMES && !wanted; i++) {
    snprintf(name, sizeof name, "%s.lua", names[i]);
    wanted = strcmp(path, name) == 0;
  }
  return wanted;
}

static struct pry_policy_set *make_set(unsigned number)
{
  char init[sizeof INIT + 16];
  struct pry_policy_set *shipped = engine_rig_shipped(), *set = pry_policy_set_new();
  if (!set)
    fail("memory is short");
  for (size_t i = 0; i < shipped->count; i++)
    if (is_wanted(shipped->files[i].path))
      engine_rig_add(set, shipped->files[i].path, shipped->files[i].text);
  pry_policy_set_free(shipped);
  snprintf(init, sizeof init, INIT, number);
  engine_rig_add(set, "init.lua", init);
  if (!pry_policy_set_seal(set))
    fail("memory is short");
  return set;
}

struct times {
  double stage[ROUNDS_MAX], commit[ROUNDS_MAX], both[ROUNDS_MAX];
};

static void reload(struct engine_rig *rig, unsigned round, struct times *times)
{
  struct pry_policy_set *set = make_set(round);
  struct pry_report report;
  pry_report_init(&report);
  const struct pry_generation *serving = pry_engine_generation(rig->engine);
  double start = engine_rig_seconds();
  if (serving)
    pry_policy_set_share(set, serving->set);
  struct pry_generation *generation =
      pry_generation_stage(&pry_lua_loader, set, &rig->engine->options.limits, false, NULL, &report);
  double staged = engine_rig_seconds();
  bool whole = generation && generation->policies == NAMES;
  struct pry_rollout *rollout = whole ? pry_rollout_new(rig->engine, generation, &report) : NULL;
  if (!rollout || !pry_engine_commit(rig->engine, rollout, &report))
    fail(report.count ? report.findings[0].what : "the policies were refused");
  double committed = engine_rig_seconds();
  times->stage[round] = (staged - start) * 1e3;
  times->commit[round] = (committed - staged) * 1e3;
  times->both[round] = (committed - start) * 1e3;
  pry_report_fini(&report);
}

int main(int argc, char **argv)
{
  static struct times times;
  struct engine_rig rig;
  unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : DEFAULT_ROUNDS;
  if (!rounds || rounds > ROUNDS_MAX) {
    fprintf(stderr, "usage: bench_reload [ROUNDS (%d)]\n", DEFAULT_ROUNDS);
    return 2;
  }
  engine_rig_init(&rig);
  for (unsigned round = 0; round < rounds; round++)
    reload(&rig, round, &times);
  double stage = engine_rig_median(times.stage, rounds), commit = engine_rig_median(times.commit, rounds),
         both = engine_rig_median(times.both, rounds);
  printf("{\"rounds\":%lu,\"stage\":%.3f,\"commit\":%.3f,\"both\":%.3f,\"most\":%.3f}\n", rounds, stage, commit, both,
         times.both[rounds - 1]);
  engine_rig_fini(&rig);
  return 0;
}
