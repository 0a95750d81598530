#include "watcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 8, LINKS_MAX = 40, WATCHES_MAX = 512 };

/* No IN_MODIFY: a file that is being written is not ready to be read, and closing it follows. */
#define EVENTS                                                                                                         \
  (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ATTRIB)

struct pry_watcher {
  int fd;
  struct pry_watch *watch;
  void (*changed)(void *user);
  void *user;
  int watches[WATCHES_MAX];
  size_t count;
};

/* The watches one renewal has set. */
struct renewal {
  struct pry_watcher *watcher;
  int watches[WATCHES_MAX];
  size_t count;
  bool complete;
};

/* A removed watch says IN_IGNORED, also when we removed it; whatever made it disappear has been said before. */
static bool tells_of_change(const char *data, size_t size)
{
  bool told = false;
  while (size >= sizeof(struct inotify_event)) {
    struct inotify_event event;
    memcpy(&event, data, sizeof event);
    size_t whole = sizeof event + event.len;
    told |= (event.mask & ~(uint32_t)(IN_IGNORED | IN_ISDIR)) != 0;
    if (whole > size)
      break;
    data += whole;
    size -= whole;
  }
  return told;
}

static void readable(int fd, void *user)
{
  struct pry_watcher *watcher = user;
  char data[16 * 1024];
  bool told = false;
  ssize_t got;
  while ((got = read(fd, data, sizeof data)) > 0)
    told |= tells_of_change(data, (size_t)got);
  if (told)
    watcher->changed(watcher->user);
}

struct pry_watcher *pry_watcher_new(struct pry_loop *loop, void (*changed)(void *user), void *user)
{
  struct pry_watcher *watcher = calloc(1, sizeof *watcher);
  if (!watcher)
    return NULL;
  watcher->changed = changed;
  watcher->user = user;
  watcher->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  watcher->watch = pry_watch_new(loop, watcher->fd, PRY_LOOP_READABLE, readable, watcher);
  if (watcher->watch)
    return watcher;
  pry_watcher_free(watcher);
  return NULL;
}

void pry_watcher_free(struct pry_watcher *watcher)
{
  if (!watcher)
    return;
  pry_watch_free(watcher->watch);
  if (watcher->fd >= 0)
    close(watcher->fd);
  free(watcher);
}

size_t pry_watcher_count(const struct pry_watcher *watcher)
{
  return watcher->count;
}

/* ---- renewing --------------------------------------------------------------------------------------------- */

static bool is_in(const int *watches, size_t count, int watch)
{
  for (size_t i = 0; i < count; i++)
    if (watches[i] == watch)
      return true;
  return false;
}

/* True when the folder is new to this renewal: watching what is watched already gives the same descriptor back. */
static bool add_watch(struct renewal *renewal, const char *path)
{
  int watch = renewal->count < WATCHES_MAX ? inotify_add_watch(renewal->watcher->fd, path, EVENTS | IN_ONLYDIR) : -1;
  if (watch < 0)
    renewal->complete = false;
  if (watch < 0 || is_in(renewal->watches, renewal->count, watch))
    return false;
  renewal->watches[renewal->count++] = watch;
  return true;
}

/* A folder that was met before is not entered again, so symlinks that lead back up end here. */
static void add_tree(struct renewal *renewal, const char *path, int depth)
{
  char below[PATH_MAX];
  struct stat about;
  struct dirent *entry;
  DIR *folder = add_watch(renewal, path) ? opendir(path) : NULL;
  while (folder && (entry = readdir(folder))) {
    int length = snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
    if (entry->d_name[0] != '.' && length > 0 && (size_t)length < sizeof below &&
        fstatat(dirfd(folder), entry->d_name, &about, 0) == 0 && S_ISDIR(about.st_mode) && depth < DEPTH_MAX)
      add_tree(renewal, below, depth + 1);
  }
  if (folder)
    closedir(folder);
}

static bool parent_of(const char *path, char parent[PATH_MAX])
{
  int length = snprintf(parent, PATH_MAX, "%s", path);
  if (length <= 0 || length >= PATH_MAX)
    return false;
  while (length > 1 && parent[length - 1] == '/')
    parent[--length] = '\0';
  char *slash = strrchr(parent, '/');
  if (!slash)
    memcpy(parent, ".", sizeof ".");
  else if (slash == parent)
    parent[1] = '\0';
  else
    *slash = '\0';
  return true;
}

/* One symlink further; false when `path` is none. */
static bool follow(char path[PATH_MAX], const char *parent)
{
  char target[PATH_MAX], joined[PATH_MAX];
  ssize_t size = readlink(path, target, sizeof target - 1);
  if (size <= 0)
    return false;
  target[size] = '\0';
  int length = target[0] == '/' ? snprintf(joined, sizeof joined, "%s", target)
                                : snprintf(joined, sizeof joined, "%s/%s", parent, target);
  if (length <= 0 || (size_t)length >= sizeof joined)
    return false;
  memcpy(path, joined, (size_t)length + 1);
  return true;
}

/* The folders that hold the symlinks which the path itself, or one of the folders above it, is. */
static void add_links_above(struct renewal *renewal, const char *folder)
{
  char path[PATH_MAX], parent[PATH_MAX];
  int length = snprintf(path, sizeof path, "%s", folder);
  if (length <= 0 || (size_t)length >= sizeof path)
    return;
  for (int links = 0; links < LINKS_MAX;) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') /* a trailing slash would hide the link from readlink */
      path[--end] = '\0';
    if (!parent_of(path, parent) || strcmp(path, parent) == 0 || strcmp(path, ".") == 0)
      return;
    if (follow(path, parent)) {
      add_watch(renewal, parent);
      links++;
    } else {
      memcpy(path, parent, strlen(parent) + 1);
    }
  }
}

bool pry_watcher_renew(struct pry_watcher *watcher, const char *folder)
{
  struct renewal renewal = {.watcher = watcher, .complete = true};
  char parent[PATH_MAX];
  add_links_above(&renewal, folder);
  add_tree(&renewal, folder, 0);
  if (access(folder, F_OK) < 0 && parent_of(folder, parent))
    add_watch(&renewal, parent); /* it is being replaced: see it come back */
  for (size_t i = 0; i < watcher->count; i++)
    if (!is_in(renewal.watches, renewal.count, watcher->watches[i]))
      inotify_rm_watch(watcher->fd, watcher->watches[i]); /* gone already: fine */
  memcpy(watcher->watches, renewal.watches, renewal.count * sizeof *renewal.watches);
  watcher->count = renewal.count;
  return renewal.complete;
}
