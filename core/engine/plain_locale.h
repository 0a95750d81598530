/*
 * plain_locale.h: numbers are written and read as in the C locale, whatever the host's locale says.
 *
 * A host that called setlocale(LC_ALL, "") may have decimal commas, and then printf() and strtod() have them, and so has
 * Lua: tostring(0.5) in a policy, a number in JSON, a sample of a metric. So our threads run in the C locale, and a thread
 * of the host's does while it is inside. The host's own locale is its own again in its callbacks, and afterwards.
 *
 * Thread: any; it concerns the calling one only. Cannot fail, allocates nothing: the C locale is a constant of libc's.
 */
#ifndef PRY_PLAIN_LOCALE_H
#define PRY_PLAIN_LOCALE_H

#include <locale.h>

/* Around work of ours on a thread of the host's. What it had, for pry_plain_locale_leave(); 0: points already, as most
 * have, and nothing was changed. Pairs may nest. */
locale_t pry_plain_locale_enter(void);
void pry_plain_locale_leave(locale_t before);

/* First in a thread of ours: whatever the host may set later. */
void pry_plain_locale_stay(void);

#endif
