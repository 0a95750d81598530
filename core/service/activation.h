/*
 * activation.h: listening sockets that the service manager opened for us.
 *
 * sd_listen_fds(3), without libsystemd: $LISTEN_PID says that the descriptors from 3 on are for this process,
 * $LISTEN_FDS how many there are, $LISTEN_FDNAMES how they are called (FileDescriptorName= of the .socket unit, else
 * the unit's own name). parry knows two: "gateway" and "admin". A socket that nobody named (NAME.socket, "unknown" or
 * an empty name) is the gateway. The sockets stay open between a stop and a start, so that no connection is refused
 * meanwhile; parry accepts from them and never shuts them down.
 *
 * They are checked, because a mistake in a unit file should be told at start and not by a client: each must be a
 * listening stream socket, of one of the two names, and each name at most once. All become close-on-exec and
 * non-blocking, and the variables are taken out of the environment.
 *
 * Thread: the starting one, before there are others.
 */
#ifndef PRY_ACTIVATION_H
#define PRY_ACTIVATION_H

#include <stdbool.h>
#include <stddef.h>

struct pry_activated_socket {
  int fd;            /* owned by whoever takes it; -1: not given */
  char address[128]; /* as bound: "127.0.0.1:8420", "[::1]:8420", "unix:PATH" */
};

struct pry_activation {
  struct pry_activated_socket gateway, admin;
};

/* True also when nothing was passed to us (both fds are -1). False: `error` says what, where and what to do: the
 * configuration is refused (exit 78). The descriptors stay open until the process ends, then. */
bool pry_activation_take(struct pry_activation *activation, char *error, size_t error_size);

#endif
