/*
 * lib_http.h: the inside of http.request, shared by its two files.
 *
 *   lib_http.c          the operation: start, wait, answer
 *   lib_http_request.c  what to send, read from the script's table and checked
 */
#ifndef PRY_LIB_HTTP_H
#define PRY_LIB_HTTP_H

#include "lib.h"

enum {
  PRY_HTTP_ANSWER_MAX = 256 * 1024,
  PRY_HTTP_BODY_MAX = 1024 * 1024,
  PRY_HTTP_URL_MAX = 8 * 1024,
  PRY_HTTP_METHOD_MAX = 16
};

/* One request of one handler: a userdata on the coroutine's stack, so that nothing leaks whatever is raised. */
struct pry_http_operation {
  struct pry_leftover leftover;
  struct pry_decision *decision;
  struct pry_ticket ticket;
  /* what to send */
  char method[PRY_HTTP_METHOD_MAX];
  struct pry_buffer url, body;
  struct pry_headers headers;
  bool has_body, sealed; /* sealed: holds a refresh token's answer, whose body is not recorded */
  pry_time timeout;
  const struct pry_auth *auth; /* of the service; NULL: none */
  const char *missing;         /* a secret that has no value: why */
  /* under way */
  struct pry_http_exchange *exchange;
  struct pry_timer timer;
  struct pry_token_waiter waiter;
  pry_time started;
  /* what came */
  int status;
  struct pry_headers answer_headers;
  struct pry_buffer answer;
  char category[24], message[160]; /* of a failure; category "": none */
};

/* Fills the operation from the table at argument 1; the operation is at 2. Raises for misuse, and for a host that is not
 * declared. A missing secret is told in `missing`. */
void pry_http_read_request(lua_State *L, struct pry_http_operation *operation);

/* Adds the field that carries a token. False: memory. */
bool pry_http_add_auth(struct pry_http_operation *operation, const struct pry_auth *auth, struct pry_slice token);

#endif
