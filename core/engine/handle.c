#include "handle.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PLACES = 4000, REST = 63 };

/* Zero: nothing was ever here, or all of it is a forked parent's. */
struct parry {
  _Atomic(struct pry_host *) host; /* `gone` when it was freed */
  uint32_t next;                   /* among the free, index + 1; 0: none */
};

/* In pages that are zero in a child: an unlocked lock, and nothing free. */
struct table {
  pthread_mutex_t lock;
  uint32_t first_free, last_free, free_count;
  struct parry places[PLACES];
};

/* The process's one table. These a child has, too. */
static _Atomic(struct table *) the_table;
static atomic_uint places_used; /* never fewer: those a child finds used are its parent's */
static atomic_int owner;        /* 0: the kernel wipes; else whose table it is */

static char freed;
#define gone ((struct pry_host *)(void *)&freed)

static struct table *map_table(void)
{
  struct table *table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (table == MAP_FAILED)
    return NULL;
  if (madvise(table, sizeof *table, MADV_WIPEONFORK) != 0)
    atomic_store(&owner, (int)getpid());
  return table;
}

/* True in a child when the kernel did not tell it so. */
static bool is_copied(void)
{
  int pid = atomic_load_explicit(&owner, memory_order_relaxed);
  return pid && pid != (int)getpid();
}

static struct table *table_of_process(void)
{
  struct table *table = atomic_load(&the_table);
  if (table)
    return is_copied() ? NULL : table;
  struct table *fresh = map_table();
  if (fresh && !atomic_compare_exchange_strong(&the_table, &table, fresh)) {
    munmap(fresh, sizeof *fresh); /* another thread was faster */
    fresh = table;
  }
  return fresh;
}

static struct parry *take_place(struct table *table)
{
  struct parry *place = NULL;
  unsigned used = atomic_load(&places_used);
  bool full = used == PLACES;
  if (table->free_count > REST || (full && table->free_count)) {
    place = &table->places[table->first_free - 1];
    table->first_free = place->next;
    table->free_count--;
  } else if (!full) {
    place = &table->places[used];
    atomic_store(&places_used, used + 1);
  }
  return place;
}

parry *pry_handle_new(struct pry_host *host)
{
  struct table *table = table_of_process();
  if (!table)
    return NULL;
  pthread_mutex_lock(&table->lock);
  struct parry *place = take_place(table);
  if (place)
    atomic_store_explicit(&place->host, host, memory_order_release);
  pthread_mutex_unlock(&table->lock);
  return place;
}

static bool is_place(const struct table *table, const parry *handle)
{
  uintptr_t offset = (uintptr_t)handle - (uintptr_t)table->places;
  return offset < sizeof table->places && offset % sizeof *handle == 0 &&
         offset / sizeof *handle < atomic_load_explicit(&places_used, memory_order_acquire);
}

struct pry_host *pry_handle_host(const parry *handle, int *error)
{
  const struct table *table = atomic_load_explicit(&the_table, memory_order_acquire);
  *error = PARRY_EFREED;
  if (!table || !is_place(table, handle))
    return NULL;
  struct pry_host *host = atomic_load_explicit(&((parry *)handle)->host, memory_order_acquire);
  if (host == gone)
    return NULL;
  if (host && !is_copied()) {
    *error = PARRY_OK;
    return host;
  }
  *error = PARRY_EFORKED;
  return NULL;
}

void pry_handle_free(parry *handle)
{
  struct table *table = atomic_load(&the_table);
  uint32_t number = (uint32_t)(handle - table->places) + 1;
  pthread_mutex_lock(&table->lock);
  atomic_store_explicit(&handle->host, gone, memory_order_release);
  handle->next = 0;
  if (table->free_count++)
    table->places[table->last_free - 1].next = number;
  else
    table->first_free = number;
  table->last_free = number;
  pthread_mutex_unlock(&table->lock);
}
