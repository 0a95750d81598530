/* Reading a folder of policies once, whole. Declared in registry.h. */
#include "registry.h"
#include "shipped.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOLDER_DEPTH_MAX = 8 };

struct reading {
  struct pry_policy_set *set;
  struct pry_buffer *report;
  size_t total;
};

static bool complain(struct reading *reading, const char *path, const char *why)
{
  pry_buffer_append_format(reading->report, "%s: %s\n", path, why);
  return false;
}

static bool read_all(int fd, struct pry_buffer *text)
{
  for (;;) {
    if (!pry_buffer_reserve(text, 1))
      return false;
    size_t room = text->capacity - text->size - 1;
    if (text->limit && room > text->limit - text->size)
      room = text->limit - text->size;
    ssize_t got = read(fd, text->data + text->size, room);
    if (got == 0)
      return true;
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return false;
    text->size += (size_t)got;
  }
}

static bool read_file(struct reading *reading, int folder, const char *name, const char *path)
{
  struct pry_buffer text;
  pry_buffer_init(&text, PRY_POLICY_FILE_MAX);
  bool ok = false;
  int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat about;
  if (fd < 0 || fstat(fd, &about) < 0) {
    ok = errno == ENOENT ? true : complain(reading, path, strerror(errno)); /* gone since it was listed: not ours */
    goto done;
  }
  if (!S_ISREG(about.st_mode)) {
    complain(reading, path, "is not a regular file");
    goto done;
  }
  if (about.st_size > PRY_POLICY_FILE_MAX || !read_all(fd, &text)) {
    complain(reading, path, "cannot be read whole (at most 1 MiB a file)");
    goto done;
  }
  reading->total += text.size;
  if (reading->total > PRY_POLICY_SET_MAX) {
    complain(reading, path, "the set is larger than 16 MiB in all");
    goto done;
  }
  ok = pry_policy_set_add(reading->set, path, pry_buffer_slice(&text)) ||
       complain(reading, path, "cannot be kept (at most 512 files, or memory is short)");
done:
  if (fd >= 0)
    close(fd);
  pry_buffer_fini(&text);
  return ok;
}

static bool ends_with_lua(const char *name)
{
  size_t length = strlen(name);
  return length > 4 && strcmp(name + length - 4, ".lua") == 0;
}

static bool read_folder(struct reading *reading, int parent, const char *name, const char *prefix, int depth);

static bool read_entry(struct reading *reading, int folder, const char *name, const char *prefix, int depth)
{
  char path[512];
  int length = snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "/" : "", name);
  if (length < 0 || (size_t)length >= sizeof path)
    return complain(reading, name, "the path is too long");
  struct stat about;
  if (fstatat(folder, name, &about, 0) < 0)
    return errno == ENOENT || complain(reading, path, strerror(errno));
  if (S_ISDIR(about.st_mode))
    return depth < FOLDER_DEPTH_MAX ? read_folder(reading, folder, name, path, depth + 1)
                                    : complain(reading, path, "folders are nested deeper than 8");
  return !ends_with_lua(name) || read_file(reading, folder, name, path);
}

static bool read_folder(struct reading *reading, int parent, const char *name, const char *prefix, int depth)
{
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
  if (!folder) {
    complain(reading, *prefix ? prefix : name, strerror(errno));
    if (fd >= 0)
      close(fd);
    return false;
  }
  bool ok = true;
  struct dirent *entry;
  while (ok && (errno = 0, entry = readdir(folder)))
    if (entry->d_name[0] != '.') /* also the ..data of a ConfigMap, which would load everything twice */
      ok = read_entry(reading, dirfd(folder), entry->d_name, prefix, depth);
  if (ok && errno) /* what is listed in part would be taken for a set without the rest */
    ok = complain(reading, *prefix ? prefix : name, strerror(errno));
  closedir(folder);
  return ok;
}

/* Reads and seals, whatever the folder holds, and completes it from `shipped` (NULL: not). */
static struct pry_policy_set *read_set(const char *folder, const char *shipped, struct pry_buffer *report)
{
  struct reading reading = {.set = pry_policy_set_new(), .report = report};
  if (!reading.set) {
    complain(&reading, folder, "memory is short");
    return NULL;
  }
  bool ok = read_folder(&reading, AT_FDCWD, folder, "", 0) && pry_shipped_complete(reading.set, shipped, report) &&
            (pry_policy_set_seal(reading.set) || complain(&reading, folder, "memory is short"));
  if (ok)
    return reading.set;
  pry_policy_set_free(reading.set);
  return NULL;
}

static bool is_same_folder(const char *a, const char *b)
{
  struct stat one, other;
  return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

struct pry_policy_set *pry_policy_set_read_any(const char *folder, struct pry_buffer *report)
{
  return read_set(folder, NULL, report);
}

struct pry_policy_set *pry_policy_set_read(const char *folder, const char *shipped, struct pry_buffer *report)
{
  struct pry_policy_set *set =
      read_set(folder, shipped && *shipped && !is_same_folder(folder, shipped) ? shipped : NULL, report);
  struct reading reading = {.report = report};
  if (!set || pry_policy_set_find(set, "init.lua"))
    return set;
  complain(&reading, folder, "has no init.lua; point --policies at the folder that holds it");
  pry_policy_set_free(set);
  return NULL;
}

struct pry_policy_set *pry_policy_set_from_text(const char *init, const char *shipped, struct pry_buffer *report)
{
  struct reading reading = {.set = pry_policy_set_new(), .report = report};
  bool ok = reading.set && pry_policy_set_add(reading.set, "init.lua", pry_slice_of(init)) &&
            pry_shipped_complete(reading.set, shipped, report) && pry_policy_set_seal(reading.set);
  if (ok)
    return reading.set;
  complain(&reading, "init.lua", "cannot be kept: memory is short");
  if (reading.set)
    pry_policy_set_free(reading.set);
  return NULL;
}
