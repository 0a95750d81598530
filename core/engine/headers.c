#include "headers.h"

#include <stdlib.h>

enum { FIRST_LINES = 8, FIRST_BYTES = 240 };

void pry_headers_init(struct pry_headers *headers)
{
  *headers = (struct pry_headers){0};
  pry_buffer_init(&headers->text, PRY_HEADERS_BYTES_MAX);
}

void pry_headers_fini(struct pry_headers *headers)
{
  pry_buffer_fini(&headers->text);
  free(headers->places);
  pry_headers_init(headers);
}

void pry_headers_clear(struct pry_headers *headers)
{
  pry_buffer_clear(&headers->text);
  headers->count = 0;
}

/* Looks at all of it, without a way out: a compiler makes many bytes at once of that. */
static bool breaks_line(struct pry_slice text)
{
  unsigned found = 0;
  for (size_t i = 0; i < text.size; i++)
    found |= (unsigned)(text.data[i] == '\r') | (unsigned)(text.data[i] == '\n') | (unsigned)(text.data[i] == '\0');
  return found;
}

static bool reserve_place(struct pry_headers *headers)
{
  if (headers->count < headers->capacity)
    return true;
  if (headers->count == PRY_HEADERS_MAX)
    return false;
  size_t capacity = headers->capacity ? headers->capacity * 2 : FIRST_LINES;
  struct pry_header_place *places = realloc(headers->places, capacity * sizeof *places);
  if (!places)
    return false;
  headers->places = places;
  headers->capacity = capacity;
  return true;
}

static bool append_line(struct pry_headers *headers, struct pry_slice name, struct pry_slice value)
{
  size_t size = name.size + value.size;
  if (!headers->text.capacity && size < FIRST_BYTES)
    size = FIRST_BYTES;
  if (!reserve_place(headers) || !pry_buffer_reserve(&headers->text, size))
    return false;
  uint32_t start = (uint32_t)headers->text.size, name_size = (uint32_t)name.size;
  pry_buffer_append_slice(&headers->text, name);
  pry_buffer_append_slice(&headers->text, value);
  headers->places[headers->count++] =
      (struct pry_header_place){start, name_size, start + name_size, (uint32_t)value.size};
  return true;
}

bool pry_headers_add(struct pry_headers *headers, struct pry_slice name, struct pry_slice value)
{
  value = pry_slice_trim(value);
  return name.size && !breaks_line(name) && !breaks_line(value) && append_line(headers, name, value);
}

bool pry_headers_takes(const struct pry_headers *headers, struct pry_slice name, struct pry_slice value)
{
  value = pry_slice_trim(value);
  return name.size && !breaks_line(name) && !breaks_line(value) && headers->count < PRY_HEADERS_MAX &&
         name.size + value.size <= PRY_HEADERS_BYTES_MAX - headers->text.size;
}

bool pry_headers_add_all(struct pry_headers *headers, const struct pry_headers *from)
{
  for (size_t i = 0; i < from->count; i++) {
    struct pry_header line = pry_headers_at(from, i);
    if (!append_line(headers, line.name, line.value))
      return false;
  }
  return true;
}

bool pry_headers_set(struct pry_headers *headers, struct pry_slice name, struct pry_slice value)
{
  pry_headers_remove(headers, name);
  return pry_headers_add(headers, name, value);
}

static bool is_named(const struct pry_headers *headers, size_t i, struct pry_slice name)
{
  const struct pry_header_place *place = &headers->places[i];
  return place->name_size == name.size &&
         pry_slice_equal_nocase((struct pry_slice){headers->text.data + place->name, place->name_size}, name);
}

bool pry_headers_remove(struct pry_headers *headers, struct pry_slice name)
{
  size_t kept = 0;
  for (size_t i = 0; i < headers->count; i++) {
    if (is_named(headers, i, name))
      continue;
    if (kept != i)
      headers->places[kept] = headers->places[i];
    kept++;
  }
  bool removed = kept < headers->count;
  headers->count = kept;
  return removed;
}

struct pry_header pry_headers_at(const struct pry_headers *headers, size_t i)
{
  const struct pry_header_place *place = &headers->places[i];
  const char *text = headers->text.data;
  return (struct pry_header){{text + place->name, place->name_size}, {text + place->value, place->value_size}};
}

bool pry_headers_get(const struct pry_headers *headers, struct pry_slice name, struct pry_slice *out)
{
  for (size_t i = 0; i < headers->count; i++) {
    if (is_named(headers, i, name)) {
      *out = pry_headers_at(headers, i).value;
      return true;
    }
  }
  *out = (struct pry_slice){NULL, 0};
  return false;
}

static bool list_has_token(struct pry_slice list, struct pry_slice token)
{
  size_t start = 0;
  for (size_t i = 0; i <= list.size; i++) {
    if (i < list.size && list.data[i] != ',')
      continue;
    struct pry_slice item = pry_slice_trim((struct pry_slice){list.data + start, i - start});
    if (pry_slice_equal_nocase(item, token))
      return true;
    start = i + 1;
  }
  return false;
}

bool pry_headers_has_token(const struct pry_headers *headers, struct pry_slice name, struct pry_slice token)
{
  for (size_t i = 0; i < headers->count; i++)
    if (is_named(headers, i, name) && list_has_token(pry_headers_at(headers, i).value, token))
      return true;
  return false;
}
