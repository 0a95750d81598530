/* Alerts on their way. Declared in alert_internal.h. */
#include "alert_internal.h"

#include "retry_after.h"

#include <stdio.h>
#include <stdlib.h>

#define TRY_LIMIT (10 * PRY_SECOND)

/* TAIL: the numbers at the end of a body, the longest there are. */
enum { ANSWER_MAX = 64 * 1024, SERVER_WAIT_MAX = 60, TAIL_MAX = 512 };

static const pry_time pauses[] = {1 * PRY_SECOND, 4 * PRY_SECOND, 16 * PRY_SECOND};
enum { TRIES_MAX = 1 + sizeof pauses / sizeof *pauses };

/* ---- one delivery ---------------------------------------------------------------------------------------- */

void pry_alert_delivery_free(struct pry_alert_delivery *delivery)
{
  if (!delivery)
    return;
  if (delivery->url.data)
    explicit_bzero(delivery->url.data, delivery->url.capacity); /* webhook URLs carry their own key */
  pry_buffer_fini(&delivery->url);
  pry_buffer_fini(&delivery->body);
  pry_buffer_fini(&delivery->key);
  free(delivery);
}

static struct pry_slice cut_text(struct pry_slice text, size_t limit)
{
  if (text.size <= limit)
    return text;
  while (limit && ((unsigned char)text.data[limit] & 0xC0) == 0x80)
    limit--; /* not inside a UTF-8 sequence */
  return (struct pry_slice){text.data, limit};
}

/* Scrubbed before it is cut, so that no half of a secret is left at the end. */
static bool append_member(struct pry_alerts *alerts, struct pry_buffer *body, const char *name, struct pry_slice text)
{
  struct pry_buffer copy;
  pry_buffer_init(&copy, 0);
  bool ok = pry_buffer_append_slice(&copy, text);
  if (ok) {
    pry_scrubber_apply(alerts->scrubber, &copy);
    ok = pry_buffer_append_format(body, "\"%s\":\"", name) &&
         pry_buffer_append_json(body, cut_text(pry_buffer_slice(&copy), PRY_ALERT_TEXT_MAX)) &&
         pry_buffer_append_text(body, "\",");
  }
  pry_buffer_fini(&copy);
  return ok;
}

static bool append_body(struct pry_alerts *alerts, struct pry_buffer *body, const struct pry_alert *alert)
{
  return pry_buffer_append_text(body, "{") && append_member(alerts, body, "key", alert->key) &&
         append_member(alerts, body, "text", alert->text) &&
         append_member(alerts, body, "state", alert->resolve ? PRY_SLICE("resolved") : PRY_SLICE("firing")) &&
         (!alert->generation || append_member(alerts, body, "generation", pry_slice_of(alert->generation))) &&
         pry_buffer_reserve(body, TAIL_MAX);
}

/* The count is known only when the alert is queued. There is room for it: this cannot fail. */
static void finish_body(struct pry_alert_delivery *delivery, unsigned long count)
{
  pry_buffer_append_format(&delivery->body, "\"count\":%lu,\"time\":%.3f,\"source\":\"parry\"}", count, delivery->time);
}

struct pry_alert_delivery *pry_alert_delivery_new(struct pry_alerts *alerts, const struct pry_loop *loop,
                                                  const struct pry_sink_config *sink, const struct pry_alert *alert,
                                                  struct pry_slice key)
{
  struct pry_alert_delivery *delivery = calloc(1, sizeof *delivery);
  if (!delivery)
    return NULL;
  pry_list_init(&delivery->link);
  delivery->time = pry_loop_unix_time(loop);
  if (pry_buffer_append_text(&delivery->url, sink->url->value) && pry_buffer_text(&delivery->url) &&
      pry_buffer_append_slice(&delivery->key, key) && append_body(alerts, &delivery->body, alert))
    return delivery;
  pry_alert_delivery_free(delivery);
  return NULL;
}

/* ---- lanes --------------------------------------------------------------------------------------------- */

static void lane_due(void *user);

/* The timer runs from the lane's beginning, and in its own callback its place in the loop's heap is still there: it
 * cannot fail. */
static void arm(struct pry_alert_lane *lane, pry_time delay)
{
  pry_timer_start(lane->alerts->loop, &lane->timer, delay, lane_due, lane);
}

/* Locked. */
static struct pry_alert_lane *find_lane(struct pry_alerts *alerts, const char *sink)
{
  for (struct pry_list *link = alerts->lanes.next; link != &alerts->lanes; link = link->next) {
    struct pry_alert_lane *lane = PRY_CONTAINER_OF(link, struct pry_alert_lane, link);
    if (strcmp(lane->sink, sink) == 0)
      return lane;
  }
  return NULL;
}

/* Locked. */
static struct pry_alert_lane *find_or_make_lane(struct pry_alerts *alerts, const char *sink)
{
  struct pry_alert_lane *lane = find_lane(alerts, sink);
  if (lane)
    return lane;
  size_t size = strlen(sink) + 1;
  lane = calloc(1, sizeof *lane + size);
  if (!lane)
    return NULL;
  lane->alerts = alerts;
  memcpy(lane->sink, sink, size);
  pry_list_init(&lane->deliveries);
  pry_list_push(&alerts->lanes, &lane->link);
  return lane;
}

/* Locked. */
static struct pry_alert_delivery *take_first(struct pry_alert_lane *lane)
{
  struct pry_alert_delivery *delivery = PRY_CONTAINER_OF(lane->deliveries.next, struct pry_alert_delivery, link);
  pry_list_remove(&delivery->link);
  return delivery;
}

/* It is in no list any more. */
void pry_alert_lane_free(struct pry_alert_lane *lane)
{
  if (lane->exchange)
    pry_http_cancel(lane->exchange);
  pry_timer_cancel(&lane->timer);
  pry_alert_delivery_free(lane->current);
  while (!pry_list_empty(&lane->deliveries))
    pry_alert_delivery_free(take_first(lane));
  free(lane);
}

/* Ends the current delivery. False: there was no other, and the lane is gone. */
static bool next_delivery(struct pry_alert_lane *lane)
{
  pry_alert_delivery_free(lane->current);
  lane->current = NULL;
  lane->tries = 0;
  pthread_mutex_lock(&lane->alerts->lock);
  bool more = --lane->count;
  if (more)
    lane->current = take_first(lane);
  else
    pry_list_remove(&lane->link);
  pthread_mutex_unlock(&lane->alerts->lock);
  if (!more)
    pry_alert_lane_free(lane);
  return more;
}

static void lose_delivery(struct pry_alert_lane *lane, const char *result, const char *why)
{
  struct pry_alerts *alerts = lane->alerts;
  struct pry_slice key = pry_buffer_slice(&lane->current->key);
  pthread_mutex_lock(&alerts->lock);
  pry_alerts_quiet_after_loss(alerts, key, pry_loop_now(alerts->loop));
  pthread_mutex_unlock(&alerts->lock);
  pry_alerts_say_loss(alerts, lane->sink, key, result, why);
}

static void go_on(struct pry_alert_lane *lane)
{
  if (next_delivery(lane))
    arm(lane, 0);
}

/* A 4xx says that the request is wrong, and it will not get better, except where it says "not now". */
static bool is_final(int status)
{
  return status >= 400 && status < 500 && status != 408 && status != 425 && status != 429;
}

static void try_failed(struct pry_alert_lane *lane, const char *why)
{
  if (lane->tries >= TRIES_MAX || is_final(lane->status)) {
    lose_delivery(lane, "failed", why);
    go_on(lane);
    return;
  }
  pry_time pause = pauses[lane->tries - 1];
  arm(lane, lane->wait > pause ? lane->wait : pause);
}

/* The status decides: a sink that answered 2xx has the alert, however its answer ended. */
static void try_ended(struct pry_alert_lane *lane, const char *why)
{
  lane->exchange = NULL;
  if (lane->status < 200 || lane->status > 299) {
    char status_text[32];
    snprintf(status_text, sizeof status_text, "status %d", lane->status);
    try_failed(lane, lane->status ? status_text : why);
    return;
  }
  pry_metrics_add(lane->alerts->metrics, PRY_M_ALERTS, lane->sink, "delivered", 1);
  go_on(lane);
}

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct pry_alert_lane *lane = user;
  lane->status = status;
  double seconds;
  if (pry_retry_after(headers, pry_loop_unix_time(lane->alerts->loop), &seconds) && seconds <= SERVER_WAIT_MAX)
    lane->wait = pry_time_from_seconds(seconds);
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct pry_alert_lane *lane = user;
  lane->answered += data.size;
  if (lane->answered > ANSWER_MAX) {
    pry_http_cancel(lane->exchange);
    try_ended(lane, "endless answer");
  }
  return PRY_HTTP_CONTINUE;
}

static void on_done(void *user, const struct pry_http_result *result)
{
  try_ended(user, result->message && result->message[0] ? result->message : "no answer");
}

static const struct pry_http_ops exchange_ops = {.on_head = on_head, .on_data = on_data, .on_done = on_done};

static void start_try(struct pry_alert_lane *lane)
{
  const struct pry_alert_delivery *delivery = lane->current;
  lane->tries++;
  lane->status = 0;
  lane->wait = 0;
  lane->answered = 0;
  arm(lane, TRY_LIMIT);
  struct pry_headers headers;
  pry_headers_init(&headers);
  if (pry_headers_add(&headers, PRY_SLICE("content-type"), PRY_SLICE("application/json")) &&
      pry_headers_add(&headers, PRY_SLICE("user-agent"), PRY_SLICE("parry"))) {
    struct pry_http_request request = {.method = "POST",
                                       .url = delivery->url.data,
                                       .headers = &headers,
                                       .body = pry_buffer_slice(&delivery->body),
                                       .has_body = true};
    lane->exchange = pry_http_start(lane->alerts->http, &request, &exchange_ops, lane);
  }
  pry_headers_fini(&headers);
  if (!lane->exchange)
    try_failed(lane, "out of memory");
}

static void lane_due(void *user)
{
  struct pry_alert_lane *lane = user;
  if (!lane->exchange) {
    start_try(lane);
    return;
  }
  pry_http_cancel(lane->exchange);
  try_ended(lane, "no answer in time");
}

const char *pry_alert_delivery_queue(struct pry_alerts *alerts, const char *sink, struct pry_alert_delivery *delivery,
                                     unsigned long count)
{
  struct pry_alert_lane *lane = find_or_make_lane(alerts, sink);
  if (!lane)
    return "out of memory";
  if (lane->count >= PRY_ALERT_QUEUE_MAX)
    return "queue full";
  finish_body(delivery, count);
  pry_list_push(&lane->deliveries, &delivery->link);
  lane->count++;
  if (!lane->begun)
    pry_mailbox_post(alerts->mailbox, &alerts->new_lanes);
  return NULL;
}

static void begin_lane(struct pry_alert_lane *lane)
{
  if (pry_timer_start(lane->alerts->loop, &lane->timer, PRY_TIME_NEVER, lane_due, lane)) {
    start_try(lane);
    return;
  }
  do
    lose_delivery(lane, "dropped", "out of memory");
  while (next_delivery(lane));
}

static struct pry_alert_lane *take_new_lane(struct pry_alerts *alerts)
{
  struct pry_alert_lane *found = NULL;
  pthread_mutex_lock(&alerts->lock);
  for (struct pry_list *link = alerts->lanes.next; link != &alerts->lanes; link = link->next) {
    struct pry_alert_lane *lane = PRY_CONTAINER_OF(link, struct pry_alert_lane, link);
    if (!lane->begun) {
      found = lane;
      break;
    }
  }
  if (found) {
    found->begun = true;
    found->current = take_first(found);
  }
  pthread_mutex_unlock(&alerts->lock);
  return found;
}

void pry_alert_begin_lanes(struct pry_message *message)
{
  struct pry_alerts *alerts = PRY_CONTAINER_OF(message, struct pry_alerts, new_lanes);
  for (struct pry_alert_lane *lane; (lane = take_new_lane(alerts));)
    begin_lane(lane);
}
