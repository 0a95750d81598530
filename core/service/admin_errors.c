/* The last failed attempts, as JSON. Declared in admin_internal.h. */
#include "admin_internal.h"

#include "recent_errors.h"

#include <stdio.h>
#include <stdlib.h>

/* What the errors have in common, one kind at a time. */
enum trait { TRAIT_CATEGORY, TRAIT_STATUS, TRAIT_CODE, TRAIT_TARGET, TRAIT_COUNT };

static const char *const trait_names[TRAIT_COUNT] = {"by_category", "by_status", "by_code", "by_target"};

static const char *trait_of(const struct pry_recent_error *error, enum trait trait, char number[16])
{
  switch (trait) {
  case TRAIT_CATEGORY:
    return pry_category_name(error->category);
  case TRAIT_STATUS:
    snprintf(number, 16, "%d", error->status);
    return error->status ? number : "none";
  case TRAIT_CODE:
    return error->code[0] ? error->code : "none";
  default:
    return error->target;
  }
}

struct tally {
  const struct pry_recent_error *example;
  size_t count;
};

/* The most frequent first, then the newest. */
static int compare_tallies(const void *a, const void *b)
{
  const struct tally *one = a, *other = b;
  if (one->count != other->count)
    return one->count < other->count ? 1 : -1;
  return one->example < other->example ? -1 : 1;
}

static bool put_trait(struct pry_buffer *out, const struct pry_recent_error *errors, size_t count, enum trait trait)
{
  struct tally tallies[PRY_RECENT_ERRORS_MAX];
  size_t kinds = 0;
  char a[16], b[16];
  for (size_t i = 0; i < count; i++) {
    size_t j = 0;
    while (j < kinds && strcmp(trait_of(tallies[j].example, trait, a), trait_of(&errors[i], trait, b)) != 0)
      j++;
    if (j == kinds)
      tallies[kinds++] = (struct tally){&errors[i], 0};
    tallies[j].count++;
  }
  if (kinds)
    qsort(tallies, kinds, sizeof *tallies, compare_tallies);
  bool ok = pry_buffer_append_format(out, ",\"%s\":[", trait_names[trait]);
  for (size_t i = 0; ok && i < kinds; i++)
    ok = pry_buffer_append_text(out, i ? ",{\"name\":\"" : "{\"name\":\"") &&
         pry_buffer_append_json(out, pry_slice_of(trait_of(tallies[i].example, trait, a))) &&
         pry_buffer_append_format(out, "\",\"count\":%zu}", tallies[i].count);
  return ok && pry_buffer_append_text(out, "]");
}

static bool put_error(struct pry_buffer *out, const struct pry_recent_error *error)
{
  bool ok = pry_buffer_append_format(out,
                                     "{\"time\":%.3f,\"call_id\":\"%s\",\"attempt\":%u,\"category\":\"%s\","
                                     "\"source\":\"%s\",\"status\":%d,\"refused\":%s,\"code\":",
                                     error->time, error->call_id, error->attempt, pry_category_name(error->category),
                                     pry_source_name(error->source), error->status, error->refused ? "true" : "false");
  if (error->code[0])
    ok = ok && pry_buffer_append_text(out, "\"") && pry_buffer_append_json(out, pry_slice_of(error->code)) &&
         pry_buffer_append_text(out, "\"");
  else
    ok = ok && pry_buffer_append_text(out, "null");
  return ok && pry_buffer_append_text(out, ",\"target\":\"") &&
         pry_buffer_append_json(out, pry_slice_of(error->target)) && pry_buffer_append_text(out, "\"}");
}

bool pry_admin_errors(const struct pry_admin *admin, size_t limit, struct pry_buffer *out)
{
  unsigned long long seen = 0;
  struct pry_recent_error *errors = malloc(PRY_RECENT_ERRORS_MAX * sizeof *errors);
  if (!errors)
    return false;
  size_t count = pry_recent_errors_copy(admin->engine->recent_errors, errors, limit, &seen);
  double span = count ? errors[0].time - errors[count - 1].time : 0;
  bool ok = pry_buffer_append_format(out, "{\"seen\":%llu,\"pattern\":{\"count\":%zu,\"seconds\":%.3f", seen, count,
                                     span > 0 ? span : 0);
  for (int trait = 0; trait < TRAIT_COUNT; trait++)
    ok = ok && put_trait(out, errors, count, (enum trait)trait);
  ok = ok && pry_buffer_append_text(out, "},\"errors\":[");
  for (size_t i = 0; ok && i < count; i++)
    ok = (i == 0 || pry_buffer_append_text(out, ",")) && put_error(out, &errors[i]);
  free(errors);
  return ok && pry_buffer_append_text(out, "]}\n");
}
