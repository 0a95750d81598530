/*
 * admin_internal.h: what the files of the admin listener share. Nobody else includes it.
 *
 *   admin.c         the listener: who may ask, routes, the waiting reload
 *   admin_health.c  checks of targets
 *   admin_wait.c    requests whose answer takes time: reload, a sink's test, and what every worker is asked for
 *   admin_answer.c  the answers, as JSON
 *   admin_errors.c  one of them: the last failed attempts
 *   admin_chaos.c   faults on purpose: what is armed, and orders to the policy
 */
#ifndef PRY_ADMIN_INTERNAL_H
#define PRY_ADMIN_INTERNAL_H

#include "admin.h"
#include "round.h"

struct pry_admin {
  struct pry_engine *engine;
  struct pry_gateway *gateway;
  struct pry_reloader *reloader;
  const struct pry_client_keeper *keeper;
  struct pry_server *server;
  char *folder, *token;
  const bool *last_good;
  bool tcp, draining;
  double started_at; /* Unix seconds */
  unsigned long chaos_orders;
  unsigned health_runs;    /* under way */
  struct pry_list waiting; /* struct pry_admin_request */
};

enum { PRY_ADMIN_ANSWER_MAX = 32 * 1024 * 1024, PRY_ADMIN_CALLS_MAX = 20 };

#define PRY_ADMIN_JSON "application/json"

/* ---- admin.c ---- */

/* application/problem+json. header: one more field; empty: none. */
void pry_admin_problem(struct pry_exchange *exchange, int status, const char *title, const char *detail,
                       struct pry_slice header, const char *value);

/* The body, which is freed; or 503 when it could not be built. */
void pry_admin_reply(struct pry_exchange *exchange, int status, const char *type, bool built, struct pry_buffer *body);

/* The text after `key=`, cut off the query; false: it is not there. */
bool pry_admin_query_text(struct pry_slice query, const char *key, struct pry_slice *value);

/* The number after `key=`, `most` instead of a greater one; `otherwise` when it is not there. False: it is there and no
 * plain number. */
bool pry_admin_query_number(struct pry_slice query, const char *key, double otherwise, double most, double *value);

/* ---- admin_wait.c, admin_health.c ---- */

/* First member of each request that waits. */
struct pry_admin_request {
  struct pry_list link;
  struct pry_admin *admin;
  struct pry_exchange *exchange;
  void (*abandon)(struct pry_admin_request *request); /* frees it; nobody is answered */
};

/* Puts it on the admin's list, which ends it when the admin is freed or the asker leaves. */
void pry_admin_add_request(struct pry_admin_request *request, struct pry_admin *admin, struct pry_exchange *exchange,
                           void (*abandon)(struct pry_admin_request *request));

/* Each gives the exchange's user pointer; NULL: it has been answered. */
struct pry_admin_request *pry_admin_start_reload(struct pry_admin *admin, struct pry_exchange *exchange, double wait);
struct pry_admin_request *pry_admin_start_status(struct pry_admin *admin, struct pry_exchange *exchange);
/* query: of the request. */
struct pry_admin_request *pry_admin_start_health(struct pry_admin *admin, struct pry_exchange *exchange,
                                                 struct pry_slice query);
struct pry_admin_request *pry_admin_start_events(struct pry_admin *admin, struct pry_exchange *exchange, size_t limit);

struct pry_admin_request *pry_admin_start_alert_test(struct pry_admin *admin, struct pry_exchange *exchange,
                                                     struct pry_slice sink);

/* ---- admin_answer.c ---- */

/* What a worker says of itself; after it in its answer's text come its oldest calls, as JSON with commas between. */
struct pry_admin_worker {
  uint64_t events_overwritten, rebuilds;
  size_t calls_open, calls_shown, script_bytes;
  char generation[PRY_GENERATION_ID_MAX];
};
bool pry_admin_visit_status(struct pry_worker *worker, const void *question, struct pry_buffer *text);

/* A record in a worker's answer: this, then `size` bytes of JSON; the newest first. The answer begins with the number of
 * records that its ring has lost. */
struct pry_admin_record {
  uint64_t sequence;
  size_t size;
};
bool pry_admin_visit_events(struct pry_worker *worker, const void *limit, struct pry_buffer *text);

bool pry_admin_generations(const struct pry_admin *admin, struct pry_buffer *out);
bool pry_admin_status(const struct pry_admin *admin, const struct pry_round_answer *answers, size_t count,
                      struct pry_buffer *out);
bool pry_admin_events(const struct pry_round_answer *answers, size_t count, size_t limit, struct pry_buffer *out);
bool pry_admin_rollback(const struct pry_admin *admin, bool done, const struct pry_report *report,
                        struct pry_buffer *out);

/* outcome NULL: pending. */
bool pry_admin_reload(const struct pry_admin *admin, const struct pry_reload_outcome *outcome, struct pry_buffer *out);

/* ---- admin_errors.c ---- */

/* The newest failed attempts and the pattern they make (recent_errors.h). */
bool pry_admin_errors(const struct pry_admin *admin, size_t limit, struct pry_buffer *out);

/* ---- admin_chaos.c ---- */

/* An order to the instances of policies/chaos.lua. Texts hold letters, digits and _ . - only. */
struct pry_admin_chaos {
  const char *action;                /* "arm", "off" or "list" */
  char experiment[41], instance[65]; /* "": not said */
  double rate, seconds;              /* negative: not said */
};

/* Gives the order and appends what the instances say to it: {"instances":[{"instance","report":{known, armed, wrong?}}]}.
 * An instance that does not answer at once, because another policy's on_event is waiting, is left out. */
bool pry_admin_order_chaos(struct pry_admin *admin, const struct pry_admin_chaos *order, struct pry_buffer *out);

/* Appends the list of what is armed: [{"instance","experiment","rate","until"}]. */
bool pry_admin_put_chaos(const struct pry_admin *admin, struct pry_buffer *out);

#endif
