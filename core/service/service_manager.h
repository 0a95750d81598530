/*
 * service_manager.h: telling systemd, or whoever speaks its protocol, how we are doing.
 *
 * The protocol of sd_notify(3), without libsystemd: lines of VARIABLE=value in one datagram to the unix socket that
 * $NOTIFY_SOCKET names (a path, or '@' and a name in the abstract name space). Without that variable nobody listens
 * and every function does nothing.
 *
 * Never blocks and never fails: a datagram that cannot be sent is told in the log once. What must not get lost
 * (READY, RELOADING, STOPPING: the manager waits for them) is owed then, and goes with the next message that gets
 * through, such as the watchdog's.
 *
 * RELOADING=1 carries MONOTONIC_USEC in the same datagram, as Type=notify-reload wants it (systemd 253); older ones
 * ignore it. After RELOADING the manager waits for READY, however the reload ended.
 *
 * Thread: the control loop's.
 */
#ifndef PRY_SERVICE_MANAGER_H
#define PRY_SERVICE_MANAGER_H

#include "log.h"
#include "loop.h"

#include <sys/socket.h>
#include <sys/un.h>

enum { PRY_SERVICE_STATUS_MAX = 256 };

/* All fields are the module's. */
struct pry_service_manager {
  struct pry_log *log; /* borrowed */
  int fd;              /* -1: nobody listens */
  struct sockaddr_un address;
  socklen_t address_size;
  pry_time watchdog;
  char owed[160]; /* a state that could not be sent; "" none */
  bool complained;
};

/* Reads $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID and takes them out of the environment, so call it before
 * there are threads. A socket we cannot speak to is a warning in the log. */
void pry_service_manager_init(struct pry_service_manager *manager, struct pry_log *log);
void pry_service_manager_fini(struct pry_service_manager *manager);

/* Started, or a reload has ended (well or not). `status` is shown by `systemctl status`, e.g. "serving 3f9c21a, 5
 * policies"; NULL leaves the old one; cut at PRY_SERVICE_STATUS_MAX bytes, line breaks become spaces. */
void pry_service_manager_ready(struct pry_service_manager *manager, const char *status);
void pry_service_manager_status(struct pry_service_manager *manager, const char *status);
void pry_service_manager_reloading(struct pry_service_manager *manager);
/* Draining has begun. `drain` > 0: it may take so long from now (EXTEND_TIMEOUT_USEC), even if TimeoutStopSec= is less;
 * the manager wants to hear of it again before that time is over. */
void pry_service_manager_stopping(struct pry_service_manager *manager, pry_time drain);

/* How often pry_service_manager_alive() is wanted: half of WatchdogSec=, as sd_watchdog_enabled(3) recommends. 0: never
 * (no watchdog, or it is for another process). */
pry_time pry_service_manager_interval(const struct pry_service_manager *manager);

/* WATCHDOG=1. Call it only when every worker has turned its loop since the last time. */
void pry_service_manager_alive(struct pry_service_manager *manager);

#endif
