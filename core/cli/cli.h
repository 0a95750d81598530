/*
 * cli.h: the commands of the `parry` program.
 *
 * One cmd_<name>.c per command. argv[0] is the command's own name, so that a command parses its arguments as if it
 * were a program. Data goes to stdout, words to stderr. The result is the exit code.
 */
#ifndef PRY_CLI_H
#define PRY_CLI_H

/* X(name, exit code of all commands (CONTRACT), what it means) */
#define PRY_EXITS(X)                                                                                                   \
  X(OK, 0, "done, or ended as told")                                                                                   \
  X(FINDINGS, 1, "findings, failed tests, a refused reload, or something that failed while running")                   \
  X(USAGE, 2, "the command line cannot be used")                                                                       \
  X(UNREACHABLE, 3, "no running parry at the admin address")                                                           \
  X(CONFIG, 78, "the configuration was refused at start (EX_CONFIG of sysexits.h)")

enum pry_exit {
#define X(name, value, doc) PRY_EXIT_##name = value,
  PRY_EXITS(X)
#undef X
};

/* X(function suffix and name on the command line, one line for `parry --help`) */
#define PRY_COMMANDS(X)                                                                                                \
  X(serve, "run the gateway in front of LLM providers")                                                                \
  X(demo, "watch simulated providers fail and calls recover; no key needed")                                           \
  X(check, "say whether a folder of policies would be taken over")                                                     \
  X(test, "run the policies' own tests in virtual time")                                                               \
  X(reload, "have the running parry take over its policies from disk now")                                             \
  X(rollback, "have the running parry serve the policies it served before")                                            \
  X(status, "show what the running parry serves and how it is doing")                                                  \
  X(errors, "show the last failed attempts and what they have in common")                                              \
  X(health, "ask the providers whether they work: connectivity, auth, model")                                          \
  X(chaos, "fail calls on purpose for a while: arm, show and end experiments")                                         \
  X(alert, "try a sink of alerts, or show which alerts are open")                                                      \
  X(client, "make, show and take back the keys of the gateway's clients")                                              \
  X(classify, "say what each failure on stdin is, in parry's words")                                                   \
  X(sse, "say what parry sees in each recorded event stream on stdin")                                                 \
  X(sim, "run a provider that fails on command")                                                                       \
  X(version, "print the version")

#define X(name, doc) int pry_cmd_##name(int argc, char **argv);
PRY_COMMANDS(X)
#undef X

#endif
