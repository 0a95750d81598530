#include "json.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { NUMBER_SIZE_MAX = 400 };

const char *pry_json_result_text(enum pry_json_result result)
{
  switch (result) {
  case PRY_JSON_OK:
    return "valid";
  case PRY_JSON_SYNTAX:
    return "not valid JSON";
  case PRY_JSON_DEPTH:
    return "nested too deeply";
  case PRY_JSON_NOT_OBJECT:
    return "not a JSON object";
  case PRY_JSON_DUPLICATE:
    return "a member that must be unique appears twice";
  case PRY_JSON_NOT_FOUND:
    return "no such member";
  case PRY_JSON_NO_MEMORY:
    return "out of memory";
  }
  return "unknown";
}

/* ---- scanning ----
 * Each skip_ function starts at its first byte and returns the place behind the last, or NULL for a syntax error. */

static bool is_digit(char c)
{
  return c >= '0' && c <= '9';
}

static const char *skip_space(const char *p, const char *end)
{
  while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
    p++;
  return p;
}

#ifdef __SSE2__
enum { BLOCK = 16 };

/* Which of the next bytes mean something, one bit each, the first is the lowest. */
static unsigned special_bytes(const char *p)
{
  __m128i block = _mm_loadu_si128((const __m128i *)(const void *)p);
  __m128i control = _mm_cmpeq_epi8(_mm_max_epu8(block, _mm_set1_epi8(0x1F)), _mm_set1_epi8(0x1F));
  __m128i quote = _mm_cmpeq_epi8(block, _mm_set1_epi8('"'));
  __m128i backslash = _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'));
  return (unsigned)_mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, backslash)));
}

static const char *skip_plain_blocks(const char *p, const char *end)
{
  for (; end - p >= BLOCK; p += BLOCK) {
    unsigned special = special_bytes(p);
    if (special)
      return p + __builtin_ctz(special);
  }
  return p;
}
#else
#define EVERY_BYTE(value) (UINT64_MAX / 255 * (value))
#define HAS_LESS(word, value) (((word)-EVERY_BYTE(value)) & ~(word)&EVERY_BYTE(0x80))

/* "Bit Twiddling Hacks", determine if a word has a byte less than n. */
static const char *skip_plain_blocks(const char *p, const char *end)
{
  for (; end - p >= 8; p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    uint64_t quote = word ^ EVERY_BYTE('"');
    uint64_t backslash = word ^ EVERY_BYTE('\\');
    if (HAS_LESS(word, 0x20) | HAS_LESS(quote, 1) | HAS_LESS(backslash, 1))
      break;
  }
  return p;
}
#endif

/* To the first byte that means something in a string: quote, backslash, control. Prompts are megabytes of what is
 * skipped here, and every event of a stream is mostly strings, hence many bytes at a time. */
static const char *skip_plain(const char *p, const char *end)
{
  p = skip_plain_blocks(p, end);
  while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
    p++;
  return p;
}

static int hex_value(char c)
{
  if (is_digit(c))
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static const char *skip_escape(const char *p, const char *end)
{
  if (end - p < 2)
    return NULL;
  if (p[1] != 'u')
    return p[1] && strchr("\"\\/bfnrt", p[1]) ? p + 2 : NULL;
  if (end - p < 6)
    return NULL;
  for (int i = 2; i < 6; i++)
    if (hex_value(p[i]) < 0)
      return NULL;
  return p + 6;
}

static const char *skip_string(const char *p, const char *end)
{
  if (p == end || *p != '"')
    return NULL;
  p++;
  while (p) {
    p = skip_plain(p, end);
    if (p == end)
      return NULL;
    if (*p == '"')
      return p + 1;
    p = *p == '\\' ? skip_escape(p, end) : NULL;
  }
  return NULL;
}

static const char *skip_digits(const char *p, const char *end)
{
  const char *start = p;
  while (p < end && is_digit(*p))
    p++;
  return p > start ? p : NULL;
}

static const char *skip_number(const char *p, const char *end)
{
  if (p < end && *p == '-')
    p++;
  p = p < end && *p == '0' ? p + 1 : skip_digits(p, end);
  if (p && p < end && *p == '.')
    p = skip_digits(p + 1, end);
  if (p && p < end && (*p == 'e' || *p == 'E')) {
    p++;
    if (p < end && (*p == '+' || *p == '-'))
      p++;
    p = skip_digits(p, end);
  }
  return p;
}

static const char *skip_word(const char *p, const char *end, struct pry_slice word)
{
  return pry_slice_starts_with((struct pry_slice){p, (size_t)(end - p)}, word) ? p + word.size : NULL;
}

/* Anything but an array or object. */
static const char *skip_scalar(const char *p, const char *end)
{
  if (p == end)
    return NULL;
  switch (*p) {
  case '"':
    return skip_string(p, end);
  case 'n':
    return skip_word(p, end, PRY_SLICE("null"));
  case 't':
    return skip_word(p, end, PRY_SLICE("true"));
  case 'f':
    return skip_word(p, end, PRY_SLICE("false"));
  default:
    return skip_number(p, end);
  }
}

/* Behind a key: its colon, and the space around, to the first byte of the value. NULL for NULL. */
static const char *skip_colon(const char *p, const char *end)
{
  if (!p)
    return NULL;
  p = skip_space(p, end);
  return p < end && *p == ':' ? skip_space(p + 1, end) : NULL;
}

static const char *skip_key(const char *p, const char *end)
{
  return skip_colon(skip_string(skip_space(p, end), end), end);
}

/* The arrays and objects that are open, one bit each, so that nesting costs no stack. */
struct nesting {
  uint64_t objects; /* bit 0 is the innermost: 1 for an object */
  unsigned depth, limit;
};

/* Behind a value inside containers: closes what closes, and stops behind the comma (and key) before the next
 * value, or where all is closed. */
static const char *skip_to_next(const char *p, const char *end, struct nesting *nesting)
{
  while (nesting->depth) {
    bool object = nesting->objects & 1;
    p = skip_space(p, end);
    if (p == end)
      return NULL;
    if (*p == ',')
      return object ? skip_key(p + 1, end) : skip_space(p + 1, end);
    if (*p++ != (object ? '}' : ']'))
      return NULL;
    nesting->objects >>= 1;
    nesting->depth--;
  }
  return p;
}

/* At "[" or "{": opens it and stops before its first value. An empty one is closed at once: `*empty`. */
static const char *skip_open(const char *p, const char *end, struct nesting *nesting, bool *empty)
{
  bool object = *p == '{';
  p = skip_space(p + 1, end);
  *empty = p < end && *p == (object ? '}' : ']');
  if (*empty)
    return p + 1;
  nesting->objects = nesting->objects << 1 | object;
  nesting->depth++;
  return object ? skip_key(p, end) : p;
}

static const char *skip_value(const char *p, const char *end, unsigned limit, enum pry_json_result *result)
{
  struct nesting nesting = {.limit = limit};
  *result = PRY_JSON_SYNTAX;
  do {
    if (p < end && (*p == '[' || *p == '{')) {
      if (nesting.depth == nesting.limit) {
        *result = PRY_JSON_DEPTH;
        return NULL;
      }
      bool empty;
      p = skip_open(p, end, &nesting, &empty);
      if (!empty)
        continue;
    } else {
      p = skip_scalar(p, end);
    }
    if (p)
      p = skip_to_next(p, end, &nesting);
  } while (p && nesting.depth);
  if (p)
    *result = PRY_JSON_OK;
  return p;
}

static enum pry_json_type type_of(char first)
{
  switch (first) {
  case '{':
    return PRY_JSON_OBJECT;
  case '[':
    return PRY_JSON_ARRAY;
  case '"':
    return PRY_JSON_STRING;
  case 'n':
    return PRY_JSON_NULL;
  case 't':
    return PRY_JSON_TRUE;
  case 'f':
    return PRY_JSON_FALSE;
  default:
    return PRY_JSON_NUMBER;
  }
}

/* ---- whole texts ---- */

enum pry_json_result pry_json_parse(struct pry_slice text, struct pry_json_value *value)
{
  if (value)
    *value = (struct pry_json_value){.type = PRY_JSON_NONE};
  if (!text.size)
    return PRY_JSON_SYNTAX;
  const char *end = text.data + text.size;
  const char *start = skip_space(text.data, end);
  enum pry_json_result result;
  const char *p = skip_value(start, end, PRY_JSON_DEPTH_MAX, &result);
  if (!p)
    return result;
  if (skip_space(p, end) != end)
    return PRY_JSON_SYNTAX;
  if (value)
    *value = (struct pry_json_value){type_of(*start), {start, (size_t)(p - start)}};
  return PRY_JSON_OK;
}

void pry_json_iterate(struct pry_json_iterator *iterator, struct pry_slice text)
{
  *iterator = (struct pry_json_iterator){.result = PRY_JSON_SYNTAX, .done = true};
  if (!text.size)
    return;
  const char *end = text.data + text.size;
  const char *start = skip_space(text.data, end);
  if (start == end)
    return;
  iterator->type = type_of(*start);
  if (iterator->type != PRY_JSON_OBJECT && iterator->type != PRY_JSON_ARRAY) {
    enum pry_json_result result = pry_json_parse(text, NULL);
    iterator->result = result == PRY_JSON_OK ? PRY_JSON_NOT_OBJECT : result;
    return;
  }
  iterator->result = PRY_JSON_OK;
  iterator->cursor = start + 1;
  iterator->end = end;
  iterator->done = false;
}

static bool stop(struct pry_json_iterator *iterator, enum pry_json_result result)
{
  iterator->result = result;
  iterator->done = true;
  return false;
}

/* At the place of the next element: false when the container ends here (or is broken). */
static bool begin_element(struct pry_json_iterator *iterator)
{
  const char *end = iterator->end;
  const char *p = skip_space(iterator->cursor, end);
  if (p == end)
    return stop(iterator, PRY_JSON_SYNTAX);
  if (*p == (iterator->type == PRY_JSON_OBJECT ? '}' : ']'))
    return stop(iterator, skip_space(p + 1, end) == end ? PRY_JSON_OK : PRY_JSON_SYNTAX);
  if (iterator->index > 0) {
    if (*p != ',')
      return stop(iterator, PRY_JSON_SYNTAX);
    p = skip_space(p + 1, end);
  }
  iterator->cursor = p;
  return true;
}

static bool next_key(struct pry_json_iterator *iterator, struct pry_slice *key)
{
  const char *start = iterator->cursor;
  const char *behind = skip_string(start, iterator->end);
  const char *value = skip_colon(behind, iterator->end);
  if (!value)
    return stop(iterator, PRY_JSON_SYNTAX);
  *key = (struct pry_slice){start, (size_t)(behind - start)};
  iterator->cursor = value;
  return true;
}

bool pry_json_next(struct pry_json_iterator *iterator, struct pry_slice *key, struct pry_json_value *value)
{
  *key = (struct pry_slice){NULL, 0};
  *value = (struct pry_json_value){.type = PRY_JSON_NONE};
  if (iterator->done || !begin_element(iterator))
    return false;
  if (iterator->type == PRY_JSON_OBJECT && !next_key(iterator, key))
    return false;
  const char *start = iterator->cursor;
  enum pry_json_result result;
  const char *p = skip_value(start, iterator->end, PRY_JSON_DEPTH_MAX - 1, &result);
  if (!p)
    return stop(iterator, result);
  *value = (struct pry_json_value){type_of(*start), {start, (size_t)(p - start)}};
  iterator->cursor = p;
  iterator->index++;
  return true;
}

/* ---- values ---- */

static size_t encode_utf8(unsigned code, char out[4])
{
  if (code < 0x80) {
    out[0] = (char)code;
    return 1;
  }
  size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = size - 1; i > 0; i--, code >>= 6)
    out[i] = (char)(0x80 | (code & 0x3F));
  static const unsigned lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  out[0] = (char)(lead[size] | code);
  return size;
}

static unsigned hex4(const char *p)
{
  unsigned code = 0;
  for (int i = 0; i < 4; i++)
    code = code << 4 | (unsigned)hex_value(p[i]);
  return code;
}

/* Decodes the escape at `*p`, which skip_escape has accepted or does here. Returns the bytes put into `out`, 0 when
 * it is malformed. */
static size_t decode_escape(const char **p, const char *end, char out[4])
{
  static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
  const char *start = *p;
  const char *after = skip_escape(start, end);
  if (!after)
    return 0;
  *p = after;
  if (start[1] != 'u') {
    out[0] = meanings[strchr(letters, start[1]) - letters];
    return 1;
  }
  unsigned code = hex4(start + 2);
  if (code >= 0xD800 && code <= 0xDBFF && after < end && *after == '\\' && skip_escape(after, end) == after + 6) {
    unsigned low = hex4(after + 2);
    if (low >= 0xDC00 && low <= 0xDFFF) {
      *p = after + 6;
      return encode_utf8(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), out);
    }
  }
  return encode_utf8(code >= 0xD800 && code <= 0xDFFF ? 0xFFFD : code, out);
}

static bool is_string(struct pry_slice raw)
{
  return raw.size && skip_string(raw.data, raw.data + raw.size) == raw.data + raw.size;
}

static bool is_number(struct pry_slice raw)
{
  return raw.size && skip_number(raw.data, raw.data + raw.size) == raw.data + raw.size;
}

bool pry_json_string(struct pry_slice raw, struct pry_buffer *out)
{
  if (!is_string(raw))
    return false;
  const char *end = raw.data + raw.size - 1;
  size_t before = out->size;
  const char *p = raw.data + 1;
  bool fits = true;
  while (fits && p < end) {
    const char *escape = memchr(p, '\\', (size_t)(end - p));
    fits = pry_buffer_append(out, p, (size_t)((escape ? escape : end) - p));
    p = escape ? escape : end;
    if (fits && escape) {
      char bytes[4];
      size_t size = decode_escape(&p, end, bytes);
      fits = pry_buffer_append(out, bytes, size);
    }
  }
  if (!fits)
    out->size = before;
  return fits;
}

size_t pry_json_unescape(struct pry_slice inside, char *out, size_t size)
{
  const char *p = inside.data, *end = inside.data + inside.size;
  size_t used = 0;
  while (p < end) {
    const char *escape = memchr(p, '\\', (size_t)(end - p));
    size_t plain = (size_t)((escape ? escape : end) - p);
    bool whole = plain <= size - used;
    if (!whole)
      plain = size - used;
    memcpy(out + used, p, plain);
    used += plain;
    p += plain;
    if (!whole || !escape)
      break;
    char bytes[4];
    size_t decoded = decode_escape(&p, end, bytes);
    if (!decoded || decoded > size - used)
      break;
    memcpy(out + used, bytes, decoded);
    used += decoded;
  }
  return used;
}

bool pry_json_equals(struct pry_slice raw, struct pry_slice text)
{
  if (raw.size < 2 || raw.data[0] != '"' || raw.data[raw.size - 1] != '"')
    return false;
  const char *p = raw.data + 1, *end = raw.data + raw.size - 1;
  if (!memchr(p, '\\', (size_t)(end - p)))
    return pry_slice_equal((struct pry_slice){p, (size_t)(end - p)}, text);
  size_t matched = 0;
  while (p < end) {
    char bytes[4];
    size_t size = 1;
    if (*p == '\\')
      size = decode_escape(&p, end, bytes);
    else
      bytes[0] = *p++;
    if (!size || text.size - matched < size || memcmp(text.data + matched, bytes, size) != 0)
      return false;
    matched += size;
  }
  return matched == text.size;
}

/* No more digits than a double holds; -0 is not for integers. */
static bool is_short_integer(struct pry_slice raw)
{
  for (size_t i = 0; i < raw.size; i++)
    if (!is_digit(raw.data[i]))
      return false;
  return raw.size > 0 && raw.size <= 15 && (raw.size == 1 || raw.data[0] != '0');
}

bool pry_json_number(struct pry_slice raw, double *value)
{
  if (is_short_integer(raw)) {
    int64_t number = 0;
    for (size_t i = 0; i < raw.size; i++)
      number = number * 10 + (raw.data[i] - '0');
    *value = (double)number;
    return true;
  }
  if (raw.size > NUMBER_SIZE_MAX || !is_number(raw))
    return false;
  char text[NUMBER_SIZE_MAX + 1];
  memcpy(text, raw.data, raw.size);
  text[raw.size] = '\0';
  /* The host's locale may use a decimal comma. The C locale is a constant in libc, so this allocates nothing. */
  locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  if (!plain)
    return false;
  double number = strtod_l(text, NULL, plain);
  freelocale(plain);
  if (!isfinite(number))
    return false;
  *value = number;
  return true;
}

bool pry_json_integer(struct pry_slice raw, int64_t *value)
{
  if (!is_number(raw))
    return false;
  bool negative = raw.data[0] == '-';
  int64_t number = 0; /* kept negative: there is one more negative number than positive ones */
  for (const char *p = raw.data + negative; p < raw.data + raw.size; p++) {
    if (!is_digit(*p) || number < (INT64_MIN + (*p - '0')) / 10)
      return false;
    number = number * 10 - (*p - '0');
  }
  if (!negative && number == INT64_MIN)
    return false;
  *value = negative ? number : -number;
  return true;
}
