/*
 * client_keeper.h: keeps the table of clients as their file is.
 *
 * The serving policies say which file (clients { file = … }); the keeper looks at it once a second and when told, and
 * takes a changed file over whole. A file that is broken or gone changes nothing: the clients that were known stay, the
 * findings are logged as file:line once per change, status says so, and parry_clients_last_reload_successful is 0.
 * Policies that name a file which cannot be read are refused before they serve (pry_client_keeper_accept), so there are
 * never calls without somebody to ask for keys.
 *
 * Changes are seen by the file's identity, size and times; one written within the last two seconds is read again, because
 * a second save in the same tick looks the same. One that was refused is read again by every look, because perhaps it was
 * memory or descriptors that were short; what is found is told again only when it is something else.
 *
 * Thread: the control loop's. What it installs is used by all (clients.h).
 */
#ifndef PRY_CLIENT_KEEPER_H
#define PRY_CLIENT_KEEPER_H

#include "clients.h"
#include "engine.h"

struct pry_client_keeper;

struct pry_client_keeper_options {
  struct pry_engine *engine;   /* its log, metrics and serving generation; this and all else: borrowed */
  struct pry_loop *loop;       /* of the thread that commits generations */
  struct pry_clients *clients; /* outlives the keeper */
  const char *folder;          /* of the policies; copied */
  pry_time poll;               /* 0: 1 s */
};

/* NULL: no memory. */
struct pry_client_keeper *pry_client_keeper_new(const struct pry_client_keeper_options *options);
void pry_client_keeper_free(struct pry_client_keeper *keeper); /* NULL is fine */

/* Before a generation serves: can its clients be known? A file that is not the current one is read, and taken over by
 * the next look; while there is none yet, at once. False: the report says file:line and why. True for a configuration
 * without clients, and for the current file even when it is broken just now. */
bool pry_client_keeper_accept(struct pry_client_keeper *keeper, const struct pry_config *config,
                              struct pry_report *report);

/* Looks now: after a generation began to serve, and when a reload is asked for. */
void pry_client_keeper_look(struct pry_client_keeper *keeper);

/* Appends { "declared", "file", "count", "loaded_at", "error" } for status. */
bool pry_client_keeper_json(const struct pry_client_keeper *keeper, struct pry_buffer *out);

#endif
