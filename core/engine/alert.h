/*
 * alert.h: telling people, without ever delaying a call.
 *
 * notify{} hands an alert over and returns; delivery has its own bounded queue, its own retries and its own
 * connections. An alert that is open under its key and told again within its repeat interval only counts up; a
 * resolve closes it and is delivered once (an alert that is not open has nothing to resolve).
 *
 * Delivery: POST of a JSON object to the sink's URL,
 *   {"key","text","state":"firing"|"resolved","count","time","generation"?,"source":"parry"}
 * at most 10 s a try; any 2xx is success. After a failed try it is tried again 1, 4 and 16 s later (later still when
 * the answer names a time within a minute), unless the answer is a 4xx that no repetition cures. What cannot be
 * delivered is logged (sink's name, never its URL) and counted; told again a minute later, the alert is tried anew.
 * Each sink has a queue of its own, in order, so that one that is down delays no other.
 *
 * Bounded: PRY_ALERT_QUEUE_MAX deliveries a sink; PRY_ALERTS_OPEN_MAX open alerts, of which the one not told for
 * longest is forgotten first.
 *
 * Thread: notify from any worker. Which alerts are open, and what is queued, is behind one lock, never held while
 * something is scrubbed, logged or sent; delivery is the control worker's, woken through its mailbox. Who notifies waits
 * for no delivery. Alerts of one key are delivered in the order in which they were counted.
 */
#ifndef PRY_ALERT_H
#define PRY_ALERT_H

#include "config.h"
#include "http.h"
#include "log.h"
#include "mailbox.h"
#include "metrics.h"

struct pry_alerts;

enum { PRY_ALERT_TEXT_MAX = 2048, PRY_ALERT_QUEUE_MAX = 256, PRY_ALERTS_OPEN_MAX = 1024 };

struct pry_alert {
  struct pry_slice key;  /* dedupe key, the instance's prefix added */
  struct pry_slice text; /* scrubbed by the alerts, cut at PRY_ALERT_TEXT_MAX */
  bool resolve;
  const char *generation; /* told to the sink; NULL: not */
  pry_time repeat;        /* while open, told again at most this often; 0: one hour */
};

/* mailbox, http: the control worker's. All outlive the alerts. NULL: no memory. */
struct pry_alerts *pry_alerts_new(struct pry_mailbox *mailbox, struct pry_http *http, struct pry_log *log,
                                  struct pry_metrics *metrics, struct pry_scrubber *scrubber);

/* Gives up what is queued. On the control worker, or when the workers have ended. NULL is fine. */
void pry_alerts_free(struct pry_alerts *alerts);

/* Queues an alert for a sink; the sink's name and URL are copied. A full queue drops the alert, logged and counted. A
 * sink whose secret is missing is logged once per key. `loop` is the caller's, for the time. */
void pry_alerts_notify(struct pry_alerts *alerts, const struct pry_loop *loop, const struct pry_sink_config *sink,
                       const struct pry_alert *alert);

/* Any thread. */
size_t pry_alerts_queued(struct pry_alerts *alerts);
size_t pry_alerts_open(struct pry_alerts *alerts); /* keys raised and not resolved */

#endif
