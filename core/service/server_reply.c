#include "server_internal.h"

#include <stdio.h>
#include <time.h>

/* ---- Output --------------------------------------------------------------------------------------------- */

/* An output that lacks a piece must not be continued: the client would read the rest as something else. */
static void put(struct pry_connection *connection, struct pry_slice text)
{
  if (!connection->broken && evbuffer_add(connection->output, text.data, text.size) < 0)
    connection->broken = true;
}

static void put_text(struct pry_connection *connection, const char *text)
{
  put(connection, pry_slice_of(text));
}

/* ---- Heads ---------------------------------------------------------------------------------------------- */

static const struct {
  int status;
  const char *phrase;
} PHRASES[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {424, "Failed Dependency"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {529, "Overloaded"},
};

static const char *phrase_of(int status)
{
  for (size_t i = 0; i < sizeof PHRASES / sizeof *PHRASES; i++)
    if (PHRASES[i].status == status)
      return PHRASES[i].phrase;
  return "";
}

/* RFC 9110 §5.6.7. Not strftime(): its names follow the process's locale. */
static const char *date_text(struct pry_server *server)
{
  static const char DAYS[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static const char MONTHS[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  time_t now = (time_t)pry_loop_unix_time(server->loop);
  struct tm parts;
  if (now != server->date_second && gmtime_r(&now, &parts)) {
    server->date_second = now;
    snprintf(server->date, sizeof server->date, "%s, %02d %s %04d %02d:%02d:%02d GMT", DAYS[parts.tm_wday],
             parts.tm_mday, MONTHS[parts.tm_mon], (parts.tm_year + 1900) % 10000, parts.tm_hour, parts.tm_min,
             parts.tm_sec);
  }
  return server->date;
}

/* A head is put together in a buffer that all of a server's replies share, and leaves it in one piece. */
static void add(struct pry_connection *connection, struct pry_slice text)
{
  if (!connection->broken && !pry_buffer_append_slice(&connection->server->head, text))
    connection->broken = true;
}

static void add_text(struct pry_connection *connection, const char *text)
{
  add(connection, pry_slice_of(text));
}

static void add_integer(struct pry_connection *connection, int64_t number)
{
  if (!connection->broken && !pry_buffer_append_integer(&connection->server->head, number))
    connection->broken = true;
}

static void put_head(struct pry_connection *connection)
{
  struct pry_buffer *head = &connection->server->head;
  add(connection, PRY_SLICE("\r\n"));
  put(connection, pry_buffer_slice(head));
  pry_buffer_clear(head);
  if (head->capacity > PRY_SERVER_READ_SIZE)
    pry_buffer_fini(head);
}

static void add_status_line(struct pry_connection *connection, int status)
{
  add(connection, PRY_SLICE("HTTP/1.1 "));
  add_integer(connection, status);
  add(connection, PRY_SLICE(" "));
  add_text(connection, phrase_of(status));
  add(connection, PRY_SLICE("\r\nDate: "));
  add_text(connection, date_text(connection->server));
  add(connection, PRY_SLICE("\r\n"));
}

/* Fields that are about one connection (RFC 9110 §7.6.1), and those the server writes itself. */
static bool is_ours(struct pry_slice name)
{
  static const struct pry_slice OURS[] = {
      PRY_SLICE_INIT("connection"),        PRY_SLICE_INIT("keep-alive"), PRY_SLICE_INIT("proxy-connection"),
      PRY_SLICE_INIT("transfer-encoding"), PRY_SLICE_INIT("te"),         PRY_SLICE_INIT("trailer"),
      PRY_SLICE_INIT("content-length"),    PRY_SLICE_INIT("upgrade"),    PRY_SLICE_INIT("date")};
  for (size_t i = 0; i < sizeof OURS / sizeof *OURS; i++)
    if (pry_slice_equal_nocase(name, OURS[i]))
      return true;
  return false;
}

static void add_fields(struct pry_connection *connection, const struct pry_headers *headers)
{
  struct pry_slice ignored;
  bool names_fields = pry_headers_get(headers, PRY_SLICE("connection"), &ignored);
  for (size_t i = 0; i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    if (is_ours(line.name) || (names_fields && pry_headers_has_token(headers, PRY_SLICE("connection"), line.name)))
      continue;
    add(connection, line.name);
    add(connection, PRY_SLICE(": "));
    add(connection, line.value);
    add(connection, PRY_SLICE("\r\n"));
  }
}

static void add_length(struct pry_connection *connection, int64_t size)
{
  add(connection, PRY_SLICE("Content-Length: "));
  add_integer(connection, size);
  add(connection, PRY_SLICE("\r\n"));
}

/* RFC 9112 §6: how the client will find the end of the body. */
static void choose_framing(struct pry_exchange *exchange, int status, int64_t body_size)
{
  struct pry_connection *connection = pry_exchange_connection(exchange);
  const struct pry_http1_head *head = &connection->parser.head;
  exchange->bodiless = head->is_head || status == 204 || status == 304;
  exchange->body_left = body_size < 0 ? -1 : body_size;
  exchange->chunked = !exchange->bodiless && body_size < 0 && head->minor > 0;
  bool until_close = !exchange->bodiless && body_size < 0 && !exchange->chunked;
  /* A client still waiting for 100 may send its body or not: where the next request begins, nobody can know. */
  exchange->keep_alive = head->keep_alive && !until_close && !exchange->continue_owed && !connection->server->draining;
}

static void add_framing(struct pry_exchange *exchange, int status)
{
  struct pry_connection *connection = pry_exchange_connection(exchange);
  if (exchange->chunked)
    add(connection, PRY_SLICE("Transfer-Encoding: chunked\r\n"));
  else if (exchange->body_left >= 0 && status != 204 && !(status == 304 && exchange->body_left == 0))
    add_length(connection, exchange->body_left);
  if (!exchange->keep_alive)
    add(connection, PRY_SLICE("Connection: close\r\n"));
  else if (exchange->request.version_minor == 0)
    add(connection, PRY_SLICE("Connection: keep-alive\r\n"));
}

bool pry_reply_start(struct pry_exchange *exchange, int status, const struct pry_headers *headers, int64_t body_size)
{
  struct pry_connection *connection = pry_exchange_connection(exchange);
  if (!exchange->open || exchange->started)
    return false;
  if (status < 200 || status > 999)
    status = 502; /* RFC 9110 §15: what is no status is a server's error */
  exchange->started = true;
  choose_framing(exchange, status, body_size);
  add_status_line(connection, status);
  if (headers)
    add_fields(connection, headers);
  add_framing(exchange, status);
  put_head(connection);
  pry_connection_wake(connection);
  return !connection->broken;
}

bool pry_reply_started(const struct pry_exchange *exchange)
{
  return exchange->started;
}

/* ---- Bodies --------------------------------------------------------------------------------------------- */

static struct pry_slice within_length(struct pry_exchange *exchange, struct pry_slice data)
{
  if (exchange->body_left < 0)
    return data;
  if (data.size > (uint64_t)exchange->body_left) {
    exchange->overrun = true;
    data.size = (size_t)exchange->body_left;
  }
  exchange->body_left -= (int64_t)data.size;
  return data;
}

static void put_body(struct pry_exchange *exchange, struct pry_slice data)
{
  struct pry_connection *connection = pry_exchange_connection(exchange);
  if (!exchange->chunked) {
    put(connection, data);
    return;
  }
  char size_line[24];
  snprintf(size_line, sizeof size_line, "%zx\r\n", data.size);
  put_text(connection, size_line);
  put(connection, data);
  put(connection, PRY_SLICE("\r\n"));
}

bool pry_reply_write(struct pry_exchange *exchange, struct pry_slice data)
{
  struct pry_connection *connection = pry_exchange_connection(exchange);
  if (!exchange->open || !exchange->started || exchange->bodiless)
    return true;
  data = within_length(exchange, data);
  if (data.size == 0) /* an empty chunk would be the last */
    return true;
  put_body(exchange, data);
  size_t high = connection->server->options.output_high;
  if (evbuffer_get_length(connection->output) >= high)
    pry_connection_flush(connection);
  pry_connection_wake(connection);
  if (connection->broken || evbuffer_get_length(connection->output) < high)
    return true;
  exchange->wants_writable = true;
  return false;
}

void pry_reply_end(struct pry_exchange *exchange)
{
  struct pry_connection *connection = pry_exchange_connection(exchange);
  if (!exchange->open)
    return;
  if (!exchange->started)
    pry_reply_start(exchange, 500, NULL, 0);
  if (exchange->overrun || (exchange->body_left > 0 && !exchange->bodiless)) {
    pry_reply_abort(exchange);
    return;
  }
  if (exchange->chunked)
    put(connection, PRY_SLICE("0\r\n\r\n"));
  pry_connection_reply_ended(connection, exchange->keep_alive);
}

void pry_reply_abort(struct pry_exchange *exchange)
{
  struct pry_connection *connection = pry_exchange_connection(exchange);
  if (!exchange->open)
    return;
  /* Where no framing shows that something is missing, only a reset does. */
  bool shows = exchange->started && (exchange->chunked || (exchange->body_left > 0 && !exchange->bodiless));
  connection->reset = !shows;
  connection->cut = true;
  pry_connection_reply_ended(connection, false);
}

void pry_reply_raw(struct pry_exchange *exchange, struct pry_slice bytes)
{
  struct pry_connection *connection = pry_exchange_connection(exchange);
  if (!exchange->open || exchange->started)
    return;
  exchange->started = true;
  put(connection, bytes);
  pry_connection_reply_ended(connection, false);
}

void pry_reply_text(struct pry_exchange *exchange, int status, const char *content_type, struct pry_slice body)
{
  struct pry_headers headers;
  pry_headers_init(&headers);
  bool ok = !content_type || pry_headers_add(&headers, PRY_SLICE("Content-Type"), pry_slice_of(content_type));
  if (ok && pry_reply_start(exchange, status, &headers, (int64_t)body.size)) {
    pry_reply_write(exchange, body);
    pry_reply_end(exchange);
  } else {
    pry_reply_abort(exchange);
  }
  pry_headers_fini(&headers);
}

void pry_reply_hold_body(struct pry_exchange *exchange, bool held)
{
  pry_connection_hold_body(pry_exchange_connection(exchange), held);
}

/* ---- The server's own answers --------------------------------------------------------------------------- */

void pry_reply_continue(struct pry_connection *connection)
{
  connection->exchange.continue_owed = false;
  put(connection, PRY_SLICE("HTTP/1.1 100 Continue\r\n\r\n"));
  pry_connection_wake(connection);
}

static const char *error_code(int status)
{
  switch (status) {
  case 408:
    return "request_timeout";
  case 413:
    return "request_too_large";
  case 414:
    return "uri_too_long";
  case 431:
    return "headers_too_large";
  case 503:
    return "server_overloaded";
  default:
    return "malformed_request";
  }
}

void pry_reply_error(struct pry_connection *connection, int status, const char *message)
{
  char body[512];
  int size = snprintf(body, sizeof body, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"code\":\"%s\"}}\n", message,
                      status >= 500 ? "server_error" : "invalid_request_error", error_code(status));
  add_status_line(connection, status);
  add_text(connection, "Content-Type: application/json\r\nConnection: close\r\n");
  add_length(connection, size);
  put_head(connection);
  put(connection, (struct pry_slice){body, (size_t)size});
  pry_connection_wake(connection);
}

struct pry_slice pry_reply_too_many(enum pry_address_answer answer, bool tls)
{
  if (tls) /* a fatal alert, internal_error (RFC 8446 §6): there is no session to answer in, and making one costs most */
    return PRY_SLICE("\x15\x03\x01\x00\x02\x02\x50");
  if (answer == PRY_ADDRESS_TOO_MANY_HERE)
    return PRY_SLICE("HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
                     "Connection: close\r\n\r\n"
                     "{\"error\":{\"message\":\"too many connections from this address\","
                     "\"type\":\"invalid_request_error\",\"code\":\"too_many_connections\"}}\n");
  return PRY_SLICE("HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
                   "Connection: close\r\n\r\n"
                   "{\"error\":{\"message\":\"too many connections\",\"type\":\"server_error\","
                   "\"code\":\"server_overloaded\"}}\n");
}
