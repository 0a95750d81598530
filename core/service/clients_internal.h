/* clients_internal.h: the inside of a table of clients, shared by clients.c and clients_file.c. Not for others. */
#ifndef PRY_CLIENTS_INTERNAL_H
#define PRY_CLIENTS_INTERNAL_H

#include "arena.h"
#include "clients.h"

#include <stdatomic.h>

enum { PRY_DIGEST_SIZE = 32 };

/* A key, as SHA-256 over the process's random bytes and the key's own SHA-256. */
struct pry_client_key {
  unsigned char mark[PRY_DIGEST_SIZE];
  const struct pry_client *client;
  int line; /* where its client stands, for findings */
};

struct pry_client_table {
  struct pry_clients *owner;
  struct pry_arena arena;
  atomic_uint references;
  struct pry_client *clients;
  size_t count;
  struct pry_client_key *keys; /* sorted by mark */
  size_t key_count;
};

/* The mark of a key's SHA-256. False: OpenSSL failed. */
bool pry_clients_mark(const struct pry_clients *clients, const unsigned char digest[PRY_DIGEST_SIZE],
                      unsigned char mark[PRY_DIGEST_SIZE]);

/* The counters of a name, made when there are none. Referenced; NULL: no memory. */
struct pry_client_use *pry_clients_use(struct pry_clients *clients, const char *name);

#endif
