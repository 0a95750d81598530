/* parry: finds the command and runs it. */
#include "cli.h"
#include "manual.h"
#include "nearest.h"
#include "options.h"
#include "parry.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct command {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *doc;
} commands[] = {
#define X(name, doc) {#name, pry_cmd_##name, doc},
    PRY_COMMANDS(X)
#undef X
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_commands(FILE *out)
{
  fprintf(out, "usage: parry COMMAND [OPTIONS]\n\n" PRY_MANUAL_ABOUT "\n\n");
  for (size_t i = 0; i < COMMANDS; i++)
    fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].doc);
  fprintf(out, "\nparry COMMAND --help tells more. New here? Start with: parry demo\n");
}

static int unknown_command(const char *name)
{
  const char *names[COMMANDS];
  for (size_t i = 0; i < COMMANDS; i++)
    names[i] = commands[i].name;
  const char *nearest = pry_nearest_name(name, names, COMMANDS);
  if (nearest)
    fprintf(stderr, "parry: there is no command '%s'; did you mean `parry %s`?\n", name, nearest);
  else
    fprintf(stderr, "parry: there is no command '%s'; see: parry --help\n", name);
  return PRY_EXIT_USAGE;
}

int pry_cmd_version(int argc, char **argv)
{
  bool json = false;
  const struct pry_option options[] = {PRY_OPTIONS_JSON(&json)};
  const struct pry_command_line line = {.usage = "parry version [OPTIONS]",
                                        .doc = "Prints the version.",
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options};
  int code = pry_options_parse(&line, argc, argv, NULL);
  if (code >= 0)
    return code;
  printf(json ? "{\"version\":\"%s\"}\n" : "parry %s\n", parry_version());
  return PRY_EXIT_OK;
}

static const struct command *find_command(const char *name)
{
  for (size_t i = 0; i < COMMANDS; i++)
    if (strcmp(name, commands[i].name) == 0)
      return &commands[i];
  return NULL;
}

/* parry help [--man] COMMAND */
static int help(char *name, bool manual)
{
  char option[8];
  snprintf(option, sizeof option, "%s", manual ? "--man" : "--help");
  char *arguments[] = {name, option, NULL};
  const struct command *command = find_command(name);
  return command ? command->run(2, arguments) : unknown_command(name);
}

static int run(int argc, char **argv)
{
  if (argc < 2) {
    print_commands(stderr);
    return PRY_EXIT_USAGE;
  }
  bool manual = strcmp(argv[1], "help") == 0 && argc > 2 && strcmp(argv[2], "--man") == 0;
  if (manual && argc == 3) {
    pry_manual_print_program();
    return PRY_EXIT_OK;
  }
  if (strcmp(argv[1], "help") == 0 && argc > 2)
    return help(argv[2 + manual], manual);
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
    print_commands(stdout);
    return PRY_EXIT_OK;
  }
  if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
    printf("parry %s\n", parry_version());
    return PRY_EXIT_OK;
  }
  const struct command *command = find_command(argv[1]);
  return command ? command->run(argc - 1, argv + 1) : unknown_command(argv[1]);
}

int main(int argc, char **argv)
{
  signal(SIGPIPE, SIG_IGN); /* a reader that left is an error of that write, not the end of the process */
  int code = run(argc, argv);
  if (fflush(stdout) != 0 || ferror(stdout)) {
    fprintf(stderr, "parry: writing to stdout failed\n");
    return code ? code : PRY_EXIT_FINDINGS;
  }
  return code;
}
