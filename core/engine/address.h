/*
 * address.h: which network addresses are on the public internet.
 *
 * For requests whose URL did not come from the operator (public_only in http.h): the check is made on the
 * address that is about to be connected to, so that no name can resolve its way into the inside network.
 *
 * Pure functions; any thread.
 */
#ifndef PRY_ADDRESS_H
#define PRY_ADDRESS_H

#include <stdbool.h>

struct sockaddr;

/* True for globally reachable unicast addresses (IANA special-purpose registries, RFC 6890). Private, loopback,
 * link-local, shared (RFC 6598), documentation, benchmarking, multicast and reserved addresses are not; IPv6
 * addresses that carry an IPv4 one (mapped, NAT64 RFC 6052, 6to4) are judged by it. False for other families. */
bool pry_address_is_public(const struct sockaddr *address);

/* The same for an address in text, without brackets or port; a zone ("%eth0") or anything unparsable is false. */
bool pry_address_text_is_public(const char *text);

#endif
