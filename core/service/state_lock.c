#include "state_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* 0: it does not say. What another process has written is only shown. */
static long holder(int fd)
{
  char text[32] = "";
  ssize_t got = pread(fd, text, sizeof text - 1, 0);
  if (got <= 0)
    return 0;
  text[got] = '\0';
  char *end;
  long pid = strtol(text, &end, 10);
  return pid > 0 && *end == '\n' ? pid : 0;
}

static void complain_of_holder(int fd, const char *state_dir, char *error, size_t error_size)
{
  char who[64] = "another parry";
  long pid = holder(fd);
  if (pid)
    snprintf(who, sizeof who, "another parry, process %ld,", pid);
  snprintf(error, error_size, "--state %s: %s uses this folder; stop that one, or give this one a folder of its own",
           state_dir, who);
}

static void complain(const char *state_dir, char *error, size_t error_size)
{
  bool unsupported = errno == ENOLCK || errno == EOPNOTSUPP || errno == ENOSYS;
  snprintf(error, error_size, "--state %s: cannot lock its file `lock`: %s; %s", state_dir, strerror(errno),
           unsupported ? "name a folder on a local file system" : "name a folder this user may write to");
}

static bool lock_file(int fd)
{
  while (flock(fd, LOCK_EX | LOCK_NB) != 0)
    if (errno != EINTR)
      return false;
  return true;
}

/* For people only: the lock is held whether this can be written or not. */
static void write_pid(int fd)
{
  char text[32];
  int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
  if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length)
    return;
}

bool pry_state_lock_take(struct pry_state_lock *lock, const char *state_dir, bool *in_use, char *error,
                         size_t error_size)
{
  *in_use = false;
  int folder = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int saved = errno;
  lock->fd = folder >= 0 ? openat(folder, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600) : -1;
  if (folder >= 0) {
    saved = errno;
    close(folder);
  }
  errno = saved;
  bool ok = lock->fd >= 0 && lock_file(lock->fd);
  *in_use = lock->fd >= 0 && !ok && errno == EWOULDBLOCK;
  if (*in_use)
    complain_of_holder(lock->fd, state_dir, error, error_size);
  else if (!ok)
    complain(state_dir, error, error_size);
  if (ok)
    write_pid(lock->fd);
  else
    pry_state_lock_release(lock);
  return ok;
}

void pry_state_lock_release(struct pry_state_lock *lock)
{
  if (lock->fd >= 0)
    close(lock->fd);
  lock->fd = -1;
}
