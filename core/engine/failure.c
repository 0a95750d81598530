#include "failure.h"

#include "http.h"

struct category_row {
  const char *name, *doc;
  enum pry_origin origin;
  bool retryable, fallback;
};

static const struct category_row categories[PRY_CATEGORY_COUNT] = {
    [PRY_NONE] = {"none", "no failure", PRY_ORIGIN_CLIENT, false, false},
#define X(name, string, origin, retryable, fallback, doc) [name] = {string, doc, origin, retryable, fallback},
    PRY_CATEGORIES(X)
#undef X
};

static const char *const origins[] = {
#define X(name, string) [name] = string,
    PRY_ORIGINS(X)
#undef X
};

static const struct {
  int status;
  enum pry_category category;
} statuses[] = {
    {400, PRY_INVALID_REQUEST}, {401, PRY_AUTH},       {402, PRY_BILLING},  {403, PRY_PERMISSION},
    {404, PRY_NOT_FOUND},       {408, PRY_TIMEOUT},    {409, PRY_CONFLICT}, {413, PRY_PAYLOAD_TOO_LARGE},
    {429, PRY_RATE_LIMIT},      {500, PRY_SERVER},     {502, PRY_SERVER},   {503, PRY_OVERLOADED},
    {504, PRY_TIMEOUT},         {529, PRY_OVERLOADED},
};

const char *pry_category_name(enum pry_category category)
{
  return categories[category].name;
}

const char *pry_category_doc(enum pry_category category)
{
  return categories[category].doc;
}

const char *pry_origin_name(enum pry_origin origin)
{
  return origins[origin];
}

const char *pry_source_name(enum pry_source source)
{
  return source == PRY_SOURCE_PARRY ? "parry" : "provider";
}

enum pry_category pry_category_from_name(struct pry_slice name)
{
  for (enum pry_category category = PRY_AUTH; category < PRY_CATEGORY_COUNT; category++)
    if (pry_slice_equal(name, pry_slice_of(categories[category].name)))
      return category;
  return PRY_NONE;
}

void pry_failure_set_category(struct pry_failure *failure, enum pry_category category)
{
  const struct category_row *row = &categories[category];
  failure->category = category;
  failure->origin = category == PRY_TIMEOUT && !failure->status ? PRY_ORIGIN_NETWORK : row->origin;
  failure->retryable = row->retryable;
  failure->fallback = row->fallback;
  failure->refresh_token = category == PRY_AUTH;
}

struct pry_failure pry_failure_of(enum pry_category category)
{
  struct pry_failure failure = {.retry_after = -1, .source = PRY_SOURCE_PROVIDER};
  pry_failure_set_category(&failure, category);
  return failure;
}

static enum pry_category category_of_status(int status)
{
  for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
    if (statuses[i].status == status)
      return statuses[i].category;
  if (status < 400)
    return PRY_NONE;
  return status < 500 ? PRY_INVALID_REQUEST : PRY_SERVER;
}

struct pry_failure pry_failure_from_status(int status)
{
  struct pry_failure failure = {.retry_after = -1, .source = PRY_SOURCE_PROVIDER, .status = status, .sent = true};
  pry_failure_set_category(&failure, category_of_status(status));
  return failure;
}

bool pry_curl_code_sent(int curl_code)
{
  static const unsigned char before[] = {1,  2,  3,  4,  5,  6,  7,  35, 41, 43, 48, 53, 54,
                                         58, 59, 60, 64, 66, 77, 82, 83, 90, 91, 96, 97, 98};
  for (size_t i = 0; i < sizeof before; i++)
    if (curl_code == before[i])
      return false;
  return true;
}

struct pry_failure pry_failure_from_curl(int curl_code, bool sent)
{
  struct pry_failure failure = {.retry_after = -1, .source = PRY_SOURCE_PROVIDER, .curl_code = curl_code, .sent = sent};
  pry_failure_set_category(&failure, curl_code == PRY_HTTP_TIMED_OUT ? PRY_TIMEOUT : PRY_NETWORK);
  return failure;
}

/* auth: refresh_token says it. */
static bool category_refuses(const struct pry_failure *failure)
{
  switch (failure->category) {
  case PRY_RATE_LIMIT:
  case PRY_BILLING:
  case PRY_PERMISSION:
    return true;
  case PRY_OVERLOADED:
    return failure->retry_after >= 0;
  default:
    return false;
  }
}

bool pry_failure_is_refusal(const struct pry_failure *failure, bool told_by_host)
{
  bool of_provider = failure->source == PRY_SOURCE_PROVIDER;
  bool bad_key =
      of_provider && failure->status >= 400 &&
      (failure->category == PRY_AUTH || failure->category == PRY_BILLING || failure->category == PRY_PERMISSION);
  if (failure->status == 429 || (failure->status == 503 && failure->retry_after >= 0) || failure->refresh_token ||
      bad_key)
    return true;
  return told_by_host && of_provider && !failure->status && !failure->curl_code && category_refuses(failure);
}

/* Bytes at `p` that steer a terminal or break a line for some reader: controls of ASCII and of Latin-1 (U+0080 to U+009F),
 * U+2028 and U+2029. 0: none. */
static size_t control_length(const unsigned char *p, size_t left)
{
  if (*p < 0x20 || *p == 0x7F)
    return 1;
  if (*p == 0xC2 && left > 1 && p[1] >= 0x80 && p[1] < 0xA0)
    return 2;
  return *p == 0xE2 && left > 2 && p[1] == 0x80 && (p[2] == 0xA8 || p[2] == 0xA9) ? 3 : 0;
}

/* Copies at most size - 1 bytes, never half a UTF-8 sequence, and nothing that would break a log line. */
static void copy_text(char *to, size_t size, struct pry_slice from)
{
  size_t length = from.size < size - 1 ? from.size : size - 1;
  if (length < from.size)
    while (length && ((unsigned char)from.data[length] & 0xC0) == 0x80)
      length--;
  size_t i = 0;
  while (i < length) {
    size_t control = control_length((const unsigned char *)from.data + i, length - i);
    if (control)
      memset(to + i, ' ', control);
    else
      to[i] = from.data[i];
    i += control ? control : 1;
  }
  to[length] = '\0';
}

void pry_failure_set_code(struct pry_failure *failure, struct pry_slice code)
{
  copy_text(failure->code, sizeof failure->code, code);
}

void pry_failure_set_message(struct pry_failure *failure, struct pry_slice message)
{
  copy_text(failure->message, sizeof failure->message, message);
}

int pry_failure_client_status(const struct pry_failure *failure)
{
  if (failure->status >= 400)
    return failure->status;
  switch (failure->category) {
  case PRY_INVALID_REQUEST:
  case PRY_CONTEXT_LENGTH:
  case PRY_CONTENT_POLICY:
    return 400;
  case PRY_AUTH:
    return 401;
  case PRY_BILLING:
    return failure->source == PRY_SOURCE_PROVIDER ? 402 : 503;
  case PRY_PERMISSION:
    return failure->source == PRY_SOURCE_PROVIDER ? 403 : 503;
  case PRY_NOT_FOUND:
    return 404;
  case PRY_CONFLICT:
    return failure->source == PRY_SOURCE_PROVIDER ? 409 : 503;
  case PRY_PAYLOAD_TOO_LARGE:
    return 413;
  case PRY_RATE_LIMIT:
    return 429;
  case PRY_SERVER:
  case PRY_NETWORK:
    return 502;
  case PRY_TIMEOUT:
    return 504;
  default:
    return 503;
  }
}
