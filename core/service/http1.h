/*
 * http1.h: reads HTTP/1.x requests from a byte stream, strictly.
 *
 * A request that two programs may read in two ways is how one client's bytes become another client's request
 * (request smuggling). So there is one rule: what RFC 9112 does not plainly allow is refused with 400 and the
 * connection is closed, even where the RFC lets a server be lenient. Refused are, among others: Content-Length
 * twice (even when equal), together with Transfer-Encoding, or as anything but digits; any Transfer-Encoding but
 * one single `chunked`, and any at all on HTTP/1.0; bare LF or CR anywhere; folded lines; white space before a
 * colon; control bytes; a missing, repeated or malformed Host; a Host that contradicts an absolute-form target.
 *
 * Statuses: 400 as above; 413 body over the limit (Content-Length: before any of it is read; chunked: at the chunk
 * that passes it); 414 request line too long; 417 an Expect other than 100-continue; 431 header section too long or
 * too many lines; 501 CONNECT or a method longer than 32 bytes; 503 out of memory; 505 another major version.
 * An unknown Transfer-Encoding is 400, not 501: "gzip, chunked" is legal but nobody's LLM client sends it, and where
 * a front server and we disagree about framing, closing is the only safe answer.
 *
 * Served although rare: chunk extensions and trailers (checked, then dropped), absolute-form targets, `OPTIONS *`,
 * up to two empty lines before the request line, tabs around values, HTTP/1.2…1.9 (read as 1.1).
 *
 * Pure: no I/O, no clock. Work is linear in the bytes fed, however they are split; memory is bounded by the limits.
 * Embedded in its owner (a connection); one thread at a time.
 */
#ifndef PRY_HTTP1_H
#define PRY_HTTP1_H

#include "buffer.h"
#include "headers.h"
#include "slice.h"

#include <stdint.h>

struct pry_http1_limits {
  size_t target;           /* bytes of a request-target; beyond: 414 */
  size_t header_bytes;     /* bytes of a header section (or of the trailers), line ends included; beyond: 431 */
  size_t header_lines;     /* field lines in it, at most PRY_HEADERS_MAX; beyond: 431 */
  size_t chunk_line;       /* bytes of one chunk-size line, extensions included; beyond: 400 */
  size_t chunk_extensions; /* bytes of all chunk extensions of one body together; beyond: 400 */
  uint64_t body;           /* decoded bytes of a body; beyond: 413 */
};

/* 8 KiB, 64 KiB, 128 lines, 1 KiB, 64 KiB; 64 MiB of body. */
extern const struct pry_http1_limits pry_http1_default_limits;

enum pry_http1_framing { PRY_HTTP1_NO_BODY, PRY_HTTP1_LENGTH, PRY_HTTP1_CHUNKED };

/* Slices are valid from the HEAD event until the first feed after END. */
struct pry_http1_head {
  struct pry_slice method;    /* any token, case kept */
  struct pry_slice target;    /* in origin-form, "/path?query", also when it came in absolute-form; "*" for OPTIONS */
  struct pry_slice path;      /* the target up to "?"; not decoded, not normalised */
  struct pry_slice query;     /* behind "?"; empty when there is none */
  struct pry_slice authority; /* host[:port] of an absolute-form target, else of Host; empty on 1.0 without either */
  int minor;                  /* 0 or 1 */
  struct pry_headers headers;
  enum pry_http1_framing framing;
  uint64_t content_length; /* with PRY_HTTP1_LENGTH */
  bool keep_alive;         /* may the connection be used again (RFC 9112 §9.3) */
  bool expect_continue;    /* send 100 before the body will come: HTTP/1.1, Expect: 100-continue, a body announced */
  bool is_head;            /* method HEAD: the answer has no body */
};

enum pry_http1_event_type {
  PRY_HTTP1_NEED_MORE, /* all input was taken */
  PRY_HTTP1_HEAD,      /* parser->head is complete; follows for every request: BODY*, END */
  PRY_HTTP1_BODY,      /* event->body: decoded bytes, a slice of the input, never empty */
  PRY_HTTP1_END,       /* the request is complete */
  PRY_HTTP1_ERROR      /* answer event->status, close; final */
};

struct pry_http1_event {
  enum pry_http1_event_type type;
  struct pry_slice body;
  int status;         /* with ERROR */
  const char *reason; /* with ERROR: one line for people, a constant without bytes of the request */
};

struct pry_http1_parser {
  struct pry_http1_head head;
  struct pry_http1_limits limits;
  /* private */
  int state;
  struct pry_buffer line;         /* the beginning of a line whose end has not come yet */
  struct pry_buffer request_line; /* what head.method and head.target point into */
  size_t section_bytes, section_lines, extension_bytes;
  uint64_t remaining; /* of the body, or of the current chunk */
  uint64_t received;  /* decoded body bytes announced so far by chunks */
  unsigned empty_lines, hosts, content_lengths, transfer_encodings;
  bool bad_expect;
  struct pry_slice default_port; /* of the scheme of an absolute-form target */
  int error_status;
  const char *error_reason;
};

/* limits are copied; NULL means pry_http1_default_limits. Allocates nothing yet. */
void pry_http1_init(struct pry_http1_parser *parser, const struct pry_http1_limits *limits);
void pry_http1_fini(struct pry_http1_parser *parser);

/* Reads until the next event. `consumed` gets the number of bytes taken. Call again with the rest of the input, also
 * when the rest is empty, until NEED_MORE: END costs no input. The first feed after END, even an empty one, forgets
 * the request, frees what was large, and begins the next; so a server that answers requests one at a time simply
 * does not feed until it has answered. After ERROR every further feed says the same and takes nothing. */
void pry_http1_feed(struct pry_http1_parser *parser, struct pry_slice input, size_t *consumed,
                    struct pry_http1_event *event);

/* True between requests, when no byte of the next one has come: the only place where a peer may close politely.
 * Empty lines before a request line do not count. */
bool pry_http1_idle(const struct pry_http1_parser *parser);

#endif
