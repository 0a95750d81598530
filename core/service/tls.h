/*
 * tls.h: the certificate and key with which servers speak TLS, replaceable while they run.
 *
 * Made from two PEM files and shared by any number of servers on any number of threads. What it insists on:
 *   - TLS 1.2 or 1.3; in 1.2 only forward-secret AEAD suites (RFC 9325 §4.2); no compression, no renegotiation
 *   - ALPN (RFC 7301): "http/1.1", or "http/1.0"; a client that offers only other protocols is refused
 *   - stateless session tickets, whose keys live in memory and change with every reload; no early data, which could
 *     be replayed
 *   - a key that is encrypted is refused: nobody is there to type a passphrase
 *
 * A reload affects new handshakes only: open connections keep what they were made with.
 */
#ifndef PRY_TLS_H
#define PRY_TLS_H

#include <stdbool.h>
#include <stddef.h>

struct pry_tls;
struct ssl_st;

/* Reads both files: the certificate followed by its intermediates, and its private key (they may be one file). Returns
 * one reference, or NULL, and `message` (of message_size) then says what, where and what to do. On success `message`
 * is empty or a warning for the log, such as an expired certificate. Blocks on the file system. */
struct pry_tls *pry_tls_new(const char *certificate_path, const char *key_path, char *message, size_t message_size);

/* Reads the files again, and uses them for every handshake from now on. False: nothing changed, and `message` says
 * why; otherwise as pry_tls_new(). Any thread; blocks on the file system, so not on a worker's where that matters. */
bool pry_tls_reload(struct pry_tls *tls, char *message, size_t message_size);

/* When the certificate in use expires, in seconds since 1970. Any thread. */
double pry_tls_expires_at(struct pry_tls *tls);

/* Any thread. unref(NULL) is fine. */
struct pry_tls *pry_tls_ref(struct pry_tls *tls);
void pry_tls_unref(struct pry_tls *tls);

/* For server_tls.c: one connection's session on the server's side, owned by the caller; NULL: memory. Any thread. */
struct ssl_st *pry_tls_session_new(struct pry_tls *tls);

#endif
