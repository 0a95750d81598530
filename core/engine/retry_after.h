/*
 * retry_after.h: when a server says we may come back, and whether at all.
 *
 * Reads `retry-after-ms` (OpenAI, Azure; milliseconds), `retry-after` (RFC 9110 §10.2.3: seconds or an
 * HTTP-date; decimals as some providers send them) and `x-should-retry` (OpenAI, Anthropic). Values come from
 * outside and are hostile: whatever is not plainly a number or a date counts as not said. Nothing here depends
 * on locale, time zone or the machine's clock. Pure functions; any thread.
 */
#ifndef PRY_RETRY_AFTER_H
#define PRY_RETRY_AFTER_H

#include "headers.h"
#include "slice.h"

/* No answer is longer than this: ten years, in seconds. Longer waits are cut to it. */
#define PRY_RETRY_AFTER_MAX (10.0 * 365 * 86400)

/* True when the server named a time; `seconds` from now, 0 … PRY_RETRY_AFTER_MAX, 0 for a date in the past.
 * False: `seconds` is untouched.
 *
 * `retry-after-ms` wins when it is readable, else `retry-after` is tried. Of several lines of the same name the
 * greatest readable value counts, so that we never come earlier than any of them said. A number is digits, or
 * digits "." digits, at most 64 bytes: no sign, exponent, hex, "NaN" or list. A large one is cut to the maximum.
 * now: Unix seconds, used for dates only. */
bool pry_retry_after(const struct pry_headers *headers, double now, double *seconds);

/* An HTTP-date (RFC 9110 §5.6.7) as Unix seconds: IMF-fixdate "Sun, 06 Nov 1994 08:49:37 GMT", RFC 850
 * "Sunday, 06-Nov-94 08:49:37 GMT" and asctime "Sun Nov  6 08:49:37 1994". A two-digit year that would lie more
 * than 50 years after `now` means the century before. The day's name is checked for its spelling only, not
 * against the date; second 60 is allowed. False when it is none of them; `seconds` is then untouched. */
bool pry_http_date(struct pry_slice text, double now, double *seconds);

enum pry_should_retry {
  PRY_SHOULD_RETRY_UNSAID, /* absent, contradictory, or neither "true" nor "false" */
  PRY_SHOULD_RETRY_NO,
  PRY_SHOULD_RETRY_YES
};

/* What `x-should-retry` says, letter case ignored. */
enum pry_should_retry pry_should_retry(const struct pry_headers *headers);

#endif
