#include "service_manager.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- what we were started with ------------------------------------------------------------------------------ */

/* The size of an abstract address counts: it has no end of its own (unix(7)). */
static bool parse_address(struct pry_service_manager *manager, const char *name)
{
  size_t length = strlen(name);
  if ((name[0] != '/' && name[0] != '@') || length < 2 || length >= sizeof manager->address.sun_path)
    return false;
  manager->address = (struct sockaddr_un){.sun_family = AF_UNIX};
  memcpy(manager->address.sun_path, name, length);
  bool abstract = name[0] == '@';
  if (abstract)
    manager->address.sun_path[0] = '\0';
  manager->address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + !abstract);
  return true;
}

/* Digits only. False: none, or more than `max`. */
static bool parse_number(const char *text, unsigned long long max, unsigned long long *number)
{
  if (!text || !*text || strlen(text) > 19 || strspn(text, "0123456789") != strlen(text))
    return false;
  *number = strtoull(text, NULL, 10);
  return *number <= max;
}

/* sd_watchdog_enabled(3): without WATCHDOG_PID it is for whoever reads it. */
static pry_time read_watchdog(void)
{
  const char *pid_text = getenv("WATCHDOG_PID");
  unsigned long long microseconds, pid = (unsigned long long)getpid();
  bool ours = !pid_text || (parse_number(pid_text, ~0ULL, &pid) && pid == (unsigned long long)getpid());
  return ours && parse_number(getenv("WATCHDOG_USEC"), INT64_MAX, &microseconds) ? (pry_time)microseconds : 0;
}

void pry_service_manager_init(struct pry_service_manager *manager, struct pry_log *log)
{
  *manager = (struct pry_service_manager){.log = log, .fd = -1};
  const char *name = getenv("NOTIFY_SOCKET");
  if (name && *name) {
    bool known = parse_address(manager, name);
    if (known)
      manager->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (manager->fd < 0)
      pry_log(log, PRY_LOG_WARN, "the service manager cannot be told how parry is doing",
              pry_log_text("error", known ? strerror(errno) : "NOTIFY_SOCKET is neither a path nor @NAME"),
              pry_log_text("NOTIFY_SOCKET", name));
  }
  if (manager->fd >= 0)
    manager->watchdog = read_watchdog();
  unsetenv("NOTIFY_SOCKET");
  unsetenv("WATCHDOG_USEC");
  unsetenv("WATCHDOG_PID");
}

void pry_service_manager_fini(struct pry_service_manager *manager)
{
  if (manager->fd >= 0)
    close(manager->fd);
  manager->fd = -1;
}

/* ---- telling ------------------------------------------------------------------------------------------------ */

static bool send_text(struct pry_service_manager *manager, const char *text)
{
  struct iovec piece = {.iov_base = (char *)(uintptr_t)text, .iov_len = strlen(text)};
  struct msghdr message = {
      .msg_name = &manager->address, .msg_namelen = manager->address_size, .msg_iov = &piece, .msg_iovlen = 1};
  ssize_t sent;
  while ((sent = sendmsg(manager->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)) < 0 && errno == EINTR)
    ;
  return sent >= 0;
}

/* `state` is kept when it cannot be sent; a newer state replaces an older one, since only the last one counts. */
static void tell(struct pry_service_manager *manager, const char *state, const char *rest)
{
  char text[sizeof manager->owed + PRY_SERVICE_STATUS_MAX + 64];
  if (manager->fd < 0)
    return;
  if (*state)
    snprintf(manager->owed, sizeof manager->owed, "%s", state);
  snprintf(text, sizeof text, "%s%s", manager->owed, rest);
  if (send_text(manager, text)) {
    manager->owed[0] = '\0';
  } else if (!manager->complained) {
    manager->complained = true;
    pry_log(manager->log, PRY_LOG_WARN, "the service manager cannot be told how parry is doing",
            pry_log_text("error", strerror(errno)));
  }
}

/* Empty without a status. */
static void status_line(const char *status, char line[PRY_SERVICE_STATUS_MAX])
{
  int room = PRY_SERVICE_STATUS_MAX - (int)sizeof "STATUS=\n";
  line[0] = '\0';
  if (!status)
    return;
  int length = snprintf(line, PRY_SERVICE_STATUS_MAX, "STATUS=%.*s\n", room, status);
  for (int i = 0; i < length - 1; i++)
    if ((unsigned char)line[i] < ' ')
      line[i] = ' ';
}

void pry_service_manager_ready(struct pry_service_manager *manager, const char *status)
{
  char line[PRY_SERVICE_STATUS_MAX];
  status_line(status, line);
  tell(manager, "READY=1\n", line);
}

void pry_service_manager_status(struct pry_service_manager *manager, const char *status)
{
  char line[PRY_SERVICE_STATUS_MAX];
  status_line(status, line);
  if (*line)
    tell(manager, "", line);
}

void pry_service_manager_reloading(struct pry_service_manager *manager)
{
  char state[sizeof manager->owed];
  struct timespec now = {0};
  clock_gettime(CLOCK_MONOTONIC, &now); /* the manager's clock, not the loop's */
  unsigned long long microseconds = (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000;
  snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%llu\n", microseconds);
  tell(manager, state, "");
}

void pry_service_manager_stopping(struct pry_service_manager *manager, pry_time drain)
{
  char state[sizeof manager->owed] = "STOPPING=1\n";
  if (drain > 0)
    snprintf(state, sizeof state, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld\n", (long long)drain);
  tell(manager, state, "");
}

pry_time pry_service_manager_interval(const struct pry_service_manager *manager)
{
  return manager->watchdog / 2;
}

void pry_service_manager_alive(struct pry_service_manager *manager)
{
  if (manager->watchdog)
    tell(manager, "", "WATCHDOG=1\n");
}
