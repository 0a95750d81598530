#include "http1_text.h"

enum { CHUNK_DIGITS_MAX = 16 };

static bool is_digit(unsigned char c)
{
  return c >= '0' && c <= '9';
}

static bool is_alpha(unsigned char c)
{
  return pry_ascii_lower(c) >= 'a' && pry_ascii_lower(c) <= 'z';
}

static int hex_value(unsigned char c)
{
  if (is_digit(c))
    return c - '0';
  c = pry_ascii_lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* tchar, RFC 9110 §5.6.2 */
static bool is_token_char(unsigned char c)
{
  return is_alpha(c) || is_digit(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

bool pry_http1_is_token(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++)
    if (!is_token_char((unsigned char)text.data[i]))
      return false;
  return text.size > 0;
}

bool pry_http1_is_target_text(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++) {
    unsigned char c = (unsigned char)text.data[i];
    if (c <= 0x20 || c >= 0x7F || c == '#' || c == '\\')
      return false;
  }
  return true;
}

bool pry_http1_is_field_value(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++) {
    unsigned char c = (unsigned char)text.data[i];
    if ((c < 0x20 && c != '\t') || c == 0x7F)
      return false;
  }
  return true;
}

struct pry_slice pry_http1_slice_from(struct pry_slice text, size_t start)
{
  return (struct pry_slice){text.data + start, text.size - start};
}

bool pry_http1_split(struct pry_slice text, char separator, struct pry_slice *before, struct pry_slice *after)
{
  const char *place = text.size ? memchr(text.data, separator, text.size) : NULL;
  if (!place)
    return false;
  size_t size = (size_t)(place - text.data);
  *before = (struct pry_slice){text.data, size};
  *after = pry_http1_slice_from(text, size + 1);
  return true;
}

bool pry_http1_parse_version(struct pry_slice text, int *major, int *minor)
{
  if (text.size != 8 || memcmp(text.data, "HTTP/", 5) != 0 || text.data[6] != '.' ||
      !is_digit((unsigned char)text.data[5]) || !is_digit((unsigned char)text.data[7]))
    return false;
  *major = text.data[5] - '0';
  *minor = text.data[7] - '0';
  return true;
}

/* ---- authority ---- */

static bool is_port(struct pry_slice text)
{
  unsigned port = 0;
  if (text.size > 5)
    return false;
  for (size_t i = 0; i < text.size; i++) {
    if (!is_digit((unsigned char)text.data[i]))
      return false;
    port = port * 10 + (unsigned)(text.data[i] - '0');
  }
  return port <= 65535;
}

/* reg-name without ",", which could be two Host lines merged into one. */
static bool is_host_name(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++) {
    unsigned char c = (unsigned char)text.data[i];
    if (!is_alpha(c) && !is_digit(c) && !(c && strchr("-._~%!$&'()*+;=", c)))
      return false;
  }
  return text.size > 0;
}

static bool is_ip_literal(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++) {
    unsigned char c = (unsigned char)text.data[i];
    if (hex_value(c) < 0 && c != ':' && c != '.')
      return false;
  }
  return text.size >= 2;
}

bool pry_http1_split_authority(struct pry_slice text, struct pry_slice *host, struct pry_slice *port)
{
  *port = (struct pry_slice){NULL, 0};
  if (text.size && text.data[0] == '[') {
    struct pry_slice address, rest;
    if (!pry_http1_split(pry_http1_slice_from(text, 1), ']', &address, &rest) || !is_ip_literal(address))
      return false;
    *host = (struct pry_slice){text.data, address.size + 2};
    if (rest.size && rest.data[0] != ':')
      return false;
    *port = rest.size ? pry_http1_slice_from(rest, 1) : rest;
    return is_port(*port);
  }
  if (!pry_http1_split(text, ':', host, port))
    *host = text;
  return is_host_name(*host) && is_port(*port);
}

bool pry_http1_same_authority(struct pry_slice a, struct pry_slice b, struct pry_slice default_port)
{
  struct pry_slice host_a, port_a, host_b, port_b;
  if (!pry_http1_split_authority(a, &host_a, &port_a) || !pry_http1_split_authority(b, &host_b, &port_b))
    return false;
  return pry_slice_equal_nocase(host_a, host_b) &&
         pry_slice_equal(port_a.size ? port_a : default_port, port_b.size ? port_b : default_port);
}

/* ---- lengths ---- */

bool pry_http1_parse_length(struct pry_slice text, uint64_t *length)
{
  uint64_t value = 0;
  for (size_t i = 0; i < text.size; i++) {
    unsigned char c = (unsigned char)text.data[i];
    if (!is_digit(c) || value > (INT64_MAX - (uint64_t)(c - '0')) / 10)
      return false;
    value = value * 10 + (uint64_t)(c - '0');
  }
  *length = value;
  return text.size > 0;
}

static size_t skip_blanks(struct pry_slice text, size_t i)
{
  while (i < text.size && (text.data[i] == ' ' || text.data[i] == '\t'))
    i++;
  return i;
}

static size_t skip_token(struct pry_slice text, size_t i)
{
  while (i < text.size && is_token_char((unsigned char)text.data[i]))
    i++;
  return i;
}

/* Behind the closing quote, or `i` when there is none. */
static size_t skip_quoted(struct pry_slice text, size_t i)
{
  for (size_t j = i + 1; j < text.size; j++) {
    if (text.data[j] == '"')
      return j + 1;
    if (text.data[j] == '\\')
      j++;
  }
  return i;
}

/* *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ), RFC 9112 §7.1.1 */
static bool is_chunk_extensions(struct pry_slice text)
{
  size_t i = 0;
  while (i < text.size) {
    i = skip_blanks(text, i);
    if (i == text.size || text.data[i] != ';')
      return false;
    size_t name = skip_blanks(text, i + 1);
    i = skip_token(text, name);
    if (i == name)
      return false;
    size_t equals = skip_blanks(text, i);
    if (equals == text.size || text.data[equals] != '=')
      continue;
    size_t value = skip_blanks(text, equals + 1);
    i = value < text.size && text.data[value] == '"' ? skip_quoted(text, value) : skip_token(text, value);
    if (i == value)
      return false;
  }
  return pry_http1_is_field_value(text);
}

bool pry_http1_parse_chunk_size(struct pry_slice line, uint64_t *size, struct pry_slice *extensions)
{
  uint64_t value = 0;
  size_t digits = 0;
  while (digits < line.size && digits <= CHUNK_DIGITS_MAX && hex_value((unsigned char)line.data[digits]) >= 0)
    value = value << 4 | (uint64_t)hex_value((unsigned char)line.data[digits++]);
  if (!digits || digits > CHUNK_DIGITS_MAX || value > INT64_MAX)
    return false;
  *size = value;
  *extensions = pry_http1_slice_from(line, digits);
  return is_chunk_extensions(*extensions);
}
