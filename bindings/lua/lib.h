/*
 * lib.h: the Lua functions that policies call, one file per table of them.
 *
 * Each opener runs inside the door while a script is set up, and puts its names into the table at index `globals`
 * (absolute), which the sandbox then shows to every file. Names: `retry fallback renew fail respond route hold refuse
 * inject` (verdict_lua.c), `store` (lib_store.c), `http` (lib_http.c), `log` (lib_log.c), `json` (lib_json.c), `now random
 * notify queue` (lib_misc.c). lib_call.c has no names; its views come as arguments of handlers.
 *
 * Misuse (wrong type, unknown field, a key that is too long) raises with file and line. Failures of the world are returned:
 * nil and a table { category, message }.
 *
 * Thread: the script's.
 */
#ifndef PRY_LIB_H
#define PRY_LIB_H

#include "ask.h"
#include "json.h"

#include <lauxlib.h>
#include <lua.h>

/* Everything of this list, in one go. */
void pry_lib_open(lua_State *L, int globals);

void pry_lib_open_call(lua_State *L);
void pry_lib_open_verdict(lua_State *L, int globals);
void pry_lib_open_store(lua_State *L, int globals);
void pry_lib_open_http(lua_State *L, int globals);
void pry_lib_open_log(lua_State *L, int globals);
void pry_lib_open_json(lua_State *L, int globals);
void pry_lib_open_misc(lua_State *L, int globals);

/* ---- views (lib_call.c) ---------------------------------------------------------------------------------- */

/* Pushes the run's view of that kind (one of the pooled kinds). */
void pry_view_push(lua_State *L, struct pry_decision *run, enum pry_view_kind kind);

/* Forgets the run's views; the next run in this slot gets new ones. Cannot raise. */
void pry_view_discard(lua_State *L, struct pry_decision *run);

/* ---- verdicts (verdict_lua.c) ----------------------------------------------------------------------------- */

/* Takes what a handler returned, at `index`, into ask->verdict. False: `complaint` says what is wrong with it, as a
 * sentence without file and line. nil and false are "no verdict". Raises when memory is short. */
bool pry_verdict_take(lua_State *L, int index, const struct pry_decision *run, char *complaint, size_t size);

/* ---- JSON (lib_json.c) -------------------------------------------------------------------------------------- */

enum { PRY_LUA_JSON_MAX = 1024 * 1024, PRY_LUA_JSON_DEPTH = 32 };

/* Pushes the value of a JSON text: null as json.null, objects and arrays as tables. False: it is not JSON, too
 * deep or longer than PRY_LUA_JSON_MAX; nothing was pushed and `why` is a constant text. Raises when the script's memory is short. */
bool pry_lua_json_push(lua_State *L, struct pry_slice text, const char **why);

/* How secrets in a value are treated. */
enum pry_secret_use { PRY_SECRETS_REFUSED, PRY_SECRETS_RENDERED };

/* Appends the value at `index` as JSON, keys in bytewise order. False: `complaint` says what cannot be encoded, or that
 * the buffer's limit was met. Never raises for the value's sake, but may when the script's stack is exhausted. */
bool pry_lua_json_append(lua_State *L, int index, struct pry_buffer *out, enum pry_secret_use secrets,
                         const struct pry_config *config, char *complaint, size_t size);

/* ---- small things shared by the libraries (lib.c) ------------------------------------------------------------- */

/* A C buffer that the collector frees when an error passes by; pushed on the stack. limit: bytes. */
struct pry_buffer *pry_lua_buffer(lua_State *L, size_t limit);
/* Frees it early; the userdata stays on the stack. */
void pry_lua_buffer_free(struct pry_buffer *buffer);

/* The text at `index`, which must be a string and nothing else (numbers are not taken for text). */
struct pry_slice pry_lua_text(lua_State *L, int index);

/* A key at argument `index` with the instance's name and `separator` in front ("retry:key"). Raises for what is no
 * text, empty, holds a NUL or does not fit. `key` has room for `size` bytes. */
struct pry_slice pry_lua_key(lua_State *L, int index, const struct pry_decision *run, char separator, char *key, size_t size);

/* Pushes nil and { category, message }; returns 2. */
int pry_lua_failed(lua_State *L, const char *category, const char *message);

/* Pushes a copy of `text` in which live secrets are `***`. */
void pry_lua_push_scrubbed(lua_State *L, const struct pry_decision *run, struct pry_slice text);

/* Reads a table of options at argument `index`: every key must be among `names` (NULL-ended), else raises
 * `FUNCTION{} has no field "x"; it takes a, b`. An absent argument counts as empty when `optional`; then false. */
bool pry_lua_options(lua_State *L, int index, const char *function, const char *const *names, bool optional);

/* Number field of an options table: `missing` when absent; raises unless min <= value <= max. */
double pry_lua_number_field(lua_State *L, int index, const char *function, const char *name, double missing, double min,
                            double max);

#endif
