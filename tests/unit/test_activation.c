/* Sockets passed by a service manager. The descriptors have fixed numbers, so each case runs in a child of its own,
 * which writes what it found as one line. */
#include "activation.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum kind { END, TCP, TCP6, UNIX, CONNECTABLE, DATAGRAM, FILE_, SEQPACKET };

static int bound(int family, int type, bool listening)
{
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } name = {0};
  name.any.sa_family = (sa_family_t)family;
  if (family == AF_INET)
    name.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  else if (family == AF_INET6)
    name.v6.sin6_addr = in6addr_loopback;
  int fd = socket(family, type, 0);
  socklen_t size = family == AF_UNIX ? sizeof name.any.sa_family : sizeof name; /* unix: the kernel finds a name */
  if (fd < 0 || bind(fd, &name.any, size) < 0 || (listening && listen(fd, 5) < 0))
    return -1;
  return fd;
}

static int make(enum kind kind)
{
  switch (kind) {
  case TCP:
    return bound(AF_INET, SOCK_STREAM, true);
  case TCP6:
    return bound(AF_INET6, SOCK_STREAM, true);
  case UNIX:
    return bound(AF_UNIX, SOCK_STREAM, true);
  case CONNECTABLE:
    return bound(AF_INET, SOCK_STREAM, false);
  case DATAGRAM:
    return bound(AF_INET, SOCK_DGRAM, false);
  case SEQPACKET:
    return bound(AF_UNIX, SOCK_SEQPACKET, true);
  case FILE_:
    return open("/dev/null", O_RDONLY);
  case END:
    break;
  }
  return -1;
}

struct passing {
  const char *pid; /* NULL: the right one; "": none */
  const char *count, *names;
  enum kind kinds[5];
};

static bool is_ours(int fd)
{
  return (fcntl(fd, F_GETFD) & FD_CLOEXEC) && (fcntl(fd, F_GETFL) & O_NONBLOCK);
}

static void set_or_unset(const char *name, const char *value)
{
  if (value)
    setenv(name, value, 1);
  else
    unsetenv(name);
}

static void act(const struct passing *passing, int out)
{
  char pid[32], error[512] = "";
  struct pry_activation activation;
  int made[4], count = 0;
  for (; passing->kinds[count]; count++)
    made[count] = fcntl(make(passing->kinds[count]), F_DUPFD, 20);
  for (int fd = 3; fd < 20; fd++)
    close(fd);
  for (int i = 0; i < count; i++)
    dup2(made[i], 3 + i);
  snprintf(pid, sizeof pid, "%ld", (long)getpid());
  set_or_unset("LISTEN_PID", !passing->pid ? pid : *passing->pid ? passing->pid : NULL);
  set_or_unset("LISTEN_FDS", passing->count);
  set_or_unset("LISTEN_FDNAMES", passing->names);
  bool ok = pry_activation_take(&activation, error, sizeof error);
  bool clean = !getenv("LISTEN_PID") && !getenv("LISTEN_FDS") && !getenv("LISTEN_FDNAMES");
  bool ours = (activation.gateway.fd < 0 || is_ours(activation.gateway.fd)) &&
              (activation.admin.fd < 0 || is_ours(activation.admin.fd));
  if (!clean || !ours)
    dprintf(out, "%s%s", clean ? "" : "environment kept ", ours ? "" : "blocking or inherited ");
  else if (!ok)
    dprintf(out, "refused: %s", error);
  else
    dprintf(out, "gateway %d %.12s admin %d %.12s", activation.gateway.fd, activation.gateway.address,
            activation.admin.fd, activation.admin.address);
}

static const char *outcome(const struct passing *passing)
{
  static char line[1024];
  int out[2], status;
  size_t size = 0;
  ssize_t got;
  assert_int_equal(pipe(out), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    act(passing, fcntl(out[1], F_DUPFD, 40));
    _exit(0);
  }
  close(out[1]);
  while ((got = read(out[0], line + size, sizeof line - 1 - size)) > 0)
    size += (size_t)got;
  line[size] = '\0';
  close(out[0]);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  return line;
}

#define NONE "gateway -1  admin -1 "
#define ONE "gateway 3 127.0.0.1:.. admin -1 "

/* As `expected`, where ".." stands for any text. */
static void assert_like(const char *got, const char *expected)
{
  const char *at = got, *wanted = expected, *dots;
  while ((dots = strstr(wanted, ".."))) {
    size_t size = (size_t)(dots - wanted);
    if (strncmp(at, wanted, size) != 0)
      fail_msg("expected %s\ngot %s", expected, got);
    at += size;
    wanted = dots + 2;
    size_t next = strcspn(wanted, ".");
    while (*at && strncmp(at, wanted, next ? next : 1) != 0)
      at++;
  }
  if (strcmp(at, wanted) != 0)
    fail_msg("expected %s\ngot %s", expected, got);
}

static void sockets_that_are_taken(void **unused)
{
  (void)unused;
  static const struct {
    struct passing passing;
    const char *expected;
  } cases[] = {
      {{NULL, NULL, NULL, {TCP}}, NONE},
      {{NULL, "1", NULL, {TCP}}, ONE},
      {{NULL, "1", "", {TCP}}, ONE},
      {{NULL, "1", "unknown", {TCP}}, ONE},
      {{NULL, "1", "parry.socket", {TCP}}, ONE},
      {{NULL, "1", "gateway", {TCP}}, ONE},
      {{NULL, "0", NULL, {END}}, NONE},
      {{"", "1", NULL, {TCP}}, NONE},
      {{"1", "1", NULL, {TCP}}, NONE},
      {{"-1", "1", NULL, {TCP}}, NONE},
      {{"x", "1", NULL, {TCP}}, NONE},
      {{NULL, "2", "admin:gateway", {UNIX, TCP}}, "gateway 4 127.0.0.1:.. admin 3 unix:@"},
      {{NULL, "2", "gateway:admin", {TCP6, TCP}}, "gateway 3 [::1]:.. admin 4 127.0.0.1:.."},
      {{NULL, "2", "parry.socket:admin", {TCP, UNIX}}, "gateway 3 127.0.0.1:.. admin 4 unix:@"},
      {{NULL, "1", "admin", {UNIX}}, "gateway -1  admin 3 unix:@"},
      {{NULL, "1", "gateway:left:over", {TCP}}, ONE},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_like(outcome(&cases[i].passing), cases[i].expected);
}

static void mistakes_are_named(void **unused)
{
  (void)unused;
  static const struct {
    struct passing passing;
    const char *words;
  } cases[] = {
      {{NULL, "1", NULL, {DATAGRAM}}, "descriptor 3 (no name) is not a stream socket; write ListenStream="},
      {{NULL, "1", NULL, {SEQPACKET}}, "descriptor 3 (no name) is not a stream socket"},
      {{NULL, "1", "gateway", {CONNECTABLE}}, "descriptor 3 (gateway) does not listen; write Accept=no"},
      {{NULL, "1", NULL, {FILE_}}, "descriptor 3 (no name) is not a socket"},
      {{NULL, "2", NULL, {TCP}}, "descriptor 4 (no name) Bad file descriptor; LISTEN_FDS counts more"},
      {{NULL, "2", NULL, {TCP, TCP}}, "descriptor 4 (no name) is a second gateway socket"},
      {{NULL, "2", "admin:admin", {TCP, TCP}}, "descriptor 4 (admin) is a second admin socket"},
      {{NULL, "2", "gateway:metrics", {TCP, TCP}}, "descriptor 4 (metrics) has a name that parry does not know"},
      {{NULL, "one", NULL, {TCP}}, "LISTEN_FDS is not a number up to 64"},
      {{NULL, "-1", NULL, {TCP}}, "LISTEN_FDS is not a number up to 64"},
      {{NULL, "2147483647", NULL, {TCP}}, "LISTEN_FDS is not a number up to 64"},
      {{NULL, "", NULL, {TCP}}, "LISTEN_FDS is not a number up to 64"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *got = outcome(&cases[i].passing);
    if (strncmp(got, "refused: socket activation: ", 28) != 0 || !strstr(got, cases[i].words))
      fail_msg("expected %s\ngot %s", cases[i].words, got);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sockets_that_are_taken),
      cmocka_unit_test(mistakes_are_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
