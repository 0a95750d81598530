/*
 * watcher.h: noticing that something below a folder may have changed.
 *
 * A watcher says "look again", never what changed: inotify names files by where they were watched, while a kubelet
 * swaps a symlink above them, editors rename over them and git replaces whole folders. So nothing is filtered by name,
 * every event counts, and whoever is told walks the tree again from its root and compares contents.
 *
 * Watched: the folder, every folder below it as reached through symlinks, and, where the path of the folder itself goes
 * through symlinks (`current -> releases/7`), the folders that hold those links; while the folder is missing, the one
 * above it. Watches die with what they watch: after each look pry_watcher_renew() sets them anew. What inotify cannot
 * see (NFS, other kernels, subPath mounts) is for the caller's poll.
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
 * reading the files, so that no change falls between the two. False: some folder cannot be watched (a limit, or it
 * is gone); the rest is. */
bool pry_watcher_renew(struct pry_watcher *watcher, const char *folder);

/* Watches set now, for tests and status. */
size_t pry_watcher_count(const struct pry_watcher *watcher);

#endif
