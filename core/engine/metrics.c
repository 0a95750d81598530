#include "metrics.h"

#include "list.h"
#include "table.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUCKETS = 16, LABEL_MAX_BYTES = 256 };

struct histogram {
  uint64_t buckets[BUCKETS + 1]; /* each on its own, the last without bound; rendered as running sums */
  double sum;
  uint64_t count;
};

/* One time series of a metric. */
struct series {
  struct pry_table_node node; /* its key is `labels` below */
  struct pry_list link;       /* in order of appearance, so that two scrapes look alike */
  size_t first_size;          /* bytes of the first label in `labels`, the rest is the second */
  double value;
  struct histogram *histogram; /* NULL for counters and gauges */
  char labels[];
};

struct family {
  struct pry_table table;
  struct pry_list series;
};

struct pry_metrics {
  pthread_mutex_t lock;
  struct family families[PRY_METRIC_COUNT];
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

/* The two label values as one key; the length of the first is part of it. */
struct label_key {
  size_t first_size, size;
  char text[2 * LABEL_MAX_BYTES + 1];
};

static size_t label_size(const char *label)
{
  return label ? strnlen(label, LABEL_MAX_BYTES) : 0;
}

static void make_key(struct label_key *key, const char *label_1, const char *label_2)
{
  size_t second_size = label_size(label_2);
  key->first_size = label_size(label_1);
  key->size = key->first_size + 1 + second_size;
  if (key->first_size)
    memcpy(key->text, label_1, key->first_size);
  key->text[key->first_size] = '\0';
  if (second_size)
    memcpy(key->text + key->first_size + 1, label_2, second_size);
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
  bool ok = true;
  for (size_t i = 0; i < PRY_METRIC_COUNT; i++) {
    pry_list_init(&metrics->families[i].series);
    ok = pry_table_init(&metrics->families[i].table) && ok;
  }
  if (!ok) {
    pry_metrics_free(metrics);
    return NULL;
  }
  return metrics;
}

static void clear_family(struct family *family)
{
  while (!pry_list_empty(&family->series)) {
    struct series *series = PRY_CONTAINER_OF(family->series.next, struct series, link);
    pry_list_remove(&series->link);
    pry_table_remove(&family->table, &series->node);
    free(series->histogram);
    free(series);
  }
}

void pry_metrics_free(struct pry_metrics *metrics)
{
  if (!metrics)
    return;
  for (size_t i = 0; i < PRY_METRIC_COUNT; i++) {
    clear_family(&metrics->families[i]);
    pry_table_fini(&metrics->families[i].table);
  }
  pthread_mutex_destroy(&metrics->lock);
  free(metrics);
}

static struct series *find(const struct family *family, const struct label_key *key)
{
  struct pry_table_node *node = pry_table_find(&family->table, (struct pry_slice){key->text, key->size});
  return node ? PRY_CONTAINER_OF(node, struct series, node) : NULL;
}

static struct series *make(struct family *family, enum pry_metric_type type, const struct label_key *key)
{
  struct series *series = calloc(1, sizeof *series + key->size);
  if (!series)
    return NULL;
  if (type == PRY_HISTOGRAM && !(series->histogram = calloc(1, sizeof *series->histogram))) {
    free(series);
    return NULL;
  }
  memcpy(series->labels, key->text, key->size);
  series->first_size = key->first_size;
  series->node.key = (struct pry_slice){series->labels, key->size};
  pry_table_add(&family->table, &series->node);
  pry_list_push(&family->series, &series->link);
  return series;
}

/* One place is kept for what the others have no room for. */
static struct series *find_or_make(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1,
                                   const char *label_2)
{
  struct family *family = &metrics->families[metric];
  struct label_key key;
  make_key(&key, label_1, label_2);
  struct series *series = find(family, &key);
  if (!series && family->table.count >= PRY_METRICS_SERIES_MAX - 1) {
    make_key(&key, label_1 ? "other" : NULL, label_2 ? "other" : NULL);
    series = find(family, &key);
  }
  return series ? series : make(family, declarations[metric].type, &key);
}

static void observe(struct histogram *histogram, double value)
{
  unsigned bucket = 0;
  while (bucket < BUCKETS && value > bucket_bound(bucket))
    bucket++;
  histogram->buckets[bucket]++;
  histogram->count++;
  histogram->sum += value;
}

void pry_metrics_add(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1, const char *label_2,
                     double value)
{
  enum pry_metric_type type = declarations[metric].type;
  /* A counter never falls, and one NaN would spoil a sum for good. */
  if (!metrics || !isfinite(value) || (type == PRY_COUNTER && value < 0))
    return;
  pthread_mutex_lock(&metrics->lock);
  struct series *series = find_or_make(metrics, metric, label_1, label_2);
  if (series && series->histogram)
    observe(series->histogram, value);
  else if (series)
    series->value += value;
  pthread_mutex_unlock(&metrics->lock);
}

void pry_metrics_set(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1, const char *label_2,
                     double value)
{
  if (!metrics || declarations[metric].type != PRY_GAUGE)
    return;
  pthread_mutex_lock(&metrics->lock);
  struct series *series = find_or_make(metrics, metric, label_1, label_2);
  if (series)
    series->value = value;
  pthread_mutex_unlock(&metrics->lock);
}

void pry_metrics_clear(struct pry_metrics *metrics, enum pry_metric metric)
{
  if (!metrics || declarations[metric].type != PRY_GAUGE)
    return;
  pthread_mutex_lock(&metrics->lock);
  clear_family(&metrics->families[metric]);
  pthread_mutex_unlock(&metrics->lock);
}

double pry_metrics_value(struct pry_metrics *metrics, enum pry_metric metric, const char *label_1, const char *label_2)
{
  if (!metrics)
    return 0;
  struct label_key key;
  make_key(&key, label_1, label_2);
  pthread_mutex_lock(&metrics->lock);
  const struct series *series = find(&metrics->families[metric], &key);
  double value = 0;
  if (series)
    value = series->histogram ? (double)series->histogram->count : series->value;
  pthread_mutex_unlock(&metrics->lock);
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
    struct pry_slice value = i == 0 ? (struct pry_slice){series->labels, series->first_size}
                                    : (struct pry_slice){series->labels + series->first_size + 1,
                                                         series->node.key.size - series->first_size - 1};
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
  const struct histogram *histogram = series->histogram;
  uint64_t running = 0;
  for (unsigned bucket = 0; bucket <= BUCKETS; bucket++) {
    char bound[32] = "+Inf";
    if (bucket < BUCKETS)
      snprintf(bound, sizeof bound, "%.15g", bucket_bound(bucket));
    running += histogram->buckets[bucket];
    if (!append_name(text, declaration, "_bucket", series, bound) || !append_count(text, running))
      return false;
  }
  return append_name(text, declaration, "_sum", series, NULL) && append_number(text, histogram->sum) &&
         pry_buffer_append_text(text, "\n") && append_name(text, declaration, "_count", series, NULL) &&
         append_count(text, histogram->count);
}

static bool append_series(struct pry_buffer *text, const struct declaration *declaration, const struct series *series)
{
  if (series->histogram)
    return append_histogram(text, declaration, series);
  return append_name(text, declaration, "", series, NULL) && append_number(text, series->value) &&
         pry_buffer_append_text(text, "\n");
}

static bool append_family(struct pry_buffer *text, const struct declaration *declaration, const struct family *family)
{
  static const char *const types[] = {"counter", "gauge", "histogram"};
  /* A counter without labels is there from the start, so that its first increase is seen as one. */
  bool always = declaration->type == PRY_COUNTER && !declaration->labels[0];
  bool empty = pry_list_empty(&family->series);
  if (empty && !always)
    return true;
  if (!pry_buffer_append_format(text, "# HELP %s ", declaration->name) || !append_help(text, declaration->help) ||
      !pry_buffer_append_format(text, "\n# TYPE %s %s\n", declaration->name, types[declaration->type]))
    return false;
  if (empty)
    return pry_buffer_append_format(text, "%s 0\n", declaration->name);
  for (struct pry_list *link = family->series.next; link != &family->series; link = link->next)
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
  pthread_mutex_lock(&metrics->lock);
  for (size_t i = 0; ok && i < PRY_METRIC_COUNT; i++)
    ok = append_family(text, &declarations[i], &metrics->families[i]);
  pthread_mutex_unlock(&metrics->lock);
  if (!ok)
    text->size = before;
  return ok;
}
