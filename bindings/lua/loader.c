#include "loader.h"

#include "ask.h"
#include "declare.h"
#include "door.h"
#include "lib.h"
#include "test_host.h"

#include <stdio.h>

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
  static const struct pry_declare_options options = {0};
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

struct lines {
  void (*line)(void *user, const char *text);
  void *user;
};

static void tell_line(void *user, const struct pry_test_result *result)
{
  const struct lines *lines = user;
  char text[1024];
  if (!lines->line)
    return;
  if (result->passed)
    snprintf(text, sizeof text, "PASS %.200s (%u call%s, %.4g s virtual)", result->name, result->calls,
             result->calls == 1 ? "" : "s", result->virtual_seconds);
  else
    snprintf(text, sizeof text, "FAIL %.200s\n%s%s%s     %.500s", result->name,
             result->fault_is_new ? "     fault: " : "", result->fault_is_new ? result->fault : "",
             result->fault_is_new ? "\n" : "", result->message);
  lines->line(lines->user, text);
}

static bool run_tests(const struct pry_policy_set *set, const struct pry_script_limits *limits, const char *pattern,
                      struct pry_report *report, void (*line)(void *user, const char *text), void *user)
{
  struct lines lines = {line, user};
  struct pry_test_options options = {.pattern = pattern, .result = tell_line, .user = &lines};
  return pry_policy_tests_run(set, limits, &options, report);
}

const struct pry_loader pry_lua_loader = {stage, run_tests, warm};
const struct pry_loader pry_lua_test_loader = {stage_for_test, run_tests, warm};
