/*
 * lib.h: the Lua functions that policies call, one file per table of them.
 *
 * Globals: `retry fallback rotate renew fail respond route hold refuse inject` (verdict_lua.c), `store` (lib_store.c),
 * `http` (lib_http.c), `health` (lib_health.c), `host` (lib_host.c), `keys` (lib_keys.c), `log` (lib_log.c), `json`
 * (lib_json.c), `notify` (lib_notify.c), `now random digest sleep queue` (lib_misc.c). lib_call.c and lib_event.c have
 * none; their views come as arguments of handlers. Each opener runs inside the door while a script is set up.
 *
 * Misuse (wrong type, unknown field, a key that is too long) raises with file and line. Failures of the world are
 * returned: nil and a table { category, message }.
 *
 * Thread: the script's.
 */
#ifndef PRY_LIB_H
#define PRY_LIB_H

#include "ask.h"

#include <lauxlib.h>
#include <lua.h>

/* All of them; before any file is loaded. */
void pry_lib_open(lua_State *L);

void pry_lib_call_open(lua_State *L);
void pry_lib_verdict_open(lua_State *L);
void pry_lib_store_open(lua_State *L);
void pry_lib_http_open(lua_State *L);
void pry_lib_log_open(lua_State *L);
void pry_lib_json_open(lua_State *L);
void pry_lib_misc_open(lua_State *L);
void pry_lib_keys_open(lua_State *L);
void pry_lib_health_open(lua_State *L);
void pry_lib_notify_open(lua_State *L);
void pry_lib_host_open(lua_State *L);

/* Puts the metatable of operations that a handler waits for into the registry under `key`; scripts cannot reach it. */
void pry_lib_keep_metatable(lua_State *L, const void *key, lua_CFunction gc);

/* ---- views (lib_call.c) ---------------------------------------------------------------------------------- */

/* Pushes the decision's view of that kind (one of the pooled kinds). */
void pry_view_push(lua_State *L, struct pry_decision *decision, enum pry_view_kind kind);

/* ---- verdicts (verdict_lua.c) ----------------------------------------------------------------------------- */

/* Is it a constructor of verdicts? They have upvalues, and write none. */
bool pry_verdict_makes(lua_CFunction function);

/* Takes what a handler returned, at `index`, into ask->verdict. False: `complaint` says what is wrong with it, as a
 * sentence without file and line; verdict->line is set when it is known. nil and false are "no verdict". Raises when
 * memory is short. */
bool pry_verdict_take(lua_State *L, int index, const struct pry_decision *decision, char *complaint, size_t size);

/* ---- JSON (lib_json.c) -------------------------------------------------------------------------------------- */

enum {
  PRY_LUA_JSON_MAX = 1024 * 1024,
  PRY_LUA_JSON_SKIM_MAX = 16 * 1024 * 1024, /* with long texts cut, of which at most PRY_LUA_JSON_MAX bytes are left */
  PRY_LUA_JSON_CUT_MIN = 256,
  PRY_LUA_JSON_DEPTH = 32,
  PRY_LUA_BYTE_COST =
      16 /* reading or writing a byte of JSON, in bytes of pry_script_charge_bytes(): a quarter of an instruction */
};

/* The complaint of pry_lua_json_append() when the buffer's limit, or memory, was met. */
#define PRY_LUA_JSON_TOO_LONG "the JSON becomes too long"

/* Pushes the value of a JSON text. A member of an object that is null is left out; null elsewhere is json.null. False:
 * not JSON, too deep, longer than PRY_LUA_JSON_MAX, or more than scripts have memory for; nothing was pushed and `why` is
 * a constant text. Raises when the script's memory is short all the same. */
bool pry_lua_json_push(lua_State *L, struct pry_slice text, const char **why);

/* The same with texts cut: of one that is longer than `cut` raw bytes, about the first `cut` are left and "...[N bytes]"
 * behind them, N being its whole length. So a body of PRY_LUA_JSON_SKIM_MAX bytes that is mostly pictures can be looked at,
 * at a sixteenth of the price for what is cut. cut: at least PRY_LUA_JSON_CUT_MIN; 0: none is. checked: it is
 * known to be JSON; what is not is refused above PRY_LUA_JSON_MAX, because reading it would take longer than a handler has. */
bool pry_lua_json_push_cut(lua_State *L, struct pry_slice text, size_t cut, bool checked, const char **why);

/* Finds members of a body that is known to be JSON, for call:find (lib_find.c). */
int pry_lua_call_find(lua_State *L, struct pry_slice body, const char *complaint);

/* The same as Lua's json.decode: pushes the value, or nil and { category = "invalid_json", message }; returns how many. */
int pry_lua_json_decode(lua_State *L, struct pry_slice text);

/* Appends the value at `index` as JSON, keys in bytewise order. False: `complaint` says what cannot be encoded, or that
 * the buffer's limit was met. Secrets are rendered when `decision` is given and refused when it is NULL; for one that has
 * no value *missing says why. May raise when the script's memory is short: `out` must be known to Lua then. */
bool pry_lua_json_append(lua_State *L, int index, struct pry_buffer *out, const struct pry_decision *decision,
                         const char **missing, char *complaint, size_t size);

bool pry_lua_json_is_null(lua_State *L, int index); /* json.null */
bool pry_lua_json_is_list(lua_State *L, int index); /* a table that is written as a list */

/* ---- JSON of any size, for translations (lib_json_keep.c) -------------------------------------------------- */

enum { PRY_LUA_KEPT_TEXT = 1024 }; /* texts of more raw bytes are kept in C */

/* How a body is read whose long parts stay where they are. */
struct pry_lua_keep {
  const struct pry_text_list *opaque; /* members of objects that are kept whatever they are; may be NULL */
  bool nulls;                         /* members that are null are json.null instead of absent */
};

/* As pry_lua_json_push() without its limit: texts longer than PRY_LUA_KEPT_TEXT, opaque members, and numbers that Lua
 * cannot hold exactly become kept values, userdata that point into `text`, which must stay as it is while the decision
 * runs. After it every use of them raises. Only inside a decision. */
bool pry_lua_json_push_kept(lua_State *L, struct pry_slice text, const struct pry_lua_keep *keep, const char **why);

/* Pushes a kept text (the inside of a raw JSON string) or a kept value (any raw JSON). */
void pry_lua_kept_push_text(lua_State *L, struct pry_slice inside);
void pry_lua_kept_push_value(lua_State *L, struct pry_slice raw);

bool pry_lua_is_kept(lua_State *L, int index);

/* Appends it as JSON, byte for byte what it was in its text. False: no room. */
bool pry_lua_kept_append(lua_State *L, int index, struct pry_buffer *out);

/* Adds `kind`, `quote` and `unquote` to the table of JSON functions on top of the stack. */
void pry_lib_json_keep_open(lua_State *L);

/* ---- renewals (lib_refresh.c) -------------------------------------------------------------------------------- */

/* Finds the functions of the built-in grants, in lib/grants.lua. Raises when a credential needs one that is not there. */
void pry_refresh_open(lua_State *L, const struct pry_config *config);

/* Pushes the function that renews a credential; false: there is none. After pry_refresh_open(). */
bool pry_refresh_function(lua_State *L, const struct pry_credential_config *credential);

/* Pushes the function of the decision's renewal and its argument; returns the number of arguments. */
int pry_refresh_push(lua_State *L, struct pry_decision *decision);

/* Takes what it returned, values 1..count, into the renewal. Raises for nonsense. */
void pry_refresh_take(lua_State *L, int count, struct pry_decision *decision);

/* ---- secrets (lib_refresh.c) ------------------------------------------------------------------------------------ */

/* Is the value at `index` a secret: one of `secret "NAME"`, or the refresh token that a renewal is given? */
bool pry_lua_is_secret(lua_State *L, int index);

/* Its live value, valid while the decision runs. False: it has none; only then `why` is set, to a constant text. */
bool pry_lua_secret_value(lua_State *L, int index, const struct pry_decision *decision, struct pry_slice *value,
                          const char **why);

/* Appends text, a number, a secret, or a list of these, to be put where a machine reads it (a header, a form). `what`
 * names the place in the error that anything else raises. False: a secret has no value; `why` says so. */
bool pry_lua_append_parts(lua_State *L, int index, const struct pry_decision *decision, const char *what,
                          struct pry_buffer *out, const char **why);

/* ---- small things shared by the libraries (lib.c) ------------------------------------------------------------- */

/* A C buffer, pushed on the stack; freed by pry_buffer_fini(), or by the collector or at the end of the decision when an
 * error passes by. limit: bytes. */
struct pry_buffer *pry_lua_buffer(lua_State *L, size_t limit);

/* The text at argument `index`, which must be a string and nothing else (numbers are not taken for text). */
struct pry_slice pry_lua_text(lua_State *L, int index);

/* A key at argument `index` with the instance's name and `separator` in front ("retry:key"). Raises for what is no
 * text, empty, holds a NUL or does not fit into the `size` bytes of `key`, the final NUL included. */
struct pry_slice pry_lua_key(lua_State *L, int index, const struct pry_decision *decision, char separator, char *key,
                             size_t size);

/* Pushes nil and { category, message }; returns 2. */
int pry_lua_failed(lua_State *L, const char *category, const char *message);

/* Replaces the table at argument `index` by what lua_next() and lua_rawget() can read (freeze.h); other values stay. */
void pry_lua_thaw(lua_State *L, int index);

/* Makes argument `index` a readable table of options: every key must be among `names` (NULL-ended), else raises
 * `FUNCTION{} has no field "x"; it takes a, b`. An absent argument becomes an empty table when `optional`. */
void pry_lua_options(lua_State *L, int index, const char *function, const char *const *names, bool optional);

/* Number field of a table that pry_lua_options() has read: `missing` when absent; raises unless min <= value <= max. */
double pry_lua_number_field(lua_State *L, int index, const char *function, const char *name, double missing, double min,
                            double max);

/* Text field, or the empty slice (data NULL) when absent; raises for anything else. Valid as long as the table. */
struct pry_slice pry_lua_text_field(lua_State *L, int index, const char *function, const char *name);

#endif
