#include "program.h"

#include "activation.h"
#include "client_keeper.h"
#include "keeper.h"
#include "last_good.h"
#include "server_limits.h"
#include "service_manager.h"
#include "state_lock.h"
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 10000 };

#define DRAIN_LOOK (20 * PRY_MILLISECOND)

struct pry_program {
  struct pry_program_options options;
  struct pry_loop *loop;
  struct pry_log *log;
  struct pry_http *http;
  struct pry_engine *engine;
  struct pry_clients *clients;
  struct pry_client_keeper *client_keeper;
  struct pry_edge edge;
  struct pry_gateway *gateway;
  struct pry_reloader *reloader;
  struct pry_admin *admin;
  struct pry_keeper *keeper;
  struct pry_activation activation;
  struct pry_tls *tls;
  struct pry_address_limits *limits;
  struct pry_state_lock state_lock;
  struct pry_service_manager manager;
  struct pry_timer alive_timer; /* for the service manager's watchdog */
  struct pry_reload_waiter hangup_waiter;
  bool hung_up;          /* the waiter waits */
  bool serves_last_good; /* because the policies on disk were refused at the start */
  struct pry_timer drain_timer;
  pry_time drain_until;
  bool draining;
};

/* What the steps of starting share. */
struct starting {
  struct pry_program *program;
  enum pry_program_failure *failure;
  struct pry_buffer *problem;
  bool on_disk; /* what serves is what the folder holds */
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

static void begin_drain(void *user)
{
  struct pry_program *program = user;
  program->drain_until = pry_loop_now(program->loop) + pry_time_from_seconds(program->options.drain_timeout);
  pry_log(program->log, PRY_LOG_INFO, "draining",
          pry_log_integer("calls", (long long)pry_engine_call_count(program->engine)),
          pry_log_number("seconds", program->options.drain_timeout));
  pry_gateway_drain(program->gateway);
  look_whether_drained(program);
}

void pry_program_drain(struct pry_program *program)
{
  if (program->draining) {
    pry_loop_stop(program->loop);
    return;
  }
  program->draining = true;
  double delay = program->options.drain_delay;
  pry_service_manager_stopping(&program->manager, pry_time_from_seconds(delay + program->options.drain_timeout));
  pry_gateway_unready(program->gateway);
  pry_admin_drain(program->admin);
  if (delay > 0)
    pry_log(program->log, PRY_LOG_INFO, "not ready any more, still accepting", pry_log_number("seconds", delay));
  pry_timer_start(program->loop, &program->drain_timer, pry_time_from_seconds(delay), begin_drain, program);
}

static void told_to_end(int signal_number, void *user)
{
  (void)signal_number;
  pry_program_drain(user);
}

static void hangup_answered(void *user, const struct pry_reload_outcome *outcome)
{
  (void)outcome;
  struct pry_program *program = user;
  program->hung_up = false;
  pry_service_manager_ready(&program->manager, NULL);
}

/* Two small files, read when somebody asks: the control worker serves no calls. */
static void reload_certificate(struct pry_program *program)
{
  char message[512] = "";
  if (!program->tls)
    return;
  bool ok = pry_tls_reload(program->tls, message, sizeof message);
  if (ok)
    pry_log(program->log, PRY_LOG_INFO, "TLS certificate reloaded", pry_log_text("warning", message),
            pry_log_number("expires_at", pry_tls_expires_at(program->tls)));
  else
    pry_log(program->log, PRY_LOG_ERROR, "TLS certificate not reloaded, the old one serves on",
            pry_log_text("why", message));
}

/* What is no policy, but is meant, too, when somebody says "reload". */
static void reload_asked(void *user)
{
  struct pry_program *program = user;
  pry_client_keeper_look(program->client_keeper);
  reload_certificate(program);
}

static void told_to_reload(int signal_number, void *user)
{
  (void)signal_number;
  struct pry_program *program = user;
  pry_service_manager_reloading(&program->manager);
  pry_reloader_request(program->reloader, program->hung_up ? NULL : &program->hangup_waiter, hangup_answered, program);
  program->hung_up = true;
}

/* ---- what is told about policies ------------------------------------------------------------------------------- */

static void say_status(struct pry_program *program)
{
  const struct pry_generation *serving = pry_engine_generation(program->engine);
  char status[128];
  snprintf(status, sizeof status, "serving %s %.7s on %s",
           program->serves_last_good ? "the last good policies (those on disk are refused)" : "policies",
           serving ? serving->id : "", pry_program_address(program));
  pry_service_manager_ready(&program->manager, status);
}

static void reload_ended(void *user, const struct pry_reload_outcome *outcome)
{
  struct pry_program *program = user;
  struct pry_generation *serving = pry_engine_generation(program->engine);
  pry_client_keeper_look(program->client_keeper);
  if (outcome->result == PRY_RELOAD_TAKEN_OVER) {
    pry_keeper_let_in(program->keeper, serving->id);
    pry_keeper_serves(program->keeper, serving, serving->loaded_at);
  }
  if (outcome->result != PRY_RELOAD_REFUSED) { /* disk and what serves are the same again */
    program->serves_last_good = false;
    say_status(program);
  }
  if (program->options.reloaded)
    program->options.reloaded(program->options.user, outcome);
}

static void hold(struct pry_program *program, const struct pry_quarantined *set)
{
  struct pry_reload_held held = {.by_hand = !set->faults};
  memcpy(held.id, set->id, sizeof held.id);
  pry_quarantined_text(set, held.why, sizeof held.why);
  pry_reloader_hold(program->reloader, &held);
}

static void rolled_back(void *user, const struct pry_rollback *rollback)
{
  struct pry_program *program = user;
  struct pry_generation *serving = pry_engine_generation(program->engine);
  struct pry_quarantined set = {
      .at = pry_loop_unix_time(program->loop), .faults = rollback->faults, .runs = rollback->runs};
  snprintf(set.id, sizeof set.id, "%s", rollback->from);
  snprintf(set.first_fault, sizeof set.first_fault, "%s", rollback->fault);
  pry_keeper_keep_out(program->keeper, &set);
  pry_keeper_let_in(program->keeper, serving->id); /* a person may go back to a bad one by name */
  pry_reloader_let_in(program->reloader, serving->id);
  pry_keeper_serves(program->keeper, serving, serving->loaded_at);
  hold(program, &set);
  pry_client_keeper_look(program->client_keeper);
  say_status(program);
}

/* While a worker is stuck the service manager hears nothing, and does what its unit says. */
static void tell_alive(void *user)
{
  struct pry_program *program = user;
  bool well = true;
  pry_timer_start(program->loop, &program->alive_timer, pry_service_manager_interval(&program->manager), tell_alive,
                  program);
  for (unsigned i = 0; i < program->engine->worker_count; i++)
    well = well && !pry_worker_is_stuck(program->engine->workers[i]);
  if (well)
    pry_service_manager_alive(&program->manager);
}

/* ---- starting, step by step ---------------------------------------------------------------------------------- */

double pry_program_clock(void *user)
{
  const struct pry_program *program = user;
  return pry_loop_unix_time(program->loop);
}

static bool check_form(struct starting *starting, const char *option, const char *address)
{
  if (pry_server_address_is_valid(address))
    return true;
  pry_buffer_append_format(starting->problem, "%s '%s' ", option, address);
  return fail(starting, PRY_PROGRAM_REFUSED, "is not an address; write " PRY_SERVER_ADDRESS_FORM);
}

static bool check_addresses(struct starting *starting)
{
  const struct pry_program_options *options = &starting->program->options;
  if (!check_form(starting, "--listen", options->listen) || !check_form(starting, "--admin", options->admin))
    return false;
  if (pry_admin_needs_token(options->admin) && !(options->admin_token && *options->admin_token)) {
    pry_buffer_append_format(starting->problem, "the admin listener on %s ", options->admin);
    return fail(starting, PRY_PROGRAM_REFUSED,
                "would let anybody on that network reload policies; give it a token with --admin-token-file FILE or "
                "PARRY_ADMIN_TOKEN, or use --admin unix:PATH");
  }
  return true;
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

/* Before there is any thread: it takes variables out of the environment. */
static bool take_sockets(struct starting *starting)
{
  struct pry_program *program = starting->program;
  char error[512];
  if (!pry_activation_take(&program->activation, error, sizeof error))
    return fail(starting, PRY_PROGRAM_REFUSED, error);
  if (program->activation.gateway.fd > 0)
    program->options.listen = program->activation.gateway.address;
  if (program->activation.admin.fd > 0)
    program->options.admin = program->activation.admin.address;
  return true;
}

static bool load_certificate(struct starting *starting)
{
  struct pry_program *program = starting->program;
  const struct pry_program_options *options = &program->options;
  char message[512] = "";
  if (!options->tls_cert && !options->tls_key)
    return true;
  if (!options->tls_cert || !options->tls_key)
    return fail(starting, PRY_PROGRAM_REFUSED, "TLS needs both --tls-cert FILE and --tls-key FILE");
  program->tls = pry_tls_new(options->tls_cert, options->tls_key, message, sizeof message);
  if (!program->tls)
    return fail(starting, PRY_PROGRAM_REFUSED, message);
  if (message[0])
    pry_log(program->log, PRY_LOG_WARN, "TLS certificate", pry_log_text("warning", message));
  return true;
}

static bool make_limits(struct starting *starting)
{
  struct pry_program *program = starting->program;
  const struct pry_address_limits_options options = {
      .max_connections_per_address = program->options.max_connections_per_address,
      .max_connections = program->options.max_connections ? program->options.max_connections : MAX_CONNECTIONS,
      .exempt_local = true};
  program->limits = pry_address_limits_new(&options);
  return program->limits || fail(starting, PRY_PROGRAM_FAILED, "memory is short");
}

static bool lock_state_folder(struct starting *starting)
{
  const char *folder = starting->program->options.state_dir;
  char error[512];
  bool in_use = false;
  return !folder || pry_state_lock_take(&starting->program->state_lock, folder, &in_use, error, sizeof error) ||
         fail(starting, in_use ? PRY_PROGRAM_FAILED : PRY_PROGRAM_REFUSED, error);
}

/* The soft limit is low for the sake of programs that use select(), which we do not. Without the right to raise it, what
 * there is has to do. */
static void raise_descriptor_limit(void)
{
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

static bool make_engine(struct starting *starting)
{
  struct pry_program *program = starting->program;
  raise_descriptor_limit();
  const struct pry_program_options *options = &program->options;
  program->log = pry_log_new(options->log, options->log_user, options->log_level, pry_program_clock, program);
  program->http = pry_http_new(program->loop, NULL);
  struct pry_engine_options engine = {.loop = program->loop,
                                      .http = program->http,
                                      .workers = options->workers ? options->workers : processor_count(),
                                      .log = program->log,
                                      .loader = options->loader,
                                      .state_dir = options->state_dir,
                                      .limits = options->limits,
                                      .max_body = options->max_body,
                                      .probe_hosts = options->probe_hosts,
                                      .rolled_back = rolled_back,
                                      .user = program};
  pry_service_manager_init(&program->manager, program->log);
  program->engine = program->log && program->http ? pry_engine_new(&engine) : NULL;
  program->keeper = program->engine ? pry_keeper_new(options->state_dir, program->log) : NULL;
  return program->keeper ||
         fail(starting, PRY_PROGRAM_FAILED,
              "memory or descriptors are short; raise LimitNOFILE= (ulimit -n), or start fewer --workers: each takes "
              "seven descriptors before the first connection");
}

static void log_warnings(struct pry_program *program, const struct pry_report *report)
{
  for (size_t i = 0; i < report->count; i++) {
    char finding[sizeof report->findings[i].where + sizeof report->findings[i].what + 4];
    snprintf(finding, sizeof finding, "%s: %s", report->findings[i].where, report->findings[i].what);
    pry_log(program->log, PRY_LOG_WARN, "policy warning", pry_log_text("finding", finding));
  }
}

/* The set of the folder, unless it was rolled back before. */
static bool load_folder(struct pry_program *program, struct pry_report *report)
{
  struct pry_policy_set *set = pry_reload_read(program->options.policies, NULL, program->options.shipped, report);
  const struct pry_quarantined *bad = set ? pry_quarantine_find(pry_keeper_quarantine(program->keeper), set->id) : NULL;
  if (!bad)
    return set && pry_engine_load(program->engine, set, true, report);
  char why[512];
  pry_quarantined_text(bad, why, sizeof why);
  pry_report_add(report, PRY_FINDING_ERROR, "quarantine", "%s", why);
  pry_policy_set_free(set);
  return false;
}

/* What served last, when the folder is refused: loudly, because what serves is not what is on disk. */
static bool load_last_good(struct pry_program *program, const struct pry_report *refused)
{
  struct pry_last_good good;
  char why[PRY_STATE_WHY_MAX];
  if (!program->options.state_dir)
    return false;
  enum pry_state_result result = pry_last_good_read(program->options.state_dir, &good, why);
  if (result == PRY_STATE_REFUSED)
    pry_log(program->log, PRY_LOG_ERROR, "last good policies not read", pry_log_text("why", why));
  if (result != PRY_STATE_READ)
    return false;
  if (pry_quarantine_find(pry_keeper_quarantine(program->keeper), good.set->id)) { /* a crash came in between */
    pry_log(program->log, PRY_LOG_ERROR, "the last good policies were rolled back, too",
            pry_log_text("set", good.set->id));
    pry_policy_set_free(good.set);
    return false;
  }
  struct pry_report report;
  struct pry_buffer findings;
  pry_report_init(&report);
  pry_buffer_init(&findings, 8 * 1024);
  bool ok = pry_engine_load(program->engine, good.set, false, &report);
  program->serves_last_good = ok;
  if (ok)
    pry_metrics_set(program->engine->metrics, PRY_M_RELOAD_OK, NULL, NULL, 0);
  pry_report_text(ok ? refused : &report, &findings);
  struct pry_log_field text = pry_log_slice("findings", pry_buffer_slice(&findings));
  if (ok)
    pry_log(program->log, PRY_LOG_ERROR, "the policies on disk are refused, serving the last good ones instead", text,
            pry_log_text("folder", program->options.policies),
            pry_log_text("serving", pry_engine_generation(program->engine)->id),
            pry_log_number("committed_at", good.committed_at));
  else
    pry_log(program->log, PRY_LOG_ERROR, "the last good policies are refused, too", text);
  pry_buffer_fini(&findings);
  pry_report_fini(&report);
  return ok;
}

static bool load_policies(struct starting *starting)
{
  struct pry_program *program = starting->program;
  const char *folder = program->options.policies;
  struct pry_report report;
  pry_report_init(&report);
  bool ok = load_folder(program, &report);
  starting->on_disk = ok;
  if (ok)
    log_warnings(program, &report);
  else
    ok = load_last_good(program, &report);
  if (!ok) {
    pry_buffer_append_format(starting->problem, "the policies in %s are refused:\n", folder);
    pry_report_text(&report, starting->problem);
    fail(starting, PRY_PROGRAM_REFUSED, "mend them, see `parry check ");
    pry_buffer_append_format(starting->problem, "%s`", folder);
  }
  pry_report_fini(&report);
  return ok;
}

/* Before a generation serves, the first as every later one: whom would it let in? */
static bool accept_generation(void *user, const struct pry_generation *generation, struct pry_report *report)
{
  struct pry_program *program = user;
  struct pry_buffer problem;
  pry_buffer_init(&problem, sizeof((struct pry_finding *)0)->what);
  bool ok = pry_edge_may_listen(program->options.listen, generation->config, &problem);
  if (!ok)
    pry_report_add(report, PRY_FINDING_ERROR, "init.lua", "%s", problem.size ? pry_buffer_text(&problem) : "--listen");
  pry_buffer_fini(&problem);
  return ok && pry_client_keeper_accept(program->client_keeper, generation->config, report);
}

static bool make_edge(struct starting *starting)
{
  struct pry_program *program = starting->program;
  program->clients = pry_clients_new();
  program->client_keeper =
      program->clients ? pry_client_keeper_new(&(struct pry_client_keeper_options){.engine = program->engine,
                                                                                   .loop = program->loop,
                                                                                   .clients = program->clients,
                                                                                   .folder = program->options.policies})
                       : NULL;
  program->edge = (struct pry_edge){.clients = program->clients,
                                    .hosts = program->options.allow_hosts,
                                    .exposed = !pry_address_is_loopback(program->options.listen),
                                    .metrics = program->engine->metrics,
                                    .log = program->log};
  return program->client_keeper || fail(starting, PRY_PROGRAM_FAILED, "memory is short");
}

static bool accept_first(struct starting *starting)
{
  struct pry_program *program = starting->program;
  struct pry_generation *first = pry_engine_generation(program->engine);
  struct pry_report report;
  pry_report_init(&report);
  bool ok = accept_generation(program, first, &report);
  if (ok) {
    log_warnings(program, &report);
    if (starting->on_disk)
      pry_keeper_serves(program->keeper, first, pry_loop_unix_time(program->loop));
  } else {
    pry_report_text(&report, starting->problem);
    *starting->failure = PRY_PROGRAM_REFUSED;
  }
  pry_report_fini(&report);
  return ok;
}

/* The listener's words name the address and the cure already. */
static bool listen_gateway(struct starting *starting)
{
  struct pry_program *program = starting->program;
  const struct pry_program_options *options = &program->options;
  struct pry_gateway_options gateway = {.edge = &program->edge,
                                        .address = options->listen,
                                        .listen_fd =
                                            program->activation.gateway.fd > 0 ? program->activation.gateway.fd : 0,
                                        .tls = program->tls,
                                        .limits = program->limits,
                                        .max_connections = options->max_connections};
  char error[512] = "memory is short";
  program->gateway = pry_gateway_new(program->engine, &gateway, error, sizeof error);
  if (!program->gateway && options->listen_else) {
    gateway.address = options->listen_else;
    program->gateway = pry_gateway_new(program->engine, &gateway, error, sizeof error);
  }
  return program->gateway || fail(starting, PRY_PROGRAM_FAILED, error);
}

static bool start_reloader(struct starting *starting)
{
  struct pry_program *program = starting->program;
  struct pry_reloader_options options = {.engine = program->engine,
                                         .folder = program->options.policies,
                                         .shipped = program->options.shipped,
                                         .watch = program->options.watch,
                                         .refused_at_start = program->serves_last_good,
                                         .asked = reload_asked,
                                         .accept = accept_generation,
                                         .ended = reload_ended,
                                         .user = program};
  program->reloader = pry_reloader_new(&options);
  if (!program->reloader)
    return fail(starting, PRY_PROGRAM_FAILED, "memory or descriptors are short");
  const struct pry_quarantine *quarantine = pry_keeper_quarantine(program->keeper);
  for (size_t i = 0; i < quarantine->count; i++)
    hold(program, &quarantine->sets[i]);
  return true;
}

static bool listen_admin(struct starting *starting)
{
  struct pry_program *program = starting->program;
  char error[512] = "memory is short";
  struct pry_admin_options options = {.engine = program->engine,
                                      .gateway = program->gateway,
                                      .reloader = program->reloader,
                                      .keeper = program->client_keeper,
                                      .folder = program->options.policies,
                                      .last_good = &program->serves_last_good,
                                      .address = program->options.admin,
                                      .token = program->options.admin_token,
                                      .listen_fd = program->activation.admin.fd > 0 ? program->activation.admin.fd : 0};
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
  struct pry_program *program = starting->program;
  if (!pry_engine_start(program->engine))
    return fail(starting, PRY_PROGRAM_FAILED, "the system has no thread left for a worker; try --workers 1");
  pry_time interval = pry_service_manager_interval(&program->manager);
  if (interval && !pry_timer_start(program->loop, &program->alive_timer, interval, tell_alive, program))
    return fail(starting, PRY_PROGRAM_FAILED, "memory is short");
  say_status(program);
  return true;
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
  program->state_lock.fd = -1;
  program->manager.fd = -1;
  program->activation.gateway.fd = program->activation.admin.fd = -1;
  if (take_sockets(&starting) && check_addresses(&starting) && make_state_folder(&starting) &&
      lock_state_folder(&starting) && make_engine(&starting) && load_certificate(&starting) && make_limits(&starting) &&
      make_edge(&starting) && load_policies(&starting) && accept_first(&starting) && listen_gateway(&starting) &&
      start_reloader(&starting) && listen_admin(&starting) && watch_signals(&starting) && start_workers(&starting))
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
  pry_timer_cancel(&program->alive_timer);
  pry_admin_free(program->admin);
  pry_reloader_free(program->reloader);
  if (program->engine)
    pry_engine_stop(program->engine);
  pry_gateway_free(program->gateway);
  pry_address_limits_unref(program->limits);
  pry_tls_unref(program->tls);
  pry_keeper_free(program->keeper);
  pry_client_keeper_free(program->client_keeper);
  pry_clients_free(program->clients);
  pry_engine_free(program->engine);
  pry_http_free(program->http);
  pry_service_manager_fini(&program->manager);
  pry_log_free(program->log);
  pry_state_lock_release(&program->state_lock);
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
