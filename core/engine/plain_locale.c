#include "plain_locale.h"

locale_t pry_plain_locale_enter(void)
{
  return uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0)); /* without one nothing is changed */
}

void pry_plain_locale_leave(locale_t before)
{
  uselocale(before);
}
