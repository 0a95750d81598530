/* Trying a sink. Declared in alert.h. */
#include "alert_internal.h"

#include <stdio.h>
#include <stdlib.h>

struct pry_alert_test {
  struct pry_list link; /* in alerts->tests */
  struct pry_sink *sink;
  struct pry_list notes; /* one */
  struct pry_note note;
  struct pry_sink_try *attempt;
  void (*done)(void *user, const struct pry_alert_test_result *result);
  void *user;
};

static void test_free(struct pry_alert_test *test)
{
  pry_list_remove(&test->link);
  pry_sink_free(test->sink);
  free(test);
}

void pry_alert_test_cancel(struct pry_alert_test *test)
{
  if (test->attempt)
    pry_sink_try_cancel(test->attempt);
  test_free(test);
}

void pry_alert_tests_cancel(struct pry_alerts *alerts)
{
  while (!pry_list_empty(&alerts->tests))
    pry_alert_test_cancel(PRY_CONTAINER_OF(alerts->tests.next, struct pry_alert_test, link));
}

static void try_ended(void *user, const struct pry_sink_answer *answer)
{
  struct pry_alert_test *test = user;
  bool accepted = answer->verdict == PRY_SINK_TOOK;
  struct pry_alert_test_result result = {accepted, accepted ? "" : answer->why};
  test->attempt = NULL;
  test->done(test->user, &result);
  test_free(test);
}

static void fill_note(struct pry_note *note, double unix_time)
{
  *note = (struct pry_note){.state = PRY_NOTE_TEST,
                            .severity = PRY_ALERT_INFO,
                            .count = 1,
                            .since = 1,
                            .opened = unix_time,
                            .time = unix_time,
                            .key = "parry/test",
                            .title = "a test of this sink; nothing is wrong",
                            .text = "Sent by `parry alert test`. Alerts will look like this."};
}

/* "" when the sink may be told something now. */
static void check_pace(struct pry_alerts *alerts, struct pry_alert_lane *lane, const struct pry_sink *sink,
                       char why[200])
{
  pry_time now = pry_loop_now(alerts->loop), next = pry_alert_pace_next(&lane->pace, sink, now);
  next = lane->quiet_until > next ? lane->quiet_until : next;
  why[0] = '\0';
  if (next > now)
    snprintf(why, 200, "the sink's limit is used up by alerts; try again in %.0f s",
             pry_time_to_seconds(next - now) + 1);
}

struct pry_alert_test *pry_alerts_test(struct pry_alerts *alerts, const struct pry_sink_config *sink, char why[200],
                                       void (*done)(void *user, const struct pry_alert_test_result *result), void *user)
{
  const char *complaint = pry_sink_complaint(sink);
  snprintf(why, 200, "%s", complaint ? complaint : "memory is short");
  struct pry_alert_test *test = complaint ? NULL : calloc(1, sizeof *test);
  if (!test)
    return NULL;
  test->done = done;
  test->user = user;
  pry_list_init(&test->link);
  pry_list_push(&alerts->tests, &test->link);
  pry_list_init(&test->notes);
  fill_note(&test->note, pry_loop_unix_time(alerts->loop));
  pry_list_push(&test->notes, &test->note.link);
  test->sink = pry_sink_new(sink);
  struct pry_alert_lane *lane = test->sink ? pry_alert_lane_of(alerts, sink->name) : NULL;
  if (lane)
    check_pace(alerts, lane, test->sink, why);
  if (lane && !why[0]) {
    if (test->sink->per_minute || test->sink->kind->gap)
      pry_alert_pace_note(&lane->pace, pry_loop_now(alerts->loop));
    test->attempt = pry_sink_try_start(&alerts->means, test->sink, &test->notes, 0, try_ended, test);
    if (test->attempt)
      return test;
    snprintf(why, 200, "memory is short");
  }
  test_free(test);
  return NULL;
}
