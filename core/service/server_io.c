#include "server_internal.h"

#include <errno.h>
#include <sys/socket.h>

enum { OUTPUT_PIECES = 16 };

/* ---- Reading -------------------------------------------------------------------------------------------- */

bool pry_connection_is_reset(const struct pry_connection *connection)
{
  int code = 0;
  socklen_t size = sizeof code;
  return getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &code, &size) == 0 && code;
}

ssize_t pry_connection_recv(struct pry_connection *connection, char *bytes, size_t size)
{
  ssize_t got;
  do
    got = recv(connection->fd, bytes, size, 0);
  while (got < 0 && errno == EINTR);
  connection->drained = got < (ssize_t)size;
  /* A short read empties the socket; what comes later is reported anew. An end that was reported together with these
   * bytes is no loss: peer_closed is heeded before anything is read. A reset looks just like the bytes it came with, so
   * one must ask. */
  if (got > 0 && connection->drained && pry_connection_is_reset(connection))
    connection->broken = true;
  return got;
}

size_t pry_connection_receive(struct pry_connection *connection, char *bytes, size_t size)
{
  ssize_t got;
  if (connection->tls) {
    got = pry_connection_tls_receive(connection, bytes, size);
  } else {
    got = pry_connection_recv(connection, bytes, size);
    connection->readable = !connection->drained;
  }
  if (connection->broken)
    return 0;
  if (got > 0)
    return (size_t)got;
  if (got == 0) {
    connection->readable = false;
    connection->peer_closed = true;
  } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
    connection->broken = true;
  }
  return 0;
}

/* ---- Writing -------------------------------------------------------------------------------------------- */

/* MSG_NOSIGNAL: evbuffer_write() would raise SIGPIPE, which is not ours to mask in somebody's process. */
static ssize_t send_output(struct pry_connection *connection)
{
  struct evbuffer_iovec pieces[OUTPUT_PIECES];
  int count = evbuffer_peek(connection->output, -1, NULL, pieces, OUTPUT_PIECES);
  struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)(count < OUTPUT_PIECES ? count : OUTPUT_PIECES)};
  ssize_t sent;
  do
    sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent;
}

bool pry_connection_flush(struct pry_connection *connection)
{
  while (!connection->broken && evbuffer_get_length(connection->output)) {
    ssize_t sent = connection->tls ? pry_connection_tls_send(connection) : send_output(connection);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      pry_connection_await_writable(connection);
      break;
    }
    if (sent < 0 || evbuffer_drain(connection->output, (size_t)sent) < 0)
      connection->broken = true;
    else
      connection->write_progress = pry_loop_now(connection->server->loop);
  }
  return !connection->broken;
}
