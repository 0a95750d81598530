#include "clients_edit.h"

#include "replace_file.h"

#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char EMPTY[] = "{ \"clients\": [\n] }\n";

bool pry_client_new_key(char key[PRY_CLIENT_NEW_KEY])
{
  unsigned char bytes[32], text[48];
  if (RAND_bytes(bytes, sizeof bytes) != 1)
    return false;
  EVP_EncodeBlock(text, bytes, sizeof bytes); /* 44 characters, the last is '=' */
  for (unsigned char *c = text; *c; c++)
    *c = *c == '+' ? '-' : *c == '/' ? '_' : *c; /* RFC 4648 §5 */
  snprintf(key, PRY_CLIENT_NEW_KEY, "sk-parry-%.43s", (const char *)text);
  OPENSSL_cleanse(bytes, sizeof bytes);
  OPENSSL_cleanse(text, sizeof text);
  return true;
}

static bool complain(struct pry_report *report, const char *shown, const char *what)
{
  pry_report_add(report, PRY_FINDING_ERROR, shown, "%s", what);
  return false;
}

/* ---- the text --------------------------------------------------------------------------------------------- */

static bool read_file(const char *path, struct pry_buffer *text, struct stat *about)
{
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  bool ok = fd >= 0 && fstat(fd, about) == 0 && S_ISREG(about->st_mode);
  while (ok) {
    char piece[4096];
    ssize_t got = read(fd, piece, sizeof piece);
    if (got < 0 && errno == EINTR)
      continue;
    ok = got >= 0 && pry_buffer_append(text, piece, (size_t)got);
    OPENSSL_cleanse(piece, sizeof piece);
    if (got <= 0)
      break;
  }
  if (fd >= 0)
    close(fd);
  return ok;
}

/* The file, whole and without mistakes; one that is not there is an empty list when `create`. */
static bool read_good(const char *path, const char *shown, bool create, struct pry_buffer *text, struct stat *about,
                      struct pry_report *report)
{
  if (create && access(path, F_OK) < 0 && errno == ENOENT) {
    *about = (struct stat){.st_mode = 0600, .st_uid = geteuid(), .st_gid = getegid()};
    return pry_buffer_append_text(text, EMPTY) || complain(report, shown, "memory is short");
  }
  struct pry_clients *clients = pry_clients_new();
  struct pry_client_table *table = clients ? pry_client_table_read(clients, path, shown, report) : NULL;
  bool ok = table != NULL;
  pry_client_table_unref(table);
  pry_clients_free(clients);
  return ok && (read_file(path, text, about) || complain(report, shown, strerror(errno)));
}

static bool is_good(struct pry_slice text, const char *shown, struct pry_report *report)
{
  struct pry_clients *clients = pry_clients_new();
  struct pry_client_table *table = clients ? pry_client_table_parse(clients, text, shown, false, report) : NULL;
  bool ok = table != NULL;
  pry_client_table_unref(table);
  pry_clients_free(clients);
  return ok;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

static void sync_folder(const char *path)
{
  char copy[PATH_MAX];
  snprintf(copy, sizeof copy, "%s", path);
  int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return; /* it is renamed; only a crash of the machine could still lose it */
  fsync(fd);
  close(fd);
}

/* Whoever could read the old file must be able to read the new one: the gateway, run by another user. */
static bool keep_owner(int fd, const struct stat *about)
{
  struct stat made;
  if (fstat(fd, &made) != 0)
    return false;
  bool same = made.st_uid == about->st_uid && made.st_gid == about->st_gid;
  return same || fchown(fd, about->st_uid, about->st_gid) == 0;
}

/* A symlink stays one: what it leads to is replaced. */
static bool write_file(const char *path, struct pry_slice text, const struct stat *about)
{
  char aside[PATH_MAX];
  char *real = realpath(path, NULL);
  const char *target = real ? real : path;
  int length = snprintf(aside, sizeof aside, "%s.XXXXXX", target);
  int fd = length > 0 && (size_t)length < sizeof aside ? mkostemp(aside, O_CLOEXEC) : -1;
  bool ok = fd >= 0 && keep_owner(fd, about) && fchmod(fd, about->st_mode & 0777) == 0 && pry_write_all(fd, text) &&
            fsync(fd) == 0;
  int saved = errno;
  if (fd >= 0 && close(fd) != 0 && ok) {
    saved = errno;
    ok = false;
  }
  if (ok && rename(aside, target) != 0) {
    saved = errno;
    ok = false;
  }
  if (!ok && fd >= 0)
    unlink(aside);
  if (ok)
    sync_folder(target);
  free(real);
  errno = saved;
  return ok;
}

static bool replace(const char *path, const char *shown, struct pry_slice text, const struct stat *about,
                    struct pry_report *report)
{
  if (!is_good(text, shown, report))
    return false;
  return write_file(path, text, about) || complain(report, shown, strerror(errno));
}

static void wipe(struct pry_buffer *text)
{
  if (text->data)
    OPENSSL_cleanse(text->data, text->capacity);
  pry_buffer_fini(text);
}

/* ---- adding ----------------------------------------------------------------------------------------------- */

static struct pry_slice list_in(const struct pry_buffer *text)
{
  struct pry_json_value list;
  return pry_json_get(pry_buffer_slice(text), "clients", &list) ? list.raw : (struct pry_slice){NULL, 0};
}

/* Behind the last client, or behind the bracket. */
static size_t end_of_list(const struct pry_buffer *text, bool *first)
{
  struct pry_json_iterator iterator;
  struct pry_slice list = list_in(text), key;
  struct pry_json_value value;
  const char *end = list.data + 1;
  *first = true;
  pry_json_iterate(&iterator, list);
  while (pry_json_next(&iterator, &key, &value)) {
    end = value.raw.data + value.raw.size;
    *first = false;
  }
  return (size_t)(end - text->data);
}

bool pry_clients_edit_add(const char *path, const char *shown, struct pry_slice entry, struct pry_report *report)
{
  struct pry_buffer text, changed;
  struct stat about;
  pry_buffer_init(&text, PRY_CLIENTS_FILE_MAX);
  pry_buffer_init(&changed, PRY_CLIENTS_FILE_MAX);
  bool ok = read_good(path, shown, true, &text, &about, report);
  if (ok) {
    bool first;
    size_t at = end_of_list(&text, &first);
    ok = (pry_buffer_append(&changed, text.data, at) && pry_buffer_append_text(&changed, first ? "\n  " : ",\n  ") &&
          pry_buffer_append_slice(&changed, entry) && pry_buffer_append(&changed, text.data + at, text.size - at)) ||
         complain(report, shown, "would be larger than 4 MiB, or memory is short");
  }
  ok = ok && replace(path, shown, pry_buffer_slice(&changed), &about, report);
  wipe(&changed);
  wipe(&text);
  return ok;
}

/* ---- removing --------------------------------------------------------------------------------------------- */

/* The bytes that go: the client, the comma that parted it from its neighbour, and the space between. */
static bool find_client(const struct pry_buffer *text, const char *name, size_t *from, size_t *to)
{
  struct pry_json_iterator iterator;
  struct pry_slice list = list_in(text), key;
  struct pry_json_value value, found;
  const char *behind = list.data + 1; /* the end of the one before */
  bool first = true;
  pry_json_iterate(&iterator, list);
  while (pry_json_next(&iterator, &key, &value)) {
    const char *end = value.raw.data + value.raw.size;
    if (pry_json_get(value.raw, "name", &found) && pry_json_equals(found.raw, pry_slice_of(name))) {
      if (first && pry_json_next(&iterator, &key, &value)) {
        *from = (size_t)(behind - text->data);
        *to = (size_t)(value.raw.data - text->data);
        while (*from < *to && (text->data[*from] == ' ' || text->data[*from] == '\n'))
          ++*from; /* the next one takes this one's place and indentation */
        return true;
      }
      *from = (size_t)(behind - text->data);
      *to = (size_t)(end - text->data);
      return true;
    }
    behind = end;
    first = false;
  }
  return false;
}

bool pry_clients_edit_remove(const char *path, const char *shown, const char *name, struct pry_report *report)
{
  struct pry_buffer text, changed;
  struct stat about;
  size_t from = 0, to = 0;
  pry_buffer_init(&text, PRY_CLIENTS_FILE_MAX);
  pry_buffer_init(&changed, PRY_CLIENTS_FILE_MAX);
  bool ok = read_good(path, shown, false, &text, &about, report);
  if (ok && !find_client(&text, name, &from, &to))
    ok = complain(report, shown, "has no client of that name; `parry client list` shows them");
  ok = ok &&
       ((pry_buffer_append(&changed, text.data, from) && pry_buffer_append(&changed, text.data + to, text.size - to)) ||
        complain(report, shown, "memory is short"));
  ok = ok && replace(path, shown, pry_buffer_slice(&changed), &about, report);
  wipe(&changed);
  wipe(&text);
  return ok;
}
