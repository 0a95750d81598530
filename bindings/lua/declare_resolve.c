/* The end of a load: names are looked up, what only the whole shows is checked, the configuration is filled.
 * Declared in declare_internal.h. */
#include "declare_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

/* ---- names --------------------------------------------------------------------------------------------- */

/* The names of one kind of thing; `offset`: of the name in what the pointers point at. */
static const char **names_of(lua_State *L, struct pry_declaration *d, const struct pry_pointers *pointers,
                             size_t offset)
{
  const char **names = pry_declare_take(L, d, (pointers->count + 1) * sizeof *names);
  for (size_t i = 0; i < pointers->count; i++)
    memcpy(&names[i], (const char *)pointers->items[i] + offset, sizeof names[i]);
  return names;
}

/* "no provider "mooshot"; did you mean "moonshot"?" for any of the kinds that parameters may name. */
struct kind {
  const char *word;
  struct pry_pointers pointers;
  size_t offset;
};

static struct kind kind_of(const struct pry_declaration *d, enum pry_param_type type)
{
  switch (type) {
  case PRY_PARAM_SINK:
    return (struct kind){"sink", d->sinks, offsetof(struct pry_declared_sink, sink.name)};
  case PRY_PARAM_SERVICE:
    return (struct kind){"service", d->services, offsetof(struct pry_declared_service, service.name)};
  case PRY_PARAM_CREDENTIAL:
    return (struct kind){"credential", d->credentials, offsetof(struct pry_declared_credential, credential.name)};
  default:
    return (struct kind){"provider", d->providers, offsetof(struct pry_declared_provider, provider.name)};
  }
}

/* The position of a name, or SIZE_MAX. */
static size_t find(const struct kind *kind, struct pry_slice name)
{
  for (size_t i = 0; i < kind->pointers.count; i++) {
    const char *other;
    memcpy(&other, (const char *)kind->pointers.items[i] + kind->offset, sizeof other);
    if (pry_slice_equal(pry_slice_of(other), name))
      return i;
  }
  return SIZE_MAX;
}

static void complain_unknown(lua_State *L, struct pry_declaration *d, const struct kind *kind, struct pry_place place,
                             const char *what, struct pry_slice name)
{
  char hint[PRY_HINT_MAX], intro[64];
  const char *wrong = pry_declare_copy(L, d, name);
  snprintf(intro, sizeof intro, "declared are");
  pry_complain(d, place, "%s: there is no %s \"%.100s\"%s", what, kind->word, wrong,
               kind->pointers.count
                   ? pry_hint(wrong, names_of(L, d, &kind->pointers, kind->offset), kind->pointers.count, intro, hint)
                   : "; none is declared");
}

static struct pry_slice provider_part(const char *target)
{
  return (struct pry_slice){target, strcspn(target, "/")};
}

static void resolve_reference(lua_State *L, struct pry_declaration *d, const struct pry_reference *reference)
{
  struct kind kind = kind_of(d, reference->type);
  bool target = reference->type == PRY_PARAM_TARGET;
  if (target && !strchr(reference->name, '/'))
    return; /* a model at whatever provider the call is at */
  struct pry_slice name = target ? provider_part(reference->name) : pry_slice_of(reference->name);
  if (find(&kind, name) == SIZE_MAX)
    complain_unknown(L, d, &kind, reference->place, reference->what, name);
  else if (target && !reference->name[name.size + 1])
    pry_complain(d, reference->place, "%s: \"%.100s\" names no model after the \"/\"", reference->what,
                 reference->name);
}

/* ---- secrets and auth ---------------------------------------------------------------------------------- */

static const struct pry_secret *find_secret(const struct pry_config *config, const char *name)
{
  return name ? pry_declare_secret(config, name) : NULL;
}

static void resolve_secrets(lua_State *L, struct pry_declaration *d)
{
  struct pry_secret *secrets = pry_declare_take(L, d, (d->secrets.count + 1) * sizeof *secrets);
  for (size_t i = 0; i < d->secrets.count; i++)
    secrets[i].name = ((const struct pry_declared_secret *)d->secrets.items[i])->name;
  d->config->secrets = secrets;
  d->config->secret_count = d->secrets.count;
}

static void resolve_credentials(lua_State *L, struct pry_declaration *d)
{
  struct pry_config *config = d->config;
  struct pry_credential_config *credentials = pry_declare_take(L, d, (d->credentials.count + 1) * sizeof *credentials);
  for (size_t i = 0; i < d->credentials.count; i++) {
    const struct pry_declared_credential *declared = d->credentials.items[i];
    credentials[i] = declared->credential;
    credentials[i].refresh_token = find_secret(config, declared->refresh_token);
    credentials[i].access_token = find_secret(config, declared->access_token);
  }
  for (size_t i = 0; i < d->credentials.count; i++)
    if (strcmp(credentials[i].grant, "lua") != 0 && !pry_policy_set_find(d->set, "lib/grants.lua")) {
      const struct pry_declared_credential *declared = d->credentials.items[i];
      pry_complain(
          d, declared->place,
          "credential \"%.60s\": grant \"%s\" needs the file lib/grants.lua, which is not there; copy it from the "
          "shipped policies, or give refresh = function(cred) ... end",
          credentials[i].name, credentials[i].grant);
    }
  config->credentials = credentials;
  config->credential_count = d->credentials.count;
}

static struct pry_auth resolve_auth(lua_State *L, struct pry_declaration *d, const char *owner,
                                    const struct pry_declared_auth *declared)
{
  struct pry_auth auth = {.kind = declared->kind, .header = declared->header};
  auth.secret = find_secret(d->config, declared->secret);
  if (declared->credential) {
    struct kind kind = kind_of(d, PRY_PARAM_CREDENTIAL);
    char what[128];
    snprintf(what, sizeof what, "%.100s: auth", owner);
    auth.credential = pry_config_credential(d->config, declared->credential);
    if (!auth.credential)
      complain_unknown(L, d, &kind, declared->place, what, pry_slice_of(declared->credential));
  }
  return auth;
}

/* ---- providers, services, sinks ------------------------------------------------------------------------ */

static const struct pry_dialect *resolve_dialect(lua_State *L, struct pry_declaration *d, struct pry_place place,
                                                 const char *what, const char *name)
{
  char path[PRY_NAME_MAX + 16], hint[PRY_HINT_MAX];
  const struct pry_dialect *dialect = pry_config_dialect(d->config, name);
  if (!dialect && strcmp(name, pry_dialect_generic.name) == 0)
    return &pry_dialect_generic;
  snprintf(path, sizeof path, "dialects/%.63s.lua", name);
  if (dialect || pry_policy_set_find(d->set, path)) /* a file that does not load has its own finding */
    return dialect;
  const char **names = names_of(L, d, &d->dialects, offsetof(struct pry_dialect, name));
  size_t count = d->dialects.count;
  if (!pry_config_dialect(d->config, pry_dialect_generic.name))
    names[count++] = pry_dialect_generic.name; /* names_of() leaves room for one */
  pry_complain(d, place, "%s: there is no dialect \"%.63s\" (no file %s)%s", what, name, path,
               pry_hint(name, names, count, "there are", hint));
  return NULL;
}

static void resolve_providers(lua_State *L, struct pry_declaration *d)
{
  struct pry_config *config = d->config;
  struct pry_provider *providers = pry_declare_take(L, d, (d->providers.count + 1) * sizeof *providers);
  char what[96];
  for (size_t i = 0; i < d->providers.count; i++) {
    const struct pry_declared_provider *declared = d->providers.items[i];
    providers[i] = declared->provider;
    snprintf(what, sizeof what, "provider \"%.63s\"", declared->provider.name);
    providers[i].auth = resolve_auth(L, d, what, &declared->auth);
    if (d->config->clients_file && declared->auth.kind == PRY_AUTH_PASSTHROUGH)
      pry_complain(
          d, declared->auth.place,
          "%s: auth = passthrough() and clients { ... } exclude each other: the client's own credential is its "
          "key for parry, which is no provider's business; use bearer(secret \"NAME\")",
          what);
    pry_declare_resolve_keys(L, d, declared, &providers[i]);
    if (declared->dialect)
      providers[i].dialect = resolve_dialect(L, d, declared->place, what, declared->dialect);
  }
  config->providers = providers;
  config->provider_count = d->providers.count;
}

static void resolve_services(lua_State *L, struct pry_declaration *d)
{
  struct pry_service *services = pry_declare_take(L, d, (d->services.count + 1) * sizeof *services);
  char what[96];
  for (size_t i = 0; i < d->services.count; i++) {
    const struct pry_declared_service *declared = d->services.items[i];
    services[i] = declared->service;
    snprintf(what, sizeof what, "service \"%.63s\"", declared->service.name);
    services[i].auth = resolve_auth(L, d, what, &declared->auth);
  }
  d->config->services = services;
  d->config->service_count = d->services.count;
}

static void resolve_sinks(lua_State *L, struct pry_declaration *d)
{
  struct pry_sink_config *sinks = pry_declare_take(L, d, (d->sinks.count + 1) * sizeof *sinks);
  for (size_t i = 0; i < d->sinks.count; i++) {
    const struct pry_declared_sink *declared = d->sinks.items[i];
    sinks[i] = declared->sink;
    sinks[i].url = find_secret(d->config, declared->url);
    sinks[i].sign = find_secret(d->config, declared->sign);
    sinks[i].user = find_secret(d->config, declared->user);
  }
  d->config->sinks = sinks;
  d->config->sink_count = d->sinks.count;
}

/* ---- instances ----------------------------------------------------------------------------------------- */

/* One store prefix must not belong to two policies: their keys would meet. */
static void check_instance_names(struct pry_declaration *d)
{
  for (size_t i = 0; i < d->instances.count; i++)
    for (size_t j = 0; j < i; j++) {
      const struct pry_declared_instance *a = d->instances.items[i], *b = d->instances.items[j];
      if (strcmp(a->instance.name, b->instance.name) != 0 || strcmp(a->instance.policy, b->instance.policy) == 0)
        continue;
      pry_complain(d, a->place,
                   "%s: its instance \"%s\" has the name of an instance of \"%s\" (%s:%d); choose another as = \"...\"",
                   a->instance.policy, a->instance.name, b->instance.policy, b->place.file ? b->place.file->path : "?",
                   b->place.line);
      return;
    }
}

static void resolve_instances(lua_State *L, struct pry_declaration *d)
{
  size_t job_count = 0;
  for (size_t i = 0; i < d->instances.count; i++) {
    struct pry_declared_instance *use = d->instances.items[i];
    if (!use->called)
      pry_declare_use_params(L, d, use, 0);
    job_count += use->policy->job_count;
  }
  check_instance_names(d);
  const struct pry_instance **instances = pry_declare_take(L, d, (d->instances.count + 1) * sizeof *instances);
  struct pry_job_config *jobs = pry_declare_take(L, d, (job_count + 1) * sizeof *jobs);
  for (size_t i = 0; i < d->instances.count; i++) {
    const struct pry_declared_instance *use = d->instances.items[i];
    instances[i] = &use->instance;
    for (size_t j = 0; j < use->policy->job_count; j++)
      jobs[d->config->job_count++] = (struct pry_job_config){&use->instance, j, use->policy->periods[j]};
  }
  d->config->instances = instances;
  d->config->instance_count = d->instances.count;
  d->config->jobs = jobs;
}

/* ---- routes -------------------------------------------------------------------------------------------- */

static void resolve_chain(lua_State *L, struct pry_declaration *d, struct pry_declared_route *declared)
{
  size_t count = declared->route.chain_size;
  const struct pry_instance **chain = pry_declare_take(L, d, (count + 1) * sizeof *chain);
  for (size_t i = 0; i < count; i++) {
    struct pry_declared_instance *use = declared->chain[i];
    use->chained = true;
    chain[i] = &use->instance;
    for (size_t j = 0; j < i; j++)
      if (strcmp(chain[j]->name, chain[i]->name) == 0) {
        pry_form_complain(&declared->form, "chain",
                          "has two instances named \"%s\"; give one of them another name: use \"%s\" { as = \"...\" }",
                          chain[i]->name, chain[i]->policy);
        break;
      }
  }
  declared->route.chain = chain;
}

static void resolve_rules(lua_State *L, struct pry_declaration *d, struct pry_declared_route *declared)
{
  struct pry_model_rule *rules = pry_declare_take(L, d, (declared->rule_count + 1) * sizeof *rules);
  struct kind kind = kind_of(d, PRY_PARAM_PROVIDER);
  char what[160];
  snprintf(what, sizeof what, "%.130s: to", declared->form.subject);
  for (size_t i = 0; i < declared->rule_count; i++) {
    const struct pry_declared_rule *rule = &declared->rules[i];
    struct pry_slice name = provider_part(rule->target);
    const char *model = rule->target + name.size + (rule->target[name.size] == '/');
    rules[i] = (struct pry_model_rule){rule->pattern, pry_config_provider(d->config, name), *model ? model : NULL};
    if (!rules[i].provider)
      complain_unknown(L, d, &kind, declared->place, what, name);
    else if (rule->target[name.size] == '/' && !*model)
      pry_complain(d, declared->place, "%s: \"%.100s\" names no model after the \"/\"", what, rule->target);
    else if (strlen(rule->target) >= PRY_TARGET_MAX)
      pry_complain(d, declared->place, "%s: a target is longer than %d bytes", what, PRY_TARGET_MAX - 1);
  }
  declared->route.rules = rules;
  declared->route.rule_count = declared->rule_count;
}

static int most_specific_first(const void *a, const void *b)
{
  const struct pry_route *one = a, *other = b;
  size_t rank = pry_glob_rank(pry_slice_of(one->pattern)), other_rank = pry_glob_rank(pry_slice_of(other->pattern));
  if (rank != other_rank)
    return rank > other_rank ? -1 : 1;
  return strcmp(one->pattern, other->pattern);
}

static void check_route_ties(struct pry_declaration *d)
{
  for (size_t i = 0; i < d->routes.count; i++)
    for (size_t j = 0; j < i; j++) {
      const struct pry_declared_route *a = d->routes.items[i], *b = d->routes.items[j];
      struct pry_slice one = pry_slice_of(a->route.pattern), other = pry_slice_of(b->route.pattern);
      const char *file = b->place.file ? b->place.file->path : "?";
      if (pry_slice_equal(one, other))
        pry_complain(d, a->place, "%s: is declared twice, first at %s:%d", a->form.subject, file, b->place.line);
      else if (pry_glob_rank(one) == pry_glob_rank(other) && pry_globs_overlap(one, other))
        pry_complain(d, a->place,
                     "%s: can match the same path as \"%.100s\" (%s:%d) and neither is more specific; make one longer",
                     a->form.subject, b->route.pattern, file, b->place.line);
    }
}

static void resolve_routes(lua_State *L, struct pry_declaration *d)
{
  struct pry_route *routes = pry_declare_take(L, d, (d->routes.count + 1) * sizeof *routes);
  check_route_ties(d);
  for (size_t i = 0; i < d->routes.count; i++) {
    struct pry_declared_route *declared = d->routes.items[i];
    resolve_rules(L, d, declared);
    resolve_chain(L, d, declared);
    const char *dialect = declared->route.client_dialect;
    if (dialect)
      resolve_dialect(L, d, declared->place, declared->form.subject, dialect);
    routes[i] = declared->route;
  }
  if (d->routes.count)
    qsort(routes, d->routes.count, sizeof *routes, most_specific_first);
  d->config->routes = routes;
  d->config->route_count = d->routes.count;
}

/* ---- the whole ----------------------------------------------------------------------------------------- */

static void check_heads(struct pry_declaration *d)
{
  for (size_t i = 0; i < d->heads.count; i++) {
    const struct pry_object *head = *(struct pry_object **)d->heads.items[i];
    if (!head->complete && head->kind != PRY_OBJECT_CREDENTIAL)
      pry_complain(d, head->place, "%s \"%.100s\": needs its table: %s \"%.100s\" { ... }", head->word, head->name,
                   head->word, head->name);
  }
}

static void warn_unused(struct pry_declaration *d)
{
  for (size_t i = 0; i < d->instances.count; i++) {
    const struct pry_declared_instance *use = d->instances.items[i];
    unsigned alone = PRY_HANDLER_BIT(PRY_EVERY) | PRY_HANDLER_BIT(PRY_ON_EVENT); /* need no route */
    if (!use->chained && !(use->policy->handlers & alone))
      pry_warn(d, use->place, "use \"%s\": is in no route's chain and will never run", use->instance.policy);
  }
  if (!d->routes.count)
    pry_warn(d, (struct pry_place){pry_policy_set_find(d->set, "init.lua"), 0},
             "declares no route; every call will be answered with 404");
}

void pry_declare_resolve(lua_State *L, struct pry_declaration *d)
{
  luaL_checkstack(L, 20, "resolving");
  d->config->dialects = (const struct pry_dialect *const *)(void *)d->dialects.items;
  d->config->dialect_count = d->dialects.count;
  check_heads(d);
  resolve_secrets(L, d);
  resolve_credentials(L, d);
  resolve_providers(L, d);
  resolve_services(L, d);
  resolve_sinks(L, d);
  resolve_instances(L, d);
  for (size_t i = 0; i < d->references.count; i++)
    resolve_reference(L, d, d->references.items[i]);
  resolve_routes(L, d);
  warn_unused(d);
}
