/*
 * keys.h: which of a provider's keys calls use now.
 *
 * A provider may have several keys: `auth = bearer(secret "K1"), keys = { secret "K2" }`. Here is what was learned about
 * them: a key that is out of order is retired for a while, one that met its limit is paused. Everybody else's attempts
 * pass over it from that moment on. Kept per provider and secret's name, for all workers; it survives reloads and ends
 * with the secret's value: a new value is a new key, and a late verdict about the old one says nothing about it (that is
 * what versions are for). Values are never kept, only a keyed hash.
 *
 * A provider with one key keeps it, whatever is said about it: an attempt that may fail is better than none, and there
 * the provider's own answer says more than ours would.
 *
 * Only keys that something is known about take memory; at most PRY_KEYS_MARKED_MAX of them, then marks that are over are
 * dropped, and when none is, nothing more is learned until one is.
 *
 * Time: the caller's `now`, from its loop. Thread: any; one lock, held for a few look-ups, and none at all while no
 * key is marked.
 */
#ifndef PRY_KEYS_H
#define PRY_KEYS_H

#include "config.h"

enum { PRY_KEYS_MARKED_MAX = 4096 };

struct pry_keys;

/* NULL: no memory, or no random bytes. */
struct pry_keys *pry_keys_new(void);
void pry_keys_free(struct pry_keys *keys); /* NULL is fine */

enum pry_key_state { PRY_KEY_USABLE, PRY_KEY_PAUSED, PRY_KEY_RETIRED, PRY_KEY_MISSING };
const char *pry_key_state_name(enum pry_key_state state);

/* What pry_keys_choose() found. */
struct pry_key_choice {
  bool found;
  size_t index;     /* in provider->keys */
  uint64_t version; /* of the secret's value */
  pry_time wait;    /* when none was found: until the soonest paused one; negative: none is merely paused */
  bool missing;     /* when none was found: because no key has a value */
};

/* The key for the next attempt, as the provider's rotation says. `passed_over`: a bit per index of keys that will not
 * do. `take`: it is used, the next one's turn comes; otherwise this only looks. provider->key_count must not be 0. */
struct pry_key_choice pry_keys_choose(struct pry_keys *keys, const struct pry_provider *provider, uint64_t passed_over,
                                      bool take, pry_time now);

/* The place of a key in provider->keys, or SIZE_MAX; how a name finds its key again in another generation. */
size_t pry_keys_index(const struct pry_provider *provider, const char *name);

/* Is this key usable now? `take`: then it is used, and the next one's turn comes. */
bool pry_keys_usable(struct pry_keys *keys, const struct pry_provider *provider, size_t index, bool take,
                     uint64_t *version, pry_time now);

/* What became of a mark. */
enum pry_key_marked {
  PRY_KEY_MARK_SET,    /* it was usable, or merely paused and is now retired */
  PRY_KEY_MARK_LONGER, /* it was marked so already; the later end counts */
  PRY_KEY_MARK_ONLY,   /* as SET, but the provider has no other key: it is used all the same */
  PRY_KEY_MARK_STALE,  /* not a key of the provider, or its value has changed since: nothing changed */
  PRY_KEY_MARK_FULL    /* memory, or too many marks: nothing changed */
};

/* The key did not work with this value: nobody uses it before `until`. */
enum pry_key_marked pry_keys_retire(struct pry_keys *keys, const struct pry_provider *provider, const char *name,
                                    uint64_t version, pry_time until, pry_time now);

/* The key met its limit: nobody uses it before `until`. */
enum pry_key_marked pry_keys_pause(struct pry_keys *keys, const struct pry_provider *provider, const char *name,
                                   uint64_t version, pry_time until, pry_time now);

/* A retired key has worked again: true once after the end of its retirement, and then it is forgotten. A success during
 * it changes nothing, because the attempt had begun before, except for an only key. */
bool pry_keys_worked(struct pry_keys *keys, const struct pry_provider *provider, const char *name, uint64_t version,
                     pry_time now);

/* For status and metrics: never a value. */
struct pry_key_status {
  const char *provider, *key;
  enum pry_key_state state;
  pry_time left; /* of a pause or a retirement */
};

/* The keys of all providers that have more than one, in the order of their declaration. */
void pry_keys_each(struct pry_keys *keys, const struct pry_config *config, pry_time now,
                   void (*visit)(void *user, const struct pry_key_status *), void *user);

#endif
