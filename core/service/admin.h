/*
 * admin.h: what operators and their tools may ask a running parry.
 *
 *   GET  /livez  /readyz               as on the gateway; never need a token
 *   GET  /metrics                      Prometheus text
 *   GET  /api/v1/status                what serves, how it is doing, how the last reload ended
 *   GET  /api/v1/generations           the serving one first, then those kept before it
 *   GET  /api/v1/events?limit=N        event records, newest first (100; at most 1000)
 *   GET  /api/v1/errors?limit=N        failed attempts and the pattern they make, newest first (100; at most 512)
 *   GET  /api/v1/alerts                {queued, alerts: [{sink, key, title, severity, count, told, opened, …}]}, those open
 *   POST /api/v1/alerts/test?to=SINK   sends one test message; 200 {sink, accepted, error} when it has been tried, 409 with
 *                                      the same when it could not be
 *   POST /api/v1/rollback?to=ID        goes back to a kept generation, the one before without `to`; 200 or 409 like reload
 *   POST /api/v1/reload?wait=SECONDS   looks at the folder now; 200 {result, generation, …}, 409 {result: "refused",
 *                                      report: […]}, 202 {result: "pending"} when `wait` (10; at most 300) has passed
 *   POST /api/v1/health?probe=P&timeout=S&target=T&target=…   checks targets now (health.h): those named, percent-encoded,
 *                                      else those of the routes; 200 with the results, 400 for a probe that does not exist
 *   GET  /api/v1/chaos                 which experiments policies/chaos.lua has, and which are armed
 *   POST /api/v1/chaos?do=arm&experiment=NAME&for=SECONDS[&rate=SHARE][&instance=NAME]   arms one
 *   POST /api/v1/chaos?do=off[&experiment=NAME][&instance=NAME]                         all of them off, or one
 *
 * Status and events ask every worker, each on its own thread; one that does not answer within half a second is shown
 * as such, with the place in the policies where it is stuck.
 *
 * Answers are JSON; what goes wrong is application/problem+json (RFC 9457). Nothing here shows a secret, a prompt or a
 * completion.
 *
 * On a unix socket (mode 0600) the file's owner is who may ask. On TCP every request but the probes needs the token,
 * and because a browser on the same machine can reach it too: a Host that is a name other than localhost is refused
 * (DNS rebinding), and so is an Origin that is not this listener's own.
 *
 * Thread: the control worker's.
 */
#ifndef PRY_ADMIN_H
#define PRY_ADMIN_H

#include "client_keeper.h"
#include "engine.h"
#include "gateway.h"
#include "reloader.h"

struct pry_admin;

struct pry_admin_options {
  struct pry_engine *engine;              /* all borrowed; all outlive the admin */
  struct pry_gateway *gateway;            /* may be NULL */
  struct pry_reloader *reloader;          /* may be NULL: reload answers 503 */
  const struct pry_client_keeper *keeper; /* may be NULL */
  const char *folder;                     /* of the policies; for status */
  const bool *last_good;                  /* the last good policies serve, not the folder's; NULL: false */
  const char *address;                    /* "unix:PATH" or "ADDR:PORT" */
  const char *token;                      /* required for TCP; copied */
  int listen_fd;                          /* above 0: an open listening socket to use instead (server.h) */
};

/* True when the address is not a unix socket, and a token is needed. */
bool pry_admin_needs_token(const char *address);

/* Listens and serves; NULL: `error` says what, where and what to do. */
struct pry_admin *pry_admin_new(const struct pry_admin_options *options, char *error, size_t error_size);

/* The real address. */
const char *pry_admin_address(const struct pry_admin *admin);

/* From now on not ready. Goes on answering: somebody wants to see how the draining goes. */
void pry_admin_drain(struct pry_admin *admin);

/* NULL is fine. */
void pry_admin_free(struct pry_admin *admin);

#endif
