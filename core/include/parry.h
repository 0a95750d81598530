/*
 * parry.h: a policy engine for calls that fail, with its policies in Lua.
 *
 * The only installed header: what is not in it does not exist. First form of the 0.x interface; its shape is stable,
 * more will be added behind the `size` fields.
 *
 * A host links libparry and either hands over its HTTP calls (parry_call: parry makes the attempts, waits, switches
 * targets and gives one outcome), or keeps its own I/O and asks what to do about a failure (parry_decide). Both use the
 * same Lua files as the `parry` program.
 *
 * Threads: an engine belongs to the thread that calls parry_run(); every function here must be called on that thread,
 * except parry_version(), parry_strerror() and parry_wakeup(). Several engines may run on several threads.
 * The library never calls abort() or exit(), installs no signal handlers (SIGPIPE is masked on its own sockets'
 * writes) and writes nothing to stdout or stderr.
 *
 * Memory: text passed in is copied or used only during the call. Pointers given to callbacks are valid until the
 * callback returns.
 */
#ifndef PARRY_H
#define PARRY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PARRY_API __attribute__((visibility("default")))
#else
#define PARRY_API
#endif

#define PARRY_VERSION_MAJOR 0
#define PARRY_VERSION_MINOR 1
#define PARRY_VERSION_PATCH 0
#define PARRY_VERSION "0.1.0"

/* The version of the library that is running, e.g. "0.1.0". */
PARRY_API const char *parry_version(void);

/* ---- errors ---------------------------------------------------------------------------------------------- */

/* 0 is success, everything else is negative. */
#define PARRY_ERRORS(X)                                                                                                \
  X(PARRY_OK, 0, "success")                                                                                            \
  X(PARRY_EINVAL, -1, "an argument is wrong")                                                                          \
  X(PARRY_ENOMEM, -2, "memory is short")                                                                               \
  X(PARRY_EPOLICY, -3, "the policies were refused; parry_report() says why")                                           \
  X(PARRY_ENOENT, -4, "no such call")                                                                                  \
  X(PARRY_EREENTRANT, -5, "not from inside a callback")                                                                \
  X(PARRY_PENDING, -6, "the decision waits; it is delivered later")                                                    \
  X(PARRY_ESYSTEM, -7, "the system refused descriptors or memory")

enum parry_error {
#define X(name, value, text) name = value,
  PARRY_ERRORS(X)
#undef X
};

/* A sentence for people; never NULL. */
PARRY_API const char *parry_strerror(int error);

/* ---- the engine ------------------------------------------------------------------------------------------- */

typedef struct parry parry;

enum parry_log_level { PARRY_LOG_DEBUG, PARRY_LOG_INFO, PARRY_LOG_WARN, PARRY_LOG_ERROR };

struct parry_options {
  size_t size;            /* sizeof(struct parry_options) */
  const char *policy_dir; /* the folder with init.lua; required */
  const char *state_dir;  /* where rotated refresh tokens are kept; NULL: nowhere */
  /* JSON lines, scrubbed of secrets; NULL: none. May be called from inside any function here. */
  void (*log)(void *user, enum parry_log_level level, const char *line, size_t line_size);
  void *log_user;
};

#define PARRY_OPTIONS_INIT                                                                                             \
  {                                                                                                                    \
    sizeof(struct parry_options), 0, 0, 0, 0                                                                           \
  }

/* Loads the policies and makes an engine. On PARRY_EPOLICY (and only then, besides success) *out is an engine that
 * can do nothing but parry_report() and parry_free(). */
PARRY_API int parry_new(parry **out, const struct parry_options *options);

/* What the last load of policies found, one "file:line: text" per line; "" when nothing. Valid until the next load. */
PARRY_API const char *parry_report(const parry *engine);

/* Cancels every open call (each on_done is called) and frees. NULL is fine. Not from inside a callback: ignored there. */
PARRY_API void parry_free(parry *engine);

/* Drives the engine: waits at most `timeout` seconds (0: does not wait; negative: until something happens) and runs
 * what is due, callbacks included. Returns the number of open calls and pending decisions, or PARRY_EREENTRANT. */
PARRY_API int parry_run(parry *engine, double timeout);

/* Makes a waiting parry_run() return. Any thread; also from a signal handler. */
PARRY_API void parry_wakeup(parry *engine);

/* Reads the folder again: PARRY_OK (taken over, or nothing had changed), or PARRY_EPOLICY: the old policies go on and
 * parry_report() says why. */
PARRY_API int parry_reload(parry *engine);

/* The serving generation's content hash in hex. */
PARRY_API const char *parry_generation(const parry *engine);

/* ---- calls: parry does the I/O ----------------------------------------------------------------------------- */

/* Names a call; 0 names none. Ids of the past are harmless: they are PARRY_ENOENT. */
typedef struct parry_call_id {
  uint64_t value;
} parry_call_id;

struct parry_header {
  const char *name, *value;
};

struct parry_request {
  size_t size;        /* sizeof(struct parry_request) */
  const char *method; /* NULL: "POST" */
  const char *path;   /* as a client of the gateway would send it, e.g. "/v1/chat/completions"; a query may follow */
  const struct parry_header *headers;
  size_t header_count;
  const void *body;
  size_t body_size;
};

#define PARRY_REQUEST_INIT                                                                                             \
  {                                                                                                                    \
    sizeof(struct parry_request), 0, 0, 0, 0, 0, 0                                                                     \
  }

struct parry_outcome {
  int ok;               /* a provider's good answer, or a policy's own below 400 */
  int status;           /* what a client would have been told */
  const char *category; /* "none" when ok, else the failure vocabulary: "rate_limit", "timeout", … */
  const char *message;  /* "" when ok */
  unsigned attempts;    /* sent upstream */
  const char *target;   /* "provider/model" of the last attempt */
  const char *call_id;  /* as in logs and the parry-call-id header */
  int truncated;        /* the body given is not whole */
};

struct parry_call_ops {
  size_t size; /* sizeof(struct parry_call_ops) */
  /* The answer's head. Any of these may be NULL. */
  void (*on_headers)(void *user, int status, const struct parry_header *headers, size_t header_count);
  /* Body bytes. Non-zero: pause until parry_call_resume(). */
  int (*on_data)(void *user, const void *data, size_t size);
  /* Exactly once, last; also after cancel and free. */
  void (*on_done)(void *user, const struct parry_outcome *outcome);
};

/* Starts a call. No callback is made from inside this function. PARRY_EINVAL also for a body over 16 MiB;
 * PARRY_EREENTRANT from callbacks of parry_free(). */
PARRY_API int parry_call(parry *engine, const struct parry_request *request, const struct parry_call_ops *ops,
                         void *user, parry_call_id *id);
PARRY_API int parry_call_resume(parry *engine, parry_call_id id);
/* on_done follows from parry_run(), with category "cancelled". */
PARRY_API int parry_call_cancel(parry *engine, parry_call_id id);

/* ---- decisions: the host does the I/O --------------------------------------------------------------------------- */

/* What failed. Zero or NULL for what the host does not know. */
struct parry_failure {
  size_t size;          /* sizeof(struct parry_failure) */
  const char *route;    /* pattern of a route in init.lua whose chain decides; NULL: the first */
  const char *target;   /* "provider/model", or any name of what failed */
  const char *event;    /* NULL: on_error handlers decide about an HTTP failure; else on_event with this name */
  const char *fields;   /* with event: a JSON object the handlers see */
  int status;           /* HTTP status; 0: none */
  int curl_code;        /* CURLcode; 0: none */
  const char *category; /* overrules what status and body say; NULL: classify */
  const struct parry_header *headers;
  size_t header_count;
  const void *body; /* of the error answer */
  size_t body_size;
  unsigned attempt;     /* which attempt of this call failed, from 1; 0: the first */
  double deadline_left; /* seconds the host is willing to go on; 0: the route's */
  int not_repeatable;   /* the request must not be sent twice */
};

#define PARRY_FAILURE_INIT                                                                                             \
  {                                                                                                                    \
    sizeof(struct parry_failure), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0                                             \
  }

enum parry_action { PARRY_FAIL, PARRY_RETRY, PARRY_FALLBACK, PARRY_RENEW, PARRY_RESPOND };

/* What to do. Text is valid until the next decision of this engine, or the end of the callback. */
struct parry_decision {
  enum parry_action action; /* PARRY_FAIL also when no policy had anything to say */
  double after;             /* seconds to wait first; never less than the server asked for */
  const char *target;       /* FALLBACK: where to */
  const char *category;     /* the failure as classified, or as fail{} says */
  int status;               /* FAIL, RESPOND: what to answer */
  const char *body;         /* RESPOND */
  const char *policy;       /* who decided; "" nobody */
  const char *why;
};

/* Asks the chain. PARRY_OK: *decision is filled. PARRY_PENDING: a handler waits for I/O; `ready` is called from
 * parry_run() with the same decision (ready NULL: such handlers count as having nothing to say). */
PARRY_API int parry_decide(parry *engine, const struct parry_failure *failure, struct parry_decision *decision,
                           void (*ready)(void *user, const struct parry_decision *decision), void *user);

#ifdef __cplusplus
}
#endif

#endif
