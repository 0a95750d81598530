#include "cli.h"

#include "admin_options.h"
#include "loader.h"
#include "log_output.h"
#include "program.h"
#include "shipped.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

static const char DOC[] = "Runs the gateway: clients set their base URL to it, and what happens when a provider\n"
                          "fails is decided by the policies. A saved policy is checked and taken over while calls\n"
                          "go on; a broken one is refused with file:line and the old one serves on.";

static const char AFTER[] = "signals: SIGTERM and SIGINT let open calls finish, then end (twice: end at once);\n"
                            "         SIGHUP looks at the policies, the clients file and the certificate now\n"
                            "exit codes: 0 ended as told; 1 cannot listen; 2 usage; 78 configuration refused\n"
                            "see also: parry status, parry reload, parry rollback, parry check DIR";

#define ALL_PROCESSORS ULONG_MAX

/* The options as given. */
struct serve {
  const char *policies, *listen, *state, *log_format, *log_level, *watch;
  struct pry_option_list allow_hosts, allow_probes;
  struct pry_admin_options_given admin;
  unsigned long workers, instructions, wall_ms;
  double drain_timeout, drain_delay;
  const char *tls_cert, *tls_key;
  unsigned long max_connections, max_connections_per_address;
  size_t memory, max_body;
};

/* What they come to. */
struct setup {
  char shipped[PRY_SHIPPED_PATH_MAX];
  struct pry_log_output output;
  struct pry_admin_place admin;
  struct pry_program_options program;
};

static int parse(struct serve *serve, int argc, char **argv)
{
  const struct pry_option options[] = {
      {"policies", 0, PRY_OPTION_TEXT, "DIR", "policies (./policies, else /etc/parry/policies)", &serve->policies},
      {"listen", 'l', PRY_OPTION_TEXT, "ADDRESS",
       "where clients connect (" PRY_GATEWAY_ADDRESS "); elsewhere with client keys", &serve->listen},
      {"allow-host", 0, PRY_OPTION_LIST, "NAME", "a Host or Origin to accept without client keys", &serve->allow_hosts},
      {"allow-probe", 0, PRY_OPTION_LIST, "HOST:PORT", "file_check may ask this host although it is not public",
       &serve->allow_probes},
      PRY_OPTIONS_ADMIN(serve->admin, "admin listener: unix:PATH or ADDR:PORT (a socket of this user)"),
      {"state", 0, PRY_OPTION_TEXT, "DIR", "keep last good policies and renewed tokens here (kept nowhere)",
       &serve->state},
      {"workers", 0, PRY_OPTION_COUNT, "N", "threads that serve (as many as there are processors)", &serve->workers},
      {"watch", 0, PRY_OPTION_TEXT, "on|off", "take saved policies over by itself (on)", &serve->watch},
      {"drain-timeout", 0, PRY_OPTION_SECONDS, "SECONDS", "time for open calls at the end (30)", &serve->drain_timeout},
      {"drain-delay", 0, PRY_OPTION_SECONDS, "SECONDS", "not ready, but accepting, before that (0)",
       &serve->drain_delay},
      {"tls-cert", 0, PRY_OPTION_TEXT, "FILE", "speak TLS with this chain (PEM); read again by `parry reload`",
       &serve->tls_cert},
      {"tls-key", 0, PRY_OPTION_TEXT, "FILE", "its private key (PEM)", &serve->tls_key},
      {"max-connections", 0, PRY_OPTION_COUNT, "N", "of clients, in all (10000)", &serve->max_connections},
      {"max-connections-per-address", 0, PRY_OPTION_COUNT, "N", "of one client address (no limit)",
       &serve->max_connections_per_address},
      {"max-body", 0, PRY_OPTION_BYTES, "BYTES", "longest body a client may send; more is 413 (1G)", &serve->max_body},
      {"log-format", 0, PRY_OPTION_TEXT, "FORMAT", "auto, text or json (auto: text on a terminal)", &serve->log_format},
      {"log-level", 0, PRY_OPTION_TEXT, "LEVEL", "debug, info, warn or error (info)", &serve->log_level},
      {"lua-instructions", 0, PRY_OPTION_COUNT, "N", "budget of one run of a handler (1000000)", &serve->instructions},
      {"lua-wall-ms", 0, PRY_OPTION_COUNT, "MS", "time for one run of a handler (50; 0: no limit)", &serve->wall_ms},
      {"lua-memory", 0, PRY_OPTION_BYTES, "BYTES", "memory for the policies' data (8M)", &serve->memory},
  };
  const struct pry_command_line line = {.usage = "parry serve [OPTIONS]",
                                        .doc = DOC,
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .after = AFTER};
  return pry_options_parse(&line, argc, argv, NULL);
}

static bool complain(const char *what)
{
  fprintf(stderr, "parry: %s\n  see: parry serve --help\n", what);
  return false;
}

static bool read_words(const struct serve *serve, struct setup *setup)
{
  enum pry_log_format format = PRY_LOG_AUTO;
  if (serve->log_format && !pry_log_format_from_name(serve->log_format, &format))
    return complain("--log-format is auto, text or json");
  if (serve->log_level && !pry_log_level_from_name(serve->log_level, &setup->program.log_level))
    return complain("--log-level is debug, info, warn or error");
  if (serve->watch && strcmp(serve->watch, "on") != 0 && strcmp(serve->watch, "off") != 0)
    return complain("--watch is on or off");
  if (serve->max_connections > UINT_MAX || serve->max_connections_per_address > UINT_MAX)
    return complain("--max-connections and --max-connections-per-address are at most 4294967295");
  if (serve->workers == 0 || (serve->workers > PRY_WORKERS_MAX && serve->workers != ALL_PROCESSORS))
    return complain("--workers is 1 to 256");
  setup->program.watch = !serve->watch || strcmp(serve->watch, "on") == 0;
  pry_log_output_init(&setup->output, format, STDERR_FILENO);
  return true;
}

/* Returns the exit code, or -1: go on. */
static int prepare(const struct serve *serve, struct setup *setup)
{
  char error[PRY_PLACE_MAX + 256];
  setup->program =
      (struct pry_program_options){.listen = serve->listen ? serve->listen : PRY_GATEWAY_ADDRESS,
                                   .allow_hosts = {serve->allow_hosts.items, serve->allow_hosts.count},
                                   .probe_hosts = {serve->allow_probes.items, serve->allow_probes.count},
                                   .state_dir = serve->state,
                                   .limits = {.instructions = serve->instructions,
                                              .wall = serve->wall_ms ? (double)serve->wall_ms / 1000 : -1,
                                              .memory = serve->memory},
                                   .workers = serve->workers == ALL_PROCESSORS ? 0 : (unsigned)serve->workers,
                                   .tls_cert = serve->tls_cert,
                                   .tls_key = serve->tls_key,
                                   .max_connections = (unsigned)serve->max_connections,
                                   .max_connections_per_address = (unsigned)serve->max_connections_per_address,
                                   .drain_timeout = serve->drain_timeout,
                                   .drain_delay = serve->drain_delay,
                                   .max_body = serve->max_body,
                                   .log = pry_log_output_write,
                                   .log_user = &setup->output,
                                   .log_level = PRY_LOG_INFO,
                                   .loader = &pry_lua_loader};
  if (!read_words(serve, setup) || !pry_admin_place_init(&setup->admin, &serve->admin, false))
    return PRY_EXIT_USAGE;
  setup->program.admin = setup->admin.address;
  setup->program.admin_token = pry_admin_place_token(&setup->admin);
  setup->program.policies = pry_place_policies(serve->policies, error, sizeof error);
  setup->program.shipped = pry_shipped_folder(setup->shipped);
  bool ok = setup->program.policies &&
            (serve->admin.address || pry_place_make_folder(setup->admin.address, error, sizeof error));
  if (ok)
    return -1;
  fprintf(stderr, "parry: %s\n", error);
  return PRY_EXIT_CONFIG;
}

/* The last line of start-up, whatever the log level: scripts wait for it and read the real addresses in it. */
static void say_ready(struct pry_program *program, struct setup *setup)
{
  const struct pry_generation *generation = pry_engine_generation(pry_program_engine(program));
  const char *address = pry_program_address(program);
  char url[PRY_PLACE_MAX], id[8];
  struct pry_log *log = pry_log_new(pry_log_output_write, &setup->output, PRY_LOG_INFO, pry_program_clock, program);
  if (!log)
    return;
  snprintf(url, sizeof url, "%s%s",
           strncmp(address, "unix:", 5) == 0 ? ""
           : setup->program.tls_cert         ? "https://"
                                             : "http://",
           address);
  snprintf(id, sizeof id, "%s", generation->id);
  pry_log(log, PRY_LOG_INFO, "ready", pry_log_text("gateway", url),
          pry_log_text("admin", pry_program_admin_address(program)), pry_log_text("policies", setup->program.policies),
          pry_log_text("generation", id), pry_log_integer("tests", generation->tests));
  pry_log_free(log);
}

static int serve_until_told(struct setup *setup)
{
  struct pry_buffer problem;
  enum pry_program_failure failure = PRY_PROGRAM_FAILED;
  int code = PRY_EXIT_FINDINGS;
  pry_buffer_init(&problem, 1024 * 1024);
  struct pry_program *program = NULL;
  setup->program.loop = pry_loop_new();
  if (setup->program.loop)
    program = pry_program_new(&setup->program, &failure, &problem);
  if (program) {
    say_ready(program, setup);
    pry_program_run(program);
    code = PRY_EXIT_OK;
  } else {
    const char *text = pry_buffer_text(&problem);
    fprintf(stderr, "parry: %s\n", text && *text ? text : "memory or descriptors are short");
    code = failure == PRY_PROGRAM_REFUSED ? PRY_EXIT_CONFIG : PRY_EXIT_FINDINGS;
  }
  pry_program_free(program);
  pry_loop_free(setup->program.loop);
  pry_buffer_fini(&problem);
  return code;
}

int pry_cmd_serve(int argc, char **argv)
{
  struct serve serve = {.workers = ALL_PROCESSORS, .wall_ms = 50, .drain_timeout = 30};
  struct setup setup = {0};
  int code = parse(&serve, argc, argv);
  if (code >= 0)
    return code;
  code = prepare(&serve, &setup);
  if (code < 0) {
    pry_log_output_start(&setup.output);
    code = serve_until_told(&setup);
    pry_log_output_stop(&setup.output);
  }
  pry_admin_place_fini(&setup.admin);
  return code;
}
