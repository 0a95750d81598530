#include "cli.h"

#include "admin_options.h"
#include "answer.h"

#include <stdio.h>
#include <string.h>

static const char DOC[] = "Has the running parry look at its policies now, and waits for the answer: taken over,\n"
                          "unchanged, or refused with file:line. A refused set changes nothing. The clients file and\n"
                          "the TLS certificate are read again, too; what is wrong with them is in the log.";

static const char AFTER[] =
    "exit codes: 0 taken over by all workers, or unchanged; 1 refused, or not decided in time;\n"
    "            2 usage; 3 no running parry reached";

static void print_words(struct pry_slice answer, double wait)
{
  char how[32], id[8];
  pry_answer_text(answer, "result", how, sizeof how);
  pry_answer_text(answer, "generation", id, sizeof id);
  double behind = pry_answer_number(answer, "behind");
  pry_answer_print_findings(answer);
  if (strcmp(how, "refused") == 0)
    fprintf(stderr, "refused, still serving %s; mend it and save, or try: parry check DIR\n", id);
  else if (strcmp(how, "pending") == 0)
    fprintf(stderr, "not decided after %g s; parry status shows how it ends\n", wait);
  else if (behind > 0)
    fprintf(stderr, "%s, serving %s, but not yet on %g worker%s\n", how, id, behind, behind > 1 ? "s" : "");
  else
    fprintf(stderr, "%s, serving %s\n", how, id);
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
  bool good = status == 200 && !(pry_answer_number(pry_buffer_slice(&body), "behind") > 0);
  pry_buffer_fini(&body);
  return good || (status == 202 && wait == 0) ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}
