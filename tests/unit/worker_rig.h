/* Real workers for tests where threads meet: each a thread with a loop and a mailbox of its own. */
#ifndef PRY_WORKER_RIG_H
#define PRY_WORKER_RIG_H

#include "mailbox.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { RIG_WORKERS = 4 };

struct rig_worker {
  unsigned index;
  uint64_t random; /* state of rig_random() */
  pthread_t thread;
  struct pry_loop *loop;
  struct pry_mailbox *mailbox;
  struct pry_message stop, task;
  void (*run)(struct rig_worker *worker, void *user); /* of rig_tell() */
  void *user;
  atomic_bool busy;
};

/* cmocka's assertions jump, which must not happen on another thread than the test's. */
#define RIG_CHECK(condition)                                                                                           \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                          \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

/* xorshift64*, one per worker: rand() would share a lock, and order the threads. */
static inline unsigned rig_random(struct rig_worker *worker, unsigned below)
{
  worker->random ^= worker->random >> 12;
  worker->random ^= worker->random << 25;
  worker->random ^= worker->random >> 27;
  return (unsigned)((worker->random * 0x2545F4914F6CDD1Du) >> 33) % below;
}

static inline void rig_stop(struct pry_message *message)
{
  pry_loop_stop(PRY_CONTAINER_OF(message, struct rig_worker, stop)->loop);
}

static inline void rig_task(struct pry_message *message)
{
  struct rig_worker *worker = PRY_CONTAINER_OF(message, struct rig_worker, task);
  worker->run(worker, worker->user);
  atomic_store(&worker->busy, false);
}

static inline void *rig_run(void *user)
{
  struct rig_worker *worker = user;
  pry_loop_run(worker->loop);
  return NULL;
}

/* Only the loops and mailboxes: what the workers use is made before rig_go(). */
static inline void rig_make(struct rig_worker *workers, unsigned count)
{
  for (unsigned i = 0; i < count; i++) {
    struct rig_worker *worker = &workers[i];
    memset(worker, 0, sizeof *worker);
    worker->index = i;
    worker->random = 0x9E3779B97F4A7C15u * (i + 1);
    worker->stop.deliver = rig_stop;
    worker->task.deliver = rig_task;
    worker->loop = pry_loop_new();
    worker->mailbox = worker->loop ? pry_mailbox_new(worker->loop) : NULL;
    assert_non_null(worker->mailbox);
  }
}

static inline void rig_go(struct rig_worker *workers, unsigned count)
{
  for (unsigned i = 0; i < count; i++)
    assert_int_equal(pthread_create(&workers[i].thread, NULL, rig_run, &workers[i]), 0);
}

/* Has `run` called on the worker's thread; not waited for. */
static inline void rig_tell(struct rig_worker *worker, void (*run)(struct rig_worker *worker, void *user), void *user)
{
  worker->run = run;
  worker->user = user;
  atomic_store(&worker->busy, true);
  pry_mailbox_post(worker->mailbox, &worker->task);
}

static inline void rig_await(atomic_bool *flag)
{
  while (!atomic_load(flag))
    sched_yield();
}

static inline void rig_wait(struct rig_worker *worker)
{
  while (atomic_load(&worker->busy))
    sched_yield();
}

static inline void rig_do(struct rig_worker *worker, void (*run)(struct rig_worker *worker, void *user), void *user)
{
  rig_tell(worker, run, user);
  rig_wait(worker);
}

static inline void rig_end(struct rig_worker *workers, unsigned count)
{
  for (unsigned i = 0; i < count; i++)
    pry_mailbox_post(workers[i].mailbox, &workers[i].stop);
  for (unsigned i = 0; i < count; i++)
    pthread_join(workers[i].thread, NULL);
}

static inline void rig_free(struct rig_worker *workers, unsigned count)
{
  for (unsigned i = 0; i < count; i++) {
    pry_mailbox_free(workers[i].mailbox);
    pry_loop_free(workers[i].loop);
  }
}

#endif
