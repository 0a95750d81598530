#include "cli.h"

#include "admin_options.h"
#include "answer.h"

#include <stdio.h>
#include <string.h>

static const char DOC[] = "Has the running parry serve an earlier set of policies at once: the one with this ID (as\n"
                          "`parry status` shows it; its beginning is enough), else the one before. The files on disk\n"
                          "stay as they are, and are kept out until one of them changes or `parry reload` asks for\n"
                          "them.";

static const char AFTER[] = "exit codes: 0 rolled back; 1 there is nothing to go back to; 2 usage; 3 no running parry "
                            "reached";

static void print_words(struct pry_slice answer, bool done)
{
  char id[16];
  pry_answer_print_findings(answer);
  pry_answer_text(answer, "generation", id, 8);
  fprintf(stderr, done ? "rolled back, serving %s\n" : "still serving %s\n", id);
}

int pry_cmd_rollback(int argc, char **argv)
{
  struct pry_admin_options_given admin = {0};
  bool json = false;
  const struct pry_option options[] = {
      PRY_OPTIONS_ADMIN(admin, "of the running parry (PARRY_ADMIN, else a socket of this user)"),
      PRY_OPTIONS_JSON(&json),
  };
  const struct pry_command_line line = {.usage = "parry rollback [ID] [OPTIONS]",
                                        .doc = DOC,
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .operands_max = 1,
                                        .after = AFTER};
  size_t operands;
  int code = pry_options_parse(&line, argc, argv, &operands);
  if (code >= 0)
    return code;
  const char *id = operands ? argv[1] : "";
  if (operands && (strlen(id) < 4 || strlen(id) > 64 || id[strspn(id, "0123456789abcdef")])) {
    fprintf(stderr, "parry: an ID is at least the first 4 of its hexadecimal digits; see: parry status\n");
    return PRY_EXIT_USAGE;
  }
  char path[128];
  int status;
  struct pry_buffer body;
  snprintf(path, sizeof path, "/api/v1/rollback%s%s", operands ? "?to=" : "", id);
  code = pry_admin_call(&admin, "POST", path, 10, &status, &body);
  if (code >= 0)
    return code;
  if (json)
    fwrite(body.data, 1, body.size, stdout);
  else
    print_words(pry_buffer_slice(&body), status == 200);
  pry_buffer_fini(&body);
  return status == 200 ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}
