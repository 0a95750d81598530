/*
 * fail.h: runs a piece of work again and again, each time with another allocation or system call failing.
 *
 * A scenario is a function that makes things, uses them and takes them down. It is run twice to warm what libraries
 * keep for ever, once to count, and then once for each call counted:
 *   once   that one call fails, all others work
 *   rest   that one fails, and every one after it
 * for memory (malloc and its family, whoever calls it: the program, libevent, curl, Lua, OpenSSL, the C library) and
 * for system calls (each with every errno listed for it in fail_calls.c). After each run no block and no descriptor may
 * be left over; what else must hold the scenario checks by itself with FAIL_CHECK(), and that things work again behind
 * fail_over().
 *
 * Runs happen in a process of their own, which goes on with the next call after a crash, a failed check or a hang (30 s
 * by a watchdog). Each such end is told with scenario, kind, number and the stacks of the failed call and of the crash.
 *
 * Long scenarios are sampled: the first calls from each distinct place (by stack), then every k-th. Environment:
 *   PARRY_OOM_FULL=1        every single one (`./dev soak`)
 *   PARRY_OOM_ONLY=NAME     one scenario
 *   PARRY_OOM_KIND=KIND     one kind: memory-once, memory-rest, system-once, system-rest
 *   PARRY_OOM_AT=N          one run, in this process: for a debugger
 *   PARRY_OOM_REPORTS=N     stop after so many (10)
 *
 * With the address sanitizer all of it works, too, and what a run loses is also looked for by reachability at the end.
 *
 * Thread: scenarios run on the main thread, and only its calls count, so that the same number is the same call in every
 * run. A scenario may name another thread instead, by the order in which it starts them (FAIL_IN_THREAD). Blocks are
 * watched whoever makes them.
 */
#ifndef PRY_FAIL_H
#define PRY_FAIL_H

#include <stdbool.h>
#include <stddef.h>

enum { FAIL_MEMORY = 1, FAIL_SYSTEM = 2, FAIL_BOTH = 3 };

/* Added to `what`: the calls of the n-th thread that a run starts are those that count and fail. */
#define FAIL_IN_THREAD(n) ((n)*16u)

struct fail_scenario {
  const char *name;
  void (*run)(void);
  unsigned what;      /* FAIL_MEMORY, FAIL_SYSTEM or both, and perhaps whose */
  unsigned most_runs; /* of one kind, when not told to do all; 0: 1000 */
};

/* Runs them all and prints "N passed, M failed" as the last line; the exit code of the program. */
int fail_main(const struct fail_scenario *scenarios, size_t count);

/* While quiet, calls of this thread neither count nor fail: what belongs to the test and not to what is tested. Nests. */
void fail_quiet(void);
void fail_loud(void);

/* Between the two nothing counts, on whatever thread. */
void fail_hold(void);
void fail_go(void);

/* For the rest of this run everything works. */
void fail_over(void);

/* Has something been made to fail in this run? */
bool fail_struck(void);

/* Is it memory that fails in this run? Else system calls do. */
bool fail_memory(void);

/* Do all calls after the first one fail, too? */
bool fail_for_good(void);

/* Ends the run as a failure of the test when the condition does not hold. */
#define FAIL_CHECK(condition) ((condition) ? (void)0 : fail_now(__FILE__, __LINE__, #condition))
void fail_now(const char *file, int line, const char *what) __attribute__((noreturn));

#endif
