/* One parry per state folder, and nothing stale after any kind of end. */
#include "state_lock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "state_folder.h"

static char error[512];
static bool in_use;

static bool take(struct pry_state_lock *lock)
{
  error[0] = '\0';
  return pry_state_lock_take(lock, folder, &in_use, error, sizeof error);
}

static void assert_in_use_by(long pid)
{
  char words[160];
  struct pry_state_lock second;
  assert_false(take(&second));
  assert_true(in_use);
  assert_int_equal(second.fd, -1);
  snprintf(words, sizeof words, "--state %s: another parry, process %ld, uses this folder; stop that one", folder, pid);
  if (!strstr(error, words))
    fail_msg("%s", error);
}

static void the_second_is_refused(void **unused)
{
  (void)unused;
  struct pry_state_lock first;
  assert_true(take(&first));
  assert_in_use_by((long)getpid());
  pry_state_lock_release(&first);
  pry_state_lock_release(&first); /* once more: nothing */
  assert_true(take(&first));
  pry_state_lock_release(&first);
}

/* However the holder ends, and although its file stays. */
static void the_kernel_lets_go(void **unused)
{
  (void)unused;
  int ready[2], hold[2], status;
  struct pry_state_lock lock;
  assert_int_equal(pipe(ready), 0);
  assert_int_equal(pipe(hold), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    char never;
    bool ok = take(&lock);
    close(hold[1]);
    bool told = write(ready[1], ok ? "y" : "n", 1) == 1;
    _exit(told && read(hold[0], &never, 1) < 0); /* until killed, or until the test is gone */
  }
  char answer = 'n';
  assert_int_equal(read(ready[0], &answer, 1), 1);
  assert_int_equal(answer, 'y');
  assert_in_use_by((long)child);
  assert_int_equal(kill(child, SIGKILL), 0);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(is_there("lock"));
  assert_true(take(&lock));
  assert_in_use_by((long)getpid());
  pry_state_lock_release(&lock);
  for (int i = 0; i < 2; i++) {
    close(ready[i]);
    close(hold[i]);
  }
}

static void a_file_that_says_nothing_of_use(void **unused)
{
  (void)unused;
  struct pry_state_lock first, second;
  assert_true(take(&first));
  put_file("lock", PRY_SLICE("99999999999999999999999999999999999999 rm -rf"));
  assert_false(take(&second));
  assert_non_null(strstr(error, "another parry uses this folder"));
  pry_state_lock_release(&first);
}

static void a_folder_that_is_no_good(void **unused)
{
  (void)unused;
  struct pry_state_lock lock;
  assert_false(pry_state_lock_take(&lock, "/nonexistent", &in_use, error, sizeof error));
  assert_false(in_use);
  assert_non_null(strstr(error, "--state /nonexistent: cannot lock its file `lock`: No such file or directory"));
  assert_int_equal(symlink("/dev/null", in_folder("lock")), 0);
  assert_false(take(&lock));
  assert_false(in_use);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
  const struct CMUnitTest tests[] = {
      IN_FOLDER(the_second_is_refused),
      IN_FOLDER(the_kernel_lets_go),
      IN_FOLDER(a_file_that_says_nothing_of_use),
      IN_FOLDER(a_folder_that_is_no_good),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
