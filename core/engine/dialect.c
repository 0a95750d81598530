#include "dialect.h"

const struct pry_dialect pry_dialect_generic = {.name = "generic", .file = "(built in)"};

static bool list_has(const struct pry_text_list *list, struct pry_slice text)
{
  for (size_t i = 0; i < list->count; i++)
    if (pry_slice_equal(pry_slice_of(list->items[i]), text))
      return true;
  return false;
}

static bool field_says_error(const struct pry_error_field *field, const struct pry_json_value *value)
{
  return value->type != PRY_JSON_NULL && !list_has(&field->fine, value->raw);
}

static bool object_says_error(const struct pry_error_fields *fields, struct pry_slice text)
{
  if (!fields->count)
    return false;
  struct pry_json_iterator members;
  struct pry_slice key;
  struct pry_json_value value;
  pry_json_iterate(&members, text);
  if (members.result != PRY_JSON_OK || members.type != PRY_JSON_OBJECT)
    return false;
  while (pry_json_next(&members, &key, &value))
    for (size_t i = 0; i < fields->count; i++)
      if (pry_json_equals(key, pry_slice_of(fields->items[i].name)) && field_says_error(&fields->items[i], &value))
        return true;
  return false;
}

static bool any_content(const struct pry_path_list *paths, struct pry_slice data)
{
  for (size_t i = 0; i < paths->count; i++)
    if (pry_json_match_content(data, &paths->items[i]))
      return true;
  return false;
}

static struct pry_slice type_of(const struct pry_dialect *dialect, struct pry_slice type, struct pry_slice data)
{
  struct pry_json_value value;
  if (type.size || !dialect->type_field || !pry_json_get(data, dialect->type_field, &value) ||
      value.type != PRY_JSON_STRING || value.raw.size < 2)
    return type;
  return (struct pry_slice){value.raw.data + 1, value.raw.size - 2};
}

enum pry_stream_class pry_dialect_stream_class(const struct pry_dialect *dialect, struct pry_slice type,
                                               struct pry_slice data, bool *finish)
{
  *finish = false;
  if (list_has(&dialect->end_data, data))
    return PRY_STREAM_END;
  type = type_of(dialect, type, data);
  if (type.size && list_has(&dialect->error_types, type))
    return PRY_STREAM_ERROR;
  if (object_says_error(&dialect->error_in_data, data))
    return PRY_STREAM_ERROR;
  *finish = any_content(&dialect->finish_paths, data);
  if (type.size && list_has(&dialect->end_types, type))
    return PRY_STREAM_END;
  if (type.size && list_has(&dialect->lifecycle_types, type))
    return PRY_STREAM_LIFECYCLE;
  if (type.size && list_has(&dialect->content_types, type))
    return PRY_STREAM_CONTENT;
  if (any_content(&dialect->content_paths, data))
    return PRY_STREAM_CONTENT;
  return dialect->default_lifecycle && !*finish ? PRY_STREAM_LIFECYCLE : PRY_STREAM_CONTENT;
}

bool pry_dialect_error_in_200(const struct pry_dialect *dialect, struct pry_slice body)
{
  return object_says_error(&dialect->error_in_200, body);
}

bool pry_dialect_carries(const struct pry_dialect *dialect, const char *client_dialect)
{
  return dialect == &pry_dialect_generic ||
         strcmp(dialect->speaks ? dialect->speaks : dialect->name, client_dialect) == 0;
}
