/*
 * handle.h: what a host holds of an engine: a place in a table that is never given back to the system.
 *
 * A `parry *` points to such a place, and not to the engine. So a handle outlives its engine: whoever uses one that was
 * freed, twice or on another thread, reads a place that says so, under any allocator and any checker of memory. A place
 * is given to another engine only after 63 more were made, so that an old handle does not soon mean a new engine. Other
 * pointers are refused by their address, unread.
 *
 * The table's pages are wiped in a forked child (MADV_WIPEONFORK): there every handle of the parent says so, nothing of
 * the parent's engine is touched, and the table's own lock cannot be one that a thread held which does not exist there.
 * Where the kernel cannot wipe, process ids are compared, and such a child can make no engine of its own.
 *
 * Thread: any, at any time; pry_handle_host() also in a signal handler.
 */
#ifndef PRY_HANDLE_H
#define PRY_HANDLE_H

#include "parry.h"

struct pry_host;

/* A place for this engine. NULL: there are 4000, or the system has no memory. */
parry *pry_handle_new(struct pry_host *host);

/* NULL, with *error PARRY_EFREED or PARRY_EFORKED, when there is none. */
struct pry_host *pry_handle_host(const parry *handle, int *error);

/* The place names nothing any more. */
void pry_handle_free(parry *handle);

#endif
