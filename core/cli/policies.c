#include "policies.h"

#include <stdio.h>
#include <stdlib.h>

static void print_severity(const char *folder, const struct pry_report *report, enum pry_severity severity)
{
  size_t size = strlen(folder);
  const char *slash = size && folder[size - 1] == '/' ? "" : "/";
  for (size_t i = 0; i < report->count; i++) {
    const struct pry_finding *finding = &report->findings[i];
    bool absolute = finding->where[0] == '/'; /* a clients file elsewhere */
    if (finding->severity == severity)
      printf("%s%s%s: %s%s\n", absolute ? "" : folder, absolute ? "" : slash, finding->where,
             severity == PRY_FINDING_WARNING ? "warning: " : "", finding->what);
  }
}

void pry_print_findings(const char *folder, const struct pry_report *report)
{
  print_severity(folder, report, PRY_FINDING_ERROR);
  print_severity(folder, report, PRY_FINDING_WARNING);
  if (report->more)
    printf("and %zu more\n", report->more);
}

static bool append_text(struct pry_buffer *out, const char *name, struct pry_slice text)
{
  return pry_buffer_append_format(out, "\"%s\":\"", name) && pry_buffer_append_json(out, text) &&
         pry_buffer_append_text(out, "\"");
}

static bool append_finding(struct pry_buffer *out, const struct pry_finding *finding)
{
  const char *colon = strrchr(finding->where, ':');
  struct pry_slice file = {finding->where, colon ? (size_t)(colon - finding->where) : strlen(finding->where)};
  return pry_buffer_append_text(out, "{") &&
         append_text(out, "severity",
                     finding->severity == PRY_FINDING_ERROR ? PRY_SLICE("error") : PRY_SLICE("warning")) &&
         pry_buffer_append_text(out, ",") && append_text(out, "where", pry_slice_of(finding->where)) &&
         pry_buffer_append_text(out, ",") && append_text(out, "file", file) &&
         (!colon || pry_buffer_append_format(out, ",\"line\":%d", (int)strtol(colon + 1, NULL, 10))) &&
         pry_buffer_append_text(out, ",") && append_text(out, "what", pry_slice_of(finding->what)) &&
         pry_buffer_append_text(out, "}");
}

bool pry_findings_json(const struct pry_report *report, struct pry_buffer *out)
{
  bool ok = pry_buffer_append_text(out, "[");
  for (size_t i = 0; ok && i < report->count; i++)
    ok = (!i || pry_buffer_append_text(out, ",")) && append_finding(out, &report->findings[i]);
  return ok && pry_buffer_append_text(out, "]");
}
