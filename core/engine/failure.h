/*
 * failure.h: what can go wrong, in words that everything else shares.
 *
 * One table per vocabulary; the enum, the strings that Lua, logs, metrics and the generated reference
 * use, and the defaults by HTTP status all come from it. A mapping never destroys evidence: raw status,
 * code and message stay beside the mapped category in struct pry_failure.
 *
 * Pure functions and constants; any thread.
 */
#ifndef PRY_FAILURE_H
#define PRY_FAILURE_H

#include "slice.h"

/* X(enumerator, string, origin, retryable, fallback, one line for people)
 * retryable: would the same request to the same target work after a wait, nothing changed?
 * fallback: is another target the useful next step, at once or once retries are spent?
 * Both are defaults that a dialect may overrule for one error. */
#define PRY_CATEGORIES(X)                                                                                              \
  X(PRY_AUTH, "auth", PRY_ORIGIN_CLIENT, false, false, "the credential is missing, wrong or expired")                  \
  X(PRY_PERMISSION, "permission", PRY_ORIGIN_CLIENT, false, true, "the credential may not use this model or feature")  \
  X(PRY_BILLING, "billing", PRY_ORIGIN_BILLING, false, true, "quota or balance is used up")                            \
  X(PRY_RATE_LIMIT, "rate_limit", PRY_ORIGIN_CLIENT, true, true, "too many requests or tokens in a window")            \
  X(PRY_OVERLOADED, "overloaded", PRY_ORIGIN_SERVER, true, true, "the provider is short of capacity")                  \
  X(PRY_SERVER, "server", PRY_ORIGIN_SERVER, true, true, "the provider failed")                                        \
  X(PRY_TIMEOUT, "timeout", PRY_ORIGIN_SERVER, true, true, "no answer in time")                                        \
  X(PRY_NETWORK, "network", PRY_ORIGIN_NETWORK, true, true, "the connection could not be made, or broke")              \
  X(PRY_INVALID_REQUEST, "invalid_request", PRY_ORIGIN_CLIENT, false, false, "the request itself is wrong")            \
  X(PRY_NOT_FOUND, "not_found", PRY_ORIGIN_CLIENT, false, true, "no such model or path")                               \
  X(PRY_CONTEXT_LENGTH, "context_length", PRY_ORIGIN_CLIENT, false, true, "the prompt is longer than the model takes") \
  X(PRY_CONTENT_POLICY, "content_policy", PRY_ORIGIN_CLIENT, false, true, "refused by the provider's content rules")   \
  X(PRY_CONFLICT, "conflict", PRY_ORIGIN_CLIENT, true, false, "another request is in the way")                         \
  X(PRY_PAYLOAD_TOO_LARGE, "payload_too_large", PRY_ORIGIN_CLIENT, false, false, "the request is too large")           \
  X(PRY_CANCELLED, "cancelled", PRY_ORIGIN_CLIENT, false, false, "the client left")                                    \
  X(PRY_UNKNOWN, "unknown", PRY_ORIGIN_SERVER, false, true, "nobody could say")

#define PRY_ORIGINS(X)                                                                                                 \
  X(PRY_ORIGIN_CLIENT, "client")                                                                                       \
  X(PRY_ORIGIN_SERVER, "server")                                                                                       \
  X(PRY_ORIGIN_NETWORK, "network")                                                                                     \
  X(PRY_ORIGIN_BILLING, "billing")

enum pry_origin {
#define X(name, string) name,
  PRY_ORIGINS(X)
#undef X
};

enum pry_category {
  PRY_NONE = 0, /* no failure; never appears in a failure that reaches a policy */
#define X(name, string, origin, retryable, fallback, doc) name,
  PRY_CATEGORIES(X)
#undef X
      PRY_CATEGORY_COUNT
};

/* Who found the failure: the provider's answer (or silence), or parry itself, with nothing sent. */
enum pry_source { PRY_SOURCE_PROVIDER, PRY_SOURCE_PARRY };

enum { PRY_FAILURE_CODE_MAX = 64, PRY_FAILURE_MESSAGE_MAX = 512 };

/* One failure, plain data, copied by value. Text fields are NUL-terminated, cut at a UTF-8 boundary. */
struct pry_failure {
  enum pry_category category;
  enum pry_origin origin;
  enum pry_source source;
  int status;         /* HTTP status as received, 0 when there was none */
  int curl_code;      /* CURLcode, 0 when the transport did not fail */
  double retry_after; /* seconds, relative to when the answer arrived; negative: not said */
  bool retryable;
  bool retry_forbidden; /* the provider said x-should-retry: false; no policy can overrule it at that target */
  bool fallback;
  bool refresh_token; /* would a new credential help */
  bool sent;          /* could the provider have begun to act on the request */
  char code[PRY_FAILURE_CODE_MAX];
  char message[PRY_FAILURE_MESSAGE_MAX];
};

const char *pry_category_name(enum pry_category category); /* "none" for PRY_NONE */
const char *pry_category_doc(enum pry_category category);
const char *pry_origin_name(enum pry_origin origin);
const char *pry_source_name(enum pry_source source);

/* PRY_NONE when there is no such category. */
enum pry_category pry_category_from_name(struct pry_slice name);

/* A failure of that category with the table's defaults: origin, retryable, fallback, refresh_token (auth),
 * retry_after unknown, source provider, empty texts. */
struct pry_failure pry_failure_of(enum pry_category category);

/* The built-in status table (CONTRACT, "Failure table"): what answers when a dialect cannot. A status
 * below 400 gives PRY_NONE. An unlisted 4xx is invalid_request, an unlisted 5xx server. */
struct pry_failure pry_failure_from_status(int status);

/* Could a provider have begun to act when curl failed so? False for what fails before a request is sent: names, the
 * connection, TLS with its certificates, a proxy's refusal (libcurl-errors(3)). For failures that others report; parry's
 * own client knows how far it came. */
bool pry_curl_code_sent(int curl_code);

/* A transport failure: curl's timeouts are `timeout`, everything else `network`. `sent` as in the struct. */
struct pry_failure pry_failure_from_curl(int curl_code, bool sent);

/* Sets category and what follows from it (origin, retryable, fallback, refresh_token); keeps the evidence. */
void pry_failure_set_category(struct pry_failure *failure, enum pry_category category);

/* Did the other side say no before it did anything? Then promise 7 is not in the way of another attempt. By the status; where
 * a host told the failure, which need not have one, also by the category. */
bool pry_failure_is_refusal(const struct pry_failure *failure, bool told_by_host);

/* Copies text into a failure's field, cut at a UTF-8 boundary, control characters replaced by spaces. */
void pry_failure_set_code(struct pry_failure *failure, struct pry_slice code);
void pry_failure_set_message(struct pry_failure *failure, struct pry_slice message);

/* The status parry answers with when it made the failure itself, or when a provider's failure has no
 * status of its own (CONTRACT, "parry's own errors"). */
int pry_failure_client_status(const struct pry_failure *failure);

#endif
