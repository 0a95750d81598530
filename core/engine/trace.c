#include "trace.h"

enum { ID_AT = 3, PARENT_AT = 36, FLAGS_AT = 53, SIZE = 55 };

/* Lower case only; `zero` tells whether nothing but '0' was there. */
static bool is_hex(const char *text, size_t size, bool *zero)
{
  *zero = true;
  for (size_t i = 0; i < size; i++) {
    if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
      return false;
    *zero = *zero && text[i] == '0';
  }
  return true;
}

static bool is_traceparent(struct pry_slice value)
{
  const char *text = value.data;
  bool first, id, parent, flags;
  if (value.size < SIZE || text[ID_AT - 1] != '-' || text[PARENT_AT - 1] != '-' || text[FLAGS_AT - 1] != '-')
    return false;
  if (!is_hex(text, 2, &first) || !is_hex(text + ID_AT, 32, &id) || !is_hex(text + PARENT_AT, 16, &parent) ||
      !is_hex(text + FLAGS_AT, 2, &flags) || id || parent || memcmp(text, "ff", 2) == 0)
    return false;
  return value.size == SIZE || (!first && text[SIZE] == '-');
}

void pry_trace_id(const struct pry_headers *headers, char id[PRY_TRACE_ID_MAX])
{
  struct pry_slice found = {NULL, 0};
  size_t count = 0;
  id[0] = '\0';
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    if (!pry_slice_equal_nocase(line.name, PRY_SLICE("traceparent")))
      continue;
    found = line.value;
    count++;
  }
  if (count != 1 || !is_traceparent(found))
    return;
  memcpy(id, found.data + ID_AT, PRY_TRACE_ID_MAX - 1);
  id[PRY_TRACE_ID_MAX - 1] = '\0';
}
