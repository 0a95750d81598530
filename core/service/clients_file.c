/* Reading a clients file. Declared in clients.h. The file is hostile until parsed: bounded, a closed set of fields, and
 * nothing of a key in any finding. */
#include "clients_internal.h"

#include "json.h"
#include "nearest.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RPM_MAX = 10000000, CONCURRENT_MAX = 1000000, GLOB_MAX = 255, ARENA_MAX = 64 * 1024 * 1024 };

static const char DIGEST_PREFIX[] = "sha256:";

/* One parse; on its caller's stack. */
struct parse {
  struct pry_clients *clients;
  struct pry_client_table *table;
  struct pry_slice text;
  const char *shown;
  struct pry_report *report;
  struct pry_client *client; /* the one being read */
  int line;                  /* where it begins */
  const char *line_seen;     /* up to here lines were counted for it */
  size_t plain_keys, key_capacity;
  bool no_memory;
};

/* ---- findings --------------------------------------------------------------------------------------------- */

static int line_at(const struct parse *parse, const char *place)
{
  int line = 1;
  for (const char *p = parse->text.data; p && p < place; p++)
    line += *p == '\n';
  return line;
}

/* The same, for places that only go forward: files may be long and clients many. */
static void count_lines_to(struct parse *parse, const char *place)
{
  if (!parse->line_seen) {
    parse->line_seen = parse->text.data;
    parse->line = 1;
  }
  for (; parse->line_seen < place; parse->line_seen++)
    parse->line += *parse->line_seen == '\n';
}

static void add_finding(struct parse *parse, enum pry_severity severity, int line, const char *what)
{
  char where[160];
  if (line)
    snprintf(where, sizeof where, "%.140s:%d", parse->shown, line);
  else
    snprintf(where, sizeof where, "%.150s", parse->shown);
  pry_report_add(parse->report, severity, where, "%s", what);
}

__attribute__((format(printf, 3, 4))) static bool complain(struct parse *parse, const char *place, const char *format,
                                                           ...)
{
  char text[320], what[400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (parse->client && parse->client->name)
    snprintf(what, sizeof what, "client \"%s\": %s", parse->client->name, text);
  else
    snprintf(what, sizeof what, "%s", text);
  add_finding(parse, PRY_FINDING_ERROR, place ? line_at(parse, place) : parse->line, what);
  return false;
}

static bool no_memory(struct parse *parse)
{
  if (!parse->no_memory)
    add_finding(parse, PRY_FINDING_ERROR, 0, "memory is short, or the file's clients are larger than 64 MiB");
  parse->no_memory = true;
  return false;
}

/* ---- values ----------------------------------------------------------------------------------------------- */

/* A JSON string as text in the arena. NULL: none, or it holds a NUL; told. */
static const char *read_text(struct parse *parse, const char *field, const struct pry_json_value *value, size_t most)
{
  struct pry_buffer text;
  pry_buffer_init(&text, most);
  const char *copy = NULL;
  if (value->type != PRY_JSON_STRING || !pry_json_string(value->raw, &text) || !text.size ||
      memchr(text.data, '\0', text.size))
    complain(parse, value->raw.data, "%s must be a text of 1..%zu bytes", field, most);
  else if (!(copy = pry_arena_copy(&parse->table->arena, pry_buffer_slice(&text))))
    no_memory(parse);
  pry_buffer_fini(&text);
  return copy;
}

static bool read_count(struct parse *parse, const char *field, const struct pry_json_value *value, unsigned most,
                       unsigned *count)
{
  int64_t number;
  if (value->type != PRY_JSON_NUMBER || !pry_json_integer(value->raw, &number) || number < 1 || number > most)
    return complain(parse, value->raw.data, "%s must be a whole number 1..%u; leave it out for no limit", field, most);
  *count = (unsigned)number;
  return true;
}

static bool read_globs(struct parse *parse, const char *field, const struct pry_json_value *list,
                       struct pry_text_list *globs)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  if (list->type != PRY_JSON_ARRAY)
    return complain(parse, list->raw.data, "%s must be a list of texts, like [\"%s\"]", field,
                    strcmp(field, "models") == 0 ? "gpt-4o*" : "/v1/chat/*");
  const char **items = pry_arena_array(&parse->table->arena, PRY_CLIENT_GLOBS_MAX, sizeof *items);
  if (!items)
    return no_memory(parse);
  size_t count = 0;
  pry_json_iterate(&iterator, list->raw);
  while (pry_json_next(&iterator, &key, &value)) {
    if (count == PRY_CLIENT_GLOBS_MAX)
      return complain(parse, list->raw.data, "%s has more than %d elements", field, PRY_CLIENT_GLOBS_MAX);
    if (!(items[count++] = read_text(parse, field, &value, GLOB_MAX)))
      return false;
  }
  if (!count)
    return complain(parse, list->raw.data,
                    "%s is empty, so nothing would be allowed; leave it out to allow all, or "
                    "say \"enabled\": false",
                    field);
  *globs = (struct pry_text_list){items, count};
  return true;
}

static bool read_boolean(struct parse *parse, const char *field, const struct pry_json_value *value, bool *out)
{
  if (value->type != PRY_JSON_TRUE && value->type != PRY_JSON_FALSE)
    return complain(parse, value->raw.data, "%s must be true or false", field);
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

static bool read_expires(struct parse *parse, const struct pry_json_value *value)
{
  struct pry_buffer text;
  pry_buffer_init(&text, 64);
  bool ok = value->type == PRY_JSON_NUMBER
                ? pry_json_number(value->raw, &parse->client->expires) && parse->client->expires > 0
                : value->type == PRY_JSON_STRING && pry_json_string(value->raw, &text) && pry_buffer_text(&text) &&
                      read_date(pry_buffer_text(&text), &parse->client->expires);
  pry_buffer_fini(&text);
  return ok || complain(parse, value->raw.data,
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
static bool digest_of(struct parse *parse, const struct pry_json_value *value, struct pry_slice key,
                      unsigned char digest[PRY_DIGEST_SIZE])
{
  struct pry_slice prefix = {DIGEST_PREFIX, sizeof DIGEST_PREFIX - 1};
  if (pry_slice_starts_with(key, prefix)) {
    struct pry_slice hex = {key.data + prefix.size, key.size - prefix.size};
    return read_digest(hex, digest) ||
           complain(parse, value->raw.data, "a key that begins with \"sha256:\" goes on with 64 hexadecimal digits");
  }
  if (!is_plain_key(key))
    return complain(parse, value->raw.data,
                    "a key must be \"sha256:\" and 64 hexadecimal digits, or %d..%d printable characters without "
                    "spaces; `parry client add` makes one",
                    PRY_CLIENT_KEY_MIN, PRY_CLIENT_KEY_MAX);
  parse->plain_keys++;
  return EVP_Digest(key.data, key.size, digest, NULL, EVP_sha256(), NULL) == 1 || no_memory(parse);
}

static bool push_key(struct parse *parse, const unsigned char digest[PRY_DIGEST_SIZE])
{
  struct pry_client_table *table = parse->table;
  if (table->key_count == parse->key_capacity) { /* the smaller one stays in the arena until the table goes */
    size_t room = parse->key_capacity ? 2 * parse->key_capacity : 16;
    struct pry_client_key *keys = pry_arena_array(&table->arena, room, sizeof *keys);
    if (!keys)
      return no_memory(parse);
    if (table->key_count)
      memcpy(keys, table->keys, table->key_count * sizeof *keys);
    table->keys = keys;
    parse->key_capacity = room;
  }
  struct pry_client_key *key = &table->keys[table->key_count];
  *key = (struct pry_client_key){.client = parse->client, .line = parse->line};
  if (!pry_clients_mark(parse->clients, digest, key->mark))
    return no_memory(parse);
  table->key_count++;
  return true;
}

static bool read_key(struct parse *parse, const struct pry_json_value *value)
{
  struct pry_buffer key;
  unsigned char digest[PRY_DIGEST_SIZE];
  pry_buffer_init(&key, PRY_CLIENT_KEY_MAX);
  bool reserved = pry_buffer_reserve(&key, PRY_CLIENT_KEY_MAX); /* at once: growing would leave copies behind */
  bool ok = reserved || no_memory(parse);
  if (ok && (value->type != PRY_JSON_STRING || !pry_json_string(value->raw, &key)))
    ok = complain(parse, value->raw.data, "a key must be a text of at most %d bytes", PRY_CLIENT_KEY_MAX);
  ok = ok && digest_of(parse, value, pry_buffer_slice(&key), digest) && push_key(parse, digest);
  if (key.data)
    explicit_bzero(key.data, key.capacity);
  pry_buffer_fini(&key);
  return ok;
}

static bool read_keys(struct parse *parse, const struct pry_json_value *list)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  size_t count = 0;
  if (list->type != PRY_JSON_ARRAY)
    return complain(parse, list->raw.data, "keys must be a list of texts");
  pry_json_iterate(&iterator, list->raw);
  while (pry_json_next(&iterator, &key, &value)) {
    if (++count > PRY_CLIENT_KEYS_MAX)
      return complain(parse, list->raw.data, "keys has more than %d elements", PRY_CLIENT_KEYS_MAX);
    if (!read_key(parse, &value))
      return false;
  }
  return count || complain(parse, list->raw.data, "keys is empty");
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

static bool unknown_field(struct parse *parse, struct pry_slice key)
{
  struct pry_buffer name;
  pry_buffer_init(&name, 64);
  const char *text = pry_json_string(key, &name) ? pry_buffer_text(&name) : NULL;
  const char *nearest = text ? pry_nearest_name(text, field_names, FIELD_COUNT) : NULL;
  if (nearest)
    complain(parse, key.data, "this field does not exist; did you mean \"%s\"?", nearest);
  else
    complain(parse, key.data,
             "this field does not exist; a client has name, key, keys, rpm, burst, concurrent, "
             "models, routes, expires, enabled, note");
  pry_buffer_fini(&name);
  return false;
}

static bool read_name(struct parse *parse, const struct pry_json_value *value)
{
  const char *name = read_text(parse, "name", value, PRY_CLIENT_NAME_MAX - 1);
  const char *wrong = name ? pry_client_name_complaint(pry_slice_of(name)) : NULL;
  if (wrong)
    return complain(parse, value->raw.data, "name %s", wrong);
  parse->client->name = name;
  return name != NULL;
}

static bool read_field(struct parse *parse, enum field field, const struct pry_json_value *value)
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
    return value->type == PRY_JSON_STRING || complain(parse, value->raw.data, "note must be a text");
  case FIELD_COUNT:
    break;
  }
  return false;
}

static void read_fields(struct parse *parse, struct pry_slice object)
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
      complain(parse, key.data, "has %s twice", field_names[field]);
    else
      read_field(parse, field, &value);
    if (field < FIELD_COUNT)
      seen[field] = true;
  }
  if (!seen[FIELD_key] && !seen[FIELD_keys])
    complain(parse, NULL, "has no key; `parry client add` makes one");
  if (seen[FIELD_burst] && !seen[FIELD_rpm])
    complain(parse, NULL, "burst does nothing without rpm");
  if (!seen[FIELD_burst])
    parse->client->burst = parse->client->rpm;
}

static void read_client(struct parse *parse, const struct pry_json_value *value)
{
  struct pry_json_value name;
  struct pry_client *client = &parse->table->clients[parse->table->count++];
  *client = (struct pry_client){.enabled = true, .expires = INFINITY};
  parse->client = client;
  count_lines_to(parse, value->raw.data);
  if (value->type != PRY_JSON_OBJECT)
    complain(parse, NULL, "clients[%zu] must be an object, like { \"name\": \"team-a\", \"key\": \"sha256:...\" }",
             parse->table->count - 1);
  else if (!pry_json_get(value->raw, "name", &name))
    complain(parse, NULL, "clients[%zu] has no name", parse->table->count - 1);
  else if (read_name(parse, &name))
    read_fields(parse, value->raw);
  if (client->name && !(client->use = pry_clients_use(parse->clients, client->name)))
    no_memory(parse);
  parse->client = NULL;
}

/* ---- the whole -------------------------------------------------------------------------------------------- */

static bool broken_json(struct parse *parse, const struct pry_json_iterator *iterator)
{
  parse->line = line_at(parse, iterator->cursor);
  return complain(parse, NULL, "from here on this is not JSON that can be read: %s",
                  pry_json_result_text(iterator->result));
}

/* JSON as a whole, before anything in it is looked at; else, the place where it breaks. */
static bool check_syntax(struct parse *parse)
{
  enum pry_json_result result = pry_json_parse(parse->text, NULL);
  if (result == PRY_JSON_OK)
    return true;
  struct pry_json_iterator outer, inner;
  struct pry_slice key;
  struct pry_json_value value;
  pry_json_iterate(&outer, parse->text);
  while (pry_json_next(&outer, &key, &value))
    ;
  if (!outer.cursor)
    return complain(parse, NULL, "is not JSON that can be read: %s", pry_json_result_text(result));
  /* The list of clients is where people edit: step into it. */
  struct pry_slice rest = {outer.cursor, (size_t)(parse->text.data + parse->text.size - outer.cursor)};
  if (!rest.size || rest.data[0] != '[')
    return broken_json(parse, &outer);
  pry_json_iterate(&inner, rest);
  while (pry_json_next(&inner, &key, &value))
    ;
  return broken_json(parse, inner.cursor ? &inner : &outer);
}

/* The list itself; NONE: told. */
static struct pry_json_value find_list(struct parse *parse)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value, list = {.type = PRY_JSON_NONE};
  pry_json_iterate(&iterator, parse->text);
  while (pry_json_next(&iterator, &key, &value)) {
    if (!pry_json_equals(key, PRY_SLICE("clients")))
      complain(parse, key.data, "the file has one field, \"clients\"; this is another");
    else if (list.type != PRY_JSON_NONE)
      complain(parse, key.data, "\"clients\" is there twice");
    else
      list = value;
  }
  if (iterator.type != PRY_JSON_OBJECT || list.type != PRY_JSON_ARRAY) {
    complain(parse, NULL, "must be an object with a list: { \"clients\": [ { \"name\": ..., \"key\": ... } ] }");
    list.type = PRY_JSON_NONE;
  }
  return list;
}

static void read_list(struct parse *parse, struct pry_slice list)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value;
  size_t count = 0;
  pry_json_iterate(&iterator, list);
  while (pry_json_next(&iterator, &key, &value))
    count++;
  count_lines_to(parse, list.data);
  if (count > PRY_CLIENTS_MAX) {
    complain(parse, NULL, "has %zu clients; at most %d", count, PRY_CLIENTS_MAX);
    return;
  }
  parse->table->clients = pry_arena_array(&parse->table->arena, count + 1, sizeof *parse->table->clients);
  if (!parse->table->clients) {
    no_memory(parse);
    return;
  }
  pry_json_iterate(&iterator, list);
  while (pry_json_next(&iterator, &key, &value) && !parse->no_memory && parse->report->errors < 100)
    read_client(parse, &value);
}

static int by_mark(const void *a, const void *b)
{
  const struct pry_client_key *one = a, *other = b;
  return memcmp(one->mark, other->mark, PRY_DIGEST_SIZE);
}

static int by_name(const void *a, const void *b)
{
  const struct pry_client *const *one = a, *const *other = b;
  return strcmp((*one)->name, (*other)->name);
}

/* After sorting, what is equal stands together. */
static void check_twins(struct parse *parse)
{
  struct pry_client_table *table = parse->table;
  if (table->key_count)
    qsort(table->keys, table->key_count, sizeof *table->keys, by_mark);
  for (size_t i = 1; i < table->key_count; i++) {
    const struct pry_client_key *one = &table->keys[i - 1], *other = &table->keys[i];
    bool in_order = one->client <= other->client;
    parse->line = in_order ? other->line : one->line;
    if (memcmp(one->mark, other->mark, PRY_DIGEST_SIZE) == 0)
      complain(parse, NULL, "a key is there twice: of \"%s\" and of \"%s\"", (in_order ? one : other)->client->name,
               (in_order ? other : one)->client->name);
  }
  const struct pry_client **names = pry_arena_array(&table->arena, table->count + 1, sizeof *names);
  if (!names) {
    no_memory(parse);
    return;
  }
  for (size_t i = 0; i < table->count; i++)
    names[i] = &table->clients[i];
  if (table->count)
    qsort(names, table->count, sizeof *names, by_name);
  parse->line = 0;
  for (size_t i = 1; i < table->count; i++)
    if (strcmp(names[i - 1]->name, names[i]->name) == 0)
      complain(parse, NULL, "two clients are named \"%s\"", names[i]->name);
}

static void warn(struct parse *parse, bool readable_by_others)
{
  char text[256];
  if (!parse->plain_keys)
    return;
  snprintf(text, sizeof text, "%zu key%s written out%s; write \"sha256:...\" instead (`parry client add` does)",
           parse->plain_keys, parse->plain_keys == 1 ? " is" : "s are",
           readable_by_others ? ", and other users of this machine can read the file (chmod 600)" : "");
  add_finding(parse, PRY_FINDING_WARNING, 0, text);
}

struct pry_client_table *pry_client_table_parse(struct pry_clients *clients, struct pry_slice text, const char *shown,
                                                bool readable_by_others, struct pry_report *report)
{
  struct pry_client_table *table = calloc(1, sizeof *table);
  struct parse parse = {.clients = clients, .table = table, .text = text, .shown = shown, .report = report};
  unsigned errors = report->errors;
  if (!table) {
    no_memory(&parse);
    return NULL;
  }
  table->owner = clients;
  atomic_init(&table->references, 1);
  pry_arena_init(&table->arena, ARENA_MAX);
  if (check_syntax(&parse)) {
    struct pry_json_value list = find_list(&parse);
    if (list.type == PRY_JSON_ARRAY)
      read_list(&parse, list.raw);
  }
  if (report->errors == errors)
    check_twins(&parse);
  if (report->errors == errors) {
    warn(&parse, readable_by_others);
    return table;
  }
  pry_client_table_unref(table);
  return NULL;
}

static bool read_all(int fd, struct pry_buffer *text)
{
  errno = 0;
  for (;;) {
    if (text->size == text->limit)
      return false;
    ssize_t got = read(fd, text->data + text->size, text->limit - text->size);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return got == 0;
    text->size += (size_t)got;
  }
}

struct pry_client_table *pry_client_table_read(struct pry_clients *clients, const char *path, const char *shown,
                                               struct pry_report *report)
{
  struct pry_client_table *table = NULL;
  struct parse parse = {.shown = shown, .report = report};
  struct stat about;
  struct pry_buffer text = {0};
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 || fstat(fd, &about) < 0) {
    complain(&parse, NULL, "cannot be read: %s; `parry client add NAME` makes it", strerror(errno));
    goto done;
  }
  if (!S_ISREG(about.st_mode) || about.st_size > PRY_CLIENTS_FILE_MAX) {
    complain(&parse, NULL, "is not a regular file of at most 4 MiB");
    goto done;
  }
  pry_buffer_init(&text, (size_t)about.st_size + 1); /* all at once: growing would leave copies of keys behind */
  if (!pry_buffer_reserve(&text, text.limit))
    no_memory(&parse);
  else if (!read_all(fd, &text))
    complain(&parse, NULL, "cannot be read whole, or is being written: %s", errno ? strerror(errno) : "it grows");
  else
    table = pry_client_table_parse(clients, pry_buffer_slice(&text), shown, (about.st_mode & 077) != 0, report);
done:
  if (fd >= 0)
    close(fd);
  if (text.data)
    explicit_bzero(text.data, text.capacity);
  pry_buffer_fini(&text);
  return table;
}

bool pry_clients_path(const char *folder, const char *file, char *path, size_t size)
{
  int length = file[0] == '/' ? snprintf(path, size, "%s", file) : snprintf(path, size, "%s/%s", folder, file);
  return length > 0 && (size_t)length < size;
}
