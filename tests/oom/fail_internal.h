/*
 * fail_internal.h: between the calls that can be made to fail (fail_calls.c) and who decides which (fail.c).
 */
#ifndef PRY_FAIL_INTERNAL_H
#define PRY_FAIL_INTERNAL_H

#include "fail.h"

#include <stdatomic.h>
#include <stdint.h>

enum { FAIL_STACK = 40 };

/* What is to fail. Set between runs. */
struct fail_plan {
  unsigned what;   /* FAIL_MEMORY or FAIL_SYSTEM: which calls count */
  unsigned thread; /* whose calls count */
  long at;         /* number of the call that fails, from 1; 0: none */
  bool rest;       /* and all after it */
  unsigned error;  /* which of the errnos of that call */
  bool record;     /* remember each call's stack (fail_places) */
  long trace;      /* number of the block whose stack is wanted; 0: none */
};

extern struct fail_plan fail_plan;

/* What a run did. */
struct fail_seen {
  atomic_long calls;       /* counted */
  atomic_long struck;      /* made to fail */
  unsigned errors;         /* how many errnos the failed call has */
  const char *name;        /* of the call that failed first */
  size_t size;             /* bytes it asked for */
  void *stack[FAIL_STACK]; /* of the call that failed first */
  int depth;
  void *traced[FAIL_STACK];
  int traced_depth;
  size_t traced_size;
};

extern struct fail_seen fail_seen;

/* Hashes of the stacks of the calls counted while recording. */
enum { FAIL_PLACES_MAX = 4 * 1024 * 1024 };
extern uint32_t *fail_places;

/* Begins and ends the time in which calls count and blocks are watched. */
void fail_calls_begin(void);
void fail_calls_end(void);

/* How many blocks made since begin were not freed, and the numbers of at most `most` of them. */
size_t fail_blocks_left(long *numbers, size_t most, size_t *bytes);

/* Is the traced block one that a library is known to keep? */
bool fail_block_is_kept(void);

/* Once, at the start of the process. */
void fail_calls_init(void);

#endif
