#include "json.h"

static bool take_once(struct pry_json_request *request, struct pry_json_value *place, const char *name,
                      struct pry_json_value value)
{
  if (place->type == PRY_JSON_NONE) {
    *place = value;
    return true;
  }
  request->duplicate = name;
  return false;
}

enum pry_json_result pry_json_request(struct pry_slice text, struct pry_json_request *request)
{
  *request = (struct pry_json_request){.duplicate = NULL};
  struct pry_json_iterator iterator;
  pry_json_iterate(&iterator, text);
  if (iterator.type == PRY_JSON_ARRAY) {
    enum pry_json_result result = pry_json_parse(text, NULL);
    return result == PRY_JSON_OK ? PRY_JSON_NOT_OBJECT : result;
  }
  struct pry_slice key;
  struct pry_json_value value;
  bool unique = true;
  while (unique && pry_json_next(&iterator, &key, &value)) {
    if (pry_json_equals(key, PRY_SLICE("model")))
      unique = take_once(request, &request->model, "model", value);
    else if (pry_json_equals(key, PRY_SLICE("stream")))
      unique = take_once(request, &request->stream, "stream", value);
  }
  return unique ? iterator.result : PRY_JSON_DUPLICATE;
}

static bool is_within(struct pry_slice part, struct pry_slice whole)
{
  uintptr_t first = (uintptr_t)whole.data, start = (uintptr_t)part.data;
  return start >= first && start - first <= whole.size && part.size <= whole.size - (start - first);
}

bool pry_json_splice(struct pry_slice text, struct pry_slice span, struct pry_slice replacement, struct pry_buffer *out)
{
  if (!is_within(span, text))
    return false;
  size_t before = out->size;
  size_t head = (size_t)(span.data - text.data);
  struct pry_slice tail = {span.data + span.size, text.size - head - span.size};
  if (pry_buffer_append(out, text.data, head) && pry_buffer_append_slice(out, replacement) &&
      pry_buffer_append_slice(out, tail))
    return true;
  out->size = before;
  return false;
}

enum pry_json_result pry_json_splice_model(struct pry_slice text, struct pry_slice model, struct pry_buffer *out)
{
  struct pry_json_request request;
  enum pry_json_result result = pry_json_request(text, &request);
  if (result != PRY_JSON_OK)
    return result;
  if (request.model.type == PRY_JSON_NONE)
    return PRY_JSON_NOT_FOUND;
  struct pry_buffer replacement;
  pry_buffer_init(&replacement, 0);
  bool done = pry_buffer_append(&replacement, "\"", 1) && pry_buffer_append_json(&replacement, model) &&
              pry_buffer_append(&replacement, "\"", 1) &&
              pry_json_splice(text, request.model.raw, pry_buffer_slice(&replacement), out);
  pry_buffer_fini(&replacement);
  return done ? PRY_JSON_OK : PRY_JSON_NO_MEMORY;
}
