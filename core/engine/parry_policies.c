/* Loading, reloading, and what became of it. */
#include "parry_internal.h"

static void keep_findings(struct pry_host *host, const struct pry_report *report, bool loaded)
{
  pry_report_text(report, &host->findings);
  host->findings_text = pry_buffer_text(&host->findings);
  if (!host->findings_text || (!loaded && !*host->findings_text))
    host->findings_text = loaded ? "" : "memory is short\n";
}

int pry_host_load(struct pry_host *host)
{
  struct pry_report report;
  pry_report_init(&report);
  pthread_mutex_lock(&host->findings_lock);
  pry_buffer_clear(&host->findings);
  struct pry_policy_set *set = pry_policy_set_read(host->options.policy_dir, &host->findings);
  bool loaded = set && pry_engine_load(host->engine, set, true, &report);
  keep_findings(host, &report, loaded);
  pthread_mutex_unlock(&host->findings_lock);
  pry_report_fini(&report);
  return loaded ? PARRY_OK : PARRY_EPOLICY;
}

int parry_reload(parry *handle, int wait)
{
  (void)wait;
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (!host)
    return error;
  return atomic_load(&host->delivering) ? PARRY_EREENTRANT : pry_host_load(host);
}

size_t parry_findings(parry *handle, char *buffer, size_t size)
{
  int error;
  struct pry_host *host = pry_host_of(handle, &error);
  if (size)
    buffer[0] = '\0';
  if (!host)
    return 0;
  pthread_mutex_lock(&host->findings_lock);
  size_t length = host->findings_text ? strlen(host->findings_text) : 0;
  size_t copied = size && length >= size ? size - 1 : length;
  if (size && copied) {
    memcpy(buffer, host->findings_text, copied);
    buffer[copied] = '\0';
  }
  pthread_mutex_unlock(&host->findings_lock);
  return length;
}
