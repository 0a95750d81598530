/*
 * quarantine.h: policy sets that were rolled back by themselves, so that they are not taken over again.
 *
 * A set that faults too often after its commit is rolled back, and its id (the hash of its bytes) stays here: the poll,
 * a touch, a restart do not bring it back; an edit makes another id. At most 16, the oldest is forgotten. Kept in
 * STATE/quarantine, one JSON object a line, oldest first:
 *
 *   {"id":"HEX64","at":UNIX_SECONDS,"faults":N,"runs":N,"first_fault":"retry.lua:12: …"}
 *
 * Members it does not know are ignored. Whatever is read is bounded and checked; one bad line makes the whole file
 * worthless, because it was not written by parry then.
 *
 * Plain data without pointers: a copy can be written by a thread that may wait for the disk. Thread: the owner's.
 */
#ifndef PRY_QUARANTINE_H
#define PRY_QUARANTINE_H

#include "registry.h"
#include "state_file.h"

#include <stdint.h>

#define PRY_QUARANTINE_NAME "quarantine"

enum { PRY_QUARANTINE_MAX = 16 };

struct pry_quarantined {
  char id[PRY_GENERATION_ID_MAX];
  double at;             /* Unix seconds of the rollback */
  uint64_t faults, runs; /* of handlers, in the window that decided */
  char first_fault[512]; /* "file:line: text", already scrubbed of secrets; may be empty */
};

struct pry_quarantine {
  struct pry_quarantined sets[PRY_QUARANTINE_MAX]; /* oldest first */
  size_t count;
};

/* NULL: not in quarantine. `id` in full. */
const struct pry_quarantined *pry_quarantine_find(const struct pry_quarantine *quarantine, const char *id);

/* Copies it in as the newest; one with the same id goes. */
void pry_quarantine_add(struct pry_quarantine *quarantine, const struct pry_quarantined *set);

/* False: it was not there. */
bool pry_quarantine_remove(struct pry_quarantine *quarantine, const char *id);

/* Fills `quarantine` from the file. Absent: empty, true. Otherwise unreadable or not ours: empty, false, and `why` is a
 * warning that says file, what, and what to do. Blocks for the disk. */
bool pry_quarantine_read(const char *state_dir, struct pry_quarantine *quarantine, char why[PRY_STATE_WHY_MAX]);

/* Replaces the file as state_file.h does. Blocks for the disk. */
bool pry_quarantine_write(const char *state_dir, const struct pry_quarantine *quarantine, char why[PRY_STATE_WHY_MAX]);

#endif
