/*
 * program.h: one running parry: everything `parry serve` and `parry demo` start, and how it ends.
 *
 * Puts together, on a loop of the caller (the control worker's, worker.h): the log, the HTTP client, the engine, the first generation, the gateway, the
 * admin listener, the reloader and the signals. Ends by SIGTERM or SIGINT: not ready any more, nothing new is accepted,
 * open calls may finish within the drain timeout; a second signal ends at once. SIGHUP looks at the policies now.
 *
 * Sockets passed by a service manager (activation.h) take the place of --listen and of the admin address. With a
 * certificate the gateway speaks TLS; SIGHUP and every reload that is asked for read the files again.
 *
 * With a state folder (locked: one program each) the last good policies and what was rolled back outlive the process: when
 * the policies on disk are refused at the start, or are what was rolled back, the last good ones serve, and the log says
 * so as an error. Started by systemd it says when it is ready, reloading, stopping and alive (service_manager.h).
 *
 * Thread: the loop's. One per process (signals).
 */
#ifndef PRY_PROGRAM_H
#define PRY_PROGRAM_H

#include "admin.h"
#include "engine.h"
#include "gateway.h"
#include "reloader.h"

struct pry_program;

struct pry_program_options {
  struct pry_loop *loop;            /* borrowed */
  const char *policies;             /* folder; this and all other text: borrowed while the program lives */
  const char *shipped;              /* for what that folder lacks (shipped.h); NULL: nothing */
  const char *listen;               /* of the gateway; beyond loopback only when the policies declare clients */
  const char *listen_else;          /* tried when `listen` is taken; NULL: nothing */
  struct pry_text_list allow_hosts; /* globs of names that a gateway without client keys answers to (edge.h) */
  struct pry_text_list probe_hosts; /* "HOST:PORT" that http.probe may ask although they are not public */
  const char *admin;                /* "unix:PATH" or "ADDR:PORT" */
  const char *admin_token;          /* for an admin listener on TCP */
  const char *state_dir;            /* made when missing (0700); NULL: none */
  struct pry_script_limits limits;
  unsigned workers;                     /* threads that serve; 0: as many as this process has processors */
  const char *tls_cert, *tls_key;       /* PEM files of the gateway's TLS; NULL: plain */
  unsigned max_connections;             /* of clients, all workers together; 0: 10000 */
  unsigned max_connections_per_address; /* loopback and unix sockets apart; 0: no limit */
  bool watch;                           /* look for saved policies by itself */
  double drain_timeout;                 /* seconds for open calls at the end */
  double drain_delay; /* seconds not ready and still accepting before that, for whoever polls /readyz */
  size_t max_body;    /* bytes of a client's body; 0: the engine's default */
  pry_log_fn log;     /* where log lines go, with log_user */
  void *log_user;
  enum pry_log_level log_level;
  const struct pry_loader *loader;
  void (*reloaded)(void *user, const struct pry_reload_outcome *outcome); /* may be NULL */
  void *user;
};

enum pry_program_failure {
  PRY_PROGRAM_STARTED,
  PRY_PROGRAM_REFUSED, /* the configuration is at fault: policies, addresses, tokens (exit 78) */
  PRY_PROGRAM_FAILED   /* the machine is: an address in use, memory, descriptors (exit 1) */
};

/* Everything up and serving, or NULL: *failure says which kind, `problem` what, where and what to do; for refused
 * policies it holds the report. */
struct pry_program *pry_program_new(const struct pry_program_options *options, enum pry_program_failure *failure,
                                    struct pry_buffer *problem);

/* Turns the loop until the program.has been told to end and has drained. */
void pry_program_run(struct pry_program *program);

/* Begins the end, as SIGTERM does; the second time ends at once. */
void pry_program_drain(struct pry_program *program);

/* Cancels what is open. NULL is fine. */
void pry_program_free(struct pry_program *program);

struct pry_engine *pry_program_engine(const struct pry_program *program);
struct pry_http *pry_program_http(const struct pry_program *program);
const char *pry_program_address(const struct pry_program *program); /* the gateway's */
const char *pry_program_admin_address(const struct pry_program *program);

/* Unix seconds on the program's loop; for a log of the caller's own. `user` is the program. */
double pry_program_clock(void *user);

/* True for numeric loopback addresses with a port, "localhost:PORT", and unix sockets. */
bool pry_address_is_loopback(const char *address);

#endif
