#include "declare_text.h"

/* ---- names -------------------------------------------------------------------------------------------- */

static bool is_letter_or_digit(char c)
{
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

const char *pry_name_complaint(struct pry_slice name)
{
  if (!name.size)
    return "is empty";
  if (name.size >= PRY_NAME_MAX)
    return "is longer than 63 bytes";
  for (size_t i = 0; i < name.size; i++) {
    if (name.data[i] == '/')
      return "contains \"/\", which separates provider and model";
    if (!is_letter_or_digit(name.data[i]) && !strchr("_-.", name.data[i]))
      return "may hold only letters, digits, \"_\", \"-\" and \".\"";
    if (!name.data[i])
      return "contains a NUL byte";
  }
  return NULL;
}

/* ---- the line of a field ------------------------------------------------------------------------------- */

/* Walks Lua text token by token, just well enough to tell fields of constructors from comments and strings. */
struct reader {
  const char *at, *end;
  int line;
  struct pry_slice token; /* name, number, text of a quoted string, or one punctuation byte */
  char kind;              /* 'n' name, 's' string, 'p' punctuation, 0 end */
};

/* "[[", "[==[": the number of '=' plus 1; 0 when this is no long bracket. */
static size_t long_bracket(const char *at, const char *end)
{
  const char *start = at++;
  while (at < end && *at == '=')
    at++;
  return at < end && *at == '[' ? (size_t)(at - start) : 0;
}

static void skip_long(struct reader *reader, size_t level)
{
  reader->at += level + 1;
  for (; reader->at < reader->end; reader->at++) {
    reader->line += *reader->at == '\n';
    if (*reader->at != ']' || (size_t)(reader->end - reader->at) < level + 1 || reader->at[level] != ']')
      continue;
    size_t equals = 1;
    while (equals < level && reader->at[equals] == '=')
      equals++;
    if (equals == level) {
      reader->at += level + 1;
      return;
    }
  }
}

static void skip_line(struct reader *reader)
{
  while (reader->at < reader->end && *reader->at != '\n')
    reader->at++;
}

/* White space and comments. */
static void skip_space(struct reader *reader)
{
  while (reader->at < reader->end) {
    char c = *reader->at;
    if (c == '-' && reader->end - reader->at >= 2 && reader->at[1] == '-') {
      reader->at += 2;
      size_t level = reader->at < reader->end && *reader->at == '[' ? long_bracket(reader->at, reader->end) : 0;
      if (level)
        skip_long(reader, level);
      else
        skip_line(reader);
    } else if (c == ' ' || (c >= '\t' && c <= '\r')) {
      reader->line += c == '\n';
      reader->at++;
    } else {
      return;
    }
  }
}

static void read_quoted(struct reader *reader)
{
  char quote = *reader->at++;
  const char *start = reader->at;
  while (reader->at < reader->end && *reader->at != quote && *reader->at != '\n')
    reader->at += *reader->at == '\\' && reader->end - reader->at >= 2 ? 2 : 1;
  reader->token = (struct pry_slice){start, (size_t)(reader->at - start)};
  reader->kind = 's';
  if (reader->at < reader->end && *reader->at == quote)
    reader->at++;
}

static bool next_token(struct reader *reader)
{
  skip_space(reader);
  reader->kind = 0;
  if (reader->at == reader->end)
    return false;
  const char *start = reader->at;
  size_t level = *start == '[' ? long_bracket(start, reader->end) : 0;
  if (level) {
    skip_long(reader, level);
    reader->kind = 's';
    reader->token = (struct pry_slice){start, 0};
  } else if (*start == '"' || *start == '\'') {
    read_quoted(reader);
  } else {
    while (reader->at < reader->end && (is_letter_or_digit(*reader->at) || *reader->at == '_'))
      reader->at++;
    reader->kind = reader->at > start ? 'n' : 'p';
    reader->at += reader->at == start;
    reader->token = (struct pry_slice){start, (size_t)(reader->at - start)};
  }
  return true;
}

static bool is_punctuation(const struct reader *reader, char c)
{
  return reader->kind == 'p' && *reader->token.data == c;
}

/* `name =` or `["name"] =`, the reader standing on the name. */
static bool is_field(const struct reader *reader)
{
  struct reader ahead = *reader;
  next_token(&ahead);
  if (reader->kind == 's' && is_punctuation(&ahead, ']'))
    next_token(&ahead);
  return is_punctuation(&ahead, '=') && ahead.at < ahead.end && *ahead.at != '=';
}

static const char *line_start(struct pry_slice text, int line)
{
  const char *at = text.data, *end = text.data + text.size;
  for (int i = 1; i < line && at; i++) {
    at = memchr(at, '\n', (size_t)(end - at));
    at = at ? at + 1 : NULL;
  }
  return at;
}

static struct pry_slice first_step(const char *path)
{
  return (struct pry_slice){path, strcspn(path, ".")};
}

int pry_source_field_line(struct pry_slice text, int line, const char *path)
{
  struct reader reader = {.at = line_start(text, line), .end = text.data + text.size, .line = line};
  if (!reader.at)
    return line;
  size_t depth = 0, found = 0; /* steps of the path entered so far */
  int best = line;
  struct pry_slice step = first_step(path);
  while (next_token(&reader)) {
    if (is_punctuation(&reader, '{')) {
      depth++;
    } else if (is_punctuation(&reader, '}')) {
      if (depth && --depth <= found)
        return best;
    } else if (depth == found + 1 && reader.kind != 'p' && pry_slice_equal(reader.token, step) && is_field(&reader)) {
      best = reader.line;
      if (!step.data[step.size])
        return best;
      step = first_step(step.data + step.size + 1);
      found++;
    }
  }
  return best;
}

/* ---- URLs ---------------------------------------------------------------------------------------------- */

static const char *port_complaint(struct pry_slice port)
{
  long number = 0;
  if (!port.size || port.size > 5)
    return "has no valid port after the \":\" (1..65535)";
  for (size_t i = 0; i < port.size; i++) {
    if (port.data[i] < '0' || port.data[i] > '9')
      return "has no valid port after the \":\" (1..65535)";
    number = number * 10 + (port.data[i] - '0');
  }
  return number >= 1 && number <= 65535 ? NULL : "has no valid port after the \":\" (1..65535)";
}

static const char *host_complaint(struct pry_slice host)
{
  size_t size = 0;
  if (host.size && host.data[0] == '[') { /* an IPv6 address */
    const char *close = memchr(host.data, ']', host.size);
    if (!close || close == host.data + 1)
      return "has an IPv6 address without its \"]\"";
    size = (size_t)(close - host.data) + 1;
  } else {
    while (size < host.size && host.data[size] != ':')
      size++;
    for (size_t i = 0; i < size; i++)
      if (!is_letter_or_digit(host.data[i]) && !strchr("-._", host.data[i]))
        return "has a host name with a character that host names do not have";
  }
  if (!size)
    return "has no host";
  if (size == host.size)
    return NULL;
  if (host.data[size] != ':')
    return "has no valid port after the \":\" (1..65535)";
  return port_complaint((struct pry_slice){host.data + size + 1, host.size - size - 1});
}

const char *pry_base_url_complaint(struct pry_slice url)
{
  for (size_t i = 0; i < url.size; i++)
    if ((unsigned char)url.data[i] <= ' ' || (unsigned char)url.data[i] == 0x7f)
      return "contains a space or a control character";
  if (url.size > 2048)
    return "is longer than 2048 bytes";
  size_t scheme = pry_slice_starts_with(url, PRY_SLICE("https://"))  ? 8
                  : pry_slice_starts_with(url, PRY_SLICE("http://")) ? 7
                                                                     : 0;
  if (!scheme)
    return "must begin with \"https://\" or \"http://\"";
  struct pry_slice rest = {url.data + scheme, url.size - scheme};
  if (memchr(rest.data, '?', rest.size) || memchr(rest.data, '#', rest.size))
    return "has a query or fragment; give only scheme, host, port and path";
  const char *slash = memchr(rest.data, '/', rest.size);
  struct pry_slice host = {rest.data, slash ? (size_t)(slash - rest.data) : rest.size};
  if (memchr(host.data, '@', host.size))
    return "holds a user name or password; use auth = bearer(secret \"NAME\") instead";
  return host_complaint(host);
}

/* ---- globs --------------------------------------------------------------------------------------------- */

enum { GLOB_MAX = 512 };

/* reachable[j]: some text is matched by the part of `a` read so far and by b[0..j). */
bool pry_globs_overlap(struct pry_slice a, struct pry_slice b)
{
  if (a.size > GLOB_MAX || b.size > GLOB_MAX)
    return true; /* on the safe side: such patterns are refused for their length anyway */
  bool reachable[GLOB_MAX + 1] = {true};
  for (size_t j = 0; j < b.size; j++)
    reachable[j + 1] = reachable[j] && b.data[j] == '*';
  for (size_t i = 0; i < a.size; i++) {
    bool diagonal = reachable[0];
    reachable[0] = reachable[0] && a.data[i] == '*';
    for (size_t j = 0; j < b.size; j++) {
      bool above = reachable[j + 1];
      bool star = a.data[i] == '*' || b.data[j] == '*';
      reachable[j + 1] = star ? above || reachable[j] : diagonal && a.data[i] == b.data[j];
      diagonal = above;
    }
  }
  return reachable[b.size];
}
