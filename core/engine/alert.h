/*
 * alert.h: telling people, without ever delaying a call.
 *
 * notify{} hands an alert over and returns; delivery has its own bounded queue, its own retries and its own
 * connections. An alert that is open under its key and told again within its repeat interval only counts up; a
 * resolve closes it and is delivered once. Delivery: POST of a JSON object to the sink's URL, 3 tries with 1, 4, 16 s
 * between them, 10 s each; what cannot be delivered is logged (sink's name, never its URL) and counted.
 *
 * Thread: the loop's.
 */
#ifndef PRY_ALERT_H
#define PRY_ALERT_H

#include "config.h"
#include "http.h"
#include "log.h"
#include "metrics.h"

struct pry_alerts;

enum { PRY_ALERT_TEXT_MAX = 2048, PRY_ALERT_QUEUE_MAX = 256 };

struct pry_alert {
  struct pry_slice key;  /* dedupe key, the instance's prefix added */
  struct pry_slice text; /* scrubbed by the alerts, cut at PRY_ALERT_TEXT_MAX */
  bool resolve;
};

struct pry_alerts *pry_alerts_new(struct pry_loop *loop, struct pry_http *http, struct pry_log *log,
                                  struct pry_metrics *metrics, struct pry_scrubber *scrubber);

/* Gives up what is queued. NULL is fine. */
void pry_alerts_free(struct pry_alerts *alerts);

/* Queues an alert for a sink; the sink's name and URL are copied. A full queue drops the alert, logged and counted. A
 * sink whose secret is missing is logged once per key. */
void pry_alerts_notify(struct pry_alerts *alerts, const struct pry_sink_config *sink, const struct pry_alert *alert);

size_t pry_alerts_queued(const struct pry_alerts *alerts);
size_t pry_alerts_open(const struct pry_alerts *alerts); /* keys raised and not resolved */

#endif
