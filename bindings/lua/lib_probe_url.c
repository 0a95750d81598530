/* Which URLs from outside http.probe asks. Declared in lib_http.h. */
#include "lib_http.h"

#include "address.h"

#include <arpa/inet.h>
#include <stdio.h>

static bool refuse(struct pry_probe_refusal *refusal, const char *category, const char *message)
{
  *refusal = (struct pry_probe_refusal){category, message};
  return false;
}

/* Fragments are not sent (RFC 9110 §4.2.4); people write URLs in their own script, servers want them encoded. */
static bool append_encoded(struct pry_buffer *out, struct pry_slice url)
{
  static const char digits[] = "0123456789ABCDEF";
  bool appended = true;
  for (size_t i = 0; appended && i < url.size && url.data[i] != '#'; i++) {
    unsigned char c = (unsigned char)url.data[i];
    char escape[3] = {'%', digits[c >> 4], digits[c & 15]};
    appended = c < 0x7F ? pry_buffer_append(out, &url.data[i], 1) : pry_buffer_append(out, escape, sizeof escape);
  }
  return appended;
}

static const char *text_complaint(struct pry_slice url)
{
  for (size_t i = 0; i < url.size; i++)
    if ((unsigned char)url.data[i] <= 0x20 || url.data[i] == 0x7F || url.data[i] == '\\')
      return "the url holds spaces, backslashes or control characters";
  return NULL;
}

bool pry_probe_is_allowed(struct pry_slice url, const struct pry_text_list *allowed)
{
  struct pry_http_origin origin;
  char text[PRY_HTTP_URL_MAX];
  if (!allowed->count || !pry_http_read_origin(url, &origin))
    return false;
  snprintf(text, sizeof text, "%.*s:%lu", (int)origin.host.size, origin.host.data, origin.port);
  for (size_t i = 0; i < allowed->count; i++)
    if (pry_slice_equal_nocase(pry_slice_of(text), pry_slice_of(allowed->items[i])))
      return true;
  return false;
}

/* An address in its usual spelling. Others ("0x7f.1", "2130706433") are found when the connection is made. */
static bool is_private_literal(struct pry_slice host)
{
  char text[64];
  unsigned char address[16];
  if (host.size && host.data[0] == '[')
    host = (struct pry_slice){host.data + 1, host.size - 2};
  if (host.size >= sizeof text)
    return false;
  snprintf(text, sizeof text, "%.*s", (int)host.size, host.data);
  bool literal = inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
  return literal && !pry_address_text_is_public(text);
}

bool pry_probe_check_url(struct pry_slice url, const struct pry_text_list *allowed, struct pry_buffer *out,
                         struct pry_probe_refusal *refusal)
{
  struct pry_http_origin origin;
  const char *complaint = text_complaint(url);
  pry_buffer_clear(out);
  if (complaint)
    return refuse(refusal, "invalid_request", complaint);
  if (!pry_http_read_origin(url, &origin))
    return refuse(refusal, "invalid_request", "the url must be http:// or https:// with a host and no user name");
  if (!append_encoded(out, url))
    return refuse(refusal, "invalid_request", "the url is too long");
  if (pry_probe_is_allowed(url, allowed))
    return true;
  if (is_private_literal(origin.host))
    return refuse(refusal, "permission", "the url leads into a network that is not public");
  if (origin.port < 1024 && origin.port != 80 && origin.port != 443)
    return refuse(refusal, "permission", "the url names a port that is no web server's");
  return true;
}

/* ---- redirects ------------------------------------------------------------------------------------------------ */

static bool is_absolute(struct pry_slice location)
{
  for (size_t i = 0; i < location.size && !strchr("/?#", location.data[i]); i++)
    if (location.data[i] == ':')
      return true;
  return false;
}

/* How much of the URL stays in front of what `location` says. */
static size_t kept_size(struct pry_slice url, struct pry_slice location)
{
  size_t scheme = pry_slice_starts_with(url, PRY_SLICE("https://")) ? 6 : 5, host = scheme + 2, end = host;
  if (pry_slice_starts_with(location, PRY_SLICE("//")))
    return scheme;
  while (end < url.size && !strchr("/?#", url.data[end]))
    end++;
  if (location.size && location.data[0] == '/')
    return end;
  size_t path = end;
  while (path < url.size && !strchr("?#", url.data[path]))
    path++;
  if (!location.size || location.data[0] == '?' || location.data[0] == '#')
    return path;
  while (path > end && url.data[path - 1] != '/')
    path--;
  return path;
}

bool pry_probe_redirect(struct pry_slice url, struct pry_slice location, struct pry_buffer *out)
{
  bool absolute = is_absolute(location);
  size_t kept = absolute ? 0 : kept_size(url, location);
  bool needs_slash =
      !absolute && location.size && !strchr("/?#", location.data[0]) && (kept == 0 || url.data[kept - 1] != '/');
  pry_buffer_clear(out);
  if (!pry_buffer_append(out, url.data, kept) || (needs_slash && !pry_buffer_append(out, "/", 1)) ||
      !pry_buffer_append_slice(out, location))
    return false;
  return !pry_slice_starts_with(url, PRY_SLICE("https://")) ||
         !pry_slice_starts_with(pry_buffer_slice(out), PRY_SLICE("http://"));
}
