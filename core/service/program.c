#include "program.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DRAIN_LOOK (20 * PRY_MILLISECOND)

struct pry_program {
  struct pry_program_options options;
  struct pry_loop *loop;
  struct pry_log *log;
  struct pry_http *http;
  struct pry_engine *engine;
  struct pry_gateway *gateway;
  struct pry_reloader *reloader;
  struct pry_admin *admin;
  struct pry_timer drain_timer;
  pry_time drain_until;
  bool draining;
};

/* What the steps of starting share. */
struct starting {
  struct pry_program *program;
  enum pry_program_failure *failure;
  struct pry_buffer *problem;
};

static bool fail(struct starting *starting, enum pry_program_failure failure, const char *text)
{
  *starting->failure = failure;
  pry_buffer_append_text(starting->problem, text);
  return false;
}

/* ---- addresses ------------------------------------------------------------------------------------------- */

bool pry_address_is_loopback(const char *address)
{
  char host[64];
  const char *colon = strrchr(address, ':');
  struct in_addr v4;
  struct in6_addr v6;
  if (strncmp(address, "unix:", 5) == 0)
    return true;
  if (!colon || (size_t)(colon - address) >= sizeof host)
    return false;
  memcpy(host, address, (size_t)(colon - address));
  host[colon - address] = '\0';
  if (strcmp(host, "localhost") == 0)
    return true;
  if (inet_pton(AF_INET, host, &v4) == 1)
    return ntohl(v4.s_addr) >> 24 == 127;
  size_t length = strlen(host);
  if (length < 2 || host[0] != '[' || host[length - 1] != ']')
    return false;
  host[length - 1] = '\0';
  return inet_pton(AF_INET6, host + 1, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* ---- ending ------------------------------------------------------------------------------------------------ */

static void look_whether_drained(void *user)
{
  struct pry_program *program = user;
  size_t open = pry_gateway_open_count(program->gateway);
  bool late = pry_loop_now(program->loop) >= program->drain_until;
  if (open && late)
    pry_log(program->log, PRY_LOG_WARN, "calls are cut off: the drain timeout has passed",
            pry_log_integer("calls", (long long)open), pry_log_number("seconds", program->options.drain_timeout));
  if (!open || late)
    pry_loop_stop(program->loop);
  else
    pry_timer_start(program->loop, &program->drain_timer, DRAIN_LOOK, look_whether_drained, program);
}

void pry_program_drain(struct pry_program *program)
{
  if (program->draining) {
    pry_loop_stop(program->loop);
    return;
  }
  program->draining = true;
  program->drain_until = pry_loop_now(program->loop) + pry_time_from_seconds(program->options.drain_timeout);
  pry_log(program->log, PRY_LOG_INFO, "draining",
          pry_log_integer("calls", (long long)pry_engine_call_count(program->engine)),
          pry_log_number("seconds", program->options.drain_timeout));
  pry_gateway_drain(program->gateway);
  pry_admin_drain(program->admin);
  look_whether_drained(program);
}

static void told_to_end(int signal_number, void *user)
{
  (void)signal_number;
  pry_program_drain(user);
}

static void told_to_reload(int signal_number, void *user)
{
  (void)signal_number;
  struct pry_program *program = user;
  pry_reloader_request(program->reloader, NULL, NULL, NULL);
}

/* ---- starting, step by step ---------------------------------------------------------------------------------- */

double pry_program_clock(void *user)
{
  const struct pry_program *program = user;
  return pry_loop_unix_time(program->loop);
}

static bool check_addresses(struct starting *starting)
{
  const struct pry_program_options *options = &starting->program->options;
  if (pry_admin_needs_token(options->admin) && !(options->admin_token && *options->admin_token)) {
    pry_buffer_append_format(starting->problem, "the admin listener on %s ", options->admin);
    return fail(starting, PRY_PROGRAM_REFUSED,
                "would let anybody on that network reload policies; give it a token with --admin-token-file FILE or "
                "PARRY_ADMIN_TOKEN, or use --admin unix:PATH");
  }
  if (pry_address_is_loopback(options->listen))
    return true;
  pry_buffer_append_format(starting->problem, "--listen %s ", options->listen);
  return fail(starting, PRY_PROGRAM_REFUSED,
              "is not a loopback address: whoever reaches it would use your providers' keys, and client keys are not "
              "there yet; listen on 127.0.0.1 or [::1] and put a proxy that authenticates in front");
}

static bool make_state_folder(struct starting *starting)
{
  const char *folder = starting->program->options.state_dir;
  struct stat about;
  if (!folder || (mkdir(folder, 0700) == 0))
    return true;
  if (errno == EEXIST && stat(folder, &about) == 0 && S_ISDIR(about.st_mode) && access(folder, W_OK) == 0)
    return true;
  int code = errno == EEXIST ? ENOTDIR : errno;
  pry_buffer_append_format(starting->problem, "--state %s: %s; ", folder, strerror(code));
  return fail(starting, PRY_PROGRAM_REFUSED, "name a folder this user may write to");
}

static unsigned processor_count(void)
{
  cpu_set_t set;
  int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return count < 1 ? 1 : count > PRY_WORKERS_MAX ? PRY_WORKERS_MAX : (unsigned)count;
}

static bool make_engine(struct starting *starting)
{
  struct pry_program *program = starting->program;
  const struct pry_program_options *options = &program->options;
  program->log = pry_log_new(options->log, options->log_user, options->log_level, pry_program_clock, program);
  program->http = pry_http_new(program->loop, NULL);
  struct pry_engine_options engine = {.loop = program->loop,
                                      .http = program->http,
                                      .workers = options->workers ? options->workers : processor_count(),
                                      .log = program->log,
                                      .loader = options->loader,
                                      .state_dir = options->state_dir,
                                      .limits = options->limits};
  program->engine = program->log && program->http ? pry_engine_new(&engine) : NULL;
  return program->engine || fail(starting, PRY_PROGRAM_FAILED, "memory or descriptors are short");
}

static void log_warnings(struct pry_program *program, const struct pry_report *report)
{
  for (size_t i = 0; i < report->count; i++) {
    char finding[sizeof report->findings[i].where + sizeof report->findings[i].what + 4];
    snprintf(finding, sizeof finding, "%s: %s", report->findings[i].where, report->findings[i].what);
    pry_log(program->log, PRY_LOG_WARN, "policy warning", pry_log_text("finding", finding));
  }
}

static bool load_policies(struct starting *starting)
{
  struct pry_program *program = starting->program;
  const char *folder = program->options.policies;
  struct pry_report report;
  pry_report_init(&report);
  struct pry_policy_set *set = pry_reload_read(folder, &report);
  bool ok = set && pry_engine_load(program->engine, set, true, &report);
  if (ok) {
    log_warnings(program, &report);
  } else {
    pry_buffer_append_format(starting->problem, "the policies in %s are refused:\n", folder);
    pry_report_text(&report, starting->problem);
    fail(starting, PRY_PROGRAM_REFUSED, "mend them, see `parry check ");
    pry_buffer_append_format(starting->problem, "%s`", folder);
  }
  pry_report_fini(&report);
  return ok;
}

/* The listener's words name the address and the cure already. */
static bool listen_gateway(struct starting *starting)
{
  struct pry_program *program = starting->program;
  const struct pry_program_options *options = &program->options;
  char error[512] = "memory is short";
  program->gateway = pry_gateway_new(program->engine, options->listen, error, sizeof error);
  if (!program->gateway && options->listen_else)
    program->gateway = pry_gateway_new(program->engine, options->listen_else, error, sizeof error);
  return program->gateway || fail(starting, PRY_PROGRAM_FAILED, error);
}

static bool start_reloader(struct starting *starting)
{
  struct pry_program *program = starting->program;
  struct pry_reloader_options options = {.engine = program->engine,
                                         .folder = program->options.policies,
                                         .watch = program->options.watch,
                                         .ended = program->options.reloaded,
                                         .user = program->options.user};
  program->reloader = pry_reloader_new(&options);
  return program->reloader || fail(starting, PRY_PROGRAM_FAILED, "memory or descriptors are short");
}

static bool listen_admin(struct starting *starting)
{
  struct pry_program *program = starting->program;
  char error[512] = "memory is short";
  struct pry_admin_options options = {.engine = program->engine,
                                      .gateway = program->gateway,
                                      .reloader = program->reloader,
                                      .folder = program->options.policies,
                                      .address = program->options.admin,
                                      .token = program->options.admin_token};
  program->admin = pry_admin_new(&options, error, sizeof error);
  return program->admin || fail(starting, PRY_PROGRAM_FAILED, error);
}

static bool watch_signals(struct starting *starting)
{
  struct pry_program *program = starting->program;
  return (pry_loop_on_signal(program->loop, SIGTERM, told_to_end, program) &&
          pry_loop_on_signal(program->loop, SIGINT, told_to_end, program) &&
          pry_loop_on_signal(program->loop, SIGHUP, told_to_reload, program)) ||
         fail(starting, PRY_PROGRAM_FAILED, "memory is short");
}

/* From here on calls are served. */
static bool start_workers(struct starting *starting)
{
  return pry_engine_start(starting->program->engine) ||
         fail(starting, PRY_PROGRAM_FAILED, "the system has no thread left for a worker; try --workers 1");
}

struct pry_program *pry_program_new(const struct pry_program_options *options, enum pry_program_failure *failure,
                                    struct pry_buffer *problem)
{
  struct pry_program *program = calloc(1, sizeof *program);
  struct starting starting = {.program = program, .failure = failure, .problem = problem};
  *failure = PRY_PROGRAM_STARTED;
  if (!program) {
    fail(&starting, PRY_PROGRAM_FAILED, "memory is short");
    return NULL;
  }
  program->options = *options;
  program->loop = options->loop;
  if (check_addresses(&starting) && make_state_folder(&starting) && make_engine(&starting) &&
      load_policies(&starting) && listen_gateway(&starting) && start_reloader(&starting) && listen_admin(&starting) &&
      watch_signals(&starting) && start_workers(&starting))
    return program;
  pry_program_free(program);
  return NULL;
}

void pry_program_run(struct pry_program *program)
{
  pry_loop_run(program->loop);
  /* Nobody turns the loop any more: what is still to be waited for must not make us deaf. */
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
}

void pry_program_free(struct pry_program *program)
{
  if (!program)
    return;
  pry_timer_cancel(&program->drain_timer);
  pry_admin_free(program->admin);
  pry_reloader_free(program->reloader);
  if (program->engine)
    pry_engine_stop(program->engine);
  pry_gateway_free(program->gateway);
  pry_engine_free(program->engine);
  pry_http_free(program->http);
  pry_log_free(program->log);
  free(program);
}

struct pry_engine *pry_program_engine(const struct pry_program *program)
{
  return program->engine;
}

struct pry_http *pry_program_http(const struct pry_program *program)
{
  return program->http;
}

const char *pry_program_address(const struct pry_program *program)
{
  return pry_gateway_address(program->gateway);
}

const char *pry_program_admin_address(const struct pry_program *program)
{
  return pry_admin_address(program->admin);
}
