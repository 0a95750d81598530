#include "dialect.h"

const struct pry_dialect pry_dialect_generic = {.name = "generic", .file = "(built in)"};

static bool list_has(const struct pry_text_list *list, struct pry_slice text)
{
  for (size_t i = 0; i < list->count; i++)
    if (pry_slice_equal(pry_slice_of(list->items[i]), text))
      return true;
  return false;
}

/* {} and [], however much white space is in them. */
static bool is_empty(const struct pry_json_value *value)
{
  struct pry_json_iterator inside;
  struct pry_slice key;
  struct pry_json_value member;
  if (value->type != PRY_JSON_OBJECT && value->type != PRY_JSON_ARRAY)
    return false;
  pry_json_iterate(&inside, value->raw);
  return !pry_json_next(&inside, &key, &member) && inside.result == PRY_JSON_OK;
}

static bool field_says_error(const struct pry_error_field *field, const struct pry_json_value *value)
{
  return value->type != PRY_JSON_NULL && !list_has(&field->fine, value->raw) && !is_empty(value);
}

/* ---- Is there such a key at all? ----
 *
 * Nearly every answer is a good one, and walking through all of it to say so costs many times what a search does. The
 * search may be wrong in one direction: what it does not find is not there. */

static bool is_word_byte(unsigned char c)
{
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/* Then JSON spells it either as it is or with \u escapes (RFC 8259 §7): the short ones are for other bytes. */
static bool is_word(struct pry_slice name)
{
  for (size_t i = 0; i < name.size; i++)
    if (!is_word_byte((unsigned char)name.data[i]))
      return false;
  return name.size > 0;
}

static struct pry_slice after(struct pry_slice text, const char *place)
{
  return (struct pry_slice){place, text.size - (size_t)(place - text.data)};
}

static bool holds_quoted(struct pry_slice text, struct pry_slice word)
{
  const char *found;
  while ((found = memmem(text.data, text.size, word.data, word.size))) {
    struct pry_slice rest = after(text, found + word.size);
    if (found > text.data && found[-1] == '"' && rest.size && rest.data[0] == '"')
      return true;
    text = rest;
  }
  return false;
}

static unsigned hex_digit(char c)
{
  if (c >= '0' && c <= '9')
    return (unsigned)(c - '0');
  c = (char)(c | 0x20);
  return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 16;
}

/* A byte of a word as \u00XX. Text in other alphabets is full of escapes, but not of these. */
static bool holds_escaped_word_byte(struct pry_slice text)
{
  const char *found;
  while ((found = memmem(text.data, text.size, "\\u00", 4))) {
    text = after(text, found + 4);
    unsigned high = text.size >= 2 ? hex_digit(text.data[0]) : 16, low = text.size >= 2 ? hex_digit(text.data[1]) : 16;
    if (high < 16 && low < 16 && is_word_byte((unsigned char)(high * 16 + low)))
      return true;
  }
  return false;
}

static bool is_path(const struct pry_error_field *field)
{
  return strchr(field->name, '.') != NULL;
}

/* "promptFeedback.blockReason" is looked for by its last step. */
static struct pry_slice last_step(const char *path)
{
  const char *dot = strrchr(path, '.');
  return pry_slice_of(dot ? dot + 1 : path);
}

static bool may_have_field(const struct pry_error_fields *fields, struct pry_slice text)
{
  for (size_t i = 0; i < fields->count; i++) {
    struct pry_slice name = last_step(fields->items[i].name);
    if (!is_word(name) || holds_quoted(text, name))
      return true;
  }
  return holds_escaped_word_byte(text);
}

static bool object_says_error(const struct pry_error_fields *fields, struct pry_slice text)
{
  if (!fields->count || !text.size || !may_have_field(fields, text))
    return false;
  struct pry_json_iterator members;
  struct pry_slice key;
  struct pry_json_value value;
  pry_json_iterate(&members, text);
  if (members.result != PRY_JSON_OK || members.type != PRY_JSON_OBJECT)
    return false;
  while (pry_json_next(&members, &key, &value))
    for (size_t i = 0; i < fields->count; i++)
      if (!is_path(&fields->items[i]) && pry_json_equals(key, pry_slice_of(fields->items[i].name)) &&
          field_says_error(&fields->items[i], &value))
        return true;
  for (size_t i = 0; i < fields->count; i++)
    if (is_path(&fields->items[i]) && pry_json_get(text, fields->items[i].name, &value) &&
        field_says_error(&fields->items[i], &value))
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
  struct pry_slice words = pry_slice_trim(data);
  if (list_has(&dialect->end_data, words))
    return PRY_STREAM_END;
  type = type_of(dialect, type, data);
  if (type.size && list_has(&dialect->error_types, type))
    return PRY_STREAM_ERROR;
  if (dialect->json && !words.size)
    return PRY_STREAM_LIFECYCLE;
  if (dialect->json && pry_json_parse(data, NULL) == PRY_JSON_SYNTAX)
    return PRY_STREAM_NONSENSE;
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

bool pry_dialect_error_is_plain(const struct pry_dialect *dialect, struct pry_slice type, struct pry_slice data,
                                bool typed)
{
  if (!dialect->bare_errors)
    return type.size && list_has(&dialect->error_types, type);
  return typed || object_says_error(&dialect->error_in_data, data);
}

bool pry_dialect_error_in_200(const struct pry_dialect *dialect, struct pry_slice body)
{
  return object_says_error(&dialect->error_in_200, body);
}

bool pry_dialect_carries(const struct pry_dialect *dialect, const char *client_dialect)
{
  return strcmp(dialect->name, pry_dialect_generic.name) == 0 ||
         strcmp(dialect->speaks ? dialect->speaks : dialect->name, client_dialect) == 0;
}

bool pry_dialect_may_be_bound(const struct pry_dialect *dialect, struct pry_slice body)
{
  for (size_t i = 0; body.size && i < dialect->bound.count; i++)
    if (holds_quoted(body, pry_slice_of(dialect->bound.items[i])))
      return true;
  return false;
}

const struct pry_translation_pair *pry_dialect_pair(const struct pry_dialect *dialect, const char *client)
{
  for (size_t i = 0; i < dialect->pair_count; i++)
    if (strcmp(dialect->pairs[i].client, client) == 0)
      return &dialect->pairs[i];
  return NULL;
}
