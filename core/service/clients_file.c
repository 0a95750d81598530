/* Reading a clients file: the list, and what only the whole shows. Declared in clients.h. The file is hostile until
 * parsed: bounded, a closed set of fields, and nothing of a key in any finding. */
#include "clients_internal.h"

#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ARENA_MAX = 64 * 1024 * 1024 };

/* ---- findings --------------------------------------------------------------------------------------------- */

static int line_at(const struct pry_client_parse *parse, const char *place)
{
  int line = 1;
  for (const char *p = parse->text.data; p && p < place; p++)
    line += *p == '\n';
  return line;
}

/* The same, for places that only go forward: files may be long and clients many. */
static void count_lines_to(struct pry_client_parse *parse, const char *place)
{
  if (!parse->line_seen) {
    parse->line_seen = parse->text.data;
    parse->line = 1;
  }
  for (; parse->line_seen && parse->line_seen < place; parse->line_seen++)
    parse->line += *parse->line_seen == '\n';
}

static void add_finding(struct pry_client_parse *parse, enum pry_severity severity, int line, const char *what)
{
  char where[160];
  if (line)
    snprintf(where, sizeof where, "%.140s:%d", parse->shown, line);
  else
    snprintf(where, sizeof where, "%.150s", parse->shown);
  pry_report_add(parse->report, severity, where, "%s", what);
}

bool pry_client_complain(struct pry_client_parse *parse, const char *place, const char *format, ...)
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

bool pry_client_no_memory(struct pry_client_parse *parse)
{
  if (!parse->no_memory)
    add_finding(parse, PRY_FINDING_ERROR, 0, "memory is short, or the file's clients are larger than 64 MiB");
  parse->no_memory = true;
  return false;
}

/* ---- the whole -------------------------------------------------------------------------------------------- */

static bool broken_json(struct pry_client_parse *parse, const struct pry_json_iterator *iterator)
{
  parse->line = line_at(parse, iterator->cursor);
  return pry_client_complain(parse, NULL, "from here on this cannot be read: %s",
                             pry_json_result_text(iterator->result));
}

/* JSON as a whole, before anything in it is looked at; else, the place where it breaks. */
static bool check_syntax(struct pry_client_parse *parse)
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
    return pry_client_complain(parse, NULL, "is not JSON that can be read: %s", pry_json_result_text(result));
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
static struct pry_json_value find_list(struct pry_client_parse *parse)
{
  struct pry_json_iterator iterator;
  struct pry_slice key;
  struct pry_json_value value, list = {.type = PRY_JSON_NONE};
  pry_json_iterate(&iterator, parse->text);
  while (pry_json_next(&iterator, &key, &value)) {
    if (!pry_json_equals(key, PRY_SLICE("clients")))
      pry_client_complain(parse, key.data, "the file has one field, \"clients\"; this is another");
    else if (list.type != PRY_JSON_NONE)
      pry_client_complain(parse, key.data, "\"clients\" is there twice");
    else
      list = value;
  }
  if (iterator.type != PRY_JSON_OBJECT || list.type != PRY_JSON_ARRAY) {
    pry_client_complain(parse, NULL,
                        "must be an object with a list: { \"clients\": [ { \"name\": ..., \"key\": ... } ] }");
    list.type = PRY_JSON_NONE;
  }
  return list;
}

static void read_list(struct pry_client_parse *parse, struct pry_slice list)
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
    pry_client_complain(parse, NULL, "has %zu clients; at most %d", count, PRY_CLIENTS_MAX);
    return;
  }
  parse->table->clients = pry_arena_array(&parse->table->arena, count + 1, sizeof *parse->table->clients);
  if (!parse->table->clients) {
    pry_client_no_memory(parse);
    return;
  }
  pry_json_iterate(&iterator, list);
  while (pry_json_next(&iterator, &key, &value) && !parse->no_memory && parse->report->errors < 100) {
    count_lines_to(parse, value.raw.data);
    pry_client_parse_entry(parse, &value);
  }
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
static void check_twins(struct pry_client_parse *parse)
{
  struct pry_client_table *table = parse->table;
  if (table->key_count)
    qsort(table->keys, table->key_count, sizeof *table->keys, by_mark);
  for (size_t i = 1; i < table->key_count; i++) {
    const struct pry_client_key *one = &table->keys[i - 1], *other = &table->keys[i];
    bool in_order = one->client <= other->client;
    parse->line = in_order ? other->line : one->line;
    if (memcmp(one->mark, other->mark, PRY_DIGEST_SIZE) == 0)
      pry_client_complain(parse, NULL, "a key is there twice: of \"%s\" and of \"%s\"",
                          (in_order ? one : other)->client->name, (in_order ? other : one)->client->name);
  }
  const struct pry_client **names = pry_arena_array(&table->arena, table->count + 1, sizeof *names);
  if (!names) {
    pry_client_no_memory(parse);
    return;
  }
  for (size_t i = 0; i < table->count; i++)
    names[i] = &table->clients[i];
  if (table->count)
    qsort(names, table->count, sizeof *names, by_name);
  parse->line = 0;
  for (size_t i = 1; i < table->count; i++)
    if (strcmp(names[i - 1]->name, names[i]->name) == 0)
      pry_client_complain(parse, NULL, "two clients are named \"%s\"", names[i]->name);
}

static void warn(struct pry_client_parse *parse, bool readable_by_others)
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
  struct pry_client_parse parse = {.clients = clients, .table = table, .text = text, .shown = shown, .report = report};
  unsigned errors = report->errors;
  if (!table) {
    pry_client_no_memory(&parse);
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
  struct pry_client_parse parse = {.shown = shown, .report = report};
  struct stat about;
  struct pry_buffer text = {0};
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 || fstat(fd, &about) < 0) {
    pry_client_complain(&parse, NULL, "cannot be read: %s; `parry client add NAME` makes it", strerror(errno));
    goto done;
  }
  if (!S_ISREG(about.st_mode) || about.st_size > PRY_CLIENTS_FILE_MAX) {
    pry_client_complain(&parse, NULL, "is not a regular file of at most 4 MiB");
    goto done;
  }
  pry_buffer_init(&text, (size_t)about.st_size + 1); /* all at once: growing would leave copies of keys behind */
  if (!pry_buffer_reserve(&text, text.limit))
    pry_client_no_memory(&parse);
  else if (!read_all(fd, &text))
    pry_client_complain(&parse, NULL, "cannot be read whole, or is being written: %s",
                        errno ? strerror(errno) : "it grows");
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
