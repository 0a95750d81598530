/* Alerts on their way. Declared in alert_internal.h. */
#include "alert_internal.h"

#include <stdlib.h>

/* A minute as the sink's clock may measure it. */
#define MINUTE (61 * PRY_SECOND)

static const pry_time pauses[] = {1 * PRY_SECOND, 4 * PRY_SECOND, 16 * PRY_SECOND};
enum { PAUSES = sizeof pauses / sizeof *pauses, TRIES_MAX = 1 + PAUSES };

/* tries: from 1. */
static pry_time pause_after(unsigned tries)
{
  return pauses[tries == 0 ? 0 : tries > PAUSES ? PAUSES - 1 : tries - 1];
}

/* ---- entries ----------------------------------------------------------------------------------------------- */

void pry_alert_entry_free(struct pry_alert_entry *entry)
{
  if (!entry)
    return;
  pry_list_remove(&entry->note.link);
  pry_sink_free(entry->sink);
  pry_buffer_fini(&entry->key);
  free(entry);
}

static struct pry_alert_entry *entry_at(struct pry_list *link)
{
  return PRY_CONTAINER_OF(link, struct pry_alert_entry, note.link);
}

static void free_entries(struct pry_list *entries)
{
  while (!pry_list_empty(entries))
    pry_alert_entry_free(entry_at(entries->next));
}

/* ---- the pace ------------------------------------------------------------------------------------------------ */

pry_time pry_alert_pace_next(const struct pry_alert_pace *pace, const struct pry_sink *sink, pry_time now)
{
  pry_time next = now;
  if (pace->count && pace->sent[(pace->next + PRY_SINK_RATE_MAX - 1) % PRY_SINK_RATE_MAX] + sink->kind->gap > next)
    next = pace->sent[(pace->next + PRY_SINK_RATE_MAX - 1) % PRY_SINK_RATE_MAX] + sink->kind->gap;
  if (sink->per_minute && pace->count >= sink->per_minute) {
    pry_time first = pace->sent[(pace->next + PRY_SINK_RATE_MAX - sink->per_minute) % PRY_SINK_RATE_MAX];
    next = first + MINUTE > next ? first + MINUTE : next;
  }
  return next;
}

void pry_alert_pace_note(struct pry_alert_pace *pace, pry_time now)
{
  pace->sent[pace->next] = now;
  pace->next = (pace->next + 1) % PRY_SINK_RATE_MAX;
  pace->count += pace->count < PRY_SINK_RATE_MAX;
}

/* From when on the past does not matter. */
static pry_time forgotten_at(const struct pry_alert_lane *lane)
{
  const struct pry_alert_pace *pace = &lane->pace;
  if (!pace->count)
    return lane->quiet_until;
  pry_time last = pace->sent[(pace->next + PRY_SINK_RATE_MAX - 1) % PRY_SINK_RATE_MAX] + MINUTE;
  return last > lane->quiet_until ? last : lane->quiet_until;
}

/* ---- lanes --------------------------------------------------------------------------------------------------- */

static void lane_due(void *user);

/* The timer runs from the lane's beginning, and in its own callback its place in the loop's heap is still there: it
 * cannot fail. */
static void arm(struct pry_alert_lane *lane, pry_time delay)
{
  pry_timer_start(lane->alerts->loop, &lane->timer, delay, lane_due, lane);
}

/* Locked. */
static struct pry_alert_lane *find_or_make_lane(struct pry_alerts *alerts, const char *sink)
{
  for (struct pry_list *link = alerts->lanes.next; link != &alerts->lanes; link = link->next) {
    struct pry_alert_lane *lane = PRY_CONTAINER_OF(link, struct pry_alert_lane, link);
    if (strcmp(lane->sink, sink) == 0)
      return lane;
  }
  size_t size = strlen(sink) + 1;
  struct pry_alert_lane *lane = calloc(1, sizeof *lane + size);
  if (!lane)
    return NULL;
  lane->alerts = alerts;
  memcpy(lane->sink, sink, size);
  pry_list_init(&lane->entries);
  pry_list_init(&lane->message);
  pry_list_push(&alerts->lanes, &lane->link);
  return lane;
}

/* Locked. */
static void wake(struct pry_alert_lane *lane)
{
  lane->woken = true;
  pry_mailbox_post(lane->alerts->mailbox, &lane->alerts->wake);
}

struct pry_alert_lane *pry_alert_lane_of(struct pry_alerts *alerts, const char *sink)
{
  pthread_mutex_lock(&alerts->lock);
  struct pry_alert_lane *lane = find_or_make_lane(alerts, sink);
  if (lane)
    wake(lane);
  pthread_mutex_unlock(&alerts->lock);
  return lane;
}

void pry_alert_lane_free(struct pry_alert_lane *lane)
{
  if (lane->attempt)
    pry_sink_try_cancel(lane->attempt);
  pry_timer_cancel(&lane->timer);
  free_entries(&lane->message);
  free_entries(&lane->entries);
  free(lane);
}

/* ---- queueing, on any worker, locked --------------------------------------------------------------------------- */

static size_t notes_in_message(const struct pry_sink *sink)
{
  return sink->digest || sink->kind->digest ? sink->kind->merge : 1;
}

/* The last that waits under the same key; NULL: none. */
static struct pry_alert_entry *find_same(struct pry_alert_lane *lane, const struct pry_alert_entry *entry)
{
  for (struct pry_list *link = lane->entries.previous; link != &lane->entries; link = link->previous)
    if (pry_slice_equal(pry_buffer_slice(&entry_at(link)->key), pry_buffer_slice(&entry->key)))
      return entry_at(link);
  return NULL;
}

/* What was said of this alert and has not left is replaced by what is known now. Whoever keeps the history of an alert is
 * told of its beginning all the same. */
static void take_in_same(struct pry_alert_lane *lane, struct pry_alert_entry *entry)
{
  bool merges = notes_in_message(entry->sink) > 1, over = entry->note.state == PRY_NOTE_RESOLVED;
  if (!merges && (!entry->sink->kind->keyed || over))
    return;
  struct pry_alert_entry *same = find_same(lane, entry);
  if (!same || same->note.state == PRY_NOTE_RESOLVED)
    return;
  entry->note.since += same->note.since;
  entry->note.queued = same->note.queued;
  if (!over)
    entry->note.state = same->note.state;
  pry_alert_entry_free(same);
  lane->count--;
}

const char *pry_alert_lane_queue(struct pry_alerts *alerts, struct pry_alert_entry *entry)
{
  struct pry_alert_lane *lane = find_or_make_lane(alerts, entry->sink->name);
  if (!lane)
    return "out of memory";
  take_in_same(lane, entry);
  if (lane->count >= PRY_ALERT_QUEUE_MAX) {
    lane->lost++;
    return "queue full";
  }
  pry_list_push(&lane->entries, &entry->note.link);
  lane->count++;
  wake(lane);
  return NULL;
}

/* ---- one message, on the control worker -------------------------------------------------------------------------- */

static void look(struct pry_alert_lane *lane);

static const struct pry_sink *sink_of(struct pry_alert_lane *lane)
{
  return entry_at(lane->message.previous)->sink; /* the newest: a reload may have mended it */
}

static void forget_message(struct pry_alert_lane *lane)
{
  pthread_mutex_lock(&lane->alerts->lock);
  lane->count -= lane->message_count;
  pthread_mutex_unlock(&lane->alerts->lock);
  free_entries(&lane->message);
  lane->message_count = 0;
  lane->message_lost = 0;
  lane->tries = 0;
}

static void lose_message(struct pry_alert_lane *lane, const char *result, const char *why)
{
  struct pry_alerts *alerts = lane->alerts;
  pry_time now = pry_loop_now(alerts->loop);
  pthread_mutex_lock(&alerts->lock);
  for (struct pry_list *link = lane->message.next; link != &lane->message; link = link->next)
    pry_alerts_quiet_after_loss(alerts, pry_buffer_slice(&entry_at(link)->key), now);
  lane->lost += lane->message_lost;
  pthread_mutex_unlock(&alerts->lock);
  for (struct pry_list *link = lane->message.next; link != &lane->message; link = link->next)
    pry_alerts_say_loss(alerts, lane->sink, entry_at(link)->note.key, result, why);
  forget_message(lane);
}

/* Back to the front of those that wait, so that what has come meanwhile is told with them. */
static void put_message_back(struct pry_alert_lane *lane)
{
  pthread_mutex_lock(&lane->alerts->lock);
  while (!pry_list_empty(&lane->message)) {
    struct pry_list *last = lane->message.previous;
    pry_list_remove(last);
    pry_list_push(lane->entries.next, last); /* before the first */
  }
  lane->lost += lane->message_lost;
  pthread_mutex_unlock(&lane->alerts->lock);
  lane->message_count = 0;
  lane->message_lost = 0;
  lane->tries = 0;
}

static void try_failed(struct pry_alert_lane *lane, const struct pry_sink_answer *answer)
{
  if (answer->verdict == PRY_SINK_REFUSED || lane->tries >= TRIES_MAX) {
    lose_message(lane, "failed", answer->why);
    return;
  }
  pry_time pause = pause_after(lane->tries);
  lane->again_at = pry_loop_now(lane->alerts->loop) + (answer->wait > pause ? answer->wait : pause);
}

static void sink_is_busy(struct pry_alert_lane *lane, const struct pry_sink_answer *answer)
{
  if (++lane->refusals >= TRIES_MAX) {
    lane->refusals = 0;
    lose_message(lane, "failed", answer->why);
    return;
  }
  pry_time pause = pause_after(lane->refusals), wait = answer->wait > pause ? answer->wait : pause;
  lane->quiet_until = pry_loop_now(lane->alerts->loop) + wait;
  pry_log(lane->alerts->log, PRY_LOG_WARN, "alerts wait for their sink", pry_log_text("sink", lane->sink),
          pry_log_number("seconds", pry_time_to_seconds(wait)), pry_log_text("why", answer->why));
  if (notes_in_message(sink_of(lane)) > 1)
    put_message_back(lane);
  else
    lane->again_at = lane->quiet_until;
}

static void try_ended(void *user, const struct pry_sink_answer *answer)
{
  struct pry_alert_lane *lane = user;
  lane->attempt = NULL;
  if (answer->verdict == PRY_SINK_BUSY)
    sink_is_busy(lane, answer);
  else
    lane->refusals = 0;
  if (answer->verdict == PRY_SINK_TOOK) {
    pry_metrics_add(lane->alerts->metrics, PRY_M_ALERTS, lane->sink, "delivered", (double)lane->message_count);
    forget_message(lane);
  } else if (answer->verdict != PRY_SINK_BUSY)
    try_failed(lane, answer);
  arm(lane, 0); /* not from in here: this may be the last of many at once */
}

static void start_try(struct pry_alert_lane *lane)
{
  const struct pry_sink *sink = sink_of(lane);
  lane->tries++;
  if (sink->per_minute || sink->kind->gap)
    pry_alert_pace_note(&lane->pace, pry_loop_now(lane->alerts->loop));
  arm(lane, PRY_TIME_NEVER);
  lane->attempt = pry_sink_try_start(&lane->alerts->means, sink, &lane->message, lane->message_lost, try_ended, lane);
  if (lane->attempt)
    return;
  try_failed(lane, &(struct pry_sink_answer){.verdict = PRY_SINK_FAILED, .why = "out of memory"});
  arm(lane, 0);
}

/* ---- what to do next ----------------------------------------------------------------------------------------------- */

/* Locked; there are entries. When they may leave, as far as waiting for others goes. */
static pry_time digest_ends(struct pry_alert_lane *lane, pry_time now)
{
  const struct pry_sink *sink = entry_at(lane->entries.previous)->sink;
  size_t count = 0;
  for (struct pry_list *link = lane->entries.next; link != &lane->entries; link = link->next) {
    if (entry_at(link)->note.severity == PRY_ALERT_CRITICAL || ++count >= notes_in_message(sink))
      return now;
  }
  return entry_at(lane->entries.next)->note.queued + sink->digest;
}

/* Locked; there are entries. */
static void take_message(struct pry_alert_lane *lane)
{
  size_t most = notes_in_message(entry_at(lane->entries.previous)->sink);
  while (!pry_list_empty(&lane->entries) && lane->message_count < most) {
    struct pry_list *link = lane->entries.next;
    pry_list_remove(link);
    pry_list_push(&lane->message, link);
    lane->message_count++;
  }
  lane->message_lost = lane->lost;
  lane->lost = 0;
}

static pry_time latest(pry_time a, pry_time b)
{
  return a > b ? a : b;
}

/* When there is something to do; PRY_TIME_NEVER: the lane is of no more use, and in no list any more. What is due is taken. */
static pry_time find_work(struct pry_alert_lane *lane, pry_time now)
{
  pry_time due = lane->quiet_until;
  if (lane->message_count)
    return latest(latest(due, lane->again_at), pry_alert_pace_next(&lane->pace, sink_of(lane), now));
  pthread_mutex_lock(&lane->alerts->lock);
  if (!pry_list_empty(&lane->entries)) {
    const struct pry_sink *sink = entry_at(lane->entries.previous)->sink;
    due = latest(latest(due, digest_ends(lane, now)), pry_alert_pace_next(&lane->pace, sink, now));
    if (due <= now)
      take_message(lane);
  } else {
    due = forgotten_at(lane);
    if (due <= now) {
      pry_list_remove(&lane->link);
      due = PRY_TIME_NEVER;
    }
  }
  pthread_mutex_unlock(&lane->alerts->lock);
  return due;
}

static void look(struct pry_alert_lane *lane)
{
  if (lane->attempt)
    return;
  pry_time now = pry_loop_now(lane->alerts->loop), due = find_work(lane, now);
  if (due == PRY_TIME_NEVER)
    pry_alert_lane_free(lane);
  else if (due > now)
    arm(lane, due - now);
  else
    start_try(lane);
}

static void lane_due(void *user)
{
  look(user);
}

/* Without a timer nothing can be sent. */
static void give_up(struct pry_alert_lane *lane)
{
  for (bool more = true; more;) {
    pthread_mutex_lock(&lane->alerts->lock);
    more = !pry_list_empty(&lane->entries);
    if (more)
      take_message(lane);
    else
      pry_list_remove(&lane->link);
    pthread_mutex_unlock(&lane->alerts->lock);
    lose_message(lane, "dropped", "out of memory");
  }
  pry_alert_lane_free(lane);
}

static struct pry_alert_lane *take_woken(struct pry_alerts *alerts)
{
  struct pry_alert_lane *found = NULL;
  pthread_mutex_lock(&alerts->lock);
  for (struct pry_list *link = alerts->lanes.next; !found && link != &alerts->lanes; link = link->next)
    if (PRY_CONTAINER_OF(link, struct pry_alert_lane, link)->woken)
      found = PRY_CONTAINER_OF(link, struct pry_alert_lane, link);
  if (found)
    found->woken = false;
  pthread_mutex_unlock(&alerts->lock);
  return found;
}

void pry_alert_wake_lanes(struct pry_message *message)
{
  struct pry_alerts *alerts = PRY_CONTAINER_OF(message, struct pry_alerts, wake);
  for (struct pry_alert_lane *lane; (lane = take_woken(alerts));) {
    lane->begun = lane->begun || pry_timer_start(alerts->loop, &lane->timer, PRY_TIME_NEVER, lane_due, lane);
    if (lane->begun)
      look(lane);
    else
      give_up(lane);
  }
}
