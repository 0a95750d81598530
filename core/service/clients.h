/*
 * clients.h: who may call, and how much.
 *
 * A client is a name, one or more keys, and limits. Clients stand in a JSON file that ops edit beside the policies:
 *
 *   { "clients": [
 *       { "name": "team-a", "key": "sha256:9f86d08…", "rpm": 600, "burst": 100, "concurrent": 20,
 *         "models": ["gpt-4o*"], "routes": ["/v1/…*"], "expires": "2027-01-31", "enabled": true, "note": "…" } ] }
 *
 *   name        letters, digits, '.', '_', '-'; the first a letter or digit; at most 63; once in the file
 *   key, keys   "sha256:" and 64 hexadecimal digits of the key, or the key itself (16..512 printable bytes; a warning);
 *               `keys` is a list of up to 8, so that a new key can be handed out before the old one is taken back
 *   rpm         calls per minute, as a token bucket that holds `burst` (default: rpm) of them; absent: no limit
 *   concurrent  calls open at once, from their head to their end; absent: no limit
 *   models      globs of models; absent: all. A body whose model cannot be read fits only "*"
 *   routes      globs of paths; absent: all
 *   expires     a date or time in UTC ("2027-01-31", "2027-01-31T12:00:00Z"), or Unix seconds
 *   enabled     false: its keys are known and refused
 *   note        for people
 *
 * The file is read into a table that never changes and is swapped whole; a table that somebody still holds lives on. The
 * counters behind the limits belong to the name: they are shared by all workers, exact, and survive a new table.
 *
 * Keys are never kept: the table holds a digest of their digest under a random key of the process, so neither a core dump
 * nor the time that a look-up takes says anything about them.
 *
 * Thread: any, except where a function says otherwise.
 */
#ifndef PRY_CLIENTS_H
#define PRY_CLIENTS_H

#include "config.h"
#include "loop.h"
#include "registry.h"

struct pry_clients;      /* the current table, and all counters */
struct pry_client_table; /* one file's clients */

enum {
  PRY_CLIENTS_FILE_MAX = 4 * 1024 * 1024,
  PRY_CLIENTS_MAX = 10000,
  PRY_CLIENT_KEYS_MAX = 8,
  PRY_CLIENT_GLOBS_MAX = 64,
  PRY_CLIENT_KEY_MIN = 16,
  PRY_CLIENT_KEY_MAX = 512
};

/* What a look-up found. X(enumerator, word for log and metrics) */
#define PRY_ADMISSIONS(X)                                                                                              \
  X(PRY_ADMITTED, "admitted")                                                                                          \
  X(PRY_ADMISSION_NOT_LOADED, "clients_not_loaded")                                                                    \
  X(PRY_ADMISSION_NO_KEY, "missing_api_key")                                                                           \
  X(PRY_ADMISSION_UNKNOWN_KEY, "invalid_api_key")                                                                      \
  X(PRY_ADMISSION_DISABLED, "disabled_api_key")                                                                        \
  X(PRY_ADMISSION_EXPIRED, "expired_api_key")                                                                          \
  X(PRY_ADMISSION_PATH, "path_not_allowed")                                                                            \
  X(PRY_ADMISSION_RATE, "rate_limit_exceeded")                                                                         \
  X(PRY_ADMISSION_CONCURRENT, "too_many_concurrent_calls")

enum pry_admission {
#define X(name, word) name,
  PRY_ADMISSIONS(X)
#undef X
};

const char *pry_admission_word(enum pry_admission admission);

/* One client of a table. Valid while the table is held. */
struct pry_client {
  const char *name;
  bool enabled;
  double expires;                     /* Unix seconds; INFINITY: never */
  unsigned rpm, burst, concurrent;    /* 0: no limit */
  struct pry_text_list models, paths; /* globs; count 0: all */
  struct pry_client_use *use;
};

/* An admitted call's hold on its client: one of its concurrent calls, and the table. Zeroed: holds nothing. */
struct pry_lease {
  struct pry_client_table *table;
  const struct pry_client *client;
  bool counted; /* among its open calls */
};

/* What one call brings. */
struct pry_knock {
  const struct pry_slice *keys; /* as presented; any of them may be the one */
  size_t key_count;
  struct pry_slice path;
  pry_time now; /* of the caller's loop; all loops share one clock */
  double unix_time;
};

/* NULL: no memory, or no random bytes. */
struct pry_clients *pry_clients_new(void);

/* All leases must have been given back, all tables of nobody else's. NULL is fine. */
void pry_clients_free(struct pry_clients *clients);

/* Makes `table` the current one; takes it. The old one goes when its last lease does. */
void pry_clients_install(struct pry_clients *clients, struct pry_client_table *table);

/* True once a table was installed. */
bool pry_clients_loaded(struct pry_clients *clients);

/* Finds the client and takes one call from its limits, or nothing at all: calls refused for concurrency cost no rate.
 * PRY_ADMITTED: *lease holds it, for pry_lease_release(). Otherwise lease->client is who it was, when that is known (it
 * is to be released all the same), and *retry_after the seconds until a call may fit, negative when no wait helps. */
enum pry_admission pry_clients_admit(struct pry_clients *clients, const struct pry_knock *knock,
                                     struct pry_lease *lease, double *retry_after);

/* Gives everything back; any thread, and safe on a lease that holds nothing. */
void pry_lease_release(struct pry_lease *lease);

/* Calls of that client open now; 0 for a name nobody knows. For status and tests. */
unsigned pry_clients_open(struct pry_clients *clients, const char *name);

/* ---- reading a file ---------------------------------------------------------------------------------------- */

/* Parses a file's text. `shown` begins the findings: "clients.json:12: …"; no finding repeats a key. `readable_by_others`:
 * the file's mode; plain keys are then warned about with more reason. NULL: the report has an error more. */
struct pry_client_table *pry_client_table_parse(struct pry_clients *clients, struct pry_slice text, const char *shown,
                                                bool readable_by_others, struct pry_report *report);

/* Reads and parses a file; the same findings. The text is wiped. */
struct pry_client_table *pry_client_table_read(struct pry_clients *clients, const char *path, const char *shown,
                                               struct pry_report *report);

size_t pry_client_table_count(const struct pry_client_table *table);

/* The i-th in the order of the file; valid while the table is held. */
const struct pry_client *pry_client_table_at(const struct pry_client_table *table, size_t i);

/* Not installed: thrown away. NULL is fine. */
void pry_client_table_unref(struct pry_client_table *table);

/* Where a declared file is: itself when absolute, else below the policy folder. False: too long. */
bool pry_clients_path(const char *folder, const char *file, char *path, size_t size);

/* "sha256:…" of a key, as files hold it. False: OpenSSL failed. */
enum { PRY_CLIENT_DIGEST_TEXT = 7 + 64 + 1 };
bool pry_client_digest(struct pry_slice key, char text[PRY_CLIENT_DIGEST_TEXT]);

/* NULL, or what is wrong with a client's name. */
const char *pry_client_name_complaint(struct pry_slice name);

#endif
