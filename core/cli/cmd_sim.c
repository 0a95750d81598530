#include "cli.h"
#include "options.h"
#include "program.h"
#include "server.h"
#include "sim.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char DOC[] = "Runs a provider that speaks like OpenAI, Anthropic and KIMI, answers with the\n"
                          "caller's own words, and fails exactly where it is told to. Needs no key.";

static const char AFTER[] =
    "Serves POST .../chat/completions, .../responses, .../embeddings, .../messages,\n"
    ".../token (OAuth), .../token/refresh (KIMI) and GET .../models. Paths with a\n"
    "segment that begins with kimi report errors as {errcode, errmsg, data}. Paths\n"
    "under /auth/ and /kimi-auth/ want the access token that the token endpoint gave.\n"
    "\n"
    "Faults, by request: header x-sim-fault: SPEC, or in the body\n"
    "  \"simulateError\": true, \"errorCode\": CODE, \"delay\": MS, \"times\": N\n"
    "by model: --fault MODEL=SPEC, or one of the models of GET /v1/models.\n"
    "\n"
    "SPEC: parts joined by ';'\n"
    "  code=CODE  retry-after=S  retry-after-ms=MS  delay=S\n"
    "  times=N    only the first N, counted per header x-sim-key, else per model\n"
    "  every=N    only every Nth\n"
    "CODE: a status 400...599, a KIMI code -1000...-2099, or\n"
    "  reset hang cut cut-after stall-after error-200 error-after slow garbage\n"
    "  html-502 context content quota balance expired frozen\n"
    "\n"
    "Control: GET /sim/stats, /sim/last, /sim/last-headers; POST /sim/reset,\n"
    "/sim/expire, /sim/token?fail=N&hang=N&delay=S&expires_in=S\n"
    "\n"
    "Example:\n"
    "  parry sim --fault 'kimi-k2=code=503;times=1' &\n"
    "  curl -i http://127.0.0.1:8421/v1/chat/completions -H 'content-type: application/json' \\\n"
    "       -d '{\"model\":\"kimi-k2\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}'\n";

static void print_line(void *user, const char *line)
{
  (void)user;
  fprintf(stderr, "%s\n", line);
}

static void stop(int signal_number, void *user)
{
  (void)signal_number;
  pry_loop_stop(user);
}

static int complain(const char *option, const char *value, const char *what)
{
  fprintf(stderr, "parry: %s %s: %s\n  see: parry sim --help\n", option, value, what);
  return PRY_EXIT_USAGE;
}

/* Returns the exit code, or -1: go on. */
static int check_faults(const struct pry_option_list *faults)
{
  char error[1024];
  for (size_t i = 0; i < faults->count; i++)
    if (!pry_sim_check_fault(faults->items[i], error, sizeof error))
      return complain("--fault", "takes MODEL=SPEC", error);
  return -1;
}

static int check_address(const char *address, bool allow_remote)
{
  if (!pry_server_address_is_valid(address))
    return complain("--listen", address, "not an address; write " PRY_SERVER_ADDRESS_FORM);
  if (allow_remote || pry_address_is_loopback(address))
    return -1;
  complain("--listen", address,
           "other machines could reach it, and a simulator asks nobody for a key; listen on 127.0.0.1 or [::1], or "
           "add --allow-remote");
  return PRY_EXIT_CONFIG;
}

static int run(const char *address, const struct pry_sim_options *options)
{
  char error[256] = "out of memory or descriptors";
  int code = PRY_EXIT_FINDINGS;
  struct pry_sim *sim = NULL;
  struct pry_loop *loop = pry_loop_new();
  if (!loop || !pry_loop_on_signal(loop, SIGINT, stop, loop) || !pry_loop_on_signal(loop, SIGTERM, stop, loop) ||
      !(sim = pry_sim_new(loop, address, options, error, sizeof error))) {
    fprintf(stderr, "parry sim: %s\n", error);
    goto done;
  }
  const char *scheme = strncmp(pry_sim_address(sim), "unix:", 5) == 0 ? "" : "http://";
  fprintf(stderr, "parry sim: ready on %s%s\n", scheme, pry_sim_address(sim));
  pry_loop_run(loop);
  code = PRY_EXIT_OK;
done:
  pry_sim_free(sim);
  pry_loop_free(loop);
  return code;
}

int pry_cmd_sim(int argc, char **argv)
{
  const char *address = "127.0.0.1:8421";
  struct pry_option_list faults = {0};
  bool quiet = false, no_scripted = false, kimi = false, allow_remote = false;
  const struct pry_option options[] = {
      {"listen", 'l', PRY_OPTION_TEXT, "ADDRESS", "ADDR:PORT, [V6]:PORT or unix:PATH (127.0.0.1:8421)", &address},
      {"fault", 'f', PRY_OPTION_LIST, "MODEL=SPEC", "make a model fail; may be given several times", &faults},
      {"no-scripted", 0, PRY_OPTION_FLAG, NULL, "sim-429 and its like are models as any other", &no_scripted},
      {"kimi", 0, PRY_OPTION_FLAG, NULL, "report errors as KIMI does on every path", &kimi},
      {"allow-remote", 0, PRY_OPTION_FLAG, NULL, "listen on an address that other machines reach", &allow_remote},
      {"quiet", 'q', PRY_OPTION_FLAG, NULL, "print no line per request", &quiet},
  };
  const struct pry_command_line line = {
      .usage = "parry sim [OPTIONS]",
      .doc = DOC,
      .options = options,
      .option_count = sizeof options / sizeof *options,
      .after = AFTER,
  };
  int code = pry_options_parse(&line, argc, argv, NULL);
  if (code >= 0)
    return code;
  code = check_faults(&faults);
  if (code < 0)
    code = check_address(address, allow_remote);
  if (code >= 0)
    return code;
  struct pry_sim_options sim_options = {
      .faults = faults.items,
      .fault_count = faults.count,
      .no_scripted = no_scripted,
      .kimi = kimi,
      .report = quiet ? NULL : print_line,
  };
  return run(address, &sim_options);
}
