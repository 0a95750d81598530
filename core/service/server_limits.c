#include "server_limits.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

enum { BUCKETS_AT_FIRST = 64 };

struct address {
  struct address *next;
  uint64_t network[2];
  unsigned connections;
};

struct pry_address_limits {
  atomic_uint references;
  struct pry_address_limits_options options;
  uint64_t seed; /* so that nobody can choose addresses that all fall into one bucket */
  pthread_mutex_t lock;
  struct address **buckets;
  size_t bucket_count; /* a power of two */
  size_t connections, addresses;
};

/* ---- Addresses ------------------------------------------------------------------------------------------ */

struct origin {
  uint64_t network[2];
  bool local;
};

static struct origin origin_of_v4(const unsigned char *host)
{
  struct origin origin = {{0, 1}, host[0] == 127};
  memcpy(&origin.network[0], host, 4);
  return origin;
}

static struct origin origin_of(const struct sockaddr *address)
{
  if (address->sa_family == AF_INET) {
    struct sockaddr_in v4;
    memcpy(&v4, address, sizeof v4);
    return origin_of_v4((const unsigned char *)&v4.sin_addr);
  }
  if (address->sa_family != AF_INET6)
    return (struct origin){{0, 3}, true};
  struct sockaddr_in6 v6;
  memcpy(&v6, address, sizeof v6);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr))
    return origin_of_v4(v6.sin6_addr.s6_addr + 12);
  struct origin origin = {{0, 2}, IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr)};
  memcpy(&origin.network[0], v6.sin6_addr.s6_addr, 8);
  return origin;
}

/* ---- The table ------------------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t value)
{
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

static struct address **bucket_of(struct pry_address_limits *limits, const uint64_t network[2])
{
  uint64_t hash = mix(mix(network[0] ^ limits->seed) + network[1] + limits->seed);
  return &limits->buckets[hash & (limits->bucket_count - 1)];
}

static struct address **find(struct pry_address_limits *limits, const uint64_t network[2])
{
  struct address **at = bucket_of(limits, network);
  while (*at && memcmp((*at)->network, network, sizeof(*at)->network) != 0)
    at = &(*at)->next;
  return at;
}

/* Without memory the chains grow instead, which is slower and nothing worse. */
static void grow(struct pry_address_limits *limits)
{
  size_t old_count = limits->bucket_count;
  struct address **old = limits->buckets, **fresh = calloc(old_count * 2, sizeof *fresh);
  if (!fresh)
    return;
  limits->buckets = fresh;
  limits->bucket_count = old_count * 2;
  for (size_t i = 0; i < old_count; i++) {
    while (old[i]) {
      struct address *address = old[i];
      old[i] = address->next;
      struct address **bucket = bucket_of(limits, address->network);
      address->next = *bucket;
      *bucket = address;
    }
  }
  free(old);
}

static enum pry_address_answer count_address(struct pry_address_limits *limits, const uint64_t network[2])
{
  struct address **at = find(limits, network);
  if (*at) {
    if ((*at)->connections >= limits->options.max_connections_per_address)
      return PRY_ADDRESS_TOO_MANY_HERE;
    (*at)->connections++;
    return PRY_ADDRESS_WELCOME;
  }
  struct address *address = calloc(1, sizeof *address);
  if (!address)
    return PRY_ADDRESS_TOO_MANY;
  memcpy(address->network, network, sizeof address->network);
  address->connections = 1;
  *at = address;
  if (++limits->addresses > limits->bucket_count)
    grow(limits);
  return PRY_ADDRESS_WELCOME;
}

static void uncount_address(struct pry_address_limits *limits, const uint64_t network[2])
{
  struct address **at = find(limits, network), *address = *at;
  if (!address || --address->connections)
    return;
  *at = address->next;
  limits->addresses--;
  free(address);
}

enum pry_address_answer pry_address_limits_take(struct pry_address_limits *limits, const struct sockaddr *address,
                                                struct pry_address_place *place)
{
  const struct pry_address_limits_options *options = &limits->options;
  struct origin origin = origin_of(address);
  enum pry_address_answer answer = PRY_ADDRESS_WELCOME;
  *place = (struct pry_address_place){.by_address = options->max_connections_per_address &&
                                                    !(origin.local && options->exempt_local)};
  memcpy(place->network, origin.network, sizeof place->network);
  pthread_mutex_lock(&limits->lock);
  if (options->max_connections && limits->connections >= options->max_connections)
    answer = PRY_ADDRESS_TOO_MANY;
  else if (place->by_address)
    answer = count_address(limits, place->network);
  place->counted = answer == PRY_ADDRESS_WELCOME;
  limits->connections += place->counted;
  pthread_mutex_unlock(&limits->lock);
  return answer;
}

void pry_address_limits_give(struct pry_address_limits *limits, struct pry_address_place *place)
{
  if (!place->counted)
    return;
  pthread_mutex_lock(&limits->lock);
  limits->connections--;
  if (place->by_address)
    uncount_address(limits, place->network);
  pthread_mutex_unlock(&limits->lock);
  *place = (struct pry_address_place){0};
}

size_t pry_address_limits_connection_count(struct pry_address_limits *limits)
{
  pthread_mutex_lock(&limits->lock);
  size_t count = limits->connections;
  pthread_mutex_unlock(&limits->lock);
  return count;
}

size_t pry_address_limits_address_count(struct pry_address_limits *limits)
{
  pthread_mutex_lock(&limits->lock);
  size_t count = limits->addresses;
  pthread_mutex_unlock(&limits->lock);
  return count;
}

/* ---- Sharing -------------------------------------------------------------------------------------------- */

struct pry_address_limits *pry_address_limits_new(const struct pry_address_limits_options *options)
{
  struct pry_address_limits *limits = calloc(1, sizeof *limits);
  struct address **buckets = calloc(BUCKETS_AT_FIRST, sizeof *buckets);
  if (!limits || !buckets || pthread_mutex_init(&limits->lock, NULL) != 0) {
    free(buckets);
    free(limits);
    return NULL;
  }
  atomic_init(&limits->references, 1);
  if (options)
    limits->options = *options;
  limits->buckets = buckets;
  limits->bucket_count = BUCKETS_AT_FIRST;
  if (getrandom(&limits->seed, sizeof limits->seed, GRND_NONBLOCK) != (ssize_t)sizeof limits->seed)
    limits->seed = (uint64_t)(uintptr_t)limits;
  return limits;
}

struct pry_address_limits *pry_address_limits_ref(struct pry_address_limits *limits)
{
  atomic_fetch_add_explicit(&limits->references, 1, memory_order_relaxed);
  return limits;
}

void pry_address_limits_unref(struct pry_address_limits *limits)
{
  if (!limits || atomic_fetch_sub_explicit(&limits->references, 1, memory_order_acq_rel) != 1)
    return;
  for (size_t i = 0; i < limits->bucket_count; i++) {
    while (limits->buckets[i]) {
      struct address *address = limits->buckets[i];
      limits->buckets[i] = address->next;
      free(address);
    }
  }
  pthread_mutex_destroy(&limits->lock);
  free(limits->buckets);
  free(limits);
}
