/*
 * alert_internal.h: what alert.c and alert_delivery.c share; nobody else includes it.
 *
 *   alert.c            which alerts are open, what is told: on any worker
 *   alert_delivery.c   what is told becomes a POST: made on any worker, sent on the control worker
 *
 * Functions say "locked" when the caller holds the lock; all others are called without it.
 */
#ifndef PRY_ALERT_INTERNAL_H
#define PRY_ALERT_INTERNAL_H

#include "alert.h"
#include "list.h"
#include "table.h"

#include <pthread.h>

/* One POST to come. */
struct pry_alert_delivery {
  struct pry_list link;
  struct pry_buffer url, body, key; /* the URL NUL-terminated; key as in struct open_alert */
  double time;                      /* Unix seconds */
};

/* The deliveries to one sink, one at a time. Exists while there are any. */
struct pry_alert_lane {
  struct pry_alerts *alerts;
  /* the lock's */
  struct pry_list link;
  struct pry_list deliveries; /* without the current one */
  size_t count;               /* with it */
  bool begun;                 /* the control worker knows it */
  /* the control worker's */
  struct pry_alert_delivery *current; /* NULL: none was begun */
  struct pry_timer timer;             /* runs all the time: until the next try, or the limit of this one */
  struct pry_http_exchange *exchange;
  unsigned tries;  /* of the current delivery */
  int status;      /* of the answer; 0: none yet */
  pry_time wait;   /* what the answer asked for */
  size_t answered; /* bytes of body */
  char sink[];
};

struct pry_alerts {
  struct pry_mailbox *mailbox;
  struct pry_loop *loop; /* the mailbox's */
  struct pry_http *http;
  struct pry_log *log;
  struct pry_metrics *metrics;
  struct pry_scrubber *scrubber;
  pthread_mutex_t lock;
  struct pry_table table; /* of open alerts */
  struct pry_list open;   /* the same, told longest ago first */
  struct pry_list lanes;
  struct pry_message new_lanes; /* to the control worker */
};

/* ---- alert.c --------------------------------------------------------------------------------------------- */

/* Logs and counts what did not reach its sink. */
void pry_alerts_say_loss(struct pry_alerts *alerts, const char *sink, struct pry_slice key, const char *result,
                         const char *why);

/* Locked. What was lost may be told again, but not at once. */
void pry_alerts_quiet_after_loss(struct pry_alerts *alerts, struct pry_slice key, pry_time now);

/* ---- alert_delivery.c ------------------------------------------------------------------------------------ */

/* NULL: no memory. */
struct pry_alert_delivery *pry_alert_delivery_new(struct pry_alerts *alerts, const struct pry_loop *loop,
                                                  const struct pry_sink_config *sink, const struct pry_alert *alert,
                                                  struct pry_slice key);
void pry_alert_delivery_free(struct pry_alert_delivery *delivery); /* NULL is fine */

/* Locked. Takes the delivery and gives NULL, or says why not. `count`: how often the alert was raised. */
const char *pry_alert_delivery_queue(struct pry_alerts *alerts, const char *sink, struct pry_alert_delivery *delivery,
                                     unsigned long count);

/* The `deliver` of the message about new lanes. */
void pry_alert_begin_lanes(struct pry_message *message);

/* It is in no list any more. */
void pry_alert_lane_free(struct pry_alert_lane *lane);

#endif
