/*
 * state_file.h: small files under --state: old or new, never half of one.
 *
 * A file is written aside (NAME.new, mode 0600), synced, renamed over the old one, and the folder synced. So a full
 * disk, a crash or a pulled plug leaves what was there before, or what is new. What is read was perhaps not written by
 * us: only a regular file of this user that nobody else may write to is taken, symbolic links are not followed, and no
 * more than a limit is read. What the bytes say is for the caller to doubt.
 *
 * Both calls block for the disk. Threads: any; one at a time per file, which the folder's lock (state_lock.h) makes
 * true between processes.
 */
#ifndef PRY_STATE_FILE_H
#define PRY_STATE_FILE_H

#include "buffer.h"
#include "slice.h"

enum { PRY_STATE_WHY_MAX = 512 };

enum pry_state_result {
  PRY_STATE_READ,   /* the file's bytes were appended */
  PRY_STATE_ABSENT, /* no such file */
  PRY_STATE_REFUSED /* there is something, and it is not to be trusted, or cannot be read */
};

/* Appends STATE_DIR/NAME to `text`, which needs room for `max` bytes and one more; a larger file is refused. REFUSED:
 * `why` says file, what, and what to do; nothing was appended. */
enum pry_state_result pry_state_file_read(const char *state_dir, const char *name, size_t max, struct pry_buffer *text,
                                          char why[PRY_STATE_WHY_MAX]);

/* False: `why` says file, what, and what to do; the old file is as it was (or, when only syncing the folder failed,
 * perhaps the new one). */
bool pry_state_file_write(const char *state_dir, const char *name, struct pry_slice text, char why[PRY_STATE_WHY_MAX]);

#endif
