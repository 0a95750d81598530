/* The watcher against what really happens to folders: each trap must be noticed, and the next edit after it, too.
 *
 * The kernel queues an event before the call that causes it returns, so one turn of the loop shows whether it was
 * noticed, and nothing has to be waited for. What is noticed is read again with the reader that reload uses. */
#include "watcher.h"

#include "registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a limit of watches, as long as a test wants one ---------------------------------------------------------- */

static long watches_left = -1; /* -1: no limit but the kernel's */

int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
  if (watches_left == 0) {
    errno = ENOSPC;
    return -1;
  }
  watches_left -= watches_left > 0;
  return (int)syscall(SYS_inotify_add_watch, fd, path, mask);
}

/* ---- a watched folder ------------------------------------------------------------------------------------------ */

struct rig {
  char base[32];    /* made by mkdtemp */
  char folder[128]; /* what the watcher is given */
  struct pry_loop *loop;
  struct pry_watcher *watcher;
  unsigned told;
  char id[PRY_GENERATION_ID_MAX]; /* at the last look; "" unreadable */
};

static struct rig rig;

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void run(const char *format, ...)
{
  char command[1024], in_base[1200];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(command, sizeof command, format, arguments);
  va_end(arguments);
  snprintf(in_base, sizeof in_base, "cd %s && %s", rig.base, command);
  assert_int_equal(system(in_base), 0);
}

static void changed(void *user)
{
  ((struct rig *)user)->told++;
}

static void turn(void)
{
  pry_loop_turn(rig.loop, 0);
}

/* What a reload does: watches first, then the contents. */
static bool look(void)
{
  struct pry_buffer report;
  pry_buffer_init(&report, 0);
  bool complete = pry_watcher_renew(rig.watcher, rig.folder);
  struct pry_policy_set *set = pry_policy_set_read(rig.folder, NULL, &report);
  snprintf(rig.id, sizeof rig.id, "%s", set ? set->id : "");
  pry_policy_set_free(set);
  pry_buffer_fini(&report);
  turn();
  rig.told = 0;
  return complete;
}

static void watch_folder(const char *name)
{
  snprintf(rig.folder, sizeof rig.folder, "%s/%s", rig.base, name);
  assert_true(look());
  assert_true(rig.id[0]);
}

static int setup(void **unused)
{
  (void)unused;
  watches_left = -1;
  rig = (struct rig){.base = "/tmp/parry-watcher-XXXXXX"};
  assert_non_null(mkdtemp(rig.base));
  rig.loop = pry_loop_new();
  assert_non_null(rig.loop);
  rig.watcher = pry_watcher_new(rig.loop, changed, &rig);
  assert_non_null(rig.watcher);
  return 0;
}

static int teardown(void **unused)
{
  (void)unused;
  pry_watcher_free(rig.watcher);
  pry_loop_free(rig.loop);
  watches_left = -1;
  char command[128];
  snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", rig.base, rig.base);
  return system(command);
}

#define assert_noticed() assert_noticed_at(__LINE__)
#define assert_unnoticed() assert_unnoticed_at(__LINE__)

/* Something was told, and what is there now is not what was there before. */
static void assert_noticed_at(int line)
{
  char before[PRY_GENERATION_ID_MAX];
  memcpy(before, rig.id, sizeof before);
  turn();
  if (!rig.told)
    fail_msg("line %d: nothing was noticed", line);
  look();
  if (strcmp(before, rig.id) == 0)
    fail_msg("line %d: the contents are the same", line);
}

static void assert_unnoticed_at(int line)
{
  turn();
  if (rig.told)
    fail_msg("line %d: noise was taken for a change", line);
}

/* A folder of policies that says `word`. */
static void fill(const char *name, const char *word)
{
  run("mkdir -p %s/lib && echo init > %s/init.lua && echo %s > %s/retry.lua && echo lib > %s/lib/backoff.lua", name,
      name, word, name, name);
}

/* The watches still live after whatever happened: on files of the folder and of those below. */
static void assert_alive(void)
{
  static unsigned edits;
  run("echo %u > %s/retry.lua", ++edits, rig.folder);
  assert_noticed();
  run("echo %u > %s/lib/backoff.lua", ++edits, rig.folder);
  assert_noticed();
}

/* ---- symlinks ---------------------------------------------------------------------------------------------------- */

static void make_config_map(int version)
{
  char name[64];
  snprintf(name, sizeof name, "policies/..%d", version);
  fill(name, "v");
  run("echo %d > %s/lib/backoff.lua && ln -s ..%d policies/..data_tmp && mv -T policies/..data_tmp policies/..data",
      version, name, version);
}

/* A file watch, or a watch on lib/, fires once and is dead; a watch on the top sees only `..data`. */
static void a_config_map_is_swapped(void **unused)
{
  (void)unused;
  make_config_map(0);
  run("cd policies && ln -s ..data/init.lua . && ln -s ..data/retry.lua . && ln -s ..data/lib .");
  watch_folder("policies");
  for (int version = 1; version < 5; version++) {
    make_config_map(version);
    assert_noticed();
    run("rm -rf policies/..%d", version - 1); /* the kubelet's last step must not take the new watches along */
    look();
    run("echo %d > policies/..%d/lib/backoff.lua", version + 100, version);
    assert_noticed();
  }
}

static void the_folder_is_a_link_that_moves(void **unused)
{
  (void)unused;
  fill("r1", "one");
  fill("r2", "two");
  run("ln -s r1 current");
  watch_folder("current");
  run("ln -s r2 next && mv -T next current");
  assert_noticed();
  assert_alive();
}

static void a_link_in_the_middle_moves(void **unused)
{
  (void)unused;
  fill("r1/etc/policies", "one");
  fill("r2/etc/policies", "two");
  run("ln -s r1 current && ln -s current/etc/policies policies");
  watch_folder("policies");
  run("ln -s r2 next && mv -T next current");
  assert_noticed();
  assert_alive();
}

static void a_link_that_leads_nowhere_yet(void **unused)
{
  (void)unused;
  fill("r1", "one");
  run("ln -s r1 current");
  watch_folder("current");
  run("ln -s later/policies next && mv -T next current");
  assert_noticed();
  assert_string_equal(rig.id, "");
  run("mkdir later"); /* step by step: each must be waited for anew */
  turn();
  assert_true(rig.told > 0);
  look();
  fill("later/policies", "two");
  assert_noticed();
  assert_alive();
}

/* `lib` is reached over a link that is not in the folder itself. */
static void a_link_outside_of_the_folder_moves(void **unused)
{
  (void)unused;
  fill("policies", "one");
  run("mkdir -p r1/lib r2/lib && echo one > r1/lib/shared.lua && echo two > r2/lib/shared.lua && ln -s r1 current && "
      "ln -s ../current/lib policies/shared");
  watch_folder("policies");
  run("ln -s r2 next && mv -T next current");
  assert_noticed();
  run("echo three > r2/lib/shared.lua");
  assert_noticed();
}

/* A file that is a link: its target is edited in its own place, in place or by rename. */
static void the_target_of_a_linked_file_is_edited(void **unused)
{
  (void)unused;
  fill("policies", "one");
  run("mkdir shared && echo one > shared/common.lua && ln -s ../shared/common.lua policies/common.lua");
  watch_folder("policies");
  for (int round = 0; round < 3; round++) {
    run("echo in place %d > shared/common.lua", round);
    assert_noticed();
    run("echo renamed %d > shared/.common.tmp && mv shared/.common.tmp shared/common.lua", round);
    assert_noticed();
  }
}

static void a_linked_file_comes_later(void **unused)
{
  (void)unused;
  fill("policies", "one");
  run("ln -s ../shared/common.lua policies/common.lua");
  watch_folder("policies");
  run("mkdir shared");
  turn();
  assert_true(rig.told > 0);
  look();
  run("echo one > shared/common.lua");
  assert_noticed();
  run("echo two > shared/common.lua");
  assert_noticed();
}

static void links_in_a_circle_end(void **unused)
{
  (void)unused;
  fill("policies", "one");
  run("ln -s a policies/b.lua && ln -s b.lua policies/a && ln -s .. policies/.up");
  snprintf(rig.folder, sizeof rig.folder, "%s/policies", rig.base);
  pry_watcher_renew(rig.watcher, rig.folder);
  run("echo two > policies/retry.lua");
  turn();
  assert_true(rig.told > 0);
}

/* ---- folders that go and come ------------------------------------------------------------------------------------- */

static void the_folder_is_removed_and_made_again(void **unused)
{
  (void)unused;
  fill("policies", "one");
  watch_folder("policies");
  for (int round = 0; round < 3; round++) {
    char word[16];
    snprintf(word, sizeof word, "%d", round);
    run("rm -r policies");
    assert_noticed();
    assert_string_equal(rig.id, "");
    fill("policies", word);
    assert_noticed();
    assert_alive();
  }
}

static void everything_above_is_removed_and_made_again(void **unused)
{
  (void)unused;
  fill("a/b/c/policies", "one");
  watch_folder("a/b/c/policies");
  run("rm -r a");
  assert_noticed();
  assert_string_equal(rig.id, "");
  run("mkdir a");
  turn();
  assert_true(rig.told > 0);
  look();
  fill("a/b/c/policies", "two");
  assert_noticed();
  assert_alive();
}

static void the_folder_is_swapped_by_two_renames(void **unused)
{
  (void)unused;
  fill("policies", "one");
  fill("next", "two");
  watch_folder("policies");
  run("mv policies old && mv next policies");
  assert_noticed();
  assert_alive();
}

static void the_folder_is_exchanged_in_one_step(void **unused)
{
  (void)unused;
  char next[64];
  fill("policies", "one");
  fill("next", "two");
  watch_folder("policies");
  snprintf(next, sizeof next, "%s/next", rig.base);
  assert_int_equal(renameat2(AT_FDCWD, next, AT_FDCWD, rig.folder, RENAME_EXCHANGE), 0);
  assert_noticed();
  assert_alive();
  run("echo old one > next/retry.lua");
  assert_unnoticed(); /* what was exchanged away is nobody's business */
}

/* A release folder is swapped, and nothing happens to the policies in it. */
static void a_folder_above_is_swapped_by_renames(void **unused)
{
  (void)unused;
  fill("app/etc/policies", "one");
  fill("next/etc/policies", "two");
  watch_folder("app/etc/policies");
  run("mv app old && mv next app");
  assert_noticed();
  assert_alive();
}

static void a_folder_above_is_exchanged_in_one_step(void **unused)
{
  (void)unused;
  char app[64], next[64];
  fill("app/etc/policies", "one");
  fill("next/etc/policies", "two");
  watch_folder("app/etc/policies");
  snprintf(app, sizeof app, "%s/app", rig.base);
  snprintf(next, sizeof next, "%s/next", rig.base);
  assert_int_equal(renameat2(AT_FDCWD, next, AT_FDCWD, app, RENAME_EXCHANGE), 0);
  assert_noticed();
  assert_alive();
}

static void a_relative_folder_is_swapped(void **unused)
{
  (void)unused;
  fill("policies", "one");
  fill("next", "two");
  assert_int_equal(chdir(rig.base), 0);
  snprintf(rig.folder, sizeof rig.folder, "policies");
  assert_true(look());
  run("mv policies old && mv next policies");
  assert_noticed();
  assert_alive();
  run("rm -r policies");
  assert_noticed();
  fill("policies", "three");
  assert_noticed();
  assert_int_equal(chdir("/"), 0);
}

static void folders_eight_deep_are_watched(void **unused)
{
  (void)unused;
  fill("policies", "one");
  run("mkdir -p policies/1/2/3/4/5/6/7/8 && echo one > policies/1/2/3/4/5/6/7/8/deep.lua");
  watch_folder("policies");
  run("echo two > policies/1/2/3/4/5/6/7/8/deep.lua");
  assert_noticed();
  run("mv policies/1/2 policies/1/zwei");
  assert_noticed();
  run("echo three > policies/1/zwei/3/4/5/6/7/8/deep.lua");
  assert_noticed();
}

/* Made and filled in one go, before anybody could watch it. */
static void a_tree_appears_at_once(void **unused)
{
  (void)unused;
  fill("policies", "one");
  watch_folder("policies");
  run("mkdir -p tree/x/y && echo one > tree/x/y/z.lua && mv tree policies/");
  assert_noticed();
  run("echo two > policies/tree/x/y/z.lua");
  assert_noticed();
}

/* ---- editors ----------------------------------------------------------------------------------------------------- */

/* Their files beside ours may wake us, but are no policies. */
static void what_editors_leave_beside_is_not_read(void **unused)
{
  (void)unused;
  char before[PRY_GENERATION_ID_MAX];
  fill("policies", "one");
  watch_folder("policies");
  memcpy(before, rig.id, sizeof before);
  run("cd policies && touch 4913 .retry.lua.swp retry.lua~ '#retry.lua#' retry.lua___jb_tmp___ .retry.lua.Xa81 "
      "retry.lua.orig retry.lua.rej sedAbC123 .nfs0000000000 .retry.lua.un~ && mkdir -p .git/lib && "
      "touch .git/lib/x.lua && ln -s 'user@host.1234:5678' .#retry.lua");
  look();
  assert_string_equal(rig.id, before);
  assert_alive();
}

/* ---- limits and losses --------------------------------------------------------------------------------------------- */

static long queue_limit(void)
{
  long limit = 0;
  FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
  if (file && fscanf(file, "%ld", &limit) != 1)
    limit = 0;
  if (file)
    fclose(file);
  return limit;
}

/* The event of the edit itself is lost. */
static void the_queue_overflows(void **unused)
{
  (void)unused;
  char path[2][160];
  long limit = queue_limit();
  if (limit <= 0 || limit > 200000)
    skip();
  fill("policies", "one");
  watch_folder("policies");
  for (int i = 0; i < 2; i++)
    snprintf(path[i], sizeof path[i], "%s/noise%d", rig.folder, i);
  for (long i = 0; i < limit + 100; i++) /* in turns: equal events in a row are one */
    close(open(path[i % 2], O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  run("mkdir policies/late && echo x > policies/late/x.lua");
  assert_noticed();
  run("echo y > policies/late/x.lua");
  assert_noticed();
  assert_alive();
}

/* No room for all watches: what can be watched is, we are told, and all is well when there is room again. */
static void watches_run_out(void **unused)
{
  (void)unused;
  fill("policies", "one");
  for (int i = 0; i < 20; i++)
    run("mkdir policies/d%d && echo x > policies/d%d/x.lua", i, i);
  watch_folder("policies");
  assert_string_equal(pry_watcher_complaint(rig.watcher), "");
  watches_left = 15;
  assert_false(look());
  assert_in_range(pry_watcher_count(rig.watcher), 1, 15);
  assert_non_null(strstr(pry_watcher_complaint(rig.watcher), "/policies/"));
  assert_non_null(strstr(pry_watcher_complaint(rig.watcher), "raise the sysctl fs.inotify.max_user_watches"));
  watches_left = 0;
  assert_false(look());
  assert_int_equal(pry_watcher_count(rig.watcher), 0);
  watches_left = -1;
  assert_true(look());
  assert_string_equal(pry_watcher_complaint(rig.watcher), "");
  run("echo y > policies/d19/x.lua");
  assert_noticed();
  assert_alive();
}

/* Somebody's node_modules: bounded work, all told, and the policies themselves are watched. */
static void there_are_too_many_folders(void **unused)
{
  (void)unused;
  fill("policies", "one");
  watch_folder("policies");
  run("mkdir $(seq -f policies/z%%g 600)");
  assert_false(look());
  assert_int_equal(pry_watcher_count(rig.watcher), 512);
  assert_non_null(strstr(pry_watcher_complaint(rig.watcher), "more than 512 folders"));
  run("echo two > policies/retry.lua");
  assert_noticed();
}

/* Root reads everything, so this runs as nobody where it can. */
static void permissions_are_lost_for_a_moment(void **unused)
{
  (void)unused;
  fill("a/policies", "one");
  bool root = geteuid() == 0;
  if (root) {
    run("chown -R 65534 .");
    assert_int_equal(seteuid(65534), 0);
  }
  static const char *const places[] = {"a/policies", "a/policies/lib", "a"};
  watch_folder("a/policies");
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    char before[PRY_GENERATION_ID_MAX];
    memcpy(before, rig.id, sizeof before);
    run("chmod 000 %s", places[i]);
    pry_watcher_renew(rig.watcher, rig.folder); /* the poll's look comes in the middle */
    turn();
    look();
    assert_string_equal(rig.id, "");
    run("chmod 700 %s", places[i]);
    turn();
    unsigned told = rig.told;
    look();
    if (!told || strcmp(before, rig.id) != 0)
      fail_msg("%s: nobody noticed that it can be read again", places[i]);
    assert_alive();
  }
  if (root)
    assert_int_equal(seteuid(0), 0);
}

/* ---- mounts -------------------------------------------------------------------------------------------------------- */

/* In a mount name space of its own, which ends with the child. */
static void in_own_mounts(void (*check)(void))
{
  if (geteuid() != 0)
    skip();
  int status;
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
      _exit(77);
    check();
    _exit(0);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
    skip();
  if (status != 0)
    fail_msg("see above: the child ended with status %#x", (unsigned)status);
}

/* In the child cmocka's asserts would go on with the parent's tests. */
#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                  \
      _exit(1);                                                                                                        \
    }                                                                                                                  \
  } while (0)

static bool told_after(const char *command)
{
  char in_base[512];
  snprintf(in_base, sizeof in_base, "cd %s && %s", rig.base, command);
  rig.told = 0;
  CHECK(system(in_base) == 0);
  turn();
  return rig.told > 0;
}

static void check_bind_mounts(void)
{
  char other[PRY_GENERATION_ID_MAX];
  look();
  memcpy(other, rig.id, sizeof other);
  CHECK(!told_after("mount --bind source policies")); /* no event exists for it: this is what the poll is for */
  look();
  CHECK(strcmp(rig.id, other) != 0);
  CHECK(told_after("echo inside > policies/retry.lua"));
  CHECK(told_after("echo outside > source/retry.lua")); /* the same folder under its other name */
  CHECK(told_after("echo renamed > source/.x && mv source/.x source/retry.lua"));
  look();
  CHECK(!told_after("umount -l policies"));
  look();
  CHECK(strcmp(rig.id, other) == 0);
  CHECK(told_after("echo again > policies/retry.lua"));
}

static void check_mounted_file(void)
{
  char before[PRY_GENERATION_ID_MAX];
  look();
  CHECK(!*pry_watcher_complaint(rig.watcher));
  CHECK(!told_after("mount --bind source/retry.lua policies/retry.lua"));
  look();
  CHECK(strstr(pry_watcher_complaint(rig.watcher), "/policies/retry.lua: is mounted by itself"));
  memcpy(before, rig.id, sizeof before);
  CHECK(!told_after("echo in place > policies/retry.lua")); /* told to the folder where the file really is */
  look();
  CHECK(strcmp(before, rig.id) != 0);
  memcpy(before, rig.id, sizeof before);
  CHECK(!told_after("echo replaced > source/.x && mv source/.x source/retry.lua"));
  look();
  CHECK(strcmp(before, rig.id) == 0); /* for ever */
}

static void a_file_that_is_a_mount_is_told(void **unused)
{
  (void)unused;
  fill("policies", "one");
  fill("source", "two");
  snprintf(rig.folder, sizeof rig.folder, "%s/policies", rig.base);
  in_own_mounts(check_mounted_file);
}

static void mounts_over_the_folder_are_for_the_poll(void **unused)
{
  (void)unused;
  fill("policies", "one");
  fill("source", "two");
  snprintf(rig.folder, sizeof rig.folder, "%s/policies", rig.base);
  in_own_mounts(check_bind_mounts);
}

/* ---- noise --------------------------------------------------------------------------------------------------------- */

/* A look costs something; the folders above are other people's, and busy. */
static void what_happens_beside_the_folder_is_not_noticed(void **unused)
{
  (void)unused;
  fill("app/etc/policies", "one");
  watch_folder("app/etc/policies");
  run("mkdir logs && touch logs/now && ln -s ../../../logs/now app/etc/policies/log.txt");
  look();
  run("echo line >> logs/now"); /* a link to what is no policy */
  assert_unnoticed();
  run("touch x app/x app/etc/x && mkdir y app/y app/etc/y && mv app/x app/z && rm app/etc/x && chmod 700 app/y");
  assert_unnoticed();
  run("rm -r app/etc/policies");
  assert_noticed();
  fill("app/etc/policies", "two"); /* the watch for its return goes when it has returned */
  assert_noticed();
  run("touch x app/x app/etc/x && rm app/etc/x && mkdir app/etc/w");
  assert_unnoticed();
  assert_alive();
}

static void looking_is_not_a_change(void **unused)
{
  (void)unused;
  fill("policies", "one");
  run("ln -s policies current");
  watch_folder("current");
  for (int i = 0; i < 10; i++)
    look();
  turn();
  rig.told = 0;
  pry_watcher_renew(rig.watcher, rig.folder);
  assert_unnoticed();
  size_t count = pry_watcher_count(rig.watcher);
  look();
  assert_int_equal(pry_watcher_count(rig.watcher), count);
}

#define RIGGED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
  const struct CMUnitTest tests[] = {
      RIGGED(a_config_map_is_swapped),
      RIGGED(the_folder_is_a_link_that_moves),
      RIGGED(a_link_in_the_middle_moves),
      RIGGED(a_link_that_leads_nowhere_yet),
      RIGGED(a_link_outside_of_the_folder_moves),
      RIGGED(the_target_of_a_linked_file_is_edited),
      RIGGED(a_linked_file_comes_later),
      RIGGED(links_in_a_circle_end),
      RIGGED(the_folder_is_removed_and_made_again),
      RIGGED(everything_above_is_removed_and_made_again),
      RIGGED(the_folder_is_swapped_by_two_renames),
      RIGGED(the_folder_is_exchanged_in_one_step),
      RIGGED(a_folder_above_is_swapped_by_renames),
      RIGGED(a_folder_above_is_exchanged_in_one_step),
      RIGGED(a_relative_folder_is_swapped),
      RIGGED(folders_eight_deep_are_watched),
      RIGGED(a_tree_appears_at_once),
      RIGGED(what_editors_leave_beside_is_not_read),
      RIGGED(the_queue_overflows),
      RIGGED(watches_run_out),
      RIGGED(there_are_too_many_folders),
      RIGGED(permissions_are_lost_for_a_moment),
      RIGGED(mounts_over_the_folder_are_for_the_poll),
      RIGGED(a_file_that_is_a_mount_is_told),
      RIGGED(what_happens_beside_the_folder_is_not_noticed),
      RIGGED(looking_is_not_a_change),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
