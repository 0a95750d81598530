#include "test_host.h"

#include "door.h"
#include "lib.h"
#include "lib_test.h"
#include "retest.h"
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>

enum { TEST_FACTOR = 1000, TEST_MEMORY_FACTOR = 8, TESTS_MAX = 1000, MESSAGE_MAX = 1024 };

/* Their addresses name the registry's list of { name, function, t }: while the file runs, and after it. */
static char loading_key, tests_key;

/* One run over a set. */
struct test_run {
  const struct pry_policy_set *set;
  const struct pry_script_limits *limits;
  const struct pry_test_options *options;
  struct pry_report *report;
};

/* One file: its state, and how many tests it named. */
struct test_file {
  struct test_run *run;
  const struct pry_policy_file *file;
  struct pry_script *script;
  lua_Integer count;
};

/* One test. */
struct test_case {
  struct test_file *file;
  lua_Integer number; /* in the file, from 1 */
  struct pry_world *world;
  struct pry_world **t; /* the test's; NULL before it began */
  char name[256];
  int line; /* where its function begins */
  /* The oldest fault of a policy in its world, and how it is told. */
  char fault[256];
};

/* ---- inside the door ----------------------------------------------------------------------------------- */

/* ---@param name string   what it shows
 * ---@param run fun(t: t)
 * function test(name, run) end */
static int name_test(lua_State *L)
{
  if (lua_type(L, 1) != LUA_TSTRING || lua_type(L, 2) != LUA_TFUNCTION)
    return luaL_error(L, "a test is test(\"what it shows\", function(t) ... end)");
  lua_settop(L, 2);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &loading_key) != LUA_TTABLE)
    return luaL_error(L, "a test cannot name another test");
  lua_Integer count = (lua_Integer)lua_rawlen(L, 3);
  if (count == TESTS_MAX)
    return luaL_error(L, "a file has more than %d tests", TESTS_MAX);
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, 2);
  lua_rawseti(L, 3, count + 1);
  return 0;
}

static int open_step(lua_State *L)
{
  struct test_file *file = lua_touserdata(L, 1);
  pry_lib_open(L);
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &loading_key);
  lua_newtable(L);
  lua_pushcfunction(L, name_test);
  lua_setfield(L, -2, "test");
  pry_sandbox_load(L, file->file->path, (struct pry_slice){file->file->text, file->file->size}, lua_gettop(L));
  lua_call(L, 0, 0);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &loading_key);
  file->count = (lua_Integer)lua_rawlen(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &tests_key);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &loading_key);
  return 0;
}

static int name_step(lua_State *L)
{
  struct test_case *test = lua_touserdata(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &tests_key);
  lua_rawgeti(L, -1, test->number);
  lua_rawgeti(L, -1, 1);
  snprintf(test->name, sizeof test->name, "%s", lua_tostring(L, -1));
  lua_Debug about;
  lua_rawgeti(L, -2, 2);
  lua_getinfo(L, ">S", &about);
  test->line = about.linedefined;
  return 0;
}

static int test_step(lua_State *L)
{
  struct test_case *test = lua_touserdata(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &tests_key);
  lua_rawgeti(L, -1, test->number);
  int entry = lua_gettop(L);
  lua_rawgeti(L, entry, 2);
  test->t = pry_test_push(L, test->world);
  lua_pushvalue(L, -1);
  lua_rawseti(L, entry, 3); /* lives as long as the state, so that its world can be taken away after any end */
  lua_call(L, 1, 0);
  return 0;
}

/* ---- one test ------------------------------------------------------------------------------------------ */

static bool enter(struct test_file *file, lua_CFunction step, void *argument, char message[MESSAGE_MAX])
{
  struct pry_run run;
  pry_run_init(&run, file->script, TEST_FACTOR);
  enum pry_door_result result = pry_door_call(file->script, step, argument, &run);
  snprintf(message, MESSAGE_MAX, "%s", result == PRY_DOOR_OK ? "" : run.fault);
  return result == PRY_DOOR_OK;
}

static bool is_wanted(const struct pry_test_options *options, const char *name)
{
  return (!options->pattern || strstr(name, options->pattern)) &&
         (!options->wanted || options->wanted(options->user, name));
}

/* "retry_test.lua:7: text" as place and text; without a place it is about `file`. */
struct placed {
  char where[160];
  const char *what;
};

static void place(struct placed *placed, const char *file, const char *message)
{
  const char *colon = strstr(message, ".lua:");
  size_t digits = colon ? strspn(colon + 5, "0123456789") : 0;
  bool has_place = digits && strncmp(colon + 5 + digits, ": ", 2) == 0;
  placed->what = has_place ? colon + 5 + digits + 2 : message;
  snprintf(placed->where, sizeof placed->where, "%.*s", has_place ? (int)(colon + 5 + digits - message) : 159,
           has_place ? message : file);
}

/* True: no test before reported it. */
static bool report_fault(struct pry_report *report, const struct pry_test_result *result)
{
  static const char begin[] = "fault: ";
  struct placed placed;
  place(&placed, result->file, result->fault);
  for (size_t i = 0; i < report->count; i++) {
    const struct pry_finding *told = &report->findings[i];
    if (strcmp(told->where, placed.where) == 0 && strncmp(told->what, begin, sizeof begin - 1) == 0 &&
        strncmp(told->what + sizeof begin - 1, placed.what, strlen(placed.what)) == 0)
      return false;
  }
  pry_report_add(report, PRY_FINDING_ERROR, placed.where, "%s%s (test \"%.120s\" ran into it first)", begin,
                 placed.what, result->name);
  return true;
}

static void conclude(struct test_run *run, struct pry_test_result *result)
{
  struct placed placed;
  if (result->passed) {
    run->report->tests_passed++;
  } else {
    run->report->tests_failed++;
    result->fault_is_new = *result->fault && report_fault(run->report, result);
    place(&placed, result->file, result->message);
    pry_report_add(run->report, PRY_FINDING_ERROR, placed.where, "test \"%.120s\" failed: %s", result->name,
                   placed.what);
  }
  if (run->options->result)
    run->options->result(run->options->user, result);
}

/* Newest first: the oldest stays. */
static bool keep_fault(void *user, const struct pry_event_record *record)
{
  struct test_case *test = user;
  if (*record->fault)
    snprintf(test->fault, sizeof test->fault, "%s", record->fault);
  return true;
}

/* Runs the test in its world; its message, and the fault behind it, when it fails. */
static bool run_in_world(struct test_case *test, char message[MESSAGE_MAX])
{
  bool passed = enter(test->file, test_step, test, message);
  if (passed && !test->world->check_count) {
    snprintf(message, MESSAGE_MAX, "%s:%d: made no assertion; say what must be so with t:eq, t:ok, t:match or t:near",
             test->file->file->path, test->line);
    return false;
  }
  if (!passed)
    pry_event_visit(test->world->engine->control->events, SIZE_MAX, keep_fault, test);
  return passed;
}

static void run_test(struct test_file *file, lua_Integer number)
{
  struct test_case test = {.file = file, .number = number};
  char message[MESSAGE_MAX];
  struct pry_test_result result = {
      .file = file->file->path, .name = test.name, .message = message, .fault = test.fault};
  enter(file, name_step, &test, message);
  if (!is_wanted(file->run->options, test.name))
    return;
  test.world = pry_world_new(file->run->set, file->run->limits);
  if (test.world) {
    pry_time began = pry_loop_now(test.world->loop);
    result.passed = run_in_world(&test, message);
    result.calls = test.world->call_count;
    result.virtual_seconds = pry_time_to_seconds(pry_loop_now(test.world->loop) - began);
  } else {
    snprintf(message, sizeof message, "memory is short");
  }
  if (test.t)
    *test.t = NULL;
  conclude(file->run, &result);
  pry_world_free(test.world);
}

/* ---- one file ------------------------------------------------------------------------------------------ */

static bool is_unwanted(const struct pry_report *report)
{
  return report->unwanted && atomic_load_explicit(report->unwanted, memory_order_relaxed);
}

static const struct pry_policy_file *find_file(void *user, const char *path)
{
  return pry_policy_set_find(user, path);
}

static void run_file(struct test_run *run, const struct pry_policy_file *policy_file)
{
  struct test_file file = {.run = run, .file = policy_file};
  struct pry_script_limits limits = *run->limits;
  char message[MESSAGE_MAX] = "";
  limits.memory = (limits.memory ? limits.memory : (size_t)8 * 1024 * 1024) * TEST_MEMORY_FACTOR;
  file.script = pry_script_new(&limits, message);
  if (file.script) {
    file.script->find = find_file;
    file.script->find_user = (void *)(uintptr_t)run->set;
  }
  if (!file.script || !enter(&file, open_step, &file, message)) {
    /* A file that does not even run is one failed test. */
    struct pry_test_result result = {
        .file = policy_file->path, .name = policy_file->path, .message = message, .fault = ""};
    if (is_wanted(run->options, policy_file->path) || !run->options->pattern)
      conclude(run, &result);
  }
  for (lua_Integer i = 1; i <= file.count && !is_unwanted(run->report); i++)
    run_test(&file, i);
  pry_script_free(file.script);
}

static int compile_one(lua_State *L)
{
  pry_sandbox_load_file(L, lua_touserdata(L, 1), 0);
  return 0;
}

/* Each test loads most of the set: what was not compiled when it was staged is compiled now. A file that is wrong tells
 * so in the tests. */
static void compile_set(const struct pry_policy_set *set, const struct pry_script_limits *limits)
{
  struct pry_script *script = pry_script_new(limits, NULL);
  if (!script)
    return;
  script->keep_compiled = true;
  for (size_t i = 0; i < set->count; i++) {
    struct pry_run run;
    pry_run_init(&run, script, 1);
    if (!set->files[i].compiled && !pry_is_test_file(set->files[i].path))
      pry_door_call(script, compile_one, (void *)(uintptr_t)&set->files[i], &run);
  }
  pry_script_free(script);
}

bool pry_policy_tests_run(const struct pry_policy_set *set, const struct pry_script_limits *limits,
                          const struct pry_test_options *options, struct pry_report *report)
{
  struct pry_script_limits deterministic = limits ? *limits : (struct pry_script_limits){0};
  deterministic.wall = -1; /* instructions alone decide: a slow machine must not fail a test */
  struct test_run run = {set, &deterministic, options, report};
  unsigned failed = report->tests_failed;
  compile_set(set, &deterministic);
  for (size_t i = 0; i < set->count && !is_unwanted(report); i++)
    if (pry_is_test_file(set->files[i].path) && (!options->needed || options->needed(options->user, &set->files[i]))) {
      unsigned before = report->tests_passed;
      run_file(&run, &set->files[i]);
      set->files[i].tests = report->tests_passed - before;
    }
  return report->tests_failed == failed && !is_unwanted(report);
}
