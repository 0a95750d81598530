/*
 * last_good.h: the last policies that served well, kept under --state.
 *
 * When parry starts and the folder of policies is refused, it can serve this set instead and say so loudly, so that a
 * broken save followed by a restart is no outage. STATE/last-good.policies is one file:
 *
 *   parry last-good 1            the form
 *   generation HEX64             the set's id
 *   committed SECONDS            when it began to serve, Unix time
 *   files COUNT
 *   PATH_SIZE SIZE               then PATH_SIZE bytes of path and SIZE bytes of text, COUNT times, by path
 *   end
 *
 * Each line ends with one line feed, and so do each path and each text. The id is the hash of all paths and texts
 * (registry.h), and a set that does not hash to the id it names is refused whole: cut short, edited, a flipped bit.
 * That finds accidents; that nobody else wrote it is what owner and mode are for (state_file.h). Paths are only names
 * inside a set and never opened, yet one that the reader of folders would not have given ("../x.lua") is refused.
 *
 * Threads: any, neither touches an engine; both block for the disk. The caller keeps the set alive while it is written.
 */
#ifndef PRY_LAST_GOOD_H
#define PRY_LAST_GOOD_H

#include "registry.h"
#include "state_file.h"

#define PRY_LAST_GOOD_NAME "last-good.policies"

struct pry_last_good {
  struct pry_policy_set *set; /* sealed; now the caller's; NULL unless READ */
  double committed_at;        /* Unix seconds */
};

/* `set` is sealed. False: the old file is as it was, and `why` says file, what, and what to do. */
bool pry_last_good_write(const char *state_dir, const struct pry_policy_set *set, double committed_at,
                         char why[PRY_STATE_WHY_MAX]);

/* REFUSED: `why` says file, what, and what to do. */
enum pry_state_result pry_last_good_read(const char *state_dir, struct pry_last_good *good,
                                         char why[PRY_STATE_WHY_MAX]);

#endif
