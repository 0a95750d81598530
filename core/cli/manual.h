/*
 * manual.h: the manual pages, in man(7), made of the texts that --help prints.
 *
 * There is no other copy of them. `parry help --man` writes parry(1) from the tables below, `parry help --man COMMAND`
 * writes parry-COMMAND(1) from that command's option table; the build runs both for every command.
 *
 * What an author of a `doc` or `after` text must know: paragraphs are separated by an empty line and are filled anew;
 * lines that begin with a space stay as they are. In `after`, "exit codes:", "signals:", "example:" and "see also:" at
 * the beginning of a line begin sections of their own (exit codes are "N text" separated by "; "); everything else
 * stays as it is, line by line.
 *
 * Pages go to stdout; main() checks that it took them.
 */
#ifndef PRY_MANUAL_H
#define PRY_MANUAL_H

#include "options.h"

#define PRY_MANUAL_ABOUT "A gateway in front of LLM providers whose handling of failures is written in Lua."

/* X(variable, what it is for) */
#define PRY_MANUAL_ENVIRONMENT(X)                                                                                      \
  X("PARRY_ADMIN", "where commands find the running parry: unix:PATH or ADDR:PORT; --admin wins")                      \
  X("PARRY_ADMIN_TOKEN", "the token for an admin address on TCP; --admin-token-file wins")                             \
  X("PARRY_SHARE", "the folder of the policies that came with parry, if they are not where they were installed")       \
  X("NAME", "the value of secret \"NAME\" in init.lua, unless a file holds it: NAME in CREDENTIALS_DIRECTORY, "        \
            "/run/secrets/NAME, or the file that NAME_FILE names")                                                     \
  X("XDG_RUNTIME_DIR", "below it is the admin socket of users other than root")                                        \
  X("NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS", "how parry serve speaks with the service manager: readiness, "         \
                                                "watchdog, sockets opened for it")

/* X(path, what it is) */
#define PRY_MANUAL_FILES(X)                                                                                            \
  X("./policies, /etc/parry/policies", "the policies, where no folder is named: the first of these that exists")       \
  X("init.lua", "in that folder: providers, routes, and which policies they use")                                      \
  X("../share/parry/policies", "seen from the program: the policies that came with it, and their guide, README.md")    \
  X("/run/parry/admin.sock", "the admin socket of a parry that root or systemd runs")                                  \
  X("$XDG_RUNTIME_DIR/parry/admin.sock, /tmp/parry-UID/admin.sock", "the same for other users")

/* parry(1). */
void pry_manual_print_program(void);

/* The page of the command that `line` describes: its usage begins with "parry NAME". */
void pry_manual_print_command(const struct pry_command_line *line);

#endif
