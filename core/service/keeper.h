/*
 * keeper.h: what outlives the process: the last good policies and the quarantine, written to --state in the background.
 *
 * Whoever decides (a commit, a rollback) only says so here; a thread of the keeper waits for the disk. Of several changes
 * that come while it writes only the last is written. A write that fails is logged with file, reason and cure, and tried
 * again with the next change: the program does not depend on it.
 *
 * Without a state folder nothing is written, and the quarantine lasts as long as the process.
 *
 * Thread: the control worker's.
 */
#ifndef PRY_KEEPER_H
#define PRY_KEEPER_H

#include "log.h"
#include "quarantine.h"
#include "registry.h"

struct pry_keeper;

/* Reads the quarantine, which may wait for the disk. state_dir (borrowed) NULL: none. NULL: no memory or no thread. */
struct pry_keeper *pry_keeper_new(const char *state_dir, struct pry_log *log);

/* Waits until everything is written, then frees. NULL is fine. */
void pry_keeper_free(struct pry_keeper *keeper);

/* This generation serves since `at` (Unix seconds): it is the last good one. */
void pry_keeper_serves(struct pry_keeper *keeper, struct pry_generation *generation, double at);

/* The sets that are kept out. */
const struct pry_quarantine *pry_keeper_quarantine(const struct pry_keeper *keeper);
void pry_keeper_keep_out(struct pry_keeper *keeper, const struct pry_quarantined *set);
void pry_keeper_let_in(struct pry_keeper *keeper, const char *id);

/* Words for people why a set is kept out, and what lets it in. */
void pry_quarantined_text(const struct pry_quarantined *set, char *text, size_t size);

#endif
