/* A temporary state folder for tests of what is kept there. Include behind cmocka.h. */
#ifndef STATE_FOLDER_H
#define STATE_FOLDER_H

#include "slice.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static int make_folder(void **unused)
{
  (void)unused;
  snprintf(folder, sizeof folder, "/tmp/parry-state-XXXXXX");
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **unused)
{
  (void)unused;
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command);
}

static inline const char *in_folder(const char *name)
{
  static char path[2][256];
  static int turn;
  turn = !turn;
  snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
  return path[turn];
}

static inline void put_file(const char *name, struct pry_slice bytes)
{
  int fd = open(in_folder(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, bytes.data, bytes.size), (ssize_t)bytes.size);
  assert_int_equal(close(fd), 0);
}

static inline bool is_there(const char *name)
{
  struct stat about;
  return lstat(in_folder(name), &about) == 0;
}

#endif
