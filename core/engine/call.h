/*
 * call.h: one client request, from arrival to its single outcome.
 *
 * Owns everything a call needs: the ledger of attempts, all timeouts and the deadline, the caps, the replay of the
 * body, the commit point. Who starts one (the gateway, parry_call, a test) gives it a sink and hears through it
 * what the client is to be told; nothing else comes out.
 *
 * States, and what ends each:
 *   REQUEST    chain pass on_request               → ADMIT, or an answer of a policy
 *   HOLD       waits for a place or a time         → the pass it came from, or refused / failed
 *   PREPARE    chain pass on_attempt, knowing the target; credential                → SEND, or REACT
 *   TOKEN      waits for a credential's renewal    → PREPARE or REACT
 *   SEND       request under way, nothing back     → HEAD, or REACT (connect, first_byte timeout, network)
 *   HEAD       answer begun, held back             → RELAY at the commit point, or REACT (error status, error in a
 *                                                    200 body or before content in a stream, cut, timeout)
 *   RELAY      the client has content              → DONE; failures become an honest ending, never another attempt
 *   REACT      chain passes on_outcome, on_error   → WAIT, PREPARE (other target), TOKEN, or DONE
 *   WAIT       backoff; holds no coroutine, so a reloaded policy applies to what comes next   → PREPARE
 *   DONE       the sink has heard `done`; chain pass on_done, then gone
 *
 * The promises of DESIGN §5 are kept here, whatever a policy says:
 *   caps (attempts per call, targets per call), the deadline to the commit point, never before the server's time,
 *   retry budget, replay only of what is repeatable, byte-for-byte bodies with a spliced model, one outcome.
 *
 * Thread: the worker's. A call is never freed by its owner: it frees itself some time after the sink's `done`,
 * also after pry_call_cancel(); the owner forgets it in `done`.
 */
#ifndef PRY_CALL_H
#define PRY_CALL_H

#include "engine.h"
#include "policy.h"

struct pry_call;

/* What a call tells its owner. Order: head → data … → done; every call that is not cancelled gives a head first, be it
 * an error's. No callback from inside pry_call_start() or pry_call_resume(). `done` comes before the observers
 * (on_outcome of the last attempt, on_done), so that no policy can delay a client. */
struct pry_sink_ops {
  /* Status and head of the answer: commit. body_size: -1 when not known. `headers` holds the provider's end-to-end
   * fields and parry's own; valid during the call. */
  void (*head)(void *user, int status, const struct pry_headers *headers, int64_t body_size);
  /* Body bytes, all taken. False: pause, until pry_call_resume(). */
  bool (*data)(void *user, struct pry_slice data);
  /* Exactly once, last. `truncated`: what was given is not whole and must not be ended cleanly (a stream that got
   * its dialect's error event is not truncated). */
  void (*done)(void *user, const struct pry_outcome *outcome, bool truncated);
  /* The call can take more of a streamed body, after pry_call_upload() had said to wait. May be NULL where no body is
   * streamed; may call pry_call_upload(). */
  void (*want_body)(void *user);
};

/* An attempt that is the host's to make. Texts and body are valid during the call of `attempt`. */
struct pry_host_attempt {
  unsigned number; /* 1, 2, …: names it in this call */
  const struct pry_target *target;
  pry_time left;         /* until its timeout or the call's deadline, when `abandon` comes */
  struct pry_slice body; /* the request's, its model that of the target */
};

/* How one ended, as the host tells it. Everything is used only during pry_call_attempt_ended(). */
struct pry_host_end {
  bool ok; /* it went well: status (0: 200), headers and body are the call's answer, unread */
  int status, curl_code;
  enum pry_category category; /* overrules what the rest says; PRY_NONE: classified by it */
  const char *code, *message; /* NULL or "": as the rest says */
  double retry_after;         /* seconds; 0: not said, or by the headers */
  bool not_sent;              /* nothing can have happened yet: may be done again, whatever it is */
  const struct pry_headers *headers;
  struct pry_slice body;
};

/* Who makes a call's attempts instead of the worker's HTTP client, whatever they are. Of an attempt's timeouts only
 * `attempt` counts, and the deadline; URL, credential, headers, translation and early_head are left to the host. */
struct pry_host_ops {
  /* Told once per attempt; its end comes by pry_call_attempt_ended(), later, not from inside. False: memory is short. */
  bool (*attempt)(void *user, const struct pry_host_attempt *attempt);
  /* That attempt is not wanted any more: its time is up, or the call ends. Not from inside: any other function of calls. */
  void (*abandon)(void *user, unsigned number);
};

/* What the client asked. Everything is copied, except `body`, which is taken when start succeeds, and `models`, which
 * must stay until the sink's `done`. */
struct pry_call_request {
  struct pry_slice method, path, query;
  const struct pry_headers *headers;  /* as the client sent them */
  struct pry_buffer *body;            /* taken (left empty) on success */
  struct pry_slice client;            /* its name, for policies, log and metrics; empty: calls need no key */
  const struct pry_text_list *models; /* globs of what this client may ask for; a body without a readable model fits
                                       * only "*", no body fits always. NULL or empty: any */
  bool more;                          /* streamed: `body` is only its beginning, see below */
  int64_t body_size;                  /* with `more`: its whole length, or -1 when the client did not say */
  const struct pry_host_ops *host; /* makes the attempts, told with the sink's `user`; NULL: the worker's client does.
                                       * Constant. Not with `more` */
  struct pry_slice target;         /* "provider/model" or "provider" to begin with; empty: as the route says. Names
                                       * it no provider, the call fails as an invalid_request that says so */
};

/* Starts a call on the worker's serving generation. NULL: memory is short, the body is over the replay limit or all kept
 * bodies together would be, or the engine is being freed. A path without a route, a body that cannot be read and
 * everything else is told through the sink. */
struct pry_call *pry_call_start(struct pry_worker *worker, const struct pry_call_request *request,
                                const struct pry_sink_ops *sink, void *user);

/* A streamed body (`more`) is one that is too long to be kept: it passes through, in as many bytes of memory as lie
 * between a client and a provider of different speeds. The rules, all because nobody can send it a second time:
 *
 *   - Only `body`, its beginning, is read. `model`, `stream` and a session field are known if they are in it; without a
 *     model only the rule "*" of a route matches, and a rule or policy that would change a model whose place is not
 *     known is refused. What stands behind, a second `model` too, is the provider's to judge. call:json() has nothing.
 *   - Until the first byte is given to an attempt all is as usual: a refused attempt or a connection that was not made
 *     can be followed by another, at another target with another model. From then on verdicts that need another
 *     attempt are not carried out, because "body not kept". `repeatable` is false.
 *   - Content-Length goes on as the client said it (a changed model's length allowed for), else it is sent in chunks.
 *   - While the attempt waits for the client, its timeouts and the deadline stand still. While the provider does not
 *     take what there is, `idle` runs; `first_byte` begins when it has all.
 *   - An answer that comes before the body's end reaches the client at once, by the rules of any answer. */

/* More of the body, copied. False: enough for now, until the sink's want_body. Ignored once the call has no use for it. */
bool pry_call_upload(struct pry_call *call, struct pry_slice data);

/* That was all of the body. */
void pry_call_upload_end(struct pry_call *call);

/* How an attempt that the host was asked for has ended. False: it is not the open one any more, and nothing happens. */
bool pry_call_attempt_ended(struct pry_call *call, unsigned number, const struct pry_host_end *end);

/* The client took what was given. */
void pry_call_resume(struct pry_call *call);

/* The client left: the attempt, the wait and the place in any queue end now; on_outcome (category cancelled) and
 * on_done still run; the sink hears `done` later, from the loop, without a head. */
void pry_call_cancel(struct pry_call *call);

/* Tears down at once, without observers; the sink hears `done` from inside if it had not. For the end of an engine or of
 * a gateway, not from inside a callback of the call. */
void pry_call_destroy(struct pry_call *call);

/* Does that to every call of a worker whose thread has ended. */
void pry_calls_destroy(struct pry_worker *worker);

const struct pry_call_view *pry_call_get_view(const struct pry_call *call);
/* The content hash of the policies that judge it, and the `why` of the last verdict that was carried out; "" before. */
const char *pry_call_generation(const struct pry_call *call);
const char *pry_call_why(const struct pry_call *call);
const char *pry_call_state_name(const struct pry_call *call); /* "request", "hold", … */

/* The open call with that id, or NULL: ids of the past are harmless. */
struct pry_call *pry_call_find(struct pry_worker *worker, const char *id);

/* The worker has a new state: every call between events will be judged by it, and holds the old one no longer. */
void pry_calls_follow(struct pry_worker *worker);

/* ---- pieces that classify and tests use, too ------------------------------------------------------------ */

/* Classifies a whole answer by the dialect: status table, retry_after from headers, error fields in a 200, then the
 * dialect's own `classify`, then x-should-retry (which makes no `billing` retryable). PRY_NONE: no error. `unix_time`
 * for Retry-After dates. */
struct pry_failure pry_classify(struct pry_state *state, const struct pry_dialect *dialect,
                                const struct pry_answer_view *answer, double unix_time);

#endif
