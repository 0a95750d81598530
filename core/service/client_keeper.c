#include "client_keeper.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define POLL_DEFAULT PRY_SECOND

enum { RACY_SECONDS = 2 };

/* What tells one state of a file from another. */
struct stamp {
  bool there;
  dev_t device;
  ino_t inode;
  off_t size;
  struct timespec modified, changed;
};

struct pry_client_keeper {
  struct pry_engine *engine;
  struct pry_loop *loop;
  struct pry_clients *clients;
  char *folder;
  pry_time poll;
  struct pry_timer timer;
  char file[PATH_MAX]; /* as declared; "" none */
  struct stamp stamp;
  bool racy; /* the stamp may hide a change, or what it stamps could not be read */
  size_t count;
  double loaded_at; /* Unix seconds; 0: never */
  char error[sizeof((struct pry_finding *)0)->where + sizeof((struct pry_finding *)0)->what + 4];
};

/* ---- stamps ----------------------------------------------------------------------------------------------- */

static struct stamp stamp_of(const struct pry_client_keeper *keeper, const char *file)
{
  struct stamp stamp;
  struct stat about;
  char path[PATH_MAX];
  memset(&stamp, 0, sizeof stamp); /* compared as bytes */
  if (!pry_clients_path(keeper->folder, file, path, sizeof path) || stat(path, &about) < 0)
    return stamp;
  stamp.there = true;
  stamp.device = about.st_dev;
  stamp.inode = about.st_ino;
  stamp.size = about.st_size;
  stamp.modified = about.st_mtim;
  stamp.changed = about.st_ctim;
  return stamp;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
  return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_stamp(const struct stamp *a, const struct stamp *b)
{
  return a->there == b->there && a->device == b->device && a->inode == b->inode && a->size == b->size &&
         same_time(&a->modified, &b->modified) && same_time(&a->changed, &b->changed);
}

/* ---- looking ---------------------------------------------------------------------------------------------- */

static const char *declared(const struct pry_client_keeper *keeper)
{
  const struct pry_generation *serving = pry_engine_generation(keeper->engine);
  return serving ? serving->config->clients_file : NULL;
}

static void log_findings(struct pry_client_keeper *keeper, const struct pry_report *report, bool taken)
{
  char finding[sizeof keeper->error];
  for (size_t i = 0; i < report->count; i++) {
    snprintf(finding, sizeof finding, "%s: %s", report->findings[i].where, report->findings[i].what);
    pry_log(keeper->engine->log, taken ? PRY_LOG_WARN : PRY_LOG_ERROR,
            taken ? "clients file" : "clients file refused, the clients stay as they were",
            pry_log_text("finding", finding));
  }
}

/* The first error stands for all in status; the others are in the log. */
static void keep_error(struct pry_client_keeper *keeper, const struct pry_report *report)
{
  keeper->error[0] = '\0';
  for (size_t i = 0; i < report->count && !keeper->error[0]; i++)
    if (report->findings[i].severity == PRY_FINDING_ERROR)
      snprintf(keeper->error, sizeof keeper->error, "%s: %s", report->findings[i].where, report->findings[i].what);
}

/* Perhaps it was not the file's fault, but memory's or the descriptors': it is read again by the next look. */
static void keep_failure(struct pry_client_keeper *keeper)
{
  keeper->racy = true;
  if (!keeper->error[0])
    snprintf(keeper->error, sizeof keeper->error, "%.512s: memory is short", keeper->file);
}

static void take(struct pry_client_keeper *keeper, struct pry_client_table *table, bool quiet)
{
  keeper->count = pry_client_table_count(table);
  keeper->loaded_at = pry_loop_unix_time(keeper->loop);
  pry_clients_install(keeper->clients, table);
  if (!quiet)
    pry_log(keeper->engine->log, PRY_LOG_INFO, "clients loaded", pry_log_text("file", keeper->file),
            pry_log_integer("clients", (long long)keeper->count));
}

static struct pry_client_table *read_table(const struct pry_client_keeper *keeper, const char *file,
                                           struct pry_report *report)
{
  char path[PATH_MAX];
  if (pry_clients_path(keeper->folder, file, path, sizeof path))
    return pry_client_table_read(keeper->clients, path, file, report);
  pry_report_add(report, PRY_FINDING_ERROR, file, "%s", "the path is too long");
  return NULL;
}

/* The stamp is taken before the file is read: a change in between is seen the next time. */
static void remember(struct pry_client_keeper *keeper, const char *file)
{
  struct stamp stamp = stamp_of(keeper, file);
  double now = pry_loop_unix_time(keeper->loop);
  snprintf(keeper->file, sizeof keeper->file, "%s", file);
  keeper->racy = stamp.there && now - (double)stamp.changed.tv_sec < RACY_SECONDS;
  keeper->stamp = stamp;
}

static bool load(struct pry_client_keeper *keeper, const char *file, bool quiet, struct pry_report *report)
{
  remember(keeper, file);
  struct pry_client_table *table = read_table(keeper, file, report);
  keep_error(keeper, report);
  pry_metrics_set(keeper->engine->metrics, PRY_M_CLIENTS_OK, NULL, NULL, table != NULL);
  if (table)
    take(keeper, table, quiet);
  else
    keep_failure(keeper);
  return table != NULL;
}

void pry_client_keeper_look(struct pry_client_keeper *keeper)
{
  const char *file = declared(keeper);
  if (!file)
    return;
  struct stamp stamp = stamp_of(keeper, file);
  bool other = strcmp(file, keeper->file) != 0;
  bool racy = keeper->racy;
  if (!other && !racy && same_stamp(&stamp, &keeper->stamp))
    return;
  bool told = !other && racy && same_stamp(&stamp, &keeper->stamp); /* most likely nothing new: say nothing twice */
  struct pry_report report;
  char before[sizeof keeper->error];
  memcpy(before, keeper->error, sizeof before);
  pry_report_init(&report);
  bool taken = load(keeper, file, told && !before[0], &report);
  if (!told || strcmp(before, keeper->error) != 0)
    log_findings(keeper, &report, taken);
  pry_report_fini(&report);
}

static void look_again(void *user)
{
  struct pry_client_keeper *keeper = user;
  pry_client_keeper_look(keeper);
  pry_timer_start(keeper->loop, &keeper->timer, keeper->poll, look_again, keeper);
}

bool pry_client_keeper_accept(struct pry_client_keeper *keeper, const struct pry_config *config,
                              struct pry_report *report)
{
  const char *file = config->clients_file;
  bool known = pry_clients_loaded(keeper->clients);
  if (!file || (known && strcmp(file, keeper->file) == 0))
    return true;
  if (!known)
    return load(keeper, file, false, report);
  /* Thrown away: calls of the policies that still serve are judged by the file they name. */
  struct pry_client_table *table = read_table(keeper, file, report);
  pry_client_table_unref(table);
  return table != NULL;
}

/* ---- life ------------------------------------------------------------------------------------------------- */

struct pry_client_keeper *pry_client_keeper_new(const struct pry_client_keeper_options *options)
{
  struct pry_client_keeper *keeper = calloc(1, sizeof *keeper);
  if (!keeper)
    return NULL;
  keeper->engine = options->engine;
  keeper->loop = options->loop;
  keeper->clients = options->clients;
  keeper->folder = strdup(options->folder);
  keeper->poll = options->poll ? options->poll : POLL_DEFAULT;
  if (keeper->folder && pry_timer_start(options->loop, &keeper->timer, keeper->poll, look_again, keeper))
    return keeper;
  pry_client_keeper_free(keeper);
  return NULL;
}

void pry_client_keeper_free(struct pry_client_keeper *keeper)
{
  if (!keeper)
    return;
  pry_timer_cancel(&keeper->timer);
  free(keeper->folder);
  free(keeper);
}

bool pry_client_keeper_json(const struct pry_client_keeper *keeper, struct pry_buffer *out)
{
  const char *file = declared(keeper);
  if (!file)
    return pry_buffer_append_text(out, "{\"declared\":false}");
  bool ok =
      pry_buffer_append_text(out, "{\"declared\":true,\"file\":\"") &&
      pry_buffer_append_json(out, pry_slice_of(file)) &&
      pry_buffer_append_format(out, "\",\"count\":%zu,\"loaded_at\":%.3f,\"error\":", keeper->count, keeper->loaded_at);
  if (!keeper->error[0])
    return ok && pry_buffer_append_text(out, "null}");
  return ok && pry_buffer_append_text(out, "\"") && pry_buffer_append_json(out, pry_slice_of(keeper->error)) &&
         pry_buffer_append_text(out, "\"}");
}
