#include "cli.h"
#include "clients_edit.h"
#include "loader.h"
#include "options.h"
#include "places.h"
#include "policies.h"
#include "shipped.h"

#include <math.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <time.h>

static const char DOC[] = "Makes, shows and takes back the keys that clients of the gateway send. They stand in the\n"
                          "file that init.lua names with clients { file = \"clients.json\" }; a running parry takes\n"
                          "a changed file over within a second.\n\n"
                          "  add NAME      makes a key and prints it, once: the file keeps only its SHA-256\n"
                          "  list          shows the clients and their limits\n"
                          "  remove NAME   takes a client out, with all of its keys";

static const char AFTER[] = "example: parry client add team-a --rpm 600 --concurrent 20 --model 'gpt-4o*'\n"
                            "exit codes: 0 done; 1 not done, and why; 2 usage";

struct client {
  const char *policies, *file, *expires, *note;
  struct pry_option_list models, routes;
  unsigned long rpm, burst, concurrent;
  bool json;
  char path[PRY_PLACE_MAX];
};

static int parse(struct client *client, int argc, char **argv, size_t *operands)
{
  const struct pry_option options[] = {
      {"policies", 0, PRY_OPTION_TEXT, "DIR", "whose clients (./policies, else /etc/parry/policies)",
       &client->policies},
      {"file", 0, PRY_OPTION_TEXT, "FILE", "the clients file itself, instead of the one init.lua names", &client->file},
      {"rpm", 0, PRY_OPTION_COUNT, "N", "add: calls per minute (no limit)", &client->rpm},
      {"burst", 0, PRY_OPTION_COUNT, "N", "add: so many of them at once (as --rpm)", &client->burst},
      {"concurrent", 0, PRY_OPTION_COUNT, "N", "add: calls open at once (no limit)", &client->concurrent},
      {"model", 0, PRY_OPTION_LIST, "GLOB", "add: a model it may use; may be repeated (all)", &client->models},
      {"route", 0, PRY_OPTION_LIST, "GLOB", "add: a path it may use; may be repeated (all)", &client->routes},
      {"expires", 0, PRY_OPTION_TEXT, "DATE", "add: 2027-01-31 or 2027-01-31T12:00:00Z, UTC (never)", &client->expires},
      {"note", 0, PRY_OPTION_TEXT, "TEXT", "add: for people", &client->note},
      PRY_OPTIONS_JSON(&client->json),
  };
  const struct pry_command_line line = {
      .usage = "parry client [OPTIONS] add NAME | list | remove NAME",
      .doc = DOC,
      .options = options,
      .option_count = sizeof options / sizeof *options,
      .operands_max = 2,
      .after = AFTER,
  };
  return pry_options_parse(&line, argc, argv, operands);
}

static int complain(const char *what)
{
  fprintf(stderr, "parry client: %s\n", what);
  return PRY_EXIT_FINDINGS;
}

static int usage(const char *what)
{
  fprintf(stderr, "parry client: %s\n  see: parry client --help\n", what);
  return PRY_EXIT_USAGE;
}

/* `folder`: where the files are that the findings name; NULL when they have the whole path. */
static int tell(const char *folder, const struct pry_report *report)
{
  for (size_t i = 0; i < report->count; i++)
    if (report->findings[i].severity == PRY_FINDING_ERROR)
      fprintf(stderr, "parry client: %s%s%s: %s\n", folder ? folder : "", folder ? "/" : "", report->findings[i].where,
              report->findings[i].what);
  return PRY_EXIT_FINDINGS;
}

/* ---- which file ------------------------------------------------------------------------------------------- */

static bool path_of_policies(struct client *client, const char *folder, const struct pry_config *config)
{
  if (config->clients_file && pry_clients_path(folder, config->clients_file, client->path, sizeof client->path))
    return true;
  fprintf(stderr,
          config->clients_file
              ? "parry client: the path of the clients file below %s is too long\n"
              : "parry client: %s/init.lua declares no clients; add the line   clients { file = \"clients.json\" }   "
                "or name a file with --file\n",
          folder);
  return false;
}

/* Policies that do not load are no reason to keep a key from being taken back: --file needs none. */
static bool find_file(struct client *client)
{
  static const struct pry_script_limits limits = {0};
  char error[PRY_PLACE_MAX];
  struct pry_report report;
  if (client->file)
    return (size_t)snprintf(client->path, sizeof client->path, "%s", client->file) < sizeof client->path ||
           (complain("the path is too long"), false);
  const char *folder = pry_place_policies(client->policies, error, sizeof error);
  if (!folder) {
    complain(error);
    return false;
  }
  pry_report_init(&report);
  struct pry_buffer text;
  pry_buffer_init(&text, sizeof error);
  char shipped[PRY_SHIPPED_PATH_MAX];
  struct pry_policy_set *set = pry_policy_set_read(folder, pry_shipped_folder(shipped), &text);
  struct pry_generation *generation = set ? pry_lua_loader.load(set, &limits, &report) : NULL;
  if (!set) {
    complain(pry_buffer_text(&text) ? pry_buffer_text(&text) : "memory is short");
  } else if (!generation) {
    pry_policy_set_free(set);
    tell(folder, &report);
    complain("the policies do not load; mend them, or name the clients file with --file");
  }
  bool found = generation && path_of_policies(client, folder, generation->config);
  pry_generation_unref(generation);
  pry_buffer_fini(&text);
  pry_report_fini(&report);
  return found;
}

/* ---- add -------------------------------------------------------------------------------------------------- */

static bool put_text(struct pry_buffer *out, const char *field, const char *value)
{
  return !value || (pry_buffer_append_format(out, ", \"%s\": \"", field) &&
                    pry_buffer_append_json(out, pry_slice_of(value)) && pry_buffer_append_text(out, "\""));
}

static bool put_count(struct pry_buffer *out, const char *field, unsigned long value)
{
  return !value || pry_buffer_append_format(out, ", \"%s\": %lu", field, value);
}

static bool put_list(struct pry_buffer *out, const char *field, const struct pry_option_list *list)
{
  bool ok = !list->count || pry_buffer_append_format(out, ", \"%s\": [", field);
  for (size_t i = 0; ok && i < list->count; i++)
    ok = pry_buffer_append_text(out, i ? ", \"" : "\"") && pry_buffer_append_json(out, pry_slice_of(list->items[i])) &&
         pry_buffer_append_text(out, "\"");
  return ok && (!list->count || pry_buffer_append_text(out, "]"));
}

/* The name is checked before, so it needs no escape. */
static bool compose(const struct client *client, const char *name, const char *key, struct pry_buffer *entry)
{
  char digest[PRY_CLIENT_DIGEST_TEXT];
  return pry_client_digest(pry_slice_of(key), digest) &&
         pry_buffer_append_format(entry, "{ \"name\": \"%s\", \"key\": \"%s\"", name, digest) &&
         put_count(entry, "rpm", client->rpm) && put_count(entry, "burst", client->burst) &&
         put_count(entry, "concurrent", client->concurrent) && put_list(entry, "models", &client->models) &&
         put_list(entry, "routes", &client->routes) && put_text(entry, "expires", client->expires) &&
         put_text(entry, "note", client->note) && pry_buffer_append_text(entry, " }");
}

static void print_key(const struct client *client, const char *name, const char *key)
{
  struct pry_buffer path;
  if (!client->json) {
    printf("%s\n", key);
    fprintf(stderr, "parry client: added \"%s\" to %s. This is its key, shown once; it is an SDK's API key.\n", name,
            client->path);
    return;
  }
  pry_buffer_init(&path, 0);
  if (pry_buffer_append_json(&path, pry_slice_of(client->path)) && pry_buffer_text(&path))
    printf("{\"name\":\"%s\",\"key\":\"%s\",\"file\":\"%s\"}\n", name, key, pry_buffer_text(&path));
  pry_buffer_fini(&path);
}

static int add(struct client *client, const char *name)
{
  char key[PRY_CLIENT_NEW_KEY];
  const char *wrong = pry_client_name_complaint(pry_slice_of(name));
  struct pry_report report;
  struct pry_buffer entry;
  if (wrong) {
    fprintf(stderr, "parry client: the name %s\n", wrong);
    return PRY_EXIT_USAGE;
  }
  if (!pry_client_new_key(key))
    return complain("no random bytes for a key");
  pry_report_init(&report);
  pry_buffer_init(&entry, 0);
  int code = PRY_EXIT_FINDINGS;
  if (!compose(client, name, key, &entry)) {
    complain("memory is short");
  } else if (pry_clients_edit_add(client->path, client->path, pry_buffer_slice(&entry), &report)) {
    print_key(client, name, key);
    code = PRY_EXIT_OK;
  } else {
    tell(NULL, &report);
  }
  OPENSSL_cleanse(key, sizeof key);
  pry_buffer_fini(&entry);
  pry_report_fini(&report);
  return code;
}

/* ---- remove ----------------------------------------------------------------------------------------------- */

static int take_out(const struct client *client, const char *name)
{
  struct pry_report report;
  pry_report_init(&report);
  bool ok = pry_clients_edit_remove(client->path, client->path, name, &report);
  if (ok)
    fprintf(stderr, "parry client: \"%s\" is out of %s\n", name, client->path);
  else
    tell(NULL, &report);
  pry_report_fini(&report);
  return ok ? PRY_EXIT_OK : PRY_EXIT_FINDINGS;
}

/* ---- list ------------------------------------------------------------------------------------------------- */

static const char *state_of(const struct pry_client *client)
{
  return !client->enabled ? "disabled" : (double)time(NULL) >= client->expires ? "expired" : "good";
}

static void print_limit(const char *name, unsigned limit)
{
  if (limit)
    printf("  %s %u", name, limit);
}

/* Globs are the file's words: what could steer a terminal is left out. */
static void print_globs(const char *name, const struct pry_text_list *globs)
{
  for (size_t i = 0; i < globs->count; i++) {
    printf(i ? "," : "  %s ", name);
    for (const char *c = globs->items[i]; *c; c++)
      putchar((unsigned char)*c < 0x20 || *c == 0x7F ? ' ' : *c);
  }
}

static void print_client(const struct pry_client *client)
{
  char day[32];
  time_t expires = isfinite(client->expires) ? (time_t)client->expires : 0;
  struct tm parts;
  printf("%-24s %-8s", client->name, state_of(client));
  print_limit("rpm", client->rpm);
  if (client->burst != client->rpm)
    print_limit("burst", client->burst);
  print_limit("concurrent", client->concurrent);
  print_globs("models", &client->models);
  print_globs("routes", &client->paths);
  if (expires && gmtime_r(&expires, &parts) && strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%SZ", &parts))
    printf("  expires %s", day);
  printf("\n");
}

static bool put_globs(struct pry_buffer *out, const char *field, const struct pry_text_list *globs)
{
  struct pry_option_list list = {.count = globs->count};
  for (size_t i = 0; i < globs->count && i < PRY_OPTION_LIST_MAX; i++)
    list.items[i] = globs->items[i];
  return put_list(out, field, &list);
}

static void print_client_json(const struct pry_client *client, bool first)
{
  struct pry_buffer out;
  pry_buffer_init(&out, 0);
  bool ok = pry_buffer_append_format(&out, "%s{\"name\": \"%s\", \"state\": \"%s\"", first ? "" : ",", client->name,
                                     state_of(client)) &&
            put_count(&out, "rpm", client->rpm) && put_count(&out, "burst", client->burst) &&
            put_count(&out, "concurrent", client->concurrent) && put_globs(&out, "models", &client->models) &&
            put_globs(&out, "routes", &client->paths) &&
            (!isfinite(client->expires) || pry_buffer_append_format(&out, ", \"expires\": %.0f", client->expires)) &&
            pry_buffer_append_text(&out, "}");
  if (ok)
    fwrite(out.data, 1, out.size, stdout);
  pry_buffer_fini(&out);
}

static int list(const struct client *client)
{
  struct pry_report report;
  pry_report_init(&report);
  struct pry_clients *clients = pry_clients_new();
  struct pry_client_table *table = clients ? pry_client_table_read(clients, client->path, client->path, &report) : NULL;
  int code = table ? PRY_EXIT_OK : tell(NULL, &report);
  size_t count = table ? pry_client_table_count(table) : 0;
  if (table && client->json)
    printf("{\"clients\":[");
  for (size_t i = 0; i < count; i++)
    if (client->json)
      print_client_json(pry_client_table_at(table, i), i == 0);
    else
      print_client(pry_client_table_at(table, i));
  if (table && client->json)
    printf("]}\n");
  else if (table && !count)
    fprintf(stderr, "parry client: no clients in %s; `parry client add NAME` makes one\n", client->path);
  pry_client_table_unref(table);
  pry_clients_free(clients);
  pry_report_fini(&report);
  return code;
}

int pry_cmd_client(int argc, char **argv)
{
  struct client client = {0};
  size_t operands = 0;
  int code = parse(&client, argc, argv, &operands);
  if (code >= 0)
    return code;
  const char *verb = operands ? argv[1] : "", *name = operands > 1 ? argv[2] : NULL;
  bool adds = strcmp(verb, "add") == 0, removes = strcmp(verb, "remove") == 0, lists = strcmp(verb, "list") == 0;
  if (!adds && !removes && !lists)
    return usage("say add NAME, list, or remove NAME");
  if (lists == (name != NULL))
    return usage(lists ? "list takes no name" : "which client? give its name");
  if (!adds && (client.rpm || client.burst || client.concurrent || client.models.count || client.routes.count ||
                client.expires || client.note))
    return usage("limits are for add");
  if (client.burst && !client.rpm)
    return usage("--burst does nothing without --rpm");
  if (!find_file(&client))
    return PRY_EXIT_FINDINGS;
  return adds ? add(&client, name) : removes ? take_out(&client, name) : list(&client);
}
