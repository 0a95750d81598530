#include "alert_internal.h"

#include <stdlib.h>

#define REPEAT_DEFAULT (3600 * PRY_SECOND)

/* An alert that was lost is worth another try when it is told again, but not at the rate of the failing calls. */
#define RETELL_AFTER_LOSS (60 * PRY_SECOND)

/* An alert that nobody has raised for so long is no news any more, and nobody will say that it is over. */
#define STALE_AFTER (24 * 3600 * PRY_SECOND)

enum { CAUSES_MAX = 8, CAUSE_BYTES = 100 };

/* Whom an alert concerns: exact as long as they are few. */
struct distinct {
  uint64_t hashes[PRY_NOTE_MANY];
  unsigned count;
};

/* The most frequent causes: when there are too many, the rarest makes room and bequeaths its count, so that a frequent one
 * is never missed (the space-saving algorithm; Metwally, Agrawal and El Abbadi, 2005). */
struct cause {
  unsigned long count;
  char text[CAUSE_BYTES];
};

/* A key that was raised and not resolved. Its texts are those it was raised with last. */
struct open_alert {
  struct pry_table_node node; /* its key is `key` below */
  struct pry_list link;       /* raised longest ago first */
  unsigned long count, told_count;
  unsigned told; /* times */
  pry_time quiet_until, raised;
  pry_time heard_until; /* the listener is not told again before */
  unsigned long heard_count;
  unsigned heard; /* times */
  double opened;
  bool undeliverable; /* what was missing was said once */
  enum pry_alert_severity severity;
  struct distinct clients, sessions;
  struct cause causes[CAUSES_MAX];
  char shown_key[PRY_NOTE_LINE_MAX], title[PRY_NOTE_LINE_MAX], sample[PRY_NOTE_LINE_MAX];
  char text[PRY_NOTE_TEXT_MAX + 1];
  char key[]; /* sink, NUL, dedupe key */
};

struct pry_alerts *pry_alerts_new(struct pry_mailbox *mailbox, struct pry_http *http, struct pry_log *log,
                                  struct pry_metrics *metrics, struct pry_scrubber *scrubber)
{
  struct pry_alerts *alerts = malloc(sizeof *alerts);
  if (!alerts)
    return NULL;
  *alerts = (struct pry_alerts){.mailbox = mailbox,
                                .loop = pry_mailbox_loop(mailbox),
                                .log = log,
                                .metrics = metrics,
                                .scrubber = scrubber,
                                .means = {.http = http, .scrubber = scrubber},
                                .wake.deliver = pry_alert_wake_lanes};
  alerts->means.loop = alerts->loop;
  pry_list_init(&alerts->open);
  pry_list_init(&alerts->lanes);
  pry_list_init(&alerts->tests);
  pthread_mutex_init(&alerts->lock, NULL); /* cannot fail without attributes on Linux */
  alerts->means.mailer = pry_mailer_new(mailbox);
  if (!pry_table_init(&alerts->table) || !alerts->means.mailer || !pry_hash_seed(alerts->seed)) {
    pry_alerts_free(alerts);
    return NULL;
  }
  return alerts;
}

void pry_alerts_set_mailer(struct pry_alerts *alerts, struct pry_mailer *mailer)
{
  pry_mailer_free(alerts->means.mailer);
  alerts->means.mailer = mailer;
}

void pry_alerts_set_listener(struct pry_alerts *alerts, pry_alert_listener listener, void *user)
{
  alerts->listener = listener;
  alerts->listener_user = user;
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

static void forget_stale(struct pry_alerts *alerts, pry_time now)
{
  while (!pry_list_empty(&alerts->open)) {
    struct open_alert *oldest = PRY_CONTAINER_OF(alerts->open.next, struct open_alert, link);
    if (now - oldest->raised < STALE_AFTER)
      return;
    close_alert(alerts, oldest);
  }
}

static struct open_alert *open_alert(struct pry_alerts *alerts, struct pry_slice key, double unix_time)
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
    open->opened = unix_time;
    pry_list_init(&open->link);
    pry_table_add(&alerts->table, &open->node);
  }
  return open;
}

static void count_distinct(const struct pry_alerts *alerts, struct distinct *distinct, struct pry_slice name)
{
  if (!name.size || distinct->count >= PRY_NOTE_MANY)
    return;
  uint64_t hash = pry_hash(alerts->seed, name);
  for (unsigned i = 0; i < distinct->count; i++)
    if (distinct->hashes[i] == hash)
      return;
  distinct->hashes[distinct->count++] = hash;
}

static void count_cause(struct open_alert *open, const char *text, unsigned long count)
{
  struct cause *rarest = &open->causes[0];
  size_t size = strnlen(text, CAUSE_BYTES - 1);
  if (!size)
    return;
  for (size_t i = 0; i < CAUSES_MAX; i++) {
    struct cause *cause = &open->causes[i];
    if (strncmp(cause->text, text, CAUSE_BYTES - 1) == 0) {
      cause->count += count;
      return;
    }
    if (cause->count < rarest->count)
      rarest = cause;
  }
  rarest->count += count;
  memset(rarest->text, 0, CAUSE_BYTES);
  memcpy(rarest->text, text, size);
}

static const struct cause *top_cause(const struct open_alert *open)
{
  const struct cause *top = &open->causes[0];
  for (size_t i = 1; i < CAUSES_MAX; i++)
    if (open->causes[i].count > top->count)
      top = &open->causes[i];
  return top;
}

/* ---- what became of an alert --------------------------------------------------------------------------- */

void pry_alerts_say_loss(struct pry_alerts *alerts, const char *sink, const char *key, const char *result,
                         const char *why)
{
  pry_metrics_add(alerts->metrics, PRY_M_ALERTS, sink, result, 1);
  pry_log(alerts->log, PRY_LOG_ERROR, "alert not delivered", pry_log_text("sink", sink), pry_log_text("key", key),
          pry_log_text("result", result), pry_log_text("why", why));
}

void pry_alerts_quiet_after_loss(struct pry_alerts *alerts, struct pry_slice key, pry_time now)
{
  struct open_alert *open = find_open(alerts, key);
  if (!open)
    return;
  open->quiet_until = now + RETELL_AFTER_LOSS;
  open->told = 0;
}

/* ---- notifying, on any worker ---------------------------------------------------------------------------- */

/* One notification. */
struct errand {
  struct pry_alerts *alerts;
  const struct pry_sink_config *sink; /* NULL: there is only the listener */
  const char *sink_name;
  const struct pry_alert *alert;
  struct pry_slice key;
  pry_time now;
  double unix_time;
  struct pry_note *heard;        /* what the listener is told; NULL: there is none */
  bool hearing;                  /* it is told something */
  const char *complaint;         /* why nothing can be sent; NULL: it can */
  struct pry_alert_entry *entry; /* what there is to tell; taken by the queue */
  const char *result, *why;      /* what was lost and why; NULL: nothing */
};

static void lose(struct errand *errand, const char *result, const char *why)
{
  errand->result = result;
  errand->why = why;
  pry_alerts_quiet_after_loss(errand->alerts, errand->key, errand->now);
}

static bool set_fields(struct pry_scrubber *scrubber, struct pry_note *note, const struct pry_alert *alert)
{
  bool ok = true;
  for (size_t i = 0; ok && i < alert->field_count && i < PRY_NOTE_FIELDS_MAX; i++) {
    struct pry_note_field *field = &note->fields[note->field_count++];
    ok = pry_note_set_line(scrubber, field->name, sizeof field->name, alert->fields[i].name) &&
         pry_note_set_line(scrubber, field->value, sizeof field->value, alert->fields[i].value);
  }
  return ok;
}

static bool set_texts(struct errand *errand, struct pry_note *note)
{
  const struct pry_alert *alert = errand->alert;
  struct pry_scrubber *scrubber = errand->alerts->scrubber;
  return pry_note_set_line(scrubber, note->key, sizeof note->key, alert->key) &&
         pry_note_set_line(scrubber, note->title, sizeof note->title, alert->title) &&
         pry_note_set_line(scrubber, note->cause, sizeof note->cause, alert->cause) &&
         pry_note_set_line(scrubber, note->sample, sizeof note->sample, alert->sample) &&
         pry_note_set_text(scrubber, note->text, sizeof note->text, alert->text) &&
         pry_note_set_line(NULL, note->generation, sizeof note->generation, pry_slice_of(alert->generation)) &&
         set_fields(scrubber, note, alert);
}

/* Takes memory and the scrubber: not with the lock held. */
static bool make_entry(struct errand *errand)
{
  struct pry_alert_entry *entry = errand->entry = calloc(1, sizeof *entry);
  if (!entry)
    return false;
  pry_list_init(&entry->note.link);
  entry->note.time = errand->unix_time;
  entry->note.severity = errand->alert->severity;
  entry->note.queued = errand->now;
  errand->heard = errand->alerts->listener ? malloc(sizeof *errand->heard) : NULL;
  if (set_texts(errand, &entry->note) && pry_buffer_append_slice(&entry->key, errand->key) &&
      (errand->heard || !errand->alerts->listener) &&
      (errand->complaint || !errand->sink || (entry->sink = pry_sink_new(errand->sink))))
    return true;
  pry_alert_entry_free(entry);
  errand->entry = NULL;
  return false;
}

/* Locked, like the rest of this part. The note says what is known of the alert as a whole. */
static void describe(const struct open_alert *open, enum pry_note_state state, struct pry_note *note)
{
  const struct cause *cause = top_cause(open);
  note->state = state;
  note->severity = open->severity;
  note->count = open->count;
  note->opened = open->opened;
  note->clients = open->clients.count;
  note->sessions = open->sessions.count;
  note->cause_count = cause->count;
  memcpy(note->cause, cause->text, CAUSE_BYTES);
  if (!note->title[0])
    memcpy(note->title, open->title, sizeof note->title);
  if (!note->text[0])
    memcpy(note->text, open->text, sizeof note->text);
  if (!note->sample[0])
    memcpy(note->sample, open->sample, sizeof note->sample);
}

/* The listener, whom nothing that is wrong with a sink concerns. */
static void let_hear(struct errand *errand, struct open_alert *open, enum pry_note_state state)
{
  if (!errand->heard)
    return;
  *errand->heard = errand->entry->note;
  describe(open, state, errand->heard);
  errand->heard->since = open->count - open->heard_count;
  errand->hearing = true;
  open->heard_count = open->count;
  open->heard++;
}

static void tell(struct errand *errand, struct open_alert *open, enum pry_note_state state)
{
  describe(open, state, &errand->entry->note);
  errand->entry->note.since = open->count - open->told_count;
  const char *why = pry_alert_lane_queue(errand->alerts, errand->entry);
  if (why) {
    lose(errand, "dropped", why);
    return;
  }
  errand->entry = NULL;
  open->told_count = open->count;
  open->told++;
}

static void resolve(struct errand *errand)
{
  struct open_alert *open = find_open(errand->alerts, errand->key);
  if (!open)
    return;
  let_hear(errand, open, PRY_NOTE_RESOLVED);
  if (errand->entry->sink && !errand->entry->sink->kind->no_resolved)
    tell(errand, open, PRY_NOTE_RESOLVED);
  close_alert(errand->alerts, open);
}

static void remember(struct errand *errand, struct open_alert *open)
{
  const struct pry_note *note = &errand->entry->note;
  unsigned long count = errand->alert->count ? errand->alert->count : 1;
  open->raised = errand->now;
  open->count += count;
  count_cause(open, note->cause, count);
  count_distinct(errand->alerts, &open->clients, errand->alert->client);
  count_distinct(errand->alerts, &open->sessions, errand->alert->session);
  memcpy(open->shown_key, note->key, sizeof open->shown_key);
  if (note->severity != PRY_ALERT_UNSAID)
    open->severity = note->severity;
  if (note->text[0]) {
    memcpy(open->text, note->text, sizeof open->text);
    memcpy(open->title, note->title, sizeof open->title);
  }
  if (note->sample[0])
    memcpy(open->sample, note->sample, sizeof open->sample);
}

static pry_time repeat_of(const struct errand *errand)
{
  return errand->alert->repeat > 0 ? errand->alert->repeat : REPEAT_DEFAULT;
}

static void raise_alert(struct errand *errand)
{
  forget_stale(errand->alerts, errand->now);
  struct open_alert *open = errand->alert->update ? find_open(errand->alerts, errand->key)
                                                  : open_alert(errand->alerts, errand->key, errand->unix_time);
  if (!open) {
    if (!errand->alert->update)
      lose(errand, "dropped", "out of memory");
    return;
  }
  remember(errand, open);
  pry_list_remove(&open->link);
  pry_list_push(&errand->alerts->open, &open->link);
  if (!open->heard || errand->now >= open->heard_until) {
    let_hear(errand, open, open->heard ? PRY_NOTE_AGAIN : PRY_NOTE_OPENED);
    open->heard_until = errand->now + repeat_of(errand);
  }
  if (!errand->sink)
    return;
  if (errand->complaint) {
    if (!open->undeliverable)
      lose(errand, "no_secret", errand->complaint);
    open->undeliverable = true;
    return;
  }
  if (!open->undeliverable && errand->now < open->quiet_until)
    return;
  open->undeliverable = false;
  open->quiet_until = errand->now + repeat_of(errand);
  tell(errand, open, open->told ? PRY_NOTE_AGAIN : PRY_NOTE_OPENED);
}

/* What is not open needs no entry to be resolved or updated. */
static bool concerns_nobody(struct errand *errand)
{
  if (!errand->alert->resolve && !errand->alert->update)
    return false;
  pthread_mutex_lock(&errand->alerts->lock);
  bool open = find_open(errand->alerts, errand->key);
  pthread_mutex_unlock(&errand->alerts->lock);
  return !open;
}

static void run_errand(struct errand *errand)
{
  if (concerns_nobody(errand))
    return;
  bool made = make_entry(errand);
  pthread_mutex_lock(&errand->alerts->lock);
  if (!made)
    lose(errand, "dropped", "out of memory");
  else if (errand->alert->resolve)
    resolve(errand);
  else
    raise_alert(errand);
  pthread_mutex_unlock(&errand->alerts->lock);
}

static void say_what_was_lost(struct errand *errand)
{
  char key[PRY_NOTE_LINE_MAX];
  if (!errand->result)
    return;
  pry_note_set_line(errand->alerts->scrubber, key, sizeof key, errand->alert->key); /* else "" */
  pry_alerts_say_loss(errand->alerts, errand->sink_name, key, errand->result, errand->why);
}

void pry_alerts_notify(struct pry_alerts *alerts, const struct pry_loop *loop, const struct pry_sink_config *sink,
                       const struct pry_alert *alert)
{
  struct pry_buffer key;
  const char *name = sink ? sink->name : "host";
  if (!sink && !alerts->listener)
    return;
  pry_buffer_init(&key, 0);
  if (!make_key(&key, name, alert->key)) {
    pry_metrics_add(alerts->metrics, PRY_M_ALERTS, name, "dropped", 1);
    return;
  }
  struct errand errand = {.alerts = alerts,
                          .sink = sink,
                          .sink_name = name,
                          .alert = alert,
                          .key = pry_buffer_slice(&key),
                          .now = pry_loop_clock(loop), /* a decider is on no thread of the loop's */
                          .unix_time = pry_loop_unix_time(loop),
                          .complaint = sink ? pry_sink_complaint(sink) : NULL};
  run_errand(&errand);
  say_what_was_lost(&errand);
  if (errand.hearing)
    alerts->listener(alerts->listener_user, name, errand.heard);
  free(errand.heard);
  pry_alert_entry_free(errand.entry);
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

static bool append_open(struct pry_buffer *out, const struct open_alert *open)
{
  const struct cause *cause = top_cause(open);
  return pry_buffer_append_text(out, "{") && pry_note_append_member(out, "sink", open->key) &&
         pry_note_append_member(out, "key", open->shown_key) &&
         pry_note_append_member(out, "title", open->title[0] ? open->title : open->text) &&
         (!cause->count || pry_note_append_member(out, "cause", cause->text)) &&
         pry_buffer_append_format(out,
                                  "\"severity\":\"%s\",\"count\":%lu,\"told\":%u,\"opened\":%.3f,\"clients\":%u,"
                                  "\"sessions\":%u}",
                                  pry_alert_severity_name(open->severity), open->count, open->told, open->opened,
                                  open->clients.count, open->sessions.count);
}

bool pry_alerts_list(struct pry_alerts *alerts, struct pry_buffer *out)
{
  bool ok = pry_buffer_append_text(out, "["), first = true;
  pthread_mutex_lock(&alerts->lock);
  for (struct pry_list *link = alerts->open.next; ok && link != &alerts->open; link = link->next) {
    ok = pry_buffer_append_text(out, first ? "" : ",") &&
         append_open(out, PRY_CONTAINER_OF(link, struct open_alert, link));
    first = false;
  }
  pthread_mutex_unlock(&alerts->lock);
  return ok && pry_buffer_append_text(out, "]");
}

void pry_alerts_free(struct pry_alerts *alerts)
{
  if (!alerts)
    return;
  pry_mailbox_withdraw(alerts->mailbox, &alerts->wake);
  pry_alert_tests_cancel(alerts);
  while (!pry_list_empty(&alerts->lanes)) {
    struct pry_alert_lane *lane = PRY_CONTAINER_OF(alerts->lanes.next, struct pry_alert_lane, link);
    pry_list_remove(&lane->link);
    pry_alert_lane_free(lane);
  }
  while (!pry_list_empty(&alerts->open))
    close_alert(alerts, PRY_CONTAINER_OF(alerts->open.next, struct open_alert, link));
  pry_mailer_free(alerts->means.mailer);
  pry_table_fini(&alerts->table);
  pthread_mutex_destroy(&alerts->lock);
  free(alerts);
}
