/*
 * policy.h: between the core, which acts, and the scripts, which decide.
 *
 * One side is implemented by the Lua binding (bindings/lua) and, in unit tests, by plain C: it loads a set of files
 * into a generation, makes a state of it per worker, and answers one handler at a time. The other side is chain
 * logic in C (policy.c): which instances see an event, in which order, and when the first verdict wins. The core
 * never sees a script; a script never sees a C structure that can go away, only the views below.
 *
 *   generation  immutable: its files, its id (content hash), its configuration. Shared, counted references.
 *   state       one worker's loaded copy of a generation. Belongs to the worker's thread.
 *   ask         one run of one handler: in is what happened, out is a verdict. May wait for I/O (PENDING).
 *
 * What a policy does wrong stays in its ask: a throw, an endless loop, too much memory or a nonsense verdict gives
 * PRY_ASK_FAULT, the fault is counted and told by the state, and the chain goes on as if the policy had said nothing.
 */
#ifndef PRY_POLICY_H
#define PRY_POLICY_H

#include "config.h"
#include "event.h"
#include "failure.h"
#include "permit.h"
#include "verdict.h"

enum { PRY_CLIENT_NAME_MAX = 64 };

struct pry_worker;
struct pry_state;
struct pry_vars;

/* ---- What scripts see of a call ------------------------------------------------------------------------ */

/* One upstream try, as it stands in the ledger. */
struct pry_attempt {
  char target[PRY_TARGET_MAX]; /* "provider/model" */
  enum pry_category category;  /* PRY_NONE: success, or not ended */
  int status;
  double started, ended;         /* Unix seconds; ended 0 while open */
  struct pry_failure failure;    /* valid when category is not PRY_NONE */
  bool refused;                  /* nothing was sent: on_attempt refused it */
  bool injected;                 /* nothing was sent: an `inject` verdict played the provider */
  bool free;                     /* after a renewal: not charged to the retry budget */
  char key[PRY_SECRET_NAME_MAX]; /* name of the provider's secret that it was sent with; "" where auth is none */
  uint64_t key_version;          /* of that secret's value, see keys.h */
  struct pry_spending spent;     /* known when it has ended */
  double first_byte;             /* seconds from connecting to the first byte of the answer's body, or to the end of an
                                 answer without one; 0: there was no answer */
};

/* Where the call is being sent. */
struct pry_target {
  const struct pry_provider *provider; /* of the call's generation */
  char model[PRY_TARGET_MAX];          /* may be empty */
  char name[PRY_TARGET_MAX];           /* "provider/model", or "provider" without a model */
  unsigned attempts;                   /* made at this target so far in this call, the open one included */
  char key[PRY_SECRET_NAME_MAX];       /* name of the secret it is made with; "": none is usable, or auth is none */
};

/* Plain data that a call (or a host's decision) keeps current; scripts read it through userdata. All pointers are
 * valid while an ask that carries it is open. */
struct pry_call_view {
  char id[PRY_CALL_ID_MAX]; /* "c_" worker "_" sequence, in base 36 */
  const char *route;        /* pattern; "" for a host's decision */
  const char *dialect;      /* the client's */
  struct pry_slice method, path;
  char model[PRY_TARGET_MAX];       /* as the client asked */
  char session[128];                /* "" when there is none */
  char client[PRY_CLIENT_NAME_MAX]; /* whose key the call came with; "" when calls need none */
  unsigned attempt;                 /* number of the current or last attempt, from 1; 0 before the first */
  pry_time deadline;                /* on the loop's clock */
  bool repeatable;
  struct pry_target target;
  const struct pry_attempt *ledger;
  size_t ledger_count;
  const struct pry_headers *headers; /* the client's, credentials stripped */
  struct pry_slice body;             /* for call.json(); never recorded */
  bool body_passes;                  /* it is too long to be kept, and `body` is empty */
  bool body_is_json;                 /* all of `body` was read already, and is a JSON object */
  struct pry_vars *vars;             /* per-call scratch, kept in C, survives reload */
};

/* Per-call scratch: at most 64 names of at most 64 bytes, values at most 1 KiB as encoded by the binding. */
struct pry_vars *pry_vars_new(void);
void pry_vars_free(struct pry_vars *vars);
void pry_vars_clear(struct pry_vars *vars); /* keeps its memory, as far as it is not of values */
bool pry_vars_set(struct pry_vars *vars, struct pry_slice name, struct pry_slice value); /* empty value removes */
bool pry_vars_get(const struct pry_vars *vars, struct pry_slice name, struct pry_slice *value);
/* The i-th name and value in the order of first setting; false past the end. */
bool pry_vars_at(const struct pry_vars *vars, size_t i, struct pry_slice *name, struct pry_slice *value);

/* How a call ended. */
struct pry_outcome {
  bool ok;                    /* the client got a provider's good answer, or a policy's respond{} below 400 */
  int status;                 /* what the client was told */
  enum pry_category category; /* PRY_NONE when ok */
  unsigned attempts;          /* sent upstream */
  bool committed;             /* the client had content before the end */
  struct pry_failure failure; /* when not ok */
  struct pry_spending spent;  /* of all attempts, the failed ones included */
};

/* A host's own event. */
struct pry_host_event {
  const char *name;
  struct pry_slice fields; /* a JSON object */
};

/* A renewal: what `refresh` is given and what it gives back. */
struct pry_renewal {
  const struct pry_credential_config *credential;
  struct pry_slice refresh_token;             /* the live one: newer than the config's secret after a rotation */
  struct pry_buffer token, new_refresh_token; /* out; empty: none */
  double expires_in;                          /* out; seconds; negative: not said */
  char error[256];                            /* out, with PRY_ASK_FAULT or an empty token: why */
};

/* ---- Asking ---------------------------------------------------------------------------------------------- */

enum pry_ask_status {
  PRY_ASK_DONE,    /* ask->verdict is valid (may be NONE) */
  PRY_ASK_PENDING, /* waits for I/O; ask->ready comes later, exactly once, unless cancelled */
  PRY_ASK_FAULT    /* the handler failed; ask->fault says how; ask->verdict is NONE */
};

/* One run of one handler. Filled by the asker, who owns it and keeps it until it is done or cancelled. */
struct pry_ask {
  enum pry_handler handler;
  const struct pry_instance *instance; /* NULL for PRY_REFRESH */
  struct pry_call_view *call;          /* NULL for on_event without a call, every, refresh */
  const struct pry_failure *failure;   /* on_error, on_failure; on_event of a failure */
  const struct pry_attempt *attempt;   /* on_outcome */
  const struct pry_headers *fields;    /* on_outcome: those of the attempt's answer */
  const struct pry_outcome *outcome;   /* on_done */
  const struct pry_host_event *event;  /* on_event */
  const struct pry_job_config *job;    /* every */
  struct pry_renewal *renewal;         /* refresh */
  struct pry_list *permits;            /* where a host function puts what it takes (breaker probes); may be NULL */
  void (*ready)(struct pry_ask *ask, enum pry_ask_status status); /* after PENDING, from the loop */
  void *user;
  /* out */
  struct pry_verdict verdict; /* initialised and finished by the asker */
  enum pry_run_result result;
  char fault[256];
  uint64_t record; /* position of its event record in the worker's ring */
  void *task;      /* the state's, while pending */
  struct pry_state *state;
};

/* A provider's answer as `classify` sees it. */
struct pry_answer_view {
  const char *provider; /* may be "" */
  int status;
  const struct pry_headers *headers;
  struct pry_slice body; /* bounded: at most 64 KiB of it */
  bool in_stream;        /* the body is the data of one SSE event */
  struct pry_slice event_type;
};

enum pry_render { PRY_RENDER_BODY, PRY_RENDER_STREAM_EVENT, PRY_RENDER_RESPONSES_EVENT };

/* ---- Translating -----------------------------------------------------------------------------------------
 *
 * For calls whose client and target speak different dialects, and for bodies that go to another provider than they were
 * made for. The functions are Lua's, in dialects/NAME.lua; which ones, the caller has found with pry_config_translator().
 * Long texts of a body, and the members that the dialect declares opaque, stay in C: scripts hold handles of them. */

enum pry_translate_step {
  PRY_TRANSLATE_REQUEST, /* the client's body becomes the target's */
  PRY_TRANSLATE_ANSWER,  /* the target's whole good answer becomes the client's */
  PRY_TRANSLATE_EVENT,   /* one event of the target's stream becomes none, one or several of the client's */
  PRY_TRANSLATE_FINISH,  /* the target's stream has ended well: what the client's still lacks */
  PRY_TRANSLATE_STRIP    /* parts that are bound to one provider go out of a body; no translation */
};

enum pry_translate_result {
  PRY_TRANSLATED,          /* `out` has the text */
  PRY_TRANSLATE_UNCHANGED, /* STRIP: there is nothing to take out */
  PRY_TRANSLATE_REFUSED,   /* `why` names what cannot be translated */
  PRY_TRANSLATE_TOO_LARGE, /* for a script's limits, or for the limit of `out`; `why` names size and bound */
  PRY_TRANSLATE_FAILED     /* the function faulted, which was told; `why` is for people, without file and line */
};

enum { PRY_TRANSLATE_WHY_MAX = 384, PRY_TRANSLATE_PATH_MAX = 128, PRY_TRANSLATE_MEMORY_MAX = 16 * 1024 };

/* One step. Filled by the asker, who owns everything it points to. On any result but TRANSLATED, `out` and
 * `memory` are as they were. */
struct pry_translation {
  enum pry_translate_step step;
  const struct pry_dialect *dialect; /* of the state's generation: whose functions */
  const char *client;                /* the pair's name in dialect->pairs; NULL for STRIP */
  const char *call_id;
  const char *model;           /* REQUEST: the target's */
  struct pry_slice path;       /* REQUEST, STRIP: the client's */
  struct pry_slice type, data; /* EVENT: an event; REQUEST, ANSWER, STRIP: `data` is a body */
  struct pry_buffer *out;      /* appended to; its limit holds */
  struct pry_buffer *memory;   /* a JSON object of at most PRY_TRANSLATE_MEMORY_MAX bytes, or empty: what the functions
                                 * remember of the attempt. REQUEST writes it, later steps read and write it. Plain data,
                                 * so that it outlives a reload and the state; NULL for STRIP */
  struct pry_headers *headers; /* REQUEST: set in this list; those to be removed are removed from it */
  char target_path[PRY_TRANSLATE_PATH_MAX]; /* out, REQUEST: the API's path at the target, "/v1/messages" */
  char why[PRY_TRANSLATE_WHY_MAX];          /* out */
};

/* What a state can do. All on the worker's thread. */
struct pry_state_ops {
  /* Runs a handler. Never calls ask->ready from inside. */
  enum pry_ask_status (*ask)(struct pry_state *state, struct pry_ask *ask);
  /* Ends a pending ask without `ready`. The coroutine is closed, its I/O cancelled. */
  void (*cancel)(struct pry_state *state, struct pry_ask *ask);
  /* The dialect's own words for an answer; false: it has none, or failed: use the status table. `failure` comes in
   * as the status table sees it, retry_after already set. */
  bool (*classify)(struct pry_state *state, const struct pry_dialect *dialect, const struct pry_answer_view *answer,
                   struct pry_failure *failure);
  /* Appends a failure as this dialect's clients expect it: a JSON body, or one whole SSE event. False: use the
   * built-in form. */
  bool (*render)(struct pry_state *state, const struct pry_dialect *dialect, const struct pry_failure *failure,
                 const char *call_id, enum pry_render form, struct pry_buffer *out);
  /* Runs one step of a translation, through the one protected door with its budgets (a REQUEST, ANSWER or STRIP gets as
   * many times a handler's budget as its body has MiB, rounded up). Never waits. May be NULL where there are no pairs. */
  enum pry_translate_result (*translate)(struct pry_state *state, struct pry_translation *translation);
  /* Bytes of script memory in use; for status. */
  size_t (*memory)(const struct pry_state *state);
  /* Cancels what is pending and frees. */
  void (*free)(struct pry_state *state);
};

/* First member of every implementation. */
struct pry_state {
  const struct pry_state_ops *ops;
  struct pry_generation *generation;
  struct pry_worker *worker;
  unsigned references; /* pending asks and calls keep it; freed by pry_state_unref() at 0 */
  bool counted;        /* in generation->live_states */
};

void pry_state_ref(struct pry_state *state);
void pry_state_unref(struct pry_state *state); /* NULL is fine */

/* ---- Chains ---------------------------------------------------------------------------------------------- */

/* Does `when` let this failure through? */
bool pry_when_matches(const struct pry_when *when, const struct pry_failure *failure);

/* A pass of one event over a chain. Embedded in its owner (a call). The walk:
 *   on_request, on_attempt  in order; after each verdict the owner executes it and says go on or stop
 *   on_outcome, on_done     every instance, verdicts ignored
 *   on_error, on_event, on_failure   in order until one gives a verdict; on_error first of those without `when.last`,
 *                           then of those with it
 * The owner is told each verdict, and the end, through `step`; never from inside pry_pass_start() or _next(), which
 * return what happened at once when nothing had to wait. */
enum pry_pass_result {
  PRY_PASS_VERDICT, /* pass->ask.verdict, by pass->ask.instance */
  PRY_PASS_END,     /* nobody (else) had anything to say */
  PRY_PASS_PENDING  /* `step` comes later */
};

struct pry_pass {
  struct pry_ask ask;
  struct pry_state *state; /* referenced while the pass runs */
  const struct pry_route *route;
  size_t position; /* of the next instance */
  bool running, waiting;
  bool last_lap;   /* of on_error: those who asked to be last */
  unsigned faults; /* in this pass */
  void (*step)(struct pry_pass *pass, enum pry_pass_result result);
  void *user;
};

/* Begins a pass. The caller has set pass->ask's inputs (call, failure, attempt, outcome, event, permits), and `step`
 * and `user` here. */
enum pry_pass_result pry_pass_start(struct pry_pass *pass, struct pry_state *state, const struct pry_route *route,
                                    enum pry_handler handler);

/* After a verdict: goes on with the next instance. */
enum pry_pass_result pry_pass_next(struct pry_pass *pass);

/* Whoever waits is cancelled and had nothing to say: goes on with the next instance. */
enum pry_pass_result pry_pass_skip(struct pry_pass *pass);

/* Walks an observing pass (on_outcome, on_done) to its end now: whoever waits, or would, is cancelled, and everybody
 * after it still sees the event. Nothing happens when it is not running; `step` is not called. */
void pry_pass_hurry(struct pry_pass *pass);

/* Ends it, cancelling what waits. Safe when it is not running. After PRY_PASS_END it has ended by itself. */
void pry_pass_stop(struct pry_pass *pass);

#endif
