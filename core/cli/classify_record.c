#include "classify.h"

#include "json.h"
#include "records.h"

#include <stdio.h>
#include <time.h>

void pry_classify_record_init(struct pry_classify_record *record)
{
  *record = (struct pry_classify_record){.id = PRY_SLICE("null"), .now = (double)time(NULL)};
  pry_buffer_init(&record->dialect, 0);
  pry_buffer_init(&record->provider, 0);
  pry_buffer_init(&record->body, 0);
  pry_headers_init(&record->headers);
}

void pry_classify_record_fini(struct pry_classify_record *record)
{
  pry_buffer_fini(&record->dialect);
  pry_buffer_fini(&record->provider);
  pry_buffer_fini(&record->body);
  pry_headers_fini(&record->headers);
}

/* A body that was logged as JSON instead of text is taken as its text. */
static const char *read_body(struct pry_json_value value, struct pry_buffer *out)
{
  if (value.type != PRY_JSON_OBJECT && value.type != PRY_JSON_ARRAY)
    return pry_record_text(value, out);
  pry_buffer_clear(out);
  return pry_buffer_append_slice(out, value.raw) ? NULL : "does not fit into memory";
}

static const char *read_whole(struct pry_json_value value, int64_t least, int64_t most, int64_t *number, bool *has)
{
  *has = value.type != PRY_JSON_NULL;
  if (!*has || (pry_json_integer(value.raw, number) && *number >= least && *number <= most))
    return NULL;
  return "is not a number that can stand there";
}

static void add_header(struct pry_headers *headers, struct pry_slice name, struct pry_json_value value)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 0);
  bool ok = value.type == PRY_JSON_STRING ? pry_json_string(value.raw, &text)
                                          : value.type == PRY_JSON_NUMBER && pry_buffer_append_slice(&text, value.raw);
  if (ok) /* a line that could not have come over HTTP says nothing about the failure */
    pry_headers_add(headers, name, pry_buffer_slice(&text));
  pry_buffer_fini(&text);
}

/* {"name": "value" or ["value", …]} */
static const char *read_headers(struct pry_json_value value, struct pry_headers *headers)
{
  struct pry_json_iterator members, elements;
  struct pry_json_value member, element;
  struct pry_slice key, none;
  struct pry_buffer name;
  pry_headers_clear(headers);
  if (value.type == PRY_JSON_NULL)
    return NULL;
  if (value.type != PRY_JSON_OBJECT)
    return "is not an object of names and values";
  pry_buffer_init(&name, 0);
  pry_json_iterate(&members, value.raw);
  while (pry_json_next(&members, &key, &member)) {
    pry_buffer_clear(&name);
    if (!pry_json_string(key, &name))
      continue;
    if (member.type != PRY_JSON_ARRAY) {
      add_header(headers, pry_buffer_slice(&name), member);
      continue;
    }
    pry_json_iterate(&elements, member.raw);
    while (pry_json_next(&elements, &none, &element))
      add_header(headers, pry_buffer_slice(&name), element);
  }
  pry_buffer_fini(&name);
  return NULL;
}

static const char *read_member(struct pry_classify_record *record, struct pry_slice key, struct pry_json_value value)
{
  if (pry_json_equals(key, PRY_SLICE("id")))
    record->id = value.raw;
  else if (pry_json_equals(key, PRY_SLICE("dialect")))
    return pry_record_text(value, &record->dialect);
  else if (pry_json_equals(key, PRY_SLICE("provider")))
    return pry_record_text(value, &record->provider);
  else if (pry_json_equals(key, PRY_SLICE("http_status")) && value.type == PRY_JSON_NULL)
    record->no_answer = true;
  else if (pry_json_equals(key, PRY_SLICE("http_status")))
    return read_whole(value, 100, 999, &record->status, &record->has_status);
  else if (pry_json_equals(key, PRY_SLICE("curl_code")))
    return read_whole(value, 0, 999, &record->curl_code, &record->has_curl_code);
  else if (pry_json_equals(key, PRY_SLICE("headers")))
    return read_headers(value, &record->headers);
  else if (pry_json_equals(key, PRY_SLICE("body")))
    return value.type == PRY_JSON_NULL ? NULL : read_body(value, &record->body);
  else if (pry_json_equals(key, PRY_SLICE("body_base64")))
    return value.type == PRY_JSON_NULL ? NULL : pry_record_base64(value, &record->body);
  else if (pry_json_equals(key, PRY_SLICE("now")) && value.type != PRY_JSON_NULL)
    return pry_json_number(value.raw, &record->now) ? NULL : "is not Unix seconds";
  return NULL;
}

bool pry_classify_record_read(struct pry_classify_record *record, struct pry_slice line, char *problem,
                              size_t problem_size)
{
  struct pry_json_iterator iterator;
  struct pry_json_value value;
  struct pry_slice key;
  const char *complaint = NULL;
  pry_json_iterate(&iterator, line);
  if (iterator.result == PRY_JSON_OK && iterator.type != PRY_JSON_OBJECT)
    iterator.result = PRY_JSON_NOT_OBJECT;
  while (iterator.result == PRY_JSON_OK && !complaint && pry_json_next(&iterator, &key, &value)) {
    complaint = read_member(record, key, value);
    if (complaint)
      snprintf(problem, problem_size, "%.*s %s", (int)(key.size < 64 ? key.size : 64), key.data, complaint);
  }
  if (!complaint && iterator.result != PRY_JSON_OK) {
    complaint = pry_json_result_text(iterator.result);
    snprintf(problem, problem_size, "%s", complaint);
  }
  if (!complaint && !record->has_status && !record->has_curl_code && !record->no_answer) {
    complaint = "nothing to go by";
    snprintf(problem, problem_size, "neither http_status nor curl_code is there");
  }
  return !complaint;
}
