/*
 * nearest.h: "did you mean …?"
 *
 * Pure function over text; any thread.
 */
#ifndef PRY_NEAREST_H
#define PRY_NEAREST_H

#include <stddef.h>

/* Which of `names` somebody who wrote `wrong` meant: the one with the fewest letters changed, left out, added or
 * swapped, when these are few for its length. NULL: none is near. The first of equals. */
const char *pry_nearest_name(const char *wrong, const char *const *names, size_t count);

#endif
