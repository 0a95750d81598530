/*
 * edge.h: who may come in.
 *
 * Asked by the gateway for each request, before anything of it is kept:
 *
 *   clients { } declared   a key that the clients file knows, in `Authorization: Bearer`, `x-api-key`, `api-key` or
 *                          `x-goog-api-key` (what the providers' SDKs send), within that client's limits
 *   none declared          a loopback gateway is open to all programs of this machine, and must not be open to the web
 *                          pages that its browser shows: they could spend the providers' keys by a POST across origins
 *                          (CSRF), or read the answers, too, by a name that is made to mean 127.0.0.1 (DNS rebinding).
 *                          So Host must be a loopback address, localhost or allowed; Origin, when there is one, must
 *                          be of such a host; and a browser must not call the request cross-site without naming its
 *                          origin (Sec-Fetch-Site). Programs send no Origin and are not concerned. With keys none of
 *                          this matters: no browser adds somebody's key by itself.
 *   none, beyond loopback  nothing: that must never happen, and if it does, nobody gets in
 *
 * A refusal is told in the dialect that clients of that path speak, with WWW-Authenticate (RFC 6750 §3), Retry-After and
 * Proxy-Status where they belong. Neither it nor the log repeats a key.
 *
 * Thread: any; one edge serves all workers.
 */
#ifndef PRY_EDGE_H
#define PRY_EDGE_H

#include "clients.h"
#include "engine.h"
#include "server.h"

/* Plain data, filled before the first gateway listens, unchanged afterwards. Everything is borrowed. */
struct pry_edge {
  struct pry_clients *clients; /* NULL: as if none was ever loaded */
  struct pry_text_list hosts;  /* globs of --allow-host */
  bool exposed;                /* the gateway listens beyond loopback */
  struct pry_metrics *metrics; /* may be NULL */
  struct pry_log *log;         /* may be NULL */
};

/* True: let in; *lease is to be released when the call has ended, on whatever way. False: the request was answered, the
 * exchange is the server's again. `config`: of the generation that will serve the call; NULL: none is loaded. `loop`: of
 * the caller's thread. */
bool pry_edge_enter(const struct pry_edge *edge, const struct pry_config *config, const struct pry_loop *loop,
                    struct pry_exchange *exchange, const struct pry_server_request *request, struct pry_lease *lease);

/* Is the field one that clients send their key in? Such fields of an admitted request go no further. */
bool pry_edge_is_key_field(struct pry_slice name);

/* May the gateway listen there under this configuration? True for loopback addresses and unix sockets, and once clients
 * are declared. False: `problem` (may be NULL) says what to do; begins with the address. */
bool pry_edge_may_listen(const char *address, const struct pry_config *config, struct pry_buffer *problem);

#endif
