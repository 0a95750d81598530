/* What one pry_metrics_add() costs: alone, and while other threads add to the same series. */
#include "metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

enum { ROUNDS = 2000000, THREADS_MAX = 4 };

static double seconds(clockid_t clock)
{
  struct timespec now;
  clock_gettime(clock, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

struct adder {
  pthread_t thread;
  struct pry_metrics *metrics;
  enum pry_metric metric;
  double cpu; /* seconds, of this thread */
};

static void *add(void *user)
{
  struct adder *adder = user;
  double start = seconds(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < ROUNDS; i++)
    pry_metrics_add(adder->metrics, adder->metric, "moonshot/kimi-k2", adder->metric == PRY_M_ATTEMPTS ? "none" : NULL,
                    0.25);
  adder->cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - start;
  return NULL;
}

static void run(const char *name, enum pry_metric metric, unsigned threads)
{
  struct adder adders[THREADS_MAX];
  struct pry_metrics *metrics = pry_metrics_new();
  if (!metrics)
    return;
  double start = seconds(CLOCK_MONOTONIC), cpu = 0;
  unsigned started = 0;
  while (started < threads) {
    adders[started] = (struct adder){.metrics = metrics, .metric = metric};
    if (pthread_create(&adders[started].thread, NULL, add, &adders[started]) != 0)
      break;
    started++;
  }
  for (unsigned i = 0; i < started; i++) {
    pthread_join(adders[i].thread, NULL);
    cpu += adders[i].cpu;
  }
  double adds = (double)ROUNDS * started;
  printf("%-10s %u threads  %6.1f ns of a thread's time an add  %6.1f million adds/s  %s\n", name, started,
         cpu / adds * 1e9, adds / (seconds(CLOCK_MONOTONIC) - start) * 1e-6,
         pry_metrics_value(metrics, metric, "moonshot/kimi-k2", metric == PRY_M_ATTEMPTS ? "none" : NULL) > 0
             ? ""
             : "(lost)");
  pry_metrics_free(metrics);
}

int main(void)
{
  for (unsigned threads = 1; threads <= THREADS_MAX; threads *= 2) {
    run("counter", PRY_M_ATTEMPTS, threads);
    run("histogram", PRY_M_FIRST_BYTE, threads);
  }
  return 0;
}
