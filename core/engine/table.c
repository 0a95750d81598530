#include "table.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { FIRST_SLOTS = 16 };

static uint64_t rotate(uint64_t value, unsigned bits)
{
  return value << bits | value >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], unsigned rounds)
{
  while (rounds--) {
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
  }
}

/* A whole word in one load: keys are hashed several times in a decision. */
static uint64_t read_word(const char *data)
{
  uint64_t word;
  memcpy(&word, data, sizeof word);
  return le64toh(word);
}

static uint64_t little_endian(const char *data, size_t size)
{
  uint64_t word = 0;
  for (size_t i = 0; i < size; i++)
    word |= (uint64_t)(unsigned char)data[i] << (8 * i);
  return word;
}

static void sip_absorb(uint64_t v[4], uint64_t word)
{
  v[3] ^= word;
  sip_rounds(v, 2);
  v[0] ^= word;
}

uint64_t pry_hash(const uint64_t seed[2], struct pry_slice bytes)
{
  uint64_t v[4] = {seed[0] ^ 0x736f6d6570736575, seed[1] ^ 0x646f72616e646f6d, seed[0] ^ 0x6c7967656e657261,
                   seed[1] ^ 0x7465646279746573};
  size_t whole = bytes.size / 8 * 8;
  for (size_t i = 0; i < whole; i += 8)
    sip_absorb(v, read_word(bytes.data + i));
  uint64_t last = (uint64_t)bytes.size << 56;
  if (bytes.size > whole)
    last |= little_endian(bytes.data + whole, bytes.size - whole);
  sip_absorb(v, last);
  v[2] ^= 0xff;
  sip_rounds(v, 4);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

bool pry_hash_seed(uint64_t seed[2])
{
  return getrandom(seed, 2 * sizeof *seed, 0) == (ssize_t)(2 * sizeof *seed);
}

bool pry_table_init(struct pry_table *table)
{
  *table = (struct pry_table){.slot_count = FIRST_SLOTS};
  if (!pry_hash_seed(table->seed))
    return false;
  table->slots = calloc(FIRST_SLOTS, sizeof *table->slots);
  return table->slots != NULL;
}

void pry_table_fini(struct pry_table *table)
{
  free(table->slots);
  *table = (struct pry_table){0};
}

static struct pry_table_node **slot_of(const struct pry_table *table, uint64_t hash)
{
  return &table->slots[hash & (table->slot_count - 1)];
}

struct pry_table_node *pry_table_find(const struct pry_table *table, struct pry_slice key)
{
  uint64_t hash = pry_hash(table->seed, key);
  struct pry_table_node *node = *slot_of(table, hash);
  while (node && (node->hash != hash || !pry_slice_equal(node->key, key)))
    node = node->next;
  return node;
}

static void link_node(struct pry_table *table, struct pry_table_node *node)
{
  struct pry_table_node **slot = slot_of(table, node->hash);
  node->next = *slot;
  *slot = node;
}

static void grow(struct pry_table *table)
{
  struct pry_table_node **slots = calloc(table->slot_count * 2, sizeof *slots);
  if (!slots)
    return;
  struct pry_table_node **old = table->slots;
  size_t old_count = table->slot_count;
  table->slots = slots;
  table->slot_count *= 2;
  for (size_t i = 0; i < old_count; i++) {
    for (struct pry_table_node *node = old[i], *next; node; node = next) {
      next = node->next;
      link_node(table, node);
    }
  }
  free(old);
}

void pry_table_add(struct pry_table *table, struct pry_table_node *node)
{
  if (table->count >= table->slot_count)
    grow(table);
  node->hash = pry_hash(table->seed, node->key);
  link_node(table, node);
  table->count++;
}

void pry_table_remove(struct pry_table *table, struct pry_table_node *node)
{
  struct pry_table_node **link = slot_of(table, node->hash);
  while (*link != node)
    link = &(*link)->next;
  *link = node->next;
  node->next = NULL;
  table->count--;
}

struct pry_table_node *pry_table_next(const struct pry_table *table, const struct pry_table_node *node)
{
  if (node && node->next)
    return node->next;
  for (size_t i = node ? (node->hash & (table->slot_count - 1)) + 1 : 0; i < table->slot_count; i++)
    if (table->slots[i])
      return table->slots[i];
  return NULL;
}
