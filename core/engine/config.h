/*
 * config.h: what init.lua declares, as immutable C data.
 *
 * Built once per generation by the Lua binding, owned by the generation (one arena), read by every worker.
 * Nothing here changes after load; whatever changes at run time (tokens, breakers, budgets) is engine state
 * that is found by name. All text is NUL-terminated and lives as long as the generation.
 */
#ifndef PRY_CONFIG_H
#define PRY_CONFIG_H

#include "arena.h"
#include "dialect.h"
#include "loop.h"
#include "verdict.h"

/* secret "NAME": looked for, in this order, as $CREDENTIALS_DIRECTORY/NAME, /run/secrets/NAME, the file named by
 * NAME_FILE, the environment variable NAME. One trailing newline is trimmed. A missing one is a warning at load
 * and an `auth` failure (source parry) at each use. */
struct pry_secret {
  const char *name;
  const char *value;  /* NULL: not found. Never logged, never given to Lua as text. */
  const char *origin; /* "environment", "file /run/secrets/NAME", …: for check; NULL: not found */
};

enum pry_auth_kind { PRY_AUTH_NONE, PRY_AUTH_BEARER, PRY_AUTH_HEADER, PRY_AUTH_PASSTHROUGH };

struct pry_credential_config;

/* Where a request's credential comes from: exactly one of secret and credential for BEARER and HEADER. */
struct pry_auth {
  enum pry_auth_kind kind;
  const char *header; /* HEADER: field name */
  const struct pry_secret *secret;
  const struct pry_credential_config *credential;
};

/* Seconds converted; 0 means not set here (the route's, then the default counts). */
struct pry_timeouts {
  pry_time connect;    /* default 5 s: until the connection stands */
  pry_time first_byte; /* default 30 s: from the request being sent to the first byte of the answer's body or its end */
  pry_time idle;       /* default 60 s: between two pieces of a body */
  pry_time attempt;    /* default none: one attempt in all, to its commit point */
};

/* Which of several usable keys an attempt gets: the first in the order of declaration, so that a provider's prompt
 * cache stays warm, or each in turn. */
enum pry_rotation { PRY_ROTATE_FIRST, PRY_ROTATE_ROUND_ROBIN };

enum { PRY_PROVIDER_KEYS_MAX = 64, PRY_SECRET_NAME_MAX = 64 };

struct pry_provider {
  const char *name;
  const char *base_url; /* no trailing slash; "" with `host` */
  bool host;            /* host = true: only a host can make attempts at it, see call.h; neither URL nor credential */
  const struct pry_dialect *dialect;
  struct pry_auth auth;
  struct pry_timeouts timeouts;
  const char *const *models; /* may be empty; for metrics labels and checks */
  size_t model_count;
  const struct pry_price *prices; /* of models, most specific first */
  size_t price_count;
  const struct pry_secret *const *keys; /* auth.secret, then the others; names in logs are the secrets' */
  size_t key_count;                     /* 0: auth is no secret */
  enum pry_rotation rotation;
};

struct pry_service {
  const char *name;
  const char *base_url;
  struct pry_auth auth;
};

/* A place alerts go to. What each kind makes of it: sink.h. */
struct pry_sink_config {
  const char *name;
  const char *kind;              /* "webhook", "slack", …: the names in sink.h */
  const struct pry_secret *url;  /* of pagerduty the routing key, of sentry the DSN; NULL for smtp */
  const struct pry_secret *sign; /* what requests are signed with, of smtp the password; NULL: nothing */
  const struct pry_secret *user; /* of smtp; NULL: no login */
  const char *endpoint;          /* of smtp and pagerduty: where */
  const char *from;              /* of smtp */
  const char *const *to;         /* of smtp */
  size_t to_count;
  bool plain;          /* of smtp: without TLS */
  pry_time digest;     /* 0: as the kind does; negative: none */
  unsigned per_minute; /* 0: as the kind does */
};

struct pry_credential_config {
  const char *name;
  const struct pry_secret *refresh_token;
  const struct pry_secret *access_token; /* may be NULL: renewed before the first use */
  const char *token_url;
  const char *grant; /* "oauth", "kimi" or "lua" */
  size_t index;      /* in the config; how a state finds the refresh function */
};

enum pry_condition { PRY_ANY, PRY_ONLY_FALSE, PRY_ONLY_TRUE };

/* `when = { … }` of a policy: events of on_error that do not fit are skipped in C, before Lua is entered. */
struct pry_when {
  enum pry_condition retryable, fallback, refresh_token, sent;
  enum pry_condition from_parry; /* source = "parry" → ONLY_TRUE, "provider" → ONLY_FALSE */
  uint32_t categories;           /* bits of enum pry_category; 0: all */
  uint32_t origins;              /* bits of enum pry_origin; 0: all */
  bool last;                     /* on_error is asked after everybody else's: what to do when nobody took it */
};

/* One `use` of a policy in a chain. */
struct pry_instance {
  const char *name;   /* "retry", or what `as` says; unique in its chain */
  const char *policy; /* "retry" */
  const char *file;   /* "retry.lua", for messages */
  size_t index;       /* in config->instances; how a state finds its functions */
  unsigned handlers;  /* PRY_HANDLER_BITs it has */
  struct pry_when when;
};

/* One periodic job of a policy instance. */
struct pry_job_config {
  const struct pry_instance *instance;
  size_t index; /* in the policy's `every` list */
  pry_time period;
};

/* One line of by_model: a glob over the call's model. */
struct pry_model_rule {
  const char *pattern; /* '*' matches any run of characters */
  const struct pry_provider *provider;
  const char *model; /* NULL: the call's own */
};

enum pry_session_kind { PRY_SESSION_DEFAULT, PRY_SESSION_HEADER, PRY_SESSION_FIELD };

struct pry_route {
  const char *pattern;                /* of the path, e.g. "/v1/…*" */
  const struct pry_model_rule *rules; /* most specific first; a call without a model matches only "*" */
  size_t rule_count;
  pry_time deadline; /* 120 s: from arrival to the commit point */
  struct pry_timeouts timeouts;
  pry_time max_stream; /* 0: none; after the commit point */
  /* slow_stream = { events, seconds, cut }: a stream with fewer than `slow_events` per second over a window of
   * `slow_window` counts as failing, as a timeout with the code "stream_too_slow". Counted are events with content and
   * ends, not heartbeats and lifecycle; the windows follow one another from the stream's head on, so the first must be
   * long enough for the first token. Time in which the client is the one to wait for does not count. Before the commit
   * the attempt fails and may be repeated. After it the answer goes on unless `slow_cut`, and on_outcome hears of the
   * failure when it has ended; with `slow_cut` the client gets an error event then and there. */
  double slow_events;
  pry_time slow_window; /* 0: none */
  bool slow_cut;
  /* A client that asked for a stream and has nothing after this time gets status 200, the head of a stream and a comment
   * every 10 s until there is content, so that no timeout of its own or on the way fires. Attempts go on being
   * repeated meanwhile, as no content has gone out; what fails in the end is an error event in the client's dialect. That
   * head cannot hold what is not known yet: parry-attempts, parry-target, Proxy-Status, the provider's own fields.
   * 0: never. */
  pry_time early_head;
  const char *client_dialect;    /* NULL: by path */
  enum pry_condition repeatable; /* ANY: by method and path */
  enum pry_session_kind session_kind;
  const char *session_name;
  unsigned max_attempts_per_call; /* 12 */
  unsigned max_targets;           /* 3 */
  double max_cost;   /* of a call's attempts, in the prices' currency, after which there is no other; 0: none */
  pry_time max_wait; /* that a call may spend waiting in all; 0: none */
  const struct pry_instance *const *chain;
  size_t chain_size;
};

/* A generation's whole configuration. */
struct pry_config {
  struct pry_arena arena;
  const struct pry_secret *secrets;
  size_t secret_count;
  const struct pry_dialect *const *dialects;
  size_t dialect_count;
  const struct pry_provider *providers;
  size_t provider_count;
  const struct pry_credential_config *credentials;
  size_t credential_count;
  const struct pry_service *services;
  size_t service_count;
  const struct pry_sink_config *sinks;
  size_t sink_count;
  const struct pry_route *routes; /* most specific first */
  size_t route_count;
  const struct pry_instance *const *instances;
  size_t instance_count;
  const struct pry_job_config *jobs;
  size_t job_count;
  const char *clients_file; /* of clients { }: absolute, or below the policy folder; NULL: calls need no key */
};

/* Defaults for a route that does not say. */
#define PRY_DEADLINE_DEFAULT (120 * PRY_SECOND)
#define PRY_CONNECT_DEFAULT (5 * PRY_SECOND)
#define PRY_FIRST_BYTE_DEFAULT (30 * PRY_SECOND)
#define PRY_IDLE_DEFAULT (60 * PRY_SECOND)
#define PRY_EARLY_HEAD_DEFAULT (5 * PRY_SECOND) /* early_head = true */
enum { PRY_MAX_ATTEMPTS_PER_CALL_DEFAULT = 12, PRY_MAX_TARGETS_DEFAULT = 3 };

/* Does `text` match a glob in which '*' stands for any run of characters? Linear time, no recursion. */
bool pry_glob_match(struct pry_slice pattern, struct pry_slice text);

/* How specific a pattern is: exact beats glob, then a longer literal part. Larger is more specific. */
size_t pry_glob_rank(struct pry_slice pattern);

/* The route for a path (no query); `rest` is what its '*' matched (empty for an exact pattern). NULL: none. */
const struct pry_route *pry_config_route(const struct pry_config *config, struct pry_slice path,
                                         struct pry_slice *rest);

/* The route with exactly this pattern; how a call finds its route again in a newer generation. */
const struct pry_route *pry_config_route_by_pattern(const struct pry_config *config, const char *pattern);

/* Where a route sends a model (empty: none named). NULL: nothing matches. */
const struct pry_model_rule *pry_route_rule(const struct pry_route *route, struct pry_slice model);

const struct pry_provider *pry_config_provider(const struct pry_config *config, struct pry_slice name);
const struct pry_dialect *pry_config_dialect(const struct pry_config *config, const char *name);
const struct pry_credential_config *pry_config_credential(const struct pry_config *config, const char *name);
const struct pry_sink_config *pry_config_sink(const struct pry_config *config, const char *name);
const struct pry_service *pry_config_service(const struct pry_config *config, const char *name);

/* What this model costs at that provider; NULL: nobody said. */
const struct pry_price *pry_provider_price(const struct pry_provider *provider, const char *model);

/* The dialect a client speaks on a path: "/v1/messages…" anthropic, all else openai, unless the route says. */
const char *pry_client_dialect(const struct pry_route *route, struct pry_slice path);

/* Can a client of `client` be answered by `target` without translation? As pry_dialect_carries(); what another dialect's
 * clients say counts as that dialect's when it `speaks` it. */
bool pry_config_carries(const struct pry_config *config, const struct pry_dialect *target, const char *client);

/* The dialect whose functions translate between a client of `client` and `target`, and the name of the pair there: the
 * target's own or, when it has none, those of the dialect it `speaks`; for the client's dialect or the one that speaks.
 * NULL: nobody translates. */
const struct pry_dialect *pry_config_translator(const struct pry_config *config, const struct pry_dialect *target,
                                                const char *client, const char **pair);

/* base_url and an API's path ("/v1/messages") in one URL. What base_url ends with already is not said twice
 * ("https://h/v1/messages", "https://h/v1"), and when it has a version of its own anywhere ("https://h/api/paas/v4",
 * "https://h/v1beta/openai") the path's is left out. False: memory. */
bool pry_join_api_url(struct pry_buffer *url, const char *base_url, const char *path);

/* Does a segment say "." or ".." to a server that resolves such (RFC 3986 §5.2.4)? Percent-encoded dots and slashes
 * count, and so do dots before a ";" parameter. Such a path could leave base_url, with the provider's key. */
bool pry_path_has_dot_segment(struct pry_slice path);

/* base_url + "/" + rest + "?" + query, with exactly one '/' between; false: memory. */
bool pry_join_url(struct pry_buffer *url, const char *base_url, struct pry_slice rest, struct pry_slice query);

/* Frees the arena with everything in it, the struct included in it. NULL is fine. */
void pry_config_free(struct pry_config *config);

#endif
