/*
 * slice.h: a piece of somebody else's bytes.
 *
 * A slice owns nothing and is not NUL-terminated; it is valid as long as what it points into. It is
 * passed by value. Everything that comes from a client, a provider or a file travels as a slice until
 * it is parsed, so that no length is ever computed twice or trusted from a NUL byte inside the data.
 */
#ifndef PRY_SLICE_H
#define PRY_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct pry_slice {
  const char *data; /* may be NULL when size is 0 */
  size_t size;      /* bytes */
};

/* A slice of a string literal, its length known to the compiler. */
#define PRY_SLICE(literal) ((struct pry_slice){(literal), sizeof(literal) - 1})

/* The same for what initializes a static array: {PRY_SLICE_INIT("a"), PRY_SLICE_INIT("b")}. */
#define PRY_SLICE_INIT(literal)                                                                                        \
  {                                                                                                                    \
    (literal), sizeof(literal) - 1                                                                                     \
  }

/* A slice of a NUL-terminated string; NULL gives the empty slice. */
static inline struct pry_slice pry_slice_of(const char *text)
{
  return (struct pry_slice){text, text ? strlen(text) : 0};
}

static inline bool pry_slice_equal(struct pry_slice a, struct pry_slice b)
{
  return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline unsigned char pry_ascii_lower(unsigned char c)
{
  return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

/* Equal when ASCII letter case is ignored: how HTTP compares field names (RFC 9110 §5.1). */
static inline bool pry_slice_equal_nocase(struct pry_slice a, struct pry_slice b)
{
  if (a.size != b.size)
    return false;
  for (size_t i = 0; i < a.size; i++)
    if (pry_ascii_lower((unsigned char)a.data[i]) != pry_ascii_lower((unsigned char)b.data[i]))
      return false;
  return true;
}

static inline bool pry_slice_starts_with(struct pry_slice text, struct pry_slice prefix)
{
  return text.size >= prefix.size && memcmp(text.data, prefix.data, prefix.size) == 0;
}

/* Without leading and trailing spaces and tabs (RFC 9110 §5.6.3, optional white space). */
static inline struct pry_slice pry_slice_trim(struct pry_slice text)
{
  while (text.size && (text.data[0] == ' ' || text.data[0] == '\t')) {
    text.data++;
    text.size--;
  }
  while (text.size && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t'))
    text.size--;
  return text;
}

/* Into an array of `size` bytes as text that ends in NUL, cut to what fits. */
static inline void pry_slice_to_text(struct pry_slice from, char *to, size_t size)
{
  size_t length = from.size < size ? from.size : size - 1;
  if (length)
    memcpy(to, from.data, length);
  to[length] = '\0';
}

#endif
