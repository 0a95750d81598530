/*
 * lib_http.h: the inside of http.request and http.probe, shared by their files.
 *
 *   lib_http.c          http.request: start, wait, answer
 *   lib_http_request.c  what to send, read from the script's table and checked
 *   lib_probe.c         http.probe: the same for URLs that nobody vouches for
 *   lib_probe_url.c     which of these may be asked at all, and where a redirect leads
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

/* Scheme, host and port of an absolute URL. Strict on purpose: what this reads differently from curl's parser would be a
 * way round the list of declared hosts, so userinfo, backslashes and anything but host characters are refused. */
struct pry_http_origin {
  bool secure;
  struct pry_slice host; /* as written, brackets included */
  unsigned long port;    /* the scheme's when the URL has none */
};

/* False: not http:// or https://, no host, or something in it that is neither host nor port. */
bool pry_http_read_origin(struct pry_slice url, struct pry_http_origin *origin);

/* Pushes the fields as a table: lower-case names, several lines of one name joined (RFC 9110 §5.2). */
void pry_http_push_headers(lua_State *L, const struct pry_headers *headers);

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
  struct pry_message beginning;
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

/* ---- lib_probe_url.c: pure functions ---- */

/* The answer to a URL from outside that may not be asked. */
struct pry_probe_refusal {
  const char *category; /* "invalid_request": no URL to ask; "permission": one that leads where nobody may look */
  const char *message;  /* constant */
};

/* Writes the URL as it is asked for to `out`, cleared before: without its fragment, bytes above 0x7E as %XX. True: it
 * may be asked, as far as its text can say so; the connected address has the last word (http.h). False: `refusal` is
 * set. Refused: other schemes, user names, spaces and control characters, more than PRY_HTTP_URL_MAX bytes, addresses
 * in text that are not public, and ports below 1024 but 80 and 443 (mail, shells and databases must not be talked to
 * by way of parry). `allowed`: "HOST:PORT" that are exempt from the last two. */
bool pry_probe_check_url(struct pry_slice url, const struct pry_text_list *allowed, struct pry_buffer *out,
                         struct pry_probe_refusal *refusal);

/* Is the URL's host and port one of these? */
bool pry_probe_is_allowed(struct pry_slice url, const struct pry_text_list *allowed);

/* Where `location`, given by `url`, leads (RFC 3986 §5.2, without resolving dots: that is for the server), into `out`,
 * cleared before. False: nowhere: too long, or from https to http. */
bool pry_probe_redirect(struct pry_slice url, struct pry_slice location, struct pry_buffer *out);

/* ---- lib_probe.c ---- */

/* The function http.probe. */
int pry_http_probe(lua_State *L);
/* Its metatable; before the first use. */
void pry_http_probe_open(lua_State *L);

#endif
