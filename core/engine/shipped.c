#include "shipped.h"

#include "retest.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- where they are ---------------------------------------------------------------------------------------- */

static bool is_folder(const char *path)
{
  struct stat about;
  return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

static const char own_address[] = "some address in the file that holds this code";

/* The folder of the file that holds this code; "" when the system does not tell. A program started by its bare name is
 * known to the linker by that name only. */
static void own_folder(char folder[PRY_SHIPPED_PATH_MAX])
{
  Dl_info about;
  const char *file = dladdr(own_address, &about) && about.dli_fname ? about.dli_fname : "";
  char *whole = realpath(strchr(file, '/') && strstr(file, ".so") ? file : "/proc/self/exe", NULL);
  snprintf(folder, PRY_SHIPPED_PATH_MAX, "%s", whole ? whole : "");
  free(whole);
  char *slash = strrchr(folder, '/');
  if (slash)
    *slash = '\0';
}

const char *pry_shipped_folder(char path[PRY_SHIPPED_PATH_MAX])
{
  static const char *const places[] = {"share/parry/policies", PARRY_POLICIES_FROM_LIB, PARRY_POLICIES_FROM_BIN};
  const char *share = getenv("PARRY_SHARE");
  char folder[PRY_SHIPPED_PATH_MAX];
  if (share && *share)
    return share;
  own_folder(folder);
  for (size_t i = 0; *folder && i < sizeof places / sizeof *places; i++) {
    int length = snprintf(path, PRY_SHIPPED_PATH_MAX, "%s/%s", folder, places[i]);
    if (length > 0 && length < PRY_SHIPPED_PATH_MAX && is_folder(path))
      return path;
  }
  return PARRY_POLICIES;
}

/* ---- what a set lacks ---------------------------------------------------------------------------------------- */

struct completion {
  struct pry_policy_set *set;
  const struct pry_policy_set *shipped; /* sealed */
  bool whole;
};

static bool holds(const struct pry_policy_set *set, const char *path)
{
  for (size_t i = 0; i < set->count; i++)
    if (strcmp(set->files[i].path, path) == 0)
      return true;
  return false;
}

static void take(struct completion *completion, const char *path)
{
  const struct pry_policy_file *file = pry_policy_set_find(completion->shipped, path);
  if (file && !pry_is_test_file(path) && strcmp(path, "init.lua") != 0 && !holds(completion->set, path))
    completion->whole = completion->whole && pry_policy_set_add_file(completion->set, file);
}

/* A word in quotes may be the name of a policy, of a dialect, or of a module: "lib.backoff". */
static void take_named(struct completion *completion, struct pry_slice word)
{
  char name[128], path[160];
  if (!word.size || word.size >= sizeof name)
    return;
  memcpy(name, word.data, word.size);
  name[word.size] = '\0';
  if (strcmp(name, "oauth") == 0 || strcmp(name, "kimi") == 0) /* grant = "oauth" */
    take(completion, "lib/grants.lua");
  if (!strchr(name, '.')) {
    snprintf(path, sizeof path, "%s.lua", name);
    take(completion, path);
    snprintf(path, sizeof path, "dialects/%s.lua", name);
    take(completion, path);
    return;
  }
  for (char *dot = name; (dot = strchr(dot, '.'));)
    *dot = '/';
  snprintf(path, sizeof path, "%s.lua", name);
  take(completion, path);
}

static bool is_name_byte(char byte)
{
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') || byte == '_' ||
         byte == '.' || byte == '-';
}

static void take_all_named(struct completion *completion, const char *text, size_t size)
{
  for (size_t i = 0; i < size; i++) {
    if (text[i] != '"' && text[i] != '\'')
      continue;
    size_t end = i + 1;
    while (end < size && is_name_byte(text[end]))
      end++;
    if (end == size || text[end] != text[i])
      continue;
    take_named(completion, (struct pry_slice){text + i + 1, end - i - 1});
    i = end;
  }
}

bool pry_shipped_complete(struct pry_policy_set *set, const char *folder, struct pry_buffer *report)
{
  static const char *const unnamed[] = {"openai", "anthropic", "generic"};
  if (!folder || !*folder || !is_folder(folder))
    return true;
  struct pry_policy_set *shipped = pry_policy_set_read_any(folder, report);
  if (!shipped)
    return false;
  struct completion completion = {.set = set, .shipped = shipped, .whole = true};
  for (size_t i = 0; i < sizeof unnamed / sizeof *unnamed; i++)
    take_named(&completion, pry_slice_of(unnamed[i]));
  for (size_t i = 0; i < set->count && completion.whole; i++) /* what is taken is looked through, too */
    take_all_named(&completion, set->files[i].text, set->files[i].size);
  if (!completion.whole)
    pry_buffer_append_format(report, "%s: cannot be kept beside the set (at most 512 files, or memory is short)\n",
                             folder);
  pry_policy_set_free(shipped);
  return completion.whole;
}
