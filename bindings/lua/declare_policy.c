/* `policy { … }` and `use "name" { … }`. Declared in declare_internal.h; the fields are described in declare.h. */
#include "declare_internal.h"

#include <stdio.h>

#include <lauxlib.h>

/* Slots of a policy's table among the functions: handler + 1 as in an instance, then these. */
enum { SLOT_DEFAULTS = PRY_SLOT_JOBS + PRY_JOBS_MAX, SLOT_CHECK };

/* ---- the name of a file -------------------------------------------------------------------------------- */

/* "retry" for retry.lua and for dialects/retry.lua. */
static struct pry_slice base_name(const struct pry_policy_file *file)
{
  const char *slash = strrchr(file->path, '/');
  const char *start = slash ? slash + 1 : file->path;
  size_t size = strlen(start);
  return (struct pry_slice){start, size > 4 ? size - 4 : size};
}

static const char *policy_name(const struct pry_form *form)
{
  struct pry_slice file = form->place.file ? base_name(form->place.file) : PRY_SLICE("");
  const char *name = pry_form_text(form, "name", PRY_REQUIRED);
  if (name && !pry_slice_equal(pry_slice_of(name), file))
    pry_form_complain(form, "name", "is \"%.60s\", but the file is %s; use \"%.*s\" would not find it", name,
                      form->place.file ? form->place.file->path : "?", (int)file.size, file.data);
  return pry_declare_copy(form->L, form->d, file);
}

/* ---- params -------------------------------------------------------------------------------------------- */

static void read_param(const struct pry_form *params, const char *name, struct pry_param *param)
{
  lua_State *L = params->L;
  char subject[160], shown[PRY_SHOWN_MAX];
  param->name = name;
  lua_pushstring(L, name);
  lua_rawget(L, params->table);
  struct pry_object *object = pry_object_at(L, -1, PRY_OBJECT_PARAM);
  const char *wrong = pry_name_complaint(pry_slice_of(name));
  if (wrong)
    pry_form_complain(params, name, "%s", wrong);
  else if (strcmp(name, "name") == 0 || strcmp(name, "as") == 0)
    pry_form_complain(params, name, "is a name that every instance has already; choose another");
  if (!object) {
    pry_form_complain(params, name, "must be param { DEFAULT, ... }, got %s", pry_show_value(L, -1, shown));
    return;
  }
  if (lua_getiuservalue(L, -1, 1) != LUA_TTABLE)
    return; /* said when param was called */
  snprintf(subject, sizeof subject, "%s: params.%s", params->subject, name);
  struct pry_form form = pry_form_open(params->d, L, -1, object->place, subject);
  int table = form.table;
  pry_param_read(&form, param);
  lua_settop(L, table);
  if (lua_rawgeti(L, table, 1) == LUA_TNIL)
    return;
  pry_param_accepts(params, param, -1, false);
}

/* The policy's table of functions is at `slots`; its defaults are added there. */
static void read_params(const struct pry_form *form, struct pry_declared_policy *policy, int slots)
{
  lua_State *L = form->L;
  int top = lua_gettop(L);
  struct pry_form params;
  size_t count = 0;
  const char *const *names = NULL;
  if (pry_form_enter(form, "params", "params.", &params))
    names = pry_form_keys(&params, &count);
  if (count > PRY_PARAMS_MAX) {
    pry_form_complain(form, "params", "are more than %d", PRY_PARAMS_MAX);
    count = PRY_PARAMS_MAX;
  }
  struct pry_param *all = pry_declare_take(L, form->d, (count + 1) * sizeof *all);
  lua_createtable(L, 0, (int)count);
  int defaults = lua_gettop(L);
  for (size_t i = 0; i < count; i++) {
    lua_settop(L, defaults);
    read_param(&params, names[i], &all[i]);
    lua_settop(L, defaults);
    lua_pushstring(L, names[i]);
    lua_rawget(L, params.table);
    if (pry_object_at(L, -1, PRY_OBJECT_PARAM) && lua_getiuservalue(L, -1, 1) == LUA_TTABLE) {
      pry_form_readable(L, -1);
      lua_rawgeti(L, -1, 1);
      lua_setfield(L, defaults, names[i]);
    }
  }
  policy->params = all;
  policy->param_names = names;
  policy->param_count = count;
  lua_settop(L, defaults);
  lua_rawseti(L, slots, SLOT_DEFAULTS);
  lua_settop(L, top);
}

/* ---- when ---------------------------------------------------------------------------------------------- */

static void read_condition(const struct pry_form *form, const char *key, enum pry_condition *condition)
{
  bool wanted;
  if (pry_form_boolean(form, key, &wanted))
    *condition = wanted ? PRY_ONLY_TRUE : PRY_ONLY_FALSE;
}

static const char *const origin_names[] = {
#define X(name, string) string,
    PRY_ORIGINS(X)
#undef X
};

/* One name or a list of names, as bits; `first`: the bit of the first name. */
static uint32_t read_bits(const struct pry_form *form, const char *key, const char *const *names, size_t count,
                          unsigned first)
{
  char hint[PRY_HINT_MAX];
  lua_pushstring(form->L, key);
  bool single = form->table && lua_rawget(form->L, form->table) == LUA_TSTRING;
  lua_pop(form->L, 1);
  struct pry_text_list list = {0};
  const char *one = single ? pry_form_text(form, key, PRY_OPTIONAL) : NULL;
  if (!single)
    list = pry_form_texts(form, key, "names");
  else if (one)
    list = (struct pry_text_list){&one, 1};
  uint32_t bits = 0;
  for (size_t i = 0; i < list.count; i++) {
    size_t j = 0;
    while (j < count && strcmp(names[j], list.items[i]) != 0)
      j++;
    if (j < count)
      bits |= (uint32_t)1 << (first + j);
    else
      pry_form_complain(form, key, "cannot be \"%.60s\"%s", list.items[i],
                        pry_hint(list.items[i], names, count, "known are", hint));
  }
  return bits;
}

static void read_when(const struct pry_form *policy, struct pry_when *when)
{
  static const char *const known[] = {"retryable", "fallback", "refresh_token", "sent",
                                      "source",    "category", "origin",        "last"};
  int top = lua_gettop(policy->L);
  struct pry_form form;
  if (pry_form_enter(policy, "when", "when.", &form)) {
    pry_form_known(&form, known, sizeof known / sizeof *known, false);
    read_condition(&form, "retryable", &when->retryable);
    read_condition(&form, "fallback", &when->fallback);
    read_condition(&form, "refresh_token", &when->refresh_token);
    read_condition(&form, "sent", &when->sent);
    pry_form_boolean(&form, "last", &when->last);
    when->categories = read_bits(&form, "category", pry_declare_categories, PRY_DECLARE_CATEGORIES, PRY_NONE + 1);
    when->origins = read_bits(&form, "origin", origin_names, sizeof origin_names / sizeof *origin_names, 0);
    const char *source = pry_form_text(&form, "source", PRY_OPTIONAL);
    if (source && strcmp(source, "parry") == 0)
      when->from_parry = PRY_ONLY_TRUE;
    else if (source && strcmp(source, "provider") == 0)
      when->from_parry = PRY_ONLY_FALSE;
    else if (source)
      pry_form_complain(&form, "source", "must be \"provider\" or \"parry\", got \"%.60s\"", source);
  }
  lua_settop(policy->L, top);
}

/* ---- handlers ------------------------------------------------------------------------------------------ */

static void read_handlers(const struct pry_form *form, struct pry_declared_policy *policy, int slots)
{
  for (int handler = 0; handler < PRY_HANDLER_COUNT; handler++) {
    if (handler == PRY_EVERY || handler == PRY_REFRESH)
      continue;
    if (pry_form_function(form, pry_handler_name((enum pry_handler)handler))) {
      policy->handlers |= PRY_HANDLER_BIT(handler);
      lua_rawseti(form->L, slots, handler + 1);
    }
  }
  if (pry_form_function(form, "check"))
    lua_rawseti(form->L, slots, SLOT_CHECK);
}

static void read_job(const struct pry_form *list, struct pry_declared_policy *policy, size_t position, int slots)
{
  static const char *const known[] = {"seconds", "run"};
  char subject[160];
  lua_State *L = list->L;
  snprintf(subject, sizeof subject, "%s: every[%zu]", list->subject, position);
  lua_rawgeti(L, list->table, (lua_Integer)position);
  struct pry_form form = pry_form_open(list->d, L, -1, list->place, subject);
  pry_form_known(&form, known, 2, false);
  double seconds = 0;
  lua_pushliteral(L, "seconds");
  if (form.table && lua_rawget(L, form.table) == LUA_TNIL)
    pry_complain(form.d, form.place, "%s: needs seconds = 0.1..86400", subject);
  pry_form_number(&form, "seconds", 0.1, 86400, "s", &seconds);
  if (pry_form_function(&form, "run")) {
    lua_rawseti(L, slots, PRY_SLOT_JOBS + (lua_Integer)policy->job_count);
    policy->periods[policy->job_count++] = pry_time_from_seconds(seconds);
  } else if (form.table) {
    pry_complain(form.d, form.place, "%s: needs run = function(self) ... end", subject);
  }
}

static void read_jobs(const struct pry_form *form, struct pry_declared_policy *policy, int slots)
{
  lua_State *L = form->L;
  int top = lua_gettop(L);
  struct pry_form list;
  if (pry_form_enter(form, "every", "every.", &list)) {
    size_t count = lua_rawlen(L, list.table), keys = 0;
    for (lua_pushnil(L); lua_next(L, list.table); lua_pop(L, 1))
      keys++;
    if (keys != count)
      pry_form_complain(form, "every", "must be a list { { seconds = 60, run = function(self) ... end }, ... }");
    else if (count > PRY_JOBS_MAX)
      pry_form_complain(form, "every", "has more than %d jobs", PRY_JOBS_MAX);
    else
      for (size_t i = 1; i <= count; i++) {
        read_job(&list, policy, i, slots);
        lua_settop(L, list.table);
      }
    if (policy->job_count)
      policy->handlers |= PRY_HANDLER_BIT(PRY_EVERY);
  }
  lua_settop(L, top);
}

/* ---- only_with ----------------------------------------------------------------------------------------- */

static bool is_param(const struct pry_declared_policy *policy, const char *name)
{
  for (size_t i = 0; i < policy->param_count; i++)
    if (strcmp(policy->param_names[i], name) == 0)
      return true;
  return false;
}

/* `only_with = { on_done = "to" }`: which parameter each handler is there for. */
static void read_only_with(const struct pry_form *form, struct pry_declared_policy *policy)
{
  int top = lua_gettop(form->L);
  struct pry_form needs;
  size_t count = 0;
  const char *const *keys = NULL;
  if (pry_form_enter(form, "only_with", "only_with.", &needs))
    keys = pry_form_keys(&needs, &count);
  for (size_t i = 0; i < count; i++) {
    const char *param = pry_form_text(&needs, keys[i], PRY_REQUIRED);
    int handler = 0;
    while (handler < PRY_HANDLER_COUNT && strcmp(pry_handler_name((enum pry_handler)handler), keys[i]) != 0)
      handler++;
    if (handler == PRY_HANDLER_COUNT || handler == PRY_EVERY || !(policy->handlers & PRY_HANDLER_BIT(handler)))
      pry_form_complain(&needs, keys[i], "is no handler of this policy");
    else if (param && !is_param(policy, param))
      pry_form_complain(&needs, keys[i], "names \"%.60s\", which is no parameter of this policy", param);
    else
      policy->only_with[handler] = param;
  }
  lua_settop(form->L, top);
}

/* ---- policy { … } -------------------------------------------------------------------------------------- */

/* ---@class policy_declaration
 * ---@field name string                         the file's name without ".lua"
 * ---@field doc string?                         one line for people
 * ---@field params table<string, parameter>?
 * ---@field only_with? table<string, string>   handlers that are asked only where a parameter is set (neither nil nor
 *                                            false): { on_done = "to" }. What is not asked costs nothing
 * ---@field when table?                         on_error only: { retryable =, category = { … }, … }; `last = true`: asked
 *                                            after the policies that do not say so
 * ---@field check? fun(self: table): string?, string?   what is wrong with these parameters together; or nil and what is
 *                                            worth a warning. May put into self what handlers are to find worked out already
 * ---@field on_request? fun(self: table, call: call): verdict?
 * ---@field on_attempt? fun(self: table, call: call): verdict?
 * ---@field on_outcome? fun(self: table, call: call, attempt: attempt)
 * ---@field on_error? fun(self: table, call: call, err: err): verdict?
 * ---@field on_done? fun(self: table, call: call, outcome: outcome)
 * ---@field on_event? fun(self: table, event: event): verdict?
 * ---@field on_failure? fun(self: table, call: call, err: err): verdict?   respond{} only, without waiting
 * ---@field every? { seconds: number, run: fun(self: table) }[]
 * ---@param v policy_declaration
 * ---@return policy_declaration
 * What a policy file returns: its parameters and its handlers.
 * function policy(v) end */
int pry_declare_policy(lua_State *L)
{
  static const char *const known[] = {"name",    "doc",        "params",     "when",       "only_with",
                                      "check",   "on_request", "on_attempt", "on_outcome", "on_error",
                                      "on_done", "on_event",   "on_failure", "every"};
  struct pry_declaration *d = pry_declaration_of(L, "policy");
  lua_settop(L, 1);
  struct pry_place place = pry_place_here(L, d);
  struct pry_declared_policy *policy = pry_declare_take(L, d, sizeof *policy);
  char subject[96];
  struct pry_slice name = place.file ? base_name(place.file) : PRY_SLICE("policy");
  snprintf(subject, sizeof subject, "%.*s", (int)name.size, name.data);
  struct pry_form form = pry_form_open(d, L, 1, place, subject);
  pry_form_known(&form, known, sizeof known / sizeof *known, false);
  lua_newtable(L);
  int slots = lua_gettop(L);
  policy->place = place;
  policy->name = form.table ? policy_name(&form) : "";
  pry_form_text(&form, "doc", PRY_OPTIONAL);
  read_params(&form, policy, slots);
  unsigned errors = d->report->errors;
  read_when(&form, &policy->when);
  read_handlers(&form, policy, slots);
  read_only_with(&form, policy);
  read_jobs(&form, policy, slots);
  if (form.table && !policy->handlers && errors == d->report->errors)
    pry_complain(d, place,
                 "%s: has no handler; give it at least one of on_request, on_attempt, on_outcome, on_error, "
                 "on_done, on_event, on_failure, every",
                 subject);
  lua_pushliteral(L, "when");
  if (form.table && lua_rawget(L, form.table) != LUA_TNIL && !(policy->handlers & PRY_HANDLER_BIT(PRY_ON_ERROR)))
    pry_form_complain(&form, "when", "chooses what on_error sees, and there is no on_error");
  pry_functions_push(L, PRY_FUNCTIONS_POLICIES);
  lua_pushvalue(L, slots);
  lua_rawsetp(L, -2, policy);
  pry_object_push(L, d, PRY_OBJECT_POLICY, "policy", policy);
  return 1;
}

/* ---- use "name" { … } ---------------------------------------------------------------------------------- */

static struct pry_declared_policy *find_policy(const struct pry_declaration *d, const char *name)
{
  for (size_t i = 0; i < d->policies.count; i++) {
    struct pry_declared_policy *policy = d->policies.items[i];
    if (strcmp(policy->name, name) == 0)
      return policy;
  }
  return NULL;
}

/* Is there a file of that name that could not be read as a policy? Then that finding is enough. */
static bool is_broken_policy(const struct pry_declaration *d, const char *name)
{
  char path[PRY_NAME_MAX + 8];
  snprintf(path, sizeof path, "%s.lua", name);
  return strcmp(path, "init.lua") != 0 && pry_policy_set_find(d->set, path) != NULL;
}

static void complain_unknown_policy(struct pry_declaration *d, lua_State *L, struct pry_place place, const char *name)
{
  char hint[PRY_HINT_MAX];
  const char **names = pry_declare_take(L, d, (d->policies.count + 1) * sizeof *names);
  for (size_t i = 0; i < d->policies.count; i++)
    names[i] = ((struct pry_declared_policy *)d->policies.items[i])->name;
  pry_complain(d, place, "use \"%.63s\": there is no policy file %.63s.lua%s", name, name,
               pry_hint(name, names, d->policies.count, "there are", hint));
}

/* ---@class use: table
 * ---@operator call(table): use
 * ---@param name string   the file's name without ".lua"
 * ---@return use   for a chain; call it with { parameters, as = "instance" }
 * function use(name) end */
int pry_declare_use(lua_State *L)
{
  struct pry_declaration *d = pry_declaration_of(L, "use");
  lua_settop(L, 2);
  struct pry_place place = pry_place_here(L, d);
  size_t size = 0;
  const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tolstring(L, 1, &size) : "";
  const char *wrong = pry_name_complaint((struct pry_slice){name, size});
  struct pry_declared_instance *use = pry_declare_take(L, d, sizeof *use);
  use->place = place;
  use->instance.policy = use->instance.name = pry_declare_copy(L, d, (struct pry_slice){name, size});
  if (wrong)
    pry_complain(d, place, "use needs a policy's name: use \"retry\" { ... }; the name %s", wrong);
  else if (!(use->policy = find_policy(d, name)) && !is_broken_policy(d, name))
    complain_unknown_policy(d, L, place, name);
  if (use->policy) {
    use->instance.index = d->instances.count;
    use->instance.handlers = use->policy->handlers;
    use->instance.when = use->policy->when;
    use->instance.file =
        pry_declare_copy(L, d, pry_slice_of(use->policy->place.file ? use->policy->place.file->path : ""));
    pry_declare_push(L, d, &d->instances, use);
  }
  pry_object_push(L, d, PRY_OBJECT_USE, "use", use);
  if (!lua_isnil(L, 2))
    pry_declare_use_params(L, d, use, 2);
  return 1;
}

/* Pushes the value that `self` gets for one parameter: what `use` gave, or the default. */
static void push_param(const struct pry_form *form, const struct pry_param *param, int defaults)
{
  lua_State *L = form->L;
  lua_pushstring(L, param->name);
  if (form->table && lua_rawget(L, form->table) != LUA_TNIL) {
    pry_param_accepts(form, param, -1, true);
    return;
  }
  lua_pop(L, 1);
  if (lua_getfield(L, defaults, param->name) != LUA_TNIL)
    pry_param_accepts(form, param, -1, true);
  else if (param->required)
    pry_complain(form->d, form->place, "%s: needs the parameter %s", form->subject, param->name);
}

/* Handlers whose parameter is not set are not the instance's. Before `check`, which may replace what it was given. */
static void leave_out_handlers(lua_State *L, struct pry_declared_instance *use, int self)
{
  for (int handler = 0; handler < PRY_HANDLER_COUNT; handler++) {
    if (!use->policy->only_with[handler])
      continue;
    lua_getfield(L, self, use->policy->only_with[handler]);
    if (!lua_toboolean(L, -1))
      use->instance.handlers &= ~PRY_HANDLER_BIT(handler);
    lua_pop(L, 1);
  }
}

/* The policy's own word on its parameters. */
static void run_check(const struct pry_form *form, int slots, int self)
{
  lua_State *L = form->L;
  if (lua_rawgeti(L, slots, SLOT_CHECK) != LUA_TFUNCTION)
    return;
  lua_pushvalue(L, self);
  int status = lua_pcall(L, 1, 2, 0), warning = lua_gettop(L);
  if (status == LUA_OK && lua_type(L, warning) == LUA_TSTRING && lua_isnil(L, warning - 1))
    pry_warn(form->d, form->place, "%s: %.400s", form->subject, lua_tostring(L, warning));
  if (status == LUA_OK)
    lua_settop(L, warning - 1);
  if (status == LUA_ERRMEM)
    lua_error(L); /* the door's business */
  if (status != LUA_OK)
    pry_complain(form->d, form->place, "%s: its check failed: %.300s", form->subject,
                 lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, -1));
  else if (lua_type(L, -1) == LUA_TSTRING)
    pry_complain(form->d, form->place, "%s: %.400s", form->subject, lua_tostring(L, -1));
  else if (!lua_isnil(L, -1))
    pry_complain(form->d, form->place, "%s: its check must return nothing or a text, got %s", form->subject,
                 luaL_typename(L, -1));
}

/* Fills the slots of an instance: the policy's functions and `self`. */
static void keep_instance(lua_State *L, const struct pry_declared_instance *use, int slots, int self)
{
  pry_functions_push(L, PRY_FUNCTIONS_INSTANCES);
  lua_createtable(L, PRY_SLOT_JOBS, 0);
  for (lua_Integer slot = 1; slot < PRY_SLOT_JOBS + (lua_Integer)use->policy->job_count; slot++) {
    if (slot == PRY_SLOT_SELF)
      lua_pushvalue(L, self);
    else
      lua_rawgeti(L, slots, slot);
    lua_rawseti(L, -2, slot);
  }
  lua_rawseti(L, -2, (lua_Integer)use->instance.index + 1);
  lua_pop(L, 1);
}

static void read_instance_name(const struct pry_form *form, struct pry_declared_instance *use)
{
  const char *as = pry_form_text(form, "as", PRY_OPTIONAL);
  const char *wrong = as ? pry_name_complaint(pry_slice_of(as)) : NULL;
  if (wrong)
    pry_form_complain(form, "as", "%s", wrong);
  else if (as)
    use->instance.name = as;
}

void pry_declare_use_params(lua_State *L, struct pry_declaration *d, struct pry_declared_instance *use, int index)
{
  use->called = true;
  if (!use->policy)
    return;
  int top = lua_gettop(L);
  struct pry_declared_policy *policy = use->policy;
  struct pry_form form = {
      .d = d, .L = L, .place = use->place, .subject = policy->name, .prefix = "", .noun = "parameter"};
  luaL_checkstack(L, 20, "too many nested tables");
  if (index)
    form = pry_form_open(d, L, index, use->place, policy->name);
  form.noun = "parameter";
  const char **known = pry_declare_take(L, d, (policy->param_count + 1) * sizeof *known);
  for (size_t i = 0; i < policy->param_count; i++)
    known[i] = policy->param_names[i];
  known[policy->param_count] = "as";
  pry_form_known(&form, known, policy->param_count + 1, false);
  read_instance_name(&form, use);
  pry_functions_push(L, PRY_FUNCTIONS_POLICIES);
  lua_rawgetp(L, -1, policy);
  int slots = lua_gettop(L);
  lua_rawgeti(L, slots, SLOT_DEFAULTS);
  lua_createtable(L, 0, (int)policy->param_count + 1);
  int self = lua_gettop(L);
  unsigned errors = d->report->errors;
  for (size_t i = 0; i < policy->param_count; i++) {
    push_param(&form, &policy->params[i], slots + 1);
    lua_setfield(L, self, policy->params[i].name);
    lua_settop(L, self);
  }
  lua_pushstring(L, use->instance.name);
  lua_setfield(L, self, "name");
  leave_out_handlers(L, use, self);
  if (errors == d->report->errors)
    run_check(&form, slots, self);
  keep_instance(L, use, slots, self);
  lua_settop(L, top);
}
