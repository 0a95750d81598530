#include "proxy_status.h"

#include "http.h"

static const char *network_error(const struct pry_failure *failure)
{
  switch (failure->curl_code) {
  case PRY_HTTP_COULDNT_RESOLVE:
    return "dns_error";
  case PRY_HTTP_COULDNT_CONNECT:
    return "connection_refused";
  case PRY_HTTP_TLS_FAILED:
    return "tls_protocol_error";
  case PRY_HTTP_TLS_UNTRUSTED:
    return "tls_certificate_error";
  case PRY_HTTP_CUT:
    return "http_response_incomplete";
  case PRY_HTTP_BAD_REQUEST:
    return "proxy_configuration_error";
  default:
    return failure->sent ? "connection_terminated" : "destination_unavailable";
  }
}

const char *pry_proxy_error(const struct pry_failure *failure)
{
  switch (failure->category) {
  case PRY_TIMEOUT: /* a deadline of the call is no failure to connect, whenever it strikes */
    return failure->curl_code && !failure->sent ? "connection_timeout" : "http_response_timeout";
  case PRY_NETWORK:
    return network_error(failure);
  case PRY_OVERLOADED:
    return "destination_unavailable";
  case PRY_RATE_LIMIT:
    return "connection_limit_reached";
  case PRY_INVALID_REQUEST:
  case PRY_NOT_FOUND:
  case PRY_PAYLOAD_TOO_LARGE:
  case PRY_CONTEXT_LENGTH:
  case PRY_CONFLICT:
    return "http_request_error";
  case PRY_PERMISSION:
  case PRY_CONTENT_POLICY:
    return "http_request_denied";
  case PRY_AUTH:
  case PRY_BILLING:
    return "proxy_configuration_error"; /* the credential is the gateway's */
  default:
    return "proxy_internal_error";
  }
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

/* A string of structured fields (RFC 8941 §3.3.3): printable ASCII only. */
static bool append_quoted(struct pry_buffer *text, const char *value)
{
  bool ok = pry_buffer_append(text, "\"", 1);
  while (ok && *value) {
    size_t plain = 0;
    while (value[plain] >= 0x20 && value[plain] < 0x7F && value[plain] != '"' && value[plain] != '\\')
      plain++;
    ok = pry_buffer_append(text, value, plain);
    value += plain;
    if (!ok || !*value)
      break;
    ok = *value == '"' || *value == '\\' ? pry_buffer_append(text, "\\", 1) && pry_buffer_append(text, value, 1)
                                         : pry_buffer_append(text, "?", 1);
    value++;
  }
  return ok && pry_buffer_append(text, "\"", 1);
}

static bool append_member(struct pry_buffer *text, const struct pry_proxy_status *status)
{
  bool ok = pry_buffer_append_text(text, "parry");
  if (ok && status->next_hop && *status->next_hop)
    ok = pry_buffer_append_text(text, "; next-hop=") && append_quoted(text, status->next_hop);
  if (ok && status->received_status)
    ok = pry_buffer_append_text(text, "; received-status=") && pry_buffer_append_integer(text, status->received_status);
  if (ok && status->error)
    ok = pry_buffer_append_format(text, "; error=%s", status->error);
  if (ok && status->details)
    ok = pry_buffer_append_text(text, "; details=") && append_quoted(text, status->details);
  return ok;
}

/* All lines of the field are one list (RFC 8941 §4.2). */
static bool append_earlier(struct pry_buffer *text, const struct pry_headers *headers)
{
  bool ok = true;
  for (size_t i = 0; ok && i < headers->count; i++) {
    struct pry_header line = pry_headers_at(headers, i);
    if (pry_slice_equal_nocase(line.name, PRY_SLICE("proxy-status")) && line.value.size)
      ok = pry_buffer_append_slice(text, line.value) && pry_buffer_append_text(text, ", ");
  }
  if (ok && text->size && !pry_proxy_status_valid((struct pry_slice){text->data, text->size - 2}))
    pry_buffer_clear(text);
  return ok;
}

bool pry_proxy_status_set(struct pry_headers *headers, const struct pry_proxy_status *status)
{
  struct pry_buffer value;
  pry_buffer_init(&value, PRY_HEADERS_BYTES_MAX);
  bool ok = append_earlier(&value, headers) && append_member(&value, status) &&
            pry_headers_set(headers, PRY_SLICE("Proxy-Status"), pry_buffer_slice(&value));
  pry_buffer_fini(&value);
  return ok;
}

/* ---- reading: RFC 8941 §4.2, each step gives the first byte behind what it read, or NULL ------------------ */

static bool is_lower(char c)
{
  return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
  return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
  return is_lower(c) || (c >= 'A' && c <= 'Z');
}

static const char *skip_string(const char *p, const char *end)
{
  for (p++; p < end && *p != '"'; p++) {
    if (*p == '\\' && (++p == end || (*p != '"' && *p != '\\')))
      return NULL;
    if (*p < 0x20 || *p > 0x7E)
      return NULL;
  }
  return p < end ? p + 1 : NULL;
}

static const char *skip_token(const char *p, const char *end)
{
  while (p < end && *p && (is_letter(*p) || is_digit(*p) || strchr("!#$%&'*+-.^_`|~:/", *p)))
    p++;
  return p;
}

static const char *skip_number(const char *p, const char *end)
{
  const char *first = *p == '-' ? ++p : p, *point = NULL;
  for (; p < end && (is_digit(*p) || (*p == '.' && !point)); p++)
    if (*p == '.')
      point = p;
  size_t whole = (size_t)((point ? point : p) - first), rest = point ? (size_t)(p - point - 1) : 0;
  if (!whole || (point ? whole > 12 || rest < 1 || rest > 3 : whole > 15))
    return NULL;
  return p;
}

static const char *skip_bytes(const char *p, const char *end)
{
  p = memchr(p + 1, ':', (size_t)(end - p - 1));
  return p ? p + 1 : NULL; /* what is between is for those who decode it */
}

static const char *skip_bare_item(const char *p, const char *end)
{
  if (p == end)
    return NULL;
  if (*p == '"')
    return skip_string(p, end);
  if (*p == ':')
    return skip_bytes(p, end);
  if (*p == '?')
    return end - p > 1 && (p[1] == '0' || p[1] == '1') ? p + 2 : NULL;
  if (*p == '-' || is_digit(*p))
    return end - p > 1 || is_digit(*p) ? skip_number(p, end) : NULL;
  return is_letter(*p) || *p == '*' ? skip_token(p, end) : NULL;
}

static const char *skip_parameter(const char *p, const char *end)
{
  while (p < end && *p == ' ')
    p++;
  if (p == end || !(is_lower(*p) || *p == '*'))
    return NULL;
  while (p < end && *p && (is_lower(*p) || is_digit(*p) || strchr("_-.*", *p)))
    p++;
  return p < end && *p == '=' ? skip_bare_item(p + 1, end) : p;
}

static const char *skip_space(const char *p, const char *end)
{
  while (p < end && (*p == ' ' || *p == '\t'))
    p++;
  return p;
}

/* The name of a proxy (a token or a string, RFC 9209 §2) and its parameters. */
static const char *skip_member(const char *p, const char *end)
{
  if (p == end || !(*p == '"' || is_letter(*p) || *p == '*'))
    return NULL;
  p = skip_bare_item(p, end);
  while (p && p < end && *p == ';')
    p = skip_parameter(p + 1, end);
  return p;
}

bool pry_proxy_status_valid(struct pry_slice value)
{
  if (!value.size)
    return false;
  const char *end = value.data + value.size;
  for (const char *p = skip_space(value.data, end);;) {
    p = skip_member(p, end);
    if (!p)
      return false;
    p = skip_space(p, end);
    if (p == end)
      return true;
    if (*p != ',')
      return false;
    p = skip_space(p + 1, end);
  }
}
