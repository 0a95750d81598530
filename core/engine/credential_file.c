#include "credential_file.h"

#include "replace_file.h"

#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 2 * PRY_TOKEN_MAX, DIGEST_HEX_SIZE = 2 * 32 + 1 };

bool pry_token_valid(struct pry_slice token)
{
  if (!token.size || token.size > PRY_TOKEN_MAX)
    return false;
  for (size_t i = 0; i < token.size; i++)
    if (token.data[i] <= ' ' || token.data[i] > '~')
      return false;
  return true;
}

static void wipe(struct pry_buffer *buffer)
{
  if (buffer->data)
    explicit_bzero(buffer->data, buffer->capacity);
  pry_buffer_fini(buffer);
}

static bool digest(struct pry_slice secret, char hex[DIGEST_HEX_SIZE])
{
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (!EVP_Digest(secret.size ? secret.data : "", secret.size, bytes, &size, EVP_sha256(), NULL))
    return false;
  for (unsigned i = 0; i < size && 2 * i + 2 < DIGEST_HEX_SIZE; i++)
    snprintf(hex + (size_t)2 * i, 3, "%02x", bytes[i]);
  return true;
}

/* A name from a policy file becomes a file's name: everything but letters, digits, '-' and '_' is spelled %XX, so that
 * it can neither leave the folder nor collide with another. */
static const char *file_name(struct pry_buffer *path, const char *name, const char *suffix)
{
  for (; *name; name++) {
    bool plain = (*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') || (*name >= '0' && *name <= '9') ||
                 *name == '-' || *name == '_';
    if (!(plain ? pry_buffer_append(path, name, 1)
                : pry_buffer_append_format(path, "%%%02X", (unsigned)(unsigned char)*name)))
      return NULL;
  }
  return pry_buffer_append_text(path, suffix) ? pry_buffer_text(path) : NULL;
}

static int open_folder(const char *state_dir, bool create)
{
  int state = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (state < 0)
    return -1;
  if (create && mkdirat(state, "credentials", 0700) != 0 && errno != EEXIST) {
    close(state);
    return -1;
  }
  int folder = openat(state, "credentials", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  int saved = errno;
  close(state);
  errno = saved;
  return folder;
}

static bool read_all(int fd, struct pry_buffer *text)
{
  for (;;) {
    char piece[1024];
    ssize_t got = read(fd, piece, sizeof piece);
    if (got < 0 && errno == EINTR)
      continue;
    bool ok = got >= 0 && pry_buffer_append(text, piece, (size_t)got);
    explicit_bzero(piece, sizeof piece);
    if (got <= 0 || !ok)
      return ok;
  }
}

static bool parse(struct pry_slice text, struct pry_slice secret, struct pry_buffer *refresh_token, const char **why)
{
  struct pry_json_value origin, token;
  char expected[DIGEST_HEX_SIZE];
  *why = "is not what parry writes";
  if (pry_json_parse(text, NULL) != PRY_JSON_OK || !pry_json_get(text, "secret_sha256", &origin) ||
      !pry_json_get(text, "refresh_token", &token) || !digest(secret, expected))
    return false;
  if (!pry_json_equals(origin.raw, pry_slice_of(expected)))
    return true; /* of another secret */
  size_t before = refresh_token->size;
  if (!pry_json_string(token.raw, refresh_token))
    return false;
  if (pry_token_valid((struct pry_slice){refresh_token->data + before, refresh_token->size - before}))
    return true;
  refresh_token->size = before;
  return false;
}

bool pry_credential_file_read(const char *state_dir, const char *name, struct pry_slice secret,
                              struct pry_buffer *refresh_token, const char **why)
{
  bool ok = false;
  int fd = -1, folder = -1;
  struct stat about;
  struct pry_buffer path, text;
  pry_buffer_init(&path, NAME_MAX);
  pry_buffer_init(&text, FILE_MAX);
  const char *file = file_name(&path, name, ".json");
  *why = "out of memory, or its name is too long";
  if (!file || !pry_buffer_reserve(&text, FILE_MAX)) /* at once: growing would leave copies behind */
    goto done;
  *why = "cannot be opened";
  folder = open_folder(state_dir, false);
  if (folder >= 0)
    fd = openat(folder, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    ok = errno == ENOENT;
    goto done;
  }
  *why = "is not a small regular file";
  ok = fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && read_all(fd, &text) &&
       parse(pry_buffer_slice(&text), secret, refresh_token, why);
done:
  if (fd >= 0)
    close(fd);
  if (folder >= 0)
    close(folder);
  wipe(&text);
  pry_buffer_fini(&path);
  return ok;
}

static bool compose(struct pry_buffer *text, struct pry_slice secret, struct pry_slice refresh_token)
{
  char hex[DIGEST_HEX_SIZE];
  return pry_buffer_reserve(text, FILE_MAX) && digest(secret, hex) &&
         pry_buffer_append_format(text, "{\"secret_sha256\":\"%s\",\"refresh_token\":\"", hex) &&
         pry_buffer_append_json(text, refresh_token) && pry_buffer_append_text(text, "\"}\n");
}

bool pry_credential_file_write(const char *state_dir, const char *name, struct pry_slice secret,
                               struct pry_slice refresh_token, const char **why)
{
  bool ok = false;
  int folder = -1;
  struct pry_buffer path, aside, text;
  pry_buffer_init(&path, NAME_MAX);
  pry_buffer_init(&aside, NAME_MAX);
  pry_buffer_init(&text, FILE_MAX);
  *why = "out of memory";
  const char *file = file_name(&path, name, ".json");
  const char *file_aside = file_name(&aside, name, ".json.new");
  if (!file || !file_aside || !compose(&text, secret, refresh_token))
    goto done;
  folder = open_folder(state_dir, true);
  ok = folder >= 0 && pry_replace_file(folder, file, file_aside, pry_buffer_slice(&text));
  if (!ok)
    *why = strerror(errno);
done:
  if (folder >= 0)
    close(folder);
  wipe(&text);
  pry_buffer_fini(&aside);
  pry_buffer_fini(&path);
  return ok;
}
