#include "loop.h"

#include "list.h"

#include <event2/event.h>
#include <event2/event_struct.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_HEAP_CAPACITY = 64 };

#define CENTURY ((pry_time)36525 * 24 * 3600 * PRY_SECOND)

struct signal_watch {
  struct pry_list link;
  struct event event;
  void (*handler)(int signal_number, void *user);
  void *user;
};

struct pry_loop {
  struct event_base *base; /* NULL: virtual */
  pry_time now;            /* real: the cache of this turn's time */
  bool now_known;          /* real: the clock was read in this turn */
  double unix_start;       /* virtual: the wall clock when now was 0 */
  bool turning;
  bool stopped;

  struct pollfd *poll_set; /* of pry_loop_wait() */
  size_t poll_count, poll_capacity;
  struct pry_timer **heap; /* earliest first */
  size_t count, capacity;
  uint64_t next_order;

  struct event alarm; /* libevent's timer for the end of the wait */
  pry_time alarm_due; /* PRY_TIME_NEVER: not set */
  bool alarm_made;

  int wake_fd; /* real only, else -1 */
  struct event wake_event;
  bool wake_event_made;
  atomic_bool woken; /* virtual only */
  void (*on_wake)(void *user);
  void *on_wake_user;

  struct pry_list signals;
  int signal_count;
};

struct pry_watch {
  struct event event;
  void (*ready)(int fd, void *user);
  void *user;
};

/* ---- Time ------------------------------------------------------------------------------------------- */

pry_time pry_time_from_seconds(double seconds)
{
  if (!(seconds > 0))
    return 0;
  double microseconds = seconds * 1e6;
  if (microseconds >= (double)CENTURY)
    return CENTURY;
  pry_time whole = (pry_time)microseconds;
  /* 1.1 * 1e6 is a little more than 1100000: less than a nanosecond is the double's error, not a wait. */
  return whole + (microseconds - (double)whole > 1e-3);
}

double pry_time_to_seconds(pry_time time)
{
  return (double)time / 1e6;
}

static pry_time time_add(pry_time time, pry_time duration)
{
  if (duration <= 0)
    return time;
  return duration >= PRY_TIME_NEVER - time ? PRY_TIME_NEVER : time + duration;
}

static pry_time read_clock(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail on Linux with a valid clock and pointer */
  return (pry_time)now.tv_sec * PRY_SECOND + now.tv_nsec / 1000;
}

/* The clock is read when the first callback of a turn asks: reading it before the wait would give every
 * callback of libevent a time from before the wait, and libevent 2.1 has no hook after it. */
pry_time pry_loop_now(const struct pry_loop *loop)
{
  if (!loop->base)
    return loop->now;
  if (!loop->turning)
    return read_clock();
  if (!loop->now_known) {
    struct pry_loop *mutable_loop = (struct pry_loop *)loop;
    mutable_loop->now = read_clock();
    mutable_loop->now_known = true;
  }
  return loop->now;
}

pry_time pry_loop_clock(const struct pry_loop *loop)
{
  return pry_loop_is_virtual(loop) ? loop->now : read_clock();
}

double pry_loop_unix_time(const struct pry_loop *loop)
{
  if (!loop->base)
    return loop->unix_start + pry_time_to_seconds(loop->now);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

bool pry_loop_is_virtual(const struct pry_loop *loop)
{
  return !loop->base;
}

struct event_base *pry_loop_event_base(struct pry_loop *loop)
{
  return loop->base;
}

/* ---- The heap of timers ----------------------------------------------------------------------------- */

static bool earlier(const struct pry_timer *a, const struct pry_timer *b)
{
  return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void heap_place(struct pry_loop *loop, struct pry_timer *timer, size_t position)
{
  loop->heap[position] = timer;
  timer->position = position;
}

static void heap_move_up(struct pry_loop *loop, struct pry_timer *timer)
{
  size_t position = timer->position;
  while (position && earlier(timer, loop->heap[(position - 1) / 2])) {
    heap_place(loop, loop->heap[(position - 1) / 2], position);
    position = (position - 1) / 2;
  }
  heap_place(loop, timer, position);
}

static void heap_move_down(struct pry_loop *loop, struct pry_timer *timer)
{
  size_t position = timer->position;
  for (;;) {
    size_t child = 2 * position + 1;
    if (child + 1 < loop->count && earlier(loop->heap[child + 1], loop->heap[child]))
      child++;
    if (child >= loop->count || !earlier(loop->heap[child], timer))
      break;
    heap_place(loop, loop->heap[child], position);
    position = child;
  }
  heap_place(loop, timer, position);
}

static void heap_restore(struct pry_loop *loop, struct pry_timer *timer)
{
  heap_move_up(loop, timer);
  heap_move_down(loop, timer);
}

bool pry_loop_reserve(struct pry_loop *loop, size_t timers)
{
  if (timers <= loop->capacity)
    return true;
  size_t capacity = loop->capacity ? loop->capacity : FIRST_HEAP_CAPACITY;
  while (capacity < timers) {
    if (capacity > SIZE_MAX / 2 / sizeof(struct pry_timer *))
      return false;
    capacity *= 2;
  }
  struct pry_timer **heap = realloc(loop->heap, capacity * sizeof(struct pry_timer *));
  if (!heap)
    return false;
  loop->heap = heap;
  loop->capacity = capacity;
  return true;
}

bool pry_timer_start(struct pry_loop *loop, struct pry_timer *timer, pry_time delay, pry_timer_fn fire, void *user)
{
  if (timer->loop != loop) {
    pry_timer_cancel(timer);
    if (!pry_loop_reserve(loop, loop->count + 1))
      return false;
    timer->loop = loop;
    heap_place(loop, timer, loop->count++);
  }
  timer->fire = fire;
  timer->user = user;
  timer->due = time_add(pry_loop_now(loop), delay);
  timer->order = loop->next_order++;
  heap_restore(loop, timer);
  return true;
}

void pry_timer_cancel(struct pry_timer *timer)
{
  struct pry_loop *loop = timer->loop;
  if (!loop)
    return;
  timer->loop = NULL;
  struct pry_timer *last = loop->heap[--loop->count];
  if (last == timer)
    return;
  heap_place(loop, last, timer->position);
  heap_restore(loop, last);
}

static pry_time earliest_due(const struct pry_loop *loop)
{
  return loop->count ? loop->heap[0]->due : PRY_TIME_NEVER;
}

/* Timers started during the pass wait for the next one, so that a timer that always restarts itself with
 * no delay cannot keep descriptors from being served. Being youngest they sort behind all older due ones. */
static bool fire_due(struct pry_loop *loop)
{
  pry_time now = pry_loop_now(loop);
  uint64_t first_new_order = loop->next_order;
  bool fired = false;
  while (earliest_due(loop) <= now && earliest_due(loop) != PRY_TIME_NEVER && loop->heap[0]->order < first_new_order) {
    struct pry_timer *timer = loop->heap[0];
    pry_timer_cancel(timer);
    timer->fire(timer->user);
    fired = true;
  }
  return fired;
}

/* ---- Making and freeing ------------------------------------------------------------------------------ */

static void alarm_rang(evutil_socket_t fd, short what, void *user)
{
  (void)fd, (void)what;
  struct pry_loop *loop = user;
  loop->alarm_due = PRY_TIME_NEVER;
}

static void wake_readable(evutil_socket_t fd, short what, void *user)
{
  (void)what;
  struct pry_loop *loop = user;
  uint64_t wakes;
  if (read(fd, &wakes, sizeof wakes) < 0)
    return;
  if (loop->on_wake)
    loop->on_wake(loop->on_wake_user);
}

static struct pry_loop *loop_alloc(void)
{
  struct pry_loop *loop = calloc(1, sizeof *loop);
  if (!loop)
    return NULL;
  loop->wake_fd = -1;
  loop->alarm_due = PRY_TIME_NEVER;
  atomic_init(&loop->woken, false);
  pry_list_init(&loop->signals);
  return loop;
}

struct pry_loop *pry_loop_new_virtual(double unix_time)
{
  struct pry_loop *loop = loop_alloc();
  if (loop)
    loop->unix_start = unix_time;
  return loop;
}

/* What libevent opens for a loop. When it cannot have its pipe, it ends the process (evsig_init_), so we ask first. */
static bool descriptors_are_left(void)
{
  int pipe_fds[2] = {-1, -1};
  int fd = epoll_create1(EPOLL_CLOEXEC);
  bool left = fd >= 0 && pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) == 0;
  if (left) {
    close(pipe_fds[0]);
    close(pipe_fds[1]);
  }
  if (fd >= 0)
    close(fd);
  return left;
}

static struct event_base *base_new(void)
{
  struct event_config *config = descriptors_are_left() ? event_config_new() : NULL;
  if (!config)
    return NULL;
  /* No lock: other threads wake the loop through its eventfd and touch nothing of libevent. No change list: with one,
   * event_add() would say yes to what epoll_ctl() refuses later, and nobody would hear of it. */
  int failed = event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) |
               event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV) |
               event_config_require_features(config, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE); /* epoll or nothing */
  struct event_base *base = failed ? NULL : event_base_new_with_config(config);
  event_config_free(config);
  return base;
}

static bool loop_add_wake(struct pry_loop *loop)
{
  loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (loop->wake_fd < 0 ||
      event_assign(&loop->wake_event, loop->base, loop->wake_fd, EV_READ | EV_PERSIST, wake_readable, loop) < 0)
    return false;
  loop->wake_event_made = true;
  return event_add(&loop->wake_event, NULL) == 0;
}

static bool loop_add_alarm(struct pry_loop *loop)
{
  if (evtimer_assign(&loop->alarm, loop->base, alarm_rang, loop) < 0)
    return false;
  loop->alarm_made = true;
  return true;
}

struct pry_loop *pry_loop_new(void)
{
  struct pry_loop *loop = loop_alloc();
  if (!loop)
    return NULL;
  loop->base = base_new();
  if (loop->base && loop_add_wake(loop) && loop_add_alarm(loop))
    return loop;
  pry_loop_free(loop);
  return NULL;
}

static void free_signals(struct pry_loop *loop)
{
  while (!pry_list_empty(&loop->signals)) {
    struct signal_watch *watch = PRY_CONTAINER_OF(loop->signals.next, struct signal_watch, link);
    pry_list_remove(&watch->link);
    event_del(&watch->event);
    free(watch);
  }
}

void pry_loop_free(struct pry_loop *loop)
{
  if (!loop)
    return;
  for (size_t i = 0; i < loop->count; i++)
    loop->heap[i]->loop = NULL;
  free_signals(loop);
  if (loop->alarm_made)
    event_del(&loop->alarm);
  if (loop->wake_event_made)
    event_del(&loop->wake_event);
  if (loop->base)
    event_base_free(loop->base);
  if (loop->wake_fd >= 0)
    close(loop->wake_fd);
  free(loop->poll_set);
  free(loop->heap);
  free(loop);
}

/* ---- Turns ------------------------------------------------------------------------------------------- */

/* An alarm that rings too early only costs an empty turn, so it is moved only to ring earlier: the idle
 * timers of a stream move with every chunk and would cost a call of libevent each. */
static bool set_alarm(struct pry_loop *loop, pry_time now, pry_time due)
{
  if (due >= loop->alarm_due)
    return true;
  pry_time wait = due - now;
  struct timeval delay = {(time_t)(wait / PRY_SECOND), (suseconds_t)(wait % PRY_SECOND)};
  if (event_add(&loop->alarm, &delay) < 0)
    return false;
  loop->alarm_due = due;
  return true;
}

static void wait_and_serve(struct pry_loop *loop, pry_time timeout)
{
  pry_time now = read_clock();
  pry_time until = time_add(now, timeout);
  if (earliest_due(loop) < until)
    until = earliest_due(loop);
  /* Without memory for the alarm the loop polls: that costs time, but no timer is missed. */
  bool wait = until > now && (until == PRY_TIME_NEVER || set_alarm(loop, now, until));
  event_base_loop(loop->base, wait ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

static bool anything_to_wait_for(struct pry_loop *loop)
{
  if (earliest_due(loop) != PRY_TIME_NEVER)
    return true;
  int ours = 1 + loop->signal_count + (loop->alarm_due != PRY_TIME_NEVER);
  return event_base_get_num_events(loop->base, EVENT_BASE_COUNT_ADDED) > ours;
}

static bool turn_real(struct pry_loop *loop, pry_time timeout)
{
  loop->turning = true;
  loop->now_known = false;
  wait_and_serve(loop, timeout);
  fire_due(loop);
  loop->turning = false;
  return anything_to_wait_for(loop);
}

static int add_to_poll_set(const struct event_base *base, const struct event *event, void *user)
{
  (void)base;
  struct pry_loop *loop = user;
  short wanted = event_get_events(event);
  if (!(wanted & (EV_READ | EV_WRITE)))
    return 0;
  if (loop->poll_count == loop->poll_capacity) {
    size_t capacity = loop->poll_capacity ? 2 * loop->poll_capacity : 16;
    struct pollfd *grown = realloc(loop->poll_set, capacity * sizeof *grown);
    if (!grown)
      return -1;
    loop->poll_set = grown;
    loop->poll_capacity = capacity;
  }
  short events = (short)((wanted & EV_READ ? POLLIN : 0) | (wanted & EV_WRITE ? POLLOUT : 0));
  loop->poll_set[loop->poll_count++] = (struct pollfd){event_get_fd(event), events, 0};
  return 0;
}

/* libevent goes back to sleep when a signal interrupts it, and lends its epoll descriptor to nobody. */
bool pry_loop_wait(struct pry_loop *loop, pry_time timeout)
{
  loop->poll_count = 0;
  if (loop->turning || !loop->base || event_base_get_num_events(loop->base, EVENT_BASE_COUNT_ACTIVE) ||
      event_base_foreach_event(loop->base, add_to_poll_set, loop) != 0)
    return true;
  pry_time now = read_clock(), until = time_add(now, timeout);
  if (earliest_due(loop) < until)
    until = earliest_due(loop);
  pry_time wait = until > now ? until - now : 0;
  struct timespec time = {(time_t)(wait / PRY_SECOND), (long)(wait % PRY_SECOND) * 1000};
  return ppoll(loop->poll_set, loop->poll_count, until == PRY_TIME_NEVER ? NULL : &time, NULL) >= 0 || errno != EINTR;
}

static bool serve_wake(struct pry_loop *loop)
{
  if (!atomic_exchange(&loop->woken, false))
    return false;
  if (loop->on_wake)
    loop->on_wake(loop->on_wake_user);
  return true;
}

static bool turn_virtual(struct pry_loop *loop, pry_time timeout)
{
  loop->turning = true;
  bool served = serve_wake(loop);
  pry_time until = served ? loop->now : time_add(loop->now, timeout);
  if (earliest_due(loop) < until)
    until = earliest_due(loop);
  if (until > loop->now && until != PRY_TIME_NEVER)
    loop->now = until;
  served |= fire_due(loop);
  loop->turning = false;
  return served;
}

bool pry_loop_turn(struct pry_loop *loop, pry_time timeout)
{
  if (loop->turning)
    return false;
  return loop->base ? turn_real(loop, timeout) : turn_virtual(loop, timeout);
}

void pry_loop_advance(struct pry_loop *loop, pry_time duration)
{
  if (loop->turning || loop->base)
    return;
  pry_time end = time_add(loop->now, duration);
  while (turn_virtual(loop, end - loop->now) || (loop->now < end && end != PRY_TIME_NEVER))
    ;
}

void pry_loop_run(struct pry_loop *loop)
{
  if (loop->turning)
    return;
  /* In virtual time nothing can come from outside: a turn without work would be followed by none with. */
  while (!loop->stopped && (pry_loop_turn(loop, PRY_TIME_NEVER) || loop->base))
    ;
  loop->stopped = false;
}

void pry_loop_stop(struct pry_loop *loop)
{
  loop->stopped = true;
}

/* ---- From outside ------------------------------------------------------------------------------------ */

void pry_loop_wake(struct pry_loop *loop)
{
  if (!loop->base) {
    atomic_store(&loop->woken, true);
    return;
  }
  int saved_errno = errno; /* may be in a signal handler */
  uint64_t one = 1;
  ssize_t written;
  do
    written = write(loop->wake_fd, &one, sizeof one);
  while (written < 0 && errno == EINTR); /* EAGAIN: the counter is full, so a wake is pending already */
  errno = saved_errno;
}

void pry_loop_on_wake(struct pry_loop *loop, void (*woken)(void *user), void *user)
{
  loop->on_wake = woken;
  loop->on_wake_user = user;
}

static void signal_came(evutil_socket_t signal_number, short what, void *user)
{
  (void)what;
  struct signal_watch *watch = user;
  watch->handler((int)signal_number, watch->user);
}

bool pry_loop_on_signal(struct pry_loop *loop, int signal_number, void (*handler)(int signal_number, void *user),
                        void *user)
{
  if (!loop->base)
    return false;
  struct signal_watch *watch = calloc(1, sizeof *watch);
  if (!watch)
    return false;
  watch->handler = handler;
  watch->user = user;
  pry_list_init(&watch->link);
  if (evsignal_assign(&watch->event, loop->base, signal_number, signal_came, watch) < 0 ||
      event_add(&watch->event, NULL) < 0) {
    free(watch);
    return false;
  }
  pry_list_push(&loop->signals, &watch->link);
  loop->signal_count++;
  return true;
}

static void watch_ready(evutil_socket_t fd, short what, void *user)
{
  (void)what;
  struct pry_watch *watch = user;
  watch->ready((int)fd, watch->user);
}

struct pry_watch *pry_watch_new(struct pry_loop *loop, int fd, int what, void (*ready)(int fd, void *user), void *user)
{
  if (!loop->base || fd < 0)
    return NULL;
  struct pry_watch *watch = calloc(1, sizeof *watch);
  if (!watch)
    return NULL;
  watch->ready = ready;
  watch->user = user;
  int events = EV_PERSIST | (what & PRY_LOOP_READABLE ? EV_READ : 0) | (what & PRY_LOOP_WRITABLE ? EV_WRITE : 0);
  if (event_assign(&watch->event, loop->base, fd, (short)events, watch_ready, watch) < 0 ||
      event_add(&watch->event, NULL) < 0) {
    free(watch);
    return NULL;
  }
  return watch;
}

void pry_watch_free(struct pry_watch *watch)
{
  if (!watch)
    return;
  event_del(&watch->event);
  free(watch);
}
