/*
 * loop.h: one thread's event loop, with a clock that tests can hold in their hands.
 *
 * The first of the two seams that make virtual time possible (the other is http.h). Everything in the
 * engine that waits does so with a timer of this loop, on this loop's clock; nothing else reads a clock.
 *
 * Two kinds, one interface:
 *   real     libevent; time is CLOCK_MONOTONIC, read once per turn of the loop
 *   virtual  no descriptors; time stands still while callbacks run and jumps to the next timer when
 *            there is nothing else to do. A test of an hour's waiting takes microseconds.
 *
 * Timers live inside their owners: starting one allocates nothing and cannot fail. Timers that are due
 * at the same time fire in the order in which they were started, in both kinds.
 *
 * Owner: a worker. Thread: everything here belongs to the loop's thread, except pry_loop_wake().
 */
#ifndef PRY_LOOP_H
#define PRY_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct pry_loop;

/* Microseconds on the loop's clock, from an arbitrary start. */
typedef int64_t pry_time;

#define PRY_SECOND ((pry_time)1000000)
#define PRY_MILLISECOND ((pry_time)1000)
#define PRY_TIME_NEVER INT64_MAX

/* Seconds to microseconds: rounded up, so that no wait ends early (a remainder below a nanosecond is taken for
 * the error of the double: 1.1 is 1100000); negative and NaN give 0, and what is longer than a century gives
 * a century. */
pry_time pry_time_from_seconds(double seconds);
double pry_time_to_seconds(pry_time time);

typedef void (*pry_timer_fn)(void *user);

/* Zero-initialise, or pry_timer_init(); all fields are the loop's. Must be cancelled before its memory goes. */
struct pry_timer {
  struct pry_loop *loop; /* NULL while not running */
  pry_timer_fn fire;
  void *user;
  pry_time due;
  uint64_t order;  /* of starting, breaks ties */
  size_t position; /* in the heap */
};

/* A loop on libevent. NULL when memory or descriptors are short. */
struct pry_loop *pry_loop_new(void);

/* A loop whose clock starts at 0 and whose wall clock starts at `unix_time` seconds. */
struct pry_loop *pry_loop_new_virtual(double unix_time);

/* Frees the loop; timers still running are forgotten without firing. NULL is fine. */
void pry_loop_free(struct pry_loop *loop);

/* The loop's clock. Constant within one turn; outside a turn a real loop reads the clock each time. */
pry_time pry_loop_now(const struct pry_loop *loop);

/* The same clock, read now: what happened since the turn began counts. Virtual: pry_loop_now(). Any thread, of a real
 * loop. */
pry_time pry_loop_clock(const struct pry_loop *loop);

/* Seconds since 1970, for dates and tokens; moves with the loop's clock in virtual time. */
double pry_loop_unix_time(const struct pry_loop *loop);

bool pry_loop_is_virtual(const struct pry_loop *loop);

/* Fires `fire(user)` once, `delay` microseconds from now, from the loop and never from inside this call,
 * even for a delay of 0; started with 0 from inside a callback it fires in the next turn (virtual: at the same
 * instant, in a later pass), so that no chain of callbacks keeps the loop to itself. A running timer is moved,
 * which cannot fail. PRY_TIME_NEVER parks it: it keeps its place in the heap and does not fire. Returns false
 * when memory for the heap is short, which pry_loop_reserve() makes impossible. */
bool pry_timer_start(struct pry_loop *loop, struct pry_timer *timer, pry_time delay, pry_timer_fn fire, void *user);

/* After this it will not fire. Safe on a timer that is not running, and from inside any callback. */
void pry_timer_cancel(struct pry_timer *timer);

static inline bool pry_timer_running(const struct pry_timer *timer)
{
  return timer->loop != NULL;
}

/* Makes room for `timers` running at once on this loop, all owners together, so that no start fails while at
 * most so many run. Never shrinks. False: no memory. */
bool pry_loop_reserve(struct pry_loop *loop, size_t timers);

/* One turn: waits at most `timeout` microseconds (0: do not wait; PRY_TIME_NEVER: until something
 * happens), then runs what is due. A virtual loop advances its clock by at most `timeout` to the next
 * due timer, and runs all that is due then. Returns true while there is anything to wait for (virtual:
 * a timer was run). Not from inside a callback: returns false. */
bool pry_loop_turn(struct pry_loop *loop, pry_time timeout);

/* Waits as a turn would, and runs nothing: for whoever wants to know of signals, which a turn sleeps on after. False: a
 * signal handler has run. Real loops only; a virtual one, and one without memory for it, does not wait. */
bool pry_loop_wait(struct pry_loop *loop, pry_time timeout);

/* Virtual only: runs everything that falls due within `duration`, then leaves the clock exactly there. */
void pry_loop_advance(struct pry_loop *loop, pry_time duration);

/* Turns until pry_loop_stop(), which may also come first (from a callback: after the current turn). A virtual
 * loop also returns when there is nothing left to run. */
void pry_loop_run(struct pry_loop *loop);
void pry_loop_stop(struct pry_loop *loop);

/* Makes a waiting turn return soon. The one function that any thread, and a signal handler, may call. */
void pry_loop_wake(struct pry_loop *loop);

/* Called on the loop's thread after pry_loop_wake(), once per turn however often it was woken. */
void pry_loop_on_wake(struct pry_loop *loop, void (*woken)(void *user), void *user);

/* libevent's base, for server.c and http.c only; NULL for a virtual loop. */
struct event_base *pry_loop_event_base(struct pry_loop *loop);

/* Calls `handler` on the loop's thread when the process gets the signal. Real loops only; false: failed.
 * One handler per signal, until the loop is freed. One loop per process: libevent gives all signals to one. */
bool pry_loop_on_signal(struct pry_loop *loop, int signal_number, void (*handler)(int signal_number, void *user),
                        void *user);

enum { PRY_LOOP_READABLE = 1, PRY_LOOP_WRITABLE = 2 };

/* Watches a descriptor that is neither curl's nor a server's (inotify, a host's pipe). Level-triggered;
 * stays until pry_watch_free(), which must come before the loop is freed and may come from `ready`. NULL: no
 * memory, a negative descriptor, or a virtual loop. */
struct pry_watch *pry_watch_new(struct pry_loop *loop, int fd, int what, void (*ready)(int fd, void *user), void *user);
void pry_watch_free(struct pry_watch *watch);

#endif
