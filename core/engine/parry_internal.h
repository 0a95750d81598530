/*
 * parry_internal.h: what stands behind `struct parry`, shared by the files that implement parry.h:
 *
 *   parry.c           making, driving, freeing; what a handle is worth
 *   parry_policies.c  reloading, findings, status
 *   parry_call.c      calls
 *   parry_event.c, parry_decide.c, parry_report.c   what happened at the host: decisions and reports
 *   parry_function.c  host functions and events
 *   parry_tell.c      log lines, alerts, metrics
 *
 * Everything for the host goes through one outbox (mailbox.h, the collected kind): posted from any thread of the
 * engine's, delivered by parry_run(), parry_dispatch() and parry_free() on the host's. Nothing else calls the host
 * (but PARRY_ANY_THREAD functions). What is posted is embedded in its thing (a call, a decision), so posting cannot fail.
 *
 * Thread: fields say whose they are.
 */
#ifndef PRY_PARRY_INTERNAL_H
#define PRY_PARRY_INTERNAL_H

#include "call.h"
#include "engine.h"
#include "parry.h"

/* The binding's loader (bindings/lua/loader.c); named here so that core includes no binding header. */
extern const struct pry_loader pry_lua_loader;

struct pry_host_calls;
struct pry_host_decisions;
struct pry_host_functions;
struct pry_host_notices;
struct pry_host_policies;

/* What is behind a handle. */
struct pry_host {
  struct parry_options options; /* whole, its texts copied; constant */
  struct pry_loop *loop;        /* the control worker's: the host's thread in parry_run(), or our own */
  struct pry_http_options http_options;
  struct pry_http *http;
  struct pry_log *log;
  struct pry_engine *engine;
  struct pry_mailbox *outbox;
  int outbox_fd; /* an eventfd, readable while the outbox has something */
  /* Each module's own, made by it. */
  struct pry_host_calls *calls;
  struct pry_host_decisions *decisions;
  struct pry_host_functions *functions;
  struct pry_host_notices *notices;
  struct pry_host_policies *policies;
  atomic_size_t open;     /* calls and decisions not delivered to their end */
  atomic_size_t buffered; /* bytes of answers not delivered */
  atomic_bool freeing;    /* nothing begins any more */
  atomic_bool ended;      /* the engine is gone: no function of parry.h does anything any more */
  atomic_bool woken;      /* by parry_wakeup() */
  atomic_bool delivering; /* one thread at a time runs or dispatches */
};

/* What a handle names. NULL, with *error one of PARRY_EFREED and PARRY_EFORKED, when it names nothing any more. Any
 * thread. */
struct pry_host *pry_host_of(const parry *handle, int *error);

/* Takes what a host's struct of `size` bytes (its first member) says into ours, which may be longer or shorter: what it
 * does not have is 0; what it has and we do not must be 0. False: it is not, or `size` cannot be. */
bool pry_host_take(void *ours, size_t our_size, const void *theirs);

/* The other direction: writes no more than theirs has room for, and keeps its `size`. */
bool pry_host_give(void *theirs, const void *ours, size_t our_size);

/* Counts one more open call or decision. PARRY_BUSY: there are max_calls. */
int pry_host_open(struct pry_host *host);
void pry_host_close(struct pry_host *host);

/* Headers of the host's into a list of ours. PARRY_EINVAL: a NULL among them, what is no header, or more than one message
 * may have. PARRY_ENOMEM. */
int pry_host_headers(const struct parry_header *from, size_t count, struct pry_headers *headers);

/* The other way: names and values as NUL-terminated texts behind the array, in one block to be freed. NULL: memory. */
struct parry_header *pry_host_header_array(const struct pry_headers *headers);

/* Loads the policies, before the engine has threads. PARRY_OK, PARRY_EPOLICY (then findings say why), PARRY_ENOMEM or
 * PARRY_ESYSTEM. */
int pry_host_load(struct pry_host *host);

/* For the engine's options. */
void pry_host_rolled_back(void *user, const struct pry_rollback *rollback);

/* When the threads have stopped, before the engine is freed; and after the last delivery. */
void pry_host_policies_end(struct pry_host *host);
void pry_host_policies_fini(struct pry_host *host);

/* For parry_status(). Any thread. */
unsigned long pry_host_notices_lost(struct pry_host *host);
size_t pry_host_calls_buffered(struct pry_host *host);

/* Each module: makes its part (false: no memory), ends what is open so that its last deliveries are in the outbox or
 * made, and frees. `end` comes when the engine's threads have stopped and before the engine goes, `fini` after the last
 * delivery. What is not made (NULL) has no end. Between the two all functions of parry.h are PARRY_EREENTRANT. */
bool pry_host_calls_init(struct pry_host *host);
void pry_host_calls_end(struct pry_host *host);
void pry_host_calls_fini(struct pry_host *host);
bool pry_host_decisions_init(struct pry_host *host);
unsigned pry_host_deciders(const struct parry_options *options); /* how many the engine is to have */
void pry_host_decisions_end(struct pry_host *host);
void pry_host_decisions_fini(struct pry_host *host);
bool pry_host_functions_init(struct pry_host *host);
void pry_host_functions_end(struct pry_host *host);
void pry_host_functions_fini(struct pry_host *host);
/* Before the engine and its log. */
bool pry_host_notices_init(struct pry_host *host);
void pry_host_notices_fini(struct pry_host *host);
/* When there is an engine: its alerts are told to options.alert. */
void pry_host_notices_listen(struct pry_host *host);
/* A line for options.log; any thread. */
void pry_host_notices_log(void *host, enum pry_log_level level, const char *text, size_t size);

#endif
