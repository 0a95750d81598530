/* What a service manager hears from us, with a socket in its place. */
#include "service_manager.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];
static int listener = -1;
static struct pry_service_manager manager;
static struct pry_log *log_;
static unsigned warnings;
static char last_line[1024];

static void on_log(void *user, enum pry_log_level level, const char *line, size_t size)
{
  (void)user, (void)size;
  warnings += level == PRY_LOG_WARN;
  snprintf(last_line, sizeof last_line, "%s", line);
}

static int setup(void **unused)
{
  (void)unused;
  snprintf(folder, sizeof folder, "/tmp/parry-notify-XXXXXX");
  assert_non_null(mkdtemp(folder));
  log_ = pry_log_new(on_log, NULL, PRY_LOG_INFO, NULL, NULL);
  assert_non_null(log_);
  warnings = 0;
  return 0;
}

static int teardown(void **unused)
{
  (void)unused;
  char command[128];
  pry_service_manager_fini(&manager);
  pry_log_free(log_);
  if (listener >= 0)
    close(listener);
  listener = -1;
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command);
}

/* Listens on a path, or with a leading '@' in the abstract name space, and starts the manager with that name. */
static void listen_on(const char *name)
{
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t length = strlen(name);
  memcpy(address.sun_path, name, length);
  if (name[0] == '@')
    address.sun_path[0] = '\0';
  listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(listener, (struct sockaddr *)&address,
                        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (name[0] != '@'))),
                   0);
  setenv("NOTIFY_SOCKET", name, 1);
  pry_service_manager_init(&manager, log_);
}

static void listen_in_folder(void)
{
  char name[96];
  snprintf(name, sizeof name, "%s/notify", folder);
  listen_on(name);
}

/* The next datagram; "" when there is none. */
static const char *heard(void)
{
  static char text[2048];
  ssize_t got = recv(listener, text, sizeof text - 1, 0);
  text[got > 0 ? got : 0] = '\0';
  return text;
}

static void each_state_is_one_datagram(void **unused)
{
  (void)unused;
  listen_in_folder();
  pry_service_manager_ready(&manager, "serving 3f9c21a, 5 policies");
  assert_string_equal(heard(), "READY=1\nSTATUS=serving 3f9c21a, 5 policies\n");
  pry_service_manager_ready(&manager, NULL);
  assert_string_equal(heard(), "READY=1\n");
  pry_service_manager_status(&manager, "two\nREADY=1\rlines");
  assert_string_equal(heard(), "STATUS=two READY=1 lines\n");
  pry_service_manager_stopping(&manager, 0);
  assert_string_equal(heard(), "STOPPING=1\n");
  pry_service_manager_stopping(&manager, 35 * PRY_SECOND);
  assert_string_equal(heard(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000\n");
  assert_string_equal(heard(), "");
  assert_int_equal(warnings, 0);
}

/* In one datagram, on the clock that the manager compares with: a service that got one of them wrong was killed. */
static void reloading_tells_the_monotonic_time(void **unused)
{
  (void)unused;
  struct timespec before, after;
  unsigned long long told;
  char end;
  listen_in_folder();
  clock_gettime(CLOCK_MONOTONIC, &before);
  pry_service_manager_reloading(&manager);
  clock_gettime(CLOCK_MONOTONIC, &after);
  assert_int_equal(sscanf(heard(), "RELOADING=1\nMONOTONIC_USEC=%llu%c", &told, &end), 2);
  assert_int_equal(end, '\n');
  assert_true(told >= (unsigned long long)before.tv_sec * 1000000 + (unsigned long long)before.tv_nsec / 1000);
  assert_true(told <= (unsigned long long)after.tv_sec * 1000000 + (unsigned long long)after.tv_nsec / 1000);
}

static void an_abstract_socket_is_reached(void **unused)
{
  (void)unused;
  char name[96];
  snprintf(name, sizeof name, "@%s", folder);
  listen_on(name);
  pry_service_manager_ready(&manager, NULL);
  assert_string_equal(heard(), "READY=1\n");
}

static void the_longest_status_is_cut(void **unused)
{
  (void)unused;
  char long_status[1000];
  listen_in_folder();
  memset(long_status, 'x', sizeof long_status - 1);
  long_status[sizeof long_status - 1] = '\0';
  pry_service_manager_status(&manager, long_status);
  const char *text = heard();
  assert_int_equal(strlen(text), PRY_SERVICE_STATUS_MAX - 1);
  assert_int_equal(text[strlen(text) - 1], '\n');
}

static void the_watchdog_is_fed_at_half_time(void **unused)
{
  (void)unused;
  char pid[32];
  snprintf(pid, sizeof pid, "%ld", (long)getpid());
  setenv("WATCHDOG_USEC", "20000000", 1);
  setenv("WATCHDOG_PID", pid, 1);
  listen_in_folder();
  assert_int_equal(pry_service_manager_interval(&manager), 10 * PRY_SECOND);
  pry_service_manager_alive(&manager);
  assert_string_equal(heard(), "WATCHDOG=1\n");
  assert_null(getenv("WATCHDOG_USEC"));
  assert_null(getenv("WATCHDOG_PID"));
  assert_null(getenv("NOTIFY_SOCKET"));
}

static void the_watchdog_may_be_anothers_or_none(void **unused)
{
  (void)unused;
  static const struct {
    const char *microseconds, *pid;
    pry_time interval;
  } cases[] = {
      {NULL, NULL, 0},       {"2000000", NULL, PRY_SECOND},
      {"2000000", "1", 0},   {"2000000", "x", 0},
      {"2000000", "", 0},    {"-2000000", NULL, 0},
      {"2000000x", NULL, 0}, {"99999999999999999999", NULL, 0},
      {"", NULL, 0},         {"9999999999999999999", NULL, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (cases[i].microseconds)
      setenv("WATCHDOG_USEC", cases[i].microseconds, 1);
    if (cases[i].pid)
      setenv("WATCHDOG_PID", cases[i].pid, 1);
    char name[96];
    snprintf(name, sizeof name, "%s/notify%zu", folder, i);
    listen_on(name);
    assert_int_equal(pry_service_manager_interval(&manager), cases[i].interval);
    pry_service_manager_alive(&manager);
    assert_string_equal(heard(), cases[i].interval ? "WATCHDOG=1\n" : "");
    pry_service_manager_fini(&manager);
    close(listener);
    listener = -1;
  }
}

static void without_a_manager_nothing_happens(void **unused)
{
  (void)unused;
  setenv("WATCHDOG_USEC", "20000000", 1);
  pry_service_manager_init(&manager, log_);
  assert_int_equal(pry_service_manager_interval(&manager), 0);
  pry_service_manager_ready(&manager, "x");
  pry_service_manager_reloading(&manager);
  pry_service_manager_status(&manager, NULL);
  pry_service_manager_alive(&manager);
  pry_service_manager_stopping(&manager, PRY_SECOND);
  assert_int_equal(warnings, 0);
}

static void an_address_we_cannot_use_is_one_warning(void **unused)
{
  (void)unused;
  char too_long[200];
  memset(too_long, 'x', sizeof too_long - 1);
  too_long[0] = '/';
  too_long[sizeof too_long - 1] = '\0';
  const char *const names[] = {"relative", "vsock:2:1234", "/", "@", too_long};
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    setenv("NOTIFY_SOCKET", names[i], 1);
    pry_service_manager_init(&manager, log_);
    assert_int_equal(warnings, i + 1);
    pry_service_manager_ready(&manager, "x");
    assert_int_equal(warnings, i + 1);
    pry_service_manager_fini(&manager);
  }
  assert_non_null(strstr(last_line, "neither a path nor @NAME"));
}

/* Nobody reads: we go on at once, say so once, and what the manager waits for goes with the next that gets through. */
static void a_full_socket_delays_nobody_and_loses_no_state(void **unused)
{
  (void)unused;
  setenv("WATCHDOG_USEC", "2000000", 1);
  listen_in_folder();
  for (int i = 0; i < 100000 && !warnings; i++)
    pry_service_manager_alive(&manager);
  assert_int_equal(warnings, 1);
  pry_service_manager_reloading(&manager);
  pry_service_manager_ready(&manager, "not told");
  pry_service_manager_status(&manager, "not told either");
  assert_int_equal(warnings, 1);
  while (*heard())
    ;
  pry_service_manager_alive(&manager);
  assert_string_equal(heard(), "READY=1\nWATCHDOG=1\n");
  pry_service_manager_alive(&manager);
  assert_string_equal(heard(), "WATCHDOG=1\n");
}

static void a_manager_that_is_gone_delays_nobody(void **unused)
{
  (void)unused;
  listen_in_folder();
  close(listener);
  listener = -1;
  pry_service_manager_ready(&manager, NULL); /* no SIGPIPE either */
  pry_service_manager_stopping(&manager, 0);
  assert_int_equal(warnings, 1);
  assert_non_null(strstr(last_line, "Connection refused"));
}

#define WITH_LOG(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
  const struct CMUnitTest tests[] = {
      WITH_LOG(each_state_is_one_datagram),
      WITH_LOG(reloading_tells_the_monotonic_time),
      WITH_LOG(an_abstract_socket_is_reached),
      WITH_LOG(the_longest_status_is_cut),
      WITH_LOG(the_watchdog_is_fed_at_half_time),
      WITH_LOG(the_watchdog_may_be_anothers_or_none),
      WITH_LOG(without_a_manager_nothing_happens),
      WITH_LOG(an_address_we_cannot_use_is_one_warning),
      WITH_LOG(a_full_socket_delays_nobody_and_loses_no_state),
      WITH_LOG(a_manager_that_is_gone_delays_nobody),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
