#include "headers.h"

#include <stdlib.h>

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

static bool breaks_line(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++)
    if (text.data[i] == '\r' || text.data[i] == '\n' || text.data[i] == '\0')
      return true;
  return false;
}

static bool reserve_place(struct pry_headers *headers)
{
  if (headers->count < headers->capacity)
    return true;
  if (headers->count == PRY_HEADERS_MAX)
    return false;
  size_t capacity = headers->capacity ? headers->capacity * 2 : 16;
  struct pry_header_place *places = realloc(headers->places, capacity * sizeof *places);
  if (!places)
    return false;
  headers->places = places;
  headers->capacity = capacity;
  return true;
}

bool pry_headers_add(struct pry_headers *headers, struct pry_slice name, struct pry_slice value)
{
  value = pry_slice_trim(value);
  if (!name.size || breaks_line(name) || breaks_line(value) || !reserve_place(headers) ||
      !pry_buffer_reserve(&headers->text, name.size + value.size))
    return false;
  struct pry_header_place place = {headers->text.size, name.size, headers->text.size + name.size, value.size};
  pry_buffer_append_slice(&headers->text, name);
  pry_buffer_append_slice(&headers->text, value);
  headers->places[headers->count++] = place;
  return true;
}

bool pry_headers_add_all(struct pry_headers *headers, const struct pry_headers *from)
{
  for (size_t i = 0; i < from->count; i++) {
    struct pry_header line = pry_headers_at(from, i);
    if (!pry_headers_add(headers, line.name, line.value))
      return false;
  }
  return true;
}

bool pry_headers_set(struct pry_headers *headers, struct pry_slice name, struct pry_slice value)
{
  pry_headers_remove(headers, name);
  return pry_headers_add(headers, name, value);
}

bool pry_headers_remove(struct pry_headers *headers, struct pry_slice name)
{
  size_t kept = 0;
  for (size_t i = 0; i < headers->count; i++)
    if (!pry_slice_equal_nocase(pry_headers_at(headers, i).name, name))
      headers->places[kept++] = headers->places[i];
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
    struct pry_header line = pry_headers_at(headers, i);
    if (pry_slice_equal_nocase(line.name, name)) {
      *out = line.value;
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
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    if (pry_slice_equal_nocase(line.name, name) && list_has_token(line.value, token))
      return true;
  }
  return false;
}
