#include "alert_internal.h"

#include <stdlib.h>

#define REPEAT_DEFAULT (3600 * PRY_SECOND)

/* An alert that was lost is worth another try when it is told again, but not at the rate of the failing calls. */
#define RETELL_AFTER_LOSS (60 * PRY_SECOND)

/* A key that was raised and not resolved. */
struct open_alert {
  struct pry_table_node node; /* its key is `key` below */
  struct pry_list link;       /* told longest ago first */
  unsigned long count;
  pry_time quiet_until;
  bool undeliverable; /* the sink's secret is missing, which was said once */
  char key[];         /* sink, NUL, dedupe key */
};

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
                                .new_lanes.deliver = pry_alert_begin_lanes};
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

void pry_alerts_say_loss(struct pry_alerts *alerts, const char *sink, struct pry_slice key, const char *result,
                         const char *why)
{
  pry_metrics_add(alerts->metrics, PRY_M_ALERTS, sink, result, 1);
  pry_log(alerts->log, PRY_LOG_ERROR, "alert not delivered", pry_log_text("sink", sink),
          pry_log_slice("key", name_in_key(key)), pry_log_text("result", result), pry_log_text("why", why));
}

void pry_alerts_quiet_after_loss(struct pry_alerts *alerts, struct pry_slice key, pry_time now)
{
  struct open_alert *open = find_open(alerts, key);
  if (open)
    open->quiet_until = now + RETELL_AFTER_LOSS;
}

/* ---- notifying, on any worker ---------------------------------------------------------------------------- */

/* One notification. */
struct errand {
  struct pry_alerts *alerts;
  const struct pry_sink_config *sink;
  const struct pry_alert *alert;
  struct pry_slice key;
  pry_time now;
  struct pry_alert_delivery *delivery; /* made before it is queued; NULL: not needed so far, or no memory */
  const char *result, *why;            /* what was lost and why; NULL: nothing */
};

static bool deliverable(const struct errand *errand)
{
  return errand->sink->url && errand->sink->url->value;
}

static void lose(struct errand *errand, const char *result, const char *why)
{
  errand->result = result;
  errand->why = why;
  pry_alerts_quiet_after_loss(errand->alerts, errand->key, errand->now);
}

static void queue_delivery(struct errand *errand, unsigned long count)
{
  const char *why = "out of memory";
  if (errand->delivery)
    why = pry_alert_delivery_queue(errand->alerts, errand->sink->name, errand->delivery, count);
  if (why)
    lose(errand, "dropped", why);
  else
    errand->delivery = NULL;
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
    errand.delivery = pry_alert_delivery_new(alerts, loop, sink, alert, errand.key);
    run_errand(&errand, true); /* it may not be needed any more: then somebody else told it meanwhile */
  }
  if (errand.result)
    pry_alerts_say_loss(alerts, sink->name, errand.key, errand.result, errand.why);
  pry_alert_delivery_free(errand.delivery);
  pry_buffer_fini(&key);
}

/* ---- the alerts ---------------------------------------------------------------------------------------- */

size_t pry_alerts_queued(struct pry_alerts *alerts)
{
  size_t queued = 0;
  pthread_mutex_lock(&alerts->lock);
  for (struct pry_list *link = alerts->lanes.next; link != &alerts->lanes; link = link->next)
    queued += PRY_CONTAINER_OF(link, struct pry_alert_lane, link)->count;
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
    struct pry_alert_lane *lane = PRY_CONTAINER_OF(alerts->lanes.next, struct pry_alert_lane, link);
    pry_list_remove(&lane->link);
    pry_alert_lane_free(lane);
  }
  while (!pry_list_empty(&alerts->open))
    close_alert(alerts, PRY_CONTAINER_OF(alerts->open.next, struct open_alert, link));
  pry_table_fini(&alerts->table);
  pthread_mutex_destroy(&alerts->lock);
  free(alerts);
}
