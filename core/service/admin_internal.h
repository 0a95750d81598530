/*
 * admin_internal.h: what the files of the admin listener share. Nobody else includes it.
 *
 *   admin.c         the listener: who may ask, routes, the waiting reload
 *   admin_answer.c  the answers, as JSON
 */
#ifndef PRY_ADMIN_INTERNAL_H
#define PRY_ADMIN_INTERNAL_H

#include "admin.h"

struct pry_admin {
  struct pry_engine *engine;
  struct pry_gateway *gateway;
  struct pry_reloader *reloader;
  struct pry_server *server;
  char *folder, *token;
  bool tcp, draining;
  double started_at;       /* Unix seconds */
  struct pry_list waiting; /* reload requests */
};

bool pry_admin_generations(const struct pry_admin *admin, struct pry_buffer *out);
bool pry_admin_events(const struct pry_admin *admin, size_t limit, struct pry_buffer *out);

/* outcome NULL: pending. */
bool pry_admin_reload(const struct pry_admin *admin, const struct pry_reload_outcome *outcome, struct pry_buffer *out);

#endif
