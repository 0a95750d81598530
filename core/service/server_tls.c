#include "server_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

enum { RECORD_SIZE = 16 * 1024 }; /* the most plaintext in one (RFC 8446 §5.1) */

/* ---- Between OpenSSL and the socket ---------------------------------------------------------------------
 * OpenSSL's own socket BIO raises SIGPIPE, and reads once more to learn that there is nothing. */

static int bio_read(BIO *bio, char *bytes, int size)
{
  struct pry_connection *connection = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (size <= 0)
    return 0;
  if (connection->drained) {
    BIO_set_retry_read(bio);
    return -1;
  }
  ssize_t got = pry_connection_recv(connection, bytes, (size_t)size);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
    BIO_set_retry_read(bio);
  return (int)got;
}

static int bio_write(BIO *bio, const char *bytes, int size)
{
  struct pry_connection *connection = BIO_get_data(bio);
  ssize_t sent;
  BIO_clear_retry_flags(bio);
  do
    sent = send(connection->fd, bytes, size > 0 ? (size_t)size : 0, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0)
    connection->write_progress = pry_loop_now(connection->server->loop);
  else if (errno == EAGAIN || errno == EWOULDBLOCK)
    BIO_set_retry_write(bio);
  return (int)sent;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
  (void)bio, (void)number, (void)pointer;
  /* Asked after a read of nothing that is not to be repeated: that was the end. */
  return command == BIO_CTRL_FLUSH || command == BIO_CTRL_EOF;
}

bool pry_server_tls_init(struct pry_server *server)
{
  BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "connection");
  server->tls_method = method;
  return method && BIO_meth_set_read(method, bio_read) == 1 && BIO_meth_set_write(method, bio_write) == 1 &&
         BIO_meth_set_ctrl(method, bio_control) == 1;
}

void pry_server_tls_fini(struct pry_server *server)
{
  BIO_meth_free(server->tls_method);
  server->tls_method = NULL;
}

/* ---- A connection's session ----------------------------------------------------------------------------- */

bool pry_connection_tls_start(struct pry_connection *connection)
{
  SSL *session = pry_tls_session_new(connection->server->options.tls);
  BIO *bio = session ? BIO_new(connection->server->tls_method) : NULL;
  if (!bio) {
    SSL_free(session);
    ERR_clear_error(); /* the queue is the thread's, and curl looks at it, too */
    return false;
  }
  BIO_set_data(bio, connection);
  BIO_set_init(bio, 1);
  SSL_set_bio(session, bio, bio);
  connection->tls = session;
  return true;
}

void pry_connection_tls_end(struct pry_connection *connection)
{
  SSL_free(connection->tls);
  connection->tls = NULL;
}

/* The client gets OpenSSL's alert, which is on its way, and time to read it. One that speaks plain HTTP gets an answer it
 * can read. From here on the connection is plain; no output was meant for TLS, for there was no request. */
static void handshake_failed(struct pry_connection *connection, unsigned long code)
{
  bool http = ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST;
  pry_connection_tls_end(connection);
  connection->readable = true; /* what is left in the socket is read away */
  pry_connection_refuse_handshake(connection, http);
}

/* What a call of OpenSSL said, as an errno. ready: the handshake was complete before it; afterwards OpenSSL forgets. */
static ssize_t failed(struct pry_connection *connection, int result, bool ready)
{
  unsigned long code = ERR_peek_error();
  switch (SSL_get_error(connection->tls, result)) {
  case SSL_ERROR_WANT_READ:
    connection->readable = false;
    errno = EAGAIN;
    break;
  case SSL_ERROR_WANT_WRITE:
    errno = EAGAIN;
    break;
  case SSL_ERROR_ZERO_RETURN:
    return 0;
  case SSL_ERROR_SSL:
    errno = EAGAIN;
    if (!connection->broken && !ready)
      handshake_failed(connection, code);
    else
      connection->broken = true;
    break;
  default:
    errno = ECONNRESET;
    break;
  }
  ERR_clear_error();
  return -1;
}

ssize_t pry_connection_tls_receive(struct pry_connection *connection, char *bytes, size_t size)
{
  ERR_clear_error();
  bool ready = SSL_is_init_finished(connection->tls);
  int got = SSL_read(connection->tls, bytes, size < RECORD_SIZE ? (int)size : RECORD_SIZE);
  return got > 0 ? got : failed(connection, got, ready);
}

ssize_t pry_connection_tls_send(struct pry_connection *connection)
{
  /* After EAGAIN OpenSSL wants the same bytes again, or more: output only grows at its end. */
  size_t size = evbuffer_get_length(connection->output);
  if (size > RECORD_SIZE)
    size = RECORD_SIZE;
  const unsigned char *bytes = evbuffer_pullup(connection->output, (ev_ssize_t)size);
  if (!bytes) {
    errno = ENOMEM;
    return -1;
  }
  ERR_clear_error();
  bool readable = connection->readable;
  int sent = SSL_write(connection->tls, bytes, (int)size);
  if (sent > 0)
    return sent;
  ssize_t result = failed(connection, sent, true);
  connection->readable = readable; /* what is there to read, only reading says */
  if (result == 0)
    errno = EPIPE;
  return -1;
}

bool pry_connection_tls_goodbye(struct pry_connection *connection)
{
  if (!SSL_is_init_finished(connection->tls) || (SSL_get_shutdown(connection->tls) & SSL_SENT_SHUTDOWN))
    return true;
  ERR_clear_error();
  int result = SSL_shutdown(connection->tls);
  bool waits = result < 0 && SSL_get_error(connection->tls, result) == SSL_ERROR_WANT_WRITE;
  ERR_clear_error();
  return !waits;
}
