#include "lib.h"

#include "lib_view.h"
#include "sandbox.h"

/*
 * What a policy has learned about the key of the attempt that has just ended. All workers' calls pass over a key that is
 * retired or paused (keys.h); a provider's only key is never taken away.
 *
 *   ---@class keys
 *   keys = {}
 */

enum { SECONDS_MAX = 30 * 24 * 3600 };

/* Of the attempt that on_outcome or on_error is about; raises elsewhere. */
static const struct pry_attempt *attempt_of(lua_State *L, const struct pry_decision *decision, const char *function)
{
  const struct pry_ask *ask = decision->ask;
  if ((ask->handler != PRY_ON_OUTCOME && ask->handler != PRY_ON_ERROR) || !ask->call || !ask->call->ledger_count)
    luaL_error(L, "%s works in on_outcome and on_error, for the key of the attempt that has just ended", function);
  return &ask->call->ledger[ask->call->ledger_count - 1];
}

static pry_time until(lua_State *L, const struct pry_decision *decision, const char *function, pry_time *now)
{
  double seconds = lua_tonumber(L, 1);
  if (lua_type(L, 1) != LUA_TNUMBER || !(seconds > 0 && seconds <= SECONDS_MAX))
    luaL_error(L, "%s takes a number of seconds above 0, at most 30 days", function);
  *now = pry_worker_now(pry_decision_worker(decision));
  return *now + pry_time_from_seconds(seconds);
}

static int push_marked(lua_State *L, struct pry_decision *decision, const char *function, enum pry_key_marked marked)
{
  static const char *const names[] = {
      [PRY_KEY_MARK_SET] = "set",     [PRY_KEY_MARK_LONGER] = "longer", [PRY_KEY_MARK_ONLY] = "only",
      [PRY_KEY_MARK_STALE] = "stale", [PRY_KEY_MARK_FULL] = "full",
  };
  struct pry_read read = pry_read_begin(decision, function);
  pry_read_number(&read, lua_tonumber(L, 1));
  pry_read_text(&read, pry_slice_of(names[marked]));
  pry_read_end(&read);
  return pry_push_text(L, names[marked]);
}

static int mark_key(lua_State *L, const char *function,
                    enum pry_key_marked (*mark)(struct pry_keys *, const struct pry_provider *, const char *, uint64_t,
                                                pry_time, pry_time))
{
  struct pry_decision *decision = pry_decision_check(L, function);
  const struct pry_attempt *attempt = attempt_of(L, decision, function);
  pry_time now, end = until(L, decision, function, &now);
  const struct pry_provider *provider = decision->ask->call->target.provider;
  enum pry_key_marked marked =
      provider ? mark(pry_decision_engine(decision)->keys, provider, attempt->key, attempt->key_version, end, now)
               : PRY_KEY_MARK_STALE;
  return push_marked(L, decision, function, marked);
}

/* ---@param seconds number
 * ---@return "set"|"longer"|"only"|"stale"|"full"   "set": it was in use until now; "longer": it was retired already; "only":
 *   as "set", but the provider has no other key, so it stays in use; "stale": the attempt had no key, or its value has changed since
 * Nobody uses the key of the attempt that has just ended for so long: it is out of order.
 * function keys.retire(seconds) end */
static int keys_retire(lua_State *L)
{
  return mark_key(L, "keys.retire", pry_keys_retire);
}

/* ---@param seconds number
 * ---@return "set"|"longer"|"only"|"stale"|"full"
 * The same for a key that met its limit: others are used until then, and a call that finds none waits for it.
 * function keys.pause(seconds) end */
static int keys_pause(lua_State *L)
{
  return mark_key(L, "keys.pause", pry_keys_pause);
}

/* ---@return boolean   true once, when the key of this good attempt had been retired and is back
 * function keys.worked() end */
static int keys_worked(lua_State *L)
{
  struct pry_decision *decision = pry_decision_check(L, "keys.worked");
  const struct pry_attempt *attempt = attempt_of(L, decision, "keys.worked");
  const struct pry_provider *provider = decision->ask->call->target.provider;
  bool back = provider && attempt->key[0] &&
              pry_keys_worked(pry_decision_engine(decision)->keys, provider, attempt->key, attempt->key_version,
                              pry_worker_now(pry_decision_worker(decision)));
  struct pry_read read = pry_read_begin(decision, "keys.worked");
  pry_read_boolean(&read, back);
  pry_read_end(&read);
  return pry_push_boolean(L, back);
}

void pry_lib_keys_open(lua_State *L)
{
  static const luaL_Reg keys[] = {
      {"retire", keys_retire}, {"pause", keys_pause}, {"worked", keys_worked}, {NULL, NULL}};
  luaL_newlib(L, keys);
  pry_sandbox_set_global(L, "keys");
}
