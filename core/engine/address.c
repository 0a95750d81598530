#include "address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

struct block4 {
  uint32_t first;
  unsigned bits;
};

static const struct block4 special4[] = {
    {0x00000000, 8},  /* this network */
    {0x0A000000, 8},  /* private, RFC 1918 */
    {0x64400000, 10}, /* shared, RFC 6598 */
    {0x7F000000, 8},  /* loopback */
    {0xA9FE0000, 16}, /* link-local; cloud metadata */
    {0xAC100000, 12}, /* private */
    {0xC0000000, 24}, /* protocol assignments */
    {0xC0000200, 24}, /* documentation */
    {0xC0586300, 24}, /* 6to4 relays, deprecated */
    {0xC0A80000, 16}, /* private */
    {0xC6120000, 15}, /* benchmarking */
    {0xC6336400, 24}, /* documentation */
    {0xCB007100, 24}, /* documentation */
    {0xE0000000, 4},  /* multicast */
    {0xF0000000, 4},  /* reserved, broadcast */
};

static bool is_public4(const unsigned char *bytes)
{
  uint32_t address = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
  for (size_t i = 0; i < sizeof special4 / sizeof *special4; i++)
    if ((address ^ special4[i].first) >> (32 - special4[i].bits) == 0)
      return false;
  return true;
}

static bool starts_with(const unsigned char *address, const unsigned char *prefix, size_t size)
{
  return memcmp(address, prefix, size) == 0;
}

static bool is_public6(const unsigned char *a)
{
  static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  static const unsigned char nat64[12] = {0x00, 0x64, 0xFF, 0x9B};
  static const unsigned char six_to_four[2] = {0x20, 0x02};
  static const unsigned char documentation[4] = {0x20, 0x01, 0x0D, 0xB8};
  if (starts_with(a, mapped, sizeof mapped) || starts_with(a, nat64, sizeof nat64))
    return is_public4(a + 12);
  if (starts_with(a, six_to_four, sizeof six_to_four))
    return is_public4(a + 2);
  bool global_unicast = (a[0] & 0xE0) == 0x20;                              /* 2000::/3 */
  bool protocol_assignment = a[0] == 0x20 && a[1] == 0x01 && a[2] < 0x02;   /* 2001::/23, Teredo among them */
  bool documentation2 = a[0] == 0x3F && a[1] == 0xFF && (a[2] & 0xF0) == 0; /* 3fff::/20, RFC 9637 */
  return global_unicast && !protocol_assignment && !documentation2 &&
         !starts_with(a, documentation, sizeof documentation);
}

bool pry_address_is_public(const struct sockaddr *address)
{
  if (address->sa_family == AF_INET) {
    struct sockaddr_in v4;
    memcpy(&v4, address, sizeof v4);
    return is_public4((const unsigned char *)&v4.sin_addr);
  }
  if (address->sa_family == AF_INET6) {
    struct sockaddr_in6 v6;
    memcpy(&v6, address, sizeof v6);
    return is_public6(v6.sin6_addr.s6_addr);
  }
  return false;
}

bool pry_address_text_is_public(const char *text)
{
  unsigned char bytes[sizeof(struct in6_addr)];
  if (inet_pton(AF_INET, text, bytes) == 1)
    return is_public4(bytes);
  if (inet_pton(AF_INET6, text, bytes) == 1)
    return is_public6(bytes);
  return false;
}
