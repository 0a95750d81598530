/*
 * call_internal.h: the inside of a call, shared by the files that make one.
 *
 *   call.c          life: start, understanding the request, cancel, end
 *   call_decide.c   chain passes and the execution of verdicts
 *   call_hold.c     hold{}: waiting for a place or a time
 *   call_wait.c     time spent waiting, and its bound
 *   call_attempt.c  one attempt: target, credential, request
 *   call_host.c     attempts that the host makes
 *   call_keys.c     the key of an attempt, and what it used
 *   call_upload.c   the body of a request that is too long to be kept
 *   call_receive.c  what comes back: timeouts, classification, bodies held and relayed
 *   call_stream.c   what comes back as an event stream: hold, relay, end
 *   call_pace.c     streams that are too slow, and clients that wait for one
 *   call_translate.c  targets of another dialect than the client's (call_translate.h)
 *   call_answer.c   what the client is told
 *
 * Control goes round: call.c begins on_request → call_decide.c → call_attempt.c → (failure) call_decide.c → … →
 * call_answer.c → call.c ends. Each function that hands on does so as its last act, because the call may be gone
 * afterwards. Not for any other file.
 */
#ifndef PRY_CALL_INTERNAL_H
#define PRY_CALL_INTERNAL_H

#include "call.h"
#include "call_translate.h"
#include "decode.h"
#include "stream.h"
#include "trace.h"

enum call_state {
  CALL_REQUEST,
  CALL_HOLD,
  CALL_PREPARE,
  CALL_TOKEN,
  CALL_SEND,
  CALL_HEAD,
  CALL_RELAY,
  CALL_REACT,
  CALL_WAIT,
  CALL_DONE
};

/* The answer of the current attempt, and after it the last one a provider gave: the default final answer. */
struct call_answer {
  int status; /* 0: none */
  struct pry_headers headers;
  struct pry_buffer body; /* held back; whole when `complete` */
  bool complete;
  bool is_stream;
  int64_t length;     /* Content-Length, -1: not said */
  bool client_shaped; /* its dialect is one the client understands */
  enum pry_coding coding;
  bool unreadable;    /* its body cannot be decoded, and so neither classified nor scrubbed */
  bool broken;        /* in a coding that we know: it is no whole answer */
  bool pass_at_once;  /* a stream in a coding that we do not know */
  bool may_be_stream; /* its type says otherwise, but a stream was asked for: the first bytes tell */
};

/* How fast the current stream comes, where the route asks for a pace. */
struct call_pace {
  uint64_t seen; /* events before the current window */
  pry_time left; /* of the window, while the client is the one to wait for; -1: it runs, or there is none */
  bool failed;   /* too slow, but not cut: what policies hear of it in the end */
};

/* A body longer than what is kept: it passes through, and has one attempt. */
struct call_upload {
  bool streamed;
  bool begun;                /* some of it was given to an attempt: there is no other */
  bool ended;                /* the client has sent all of it */
  bool complete;             /* the attempt has all of it */
  bool full;                 /* the client was told to wait */
  bool failed;               /* some of it was lost: memory was short */
  int64_t size;              /* the whole length as the client said it; -1: not said */
  struct pry_slice start;    /* of call->body or call->out_body: still to be sent, before `waiting` */
  struct pry_buffer waiting; /* what came since the call began */
  size_t taken;              /* bytes at its front that were sent */
  bool waits_for_client;     /* the attempt would take more: its clocks and the deadline stand still */
  pry_time waiting_since, attempt_left, deadline_left;
};

/* What an `inject` verdict does to the attempt. */
struct call_injection {
  bool armed;
  int status;
  int curl_code;
  bool sent;
  pry_time delay;
  struct pry_headers headers;
  struct pry_buffer body;
};

struct pry_call {
  struct pry_list link; /* in worker->calls */
  struct pry_worker *worker;
  struct pry_state *script;          /* referenced; judges the next event */
  struct pry_generation *generation; /* referenced; what route, target and dialects point into. While an attempt is open
                                      * it may be older than the script's: a reload has come in between */
  const struct pry_route *route;
  struct pry_sink_ops sink;
  const struct pry_host_ops *host; /* NULL: attempts are made by the worker's client */
  void *user;
  enum call_state state;
  struct pry_call_view view;

  /* the request */
  struct pry_buffer text; /* method, path, query, one after the other */
  struct pry_slice query, rest, first_target;
  const char *client_dialect;
  struct pry_headers headers;     /* the client's end-to-end fields, credentials stripped */
  struct pry_headers credentials; /* the client's own credential fields, for passthrough() */
  struct pry_headers added;       /* by route{} verdicts */
  struct pry_buffer body;
  struct pry_json_request json;
  bool is_json, client_retry;
  const struct pry_text_list *models; /* of the request; NULL once it was looked at */
  char trace_id[PRY_TRACE_ID_MAX];
  size_t replay_bytes; /* counted in engine->replay_used */
  struct call_upload upload;
  pry_time arrived;

  /* deciding */
  struct pry_pass pass;
  struct pry_failure failure; /* the current one */
  char why[PRY_WHY_MAX];      /* of the last verdict that was carried out; "" */
  struct pry_timer begin_timer, deadline_timer, wait_timer;
  struct pry_queue_waiter queue_waiter;
  struct pry_token_waiter token_waiter;
  struct pry_list permits;          /* the call's */
  struct pry_list attempt_permits;  /* the attempt's */
  struct pry_permit *target_permit; /* active at the target, for the retry budget */
  pry_time wait_began;
  const char *wait_reason;                   /* while waiting; for metrics */
  void (*after_pass)(struct pry_call *call); /* after an observing pass */
  bool renewed;                              /* a renewal was tried for this target already */
  pry_time waited;                           /* in all, before `wait_began` */
  struct pry_spending spent;                 /* of the attempts that have ended */
  bool next_is_free;

  /* the attempt */
  struct pry_attempt *ledger;
  size_t ledger_capacity;
  unsigned sent_attempts;
  bool counted; /* something was sent: what the call holds knows it */
  bool attempt_open;
  struct pry_http_exchange *exchange;
  unsigned host_attempt;        /* the number of the one that the host is at; 0: none */
  struct pry_timer phase_timer; /* connect, then first byte, then idle */
  struct pry_timer attempt_timer;
  struct pry_timer stream_timer; /* max_stream */
  struct pry_buffer url;
  struct pry_headers out_headers;
  struct pry_buffer out_body;
  struct pry_buffer token;
  uint64_t token_version;
  pry_time send_began; /* before connecting; an injected delay counts */
  pry_time sent_at;
  bool got_byte;
  struct pry_tokens tokens;           /* what its body said */
  struct pry_buffer tail;             /* the end of a body too long to be held, for its usage */
  char next_key[PRY_SECRET_NAME_MAX]; /* the key that the next attempt was decided for; "": whichever is usable */
  struct call_answer answer;
  struct call_injection injection;
  struct call_translation translation;
  struct pry_stream stream;
  bool stream_open;
  struct pry_decoder *decoder;   /* of an encoded stream, else NULL */
  struct pry_buffer undecoded;   /* what came of it before the client was found slow */
  struct pry_timer decode_timer; /* goes on with that */
  struct call_pace pace;
  struct pry_timer pace_timer; /* the end of the current window */

  /* telling the client */
  bool committed, paused, finished, cancelled;
  bool early; /* status 200 and a stream's head went out before there was an answer */
  bool gave;  /* bytes of an answer */
  struct pry_timer early_timer;
  struct pry_outcome outcome;
};

/* ---- call.c ---- */

/* Moves to the serving generation, if there is a newer one. Only between events. */
void pry_call_adopt_generation(struct pry_call *call);

/* A dialect of the call's generation as the script knows it; NULL: the script's generation has none of that name. */
const struct pry_dialect *pry_call_dialect(const struct pry_call *call, const struct pry_dialect *dialect);

/* Starts a timer; room for it was reserved when the call began. */
void pry_call_start_timer(struct pry_call *call, struct pry_timer *timer, pry_time delay, pry_timer_fn fire);

pry_time pry_call_deadline_left(const struct pry_call *call);

/* The sink has heard `done`: on_done, then the call frees itself. */
void pry_call_end(struct pry_call *call);

/* ---- call_decide.c ---- */

void pry_call_request_pass(struct pry_call *call);
void pry_call_attempt_pass(struct pry_call *call);

/* The open attempt has ended with call->failure: on_outcome, then on_error. */
void pry_call_react(struct pry_call *call);

/* on_outcome for the attempt that just ended, then `next`. */
void pry_call_observe_outcome(struct pry_call *call, void (*next)(struct pry_call *call));
void pry_call_observe_done(struct pry_call *call, void (*next)(struct pry_call *call));

/* The call ends with this failure, in the middle of a pass. */
void pry_call_fail_request(struct pry_call *call, const struct pry_failure *failure);

/* Goes on with the pass that a hold or a renewal interrupted. */
void pry_call_resume_pass(struct pry_call *call);

/* ---- call_wait.c ---- */

/* The call waits from now on, for that reason; and no longer. */
void pry_call_begin_wait(struct pry_call *call, enum call_state state, const char *reason);
void pry_call_end_wait(struct pry_call *call);

/* Fires when the wait that has just begun uses up what max_wait leaves; the wait's end cancels it. */
void pry_call_limit_wait(struct pry_call *call, pry_timer_fn expired);

/* What max_wait leaves of the call's time for waiting, or its deadline when that is less. */
pry_time pry_call_wait_left(const struct pry_call *call);

/* Whatever waits for a verdict, a place, a token or a time stops waiting. */
void pry_call_stop_waiting(struct pry_call *call);

/* ---- call_hold.c ---- */

/* Waits as the pass's verdict, a hold{}, says: resumes the pass, or refuses the attempt, or fails the request. */
void pry_call_hold(struct pry_call *call);

/* ---- call_attempt.c ---- */

/* Begins an attempt at call->view.target. */
void pry_call_prepare(struct pry_call *call);

/* The on_attempt pass let it through. */
void pry_call_send(struct pry_call *call);

/* The body of the open attempt's request. False: `failure` says why not. */
bool pry_call_build_body(struct pry_call *call, struct pry_http_request *request, struct pry_failure *failure);

/* ---- call_host.c ---- */

/* Gives the open attempt to the host. */
void pry_call_ask_host(struct pry_call *call);

/* The open attempt is over: if the host is still at it, it hears so. */
void pry_call_abandon(struct pry_call *call);

/* ---- call_keys.c ---- */

/* Chooses the key of the attempt that has just been opened; none when there is none to be had. */
void pry_call_pick_key(struct pry_call *call);

/* The attempt has a key, or needs none. It may have lost it while it was held: then it gets another. False: none is
 * usable; `wait` says how long that lasts, negative: not known. */
bool pry_call_has_key(struct pry_call *call, pry_time *wait);

/* The secret behind the attempt's key, with a value; NULL: it is missing. */
const struct pry_secret *pry_call_key(const struct pry_call *call);

/* Keys of the target's provider that this call was sent with, a bit per index. */
uint64_t pry_call_keys_tried(const struct pry_call *call);

/* Promise 2 for several keys: the server's time before another attempt at a target of this provider, which is that of
 * the key that it would be made with, and of those that are in use like it. `key` gets its name, for call->next_key;
 * "" where keys do not matter. */
pry_time pry_call_server_time(const struct pry_call *call, const struct pry_provider *provider, const char *target,
                              char key[PRY_SECRET_NAME_MAX]);

/* What the last attempt at a target, and with `key` unless that is NULL, ended with; NULL: none, or well. */
const struct pry_attempt *pry_call_last_failed_at(const struct pry_call *call, const char *target, const char *key);

/* Counts what the attempt that ends has used. */
void pry_call_settle(struct pry_call *call, struct pry_attempt *attempt);

/* Ends the open attempt in the ledger and closes its exchange. category PRY_NONE: success. */
void pry_call_close_attempt(struct pry_call *call, const struct pry_failure *failure);

/* The open attempt failed before the commit point. Hands on to REACT. */
void pry_call_attempt_failed(struct pry_call *call, const struct pry_failure *failure);

/* Sets the target; false when the name is longer than PRY_TARGET_MAX. */
bool pry_call_set_target(struct pry_call *call, const struct pry_provider *provider, struct pry_slice model);

void pry_call_answer_init(struct call_answer *answer);
void pry_call_answer_clear(struct call_answer *answer);

/* ---- call_upload.c ---- */

/* May the model be replaced? Not in a body that is not kept and whose beginning does not hold it. */
bool pry_call_can_rename(const struct pry_call *call);

/* Body and length of a streamed request; `rename`: with the target's model in place of the client's. False: memory. */
bool pry_call_build_upload(struct pry_call *call, bool rename, struct pry_http_request *request);

/* The body is not all with the attempt yet. */
bool pry_call_is_uploading(const struct pry_call *call);

/* The provider took something, or is about to: its idle time begins anew. */
void pry_call_upload_goes_on(struct pry_call *call);

/* The attempt is over: clocks that stood still go on. */
void pry_call_stop_upload(struct pry_call *call);

/* on_upload of the exchange (http.h). */
ptrdiff_t pry_call_take_upload(void *user, char *to, size_t room);

/* ---- call_receive.c ---- */

extern const struct pry_http_ops pry_call_http_ops;

pry_time pry_call_timeout(pry_time of_provider, pry_time of_route, pry_time otherwise);
pry_time pry_call_idle_timeout(const struct pry_call *call);

/* The request is with whoever answers it: from here on it counts for what the call holds. */
void pry_call_sent(struct pry_call *call);

/* The request is with the provider: its time to answer, or the rest of it, begins. */
void pry_call_await_answer(struct pry_call *call);

/* The timer for a connection, which an attempt begins with. */
void pry_call_await_connection(struct pry_call *call);

/* Fires when the attempt as a whole has taken too long. */
void pry_call_attempt_timed_out(void *user);

/* The open attempt ends as a timeout. */
void pry_call_timed_out(struct pry_call *call, const char *code, const char *message, bool sent);

/* Something of an answer is there: when, for the ledger and the metrics. Only the first counts. */
void pry_call_first_byte(struct pry_call *call);

/* Starts or prolongs the time for the next bytes of the answer, unless the client is the one to wait for. */
void pry_call_start_idle_timer(struct pry_call *call);

/* What is held back of an answer at most. */
size_t pry_call_hold_limit(const struct pry_call *call);

/* The failure that this body, or event of that type, of the current answer is; category PRY_NONE: none. */
struct pry_failure pry_call_classify_answer(struct pry_call *call, struct pry_slice body, bool in_stream,
                                            struct pry_slice event_type);

/* The commit, with all that ends there: the attempt's and the deadline's clock, and what only another attempt would need.
 * body_size: -1 when not known. */
void pry_call_begin_relay(struct pry_call *call, int64_t body_size);

/* Gives bytes of the committed answer to the client. The sink may cancel the call meanwhile. */
enum pry_http_flow pry_call_give(struct pry_call *call, struct pry_slice data);

/* The attempt ends with a failure that was found in what it answered, before or after the commit; the two below with one
 * of theirs. */
void pry_call_answer_failed(struct pry_call *call, const struct pry_failure *failure);
void pry_call_coding_broke(struct pry_call *call);
void pry_call_out_of_memory(struct pry_call *call);

/* ---- call_stream.c ---- */

/* The answer that has begun is an event stream. */
void pry_call_open_stream(struct pry_call *call);

/* More of it, encoded or not. The call may be gone afterwards. */
enum pry_http_flow pry_call_take_stream(struct pry_call *call, struct pry_slice data);

/* Timer: goes on with what was left encoded while the client was slow. */
void pry_call_decode_rest(void *user);

/* Is the body so far a stream, under the type of an ordinary answer? Then it is taken as one, `flow` is set, and the call
 * may be gone. */
bool pry_call_is_stream_after_all(struct pry_call *call, enum pry_http_flow *flow);

/* The provider has sent all of it, or closed the connection behind its end marker. */
void pry_call_stream_ended(struct pry_call *call);

/* Timer: the end marker came a while ago, and the connection is still open. */
void pry_call_end_grace_over(void *user);

/* The open attempt's stream ends so: another attempt before the commit, an honest ending after it. */
void pry_call_stream_failed(struct pry_call *call, enum pry_stream_fault fault);

/* ---- call_pace.c ---- */

/* The attempt's stream begins: from here on the route's slow_stream counts. Its clock rests while the client is slow. */
void pry_call_watch_pace(struct pry_call *call);
void pry_call_rest_pace(struct pry_call *call);
void pry_call_go_on_pace(struct pry_call *call);
void pry_call_stop_pace(struct pry_call *call);

/* Starts the clock of early_head, if the route has one and the client wants a stream. */
void pry_call_start_early(struct pry_call *call);

/* The answer is no stream, and the client has a stream's head already: the attempt has failed. */
bool pry_call_refuse_body(struct pry_call *call);

/* ---- call_answer.c ---- */

/* Does the client speak OpenAI's Responses API? Its stream's events have types. */
bool pry_call_speaks_responses(const struct pry_call *call);

/* Commit: status and head of the provider's answer. */
void pry_call_commit(struct pry_call *call, int64_t body_size);

/* The committed answer ended. failure NULL: well. Otherwise an honest ending. */
void pry_call_finish_answer(struct pry_call *call, const struct pry_failure *failure, bool error_event_passed);

/* The call ends with call->failure, nothing committed: the provider's own error, or ours. */
void pry_call_finish_failure(struct pry_call *call);

/* The call ends with a policy's answer; takes the verdict's body. */
void pry_call_finish_response(struct pry_call *call, struct pry_verdict *verdict);

/* A failure parry made itself. */
struct pry_failure pry_call_own_failure(enum pry_category category, const char *code, const char *message);

#endif
