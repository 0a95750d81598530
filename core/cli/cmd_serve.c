#include "cli.h"

#include "admin_options.h"
#include "loader.h"
#include "log_output.h"
#include "parry.h"
#include "program.h"

#include <stdio.h>
#include <unistd.h>

static const char DOC[] =
    "Runs the gateway: clients set their base URL to it, and what happens when a provider\n"
    "fails is decided by the policies. A saved policy is checked and taken over while calls\n"
    "go on; a broken one is refused with file:line and the old one serves on.";

static const char AFTER[] =
    "signals: SIGTERM, SIGINT finish open calls, then end (twice: end at once); SIGHUP reload\n"
    "exit codes: 0 ended as told; 1 cannot listen; 2 usage; 78 configuration refused\n"
    "then: parry status, parry reload, parry check DIR";

struct serve {
  const char *policies, *listen, *state, *log_format, *log_level, *watch;
  struct pry_admin_options_given admin;
  unsigned long workers, instructions;
  double wall_ms, drain_timeout;
  size_t memory;
};

static int usage(const char *what)
{
  fprintf(stderr, "parry: %s\n  see: parry serve --help\n", what);
  return PRY_EXIT_USAGE;
}

static int parse(struct serve *serve, int argc, char **argv)
{
  const struct pry_option options[] = {
      {"policies", 0, PRY_OPTION_TEXT, "DIR", "policies (./policies, else /etc/parry/policies)", &serve->policies},
      {"listen", 'l', PRY_OPTION_TEXT, "ADDRESS", "where clients connect (" PRY_GATEWAY_ADDRESS "); loopback only",
       &serve->listen},
      PRY_OPTIONS_ADMIN(serve->admin, "admin listener, unix:PATH or ADDR:PORT (a socket of this user)"),
      {"state", 0, PRY_OPTION_TEXT, "DIR", "keep renewed credentials here (kept nowhere)", &serve->state},
      {"workers", 0, PRY_OPTION_COUNT, "N", "threads (1)", &serve->workers},
      {"watch", 0, PRY_OPTION_TEXT, "on|off", "take saved policies over by itself (on)", &serve->watch},
      {"drain-timeout", 0, PRY_OPTION_SECONDS, "SECONDS", "what open calls get at the end (30)",
       &serve->drain_timeout},
      {"log-format", 0, PRY_OPTION_TEXT, "FORMAT", "auto, text or json (auto: text on a terminal)",
       &serve->log_format},
      {"log-level", 0, PRY_OPTION_TEXT, "LEVEL", "debug, info, warn or error (info)", &serve->log_level},
      {"lua-instructions", 0, PRY_OPTION_COUNT, "N", "budget of one handler run (1000000)", &serve->instructions},
      {"lua-wall-ms", 0, PRY_OPTION_COUNT, "MS", "time of one handler run (50)", NULL},
      {"lua-memory", 0, PRY_OPTION_BYTES, "BYTES", "memory of the policies (8M)", &serve->memory},
  };
  unsigned long wall_ms = 50;
  struct pry_option rows[sizeof options / sizeof *options];
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    rows[i] = options[i];
    if (!rows[i].out)
      rows[i].out = &wall_ms;
  }
  const struct pry_command_line line = {.usage = "parry serve [OPTIONS]",
                                        .doc = DOC,
                                        .options = rows,
                                        .option_count = sizeof rows / sizeof *rows,
                                        .after = AFTER};
  int code = pry_options_parse(&line, argc, argv, NULL);
  serve->wall_ms = (double)wall_ms;
  return code;
}
