#include "watchdog.h"

#include "engine.h"
#include "plain_locale.h"
#include "thread.h"

#include <stdlib.h>
#include <time.h>

#define PERIOD (250 * PRY_MILLISECOND)
#define ASK_WHERE_AFTER (500 * PRY_MILLISECOND)
#define STUCK_AFTER (2 * PRY_SECOND)

struct pry_watchdog {
  struct pry_engine *engine;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool ending; /* under the lock */
};

static pry_time clock_now(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (pry_time)now.tv_sec * PRY_SECOND + now.tv_nsec / 1000;
}

static void call_stuck(struct pry_worker *worker, pry_time since)
{
  char where[PRY_WHERE_MAX];
  pry_worker_where(worker, where);
  atomic_store(&worker->pulse.stuck, true);
  pry_log(worker->engine->log, PRY_LOG_ERROR, "worker is stuck", pry_log_integer("worker", worker->index),
          pry_log_text("where", where[0] ? where : "not in a policy"),
          pry_log_number("seconds", pry_time_to_seconds(since)));
  pry_queue_reclaim(worker->engine->queues, worker->mailbox);
}

static void call_well(struct pry_worker *worker, pry_time since)
{
  atomic_store(&worker->pulse.stuck, false);
  pry_log(worker->engine->log, PRY_LOG_WARN, "worker goes on", pry_log_integer("worker", worker->index),
          pry_log_number("seconds", pry_time_to_seconds(since)));
  pry_queue_readmit(worker->engine->queues, worker->mailbox);
}

static void forget_where(struct pry_pulse *pulse)
{
  pthread_mutex_lock(&pulse->lock);
  pulse->where[0] = '\0';
  pthread_mutex_unlock(&pulse->lock);
}

static void feel(struct pry_worker *worker, pry_time now)
{
  struct pry_pulse *pulse = &worker->pulse;
  pry_time since = now - pulse->sent_at;
  if (atomic_load(&pulse->beating)) {
    if (since >= ASK_WHERE_AFTER)
      atomic_store_explicit(&pulse->where_wanted, true, memory_order_relaxed);
    if (since >= STUCK_AFTER && !atomic_load(&pulse->stuck))
      call_stuck(worker, since);
    return;
  }
  if (atomic_load(&pulse->stuck))
    call_well(worker, since);
  forget_where(pulse);
  pulse->sent_at = now;
  atomic_store(&pulse->beating, true);
  pry_mailbox_post(worker->mailbox, &pulse->beat);
}

/* True until the end. */
static bool wait_a_period(struct pry_watchdog *watchdog)
{
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += PERIOD * 1000;
  if (until.tv_nsec >= 1000000000) {
    until.tv_nsec -= 1000000000;
    until.tv_sec++;
  }
  pthread_mutex_lock(&watchdog->lock);
  if (!watchdog->ending)
    pthread_cond_timedwait(&watchdog->wake, &watchdog->lock, &until);
  bool ending = watchdog->ending;
  pthread_mutex_unlock(&watchdog->lock);
  return !ending;
}

static void *watch(void *user)
{
  struct pry_watchdog *watchdog = user;
  pry_plain_locale_stay();
  while (wait_a_period(watchdog))
    for (unsigned i = 0; i < watchdog->engine->worker_count; i++)
      feel(watchdog->engine->workers[i], clock_now());
  return NULL;
}

struct pry_watchdog *pry_watchdog_new(struct pry_engine *engine)
{
  struct pry_watchdog *watchdog = calloc(1, sizeof *watchdog);
  if (!watchdog)
    return NULL;
  watchdog->engine = engine;
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_mutex_init(&watchdog->lock, NULL);
  pthread_cond_init(&watchdog->wake, &attributes);
  pthread_condattr_destroy(&attributes);
  if (pry_thread_start(&watchdog->thread, watch, watchdog))
    return watchdog;
  pthread_cond_destroy(&watchdog->wake);
  pthread_mutex_destroy(&watchdog->lock);
  free(watchdog);
  return NULL;
}

void pry_watchdog_free(struct pry_watchdog *watchdog)
{
  if (!watchdog)
    return;
  pthread_mutex_lock(&watchdog->lock);
  watchdog->ending = true;
  pthread_cond_signal(&watchdog->wake);
  pthread_mutex_unlock(&watchdog->lock);
  pthread_join(watchdog->thread, NULL);
  pthread_cond_destroy(&watchdog->wake);
  pthread_mutex_destroy(&watchdog->lock);
  free(watchdog);
}
