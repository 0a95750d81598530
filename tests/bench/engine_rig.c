#include "engine_rig.h"

#include "http_script.h"
#include "loader.h"
#include "reloader.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SHIPPED PARRY_SOURCE_DIR "/policies"

static void must(bool ok, const char *what)
{
  if (ok)
    return;
  fprintf(stderr, "bench: %s\n", what);
  exit(1);
}

void engine_rig_init(struct engine_rig *rig)
{
  rig->loop = pry_loop_new_virtual(1700000000);
  must(rig->loop, "memory is short");
  rig->http = pry_http_script_client(pry_http_script_new(rig->loop));
  struct pry_engine_options options = {.loop = rig->loop, .http = rig->http, .loader = &pry_lua_loader, .seed = 1};
  rig->engine = pry_engine_new(&options);
  must(rig->engine, "memory is short");
}

void engine_rig_fini(struct engine_rig *rig)
{
  pry_engine_free(rig->engine);
  pry_http_free(rig->http);
  pry_loop_free(rig->loop);
}

static bool ends_with(const char *text, const char *end)
{
  size_t size = strlen(text), tail = strlen(end);
  return size >= tail && strcmp(text + size - tail, end) == 0;
}

void engine_rig_add(struct pry_policy_set *set, const char *path, const char *text)
{
  must(pry_policy_set_add(set, path, pry_slice_of(text)), path);
}

struct pry_policy_set *engine_rig_shipped(void)
{
  struct pry_report report;
  pry_report_init(&report);
  struct pry_policy_set *all = pry_reload_read(SHIPPED, NULL, NULL, &report), *set = pry_policy_set_new();
  must(all && set, "the shipped policies cannot be read");
  for (size_t i = 0; i < all->count; i++)
    if (strcmp(all->files[i].path, "init.lua") != 0 && !ends_with(all->files[i].path, "_test.lua"))
      engine_rig_add(set, all->files[i].path, all->files[i].text);
  pry_policy_set_free(all);
  pry_report_fini(&report);
  return set;
}

void engine_rig_load(struct engine_rig *rig, struct pry_policy_set *set)
{
  struct pry_report report;
  pry_report_init(&report);
  must(pry_policy_set_seal(set), "memory is short");
  bool loaded = pry_engine_load(rig->engine, set, false, &report);
  if (!loaded && report.count)
    fprintf(stderr, "%s: %s\n", report.findings[0].where, report.findings[0].what);
  must(loaded, "the policies were refused");
  pry_report_fini(&report);
}

struct pry_state *engine_rig_state(const struct engine_rig *rig)
{
  return rig->engine->control->state;
}

double engine_rig_seconds(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
  double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

double engine_rig_median(double *values, size_t count)
{
  qsort(values, count, sizeof *values, compare);
  return values[count / 2];
}
