/*
 * state_lock.h: one parry per state folder.
 *
 * Two programs on one --state would overwrite each other's credentials, journal and last good policies. So a start
 * takes flock(2) on STATE/lock and keeps it until its end, however it ends: the kernel lets go when the process dies,
 * so nothing stale stays. The file holds the holder's process id for the message to the second one; it is never
 * removed, since who had opened it before would then hold a lock on a file that nobody sees.
 *
 * Thread: the starting one.
 */
#ifndef PRY_STATE_LOCK_H
#define PRY_STATE_LOCK_H

#include <stdbool.h>
#include <stddef.h>

struct pry_state_lock {
  int fd; /* -1: not held */
};

/* False: `error` says what, where and what to do; *in_use tells whether another parry holds it (exit 1, the machine's
 * fault) or the folder is no good (exit 78). The folder exists. */
bool pry_state_lock_take(struct pry_state_lock *lock, const char *state_dir, bool *in_use, char *error,
                         size_t error_size);

/* Lets go; safe when it is not held. */
void pry_state_lock_release(struct pry_state_lock *lock);

#endif
