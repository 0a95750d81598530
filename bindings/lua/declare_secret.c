/* `secret "NAME"` and where its value comes from. Declared in declare.h and declare_internal.h. */
#include "declare_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lauxlib.h>

enum { SECRET_MAX = 64 * 1024, SCRUBBED_MIN = 6 /* scrubber: log.h */ };

static const char secret_type[] = "parry.secret";

/* ---- the Lua value ------------------------------------------------------------------------------------- */

static int show_secret(lua_State *L)
{
  lua_pushliteral(L, "***");
  return 1;
}

static void push_metatable(lua_State *L)
{
  if (!luaL_newmetatable(L, secret_type))
    return;
  lua_pushcfunction(L, show_secret);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "secret");
  lua_setfield(L, -2, "__name"); /* what Lua's own errors call it: "attempt to concatenate a secret value" */
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
}

static void keep_secret(lua_State *L, struct pry_declaration *d, struct pry_slice name)
{
  for (size_t i = 0; i < d->secrets.count; i++) {
    const struct pry_declared_secret *known = d->secrets.items[i];
    if (pry_slice_equal(pry_slice_of(known->name), name))
      return;
  }
  struct pry_declared_secret *secret = pry_declare_take(L, d, sizeof *secret);
  secret->name = pry_declare_copy(L, d, name);
  secret->place = pry_place_here(L, d);
  pry_declare_push(L, d, &d->secrets, secret);
}

/* ---@class secret
 * ---@param name string   looked for in $CREDENTIALS_DIRECTORY, /run/secrets, the file $NAME_FILE and the variable $NAME
 * ---@return secret   opaque: the core puts it into headers, scripts cannot read it
 * function secret(name) end */
static int make_secret(lua_State *L)
{
  struct pry_declaration *d = pry_declaration_of(L, "secret");
  size_t size = 0;
  const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tolstring(L, 1, &size) : "";
  const char *wrong = pry_name_complaint((struct pry_slice){name, size});
  if (wrong) {
    /* Somebody may have pasted the secret itself: what stands there is not repeated. */
    pry_complain(d, pry_place_here(L, d),
                 "secret needs the name of a secret, as in secret \"KIMI_API_KEY\"; the name %s", wrong);
    size = 0;
  } else {
    keep_secret(L, d, (struct pry_slice){name, size});
  }
  char *kept = lua_newuserdatauv(L, size + 1, 0);
  memcpy(kept, name, size);
  kept[size] = '\0';
  push_metatable(L);
  lua_setmetatable(L, -2);
  return 1;
}

void pry_declare_push_secret(lua_State *L)
{
  lua_pushcfunction(L, make_secret);
}

const char *pry_declare_secret_name(lua_State *L, int index)
{
  return luaL_testudata(L, index, secret_type);
}

const struct pry_secret *pry_declare_secret(const struct pry_config *config, const char *name)
{
  for (size_t i = 0; i < config->secret_count; i++)
    if (strcmp(config->secrets[i].name, name) == 0)
      return &config->secrets[i];
  return NULL;
}

/* ---- the value ----------------------------------------------------------------------------------------- */

static bool is_sink_url(const struct pry_declaration *d, const char *name)
{
  for (size_t i = 0; i < d->sinks.count; i++) {
    const char *url = ((const struct pry_declared_sink *)d->sinks.items[i])->url;
    if (url && strcmp(url, name) == 0)
      return true;
  }
  return false;
}

static bool is_of_sink(const struct pry_declaration *d, const char *name)
{
  for (size_t i = 0; i < d->sinks.count; i++) {
    const struct pry_declared_sink *sink = d->sinks.items[i];
    if ((sink->sign && strcmp(sink->sign, name) == 0) || (sink->user && strcmp(sink->user, name) == 0))
      return true;
  }
  return is_sink_url(d, name);
}

/* What its absence means. */
static const char *consequence(const struct pry_declaration *d, const struct pry_secret *secret)
{
  return is_of_sink(d, secret->name) ? "alerts to its sink are not delivered" : "calls that need it will fail as auth";
}

/* One search; the text is wiped at its end. */
struct search {
  struct pry_declaration *d;
  struct pry_secret *secret;
  struct pry_place place;
};

static void accept_value(struct search *search, const char *value, size_t size, const char *origin)
{
  struct pry_arena *arena = &search->d->config->arena;
  if (size && value[size - 1] == '\n')
    size--;
  if (!size) {
    pry_warn(search->d, search->place, "secret \"%s\" is empty in %s; %s", search->secret->name, origin,
             consequence(search->d, search->secret));
    return;
  }
  for (size_t i = 0; i < size; i++)
    if (value[i] == '\0' || value[i] == '\n' || value[i] == '\r') {
      pry_warn(search->d, search->place,
               "secret \"%s\" from %s holds a line break or a NUL byte and cannot stand in a header; it is not used",
               search->secret->name, origin);
      return;
    }
  if (size < SCRUBBED_MIN)
    pry_warn(search->d, search->place, "secret \"%s\" is shorter than %d bytes; it cannot be kept out of logs",
             search->secret->name, SCRUBBED_MIN);
  search->secret->value = pry_arena_copy(arena, (struct pry_slice){value, size});
  search->secret->origin = pry_arena_copy(arena, pry_slice_of(origin));
  if (!search->secret->value || !search->secret->origin)
    pry_complain(search->d, search->place, "secret \"%s\" cannot be kept: memory is short", search->secret->name);
}

/* What says nothing about the file: to go on without a secret that is there would take its provider out of service. */
static bool is_passing(int code)
{
  return code == EMFILE || code == ENFILE || code == ENOMEM || code == EIO;
}

static void cannot_read(struct search *search, const char *origin, int code)
{
  if (is_passing(code))
    pry_complain(search->d, search->place, "secret \"%s\": cannot read %s now: %s; load the policies again",
                 search->secret->name, origin, strerror(code));
  else
    pry_warn(search->d, search->place, "secret \"%s\": cannot read %s: %s", search->secret->name, origin,
             code ? strerror(code) : "not a regular file");
}

/* False: no such file; look on. A file that is there but cannot be read ends the search with a warning. */
static bool read_secret_file(struct search *search, const char *path)
{
  char origin[320], *text = NULL;
  snprintf(origin, sizeof origin, "file %.300s", path);
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
    return false;
  struct stat about;
  size_t size = 0;
  if (fd < 0 || fstat(fd, &about) < 0) {
    cannot_read(search, origin, errno);
    goto done;
  }
  text = S_ISREG(about.st_mode) ? malloc(SECRET_MAX + 1) : NULL;
  if (!text) {
    cannot_read(search, origin, S_ISREG(about.st_mode) ? ENOMEM : 0);
    goto done;
  }
  for (ssize_t got; size <= SECRET_MAX && (got = read(fd, text + size, SECRET_MAX + 1 - size)) != 0;) {
    if (got < 0 && errno != EINTR) {
      cannot_read(search, origin, errno);
      goto done;
    }
    size += got > 0 ? (size_t)got : 0;
  }
  if (size > SECRET_MAX)
    pry_warn(search->d, search->place, "secret \"%s\": %s is longer than 64 KiB; it is not used", search->secret->name,
             origin);
  else
    accept_value(search, text, size, origin);
done:
  if (fd >= 0)
    close(fd);
  if (text)
    explicit_bzero(text, SECRET_MAX + 1);
  free(text);
  return true;
}

static bool search_folder(struct search *search, const char *folder)
{
  char path[320];
  int length = folder && *folder ? snprintf(path, sizeof path, "%s/%s", folder, search->secret->name) : -1;
  return length > 0 && (size_t)length < sizeof path && read_secret_file(search, path);
}

static bool search_environment(struct search *search)
{
  char name[PRY_NAME_MAX + 8];
  snprintf(name, sizeof name, "%s_FILE", search->secret->name);
  const char *path = getenv(name);
  if (path && *path) {
    if (!read_secret_file(search, path))
      pry_warn(search->d, search->place, "secret \"%s\": %s names %.200s, which does not exist", search->secret->name,
               name, path);
    return true;
  }
  const char *value = getenv(search->secret->name);
  if (value)
    accept_value(search, value, strlen(value), "the environment");
  return value != NULL;
}

static bool search_host(struct search *search)
{
  const struct pry_declare_options *options = search->d->options;
  for (size_t i = 0; i < options->secret_count; i++) {
    if (strcmp(options->secrets[i].name, search->secret->name) != 0)
      continue;
    accept_value(search, options->secrets[i].value, strlen(options->secrets[i].value), "the host application");
    return true;
  }
  return false;
}

static void read_secret(struct pry_declaration *d, const struct pry_declared_secret *declared,
                        struct pry_secret *secret)
{
  struct search search = {d, secret, declared->place};
  if (d->options->invented_secrets) {
    char value[PRY_NAME_MAX + 32];
    snprintf(value, sizeof value, "%s%s", is_sink_url(d, secret->name) ? "https://sinks.test/" : "test-", secret->name);
    accept_value(&search, value, strlen(value), "the test");
    return;
  }
  if (search_host(&search))
    return;
  /* A name with a dot could leave the folder as ".."; a name alone cannot hold a slash. */
  bool is_file_name = strcmp(secret->name, ".") != 0 && strcmp(secret->name, "..") != 0;
  if ((is_file_name &&
       (search_folder(&search, getenv("CREDENTIALS_DIRECTORY")) || search_folder(&search, "/run/secrets"))) ||
      search_environment(&search))
    return;
  pry_warn(d, declared->place,
           "secret \"%s\" was not found in $CREDENTIALS_DIRECTORY, /run/secrets, %s_FILE or the environment; %s",
           secret->name, secret->name, consequence(d, secret));
}

void pry_declare_read_secrets(struct pry_declaration *d)
{
  if (d->options->warm)
    return;
  struct pry_secret *secrets = (struct pry_secret *)(uintptr_t)d->config->secrets;
  for (size_t i = 0; i < d->secrets.count; i++)
    read_secret(d, d->secrets.items[i], &secrets[i]);
}
