#include "server_internal.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_TIME (3 * PRY_SECOND)

/* ---- Deadlines ------------------------------------------------------------------------------------------ */

static void connection_run(struct pry_connection *connection);
static void read_timer_fired(void *user);
static void write_timer_fired(void *user);

/* Deadlines move with every request but hardly ever pass. So a running timer is left alone when it fires early
 * enough, and looks again then. */
static void set_read_deadline(struct pry_connection *connection, pry_time delay)
{
  struct pry_loop *loop = connection->server->loop;
  connection->read_deadline = pry_loop_now(loop) + delay;
  if (pry_timer_running(&connection->read_timer) && connection->read_timer.due <= connection->read_deadline)
    return;
  if (!pry_timer_start(loop, &connection->read_timer, delay, read_timer_fired, connection))
    connection->broken = true;
}

void pry_connection_await_writable(struct pry_connection *connection)
{
  struct pry_server *server = connection->server;
  if (pry_timer_running(&connection->write_timer))
    return;
  connection->write_progress = pry_loop_now(server->loop);
  if (!pry_timer_start(server->loop, &connection->write_timer, pry_time_from_seconds(server->options.write_idle),
                       write_timer_fired, connection))
    connection->broken = true;
}

/* The clock of the body as a whole begins. */
static void start_body_clock(struct pry_connection *connection)
{
  const struct pry_server_options *options = &connection->server->options;
  pry_time now = pry_loop_now(connection->server->loop);
  connection->body_until = now + pry_time_from_seconds(options->body_deadline);
  connection->body_due = now + pry_time_from_seconds(options->body_slack);
}

/* What a fast piece earns is not saved up beyond the slack, or a client could send much at once and then trickle. */
static void credit_body(struct pry_connection *connection, size_t size)
{
  const struct pry_server_options *options = &connection->server->options;
  pry_time most = pry_loop_now(connection->server->loop) + pry_time_from_seconds(options->body_slack);
  connection->body_due += (pry_time)((double)size / options->body_rate * (double)PRY_SECOND);
  if (connection->body_due > most)
    connection->body_due = most;
}

static void set_body_deadline(struct pry_connection *connection)
{
  pry_time now = pry_loop_now(connection->server->loop);
  pry_time delay = pry_time_from_seconds(connection->server->options.body_idle);
  pry_time due = connection->body_due < connection->body_until ? connection->body_due : connection->body_until;
  if (delay > due - now)
    delay = due > now ? due - now : 0;
  set_read_deadline(connection, delay);
}

static void turn_timer_fired(void *user)
{
  connection_run(user);
}

/* Goes on in the next turn of the loop, after everybody else. */
static void go_on_later(struct pry_connection *connection)
{
  if (!pry_timer_start(connection->server->loop, &connection->turn_timer, 0, turn_timer_fired, connection))
    pry_connection_wake(connection);
}

/* ---- Phases --------------------------------------------------------------------------------------------- */

/* No more requests; what is in the output still goes out. linger: the client may be sending. */
static void finish(struct pry_connection *connection, bool linger)
{
  connection->phase = PRY_CONNECTION_FLUSH;
  connection->linger = linger;
  connection->read_deadline = PRY_TIME_NEVER;
}

static void await_request(struct pry_connection *connection)
{
  if (connection->server->draining) {
    finish(connection, false);
    return;
  }
  connection->phase = PRY_CONNECTION_READING;
  connection->head_begun = false;
  set_read_deadline(connection, pry_time_from_seconds(connection->server->options.keep_alive));
}

static void tell_gone(struct pry_connection *connection)
{
  struct pry_exchange *exchange = &connection->exchange;
  if (!exchange->open)
    return;
  exchange->open = false;
  connection->server->request_count--;
  connection->server->ops->on_gone(exchange->user);
}

/* The request cannot go on. A reply that was already begun is cut instead of answered twice. */
static void refuse(struct pry_connection *connection, int status, const char *reason)
{
  const struct pry_exchange *exchange = &connection->exchange;
  bool begun = connection->phase == PRY_CONNECTION_DISCARD || (exchange->open && exchange->started);
  connection->cut = exchange->open && exchange->started;
  connection->reset = exchange->open && exchange->started && !exchange->chunked && exchange->body_left < 0;
  tell_gone(connection);
  if (!begun)
    pry_reply_error(connection, status, reason);
  finish(connection, true);
}

void pry_connection_reply_ended(struct pry_connection *connection, bool keep)
{
  bool unread = connection->phase == PRY_CONNECTION_BODY && connection->exchange.request.has_body;
  connection->exchange.open = false;
  connection->server->request_count--;
  if (!keep) {
    finish(connection, unread);
  } else if (connection->phase == PRY_CONNECTION_BODY) {
    connection->phase = PRY_CONNECTION_DISCARD;
    connection->dropped = 0;
    set_read_deadline(connection, LINGER_TIME);
  } else {
    await_request(connection);
  }
  pry_connection_wake(connection);
}

void pry_connection_hold_body(struct pry_connection *connection, bool held)
{
  struct pry_exchange *exchange = &connection->exchange;
  if (!exchange->open || exchange->held == held || connection->phase != PRY_CONNECTION_BODY)
    return;
  exchange->held = held;
  pry_time now = pry_loop_now(connection->server->loop);
  if (held) {
    connection->read_deadline = PRY_TIME_NEVER;
    connection->held_at = now;
    return;
  }
  connection->body_until += now - connection->held_at;
  connection->body_due += now - connection->held_at;
  if (exchange->continue_owed && !exchange->started)
    pry_reply_continue(connection);
  set_body_deadline(connection);
  pry_connection_wake(connection);
}

void pry_connection_drain(struct pry_connection *connection)
{
  if (connection->phase != PRY_CONNECTION_READING || !pry_http1_idle(&connection->parser) || connection->input.size)
    return;
  finish(connection, false);
  pry_connection_wake(connection);
}

/* ---- The parser's events -------------------------------------------------------------------------------- */

static void head_came(struct pry_connection *connection)
{
  struct pry_server *server = connection->server;
  const struct pry_http1_head *head = &connection->parser.head;
  struct pry_exchange *exchange = &connection->exchange;
  *exchange = (struct pry_exchange){
      .request = {.method = head->method,
                  .target = head->target,
                  .path = head->path,
                  .query = head->query,
                  .version_minor = head->minor,
                  .headers = &head->headers,
                  .has_body = head->framing != PRY_HTTP1_NO_BODY,
                  .content_length = head->framing == PRY_HTTP1_CHUNKED ? -1 : (int64_t)head->content_length,
                  .peer = connection->peer,
                  .secure = connection->tls != NULL},
      .open = true,
      .continue_owed = head->expect_continue,
      .body_left = -1,
  };
  connection->phase = PRY_CONNECTION_BODY;
  server->request_count++;
  start_body_clock(connection);
  set_body_deadline(connection);
  void *user = server->ops->on_head(server->user, exchange, &exchange->request);
  if (!exchange->open)
    return;
  exchange->user = user;
  if (exchange->continue_owed && !exchange->started && !exchange->held)
    pry_reply_continue(connection);
}

static void body_came(struct pry_connection *connection, struct pry_slice data)
{
  struct pry_exchange *exchange = &connection->exchange;
  if (exchange->open) {
    exchange->continue_owed = false;
    credit_body(connection, data.size);
    set_body_deadline(connection);
    connection->server->ops->on_body(exchange->user, data);
    return;
  }
  connection->dropped += data.size;
  if (connection->dropped > PRY_SERVER_DISCARD_MAX)
    finish(connection, true);
}

static void request_ended(struct pry_connection *connection)
{
  struct pry_exchange *exchange = &connection->exchange;
  if (!exchange->open) {
    await_request(connection);
    return;
  }
  connection->phase = PRY_CONNECTION_ANSWER;
  connection->read_deadline = PRY_TIME_NEVER;
  connection->server->ops->on_end(exchange->user);
}

static void handle_event(struct pry_connection *connection, const struct pry_http1_event *event)
{
  switch (event->type) {
  case PRY_HTTP1_NEED_MORE:
    break;
  case PRY_HTTP1_HEAD:
    head_came(connection);
    break;
  case PRY_HTTP1_BODY:
    body_came(connection, event->body);
    break;
  case PRY_HTTP1_END:
    request_ended(connection);
    break;
  case PRY_HTTP1_ERROR:
    refuse(connection, event->status, event->reason);
    break;
  }
}

/* ---- Reading -------------------------------------------------------------------------------------------- */

static bool wants_input(const struct pry_connection *connection)
{
  if (connection->broken)
    return false;
  switch (connection->phase) {
  case PRY_CONNECTION_READING: /* a client that asks but never reads gets no more answers */
    return evbuffer_get_length(connection->output) < connection->server->options.output_high;
  case PRY_CONNECTION_BODY:
    return !connection->exchange.held;
  case PRY_CONNECTION_DISCARD:
  case PRY_CONNECTION_LINGER:
    return true;
  case PRY_CONNECTION_ANSWER:
  case PRY_CONNECTION_FLUSH:
    break;
  }
  return false;
}

/* Parses until more input is needed, or nobody wants what comes next. Returns the number of bytes taken. */
static size_t parse(struct pry_connection *connection, struct pry_slice bytes)
{
  size_t taken = 0;
  while (wants_input(connection)) {
    size_t consumed = 0;
    struct pry_http1_event event;
    pry_http1_feed(&connection->parser, (struct pry_slice){bytes.data + taken, bytes.size - taken}, &consumed, &event);
    taken += consumed;
    connection->more_events = event.type != PRY_HTTP1_NEED_MORE;
    if (!connection->more_events)
      break;
    handle_event(connection, &event);
  }
  return taken;
}

/* What was read earlier, and events that need no bytes. */
static void parse_kept(struct pry_connection *connection)
{
  struct pry_slice kept = pry_buffer_slice(&connection->input);
  if (!kept.size && !connection->more_events)
    return;
  if (kept.size) {
    kept.data += connection->input_taken;
    kept.size -= connection->input_taken;
  } else {
    kept.data = "";
  }
  connection->input_taken += parse(connection, kept);
  if (connection->input_taken == connection->input.size) {
    pry_buffer_fini(&connection->input);
    connection->input_taken = 0;
  }
}

static void parse_new(struct pry_connection *connection, struct pry_slice bytes)
{
  if (connection->phase == PRY_CONNECTION_LINGER) {
    connection->dropped += bytes.size;
    connection->broken = connection->dropped > PRY_SERVER_LINGER_MAX;
    return;
  }
  size_t taken = parse(connection, bytes);
  if (!pry_buffer_append(&connection->input, bytes.data + taken, bytes.size - taken))
    connection->broken = true;
}

/* One read. False: there is nothing to read now. */
static bool read_once(struct pry_connection *connection)
{
  char *scratch = connection->server->scratch;
  size_t size = pry_connection_receive(connection, scratch, PRY_SERVER_READ_SIZE);
  if (size)
    parse_new(connection, (struct pry_slice){scratch, size});
  return size != 0;
}

static void read_input(struct pry_connection *connection)
{
  parse_kept(connection);
  for (int reads = 0; connection->readable && wants_input(connection); reads++) {
    if (reads == PRY_SERVER_READS_PER_RUN) {
      go_on_later(connection);
      return;
    }
    if (!read_once(connection))
      return;
  }
}

/* An end inside TLS is a record like any other: to see it, one must read what comes before it. */
static void look_for_goodbye(struct pry_connection *connection)
{
  bool waits = connection->phase == PRY_CONNECTION_ANSWER || connection->phase == PRY_CONNECTION_BODY;
  if (!connection->tls || !waits || wants_input(connection))
    return;
  struct pry_buffer *input = &connection->input;
  pry_buffer_consume(input, connection->input_taken);
  connection->input_taken = 0;
  while (connection->readable && !connection->broken && input->size < PRY_SERVER_READ_SIZE) {
    size_t size = pry_connection_receive(connection, connection->server->scratch, PRY_SERVER_READ_SIZE - input->size);
    if (!size)
      break;
    if (!pry_buffer_append(input, connection->server->scratch, size))
      connection->broken = true;
  }
}

/* ---- Writing -------------------------------------------------------------------------------------------- */

static void tell_writable(struct pry_connection *connection)
{
  struct pry_server *server = connection->server;
  struct pry_exchange *exchange = &connection->exchange;
  size_t low = server->options.output_high / 2;
  if (connection->broken || !exchange->open || !exchange->wants_writable ||
      evbuffer_get_length(connection->output) > low)
    return;
  exchange->wants_writable = false;
  if (server->ops->on_writable)
    server->ops->on_writable(exchange->user);
  pry_connection_flush(connection);
  if (exchange->open && exchange->wants_writable && evbuffer_get_length(connection->output) <= low)
    go_on_later(connection);
}

/* ---- Closing -------------------------------------------------------------------------------------------- */

/* A client that closed its side, even half of it, wants no answer any more. What it was already answered in full
 * still goes out, and requests behind the close are not begun. */
static void heed_leaving(struct pry_connection *connection)
{
  if (!connection->peer_closed)
    return;
  if (connection->exchange.open || connection->phase == PRY_CONNECTION_LINGER)
    connection->broken = true;
  else
    finish(connection, false);
}

/* A reset is reported as readable; who is not going to read must ask. */
static void heed_reset(struct pry_connection *connection)
{
  if (connection->readable && !wants_input(connection) && pry_connection_is_reset(connection))
    connection->broken = true;
}

void pry_connection_refuse_handshake(struct pry_connection *connection, bool http)
{
  if (http)
    pry_reply_error(connection, 400, "this port speaks TLS: use https");
  finish(connection, true);
}

/* Closing a socket with unread input makes a reset of it, which can overtake and destroy what we sent last
 * (RFC 9112 §9.6). So we close our side first and read on for a while. */
static void linger(struct pry_connection *connection)
{
  pry_connection_tls_end(connection); /* what is still read is thrown away unread */
  connection->phase = PRY_CONNECTION_LINGER;
  connection->dropped = 0;
  shutdown(connection->fd, SHUT_WR);
  pry_buffer_fini(&connection->input);
  connection->input_taken = 0;
  connection->more_events = false;
  set_read_deadline(connection, LINGER_TIME);
  read_input(connection);
  heed_leaving(connection);
}

static bool say_goodbye(struct pry_connection *connection)
{
  connection->goodbye_waits =
      connection->tls && !connection->cut && !connection->reset && !pry_connection_tls_goodbye(connection);
  if (connection->goodbye_waits)
    pry_connection_await_writable(connection);
  return !connection->goodbye_waits;
}

static void close_when_flushed(struct pry_connection *connection)
{
  if (connection->phase != PRY_CONNECTION_FLUSH || connection->broken || evbuffer_get_length(connection->output) ||
      !say_goodbye(connection))
    return;
  bool unread = connection->linger || connection->readable || connection->input.size;
  if (connection->reset || connection->peer_closed || !unread)
    connection->broken = true;
  else
    linger(connection);
}

static void watch_head_deadline(struct pry_connection *connection)
{
  if (connection->phase != PRY_CONNECTION_READING || connection->head_begun || pry_http1_idle(&connection->parser))
    return;
  connection->head_begun = true;
  set_read_deadline(connection, pry_time_from_seconds(connection->server->options.head_deadline));
}

/* Everything that can be done now. Frees the connection when it is done with. */
static void connection_run(struct pry_connection *connection)
{
  heed_leaving(connection);
  heed_reset(connection);
  pry_connection_flush(connection);
  read_input(connection);
  look_for_goodbye(connection);
  heed_leaving(connection);
  pry_connection_flush(connection);
  tell_writable(connection);
  close_when_flushed(connection);
  watch_head_deadline(connection);
  if (connection->broken)
    pry_connection_free(connection);
}

/* ---- What the loop calls -------------------------------------------------------------------------------- */

static void connection_event(evutil_socket_t fd, short what, void *user)
{
  (void)fd;
  struct pry_connection *connection = user;
  if (what & EV_READ) {
    connection->readable = true;
    connection->drained = false;
  }
  if (what & EV_CLOSED)
    connection->peer_closed = true;
  connection_run(connection);
}

static void read_deadline_passed(struct pry_connection *connection)
{
  switch (connection->phase) {
  case PRY_CONNECTION_READING:
    if (pry_http1_idle(&connection->parser))
      finish(connection, false);
    else
      refuse(connection, 408, "the request head did not arrive in time");
    break;
  case PRY_CONNECTION_BODY:
    refuse(connection, 408, "the request body stopped arriving, or came too slowly");
    break;
  case PRY_CONNECTION_DISCARD:
    finish(connection, true);
    break;
  case PRY_CONNECTION_LINGER:
    connection->broken = true;
    break;
  case PRY_CONNECTION_ANSWER:
  case PRY_CONNECTION_FLUSH:
    break;
  }
  connection_run(connection);
}

static void read_timer_fired(void *user)
{
  struct pry_connection *connection = user;
  if (connection->read_deadline == PRY_TIME_NEVER)
    return;
  pry_time left = connection->read_deadline - pry_loop_now(connection->server->loop);
  if (left > 0) {
    set_read_deadline(connection, left);
    if (connection->broken)
      connection_run(connection);
    return;
  }
  connection->read_deadline = PRY_TIME_NEVER;
  read_deadline_passed(connection);
}

static void write_timer_fired(void *user)
{
  struct pry_connection *connection = user;
  struct pry_server *server = connection->server;
  if (!evbuffer_get_length(connection->output) && !connection->goodbye_waits)
    return;
  pry_time idle = pry_time_from_seconds(server->options.write_idle);
  pry_time left = connection->write_progress + idle - pry_loop_now(server->loop);
  if (left > 0 && pry_timer_start(server->loop, &connection->write_timer, left, write_timer_fired, connection))
    return;
  connection->broken = true;
  connection_run(connection);
}

void pry_connection_wake(struct pry_connection *connection)
{
  event_active(&connection->event, EV_TIMEOUT, 1);
}

/* ---- Making and freeing --------------------------------------------------------------------------------- */

void pry_connection_new(struct pry_server *server, int fd, const char *peer, struct pry_address_place place)
{
  struct pry_connection *connection = calloc(1, sizeof *connection);
  struct evbuffer *output = evbuffer_new();
  short what = EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST;
  if (connection) {
    connection->server = server;
    connection->fd = fd;
  }
  if (!connection || !output || (server->options.tls && !pry_connection_tls_start(connection)) ||
      event_assign(&connection->event, pry_loop_event_base(server->loop), fd, what, connection_event, connection) < 0 ||
      event_add(&connection->event, NULL) < 0) {
    if (output)
      evbuffer_free(output);
    if (connection)
      pry_connection_tls_end(connection);
    free(connection);
    close(fd);
    if (server->options.limits)
      pry_address_limits_give(server->options.limits, &place);
    return;
  }
  connection->output = output;
  connection->place = place;
  memcpy(connection->peer, peer, strnlen(peer, sizeof connection->peer - 1));
  pry_http1_init(&connection->parser, &server->limits);
  pry_buffer_init(&connection->input, PRY_SERVER_READ_SIZE);
  pry_list_push(&server->connections, &connection->link);
  server->connection_count++;
  connection->phase = PRY_CONNECTION_READING;
  connection->head_begun = true;
  set_read_deadline(connection, pry_time_from_seconds(server->options.head_deadline));
  if (connection->broken)
    pry_connection_free(connection);
}

void pry_connection_free(struct pry_connection *connection)
{
  struct pry_server *server = connection->server;
  tell_gone(connection);
  pry_timer_cancel(&connection->read_timer);
  pry_timer_cancel(&connection->write_timer);
  pry_timer_cancel(&connection->turn_timer);
  event_del(&connection->event);
  if (connection->reset)
    setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
  pry_connection_tls_end(connection);
  close(connection->fd);
  if (server->options.limits)
    pry_address_limits_give(server->options.limits, &connection->place);
  pry_http1_fini(&connection->parser);
  pry_buffer_fini(&connection->input);
  evbuffer_free(connection->output);
  pry_list_remove(&connection->link);
  server->connection_count--;
  free(connection);
}
