/* What init.lua declares, except routes: providers, credentials, services, sinks. Declared in declare_internal.h. */
#include "declare_internal.h"

#include <stdio.h>

#include <lauxlib.h>

enum { TIMEOUT_MAX = 3600, MODELS_MAX = 1024, CLIENTS_FILE_MAX = 1024 };

/* ---- heads: provider "name" … -------------------------------------------------------------------------- */

/* The words of init.lua. Each takes a name, then a table: provider "p" { ... }
 * ---@class route_declaration
 * ---@field to string|table          "provider", "provider/model" or by_model { ... }
 * ---@field chain use[]
 * ---@field deadline number?         seconds, 120
 * ---@field timeouts { connect?: number, first_byte?: number, idle?: number, attempt?: number }?
 * ---@field client_dialect string?
 * ---@field max_stream number?
 * ---@field repeatable boolean?
 * ---@field session { header?: string, field?: string }?
 * ---@field max_attempts_per_call integer?   12
 * ---@field max_targets integer?     3
 * ---@field max_cost number?         no further attempt once the call has cost that much, in the currency of the prices
 * ---@field max_wait number?         seconds that a call may spend waiting in all
 * ---@field early_head number|boolean?   seconds; true: 5
 * ---@field slow_stream { events: number, seconds: number, cut?: boolean }?   events per second
 * ---@class auth
 * ---@param name string
 * ---@return fun(v: { base_url?: string, host?: boolean, dialect?: string, auth?: auth, keys?: secret[], rotate?: "first"|"round_robin", timeouts?: table, models?: table })
 * function provider(name) end
 * ---@param name string
 * ---@return fun(v: { refresh_token: secret, access_token?: secret, token_url?: string, grant?: string, refresh?: refresh })
 * function credential(name) end
 * ---@param name string
 * ---@return fun(v: { base_url: string, auth?: auth })
 * function service(name) end
 * ---@class sink_declaration   exactly one of webhook, slack, feishu, dingtalk, wecom, pagerduty, sentry, smtp
 * ---@field webhook secret?      URL that takes JSON
 * ---@field slack secret?        URL of an incoming webhook
 * ---@field feishu secret?       URL of a custom bot, also Lark's
 * ---@field dingtalk secret?     URL of a custom robot, its access_token in it
 * ---@field wecom secret?        URL of a group robot, its key in it
 * ---@field pagerduty secret?    routing key of the Events API v2
 * ---@field sentry secret?       DSN
 * ---@field smtp string?         "smtps://host:465" or "smtp://host:587"
 * ---@field sign secret?         signs for webhook, feishu and dingtalk
 * ---@field url string?          of pagerduty, when it is not https://events.pagerduty.com/v2/enqueue
 * ---@field from string?         of smtp
 * ---@field to string|string[]?  of smtp
 * ---@field user secret?         of smtp
 * ---@field password secret?     of smtp
 * ---@field tls "required"|"none"?   of smtp://
 * ---@field digest number?       seconds within which alerts become one message
 * ---@field per_minute integer?  messages in any minute
 * ---@param name string
 * ---@return fun(v: sink_declaration)
 * function sink(name) end */
int pry_declare_head(lua_State *L)
{
  enum pry_object_kind kind = (enum pry_object_kind)lua_tointeger(L, lua_upvalueindex(1));
  const char *word = lua_touserdata(L, lua_upvalueindex(2));
  struct pry_declaration *d = pry_declaration_of(L, word);
  lua_settop(L, 2);
  size_t size = 0;
  const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tolstring(L, 1, &size) : "";
  struct pry_slice text = {name, size};
  struct pry_object *head = pry_object_push(L, d, kind, word, NULL);
  head->name = pry_declare_copy(L, d, text);
  const char *wrong = kind == PRY_OBJECT_ROUTE ? NULL : pry_name_complaint(text);
  if (lua_type(L, 1) != LUA_TSTRING)
    pry_complain(d, head->place, "%s needs a name: %s \"%s\" { ... }", word, word,
                 kind == PRY_OBJECT_ROUTE ? "/v1/*" : "name");
  else if (wrong)
    pry_complain(d, head->place, "%s \"%.63s\": the name %s", word, head->name, wrong);
  struct pry_object **kept = pry_declare_take(L, d, sizeof *kept);
  *kept = head;
  pry_declare_push(L, d, &d->heads, kept);
  head->complete = lua_type(L, 1) != LUA_TSTRING; /* one finding is enough */
  /* The object must live as long as d->heads points at it. */
  pry_functions_push(L, PRY_FUNCTIONS_POLICIES);
  lua_pushvalue(L, 3);
  lua_rawsetp(L, -2, kept);
  lua_settop(L, 3);
  if (!lua_isnil(L, 2) && !head->complete)
    pry_object_complete(L, d, head);
  lua_settop(L, 3);
  return 1;
}

/* ---- auth ---------------------------------------------------------------------------------------------- */

/* X of bearer(X) and header("name", X), at `index`. */
static void read_auth_source(lua_State *L, struct pry_declaration *d, struct pry_declared_auth *auth, int index,
                             const char *function)
{
  const char *secret = pry_declare_secret_name(L, index);
  const struct pry_object *credential = pry_object_at(L, index, PRY_OBJECT_CREDENTIAL);
  if (secret)
    auth->secret = pry_declare_copy(L, d, pry_slice_of(secret));
  else if (credential)
    auth->credential = credential->name;
  else if (lua_type(L, index) == LUA_TSTRING) /* perhaps the key itself: not repeated */
    pry_complain(d, auth->place,
                 "%s takes secret \"NAME\" or credential \"name\", got a text; a key does not belong into a file that "
                 "people copy and commit",
                 function);
  else
    pry_complain(d, auth->place, "%s takes secret \"NAME\" or credential \"name\", got %s", function,
                 luaL_typename(L, index));
}

static struct pry_declared_auth *push_auth(lua_State *L, struct pry_declaration *d, enum pry_auth_kind kind,
                                           const char *word)
{
  struct pry_declared_auth *auth = pry_declare_take(L, d, sizeof *auth);
  auth->kind = kind;
  auth->place = pry_place_here(L, d);
  pry_object_push(L, d, PRY_OBJECT_AUTH, word, auth);
  return auth;
}

/* ---@param source secret|fun(v: table)   secret "NAME" or credential "c"
 * ---@return auth
 * function bearer(source) end */
int pry_declare_bearer(lua_State *L)
{
  struct pry_declaration *d = pry_declaration_of(L, "bearer");
  lua_settop(L, 1);
  struct pry_declared_auth *auth = push_auth(L, d, PRY_AUTH_BEARER, "bearer");
  read_auth_source(L, d, auth, 1, "bearer");
  return 1;
}

/* RFC 9110 §5.6.2: a token. */
static bool is_field_name(struct pry_slice name)
{
  for (size_t i = 0; i < name.size; i++) {
    unsigned char c = (unsigned char)name.data[i];
    if (c <= ' ' || c >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", c))
      return false;
  }
  return name.size > 0 && name.size < 128;
}

/* ---@param name string   such as "x-api-key"
 * ---@param source secret|fun(v: table)   secret "NAME" or credential "c"
 * ---@return auth
 * function header(name, source) end */
int pry_declare_header(lua_State *L)
{
  struct pry_declaration *d = pry_declaration_of(L, "header");
  lua_settop(L, 2);
  struct pry_declared_auth *auth = push_auth(L, d, PRY_AUTH_HEADER, "header");
  size_t size = 0;
  const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tolstring(L, 1, &size) : "";
  auth->header = pry_declare_copy(L, d, (struct pry_slice){name, size});
  if (!is_field_name((struct pry_slice){name, size}))
    pry_complain(d, auth->place,
                 "header needs the name of an HTTP field first: header(\"x-api-key\", secret \"NAME\")");
  read_auth_source(L, d, auth, 2, "header");
  return 1;
}

/* ---@return auth   the client's own credentials are sent
 * function passthrough() end */
int pry_declare_passthrough(lua_State *L)
{
  push_auth(L, pry_declaration_of(L, "passthrough"), PRY_AUTH_PASSTHROUGH, "passthrough");
  return 1;
}

static struct pry_declared_auth read_auth(const struct pry_form *form, bool may_pass_through)
{
  struct pry_declared_auth none = {.kind = PRY_AUTH_NONE, .place = form->place};
  lua_State *L = form->L;
  char shown[PRY_SHOWN_MAX];
  if (!form->table)
    return none;
  lua_pushliteral(L, "auth");
  lua_rawget(L, form->table);
  const struct pry_object *object = pry_object_at(L, -1, PRY_OBJECT_AUTH);
  const char *choices =
      may_pass_through ? "bearer(X), header(\"name\", X) or passthrough()" : "bearer(X) or header(\"name\", X)";
  if (object && ((const struct pry_declared_auth *)object->data)->kind == PRY_AUTH_PASSTHROUGH && !may_pass_through)
    pry_form_complain(form, "auth", "must be %s; there is no client's own credential here", choices);
  else if (object)
    none = *(const struct pry_declared_auth *)object->data;
  else if (!lua_isnil(L, -1))
    pry_form_complain(form, "auth", "must be %s with X a secret \"NAME\" or credential \"name\", got %s", choices,
                      pry_show_kind(L, -1, shown));
  lua_pop(L, 1);
  return none;
}

/* ---- parts --------------------------------------------------------------------------------------------- */

static const char *read_url(const struct pry_form *form, const char *key)
{
  const char *url = pry_form_text(form, key, PRY_REQUIRED);
  const char *wrong = url ? pry_base_url_complaint(pry_slice_of(url)) : NULL;
  if (wrong) { /* not shown: it may hold a password */
    pry_form_complain(form, key, "%s", wrong);
    return NULL;
  }
  return url;
}

static const char *read_base_url(const struct pry_form *form)
{
  const char *url = read_url(form, "base_url");
  size_t size = url ? strlen(url) : 0;
  while (size && url[size - 1] == '/')
    size--;
  return url ? pry_declare_copy(form->L, form->d, (struct pry_slice){url, size}) : "";
}

static void read_timeout(const struct pry_form *form, const char *key, pry_time *timeout)
{
  double seconds;
  if (pry_form_number(form, key, 0.001, TIMEOUT_MAX, "s", &seconds))
    *timeout = pry_time_from_seconds(seconds);
}

struct pry_timeouts pry_declare_timeouts(const struct pry_form *form)
{
  static const char *const known[] = {"connect", "first_byte", "idle", "attempt"};
  struct pry_timeouts timeouts = {0};
  struct pry_form inner;
  if (pry_form_enter(form, "timeouts", "timeouts.", &inner)) {
    pry_form_known(&inner, known, sizeof known / sizeof *known, false);
    read_timeout(&inner, "connect", &timeouts.connect);
    read_timeout(&inner, "first_byte", &timeouts.first_byte);
    read_timeout(&inner, "idle", &timeouts.idle);
    read_timeout(&inner, "attempt", &timeouts.attempt);
  }
  lua_pop(form->L, 1);
  return timeouts;
}

static const char *make_subject(lua_State *L, struct pry_declaration *d, const struct pry_object *head)
{
  char subject[160];
  snprintf(subject, sizeof subject, "%s \"%.100s\"", head->word, head->name);
  return pry_declare_copy(L, d, pry_slice_of(subject));
}

/* `first` lies at the beginning of what the pointers hold: its name, and the place of an earlier one. */
static bool is_new(struct pry_declaration *d, const struct pry_object *head, const struct pry_place *earlier)
{
  if (!earlier)
    return true;
  pry_complain(d, head->place, "%s \"%.100s\": is declared twice, first at %s:%d", head->word, head->name,
               earlier->file ? earlier->file->path : "?", earlier->line);
  return false;
}

static bool has_field(const struct pry_form *form, const char *key)
{
  if (!form->table)
    return false;
  lua_pushstring(form->L, key);
  bool has = lua_rawget(form->L, form->table) != LUA_TNIL;
  lua_pop(form->L, 1);
  return has;
}

/* ---- the declarations ---------------------------------------------------------------------------------- */

/* host = true: who embeds parry makes the attempts, with addresses and credentials of its own. */
static bool read_host(const struct pry_form *form)
{
  static const char *const of_urls[] = {"base_url", "auth", "keys", "rotate"};
  bool host = false;
  pry_form_boolean(form, "host", &host);
  for (size_t i = 0; host && i < sizeof of_urls / sizeof *of_urls; i++)
    if (has_field(form, of_urls[i]))
      pry_form_complain(form, of_urls[i],
                        "and host = true exclude each other; the host program makes the attempts, where and with what "
                        "it likes");
  return host;
}

void pry_declare_provider(lua_State *L, struct pry_declaration *d, const struct pry_object *head, int index)
{
  static const char *const known[] = {"base_url", "host", "dialect", "auth", "timeouts", "models", "keys", "rotate"};
  struct pry_form form = pry_form_open(d, L, index, head->place, make_subject(L, d, head));
  const struct pry_place *earlier = NULL;
  for (size_t i = 0; i < d->providers.count; i++) {
    const struct pry_declared_provider *other = d->providers.items[i];
    if (strcmp(other->provider.name, head->name) == 0)
      earlier = &other->place;
  }
  struct pry_declared_provider *declared = pry_declare_take(L, d, sizeof *declared);
  pry_form_known(&form, known, sizeof known / sizeof *known, false);
  declared->place = head->place;
  declared->provider.name = head->name;
  bool host = declared->provider.host = read_host(&form);
  declared->provider.base_url = host ? "" : read_base_url(&form);
  declared->dialect = pry_form_text(&form, "dialect", host ? PRY_OPTIONAL : PRY_REQUIRED);
  if (!declared->dialect && host)
    declared->dialect = pry_dialect_generic.name;
  declared->auth = read_auth(&form, true);
  declared->provider.timeouts = pry_declare_timeouts(&form);
  if (host && (declared->provider.timeouts.connect || declared->provider.timeouts.first_byte ||
               declared->provider.timeouts.idle))
    pry_form_complain(&form, "timeouts",
                      "of a provider with host = true can only have attempt; the others are for "
                      "connections of parry's own");
  pry_declare_models(&form, &declared->provider);
  pry_declare_keys(&form, declared);
  if (is_new(d, head, earlier))
    pry_declare_push(L, d, &d->providers, declared);
}

void pry_declare_service(lua_State *L, struct pry_declaration *d, const struct pry_object *head, int index)
{
  static const char *const known[] = {"base_url", "auth"};
  struct pry_form form = pry_form_open(d, L, index, head->place, make_subject(L, d, head));
  const struct pry_place *earlier = NULL;
  for (size_t i = 0; i < d->services.count; i++) {
    const struct pry_declared_service *other = d->services.items[i];
    if (strcmp(other->service.name, head->name) == 0)
      earlier = &other->place;
  }
  struct pry_declared_service *declared = pry_declare_take(L, d, sizeof *declared);
  pry_form_known(&form, known, sizeof known / sizeof *known, false);
  declared->place = head->place;
  declared->service.name = head->name;
  declared->service.base_url = read_base_url(&form);
  declared->auth = read_auth(&form, false);
  if (is_new(d, head, earlier))
    pry_declare_push(L, d, &d->services, declared);
}

const char *pry_declare_secret_field(const struct pry_form *form, const char *key)
{
  const char *name = NULL;
  char shown[PRY_SHOWN_MAX];
  if (!form->table)
    return NULL;
  lua_pushstring(form->L, key);
  lua_rawget(form->L, form->table);
  const char *secret = pry_declare_secret_name(form->L, -1);
  if (secret)
    name = pry_declare_copy(form->L, form->d, pry_slice_of(secret));
  else if (!lua_isnil(form->L, -1))
    pry_form_complain(form, key, "must be secret \"NAME\", got %s", pry_show_kind(form->L, -1, shown));
  lua_pop(form->L, 1);
  return name;
}

void pry_declare_sink(lua_State *L, struct pry_declaration *d, const struct pry_object *head, int index)
{
  struct pry_form form = pry_form_open(d, L, index, head->place, make_subject(L, d, head));
  const struct pry_place *earlier = NULL;
  for (size_t i = 0; i < d->sinks.count; i++) {
    const struct pry_declared_sink *other = d->sinks.items[i];
    if (strcmp(other->sink.name, head->name) == 0)
      earlier = &other->place;
  }
  struct pry_declared_sink *declared = pry_declare_take(L, d, sizeof *declared);
  declared->place = head->place;
  declared->sink.name = head->name;
  pry_declare_sink_fields(&form, declared);
  if (is_new(d, head, earlier))
    pry_declare_push(L, d, &d->sinks, declared);
}

static const char *read_grant(const struct pry_form *form, bool has_refresh)
{
  static const char *const grants[] = {"oauth", "kimi"};
  char hint[PRY_HINT_MAX];
  const char *grant = pry_form_text(form, "grant", has_refresh ? PRY_OPTIONAL : PRY_REQUIRED);
  if (has_refresh && grant)
    pry_form_complain(form, "grant", "and refresh exclude each other; refresh replaces the built-in grants");
  if (has_refresh || !grant)
    return "lua";
  for (size_t i = 0; i < sizeof grants / sizeof *grants; i++)
    if (strcmp(grant, grants[i]) == 0)
      return grants[i];
  pry_form_complain(form, "grant", "cannot be \"%.60s\"%s", grant, pry_hint(grant, grants, 2, "known are", hint));
  return "lua";
}

void pry_declare_credential(lua_State *L, struct pry_declaration *d, const struct pry_object *head, int index)
{
  static const char *const known[] = {"refresh_token", "access_token", "token_url", "grant", "refresh"};
  struct pry_form form = pry_form_open(d, L, index, head->place, make_subject(L, d, head));
  const struct pry_place *earlier = NULL;
  for (size_t i = 0; i < d->credentials.count; i++) {
    const struct pry_declared_credential *other = d->credentials.items[i];
    if (strcmp(other->credential.name, head->name) == 0)
      earlier = &other->place;
  }
  struct pry_declared_credential *declared = pry_declare_take(L, d, sizeof *declared);
  pry_form_known(&form, known, sizeof known / sizeof *known, false);
  bool has_refresh = has_field(&form, "refresh");
  declared->place = head->place;
  declared->credential.name = head->name;
  declared->credential.index = d->credentials.count;
  if (form.table && !has_refresh && !has_field(&form, "refresh_token"))
    pry_complain(d, form.place, "%s: needs refresh_token = secret \"...\"", form.subject);
  declared->refresh_token = pry_declare_secret_field(&form, "refresh_token");
  declared->access_token = pry_declare_secret_field(&form, "access_token");
  declared->credential.grant = read_grant(&form, has_refresh);
  if (!has_refresh || has_field(&form, "token_url"))
    declared->credential.token_url = read_url(&form, "token_url");
  if (!is_new(d, head, earlier))
    return;
  if (pry_form_function(&form, "refresh")) {
    pry_functions_push(L, PRY_FUNCTIONS_CREDENTIALS);
    lua_createtable(L, 1, 0);
    lua_rotate(L, -3, -1);
    lua_rawseti(L, -2, PRY_SLOT_REFRESH);
    lua_rawseti(L, -2, (lua_Integer)declared->credential.index + 1);
    lua_pop(L, 1);
  }
  pry_declare_push(L, d, &d->credentials, declared);
}

/* ---@param v table
 * ---@deprecated
 * Not available yet.
 * function clients(v) end */
int pry_declare_clients(lua_State *L)
{
  static const char *const known[] = {"file"};
  struct pry_declaration *d = pry_declaration_of(L, "clients");
  lua_settop(L, 1);
  struct pry_place place = pry_place_here(L, d);
  struct pry_form form = pry_form_open(d, L, 1, place, "clients");
  pry_form_known(&form, known, sizeof known / sizeof *known, false);
  const char *file = pry_form_text(&form, "file", PRY_REQUIRED);
  size_t size = file ? strlen(file) : 0;
  if (d->config->clients_file)
    pry_complain(d, place, "clients: is declared twice, first at %s:%d", d->clients.file ? d->clients.file->path : "?",
                 d->clients.line);
  else if (size >= CLIENTS_FILE_MAX)
    pry_form_complain(&form, "file", "is longer than %d bytes", CLIENTS_FILE_MAX - 1);
  else if (file && size > 4 && strcmp(file + size - 4, ".lua") == 0)
    pry_form_complain(&form, "file", "names a policy file; clients stand in a file of their own, say \"clients.json\"");
  else if (file)
    d->config->clients_file = file;
  d->clients = place;
  return 0;
}
