/* Public addresses are let through, every kind of inside address is not. */
#include "address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include <cmocka.h>

static const char *const public_addresses[] = {
    "8.8.8.8",         "1.1.1.1",          "9.255.255.255",
    "11.0.0.0",        "100.63.255.255",   "100.128.0.0",
    "126.255.255.255", "128.0.0.1",        "169.253.255.255",
    "172.15.255.255",  "172.32.0.0",       "192.167.255.255",
    "192.169.0.0",     "198.17.255.255",   "198.20.0.0",
    "223.255.255.255", "2606:4700::1111",  "2001:4860:4860::8888",
    "::ffff:8.8.8.8",  "64:ff9b::8.8.8.8", "2002:0808:0808::1",
    "2a00:1450::1",
};

static const char *const inside_addresses[] = {
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a00:1::1",
    "3fff:0fff::1",
    "100::1",
    "5f00::1",
    "fe80::1%lo",
    "",
    "localhost",
    "127.1",
    "0x7f.0.0.1",
    "[2606:4700::1111]",
};

static void test_public(void **state)
{
  (void)state;
  for (size_t i = 0; i < sizeof public_addresses / sizeof *public_addresses; i++)
    if (!pry_address_text_is_public(public_addresses[i]))
      fail_msg("%s is public", public_addresses[i]);
}

static void test_inside(void **state)
{
  (void)state;
  for (size_t i = 0; i < sizeof inside_addresses / sizeof *inside_addresses; i++)
    if (pry_address_text_is_public(inside_addresses[i]))
      fail_msg("%s is not public", inside_addresses[i]);
}

static void test_socket_addresses(void **state)
{
  (void)state;
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  assert_int_equal(inet_pton(AF_INET, "8.8.8.8", &v4.sin_addr), 1);
  assert_true(pry_address_is_public((struct sockaddr *)&v4));
  assert_int_equal(inet_pton(AF_INET, "192.168.1.1", &v4.sin_addr), 1);
  assert_false(pry_address_is_public((struct sockaddr *)&v4));
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
  assert_int_equal(inet_pton(AF_INET6, "2606:4700::1111", &v6.sin6_addr), 1);
  assert_true(pry_address_is_public((struct sockaddr *)&v6));
  assert_int_equal(inet_pton(AF_INET6, "::1", &v6.sin6_addr), 1);
  assert_false(pry_address_is_public((struct sockaddr *)&v6));
  struct sockaddr_un local = {.sun_family = AF_UNIX};
  assert_false(pry_address_is_public((struct sockaddr *)&local));
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_public),
      cmocka_unit_test(test_inside),
      cmocka_unit_test(test_socket_addresses),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
