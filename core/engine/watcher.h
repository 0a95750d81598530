/*
 * watcher.h: noticing that something below a folder may have changed.
 *
 * A watcher says "look again", never what changed: inotify names files by where they were watched, while a kubelet
 * swaps a symlink above them, editors rename over them and git replaces whole folders. So nothing is filtered by name,
 * every event counts, and whoever is told walks the tree again from its root and compares contents.
 *
 * Watched:
 *   - the folder and every folder below it, as reached through symlinks
 *   - the folders that hold a symlink on the way to it (`current -> releases/7`), to one of those below, or to a policy
 *     file that is a link itself, and the folder where such a file really is
 *   - of every folder above these, only that it stays where it is: releases are swapped by renaming them as a whole
 *   - while one of them is missing, or not to be read, the nearest folder above that can be watched
 * Nothing else: what goes on beside the folder does not wake anybody.
 *
 * Watches die with what they watch: after each look pry_watcher_renew() sets them anew. What inotify cannot see (NFS,
 * other kernels, something mounted over the folder) is for the caller's poll.
 *
 * Threads: pry_watcher_renew() may run on another thread than the loop's, one at a time; all else on the loop's.
 */
#ifndef PRY_WATCHER_H
#define PRY_WATCHER_H

#include "loop.h"

struct pry_watcher;

/* `changed` is called on the loop, once for any number of events read at once. No watch is set yet. NULL: no memory, no
 * descriptors, or no inotify here. */
struct pry_watcher *pry_watcher_new(struct pry_loop *loop, void (*changed)(void *user), void *user);

/* NULL is fine. */
void pry_watcher_free(struct pry_watcher *watcher);

/* Sets watches for everything that is there now, and drops those of what is no longer part of it. Call it before
 * reading the files, so that no change falls between the two: what changes meanwhile is in what is read, or told. False:
 * some folder cannot be watched (a limit, or it is gone); the rest is. */
bool pry_watcher_renew(struct pry_watcher *watcher, const char *folder);

/* What the last renewal found that an operator should mend, with the cure: no watches left, too many folders, a policy
 * that is a mount of its own. "": nothing. For whoever has renewed, until the next renewal. */
const char *pry_watcher_complaint(const struct pry_watcher *watcher);

/* Watches set now (0 while they are being renewed), for tests and status. */
size_t pry_watcher_count(const struct pry_watcher *watcher);

#endif
