#include "cli.h"

#include "admin_options.h"
#include "answer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char DOC[] =
    "Fails calls on purpose, for a while, with the experiments that use \"chaos\" { experiments = …\n"
    "} declares in the running parry's policies.\n\n"
    "  arm NAME   begins an experiment; it ends by itself after --for\n"
    "  off        ends all of them, or one: off NAME\n"
    "  status     shows what there is, and what is armed";

static const char AFTER[] = "example: parry chaos arm overload --rate 0.2 --for 10m\n"
                            "exit codes: 0 done; 1 not done, and why; 2 usage; 3 no running parry reached";

struct chaos {
  struct pry_admin_options_given admin;
  const char *rate, *span, *instance;
  bool json;
};

static int usage(const char *what)
{
  fprintf(stderr, "parry: %s\n  see: parry chaos --help\n", what);
  return PRY_EXIT_USAGE;
}

static bool is_name(const char *text, size_t most)
{
  size_t size = strlen(text);
  return size > 0 && size <= most &&
         strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == size;
}

/* "90", "90s", "10m", "1h" in seconds; NaN for anything else. */
static double read_span(const char *text)
{
  static const struct {
    const char *unit;
    double seconds;
  } units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}};
  char *end;
  double value = strtod(text, &end);
  if (end == text || !strchr("0123456789", text[0]))
    return NAN;
  for (size_t i = 0; i < sizeof units / sizeof *units; i++)
    if (strcmp(end, units[i].unit) == 0)
      return value * units[i].seconds;
  return NAN;
}

static void print_name(void *user, struct pry_slice element)
{
  bool *first = user;
  printf("%s%.*s", *first ? "" : ", ", (int)element.size, element.data); /* a JSON text, checked by is_name() there */
  *first = false;
}

/* True when there was one. */
static bool print_armed(struct pry_slice armed)
{
  bool any = false;
  struct pry_json_iterator it;
  struct pry_json_value row;
  struct pry_slice name;
  pry_json_iterate(&it, armed);
  while (pry_json_next(&it, &name, &row))
    if (name.size && pry_answer_number(row.raw, "rate") > 0) {
      printf("  ARMED %.*s  rate %g, %.0f s left\n", (int)name.size, name.data, pry_answer_number(row.raw, "rate"),
             fmax(0, pry_answer_number(row.raw, "until") - (double)time(NULL)));
      any = true;
    }
  return any;
}

struct told {
  unsigned instances, wrong;
};

static void print_instance(void *user, struct pry_slice element)
{
  struct told *told = user;
  struct pry_json_value armed;
  char wrong[200];
  bool first = true;
  told->instances++;
  pry_answer_print(stdout, element, "instance", 64, "?");
  printf(": experiments ");
  pry_answer_each(element, "report.known", print_name, &first);
  printf("%s\n", first ? "none" : "");
  if (!pry_json_get(element, "report.armed", &armed) || armed.type != PRY_JSON_OBJECT || !print_armed(armed.raw))
    printf("  nothing is armed\n");
  if (pry_answer_text(element, "report.wrong", wrong, sizeof wrong)[0]) {
    fprintf(stderr, "parry: %s\n", wrong);
    told->wrong++;
  }
}

static void count_instance(void *user, struct pry_slice element)
{
  struct told *told = user;
  char wrong[200];
  told->instances++;
  told->wrong += pry_answer_text(element, "report.wrong", wrong, sizeof wrong)[0] != '\0';
}

/* The order as a path; false: it does not fit. */
static bool write_path(const struct chaos *chaos, const char *action, const char *name, double seconds, char *path,
                       size_t size)
{
  int used = snprintf(path, size, "/api/v1/chaos");
  if (strcmp(action, "status") == 0)
    return true;
  used += snprintf(path + used, size - (size_t)used, "?do=%s", action);
  if (name)
    used += snprintf(path + used, size - (size_t)used, "&experiment=%s", name);
  if (seconds > 0)
    used += snprintf(path + used, size - (size_t)used, "&for=%.3f", seconds);
  if (chaos->rate)
    used += snprintf(path + used, size - (size_t)used, "&rate=%.6f", strtod(chaos->rate, NULL));
  if (chaos->instance)
    used += snprintf(path + used, size - (size_t)used, "&instance=%s", chaos->instance);
  return (size_t)used < size;
}

static int order(const struct chaos *chaos, const char *action, const char *path)
{
  struct told told = {0};
  struct pry_buffer body;
  int status;
  int code = pry_admin_call(&chaos->admin, strcmp(action, "status") == 0 ? "GET" : "POST", path, 10, &status, &body);
  if (code >= 0)
    return code;
  struct pry_slice answer = pry_buffer_slice(&body);
  if (chaos->json)
    fwrite(body.data, 1, body.size, stdout);
  pry_answer_each(answer, "instances", chaos->json ? count_instance : print_instance, &told);
  if (status != 200) {
    char detail[300];
    fprintf(stderr, "parry: %s\n", pry_answer_text(answer, "detail", detail, sizeof detail));
  } else if (!told.instances) {
    fprintf(stderr, "parry: no chain has use \"chaos\" { experiments = … }%s\n",
            chaos->instance ? " of that instance's name" : "");
  }
  pry_buffer_fini(&body);
  return status == 200 && told.instances && !told.wrong ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}

/* Returns the exit code of a mistake, or -1. */
static int check_order(const struct chaos *chaos, const char *action, const char *name, double *seconds)
{
  bool arms = strcmp(action, "arm") == 0;
  char *end = NULL;
  if (!arms && strcmp(action, "off") != 0 && strcmp(action, "status") != 0)
    return usage("what to do is arm NAME, off [NAME] or status");
  if ((name && !is_name(name, 40)) || (chaos->instance && !is_name(chaos->instance, 64)))
    return usage("a name holds letters, digits and _ . -");
  if (arms && !name)
    return usage("arm needs the name of an experiment; see: parry chaos status");
  if (arms && !chaos->span)
    return usage("arm needs --for, as --for 10m: it ends by itself");
  if (!arms && (chaos->span || chaos->rate))
    return usage("--for and --rate go with arm");
  *seconds = arms ? read_span(chaos->span) : -1;
  if (arms && !(*seconds > 0 && *seconds <= 86400))
    return usage("--for is a time such as 90s, 10m or 1h, at most 24h");
  double rate = chaos->rate ? strtod(chaos->rate, &end) : 1;
  if (chaos->rate && (end == chaos->rate || *end || !(rate >= 0 && rate <= 1)))
    return usage("--rate is a number from 0 to 1");
  return -1;
}

int pry_cmd_chaos(int argc, char **argv)
{
  struct chaos chaos = {0};
  const struct pry_option options[] = {
      {"for", 0, PRY_OPTION_TEXT, "TIME", "arm: how long, as 90s, 10m or 1h", &chaos.span},
      {"rate", 0, PRY_OPTION_TEXT, "SHARE", "arm: of the attempts it concerns, 0 to 1 (as declared)", &chaos.rate},
      {"instance", 0, PRY_OPTION_TEXT, "NAME", "of a policy used as = NAME (all of them)", &chaos.instance},
      PRY_OPTIONS_ADMIN(chaos.admin, "of the running parry (PARRY_ADMIN, else a socket of this user)"),
      PRY_OPTIONS_JSON(&chaos.json),
  };
  const struct pry_command_line line = {.usage = "parry chaos [OPTIONS] arm NAME | off [NAME] | status",
                                        .doc = DOC,
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .operands_max = 2,
                                        .after = AFTER};
  size_t operands;
  double seconds = -1;
  char path[400];
  int code = pry_options_parse(&line, argc, argv, &operands);
  if (code >= 0)
    return code;
  if (!operands)
    return usage("what to do is arm NAME, off [NAME] or status");
  const char *name = operands > 1 ? argv[2] : NULL;
  code = check_order(&chaos, argv[1], name, &seconds);
  if (code >= 0)
    return code;
  if (!write_path(&chaos, argv[1], name, seconds, path, sizeof path))
    return usage("that is too long");
  return order(&chaos, argv[1], path);
}
