/*
 * health.h: does a target work? One or two requests say so, sent on purpose and not for any client.
 *
 * A check asks three things in turn, each GOOD, BAD or UNKNOWN:
 *   connectivity  name, connection, TLS, and some HTTP answer. Always on a connection of its own, so that the times of
 *                 its phases are known and a dead kept connection hides nothing
 *   auth          the answer does not say that the credential is missing, wrong, not allowed or unpaid
 *   model         the provider has the model, when the target names one
 * A target is ill when one of them is BAD, or when the answer was an error that is the provider's own (server,
 * overloaded, timeout), or what came for a completion was a redirect or a web page. A rate limit is no illness.
 *
 * What is asked (the dialect's `health` table says where, see dialect.h):
 *   PRY_PROBE_MODELS      the list of models; when the model is not in it, the model itself. Costs nothing
 *   PRY_PROBE_COMPLETION  one completion of at most one token, when the target names a model. Costs money, each time,
 *                         and counts for rate limits; the only probe that sees a model that is listed but does not answer
 *   PRY_PROBE_CONNECT     connectivity alone; without credential, at base_url
 * A dialect that does not say where gets the next cheaper one, and `hint` says so.
 *
 * The one implementation of checks: the policy `health`, `parry health` and the admin listener all come here. Nothing in a
 * result is text of the provider's but its error code: what it says in words may repeat a key.
 *
 * Owner: who starts a run; it frees itself after `done`. Thread: the worker's. Bounded: PRY_HEALTH_TARGETS_MAX targets,
 * PRY_HEALTH_AT_ONCE of them at a time.
 */
#ifndef PRY_HEALTH_H
#define PRY_HEALTH_H

#include "policy.h"
#include "worker.h"

enum { PRY_HEALTH_TARGETS_MAX = 256, PRY_HEALTH_AT_ONCE = 8 };

/* `code` of a result when memory was short: it says nothing about the target. */
#define PRY_HEALTH_NO_MEMORY "memory"

enum pry_health_mark { PRY_HEALTH_UNKNOWN, PRY_HEALTH_GOOD, PRY_HEALTH_BAD };

/* X(enumerator, name) */
#define PRY_HEALTH_PROBES(X)                                                                                           \
  X(PRY_PROBE_MODELS, "models")                                                                                        \
  X(PRY_PROBE_COMPLETION, "completion")                                                                                \
  X(PRY_PROBE_CONNECT, "connect")

enum pry_health_probe {
#define X(name, text) name,
  PRY_HEALTH_PROBES(X)
#undef X
      PRY_HEALTH_PROBE_COUNT
};

/* False: there is no such probe. */
bool pry_health_probe_from_name(struct pry_slice name, enum pry_health_probe *probe);

struct pry_health_result {
  char target[PRY_TARGET_MAX]; /* "provider" or "provider/model" */
  bool ok;                     /* not ill */
  enum pry_health_mark connectivity, auth, model;
  double dns, tcp, tls;       /* seconds each phase took; negative: it was not reached, or there is none */
  double seconds;             /* in all, from the first request to the last answer */
  int status;                 /* of the last answer; 0: none, or nothing was asked but whether somebody is there */
  enum pry_category category; /* PRY_NONE: nothing failed */
  char code[PRY_FAILURE_CODE_MAX];
  const char *hint; /* constant: what to do, or what could not be found out; "" */
};

struct pry_health_options {
  enum pry_health_probe probe;
  pry_time timeout; /* of one target in all; 0: 5 s */
  bool borrowed;    /* the credentials are another parry's: none is renewed here, because that would make its refresh
                       token invalid. What needs a renewal is UNKNOWN */
};

struct pry_health_run;

/* Checks `count` targets (names are copied; a provider alone, or with a model), with `state`'s configuration and dialects.
 * `done` comes from the worker's loop, once, with the results in the order of the targets, valid during the call. A name
 * that cannot be checked is a result, too. NULL: memory is short, or there are too many. */
struct pry_health_run *pry_health_start(struct pry_worker *worker, struct pry_state *state,
                                        const struct pry_health_options *options, const char *const *targets,
                                        size_t count,
                                        void (*done)(void *user, const struct pry_health_result *results, size_t count),
                                        void *user);

/* Ends it without `done`. NULL is fine. */
void pry_health_cancel(struct pry_health_run *run);

/* The targets that the routes of a configuration name: each provider that a route leads to, with the models that a rule
 * or the provider's `models` spell out, or alone when none does. Calls `visit` for each once; the text is valid during the
 * call. */
void pry_health_targets(const struct pry_config *config, void (*visit)(void *user, const char *target), void *user);

/* Appends {"ok":true,"targets":[{"target","ok","connectivity","auth","model","dns","tcp","tls","seconds","status",
 * "category","code","hint"}, …]}. Marks are true, false or null. False: no room. */
bool pry_health_json(const struct pry_health_result *results, size_t count, struct pry_buffer *out);

#endif
