/*
 * options.h: command-line options as a table.
 *
 * A command declares its options once, as data; parsing, messages about mistakes and the text of --help all come from
 * that table. Accepted: --name VALUE, --name=VALUE, -n VALUE, -nVALUE, flags without a value, `--` ends the options,
 * and everything else is an operand. Options and operands may be mixed. -h and --help are always there.
 *
 * Prints help to stdout and mistakes to stderr.
 */
#ifndef PRY_OPTIONS_H
#define PRY_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

enum pry_option_type {
  PRY_OPTION_FLAG,          /* bool: set to true */
  PRY_OPTION_TEXT,          /* const char *: points into argv */
  PRY_OPTION_COUNT,         /* unsigned long: decimal digits */
  PRY_OPTION_SECONDS,       /* double: seconds, not negative; a trailing "s" or "ms" is understood */
  PRY_OPTION_MAYBE_SECONDS, /* the same, and --name without "=" is accepted and changes nothing */
  PRY_OPTION_BYTES,         /* size_t: digits with an optional K, M or G (powers of 1024) */
  PRY_OPTION_LIST,          /* struct pry_option_list: may be given several times */
  PRY_OPTION_OUTPUT         /* bool: true for "json", false for "text" */
};

enum { PRY_OPTION_LIST_MAX = 64 };

struct pry_option_list {
  const char *items[PRY_OPTION_LIST_MAX];
  size_t count;
};

struct pry_option {
  const char *name; /* without dashes */
  char letter;      /* 0: none */
  enum pry_option_type type;
  const char *value; /* how --help writes the value, e.g. "DIR"; NULL for flags */
  const char *doc;   /* one line, with the default; NULL: not shown in --help */
  void *out;         /* of the type's type; left alone when the option is not given */
};

/* --json, and -o json as other tools spell it. */
#define PRY_OPTIONS_JSON(out)                                                                                          \
  {"json", 0, PRY_OPTION_FLAG, NULL, "print JSON for programs", (out)},                                                \
  {                                                                                                                    \
    "output", 'o', PRY_OPTION_OUTPUT, "FORMAT", NULL, (out)                                                            \
  }

struct pry_command_line {
  const char *usage; /* "parry serve [OPTIONS]" */
  const char *doc;   /* what the command does: paragraphs for --help */
  const struct pry_option *options;
  size_t option_count;
  size_t operands_max;
  const char *after; /* more for --help, below the options; may be NULL */
};

/* What is left: `operands` are moved to the front of argv + 1, in order. Returns -1 when the command should run, else
 * the exit code to end with: 0 after --help, 2 after a mistake, which has been explained. *operands may be NULL when
 * operands_max is 0. */
int pry_options_parse(const struct pry_command_line *line, int argc, char **argv, size_t *operands);

#endif
