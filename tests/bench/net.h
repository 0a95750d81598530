/*
 * net.h: what the programs of the benchmark share: loopback sockets, epoll, clocks, HTTP/1.1 framing.
 *
 * For peers that we wrote ourselves or started ourselves, on the loopback: framing is only as strict as that needs.
 * Whatever goes wrong ends the program with a line on stderr, because a figure taken after an error is none.
 *
 * Thread: one per program.
 */
#ifndef NET_H
#define NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>
#include <sys/epoll.h>

enum { NET_EVENTS = 256 };

/* Grows by doubling; zeroed means empty. */
struct net_buffer {
  char *data;
  size_t size, capacity;
};

/* One line "PROGRAM: ..." on stderr, then exit code 1. */
noreturn void net_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* CLOCK_MONOTONIC in nanoseconds: the same for all processes of the machine. */
int64_t net_now(void);

/* As many descriptors as the kernel grants this user. */
void net_raise_descriptors(void);

/* A listener on 127.0.0.1 at a port of the kernel's choice, non-blocking. */
int net_listen(unsigned *port);

/* Accepts one connection, non-blocking and without Nagle's delay; -1: none is waiting. */
int net_accept(int listener);

/* Connects to 127.0.0.1, then makes the socket non-blocking. */
int net_connect(unsigned port);

/* epoll_ctl() that cannot fail. */
void net_watch(int epoll, int operation, int fd, uint32_t events, void *user);

/* Waits until `deadline` (as net_now(); INT64_MAX: for ever). Returns the number of events, 0 at the deadline. */
int net_wait(int epoll, struct epoll_event *events, int64_t deadline);

/* Room for `size` more bytes. */
void net_reserve(struct net_buffer *buffer, size_t size);
void net_append(struct net_buffer *buffer, const void *data, size_t size);
/* Drops the first `size` bytes. */
void net_consume(struct net_buffer *buffer, size_t size);
/* Reads once what is there, up to 16 KiB. False: the peer is gone. */
bool net_read(int fd, struct net_buffer *buffer);
/* Sends all, or as much as the socket takes, and returns how much. -1: the peer is gone. */
int64_t net_send(int fd, const char *data, size_t size);

/* The end of a message's head (behind the empty line) within the buffer; 0: not there yet. */
size_t net_head_end(const struct net_buffer *buffer);
/* A field's value within a head, up to its CR; NULL: it has none. `name` in lower case and with its colon. */
const char *net_field(const char *head, size_t size, const char *name);
/* The number behind `name` in a text that ends with CR or LF ("fail=10 every=5"); else `otherwise`. */
long net_number(const char *text, const char *name, long otherwise);

#endif
