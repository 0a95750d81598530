#include "usage.h"

/* ---- compiling ------------------------------------------------------------------------------------------ */

static struct pry_slice trim(struct pry_slice text)
{
  while (text.size && text.data[0] == ' ') {
    text.data++;
    text.size--;
  }
  while (text.size && text.data[text.size - 1] == ' ')
    text.size--;
  return text;
}

const char *pry_usage_add(struct pry_usage_number *number, struct pry_slice text)
{
  bool adds = false;
  size_t start = 0;
  for (size_t i = 0; i <= text.size; i++) {
    if (i < text.size && text.data[i] != '+')
      continue;
    if (number->count == PRY_USAGE_PATHS_MAX)
      return "too many paths";
    const char *wrong =
        pry_json_path_compile(&number->paths[number->count], trim((struct pry_slice){text.data + start, i - start}));
    if (wrong)
      return wrong;
    number->adds[number->count++] = adds;
    adds = true;
    start = i + 1;
  }
  return NULL;
}

static struct pry_slice last_name(const struct pry_json_path *path)
{
  const struct pry_json_step *step = &path->steps[path->count - 1];
  return (struct pry_slice){path->text + step->start, step->size};
}

const char *pry_usage_add_place(struct pry_usage *usage, struct pry_slice path)
{
  if (usage->place_count == PRY_USAGE_PLACES_MAX)
    return "too many places";
  struct pry_json_path *place = &usage->places[usage->place_count];
  const char *wrong = pry_json_path_compile(place, path);
  if (wrong)
    return wrong;
  if (place->steps[place->count - 1].kind != '=')
    return "it must end with the name of the usage object";
  usage->place_count++;
  return NULL;
}

/* ---- is there one at all? ----
 *
 * Asked for every event of every stream, so this is a search and no reading. `"usage":null`, which OpenAI sends with
 * every event but the last, is none. */

static size_t skip_space(struct pry_slice text, size_t at)
{
  while (at < text.size &&
         (text.data[at] == ' ' || text.data[at] == '\t' || text.data[at] == '\n' || text.data[at] == '\r'))
    at++;
  return at;
}

/* Where the object begins whose quoted name begins at `quote`; SIZE_MAX: that is no name, or not of an object. */
static size_t object_after(struct pry_slice text, size_t name_end)
{
  if (name_end >= text.size || text.data[name_end] != '"')
    return SIZE_MAX;
  size_t at = skip_space(text, name_end + 1);
  if (at >= text.size || text.data[at] != ':')
    return SIZE_MAX;
  at = skip_space(text, at + 1);
  return at < text.size && text.data[at] == '{' ? at : SIZE_MAX;
}

/* The first object under that name at or behind `from`. */
static size_t find_object(struct pry_slice text, struct pry_slice name, size_t from)
{
  while (from < text.size) {
    const char *found = memmem(text.data + from, text.size - from, name.data, name.size);
    if (!found)
      break;
    size_t at = (size_t)(found - text.data);
    from = at + name.size;
    if (!at || text.data[at - 1] != '"')
      continue;
    size_t object = object_after(text, from);
    if (object != SIZE_MAX)
      return object;
  }
  return SIZE_MAX;
}

static bool same_name_before(const struct pry_usage *usage, size_t place)
{
  return place && pry_slice_equal(last_name(&usage->places[place - 1]), last_name(&usage->places[place]));
}

static bool may_hold(const struct pry_usage *usage, struct pry_slice text)
{
  for (size_t i = 0; i < usage->place_count; i++)
    if (!same_name_before(usage, i) && find_object(text, last_name(&usage->places[i]), 0) != SIZE_MAX)
      return true;
  return false;
}

/* ---- reading -------------------------------------------------------------------------------------------- */

static bool read_path(struct pry_slice object, const struct pry_json_path *path, int64_t *sum)
{
  struct pry_json_value value;
  double number;
  if (!pry_json_find(object, path, &value) || !pry_json_number(value.raw, &number) ||
      !(number >= 0 && number <= (double)PRY_TOKENS_MAX))
    return false;
  *sum += (int64_t)number;
  return true;
}

static bool read_number(struct pry_slice object, const struct pry_usage_number *number, int64_t *result)
{
  for (size_t i = 0; i < number->count;) {
    int64_t sum = 0;
    bool any = false;
    do
      any = read_path(object, &number->paths[i], &sum) || any;
    while (++i < number->count && number->adds[i]);
    if (any) {
      *result = sum;
      return true;
    }
  }
  return false;
}

static bool read_object(const struct pry_usage *usage, struct pry_slice object, struct pry_tokens *tokens)
{
  struct pry_tokens found = {0};
  bool input = read_number(object, &usage->input, &found.input);
  bool output = read_number(object, &usage->output, &found.output);
  if (!input && !output)
    input = read_number(object, &usage->total, &found.input);
  if (!input && !output)
    return false;
  read_number(object, &usage->cached, &found.cached);
  found.known = true;
  pry_tokens_merge(tokens, &found);
  return true;
}

void pry_usage_read(const struct pry_usage *usage, struct pry_slice text, struct pry_tokens *tokens)
{
  struct pry_json_value value;
  if (!text.size || !may_hold(usage, text))
    return;
  for (size_t i = 0; i < usage->place_count; i++)
    if (pry_json_find(text, &usage->places[i], &value) && value.type == PRY_JSON_OBJECT &&
        read_object(usage, value.raw, tokens))
      return;
}

void pry_usage_read_tail(const struct pry_usage *usage, struct pry_slice tail, struct pry_tokens *tokens)
{
  for (size_t i = 0; i < usage->place_count; i++) {
    struct pry_slice name = last_name(&usage->places[i]);
    size_t last = SIZE_MAX, next = 0;
    while (!same_name_before(usage, i) && (next = find_object(tail, name, next)) != SIZE_MAX)
      last = next;
    if (last != SIZE_MAX && read_object(usage, (struct pry_slice){tail.data + last, tail.size - last}, tokens))
      return;
  }
}

/* ---- counting ------------------------------------------------------------------------------------------- */

static int64_t greater(int64_t a, int64_t b)
{
  return a > b ? a : b;
}

void pry_tokens_merge(struct pry_tokens *tokens, const struct pry_tokens *more)
{
  tokens->known = tokens->known || more->known;
  tokens->input = greater(tokens->input, more->input);
  tokens->output = greater(tokens->output, more->output);
  tokens->cached = greater(tokens->cached, more->cached);
}

void pry_spending_add(struct pry_spending *sum, const struct pry_spending *more)
{
  sum->tokens.known = sum->tokens.known || more->tokens.known;
  sum->tokens.input += more->tokens.input;
  sum->tokens.output += more->tokens.output;
  sum->tokens.cached += more->tokens.cached;
  sum->priced = sum->priced || more->priced;
  sum->cost += more->cost;
}

double pry_price_cost(const struct pry_price *price, const struct pry_tokens *tokens)
{
  int64_t cached = tokens->cached < tokens->input ? tokens->cached : tokens->input;
  return ((double)(tokens->input - cached) * price->input + (double)cached * price->cached +
          (double)tokens->output * price->output) /
         1e6;
}
