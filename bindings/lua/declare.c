#include "declare.h"

#include "declare_internal.h"
#include "door.h"
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

enum { CONFIG_MAX = 4 * 1024 * 1024, LOAD_FACTOR = 20 };

/* ---- which file is what -------------------------------------------------------------------------------- */

enum file_kind { FILE_POLICY, FILE_DIALECT, FILE_INIT, FILE_OTHER };

static bool ends_with(const char *text, const char *end)
{
  size_t size = strlen(text), end_size = strlen(end);
  return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

static enum file_kind kind_of_file(const char *path)
{
  if (strcmp(path, "init.lua") == 0)
    return FILE_INIT;
  if (ends_with(path, "_test.lua"))
    return FILE_OTHER;
  if (strncmp(path, "dialects/", 9) == 0 && !strchr(path + 9, '/'))
    return FILE_DIALECT;
  return strchr(path, '/') ? FILE_OTHER : FILE_POLICY;
}

/* ---- the language -------------------------------------------------------------------------------------- */

static void set_head(lua_State *L, int table, enum pry_object_kind kind, const char *word)
{
  lua_pushinteger(L, (lua_Integer)kind);
  lua_pushlightuserdata(L, (void *)(uintptr_t)word);
  lua_pushcclosure(L, pry_declare_head, 2);
  lua_setfield(L, table, word);
}

/* Pushes the names that only init.lua sees. */
static void push_init_names(lua_State *L)
{
  static const luaL_Reg functions[] = {{"use", pry_declare_use},
                                       {"by_model", pry_declare_by_model},
                                       {"bearer", pry_declare_bearer},
                                       {"header", pry_declare_header},
                                       {"passthrough", pry_declare_passthrough},
                                       {"clients", pry_declare_clients},
                                       {NULL, NULL}};
  luaL_newlib(L, functions);
  int table = lua_gettop(L);
  set_head(L, table, PRY_OBJECT_PROVIDER, "provider");
  set_head(L, table, PRY_OBJECT_CREDENTIAL, "credential");
  set_head(L, table, PRY_OBJECT_SERVICE, "service");
  set_head(L, table, PRY_OBJECT_SINK, "sink");
  set_head(L, table, PRY_OBJECT_ROUTE, "route");
}

static void open_language(lua_State *L)
{
  lua_pushcfunction(L, pry_declare_policy);
  pry_sandbox_set_global(L, "policy");
  lua_pushcfunction(L, pry_declare_param);
  pry_sandbox_set_global(L, "param");
  lua_pushcfunction(L, pry_declare_dialect);
  pry_sandbox_set_global(L, "dialect");
  pry_declare_push_secret(L);
  pry_sandbox_set_global(L, "secret");
  pry_functions_open(L);
}

/* ---- running files ------------------------------------------------------------------------------------- */

/* What one pass through the door is to do. */
struct step {
  struct pry_declaration *d;
  const struct pry_policy_file *file;
  enum file_kind kind;
};

static void take_result(lua_State *L, struct step *step)
{
  struct pry_declaration *d = step->d;
  bool is_policy = step->kind == FILE_POLICY;
  enum pry_object_kind wanted = is_policy ? PRY_OBJECT_POLICY : PRY_OBJECT_DIALECT;
  const struct pry_object *object = pry_object_at(L, -1, wanted);
  char shown[PRY_SHOWN_MAX];
  const char *word = is_policy ? "policy" : "dialect";
  if (object)
    pry_declare_push(L, d, is_policy ? &d->policies : &d->dialects, object->data);
  else
    pry_complain(d, (struct pry_place){step->file, 0}, "must end with return %s { ... }, but returns %s", word,
                 pry_show_value(L, -1, shown));
}

static int open_step(lua_State *L)
{
  struct step *step = lua_touserdata(L, 1);
  pry_declaration_set(L, step->d);
  open_language(L);
  return 0;
}

static int run_step(lua_State *L)
{
  struct step *step = lua_touserdata(L, 1);
  bool init = step->kind == FILE_INIT;
  if (init)
    push_init_names(L);
  pry_sandbox_load_file(L, step->file, init ? lua_gettop(L) : 0);
  if (step->kind == FILE_OTHER)
    return 0; /* only its syntax counts */
  lua_call(L, 0, 1);
  if (!init)
    take_result(L, step);
  return 0;
}

static int resolve_step(lua_State *L)
{
  struct step *step = lua_touserdata(L, 1);
  pry_declare_resolve(L, step->d);
  if (!step->d->report->errors)
    pry_functions_seal(L);
  return 0;
}

static int close_step(lua_State *L)
{
  pry_declaration_set(L, NULL);
  return 0;
}

/* "retry.lua:12: message" as place and text; a message without a place is about the file. */
static void report_fault(struct pry_report *report, const char *path, const char *fault)
{
  const char *colon = strstr(fault, ".lua:");
  char where[160];
  size_t digits = colon ? strspn(colon + 5, "0123456789") : 0;
  if (digits && strncmp(colon + 5 + digits, ": ", 2) == 0) {
    snprintf(where, sizeof where, "%.*s", (int)(colon + 5 + digits - fault), fault);
    pry_report_add(report, PRY_FINDING_ERROR, where, "%s", colon + 5 + digits + 2);
  } else {
    pry_report_add(report, PRY_FINDING_ERROR, path, "%s", fault);
  }
}

static bool run_in_door(struct pry_declaration *d, lua_CFunction function, struct step *step)
{
  struct pry_run run;
  step->d = d;
  pry_run_init(&run, d->script, LOAD_FACTOR);
  if (pry_door_call(d->script, function, step, &run) == PRY_DOOR_OK)
    return true;
  report_fault(d->report, step->file ? step->file->path : "init.lua", run.fault);
  return false;
}

static void run_files(struct pry_declaration *d, enum file_kind kind)
{
  for (size_t i = 0; i < d->set->count; i++) {
    struct step step = {.file = &d->set->files[i], .kind = kind};
    bool is_known = kind == FILE_OTHER && step.file->compiled; /* its syntax is right */
    if (kind_of_file(d->set->files[i].path) == kind && !is_known)
      run_in_door(d, run_step, &step);
  }
}

static const struct pry_policy_file *find_file(void *user, const char *path)
{
  return pry_policy_set_find(user, path);
}

/* ---- the whole ----------------------------------------------------------------------------------------- */

static int line_of(const struct pry_finding *finding)
{
  const char *colon = strrchr(finding->where, ':');
  return colon ? (int)strtol(colon + 1, NULL, 10) : 0;
}

static bool belongs_before(const struct pry_finding *a, const struct pry_finding *b)
{
  size_t file = strcspn(a->where, ":");
  return file == strcspn(b->where, ":") && memcmp(a->where, b->where, file) == 0 && line_of(a) < line_of(b);
}

/* People read from top to bottom: findings of one file in the order of their lines. There are 100 at most. */
static void sort_findings(struct pry_report *report, size_t from)
{
  for (size_t i = from + 1; i < report->count; i++)
    for (size_t j = i; j > from && belongs_before(&report->findings[j], &report->findings[j - 1]); j--) {
      struct pry_finding moved = report->findings[j];
      report->findings[j] = report->findings[j - 1];
      report->findings[j - 1] = moved;
    }
}

static struct pry_config *new_config(void)
{
  struct pry_arena arena;
  pry_arena_init(&arena, CONFIG_MAX);
  struct pry_config *config = pry_arena_take(&arena, sizeof *config);
  if (config)
    config->arena = arena;
  else
    pry_arena_fini(&arena);
  return config;
}

static void run_set(struct pry_declaration *d)
{
  struct step step = {.kind = FILE_OTHER};
  if (!run_in_door(d, open_step, &step))
    return;
  run_files(d, FILE_POLICY);
  run_files(d, FILE_DIALECT);
  if (!d->options->warm)
    run_files(d, FILE_OTHER);
  const struct pry_policy_file *init = pry_policy_set_find(d->set, "init.lua");
  step = (struct step){.file = init, .kind = FILE_INIT};
  if (!init)
    pry_report_add(d->report, PRY_FINDING_ERROR, "init.lua", "is missing; it declares providers and routes");
  else if (run_in_door(d, run_step, &step))
    run_in_door(d, resolve_step, &step);
  run_in_door(d, close_step, &step);
}

struct pry_config *pry_declare_set(struct pry_script *script, const struct pry_policy_set *set,
                                   const struct pry_declare_options *options, struct pry_report *report,
                                   unsigned *policies)
{
  struct pry_declaration d = {.script = script, .set = set, .options = options, .report = report};
  unsigned errors = report->errors;
  size_t findings = report->count;
  d.config = new_config();
  if (!d.config) {
    pry_report_add(report, PRY_FINDING_ERROR, "init.lua", "memory is short");
    return NULL;
  }
  script->find = find_file;
  script->find_user = (void *)(uintptr_t)set;
  script->keep_compiled = !options->warm;
  run_set(&d);
  if (report->errors == errors)
    pry_declare_read_secrets(&d);
  sort_findings(report, findings);
  if (policies)
    *policies = (unsigned)d.policies.count;
  if (report->errors == errors)
    return d.config;
  pry_config_free(d.config);
  return NULL;
}
