/*
 * server_limits.h: how many connections one client address, and all of them together, may hold.
 *
 * One table shared by several servers on several threads, so that a limit means the whole process and not one worker.
 * IPv4 is counted by address, IPv6 by /64, which is what one subscriber gets; an IPv4 address that came over IPv6
 * (::ffff:a.b.c.d) is that IPv4 address. A unix socket has no addresses: its clients are one.
 *
 * Costs one short lock at accept and one at close. Memory: about 64 bytes for each address that has a connection.
 */
#ifndef PRY_SERVER_LIMITS_H
#define PRY_SERVER_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pry_address_limits;
struct sockaddr;

struct pry_address_limits_options {
  unsigned max_connections_per_address; /* 0: no limit */
  unsigned max_connections;             /* of all addresses together; 0: no limit */
  bool exempt_local;                    /* loopback and unix sockets count in the total only */
};

/* What a connection must give back; zero: nothing. */
struct pry_address_place {
  uint64_t network[2];
  bool counted;    /* in the total */
  bool by_address; /* and at its address */
};

enum pry_address_answer {
  PRY_ADDRESS_WELCOME,
  PRY_ADDRESS_TOO_MANY_HERE, /* this address has its share */
  PRY_ADDRESS_TOO_MANY,      /* all together, or memory is short */
};

/* One reference, or NULL: memory. Options are copied; NULL: no limits, only counts. */
struct pry_address_limits *pry_address_limits_new(const struct pry_address_limits_options *options);
struct pry_address_limits *pry_address_limits_ref(struct pry_address_limits *limits);
void pry_address_limits_unref(struct pry_address_limits *limits); /* NULL is fine */

/* Counts one more connection, unless the answer is not WELCOME. Any thread. */
enum pry_address_answer pry_address_limits_take(struct pry_address_limits *limits, const struct sockaddr *address,
                                                struct pry_address_place *place);

/* Gives it back; safe to call twice with the same place. Any thread. */
void pry_address_limits_give(struct pry_address_limits *limits, struct pry_address_place *place);

/* Connections, and addresses that have one, now. Any thread. */
size_t pry_address_limits_connection_count(struct pry_address_limits *limits);
size_t pry_address_limits_address_count(struct pry_address_limits *limits);

#endif
