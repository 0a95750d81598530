/*
 * declare.h: what policy files declare, checked and turned into C data.
 *
 * Loading a set of files runs each of them once, in a state in which nothing has an effect, and collects what it
 * declares. The result is a struct pry_config for the core, and, inside the state, a table of handler functions
 * found by index. Everything that is wrong becomes a finding: "file:line: what is wrong; what is expected". One
 * mistake does not hide the next: loading goes on and reports all it can.
 *
 * Order: the policies (NAME.lua, by name), the dialects (dialects/NAME.lua), init.lua. Files under lib/ run when they
 * are required; those that nobody requires and the tests (*_test.lua) are compiled only. The same files in the same
 * order give the same indices, so each worker's state fits the one configuration of its generation.
 *
 * ---- policies/NAME.lua -----------------------------------------------------------------------------------
 *
 *   return policy {
 *     name   = "retry",                     -- required; the file's name without ".lua"
 *     doc    = "one line for people",
 *     params = { max_attempts = param { 4, min = 1, max = 16, doc = "…" }, … },
 *     when   = { retryable = true },        -- on_error only: everything else is skipped in C
 *     only_with = { on_done = "to" },       -- handlers that only instances have whose parameter is set (not nil, not
 *                                           -- false): what nobody asked for costs nothing
 *     check  = function(self) … end,        -- at load, once per instance: returns nothing, or a text saying what is
 *                                           -- wrong with these parameters together
 *     on_request = function(self, call) … end,   on_attempt = function(self, call) … end,
 *     on_outcome = function(self, call, attempt) … end,   on_error = function(self, call, err) … end,
 *     on_done = function(self, call, outcome) … end,      on_event = function(self, event) … end,
 *     every  = { { seconds = 60, run = function(self) … end }, … },   -- seconds 0.1..86400, at most 16 jobs
 *   }
 *
 * param { DEFAULT, … } or param { type = "…", required = true, … }:
 *   type      "number" "integer" "string" "boolean" "list" "map" "secret" "any", or a name that must exist: "provider",
 *             "target" ("provider/model", or a model at the same provider), "sink" "service" "credential" "category";
 *             "sinks": a sink's name, a list of them, or { warning = "ops", critical = { "ops", "pager" } }.
 *             Without it, the default's: a whole number without `unit` is an integer (write 1.0 for a number), a table
 *             is "any": texts, numbers, booleans, secrets and tables of them.
 *   of        "list" and "map" only: the type of each element ("list" again: a list of `of_of`); default "any"
 *   of_of     with of = "list": the type of the inner elements
 *   min, max  bounds of a number, of a text's or list's length
 *   values    list of the texts or numbers that are allowed
 *   unit      "s" and so on, for people
 *   doc       one line for people
 *   required  true: `use` must give it (then there is no default)
 *   optional  true: may be absent, then self.NAME is nil (then there is no default)
 * `name` and `as` cannot be parameters. `self` holds the parameters and `name`; it is read-only.
 *
 * when = { retryable =, fallback =, refresh_token =, sent = (true or false), source = "provider" or "parry",
 *          category = "…" or { "…", … }, origin = "…" or { "…", … } }
 *
 * ---- policies/init.lua -----------------------------------------------------------------------------------
 *
 *   provider "p"   { base_url =, dialect =, auth =, models = { "…" },
 *                    timeouts = { connect =, first_byte =, idle =, attempt = } }
 *   provider "h"   { host = true, dialect =, models =, timeouts = { attempt = } }   -- a host makes its attempts (parry.h)
 *   credential "c" { refresh_token = secret "…", access_token = secret "…", token_url =, grant = "oauth" or "kimi",
 *                    refresh = function(cred) … end }                  -- refresh replaces grant
 *   service "s"    { base_url =, auth = }
 *   sink "ops"     { webhook = secret "…" }
 *   route "PATTERN" { to = "p" or "p/model" or by_model { ["GLOB"] = "p" or "p/model" }, chain = { use "…", … },
 *                    deadline = 120, timeouts = {…}, client_dialect =, max_stream =, repeatable =,
 *                    session = { header = "…" } or { field = "…" }, max_attempts_per_call = 12, max_targets = 3,
 *                    early_head = true or seconds, slow_stream = { events = per second, seconds =, cut = false } }
 *   use "policy" { PARAMETERS, as = "instance" }       -- one use is one instance, in one or several chains
 *   auth: bearer(X), header("x-api-key", X) with X = secret "NAME" or credential "c"; passthrough(); absent: none
 *   clients { file = "clients.json" }                  -- every call needs a key of that file; not with passthrough()
 *
 * ---- policies/dialects/NAME.lua --------------------------------------------------------------------------
 *
 *   return dialect {
 *     name = "openai",                       -- optional; must be the file's
 *     doc  = "…",
 *     speaks = "openai",                     -- optional: the client dialect whose requests and answers it carries
 *     error_in_200 = { "error", errcode = { 0 } },  -- a 2xx object with one of these fields is an error; a name with
 *                                            -- a list: unless its value is in the list. null, {} and [] never are. A
 *                                            -- name with dots is a path: ["promptFeedback.blockReason"] = {}
 *     usage = {                              -- what an answer, or an event of a stream, says about tokens (usage.h)
 *       at     = { "usage" },                -- paths of the object; the first that is one counts
 *       input  = { "prompt_tokens", "input_tokens + cache_read_input_tokens" },   -- inside of it: the first sum with a
 *                                            -- term that is there. Input includes what was read from a cache
 *       output = { … }, cached = { … }, total = { … },   -- total: input, where neither of the others is said
 *     },
 *     stream = {                             -- struct pry_dialect says in which order these are tried
 *       type_field      = "type",            -- where an event's type stands in its data when there is no event: line
 *       end_data        = { "[DONE]" },      -- whole data that ends the stream well
 *       error_types     = { "error" },
 *       error_in_data   = { "error" },       -- as error_in_200, for the data of one event
 *       end_types       = { "message_stop" },
 *       lifecycle_types = { "ping" },
 *       content_types   = { "content_block_delta" },
 *       content_paths   = { "choices.*.delta.content" },   -- paths of json.h; at most 8
 *       finish_paths    = { "choices.*.finish_reason" },
 *       default         = "content",         -- or "lifecycle": what an event is that fits no rule
 *       json            = true,              -- all data but end_data is JSON; other data is a malformed stream
 *       open_end        = true,              -- a stream may end well without any of these, with its connection
 *       bare_errors     = true,              -- its clients throw for error_in_data, whatever the event's type
 *     },
 *     classify = function(answer) … end,     -- → nil, or { category =, code =, message =, retryable =, fallback =,
 *                                            -- refresh_token =, retry_after = seconds }
 *     render   = function(err, form, api) … end,  -- form "body" or "event" → a text, or a table that is encoded as
 *                                            -- JSON; api "responses": an event for a client of that API, else nil
 *                                            -- refresh_token = }
 *     render   = function(err, form) … end,  -- form "body" or "event" → a text, or a table that is encoded as JSON
 *     translate = {                          -- calls of clients of another dialect, by that dialect's name
 *       openai = {
 *         opaque  = { "parameters" },        -- members of JSON objects that are passed on unread, byte for byte
 *         request = function(body, ask) … end,   -- ask = { path =, model =, time =, call_id = } → { body =, path =
 *                                            -- "/v1/messages", headers = { name = text, or false: removed },
 *                                            -- remember = { … } }; or nil and a list of what cannot be translated
 *         answer  = function(body, memory) … end,             -- → the client's body, or nil and a list
 *         event   = function(memory, emit, data, type) … end, -- data: decoded, or a text that is no JSON;
 *         finish  = function(memory, emit) … end,             -- emit(data) and emit(type, data) write client events. They may
 *                                            -- return what cannot be translated: a text, or a list
 *       },
 *     },
 *     strip = {                              -- takes out what only one provider understands
 *       words  = { "signature" },            -- one of these stands quoted in every body that is to be seen
 *       opaque = { "input_schema" },         -- as above
 *       run    = function(body) … end,       -- → the body without; nil: there is nothing; nil and a list: these cannot
 *                                            -- be taken out. A member that is null is json.null here
 *     },
 *   }
 *
 * `memory` is what `remember` was, a table of plain data, and what the functions change in it: at most 16 KiB as JSON
 * (so keys are texts, or it is a list). It is kept for the attempt in C, and goes on with a newer generation.
 *
 * Thread: a script's own.
 */
#ifndef PRY_DECLARE_H
#define PRY_DECLARE_H

#include "registry.h"
#include "script.h"

struct pry_declare_options {
  bool warm;                          /* a worker's copy of a checked set: no secrets are read, no warnings given */
  const struct parry_header *secrets; /* a host's, found first */
  size_t secret_count;
  bool invented_secrets; /* policy tests: secret "X" is "test-X", a sink's https://sinks.test/X */
};

/* Runs the whole set in a fresh script whose libraries are open, and gives its configuration; the caller frees it.
 * NULL: the report has at least one error more. Warnings may come with success. `policies` (may be NULL) gets the
 * number of policy files. After success everything that handlers can reach is frozen. */
struct pry_config *pry_declare_set(struct pry_script *script, const struct pry_policy_set *set,
                                   const struct pry_declare_options *options, struct pry_report *report,
                                   unsigned *policies);

/* ---- Finding functions at run time -------------------------------------------------------------------------
 * Inside the door, on any thread of the script. Each pushes what its name says, or nothing and returns false when
 * the declaration has no such function. Needs room for 5 values on the stack. */

/* The handler's function, then `self`. `job` is the position in `every` for PRY_EVERY, else 0. */
bool pry_declare_push_handler(lua_State *L, const struct pry_instance *instance, enum pry_handler handler, size_t job);
bool pry_declare_push_classify(lua_State *L, const struct pry_dialect *dialect);
bool pry_declare_push_render(lua_State *L, const struct pry_dialect *dialect);
bool pry_declare_push_translate(lua_State *L, const struct pry_dialect *dialect); /* a table by client */
bool pry_declare_push_strip(lua_State *L, const struct pry_dialect *dialect);
bool pry_declare_push_refresh(lua_State *L, const struct pry_credential_config *credential);

/* ---- Secrets as Lua values -------------------------------------------------------------------------------
 * `secret "NAME"` is an opaque value that prints as ***. It holds the name; whoever renders it looks the value up in
 * the generation's configuration. Every name is in the configuration: secrets are made at load only. */

/* Pushes the function `secret`. */
void pry_declare_push_secret(lua_State *L);

/* The secret's name, valid while the value lives; NULL when the value at `index` is no secret. */
const char *pry_declare_secret_name(lua_State *L, int index);

/* The secret of that name, or NULL. */
const struct pry_secret *pry_declare_secret(const struct pry_config *config, const char *name);

#endif
