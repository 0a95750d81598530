#include "last_good.h"

#include <stdio.h>
#include <stdlib.h>

enum {
  PATH_SIZE_MAX = 511, /* what the reader of folders gives at most */
  PATH_DEPTH_MAX = 8,
  LINE_MAX_SIZE = 128,
  FILE_MAX = PRY_POLICY_SET_MAX + PRY_POLICY_FILES_MAX * (PATH_SIZE_MAX + 32) + 4 * LINE_MAX_SIZE
};

static const char FORM[] = "parry last-good 1";

static bool has_lua_name(struct pry_slice path)
{
  return path.size > 4 && memcmp(path.data + path.size - 4, ".lua", 4) == 0;
}

/* What pry_policy_set_read() gives: relative, at most 8 folders, no part empty or hidden (so no ".." either). */
static bool is_policy_path(struct pry_slice path)
{
  size_t slashes = 0;
  if (path.size > PATH_SIZE_MAX || !has_lua_name(path) || memchr(path.data, '\0', path.size))
    return false;
  for (size_t i = 0; i < path.size; i++) {
    bool begins = i == 0 || path.data[i - 1] == '/';
    if (begins && (path.data[i] == '/' || path.data[i] == '.'))
      return false;
    slashes += path.data[i] == '/';
  }
  return slashes <= PATH_DEPTH_MAX;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

static bool compose_file(const struct pry_policy_file *file, struct pry_buffer *text)
{
  struct pry_slice path = pry_slice_of(file->path);
  return pry_buffer_append_format(text, "%zu %zu\n", path.size, file->size) && pry_buffer_append_slice(text, path) &&
         pry_buffer_append(text, "\n", 1) && pry_buffer_append(text, file->text, file->size) &&
         pry_buffer_append(text, "\n", 1);
}

static bool compose(const struct pry_policy_set *set, double committed_at, struct pry_buffer *text)
{
  bool ok = pry_buffer_append_format(text, "%s\ngeneration %s\ncommitted %.3f\nfiles %zu\n", FORM, set->id,
                                     committed_at, set->count);
  for (size_t i = 0; ok && i < set->count; i++)
    ok = compose_file(&set->files[i], text);
  return ok && pry_buffer_append_text(text, "end\n");
}

/* What could not be read back must not replace what can. */
static bool may_be_kept(const struct pry_policy_set *set)
{
  bool ok = set->id[0] && set->count <= PRY_POLICY_FILES_MAX && pry_policy_set_find(set, "init.lua");
  for (size_t i = 0; ok && i < set->count; i++)
    ok = is_policy_path(pry_slice_of(set->files[i].path)) && set->files[i].size <= PRY_POLICY_FILE_MAX;
  return ok;
}

bool pry_last_good_write(const char *state_dir, const struct pry_policy_set *set, double committed_at,
                         char why[PRY_STATE_WHY_MAX])
{
  struct pry_buffer text;
  pry_buffer_init(&text, FILE_MAX);
  const char *what = !may_be_kept(set)                    ? "this set was not read from a folder of policies"
                     : !compose(set, committed_at, &text) ? "memory is short, or the set is larger than 16 MiB"
                                                          : NULL;
  if (what)
    snprintf(why, PRY_STATE_WHY_MAX, "%s/%s: %s; the old file stays", state_dir, PRY_LAST_GOOD_NAME, what);
  bool ok = !what && pry_state_file_write(state_dir, PRY_LAST_GOOD_NAME, pry_buffer_slice(&text), why);
  pry_buffer_fini(&text);
  return ok;
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

struct parsing {
  struct pry_slice rest;
  struct pry_policy_set *set;
  char id[PRY_GENERATION_ID_MAX];
  double committed_at;
  char what[128]; /* why it is refused */
};

static bool refuse(struct parsing *parsing, const char *what)
{
  if (!parsing->what[0])
    snprintf(parsing->what, sizeof parsing->what, "%s", what);
  return false;
}

static bool take(struct parsing *parsing, size_t size, struct pry_slice *taken)
{
  if (parsing->rest.size < size)
    return refuse(parsing, "is cut short");
  *taken = (struct pry_slice){parsing->rest.data, size};
  parsing->rest.data += size;
  parsing->rest.size -= size;
  return true;
}

static bool take_end_of_line(struct parsing *parsing)
{
  struct pry_slice end = {0};
  return take(parsing, 1, &end) &&
         (pry_slice_equal(end, PRY_SLICE("\n")) || refuse(parsing, "is not what parry writes"));
}

/* A line of our own as C text. */
static bool take_line(struct parsing *parsing, char line[LINE_MAX_SIZE])
{
  size_t look = parsing->rest.size < LINE_MAX_SIZE ? parsing->rest.size : LINE_MAX_SIZE;
  const char *end = look ? memchr(parsing->rest.data, '\n', look) : NULL;
  if (!end)
    return refuse(parsing, look < LINE_MAX_SIZE ? "is cut short" : "is not what parry writes");
  size_t size = (size_t)(end - parsing->rest.data);
  memcpy(line, parsing->rest.data, size);
  line[size] = '\0';
  parsing->rest.data += size + 1;
  parsing->rest.size -= size + 1;
  return strlen(line) == size || refuse(parsing, "is not what parry writes");
}

/* Digits only: strtoul() alone would take signs, spaces and what overflows. Moves *text behind them. */
static bool read_count(const char **text, size_t max, size_t *count)
{
  size_t value = 0, digits = 0;
  for (; **text >= '0' && **text <= '9'; (*text)++, digits++) {
    value = value * 10 + (size_t)(**text - '0');
    if (value > max)
      return false;
  }
  *count = value;
  return digits > 0;
}

static bool parse_id(struct parsing *parsing, const char *line)
{
  const char *id = strncmp(line, "generation ", 11) == 0 ? line + 11 : "";
  if (strlen(id) != sizeof parsing->id - 1 || strspn(id, "0123456789abcdef") != sizeof parsing->id - 1)
    return refuse(parsing, "names no generation");
  memcpy(parsing->id, id, sizeof parsing->id);
  return true;
}

static bool parse_time(struct parsing *parsing, const char *line)
{
  const char *text = strncmp(line, "committed ", 10) == 0 ? line + 10 : "";
  if (!*text || strlen(text) > 20 || strspn(text, "0123456789.") != strlen(text))
    return refuse(parsing, "does not say when it was committed");
  parsing->committed_at = strtod(text, NULL);
  return true;
}

static bool parse_head(struct parsing *parsing, size_t *count)
{
  char line[LINE_MAX_SIZE];
  if (!take_line(parsing, line))
    return false;
  if (strcmp(line, FORM) != 0)
    return refuse(parsing, strncmp(line, "parry last-good ", 16) == 0 ? "was written by another version of parry"
                                                                      : "is not what parry writes");
  if (!take_line(parsing, line) || !parse_id(parsing, line) || !take_line(parsing, line) ||
      !parse_time(parsing, line) || !take_line(parsing, line))
    return false;
  const char *text = strncmp(line, "files ", 6) == 0 ? line + 6 : "";
  if (!read_count(&text, PRY_POLICY_FILES_MAX, count) || *text)
    return refuse(parsing, "does not say how many files it holds (at most 512)");
  return true;
}

static bool parse_file(struct parsing *parsing, size_t number)
{
  char line[LINE_MAX_SIZE], name[PATH_SIZE_MAX + 1];
  size_t path_size, size;
  struct pry_slice path = {0}, text = {0};
  const struct pry_policy_set *set = parsing->set;
  if (!take_line(parsing, line))
    return false;
  const char *cursor = line;
  if (!read_count(&cursor, PATH_SIZE_MAX, &path_size) || *cursor++ != ' ' ||
      !read_count(&cursor, PRY_POLICY_FILE_MAX, &size) || *cursor)
    return refuse(parsing, "has a file that is too large, or is not what parry writes");
  if (!take(parsing, path_size, &path) || !take_end_of_line(parsing) || !take(parsing, size, &text) ||
      !take_end_of_line(parsing))
    return false;
  if (!is_policy_path(path)) {
    snprintf(parsing->what, sizeof parsing->what, "its file number %zu has a path that no policy can have", number);
    return false;
  }
  memcpy(name, path.data, path.size);
  name[path.size] = '\0';
  if (set->count && strcmp(set->files[set->count - 1].path, name) >= 0)
    return refuse(parsing, "has files twice or out of order");
  return pry_policy_set_add(parsing->set, name, text) || refuse(parsing, "memory is short");
}

static bool parse(struct parsing *parsing)
{
  char line[LINE_MAX_SIZE];
  size_t count, number = 0;
  bool ok = parse_head(parsing, &count);
  while (ok && number < count)
    ok = parse_file(parsing, ++number);
  if (!ok || !take_line(parsing, line))
    return false;
  if (strcmp(line, "end") != 0 || parsing->rest.size)
    return refuse(parsing, "has something behind its end");
  if (!pry_policy_set_seal(parsing->set))
    return refuse(parsing, "memory is short");
  if (strcmp(parsing->set->id, parsing->id) != 0)
    return refuse(parsing, "its bytes are not those of the generation it names: it was damaged or edited");
  return pry_policy_set_find(parsing->set, "init.lua") || refuse(parsing, "has no init.lua");
}

enum pry_state_result pry_last_good_read(const char *state_dir, struct pry_last_good *good, char why[PRY_STATE_WHY_MAX])
{
  struct pry_buffer text;
  *good = (struct pry_last_good){0};
  pry_buffer_init(&text, FILE_MAX + 1);
  enum pry_state_result result = pry_state_file_read(state_dir, PRY_LAST_GOOD_NAME, FILE_MAX, &text, why);
  if (result == PRY_STATE_READ) {
    struct parsing parsing = {.rest = pry_buffer_slice(&text), .set = pry_policy_set_new()};
    if (parsing.set ? parse(&parsing) : refuse(&parsing, "memory is short")) {
      *good = (struct pry_last_good){parsing.set, parsing.committed_at};
    } else {
      pry_policy_set_free(parsing.set);
      result = PRY_STATE_REFUSED;
      snprintf(why, PRY_STATE_WHY_MAX, "%s/%s: %s; remove it: parry writes a new one after the next good reload",
               state_dir, PRY_LAST_GOOD_NAME, parsing.what);
    }
  }
  pry_buffer_fini(&text);
  return result;
}
