#include "keys.h"

#include "list.h"
#include "table.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* What is known about one key, or, without a secret's name, whose turn it is at a provider. */
struct mark {
  struct pry_table_node node; /* its key is `name` below */
  uint64_t version;           /* of the value that it is about */
  pry_time paused_until, retired_until;
  bool was_retired; /* and has not worked since */
  size_t turn;
  char name[]; /* the provider's, a NUL, the secret's */
};

struct pry_keys {
  pthread_mutex_t lock;
  struct pry_table table;
  uint64_t seed[2];      /* of versions */
  atomic_size_t entries; /* in the table: without any there is nothing to look for */
};

struct pry_keys *pry_keys_new(void)
{
  struct pry_keys *keys = calloc(1, sizeof *keys);
  if (!keys)
    return NULL;
  pthread_mutex_init(&keys->lock, NULL); /* cannot fail without attributes on Linux */
  if (!pry_table_init(&keys->table) || !pry_hash_seed(keys->seed)) {
    pry_keys_free(keys);
    return NULL;
  }
  return keys;
}

static void forget(struct pry_keys *keys, struct mark *mark)
{
  pry_table_remove(&keys->table, &mark->node);
  atomic_fetch_sub(&keys->entries, 1);
  free(mark);
}

void pry_keys_free(struct pry_keys *keys)
{
  if (!keys)
    return;
  struct pry_table_node *node;
  while (keys->table.slots && (node = pry_table_next(&keys->table, NULL)))
    forget(keys, PRY_CONTAINER_OF(node, struct mark, node));
  pry_table_fini(&keys->table);
  pthread_mutex_destroy(&keys->lock);
  free(keys);
}

const char *pry_key_state_name(enum pry_key_state state)
{
  static const char *const names[] = {
      [PRY_KEY_USABLE] = "usable",
      [PRY_KEY_PAUSED] = "paused",
      [PRY_KEY_RETIRED] = "retired",
      [PRY_KEY_MISSING] = "missing",
  };
  return names[state];
}

/* ---- marks: under the lock -------------------------------------------------------------------------------- */

struct mark_name {
  size_t size;
  char text[2 * PRY_SECRET_NAME_MAX + 2];
};

static struct mark_name name_of(const struct pry_provider *provider, const char *key)
{
  struct mark_name name;
  int size = snprintf(name.text, sizeof name.text, "%s%c%s", provider->name, '\0', key);
  name.size = size > 0 && (size_t)size < sizeof name.text ? (size_t)size : 0;
  return name;
}

static struct mark *find(const struct pry_keys *keys, const struct mark_name *name)
{
  struct pry_table_node *node = pry_table_find(&keys->table, (struct pry_slice){name->text, name->size});
  return node ? PRY_CONTAINER_OF(node, struct mark, node) : NULL;
}

static bool is_over(const struct mark *mark, pry_time now)
{
  return mark->paused_until <= now && mark->retired_until <= now;
}

static void drop_those_over(struct pry_keys *keys, pry_time now)
{
  struct pry_table_node *next;
  for (struct pry_table_node *node = pry_table_next(&keys->table, NULL); node; node = next) {
    next = pry_table_next(&keys->table, node);
    struct mark *mark = PRY_CONTAINER_OF(node, struct mark, node);
    if (is_over(mark, now))
      forget(keys, mark);
  }
}

static struct mark *find_or_make(struct pry_keys *keys, const struct mark_name *name, pry_time now)
{
  struct mark *mark = find(keys, name);
  if (mark || !name->size)
    return mark;
  if (keys->table.count >= PRY_KEYS_MARKED_MAX)
    drop_those_over(keys, now);
  mark = keys->table.count < PRY_KEYS_MARKED_MAX ? calloc(1, sizeof *mark + name->size) : NULL;
  if (!mark)
    return NULL;
  memcpy(mark->name, name->text, name->size);
  mark->node.key = (struct pry_slice){mark->name, name->size};
  pry_table_add(&keys->table, &mark->node);
  atomic_fetch_add(&keys->entries, 1);
  return mark;
}

static uint64_t version_of(const struct pry_keys *keys, const struct pry_secret *secret)
{
  return pry_hash(keys->seed, pry_slice_of(secret->value));
}

static enum pry_key_state state_of(const struct pry_keys *keys, const struct pry_provider *provider, size_t index,
                                   pry_time now, pry_time *left)
{
  const struct pry_secret *secret = provider->keys[index];
  *left = 0;
  if (!secret->value)
    return PRY_KEY_MISSING;
  if (provider->key_count == 1 || !keys->table.count)
    return PRY_KEY_USABLE;
  struct mark_name name = name_of(provider, secret->name);
  const struct mark *mark = find(keys, &name);
  if (!mark || is_over(mark, now) || mark->version != version_of(keys, secret))
    return PRY_KEY_USABLE;
  bool retired = mark->retired_until > now;
  *left = (retired ? mark->retired_until : mark->paused_until) - now;
  return retired ? PRY_KEY_RETIRED : PRY_KEY_PAUSED;
}

/* ---- choosing ------------------------------------------------------------------------------------------- */

/* Where to begin to look; when there is no memory for turns, with the first. */
static size_t first_index(struct pry_keys *keys, const struct pry_provider *provider, pry_time now)
{
  if (provider->rotation == PRY_ROTATE_FIRST || provider->key_count == 1)
    return 0;
  struct mark_name name = name_of(provider, "");
  const struct mark *mark = find_or_make(keys, &name, now);
  return mark ? mark->turn % provider->key_count : 0;
}

static void next_turn(struct pry_keys *keys, const struct pry_provider *provider, size_t index)
{
  struct mark_name name = name_of(provider, "");
  struct mark *mark = provider->rotation == PRY_ROTATE_FIRST ? NULL : find(keys, &name);
  if (mark)
    mark->turn = index + 1;
}

static struct pry_key_choice choose(struct pry_keys *keys, const struct pry_provider *provider, uint64_t passed_over,
                                    bool take, pry_time now)
{
  struct pry_key_choice choice = {.wait = -1, .missing = true};
  size_t first = first_index(keys, provider, now);
  for (size_t i = 0; i < provider->key_count; i++) {
    size_t index = (first + i) % provider->key_count;
    pry_time left;
    enum pry_key_state state = state_of(keys, provider, index, now, &left);
    choice.missing = choice.missing && state == PRY_KEY_MISSING;
    if (state == PRY_KEY_PAUSED && (choice.wait < 0 || left < choice.wait))
      choice.wait = left;
    if (state != PRY_KEY_USABLE || (passed_over >> index & 1))
      continue;
    choice.found = true;
    choice.index = index;
    choice.version = version_of(keys, provider->keys[index]);
    if (take)
      next_turn(keys, provider, index);
    break;
  }
  return choice;
}

/* Nothing is known, and no turn is kept: the table need not be looked at. */
static bool is_simple(const struct pry_keys *keys, const struct pry_provider *provider)
{
  return provider->key_count == 1 ||
         (provider->rotation == PRY_ROTATE_FIRST && !atomic_load_explicit(&keys->entries, memory_order_acquire));
}

struct pry_key_choice pry_keys_choose(struct pry_keys *keys, const struct pry_provider *provider, uint64_t passed_over,
                                      bool take, pry_time now)
{
  const struct pry_secret *first = provider->keys[0];
  if (is_simple(keys, provider) && first->value && !(passed_over & 1))
    return (struct pry_key_choice){.found = true, .version = version_of(keys, first), .wait = -1};
  pthread_mutex_lock(&keys->lock);
  struct pry_key_choice choice = choose(keys, provider, passed_over, take, now);
  pthread_mutex_unlock(&keys->lock);
  return choice;
}

size_t pry_keys_index(const struct pry_provider *provider, const char *name)
{
  for (size_t i = 0; i < provider->key_count; i++)
    if (strcmp(provider->keys[i]->name, name) == 0)
      return i;
  return SIZE_MAX;
}

bool pry_keys_usable(struct pry_keys *keys, const struct pry_provider *provider, size_t index, bool take,
                     uint64_t *version, pry_time now)
{
  pry_time left;
  *version = version_of(keys, provider->keys[index]);
  if (provider->keys[index]->value && is_simple(keys, provider))
    return true;
  pthread_mutex_lock(&keys->lock);
  bool usable = state_of(keys, provider, index, now, &left) == PRY_KEY_USABLE;
  if (usable && take)
    next_turn(keys, provider, index);
  pthread_mutex_unlock(&keys->lock);
  return usable;
}

/* ---- marking -------------------------------------------------------------------------------------------- */

static enum pry_key_marked set_mark(struct pry_keys *keys, const struct pry_provider *provider, const char *key,
                                    uint64_t version, bool retire, pry_time until, pry_time now)
{
  size_t index = pry_keys_index(provider, key);
  if (index == SIZE_MAX || !provider->keys[index]->value || version_of(keys, provider->keys[index]) != version)
    return PRY_KEY_MARK_STALE;
  struct mark_name name = name_of(provider, key);
  struct mark *mark = find_or_make(keys, &name, now);
  if (!mark)
    return PRY_KEY_MARK_FULL;
  if (mark->version != version) {
    mark->paused_until = mark->retired_until = 0;
    mark->was_retired = false;
  }
  mark->version = version;
  pry_time *end = retire ? &mark->retired_until : &mark->paused_until;
  bool was_marked = *end > now || (!retire && mark->retired_until > now);
  if (until > *end)
    *end = until;
  mark->was_retired = mark->was_retired || retire;
  if (was_marked)
    return PRY_KEY_MARK_LONGER;
  return provider->key_count == 1 ? PRY_KEY_MARK_ONLY : PRY_KEY_MARK_SET;
}

static enum pry_key_marked mark_locked(struct pry_keys *keys, const struct pry_provider *provider, const char *name,
                                       uint64_t version, bool retire, pry_time until, pry_time now)
{
  pthread_mutex_lock(&keys->lock);
  enum pry_key_marked marked = set_mark(keys, provider, name, version, retire, until, now);
  pthread_mutex_unlock(&keys->lock);
  return marked;
}

enum pry_key_marked pry_keys_retire(struct pry_keys *keys, const struct pry_provider *provider, const char *name,
                                    uint64_t version, pry_time until, pry_time now)
{
  return mark_locked(keys, provider, name, version, true, until, now);
}

enum pry_key_marked pry_keys_pause(struct pry_keys *keys, const struct pry_provider *provider, const char *name,
                                   uint64_t version, pry_time until, pry_time now)
{
  return mark_locked(keys, provider, name, version, false, until, now);
}

bool pry_keys_worked(struct pry_keys *keys, const struct pry_provider *provider, const char *name, uint64_t version,
                     pry_time now)
{
  if (!atomic_load_explicit(&keys->entries, memory_order_acquire))
    return false;
  size_t index = pry_keys_index(provider, name);
  if (index == SIZE_MAX || version_of(keys, provider->keys[index]) != version)
    return false;
  struct mark_name wanted = name_of(provider, name);
  pthread_mutex_lock(&keys->lock);
  struct mark *mark = find(keys, &wanted);
  bool is_new = mark && mark->version != version;
  bool back = mark && mark->was_retired && (is_new || provider->key_count == 1 || mark->retired_until <= now);
  if (mark && (is_new || (back && (provider->key_count == 1 || is_over(mark, now)))))
    forget(keys, mark);
  else if (back)
    mark->was_retired = false;
  pthread_mutex_unlock(&keys->lock);
  return back;
}

/* ---- looking -------------------------------------------------------------------------------------------- */

void pry_keys_each(struct pry_keys *keys, const struct pry_config *config, pry_time now,
                   void (*visit)(void *user, const struct pry_key_status *), void *user)
{
  for (size_t i = 0; i < config->provider_count; i++) {
    const struct pry_provider *provider = &config->providers[i];
    for (size_t j = 0; provider->key_count > 1 && j < provider->key_count; j++) {
      struct pry_key_status status = {.provider = provider->name, .key = provider->keys[j]->name};
      pthread_mutex_lock(&keys->lock);
      status.state = state_of(keys, provider, j, now, &status.left);
      pthread_mutex_unlock(&keys->lock);
      visit(user, &status);
    }
  }
}
