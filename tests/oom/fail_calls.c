/* The calls themselves. They stand in the program, so the loader gives them to every library, too. */
#include "fail_internal.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

struct fail_plan fail_plan;
struct fail_seen fail_seen;
uint32_t *fail_places;

static atomic_bool active; /* between begin and end */
static atomic_bool over;
static atomic_bool held;
static __thread int quiet;
static atomic_uint threads;      /* started in this run */
static __thread bool unwatched;  /* blocks made now are not looked at */
static __thread unsigned thread; /* 0: the scenario's own; else the how manieth it is */

void fail_quiet(void)
{
  quiet++;
}

void fail_loud(void)
{
  quiet--;
}

void fail_over(void)
{
  over = true;
}

void fail_hold(void)
{
  held = true;
}

void fail_go(void)
{
  held = false;
}

bool fail_struck(void)
{
  return fail_seen.struck > 0;
}

bool fail_memory(void)
{
  return fail_plan.what == FAIL_MEMORY;
}

bool fail_for_good(void)
{
  return fail_plan.rest;
}

/* ---- what libraries cannot survive: see README.md for the evidence ---------------------------------------- */

/* No such call below this function fails; with sizes, only allocations of one of these. */
struct spared {
  const char *function; /* exported by its library */
  unsigned what;
  size_t sizes[4];
  uintptr_t start, end;
};

static struct spared spared[] = {
    {.function = "evutil_make_internal_pipe_", .what = FAIL_SYSTEM},
    {.function = "curl_multi_socket_action", .what = FAIL_MEMORY, .sizes = {416, 56}},
    {.function = "pthread_getattr_np", .what = FAIL_MEMORY},         /* by the address sanitizer, in each new thread */
    {.function = "EVP_MD_fetch", .what = FAIL_MEMORY, .sizes = {7}}, /* "SHA256" */
};

/* What libraries keep or lose of their own when something fails: blocks made below these functions. */
static struct spared kept[] = {
    {.function = "ERR_set_debug", .what = FAIL_BOTH},
    {.function = "ERR_vset_error", .what = FAIL_BOTH},
    {.function = "ERR_add_error_vdata", .what = FAIL_BOTH},
    {.function = "EVP_MD_fetch", .what = FAIL_BOTH, .sizes = {48}}, /* what it made of a provider's list */
    {.function = "EVP_CIPHER_fetch", .what = FAIL_BOTH, .sizes = {48}},
    {.function = "EVP_MAC_fetch", .what = FAIL_BOTH, .sizes = {48}},
    {.function = "EVP_KDF_fetch", .what = FAIL_BOTH, .sizes = {48}},
    {.function = "EVP_SIGNATURE_fetch", .what = FAIL_BOTH, .sizes = {48}},
    {.function = "EVP_KEYMGMT_fetch", .what = FAIL_BOTH, .sizes = {48}},
    {.function = "EVP_KEYEXCH_fetch", .what = FAIL_BOTH, .sizes = {48}},
};

enum { SPARED = sizeof spared / sizeof *spared, KEPT = sizeof kept / sizeof *kept };

static void find(struct spared *list, size_t count)
{
  for (size_t i = 0; i < count; i++) {
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    void *address = dlsym(RTLD_DEFAULT, list[i].function);
    if (!address || !dladdr1(address, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
      continue;
    list[i].start = (uintptr_t)address;
    list[i].end = list[i].start + symbol->st_size;
  }
}

static bool is_size(const struct spared *one, size_t size)
{
  bool any = one->sizes[0] == 0;
  for (size_t i = 0; i < sizeof one->sizes / sizeof *one->sizes; i++)
    any |= one->sizes[i] && one->sizes[i] == size;
  return any;
}

static bool is_below(const struct spared *list, size_t count, unsigned what, size_t size, void *const *stack, int depth)
{
  for (size_t i = 0; i < count; i++)
    for (int j = 0; j < depth && (list[i].what & what) && is_size(&list[i], size); j++)
      if ((uintptr_t)stack[j] >= list[i].start && (uintptr_t)stack[j] < list[i].end)
        return true;
  return false;
}

bool fail_block_is_kept(void)
{
  return is_below(kept, KEPT, FAIL_BOTH, fail_seen.traced_size, fail_seen.traced, fail_seen.traced_depth);
}

/* ---- counting ------------------------------------------------------------------------------------------------ */

/* The innermost frames say which place it is; deeper ones tell recursions apart without end. */
enum { PLACE_FRAMES = 10 };

static void record_place(long number)
{
  void *stack[PLACE_FRAMES + 2];
  uint64_t hash = 14695981039346656037u;
  int depth = backtrace(stack, PLACE_FRAMES + 2);
  for (int i = 2; i < depth; i++)
    hash = (hash ^ (uintptr_t)stack[i]) * 1099511628211u;
  if (number < FAIL_PLACES_MAX)
    fail_places[number] = (uint32_t)(hash ^ hash >> 32);
}

static bool strike(unsigned what, const char *name, unsigned errors, size_t size, long number)
{
  void *stack[FAIL_STACK];
  int depth = backtrace(stack, FAIL_STACK);
  if (is_below(spared, SPARED, what, size, stack, depth))
    return false;
  if (fail_seen.struck++ > 0 || number != fail_plan.at)
    return true;
  fail_seen.name = name;
  fail_seen.size = size;
  fail_seen.errors = errors;
  memcpy(fail_seen.stack, stack, sizeof stack);
  fail_seen.depth = depth;
  return true;
}

/* What is interrupted for ever would be no failure but an endless loop: `rest` leaves it alone. */
static bool is_due(long number, bool interrupted)
{
  if (!fail_plan.at)
    return fail_plan.record;
  return number == fail_plan.at || (number > fail_plan.at && fail_plan.rest && !interrupted);
}

static bool fails(unsigned what, const char *name, unsigned errors, size_t size, bool interrupted)
{
  if (!active || over || held || quiet || fail_plan.what != what || thread != fail_plan.thread)
    return false;
  long number = ++fail_seen.calls;
  if (!is_due(number, interrupted))
    return false;
  quiet++; /* backtrace() may allocate */
  bool result = fail_plan.at && strike(what, name, errors, size, number);
  if (fail_plan.record)
    record_place(number);
  quiet--;
  return result;
}

/* ---- blocks: a hash table of those made and not freed ------------------------------------------------------ */

enum { BLOCKS = 1 << 20 };

static struct block {
  uintptr_t address;
  uint32_t size;
  uint32_t number;
} blocks[BLOCKS];
static size_t block_count;
static long block_number;
static atomic_flag blocks_lock = ATOMIC_FLAG_INIT;

static void lock_blocks(void)
{
  while (atomic_flag_test_and_set_explicit(&blocks_lock, memory_order_acquire))
    ;
}

static void unlock_blocks(void)
{
  atomic_flag_clear_explicit(&blocks_lock, memory_order_release);
}

static size_t slot_of(uintptr_t address)
{
  return (address >> 4) * 11400714819323198485u >> 44;
}

static void add_block(void *memory, size_t size)
{
  lock_blocks();
  long number = ++block_number;
  if (block_count < BLOCKS / 2) {
    size_t i = slot_of((uintptr_t)memory);
    while (blocks[i].address)
      i = (i + 1) % BLOCKS;
    blocks[i] = (struct block){(uintptr_t)memory, (uint32_t)size, (uint32_t)number};
    block_count++;
  }
  unlock_blocks();
  if (number == fail_plan.trace) {
    quiet++;
    fail_seen.traced_size = size;
    fail_seen.traced_depth = backtrace(fail_seen.traced, FAIL_STACK);
    quiet--;
  }
}

/* Closes the gap, so that searches still find what had moved on because of it. */
static void remove_at(size_t gap)
{
  blocks[gap].address = 0;
  block_count--;
  for (size_t i = (gap + 1) % BLOCKS; blocks[i].address; i = (i + 1) % BLOCKS) {
    size_t home = slot_of(blocks[i].address);
    if ((i - home + BLOCKS) % BLOCKS < (i - gap + BLOCKS) % BLOCKS)
      continue;
    blocks[gap] = blocks[i];
    blocks[i].address = 0;
    gap = i;
  }
}

static bool drop_block(const void *memory)
{
  lock_blocks();
  size_t i = slot_of((uintptr_t)memory);
  while (blocks[i].address && blocks[i].address != (uintptr_t)memory)
    i = (i + 1) % BLOCKS;
  bool found = blocks[i].address != 0;
  if (found)
    remove_at(i);
  unlock_blocks();
  return found;
}

size_t fail_blocks_left(long *numbers, size_t most, size_t *bytes)
{
  size_t found = 0;
  *bytes = 0;
  for (size_t i = 0; block_count && i < BLOCKS; i++) {
    if (!blocks[i].address)
      continue;
    if (found < most)
      numbers[found++] = blocks[i].number;
    *bytes += blocks[i].size;
  }
  return block_count;
}

void fail_calls_begin(void)
{
  if (block_count)
    memset(blocks, 0, sizeof blocks);
  block_count = 0;
  block_number = 0;
  memset(&fail_seen, 0, sizeof fail_seen);
  over = false;
  held = false;
  threads = 0;
  active = true;
}

void fail_calls_end(void)
{
  active = false;
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

/* The sanitizers' own, where there are any, else the C library's. */
void *__interceptor_malloc(size_t size) __attribute__((weak));
void *__interceptor_calloc(size_t count, size_t size) __attribute__((weak));
void *__interceptor_realloc(void *old, size_t size) __attribute__((weak));
void *__interceptor_memalign(size_t alignment, size_t size) __attribute__((weak));
void __interceptor_free(void *memory) __attribute__((weak));
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

#define REAL(function) (__interceptor_##function ? __interceptor_##function : __libc_##function)

#pragma GCC visibility push(default)

static bool short_of_memory(const char *name, size_t size)
{
  if (!fails(FAIL_MEMORY, name, 1, size, false))
    return false;
  errno = ENOMEM;
  return true;
}

static void *made(void *memory, size_t size)
{
  if (memory && active && !unwatched)
    add_block(memory, size);
  return memory;
}

void *malloc(size_t size)
{
  return short_of_memory("malloc", size) ? NULL : made(REAL(malloc)(size), size);
}

void *calloc(size_t count, size_t size)
{
  return short_of_memory("calloc", count * size) ? NULL : made(REAL(calloc)(count, size), count * size);
}

void *realloc(void *old, size_t size)
{
  if (size && short_of_memory("realloc", size))
    return NULL;
  bool watched = !old || (active && drop_block(old));
  void *memory = REAL(realloc)(old, size);
  if (watched && (memory || size))
    made(memory ? memory : old, size);
  return memory;
}

void *reallocarray(void *old, size_t count, size_t size)
{
  size_t bytes;
  if (!__builtin_mul_overflow(count, size, &bytes))
    return realloc(old, bytes);
  errno = ENOMEM;
  return NULL;
}

void *memalign(size_t alignment, size_t size)
{
  return short_of_memory("memalign", size) ? NULL : made(REAL(memalign)(alignment, size), size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
  return memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
  void *block = memalign(alignment, size);
  if (!block)
    return ENOMEM;
  *memory = block;
  return 0;
}

char *strndup(const char *text, size_t most)
{
  size_t size = strnlen(text, most);
  char *copy = malloc(size + 1);
  if (!copy)
    return NULL;
  memcpy(copy, text, size);
  copy[size] = '\0';
  return copy;
}

char *strdup(const char *text)
{
  return strndup(text, SIZE_MAX - 1);
}

void free(void *memory)
{
  if (memory && active)
    drop_block(memory);
  REAL(free)(memory);
}

/* ---- system calls ---------------------------------------------------------------------------------------------- */

/* name, result, value of failure, arguments, their names, errnos: the first is the one that also fails for good */
#define CALLS(X)                                                                                                       \
  X(socket, int, -1, (int family, int type, int protocol), (family, type, protocol), EMFILE, ENOBUFS)                  \
  X(socketpair, int, -1, (int family, int type, int protocol, int fds[2]), (family, type, protocol, fds), EMFILE)      \
  X(bind, int, -1, (int fd, __CONST_SOCKADDR_ARG address, socklen_t size), (fd, address, size), EADDRINUSE, EACCES)    \
  X(listen, int, -1, (int fd, int backlog), (fd, backlog), EADDRINUSE)                                                 \
  X(connect, int, -1, (int fd, __CONST_SOCKADDR_ARG address, socklen_t size), (fd, address, size), ECONNREFUSED,       \
    ENETUNREACH)                                                                                                       \
  X(accept, int, -1, (int fd, __SOCKADDR_ARG address, socklen_t *size), (fd, address, size), EMFILE, ECONNABORTED)     \
  X(accept4, int, -1, (int fd, __SOCKADDR_ARG address, socklen_t *size, int flags), (fd, address, size, flags),        \
    EMFILE, ENFILE, ENOMEM, ECONNABORTED, EINTR)                                                                       \
  X(getsockname, int, -1, (int fd, __SOCKADDR_ARG address, socklen_t *size), (fd, address, size), ENOBUFS)             \
  X(getpeername, int, -1, (int fd, __SOCKADDR_ARG address, socklen_t *size), (fd, address, size), ENOTCONN)            \
  X(setsockopt, int, -1, (int fd, int level, int name, const void *value, socklen_t size),                             \
    (fd, level, name, value, size), ENOBUFS)                                                                           \
  X(readv, ssize_t, -1, (int fd, const struct iovec *parts, int count), (fd, parts, count), ECONNRESET, EINTR)         \
  X(recv, ssize_t, -1, (int fd, void *data, size_t size, int flags), (fd, data, size, flags), ECONNRESET, EINTR)       \
  X(recvfrom, ssize_t, -1,                                                                                             \
    (int fd, void *data, size_t size, int flags, __SOCKADDR_ARG address, socklen_t *address_size),                     \
    (fd, data, size, flags, address, address_size), ECONNRESET)                                                        \
  X(writev, ssize_t, -1, (int fd, const struct iovec *parts, int count), (fd, parts, count), EPIPE, ENOBUFS, EINTR)    \
  X(send, ssize_t, -1, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags), EPIPE, ENOBUFS)    \
  X(sendmsg, ssize_t, -1, (int fd, const struct msghdr *message, int flags), (fd, message, flags), EPIPE, ENOBUFS,     \
    EINTR)                                                                                                             \
  X(flock, int, -1, (int fd, int what), (fd, what), ENOLCK, EINTR)                                                     \
  X(fsync, int, -1, (int fd), (fd), EIO)                                                                               \
  X(rename, int, -1, (const char *from, const char *to), (from, to), ENOSPC, EACCES)                                   \
  X(renameat, int, -1, (int from_fd, const char *from, int to_fd, const char *to), (from_fd, from, to_fd, to), ENOSPC) \
  X(unlink, int, -1, (const char *path), (path), EACCES)                                                               \
  X(mkdir, int, -1, (const char *path, mode_t mode), (path, mode), EACCES, ENOSPC)                                     \
  X(unlinkat, int, -1, (int folder, const char *path, int flags), (folder, path, flags), EACCES)                       \
  X(mkdirat, int, -1, (int folder, const char *path, mode_t mode), (folder, path, mode), EACCES, ENOSPC)               \
  X(fchmod, int, -1, (int fd, mode_t mode), (fd, mode), EPERM)                                                         \
  X(stat, int, -1, (const char *path, struct stat *about), (path, about), EACCES)                                      \
  X(lstat, int, -1, (const char *path, struct stat *about), (path, about), EACCES)                                     \
  X(fstat, int, -1, (int fd, struct stat *about), (fd, about), EIO)                                                    \
  X(opendir, DIR *, NULL, (const char *path), (path), EMFILE, EACCES)                                                  \
  X(readdir, struct dirent *, NULL, (DIR * folder), (folder), EIO)                                                     \
  X(fopen, FILE *, NULL, (const char *path, const char *mode), (path, mode), EMFILE, EACCES)                           \
  X(epoll_create, int, -1, (int size), (size), EMFILE)                                                                 \
  X(epoll_create1, int, -1, (int flags), (flags), EMFILE)                                                              \
  X(epoll_ctl, int, -1, (int fd, int what, int watched, struct epoll_event *event), (fd, what, watched, event),        \
    ENOMEM, ENOSPC)                                                                                                    \
  X(epoll_wait, int, -1, (int fd, struct epoll_event *events, int most, int timeout), (fd, events, most, timeout),     \
    EINTR)                                                                                                             \
  X(timerfd_create, int, -1, (int clock, int flags), (clock, flags), EMFILE)                                           \
  X(pipe, int, -1, (int fds[2]), (fds), EMFILE)                                                                        \
  X(pipe2, int, -1, (int fds[2], int flags), (fds, flags), EMFILE)                                                     \
  X(inotify_init1, int, -1, (int flags), (flags), EMFILE)                                                              \
  X(inotify_add_watch, int, -1, (int fd, const char *path, uint32_t mask), (fd, path, mask), ENOSPC, EACCES)           \
  X(getrandom, ssize_t, -1, (void *data, size_t size, unsigned flags), (data, size, flags), ENOSYS, EINTR)

/* Which errno this time. */
static int error_of(const int *errors, unsigned count)
{
  return fail_plan.error < count && fail_seen.struck == 1 ? errors[fail_plan.error] : errors[0];
}

#define X(name, type, failure, parameters, arguments, ...)                                                             \
  static type(*real_##name) parameters;                                                                                \
  type name parameters                                                                                                 \
  {                                                                                                                    \
    static const int errors[] = {__VA_ARGS__};                                                                         \
    if (!real_##name)                                                                                                  \
      fail_calls_init();                                                                                               \
    if (fails(FAIL_SYSTEM, #name, sizeof errors / sizeof *errors, 0, errors[0] == EINTR)) {                            \
      errno = error_of(errors, sizeof errors / sizeof *errors);                                                        \
      return failure;                                                                                                  \
    }                                                                                                                  \
    return real_##name arguments;                                                                                      \
  }
CALLS(X)
#undef X

/* These have a form of their own: arguments that vary, or an error that is returned. */

static ssize_t (*real_read)(int fd, void *data, size_t size);
static ssize_t (*real_write)(int fd, const void *data, size_t size);
static int (*real_eventfd)(unsigned value, int flags);
static int (*real_close)(int fd);
static int (*real_openat)(int folder, const char *path, int flags, ...);
static int (*real_pthread_create)(pthread_t *thread, const pthread_attr_t *about, void *(*start)(void *), void *user);

/* Nothing of an eventfd can fail: reading and writing it is only ever interrupted. */
static atomic_bool is_eventfd[4096];

static bool is_safe(int fd)
{
  return fd >= 0 && (size_t)fd < sizeof is_eventfd / sizeof *is_eventfd && is_eventfd[fd];
}

int eventfd(unsigned value, int flags)
{
  if (!real_eventfd)
    fail_calls_init();
  if (fails(FAIL_SYSTEM, "eventfd", 1, 0, false)) {
    errno = EMFILE;
    return -1;
  }
  int fd = real_eventfd(value, flags);
  if (fd >= 0 && (size_t)fd < sizeof is_eventfd / sizeof *is_eventfd)
    is_eventfd[fd] = true;
  return fd;
}

int close(int fd)
{
  if (!real_close)
    fail_calls_init();
  if (is_safe(fd))
    is_eventfd[fd] = false;
  return real_close(fd);
}

ssize_t read(int fd, void *data, size_t size)
{
  static const int errors[] = {EIO, EINTR};
  if (!real_read)
    fail_calls_init();
  if (!fails(FAIL_SYSTEM, "read", is_safe(fd) ? 1 : 2, 0, is_safe(fd)))
    return real_read(fd, data, size);
  errno = is_safe(fd) ? EINTR : error_of(errors, 2);
  return -1;
}

ssize_t write(int fd, const void *data, size_t size)
{
  static const int errors[] = {ENOSPC, EPIPE, EINTR};
  if (!real_write)
    fail_calls_init();
  if (!fails(FAIL_SYSTEM, "write", is_safe(fd) ? 1 : 3, 0, is_safe(fd)))
    return real_write(fd, data, size);
  errno = is_safe(fd) ? EINTR : error_of(errors, 3);
  return -1;
}

static int open_at(int folder, const char *path, int flags, va_list rest)
{
  static const int errors[] = {EMFILE, ENOMEM, EIO};
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  if (!real_openat)
    fail_calls_init();
  if (!fails(FAIL_SYSTEM, "open", 3, 0, false))
    return real_openat(folder, path, flags, mode);
  errno = error_of(errors, 3);
  return -1;
}

int open(const char *path, int flags, ...)
{
  va_list rest;
  va_start(rest, flags);
  int fd = open_at(AT_FDCWD, path, flags, rest);
  va_end(rest);
  return fd;
}

int openat(int folder, const char *path, int flags, ...)
{
  va_list rest;
  va_start(rest, flags);
  int fd = open_at(folder, path, flags, rest);
  va_end(rest);
  return fd;
}

struct beginning {
  void *(*start)(void *);
  void *user;
  unsigned number;
};

static void *begin_thread(void *user)
{
  struct beginning *given = user, beginning = *given;
  thread = beginning.number;
  REAL(free)(given);
  return beginning.start(beginning.user);
}

int pthread_create(pthread_t *made_thread, const pthread_attr_t *about, void *(*start)(void *), void *user)
{
  if (!real_pthread_create)
    fail_calls_init();
  struct beginning *beginning = REAL(malloc)(sizeof *beginning);
  if (!beginning || fails(FAIL_SYSTEM, "pthread_create", 1, 0, false)) {
    REAL(free)(beginning);
    return EAGAIN;
  }
  *beginning = (struct beginning){start, user, ++threads};
  unwatched = true; /* the C library keeps a few stacks of threads that have ended, with what belongs to them */
  int code = real_pthread_create(made_thread, about, begin_thread, beginning);
  unwatched = false;
  if (code != 0)
    REAL(free)(beginning);
  return code;
}

#pragma GCC visibility pop

void fail_calls_init(void)
{
#define X(name, type, failure, parameters, arguments, ...) *(void **)&real_##name = dlsym(RTLD_NEXT, #name);
  CALLS(X)
#undef X
  *(void **)&real_read = dlsym(RTLD_NEXT, "read");
  *(void **)&real_write = dlsym(RTLD_NEXT, "write");
  *(void **)&real_eventfd = dlsym(RTLD_NEXT, "eventfd");
  *(void **)&real_close = dlsym(RTLD_NEXT, "close");
  *(void **)&real_openat = dlsym(RTLD_NEXT, "openat");
  *(void **)&real_pthread_create = dlsym(RTLD_NEXT, "pthread_create");
  find(spared, SPARED);
  find(kept, KEPT);
}
