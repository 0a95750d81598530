/*
 * sim.h: a provider that fails on command.
 *
 * Speaks the shapes of OpenAI, Azure, Anthropic, Gemini and KIMI well enough for their SDKs, answers with the caller's own words,
 * and breaks exactly where it is told to: so that a newcomer without any key, a test, and a demonstration can
 * watch policies at work. One object on one loop; any number in a process. It keeps what it was sent in memory
 * only, bounded, and listens on the loopback like any other server here; it checks no real credentials.
 *
 * SHAPES, by the end of the path (whatever comes before it):
 *   POST …/chat/completions   OpenAI chat, JSON and SSE, with tool calls when `tools` are given
 *   POST …/responses          OpenAI Responses, JSON and SSE
 *   POST …/embeddings         a small vector per input
 *   GET  …/models             the scripted models
 *   POST …/messages           Anthropic, JSON and SSE, with tool_use when `tools` are given
 *   POST …:generateContent, …:streamGenerateContent   Gemini, JSON, SSE with alt=sse, otherwise an array; functionCall
 *                             when `tools` are given
 *   POST …/token              OAuth 2 (RFC 6749 §6), form or JSON: grant_type=refresh_token&refresh_token=R
 *                             → {"access_token","token_type","expires_in","refresh_token"}
 *   POST …/token/refresh      KIMI: {"refresh_token":R}
 *                             → {"errcode":0,"data":{"access_token","expires_in","refresh_token"}}
 * The answer's text is the last user message, byte for byte. The answer to a message that carries a tool's result
 * is text even if there are tools. Paths with a segment that begins with `kimi`, and requests with `x-sim-dialect:
 * kimi`, report errors as {errcode, errmsg, data}: in an HTTP 200, or with `x-sim-kimi-status: real` in the status
 * the code belongs to.
 * Paths with the segments `openai/deployments/NAME` or `openai/v1` speak Azure's errors, and their streams begin with
 * filter results. Gemini's errors say in the body (RetryInfo) what `retry-after` puts into a header elsewhere, which
 * quota a 429 is about (with `quota` that of the day), and `content` is its 200 without candidates.
 *
 * AUTHENTICATION is off except below a segment `auth` (errors: 401 invalid_api_key) or `kimi-auth` (-2002): there the
 * newest access token that the token endpoint gave out is wanted, as `Authorization: Bearer` or `x-api-key`. A renewal
 * gives a new access token and a new refresh token and makes the ones before invalid; the sim's own outdated refresh
 * tokens, and "expired-token", are refused; any other text is taken as a first refresh token.
 *
 * FAULTS, the first of these that says something:
 *   1. header   x-sim-fault: code=429;retry-after=1;delay=0.2;times=1
 *   2. body     "simulateError": true, "errorCode": "429", "delay": MS, "times": N, "simKey": "k"
 *   3. the sim's own rules, MODEL=SPEC, as in 1
 *   4. scripted models (unless turned off): see pry_sim_scripted()
 * Parts of a SPEC, in any order, separated by ';' ("503" alone means code=503):
 *   code=C            what goes wrong, see below; without it only `delay` acts
 *   retry-after=S     adds the header, verbatim (seconds or a date); retry-after-ms=MS likewise
 *   delay=S           waits that long before the answer or the fault; with `slow`: between two pieces
 *   times=N           only the first N requests, counted per `x-sim-key` header (or `simKey`), else per model
 *   every=N           only every Nth request, counted the same way
 * Codes:
 *   400 … 599         that status, in the dialect of the path       -1000 … -2099   that KIMI code, in KIMI's shape
 *   reset             RST before any answer                         hang        no answer, ever
 *   cut               broken off before content: after the role chunk or message_start; a JSON body in its middle
 *   cut-after         broken off after some content                 stall-after silence after some content
 *   error-200         an error object in a 200; in a stream as its first event
 *   error-after       an error event after some content             slow        a piece every `delay` (default 0.1 s)
 *   garbage           bytes that are not HTTP                       html-502    a proxy's HTML page
 *   context           400 context_length_exceeded                   content     400 content_policy_violation
 *   quota             429 insufficient_quota                        balance     402 insufficient_balance
 *   expired           401 (KIMI: -2002)                             frozen      403 api_key_frozen
 * Two more request headers: `x-sim-size: BYTES` answers with that much text, for slow readers (a
 * stream: at most 256 MiB; a body: 16 MiB);
 * `x-sim-pace: S` waits between two pieces of a stream (default 0.001).
 *
 * CONTROL:
 *   GET  /sim/stats          calls by model and key, cancelled (clients that left before the end), renewals, the
 *                            last 50
 *   GET  /sim/last           body of the last provider request, byte for byte, with its content type
 *   GET  /sim/last-headers   its method, target and headers; credentials only as the start of their SHA-256
 *   POST /sim/reset          forgets counts, tokens and token faults
 *   POST /sim/expire         the current access token is no longer valid
 *   POST /sim/token?fail=N&hang=N&delay=S&expires_in=S   the next N renewals fail with 500, or never answer; all take S
 *
 * Thread: the loop's.
 */
#ifndef PRY_SIM_H
#define PRY_SIM_H

#include "loop.h"

#include <stdbool.h>
#include <stddef.h>

struct pry_sim;

struct pry_sim_options {
  const char *const *faults; /* "MODEL=SPEC" each; copied */
  size_t fault_count;
  bool no_scripted; /* the scripted models are models like any other */
  bool kimi;        /* every path speaks KIMI's errors */
  /* Told of every provider request when its end is known, one line for people without secrets. May be NULL. */
  void (*report)(void *user, const char *line);
  void *user;
};

struct pry_sim_stats {
  size_t total;     /* provider requests begun */
  size_t open;      /* of these, now */
  size_t cancelled; /* of these, left by the client before the end */
  size_t renewals;  /* tokens given out */
  size_t token_requests;
};

/* address as for pry_server_new(). NULL: failed, `error` says why; a bad fault is named. */
struct pry_sim *pry_sim_new(struct pry_loop *loop, const char *address, const struct pry_sim_options *options,
                            char *error, size_t error_size);

/* The real address, as pry_server_address(). */
const char *pry_sim_address(const struct pry_sim *sim);

struct pry_sim_stats pry_sim_stats(const struct pry_sim *sim);

/* Breaks off what is open and frees. NULL is fine. Not from inside `report`. */
void pry_sim_free(struct pry_sim *sim);

/* Is this a MODEL=SPEC? False: `error` says what is wrong with it. */
bool pry_sim_check_fault(const char *text, char *error, size_t error_size);

/* The scripted models: the i-th one's name and SPEC, false behind the last. Those with `times` fail once per
 * x-sim-key; without a key they fail and succeed by turns. */
bool pry_sim_scripted(size_t i, const char **model, const char **spec);

#endif
