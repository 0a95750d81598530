#include "cli.h"

#include "admin_options.h"
#include "json.h"

#include <stdio.h>

static const char DOC[] = "Has the running parry look at its policies now, and waits for the answer: taken over,\n"
                          "unchanged, or refused with file:line. A refused set changes nothing.";

static const char AFTER[] = "exit codes: 0 taken over or unchanged; 1 refused, or not decided in time;\n"
                            "            2 usage; 3 no running parry reached";

/* A member as text; "" when it is not there. */
static const char *member(struct pry_slice object, const char *path, struct pry_buffer *out)
{
  struct pry_json_value value;
  pry_buffer_clear(out);
  if (pry_json_get(object, path, &value) && value.type == PRY_JSON_STRING && pry_json_string(value.raw, out) &&
      pry_buffer_text(out))
    return out->data;
  return "";
}

static void print_findings(struct pry_slice answer)
{
  struct pry_json_value report;
  struct pry_json_iterator iterator;
  struct pry_json_value finding;
  struct pry_slice key;
  struct pry_buffer where, what, severity;
  pry_buffer_init(&where, 0);
  pry_buffer_init(&what, 0);
  pry_buffer_init(&severity, 0);
  if (!pry_json_get(answer, "report", &report))
    return;
  pry_json_iterate(&iterator, report.raw);
  while (pry_json_next(&iterator, &key, &finding)) {
    bool warning = strcmp(member(finding.raw, "severity", &severity), "warning") == 0;
    fprintf(stderr, "%s: %s%s\n", member(finding.raw, "where", &where), warning ? "warning: " : "",
            member(finding.raw, "what", &what));
  }
  pry_buffer_fini(&where);
  pry_buffer_fini(&what);
  pry_buffer_fini(&severity);
}

static void print_words(struct pry_slice answer, double wait)
{
  struct pry_buffer result, generation;
  pry_buffer_init(&result, 0);
  pry_buffer_init(&generation, 0);
  const char *how = member(answer, "result", &result);
  const char *id = member(answer, "generation", &generation);
  print_findings(answer);
  if (strcmp(how, "refused") == 0)
    fprintf(stderr, "refused, still serving %.7s; mend it and save, or try: parry check DIR\n", id);
  else if (strcmp(how, "pending") == 0)
    fprintf(stderr, "not decided after %g s; parry status shows how it ends\n", wait);
  else
    fprintf(stderr, "%s, serving %.7s\n", how, id);
  pry_buffer_fini(&result);
  pry_buffer_fini(&generation);
}

int pry_cmd_reload(int argc, char **argv)
{
  struct pry_admin_options_given admin = {0};
  double wait = 10;
  bool json = false;
  const struct pry_option options[] = {
      {"wait", 0, PRY_OPTION_MAYBE_SECONDS, "SECONDS", "for how long (10; 0: do not wait)", &wait},
      PRY_OPTIONS_ADMIN(admin, "of the running parry (PARRY_ADMIN, else a socket of this user)"),
      PRY_OPTIONS_JSON(&json),
  };
  const struct pry_command_line line = {.usage = "parry reload [OPTIONS]",
                                        .doc = DOC,
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .after = AFTER};
  int code = pry_options_parse(&line, argc, argv, NULL);
  if (code >= 0)
    return code;
  char path[64];
  int status;
  struct pry_buffer body;
  snprintf(path, sizeof path, "/api/v1/reload?wait=%.3f", wait);
  code = pry_admin_call(&admin, "POST", path, wait + 5, &status, &body);
  if (code >= 0)
    return code;
  if (json)
    fwrite(body.data, 1, body.size, stdout);
  else
    print_words(pry_buffer_slice(&body), wait);
  pry_buffer_fini(&body);
  return status == 200 || (status == 202 && wait == 0) ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}
