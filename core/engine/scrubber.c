/* Live secret values, and taking them out of text. Declared in log.h. */
#include "log.h"

#include <pthread.h>
#include <stdlib.h>

enum { SHORTEST = 6 };

#define REPLACEMENT "***"

/* One spelling of a secret. */
struct spelling {
  char *bytes;
  size_t size;
};

enum { AS_IS, IN_JSON, IN_JSON_SLASHES, SPELLING_COUNT };

struct secret {
  struct secret *next;
  unsigned uses;
  struct spelling spellings[SPELLING_COUNT]; /* those that differ; others have size 0 */
};

struct pry_scrubber {
  pthread_rwlock_t lock;
  struct secret *secrets;
  bool first_bytes[256]; /* a spelling begins with that byte */
};

struct pry_scrubber *pry_scrubber_new(void)
{
  struct pry_scrubber *scrubber = calloc(1, sizeof *scrubber);
  if (scrubber && pthread_rwlock_init(&scrubber->lock, NULL) != 0) {
    free(scrubber);
    return NULL;
  }
  return scrubber;
}

static void free_spelling(struct spelling *spelling)
{
  if (spelling->bytes)
    explicit_bzero(spelling->bytes, spelling->size);
  free(spelling->bytes);
  *spelling = (struct spelling){0};
}

static void free_secret(struct secret *secret)
{
  if (!secret)
    return;
  for (size_t i = 0; i < SPELLING_COUNT; i++)
    free_spelling(&secret->spellings[i]);
  free(secret);
}

void pry_scrubber_free(struct pry_scrubber *scrubber)
{
  if (!scrubber)
    return;
  for (struct secret *secret = scrubber->secrets, *next; secret; secret = next) {
    next = secret->next;
    free_secret(secret);
  }
  pthread_rwlock_destroy(&scrubber->lock);
  free(scrubber);
}

static bool is_spelled(const struct spelling *spelling, struct pry_slice text)
{
  return pry_slice_equal((struct pry_slice){spelling->bytes, spelling->size}, text);
}

static bool copy_spelling(struct spelling *spelling, struct pry_slice text)
{
  spelling->bytes = malloc(text.size);
  if (!spelling->bytes)
    return false;
  memcpy(spelling->bytes, text.data, text.size);
  spelling->size = text.size;
  return true;
}

/* The inside of a JSON string; some writers escape the slash, too. */
static bool spell_in_json(struct pry_buffer *out, struct pry_slice value, bool slashes)
{
  for (size_t start = 0, i = 0; i <= value.size; i++) {
    if (i < value.size && !(slashes && value.data[i] == '/'))
      continue;
    if (!pry_buffer_append_json(out, (struct pry_slice){value.data + start, i - start}) ||
        (i < value.size && !pry_buffer_append_text(out, "\\/")))
      return false;
    start = i + 1;
  }
  return true;
}

static bool add_json_spelling(struct secret *secret, struct pry_slice value, size_t which)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  bool ok = spell_in_json(&text, value, which == IN_JSON_SLASHES);
  for (size_t i = 0; ok && i < which; i++) {
    if (is_spelled(&secret->spellings[i], pry_buffer_slice(&text)))
      goto done;
  }
  ok = ok && copy_spelling(&secret->spellings[which], pry_buffer_slice(&text));
done:
  if (text.data)
    explicit_bzero(text.data, text.capacity);
  pry_buffer_fini(&text);
  return ok;
}

static struct secret *new_secret(struct pry_slice value)
{
  struct secret *secret = calloc(1, sizeof *secret);
  if (secret && copy_spelling(&secret->spellings[AS_IS], value) && add_json_spelling(secret, value, IN_JSON) &&
      add_json_spelling(secret, value, IN_JSON_SLASHES)) {
    secret->uses = 1;
    return secret;
  }
  free_secret(secret);
  return NULL;
}

static struct secret **find(struct pry_scrubber *scrubber, struct pry_slice value)
{
  struct secret **link = &scrubber->secrets;
  while (*link && !is_spelled(&(*link)->spellings[AS_IS], value))
    link = &(*link)->next;
  return link;
}

static void note_first_bytes(struct pry_scrubber *scrubber)
{
  memset(scrubber->first_bytes, 0, sizeof scrubber->first_bytes);
  for (const struct secret *secret = scrubber->secrets; secret; secret = secret->next) {
    for (size_t i = 0; i < SPELLING_COUNT; i++) {
      if (!secret->spellings[i].size)
        continue;
      scrubber->first_bytes[(unsigned char)secret->spellings[i].bytes[0]] = true;
    }
  }
}

bool pry_scrubber_add(struct pry_scrubber *scrubber, struct pry_slice value)
{
  if (value.size < SHORTEST)
    return true;
  pthread_rwlock_wrlock(&scrubber->lock);
  struct secret **link = find(scrubber, value);
  bool ok = true;
  if (*link) {
    (*link)->uses++;
  } else {
    *link = new_secret(value);
    ok = *link != NULL;
    note_first_bytes(scrubber);
  }
  pthread_rwlock_unlock(&scrubber->lock);
  return ok;
}

void pry_scrubber_remove(struct pry_scrubber *scrubber, struct pry_slice value)
{
  if (value.size < SHORTEST)
    return;
  pthread_rwlock_wrlock(&scrubber->lock);
  struct secret **link = find(scrubber, value);
  struct secret *secret = *link;
  if (secret && --secret->uses == 0) {
    *link = secret->next;
    free_secret(secret);
    note_first_bytes(scrubber);
  }
  pthread_rwlock_unlock(&scrubber->lock);
}

/* Bytes of the longest secret that begins here; 0: none does. */
static size_t match(const struct pry_scrubber *scrubber, struct pry_slice text)
{
  if (!scrubber->first_bytes[(unsigned char)text.data[0]])
    return 0;
  size_t longest = 0;
  for (const struct secret *secret = scrubber->secrets; secret; secret = secret->next) {
    for (size_t i = 0; i < SPELLING_COUNT; i++) {
      const struct spelling *spelling = &secret->spellings[i];
      if (spelling->size > longest && pry_slice_starts_with(text, (struct pry_slice){spelling->bytes, spelling->size}))
        longest = spelling->size;
    }
  }
  return longest;
}

/* Where the first secret begins; `size`: there is none. */
static size_t find_first(const struct pry_scrubber *scrubber, const char *data, size_t size)
{
  size_t i = 0;
  while (i < size && !match(scrubber, (struct pry_slice){data + i, size - i}))
    i++;
  return i;
}

/* Gives the new size, never larger. Secrets that touch or overlap go as one, so that the end of the second does not
 * stay. The replacement is written when the run of secrets has been read to its end: it is shorter than any of them, so
 * nothing is overwritten that is still to be compared. */
static size_t scrub(struct pry_scrubber *scrubber, char *data, size_t size)
{
  size_t written = find_first(scrubber, data, size), secret_end = 0;
  bool pending = false;
  if (written == size)
    return size;
  for (size_t i = written; i <= size; i++) {
    size_t length = i < size ? match(scrubber, (struct pry_slice){data + i, size - i}) : 0;
    if (i + length > secret_end && length) {
      secret_end = i + length;
      pending = true;
    }
    if (i < secret_end)
      continue;
    if (pending) {
      memcpy(data + written, REPLACEMENT, sizeof REPLACEMENT - 1);
      written += sizeof REPLACEMENT - 1;
      pending = false;
    }
    if (i < size)
      data[written++] = data[i];
  }
  return written;
}

bool pry_scrubber_finds(struct pry_scrubber *scrubber, struct pry_slice text)
{
  if (!scrubber)
    return false;
  bool found = false;
  pthread_rwlock_rdlock(&scrubber->lock);
  if (scrubber->secrets)
    found = find_first(scrubber, text.data, text.size) < text.size;
  pthread_rwlock_unlock(&scrubber->lock);
  return found;
}

void pry_scrubber_apply(struct pry_scrubber *scrubber, struct pry_buffer *text)
{
  if (!scrubber)
    return;
  pthread_rwlock_rdlock(&scrubber->lock);
  if (scrubber->secrets)
    text->size = scrub(scrubber, text->data, text->size);
  pthread_rwlock_unlock(&scrubber->lock);
}

void pry_scrubber_apply_text(struct pry_scrubber *scrubber, char *text)
{
  if (!scrubber)
    return;
  pthread_rwlock_rdlock(&scrubber->lock);
  if (scrubber->secrets)
    text[scrub(scrubber, text, strlen(text))] = '\0';
  pthread_rwlock_unlock(&scrubber->lock);
}
