/*
 * fuzz.h: what the fuzz targets share.
 *
 * A target is LLVMFuzzerTestOneInput in fuzz_<name>.c. It must not only survive its input: it checks what must hold
 * for every input (an oracle) and aborts where it does not. Seeds are in corpus/<name>/. Built with libFuzzer it
 * searches; linked with replay.c it runs over the seeds as an ordinary test.
 */
#ifndef PRY_FUZZ_H
#define PRY_FUZZ_H

#include "slice.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                                                             \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                                   \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

/* A copy of exactly its size, so that a sanitizer sees any byte read beside it; free() its data. */
static inline struct pry_slice fuzz_copy(struct pry_slice text)
{
  char *data = malloc(text.size ? text.size : 1);
  REQUIRE(data);
  if (text.size)
    memcpy(data, text.data, text.size);
  return (struct pry_slice){data, text.size};
}

static inline void fuzz_release(struct pry_slice copy)
{
  free((void *)(uintptr_t)copy.data);
}

#endif
