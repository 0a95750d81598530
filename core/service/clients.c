#include "clients_internal.h"

#include "table.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>

/* What a client has used of its limits. Found by name, so that it survives the table. */
struct pry_client_use {
  struct pry_table_node node;
  struct pry_clients *owner;
  unsigned references; /* of tables; under the owner's lock */
  pthread_mutex_t lock;
  unsigned open;
  bool filled; /* the bucket was filled once */
  double tokens;
  pry_time filled_at;
  char name[];
};

struct pry_clients {
  unsigned char salt[PRY_DIGEST_SIZE];
  pthread_rwlock_t table_lock; /* of the pointer, not of what it points at */
  struct pry_client_table *table;
  pthread_mutex_t uses_lock;
  struct pry_table uses;
};

const char *pry_admission_word(enum pry_admission admission)
{
  static const char *const words[] = {
#define X(name, word) word,
      PRY_ADMISSIONS(X)
#undef X
  };
  return words[admission];
}

/* ---- life ------------------------------------------------------------------------------------------------- */

struct pry_clients *pry_clients_new(void)
{
  struct pry_clients *clients = calloc(1, sizeof *clients);
  if (!clients)
    return NULL;
  if (RAND_bytes(clients->salt, sizeof clients->salt) != 1 || !pry_table_init(&clients->uses)) {
    free(clients);
    return NULL;
  }
  pthread_rwlock_init(&clients->table_lock, NULL); /* neither can fail without attributes on Linux */
  pthread_mutex_init(&clients->uses_lock, NULL);
  return clients;
}

void pry_clients_free(struct pry_clients *clients)
{
  if (!clients)
    return;
  pry_client_table_unref(clients->table);
  pthread_rwlock_destroy(&clients->table_lock);
  pthread_mutex_destroy(&clients->uses_lock);
  pry_table_fini(&clients->uses);
  free(clients);
}

void pry_clients_install(struct pry_clients *clients, struct pry_client_table *table)
{
  pthread_rwlock_wrlock(&clients->table_lock);
  struct pry_client_table *old = clients->table;
  clients->table = table;
  pthread_rwlock_unlock(&clients->table_lock);
  pry_client_table_unref(old);
}

static struct pry_client_table *hold_table(struct pry_clients *clients)
{
  pthread_rwlock_rdlock(&clients->table_lock);
  struct pry_client_table *table = clients->table;
  if (table)
    atomic_fetch_add(&table->references, 1);
  pthread_rwlock_unlock(&clients->table_lock);
  return table;
}

bool pry_clients_loaded(struct pry_clients *clients)
{
  pthread_rwlock_rdlock(&clients->table_lock);
  bool loaded = clients->table != NULL;
  pthread_rwlock_unlock(&clients->table_lock);
  return loaded;
}

/* ---- uses ------------------------------------------------------------------------------------------------- */

static struct pry_client_use *new_use(struct pry_clients *clients, const char *name)
{
  size_t size = strlen(name);
  struct pry_client_use *use = calloc(1, sizeof *use + size + 1);
  if (!use)
    return NULL;
  memcpy(use->name, name, size + 1);
  use->owner = clients;
  use->node.key = (struct pry_slice){use->name, size};
  pthread_mutex_init(&use->lock, NULL);
  pry_table_add(&clients->uses, &use->node);
  return use;
}

struct pry_client_use *pry_clients_use(struct pry_clients *clients, const char *name)
{
  pthread_mutex_lock(&clients->uses_lock);
  struct pry_table_node *node = pry_table_find(&clients->uses, pry_slice_of(name));
  struct pry_client_use *use = node ? PRY_CONTAINER_OF(node, struct pry_client_use, node) : new_use(clients, name);
  if (use)
    use->references++;
  pthread_mutex_unlock(&clients->uses_lock);
  return use;
}

static void unref_use(struct pry_client_use *use)
{
  struct pry_clients *clients = use->owner;
  pthread_mutex_lock(&clients->uses_lock);
  bool last = --use->references == 0;
  if (last)
    pry_table_remove(&clients->uses, &use->node);
  pthread_mutex_unlock(&clients->uses_lock);
  if (!last)
    return;
  pthread_mutex_destroy(&use->lock);
  free(use);
}

unsigned pry_clients_open(struct pry_clients *clients, const char *name)
{
  unsigned open = 0;
  pthread_mutex_lock(&clients->uses_lock);
  struct pry_table_node *node = pry_table_find(&clients->uses, pry_slice_of(name));
  if (node) {
    struct pry_client_use *use = PRY_CONTAINER_OF(node, struct pry_client_use, node);
    pthread_mutex_lock(&use->lock);
    open = use->open;
    pthread_mutex_unlock(&use->lock);
  }
  pthread_mutex_unlock(&clients->uses_lock);
  return open;
}

void pry_client_table_unref(struct pry_client_table *table)
{
  if (!table || atomic_fetch_sub(&table->references, 1) != 1)
    return;
  for (size_t i = 0; i < table->count; i++)
    if (table->clients[i].use)
      unref_use(table->clients[i].use);
  pry_arena_fini(&table->arena);
  free(table);
}

size_t pry_client_table_count(const struct pry_client_table *table)
{
  return table->count;
}

const struct pry_client *pry_client_table_at(const struct pry_client_table *table, size_t i)
{
  return &table->clients[i];
}

/* ---- finding ---------------------------------------------------------------------------------------------- */

bool pry_clients_mark(const struct pry_clients *clients, const unsigned char digest[PRY_DIGEST_SIZE],
                      unsigned char mark[PRY_DIGEST_SIZE])
{
  unsigned char text[2 * PRY_DIGEST_SIZE];
  memcpy(text, clients->salt, PRY_DIGEST_SIZE);
  memcpy(text + PRY_DIGEST_SIZE, digest, PRY_DIGEST_SIZE);
  bool ok = EVP_Digest(text, sizeof text, mark, NULL, EVP_sha256(), NULL) == 1;
  OPENSSL_cleanse(text, sizeof text);
  return ok;
}

/* The time of the search depends on marks alone, which nobody outside can choose or compute. */
static const struct pry_client *find_mark(const struct pry_client_table *table, const unsigned char *mark)
{
  size_t low = 0, high = table->key_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (memcmp(table->keys[middle].mark, mark, PRY_DIGEST_SIZE) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  if (low < table->key_count && CRYPTO_memcmp(table->keys[low].mark, mark, PRY_DIGEST_SIZE) == 0)
    return table->keys[low].client;
  return NULL;
}

static const struct pry_client *find_client(const struct pry_client_table *table, struct pry_slice key)
{
  unsigned char digest[PRY_DIGEST_SIZE], mark[PRY_DIGEST_SIZE];
  const struct pry_client *client = NULL;
  if (!key.size || key.size > PRY_CLIENT_KEY_MAX)
    return NULL;
  if (EVP_Digest(key.data, key.size, digest, NULL, EVP_sha256(), NULL) == 1 &&
      pry_clients_mark(table->owner, digest, mark))
    client = find_mark(table, mark);
  OPENSSL_cleanse(digest, sizeof digest);
  OPENSSL_cleanse(mark, sizeof mark);
  return client;
}

/* ---- limits ----------------------------------------------------------------------------------------------- */

/* Under the use's lock. Seconds until one token is there; 0: now. */
static double fill_bucket(struct pry_client_use *use, const struct pry_client *client, pry_time now)
{
  double per_second = client->rpm / 60.0;
  if (!use->filled) {
    use->filled = true;
    use->tokens = client->burst;
    use->filled_at = now;
  }
  if (now > use->filled_at) { /* workers' clocks are read a moment apart */
    use->tokens += pry_time_to_seconds(now - use->filled_at) * per_second;
    use->filled_at = now;
  }
  if (use->tokens > client->burst)
    use->tokens = client->burst;
  double missing = 1 - use->tokens;
  return missing > 1e-9 ? missing / per_second : 0;
}

static enum pry_admission take(const struct pry_client *client, pry_time now, double *retry_after)
{
  struct pry_client_use *use = client->use;
  enum pry_admission admission = PRY_ADMITTED;
  pthread_mutex_lock(&use->lock);
  if (client->concurrent && use->open >= client->concurrent) {
    admission = PRY_ADMISSION_CONCURRENT;
    *retry_after = 1; /* nobody knows when one of them ends */
  } else if (client->rpm && (*retry_after = fill_bucket(use, client, now)) > 0) {
    admission = PRY_ADMISSION_RATE;
  } else {
    use->tokens -= client->rpm ? 1 : 0;
    use->open++;
    *retry_after = -1;
  }
  pthread_mutex_unlock(&use->lock);
  return admission;
}

static bool may_use_path(const struct pry_client *client, struct pry_slice path)
{
  bool fits = !client->paths.count;
  for (size_t i = 0; !fits && i < client->paths.count; i++)
    fits = pry_glob_match(pry_slice_of(client->paths.items[i]), path);
  return fits;
}

static enum pry_admission judge(const struct pry_client *client, const struct pry_knock *knock, double *retry_after)
{
  if (!client->enabled)
    return PRY_ADMISSION_DISABLED;
  if (knock->unix_time >= client->expires)
    return PRY_ADMISSION_EXPIRED;
  if (!may_use_path(client, knock->path))
    return PRY_ADMISSION_PATH;
  return take(client, knock->now, retry_after);
}

enum pry_admission pry_clients_admit(struct pry_clients *clients, const struct pry_knock *knock,
                                     struct pry_lease *lease, double *retry_after)
{
  const struct pry_client *client = NULL;
  *lease = (struct pry_lease){NULL, NULL, false};
  *retry_after = -1;
  struct pry_client_table *table = hold_table(clients);
  if (!table)
    return PRY_ADMISSION_NOT_LOADED;
  for (size_t i = 0; !client && i < knock->key_count; i++)
    client = find_client(table, knock->keys[i]);
  enum pry_admission admission = client             ? judge(client, knock, retry_after)
                                 : knock->key_count ? PRY_ADMISSION_UNKNOWN_KEY
                                                    : PRY_ADMISSION_NO_KEY;
  *lease = (struct pry_lease){table, client, admission == PRY_ADMITTED};
  return admission;
}

void pry_lease_release(struct pry_lease *lease)
{
  if (lease->counted) {
    struct pry_client_use *use = lease->client->use;
    pthread_mutex_lock(&use->lock);
    use->open--;
    pthread_mutex_unlock(&use->lock);
  }
  pry_client_table_unref(lease->table);
  *lease = (struct pry_lease){NULL, NULL, false};
}
