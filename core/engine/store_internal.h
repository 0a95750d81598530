/*
 * store_internal.h: what store.c, store_data.c and store_breaker.c share; nobody else includes it.
 *
 * Keys are spread over shards, each with its lock, its table and its heap of objects by time of expiry. Number and
 * bytes of all objects are counted in the store, atomically, so that a bound holds whatever shard grows.
 */
#ifndef PRY_STORE_INTERNAL_H
#define PRY_STORE_INTERNAL_H

#include "store.h"
#include "table.h"

#include <pthread.h>
#include <stdatomic.h>

enum { PRY_STORE_SHARDS = 16 };

#define PRY_STORE_TTL_DEFAULT (3600 * PRY_SECOND)

enum pry_object_type { PRY_OBJECT_VALUE, PRY_OBJECT_COUNTER, PRY_OBJECT_WINDOW, PRY_OBJECT_BREAKER };

struct pry_object_value {
  char *data;
  size_t size;
};

/* A ring of instants, oldest at `first`, never decreasing. */
struct pry_object_window {
  pry_time *instants;
  unsigned first, count, capacity;
};

/* Outcomes of a closed breaker within one part of its window. */
struct pry_breaker_bucket {
  int64_t number; /* time divided by the width; another number: long ago */
  unsigned calls, failures, slow;
};

struct pry_breaker_window {
  pry_time width; /* of one bucket */
  struct pry_breaker_bucket buckets[PRY_BREAKER_BUCKETS];
};

struct pry_object_breaker {
  enum pry_breaker_state state;
  uint64_t epoch;                    /* a new one at each change of state, never used twice in a store */
  unsigned failures;                 /* consecutive, while closed */
  unsigned successes;                /* while half-open */
  unsigned openings;                 /* in short succession; how a cooldown grows */
  pry_time open_until;               /* while open */
  pry_time closed_since;             /* while closed */
  struct pry_breaker_window *window; /* NULL until a ratio is asked for */
  struct pry_list places;            /* taken in half-open, oldest first */
};

struct pry_object {
  struct pry_table_node node; /* its key is `key` below */
  enum pry_object_type type;
  pry_time expires;
  pry_time queued; /* its time in the heap: writes that renew leave it behind, and it is put right when it comes up */
  size_t position; /* in the heap */
  size_t bytes;    /* counted in the store */
  union {
    struct pry_object_value value;
    double counter;
    struct pry_object_window window;
    struct pry_object_breaker breaker;
  };
  char key[];
};

struct pry_breaker_permit; /* store_breaker.c */

struct pry_shard {
  pthread_mutex_t lock;
  struct pry_breaker_permit *spare; /* given back, for the next ones */
  unsigned spares;
  struct pry_table table;
  struct pry_object **heap; /* by `queued`, table.count long */
  size_t heap_capacity;
};

struct pry_store {
  struct pry_shard shards[PRY_STORE_SHARDS];
  uint64_t seed[2]; /* of the choice of shard */
  size_t max_keys, max_bytes;
  atomic_size_t keys, bytes;
  atomic_uint_fast64_t next_epoch;
};

struct pry_shard *pry_store_shard(struct pry_store *store, struct pry_slice key);

/* Finds a live object and leaves its shard locked; on any status but OK nothing is locked. */
enum pry_store_status pry_store_find(struct pry_store *store, struct pry_slice key, enum pry_object_type type,
                                     pry_time now, struct pry_shard **shard, struct pry_object **object);

/* The same, but makes an absent object, zeroed but for its key and type; *created tells which it was. A new object has
 * no time to live yet: pry_store_live_until() follows. */
enum pry_store_status pry_store_open(struct pry_store *store, struct pry_slice key, enum pry_object_type type,
                                     pry_time now, struct pry_shard **shard, struct pry_object **object, bool *created);

/* Sets when a locked object expires. */
void pry_store_live_until(struct pry_shard *shard, struct pry_object *object, pry_time expires);

/* `duration` after `time`, without overflow. */
pry_time pry_store_after(pry_time time, pry_time duration);

/* Before something grows by at most `bytes`, nothing locked: what has expired goes when there is no room without. */
void pry_store_make_room(struct pry_store *store, size_t bytes, pry_time now);

/* Counts bytes for a locked object. False: over the bound, nothing counted. */
bool pry_store_charge(struct pry_store *store, struct pry_object *object, size_t bytes);
void pry_store_discharge(struct pry_store *store, struct pry_object *object, size_t bytes);

/* Removes and frees a locked object; the shard stays locked. */
void pry_store_drop(struct pry_store *store, struct pry_shard *shard, struct pry_object *object);

/* Called with the shard locked, before a breaker's memory goes: its permits stay valid and hold no place. Frees what the
 * breaker owns. */
void pry_breaker_drop(struct pry_object_breaker *breaker);

/* The permits that a shard keeps for the next ones. */
void pry_breaker_free_spares(struct pry_shard *shard);

#endif
