#include "lib.h"

#include "host_function.h"
#include "sandbox.h"

#include <stdio.h>

/*
 * What a policy asks the application that parry is a part of. One question is a userdata on the coroutine's stack, like a
 * request of http.request's.
 */

static const char FUNCTION[] = "host.call";
static const char OPERATION_KEY = 0;

struct operation {
  struct pry_leftover leftover;
  struct pry_decision *decision;
  struct pry_ticket ticket;
  struct pry_message beginning;
  struct pry_question *question;
  struct pry_timer timer;
  pry_time started;
  char name[PRY_FUNCTION_NAME_MAX + 1];
};

/* ---- the operation ------------------------------------------------------------------------------------------ */

static void release(struct operation *operation)
{
  pry_list_remove(&operation->leftover.link);
  pry_decision_forget(operation->decision, &operation->beginning);
  pry_timer_cancel(&operation->timer);
  pry_question_drop(operation->question);
  operation->question = NULL;
}

static void release_leftover(struct pry_leftover *leftover)
{
  release(PRY_CONTAINER_OF(leftover, struct operation, leftover));
}

static int operation_gc(lua_State *L)
{
  release(lua_touserdata(L, 1));
  return 0;
}

static struct operation *new_operation(lua_State *L, struct pry_decision *decision)
{
  struct operation *operation = lua_newuserdatauv(L, sizeof *operation, 0);
  *operation = (struct operation){.decision = decision};
  pry_decision_leftover(L, &operation->leftover, release_leftover);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &OPERATION_KEY);
  lua_setmetatable(L, -2);
  return operation;
}

/* The last act on an operation: the handler goes on, and may end with everything it belongs to. When it is the timer that
 * calls, there may be no answer. */
static void go_on(void *user)
{
  struct operation *operation = user;
  struct pry_decision *decision = operation->decision;
  pry_timer_cancel(&operation->timer);
  pry_question_ignore(operation->question);
  decision->http_left -= pry_loop_clock(pry_decision_worker(decision)->loop) - operation->started;
  pry_decision_wake(decision, operation->ticket);
}

static bool start_timer(struct operation *operation, pry_time delay)
{
  return pry_timer_start(pry_decision_worker(operation->decision)->loop, &operation->timer, delay, go_on, operation);
}

/* The question was asked inside the handler, but only here is there a thread that an answer can come to. On a worker the
 * timer runs already, and moving it cannot fail. */
static void begin(struct pry_message *message)
{
  struct operation *operation = PRY_CONTAINER_OF(message, struct operation, beginning);
  bool waits = pry_question_listen(operation->question);
  if (!start_timer(operation, waits ? operation->decision->http_left : 0))
    go_on(operation);
}

/* ---- what the script gets ----------------------------------------------------------------------------------- */

static int push_failure(lua_State *L, const struct operation *operation, const char *category, struct pry_slice message)
{
  struct pry_read read = pry_read_begin(operation->decision, FUNCTION);
  pry_read_text(&read, pry_slice_of(operation->name));
  pry_read_null(&read);
  pry_read_text(&read, pry_slice_of(category));
  pry_read_text(&read, message);
  pry_read_end(&read);
  lua_pushnil(L);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, category);
  lua_setfield(L, -2, "category");
  lua_pushlstring(L, message.size ? message.data : "", message.size);
  lua_setfield(L, -2, "message");
  return 2;
}

static int push_value(lua_State *L, const struct operation *operation, struct pry_slice json)
{
  const char *why;
  int top = lua_gettop(L);
  if (!pry_lua_json_push(L, json, &why))
    return push_failure(L, operation, "invalid_json", pry_slice_of(why));
  struct pry_read read = pry_read_begin(operation->decision, FUNCTION);
  pry_read_text(&read, pry_slice_of(operation->name));
  pry_read_json(&read, json);
  pry_read_end(&read);
  if (pry_lua_json_is_null(L, top + 1))
    lua_pushnil(L); /* without an error: that was the answer */
  return 1;
}

static int push_answer(lua_State *L, struct operation *operation)
{
  struct pry_answer answer;
  int count;
  if (!operation->question)
    count = push_failure(L, operation, "memory", PRY_SLICE("not enough memory"));
  else if (!pry_question_answer(operation->question, &answer))
    count = push_failure(L, operation, "timeout", PRY_SLICE("no answer in time"));
  else if (answer.category)
    count = push_failure(L, operation, answer.category, answer.text);
  else
    count = push_value(L, operation, answer.text);
  release(operation);
  return count;
}

static int finish(lua_State *L, void *operation)
{
  return push_answer(L, operation);
}

static void cancel(void *operation)
{
  release(operation);
}

/* ---- asking ------------------------------------------------------------------------------------------------- */

static void read_name(lua_State *L, struct operation *operation)
{
  struct pry_slice name = pry_lua_text(L, 1);
  if (!name.size || name.size > PRY_FUNCTION_NAME_MAX)
    luaL_error(L, "%s: a function's name has 1 to %d bytes", FUNCTION, PRY_FUNCTION_NAME_MAX);
  snprintf(operation->name, sizeof operation->name, "%.*s", (int)name.size, name.data);
}

static struct pry_buffer *read_arguments(lua_State *L)
{
  char complaint[128];
  struct pry_buffer *json = pry_lua_buffer(L, PRY_FUNCTION_JSON_MAX);
  if (!pry_lua_json_append(L, 2, json, NULL, NULL, complaint, sizeof complaint))
    luaL_error(L, "%s: the arguments of %s: %s", FUNCTION, lua_tostring(L, 1), complaint);
  return json;
}

/* ---@class host
 * host = {}
 * ---@param name string   as the application registered it
 * ---@param arguments? any   what JSON can say, at most 64 KiB of it; no secrets
 * ---@return any value   nil with err nil: the answer was null
 * ---@return { category: string, message: string }? err   category "unknown": there is no such function, or no application;
 *             "failed": its own error; "timeout", "busy", "invalid_json", "memory"
 * Asks the application that parry is a part of. May wait, at most 10 seconds in all per handler, http.request included.
 * function host.call(name, arguments) end */
static int host_call(lua_State *L)
{
  static const struct pry_wait wait = {"host.call", finish, cancel};
  struct pry_decision *decision = pry_decision_check(L, FUNCTION);
  struct pry_ticket ticket = pry_task_ticket(L, FUNCTION);
  lua_settop(L, 2);
  struct operation *operation = new_operation(L, decision);
  read_name(L, operation);
  struct pry_buffer *arguments = read_arguments(L);
  struct pry_functions *functions = pry_decision_engine(decision)->functions;
  if (!functions)
    return push_failure(L, operation, "unknown", PRY_SLICE("parry is part of no application here"));
  if (decision->http_left <= 0)
    return push_failure(L, operation, "timeout", PRY_SLICE("this handler has waited as long as it may"));
  operation->ticket = ticket;
  struct pry_asker asker = {pry_decision_mailbox(decision), go_on, operation};
  struct pry_answer answer;
  operation->question = pry_question_new(functions, pry_slice_of(operation->name), pry_buffer_slice(arguments), &asker);
  pry_buffer_fini(arguments);
  if (!operation->question || pry_question_answer(operation->question, &answer))
    return push_answer(L, operation);
  lua_settop(L, 3); /* the operation stays */
  if (!pry_decision_worker(decision)->decides && !start_timer(operation, decision->http_left)) {
    release(operation);
    return push_failure(L, operation, "memory", PRY_SLICE("not enough memory"));
  }
  operation->started = pry_loop_clock(pry_decision_worker(decision)->loop);
  operation->beginning.deliver = begin;
  pry_decision_begin(decision, &operation->beginning);
  return pry_task_wait(L, &wait, operation);
}

/* ---@param name string
 * ---@return boolean   whether the application has registered such a function
 * function host.has(name) end */
static int host_has(lua_State *L)
{
  struct pry_decision *decision = pry_decision_check(L, "host.has");
  struct pry_slice name = pry_lua_text(L, 1);
  bool known = pry_functions_has(pry_decision_engine(decision)->functions, name);
  struct pry_read read = pry_read_begin(decision, "host.has");
  pry_read_text(&read, name);
  pry_read_boolean(&read, known);
  pry_read_end(&read);
  lua_pushboolean(L, known);
  return 1;
}

void pry_lib_host_open(lua_State *L)
{
  static const luaL_Reg functions[] = {{"call", host_call}, {"has", host_has}, {NULL, NULL}};
  pry_lib_keep_metatable(L, &OPERATION_KEY, operation_gc);
  luaL_newlib(L, functions);
  pry_sandbox_set_global(L, "host");
}
