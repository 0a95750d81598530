/* The whole program in one process, a client in front of it and a provider behind it, with each allocation and system call
 * failing: it starts or says why not; a started one answers, reloads, and is well again when the failures are over. */
#include "fail.h"
#include "loader.h"
#include "program.h"
#include "wire.h"

#include <ftw.h>
#include <sys/stat.h>

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"good\":42}"
#define BUSY "HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"error\":{}}"
#define STREAM                                                                                                         \
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"                                    \
  "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n"

static const char *const good_answers[] = {ANSWER, NULL};

#define INIT                                                                                                           \
  "provider 'p' { base_url = 'http://%s', dialect = 'd', auth = bearer(secret 'OOM_KEY'),\n"                           \
  "  timeouts = { connect = 0.3, first_byte = 0.3, idle = 0.3 } }\n"                                                   \
  "route '/v1/*' { to = 'p', deadline = 0.6, repeatable = true, chain = { use 'p' { n = %d } } }\n"
#define POLICY                                                                                                         \
  "return policy { name = 'p', params = { n = param { 1, min = 0, max = 9 } },\n"                                      \
  "  on_error = function(self, call, err)\n"                                                                           \
  "    if call.target.attempts < 3 then return retry { after = 0.001 } end end }\n"
#define DIALECT "return dialect { name = 'd', stream = { default = 'content', end_data = { '[DONE]' } } }\n"

struct stand {
  char folder[64], policies[80], admin[96], state[80];
  struct wire_provider provider;
  struct pry_loop *loop;
  struct pry_program *program;
};

static void write_file(const struct stand *stand, const char *name, const char *text)
{
  char path[160];
  snprintf(path, sizeof path, "%s/%s", stand->policies, name);
  FILE *file = fopen(path, "w");
  FAIL_CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void write_init(const struct stand *stand, int n)
{
  char text[1024];
  fail_quiet();
  snprintf(text, sizeof text, INIT, stand->provider.address, n);
  write_file(stand, "init.lua", text);
  fail_loud();
}

static void make_folders(struct stand *stand)
{
  char path[160];
  bool in_memory = access("/dev/shm", W_OK) == 0; /* the keeper waits for the disk */
  snprintf(stand->folder, sizeof stand->folder, "%s/parry-oom-XXXXXX", in_memory ? "/dev/shm" : "/tmp");
  FAIL_CHECK(mkdtemp(stand->folder));
  snprintf(stand->policies, sizeof stand->policies, "%s/policies", stand->folder);
  snprintf(stand->state, sizeof stand->state, "%s/state", stand->folder);
  snprintf(stand->admin, sizeof stand->admin, "unix:%s/admin", stand->folder);
  snprintf(path, sizeof path, "%s/dialects", stand->policies);
  FAIL_CHECK(mkdir(stand->policies, 0700) == 0 && mkdir(path, 0700) == 0);
  write_init(stand, 1);
  write_file(stand, "p.lua", POLICY);
  write_file(stand, "dialects/d.lua", DIALECT);
}

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *place)
{
  (void)about, (void)type, (void)place;
  return remove(path);
}

static void take_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  (void)user, (void)level, (void)size;
  FAIL_CHECK(!strstr(line, "the-secret-key"));
}

static bool start(struct stand *stand)
{
  enum pry_program_failure failure;
  struct pry_buffer problem;
  struct pry_program_options options = {.policies = stand->policies,
                                        .listen = "127.0.0.1:0",
                                        .admin = stand->admin,
                                        .state_dir = stand->state,
                                        .limits = {.wall = -1},
                                        .watch = true,
                                        .workers = 1,
                                        .drain_timeout = 0.2,
                                        .log = take_line,
                                        .log_level = PRY_LOG_INFO,
                                        .loader = &pry_lua_loader};
  pry_buffer_init(&problem, 0);
  stand->loop = options.loop = pry_loop_new();
  stand->program = stand->loop ? pry_program_new(&options, &failure, &problem) : NULL;
  FAIL_CHECK(stand->program || fail_struck());
  /* Words may be what there was no memory for, a reason is there all the same. */
  FAIL_CHECK(stand->program || !stand->loop || failure != PRY_PROGRAM_STARTED);
  FAIL_CHECK(stand->program || !stand->loop || fail_memory() || problem.size > 0);
  pry_buffer_fini(&problem);
  return stand->program;
}

static void open_stand(struct stand *stand, const char *const *answers)
{
  fail_quiet();
  setenv("OOM_KEY", "the-secret-key", 1);
  memset(stand, 0, sizeof *stand);
  wire_provider_open(&stand->provider, answers);
  make_folders(stand);
  fail_loud();
}

static void close_stand(struct stand *stand)
{
  pry_program_free(stand->program);
  pry_loop_free(stand->loop);
  fail_quiet();
  wire_provider_close(&stand->provider);
  nftw(stand->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  fail_loud();
}

static void turn(struct stand *stand)
{
  pry_loop_turn(stand->loop, PRY_MILLISECOND);
  wire_provider_serve(&stand->provider);
}

/* Until the answer is whole or the connection ends; a struck run is given `moment` and no more. */
static void await(struct stand *stand, struct wire *wire, const char *part, pry_time moment)
{
  pry_time started = pry_loop_now(stand->loop);
  for (wire_hear(wire); !wire->closed && !wire_has(wire, part); wire_hear(wire)) {
    pry_time waited = pry_loop_now(stand->loop) - started;
    if (moment && fail_struck() && waited > moment)
      break;
    FAIL_CHECK(waited < WIRE_PATIENCE);
    turn(stand);
  }
}

static void say_call(struct wire *wire)
{
  wire_say(wire, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                 "Content-Length: 13\r\n\r\n{\"model\":\"m\"}");
}

static struct wire client, operator;

static void ask_status(struct stand *stand, const char *path, const char *part)
{
  char text[256];
  wire_open(&operator, pry_program_admin_address(stand->program));
  snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", path);
  wire_say(&operator, text);
  await(stand, &operator, part, WIRE_DOUBT);
}

/* Nothing fails any more: who waited hears or is closed, and a call and a look at the status are answered well. */
static void is_well(struct stand *stand)
{
  await(stand, &client, "\r\n\r\n", 0);
  wire_close(&client);
  stand->provider.answers = good_answers;
  stand->provider.answered = 0;
  wire_open(&client, pry_program_address(stand->program));
  say_call(&client);
  await(stand, &client, "\r\n\r\n{", 0);
  FAIL_CHECK(wire_has(&client, "{\"good\":42}"));
  wire_close(&client);
  wire_open(&operator, pry_program_admin_address(stand->program));
  wire_say(&operator, "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  await(stand, &operator, "\"generation\"", 0);
  FAIL_CHECK(wire_has(&operator, " 200 "));
  wire_close(&operator);
}

static void use_start(void)
{
  struct stand stand;
  open_stand(&stand, good_answers);
  bool started = start(&stand);
  fail_over();
  client.fd = -1;
  client.closed = true;
  if (started)
    is_well(&stand);
  close_stand(&stand);
}

/* The threads of a program in the order it starts them. */
enum { KEEPER = 1, WORKER = 2, STAGING = 4 };

/* Started well; then calls, one of them a stream, and the operator's questions. */
static void serve(const char *const *answers, const char *wanted)
{
  struct stand stand;
  open_stand(&stand, answers);
  fail_hold();
  FAIL_CHECK(start(&stand));
  fail_go();
  wire_open(&client, pry_program_address(stand.program));
  say_call(&client);
  await(&stand, &client, wanted, WIRE_DOUBT);
  fail_over();
  is_well(&stand);
  close_stand(&stand);
}

static void use_call(void)
{
  static const char *const answers[] = {ANSWER, NULL};
  serve(answers, "{\"good\":42}");
}

static void use_retry(void)
{
  static const char *const answers[] = {BUSY, ANSWER, NULL};
  serve(answers, "{\"good\":42}");
}

static void use_stream(void)
{
  static const char *const answers[] = {STREAM, NULL};
  serve(answers, "[DONE]");
}

static void use_admin(void)
{
  struct stand stand;
  open_stand(&stand, good_answers);
  fail_hold();
  FAIL_CHECK(start(&stand));
  fail_go();
  client.fd = -1;
  client.closed = true;
  ask_status(&stand, "GET /api/v1/status", "\"generation\"");
  wire_close(&operator);
  ask_status(&stand, "GET /api/v1/events?limit=3", "]");
  wire_close(&operator);
  ask_status(&stand, "GET /api/v1/errors?limit=3", "\"errors\"");
  wire_close(&operator);
  ask_status(&stand, "GET /metrics", "parry_build");
  wire_close(&operator);
  fail_over();
  is_well(&stand);
  close_stand(&stand);
}

/* An edit is saved while things fail; when they are over, and somebody asks, it serves. */
static void use_reload(void)
{
  struct stand stand;
  open_stand(&stand, good_answers);
  fail_quiet();
  FAIL_CHECK(start(&stand));
  for (int i = 0; i < 3; i++)
    turn(&stand);
  fail_loud();
  client.fd = -1;
  client.closed = true;
  write_init(&stand, 2);
  ask_status(&stand, "POST /api/v1/reload?wait=1", "\"result\"");
  wire_close(&operator);
  fail_over();
  wire_open(&operator, pry_program_admin_address(stand.program));
  wire_say(&operator, "POST /api/v1/reload?wait=5 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
  await(&stand, &operator, "\"result\"", 0);
  FAIL_CHECK(wire_has(&operator, "taken over") || wire_has(&operator, "unchanged"));
  wire_close(&operator);
  is_well(&stand);
  close_stand(&stand);
}

/* A clean end, whatever fails on the way. */
static void use_drain(void)
{
  struct stand stand;
  open_stand(&stand, good_answers);
  fail_quiet();
  FAIL_CHECK(start(&stand));
  wire_open(&client, pry_program_address(stand.program));
  say_call(&client);
  turn(&stand);
  fail_loud();
  pry_program_drain(stand.program);
  for (int i = 0; i < 20; i++)
    turn(&stand);
  wire_close(&client);
  close_stand(&stand);
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"program start", use_start, FAIL_BOTH, 25},
      {"the keeper", use_start, FAIL_BOTH | FAIL_IN_THREAD(KEEPER), 20},
      {"a call through the gateway", use_call, FAIL_BOTH | FAIL_IN_THREAD(WORKER), 15},
      {"a call retried", use_retry, FAIL_BOTH | FAIL_IN_THREAD(WORKER), 15},
      {"a stream", use_stream, FAIL_BOTH | FAIL_IN_THREAD(WORKER), 15},
      {"admin", use_admin, FAIL_BOTH, 12},
      {"reload", use_reload, FAIL_BOTH, 10},
      {"what a reload stages", use_reload, FAIL_BOTH | FAIL_IN_THREAD(STAGING), 12},
      {"drain", use_drain, FAIL_BOTH, 8},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
