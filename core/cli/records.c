#include "records.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

enum pry_line_result pry_next_line(FILE *in, struct pry_buffer *line)
{
  char piece[16 * 1024];
  size_t size = 0;
  bool fits = true;
  int byte = getc_unlocked(in);
  pry_buffer_clear(line);
  if (byte == EOF)
    return PRY_LINE_NONE;
  for (; byte != EOF && byte != '\n'; byte = getc_unlocked(in)) {
    piece[size++] = (char)byte;
    if (size == sizeof piece) {
      fits = fits && pry_buffer_append(line, piece, size);
      size = 0;
    }
  }
  fits = fits && pry_buffer_append(line, piece, size);
  return fits ? PRY_LINE_READ : PRY_LINE_TOO_LONG;
}

bool pry_line_is_blank(struct pry_slice line)
{
  for (size_t i = 0; i < line.size; i++)
    if (line.data[i] != ' ' && line.data[i] != '\t' && line.data[i] != '\r')
      return false;
  return true;
}

/* ---- values of a line -------------------------------------------------------------------------------------- */

const char *pry_record_text(struct pry_json_value value, struct pry_buffer *out)
{
  pry_buffer_clear(out);
  if (value.type == PRY_JSON_NULL)
    return NULL;
  return value.type == PRY_JSON_STRING && pry_json_string(value.raw, out) ? NULL : "is not a text";
}

/* RFC 4648 §4, padded. OpenSSL takes '=' anywhere for six zero bits, and blanks at both ends. False: it is none; `padding`:
 * characters of it at the end. */
static bool is_base64(struct pry_slice text, size_t *padding)
{
  size_t size = text.size;
  while (text.size - size < 2 && size && text.data[size - 1] == '=')
    size--;
  *padding = text.size - size;
  for (size_t i = 0; i < size; i++) {
    char c = text.data[i];
    if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/'))
      return false;
  }
  return text.size % 4 == 0;
}

const char *pry_record_base64(struct pry_json_value value, struct pry_buffer *out)
{
  struct pry_buffer text;
  size_t padding = 0;
  pry_buffer_init(&text, 0);
  const char *problem = pry_record_text(value, &text);
  pry_buffer_clear(out);
  if (!problem && !is_base64(pry_buffer_slice(&text), &padding))
    problem = "is not base64";
  if (!problem && text.size) {
    bool room = pry_buffer_reserve(out, text.size / 4 * 3 + 4);
    int size =
        room ? EVP_DecodeBlock((unsigned char *)out->data, (const unsigned char *)text.data, (int)text.size) : -1;
    if (size < 0)
      problem = "is not base64";
    else
      out->size = (size_t)size - padding;
  }
  pry_buffer_fini(&text);
  return problem;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static bool append_text(struct pry_buffer *out, const char *name, const char *text, bool or_null)
{
  if (or_null && !text[0])
    return pry_buffer_append_format(out, ",\"%s\":null", name);
  return pry_buffer_append_format(out, ",\"%s\":\"", name) && pry_buffer_append_json(out, pry_slice_of(text)) &&
         pry_buffer_append_text(out, "\"");
}

/* Always with a point, so that every reader sees a float. */
static bool append_seconds(struct pry_buffer *out, double seconds)
{
  char text[40];
  if (seconds < 0 || !isfinite(seconds))
    return pry_buffer_append_text(out, ",\"retry_after\":null");
  snprintf(text, sizeof text, "%.15g", seconds);
  return pry_buffer_append_format(out, ",\"retry_after\":%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static bool append_booleans(struct pry_buffer *out, const struct pry_failure *failure)
{
  return pry_buffer_append_format(out, ",\"refresh_token\":%s,\"fallback\":%s",
                                  failure->refresh_token ? "true" : "false", failure->fallback ? "true" : "false");
}

bool pry_append_failure(struct pry_buffer *out, const struct pry_failure *failure)
{
  const char *origin = failure->category ? pry_origin_name(failure->origin) : "";
  return pry_buffer_append_format(out, "\"category\":\"%s\"", pry_category_name(failure->category)) &&
         append_text(out, "origin", origin, true) &&
         pry_buffer_append_format(out, ",\"retryable\":%s", failure->retryable ? "true" : "false") &&
         append_seconds(out, failure->retry_after) && append_booleans(out, failure) &&
         append_text(out, "code", failure->code, true) && append_text(out, "message", failure->message, false);
}

bool pry_append_problem(struct pry_buffer *out, unsigned long line, const char *problem)
{
  return pry_buffer_append_format(out, "{\"id\":null,\"error\":\"line %lu: ", line) &&
         pry_buffer_append_json(out, pry_slice_of(problem)) && pry_buffer_append_text(out, "\"}\n");
}
