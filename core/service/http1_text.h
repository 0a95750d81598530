/*
 * http1_text.h: the small grammars inside an HTTP/1.1 request, as pure functions over slices.
 *
 * Used by http1.c. Each answers one question about one element of RFC 9110 and RFC 9112, strictly where the RFC leaves
 * a choice. Nothing here keeps state or allocates; any thread.
 */
#ifndef PRY_HTTP1_TEXT_H
#define PRY_HTTP1_TEXT_H

#include "slice.h"

#include <stdint.h>

/* A method or field name: tchar only, at least one (RFC 9110 §5.6.2). */
bool pry_http1_is_token(struct pry_slice text);

/* Visible ASCII except "#" (a fragment never travels) and "\" (some URL parsers read it as "/"). */
bool pry_http1_is_target_text(struct pry_slice text);

/* field-content with obs-text (RFC 9110 §5.5): no control bytes but tabs. */
bool pry_http1_is_field_value(struct pry_slice text);

/* What is before and behind the first `separator`; false, and nothing set, when there is none. */
bool pry_http1_split(struct pry_slice text, char separator, struct pry_slice *before, struct pry_slice *after);

/* The rest from offset `start`, which must lie within. */
struct pry_slice pry_http1_slice_from(struct pry_slice text, size_t start);

/* "HTTP/" DIGIT "." DIGIT, letter case and all (RFC 9112 §2.3). */
bool pry_http1_parse_version(struct pry_slice text, int *major, int *minor);

/* host [":" port], the host not empty (RFC 9110 §4.2.1), no user before it (§4.2.4), the port at most 65535 and perhaps
 * empty. `host` keeps the brackets of an IP literal. */
bool pry_http1_split_authority(struct pry_slice text, struct pry_slice *host, struct pry_slice *port);

/* Do two authorities name the same place? An absent port means `default_port`. */
bool pry_http1_same_authority(struct pry_slice a, struct pry_slice b, struct pry_slice default_port);

/* 1*DIGIT whose value fits in 63 bits. */
bool pry_http1_parse_length(struct pry_slice text, uint64_t *length);

/* A chunk-size line without its CRLF: at most 16 hex digits whose value fits in 63 bits, then extensions of correct
 * form (RFC 9112 §7.1.1). `extensions` gets their text, perhaps empty. */
bool pry_http1_parse_chunk_size(struct pry_slice line, uint64_t *size, struct pry_slice *extensions);

#endif
