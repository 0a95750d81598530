/* What answers to health checks mean, which targets are checked, and how results are told. Requests themselves are tested
 * through the policy (health_test.lua) and over sockets (e2e/test_health.py). */
#include "health_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define LIST "{\"data\":[{\"id\":\"a\"},{\"object\":\"model\"},7,{\"id\":\"m/\\u0031\"},{\"id\":\"m\"}]}"

/* G good, B bad, - unknown: connectivity, auth, model. */
static const struct row {
  const char *what;
  enum pry_health_question question;
  int status; /* 0: no answer */
  const char *body, *model, *marks;
  bool ok, asks_on;
  enum pry_auth_kind auth;
  bool no_credential;
} ROWS[] = {
    {"a list with the model", PRY_ASK_LIST, 200, LIST, "m", "GGG", true, false, PRY_AUTH_BEARER, false},
    {"a name is compared as decoded", PRY_ASK_LIST, 200, LIST, "m/1", "GGG", true, false, PRY_AUTH_BEARER, false},
    {"a list without it", PRY_ASK_LIST, 200, LIST, "x", "GG-", true, true, PRY_AUTH_BEARER, false},
    {"no model to look for", PRY_ASK_LIST, 200, LIST, "", "GG-", true, false, PRY_AUTH_BEARER, false},
    {"a list that is none", PRY_ASK_LIST, 200, "{\"data\":{\"id\":\"m\"}}", "m", "GG-", true, true, PRY_AUTH_BEARER,
     false},
    {"a page where the list would be", PRY_ASK_LIST, 200, "<html>", "m", "G--", true, true, PRY_AUTH_BEARER, false},
    {"a page for any model", PRY_ASK_MODEL, 200, " \r\n<html>", "m", "G--", true, false, PRY_AUTH_BEARER, false},
    {"sent elsewhere", PRY_ASK_MODEL, 307, "", "m", "G--", true, false, PRY_AUTH_BEARER, false},
    {"a page for a completion", PRY_ASK_COMPLETION, 200, "\xEF\xBB\xBF<p>", "m", "G--", false, false, PRY_AUTH_BEARER,
     false},
    {"a completion sent elsewhere", PRY_ASK_COMPLETION, 302, "", "m", "G--", false, false, PRY_AUTH_BEARER, false},
    {"a list that is cut", PRY_ASK_LIST, 200, "{\"data\":[{\"id\":\"a\"},", "m", "GG-", true, true, PRY_AUTH_BEARER,
     false},
    {"the model itself", PRY_ASK_MODEL, 200, "{}", "m", "GGG", true, false, PRY_AUTH_BEARER, false},
    {"no such model", PRY_ASK_MODEL, 404, "", "m", "GGB", false, false, PRY_AUTH_BEARER, false},
    {"no list here", PRY_ASK_LIST, 404, "", "m", "G--", true, false, PRY_AUTH_BEARER, false},
    {"an odd answer to the list", PRY_ASK_LIST, 400, "", "m", "G--", true, false, PRY_AUTH_BEARER, false},
    {"a wrong key", PRY_ASK_LIST, 401, "", "m", "GB-", false, false, PRY_AUTH_HEADER, false},
    {"no permission", PRY_ASK_LIST, 403, "", "m", "GB-", false, false, PRY_AUTH_BEARER, false},
    {"unpaid", PRY_ASK_COMPLETION, 402, "", "m", "GB-", false, false, PRY_AUTH_BEARER, false},
    {"a rate limit", PRY_ASK_LIST, 429, "", "m", "GG-", true, false, PRY_AUTH_BEARER, false},
    {"an error of its own", PRY_ASK_LIST, 500, "", "m", "G--", false, false, PRY_AUTH_BEARER, false},
    {"overloaded", PRY_ASK_COMPLETION, 529, "", "m", "G--", false, false, PRY_AUTH_BEARER, false},
    {"nobody there", PRY_ASK_LIST, 0, "", "m", "B--", false, false, PRY_AUTH_BEARER, false},
    {"one token", PRY_ASK_COMPLETION, 200, "{}", "m", "GGG", true, false, PRY_AUTH_BEARER, false},
    {"a completion it did not like", PRY_ASK_COMPLETION, 400, "", "m", "G--", true, false, PRY_AUTH_BEARER, false},
    {"no key is needed", PRY_ASK_LIST, 200, LIST, "m", "GGG", true, false, PRY_AUTH_NONE, true},
    {"no key was thought to be needed", PRY_ASK_LIST, 401, "", "m", "GB-", false, false, PRY_AUTH_NONE, true},
    {"the clients' keys, refused", PRY_ASK_LIST, 401, "", "m", "G--", true, false, PRY_AUTH_PASSTHROUGH, true},
    {"the clients' keys, not asked for", PRY_ASK_LIST, 200, LIST, "m", "G-G", true, false, PRY_AUTH_PASSTHROUGH, true},
    {"the clients' keys, no such model", PRY_ASK_MODEL, 404, "", "m", "G--", true, false, PRY_AUTH_PASSTHROUGH, true},
    {"somebody is there, whatever it says", PRY_ASK_CONNECT, 500, "", "m", "G--", true, false, PRY_AUTH_BEARER, true},
    {"nobody is there", PRY_ASK_CONNECT, 0, "", "m", "B--", false, false, PRY_AUTH_BEARER, true},
};

static char letter(enum pry_health_mark mark)
{
  return "-GB"[mark];
}

static void test_what_answers_mean(void **state)
{
  (void)state;
  for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
    const struct row *row = &ROWS[i];
    struct pry_health_result result = {.hint = ""};
    struct pry_health_answer answer = {.question = row->question,
                                       .answered = row->status != 0,
                                       .credential = !row->no_credential,
                                       .auth = row->auth,
                                       .body = pry_slice_of(row->body)};
    answer.failure = row->status ? pry_failure_from_status(row->status) : pry_failure_from_curl(7, false);
    answer.failure.status = row->status;
    bool asks_on = pry_health_judge(&result, &answer, pry_slice_of(row->model));
    pry_health_conclude(&result);
    char marks[] = {letter(result.connectivity), letter(result.auth), letter(result.model), '\0'};
    if (strcmp(marks, row->marks) != 0 || result.ok != row->ok || asks_on != row->asks_on)
      fail_msg("%s: %s, %s%s", row->what, marks, result.ok ? "fine" : "ill", asks_on ? ", asks on" : "");
    assert_int_equal(result.ok, result.category == PRY_NONE);
    assert_true(result.ok || *result.hint); /* who is told that something is wrong is told what to do */
  }
}

/* What was found out before stays when there was no key to ask with. */
static void test_a_missing_key_and_nobody_there(void **state)
{
  (void)state;
  struct pry_health_result result = {.hint = ""};
  struct pry_health_answer answer = {.question = PRY_ASK_CONNECT, .answered = true, .auth = PRY_AUTH_BEARER};
  answer.failure = pry_failure_from_status(404);
  pry_health_no_credential(&result, "no_secret", "hint");
  pry_health_judge(&result, &answer, PRY_SLICE("m"));
  pry_health_conclude(&result);
  assert_false(result.ok);
  assert_int_equal(result.connectivity, PRY_HEALTH_GOOD);
  assert_int_equal(result.auth, PRY_HEALTH_BAD);
  assert_int_equal(result.category, PRY_AUTH);
  assert_int_equal(result.status, 0);
  assert_string_equal(result.code, "no_secret");
}

static void test_json(void **state)
{
  (void)state;
  struct pry_health_result results[] = {{.target = "p/m",
                                         .ok = true,
                                         .connectivity = PRY_HEALTH_GOOD,
                                         .dns = 0.5,
                                         .tcp = 0.25,
                                         .tls = -1,
                                         .status = 200,
                                         .hint = ""},
                                        {.target = "q\"",
                                         .auth = PRY_HEALTH_BAD,
                                         .dns = -1,
                                         .tcp = -1,
                                         .tls = -1,
                                         .category = PRY_AUTH,
                                         .code = "c\n",
                                         .hint = "h"}};
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  assert_true(pry_health_json(results, 2, &out));
  assert_string_equal(
      pry_buffer_text(&out),
      "{\"ok\":false,\"targets\":[{\"target\":\"p/m\",\"ok\":true,\"connectivity\":true,\"auth\":null,\"model\":null,"
      "\"dns\":0.500000,\"tcp\":0.250000,\"tls\":null,\"seconds\":0.000000,\"status\":200,\"category\":null,"
      "\"code\":null,\"hint\":null},{\"target\":\"q\\\"\",\"ok\":false,\"connectivity\":null,\"auth\":false,"
      "\"model\":null,\"dns\":null,\"tcp\":null,\"tls\":null,\"seconds\":0.000000,\"status\":0,\"category\":\"auth\","
      "\"code\":\"c\\n\",\"hint\":\"h\"}]}\n");
  assert_int_equal(pry_json_parse(pry_slice_trim(pry_buffer_slice(&out)), NULL), PRY_JSON_OK);
  pry_buffer_clear(&out);
  assert_true(pry_health_json(NULL, 0, &out));
  assert_string_equal(pry_buffer_text(&out), "{\"ok\":true,\"targets\":[]}\n");
  pry_buffer_fini(&out);
}

static void test_probes(void **state)
{
  (void)state;
  enum pry_health_probe probe;
  assert_true(pry_health_probe_from_name(PRY_SLICE("models"), &probe) && probe == PRY_PROBE_MODELS);
  assert_true(pry_health_probe_from_name(PRY_SLICE("completion"), &probe) && probe == PRY_PROBE_COMPLETION);
  assert_true(pry_health_probe_from_name(PRY_SLICE("connect"), &probe) && probe == PRY_PROBE_CONNECT);
  assert_false(pry_health_probe_from_name(PRY_SLICE("Models"), &probe));
  assert_false(pry_health_probe_from_name(PRY_SLICE(""), &probe));
}

static void add_target(void *user, const char *target)
{
  char *all = user;
  strcat(strcat(all, target), " ");
}

static void test_targets(void **state)
{
  (void)state;
  static const char *const models[] = {"m1", "m2"};
  const struct pry_provider providers[] = {{.name = "listed", .models = models, .model_count = 2},
                                           {.name = "ruled"},
                                           {.name = "globbed"},
                                           {.name = "unused", .models = models, .model_count = 2},
                                           {.name = "hosts", .models = models, .model_count = 2, .host = true}};
  const struct pry_model_rule first[] = {{"exact", &providers[1], NULL},
                                         {"alias-*", &providers[1], "fixed"},
                                         {"also", &providers[1], "exact"},
                                         {"g-*", &providers[2], NULL},
                                         {"*", &providers[0], NULL}};
  const struct pry_model_rule second[] = {{"db", &providers[4], NULL}, {"*", &providers[0], "m1"}};
  const struct pry_route routes[] = {{.pattern = "/a", .rules = first, .rule_count = 5},
                                     {.pattern = "/b", .rules = second, .rule_count = 2}};
  const struct pry_config config = {.providers = providers, .provider_count = 5, .routes = routes, .route_count = 2};
  char all[1024] = "";
  pry_health_targets(&config, add_target, all);
  assert_string_equal(all, "listed/m1 listed/m2 ruled/exact ruled/fixed globbed ");
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_what_answers_mean),
      cmocka_unit_test(test_a_missing_key_and_nobody_there),
      cmocka_unit_test(test_json),
      cmocka_unit_test(test_probes),
      cmocka_unit_test(test_targets),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
