#include "ask_internal.h"

#include "declare.h"
#include "door.h"
#include "lib.h"
#include "retry_after.h"

#include <stdlib.h>

/* One run of classify or render. */
struct dialect_run {
  struct pry_decision *decision;
  const struct pry_dialect *dialect;
  enum pry_render form;
  struct pry_failure failure; /* classify: what comes out */
  struct pry_buffer *out;     /* render */
  bool answered;
  bool repeats; /* would do the same again */
};

static void read_flag(lua_State *L, const char *name, bool *flag)
{
  lua_pushstring(L, name);
  int type = lua_rawget(L, 2);
  if (type != LUA_TNIL && type != LUA_TBOOLEAN)
    luaL_error(L, "classify: %s must be true or false, got %s", name, lua_typename(L, type));
  if (type == LUA_TBOOLEAN)
    *flag = lua_toboolean(L, -1);
  lua_pop(L, 1);
}

/* Providers spell codes as texts and as numbers. */
static bool read_text(lua_State *L, const char *name, struct pry_slice *text)
{
  lua_pushstring(L, name);
  int type = lua_rawget(L, 2);
  if (type == LUA_TNIL)
    return false;
  if (type != LUA_TSTRING && type != LUA_TNUMBER)
    luaL_error(L, "classify: %s must be text, got %s", name, lua_typename(L, type));
  text->data = lua_tolstring(L, -1, &text->size);
  return true; /* stays on the stack, which keeps it alive */
}

static void read_seconds(lua_State *L, const char *name, double *seconds)
{
  lua_pushstring(L, name);
  int type = lua_rawget(L, 2);
  if (type != LUA_TNIL && type != LUA_TNUMBER)
    luaL_error(L, "classify: %s must be a number of seconds, got %s", name, lua_typename(L, type));
  if (type == LUA_TNUMBER) {
    double said = lua_tonumber(L, -1);
    if (!(said >= 0)) /* catches what is no number, too */
      luaL_error(L, "classify: %s must be 0 or more", name);
    *seconds = said < PRY_RETRY_AFTER_MAX ? said : PRY_RETRY_AFTER_MAX;
  }
  lua_pop(L, 1);
}

static void read_category(lua_State *L, struct pry_failure *failure)
{
  struct pry_slice name;
  if (!read_text(L, "category", &name))
    return;
  enum pry_category category = pry_category_from_name(name);
  if (category == PRY_NONE)
    luaL_error(L, "classify: there is no category \"%s\"", name.data);
  pry_failure_set_category(failure, category);
}

static void read_classification(lua_State *L, struct pry_failure *failure)
{
  static const char *const names[] = {"category",  "code",     "message",       "retry_after",
                                      "retryable", "fallback", "refresh_token", NULL};
  struct pry_slice text;
  pry_lua_options(L, 2, "classify", names, false);
  read_category(L, failure);
  if (read_text(L, "code", &text))
    pry_failure_set_code(failure, text);
  if (read_text(L, "message", &text))
    pry_failure_set_message(failure, text);
  read_seconds(L, "retry_after", &failure->retry_after);
  read_flag(L, "retryable", &failure->retryable);
  read_flag(L, "fallback", &failure->fallback);
  read_flag(L, "refresh_token", &failure->refresh_token);
}

/* Inside the door; argument 1 is the run. */
static int run_classify(lua_State *L)
{
  struct dialect_run *run = lua_touserdata(L, 1);
  if (!pry_declare_push_classify(L, run->dialect))
    return 0;
  pry_view_push(L, run->decision, PRY_VIEW_ANSWER);
  lua_call(L, 1, 1);
  if (!lua_toboolean(L, 2))
    return 0;
  read_classification(L, &run->failure);
  run->answered = true;
  return 0;
}

static bool append_event(struct pry_buffer *out, struct pry_slice json)
{
  return pry_buffer_append_text(out, "data: ") && pry_buffer_append_slice(out, json) &&
         pry_buffer_append_text(out, "\n\n");
}

/* A text is taken as it is: a body, or a whole event with its blank line. */
static bool append_text(struct pry_buffer *out, struct pry_slice text, enum pry_render form)
{
  if (form == PRY_RENDER_BODY)
    return pry_buffer_append_slice(out, text);
  while (text.size && text.data[text.size - 1] == '\n')
    text.size--;
  return pry_buffer_append_slice(out, text) && pry_buffer_append_text(out, "\n\n");
}

static int run_render(lua_State *L)
{
  struct dialect_run *run = lua_touserdata(L, 1);
  char complaint[128];
  if (!pry_declare_push_render(L, run->dialect))
    return 0;
  pry_view_push(L, run->decision, PRY_VIEW_ERR);
  lua_pushstring(L, run->form == PRY_RENDER_BODY ? "body" : "event");
  lua_pushstring(L, run->form == PRY_RENDER_RESPONSES_EVENT ? "responses" : NULL);
  lua_call(L, 3, 1);
  if (!lua_toboolean(L, 2))
    return 0;
  if (lua_type(L, 2) == LUA_TSTRING) {
    run->answered = append_text(run->out, pry_lua_text(L, 2), run->form);
    return 0;
  }
  if (lua_type(L, 2) != LUA_TTABLE)
    return luaL_error(L, "render must return text or a table, got %s", luaL_typename(L, 2));
  struct pry_buffer *json = pry_lua_buffer(L, PRY_RESPOND_MAX);
  if (!pry_lua_json_append(L, 2, json, NULL, NULL, complaint, sizeof complaint))
    return luaL_error(L, "render: %s", complaint);
  struct pry_slice text = pry_buffer_slice(json);
  run->answered = run->form == PRY_RENDER_BODY ? pry_buffer_append_slice(run->out, text) : append_event(run->out, text);
  return 0;
}

/* Runs one of the two; false: it has no answer, or failed, which is told. */
static bool run_dialect(struct pry_script *script, struct dialect_run *job, int which)
{
  struct pry_decider *decider = pry_decider_of(script);
  struct pry_decision *outer = decider->current;
  struct pry_run run;
  pry_run_init(&run, script, 1);
  run.watch = decider->dialect_watches[job->dialect->index][which];
  job->decision->name = job->dialect->name;
  job->decision->now = pry_worker_unix_time(script->state.worker);
  decider->current = job->decision;
  enum pry_door_result door =
      pry_door_call(script, which == PRY_DIALECT_CLASSIFY ? run_classify : run_render, job, &run);
  decider->current = outer;
  job->repeats = door == PRY_DOOR_OK && !job->decision->looked_out;
  if (door != PRY_DOOR_OK)
    pry_decision_tell_fault(job->decision, which == PRY_DIALECT_CLASSIFY ? "classify" : "render",
                            pry_door_run_result(door), job->decision->call_id, run.fault);
  pry_decision_return(job->decision);
  return door == PRY_DOOR_OK && job->answered;
}

/* ---- what was said of a status alone ----
 *
 * A host often has nothing but a status, and then classify says the same each time: it has no memory, no store and no
 * dice. What it could ask besides, the clock and the log, marks the run. */

enum { REMEMBERED = 16 };

struct pry_remembered {
  const struct pry_dialect *dialect; /* NULL: none */
  const char *provider;              /* the config's own text */
  int status;
  bool answered;
  struct pry_failure failure;
};

static bool is_bare(const struct pry_answer_view *answer)
{
  return !answer->body.size && !answer->in_stream && !answer->event_type.size && answer->headers &&
         !answer->headers->count;
}

/* Its place, whatever is there now. NULL: nothing can be remembered. */
static struct pry_remembered *place_of(struct pry_decider *decider, const struct pry_dialect *dialect,
                                       const struct pry_answer_view *answer)
{
  if (!is_bare(answer))
    return NULL;
  if (!decider->remembered)
    decider->remembered = calloc(REMEMBERED, sizeof *decider->remembered);
  size_t place = (size_t)answer->status + dialect->index * 5 + ((uintptr_t)answer->provider >> 4);
  return decider->remembered ? &decider->remembered[place % REMEMBERED] : NULL;
}

static bool is_about(const struct pry_remembered *remembered, const struct pry_dialect *dialect,
                     const struct pry_answer_view *answer)
{
  return remembered && remembered->dialect == dialect && remembered->provider == answer->provider &&
         remembered->status == answer->status;
}

static void remember(struct pry_remembered *place, const struct dialect_run *job, const struct pry_answer_view *answer)
{
  *place = (struct pry_remembered){.dialect = job->dialect,
                                   .provider = answer->provider,
                                   .status = answer->status,
                                   .answered = job->answered,
                                   .failure = job->failure};
}

bool pry_ask_classify(struct pry_state *state, const struct pry_dialect *dialect, const struct pry_answer_view *answer,
                      struct pry_failure *failure)
{
  struct pry_script *script = (struct pry_script *)state;
  if (!dialect->has_classify)
    return false;
  struct pry_remembered *place = place_of(pry_decider_of(script), dialect, answer);
  if (is_about(place, dialect, answer)) {
    if (place->answered)
      *failure = place->failure;
    return place->answered;
  }
  struct dialect_run job = {
      .decision = pry_decision_take(pry_decider_of(script)), .dialect = dialect, .failure = *failure};
  if (!job.decision)
    return false;
  job.decision->answer = answer;
  job.decision->failure = failure;
  bool answered = run_dialect(script, &job, PRY_DIALECT_CLASSIFY);
  if (place && job.repeats)
    remember(place, &job, answer);
  if (!answered)
    return false;
  *failure = job.failure;
  return true;
}

bool pry_ask_render(struct pry_state *state, const struct pry_dialect *dialect, const struct pry_failure *failure,
                    const char *call_id, enum pry_render form, struct pry_buffer *out)
{
  struct pry_script *script = (struct pry_script *)state;
  size_t before = out->size;
  if (!dialect->has_render)
    return false;
  struct dialect_run job = {
      .decision = pry_decision_take(pry_decider_of(script)), .dialect = dialect, .form = form, .out = out};
  if (!job.decision)
    return false;
  job.decision->failure = failure;
  job.decision->call_id = call_id;
  if (run_dialect(script, &job, PRY_DIALECT_RENDER))
    return true;
  out->size = before;
  return false;
}
