/*
 * registry.h: generations: staged, checked, taken over, kept for rollback.
 *
 * A generation is one immutable set of policy files, named by its content hash. The registry stages a folder (reads
 * the whole set once), has it checked and loaded by the binding, has each worker warm its own state, and then
 * commits with one pointer. Whatever fails on the way leaves the serving generation as it was and gives a report.
 * The last PRY_GENERATIONS_KEPT file sets stay in memory.
 *
 * Thread: staging on any, commit on the control worker's (engine.h); a generation itself is immutable and counted, its
 * counters apart.
 */
#ifndef PRY_REGISTRY_H
#define PRY_REGISTRY_H

#include "config.h"
#include "parry.h"
#include "policy.h"

#include <stdatomic.h>

enum {
  PRY_GENERATIONS_KEPT = 5,
  PRY_TALLIES = 16,
  PRY_POLICY_FILE_MAX = 1024 * 1024,
  PRY_POLICY_FILES_MAX = 512,
  PRY_POLICY_SET_MAX = 16 * 1024 * 1024
};

/* One file of a set: path relative to the folder ("retry.lua", "lib/backoff.lua"). */
struct pry_policy_file {
  char *path;
  char *text; /* NUL after `size` bytes */
  size_t size;
  unsigned tests;                /* of a test file: how many it has, once they have passed; as `compiled` */
  struct pry_compiled *compiled; /* set while the set is staged, by the one who stages it; NULL: not compiled */
};

/* What the binding made of a file's text, for those who load it again: a state for each worker, one for each policy test.
 * Immutable, shared by sets of the same text; never written anywhere and never read from anywhere. */
struct pry_compiled {
  atomic_uint references;
  size_t size;
  char bytes[];
};

/* With one reference. NULL: no memory. */
struct pry_compiled *pry_compiled_new(struct pry_slice bytes);
struct pry_compiled *pry_compiled_ref(struct pry_compiled *compiled); /* NULL is fine */
void pry_compiled_unref(struct pry_compiled *compiled);               /* NULL is fine */

/* A whole set as read from disk once. */
struct pry_policy_set {
  struct pry_policy_file *files; /* sorted by path, bytewise */
  size_t count;
  char id[PRY_GENERATION_ID_MAX]; /* SHA-256 over names and bytes, hex; shown as its first 7 */
};

/* Reads every *.lua below `folder` (symlinks followed, names that begin with "." skipped), and what it lacks from the
 * folder `shipped` (shipped.h; NULL: nothing). NULL: `report` says which file and why; also when there is no init.lua. */
struct pry_policy_set *pry_policy_set_read(const char *folder, const char *shipped, struct pry_buffer *report);
/* The same without an init.lua, and without more. */
struct pry_policy_set *pry_policy_set_read_any(const char *folder, struct pry_buffer *report);
/* A set of an init.lua that is a text, and what it needs of the shipped ones. */
struct pry_policy_set *pry_policy_set_from_text(const char *init, const char *shipped, struct pry_buffer *report);
/* From memory, for tests and the binding's test runner; everything is copied. */
struct pry_policy_set *pry_policy_set_new(void);
bool pry_policy_set_add(struct pry_policy_set *set, const char *path, struct pry_slice text);
/* The same file as in another set; shares what was compiled of it. */
bool pry_policy_set_add_file(struct pry_policy_set *set, const struct pry_policy_file *file);
/* Takes over what was compiled of the files that are the same in `other`. Both are sealed, and nobody stages `other`. */
void pry_policy_set_share(struct pry_policy_set *set, const struct pry_policy_set *other);
/* Sorts and names the set; after the last add. False: memory, or the same path twice. */
bool pry_policy_set_seal(struct pry_policy_set *set);
void pry_policy_set_free(struct pry_policy_set *set);
const struct pry_policy_file *pry_policy_set_find(const struct pry_policy_set *set, const char *path);

/* What one worker's handlers did; workers count apart, so that they do not wait for each other's cache line. */
struct pry_tally {
  atomic_ulong runs, faults;
  char apart[64 - 2 * sizeof(atomic_ulong)];
};

struct pry_generation {
  const char *id; /* the set's */
  struct pry_policy_set *set;
  struct pry_config *config;
  double loaded_at;         /* Unix seconds */
  unsigned policies, tests; /* for people: how many files declared a policy, how many tests it has passed */
  bool tested;              /* every test that is needed for what it uses has passed, for it or for one before it */
  atomic_uint references;
  atomic_uint live_states;               /* warmed by a rollout and not freed */
  struct pry_tally tallies[PRY_TALLIES]; /* by worker, modulo their number */
};

struct pry_generation *pry_generation_new(struct pry_policy_set *set, struct pry_config *config); /* takes both */

/* On any thread, by whoever has a reference. The last to let go frees it there. */
void pry_generation_ref(struct pry_generation *generation);
void pry_generation_unref(struct pry_generation *generation); /* NULL is fine */

/* Kinds of finding a load can report. Each is one line of the report: "retry.lua:12: max_attempts must be …". */
enum pry_severity { PRY_FINDING_WARNING, PRY_FINDING_ERROR };

struct pry_finding {
  enum pry_severity severity;
  char where[160]; /* "retry.lua:12", or "retry.lua", or "init.lua" */
  char what[512];
};

/* What loading said. Bounded: at most 100 findings, the rest counted. */
struct pry_report {
  struct pry_finding *findings;
  size_t count, capacity, more;
  unsigned errors;
  unsigned tests_passed, tests_failed;
  const atomic_bool *unwanted; /* set by another thread: nobody waits for it, so run no further test; NULL: never */
};

void pry_report_init(struct pry_report *report);
void pry_report_fini(struct pry_report *report);
void pry_report_add(struct pry_report *report, enum pry_severity severity, const char *where, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Appends "where: what" lines, errors first. */
bool pry_report_text(const struct pry_report *report, struct pry_buffer *text);

/* What loading and running is bounded by and given. Budgets of DESIGN §6; 0 takes the default. */
struct pry_script_limits {
  unsigned long instructions;         /* per run of a handler; 1,000,000 */
  double wall;                        /* seconds per run; 0.05; negative: no wall limit (sanitizers, tests) */
  size_t memory;                      /* bytes per state; 8 MiB */
  size_t verdict;                     /* bytes of one verdict; 64 KiB */
  const struct parry_header *secrets; /* a host's, found before files and environment are searched; borrowed */
  size_t secret_count;
};

/* What the binding implements for the registry (bindings/lua/loader.h has it). */
struct pry_loader {
  /* Compiles, declares and validates a whole set in a fresh inert state. NULL: report->errors > 0. The set is taken
   * on success only. */
  struct pry_generation *(*load)(struct pry_policy_set *set, const struct pry_script_limits *limits,
                                 struct pry_report *report);
  /* Runs those of the set's own *_test.lua that a take-over needs (retest.h), in virtual time, and counts them in the
   * generation. proven: what serves, may be NULL. True: all passed. False also when the report became unwanted meanwhile. */
  bool (*test)(struct pry_generation *generation, const struct pry_generation *proven,
               const struct pry_script_limits *limits, struct pry_report *report);
  /* One worker's state of a generation; a reference to the generation is taken. NULL: report says why. */
  struct pry_state *(*warm)(struct pry_generation *generation, struct pry_worker *worker,
                            const struct pry_script_limits *limits, struct pry_report *report);
};

#endif
