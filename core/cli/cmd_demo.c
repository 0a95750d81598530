#include "cli.h"
#include "shipped.h"

#include "demo.h"
#include "loader.h"
#include "options.h"
#include "parry.h"
#include "places.h"
#include "program.h"
#include "sim.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define ONCE_LIMIT (60 * PRY_SECOND)
#define TRICKLE_PAUSE (10 * PRY_SECOND)

static const char DOC[] = "Starts a simulated provider that fails on purpose, parry in front of it, and a slow\n"
                          "trickle of calls, and shows how each failure is recovered. No key is needed and nothing\n"
                          "leaves this machine. The policies are copied to a folder of your own: edit and save.";

static const char AFTER[] =
    "exit codes: 0 ended by Ctrl-C or SIGTERM, with --once all recovered; 1 it could not start, or\n"
    "            with --once not all recovered within 60 s; 2 usage; 78 policies refused";

struct demo {
  bool once;
  const char *policies;      /* the folder to edit */
  char admin[PRY_PLACE_MAX]; /* address */
  struct pry_loop *loop;
  struct pry_sim *sim;
  struct pry_program *program;
  struct pry_demo_screen screen;
  struct pry_demo_traffic traffic;
  struct pry_timer limit;
  bool all_recovered;
  int claim; /* of the folder, see pry_demo_claim() */
  size_t kept;
};

/* ---- what happens while it runs -------------------------------------------------------------------------- */

/* How this program is called, for commands that people can copy. */
static const char *own_name(void)
{
  const char *name = program_invocation_name;
  char here[PRY_PLACE_MAX];
  size_t size = getcwd(here, sizeof here) ? strlen(here) : 0;
  if (size > 1 && strncmp(name, here, size) == 0 && name[size] == '/')
    return name + size + 1;
  return name;
}

static void print_next_steps(const struct demo *demo)
{
  FILE *out = demo->screen.out;
  const char *address = pry_program_address(demo->program), *name = own_name();
  fprintf(out, "ready: point an OpenAI client's base_url at http://%s/v1, an Anthropic client's at http://%s\n",
          address, address);
  fprintf(out,
          "  try   curl -i http://%s/v1/chat/completions -H content-type:application/json -d "
          "'{\"model\":\"sim-429\",\"messages\":[{\"role\":\"user\","
          "\"content\":\"hi\"}]}'\n",
          address);
  fprintf(out, "  edit  %s/retry.lua and save: taken over at once, or refused with its line\n", demo->policies);
  fprintf(out, "  see   %s status --admin %s   (also: reload, rollback)\n", name, demo->admin);
  fprintf(out, "  end   Ctrl-C; what you edited stays in %s\n", demo->policies);
  fflush(out);
}

static void all_recovered(void *user)
{
  struct demo *demo = user;
  demo->all_recovered = true;
  pry_timer_cancel(&demo->limit);
  if (!demo->once) {
    print_next_steps(demo);
    return;
  }
  fprintf(demo->screen.out,
          "all five kinds of failure have recovered; without --once the demo stays: edit %s/retry.lua and watch\n",
          demo->policies);
  pry_program_drain(demo->program);
}

static void took_too_long(void *user)
{
  struct demo *demo = user;
  char missing[128];
  pry_demo_traffic_missing(&demo->traffic, missing, sizeof missing);
  fprintf(demo->screen.out, "parry demo: not recovered within 60 s: %s\n", missing);
  if (demo->kept)
    fprintf(demo->screen.out, "  the policies in %s are as you left them; to start afresh remove that folder\n",
            demo->policies);
  if (demo->once)
    pry_program_drain(demo->program);
  else
    print_next_steps(demo);
}

static void reloaded(void *user, const struct pry_reload_outcome *outcome)
{
  struct demo *demo = user;
  pry_demo_screen_reload(&demo->screen, outcome, pry_engine_generation(pry_program_engine(demo->program)));
  if (outcome->result == PRY_RELOAD_TAKEN_OVER)
    pry_demo_traffic_hurry(&demo->traffic);
}

/* ---- starting ------------------------------------------------------------------------------------------------- */

static bool choose_places(struct demo *demo)
{
  const char *slash = strrchr(demo->policies, '/');
  int parent = slash ? (int)(slash - demo->policies) : 1;
  int length = snprintf(demo->admin, sizeof demo->admin, "unix:%.*s/admin.sock", parent, slash ? demo->policies : ".");
  return length > 0 && (size_t)length < sizeof demo->admin;
}

/* What init.lua's secrets are found by: the simulator takes any key, wants a token, and gives one for this. */
static bool set_secrets(void)
{
  return setenv("PARRY_DEMO_KEY", "demo-key-without-a-meaning", 1) == 0 &&
         setenv("PARRY_DEMO_ACCESS_TOKEN", "demo-access-token-that-expired", 1) == 0 &&
         setenv("PARRY_DEMO_REFRESH_TOKEN", "demo-refresh-token", 1) == 0;
}

static int complain(const char *text)
{
  fprintf(stderr, "parry demo: %s\n", text);
  return PRY_EXIT_FINDINGS;
}

static int start_program(struct demo *demo)
{
  struct pry_buffer problem;
  enum pry_program_failure failure;
  const struct pry_program_options options = {.loop = demo->loop,
                                              .policies = demo->policies,
                                              .listen = PRY_GATEWAY_ADDRESS,
                                              .listen_else = "127.0.0.1:0",
                                              .admin = demo->admin,
                                              .watch = true,
                                              .drain_timeout = 2,
                                              .log = pry_demo_screen_log,
                                              .log_user = &demo->screen,
                                              .log_level = PRY_LOG_INFO,
                                              .loader = &pry_lua_loader,
                                              .reloaded = reloaded,
                                              .user = demo};
  pry_buffer_init(&problem, 1024 * 1024);
  demo->program = pry_program_new(&options, &failure, &problem);
  int code = -1;
  if (!demo->program) {
    code = complain(problem.size ? pry_buffer_text(&problem) : "memory is short");
    if (demo->kept)
      fprintf(stderr, "  the policies in %s are as you left them; to start afresh remove that folder\n",
              demo->policies);
    if (failure == PRY_PROGRAM_REFUSED)
      code = PRY_EXIT_CONFIG;
  }
  pry_buffer_fini(&problem);
  return code;
}

static int start(struct demo *demo)
{
  char error[PRY_PLACE_MAX + 512] = "memory or descriptors are short", shipped[PRY_SHIPPED_PATH_MAX];
  demo->loop = pry_loop_new();
  demo->sim = demo->loop ? pry_sim_new(demo->loop, "127.0.0.1:0", NULL, error, sizeof error) : NULL;
  if (!demo->sim || !choose_places(demo) || !set_secrets() ||
      (demo->claim = pry_demo_claim(demo->policies, error, sizeof error)) < 0 ||
      !pry_demo_files(demo->policies, pry_shipped_folder(shipped), pry_sim_address(demo->sim), &demo->kept, error,
                      sizeof error))
    return complain(error);
  int code = start_program(demo);
  if (code >= 0)
    return code;
  demo->traffic = (struct pry_demo_traffic){.loop = demo->loop,
                                            .http = pry_program_http(demo->program),
                                            .gateway = pry_program_address(demo->program),
                                            .sim = pry_sim_address(demo->sim),
                                            .pause = TRICKLE_PAUSE,
                                            .all_recovered = all_recovered,
                                            .user = demo};
  return -1;
}

static void print_head(const struct demo *demo)
{
  const struct pry_generation *generation = pry_engine_generation(pry_program_engine(demo->program));
  fprintf(demo->screen.out,
          "parry %s demo: simulated providers that fail on purpose; no key needed, nothing leaves this machine\n",
          parry_version());
  fprintf(demo->screen.out, "  policies  %s%s  generation %.7s, %u policies, %u tests passed\n", demo->policies,
          demo->kept ? " (kept as you left them)" : "", generation->id, generation->policies, generation->tests);
  fflush(demo->screen.out);
}

static int run(struct demo *demo)
{
  int code = start(demo);
  if (code < 0) {
    print_head(demo);
    pry_timer_start(demo->loop, &demo->limit, ONCE_LIMIT, took_too_long, demo);
    pry_demo_traffic_start(&demo->traffic);
    pry_program_run(demo->program);
    pry_demo_traffic_stop(&demo->traffic);
    pry_timer_cancel(&demo->limit);
    code = demo->once && !demo->all_recovered ? PRY_EXIT_FINDINGS : PRY_EXIT_OK;
  }
  pry_program_free(demo->program);
  pry_sim_free(demo->sim);
  pry_loop_free(demo->loop);
  if (demo->claim >= 0)
    close(demo->claim);
  return code;
}

int pry_cmd_demo(int argc, char **argv)
{
  struct demo demo = {.policies = "./parry-demo/policies", .claim = -1, .screen = {.out = stderr}};
  const struct pry_option options[] = {
      {"once", 0, PRY_OPTION_FLAG, NULL, "end when all five kinds of failure have recovered", &demo.once},
      {"policies", 0, PRY_OPTION_TEXT, "DIR", "the copy to edit (./parry-demo/policies); files there are kept",
       &demo.policies},
  };
  const struct pry_command_line line = {.usage = "parry demo [OPTIONS]",
                                        .doc = DOC,
                                        .options = options,
                                        .option_count = sizeof options / sizeof *options,
                                        .after = AFTER};
  int code = pry_options_parse(&line, argc, argv, NULL);
  return code >= 0 ? code : run(&demo);
}
