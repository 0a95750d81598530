/* The door into Lua, coroutines that wait, and what stays as it was loaded. */
#include "freeze.h"
#include "lua_fixture.h"

#include <time.h>

static int new_script(void **state)
{
  *state = pry_script_new(&(struct pry_script_limits){.wall = -1}, NULL);
  assert_non_null(*state);
  return 0;
}

static int free_script(void **state)
{
  pry_script_free(*state);
  return 0;
}

/* ---- Outcomes ---------------------------------------------------------------------------------------------------- */

static int raise_text(lua_State *L)
{
  return luaL_error(L, "%s", (const char *)lua_touserdata(L, 1));
}

static int raise_table(lua_State *L)
{
  lua_newtable(L);
  return lua_error(L);
}

static int leave_values(lua_State *L)
{
  for (int i = 0; i < 5; i++)
    lua_pushinteger(L, i);
  return 5;
}

static enum pry_door_result call(struct pry_script *script, lua_CFunction function, const char *argument,
                                 struct pry_run *run)
{
  pry_run_init(run, script, 1);
  return pry_door_call(script, function, (void *)(uintptr_t)argument, run);
}

static void a_call_leaves_no_trace(void **state)
{
  struct pry_script *script = *state;
  struct pry_run run;

  assert_int_equal(call(script, leave_values, NULL, &run), PRY_DOOR_OK);
  assert_string_equal(run.fault, "");
  assert_int_equal(lua_gettop(script->L), 0);
  assert_int_equal(call(script, raise_text, "wrong\nin\ttwo lines", &run), PRY_DOOR_ERROR);
  assert_string_equal(run.fault, "wrong in two lines");
  assert_int_equal(call(script, raise_table, NULL, &run), PRY_DOOR_ERROR);
  assert_string_equal(run.fault, "(error object is a table value)");
  assert_int_equal(lua_gettop(script->L), 0);
  assert_null(script->run);
  assert_int_equal(script->faults, 2);
}

static void faults_have_a_place(void **state)
{
  expect_fault(*state, "\n\nerror('no')", PRY_DOOR_ERROR, "t.lua:3: no");
  expect_fault(*state, "\nerror('no', 0)", PRY_DOOR_ERROR, "t.lua:2: no");
  expect_fault(*state, "\nerror({})", PRY_DOOR_ERROR, "t.lua:2: (error object is a table value)");
  expect_fault(*state, "\nerror(nil)", PRY_DOOR_ERROR, "t.lua:2: (error object is a nil value)");
  expect_fault(*state, "error()", PRY_DOOR_ERROR, "(error object is a nil value)");
  expect_fault(*state, "error(42)", PRY_DOOR_ERROR, "t.lua:1: 42");
  expect_fault(*state, "error(1.5)", PRY_DOOR_ERROR, "t.lua:1: 1.5");
  expect_fault(*state, "error(true)", PRY_DOOR_ERROR, "boolean value");
  expect_fault(*state, "error(print)", PRY_DOOR_ERROR, "nil value");
  expect_fault(*state, "local x = nil\nreturn x.y", PRY_DOOR_ERROR,
               "t.lua:2: attempt to index a nil value (local 'x')");
  expect_fault(*state, "\nlocal t = {}\nwhile true do\nt = { t }\nend", PRY_DOOR_NO_MEMORY,
               "t.lua:4: not enough memory");
  expect_fault(*state, "\nwhile true do\nend", PRY_DOOR_OVER_BUDGET, "t.lua:");
  expect_fault(*state, "return return", PRY_DOOR_ERROR, "t.lua:1: ");
  expect_fault(*state, "error(('\xc3\xa4'):rep(300), 0)", PRY_DOOR_ERROR, "t.lua:1: \xc3\xa4");
}

/* A fault text never ends inside a UTF-8 sequence. */
static void faults_are_whole_texts(void **state)
{
  struct lua_text text;
  char source[64];

  for (int pad = 0; pad < 4; pad++) {
    snprintf(source, sizeof(source), "error(('x'):rep(%d) .. ('\xe2\x82\xac'):rep(300), 0)", pad);
    lua_text_run(*state, &text, source, 0);
    size_t size = strlen(text.run.fault);
    assert_true(size > 240);
    assert_memory_equal(text.run.fault + size - 3, "\xe2\x82\xac", 3);
  }
}

static void results_map_to_event_records(void **state)
{
  (void)state;
  assert_int_equal(pry_door_run_result(PRY_DOOR_OK), PRY_RUN_OK);
  assert_int_equal(pry_door_run_result(PRY_DOOR_YIELDED), PRY_RUN_OK);
  assert_int_equal(pry_door_run_result(PRY_DOOR_OVER_BUDGET), PRY_RUN_OVER_BUDGET);
  assert_int_equal(pry_door_run_result(PRY_DOOR_NO_MEMORY), PRY_RUN_NO_MEMORY);
  assert_int_equal(pry_door_run_result(PRY_DOOR_ERROR), PRY_RUN_ERROR);
}

static void pcall_catches_what_it_may(void **state)
{
  expect_lua(*state, "local ok, e = pcall(error, 'x', 0) return tostring(ok) .. e", "falsex");
  expect_lua(*state, "local ok, e = pcall(error, { code = 7 }) return e.code", "7");
  expect_lua(*state, "return select('#', pcall(error))", "2");
  expect_lua(*state, "return table.concat({ select(2, pcall(function(...) return ... end, 1, 2, 3)) }, ',')", "1,2,3");
  expect_lua(*state, "return select('#', pcall(function() end))", "1");
  expect_lua(*state, "local n = 0 for i = 1, 100 do if not pcall(error) then n = n + 1 end end return n", "100");
  expect_lua(*state,
             "local function deep(n) return n == 0 and error('bottom', 0) or deep(n - 1) + 1 end "
             "return select(2, pcall(deep, 10000))",
             "bottom");
  expect_fault(*state, "pcall()", PRY_DOOR_ERROR, "value expected");
}

static int open_another_door(lua_State *L)
{
  struct pry_script *script = pry_script_of(L);
  struct pry_run run;

  pry_run_init(&run, script, 1);
  run.budget = 5000;
  lua_CFunction function = lua_tocfunction(L, 1);
  enum pry_door_result result = pry_door_call(script, function, (void *)"inner", &run);
  lua_pushinteger(L, result);
  lua_pushstring(L, run.fault);
  return 2;
}

static int loop_for_ever(lua_State *L)
{
  pry_sandbox_load(L, "inner.lua", PRY_SLICE("while true do pcall(error) end"), 0);
  lua_call(L, 0, 0);
  return 0;
}

static int set_functions(lua_State *L)
{
  static const luaL_Reg functions[] = {
      {"door", open_another_door}, {"raise", raise_text}, {"loop", loop_for_ever}, {NULL, NULL}};

  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_pushcfunction(L, f->func);
    pry_sandbox_set_global(L, f->name);
  }
  return 0;
}

static void doors_nest(void **state)
{
  struct pry_script *script = *state;
  struct pry_run run;
  struct lua_text text;

  assert_int_equal(call(script, set_functions, NULL, &run), PRY_DOOR_OK);
  expect_lua(script, "local r, f = door(raise) return r .. f", "4t.lua:1: inner");
  expect_lua(script, "local r, f = door(loop) return r .. f", "2inner.lua:1: over budget: more than 5000 instructions");
  /* The outer budget goes on where it was. */
  lua_text_run(script, &text, "for i = 1, 4000 do end door(loop) while true do end", 20000);
  assert_int_equal(text.outcome, PRY_DOOR_OVER_BUDGET);
  assert_true(text.run.used >= 20000 && text.run.used <= 22000);
  expect_lua(script, "return pcall(door, raise)", "true");
}

static void budgets_are_of_one_run(void **state)
{
  struct lua_text text;

  for (int i = 0; i < 20; i++)
    assert_int_equal(lua_text_run(*state, &text, "for i = 1, 6000 do end", 10000), PRY_DOOR_OK);
  assert_true(text.run.used >= 5000 && text.run.used <= 8000);
  lua_text_run(*state, &text, "for i = 1, 60000 do end", 10000);
  assert_int_equal(text.outcome, PRY_DOOR_OVER_BUDGET);
  assert_true(text.run.used > 10000 && text.run.used <= 11000);
}

static void the_clock_stops_what_runs_on(void **state)
{
  struct lua_text text = {.text = "while true do end"};
  struct pry_task_call task = {
      .push = lua_text_push, .user = &text, .watch = LUA_NOREF, .budget = 1ul << 40, .wall = 0.02};
  struct pry_run run;

  assert_int_equal(pry_task_start(*state, &task, &run, NULL), PRY_DOOR_OVER_BUDGET);
  assert_string_equal(run.fault, "t.lua:1: over budget: ran for more than 20 ms");
  assert_true(run.seconds >= 0.02);
  text.text = "return ('a'):rep(1000):find('.-.-.-b')";
  assert_int_equal(pry_task_start(*state, &task, &run, NULL), PRY_DOOR_OVER_BUDGET);
  expect_lua(*state, "return 1", "1");
}

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

/* A host function `wait(name)`: the test completes it by hand. */
struct operation {
  struct pry_ticket ticket;
  char answer[32]; /* "!": finish raises */
  bool started, cancelled, finished;
};

static struct operation operations[8];
static unsigned operation_count;
static bool answer_at_once;

static int finish_operation(lua_State *L, void *user)
{
  struct operation *operation = user;

  operation->finished = true;
  if (operation->answer[0] == '!')
    return luaL_error(L, "bad answer");
  lua_pushstring(L, operation->answer);
  return 1;
}

static void cancel_operation(void *user)
{
  struct operation *operation = user;

  operation->cancelled = true;
}

static const struct pry_wait test_wait = {"wait", finish_operation, cancel_operation};

static int host_wait(lua_State *L)
{
  struct pry_ticket ticket = pry_task_ticket(L, "wait");
  struct operation *operation = &operations[operation_count++ % 8];

  *operation = (struct operation){.ticket = ticket, .started = true};
  if (answer_at_once) {
    snprintf(operation->answer, sizeof(operation->answer), "early");
    assert_true(pry_task_wake(pry_script_of(L), ticket));
    assert_false(pry_task_wake(pry_script_of(L), ticket));
  }
  return pry_task_wait(L, &test_wait, operation);
}

static unsigned closed_handles;

static int close_handle(lua_State *L)
{
  (void)L;
  closed_handles++;
  return 0;
}

/* A host's handle with a C `__close`, as leases and permits have. */
static int host_handle(lua_State *L)
{
  lua_newuserdatauv(L, 1, 0);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, close_handle);
  lua_setfield(L, -2, "__close");
  lua_setmetatable(L, -2);
  return 1;
}

static int set_wait(lua_State *L)
{
  lua_pushcfunction(L, host_wait);
  pry_sandbox_set_global(L, "wait");
  lua_pushcfunction(L, host_handle);
  pry_sandbox_set_global(L, "handle");
  return 0;
}

static int new_waiting_script(void **state)
{
  struct pry_run run;

  new_script(state);
  memset(operations, 0, sizeof(operations));
  operation_count = 0;
  closed_handles = 0;
  answer_at_once = false;
  return call(*state, set_wait, NULL, &run) == PRY_DOOR_OK ? 0 : -1;
}

static bool answer(struct pry_script *script, unsigned operation, const char *text)
{
  snprintf(operations[operation].answer, sizeof(operations[operation].answer), "%s", text);
  return pry_task_wake(script, operations[operation].ticket);
}

static void a_handler_waits(void **state)
{
  struct pry_script *script = *state;
  struct lua_text text;
  struct pry_task *task;

  assert_int_equal(lua_text_start(script, &text, "local a = wait() local b = wait() return a .. b", 0, &task),
                   PRY_DOOR_YIELDED);
  assert_non_null(task);
  assert_int_equal(pry_task_waiting(script), 1);
  expect_lua(script, "return 'others run'", "others run");
  assert_true(answer(script, 0, "one "));
  assert_false(text.ended);
  assert_true(operations[0].finished);
  assert_true(answer(script, 1, "two"));
  assert_true(text.ended);
  assert_int_equal(text.outcome, PRY_DOOR_OK);
  assert_string_equal(text.result, "one two");
  assert_int_equal(pry_task_waiting(script), 0);
  assert_false(operations[0].cancelled || operations[1].cancelled);
}

static void stale_tickets_are_refused(void **state)
{
  struct pry_script *script = *state;
  struct lua_text first, second;

  lua_text_start(script, &first, "wait() wait() return 'first'", 0, NULL);
  struct pry_ticket old = operations[0].ticket;
  assert_true(answer(script, 0, "x"));
  assert_false(pry_task_wake(script, old)); /* waits for something else now */
  assert_false(first.ended);
  assert_true(answer(script, 1, "x"));
  assert_true(first.ended);
  assert_false(pry_task_wake(script, operations[1].ticket)); /* has ended */
  lua_text_start(script, &second, "return wait()", 0, NULL);
  assert_int_equal(operations[2].ticket.coroutine, old.coroutine); /* the same coroutine, used again */
  assert_int_not_equal(operations[2].ticket.generation, old.generation);
  assert_false(pry_task_wake(script, old));
  struct pry_ticket forged = operations[2].ticket;
  forged.coroutine = 99;
  assert_false(pry_task_wake(script, forged));
  forged = operations[2].ticket;
  forged.generation--;
  assert_false(pry_task_wake(script, forged));
  forged = operations[2].ticket;
  forged.sequence = 0;
  assert_false(pry_task_wake(script, forged));
  assert_false(second.ended);
  assert_true(answer(script, 2, "right"));
  assert_string_equal(second.result, "right");
}

static void an_answer_may_come_first(void **state)
{
  answer_at_once = true;
  expect_lua(*state, "return wait() .. wait()", "earlyearly");
  assert_int_equal(pry_task_waiting(*state), 0);
}

static void waiting_ends_with_a_fault(void **state)
{
  struct pry_script *script = *state;
  struct lua_text text;

  lua_text_start(script, &text, "\nwait()", 0, NULL);
  assert_true(answer(script, 0, "!"));
  assert_int_equal(text.outcome, PRY_DOOR_ERROR);
  assert_non_null(strstr(text.run.fault, "t.lua:2: bad answer"));
  lua_text_start(script, &text, "wait() while true do end", 50000, NULL);
  assert_true(answer(script, 1, "x"));
  assert_int_equal(text.outcome, PRY_DOOR_OVER_BUDGET);
  lua_text_start(script, &text, "local ok, e = pcall(wait) return tostring(ok) .. e", 0, NULL);
  assert_true(answer(script, 2, "!"));
  assert_int_equal(text.outcome, PRY_DOOR_OK);
  assert_non_null(strstr(text.result, "falsebad answer"));
}

/* A loop of waits is not free of charge, however little it runs between them. */
static void waits_are_charged(void **state)
{
  struct pry_script *script = *state;
  struct lua_text text;

  lua_text_start(script, &text, "while true do wait() end", 50000, NULL);
  unsigned waits = 0;
  while (!text.ended && waits < 1000)
    assert_true(answer(script, waits++ % 8, "x"));
  assert_int_equal(text.outcome, PRY_DOOR_OVER_BUDGET);
  assert_true(waits >= 40 && waits <= 51);
}

static void waiting_is_cancelled(void **state)
{
  struct pry_script *script = *state;
  struct lua_text text;
  struct pry_task *task;

  lua_text_start(script, &text, "local h <close> = handle() pcall(function() local i <close> = handle() wait() end)", 0,
                 &task);
  assert_int_equal(closed_handles, 0);
  pry_task_cancel(task);
  assert_int_equal(closed_handles, 2);
  assert_true(operations[0].cancelled);
  assert_false(operations[0].finished);
  assert_false(text.ended);
  assert_false(pry_task_wake(script, operations[0].ticket));
  assert_int_equal(pry_task_waiting(script), 0);
  expect_lua(script, "return 1", "1");
}

static void handles_close_however_it_ends(void **state)
{
  struct pry_script *script = *state;

  expect_lua(script, "do local h <close> = handle() end return 1", "1");
  assert_int_equal(closed_handles, 1);
  expect_fault(script, "local h <close> = handle() error('x')", PRY_DOOR_ERROR, "x");
  assert_int_equal(closed_handles, 2);
  expect_fault(script, "local h <close> = handle() while true do end", PRY_DOOR_OVER_BUDGET, "over budget");
  assert_int_equal(closed_handles, 3);
  expect_fault(script, "local h <close> = handle() pcall(function() local i <close> = handle() while true do end end)",
               PRY_DOOR_OVER_BUDGET, "over budget");
  assert_int_equal(closed_handles, 5);
  expect_fault(
      script,
      "local h <close> = handle() table.sort({ 2, 1 }, function() local i <close> = handle() while true do end end)",
      PRY_DOOR_OVER_BUDGET, "over budget");
  assert_int_equal(closed_handles, 7);
  expect_fault(script, "local h <close> = handle() local t = {} while true do t = { t } end", PRY_DOOR_NO_MEMORY,
               "not enough memory");
  assert_int_equal(closed_handles, 8);
}

static void freeing_cancels(void **state)
{
  struct pry_script *script = *state;
  struct lua_text texts[3];

  for (int i = 0; i < 3; i++)
    lua_text_start(script, &texts[i], "local h <close> = handle() return wait()", 0, NULL);
  pry_script_free(script);
  *state = NULL;
  assert_int_equal(closed_handles, 3);
  assert_true(operations[0].cancelled && operations[1].cancelled && operations[2].cancelled);
}

static void some_places_cannot_wait(void **state)
{
  expect_fault(*state, "('a'):gsub('a', function() wait() end)", PRY_DOOR_ERROR,
               "t.lua:1: wait cannot wait here (inside a function");
  expect_fault(*state, "table.sort({ 2, 1 }, function() wait() end)", PRY_DOOR_ERROR,
               "wait cannot wait here (inside a function");
  struct pry_run run;
  assert_int_equal(call(*state, host_wait, NULL, &run), PRY_DOOR_ERROR);
  assert_string_equal(run.fault, "wait cannot wait here (only handlers can wait)");
  assert_int_equal(operation_count, 0);
}

static void coroutines_are_used_again(void **state)
{
  struct pry_script *script = *state;

  for (int i = 0; i < 100; i++)
    expect_lua(script, "return 1", "1");
  assert_int_equal(script->task_count, 1);
  for (int i = 0; i < 100; i++)
    expect_fault(script, "error('x')", PRY_DOOR_ERROR, "x");
  assert_int_equal(script->task_count, 1);
  struct lua_text texts[5];
  for (int i = 0; i < 5; i++)
    lua_text_start(script, &texts[i], "return wait()", 0, NULL);
  assert_int_equal(script->task_count, 5);
  for (unsigned i = 0; i < 5; i++)
    assert_true(answer(script, i, "x"));
  for (int i = 0; i < 5; i++)
    expect_lua(script, "return 1", "1");
  assert_int_equal(script->task_count, 5);
}

static void free_in_ended(struct pry_script *script, enum pry_door_result result, const struct pry_run *run, void *user)
{
  (void)result, (void)run;
  pry_script_free(script);
  *(bool *)user = true;
}

static int push_wait(lua_State *L, void *user)
{
  (void)user;
  pry_sandbox_get_global(L, "wait");
  return 0;
}

/* Whoever is told the end may let go of the script's last reference. */
static void the_end_may_free_the_script(void **state)
{
  struct pry_script *script = *state;
  bool freed = false;
  struct pry_task_call task = {.push = push_wait, .ended = free_in_ended, .user = &freed, .watch = LUA_NOREF};

  assert_int_equal(pry_task_start(script, &task, NULL, NULL), PRY_DOOR_YIELDED);
  *state = NULL;
  assert_true(answer(script, 0, "x"));
  assert_true(freed);
}

/* ---- What was loaded stays --------------------------------------------------------------------------------------- */

struct loaded {
  const char *text; /* returns a table of functions */
  int table, watch; /* registry */
};

static int load_and_freeze(lua_State *L)
{
  struct loaded *loaded = lua_touserdata(L, 1);

  pry_sandbox_load(L, "p.lua", pry_slice_of(loaded->text), 0);
  lua_call(L, 0, 1);
  pry_freeze(L, -1);
  loaded->watch = pry_freeze_watch(L, -1);
  loaded->table = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

struct handler_call {
  const struct loaded *loaded;
  const char *name;
  char result[256];
};

static int push_handler(lua_State *L, void *user)
{
  const struct handler_call *handler = user;

  lua_rawgeti(L, LUA_REGISTRYINDEX, handler->loaded->table);
  lua_getfield(L, -1, handler->name);
  lua_remove(L, -2);
  return 0;
}

static void take_handler(lua_State *L, int count, void *user)
{
  struct handler_call *handler = user;

  if (count > 0)
    snprintf(handler->result, sizeof(handler->result), "%s", pry_sandbox_tostring(L, 1, NULL));
}

static enum pry_door_result run_handler(struct pry_script *script, const struct loaded *loaded, const char *name,
                                        struct handler_call *handler, struct pry_run *run)
{
  *handler = (struct handler_call){.loaded = loaded, .name = name};
  struct pry_task_call task = {.push = push_handler, .take = take_handler, .user = handler, .watch = loaded->watch};

  return pry_task_start(script, &task, run, NULL);
}

static void load(struct pry_script *script, struct loaded *loaded, const char *text)
{
  struct pry_run run;

  *loaded = (struct loaded){.text = text};
  if (call(script, load_and_freeze, (const char *)loaded, &run) != PRY_DOOR_OK)
    fail_msg("%s", run.fault);
}

static void loaded_tables_are_read_only(void **state)
{
  struct pry_script *script = *state;
  struct loaded loaded;
  struct handler_call handler;
  struct pry_run run;

  load(script, &loaded,
       "local deep = { list = { 3, 1, 2, { 'x' } }, map = { a = 1, b = 2 }, loop = nil }\n"
       "deep.loop = deep\n"
       "local Class = {} Class.__index = Class function Class.get(o) return o.value end\n"
       "local object = setmetatable({ value = 7 }, Class)\n"
       "local computed = setmetatable({ own = 1 }, { __index = function(t, k) return k .. tostring(rawget(t, 'own')) "
       "end,\n"
       "  __call = function(t, x) return x * 2 end, __len = function() return 42 end })\n"
       "return {\n"
       "  read = function()\n"
       "    local r = {}\n"
       "    for k, v in pairs(deep.map) do r[#r + 1] = k .. v end\n"
       "    for i, v in ipairs(deep.list) do r[#r + 1] = type(v) == 'table' and v[1] or v end\n"
       "    r[#r + 1] = #deep.list .. rawlen(deep.list) .. rawget(deep.list, 1) .. table.concat(deep.list, ',', 1, 3)\n"
       "    r[#r + 1] = tostring(select('#', table.unpack(deep.list)))\n"
       "    r[#r + 1] = object:get() .. computed.zz .. computed(4) .. #computed .. computed.own\n"
       "    r[#r + 1] = tostring(deep.loop == deep) .. tostring(getmetatable(object) == Class) .. "
       "tostring(rawequal(deep, deep.loop))\n"
       "    r[#r + 1] = ('a-b'):gsub('%a', deep.map)\n"
       "    return table.concat(r, ' ')\n"
       "  end,\n"
       "  set = function() deep.x = 1 end,\n"
       "  change = function() deep.map.a = 2 end,\n"
       "  set_list = function() deep.list[1] = 1 end,\n"
       "  insert = function() table.insert(deep.list, 1) end,\n"
       "  remove = function() table.remove(deep.list) end,\n"
       "  sort = function() table.sort(deep.map) table.sort { 2, 1 } table.sort(deep.list, function() return true end) "
       "end,\n"
       "  move = function() table.move({ 1 }, 1, 1, 1, deep.list) end,\n"
       "  meta = function() setmetatable(deep, {}) end,\n"
       "  class = function() getmetatable(object).get = 1 end,\n"
       "  class_index = function() Class.get = 1 end,\n"
       "  object = function() object.value = 8 end,\n"
       "  computed = function() computed.own = 8 end,\n"
       "  module = function() string.rep = 1 end,\n"
       "  copy = function() local t = { table.unpack(deep.list, 1, 3) } table.sort(t) t[4] = 4 return table.concat(t) "
       "end,\n"
       "}");
  assert_int_equal(run_handler(script, &loaded, "read", &handler, &run), PRY_DOOR_OK);
  assert_string_equal(handler.result, "a1 b2 3 1 2 x 4433,1,2 4 7zz18421 truetruetrue 1-2");
  assert_int_equal(run_handler(script, &loaded, "copy", &handler, &run), PRY_DOOR_OK);
  assert_string_equal(handler.result, "1234");
  static const char *const writers[] = {"set",  "change", "set_list",    "insert", "remove",   "sort",  "move",
                                        "meta", "class",  "class_index", "object", "computed", "module"};
  for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++) {
    assert_int_equal(run_handler(script, &loaded, writers[i], &handler, &run), PRY_DOOR_ERROR);
    if (strncmp(run.fault, "p.lua:", 6) != 0 || !strstr(run.fault, "read-only after load"))
      fail_msg("%s: %s", writers[i], run.fault);
  }
  assert_int_equal(run_handler(script, &loaded, "read", &handler, &run), PRY_DOOR_OK);
  assert_string_equal(handler.result, "a1 b2 3 1 2 x 4433,1,2 4 7zz18421 truetruetrue 1-2");
}

static void changed_upvalues_are_set_back(void **state)
{
  struct pry_script *script = *state;
  struct loaded loaded;
  struct handler_call handler;
  struct pry_run run;

  load(script, &loaded,
       "local count, unset, nan, whole = 0, nil, 0 / 0, 1\n"
       "local function helper() count = count + 1 end\n"
       "local inner = { bump = function() unset = 'set' end }\n"
       "return {\n"
       "  read = function() return count .. tostring(unset) .. tostring(nan ~= nan) .. whole end,\n"
       "  bump = function()\n    count = count + 1\n    return count\n  end,\n"
       "  indirect = function() helper() return 'x' end,\n"
       "  nested = function() inner.bump() end,\n"
       "  replace = function() helper = nil end,\n"
       "  environment = function() _ENV = {} end,\n"
       "  raise = function() count = 9 error('mine') end,\n"
       "  loop = function() count = 9 while true do end end,\n"
       "  back = function() count = 5 count = 0 return 'fine' end,\n"
       "  own = function() local n = 0 local function f() n = n + 1 return n end f() return f() end,\n"
       "}");
  assert_true(loaded.watch > 0);
  assert_int_equal(run_handler(script, &loaded, "bump", &handler, &run), PRY_DOOR_ERROR);
  assert_non_null(strstr(run.fault, "p.lua:"));
  assert_non_null(strstr(run.fault, "'count'"));
  static const char *const changers[] = {"bump", "indirect", "nested", "replace", "environment"};
  for (size_t i = 0; i < sizeof(changers) / sizeof(changers[0]); i++) {
    assert_int_equal(run_handler(script, &loaded, changers[i], &handler, &run), PRY_DOOR_ERROR);
    assert_non_null(strstr(run.fault, "set back"));
    assert_int_equal(run_handler(script, &loaded, "read", &handler, &run), PRY_DOOR_OK);
    assert_string_equal(handler.result, "0niltrue1");
  }
  assert_int_equal(run_handler(script, &loaded, "raise", &handler, &run), PRY_DOOR_ERROR);
  assert_non_null(strstr(run.fault, "mine"));
  assert_int_equal(run_handler(script, &loaded, "loop", &handler, &run), PRY_DOOR_OVER_BUDGET);
  assert_int_equal(run_handler(script, &loaded, "read", &handler, &run), PRY_DOOR_OK);
  assert_string_equal(handler.result, "0niltrue1");
  assert_int_equal(run_handler(script, &loaded, "back", &handler, &run), PRY_DOOR_OK);
  assert_int_equal(run_handler(script, &loaded, "own", &handler, &run), PRY_DOOR_OK);
  assert_string_equal(handler.result, "2");
}

/* An iterator that was made while loading has its place in an upvalue of a C function. */
static void kept_iterators_do_not_count(void **state)
{
  struct pry_script *script = *state;
  struct loaded loaded;
  struct handler_call handler;
  struct pry_run run;

  load(script, &loaded,
       "local word, pair = string.gmatch('abc', '.'), pairs { 1, 2, 3 }\n"
       "return { word = function() return word() end, pair = function() return pair { 7, 8, 9 } end }");
  static const char *const names[] = {"word", "pair", "word", "pair"};
  static const char *const first[] = {"a", "1", "a", "1"};
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
    assert_int_equal(run_handler(script, &loaded, names[i], &handler, &run), PRY_DOOR_ERROR);
    assert_string_equal(handler.result, first[i]);
    assert_non_null(strstr(run.fault, "set back"));
  }
}

/* Changing one before a wait is seen at the wait: no other handler meets the changed value. */
static void upvalues_are_checked_at_waits(void **state)
{
  struct pry_script *script = *state;
  struct loaded loaded;
  struct handler_call handler;
  struct pry_run run;

  load(script, &loaded,
       "local count = 0 return { wait = function() count = 1 wait() end, read = function() return count end }");
  assert_int_equal(run_handler(script, &loaded, "wait", &handler, &run), PRY_DOOR_ERROR);
  assert_non_null(strstr(run.fault, "'count'"));
  assert_true(operations[0].cancelled);
  assert_int_equal(pry_task_waiting(script), 0);
  assert_int_equal(run_handler(script, &loaded, "read", &handler, &run), PRY_DOOR_OK);
  assert_string_equal(handler.result, "0");
}

static void extras_are_one_files_globals(void **state)
{
  struct pry_script *script = *state;
  struct lua_text text;

  lua_text_run(script, &text, "return provider == nil", 0);
  assert_string_equal(text.result, "true");
}

static int load_with_extras(lua_State *L)
{
  lua_newtable(L);
  lua_pushliteral(L, "here");
  lua_setfield(L, -2, "provider");
  pry_sandbox_load(L, "init.lua", PRY_SLICE("assert(provider == 'here' and string.rep) provider = 1"), -1);
  lua_pushnil(L);
  lua_setfield(L, -3, "provider"); /* the file keeps what it was given */
  lua_call(L, 0, 0);
  return 0;
}

static void globals_are_per_file(void **state)
{
  struct pry_run run;

  assert_int_equal(call(*state, load_with_extras, NULL, &run), PRY_DOOR_ERROR);
  assert_string_equal(run.fault, "init.lua:1: global 'provider' cannot be set; write 'local provider'");
  extras_are_one_files_globals(state);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, new_script, free_script)
#define WAIT(name) cmocka_unit_test_setup_teardown(name, new_waiting_script, free_script)
  const struct CMUnitTest tests[] = {
      TEST(a_call_leaves_no_trace),
      TEST(faults_have_a_place),
      TEST(faults_are_whole_texts),
      TEST(results_map_to_event_records),
      TEST(pcall_catches_what_it_may),
      TEST(doors_nest),
      TEST(budgets_are_of_one_run),
      TEST(the_clock_stops_what_runs_on),
      WAIT(a_handler_waits),
      WAIT(stale_tickets_are_refused),
      WAIT(an_answer_may_come_first),
      WAIT(waiting_ends_with_a_fault),
      WAIT(waits_are_charged),
      WAIT(waiting_is_cancelled),
      WAIT(handles_close_however_it_ends),
      WAIT(freeing_cancels),
      WAIT(some_places_cannot_wait),
      WAIT(coroutines_are_used_again),
      WAIT(the_end_may_free_the_script),
      TEST(loaded_tables_are_read_only),
      TEST(changed_upvalues_are_set_back),
      TEST(kept_iterators_do_not_count),
      WAIT(upvalues_are_checked_at_waits),
      TEST(globals_are_per_file),
  };

  return cmocka_run_group_tests(tests, NULL, NULL);
}
