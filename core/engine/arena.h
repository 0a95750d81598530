/*
 * arena.h: many small allocations that go together.
 *
 * For data that is built once and freed as a whole, such as a generation's configuration. Memory is
 * zeroed, aligned for any type, and stays where it is until pry_arena_fini(). Bounded by `limit` so that
 * a hostile file cannot grow it without end. One thread while building; read by any thread afterwards.
 */
#ifndef PRY_ARENA_H
#define PRY_ARENA_H

#include "slice.h"

struct pry_arena_block;

struct pry_arena {
  struct pry_arena_block *blocks;
  size_t used;  /* bytes handed out */
  size_t limit; /* 0: none */
};

void pry_arena_init(struct pry_arena *arena, size_t limit);
void pry_arena_fini(struct pry_arena *arena);

/* Zeroed memory, or NULL when memory or the limit is short. A size of 0 gives a valid pointer. */
void *pry_arena_take(struct pry_arena *arena, size_t size);

/* `count` elements of `size`, zeroed; NULL also when the product overflows. */
void *pry_arena_array(struct pry_arena *arena, size_t count, size_t size);

/* A NUL-terminated copy, or NULL. */
char *pry_arena_copy(struct pry_arena *arena, struct pry_slice text);

#endif
