/*
 * http_head.h: the head of an HTTP answer, from the lines that curl hands over.
 *
 * Swallows informational (1xx) heads and trailers and bounds them; refuses what a gateway must not guess about:
 * folded lines (RFC 9112 §5.2), names that are not tokens, impossible status codes, a 101 nobody asked for, a body
 * whose end two readers could see at two places (§6.3). A Content-Length beside chunked counts for nothing and is left out.
 *
 * Pure functions over bytes; one thread at a time.
 */
#ifndef PRY_HTTP_HEAD_H
#define PRY_HTTP_HEAD_H

#include "headers.h"
#include "slice.h"

enum { PRY_HTTP_INTERIM_HEADS_MAX = 16 };

struct pry_http_head {
  struct pry_headers headers;
  int status;           /* of the head being read; the final one once complete */
  bool begun;           /* the status line was there */
  bool complete;        /* the final head was read: what follows are trailers */
  int interim_heads;    /* informational heads so far */
  size_t trailer_bytes; /* trailers so far */
};

enum pry_http_head_result {
  PRY_HTTP_HEAD_MORE,     /* taken */
  PRY_HTTP_HEAD_COMPLETE, /* that was the end of the final head; said once */
  PRY_HTTP_HEAD_BAD       /* cannot be used */
};

void pry_http_head_init(struct pry_http_head *head);
/* As after init, for the next answer; keeps its memory. */
void pry_http_head_clear(struct pry_http_head *head);
void pry_http_head_fini(struct pry_http_head *head);

/* Takes one line, with or without its CRLF; the empty line ends a head. `why` is set to a constant text for people
 * when the result is PRY_HTTP_HEAD_BAD. */
enum pry_http_head_result pry_http_head_add(struct pry_http_head *head, struct pry_slice line, const char **why);

/* A field name or method (RFC 9110 §5.6.2): not empty, and nothing that could end a line or a name early. */
bool pry_http_is_token(struct pry_slice text);

#endif
