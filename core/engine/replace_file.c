#include "replace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

bool pry_write_all(int fd, struct pry_slice text)
{
  while (text.size) {
    ssize_t put = write(fd, text.data, text.size);
    if (put < 0 && errno == EINTR)
      continue;
    if (put <= 0)
      return false;
    text.data += put;
    text.size -= (size_t)put;
  }
  return true;
}

static void remove_quietly(int folder, const char *name)
{
  int saved = errno;
  unlinkat(folder, name, 0);
  errno = saved;
}

static bool write_aside(int folder, const char *aside, struct pry_slice text)
{
  unlinkat(folder, aside, 0); /* left by a crash; O_EXCL finds anything that stays */
  int fd = openat(folder, aside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0)
    return false;
  bool ok = fchmod(fd, 0600) == 0 && pry_write_all(fd, text) && fsync(fd) == 0;
  int saved = errno;
  if (close(fd) != 0 && ok) {
    saved = errno;
    ok = false;
  }
  errno = saved;
  if (!ok)
    remove_quietly(folder, aside);
  return ok;
}

bool pry_replace_file(int folder, const char *name, const char *aside, struct pry_slice text)
{
  if (!write_aside(folder, aside, text))
    return false;
  if (renameat(folder, aside, folder, name) == 0)
    return fsync(folder) == 0;
  remove_quietly(folder, aside);
  return false;
}
