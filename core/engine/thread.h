/*
 * thread.h: starting a thread that leaves signals to others.
 *
 * Signals are the business of whoever owns the process: the program's control loop, or a host. A thread of ours starts with
 * all of them blocked, so that none is ever delivered to it.
 */
#ifndef PRY_THREAD_H
#define PRY_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* False: the system has no thread left, or no memory for one; nothing runs. Any thread. */
bool pry_thread_start(pthread_t *thread, void *(*run)(void *user), void *user);

#endif
