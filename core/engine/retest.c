#include "retest.h"

#include <stdio.h>
#include <string.h>

static const char TEST_END[] = "_test.lua", END[] = ".lua";

bool pry_is_test_file(const char *path)
{
  size_t size = strlen(path), end = sizeof TEST_END - 1;
  return size > end && strcmp(path + size - end, TEST_END) == 0;
}

/* "dialects/openai_test.lua" → "dialects/openai". */
static struct pry_slice subject_of(const struct pry_policy_file *test)
{
  return (struct pry_slice){test->path, strlen(test->path) - (sizeof TEST_END - 1)};
}

static const struct pry_policy_file *find_subject(const struct pry_policy_set *set, struct pry_slice subject)
{
  char path[512];
  int size = snprintf(path, sizeof path, "%.*s%s", (int)subject.size, subject.data, END);
  return size > 0 && (size_t)size < sizeof path ? pry_policy_set_find(set, path) : NULL;
}

/* ---- in use ---------------------------------------------------------------------------------------------- */

static bool uses_policy(const struct pry_config *config, struct pry_slice name)
{
  for (size_t i = 0; i < config->instance_count; i++)
    if (pry_slice_equal(name, pry_slice_of(config->instances[i]->policy)))
      return true;
  return false;
}

/* Clients of these two are known by their paths, whatever the routes say. */
static bool uses_dialect(const struct pry_config *config, struct pry_slice name)
{
  bool used = pry_slice_equal(name, PRY_SLICE("openai")) || pry_slice_equal(name, PRY_SLICE("anthropic"));
  for (size_t i = 0; i < config->provider_count && !used; i++)
    used = pry_slice_equal(name, pry_slice_of(config->providers[i].dialect->name));
  for (size_t i = 0; i < config->route_count && !used; i++)
    used = config->routes[i].client_dialect && pry_slice_equal(name, pry_slice_of(config->routes[i].client_dialect));
  return used;
}

static bool is_in_use(const struct pry_policy_set *set, const struct pry_config *config, struct pry_slice subject)
{
  static const struct pry_slice dialects = {"dialects/", sizeof "dialects/" - 1};
  if (!find_subject(set, subject))
    return true;
  if (pry_slice_starts_with(subject, dialects))
    return uses_dialect(config, (struct pry_slice){subject.data + dialects.size, subject.size - dialects.size});
  return memchr(subject.data, '/', subject.size) || uses_policy(config, subject);
}

/* ---- changed --------------------------------------------------------------------------------------------- */

static bool is_same(const struct pry_policy_file *a, const struct pry_policy_file *b)
{
  return a && b && a->size == b->size && memcmp(a->text, b->text, a->size) == 0;
}

static bool differs(const struct pry_policy_set *one, const struct pry_policy_set *other, const char *path)
{
  return !is_same(pry_policy_set_find(one, path), pry_policy_set_find(other, path));
}

/* Could what happens in the file at `path` matter to this test? Every library and dialect could; of the policies, the one it
 * tests and those that its text names. */
static bool concerns(const struct pry_policy_file *test, const char *path)
{
  if (strcmp(path, test->path) == 0)
    return true;
  if (pry_is_test_file(path) || strcmp(path, "init.lua") == 0)
    return false;
  if (strchr(path, '/'))
    return true;
  struct pry_slice subject = subject_of(test), name = {path, strlen(path) - (sizeof END - 1)};
  return pry_slice_equal(subject, name) || memmem(test->text, test->size, name.data, name.size);
}

static bool has_changed(const struct pry_policy_set *set, const struct pry_policy_set *proven,
                        const struct pry_policy_file *test)
{
  for (size_t i = 0; i < set->count; i++)
    if (concerns(test, set->files[i].path) && differs(set, proven, set->files[i].path))
      return true;
  for (size_t i = 0; i < proven->count; i++) /* what is there no more */
    if (concerns(test, proven->files[i].path) && !pry_policy_set_find(set, proven->files[i].path))
      return true;
  return false;
}

bool pry_retest_is_needed(const struct pry_policy_set *set, const struct pry_config *config,
                          const struct pry_generation *proven, const struct pry_policy_file *test)
{
  struct pry_slice subject = subject_of(test);
  if (!is_in_use(set, config, subject))
    return false;
  return !proven || !proven->tested || !is_in_use(proven->set, proven->config, subject) ||
         has_changed(set, proven->set, test);
}
