/* Values, counters and windows. Declared in store.h. */
#include "store_internal.h"

#include <float.h>
#include <stdlib.h>

enum { FIRST_INSTANTS = 8 };

static pry_time expiry(pry_time ttl, pry_time now)
{
  return pry_store_after(now, ttl > 0 ? ttl : PRY_STORE_TTL_DEFAULT);
}

/* ---- value ------------------------------------------------------------------------------------------- */

/* On failure an existing value stays as it was; a new object must not be seen without one. */
static enum pry_store_status assign(struct pry_store *store, struct pry_object *object, struct pry_slice value)
{
  size_t old_size = object->value.size;
  if (value.size > old_size && !pry_store_charge(store, object, value.size - old_size))
    return PRY_STORE_FULL;
  char *data = malloc(value.size ? value.size : 1);
  if (!data) {
    if (value.size > old_size)
      pry_store_discharge(store, object, value.size - old_size);
    return PRY_STORE_NO_MEMORY;
  }
  if (value.size)
    memcpy(data, value.data, value.size);
  free(object->value.data);
  object->value = (struct pry_object_value){data, value.size};
  if (old_size > value.size)
    pry_store_discharge(store, object, old_size - value.size);
  return PRY_STORE_OK;
}

static enum pry_store_status write_value(struct pry_store *store, struct pry_slice key, struct pry_slice value,
                                         pry_time ttl, pry_time now, bool only_absent, bool *stored)
{
  *stored = false;
  if (value.size > PRY_STORE_VALUE_MAX)
    return PRY_STORE_TOO_LONG;
  pry_store_make_room(store, sizeof(struct pry_object) + key.size + value.size, now);
  struct pry_shard *shard;
  struct pry_object *object;
  bool created;
  enum pry_store_status status = pry_store_open(store, key, PRY_OBJECT_VALUE, now, &shard, &object, &created);
  if (status != PRY_STORE_OK)
    return status;
  if (created || !only_absent) {
    status = assign(store, object, value);
    *stored = status == PRY_STORE_OK;
  }
  if (*stored)
    pry_store_live_until(shard, object, expiry(ttl, now));
  else if (created)
    pry_store_drop(store, shard, object);
  pthread_mutex_unlock(&shard->lock);
  return status;
}

enum pry_store_status pry_store_set(struct pry_store *store, struct pry_slice key, struct pry_slice value, pry_time ttl,
                                    pry_time now)
{
  bool stored;
  return write_value(store, key, value, ttl, now, false, &stored);
}

enum pry_store_status pry_store_add(struct pry_store *store, struct pry_slice key, struct pry_slice value, pry_time ttl,
                                    pry_time now, bool *stored)
{
  return write_value(store, key, value, ttl, now, true, stored);
}

enum pry_store_status pry_store_get(struct pry_store *store, struct pry_slice key, struct pry_buffer *value,
                                    pry_time now)
{
  struct pry_shard *shard;
  struct pry_object *object;
  enum pry_store_status status = pry_store_find(store, key, PRY_OBJECT_VALUE, now, &shard, &object);
  if (status != PRY_STORE_OK)
    return status;
  if (!pry_buffer_append(value, object->value.data, object->value.size))
    status = PRY_STORE_NO_MEMORY;
  pthread_mutex_unlock(&shard->lock);
  return status;
}

/* ---- counter ----------------------------------------------------------------------------------------- */

/* Stays a number whatever is added: infinity and NaN could never be counted back from. */
static double bounded_sum(double a, double b)
{
  double sum = a + b;
  return sum > DBL_MAX ? DBL_MAX : sum < -DBL_MAX ? -DBL_MAX : sum != sum ? a : sum;
}

enum pry_store_status pry_store_count(struct pry_store *store, struct pry_slice key, double by, pry_time ttl,
                                      pry_time now, double *total)
{
  *total = 0;
  struct pry_shard *shard;
  struct pry_object *object;
  bool created;
  enum pry_store_status status = pry_store_open(store, key, PRY_OBJECT_COUNTER, now, &shard, &object, &created);
  if (status != PRY_STORE_OK)
    return status;
  object->counter = bounded_sum(object->counter, by);
  *total = object->counter;
  pry_store_live_until(shard, object, expiry(ttl, now));
  pthread_mutex_unlock(&shard->lock);
  return status;
}

enum pry_store_status pry_store_counter(struct pry_store *store, struct pry_slice key, pry_time now, double *total)
{
  *total = 0;
  struct pry_shard *shard;
  struct pry_object *object;
  enum pry_store_status status = pry_store_find(store, key, PRY_OBJECT_COUNTER, now, &shard, &object);
  if (status != PRY_STORE_OK)
    return status == PRY_STORE_ABSENT ? PRY_STORE_OK : status;
  *total = object->counter;
  pthread_mutex_unlock(&shard->lock);
  return PRY_STORE_OK;
}

/* ---- quota ------------------------------------------------------------------------------------------- */

enum pry_store_status pry_store_take(struct pry_store *store, struct pry_slice key, double amount, double capacity,
                                     double reserve, pry_time ttl, pry_time now, bool *taken, double *left)
{
  *taken = false;
  *left = 0;
  struct pry_shard *shard;
  struct pry_object *object;
  bool created;
  enum pry_store_status status = pry_store_open(store, key, PRY_OBJECT_COUNTER, now, &shard, &object, &created);
  if (status != PRY_STORE_OK)
    return status;
  double used = object->counter > 0 ? object->counter : 0;
  *taken = capacity - used - amount >= reserve;
  if (*taken)
    used += amount;
  object->counter = used;
  *left = used < capacity ? capacity - used : 0;
  if (created && !*taken)
    pry_store_drop(store, shard, object);
  else
    pry_store_live_until(shard, object, expiry(ttl, now));
  pthread_mutex_unlock(&shard->lock);
  return status;
}

enum pry_store_status pry_store_give(struct pry_store *store, struct pry_slice key, double amount, pry_time ttl,
                                     pry_time now)
{
  struct pry_shard *shard;
  struct pry_object *object;
  enum pry_store_status status = pry_store_find(store, key, PRY_OBJECT_COUNTER, now, &shard, &object);
  if (status != PRY_STORE_OK)
    return status == PRY_STORE_ABSENT ? PRY_STORE_OK : status;
  object->counter = object->counter > amount ? object->counter - amount : 0;
  if (object->counter > 0)
    pry_store_live_until(shard, object, expiry(ttl, now));
  else
    pry_store_drop(store, shard, object);
  pthread_mutex_unlock(&shard->lock);
  return PRY_STORE_OK;
}

/* ---- window ------------------------------------------------------------------------------------------ */

static pry_time instant_at(const struct pry_object_window *window, unsigned i)
{
  return window->instants[(window->first + i) % window->capacity];
}

/* How many lie after `start`: instants never decrease, so the first of them is found by halving. */
static unsigned count_after(const struct pry_object_window *window, pry_time start)
{
  unsigned low = 0, high = window->count;
  while (low < high) {
    unsigned middle = low + (high - low) / 2;
    if (instant_at(window, middle) > start)
      high = middle;
    else
      low = middle + 1;
  }
  return window->count - low;
}

static void forget_oldest(struct pry_object_window *window, unsigned keep)
{
  while (window->count > keep) {
    window->first = (window->first + 1) % window->capacity;
    window->count--;
  }
}

static enum pry_store_status grow_window(struct pry_store *store, struct pry_object *object, unsigned limit)
{
  struct pry_object_window *window = &object->window;
  unsigned capacity = window->capacity ? window->capacity * 2 : FIRST_INSTANTS;
  if (capacity > limit)
    capacity = limit;
  size_t more = (capacity - window->capacity) * sizeof *window->instants;
  if (!pry_store_charge(store, object, more))
    return PRY_STORE_FULL;
  pry_time *instants = malloc(capacity * sizeof *instants);
  if (!instants) {
    pry_store_discharge(store, object, more);
    return PRY_STORE_NO_MEMORY;
  }
  for (unsigned i = 0; i < window->count; i++)
    instants[i] = instant_at(window, i);
  free(window->instants);
  *window = (struct pry_object_window){.instants = instants, .count = window->count, .capacity = capacity};
  return PRY_STORE_OK;
}

static enum pry_store_status record_instant(struct pry_store *store, struct pry_object *object, unsigned limit,
                                            pry_time now)
{
  struct pry_object_window *window = &object->window;
  forget_oldest(window, limit - 1);
  if (window->count == window->capacity) {
    enum pry_store_status status = grow_window(store, object, limit);
    if (status != PRY_STORE_OK)
      return status;
  }
  /* Another worker's clock may be a moment ahead; the order of instants must hold. */
  if (window->count && instant_at(window, window->count - 1) > now)
    now = instant_at(window, window->count - 1);
  window->instants[(window->first + window->count++) % window->capacity] = now;
  return PRY_STORE_OK;
}

enum pry_store_status pry_store_window_add(struct pry_store *store, struct pry_slice key, pry_time length,
                                           unsigned limit, pry_time now, unsigned *count)
{
  *count = 0;
  limit = limit < 1 ? 1 : limit > PRY_STORE_WINDOW_MAX ? PRY_STORE_WINDOW_MAX : limit;
  pry_store_make_room(store, sizeof(struct pry_object) + key.size + limit * sizeof(pry_time), now);
  struct pry_shard *shard;
  struct pry_object *object;
  bool created;
  enum pry_store_status status = pry_store_open(store, key, PRY_OBJECT_WINDOW, now, &shard, &object, &created);
  if (status != PRY_STORE_OK)
    return status;
  status = record_instant(store, object, limit, now);
  if (status == PRY_STORE_OK) {
    *count = count_after(&object->window, now - length);
    pry_store_live_until(shard, object, expiry(length, now));
  } else if (created) {
    pry_store_drop(store, shard, object);
  }
  pthread_mutex_unlock(&shard->lock);
  return status;
}

enum pry_store_status pry_store_window_count(struct pry_store *store, struct pry_slice key, pry_time length,
                                             pry_time now, unsigned *count)
{
  *count = 0;
  struct pry_shard *shard;
  struct pry_object *object;
  enum pry_store_status status = pry_store_find(store, key, PRY_OBJECT_WINDOW, now, &shard, &object);
  if (status != PRY_STORE_OK)
    return status == PRY_STORE_ABSENT ? PRY_STORE_OK : status;
  *count = count_after(&object->window, now - length);
  pthread_mutex_unlock(&shard->lock);
  return PRY_STORE_OK;
}

enum pry_store_status pry_store_window_clear(struct pry_store *store, struct pry_slice key, pry_time now)
{
  struct pry_shard *shard;
  struct pry_object *object;
  enum pry_store_status status = pry_store_find(store, key, PRY_OBJECT_WINDOW, now, &shard, &object);
  if (status != PRY_STORE_OK)
    return status == PRY_STORE_ABSENT ? PRY_STORE_OK : status;
  pry_store_drop(store, shard, object);
  pthread_mutex_unlock(&shard->lock);
  return PRY_STORE_OK;
}
