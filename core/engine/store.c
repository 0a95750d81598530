#include "store_internal.h"

#include <stdlib.h>

enum { SWEEP_MAX = 256, FIRST_HEAP = 32 };

#define KEYS_DEFAULT ((size_t)100000)
#define BYTES_DEFAULT ((size_t)64 * 1024 * 1024)

/* ---- expiry: a heap per shard ------------------------------------------------------------------------ */

static void heap_put(struct pry_shard *shard, struct pry_object *object, size_t position)
{
  shard->heap[position] = object;
  object->position = position;
}

static void heap_rise(struct pry_shard *shard, struct pry_object *object)
{
  size_t position = object->position;
  while (position && object->queued < shard->heap[(position - 1) / 2]->queued) {
    heap_put(shard, shard->heap[(position - 1) / 2], position);
    position = (position - 1) / 2;
  }
  heap_put(shard, object, position);
}

static void heap_sink(struct pry_shard *shard, struct pry_object *object, size_t count)
{
  size_t position = object->position;
  for (;;) {
    size_t child = 2 * position + 1;
    if (child >= count)
      break;
    if (child + 1 < count && shard->heap[child + 1]->queued < shard->heap[child]->queued)
      child++;
    if (shard->heap[child]->queued >= object->queued)
      break;
    heap_put(shard, shard->heap[child], position);
    position = child;
  }
  heap_put(shard, object, position);
}

static bool heap_reserve(struct pry_shard *shard, size_t count)
{
  if (count <= shard->heap_capacity)
    return true;
  size_t capacity = shard->heap_capacity ? shard->heap_capacity * 2 : FIRST_HEAP;
  struct pry_object **heap = realloc(shard->heap, capacity * sizeof *heap);
  if (!heap)
    return false;
  shard->heap = heap;
  shard->heap_capacity = capacity;
  return true;
}

void pry_store_live_until(struct pry_shard *shard, struct pry_object *object, pry_time expires)
{
  object->expires = expires;
  if (expires < object->queued) {
    object->queued = expires;
    heap_rise(shard, object);
  }
}

pry_time pry_store_after(pry_time time, pry_time duration)
{
  return duration >= PRY_TIME_NEVER - time ? PRY_TIME_NEVER : time + duration;
}

/* ---- objects ----------------------------------------------------------------------------------------- */

bool pry_store_charge(struct pry_store *store, struct pry_object *object, size_t bytes)
{
  if (atomic_fetch_add(&store->bytes, bytes) + bytes > store->max_bytes) {
    atomic_fetch_sub(&store->bytes, bytes);
    return false;
  }
  object->bytes += bytes;
  return true;
}

void pry_store_discharge(struct pry_store *store, struct pry_object *object, size_t bytes)
{
  atomic_fetch_sub(&store->bytes, bytes);
  object->bytes -= bytes;
}

static void free_content(struct pry_object *object)
{
  switch (object->type) {
  case PRY_OBJECT_VALUE:
    free(object->value.data);
    break;
  case PRY_OBJECT_WINDOW:
    free(object->window.instants);
    break;
  case PRY_OBJECT_BREAKER:
    pry_breaker_drop(&object->breaker);
    break;
  case PRY_OBJECT_COUNTER:
    break;
  }
}

void pry_store_drop(struct pry_store *store, struct pry_shard *shard, struct pry_object *object)
{
  pry_table_remove(&shard->table, &object->node);
  size_t count = shard->table.count;
  struct pry_object *last = shard->heap[count];
  if (last != object) {
    last->position = object->position;
    heap_sink(shard, last, count);
    heap_rise(shard, last);
  }
  free_content(object);
  atomic_fetch_sub(&store->keys, 1);
  pry_store_discharge(store, object, object->bytes);
  free(object);
}

static size_t sweep_shard(struct pry_store *store, struct pry_shard *shard, size_t limit, pry_time now)
{
  size_t dropped = 0;
  pthread_mutex_lock(&shard->lock);
  while (dropped < limit && shard->table.count && shard->heap[0]->queued <= now) {
    struct pry_object *object = shard->heap[0];
    if (object->expires <= now) {
      pry_store_drop(store, shard, object);
      dropped++;
    } else {
      object->queued = object->expires;
      heap_sink(shard, object, shard->table.count);
    }
  }
  pthread_mutex_unlock(&shard->lock);
  return dropped;
}

void pry_store_sweep(struct pry_store *store, pry_time now)
{
  for (size_t i = 0; i < PRY_STORE_SHARDS; i++)
    sweep_shard(store, &store->shards[i], SWEEP_MAX, now);
}

void pry_store_make_room(struct pry_store *store, size_t bytes, pry_time now)
{
  if (atomic_load(&store->keys) < store->max_keys && atomic_load(&store->bytes) + bytes <= store->max_bytes)
    return;
  pry_store_sweep(store, now);
}

struct pry_shard *pry_store_shard(struct pry_store *store, struct pry_slice key)
{
  return &store->shards[pry_hash(store->seed, key) % PRY_STORE_SHARDS];
}

static struct pry_object *lookup(struct pry_store *store, struct pry_shard *shard, struct pry_slice key, pry_time now)
{
  struct pry_table_node *node = pry_table_find(&shard->table, key);
  if (!node)
    return NULL;
  struct pry_object *object = PRY_CONTAINER_OF(node, struct pry_object, node);
  if (object->expires > now)
    return object;
  pry_store_drop(store, shard, object);
  return NULL;
}

static enum pry_store_status create(struct pry_store *store, struct pry_shard *shard, struct pry_slice key,
                                    enum pry_object_type type, struct pry_object **made)
{
  if (!heap_reserve(shard, shard->table.count + 1))
    return PRY_STORE_NO_MEMORY;
  struct pry_object *object = calloc(1, sizeof *object + key.size);
  if (!object)
    return PRY_STORE_NO_MEMORY;
  if (atomic_fetch_add(&store->keys, 1) >= store->max_keys ||
      !pry_store_charge(store, object, sizeof *object + key.size)) {
    atomic_fetch_sub(&store->keys, 1);
    free(object);
    return PRY_STORE_FULL;
  }
  if (key.size)
    memcpy(object->key, key.data, key.size);
  object->node.key = (struct pry_slice){object->key, key.size};
  object->type = type;
  object->expires = object->queued = PRY_TIME_NEVER;
  pry_table_add(&shard->table, &object->node);
  heap_put(shard, object, shard->table.count - 1);
  *made = object;
  return PRY_STORE_OK;
}

enum pry_store_status pry_store_find(struct pry_store *store, struct pry_slice key, enum pry_object_type type,
                                     pry_time now, struct pry_shard **shard, struct pry_object **object)
{
  if (key.size > PRY_STORE_KEY_MAX)
    return PRY_STORE_TOO_LONG;
  *shard = pry_store_shard(store, key);
  pthread_mutex_lock(&(*shard)->lock);
  *object = lookup(store, *shard, key, now);
  if (*object && (*object)->type == type)
    return PRY_STORE_OK;
  pthread_mutex_unlock(&(*shard)->lock);
  return *object ? PRY_STORE_WRONG_TYPE : PRY_STORE_ABSENT;
}

enum pry_store_status pry_store_open(struct pry_store *store, struct pry_slice key, enum pry_object_type type,
                                     pry_time now, struct pry_shard **shard, struct pry_object **object, bool *created)
{
  if (key.size > PRY_STORE_KEY_MAX)
    return PRY_STORE_TOO_LONG;
  pry_store_make_room(store, sizeof **object + key.size, now);
  *shard = pry_store_shard(store, key);
  pthread_mutex_lock(&(*shard)->lock);
  *object = lookup(store, *shard, key, now);
  *created = !*object;
  enum pry_store_status status = PRY_STORE_OK;
  if (!*object)
    status = create(store, *shard, key, type, object);
  else if ((*object)->type != type)
    status = PRY_STORE_WRONG_TYPE;
  if (status != PRY_STORE_OK)
    pthread_mutex_unlock(&(*shard)->lock);
  return status;
}

/* ---- the store --------------------------------------------------------------------------------------- */

struct pry_store *pry_store_new(size_t max_keys, size_t max_bytes)
{
  struct pry_store *store = calloc(1, sizeof *store);
  if (!store)
    return NULL;
  store->max_keys = max_keys ? max_keys : KEYS_DEFAULT;
  store->max_bytes = max_bytes ? max_bytes : BYTES_DEFAULT;
  bool ok = pry_hash_seed(store->seed);
  for (size_t i = 0; i < PRY_STORE_SHARDS; i++) {
    pthread_mutex_init(&store->shards[i].lock, NULL); /* cannot fail without attributes on Linux */
    ok = pry_table_init(&store->shards[i].table) && ok;
  }
  if (!ok) {
    pry_store_free(store);
    return NULL;
  }
  return store;
}

void pry_store_free(struct pry_store *store)
{
  if (!store)
    return;
  for (size_t i = 0; i < PRY_STORE_SHARDS; i++) {
    struct pry_shard *shard = &store->shards[i];
    while (shard->table.count)
      pry_store_drop(store, shard, shard->heap[shard->table.count - 1]);
    pry_table_fini(&shard->table);
    free(shard->heap);
    pry_breaker_free_spares(shard);
    pthread_mutex_destroy(&shard->lock);
  }
  free(store);
}

const char *pry_store_status_text(enum pry_store_status status)
{
  switch (status) {
  case PRY_STORE_OK:
    return "ok";
  case PRY_STORE_ABSENT:
    return "no such key";
  case PRY_STORE_FULL:
    return "the store is full";
  case PRY_STORE_WRONG_TYPE:
    return "the key holds another type";
  case PRY_STORE_TOO_LONG:
    return "key or value too long";
  case PRY_STORE_NO_MEMORY:
    return "out of memory";
  }
  return "unknown";
}

size_t pry_store_key_count(struct pry_store *store)
{
  return atomic_load(&store->keys);
}

enum pry_store_status pry_store_remove(struct pry_store *store, struct pry_slice key, pry_time now)
{
  if (key.size > PRY_STORE_KEY_MAX)
    return PRY_STORE_TOO_LONG;
  struct pry_shard *shard = pry_store_shard(store, key);
  pthread_mutex_lock(&shard->lock);
  struct pry_object *object = lookup(store, shard, key, now);
  if (object)
    pry_store_drop(store, shard, object);
  pthread_mutex_unlock(&shard->lock);
  return object ? PRY_STORE_OK : PRY_STORE_ABSENT;
}
