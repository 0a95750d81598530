#include "http_head.h"

#include <stdint.h>

void pry_http_head_init(struct pry_http_head *head)
{
  *head = (struct pry_http_head){0};
  pry_headers_init(&head->headers);
}

void pry_http_head_clear(struct pry_http_head *head)
{
  struct pry_headers headers = head->headers;
  pry_headers_clear(&headers);
  *head = (struct pry_http_head){.headers = headers};
}

void pry_http_head_fini(struct pry_http_head *head)
{
  pry_headers_fini(&head->headers);
}

bool pry_http_is_token(struct pry_slice text)
{
  /* A bit for each of !#$%&'*+-.^_`|~, digits and letters. */
  static const uint64_t allowed[4] = {0x03ff6cfa00000000, 0x57ffffffc7fffffe, 0, 0};
  for (size_t i = 0; i < text.size; i++) {
    unsigned char c = (unsigned char)text.data[i];
    if (!(allowed[c / 64] >> (c % 64) & 1))
      return false;
  }
  return text.size > 0;
}

/* "HTTP/1.1 200 …"; 0 when there is no three-digit number. */
static int status_of(struct pry_slice line)
{
  const char *space = line.size ? memchr(line.data, ' ', line.size) : NULL;
  size_t left = space ? line.size - (size_t)(space + 1 - line.data) : 0;
  int status = 0;
  for (size_t i = 1; i <= 3; i++) {
    if (i > left || space[i] < '0' || space[i] > '9')
      return 0;
    status = status * 10 + (space[i] - '0');
  }
  return status;
}

static enum pry_http_head_result bad(const char **why, const char *text)
{
  *why = text;
  return PRY_HTTP_HEAD_BAD;
}

static bool is_number(struct pry_slice text)
{
  for (size_t i = 0; i < text.size; i++)
    if (text.data[i] < '0' || text.data[i] > '9')
      return false;
  return text.size > 0;
}

/* curl reads "+5", "0x5", the last of two lengths and a coding it does not know in ways of its own, and no length at
 * all where a blank stands before the colon. A length passed on must be the one that curl went by. */
static bool frames_plainly(const struct pry_http_head *head, struct pry_slice name, struct pry_slice value, bool blank)
{
  struct pry_slice before;
  bool length = pry_slice_equal_nocase(name, PRY_SLICE("content-length"));
  if (!length && !pry_slice_equal_nocase(name, PRY_SLICE("transfer-encoding")))
    return true;
  if (blank || (pry_headers_get(&head->headers, name, &before) && !pry_slice_equal(before, value)))
    return false;
  return length ? is_number(value)
                : pry_slice_equal_nocase(value, PRY_SLICE("chunked")) ||
                      pry_slice_equal_nocase(value, PRY_SLICE("identity"));
}

static bool add_field(struct pry_http_head *head, struct pry_slice line)
{
  const char *colon = memchr(line.data, ':', line.size);
  if (!colon || line.data[0] == ' ' || line.data[0] == '\t')
    return false;
  struct pry_slice before = {line.data, (size_t)(colon - line.data)};
  struct pry_slice name = pry_slice_trim(before);
  struct pry_slice value = pry_slice_trim((struct pry_slice){colon + 1, line.size - before.size - 1});
  return pry_http_is_token(name) && frames_plainly(head, name, value, name.size != before.size) &&
         pry_headers_add(&head->headers, name, value);
}

static enum pry_http_head_result end_head(struct pry_http_head *head, const char **why)
{
  if (head->status < 100 || head->status == 101)
    return bad(why, "the answer has an impossible status");
  if (head->status >= 200) {
    if (pry_headers_has_token(&head->headers, PRY_SLICE("transfer-encoding"), PRY_SLICE("chunked")))
      pry_headers_remove(&head->headers, PRY_SLICE("content-length"));
    head->complete = true;
    return PRY_HTTP_HEAD_COMPLETE;
  }
  if (++head->interim_heads > PRY_HTTP_INTERIM_HEADS_MAX)
    return bad(why, "too many informational answers");
  head->begun = false;
  pry_headers_clear(&head->headers);
  return PRY_HTTP_HEAD_MORE;
}

enum pry_http_head_result pry_http_head_add(struct pry_http_head *head, struct pry_slice line, const char **why)
{
  if (head->complete) {
    head->trailer_bytes += line.size;
    return head->trailer_bytes > PRY_HEADERS_BYTES_MAX ? bad(why, "the trailers are too long") : PRY_HTTP_HEAD_MORE;
  }
  while (line.size && (line.data[line.size - 1] == '\n' || line.data[line.size - 1] == '\r'))
    line.size--;
  if (!head->begun) {
    head->begun = true;
    head->status = status_of(line);
    return PRY_HTTP_HEAD_MORE;
  }
  if (!line.size)
    return end_head(head, why);
  return add_field(head, line) ? PRY_HTTP_HEAD_MORE : bad(why, "the answer's head is too long or malformed");
}
