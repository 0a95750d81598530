/*
 * table.h: a hash table whose elements bring their own link.
 *
 * Keys are bytes that may come from outside (models, sessions, whatever a policy builds a key from), so they are hashed
 * with SipHash-2-4 under a random key per table: nobody can choose keys that all land in one slot. The element owns
 * its key's bytes and its memory; the table only links. Adding cannot fail: when there is no memory to grow, chains
 * get longer.
 *
 * Thread: none of its own; whoever owns the table guards it.
 */
#ifndef PRY_TABLE_H
#define PRY_TABLE_H

#include "slice.h"

#include <stdint.h>

struct pry_table_node {
  struct pry_table_node *next;
  uint64_t hash;
  struct pry_slice key; /* set by the owner before pry_table_add(), unchanged until removed */
};

struct pry_table {
  struct pry_table_node **slots;
  size_t slot_count; /* a power of two */
  size_t count;      /* of elements */
  uint64_t seed[2];
};

/* False: no memory, or no random bytes from the kernel. */
bool pry_table_init(struct pry_table *table);

/* Frees the slots, not the elements. */
void pry_table_fini(struct pry_table *table);

/* The element with exactly this key, or NULL. */
struct pry_table_node *pry_table_find(const struct pry_table *table, struct pry_slice key);

/* Links an element whose key is not in the table. */
void pry_table_add(struct pry_table *table, struct pry_table_node *node);

/* Unlinks an element that is in the table. */
void pry_table_remove(struct pry_table *table, struct pry_table_node *node);

/* Walks all elements in no particular order: NULL gives the first, then the one after `node`, NULL at the end. The
 * element given last may be removed only after the next was asked for. */
struct pry_table_node *pry_table_next(const struct pry_table *table, const struct pry_table_node *node);

/* SipHash-2-4 (Aumasson and Bernstein, 2012) of the bytes. */
uint64_t pry_hash(const uint64_t seed[2], struct pry_slice bytes);

/* A random seed. False: none to be had. */
bool pry_hash_seed(uint64_t seed[2]);

#endif
