#include "nearest.h"

#include "slice.h"

enum { NAME_MAX_SIZE = 64 };

static size_t min3(size_t a, size_t b, size_t c)
{
  size_t least = a < b ? a : b;
  return least < c ? least : c;
}

/* Letters to change, leave out, add or swap with a neighbour (optimal string alignment), case ignored. */
static size_t distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
  size_t rows[3][NAME_MAX_SIZE + 1];
  size_t *before = rows[0], *last = rows[1], *row = rows[2];
  for (size_t j = 0; j <= b_size; j++)
    last[j] = j;
  for (size_t i = 1; i <= a_size; i++) {
    row[0] = i;
    for (size_t j = 1; j <= b_size; j++) {
      bool same = pry_ascii_lower((unsigned char)a[i - 1]) == pry_ascii_lower((unsigned char)b[j - 1]);
      row[j] = min3(last[j] + 1, row[j - 1] + 1, last[j - 1] + !same);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < row[j])
        row[j] = before[j - 2] + 1;
    }
    size_t *free_row = before;
    before = last;
    last = row;
    row = free_row;
  }
  return last[b_size];
}

/* One is the beginning of the other: "breaker_fail" for "breaker_failures". */
static bool is_beginning(const char *a, size_t a_size, const char *b, size_t b_size)
{
  size_t least = a_size < b_size ? a_size : b_size;
  return least >= 3 && memcmp(a, b, least) == 0;
}

const char *pry_nearest_name(const char *wrong, const char *const *names, size_t count)
{
  size_t size = strlen(wrong);
  if (!size || size > NAME_MAX_SIZE)
    return NULL;
  const char *nearest = NULL;
  size_t least = size / 3 + 2; /* exclusive */
  for (size_t i = 0; i < count; i++) {
    size_t other = strlen(names[i]);
    if (other > NAME_MAX_SIZE)
      continue;
    size_t changes = distance(wrong, size, names[i], other);
    if (is_beginning(wrong, size, names[i], other) && changes > 1)
      changes = 1;
    if (changes < least && changes < other) {
      least = changes;
      nearest = names[i];
    }
  }
  return nearest;
}
