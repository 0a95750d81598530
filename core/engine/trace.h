/*
 * trace.h: the caller's trace, as W3C Trace Context spells it.
 *
 * traceparent and tracestate pass to the provider as they came, like every end-to-end field. Parry takes no part in the
 * trace: it changes neither and invents none, because a parent nobody reports breaks the caller's tree. What it does is
 * to log the trace's id with the call, so that the two can be found from each other.
 *
 * Pure function; any thread.
 */
#ifndef PRY_TRACE_H
#define PRY_TRACE_H

#include "headers.h"

enum { PRY_TRACE_ID_MAX = 33 };

/* The id of the trace: 32 hexadecimal digits. "" when there is no traceparent, two of them, or one that is none
 * (Trace Context §3.2: unknown versions are read as version 00, with more behind a '-'; all zero is no id). */
void pry_trace_id(const struct pry_headers *headers, char id[PRY_TRACE_ID_MAX]);

#endif
