/* What the engine says of its own: log lines, alerts, metrics. */
#include "parry_internal.h"

void pry_host_notices_log(void *user, enum pry_log_level level, const char *line, size_t size)
{
  const struct pry_host *host = user;
  host->options.log(host->options.user, (int)level, line, size);
}

bool pry_host_notices_init(struct pry_host *host)
{
  (void)host;
  return true;
}

void pry_host_notices_fini(struct pry_host *host)
{
  (void)host;
}

unsigned long pry_host_notices_lost(struct pry_host *host)
{
  (void)host;
  return 0;
}
