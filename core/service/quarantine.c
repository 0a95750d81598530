#include "quarantine.h"

#include "json.h"

#include <math.h>
#include <stdio.h>

enum { FILE_MAX = 64 * 1024 };

static size_t position(const struct pry_quarantine *quarantine, const char *id)
{
  size_t i = 0;
  while (i < quarantine->count && strcmp(quarantine->sets[i].id, id) != 0)
    i++;
  return i;
}

static void remove_at(struct pry_quarantine *quarantine, size_t i)
{
  quarantine->count--;
  memmove(&quarantine->sets[i], &quarantine->sets[i + 1], (quarantine->count - i) * sizeof *quarantine->sets);
}

const struct pry_quarantined *pry_quarantine_find(const struct pry_quarantine *quarantine, const char *id)
{
  size_t i = position(quarantine, id);
  return i < quarantine->count ? &quarantine->sets[i] : NULL;
}

void pry_quarantine_add(struct pry_quarantine *quarantine, const struct pry_quarantined *set)
{
  struct pry_quarantined copy = *set; /* it may be one of ours */
  if (!pry_quarantine_remove(quarantine, copy.id) && quarantine->count == PRY_QUARANTINE_MAX)
    remove_at(quarantine, 0);
  quarantine->sets[quarantine->count++] = copy;
}

bool pry_quarantine_remove(struct pry_quarantine *quarantine, const char *id)
{
  size_t i = position(quarantine, id);
  if (i == quarantine->count)
    return false;
  remove_at(quarantine, i);
  return true;
}

/* ---- on disk ------------------------------------------------------------------------------------------------ */

static bool parse_id(struct pry_slice line, char id[PRY_GENERATION_ID_MAX])
{
  struct pry_json_value value;
  size_t size = PRY_GENERATION_ID_MAX - 1;
  if (!pry_json_get(line, "id", &value) || value.type != PRY_JSON_STRING || value.raw.size != size + 2)
    return false;
  memcpy(id, value.raw.data + 1, size);
  id[size] = '\0';
  return strspn(id, "0123456789abcdef") == size;
}

static bool parse_count(struct pry_slice line, const char *name, uint64_t *count)
{
  struct pry_json_value value;
  int64_t number;
  if (!pry_json_get(line, name, &value) || !pry_json_integer(value.raw, &number) || number < 0)
    return false;
  *count = (uint64_t)number;
  return true;
}

static bool parse_text(struct pry_slice line, const char *name, char *text, size_t size)
{
  struct pry_json_value value;
  struct pry_buffer decoded;
  pry_buffer_init(&decoded, size - 1);
  bool ok = pry_json_get(line, name, &value) && pry_json_string(value.raw, &decoded) &&
            !(decoded.size && memchr(decoded.data, '\0', decoded.size));
  if (ok) {
    memcpy(text, decoded.size ? decoded.data : "", decoded.size);
    text[decoded.size] = '\0';
  }
  pry_buffer_fini(&decoded);
  return ok;
}

static bool parse_line(struct pry_slice line, struct pry_quarantined *set)
{
  struct pry_json_value at;
  *set = (struct pry_quarantined){0};
  return pry_json_parse(line, NULL) == PRY_JSON_OK && parse_id(line, set->id) && pry_json_get(line, "at", &at) &&
         pry_json_number(at.raw, &set->at) && set->at >= 0 && parse_count(line, "faults", &set->faults) &&
         parse_count(line, "runs", &set->runs) &&
         parse_text(line, "first_fault", set->first_fault, sizeof set->first_fault);
}

/* The number of the line that is wrong; 0: none. */
static size_t parse(struct pry_slice text, struct pry_quarantine *quarantine)
{
  struct pry_quarantined set;
  for (size_t number = 1; text.size; number++) {
    const char *end = memchr(text.data, '\n', text.size);
    struct pry_slice line = {text.data, end ? (size_t)(end - text.data) : 0};
    if (!end || !parse_line(line, &set))
      return number;
    pry_quarantine_add(quarantine, &set);
    text.data += line.size + 1;
    text.size -= line.size + 1;
  }
  return 0;
}

bool pry_quarantine_read(const char *state_dir, struct pry_quarantine *quarantine, char why[PRY_STATE_WHY_MAX])
{
  struct pry_buffer text;
  *quarantine = (struct pry_quarantine){0};
  pry_buffer_init(&text, FILE_MAX + 1);
  enum pry_state_result result = pry_state_file_read(state_dir, PRY_QUARANTINE_NAME, FILE_MAX, &text, why);
  size_t wrong = result == PRY_STATE_READ ? parse(pry_buffer_slice(&text), quarantine) : 0;
  pry_buffer_fini(&text);
  if (!wrong)
    return result != PRY_STATE_REFUSED;
  *quarantine = (struct pry_quarantine){0};
  snprintf(why, PRY_STATE_WHY_MAX,
           "%s/%s:%zu: is not what parry writes; no set is in quarantine now, and one that is bad will be rolled back "
           "once more; remove the file to silence this",
           state_dir, PRY_QUARANTINE_NAME, wrong);
  return false;
}

static bool compose(const struct pry_quarantined *set, struct pry_buffer *text)
{
  return pry_buffer_append_format(text, "{\"id\":\"%s\",\"at\":%.3f,\"faults\":%llu,\"runs\":%llu,\"first_fault\":\"",
                                  set->id, isfinite(set->at) ? set->at : 0, (unsigned long long)set->faults,
                                  (unsigned long long)set->runs) &&
         pry_buffer_append_json(text, pry_slice_of(set->first_fault)) && pry_buffer_append_text(text, "\"}\n");
}

bool pry_quarantine_write(const char *state_dir, const struct pry_quarantine *quarantine, char why[PRY_STATE_WHY_MAX])
{
  struct pry_buffer text;
  bool ok = true;
  pry_buffer_init(&text, FILE_MAX);
  for (size_t i = 0; ok && i < quarantine->count; i++)
    ok = compose(&quarantine->sets[i], &text);
  if (!ok)
    snprintf(why, PRY_STATE_WHY_MAX, "%s/%s: memory is short; the old file stays", state_dir, PRY_QUARANTINE_NAME);
  ok = ok && pry_state_file_write(state_dir, PRY_QUARANTINE_NAME, pry_buffer_slice(&text), why);
  pry_buffer_fini(&text);
  return ok;
}
