/* Circuit breakers: the store's objects that are state machines. Declared in store.h. */
#include "store_internal.h"

#include <stdlib.h>

enum {
  PERMIT_KEY = 96, /* bytes of a key that fit into any permit */
  SPARES_MAX = 16  /* a shard's */
};

#define HALF_OPEN_LIMIT_DEFAULT (60 * PRY_SECOND)
#define WINDOW_DEFAULT (60 * PRY_SECOND)

/* With all half-open places out nobody knows when one comes back: this is when asking again makes sense. */
#define ASK_AGAIN PRY_SECOND

/* Lives as long as the attempt that holds it, whatever becomes of the breaker. */
struct pry_breaker_permit {
  struct pry_permit permit;
  struct pry_store *store;
  struct pry_shard *shard;         /* of its key */
  struct pry_breaker_permit *next; /* spare */
  struct pry_list place; /* in its breaker's list while it takes a half-open place; guarded by the shard's lock */
  pry_time since;
  uint64_t epoch;
  bool recorded;
  struct pry_slice key;
  char key_bytes[]; /* room for PERMIT_KEY at least */
};

static void release_permit(struct pry_permit *permit)
{
  struct pry_breaker_permit *held = PRY_CONTAINER_OF(permit, struct pry_breaker_permit, permit);
  struct pry_shard *shard = held->shard;
  pthread_mutex_lock(&shard->lock);
  pry_list_remove(&held->place);
  bool keep = held->key.size <= PERMIT_KEY && shard->spares < SPARES_MAX;
  if (keep) {
    held->next = shard->spare;
    shard->spare = held;
    shard->spares++;
  }
  pthread_mutex_unlock(&shard->lock);
  if (!keep)
    free(held);
}

void pry_breaker_free_spares(struct pry_shard *shard)
{
  while (shard->spare) {
    struct pry_breaker_permit *held = shard->spare;
    shard->spare = held->next;
    free(held);
  }
}

/* Every attempt takes one: those given back are kept. The shard's lock is held. */
static struct pry_breaker_permit *take_memory(struct pry_shard *shard, size_t key_size)
{
  struct pry_breaker_permit *held = key_size <= PERMIT_KEY ? shard->spare : NULL;
  if (!held)
    return malloc(sizeof *held + (key_size > PERMIT_KEY ? key_size : PERMIT_KEY));
  shard->spare = held->next;
  shard->spares--;
  return held;
}

static struct pry_breaker_permit *new_permit(struct pry_store *store, struct pry_shard *shard, struct pry_slice key,
                                             uint64_t epoch, pry_time now)
{
  struct pry_breaker_permit *held = take_memory(shard, key.size);
  if (!held)
    return NULL;
  held->permit = (struct pry_permit){.release = release_permit, .observed = true};
  pry_list_init(&held->permit.link);
  pry_list_init(&held->place);
  held->store = store;
  held->shard = shard;
  held->next = NULL;
  held->since = now;
  held->epoch = epoch;
  held->recorded = false;
  if (key.size)
    memcpy(held->key_bytes, key.data, key.size);
  held->key = (struct pry_slice){held->key_bytes, key.size};
  return held;
}

/* Whoever entered before keeps a permit without a place and of a past epoch: its outcome counts for nothing. */
static void free_places(struct pry_object_breaker *breaker)
{
  while (!pry_list_empty(&breaker->places))
    pry_list_remove(breaker->places.next);
}

void pry_breaker_drop(struct pry_object_breaker *breaker)
{
  free_places(breaker);
  free(breaker->window);
}

static void change_state(struct pry_store *store, struct pry_object_breaker *breaker, enum pry_breaker_state state,
                         pry_time now)
{
  breaker->state = state;
  breaker->epoch = atomic_fetch_add(&store->next_epoch, 1) + 1;
  breaker->failures = 0;
  breaker->successes = 0;
  if (state == PRY_BREAKER_CLOSED)
    breaker->closed_since = now;
  if (breaker->window)
    memset(breaker->window->buckets, 0, sizeof breaker->window->buckets);
  free_places(breaker);
}

/* ---- how long it stays open ----------------------------------------------------------------------------- */

static pry_time grown_cooldown(struct pry_object_breaker *breaker, const struct pry_breaker_parameters *parameters,
                               pry_time now)
{
  pry_time base = parameters->cooldown > 0 ? parameters->cooldown : 0, most = parameters->cooldown_most;
  if (breaker->state == PRY_BREAKER_CLOSED && now - breaker->closed_since >= most)
    breaker->openings = 0;
  if (most <= base || base == 0)
    return base;
  if (breaker->openings < most / base + 1)
    breaker->openings++;
  return breaker->openings > most / base ? most : base * breaker->openings;
}

static void open_breaker(struct pry_store *store, struct pry_object_breaker *breaker,
                         const struct pry_breaker_parameters *parameters, pry_time at_least, pry_time now)
{
  pry_time cooldown = grown_cooldown(breaker, parameters, now);
  pry_time until = pry_store_after(now, cooldown > at_least ? cooldown : at_least);
  change_state(store, breaker, PRY_BREAKER_OPEN, now);
  if (until > breaker->open_until)
    breaker->open_until = until;
}

/* An open breaker must not be forgotten before its cooldown has passed: forgetting would close it. */
static void keep(struct pry_shard *shard, struct pry_object *object, pry_time now)
{
  pry_time from =
      object->breaker.state == PRY_BREAKER_OPEN && object->breaker.open_until > now ? object->breaker.open_until : now;
  pry_store_live_until(shard, object, pry_store_after(from, PRY_STORE_TTL_DEFAULT));
}

static pry_time lapse_time(const struct pry_object_breaker *breaker, const struct pry_breaker_parameters *parameters)
{
  pry_time limit = parameters->half_open_limit > 0 ? parameters->half_open_limit : HALF_OPEN_LIMIT_DEFAULT;
  return pry_store_after(PRY_CONTAINER_OF(breaker->places.next, struct pry_breaker_permit, place)->since, limit);
}

/* Permits that leaked, or belong to attempts that hang, must not keep a breaker half-open for ever. */
static void free_lapsed_places(struct pry_object_breaker *breaker, const struct pry_breaker_parameters *parameters,
                               pry_time now)
{
  while (!pry_list_empty(&breaker->places) && lapse_time(breaker, parameters) <= now)
    pry_list_remove(breaker->places.next);
}

static bool has_free_place(const struct pry_object_breaker *breaker, const struct pry_breaker_parameters *parameters)
{
  unsigned left = parameters->permits ? parameters->permits : 1;
  for (const struct pry_list *place = breaker->places.next; place != &breaker->places && left; place = place->next)
    left--;
  return left > 0;
}

static pry_time soonest_chance(const struct pry_object_breaker *breaker,
                               const struct pry_breaker_parameters *parameters, pry_time now)
{
  if (breaker->state == PRY_BREAKER_OPEN)
    return breaker->open_until - now;
  pry_time lapse = lapse_time(breaker, parameters) - now;
  return lapse < ASK_AGAIN ? lapse : ASK_AGAIN;
}

static enum pry_store_status enter(struct pry_store *store, struct pry_shard *shard, struct pry_object *object,
                                   const struct pry_breaker_parameters *parameters, pry_time now,
                                   struct pry_breaker_entry *entry)
{
  struct pry_object_breaker *breaker = &object->breaker;
  if (breaker->state == PRY_BREAKER_OPEN && now >= breaker->open_until) {
    change_state(store, breaker, PRY_BREAKER_HALF_OPEN, now);
    entry->changed = true;
  }
  free_lapsed_places(breaker, parameters, now);
  entry->state = breaker->state;
  if (breaker->state == PRY_BREAKER_OPEN ||
      (breaker->state == PRY_BREAKER_HALF_OPEN && !has_free_place(breaker, parameters))) {
    entry->retry_in = soonest_chance(breaker, parameters, now);
    return PRY_STORE_OK;
  }
  struct pry_breaker_permit *held = new_permit(store, shard, object->node.key, breaker->epoch, now);
  if (!held)
    return PRY_STORE_NO_MEMORY;
  if (breaker->state == PRY_BREAKER_HALF_OPEN)
    pry_list_push(&breaker->places, &held->place);
  entry->allowed = true;
  entry->permit = &held->permit;
  return PRY_STORE_OK;
}

enum pry_store_status pry_breaker_enter(struct pry_store *store, struct pry_slice key,
                                        const struct pry_breaker_parameters *parameters, pry_time now,
                                        struct pry_breaker_entry *entry)
{
  *entry = (struct pry_breaker_entry){0};
  struct pry_shard *shard;
  struct pry_object *object;
  bool created;
  enum pry_store_status status = pry_store_open(store, key, PRY_OBJECT_BREAKER, now, &shard, &object, &created);
  if (status != PRY_STORE_OK)
    return status;
  if (created) {
    pry_list_init(&object->breaker.places);
    change_state(store, &object->breaker, PRY_BREAKER_CLOSED, now);
  }
  status = enter(store, shard, object, parameters, now, entry);
  keep(shard, object, now);
  pthread_mutex_unlock(&shard->lock);
  return status;
}

static struct pry_breaker_permit *find_permit(struct pry_list *permits, const struct pry_store *store,
                                              struct pry_slice key)
{
  for (struct pry_list *link = permits->next; link != permits; link = link->next) {
    struct pry_permit *permit = PRY_CONTAINER_OF(link, struct pry_permit, link);
    if (permit->release != release_permit)
      continue;
    struct pry_breaker_permit *held = PRY_CONTAINER_OF(permit, struct pry_breaker_permit, permit);
    if (held->store == store && !held->recorded && pry_slice_equal(held->key, key))
      return held;
  }
  return NULL;
}

/* ---- the window of a closed breaker ---------------------------------------------------------------------- */

/* The bucket of this moment, in which an old one of the same place is forgotten. NULL: there is no room for a window, so
 * that only failures in a row count. */
static struct pry_breaker_bucket *bucket_now(struct pry_store *store, struct pry_object *object,
                                             const struct pry_breaker_parameters *parameters, pry_time now)
{
  struct pry_breaker_window *window = object->breaker.window;
  pry_time width = (parameters->window > 0 ? parameters->window : WINDOW_DEFAULT) / PRY_BREAKER_BUCKETS;
  width = width > 0 ? width : 1;
  if (!window) {
    if (!pry_store_charge(store, object, sizeof *window))
      return NULL;
    window = calloc(1, sizeof *window);
    if (!window) {
      pry_store_discharge(store, object, sizeof *window);
      return NULL;
    }
    object->breaker.window = window;
  }
  if (window->width != width)
    *window = (struct pry_breaker_window){.width = width};
  struct pry_breaker_bucket *bucket = &window->buckets[now / width % PRY_BREAKER_BUCKETS];
  if (bucket->number != now / width)
    *bucket = (struct pry_breaker_bucket){.number = now / width};
  return bucket;
}

static struct pry_breaker_bucket sum_of(const struct pry_breaker_window *window, pry_time now)
{
  struct pry_breaker_bucket sum = {.number = now / window->width};
  for (size_t i = 0; i < PRY_BREAKER_BUCKETS; i++) {
    const struct pry_breaker_bucket *bucket = &window->buckets[i];
    if (bucket->number <= sum.number - PRY_BREAKER_BUCKETS || bucket->number > sum.number)
      continue;
    sum.calls += bucket->calls;
    sum.failures += bucket->failures;
    sum.slow += bucket->slow;
  }
  return sum;
}

static bool exceeds(unsigned part, unsigned all, double ratio)
{
  return ratio > 0 && (double)part >= ratio * (double)all;
}

/* Counts an outcome of a closed breaker. True: one of the ratios is reached. */
static bool ratio_reached(struct pry_store *store, struct pry_object *object,
                          const struct pry_breaker_parameters *parameters, enum pry_breaker_outcome outcome,
                          pry_time now)
{
  if (!(parameters->ratio > 0) && !(parameters->slow_ratio > 0))
    return false;
  struct pry_breaker_bucket *bucket = bucket_now(store, object, parameters, now);
  if (!bucket)
    return false;
  bucket->calls++;
  bucket->failures += outcome == PRY_BREAKER_FAILURE;
  bucket->slow += outcome == PRY_BREAKER_SLOW_SUCCESS;
  struct pry_breaker_bucket sum = sum_of(object->breaker.window, now);
  return sum.calls >= parameters->min_calls &&
         ((outcome == PRY_BREAKER_FAILURE && exceeds(sum.failures, sum.calls, parameters->ratio)) ||
          (outcome == PRY_BREAKER_SLOW_SUCCESS && exceeds(sum.slow, sum.calls, parameters->slow_ratio)));
}

/* ---- outcomes ------------------------------------------------------------------------------------------------ */

static bool row_reached(struct pry_object_breaker *breaker, const struct pry_breaker_parameters *parameters,
                        enum pry_breaker_outcome outcome)
{
  bool other_rule = parameters->ratio > 0 || parameters->slow_ratio > 0;
  breaker->failures = outcome == PRY_BREAKER_FAILURE ? breaker->failures + 1 : 0;
  return (parameters->failures || !other_rule) && breaker->failures && breaker->failures >= parameters->failures;
}

static void count_outcome(struct pry_store *store, struct pry_object *object,
                          const struct pry_breaker_parameters *parameters, enum pry_breaker_outcome outcome,
                          pry_time at_least, pry_time now)
{
  struct pry_object_breaker *breaker = &object->breaker;
  bool opens;
  if (breaker->state == PRY_BREAKER_CLOSED) {
    opens = ratio_reached(store, object, parameters, outcome, now);
    opens = row_reached(breaker, parameters, outcome) || opens;
  } else {
    opens = outcome == PRY_BREAKER_FAILURE || (outcome == PRY_BREAKER_SLOW_SUCCESS && parameters->slow_ratio > 0);
  }
  if (opens)
    open_breaker(store, breaker, parameters, outcome == PRY_BREAKER_FAILURE ? at_least : 0, now);
  else if (breaker->state == PRY_BREAKER_HALF_OPEN && ++breaker->successes >= parameters->successes)
    change_state(store, breaker, PRY_BREAKER_CLOSED, now);
}

/* The outcome of an attempt that began before the last change of state says nothing about now. Only what the server
 * itself said about when to come back is still true, and may move an open breaker's end later. */
static void note_late(struct pry_object_breaker *breaker, enum pry_breaker_outcome outcome, pry_time cooldown_at_least,
                      pry_time now)
{
  pry_time until = pry_store_after(now, cooldown_at_least);
  if (outcome == PRY_BREAKER_FAILURE && cooldown_at_least > 0 && breaker->state == PRY_BREAKER_OPEN &&
      until > breaker->open_until)
    breaker->open_until = until;
}

enum pry_store_status pry_breaker_record(struct pry_store *store, struct pry_slice key,
                                         const struct pry_breaker_parameters *parameters, struct pry_list *permits,
                                         enum pry_breaker_outcome outcome, pry_time cooldown_at_least, pry_time now,
                                         enum pry_breaker_state *state, bool *changed)
{
  *state = PRY_BREAKER_CLOSED;
  *changed = false;
  struct pry_breaker_permit *held = find_permit(permits, store, key);
  struct pry_shard *shard;
  struct pry_object *object;
  enum pry_store_status status = pry_store_find(store, key, PRY_OBJECT_BREAKER, now, &shard, &object);
  if (status != PRY_STORE_OK)
    return status == PRY_STORE_ABSENT ? PRY_STORE_OK : status;
  struct pry_object_breaker *breaker = &object->breaker;
  enum pry_breaker_state before = breaker->state;
  if (held) {
    held->recorded = true;
    pry_list_remove(&held->place);
    if (held->epoch != breaker->epoch)
      note_late(breaker, outcome, cooldown_at_least, now);
    else
      count_outcome(store, object, parameters, outcome, cooldown_at_least, now);
    keep(shard, object, now);
  }
  *state = breaker->state;
  *changed = breaker->state != before;
  pthread_mutex_unlock(&shard->lock);
  return PRY_STORE_OK;
}

enum pry_store_status pry_breaker_peek(struct pry_store *store, struct pry_slice key, pry_time now,
                                       enum pry_breaker_state *state, pry_time *retry_in)
{
  *state = PRY_BREAKER_CLOSED;
  *retry_in = 0;
  struct pry_shard *shard;
  struct pry_object *object;
  enum pry_store_status status = pry_store_find(store, key, PRY_OBJECT_BREAKER, now, &shard, &object);
  if (status != PRY_STORE_OK)
    return status == PRY_STORE_ABSENT ? PRY_STORE_OK : status;
  *state = object->breaker.state;
  if (*state == PRY_BREAKER_OPEN && object->breaker.open_until > now)
    *retry_in = object->breaker.open_until - now;
  pthread_mutex_unlock(&shard->lock);
  return PRY_STORE_OK;
}

const char *pry_breaker_state_name(enum pry_breaker_state state)
{
  static const char *const names[] = {"closed", "open", "half_open"};
  return names[state];
}

/* ---- for status ---------------------------------------------------------------------------------------- */

struct seen_breaker {
  enum pry_breaker_state state;
  size_t key_size;
};

/* What memory does not suffice for is left out: this is for people, not for decisions. */
static void copy_breakers(struct pry_shard *shard, pry_time now, struct pry_buffer *copies)
{
  pthread_mutex_lock(&shard->lock);
  for (struct pry_table_node *node = pry_table_next(&shard->table, NULL); node;
       node = pry_table_next(&shard->table, node)) {
    const struct pry_object *object = PRY_CONTAINER_OF(node, struct pry_object, node);
    struct seen_breaker seen = {object->breaker.state, node->key.size};
    if (object->type != PRY_OBJECT_BREAKER || object->expires <= now ||
        !pry_buffer_reserve(copies, sizeof seen + node->key.size))
      continue;
    pry_buffer_append(copies, &seen, sizeof seen);
    pry_buffer_append_slice(copies, node->key);
  }
  pthread_mutex_unlock(&shard->lock);
}

void pry_store_each_breaker(struct pry_store *store, pry_time now,
                            void (*visit)(void *user, struct pry_slice key, enum pry_breaker_state state), void *user)
{
  struct pry_buffer copies;
  pry_buffer_init(&copies, 0);
  for (size_t i = 0; i < PRY_STORE_SHARDS; i++)
    copy_breakers(&store->shards[i], now, &copies);
  for (size_t at = 0; at < copies.size;) {
    struct seen_breaker seen;
    memcpy(&seen, copies.data + at, sizeof seen);
    visit(user, (struct pry_slice){copies.data + at + sizeof seen, seen.key_size}, seen.state);
    at += sizeof seen + seen.key_size;
  }
  pry_buffer_fini(&copies);
}
