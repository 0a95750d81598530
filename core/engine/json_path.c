#include "json.h"

enum { EXACT = '=', ANY = '*', EXCEPT = '!' };

static const char *add_step(struct pry_json_path *path, size_t start, size_t size)
{
  if (path->count == PRY_JSON_STEPS_MAX)
    return "too many steps";
  char kind = EXACT;
  if (size == 1 && path->text[start] == '*') {
    kind = ANY;
  } else if (size && path->text[start] == '!') {
    kind = EXCEPT;
    start++;
    size--;
  }
  if (!size)
    return "empty step";
  path->steps[path->count++] = (struct pry_json_step){(unsigned char)start, (unsigned char)size, kind};
  return NULL;
}

const char *pry_json_path_compile(struct pry_json_path *path, struct pry_slice text)
{
  *path = (struct pry_json_path){.count = 0};
  if (!text.size)
    return "empty path";
  if (text.size > PRY_JSON_PATH_MAX)
    return "path too long";
  memcpy(path->text, text.data, text.size);
  size_t start = 0;
  for (size_t i = 0; i <= text.size; i++) {
    if (i < text.size && text.data[i] != '.')
      continue;
    const char *error = add_step(path, start, i - start);
    if (error)
      return error;
    start = i + 1;
  }
  return NULL;
}

/* At most five digits, so that nothing overflows; no path needs more. */
static bool names_index(struct pry_slice name, size_t index)
{
  size_t number = 0;
  for (size_t i = 0; i < name.size; i++) {
    if (name.data[i] < '0' || name.data[i] > '9' || i == 5)
      return false;
    number = number * 10 + (size_t)(name.data[i] - '0');
  }
  return number == index;
}

/* key: empty for elements of an array, whose place is then `index`. */
static bool step_matches(const struct pry_json_path *path, size_t step, struct pry_slice key, size_t index)
{
  struct pry_slice name = {path->text + path->steps[step].start, path->steps[step].size};
  switch (path->steps[step].kind) {
  case ANY:
    return true;
  case EXCEPT:
    return key.size && !pry_json_equals(key, name);
  default:
    return key.size ? pry_json_equals(key, name) : names_index(name, index);
  }
}

static bool has_content(struct pry_json_value value)
{
  if (value.type == PRY_JSON_STRING)
    return value.raw.size > 2;
  if (value.type != PRY_JSON_ARRAY && value.type != PRY_JSON_OBJECT)
    return value.type == PRY_JSON_NUMBER || value.type == PRY_JSON_TRUE;
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value element;
  pry_json_iterate(&iterator, value.raw);
  return pry_json_next(&iterator, &key, &element);
}

/* The first match that is wanted (any, or only with content). Recursion is as deep as the path is long. */
static bool search(struct pry_slice text, const struct pry_json_path *path, size_t step, bool content_only,
                   struct pry_json_value *found)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  pry_json_iterate(&iterator, text);
  while (pry_json_next(&iterator, &key, &value)) {
    if (!step_matches(path, step, key, iterator.index - 1))
      continue;
    if (step + 1 == path->count) {
      *found = value;
      if (!content_only || has_content(value))
        return true;
    } else if ((value.type == PRY_JSON_OBJECT || value.type == PRY_JSON_ARRAY) &&
               search(value.raw, path, step + 1, content_only, found)) {
      return true;
    }
  }
  return false;
}

bool pry_json_find(struct pry_slice text, const struct pry_json_path *path, struct pry_json_value *value)
{
  struct pry_json_value found = {.type = PRY_JSON_NONE};
  bool matched = path->count && search(text, path, 0, false, &found);
  if (value)
    *value = matched ? found : (struct pry_json_value){.type = PRY_JSON_NONE};
  return matched;
}

bool pry_json_match_content(struct pry_slice text, const struct pry_json_path *path)
{
  struct pry_json_value found;
  return path->count && search(text, path, 0, true, &found);
}

bool pry_json_get(struct pry_slice text, const char *path_text, struct pry_json_value *value)
{
  struct pry_json_path path;
  if (pry_json_path_compile(&path, pry_slice_of(path_text))) {
    if (value)
      *value = (struct pry_json_value){.type = PRY_JSON_NONE};
    return false;
  }
  return pry_json_find(text, &path, value);
}
