/* What the engine says of its own: log lines, alerts, metrics. */
#include "parry_internal.h"
#include "plain_locale.h"

#include <stdlib.h>

enum { LINES_MAX = 1024, LINE_BYTES_MAX = 1024 * 1024, ALERTS_MAX = 256 };

struct pry_host_notices {
  struct pry_host *host;
  struct pry_message message; /* there is something */
  pthread_mutex_t lock;       /* of the rest */
  struct pry_list lines, alerts;
  size_t line_count, line_bytes, alert_count;
  unsigned long lines_lost;
};

struct line {
  struct pry_list link;
  enum pry_log_level level;
  size_t size;
  char text[];
};

struct alert {
  struct pry_list link;
  struct pry_note note;
  char sink[];
};

/* ---- telling the host, on its thread ----------------------------------------------------------------------------- */

/* Moves all of one list to another, which is empty. */
static void move_all(struct pry_list *from, struct pry_list *to)
{
  while (!pry_list_empty(from)) {
    struct pry_list *link = from->next;
    pry_list_remove(link);
    pry_list_push(to, link);
  }
}

static void tell_lines(const struct pry_host *host, struct pry_list *lines)
{
  while (!pry_list_empty(lines)) {
    struct line *line = PRY_CONTAINER_OF(lines->next, struct line, link);
    pry_list_remove(&line->link);
    if (host->options.log) /* not when parry_new() has failed */
      host->options.log(host->options.user, (int)line->level, line->text, line->size);
    free(line);
  }
}

static void tell_alerts(const struct pry_host *host, struct pry_list *alerts)
{
  while (!pry_list_empty(alerts)) {
    struct alert *alert = PRY_CONTAINER_OF(alerts->next, struct alert, link);
    const struct pry_note *note = &alert->note;
    const struct parry_alert told = {.size = sizeof told,
                                     .key = note->key,
                                     .sink = alert->sink,
                                     .severity = pry_alert_severity_name(note->severity),
                                     .title = note->title,
                                     .text = note->text,
                                     .cause = note->cause,
                                     .resolved = note->state == PRY_NOTE_RESOLVED,
                                     .count = note->count};
    pry_list_remove(&alert->link);
    if (host->options.alert)
      host->options.alert(host->options.user, &told);
    free(alert);
  }
}

static void tell_host(struct pry_message *message)
{
  struct pry_host_notices *notices = PRY_CONTAINER_OF(message, struct pry_host_notices, message);
  struct pry_list lines, alerts;
  pry_list_init(&lines);
  pry_list_init(&alerts);
  pthread_mutex_lock(&notices->lock);
  move_all(&notices->lines, &lines);
  move_all(&notices->alerts, &alerts);
  notices->line_count = notices->line_bytes = notices->alert_count = 0;
  pthread_mutex_unlock(&notices->lock);
  tell_lines(notices->host, &lines);
  tell_alerts(notices->host, &alerts);
}

/* ---- log lines ---------------------------------------------------------------------------------------------------- */

/* Locked. */
static void drop_oldest_line(struct pry_host_notices *notices)
{
  struct line *oldest = PRY_CONTAINER_OF(notices->lines.next, struct line, link);
  pry_list_remove(&oldest->link);
  notices->line_count--;
  notices->line_bytes -= oldest->size;
  notices->lines_lost++;
  free(oldest);
}

void pry_host_notices_log(void *host, enum pry_log_level level, const char *text, size_t size)
{
  struct pry_host_notices *notices = ((struct pry_host *)host)->notices;
  struct line *line = malloc(sizeof *line + size + 1);
  pthread_mutex_lock(&notices->lock);
  if (line) {
    line->level = level;
    line->size = size;
    memcpy(line->text, text, size);
    line->text[size] = '\0';
    pry_list_init(&line->link);
    pry_list_push(&notices->lines, &line->link);
    notices->line_count++;
    notices->line_bytes += size;
    while (notices->line_count > LINES_MAX || notices->line_bytes > LINE_BYTES_MAX)
      drop_oldest_line(notices);
  } else {
    notices->lines_lost++;
  }
  pthread_mutex_unlock(&notices->lock);
  pry_mailbox_post(notices->host->outbox, &notices->message);
}

unsigned long pry_host_notices_lost(struct pry_host *host)
{
  pthread_mutex_lock(&host->notices->lock);
  unsigned long lost = host->notices->lines_lost;
  pthread_mutex_unlock(&host->notices->lock);
  return lost;
}

/* ---- alerts -------------------------------------------------------------------------------------------------------- */

static void count_dropped_alert(struct pry_host_notices *notices)
{
  pry_metrics_add(notices->host->engine->metrics, PRY_M_ALERTS, "host", "dropped", 1);
}

static void keep_alert(void *user, const char *sink, const struct pry_note *note)
{
  struct pry_host_notices *notices = user;
  size_t sink_size = strlen(sink) + 1;
  struct alert *alert = malloc(sizeof *alert + sink_size), *oldest = NULL;
  if (!alert) {
    count_dropped_alert(notices);
    return;
  }
  alert->note = *note;
  memcpy(alert->sink, sink, sink_size);
  pry_list_init(&alert->link);
  pthread_mutex_lock(&notices->lock);
  if (notices->alert_count == ALERTS_MAX) {
    oldest = PRY_CONTAINER_OF(notices->alerts.next, struct alert, link);
    pry_list_remove(&oldest->link);
    notices->alert_count--;
  }
  pry_list_push(&notices->alerts, &alert->link);
  notices->alert_count++;
  pthread_mutex_unlock(&notices->lock);
  if (oldest)
    count_dropped_alert(notices);
  free(oldest);
  pry_mailbox_post(notices->host->outbox, &notices->message);
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

bool pry_host_notices_init(struct pry_host *host)
{
  struct pry_host_notices *notices = calloc(1, sizeof *notices);
  if (!notices)
    return false;
  notices->host = host;
  notices->message.deliver = tell_host;
  pry_list_init(&notices->lines);
  pry_list_init(&notices->alerts);
  pthread_mutex_init(&notices->lock, NULL);
  host->notices = notices;
  return true;
}

void pry_host_notices_listen(struct pry_host *host)
{
  if (host->options.alert)
    pry_alerts_set_listener(host->engine->alerts, keep_alert, host->notices);
}

void pry_host_notices_fini(struct pry_host *host)
{
  struct pry_host_notices *notices = host->notices;
  if (!notices)
    return;
  pry_mailbox_withdraw(host->outbox, &notices->message);
  while (!pry_list_empty(&notices->lines))
    drop_oldest_line(notices);
  while (!pry_list_empty(&notices->alerts)) {
    struct alert *alert = PRY_CONTAINER_OF(notices->alerts.next, struct alert, link);
    pry_list_remove(&alert->link);
    free(alert);
  }
  pthread_mutex_destroy(&notices->lock);
  free(notices);
  host->notices = NULL;
}

/* ---- metrics -------------------------------------------------------------------------------------------------------- */

/* Cuts the text at the next `end`, and moves behind it. NULL: there is none. */
static char *cut(char **text, char end)
{
  char *from = *text, *at = strchr(from, end);
  if (!at)
    return NULL;
  *at = '\0';
  *text = at + 1;
  return from;
}

/* As metrics.c escapes it: backslash and line feed. */
static void unescape(char *text)
{
  char *to = text;
  for (; *text; text++) {
    if (*text == '\\' && text[1])
      *to++ = *++text == 'n' ? '\n' : *text;
    else
      *to++ = *text;
  }
  *to = '\0';
}

/* The one brace that is no part of a label's value. */
static char *end_of_labels(char *labels)
{
  bool quoted = false;
  for (; *labels; labels++) {
    if (quoted && *labels == '\\' && labels[1])
      labels++;
    else if (*labels == '"')
      quoted = !quoted;
    else if (*labels == '}' && !quoted)
      return labels;
  }
  return NULL;
}

/* NAME VALUE or NAME{LABELS} VALUE */
static void read_sample(char *line, struct parry_sample *sample)
{
  char *brace = strchr(line, '{'), *end = brace ? end_of_labels(brace + 1) : NULL;
  sample->name = line;
  sample->labels = "";
  if (end) {
    *brace = *end = '\0';
    sample->labels = brace + 1;
    line = end + 1;
  }
  char *value = strchr(line, ' ');
  if (value) {
    *value = '\0';
    locale_t before = pry_plain_locale_enter();
    sample->value = strtod(value + 1, NULL);
    pry_plain_locale_leave(before);
  }
}

/* Reads what is rendered for Prometheus, so that the host sees just that, and no lock is held while it looks. */
static void visit_samples(char *text, void (*each)(void *user, const struct parry_sample *sample), void *user)
{
  static const char help[] = "# HELP ", type[] = "# TYPE ";
  struct parry_sample sample = {.size = sizeof sample, .type = "", .help = ""};
  for (char *line; (line = cut(&text, '\n'));) {
    if (strncmp(line, help, sizeof help - 1) == 0) {
      line += sizeof help - 1;
      (void)cut(&line, ' ');
      unescape(line);
      sample.help = line;
    } else if (strncmp(line, type, sizeof type - 1) == 0) {
      line += sizeof type - 1;
      (void)cut(&line, ' ');
      sample.type = line;
    } else {
      read_sample(line, &sample);
      each(user, &sample);
    }
  }
}

int parry_metrics(parry *handle, void (*each)(void *user, const struct parry_sample *sample), void *user)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  struct pry_buffer text;
  if (!host)
    return error;
  if (!each)
    return PARRY_EINVAL;
  pry_buffer_init(&text, 0);
  locale_t before = pry_plain_locale_enter();
  bool rendered = pry_engine_metrics(host->engine, &text) && pry_buffer_text(&text);
  pry_plain_locale_leave(before);
  if (rendered)
    visit_samples(text.data, each, user);
  pry_buffer_fini(&text);
  return rendered ? PARRY_OK : PARRY_ENOMEM;
}
