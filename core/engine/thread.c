#include "thread.h"

#include <signal.h>

bool pry_thread_start(pthread_t *thread, void *(*run)(void *user), void *user)
{
  sigset_t all, before;
  sigfillset(&all);
  if (pthread_sigmask(SIG_BLOCK, &all, &before) != 0)
    return false;
  bool ok = pthread_create(thread, NULL, run, user) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return ok;
}
