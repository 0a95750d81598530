/*
 * replay.c: runs a fuzz target over files, as an ordinary test.
 *
 * Arguments are files, or directories whose files are taken. Fails when there was none, or when the target aborts.
 */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

enum { INPUT_MAX = 16 * 1024 * 1024 };

static size_t replayed;

static void fail(const char *path)
{
  perror(path);
  exit(1);
}

static void replay_file(const char *path, size_t size)
{
  uint8_t *data = malloc(size ? size : 1); /* exactly its size, for the sanitizer */
  FILE *file = fopen(path, "rb");
  if (!data || !file || fread(data, 1, size, file) != size)
    fail(path);
  fclose(file);
  LLVMFuzzerTestOneInput(data, size);
  free(data);
  replayed++;
}

static void replay(const char *path);

static void replay_directory(const char *path)
{
  DIR *directory = opendir(path);
  if (!directory)
    fail(path);
  for (struct dirent *entry; (entry = readdir(directory));) {
    char child[4096];
    if (entry->d_name[0] == '.')
      continue;
    int length = snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
    if (length < 0 || (size_t)length >= sizeof child)
      fail(path);
    replay(child);
  }
  closedir(directory);
}

static void replay(const char *path)
{
  struct stat status;
  if (stat(path, &status) != 0)
    fail(path);
  if (S_ISDIR(status.st_mode))
    replay_directory(path);
  else if (status.st_size <= INPUT_MAX)
    replay_file(path, (size_t)status.st_size);
}

int main(int count, char **paths)
{
  for (int i = 1; i < count; i++)
    replay(paths[i]);
  printf("%zu inputs\n", replayed);
  return replayed ? 0 : 1;
}
