/* clients_internal.h: the inside of a table of clients, shared by the clients*.c files. Not for others. */
#ifndef PRY_CLIENTS_INTERNAL_H
#define PRY_CLIENTS_INTERNAL_H

#include "arena.h"
#include "clients.h"
#include "json.h"

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

/* ---- parsing ---- */

/* One parse; on its caller's stack. */
struct pry_client_parse {
  struct pry_clients *clients;
  struct pry_client_table *table;
  struct pry_slice text;
  const char *shown;
  struct pry_report *report;
  struct pry_client *client; /* the one being read */
  int line;                  /* where it begins */
  const char *line_seen;     /* up to here lines were counted for it */
  size_t plain_keys, key_capacity;
  bool no_memory;
};

/* A finding at the line of `place`, or of the client when it is NULL; begins with the client's name. Always false. */
bool pry_client_complain(struct pry_client_parse *parse, const char *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Told once. Always false. */
bool pry_client_no_memory(struct pry_client_parse *parse);

/* One element of the list, into the table; parse->line is its line. What is wrong is told. */
void pry_client_parse_entry(struct pry_client_parse *parse, const struct pry_json_value *value);

#endif
