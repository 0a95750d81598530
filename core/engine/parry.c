/* Making, driving and freeing an engine of parry.h; what a handle is worth. */
#include "handle.h"
#include "parry_internal.h"
#include "plain_locale.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { CALLS_MAX = 4096, BUFFERED_MAX = 64 * 1024 * 1024, THREADS_MAX = 255 };

/* ---- versions and errors ------------------------------------------------------------------------------ */

const char *parry_version(void)
{
  return PARRY_VERSION;
}

const char *parry_strerror(int error)
{
  switch (error) {
#define X(name, value, text)                                                                                           \
  case value:                                                                                                          \
    return text;
    PARRY_ERRORS(X)
#undef X
  default:
    return "an error that this version does not know";
  }
}

/* ---- handles and structs ------------------------------------------------------------------------------- */

struct pry_host *pry_host_of(const parry *handle, int *error)
{
  struct pry_host *host = pry_handle_host(handle, error);
  if (!host || !atomic_load(&host->ended))
    return host;
  *error = PARRY_EREENTRANT; /* a last log line is told, the rest is gone */
  return NULL;
}

bool pry_host_take(void *ours, size_t our_size, const void *theirs)
{
  size_t size = *(const size_t *)theirs;
  if (size < sizeof(size_t) || size > 64 * 1024)
    return false;
  for (size_t i = our_size; i < size; i++)
    if (((const char *)theirs)[i])
      return false;
  memset(ours, 0, our_size);
  memcpy(ours, theirs, size < our_size ? size : our_size);
  *(size_t *)ours = our_size;
  return true;
}

bool pry_host_give(void *theirs, const void *ours, size_t our_size)
{
  size_t size = *(const size_t *)theirs;
  if (size < sizeof(size_t))
    return false;
  memcpy(theirs, ours, size < our_size ? size : our_size);
  *(size_t *)theirs = size;
  return true;
}

int pry_host_open(struct pry_host *host)
{
  if (atomic_fetch_add(&host->open, 1) < host->options.max_calls)
    return PARRY_OK;
  atomic_fetch_sub(&host->open, 1);
  return PARRY_BUSY;
}

void pry_host_close(struct pry_host *host)
{
  atomic_fetch_sub(&host->open, 1);
}

int pry_host_headers(const struct parry_header *from, size_t count, struct pry_headers *headers)
{
  for (size_t i = 0; i < count; i++) {
    if (!from[i].name || !from[i].value)
      return PARRY_EINVAL;
    struct pry_slice name = pry_slice_of(from[i].name), value = pry_slice_of(from[i].value);
    if (!pry_headers_add(headers, name, value))
      return pry_headers_takes(headers, name, value) ? PARRY_ENOMEM : PARRY_EINVAL;
  }
  return PARRY_OK;
}

struct parry_header *pry_host_header_array(const struct pry_headers *headers)
{
  size_t size = headers->count * sizeof(struct parry_header) + 1;
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    size += line.name.size + line.value.size + 2;
  }
  struct parry_header *copy = malloc(size);
  if (!copy)
    return NULL;
  char *text = (char *)(copy + headers->count);
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    copy[i].name = memcpy(text, line.name.data, line.name.size);
    text += line.name.size;
    *text++ = '\0';
    copy[i].value = line.value.size ? memcpy(text, line.value.data, line.value.size) : text;
    text += line.value.size;
    *text++ = '\0';
  }
  return copy;
}

/* ---- making ---------------------------------------------------------------------------------------------- */

static double unix_clock(void *user)
{
  return pry_loop_unix_time(((struct pry_host *)user)->loop);
}

static char *copy_text(const char *text, bool *whole)
{
  char *copy = text ? strdup(text) : NULL;
  *whole = *whole && (copy || !text);
  return copy;
}

/* Wiped when freed: they are secrets. */
static bool copy_secrets(struct parry_options *options)
{
  const struct parry_header *from = options->secrets;
  struct parry_header *copy = from && options->secret_count ? calloc(options->secret_count, sizeof *copy) : NULL;
  size_t count = options->secret_count;
  bool whole = copy || !count;
  options->secrets = copy;
  options->secret_count = copy ? count : 0;
  for (size_t i = 0; copy && i < count; i++) {
    copy[i].name = copy_text(from[i].name, &whole);
    copy[i].value = copy_text(from[i].value, &whole);
  }
  return whole;
}

static bool copy_options(struct pry_host *host)
{
  struct parry_options *options = &host->options;
  bool whole = true;
  options->policy_dir = copy_text(options->policy_dir, &whole);
  options->init_lua = copy_text(options->init_lua, &whole);
  options->share_dir = copy_text(options->share_dir, &whole);
  options->state_dir = copy_text(options->state_dir, &whole);
  options->ca_file = copy_text(options->ca_file, &whole);
  whole = copy_secrets(options) && whole;
  options->max_calls = options->max_calls ? options->max_calls : CALLS_MAX;
  options->max_buffered = options->max_buffered ? options->max_buffered : BUFFERED_MAX;
  return whole;
}

/* Also from a signal handler. */
static void ring(const struct pry_host *host)
{
  int before = errno;
  while (eventfd_write(host->outbox_fd, 1) != 0 && errno == EINTR)
    ; /* EAGAIN: it has rung often enough */
  errno = before;
}

static void announce(void *user)
{
  const struct pry_host *host = user;
  if (host->options.threads)
    ring(host);
  else
    pry_loop_wake(host->loop);
}

static bool make_engine(struct pry_host *host)
{
  host->http_options = (struct pry_http_options){.size = sizeof host->http_options, .ca_file = host->options.ca_file};
  host->outbox_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  host->loop = pry_loop_new();
  host->http = host->loop ? pry_http_new(host->loop, &host->http_options) : NULL;
  host->outbox = pry_mailbox_new_collected(announce, host);
  if (!host->http || !host->outbox || host->outbox_fd == -1 || !pry_host_notices_init(host))
    return false;
  enum pry_log_level least = (enum pry_log_level)host->options.log_level;
  host->log = pry_log_new(host->options.log ? pry_host_notices_log : NULL, host, least, unix_clock, host);
  struct pry_engine_options options = {
      .loop = host->loop,
      .http = host->http,
      .http_options = &host->http_options,
      .log = host->log,
      .deciders = pry_host_deciders(&host->options),
      .loader = &pry_lua_loader,
      .workers = host->options.threads > 1 ? host->options.threads : 0,
      .state_dir = host->options.state_dir,
      .limits = {.secrets = host->options.secrets, .secret_count = host->options.secret_count},
      .rolled_back = pry_host_rolled_back,
      .user = host};
  host->engine = host->log ? pry_engine_new(&options) : NULL;
  if (host->engine)
    pry_host_notices_listen(host);
  return host->engine && pry_host_calls_init(host) && pry_host_decisions_init(host) && pry_host_functions_init(host);
}

static bool valid_secrets(const struct parry_options *options)
{
  for (size_t i = 0; i < options->secret_count; i++)
    if (!options->secrets || !options->secrets[i].name || !options->secrets[i].value)
      return false;
  return true;
}

static bool start_threads(struct pry_host *host)
{
  return pry_engine_start(host->engine) && pry_worker_start(host->engine->control);
}

/* PARRY_EPOLICY is an engine, too. */
static int make_host(struct pry_host *host, const struct parry_options *options)
{
  host->options = *options;
  host->outbox_fd = -1;
  if (!copy_options(host))
    return PARRY_ENOMEM;
  if (!make_engine(host))
    return PARRY_ESYSTEM;
  int error = pry_host_load(host);
  return !error && host->options.threads && !start_threads(host) ? PARRY_ESYSTEM : error;
}

int parry_new(parry **out, const struct parry_options *options)
{
  struct parry_options whole;
  if (!out)
    return PARRY_EINVAL;
  *out = NULL;
  if (!options || !pry_host_take(&whole, sizeof whole, options) || !whole.policy_dir == !whole.init_lua ||
      whole.threads > THREADS_MAX || !valid_secrets(&whole))
    return PARRY_EINVAL;
  struct pry_host *host = calloc(1, sizeof *host);
  if (!host)
    return PARRY_ENOMEM;
  parry *handle = pry_handle_new(host);
  if (!handle) {
    free(host);
    return PARRY_ESYSTEM;
  }
  locale_t before = pry_plain_locale_enter();
  int error = make_host(host, &whole);
  pry_plain_locale_leave(before);
  if (!error || error == PARRY_EPOLICY) {
    *out = handle;
    return error;
  }
  host->options.log = NULL; /* the host calls nothing that calls back */
  host->options.alert = NULL;
  host->options.reloaded = NULL;
  parry_free(handle);
  return error;
}

/* ---- freeing --------------------------------------------------------------------------------------------- */

static void free_options(struct parry_options *options)
{
  free((char *)options->policy_dir);
  free((char *)options->init_lua);
  free((char *)options->share_dir);
  free((char *)options->state_dir);
  free((char *)options->ca_file);
  for (size_t i = 0; i < options->secret_count; i++) {
    char *value = (char *)options->secrets[i].value;
    if (value)
      explicit_bzero(value, strlen(value));
    free(value);
    free((char *)options->secrets[i].name);
  }
  free((void *)options->secrets);
}

static void stop_threads(struct pry_host *host)
{
  if (!host->engine)
    return;
  pry_worker_stop(host->engine->control);
  pry_engine_stop(host->engine);
}

/* In the host's own locale: what pry_plain_locale_enter() said. */
static void tell_all(const struct pry_host *host, locale_t theirs)
{
  locale_t ours = uselocale(theirs);
  while (host->outbox && pry_mailbox_collect(host->outbox))
    ;
  uselocale(ours);
}

/* Ends what is open, and tells it. */
static void end_all(struct pry_host *host)
{
  locale_t theirs = pry_plain_locale_enter();
  if (host->decisions)
    pry_host_decisions_end(host);
  if (host->functions)
    pry_host_functions_end(host);
  pry_host_policies_end(host);
  if (host->calls)
    pry_host_calls_end(host);
  tell_all(host, theirs);
  atomic_store(&host->ended, true);
  pry_engine_free(host->engine);
  host->engine = NULL;
  tell_all(host, theirs); /* its last log lines */
  pry_plain_locale_leave(theirs);
}

static void free_host(struct pry_host *host)
{
  pry_host_decisions_fini(host);
  pry_host_functions_fini(host);
  pry_host_calls_fini(host);
  pry_host_policies_fini(host);
  pry_log_free(host->log);
  pry_host_notices_fini(host);
  pry_http_free(host->http);
  pry_mailbox_free(host->outbox);
  pry_loop_free(host->loop);
  if (host->outbox_fd != -1)
    close(host->outbox_fd);
  free_options(&host->options);
  free(host);
}

int parry_free(parry *handle)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (!handle || error == PARRY_EFORKED) /* a child has nothing of its own to give back */
    return PARRY_OK;
  if (!host)
    return error;
  if (atomic_exchange(&host->delivering, true))
    return PARRY_EREENTRANT;
  atomic_store(&host->freeing, true);
  stop_threads(host);
  end_all(host);
  pry_handle_free(handle);
  free_host(host);
  return PARRY_OK;
}

/* ---- driving --------------------------------------------------------------------------------------------- */

/* Of the calls made before; what is posted from now on rings again. */
static void silence(const struct pry_host *host)
{
  eventfd_t count;
  if (host->options.threads)
    (void)eventfd_read(host->outbox_fd, &count);
}

static bool deliver(const struct pry_host *host)
{
  silence(host);
  return pry_mailbox_collect(host->outbox);
}

int parry_dispatch(parry *handle)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (!host)
    return error;
  if (atomic_exchange(&host->delivering, true))
    return PARRY_EREENTRANT;
  deliver(host);
  atomic_store(&host->delivering, false);
  return (int)atomic_load(&host->open);
}

static pry_time time_left(const struct pry_host *host, pry_time until)
{
  if (until == PRY_TIME_NEVER)
    return PRY_TIME_NEVER;
  pry_time now = pry_loop_clock(host->loop);
  return until > now ? until - now : 0;
}

/* For what own threads have. True: a signal came. */
static bool wait_for_threads(const struct pry_host *host, pry_time left)
{
  struct pollfd outbox = {.fd = host->outbox_fd, .events = POLLIN};
  struct timespec time = {(time_t)(left / PRY_SECOND), (long)(left % PRY_SECOND) * 1000};
  return ppoll(&outbox, 1, left == PRY_TIME_NEVER ? NULL : &time, NULL) == -1;
}

static bool wait_or_work(const struct pry_host *host, pry_time left)
{
  if (host->options.threads)
    return wait_for_threads(host, left);
  bool interrupted = left && !pry_loop_wait(host->loop, left);
  locale_t before = pry_plain_locale_enter();
  pry_loop_turn(host->loop, 0);
  pry_plain_locale_leave(before);
  return interrupted;
}

int parry_run(parry *handle, double timeout)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (!host)
    return error;
  if (atomic_exchange(&host->delivering, true))
    return PARRY_EREENTRANT;
  pry_time until = timeout < 0 ? PRY_TIME_NEVER : pry_loop_clock(host->loop) + pry_time_from_seconds(timeout);
  for (bool over = false; !over;) {
    pry_time left = atomic_exchange(&host->woken, false) ? 0 : time_left(host, until);
    bool interrupted = wait_or_work(host, left);
    over = deliver(host) || interrupted || !left;
  }
  atomic_store(&host->delivering, false);
  return (int)atomic_load(&host->open);
}

int parry_fd(parry *handle)
{
  int error;
  const struct pry_host *host = pry_host_of(handle, &error);
  if (!host)
    return error;
  return host->options.threads ? host->outbox_fd : PARRY_EINVAL;
}

void parry_wakeup(parry *handle)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (!host)
    return;
  atomic_store(&host->woken, true);
  announce(host);
}
