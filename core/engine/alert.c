#include "alert.h"

#include "list.h"
#include "retry_after.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>

#define TRY_LIMIT (10 * PRY_SECOND)
#define REPEAT_DEFAULT (3600 * PRY_SECOND)

/* An alert that was lost is worth another try when it is told again, but not at the rate of the failing calls. */
#define RETELL_AFTER_LOSS (60 * PRY_SECOND)

enum { ANSWER_MAX = 64 * 1024, SERVER_WAIT_MAX = 60 };

static const pry_time pauses[] = {1 * PRY_SECOND, 4 * PRY_SECOND, 16 * PRY_SECOND};
enum { TRIES_MAX = 1 + sizeof pauses / sizeof *pauses };

/* A key that was raised and not resolved. */
struct open_alert {
  struct pry_table_node node; /* its key is `key` below */
  struct pry_list link;       /* told longest ago first */
  unsigned long count;
  pry_time quiet_until;
  bool undeliverable; /* the sink's secret is missing, which was said once */
  char key[];         /* sink, NUL, dedupe key */
};

/* One POST to come. */
struct delivery {
  struct pry_list link;
  struct pry_buffer url, body, key; /* url and key NUL-terminated; key as in struct open_alert */
};

/* The deliveries to one sink, one at a time. Exists while there are any. */
struct lane {
  struct pry_list link;
  struct pry_alerts *alerts;
  struct pry_list deliveries;
  size_t count;
  struct pry_timer timer; /* runs all the time: parked, until the next try, or the limit of this one */
  struct pry_http_exchange *exchange;
  unsigned tries;  /* of the first delivery */
  int status;      /* of the answer; 0: none yet */
  pry_time wait;   /* what the answer asked for */
  size_t answered; /* bytes of body */
  char sink[];
};

struct pry_alerts {
  struct pry_loop *loop;
  struct pry_http *http;
  struct pry_log *log;
  struct pry_metrics *metrics;
  struct pry_scrubber *scrubber;
  struct pry_table table; /* of open alerts */
  struct pry_list open;   /* the same, told longest ago first */
  struct pry_list lanes;
};

struct pry_alerts *pry_alerts_new(struct pry_loop *loop, struct pry_http *http, struct pry_log *log,
                                  struct pry_metrics *metrics, struct pry_scrubber *scrubber)
{
  struct pry_alerts *alerts = malloc(sizeof *alerts);
  if (!alerts)
    return NULL;
  *alerts = (struct pry_alerts){.loop = loop, .http = http, .log = log, .metrics = metrics, .scrubber = scrubber};
  pry_list_init(&alerts->open);
  pry_list_init(&alerts->lanes);
  if (!pry_table_init(&alerts->table)) {
    pry_alerts_free(alerts);
    return NULL;
  }
  return alerts;
}

/* ---- open alerts --------------------------------------------------------------------------------------- */

static bool make_key(struct pry_buffer *key, const char *sink, struct pry_slice name)
{
  return pry_buffer_append(key, sink, strlen(sink) + 1) && pry_buffer_append_slice(key, name);
}

static struct open_alert *find_open(struct pry_alerts *alerts, struct pry_slice key)
{
  struct pry_table_node *node = pry_table_find(&alerts->table, key);
  return node ? PRY_CONTAINER_OF(node, struct open_alert, node) : NULL;
}

static void close_alert(struct pry_alerts *alerts, struct open_alert *open)
{
  pry_table_remove(&alerts->table, &open->node);
  pry_list_remove(&open->link);
  free(open);
}

static struct open_alert *open_alert(struct pry_alerts *alerts, struct pry_slice key)
{
  struct open_alert *open = find_open(alerts, key);
  if (!open) {
    open = calloc(1, sizeof *open + key.size);
    if (!open)
      return NULL;
    if (alerts->table.count >= PRY_ALERTS_OPEN_MAX)
      close_alert(alerts, PRY_CONTAINER_OF(alerts->open.next, struct open_alert, link));
    memcpy(open->key, key.data, key.size);
    open->node.key = (struct pry_slice){open->key, key.size};
    pry_list_init(&open->link);
    pry_table_add(&alerts->table, &open->node);
  }
  pry_list_remove(&open->link);
  pry_list_push(&alerts->open, &open->link);
  return open;
}

/* ---- what became of an alert --------------------------------------------------------------------------- */

static struct pry_slice name_in_key(struct pry_slice key)
{
  size_t sink_size = strnlen(key.data, key.size) + 1;
  return (struct pry_slice){key.data + sink_size, key.size - sink_size};
}

static void note_loss(struct pry_alerts *alerts, const char *sink, struct pry_slice key, const char *result,
                      const char *why)
{
  pry_metrics_add(alerts->metrics, PRY_M_ALERTS, sink, result, 1);
  pry_log(alerts->log, PRY_LOG_ERROR, "alert not delivered", pry_log_text("sink", sink),
          pry_log_slice("key", name_in_key(key)), pry_log_text("result", result), pry_log_text("why", why));
  struct open_alert *open = find_open(alerts, key);
  if (open)
    open->quiet_until = pry_loop_now(alerts->loop) + RETELL_AFTER_LOSS;
}

/* ---- deliveries ---------------------------------------------------------------------------------------- */

static void free_delivery(struct delivery *delivery)
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

static bool append_body(struct pry_alerts *alerts, struct pry_buffer *body, const struct pry_alert *alert,
                        unsigned long count)
{
  return pry_buffer_append_text(body, "{") && append_member(alerts, body, "key", alert->key) &&
         append_member(alerts, body, "text", alert->text) &&
         append_member(alerts, body, "state", alert->resolve ? PRY_SLICE("resolved") : PRY_SLICE("firing")) &&
         (!alert->generation || append_member(alerts, body, "generation", pry_slice_of(alert->generation))) &&
         pry_buffer_append_format(body, "\"count\":%lu,\"time\":%.3f,\"source\":\"parry\"}", count,
                                  pry_loop_unix_time(alerts->loop));
}

static struct delivery *new_delivery(struct pry_alerts *alerts, const struct pry_sink_config *sink,
                                     const struct pry_alert *alert, struct pry_slice key, unsigned long count)
{
  struct delivery *delivery = calloc(1, sizeof *delivery);
  if (!delivery)
    return NULL;
  pry_list_init(&delivery->link);
  if (pry_buffer_append_text(&delivery->url, sink->url->value) && pry_buffer_text(&delivery->url) &&
      pry_buffer_append_slice(&delivery->key, key) && append_body(alerts, &delivery->body, alert, count))
    return delivery;
  free_delivery(delivery);
  return NULL;
}

/* ---- lanes --------------------------------------------------------------------------------------------- */

static void lane_due(void *user);

/* The timer runs from the lane's beginning, and in its own callback its place in the loop's heap is still there: it
 * cannot fail. */
static void arm(struct lane *lane, pry_time delay)
{
  pry_timer_start(lane->alerts->loop, &lane->timer, delay, lane_due, lane);
}

static struct lane *find_lane(struct pry_alerts *alerts, const char *sink)
{
  for (struct pry_list *link = alerts->lanes.next; link != &alerts->lanes; link = link->next) {
    struct lane *lane = PRY_CONTAINER_OF(link, struct lane, link);
    if (strcmp(lane->sink, sink) == 0)
      return lane;
  }
  return NULL;
}

static struct lane *find_or_make_lane(struct pry_alerts *alerts, const char *sink)
{
  struct lane *lane = find_lane(alerts, sink);
  if (lane)
    return lane;
  size_t size = strlen(sink) + 1;
  lane = calloc(1, sizeof *lane + size);
  if (!lane)
    return NULL;
  lane->alerts = alerts;
  memcpy(lane->sink, sink, size);
  pry_list_init(&lane->deliveries);
  if (!pry_timer_start(alerts->loop, &lane->timer, PRY_TIME_NEVER, lane_due, lane)) {
    free(lane);
    return NULL;
  }
  pry_list_push(&alerts->lanes, &lane->link);
  return lane;
}

static struct delivery *first_delivery(const struct lane *lane)
{
  return PRY_CONTAINER_OF(lane->deliveries.next, struct delivery, link);
}

static void pop_delivery(struct lane *lane)
{
  struct delivery *delivery = first_delivery(lane);
  pry_list_remove(&delivery->link);
  lane->count--;
  lane->tries = 0;
  free_delivery(delivery);
}

static void free_lane(struct lane *lane)
{
  if (lane->exchange)
    pry_http_cancel(lane->exchange);
  pry_timer_cancel(&lane->timer);
  while (lane->count)
    pop_delivery(lane);
  pry_list_remove(&lane->link);
  free(lane);
}

static void next_delivery(struct lane *lane)
{
  pop_delivery(lane);
  if (lane->count)
    arm(lane, 0);
  else
    free_lane(lane);
}

/* A 4xx says that the request is wrong, and it will not get better, except where it says "not now". */
static bool is_final(int status)
{
  return status >= 400 && status < 500 && status != 408 && status != 425 && status != 429;
}

static void try_failed(struct lane *lane, const char *why)
{
  if (lane->tries >= TRIES_MAX || is_final(lane->status)) {
    note_loss(lane->alerts, lane->sink, pry_buffer_slice(&first_delivery(lane)->key), "failed", why);
    next_delivery(lane);
    return;
  }
  pry_time pause = pauses[lane->tries - 1];
  arm(lane, lane->wait > pause ? lane->wait : pause);
}

/* The status decides: a sink that answered 2xx has the alert, however its answer ended. */
static void try_ended(struct lane *lane, const char *why)
{
  lane->exchange = NULL;
  if (lane->status < 200 || lane->status > 299) {
    char status_text[32];
    snprintf(status_text, sizeof status_text, "status %d", lane->status);
    try_failed(lane, lane->status ? status_text : why);
    return;
  }
  pry_metrics_add(lane->alerts->metrics, PRY_M_ALERTS, lane->sink, "delivered", 1);
  next_delivery(lane);
}

static void on_head(void *user, int status, const struct pry_headers *headers)
{
  struct lane *lane = user;
  lane->status = status;
  double seconds;
  if (pry_retry_after(headers, pry_loop_unix_time(lane->alerts->loop), &seconds) && seconds <= SERVER_WAIT_MAX)
    lane->wait = pry_time_from_seconds(seconds);
}

static enum pry_http_flow on_data(void *user, struct pry_slice data)
{
  struct lane *lane = user;
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

static void start_try(struct lane *lane)
{
  const struct delivery *delivery = first_delivery(lane);
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
  struct lane *lane = user;
  if (!lane->exchange) {
    start_try(lane);
    return;
  }
  pry_http_cancel(lane->exchange);
  try_ended(lane, "no answer in time");
}

/* NULL, or why it could not be queued. */
static const char *queue_delivery(struct pry_alerts *alerts, const struct pry_sink_config *sink,
                                  const struct pry_alert *alert, struct pry_slice key, unsigned long count)
{
  struct lane *lane = find_or_make_lane(alerts, sink->name);
  if (!lane)
    return "out of memory";
  if (lane->count >= PRY_ALERT_QUEUE_MAX)
    return "queue full";
  struct delivery *delivery = new_delivery(alerts, sink, alert, key, count);
  if (!delivery) {
    if (!lane->count)
      free_lane(lane);
    return "out of memory";
  }
  pry_list_push(&lane->deliveries, &delivery->link);
  if (++lane->count == 1)
    arm(lane, 0);
  return NULL;
}

/* ---- the alerts ---------------------------------------------------------------------------------------- */

static void tell(struct pry_alerts *alerts, const struct pry_sink_config *sink, const struct pry_alert *alert,
                 struct pry_slice key, unsigned long count)
{
  const char *why = queue_delivery(alerts, sink, alert, key, count);
  if (why)
    note_loss(alerts, sink->name, key, "dropped", why);
}

static void resolve(struct pry_alerts *alerts, const struct pry_sink_config *sink, const struct pry_alert *alert,
                    struct pry_slice key)
{
  struct open_alert *open = find_open(alerts, key);
  if (!open)
    return;
  unsigned long count = open->count;
  bool deliverable = sink->url && sink->url->value;
  close_alert(alerts, open);
  if (deliverable)
    tell(alerts, sink, alert, key, count);
}

static void raise_alert(struct pry_alerts *alerts, const struct pry_sink_config *sink, const struct pry_alert *alert,
                        struct pry_slice key)
{
  struct open_alert *open = open_alert(alerts, key);
  if (!open) {
    note_loss(alerts, sink->name, key, "dropped", "out of memory");
    return;
  }
  open->count++;
  if (!sink->url || !sink->url->value) {
    if (!open->undeliverable)
      note_loss(alerts, sink->name, key, "no_secret", "the sink's secret is missing");
    open->undeliverable = true;
    return;
  }
  pry_time now = pry_loop_now(alerts->loop);
  if (!open->undeliverable && now < open->quiet_until)
    return;
  open->undeliverable = false;
  open->quiet_until = now + (alert->repeat > 0 ? alert->repeat : REPEAT_DEFAULT);
  tell(alerts, sink, alert, key, open->count);
}

void pry_alerts_notify(struct pry_alerts *alerts, const struct pry_sink_config *sink, const struct pry_alert *alert)
{
  struct pry_buffer key;
  pry_buffer_init(&key, 0);
  if (!make_key(&key, sink->name, alert->key))
    pry_metrics_add(alerts->metrics, PRY_M_ALERTS, sink->name, "dropped", 1);
  else if (alert->resolve)
    resolve(alerts, sink, alert, pry_buffer_slice(&key));
  else
    raise_alert(alerts, sink, alert, pry_buffer_slice(&key));
  pry_buffer_fini(&key);
}

size_t pry_alerts_queued(const struct pry_alerts *alerts)
{
  size_t queued = 0;
  for (struct pry_list *link = alerts->lanes.next; link != &alerts->lanes; link = link->next)
    queued += PRY_CONTAINER_OF(link, struct lane, link)->count;
  return queued;
}

size_t pry_alerts_open(const struct pry_alerts *alerts)
{
  return alerts->table.count;
}

void pry_alerts_free(struct pry_alerts *alerts)
{
  if (!alerts)
    return;
  while (!pry_list_empty(&alerts->lanes))
    free_lane(PRY_CONTAINER_OF(alerts->lanes.next, struct lane, link));
  while (!pry_list_empty(&alerts->open))
    close_alert(alerts, PRY_CONTAINER_OF(alerts->open.next, struct open_alert, link));
  pry_table_fini(&alerts->table);
  free(alerts);
}
