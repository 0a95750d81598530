#include "loader.h"

#include "ask.h"
#include "declare.h"
#include "door.h"
#include "lib.h"
#include "retest.h"
#include "test_host.h"

enum { SETUP_FACTOR = 20 };

static int open_libraries(lua_State *L)
{
  pry_lib_open(L);
  return 0;
}

/* A state with everything that policy files may call, and no file. */
static struct pry_script *new_script(const struct pry_script_limits *limits, struct pry_report *report)
{
  char fault[PRY_FAULT_MAX] = "";
  struct pry_run run;
  struct pry_script *script = pry_script_new(limits, fault);
  if (!script) {
    pry_report_add(report, PRY_FINDING_ERROR, "init.lua", "cannot make a Lua state: %s", fault);
    return NULL;
  }
  pry_run_init(&run, script, SETUP_FACTOR);
  if (pry_door_call(script, open_libraries, NULL, &run) == PRY_DOOR_OK)
    return script;
  pry_report_add(report, PRY_FINDING_ERROR, "init.lua", "cannot make a Lua state: %s", run.fault);
  pry_script_free(script);
  return NULL;
}

static struct pry_generation *load(struct pry_policy_set *set, const struct pry_script_limits *limits,
                                   const struct pry_declare_options *options, struct pry_report *report)
{
  unsigned policies = 0;
  struct pry_script *script = new_script(limits, report);
  struct pry_config *config = script ? pry_declare_set(script, set, options, report, &policies) : NULL;
  struct pry_generation *generation = NULL;
  pry_script_free(script);
  if (!config)
    return NULL;
  generation = pry_generation_new(set, config);
  if (!generation) {
    pry_report_add(report, PRY_FINDING_ERROR, "init.lua", "memory is short");
    pry_config_free(config);
    return NULL;
  }
  generation->policies = policies;
  return generation;
}

static struct pry_generation *stage(struct pry_policy_set *set, const struct pry_script_limits *limits,
                                    struct pry_report *report)
{
  const struct pry_declare_options options = {.secrets = limits ? limits->secrets : NULL,
                                              .secret_count = limits ? limits->secret_count : 0};
  return load(set, limits, &options, report);
}

static struct pry_generation *stage_for_test(struct pry_policy_set *set, const struct pry_script_limits *limits,
                                             struct pry_report *report)
{
  static const struct pry_declare_options options = {.invented_secrets = true};
  return load(set, limits, &options, report);
}

static struct pry_state *warm(struct pry_generation *generation, struct pry_worker *worker,
                              const struct pry_script_limits *limits, struct pry_report *report)
{
  static const struct pry_declare_options options = {.warm = true};
  char fault[PRY_FAULT_MAX] = "";
  struct pry_script *script = new_script(limits, report);
  struct pry_config *config = script ? pry_declare_set(script, generation->set, &options, report, NULL) : NULL;
  bool declared = config != NULL;
  pry_config_free(config); /* the same as the generation's: only the functions in the state are new */
  if (declared && pry_decider_attach(script, generation, worker, fault))
    return &script->state;
  if (declared)
    pry_report_add(report, PRY_FINDING_ERROR, "init.lua", "cannot prepare a worker: %s", fault);
  pry_script_free(script);
  return NULL;
}

/* ---- tests --------------------------------------------------------------------------------------------- */

struct retest {
  const struct pry_generation *generation, *proven;
};

static bool is_needed(void *user, const struct pry_policy_file *file)
{
  const struct retest *retest = user;
  return pry_retest_is_needed(retest->generation->set, retest->generation->config, retest->proven, file);
}

/* What was not run again counts as it did where it was. */
static void count_tests(struct pry_generation *generation, const struct pry_generation *proven)
{
  for (size_t i = 0; i < generation->set->count; i++) {
    struct pry_policy_file *file = &generation->set->files[i];
    const struct pry_policy_file *before = proven ? pry_policy_set_find(proven->set, file->path) : NULL;
    if (!file->tests && before)
      file->tests = before->tests;
    generation->tests += file->tests;
  }
}

static bool run_tests(struct pry_generation *generation, const struct pry_generation *proven,
                      const struct pry_script_limits *limits, struct pry_report *report)
{
  struct retest retest = {generation, proven};
  struct pry_test_options options = {.needed = is_needed, .user = &retest};
  if (!pry_policy_tests_run(generation->set, limits, &options, report))
    return false;
  count_tests(generation, proven);
  return true;
}

const struct pry_loader pry_lua_loader = {stage, run_tests, warm};
const struct pry_loader pry_lua_test_loader = {stage_for_test, run_tests, warm};
