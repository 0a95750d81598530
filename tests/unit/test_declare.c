/* What policy files may declare, and what findings say about mistakes: file text in, exact text out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "declare.h"
#include "declare_text.h"
#include "loader.h"
#include "nearest.h"

#include <stdlib.h>

#define PROVIDER "provider \"p\" { base_url = \"https://p.test/v1\", dialect = \"generic\" }\n"
#define ROUTE "route \"/v1/*\" { to = \"p\" }\n"

/* A policy with a parameter of each kind. */
#define RETRY                                                                                                          \
  "return policy { name = \"retry\", params = {\n"                                                                     \
  "  max_attempts = param { 4, min = 1, max = 16 },\n"                                                                 \
  "  base = param { 0.5, unit = \"s\", min = 0 },\n"                                                                   \
  "  to = param { type = \"sink\", optional = true },\n"                                                               \
  "  models = param { {}, type = \"map\", of = \"list\", of_of = \"target\" },\n"                                      \
  "  jitter = param { \"full\", values = { \"full\", \"none\" } },\n"                                                  \
  "  categories = param { {}, type = \"list\", of = \"category\", max = 2 },\n"                                        \
  "  key = param { type = \"secret\", optional = true },\n"                                                            \
  "  flag = param { false },\n"                                                                                        \
  "  any = param { {} },\n"                                                                                            \
  "  status = param { 500, values = { 500, 503 } },\n"                                                                 \
  "}, on_error = function() end }\n"

struct file {
  const char *path, *text;
};

struct example {
  const char *name;
  struct file files[4];
  const char *findings; /* all of them, as pry_report_text() gives them */
};

/* The finding text of a set; freed by the caller. */
static char *findings_of(const struct file *files, size_t count)
{
  static const struct pry_script_limits limits = {.wall = -1};
  struct pry_policy_set *set = pry_policy_set_new();
  assert_non_null(set);
  for (size_t i = 0; i < count && files[i].path; i++)
    assert_true(pry_policy_set_add(set, files[i].path, pry_slice_of(files[i].text)));
  assert_true(pry_policy_set_seal(set));
  struct pry_report report;
  pry_report_init(&report);
  struct pry_generation *generation = pry_lua_test_loader.load(set, &limits, &report);
  assert_true((generation == NULL) == (report.errors > 0));
  if (generation)
    pry_generation_unref(generation);
  else
    pry_policy_set_free(set);
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  assert_true(pry_report_text(&report, &text));
  pry_report_fini(&report);
  char *copy = strdup(pry_buffer_text(&text));
  pry_buffer_fini(&text);
  return copy;
}

static void check_examples(const struct example *examples, size_t count)
{
  unsigned wrong = 0;
  for (size_t i = 0; i < count; i++) {
    char *findings = findings_of(examples[i].files, 4);
    if (strcmp(findings, examples[i].findings) != 0) {
      print_error("%s:\n--- expected\n%s--- got\n%s\n", examples[i].name, examples[i].findings, findings);
      wrong++;
    }
    free(findings);
  }
  assert_int_equal(wrong, 0);
}

#define CHECK(examples) check_examples(examples, sizeof examples / sizeof *examples)

/* ---- policies ------------------------------------------------------------------------------------------ */

#define WITH_POLICY(text)                                                                                              \
  {                                                                                                                    \
    {"init.lua", PROVIDER ROUTE},                                                                                      \
    {                                                                                                                  \
      "retry.lua", text                                                                                                \
    }                                                                                                                  \
  }

static void test_policies(void **state)
{
  (void)state;
  static const struct example examples[] = {
      {"all is well", WITH_POLICY(RETRY), ""},
      {"syntax", WITH_POLICY("return policy {\n  name = \"retry\",\n  on_error = = 1\n}\n"),
       "retry.lua:3: unexpected symbol near '='\n"},
      {"an error while loading", WITH_POLICY("local x\nlocal y = x.z\n"),
       "retry.lua:2: attempt to index a nil value (local 'x')\n"},
      {"no policy", WITH_POLICY("local x = 1\n"),
       "retry.lua: must end with return policy { ... }, but returns nothing\n"},
      {"something else", WITH_POLICY("return { name = \"retry\" }\n"),
       "retry.lua: must end with return policy { ... }, but returns a table\n"},
      {"a function without effects only", WITH_POLICY("store.set(\"a\", 1)\n"),
       "retry.lua:1: store.set is not available while loading\n"},
      {"an unknown global", WITH_POLICY("whatever()\n"),
       "retry.lua:1: attempt to call a nil value (global 'whatever')\n"},
      {"a name that is not the file's",
       WITH_POLICY("return policy {\n  name = \"rety\",\n  on_done = function() end }\n"),
       "retry.lua:2: retry: name is \"rety\", but the file is retry.lua; use \"retry\" would not find it\n"},
      {"no name", WITH_POLICY("return policy { on_done = function() end }\n"),
       "retry.lua:1: retry: needs name = \"...\"\n"},
      {"not a table", WITH_POLICY("return policy(7)\n"), "retry.lua:1: retry: needs a table { ... }, got 7\n"},
      {"no handler", WITH_POLICY("return policy { name = \"retry\" }\n"),
       "retry.lua:1: retry: has no handler; give it at least one of on_request, on_attempt, on_outcome, on_error, "
       "on_done, on_event, on_failure, every\n"},
      {"a field that is nearly one",
       WITH_POLICY("return policy {\n name = \"retry\",\n on_eror = 1,\n on_done = function() end\n}"),
       "retry.lua:3: retry: no field \"on_eror\"; did you mean \"on_error\"?\n"},
      {"a handler that is no function", WITH_POLICY("return policy { name = \"retry\",\n\n on_error = \"no\" }\n"),
       "retry.lua:3: retry: on_error must be a function, got \"no\"\n"},
      {"list elements", WITH_POLICY("return policy { 5, name = \"retry\", on_done = function() end }\n"),
       "retry.lua:1: retry: takes only named fields (name = value), got a list element\n"},
  };
  CHECK(examples);
}

static void test_when(void **state)
{
  (void)state;
#define WHEN(text) WITH_POLICY("return policy { name = \"retry\",\n when = " text ",\n on_error = function() end }\n")
  static const struct example examples[] = {
      {"everything",
       WHEN("{ retryable = true, fallback = false, refresh_token = true, sent = true, source = \"parry\","
            " category = { \"server\", \"timeout\" }, origin = \"billing\" }"),
       ""},
      {"unknown field", WHEN("{ status = 5 }"),
       "retry.lua:2: retry: no field \"when.status\"; it takes retryable, fallback, refresh_token, sent, source, "
       "category, origin, last\n"},
      {"no boolean", WHEN("{ retryable = 1 }"), "retry.lua:2: retry: when.retryable must be true or false, got 1\n"},
      {"category", WHEN("{ category = \"rate_limt\" }"),
       "retry.lua:2: retry: when.category cannot be \"rate_limt\"; did you mean \"rate_limit\"?\n"},
      {"origin", WHEN("{ origin = { \"clint\" } }"),
       "retry.lua:2: retry: when.origin cannot be \"clint\"; did you mean \"client\"?\n"},
      {"source", WHEN("{ source = \"me\" }"),
       "retry.lua:2: retry: when.source must be \"provider\" or \"parry\", got \"me\"\n"},
      {"without on_error", WITH_POLICY("return policy { name = \"retry\",\n when = {}, on_done = function() end }\n"),
       "retry.lua:2: retry: when chooses what on_error sees, and there is no on_error\n"},
  };
  CHECK(examples);
}

static void test_only_with(void **state)
{
  (void)state;
#define ONLY_WITH(text)                                                                                                \
  WITH_POLICY("return policy { name = \"retry\",\n only_with = " text                                                  \
              ",\n params = { to = param { type = \"string\", optional = true } },\n on_done = function() end }\n")
  static const struct example examples[] = {
      {"fine", ONLY_WITH("{ on_done = \"to\" }"), ""},
      {"no parameter", ONLY_WITH("{ on_done = \"too\" }"),
       "retry.lua:2: retry: only_with.on_done names \"too\", which is no parameter of this policy\n"},
      {"no such handler here", ONLY_WITH("{ on_error = \"to\" }"),
       "retry.lua:2: retry: only_with.on_error is no handler of this policy\n"},
      {"no handler at all", ONLY_WITH("{ every = \"to\" }"),
       "retry.lua:2: retry: only_with.every is no handler of this policy\n"},
      {"no text", ONLY_WITH("{ on_done = 1 }"), "retry.lua:2: retry: only_with.on_done must be a text, got 1\n"},
  };
  CHECK(examples);
}

static void test_params(void **state)
{
  (void)state;
#define PARAM(text)                                                                                                    \
  WITH_POLICY("return policy { name = \"retry\", on_done = function() end,\n params = {\n" text "\n} }\n")
  static const struct example examples[] = {
      {"no param", PARAM("a = 1"), "retry.lua:3: retry: params.a must be param { DEFAULT, ... }, got 1\n"},
      {"a reserved name", PARAM("as = param { 1 }"),
       "retry.lua:3: retry: params.as is a name that every instance has already; choose another\n"},
      {"no default", PARAM("a = param { type = \"number\" }"),
       "retry.lua:3: retry: params.a: needs a default, its first element, or required = true or optional = true\n"},
      {"no type", PARAM("a = param { required = true }"),
       "retry.lua:3: retry: params.a: has no default, so it needs type = \"...\"\n"},
      {"both", PARAM("a = param { 1, required = true }"),
       "retry.lua:3: retry: params.a: has a default, so it is neither required nor optional; leave one out\n"},
      {"an unknown type", PARAM("a = param { \"x\", type = \"nmber\" }"),
       "retry.lua:3: retry: params.a: type cannot be \"nmber\"; did you mean \"number\"?\n"},
      {"an unknown field", PARAM("a = param { 1, mni = 2 }"),
       "retry.lua:3: retry: params.a: no field \"mni\"; did you mean \"min\"?\n"},
      {"a default outside", PARAM("a = param { 5, min = 7 }"),
       "retry.lua:3: retry: params.a must be at least 7, got 5\n"},
      {"bounds of a boolean", PARAM("a = param { true, max = 1 }"),
       "retry.lua:3: retry: params.a: max fits numbers, texts and lists only, not \"boolean\"\n"},
      {"two defaults", PARAM("a = param { 1, 2 }"),
       "retry.lua:3: retry: params.a: param takes one default, its first element\n"},
      {"mixed values", PARAM("a = param { 1, values = { 1, \"x\" } }"),
       "retry.lua:3: retry: params.a: values must be all texts or all numbers; element 2 is not a number\n"},
  };
  CHECK(examples);
}

static void test_jobs(void **state)
{
  (void)state;
#define EVERY(text) WITH_POLICY("return policy { name = \"retry\",\n every = " text " }\n")
  static const struct example examples[] = {
      {"one", EVERY("{ { seconds = 60, run = function(self) end } }"), ""},
      {"too often", EVERY("{ { seconds = 0, run = function() end } }"),
       "retry.lua:1: retry: every[1]: seconds must be a number 0.1..86400 s, got 0\n"},
      {"no period", EVERY("{ { run = function() end } }"),
       "retry.lua:1: retry: every[1]: needs seconds = 0.1..86400\n"},
      {"nothing to run", EVERY("{ { seconds = 1 } }"),
       "retry.lua:1: retry: every[1]: needs run = function(self) ... end\n"},
      {"no list", EVERY("{ seconds = 1, run = function() end }"),
       "retry.lua:2: retry: every must be a list { { seconds = 60, run = function(self) ... end }, ... }\n"},
  };
  CHECK(examples);
}

/* ---- use ----------------------------------------------------------------------------------------------- */

#define WITH_USE(text)                                                                                                 \
  {                                                                                                                    \
    {"init.lua", PROVIDER "sink \"ops\" { webhook = secret \"OPS_HOOK\" }\n"                                           \
                          "route \"/v1/*\" { to = \"p\", chain = {\n" text "\n} }\n"},                                 \
        {"retry.lua", RETRY},                                                                                          \
    {                                                                                                                  \
      "other.lua", "return policy { name = \"other\", params = { need = param { type = \"string\", required = true, "  \
                   "min = 2 } },\n"                                                                                    \
                   " check = function(self) if self.need == \"bad\" then return \"need is bad\" end end, on_done = "   \
                   "function() end }"                                                                                  \
    }                                                                                                                  \
  }

static void test_use(void **state)
{
  (void)state;
  static const struct example examples[] = {
      {"all parameters",
       WITH_USE("use \"retry\" { max_attempts = 2, base = 1, to = \"ops\", models = { m = { \"p/x\", \"y\" } },"
                " jitter = \"none\", categories = { \"server\" }, key = secret \"KEY_NAME\", flag = true,"
                " any = { 1, { a = true } }, status = 503 }"),
       ""},
      {"defaults", WITH_USE("use \"retry\""), ""},
      {"defaults, called", WITH_USE("use \"retry\" {}"), ""},
      {"the bounds", WITH_USE("use \"retry\" {\n  max_attempts = 40 }"),
       "init.lua:5: retry: max_attempts must be 1..16, got 40\n"},
      {"a fraction", WITH_USE("use \"retry\" { max_attempts = 2.5 }"),
       "init.lua:4: retry: max_attempts must be a whole number 1..16, got 2.5\n"},
      {"no number", WITH_USE("use \"retry\" { base = \"1s\" }"),
       "init.lua:4: retry: base must be a number at least 0 s, got \"1s\"\n"},
      {"infinite", WITH_USE("use \"retry\" { base = 1/0 }"),
       "init.lua:4: retry: base must be a number at least 0 s, got inf\n"},
      {"not a number", WITH_USE("use \"retry\" { base = 0/0 }"),
       "init.lua:4: retry: base must be a number at least 0 s, got nan\n"},
      {"a name that is nearly one", WITH_USE("use \"retry\" {\n\n max_atempts = 3 }"),
       "init.lua:6: retry: no parameter \"max_atempts\"; did you mean \"max_attempts\"?\n"},
      {"a value that is nearly one", WITH_USE("use \"retry\" { jitter = \"ful\" }"),
       "init.lua:4: retry: jitter cannot be \"ful\"; did you mean \"full\"?\n"},
      {"a number that is not allowed", WITH_USE("use \"retry\" { status = 429 }"),
       "init.lua:4: retry: status cannot be 429\n"},
      {"a sink", WITH_USE("use \"retry\" { to = \"opps\" }"),
       "init.lua:4: retry: to: there is no sink \"opps\"; did you mean \"ops\"?\n"},
      {"a target", WITH_USE("use \"retry\" { models = { [\"kimi.k2\"] = { \"p/ok\", \"qq/x\", \"p/\" } } }"),
       "init.lua:4: retry: models[\"kimi.k2\"][2]: there is no provider \"qq\"; declared are p\n"
       "init.lua:4: retry: models[\"kimi.k2\"][3]: \"p/\" names no model after the \"/\"\n"},
      {"a list inside a map", WITH_USE("use \"retry\" { models = { m = \"p/x\" } }"),
       "init.lua:4: retry: models[\"m\"] must be a list { a, b, ... }, got \"p/x\"\n"},
      {"a category", WITH_USE("use \"retry\" { categories = { \"server\", \"rat_limit\" } }"),
       "init.lua:4: retry: categories[2] names no category: \"rat_limit\"; did you mean \"rate_limit\"?\n"},
      {"too many elements", WITH_USE("use \"retry\" { categories = { \"server\", \"timeout\", \"network\" } }"),
       "init.lua:4: retry: categories must have at most 2 elements, got 3\n"},
      {"a secret's text is not repeated", WITH_USE("use \"retry\" { key = \"sk-123456\" }"),
       "init.lua:4: retry: key must be secret \"NAME\", got a text\n"},
      {"a function as data", WITH_USE("use \"retry\" { any = { f = function() end } }"),
       "init.lua:4: retry: any[\"f\"] must be plain data, got a function\n"},
      {"required", WITH_USE("use \"other\""), "init.lua:4: other: needs the parameter need\n"},
      {"length", WITH_USE("use \"other\" { need = \"x\" }"),
       "init.lua:4: other: need must have at least 2 bytes, got 1\n"},
      {"the policy's own check", WITH_USE("use \"other\" { need = \"bad\" }"), "init.lua:4: other: need is bad\n"},
      {"an unknown policy", WITH_USE("use \"rety\" { x = 1 }"),
       "init.lua:4: use \"rety\": there is no policy file rety.lua; did you mean \"retry\"?\n"},
      {"twice", WITH_USE("use \"retry\", use \"retry\" { base = 1 }"),
       "init.lua:3: route \"/v1/*\": chain has two instances named \"retry\"; give one of them another name: use "
       "\"retry\" { as = \"...\" }\n"},
      {"twice with names", WITH_USE("use \"retry\", use \"retry\" { as = \"slow\", base = 1 }"), ""},
      {"called twice", WITH_USE("use \"retry\" { base = 1 } { base = 2 }"),
       "init.lua:4: use \"retry\": has its parameters already; call it once\n"},
      {"a bad instance name", WITH_USE("use \"retry\" { as = \"a/b\" }"),
       "init.lua:4: retry: as contains \"/\", which separates provider and model\n"},
      {"another policy's name", WITH_USE("use \"retry\", use \"other\" { as = \"retry\", need = \"xx\" }"),
       "init.lua:3: route \"/v1/*\": chain has two instances named \"retry\"; give one of them another name: use "
       "\"other\" { as = \"...\" }\n"
       "init.lua:4: other: its instance \"retry\" has the name of an instance of \"retry\" (init.lua:4); choose "
       "another "
       "as = \"...\"\n"},
      {"not a use", WITH_USE("5"),
       "init.lua:3: route \"/v1/*\": chain must be a list of use \"policy\" { ... }; element 1 is 5\n"},
      {"in no chain",
       {{"init.lua", PROVIDER ROUTE "local x = use \"retry\" {}\n"}, {"retry.lua", RETRY}},
       "init.lua:3: warning: use \"retry\": is in no route's chain and will never run\n"},
      {"one finding for a policy that does not load",
       {{"init.lua", PROVIDER "route \"/v1/*\" { to = \"p\", chain = { use \"retry\" { x = 1 } } }\n"},
        {"retry.lua", "return 5\n"}},
       "retry.lua: must end with return policy { ... }, but returns 5\n"},
  };
  CHECK(examples);
}

/* ---- init.lua ------------------------------------------------------------------------------------------ */

#define WITH_INIT(text)                                                                                                \
  {                                                                                                                    \
    {                                                                                                                  \
      "init.lua", PROVIDER ROUTE text                                                                                  \
    }                                                                                                                  \
  }

static void test_providers(void **state)
{
  (void)state;
  static const struct example examples[] = {
      {"all fields",
       WITH_INIT("provider \"q\" { base_url = \"http://[::1]:8080/v1/\", dialect = \"generic\","
                 " auth = header(\"x-api-key\", secret \"SOME_KEY\"), timeouts = { connect = 1, first_byte = 2,"
                 " idle = 3, attempt = 4 }, models = { \"a\", \"b\" } }\n"
                 "provider \"r\" { base_url = \"https://r\", dialect = \"generic\", auth = passthrough() }\n"),
       ""},
      {"a host's",
       WITH_INIT("provider \"h\" { host = true }\n"
                 "provider \"i\" { host = true, dialect = \"generic\", models = { \"a\" }, timeouts = { attempt = "
                 "5 } }\nprovider \"j\" { host = false, base_url = \"https://x\", dialect = \"generic\" }\n"),
       ""},
      {"a host's with an address",
       WITH_INIT("provider \"h\" { host = true, base_url = \"https://x\", auth = passthrough() }\n"),
       "init.lua:3: provider \"h\": base_url and host = true exclude each other; the host program makes the attempts, "
       "where "
       "and with what it likes\n"
       "init.lua:3: provider \"h\": auth and host = true exclude each other; the host program makes the attempts, "
       "where "
       "and with what it likes\n"},
      {"a host's connections", WITH_INIT("provider \"h\" { host = true, timeouts = { connect = 1, attempt = 2 } }\n"),
       "init.lua:3: provider \"h\": timeouts of a provider with host = true can only have attempt; the others are for "
       "connections of parry's own\n"},
      {"neither", WITH_INIT("provider \"h\" { host = 1 }\n"),
       "init.lua:3: provider \"h\": host must be true or false, got 1\n"
       "init.lua:3: provider \"h\": needs base_url = \"...\"\n"
       "init.lua:3: provider \"h\": needs dialect = \"...\"\n"},
      {"a slash in the name", WITH_INIT("provider \"a/b\" { base_url = \"https://x\", dialect = \"generic\" }\n"),
       "init.lua:3: provider \"a/b\": the name contains \"/\", which separates provider and model\n"},
      {"no name", WITH_INIT("provider { base_url = \"https://x\" }\n"),
       "init.lua:3: provider needs a name: provider \"name\" { ... }\n"},
      {"no table", WITH_INIT("provider \"x\"\n"),
       "init.lua:3: provider \"x\": needs its table: provider \"x\" { ... }\n"},
      {"empty", WITH_INIT("provider \"x\" {}\n"),
       "init.lua:3: provider \"x\": needs base_url = \"...\"\n"
       "init.lua:3: provider \"x\": needs dialect = \"...\"\n"},
      {"twice", WITH_INIT(PROVIDER), "init.lua:3: provider \"p\": is declared twice, first at init.lua:1\n"},
      {"scheme", WITH_INIT("provider \"x\" {\n base_url = \"ftp://x\", dialect = \"generic\" }\n"),
       "init.lua:4: provider \"x\": base_url must begin with \"https://\" or \"http://\"\n"},
      {"a password is not repeated",
       WITH_INIT("provider \"x\" { base_url = \"https://u:pw@x\", dialect = \"generic\" }\n"),
       "init.lua:3: provider \"x\": base_url holds a user name or password; use auth = bearer(secret \"NAME\") "
       "instead\n"},
      {"dialect",
       {{"init.lua", "provider \"p\" { base_url = \"https://x\",\n dialect = \"opnai\" }\n" ROUTE},
        {"dialects/openai.lua", "return dialect {}\n"}},
       "init.lua:1: provider \"p\": there is no dialect \"opnai\" (no file dialects/opnai.lua); did you mean "
       "\"openai\"?\n"},
      {"a key in the file",
       WITH_INIT("provider \"x\" { base_url = \"https://x\", dialect = \"generic\", auth = \"sk-1\" }\n"),
       "init.lua:3: provider \"x\": auth must be bearer(X), header(\"name\", X) or passthrough() with X a secret "
       "\"NAME\" or "
       "credential \"name\", got a text\n"},
      {"a key in bearer",
       WITH_INIT("provider \"x\" { base_url = \"https://x\", dialect = \"generic\",\n auth = bearer(\"sk-1\") }\n"),
       "init.lua:4: bearer takes secret \"NAME\" or credential \"name\", got a text; a key does not belong into a file "
       "that people copy and commit\n"},
      {"an unknown credential",
       WITH_INIT(
           "credential \"kimi\" { refresh = function() end }\n"
           "provider \"x\" { base_url = \"https://x\", dialect = \"generic\", auth = bearer(credential \"kimmi\") }\n"),
       "init.lua:4: provider \"x\": auth: there is no credential \"kimmi\"; did you mean \"kimi\"?\n"},
      {"timeouts",
       WITH_INIT("provider \"x\" { base_url = \"https://x\", dialect = \"generic\", timeouts = {\n connect = 0,\n idel "
                 "= 4 } }\n"),
       "init.lua:4: provider \"x\": timeouts.connect must be a number 0.001..3600 s, got 0\n"
       "init.lua:5: provider \"x\": no field \"timeouts.idel\"; did you mean \"idle\"?\n"},
      {"keys", WITH_INIT("provider \"x\" { base_url = \"https://x\", dialect = \"generic\", keys = {} }\n"),
       "init.lua:3: provider \"x\": keys needs auth = bearer(secret \"NAME\") or header(\"name\", secret \"NAME\"): "
       "that "
       "is the first key, and says how keys are sent\n"},
      {"keys and prices",
       WITH_INIT("provider \"q\" { base_url = \"https://q\", dialect = \"generic\", auth = bearer(secret \"A_KEY\"),"
                 " keys = { secret \"B_KEY\", secret \"A_KEY\" }, rotate = \"round_robin\","
                 " models = { \"a\", [\"b-*\"] = { input = 1, output = 2.5, cached = 0 } } }\n"),
       ""},
      {"clients", WITH_INIT("clients { file = \"retry.lua\" }\nclients { fil = \"x\" }\nclients \"x\"\n"),
       "init.lua:3: clients: file names a policy file; clients stand in a file of their own, say \"clients.json\"\n"
       "init.lua:4: clients: no field \"fil\"; did you mean \"file\"?\n"
       "init.lua:4: clients: needs file = \"...\"\n"
       "init.lua:5: clients: needs a table { ... }, got \"x\"\n"},
      {"clients twice", WITH_INIT("clients { file = \"x\" }\nclients { file = \"y\" }\n"),
       "init.lua:4: clients: is declared twice, first at init.lua:3\n"},
      {"clients and passthrough",
       WITH_INIT("provider \"x\" { base_url = \"https://x\", dialect = \"generic\",\n auth = passthrough() }\n"
                 "clients { file = \"x\" }\n"),
       "init.lua:4: provider \"x\": auth = passthrough() and clients { ... } exclude each other: the client's own "
       "credential is its key for parry, which is no provider's business; use bearer(secret \"NAME\")\n"},
  };
  CHECK(examples);
}

static void test_other_declarations(void **state)
{
  (void)state;
  static const struct example examples[] = {
      {"credential", WITH_INIT("credential \"c\" { refresh_token = \"x\", token_url = \"x\", grant = \"oath\" }\n"),
       "init.lua:3: credential \"c\": refresh_token must be secret \"NAME\", got a text\n"
       "init.lua:3: credential \"c\": grant cannot be \"oath\"; did you mean \"oauth\"?\n"
       "init.lua:3: credential \"c\": token_url must begin with \"https://\" or \"http://\"\n"},
      {"grant and refresh", WITH_INIT("credential \"c\" { grant = \"oauth\", refresh = function() end }\n"),
       "init.lua:3: credential \"c\": grant and refresh exclude each other; refresh replaces the built-in grants\n"},
      {"the library of grants",
       WITH_INIT(
           "credential \"c\" { grant = \"kimi\", token_url = \"https://t\", refresh_token = secret \"TOKEN\" }\n"),
       "init.lua:3: credential \"c\": grant \"kimi\" needs the file lib/grants.lua, which is not there; copy it from "
       "the "
       "shipped policies, or give refresh = function(cred) ... end\n"},
      {"service", WITH_INIT("service \"s\" { base_url = \"https://s\", auth = passthrough() }\n"),
       "init.lua:3: service \"s\": auth must be bearer(X) or header(\"name\", X); there is no client's own credential "
       "here\n"},
      {"a secret's name", WITH_INIT("sink \"s\" { webhook = secret \"https://hooks/1\" }\n"),
       "init.lua:3: secret needs the name of a secret, as in secret \"KIMI_API_KEY\"; the name may hold only letters, "
       "digits, \"_\", \"-\" and \".\"\n"},
      {"verdicts", WITH_INIT("policy { name = \"init\", on_done = function() end }\nprovider(\"p\").x = 1\n"),
       "init.lua:4: attempt to index a parry.declaration value\n"},
  };
  CHECK(examples);
}

static void test_sinks(void **state)
{
  (void)state;
#define SINK(fields) WITH_INIT("sink \"s\" { " fields " }\n")
#define SAYS "init.lua:3: sink \"s\": "
#define MAIL "smtp = \"smtps://mail.example:465\", from = \"parry@example.com\", to = \"ops@example.com\""
  static const struct example examples[] = {
      {"none", SINK(""),
       SAYS "needs one of webhook, slack, feishu, dingtalk, wecom, pagerduty, sentry = secret \"...\", or smtp = "
            "\"smtps://host:465\"\n"},
      {"two", SINK("slack = secret \"HOOK_URL\", feishu = secret \"HOOK_URL\""),
       SAYS "feishu and slack exclude each other; declare a sink for each\n"},
      {"a pasted secret", SINK("slack = \"https://hooks.slack.com/T0/B0/x\""),
       SAYS "slack must be secret \"NAME\", got a text\n"},
      {"what does not go with it", SINK("slack = secret \"HOOK_URL\", sign = secret \"KEY\", from = \"a@b\""),
       SAYS "sign does not go with slack, only with webhook feishu dingtalk\n" SAYS
            "from does not go with slack, only with smtp\n"},
      {"numbers", SINK("wecom = secret \"HOOK_URL\", digest = 301, per_minute = 0"),
       SAYS "digest must be a number 0..300 s, got 301\n" SAYS "per_minute must be a whole number 1..600, got 0\n"},
      {"an unknown field", SINK("webhook = secret \"HOOK_URL\", singn = secret \"X_KEY\""),
       SAYS "no field \"singn\"; did you mean \"sign\"?\n"},
      {"another place for PagerDuty", SINK("pagerduty = secret \"KEY\", url = \"ftp://x\""),
       SAYS "url must begin with \"https://\" or \"http://\"\n"},
      {"a mail to nobody", SINK("smtp = \"smtps://mail.example:465\", from = \"parry@example.com\""),
       SAYS "to needs 1 to 16 mail addresses\n"},
      {"a mail server", SINK("smtp = \"mail.example\", from = \"a@b.c\", to = \"a@b.c\""),
       SAYS "smtp must be \"smtps://host:465\" or \"smtp://host:587\"\n"},
      {"a login in the URL", SINK("smtp = \"smtp://me:word@mail.example\", from = \"a@b.c\", to = \"a@b.c\""),
       SAYS "smtp holds a login; use user = secret \"...\", password = secret \"...\"\n"},
      {"a header in an address",
       SINK("smtp = \"smtps://mail.example\", from = \"a@b.c\\r\\nBcc: x@y.z\", to = { \"<a@b.c>\", \"a@b c\" }"),
       SAYS "from must be a bare mail address, such as ops@example.com\n" SAYS
            "to [1] must be a bare mail address, such as ops@example.com\n" SAYS
            "to [2] must be a bare mail address, such as ops@example.com\n"},
      {"half a login", SINK(MAIL ", user = secret \"USER\""), SAYS "user needs password = secret \"...\", too\n"},
      {"no TLS where there is nothing else", SINK(MAIL ", tls = \"none\""),
       SAYS "tls cannot be \"none\" with smtps://\n"},
      {"a password for all to read",
       SINK("smtp = \"smtp://mail.example\", from = \"a@b.c\", to = \"a@b.c\", tls = \"none\", user = secret \"USER\", "
            "password = secret \"WORD\""),
       SAYS "tls must be \"required\": without TLS the password could be read on its way\n"},
  };
  CHECK(examples);
}

static void test_routes(void **state)
{
  (void)state;
#define ROUTES(text)                                                                                                   \
  {                                                                                                                    \
    {                                                                                                                  \
      "init.lua", PROVIDER text                                                                                        \
    }                                                                                                                  \
  }
  static const struct example examples[] = {
      {"all fields",
       ROUTES(
           "route \"/v1/*\" { to = by_model { [\"a-*\"] = \"p/m\", [\"b-*\"] = \"p\", [\"*\"] = \"p\" }, deadline = 60,"
           " timeouts = { connect = 1 }, client_dialect = \"generic\", early_head = 2.5, slow_stream = { events = 0.5, "
           "seconds = 20, cut = true }, max_stream = 600,"
           " repeatable = false, session = { header = \"x-session\" }, max_attempts_per_call = 3,"
           " max_targets = 2, chain = {} }\n"
           "route \"/v2/*\" { to = \"p\", session = { field = \"metadata.user\" } }\n"),
       ""},
      {"nothing", ROUTES(""), "init.lua: warning: declares no route; every call will be answered with 404\n"},
      {"pattern", ROUTES("route \"v1\" { to = \"p\" }\n"),
       "init.lua:2: route \"v1\": the pattern must begin with \"/\"\n"},
      {"no to", ROUTES("route \"/a\" {}\n"),
       "init.lua:2: route \"/a\": needs to = \"provider\" or to = by_model { ... }\n"},
      {"unknown provider", ROUTES("route \"/a\" { to = \"moon/x\" }\n"),
       "init.lua:2: route \"/a\": to: there is no provider \"moon\"; declared are p\n"},
      {"twice", ROUTES(ROUTE ROUTE), "init.lua:3: route \"/v1/*\": is declared twice, first at init.lua:2\n"},
      {"tie", ROUTES("route \"/a*b\" { to = \"p\" }\nroute \"/ab*\" { to = \"p\" }\n"),
       "init.lua:3: route \"/ab*\": can match the same path as \"/a*b\" (init.lua:2) and neither is more specific; "
       "make one "
       "longer\n"},
      {"no tie",
       ROUTES("route \"/a/*\" { to = \"p\" }\nroute \"/b/*\" { to = \"p\" }\nroute \"/a/b\" { to = \"p\" }\n"), ""},
      {"tie of models", ROUTES("route \"/a\" {\n to = by_model {\n [\"gpt-*\"] = \"p\",\n [\"*-gpt\"] = \"p\" } }\n"),
       "init.lua:4: route \"/a\": to: \"*-gpt\" and \"gpt-*\" can match the same model and neither is more specific; "
       "make "
       "one longer\n"},
      {"a model's target", ROUTES("route \"/a\" { to = by_model {\n [\"x\"] = 3 } }\n"),
       "init.lua:3: route \"/a\": to: \"x\" must be \"provider\" or \"provider/model\", got 3\n"},
      {"no model after the slash", ROUTES("route \"/a\" { to = \"p/\" }\n"),
       "init.lua:2: route \"/a\": to: \"p/\" names no model after the \"/\"\n"},
      {"numbers",
       ROUTES("route \"/a\" { to = \"p\",\n deadline = -1,\n max_targets = 2.5,\n max_attempts_per_call = 0,\n "
              "early_head = 0,\n slow_stream = { events = 1, second = 20 } }\n"),
       "init.lua:3: route \"/a\": deadline must be a number 0.001..86400 s, got -1\n"
       "init.lua:4: route \"/a\": max_targets must be a whole number 1..20, got 2.5\n"
       "init.lua:5: route \"/a\": max_attempts_per_call must be a whole number 1..100, got 0\n"
       "init.lua:6: route \"/a\": early_head must be a number 0.001..86400 s, or true, got 0\n"
       "init.lua:7: route \"/a\": no field \"slow_stream.second\"; did you mean \"seconds\"?\n"
       "init.lua:7: route \"/a\": slow_stream needs { events = N per second, seconds = S }\n"},
      {"session", ROUTES("route \"/a\" { to = \"p\", session = { header = \"a\", field = \"b\" } }\n"),
       "init.lua:2: route \"/a\": session must be { header = \"...\" } or { field = \"...\" }\n"},
      {"client dialect", ROUTES("route \"/a\" { to = \"p\", client_dialect = \"x\" }\n"),
       "init.lua:2: route \"/a\": there is no dialect \"x\" (no file dialects/x.lua); there are generic\n"},
      {"a timeout that has no effect", ROUTES("route \"/a\" { to = \"p\", timeouts = { connect = 200 } }\n"),
       "init.lua:2: warning: route \"/a\": timeouts.connect (200 s) is longer than the deadline (120 s) and has no "
       "effect\n"},
  };
  CHECK(examples);
}

/* ---- dialects and libraries ---------------------------------------------------------------------------- */

static void test_dialects(void **state)
{
  (void)state;
#define DIALECT(text)                                                                                                  \
  {                                                                                                                    \
    {"init.lua", PROVIDER ROUTE},                                                                                      \
    {                                                                                                                  \
      "dialects/x.lua", "return dialect {\n" text "\n}\n"                                                              \
    }                                                                                                                  \
  }
  static const struct example examples[] = {
      {"all fields",
       DIALECT("name = \"x\", error_in_200 = { \"error\", errcode = { 0, \"0\", false } }, stream = { type_field = "
               "\"type\","
               " end_data = { \"[DONE]\" }, error_types = { \"error\" }, error_in_data = { \"error\" }, end_types = { "
               "\"stop\" },"
               " lifecycle_types = { \"ping\" }, content_types = { \"delta\" }, content_paths = { "
               "\"choices.*.delta.!role\" },"
               " finish_paths = { \"choices.*.finish_reason\" }, default = \"lifecycle\" },"
               " classify = function() end, render = function() end"),
       ""},
      {"name", DIALECT("name = \"y\""),
       "dialects/x.lua:2: dialect \"x\": name is \"y\", but the file is dialects/x.lua\n"},
      {"fields", DIALECT("error_in_200 = { \"e\", bad = 5 },\n clasify = 1"),
       "dialects/x.lua:2: dialect \"x\": error_in_200 [\"bad\"] must be a list of the values that are no error, got 5\n"
       "dialects/x.lua:3: dialect \"x\": no field \"clasify\"; did you mean \"classify\"?\n"},
      {"too many fields", DIALECT("error_in_200 = { \"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\" }"),
       "dialects/x.lua:2: dialect \"x\": error_in_200 names more than 8 fields\n"},
      {"fields by path", DIALECT("error_in_200 = { [\"a.b\"] = {}, [\"a..b\"] = {} }"),
       "dialects/x.lua:2: dialect \"x\": error_in_200 [\"a..b\"] is a bad path: empty step\n"},
      {"paths", DIALECT("stream = {\n content_paths = { \"a..b\" } }"),
       "dialects/x.lua:3: dialect \"x\": stream.content_paths has a bad path \"a..b\": empty step\n"},
      {"default", DIALECT("stream = { default = \"contnt\" }"),
       "dialects/x.lua:2: dialect \"x\": stream.default must be \"content\" or \"lifecycle\", got \"contnt\"\n"},
      {"functions", DIALECT("classify = 5"), "dialects/x.lua:2: dialect \"x\": classify must be a function, got 5\n"},
      {"elsewhere",
       {{"init.lua", PROVIDER ROUTE}, {"x.lua", "return dialect {}\n"}},
       "x.lua: must end with return policy { ... }, but returns parry.declaration\n"
       "x.lua:1: dialect { ... } belongs into a file dialects/NAME.lua\n"},
  };
  CHECK(examples);
}

static void test_libraries(void **state)
{
  (void)state;
  static const struct example examples[] = {
      {"a library",
       {{"init.lua", PROVIDER ROUTE},
        {"lib/a.lua", "return { min = 3, list = { \"a\", \"b\" } }\n"},
        {"retry.lua",
         "local a = require \"lib.a\"\nreturn policy { name = \"retry\", params = {\n"
         " n = param { 2, min = a.min }, v = param { \"c\", values = a.list } }, on_done = function() end }\n"}},
       "retry.lua:3: retry: params.n must be at least 3, got 2\n"
       "retry.lua:3: retry: params.v cannot be \"c\"; it is one of a, b\n"},
      {"none of that name",
       {{"init.lua", PROVIDER ROUTE}, {"retry.lua", "local a = require \"lib.bakoff\"\n"}},
       "retry.lua:1: require 'lib.bakoff': there is no lib/bakoff.lua\n"},
      {"tests and libraries that nobody runs are compiled",
       {{"init.lua", PROVIDER ROUTE}, {"lib/broken.lua", "x = = 1\n"}, {"x_test.lua", "test(\n"}},
       "lib/broken.lua:1: unexpected symbol near '='\n"
       "x_test.lua:2: unexpected symbol near <eof>\n"},
      {"a misspelt word of init.lua",
       {{"init.lua", "porvider \"p\" { base_url = \"http://127.0.0.1\" }\n" ROUTE}},
       "init.lua:1: attempt to call a nil value (global 'porvider'); did you mean \"provider\"?\n"},
      {"a misspelt word of a policy; those of init.lua are not meant",
       {{"init.lua", PROVIDER ROUTE}, {"a.lua", "return plicy { name = \"a\" }\n"}, {"b.lua", "porvider \"x\" {}\n"}},
       "a.lua:1: attempt to call a nil value (global 'plicy'); did you mean \"policy\"?\n"
       "b.lua:1: attempt to call a nil value (global 'porvider')\n"},
      {"no init.lua", {{"retry.lua", RETRY}}, "init.lua: is missing; it declares providers and routes\n"},
  };
  CHECK(examples);
}

static void test_endless_file(void **state)
{
  (void)state;
  const struct file files[] = {
      {"init.lua", PROVIDER ROUTE}, {"loop.lua", "while true do end\n"}, {"retry.lua", "return 5\n"}};
  char *findings = findings_of(files, 3);
  assert_non_null(strstr(findings, "loop.lua:1: "));
  assert_non_null(strstr(findings, "retry.lua: must end with"));
  free(findings);
}

static void test_many_findings(void **state)
{
  (void)state;
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  assert_true(pry_buffer_append_text(&text, PROVIDER ROUTE));
  for (int i = 0; i < 150; i++)
    assert_true(pry_buffer_append_format(&text, "sink \"s%d\" {}\n", i));
  const struct file files[] = {{"init.lua", pry_buffer_text(&text)}};
  char *findings = findings_of(files, 1);
  assert_non_null(strstr(findings, "init.lua:102: sink \"s99\""));
  assert_non_null(strstr(findings, "and 50 more\n"));
  free(findings);
  pry_buffer_fini(&text);
}

/* ---- what is said -------------------------------------------------------------------------------------- */

static void test_nearest(void **state)
{
  (void)state;
  static const char *const names[] = {"max_attempts", "base", "cap", "jitter"};
  assert_string_equal(pry_nearest_name("max_atempts", names, 4), "max_attempts");
  assert_string_equal(pry_nearest_name("MAX_ATTEMPTS", names, 4), "max_attempts");
  assert_string_equal(pry_nearest_name("bsae", names, 4), "base");
  assert_string_equal(pry_nearest_name("max", names, 4), "max_attempts");
  assert_null(pry_nearest_name("timeout", names, 4));
  assert_null(pry_nearest_name("", names, 4));
  assert_null(pry_nearest_name("ab", names, 0));
}

static void test_field_lines(void **state)
{
  (void)state;
  static const struct {
    const char *text;
    int line;
    const char *path;
    int found;
  } lines[] = {
      {"use \"x\" {\n a = 1,\n b = 2 }", 1, "b", 3},
      {"use \"x\" {\n -- b = 1\n a = \"b = 2\",\n b = 2 }", 1, "b", 4},
      {"use \"x\" {\n --[[ b = 1\n ]] b\n = 2 }", 1, "b", 3},
      {"use \"x\" {\n [==[ b = ]] ]==],\n [\"b\"] = 2 }", 1, "b", 3},
      {"use \"x\" {\n c = { b = 1 },\n b = 2 }", 1, "b", 3},
      {"use \"x\" {\n t = {\n  b = 1 },\n b = 2 }", 1, "t.b", 3},
      {"use \"x\" {\n t = {\n  c = 1 },\n b = 2 }", 1, "t.b", 2},
      {"use \"x\" { a = 1 }\nuse \"y\" { b = 1 }", 1, "b", 1},
      {"x\nuse \"x\" {\n a = b == 1,\n b = 2 }", 2, "b", 4},
      {"use \"x\" {\n a = \"\\\"b = 1\",\n b = 2 }", 1, "b", 3},
      {"use \"x\" {\n f = function() local t = { b = 1 } end,\n b = 2 }", 1, "b", 3},
      {"use \"x\"", 1, "b", 1},
      {"", 7, "b", 7},
      {"use \"x\" { \"unfinished", 1, "b", 1},
      {"use \"x\" { [[unfinished", 1, "b", 1},
  };
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
    assert_int_equal(pry_source_field_line(pry_slice_of(lines[i].text), lines[i].line, lines[i].path), lines[i].found);
}

static void test_urls(void **state)
{
  (void)state;
  static const char *const good[] = {"https://api.moonshot.cn/v1", "http://127.0.0.1:8421", "http://[::1]/x",
                                     "https://a_b.internal:443/a/b/"};
  static const char *const bad[] = {"",
                                    "https://",
                                    "https:///x",
                                    "api.moonshot.cn",
                                    "ftp://x",
                                    "https://a b",
                                    "https://a\n",
                                    "https://x:",
                                    "https://x:0",
                                    "https://x:65536",
                                    "https://u@x",
                                    "https://x?a=b",
                                    "https://x#a",
                                    "https://[::1",
                                    "https://[]",
                                    "https://x:8a",
                                    "https://[::1]x",
                                    "https://a\"b"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    assert_null(pry_base_url_complaint(pry_slice_of(good[i])));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_non_null(pry_base_url_complaint(pry_slice_of(bad[i])));
}

static void test_globs_overlap(void **state)
{
  (void)state;
  static const struct {
    const char *a, *b;
    bool overlap;
  } globs[] = {{"a*", "*b", true}, {"a*", "b*", false},  {"*", "", true},      {"a", "a", true},
               {"a", "b", false},  {"a*c", "ab*", true}, {"a*c", "ab", false}, {"*a*", "*b*", true},
               {"", "", true},     {"", "a", false},     {"**", "x", true},    {"x*y*z", "x*q", false}};
  for (size_t i = 0; i < sizeof globs / sizeof *globs; i++) {
    struct pry_slice a = pry_slice_of(globs[i].a), b = pry_slice_of(globs[i].b);
    assert_true(pry_globs_overlap(a, b) == globs[i].overlap);
    assert_true(pry_globs_overlap(b, a) == globs[i].overlap);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_policies),     cmocka_unit_test(test_when),
      cmocka_unit_test(test_only_with),    cmocka_unit_test(test_params),
      cmocka_unit_test(test_jobs),         cmocka_unit_test(test_use),
      cmocka_unit_test(test_providers),    cmocka_unit_test(test_other_declarations),
      cmocka_unit_test(test_sinks),        cmocka_unit_test(test_routes),
      cmocka_unit_test(test_dialects),     cmocka_unit_test(test_libraries),
      cmocka_unit_test(test_endless_file), cmocka_unit_test(test_many_findings),
      cmocka_unit_test(test_nearest),      cmocka_unit_test(test_field_lines),
      cmocka_unit_test(test_urls),         cmocka_unit_test(test_globs_overlap),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
