/*
 * sink_try.h: one try to tell a sink something.
 *
 * Renders notes for the sink, sends them, over HTTP or as a mail, and reports what the sink made of it. No repetition, no
 * queue: those are the alerts' (alert_lane.c), and `parry alert test` has use for neither.
 *
 * Bounded: 10 s for a request, 45 s for a mail; 64 KiB of an answer, of which the first 4 KiB are looked at. What the sink says
 * is scrubbed of live secrets.
 *
 * Thread: the loop's.
 */
#ifndef PRY_SINK_TRY_H
#define PRY_SINK_TRY_H

#include "http.h"
#include "mail.h"
#include "sink.h"

struct pry_sink_try;

struct pry_sink_means {
  struct pry_loop *loop;
  struct pry_http *http;
  struct pry_mailer *mailer;
  struct pry_scrubber *scrubber; /* may be NULL */
};

typedef void (*pry_sink_done)(void *user, const struct pry_sink_answer *answer);

/* `notes` are looked at now, `means` and `sink` stay until the end. `done` comes once, from the loop, and the try frees itself
 * afterwards. NULL: no memory; nothing is called. */
struct pry_sink_try *pry_sink_try_start(const struct pry_sink_means *means, const struct pry_sink *sink,
                                        const struct pry_list *notes, unsigned long lost, pry_sink_done done,
                                        void *user);

/* `done` will not come. */
void pry_sink_try_cancel(struct pry_sink_try *attempt);

#endif
