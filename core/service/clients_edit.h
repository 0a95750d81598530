/*
 * clients_edit.h: changing a clients file without rewriting what people wrote in it.
 *
 * One entry is put at the end of the list, or taken out of it; every other byte stays. The file is written aside with
 * mode 0600 (an existing file's mode and owner are kept, or nothing is changed), synced, and renamed over the old one, so that a running parry never
 * reads half of it. The result is parsed before it is written: a change that would break the file is refused.
 *
 * For commands; one thread.
 */
#ifndef PRY_CLIENTS_EDIT_H
#define PRY_CLIENTS_EDIT_H

#include "clients.h"

/* Puts `entry`, a JSON object, behind the last client; a file that is not there begins with it. False: the report has
 * an error more, nothing was changed. */
bool pry_clients_edit_add(const char *path, const char *shown, struct pry_slice entry, struct pry_report *report);

/* Takes the client of that name out. */
bool pry_clients_edit_remove(const char *path, const char *shown, const char *name, struct pry_report *report);

/* A new key: "sk-parry-" and 43 characters of base64url, 256 random bits. False: no random bytes. */
enum { PRY_CLIENT_NEW_KEY = 9 + 43 + 1 };
bool pry_client_new_key(char key[PRY_CLIENT_NEW_KEY]);

#endif
