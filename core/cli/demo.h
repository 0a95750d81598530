/*
 * demo.h: the parts of `parry demo`. Only its own files include this.
 *
 *   cmd_demo.c      puts simulator, parry, traffic and screen together on one loop
 *   demo_files.c    the copy of the policies that people may edit
 *   demo_traffic.c  a client whose calls run into one kind of failure after the other
 *   demo_screen.c   what is shown of it: one line per recovered or failed call and per fault of a
 *                   policy, and what became of a saved policy
 */
#ifndef PRY_DEMO_H
#define PRY_DEMO_H

#include "http.h"
#include "log.h"
#include "loop.h"
#include "reloader.h"

#include <stdio.h>

/* ---- demo_files.c ---- */

/* Makes `folder` where it is missing and claims it for this process: two demos on one folder would write each other's
 * lib/sim.lua. The claim is a lock on the folder itself, so that nothing is left over; it ends when the descriptor
 * that is returned is closed. -1: `error` says why. */
int pry_demo_claim(const char *folder, char *error, size_t error_size);

/* Fills `folder` (made when missing) with the policies that came with parry and an init.lua for the simulator. Files
 * that are there are kept, except lib/sim.lua, which says where the simulator is this time. *kept: how many there
 * were. False: `error` says what failed. */
bool pry_demo_files(const char *folder, const char *shipped, const char *sim_address, size_t *kept, char *error,
                    size_t error_size);

/* ---- demo_screen.c ---- */

enum { PRY_DEMO_CALLS_SHOWN = 32 };

/* What the last verdict about a call said. */
struct pry_demo_verdict {
  char call_id[48];
  char failure[320];  /* "kimi/kimi-k2 -2002 auth" */
  char decision[320]; /* "→ renew" */
  char why[480];      /* "token_refresh.lua:31 \"…\"" */
};

struct pry_demo_screen {
  FILE *out;
  struct pry_demo_verdict verdicts[PRY_DEMO_CALLS_SHOWN];
  size_t next;
  double second; /* the last one in which lines were written, and how many */
  unsigned lines;
};

/* A pry_log_fn; `user` is the screen. */
void pry_demo_screen_log(void *user, enum pry_log_level level, const char *line, size_t size);

/* A saved policy was taken over or refused. */
void pry_demo_screen_reload(struct pry_demo_screen *screen, const struct pry_reload_outcome *outcome,
                            const struct pry_generation *serving);

/* ---- demo_traffic.c ---- */

enum { PRY_DEMO_KINDS = 5 };

struct pry_demo_traffic {
  struct pry_loop *loop;
  struct pry_http *http;
  const char *gateway, *sim; /* addresses, borrowed */
  pry_time pause;            /* between two calls, once every kind has recovered */
  /* Every kind of failure has recovered once. */
  void (*all_recovered)(void *user);
  void *user;
  struct pry_timer timer;
  struct pry_http_exchange *exchange;
  struct pry_buffer url, body;
  struct pry_headers headers;
  size_t kind;         /* of the call under way, or the next one */
  unsigned long calls; /* begun */
  unsigned recovered;  /* one bit per kind */
  int status;
  bool helped;   /* the answer says that parry had to do something for it */
  bool expiring; /* the exchange under way tells the simulator to let the token expire */
};

void pry_demo_traffic_start(struct pry_demo_traffic *traffic);
void pry_demo_traffic_stop(struct pry_demo_traffic *traffic);

/* The next call comes at once: somebody wants to see what an edit does. */
void pry_demo_traffic_hurry(struct pry_demo_traffic *traffic);

/* The kinds that have not recovered yet, as words. */
void pry_demo_traffic_missing(const struct pry_demo_traffic *traffic, char *text, size_t size);

#endif
