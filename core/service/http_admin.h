/*
 * http_admin.h: one request to a running parry, for commands.
 *
 * Blocking, a connection per request, over the admin listener's unix socket or TCP. Environment proxies are ignored:
 * the admin listener is this machine's, or one the operator named.
 */
#ifndef PRY_HTTP_ADMIN_H
#define PRY_HTTP_ADMIN_H

#include "buffer.h"

struct pry_admin_request {
  const char *address;       /* "unix:PATH", "ADDR:PORT" or "http://ADDR:PORT" */
  const char *token;         /* NULL: none */
  const char *method, *path; /* path with its query */
  double timeout;            /* seconds, in all */
};

/* True: an answer came; *status and `body` (bounded to 64 MiB) hold it. False: `error` says what could not be
 * reached and what to do. */
bool pry_admin_ask(const struct pry_admin_request *request, int *status, struct pry_buffer *body, char *error,
                   size_t error_size);

#endif
