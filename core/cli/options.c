#include "options.h"

#include "nearest.h"

#include "cli.h"
#include "manual.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_LENGTH = 32, OPTIONS_MAX = 64 };

/* ---- help -------------------------------------------------------------------------------------------------- */

static void print_option(const struct pry_option *option)
{
  char left[64];
  const char *equals = option->type == PRY_OPTION_MAYBE_SECONDS ? "[=" : " ";
  const char *close = option->type == PRY_OPTION_MAYBE_SECONDS ? "]" : "";
  char letter[8] = "    ";
  if (option->letter)
    snprintf(letter, sizeof letter, "-%c, ", option->letter);
  snprintf(left, sizeof left, "  %s--%s%s%s%s", letter, option->name, option->value ? equals : "",
           option->value ? option->value : "", option->value ? close : "");
  printf("%-34s%s%s\n", left, strlen(left) < 34 ? "" : " ", option->doc);
}

static void print_help(const struct pry_command_line *line)
{
  printf("usage: %s\n\n%s\n", line->usage, line->doc);
  printf("\noptions:\n");
  for (size_t i = 0; i < line->option_count; i++)
    if (line->options[i].doc)
      print_option(&line->options[i]);
  printf("  -h, --help                      show this\n");
  if (line->after)
    printf("\n%s\n", line->after);
}

/* ---- values ------------------------------------------------------------------------------------------------ */

static bool read_count(const char *text, unsigned long *count)
{
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (text[0] < '0' || text[0] > '9' || *end || errno)
    return false;
  *count = value;
  return true;
}

static bool read_seconds(const char *text, double *seconds)
{
  size_t digits = strspn(text, "0123456789."); /* no sign, exponent, hex or NaN, all of which strtod would take */
  char *end;
  double value = strtod(text, &end);
  bool milliseconds = strcmp(end, "ms") == 0;
  if (!digits || end != text + digits || (*end && !milliseconds && strcmp(end, "s") != 0))
    return false;
  *seconds = milliseconds ? value / 1000 : value;
  return true;
}

static bool read_bytes(const char *text, size_t *bytes)
{
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  unsigned shift = 0;
  if (*end == 'K' || *end == 'k')
    shift = 10;
  else if (*end == 'M' || *end == 'm')
    shift = 20;
  else if (*end == 'G' || *end == 'g')
    shift = 30;
  if (text[0] < '0' || text[0] > '9' || errno || (*end && (!shift || end[1])) || value > (SIZE_MAX >> shift))
    return false;
  *bytes = (size_t)value << shift;
  return true;
}

static bool add_to_list(struct pry_option_list *list, const char *text)
{
  if (list->count == PRY_OPTION_LIST_MAX)
    return false;
  list->items[list->count++] = text;
  return true;
}

/* False: `wanted` says what the option takes. */
static bool set_value(const struct pry_option *option, const char *text, const char **wanted)
{
  switch (option->type) {
  case PRY_OPTION_FLAG:
    *(bool *)option->out = true;
    return true;
  case PRY_OPTION_TEXT:
    *(const char **)option->out = text;
    return true;
  case PRY_OPTION_COUNT:
    *wanted = "a whole number";
    return read_count(text, option->out);
  case PRY_OPTION_SECONDS:
  case PRY_OPTION_MAYBE_SECONDS:
    *wanted = "seconds, such as 10, 0.5 or 250ms";
    return read_seconds(text, option->out);
  case PRY_OPTION_BYTES:
    *wanted = "bytes, such as 65536, 64K or 8M";
    return read_bytes(text, option->out);
  case PRY_OPTION_LIST:
    *wanted = "at most 64 of them";
    return add_to_list(option->out, text);
  case PRY_OPTION_OUTPUT:
    *wanted = "json or text";
    *(bool *)option->out = strcmp(text, "json") == 0;
    return strcmp(text, "json") == 0 || strcmp(text, "text") == 0;
  }
  return false;
}

/* ---- parsing ----------------------------------------------------------------------------------------------- */

struct parser {
  const struct pry_command_line *line;
  int argc, next;
  char **argv;
};

/* "parry serve [OPTIONS]" → "parry serve --help" */
static int mistake(const struct parser *parser, const char *what, const char *subject, const char *detail)
{
  const char *usage = parser->line->usage;
  const char *end = strstr(usage, " [");
  fprintf(stderr, "parry: %s %s%s%s\n  see: %.*s --help\n", what, subject, *detail ? ": " : "", detail,
          end ? (int)(end - usage) : (int)strlen(usage), usage);
  return PRY_EXIT_USAGE;
}

static int unknown_option(const struct parser *parser, const char *argument, const char *name)
{
  const char *names[OPTIONS_MAX];
  size_t count = 0;
  for (size_t i = 0; i < parser->line->option_count && count < OPTIONS_MAX; i++)
    if (parser->line->options[i].doc)
      names[count++] = parser->line->options[i].name;
  const char *nearest = pry_nearest_name(name, names, count);
  char detail[80] = "";
  if (nearest)
    snprintf(detail, sizeof detail, "did you mean --%s?", nearest);
  return mistake(parser, "unknown option", argument, detail);
}

static int take_value(struct parser *parser, const struct pry_option *option, const char *argument, const char *value)
{
  bool needs = option->type != PRY_OPTION_FLAG && option->type != PRY_OPTION_MAYBE_SECONDS;
  if (option->type == PRY_OPTION_FLAG && value)
    return mistake(parser, "no value belongs to", argument, "");
  if (option->type == PRY_OPTION_MAYBE_SECONDS && !value)
    return -1;
  if (needs && !value && parser->next == parser->argc)
    return mistake(parser, "a value is missing after", argument, option->value ? option->value : "");
  if (needs && !value)
    value = parser->argv[parser->next++];
  const char *wanted = "another value";
  if (set_value(option, value, &wanted))
    return -1;
  char detail[160];
  snprintf(detail, sizeof detail, "it takes %s, not '%.60s'", wanted, value ? value : "");
  return mistake(parser, "cannot use", argument, detail);
}

static int parse_long(struct parser *parser, const char *argument)
{
  const char *name = argument + 2;
  const char *equals = strchr(name, '=');
  size_t length = equals ? (size_t)(equals - name) : strlen(name);
  if (strcmp(name, "help") == 0) {
    print_help(parser->line);
    return PRY_EXIT_OK;
  }
  if (strcmp(name, "man") == 0) {
    pry_manual_print_command(parser->line);
    return PRY_EXIT_OK;
  }
  for (size_t i = 0; i < parser->line->option_count; i++) {
    const struct pry_option *option = &parser->line->options[i];
    if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
      return take_value(parser, option, argument, equals ? equals + 1 : NULL);
  }
  char plain[NAME_MAX_LENGTH + 1];
  snprintf(plain, sizeof plain, "%.*s", (int)(length < NAME_MAX_LENGTH ? length : NAME_MAX_LENGTH), name);
  return unknown_option(parser, argument, plain);
}

static int parse_letters(struct parser *parser, const char *argument)
{
  for (const char *letter = argument + 1; *letter; letter++) {
    const struct pry_option *option = NULL;
    for (size_t i = 0; i < parser->line->option_count; i++)
      if (parser->line->options[i].letter == *letter)
        option = &parser->line->options[i];
    if (*letter == 'h' && !option) {
      print_help(parser->line);
      return PRY_EXIT_OK;
    }
    if (!option)
      return unknown_option(parser, argument, argument + 1);
    if (option->type != PRY_OPTION_FLAG)
      return take_value(parser, option, argument, letter[1] ? letter + 1 : NULL);
    int result = take_value(parser, option, argument, NULL);
    if (result >= 0)
      return result;
  }
  return -1;
}

int pry_options_parse(const struct pry_command_line *line, int argc, char **argv, size_t *operands)
{
  struct parser parser = {.line = line, .argc = argc, .next = 1, .argv = argv};
  size_t count = 0;
  bool ended = false;
  while (parser.next < argc) {
    char *argument = argv[parser.next++];
    int result = -1;
    if (!ended && strcmp(argument, "--") == 0) {
      ended = true;
    } else if (!ended && argument[0] == '-' && argument[1] == '-') {
      result = parse_long(&parser, argument);
    } else if (!ended && argument[0] == '-' && argument[1]) {
      result = parse_letters(&parser, argument);
    } else if (count == line->operands_max) {
      result = mistake(&parser, "nothing to do with", argument, line->operands_max ? "one too many" : "");
    } else {
      argv[1 + count++] = argument;
    }
    if (result >= 0)
      return result;
  }
  if (operands)
    *operands = count;
  return -1;
}
