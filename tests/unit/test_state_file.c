/* Small files under --state: the old one or the new one, whatever happens in the middle; and nothing but a regular
 * file of our own is read. */
#include "state_file.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "state_folder.h"

enum { READ_MAX = 64 * 1024 };

static char why[PRY_STATE_WHY_MAX];
static struct pry_buffer text;

static enum pry_state_result read_it(size_t max)
{
  pry_buffer_fini(&text);
  pry_buffer_init(&text, 0);
  assert_true(pry_buffer_append_text(&text, "before|"));
  why[0] = '\0';
  return pry_state_file_read(folder, "thing", max, &text, why);
}

static void assert_reads(const char *expected)
{
  assert_int_equal(read_it(READ_MAX), PRY_STATE_READ);
  assert_string_equal(pry_buffer_text(&text) + strlen("before|"), expected);
}

static void assert_refused(const char *words)
{
  assert_int_equal(read_it(READ_MAX), PRY_STATE_REFUSED);
  assert_string_equal(pry_buffer_text(&text), "before|");
  assert_non_null(strstr(why, in_folder("thing")));
  if (!strstr(why, words))
    fail_msg("%s", why);
}

static int clean(void **unused)
{
  (void)unused;
  pry_buffer_fini(&text);
  return remove_folder(unused);
}

static void what_is_written_is_read(void **unused)
{
  (void)unused;
  struct stat about;
  assert_int_equal(read_it(READ_MAX), PRY_STATE_ABSENT);
  assert_true(pry_state_file_write(folder, "thing", PRY_SLICE("one"), why));
  assert_reads("one");
  mode_t before = umask(0777); /* we say the mode, and nobody else */
  assert_true(pry_state_file_write(folder, "thing", PRY_SLICE(""), why));
  umask(before);
  assert_reads("");
  assert_int_equal(stat(in_folder("thing"), &about), 0);
  assert_int_equal(about.st_mode & 07777, 0600);
  assert_false(is_there("thing.new"));
}

static void only_a_regular_file_of_ours_is_read(void **unused)
{
  (void)unused;
  put_file("elsewhere", PRY_SLICE("x"));
  assert_int_equal(symlink("elsewhere", in_folder("thing")), 0);
  assert_refused("is a symbolic link");
  assert_int_equal(unlink(in_folder("thing")), 0);
  assert_int_equal(mkfifo(in_folder("thing"), 0600), 0); /* must not wait for a writer either */
  assert_refused("is not a regular file");
  assert_int_equal(unlink(in_folder("thing")), 0);
  assert_int_equal(mkdir(in_folder("thing"), 0700), 0);
  assert_refused("is not a regular file");
  assert_int_equal(rmdir(in_folder("thing")), 0);
  put_file("thing", PRY_SLICE("x"));
  assert_int_equal(chmod(in_folder("thing"), 0620), 0);
  assert_refused("may be written by others (mode 0620)");
  assert_int_equal(chmod(in_folder("thing"), 0644), 0);
  assert_reads("x"); /* a restored backup: who may read it does not matter */
  if (geteuid() != 0)
    skip();
  assert_int_equal(chown(in_folder("thing"), 12345, 0), 0);
  assert_refused("belongs to user 12345, parry runs as user 0; chown it");
}

static void a_large_file_is_not_read(void **unused)
{
  (void)unused;
  put_file("thing", PRY_SLICE("12345678"));
  assert_int_equal(read_it(8), PRY_STATE_READ);
  assert_int_equal(read_it(7), PRY_STATE_REFUSED);
  assert_non_null(strstr(why, "is larger than 7 bytes"));
  int fd = open(in_folder("thing"), O_WRONLY | O_CLOEXEC);
  assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0); /* sparse: no disk, but whoever reads it all needs 1 TiB */
  close(fd);
  assert_refused("is larger than 65536 bytes");
}

static void a_folder_that_is_not_there(void **unused)
{
  (void)unused;
  assert_int_equal(pry_state_file_read("/nonexistent", "thing", 10, &text, why), PRY_STATE_ABSENT);
  assert_false(pry_state_file_write("/nonexistent", "thing", PRY_SLICE("x"), why));
  assert_non_null(strstr(why, "/nonexistent/thing: No such file or directory; give parry's user a folder"));
}

/* The size limit of a process is as good as a full disk: write(2) stops in the middle. */
static void limit_file_size(rlim_t bytes)
{
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
  limit.rlim_cur = bytes;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_full_disk_leaves_the_old_file(void **unused)
{
  (void)unused;
  static const char large[8192];
  assert_true(pry_state_file_write(folder, "thing", PRY_SLICE("old"), why));
  signal(SIGXFSZ, SIG_IGN);
  limit_file_size(100);
  bool ok = pry_state_file_write(folder, "thing", (struct pry_slice){large, sizeof large}, why);
  limit_file_size(RLIM_INFINITY);
  signal(SIGXFSZ, SIG_DFL);
  assert_false(ok);
  assert_non_null(strstr(why, strerror(EFBIG)));
  assert_non_null(strstr(why, "the old file stays"));
  assert_reads("old");
  assert_false(is_there("thing.new")); /* it would keep the disk full */
}

/* The same limit kills a process in the middle of its write, as a crash would. */
static void a_crash_in_the_middle_leaves_the_old_file(void **unused)
{
  (void)unused;
  static const char large[8192];
  int status;
  assert_true(pry_state_file_write(folder, "thing", PRY_SLICE("old"), why));
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    limit_file_size(4096);
    pry_state_file_write(folder, "thing", (struct pry_slice){large, sizeof large}, why);
    _exit(0);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
  assert_true(is_there("thing.new"));
  assert_reads("old");
  assert_true(pry_state_file_write(folder, "thing", PRY_SLICE("new"), why)); /* what is left lying does not matter */
  assert_reads("new");
  assert_false(is_there("thing.new"));
}

static void what_cannot_be_replaced_is_told(void **unused)
{
  (void)unused;
  assert_int_equal(mkdir(in_folder("thing"), 0700), 0);
  assert_false(pry_state_file_write(folder, "thing", PRY_SLICE("x"), why));
  assert_non_null(strstr(why, strerror(EISDIR)));
  assert_false(is_there("thing.new"));
  assert_int_equal(mkdir(in_folder("thing.new"), 0700), 0); /* in the way: never followed, never removed with force */
  assert_false(pry_state_file_write(folder, "thing", PRY_SLICE("x"), why));
  assert_non_null(strstr(why, strerror(EEXIST)));
}

/* A link left under the name that is written aside must not send our bytes elsewhere. */
static void a_planted_link_is_not_followed(void **unused)
{
  (void)unused;
  put_file("victim", PRY_SLICE("precious"));
  assert_int_equal(symlink("victim", in_folder("thing.new")), 0);
  assert_true(pry_state_file_write(folder, "thing", PRY_SLICE("x"), why));
  assert_reads("x");
  pry_buffer_clear(&text);
  assert_int_equal(pry_state_file_read(folder, "victim", 100, &text, why), PRY_STATE_READ);
  assert_string_equal(pry_buffer_text(&text), "precious");
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, clean)

int main(void)
{
  const struct CMUnitTest tests[] = {
      IN_FOLDER(what_is_written_is_read),         IN_FOLDER(only_a_regular_file_of_ours_is_read),
      IN_FOLDER(a_large_file_is_not_read),        IN_FOLDER(a_folder_that_is_not_there),
      IN_FOLDER(a_full_disk_leaves_the_old_file), IN_FOLDER(a_crash_in_the_middle_leaves_the_old_file),
      IN_FOLDER(what_cannot_be_replaced_is_told), IN_FOLDER(a_planted_link_is_not_followed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
