#include "http_head.h"

void pry_http_head_init(struct pry_http_head *head)
{
  *head = (struct pry_http_head){0};
  pry_headers_init(&head->headers);
}

void pry_http_head_fini(struct pry_http_head *head)
{
  pry_headers_fini(&head->headers);
}

bool pry_http_is_token(struct pry_slice text)
{
  static const char allowed[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  for (size_t i = 0; i < text.size; i++)
    if (!memchr(allowed, text.data[i], sizeof allowed - 1))
      return false;
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

static bool add_field(struct pry_http_head *head, struct pry_slice line)
{
  const char *colon = memchr(line.data, ':', line.size);
  if (!colon || line.data[0] == ' ' || line.data[0] == '\t')
    return false;
  struct pry_slice name = pry_slice_trim((struct pry_slice){line.data, (size_t)(colon - line.data)});
  struct pry_slice value = {colon + 1, line.size - (size_t)(colon + 1 - line.data)};
  return pry_http_is_token(name) && pry_headers_add(&head->headers, name, value);
}

static enum pry_http_head_result end_head(struct pry_http_head *head, const char **why)
{
  if (head->status < 100 || head->status == 101)
    return bad(why, "the answer has an impossible status");
  if (head->status >= 200) {
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
