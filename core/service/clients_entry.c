/* Reading one client of a clients file: its fields and keys. Declared in clients_internal.h and clients.h. */
#include "clients_internal.h"

#include "nearest.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <time.h>

enum { RPM_MAX = 10000000, CONCURRENT_MAX = 1000000, GLOB_MAX = 255 };

static const char DIGEST_PREFIX[] = "sha256:";

/* ---- values ----------------------------------------------------------------------------------------------- */

/* A JSON string as text in the arena. NULL: none, or it holds a NUL; told. */
static const char *read_text(struct pry_client_parse *parse, const char *field, const struct pry_json_value *value,
                             size_t most)
{
  struct pry_buffer text;
  pry_buffer_init(&text, most);
  const char *copy = NULL;
  if (value->type != PRY_JSON_STRING || !pry_json_string(value->raw, &text) || !text.size ||
      memchr(text.data, '\0', text.size))
    pry_client_complain(parse, value->raw.data, "%s must be a text of 1..%zu bytes", field, most);
  else if (!(copy = pry_arena_copy(&parse->table->arena, pry_buffer_slice(&text))))
    pry_client_no_memory(parse);
  pry_buffer_fini(&text);
  return copy;
}

static bool read_count(struct pry_client_parse *parse, const char *field, const struct pry_json_value *value,
                       unsigned most, unsigned *count)
{
  int64_t number;
  if (value->type != PRY_JSON_NUMBER || !pry_json_integer(value->raw, &number) || number < 1 || number > most)
    return pry_client_complain(parse, value->raw.data, "%s must be a whole number 1..%u; leave it out for no limit",
                               field, most);
  *count = (unsigned)number;
  return true;
}

static bool read_globs(struct pry_client_parse *parse, const char *field, const struct pry_json_value *list,
                       struct pry_text_list *globs)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  if (list->type != PRY_JSON_ARRAY)
    return pry_client_complain(parse, list->raw.data, "%s must be a list of texts, like [\"%s\"]", field,
                               strcmp(field, "models") == 0 ? "gpt-4o*" : "/v1/chat/*");
  const char **items = pry_arena_array(&parse->table->arena, PRY_CLIENT_GLOBS_MAX, sizeof *items);
  if (!items)
    return pry_client_no_memory(parse);
  size_t count = 0;
  pry_json_iterate(&iterator, list->raw);
  while (pry_json_next(&iterator, &key, &value)) {
    if (count == PRY_CLIENT_GLOBS_MAX)
      return pry_client_complain(parse, list->raw.data, "%s has more than %d elements", field, PRY_CLIENT_GLOBS_MAX);
    if (!(items[count++] = read_text(parse, field, &value, GLOB_MAX)))
      return false;
  }
  if (!count)
    return pry_client_complain(parse, list->raw.data,
                               "%s is empty, so nothing would be allowed; leave it out to allow all, or "
                               "say \"enabled\": false",
                               field);
  *globs = (struct pry_text_list){items, count};
  return true;
}

static bool read_boolean(struct pry_client_parse *parse, const char *field, const struct pry_json_value *value,
                         bool *out)
{
  if (value->type != PRY_JSON_TRUE && value->type != PRY_JSON_FALSE)
    return pry_client_complain(parse, value->raw.data, "%s must be true or false", field);
  *out = value->type == PRY_JSON_TRUE;
  return true;
}

/* `digits` digits as a number; -1: they are none. */
static int digits_at(const char *text, int digits)
{
  int number = 0;
  for (int i = 0; i < digits; i++) {
    if (text[i] < '0' || text[i] > '9')
      return -1;
    number = number * 10 + (text[i] - '0');
  }
  return number;
}

/* "2027-01-31" or "2027-01-31T12:00:00Z" (RFC 3339, UTC only). */
static bool read_date(const char *text, double *unix_time)
{
  size_t size = strlen(text);
  if ((size != 10 && size != 20) || text[4] != '-' || text[7] != '-' ||
      (size == 20 && (text[10] != 'T' || text[13] != ':' || text[16] != ':' || text[19] != 'Z')))
    return false;
  struct tm parts = {.tm_year = digits_at(text, 4) - 1900,
                     .tm_mon = digits_at(text + 5, 2) - 1,
                     .tm_mday = digits_at(text + 8, 2),
                     .tm_hour = size == 20 ? digits_at(text + 11, 2) : 0,
                     .tm_min = size == 20 ? digits_at(text + 14, 2) : 0,
                     .tm_sec = size == 20 ? digits_at(text + 17, 2) : 0};
  struct tm wanted = parts;
  if (parts.tm_year < 70 || parts.tm_hour < 0 || parts.tm_min < 0 || parts.tm_sec < 0)
    return false;
  *unix_time = (double)timegm(&parts);
  return parts.tm_mon == wanted.tm_mon && parts.tm_mday == wanted.tm_mday && parts.tm_hour == wanted.tm_hour &&
         parts.tm_min == wanted.tm_min && parts.tm_sec == wanted.tm_sec; /* no 31 June */
}

static bool read_expires(struct pry_client_parse *parse, const struct pry_json_value *value)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 64);
  bool ok = value->type == PRY_JSON_NUMBER
                ? pry_json_number(value->raw, &parse->client->expires) && parse->client->expires > 0
                : value->type == PRY_JSON_STRING && pry_json_string(value->raw, &text) && pry_buffer_text(&text) &&
                      read_date(pry_buffer_text(&text), &parse->client->expires);
  pry_buffer_fini(&text);
  return ok || pry_client_complain(
                   parse, value->raw.data,
                   "expires must be a date in UTC, \"2027-01-31\" or \"2027-01-31T12:00:00Z\", or Unix seconds");
}

const char *pry_client_name_complaint(struct pry_slice name)
{
  if (!name.size || name.size >= PRY_CLIENT_NAME_MAX)
    return "must have 1..63 characters";
  for (size_t i = 0; i < name.size; i++) {
    char c = name.data[i];
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!plain && (i == 0 || !memchr("._-", c, 3)))
      return "may hold letters, digits, '.', '_' and '-', and begins with a letter or digit";
  }
  return NULL;
}

/* ---- keys ------------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_digest(struct pry_slice hex, unsigned char digest[PRY_DIGEST_SIZE])
{
  if (hex.size != (size_t)2 * PRY_DIGEST_SIZE)
    return false;
  for (size_t i = 0; i < PRY_DIGEST_SIZE; i++) {
    int high = hex_digit(hex.data[2 * i]), low = hex_digit(hex.data[2 * i + 1]);
    if (high < 0 || low < 0)
      return false;
    digest[i] = (unsigned char)(high << 4 | low);
  }
  return true;
}

bool pry_client_digest(struct pry_slice key, char text[PRY_CLIENT_DIGEST_TEXT])
{
  unsigned char digest[PRY_DIGEST_SIZE];
  if (EVP_Digest(key.data, key.size, digest, NULL, EVP_sha256(), NULL) != 1)
    return false;
  memcpy(text, DIGEST_PREFIX, sizeof DIGEST_PREFIX);
  for (size_t i = 0; i < PRY_DIGEST_SIZE; i++)
    snprintf(text + sizeof DIGEST_PREFIX - 1 + 2 * i, 3, "%02x", digest[i]);
  return true;
}

static bool is_plain_key(struct pry_slice key)
{
  if (key.size < PRY_CLIENT_KEY_MIN || key.size > PRY_CLIENT_KEY_MAX)
    return false;
  for (size_t i = 0; i < key.size; i++)
    if (key.data[i] <= ' ' || key.data[i] > '~')
      return false;
  return true;
}

/* The SHA-256 that a key in the file stands for. */
static bool digest_of(struct pry_client_parse *parse, const struct pry_json_value *value, struct pry_slice key,
                      unsigned char digest[PRY_DIGEST_SIZE])
{
  struct pry_slice prefix = {DIGEST_PREFIX, sizeof DIGEST_PREFIX - 1};
  if (pry_slice_starts_with(key, prefix)) {
    struct pry_slice hex = {key.data + prefix.size, key.size - prefix.size};
    return read_digest(hex, digest) ||
           pry_client_complain(parse, value->raw.data,
                               "a key that begins with \"sha256:\" goes on with 64 hexadecimal digits");
  }
  if (!is_plain_key(key))
    return pry_client_complain(
        parse, value->raw.data,
        "a key must be \"sha256:\" and 64 hexadecimal digits, or %d..%d printable characters without "
        "spaces; `parry client add` makes one",
        PRY_CLIENT_KEY_MIN, PRY_CLIENT_KEY_MAX);
  parse->plain_keys++;
  return EVP_Digest(key.data, key.size, digest, NULL, EVP_sha256(), NULL) == 1 || pry_client_no_memory(parse);
}

static bool push_key(struct pry_client_parse *parse, const unsigned char digest[PRY_DIGEST_SIZE])
{
  struct pry_client_table *table = parse->table;
  if (table->key_count == parse->key_capacity) { /* the smaller one stays in the arena until the table goes */
    size_t room = parse->key_capacity ? 2 * parse->key_capacity : 16;
    struct pry_client_key *keys = pry_arena_array(&table->arena, room, sizeof *keys);
    if (!keys)
      return pry_client_no_memory(parse);
    if (table->key_count)
      memcpy(keys, table->keys, table->key_count * sizeof *keys);
    table->keys = keys;
    parse->key_capacity = room;
  }
  struct pry_client_key *key = &table->keys[table->key_count];
  *key = (struct pry_client_key){.client = parse->client, .line = parse->line};
  if (!pry_clients_mark(parse->clients, digest, key->mark))
    return pry_client_no_memory(parse);
  table->key_count++;
  return true;
}

static bool read_key(struct pry_client_parse *parse, const struct pry_json_value *value)
{
  struct pry_buffer key;
  unsigned char digest[PRY_DIGEST_SIZE];
  pry_buffer_init(&key, PRY_CLIENT_KEY_MAX);
  bool reserved = pry_buffer_reserve(&key, PRY_CLIENT_KEY_MAX); /* at once: growing would leave copies behind */
  bool ok = reserved || pry_client_no_memory(parse);
  if (ok && (value->type != PRY_JSON_STRING || !pry_json_string(value->raw, &key)))
    ok = pry_client_complain(parse, value->raw.data, "a key must be a text of at most %d bytes", PRY_CLIENT_KEY_MAX);
  ok = ok && digest_of(parse, value, pry_buffer_slice(&key), digest) && push_key(parse, digest);
  if (key.data)
    explicit_bzero(key.data, key.capacity);
  pry_buffer_fini(&key);
  return ok;
}

static bool read_keys(struct pry_client_parse *parse, const struct pry_json_value *list)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  size_t count = 0;
  if (list->type != PRY_JSON_ARRAY)
    return pry_client_complain(parse, list->raw.data, "keys must be a list of texts");
  pry_json_iterate(&iterator, list->raw);
  while (pry_json_next(&iterator, &key, &value)) {
    if (++count > PRY_CLIENT_KEYS_MAX)
      return pry_client_complain(parse, list->raw.data, "keys has more than %d elements", PRY_CLIENT_KEYS_MAX);
    if (!read_key(parse, &value))
      return false;
  }
  return count || pry_client_complain(parse, list->raw.data, "keys is empty");
}

/* ---- one client ------------------------------------------------------------------------------------------- */

#define FIELDS(X) X(name) X(key) X(keys) X(rpm) X(burst) X(concurrent) X(models) X(routes) X(expires) X(enabled) X(note)

enum field {
#define X(name) FIELD_##name,
  FIELDS(X)
#undef X
      FIELD_COUNT
};

static const char *const field_names[] = {
#define X(name) #name,
    FIELDS(X)
#undef X
};

static enum field field_of(struct pry_slice key)
{
  enum field field = 0;
  while (field < FIELD_COUNT && !pry_json_equals(key, pry_slice_of(field_names[field])))
    field++;
  return field;
}

static bool unknown_field(struct pry_client_parse *parse, struct pry_slice key)
{
  struct pry_buffer name;
  pry_buffer_init(&name, 64);
  const char *text = pry_json_string(key, &name) ? pry_buffer_text(&name) : NULL;
  const char *nearest = text ? pry_nearest_name(text, field_names, FIELD_COUNT) : NULL;
  if (nearest)
    pry_client_complain(parse, key.data, "this field does not exist; did you mean \"%s\"?", nearest);
  else
    pry_client_complain(parse, key.data,
                        "this field does not exist; a client has name, key, keys, rpm, burst, concurrent, "
                        "models, routes, expires, enabled, note");
  pry_buffer_fini(&name);
  return false;
}

static bool read_name(struct pry_client_parse *parse, const struct pry_json_value *value)
{
  const char *name = read_text(parse, "name", value, PRY_CLIENT_NAME_MAX - 1);
  const char *wrong = name ? pry_client_name_complaint(pry_slice_of(name)) : NULL;
  if (wrong)
    return pry_client_complain(parse, value->raw.data, "name %s", wrong);
  parse->client->name = name;
  return name != NULL;
}

static bool read_field(struct pry_client_parse *parse, enum field field, const struct pry_json_value *value)
{
  struct pry_client *client = parse->client;
  switch (field) {
  case FIELD_name:
    return true; /* read before all others, so that their findings can say whose they are */
  case FIELD_key:
    return read_key(parse, value);
  case FIELD_keys:
    return read_keys(parse, value);
  case FIELD_rpm:
    return read_count(parse, "rpm", value, RPM_MAX, &client->rpm);
  case FIELD_burst:
    return read_count(parse, "burst", value, RPM_MAX, &client->burst);
  case FIELD_concurrent:
    return read_count(parse, "concurrent", value, CONCURRENT_MAX, &client->concurrent);
  case FIELD_models:
    return read_globs(parse, "models", value, &client->models);
  case FIELD_routes:
    return read_globs(parse, "routes", value, &client->paths);
  case FIELD_expires:
    return read_expires(parse, value);
  case FIELD_enabled:
    return read_boolean(parse, "enabled", value, &client->enabled);
  case FIELD_note:
    return value->type == PRY_JSON_STRING || pry_client_complain(parse, value->raw.data, "note must be a text");
  case FIELD_COUNT:
    break;
  }
  return false;
}

static void read_fields(struct pry_client_parse *parse, struct pry_slice object)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  bool seen[FIELD_COUNT] = {false};
  pry_json_iterate(&iterator, object);
  while (pry_json_next(&iterator, &key, &value)) {
    enum field field = field_of(key);
    if (field == FIELD_COUNT)
      unknown_field(parse, key);
    else if (seen[field])
      pry_client_complain(parse, key.data, "has %s twice", field_names[field]);
    else
      read_field(parse, field, &value);
    if (field < FIELD_COUNT)
      seen[field] = true;
  }
  if (!seen[FIELD_key] && !seen[FIELD_keys])
    pry_client_complain(parse, NULL, "has no key; `parry client add` makes one");
  if (seen[FIELD_burst] && !seen[FIELD_rpm])
    pry_client_complain(parse, NULL, "burst does nothing without rpm");
  if (!seen[FIELD_burst])
    parse->client->burst = parse->client->rpm;
}

void pry_client_parse_entry(struct pry_client_parse *parse, const struct pry_json_value *value)
{
  struct pry_json_value name;
  struct pry_client *client = &parse->table->clients[parse->table->count++];
  *client = (struct pry_client){.enabled = true, .expires = INFINITY};
  parse->client = client;
  if (value->type != PRY_JSON_OBJECT)
    pry_client_complain(parse, NULL,
                        "clients[%zu] must be an object, like { \"name\": \"team-a\", \"key\": \"sha256:...\" }",
                        parse->table->count - 1);
  else if (!pry_json_get(value->raw, "name", &name))
    pry_client_complain(parse, NULL, "clients[%zu] has no name", parse->table->count - 1);
  else if (read_name(parse, &name))
    read_fields(parse, value->raw);
  if (client->name && !(client->use = pry_clients_use(parse->clients, client->name)))
    pry_client_no_memory(parse);
  parse->client = NULL;
}
