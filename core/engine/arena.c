#include "arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>

enum { BLOCK_SIZE = 4096 };

struct pry_arena_block {
  struct pry_arena_block *next;
  size_t used, size;
  alignas(max_align_t) char data[];
};

void pry_arena_init(struct pry_arena *arena, size_t limit)
{
  *arena = (struct pry_arena){.limit = limit};
}

void pry_arena_fini(struct pry_arena *arena)
{
  while (arena->blocks) {
    struct pry_arena_block *next = arena->blocks->next;
    free(arena->blocks);
    arena->blocks = next;
  }
  arena->used = 0;
}

static struct pry_arena_block *add_block(struct pry_arena *arena, size_t size)
{
  size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE;
  struct pry_arena_block *block = calloc(1, sizeof *block + room);
  if (!block)
    return NULL;
  block->size = room;
  block->next = arena->blocks;
  arena->blocks = block;
  return block;
}

void *pry_arena_take(struct pry_arena *arena, size_t size)
{
  if (size > SIZE_MAX / 2)
    return NULL;
  size_t rounded = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
  if (arena->limit && (rounded > arena->limit || arena->used > arena->limit - rounded))
    return NULL;
  struct pry_arena_block *block = arena->blocks;
  if (!block || block->size - block->used < rounded)
    block = add_block(arena, rounded);
  if (!block)
    return NULL;
  void *memory = block->data + block->used;
  block->used += rounded;
  arena->used += rounded;
  return memory;
}

void *pry_arena_array(struct pry_arena *arena, size_t count, size_t size)
{
  if (size && count > SIZE_MAX / size)
    return NULL;
  return pry_arena_take(arena, count * size);
}

char *pry_arena_copy(struct pry_arena *arena, struct pry_slice text)
{
  char *copy = pry_arena_take(arena, text.size + 1);
  if (copy && text.size)
    memcpy(copy, text.data, text.size);
  return copy;
}
