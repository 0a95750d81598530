/*
 * headers.h: a list of HTTP field lines, in order.
 *
 * Names keep the case they came with and compare without it (RFC 9110 §5.1). The list owns copies of
 * all text in one block. Bounded: at most PRY_HEADERS_MAX lines and PRY_HEADERS_BYTES_MAX bytes, so that
 * no peer can make it grow. One thread at a time.
 */
#ifndef PRY_HEADERS_H
#define PRY_HEADERS_H

#include "buffer.h"
#include "slice.h"

#include <stdint.h>

enum { PRY_HEADERS_MAX = 256, PRY_HEADERS_BYTES_MAX = 256 * 1024 };

struct pry_header_place { /* offsets into `text`, because the block moves as it grows */
  uint32_t name, name_size, value, value_size;
};

struct pry_headers {
  struct pry_buffer text;
  struct pry_header_place *places;
  size_t count, capacity;
};

struct pry_header {
  struct pry_slice name, value;
};

void pry_headers_init(struct pry_headers *headers);
void pry_headers_fini(struct pry_headers *headers);
void pry_headers_clear(struct pry_headers *headers);

/* Appends a line; the value is trimmed of white space at its ends. False: too many, too long, no memory,
 * an empty name, or a CR, LF or NUL in either (which would let one line become two on the wire). */
bool pry_headers_add(struct pry_headers *headers, struct pry_slice name, struct pry_slice value);

/* True: nothing but memory keeps pry_headers_add() from taking this line. */
bool pry_headers_takes(const struct pry_headers *headers, struct pry_slice name, struct pry_slice value);

/* Appends all lines of `from`. On false, some may have been appended. */
bool pry_headers_add_all(struct pry_headers *headers, const struct pry_headers *from);

/* Removes every line of that name, then appends one. */
bool pry_headers_set(struct pry_headers *headers, struct pry_slice name, struct pry_slice value);

/* Removes every line of that name; true when there was one. */
bool pry_headers_remove(struct pry_headers *headers, struct pry_slice name);

/* The i-th line; slices are valid until the list changes. */
struct pry_header pry_headers_at(const struct pry_headers *headers, size_t i);

/* The value of the first line of that name; false when there is none (out is then empty). */
bool pry_headers_get(const struct pry_headers *headers, struct pry_slice name, struct pry_slice *out);

/* True when a line of that name holds `token` in its comma-separated list, case ignored. */
bool pry_headers_has_token(const struct pry_headers *headers, struct pry_slice name, struct pry_slice token);

#endif
