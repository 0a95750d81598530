/* Default places and addresses, and which addresses may be listened on without keys. */
#include "places.h"
#include "program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void loopback_is_loopback(void **state)
{
  (void)state;
  static const char *const inside[] = {"127.0.0.1:0", "127.9.9.9:80", "[::1]:8420", "localhost:1", "unix:/tmp/x"};
  static const char *const outside[] = {"0.0.0.0:8420",
                                        "[::]:8420",
                                        "192.168.1.5:80",
                                        "[fe80::1]:80",
                                        "128.0.0.1:1",
                                        "example.com:80",
                                        "127.0.0.1",
                                        "",
                                        ":80",
                                        "[::1:80",
                                        "127.0.0.1.evil.example:80"};
  for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
    assert_true(pry_address_is_loopback(inside[i]));
  for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
    assert_false(pry_address_is_loopback(outside[i]));
}

static void the_admin_address_is_found(void **state)
{
  (void)state;
  char address[PRY_PLACE_MAX], wanted[64];
  setenv("PARRY_ADMIN", "unix:/from/environment", 1);
  setenv("XDG_RUNTIME_DIR", "/run/user/77", 1);
  assert_true(pry_place_admin("unix:/given", true, address, sizeof address));
  assert_string_equal(address, "unix:/given");
  assert_true(pry_place_admin(NULL, true, address, sizeof address));
  assert_string_equal(address, "unix:/from/environment");
  snprintf(wanted, sizeof wanted, "unix:/run%s/parry/admin.sock", geteuid() == 0 ? "" : "/user/77");
  assert_true(pry_place_admin(NULL, false, address, sizeof address)); /* serve does not obey a client's variable */
  assert_string_equal(address, wanted);
  unsetenv("PARRY_ADMIN");
  unsetenv("XDG_RUNTIME_DIR");
  snprintf(wanted, sizeof wanted, "unix:/tmp/parry-%u/admin.sock", (unsigned)geteuid());
  assert_true(pry_place_admin(NULL, true, address, sizeof address));
  assert_string_equal(address, geteuid() == 0 ? "unix:/run/parry/admin.sock" : wanted);
  assert_false(pry_place_admin("unix:/too/long", true, address, 5));
}

static void the_folder_of_the_socket_is_made(void **state)
{
  (void)state;
  char base[] = "/tmp/parry-places-XXXXXX", address[128], folder[64], error[512];
  struct stat about;
  assert_non_null(mkdtemp(base));
  snprintf(folder, sizeof folder, "%s/run", base);
  snprintf(address, sizeof address, "unix:%s/admin.sock", folder);
  assert_true(pry_place_make_folder(address, error, sizeof error));
  assert_int_equal(stat(folder, &about), 0);
  assert_int_equal(about.st_mode & 0777, 0700);
  assert_true(pry_place_make_folder(address, error, sizeof error)); /* there already */
  snprintf(address, sizeof address, "unix:%s/no/such/admin.sock", base);
  assert_false(pry_place_make_folder(address, error, sizeof error));
  assert_non_null(strstr(error, "--admin unix:PATH"));
  assert_true(pry_place_make_folder("127.0.0.1:80", error, sizeof error));
  assert_int_equal(rmdir(folder) + rmdir(base), 0);
}

static void policies_are_found(void **state)
{
  (void)state;
  char base[] = "/tmp/parry-places-XXXXXX", error[512] = "";
  assert_non_null(mkdtemp(base));
  assert_int_equal(chdir(base), 0);
  assert_string_equal(pry_place_policies("x", error, sizeof error), "x");
  if (access("/etc/parry/policies", F_OK) < 0) {
    assert_null(pry_place_policies(NULL, error, sizeof error));
    assert_non_null(strstr(error, "--policies DIR"));
  }
  assert_int_equal(mkdir("policies", 0700), 0);
  assert_string_equal(pry_place_policies(NULL, error, sizeof error), "policies");
  assert_int_equal(rmdir("policies") + chdir("/") + rmdir(base), 0);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(loopback_is_loopback),
      cmocka_unit_test(the_admin_address_is_found),
      cmocka_unit_test(the_folder_of_the_socket_is_made),
      cmocka_unit_test(policies_are_found),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
