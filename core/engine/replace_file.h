/*
 * replace_file.h: putting a new file in place of an old one, whole or not at all.
 *
 * The text is written to a file beside it (mode 0600, made anew), synced, renamed over the old one, and the folder synced. So a
 * full disk, a crash or a pulled plug leaves what was there before, or what is new.
 *
 * Threads: any; one at a time per file. Blocks for the disk.
 */
#ifndef PRY_REPLACE_FILE_H
#define PRY_REPLACE_FILE_H

#include "slice.h"

/* Writes everything. False: errno tells why; some of it may be written. */
bool pry_write_all(int fd, struct pry_slice text);

/* `folder`: an open folder; `name` and `aside`: names in it. False: errno tells why, and the old file is as it was (or, when
 * only syncing the folder failed, perhaps the new one). */
bool pry_replace_file(int folder, const char *name, const char *aside, struct pry_slice text);

#endif
