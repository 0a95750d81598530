#include "plain_locale.h"

#include <langinfo.h>

void pry_plain_locale_stay(void)
{
  uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0)); /* without one nothing is changed */
}

/* Asked in each decision, so the answer of most must be cheap: this is a few ns, the change ten times that. */
locale_t pry_plain_locale_enter(void)
{
  locale_t before = *nl_langinfo(RADIXCHAR) == '.' ? (locale_t)0 : uselocale((locale_t)0);
  if (before)
    pry_plain_locale_stay();
  return before;
}

void pry_plain_locale_leave(locale_t before)
{
  if (before)
    uselocale(before);
}
