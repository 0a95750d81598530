/*
 * credential_file.h: rotated refresh tokens on disk.
 *
 * One file per credential, STATE/credentials/NAME.json, mode 0600 in a folder of mode 0700. It holds the refresh token
 * and the SHA-256 of the configured secret it descends from: when ops put another secret into the configuration, the
 * file no longer speaks about it and is ignored. Written aside, synced, renamed over the old one, and the folder
 * synced, so that after a crash there is the old token or the new one and never half of one.
 *
 * What is read is bounded and checked like anything from outside. The calls block for the time of a small write; they
 * happen once per renewal.
 *
 * Thread: one at a time per state folder.
 */
#ifndef PRY_CREDENTIAL_FILE_H
#define PRY_CREDENTIAL_FILE_H

#include "buffer.h"
#include "slice.h"

enum { PRY_TOKEN_MAX = 16 * 1024 };

/* A token that can be sent in a header and fits our bounds: printable ASCII without spaces, 1 … PRY_TOKEN_MAX bytes. */
bool pry_token_valid(struct pry_slice token);

/* Appends the persisted refresh token. True also when there is none that descends from `secret` (nothing is
 * appended). False: there is a file but it cannot be read; `why` is a constant. */
bool pry_credential_file_read(const char *state_dir, const char *name, struct pry_slice secret,
                              struct pry_buffer *refresh_token, const char **why);

/* False: not persisted; `why` is a constant or strerror's. */
bool pry_credential_file_write(const char *state_dir, const char *name, struct pry_slice secret,
                               struct pry_slice refresh_token, const char **why);

#endif
