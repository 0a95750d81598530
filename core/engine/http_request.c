#include "http_internal.h"

#include <stdlib.h>

enum { FIRST_LINES = 16, FIRST_LINE_BYTES = 500 };

/* ---- Its head ------------------------------------------------------------------------------------------- */

/* Framing and the connection are ours; Transfer-Encoding and Upgrade would change how curl frames. */
static bool is_ours(struct pry_slice name)
{
  static const struct pry_slice ours[] = {
      PRY_SLICE_INIT("host"),       PRY_SLICE_INIT("content-length"),   PRY_SLICE_INIT("connection"),
      PRY_SLICE_INIT("keep-alive"), PRY_SLICE_INIT("proxy-connection"), PRY_SLICE_INIT("transfer-encoding"),
      PRY_SLICE_INIT("te"),         PRY_SLICE_INIT("trailer"),          PRY_SLICE_INIT("upgrade"),
      PRY_SLICE_INIT("expect"),     PRY_SLICE_INIT("accept-encoding")};
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (pry_slice_equal_nocase(name, ours[i]))
      return true;
  return false;
}

/* "Name:" without a value tells curl not to send its own. */
static const char *const silenced_headers[] = {"Accept", "User-Agent", "Content-Type", NULL};

/* curl reads the list while the exchange lasts, and writes nothing into it. */
static bool begin_line(struct exchange *exchange)
{
  if (exchange->line_count < exchange->line_capacity)
    return true;
  size_t capacity = exchange->line_capacity ? exchange->line_capacity * 2 : FIRST_LINES;
  struct curl_slist *lines = realloc(exchange->lines, capacity * sizeof *lines);
  if (!lines)
    return false;
  exchange->lines = lines;
  exchange->line_capacity = capacity;
  return true;
}

static bool append_line(struct exchange *exchange, struct pry_slice name, const char *between, struct pry_slice value)
{
  struct pry_buffer *text = &exchange->line_text;
  if (!begin_line(exchange) || !pry_buffer_append_slice(text, name) || !pry_buffer_append_text(text, between) ||
      !pry_buffer_append_slice(text, value) || !pry_buffer_append(text, "", 1))
    return false;
  exchange->line_count++;
  return true;
}

/* When the text is complete, and stays where it is. */
static void link_lines(struct exchange *exchange)
{
  char *line = exchange->line_text.data;
  for (size_t i = 0; i < exchange->line_count; i++) {
    bool last = i + 1 == exchange->line_count;
    exchange->lines[i] = (struct curl_slist){.data = line, .next = last ? NULL : &exchange->lines[i + 1]};
    line += strlen(line) + 1;
  }
}

static bool build_lines(struct exchange *exchange, const struct pry_http_request *request)
{
  const struct pry_slice nothing = {NULL, 0};
  const struct pry_headers *headers = request->headers;
  bool built = pry_buffer_reserve(&exchange->line_text, FIRST_LINE_BYTES) &&
               append_line(exchange, PRY_SLICE("Accept-Encoding"), ": ", PRY_SLICE("identity")) &&
               append_line(exchange, PRY_SLICE("Expect"), ":", nothing);
  if (built && request->upload && request->upload_size < 0)
    built = append_line(exchange, PRY_SLICE("Transfer-Encoding"), ": ", PRY_SLICE("chunked"));
  for (size_t i = 0; built && headers && i < headers->count; i++) {
    struct pry_header header = pry_headers_at(headers, i);
    if (!pry_http_is_token(header.name))
      pry_http_set_fault(exchange, PRY_HTTP_BAD_REQUEST, "a header's name is not a token");
    else if (!is_ours(header.name)) /* a semicolon is how curl spells an empty value */
      built = append_line(exchange, header.name, header.value.size ? ": " : ";", header.value);
  }
  for (const char *const *name = silenced_headers; built && *name; name++) {
    struct pry_slice ignored;
    if (!headers || !pry_headers_get(headers, pry_slice_of(*name), &ignored))
      built = append_line(exchange, pry_slice_of(*name), ":", nothing);
  }
  if (built)
    link_lines(exchange);
  return built;
}

static bool url_is_clean(const char *url)
{
  for (const unsigned char *c = (const unsigned char *)url; *c; c++)
    if (*c <= ' ' || *c == 0x7F)
      return false;
  return true;
}

#define SET(option, value) (code = code ? code : curl_easy_setopt(exchange->easy, option, value))

/* ---- Its body, when it is longer than we keep ------------------------------------------------------------- */

static size_t on_upload(char *to, size_t unit, size_t count, void *user)
{
  struct exchange *exchange = user;
  size_t room = unit * count;
  if (exchange->upload_left >= 0 && room > (uint64_t)exchange->upload_left)
    room = (size_t)exchange->upload_left;
  if (pry_http_unwelcome(exchange))
    return CURL_READFUNC_ABORT;
  ptrdiff_t size = room ? exchange->ops->on_upload(exchange->user, to, room) : 0;
  if (size == 0 && exchange->upload_left > 0)
    pry_http_set_fault(exchange, PRY_HTTP_UPLOAD_ENDED, "the request's body ended before its length");
  if (size == PRY_HTTP_UPLOAD_FAILED)
    pry_http_set_fault(exchange, PRY_HTTP_UPLOAD_ENDED, "the request's body broke off");
  if (pry_http_unwelcome(exchange))
    return CURL_READFUNC_ABORT;
  if (size == PRY_HTTP_UPLOAD_WAIT) {
    exchange->upload_paused = true;
    return CURL_READFUNC_PAUSE;
  }
  if (exchange->upload_left > 0)
    exchange->upload_left -= size;
  return (size_t)size;
}

static CURLcode set_upload(struct exchange *exchange, const struct pry_http_request *request)
{
  CURLcode code = CURLE_OK;
  exchange->upload_left = request->upload_size;
  exchange->repeatable = false; /* what was taken once is not there a second time */
  SET(CURLOPT_POST, 1L);
  SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->upload_size);
  SET(CURLOPT_READFUNCTION, on_upload);
  SET(CURLOPT_READDATA, exchange);
  return code;
}

/* ---- What curl is told ------------------------------------------------------------------------------------ */

CURLcode pry_http_set_transport(struct exchange *exchange)
{
  const struct client *client = exchange->client;
  CURLcode code = CURLE_OK;
  SET(CURLOPT_NOSIGNAL, 1L);
  SET(CURLOPT_QUICK_EXIT, 1L); /* or cancelling would wait for the resolver's thread */
  SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  SET(CURLOPT_PROTOCOLS_STR, "http,https");
  SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
  SET(CURLOPT_PATH_AS_IS, 1L);
  SET(CURLOPT_TCP_NODELAY, 1L);
  SET(CURLOPT_TCP_KEEPALIVE, 1L);
  SET(CURLOPT_BUFFERSIZE, (long)PRY_HTTP_CHUNK_MAX);
  SET(CURLOPT_UPLOAD_BUFFERSIZE, (long)PRY_HTTP_CHUNK_MAX);
  SET(CURLOPT_HTTP_CONTENT_DECODING, 0L);
  SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  SET(CURLOPT_PROXY, client->proxy ? client->proxy : ""); /* "": not the environment's either */
  SET(CURLOPT_NOPROXY, "");
  if (client->ca_file) {
    SET(CURLOPT_CAINFO, client->ca_file);
    SET(CURLOPT_CAPATH, NULL); /* or the system's folder would be believed, too */
  }
  return code;
}

static CURLcode set_request(struct exchange *exchange, const struct pry_http_request *request)
{
  CURLcode code = CURLE_OK;
  SET(CURLOPT_URL, request->url);
  if (request->fresh)
    SET(CURLOPT_FRESH_CONNECT, 1L);
  SET(CURLOPT_HTTPHEADER, exchange->lines);
  if (strcmp(request->method, "HEAD") == 0) {
    SET(CURLOPT_NOBODY, 1L);
    return code;
  }
  if (request->upload)
    code = set_upload(exchange, request);
  else if (request->body.size || request->has_body) {
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.size);
    SET(CURLOPT_POSTFIELDS, request->body.size ? request->body.data : "");
  } else
    SET(CURLOPT_HTTPGET, 1L);
  SET(CURLOPT_CUSTOMREQUEST, request->method);
  return code;
}

/* Each request sets its URL and its method; what only some of them set must not stay for others. */
bool pry_http_forget_request(struct exchange *exchange)
{
  CURLcode code = CURLE_OK;
  SET(CURLOPT_CUSTOMREQUEST, NULL);
  SET(CURLOPT_HTTPHEADER, NULL);
  SET(CURLOPT_POSTFIELDS, NULL);
  SET(CURLOPT_READFUNCTION, NULL);
  SET(CURLOPT_READDATA, NULL);
  SET(CURLOPT_HTTPGET, 1L); /* takes back NOBODY, and the POST that POSTFIELDS makes of it */
  SET(CURLOPT_FRESH_CONNECT, 0L);
  if (exchange->line_text.data) /* our credentials are among them */
    explicit_bzero(exchange->line_text.data, exchange->line_text.size);
  pry_buffer_clear(&exchange->line_text);
  exchange->line_count = 0;
  return code == CURLE_OK;
}

#undef SET

static bool method_is_idempotent(const char *method)
{
  static const char *const idempotent[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", NULL};
  for (const char *const *name = idempotent; *name; name++)
    if (strcmp(method, *name) == 0)
      return true;
  return false;
}

bool pry_http_prepare_request(struct exchange *exchange, const struct pry_http_request *request)
{
  if (!build_lines(exchange, request))
    return false;
  if (!pry_http_is_token(pry_slice_of(request->method)))
    pry_http_set_fault(exchange, PRY_HTTP_BAD_REQUEST, "the method is not a token");
  if (!url_is_clean(request->url))
    pry_http_set_fault(exchange, PRY_HTTP_BAD_REQUEST, "the URL has spaces or control characters");
  exchange->repeatable = method_is_idempotent(request->method);
  exchange->public_only = request->public_only;
  exchange->timed = request->fresh;
  CURLcode code = set_request(exchange, request);
  if (code != CURLE_OK && code != CURLE_OUT_OF_MEMORY)
    pry_http_set_fault(exchange, (int)code, NULL);
  return code != CURLE_OUT_OF_MEMORY;
}
