#include "state_file.h"

#include "replace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct place {
  const char *state_dir, *name;
  char *why; /* PRY_STATE_WHY_MAX */
};

static bool complain(const struct place *place, const char *what, const char *cure)
{
  snprintf(place->why, PRY_STATE_WHY_MAX, "%s/%s: %s; %s", place->state_dir, place->name, what, cure);
  return false;
}

static bool complain_errno(const struct place *place, const char *cure)
{
  return complain(place, strerror(errno), cure);
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

static const char REMOVE[] = "if you do not know who put it there, remove it: parry writes a new one";

static bool is_ours(const struct place *place, int fd, size_t max)
{
  char what[128];
  struct stat about;
  if (fstat(fd, &about) != 0)
    return complain_errno(place, "it is not used");
  if (!S_ISREG(about.st_mode))
    return complain(place, "is not a regular file", REMOVE);
  if (about.st_uid != geteuid()) {
    snprintf(what, sizeof what, "belongs to user %u, parry runs as user %u", (unsigned)about.st_uid,
             (unsigned)geteuid());
    return complain(place, what, "chown it to parry's user if it is yours, else remove it");
  }
  if (about.st_mode & 022) {
    snprintf(what, sizeof what, "may be written by others (mode %04o)", (unsigned)(about.st_mode & 07777));
    return complain(place, what, "look whether it is what you expect, then chmod 600 it");
  }
  if (about.st_size >= 0 && (size_t)about.st_size <= max)
    return true;
  snprintf(what, sizeof what, "is larger than %zu bytes", max);
  return complain(place, what, REMOVE);
}

static bool read_whole(const struct place *place, int fd, size_t max, struct pry_buffer *text)
{
  size_t before = text->size;
  for (;;) {
    char piece[16 * 1024];
    ssize_t got = read(fd, piece, sizeof piece);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return complain_errno(place, "it is not used");
    if (got == 0)
      return true;
    if (text->size - before + (size_t)got > max)
      return complain(place, "grows while it is read", REMOVE);
    if (!pry_buffer_append(text, piece, (size_t)got))
      return complain(place, "memory is short", "it is not used");
  }
}

enum pry_state_result pry_state_file_read(const char *state_dir, const char *name, size_t max, struct pry_buffer *text,
                                          char why[PRY_STATE_WHY_MAX])
{
  struct place place = {state_dir, name, why};
  size_t before = text->size;
  int folder = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int fd = folder >= 0 ? openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
  enum pry_state_result result = fd < 0 && errno == ENOENT ? PRY_STATE_ABSENT : PRY_STATE_REFUSED;
  if (fd < 0 && errno == ELOOP)
    complain(&place, "is a symbolic link", REMOVE);
  else if (fd < 0 && result == PRY_STATE_REFUSED)
    complain_errno(&place, "let parry's user read it");
  else if (fd >= 0 && is_ours(&place, fd, max) && read_whole(&place, fd, max, text))
    result = PRY_STATE_READ;
  if (result != PRY_STATE_READ)
    text->size = before;
  if (fd >= 0)
    close(fd);
  if (folder >= 0)
    close(folder);
  return result;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

bool pry_state_file_write(const char *state_dir, const char *name, struct pry_slice text, char why[PRY_STATE_WHY_MAX])
{
  struct place place = {state_dir, name, why};
  char aside[128];
  int length = snprintf(aside, sizeof aside, "%s.new", name);
  if (length < 0 || (size_t)length >= sizeof aside)
    return complain(&place, "its name is too long", "this is a defect of parry");
  int folder = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool ok = folder >= 0 && pry_replace_file(folder, name, aside, text);
  if (!ok)
    complain_errno(&place, "give parry's user a folder with room to write to (--state DIR); the old file stays");
  if (folder >= 0)
    close(folder);
  return ok;
}
