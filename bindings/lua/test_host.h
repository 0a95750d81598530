/*
 * test_host.h: runs policy tests in virtual time.
 *
 * A file NAME_test.lua calls test("what it shows", function(t) … end). Each test gets an engine of its own: a
 * virtual loop, scripted providers, the set's policies and dialects, and an init.lua made of what the test says. The
 * same call.c, store.c and policies run as in production; hours of waiting take microseconds.
 *
 * What tests can say (all times in seconds):
 *
 *   t:use(policy, [params])    appends to the chain of the route; params may hold as =
 *   t:provider { step, … }     the answers of provider "p" (http://p.test/v1), in order. A step: status (200), headers,
 *                              body (text, or a table sent as JSON), sse = { data or { event =, data = }, … },
 *                              chunks = { text, … }, delay, chunk_delay, cut = true, hang = true, hang_connect = true,
 *                              curl = "timeout", "connect", "dns", "tls", "reset" or "nothing" (after_body = true: after
 *                              the body). A 2xx step without any body answers with a small completion.
 *   t:provider("q", { step, …, dialect =, models =, timeouts =, credential = "c", secret = "NAME",
 *                              keys = { "NAME", … } })   another one
 *   t:provider("h", { step, …, host = true })   one whose attempts are made by a host (parry.h, on_attempt): all calls of
 *                              the test are then made by one. Such a step may also say category, code, message,
 *                              retry_after, not_sent: the attempt failed so, without a status unless one is given
 *   t:otherwise(step)          the answer to everything no step is left for (without it: the connection fails)
 *   t:dialect(name)            of provider "p"; openai when the set has it, else generic
 *   t:route { deadline =, to = "q/m" or { ["GLOB"] = "q/m" }, … }   fields of the one route, "/v1/…*"; to = "p"
 *   t:credential("c", { step, …, grant = "oauth", access_token = true })   what its token endpoint answers; with
 *                              access_token = false it has none at first
 *   t:service("s", { step, … })   http://s.service.test
 *   t:probe(url, { step, … })  what http.probe finds there; a host under ".example". curl = "private": the name leads to an
 *                              address that is not public
 *   t:host(name, function(arguments) return value end, [{ delay = 0 }])   what host.call(name) gives; nil, "text" is its err
 *   t:sink(name)               a webhook; what arrives is in t:alerts()
 *   t:declare(text)            any other declaration of init.lua, as text
 *   t:refused(function() … end)   what check says against what the function declares (t:use, t:declare), nil when it is
 *                              fine; that is taken back afterwards
 *   t:call { model =, messages =, stream =, path =, method =, body =, headers =,
 *            target = "p/m", host = false (as the gateway makes it) }
 *                              makes a call, lets time pass until it has ended, gives a result: status headers body json
 *                              ok category target attempts upstream_calls waited elapsed truncated ledger why events
 *                              faults. `attempts` counts the ledger; `upstream_calls` the requests that providers got
 *                              while the call was open; `waited` the seconds outside of attempts; `why` lists the texts
 *                              of its verdicts, `events` its event records, in order; entries of the ledger have key,
 *                              tokens { input, output, cached, total } and cost, a call the sums
 *   t:calls { { model = … }, … }   starts all of these at the same moment, lets time pass until every one has ended, gives
 *                              the list of results; t:calls(N, { … }) starts N equal ones. At most 1000
 *   t:start { … }              begins a call; its result has only `id` until it has ended, then done = true
 *   t:run([result])            lets time pass until that call (none given: every call) has ended; gives it back
 *   t:cancel(result)           the client leaves
 *   t:advance(s)  t:now()      moves the clock, reads it (Unix seconds)
 *   t:sent(i)                  the i-th request that providers got: { url, method, headers, body, json, model, at }
 *   t:requests([kind])         all of them: kind "provider", "token", "sink", "service" or "probe"
 *   t:alerts()                 { { sink, key, text, state, count }, … }
 *   t:emit(name, [fields])     a host's event for the chain; the verdict { verdict, after, category, status, message,
 *                              why, policy }, or nil
 *   t:eq(got, want, [note])  t:ne(…)  t:ok(value, [note])  t:match(text, pattern, [note])  t:fail(text)
 *   t:near(got, want, [within = 0.001], [note])
 *
 * A failing check ends its test with file:line and both values. A test without any check fails, too: it could not show
 * anything. Reading a field that a result, request or alert never has raises, with the name that was meant. Budgets are a thousand times those of a handler.
 * Thread: any, one at a time per run; the run uses no state outside it.
 */
#ifndef PRY_TEST_HOST_H
#define PRY_TEST_HOST_H

#include "registry.h"

/* One finished test. Texts are valid during the callback. */
struct pry_test_result {
  const char *file, *name;
  bool passed;
  unsigned calls;         /* made by the test */
  double virtual_seconds; /* that passed on its clock */
  const char *message;    /* "retry_test.lua:7: …" when it failed */
  /* When it failed and a policy had faulted in it, most likely because of that: the first fault, "retry.lua:12: …"; else
   * "". `fault_is_new`: no test before ran into the same one. */
  const char *fault;
  bool fault_is_new;
};

struct pry_test_options {
  const char *pattern;                                            /* only tests whose name holds this; NULL: all */
  bool (*wanted)(void *user, const char *name);                   /* may be NULL; else it is asked, too */
  bool (*needed)(void *user, const struct pry_policy_file *file); /* which test files; NULL: all */
  void (*result)(void *user, const struct pry_test_result *result);
  void *user;
};

/* Runs every test of the set. Failures are findings of the report and counted in it; a fault of a policy that
 * failing tests ran into is a finding of its own, once, before the first of them. True: all passed (or there were
 * none). */
bool pry_policy_tests_run(const struct pry_policy_set *set, const struct pry_script_limits *limits,
                          const struct pry_test_options *options, struct pry_report *report);

#endif
