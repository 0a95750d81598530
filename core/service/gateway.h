/*
 * gateway.h: HTTP clients in front, calls behind.
 *
 * One gateway = one listening address, with a server on each serving worker. It turns each request of its server into a call, and is that call's sink:
 * what the call gives goes to the client, what the client does (slow reading, leaving) goes to the call. It
 * knows nothing of providers, policies or dialects. /livez and /readyz are answered here and never proxied.
 *
 * Who may come in is the edge's decision (edge.h), made before anything of a request is kept.
 *
 * Request bodies are collected and kept, up to the engine's replay limit each and its replay total together. One that
 * is longer, or would be too much, is streamed instead (call.h): its call begins with the first 64 KiB when the length
 * says so beforehand, else with what was collected when the limit was met, and the client is read as fast as the
 * provider takes it. So the first 64 KiB of a body are always held. A body above the engine's max_body is 413.
 * A streaming client that is being held back and then closes is noticed behind the bytes it had sent, as TCP delivers
 * them; a provider that takes none of them for so long is a timeout. A reset is noticed at once.
 *
 * Thread: made before the workers run and freed after they ended; drain and the count on the control worker; all else
 * happens on the workers' threads.
 */
#ifndef PRY_GATEWAY_H
#define PRY_GATEWAY_H

#include "edge.h"
#include "engine.h"
#include "server.h"

struct pry_gateway;

struct pry_gateway_options {
  const struct pry_edge *edge;       /* this and all else: borrowed; outlives the gateway */
  const char *address;               /* "ADDR:PORT", "[V6]:PORT" or "unix:PATH" */
  int listen_fd;                     /* above 0: an open listening socket to use instead (server.h) */
  struct pry_tls *tls;               /* NULL: plain */
  struct pry_address_limits *limits; /* NULL: none */
  unsigned max_connections;          /* of each worker; 0: 10000 */
};

/* Listens on every serving worker; NULL: `error` says what, where and what to do. */
struct pry_gateway *pry_gateway_new(struct pry_engine *engine, const struct pry_gateway_options *options, char *error,
                                    size_t error_size);

/* The real address. */
const char *pry_gateway_address(const struct pry_gateway *gateway);

/* From now on /readyz answers 503. */
void pry_gateway_unready(struct pry_gateway *gateway);

/* Soon every worker stops accepting and answers /readyz with 503; open calls go on. */
void pry_gateway_drain(struct pry_gateway *gateway);

/* Requests that have no complete answer yet, as the workers last saw it; kept only while draining. */
size_t pry_gateway_open_count(const struct pry_gateway *gateway);

/* Cancels what is open. NULL is fine. */
void pry_gateway_free(struct pry_gateway *gateway);

/* Answers /livez and /readyz for any listener; false when the path is neither. */
bool pry_answer_probe(struct pry_exchange *exchange, const struct pry_server_request *request, bool ready);

#endif
