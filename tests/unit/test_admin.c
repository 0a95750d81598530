/* The admin listener over real sockets: who may ask, what is answered, and a reload from request to answer. */
#include "admin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_loader.h"
#include "json.h"

#define TOKEN "a-token-of-this-test"
#define PATIENCE (10 * PRY_SECOND)

struct rig {
  char base[64], folder[96];
  struct pry_loop *loop;
  struct pry_engine *engine;
  struct pry_reloader *reloader;
  struct pry_admin *admin;
  struct pry_buffer answer; /* of the last request: head and body */
  int status;
};

static void write_file(const struct rig *rig, const char *name, const char *text)
{
  char path[256];
  snprintf(path, sizeof path, "%s/%s", rig->folder, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static struct rig *rig_new(const char *address, const char *token)
{
  struct rig *rig = calloc(1, sizeof *rig);
  char error[512], unix_address[128];
  assert_non_null(rig);
  strcpy(rig->base, "/tmp/parry-admin-XXXXXX");
  assert_non_null(mkdtemp(rig->base));
  snprintf(rig->folder, sizeof rig->folder, "%s/policies", rig->base);
  snprintf(unix_address, sizeof unix_address, "unix:%s/admin.sock", rig->base);
  assert_int_equal(mkdir(rig->folder, 0700), 0);
  write_file(rig, "init.lua", "one");
  rig->loop = pry_loop_new();
  struct pry_engine_options engine = {.loop = rig->loop, .loader = &fake_loader};
  rig->engine = pry_engine_new(&engine);
  assert_non_null(rig->engine);
  struct pry_report report;
  pry_report_init(&report);
  assert_true(pry_engine_load(rig->engine, pry_reload_read(rig->folder, NULL, NULL, &report), true, &report));
  pry_report_fini(&report);
  struct pry_reloader_options reloader = {.engine = rig->engine, .folder = rig->folder};
  rig->reloader = pry_reloader_new(&reloader);
  assert_non_null(rig->reloader);
  struct pry_admin_options options = {.engine = rig->engine,
                                      .reloader = rig->reloader,
                                      .folder = rig->folder,
                                      .address = address ? address : unix_address,
                                      .token = token};
  rig->admin = pry_admin_new(&options, error, sizeof error);
  assert_non_null(rig->admin);
  pry_buffer_init(&rig->answer, 0);
  return rig;
}

static int unix_rig(void **state)
{
  *state = rig_new(NULL, NULL);
  return 0;
}

static int tcp_rig(void **state)
{
  *state = rig_new("127.0.0.1:0", TOKEN);
  return 0;
}

static int teardown(void **state)
{
  struct rig *rig = *state;
  char command[128];
  gate_set(false);
  pry_admin_free(rig->admin);
  pry_reloader_free(rig->reloader);
  pry_engine_free(rig->engine);
  pry_loop_free(rig->loop);
  pry_buffer_fini(&rig->answer);
  snprintf(command, sizeof command, "rm -rf %s", rig->base);
  assert_int_equal(system(command), 0);
  free(rig);
  return 0;
}

/* ---- a client ------------------------------------------------------------------------------------------------ */

static int dial(const struct rig *rig)
{
  const char *address = pry_admin_address(rig->admin);
  int fd;
  if (strncmp(address, "unix:", 5) == 0) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path, sizeof name.sun_path, "%s", address + 5);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
  } else {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((in_port_t)atoi(strrchr(address, ':') + 1))};
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
  }
  assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  return fd;
}

/* headers: whole lines with their ends, Host included or not. */
static int begin(const struct rig *rig, const char *request_line, const char *headers)
{
  char text[1024];
  int fd = dial(rig);
  int size = snprintf(text, sizeof text, "%s HTTP/1.1\r\nConnection: close\r\n%s\r\n", request_line, headers);
  assert_int_equal(write(fd, text, (size_t)size), size);
  return fd;
}

/* Turns until the server has closed. */
static void finish(struct rig *rig, int fd)
{
  char piece[4096];
  pry_time end = pry_loop_now(rig->loop) + PATIENCE;
  ssize_t got;
  pry_buffer_clear(&rig->answer);
  while ((got = read(fd, piece, sizeof piece)) != 0) {
    if (got > 0)
      assert_true(pry_buffer_append(&rig->answer, piece, (size_t)got));
    else
      assert_int_equal(errno, EAGAIN);
    assert_true(pry_loop_now(rig->loop) < end);
    pry_loop_turn(rig->loop, PRY_MILLISECOND);
  }
  close(fd);
  rig->status = 0;
  assert_int_equal(sscanf(pry_buffer_text(&rig->answer), "HTTP/1.1 %d", &rig->status), 1);
}

static int ask(struct rig *rig, const char *request_line, const char *headers)
{
  finish(rig, begin(rig, request_line, headers));
  return rig->status;
}

static bool answer_has(const struct rig *rig, const char *text)
{
  return strstr(rig->answer.data, text) != NULL;
}

static struct pry_slice body_of(const struct rig *rig)
{
  const char *body = strstr(rig->answer.data, "\r\n\r\n");
  assert_non_null(body);
  return pry_slice_of(body + 4);
}

#define HOST "Host: localhost\r\n"

/* ---- what is answered ------------------------------------------------------------------------------------------- */

static void the_socket_is_its_owners_alone(void **state)
{
  struct rig *rig = *state;
  struct stat about;
  assert_int_equal(stat(pry_admin_address(rig->admin) + 5, &about), 0);
  assert_int_equal(about.st_mode & 0777, 0600);
}

static void status_tells_what_serves(void **state)
{
  struct rig *rig = *state;
  struct pry_json_value value;
  assert_int_equal(ask(rig, "GET /api/v1/status", HOST), 200);
  struct pry_slice body = body_of(rig);
  assert_int_equal(pry_json_parse(body, NULL), PRY_JSON_OK);
  assert_true(pry_json_get(body, "generation.id", &value));
  assert_true(pry_json_equals(value.raw, pry_slice_of(pry_engine_generation(rig->engine)->id)));
  assert_true(pry_json_get(body, "last_reload", &value));
  assert_int_equal(value.type, PRY_JSON_NULL);
  assert_true(pry_json_get(body, "ready", &value));
  assert_int_equal(value.type, PRY_JSON_TRUE);
}

static void lists_and_metrics_are_whole(void **state)
{
  struct rig *rig = *state;
  struct pry_event_record *record = pry_event_next(rig->engine->control->events);
  snprintf(record->why, sizeof record->why, "first \"why\"");
  snprintf(pry_event_next(rig->engine->control->events)->why, sizeof record->why, "second");
  assert_int_equal(ask(rig, "GET /api/v1/events?limit=1", HOST), 200);
  assert_int_equal(pry_json_parse(body_of(rig), NULL), PRY_JSON_OK);
  assert_true(answer_has(rig, "second"));
  assert_false(answer_has(rig, "first"));
  assert_int_equal(ask(rig, "GET /api/v1/events", HOST), 200);
  assert_int_equal(pry_json_parse(body_of(rig), NULL), PRY_JSON_OK);
  assert_true(answer_has(rig, "first \\\"why\\\""));
  assert_int_equal(ask(rig, "GET /api/v1/generations", HOST), 200);
  assert_int_equal(pry_json_parse(body_of(rig), NULL), PRY_JSON_OK);
  assert_int_equal(ask(rig, "GET /metrics", HOST), 200);
  assert_true(answer_has(rig, "\nparry_build_info{version="));
  assert_int_equal(ask(rig, "HEAD /metrics", HOST), 200);
  assert_int_equal(body_of(rig).size, 0);
}

static void mistakes_are_problems_in_json(void **state)
{
  struct rig *rig = *state;
  assert_int_equal(ask(rig, "GET /api/v2/status", HOST), 404);
  assert_true(answer_has(rig, "Content-Type: application/problem+json\r\n"));
  assert_int_equal(pry_json_parse(body_of(rig), NULL), PRY_JSON_OK);
  assert_int_equal(ask(rig, "GET /api/v1/reload", HOST), 405);
  assert_true(answer_has(rig, "Allow: POST\r\n"));
  assert_int_equal(ask(rig, "GET /api/v1/events?limit=-1", HOST), 400);
  assert_int_equal(ask(rig, "GET /api/v1/events?limit=1e9", HOST), 400);
  assert_int_equal(ask(rig, "POST /api/v1/reload?wait=soon", HOST), 400);
}

static void draining_is_not_ready(void **state)
{
  struct rig *rig = *state;
  assert_int_equal(ask(rig, "GET /readyz", HOST), 200);
  pry_admin_drain(rig->admin);
  assert_int_equal(ask(rig, "GET /readyz", HOST), 503);
  assert_int_equal(ask(rig, "GET /livez", HOST), 200);
  assert_int_equal(ask(rig, "GET /api/v1/status", HOST), 200);
  assert_true(answer_has(rig, "\"draining\":true"));
}

/* ---- reload
 * -------------------------------------------------------------------------------------------------------- */

static void reload_answers_with_how_it_ended(void **state)
{
  struct rig *rig = *state;
  struct pry_json_value value;
  assert_int_equal(ask(rig, "POST /api/v1/reload", HOST), 200);
  assert_true(answer_has(rig, "\"result\":\"unchanged\""));
  write_file(rig, "init.lua", "two");
  assert_int_equal(ask(rig, "POST /api/v1/reload", HOST), 200);
  assert_true(answer_has(rig, "\"result\":\"taken over\""));
  write_file(rig, "retry.lua", "bad");
  assert_int_equal(ask(rig, "POST /api/v1/reload", HOST "Content-Length: 2\r\n\r\n{}"), 409);
  struct pry_slice body = body_of(rig);
  assert_true(pry_json_get(body, "report.0.where", &value));
  assert_true(pry_json_equals(value.raw, PRY_SLICE("retry.lua:1")));
  assert_true(pry_json_get(body, "generation", &value));
  assert_true(pry_json_equals(value.raw, pry_slice_of(pry_engine_generation(rig->engine)->id)));
  assert_int_equal(ask(rig, "GET /api/v1/status", HOST), 200);
  assert_true(answer_has(rig, "\"last_reload\":{\"result\":\"refused\""));
  assert_true(answer_has(rig, "\"reloads\":1,\"reloads_refused\":1"));
}

static void a_reload_that_takes_long_is_pending(void **state)
{
  struct rig *rig = *state;
  gate_set(true);
  write_file(rig, "init.lua", "two");
  assert_int_equal(ask(rig, "POST /api/v1/reload?wait=0.01", HOST), 202);
  assert_true(answer_has(rig, "\"result\":\"pending\""));
  gate_set(false);
  assert_int_equal(ask(rig, "POST /api/v1/reload", HOST), 200);
  assert_string_equal(pry_policy_set_find(pry_engine_generation(rig->engine)->set, "init.lua")->text, "two");
}

static void who_leaves_does_not_stop_the_reload(void **state)
{
  struct rig *rig = *state;
  char first[PRY_GENERATION_ID_MAX];
  snprintf(first, sizeof first, "%s", pry_engine_generation(rig->engine)->id);
  gate_set(true);
  loads = 0;
  write_file(rig, "init.lua", "two");
  int fd = begin(rig, "POST /api/v1/reload", HOST);
  while (loads == 0)
    pry_loop_turn(rig->loop, PRY_MILLISECOND);
  close(fd);
  for (int i = 0; i < 20; i++)
    pry_loop_turn(rig->loop, PRY_MILLISECOND);
  gate_set(false);
  pry_time end = pry_loop_now(rig->loop) + PATIENCE;
  while (strcmp(pry_engine_generation(rig->engine)->id, first) == 0 && pry_loop_now(rig->loop) < end)
    pry_loop_turn(rig->loop, PRY_MILLISECOND);
  assert_string_not_equal(pry_engine_generation(rig->engine)->id, first);
}

static void freeing_with_a_waiting_reload(void **state)
{
  struct rig *rig = *state;
  gate_set(true);
  loads = 0;
  write_file(rig, "init.lua", "two");
  int fd = begin(rig, "POST /api/v1/reload", HOST);
  while (loads == 0)
    pry_loop_turn(rig->loop, PRY_MILLISECOND);
  pry_admin_free(rig->admin); /* the teardown frees the reloader, whose look then has nobody to tell */
  rig->admin = NULL;
  close(fd);
}

/* ---- who may ask over TCP
 * --------------------------------------------------------------------------------------------- */

static void tcp_without_a_token_is_refused_at_start(void **state)
{
  struct rig *rig = *state;
  char error[512] = "";
  struct pry_admin_options options = {.engine = rig->engine, .folder = "x", .address = "127.0.0.1:0"};
  assert_null(pry_admin_new(&options, error, sizeof error));
  assert_non_null(strstr(error, "--admin-token-file"));
  options.token = "";
  assert_null(pry_admin_new(&options, error, sizeof error));
}

static void tcp_wants_the_token(void **state)
{
  struct rig *rig = *state;
  static const char *const wrong[] = {"",
                                      "Authorization: Bearer a-token-of-this-tesT\r\n",
                                      "Authorization: Bearer a-token-of-this-tes\r\n",
                                      "Authorization: Bearer a-token-of-this-testX\r\n",
                                      "Authorization: Bearer \r\n",
                                      "Authorization: Basic " TOKEN "\r\n",
                                      "Authorization: " TOKEN "\r\n"};
  static const char *const paths[] = {"GET /api/v1/status", "POST /api/v1/reload", "GET /metrics", "GET /nowhere"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char headers[256];
    snprintf(headers, sizeof headers, "Host: 127.0.0.1\r\n%s", wrong[i]);
    for (size_t j = 0; j < sizeof paths / sizeof *paths; j++)
      assert_int_equal(ask(rig, paths[j], headers), 401);
    assert_true(answer_has(rig, "WWW-Authenticate: Bearer"));
    assert_false(answer_has(rig, TOKEN));
  }
  assert_int_equal(ask(rig, "GET /api/v1/status", "Host: 127.0.0.1\r\nAuthorization: Bearer " TOKEN "\r\n"), 200);
  assert_false(answer_has(rig, TOKEN));
  assert_int_equal(ask(rig, "GET /api/v1/status", "Host: [::1]:99\r\nauthorization: bearer " TOKEN "\r\n"), 200);
  assert_int_equal(ask(rig, "GET /livez", "Host: 127.0.0.1\r\n"), 200);
}

/* A page in a browser on this machine: by a name it points here, or from its own origin. */
static void tcp_refuses_other_pages(void **state)
{
  struct rig *rig = *state;
  static const char token[] = "Authorization: Bearer " TOKEN "\r\n";
  static const struct {
    const char *headers;
    int status;
  } cases[] = {
      {"Host: evil.example\r\n", 403},
      {"Host: localhost.evil.example:80\r\n", 403},
      {"Host: 127.0.0.1.evil.example\r\n", 403},
      {"Host: [::1\r\n", 400}, /* the server's own answer */
      {"Host: localhost:8420\r\n", 200},
      {"Host: 127.0.0.1:8420\r\nOrigin: http://127.0.0.1:8420\r\n", 200},
      {"Host: 127.0.0.1:8420\r\nOrigin: http://127.0.0.1:8421\r\n", 403},
      {"Host: 127.0.0.1:8420\r\nOrigin: https://evil.example\r\n", 403},
      {"Host: 127.0.0.1:8420\r\nOrigin: null\r\n", 403},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char headers[256];
    snprintf(headers, sizeof headers, "%s%s", cases[i].headers, token);
    assert_int_equal(ask(rig, "GET /api/v1/status", headers), cases[i].status);
  }
}

#define ON_UNIX(test) cmocka_unit_test_setup_teardown(test, unix_rig, teardown)
#define ON_TCP(test) cmocka_unit_test_setup_teardown(test, tcp_rig, teardown)

int main(void)
{
  const struct CMUnitTest tests[] = {
      ON_UNIX(the_socket_is_its_owners_alone),
      ON_UNIX(status_tells_what_serves),
      ON_UNIX(lists_and_metrics_are_whole),
      ON_UNIX(mistakes_are_problems_in_json),
      ON_UNIX(draining_is_not_ready),
      ON_UNIX(reload_answers_with_how_it_ended),
      ON_UNIX(a_reload_that_takes_long_is_pending),
      ON_UNIX(who_leaves_does_not_stop_the_reload),
      ON_UNIX(freeing_with_a_waiting_reload),
      ON_UNIX(tcp_without_a_token_is_refused_at_start),
      ON_TCP(tcp_wants_the_token),
      ON_TCP(tcp_refuses_other_pages),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
