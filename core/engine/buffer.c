#include "buffer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIRST_CAPACITY = 64 };

void pry_buffer_init(struct pry_buffer *buffer, size_t limit)
{
  *buffer = (struct pry_buffer){.limit = limit};
}

void pry_buffer_fini(struct pry_buffer *buffer)
{
  free(buffer->data);
  pry_buffer_init(buffer, buffer->limit);
}

void pry_buffer_clear(struct pry_buffer *buffer)
{
  buffer->size = 0;
}

/* One byte more than asked for is always kept, so that pry_buffer_text() never needs to grow. */
bool pry_buffer_reserve(struct pry_buffer *buffer, size_t size)
{
  if (size > SIZE_MAX - buffer->size - 1)
    return false;
  size_t wanted = buffer->size + size;
  if (buffer->limit && wanted > buffer->limit)
    return false;
  if (wanted + 1 <= buffer->capacity)
    return true;
  size_t capacity = buffer->capacity ? buffer->capacity : FIRST_CAPACITY;
  while (capacity < wanted + 1)
    capacity = capacity > SIZE_MAX / 2 ? wanted + 1 : capacity * 2;
  char *data = realloc(buffer->data, capacity);
  if (!data)
    return false;
  buffer->data = data;
  buffer->capacity = capacity;
  return true;
}

bool pry_buffer_append(struct pry_buffer *buffer, const void *data, size_t size)
{
  if (!pry_buffer_reserve(buffer, size))
    return false;
  if (size)
    memcpy(buffer->data + buffer->size, data, size);
  buffer->size += size;
  return true;
}

bool pry_buffer_append_slice(struct pry_buffer *buffer, struct pry_slice slice)
{
  return pry_buffer_append(buffer, slice.data, slice.size);
}

bool pry_buffer_append_text(struct pry_buffer *buffer, const char *text)
{
  return pry_buffer_append(buffer, text, strlen(text));
}

bool pry_buffer_append_format(struct pry_buffer *buffer, const char *format, ...)
{
  va_list arguments;
  va_start(arguments, format);
  va_list again;
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  bool appended = length >= 0 && pry_buffer_reserve(buffer, (size_t)length);
  if (appended) {
    vsnprintf(buffer->data + buffer->size, (size_t)length + 1, format, again);
    buffer->size += (size_t)length;
  }
  va_end(again);
  return appended;
}

bool pry_buffer_append_integer(struct pry_buffer *buffer, long long number)
{
  char digits[24];
  size_t start = sizeof digits;
  unsigned long long rest = number < 0 ? 0 - (unsigned long long)number : (unsigned long long)number;
  do
    digits[--start] = (char)('0' + rest % 10);
  while (rest /= 10);
  if (number < 0)
    digits[--start] = '-';
  return pry_buffer_append(buffer, digits + start, sizeof digits - start);
}

/* Length of the well-formed UTF-8 sequence at the start of `text`, or 0 (Unicode, table 3-7). */
static size_t utf8_length(struct pry_slice text)
{
  const unsigned char *s = (const unsigned char *)text.data;
  if (s[0] < 0x80)
    return 1;
  size_t length = s[0] >= 0xC2 && s[0] <= 0xDF ? 2 : (s[0] & 0xF0) == 0xE0 ? 3 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : 0;
  if (!length || text.size < length)
    return 0;
  for (size_t i = 1; i < length; i++)
    if ((s[i] & 0xC0) != 0x80)
      return 0;
  if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF0 && s[1] < 0x90) ||
      (s[0] == 0xF4 && s[1] > 0x8F))
    return 0;
  return length;
}

static bool append_json_escape(struct pry_buffer *buffer, unsigned char c)
{
  switch (c) {
  case '"':
    return pry_buffer_append(buffer, "\\\"", 2);
  case '\\':
    return pry_buffer_append(buffer, "\\\\", 2);
  case '\n':
    return pry_buffer_append(buffer, "\\n", 2);
  case '\r':
    return pry_buffer_append(buffer, "\\r", 2);
  case '\t':
    return pry_buffer_append(buffer, "\\t", 2);
  default:
    return pry_buffer_append_format(buffer, "\\u%04x", c);
  }
}

/* Bytes at the start of `text` that a JSON string holds as they are. */
static size_t plain_length(struct pry_slice text)
{
  size_t length = 0;
  while (length < text.size) {
    unsigned char c = (unsigned char)text.data[length];
    if (c >= 0x80) {
      size_t sequence = utf8_length((struct pry_slice){text.data + length, text.size - length});
      if (!sequence)
        break;
      length += sequence;
    } else if (c == '"' || c == '\\' || c < 0x20 || c == 0x7F) {
      break;
    } else {
      length++;
    }
  }
  return length;
}

bool pry_buffer_append_json(struct pry_buffer *buffer, struct pry_slice text)
{
  size_t before = buffer->size;
  while (text.size) {
    size_t length = plain_length(text);
    bool appended;
    if (length) {
      appended = pry_buffer_append(buffer, text.data, length);
    } else {
      unsigned char c = (unsigned char)text.data[0];
      appended = c < 0x80 ? append_json_escape(buffer, c) : pry_buffer_append(buffer, "\xEF\xBF\xBD", 3);
      length = 1;
    }
    if (!appended) {
      buffer->size = before;
      return false;
    }
    text.data += length;
    text.size -= length;
  }
  return true;
}

void pry_buffer_consume(struct pry_buffer *buffer, size_t size)
{
  if (size >= buffer->size) {
    buffer->size = 0;
    return;
  }
  memmove(buffer->data, buffer->data + size, buffer->size - size);
  buffer->size -= size;
}

struct pry_slice pry_buffer_slice(const struct pry_buffer *buffer)
{
  return (struct pry_slice){buffer->data, buffer->size};
}

const char *pry_buffer_text(struct pry_buffer *buffer)
{
  if (!pry_buffer_reserve(buffer, 0))
    return NULL;
  buffer->data[buffer->size] = '\0';
  return buffer->data;
}

char *pry_buffer_take(struct pry_buffer *buffer, size_t *size)
{
  char *data = buffer->data;
  *size = buffer->size;
  pry_buffer_init(buffer, buffer->limit);
  return data;
}
