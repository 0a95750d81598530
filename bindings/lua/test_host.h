/*
 * test_host.h: runs policy tests in virtual time.
 *
 * A file NAME_test.lua calls test("what it shows", function(t) … end). Each test gets an engine of its own: a
 * virtual loop, scripted providers, the set's policies and dialects, and an init.lua made of what the test says. The
 * same call.c, store.c and policies run as in production; hours of waiting take microseconds.
 *
 * What tests can say (all times in seconds):
 *   t:use(policy, params)          appends to the chain of the route; params may hold as =
 *   t:provider { step, … }         the answers of provider "p", in order. A step: status, headers, body (text, or a table sent as
 *                                  JSON), sse = { "data" or { event =, data = }, … }, chunks = { "…" }, delay, chunk_delay,
 *                                  cut = true, hang = true, hang_connect = true, curl = "timeout" "connect" "reset" "dns" "tls"
 *   t:provider("q", { step, …, dialect = "kimi", models = {…}, auth = "credential" or "secret" })
 *   t:dialect(name)                of provider "p"
 *   t:route { deadline =, timeouts = {…}, to = { ["GLOB"] = "q/model" }, max_targets =, … }   fields of the route; pattern "*"
 *   t:credential { grant =, refresh = … }   adds a credential "c" (token_url on "tokens.test") and lets "p" use it
 *   t:service("s", { step, … })    a service at http://s.test/ whose answers these are
 *   t:sink(name)                   a webhook sink; what it is sent is in t:alerts()
 *   t:call { model, path, body, headers, stream, method }   makes a call and runs it to its end; gives a result:
 *       status, headers, body, json, ok, category, target, attempts, upstream_calls, waited, truncated, why, faults, events
 *   t:start { … }                  begins a call and returns at once; fields of the result appear when it is done
 *   t:run(result)                  lets time pass until that call (without it: all calls) is done; returns it
 *   t:cancel(result)               the client leaves
 *   t:advance(s)  t:now()          moves, reads the clock (Unix seconds)
 *   t:sent(i)                      the i-th request that went upstream: { url, method, headers, body, json, model, at }
 *   t:sent_count()  t:alerts()     { { sink, key, text, resolve }, … }
 *   t:emit(name, fields)           a host's event for the chain: { verdict, after, category, status, message, why }, or nil
 *   t:eq(got, want, [note]) t:ne t:ok(value, [note]) t:match(text, pattern) t:near(got, want, [within = 0.001]) t:fail(text)
 *
 * A failing check ends its test with file:line and both values. Budgets are a thousand times those of a handler.
 * Thread: any, one at a time per run; the run uses no state outside it.
 */
#ifndef PRY_TEST_HOST_H
#define PRY_TEST_HOST_H

#include "registry.h"

/* One finished test. Texts are valid during the callback. */
struct pry_test_result {
  const char *file, *name;
  bool passed;
  unsigned calls;        /* made by the test */
  double virtual_seconds; /* that passed on its clock */
  const char *message;   /* "retry_test.lua:7: …" when it failed */
};

struct pry_test_options {
  const char *pattern; /* only tests whose name holds this; NULL: all */
  bool (*wanted)(void *user, const char *name); /* may be NULL; else it is asked, too */
  void (*result)(void *user, const struct pry_test_result *result);
  void *user;
};

/* Runs every test of the set. Failures are findings of the report and counted in it. True: all passed (or there were
 * none). */
bool pry_policy_tests_run(const struct pry_policy_set *set, const struct pry_script_limits *limits,
                          const struct pry_test_options *options, struct pry_report *report);

#endif
