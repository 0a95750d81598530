/* Host functions and events. */
#include "parry_internal.h"

bool pry_host_functions_init(struct pry_host *host)
{
  (void)host;
  return true;
}

void pry_host_functions_end(struct pry_host *host)
{
  (void)host;
}

void pry_host_functions_fini(struct pry_host *host)
{
  (void)host;
}
