/*
 * buffer.h: bytes that grow, up to a limit.
 *
 * The one growable byte array of the engine. A buffer is embedded in its owner, used by one thread,
 * and never grows past its limit: an append that would is refused whole and leaves the buffer as it
 * was. A failed allocation looks the same to the caller, so every caller has one failure to handle.
 */
#ifndef PRY_BUFFER_H
#define PRY_BUFFER_H

#include "slice.h"

#include <stdarg.h>

struct pry_buffer {
  char *data;      /* owned; NULL while nothing was appended */
  size_t size;     /* bytes in use */
  size_t capacity; /* bytes allocated */
  size_t limit;    /* never more bytes than this; 0 means no limit of its own */
};

/* Makes an empty buffer; allocates nothing. limit: bytes, 0 for none. */
void pry_buffer_init(struct pry_buffer *buffer, size_t limit);

/* Frees the bytes and leaves an empty buffer with the same limit; safe to call twice. */
void pry_buffer_fini(struct pry_buffer *buffer);

/* Forgets the bytes but keeps the memory for the next use. */
void pry_buffer_clear(struct pry_buffer *buffer);

/* Room for `size` more bytes without another allocation. False: limit or memory. */
bool pry_buffer_reserve(struct pry_buffer *buffer, size_t size);

/* Appends a copy. False when the limit would be passed or memory is short; nothing was appended. */
bool pry_buffer_append(struct pry_buffer *buffer, const void *data, size_t size);
bool pry_buffer_append_slice(struct pry_buffer *buffer, struct pry_slice slice);
bool pry_buffer_append_text(struct pry_buffer *buffer, const char *text);
bool pry_buffer_append_format(struct pry_buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Appends the decimal digits of a number. */
bool pry_buffer_append_integer(struct pry_buffer *buffer, long long number);

/* Appends `text` as the inside of a JSON string: quotes, backslashes and control characters escaped,
 * bytes that are not valid UTF-8 replaced by U+FFFD, so that the result is always valid JSON. */
bool pry_buffer_append_json(struct pry_buffer *buffer, struct pry_slice text);

/* Drops `size` bytes from the front (all of them when there are fewer). */
void pry_buffer_consume(struct pry_buffer *buffer, size_t size);

/* The bytes in use; valid until the buffer changes. */
struct pry_slice pry_buffer_slice(const struct pry_buffer *buffer);

/* The bytes as a NUL-terminated string owned by the buffer, or NULL when memory is short. The NUL is
 * not counted in size; valid until the buffer changes. */
const char *pry_buffer_text(struct pry_buffer *buffer);

/* Gives the bytes to the caller, who frees them with free(); the buffer is empty afterwards. */
char *pry_buffer_take(struct pry_buffer *buffer, size_t *size);

#endif
