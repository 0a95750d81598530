#include "watcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
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

/* Of a folder above: whether it is still there, and nothing of what goes on in it. */
#define LEAVING (IN_DELETE_SELF | IN_MOVE_SELF | IN_MASK_ADD)

struct pry_watcher {
  int fd;
  struct pry_watch *watch;
  void (*changed)(void *user);
  void *user;
  int watches[WATCHES_MAX];
  atomic_size_t count; /* read by the loop's thread while another one renews */
  char complaint[512];
};

/* One watch of a renewal. */
struct place {
  int watch;
  bool entered; /* its entries have been looked at */
};

struct renewal {
  struct pry_watcher *watcher;
  struct place places[WATCHES_MAX];
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

const char *pry_watcher_complaint(const struct pry_watcher *watcher)
{
  return watcher->complaint;
}

/* ---- one watch ---------------------------------------------------------------------------------------------- */

/* The first one is enough: each has its cure in it. */
static void complain(struct renewal *renewal, const char *path, const char *what)
{
  char *complaint = renewal->watcher->complaint;
  if (!*complaint)
    snprintf(complaint, sizeof renewal->watcher->complaint, "%.250s: %s", path, what);
}

static void complain_of_limit(struct renewal *renewal, const char *path)
{
  renewal->complete = false;
  if (errno == ENOSPC)
    complain(renewal, path, "no inotify watch is left for this user; raise the sysctl fs.inotify.max_user_watches");
  else if (errno == ENOMEM)
    complain(renewal, path, "the kernel has no memory for another inotify watch");
  else
    complain(renewal, path, "more than 512 folders, which are not all watched; keep other things out of the policies");
}

/* NULL: it cannot be watched, and errno tells why. Watching a folder again gives the same place. */
static struct place *add_watch(struct renewal *renewal, const char *path, uint32_t events)
{
  int watch = inotify_add_watch(renewal->watcher->fd, path, events | IN_ONLYDIR);
  if (watch < 0) {
    if (errno == ENOSPC || errno == ENOMEM)
      complain_of_limit(renewal, path);
    return NULL;
  }
  for (size_t i = 0; i < renewal->count; i++)
    if (renewal->places[i].watch == watch)
      return &renewal->places[i];
  if (renewal->count == WATCHES_MAX) {
    inotify_rm_watch(renewal->watcher->fd, watch);
    errno = EMFILE;
    complain_of_limit(renewal, path);
    return NULL;
  }
  struct place *place = &renewal->places[renewal->count++];
  *place = (struct place){.watch = watch};
  return place;
}

/* ---- the way to a path ---------------------------------------------------------------------------------------- */

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

static bool is_link(const char *path)
{
  struct stat about;
  return lstat(path, &about) == 0 && S_ISLNK(about.st_mode);
}

/* Whatever would make `to` lead elsewhere: the folders that hold its symlinks and, of each folder on the way, that it
 * stays where it is. What is not there, or (`lost`) not to be read, shows in the folder above it when it comes back. */
static void add_way(struct renewal *renewal, const char *to, bool lost)
{
  char path[PATH_MAX], parent[PATH_MAX];
  int length = snprintf(path, sizeof path, "%s", to);
  if (length <= 0 || (size_t)length >= sizeof path)
    return;
  for (int links = 0; links < LINKS_MAX;) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') /* a trailing slash would hide the link from readlink */
      path[--end] = '\0';
    if (!parent_of(path, parent) || strcmp(path, parent) == 0 || strcmp(path, ".") == 0)
      return;
    bool link = is_link(path);
    bool missing = !link && !add_watch(renewal, path, LEAVING) && (lost || errno == ENOENT || errno == ENOTDIR);
    if (link || missing)
      add_watch(renewal, parent, EVENTS);
    links += link;
    if (!link || !follow(path, parent)) /* read behind the watch: a swap between the two is told */
      memcpy(path, parent, strlen(parent) + 1);
  }
}

/* ---- what is below --------------------------------------------------------------------------------------------- */

static bool is_policy(const char *name, const struct stat *about)
{
  size_t length = strlen(name);
  return S_ISREG(about->st_mode) && length > 4 && strcmp(name + length - 4, ".lua") == 0;
}

/* A mounted file stays the file that was mounted, whoever replaces it outside, and no poll finds out. */
static void check_mount(struct renewal *renewal, const char *path)
{
  struct statx about;
  if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &about) == 0 &&
      (about.stx_attributes & STATX_ATTR_MOUNT_ROOT))
    complain(renewal, path,
             "is mounted by itself, so a new version that replaces it outside never arrives; mount the folder (in "
             "Kubernetes: the ConfigMap without subPath)");
}

static bool add_tree(struct renewal *renewal, const char *path, int depth);

static void add_entry(struct renewal *renewal, int folder, const char *name, const char *path, int depth)
{
  struct stat about, target;
  if (fstatat(folder, name, &about, AT_SYMLINK_NOFOLLOW) != 0)
    return;
  bool link = S_ISLNK(about.st_mode), dangling = link && fstatat(folder, name, &target, 0) != 0;
  if (link && !dangling)
    about = target;
  bool below = S_ISDIR(about.st_mode) && depth < DEPTH_MAX, policy = is_policy(name, &about);
  if (dangling || (link && (below || policy)))
    add_way(renewal, path, false);
  if (below)
    add_tree(renewal, path, depth + 1);
  else if (policy && !link)
    check_mount(renewal, path);
}

/* False: it cannot be watched or listed. A folder that was met before is not entered again, so symlinks that lead back
 * up end here. */
static bool add_tree(struct renewal *renewal, const char *path, int depth)
{
  char below[PATH_MAX];
  struct dirent *entry;
  struct place *place = add_watch(renewal, path, EVENTS);
  if (place && place->entered)
    return true;
  DIR *folder = place ? opendir(path) : NULL;
  if (!folder) {
    renewal->complete = false;
    return false;
  }
  place->entered = true;
  while ((entry = readdir(folder))) {
    int length = snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
    if (entry->d_name[0] != '.' && length > 0 && (size_t)length < sizeof below)
      add_entry(renewal, dirfd(folder), entry->d_name, below, depth);
  }
  closedir(folder);
  return true;
}

/* ---- renewing --------------------------------------------------------------------------------------------- */

/* All old watches go first, so that none stays for a reason that has passed. What happens before the new ones are set
 * is not told, but seen: whoever renews reads afterwards. */
static void drop_watches(struct pry_watcher *watcher)
{
  size_t count = atomic_exchange(&watcher->count, 0);
  for (size_t i = 0; i < count; i++)
    inotify_rm_watch(watcher->fd, watcher->watches[i]); /* gone already: fine */
}

bool pry_watcher_renew(struct pry_watcher *watcher, const char *folder)
{
  struct renewal renewal = {.watcher = watcher, .complete = true};
  watcher->complaint[0] = '\0';
  drop_watches(watcher);
  add_way(&renewal, folder, false);
  if (!add_tree(&renewal, folder, 0)) {
    add_way(&renewal, folder, true); /* it is gone, or being replaced: see it come back */
    renewal.complete = add_tree(&renewal, folder, 0) && !watcher->complaint[0];
  }
  for (size_t i = 0; i < renewal.count; i++)
    watcher->watches[i] = renewal.places[i].watch;
  atomic_store(&watcher->count, renewal.count);
  return renewal.complete;
}
