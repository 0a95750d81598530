#include "places.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_folder(const char *path)
{
  struct stat about;
  return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

const char *pry_place_policies(const char *given, char *error, size_t error_size)
{
  static const char *const places[] = {"policies", "/etc/parry/policies"};
  if (given)
    return given;
  for (size_t i = 0; i < sizeof places / sizeof *places; i++)
    if (is_folder(places[i]))
      return places[i];
  snprintf(error, error_size,
           "no policies: neither ./policies nor /etc/parry/policies is a folder; name one with --policies DIR, or "
           "watch `parry demo` first");
  return NULL;
}

bool pry_place_admin(const char *given, bool client, char *address, size_t size)
{
  const char *named = given ? given : client ? getenv("PARRY_ADMIN") : NULL;
  const char *runtime = getenv("XDG_RUNTIME_DIR");
  int length;
  if (named && *named)
    length = snprintf(address, size, "%s", named);
  else if (geteuid() == 0)
    length = snprintf(address, size, "unix:/run/parry/admin.sock");
  else if (runtime && *runtime == '/')
    length = snprintf(address, size, "unix:%s/parry/admin.sock", runtime);
  else
    length = snprintf(address, size, "unix:/tmp/parry-%u/admin.sock", (unsigned)geteuid());
  return length >= 0 && (size_t)length < size;
}

static bool complain(char *error, size_t error_size, const char *folder, const char *why)
{
  snprintf(error, error_size,
           "cannot use the folder %s for the admin socket: %s; choose another with --admin unix:PATH", folder, why);
  return false;
}

bool pry_place_make_folder(const char *address, char *error, size_t error_size)
{
  char folder[PRY_PLACE_MAX];
  if (strncmp(address, "unix:", 5) != 0)
    return true;
  int length = snprintf(folder, sizeof folder, "%s", address + 5);
  char *slash = strrchr(folder, '/');
  if (length < 0 || (size_t)length >= sizeof folder || !slash || slash == folder)
    return true; /* the listener says what is wrong with it, if anything */
  *slash = '\0';
  if (mkdir(folder, 0700) < 0 && errno != EEXIST)
    return complain(error, error_size, folder, strerror(errno));
  struct stat about;
  if (stat(folder, &about) < 0)
    return complain(error, error_size, folder, strerror(errno));
  bool ours = about.st_uid == geteuid() || about.st_uid == 0;
  if (strncmp(folder, "/tmp/parry-", 11) == 0 && (lstat(folder, &about) < 0 || !S_ISDIR(about.st_mode) || !ours))
    return complain(error, error_size, folder, "it belongs to somebody else");
  return true;
}
