#include "metrics.h"

#include "list.h"
#include "table.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUCKETS = 16, LABEL_MAX_BYTES = 256, SHARDS = 8 };

struct histogram {
  uint64_t buckets[BUCKETS + 1]; /* each on its own, the last without bound; rendered as running sums */
  double sum;
  uint64_t count;
};

/* What was added to a series on one processor. */
struct cell {
  struct pry_table_node node; /* in its shard's table, under the series' key */
  double value;
  struct histogram *histogram; /* NULL for counters */
};

/* One time series of a metric. */
struct series {
  struct pry_table_node node; /* its key is `key` below */
  struct pry_list link;       /* in order of appearance, so that two scrapes look alike */
  size_t first_size;          /* bytes of the first label in `key` */
  double gauge;
  struct cell *cells[SHARDS]; /* NULL for gauges, and where nothing was added */
  char key[];                 /* the metric, the first label, NUL, the second */
};

/* Padded, so that two processors do not pass one line of their caches to and fro. */
struct shard {
  pthread_mutex_t lock;
  struct pry_table table; /* of cells */
  char padding[64];
};

/* A counter or histogram is written in the shard of the processor that runs the thread, so that workers do not meet; the
 * lock is for those that are moved in between. All shards are added up when somebody looks. */
struct pry_metrics {
  pthread_mutex_t lock; /* of all but the shards; taken before theirs */
  struct pry_table table;
  struct pry_list series[PRY_METRIC_COUNT];
  size_t counts[PRY_METRIC_COUNT];
  struct shard shards[SHARDS];
};

struct declaration {
  const char *name;
  enum pry_metric_type type;
  const char *labels, *help;
};

static const struct declaration declarations[PRY_METRIC_COUNT] = {
#define X(metric, name, type, labels, help) [metric] = {name, type, labels, help},
    PRY_METRICS(X)
#undef X
};

/* Metric and label values as one key; the length of the first label is part of it. */
struct label_key {
  size_t first_size, size;
  char text[2 * LABEL_MAX_BYTES + 2];
};

_Static_assert(PRY_METRIC_COUNT < 128, "a metric fits the first byte of a key");

static size_t label_size(const char *label)
{
  return label ? strnlen(label, LABEL_MAX_BYTES) : 0;
}

static void make_key(struct label_key *key, enum pry_metric metric, const char *label_1, const char *label_2)
{
  size_t second_size = label_size(label_2);
  key->first_size = label_size(label_1);
  key->size = 1 + key->first_size + 1 + second_size;
  key->text[0] = (char)metric;
  if (key->first_size)
    memcpy(key->text + 1, label_1, key->first_size);
  key->text[1 + key->first_size] = '\0';
  if (second_size)
    memcpy(key->text + 1 + key->first_size + 1, label_2, second_size);
}

static struct pry_slice first_label(const struct series *series)
{
  return (struct pry_slice){series->key + 1, series->first_size};
}

static struct pry_slice second_label(const struct series *series)
{
  return (struct pry_slice){series->key + 1 + series->first_size + 1, series->node.key.size - series->first_size - 2};
}

/* Upper bound of a bucket, in seconds. */
static double bucket_bound(unsigned bucket)
{
  return ldexp(0.01, (int)bucket);
}

struct pry_metrics *pry_metrics_new(void)
{
  struct pry_metrics *metrics = calloc(1, sizeof *metrics);
  if (!metrics)
    return NULL;
  pthread_mutex_init(&metrics->lock, NULL); /* cannot fail without attributes on Linux */
  bool ok = pry_table_init(&metrics->table);
  for (size_t i = 0; i < PRY_METRIC_COUNT; i++)
    pry_list_init(&metrics->series[i]);
  for (size_t i = 0; i < SHARDS; i++) {
    pthread_mutex_init(&metrics->shards[i].lock, NULL);
    ok = pry_table_init(&metrics->shards[i].table) && ok;
  }
  if (!ok) {
    pry_metrics_free(metrics);
    return NULL;
  }
  return metrics;
}

/* Of gauges, or when the metrics are freed: cells stay in their shards' tables. */
static void forget_family(struct pry_metrics *metrics, enum pry_metric metric)
{
  struct pry_list *list = &metrics->series[metric];
  while (!pry_list_empty(list)) {
    struct series *series = PRY_CONTAINER_OF(list->next, struct series, link);
    pry_list_remove(&series->link);
    pry_table_remove(&metrics->table, &series->node);
    for (size_t i = 0; i < SHARDS; i++) {
      if (series->cells[i])
        free(series->cells[i]->histogram);
      free(series->cells[i]);
    }
    free(series);
  }
  metrics->counts[metric] = 0;
}

void pry_metrics_free(struct pry_metrics *metrics)
{
  if (!metrics)
    return;
  for (enum pry_metric metric = 0; metric < PRY_METRIC_COUNT; metric++)
    forget_family(metrics, metric);
  pry_table_fini(&metrics->table);
  for (size_t i = 0; i < SHARDS; i++) {
    pry_table_fini(&metrics->shards[i].table);
    pthread_mutex_destroy(&metrics->shards[i].lock);
  }
  pthread_mutex_destroy(&metrics->lock);
  free(metrics);
}

/* ---- series and cells ---------------------------------------------------------------------------------- */

static struct series *find(const struct pry_metrics *metrics, const struct label_key *key)
{
  struct pry_table_node *node = pry_table_find(&metrics->table, (struct pry_slice){key->text, key->size});
  return node ? PRY_CONTAINER_OF(node, struct series, node) : NULL;
}

static struct series *make(struct pry_metrics *metrics, enum pry_metric metric, const struct label_key *key)
{
  struct series *series = calloc(1, sizeof *series + key->size);
  if (!series)
    return NULL;
  memcpy(series->key, key->text, key->size);
  series->first_size = key->first_size;
  series->node.key = (struct pry_slice){series->key, key->size};
  pry_table_add(&metrics->table, &series->node);
  pry_list_push(&metrics->series[metric], &series->link);
  metrics->counts[metric]++;
  return series;
}

/* One place is kept for what the others have no room for. */
static struct series *find_or_make(struct pry_metrics *metrics, enum pry_metric metric, struct label_key *key,
                                   const char *label_1, const char *label_2)
{
  struct series *series = find(metrics, key);
  if (!series && metrics->counts[metric] >= PRY_METRICS_SERIES_MAX - 1) {
    make_key(key, metric, label_1 ? "other" : NULL, label_2 ? "other" : NULL);
    series = find(metrics, key);
  }
  return series ? series : make(metrics, metric, key);
}

static struct cell *find_cell(const struct shard *shard, const struct label_key *key)
{
  struct pry_table_node *node = pry_table_find(&shard->table, (struct pry_slice){key->text, key->size});
  return node ? PRY_CONTAINER_OF(node, struct cell, node) : NULL;
}

static struct cell *make_cell(struct shard *shard, const struct series *series, enum pry_metric_type type)
{
  struct cell *cell = calloc(1, sizeof *cell);
  if (!cell)
    return NULL;
  if (type == PRY_HISTOGRAM && !(cell->histogram = calloc(1, sizeof *cell->histogram))) {
    free(cell);
    return NULL;
  }
  cell->node.key = series->node.key;
  pry_table_add(&shard->table, &cell->node);
  return cell;
}

/* ---- adding -------------------------------------------------------------------------------------------- */

static void observe(struct histogram *histogram, double value)
{
  unsigned bucket = 0;
  double bound = bucket_bound(0);
  while (bucket < BUCKETS && value > bound) {
    bucket++;
    bound *= 2; /* exact */
  }
  histogram->buckets[bucket]++;
  histogram->count++;
  histogram->sum += value;
}

static void add_to(struct cell *cell, double value)
{
  if (cell->histogram)
    observe(cell->histogram, value);
  else
    cell->value += value;
}

/* The first time on this processor, and whenever the metric has too many series. */
static void add_to_new_cell(struct pry_metrics *metrics, size_t shard_index, enum pry_metric metric,
                            struct label_key *key, const char *label_1, const char *label_2, double value)
{
  struct shard *shard = &metrics->shards[shard_index];
  pthread_mutex_lock(&metrics->lock);
  struct series *series = find_or_make(metrics, metric, key, label_1, label_2);
  pthread_mutex_lock(&shard->lock);
  if (series && !series->cells[shard_index])
    series->cells[shard_index] = make_cell(shard, series, declarations[metric].type);
  if (series && series->cells[shard_index])
    add_to(series->cells[shard_index], value);
  pthread_mutex_unlock(&shard->lock);
  pthread_mutex_unlock(&metrics->lock);
}

static void change_gauge(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1, const char *label_2,
                         bool add, double value)
{
  struct label_key key;
  make_key(&key, metric, label_1, label_2);
  pthread_mutex_lock(&metrics->lock);
  struct series *series = find_or_make(metrics, metric, &key, label_1, label_2);
  if (series)
    series->gauge = add ? series->gauge + value : value;
  pthread_mutex_unlock(&metrics->lock);
}

void pry_metrics_add(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1, const char *label_2,
                     double value)
{
  enum pry_metric_type type = declarations[metric].type;
  /* A counter never falls, and one NaN would spoil a sum for good. */
  if (!metrics || !isfinite(value) || (type == PRY_COUNTER && value < 0))
    return;
  if (type == PRY_GAUGE) {
    change_gauge(metrics, metric, label_1, label_2, true, value);
    return;
  }
  struct label_key key;
  make_key(&key, metric, label_1, label_2);
  int processor = sched_getcpu();
  size_t shard_index = processor > 0 ? (size_t)processor % SHARDS : 0;
  struct shard *shard = &metrics->shards[shard_index];
  pthread_mutex_lock(&shard->lock);
  struct cell *cell = find_cell(shard, &key);
  if (cell)
    add_to(cell, value);
  pthread_mutex_unlock(&shard->lock);
  if (!cell)
    add_to_new_cell(metrics, shard_index, metric, &key, label_1, label_2, value);
}

void pry_metrics_set(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1, const char *label_2,
                     double value)
{
  if (metrics && declarations[metric].type == PRY_GAUGE)
    change_gauge(metrics, metric, label_1, label_2, false, value);
}

void pry_metrics_clear(struct pry_metrics *metrics, enum pry_metric metric)
{
  if (!metrics || declarations[metric].type != PRY_GAUGE)
    return;
  pthread_mutex_lock(&metrics->lock);
  forget_family(metrics, metric);
  pthread_mutex_unlock(&metrics->lock);
}

/* ---- looking ------------------------------------------------------------------------------------------- */

static void lock_all(struct pry_metrics *metrics)
{
  pthread_mutex_lock(&metrics->lock);
  for (size_t i = 0; i < SHARDS; i++)
    pthread_mutex_lock(&metrics->shards[i].lock);
}

static void unlock_all(struct pry_metrics *metrics)
{
  for (size_t i = 0; i < SHARDS; i++)
    pthread_mutex_unlock(&metrics->shards[i].lock);
  pthread_mutex_unlock(&metrics->lock);
}

static double sum_value(const struct series *series)
{
  double value = series->gauge;
  for (size_t i = 0; i < SHARDS; i++)
    value += series->cells[i] ? series->cells[i]->value : 0;
  return value;
}

static struct histogram sum_histogram(const struct series *series)
{
  struct histogram sum = {0};
  for (size_t i = 0; i < SHARDS; i++) {
    const struct histogram *part = series->cells[i] ? series->cells[i]->histogram : NULL;
    if (!part)
      continue;
    for (size_t j = 0; j <= BUCKETS; j++)
      sum.buckets[j] += part->buckets[j];
    sum.count += part->count;
    sum.sum += part->sum;
  }
  return sum;
}

double pry_metrics_value(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1, const char *label_2)
{
  if (!metrics)
    return 0;
  struct label_key key;
  make_key(&key, metric, label_1, label_2);
  lock_all(metrics);
  const struct series *series = find(metrics, &key);
  double value = 0;
  if (series)
    value = declarations[metric].type == PRY_HISTOGRAM ? (double)sum_histogram(series).count : sum_value(series);
  unlock_all(metrics);
  return value;
}

/* ---- Prometheus text format 0.0.4 --------------------------------------------------------------------- */

/* Help texts escape backslash and line feed, label values the double quote, too. Other control characters have no
 * escape in this format and become spaces; bytes that are not UTF-8 become U+FFFD. */
static bool append_label_value(struct pry_buffer *text, struct pry_slice value)
{
  for (size_t start = 0, i = 0; i <= value.size; i++) {
    bool at_end = i == value.size;
    unsigned char c = at_end ? 0 : (unsigned char)value.data[i];
    if (!at_end && c >= 0x20 && c != 0x7F)
      continue;
    if (!pry_buffer_append_json(text, (struct pry_slice){value.data + start, i - start}))
      return false;
    if (!at_end && !pry_buffer_append_text(text, c == '\n' ? "\\n" : " "))
      return false;
    start = i + 1;
  }
  return true;
}

static bool append_help(struct pry_buffer *text, const char *help)
{
  for (; *help; help++) {
    bool ok = *help == '\\'   ? pry_buffer_append_text(text, "\\\\")
              : *help == '\n' ? pry_buffer_append_text(text, "\\n")
                              : pry_buffer_append(text, help, 1);
    if (!ok)
      return false;
  }
  return true;
}

static bool append_number(struct pry_buffer *text, double value)
{
  if (isnan(value))
    return pry_buffer_append_text(text, "NaN");
  if (isinf(value))
    return pry_buffer_append_text(text, value > 0 ? "+Inf" : "-Inf");
  char digits[32];
  for (int precision = 15; precision <= 17; precision++) {
    snprintf(digits, sizeof digits, "%.*g", precision, value);
    if (strtod(digits, NULL) == value)
      break;
  }
  return pry_buffer_append_text(text, digits);
}

/* `le`: the bound of a histogram's bucket, NULL elsewhere. */
static bool append_name(struct pry_buffer *text, const struct declaration *declaration, const char *suffix,
                        const struct series *series, const char *le)
{
  if (!pry_buffer_append_format(text, "%s%s", declaration->name, suffix))
    return false;
  const char *open = "{";
  const char *name = declaration->labels;
  for (size_t i = 0; i < PRY_METRICS_LABELS_MAX && *name; i++) {
    size_t name_size = strcspn(name, ",");
    struct pry_slice value = i == 0 ? first_label(series) : second_label(series);
    if (!pry_buffer_append_format(text, "%s%.*s=\"", open, (int)name_size, name) || !append_label_value(text, value) ||
        !pry_buffer_append_text(text, "\""))
      return false;
    open = ",";
    name += name_size + (name[name_size] == ',');
  }
  if (le && !pry_buffer_append_format(text, "%sle=\"%s\"", open, le))
    return false;
  return pry_buffer_append_text(text, declaration->labels[0] || le ? "} " : " ");
}

static bool append_count(struct pry_buffer *text, uint64_t count)
{
  return pry_buffer_append_format(text, "%llu\n", (unsigned long long)count);
}

static bool append_histogram(struct pry_buffer *text, const struct declaration *declaration,
                             const struct series *series)
{
  const struct histogram histogram = sum_histogram(series);
  uint64_t running = 0;
  for (unsigned bucket = 0; bucket <= BUCKETS; bucket++) {
    char bound[32] = "+Inf";
    if (bucket < BUCKETS)
      snprintf(bound, sizeof bound, "%.15g", bucket_bound(bucket));
    running += histogram.buckets[bucket];
    if (!append_name(text, declaration, "_bucket", series, bound) || !append_count(text, running))
      return false;
  }
  return append_name(text, declaration, "_sum", series, NULL) && append_number(text, histogram.sum) &&
         pry_buffer_append_text(text, "\n") && append_name(text, declaration, "_count", series, NULL) &&
         append_count(text, histogram.count);
}

static bool append_series(struct pry_buffer *text, const struct declaration *declaration, const struct series *series)
{
  if (declaration->type == PRY_HISTOGRAM)
    return append_histogram(text, declaration, series);
  return append_name(text, declaration, "", series, NULL) && append_number(text, sum_value(series)) &&
         pry_buffer_append_text(text, "\n");
}

static bool append_family(struct pry_buffer *text, const struct declaration *declaration, const struct pry_list *family)
{
  static const char *const types[] = {"counter", "gauge", "histogram"};
  /* A counter without labels is there from the start, so that its first increase is seen as one. */
  bool always = declaration->type == PRY_COUNTER && !declaration->labels[0];
  bool empty = pry_list_empty(family);
  if (empty && !always)
    return true;
  if (!pry_buffer_append_format(text, "# HELP %s ", declaration->name) || !append_help(text, declaration->help) ||
      !pry_buffer_append_format(text, "\n# TYPE %s %s\n", declaration->name, types[declaration->type]))
    return false;
  if (empty)
    return pry_buffer_append_format(text, "%s 0\n", declaration->name);
  for (const struct pry_list *link = family->next; link != family; link = link->next)
    if (!append_series(text, declaration, PRY_CONTAINER_OF(link, struct series, link)))
      return false;
  return true;
}

bool pry_metrics_render(struct pry_metrics *metrics, struct pry_buffer *text)
{
  if (!metrics)
    return true;
  size_t before = text->size;
  bool ok = true;
  lock_all(metrics);
  for (size_t i = 0; ok && i < PRY_METRIC_COUNT; i++)
    ok = append_family(text, &declarations[i], &metrics->series[i]);
  unlock_all(metrics);
  if (!ok)
    text->size = before;
  return ok;
}
