/*
 * admin_options.h: how commands find the running parry and its token.
 */
#ifndef PRY_ADMIN_OPTIONS_H
#define PRY_ADMIN_OPTIONS_H

#include "buffer.h"
#include "options.h"
#include "places.h"

struct pry_admin_options_given {
  const char *address;    /* --admin */
  const char *token_file; /* --admin-token-file */
};

/* The two rows of an option table; `given` is a struct pry_admin_options_given. */
#define PRY_OPTIONS_ADMIN(given, doc)                                                                                  \
  {"admin", 0, PRY_OPTION_TEXT, "ADDRESS", (doc), &(given).address},                                                   \
  {                                                                                                                    \
    "admin-token-file", 0, PRY_OPTION_TEXT, "FILE", "token for an admin address on TCP (or PARRY_ADMIN_TOKEN)",        \
        &(given).token_file                                                                                            \
  }

/* Address and token, ready to use. Wipe with pry_admin_place_fini(). */
struct pry_admin_place {
  char address[PRY_PLACE_MAX];
  struct pry_buffer token; /* empty: none */
};

/* client: PARRY_ADMIN counts. False: stderr has been told. */
bool pry_admin_place_init(struct pry_admin_place *place, const struct pry_admin_options_given *given, bool client);
void pry_admin_place_fini(struct pry_admin_place *place);

/* The token as text; NULL: none. */
const char *pry_admin_place_token(struct pry_admin_place *place);

/* Asks the running parry for `path` and shows the answer: as it is with `json`, else through `print`. The exit code. */
int pry_admin_show(const struct pry_admin_options_given *given, const char *path, bool json,
                   void (*print)(struct pry_slice answer));

/* Asks the running parry. -1: *status and `body` are set (the caller frees the body); else the exit code, and stderr
 * has been told: 3 when it cannot be reached or refuses the token. */
int pry_admin_call(const struct pry_admin_options_given *given, const char *method, const char *path, double timeout,
                   int *status, struct pry_buffer *body);

#endif
