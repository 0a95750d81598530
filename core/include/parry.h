/*
 * parry.h: when a call goes wrong, a script that can be edited while it runs decides what happens next.
 *
 * The only installed C header: what is not in it does not exist. One engine, four ways to use it, all with the same
 * Lua files that the `parry` program runs:
 *
 *   parry_call()    hand over an HTTP call: parry makes the attempts, waits, switches targets, renews tokens, streams
 *                   the answer and gives one outcome;
 *   the same with `on_attempt`: you make each attempt, whatever it is (a query, a job, a device); parry says when, where
 *                   and whether again. Everything the policies can do (breakers, limits, queues, budgets) applies;
 *   parry_decide()  keep everything to yourself and ask "this failed: now what?"; parry_report() tells how it went;
 *   parry_emit()    tell the policies of anything else that happened.
 *
 * A whole host:
 *
 *     struct parry_options options = PARRY_OPTIONS_INIT;
 *     parry *engine;
 *     options.policy_dir = "/etc/parry/policies";
 *     if (parry_new(&engine, &options) == PARRY_OK) {
 *       struct parry_event event = PARRY_EVENT_INIT;
 *       struct parry_decision decision = PARRY_DECISION_INIT;
 *       event.target = "openai/gpt-4o", event.status = 503;
 *       if (parry_decide(engine, &event, &decision, NULL, NULL) == PARRY_OK && decision.action == PARRY_RETRY)
 *         sleep_and_try_again(decision.after);
 *     }
 *     parry_free(engine);
 *
 * Driving it. Callbacks come from parry_run(), parry_dispatch() and parry_free(), on the thread that called it, one
 * after another, and from nowhere else: not from inside parry_call(), not on a thread of parry's. (The one exception is
 * asked for by name: PARRY_ANY_THREAD.) There are two ways:
 *
 *   no threads      options.threads = 0: nothing happens but inside parry_run(engine, timeout);
 *   own threads     options.threads > 0: parry works by itself, what it has for the host waits behind the descriptor
 *                   parry_fd(), and parry_dispatch() delivers it: poll, epoll, libuv, asyncio, anything with a loop.
 *
 * Threads: every function may be called from any thread at any time, except that parry_free() must be the last use of
 * the engine, and that one thread at a time runs or dispatches. Engines do not know of each other.
 *
 * Memory: text passed in is copied, or used only during the call. Pointers given to callbacks are valid until the
 * callback returns. What a host leaves lying is bounded (PARRY_BUSY), and so is what a policy or a provider sends.
 *
 * Errors: any function may give PARRY_EFREED, PARRY_EFORKED and, from callbacks of parry_free(), PARRY_EREENTRANT; what
 * stores or begins something PARRY_ENOMEM. The others are named beside each function. All times are seconds.
 *
 * Your process: the library never calls abort() or exit(), installs no signal handlers, blocks all signals in its
 * threads, sends without SIGPIPE, and writes nothing to stdout or stderr. (libevent warns on stderr when the kernel refuses
 * it something. Whether it does is the process's to say, for all that use it: event_set_log_callback().) Numbers have
 * decimal points in all texts, whatever your locale. After fork() the child's copy of an engine is PARRY_EFORKED: it may be
 * freed there, which only forgets it, and the parent's goes on. Fork before parry_new().
 *
 * Growing: every struct begins with its `size`, set by its _INIT macro. A library reads no more than the host had, and
 * refuses (PARRY_EINVAL) what a newer host set and it does not know. 0.x: the SONAME has the minor version.
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

/* 0 is success, everything else is negative. Errors of the host's own making; what goes wrong with a call is told by its
 * outcome, in the words of the failure vocabulary: auth, permission, billing, rate_limit, overloaded, server, timeout,
 * network, invalid_request, not_found, context_length, content_policy, conflict, payload_too_large, cancelled, unknown. */
#define PARRY_ERRORS(X)                                                                                                \
  X(PARRY_OK, 0, "success")                                                                                            \
  X(PARRY_EINVAL, -1, "an argument is wrong")                                                                          \
  X(PARRY_ENOMEM, -2, "memory is short")                                                                               \
  X(PARRY_EPOLICY, -3, "the policies were refused; parry_findings() says why")                                         \
  X(PARRY_ENOENT, -4, "no such call, attempt or request; it may have ended")                                           \
  X(PARRY_EREENTRANT, -5, "not from inside a callback, nor while another thread runs or dispatches")                   \
  X(PARRY_PENDING, -6, "the decision waits; it is delivered later")                                                    \
  X(PARRY_ESYSTEM, -7, "the system refused descriptors, threads or memory")                                            \
  X(PARRY_BUSY, -8, "too much is open or undelivered; run or dispatch first")                                          \
  X(PARRY_EFORKED, -9, "this engine belongs to the parent process")                                                    \
  X(PARRY_EFREED, -10, "no engine, or one that was freed")

enum parry_error {
#define X(name, value, text) name = value,
  PARRY_ERRORS(X)
#undef X
};

/* A sentence for people; never NULL. */
PARRY_API const char *parry_strerror(int error);

/* ---- the engine ------------------------------------------------------------------------------------------- */

typedef struct parry parry;

/* A name and its value: an HTTP header, a secret. */
struct parry_header {
  const char *name, *value;
};

enum parry_log_level { PARRY_LOG_DEBUG, PARRY_LOG_INFO, PARRY_LOG_WARN, PARRY_LOG_ERROR };

/* An alert that a policy raised (`notify`), or that is over. Scrubbed of secrets, like everything that leaves. */
struct parry_alert {
  size_t size;
  const char *key;      /* names it while it is open */
  const char *sink;     /* whom the policy wants told */
  const char *severity; /* "info", "warning", "error", "critical" */
  const char *title;    /* one line; "" */
  const char *text;
  const char *cause; /* "server, HTTP 500"; "" */
  int resolved;      /* 0: opened, or still open and told again */
  unsigned long count;
};

/* How a look at the policies ended that changed something or was refused. */
struct parry_reload_info {
  size_t size;
  int error;              /* PARRY_OK: taken over; PARRY_EPOLICY: refused, the old ones go on */
  const char *generation; /* the one that serves now: its content hash in hex */
  const char *findings;   /* "file:line: text" lines; warnings also when it was taken over */
  int rolled_back;        /* the engine went back to this one by itself: its successor's policies faulted */
};

struct parry_options {
  size_t size;
  /* One of the two: */
  const char *policy_dir; /* the folder with init.lua, and with policies of one's own */
  const char *init_lua;   /* the text of an init.lua; there is no folder, and nothing to watch */
  /* The folder of the policies, dialects and libraries that came with parry: what init.lua names and policy_dir lacks is
   * taken from there. NULL: $PARRY_SHARE, else where they were installed with the library; "": nowhere. */
  const char *share_dir;
  const char *state_dir;              /* where rotated refresh tokens are kept, files 0600; NULL: nowhere */
  const char *ca_file;                /* certificates to trust, PEM, instead of the system's; NULL: the system's */
  const struct parry_header *secrets; /* found by `secret "NAME"` before files and environment are searched; copied */
  size_t secret_count;
  unsigned threads; /* of parry's own: 0 none, 1 one for everything, N one that leads and N that run calls; up to 255 */
  /* Decisions that can be made at the same moment, each with a Lua state of its own; above 64 it is 64. 0: 1, or with
   * threads as many as processors, up to 4. */
  unsigned deciders;
  size_t max_calls;    /* calls and decisions open or undelivered at a time, before PARRY_BUSY; 0: 4096 */
  size_t max_buffered; /* bytes of answers not yet delivered; above it providers are paused; 0: 64 MiB */
  int watch;           /* non-zero: a saved edit goes live by itself, and a bad one is refused */
  int log_level;       /* enum parry_log_level; the least that is told */
  void *user;          /* given to the callbacks below; any of them may be NULL */
  /* JSON lines, of which the last 1024 (and 1 MiB) wait to be collected; older ones are dropped and counted. */
  void (*log)(void *user, int level, const char *line, size_t line_size);
  void (*alert)(void *user, const struct parry_alert *alert);
  void (*reloaded)(void *user, const struct parry_reload_info *info);
};

#define PARRY_OPTIONS_INIT                                                                                             \
  {                                                                                                                    \
    sizeof(struct parry_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, PARRY_LOG_INFO, 0, 0, 0, 0                       \
  }

/* Loads the policies and makes an engine, to be given to parry_free(). On PARRY_EPOLICY *out is an engine, too, for
 * parry_findings() and parry_free(): calls, decisions, reports, events and reloads are PARRY_EPOLICY there. On every other
 * error it is NULL. PARRY_EINVAL: neither or both of policy_dir and init_lua, more than 255 threads, a secret without
 * name or value. PARRY_ESYSTEM: also for the 4001st engine. */
PARRY_API int parry_new(parry **out, const struct parry_options *options);

/* Ends every open call and decision (their callbacks come from inside, with category "cancelled"), waits for the threads
 * to end, and frees. PARRY_EREENTRANT from a callback, or while another thread runs or dispatches: nothing is freed. NULL
 * is fine. A handle that was freed is PARRY_EFREED everywhere; its place is given to none of the next 63 engines. */
PARRY_API int parry_free(parry *engine);

/* ---- driving it ------------------------------------------------------------------------------------------- */

/* Waits at most `timeout` seconds (0: not; negative: for ever, also when nothing is open) until something was delivered,
 * parry_wakeup() or a signal. Without threads this is also where all work is done. Returns how many calls and decisions are
 * open or undelivered, or an error. PARRY_EREENTRANT: another thread is here, or this is a callback. */
PARRY_API int parry_run(parry *engine, double timeout);

/* With threads: a descriptor that polls readable while there is something to deliver. Only poll it; it belongs to the
 * engine. PARRY_EINVAL without threads. */
PARRY_API int parry_fd(parry *engine);

/* Delivers what there is, without waiting, and returns as parry_run() does. What comes up meanwhile is left for the next
 * time, so that nobody is kept here. Without threads nothing moves on here: use parry_run(engine, 0). */
PARRY_API int parry_dispatch(parry *engine);

/* Makes a waiting parry_run() return. Any thread; also from a signal handler. */
PARRY_API void parry_wakeup(parry *engine);

/* ---- policies --------------------------------------------------------------------------------------------- */

/* Reads the policies again. wait non-zero: returns when they are taken over (PARRY_OK, also when nothing had changed) or
 * refused (PARRY_EPOLICY: the old ones go on); without threads PARRY_EREENTRANT from a callback or while another thread
 * runs. wait 0: returns at once, and options.reloaded tells what changed or was refused. */
PARRY_API int parry_reload(parry *engine, int wait);

/* What the last load or reload found, one "file:line: text" per line, as snprintf() would write it: at most size - 1
 * bytes and a NUL. Returns the length of it all; 0: nothing was found, or there is no engine. */
PARRY_API size_t parry_findings(parry *engine, char *buffer, size_t size);

struct parry_status {
  size_t size;
  char generation[65]; /* content hash in hex of what serves; "" before the first */
  char version[15];
  double loaded_at; /* Unix seconds */
  unsigned policies, policy_tests;
  unsigned long reloads, reloads_refused, rollbacks;
  unsigned long policy_faults; /* handlers that threw, looped, or answered nonsense */
  unsigned long log_lines_lost;
  size_t open;     /* calls and decisions */
  size_t buffered; /* bytes of answers undelivered */
};

#define PARRY_STATUS_INIT                                                                                              \
  {                                                                                                                    \
    sizeof(struct parry_status), {0}, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0                                                \
  }

/* Fills *status, whose size the caller has set. The counters are of this engine, since parry_new(). */
PARRY_API int parry_status(parry *engine, struct parry_status *status);

/* One sample of one metric, Prometheus's way: a histogram is its _bucket, _sum and _count samples. */
struct parry_sample {
  size_t size;
  const char *name, *type, *help; /* type: "counter", "gauge", "histogram" */
  const char *labels;             /* as in the text format, without braces: target="kimi/k2",category="ok"; "" */
  double value;
};

/* Gives every sample as it stands now to `each`, on this thread, before it returns; the texts are valid in `each` only. */
PARRY_API int parry_metrics(parry *engine, void (*each)(void *user, const struct parry_sample *sample), void *user);

/* ---- calls ------------------------------------------------------------------------------------------------ */

/* Names a call; 0 names none. Ids of the past are harmless: they are PARRY_ENOENT. */
typedef struct parry_call_id {
  uint64_t value;
} parry_call_id;

struct parry_request {
  size_t size;
  const char *method; /* NULL: "POST" */
  /* Begins with "/", as a client of the gateway would send it: "/v1/chat/completions"; a query may follow. Routes of
   * init.lua are found by it, also where no HTTP is meant. */
  const char *path;
  const char *target; /* "provider/model" of the first attempt; NULL: as the route says */
  const struct parry_header *headers;
  size_t header_count;
  const void *body; /* at most 16 MiB */
  size_t body_size;
};

#define PARRY_REQUEST_INIT                                                                                             \
  {                                                                                                                    \
    sizeof(struct parry_request), 0, 0, 0, 0, 0, 0, 0                                                                  \
  }

struct parry_outcome {
  size_t size;
  int ok;               /* a good answer, or a policy's own below 400 */
  int status;           /* what a client would have been told */
  const char *category; /* "none" when ok (metrics and logs say "ok"), else the failure vocabulary: "rate_limit", … */
  const char *code;     /* the provider's word for it: "insufficient_quota"; "" */
  const char *message;  /* "" when ok */
  const char *why;      /* the last words of the policies about it; "" */
  double retry_after;   /* seconds until it may work again; negative: not known */
  unsigned attempts;    /* made, refused ones not counted */
  const char *target;   /* "provider/model" of the last attempt */
  const char *call_id;  /* as in logs and the parry-call-id header */
  const char *generation;
  int truncated; /* the body given is not whole */
};

/* An attempt that the host is to make, see on_attempt. */
struct parry_attempt {
  size_t size;
  parry_call_id call;
  unsigned number;              /* 1, 2, … */
  const char *target;           /* "provider/model", or "provider" */
  const char *provider, *model; /* its parts; model may be "" */
  double deadline_left;         /* seconds; parry calls on_abandon when they are over */
  const void *body;             /* the request's, its model that of this target */
  size_t body_size;
};

#define PARRY_PAUSE 1

/* What a call tells. Order: on_headers, on_data …, on_done; headers come first, be it an error's, unless the call was
 * cancelled or memory was short. Any may be NULL. */
struct parry_call_ops {
  size_t size;
  void (*on_headers)(void *user, int status, const struct parry_header *headers, size_t header_count);
  /* Body bytes. PARRY_PAUSE: no more until parry_call_resume(); the provider is held back. */
  int (*on_data)(void *user, const void *data, size_t size);
  /* Exactly once, last, also after cancel and free. */
  void (*on_done)(void *user, const struct parry_outcome *outcome);
  /* Not NULL: parry does no I/O for this call. For each attempt it calls this, and the host does whatever the attempt is,
   * at its leisure, and tells the end with parry_attempt_done(), from anywhere, this callback included. The target may be
   * any provider of init.lua, also one with host = true, which has no address. Say repeatable = true in the route if the
   * work may be done twice; else only what cannot have happened is tried again, see parry_attempt_done(). Credentials are
   * the host's: verdicts renew and rotate are not carried out. */
  void (*on_attempt)(void *user, const struct parry_attempt *attempt);
  /* That attempt is not wanted any more (its time is up, the call was cancelled): what it may still bring is ignored. Also
   * after parry_call_cancel() and from parry_free(), before on_done. */
  void (*on_abandon)(void *user, parry_call_id call, unsigned number);
};

#define PARRY_CALL_OPS_INIT                                                                                            \
  {                                                                                                                    \
    sizeof(struct parry_call_ops), 0, 0, 0, 0, 0                                                                       \
  }

/* Starts a call. What is wrong with the call itself (no such route, no memory later on) is told by on_done, which comes if
 * and only if this returned PARRY_OK. PARRY_BUSY: max_calls are open, or max_buffered bytes undelivered. PARRY_EINVAL: no
 * path, or one without "/" in front; a header without name or value; a body over 16 MiB; and, unless the host makes the
 * attempts, a path that is not encoded as in a URL, or has a fragment, or a method that is none. PARRY_EPOLICY: see parry_new().
 * id may be NULL. */
PARRY_API int parry_call(parry *engine, const struct parry_request *request, const struct parry_call_ops *ops,
                         void *user, parry_call_id *id);

/* After PARRY_PAUSE: on_data goes on. Harmless when nothing is paused. PARRY_ENOENT: the call has ended. */
PARRY_API int parry_call_resume(parry *engine, parry_call_id id);

/* The attempt, the wait, the place in any queue end now. Once this has returned to the thread that dispatches, of the
 * callbacks only on_abandon and on_done come, later: on_done with category "cancelled", or with the outcome that was already
 * on its way. PARRY_ENOENT: the call has ended. */
PARRY_API int parry_call_cancel(parry *engine, parry_call_id id);

/* ---- what happened at the host ---------------------------------------------------------------------------- */

/* How something ended that the host did itself. Zero or NULL for what is not known. */
struct parry_event {
  size_t size;
  int ok; /* it went well; the fields that describe a failure are ignored */
  /* how it failed */
  int status;           /* HTTP status, 100 to 599; 0: none */
  int curl_code;        /* CURLcode; 0: none */
  const char *category; /* of the failure vocabulary; overrules what the rest says; NULL: classified by the rest */
  const char *code;     /* the failing thing's own word: "SQLITE_BUSY", "rate_limit_exceeded" */
  const char *message;  /* for people; no prompts, no completions */
  double retry_after;   /* seconds the other side asks to wait; 0: it did not say, or its headers do */
  int not_sent;         /* it failed before anything can have happened at the other side */
  const struct parry_header *headers; /* of the answer */
  size_t header_count;
  const void *body; /* of the answer; 64 KiB of it are looked at */
  size_t body_size;
  /* what it was: for parry_decide() and parry_report(); calls know it */
  const char *route;    /* pattern of the route in init.lua whose chain is asked; NULL: the first */
  const char *target;   /* "provider/model", or any name of what failed; NULL: "unknown" */
  unsigned attempt;     /* which one of the same work, from 1; 0: the first */
  double deadline_left; /* seconds the host is willing to go on; 0: the route's */
  int not_repeatable;   /* it must not be done twice, unless nothing was sent or the other side refused */
  double seconds;       /* it took; for parry_report() */
  /* an event of the host's own instead of a failure: handlers on_event are asked, see parry_emit() */
  const char *name;
  const char *fields; /* a JSON object that they see; NULL: {} */
};

#define PARRY_EVENT_INIT                                                                                               \
  {                                                                                                                    \
    sizeof(struct parry_event), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0                             \
  }

/* The end of an attempt that on_attempt asked for. ok: the call is done, `body` (with `status`, or 200, and `headers`) is
 * its answer, which comes back as on_headers and on_data, as it is. Else the policies decide. What may have happened is
 * repeated only if the route says repeatable = true, the event says not_sent, or the other side refused it: status 429, 503
 * with retry_after, "auth", "permission", "billing"; without a status also "rate_limit", and "overloaded" with retry_after. A
 * failure with neither category nor status nor curl_code is "unknown": not tried again, but another target may be.
 * PARRY_EINVAL: a category or status that is none, a name (that is for parry_decide()), a body over 16 MiB. PARRY_ENOENT:
 * nobody waits for that attempt any more. */
PARRY_API int parry_attempt_done(parry *engine, parry_call_id call, unsigned number, const struct parry_event *event);

enum parry_action {
  PARRY_FAIL, /* give up; also when no policy had anything to say */
  PARRY_RETRY,
  PARRY_FALLBACK, /* go to `target` */
  PARRY_RENEW,    /* get a new credential, then once more */
  PARRY_RESPOND   /* answer with `status` and `body` */
};

/* What to do. Plain data in the host's own memory: nothing to free, nothing that another thread changes. */
struct parry_decision {
  size_t size;
  int action;        /* enum parry_action */
  int status;        /* FAIL, RESPOND: what to answer */
  double after;      /* seconds to wait first; RETRY: never less than the other side asked for */
  char target[256];  /* FALLBACK */
  char category[32]; /* the failure as classified, or as fail{} says */
  char policy[64];   /* who decided; "" nobody */
  char why[256];
  /* RESPOND: the host may lend memory for the body. body_size is what it needs; what does not fit is cut. */
  char *body;
  size_t body_capacity, body_size;
};

#define PARRY_DECISION_INIT                                                                                            \
  {                                                                                                                    \
    sizeof(struct parry_decision), 0, 0, 0, {0}, {0}, {0}, {0}, 0, 0, 0                                                \
  }

/* Asks the chain about a failure (on_error), or about an event with a name (on_event). Synchronous, on this thread, and
 * from any number of threads (options.deciders of them at the same moment); also from callbacks.
 *
 * PARRY_OK: *decision is filled. PARRY_PENDING: a handler waits for something (http.request, a host function); *decision is
 * as it was, and `ready` comes with another one, from run, dispatch or free, exactly once. ready NULL: such a handler counts
 * as having nothing to say. PARRY_BUSY: it would have been PENDING, and max_calls are open. PARRY_EINVAL: no such route,
 * category or status, or fields that are no JSON object. PARRY_EPOLICY: see parry_new(). */
PARRY_API int parry_decide(parry *engine, const struct parry_event *event, struct parry_decision *decision,
                           void (*ready)(void *user, const struct parry_decision *decision), void *user);

/* Tells how an attempt of the host's own went, good or bad, so that breakers, health, budgets and alerts know of it: every
 * policy's on_outcome sees it. Who uses parry_decide() reports each attempt, then asks about the failed ones; attempts of
 * parry_call() are reported by themselves. Retries at a target of which something was reported in the last 10 seconds are
 * held to a budget: one for five attempts, but never fewer than 3. Errors as of parry_decide(), but never PARRY_PENDING
 * or PARRY_BUSY. */
PARRY_API int parry_report(parry *engine, const struct parry_event *event);

/* Tells the on_event handlers of all policies, once they can run, that something happened: a database failed over, a queue
 * is full, a device came back. name: at most 127 bytes. fields: a JSON object of at most 64 KiB; NULL: {}. Verdicts are
 * ignored; who wants one asks parry_decide(). PARRY_BUSY: 1024 events wait. PARRY_EINVAL: name or fields are not like that.
 * PARRY_EPOLICY: see parry_new(). */
PARRY_API int parry_emit(parry *engine, const char *name, const char *fields);

/* ---- host functions: what policies can ask the host --------------------------------------------------------- */

/* Names one request of a policy's; 0 names none. */
typedef struct parry_request_id {
  uint64_t value;
} parry_request_id;

/* A policy called host.call("name", arguments). The host answers with parry_reply(), once, from inside or later, from any
 * thread. arguments: JSON of one value, "null" for none, with a NUL behind its `size` bytes; valid until this returns. */
typedef void (*parry_function)(void *user, parry_request_id request, const char *arguments, size_t size);

enum {
  /* The function is called at once, on whatever thread the policy runs, several at a time, perhaps in the C locale: it must
   * be quick and guard its own data, and may call nothing of parry's but parry_reply(). Then a decision need not be pending
   * for it. */
  PARRY_ANY_THREAD = 1
};

/* Makes a function known to policies: host.call(name, arguments) in any handler, and host.has(name). Another one of the
 * same name takes its place, and the requests it has not been given; function NULL takes it back. Both wait until the old
 * one runs on no other thread, so that `user` can be freed then: hold no lock here that it wants. Names: 1 to 63 letters,
 * digits, "_", "-", "." (else PARRY_EINVAL); PARRY_BUSY: 256 are known; PARRY_ENOENT: nothing to take back. */
PARRY_API int parry_register(parry *engine, const char *name, parry_function function, void *user, unsigned flags);

/* The answer: one JSON value of at most 64 KiB, NULL for null; or, with error (at most 1 KiB of it), a failure, which the
 * policy sees as nil, err with err.category "failed" and err.message. PARRY_EINVAL: it is not JSON, or longer; the policy
 * sees "invalid_json". PARRY_ENOENT: it was answered, or nobody waits any more (a handler waits 10 seconds in all). */
PARRY_API int parry_reply(parry *engine, parry_request_id request, const char *json, const char *error);

#ifdef __cplusplus
}
#endif

#endif
