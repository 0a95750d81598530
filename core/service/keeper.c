#include "keeper.h"

#include "last_good.h"
#include "thread.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct pry_keeper {
  const char *state_dir;
  struct pry_log *log;
  struct pry_quarantine quarantine; /* the control worker's */
  pthread_t thread;
  bool running;

  pthread_mutex_t lock; /* of all below: what is to be written */
  pthread_cond_t changed;
  struct pry_generation *generation; /* referenced; NULL: nothing new */
  double at;
  struct pry_quarantine to_write;
  bool quarantine_changed;
  bool ending;
};

/* ---- on the keeper's thread ------------------------------------------------------------------------------------ */

static void complain(const struct pry_keeper *keeper, const char *message, const char *why)
{
  pry_log(keeper->log, PRY_LOG_ERROR, message, pry_log_text("why", why));
}

/* Takes what is to be written, waiting for it. False: nothing is left and the end has come. */
static bool take_work(struct pry_keeper *keeper, struct pry_generation **generation, double *at,
                      struct pry_quarantine *quarantine, bool *quarantine_changed)
{
  pthread_mutex_lock(&keeper->lock);
  while (!keeper->generation && !keeper->quarantine_changed && !keeper->ending)
    pthread_cond_wait(&keeper->changed, &keeper->lock);
  *generation = keeper->generation;
  *at = keeper->at;
  *quarantine_changed = keeper->quarantine_changed;
  *quarantine = keeper->to_write;
  keeper->generation = NULL;
  keeper->quarantine_changed = false;
  pthread_mutex_unlock(&keeper->lock);
  return *generation || *quarantine_changed;
}

static void *write_all(void *user)
{
  struct pry_keeper *keeper = user;
  struct pry_generation *generation;
  struct pry_quarantine quarantine;
  double at;
  bool quarantine_changed;
  char why[PRY_STATE_WHY_MAX];
  while (take_work(keeper, &generation, &at, &quarantine, &quarantine_changed)) {
    /* The quarantine first: a crash in between must not leave a bad set as the last good one and nowhere as bad. */
    if (quarantine_changed && !pry_quarantine_write(keeper->state_dir, &quarantine, why))
      complain(keeper, "quarantine not written", why);
    if (generation && !pry_last_good_write(keeper->state_dir, generation->set, at, why))
      complain(keeper, "last good policies not written", why);
    pry_generation_unref(generation);
  }
  return NULL;
}

/* ---- outside ---------------------------------------------------------------------------------------------------- */

struct pry_keeper *pry_keeper_new(const char *state_dir, struct pry_log *log)
{
  struct pry_keeper *keeper = calloc(1, sizeof *keeper);
  if (!keeper)
    return NULL;
  keeper->state_dir = state_dir;
  keeper->log = log;
  pthread_mutex_init(&keeper->lock, NULL); /* neither can fail without attributes on Linux */
  pthread_cond_init(&keeper->changed, NULL);
  if (!state_dir)
    return keeper;
  char why[PRY_STATE_WHY_MAX];
  if (!pry_quarantine_read(state_dir, &keeper->quarantine, why))
    pry_log(log, PRY_LOG_WARN, "quarantine not read", pry_log_text("why", why));
  keeper->running = pry_thread_start(&keeper->thread, write_all, keeper);
  if (keeper->running)
    return keeper;
  pry_keeper_free(keeper);
  return NULL;
}

void pry_keeper_free(struct pry_keeper *keeper)
{
  if (!keeper)
    return;
  if (keeper->running) {
    pthread_mutex_lock(&keeper->lock);
    keeper->ending = true;
    pthread_cond_signal(&keeper->changed);
    pthread_mutex_unlock(&keeper->lock);
    pthread_join(keeper->thread, NULL);
  }
  pthread_cond_destroy(&keeper->changed);
  pthread_mutex_destroy(&keeper->lock);
  free(keeper);
}

void pry_keeper_serves(struct pry_keeper *keeper, struct pry_generation *generation, double at)
{
  if (!keeper->running)
    return;
  pry_generation_ref(generation);
  pthread_mutex_lock(&keeper->lock);
  struct pry_generation *before = keeper->generation;
  keeper->generation = generation;
  keeper->at = at;
  pthread_cond_signal(&keeper->changed);
  pthread_mutex_unlock(&keeper->lock);
  pry_generation_unref(before);
}

static void write_quarantine(struct pry_keeper *keeper)
{
  if (!keeper->running)
    return;
  pthread_mutex_lock(&keeper->lock);
  keeper->to_write = keeper->quarantine;
  keeper->quarantine_changed = true;
  pthread_cond_signal(&keeper->changed);
  pthread_mutex_unlock(&keeper->lock);
}

const struct pry_quarantine *pry_keeper_quarantine(const struct pry_keeper *keeper)
{
  return &keeper->quarantine;
}

void pry_keeper_keep_out(struct pry_keeper *keeper, const struct pry_quarantined *set)
{
  pry_quarantine_add(&keeper->quarantine, set);
  write_quarantine(keeper);
}

void pry_keeper_let_in(struct pry_keeper *keeper, const char *id)
{
  if (pry_quarantine_remove(&keeper->quarantine, id))
    write_quarantine(keeper);
}

void pry_quarantined_text(const struct pry_quarantined *set, char *text, size_t size)
{
  char when[32] = "?";
  struct tm date;
  time_t seconds = (time_t)set->at;
  if (gmtime_r(&seconds, &date))
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &date);
  if (set->faults)
    snprintf(
        text, size,
        "this set was rolled back by itself at %s: %llu faults in %llu runs%s%.300s; change a file to have the set "
        "tried again",
        when, (unsigned long long)set->faults, (unsigned long long)set->runs, set->first_fault[0] ? ", last " : "",
        set->first_fault);
  else
    snprintf(
        text, size,
        "this set was rolled back by hand at %s; change a file, or ask with `parry reload`, to have it tried again",
        when);
}
