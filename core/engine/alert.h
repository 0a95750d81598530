/*
 * alert.h: telling people, without ever delaying a call.
 *
 * notify{} hands an alert over and returns; delivery has its own bounded queue, its own retries and its own connections.
 *
 * Life of an alert, under its key at its sink: raised first it is *opened* and told. Raised again it only counts up, with its
 * cause, and whom it concerns; at most once every `repeat` it is told again, with how many since. *Resolved* it is told once more:
 * how long it lasted, how often, what the most frequent cause was. An alert that is not open has nothing to resolve.
 *
 * Delivery: how a sink is told is the sink's (sink.h). Alerts for one sink that come within its digest time, while it is
 * being tried, or while its limit makes it wait, become one message where the kind allows it; a critical one does not
 * wait for others. No more than the kind's limit goes out in any minute, whatever happens. A failed try is repeated 1, 4 and 16 s
 * later (later still when the answer names a time), unless the answer says that no repetition helps; a sink that is too busy is
 * left alone for as long as it, or its documentation, says. What cannot be delivered is logged (the sink's name, never
 * its URL) and counted; told again a minute later, the alert is tried anew. Each sink has a queue of its own, so that one that is
 * down delays no other.
 *
 * Bounded: PRY_ALERT_QUEUE_MAX notes a sink, and how many found no place is told with the next message that does;
 * PRY_ALERTS_OPEN_MAX open alerts, of which the one not raised for longest is forgotten first, and any after a day.
 *
 * All of this is the engine's and survives reloads. After a restart nothing is open.
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
#include "note.h"

struct pry_alerts;
struct pry_alert_test;
struct pry_mailer;

enum { PRY_ALERT_TEXT_MAX = PRY_NOTE_TEXT_MAX, PRY_ALERT_QUEUE_MAX = 256, PRY_ALERTS_OPEN_MAX = 1024 };

struct pry_alert_field {
  struct pry_slice name, value;
};

/* All texts are scrubbed, cleaned and cut (note.h) by the alerts; none may hold a prompt or a completion. */
struct pry_alert {
  struct pry_slice key;    /* dedupe key, the instance's prefix added */
  struct pry_slice text;   /* empty: what it was opened with */
  struct pry_slice title;  /* one line; may be empty */
  struct pry_slice cause;  /* of this one, such as "server, HTTP 500"; counted; may be empty */
  struct pry_slice sample; /* a failure to look at, such as a call's id; may be empty */
  const struct pry_alert_field *fields;
  size_t field_count;
  enum pry_alert_severity severity;
  unsigned long count;              /* how many this is; 0: one */
  struct pry_slice client, session; /* whom it concerns; only counted; may be empty */
  bool resolve;
  bool update;            /* counts when it is open, else nothing */
  const char *generation; /* told to the sink; NULL: not */
  pry_time repeat;        /* while open, told again at most this often; 0: one hour */
};

/* mailbox, http: the control worker's. All outlive the alerts. NULL: no memory. */
struct pry_alerts *pry_alerts_new(struct pry_mailbox *mailbox, struct pry_http *http, struct pry_log *log,
                                  struct pry_metrics *metrics, struct pry_scrubber *scrubber);

/* Gives up what is queued. On the control worker, or when the workers have ended. NULL is fine. */
void pry_alerts_free(struct pry_alerts *alerts);

/* Mails go through this one from now on; freed with the alerts. For tests, before the first alert. */
void pry_alerts_set_mailer(struct pry_alerts *alerts, struct pry_mailer *mailer);

/* Told of every alert that is opened, told again after its `repeat`, or resolved, whatever becomes of it at its sink, on the
 * thread of whoever notifies and under no lock. sink: its name; "host" when there is none. `note` is valid during the call. */
typedef void (*pry_alert_listener)(void *user, const char *sink, const struct pry_note *note);

/* Before the first alert. */
void pry_alerts_set_listener(struct pry_alerts *alerts, pry_alert_listener listener, void *user);

/* Raises, updates or resolves. The sink is copied. NULL: only the listener is to know; without one, nothing happens. What finds no place in the queue is logged and counted. A sink whose
 * secret is missing is logged once per key. `loop` is the caller's, for the time. */
void pry_alerts_notify(struct pry_alerts *alerts, const struct pry_loop *loop, const struct pry_sink_config *sink,
                       const struct pry_alert *alert);

/* Any thread. */
size_t pry_alerts_queued(struct pry_alerts *alerts);
size_t pry_alerts_open(struct pry_alerts *alerts); /* keys raised and not resolved */

/* Appends the open alerts as a JSON array, the one raised last at the end:
 * [{"sink","key","title","cause"?,"severity","count","told","opened","clients","sessions"}]. Any thread. False: memory. */
bool pry_alerts_list(struct pry_alerts *alerts, struct pry_buffer *out);

/* ---- trying a sink ---------------------------------------------------------------------------------------------- */

struct pry_alert_test_result {
  bool accepted;
  const char *why; /* "" when it was; scrubbed; valid during the call */
};

/* Sends one message that says it is a test, past the queue, once; it counts for the sink's limit. `done` comes from the loop. On
 * the control worker. NULL: `why` says what is missing, or how long the sink's limit has to be waited for; nothing is called. */
struct pry_alert_test *pry_alerts_test(struct pry_alerts *alerts, const struct pry_sink_config *sink, char why[200],
                                       void (*done)(void *user, const struct pry_alert_test_result *result),
                                       void *user);

/* `done` will not come. */
void pry_alert_test_cancel(struct pry_alert_test *test);

#endif
