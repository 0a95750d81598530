/* Who may come in, with each allocation and system call failing: a file of clients is taken whole or not at all, the old
 * clients stay until then, a failed look is made up for, and at the door nobody gets in or stays counted by a failure. */
#include "client_keeper.h"
#include "edge.h"
#include "fail.h"
#include "http_script.h"
#include "loader.h"
#include "wire.h"

#include <sys/stat.h>
#include <time.h>

#define KEY_A "sk-parry-aaaaaaaaaaaaaaaa"
#define KEY_B "sk-parry-bbbbbbbbbbbbbbbb"
#define FILE_OF(key)                                                                                                   \
  "{ \"clients\": [ { \"name\": \"team\", \"key\": \"" key "\", \"rpm\": 600, \"concurrent\": 2,\n"                    \
  "  \"models\": [\"m*\"], \"routes\": [\"/v1/*\"], \"note\": \"n\" },\n"                                              \
  "  { \"name\": \"other\", \"keys\": [\"sk-parry-cccccccccccccccc\"], \"expires\": \"2099-01-31\" } ] }\n"
#define INIT                                                                                                           \
  "clients { file = 'clients.json' }\n"                                                                                \
  "provider 'p' { base_url = 'http://127.0.0.1:1', dialect = 'd' }\n"                                                  \
  "route '/v1/*' { to = 'p' }\n"
#define DIALECT "return dialect { name = 'd', stream = { default = 'content' } }\n"

static char folder[64];

static void write_clients(const char *text)
{
  char path[96];
  fail_quiet();
  snprintf(path, sizeof path, "%s/clients.json", folder);
  FILE *file = fopen(path, "w");
  FAIL_CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0 && chmod(path, 0600) == 0);
  fail_loud();
}

static void begin(void)
{
  fail_quiet();
  snprintf(folder, sizeof folder, "/tmp/parry-oom-clients-XXXXXX");
  FAIL_CHECK(mkdtemp(folder));
  write_clients(FILE_OF(KEY_A));
  fail_loud();
}

static void end(void)
{
  char path[96];
  fail_quiet();
  snprintf(path, sizeof path, "%s/clients.json", folder);
  FAIL_CHECK(unlink(path) == 0 && rmdir(folder) == 0);
  fail_loud();
}

static struct pry_client_table *read_table(struct pry_clients *clients)
{
  char path[96];
  struct pry_report report;
  pry_report_init(&report);
  snprintf(path, sizeof path, "%s/clients.json", folder);
  struct pry_client_table *table = pry_client_table_read(clients, path, "clients.json", &report);
  FAIL_CHECK(table ? pry_client_table_count(table) == 2 : fail_struck());
  pry_report_fini(&report);
  return table;
}

static enum pry_admission knock(struct pry_clients *clients, const char *key, struct pry_lease *lease)
{
  struct pry_slice slice = pry_slice_of(key);
  struct pry_knock knocks = {
      .keys = &slice, .key_count = 1, .path = PRY_SLICE("/v1/x"), .now = PRY_SECOND, .unix_time = 1.8e9};
  double retry_after;
  return pry_clients_admit(clients, &knocks, lease, &retry_after);
}

/* Calls with that key are let in, and leave nothing behind; nothing fails meanwhile. */
static bool lets_in(struct pry_clients *clients, const char *key)
{
  struct pry_lease lease = {0};
  fail_quiet();
  bool admitted = knock(clients, key, &lease) == PRY_ADMITTED;
  pry_lease_release(&lease);
  fail_loud();
  return admitted;
}

/* ---- a table ------------------------------------------------------------------------------------------------------------ */

static void use_table(void)
{
  struct pry_lease lease = {0};
  begin();
  struct pry_clients *clients = pry_clients_new();
  struct pry_client_table *table = clients ? read_table(clients) : NULL;
  if (table) {
    pry_clients_install(clients, table);
    enum pry_admission admission = knock(clients, KEY_A, &lease);
    FAIL_CHECK(admission == PRY_ADMITTED || fail_struck());
    FAIL_CHECK(!lets_in(clients, KEY_B));
    write_clients(FILE_OF(KEY_B));
    struct pry_client_table *next = read_table(clients);
    if (next)
      pry_clients_install(clients, next); /* under a call */
    pry_lease_release(&lease);
    FAIL_CHECK(pry_clients_open(clients, "team") == 0);
    FAIL_CHECK(lets_in(clients, next ? KEY_B : KEY_A) && !lets_in(clients, next ? KEY_A : KEY_B));
  }
  fail_over();
  pry_clients_free(clients);
  end();
}

/* ---- the keeper --------------------------------------------------------------------------------------------------------- */

struct stand {
  struct pry_loop *loop;
  struct pry_http *http;
  struct pry_engine *engine;
  struct pry_clients *clients;
  struct pry_client_keeper *keeper;
};

/* `later`: seconds that the clock is ahead; 0: the real one. */
static void open_engine(struct stand *stand, double later)
{
  struct pry_report report;
  *stand = (struct stand){.loop = later ? pry_loop_new_virtual((double)time(NULL) + later) : pry_loop_new()};
  stand->http = later ? pry_http_script_client(pry_http_script_new(stand->loop)) : pry_http_new(stand->loop, NULL);
  struct pry_engine_options options = {
      .loop = stand->loop, .http = stand->http, .loader = &pry_lua_loader, .limits = {.wall = -1}};
  stand->engine = pry_engine_new(&options);
  stand->clients = pry_clients_new();
  struct pry_policy_set *set = pry_policy_set_new();
  pry_report_init(&report);
  FAIL_CHECK(stand->engine && stand->clients && pry_policy_set_add(set, "init.lua", PRY_SLICE(INIT)) &&
             pry_policy_set_add(set, "dialects/d.lua", PRY_SLICE(DIALECT)) && pry_policy_set_seal(set));
  FAIL_CHECK(pry_engine_load(stand->engine, set, false, &report));
  pry_report_fini(&report);
}

static struct pry_client_keeper *new_keeper(const struct stand *stand)
{
  return pry_client_keeper_new(&(struct pry_client_keeper_options){
      .engine = stand->engine, .loop = stand->loop, .clients = stand->clients, .folder = folder});
}

static void close_stand(struct stand *stand)
{
  pry_client_keeper_free(stand->keeper);
  pry_clients_free(stand->clients);
  pry_engine_free(stand->engine);
  pry_http_free(stand->http);
  pry_loop_free(stand->loop);
}

static bool accept_it(struct stand *stand)
{
  struct pry_report report;
  pry_report_init(&report);
  bool ok = pry_client_keeper_accept(stand->keeper, pry_engine_generation(stand->engine)->config, &report);
  pry_report_fini(&report);
  return ok;
}

static void use_keeper(void)
{
  struct stand stand;
  begin();
  fail_quiet();
  open_engine(&stand, 0);
  fail_loud();
  stand.keeper = new_keeper(&stand);
  FAIL_CHECK(stand.keeper || fail_struck());
  bool first = stand.keeper && accept_it(&stand);
  FAIL_CHECK(first || fail_struck());
  FAIL_CHECK(lets_in(stand.clients, KEY_A) == first);
  write_clients(FILE_OF(KEY_B));
  struct pry_buffer json;
  pry_buffer_init(&json, 0);
  if (stand.keeper) {
    pry_client_keeper_look(stand.keeper);
    bool a = lets_in(stand.clients, KEY_A), b = lets_in(stand.clients, KEY_B);
    FAIL_CHECK(first ? a != b : !a);
    pry_client_keeper_json(stand.keeper, &json);
  }
  fail_over();
  stand.keeper = stand.keeper ? stand.keeper : new_keeper(&stand);
  pry_client_keeper_look(stand.keeper);
  FAIL_CHECK(lets_in(stand.clients, KEY_B) && !lets_in(stand.clients, KEY_A));
  pry_buffer_fini(&json);
  close_stand(&stand);
  end();
}

/* The file was changed long before it is looked at, and cannot be read just then: it is read by a later look, although its
 * stamp stays. It was not: a moment without descriptors kept the old clients until the next edit. */
static void use_keeper_later(void)
{
  struct stand stand;
  begin();
  fail_quiet();
  open_engine(&stand, 100);
  stand.keeper = new_keeper(&stand);
  FAIL_CHECK(accept_it(&stand));
  write_clients(FILE_OF(KEY_B));
  fail_loud();
  pry_client_keeper_look(stand.keeper);
  fail_over();
  pry_client_keeper_look(stand.keeper);
  FAIL_CHECK(lets_in(stand.clients, KEY_B) && !lets_in(stand.clients, KEY_A));
  close_stand(&stand);
  end();
}

/* ---- the door ----------------------------------------------------------------------------------------------------------- */

struct door {
  struct stand *stand;
  struct pry_edge edge;
};

static void *on_head(void *user, struct pry_exchange *exchange, const struct pry_server_request *request)
{
  struct door *door = user;
  struct pry_lease lease;
  const struct pry_config *config = pry_engine_generation(door->stand->engine)->config;
  if (!pry_edge_enter(&door->edge, config, door->stand->loop, exchange, request, &lease))
    return NULL;
  pry_lease_release(&lease);
  pry_reply_text(exchange, 200, "text/plain", PRY_SLICE("hello"));
  return NULL;
}

static void on_body(void *user, struct pry_slice data)
{
  (void)user, (void)data;
}

static void on_end(void *user)
{
  (void)user;
}

static const struct pry_server_ops ops = {on_head, on_body, on_end, NULL, on_end};
static struct wire wire;

static void ask(struct stand *stand, const char *address, const char *key, bool may_fail)
{
  char text[256];
  wire_open(&wire, address);
  snprintf(text, sizeof text, "GET /v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n\r\n", key);
  wire_say(&wire, text);
  if (may_fail)
    WIRE_UNTIL(stand->loop, &wire, wire_has(&wire, "\r\n\r\n"));
  else
    WIRE_ENDS(stand->loop, &wire, wire_has(&wire, "\r\n\r\n"));
  wire_close(&wire);
}

static void use_door(void)
{
  struct pry_server_options options = {.head_deadline = 0.2, .keep_alive = 0.2, .write_idle = 0.2};
  struct stand stand;
  char error[512];
  begin();
  fail_quiet();
  open_engine(&stand, 0);
  stand.keeper = new_keeper(&stand);
  FAIL_CHECK(accept_it(&stand));
  struct door door = {&stand, {.clients = stand.clients, .exposed = true, .metrics = stand.engine->metrics}};
  struct pry_server *server = pry_server_new(stand.loop, "127.0.0.1:0", &options, &ops, &door, error, sizeof error);
  FAIL_CHECK(server);
  fail_loud();
  ask(&stand, pry_server_address(server), KEY_A, true);
  FAIL_CHECK(wire_has(&wire, " 200 ") || fail_struck());
  ask(&stand, pry_server_address(server), KEY_B, true); /* is not known, whatever fails */
  FAIL_CHECK(!wire_has(&wire, " 200 "));
  FAIL_CHECK(wire_has(&wire, " 401 ") || fail_struck());
  fail_over();
  FAIL_CHECK(pry_clients_open(stand.clients, "team") == 0);
  ask(&stand, pry_server_address(server), KEY_A, false);
  FAIL_CHECK(wire_has(&wire, " 200 "));
  pry_server_free(server);
  close_stand(&stand);
  end();
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"clients file", use_table, FAIL_BOTH, 100},
      {"clients kept", use_keeper, FAIL_BOTH, 60},
      {"clients of an old file", use_keeper_later, FAIL_BOTH, 40},
      {"edge", use_door, FAIL_BOTH, 60},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
