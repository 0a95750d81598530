#include "dialects.h"

#include "nearest.h"
#include "reloader.h"

#include "loader.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Only dialects decide what a failure is: an init.lua that lacks a secret or is being edited is no obstacle. */
static const char INIT[] = "provider \"any\" { base_url = \"http://127.0.0.1\", dialect = \"generic\" }\n"
                           "route \"/*\" { to = \"any\", chain = {} }\n";

static struct pry_policy_set *read_dialects(const char *folder, struct pry_report *report)
{
  struct pry_policy_set *all = pry_reload_read(folder, NULL, NULL, report);
  struct pry_policy_set *set = all ? pry_policy_set_new() : NULL;
  bool ok = set && pry_policy_set_add(set, "init.lua", PRY_SLICE(INIT));
  for (size_t i = 0; ok && i < all->count; i++) {
    const struct pry_policy_file *file = &all->files[i];
    bool wanted = strncmp(file->path, "dialects/", 9) == 0 || strncmp(file->path, "lib/", 4) == 0;
    size_t length = strlen(file->path);
    if (wanted && !(length > 9 && strcmp(file->path + length - 9, "_test.lua") == 0))
      ok = pry_policy_set_add(set, file->path, (struct pry_slice){file->text, file->size});
  }
  ok = ok && pry_policy_set_seal(set);
  pry_policy_set_free(all);
  if (ok)
    return set;
  if (all)
    pry_report_add(report, PRY_FINDING_ERROR, folder, "memory is short");
  pry_policy_set_free(set);
  return NULL;
}

static struct pry_engine *make_engine(struct pry_dialects *dialects, const char *folder)
{
  struct pry_report report;
  struct pry_buffer text;
  pry_report_init(&report);
  pry_buffer_init(&text, 0);
  struct pry_policy_set *set = read_dialects(folder, &report);
  struct pry_engine_options options = {
      .loop = dialects->loop, .http = pry_http_script_client(dialects->script), .loader = &pry_lua_loader};
  struct pry_engine *engine = set ? pry_engine_new(&options) : NULL;
  if (set && !engine) {
    pry_policy_set_free(set);
    fprintf(stderr, "parry: memory is short\n");
  } else if (!set || !pry_engine_load(engine, set, false, &report)) {
    pry_engine_free(engine);
    engine = NULL;
    pry_report_text(&report, &text);
    fprintf(stderr, "%sparry: the dialects in %s cannot be used; name a folder of policies with --policies DIR\n",
            text.size ? pry_buffer_text(&text) : "", folder);
  }
  pry_buffer_fini(&text);
  pry_report_fini(&report);
  return engine;
}

bool pry_dialects_load(struct pry_dialects *dialects, const char *folder, const char *command)
{
  *dialects = (struct pry_dialects){.command = command, .loop = pry_loop_new_virtual((double)time(NULL))};
  dialects->script = dialects->loop ? pry_http_script_new(dialects->loop) : NULL;
  if (!dialects->script)
    fprintf(stderr, "parry: memory is short\n");
  dialects->engine = dialects->script ? make_engine(dialects, folder) : NULL;
  return dialects->engine;
}

void pry_dialects_free(struct pry_dialects *dialects)
{
  pry_engine_free(dialects->engine);
  if (dialects->script)
    pry_http_free(pry_http_script_client(dialects->script));
  pry_loop_free(dialects->loop);
}

struct pry_state *pry_dialects_state(const struct pry_dialects *dialects)
{
  return dialects->engine->control->state;
}

static void tell_unknown(struct pry_dialects *dialects, const char *name, unsigned long line)
{
  enum { NAMES_MAX = 64 };
  const struct pry_config *config = pry_dialects_state(dialects)->generation->config;
  const char *names[NAMES_MAX];
  size_t count = 0;
  for (; count < config->dialect_count && count < NAMES_MAX; count++)
    names[count] = config->dialects[count]->name;
  const char *nearest = pry_nearest_name(name, names, count);
  fprintf(stderr, "parry %s: line %lu: there is no dialect '%.64s'%s%s%s; such lines are taken as generic\n",
          dialects->command, line, name, nearest ? ", did you mean '" : "", nearest ? nearest : "",
          nearest ? "'?" : "");
  dialects->told_unknown = true;
}

/* What a folder that has no dialects/generic.lua means by "generic" is judged by the status alone. */
static const struct pry_dialect *generic(const struct pry_dialects *dialects)
{
  const struct pry_config *config = pry_dialects_state(dialects)->generation->config;
  const struct pry_dialect *named = pry_config_dialect(config, pry_dialect_generic.name);
  return named ? named : &pry_dialect_generic;
}

const struct pry_dialect *pry_dialects_find(struct pry_dialects *dialects, const char *name, unsigned long line)
{
  if (!name || !*name || strcmp(name, pry_dialect_generic.name) == 0)
    return generic(dialects);
  const struct pry_dialect *dialect = pry_config_dialect(pry_dialects_state(dialects)->generation->config, name);
  if (!dialect && !dialects->told_unknown)
    tell_unknown(dialects, name, line);
  return dialect ? dialect : generic(dialects);
}
