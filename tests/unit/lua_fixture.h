/*
 * lua_fixture.h: runs pieces of Lua in a script as handlers run, for unit tests of the Lua binding.
 *
 * The wall limit is off by default: tests gate on instructions, which do not depend on the machine or on sanitizers.
 */
#ifndef LUA_FIXTURE_H
#define LUA_FIXTURE_H

#include "door.h"
#include "sandbox.h"
#include "task.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* One run of a text, and what came of it. */
struct lua_text {
  const char *text;
  char result[4096]; /* the first value, as tostring gives it */
  struct pry_run run;
  enum pry_door_result outcome;
  bool ended;
};

static inline int lua_text_push(lua_State *L, void *user)
{
  const struct lua_text *text = user;

  pry_sandbox_load(L, "t.lua", pry_slice_of(text->text), 0);
  return 0;
}

static inline void lua_text_take(lua_State *L, int count, void *user)
{
  struct lua_text *text = user;

  if (count > 0)
    snprintf(text->result, sizeof(text->result), "%s", pry_sandbox_tostring(L, 1, NULL));
}

static inline void lua_text_ended(struct pry_script *script, enum pry_door_result result, const struct pry_run *run,
                                  void *user)
{
  struct lua_text *text = user;

  (void)script;
  text->outcome = result;
  text->run = *run;
  text->ended = true;
}

static inline enum pry_door_result lua_text_start(struct pry_script *script, struct lua_text *text, const char *source,
                                                  unsigned long budget, struct pry_task **task)
{
  *text = (struct lua_text){.text = source};
  struct pry_task_call call = {.push = lua_text_push,
                               .take = lua_text_take,
                               .ended = lua_text_ended,
                               .user = text,
                               .watch = LUA_NOREF,
                               .budget = budget,
                               .wall = -1};
  text->outcome = pry_task_start(script, &call, &text->run, task);
  text->ended = text->outcome != PRY_DOOR_YIELDED;
  return text->outcome;
}

/* Runs to the end; budget 0: the script's. */
static inline enum pry_door_result lua_text_run(struct pry_script *script, struct lua_text *text, const char *source,
                                                unsigned long budget)
{
  return lua_text_start(script, text, source, budget, NULL);
}

/* The text must run well and give `expected`. */
static inline void expect_lua(struct pry_script *script, const char *source, const char *expected)
{
  struct lua_text text;

  if (lua_text_run(script, &text, source, 0) != PRY_DOOR_OK)
    fail_msg("%s\n  gave: %s", source, text.run.fault);
  if (strcmp(text.result, expected) != 0)
    fail_msg("%s\n  gave: %s\n  expected: %s", source, text.result, expected);
}

/* The text must fail as `outcome`, and the fault must contain `part`. */
static inline void expect_fault(struct pry_script *script, const char *source, enum pry_door_result outcome,
                                const char *part)
{
  struct lua_text text;

  lua_text_run(script, &text, source, 0);
  if (text.outcome != outcome || !strstr(text.run.fault, part))
    fail_msg("%s\n  outcome %d, expected %d\n  fault: %s\n  expected in it: %s", source, (int)text.outcome,
             (int)outcome, text.run.fault, part);
}

#endif
