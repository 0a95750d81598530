/*
 * http.h: making one HTTP request, over curl or against a script.
 *
 * The second of the two seams (see loop.h). A client is made once per worker; each request is an
 * exchange. The exchange reports what happened in order:
 *
 *     [on_connected] → on_head → on_data … → on_done
 *
 * on_done comes exactly once and last, also when the connection was never made; after pry_http_cancel()
 * nothing comes any more. No callback is ever made from inside pry_http_start(), pry_http_resume(),
 * pry_http_upload() or pry_http_cancel(). A callback may cancel its own exchange and start others.
 *
 * No timeouts here: call.c owns them all, on the loop's clock, and cancels (curl's own 300 s for connecting stay as
 * a backstop). Informational (1xx) heads are
 * swallowed. No redirects are followed. HTTP/1.1 upstream; `Accept-Encoding: identity` is always sent, and
 * an encoded answer is passed on undecoded. Environment proxies are ignored unless the options name one.
 *
 * Back-pressure: after on_data said PAUSE nothing more is delivered until pry_http_resume(), and no more is
 * read from the network than one chunk that curl had already taken.
 *
 * Bounded against a hostile provider: a head of more than PRY_HEADERS_MAX lines or PRY_HEADERS_BYTES_MAX bytes,
 * or more than 16 informational heads, ends the exchange with CURLE_RECV_ERROR and says so in the message; so do
 * a single line above curl's own 100 KB, folded lines (RFC 9112 §5.2), an unasked 101, and trailers above
 * PRY_HEADERS_BYTES_MAX (trailers are swallowed). A body may be endless: its reader decides when to stop. So may a
 * chunk extension, which gives nothing and costs nothing: the reader's timeouts end it.
 *
 * A request goes out at most once, with one exception. curl by itself repeats any request on a fresh connection
 * when a kept one closes before the first byte of an answer, though the peer may have acted on the first copy
 * (RFC 9110 §9.2.2). We allow that for GET, HEAD, OPTIONS, TRACE, PUT and DELETE (on_connected still comes once);
 * any other method, POST above all, ends with CURLE_GOT_NOTHING and `sent`, and a policy decides. A kept connection
 * that the peer has closed *before* we write is noticed and costs nothing.
 *
 * An upload (`upload`) is asked for as the peer takes it, at most PRY_HTTP_CHUNK_MAX bytes at a time, and is never sent
 * twice, whatever the method. A peer may answer before it has all: from a status of 300 on the rest is not sent and the
 * connection is not used again; with a lower status both directions go on, and on_done comes when both have ended. A
 * body that ends before its upload_size ends the exchange with PRY_HTTP_UPLOAD_ENDED.
 *
 * TLS: certificate and name are checked, against the system's list or the options'. A body that nothing but the end of
 * the connection ends counts as whole also without TLS's own goodbye (RFC 9112 §9.8): curl 7.88 does not say.
 *
 * SIGPIPE: curl does not touch its disposition and sends with MSG_NOSIGNAL.
 *
 * Thread: the loop's.
 */
#ifndef PRY_HTTP_H
#define PRY_HTTP_H

#include "headers.h"
#include "loop.h"
#include "slice.h"

#include <stddef.h>
#include <stdint.h>

struct pry_http;
struct pry_http_exchange;

enum { PRY_HTTP_CHUNK_MAX = 16 * 1024 };

/* What to send. The body must stay valid until on_done or cancel; all else is copied by start. */
struct pry_http_request {
  const char *method;                /* "GET", "POST", …; HEAD is sent without a body */
  const char *url;                   /* absolute, http or https, without user:password@ */
  const struct pry_headers *headers; /* as they go on the wire; NULL: none. Names must be tokens. Left out, being ours
                                      * or hop-by-hop: Host, Content-Length, Connection, Keep-Alive, Proxy-Connection,
                                      * Transfer-Encoding, TE, Trailer, Upgrade, Expect, Accept-Encoding. Nothing is
                                      * added but Host, Content-Length and Accept-Encoding. */
  struct pry_slice body;             /* sent with Content-Length; empty: no body unless `has_body` */
  bool has_body;                     /* send Content-Length even when it is 0 */
  bool upload;                       /* the body is asked for piece by piece, through on_upload; `body` is empty then */
  int64_t upload_size;               /* with `upload`: sent as Content-Length; -1: not known, sent in chunks */
  bool fresh;                        /* on a connection of its own, whose times are told in the result */
  bool public_only;                  /* refuse peers that are not on the public internet (address.h), judged by the
                                      * address connected to, kept connections included; with a proxy, by the proxy's */
};

/* The CURLcodes that parry itself produces or tells apart, so that nobody else needs curl's header. */
enum pry_http_code {
  PRY_HTTP_OK = 0,
  PRY_HTTP_BAD_REQUEST = 3,     /* CURLE_URL_MALFORMAT: url, method or a header name that cannot be sent */
  PRY_HTTP_COULDNT_RESOLVE = 6, /* CURLE_COULDNT_RESOLVE_HOST */
  PRY_HTTP_COULDNT_CONNECT = 7, /* CURLE_COULDNT_CONNECT; also: refused by public_only */
  PRY_HTTP_CUT = 18,            /* CURLE_PARTIAL_FILE: the connection broke inside the body */
  PRY_HTTP_NO_MEMORY = 27,      /* CURLE_OUT_OF_MEMORY */
  PRY_HTTP_TIMED_OUT = 28,      /* CURLE_OPERATION_TIMEDOUT */
  PRY_HTTP_TLS_FAILED = 35,     /* CURLE_SSL_CONNECT_ERROR: no common version, an alert, no TLS at all */
  PRY_HTTP_UPLOAD_ENDED = 42,   /* CURLE_ABORTED_BY_CALLBACK: our body ended before its length */
  PRY_HTTP_GOT_NOTHING = 52,    /* CURLE_GOT_NOTHING: closed before any byte of an answer */
  PRY_HTTP_RECEIVE_FAILED = 56, /* CURLE_RECV_ERROR: reset, or an answer that is not HTTP within our bounds */
  PRY_HTTP_TLS_UNTRUSTED = 60,  /* CURLE_PEER_FAILED_VERIFICATION: the certificate */
};

/* How an exchange ended. `sent` errs on the safe side: it is true as soon as a connection stood. */
struct pry_http_result {
  int curl_code;        /* 0: the whole answer arrived; else a CURLcode */
  bool connected;       /* a connection (TLS included) stood, new or reused */
  bool sent;            /* some of the request may have reached the peer's application */
  bool head_received;   /* on_head was called */
  const char *message;  /* for people; valid during on_done */
  bool timed;           /* the request was `fresh`: */
  double dns, tcp, tls; /* seconds each phase took; negative: not reached, or there is none */
  bool not_public;      /* with PRY_HTTP_COULDNT_CONNECT: refused by public_only */
};

enum pry_http_flow { PRY_HTTP_CONTINUE, PRY_HTTP_PAUSE };

/* What on_upload says instead of a number of bytes. */
enum {
  PRY_HTTP_UPLOAD_END = 0,    /* the body is complete; with an upload_size it need not be said */
  PRY_HTTP_UPLOAD_WAIT = -1,  /* nothing now: asked again after pry_http_upload() */
  PRY_HTTP_UPLOAD_FAILED = -2 /* there will be no more: the exchange ends with PRY_HTTP_UPLOAD_ENDED */
};

struct pry_http_ops {
  /* The connection stands and the request is about to be sent. May be NULL. */
  void (*on_connected)(void *user);
  /* The final status and head. `headers` is valid during the call. */
  void (*on_head)(void *user, int status, const struct pry_headers *headers);
  /* Some of the body, at most PRY_HTTP_CHUNK_MAX bytes, all taken. PAUSE: no more until pry_http_resume(). */
  enum pry_http_flow (*on_data)(void *user, struct pry_slice data);
  void (*on_done)(void *user, const struct pry_http_result *result);
  /* Uploads only, after on_connected: copies the next bytes of the body, at most `room`, to `to` and returns how many,
   * or one of the above. May be NULL otherwise. */
  ptrdiff_t (*on_upload)(void *user, char *to, size_t room);
};

struct pry_http_options {
  size_t size;              /* sizeof(struct pry_http_options) */
  unsigned max_connections; /* kept open when idle, in all; 0: 256 */
  const char *ca_file;      /* PEM file instead of the system's; NULL: the system's */
  const char *proxy;        /* NULL: none */
};

/* A client on curl multi. Reuses connections, never blocks (asynchronous resolver; cancel returns at once
 * even during a slow look-up). options may be NULL. The first client of the process runs curl_global_init(), once
 * and on whatever thread (curl reports itself threadsafe), and never undoes it. Free it before the loop. NULL: no
 * memory, or a virtual loop. */
struct pry_http *pry_http_new(struct pry_loop *loop, const struct pry_http_options *options);

/* Cancels what is open and frees the client. NULL is fine. Not from inside a callback of one of its exchanges. */
void pry_http_free(struct pry_http *http);

/* Starts an exchange; NULL only when memory is short (nothing is called then). Anything else that is wrong
 * arrives in on_done. The exchange frees itself after on_done. */
struct pry_http_exchange *pry_http_start(struct pry_http *http, const struct pry_http_request *request,
                                         const struct pry_http_ops *ops, void *user);

/* Continues after PAUSE. Nothing happens if it was not paused. */
void pry_http_resume(struct pry_http_exchange *exchange);

/* There is more of the body, or its end is known: on_upload is called again if it had said WAIT. */
void pry_http_upload(struct pry_http_exchange *exchange);

/* Ends it without on_done. The connection is closed unless the answer was complete. Never blocks. */
void pry_http_cancel(struct pry_http_exchange *exchange);

/* Exchanges open now; for status, drain and leak tests. */
size_t pry_http_open_count(const struct pry_http *http);

/* What curl says about a code; a constant string. */
const char *pry_http_code_text(int curl_code);

/* True when it says that no TLS connection could be made: a handshake or a certificate that failed. */
bool pry_http_code_is_tls(int curl_code);

/* ---- The other side of the seam: who implements a client ------------------------------------------- */

/* Implemented by http.c (curl) and http_script.c (scripted providers). The functions above dispatch here. */
struct pry_http_driver {
  struct pry_http_exchange *(*start)(struct pry_http *http, const struct pry_http_request *request,
                                     const struct pry_http_ops *ops, void *user);
  void (*resume)(struct pry_http_exchange *exchange);
  void (*upload)(struct pry_http_exchange *exchange);
  void (*cancel)(struct pry_http_exchange *exchange);
  size_t (*open_count)(const struct pry_http *http);
  void (*free)(struct pry_http *http);
};

/* First member of every implementation's client and exchange. */
struct pry_http {
  const struct pry_http_driver *driver;
};
struct pry_http_exchange {
  const struct pry_http_driver *driver;
};

#endif
