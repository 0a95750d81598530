/*
 * http_script.h: an HTTP client whose providers are a script.
 *
 * The virtual side of the seam http.h: policy tests and backtests run the same call.c, store.c and policies
 * as production, and only the answers come from here. Each exchange takes the next step of the script; what
 * the step says happens on the loop's (virtual) clock. Every request is kept for the test to look at.
 *
 * Thread: the loop's.
 */
#ifndef PRY_HTTP_SCRIPT_H
#define PRY_HTTP_SCRIPT_H

#include "http.h"

struct pry_http_script;

/* One scripted answer. Everything is copied by pry_http_script_push(). Zero-initialised it is a 200 with an
 * empty body at once. Order in time: `delay`, then connected, then an upload's body, then the head, then the chunks with `chunk_delay`
 * before each, then the end. As over a network, the provider's clock does not stop while we have it paused: what
 * came meanwhile is there at once after the resume. HEAD gets no chunks; a chunk above PRY_HTTP_CHUNK_MAX comes
 * in pieces at the same time. */
struct pry_http_step {
  int status;                        /* 0: 200 */
  const struct pry_headers *headers; /* NULL: none */
  const struct pry_slice *chunks;    /* the body in pieces; each is delivered by itself */
  size_t chunk_count;
  int curl_code;      /* fail with this: before the head, or after the chunks when `after_body` */
  bool after_body;    /* curl_code (or, when that is 0, CURLE_PARTIAL_FILE for `cut`) comes after the chunks */
  bool cut;           /* the connection breaks after the chunks */
  bool hang_connect;  /* never connects */
  bool hang;          /* connects, then never answers; with chunks: never ends */
  double delay;       /* seconds before anything happens */
  double chunk_delay; /* seconds before each chunk */
  size_t takes;       /* of an upload: answers (or fails, or hangs) after so many bytes; 0: when it has all of it */
  bool early;        /* of an upload: answers as soon as its sender has to wait for more; takes that after the chunks */
  double take_delay; /* seconds between two pieces of an upload, each of at most PRY_HTTP_CHUNK_MAX bytes */
  bool unsent;       /* with curl_code: nothing had been sent (connection refused) */
  bool not_public;   /* with curl_code: the name led to an address that is not public */
  const char *url_part; /* only for exchanges whose URL contains this; NULL: any. Copied. */
};

/* A client on a virtual loop (a real one works too). NULL: no memory. */
struct pry_http_script *pry_http_script_new(struct pry_loop *loop);

/* The client as the engine sees it; freed by pry_http_free(), which frees the script too. */
struct pry_http *pry_http_script_client(struct pry_http_script *script);

/* Adds an answer to the end of the script. An exchange takes the first unused step whose url_part fits.
 * False: no memory. */
bool pry_http_script_push(struct pry_http_script *script, const struct pry_http_step *step);

/* When the script has no fitting step, an exchange gets a copy of `step`; NULL (the default): it fails with
 * CURLE_COULDNT_CONNECT and a message that says the script has run out. */
bool pry_http_script_set_default(struct pry_http_script *script, const struct pry_http_step *step);

/* What was asked, in order of starting. */
struct pry_http_seen {
  const char *method, *url;
  struct pry_headers headers;
  struct pry_slice body; /* of an upload: what was taken so far */
  int64_t upload_size;   /* of an upload, as the request said it; 0: it was none */
  bool uploaded;         /* all of an upload was taken, its end included */
  pry_time started;      /* loop clock */
  bool cancelled;        /* pry_http_cancel() before its end */
  bool finished;         /* on_done was called */
};

size_t pry_http_script_seen_count(const struct pry_http_script *script);
const struct pry_http_seen *pry_http_script_seen(const struct pry_http_script *script, size_t i);
size_t pry_http_script_unused(const struct pry_http_script *script); /* steps nobody asked for */

#endif
