#include "recent_errors.h"

#include <pthread.h>
#include <stdlib.h>

struct pry_recent_errors {
  pthread_mutex_t lock;
  unsigned long long seen;
  struct pry_recent_error ring[PRY_RECENT_ERRORS_MAX];
};

struct pry_recent_errors *pry_recent_errors_new(void)
{
  struct pry_recent_errors *errors = calloc(1, sizeof *errors);
  if (errors && pthread_mutex_init(&errors->lock, NULL) != 0) {
    free(errors);
    return NULL;
  }
  return errors;
}

void pry_recent_errors_free(struct pry_recent_errors *errors)
{
  if (!errors)
    return;
  pthread_mutex_destroy(&errors->lock);
  free(errors);
}

void pry_recent_errors_add(struct pry_recent_errors *errors, const struct pry_recent_error *error)
{
  pthread_mutex_lock(&errors->lock);
  errors->ring[errors->seen++ % PRY_RECENT_ERRORS_MAX] = *error;
  pthread_mutex_unlock(&errors->lock);
}

size_t pry_recent_errors_copy(struct pry_recent_errors *errors, struct pry_recent_error *to, size_t limit,
                              unsigned long long *seen)
{
  pthread_mutex_lock(&errors->lock);
  *seen = errors->seen;
  size_t count = errors->seen < PRY_RECENT_ERRORS_MAX ? (size_t)errors->seen : PRY_RECENT_ERRORS_MAX;
  if (count > limit)
    count = limit;
  for (size_t i = 0; i < count; i++)
    to[i] = errors->ring[(errors->seen - 1 - i) % PRY_RECENT_ERRORS_MAX];
  pthread_mutex_unlock(&errors->lock);
  return count;
}
