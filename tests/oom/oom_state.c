/* What is kept under --state, the lock of its folder, the service manager and the watcher, with each allocation and
 * each system call failing: the old file or the new one stays, never half of one, and nothing is left open. */
#include "activation.h"
#include "fail.h"
#include "keeper.h"
#include "last_good.h"
#include "quarantine.h"
#include "service_manager.h"
#include "state_lock.h"
#include "watcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static struct pry_policy_set *make_set(const char *text)
{
  struct pry_policy_set *set = pry_policy_set_new();
  bool ok = set && pry_policy_set_add(set, "init.lua", pry_slice_of(text)) &&
            pry_policy_set_add(set, "lib/backoff.lua", PRY_SLICE("return {}")) && pry_policy_set_seal(set);
  if (ok)
    return set;
  pry_policy_set_free(set);
  return NULL;
}

static void begin(void)
{
  fail_quiet();
  bool in_memory = access("/dev/shm", W_OK) == 0; /* nothing here is about waiting for the disk */
  snprintf(folder, sizeof folder, "%s/parry-oom-state-XXXXXX", in_memory ? "/dev/shm" : "/tmp");
  FAIL_CHECK(mkdtemp(folder));
  fail_loud();
}

static void end(void)
{
  char command[128];
  fail_quiet();
  snprintf(command, sizeof command, "rm -rf %s", folder);
  FAIL_CHECK(system(command) == 0);
  fail_loud();
}

/* The set on disk when everything works; it is one of the two. */
static void check_last_good(const struct pry_policy_set *old, const struct pry_policy_set *new, bool written)
{
  char why[PRY_STATE_WHY_MAX] = "";
  struct pry_last_good good;
  fail_quiet();
  FAIL_CHECK(pry_last_good_read(folder, &good, why) == PRY_STATE_READ);
  bool is_new = strcmp(good.set->id, new->id) == 0;
  FAIL_CHECK(is_new || (!written && strcmp(good.set->id, old->id) == 0));
  pry_policy_set_free(good.set);
  fail_loud();
}

static void use_last_good(void)
{
  char why[PRY_STATE_WHY_MAX] = "";
  struct pry_last_good good;
  begin();
  fail_quiet();
  struct pry_policy_set *old = make_set("old"), *new = make_set("new");
  FAIL_CHECK(old && new &&pry_last_good_write(folder, old, 1, why));
  fail_loud();
  why[0] = '\0';
  bool written = pry_last_good_write(folder, new, 2, why);
  FAIL_CHECK(written || why[0]);
  check_last_good(old, new, written);
  why[0] = '\0';
  enum pry_state_result result = pry_last_good_read(folder, &good, why);
  FAIL_CHECK((result == PRY_STATE_READ) == (good.set != NULL));
  FAIL_CHECK(result == PRY_STATE_READ || why[0]);
  fail_over();
  pry_policy_set_free(good.set);
  FAIL_CHECK(pry_last_good_write(folder, new, 2, why));
  check_last_good(old, new, true);
  pry_policy_set_free(old);
  pry_policy_set_free(new);
  end();
}

static void use_quarantine(void)
{
  char why[PRY_STATE_WHY_MAX] = "";
  struct pry_quarantine written = {0}, got;
  struct pry_quarantined set = {.at = 1, .faults = 20, .runs = 100, .first_fault = "retry.lua:1: no"};
  begin();
  memset(set.id, 'a', sizeof set.id - 1);
  pry_quarantine_add(&written, &set);
  bool ok = pry_quarantine_write(folder, &written, why);
  FAIL_CHECK(ok || why[0]);
  why[0] = '\0';
  bool is_read = pry_quarantine_read(folder, &got, why);
  FAIL_CHECK(is_read ? got.count == 1 || !ok : got.count == 0 && why[0]);
  fail_over();
  FAIL_CHECK(pry_quarantine_write(folder, &written, why) && pry_quarantine_read(folder, &got, why));
  FAIL_CHECK(pry_quarantine_find(&got, set.id));
  end();
}

/* ---- the keeper --------------------------------------------------------------------------------------------------- */

static _Atomic unsigned complaints; /* lines the keeper logged */

static void take_line(void *user, enum pry_log_level level, const char *line, size_t size)
{
  (void)user, (void)level, (void)size;
  complaints += strstr(line, "not written") != NULL;
}

static double no_time(void *user)
{
  (void)user;
  return 1e9;
}

static struct pry_generation *make_generation(const char *text)
{
  struct pry_arena arena;
  pry_arena_init(&arena, 0);
  struct pry_config *config = pry_arena_take(&arena, sizeof *config);
  FAIL_CHECK(config);
  config->arena = arena;
  struct pry_generation *generation = pry_generation_new(make_set(text), config);
  FAIL_CHECK(generation);
  return generation;
}

static void keep(struct pry_keeper *keeper, struct pry_generation *generation)
{
  struct pry_quarantined bad = {.at = 1, .faults = 20, .runs = 100, .first_fault = "retry.lua:1: no"};
  memset(bad.id, 'a', sizeof bad.id - 1);
  pry_keeper_keep_out(keeper, &bad);
  pry_keeper_serves(keeper, generation, 2);
}

/* What is on disk is the old or the new, and the new when nobody complained; what is asked for later is written. */
static void use_keeper(void)
{
  char why[PRY_STATE_WHY_MAX];
  begin();
  fail_hold();
  struct pry_generation *old = make_generation("old"), *new = make_generation("new");
  FAIL_CHECK(pry_last_good_write(folder, old->set, 1, why));
  complaints = 0;
  fail_go();
  struct pry_log *log = pry_log_new(take_line, NULL, PRY_LOG_INFO, no_time, NULL);
  struct pry_keeper *keeper = pry_keeper_new(folder, log);
  if (keeper)
    keep(keeper, new);
  pry_keeper_free(keeper); /* has written */
  fail_over();
  bool deaf = !log || (fail_memory() && fail_for_good()); /* a line of the log, too, needs memory */
  check_last_good(old->set, new->set, keeper && !deaf && !complaints);
  keeper = pry_keeper_new(folder, log);
  FAIL_CHECK(keeper);
  keep(keeper, new);
  pry_keeper_free(keeper);
  check_last_good(old->set, new->set, true);
  keeper = pry_keeper_new(folder, log);
  FAIL_CHECK(keeper && pry_keeper_quarantine(keeper)->count == 1);
  pry_keeper_free(keeper);
  pry_log_free(log);
  pry_generation_unref(old);
  pry_generation_unref(new);
  end();
}

/* ---- what a service manager gives ----------------------------------------------------------------------------------- */

/* A socket is taken, or refused with words; the environment says nothing of it afterwards. */
static void use_activation(void)
{
  static char pid[32], count[] = "LISTEN_FDS=1", names[] = "LISTEN_FDNAMES=gateway";
  struct pry_activation activation;
  char error[512] = "";
  fail_quiet();
  int other = dup(3), listener = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr address = {.sa_family = AF_UNIX};
  FAIL_CHECK(listener >= 0 && bind(listener, &address, sizeof address.sa_family) == 0 && listen(listener, 1) == 0);
  FAIL_CHECK(dup2(listener, 3) == 3);
  snprintf(pid, sizeof pid, "LISTEN_PID=%ld", (long)getpid());
  FAIL_CHECK(putenv(pid) == 0 && putenv(count) == 0 && putenv(names) == 0);
  fail_loud();
  bool ok = pry_activation_take(&activation, error, sizeof error);
  FAIL_CHECK(ok ? activation.gateway.fd == 3 && strncmp(activation.gateway.address, "unix:", 5) == 0 : error[0]);
  FAIL_CHECK(ok || fail_struck());
  FAIL_CHECK(!getenv("LISTEN_PID") && !getenv("LISTEN_FDS") && !getenv("LISTEN_FDNAMES"));
  fail_quiet();
  if (listener != 3)
    close(listener);
  if (other >= 0)
    dup2(other, 3), close(other);
  else
    close(3);
  fail_loud();
}

static void use_lock(void)
{
  struct pry_state_lock lock;
  bool in_use;
  char error[512] = "";
  begin();
  bool taken = pry_state_lock_take(&lock, folder, &in_use, error, sizeof error);
  FAIL_CHECK(taken == (lock.fd >= 0) && (taken || error[0]) && !in_use);
  pry_state_lock_release(&lock);
  fail_over();
  FAIL_CHECK(pry_state_lock_take(&lock, folder, &in_use, error, sizeof error));
  pry_state_lock_release(&lock);
  end();
}

static void use_service_manager(void)
{
  static char name[] = "NOTIFY_SOCKET=@parry-oom-nobody-listens"; /* setenv() would keep a copy for ever */
  struct pry_service_manager manager;
  fail_quiet();
  FAIL_CHECK(putenv(name) == 0);
  fail_loud();
  pry_service_manager_init(&manager, NULL);
  pry_service_manager_ready(&manager, "serving");
  pry_service_manager_reloading(&manager);
  pry_service_manager_stopping(&manager, PRY_SECOND);
  pry_service_manager_fini(&manager);
}

static void changed(void *user)
{
  (*(unsigned *)user)++;
}

/* Whatever failed before, the next renewal that works watches everything. */
static void use_watcher(void)
{
  char command[256], policies[96];
  unsigned told = 0;
  begin();
  fail_quiet();
  snprintf(policies, sizeof policies, "%s/policies", folder);
  snprintf(command, sizeof command,
           "cd %s && mkdir -p policies/lib && touch shared.lua && ln -s ../shared.lua policies", folder);
  FAIL_CHECK(system(command) == 0);
  fail_loud();
  struct pry_loop *loop = pry_loop_new();
  struct pry_watcher *watcher = loop ? pry_watcher_new(loop, changed, &told) : NULL;
  if (watcher) {
    pry_watcher_renew(watcher, policies);
    pry_watcher_renew(watcher, policies);
    fail_over();
    FAIL_CHECK(pry_watcher_renew(watcher, policies));
    FAIL_CHECK(!*pry_watcher_complaint(watcher));
    fail_quiet();
    snprintf(command, sizeof command, "echo x > %s/shared.lua", folder);
    FAIL_CHECK(system(command) == 0);
    fail_loud();
    pry_loop_turn(loop, PRY_SECOND);
    FAIL_CHECK(told > 0);
  }
  pry_watcher_free(watcher);
  pry_loop_free(loop);
  end();
}

int main(void)
{
  static const struct fail_scenario scenarios[] = {
      {"last good", use_last_good, FAIL_BOTH, 0},
      {"quarantine", use_quarantine, FAIL_BOTH, 0},
      {"keeper", use_keeper, FAIL_BOTH, 0},
      {"keeper, its thread", use_keeper, FAIL_BOTH | FAIL_IN_THREAD(1), 0},
      {"activation", use_activation, FAIL_BOTH, 0},
      {"state lock", use_lock, FAIL_BOTH, 0},
      {"service manager", use_service_manager, FAIL_BOTH, 0},
      {"watcher", use_watcher, FAIL_BOTH, 0},
  };
  return fail_main(scenarios, sizeof scenarios / sizeof *scenarios);
}
