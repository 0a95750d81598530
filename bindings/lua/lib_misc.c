#include "lib.h"

#include "sandbox.h"

#include <math.h>
#include <openssl/evp.h>

/*
 * What is left: time, chance, digests and a look at queues.
 */

/* ---- time and chance -------------------------------------------------------------------------------------- */

/* ---@return number   Unix seconds; the same for a whole handler, until it has waited
 * function now() end */
static int misc_now(lua_State *L)
{
  struct pry_decision *decision = pry_decision_of(L);
  if (!decision)
    return luaL_error(L, "now is not available while loading");
  decision->looked_out = true;
  if (decision->resumed) { /* before, it is the record's own time */
    struct pry_read read = pry_read_begin(decision, "now");
    pry_read_number(&read, decision->now);
    pry_read_end(&read);
  }
  lua_pushnumber(L, decision->now);
  return 1;
}

/* splitmix64: one word of state, seeded per event, the same everywhere. */
static uint64_t next_random(uint64_t *state)
{
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* Without the bias of a plain remainder. */
static uint64_t below(uint64_t *state, uint64_t count)
{
  uint64_t limit = count ? UINT64_MAX - UINT64_MAX % count : 0;
  uint64_t word = next_random(state);
  while (count && word >= limit)
    word = next_random(state);
  return count ? word % count : word;
}

/* ---@param text string
 * ---@return string   its SHA-256 in hexadecimal: a key of the store from what is long, or must not be seen
 * function digest(text) end */
static int misc_digest(lua_State *L)
{
  static const char digits[] = "0123456789abcdef";
  unsigned char bytes[EVP_MAX_MD_SIZE];
  char text[2 * EVP_MAX_MD_SIZE];
  unsigned size = 0;
  struct pry_slice given = pry_lua_text(L, 1);
  pry_script_charge_bytes(L, given.size * PRY_LUA_BYTE_COST);
  if (!EVP_Digest(given.data, given.size, bytes, &size, EVP_sha256(), NULL))
    return luaL_error(L, "not enough memory");
  for (unsigned i = 0; i < size; i++) {
    text[2 * i] = digits[bytes[i] >> 4];
    text[2 * i + 1] = digits[bytes[i] & 15];
  }
  lua_pushlstring(L, text, 2 * (size_t)size);
  return 1;
}

/* ---@param first? integer  without arguments: a number from 0 to below 1
 * ---@param last? integer   random(6) is 1..6, random(3, 5) is 3..5
 * ---@return number
 * function random(first, last) end */
static int misc_random(lua_State *L)
{
  struct pry_decision *decision = pry_decision_check(L, "random");
  int count = lua_gettop(L);
  if (count == 0) {
    lua_pushnumber(L, (double)(next_random(&decision->random) >> 11) * 0x1.0p-53);
    return 1;
  }
  lua_Integer first = count >= 2 ? luaL_checkinteger(L, 1) : 1;
  lua_Integer last = luaL_checkinteger(L, count >= 2 ? 2 : 1);
  luaL_argcheck(L, first <= last, count >= 2 ? 2 : 1, "the interval is empty");
  uint64_t span = (uint64_t)last - (uint64_t)first + 1; /* 0: all of them */
  uint64_t drawn = (uint64_t)first + below(&decision->random, span);
  lua_pushinteger(L, (lua_Integer)drawn);
  return 1;
}

/* ---- sleeping -------------------------------------------------------------------------------------------- */

enum { SLEEP_MAX_SECONDS = 3600 };

/* A userdata on the sleeper's stack. */
struct nap {
  struct pry_decision *decision;
  struct pry_ticket ticket;
  struct pry_timer timer;
};

static void wake_up(void *user)
{
  struct nap *nap = user;
  pry_decision_wake(nap->decision, nap->ticket);
}

static int nap_finish(lua_State *L, void *operation)
{
  (void)L;
  (void)operation;
  return 0;
}

static void nap_cancel(void *operation)
{
  struct nap *nap = operation;
  pry_timer_cancel(&nap->timer);
}

/* ---@param seconds number   at most an hour. In jobs (`every`) only: a handler that wants to wait returns a verdict
 * function sleep(seconds) end */
static int misc_sleep(lua_State *L)
{
  static const struct pry_wait wait = {"sleep", nap_finish, nap_cancel};
  struct pry_decision *decision = pry_decision_check(L, "sleep");
  if (decision->ask->handler != PRY_EVERY)
    return luaL_error(L, "sleep works in every = { … } only; elsewhere return a verdict that waits");
  double seconds = luaL_checknumber(L, 1);
  luaL_argcheck(L, seconds >= 0 && seconds <= SLEEP_MAX_SECONDS, 1, "sleep takes seconds, 0 to 3600");
  struct pry_ticket ticket = pry_task_ticket(L, "sleep");
  struct nap *nap = lua_newuserdatauv(L, sizeof *nap, 0);
  *nap = (struct nap){.decision = decision, .ticket = ticket};
  if (!pry_timer_start(pry_decision_worker(decision)->loop, &nap->timer, pry_time_from_seconds(seconds), wake_up, nap))
    return luaL_error(L, "not enough memory");
  return pry_task_wait(L, &wait, nap);
}

/* ---- queues ---------------------------------------------------------------------------------------------- */

static int count_queue(lua_State *L, const char *function, bool want_held)
{
  struct pry_decision *decision = pry_decision_check(L, function);
  char key[PRY_KEY_MAX];
  struct pry_queue_state state;
  struct pry_slice full = pry_lua_key(L, 1, decision, '/', key, sizeof key);
  pry_queue_look(pry_decision_engine(decision)->queues, full, pry_worker_now(pry_decision_worker(decision)), &state);
  lua_Integer count = (lua_Integer)(want_held ? state.held : state.waiting);
  struct pry_read read = pry_read_begin(decision, function);
  pry_read_text(&read, full);
  pry_read_number(&read, (double)count);
  pry_read_end(&read);
  lua_pushinteger(L, count);
  return 1;
}

/* ---@class queue
 * queue = {}
 * ---@param key string   as in hold{ key = }
 * ---@return integer     places taken
 * function queue.held(key) end */
static int queue_held(lua_State *L)
{
  return count_queue(L, "queue.held", true);
}

/* ---@param key string
 * ---@return integer     calls in line
 * function queue.waiting(key) end */
static int queue_waiting(lua_State *L)
{
  return count_queue(L, "queue.waiting", false);
}

enum { PAUSE_MAX_SECONDS = 24 * 3600 };

struct asked {
  struct pry_decision *decision;
  struct pry_queue_set *queues;
  struct pry_slice key;
  pry_time now;
  char text[PRY_KEY_MAX];
};

static void ask_queue(lua_State *L, const char *function, struct asked *asked)
{
  asked->decision = pry_decision_check(L, function);
  asked->queues = pry_decision_engine(asked->decision)->queues;
  asked->key = pry_lua_key(L, 1, asked->decision, '/', asked->text, sizeof asked->text);
  asked->now = pry_worker_now(pry_decision_worker(asked->decision));
}

/* Records and returns true, or nil and why. */
static int told_queue(lua_State *L, const struct asked *asked, const char *function, bool done)
{
  struct pry_read read = pry_read_begin(asked->decision, function);
  pry_read_text(&read, asked->key);
  pry_read_boolean(&read, done);
  pry_read_end(&read);
  if (!done)
    return pry_lua_failed(L, "queue_full", "there is no room for another key");
  lua_pushboolean(L, true);
  return 1;
}

/* ---@param key string       as in hold{ key = }
 * ---@param seconds number   at most a day; a shorter pause than the one there is changes nothing
 * ---@return true? ok, table? err
 * Nobody gets past hold{ key = } before then, and its bucket is empty: what a 429 is to be followed by.
 * function queue.pause(key, seconds) end */
static int queue_pause(lua_State *L)
{
  struct asked asked;
  ask_queue(L, "queue.pause", &asked);
  double seconds = luaL_checknumber(L, 2);
  luaL_argcheck(L, seconds >= 0 && seconds <= PAUSE_MAX_SECONDS, 2, "a pause takes seconds, 0 to a day");
  pry_time until = asked.now + pry_time_from_seconds(seconds);
  return told_queue(L, &asked, "queue.pause", pry_queue_pause(asked.queues, asked.key, until, asked.now));
}

/* ---@param key string
 * ---@param v { remaining: number, reset: number }   calls, or tokens (as the costs are counted); seconds from now, at
 *               most a day
 * ---@return true? ok, table? err
 * At most `remaining` more get past hold{ key = } until `reset`: what a provider's x-ratelimit headers say. The last
 * word counts.
 * function queue.allow(key, v) end */
static int queue_allow(lua_State *L)
{
  static const char *const names[] = {"remaining", "reset", NULL};
  struct asked asked;
  lua_settop(L, 2);
  ask_queue(L, "queue.allow", &asked);
  pry_lua_options(L, 2, "queue.allow", names, false);
  double remaining = pry_lua_number_field(L, 2, "queue.allow", "remaining", -1, 0, 1e12);
  double reset = pry_lua_number_field(L, 2, "queue.allow", "reset", -1, 0, PAUSE_MAX_SECONDS);
  if (remaining < 0 || reset < 0)
    return luaL_error(L, "queue.allow{} needs remaining and reset");
  pry_time until = asked.now + pry_time_from_seconds(reset);
  return told_queue(L, &asked, "queue.allow", pry_queue_allow(asked.queues, asked.key, remaining, until, asked.now));
}

/* ---@param key string
 * ---@param tokens number   beyond the cost that hold{} took; negative: less than that
 * ---@return true? ok, table? err
 * What a call really cost, when it is known.
 * function queue.spend(key, tokens) end */
static int queue_spend(lua_State *L)
{
  struct asked asked;
  ask_queue(L, "queue.spend", &asked);
  double tokens = luaL_checknumber(L, 2);
  luaL_argcheck(L, isfinite(tokens) && fabs(tokens) <= 1e12, 2, "tokens are a number, at most 1e12");
  return told_queue(L, &asked, "queue.spend", pry_queue_spend(asked.queues, asked.key, tokens, asked.now));
}

static void set_number(lua_State *L, struct pry_read *read, const char *name, double number)
{
  pry_read_number(read, number);
  lua_pushnumber(L, number);
  lua_setfield(L, -2, name);
}

/* ---@class queue_state
 * ---@field held number        places taken
 * ---@field waiting number     calls in line
 * ---@field available number?  places, calls or tokens for who comes next; nil: any number
 * ---@field next number        seconds until who comes next may pass, as far as time decides
 * ---@field paused number      seconds that a pause still lasts
 * ---@param key string
 * ---@return queue_state
 * function queue.state(key) end */
static int queue_state(lua_State *L)
{
  struct asked asked;
  struct pry_queue_state state;
  ask_queue(L, "queue.state", &asked);
  pry_queue_look(asked.queues, asked.key, asked.now, &state);
  struct pry_read read = pry_read_begin(asked.decision, "queue.state");
  pry_read_text(&read, asked.key);
  lua_createtable(L, 0, 5);
  set_number(L, &read, "held", (double)state.held);
  set_number(L, &read, "waiting", (double)state.waiting);
  if (isfinite(state.available))
    set_number(L, &read, "available", state.available);
  else
    pry_read_null(&read);
  set_number(L, &read, "next", pry_time_to_seconds(state.next_in));
  set_number(L, &read, "paused", pry_time_to_seconds(state.paused));
  pry_read_end(&read);
  return 1;
}

/* ---- opening --------------------------------------------------------------------------------------------- */

void pry_lib_misc_open(lua_State *L)
{
  static const luaL_Reg queue[] = {{"held", queue_held},
                                   {"waiting", queue_waiting},
                                   {"pause", queue_pause},
                                   {"allow", queue_allow},
                                   {"spend", queue_spend},
                                   {"state", queue_state},
                                   {NULL, NULL}};
  lua_pushcfunction(L, misc_now);
  pry_sandbox_set_global(L, "now");
  lua_pushcfunction(L, misc_random);
  pry_sandbox_set_global(L, "random");
  lua_pushcfunction(L, misc_digest);
  pry_sandbox_set_global(L, "digest");
  lua_pushcfunction(L, misc_sleep);
  pry_sandbox_set_global(L, "sleep");
  luaL_newlib(L, queue);
  pry_sandbox_set_global(L, "queue");
}
