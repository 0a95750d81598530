/* The reloader and its watcher on a real loop and a real folder: every way to save a file, and what must not be taken
 * over. Nothing here sleeps: the loop turns until what is waited for has happened. */
#include "reloader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_loader.h"
#include "watcher.h"

enum { PATIENCE = 10 };

/* The kernel's limit of instances, when a test wants to meet it: it is one for all programs of a user. */
static bool no_instances;

int inotify_init1(int flags)
{
  if (!no_instances)
    return (int)syscall(SYS_inotify_init1, flags);
  errno = EMFILE;
  return -1;
}

/* ---- a running reloader over a temporary folder -------------------------------------------------------------- */

struct rig {
  char base[64];   /* made by mkdtemp; everything is below it */
  char folder[96]; /* what the reloader is given */
  struct pry_loop *loop;
  struct pry_log *log;
  struct pry_engine *engine;
  struct pry_reloader *reloader;
  unsigned taken, refused; /* told by the reloader */
  char first[PRY_GENERATION_ID_MAX];
  char finding[700];   /* of the last refusal */
  char log_line[4096]; /* the last one */
};

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void run(const char *format, ...)
{
  char command[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(command, sizeof command, format, arguments);
  va_end(arguments);
  assert_int_equal(system(command), 0);
}

static void write_file(const char *folder, const char *name, const char *text)
{
  char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static void on_ended(void *user, const struct pry_reload_outcome *outcome)
{
  struct rig *rig = user;
  rig->taken += outcome->result == PRY_RELOAD_TAKEN_OVER;
  rig->refused += outcome->result == PRY_RELOAD_REFUSED;
  if (outcome->result == PRY_RELOAD_REFUSED)
    snprintf(rig->finding, sizeof rig->finding, "%s: %s", outcome->report->findings[0].where,
             outcome->report->findings[0].what);
}

static void on_log(void *user, enum pry_log_level level, const char *line, size_t size)
{
  struct rig *rig = user;
  (void)level, (void)size;
  snprintf(rig->log_line, sizeof rig->log_line, "%s", line);
}

static void rig_start(struct rig *rig, bool watch, pry_time poll)
{
  rig->loop = pry_loop_new();
  assert_non_null(rig->loop);
  rig->log = pry_log_new(on_log, rig, PRY_LOG_INFO, NULL, NULL);
  struct pry_engine_options engine = {.loop = rig->loop, .log = rig->log, .loader = &fake_loader};
  rig->engine = pry_engine_new(&engine);
  assert_non_null(rig->engine);
  struct pry_report report;
  pry_report_init(&report);
  struct pry_policy_set *set = pry_reload_read(rig->folder, NULL, NULL, &report);
  assert_non_null(set);
  assert_true(pry_engine_load(rig->engine, set, true, &report));
  pry_report_fini(&report);
  snprintf(rig->first, sizeof rig->first, "%s", pry_engine_generation(rig->engine)->id);
  struct pry_reloader_options options = {.engine = rig->engine,
                                         .folder = rig->folder,
                                         .watch = watch,
                                         .debounce = 20 * PRY_MILLISECOND,
                                         .poll = poll,
                                         .ended = on_ended,
                                         .user = rig};
  rig->reloader = pry_reloader_new(&options);
  assert_non_null(rig->reloader);
  loads = 0;
}

static void rig_folder(struct rig *rig)
{
  *rig = (struct rig){.base = "/tmp/parry-reloader-XXXXXX"};
  assert_non_null(mkdtemp(rig->base));
  snprintf(rig->folder, sizeof rig->folder, "%s/policies", rig->base);
}

static void fill(const char *folder)
{
  assert_int_equal(mkdir(folder, 0700), 0);
  write_file(folder, "init.lua", "one");
  write_file(folder, "retry.lua", "one");
}

/* The usual start: a plain folder, watched; a poll that comes too late to help. */
static int setup(void **state)
{
  struct rig *rig = malloc(sizeof *rig);
  assert_non_null(rig);
  rig_folder(rig);
  fill(rig->folder);
  rig_start(rig, true, 1000 * PRY_SECOND);
  *state = rig;
  return 0;
}

static int teardown(void **state)
{
  struct rig *rig = *state;
  gate_set(false);
  pry_reloader_free(rig->reloader);
  pry_engine_free(rig->engine);
  pry_log_free(rig->log);
  pry_loop_free(rig->loop);
  run("rm -rf %s", rig->base);
  free(rig);
  return 0;
}

static bool serves_first(const struct rig *rig)
{
  return strcmp(pry_engine_generation(rig->engine)->id, rig->first) == 0;
}

/* Turns until *count has reached `wanted`. */
static void wait_for(struct rig *rig, const unsigned *count, unsigned wanted)
{
  pry_time end = pry_loop_now(rig->loop) + PATIENCE * PRY_SECOND;
  while (*count < wanted && pry_loop_now(rig->loop) < end)
    pry_loop_turn(rig->loop, 100 * PRY_MILLISECOND);
  assert_int_equal(*count, wanted);
}

/* Turns until nothing is under way or due any more. */
static void settle(struct rig *rig)
{
  pry_time end = pry_loop_now(rig->loop) + PATIENCE * PRY_SECOND;
  do
    pry_loop_turn(rig->loop, 10 * PRY_MILLISECOND);
  while (pry_reloader_busy(rig->reloader) && pry_loop_now(rig->loop) < end);
  assert_false(pry_reloader_busy(rig->reloader));
}

struct asked {
  struct pry_reload_waiter waiter;
  unsigned done;
  enum pry_reload_result result;
};

static void on_done(void *user, const struct pry_reload_outcome *outcome)
{
  struct asked *asked = user;
  asked->done++;
  asked->result = outcome->result;
}

static void ask(struct rig *rig, struct asked *asked)
{
  *asked = (struct asked){0};
  pry_reloader_request(rig->reloader, &asked->waiter, on_done, asked);
}

static enum pry_reload_result ask_and_wait(struct rig *rig)
{
  struct asked asked;
  ask(rig, &asked);
  wait_for(rig, &asked.done, 1);
  return asked.result;
}

/* ---- ways to save --------------------------------------------------------------------------------------------- */

/* Each step leaves new bytes behind, `text`, in retry.lua (or another file), the way some tool does it. */

static void save_in_place(const struct rig *rig, const char *text) /* nano, cp, a shell's > */
{
  write_file(rig->folder, "retry.lua", text);
}

static void save_like_vim(const struct rig *rig, const char *text)
{
  write_file(rig->folder, "4913", "");
  run("cd %s && rm 4913 && mv retry.lua retry.lua~", rig->folder);
  write_file(rig->folder, "retry.lua", text);
  run("cd %s && chmod 600 retry.lua && rm retry.lua~", rig->folder);
}

static void save_by_rename(const struct rig *rig, const char *text) /* sed -i, rsync, most editors */
{
  write_file(rig->folder, ".retry.lua.Xa81", text);
  run("cd %s && mv .retry.lua.Xa81 retry.lua", rig->folder);
}

static void save_like_git(const struct rig *rig, const char *text)
{
  run("cd %s && rm retry.lua", rig->folder);
  write_file(rig->folder, "retry.lua", text);
}

static void save_new_folder(const struct rig *rig, const char *text)
{
  run("mkdir -p %s/lib/deep", rig->folder);
  char folder[128];
  snprintf(folder, sizeof folder, "%s/lib/deep", rig->folder);
  write_file(folder, "x.lua", text);
}

static void save_whole_folder(const struct rig *rig, const char *text) /* a deployment script */
{
  char next[128];
  snprintf(next, sizeof next, "%s/next", rig->base);
  fill(next);
  write_file(next, "retry.lua", text);
  run("cd %s && rm -rf old && mv policies old && mv next policies", rig->base);
}

static void save_through_link(const struct rig *rig, const char *text) /* shared files outside the folder */
{
  run("mkdir -p %s/outside && ln -sfn ../outside %s/shared", rig->base, rig->folder);
  char outside[128];
  snprintf(outside, sizeof outside, "%s/outside", rig->base);
  write_file(outside, "y.lua", text);
}

struct way {
  const char *name;
  void (*save)(const struct rig *rig, const char *text);
};

static const struct way ways[] = {
    {"in place", save_in_place},           {"vim", save_like_vim},
    {"rename over it", save_by_rename},    {"git", save_like_git},
    {"new folder", save_new_folder},       {"whole folder", save_whole_folder},
    {"through a link", save_through_link},
};

/* Each way three times: a watch that dies with the first save would miss the second. */
static void every_way_to_save_is_noticed(void **state)
{
  struct rig *rig = *state;
  unsigned saves = 0;
  settle(rig);
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    for (int round = 0; round < 3; round++) {
      char text[64];
      snprintf(text, sizeof text, "-- %s %d", ways[i].name, round);
      ways[i].save(rig, text);
      wait_for(rig, &rig->taken, ++saves);
      settle(rig);
      assert_int_equal(rig->taken, saves);
    }
  }
  assert_int_equal(rig->refused, 0);
}

/* What a kubelet does: a new ..ts folder, and one rename of the ..data link that all names go through. */
static void swap_config_map(const struct rig *rig, int version, const char *text)
{
  char data[160];
  run("mkdir -p %s/..%d/lib", rig->folder, version);
  snprintf(data, sizeof data, "%s/..%d", rig->folder, version);
  write_file(data, "init.lua", "one");
  write_file(data, "retry.lua", "same in all");
  snprintf(data, sizeof data, "%s/..%d/lib", rig->folder, version);
  write_file(data, "x.lua", text);
  run("cd %s && ln -s ..%d ..data_tmp && mv -T ..data_tmp ..data", rig->folder, version);
  if (version > 0)
    run("rm -rf %s/..%d", rig->folder, version - 1);
}

static void config_map_swaps_are_noticed(void **state)
{
  struct rig *rig = malloc(sizeof *rig);
  assert_non_null(rig);
  *state = rig;
  rig_folder(rig);
  assert_int_equal(mkdir(rig->folder, 0700), 0);
  swap_config_map(rig, 0, "zero");
  run("cd %s && ln -s ..data/init.lua init.lua && ln -s ..data/retry.lua retry.lua && ln -s ..data/lib lib",
      rig->folder);
  rig_start(rig, true, 1000 * PRY_SECOND);
  assert_int_equal(pry_engine_generation(rig->engine)->set->count, 3); /* ..data is not loaded a second time */
  settle(rig);
  for (int version = 1; version < 5; version++) {
    char text[32];
    snprintf(text, sizeof text, "version %d", version);
    swap_config_map(rig, version, text);
    wait_for(rig, &rig->taken, (unsigned)version);
    settle(rig);
  }
  assert_int_equal(rig->refused, 0);
}

/* git-sync, and releases behind a `current` link: the folder we were given is itself a link. */
static void a_moved_link_above_is_noticed(void **state)
{
  struct rig *rig = malloc(sizeof *rig);
  assert_non_null(rig);
  *state = rig;
  rig_folder(rig);
  for (int release = 0; release < 4; release++) {
    char folder[128];
    run("mkdir %s/r%d", rig->base, release);
    snprintf(folder, sizeof folder, "%s/r%d/policies", rig->base, release);
    fill(folder);
    snprintf(folder, sizeof folder, "%s/r%d/policies", rig->base, release);
    write_file(folder, "retry.lua", release & 1 ? "odd" : "even");
  }
  run("cd %s && ln -s r0 current", rig->base);
  snprintf(rig->folder, sizeof rig->folder, "%s/current/policies", rig->base);
  rig_start(rig, true, 1000 * PRY_SECOND);
  settle(rig);
  for (unsigned release = 1; release < 4; release++) {
    run("cd %s && ln -s r%u next && mv -T next current", rig->base, release);
    wait_for(rig, &rig->taken, release);
    settle(rig);
  }
}

static void several_files_at_once_are_one_save(void **state)
{
  struct rig *rig = *state;
  settle(rig);
  for (int i = 0; i < 20; i++) {
    char name[32];
    snprintf(name, sizeof name, "p%d.lua", i);
    write_file(rig->folder, name, "x");
  }
  wait_for(rig, &rig->taken, 1);
  settle(rig);
  assert_int_equal(rig->taken, 1);
}

static void the_poll_finds_what_nobody_tells(void **state)
{
  struct rig *rig = malloc(sizeof *rig);
  assert_non_null(rig);
  *state = rig;
  rig_folder(rig);
  fill(rig->folder);
  /* inotify tells the folder of the name that was used, so a write through a hard link outside goes unseen, as all
   * writes do on NFS. */
  rig_start(rig, true, 50 * PRY_MILLISECOND);
  settle(rig);
  run("ln %s/retry.lua %s/alias", rig->folder, rig->base);
  settle(rig);
  write_file(rig->base, "alias", "through the other name");
  wait_for(rig, &rig->taken, 1);
}

static void without_a_watcher_the_poll_goes_on(void **state)
{
  struct rig *rig = malloc(sizeof *rig);
  assert_non_null(rig);
  *state = rig;
  rig_folder(rig);
  fill(rig->folder);
  no_instances = true;
  rig_start(rig, true, 50 * PRY_MILLISECOND);
  no_instances = false;
  assert_non_null(strstr(rig->log_line, "the policies folder cannot be watched"));
  assert_non_null(strstr(rig->log_line, "Too many open files"));
  assert_non_null(strstr(rig->log_line, "fs.inotify.max_user_instances"));
  settle(rig);
  write_file(rig->folder, "retry.lua", "two");
  wait_for(rig, &rig->taken, 1);
}

/* Once, not at each look; the poll goes on meanwhile. */
static void what_cannot_be_watched_is_told_once(void **state)
{
  struct rig *rig = *state;
  settle(rig);
  assert_string_equal(rig->log_line, "");
  run("cd %s && mkdir $(seq -f d%%g 520)", rig->folder);
  settle(rig);
  assert_non_null(strstr(rig->log_line, "some saves are noticed late"));
  assert_non_null(strstr(rig->log_line, "more than 512 folders"));
  rig->log_line[0] = '\0';
  run("touch %s/d1/x", rig->folder);
  settle(rig);
  assert_string_equal(rig->log_line, "");
  run("rm -r %s/d*", rig->folder);
  settle(rig);
  run("cd %s && mkdir $(seq -f d%%g 520)", rig->folder);
  settle(rig);
  assert_non_null(strstr(rig->log_line, "more than 512 folders"));
}

/* ---- what must change nothing ---------------------------------------------------------------------------------- */

static void the_same_bytes_are_not_staged(void **state)
{
  struct rig *rig = *state;
  settle(rig);
  write_file(rig->folder, "retry.lua", "one");
  run("touch %s/init.lua; echo x > %s/.retry.lua.swp; echo x > %s/notes.txt", rig->folder, rig->folder, rig->folder);
  settle(rig);
  assert_int_equal(loads, 0);
  assert_int_equal(ask_and_wait(rig), PRY_RELOAD_UNCHANGED);
  assert_int_equal(loads, 0);
  assert_int_equal(rig->taken + rig->refused, 0);
}

static void a_bad_edit_is_refused_once_and_named(void **state)
{
  struct rig *rig = *state;
  settle(rig);
  write_file(rig->folder, "retry.lua", "bad");
  wait_for(rig, &rig->refused, 1);
  assert_string_equal(rig->finding, "retry.lua:1: this is bad");
  assert_true(serves_first(rig));
  assert_non_null(strstr(rig->log_line, "\"msg\":\"policies refused\""));
  assert_non_null(strstr(rig->log_line, "retry.lua:1: this is bad"));
  char serving[64];
  snprintf(serving, sizeof serving, "\"still_serving\":\"%.7s\"", rig->first);
  assert_non_null(strstr(rig->log_line, serving));
  settle(rig);
  unsigned before = loads;
  run("touch %s/retry.lua", rig->folder);
  settle(rig);
  assert_int_equal(loads, before); /* the same bytes are not tried again */
  assert_int_equal(ask_and_wait(rig), PRY_RELOAD_REFUSED);
  assert_int_equal(loads, before + 1); /* unless somebody asks */
  assert_non_null(pry_reloader_last(rig->reloader));
  write_file(rig->folder, "retry.lua", "good");
  wait_for(rig, &rig->taken, 1);
  assert_false(serves_first(rig));
}

static void a_failing_test_is_refused(void **state)
{
  struct rig *rig = *state;
  settle(rig);
  write_file(rig->folder, "retry_test.lua", "fails");
  wait_for(rig, &rig->refused, 1);
  assert_string_equal(rig->finding, "retry_test.lua:1: a test fails");
  assert_true(serves_first(rig));
}

static void a_set_that_cannot_be_warmed_is_refused(void **state)
{
  struct rig *rig = *state;
  settle(rig);
  write_file(rig->folder, "init.lua", "cold");
  wait_for(rig, &rig->refused, 1);
  assert_string_equal(rig->finding, "init.lua:1: cannot be warmed");
  assert_true(serves_first(rig));
  settle(rig);
  unsigned before = loads;
  run("touch %s/init.lua", rig->folder);
  settle(rig);
  assert_int_equal(loads, before);
}

static void a_folder_that_is_gone_changes_nothing(void **state)
{
  struct rig *rig = *state;
  settle(rig);
  run("mv %s %s/away", rig->folder, rig->base);
  wait_for(rig, &rig->refused, 1);
  assert_non_null(strstr(rig->finding, "No such file"));
  assert_true(serves_first(rig));
  settle(rig);
  run("mv %s/away %s", rig->base, rig->folder);
  settle(rig);
  assert_int_equal(pry_metrics_value(rig->engine->metrics, PRY_M_RELOAD_OK, NULL, NULL), 1);
  write_file(rig->folder, "retry.lua", "two");
  wait_for(rig, &rig->taken, 1);
}

/* ---- asking and overlapping -------------------------------------------------------------------------------------- */

static void asking_looks_without_a_watch(void **state)
{
  struct rig *rig = malloc(sizeof *rig);
  assert_non_null(rig);
  *state = rig;
  rig_folder(rig);
  fill(rig->folder);
  rig_start(rig, false, 0);
  write_file(rig->folder, "retry.lua", "two");
  assert_int_equal(ask_and_wait(rig), PRY_RELOAD_TAKEN_OVER);
  assert_int_equal(rig->taken, 1);
}

/* Who asks while a look runs wants what is on disk now, not what that look has read. */
static void who_asks_during_a_look_gets_the_next(void **state)
{
  struct rig *rig = *state;
  struct asked first, second;
  settle(rig);
  gate_set(true);
  write_file(rig->folder, "retry.lua", "bad");
  ask(rig, &first);
  while (loads == 0)
    pry_loop_turn(rig->loop, PRY_MILLISECOND);
  write_file(rig->folder, "retry.lua", "two");
  ask(rig, &second);
  gate_set(false);
  wait_for(rig, &first.done, 1);
  wait_for(rig, &second.done, 1);
  assert_int_equal(second.result, PRY_RELOAD_TAKEN_OVER);
  assert_false(serves_first(rig));
}

/* What was read before the last save never serves. */
static void a_save_during_a_look_wins(void **state)
{
  struct rig *rig = *state;
  settle(rig);
  gate_set(true);
  write_file(rig->folder, "retry.lua", "two");
  while (loads == 0)
    pry_loop_turn(rig->loop, PRY_MILLISECOND);
  write_file(rig->folder, "retry.lua", "three");
  pry_loop_turn(rig->loop, 50 * PRY_MILLISECOND); /* the watcher tells */
  gate_set(false);
  wait_for(rig, &rig->taken, 1);
  settle(rig);
  assert_int_equal(rig->taken, 1);
  const struct pry_policy_set *set = pry_engine_generation(rig->engine)->set;
  assert_string_equal(pry_policy_set_find(set, "retry.lua")->text, "three");
}

static void traffic_goes_on_while_a_set_is_staged(void **state)
{
  struct rig *rig = *state;
  settle(rig);
  gate_set(true);
  write_file(rig->folder, "retry.lua", "two");
  while (loads == 0)
    pry_loop_turn(rig->loop, PRY_MILLISECOND);
  for (int i = 0; i < 100; i++) /* the loop turns although the look cannot end */
    pry_loop_turn(rig->loop, 0);
  assert_true(serves_first(rig));
  gate_set(false);
  wait_for(rig, &rig->taken, 1);
}

static void leaving_and_freeing_in_the_middle(void **state)
{
  struct rig *rig = *state;
  struct asked asked;
  settle(rig);
  ask(rig, &asked);
  pry_reload_leave(&asked.waiter);
  settle(rig);
  assert_int_equal(asked.done, 0);
  gate_set(true);
  write_file(rig->folder, "retry.lua", "two");
  while (loads == 0)
    pry_loop_turn(rig->loop, PRY_MILLISECOND);
  gate_set(false);
  pry_reloader_free(rig->reloader); /* a staged generation goes with it */
  rig->reloader = NULL;
  assert_true(serves_first(rig));
}

#define RIGGED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define OWN_RIG(test) cmocka_unit_test_teardown(test, teardown)

int main(void)
{
  const struct CMUnitTest tests[] = {
      RIGGED(every_way_to_save_is_noticed),
      OWN_RIG(config_map_swaps_are_noticed),
      OWN_RIG(a_moved_link_above_is_noticed),
      RIGGED(several_files_at_once_are_one_save),
      OWN_RIG(the_poll_finds_what_nobody_tells),
      OWN_RIG(without_a_watcher_the_poll_goes_on),
      RIGGED(what_cannot_be_watched_is_told_once),
      RIGGED(the_same_bytes_are_not_staged),
      RIGGED(a_bad_edit_is_refused_once_and_named),
      RIGGED(a_failing_test_is_refused),
      RIGGED(a_set_that_cannot_be_warmed_is_refused),
      RIGGED(a_folder_that_is_gone_changes_nothing),
      OWN_RIG(asking_looks_without_a_watch),
      RIGGED(who_asks_during_a_look_gets_the_next),
      RIGGED(a_save_during_a_look_wins),
      RIGGED(traffic_goes_on_while_a_set_is_staged),
      RIGGED(leaving_and_freeing_in_the_middle),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
