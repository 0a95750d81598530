#include "cli.h"

#include "admin_options.h"
#include "answer.h"

#include <stdio.h>
#include <time.h>

static const char DOC[] = "Shows the last failed attempts of the running parry, and what they have in common.";

static const char AFTER[] = "exit codes: 0 it answered; 1 it could not; 2 usage; 3 no running parry reached";

enum { LAST_DEFAULT = 100, SHOWN = 10 };

struct share {
  double of;
  size_t printed;
};

static void print_share(void *user, struct pry_slice one)
{
  struct share *share = user;
  double count = pry_answer_number(one, "count");
  if (share->printed++ >= SHOWN)
    return;
  printf("  %5.0f  %3.0f %%  ", count, 100 * count / share->of);
  pry_answer_print(stdout, one, "name", 100, "?");
  printf("\n");
}

static void print_trait(struct pry_slice answer, const char *path, const char *heading, double count)
{
  struct share share = {count, 0};
  printf("%s\n", heading);
  size_t kinds = pry_answer_each(answer, path, print_share, &share);
  if (kinds > SHOWN)
    printf("  and %zu more\n", kinds - SHOWN);
}

static void print_error(void *user, struct pry_slice error)
{
  size_t *printed = user;
  char when[16] = "?";
  struct tm parts;
  time_t seconds = (time_t)pry_answer_number(error, "time");
  if ((*printed)++ >= SHOWN)
    return;
  if (localtime_r(&seconds, &parts))
    strftime(when, sizeof when, "%H:%M:%S", &parts);
  printf("  %s  ", when);
  pry_answer_print(stdout, error, "call_id", 40, "?");
  printf("  ");
  pry_answer_print(stdout, error, "target", 60, "?");
  printf("  ");
  pry_answer_print(stdout, error, "category", 30, "?");
  double status = pry_answer_number(error, "status");
  if (status > 0)
    printf(" %.0f", status);
  printf(" ");
  pry_answer_print(stdout, error, "code", 64, "");
  printf("%s\n", pry_answer_is_true(error, "refused") ? "  (refused by parry, nothing sent)" : "");
}

static void print_errors(struct pry_slice answer)
{
  size_t printed = 0;
  double count = pry_answer_number(answer, "pattern.count");
  if (!(count > 0)) {
    printf("no attempt has failed since the start\n");
    return;
  }
  printf("the last %.0f of %.0f failed attempts, within %.0f s\n", count, pry_answer_number(answer, "seen"),
         pry_answer_number(answer, "pattern.seconds"));
  print_trait(answer, "pattern.by_category", "category", count);
  print_trait(answer, "pattern.by_status", "status", count);
  print_trait(answer, "pattern.by_code", "code", count);
  print_trait(answer, "pattern.by_target", "target", count);
  printf("newest\n");
  pry_answer_each(answer, "errors", print_error, &printed);
}

int pry_cmd_errors(int argc, char **argv)
{
  struct pry_admin_options_given admin = {0};
  bool json = false;
  unsigned long last = LAST_DEFAULT;
  const struct pry_option options[] = {
      {"last", 'n', PRY_OPTION_COUNT, "N", "how many to look at, up to 512 (100)", &last},
      PRY_OPTIONS_ADMIN(admin, "of the running parry (PARRY_ADMIN, else a socket of this user)"),
      PRY_OPTIONS_JSON(&json),
  };
  const struct pry_command_line line = {.usage = "parry errors [OPTIONS]",
                                        .doc = DOC,
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .after = AFTER};
  int code = pry_options_parse(&line, argc, argv, NULL);
  if (code >= 0)
    return code;
  char path[64];
  snprintf(path, sizeof path, "/api/v1/errors?limit=%lu", last);
  return pry_admin_show(&admin, path, json, print_errors);
}
