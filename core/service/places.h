/*
 * places.h: where things are when nobody says.
 *
 * The defaults of CONTRACT ("The program") in one place, shared by the service and all commands.
 * Any thread; reads the environment.
 */
#ifndef PRY_PLACES_H
#define PRY_PLACES_H

#include <stdbool.h>
#include <stddef.h>

enum { PRY_PLACE_MAX = 4096 };

#define PRY_GATEWAY_ADDRESS "127.0.0.1:8420"

/* The folder of policies: `given`, else ./policies, else /etc/parry/policies. NULL: there is none of them, and `error`
 * says what to do. A given one is returned as it is. */
const char *pry_place_policies(const char *given, char *error, size_t error_size);

/* The admin address: `given`, else $PARRY_ADMIN (when `client`), else unix:$XDG_RUNTIME_DIR/parry/admin.sock, for root
 * unix:/run/parry/admin.sock; without XDG_RUNTIME_DIR unix:/tmp/parry-UID/admin.sock. False: longer than `size`. */
bool pry_place_admin(const char *given, bool client, char *address, size_t size);

/* Makes the folder of a "unix:PATH" address (mode 0700) when it is missing; another user's folder is refused where
 * anybody could have made it. Any other address: nothing to do. False: `error` says why. */
bool pry_place_make_folder(const char *address, char *error, size_t error_size);

#endif
