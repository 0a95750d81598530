/*
 * alert_internal.h: what the files of the alerts share; nobody else includes it.
 *
 *   alert.c        which alerts are open, what is told: on any worker
 *   alert_lane.c   what is told goes out, a lane for each sink: queued on any worker, sent on the control worker
 *   alert_test.c   trying a sink
 *
 * Functions say "locked" when the caller holds the lock; all others are called without it.
 */
#ifndef PRY_ALERT_INTERNAL_H
#define PRY_ALERT_INTERNAL_H

#include "alert.h"
#include "list.h"
#include "sink_try.h"
#include "table.h"

#include <pthread.h>

/* A note on its way, with the sink as it was when it was told. */
struct pry_alert_entry {
  struct pry_note note; /* first; its link is in a lane's list */
  struct pry_sink *sink;
  struct pry_buffer key; /* as in struct pry_alert_open */
};

/* When the last messages went out; the oldest are overwritten. */
struct pry_alert_pace {
  pry_time sent[PRY_SINK_RATE_MAX];
  size_t count, next;
};

/* The way to one sink, one message at a time. Exists while there is something to send, or to remember: what went out within
 * the last minute. */
struct pry_alert_lane {
  struct pry_alerts *alerts;
  /* the lock's */
  struct pry_list link;
  struct pry_list entries; /* without those of the message being tried */
  size_t count;            /* with them */
  unsigned long lost;      /* found no place */
  bool woken;              /* the control worker is to look at it */
  bool begun;              /* its timer runs */
  /* the control worker's */
  struct pry_list message; /* the entries being tried, or to be tried again */
  size_t message_count;
  unsigned long message_lost;
  struct pry_sink_try *attempt;
  struct pry_timer timer; /* runs all the time, parked when there is nothing to wait for */
  unsigned tries;         /* of the message */
  unsigned refusals;      /* in a row, because the sink was busy */
  pry_time again_at;      /* the message's next try */
  pry_time quiet_until;   /* the sink is busy */
  struct pry_alert_pace pace;
  char sink[];
};

struct pry_alerts {
  struct pry_mailbox *mailbox;
  struct pry_loop *loop; /* the mailbox's */
  struct pry_log *log;
  struct pry_metrics *metrics;
  struct pry_scrubber *scrubber;
  struct pry_sink_means means;
  pry_alert_listener listener; /* may be NULL */
  void *listener_user;
  uint64_t seed[2]; /* of hashes of clients and sessions */
  pthread_mutex_t lock;
  struct pry_table table; /* of open alerts */
  struct pry_list open;   /* the same, raised longest ago first */
  struct pry_list lanes;
  struct pry_list tests;   /* the control worker's */
  struct pry_message wake; /* to the control worker: look at the lanes */
};

/* ---- alert.c --------------------------------------------------------------------------------------------- */

/* Logs and counts what did not reach its sink. */
void pry_alerts_say_loss(struct pry_alerts *alerts, const char *sink, const char *key, const char *result,
                         const char *why);

/* Locked. What was lost may be told again, but not at once. */
void pry_alerts_quiet_after_loss(struct pry_alerts *alerts, struct pry_slice key, pry_time now);

/* ---- alert_lane.c ------------------------------------------------------------------------------------------ */

void pry_alert_entry_free(struct pry_alert_entry *entry); /* NULL is fine */

/* Locked. Takes the entry and gives NULL, or says why not. */
const char *pry_alert_lane_queue(struct pry_alerts *alerts, struct pry_alert_entry *entry);

/* The `deliver` of alerts->wake. */
void pry_alert_wake_lanes(struct pry_message *message);

/* When the next message may go out; not later than now: at once. On the control worker. */
pry_time pry_alert_pace_next(const struct pry_alert_pace *pace, const struct pry_sink *sink, pry_time now);
void pry_alert_pace_note(struct pry_alert_pace *pace, pry_time now);

/* The lane of a sink, made when there is none; NULL: memory. On the control worker. */
struct pry_alert_lane *pry_alert_lane_of(struct pry_alerts *alerts, const char *sink);

/* It is in no list any more. */
void pry_alert_lane_free(struct pry_alert_lane *lane);

/* ---- alert_test.c ------------------------------------------------------------------------------------------ */

void pry_alert_tests_cancel(struct pry_alerts *alerts);

#endif
