/*
 * verdict.h: what a policy may decide, as data.
 *
 * A verdict is plain data. A handler returns one, it is validated against the closed schema below (known
 * fields only, numbers in range, no NaN, no CR or LF in header text), and only then does call.c execute it.
 * Three tables say everything, and check, the Lua binding, the journal and the generated reference use them:
 * the handlers, the verdicts with the handlers that may return them, and the fields of each verdict.
 *
 * Pure data; any thread.
 */
#ifndef PRY_VERDICT_H
#define PRY_VERDICT_H

#include "failure.h"
#include "headers.h"

/* X(enumerator, name in Lua, one line for people). The first six are DESIGN §4's handler table; `every` and
 * `refresh` are jobs: they return no verdict to a call. */
#define PRY_HANDLERS(X)                                                                                                \
  X(PRY_ON_REQUEST, "on_request", "once per call")                                                                     \
  X(PRY_ON_ATTEMPT, "on_attempt", "before every attempt, knowing its target")                                          \
  X(PRY_ON_OUTCOME, "on_outcome", "after every attempt, success or failure")                                           \
  X(PRY_ON_ERROR, "on_error", "after a failed or refused attempt")                                                     \
  X(PRY_ON_DONE, "on_done", "once, with the outcome of the call")                                                      \
  X(PRY_ON_EVENT, "on_event", "a host application's own event")                                                        \
  X(PRY_ON_FAILURE, "on_failure", "once, when a call has failed for good: what its client is told")                    \
  X(PRY_EVERY, "every", "a job that runs periodically, once per engine")                                               \
  X(PRY_REFRESH, "refresh", "a credential's renewal, once per engine")

enum pry_handler {
#define X(name, text, doc) name,
  PRY_HANDLERS(X)
#undef X
      PRY_HANDLER_COUNT
};

#define PRY_HANDLER_BIT(handler) (1u << (handler))

/* X(enumerator, name in Lua, handlers that may return it) */
#define PRY_VERDICTS(X)                                                                                                \
  X(PRY_VERDICT_ROUTE, "route", PRY_HANDLER_BIT(PRY_ON_REQUEST))                                                       \
  X(PRY_VERDICT_RESPOND, "respond",                                                                                    \
    PRY_HANDLER_BIT(PRY_ON_REQUEST) | PRY_HANDLER_BIT(PRY_ON_ERROR) | PRY_HANDLER_BIT(PRY_ON_EVENT) |                  \
        PRY_HANDLER_BIT(PRY_ON_FAILURE))                                                                               \
  X(PRY_VERDICT_FAIL, "fail",                                                                                          \
    PRY_HANDLER_BIT(PRY_ON_REQUEST) | PRY_HANDLER_BIT(PRY_ON_ERROR) | PRY_HANDLER_BIT(PRY_ON_EVENT))                   \
  X(PRY_VERDICT_HOLD, "hold", PRY_HANDLER_BIT(PRY_ON_REQUEST) | PRY_HANDLER_BIT(PRY_ON_ATTEMPT))                       \
  X(PRY_VERDICT_REFUSE, "refuse", PRY_HANDLER_BIT(PRY_ON_ATTEMPT))                                                     \
  X(PRY_VERDICT_INJECT, "inject", PRY_HANDLER_BIT(PRY_ON_ATTEMPT))                                                     \
  X(PRY_VERDICT_RENEW, "renew", PRY_HANDLER_BIT(PRY_ON_ATTEMPT) | PRY_HANDLER_BIT(PRY_ON_ERROR))                       \
  X(PRY_VERDICT_RETRY, "retry", PRY_HANDLER_BIT(PRY_ON_ERROR) | PRY_HANDLER_BIT(PRY_ON_EVENT))                         \
  X(PRY_VERDICT_FALLBACK, "fallback", PRY_HANDLER_BIT(PRY_ON_ERROR))                                                   \
  X(PRY_VERDICT_ROTATE, "rotate", PRY_HANDLER_BIT(PRY_ON_ERROR))

enum pry_verdict_kind {
  PRY_VERDICT_NONE = 0,
#define X(name, text, handlers) name,
  PRY_VERDICTS(X)
#undef X
      PRY_VERDICT_COUNT
};

#define PRY_VERDICT_BIT(kind) (1u << (kind))

enum {
  PRY_TARGET_MAX = 256,       /* "provider/model", NUL included */
  PRY_KEY_MAX = 256,          /* store, queue and alert keys */
  PRY_WHY_MAX = 256,          /* bytes of `why` kept */
  PRY_RESPOND_MAX = 64 * 1024 /* bytes of a body a policy answers with */
};

/* One decision. Embedded in its owner; pry_verdict_init() before, pry_verdict_fini() after. Which fields mean
 * something depends on the kind: see PRY_VERDICT_FIELDS. */
struct pry_verdict {
  enum pry_verdict_kind kind;
  double after;               /* seconds; negative: not said */
  enum pry_category category; /* PRY_NONE: not said */
  int status;                 /* 0: not said */
  char code[PRY_FAILURE_CODE_MAX];
  char message[PRY_FAILURE_MESSAGE_MAX];
  char target[PRY_TARGET_MAX]; /* "provider/model" or a model at the same provider (without '/') */
  bool strip;               /* fallback, route: at another provider, without the parts that only this one understands */
  char key[PRY_KEY_MAX];    /* the instance's prefix already added */
  int slots;                /* 1..65535; 0: not said */
  int limit;                /* calls in any `per` seconds; 0: not said */
  double per;               /* seconds; 0: not said */
  double rate, burst, cost; /* tokens a second, tokens; 0: not said */
  int max_waiting;          /* in line; negative: not said */
  double max_wait;          /* seconds; negative: not said */
  double until_time;        /* Unix seconds; 0: not said */
  double delay;             /* seconds; inject */
  char curl[32];            /* inject: "timeout", "connect", "reset" */
  struct pry_headers headers;
  struct pry_buffer body;
  bool has_body;
  char why[PRY_WHY_MAX];
  const char *policy; /* instance that decided; lives as long as its generation */
  int line;           /* in the policy's file where the verdict was made, 0 if unknown */
};

enum pry_field_type {
  PRY_FIELD_SECONDS, /* finite number >= 0, at most 10 years */
  PRY_FIELD_TIME,    /* finite Unix seconds */
  PRY_FIELD_NUMBER,  /* finite number above 0, at most 1e12 */
  PRY_FIELD_INTEGER, /* within min..max */
  PRY_FIELD_BOOLEAN,
  PRY_FIELD_TEXT,     /* no NUL; cut to the field's size */
  PRY_FIELD_KEY,      /* as text, non-empty, refused when too long */
  PRY_FIELD_CATEGORY, /* a name of failure.h */
  PRY_FIELD_HEADERS,  /* table of text to text */
  PRY_FIELD_BODY      /* text, or a table that is encoded as JSON */
};

/* X(name, type, kinds that have it, kinds that must have it, min, max) */
#define PRY_VERDICT_FIELDS(X)                                                                                          \
  X(after, PRY_FIELD_SECONDS,                                                                                          \
    PRY_VERDICT_BIT(PRY_VERDICT_RETRY) | PRY_VERDICT_BIT(PRY_VERDICT_FALLBACK) | PRY_VERDICT_BIT(PRY_VERDICT_REFUSE) | \
        PRY_VERDICT_BIT(PRY_VERDICT_FAIL) | PRY_VERDICT_BIT(PRY_VERDICT_HOLD),                                         \
    0, 0, 0)                                                                                                           \
  X(category, PRY_FIELD_CATEGORY,                                                                                      \
    PRY_VERDICT_BIT(PRY_VERDICT_FAIL) | PRY_VERDICT_BIT(PRY_VERDICT_REFUSE) | PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, \
    0)                                                                                                                 \
  X(status, PRY_FIELD_INTEGER,                                                                                         \
    PRY_VERDICT_BIT(PRY_VERDICT_RESPOND) | PRY_VERDICT_BIT(PRY_VERDICT_FAIL) | PRY_VERDICT_BIT(PRY_VERDICT_INJECT), 0, \
    200, 599)                                                                                                          \
  X(code, PRY_FIELD_TEXT,                                                                                              \
    PRY_VERDICT_BIT(PRY_VERDICT_FAIL) | PRY_VERDICT_BIT(PRY_VERDICT_REFUSE) | PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, \
    0)                                                                                                                 \
  X(message, PRY_FIELD_TEXT,                                                                                           \
    PRY_VERDICT_BIT(PRY_VERDICT_FAIL) | PRY_VERDICT_BIT(PRY_VERDICT_REFUSE) | PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, \
    0)                                                                                                                 \
  X(target, PRY_FIELD_KEY, PRY_VERDICT_BIT(PRY_VERDICT_ROUTE) | PRY_VERDICT_BIT(PRY_VERDICT_FALLBACK),                 \
    PRY_VERDICT_BIT(PRY_VERDICT_FALLBACK), 0, 0)                                                                       \
  X(strip, PRY_FIELD_BOOLEAN, PRY_VERDICT_BIT(PRY_VERDICT_FALLBACK) | PRY_VERDICT_BIT(PRY_VERDICT_ROUTE), 0, 0, 0)     \
  X(key, PRY_FIELD_KEY, PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, 0)                                                    \
  X(slots, PRY_FIELD_INTEGER, PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 1, 65535)                                          \
  X(limit, PRY_FIELD_INTEGER, PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 1, 100000)                                         \
  X(per, PRY_FIELD_NUMBER, PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, 0)                                                 \
  X(rate, PRY_FIELD_NUMBER, PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, 0)                                                \
  X(burst, PRY_FIELD_NUMBER, PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, 0)                                               \
  X(cost, PRY_FIELD_NUMBER, PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, 0)                                                \
  X(max_waiting, PRY_FIELD_INTEGER, PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, 65535)                                    \
  X(max_wait, PRY_FIELD_SECONDS, PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, 0)                                           \
  X(until_time, PRY_FIELD_TIME, PRY_VERDICT_BIT(PRY_VERDICT_HOLD), 0, 0, 0)                                            \
  X(delay, PRY_FIELD_SECONDS, PRY_VERDICT_BIT(PRY_VERDICT_INJECT), 0, 0, 0)                                            \
  X(curl, PRY_FIELD_TEXT, PRY_VERDICT_BIT(PRY_VERDICT_INJECT), 0, 0, 0)                                                \
  X(headers, PRY_FIELD_HEADERS,                                                                                        \
    PRY_VERDICT_BIT(PRY_VERDICT_ROUTE) | PRY_VERDICT_BIT(PRY_VERDICT_RESPOND) | PRY_VERDICT_BIT(PRY_VERDICT_INJECT),   \
    0, 0, 0)                                                                                                           \
  X(body, PRY_FIELD_BODY, PRY_VERDICT_BIT(PRY_VERDICT_RESPOND) | PRY_VERDICT_BIT(PRY_VERDICT_INJECT), 0, 0, 0)         \
  X(why, PRY_FIELD_TEXT, ~0u, 0, 0, 0)

/* One row of the field table. */
struct pry_verdict_field {
  const char *name;
  enum pry_field_type type;
  unsigned kinds, required;
  long min, max;
  size_t offset, size; /* of the member in struct pry_verdict */
};

extern const struct pry_verdict_field pry_verdict_fields[];
extern const size_t pry_verdict_field_count;

const char *pry_handler_name(enum pry_handler handler);
const char *pry_handler_doc(enum pry_handler handler);
const char *pry_verdict_name(enum pry_verdict_kind kind); /* "none" for PRY_VERDICT_NONE */

/* Do verdicts of this handler count? on_outcome and on_done only observe. */
bool pry_handler_decides(enum pry_handler handler);

/* May this handler return this verdict? PRY_VERDICT_NONE always. */
bool pry_verdict_allowed(enum pry_handler handler, enum pry_verdict_kind kind);

/* The names a handler may return, as "retry, fallback, renew, fail, respond"; for error texts. Static. */
const char *pry_verdict_allowed_names(enum pry_handler handler, char *text, size_t size);

/* Kind NONE, numbers "not said", texts empty. */
void pry_verdict_init(struct pry_verdict *verdict);
void pry_verdict_fini(struct pry_verdict *verdict);

/* Whole-verdict rules that single fields cannot say (hold needs key or until_time; inject needs something to
 * inject; fail needs a category unless it has a status). Returns NULL when valid, else a static sentence. */
const char *pry_verdict_complaint(const struct pry_verdict *verdict);

#endif
