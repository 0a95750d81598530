#include "http1.h"
#include "http1_text.h"

enum {
  EMPTY_LINES_MAX = 2,
  METHOD_MAX = 32,
  REQUEST_LINE_EXTRA = METHOD_MAX + sizeof "  HTTP/1.1\r\n", /* beside the target */
  KEPT_BETWEEN_REQUESTS = 4096                               /* bytes of memory per buffer */
};

const struct pry_http1_limits pry_http1_default_limits = {
    .target = 8192,
    .header_bytes = 64 * 1024,
    .header_lines = 128,
    .chunk_line = 1024,
    .chunk_extensions = 64 * 1024,
    .body = 64 * 1024 * 1024,
};

enum state {
  REQUEST_LINE,
  HEADERS,
  BODY,
  CHUNK_SIZE,
  CHUNK_DATA,
  CHUNK_END,
  TRAILERS,
  COMPLETE, /* END comes at the next feed */
  FINISHED, /* END was given */
  FAILED
};

void pry_http1_init(struct pry_http1_parser *parser, const struct pry_http1_limits *limits)
{
  *parser = (struct pry_http1_parser){.limits = limits ? *limits : pry_http1_default_limits};
  if (parser->limits.header_lines > PRY_HEADERS_MAX)
    parser->limits.header_lines = PRY_HEADERS_MAX;
  if (parser->limits.header_bytes > PRY_HEADERS_BYTES_MAX)
    parser->limits.header_bytes = PRY_HEADERS_BYTES_MAX;
  pry_headers_init(&parser->head.headers);
  pry_buffer_init(&parser->line, 0);
  pry_buffer_init(&parser->request_line, 0);
}

void pry_http1_fini(struct pry_http1_parser *parser)
{
  pry_headers_fini(&parser->head.headers);
  pry_buffer_fini(&parser->line);
  pry_buffer_fini(&parser->request_line);
}

bool pry_http1_idle(const struct pry_http1_parser *parser)
{
  return parser->state == FINISHED || (parser->state == REQUEST_LINE && parser->line.size == 0);
}

static void shrink(struct pry_buffer *buffer)
{
  if (buffer->capacity > KEPT_BETWEEN_REQUESTS)
    pry_buffer_fini(buffer);
  pry_buffer_clear(buffer);
}

/* Keeps limits and small memory, forgets everything else. */
static void begin_request(struct pry_http1_parser *parser)
{
  struct pry_http1_parser next = {.limits = parser->limits,
                                  .head.headers = parser->head.headers,
                                  .line = parser->line,
                                  .request_line = parser->request_line};
  *parser = next;
  if (parser->head.headers.text.capacity > KEPT_BETWEEN_REQUESTS)
    pry_headers_fini(&parser->head.headers);
  pry_headers_clear(&parser->head.headers);
  shrink(&parser->line);
  shrink(&parser->request_line);
}

static bool fail(struct pry_http1_parser *parser, int status, const char *reason)
{
  parser->state = FAILED;
  parser->error_status = status;
  parser->error_reason = reason;
  return false;
}

static bool bad(struct pry_http1_parser *parser, const char *reason)
{
  return fail(parser, 400, reason);
}

static bool no_memory(struct pry_http1_parser *parser)
{
  return fail(parser, 503, "out of memory");
}

/* ---- request line ---- */

static bool parse_version(struct pry_http1_parser *parser, struct pry_slice text)
{
  int major;
  if (!pry_http1_parse_version(text, &major, &parser->head.minor))
    return bad(parser, "malformed HTTP version");
  if (major != 1)
    return fail(parser, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  parser->head.minor = parser->head.minor > 0;
  return true;
}

static void set_target(struct pry_http1_head *head, struct pry_slice target)
{
  head->target = target;
  if (!pry_http1_split(target, '?', &head->path, &head->query)) {
    head->path = target;
    head->query = (struct pry_slice){NULL, 0};
  }
}

/* Bytes of "http://" or "https://" at the start of the target, 0 when it is not in absolute-form. */
static size_t scheme_size(struct pry_slice target)
{
  static const struct pry_slice schemes[] = {{"http://", 7}, {"https://", 8}};
  for (size_t i = 0; i < 2; i++)
    if (target.size >= schemes[i].size &&
        pry_slice_equal_nocase((struct pry_slice){target.data, schemes[i].size}, schemes[i]))
      return schemes[i].size;
  return 0;
}

/* Splits authority from path and query. A target without a path gets one: "/" (RFC 9110 §4.2.3), or "*" for OPTIONS
 * (RFC 9112 §3.2.4); where a query follows, the two are put together in the room that take_request_line reserved. */
static bool parse_absolute(struct pry_http1_parser *parser, struct pry_slice target, size_t scheme)
{
  struct pry_http1_head *head = &parser->head;
  size_t end = scheme;
  while (end < target.size && target.data[end] != '/' && target.data[end] != '?')
    end++;
  struct pry_slice host, port;
  head->authority = (struct pry_slice){target.data + scheme, end - scheme};
  if (!pry_http1_split_authority(head->authority, &host, &port))
    return bad(parser, "malformed authority in the request-target");
  parser->default_port = scheme == 7 ? PRY_SLICE("80") : PRY_SLICE("443");
  struct pry_slice rest = pry_http1_slice_from(target, end);
  if (rest.size && rest.data[0] == '/') {
    set_target(head, rest);
  } else if (!rest.size) {
    bool options = pry_slice_equal(head->method, PRY_SLICE("OPTIONS"));
    set_target(head, options ? PRY_SLICE("*") : PRY_SLICE("/"));
  } else {
    size_t offset = parser->request_line.size;
    char *start = parser->request_line.data + offset;
    memcpy(start, "/", 1);
    memcpy(start + 1, rest.data, rest.size);
    parser->request_line.size += rest.size + 1;
    set_target(head, (struct pry_slice){start, rest.size + 1});
  }
  return true;
}

static bool parse_target(struct pry_http1_parser *parser, struct pry_slice target)
{
  struct pry_http1_head *head = &parser->head;
  if (!target.size || !pry_http1_is_target_text(target))
    return bad(parser, "malformed request-target");
  if (target.data[0] == '/') {
    set_target(head, target);
    return true;
  }
  if (pry_slice_equal(target, PRY_SLICE("*")) && pry_slice_equal(head->method, PRY_SLICE("OPTIONS"))) {
    set_target(head, target);
    return true;
  }
  size_t scheme = scheme_size(target);
  return scheme ? parse_absolute(parser, target, scheme) : bad(parser, "malformed request-target");
}

/* method SP request-target SP HTTP-version, with exactly these two spaces (RFC 9112 §3). */
static bool parse_request_line(struct pry_http1_parser *parser, struct pry_slice line)
{
  struct pry_http1_head *head = &parser->head;
  struct pry_slice method, target, version, rest;
  if (!pry_http1_split(line, ' ', &method, &rest) || !pry_http1_split(rest, ' ', &target, &version))
    return bad(parser, "malformed request line");
  if (!pry_http1_is_token(method))
    return bad(parser, "malformed method");
  if (target.size > parser->limits.target)
    return fail(parser, 414, "request-target too long");
  if (!parse_version(parser, version))
    return false;
  if (method.size > METHOD_MAX || pry_slice_equal(method, PRY_SLICE("CONNECT")))
    return fail(parser, 501, "method not supported");
  head->method = method;
  head->is_head = pry_slice_equal(method, PRY_SLICE("HEAD"));
  return parse_target(parser, target);
}

/* The head outlives the input, so the line is copied; room for a second copy of the target is reserved, because the
 * slices made from the first must not move. */
static bool take_request_line(struct pry_http1_parser *parser, struct pry_slice line)
{
  if (!line.size) {
    if (++parser->empty_lines > EMPTY_LINES_MAX)
      return bad(parser, "too many empty lines before the request");
    return true;
  }
  if (!pry_buffer_reserve(&parser->request_line, 2 * line.size))
    return no_memory(parser);
  pry_buffer_append_slice(&parser->request_line, line);
  parser->state = HEADERS;
  return parse_request_line(parser, pry_buffer_slice(&parser->request_line));
}

/* ---- header section ---- */

static bool split_field(struct pry_http1_parser *parser, struct pry_slice line, struct pry_header *field)
{
  if (line.data[0] == ' ' || line.data[0] == '\t')
    return bad(parser, "folded or indented header line");
  if (!pry_http1_split(line, ':', &field->name, &field->value))
    return bad(parser, "header line without a colon");
  if (!pry_http1_is_token(field->name))
    return bad(parser, "malformed header name");
  field->value = pry_slice_trim(field->value);
  return pry_http1_is_field_value(field->value) || bad(parser, "control byte in a header value");
}

static bool take_content_length(struct pry_http1_parser *parser, struct pry_slice value)
{
  if (parser->content_lengths++)
    return bad(parser, "more than one Content-Length");
  return pry_http1_parse_length(value, &parser->head.content_length) || bad(parser, "malformed Content-Length");
}

static bool take_transfer_encoding(struct pry_http1_parser *parser, struct pry_slice value)
{
  if (parser->transfer_encodings++)
    return bad(parser, "more than one Transfer-Encoding");
  return pry_slice_equal_nocase(value, PRY_SLICE("chunked")) ||
         bad(parser, "only Transfer-Encoding: chunked is understood");
}

static bool take_host(struct pry_http1_parser *parser, struct pry_slice value)
{
  struct pry_slice host, port;
  if (parser->hosts++)
    return bad(parser, "more than one Host");
  return pry_http1_split_authority(value, &host, &port) || bad(parser, "malformed Host");
}

static bool take_field(struct pry_http1_parser *parser, struct pry_header field)
{
  bool good = true;
  if (pry_slice_equal_nocase(field.name, PRY_SLICE("content-length")))
    good = take_content_length(parser, field.value);
  else if (pry_slice_equal_nocase(field.name, PRY_SLICE("transfer-encoding")))
    good = take_transfer_encoding(parser, field.value);
  else if (pry_slice_equal_nocase(field.name, PRY_SLICE("host")))
    good = take_host(parser, field.value);
  else if (pry_slice_equal_nocase(field.name, PRY_SLICE("expect"))) {
    parser->head.expect_continue = pry_slice_equal_nocase(field.value, PRY_SLICE("100-continue"));
    parser->bad_expect |= !parser->head.expect_continue;
  }
  return good && (pry_headers_add(&parser->head.headers, field.name, field.value) || no_memory(parser));
}

static bool check_host(struct pry_http1_parser *parser)
{
  struct pry_http1_head *head = &parser->head;
  struct pry_slice host;
  bool given = pry_headers_get(&head->headers, PRY_SLICE("host"), &host);
  if (!given)
    return head->minor == 0 || bad(parser, "missing Host");
  if (!head->authority.size)
    head->authority = host;
  else if (!pry_http1_same_authority(head->authority, host, parser->default_port))
    return bad(parser, "Host contradicts the request-target");
  return true;
}

static bool check_framing(struct pry_http1_parser *parser)
{
  struct pry_http1_head *head = &parser->head;
  if (parser->transfer_encodings) {
    if (parser->content_lengths)
      return bad(parser, "Content-Length together with Transfer-Encoding");
    if (head->minor == 0)
      return bad(parser, "Transfer-Encoding in HTTP/1.0");
    head->framing = PRY_HTTP1_CHUNKED;
  } else if (parser->content_lengths) {
    head->framing = PRY_HTTP1_LENGTH;
    if (head->content_length > parser->limits.body)
      return fail(parser, 413, "body too large");
    parser->remaining = head->content_length;
  }
  return true;
}

/* RFC 9112 §9.3: "close" wins; 1.1 stays open by itself, 1.0 by "keep-alive". */
static bool wants_keep_alive(const struct pry_http1_head *head)
{
  struct pry_slice name = PRY_SLICE("connection");
  if (pry_headers_has_token(&head->headers, name, PRY_SLICE("close")))
    return false;
  return head->minor > 0 || pry_headers_has_token(&head->headers, name, PRY_SLICE("keep-alive"));
}

static bool end_headers(struct pry_http1_parser *parser, struct pry_http1_event *event)
{
  struct pry_http1_head *head = &parser->head;
  if (!check_host(parser))
    return false;
  if (parser->bad_expect)
    return fail(parser, 417, "only Expect: 100-continue is understood");
  if (!check_framing(parser))
    return false;
  bool has_body = head->framing == PRY_HTTP1_CHUNKED || parser->remaining > 0;
  head->expect_continue = head->expect_continue && head->minor > 0 && has_body;
  head->keep_alive = wants_keep_alive(head);
  parser->state = !has_body ? COMPLETE : head->framing == PRY_HTTP1_CHUNKED ? CHUNK_SIZE : BODY;
  event->type = PRY_HTTP1_HEAD;
  return true;
}

static bool take_section_line(struct pry_http1_parser *parser, struct pry_slice line, struct pry_header *field)
{
  parser->section_bytes += line.size + 2;
  if (++parser->section_lines > parser->limits.header_lines)
    return fail(parser, 431, "too many header lines");
  return split_field(parser, line, field);
}

static bool take_header_line(struct pry_http1_parser *parser, struct pry_slice line, struct pry_http1_event *event)
{
  struct pry_header field;
  if (!line.size)
    return end_headers(parser, event);
  return take_section_line(parser, line, &field) && take_field(parser, field);
}

/* Trailers are checked like headers, then dropped: nothing in them may change what the head said (RFC 9110 §6.5.1). */
static bool take_trailer_line(struct pry_http1_parser *parser, struct pry_slice line)
{
  struct pry_header field;
  if (line.size)
    return take_section_line(parser, line, &field);
  parser->state = COMPLETE;
  return true;
}

/* ---- chunks ---- */

static bool take_chunk_size(struct pry_http1_parser *parser, struct pry_slice line)
{
  uint64_t size;
  struct pry_slice extensions;
  if (!pry_http1_parse_chunk_size(line, &size, &extensions))
    return bad(parser, "malformed chunk size");
  parser->extension_bytes += extensions.size;
  if (parser->extension_bytes > parser->limits.chunk_extensions)
    return bad(parser, "chunk extensions too long");
  if (size > parser->limits.body - parser->received)
    return fail(parser, 413, "body too large");
  parser->received += size;
  parser->remaining = size;
  parser->section_bytes = parser->section_lines = 0;
  parser->state = size ? CHUNK_DATA : TRAILERS;
  return true;
}

/* ---- lines ---- */

/* The most bytes the current line may have, its CRLF included, and what is wrong when it has more. */
static size_t line_limit(const struct pry_http1_parser *parser, int *status, const char **reason)
{
  switch (parser->state) {
  case REQUEST_LINE:
    *status = 414;
    *reason = "request line too long";
    return parser->limits.target + REQUEST_LINE_EXTRA;
  case HEADERS:
  case TRAILERS:
    *status = 431;
    *reason = "header section too large";
    return parser->limits.header_bytes - parser->section_bytes;
  default: /* the line end behind a chunk is one that must be empty */
    *status = 400;
    *reason = parser->state == CHUNK_END ? "chunk longer than its size" : "chunk size line too long";
    return parser->state == CHUNK_END ? 2 : parser->limits.chunk_line;
  }
}

static bool take_line(struct pry_http1_parser *parser, struct pry_slice line, struct pry_http1_event *event)
{
  switch (parser->state) {
  case REQUEST_LINE:
    return take_request_line(parser, line);
  case HEADERS:
    return take_header_line(parser, line, event);
  case TRAILERS:
    return take_trailer_line(parser, line);
  case CHUNK_SIZE:
    return take_chunk_size(parser, line);
  default:
    parser->state = CHUNK_SIZE;
    return line.size == 0 || bad(parser, "chunk longer than its size");
  }
}

/* Without its LF; the CR must be there. Another one is a control byte, which no line may hold. */
static bool strip_line_end(struct pry_http1_parser *parser, struct pry_slice *line)
{
  if (!line->size || line->data[line->size - 1] != '\r')
    return bad(parser, "line ended by a bare LF");
  line->size--;
  return true;
}

/* A TLS client on a plain port, for one, may never send an LF: it is answered at its first byte. */
static bool begins_request(char c)
{
  return c == '\r' || pry_http1_is_token((struct pry_slice){&c, 1});
}

/* Takes the rest of one line, and acts on it when it is whole. What is refused must not depend on how the bytes were
 * split, so the length is judged before the content, and no content but the first byte before the line is whole. */
static bool read_line(struct pry_http1_parser *parser, struct pry_slice input, size_t *taken,
                      struct pry_http1_event *event)
{
  if (parser->state == REQUEST_LINE && !parser->line.size && !begins_request(input.data[0]))
    return bad(parser, "not HTTP");
  const char *lf = memchr(input.data, '\n', input.size);
  size_t length = lf ? (size_t)(lf - input.data) : input.size;
  int status;
  const char *reason;
  size_t limit = line_limit(parser, &status, &reason);
  size_t size = parser->line.size + length + (lf ? 1 : 0);
  if (size > limit)
    return fail(parser, status, reason);
  struct pry_slice line = {input.data, length};
  if (!lf || parser->line.size) {
    if (!pry_buffer_append_slice(&parser->line, line))
      return no_memory(parser);
    line = pry_buffer_slice(&parser->line);
  }
  *taken = length + (lf ? 1 : 0);
  if (!lf)
    return true;
  bool good = strip_line_end(parser, &line) && take_line(parser, line, event);
  pry_buffer_clear(&parser->line);
  return good;
}

static void read_body(struct pry_http1_parser *parser, struct pry_slice input, size_t *taken,
                      struct pry_http1_event *event)
{
  size_t size = input.size < parser->remaining ? input.size : (size_t)parser->remaining;
  parser->remaining -= size;
  if (parser->remaining == 0)
    parser->state = parser->state == BODY ? COMPLETE : CHUNK_END;
  *taken = size;
  event->type = PRY_HTTP1_BODY;
  event->body = (struct pry_slice){input.data, size};
}

void pry_http1_feed(struct pry_http1_parser *parser, struct pry_slice input, size_t *consumed,
                    struct pry_http1_event *event)
{
  *consumed = 0;
  *event = (struct pry_http1_event){.type = PRY_HTTP1_NEED_MORE};
  if (parser->state == FINISHED)
    begin_request(parser);
  while (event->type == PRY_HTTP1_NEED_MORE && parser->state != FAILED && parser->state != COMPLETE && input.size) {
    size_t taken = 0;
    if (parser->state == BODY || parser->state == CHUNK_DATA)
      read_body(parser, input, &taken, event);
    else
      read_line(parser, input, &taken, event);
    input = pry_http1_slice_from(input, taken);
    *consumed += taken;
  }
  if (event->type != PRY_HTTP1_NEED_MORE)
    return;
  if (parser->state == COMPLETE) {
    parser->state = FINISHED;
    event->type = PRY_HTTP1_END;
  } else if (parser->state == FAILED) {
    *consumed = 0;
    *event = (struct pry_http1_event){
        .type = PRY_HTTP1_ERROR, .status = parser->error_status, .reason = parser->error_reason};
  }
}
