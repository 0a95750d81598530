#include "alert.h"

#include "list.h"
#include "retry_after.h"
#include "table.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define TRY_LIMIT (10 * PRY_SECOND)
#define REPEAT_DEFAULT (3600 * PRY_SECOND)

/* An alert that was lost is worth another try when it is told again, but not at the rate of the failing calls. */
#define RETELL_AFTER_LOSS (60 * PRY_SECOND)

/* TAIL: the numbers at the end of a body, the longest there are. */
enum { ANSWER_MAX = 64 * 1024, SERVER_WAIT_MAX = 60, TAIL_MAX = 512 };

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
  struct pry_buffer url, body, key; /* the URL NUL-terminated; key as in struct open_alert */
  double time;                      /* Unix seconds */
};

/* The deliveries to one sink, one at a time. Exists while there are any. */
struct lane {
  struct pry_alerts *alerts;
  /* the lock's */
  struct pry_list link;
  struct pry_list deliveries; /* without the current one */
  size_t count;               /* with it */
  bool begun;                 /* the control worker knows it */
  /* the control worker's */
  struct delivery *current; /* NULL: none was begun */
  struct pry_timer timer;   /* runs all the time: until the next try, or the limit of this one */
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

static void begin_lanes(struct pry_message *message);

struct pry_alerts *pry_alerts_new(struct pry_mailbox *mailbox, struct pry_http *http, struct pry_log *log,
                                  struct pry_metrics *metrics, struct pry_scrubber *scrubber)
{
  struct pry_alerts *alerts = malloc(sizeof *alerts);
  if (!alerts)
    return NULL;
  *alerts = (struct pry_alerts){.mailbox = mailbox,
                                .loop = pry_mailbox_loop(mailbox),
                                .http = http,
                                .log = log,
                                .metrics = metrics,
                                .scrubber = scrubber,
                                .new_lanes.deliver = begin_lanes};
  pry_list_init(&alerts->open);
  pry_list_init(&alerts->lanes);
  pthread_mutex_init(&alerts->lock, NULL); /* cannot fail without attributes on Linux */
  if (!pry_table_init(&alerts->table)) {
    pry_alerts_free(alerts);
    return NULL;
  }
  return alerts;
}

/* ---- open alerts, all with the lock held --------------------------------------------------------------- */

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

static void say_loss(struct pry_alerts *alerts, const char *sink, struct pry_slice key, const char *result,
                     const char *why)
{
  pry_metrics_add(alerts->metrics, PRY_M_ALERTS, sink, result, 1);
  pry_log(alerts->log, PRY_LOG_ERROR, "alert not delivered", pry_log_text("sink", sink),
          pry_log_slice("key", name_in_key(key)), pry_log_text("result", result), pry_log_text("why", why));
}

/* With the lock held. */
static void quiet_after_loss(struct pry_alerts *alerts, struct pry_slice key, pry_time now)
{
  struct open_alert *open = find_open(alerts, key);
  if (open)
    open->quiet_until = now + RETELL_AFTER_LOSS;
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

static bool append_body(struct pry_alerts *alerts, struct pry_buffer *body, const struct pry_alert *alert)
{
  return pry_buffer_append_text(body, "{") && append_member(alerts, body, "key", alert->key) &&
         append_member(alerts, body, "text", alert->text) &&
         append_member(alerts, body, "state", alert->resolve ? PRY_SLICE("resolved") : PRY_SLICE("firing")) &&
         (!alert->generation || append_member(alerts, body, "generation", pry_slice_of(alert->generation))) &&
         pry_buffer_reserve(body, TAIL_MAX);
}

/* The count is known only when the alert is queued. There is room for it: this cannot fail. */
static void finish_body(struct delivery *delivery, unsigned long count)
{
  pry_buffer_append_format(&delivery->body, "\"count\":%lu,\"time\":%.3f,\"source\":\"parry\"}", count, delivery->time);
}

static struct delivery *new_delivery(struct pry_alerts *alerts, const struct pry_loop *loop,
                                     const struct pry_sink_config *sink, const struct pry_alert *alert,
                                     struct pry_slice key)
{
  struct delivery *delivery = calloc(1, sizeof *delivery);
  if (!delivery)
    return NULL;
  pry_list_init(&delivery->link);
  delivery->time = pry_loop_unix_time(loop);
  if (pry_buffer_append_text(&delivery->url, sink->url->value) && pry_buffer_text(&delivery->url) &&
      pry_buffer_append_slice(&delivery->key, key) && append_body(alerts, &delivery->body, alert))
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

/* Locked. */
static struct lane *find_lane(struct pry_alerts *alerts, const char *sink)
{
  for (struct pry_list *link = alerts->lanes.next; link != &alerts->lanes; link = link->next) {
    struct lane *lane = PRY_CONTAINER_OF(link, struct lane, link);
    if (strcmp(lane->sink, sink) == 0)
      return lane;
  }
  return NULL;
}

/* Locked. */
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
  pry_list_push(&alerts->lanes, &lane->link);
  return lane;
}

/* Locked. */
static struct delivery *take_first(struct lane *lane)
{
  struct delivery *delivery = PRY_CONTAINER_OF(lane->deliveries.next, struct delivery, link);
  pry_list_remove(&delivery->link);
  return delivery;
}

/* It is in no list any more. */
static void free_lane(struct lane *lane)
{
  if (lane->exchange)
    pry_http_cancel(lane->exchange);
  pry_timer_cancel(&lane->timer);
  free_delivery(lane->current);
  while (!pry_list_empty(&lane->deliveries))
    free_delivery(take_first(lane));
  free(lane);
}

/* Ends the current delivery. False: there was no other, and the lane is gone. */
static bool next_delivery(struct lane *lane)
{
  free_delivery(lane->current);
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
    free_lane(lane);
  return more;
}

static void lose_delivery(struct lane *lane, const char *result, const char *why)
{
  struct pry_alerts *alerts = lane->alerts;
  struct pry_slice key = pry_buffer_slice(&lane->current->key);
  pthread_mutex_lock(&alerts->lock);
  quiet_after_loss(alerts, key, pry_loop_now(alerts->loop));
  pthread_mutex_unlock(&alerts->lock);
  say_loss(alerts, lane->sink, key, result, why);
}

static void go_on(struct lane *lane)
{
  if (next_delivery(lane))
    arm(lane, 0);
}

/* A 4xx says that the request is wrong, and it will not get better, except where it says "not now". */
static bool is_final(int status)
{
  return status >= 400 && status < 500 && status != 408 && status != 425 && status != 429;
}

static void try_failed(struct lane *lane, const char *why)
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
  go_on(lane);
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
  const struct delivery *delivery = lane->current;
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

static void begin_lane(struct lane *lane)
{
  if (pry_timer_start(lane->alerts->loop, &lane->timer, PRY_TIME_NEVER, lane_due, lane)) {
    start_try(lane);
    return;
  }
  do
    lose_delivery(lane, "dropped", "out of memory");
  while (next_delivery(lane));
}

static struct lane *take_new_lane(struct pry_alerts *alerts)
{
  struct lane *found = NULL;
  pthread_mutex_lock(&alerts->lock);
  for (struct pry_list *link = alerts->lanes.next; link != &alerts->lanes && !found; link = link->next) {
    struct lane *lane = PRY_CONTAINER_OF(link, struct lane, link);
    if (lane->begun)
      continue;
    lane->begun = true;
    lane->current = take_first(lane);
    found = lane;
  }
  pthread_mutex_unlock(&alerts->lock);
  return found;
}

static void begin_lanes(struct pry_message *message)
{
  struct pry_alerts *alerts = PRY_CONTAINER_OF(message, struct pry_alerts, new_lanes);
  for (struct lane *lane; (lane = take_new_lane(alerts));)
    begin_lane(lane);
}

/* ---- notifying, on any worker ---------------------------------------------------------------------------- */

/* One notification. */
struct errand {
  struct pry_alerts *alerts;
  const struct pry_sink_config *sink;
  const struct pry_alert *alert;
  struct pry_slice key;
  pry_time now;
  struct delivery *delivery; /* made before it is queued; NULL: not needed so far, or no memory */
  const char *result, *why;  /* what was lost and why; NULL: nothing */
};

static bool deliverable(const struct errand *errand)
{
  return errand->sink->url && errand->sink->url->value;
}

static void lose(struct errand *errand, const char *result, const char *why)
{
  errand->result = result;
  errand->why = why;
  quiet_after_loss(errand->alerts, errand->key, errand->now);
}

static void queue_delivery(struct errand *errand, unsigned long count)
{
  struct pry_alerts *alerts = errand->alerts;
  struct lane *lane = errand->delivery ? find_or_make_lane(alerts, errand->sink->name) : NULL;
  if (!lane) {
    lose(errand, "dropped", "out of memory");
    return;
  }
  if (lane->count >= PRY_ALERT_QUEUE_MAX) {
    lose(errand, "dropped", "queue full");
    return;
  }
  finish_body(errand->delivery, count);
  pry_list_push(&lane->deliveries, &errand->delivery->link);
  lane->count++;
  errand->delivery = NULL;
  if (!lane->begun)
    pry_mailbox_post(alerts->mailbox, &alerts->new_lanes);
}

static void resolve(struct errand *errand)
{
  struct open_alert *open = find_open(errand->alerts, errand->key);
  if (!open)
    return;
  unsigned long count = open->count;
  close_alert(errand->alerts, open);
  if (deliverable(errand))
    queue_delivery(errand, count);
}

static void raise_alert(struct errand *errand)
{
  struct open_alert *open = open_alert(errand->alerts, errand->key);
  if (!open) {
    lose(errand, "dropped", "out of memory");
    return;
  }
  open->count++;
  if (!deliverable(errand)) {
    if (!open->undeliverable)
      lose(errand, "no_secret", "the sink's secret is missing");
    open->undeliverable = true;
    return;
  }
  if (!open->undeliverable && errand->now < open->quiet_until)
    return;
  open->undeliverable = false;
  open->quiet_until = errand->now + (errand->alert->repeat > 0 ? errand->alert->repeat : REPEAT_DEFAULT);
  queue_delivery(errand, open->count);
}

static bool needs_delivery(const struct errand *errand)
{
  const struct open_alert *open = find_open(errand->alerts, errand->key);
  if (!deliverable(errand))
    return false;
  return errand->alert->resolve ? open != NULL : !open || open->undeliverable || errand->now >= open->quiet_until;
}

/* False: a delivery has to be made first, which takes memory and the scrubber: not with the lock held. */
static bool run_errand(struct errand *errand, bool tried)
{
  pthread_mutex_lock(&errand->alerts->lock);
  bool run = tried || !needs_delivery(errand);
  if (run && errand->alert->resolve)
    resolve(errand);
  else if (run)
    raise_alert(errand);
  pthread_mutex_unlock(&errand->alerts->lock);
  return run;
}

void pry_alerts_notify(struct pry_alerts *alerts, const struct pry_loop *loop, const struct pry_sink_config *sink,
                       const struct pry_alert *alert)
{
  struct pry_buffer key;
  pry_buffer_init(&key, 0);
  if (!make_key(&key, sink->name, alert->key)) {
    pry_metrics_add(alerts->metrics, PRY_M_ALERTS, sink->name, "dropped", 1);
    return;
  }
  struct errand errand = {
      .alerts = alerts, .sink = sink, .alert = alert, .key = pry_buffer_slice(&key), .now = pry_loop_now(loop)};
  if (!run_errand(&errand, false)) {
    errand.delivery = new_delivery(alerts, loop, sink, alert, errand.key);
    run_errand(&errand, true); /* it may not be needed any more: then somebody else told it meanwhile */
  }
  if (errand.result)
    say_loss(alerts, sink->name, errand.key, errand.result, errand.why);
  free_delivery(errand.delivery);
  pry_buffer_fini(&key);
}

/* ---- the alerts ---------------------------------------------------------------------------------------- */

size_t pry_alerts_queued(struct pry_alerts *alerts)
{
  size_t queued = 0;
  pthread_mutex_lock(&alerts->lock);
  for (struct pry_list *link = alerts->lanes.next; link != &alerts->lanes; link = link->next)
    queued += PRY_CONTAINER_OF(link, struct lane, link)->count;
  pthread_mutex_unlock(&alerts->lock);
  return queued;
}

size_t pry_alerts_open(struct pry_alerts *alerts)
{
  pthread_mutex_lock(&alerts->lock);
  size_t count = alerts->table.count;
  pthread_mutex_unlock(&alerts->lock);
  return count;
}

void pry_alerts_free(struct pry_alerts *alerts)
{
  if (!alerts)
    return;
  pry_mailbox_withdraw(alerts->mailbox, &alerts->new_lanes);
  while (!pry_list_empty(&alerts->lanes)) {
    struct lane *lane = PRY_CONTAINER_OF(alerts->lanes.next, struct lane, link);
    pry_list_remove(&lane->link);
    free_lane(lane);
  }
  while (!pry_list_empty(&alerts->open))
    close_alert(alerts, PRY_CONTAINER_OF(alerts->open.next, struct open_alert, link));
  pry_table_fini(&alerts->table);
  pthread_mutex_destroy(&alerts->lock);
  free(alerts);
}
