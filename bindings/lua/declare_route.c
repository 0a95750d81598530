/* `route "PATTERN" { … }` and `by_model { … }`. Declared in declare_internal.h; fields are described in declare.h. */
#include "declare_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

enum { DEADLINE_MAX = 86400, PATTERN_MAX = 512, CHAIN_MAX = 64 };

/* ---- to ------------------------------------------------------------------------------------------------ */

/* ---@param v table<string, string>   { ["glob"] = "provider" or "provider/model" }
 * ---@return table   for `to` of a route
 * function by_model(v) end */
int pry_declare_by_model(lua_State *L)
{
  struct pry_declaration *d = pry_declaration_of(L, "by_model");
  lua_settop(L, 1);
  pry_form_open(d, L, 1, pry_place_here(L, d), "by_model");
  pry_object_push(L, d, PRY_OBJECT_BY_MODEL, "by_model", NULL);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

static int by_rank(const void *a, const void *b)
{
  const struct pry_declared_rule *one = a, *other = b;
  size_t rank = pry_glob_rank(pry_slice_of(one->pattern)), other_rank = pry_glob_rank(pry_slice_of(other->pattern));
  if (rank != other_rank)
    return rank > other_rank ? -1 : 1;
  return strcmp(one->pattern, other->pattern);
}

static void check_rule_ties(const struct pry_form *form, const struct pry_declared_rule *rules, size_t count)
{
  for (size_t i = 0; i < count; i++)
    for (size_t j = i + 1; j < count; j++) {
      struct pry_slice a = pry_slice_of(rules[i].pattern), b = pry_slice_of(rules[j].pattern);
      if (pry_glob_rank(a) == pry_glob_rank(b) && pry_globs_overlap(a, b))
        pry_complain(
            form->d, pry_form_place(form, rules[j].pattern),
            "%s: to: \"%.100s\" and \"%.100s\" can match the same model and neither is more specific; make one "
            "longer",
            form->subject, rules[i].pattern, rules[j].pattern);
    }
}

static void read_rules(const struct pry_form *route_form, struct pry_declared_route *route, int table)
{
  lua_State *L = route_form->L;
  struct pry_form form = *route_form;
  size_t count;
  char shown[PRY_SHOWN_MAX];
  form.table = table;
  form.prefix = "to.";
  const char *const *patterns = pry_form_keys(&form, &count);
  route->rules = pry_declare_take(L, form.d, (count + 1) * sizeof *route->rules);
  for (size_t i = 0; i < count; i++) {
    lua_pushstring(L, patterns[i]);
    size_t size = strlen(patterns[i]);
    if (size == 0 || size > PATTERN_MAX)
      pry_complain(form.d, form.place, "%s: a pattern of by_model must have 1..%d bytes", form.subject, PATTERN_MAX);
    else if (lua_rawget(L, table) != LUA_TSTRING)
      pry_complain(form.d, pry_form_place(&form, patterns[i]),
                   "%s: to: \"%.100s\" must be \"provider\" or \"provider/model\", got %s", form.subject, patterns[i],
                   pry_show_value(L, -1, shown));
    else
      route->rules[route->rule_count++] =
          (struct pry_declared_rule){patterns[i], pry_declare_copy(L, form.d, pry_slice_of(lua_tostring(L, -1)))};
    lua_settop(L, table);
  }
  if (!count)
    pry_form_complain(route_form, "to", "names no model; by_model { [\"*\"] = \"provider\" } takes all");
  qsort(route->rules, route->rule_count, sizeof *route->rules, by_rank);
  check_rule_ties(&form, route->rules, route->rule_count);
}

static void read_to(const struct pry_form *form, struct pry_declared_route *route)
{
  lua_State *L = form->L;
  char shown[PRY_SHOWN_MAX];
  int top = lua_gettop(L);
  if (!form->table)
    return;
  lua_pushliteral(L, "to");
  int type = lua_rawget(L, form->table);
  if (type == LUA_TSTRING) {
    route->rules = pry_declare_take(L, form->d, sizeof *route->rules);
    route->rules[route->rule_count++] =
        (struct pry_declared_rule){"*", pry_declare_copy(L, form->d, pry_slice_of(lua_tostring(L, -1)))};
  } else if (pry_object_at(L, -1, PRY_OBJECT_BY_MODEL)) {
    if (lua_getiuservalue(L, -1, 1) == LUA_TTABLE) {
      pry_form_readable(L, -1);
      read_rules(form, route, lua_gettop(L));
    }
  } else if (type == LUA_TNIL) {
    pry_complain(form->d, form->place, "%s: needs to = \"provider\" or to = by_model { ... }", form->subject);
  } else {
    pry_form_complain(form, "to", "must be \"provider\", \"provider/model\" or by_model { ... }, got %s",
                      pry_show_value(L, -1, shown));
  }
  lua_settop(L, top);
}

/* ---- chain --------------------------------------------------------------------------------------------- */

static void complain_element(const struct pry_form *form, size_t position)
{
  char shown[PRY_SHOWN_MAX];
  pry_form_complain(form, "chain", "must be a list of use \"policy\" { ... }; element %zu is %s", position,
                    pry_show_value(form->L, -1, shown));
}

static void read_chain(const struct pry_form *form, struct pry_declared_route *route)
{
  lua_State *L = form->L;
  int top = lua_gettop(L);
  struct pry_form list;
  if (pry_form_enter(form, "chain", "chain.", &list)) {
    size_t count = lua_rawlen(L, list.table), keys = 0;
    for (lua_pushnil(L); lua_next(L, list.table); lua_pop(L, 1))
      keys++;
    if (keys != count)
      pry_form_complain(form, "chain", "must be a list of use \"policy\" { ... } without names and gaps");
    else if (count > CHAIN_MAX)
      pry_form_complain(form, "chain", "has more than %d policies", CHAIN_MAX);
    else {
      route->chain = pry_declare_take(L, form->d, (count + 1) * sizeof *route->chain);
      for (size_t i = 1; i <= count; i++) {
        lua_rawgeti(L, list.table, (lua_Integer)i);
        const struct pry_object *object = pry_object_at(L, -1, PRY_OBJECT_USE);
        if (object)
          route->chain[route->route.chain_size++] = object->data;
        else
          complain_element(form, i);
        lua_pop(L, 1);
      }
    }
  }
  lua_settop(L, top);
}

/* ---- the rest ------------------------------------------------------------------------------------------ */

static void read_session(const struct pry_form *form, struct pry_route *route)
{
  static const char *const known[] = {"header", "field"};
  struct pry_form inner;
  struct pry_json_path path;
  int top = lua_gettop(form->L);
  if (pry_form_enter(form, "session", "session.", &inner)) {
    pry_form_known(&inner, known, sizeof known / sizeof *known, false);
    const char *header = pry_form_text(&inner, "header", PRY_OPTIONAL);
    const char *field = pry_form_text(&inner, "field", PRY_OPTIONAL);
    const char *wrong = field ? pry_json_path_compile(&path, pry_slice_of(field)) : NULL;
    if (!header == !field)
      pry_form_complain(form, "session", "must be { header = \"...\" } or { field = \"...\" }");
    else if (wrong)
      pry_form_complain(&inner, "field", "is a bad path: %s", wrong);
    else {
      route->session_kind = header ? PRY_SESSION_HEADER : PRY_SESSION_FIELD;
      route->session_name = header ? header : field;
    }
  }
  lua_settop(form->L, top);
}

static const char *pattern_complaint(const char *pattern)
{
  if (*pattern != '/')
    return "must begin with \"/\"";
  if (strlen(pattern) > PATTERN_MAX)
    return "is longer than 512 bytes";
  for (const char *c = pattern; *c; c++)
    if ((unsigned char)*c <= ' ' || *c == '?' || *c == '#')
      return "is matched against the path alone: no spaces, \"?\" or \"#\"";
  return NULL;
}

static void read_numbers(const struct pry_form *form, struct pry_route *route)
{
  double seconds, cost;
  long number;
  bool flag;
  route->deadline = PRY_DEADLINE_DEFAULT;
  route->max_attempts_per_call = PRY_MAX_ATTEMPTS_PER_CALL_DEFAULT;
  route->max_targets = PRY_MAX_TARGETS_DEFAULT;
  if (pry_form_number(form, "deadline", 0.001, DEADLINE_MAX, "s", &seconds))
    route->deadline = pry_time_from_seconds(seconds);
  if (pry_form_number(form, "max_stream", 0.001, DEADLINE_MAX, "s", &seconds))
    route->max_stream = pry_time_from_seconds(seconds);
  if (pry_form_number(form, "max_wait", 0, DEADLINE_MAX, "s", &seconds))
    route->max_wait = seconds > 0 ? pry_time_from_seconds(seconds) : 1; /* 0 is "no limit" in C */
  if (pry_form_number(form, "max_cost", 1e-9, 1e9, "", &cost))
    route->max_cost = cost;
  if (pry_form_integer(form, "max_attempts_per_call", 1, 100, &number))
    route->max_attempts_per_call = (unsigned)number;
  if (pry_form_integer(form, "max_targets", 1, 20, &number))
    route->max_targets = (unsigned)number;
  if (pry_form_boolean(form, "repeatable", &flag))
    route->repeatable = flag ? PRY_ONLY_TRUE : PRY_ONLY_FALSE;
}

/* true or seconds */
static void read_early_head(const struct pry_form *form, struct pry_route *route)
{
  lua_State *L = form->L;
  double seconds;
  if (!form->table)
    return;
  lua_pushliteral(L, "early_head");
  int type = lua_rawget(L, form->table);
  bool flag = lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (type == LUA_TBOOLEAN)
    route->early_head = flag ? PRY_EARLY_HEAD_DEFAULT : 0;
  else if (pry_form_number(form, "early_head", 0.001, DEADLINE_MAX, "s, or true", &seconds))
    route->early_head = pry_time_from_seconds(seconds);
}

static void read_slow_stream(const struct pry_form *form, struct pry_route *route)
{
  static const char *const known[] = {"events", "seconds", "cut"};
  struct pry_form inner;
  double seconds;
  int top = lua_gettop(form->L);
  if (pry_form_enter(form, "slow_stream", "slow_stream.", &inner)) {
    pry_form_known(&inner, known, sizeof known / sizeof *known, false);
    bool complete = pry_form_number(&inner, "events", 0.001, 100000, "per second", &route->slow_events);
    complete = pry_form_number(&inner, "seconds", 1, DEADLINE_MAX, "s", &seconds) && complete;
    pry_form_boolean(&inner, "cut", &route->slow_cut);
    if (complete)
      route->slow_window = pry_time_from_seconds(seconds);
    else
      pry_form_complain(form, "slow_stream", "needs { events = N per second, seconds = S }");
  }
  lua_settop(form->L, top);
}

static void warn_long_timeouts(const struct pry_form *form, const struct pry_route *route)
{
  const struct {
    const char *name;
    pry_time value;
  } timeouts[] = {{"connect", route->timeouts.connect},
                  {"first_byte", route->timeouts.first_byte},
                  {"attempt", route->timeouts.attempt}};
  for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++)
    if (timeouts[i].value > route->deadline)
      pry_warn(form->d, form->place,
               "%s: timeouts.%s (%.14g s) is longer than the deadline (%.14g s) and has no effect", form->subject,
               timeouts[i].name, pry_time_to_seconds(timeouts[i].value), pry_time_to_seconds(route->deadline));
}

void pry_declare_route(lua_State *L, struct pry_declaration *d, const struct pry_object *head, int index)
{
  static const char *const known[] = {"to",          "chain",       "deadline",   "timeouts", "client_dialect",
                                      "early_head",  "max_stream",  "repeatable", "session",  "max_attempts_per_call",
                                      "max_targets", "slow_stream", "max_cost",   "max_wait"};
  char subject[160];
  snprintf(subject, sizeof subject, "route \"%.100s\"", head->name);
  struct pry_form form = pry_form_open(d, L, index, head->place, pry_declare_copy(L, d, pry_slice_of(subject)));
  struct pry_declared_route *route = pry_declare_take(L, d, sizeof *route);
  const char *wrong = pattern_complaint(head->name);
  if (wrong)
    pry_complain(d, head->place, "%s: the pattern %s", form.subject, wrong);
  pry_form_known(&form, known, sizeof known / sizeof *known, false);
  route->place = head->place;
  route->route.pattern = head->name;
  read_to(&form, route);
  read_chain(&form, route);
  read_numbers(&form, &route->route);
  read_early_head(&form, &route->route);
  read_slow_stream(&form, &route->route);
  route->route.timeouts = pry_declare_timeouts(&form);
  route->route.client_dialect = pry_form_text(&form, "client_dialect", PRY_OPTIONAL);
  read_session(&form, &route->route);
  warn_long_timeouts(&form, &route->route);
  route->form = form;
  route->form.table = 0;
  pry_declare_push(L, d, &d->routes, route);
}
